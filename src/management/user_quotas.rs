//! Limits that keys can be given: `/v0/management/user-quotas`.

use serde_json::{Value, json};

use super::entry::{self, Section};
use super::tag::{Condition, Tag};
use super::write;
use super::{Answer, Call, Refusal, Reply};
use crate::config::{Config, Draft};

static QUOTAS: Section = Section {
    name: "user_quotas",
    noun: "Quota",
    label: Some("name"),
    spellings: &[],
    fill: |_| {},
    strip: |_, _| {},
    reshape: |_, _, entry| entry,
};

/// All quotas by name.
pub fn list(call: Call) -> Answer {
    Box::pin(async move { entry::list(&QUOTAS, &call).await })
}

/// One quota.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        known(&call)?;
        entry::get(&QUOTAS, &call).map_err(Refusal::typed)
    })
}

/// 404 unless the quota is there.
fn known(call: &Call) -> Result<(), Refusal> {
    let name = call.params.value("slug");
    if call.config.user_quotas.contains_key(name) {
        return Ok(());
    }
    Err(unknown(name))
}

fn unknown(name: &str) -> Refusal {
    Refusal::not_found(format!("Quota not found: {name}")).typed()
}

/// Makes a quota or replaces it.
pub fn put(mut call: Call) -> Answer {
    Box::pin(async move {
        let tag = entry::put(&QUOTAS, &mut call, |_, _| Ok(())).await;
        done(&call, &tag.map_err(Refusal::typed)?)
    })
}

/// Changes some fields of a quota.
pub fn patch(mut call: Call) -> Answer {
    Box::pin(async move {
        known(&call)?;
        let tag = entry::patch(&QUOTAS, &mut call, |_, _| Ok(())).await;
        done(&call, &tag.map_err(Refusal::typed)?)
    })
}

fn done(call: &Call, tag: &Tag) -> Result<Reply, Refusal> {
    let name = call.params.value("slug");
    let config = call.app().live.load();
    let quota = QUOTAS.entry(&config.document, name);
    let answer = json!({ "success": true, "name": name, "quota": quota });
    Ok(Reply::json(&answer).tagged(tag))
}

/// Removes a quota that nobody has any more.
pub fn delete(call: Call) -> Answer {
    Box::pin(async move {
        let name = call.params.value("slug").to_owned();
        call.takes_only(&[]).map_err(Refusal::typed)?;
        known(&call)?;
        if let Some(message) = assigned(&call.config, &name) {
            return Err(Refusal::conflict(message).typed());
        }
        let condition = Condition::of(&call.headers);
        let removed = name.clone();
        let change = move |draft: &mut Draft| {
            QUOTAS.settled(draft, &condition, &removed)?;
            Ok(draft.remove(&[QUOTAS.name, &removed])?)
        };
        let outcome = write::change(&call, Vec::new(), change).await;
        let needed = format!("Cannot delete quota '{name}'. It is still in use.");
        outcome.map_err(|refusal| write::still_needed(refusal, &needed).typed())?;
        let message = format!("Quota '{name}' deleted successfully");
        Ok(Reply::json(
            &json!({ "success": true, "name": name, "message": message }),
        ))
    })
}

/// Who has the quota, as a refusal to delete it; `None` when nobody does.
fn assigned(config: &Config, name: &str) -> Option<String> {
    let named = |quotas: &[String]| quotas.iter().any(|quota| quota == name);
    let keys = config.keys.values().filter(|key| named(&key.quotas));
    let keys: Vec<&str> = keys.map(|key| &*key.name).collect();
    let mut reasons = Vec::new();
    if !keys.is_empty() {
        let keys = keys.join(", ");
        reasons.push(format!("It is assigned to the following keys: {keys}."));
    }
    if named(&config.default_quotas) {
        let reason = "It is referenced by the 'default_quotas' system setting.";
        reasons.push(reason.to_owned());
    }
    let all = reasons.join(" ");
    (!reasons.is_empty()).then(|| format!("Cannot delete quota '{name}'. {all}"))
}

impl Refusal {
    /// The same in the shape that quotas' endpoints have for it: the message and
    /// a word for its kind in an object.
    pub(super) fn typed(mut self) -> Self {
        let kind = match self.status.as_u16() {
            404 => "not_found_error",
            409 | 412 => "conflict_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        if let Some(message) = self.body.get("error").and_then(Value::as_str) {
            self.body["error"] = json!({ "message": message, "type": kind });
        }
        self
    }
}
