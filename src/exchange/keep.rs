//! An answer of the Responses API on its way to being kept: what the client gets
//! is looked at for the response object, and nothing else of it is held.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::protocol::json::{self, Tape, Value};
use crate::protocol::responses::state;
use crate::protocol::sse;
use crate::store::ResponseRow;

/// A larger answer is not kept.
const LARGEST: usize = 8 << 20;

/// How the events that hold the whole response are called.
static LAST: LazyLock<[Finder<'static>; 3]> = LazyLock::new(|| {
    [
        json::finder("\"response.completed\""),
        json::finder("\"response.incomplete\""),
        json::finder("\"response.failed\""),
    ]
});

/// What of an answer is to be kept, and how it was asked for.
#[derive(Debug)]
pub struct Keep {
    /// The key that asks.
    pub key: Arc<str>,
    /// When it asked.
    pub created_ms: i64,
    /// When the answer is forgotten.
    pub expires_ms: i64,
    /// The provider that answers.
    pub provider: Arc<str>,
    /// Whether that provider knows the answer's id.
    pub upstream: bool,
    /// The client's request.
    pub body: Vec<Bytes>,
    /// Whether the answer is a stream.
    pub streamed: bool,
    /// What is held of it.
    pub held: Vec<Bytes>,
}

impl Keep {
    /// Looks at a piece of what the client gets.
    pub fn see(&mut self, piece: &Bytes) {
        let wanted = !self.streamed
            || !self.held.is_empty()
            || LAST.iter().any(|finder| finder.find(piece).is_some());
        if !wanted {
            return;
        }
        let size: usize = self.held.iter().map(Bytes::len).sum();
        if size + piece.len() <= LARGEST {
            self.held.push(piece.clone());
        }
    }

    /// The row, if the answer came to its end.
    #[must_use]
    pub fn into_row(self) -> Option<Box<ResponseRow>> {
        let held = self.held.concat();
        let response = if self.streamed {
            last_event(&held)?
        } else {
            held
        };
        let body = self.body.concat();
        let (mut tape, mut asked) = (Tape::new(), Tape::new());
        let response = tape.parse_bytes(&response).ok()?;
        let response = response.some("response").unwrap_or(response);
        let asked = asked.parse_bytes(&body).ok()?;
        let id = text(response, "id")?;
        Some(Box::new(ResponseRow {
            input: Bytes::from(state::input_items(asked, &id)),
            previous: text(asked, "previous_response_id").map(String::into_boxed_str),
            id: id.into_boxed_str(),
            key: self.key,
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            provider: self.provider,
            upstream: self.upstream,
            response: Bytes::copy_from_slice(response.raw().as_str().as_bytes()),
        }))
    }
}

fn text(object: Value<'_>, name: &str) -> Option<String> {
    Some(object.some(name)?.as_str()?.to_plain_string())
}

/// The data of the last event that holds a whole response.
fn last_event(held: &[u8]) -> Option<Vec<u8>> {
    let mut last = None;
    let mut decoder = sse::Decoder::new();
    let mut see = |event: sse::Event<'_>| {
        if LAST.iter().any(|finder| finder.find(event.data).is_some()) {
            last = Some(event.data.to_vec());
        }
    };
    decoder.push(held, &mut see).ok()?;
    decoder.finish(&mut see);
    last
}
