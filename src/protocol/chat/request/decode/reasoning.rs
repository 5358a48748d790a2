//! How a client says how hard to think: OpenAI's word for it, and the three other
//! ways that clients of chat have got used to.

use crate::protocol::ir::{Display, Effort, Invalid, Reasoning, ReasoningMode};
use crate::protocol::json::Str;

use super::Fields;

/// Reads all of them; OpenAI's own word wins.
pub(super) fn decode(body: &Fields<'_>) -> Result<Option<Reasoning>, Invalid> {
    let mut said = Reasoning::default();
    google(body, &mut said)?;
    if let Some(thinking) = body.object("thinking")? {
        anthropic(&thinking, &mut said)?;
    }
    if let Some(reasoning) = body.object("reasoning")? {
        openrouter(&reasoning, &mut said)?;
    }
    if body.flag("include_reasoning")? == Some(false) {
        said.display = Display::Omit;
    }
    if let Some(word) = body.string("reasoning_effort")? {
        effort(&word, "reasoning_effort", &mut said)?;
    }
    Ok((said != Reasoning::default()).then_some(said))
}

fn effort(word: &Str<'_>, path: &str, said: &mut Reasoning) -> Result<(), Invalid> {
    let effort = Effort::from_name(&word.plain());
    let unknown = || Invalid::request(path, format!("'{}' is no known effort", word.plain()));
    let effort = effort.ok_or_else(unknown)?;
    said.effort = Some(effort);
    if effort == Effort::None {
        said.mode = ReasoningMode::Off;
    }
    Ok(())
}

/// `reasoning{effort,max_tokens,exclude,enabled}`, as OpenRouter has it.
fn openrouter(reasoning: &Fields<'_>, said: &mut Reasoning) -> Result<(), Invalid> {
    match reasoning.flag("enabled")? {
        Some(true) => said.mode = ReasoningMode::On,
        Some(false) => said.mode = ReasoningMode::Off,
        None => {}
    }
    if let Some(word) = reasoning.string("effort")? {
        effort(&word, &reasoning.path("effort"), said)?;
    }
    if let Some(budget) = reasoning.count("max_tokens")? {
        said.budget = i64::try_from(budget).ok();
    }
    if reasoning.flag("exclude")? == Some(true) {
        said.display = Display::Omit;
    } else if reasoning.some("summary").is_some() {
        said.display = Display::Summary;
    }
    Ok(())
}

/// `thinking{type,budget_tokens}`, as Anthropic has it.
fn anthropic(thinking: &Fields<'_>, said: &mut Reasoning) -> Result<(), Invalid> {
    let kind = thinking.wanted("type")?;
    said.mode = match kind.plain().as_ref() {
        "enabled" => ReasoningMode::On,
        "disabled" => ReasoningMode::Off,
        "adaptive" | "auto" => ReasoningMode::Adaptive,
        other => {
            let message = format!("'{other}' is no type of thinking");
            return Err(Invalid::request(thinking.path("type"), message));
        }
    };
    if let Some(budget) = thinking.count("budget_tokens")? {
        said.budget = i64::try_from(budget).ok();
    }
    Ok(())
}

/// `extra_body.google.thinking_config`, as Google's own chat endpoint has it; the
/// SDKs of OpenAI take `extra_body` itself away.
fn google(body: &Fields<'_>, said: &mut Reasoning) -> Result<(), Invalid> {
    let outer = match body.object("extra_body")? {
        Some(extra) => extra.object("google")?,
        None => None,
    };
    let google = match outer {
        Some(google) => Some(google),
        None => body.object("google")?,
    };
    let config = google.map(|google| google.object("thinking_config"));
    let Some(config) = config.transpose()?.flatten() else {
        return Ok(());
    };
    said.budget = config.some("thinking_budget").and_then(|v| v.as_i64());
    if let Some(level) = config.string("thinking_level")? {
        effort(&level, &config.path("thinking_level"), said)?;
    }
    said.display = match config.flag("include_thoughts")? {
        Some(true) => Display::Summary,
        Some(false) => Display::Omit,
        None => Display::Default,
    };
    Ok(())
}
