//! What providers stream, and what clients see of it.

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::{Value as Tree, json};

use super::{Decoder, Encoder};
use crate::protocol::Protocol;
use crate::protocol::collect::Collector;
use crate::protocol::envelope;
use crate::protocol::error::ErrorClass;
use crate::protocol::gemini::{request, response};
use crate::protocol::grammar::Order;
use crate::protocol::ir::{
    Annotation, Delta, Finish, Hosted, HostedKind, Opaque, OpaqueKind, Part, PartKind, SearchHit,
};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::notes::Notes;
use crate::protocol::translate::Reply;
use crate::protocol::usage::Tokens;

/// What a decoder says, one line a delta; that it keeps its promises is checked.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    order: Order,
}

impl Heard {
    fn hear(&mut self, delta: &Delta<'_>) {
        self.order.check(delta).unwrap();
        self.lines.push(line(delta));
    }
}

fn line(delta: &Delta<'_>) -> String {
    match delta {
        Delta::Start { id, model } => format!("start {id:?} {model:?}"),
        Delta::PartStart { choice, part, kind } => format!("{choice}.{part} {}", sort(kind)),
        Delta::Text { choice, part, text } => format!("{choice}.{part} {text:?}"),
        Delta::ArgumentsWhole {
            choice,
            part,
            value,
        } => format!("{choice}.{part} {}", value.as_str()),
        Delta::Opaque {
            choice,
            part,
            opaque,
        } => format!("{choice}.{part} signed {:?}", opaque.data),
        Delta::Annotation {
            choice,
            part,
            annotation,
        } => format!("{choice}.{part} {:?} {:?}", annotation.url, annotation.span),
        Delta::PartEnd { choice, part } => format!("{choice}.{part} end"),
        Delta::Finish { choice, finish } => format!("{choice} {finish:?}"),
        Delta::Error { class, code, .. } => format!("error {class:?} {code:?}"),
        Delta::End => "end".to_owned(),
        Delta::Usage {
            tokens,
            web_searches,
        } => format!(
            "usage {:?} {:?} {web_searches:?}",
            tokens.input, tokens.output
        ),
        Delta::Logprobs { choice, tokens } => format!("{choice} logprobs {}", tokens.len()),
        other => format!("{other:?}"),
    }
}

fn sort(kind: &PartKind<'_>) -> String {
    match kind {
        PartKind::Call { id, name, .. } => format!("call {name:?} {id:?}"),
        PartKind::Media(medium) => format!("media {:?}", medium.kind),
        PartKind::Hosted(hosted) => format!(
            "hosted {:?} {:?} {:?} {}",
            hosted.kind,
            hosted.input.as_ref().map(Raw::as_str),
            hosted.output,
            hosted.sources.len()
        ),
        other => format!("{other:?}"),
    }
}

fn heard(events: &[String]) -> Vec<String> {
    let mut heard = Heard::default();
    let mut decoder = Decoder::default();
    for event in events {
        decoder.event(None, event.as_bytes(), &mut |delta| heard.hear(&delta));
    }
    decoder.finish(&mut |delta| heard.hear(&delta));
    heard.order.finished().unwrap();
    heard.lines
}

/// Chunks of one candidate with these parts; the last one finishes so.
fn chunks(parts: &[Tree], finish: &str) -> Vec<String> {
    let last = parts.len() - 1;
    let chunk = |(index, parts): (usize, &Tree)| {
        let mut chunk = json!({"candidates": [{"content": {"role": "model", "parts": parts}}], "responseId": "r", "modelVersion": "m"});
        if index == last {
            chunk["candidates"][0]["finishReason"] = json!(finish);
        }
        chunk.to_string()
    };
    parts.iter().enumerate().map(chunk).collect()
}

#[test]
fn one_chunk_may_hold_everything() {
    let parts = json!([{"text": "hm", "thought": true}, {"text": "", "thought": true, "thoughtSignature": "czE="},
        {"text": "So:"}, {"text": "", "thoughtSignature": "czI="},
        {"functionCall": {"id": "i", "name": "f", "args": {"z": 1, "a": 12345678901234567890_u64}}, "thoughtSignature": "czM="},
        {"functionCall": {"name": "g"}}]);
    let lines = heard(&chunks(&[parts], "STOP"));
    let id = lines
        .iter()
        .find(|line| line.contains("call \"g\""))
        .unwrap();
    let id = id.split('"').nth(3).unwrap();
    assert!(id.starts_with("call_") && id.len() == 29, "{id}");
    assert_eq!(
        lines,
        [
            "start Some(\"r\") Some(\"m\")",
            "0.0 Reasoning",
            "0.0 \"hm\"",
            "0.0 signed \"czE=\"",
            "0.0 end",
            "0.1 Text",
            "0.1 \"So:\"",
            "0.1 signed \"czI=\"",
            "0.1 end",
            "0.2 call \"f\" \"i\"",
            "0.2 signed \"czM=\"",
            r#"0.2 {"z":1,"a":12345678901234567890}"#,
            "0.2 end",
            &format!("0.3 call \"g\" \"{id}\""),
            "0.3 {}",
            "0.3 end",
            "0 ToolUse",
            "end",
        ]
    );
}

#[test]
fn a_kind_that_changes_begins_a_part_and_the_same_kind_goes_on() {
    let events = chunks(
        &[
            json!([{"text": "a", "thought": true}]),
            json!([{"text": "b", "thought": true}]),
            json!([{"text": "c"}]),
            json!([{"text": ""}]),
            json!([]),
            json!({"text": "d"}),
            json!([{"text": "e", "thought": true}]),
            json!([{"thoughtSignature": "cw=="}]),
        ],
        "MAX_TOKENS",
    );
    let lines = heard(&events);
    let parts: Vec<_> = lines[1..].iter().map(String::as_str).collect();
    assert_eq!(
        parts,
        [
            "0.0 Reasoning",
            "0.0 \"a\"",
            "0.0 \"b\"",
            "0.0 end",
            "0.1 Text",
            "0.1 \"c\"",
            "0.1 \"d\"",
            "0.1 end",
            "0.2 Reasoning",
            "0.2 \"e\"",
            "0.2 signed \"cw==\"",
            "0.2 end",
            "0 Length",
            "end"
        ]
    );
}

#[test]
fn arguments_in_pieces_become_whole_when_no_more_comes() {
    let call = |call: Tree| json!([{"functionCall": call}]);
    let events = chunks(
        &[
            call(json!({"id": "i", "name": "f", "willContinue": true})),
            call(
                json!({"partialArgs": [{"jsonPath": "$.city", "stringValue": "Bos", "willContinue": true}], "willContinue": true}),
            ),
            call(
                json!({"partialArgs": [{"jsonPath": "$.city", "stringValue": "ton"}, {"jsonPath": "$.n[0]", "numberValue": 1.5}], "willContinue": true}),
            ),
            call(json!({})),
            json!([{"text": "x"}]),
            call(json!({"name": "g", "partialArgs": [{"jsonPath": "$.a", "boolValue": true}]})),
            call(json!({"name": "h", "willContinue": true})),
        ],
        "STOP",
    );
    let lines = heard(&events);
    let whole: Vec<_> = lines.iter().filter(|line| line.contains(" {")).collect();
    assert_eq!(
        whole,
        [
            r#"0.0 {"city":"Boston","n":[1.5]}"#,
            r#"0.2 {"a":true}"#,
            "0.3 {}"
        ]
    );
    assert!(lines.contains(&"0 ToolUse".to_owned()));
}

#[test]
fn code_and_its_outcome_come_together_across_chunks() {
    let events = chunks(
        &[
            json!([{"executableCode": {"language": "PYTHON", "code": "1"}}]),
            json!([{"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}}]),
            json!([{"executableCode": {"code": "3"}}, {"text": "t"}]),
            json!([{"toolCall": {"id": "x", "toolType": "GOOGLE_SEARCH_WEB", "args": {"q": 1}}}, {"toolResponse": {"id": "x"}}]),
            json!([{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]),
        ],
        "STOP",
    );
    let hosted: Vec<_> = heard(&events)
        .into_iter()
        .filter(|line| line.contains("hosted") || line.contains("media") || line.contains("Text"))
        .collect();
    assert_eq!(
        hosted,
        [
            r#"0.0 hosted Code Some("{\"code\":\"1\"}") Some("2") 0"#,
            r#"0.1 hosted Code Some("{\"code\":\"3\"}") None 0"#,
            "0.2 Text",
            r#"0.3 hosted WebSearch Some("{\"q\":1}") None 0"#,
            "0.4 media Image",
        ]
    );
}

#[test]
fn references_count_characters_and_the_search_is_told() {
    let mut events = chunks(
        &[json!([{"text": "é🙂 "}]), json!([{"text": "the\\n end"}])],
        "STOP",
    );
    let grounding = json!({"candidates": [{"groundingMetadata": {"webSearchQueries": ["q", "r"],
        "groundingChunks": [{"web": {"uri": "https://a", "title": "A"}}],
        "groundingSupports": [{"segment": {"startIndex": 7, "endIndex": 10}, "groundingChunkIndices": [0]}]}}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}});
    events.push(grounding.to_string());
    let lines = heard(&events);
    assert_eq!(
        lines[lines.len() - 8..],
        [
            "usage Some(3) Some(2) None",
            "0.0 \"https://a\" Some((3, 6))",
            "0.0 end",
            r#"0.1 hosted WebSearch Some("{\"query\":\"q\",\"queries\":[\"q\",\"r\"]}") None 1"#,
            "0.1 end",
            "0 Stop",
            "usage None None Some(2)",
            "end"
        ]
    );
}

#[test]
fn several_candidates_are_several_answers() {
    let chunk = |index: usize, text: &str, finish: &str| {
        json!({"candidates": [{"index": index, "content": {"parts": [{"text": text}]}, "finishReason": finish}]}).to_string()
    };
    // A server that says STOP in every chunk.
    let lines = heard(&[
        chunk(0, "a", "STOP"),
        chunk(1, "b", ""),
        chunk(0, "c", "STOP"),
        chunk(1, "d", "SAFETY"),
    ]);
    assert!(lines.contains(&"0.0 \"c\"".to_owned()) && lines.contains(&"1.0 \"d\"".to_owned()));
    assert!(lines.iter().any(|line| line.starts_with("1 ContentFilter")));
    let lines = heard(&[chunk(999, "a", "STOP")]);
    assert_eq!(
        lines.last().unwrap(),
        "error UpstreamFailed Some(\"upstream_truncated\")"
    );
}

#[test]
fn a_refused_prompt_is_an_answer_that_was_filtered() {
    let event = json!({"promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "no"}, "usageMetadata": {"promptTokenCount": 3}});
    assert_eq!(
        heard(&[event.to_string()]),
        [
            "start None None",
            "usage Some(3) None None",
            "0 ContentFilter { category: Some(\"SAFETY\"), text: Some(\"no\") }",
            "end"
        ]
    );
}

#[test]
fn chunks_without_output_say_nothing() {
    let mut events = vec![
        "{}".to_owned(),
        r#"{"candidates":[]}"#.to_owned(),
        String::new(),
        "[DONE]".to_owned(),
    ];
    events.extend(chunks(&[json!([{"text": "a"}])], "STOP"));
    events.push(r#"{"usageMetadata":{"promptTokenCount":1}}"#.to_owned());
    let lines = heard(&events);
    assert_eq!(lines.len(), 7, "{lines:?}");
}

#[test]
fn what_breaks_off_or_fails_is_an_error() {
    let text = || chunks(&[json!([{"text": "a"}])], "");
    let with = |event: &str| {
        let mut events = text();
        events.push(event.to_owned());
        heard(&events).pop().unwrap()
    };
    let truncated = "error UpstreamFailed Some(\"upstream_truncated\")";
    assert_eq!(heard(&text()).pop().unwrap(), truncated);
    assert_eq!(heard(&[]), [truncated]);
    assert!(
        with(r#"{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}"#)
            .starts_with("error Overloaded")
    );
    assert!(
        with(r#"[{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}}]"#)
            .starts_with("error RateLimited")
    );
    for word in [
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "MISSING_THOUGHT_SIGNATURE",
    ] {
        let event = json!({"candidates": [{"finishReason": word}]}).to_string();
        let wanted = "error UpstreamFailed Some(\"upstream_malformed_function_call\")";
        assert_eq!(with(&event), wanted);
        assert_eq!(heard(&[event]).pop().unwrap(), wanted);
    }
    assert!(with("no json").starts_with("error UpstreamFailed"));
    assert!(with("7").starts_with("error UpstreamFailed"));
    let go_on = with(r#"{"continuationToken":"t"}"#);
    assert_eq!(go_on, "end");
}

#[test]
fn an_array_may_come_whole_or_in_pieces() {
    let chunk = chunks(&[json!([{"text": "a"}]), json!([{"text": "b"}])], "STOP");
    let whole = heard(&[format!("[{},\r\n{}]", chunk[0], chunk[1])]);
    let pieces = heard(&[
        format!("[{}", chunk[0]),
        format!(",\r\n{}", chunk[1]),
        "]".to_owned(),
    ]);
    assert_eq!(whole, heard(&chunk));
    assert_eq!(whole, pieces);
}

fn reply() -> Reply {
    Reply {
        id: "0123456789ABCDEFGHIJKLMN".into(),
        model: "alias".into(),
        upstream_model: "claude".into(),
        account: "account".into(),
        include_usage: true,
        ..Reply::plain(Protocol::Gemini, Protocol::Messages)
    }
}

fn begin(part: usize, kind: PartKind<'static>) -> Delta<'static> {
    Delta::PartStart {
        choice: 0,
        part,
        kind,
    }
}

fn call(part: usize, name: &'static str) -> Delta<'static> {
    begin(
        part,
        PartKind::Call {
            id: Str::new("i"),
            name: Str::new(name),
            namespace: None,
            custom: false,
        },
    )
}

fn text(part: usize, text: &'static str) -> Delta<'static> {
    Delta::Text {
        choice: 0,
        part,
        text: Str::new(text),
    }
}

fn piece(part: usize, piece: &'static str) -> Delta<'static> {
    Delta::Arguments {
        choice: 0,
        part,
        piece: Str::new(piece),
    }
}

fn end(part: usize) -> Delta<'static> {
    Delta::PartEnd { choice: 0, part }
}

fn sealed(part: usize, kind: OpaqueKind) -> Delta<'static> {
    Delta::Opaque {
        choice: 0,
        part,
        opaque: Opaque {
            kind,
            data: Str::new("c2ln"),
            model: None,
            account: None,
        },
    }
}

fn finish(finish: Finish) -> Delta<'static> {
    Delta::Finish { choice: 0, finish }
}

fn written(reply: Reply, deltas: Vec<Delta<'_>>) -> String {
    let mut encoder = Encoder::new(reply);
    let mut out = BytesMut::new();
    for delta in deltas {
        encoder.delta(delta, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap()
}

/// The chunks of an event stream, which must be nothing but chunks.
fn frames(text: &str) -> Vec<Tree> {
    let frames = text.split_inclusive("\n\n");
    let chunk = |frame: &str| {
        let data = frame
            .strip_prefix("data: ")
            .unwrap()
            .strip_suffix("\n\n")
            .unwrap();
        assert!(!data.contains(['\n', '\r']), "{data}");
        serde_json::from_str(data).unwrap()
    };
    frames.map(chunk).collect()
}

/// All parts of all chunks.
fn parts(text: &str) -> Vec<Tree> {
    let mut out = Vec::new();
    for frame in frames(text) {
        let parts = frame["candidates"][0]["content"]["parts"]
            .as_array()
            .unwrap()
            .clone();
        out.extend(parts);
    }
    out
}

#[test]
fn a_stream_is_nothing_but_chunks_and_the_last_has_it_all() {
    let out = written(
        reply(),
        vec![
            Delta::Start {
                id: None,
                model: None,
            },
            Delta::Ping,
            begin(0, PartKind::Text),
            text(0, "a\n\""),
            end(0),
            call(1, "f"),
            piece(1, "{ \"z\":"),
            piece(1, "1.0}\n"),
            end(1),
            finish(Finish::ToolUse),
            Delta::Usage {
                tokens: Tokens {
                    input: Some(3),
                    output: Some(4),
                    reasoning: Some(5),
                    ..Tokens::default()
                },
                web_searches: None,
            },
            Delta::End,
            Delta::End,
            text(0, "never"),
        ],
    );
    assert!(out.starts_with(
        "data: {\"candidates\":[{\"content\":{\"role\":\"model\",\"parts\":[{\"text\":\"a\\n\\\"\"}]},\"index\":0}],\"modelVersion\":\"alias\",\"responseId\":\"0123456789ABCDEFGHIJKLMN\"}\n\n"
    ));
    assert!(
        out.contains(
            r#"{"functionCall":{"id":"i","name":"f","args":{"z":1.0}},"thoughtSignature":"UExYM"#
        ),
        "{out}"
    );
    let frames = frames(&out);
    assert_eq!(frames.len(), 3);
    let last = &frames[2];
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(
        last["candidates"][0]["content"]["parts"],
        json!([{"text": ""}])
    );
    assert_eq!(last["usageMetadata"]["totalTokenCount"], 12);
    assert!(frames[0].get("usageMetadata").is_none());
}

#[test]
fn without_sse_it_is_one_array_also_when_it_fails() {
    let array = || Reply {
        array: true,
        ..reply()
    };
    let deltas = || vec![begin(0, PartKind::Text), text(0, "a"), text(0, "b")];
    let mut whole = deltas();
    whole.extend([end(0), finish(Finish::Stop), Delta::End]);
    let out = written(array(), whole);
    assert!(out.starts_with('[') && out.contains("},\r\n{") && out.ends_with(']'));
    let list: Vec<Tree> = serde_json::from_str(&out).unwrap();
    assert_eq!(list.len(), 3);
    let failure = || Delta::Error {
        class: ErrorClass::Overloaded,
        message: "x".to_owned(),
        code: None,
    };
    let mut broken = deltas();
    broken.push(failure());
    broken.push(text(0, "never"));
    let list: Vec<Tree> = serde_json::from_str(&written(array(), broken)).unwrap();
    assert_eq!(list[2]["error"]["code"], 503);
    let list: Vec<Tree> = serde_json::from_str(&written(array(), vec![failure()])).unwrap();
    assert_eq!(list.len(), 1);
    let empty: Vec<Tree> = serde_json::from_str(&written(array(), vec![Delta::End])).unwrap();
    assert_eq!(empty.len(), 1);
}

#[test]
fn an_error_is_the_last_chunk_and_error_its_first_name() {
    let out = written(
        reply(),
        vec![
            begin(0, PartKind::Text),
            text(0, "a"),
            Delta::Error {
                class: ErrorClass::Overloaded,
                message: "x".to_owned(),
                code: None,
            },
            Delta::End,
        ],
    );
    let last = out.rsplit_once("data: ").unwrap().1;
    assert!(last.starts_with("{\"error\":{\"code\":503,"), "{last}");
    assert_eq!(frames(&out).len(), 2);
}

#[test]
fn parts_that_are_open_at_once_follow_each_other() {
    let out = written(
        reply(),
        vec![
            begin(0, PartKind::Text),
            call(1, "f"),
            call(2, "g"),
            begin(3, PartKind::Text),
            piece(2, "{\"b\":2}"),
            text(3, "later"),
            piece(1, "{\"a\""),
            text(0, "first"),
            end(2),
            piece(1, ":1}"),
            end(0),
            end(3),
            end(1),
            finish(Finish::ToolUse),
            Delta::End,
        ],
    );
    let parts = parts(&out);
    assert_eq!(parts[0]["text"], "first");
    assert_eq!(parts[1]["functionCall"]["args"], json!({"a": 1}));
    assert_eq!(parts[2]["functionCall"]["args"], json!({"b": 2}));
    assert_eq!(parts[3]["text"], "later");
}

#[test]
fn arguments_that_are_no_json_are_kept_unless_the_answer_was_cut() {
    let deltas = |why: Finish| {
        vec![
            call(0, "f"),
            piece(0, "{\"a\":"),
            end(0),
            call(1, "g"),
            end(1),
            finish(why),
            Delta::End,
        ]
    };
    let whole = parts(&written(reply(), deltas(Finish::ToolUse)));
    assert_eq!(
        whole[0]["functionCall"],
        json!({"id": "i", "name": "g", "args": {}})
    );
    assert_eq!(whole[1]["functionCall"]["args"], json!({"_raw": "{\"a\":"}));
    let cut = parts(&written(reply(), deltas(Finish::Length)));
    assert_eq!(cut.len(), 2);
}

fn reasoning() -> Vec<Delta<'static>> {
    vec![
        begin(0, PartKind::Reasoning),
        text(0, "hm"),
        sealed(0, OpaqueKind::AnthropicSignature),
        end(0),
        begin(1, PartKind::Reasoning),
        sealed(1, OpaqueKind::AnthropicRedacted),
        end(1),
        call(2, "f"),
        end(2),
        finish(Finish::ToolUse),
        Delta::End,
    ]
}

/// What the parts say when a client sends them back.
fn home(parts: &[Tree]) -> Vec<(String, Option<OpaqueKind>)> {
    let body = json!({"contents": [{"role": "model", "parts": parts}]}).to_string();
    let mut tape = Tape::new();
    let request = request::decode(tape.parse(&body).unwrap(), &mut Notes::new()).unwrap();
    let parts = request.turns[0].parts.iter();
    parts
        .map(|part| match part {
            Part::Reasoning(thought) => (
                thought.text.to_plain_string(),
                thought.opaque.as_ref().map(|opaque| opaque.kind),
            ),
            Part::Text(text) => (format!("text {}", text.text.plain()), None),
            Part::Call(call) => (format!("call {}", call.name.plain()), None),
            _ => panic!(),
        })
        .collect()
}

#[test]
fn reasoning_comes_home_whether_it_was_shown_or_not() {
    let wanted = [
        ("hm".to_owned(), Some(OpaqueKind::AnthropicSignature)),
        (String::new(), Some(OpaqueKind::AnthropicRedacted)),
        ("call f".to_owned(), None),
    ];
    let shown = parts(&written(reply(), reasoning()));
    assert_eq!(shown[0], json!({"text": "hm", "thought": true}));
    assert!(
        shown[1]["thoughtSignature"]
            .as_str()
            .unwrap()
            .starts_with(envelope::MARK)
    );
    assert_eq!(home(&shown[..4]), wanted);
    let quiet = Reply {
        show_reasoning: false,
        ..reply()
    };
    let hidden = parts(&written(quiet, reasoning()));
    assert!(hidden.iter().all(|part| part.get("thought").is_none()));
    assert!(hidden[1].get("functionCall").is_some(), "{hidden:?}");
    assert!(hidden[1].get("thoughtSignature").is_some());
    assert_eq!(home(&hidden[..2]), wanted);
}

#[test]
fn hidden_reasoning_rides_on_the_next_text_or_at_the_end() {
    let quiet = || Reply {
        show_reasoning: false,
        ..reply()
    };
    let thought = || {
        vec![
            begin(0, PartKind::Reasoning),
            text(0, "hm"),
            sealed(0, OpaqueKind::AnthropicSignature),
            end(0),
        ]
    };
    let mut deltas = thought();
    deltas.extend([
        begin(1, PartKind::Text),
        text(1, "a"),
        text(1, "b"),
        end(1),
        finish(Finish::Stop),
        Delta::End,
    ]);
    let said = parts(&written(quiet(), deltas));
    assert!(said[0]["text"] == "a" && said[0].get("thoughtSignature").is_some());
    assert!(said[1].get("thoughtSignature").is_none());
    let mut deltas = thought();
    deltas.extend([finish(Finish::Stop), Delta::End]);
    let said = parts(&written(quiet(), deltas));
    assert!(said.len() == 1 && said[0]["text"] == "" && said[0].get("thoughtSignature").is_some());
}

#[test]
fn reasoning_of_chat_servers_comes_home_unsigned() {
    let chat = Reply {
        show_reasoning: false,
        upstream: Protocol::Chat,
        ..reply()
    };
    let deltas = vec![
        begin(0, PartKind::Reasoning),
        text(0, "hm"),
        end(0),
        call(1, "f"),
        end(1),
        finish(Finish::ToolUse),
        Delta::End,
    ];
    let said = parts(&written(chat, deltas));
    assert_eq!(
        home(&said[..1])[0],
        ("hm".to_owned(), Some(OpaqueKind::Unsigned))
    );
}

#[test]
fn googles_own_signatures_stay_bare_and_on_their_part() {
    let deltas = vec![
        begin(0, PartKind::Text),
        text(0, "a"),
        sealed(0, OpaqueKind::GeminiSignature),
        end(0),
        call(1, "f"),
        sealed(1, OpaqueKind::GeminiSignature),
        Delta::ArgumentsWhole {
            choice: 0,
            part: 1,
            value: Raw::parse("{\n\"a\": 1}").unwrap(),
        },
        end(1),
        finish(Finish::ToolUse),
        Delta::End,
    ];
    let said = parts(&written(reply(), deltas));
    assert_eq!(said[1], json!({"text": "", "thoughtSignature": "c2ln"}));
    assert_eq!(said[2]["thoughtSignature"], "c2ln");
    assert_eq!(said[2]["functionCall"]["args"], json!({"a": 1}));
}

#[test]
fn summaries_are_thoughts_with_a_line_between() {
    let summary = |index: usize, text: &'static str| Delta::Summary {
        choice: 0,
        part: 0,
        index,
        text: Str::new(text),
    };
    let said = parts(&written(
        reply(),
        vec![
            begin(0, PartKind::Reasoning),
            summary(0, "a"),
            summary(0, "b"),
            summary(1, "c"),
            end(0),
            finish(Finish::Stop),
            Delta::End,
        ],
    ));
    let all: String = said
        .iter()
        .filter_map(|part| part["text"].as_str())
        .collect();
    assert_eq!(all, "ab\n\nc");
}

#[test]
fn references_count_bytes_in_the_whole_text() {
    let annotation = |part: usize, span: (usize, usize)| Delta::Annotation {
        choice: 0,
        part,
        annotation: Annotation {
            url: Str::new("https://a"),
            title: Some(Str::new("A")),
            cited: None,
            span: Some(span),
        },
    };
    let search = Hosted {
        kind: HostedKind::WebSearch,
        id: Str::new("s"),
        input: Some(Raw::parse("{\"query\":\"q\"}").unwrap()),
        sources: vec![SearchHit {
            url: Str::new("https://b"),
            title: None,
        }],
        output: None,
        failed: false,
        native: Vec::new(),
        origin: Protocol::Messages,
    };
    let out = written(
        reply(),
        vec![
            begin(0, PartKind::Hosted(search)),
            end(0),
            begin(1, PartKind::Text),
            text(1, "é "),
            end(1),
            begin(2, PartKind::Text),
            text(2, "🙂x"),
            annotation(2, (1, 2)),
            end(2),
            finish(Finish::Stop),
            Delta::End,
        ],
    );
    let frames = frames(&out);
    let metadata = &frames.last().unwrap()["candidates"][0]["groundingMetadata"];
    assert_eq!(metadata["webSearchQueries"], json!(["q"]));
    assert_eq!(
        metadata["groundingChunks"][1],
        json!({"web": {"uri": "https://a", "title": "A"}})
    );
    assert_eq!(
        metadata["groundingSupports"],
        json!([{"segment": {"startIndex": 7, "endIndex": 8}, "groundingChunkIndices": [1]}])
    );
}

#[test]
fn what_waits_is_limited() {
    let mut encoder = Encoder::new(reply());
    let mut out = BytesMut::new();
    encoder.delta(call(0, "f"), &mut out);
    let long = "x".repeat(1 << 20);
    for _ in 0..40 {
        let piece = Str::new(&long);
        encoder.delta(
            Delta::Arguments {
                choice: 0,
                part: 0,
                piece,
            },
            &mut out,
        );
    }
    let out = std::str::from_utf8(&out).unwrap();
    assert!(out.starts_with("data: {\"error\":") && out.len() < 1000);
}

/// Events that have something of everything.
fn corpus() -> Vec<String> {
    let mut events = chunks(
        &[
            json!([{"text": "hm", "thought": true}, {"thoughtSignature": "czE="}]),
            json!([{"text": "é🙂\\n\\\""}, {"functionCall": {"name": "f", "willContinue": true}}]),
            json!([{"functionCall": {"partialArgs": [{"jsonPath": "$.a[1]['b']", "stringValue": "x"}]}}]),
            json!([{"executableCode": {"code": "1"}}]),
            json!([{"codeExecutionResult": {"outcome": "OUTCOME_OK"}}, {"inlineData": {"data": "AAAA"}}]),
        ],
        "STOP",
    );
    events.push(json!({"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}, "finishReason": "STOP",
        "groundingMetadata": {"groundingChunks": [{"web": {"uri": "u"}}], "groundingSupports": [{"segment": {"endIndex": 1}, "groundingChunkIndices": [0]}]},
        "logprobsResult": {"chosenCandidates": [{"token": "b", "logProbability": -1}]}}], "usageMetadata": {"promptTokenCount": 1}}).to_string());
    events
}

#[test]
fn an_answer_read_twice_is_the_same() {
    assert_eq!(heard(&corpus()), heard(&corpus()));
}

proptest! {
    /// Promises are kept, and what a client gets is chunks, whatever comes.
    #[test]
    fn no_stream_panics_or_breaks_a_promise(
        picks in proptest::collection::vec((0_usize..6, 0_usize..400, any::<u8>(), any::<bool>()), 0..12),
        hide in any::<bool>(),
        array in any::<bool>(),
    ) {
        let corpus = corpus();
        let mut heard = Heard::default();
        let mut decoder = Decoder::default();
        let mut encoder = Encoder::new(Reply { show_reasoning: !hide, array, ..reply() });
        let mut out = BytesMut::new();
        let mut pass = |delta: Delta<'_>| {
            heard.hear(&delta);
            encoder.delta(delta, &mut out);
        };
        for (which, at, byte, spoil) in picks {
            let mut bytes = corpus[which].clone().into_bytes();
            if spoil && let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            decoder.event(None, &bytes, &mut pass);
        }
        decoder.finish(&mut pass);
        heard.order.finished().unwrap();
        let out = String::from_utf8(out.to_vec()).unwrap();
        if array {
            prop_assert!(serde_json::from_str::<Vec<Tree>>(&out).is_ok(), "{}", out);
        } else {
            frames(&out);
        }
    }

    /// Text and arguments come whole however they were cut.
    #[test]
    fn text_and_arguments_come_whole(words in proptest::collection::vec("\\PC{0,6}", 0..12), cuts in proptest::collection::vec(1_usize..7, 1..40)) {
        let arguments = json!({"words": words, "é\"": "\n"}).to_string();
        let mut encoder = Encoder::new(reply());
        let mut out = BytesMut::new();
        let mut deltas = vec![begin(0, PartKind::Text), call(1, "f")];
        let mut letters: Vec<char> = arguments.chars().rev().collect();
        for cut in cuts.iter().cycle() {
            if letters.is_empty() {
                break;
            }
            let piece: String = letters.split_off(letters.len().saturating_sub(*cut)).into_iter().rev().collect();
            deltas.push(Delta::Text { choice: 0, part: 0, text: piece.clone().into() });
            deltas.push(Delta::Arguments { choice: 0, part: 1, piece: piece.into() });
        }
        deltas.extend([end(1), end(0), finish(Finish::ToolUse), Delta::End]);
        for delta in deltas {
            encoder.delta(delta, &mut out);
        }
        let parts = parts(std::str::from_utf8(&out).unwrap());
        let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        prop_assert_eq!(&text, &arguments);
        let call = parts.iter().find(|part| part.get("functionCall").is_some()).unwrap();
        prop_assert_eq!(&call["functionCall"]["args"], &serde_json::from_str::<Tree>(&arguments).unwrap());
    }

    /// A stream says what the same answer says that comes whole.
    #[test]
    fn a_stream_is_the_answer_that_comes_whole(
        picks in proptest::collection::vec((0_usize..8, "[a-zé🙂\\n\"]{0,5}", any::<bool>()), 1..14),
    ) {
        let mut chunks = vec![Vec::new()];
        for (which, word, cut) in &picks {
            let part = match which {
                0 | 1 => json!({"text": word}),
                2 => json!({"text": word, "thought": true}),
                3 => json!({"text": "", "thoughtSignature": "c2ln"}),
                4 => json!({"functionCall": {"name": "f", "args": {"w": word}}, "thoughtSignature": "c2ln"}),
                5 => json!({"functionCall": {"name": "g"}}),
                6 => json!({"executableCode": {"code": word}}),
                _ => json!({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": word}}),
            };
            if *cut {
                chunks.push(Vec::new());
            }
            chunks.last_mut().unwrap().push(part);
        }
        let candidate = |parts: Tree, last: bool| {
            let mut candidate = json!({"content": {"parts": parts}});
            if last {
                candidate["finishReason"] = json!("STOP");
                candidate["groundingMetadata"] = json!({"groundingChunks": [{"web": {"uri": "https://a"}}]});
            }
            json!({"candidates": [candidate], "responseId": "r", "modelVersion": "m"}).to_string()
        };
        let whole = candidate(json!(chunks.concat()), true);
        let mut tape = Tape::new();
        let whole = response::decode(tape.parse(&whole).unwrap()).unwrap();
        let mut collector = Collector::new(1 << 20);
        let mut decoder = Decoder::default();
        let last = chunks.len() - 1;
        for (index, parts) in chunks.into_iter().enumerate() {
            let event = candidate(json!(parts), index == last);
            decoder.event(None, event.as_bytes(), &mut |delta| collector.delta(delta));
        }
        decoder.finish(&mut |delta| collector.delta(delta));
        prop_assert_eq!(format!("{:?}", collector.finish().choices), format!("{:?}", whole.choices));
    }
}
