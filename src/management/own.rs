//! What a key may see and change of itself: `/v0/management/self/...`. The
//! administrator says with `?keyName=` which key is meant.

use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use super::keys::KEYS;
use super::quota::{Standing, iso, number};
use super::tag::Condition;
use super::write;
use super::{Answer, Call, Refusal, Reply};
use crate::auth::Principal;
use crate::config::{Draft, Key};

/// The key that is meant.
pub(super) fn key(call: &Call) -> Result<Arc<Key>, Refusal> {
    let name = match &call.principal {
        Principal::Limited(key) => return Ok(Arc::clone(key)),
        Principal::Admin => call.query("keyName"),
    };
    let name =
        name.ok_or_else(|| Refusal::bad("Admin must supply ?keyName= for self-service endpoints"))?;
    let found = call.config.keys.get(name).map(Arc::clone);
    found.ok_or_else(|| Refusal::not_found(format!("Key '{name}' not found")))
}

/// Who I am, and what my key may do.
pub fn me(call: Call) -> Answer {
    Box::pin(async move {
        let Principal::Limited(key) = &call.principal else {
            return Ok(Reply::json(&json!({ "role": "admin" })));
        };
        let mut shown = super::auth::limited(key);
        if let Some(fields) = shown.as_object_mut() {
            fields.shift_remove("ok");
        }
        shown["allowRawPassthrough"] = key.allow_raw_passthrough.into();
        let watched = call.app().captures.watched();
        shown["traceEnabled"] = watched.keys.contains(&*key.name).into();
        shown["traceEnabledGlobal"] = watched.all.into();
        Ok(Reply::json(&shown))
    })
}

/// Gives the key a new secret; the old one is refused at once.
pub fn rotate(call: Call) -> Answer {
    Box::pin(async move {
        let name = key(&call)?.name.to_string();
        let secret = fresh_secret()?;
        let condition = Condition::of(&call.headers);
        let (changed, written) = (name.clone(), Value::from(secret.as_str()));
        let change = move |draft: &mut Draft| {
            let stored = KEYS.settled(draft, &condition, &changed)?;
            stored.ok_or_else(|| KEYS.unknown(&changed))?;
            Ok(draft.set(&[KEYS.name, &changed, "secret"], &written)?)
        };
        write::change(&call, KEYS.path(&name), change).await?;
        Ok(Reply::json(&json!({
            "keyName": name,
            "secret": secret,
            "message": "The old secret is refused from now on; this one is shown once here.",
        })))
    })
}

/// `sk-` and 48 hexadecimal digits.
fn fresh_secret() -> Result<String, Refusal> {
    let mut bytes = [0; 24];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Refusal::failed("the system has no random numbers"))?;
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    Ok(format!("sk-{}", digits.collect::<String>()))
}

/// Changes what is said of the key; null takes it away.
pub fn comment(mut call: Call) -> Answer {
    Box::pin(async move {
        let name = key(&call)?.name.to_string();
        let body = call.object().await?;
        let comment = match body.get("comment") {
            Some(comment @ (Value::String(_) | Value::Null)) => comment.clone(),
            found => {
                let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
                let message = format!("found {found}; a text or null is wanted");
                let detail =
                    json!({ "path": ["comment"], "message": message, "code": "invalid_type" });
                return Err(Refusal::bad("Invalid body").with_details(vec![detail]));
            }
        };
        let condition = Condition::of(&call.headers);
        let (changed, written) = (name.clone(), comment.clone());
        let change = move |draft: &mut Draft| {
            let stored = KEYS.settled(draft, &condition, &changed)?;
            stored.ok_or_else(|| KEYS.unknown(&changed))?;
            let path = [KEYS.name, &changed, "comment"];
            if written.is_null() {
                Ok(draft.remove(&path)?)
            } else {
                Ok(draft.set(&path, &written)?)
            }
        };
        write::change(&call, KEYS.path(&name), change).await?;
        Ok(Reply::json(
            &json!({ "success": true, "keyName": name, "comment": comment }),
        ))
    })
}

/// How the key's quotas stand.
pub fn quota(call: Call) -> Answer {
    Box::pin(async move {
        let key = key(&call)?;
        let standing = Standing::of(&call, &key.name);
        let tightest = standing.tightest();
        Ok(Reply::json(&json!({
            "key": key.name,
            "quotas": standing.shown(),
            "quotaName": tightest.map(|told| &told.quota.name),
            "allowed": standing.allowed(),
            "currentUsage": tightest.map_or_else(|| 0.into(), |told| number(told.used())),
            "limit": tightest.map(|told| number(told.limit())),
            "remaining": tightest.map(|told| number(told.remaining())),
            "resetsAt": tightest.map_or(Value::Null, |told| iso(told.level.resets_at)),
            "limitType": tightest.map(|told| told.quota.counts.name()),
        })))
    })
}
