//! The beginning of an answer: does an event show something of it, is it a
//! failure in disguise, or must one go on reading?
//!
//! Until the first byte is relayed another target may still be tried, so the
//! first events are looked at more closely than the rest of a stream. What is
//! JSON but of no known shape counts as content: fields that nobody has heard
//! of yet must go on working.

use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::Protocol;
use super::error::{ErrorClass, UpstreamError, error_in_answer, unreadable};

/// What an early event means.
#[derive(Clone, Debug)]
pub enum Opening {
    /// Nothing of the answer yet.
    Wait,
    /// The answer has begun, or has ended regularly.
    Content,
    /// The end, with nothing before it.
    End,
    /// An error inside a successful answer.
    Failure(UpstreamError),
}

/// Judges one event of a stream: its name, if it has one, and its data.
#[must_use]
pub fn classify(protocol: Protocol, event_name: Option<&str>, data: &[u8]) -> Opening {
    let data = data.trim_ascii();
    match data {
        b"" => return Opening::Wait,
        b"[DONE]" => return Opening::End,
        _ => {}
    }
    if event_name == Some("error") {
        return failure(data);
    }
    match protocol {
        Protocol::Chat | Protocol::Completions => chat(data),
        Protocol::Responses => responses(event_name, data),
        Protocol::Messages => messages(event_name, data),
        Protocol::Gemini => gemini(data),
        Protocol::Embeddings | Protocol::Transcriptions | Protocol::Speech | Protocol::Images => {
            media(data)
        }
    }
}

/// Whether an event only says that the connection is alive.
#[must_use]
pub fn is_heartbeat(event_name: Option<&str>, data: &[u8]) -> bool {
    match event_name {
        Some("ping" | "heartbeat" | "keep-alive" | "keepalive") => true,
        Some(_) => false,
        None => {
            let data = data.trim_ascii();
            data.is_empty() || data == b"{\"type\":\"ping\"}" || data == b"{\"type\": \"ping\"}"
        }
    }
}

/// The error that a successful document is, judged by its beginning: it is no
/// JSON at all, or its first member is the vendor's error. The body may be
/// cut off anywhere; `None` is "nothing wrong so far".
#[must_use]
pub fn unary_failure(protocol: Protocol, body_prefix: &[u8]) -> Option<UpstreamError> {
    if matches!(protocol, Protocol::Speech | Protocol::Transcriptions) {
        return None;
    }
    let body = body_prefix
        .strip_prefix(b"\xEF\xBB\xBF")
        .unwrap_or(body_prefix)
        .trim_ascii_start();
    let object = match body.first()? {
        b'{' => body,
        b'[' => body.get(1..)?.trim_ascii_start(),
        _ => return Some(unreadable(body)),
    };
    let inside = object.strip_prefix(b"{")?.trim_ascii_start();
    let (name, value) = first_member(inside)?;
    let failed = match name.as_str() {
        "error" => holds_something(value),
        "type" | "object" => value.starts_with(b"\"error\""),
        _ => false,
    };
    failed.then(|| disguised(object, &name, value))
}

/// In a run of whole events, where the first chat usage event lies, with the
/// blank line that ends it: no choices, and a usage object.
#[must_use]
pub fn usage_event(events: &[u8]) -> Option<Range<usize>> {
    static CHOICES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"choices\""));
    let mut from = 0;
    let mut event = 0..0;
    loop {
        let hit = from + CHOICES.find(&events[from..])?;
        from = hit + CHOICES.needle().len();
        if !is_empty_list(&events[from..]) {
            continue;
        }
        while event.end <= hit {
            event = event.end..event_end(events, event.end);
        }
        if is_usage_event(&events[event.clone()]) {
            return Some(event);
        }
        from = from.max(event.end);
    }
}

fn failure(data: &[u8]) -> Opening {
    Opening::Failure(error_in_answer(data))
}

/// What a typed reading of an event comes to, if it did not work out.
fn misread(data: &[u8], error: &serde_json::Error) -> Opening {
    match error.classify() {
        Category::Data => Opening::Content,
        Category::Syntax | Category::Eof | Category::Io => Opening::Failure(unreadable(data)),
    }
}

/// Events of every protocol are objects. Anything else is a failure, said in
/// an array (Google), in a string, or not at all.
fn parse<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, Opening> {
    match data.first() {
        Some(b'{') => serde_json::from_slice(data).map_err(|error| misread(data, &error)),
        Some(b'[' | b'"') => Err(failure(data)),
        _ => Err(Opening::Failure(unreadable(data))),
    }
}

const fn content_if(shows: bool) -> Opening {
    if shows {
        Opening::Content
    } else {
        Opening::Wait
    }
}

#[derive(Deserialize)]
struct ChatChunk {
    #[serde(default)]
    error: Substance,
    choices: Option<Vec<ChatChoice>>,
}

#[derive(Deserialize)]
struct ChatChoice {
    #[serde(default)]
    error: Substance,
    #[serde(default)]
    delta: Substance,
    #[serde(default)]
    message: Substance,
    #[serde(default)]
    text: Substance,
    finish_reason: Option<String>,
}

impl ChatChoice {
    fn failed(&self) -> bool {
        self.error.0 || self.finish_reason.as_deref() == Some("error")
    }

    fn shows(&self) -> bool {
        let finished = self
            .finish_reason
            .as_deref()
            .is_some_and(|reason| !reason.is_empty());
        finished || self.delta.0 || self.message.0 || self.text.0
    }
}

fn chat(data: &[u8]) -> Opening {
    let chunk: ChatChunk = match parse(data) {
        Ok(chunk) => chunk,
        Err(opening) => return opening,
    };
    match chunk.choices {
        _ if chunk.error.0 => failure(data),
        Some(choices) if choices.iter().any(ChatChoice::failed) => failure(data),
        Some(choices) => content_if(choices.iter().any(ChatChoice::shows)),
        None if is_flat_error(data) => failure(data),
        None => Opening::Wait,
    }
}

/// An error without an envelope, as small servers send it.
#[derive(Deserialize)]
struct FlatError {
    #[serde(rename = "type")]
    kind: Option<serde_json::Value>,
    object: Option<serde_json::Value>,
    code: Option<serde_json::Value>,
    status: Option<serde_json::Value>,
}

fn is_flat_error(data: &[u8]) -> bool {
    let Ok(flat) = serde_json::from_slice::<FlatError>(data) else {
        return false;
    };
    let named = [flat.kind, flat.object];
    let numbered = [flat.code, flat.status];
    named.iter().flatten().any(|value| value == "error")
        || numbered
            .iter()
            .flatten()
            .any(|value| value.as_u64().is_some_and(|code| code >= 400))
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    error: Substance,
}

/// The name of an event: its own, else its data's `type`. An error without
/// either is an error all the same.
fn name_of(event_name: Option<&str>, data: &[u8]) -> Result<String, Opening> {
    let named = event_name.filter(|name| !matches!(*name, "" | "message"));
    match named {
        Some(name) if data.starts_with(b"{") => return Ok(name.to_owned()),
        Some(_) => return Err(Opening::Failure(unreadable(data))),
        None => {}
    }
    let event: Event = parse(data)?;
    match event.kind {
        Some(kind) if kind != "error" => Ok(kind),
        None if !event.error.0 && !is_flat_error(data) => Ok(String::new()),
        _ => Err(failure(data)),
    }
}

#[derive(Deserialize)]
struct Delta {
    #[serde(default)]
    delta: Substance,
}

fn responses(event_name: Option<&str>, data: &[u8]) -> Opening {
    let name = match name_of(event_name, data) {
        Ok(name) => name,
        Err(opening) => return opening,
    };
    match name.as_str() {
        "response.failed" => failure(data),
        "response.created"
        | "response.queued"
        | "response.in_progress"
        | "response.output_item.added"
        | "response.content_part.added"
        | "response.reasoning_summary_part.added" => Opening::Wait,
        name if name.ends_with(".delta") => match parse::<Delta>(data) {
            Ok(event) => content_if(event.delta.0),
            Err(opening) => opening,
        },
        "response.output_text.done"
        | "response.content_part.done"
        | "response.output_item.done" => match parse::<Done>(data) {
            Ok(event) => content_if(event.shows()),
            Err(opening) => opening,
        },
        name => content_if(name.starts_with("response.")),
    }
}

/// The end of a text, a part or an item. One that stayed empty is nothing of the
/// answer yet.
#[derive(Deserialize)]
struct Done {
    #[serde(default)]
    text: Substance,
    part: Option<Block>,
    item: Option<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: Option<String>,
    content: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Substance,
    #[serde(default)]
    refusal: Substance,
}

impl Done {
    fn shows(&self) -> bool {
        let part = self
            .part
            .as_ref()
            .is_some_and(|part| match part.kind.as_deref() {
                Some("output_text" | "text") => part.text.0,
                _ => true,
            });
        let item = self.item.as_ref().is_some_and(|item| {
            let mut parts = item.content.iter().flatten();
            item.kind.as_deref() != Some("message")
                || parts.any(|part| part.text.0 || part.refusal.0)
        });
        self.text.0 || part || item
    }
}

#[derive(Deserialize)]
struct MessageDelta {
    delta: Option<StopReason>,
}

#[derive(Deserialize)]
struct StopReason {
    #[serde(default)]
    stop_reason: Substance,
}

#[derive(Deserialize)]
struct BlockStart {
    content_block: Option<Block>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    text: Substance,
    #[serde(default)]
    thinking: Substance,
}

impl Block {
    /// Blocks that are filled by deltas begin empty; the others come whole.
    fn shows(&self) -> bool {
        match self.kind.as_deref() {
            Some("text" | "thinking") => self.text.0 || self.thinking.0,
            Some("tool_use" | "server_tool_use" | "mcp_tool_use") => false,
            _ => true,
        }
    }
}

fn messages(event_name: Option<&str>, data: &[u8]) -> Opening {
    let name = match name_of(event_name, data) {
        Ok(name) => name,
        Err(opening) => return opening,
    };
    let shows = match name.as_str() {
        "message_stop" => return Opening::End,
        "content_block_start" => parse::<BlockStart>(data)
            .map(|event| event.content_block.is_some_and(|block| block.shows())),
        "content_block_delta" => parse::<Delta>(data).map(|event| event.delta.0),
        "message_delta" => parse::<MessageDelta>(data)
            .map(|event| event.delta.is_some_and(|delta| delta.stop_reason.0)),
        _ => Ok(false),
    };
    shows.map_or_else(|opening| opening, content_if)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiChunk {
    #[serde(default)]
    error: Substance,
    candidates: Option<Vec<Candidate>>,
    prompt_feedback: Option<PromptFeedback>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
    #[serde(default)]
    finish_message: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Substance,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    #[serde(default)]
    block_reason: Substance,
}

impl Candidate {
    fn shows(&self) -> bool {
        self.content.as_ref().is_some_and(|content| content.parts.0)
    }

    fn finished(&self) -> Option<&str> {
        self.finish_reason
            .as_deref()
            .filter(|reason| !matches!(*reason, "" | "FINISH_REASON_UNSPECIFIED"))
    }

    /// The model tried to call a tool and could not. An agent that is told
    /// "stop" would believe it is done; another try often works.
    fn bad_call(&self) -> Option<UpstreamError> {
        let reason = self.finished().filter(|reason| {
            matches!(
                *reason,
                "MALFORMED_FUNCTION_CALL"
                    | "UNEXPECTED_TOOL_CALL"
                    | "TOO_MANY_TOOL_CALLS"
                    | "MISSING_THOUGHT_SIGNATURE"
                    | "MALFORMED_RESPONSE"
            )
        })?;
        let told = self
            .finish_message
            .as_deref()
            .unwrap_or("the model's tool call can't be used");
        Some(UpstreamError {
            class: ErrorClass::UpstreamFailed,
            message: told.chars().take(500).collect(),
            code: Some(reason.to_owned()),
            retry_after: None,
        })
    }
}

fn gemini(data: &[u8]) -> Opening {
    let chunk: GeminiChunk = match parse(data) {
        Ok(chunk) => chunk,
        Err(opening) => return opening,
    };
    let candidates = chunk.candidates.unwrap_or_default();
    if chunk.error.0 {
        return failure(data);
    }
    if candidates.iter().any(Candidate::shows) {
        return Opening::Content;
    }
    if let Some(error) = candidates.iter().find_map(Candidate::bad_call) {
        return Opening::Failure(error);
    }
    let blocked = chunk
        .prompt_feedback
        .is_some_and(|feedback| feedback.block_reason.0);
    content_if(
        blocked
            || candidates
                .iter()
                .any(|candidate| candidate.finished().is_some()),
    )
}

fn media(data: &[u8]) -> Opening {
    match parse::<Event>(data) {
        Ok(event) if event.error.0 || event.kind.as_deref() == Some("error") => failure(data),
        Ok(_) => Opening::Content,
        Err(opening) => opening,
    }
}

/// Whether a value has any text in it, at any depth. Roles and types are
/// labels on what is to come, not part of it; numbers and flags are neither.
#[derive(Clone, Copy, Default)]
struct Substance(bool);

impl<'de> Deserialize<'de> for Substance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SubstanceVisitor).map(Self)
    }
}

struct SubstanceVisitor;

impl<'de> Visitor<'de> for SubstanceVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<bool, E> {
        Ok(!text.is_empty())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<bool, A::Error> {
        let mut any = false;
        while let Some(Substance(item)) = items.next_element()? {
            any |= item;
        }
        Ok(any)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut any = false;
        while let Some(name) = members.next_key::<String>()? {
            let Substance(value) = members.next_value()?;
            any |= value && !matches!(name.as_str(), "role" | "type");
        }
        Ok(any)
    }
}

/// Name and value of the first member, the value with all that follows it;
/// nothing if the text ends before the value begins.
fn first_member(inside: &[u8]) -> Option<(String, &[u8])> {
    let mut names = serde_json::Deserializer::from_slice(inside).into_iter::<String>();
    let name = names.next()?.ok()?;
    let rest = inside.get(names.byte_offset()..)?.trim_ascii_start();
    let value = rest.strip_prefix(b":")?.trim_ascii_start();
    (!value.is_empty()).then_some((name, value))
}

/// Whether a string, object or array begins here that is seen not to be empty.
fn holds_something(value: &[u8]) -> bool {
    let Some((open, inside)) = value.split_first() else {
        return false;
    };
    let (close, first) = match open {
        b'"' => (b'"', inside.first()),
        b'{' => (b'}', inside.trim_ascii_start().first()),
        b'[' => (b']', inside.trim_ascii_start().first()),
        _ => return false,
    };
    first.is_some_and(|first| *first != close)
}

/// The error of a document that may be cut off: read whole, else from its
/// first member's value, else named without details.
fn disguised(object: &[u8], name: &str, value: &[u8]) -> UpstreamError {
    let mut documents = serde_json::Deserializer::from_slice(object).into_iter::<IgnoredAny>();
    if let Some(Ok(_)) = documents.next() {
        return error_in_answer(&object[..documents.byte_offset()]);
    }
    let mut values = serde_json::Deserializer::from_slice(value).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) if name == "error" => error_in_answer(&value[..values.byte_offset()]),
        _ => error_in_answer(b"{}"),
    }
}

/// Whether `:[]` follows, with any white space.
fn is_empty_list(after_name: &[u8]) -> bool {
    let value = after_name
        .trim_ascii_start()
        .strip_prefix(b":")
        .map(<[u8]>::trim_ascii_start);
    let items = value.and_then(|value| value.strip_prefix(b"["));
    items.is_some_and(|items| items.trim_ascii_start().starts_with(b"]"))
}

/// The end of the event that starts at `from`, after its blank line; the end
/// of the bytes if there is none. Always beyond `from`, or at the end.
fn event_end(events: &[u8], from: usize) -> usize {
    let mut at = from;
    let mut blank = true;
    while let Some(length) = events
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'\n', b'\r', rest))
    {
        let line_end = at + length;
        let crlf = events[line_end..].starts_with(b"\r\n");
        let next = line_end + if crlf { 2 } else { 1 };
        if length == 0 && !blank {
            return next;
        }
        blank = blank && length == 0;
        at = next;
    }
    events.len()
}

#[derive(Deserialize)]
struct UsageChunk {
    choices: Vec<IgnoredAny>,
    usage: Option<serde_json::Map<String, serde_json::Value>>,
}

fn is_usage_event(event: &[u8]) -> bool {
    let mut data = Vec::new();
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        if let Some(value) = line.strip_prefix(b"data:") {
            data.extend_from_slice(value);
            data.push(b'\n');
        }
    }
    serde_json::from_slice::<UsageChunk>(&data)
        .is_ok_and(|chunk| chunk.choices.is_empty() && chunk.usage.is_some())
}

#[cfg(test)]
mod tests;
