//! Debug captures: whose requests are captured, and what was.
//! `/v0/management/debug`.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::usage::{LARGEST_PAGE, page_limit};
use super::{Answer, Call, Refusal, Reply, blocking, own};
use crate::auth::Principal;
use crate::capture::Watched;
use crate::protocol::Protocol;
use crate::protocol::snapshot;
use crate::store::StoredCapture;

/// What is watched, as far as it is the caller's business.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        let watched = call.app().captures.watched();
        Ok(Reply::json(&match &call.principal {
            Principal::Admin => for_admin(&call, &watched),
            Principal::Limited(key) => for_key(&watched, &key.name),
        }))
    })
}

fn for_admin(call: &Call, watched: &Watched) -> Value {
    json!({
        "enabled": watched.all,
        "enabledGlobal": watched.all,
        "enabledKeys": watched.keys,
        "providers": providers(watched),
        "keys": watched.keys,
        "aliases": watched.aliases,
        "dropped": call.app().captures.dropped(),
    })
}

fn for_key(watched: &Watched, name: &str) -> Value {
    let own = watched.keys.contains(name);
    let keys: Vec<&str> = own.then_some(name).into_iter().collect();
    json!({
        "enabled": watched.all || own,
        "enabledGlobal": watched.all,
        "enabledForKey": own,
        "providers": providers(watched),
        "keys": keys,
        "aliases": watched.aliases,
    })
}

fn providers(watched: &Watched) -> Value {
    if watched.providers.is_empty() {
        Value::Null
    } else {
        json!(watched.providers)
    }
}

/// Changes what is watched: what is not named stays as it is.
pub fn patch(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await?;
        let change = Change::read(&body)?;
        let watched = call.app().captures.change(|watched| change.make(watched));
        tracing::info!(
            all = watched.all,
            providers = watched.providers.len(),
            keys = watched.keys.len(),
            aliases = watched.aliases.len(),
            "debug capture was set"
        );
        Ok(Reply::json(&for_admin(&call, &watched)))
    })
}

#[derive(Default)]
struct Change {
    all: Option<bool>,
    providers: Option<BTreeSet<String>>,
    keys: Option<BTreeSet<String>>,
    aliases: Option<BTreeSet<String>>,
}

impl Change {
    fn read(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let mut change = Self::default();
        let mut faults = Vec::new();
        for (name, value) in body {
            let wanted = match (name.as_str(), value) {
                ("enabled", Value::Bool(all)) => {
                    change.all = Some(*all);
                    continue;
                }
                ("enabled", _) => "true or false",
                ("providers" | "keys" | "aliases", _) => {
                    let set = match name.as_str() {
                        "providers" => &mut change.providers,
                        "keys" => &mut change.keys,
                        _ => &mut change.aliases,
                    };
                    *set = names(value);
                    if set.is_some() {
                        continue;
                    }
                    "a list of names"
                }
                _ => "one of enabled, providers, keys, aliases",
            };
            let message = format!("found {value}; {wanted} is wanted");
            faults.push(json!({ "path": [name], "message": message, "code": "custom" }));
        }
        if faults.is_empty() {
            return Ok(change);
        }
        Err(Refusal::bad("Invalid request body").with_details(faults))
    }

    fn make(self, watched: &mut Watched) {
        let put = |set: &mut BTreeSet<String>, new: Option<BTreeSet<String>>| {
            if let Some(new) = new {
                *set = new;
            }
        };
        watched.all = self.all.unwrap_or(watched.all);
        put(&mut watched.providers, self.providers);
        put(&mut watched.keys, self.keys);
        put(&mut watched.aliases, self.aliases);
    }
}

/// Null is none of them.
fn names(value: &Value) -> Option<BTreeSet<String>> {
    match value {
        Value::Null => Some(BTreeSet::new()),
        Value::Array(items) => {
            let names = items.iter().map(|item| item.as_str().map(str::to_owned));
            names.collect()
        }
        _ => None,
    }
}

/// A key switches capture of its own requests; the administrator anybody's, with
/// `?keyName=`.
pub fn toggle(mut call: Call) -> Answer {
    Box::pin(async move {
        let name = Arc::clone(&own::key(&call)?.name);
        let enabled = switched(&call.object().await?)?;
        let watched = call.app().captures.change(|watched| {
            if enabled {
                watched.keys.insert(name.to_string());
            } else {
                watched.keys.remove(&*name);
            }
        });
        Ok(Reply::json(&json!({
            "keyName": name,
            "enabled": watched.all || enabled,
            "enabledGlobal": watched.all,
        })))
    })
}

fn switched(body: &Map<String, Value>) -> Result<bool, Refusal> {
    match body.get("enabled") {
        Some(Value::Bool(enabled)) => Ok(*enabled),
        other => {
            let found = other.unwrap_or(&Value::Null);
            let message = format!("found {found}; true or false is wanted");
            let fault = json!({ "path": ["enabled"], "message": message, "code": "custom" });
            Err(Refusal::bad("Invalid request body").with_details(vec![fault]))
        }
    }
}

/// The newest captures; a limited caller sees those of its own requests.
pub fn logs(call: Call) -> Answer {
    Box::pin(async move {
        let limit = page_limit(&call, LARGEST_PAGE)?;
        let offset = call.whole("offset")?.unwrap_or(0);
        let only_key = call.only_key();
        let app = Arc::clone(call.app());
        let page =
            blocking(move || Ok(app.store.captures(limit, offset, only_key.as_deref())?)).await?;
        Ok(Reply::json(&json!({
            "data": page.data,
            "total": page.total,
            "limit": limit,
            "offset": offset,
        })))
    })
}

/// One capture, whole.
pub fn log(call: Call) -> Answer {
    Box::pin(async move {
        let (id, only_key) = (id(&call)?, call.only_key());
        let app = Arc::clone(call.app());
        let shown = blocking(move || {
            let found = app.store.capture(id, only_key.as_deref())?;
            found.as_ref().map(shown).ok_or_else(unknown)
        });
        Ok(Reply::json(&shown.await?))
    })
}

/// The id in the path; what is none is unknown.
pub(super) fn id(call: &Call) -> Result<Uuid, Refusal> {
    call.params.value("id").parse().map_err(|_| unknown())
}

pub(super) fn unknown() -> Refusal {
    Refusal::not_found("Log not found")
}

/// A capture as the API shows it.
fn shown(capture: &StoredCapture) -> Value {
    let about = &capture.about;
    let fact = |name: &str| about.get(name).cloned().unwrap_or_default();
    let headers = |name: &str| match about.get(name) {
        Some(headers @ Value::Object(_)) => headers.to_string().into(),
        _ => Value::Null,
    };
    let [asked, spoken] = ["asked", "spoken"].map(|name| protocol(capture, name));
    json!({
        "requestId": capture.request_id.to_string(),
        "createdAt": capture.created_ms,
        "rawRequest": text(capture.request.as_deref()),
        "transformedRequest": text(capture.sent.as_deref()),
        "rawResponse": text(capture.received.as_deref()),
        "transformedResponse": text(capture.answer.as_deref()),
        "rawResponseSnapshot": reassembled(spoken, capture.received.as_deref()),
        "transformedResponseSnapshot": reassembled(asked, capture.answer.as_deref()),
        "requestHeaders": headers("requestHeaders"),
        "responseHeaders": headers("receivedHeaders"),
        "responseStatus": capture.status,
        "transformedRequestHeaders": headers("sentHeaders"),
        "transformedResponseHeaders": headers("answerHeaders"),
        "apiKey": capture.key,
        "incomingApiType": fact("protocol"),
        "incomingModelAlias": fact("alias"),
        "outgoingApiType": fact("spoken"),
        "provider": fact("provider"),
        "model": fact("model"),
        "url": fact("url"),
        "providerStatus": fact("receivedStatus"),
        "error": fact("error"),
        "earlierAttempts": about.get("earlier").cloned().unwrap_or_else(|| json!([])),
        // How many bytes of which of the bodies were left out.
        "cut": about.get("cut").cloned().unwrap_or_else(|| json!({})),
    })
}

pub(super) fn protocol(capture: &StoredCapture, name: &str) -> Option<Protocol> {
    Protocol::from_name(capture.about.get(name)?.as_str()?)
}

fn reassembled(protocol: Option<Protocol>, body: Option<&[u8]>) -> Option<String> {
    snapshot::document(protocol?, body?)
}

/// A body as text; what is none is a data URL.
fn text(body: Option<&[u8]>) -> Value {
    let Some(body) = body else {
        return Value::Null;
    };
    match std::str::from_utf8(body) {
        Ok(text) => text.into(),
        // Cut in the middle of a letter.
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&body[..error.valid_up_to()]).into()
        }
        Err(_) => format!(
            "data:application/octet-stream;base64,{}",
            STANDARD.encode(body)
        )
        .into(),
    }
}

/// Deletes all captures.
pub fn delete_all(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        let app = Arc::clone(call.app());
        blocking(move || Ok(app.store.delete_captures()?)).await?;
        Ok(Reply::json(&json!({ "success": true })))
    })
}

/// Deletes one capture. For a limited caller those of others are as good as
/// unknown.
pub fn delete(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        let only_key = call.only_key();
        let limited = only_key.is_some();
        let deleted = match id(&call) {
            // No request has such an id.
            Err(_) => 0,
            Ok(id) => {
                let app = Arc::clone(call.app());
                blocking(move || Ok(app.store.delete_capture(id, only_key.as_deref())?)).await?
            }
        };
        if limited && deleted == 0 {
            return Err(unknown());
        }
        Ok(Reply::json(&json!({ "success": true })))
    })
}
