//! What a whole answer said, put together again from the bytes it came in: for
//! people who look at a capture, and for comparing two of them.
//!
//! Nothing here serves a request: what can't be read is left out, and a stream
//! that was cut gives what had come by then.

use serde_json::Value;

use super::Protocol;
use super::collect::Collector;
use super::ir::{Arguments, Call, Delta, Part, Response};
use super::json::{Str, Tape};
use super::sse::Decoder;
use super::translate::{Reply, StreamDecoder, decode_response, encode_response};
use super::usage::Tokens;

/// Text of an answer that is put together at most, in bytes.
const LIMIT: usize = 16 << 20;

/// The document that a stream would have been, in the protocol it was in. `None`
/// when the bytes are no stream, or none that can be put together.
#[must_use]
pub fn document(protocol: Protocol, bytes: &[u8]) -> Option<String> {
    if protocol == Protocol::Completions {
        return legacy(bytes).map(|document| document.to_string());
    }
    let response = reassembled(protocol, bytes)?;
    let written = encode_response(&response, &reply(protocol, &response));
    let mut value: Value = serde_json::from_slice(&written).ok()?;
    let (id, model) = match protocol {
        Protocol::Gemini => ("responseId", "modelVersion"),
        _ => ("id", "model"),
    };
    let known = [
        (id, &response.upstream_id),
        (model, &response.upstream_model),
    ];
    for (name, text) in known {
        if let (Some(text), Some(object)) = (text, value.as_object_mut()) {
            object.insert(name.to_owned(), text.plain().as_ref().into());
        }
    }
    Some(value.to_string())
}

/// What an answer said, whether it came as a stream or as a document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its text, all choices together.
    pub text: String,
    /// Its reasoning, as far as it was told.
    pub reasoning: String,
    /// The calls it made: name and arguments.
    pub calls: Vec<(String, String)>,
    /// Why the first choice ended, in the gateway's word.
    pub finish: Option<&'static str>,
    /// What it counted.
    pub tokens: Tokens,
}

/// Reads an answer of that protocol; `None` when it is none.
#[must_use]
pub fn said(protocol: Protocol, bytes: &[u8]) -> Option<Said> {
    if !reads(protocol) {
        return None;
    }
    let legacy = match protocol {
        Protocol::Completions => legacy(bytes).map(|document| document.to_string()),
        _ => None,
    };
    if let Some(response) = reassembled(protocol, bytes) {
        return Some(summary(&response));
    }
    let bytes = legacy
        .as_ref()
        .map_or(bytes, |document| document.as_bytes());
    let mut tape = Tape::new();
    let root = tape.parse_bytes(bytes).ok()?;
    let response = decode_response(protocol, root).ok()?;
    Some(summary(&response))
}

const fn reads(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Chat
            | Protocol::Responses
            | Protocol::Messages
            | Protocol::Gemini
            | Protocol::Completions
    )
}

/// A stream's deltas, put together.
fn reassembled(protocol: Protocol, bytes: &[u8]) -> Option<Response<'static>> {
    let first = bytes.trim_ascii_start().first()?;
    let array = *first == b'[' && protocol == Protocol::Gemini;
    let other = matches!(protocol, Protocol::Completions) || !reads(protocol);
    if other || *first == b'{' || (*first == b'[' && !array) {
        return None;
    }
    let mut decoder = StreamDecoder::new(protocol);
    let mut gathering = Gathering {
        collector: Collector::new(LIMIT),
        any: false,
    };
    if array {
        let mut tape = Tape::new();
        for item in tape.parse_bytes(bytes).ok()?.items() {
            let item = item.raw();
            decoder.event(None, item.as_str().as_bytes(), &mut |delta| {
                gathering.take(delta);
            });
        }
    } else {
        let mut frames = Decoder::new();
        let mut see = |event: super::sse::Event<'_>| {
            decoder.event(event.name, event.data, &mut |delta| gathering.take(delta));
        };
        // What could be read before a fault stays.
        let _fault = frames.push(bytes, &mut see);
        frames.finish(&mut see);
    }
    decoder.finish(&mut |delta| gathering.take(delta));
    gathering.any.then(|| gathering.collector.finish())
}

/// A stream of legacy completions: no delta has a shape of its own there, chunks
/// are documents with a piece of the text.
fn legacy(bytes: &[u8]) -> Option<Value> {
    let mut whole: Option<Value> = None;
    let mut frames = Decoder::new();
    let mut see = |event: super::sse::Event<'_>| {
        let Ok(chunk) = serde_json::from_slice::<Value>(event.data) else {
            return;
        };
        match &mut whole {
            None => whole = Some(chunk),
            Some(whole) => extend(whole, chunk),
        }
    };
    // What could be read before a fault stays.
    let _fault = frames.push(bytes, &mut see);
    frames.finish(&mut see);
    whole
}

fn extend(whole: &mut Value, mut chunk: Value) {
    if !chunk["usage"].is_null() {
        whole["usage"] = chunk["usage"].take();
    }
    let Some(choices) = chunk["choices"].as_array_mut() else {
        return;
    };
    for choice in choices {
        let known = whole["choices"].as_array_mut();
        let mut known = known.into_iter().flatten();
        match known.find(|known| known["index"] == choice["index"]) {
            Some(known) => {
                let text = choice["text"].as_str().unwrap_or_default();
                let before = known["text"].as_str().unwrap_or_default();
                known["text"] = [before, text].concat().into();
                if !choice["finish_reason"].is_null() {
                    known["finish_reason"] = choice["finish_reason"].take();
                }
            }
            None => {
                if let Some(known) = whole["choices"].as_array_mut() {
                    known.push(choice.take());
                }
            }
        }
    }
}

struct Gathering {
    collector: Collector,
    any: bool,
}

impl Gathering {
    fn take(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Error { .. } | Delta::End => {}
            other => {
                self.any = true;
                self.collector.delta(other);
            }
        }
    }
}

fn summary(response: &Response<'_>) -> Said {
    let mut said = Said {
        finish: { response.choices.first() }
            .and_then(|choice| choice.finish.as_ref())
            .map(|finish| finish.word()),
        tokens: response.usage.unwrap_or_default(),
        ..Said::default()
    };
    for part in response.choices.iter().flat_map(|choice| &choice.parts) {
        match part {
            Part::Text(text) => said.text.push_str(&text.text.plain()),
            Part::Refusal(text) => said.text.push_str(&text.plain()),
            Part::Reasoning(thought) => {
                said.reasoning.push_str(&thought.text.plain());
                let summary = thought.summary.iter().map(Str::plain);
                summary.for_each(|text| said.reasoning.push_str(&text));
            }
            Part::Call(call) => said.calls.push(shown(call)),
            Part::Media(_) | Part::Hosted(_) | Part::Result(_) => {}
        }
    }
    said
}

fn shown(call: &Call<'_>) -> (String, String) {
    let arguments = match &call.arguments {
        Arguments::Object(value) => value.as_str().to_owned(),
        Arguments::Text(text) | Arguments::Free(text) => text.plain().into_owned(),
    };
    (call.name.plain().into_owned(), arguments)
}

/// As the answer was: nothing is left out, nothing renamed.
fn reply(protocol: Protocol, response: &Response<'_>) -> Reply {
    let model = response.upstream_model.as_ref();
    let model = model.map(|model| model.plain().into_owned());
    let model = model.unwrap_or_default();
    Reply {
        upstream_model: model.clone(),
        model,
        include_usage: true,
        encrypted_reasoning: true,
        custom_tools: true,
        ..Reply::plain(protocol, protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = concat!(
        "data: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hel\"}}]}\n\n",
        "data: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"lo\"}}]}\n\n",
        "data: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"id\":\"c1\",\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn a_stream_becomes_the_document_it_would_have_been() {
        let document = document(Protocol::Chat, CHAT.as_bytes()).unwrap();
        let value: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(value["id"], "c1");
        assert_eq!(value["model"], "m");
        assert_eq!(value["choices"][0]["message"]["content"], "Hello");
        assert_eq!(value["choices"][0]["finish_reason"], "stop");
        assert_eq!(value["usage"]["prompt_tokens"], 7);
    }

    #[test]
    fn a_stream_that_was_cut_gives_what_had_come() {
        let whole = CHAT.find("lo\"").unwrap();
        let said = said(Protocol::Chat, &CHAT.as_bytes()[..whole]).unwrap();
        assert_eq!(said.text, "Hel");
        assert_eq!(said.finish, None);
    }

    #[test]
    fn what_is_no_stream_has_no_snapshot() {
        let body = br#"{"id":"x","choices":[]}"#;
        assert_eq!(document(Protocol::Chat, body), None);
        assert_eq!(document(Protocol::Speech, b"data: {}\n\n"), None);
        assert_eq!(document(Protocol::Chat, b""), None);
        assert_eq!(document(Protocol::Chat, b"\xff\xfe\x00"), None);
    }

    #[test]
    fn a_document_and_a_stream_that_say_the_same_are_read_the_same() {
        let whole = document(Protocol::Chat, CHAT.as_bytes()).unwrap();
        let of_document = said(Protocol::Chat, whole.as_bytes()).unwrap();
        let of_stream = said(Protocol::Chat, CHAT.as_bytes()).unwrap();
        assert_eq!(of_document.text, of_stream.text);
        assert_eq!(of_document.finish, of_stream.finish);
        assert_eq!(of_document.tokens.output, of_stream.tokens.output);
    }

    #[test]
    fn legacy_completions_are_put_together_choice_by_choice() {
        let stream = concat!(
            "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"text\":\"a\",\"finish_reason\":null}]}\n\n",
            "data: {\"id\":\"x\",\"choices\":[{\"index\":1,\"text\":\"z\",\"finish_reason\":null}]}\n\n",
            "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"text\":\"b\",\"finish_reason\":\"stop\"}]}\n\n",
            "data: [DONE]\n\n",
        );
        let document = document(Protocol::Completions, stream.as_bytes()).unwrap();
        let value: Value = serde_json::from_str(&document).unwrap();
        assert_eq!(value["choices"][0]["text"], "ab");
        assert_eq!(value["choices"][0]["finish_reason"], "stop");
        assert_eq!(value["choices"][1]["text"], "z");
    }

    #[test]
    fn gemini_streams_are_read_as_events_and_as_an_array() {
        let piece = |text: &str| {
            format!(
                r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}}}}],"modelVersion":"g"}}"#
            )
        };
        let array = format!("[{},{}]", piece("a"), piece("b"));
        let events = format!("data: {}\n\ndata: {}\n\n", piece("a"), piece("b"));
        for bytes in [array, events] {
            assert_eq!(said(Protocol::Gemini, bytes.as_bytes()).unwrap().text, "ab");
            let document = document(Protocol::Gemini, bytes.as_bytes()).unwrap();
            assert!(document.contains("\"modelVersion\":\"g\""), "{document}");
        }
    }
}
