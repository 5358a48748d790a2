//! Clients' credentials: `/v0/management/keys`.

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::entry::{self, Change, Fields, Section};
use super::tag::{Condition, Tag};
use super::write;
use super::{Answer, Call, Refusal, Reply};
use crate::config::Draft;
use crate::inference;

pub(super) static KEYS: Section = Section {
    name: "keys",
    noun: "API key",
    label: Some("name"),
    spellings: &[("quotas", "quota")],
    fill,
    strip: |key, stored| entry::strip(key, stored, &defaults()),
    reshape: |_, _, entry| entry,
};

/// Fields that a body can't set: they are instants, and a key gets them when
/// it is made and when it is disabled.
const INSTANTS: [&str; 2] = ["expiresAt", "disabledAt"];

/// Longest life of a key, in minutes: a hundred years.
const LONGEST_LIFE: f64 = 100.0 * 366.0 * 24.0 * 60.0;

/// What a key means without saying it.
fn defaults() -> Value {
    json!({ "quotas": [], "allowRawPassthrough": false })
}

fn fill(key: &mut Fields) {
    for field in INSTANTS {
        let written = key.get(field);
        match written.and_then(instant) {
            Some(ms) => drop(key.insert(field.to_owned(), ms.into())),
            None => drop(key.shift_remove(field)),
        }
    }
    entry::fill(key, &defaults());
}

/// Milliseconds since the epoch of an instant as the file may have it.
fn instant(written: &Value) -> Option<i64> {
    match written {
        Value::String(text) => {
            let time: Timestamp = text.parse().ok()?;
            Some(time.as_millisecond())
        }
        number => number.as_i64().or_else(|| Some(number.as_f64()? as i64)),
    }
}

/// All keys by name.
pub fn list(call: Call) -> Answer {
    Box::pin(async move { entry::list(&KEYS, &call).await })
}

/// One key.
pub fn get(call: Call) -> Answer {
    Box::pin(async move { entry::get(&KEYS, &call) })
}

/// Makes a key or replaces it.
pub fn put(mut call: Call) -> Answer {
    Box::pin(async move {
        let tag = entry::put(&KEYS, &mut call, |change, stored| {
            match stored {
                Some(stored) => {
                    without_instants(&mut change.body, stored)?;
                    with_instants(&mut change.body, stored);
                }
                None => set_expiry(&mut change.body, inference::wall_ms())?,
            }
            unused_secret(change)
        })
        .await?;
        Ok(done(&call, &tag))
    })
}

/// Changes some fields of a key.
pub fn patch(mut call: Call) -> Answer {
    Box::pin(async move {
        let tag = entry::patch(&KEYS, &mut call, |change, stored| {
            without_instants(&mut change.body, stored)?;
            unused_secret(change)
        })
        .await?;
        Ok(done(&call, &tag))
    })
}

fn done(call: &Call, tag: &Tag) -> Reply {
    Reply::json(&json!({ "success": true, "name": call.params.value("slug") })).tagged(tag)
}

/// A key that is there keeps its instants; a body may only repeat them.
fn without_instants(body: &mut Fields, stored: &Fields) -> Result<(), Refusal> {
    if body.contains_key("expiresInMinutes") {
        let message = "only a new key can be given a time to live";
        return Err(wrong("expiresInMinutes", message));
    }
    for field in INSTANTS {
        if let Some(sent) = body.shift_remove(field)
            && instant(&sent) != stored.get(field).and_then(instant)
        {
            return Err(wrong(field, "this can't be changed"));
        }
    }
    Ok(())
}

fn with_instants(body: &mut Fields, stored: &Fields) {
    for field in INSTANTS {
        if let Some(stored) = stored.get(field) {
            body.insert(field.to_owned(), stored.clone());
        }
    }
}

/// A new key may be given a time to live.
fn set_expiry(body: &mut Fields, now: i64) -> Result<(), Refusal> {
    for field in INSTANTS {
        if body.contains_key(field) {
            return Err(wrong(field, "this can't be set; expiresInMinutes can"));
        }
    }
    let Some(life) = body.shift_remove("expiresInMinutes") else {
        return Ok(());
    };
    let minutes = life.as_f64();
    let Some(minutes) = minutes.filter(|minutes| *minutes > 0.0 && *minutes <= LONGEST_LIFE) else {
        let message = format!("found {life}; a number of minutes above 0 is wanted");
        return Err(wrong("expiresInMinutes", &message));
    };
    let expires = now.saturating_add((minutes * 60_000.0) as i64);
    body.insert("expiresAt".to_owned(), expires.into());
    Ok(())
}

fn wrong(field: &str, message: &str) -> Refusal {
    Refusal::bad("Validation failed").with_details(vec![json!({
        "path": [field],
        "message": message,
        "line": 0,
        "column": 0,
        "code": "custom",
    })])
}

/// A secret leads to one key: no other one may have it, as it is written or as
/// it is in force.
fn unused_secret(change: &mut Change) -> Result<(), Refusal> {
    let Some(secret) = change.body.get("secret").and_then(Value::as_str) else {
        return Ok(());
    };
    let keys = change.document.get(KEYS.name).and_then(Value::as_object);
    let mut others = keys.into_iter().flatten().filter(|(name, key)| {
        **name != change.name && key.get("secret").and_then(Value::as_str) == Some(secret)
    });
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    let in_force = change.config.key_by_digest(&bytes);
    let taken = others.next().is_some()
        || in_force.is_some_and(|key| {
            *key.name != *change.name && keys.is_some_and(|keys| keys.contains_key(&*key.name))
        });
    if taken {
        return Err(Refusal::conflict("Another key has this secret"));
    }
    Ok(())
}

/// Removes a key; an unknown one is gone already. Its secret is refused at
/// once, its rows stay.
pub fn delete(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        let name = call.params.value("slug").to_owned();
        let condition = Condition::of(&call.headers);
        let change = move |draft: &mut Draft| {
            KEYS.settled(draft, &condition, &name)?;
            Ok(draft.remove(&[KEYS.name, &name])?)
        };
        write::change(&call, Vec::new(), change).await?;
        Ok(Reply::json(&json!({ "success": true })))
    })
}

/// Switches a time-bound key off before its time.
pub fn disable(call: Call) -> Answer {
    Box::pin(async move {
        let name = call.params.value("slug").to_owned();
        let prefix = KEYS.path(&name);
        let condition = Condition::of(&call.headers);
        let change = move |draft: &mut Draft| {
            let key = KEYS.settled(draft, &condition, &name)?;
            let key = key.ok_or_else(|| KEYS.unknown(&name))?;
            if key.get("expiresAt").and_then(instant).is_none() {
                return Err(Refusal::bad("Only time-bound keys can be disabled").into());
            }
            if key.get("disabledAt").and_then(instant).is_some() {
                return Ok(());
            }
            let now = inference::wall_ms().into();
            Ok(draft.set(&[KEYS.name, &name, "disabledAt"], &now)?)
        };
        let config = write::change(&call, prefix, change).await?;
        let key = KEYS.entry(&config.document, call.params.value("slug"));
        Ok(done(&call, &KEYS.tag(&key.unwrap_or_default())))
    })
}
