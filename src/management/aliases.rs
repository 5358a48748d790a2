//! What clients ask for by name: `/v0/management/aliases`; the file, and the
//! paths that delete, call them models.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};

use super::entry::{self, Change, Fields, Section};
use super::write;
use super::{Answer, Call, Refusal, Reply};
use crate::config::{document, edit};

pub(super) static ALIASES: Section = Section {
    name: "models",
    noun: "Alias",
    label: Some("slug"),
    spellings: &[],
    fill,
    strip,
    reshape,
};

/// What an alias means without saying it.
fn defaults() -> Value {
    json!({
        "target_groups": [],
        "priority": "selector",
        "use_image_fallthrough": false,
        "enforce_limits": false,
        "sticky_session": true,
    })
}

fn fill(alias: &mut Fields) {
    entry::fill(alias, &defaults());
    each_group(alias, |group| {
        entry::fill(group, &json!({ "selector": "random", "targets": [] }));
        each(group, "targets", |target| {
            entry::fill(target, &json!({ "enabled": true }));
        });
    });
}

fn strip(alias: &mut Fields, stored: &Fields) {
    entry::strip(alias, stored, &defaults());
    let groups = list_in(stored, "target_groups");
    each_group(alias, |group| {
        // A group is the stored one of its name, a target the one that leads
        // to the same.
        let Some(stored) = find(groups, group, &["name"]) else {
            return;
        };
        entry::strip(
            group,
            stored,
            &json!({ "selector": "random", "targets": [] }),
        );
        let targets = list_in(stored, "targets");
        each(group, "targets", |target| {
            if let Some(stored) = find(targets, target, &["provider", "model", "alias"]) {
                entry::strip(target, stored, &json!({ "enabled": true }));
            }
        });
    });
}

/// The short form, where the file has that and it says enough.
fn reshape(text: &str, name: &str, alias: Fields) -> Fields {
    if entry::is_there(text, &[ALIASES.name, name, "targets"]) {
        short(alias)
    } else {
        alias
    }
}

/// An alias with one group called `default` as selector and targets; any
/// other as it is.
fn short(mut alias: Fields) -> Fields {
    let one = match list_in(&alias, "target_groups") {
        [Value::Object(group)] if is_plain(group) => group.clone(),
        _ => return alias,
    };
    alias.shift_remove("target_groups");
    alias.extend(one.into_iter().filter(|(field, _)| field != "name"));
    alias
}

fn is_plain(group: &Fields) -> bool {
    let known = |field: &String| ["name", "selector", "targets"].contains(&field.as_str());
    group.get("name").and_then(Value::as_str) == Some("default")
        && group.contains_key("targets")
        && group.keys().all(known)
}

/// Changes every target group.
pub(super) fn each_group(alias: &mut Fields, change: impl FnMut(&mut Fields)) {
    each(alias, "target_groups", change);
}

fn each(fields: &mut Fields, name: &str, change: impl FnMut(&mut Fields)) {
    if let Some(Value::Array(items)) = fields.get_mut(name) {
        items
            .iter_mut()
            .filter_map(Value::as_object_mut)
            .for_each(change);
    }
}

fn list_in<'a>(fields: &'a Fields, name: &str) -> &'a [Value] {
    match fields.get(name) {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}

fn find<'a>(items: &'a [Value], like: &Fields, by: &[&str]) -> Option<&'a Fields> {
    let mut items = items.iter().filter_map(Value::as_object);
    items.find(|item| by.iter().all(|field| item.get(*field) == like.get(*field)))
}

/// All aliases by slug.
pub fn list(call: Call) -> Answer {
    Box::pin(async move { Ok(entry::list(&ALIASES, &call)) })
}

/// One alias.
pub fn get(call: Call) -> Answer {
    Box::pin(async move { entry::get(&ALIASES, &call) })
}

/// Makes an alias or replaces it.
pub fn put(mut call: Call) -> Answer {
    Box::pin(async move {
        entry::put(&ALIASES, &mut call, |_, _| Ok(())).await?;
        Ok(done(&call))
    })
}

/// Changes some fields of an alias.
pub fn patch(mut call: Call) -> Answer {
    Box::pin(async move {
        entry::patch(&ALIASES, &mut call, over_short_form).await?;
        Ok(done(&call))
    })
}

fn done(call: &Call) -> Reply {
    Reply::json(&json!({ "success": true, "slug": call.params.value("slug") }))
}

/// `targets` and `selector` in a patch are about the one group that the short
/// form has.
fn over_short_form(change: &mut Change, stored: &mut Fields) -> Result<(), Refusal> {
    let patch = &change.body;
    if !patch.contains_key("targets") && !patch.contains_key("selector") {
        return Ok(());
    }
    *stored = short(std::mem::take(stored));
    if !stored.contains_key("target_groups") {
        return Ok(());
    }
    if patch.contains_key("targets") {
        stored.shift_remove("target_groups");
        return Ok(());
    }
    Err(Refusal::bad(
        "selector: the alias has target groups of its own; PATCH target_groups, where each has its selector",
    ))
}

/// Removes an alias.
pub fn delete(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        let name = call.params.value("slug").to_owned();
        let needed = format!("Alias '{name}' is still a target of other aliases");
        let change = move |text: &str| {
            let document = document(text).map_err(|faults| write::broken_file(&faults))?;
            if ALIASES.entry(&document, &name).is_none() {
                return Err(ALIASES.unknown(&name).into());
            }
            Ok(edit::remove(text, &[ALIASES.name, &name])?)
        };
        let outcome = write::edit(&call, Vec::new(), change).await;
        outcome.map_err(|refusal| write::still_needed(refusal, &needed))?;
        Ok(Reply::json(&json!({ "success": true })))
    })
}

/// Removes all aliases.
pub fn delete_all(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        let deleted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&deleted);
        let change = move |text: &str| {
            let document = document(text).map_err(|faults| write::broken_file(&faults))?;
            let aliases = document.get(ALIASES.name).and_then(Value::as_object);
            let count = aliases.map_or(0, Map::len);
            counted.store(count, Ordering::Relaxed);
            match count {
                0 => Ok(text.to_owned()),
                _ => Ok(edit::set(text, &[ALIASES.name], &json!({}))?),
            }
        };
        write::edit(&call, Vec::new(), change).await?;
        let count = deleted.load(Ordering::Relaxed);
        Ok(Reply::json(
            &json!({ "success": true, "deletedCount": count }),
        ))
    })
}
