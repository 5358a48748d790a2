//! Streams of chat: what providers send, and what clients are sent.

use bytes::BytesMut;
use serde_json::{Value as Json, json};

use super::{Decoder, Encoder};
use crate::protocol::Protocol;
use crate::protocol::chat::response;
use crate::protocol::chat::testing::{frames, heard, heard_by, reply, told};
use crate::protocol::collect::Collector;
use crate::protocol::envelope;
use crate::protocol::error::ErrorClass;
use crate::protocol::grammar::Order;
use crate::protocol::ir::{Annotation, Delta, Finish, Opaque, OpaqueKind, PartKind};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::translate::{ChatReasoning, Reply};
use crate::protocol::usage::Tokens;

/// A frame with that delta of the first choice.
fn piece(delta: &str) -> String {
    format!(
        r#"{{"id":"c","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#
    )
}

fn last(word: &str) -> String {
    format!(r#"{{"id":"c","choices":[{{"index":0,"delta":{{}},"finish_reason":"{word}"}}]}}"#)
}

/// What is heard of a stream of those deltas that ends with that word, without
/// its beginning and end.
fn of(deltas: &[&str], word: &str) -> Vec<String> {
    let mut events: Vec<String> = deltas.iter().map(|delta| piece(delta)).collect();
    events.push(last(word));
    events.push("[DONE]".into());
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let mut lines = heard(&events);
    assert_eq!(lines.remove(0), r#"start Some("c") Some("m")"#);
    assert_eq!(lines.pop().as_deref(), Some("end"));
    lines
}

#[test]
fn a_plain_stream_is_read() {
    let events = [
        r#"{"id":"","choices":[],"prompt_filter_results":[]}"#,
        r#"{"id":"c","model":"m","service_tier":"default","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
        &piece(r#"{"content":"a\n"}"#),
        &piece("null"),
        &piece(r#"{"content":"b"}"#),
        r#"{"choices":[{"index":0,"delta":{"content":"c"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#,
        "[DONE]",
        &piece(r#"{"content":"late"}"#),
    ];
    let wanted = [
        r#"start Some("c") Some("m")"#,
        r#"Meta { service: Some("default"), fingerprint: None }"#,
        "0.0 text",
        "0.0 + a\n",
        "0.0 + b",
        "0.0 + c",
        "0.0 end",
        "0 Stop",
        "usage Some(3) Some(2)",
        "end",
    ];
    assert_eq!(heard(&events), wanted);
}

#[test]
fn calls_are_told_apart_however_they_are_numbered() {
    let wanted = [
        "0.0 call a f false",
        "0.0 a {\"k\"",
        "0.0 a :1}",
        "0.0 end",
        "0.1 call b g false",
        "0.1 a {}",
        "0.1 end",
        "0 ToolUse",
    ];
    // As OpenAI has it, with id and name repeated, and without an index.
    for deltas in [
        [
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"k\""}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#,
            r#"{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}]}"#,
        ],
        [
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}"#,
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"k\""}}]}"#,
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":":1}"}}]}"#,
            r#"{"tool_calls":[{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}]}"#,
        ],
        [
            r#"{"tool_calls":[{"id":"a","function":{"name":"f"}}]}"#,
            r#"{"tool_calls":[{"id":"a","function":{"arguments":"{\"k\""}}]}"#,
            r#"{"tool_calls":[{"function":{"arguments":":1}"}}]}"#,
            r#"{"tool_calls":[{"id":"b","function":{"name":"g","arguments":"{}"}}]}"#,
        ],
    ] {
        assert_eq!(of(&deltas, "tool_calls"), wanted, "{deltas:?}");
        assert_eq!(of(&deltas, "stop"), wanted, "{deltas:?}");
    }
}

#[test]
fn parallel_calls_may_be_interleaved() {
    let deltas = [
        r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{"}},{"index":1,"id":"b","function":{"name":"g","arguments":"["}}]}"#,
        r#"{"tool_calls":[{"index":1,"function":{"arguments":"]"}},{"index":0,"function":{"arguments":"}"}}]}"#,
    ];
    let wanted = [
        "0.0 call a f false",
        "0.0 a {",
        "0.1 call b g false",
        "0.1 a [",
        "0.1 a ]",
        "0.0 a }",
        "0.0 end",
        "0.1 end",
        "0 ToolUse",
    ];
    assert_eq!(of(&deltas, "tool_calls"), wanted);
}

#[test]
fn calls_without_ids_get_ids_and_whole_arguments_stay_whole() {
    let lines = of(
        &[
            r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{}"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
            r#"{"tool_calls":[{"index":2,"id":"c","function":{"name":"g","arguments":{"k": 1}}}]}"#,
        ],
        "stop",
    );
    let starts: Vec<_> = lines
        .iter()
        .filter(|line| line.contains(" call "))
        .collect();
    assert_eq!(starts.len(), 3, "{lines:?}");
    assert!(
        starts[0].starts_with("0.0 call call_") && starts[0] != starts[1],
        "{starts:?}"
    );
    assert!(lines.contains(&r#"0.2 = {"k": 1}"#.to_owned()), "{lines:?}");
}

#[test]
fn a_call_waits_for_its_name() {
    let lines = of(
        &[
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{\"k"}}]}"#,
            r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"\":1}"}}]}"#,
        ],
        "tool_calls",
    );
    assert_eq!(
        lines,
        [
            "0.0 call a f false",
            "0.0 a {\"k",
            "0.0 a \":1}",
            "0.0 end",
            "0 ToolUse"
        ]
    );
    let lines = of(
        &[r#"{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{}"}}]}"#],
        "tool_calls",
    );
    assert!(
        matches!(lines.as_slice(), [only] if only.contains("BadToolCall")),
        "{lines:?}"
    );
}

#[test]
fn the_legacy_form_and_custom_calls_are_calls() {
    let lines = of(
        &[
            r#"{"function_call":{"name":"f","arguments":""}}"#,
            r#"{"function_call":{"arguments":"{}"}}"#,
        ],
        "function_call",
    );
    assert!(
        lines[0].starts_with("0.0 call call_") && lines[0].ends_with(" f false"),
        "{lines:?}"
    );
    assert_eq!(lines[1..], ["0.0 a {}", "0.0 end", "0 ToolUse"]);
    let lines = of(
        &[
            r#"{"tool_calls":[{"index":0,"id":"a","type":"custom","custom":{"name":"c","input":""}}]}"#,
            r#"{"tool_calls":[{"index":0,"custom":{"input":"x \"y\""}}]}"#,
        ],
        "tool_calls",
    );
    assert_eq!(
        lines,
        ["0.0 call a c true", "0.0 + x \"y\"", "0.0 end", "0 ToolUse"]
    );
}

#[test]
fn reasoning_comes_in_its_forms_and_once() {
    let lines = of(
        &[
            r#"{"reasoning":"a","reasoning_content":"a"}"#,
            r#"{"reasoning":"b","reasoning_details":[{"type":"reasoning.text","text":"b","index":0,"format":"anthropic-claude-v1"}]}"#,
            r#"{"reasoning_details":[{"type":"reasoning.text","signature":"s","index":0,"format":"anthropic-claude-v1"}]}"#,
            r#"{"content":"x"}"#,
            r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"d","format":"openai-responses-v1"}]}"#,
            r#"{"content":"y"}"#,
        ],
        "stop",
    );
    let wanted = [
        "0.0 reasoning",
        "0.0 + a",
        "0.0 + b",
        "0.0 AnthropicSignature s",
        "0.0 end",
        "0.1 text",
        "0.1 + x",
        "0.2 reasoning",
        "0.2 OpenAiEncrypted d",
        "0.2 end",
        "0.1 + y",
        "0.1 end",
        "0 Stop",
    ];
    assert_eq!(lines, wanted);
    let mistral = of(
        &[
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"t"}]},{"type":"text","text":"x"}]}"#,
        ],
        "stop",
    );
    assert_eq!(
        mistral,
        [
            "0.0 reasoning",
            "0.0 + t",
            "0.0 end",
            "0.1 text",
            "0.1 + x",
            "0.1 end",
            "0 Stop"
        ]
    );
}

#[test]
fn signatures_ride_on_their_calls() {
    let lines = of(
        &[
            r#"{"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}}]}"#,
            r#"{"reasoning_details":[{"type":"reasoning.encrypted","data":"b3Jm","format":"google-gemini-v1","id":"a"}]}"#,
        ],
        "stop",
    );
    assert_eq!(
        lines[..4],
        [
            "0.0 call a f false",
            "0.0 a {}",
            "0.0 GeminiSignature c2ln",
            "0.0 GeminiSignature b3Jm"
        ]
    );
}

#[test]
fn think_tags_are_found_when_they_are_known_to_come() {
    let events = [
        piece(r#"{"content":"<th"}"#),
        piece(r#"{"content":"ink>a</think>\n\nb"}"#),
        last("stop"),
    ];
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let lines = heard_by(Decoder::default().with_think_tags(), &events);
    assert_eq!(
        lines[1..],
        [
            "0.0 reasoning",
            "0.0 + a",
            "0.0 end",
            "0.1 text",
            "0.1 + b",
            "0.1 end",
            "0 Stop",
            "end"
        ]
    );
}

#[test]
fn citations_belong_to_the_text_that_is_open() {
    let lines = of(
        &[
            r#"{"content":"é🙂"}"#,
            r#"{"reasoning":"r"}"#,
            r#"{"content":"abc","annotations":[{"type":"url_citation","url_citation":{"url":"u","start_index":3,"end_index":5}}]}"#,
        ],
        "stop",
    );
    assert!(
        lines.contains(&"0.2 @ u Some((1, 3))".to_owned()),
        "{lines:?}"
    );
    let perplexity = [
        piece(r#"{"content":"x"}"#),
        r#"{"citations":["v"],"choices":[{"delta":{},"finish_reason":"stop"}]}"#.into(),
    ];
    let events: Vec<&str> = perplexity.iter().map(String::as_str).collect();
    assert!(heard(&events).contains(&"0.0 @ v None".to_owned()));
}

#[test]
fn several_answers_may_be_interleaved() {
    let events = [
        r#"{"id":"c","choices":[{"index":1,"delta":{"content":"b"}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
        r#"{"id":"c","choices":[{"index":1,"delta":{},"finish_reason":"length"}]}"#,
    ];
    let wanted = [
        "start Some(\"c\") None",
        "1.0 text",
        "1.0 + b",
        "0.0 text",
        "0.0 + a",
        "0.0 end",
        "0 Stop",
        "1.0 end",
        "1 Length",
        "end",
    ];
    assert_eq!(heard(&events), wanted);
}

#[test]
fn the_end_is_known_and_so_is_its_absence() {
    let text = piece(r#"{"content":"x"}"#);
    let ended = |events: &[&str]| heard(events).pop().unwrap();
    let truncated = r#"error Some("upstream_truncated")"#;
    assert_eq!(ended(&[&text, &last("stop")]), "end");
    assert_eq!(ended(&[&text, "[DONE]"]), "end");
    assert_eq!(ended(&[&text]), truncated);
    assert_eq!(ended(&[]), truncated);
    assert_eq!(ended(&["[DONE]"]), truncated);
    assert_eq!(
        ended(&[&text, &piece("{}").replace("null}]", "\"\"}]")]),
        truncated
    );
    for failure in [
        r#"{"error":{"message":"x","code":"rate_limit_exceeded"}}"#,
        r#"{"choices":[{"index":0,"error":{"message":"x"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
        "not json",
        "[1]",
    ] {
        let lines = heard(&[&text, failure, &last("stop")]);
        assert!(
            lines.last().unwrap().starts_with("error"),
            "{failure}: {lines:?}"
        );
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.starts_with("error"))
                .count(),
            1
        );
    }
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    let body = r#"{"id":"c","created":1,"model":"m","system_fingerprint":"fp","choices":[
        {"index":0,"message":{"content":"é and \"more\"","reasoning_content":"hm","tool_calls":[
            {"id":"a","type":"function","function":{"name":"f","arguments":"{\"k\": [1]}"}},
            {"type":"function","function":{"name":"g","arguments":""}}]},"logprobs":{"content":[{"token":"x","logprob":-1.50}]},"finish_reason":"tool_calls"},
        {"index":1,"message":{"content":"two","refusal":"no"},"finish_reason":"length"}],
        "usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}}"#;
    let events = [
        r#"{"id":"c","created":1,"model":"m","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"h"}},{"index":1,"delta":{"content":"tw"}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"reasoning_content":"m"}},{"index":1,"delta":{"content":"o","refusal":"no"},"finish_reason":"length"}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"\u00e9 and \"m"},"logprobs":{"content":[{"token":"x","logprob":-1.50}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"content":"ore\"","tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"k\": "}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"[1]}"}},{"index":1,"function":{"name":"g","arguments":""}}]}}]}"#,
        r#"{"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14}}"#,
    ];
    let mut tape = Tape::new();
    let whole = response::decode(tape.parse(body).unwrap()).unwrap();
    let mut collector = Collector::new(usize::MAX);
    let mut decoder = Decoder::default();
    for event in events {
        decoder.event(None, event.as_bytes(), &mut |delta| collector.delta(delta));
    }
    decoder.finish(&mut |delta| collector.delta(delta));
    let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
    response::encode(&whole, &reply(Protocol::Chat), &mut one);
    response::encode(&collector.finish(), &reply(Protocol::Chat), &mut other);
    let read = |out: &[u8]| -> Json { serde_json::from_slice(out).unwrap() };
    assert_eq!(read(&one), read(&other));
}

// From here on: written for a client.

const CHOICE: usize = 0;

fn start(part: usize, kind: PartKind<'static>) -> Delta<'static> {
    Delta::PartStart {
        choice: CHOICE,
        part,
        kind,
    }
}

fn say(part: usize, text: &'static str) -> Delta<'static> {
    Delta::Text {
        choice: CHOICE,
        part,
        text: Str::new(text),
    }
}

fn end(part: usize) -> Delta<'static> {
    Delta::PartEnd {
        choice: CHOICE,
        part,
    }
}

fn arguments(part: usize, piece: &'static str) -> Delta<'static> {
    Delta::Arguments {
        choice: CHOICE,
        part,
        piece: Str::new(piece),
    }
}

fn finish(finish: Finish) -> Delta<'static> {
    Delta::Finish {
        choice: CHOICE,
        finish,
    }
}

fn call(id: &'static str, custom: bool) -> PartKind<'static> {
    PartKind::Call {
        id: Str::new(id),
        name: Str::new("f"),
        namespace: None,
        custom,
    }
}

fn blob(part: usize, kind: OpaqueKind) -> Delta<'static> {
    let opaque = Opaque {
        kind,
        data: Str::new("c2ln"),
        model: None,
        account: None,
    };
    Delta::Opaque {
        choice: CHOICE,
        part,
        opaque,
    }
}

/// The deltas of the first choice, as a client reads them.
fn deltas(frames: &[Json]) -> Vec<Json> {
    let frames = frames
        .iter()
        .filter_map(|frame| frame.get("choices")?.get(0));
    frames.map(|choice| choice["delta"].clone()).collect()
}

#[test]
fn a_stream_begins_once_and_ends_once() {
    let reply = Reply {
        include_usage: true,
        ..reply(Protocol::Messages)
    };
    let tokens = Tokens {
        input: Some(3),
        output: Some(2),
        ..Tokens::default()
    };
    let found = told(
        reply,
        vec![
            Delta::Start {
                id: None,
                model: None,
            },
            start(0, PartKind::Text),
            say(0, "hi \"there\"\n"),
            end(0),
            Delta::Meta {
                service: Some(Str::new("standard")),
                fingerprint: None,
            },
            finish(Finish::Stop),
            Delta::Usage {
                tokens,
                web_searches: None,
            },
            Delta::Ping,
            Delta::End,
            Delta::End,
        ],
    );
    let frame = |delta: Json, finish: Json| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        json!({
            "id": "chatcmpl-abc", "object": "chat.completion.chunk", "created": 7, "model": "m",
            "choices": [choice], "usage": null,
        })
    };
    let first = frame(json!({"role": "assistant", "content": ""}), Json::Null);
    let second = frame(json!({"content": "hi \"there\"\n"}), Json::Null);
    let mut closing = frame(json!({}), json!("stop"));
    closing["service_tier"] = json!("default");
    assert_eq!(found[..3], [first, second, closing]);
    assert_eq!(
        (
            found[3]["choices"].clone(),
            found[3]["usage"]["total_tokens"].clone()
        ),
        (json!([]), json!(5))
    );
    assert_eq!(found[4..], [json!("[DONE]")]);
}

#[test]
fn calls_are_numbered_densely_and_named_once() {
    let found = told(
        reply(Protocol::Messages),
        vec![
            start(0, PartKind::Text),
            end(0),
            start(1, call("a", false)),
            arguments(1, ""),
            arguments(1, "{\"k\":"),
            arguments(1, "1}"),
            end(1),
            start(2, call("b", false)),
            end(2),
            start(3, call("c", false)),
            Delta::ArgumentsWhole {
                choice: 0,
                part: 3,
                value: Raw::parse("{ \"z\" : 1 }").unwrap(),
            },
            end(3),
            finish(Finish::ToolUse),
        ],
    );
    let entry = |index: u64, arguments: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]});
    let opening = |index: u64, id: &str| json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": "f", "arguments": ""}}]});
    let wanted = [
        opening(0, "a"),
        entry(0, "{\"k\":"),
        entry(0, "1}"),
        opening(1, "b"),
        entry(1, "{}"),
        opening(2, "c"),
        entry(2, "{\"z\":1}"),
        json!({}),
    ];
    assert_eq!(deltas(&found)[1..], wanted);
    assert_eq!(
        found.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
}

#[test]
fn a_signature_rides_on_the_first_frame_of_its_call() {
    let found = told(
        reply(Protocol::Gemini),
        vec![
            start(0, call("a", false)),
            blob(0, OpaqueKind::GeminiSignature),
            Delta::ArgumentsWhole {
                choice: 0,
                part: 0,
                value: Raw::EMPTY_OBJECT,
            },
            end(0),
            start(1, call("b", false)),
            end(1),
            finish(Finish::ToolUse),
        ],
    );
    let found = deltas(&found);
    let first = &found[1]["tool_calls"][0];
    let signature = first["extra_content"]["google"]["thought_signature"].as_str();
    assert!(signature.unwrap().starts_with(envelope::MARK), "{first}");
    assert_eq!(found[3]["tool_calls"][0].get("extra_content"), None);
}

/// Two thoughts: signed text, and summaries of what is encrypted.
fn thoughts() -> Vec<Delta<'static>> {
    vec![
        start(0, PartKind::Reasoning),
        say(0, "é1"),
        blob(0, OpaqueKind::AnthropicSignature),
        end(0),
        start(1, PartKind::Reasoning),
        Delta::Summary {
            choice: 0,
            part: 1,
            index: 0,
            text: Str::new("p"),
        },
        Delta::Summary {
            choice: 0,
            part: 1,
            index: 1,
            text: Str::new("q"),
        },
        blob(1, OpaqueKind::OpenAiEncrypted),
        end(1),
        finish(Finish::Stop),
    ]
}

#[test]
fn reasoning_is_a_string_and_blobs_are_details_with_numbers() {
    let found = deltas(&told(reply(Protocol::Messages), thoughts()));
    let text = |text: &str| json!({"reasoning_content": text});
    assert_eq!(
        (&found[1], &found[3], &found[4]),
        (&text("é1"), &text("\n\np"), &text("\n\nq"))
    );
    let detail = |frame: &Json| {
        let entry = &frame["reasoning_details"][0];
        (
            entry["type"].clone(),
            entry["index"].clone(),
            entry["start_index"].clone(),
            entry["end_index"].clone(),
        )
    };
    assert_eq!(
        detail(&found[2]),
        (json!("reasoning.text"), json!(0), json!(0), json!(2))
    );
    assert_eq!(
        detail(&found[5]),
        (json!("reasoning.encrypted"), json!(1), json!(4), json!(8))
    );
    let all = Reply {
        chat_reasoning: ChatReasoning::Details,
        ..reply(Protocol::Messages)
    };
    let found = deltas(&told(all, thoughts()));
    assert_eq!(
        found[1]["reasoning_details"],
        json!([{"type": "reasoning.text", "text": "é1", "index": 0}])
    );
    assert_eq!(found[2]["reasoning_details"][0]["index"], 0);
    assert_eq!(
        found[3]["reasoning_details"],
        json!([{"type": "reasoning.summary", "summary": "p", "index": 1}])
    );
    let hidden = Reply {
        show_reasoning: false,
        ..reply(Protocol::Messages)
    };
    assert_eq!(
        deltas(&told(hidden, thoughts())),
        [json!({"role": "assistant", "content": ""}), json!({})]
    );
}

#[test]
fn signed_text_comes_home_to_the_letter() {
    use crate::protocol::chat::details::{From, read};
    let found = deltas(&told(
        reply(Protocol::Messages),
        vec![
            start(0, PartKind::Reasoning),
            say(0, "first \"é\"\n"),
            say(0, "\n"),
            blob(0, OpaqueKind::AnthropicSignature),
            end(0),
            start(1, PartKind::Text),
            say(1, "x"),
            end(1),
            start(2, PartKind::Reasoning),
            say(2, "second"),
            blob(2, OpaqueKind::AnthropicSignature),
            end(2),
            finish(Finish::Stop),
        ],
    ));
    // What a client keeps: strings joined, lists joined by index.
    let mut message = json!({"reasoning_content": "", "reasoning_details": []});
    for delta in found {
        if let Some(text) = delta["reasoning_content"].as_str() {
            let all = message["reasoning_content"].as_str().unwrap().to_owned() + text;
            message["reasoning_content"] = all.into();
        }
        if let Some(entries) = delta["reasoning_details"].as_array() {
            message["reasoning_details"]
                .as_array_mut()
                .unwrap()
                .extend(entries.clone());
        }
    }
    let mut tape = Tape::new();
    let text = message.to_string();
    let home = read(tape.parse(&text).unwrap(), From::Client).thoughts;
    let found: Vec<_> = home
        .iter()
        .map(|thought| {
            let opaque = thought.opaque.as_ref().unwrap();
            (
                thought.text.to_plain_string(),
                opaque.kind,
                opaque.data.to_plain_string(),
            )
        })
        .collect();
    let signed = |text: &str| {
        (
            text.to_owned(),
            OpaqueKind::AnthropicSignature,
            "c2ln".to_owned(),
        )
    };
    assert_eq!(found, [signed("first \"é\"\n\n"), signed("second")]);
}

#[test]
fn custom_calls_take_the_form_that_the_client_knows() {
    let parts = || {
        vec![
            start(0, call("a", true)),
            say(0, "x \"y\""),
            say(0, "\n"),
            end(0),
            start(1, call("b", true)),
            end(1),
            finish(Finish::ToolUse),
        ]
    };
    let custom = Reply {
        custom_tools: true,
        ..reply(Protocol::Responses)
    };
    let found = deltas(&told(custom, parts()));
    assert_eq!(
        found[1]["tool_calls"][0]["custom"],
        json!({"name": "f", "input": ""})
    );
    assert_eq!(
        found[2],
        json!({"tool_calls": [{"index": 0, "custom": {"input": "x \"y\""}}]})
    );
    let found = deltas(&told(reply(Protocol::Responses), parts()));
    let joined = |index: u64| -> String {
        let entries = found
            .iter()
            .map(|delta| &delta["tool_calls"][0])
            .filter(|entry| entry["index"] == index);
        entries
            .filter_map(|entry| entry["function"]["arguments"].as_str())
            .collect()
    };
    assert_eq!(
        (joined(0).as_str(), joined(1).as_str()),
        (r#"{"input":"x \"y\"\n"}"#, r#"{"input":""}"#)
    );
}

#[test]
fn the_legacy_form_has_one_call() {
    let legacy = Reply {
        legacy_functions: true,
        ..reply(Protocol::Messages)
    };
    let found = told(
        legacy,
        vec![
            start(0, call("a", false)),
            arguments(0, "{}"),
            end(0),
            start(1, call("b", false)),
            arguments(1, "{}"),
            end(1),
            finish(Finish::ToolUse),
        ],
    );
    let wanted = [
        json!({"function_call": {"name": "f", "arguments": ""}}),
        json!({"function_call": {"arguments": "{}"}}),
        json!({}),
    ];
    assert_eq!(deltas(&found)[1..], wanted);
    assert_eq!(
        found.last().unwrap()["choices"][0]["finish_reason"],
        "function_call"
    );
}

#[test]
fn choices_turn_up_in_order() {
    let found = told(
        reply(Protocol::Gemini),
        vec![
            Delta::PartStart {
                choice: 2,
                part: 0,
                kind: PartKind::Text,
            },
            Delta::Text {
                choice: 2,
                part: 0,
                text: Str::new("c"),
            },
        ],
    );
    let order: Vec<_> = found
        .iter()
        .map(|frame| frame["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(order, [0, 1, 2, 2]);
}

#[test]
fn texts_are_set_apart_and_citations_are_counted_in_the_whole() {
    let annotation = Annotation {
        url: Str::new("u"),
        title: None,
        cited: None,
        span: Some((0, 1)),
    };
    let found = deltas(&told(
        reply(Protocol::Responses),
        vec![
            start(0, PartKind::Text),
            say(0, "é"),
            end(0),
            start(1, PartKind::Text),
            say(1, "b"),
            say(1, "c"),
            Delta::Annotation {
                choice: 0,
                part: 1,
                annotation,
            },
            end(1),
        ],
    ));
    assert_eq!(
        (&found[2], &found[3]),
        (&json!({"content": "\n\nb"}), &json!({"content": "c"}))
    );
    let entry = &found[4]["annotations"][0];
    assert_eq!(
        (&entry["index"], &entry["url_citation"]["start_index"]),
        (&json!(0), &json!(3))
    );
}

#[test]
fn a_stream_that_fails_says_so_last() {
    let fail = |delta| {
        told(
            reply(Protocol::Messages),
            vec![
                start(0, PartKind::Text),
                say(0, "x"),
                delta,
                end(0),
                Delta::End,
            ],
        )
    };
    let error = Delta::Error {
        class: ErrorClass::Overloaded,
        message: "busy".into(),
        code: None,
    };
    let found = fail(error);
    assert_eq!(found.len(), 3);
    assert_eq!(
        (&found[2]["error"]["message"], &found[2]["error"]["code"]),
        (&json!("busy"), &json!("overloaded"))
    );
    let found = fail(finish(Finish::BadToolCall("x".into())));
    assert_eq!(
        (found.len(), &found[2]["error"]["type"]),
        (3, &json!("server_error"))
    );
}

mod any {
    use super::*;
    use proptest::prelude::*;

    const PIECES: [&str; 22] = [
        r#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"a<think>b"}}]}"#,
        r#"{"choices":[{"delta":{"content":"x","reasoning":"r"},"finish_reason":""}]}"#,
        r#"{"choices":[{"index":0,"delta":{"reasoning_details":[{"signature":"s"},{"data":"d","id":"a"},7]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"k\\\""}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\":1}"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"g","arguments":{}}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"function":{"name":"h"}},{"function":{"arguments":"{}"}},null,{"custom":{"name":"c","input":"i"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"id":"a","function":{"arguments":"x"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"function_call":{"name":"l","arguments":"{}"}}}]}"#,
        r#"{"choices":[{"index":1,"delta":{"content":"other","refusal":"no"}}]}"#,
        r#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":"t"},{"type":"text","text":"u"},{"type":"image_url","image_url":"data:image/png;base64,aGk="}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"annotations":[{"url_citation":{"url":"u","start_index":9,"end_index":2}},{"url":"v"}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":null,"logprobs":{"content":[{"token":"a"}]}}],"usage":{"prompt_tokens":1}}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#,
        r#"{"choices":[{"index":0,"message":{"content":"whole"},"finish_reason":"tool_calls"}]}"#,
        r#"{"choices":[{"index":500,"delta":{"content":"far"}}]}"#,
        r#"{"choices":{"index":0}}"#,
        r#"{"service_tier":"x","system_fingerprint":"y","choices":[{}]}"#,
        r#"{"error":{"message":"boom"}}"#,
        "[DONE]",
    ];

    proptest! {
        /// Any events in any order: the decoder keeps its promises, and what the
        /// encoder makes of them are whole frames, with one end.
        #[test]
        fn promises_are_kept_whatever_comes(
            picks in proptest::collection::vec(0usize..22, 0..14), tags: bool, upstream in 0usize..4, details: bool,
        ) {
            let decoder = Decoder::default();
            let mut decoder = if tags { decoder.with_think_tags() } else { decoder };
            let mut order = Order::default();
            let mut broken = Vec::new();
            let upstream = [Protocol::Chat, Protocol::Responses, Protocol::Messages, Protocol::Gemini][upstream];
            let mut reply = Reply { include_usage: true, ..reply(upstream) };
            if details {
                reply.chat_reasoning = ChatReasoning::Details;
            }
            let mut encoder = Encoder::new(reply);
            let mut out = BytesMut::new();
            let mut take = |delta: Delta<'_>| {
                broken.extend(order.check(&delta).err());
                encoder.delta(delta, &mut out);
            };
            for pick in picks {
                decoder.event(None, PIECES[pick].as_bytes(), &mut take);
            }
            decoder.finish(&mut take);
            prop_assert_eq!(broken, Vec::<String>::new());
            prop_assert_eq!(order.finished(), Ok(()));
            let frames = frames(&out);
            let ends = frames.iter().filter(|frame| **frame == "[DONE]" || frame.get("error").is_some());
            prop_assert_eq!(ends.count(), 1);
            let roles = frames.iter().filter(|frame| frame["choices"][0]["delta"].get("role").is_some());
            let numbers: Vec<_> = roles.map(|frame| frame["choices"][0]["index"].as_u64()).collect();
            let wanted: Vec<_> = (0..numbers.len() as u64).map(Some).collect();
            prop_assert_eq!(numbers, wanted);
        }

        /// Arguments cut anywhere come out as they went in.
        #[test]
        fn arguments_survive_any_cut(text in "[a-z\"\\\\\n\u{e9}{}\\[\\]]{0,20}", cuts in proptest::collection::vec(0usize..60, 0..5)) {
            let whole = json!({ "k": text, "n": 1 }).to_string();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).filter(|cut| whole.is_char_boundary(*cut)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut decoder = Decoder::default();
            let mut encoder = Encoder::new(reply(Protocol::Chat));
            let mut out = BytesMut::new();
            let first = piece(r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}"#);
            decoder.event(None, first.as_bytes(), &mut |delta| encoder.delta(delta, &mut out));
            for pair in cuts.windows(2) {
                let part = json!({"tool_calls": [{"index": 0, "function": {"arguments": &whole[pair[0]..pair[1]]}}]});
                decoder.event(None, piece(&part.to_string()).as_bytes(), &mut |delta| encoder.delta(delta, &mut out));
            }
            decoder.event(None, last("stop").as_bytes(), &mut |delta| encoder.delta(delta, &mut out));
            decoder.finish(&mut |delta| encoder.delta(delta, &mut out));
            let frames = frames(&out);
            let pieces = frames.iter().filter_map(|frame| frame["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str());
            prop_assert_eq!(pieces.collect::<String>(), whole);
        }

        /// Bytes that are no stream at all.
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..64), pick in 0usize..22, at in 0usize..200) {
            let mut broken = PIECES[pick].as_bytes().to_vec();
            let at = at % (broken.len() + 1);
            broken.splice(at..at, bytes.iter().copied().take(3));
            let mut decoder = Decoder::default();
            let mut count = 0;
            decoder.event(None, &broken, &mut |_| count += 1);
            decoder.event(None, &bytes, &mut |_| count += 1);
            decoder.finish(&mut |_| count += 1);
            prop_assert!(count > 0);
        }
    }
}
