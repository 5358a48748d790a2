//! Streams, read and written.

use bytes::BytesMut;
use serde_json::{Value as Json, json};

use super::{Decoder, Encoder};
use crate::protocol::Protocol;
use proptest::prelude::*;

use crate::protocol::ir::{
    Annotation, Delta, Finish, Hosted, HostedKind, Media, MediaKind, Opaque, OpaqueKind, Part,
    PartKind, SearchHit, Source,
};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::sse;
use crate::protocol::translate::Reply;
use crate::protocol::usage::Tokens;

pub(in super::super) fn reply(upstream: Protocol) -> Reply {
    Reply {
        id: "abcdefghijklmnopqrstuvwx".into(),
        model: "alias".into(),
        upstream_model: "model".into(),
        account: "acct".into(),
        created: 1_700_000_000,
        encrypted_reasoning: true,
        custom_tools: true,
        ..Reply::plain(Protocol::Responses, upstream)
    }
}

/// The events of a stream: name and data.
fn events(bytes: &[u8]) -> Vec<(String, Json)> {
    let mut decoder = sse::Decoder::new();
    let mut events = Vec::new();
    decoder
        .push(bytes, |event| {
            let data = serde_json::from_slice(event.data).unwrap();
            events.push((event.name.unwrap().to_owned(), data));
        })
        .unwrap();
    events
}

fn written(reply: Reply, deltas: Vec<Delta<'_>>) -> Vec<(String, Json)> {
    let mut encoder = Encoder::new(reply);
    let mut out = BytesMut::new();
    for delta in deltas {
        encoder.delta(delta, &mut out);
    }
    let events = events(&out);
    assert_grammar(&events);
    events
}

/// What holds of every stream that is written.
fn assert_grammar(events: &[(String, Json)]) {
    let mut added: Vec<(u64, String)> = Vec::new();
    let mut done: Vec<(u64, Json)> = Vec::new();
    for (number, (name, data)) in events.iter().enumerate() {
        assert_eq!(data["type"], name.as_str());
        assert_eq!(data["sequence_number"], number as u64, "{name}");
        if let Some(response) = data.get("response") {
            assert_eq!(response["id"], "resp_abcdefghijklmnopqrstuvwx");
        }
        let index = data["output_index"].as_u64();
        match name.as_str() {
            "response.output_item.added" => {
                assert!(added.iter().all(|(old, _)| Some(*old) != index));
                let id = data["item"]["id"].as_str().unwrap().to_owned();
                assert!(added.iter().all(|(_, old)| *old != id));
                added.push((index.unwrap(), id));
            }
            "response.output_item.done" => {
                let (_, id) = added.iter().find(|(old, _)| Some(*old) == index).unwrap();
                assert_eq!(data["item"]["id"], id.as_str());
                done.push((index.unwrap(), data["item"].clone()));
            }
            _ => {
                if let Some(id) = data.get("item_id") {
                    let (_, known) = added.iter().find(|(old, _)| Some(*old) == index).unwrap();
                    assert_eq!(id, known.as_str());
                    assert!(done.iter().all(|(old, _)| Some(*old) != index));
                }
            }
        }
        let terminal = [
            "response.completed",
            "response.incomplete",
            "response.failed",
        ];
        assert_eq!(
            terminal.contains(&name.as_str()),
            number + 1 == events.len()
        );
    }
    assert_eq!(events[0].0, "response.created");
    assert_eq!(events[1].0, "response.in_progress");
    done.sort_by_key(|(index, _)| *index);
    let last = &events.last().unwrap().1["response"];
    let done: Vec<Json> = done.into_iter().map(|(_, item)| item).collect();
    assert_eq!(last["output"], Json::Array(done));
}

fn names(events: &[(String, Json)]) -> Vec<&str> {
    events
        .iter()
        .map(|(name, _)| name.strip_prefix("response.").unwrap_or(name))
        .collect()
}

fn start<'a>() -> Delta<'a> {
    Delta::Start {
        id: None,
        model: None,
    }
}

fn begin(part: usize, kind: PartKind<'_>) -> Delta<'_> {
    Delta::PartStart {
        choice: 0,
        part,
        kind,
    }
}

fn text(part: usize, text: &str) -> Delta<'_> {
    Delta::Text {
        choice: 0,
        part,
        text: Str::new(text),
    }
}

fn end<'a>(part: usize) -> Delta<'a> {
    Delta::PartEnd { choice: 0, part }
}

fn finish<'a>(finish: Finish) -> Delta<'a> {
    Delta::Finish { choice: 0, finish }
}

#[test]
fn a_text_is_told_in_the_order_that_sdks_want() {
    let events = written(
        reply(Protocol::Chat),
        vec![
            start(),
            begin(0, PartKind::Text),
            text(0, "a\"b"),
            text(0, "\nc"),
            end(0),
            Delta::Usage {
                tokens: Tokens {
                    input: Some(10),
                    cache_read: Some(5),
                    output: Some(3),
                    reasoning: Some(2),
                    ..Tokens::default()
                },
                web_searches: None,
            },
            finish(Finish::Stop),
            Delta::End,
        ],
    );
    assert_eq!(
        names(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed"
        ]
    );
    assert_eq!(events[4].1["delta"], "a\"b");
    assert_eq!(events[4].1["logprobs"], json!([]));
    assert_eq!(events[6].1["text"], "a\"b\nc");
    let response = &events[9].1["response"];
    assert_eq!(response["usage"]["input_tokens"], 15);
    assert_eq!(
        response["usage"]["output_tokens_details"]["reasoning_tokens"],
        2
    );
    assert_eq!(response["usage"]["total_tokens"], 20);
    assert_eq!(response["model"], "alias");
    assert_eq!(response["output"][0]["content"][0]["text"], "a\"b\nc");
    assert_eq!(events[0].1["response"]["tools"], json!([]));
}

#[test]
fn neighbouring_texts_are_one_and_spans_count_from_its_start() {
    let citation = |span| Delta::Annotation {
        choice: 0,
        part: 1,
        annotation: Annotation {
            url: Str::new("https://x"),
            title: Some(Str::new("X")),
            cited: None,
            span,
        },
    };
    let events = written(
        reply(Protocol::Messages),
        vec![
            start(),
            begin(0, PartKind::Text),
            text(0, "é\"🙂 "),
            end(0),
            begin(1, PartKind::Text),
            citation(None),
            text(1, "cited"),
            citation(Some((0, 2))),
            end(1),
            begin(2, PartKind::Text),
            text(2, "."),
            end(2),
            finish(Finish::Stop),
            Delta::End,
        ],
    );
    let content = &events.last().unwrap().1["response"]["output"][0]["content"];
    assert_eq!(content.as_array().unwrap().len(), 1);
    assert_eq!(content[0]["text"], "é\"🙂 cited.");
    assert_eq!(
        content[0]["annotations"],
        json!([
            {"type":"url_citation","start_index":4,"end_index":6,"url":"https://x","title":"X"},
            {"type":"url_citation","start_index":4,"end_index":9,"url":"https://x","title":"X"}
        ])
    );
    let added: Vec<_> = events
        .iter()
        .filter(|(name, _)| name.ends_with("annotation.added"))
        .map(|(_, data)| data["annotation_index"].as_u64().unwrap())
        .collect();
    assert_eq!(added, [0, 1]);
}

fn call<'a>(id: &'a str, name: &'a str, custom: bool) -> PartKind<'a> {
    PartKind::Call {
        id: Str::new(id),
        name: Str::new(name),
        namespace: (!custom).then_some(Str::new("ns")),
        custom,
    }
}

fn piece(part: usize, piece: &str) -> Delta<'_> {
    Delta::Arguments {
        choice: 0,
        part,
        piece: Str::new(piece),
    }
}

#[test]
fn calls_may_interleave_and_always_have_arguments() {
    let events = written(
        reply(Protocol::Chat),
        vec![
            start(),
            begin(0, call("a", "f", false)),
            piece(0, "{\"x\":"),
            begin(1, call("b", "g", false)),
            piece(1, "{\"cut"),
            piece(0, "1}"),
            end(0),
            end(1),
            begin(2, call("c", "h", false)),
            end(2),
            begin(3, call("d", "patch", true)),
            text(3, "*** \"raw\"\n"),
            end(3),
            begin(4, call("e", "whole", false)),
            Delta::ArgumentsWhole {
                choice: 0,
                part: 4,
                value: Raw::parse("{ \"q\" : \"\\\"\" }").unwrap(),
            },
            end(4),
            finish(Finish::ToolUse),
            Delta::End,
        ],
    );
    let output = &events.last().unwrap().1["response"]["output"];
    let told: Vec<_> = output
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let arguments = item.get("arguments").or_else(|| item.get("input"));
            (
                item["call_id"].as_str().unwrap(),
                arguments.unwrap().as_str().unwrap(),
                item["status"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("a", "{\"x\":1}", "completed"),
            ("b", "{\"cut", "incomplete"),
            ("c", "{}", "completed"),
            ("d", "*** \"raw\"\n", "completed"),
            ("e", "{\"q\":\"\\\"\"}", "completed"),
        ]
    );
    assert_eq!(output[0]["namespace"], "ns");
    assert_eq!(output[3]["type"], "custom_tool_call");
    assert_deltas_make_arguments(&events);
}

/// Put together, the fragments of each call are its arguments.
fn assert_deltas_make_arguments(events: &[(String, Json)]) {
    let output = &events.last().unwrap().1["response"]["output"];
    for (index, item) in output.as_array().unwrap().iter().enumerate() {
        let deltas = events.iter().filter(|(name, data)| {
            name.ends_with(".delta") && data["output_index"] == index as u64
        });
        let joined: String = deltas.map(|(_, d)| d["delta"].as_str().unwrap()).collect();
        let arguments = item.get("arguments").or_else(|| item.get("input"));
        assert_eq!(joined, arguments.unwrap().as_str().unwrap());
    }
}

fn opaque(part: usize, kind: OpaqueKind, data: &str) -> Delta<'_> {
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

fn summary(part: usize, index: usize, text: &str) -> Delta<'_> {
    Delta::Summary {
        choice: 0,
        part,
        index,
        text: Str::new(text),
    }
}

fn thinking() -> Vec<Delta<'static>> {
    vec![
        start(),
        begin(0, PartKind::Reasoning),
        text(0, "let me "),
        text(0, "see"),
        opaque(0, OpaqueKind::OpenAiEncrypted, "sig"),
        end(0),
        begin(1, PartKind::Reasoning),
        end(1),
        begin(2, PartKind::Reasoning),
        summary(2, 0, "one"),
        summary(2, 1, "two"),
        end(2),
        begin(3, PartKind::Text),
        text(3, "hi"),
        end(3),
        finish(Finish::Stop),
        Delta::End,
    ]
}

#[test]
fn reasoning_is_a_summary_unless_a_key_wants_it_as_content() {
    let events = written(reply(Protocol::Chat), thinking());
    let output = &events.last().unwrap().1["response"]["output"];
    assert_eq!(
        output.as_array().unwrap().len(),
        3,
        "silent reasoning is none"
    );
    assert_eq!(
        output[0]["summary"],
        json!([{"type":"summary_text","text":"let me see"}])
    );
    assert_eq!(output[0]["encrypted_content"], "sig");
    let two = output[1]["summary"].as_array().unwrap();
    assert_eq!(
        (&two[0]["text"], &two[1]["text"]),
        (&"one".into(), &"two".into())
    );
    let of_first: Vec<_> = events
        .iter()
        .filter(|(_, data)| data["output_index"] == 0)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        of_first,
        [
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done"
        ]
    );
    let mut as_content = reply(Protocol::Chat);
    as_content.reasoning_as_content = true;
    let events = written(as_content, thinking());
    let item = &events.last().unwrap().1["response"]["output"][0];
    assert_eq!(
        item["content"],
        json!([{"type":"reasoning_text","text":"let me see"}])
    );
    assert_eq!(item["summary"], json!([]));
}

#[test]
fn reasoning_that_is_not_to_be_shown_is_not() {
    let mut hidden = reply(Protocol::Chat);
    hidden.show_reasoning = false;
    hidden.encrypted_reasoning = false;
    let events = written(hidden.clone(), thinking());
    let output = &events.last().unwrap().1["response"]["output"];
    assert_eq!(output.as_array().unwrap().len(), 1);
    hidden.encrypted_reasoning = true;
    let events = written(hidden, thinking());
    let output = &events.last().unwrap().1["response"]["output"];
    assert_eq!(output[0]["summary"], json!([]));
    assert_eq!(output[0]["encrypted_content"], "sig");
}

#[test]
fn a_gemini_signature_is_an_item_before_its_call_and_behind_its_text() {
    let events = written(
        reply(Protocol::Gemini),
        vec![
            start(),
            begin(0, PartKind::Text),
            text(0, "hi"),
            opaque(0, OpaqueKind::OpenAiEncrypted, "text"),
            end(0),
            begin(1, call("a", "f", false)),
            opaque(1, OpaqueKind::OpenAiEncrypted, "call"),
            Delta::ArgumentsWhole {
                choice: 0,
                part: 1,
                value: Raw::parse("{}").unwrap(),
            },
            end(1),
            begin(2, call("b", "g", false)),
            end(2),
            finish(Finish::ToolUse),
            Delta::End,
        ],
    );
    let output = events.last().unwrap().1["response"]["output"].clone();
    let told: Vec<_> = output
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            (
                item["type"].as_str().unwrap(),
                item["encrypted_content"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("message", None),
            ("reasoning", Some("text")),
            ("reasoning", Some("call")),
            ("function_call", None),
            ("function_call", None)
        ]
    );
}

#[test]
fn hosted_tools_and_pictures_have_their_steps() {
    let hosted = |kind, input: &'static str| {
        PartKind::Hosted(Hosted {
            kind,
            id: Str::new("x"),
            input: Some(Raw::parse(input).unwrap()),
            sources: vec![SearchHit {
                url: Str::new("https://x"),
                title: None,
            }],
            output: Some(Str::new("2\n")),
            failed: false,
            native: Vec::new(),
            origin: Protocol::Messages,
        })
    };
    let picture = PartKind::Media(Media {
        kind: MediaKind::Image,
        source: Source::Inline {
            mime: "image/jpeg".into(),
            data: Str::new("AAAA"),
        },
        name: None,
        context: None,
        detail: None,
        cite: false,
        cache: None,
        path: String::new(),
    });
    let events = written(
        reply(Protocol::Messages),
        vec![
            start(),
            begin(0, hosted(HostedKind::WebSearch, "{\"query\":\"q\"}")),
            end(0),
            begin(1, hosted(HostedKind::Code, "{\"code\":\"1+1\"}")),
            end(1),
            begin(2, picture),
            end(2),
            begin(3, hosted(HostedKind::Other, "{}")),
            end(3),
            finish(Finish::Stop),
            Delta::End,
        ],
    );
    let output = &events.last().unwrap().1["response"]["output"];
    assert_eq!(
        output[0]["action"],
        json!({"type":"search","query":"q","queries":["q"],"sources":[{"type":"url","url":"https://x"}]})
    );
    assert_eq!(output[1]["outputs"], json!([{"type":"logs","logs":"2\n"}]));
    assert_eq!(
        (&output[2]["result"], &output[2]["output_format"]),
        (&"AAAA".into(), &"jpeg".into())
    );
    assert_eq!(output.as_array().unwrap().len(), 3);
    let names = names(&events);
    assert!(names.contains(&"web_search_call.searching"));
    assert!(names.contains(&"code_interpreter_call_code.done"));
    assert!(names.contains(&"image_generation_call.generating"));
}

#[test]
fn an_answer_that_was_cut_says_so_and_so_does_one_that_was_filtered() {
    for (why, reason) in [
        (Finish::Length, "max_output_tokens"),
        (Finish::ContextFull, "max_output_tokens"),
        (
            Finish::ContentFilter {
                category: None,
                text: None,
            },
            "content_filter",
        ),
    ] {
        let deltas = vec![
            start(),
            begin(0, PartKind::Text),
            text(0, "cut"),
            end(0),
            finish(why),
            Delta::End,
        ];
        let events = written(reply(Protocol::Chat), deltas);
        let (name, data) = events.last().unwrap();
        assert_eq!(name, "response.incomplete");
        assert_eq!(data["response"]["status"], "incomplete");
        assert_eq!(data["response"]["incomplete_details"]["reason"], reason);
        assert_eq!(data["response"]["output"][0]["status"], "incomplete");
    }
}

#[test]
fn a_failure_is_an_error_event_and_a_failed_response_and_nothing_after() {
    let events = written(
        reply(Protocol::Chat),
        vec![
            start(),
            begin(0, PartKind::Text),
            text(0, "a"),
            Delta::Error {
                class: crate::protocol::error::ErrorClass::RateLimited,
                message: "slow down".into(),
                code: None,
            },
            text(0, "b"),
            Delta::End,
        ],
    );
    let (name, error) = &events[events.len() - 2];
    assert_eq!(name, "error");
    assert_eq!(
        (&error["code"], &error["message"]),
        (&"rate_limit_exceeded".into(), &"slow down".into())
    );
    assert_eq!(error["error"]["message"], "slow down");
    let (name, failed) = events.last().unwrap();
    assert_eq!(name, "response.failed");
    assert_eq!(
        failed["response"]["error"],
        json!({"code":"rate_limit_exceeded","message":"slow down"})
    );
    assert_eq!(failed["response"]["status"], "failed");
}

#[test]
fn a_refusal_and_probabilities_have_their_places() {
    let events = written(
        reply(Protocol::Chat),
        vec![
            start(),
            begin(0, PartKind::Text),
            Delta::Logprobs {
                choice: 0,
                tokens: vec![Raw::parse("{\"token\":\"a\",\"logprob\":-1}").unwrap()],
            },
            text(0, "a"),
            end(0),
            begin(1, PartKind::Refusal),
            text(1, "no"),
            end(1),
            finish(Finish::Refusal),
            Delta::End,
        ],
    );
    let content = &events.last().unwrap().1["response"]["output"][0]["content"];
    assert_eq!(content[0]["logprobs"][0]["token"], "a");
    assert_eq!(content[1], json!({"type":"refusal","refusal":"no"}));
    let delta = events
        .iter()
        .find(|(name, _)| name == "response.output_text.delta");
    assert_eq!(delta.unwrap().1["logprobs"][0]["logprob"], -1);
}

#[test]
fn an_answer_that_can_not_be_held_fails() {
    let mut encoder = Encoder::new(reply(Protocol::Chat));
    let mut out = BytesMut::new();
    let long = "x".repeat(1024 * 1024);
    encoder.delta(begin(0, PartKind::Text), &mut out);
    for _ in 0..33 {
        encoder.delta(text(0, &long), &mut out);
        out.clear();
        encoder.delta(text(0, ""), &mut out);
    }
    encoder.delta(Delta::End, &mut out);
    assert!(out.is_empty());
}

// ---- read ---------------------------------------------------------------

/// Deltas as lines, checked against what a decoder promises.
#[derive(Default)]
struct Trace {
    lines: Vec<String>,
    open: Vec<usize>,
    parts: usize,
    finished: bool,
    over: bool,
    order: crate::protocol::grammar::Order,
}

impl Trace {
    fn see(&mut self, delta: &Delta<'_>) {
        assert!(!self.over, "after the end: {delta:?}");
        self.order.check(delta).unwrap();
        match delta {
            Delta::Start { id, model } => {
                assert!(self.lines.is_empty());
                let word = |text: &Option<Str<'_>>| {
                    text.as_ref().map(Str::to_plain_string).unwrap_or_default()
                };
                self.lines
                    .push(format!("start {} {}", word(id), word(model)));
            }
            Delta::PartStart { part, kind, .. } => {
                assert!(!self.lines.is_empty() && *part == self.parts && !self.finished);
                self.parts += 1;
                self.open.push(*part);
                self.lines.push(format!("begin {part} {}", described(kind)));
            }
            Delta::Ping => {}
            Delta::Usage { .. }
            | Delta::Finish { .. }
            | Delta::Error { .. }
            | Delta::End
            | Delta::Meta { .. } => {
                self.see_end(delta);
            }
            other => self.see_part(other),
        }
    }

    /// What belongs to a part, which must be open.
    fn see_part(&mut self, delta: &Delta<'_>) {
        let live = |open: &Vec<usize>, part: &usize| assert!(open.contains(part), "{delta:?}");
        match delta {
            Delta::Text { part, text, .. } => {
                live(&self.open, part);
                self.lines.push(format!("text {part} {}", text.plain()));
            }
            Delta::Summary {
                part, index, text, ..
            } => {
                live(&self.open, part);
                self.lines
                    .push(format!("summary {part}.{index} {}", text.plain()));
            }
            Delta::Arguments { part, piece, .. } => {
                live(&self.open, part);
                self.lines.push(format!("piece {part} {}", piece.plain()));
            }
            Delta::ArgumentsWhole { part, value, .. } => {
                live(&self.open, part);
                self.lines.push(format!("whole {part} {}", value.as_str()));
            }
            Delta::Opaque { part, opaque, .. } => {
                live(&self.open, part);
                self.lines
                    .push(format!("opaque {part} {}", opaque.data.plain()));
            }
            Delta::Annotation {
                part, annotation, ..
            } => {
                live(&self.open, part);
                self.lines.push(format!(
                    "cite {part} {} {:?}",
                    annotation.url.plain(),
                    annotation.span
                ));
            }
            Delta::Logprobs { tokens, .. } => self.lines.push(format!("logprobs {}", tokens.len())),
            Delta::PartEnd { part, .. } => {
                live(&self.open, part);
                self.open.retain(|open| open != part);
                self.lines.push(format!("end {part}"));
            }
            other => panic!("{other:?}"),
        }
    }

    /// What is about the answer as a whole.
    fn see_end(&mut self, delta: &Delta<'_>) {
        match delta {
            Delta::Usage { tokens, .. } => {
                self.lines
                    .push(format!("usage {:?} {:?}", tokens.input, tokens.output));
            }
            Delta::Finish { finish, .. } => {
                assert!(self.open.is_empty() && !self.finished);
                self.finished = true;
                self.lines.push(format!("finish {finish:?}"));
            }
            Delta::Meta { service, .. } => {
                self.lines
                    .push(format!("meta {}", service.as_ref().unwrap().plain()));
            }
            Delta::Error { message, code, .. } => {
                self.over = true;
                self.lines.push(format!(
                    "error {} {message}",
                    code.as_deref().unwrap_or("-")
                ));
            }
            Delta::End => {
                assert!(self.finished);
                self.over = true;
                self.lines.push("over".into());
            }
            other => panic!("{other:?}"),
        }
    }
}

fn described(kind: &PartKind<'_>) -> String {
    match kind {
        PartKind::Text => "text".into(),
        PartKind::Reasoning => "reasoning".into(),
        PartKind::Refusal => "refusal".into(),
        PartKind::Call {
            id,
            name,
            namespace,
            custom,
        } => {
            let sort = if *custom { "custom" } else { "call" };
            let namespace = namespace.as_ref().map(Str::plain).unwrap_or_default();
            format!("{sort} {} {namespace}/{}", id.plain(), name.plain())
        }
        PartKind::Media(_) => "media".into(),
        PartKind::Hosted(hosted) => format!("hosted {:?}", hosted.kind),
    }
}

fn read(events: &[&str]) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut trace = Trace::default();
    for event in events {
        decoder.event(None, event.as_bytes(), &mut |delta| trace.see(&delta));
    }
    decoder.finish(&mut |delta| trace.see(&delta));
    assert!(trace.over);
    trace.lines
}

#[test]
fn a_full_stream_is_read() {
    let lines = read(&[
        r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","model":"gpt","status":"in_progress","output":[]}}"#,
        r#"{"type":"response.in_progress","response":{"id":"resp_1"}}"#,
        r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"early"}}"#,
        r#"{"type":"response.reasoning_summary_part.added","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":""}}"#,
        r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"item_id":"rs_rotated","summary_index":0,"delta":"th","obfuscation":"xxxx"}"#,
        r#"{"type":"response.reasoning_summary_text.done","output_index":0,"summary_index":0,"text":"think"}"#,
        r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":5,"delta":"more"}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"rs_other","type":"reasoning","summary":[{"type":"summary_text","text":"think"}],"encrypted_content":"late"}}"#,
        r#"{"type":"response.output_item.added","output_index":1,"item":{"id":"msg_1","type":"message","role":"assistant","content":[]}}"#,
        r#"{"type":"response.content_part.added","output_index":1,"content_index":0,"part":{"type":"output_text","text":""}}"#,
        r#"{"type":"response.output_text.delta","item_id":"zzz","output_index":1,"content_index":0,"delta":"h\u00e9\n","logprobs":[{"token":"h","logprob":-0.1}]}"#,
        r#"{"type":"response.output_text.annotation.added","output_index":1,"content_index":0,"annotation_index":0,"annotation":{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":2}}"#,
        r#"{"type":"response.output_text.done","output_index":1,"content_index":0,"text":"h\u00e9\nllo","logprobs":[{}]}"#,
        r#"{"type":"response.content_part.done","output_index":1,"content_index":0,"part":{"type":"output_text","text":"hé\nllo","annotations":[{"type":"url_citation","url":"u"},{"type":"url_citation","url":"v","start_index":1,"end_index":2}]}}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"id":"msg_1","type":"message","content":[{"type":"output_text","text":"hé\nllo","annotations":[]}]}}"#,
        r#"{"type":"response.output_item.added","output_index":2,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","namespace":"ns","arguments":""}}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":2,"delta":"{\"a\":"}"#,
        r#"{"type":"response.function_call_arguments.done","output_index":2,"arguments":"{\"a\":1}"}"#,
        r#"{"type":"response.output_item.done","output_index":2,"item":{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":"{\"a\":1}"}}"#,
        r#"{"type":"response.web_search_call.searching","output_index":3,"item_id":"ws_1"}"#,
        r#"{"type":"response.output_item.done","output_index":3,"item":{"id":"ws_1","type":"web_search_call","status":"completed","action":{"type":"search","query":"q"}}}"#,
        r#"{"type":"response.completed","response":{"id":"resp_1","status":"completed","service_tier":"default","output":[{"id":"rs_1","type":"reasoning","summary":[]},{"id":"msg_x","type":"message","content":[{"type":"output_text","text":"again"}]},{"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":"{}"},{"id":"ws_1","type":"web_search_call"},{"type":"message","content":[{"type":"output_text","text":"only here"}]}],"usage":{"input_tokens":3,"output_tokens":2}}}"#,
        "[DONE]",
    ]);
    assert_eq!(
        lines,
        [
            "start resp_1 gpt",
            "begin 0 reasoning",
            "summary 0.0 th",
            "summary 0.0 ink",
            "summary 0.1 more",
            "opaque 0 late",
            "end 0",
            "begin 1 text",
            "logprobs 1",
            "text 1 hé\n",
            "cite 1 u Some((0, 2))",
            "text 1 llo",
            "cite 1 v Some((1, 2))",
            "end 1",
            "begin 2 call call_1 ns/f",
            "piece 2 {\"a\":",
            "piece 2 1}",
            "end 2",
            "begin 3 hosted WebSearch",
            "end 3",
            "begin 4 text",
            "text 4 only here",
            "end 4",
            "usage Some(3) Some(2)",
            "meta default",
            "finish ToolUse",
            "over"
        ]
    );
}

#[test]
fn arguments_come_once_however_they_are_told() {
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"fc_1","type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":1}"}}"#;
    let delta =
        r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"{\"a\":1}"}"#;
    let done = r#"{"type":"response.function_call_arguments.done","output_index":0,"arguments":"{\"a\":1}"}"#;
    let item = r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"fc_2","type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":1}"}}"#;
    let object = r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"function_call","call_id":"c","name":"f","arguments":{"a":1}}}"#;
    let nameless = r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"c","name":"","arguments":""}}"#;
    let last = r#"{"type":"response.completed","response":{"output":[{"id":"fc_9","type":"function_call","call_id":"c","name":"f","arguments":"{\"a\":1}"}]}}"#;
    for events in [
        vec![added, delta, done, item, last],
        vec![added, delta, last],
        vec![added, last],
        vec![added, done, item, last],
        vec![item, last],
        vec![item, item, last],
        vec![added, added, delta, item, last],
        vec![nameless, delta, done, item, last],
        vec![last],
        vec![added, object, last],
    ] {
        let lines = read(&events);
        let said: Vec<_> = lines
            .iter()
            .filter(|line| line.starts_with("piece") || line.starts_with("whole"))
            .collect();
        assert_eq!(said.len(), 1, "{events:#?} {lines:#?}");
        assert!(said[0].ends_with("{\"a\":1}"));
        assert_eq!(
            lines
                .iter()
                .filter(|line| line.starts_with("begin"))
                .count(),
            1
        );
        assert_eq!(lines[lines.len() - 2], "finish ToolUse");
    }
}

#[test]
fn servers_that_count_or_name_wrongly_lose_and_double_nothing() {
    // Every item is said to be the first.
    let lines = read(&[
        r#"{"type":"response.output_item.added","output_index":0,"item":{"id":"a","type":"function_call","call_id":"a","name":"f"}}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"1"}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"a","type":"function_call","call_id":"a","name":"f","arguments":"1"}}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"b","type":"function_call","call_id":"b","name":"g","arguments":"2"}}"#,
        r#"{"type":"response.completed","response":{"output":[{"id":"a","type":"function_call","call_id":"a","name":"f","arguments":"1"},{"id":"b","type":"function_call","call_id":"b","name":"g","arguments":"2"}]}}"#,
    ]);
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("piece"))
            .count(),
        2,
        "{lines:?}"
    );
    // No indexes at all, ids alone.
    let lines = read(&[
        r#"{"type":"response.output_item.added","item":{"id":"a","type":"message"}}"#,
        r#"{"type":"response.output_text.delta","item_id":"a","delta":"x"}"#,
        r#"{"type":"response.output_item.done","item":{"id":"a","type":"message","content":[{"type":"output_text","text":"xy"}]}}"#,
        r#"{"type":"response.completed","response":{"output":[{"id":"a","type":"message","content":[{"type":"output_text","text":"xy"}]}]}}"#,
    ]);
    assert_eq!(
        lines,
        [
            "start  ",
            "begin 0 text",
            "text 0 x",
            "text 0 y",
            "end 0",
            "finish Stop",
            "over"
        ]
    );
    // Nothing but deltas; indexes from one; an end that has no text.
    let lines = read(&[
        r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"x"}"#,
        r#"{"type":"response.output_text.done","output_index":1,"content_index":0,"text":""}"#,
        r#"{"type":"response.completed","response":{"output":[{"id":"q","type":"message","content":[{"type":"output_text","text":"x"}]}]}}"#,
        r#"{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":"late"}"#,
    ]);
    assert_eq!(lines[2..], ["text 0 x", "end 0", "finish Stop", "over"]);
}

#[test]
fn refusals_custom_tools_pictures_and_reasoning_text_are_read() {
    let lines = read(&[
        r#"{"type":"response.reasoning_text.delta","output_index":0,"content_index":0,"delta":"raw"}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"raw!"}]}}"#,
        r#"{"type":"response.refusal.delta","output_index":1,"content_index":0,"delta":"no"}"#,
        r#"{"type":"response.refusal.done","output_index":1,"content_index":0,"refusal":"no!"}"#,
        r#"{"type":"response.output_item.added","output_index":2,"item":{"id":"ctc","type":"custom_tool_call","call_id":"c","name":"patch","input":""}}"#,
        r#"{"type":"response.custom_tool_call_input.delta","output_index":2,"delta":"***"}"#,
        r#"{"type":"response.custom_tool_call_input.done","output_index":2,"input":"*** x"}"#,
        r#"{"type":"response.output_item.done","output_index":2,"item":{"id":"ctc","type":"custom_tool_call","call_id":"c","name":"patch","input":"*** x"}}"#,
        r#"{"type":"response.output_item.done","output_index":3,"item":{"type":"image_generation_call","status":"completed","result":"AAAA"}}"#,
        r#"{"type":"response.output_item.done","output_index":4,"item":{"type":"never_seen"}}"#,
        r#"{"type":"response.never.seen","output_index":4}"#,
        r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}}"#,
    ]);
    assert_eq!(
        lines,
        [
            "start  ",
            "begin 0 reasoning",
            "text 0 raw",
            "text 0 !",
            "end 0",
            "begin 1 refusal",
            "text 1 no",
            "text 1 !",
            "begin 2 custom c /patch",
            "text 2 ***",
            "text 2  x",
            "end 2",
            "begin 3 media",
            "end 3",
            "end 1",
            "finish Length",
            "over"
        ]
    );
}

#[test]
fn failures_are_told_in_every_shape() {
    for (event, wanted) in [
        (
            r#"{"type":"error","code":"rate_limit_exceeded","message":"slow","param":null}"#,
            "slow",
        ),
        (
            r#"{"type":"error","error":{"type":"server_error","code":"x","message":"bad"}}"#,
            "bad",
        ),
        (r#"{"error":{"message":"plain"}}"#, "plain"),
        (
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error","message":"boom"}}}"#,
            "boom",
        ),
        (
            r#"{"type":"response.completed","response":{"status":"failed","error":{"message":"odd"}}}"#,
            "odd",
        ),
        (r#"{"type":"response.output_text.delta","#, "no JSON"),
    ] {
        let lines = read(&[event]);
        let last = lines.last().unwrap();
        assert!(
            last.starts_with("error ") && last.contains(wanted),
            "{last}"
        );
    }
    let lines = read(&[r#"{"type":"response.output_text.delta","output_index":0,"delta":"x"}"#]);
    assert!(
        lines
            .last()
            .unwrap()
            .starts_with("error upstream_truncated")
    );
    assert!(
        read(&[])
            .last()
            .unwrap()
            .starts_with("error upstream_truncated")
    );
}

#[test]
fn a_refusal_refers_to_nothing() {
    let lines = read(&[
        r#"{"type":"response.refusal.delta","output_index":0,"content_index":0,"delta":"no"}"#,
        r#"{"type":"response.output_text.annotation.added","output_index":0,"content_index":0,"annotation":{"url":"u"}}"#,
        r#"{"type":"response.content_part.done","output_index":0,"content_index":0,"part":{"text":"no","annotations":[{"url":"u"},{"url":"v"}]}}"#,
        r#"{"type":"response.completed","response":{"output":[]}}"#,
    ]);
    assert_eq!(lines[1..4], ["begin 0 refusal", "text 0 no", "end 0"]);
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let mut decoder = Decoder::default();
    let mut trace = Trace::default();
    for index in 0..10_000 {
        let event = format!(
            r#"{{"type":"response.output_text.delta","output_index":{index},"delta":"x"}}"#
        );
        decoder.event(None, event.as_bytes(), &mut |delta| trace.see(&delta));
        if trace.over {
            break;
        }
    }
    assert!(trace.over && trace.parts < 5000);
}

/// Pieces of events, to be put together as they come.
fn event() -> impl Strategy<Value = String> {
    let kind = prop_oneof![
        Just("response.created"),
        Just("response.output_item.added"),
        Just("response.content_part.added"),
        Just("response.output_text.delta"),
        Just("response.output_text.done"),
        Just("response.output_text.annotation.added"),
        Just("response.refusal.delta"),
        Just("response.refusal.done"),
        Just("response.content_part.done"),
        Just("response.function_call_arguments.delta"),
        Just("response.function_call_arguments.done"),
        Just("response.custom_tool_call_input.delta"),
        Just("response.reasoning_summary_text.delta"),
        Just("response.reasoning_summary_text.done"),
        Just("response.reasoning_text.delta"),
        Just("response.output_item.done"),
        Just("response.completed"),
        Just("x"),
    ];
    let item = prop_oneof![
        Just(
            r#"{"id":"a","type":"message","content":[{"type":"output_text","text":"long text","annotations":[{"url":"u"}]},{"type":"refusal","refusal":"r"}]}"#
        ),
        Just(
            r#"{"id":"b","type":"reasoning","summary":[{"text":"s"},{"text":"long t"}],"content":[{"text":"c"}],"encrypted_content":"e"}"#
        ),
        Just(
            r#"{"id":"c","type":"function_call","call_id":"cc","name":"f","arguments":"{\"a\":\"\\u00e9\"}"}"#
        ),
        Just(r#"{"id":"d","type":"custom_tool_call","call_id":"dd","name":"g","input":"in"}"#),
        Just(r#"{"type":"function_call","name":"g","arguments":{}}"#),
        Just(r#"{"type":"web_search_call","action":{"query":"q"}}"#),
        Just("{}"),
        Just("null"),
        Just("7"),
    ];
    let index = prop_oneof![
        Just("0"),
        Just("1"),
        Just("2"),
        Just("-1"),
        Just("null"),
        Just("\"x\"")
    ];
    let text = prop_oneof![
        Just("\"\""),
        Just("\"a\""),
        Just("\"é\\n\\u00e9\\ud83d\\ude00\""),
        Just("null"),
        Just("[1]")
    ];
    (kind, item, index.clone(), index, text).prop_map(|(kind, item, output, content, text)| {
        format!(
            r#"{{"type":"{kind}","output_index":{output},"content_index":{content},"item_id":{text},"delta":{text},
                "text":{text},"arguments":{text},"item":{item},"part":{item},"annotation":{item},
                "response":{{"id":"r","output":[{item},{item},{{"id":"z","type":"message","content":[{{"text":{text}}}]}}]}}}}"#
        )
    })
}

proptest! {
    #[test]
    fn whatever_comes_the_promises_are_kept(events in proptest::collection::vec(event(), 0..24), cut in 0_usize..400) {
        let mut decoder = Decoder::default();
        let mut trace = Trace::default();
        let mut encoder = Encoder::new(reply(Protocol::Chat));
        let mut out = BytesMut::new();
        for (number, event) in events.iter().enumerate() {
            // One event is cut, anywhere.
            let bytes = event.as_bytes();
            let bytes = if number == cut % 24 && cut % 3 == 0 { bytes.get(..cut).unwrap_or(bytes) } else { bytes };
            decoder.event(None, bytes, &mut |delta| {
                trace.see(&delta);
                encoder.delta(delta, &mut out);
            });
        }
        decoder.finish(&mut |delta| {
            trace.see(&delta);
            encoder.delta(delta, &mut out);
        });
        prop_assert!(trace.over);
        assert_grammar(&super::tests::events(&out));
    }

    #[test]
    fn what_is_written_is_read_again(pieces in proptest::collection::vec("[a-z\"\\\\\n\u{e9}\u{1f642}]{0,6}", 0..12), cuts in 1_usize..5) {
        let whole: String = pieces.concat();
        let value = json!({"text": whole}).to_string();
        let mut deltas = vec![start(), begin(0, PartKind::Text)];
        deltas.extend(pieces.iter().map(|piece| text(0, piece)));
        deltas.extend([end(0), begin(1, call("c", "f", false))]);
        let letters: Vec<char> = value.chars().collect();
        let chunks: Vec<String> = letters.chunks(cuts).map(|chunk| chunk.iter().collect()).collect();
        deltas.extend(chunks.iter().map(|chunk| piece(1, chunk)));
        deltas.extend([end(1), finish(Finish::ToolUse), Delta::End]);
        let events = written(reply(Protocol::Chat), deltas);
        let texts: Vec<String> = events.iter().map(|(_, data)| data.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let lines = read(&texts);
        let joined = |prefix: &str| -> String {
            lines.iter().filter_map(|line| line.strip_prefix(prefix)).collect()
        };
        let number = usize::from(!whole.is_empty());
        prop_assert_eq!(joined("text 0 "), whole);
        prop_assert_eq!(joined(&format!("piece {number} ")), value);
    }
}

#[test]
fn escapes_are_counted_as_what_they_mean() {
    let mut tape = Tape::new();
    for written in [
        r#""a\n\"\\b""#,
        r#""\u0041\u00e9\u20ac\ud83d\ude00x""#,
        r#""é🙂""#,
        r#""""#,
    ] {
        let value = tape.parse(written).unwrap().as_str().unwrap();
        assert_eq!(
            super::decode::plain_length(&value),
            value.plain().len(),
            "{written}"
        );
    }
}

/// What a client that sends an answer's items back makes of them.
fn sent_back<T>(
    upstream: Protocol,
    shown: bool,
    deltas: Vec<Delta<'_>>,
    look: impl FnOnce(&[Part<'_>]) -> T,
) -> T {
    let mut reply = reply(upstream);
    reply.show_reasoning = shown;
    let events = written(reply, deltas);
    let output = &events.last().unwrap().1["response"]["output"];
    let body = json!({"model": "m", "input": output}).to_string();
    let mut tape = Tape::new();
    let mut notes = crate::protocol::notes::Notes::new();
    let root = tape.parse(&body).unwrap();
    let request = crate::protocol::responses::request::decode(root, &mut notes).unwrap();
    assert_eq!(request.turns.len(), 1);
    look(&request.turns[0].parts)
}

#[test]
fn a_foreign_signature_comes_home_with_its_text_shown_or_not() {
    for shown in [true, false] {
        let deltas = vec![
            start(),
            begin(0, PartKind::Reasoning),
            text(0, "let \"me\"\n"),
            text(0, "see"),
            opaque(0, OpaqueKind::AnthropicSignature, "sig+/="),
            end(0),
            begin(1, PartKind::Reasoning),
            opaque(1, OpaqueKind::AnthropicRedacted, "dark"),
            end(1),
            begin(2, call("a", "f", false)),
            end(2),
            finish(Finish::ToolUse),
            Delta::End,
        ];
        sent_back(Protocol::Messages, shown, deltas, |parts| {
            let (Part::Reasoning(thought), Part::Reasoning(redacted)) = (&parts[0], &parts[1])
            else {
                panic!("{parts:?}")
            };
            assert!(thought.text.is("let \"me\"\nsee") && thought.summary.is_empty());
            let opaque = thought.opaque.as_ref().unwrap();
            assert_eq!(opaque.kind, OpaqueKind::AnthropicSignature);
            assert!(opaque.data.is("sig+/="));
            assert!(opaque.account.as_ref().unwrap().is("acct"));
            assert!(redacted.redacted && redacted.opaque.as_ref().unwrap().data.is("dark"));
        });
    }
}

#[test]
fn gemini_signatures_come_home_to_their_own_parts() {
    let deltas = vec![
        start(),
        begin(0, PartKind::Reasoning),
        text(0, "hm"),
        end(0),
        begin(1, PartKind::Text),
        text(1, "hi"),
        opaque(1, OpaqueKind::GeminiSignature, "of text"),
        end(1),
        begin(2, call("a", "f", false)),
        opaque(2, OpaqueKind::GeminiSignature, "of call"),
        end(2),
        begin(3, call("b", "g", false)),
        end(3),
        finish(Finish::ToolUse),
        Delta::End,
    ];
    sent_back(Protocol::Gemini, true, deltas, |parts| {
        assert_eq!(parts.len(), 4, "{parts:?}");
        let Part::Reasoning(thought) = &parts[0] else {
            panic!()
        };
        assert_eq!(thought.opaque.as_ref().unwrap().kind, OpaqueKind::Unsigned);
        let data = |opaque: &Option<Opaque<'_>>| opaque.as_ref().map(|o| o.data.to_plain_string());
        let (Part::Text(text), Part::Call(first), Part::Call(second)) =
            (&parts[1], &parts[2], &parts[3])
        else {
            panic!()
        };
        assert_eq!(data(&text.opaque).as_deref(), Some("of text"));
        assert_eq!(data(&first.opaque).as_deref(), Some("of call"));
        assert_eq!(data(&second.opaque), None);
    });
}
