//! Whole answers, both ways.

use bytes::BytesMut;
use serde_json::{Value as Tree, json};

use super::{decode, encode};
use crate::protocol::Protocol;
use crate::protocol::envelope;
use crate::protocol::error::ErrorClass;
use crate::protocol::ir::{
    Annotation, Arguments, Call, Choice, Finish, HostedKind, MediaKind, Opaque, OpaqueKind, Part,
    Response, Text, Thought,
};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::translate::Reply;
use crate::protocol::usage::Tokens;

fn reply(show_reasoning: bool) -> Reply {
    Reply {
        id: "ID".into(),
        model: "alias".into(),
        upstream_model: "claude".into(),
        account: "account".into(),
        include_usage: true,
        show_reasoning,
        ..Reply::plain(Protocol::Gemini, Protocol::Messages)
    }
}

fn written(response: &Response<'_>, show_reasoning: bool) -> Tree {
    let mut out = BytesMut::new();
    encode(response, &reply(show_reasoning), &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn with_response<T>(body: &Tree, look: impl FnOnce(Response<'_>) -> T) -> T {
    let text = body.to_string();
    let mut tape = Tape::new();
    look(decode(tape.parse(&text).unwrap()).unwrap())
}

fn choice(parts: Vec<Part<'_>>, finish: Finish) -> Response<'_> {
    Response {
        choices: vec![Choice {
            parts,
            finish: Some(finish),
            logprobs: Vec::new(),
        }],
        usage: Some(Tokens {
            input: Some(3),
            output: Some(4),
            ..Tokens::default()
        }),
        ..Response::default()
    }
}

#[test]
fn every_sort_of_part_is_read_in_its_order() {
    let body = json!({"candidates": [{"content": {"role": "model", "parts": [
        {"text": "hm", "thought": true, "thoughtSignature": "czE="}, {"text": "é "}, {"text": "the end"},
        {"functionCall": {"name": "f", "args": {"z": 1}}, "thoughtSignature": "czI="},
        {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]},
        "finishReason": "STOP", "index": 0,
        "groundingMetadata": {"webSearchQueries": ["q"], "groundingChunks": [{"web": {"uri": "https://a"}}],
            "groundingSupports": [{"segment": {"startIndex": 3, "endIndex": 6}, "groundingChunkIndices": [0]}]}}],
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}, "modelVersion": "m", "responseId": "r"});
    with_response(&body, |response| {
        assert!(response.upstream_id.unwrap().is("r") && response.upstream_model.unwrap().is("m"));
        assert_eq!(response.usage.unwrap().output, Some(4));
        assert_eq!(response.web_searches, Some(1));
        let choice = &response.choices[0];
        assert_eq!(choice.finish, Some(Finish::ToolUse));
        let [
            Part::Reasoning(thought),
            Part::Text(text),
            Part::Call(call),
            Part::Media(medium),
            Part::Hosted(search),
        ] = &choice.parts[..]
        else {
            panic!("{choice:?}")
        };
        assert!(thought.opaque.is_some() && text.text.is("é the end"));
        assert_eq!(text.annotations[0].span, Some((2, 5)));
        assert!(call.opaque.is_some() && call.id.plain().starts_with("call_"));
        assert_eq!(
            (medium.kind, search.kind),
            (MediaKind::Image, HostedKind::WebSearch)
        );
    });
}

#[test]
fn candidates_keep_their_places() {
    let one = |index: usize| json!({"index": index, "content": {"parts": [{"text": format!("{index}")}]}, "finishReason": "STOP"});
    with_response(&json!({"candidates": [one(1), one(0)]}), |response| {
        let texts: Vec<_> = response
            .choices
            .iter()
            .map(|c| format!("{:?}", c.parts.len()))
            .collect();
        assert_eq!(texts, ["1", "1"]);
        assert!(matches!(&response.choices[0].parts[0], Part::Text(text) if text.text.is("0")));
    });
}

#[test]
fn a_refused_prompt_an_error_and_nonsense_are_told_apart() {
    with_response(
        &json!({"promptFeedback": {"blockReason": "SAFETY"}}),
        |response| {
            assert!(matches!(
                &response.choices[0].finish,
                Some(Finish::ContentFilter { .. })
            ));
        },
    );
    let failed = |body: Tree| {
        let text = body.to_string();
        let mut tape = Tape::new();
        decode(tape.parse(&text).unwrap()).unwrap_err().class
    };
    let error = json!({"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}});
    assert_eq!(failed(error.clone()), ErrorClass::RateLimited);
    assert_eq!(failed(json!([error])), ErrorClass::RateLimited);
    assert_eq!(failed(json!({"hello": 1})), ErrorClass::UpstreamFailed);
    assert_eq!(failed(json!(7)), ErrorClass::UpstreamFailed);
    with_response(
        &json!({"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}),
        |response| {
            assert!(matches!(
                &response.choices[0].finish,
                Some(Finish::BadToolCall(_))
            ));
        },
    );
}

#[test]
fn an_answer_is_written_with_all_its_members() {
    let call = Call {
        id: Str::new("toolu_1"),
        name: Str::new("f"),
        namespace: None,
        arguments: Arguments::Text(Str::new("{\"a\": 1}")),
        opaque: None,
        cache: None,
    };
    let response = choice(
        vec![Part::Text(Text::new(Str::new("a"))), Part::Call(call)],
        Finish::ToolUse,
    );
    let written = written(&response, false);
    // By this the call is known again as one that Google did not make.
    let mark = &written["candidates"][0]["content"]["parts"][1]["thoughtSignature"];
    assert!(
        mark.as_str().unwrap().starts_with(envelope::MARK),
        "{written}"
    );
    assert_eq!(
        written,
        json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "a"},
            {"functionCall": {"id": "toolu_1", "name": "f", "args": {"a": 1}}, "thoughtSignature": mark}]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 3}]},
            "modelVersion": "alias", "responseId": "ID"})
    );
}

#[test]
fn there_is_always_a_part_and_a_filter_says_why() {
    let finish = Finish::ContentFilter {
        category: Some("cyber".to_owned()),
        text: Some("no".to_owned()),
    };
    let candidate = written(&choice(Vec::new(), finish), false)["candidates"][0].clone();
    assert_eq!(
        candidate,
        json!({"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "SAFETY", "finishMessage": "no", "index": 0})
    );
}

#[test]
fn hidden_reasoning_leaves_its_blob_on_the_next_part() {
    let thought = Thought {
        text: Str::new("hm"),
        opaque: Some(Opaque {
            kind: OpaqueKind::AnthropicSignature,
            data: Str::new("c2ln"),
            model: None,
            account: None,
        }),
        ..Thought::default()
    };
    let response = choice(
        vec![
            Part::Reasoning(thought),
            Part::Text(Text::new(Str::new("a"))),
        ],
        Finish::Stop,
    );
    let hidden = written(&response, false)["candidates"][0]["content"]["parts"].clone();
    assert_eq!(hidden.as_array().unwrap().len(), 1);
    assert!(hidden[0]["text"] == "a" && hidden[0].get("thoughtSignature").is_some());
    let shown = written(&response, true)["candidates"][0]["content"]["parts"].clone();
    assert_eq!(shown[0], json!({"text": "hm", "thought": true}));
    assert!(shown[1].get("thoughtSignature").is_some());
    assert_eq!(shown[2], json!({"text": "a"}));
}

#[test]
fn references_say_their_words() {
    let text = Text {
        annotations: vec![Annotation {
            url: Str::new("https://a"),
            title: None,
            cited: None,
            span: Some((2, 5)),
        }],
        ..Text::new(Str::new("é the"))
    };
    let metadata = written(&choice(vec![Part::Text(text)], Finish::Stop), false);
    assert_eq!(
        metadata["candidates"][0]["groundingMetadata"]["groundingSupports"][0]["segment"],
        json!({"startIndex": 3, "endIndex": 6, "text": "the"})
    );
}

#[test]
fn probabilities_are_written() {
    let mut response = choice(vec![Part::Text(Text::new(Str::new("a")))], Finish::Stop);
    let token = r#"{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}"#;
    response.choices[0].logprobs = vec![Raw::parse(token).unwrap()];
    let written = written(&response, false);
    assert_eq!(
        written["candidates"][0]["logprobsResult"]["chosenCandidates"],
        json!([{"token": "a", "logProbability": -0.5}])
    );
}

proptest::proptest! {
    #[test]
    fn no_answer_panics(at in 0_usize..500, byte in proptest::prelude::any::<u8>()) {
        let body = json!({"candidates": [{"content": {"parts": [{"text": "é"}, {"functionCall": {"name": "f", "args": {}}},
            {"executableCode": {"code": "1"}}, {"codeExecutionResult": {"outcome": "OUTCOME_OK"}}]}, "finishReason": "STOP",
            "groundingMetadata": {"groundingChunks": [{"web": {"uri": "u"}}], "groundingSupports": [{"segment": {"startIndex": 1, "endIndex": 2}, "groundingChunkIndices": [0]}]}}],
            "usageMetadata": {"promptTokenCount": 1}});
        let mut bytes = body.to_string().into_bytes();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let mut tape = Tape::new();
        if let Ok(root) = tape.parse_bytes(&bytes)
            && let Ok(response) = decode(root)
        {
            written(&response, true);
        }
    }
}
