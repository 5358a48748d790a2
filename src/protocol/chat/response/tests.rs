//! Whole answers of chat: what providers send, and what clients are sent.

use bytes::BytesMut;
use serde_json::{Value as Json, json};

use super::{decode, encode, take_think_tags};
use crate::protocol::Protocol;
use crate::protocol::chat::testing::reply;
use crate::protocol::envelope;
use crate::protocol::error::{ErrorClass, UpstreamError};
use crate::protocol::ir::{
    Annotation, Arguments, Call, Choice, Finish, Opaque, OpaqueKind, Part, Response, Text, Thought,
};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::translate::{ChatReasoning, Reply};

fn read<T>(body: &str, look: impl FnOnce(&Response<'_>) -> T) -> Result<T, UpstreamError> {
    let mut tape = Tape::new();
    let response = decode(tape.parse(body).unwrap())?;
    Ok(look(&response))
}

/// The parts of the first choice in short, and how it ended.
fn parts(body: &str) -> (Vec<String>, Finish) {
    let word = |part: &Part<'_>| match part {
        Part::Text(text) => format!("text {} {}", text.text.plain(), text.annotations.len()),
        Part::Refusal(text) => format!("refusal {}", text.plain()),
        Part::Reasoning(thought) => {
            let blob = thought.opaque.as_ref().map(|opaque| opaque.kind);
            format!("reasoning {} {blob:?}", thought.text.plain())
        }
        Part::Call(call) => {
            let arguments = match &call.arguments {
                Arguments::Object(raw) => raw.as_str().to_owned(),
                Arguments::Text(text) | Arguments::Free(text) => text.to_plain_string(),
            };
            format!("call {} {} {arguments}", call.id.plain(), call.name.plain())
        }
        Part::Media(_) => "media".to_owned(),
        other => format!("{other:?}"),
    };
    read(body, |response| {
        let choice = &response.choices[0];
        (
            choice.parts.iter().map(word).collect(),
            choice.finish.clone().unwrap(),
        )
    })
    .unwrap()
}

fn answer(message: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c1","created":5,"model":"x","choices":[{{"index":0,"message":{message},"finish_reason":{finish}}}]}}"#
    )
}

/// Messages, finish reasons, and what they come to.
type Case = (&'static str, &'static str, &'static [&'static str], Finish);

fn check(cases: Vec<Case>) {
    for (message, finish, wanted, ended) in cases {
        let (found, end) = parts(&answer(message, finish));
        assert_eq!(found, wanted, "{message}");
        assert_eq!(end, ended, "{message}");
    }
}

#[test]
fn calls_are_calls_whatever_the_finish_reason_says() {
    check(vec![
        (
            r#"{"content":"","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}"#,
            r#""stop""#,
            &["call a f {}"],
            Finish::ToolUse,
        ),
        (
            r#"{"content":null,"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"k":1}}}]}"#,
            r#""length""#,
            &[r#"call a f {"k":1}"#],
            Finish::Length,
        ),
        (
            r#"{"content":"x","tool_calls":null}"#,
            r#""tool_calls""#,
            &["text x 0"],
            Finish::Stop,
        ),
        (
            r#"{"function_call":{"id":"l","name":"f","arguments":"{}"}}"#,
            r#""function_call""#,
            &["call l f {}"],
            Finish::ToolUse,
        ),
    ]);
}

#[test]
fn content_and_reasoning_are_read_in_all_their_forms() {
    check(vec![
        (
            r#"{"role":"assistant","content":"hi"}"#,
            r#""stop""#,
            &["text hi 0"],
            Finish::Stop,
        ),
        (
            r#"{"content":"x","reasoning":"r"}"#,
            "null",
            &["reasoning r None", "text x 0"],
            Finish::Stop,
        ),
        (
            r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"type":"text","text":"c"}]}"#,
            r#""model_length""#,
            &["reasoning ab None", "text c 0"],
            Finish::Length,
        ),
        (
            r#"{"content":null,"refusal":"no"}"#,
            r#""stop""#,
            &["refusal no"],
            Finish::Refusal,
        ),
        (
            r#"{"content":"cited","annotations":[{"type":"url_citation","url_citation":{"url":"u","start_index":0,"end_index":3}}],"images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}"#,
            r#""stop""#,
            &["text cited 1", "media"],
            Finish::Stop,
        ),
        (
            r#"{"content":"x","reasoning":"t","reasoning_details":[{"type":"reasoning.text","text":"t","signature":"s","format":"anthropic-claude-v1"}]}"#,
            r#""stop""#,
            &["reasoning t Some(AnthropicSignature)", "text x 0"],
            Finish::Stop,
        ),
    ]);
}

#[test]
fn calls_without_an_id_get_one_that_stays_the_same() {
    let body = answer(
        r#"{"tool_calls":[{"id":"","function":{"name":"f","arguments":"{}"}},{"function":{"name":"g","arguments":"{}"}}]}"#,
        r#""stop""#,
    );
    let ids = || {
        read(&body, |response| {
            let parts = response.choices[0].parts.iter();
            let ids = parts.filter_map(|part| match part {
                Part::Call(call) => Some(call.id.to_plain_string()),
                _ => None,
            });
            ids.collect::<Vec<_>>()
        })
        .unwrap()
    };
    let found = ids();
    assert!(
        found
            .iter()
            .all(|id| id.starts_with("call_") && id.len() == 32),
        "{found:?}"
    );
    assert_ne!(found[0], found[1]);
    assert_eq!(found, ids());
}

#[test]
fn errors_in_the_clothes_of_an_answer_are_errors() {
    for (body, class) in [
        (
            r#"{"error":{"message":"x","code":"rate_limit_exceeded"}}"#,
            ErrorClass::RateLimited,
        ),
        (
            r#"{"choices":[{"error":{"message":"x","code":503}}]}"#,
            ErrorClass::Overloaded,
        ),
        (
            r#"{"choices":[{"finish_reason":"error","message":{"content":"half"}}]}"#,
            ErrorClass::UpstreamFailed,
        ),
        (r#"{"choices":[]}"#, ErrorClass::UpstreamFailed),
        (r#"{"hello":1}"#, ErrorClass::UpstreamFailed),
    ] {
        assert_eq!(read(body, |_| ()).unwrap_err().class, class, "{body}");
    }
    assert!(
        read(
            r#"{"error":null,"choices":[{"message":{"content":"x"}}]}"#,
            |_| ()
        )
        .is_ok()
    );
    assert!(
        read(
            r#"{"error":"","choices":[{"message":{"content":"x"}}]}"#,
            |_| ()
        )
        .is_ok()
    );
}

#[test]
fn think_tags_are_taken_off_when_they_are_known_to_come() {
    let body = answer(r#"{"content":"<think>\nhm</think>\n\nyes"}"#, r#""stop""#);
    let mut tape = Tape::new();
    let mut response = decode(tape.parse(&body).unwrap()).unwrap();
    take_think_tags(&mut response);
    let found: Vec<_> = response.choices[0]
        .parts
        .iter()
        .map(|part| match part {
            Part::Reasoning(thought) => thought.text.to_plain_string(),
            Part::Text(text) => text.text.to_plain_string(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(found, ["\nhm", "yes"]);
}

#[test]
fn several_answers_keep_their_numbers() {
    let body = r#"{"choices":[{"index":1,"message":{"content":"b"}},{"index":0,"message":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}"#;
    let found = read(body, |response| {
        (written(response, &reply(Protocol::Chat)), response.usage)
    })
    .unwrap();
    assert_eq!(found.0["choices"][0]["message"]["content"], "a");
    assert_eq!(found.0["choices"][1]["message"]["content"], "b");
    assert_eq!(found.0["usage"]["total_tokens"], 8);
}

fn written(response: &Response<'_>, reply: &Reply) -> Json {
    let mut out = BytesMut::new();
    encode(response, reply, &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn of(parts: Vec<Part<'static>>, finish: Finish) -> Response<'static> {
    Response {
        choices: vec![Choice {
            parts,
            finish: Some(finish),
            logprobs: Vec::new(),
        }],
        ..Response::default()
    }
}

fn text(text: &'static str) -> Part<'static> {
    Part::Text(Text::new(Str::new(text)))
}

fn thought(text: &'static str, kind: OpaqueKind) -> Part<'static> {
    Part::Reasoning(Thought {
        text: Str::new(text),
        opaque: Some(Opaque {
            kind,
            data: Str::new("blob"),
            model: None,
            account: None,
        }),
        ..Thought::default()
    })
}

fn call(arguments: Arguments<'static>) -> Part<'static> {
    Part::Call(Call {
        id: Str::new("a"),
        name: Str::new("f"),
        namespace: None,
        arguments,
        opaque: Some(Opaque {
            kind: OpaqueKind::GeminiSignature,
            data: Str::new("c2ln"),
            model: None,
            account: None,
        }),
        cache: None,
    })
}

#[test]
fn an_answer_has_all_its_keys() {
    let found = written(
        &of(vec![text("hi")], Finish::StopSequence(None)),
        &reply(Protocol::Messages),
    );
    let wanted = json!({
        "id": "chatcmpl-abc", "object": "chat.completion", "created": 7, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi", "refusal": null, "annotations": []},
            "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}},
    });
    assert_eq!(found, wanted);
}

#[test]
fn calls_are_written_in_the_form_that_the_client_knows() {
    let object = || Arguments::Object(Raw::parse("{ \"k\" : \"v\" }").unwrap());
    let found = written(
        &of(vec![call(object())], Finish::ToolUse),
        &reply(Protocol::Gemini),
    );
    let message = &found["choices"][0]["message"];
    assert_eq!(message["content"], Json::Null);
    // Google's own signature too: most who speak chat would refuse it.
    let signature = &message["tool_calls"][0]["extra_content"]["google"]["thought_signature"];
    assert!(
        signature.as_str().unwrap().starts_with(envelope::MARK),
        "{message}"
    );
    let wanted = json!([{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"k\":\"v\"}"},
        "extra_content": {"google": {"thought_signature": signature}}}]);
    assert_eq!(message["tool_calls"], wanted);
    assert_eq!(found["choices"][0]["finish_reason"], "tool_calls");
    let legacy = Reply {
        legacy_functions: true,
        ..reply(Protocol::Gemini)
    };
    let found = written(&of(vec![call(object())], Finish::ToolUse), &legacy);
    assert_eq!(
        found["choices"][0]["message"]["function_call"],
        json!({"name": "f", "arguments": "{\"k\":\"v\"}"})
    );
    assert_eq!(found["choices"][0]["finish_reason"], "function_call");
    let free = || Arguments::Free(Str::new("a \"b\""));
    let custom = Reply {
        custom_tools: true,
        ..reply(Protocol::Responses)
    };
    let found = written(&of(vec![call(free())], Finish::ToolUse), &custom);
    let entry = &found["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(
        (entry["type"].as_str(), entry["custom"]["input"].as_str()),
        (Some("custom"), Some("a \"b\""))
    );
    let found = written(
        &of(vec![call(free())], Finish::ToolUse),
        &reply(Protocol::Responses),
    );
    let entry = &found["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(entry["function"]["arguments"], r#"{"input":"a \"b\""}"#);
}

#[test]
fn the_filters_own_words_are_the_refusal() {
    let blocked = Finish::ContentFilter {
        category: None,
        text: Some("too hot".into()),
    };
    let found = written(&of(Vec::new(), blocked), &reply(Protocol::Messages));
    let choice = &found["choices"][0];
    assert_eq!(choice["finish_reason"], "content_filter");
    assert_eq!(choice["message"]["refusal"], "too hot");
    assert_eq!(choice["message"]["content"], "");
}

#[test]
fn texts_are_set_apart_where_something_stood_between() {
    let content = |upstream, parts| {
        let found = written(&of(parts, Finish::Stop), &reply(upstream));
        found["choices"][0]["message"]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        content(Protocol::Messages, vec![text("a"), text("b")]),
        "ab"
    );
    assert_eq!(
        content(Protocol::Responses, vec![text("a"), text("b")]),
        "a\n\nb"
    );
    let between = || vec![text("a"), call(Arguments::Text(Str::new(""))), text("b")];
    assert_eq!(content(Protocol::Messages, between()), "a\n\nb");
}

#[test]
fn spans_of_citations_are_those_of_the_whole_content() {
    let cited = Part::Text(Text {
        annotations: vec![Annotation {
            url: Str::new("u"),
            title: None,
            cited: None,
            span: Some((0, 2)),
        }],
        ..Text::new(Str::new("xyz"))
    });
    let found = written(
        &of(vec![text("é🙂"), cited], Finish::Stop),
        &reply(Protocol::Messages),
    );
    let citation = &found["choices"][0]["message"]["annotations"][0]["url_citation"];
    assert_eq!(
        (
            citation["start_index"].as_u64(),
            citation["end_index"].as_u64()
        ),
        (Some(2), Some(4))
    );
}

#[test]
fn reasoning_is_shown_as_the_key_wants_it() {
    let response = || {
        of(
            vec![
                thought("a\n", OpaqueKind::AnthropicSignature),
                thought("b", OpaqueKind::OpenAiEncrypted),
                text("x"),
            ],
            Finish::Stop,
        )
    };
    let message = |reply: &Reply| written(&response(), reply)["choices"][0]["message"].clone();
    let found = message(&reply(Protocol::Messages));
    assert_eq!(found["reasoning_content"], "a\n\n\nb");
    let details = found["reasoning_details"].as_array().unwrap();
    let kinds: Vec<_> = details
        .iter()
        .map(|entry| {
            (
                entry["type"].as_str().unwrap(),
                entry["index"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(kinds, [("reasoning.text", 0), ("reasoning.encrypted", 1)]);
    assert_eq!(details[0]["text"], "a\n");
    assert_eq!(
        (
            details[1]["start_index"].as_u64(),
            details[1]["end_index"].as_u64()
        ),
        (Some(4), Some(5))
    );
    let renamed = message(&Reply {
        chat_reasoning: ChatReasoning::Renamed,
        ..reply(Protocol::Messages)
    });
    assert_eq!(renamed["reasoning"], "a\n\n\nb");
    let hidden = message(&Reply {
        show_reasoning: false,
        ..reply(Protocol::Messages)
    });
    assert_eq!(
        hidden
            .get("reasoning_content")
            .or_else(|| hidden.get("reasoning_details")),
        None
    );
}
