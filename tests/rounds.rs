//! Answers that a provider breaks off to be asked to go on: the gateway asks, and a
//! client of another protocol gets one answer.

#![expect(
    clippy::unwrap_used,
    reason = "in helpers of tests a failure is the test's failure"
)]

mod support;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use support::Gateway;
use support::upstream::Upstream;

type Heard = Arc<Mutex<Vec<Value>>>;

/// A provider that pauses so often, and keeps what it was asked.
fn pausing(pauses: usize, heard: &Heard, answer: fn(usize, bool) -> (bool, String)) -> Upstream {
    let heard = Arc::clone(heard);
    Upstream::start(move |mut wire| {
        while let Some(request) = wire.request() {
            let head = request
                .windows(4)
                .position(|end| end == b"\r\n\r\n")
                .unwrap();
            let mut heard = heard.lock();
            heard.push(serde_json::from_slice(&request[head + 4..]).unwrap());
            let round = heard.len();
            let (events, body) = answer(round, round <= pauses);
            let sort = if events {
                "text/event-stream"
            } else {
                "application/json"
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {sort}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            wire.write(format!("{head}{body}").as_bytes());
        }
    })
}

fn gateway(provider: &Upstream, protocol: &str) -> Gateway {
    let base = if protocol == "gemini" { "" } else { "/v1" };
    Gateway::with(&format!(
        "providers:\n  p: {{ api_base_url: {{ {protocol}: 'http://{}{base}' }}, api_key: up, models: {{ m: {{ capabilities: {{ web_search: true }} }} }} }}\n\
         models:\n  a: {{ targets: [{{ provider: p, model: m }}] }}\nkeys:\n  app: {{ secret: sk-plexus-tests }}\n",
        provider.address
    ))
}

/// A round of Messages: a search, then text; always as a stream.
fn messages(round: usize, pauses: bool) -> (bool, String) {
    let reason = if pauses { "pause_turn" } else { "end_turn" };
    let events = [
        json!({"type": "message_start", "message": {"id": format!("msg_{round}"), "type": "message", "role": "assistant", "model": "m",
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 10, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "server_tool_use", "id": format!("srvtoolu_{round}"), "name": "web_search", "input": {}}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"query\":\"q\"}"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": format!("part {round}. ")}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": {"output_tokens": 5}}),
        json!({"type": "message_stop"}),
    ];
    let frames = events.iter().map(|event| {
        format!(
            "event: {}\ndata: {event}\n\n",
            event["type"].as_str().unwrap()
        )
    });
    (true, frames.collect())
}

/// A round of Gemini, as a document.
fn gemini(round: usize, pauses: bool) -> (bool, String) {
    let mut answer = json!({"candidates": [{"content": {"role": "model", "parts": [{"text": format!("part {round}. ")}]},
        "finishReason": "STOP", "index": 0}], "responseId": "g",
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}});
    if pauses {
        answer["candidates"][0]["finishReason"] = json!("CONTINUATION");
        answer["continuationToken"] = json!(format!("token {round}"));
    }
    (false, serde_json::to_string_pretty(&answer).unwrap())
}

fn question(stream: bool) -> Value {
    json!({"model": "a", "stream": stream, "stream_options": {"include_usage": true}, "web_search_options": {},
        "messages": [{"role": "user", "content": "q"}]})
}

/// What a client of chat was told: its text, why it ended, and the tokens.
fn told(answer: &support::Response, stream: bool) -> (String, String, u64, u64) {
    let mut documents = vec![];
    if stream {
        let frames = answer
            .text()
            .split("\n\n")
            .filter_map(|frame| frame.strip_prefix("data: "));
        documents.extend(frames.filter_map(|data| serde_json::from_str::<Value>(data).ok()));
    } else {
        documents.push(answer.json());
    }
    let (mut text, mut reason, mut tokens) = (String::new(), String::new(), (0, 0));
    for document in &documents {
        let choice = &document["choices"][0];
        let said = choice["delta"]["content"]
            .as_str()
            .or_else(|| choice["message"]["content"].as_str());
        text.push_str(said.unwrap_or_default());
        reason.push_str(choice["finish_reason"].as_str().unwrap_or_default());
        let usage = &document["usage"];
        if let (Some(read), Some(written)) = (
            usage["prompt_tokens"].as_u64(),
            usage["completion_tokens"].as_u64(),
        ) {
            tokens = (read, written);
        }
    }
    (text, reason, tokens.0, tokens.1)
}

#[test]
fn a_paused_turn_goes_on_and_is_one_answer_with_the_tokens_of_all_rounds() {
    for stream in [true, false] {
        let heard = Heard::default();
        let provider = pausing(2, &heard, messages);
        let gateway = gateway(&provider, "messages");
        let answer = gateway
            .ask("/v1/chat/completions", &question(stream))
            .expect(200);
        let wanted = (
            "part 1. part 2. part 3. ".to_owned(),
            "stop".to_owned(),
            30,
            15,
        );
        let found = told(&answer, stream);
        assert_eq!(found.0.replace("\n\n", ""), wanted.0, "{}", answer.text());
        assert_eq!(
            (&found.1, found.2, found.3),
            (&wanted.1, 30, 15),
            "{}",
            answer.text()
        );
        let asked = heard.lock().clone();
        assert_eq!(asked.len(), 3);
        assert_eq!(asked[0]["stream"], true, "a document can't be put together");
        let turns = asked[2]["messages"].as_array().unwrap();
        assert_eq!(turns.len(), 2, "{turns:?}");
        let kinds: Vec<_> = turns[1]["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block["type"].clone())
            .collect();
        assert_eq!(
            kinds,
            ["server_tool_use", "text", "server_tool_use", "text"]
        );
        assert_eq!(turns[1]["content"][0]["input"], json!({"query": "q"}));
        let row = gateway.rows(1).into_iter().next().unwrap();
        assert_eq!(
            (&row["tokensInput"], &row["tokensOutput"]),
            (&json!(30), &json!(15))
        );
        assert_eq!(row["responseStatus"], "success");
        assert!(row["notes"].to_string().contains("turn_resumed"), "{row:?}");
    }
}

#[test]
fn the_sixth_pause_ends_the_answer_and_is_noted() {
    for stream in [true, false] {
        let heard = Heard::default();
        let provider = pausing(99, &heard, messages);
        let gateway = gateway(&provider, "messages");
        let answer = gateway
            .ask("/v1/chat/completions", &question(stream))
            .expect(200);
        let (text, reason, read, _) = told(&answer, stream);
        assert!(
            text.contains("part 6. ") && !text.contains("part 7"),
            "{text}"
        );
        assert_eq!((reason.as_str(), read), ("stop", 60));
        assert_eq!(heard.lock().len(), 6);
        let row = gateway.rows(1).into_iter().next().unwrap();
        assert!(
            row["notes"].to_string().contains("turn_continuation"),
            "{row:?}"
        );
    }
}

#[test]
fn gemini_goes_on_from_its_token() {
    let heard = Heard::default();
    let provider = pausing(2, &heard, gemini);
    let gateway = gateway(&provider, "gemini");
    let mut question = question(false);
    question["web_search_options"] = Value::Null;
    let answer = gateway.ask("/v1/chat/completions", &question).expect(200);
    let (text, reason, read, written) = told(&answer, false);
    assert_eq!(
        text.replace("\n\n", ""),
        "part 1. part 2. part 3. ",
        "{}",
        answer.text()
    );
    assert_eq!((reason.as_str(), read, written), ("stop", 30, 15));
    let asked = heard.lock().clone();
    let tokens: Vec<_> = asked
        .iter()
        .map(|asked| asked["continuationToken"].clone())
        .collect();
    assert_eq!(tokens, [Value::Null, json!("token 1"), json!("token 2")]);
}

#[test]
fn a_provider_that_fails_in_a_later_round_ends_the_stream_in_an_error() {
    let provider = Upstream::start(move |mut wire| {
        if wire.number > 0 {
            return;
        }
        wire.request();
        let (_, body) = messages(1, true);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        wire.write(format!("{head}{body}").as_bytes());
    });
    let gateway = gateway(&provider, "messages");
    let answer = gateway
        .ask("/v1/chat/completions", &question(true))
        .expect(200);
    let text = answer.text();
    assert!(
        text.contains("part 1. ") && text.contains("\"error\""),
        "{text}"
    );
    assert!(!text.contains("[DONE]"), "{text}");
    assert_eq!(gateway.rows(1)[0]["responseStatus"], "error");
}
