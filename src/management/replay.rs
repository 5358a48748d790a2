//! A captured request, run again and compared:
//! `POST /v0/management/debug/logs/{id}/replay`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::debug::{id, protocol, unknown};
use super::{Answer, Call, Refusal, Reply, blocking};
use crate::app::App;
use crate::auth::Principal;
use crate::config::{Key, Secret};
use crate::inference::replay::{Again, Outcome, replay as run};
use crate::inference::{Ask, PathAsk};
use crate::protocol::Protocol;
use crate::protocol::snapshot::{self, Said};
use crate::store::{Record, StoredCapture};

/// How long the rows of the replay may take to be written.
const FLUSH: Duration = Duration::from_secs(5);

/// Runs it again, to the same target or to `{"target": "provider/model"}`, and
/// tells what is different. The row and the capture that it leaves are the key's,
/// with the attribution `replay`.
pub fn replay(mut call: Call) -> Answer {
    Box::pin(async move {
        let id = id(&call)?;
        let target = target(&mut call).await?;
        let (app, only_key) = (Arc::clone(call.app()), call.only_key());
        let capture = blocking(move || {
            let found = app.store.capture(id, only_key.as_deref())?;
            found.ok_or_else(unknown)
        });
        let capture = capture.await?;
        let again = again(&call, &capture, target.clone())?;
        let protocol = again.ask.protocol;
        let config = Arc::clone(&call.config);
        let outcome = Box::pin(run(&call.core, config, again)).await;
        let app = Arc::clone(call.app());
        let told = blocking(move || {
            let before = Side::captured(&app, &capture, protocol)?;
            let after = Side::run(&app, outcome, protocol)?;
            Ok(compared(&before, &after, target.as_deref()))
        });
        Ok(Reply::json(&told.await?))
    })
}

/// The body is optional, and so is what it can say.
async fn target(call: &mut Call) -> Result<Option<String>, Refusal> {
    let body = call.body().await?;
    if body.is_empty() {
        return Ok(None);
    }
    let body: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad(format!("Body is not valid JSON: {error}")))?;
    let Value::Object(body) = body else {
        return Err(Refusal::bad("Object body is required"));
    };
    if let Some(name) = body.keys().find(|name| *name != "target") {
        return Err(Refusal::bad(format!(
            "unknown field {name:?}; target is wanted"
        )));
    }
    match body.get("target") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(target)) if target.contains('/') => Ok(Some(target.clone())),
        Some(other) => Err(Refusal::bad(format!(
            "target: found {other}; \"provider/model\" is wanted"
        ))),
    }
}

/// The request as it was, from what is kept of it.
fn again(call: &Call, capture: &StoredCapture, target: Option<String>) -> Result<Again, Refusal> {
    let about = |name: &str| capture.about.get(name).and_then(Value::as_str);
    if let Some(cut) = { capture.about.get("cut") }.and_then(|cut| cut["rawRequest"].as_u64()) {
        return Err(Refusal::conflict(format!(
            "{cut} bytes of the request were too many to be kept; it can't be run again"
        )));
    }
    let (Some(protocol), Some(body)) = (protocol(capture, "asked"), &capture.request) else {
        return Err(Refusal::conflict(
            "the request broke off before it was whole; it can't be run again",
        ));
    };
    let action = about("action").map(|action| PathAsk {
        model: about("pathModel").map(str::to_owned),
        action: action.to_owned(),
    });
    Ok(Again {
        key: key(call, capture, target.is_some()),
        ask: Ask {
            protocol,
            path: action,
        },
        query: about("query").map(str::to_owned),
        headers: headers(capture.about.get("requestHeaders")),
        body: body.clone().into(),
        target,
    })
}

/// A caller's own key stays its own. The administrator may send a request of any
/// key to any target.
fn key(call: &Call, capture: &StoredCapture, free: bool) -> Arc<Key> {
    if let Principal::Limited(key) = &call.principal {
        return Arc::clone(key);
    }
    let name = capture.key.as_deref().unwrap_or("replay");
    let known = call.config.keys.get(name);
    match known.filter(|_| !free) {
        Some(key) => Arc::clone(key),
        None => Arc::new(Key {
            strict: known.and_then(|key| key.strict),
            ..Key::unlimited(name, Secret::new(""))
        }),
    }
}

/// Header fields as they were kept; those that were masked say nothing any more,
/// but nobody asks them.
fn headers(kept: Option<&Value>) -> HeaderMap {
    let kept = kept.and_then(Value::as_object);
    let fields = kept.into_iter().flatten().filter_map(|(name, value)| {
        let name = name.parse::<HeaderName>().ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    });
    fields.collect()
}

/// One of the two runs.
struct Side {
    id: Uuid,
    status: Option<u16>,
    said: Option<Said>,
    body: String,
    broken: Option<String>,
    row: Record,
}

impl Side {
    fn captured(app: &App, capture: &StoredCapture, protocol: Protocol) -> Result<Self, Refusal> {
        let body = capture.answer.as_deref().unwrap_or_default();
        let cut = capture
            .about
            .get("cut")
            .and_then(|cut| cut["transformedResponse"].as_u64());
        Ok(Self {
            id: capture.request_id,
            status: capture.status,
            said: snapshot::said(protocol, body),
            body: String::from_utf8_lossy(body).into_owned(),
            broken: cut.map(|cut| format!("{cut} bytes of the answer were not kept")),
            row: row(app, capture.request_id)?,
        })
    }

    fn run(app: &App, outcome: Outcome, protocol: Protocol) -> Result<Self, Refusal> {
        app.store.flush(FLUSH)?;
        Ok(Self {
            id: outcome.id,
            status: Some(outcome.status.as_u16()),
            said: snapshot::said(protocol, &outcome.body),
            body: String::from_utf8_lossy(&outcome.body).into_owned(),
            broken: outcome.broken,
            row: row(app, outcome.id)?,
        })
    }

    fn fact(&self, name: &str) -> Value {
        self.row.get(name).cloned().unwrap_or_default()
    }

    fn shown(&self) -> Value {
        let said = self.said.as_ref();
        let mut shown = Map::new();
        shown.insert("requestId".into(), self.id.to_string().into());
        shown.insert("status".into(), self.status.into());
        shown.insert("broken".into(), self.broken.clone().into());
        for name in COMPARED.into_iter().chain(TOLD) {
            shown.insert(name.into(), self.fact(name));
        }
        shown.insert("text".into(), said.map(|said| said.text.as_str()).into());
        let reasoning = said.map(|said| said.reasoning.as_str());
        shown.insert("reasoning".into(), reasoning.into());
        shown.insert("calls".into(), said.map_or(Value::Null, calls));
        // What says nothing that can be read is told as it is.
        let body = said.is_none().then_some(self.body.as_str());
        shown.insert("body".into(), body.into());
        Value::Object(shown)
    }
}

/// The row of that request, or nothing if it is gone.
fn row(app: &App, id: Uuid) -> Result<Record, Refusal> {
    Ok(app.store.usage_by_id(id, None)?.unwrap_or_default())
}

fn calls(said: &Said) -> Value {
    let calls = said.calls.iter();
    let calls = calls.map(|(name, arguments)| json!({ "name": name, "arguments": arguments }));
    calls.collect()
}

/// Fields of the rows in which two runs of a request should agree.
const COMPARED: [&str; 10] = [
    "responseStatus",
    "provider",
    "selectedModelName",
    "outgoingApiType",
    "finishReason",
    "tokensInput",
    "tokensOutput",
    "tokensReasoning",
    "tokensCached",
    "costTotal",
];

/// Fields in which no two runs agree.
const TOLD: [&str; 4] = ["durationMs", "ttftMs", "tokensPerSec", "attemptCount"];

fn compared(before: &Side, after: &Side, target: Option<&str>) -> Value {
    let (original, replay) = (before.shown(), after.shown());
    let answer = ["text", "reasoning", "calls", "body", "broken"];
    let names = ["status"].into_iter().chain(COMPARED).chain(answer);
    let different: Vec<&str> = names
        .filter(|name| original[*name] != replay[*name])
        .collect();
    json!({
        "requestId": after.id.to_string(),
        "replayOf": before.id.to_string(),
        "target": target,
        "original": original,
        "replay": replay,
        "differences": different,
    })
}
