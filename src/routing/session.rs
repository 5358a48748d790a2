//! Which conversation a request belongs to: what its client says outright, or
//! else how the conversation begins.
//!
//! Only the beginning of a body is looked at, as bytes: a conversation's first
//! two messages are written the same in each of its turns. A single message is
//! no conversation yet.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, Hasher as _};
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName};
use memchr::memchr;
use memchr::memmem;

use super::sticky::Session;
use crate::protocol::Protocol;

/// How much of a body is looked at.
const LOOKED_AT: usize = 64 * 1024;
/// How much of a message tells it from others, at its beginning and its end.
const HEAD: usize = 512;
const TAIL: usize = 64;
/// Most bytes of a session's name that count.
const NAME: usize = 512;

/// Header fields in which clients name their conversation.
static FIELDS: [HeaderName; 6] = [
    HeaderName::from_static("x-session-id"),
    HeaderName::from_static("session_id"),
    HeaderName::from_static("session-id"),
    HeaderName::from_static("x-session-affinity"),
    HeaderName::from_static("x-claude-code-session-id"),
    HeaderName::from_static("conversation_id"),
];

/// Sessions are of this process, and so is their hash.
static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The names under which a request's conversation may be remembered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sessions {
    /// The stored answer that the request goes on from.
    pub answer: Option<Session>,
    /// The conversation.
    pub conversation: Option<Session>,
}

impl Sessions {
    /// The surest first.
    pub fn all(self) -> impl Iterator<Item = Session> {
        self.answer.into_iter().chain(self.conversation)
    }

    /// Reads a request to `alias`, in a protocol that has conversations.
    #[must_use]
    pub fn of(alias: &str, protocol: Protocol, headers: &HeaderMap, frames: &[Bytes]) -> Self {
        let hash = |kind: u8, text: &[u8]| session(alias, protocol, kind, text);
        let named = FIELDS.iter().find_map(|name| headers.get(name));
        let named = named
            .map(|value| value.as_bytes())
            .filter(|name| !name.is_empty());
        let body = beginning(frames);
        let said = Said::read(&body).unwrap_or_default();
        let text = |span: &Option<Range<usize>>| span.clone().map(|span| &body[span]);
        let conversation = named
            .or_else(|| text(&said.cache_key))
            .or_else(|| text(&said.metadata).filter(|text| names_session(text)))
            .map(|name| hash(b'n', name));
        Self {
            answer: text(&said.previous).map(|id| hash(b'r', unquoted(id))),
            conversation: conversation
                .or_else(|| said.messages.map(|sum| hash(b'm', &sum.to_le_bytes()))),
        }
    }

    /// The name of an answer that a later request may go on from.
    #[must_use]
    pub fn of_answer(alias: &str, id: &[u8]) -> Session {
        session(alias, Protocol::Responses, b'r', id)
    }
}

/// The id of a stored answer, from the beginning of its document or stream.
#[must_use]
pub fn answer_id(opening: &[u8]) -> Option<&[u8]> {
    let opening = &opening[..opening.len().min(4096)];
    let at = memmem::find(opening, b"\"resp_")? + 1;
    let length = opening[at..].iter().position(|byte| *byte == b'"')?;
    Some(&opening[at..at + length])
}

fn session(alias: &str, protocol: Protocol, kind: u8, text: &[u8]) -> Session {
    let mut hasher = SEED.build_hasher();
    hasher.write(alias.as_bytes());
    hasher.write(&[0xFF, protocol as u8, kind]);
    hasher.write(&text[..text.len().min(NAME)]);
    Session(hasher.finish())
}

fn names_session(metadata: &[u8]) -> bool {
    memmem::find(metadata, b"session").is_some()
}

fn unquoted(text: &[u8]) -> &[u8] {
    let inner = text
        .strip_prefix(b"\"")
        .and_then(|text| text.strip_suffix(b"\""));
    inner.unwrap_or(text)
}

fn beginning(frames: &[Bytes]) -> Cow<'_, [u8]> {
    match frames {
        [] => Cow::Borrowed(&[]),
        [only] => Cow::Borrowed(&only[..only.len().min(LOOKED_AT)]),
        [first, ..] if first.len() >= LOOKED_AT => Cow::Borrowed(&first[..LOOKED_AT]),
        many => {
            let mut joined = Vec::with_capacity(LOOKED_AT);
            for frame in many {
                let room = LOOKED_AT - joined.len();
                joined.extend_from_slice(&frame[..frame.len().min(room)]);
            }
            Cow::Owned(joined)
        }
    }
}

/// What the beginning of a body says of its conversation.
#[derive(Debug, Default)]
struct Said {
    previous: Option<Range<usize>>,
    cache_key: Option<Range<usize>>,
    metadata: Option<Range<usize>>,
    messages: Option<u64>,
}

impl Said {
    /// Reads members as far as there are bytes. What is no JSON is no business
    /// of this file.
    fn read(body: &[u8]) -> Option<Self> {
        let mut said = Self::default();
        let mut at = space(body, 0);
        if body.get(at) != Some(&b'{') {
            return None;
        }
        at += 1;
        while let Some((key, value)) = member(body, at) {
            let turns = matches!(key, b"messages" | b"input" | b"contents");
            let end = if turns && body[value] == b'[' {
                let (sum, inside) = first_two(body, value);
                said.messages = sum;
                inside.and_then(|inside| skip(body, inside, 1))
            } else {
                let end = skip(body, value, 0);
                said.take(key, body, value, end);
                end
            };
            let Some(end) = end else { break };
            at = space(body, end);
            if body.get(at) != Some(&b',') {
                break;
            }
            at += 1;
        }
        Some(said)
    }

    /// Notes a member that says which conversation this is.
    fn take(&mut self, key: &[u8], body: &[u8], value: usize, end: Option<usize>) {
        let whole = end.map(|end| value..end);
        match key {
            b"metadata" => self.metadata = whole,
            b"previous_response_id" if body[value] == b'"' => self.previous = whole,
            b"prompt_cache_key" if body[value] == b'"' => self.cache_key = whole,
            _ => {}
        }
    }
}

/// The key of the member at `at`, and where its value begins.
fn member(body: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let start = space(body, at);
    if body.get(start) != Some(&b'"') {
        return None;
    }
    let end = string_end(body, start + 1)?;
    let colon = space(body, end);
    if body.get(colon) != Some(&b':') {
        return None;
    }
    let value = space(body, colon + 1);
    (value < body.len()).then(|| (&body[start + 1..end - 1], value))
}

/// What the first two elements of the array at `at` come to, and how far into it
/// that is. One that goes on beyond what is looked at counts as far as it is seen;
/// it is the same part in every turn.
fn first_two(body: &[u8], at: usize) -> (Option<u64>, Option<usize>) {
    let mut hasher = SEED.build_hasher();
    let mut at = space(body, at + 1);
    for last in [false, true] {
        if !matches!(body.get(at), Some(b'{' | b'"')) {
            return (None, Some(at));
        }
        let Some(end) = skip(body, at, 0) else {
            hasher.write(&body[at..body.len().min(at + HEAD)]);
            return (Some(hasher.finish()), None);
        };
        let message = &body[at..end];
        hasher.write_usize(message.len());
        hasher.write(&message[..message.len().min(HEAD)]);
        hasher.write(&message[message.len().saturating_sub(TAIL)..]);
        at = space(body, end);
        if !last {
            if body.get(at) != Some(&b',') {
                return (None, Some(at));
            }
            at = space(body, at + 1);
        }
    }
    (Some(hasher.finish()), Some(at))
}

fn space(body: &[u8], at: usize) -> usize {
    let rest = body.get(at..).unwrap_or_default();
    let length = rest.iter().position(|byte| !byte.is_ascii_whitespace());
    at + length.unwrap_or(rest.len())
}

/// Behind the closing quotation mark of a string whose text begins at `start`.
/// Prose is full of escapes and has few quotation marks: only at these are the
/// backslashes looked at.
fn string_end(body: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let quote = at + memchr(b'"', body.get(at..)?)?;
        let before = body[start..quote].iter().rev();
        let escapes = before.take_while(|byte| **byte == b'\\').count();
        if escapes.is_multiple_of(2) {
            return Some(quote + 1);
        }
        at = quote + 1;
    }
}

/// Behind the value at `at`, or, at some depth, behind all that is open there;
/// `None` when its end is not in sight.
fn skip(body: &[u8], mut at: usize, mut depth: u32) -> Option<usize> {
    loop {
        match *body.get(at)? {
            b'"' => at = string_end(body, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            b',' | b':' if depth > 0 => {
                at += 1;
                continue;
            }
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            _ => {
                let ends = |byte: &u8| {
                    matches!(byte, b',' | b'}' | b']' | b':') || byte.is_ascii_whitespace()
                };
                at += body[at..].iter().position(ends)?.max(1);
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn of(body: &Value) -> Sessions {
        let frames = [Bytes::from(body.to_string())];
        Sessions::of("a", Protocol::Chat, &HeaderMap::new(), &frames)
    }

    fn turns(count: usize, first: &str) -> Value {
        let message = |i: usize| {
            let role = if i.is_multiple_of(2) {
                "user"
            } else {
                "assistant"
            };
            let text = if i == 0 {
                first.to_owned()
            } else {
                format!("turn {i} \\ \" ]}}")
            };
            json!({ "role": role, "content": text })
        };
        let messages: Vec<Value> = (0..count).map(message).collect();
        json!({ "model": "m", "tools": [{"a": [1, 2.5e3, true, null]}], "messages": messages, "stream": true })
    }

    #[test]
    fn a_conversation_is_the_same_in_each_of_its_turns() {
        let second = of(&turns(3, "hello"));
        assert!(second.conversation.is_some());
        assert_eq!(of(&turns(5, "hello")), second);
        assert_eq!(of(&turns(50, "hello")), second);
        assert_ne!(of(&turns(3, "hello!")), second);
    }

    #[test]
    fn a_single_message_is_no_conversation() {
        assert_eq!(of(&turns(1, "hello")), Sessions::default());
        assert_eq!(of(&json!({ "input": "hello" })), Sessions::default());
        assert_eq!(of(&json!([])), Sessions::default());
    }

    #[test]
    fn long_messages_and_many_frames_are_no_obstacle() {
        let long = "x".repeat(200_000);
        let second = of(&turns(3, &long));
        assert!(second.conversation.is_some());
        assert_eq!(of(&turns(9, &long)), second);
        let text = turns(3, "hello").to_string();
        let frames: Vec<Bytes> = text
            .as_bytes()
            .chunks(7)
            .map(Bytes::copy_from_slice)
            .collect();
        let split = Sessions::of("a", Protocol::Chat, &HeaderMap::new(), &frames);
        assert_eq!(split, of(&turns(3, "hello")));
    }

    #[test]
    fn what_the_client_says_outright_goes_first() {
        let mut headers = HeaderMap::new();
        headers.insert("session_id", "s-1".parse().unwrap());
        let read = |body: &Value| {
            Sessions::of(
                "a",
                Protocol::Chat,
                &headers,
                &[Bytes::from(body.to_string())],
            )
        };
        let named = read(&turns(1, "x"));
        assert!(named.conversation.is_some());
        assert_eq!(read(&turns(7, "y")), named);
        let keyed = of(&json!({ "prompt_cache_key": "k", "messages": [{}, {}] }));
        assert_eq!(of(&json!({ "prompt_cache_key": "k" })), keyed);
        let claude = json!({ "metadata": { "user_id": "user_1_session_2" } });
        assert!(of(&claude).conversation.is_some());
        assert_eq!(
            of(&json!({ "metadata": { "user_id": "me" } })),
            Sessions::default()
        );
    }

    #[test]
    fn an_answer_is_gone_on_from_where_it_was_given() {
        let document = br#"{"id":"resp_12","object":"response"}"#;
        let id = answer_id(document).unwrap();
        assert_eq!(id, b"resp_12");
        let body = json!({ "previous_response_id": "resp_12", "input": "on" }).to_string();
        let read = Sessions::of(
            "a",
            Protocol::Responses,
            &HeaderMap::new(),
            &[Bytes::from(body)],
        );
        assert_eq!(read.answer, Some(Sessions::of_answer("a", id)));
        assert_eq!(answer_id(b"{}"), None);
        assert_eq!(answer_id(b"\"resp_"), None);
    }

    #[test]
    fn aliases_and_protocols_have_conversations_of_their_own() {
        let frames = [Bytes::from(turns(3, "x").to_string())];
        let of = |alias, protocol| Sessions::of(alias, protocol, &HeaderMap::new(), &frames);
        assert_ne!(of("a", Protocol::Chat), of("b", Protocol::Chat));
        assert_ne!(of("a", Protocol::Chat), of("a", Protocol::Messages));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _sessions = Sessions::of("a", Protocol::Chat, &HeaderMap::new(), &[Bytes::from(bytes)]);
        }

        #[test]
        fn no_almost_json_makes_it_panic(text in r#"\{("(messages|input|x)" ?: ?(\[|\]|\{|\}|"|,|\\|1| ){0,20},?){0,4}"#) {
            let _sessions = Sessions::of("a", Protocol::Chat, &HeaderMap::new(), &[Bytes::from(text)]);
        }
    }
}
