//! `generationConfig`: how tokens are picked, how the model is to think, and the
//! shape of its answer.

use super::wrong;
use crate::protocol::gemini::spelling::{as_whole, camel, find, text};
use crate::protocol::ir::{
    Digits, Display, Effort, Format, Invalid, Reasoning, ReasoningMode, Request, Sampling,
};
use crate::protocol::json::{Raw, Str, Value};
use crate::protocol::notes::{Action, Notes};
use crate::protocol::schema;

/// What the shape of the answer is made of.
#[derive(Default)]
struct Shape<'a> {
    mime: Option<Str<'a>>,
    google: Option<Value<'a>>,
    json: Option<Value<'a>>,
}

/// Reads `generationConfig` into the request.
pub(super) fn decode<'a>(
    config: Value<'a>,
    request: &mut Request<'a>,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    if !config.is_object() {
        return Err(wrong("generationConfig", "an object", config));
    }
    let mut shape = Shape::default();
    for (name, value) in config.members() {
        if value.is_null() {
            continue;
        }
        let name = camel(&name);
        let path = || format!("generationConfig.{name}");
        match &*name {
            "responseMimeType" => shape.mime = value.as_str(),
            "responseSchema" => shape.google = Some(value),
            "responseJsonSchema" => shape.json = Some(value),
            "responseModalities" => request.image_output = images(value)?,
            "thinkingConfig" => request.reasoning = Some(thinking(value)?),
            "mediaResolution" => notes.info(Action::Dropped, path()),
            other => {
                if !sampling(other, value, &mut request.sampling)? {
                    value.whole();
                    notes.warn(Action::Dropped, path());
                }
            }
        }
    }
    request.format = shape.format()?;
    Ok(())
}

/// Takes a field of sampling; `false` when it is none.
fn sampling<'a>(name: &str, value: Value<'a>, to: &mut Sampling<'a>) -> Result<bool, Invalid> {
    let path = || format!("generationConfig.{name}");
    let count = || as_whole(value).ok_or_else(|| wrong(path(), "a whole number", value));
    let digits = || {
        let text = value.number();
        let value_of = |text: &'a str| {
            Some(Digits {
                text,
                value: text.parse().ok()?,
            })
        };
        let read = text.and_then(value_of);
        read.ok_or_else(|| wrong(path(), "a number", value))
    };
    match name {
        "maxOutputTokens" => to.max_output = Some(count()?),
        "temperature" => to.temperature = Some(digits()?),
        "topP" => to.top_p = Some(digits()?),
        "topK" => to.top_k = Some(count()?),
        "frequencyPenalty" => to.frequency_penalty = Some(digits()?),
        "presencePenalty" => to.presence_penalty = Some(digits()?),
        "seed" => to.seed = Some(digits()?),
        "stopSequences" => {
            let one = value.is_str().then_some(value);
            let stops = value.items().chain(one);
            to.stop = stops.filter_map(|stop| stop.as_str()).collect();
        }
        "candidateCount" => to.n = Some(count()?),
        "responseLogprobs" => to.logprobs = value.as_bool() == Some(true),
        "logprobs" => to.top_logprobs = Some(count()?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Whether images are asked for. Sound is refused.
fn images(value: Value<'_>) -> Result<bool, Invalid> {
    let mut images = false;
    let one = value.is_str().then_some(value);
    for modality in value.items().chain(one).filter_map(|word| word.as_str()) {
        match modality.plain().to_ascii_uppercase().as_str() {
            "TEXT" | "MODALITY_UNSPECIFIED" => {}
            "IMAGE" => images = true,
            other => {
                return Err(Invalid::unsupported(
                    "unsupported_content",
                    "generationConfig.responseModalities",
                    format!("answers of the kind '{other}' can't be had from the model's provider"),
                ));
            }
        }
    }
    Ok(images)
}

fn thinking(config: Value<'_>) -> Result<Reasoning, Invalid> {
    let path = "generationConfig.thinkingConfig";
    let shown = find(config, "includeThoughts").and_then(|shown| shown.as_bool());
    let budget = find(config, "thinkingBudget");
    let level = text(config, "thinkingLevel");
    if budget.is_some() && level.is_some() {
        let message = "thinkingBudget and thinkingLevel exclude each other";
        return Err(Invalid::request(path, message));
    }
    let mut reasoning = Reasoning {
        display: match shown {
            Some(true) => Display::Summary,
            Some(false) => Display::Omit,
            None => Display::Default,
        },
        ..Reasoning::default()
    };
    if let Some(budget) = budget {
        let tokens = budget
            .as_i64()
            .or_else(|| budget.as_str()?.plain().parse().ok());
        let path = || format!("{path}.thinkingBudget");
        let tokens = tokens.ok_or_else(|| wrong(path(), "a whole number", budget))?;
        reasoning.budget = Some(tokens);
        reasoning.mode = match tokens {
            0 => ReasoningMode::Off,
            ..0 => ReasoningMode::Adaptive,
            _ => ReasoningMode::On,
        };
    }
    if let Some(level) = level {
        reasoning.effort = effort(&level.plain()).ok_or_else(|| {
            let message = format!("'{}' is no level of thinking", level.plain());
            Invalid::request(format!("{path}.thinkingLevel"), message)
        })?;
    }
    Ok(reasoning)
}

/// The effort that a level stands for; none where it is not said.
fn effort(level: &str) -> Option<Option<Effort>> {
    if level.eq_ignore_ascii_case("THINKING_LEVEL_UNSPECIFIED") {
        return Some(None);
    }
    Effort::from_name(level)
        .filter(|effort| !matches!(effort, Effort::None | Effort::Max))
        .map(Some)
}

impl<'a> Shape<'a> {
    fn format(self) -> Result<Format<'a>, Invalid> {
        let schema: Option<Raw<'a>> = match (self.google, self.json) {
            (Some(_), Some(_)) => {
                let message = "responseSchema and responseJsonSchema exclude each other";
                return Err(Invalid::request("generationConfig.responseSchema", message));
            }
            (Some(google), None) => Some(schema::from_gemini(&google.raw())),
            (None, json) => json.map(|json| json.raw()),
        };
        let mime = self.mime.map(|mime| mime.plain().to_ascii_lowercase());
        let bare_enum = match mime.as_deref() {
            Some("text/x.enum") => true,
            Some("text/plain" | "application/json") | None => false,
            Some(other) => {
                return Err(Invalid::unsupported(
                    "unsupported_parameter",
                    "generationConfig.responseMimeType",
                    format!("answers of the type '{other}' can't be had from the model's provider"),
                ));
            }
        };
        Ok(match schema {
            Some(schema) => Format::Schema {
                name: None,
                description: None,
                schema,
                strict: None,
                bare_enum,
            },
            None if mime.as_deref() == Some("application/json") => Format::JsonObject,
            None => Format::Text,
        })
    }
}
