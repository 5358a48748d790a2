//! Debug capture: what went over the wire of one request, in both directions
//! and on both sides of the gateway.
//!
//! While nobody wants to see anything this costs a request one relaxed load.
//! While somebody does, requests are held as the frames they came in and
//! answers are copied as they pass; what costs more (joining, masking, writing)
//! is left to the store's thread. Every part has a limit, and all of them
//! together have one; what does not fit is left out and counted.
//!
//! It must not know where bytes come from or how a capture is shown.

mod room;
mod sealed;
mod switches;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;

use crate::config::{Key, Secret};
use crate::protocol::Protocol;
use crate::store::row::UsageRow;
pub use room::{BODY, IN_FLIGHT};
use room::{Frames, Reel, Room};
pub use switches::{Switches, Watched};

/// What a client asked, and of whom.
#[derive(Debug)]
pub struct Question<'a> {
    /// What it spoke.
    pub protocol: Protocol,
    /// The model, when the path named it.
    pub model: Option<&'a str>,
    /// The action that the path named.
    pub action: Option<&'a str>,
    /// The query.
    pub query: Option<&'a str>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The body.
    pub frames: &'a [Bytes],
}

/// What a provider was asked.
#[derive(Debug)]
pub struct Sent<'a> {
    /// Who was asked.
    pub provider: Arc<str>,
    /// The model there.
    pub model: Arc<str>,
    /// What was spoken.
    pub protocol: Protocol,
    /// Where it went.
    pub url: String,
    /// The header fields, credentials marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub frames: &'a [Bytes],
}

/// The capture of one request while it is under way.
#[derive(Debug)]
pub struct Capture {
    room: Arc<Room>,
    /// Whether it is kept if the request fails.
    on_error: bool,
    /// Whether it is kept whatever the switches say.
    certain: bool,
    asked: Option<Asked>,
    tries: Vec<Try>,
    status: Option<u16>,
    headers: HeaderMap,
    answer: Reel,
    settled: Option<Settled>,
}

#[derive(Debug)]
struct Asked {
    protocol: Protocol,
    model: Option<String>,
    action: Option<String>,
    query: Option<String>,
    headers: HeaderMap,
    body: Frames,
}

#[derive(Debug)]
struct Try {
    provider: Arc<str>,
    model: Arc<str>,
    protocol: Protocol,
    url: String,
    headers: HeaderMap,
    body: Frames,
    tap: Tap,
    /// Why it failed.
    error: Option<String>,
}

/// What the end of the request says.
#[derive(Debug)]
struct Settled {
    request_id: uuid::Uuid,
    created_ms: i64,
    key: Option<Arc<str>>,
    secret: Option<Secret>,
    incoming: Protocol,
    alias: Option<Arc<str>>,
    canonical: Option<Arc<str>>,
    failed: bool,
    http_status: u16,
}

/// The most attempts of one request that are held; the last ones win.
const TRIES: usize = 8;

impl Capture {
    fn new(room: &Arc<Room>, on_error: bool, certain: bool) -> Self {
        Self {
            room: Arc::clone(room),
            on_error,
            certain,
            asked: None,
            tries: Vec::new(),
            status: None,
            headers: HeaderMap::new(),
            answer: Reel::new(room),
            settled: None,
        }
    }

    /// The client's request is here.
    pub fn asked(&mut self, question: &Question<'_>) {
        self.asked = Some(Asked {
            protocol: question.protocol,
            model: question.model.map(str::to_owned),
            action: question.action.map(str::to_owned),
            query: question.query.and_then(without_key),
            headers: question.headers.clone(),
            body: Frames::of(question.frames, &self.room),
        });
    }

    /// A provider is asked; its answer is to be shown to the tap.
    pub fn sends(&mut self, sent: Sent<'_>) -> Tap {
        if self.tries.len() == TRIES {
            self.tries.remove(0);
        }
        let tap = Tap(Arc::new(Mutex::new(Received {
            status: None,
            headers: HeaderMap::new(),
            body: Reel::new(&self.room),
        })));
        self.tries.push(Try {
            provider: sent.provider,
            model: sent.model,
            protocol: sent.protocol,
            url: sent.url,
            headers: sent.headers,
            body: Frames::of(sent.frames, &self.room),
            tap: tap.clone(),
            error: None,
        });
        tap
    }

    /// The provider that was asked last did not answer.
    pub fn failed(&mut self, message: &str) {
        if let Some(last) = self.tries.last_mut() {
            last.error = Some(message.to_owned());
        }
    }

    /// The head of what the client gets.
    pub fn answers(&mut self, status: u16, headers: &HeaderMap) {
        self.status = Some(status);
        self.headers = headers.clone();
    }

    /// A piece of what the client gets.
    pub fn relayed(&mut self, piece: &[u8]) {
        self.answer.push(piece);
    }

    /// The request's row is complete.
    pub fn settled(&mut self, row: &UsageRow, key: Option<&Arc<Key>>) {
        self.settled = Some(Settled {
            request_id: row.request_id,
            created_ms: row.start_ms,
            key: row.key.clone(),
            secret: key.map(|key| key.secret.clone()),
            incoming: row.incoming,
            alias: row.incoming_alias.clone(),
            canonical: row.canonical.clone(),
            failed: row.has_error,
            http_status: row.http_status,
        });
    }
}

/// Where a provider's answer is put down as it is read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tap(Arc<Mutex<Received>>);

#[derive(Debug)]
struct Received {
    status: Option<u16>,
    headers: HeaderMap,
    body: Reel,
}

impl Tap {
    /// The head of the answer.
    pub fn head(&self, status: u16, headers: &HeaderMap) {
        let mut received = self.0.lock();
        received.status = Some(status);
        received.headers = headers.clone();
    }

    /// A piece of its body.
    pub fn push(&self, piece: &[u8]) {
        self.0.lock().body.push(piece);
    }
}

/// A query without the credential that it may carry.
fn without_key(query: &str) -> Option<String> {
    let plain = |pair: &&str| !pair.is_empty() && *pair != "key" && !pair.starts_with("key=");
    let pairs: Vec<&str> = query.split('&').filter(plain).collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}
