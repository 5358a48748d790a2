//! Whether an answer that ended regularly has nothing in it: no text, no
//! reasoning, no tool call, nothing of any other kind. Some providers answer so
//! when they are out of order.
//!
//! An answer that was cut short (by a limit, by a filter) is not empty in this
//! sense: another target would do the same.

use memchr::memmem;
use serde_json::Value;

use super::Protocol;
use super::sse::Decoder;

/// An answer larger than this has something in it.
const LARGEST: usize = 8 * 1024;

/// Words of which one stands in every regular end.
const ENDS: [&[u8]; 5] = [b"stop", b"end_turn", b"completed", b"STOP", b"[DONE]"];

/// Whether a whole document is an empty answer.
#[must_use]
pub fn is_empty_document(protocol: Protocol, body: &[u8]) -> bool {
    if !may_be_empty(protocol, body) {
        return false;
    }
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return false;
    };
    match protocol {
        Protocol::Chat => chat(&answer, "message") == Some(true),
        Protocol::Messages => {
            answer["stop_reason"] == "end_turn" && !any(&answer["content"], holds_block)
        }
        Protocol::Responses => answer["status"] == "completed" && !holds_output(&answer["output"]),
        Protocol::Gemini => gemini(&answer) == Some(true),
        _ => false,
    }
}

/// Whether the beginning of a stream is all of it, and an empty answer.
#[must_use]
pub fn is_empty_stream(protocol: Protocol, beginning: &[u8]) -> bool {
    if !may_be_empty(protocol, beginning) {
        return false;
    }
    let mut decoder = Decoder::new();
    let mut seen = Seen::default();
    let read = decoder.push(beginning, |event| {
        if event.data.trim_ascii() == b"[DONE]" {
            seen.ended |= protocol == Protocol::Chat;
        } else if let Ok(data) = serde_json::from_slice::<Value>(event.data) {
            seen.take(protocol, event.name, &data);
        } else {
            seen.content = true;
        }
    });
    read.is_ok() && seen.ended && !seen.content
}

/// Parsing costs ten times as much as looking: most answers show their text.
fn may_be_empty(protocol: Protocol, bytes: &[u8]) -> bool {
    bytes.len() <= LARGEST
        && !shows_text(protocol, bytes)
        && ENDS.iter().any(|end| memmem::find(bytes, end).is_some())
}

/// Whether text that isn't empty stands where the protocol has it. Responses repeat
/// the request, in which anything may stand.
fn shows_text(protocol: Protocol, bytes: &[u8]) -> bool {
    let name: &[u8] = match protocol {
        Protocol::Chat => b"\"content\"",
        Protocol::Messages | Protocol::Gemini => b"\"text\"",
        _ => return false,
    };
    let mut places = memmem::find_iter(bytes, name);
    places.any(|at| {
        let rest = bytes.get(at + name.len()..).unwrap_or_default();
        let value = rest.trim_ascii_start().strip_prefix(b":");
        let text = value.and_then(|value| value.trim_ascii_start().strip_prefix(b"\""));
        text.and_then(|text| text.first())
            .is_some_and(|first| *first != b'"')
    })
}

#[derive(Default)]
struct Seen {
    content: bool,
    ended: bool,
}

impl Seen {
    fn take(&mut self, protocol: Protocol, name: Option<&str>, data: &Value) {
        let kind = data["type"].as_str().or(name).unwrap_or_default();
        match protocol {
            Protocol::Chat => self.note(chat(data, "delta")),
            Protocol::Gemini => self.note(gemini(data)),
            Protocol::Messages => match kind {
                "content_block_start" => self.content |= holds_block(&data["content_block"]),
                "content_block_delta" => self.content |= holds(&data["delta"], &["type"]),
                "message_delta" => match data["delta"]["stop_reason"].as_str() {
                    Some("end_turn") => self.ended = true,
                    Some(_) => self.content = true,
                    None => {}
                },
                _ => {}
            },
            Protocol::Responses => match kind {
                "response.completed" => {
                    self.ended = true;
                    self.content |= holds_output(&data["response"]["output"]);
                }
                "response.incomplete" => self.content = true,
                kind if kind.ends_with(".delta") => self.content |= holds(&data["delta"], &[]),
                _ => {}
            },
            _ => self.content = true,
        }
    }

    /// Some(true) is a regular end with nothing, Some(false) is something.
    fn note(&mut self, empty: Option<bool>) {
        match empty {
            Some(true) => self.ended = true,
            Some(false) => self.content = true,
            None => {}
        }
    }
}

/// Some(true): ended regularly, with nothing; Some(false): there is something,
/// or another end; None: neither.
fn chat(answer: &Value, part: &str) -> Option<bool> {
    let choices = answer["choices"].as_array()?;
    let mut ended = false;
    for choice in choices {
        if holds(&choice[part], &["role"]) {
            return Some(false);
        }
        match choice["finish_reason"].as_str() {
            Some("stop") => ended = true,
            Some("") | None => {}
            Some(_) => return Some(false),
        }
    }
    ended.then_some(true)
}

fn gemini(answer: &Value) -> Option<bool> {
    if !answer["promptFeedback"]["blockReason"].is_null() {
        return Some(false);
    }
    let candidates = answer["candidates"].as_array()?;
    let mut ended = false;
    for candidate in candidates {
        if holds(&candidate["content"], &["role"]) {
            return Some(false);
        }
        match candidate["finishReason"].as_str() {
            Some("STOP") => ended = true,
            Some(_) => return Some(false),
            None => {}
        }
    }
    ended.then_some(true)
}

/// Text and thinking have to have something in them; other blocks are something.
fn holds_block(block: &Value) -> bool {
    match block["type"].as_str() {
        Some("text" | "thinking") => holds(block, &["type"]),
        _ => true,
    }
}

fn holds_output(output: &Value) -> bool {
    any(output, |item| match item["type"].as_str() {
        Some("message") => any(&item["content"], |part| {
            holds(part, &["type", "annotations", "logprobs"])
        }),
        _ => true,
    })
}

fn any(list: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    list.as_array().is_some_and(|list| list.iter().any(holds))
}

/// Whether there is text at any depth, labels left out.
fn holds(value: &Value, labels: &[&str]) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(|item| holds(item, labels)),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| !labels.contains(&name.as_str()) && holds(value, labels)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(protocol: Protocol, body: &Value) -> bool {
        is_empty_document(protocol, body.to_string().as_bytes())
    }

    fn stream(protocol: Protocol, events: &[Value]) -> bool {
        let text: String = events
            .iter()
            .map(|event| format!("data: {event}\n\n"))
            .collect();
        is_empty_stream(protocol, text.as_bytes())
    }

    #[test]
    fn documents_that_end_with_nothing_are_empty() {
        let chat = |message: Value, finish: &str| {
            document(
                Protocol::Chat,
                &json!({ "choices": [{ "message": message, "finish_reason": finish }] }),
            )
        };
        assert!(chat(json!({ "role": "assistant", "content": "" }), "stop"));
        assert!(chat(
            json!({ "role": "assistant", "content": null, "tool_calls": [] }),
            "stop"
        ));
        assert!(!chat(
            json!({ "role": "assistant", "content": "" }),
            "length"
        ));
        assert!(!chat(
            json!({ "content": "", "reasoning_content": "hm" }),
            "stop"
        ));
        assert!(!chat(json!({ "content": "stop" }), "stop"));
        let messages = |content: Value| {
            let body = json!({ "content": content, "stop_reason": "end_turn" });
            document(Protocol::Messages, &body)
        };
        assert!(messages(json!([])) && messages(json!([{ "type": "text", "text": "" }])));
        assert!(!messages(json!([{ "type": "tool_use", "input": {} }])));
        let responses = |output: Value| {
            document(
                Protocol::Responses,
                &json!({ "status": "completed", "output": output }),
            )
        };
        assert!(responses(json!([])));
        assert!(responses(
            json!([{ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "" }] }])
        ));
        assert!(!responses(json!([{ "type": "function_call" }])));
        let gemini = |parts: Value| {
            let content = json!({ "role": "model", "parts": parts });
            let body = json!({ "candidates": [{ "content": content, "finishReason": "STOP" }] });
            document(Protocol::Gemini, &body)
        };
        assert!(gemini(json!([])) && gemini(json!([{ "text": "" }])));
        assert!(!gemini(json!([{ "text": "a" }])));
        assert!(!document(Protocol::Embeddings, &json!({ "stop": [] })));
    }

    #[test]
    fn streams_that_end_with_nothing_are_empty() {
        let role = json!({ "choices": [{ "delta": { "role": "assistant", "content": "" } }] });
        let text = json!({ "choices": [{ "delta": { "content": "a" } }] });
        let end = json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] });
        assert!(stream(Protocol::Chat, &[role.clone(), end.clone()]));
        assert!(!stream(Protocol::Chat, &[role.clone(), text, end]));
        assert!(!stream(Protocol::Chat, std::slice::from_ref(&role)));
        let start = json!({ "type": "message_start", "message": { "content": [] } });
        let end = json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" } });
        let cut = json!({ "type": "message_delta", "delta": { "stop_reason": "max_tokens" } });
        assert!(stream(Protocol::Messages, &[start.clone(), end]));
        assert!(!stream(Protocol::Messages, &[start, cut]));
        let done = json!({ "type": "response.completed", "response": { "output": [] } });
        assert!(stream(Protocol::Responses, std::slice::from_ref(&done)));
        let delta = json!({ "type": "response.output_text.delta", "delta": "a" });
        assert!(!stream(Protocol::Responses, &[delta, done]));
    }
}
