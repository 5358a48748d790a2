//! Trying a target out for the operator: one request in each protocol, and what
//! came of it in a word.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::probe::{self, Question};
use super::{Ask, PathAsk};
use crate::app::Core;
use crate::config::Config;
use crate::protocol::Protocol;

/// The longest that a trial may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of an answer that are read for what it says; more come past unread.
const MOST: usize = 4 << 20;
/// Tokens that are asked for.
const TOKENS: u32 = 1_000;

const PROMPT: &str = "I have one free day in Lisbon and like to walk. What is the weather, and which \
                      two places should I see? Answer in a few sentences.";

/// Protocols that a target can be tried out in.
pub(crate) const PROTOCOLS: [Protocol; 7] = [
    Protocol::Chat,
    Protocol::Messages,
    Protocol::Gemini,
    Protocol::Responses,
    Protocol::Embeddings,
    Protocol::Images,
    Protocol::Speech,
];

/// Puts one request to a provider's model, through all that a client's request
/// goes through, and leaves the same traces. What it answered, or why it didn't.
pub(crate) async fn try_out(
    core: &Arc<Core>,
    config: Arc<Config>,
    (provider, model): (&str, &str),
    protocol: Protocol,
) -> Result<String, String> {
    let name = format!("direct/{provider}/{model}");
    let question = question(&name, model, protocol)
        .ok_or_else(|| format!("a target can't be tried out in the protocol {protocol}"))?;
    let trial = Box::pin(tried(core, config, name.into(), question, protocol));
    let outcome = tokio::time::timeout(LIMIT, trial).await;
    outcome.unwrap_or_else(|_| Err(format!("no whole answer within {} s", LIMIT.as_secs())))
}

async fn tried(
    core: &Arc<Core>,
    config: Arc<Config>,
    name: Arc<str>,
    question: Question,
    protocol: Protocol,
) -> Result<String, String> {
    let answer = probe::put_to(core, config, name, question, "manual").await;
    let status = answer.status();
    let mut body = answer.into_body();
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off: {error}"))?;
        if let Some(data) = frame.data_ref() {
            let room = MOST.saturating_sub(read.len());
            read.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
        }
    }
    if status.is_success() {
        told(&read.freeze(), protocol)
    } else {
        Err(complaint(&read).unwrap_or_else(|| format!("status {}", status.as_u16())))
    }
}

/// The innermost message of an error in any protocol.
fn complaint(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let message = body
        .pointer("/error/message")
        .or_else(|| body.get("error"))?;
    message.as_str().map(str::to_owned)
}

/// What a whole answer says.
fn told(body: &Bytes, protocol: Protocol) -> Result<String, String> {
    match protocol {
        Protocol::Chat => streamed(body),
        Protocol::Speech if body.is_empty() => Err("the answer has no sound in it".to_owned()),
        Protocol::Speech => Ok("Success".to_owned()),
        _ => {
            let body: Value = serde_json::from_slice(body)
                .map_err(|error| format!("the answer is not JSON: {error}"))?;
            Ok(said(&body, protocol))
        }
    }
}

/// A stream that ended as it should has said so.
fn streamed(body: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(body);
    let mut events = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(str::trim);
    if let Some(message) = events.clone().find_map(|event| complaint(event.as_bytes())) {
        return Err(message);
    }
    // One that is longer than what is read is as good as one that has ended.
    if body.len() >= MOST || events.any(|event| event == "[DONE]") {
        return Ok("Success".to_owned());
    }
    Err("the stream ended without its last event".to_owned())
}

fn said(body: &Value, protocol: Protocol) -> String {
    let texts = |items: Option<&Value>| -> String {
        let items = items.and_then(Value::as_array).into_iter().flatten();
        items
            .filter_map(|item| item.get("text")?.as_str())
            .collect()
    };
    let count = |name: &str| body.get(name).and_then(Value::as_array).map_or(0, Vec::len);
    match protocol {
        Protocol::Messages => texts(body.get("content")),
        Protocol::Gemini => texts(body.pointer("/candidates/0/content/parts")),
        Protocol::Responses => {
            let items = body
                .get("output")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            items.map(|item| texts(item.get("content"))).collect()
        }
        Protocol::Embeddings => match count("data") {
            1 => "Success (1 embedding)".to_owned(),
            more => format!("Success ({more} embeddings)"),
        },
        Protocol::Images => match count("data") {
            1 => "Success (1 image created)".to_owned(),
            more => format!("Success ({more} images created)"),
        },
        _ => "Success".to_owned(),
    }
}

fn question(name: &str, model: &str, protocol: Protocol) -> Option<Question> {
    let turns = json!([{ "role": "user", "content": PROMPT }]);
    let body = match protocol {
        Protocol::Chat => json!({
            "model": model, "messages": turns, "max_tokens": TOKENS, "stream": true,
            "tools": [
                tool("weather", "The weather of a city today."),
                tool("sights", "The best known sights of a city."),
            ],
        }),
        Protocol::Messages => json!({ "model": model, "messages": turns, "max_tokens": TOKENS }),
        Protocol::Responses => json!({
            "model": model, "input": PROMPT, "max_output_tokens": TOKENS, "store": false,
        }),
        Protocol::Gemini => json!({
            "contents": [{ "role": "user", "parts": [{ "text": PROMPT }] }],
            "generationConfig": { "maxOutputTokens": TOKENS },
        }),
        Protocol::Embeddings => json!({ "model": model, "input": PROMPT }),
        Protocol::Images => json!({ "model": model, "prompt": "A lighthouse at dawn.", "n": 1 }),
        Protocol::Speech => json!({ "model": model, "input": "Good morning.", "voice": "alloy" }),
        Protocol::Completions | Protocol::Transcriptions => return None,
    };
    let path = |model: Option<&str>, action: &str| PathAsk {
        model: model.map(str::to_owned),
        action: action.to_owned(),
    };
    let path = match protocol {
        Protocol::Gemini => Some(path(Some(name), "generateContent")),
        Protocol::Images => Some(path(None, "generations")),
        _ => None,
    };
    Some(Question {
        ask: Ask { protocol, path },
        body,
        streamed: protocol == Protocol::Chat,
    })
}

fn tool(name: &str, description: &str) -> Value {
    json!({ "type": "function", "function": {
        "name": name, "description": description,
        "parameters": {
            "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"],
        },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_broke_is_told_from_one_that_ended() {
        let good = b"data: {\"choices\":[]}\n\ndata: [DONE]\n\n";
        assert_eq!(streamed(good), Ok("Success".to_owned()));
        let failed = b"data: {\"choices\":[]}\n\ndata: {\"error\":{\"message\":\"gone\"}}\n\n";
        assert_eq!(streamed(failed), Err("gone".to_owned()));
        assert!(streamed(b"data: {\"choices\":[]}\n\n").is_err());
    }
}
