//! How hard to think, in the words of the provider's dialect.

use crate::protocol::ir::{Effort, Reasoning, ReasoningMode};
use crate::protocol::json::Object;
use crate::protocol::notes::{Action, Field};

use super::Scope;

/// Writes `reasoning_effort`, or `thinking` where the model is switched on and
/// off. `forced` says that a tool must be called.
pub(super) fn write(scope: &mut Scope<'_, '_>, forced: bool, body: &mut Object<'_>) {
    let Some(reasoning) = &scope.request.reasoning else {
        return;
    };
    let thinking = scope.target.capabilities.thinking;
    if thinking.effort {
        effort(scope, reasoning, body);
    } else if thinking.off || thinking.budget {
        switch(scope, reasoning, forced, body);
    } else if asks(reasoning) {
        scope.drop(Field::Reasoning);
    }
}

/// Whether anything is asked for that a model without reasoning doesn't do anyway.
fn asks(reasoning: &Reasoning) -> bool {
    let effort = reasoning
        .effort
        .is_some_and(|effort| effort != Effort::None);
    let budget = reasoning.budget.is_some_and(|budget| budget != 0);
    effort || (budget && reasoning.mode != ReasoningMode::Off)
}

fn effort(scope: &mut Scope<'_, '_>, reasoning: &Reasoning, body: &mut Object<'_>) {
    let Some(wanted) = wanted(reasoning) else {
        return;
    };
    let known = &scope.target.capabilities.efforts;
    let given = match wanted {
        // Off is a word of its own: a model that doesn't know it gets its weakest.
        Effort::None if known.contains(&Effort::None) => Some(Effort::None),
        Effort::None => known.iter().copied().min(),
        wanted => scope.target.capabilities.nearest_effort(wanted),
    };
    let Some(given) = given else {
        return scope.drop(Field::Effort);
    };
    if given != wanted {
        let path = scope.path(Field::Effort);
        let note = format!("{path}={}>{}", wanted.name(), given.name());
        scope.notes.warn_at(Action::Coerced, note, path);
    }
    body.text("reasoning_effort", given.name());
}

/// The effort that was asked for, or that a budget amounts to. `None` leaves it
/// to the model.
fn wanted(reasoning: &Reasoning) -> Option<Effort> {
    if reasoning.mode == ReasoningMode::Off {
        return Some(Effort::None);
    }
    if reasoning.effort.is_some() {
        return reasoning.effort;
    }
    match reasoning.budget? {
        ..0 => None,
        0 => Some(Effort::None),
        1..=1024 => Some(Effort::Low),
        1025..=8192 => Some(Effort::Medium),
        8193..=24576 => Some(Effort::High),
        _ => Some(Effort::XHigh),
    }
}

/// `thinking{type}`, as the providers of several open models have it.
fn switch(scope: &mut Scope<'_, '_>, reasoning: &Reasoning, forced: bool, body: &mut Object<'_>) {
    let capabilities = scope.target.capabilities;
    let off = reasoning.mode == ReasoningMode::Off || wanted(reasoning) == Some(Effort::None);
    if forced && !off && !capabilities.forced_with_thinking && capabilities.thinking.off {
        scope.drop(Field::Reasoning);
        body.object("thinking").text("type", "disabled");
        return;
    }
    if off {
        match capabilities.thinking.off {
            true => _ = body.object("thinking").text("type", "disabled"),
            false => scope.drop(Field::Reasoning),
        }
        return;
    }
    let mut thinking = body.object("thinking");
    thinking.text("type", "enabled");
    match reasoning.budget {
        Some(budget @ 1..) if capabilities.thinking.budget => {
            thinking.number("budget_tokens", budget);
        }
        Some(1..) => scope.drop(Field::Budget),
        _ if reasoning.effort.is_some() => {
            scope.notes.info(Action::Dropped, scope.path(Field::Effort));
        }
        _ => {}
    }
}
