//! What translating costs: a stream of 200 deltas, event by event, a conversation of
//! a megabyte, and a short question with its answer, between all protocols.
//!
//! `cargo bench --bench translate`; words after `--` choose by what a line's name
//! contains. Beside each stands what serde_json and simd-json take to do less: to
//! parse the same bytes into values and write them again. Times are those that the
//! thread ran. With `--smoke` (or `PLEXUS_BENCH_SMOKE=1`) each step runs a few times
//! only.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use plexus::protocol::Protocol;
use plexus::protocol::capabilities::Capabilities;
use plexus::protocol::filter::Fixups;
use plexus::protocol::json::Tape;
use plexus::protocol::notes::Notes;
use plexus::protocol::sse;
use plexus::protocol::translate::{Reply, Target, decode_request, encode_request};
use plexus::protocol::translator::{Translator, document};
use serde_json::{Value, json};
use simd_json::prelude::Writable as _;

const FOUR: [Protocol; 4] = [
    Protocol::Chat,
    Protocol::Responses,
    Protocol::Messages,
    Protocol::Gemini,
];
/// Text deltas of a stream.
const DELTAS: usize = 200;
/// What one read of a socket brings, about.
const READ: usize = 4096;
/// Bytes of a long conversation.
const LONG: usize = 1 << 20;
/// And of a short one.
const SHORT: usize = 2 << 10;
/// Where providers are.
const HOST: &str = "api.example.com";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let smoke = arguments.iter().any(|word| word == "--smoke")
        || std::env::var_os("PLEXUS_BENCH_SMOKE").is_some_and(|value| value == "1");
    let words = arguments.into_iter().filter(|word| !word.starts_with('-'));
    let bench = Bench {
        words: words.collect(),
        batch: Duration::from_millis(if smoke { 1 } else { 60 }),
        batches: if smoke { 2 } else { 11 },
    };
    streams(&bench);
    requests(&bench);
    exchanges(&bench);
}

/// How long to measure, and which steps.
struct Bench {
    words: Vec<String>,
    batch: Duration,
    batches: usize,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(&**word))
    }

    /// The median of what one run of a step takes, in nanoseconds.
    fn cost<T>(&self, mut step: impl FnMut() -> T) -> f64 {
        let mut runs: u32 = 1;
        while time(runs, &mut step) < self.batch / 2 && runs < 1 << 28 {
            runs *= 2;
        }
        let mut costs: Vec<f64> = (0..self.batches)
            .map(|_| time(runs, &mut step).as_secs_f64() * 1e9 / f64::from(runs))
            .collect();
        costs.sort_unstable_by(f64::total_cmp);
        costs.get(costs.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn time<T>(runs: u32, step: &mut impl FnMut() -> T) -> Duration {
    let (start, began) = (on_processor(), Instant::now());
    for _ in 0..runs {
        black_box(step());
    }
    match (start, on_processor()) {
        (Some(start), Some(end)) => end.saturating_sub(start),
        _ => began.elapsed(),
    }
}

/// How long this thread has run, as Linux counts it, whoever else wants the
/// processor. Counted up to now where the thread has just let others go first.
fn on_processor() -> Option<Duration> {
    std::thread::yield_now();
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = counted.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// Streams, each from one protocol into each other.
fn streams(bench: &Bench) {
    say(
        "| stream of 200 text deltas | ns an event | serde_json there and back | simd-json |\n|---|--:|--:|--:|",
    );
    for from in FOUR {
        let input = stream(from);
        let events = count(&input);
        let plain = bench.cost(|| there_and_back(&input, serde_round));
        let simd = bench.cost(|| there_and_back(&input, simd_round));
        for to in FOUR.into_iter().filter(|to| *to != from) {
            let name = format!("stream {from} to {to}");
            if !bench.wants(&name) {
                continue;
            }
            let cost = bench.cost(|| translate(&input, from, to));
            let events = events as f64;
            say(&format!(
                "| {name} | {:.0} | {:.0} | {:.0} |",
                cost / events,
                plain / events,
                simd / events
            ));
        }
    }
}

/// Long conversations, each from one protocol into each other.
fn requests(bench: &Bench) {
    say(
        "\n| conversation of a megabyte | MB/s | serde_json there and back | simd-json |\n|---|--:|--:|--:|",
    );
    for from in FOUR {
        let body = conversation(from, LONG, 60);
        let megabytes = body.len() as f64 / 1e6;
        let plain = bench.cost(|| serde_round(body.as_bytes()));
        let simd = bench.cost(|| simd_round(body.as_bytes()));
        for to in FOUR.into_iter().filter(|to| *to != from) {
            let name = format!("request {from} to {to}");
            if !bench.wants(&name) {
                continue;
            }
            let cost = bench.cost(|| convert(&body, from, to));
            let rate = |ns: f64| megabytes / (ns / 1e9);
            say(&format!(
                "| {name} | {:.0} | {:.0} | {:.0} |",
                rate(cost),
                rate(plain),
                rate(simd)
            ));
        }
    }
}

/// A request of 2 KB and its answer, whole: all that a translated unary exchange
/// costs beside what a bare one does.
fn exchanges(bench: &Bench) {
    say("\n| exchange of 2 KB | us | serde_json there and back | simd-json |\n|---|--:|--:|--:|");
    for from in FOUR {
        let body = conversation(from, SHORT, 10);
        for to in FOUR.into_iter().filter(|to| *to != from) {
            let name = format!("exchange {from} by {to}");
            if !bench.wants(&name) {
                continue;
            }
            let answer = answer(to);
            let both = |round: fn(&[u8]) -> usize| {
                bench.cost(|| round(body.as_bytes()) + round(answer.as_bytes())) / 1e3
            };
            // Worked out once for a target, not for a request.
            let able = Capabilities::of(to, HOST, model(to));
            let cost = bench.cost(|| exchange(&body, &answer, from, &able, to)) / 1e3;
            let (plain, simd) = (both(serde_round), both(simd_round));
            say(&format!("| {name} | {cost:.1} | {plain:.1} | {simd:.1} |"));
        }
    }
}

fn exchange(body: &str, answer: &str, from: Protocol, able: &Capabilities, to: Protocol) -> usize {
    let target = Target {
        protocol: to,
        model: model(to),
        capabilities: able,
        account: "bench",
        stream: false,
    };
    let (mut tape, mut notes) = (Tape::new(), Notes::new());
    let encoded = tape.parse(body).ok().and_then(|root| {
        let request = decode_request(from, root, &mut notes).ok()?;
        encode_request(&request, &target, &mut notes).ok()
    });
    let translated = encoded.and_then(|encoded| {
        black_box(&encoded.body);
        document(answer.as_bytes(), encoded.fixups, reply(from, to), false).ok()
    });
    assert!(translated.is_some(), "{from} by {to}");
    translated.map_or(0, |translated| translated.body.len())
}

/// A short answer, in the shape of the real ones.
fn answer(protocol: Protocol) -> String {
    let text = "An answer with \"quotes\" and line\nends. ".repeat(10);
    let value = match protocol {
        Protocol::Responses => {
            json!({"id": "resp_1", "object": "response", "created_at": 1_700_000_000,
            "status": "completed", "model": "gpt-5", "output": [{"id": "msg_1", "type": "message",
            "status": "completed", "role": "assistant", "content": [{"type": "output_text", "text": text, "annotations": []}]}],
            "usage": {"input_tokens": 9, "output_tokens": 200, "total_tokens": 209}})
        }
        Protocol::Messages => json!({"id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5", "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn", "stop_sequence": null, "usage": {"input_tokens": 9, "output_tokens": 200}}),
        Protocol::Gemini => {
            json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]},
            "finishReason": "STOP", "index": 0}], "responseId": "r1", "modelVersion": "gemini-2.5-pro",
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 200, "totalTokenCount": 209}})
        }
        _ => json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000,
            "model": "gpt-4o", "choices": [{"index": 0, "message": {"role": "assistant", "content": text,
            "refusal": null, "annotations": []}, "logprobs": null, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209}}),
    };
    value.to_string()
}

fn convert(body: &str, from: Protocol, to: Protocol) -> usize {
    let model = model(to);
    let able = Capabilities::of(to, HOST, model);
    let target = Target {
        protocol: to,
        model,
        capabilities: &able,
        account: "bench",
        stream: false,
    };
    let (mut tape, mut notes) = (Tape::new(), Notes::new());
    let encoded = tape.parse(body).ok().and_then(|root| {
        let request = decode_request(from, root, &mut notes).ok()?;
        encode_request(&request, &target, &mut notes).ok()
    });
    // A conversation that can't be said is a broken bench.
    assert!(encoded.is_some(), "{from} to {to}");
    encoded.map_or(0, |encoded| encoded.body.len())
}

const fn model(to: Protocol) -> &'static str {
    match to {
        Protocol::Messages => "claude-sonnet-4-5",
        Protocol::Gemini => "gemini-2.5-pro",
        _ => "gpt-4o",
    }
}

fn reply(client: Protocol, upstream: Protocol) -> Reply {
    Reply {
        id: "0123456789ABCDEFGHIJKLMN".into(),
        model: "alias".into(),
        upstream_model: "model".into(),
        account: "bench".into(),
        created: 1_700_000_000,
        include_usage: true,
        ..Reply::plain(client, upstream)
    }
}

fn translate(input: &str, from: Protocol, to: Protocol) -> usize {
    let mut translator = Translator::new(Fixups::default(), reply(to, from));
    let mut out = BytesMut::new();
    let mut written = 0;
    for piece in input.as_bytes().chunks(READ) {
        translator.push(piece, &mut out);
        written += out.split().len();
    }
    translator.finish(&mut out);
    assert!(translator.is_whole(), "{from} to {to}");
    written + out.len()
}

fn there_and_back(input: &str, round: fn(&[u8]) -> usize) -> usize {
    let mut decoder = sse::Decoder::new();
    let mut written = 0;
    let read = decoder.push(input.as_bytes(), |event| written += round(event.data));
    assert!(read.is_ok());
    written
}

fn serde_round(json: &[u8]) -> usize {
    let value: Option<Value> = serde_json::from_slice(json).ok();
    value.map_or(0, |value| value.to_string().len())
}

fn simd_round(json: &[u8]) -> usize {
    let mut bytes = json.to_vec();
    let value = simd_json::to_owned_value(&mut bytes).ok();
    value.map_or(0, |value| value.encode().len())
}

fn count(input: &str) -> usize {
    let mut events = 0;
    let mut decoder = sse::Decoder::new();
    let read = decoder.push(input.as_bytes(), |_| events += 1);
    assert!(read.is_ok());
    events
}

fn text(i: usize) -> String {
    format!(" word{i} and \"more\" of it\n")
}

fn frame(out: &mut String, value: &Value) {
    if let Some(name) = value["type"].as_str() {
        out.push_str(&format!("event: {name}\n"));
    }
    out.push_str(&format!("data: {value}\n\n"));
}

/// A provider's stream of text, in the shape of the real ones.
fn stream(protocol: Protocol) -> String {
    match protocol {
        Protocol::Responses => responses_stream(),
        Protocol::Messages => messages_stream(),
        Protocol::Gemini => gemini_stream(),
        _ => chat_stream(),
    }
}

fn chat_stream() -> String {
    let mut out = String::new();
    let chunk = |delta: Value, finish: Value| {
        json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": "gpt-4o-2024-08-06", "service_tier": "default", "system_fingerprint": "fp_1",
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}],
            "usage": null, "obfuscation": "a1B2"})
    };
    frame(
        &mut out,
        &chunk(json!({"role": "assistant", "content": ""}), Value::Null),
    );
    for i in 0..DELTAS {
        frame(&mut out, &chunk(json!({ "content": text(i) }), Value::Null));
    }
    frame(&mut out, &chunk(json!({}), json!("stop")));
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 200, "total_tokens": 209});
    frame(
        &mut out,
        &json!({"id": "chatcmpl-1", "choices": [], "usage": usage}),
    );
    out.push_str("data: [DONE]\n\n");
    out
}

fn responses_stream() -> String {
    let mut out = String::new();
    let response = |status: &str| {
        json!({"id": "resp_1", "object": "response", "created_at": 1_700_000_000,
            "status": status, "model": "gpt-5", "output": [],
            "usage": {"input_tokens": 9, "output_tokens": 200, "total_tokens": 209}})
    };
    frame(
        &mut out,
        &json!({"type": "response.created", "sequence_number": 0, "response": response("in_progress")}),
    );
    frame(
        &mut out,
        &json!({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0,
        "item": {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}}),
    );
    frame(
        &mut out,
        &json!({"type": "response.content_part.added", "sequence_number": 2, "item_id": "msg_1",
        "output_index": 0, "content_index": 0, "part": {"type": "output_text", "text": "", "annotations": []}}),
    );
    for i in 0..DELTAS {
        frame(
            &mut out,
            &json!({"type": "response.output_text.delta", "sequence_number": 3 + i, "item_id": "msg_1",
            "output_index": 0, "content_index": 0, "delta": text(i), "logprobs": [], "obfuscation": "x1Y2z3"}),
        );
    }
    let whole: String = (0..DELTAS).map(text).collect();
    let item = json!({"id": "msg_1", "type": "message", "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": whole, "annotations": []}]});
    frame(
        &mut out,
        &json!({"type": "response.output_item.done", "sequence_number": 203, "output_index": 0, "item": item}),
    );
    frame(
        &mut out,
        &json!({"type": "response.completed", "sequence_number": 204, "response": response("completed")}),
    );
    out
}

fn messages_stream() -> String {
    let mut out = String::new();
    frame(
        &mut out,
        &json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
        "role": "assistant", "model": "claude-sonnet-4-5", "content": [], "stop_reason": null,
        "usage": {"input_tokens": 9, "output_tokens": 1}}}),
    );
    frame(
        &mut out,
        &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    );
    for i in 0..DELTAS {
        frame(
            &mut out,
            &json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": text(i)}}),
        );
    }
    frame(&mut out, &json!({"type": "content_block_stop", "index": 0}));
    frame(
        &mut out,
        &json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
        "usage": {"output_tokens": 200}}),
    );
    frame(&mut out, &json!({"type": "message_stop"}));
    out
}

fn gemini_stream() -> String {
    let mut out = String::new();
    let chunk = |text: &str, finish: Option<&str>| {
        let mut candidate =
            json!({"content": {"parts": [{ "text": text }], "role": "model"}, "index": 0});
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
        }
        json!({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 9,
            "candidatesTokenCount": 200, "totalTokenCount": 209,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}]},
            "modelVersion": "gemini-2.5-pro", "responseId": "r1"})
    };
    for i in 0..DELTAS {
        frame(&mut out, &chunk(&text(i), None));
    }
    frame(&mut out, &chunk("", Some("STOP")));
    out
}

/// A conversation of about that size with texts of so many sentences, tools and
/// results.
fn conversation(protocol: Protocol, size: usize, sentences: usize) -> String {
    let long = "Some text with \"quotes\", line\nends and a bit of caf\u{e9}. ".repeat(sentences);
    let rounds = size / (3 * long.len());
    let question = |i: usize| format!("{i}: {long}");
    let value = match protocol {
        Protocol::Responses => {
            let input: Vec<Value> = (0..rounds).flat_map(|i| [
                json!({"role": "user", "content": [{"type": "input_text", "text": question(i)}]}),
                json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": question(i), "annotations": []}]}),
                json!({"type": "function_call", "call_id": format!("call_{i}"), "name": "read", "arguments": "{\"path\":\"/tmp/a\"}"}),
                json!({"type": "function_call_output", "call_id": format!("call_{i}"), "output": question(i)}),
            ]).collect();
            json!({"model": "alias", "input": input, "tools": [{"type": "function", "name": "read", "parameters": schema()}]})
        }
        Protocol::Messages => {
            let messages: Vec<Value> = (0..rounds).flat_map(|i| [
                json!({"role": "user", "content": [{"type": "text", "text": question(i)}]}),
                json!({"role": "assistant", "content": [{"type": "text", "text": question(i)},
                    {"type": "tool_use", "id": format!("toolu_{i}"), "name": "read", "input": {"path": "/tmp/a"}}]}),
                json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": format!("toolu_{i}"), "content": question(i)}]}),
            ]).collect();
            json!({"model": "alias", "max_tokens": 1000, "messages": messages, "tools": [{"name": "read", "input_schema": schema()}]})
        }
        Protocol::Gemini => {
            let contents: Vec<Value> = (0..rounds).flat_map(|i| [
                json!({"role": "user", "parts": [{"text": question(i)}]}),
                json!({"role": "model", "parts": [{"text": question(i)}, {"functionCall": {"name": "read", "args": {"path": "/tmp/a"}}}]}),
                json!({"role": "user", "parts": [{"functionResponse": {"name": "read", "response": {"output": question(i)}}}]}),
            ]).collect();
            json!({"contents": contents, "tools": [{"functionDeclarations": [{"name": "read", "parametersJsonSchema": schema()}]}]})
        }
        _ => {
            let messages: Vec<Value> = (0..rounds).flat_map(|i| [
                json!({"role": "user", "content": question(i)}),
                json!({"role": "assistant", "content": question(i), "tool_calls": [{"id": format!("call_{i}"),
                    "type": "function", "function": {"name": "read", "arguments": "{\"path\":\"/tmp/a\"}"}}]}),
                json!({"role": "tool", "tool_call_id": format!("call_{i}"), "content": question(i)}),
            ]).collect();
            json!({"model": "alias", "messages": messages, "tools": [{"type": "function",
                "function": {"name": "read", "parameters": schema()}}]})
        }
    };
    value.to_string()
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]})
}
