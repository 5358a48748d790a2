//! Whole answers, read and written.

use bytes::BytesMut;

use super::{decode, encode};
use crate::protocol::Protocol;
use crate::protocol::error::ErrorClass;
use crate::protocol::ir::{
    Arguments, Call, Choice, Finish, Opaque, OpaqueKind, Part, Response, Text, Thought,
};
use crate::protocol::json::{Str, Tape};
use crate::protocol::translate::Reply;
use crate::protocol::usage::Tokens;

/// For a client that speaks Messages.
pub(in crate::protocol::messages) fn reply() -> Reply {
    Reply {
        id: "0123456789abcdefghijklmn".into(),
        model: "alias".into(),
        upstream_model: "theirs".into(),
        account: "account".into(),
        created: 1_700_000_000,
        include_usage: true,
        ..Reply::plain(Protocol::Messages, Protocol::Chat)
    }
}

fn written(response: &Response<'_>) -> serde_json::Value {
    let mut out = BytesMut::new();
    encode(response, &reply(), &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn choice(parts: Vec<Part<'static>>, finish: Finish) -> Response<'static> {
    Response {
        choices: vec![Choice {
            parts,
            finish: Some(finish),
            logprobs: Vec::new(),
        }],
        ..Response::default()
    }
}

fn call(arguments: Arguments<'static>) -> Part<'static> {
    Part::Call(Call {
        id: Str::new("call_1"),
        name: Str::new("f"),
        namespace: None,
        arguments,
        opaque: None,
        cache: None,
    })
}

#[test]
fn an_answer_is_read_in_its_order() {
    let text = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-x","content":[
        {"type":"thinking","thinking":"Hm","signature":"AB="},
        {"type":"redacted_thinking","data":"CD="},
        {"type":"text","text":"é "},
        {"type":"text","text":"so","citations":[{"type":"web_search_result_location","url":"https://a.example","title":"A","cited_text":"c","encrypted_index":"e"}]},
        {"type":"server_tool_use","id":"s1","name":"web_search","input":{"query":"q"}},
        {"type":"hologram"},
        {"type":"web_search_tool_result","tool_use_id":"s1","content":[{"type":"web_search_result","url":"https://b.example","title":"B"}]},
        {"type":"tool_use","id":"t1","name":"f","input":{"b":1,"a":1.50}}],
        "stop_reason":"end_turn","stop_sequence":null,
        "usage":{"input_tokens":120,"cache_read_input_tokens":3000,"output_tokens":900,"service_tier":"priority","server_tool_use":{"web_search_requests":2}}}"#;
    let mut tape = Tape::new();
    let response = decode(tape.parse(text).unwrap()).unwrap();
    let choice = &response.choices[0];
    assert_eq!(choice.finish, Some(Finish::ToolUse));
    assert_eq!(choice.parts.len(), 5);
    let (Part::Reasoning(first), Part::Reasoning(second)) = (&choice.parts[0], &choice.parts[1])
    else {
        panic!("{choice:?}");
    };
    assert_eq!(
        first.opaque.as_ref().unwrap().kind,
        OpaqueKind::AnthropicSignature
    );
    assert!(second.redacted && second.text.is_empty());
    let Part::Text(said) = &choice.parts[2] else {
        panic!("{choice:?}");
    };
    assert!(said.text.is("é so"));
    assert_eq!(said.annotations[0].span, Some((2, 4)));
    let Part::Hosted(hosted) = &choice.parts[3] else {
        panic!("{choice:?}");
    };
    assert!(hosted.sources[0].url.is("https://b.example"));
    assert_eq!(hosted.native.len(), 2);
    let Part::Call(call) = &choice.parts[4] else {
        panic!("{choice:?}");
    };
    assert!(
        matches!(&call.arguments, Arguments::Object(raw) if raw.as_str() == r#"{"b":1,"a":1.50}"#)
    );
    assert_eq!(response.usage.unwrap().cache_read, Some(3000));
    assert_eq!(response.web_searches, Some(2));
    assert!(response.service.unwrap().is("priority"));
}

#[test]
fn an_error_in_the_clothes_of_an_answer_is_one() {
    let mut tape = Tape::new();
    let text = r#"{"type":"error","error":{"type":"overloaded_error","message":"no"}}"#;
    let error = decode(tape.parse(text).unwrap()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Overloaded);
    for text in ["{}", "[]", "null", r#"{"content":"x"}"#] {
        assert!(decode(tape.parse(text).unwrap()).is_err(), "{text}");
    }
}

#[test]
fn the_skeleton_is_whole_even_where_nothing_was_said() {
    let answer = written(&choice(Vec::new(), Finish::Stop));
    assert_eq!(
        answer,
        serde_json::json!({
            "id": "msg_0123456789abcdefghijklmn", "type": "message", "role": "assistant", "model": "alias",
            "content": [], "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
                "output_tokens": 0, "service_tier": "standard"}})
    );
}

#[test]
fn arguments_are_objects_and_half_a_call_is_left_out() {
    let parts = vec![
        Part::Text(Text::new(Str::new("a"))),
        call(Arguments::Text(Str::new("{\"x\":"))),
    ];
    let answer = written(&choice(parts.clone(), Finish::Length));
    assert_eq!(answer["content"].as_array().unwrap().len(), 1);
    assert_eq!(answer["stop_reason"], "max_tokens");
    let answer = written(&choice(parts, Finish::Stop));
    assert_eq!(
        answer["content"][1]["input"],
        serde_json::json!({"_raw": "{\"x\":"})
    );
    assert_eq!(answer["stop_reason"], "tool_use");
}

#[test]
fn a_refusal_keeps_its_details() {
    let finish = Finish::ContentFilter {
        category: Some("cyber".into()),
        text: None,
    };
    let answer = written(&choice(vec![Part::Refusal(Str::new("No."))], finish));
    assert_eq!(answer["content"][0]["text"], "No.");
    assert_eq!(answer["stop_reason"], "refusal");
    assert_eq!(
        answer["stop_details"],
        serde_json::json!({"type": "refusal", "category": "cyber", "explanation": null})
    );
}

#[test]
fn reasoning_of_others_travels_in_envelopes_and_native_blobs_as_they_are() {
    let thought = |text: &'static str, kind, data: &'static str| {
        Part::Reasoning(Thought {
            text: Str::new(text),
            opaque: Some(Opaque {
                kind,
                data: Str::new(data),
                model: None,
                account: None,
            }),
            ..Thought::default()
        })
    };
    let mut signed = call(Arguments::Text(Str::new("")));
    if let Part::Call(call) = &mut signed {
        call.opaque = Some(Opaque {
            kind: OpaqueKind::GeminiSignature,
            data: Str::new("c2ln"),
            model: None,
            account: None,
        });
    }
    let parts = vec![
        thought("a", OpaqueKind::AnthropicSignature, "NATIVE"),
        thought("b", OpaqueKind::OpenAiEncrypted, "gAAA"),
        thought("", OpaqueKind::OpenAiEncrypted, "gBBB"),
        Part::Reasoning(Thought {
            summary: vec![Str::new("c"), Str::new("d")],
            ..Thought::default()
        }),
        Part::Reasoning(Thought::default()),
        signed,
    ];
    let answer = written(&choice(parts, Finish::ToolUse));
    let content = answer["content"].as_array().unwrap();
    assert_eq!(content[0]["signature"], "NATIVE");
    assert!(
        content[1]["signature"]
            .as_str()
            .unwrap()
            .starts_with("UExYM")
    );
    assert!(content[2]["data"].as_str().unwrap().starts_with("UExYM"));
    assert_eq!(content[3]["thinking"], "c\n\nd");
    assert!(
        content[3]["signature"]
            .as_str()
            .unwrap()
            .starts_with("UExYM")
    );
    assert_eq!(content[4]["type"], "redacted_thinking");
    assert_eq!(content[5]["input"], serde_json::json!({}));
    assert_eq!(content.len(), 6);
}

#[test]
fn tokens_are_told_in_anthropics_way() {
    let response = Response {
        usage: Some(Tokens {
            input: Some(60),
            cache_read: Some(40),
            tool_prompt: Some(50),
            cache_write_other: Some(5),
            output: Some(7),
            reasoning: Some(3),
            ..Tokens::default()
        }),
        ..choice(Vec::new(), Finish::Stop)
    };
    let usage = &written(&response)["usage"];
    assert_eq!(usage["input_tokens"], 110);
    assert_eq!(usage["cache_read_input_tokens"], 40);
    assert_eq!(usage["cache_creation"]["ephemeral_5m_input_tokens"], 5);
    assert_eq!(usage["output_tokens"], 10);
    assert_eq!(usage["output_tokens_details"]["thinking_tokens"], 3);
}
