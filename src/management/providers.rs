//! Who serves models: `/v0/management/providers`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::entry::{self, Fields, Section};
use super::tag::{Condition, Tag};
use super::write::{self, Stop};
use super::{Answer, Call, Refusal, Reply, aliases};
use crate::config::Draft;

pub(super) static PROVIDERS: Section = Section {
    name: "providers",
    noun: "Provider",
    label: None,
    spellings: &[("gemini_thinking_enabled", "geminiThinkingEnabled")],
    fill,
    strip,
    reshape: |_, _, entry| entry,
};

/// What a provider means without saying it.
fn defaults() -> Value {
    json!({
        "enabled": true,
        "disable_cooldown": false,
        "stall_cooldown": false,
        "allow_100_percent_utilization": false,
        "estimateTokens": false,
        "useClaudeMasking": false,
        "gemini_thinking_enabled": false,
        "auto_compat": false,
        "model_autosync": { "enabled": false, "intervalMinutes": 60 },
    })
}

/// What a quota checker means without saying it; a provider may have none.
pub(super) fn checker_defaults() -> Value {
    json!({ "enabled": true, "intervalMinutes": 30, "options": {} })
}

fn fill(provider: &mut Fields) {
    if let Some(Value::Object(checker)) = provider.get_mut("quota_checker") {
        entry::fill(checker, &checker_defaults());
    }
    entry::fill(provider, &defaults());
}

fn strip(provider: &mut Fields, stored: &Fields) {
    let stored_checker = stored.get("quota_checker").and_then(Value::as_object);
    if let (Some(Value::Object(checker)), Some(stored)) =
        (provider.get_mut("quota_checker"), stored_checker)
    {
        entry::strip(checker, stored, &checker_defaults());
    }
    entry::strip(provider, stored, &defaults());
}

/// All providers by slug.
pub fn list(call: Call) -> Answer {
    Box::pin(async move { entry::list(&PROVIDERS, &call).await })
}

/// One provider.
pub fn get(call: Call) -> Answer {
    Box::pin(async move { entry::get(&PROVIDERS, &call) })
}

/// Makes a provider or replaces it.
pub fn put(mut call: Call) -> Answer {
    Box::pin(async move {
        let tag = entry::put(&PROVIDERS, &mut call, |_, _| Ok(())).await?;
        Ok(done(&call, &tag))
    })
}

/// Changes some fields of a provider.
pub fn patch(mut call: Call) -> Answer {
    Box::pin(async move {
        let tag = entry::patch(&PROVIDERS, &mut call, |_, _| Ok(())).await?;
        Ok(done(&call, &tag))
    })
}

fn done(call: &Call, tag: &Tag) -> Reply {
    Reply::json(&json!({ "success": true, "slug": call.params.value("slug") })).tagged(tag)
}

/// Removes a provider; with `?cascade=true` also the targets that name it.
/// Without that, a provider that is still named stays.
pub fn delete(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&["cascade"])?;
        let cascade = match call.query("cascade") {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                let message = format!("cascade: found {other:?}; true or false is wanted");
                return Err(Refusal::bad(message));
            }
        };
        let slug = call.params.value("slug").to_owned();
        let needed = format!(
            "Provider '{slug}' is still named by aliases; remove those targets, or add ?cascade=true"
        );
        let answer = json!({ "success": true, "provider": slug });
        let condition = Condition::of(&call.headers);
        let change = move |draft: &mut Draft| {
            PROVIDERS.settled(draft, &condition, &slug)?;
            if cascade {
                remove_targets(draft, &slug)?;
            }
            Ok(draft.remove(&[PROVIDERS.name, &slug])?)
        };
        let outcome = write::change(&call, Vec::new(), change).await;
        outcome.map_err(|refusal| write::still_needed(refusal, &needed))?;
        Ok(Reply::json(&answer))
    })
}

/// Removes the targets that name a provider. Groups and aliases stay, be they
/// empty.
fn remove_targets(draft: &mut Draft, provider: &str) -> Result<(), Stop> {
    let document = Arc::clone(draft.says().map_err(write::broken_file)?);
    let all = document.get("models").and_then(Value::as_object);
    for name in all.into_iter().flat_map(|aliases| aliases.keys()) {
        let Some(stored) = aliases::ALIASES.entry(&document, name) else {
            continue;
        };
        let mut alias = stored.clone();
        aliases::each_group(&mut alias, |group| {
            if let Some(Value::Array(targets)) = group.get_mut("targets") {
                targets.retain(|target| target.get("provider") != Some(&provider.into()));
            }
        });
        aliases::ALIASES.put(draft, name, Some(&stored), alias)?;
    }
    Ok(())
}
