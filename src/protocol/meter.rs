//! Reads tokens, finish and failure off an answer's bytes as they pass.
//!
//! Nothing is buffered to be counted. A quotation mark inside a JSON string is
//! always escaped, so the bytes `"usage"` can only be a token of the document:
//! each chunk is searched for the few tokens of its protocol that matter, and
//! only the value behind one is looked at. Between chunks a meter keeps some
//! dozens of bytes, and at most 8 KB while a value is cut by a chunk's end.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;

use super::Protocol;
use super::json;
use super::usage::{self, Tokens};

/// Bytes kept of the chunk before: the longest needle, less one, with room to
/// look behind it.
const CARRY: usize = 64;
/// Largest value that is captured.
const CAPTURE: usize = 8 * 1024;
/// Most values that may be cut by one chunk's end; real answers have one.
const CAPTURES: usize = 4;

/// What an answer said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Tokens, by bucket.
    pub tokens: Tokens,
    /// The provider's word for why it stopped.
    pub finish_reason: Option<Cow<'static, str>>,
    /// Tool calls begun.
    pub tool_calls: u32,
}

/// What a needle means when it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// The key of a usage object.
    Usage,
    /// The key of a finish reason.
    Finish,
    /// A key that stands once in each tool call, with a string that is not empty.
    CallName,
    /// A token that stands once in each tool call.
    Call,
    /// The last event.
    Terminal,
    /// `[DONE]`, when it is the whole data of an event.
    Done,
    /// The key of an error object.
    Error,
    /// The value `"error"`, when it is an event's type.
    ErrorType,
    /// The last event, which says that the answer failed.
    Failed,
    /// The key of an event's number.
    Sequence,
}

type Needles = Vec<(Finder<'static>, Token)>;

fn needles(list: &[(&'static str, Token)]) -> Needles {
    list.iter()
        .map(|(needle, token)| (json::finder(needle), *token))
        .collect()
}

static CHAT_STREAM: LazyLock<Needles> = LazyLock::new(|| {
    needles(&[
        ("\"usage\"", Token::Usage),
        ("\"finish_reason\":\"", Token::Finish),
        ("\"finish_reason\": \"", Token::Finish),
        ("\"name\"", Token::CallName),
        ("[DONE]", Token::Done),
        ("\"error\"", Token::Error),
    ])
});
static CHAT: LazyLock<Needles> = LazyLock::new(|| {
    needles(&[
        ("\"usage\"", Token::Usage),
        ("\"finish_reason\"", Token::Finish),
        ("\"name\"", Token::CallName),
    ])
});
static RESPONSES_STREAM: LazyLock<Needles> = LazyLock::new(|| {
    needles(&[
        ("\"usage\"", Token::Usage),
        ("\"response.function_call_arguments.done\"", Token::Call),
        ("\"response.custom_tool_call_input.done\"", Token::Call),
        ("\"response.completed\"", Token::Terminal),
        ("\"response.incomplete\"", Token::Terminal),
        ("\"response.failed\"", Token::Failed),
        ("\"error\"", Token::ErrorType),
        ("\"sequence_number\"", Token::Sequence),
    ])
});
static RESPONSES: LazyLock<Needles> = LazyLock::new(|| {
    needles(&[
        ("\"usage\"", Token::Usage),
        ("\"function_call\"", Token::Call),
        ("\"custom_tool_call\"", Token::Call),
    ])
});
static MESSAGES_STREAM: LazyLock<Needles> = LazyLock::new(|| {
    needles(&[
        ("\"usage\"", Token::Usage),
        ("\"stop_reason\"", Token::Finish),
        ("\"tool_use\"", Token::Call),
        ("\"message_stop\"", Token::Terminal),
        ("\"error\"", Token::ErrorType),
    ])
});
static MESSAGES: LazyLock<Needles> = LazyLock::new(|| {
    needles(&[
        ("\"usage\"", Token::Usage),
        ("\"stop_reason\"", Token::Finish),
        ("\"tool_use\"", Token::Call),
    ])
});
static GEMINI: LazyLock<Needles> = LazyLock::new(|| {
    needles(&[
        ("\"usageMetadata\"", Token::Usage),
        ("\"finishReason\"", Token::Finish),
        ("\"blockReason\"", Token::Terminal),
        ("\"functionCall\"", Token::Call),
        ("\"error\"", Token::Error),
    ])
});
static MEDIA: LazyLock<Needles> = LazyLock::new(|| needles(&[("\"usage\"", Token::Usage)]));

fn needles_of(protocol: Protocol, streaming: bool) -> &'static Needles {
    match (protocol, streaming) {
        (Protocol::Chat | Protocol::Completions, true) => &CHAT_STREAM,
        (Protocol::Chat | Protocol::Completions, false) => &CHAT,
        (Protocol::Responses, true) => &RESPONSES_STREAM,
        (Protocol::Responses, false) => &RESPONSES,
        (Protocol::Messages, true) => &MESSAGES_STREAM,
        (Protocol::Messages, false) => &MESSAGES,
        (Protocol::Gemini, _) => &GEMINI,
        _ => &MEDIA,
    }
}

/// A value that began in a chunk that ended before it.
#[derive(Debug)]
struct Capture {
    token: Token,
    bytes: Vec<u8>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Meter {
    protocol: Protocol,
    streaming: bool,
    needles: &'static Needles,
    carry: [u8; CARRY],
    carried: usize,
    captures: Vec<Capture>,
    reading: Reading,
    stops_for_tools: u32,
    terminal: bool,
    failed: bool,
    failure: Option<String>,
    sequence: Option<u64>,
}

impl Meter {
    /// A meter for one answer.
    #[must_use]
    pub fn new(protocol: Protocol, streaming: bool) -> Self {
        Self {
            protocol,
            streaming,
            needles: needles_of(protocol, streaming),
            carry: [0; CARRY],
            carried: 0,
            captures: Vec::new(),
            reading: Reading::default(),
            stops_for_tools: 0,
            terminal: false,
            failed: false,
            failure: None,
            sequence: None,
        }
    }

    /// Reads the next bytes.
    pub fn push(&mut self, chunk: &[u8]) {
        if !self.captures.is_empty() {
            self.continue_captures(chunk);
        }
        if self.carried > 0 {
            self.search_seam(chunk);
        }
        let needles = self.needles;
        for (finder, token) in needles {
            for at in overlapping(finder, chunk) {
                self.found(*token, chunk, at, at + finder.needle().len());
            }
        }
        self.keep_tail(chunk);
    }

    /// What was read. Calling it again gives the same.
    #[must_use]
    pub fn finish(&mut self) -> Reading {
        let mut reading = self.reading.clone();
        reading.tool_calls = reading.tool_calls.saturating_sub(self.stops_for_tools);
        reading
    }

    /// Whether the protocol's last event, or a finish, has passed.
    #[must_use]
    pub fn terminal(&self) -> bool {
        self.terminal || self.failed
    }

    /// What a relayed error event said, if one passed.
    #[must_use]
    pub fn failed(&self) -> Option<String> {
        let said = || {
            self.failure
                .clone()
                .unwrap_or_else(|| "the provider's stream ended in an error event".into())
        };
        self.failed.then(said)
    }

    /// The sequence number that the next event of a Responses stream has.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.sequence.map_or(0, |last| last.saturating_add(1))
    }

    /// Needles that lie across the border between the last chunk and this one.
    fn search_seam(&mut self, chunk: &[u8]) {
        let head = chunk.len().min(CARRY);
        let mut seam = [0; CARRY * 2];
        let carried = self.carried;
        seam[..carried].copy_from_slice(&self.carry[..carried]);
        seam[carried..carried + head].copy_from_slice(&chunk[..head]);
        let seam = &seam[..carried + head];
        let needles = self.needles;
        for (finder, token) in needles {
            let length = finder.needle().len();
            let from = carried.saturating_sub(length - 1);
            let Some(region) = seam.get(from..seam.len().min(carried + length - 1)) else {
                continue;
            };
            for at in overlapping(finder, region) {
                let (at, end) = (from + at, from + at + length);
                if at < carried && end > carried {
                    // The value lies in the chunk, which is longer than the seam.
                    self.accept(*token, &seam[..at], &chunk[end - carried..]);
                }
            }
        }
    }

    fn found(&mut self, token: Token, chunk: &[u8], at: usize, end: usize) {
        if needs_look_behind(token) {
            let behind = self.behind(chunk, at);
            self.accept(token, &behind.0[..behind.1], &chunk[end..]);
        } else {
            self.accept(token, &[], &chunk[end..]);
        }
    }

    /// Up to [`CARRY`] bytes before an offset of the chunk.
    fn behind(&self, chunk: &[u8], at: usize) -> ([u8; CARRY], usize) {
        let mut bytes = [0; CARRY];
        let from_chunk = at.min(CARRY);
        let from_carry = (CARRY - from_chunk).min(self.carried);
        bytes[..from_carry].copy_from_slice(&self.carry[self.carried - from_carry..self.carried]);
        bytes[from_carry..from_carry + from_chunk].copy_from_slice(&chunk[at - from_chunk..at]);
        (bytes, from_carry + from_chunk)
    }

    fn accept(&mut self, token: Token, behind: &[u8], rest: &[u8]) {
        match token {
            Token::Call => self.reading.tool_calls = self.reading.tool_calls.saturating_add(1),
            Token::Terminal => self.terminal = true,
            Token::Failed => self.failed = true,
            Token::Done => self.terminal |= is_whole_data(behind),
            Token::ErrorType => self.failed |= is_value_of_type(behind),
            Token::Error if self.protocol == Protocol::Gemini && !opens_event(behind) => {}
            Token::Usage | Token::Finish | Token::CallName | Token::Error | Token::Sequence => {
                self.capture(token, Vec::new(), rest)
            }
        }
    }

    /// Reads the value behind a key, or as much of it as there is.
    fn capture(&mut self, token: Token, mut known: Vec<u8>, rest: &[u8]) {
        // `"finish_reason":"` is searched with its quotation mark, because most
        // chunks of a chat stream say `"finish_reason":null`.
        if known.is_empty() && token == Token::Finish && self.is_chat_stream() {
            known.extend_from_slice(b":\"");
        }
        let whole: Cow<'_, [u8]> = if known.is_empty() {
            Cow::Borrowed(rest)
        } else {
            known.extend_from_slice(&rest[..rest.len().min(CAPTURE)]);
            Cow::Owned(known)
        };
        match value_behind(&whole) {
            Value::None => {}
            Value::Whole(range) => self.value(token, &whole[range]),
            Value::Cut if whole.len() < CAPTURE && self.captures.len() < CAPTURES => {
                let bytes = whole.into_owned();
                self.captures.push(Capture { token, bytes });
            }
            Value::Cut => {}
        }
    }

    fn is_chat_stream(&self) -> bool {
        self.streaming && matches!(self.protocol, Protocol::Chat | Protocol::Completions)
    }

    fn continue_captures(&mut self, chunk: &[u8]) {
        for capture in std::mem::take(&mut self.captures) {
            if capture.bytes.is_empty() {
                self.capture(capture.token, Vec::new(), chunk);
                continue;
            }
            let mut bytes = capture.bytes;
            let room = CAPTURE.saturating_sub(bytes.len());
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            match value_behind(&bytes) {
                Value::None => {}
                Value::Whole(range) => self.value(capture.token, &bytes[range]),
                Value::Cut if bytes.len() < CAPTURE => self.captures.push(Capture {
                    token: capture.token,
                    bytes,
                }),
                Value::Cut => {}
            }
        }
    }

    fn value(&mut self, token: Token, value: &[u8]) {
        match token {
            Token::Usage => {
                if let Some(tokens) = usage::decode(self.protocol, value) {
                    self.reading.tokens.update(&tokens);
                }
            }
            Token::Finish => {
                if let Some(reason) = json::plain_string(value) {
                    self.finished(reason);
                } else if let Ok(reason) = serde_json::from_slice::<String>(value) {
                    self.finished(&reason);
                }
            }
            Token::CallName => {
                let named = value.len() > 2 && value.first() == Some(&b'"');
                self.reading.tool_calls += u32::from(named);
            }
            Token::Error => self.error(value),
            Token::Sequence => {
                if let Ok(number) = serde_json::from_slice(value) {
                    self.sequence = Some(number);
                }
            }
            _ => {}
        }
    }

    fn finished(&mut self, reason: &str) {
        if reason.is_empty() || reason == "FINISH_REASON_UNSPECIFIED" {
            return;
        }
        // The reason is the one place besides a call where this word stands.
        if self.protocol == Protocol::Messages && reason == "tool_use" {
            self.stops_for_tools += 1;
        }
        // Messages and Responses have an event for the end; a reason before it
        // is none.
        self.terminal |=
            !matches!(self.protocol, Protocol::Messages | Protocol::Responses) || !self.streaming;
        self.failed |= self.streaming && reason == "error";
        self.reading.finish_reason = Some(interned(reason));
    }

    fn error(&mut self, value: &[u8]) {
        #[derive(Deserialize)]
        struct Said {
            message: Option<String>,
        }
        if !self.streaming || !matches!(value.first(), Some(b'{' | b'"')) {
            return;
        }
        self.failed = true;
        let said = serde_json::from_slice::<Said>(value)
            .ok()
            .and_then(|said| said.message);
        self.failure = said.map(|text| text.chars().take(500).collect());
    }

    fn keep_tail(&mut self, chunk: &[u8]) {
        if chunk.len() >= CARRY {
            self.carry.copy_from_slice(&chunk[chunk.len() - CARRY..]);
            self.carried = CARRY;
            return;
        }
        let keep = self.carried.min(CARRY - chunk.len());
        self.carry.copy_within(self.carried - keep..self.carried, 0);
        self.carry[keep..keep + chunk.len()].copy_from_slice(chunk);
        self.carried = keep + chunk.len();
    }
}

/// All places of a needle, those included that begin with the quotation mark that
/// the one before ends with: which of the two counts must not hang on where a
/// chunk ends.
fn overlapping<'a>(finder: &'a Finder<'_>, bytes: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + finder.find(bytes.get(from..)?)?;
        from = at + 1;
        Some(at)
    })
}

const fn needs_look_behind(token: Token) -> bool {
    matches!(token, Token::Done | Token::ErrorType | Token::Error)
}

/// The words that nearly every answer ends with cost no allocation to keep.
fn interned(reason: &str) -> Cow<'static, str> {
    const KNOWN: [&str; 10] = [
        "stop",
        "length",
        "tool_calls",
        "content_filter",
        "end_turn",
        "max_tokens",
        "tool_use",
        "stop_sequence",
        "STOP",
        "MAX_TOKENS",
    ];
    match KNOWN.into_iter().find(|known| *known == reason) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(reason.chars().take(64).collect()),
    }
}

/// `data: [DONE]` at the start of a line; text that merely contains it follows
/// something else.
fn is_whole_data(behind: &[u8]) -> bool {
    let line = behind.strip_suffix(b" ").unwrap_or(behind);
    let Some(before) = line.strip_suffix(b"data:") else {
        return false;
    };
    matches!(before.last(), None | Some(b'\n' | b'\r'))
}

/// `"type":` before a value.
fn is_value_of_type(behind: &[u8]) -> bool {
    let trimmed = behind.trim_ascii_end();
    let Some(key) = trimmed.strip_suffix(b":") else {
        return false;
    };
    key.trim_ascii_end().ends_with(b"\"type\"")
}

/// An event's first member: `data: {` or the start of an array before it. The
/// arguments of a call may hold any key; they are never that near the start.
fn opens_event(behind: &[u8]) -> bool {
    let Some(before) = behind.trim_ascii_end().strip_suffix(b"{") else {
        return false;
    };
    let before = before.trim_ascii_end();
    before.is_empty() || before.ends_with(b"data:")
}

enum Value {
    /// What follows is no `: value`.
    None,
    /// Here it is.
    Whole(std::ops::Range<usize>),
    /// It is not all there yet.
    Cut,
}

/// The object, string or literal behind a key's closing quotation mark.
fn value_behind(bytes: &[u8]) -> Value {
    let mut at = 0;
    let skip = |at: &mut usize| {
        while bytes.get(*at).is_some_and(u8::is_ascii_whitespace) {
            *at += 1;
        }
    };
    skip(&mut at);
    match bytes.get(at) {
        Some(b':') => at += 1,
        Some(_) => return Value::None,
        None => return Value::Cut,
    }
    skip(&mut at);
    match bytes.get(at) {
        Some(b'{') => object_from(bytes, at),
        Some(b'"') => string_from(bytes, at).map_or(Value::Cut, |end| Value::Whole(at..end)),
        Some(b'0'..=b'9') => {
            let digits = bytes.get(at..).unwrap_or_default();
            match digits.iter().position(|byte| !byte.is_ascii_digit()) {
                Some(length) => Value::Whole(at..at + length),
                None => Value::Cut,
            }
        }
        Some(_) => Value::None,
        None => Value::Cut,
    }
}

/// The offset behind the string that starts at `at`.
fn string_from(bytes: &[u8], at: usize) -> Option<usize> {
    let mut next = at + 1;
    loop {
        let found = json::string_stop(bytes, next)?;
        if bytes[found] == b'"' {
            return Some(found + 1);
        }
        next = found + 2;
    }
}

fn object_from(bytes: &[u8], start: usize) -> Value {
    let mut depth = 0_u32;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Value::Whole(start..at + 1);
                }
            }
            b'"' => match string_from(bytes, at) {
                Some(end) => {
                    at = end;
                    continue;
                }
                None => return Value::Cut,
            },
            _ => {}
        }
        at += 1;
    }
    Value::Cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(
        protocol: Protocol,
        streaming: bool,
        chunks: &[&[u8]],
    ) -> (Reading, bool, Option<String>) {
        let mut meter = Meter::new(protocol, streaming);
        for chunk in chunks {
            meter.push(chunk);
        }
        (meter.finish(), meter.terminal(), meter.failed())
    }

    const CHAT_EVENTS: &str = concat!(
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"say \\\"usage\\\":{\\\"prompt_tokens\\\":9} and [DONE]\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"name\":\"\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\": \"tool_calls\"}]}\n\n",
        "data: {\"choices\":[],\"usage\": {\"prompt_tokens\":11,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":1}}}\n\ndata: [DONE]\n\n",
    );
    const MESSAGES_EVENTS: &str = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":20,\"cache_read_input_tokens\":4,\"output_tokens\":1},\"stop_reason\":null}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":30}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    const RESPONSES_EVENTS: &str = concat!(
        "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"usage\":null,\"error\":null,\"tools\":[{\"parameters\":{\"properties\":{\"usage\":{\"type\":\"string\"},\"error\":{\"type\":\"object\"}}}}]}}\n\n",
        "event: response.function_call_arguments.done\ndata: {\"type\":\"response.function_call_arguments.done\",\"sequence_number\":1}\n\n",
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"sequence_number\":2,\"response\":{\"usage\":{\"input_tokens\":5,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":6}}}\n\n",
    );
    const GEMINI_EVENTS: &str = concat!(
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"name\":\"f\",\"args\":{\"error\":{\"message\":\"x\"}}}}]}}],\"usageMetadata\":{\"promptTokenCount\":7,\"totalTokenCount\":7}}\r\n\r\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":7,\"candidatesTokenCount\":2}}\r\n\r\n",
    );

    #[test]
    fn every_protocols_stream_is_read() {
        let (chat, terminal, failed) = read(Protocol::Chat, true, &[CHAT_EVENTS.as_bytes()]);
        assert_eq!(
            (
                chat.tokens.input,
                chat.tokens.cache_read,
                chat.tokens.output
            ),
            (Some(10), Some(1), Some(3))
        );
        assert_eq!(
            (
                chat.finish_reason.as_deref(),
                chat.tool_calls,
                terminal,
                failed
            ),
            (Some("tool_calls"), 1, true, None)
        );
        let (messages, terminal, failed) =
            read(Protocol::Messages, true, &[MESSAGES_EVENTS.as_bytes()]);
        assert_eq!(
            (
                messages.tokens.input,
                messages.tokens.cache_read,
                messages.tokens.output
            ),
            (Some(20), Some(4), Some(30))
        );
        assert_eq!(
            (
                messages.finish_reason.as_deref(),
                messages.tool_calls,
                terminal,
                failed
            ),
            (Some("tool_use"), 1, true, None)
        );
        let (responses, terminal, failed) =
            read(Protocol::Responses, true, &[RESPONSES_EVENTS.as_bytes()]);
        assert_eq!(
            (
                responses.tokens.input,
                responses.tokens.output,
                responses.tool_calls
            ),
            (Some(5), Some(6), 1)
        );
        assert_eq!((terminal, failed), (true, None));
        let (gemini, terminal, failed) = read(Protocol::Gemini, true, &[GEMINI_EVENTS.as_bytes()]);
        assert_eq!(
            (gemini.tokens.input, gemini.tokens.output, gemini.tool_calls),
            (Some(7), Some(2), 1)
        );
        assert_eq!(
            (gemini.finish_reason.as_deref(), terminal, failed),
            (Some("STOP"), true, None)
        );
    }

    #[test]
    fn names_that_share_a_quotation_mark_read_the_same_at_any_chunking() {
        let text = b"\"usage\"usage\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}";
        let whole = read(Protocol::Chat, true, &[text]);
        assert_eq!(whole.0.tokens.output, Some(4));
        for cut in 0..text.len() {
            assert_eq!(
                read(Protocol::Chat, true, &[&text[..cut], &text[cut..]]),
                whole,
                "{cut}"
            );
        }
    }

    #[test]
    fn a_stream_without_its_end_is_not_terminal() {
        let cut = &CHAT_EVENTS.as_bytes()[..300];
        assert!(!read(Protocol::Chat, true, &[cut]).1);
        assert!(
            !read(
                Protocol::Chat,
                true,
                &[b"data: {\"choices\":[{\"delta\":{\"content\":\"data: [DONE]\"}}]}\n\n"]
            )
            .1
        );
    }

    #[test]
    fn error_events_are_noticed_in_every_protocol() {
        let said = |protocol, text: &str| read(protocol, true, &[text.as_bytes()]).2;
        assert_eq!(
            said(
                Protocol::Chat,
                "data: {\"error\":{\"message\":\"boom\"}}\n\n"
            )
            .as_deref(),
            Some("boom")
        );
        assert!(said(Protocol::Messages, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n").is_some());
        assert!(
            said(
                Protocol::Responses,
                "event: error\ndata: {\"type\": \"error\",\"message\":\"m\"}\n\n"
            )
            .is_some()
        );
        assert!(
            said(
                Protocol::Responses,
                "data: {\"type\":\"response.failed\"}\n\n"
            )
            .is_some()
        );
        assert_eq!(
            said(
                Protocol::Gemini,
                "data: {\"error\":{\"code\":503,\"message\":\"m\"}}\n\n"
            )
            .as_deref(),
            Some("m")
        );
        assert_eq!(
            said(Protocol::Chat, "data: {\"error\":null,\"choices\":[]}\n\n"),
            None
        );
    }

    #[test]
    fn documents_are_read_too() {
        let text = b"{\"choices\":[{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"a\"}},{\"function\":{\"name\":\"b\"}}]},\"finish_reason\":\"tool_calls\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}";
        let (reading, ..) = read(Protocol::Chat, false, &[text]);
        assert_eq!((reading.tokens.output, reading.tool_calls), (Some(4), 2));
        assert_eq!(reading.finish_reason.as_deref(), Some("tool_calls"));
    }

    proptest! {
        #[test]
        fn any_chunking_reads_the_same(cuts in proptest::collection::vec(0_usize..2000, 0..20), which in 0_usize..4) {
            let (protocol, text) = [
                (Protocol::Chat, CHAT_EVENTS), (Protocol::Messages, MESSAGES_EVENTS),
                (Protocol::Responses, RESPONSES_EVENTS), (Protocol::Gemini, GEMINI_EVENTS),
            ][which];
            let text = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let whole = read(protocol, true, &[text]);
            prop_assert_eq!(&read(protocol, true, &chunks), &whole);
            let bytewise: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(read(protocol, true, &bytewise), whole);
        }

        #[test]
        fn no_bytes_make_a_meter_fail(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in 1_usize..50) {
            for protocol in Protocol::ALL {
                let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
                read(protocol, true, &chunks);
                read(protocol, false, &chunks);
            }
        }
    }
}
