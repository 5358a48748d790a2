//! What providers send, and what clients read.

use bytes::BytesMut;
use proptest::prelude::*;

use super::{Decoder, Encoder};
use crate::protocol::Protocol;
use crate::protocol::collect::Collector;
use crate::protocol::error::ErrorClass;
use crate::protocol::ir::{
    Annotation, Delta, Finish, Hosted, HostedKind, Opaque, OpaqueKind, PartKind, Response,
    SearchHit,
};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::messages::response::tests::reply;
use crate::protocol::messages::response::{decode, encode};
use crate::protocol::sse;
use crate::protocol::usage::Tokens;

/// A delta in one line.
fn line(delta: &Delta<'_>) -> String {
    match delta {
        Delta::Start { id, model } => format!("start {id:?} {model:?}"),
        Delta::PartStart { part, kind, .. } => match kind {
            PartKind::Call { id, name, .. } => {
                format!("{part}: call {} {}", id.plain(), name.plain())
            }
            PartKind::Hosted(hosted) => format!(
                "{part}: hosted {:?} {} {:?} {:?} {:?}",
                hosted.kind,
                hosted.id.plain(),
                hosted.input.as_ref().map(Raw::as_str),
                hosted
                    .sources
                    .iter()
                    .map(|s| s.url.to_plain_string())
                    .collect::<Vec<_>>(),
                hosted.output,
            ),
            other => format!("{part}: {other:?}"),
        },
        Delta::Text { part, text, .. } => format!("{part}: {text:?}"),
        Delta::Arguments { part, piece, .. } => format!("{part}: args {piece:?}"),
        Delta::ArgumentsWhole { part, value, .. } => format!("{part}: whole {}", value.as_str()),
        Delta::Opaque { part, opaque, .. } => {
            format!("{part}: {:?} {}", opaque.kind, opaque.data.plain())
        }
        Delta::Annotation {
            part, annotation, ..
        } => format!("{part}: cites {:?} {:?}", annotation.url, annotation.span),
        Delta::PartEnd { part, .. } => format!("{part}: end"),
        Delta::Usage { tokens, .. } => format!(
            "usage {:?} {:?}",
            tokens.input.unwrap_or_default(),
            tokens.output.unwrap_or_default()
        ),
        Delta::Finish { finish, .. } => format!("finish {finish:?}"),
        Delta::Error { class, code, .. } => format!("error {class:?} {code:?}"),
        other => format!("{other:?}"),
    }
}

fn read(events: &[&str]) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut lines = Vec::new();
    for event in events {
        decoder.event(None, event.as_bytes(), &mut |delta| {
            lines.push(line(&delta))
        });
    }
    decoder.finish(&mut |delta| lines.push(line(&delta)));
    lines
}

const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[],"stop_reason":null,"usage":{"input_tokens":10,"output_tokens":1}}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

fn block(index: usize, start: &str, deltas: &[&str]) -> Vec<String> {
    let mut events = vec![format!(
        r#"{{"type":"content_block_start","index":{index},"content_block":{start}}}"#
    )];
    for delta in deltas {
        events.push(format!(
            r#"{{"type":"content_block_delta","index":{index},"delta":{delta}}}"#
        ));
    }
    events.push(format!(
        r#"{{"type":"content_block_stop","index":{index}}}"#
    ));
    events
}

fn message(blocks: &[Vec<String>], reason: &str) -> Vec<String> {
    let mut events = vec![START.to_owned()];
    events.extend(blocks.iter().flatten().cloned());
    events.push(format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}","stop_sequence":null}},"usage":{{"output_tokens":7}}}}"#
    ));
    events.push(STOP.to_owned());
    events
}

fn read_message(blocks: &[Vec<String>], reason: &str) -> Vec<String> {
    let events = message(blocks, reason);
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let lines = read(&events);
    assert_eq!(
        lines.first().unwrap(),
        r#"start Some("msg_1") Some("claude-x")"#
    );
    assert_eq!(lines.last().unwrap(), "End");
    lines
        .into_iter()
        .filter(|line| !line.starts_with("start") && !line.starts_with("usage") && line != "End")
        .collect()
}

#[test]
fn thinking_text_and_a_call_are_read_in_their_order() {
    let lines = read_message(
        &[
            block(
                0,
                r#"{"type":"thinking","thinking":"","signature":""}"#,
                &[
                    r#"{"type":"thinking_delta","thinking":"Hm\n"}"#,
                    r#"{"type":"signature_delta","signature":"AB"}"#,
                    r#"{"type":"signature_delta","signature":"CD="}"#,
                ],
            ),
            block(
                1,
                r#"{"type":"text","text":""}"#,
                &[
                    r#"{"type":"text_delta","text":"Hel"}"#,
                    r#"{"type":"text_delta","text":"lo"}"#,
                ],
            ),
            block(
                2,
                r#"{"type":"tool_use","id":"toolu_1","name":"f","input":{}}"#,
                &[
                    r#"{"type":"input_json_delta","partial_json":""}"#,
                    r#"{"type":"input_json_delta","partial_json":"{\"a\":"}"#,
                    r#"{"type":"input_json_delta","partial_json":"1}"}"#,
                ],
            ),
        ],
        "tool_use",
    );
    assert_eq!(
        lines,
        [
            "0: Reasoning",
            "0: \"Hm\\n\"",
            "0: AnthropicSignature ABCD=",
            "0: end",
            "1: Text",
            "1: \"Hel\"",
            "1: \"lo\"",
            "1: end",
            "2: call toolu_1 f",
            "2: args \"{\\\"a\\\":\"",
            "2: args \"1}\"",
            "2: end",
            "finish ToolUse",
        ]
    );
}

#[test]
fn a_call_without_arguments_has_none_and_one_that_comes_whole_has_all() {
    let lines = read_message(
        &[
            block(
                0,
                r#"{"type":"tool_use","id":"a","name":"f","input":{}}"#,
                &[r#"{"type":"input_json_delta","partial_json":""}"#],
            ),
            block(
                1,
                r#"{"type":"tool_use","id":"b","name":"g","input":{"n":12345678901234567890}}"#,
                &[],
            ),
        ],
        "end_turn",
    );
    assert_eq!(
        lines,
        [
            "0: call a f",
            "0: end",
            "1: call b g",
            r#"1: whole {"n":12345678901234567890}"#,
            "1: end",
            "finish ToolUse",
        ]
    );
}

#[test]
fn redacted_thinking_is_a_blob_and_nothing_else() {
    let redacted = block(0, r#"{"type":"redacted_thinking","data":"XYZ="}"#, &[]);
    assert_eq!(
        read_message(&[redacted], "end_turn"),
        [
            "0: Reasoning",
            "0: AnthropicRedacted XYZ=",
            "0: end",
            "finish Stop"
        ]
    );
}

#[test]
fn text_cut_up_by_citations_is_one_text_with_their_places_in_it() {
    let cited = r#"{"type":"citations_delta","citation":{"type":"web_search_result_location","url":"https://a.example","title":"A","cited_text":"c","encrypted_index":"e"}}"#;
    let lines = read_message(
        &[
            block(
                0,
                r#"{"type":"text","text":""}"#,
                &[r#"{"type":"text_delta","text":"é\ud83d\ude42 "}"#],
            ),
            block(
                1,
                r#"{"type":"text","text":"","citations":[]}"#,
                &[cited, r#"{"type":"text_delta","text":"so"}"#],
            ),
            block(2, r#"{"type":"text","text":"."}"#, &[]),
        ],
        "end_turn",
    );
    assert_eq!(
        lines,
        [
            "0: Text",
            "0: \"é🙂 \"",
            "0: \"so\"",
            "0: cites \"https://a.example\" Some((3, 5))",
            "0: \".\"",
            "0: end",
            "finish Stop",
        ]
    );
}

#[test]
fn a_search_and_its_result_are_one_part_between_the_texts() {
    let lines = read_message(
        &[
            block(0, r#"{"type":"text","text":"a"}"#, &[]),
            block(
                1,
                r#"{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}"#,
                &[
                    r#"{"type":"input_json_delta","partial_json":"{\"query\":"}"#,
                    r#"{"type":"input_json_delta","partial_json":"\"x\"}"}"#,
                ],
            ),
            block(
                2,
                r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[{"type":"web_search_result","url":"https://a.example","title":"A","encrypted_content":"E"}]}"#,
                &[],
            ),
            block(
                3,
                r#"{"type":"server_tool_use","id":"srvtoolu_2","name":"bash_code_execution","input":{"command":"ls"}}"#,
                &[],
            ),
            block(4, r#"{"type":"text","text":"b"}"#, &[]),
        ],
        "pause_turn",
    );
    assert_eq!(
        lines,
        [
            "0: Text",
            "0: \"a\"",
            "0: end",
            r#"1: hosted WebSearch srvtoolu_1 Some("{\"query\":\"x\"}") ["https://a.example"] None"#,
            "1: end",
            "2: Text",
            "2: \"b\"",
            "2: end",
            r#"3: hosted Code srvtoolu_2 Some("{\"command\":\"ls\"}") [] None"#,
            "3: end",
            "finish Pause",
        ]
    );
}

#[test]
fn what_is_unknown_is_passed_over_without_shifting_the_parts() {
    let lines = read_message(
        &[
            block(
                0,
                r#"{"type":"hologram","x":1}"#,
                &[r#"{"type":"hologram_delta","x":2}"#],
            ),
            block(
                1,
                r#"{"type":"text","text":""}"#,
                &[
                    r#"{"type":"nonsense"}"#,
                    r#"{"type":"text_delta","text":"a"}"#,
                ],
            ),
        ],
        "end_turn",
    );
    assert_eq!(lines, ["0: Text", "0: \"a\"", "0: end", "finish Stop"]);
}

#[test]
fn a_second_message_start_says_nothing_new() {
    let lines = read(&[START, START, r#"{"type":"ping"}"#, STOP]);
    assert_eq!(
        lines,
        [
            r#"start Some("msg_1") Some("claude-x")"#,
            "usage 10 1",
            "Ping",
            "finish Stop",
            "End",
        ]
    );
}

#[test]
fn input_that_is_only_told_at_the_end_is_read_there() {
    let start = r#"{"type":"message_start","message":{"id":"m","usage":{"input_tokens":0,"output_tokens":0}}}"#;
    let delta = r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"input_tokens":33,"output_tokens":4}}"#;
    let lines = read(&[start, delta]);
    assert_eq!(lines[2..], ["usage 33 4", "finish Length", "End"]);
}

#[test]
fn a_stream_that_breaks_off_is_an_error_unless_its_end_was_told() {
    let lines = read(&[START]);
    assert_eq!(
        lines.last().unwrap(),
        r#"error UpstreamFailed Some("upstream_truncated")"#
    );
    assert!(lines[0].starts_with("start"));
    let lines = read(&[]);
    assert_eq!(lines.len(), 2);
}

#[test]
fn an_error_event_ends_the_stream() {
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let text =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
    let lines = read(&[START, text, error, text, STOP]);
    assert_eq!(lines[2..], ["0: Text", "0: \"a\"", "error Overloaded None"]);
}

#[test]
fn a_refusal_says_what_for() {
    let delta = r#"{"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":{"type":"refusal","category":"cyber","explanation":"No."}},"usage":{"output_tokens":1}}"#;
    let lines = read(&[START, delta, STOP]);
    assert_eq!(
        lines[3],
        r#"finish ContentFilter { category: Some("cyber"), text: Some("No.") }"#
    );
}

#[test]
fn blocks_that_are_never_closed_or_never_opened_are_read_all_the_same() {
    let lines = read(&[
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","name":"f"}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":"b"}}"#,
        r#"{"type":"message_stop"}"#,
    ]);
    assert_eq!(
        lines[0..4],
        ["start None None", "0: Text", "0: \"a\"", "0: end"]
    );
    assert!(lines[4].starts_with("1: call call_"), "{}", lines[4]);
    assert_eq!(
        lines[5..],
        [
            "1: args \"{}\"",
            "1: end",
            "2: Text",
            "2: \"b\"",
            "2: end",
            "finish ToolUse",
            "End"
        ]
    );
}

#[test]
fn what_is_held_back_is_limited() {
    let mut decoder = Decoder::default();
    let mut last = String::new();
    let mut see = |delta: Delta<'_>| last = line(&delta);
    decoder.event(None, START.as_bytes(), &mut see);
    let open = block(0, r#"{"type":"thinking","thinking":""}"#, &[]);
    decoder.event(None, open[0].as_bytes(), &mut see);
    let piece = "A".repeat(1 << 20);
    let delta = format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"signature_delta","signature":"{piece}"}}}}"#
    );
    for _ in 0..20 {
        decoder.event(None, delta.as_bytes(), &mut see);
    }
    assert!(last.starts_with("error UpstreamFailed"), "{last}");
}

/// Whether deltas come in the order that is promised.
fn check(deltas: &[String], parts: &mut Vec<bool>) -> Result<(), String> {
    if !deltas
        .first()
        .is_some_and(|first| first.starts_with("start"))
    {
        return Err(format!("{:?} is first", deltas.first()));
    }
    let mut finished = false;
    for (at, delta) in deltas.iter().enumerate().skip(1) {
        if delta.starts_with("start") {
            return Err("a second start".into());
        }
        let terminal = delta == "End" || delta.starts_with("error");
        if terminal != (at + 1 == deltas.len()) {
            return Err(format!("{delta} at {at} of {}", deltas.len()));
        }
        if delta.starts_with("finish") {
            finished = true;
            if parts.iter().any(|open| *open) {
                return Err("a part is open at the finish".into());
            }
        }
        let Some((number, what)) = delta.split_once(": ") else {
            continue;
        };
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        if finished {
            return Err("a part after the finish".into());
        }
        let begins = ["Text", "Reasoning", "call ", "hosted "]
            .iter()
            .any(|k| what.starts_with(k));
        if begins {
            if number != parts.len() {
                return Err(format!("part {number} follows {}", parts.len()));
            }
            parts.push(true);
        } else if parts.get(number) != Some(&true) {
            return Err(format!("{delta}: not open"));
        } else if what == "end" {
            parts[number] = false;
        }
    }
    Ok(())
}

fn some_event() -> impl Strategy<Value = String> {
    let starts = prop_oneof![
        Just(r#"{"type":"text","text":""}"#),
        Just(r#"{"type":"text","text":"x","citations":[{"type":"a","url":"u"}]}"#),
        Just(r#"{"type":"thinking","thinking":"t","signature":"s"}"#),
        Just(r#"{"type":"redacted_thinking","data":"d"}"#),
        Just(r#"{"type":"tool_use","id":"i","name":"n","input":{"a":1}}"#),
        Just(r#"{"type":"tool_use"}"#),
        Just(r#"{"type":"server_tool_use","id":"s","name":"web_search","input":{}}"#),
        Just(r#"{"type":"web_search_tool_result","tool_use_id":"s","content":[]}"#),
        Just(r#"{"type":"web_search_tool_result","content":{"type":"x_error"}}"#),
        Just(r#"{"type":"odd"}"#),
        Just("null"),
    ];
    let deltas = prop_oneof![
        Just(r#"{"type":"text_delta","text":"a\n"}"#),
        Just(r#"{"type":"thinking_delta","thinking":"b"}"#),
        Just(r#"{"type":"signature_delta","signature":"c"}"#),
        Just(r#"{"type":"input_json_delta","partial_json":"{\"a\""}"#),
        Just(r#"{"type":"input_json_delta","partial_json":{"a":1}}"#),
        Just(r#"{"type":"citations_delta","citation":{"url":"u","cited_text":"x"}}"#),
        Just(r#"{"type":7}"#),
        Just("[]"),
    ];
    let index = prop_oneof![
        Just(String::new()),
        (0_u8..3).prop_map(|n| format!(r#""index":{n},"#))
    ];
    prop_oneof![
        (index.clone(), starts).prop_map(|(index, block)| format!(
            r#"{{"type":"content_block_start",{index}"content_block":{block}}}"#
        )),
        (index.clone(), deltas).prop_map(|(index, delta)| format!(
            r#"{{"type":"content_block_delta",{index}"delta":{delta}}}"#
        )),
        index.prop_map(|index| format!(r#"{{{index}"type":"content_block_stop"}}"#)),
        Just(START.to_owned()),
        Just(r#"{"type":"ping"}"#.to_owned()),
        Just(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":3}}"#.to_owned()),
        Just(r#"{"type":"message_delta","usage":null}"#.to_owned()),
        "\\PC{0,20}",
    ]
}

fn mutated() -> impl Strategy<Value = String> {
    (
        some_event(),
        any::<prop::sample::Index>(),
        "[\\[\\]{}\":,a0]{0,2}",
        0_u8..6,
    )
        .prop_map(|(mut event, at, text, how)| {
            let at = at.index(event.len() + 1);
            if how == 0 && event.is_char_boundary(at) {
                event.insert_str(at, &text);
            }
            event
        })
}

proptest! {
    #[test]
    fn whatever_comes_the_deltas_keep_their_order_and_the_client_gets_a_stream(
        events in proptest::collection::vec(mutated(), 0..30),
        stop in any::<bool>(),
    ) {
        let mut decoder = Decoder::default();
        let mut encoder = Encoder::new(reply());
        let mut out = BytesMut::new();
        let mut lines = Vec::new();
        let mut see = |delta: Delta<'_>| {
            lines.push(line(&delta));
            encoder.delta(delta, &mut out);
        };
        for event in &events {
            decoder.event(None, event.as_bytes(), &mut see);
        }
        if stop {
            decoder.event(Some("message_stop"), STOP.as_bytes(), &mut see);
        }
        decoder.finish(&mut see);
        let mut parts = Vec::new();
        prop_assert_eq!(check(&lines, &mut parts), Ok(()), "{:#?}", lines);
        prop_assert_eq!(grammar(&out), Ok(()), "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn arguments_come_through_whatever_their_pieces(
        text in "\\PC{0,30}",
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let arguments = serde_json::json!({"text": text, "n": [1, null]}).to_string();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(arguments.len())).collect();
        cuts.retain(|cut| arguments.is_char_boundary(*cut));
        cuts.extend([0, arguments.len()]);
        cuts.sort_unstable();
        let pieces: Vec<String> = cuts
            .windows(2)
            .map(|pair| {
                let piece = serde_json::to_string(&arguments[pair[0]..pair[1]]).unwrap();
                format!(r#"{{"type":"input_json_delta","partial_json":{piece}}}"#)
            })
            .collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let events = message(&[block(0, r#"{"type":"tool_use","id":"a","name":"f","input":{}}"#, &pieces)], "tool_use");
        let mut decoder = Decoder::default();
        let mut encoder = Encoder::new(reply());
        let mut out = BytesMut::new();
        for event in &events {
            decoder.event(None, event.as_bytes(), &mut |delta| encoder.delta(delta, &mut out));
        }
        let mut whole = String::new();
        for (_, event) in frames(&out) {
            whole.push_str(event["delta"]["partial_json"].as_str().unwrap_or_default());
        }
        prop_assert_eq!(whole, arguments);
    }
}

/// The events in which a provider would stream that message.
fn streamed(message: &serde_json::Value) -> Vec<String> {
    let mut events = vec![START.to_owned()];
    for (index, whole) in message["content"].as_array().unwrap().iter().enumerate() {
        let mut start = whole.clone();
        let mut deltas = Vec::new();
        let mut say = |kind: &str, field: &str, value: &serde_json::Value| {
            deltas.push(serde_json::json!({"type": kind, field: value}).to_string());
        };
        match whole["type"].as_str().unwrap() {
            "text" => {
                start["text"] = "".into();
                for citation in whole["citations"].as_array().into_iter().flatten() {
                    say("citations_delta", "citation", citation);
                }
                say("text_delta", "text", &whole["text"]);
            }
            "thinking" => {
                start["thinking"] = "".into();
                start["signature"] = "".into();
                say("thinking_delta", "thinking", &whole["thinking"]);
                say("signature_delta", "signature", &whole["signature"]);
            }
            "tool_use" | "server_tool_use" => {
                start["input"] = serde_json::json!({});
                let input = whole["input"].to_string();
                let (head, tail) = input.split_at(1);
                say("input_json_delta", "partial_json", &head.into());
                say("input_json_delta", "partial_json", &tail.into());
            }
            _ => {}
        }
        let deltas: Vec<&str> = deltas.iter().map(String::as_str).collect();
        start.as_object_mut().unwrap().remove("citations");
        events.extend(block(index, &start.to_string(), &deltas));
    }
    events.push(
        serde_json::json!({"type": "message_delta", "usage": message["usage"],
            "delta": {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}})
        .to_string(),
    );
    events.push(STOP.to_owned());
    events
}

fn some_block() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::json;
    prop_oneof![
        "\\PC{1,12}".prop_map(|text| json!({"type": "text", "text": text})),
        Just(json!({"type": "text", "text": "é🙂", "citations": [
            {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "cited_text": "c", "encrypted_index": ""}]})),
        "\\PC{1,12}"
            .prop_map(|text| json!({"type": "thinking", "thinking": text, "signature": "AB="})),
        Just(json!({"type": "redacted_thinking", "data": "CD="})),
        Just(
            json!({"type": "tool_use", "id": "t", "name": "f", "input": {"z": 1, "a": [null, 1.50]}})
        ),
        Just(json!({"type": "tool_use", "id": "u", "name": "f", "input": {}})),
    ]
}

/// A block, or a search and its result.
fn some_blocks() -> impl Strategy<Value = Vec<serde_json::Value>> {
    use serde_json::json;
    let searched = vec![
        json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}),
        json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": [
            {"type": "web_search_result", "url": "https://b.example", "title": "B", "encrypted_content": "E"}]}),
    ];
    prop_oneof![some_block().prop_map(|block| vec![block]), Just(searched)]
}

proptest! {
    #[test]
    fn a_stream_put_together_is_the_whole_answer(
        content in proptest::collection::vec(some_blocks(), 0..8),
        reason in prop_oneof![Just("end_turn"), Just("tool_use"), Just("max_tokens"), Just("stop_sequence"), Just("refusal"), Just("pause_turn")],
    ) {
        let content = content.concat();
        let message = serde_json::json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
            "content": content, "stop_reason": reason, "stop_sequence": (reason == "stop_sequence").then_some("END"),
            "usage": {"input_tokens": 10, "output_tokens": 7, "cache_read_input_tokens": 3}});
        let text = message.to_string();
        let mut tape = Tape::new();
        let whole = decode(tape.parse(&text).unwrap()).unwrap();
        let mut decoder = Decoder::default();
        let mut collector = Collector::new(1 << 20);
        for event in streamed(&message) {
            decoder.event(None, event.as_bytes(), &mut |delta| collector.delta(delta));
        }
        let written = |response: &Response<'_>| {
            let mut out = BytesMut::new();
            encode(response, &reply(), &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        prop_assert_eq!(written(&collector.finish()), written(&whole));
    }
}

fn frames(out: &[u8]) -> Vec<(String, serde_json::Value)> {
    let mut frames = Vec::new();
    let mut decoder = sse::Decoder::new();
    let mut see = |event: sse::Event<'_>| {
        let data = serde_json::from_slice(event.data).unwrap();
        frames.push((event.name.unwrap_or_default().to_owned(), data));
    };
    decoder.push(out, &mut see).unwrap();
    decoder.finish(&mut see);
    frames
}

/// Whether a client would read that: one message, its blocks one after the other.
fn grammar(out: &[u8]) -> Result<(), String> {
    let frames = frames(out);
    let (mut index, mut open, mut begun, mut ended) = (0, false, false, false);
    for (name, event) in &frames {
        if event["type"].as_str() != Some(name) {
            return Err(format!("{name} is called {}", event["type"]));
        }
        if ended {
            return Err(format!("{name} after the end"));
        }
        if name.starts_with("content_block") && event["index"] != index {
            return Err(format!("{name} {} at {index}", event["index"]));
        }
        let legal = match name.as_str() {
            "message_start" => !std::mem::replace(&mut begun, true),
            "content_block_start" => begun && !std::mem::replace(&mut open, true),
            "content_block_delta" => open,
            "content_block_stop" => {
                index += 1;
                std::mem::replace(&mut open, false)
            }
            "message_delta" => begun && !open && event["usage"]["input_tokens"].is_u64(),
            "message_stop" => begun && std::mem::replace(&mut ended, true) != ended,
            "error" => std::mem::replace(&mut ended, true) != ended,
            _ => false,
        };
        if !legal {
            return Err(format!("{name} does not belong there"));
        }
    }
    if ended { Ok(()) } else { Err("no end".into()) }
}

fn write(deltas: Vec<Delta<'_>>) -> Vec<(String, serde_json::Value)> {
    let mut encoder = Encoder::new(reply());
    let mut out = BytesMut::new();
    for delta in deltas {
        encoder.delta(delta, &mut out);
    }
    assert_eq!(grammar(&out), Ok(()), "{}", String::from_utf8_lossy(&out));
    frames(&out)
}

/// The blocks as an SDK puts them together, and the last frame but one.
fn blocks(frames: &[(String, serde_json::Value)]) -> Vec<serde_json::Value> {
    let mut blocks = Vec::new();
    let mut json = String::new();
    for (name, event) in frames {
        let delta = &event["delta"];
        match name.as_str() {
            "content_block_start" => {
                json.clear();
                blocks.push(event["content_block"].clone());
            }
            "content_block_delta" => {
                let last = blocks.last_mut().unwrap();
                let add = |last: &mut serde_json::Value, field: &str| {
                    let text = format!(
                        "{}{}",
                        last[field].as_str().unwrap(),
                        delta[field].as_str().unwrap()
                    );
                    last[field] = text.into();
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => add(last, "text"),
                    "thinking_delta" => add(last, "thinking"),
                    "signature_delta" => {
                        assert_eq!(last["signature"], "", "a signature is assigned once");
                        last["signature"] = delta["signature"].clone();
                    }
                    "input_json_delta" => {
                        json.push_str(delta["partial_json"].as_str().unwrap());
                        if let Ok(value) = serde_json::from_str(&json) {
                            last["input"] = value;
                        }
                    }
                    "citations_delta" => last["citations"] = serde_json::json!([delta["citation"]]),
                    other => panic!("{other}"),
                }
            }
            _ => {}
        }
    }
    blocks
}

fn start(part: usize, kind: PartKind<'static>) -> Delta<'static> {
    Delta::PartStart {
        choice: 0,
        part,
        kind,
    }
}

fn call(id: &'static str) -> PartKind<'static> {
    PartKind::Call {
        id: Str::new(id),
        name: Str::new("f"),
        namespace: None,
        custom: false,
    }
}

fn text(part: usize, text: &'static str) -> Delta<'static> {
    Delta::Text {
        choice: 0,
        part,
        text: Str::new(text),
    }
}

fn args(part: usize, piece: &'static str) -> Delta<'static> {
    Delta::Arguments {
        choice: 0,
        part,
        piece: Str::new(piece),
    }
}

const fn end(part: usize) -> Delta<'static> {
    Delta::PartEnd { choice: 0, part }
}

fn opaque(part: usize, kind: OpaqueKind, data: &'static str) -> Delta<'static> {
    Delta::Opaque {
        choice: 0,
        part,
        opaque: Opaque {
            kind,
            data: Str::new(data),
            model: None,
            account: None,
        },
    }
}

const fn finish(finish: Finish) -> Delta<'static> {
    Delta::Finish { choice: 0, finish }
}

fn begin() -> Delta<'static> {
    Delta::Start {
        id: None,
        model: None,
    }
}

#[test]
fn nothing_is_written_before_there_is_something_to_show() {
    let mut encoder = Encoder::new(reply());
    let mut out = BytesMut::new();
    for delta in [begin(), Delta::Ping, start(0, PartKind::Text), text(0, "")] {
        encoder.delta(delta, &mut out);
        assert!(out.is_empty());
    }
    encoder.delta(text(0, "a"), &mut out);
    assert!(out.starts_with(b"event: message_start\ndata: {\"type\":\"message_start\""));
}

#[test]
fn the_start_says_about_how_much_was_read_and_the_end_how_much() {
    let expecting = crate::protocol::translate::Reply {
        input_estimate: 90,
        ..reply()
    };
    let said = |reported: Option<u64>| {
        let mut encoder = Encoder::new(expecting.clone());
        let mut out = BytesMut::new();
        encoder.delta(start(0, PartKind::Text), &mut out);
        encoder.delta(text(0, "a"), &mut out);
        let tokens = Tokens {
            input: reported,
            cache_read: reported,
            output: Some(1),
            ..Tokens::default()
        };
        let usage = Delta::Usage {
            tokens,
            web_searches: None,
        };
        encoder.delta(usage, &mut out);
        encoder.delta(Delta::End, &mut out);
        let frames = frames(&out);
        let at = |frame: usize, path: &str| frames[frame].1.pointer(path).unwrap().clone();
        (
            at(0, "/message/usage/input_tokens"),
            at(frames.len() - 2, "/usage/input_tokens"),
        )
    };
    assert_eq!(said(Some(70)), (90.into(), 70.into()));
    assert_eq!(said(None), (90.into(), 90.into()));
}

#[test]
fn parallel_calls_that_interleave_come_one_after_the_other() {
    let frames = write(vec![
        begin(),
        start(0, call("a")),
        args(0, "{\"x\""),
        start(1, call("b")),
        start(2, call("c")),
        args(1, "{\"y\":"),
        args(0, ":1}"),
        args(1, "2}"),
        end(1),
        end(0),
        end(2),
        finish(Finish::Stop),
        Delta::End,
    ]);
    let blocks = blocks(&frames);
    assert_eq!(blocks[0]["input"], serde_json::json!({"x": 1}));
    assert_eq!(blocks[1]["input"], serde_json::json!({"y": 2}));
    assert_eq!(blocks[2]["input"], serde_json::json!({}));
    let ids: Vec<_> = blocks
        .iter()
        .map(|block| block["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["a", "b", "c"]);
    let (_, last) = &frames[frames.len() - 2];
    assert_eq!(last["delta"]["stop_reason"], "tool_use");
}

#[test]
fn reasoning_has_one_signature_and_it_is_never_empty() {
    let frames = write(vec![
        begin(),
        start(0, PartKind::Reasoning),
        text(0, "a"),
        text(0, "b"),
        opaque(0, OpaqueKind::GeminiSignature, "c2ln"),
        end(0),
        start(1, PartKind::Reasoning),
        text(1, "c"),
        end(1),
        start(2, PartKind::Reasoning),
        opaque(2, OpaqueKind::OpenAiEncrypted, "gAAA"),
        end(2),
        start(3, PartKind::Reasoning),
        end(3),
        start(4, PartKind::Text),
        text(4, "d"),
        end(4),
        finish(Finish::Stop),
        Delta::End,
    ]);
    let blocks = blocks(&frames);
    let kinds: Vec<_> = blocks
        .iter()
        .map(|block| block["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["thinking", "thinking", "redacted_thinking", "text"]);
    assert_eq!(blocks[0]["thinking"], "ab");
    for (block, field) in [(0, "signature"), (1, "signature"), (2, "data")] {
        let blob = blocks[block][field].as_str().unwrap();
        assert!(blob.starts_with("UExYM"), "{blob}");
    }
    let signatures = frames
        .iter()
        .filter(|(_, e)| e["delta"]["type"] == "signature_delta");
    assert_eq!(signatures.count(), 2);
}

#[test]
fn summaries_are_paragraphs_of_one_block() {
    let summary = |index, text: &'static str| Delta::Summary {
        choice: 0,
        part: 0,
        index,
        text: Str::new(text),
    };
    let frames = write(vec![
        start(0, PartKind::Reasoning),
        summary(0, "a"),
        summary(0, "b"),
        summary(1, "c"),
        end(0),
        Delta::End,
    ]);
    assert_eq!(blocks(&frames)[0]["thinking"], "ab\n\nc");
}

#[test]
fn a_signature_on_a_call_goes_before_it() {
    let frames = write(vec![
        start(0, call("a")),
        opaque(0, OpaqueKind::GeminiSignature, "c2ln"),
        Delta::ArgumentsWhole {
            choice: 0,
            part: 0,
            value: Raw::parse("{\n \"b\": \"\\n\", \"a\": 1.50 }").unwrap(),
        },
        end(0),
        finish(Finish::ToolUse),
        Delta::End,
    ]);
    let kinds: Vec<_> = blocks(&frames)
        .iter()
        .map(|b| b["type"].to_string())
        .collect();
    assert_eq!(kinds, ["\"redacted_thinking\"", "\"tool_use\""]);
    let pieces: Vec<_> = frames
        .iter()
        .filter_map(|(_, event)| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(pieces, ["", r#"{"b":"\n","a":1.50}"#]);
}

#[test]
fn reasoning_that_is_not_to_be_shown_still_comes_home() {
    let hidden = crate::protocol::translate::Reply {
        show_reasoning: false,
        ..reply()
    };
    let mut encoder = Encoder::new(hidden);
    let mut out = BytesMut::new();
    for delta in [
        start(0, PartKind::Reasoning),
        text(0, "secret"),
        opaque(0, OpaqueKind::OpenAiEncrypted, "gAAA"),
        end(0),
        Delta::End,
    ] {
        encoder.delta(delta, &mut out);
    }
    let blocks = blocks(&frames(&out));
    assert_eq!(blocks[0]["type"], "redacted_thinking");
    assert!(!String::from_utf8_lossy(&out).contains("secret"));
}

#[test]
fn a_search_is_a_call_and_a_result_with_its_count_in_the_usage() {
    let hosted = Hosted {
        kind: HostedKind::WebSearch,
        id: Str::new("ws_1"),
        input: Some(Raw::parse(r#"{"query":"q"}"#).unwrap()),
        sources: vec![SearchHit {
            url: Str::new("https://a.example"),
            title: Some(Str::new("A")),
        }],
        output: None,
        failed: false,
        native: Vec::new(),
        origin: Protocol::Responses,
    };
    let frames = write(vec![
        start(0, PartKind::Hosted(hosted)),
        end(0),
        start(1, PartKind::Text),
        text(1, "so"),
        Delta::Annotation {
            choice: 0,
            part: 1,
            annotation: Annotation {
                url: Str::new("https://a.example"),
                title: None,
                cited: None,
                span: Some((0, 2)),
            },
        },
        end(1),
        Delta::Usage {
            tokens: Tokens {
                input: Some(120),
                cache_read: Some(3000),
                cache_write_short: Some(400),
                cache_write_long: Some(100),
                output: Some(650),
                reasoning: Some(250),
                ..Tokens::default()
            },
            web_searches: Some(1),
        },
        finish(Finish::StopSequence(Some("END".into()))),
        Delta::End,
    ]);
    let blocks = blocks(&frames);
    assert_eq!(blocks[0]["type"], "server_tool_use");
    assert_eq!(blocks[0]["input"], serde_json::json!({"query": "q"}));
    assert_eq!(blocks[1]["tool_use_id"], blocks[0]["id"]);
    assert_eq!(blocks[1]["content"][0]["url"], "https://a.example");
    assert_eq!(blocks[2]["citations"][0]["url"], "https://a.example");
    let (_, last) = &frames[frames.len() - 2];
    assert_eq!(
        *last,
        serde_json::json!({"type": "message_delta",
            "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"},
            "usage": {"input_tokens": 120, "cache_creation_input_tokens": 500, "cache_read_input_tokens": 3000,
                "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 100},
                "output_tokens": 900, "output_tokens_details": {"thinking_tokens": 250},
                "server_tool_use": {"web_search_requests": 1}}})
    );
}

#[test]
fn free_text_of_a_custom_call_is_the_input_of_an_object() {
    let custom = PartKind::Call {
        id: Str::new("a"),
        name: Str::new("patch"),
        namespace: None,
        custom: true,
    };
    let frames = write(vec![
        start(0, custom),
        text(0, "a \"b\"\n"),
        text(0, "\\c"),
        end(0),
        Delta::End,
    ]);
    assert_eq!(
        blocks(&frames)[0]["input"],
        serde_json::json!({"input": "a \"b\"\n\\c"})
    );
}

#[test]
fn a_failure_is_the_last_frame_and_names_its_type() {
    let frames = write(vec![
        begin(),
        Delta::Error {
            class: ErrorClass::Overloaded,
            message: "later".into(),
            code: None,
        },
        text(0, "a"),
        Delta::End,
    ]);
    let (name, last) = frames.last().unwrap();
    assert_eq!(name, "error");
    assert_eq!(last["error"]["type"], "overloaded_error");
    assert_eq!(last["request_id"], "req_0123456789abcdefghijklmn");
}

#[test]
fn parts_that_wait_too_long_end_the_stream() {
    let mut encoder = Encoder::new(reply());
    let mut out = BytesMut::new();
    encoder.delta(start(0, PartKind::Text), &mut out);
    encoder.delta(start(1, PartKind::Text), &mut out);
    let piece = "x".repeat(1 << 20);
    for _ in 0..20 {
        let delta = Delta::Text {
            choice: 0,
            part: 1,
            text: Str::new(&piece),
        };
        encoder.delta(delta, &mut out);
    }
    let frames = frames(&out);
    assert_eq!(frames.last().unwrap().0, "error");
}
