//! The protocols as their clients see them: how an answer is asked for, which
//! frames come back, and what tells a finished answer from one that failed.
//!
//! Written against the vendors' documentation, not against the gateway's own
//! readers: what both got wrong would go unnoticed.

use serde_json::{Value, json};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Responses,
    Messages,
    Gemini,
    /// Gemini without `alt=sse`: one JSON array.
    GeminiArray,
}

/// What a client makes of a stream's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It says that it is whole.
    Finished,
    /// It says that it failed, in its last event and there alone.
    Failed,
    /// It says neither.
    Open,
    /// It is not a sequence of whole events, or one that no provider sends.
    Invalid(String),
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: Option<String>,
    pub(crate) data: String,
}

impl Event {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

impl Dialect {
    pub(crate) const ALL: [Self; 5] = [
        Self::Chat,
        Self::Responses,
        Self::Messages,
        Self::Gemini,
        Self::GeminiArray,
    ];
    /// One for each protocol.
    pub(crate) const FOUR: [Self; 4] = [Self::Chat, Self::Responses, Self::Messages, Self::Gemini];

    /// The provider that speaks it, and its name in usage records.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini | Self::GeminiArray => "gemini",
        }
    }

    /// Path and body of a request.
    pub(crate) fn ask(self, model: &str, stream: bool) -> (String, Value) {
        let turn = json!([{"role": "user", "content": "hello"}]);
        let mut body = match self {
            Self::Chat => json!({"model": model, "messages": turn}),
            Self::Responses => json!({"model": model, "input": "hello"}),
            Self::Messages => json!({"model": model, "max_tokens": 99, "messages": turn}),
            Self::Gemini | Self::GeminiArray => {
                return (
                    self.gemini_path(model, stream),
                    json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
                );
            }
        };
        if stream {
            body["stream"] = json!(true);
        }
        (self.path().to_owned(), body)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            _ => "/v1/messages",
        }
    }

    fn gemini_path(self, model: &str, stream: bool) -> String {
        let action = match (stream, self) {
            (false, _) => "generateContent",
            (true, Self::Gemini) => "streamGenerateContent?alt=sse",
            (true, _) => "streamGenerateContent",
        };
        format!("/v1beta/models/{model}:{action}")
    }

    /// Header fields with which the provider itself can be asked.
    pub(crate) fn vendor_headers(self) -> Vec<(&'static str, &'static str)> {
        let mut headers = vec![("content-type", "application/json")];
        match self {
            Self::Chat | Self::Responses => headers.push(("authorization", "Bearer own")),
            Self::Messages => {
                headers.extend([("x-api-key", "own"), ("anthropic-version", "2023-06-01")])
            }
            Self::Gemini | Self::GeminiArray => headers.push(("x-goog-api-key", "own")),
        }
        headers
    }

    /// What a client makes of a stream that ended regularly.
    pub(crate) fn ending(self, body: &[u8]) -> Ending {
        let events = match self.events(body) {
            Ok(events) => events,
            Err(problem) => return Ending::Invalid(problem),
        };
        let failures = events.iter().filter(|event| self.fails(event)).count();
        let finished = events.iter().any(|event| self.finishes(event));
        let wanted = if self == Self::Responses { 2 } else { 1 };
        match (failures, finished) {
            (0, true) => Ending::Finished,
            (0, false) => Ending::Open,
            (_, true) => Ending::Invalid("finished and failed".to_owned()),
            (count, false) if count == wanted => self.failed_last(&events[events.len() - wanted..]),
            (count, false) => Ending::Invalid(format!("{count} events of failure")),
        }
    }

    /// Whether a broken connection's bytes could be taken for all of them.
    pub(crate) fn looks_finished(self, body: &[u8]) -> bool {
        let whole = match self {
            Self::GeminiArray => Some(body.len()),
            Self::Gemini => body
                .windows(3)
                .rposition(|end| end == b"\r\n\r")
                .map(|at| at + 3),
            _ => body
                .windows(2)
                .rposition(|end| end == b"\n\n")
                .map(|at| at + 2),
        };
        let events = self.events(&body[..whole.unwrap_or(0)]).unwrap_or_default();
        events.iter().any(|event| self.finishes(event))
    }

    /// The events of a stream that is whole, comments left out.
    pub(crate) fn events(self, body: &[u8]) -> Result<Vec<Event>, String> {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        if self == Self::GeminiArray {
            return elements(text);
        }
        // All three are line ends (WHATWG, 9.2.6).
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        if !text.is_empty() && !text.ends_with("\n\n") {
            let tail = text.rsplit("\n\n").next().unwrap_or_default();
            return Err(format!("cut inside an event: {tail:?}"));
        }
        let blocks = text
            .split("\n\n")
            .map(|block| block.trim_start_matches('\n'));
        let events = blocks
            .filter(|block| !block.is_empty())
            .filter_map(|block| event(block).transpose());
        events.collect()
    }

    /// Whether an event says that the answer is whole.
    pub(crate) fn finishes(self, event: &Event) -> bool {
        match self {
            Self::Chat => event.data == "[DONE]",
            Self::Responses => matches!(
                event.json()["type"].as_str(),
                Some("response.completed" | "response.incomplete")
            ),
            Self::Messages => event.json()["type"] == "message_stop",
            Self::Gemini | Self::GeminiArray => {
                event.json()["candidates"][0]["finishReason"].is_string()
            }
        }
    }

    fn fails(self, event: &Event) -> bool {
        let data = event.json();
        match self {
            Self::Chat | Self::Gemini | Self::GeminiArray => data["error"].is_object(),
            Self::Responses => data["type"] == "error" || data["type"] == "response.failed",
            Self::Messages => data["type"] == "error",
        }
    }

    /// The failure must be of the form that the vendor's own SDK raises.
    fn failed_last(self, last: &[Event]) -> Ending {
        let data: Vec<Value> = last.iter().map(Event::json).collect();
        let first = &data[0];
        let sound = self.fails(&last[0])
            && match self {
                Self::Chat => first["error"]["message"].is_string() && last[0].name.is_none(),
                Self::Messages => {
                    last[0].name.as_deref() == Some("error") && first["error"]["type"].is_string()
                }
                Self::Gemini | Self::GeminiArray => {
                    let code = first["error"]["code"].as_u64().unwrap_or(0);
                    (400..600).contains(&code)
                        && last[0].data.trim_start().starts_with("{\"error\"")
                        || last[0]
                            .data
                            .replace(char::is_whitespace, "")
                            .starts_with("{\"error\"")
                }
                Self::Responses => {
                    let second = &data[1];
                    let numbers = [first, second].map(|data| data["sequence_number"].as_u64());
                    first["error"].is_object()
                        && last[0].name.as_deref() == Some("error")
                        && last[1].name.as_deref() == Some("response.failed")
                        && second["response"]["status"] == "failed"
                        && numbers[0].zip(numbers[1]).is_some_and(|(a, b)| a + 1 == b)
                }
            };
        match sound {
            true => Ending::Failed,
            false => Ending::Invalid(format!("no SDK raises {last:?}")),
        }
    }

    /// Type and message of an error answer; panics when it has not the
    /// vendor's shape.
    pub(crate) fn error(self, body: &Value) -> (String, String) {
        let error = &body["error"];
        let word = match self {
            Self::Chat | Self::Responses => {
                let keys = ["message", "type", "param", "code"];
                assert!(keys.iter().all(|key| error.get(key).is_some()), "{body}");
                &error["type"]
            }
            Self::Messages => {
                assert_eq!(body["type"], "error", "{body}");
                &error["type"]
            }
            Self::Gemini | Self::GeminiArray => {
                assert!(error["code"].is_u64(), "{body}");
                &error["status"]
            }
        };
        let text = |value: &Value| {
            value
                .as_str()
                .unwrap_or_else(|| panic!("{body}"))
                .to_owned()
        };
        (text(word), text(&error["message"]))
    }
}

/// One event; `None` for a comment.
fn event(block: &str) -> Result<Option<Event>, String> {
    let mut name = None;
    let mut data: Vec<&str> = Vec::new();
    for line in block.split('\n') {
        match line.split_once(": ") {
            Some(("event", value)) => name = Some(value.to_owned()),
            Some(("data", value)) => data.push(value),
            _ if line.starts_with(':') => {}
            _ => return Err(format!("a line of no event: {line:?}")),
        }
    }
    if data.is_empty() {
        let comment = name.is_none();
        return comment
            .then_some(None)
            .ok_or_else(|| format!("an event without data: {block:?}"));
    }
    let data = data.join("\n");
    let valid = data == "[DONE]" || serde_json::from_str::<Value>(&data).is_ok();
    valid
        .then_some(Some(Event {
            name,
            data: data.clone(),
        }))
        .ok_or_else(|| format!("no JSON: {data:?}"))
}

fn elements(text: &str) -> Result<Vec<Event>, String> {
    let elements: Vec<Box<serde_json::value::RawValue>> =
        serde_json::from_str(text).map_err(|error| format!("no array: {error}"))?;
    let event = |element: Box<serde_json::value::RawValue>| Event {
        name: None,
        data: element.get().to_owned(),
    };
    Ok(elements.into_iter().map(event).collect())
}
