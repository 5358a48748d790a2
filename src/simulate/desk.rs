//! Plans that are kept for the next equal request, and the server's own pages.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::behaviour::help;
use super::plan::{Plan, Plans, Received, plan};
use super::record::{Journal, Outcome, Recorded, Stats};
use super::script::pretty;

/// Plans kept.
const PLANS: usize = 128;
/// Bytes of requests and answers kept.
const BYTES: usize = 32 * 1024 * 1024;
/// Larger requests and answers are planned each time.
const LARGEST: usize = 4 * 1024 * 1024;
const DECIDING_HEADERS: usize = 6;
/// Headers that an answer depends on.
static DECIDING: [HeaderName; DECIDING_HEADERS] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("x-simulate"),
    HeaderName::from_static("anthropic-version"),
];

/// Plans by request. Rendering is done once for a request that comes again.
#[derive(Debug, Default)]
pub(super) struct Desk {
    hasher: RandomState,
    drawers: RwLock<Drawers>,
}

#[derive(Debug, Default)]
struct Drawers {
    plans: HashMap<u64, Arc<Kept>>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    method: Method,
    uri: Uri,
    headers: [Option<HeaderValue>; DECIDING_HEADERS],
    body: Bytes,
    plans: Plans,
}

impl Desk {
    /// The plan for a request, and for the turn that it is.
    pub(super) async fn plan(
        &self,
        received: Received<'_>,
        journal: &Journal,
        names: &[String],
    ) -> Arc<Plan> {
        let mark = self.mark(received);
        let kept = self.drawers.read().plans.get(&mark).cloned();
        if let Some(kept) = kept
            && kept.matches(received)
        {
            return turn(&kept.plans, journal);
        }
        let plans = plan(received, journal, names).await;
        let this = turn(&plans, journal);
        self.keep(mark, received, plans);
        this
    }

    /// A quick hash: the ends of the body stand for the whole, which is
    /// compared anyway.
    fn mark(&self, received: Received<'_>) -> u64 {
        let body = received.body;
        let ends = (
            body.len(),
            &body[..body.len().min(64)],
            &body[body.len().saturating_sub(64)..],
        );
        let simulate = received.headers.get("x-simulate");
        self.hasher.hash_one((
            received.uri.path(),
            ends,
            simulate.map(HeaderValue::as_bytes),
        ))
    }

    fn keep(&self, mark: u64, received: Received<'_>, plans: Plans) {
        let size = plans.size() + received.body.len();
        if size > LARGEST {
            return;
        }
        let kept = Arc::new(Kept {
            method: received.method.clone(),
            uri: received.uri.clone(),
            headers: deciding(received.headers).map(|value| value.cloned()),
            body: Bytes::copy_from_slice(received.body),
            plans,
        });
        let mut drawers = self.drawers.write();
        if drawers.plans.len() >= PLANS || drawers.bytes + size > BYTES {
            *drawers = Drawers::default();
        }
        drawers.bytes += size;
        drawers.plans.insert(mark, kept);
    }
}

impl Kept {
    fn matches(&self, received: Received<'_>) -> bool {
        let headers = deciding(received.headers);
        self.body == received.body
            && self.method == received.method
            && self.uri == *received.uri
            && self
                .headers
                .iter()
                .zip(headers)
                .all(|(kept, header)| kept.as_ref() == header)
    }
}

fn deciding(headers: &HeaderMap) -> [Option<&HeaderValue>; DECIDING_HEADERS] {
    DECIDING.each_ref().map(|name| headers.get(name))
}

fn turn(plans: &Plans, journal: &Journal) -> Arc<Plan> {
    match &plans.then {
        Some((times, then)) if !journal.misbehaves(&plans.name, *times) => then.clone(),
        _ => plans.first.clone(),
    }
}

/// The server's own pages; `None` when the path is not one of them.
pub(super) fn own_page<B>(request: &Request<B>, journal: &Journal) -> Option<Response<Bytes>> {
    let page = request.uri().path().strip_prefix("/_simulate/")?;
    let (status, content_type, body) = match (request.method().as_str(), page) {
        ("GET", "requests") => {
            let all: Vec<Value> = journal.recorded().iter().map(recorded).collect();
            (StatusCode::OK, "application/json", pretty(&all.into()))
        }
        ("DELETE", "requests") => {
            journal.clear();
            (StatusCode::NO_CONTENT, "application/json", Vec::new())
        }
        ("GET", "stats") => {
            let stats = pretty(&stats(&journal.stats()));
            (StatusCode::OK, "application/json", stats)
        }
        ("GET", "help") => (StatusCode::OK, "text/plain; charset=utf-8", help().into()),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            b"no such page\n".to_vec(),
        ),
    };
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Some(response)
}

fn recorded(recorded: &Recorded) -> Value {
    let (word, extent) = match recorded.outcome {
        Outcome::Open => ("open", None),
        Outcome::Finished(extent) => ("finished", Some(extent)),
        Outcome::Left(extent) => ("left", Some(extent)),
        Outcome::Cut(extent) => ("cut", Some(extent)),
    };
    let at = recorded.at.duration_since(std::time::UNIX_EPOCH);
    let text = |body: &Bytes| std::str::from_utf8(body).ok().map(str::to_owned);
    let encoded = |body: &Bytes| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(body)
    };
    let body = recorded.body.as_ref();
    json!({
        "number": recorded.number,
        "connection": recorded.connection,
        "at_ms": at.map_or(0, |at| at.as_millis() as u64),
        "method": recorded.method,
        "target": recorded.target,
        "version": recorded.version,
        "headers": recorded.headers,
        "body": body.and_then(text),
        "body_base64": body.filter(|body| text(body).is_none()).map(encoded),
        "body_length": recorded.body_length,
        "body_sha256": recorded.body_sha256,
        "outcome": word,
        "sent_bytes": extent.map(|extent| extent.bytes),
        "after_ms": extent.map(|extent| extent.after.as_secs_f64() * 1000.0),
    })
}

fn stats(stats: &Stats) -> Value {
    let served = stats.served.iter().map(|(name, served)| {
        let line = json!({
            "answers": served.answers,
            "tokens_in": served.tokens_in,
            "tokens_out": served.tokens_out,
            "cached": served.cached,
            "cache_write": served.cache_write,
            "reasoning_tokens": served.reasoning_tokens,
        });
        (name.clone(), line)
    });
    json!({
        "connections_accepted": stats.connections_accepted,
        "connections_open": stats.connections_open,
        "requests": stats.requests,
        "in_flight": stats.in_flight,
        "cancelled": stats.cancelled,
        "served": served.collect::<serde_json::Map<_, _>>(),
    })
}
