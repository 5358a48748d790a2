//! What the checkers accept and refuse, and what the encoders write.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::protocol::Protocol;
use crate::protocol::collect::replay;
use crate::protocol::collect::tests::any_response;
use crate::protocol::error::ErrorClass;
use crate::protocol::ir::{Choice, Finish};
use crate::protocol::json::{Raw, Str};
use crate::protocol::translate::{ChatReasoning, Reply, StreamEncoder};

fn start() -> Delta<'static> {
    Delta::Start {
        id: None,
        model: None,
    }
}

fn begin(choice: usize, part: usize, kind: PartKind<'static>) -> Delta<'static> {
    Delta::PartStart { choice, part, kind }
}

fn call(custom: bool) -> PartKind<'static> {
    PartKind::Call {
        id: Str::new("a"),
        name: Str::new("f"),
        namespace: None,
        custom,
    }
}

fn text(choice: usize, part: usize) -> Delta<'static> {
    Delta::Text {
        choice,
        part,
        text: Str::new("x"),
    }
}

fn end(choice: usize, part: usize) -> Delta<'static> {
    Delta::PartEnd { choice, part }
}

fn finish(choice: usize) -> Delta<'static> {
    Delta::Finish {
        choice,
        finish: Finish::Stop,
    }
}

fn whole() -> Delta<'static> {
    Delta::ArgumentsWhole {
        choice: 0,
        part: 0,
        value: Raw::EMPTY_OBJECT,
    }
}

fn piece() -> Delta<'static> {
    Delta::Arguments {
        choice: 0,
        part: 0,
        piece: Str::new("{"),
    }
}

fn verdict(deltas: Vec<Delta<'static>>) -> Result<(), String> {
    let mut order = Order::default();
    for delta in &deltas {
        order.check(delta)?;
    }
    order.finished()
}

#[test]
fn deltas_in_order_pass() {
    let deltas = vec![
        Delta::Ping,
        start(),
        begin(0, 0, PartKind::Text),
        begin(0, 1, call(false)),
        text(0, 0),
        end(0, 1),
        end(0, 0),
        begin(1, 0, PartKind::Reasoning),
        end(1, 0),
        finish(1),
        finish(0),
        Delta::End,
    ];
    assert_eq!(verdict(deltas), Ok(()));
}

#[test]
fn each_broken_promise_is_noticed() {
    let text_part = || begin(0, 0, PartKind::Text);
    for deltas in [
        vec![],
        vec![start()],
        vec![text_part()],
        vec![start(), start()],
        vec![start(), Delta::End, Delta::Ping],
        vec![start(), begin(0, 1, PartKind::Text)],
        vec![start(), text(0, 0)],
        vec![start(), text_part(), end(0, 0), text(0, 0)],
        vec![start(), text_part(), end(0, 0), end(0, 0)],
        vec![start(), text_part(), finish(0)],
        vec![start(), text_part(), end(0, 0), Delta::End],
        vec![start(), finish(0), finish(0)],
        vec![start(), finish(0), text_part()],
        vec![start(), begin(0, 0, call(false)), text(0, 0)],
        vec![start(), begin(0, 0, call(true)), piece()],
        vec![start(), begin(0, 0, call(false)), piece(), whole()],
        vec![start(), begin(0, 0, call(false)), whole(), whole()],
        vec![start(), text_part(), whole()],
    ] {
        let shown = format!("{deltas:?}");
        assert!(verdict(deltas).is_err(), "{shown}");
    }
}

/// The verdict on a stream, whole and byte by byte.
fn stream(frames: &mut Frames, text: &str) -> Result<(), String> {
    frames.push(text.as_bytes())?;
    frames.finish()
}

fn of(protocol: Protocol, text: &str) -> Result<(), String> {
    let mut bytewise = Frames::new(protocol);
    let mut pieces = text.as_bytes().chunks(1);
    let by_byte = pieces
        .try_for_each(|byte| bytewise.push(byte))
        .and_then(|()| bytewise.finish());
    let whole = stream(&mut Frames::new(protocol), text);
    assert_eq!(whole.is_ok(), by_byte.is_ok(), "{whole:?} {by_byte:?}");
    whole
}

/// Each pair replaces something in a good stream and makes it a bad one.
fn each_is_noticed(protocol: Protocol, good: &str, changes: &[(&str, &str)]) {
    assert_eq!(of(protocol, good), Ok(()));
    for (from, to) in changes {
        assert!(good.contains(from), "{from}");
        let bad = good.replacen(from, to, 1);
        assert!(of(protocol, &bad).is_err(), "{from} -> {to}");
    }
    for (at, _) in good.match_indices("\n\n") {
        assert!(at + 2 == good.len() || of(protocol, &good[..at + 2]).is_err());
    }
}

const CHAT: &str = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}

: keep-alive

data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}],"usage":null}

data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":null}]}

data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]},"finish_reason":null}]}

data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}

data: [DONE]

"#;

#[test]
fn chat_streams_are_told_from_what_only_resembles_them() {
    each_is_noticed(
        Protocol::Chat,
        CHAT,
        &[
            (r#""role":"assistant","#, ""),
            (
                r#"{"content":"x"}"#,
                r#"{"role":"assistant","content":"x"}"#,
            ),
            (
                r#""id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[]"#,
                r#""id":"d","object":"chat.completion.chunk","created":1,"model":"m","choices":[]"#,
            ),
            (
                r#""function":{"arguments":"{}"}"#,
                r#""id":"a","function":{"arguments":"{}"}"#,
            ),
            (
                r#""function":{"arguments":"{}"}"#,
                r#""function":{"arguments":""}"#,
            ),
            (r#"[{"index":0,"id":"a""#, r#"[{"index":1,"id":"a""#),
            (r#"[{"index":0,"id":"a""#, r#"[{"index":0,"id":"""#),
            (r#""finish_reason":"tool_calls""#, r#""finish_reason":null"#),
            (r#""usage":null"#, r#""usage":{}"#),
            ("data: [DONE]", "id: 1\ndata: [DONE]"),
            ("data: [DONE]", "event: done\ndata: [DONE]"),
            ("data: [DONE]", "data: [DONE]\n\ndata: [DONE]"),
            ("\"created\":1", "\"created\":2"),
        ],
    );
    let failed = "data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"param\":null,\"code\":\"upstream_error\"}}\n\n";
    assert_eq!(of(Protocol::Chat, failed), Ok(()));
    assert!(of(Protocol::Chat, &format!("{failed}data: [DONE]\n\n")).is_err());
}

const MESSAGES: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"t"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: ping
data: {"type": "ping"}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":1,"output_tokens":2}}

event: message_stop
data: {"type":"message_stop"}

"#;

#[test]
fn messages_streams_are_told_from_what_only_resembles_them() {
    each_is_noticed(
        Protocol::Messages,
        MESSAGES,
        &[
            ("event: message_start\n", ""),
            ("event: message_stop", "event: ping"),
            (
                r#""index":1,"content_block""#,
                r#""index":2,"content_block""#,
            ),
            (r#""signature":"s""#, r#""signature":"""#),
            (
                r#""type":"signature_delta","signature":"s""#,
                r#""type":"thinking_delta","thinking":"s""#,
            ),
            (r#""partial_json":"{}""#, r#""partial_json":"{""#),
            (r#""partial_json":"{}""#, r#""partial_json":"[]""#),
            (r#""stop_reason":"tool_use""#, r#""stop_reason":null"#),
            (r#""usage":{"input_tokens":1,"#, r#""usage":{"#),
            ("event: message_delta", "event: ping"),
            (
                "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n",
                "",
            ),
            ("event: ping\n", ": ping\n"),
        ],
    );
    let failed = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"x\"}}\n\n";
    assert_eq!(of(Protocol::Messages, failed), Ok(()));
}

const GEMINI: &str = r#"data: {"candidates":[{"content":{"role":"model","parts":[{"text":"x","thought":true}]},"index":0}],"modelVersion":"m","responseId":"r"}


data: {"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"name":"f","args":{}},"thoughtSignature":"AAAA"}]},"index":0}],"modelVersion":"m","responseId":"r"}

data: {"candidates":[{"content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP","index":0}],"usageMetadata":{"totalTokenCount":1},"modelVersion":"m","responseId":"r"}

"#;

#[test]
fn gemini_streams_are_told_from_what_only_resembles_them() {
    each_is_noticed(
        Protocol::Gemini,
        GEMINI,
        &[
            (r#""parts":[{"text":""}]"#, r#""parts":[]"#),
            (r#""finishReason":"STOP","#, ""),
            (r#""usageMetadata":{"totalTokenCount":1},"#, ""),
            ("AAAA", "A*AA"),
            (r#""args":{}"#, r#""args":"{}""#),
            (r#""responseId":"r""#, r#""responseId":"q""#),
            (r#""role":"model","#, ""),
            ("\n\ndata", "\n\n: x\n\ndata"),
            ("\n\ndata", "\n\nevent: x\ndata"),
        ],
    );
    let chunks: Vec<&str> = GEMINI
        .split("\n\n")
        .filter_map(|chunk| chunk.trim().strip_prefix("data: "))
        .collect();
    let array = format!("[{}]", chunks.join(",\r\n"));
    assert_eq!(stream(&mut Frames::array(), &array), Ok(()));
    let failing = format!(
        "[{},{{\"error\":{{\"code\":503,\"message\":\"x\",\"status\":\"UNAVAILABLE\"}}}}]",
        chunks[0]
    );
    assert_eq!(stream(&mut Frames::array(), &failing), Ok(()));
    assert!(stream(&mut Frames::array(), &failing.replace("503", "200")).is_err());
}

/// A Responses stream, its events numbered.
fn responses(events: &[(&str, &str)]) -> String {
    let events = events.iter().enumerate().map(|(number, (name, rest))| {
        format!(
            "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{number},{rest}}}\n\n"
        )
    });
    events.collect()
}

fn lifecycle(status: &str, output: &str, usage: &str) -> String {
    format!(
        r#""response":{{"id":"resp_1","object":"response","created_at":1,"model":"m","status":"{status}","error":null,"incomplete_details":null,"output":[{output}],"usage":{usage}}}"#
    )
}

/// A message and a call, side by side.
fn message_and_call() -> String {
    let begun = lifecycle("in_progress", "", "null");
    let message = r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"output_text","text":"xy"}]}"#;
    let call = r#"{"id":"fc_1","type":"function_call","call_id":"a","name":"f","arguments":"{}"}"#;
    let usage = r#"{"input_tokens":1,"output_tokens":1,"total_tokens":2,"input_tokens_details":{"cached_tokens":0},"output_tokens_details":{"reasoning_tokens":0}}"#;
    let done = lifecycle("completed", &format!("{message},{call}"), usage);
    let part = r#""item_id":"msg_1","output_index":0,"content_index":0"#;
    let of_call = r#""item_id":"fc_1","output_index":1"#;
    responses(&[
        ("response.created", &begun),
        ("response.in_progress", &begun),
        (
            "response.output_item.added",
            r#""output_index":0,"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}"#,
        ),
        (
            "response.content_part.added",
            &format!(r#"{part},"part":{{"type":"output_text","text":"","annotations":[]}}"#),
        ),
        (
            "response.output_text.delta",
            &format!(r#"{part},"delta":"x","logprobs":[]"#),
        ),
        (
            "response.output_item.added",
            r#""output_index":1,"item":{"id":"fc_1","type":"function_call"}"#,
        ),
        (
            "response.output_text.delta",
            &format!(r#"{part},"delta":"y","logprobs":[]"#),
        ),
        (
            "response.output_text.annotation.added",
            &format!(r#"{part},"annotation_index":0,"annotation":{{}}"#),
        ),
        (
            "response.output_text.done",
            &format!(r#"{part},"text":"xy","logprobs":[]"#),
        ),
        (
            "response.content_part.done",
            &format!(r#"{part},"part":{{"type":"output_text","text":"xy"}}"#),
        ),
        (
            "response.output_item.done",
            &format!(r#""output_index":0,"item":{message}"#),
        ),
        (
            "response.function_call_arguments.delta",
            &format!(r#"{of_call},"delta":"{{}}""#),
        ),
        (
            "response.function_call_arguments.done",
            &format!(r#"{of_call},"arguments":"{{}}""#),
        ),
        (
            "response.output_item.done",
            &format!(r#""output_index":1,"item":{call}"#),
        ),
        ("response.completed", &done),
    ])
}

#[test]
fn responses_streams_are_told_from_what_only_resembles_them() {
    let begun = lifecycle("in_progress", "", "null");
    let good = message_and_call();
    each_is_noticed(
        Protocol::Responses,
        &good,
        &[
            (r#""sequence_number":3"#, r#""sequence_number":4"#),
            (r#""id":"resp_1""#, r#""id":"resp_2""#),
            (r#""delta":"y""#, r#""delta":"z""#),
            (r#""delta":"x","logprobs":[]"#, r#""delta":"x""#),
            (r#""annotation_index":0"#, r#""annotation_index":1"#),
            (r#""item":{"id":"fc_1""#, r#""item":{"id":"msg_1""#),
            (
                r#""output_index":1,"item":{"id":"fc_1","type":"function_call"}"#,
                r#""output_index":2,"item":{"id":"fc_1","type":"function_call"}"#,
            ),
            (r#""delta":"{}""#, r#""delta":"{""#),
            (
                r#""item_id":"fc_1","output_index":1,"delta""#,
                r#""output_index":1,"delta""#,
            ),
            ("event: response.created", "event: response.creating"),
            (r#""cached_tokens":0"#, ""),
            (r#""status":"completed""#, r#""status":"in_progress""#),
        ],
    );
    let mut failure = lifecycle("failed", "", "null");
    failure = failure.replace(
        r#""error":null"#,
        r#""error":{"code":"server_error","message":"x"}"#,
    );
    let failed = responses(&[
        ("response.created", &begun),
        ("response.in_progress", &begun),
        (
            "error",
            r#""code":"server_error","message":"x","param":null"#,
        ),
        ("response.failed", &failure),
    ]);
    assert_eq!(of(Protocol::Responses, &failed), Ok(()));
}

fn reply(protocol: Protocol, flags: u8) -> Reply {
    let has = |bit: u8| flags & (1 << bit) != 0;
    Reply {
        protocol,
        upstream: Protocol::Chat,
        id: "0123456789abcdefghijklmn".to_owned(),
        model: "alias".to_owned(),
        upstream_model: "model".to_owned(),
        account: "account".to_owned(),
        created: 1_700_000_000,
        include_usage: has(0),
        show_reasoning: has(1),
        encrypted_reasoning: has(2),
        legacy_functions: false,
        custom_tools: has(3),
        array: has(4) && protocol == Protocol::Gemini,
        chat_reasoning: if has(5) {
            ChatReasoning::Details
        } else {
            ChatReasoning::Content
        },
        reasoning_as_content: has(6),
        input_estimate: u64::from(flags),
        echo: String::new(),
    }
}

#[test]
fn calls_that_come_side_by_side_are_written_as_each_client_wants_them() {
    let of = |id: &'static str| PartKind::Call {
        id: Str::new(id),
        name: Str::new("f"),
        namespace: None,
        custom: false,
    };
    let more = |part, piece: &'static str| Delta::Arguments {
        choice: 0,
        part,
        piece: Str::new(piece),
    };
    for protocol in [
        Protocol::Chat,
        Protocol::Responses,
        Protocol::Messages,
        Protocol::Gemini,
    ] {
        let mut order = Order::default();
        let mut frames = Frames::new(protocol);
        let mut encoder = StreamEncoder::new(reply(protocol, 0));
        let mut out = BytesMut::new();
        for delta in [
            start(),
            begin(0, 0, of("a")),
            begin(0, 1, of("b")),
            more(0, "{\"x\":"),
            more(1, "{"),
            begin(0, 2, PartKind::Text),
            text(0, 2),
            more(0, "1}"),
            more(1, "}"),
            end(0, 1),
            end(0, 0),
            end(0, 2),
            finish(0),
            Delta::End,
        ] {
            assert_eq!(order.check(&delta), Ok(()));
            encoder.delta(delta, &mut out);
        }
        let verdict = frames.push(&out).and_then(|()| frames.finish());
        let text = String::from_utf8_lossy(&out).into_owned();
        assert_eq!(verdict, Ok(()), "{text}");
    }
}

proptest! {
    #[test]
    fn every_encoder_writes_what_its_clients_can_read(
        response in any_response(), which in 0_usize..4, flags in any::<u8>(), fails in any::<bool>(),
    ) {
        let protocol = [Protocol::Chat, Protocol::Responses, Protocol::Messages, Protocol::Gemini][which];
        let mut response = response;
        if protocol == Protocol::Responses || protocol == Protocol::Messages {
            response.choices.truncate(1);
        }
        if response.choices.is_empty() {
            response.choices.push(Choice { finish: Some(Finish::Stop), ..Choice::default() });
        }
        let reply = reply(protocol, flags);
        let mut frames = if reply.array { Frames::array() } else { Frames::new(protocol) };
        let mut encoder = StreamEncoder::new(reply);
        let mut out = BytesMut::new();
        replay(&response, &mut |delta| {
            let error = fails && matches!(delta, Delta::Finish { .. });
            encoder.delta(if error { failure() } else { delta }, &mut out);
        });
        let text = String::from_utf8_lossy(&out).into_owned();
        let verdict = frames.push(&out).and_then(|()| frames.finish());
        prop_assert_eq!(verdict, Ok(()), "{} of {:?}", text, response);
    }
}

fn failure() -> Delta<'static> {
    Delta::Error {
        class: ErrorClass::UpstreamFailed,
        message: "gone".to_owned(),
        code: None,
    }
}
