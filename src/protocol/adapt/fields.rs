//! Fields that move: reasoning in the history, reasoning options, the model's name.

use super::{Condition, Destination, OverrideRule, RewriteRule};
use crate::protocol::Protocol;
use crate::protocol::edit::Edits;
use crate::protocol::history;
use crate::protocol::json::Value;
use crate::protocol::notes::{Action, Notes};
use crate::protocol::path::Path;

/// DeepSeek and Fireworks read the reasoning of earlier turns from
/// `reasoning_content` alone, and some refuse a history without it.
pub(super) fn reasoning_content<'t>(root: Value<'t>, edits: &mut Edits<'t>, notes: &mut Notes) {
    const NAME: &str = "reasoning_content";
    for turn in history::turns(Protocol::Chat, root) {
        if !history::says(turn, "role", "assistant") || turn.some(NAME).is_some() {
            continue;
        }
        let plain = turn.get("reasoning").filter(Value::is_str);
        let thinking = turn.get("thinking").and_then(|value| value.get("content"));
        let (from, text) = match (plain, thinking.filter(Value::is_str)) {
            (Some(text), _) => ("reasoning", text),
            (None, Some(text)) => ("thinking", text),
            (None, None) => continue,
        };
        // A null of that name is in the way.
        edits.remove_member(turn, NAME);
        edits.remove_member(turn, from);
        edits.insert(turn, NAME, text.raw().as_str());
        notes.info(Action::Coerced, format!("{from}>{NAME}"));
    }
}

/// The name that the first fitting rule gives.
pub(super) fn model_override<'t>(
    rules: &[OverrideRule],
    to: Destination<'_>,
    root: Value<'t>,
    edits: &mut Edits<'t>,
    notes: &mut Notes,
) -> Option<String> {
    let fits = |rule: &&OverrideRule| {
        rule.model == to.model && rule.conditions.iter().any(|wanted| holds(wanted, root))
    };
    let rule = rules.iter().find(fits)?;
    if to.protocol != Protocol::Gemini {
        for (name, value) in root.members() {
            if name.is("model") {
                edits.replace_text(value, &rule.rewrite_to);
            }
        }
    }
    notes.info(Action::Coerced, format!("model>{}", rule.rewrite_to));
    Some(rule.rewrite_to.clone())
}

fn holds(wanted: &Condition, root: Value<'_>) -> bool {
    let Some(found) = wanted.field.value(root) else {
        return false;
    };
    wanted.value.as_ref().is_none_or(|value| {
        let found = serde_json::from_str::<serde_json::Value>(found.raw().as_str());
        found.is_ok_and(|found| found == *value)
    })
}

/// Moves one field.
pub(super) fn rewrite<'t>(
    rule: &RewriteRule,
    root: Value<'t>,
    edits: &mut Edits<'t>,
    notes: &mut Notes,
) {
    let places = rule.from.places(root);
    let Some(last) = places.last() else { return };
    let raw = last.value.raw();
    let text = match last.value.as_str() {
        Some(text) => text.into_plain().into_owned(),
        None => raw.as_str().to_owned(),
    };
    let mapped = rule.values.iter().find(|(from, _)| *from == text);
    let value = match mapped {
        Some((_, serde_json::Value::Null)) => None,
        Some((_, value)) => Some(value.to_string()),
        None => Some(raw.as_str().to_owned()),
    };
    let to = rule.to.as_ref().zip(value);
    let parent = rule.from.parent();
    let stays = to
        .as_ref()
        .is_some_and(|(to, _)| parent.as_ref().is_some_and(|parent| to.is_below(parent)));
    for place in &places {
        edits.remove(place.container, place.position);
    }
    if let Some(parent) = parent.filter(|_| !stays) {
        remove_emptied(&parent, places.len(), root, edits);
    }
    match to {
        Some((to, value)) => {
            set(to, root, &value, edits);
            notes.info(
                Action::Coerced,
                format!("{}>{}", rule.from.text(), to.text()),
            );
        }
        None => notes.info(Action::Dropped, rule.from.text()),
    }
}

/// An object of which nothing is left goes too.
fn remove_emptied<'t>(parent: &Path, gone: usize, root: Value<'t>, edits: &mut Edits<'t>) {
    let places = parent.places(root);
    if let [only] = places.as_slice()
        && only.value.members().count() == gone
    {
        edits.remove(only.container, only.position);
    }
}

/// Gives the field at a path a value, with the objects on the way to it.
fn set<'t>(path: &Path, root: Value<'t>, value: &str, edits: &mut Edits<'t>) {
    let names: Vec<&str> = path.names().collect();
    let mut at = root;
    for (i, name) in names.iter().enumerate() {
        let rest = names.get(i + 1..).unwrap_or_default();
        match at.get(name).filter(|inner| inner.is_object()) {
            Some(inner) if !rest.is_empty() => at = inner,
            _ => return edits.set(at, name, &wrapped(rest, value)),
        }
    }
}

/// `value` in objects of these names, the outermost first.
fn wrapped(names: &[&str], value: &str) -> String {
    names.iter().rev().fold(value.to_owned(), |inner, name| {
        format!("{{\"{name}\":{inner}}}")
    })
}
