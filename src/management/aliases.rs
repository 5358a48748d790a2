//! What clients ask for by name: `/v0/management/aliases`; the file, and the
//! paths that delete, call them models.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};

use super::entry::{self, Change, Fields, Section};
use super::tag::{Condition, Tag};
use super::write::{self, Stop};
use super::{Answer, Call, Refusal, Reply};
use crate::config::Draft;

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
fn reshape(draft: &Draft, name: &str, alias: Fields) -> Fields {
    if draft.has(&[ALIASES.name, name, "targets"]) {
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
    Box::pin(async move { entry::list(&ALIASES, &call).await })
}

/// One alias.
pub fn get(call: Call) -> Answer {
    Box::pin(async move { entry::get(&ALIASES, &call) })
}

/// Makes an alias or replaces it.
pub fn put(mut call: Call) -> Answer {
    Box::pin(async move {
        let tag = entry::put(&ALIASES, &mut call, |_, _| Ok(())).await?;
        Ok(done(&call, &tag))
    })
}

/// Changes some fields of an alias.
pub fn patch(mut call: Call) -> Answer {
    Box::pin(async move {
        let tag = entry::patch(&ALIASES, &mut call, over_short_form).await?;
        Ok(done(&call, &tag))
    })
}

fn done(call: &Call, tag: &Tag) -> Reply {
    Reply::json(&json!({ "success": true, "slug": call.params.value("slug") })).tagged(tag)
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
        let condition = Condition::of(&call.headers);
        let change = move |draft: &mut Draft| {
            let stored = ALIASES.settled(draft, &condition, &name)?;
            stored.ok_or_else(|| ALIASES.unknown(&name))?;
            Ok(draft.remove(&[ALIASES.name, &name])?)
        };
        let outcome = write::change(&call, Vec::new(), change).await;
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
        let condition = Condition::of(&call.headers);
        let change = move |draft: &mut Draft| {
            let count = remove_all(draft, &condition)?;
            counted.store(count, Ordering::Relaxed);
            Ok(())
        };
        write::change(&call, Vec::new(), change).await?;
        let count = deleted.load(Ordering::Relaxed);
        Ok(Reply::json(
            &json!({ "success": true, "deletedCount": count }),
        ))
    })
}

/// How many there were. With some changed by hand since they were read, all
/// of them stay.
fn remove_all(draft: &mut Draft, condition: &Condition) -> Result<usize, Stop> {
    let document = Arc::clone(draft.says().map_err(write::broken_file)?);
    condition.met(Some(&entry::tag_of_all(&ALIASES, &document)))?;
    let in_force = draft.in_force().document.get(ALIASES.name);
    let on_disk = document.get(ALIASES.name);
    if !condition.is_careful() {
        let (mut path, mut found) = (vec![ALIASES.name.to_owned()], Vec::new());
        write::differences(&mut path, in_force, on_disk, 1, &mut found);
        if !found.is_empty() {
            return Err(write::clash(found).into());
        }
    }
    let count = on_disk.and_then(Value::as_object).map_or(0, Map::len);
    if count > 0 {
        draft.set(&[ALIASES.name], &json!({}))?;
    }
    Ok(count)
}
