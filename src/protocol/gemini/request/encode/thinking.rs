//! How hard to think: a level for the models that take levels, a budget for those
//! before them, never both.

use crate::protocol::Protocol;
use crate::protocol::capabilities::Capabilities;
use crate::protocol::ir::{Display, Effort, Reasoning, ReasoningMode, Request};
use crate::protocol::json::Object;
use crate::protocol::notes::{Action, Field, Notes};

/// The least that a model thinks that can't be told not to.
const LEAST: i64 = 128;
/// The most of those models, and of the others.
const MOST: i64 = 32_768;
const MOST_OF_SMALL: i64 = 24_576;

/// What is asked of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Level(&'static str),
    Budget(i64),
}

/// Writes the member `thinkingConfig`, if there is anything to say.
pub(super) fn write(
    request: &Request<'_>,
    capabilities: &Capabilities,
    notes: &mut Notes,
    config: &mut Object<'_>,
) {
    let thinking = capabilities.thinking;
    let order = match &request.reasoning {
        Some(reasoning) if thinking.levels => level(reasoning, capabilities, request, notes),
        Some(reasoning) if thinking.budget => budget(reasoning, capabilities, request, notes),
        Some(reasoning) => {
            if wants(reasoning) {
                notes.warn(Action::Dropped, Field::Reasoning.path(request.origin));
            }
            return;
        }
        None => None,
    };
    let shown = (thinking.levels || thinking.budget) && is_shown(request);
    if order.is_none() && !shown {
        return;
    }
    let mut thinking = config.object("thinkingConfig");
    match order {
        Some(Order::Level(level)) => {
            thinking.text("thinkingLevel", level);
        }
        Some(Order::Budget(tokens)) => {
            thinking.number("thinkingBudget", tokens);
        }
        None => {}
    }
    if shown {
        thinking.bool("includeThoughts", true);
    }
}

/// Whether the client will see reasoning.
fn is_shown(request: &Request<'_>) -> bool {
    let display = request
        .reasoning
        .as_ref()
        .map(|reasoning| reasoning.display);
    if request.reasoning.as_ref().is_some_and(is_off) {
        return false;
    }
    let encrypted = "reasoning.encrypted_content";
    match (request.origin, display) {
        (_, Some(Display::Summary)) => true,
        (_, Some(Display::Omit)) => false,
        (Protocol::Chat, _) => true,
        (Protocol::Messages, display) => display.is_some(),
        (Protocol::Responses, _) => request.state.include.iter().any(|word| word.is(encrypted)),
        _ => false,
    }
}

fn is_off(reasoning: &Reasoning) -> bool {
    reasoning.mode == ReasoningMode::Off
        || reasoning.effort == Some(Effort::None)
        || reasoning.budget == Some(0)
}

/// Whether reasoning is asked for, so that it is missed where there is none.
fn wants(reasoning: &Reasoning) -> bool {
    let said = reasoning.mode != ReasoningMode::Default
        || reasoning.effort.is_some()
        || reasoning.budget.is_some();
    said && !is_off(reasoning)
}

/// The effort that is meant, and whether the client named it.
fn effort(reasoning: &Reasoning) -> Option<(Effort, bool)> {
    if is_off(reasoning) {
        return Some((Effort::None, true));
    }
    if let Some(effort) = reasoning.effort {
        return Some((effort, true));
    }
    let meant = match reasoning.budget? {
        ..0 => return None,
        0..=1024 => Effort::Low,
        1025..=8192 => Effort::Medium,
        8193..=24_576 => Effort::High,
        _ => Effort::XHigh,
    };
    Some((meant, false))
}

fn level(
    reasoning: &Reasoning,
    capabilities: &Capabilities,
    request: &Request<'_>,
    notes: &mut Notes,
) -> Option<Order> {
    let (wanted, named) = effort(reasoning)?;
    let known = |effort: Effort| capabilities.efforts.contains(&effort);
    let found = match wanted {
        // A model with levels always thinks a little.
        Effort::None => capabilities.nearest_effort(Effort::Minimal),
        // Better a little more than was asked than much less.
        Effort::Medium if !known(Effort::Medium) && known(Effort::High) => Some(Effort::High),
        wanted => capabilities.nearest_effort(wanted),
    };
    let found = found?.max(Effort::Minimal);
    if named && found != wanted {
        let field = Field::Effort.path(request.origin);
        let what = format!("{field}={}>{}", wanted.name(), found.name());
        notes.warn_at(Action::Coerced, what, field);
    } else if !named {
        notes.info(Action::Coerced, Field::Budget.path(request.origin));
    }
    Some(Order::Level(match found {
        Effort::None | Effort::Minimal => "MINIMAL",
        Effort::Low => "LOW",
        Effort::Medium => "MEDIUM",
        Effort::High => "HIGH",
        Effort::XHigh | Effort::Max => "XHIGH",
    }))
}

fn budget(
    reasoning: &Reasoning,
    capabilities: &Capabilities,
    request: &Request<'_>,
    notes: &mut Notes,
) -> Option<Order> {
    let (least, most) = if capabilities.thinking.off {
        (0, MOST_OF_SMALL)
    } else {
        (LEAST, MOST)
    };
    if is_off(reasoning) {
        if least > 0 {
            let field = Field::Reasoning.path(request.origin);
            notes.warn_at(Action::Coerced, format!("{field}=off>{least}"), field);
        }
        return Some(Order::Budget(least));
    }
    let wanted = match (reasoning.budget, reasoning.effort) {
        (Some(tokens), None) if tokens < 0 => return Some(Order::Budget(-1)),
        (Some(tokens), _) if tokens > 0 => {
            let tokens_given = tokens.clamp(least, most);
            if tokens_given != tokens {
                let field = Field::Budget.path(request.origin);
                let what = format!("{field}={tokens}>{tokens_given}");
                notes.warn_at(Action::Coerced, what, field);
            }
            return Some(Order::Budget(tokens_given));
        }
        (_, Some(effort)) => effort,
        (_, None) => return None,
    };
    Some(Order::Budget(match wanted {
        Effort::None => least,
        Effort::Minimal | Effort::Low => 1024,
        Effort::Medium => 8192,
        Effort::High => 24_576.min(most),
        Effort::XHigh | Effort::Max => most,
    }))
}
