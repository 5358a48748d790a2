//! What a provider meant by its error, in whatever shape it came.
//!
//! The HTTP status speaks first; words in the body refine it. Bodies are
//! trusted in nothing: messages are cut, and what looks like a key is taken
//! out of them.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::{ErrorClass, retry};
use crate::protocol::{chat, gemini, messages};

/// The longest message that is kept, in characters.
const MESSAGE: usize = 500;
/// The most of a body that is looked at as text.
const TEXT: usize = 4096;
/// How many times a message may hold another error as JSON. Gateways behind
/// gateways wrap; the innermost speaks plainest.
const NESTING: u8 = 3;

/// A provider's error, understood.
#[derive(Clone, Debug)]
pub struct UpstreamError {
    /// What kind it is.
    pub class: ErrorClass,
    /// The provider's innermost message, at most 500 characters.
    pub message: String,
    /// The provider's code, when it says more than the class.
    pub code: Option<String>,
    /// When the provider asks to come back, at most 31 days.
    pub retry_after: Option<Duration>,
}

/// Reads an error answer: any of the four shapes, Google's one-element array,
/// a bare string, plain text or HTML. `now` turns dates into durations.
#[must_use]
pub fn upstream_error(
    status: StatusCode,
    body: &[u8],
    headers: &HeaderMap,
    now: SystemTime,
) -> UpstreamError {
    understand(status, body, headers, Some(now))
}

/// Reads an error that came in the body of a successful answer.
pub(in crate::protocol) fn error_in_answer(body: &[u8]) -> UpstreamError {
    understand(StatusCode::OK, body, &HeaderMap::new(), None)
}

/// The failure of an answer that is nothing the protocol knows.
pub(in crate::protocol) fn unreadable(body: &[u8]) -> UpstreamError {
    let told = plain(&text_of(body), StatusCode::OK);
    UpstreamError {
        class: ErrorClass::UpstreamFailed,
        message: cut(&scrub(&format!(
            "the provider's answer can't be read: {told}"
        ))),
        code: None,
        retry_after: None,
    }
}

fn understand(
    status: StatusCode,
    body: &[u8],
    headers: &HeaderMap,
    now: Option<SystemTime>,
) -> UpstreamError {
    let text = text_of(body);
    let document = parse(&text, body);
    let mut error = read(status, &text, document.as_ref());
    error.retry_after = retry::delay(&retry::Source {
        status: status.as_u16(),
        headers,
        error: document.as_ref().map(error_value),
        message: &error.message,
        now,
    });
    error
}

fn read(status: StatusCode, text: &str, document: Option<&Value>) -> UpstreamError {
    let Some(document) = document else {
        let message = cut(&scrub(&plain(text, status)));
        let class = class_without_words(status, text);
        return UpstreamError {
            class: by_phrase(class, status, &message),
            message,
            code: None,
            retry_after: None,
        };
    };
    let error = error_value(document);
    let told = innermost(error, NESTING).unwrap_or_else(|| nothing_said(status));
    let words = Words::of(error);
    let effective = if status.is_success() {
        number(error).or_else(|| number(document))
    } else {
        Some(status.as_u16())
    };
    let class = words.refine(
        effective.map_or(ErrorClass::UpstreamFailed, class_of_status),
        status,
    );
    UpstreamError {
        class: by_phrase(class, status, &told),
        message: cut(&scrub(&told)),
        code: words.specific(),
        retry_after: None,
    }
}

/// The body as text: at most the first few kilobytes of it.
fn text_of(body: &[u8]) -> String {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    String::from_utf8_lossy(&body[..body.len().min(TEXT)])
        .trim()
        .to_owned()
}

/// The body as JSON. Some providers answer a failed stream with an event.
fn parse(text: &str, body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    if text.starts_with("event:") || text.starts_with("data:") {
        let data = text.lines().find_map(|line| line.strip_prefix("data:"))?;
        return serde_json::from_str(data).ok();
    }
    serde_json::from_slice(body).ok()
}

/// The value that describes the error: whatever stands where one of the
/// known shapes puts it, else the whole document.
fn error_value(document: &Value) -> &Value {
    const PLACES: [&str; 5] = [
        "/error",
        "/response/error",
        "/choices/0/error",
        "/errors/0",
        "/detail/0",
    ];
    let document = match document {
        Value::Array(items) => items.first().unwrap_or(document),
        other => other,
    };
    let mut values = PLACES.iter().filter_map(|place| document.pointer(place));
    values
        .find(|value| says_something(value))
        .unwrap_or(document)
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

fn innermost(error: &Value, nesting: u8) -> Option<String> {
    let told = error
        .pointer("/metadata/raw")
        .and_then(filled)
        .or_else(|| message_of(error))?;
    let nested = told.trim_start().starts_with(['{', '[']) && nesting > 0;
    if nested
        && let Ok(inner) = serde_json::from_str::<Value>(told)
        && let Some(message) = innermost(error_value(&inner), nesting - 1)
    {
        return Some(message);
    }
    Some(told.to_owned())
}

fn message_of(error: &Value) -> Option<&str> {
    const NAMES: [&str; 8] = [
        "/message",
        "/message/message",
        "/msg",
        "/detail",
        "/error_description",
        "/error",
        "/errorMessage",
        "/title",
    ];
    filled(error).or_else(|| {
        NAMES
            .iter()
            .find_map(|name| error.pointer(name).and_then(filled))
    })
}

fn filled(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.trim().is_empty())
}

/// What a body that is no JSON says. Of a page of HTML only its title, which
/// tells which machine on the way wrote it.
fn plain(text: &str, status: StatusCode) -> String {
    if text.is_empty() {
        return nothing_said(status);
    }
    if !text.starts_with('<') {
        return text.to_owned();
    }
    match title(text) {
        Some(title) => format!("an HTML page, \"{title}\""),
        None => "an HTML page".to_owned(),
    }
}

fn title(page: &str) -> Option<&str> {
    let lower = page.to_ascii_lowercase();
    let start = lower.find("<title>")? + "<title>".len();
    let length = lower.get(start..)?.find("</title>")?;
    let title = page.get(start..start + length)?.trim();
    (!title.is_empty()).then_some(title)
}

fn nothing_said(status: StatusCode) -> String {
    if status.is_success() {
        return "the provider's answer says that it failed, but not why".to_owned();
    }
    match status.canonical_reason() {
        Some(reason) => format!("HTTP {} {reason}", status.as_u16()),
        None => format!("HTTP {}", status.as_u16()),
    }
}

/// A 400 or 404 with a web page was not written by the model's API.
fn class_without_words(status: StatusCode, text: &str) -> ErrorClass {
    let class = class_of_status(status.as_u16());
    let by_client = matches!(class, ErrorClass::InvalidRequest | ErrorClass::NotFound);
    if by_client && text.starts_with('<') {
        ErrorClass::UpstreamFailed
    } else {
        class
    }
}

const fn class_of_status(status: u16) -> ErrorClass {
    match status {
        401 | 403 | 407 => ErrorClass::UpstreamAuth,
        402 => ErrorClass::Quota,
        404 | 410 => ErrorClass::NotFound,
        405 => ErrorClass::UpstreamFailed,
        408 | 504 | 524 => ErrorClass::Timeout,
        409 => ErrorClass::Conflict,
        413 => ErrorClass::TooLarge,
        429 => ErrorClass::RateLimited,
        503 | 529 => ErrorClass::Overloaded,
        400..=499 => ErrorClass::InvalidRequest,
        _ => ErrorClass::UpstreamFailed,
    }
}

/// The HTTP status inside an error object, as a number or as digits.
fn number(error: &Value) -> Option<u16> {
    let status = ["code", "status", "status_code"].iter().find_map(|name| {
        let value = error.get(name)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    })?;
    u16::try_from(status)
        .ok()
        .filter(|status| (400..600).contains(status))
}

/// The machine-readable words of an error object.
struct Words<'a> {
    reason: Option<&'a str>,
    code: Option<&'a str>,
    kind: Option<&'a str>,
    status: Option<&'a str>,
}

impl<'a> Words<'a> {
    fn of(error: &'a Value) -> Self {
        let word = |name: &str| error.get(name).and_then(filled);
        let details = error.get("details");
        let reason = details
            .and_then(|details| details.get("error_code"))
            .or_else(|| {
                details?
                    .as_array()?
                    .iter()
                    .find_map(|detail| detail.get("reason"))
            });
        Self {
            reason: reason.and_then(filled),
            code: word("code"),
            kind: word("type"),
            status: word("status"),
        }
    }

    /// The first word that is known, from the most specific to the least.
    fn class(&self) -> Option<ErrorClass> {
        let words = [self.reason, self.code, self.kind, self.status];
        words.into_iter().flatten().find_map(|word| {
            chat::error::class_of(word)
                .or_else(|| messages::error::class_of(word))
                .or_else(|| gemini::error::class_of(word))
        })
    }

    /// What the words make of the class that the status gave. They may tell
    /// apart what shares a status, not contradict it.
    fn refine(&self, class: ErrorClass, status: StatusCode) -> ErrorClass {
        let Some(word) = self.class() else {
            return class;
        };
        let refines = match class {
            ErrorClass::InvalidRequest => word != ErrorClass::UpstreamFailed,
            ErrorClass::UpstreamFailed => word != ErrorClass::InvalidRequest || status.is_success(),
            ErrorClass::RateLimited | ErrorClass::UpstreamAuth => word == ErrorClass::Quota,
            ErrorClass::TooLarge => word == ErrorClass::ContextLength,
            _ => false,
        };
        if refines { word } else { class }
    }

    /// The code, if it says more than a class does.
    fn specific(&self) -> Option<String> {
        let words = [self.reason, self.code, self.kind];
        let general = |word: &str| word == "error" || word.ends_with("_error");
        let digits = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
        let specific = words
            .into_iter()
            .flatten()
            .find(|word| !general(word) && !digits(word))?;
        Some(cut(&scrub(specific)))
    }
}

/// Phrases that tell an empty account from a limit that passes by itself.
const ACCOUNT_EMPTY: [&str; 8] = [
    "insufficient_quota",
    "credit balance is too low",
    "used up your points",
    "out of credits",
    "balance too low",
    "insufficient balance",
    "insufficient funds",
    "insufficient credits",
];

/// Phrases that mean an account in a 400, but may mean a minute in a 429.
const ALLOWANCE_USED: [&str; 4] = [
    "quota exceeded",
    "account balance",
    "quota limit",
    "usage limit",
];

/// Phrases for a prompt over the model's context. There is no code for it in
/// two of the protocols.
const PROMPT_TOO_LONG: [&str; 4] = [
    "prompt is too long",
    "maximum context length",
    "exceeds the maximum number of tokens",
    "context_length_exceeded",
];

fn by_phrase(class: ErrorClass, status: StatusCode, message: &str) -> ErrorClass {
    let text = message.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    let server = class == ErrorClass::UpstreamFailed;
    let client = matches!(class, ErrorClass::InvalidRequest | ErrorClass::TooLarge);
    if (client || server) && (says(&PROMPT_TOO_LONG) || counts_too_many(&text)) {
        return ErrorClass::ContextLength;
    }
    let open = class == ErrorClass::InvalidRequest || (server && status.is_success());
    let limited = matches!(class, ErrorClass::RateLimited | ErrorClass::UpstreamAuth);
    if (open && says(&ALLOWANCE_USED)) || ((open || limited) && says(&ACCOUNT_EMPTY)) {
        return ErrorClass::Quota;
    }
    class
}

/// Gemini's "The input token count (N) exceeds the maximum ...".
fn counts_too_many(text: &str) -> bool {
    text.split_once("input token count")
        .is_some_and(|(_, rest)| rest.contains("exceeds"))
}

/// The message at a length that fits a log line and an answer.
fn cut(message: &str) -> String {
    message.trim().chars().take(MESSAGE).collect()
}

/// How the keys of well-known providers begin.
const KEYS: [&str; 15] = [
    "sk-", "sk_", "AIza", "gsk_", "xai-", "pplx-", "ghu_", "gho_", "ghp_", "ya29.", "eyJ",
    "nvapi-", "hf_", "r8_", "AKIA",
];

/// The text without what looks like a credential: providers quote the key
/// they refuse.
fn scrub(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_bearer = false;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        let known = word.len() >= 16 && KEYS.iter().any(|start| word.starts_with(start));
        let secret = known || (after_bearer && word.len() >= 8);
        clean.push_str(if secret { "[redacted]" } else { word });
        if !word.is_empty() {
            after_bearer = word.eq_ignore_ascii_case("bearer");
        }
        let gap = tail.find(is_part).unwrap_or(tail.len());
        let (between, next) = tail.split_at(gap);
        clean.push_str(between);
        rest = next;
    }
    clean
}
