//! Whole answers, read and written.

use bytes::BytesMut;
use serde_json::{Value as Json, json};

use super::{decode, encode};
use crate::protocol::Protocol;
use crate::protocol::error::UpstreamError;
use crate::protocol::ir::{Arguments, Finish, Part, Response};
use crate::protocol::json::{Str, Tape};
use crate::protocol::responses::stream::{Decoder, Encoder, reply_for_tests};
use crate::protocol::usage::Tokens;

fn with<T>(body: &str, look: impl FnOnce(Result<Response<'_>, UpstreamError>) -> T) -> T {
    let mut tape = Tape::new();
    look(decode(tape.parse(body).unwrap()))
}

fn again(response: &Response<'_>) -> Json {
    let mut out = BytesMut::new();
    encode(response, &reply_for_tests(Protocol::Chat), &mut out);
    serde_json::from_slice(&out).unwrap()
}

const WHOLE: &str = r#"{"id":"resp_up","object":"response","status":"completed","model":"gpt","service_tier":"default","error":null,
    "output":[
        {"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"blob"},
        {"id":"msg_1","type":"message","role":"assistant","content":[
            {"type":"output_text","text":"a\u00e9","annotations":[{"type":"url_citation","url":"u","title":"t","start_index":0,"end_index":1}],"logprobs":[{"token":"a","logprob":-1}]}]},
        {"id":"ws_1","type":"web_search_call","status":"completed","action":{"type":"search","query":"q"}},
        {"id":"fc_1","type":"function_call","call_id":"call_1","name":"f","arguments":"{\"n\":12345678901234567890}"},
        {"id":"ctc_1","type":"custom_tool_call","call_id":"call_2","name":"p","input":"raw\n"},
        {"type":"never_seen"}],
    "usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":30,"cache_write_tokens":20},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":4}}}"#;

#[test]
fn every_item_is_read_in_its_place() {
    with(WHOLE, |response| {
        let response = response.unwrap();
        let choice = &response.choices[0];
        assert_eq!(choice.finish, Some(Finish::ToolUse));
        assert_eq!(choice.logprobs.len(), 1);
        assert_eq!(response.web_searches, Some(1));
        assert!(response.upstream_id.unwrap().is("resp_up"));
        assert_eq!(response.usage.unwrap().cache_read, Some(30));
        let parts = &choice.parts;
        assert_eq!(parts.len(), 5);
        assert!(matches!(&parts[0], Part::Reasoning(thought) if thought.opaque.is_some()));
        assert!(
            matches!(&parts[1], Part::Text(text) if text.text.is("aé") && text.annotations[0].span == Some((0, 1)))
        );
        assert!(
            matches!(&parts[4], Part::Call(call) if matches!(&call.arguments, Arguments::Free(text) if text.is("raw\n")))
        );
    });
}

#[test]
fn an_answer_is_written_with_all_members_that_sdks_want() {
    let response = with(WHOLE, |response| again(&response.unwrap()));
    assert_eq!(response["id"], "resp_abcdefghijklmnopqrstuvwx");
    assert_eq!(response["model"], "alias");
    assert_eq!(response["status"], "completed");
    let types: Vec<_> = response["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "reasoning",
            "message",
            "web_search_call",
            "function_call",
            "custom_tool_call"
        ]
    );
    assert_eq!(
        response["output"][3]["arguments"],
        "{\"n\":12345678901234567890}"
    );
    assert_eq!(response["output"][0]["encrypted_content"], "blob");
    assert_eq!(
        response["output"][1]["content"][0]["logprobs"][0]["token"],
        "a"
    );
    assert_eq!(
        response["usage"],
        json!({"input_tokens":100,"input_tokens_details":{"cached_tokens":30,"cache_write_tokens":20},
            "output_tokens":9,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":109})
    );
    for member in [
        "created_at",
        "error",
        "incomplete_details",
        "instructions",
        "metadata",
        "parallel_tool_calls",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "text",
        "truncation",
        "store",
        "reasoning",
    ] {
        assert!(response.get(member).is_some(), "{member}");
    }
}

#[test]
fn a_whole_answer_is_the_last_event_of_its_stream() {
    let events: Vec<String> = with(WHOLE, |response| {
        let response = response.unwrap();
        let mut deltas = Encoder::new(reply_for_tests(Protocol::Chat));
        let mut out = BytesMut::new();
        for (number, part) in response.choices[0].parts.iter().enumerate() {
            crate::protocol::collect::replay_part((0, number), part, &mut |delta| {
                deltas.delta(delta, &mut out)
            });
        }
        let text = String::from_utf8(out.to_vec()).unwrap();
        text.lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(str::to_owned)
            .collect()
    });
    // Read again, the stream says the same.
    let mut decoder = Decoder::default();
    let mut said = String::new();
    for event in &events {
        decoder.event(None, event.as_bytes(), &mut |delta| {
            if let crate::protocol::ir::Delta::Text { text, .. } = delta {
                said.push_str(&text.plain());
            }
        });
    }
    assert_eq!(said, "aéraw\n");
}

#[test]
fn why_it_ended_is_read() {
    for (rest, finish) in [
        (r#""status":"completed","output":[]"#, Finish::Stop),
        (
            r#""output":[{"type":"message","content":[{"type":"refusal","refusal":"no"}]}]"#,
            Finish::Refusal,
        ),
        (
            r#""status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[{"type":"function_call","call_id":"c","name":"f","arguments":"{"}]"#,
            Finish::Length,
        ),
        (
            r#""status":"incomplete","incomplete_details":{"reason":"content_filter"},"output":[]"#,
            Finish::ContentFilter {
                category: None,
                text: None,
            },
        ),
        (
            r#""status":"incomplete","incomplete_details":{"reason":"steered"},"output":[]"#,
            Finish::Other("steered".into()),
        ),
        (r#""status":"incomplete","output":[]"#, Finish::Length),
        (
            r#""status":"cancelled","output":[]"#,
            Finish::Other("cancelled".into()),
        ),
    ] {
        with(&format!("{{{rest}}}"), |response| {
            assert_eq!(
                response.unwrap().choices[0].finish.as_ref(),
                Some(&finish),
                "{rest}"
            );
        });
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    for (body, said) in [
        (r#"{"error":{"message":"bad"}}"#, "bad"),
        (
            r#"{"status":"failed","error":{"code":"server_error","message":"boom"},"output":[]}"#,
            "boom",
        ),
        (r#"{"object":"chat.completion"}"#, "can't be read"),
        ("[]", "can't be read"),
        ("7", "can't be read"),
    ] {
        with(body, |response| {
            let error = response.unwrap_err();
            assert!(error.message.contains(said), "{error:?}");
        });
    }
}

#[test]
fn tokens_of_a_worked_example_add_up() {
    let response = Response {
        usage: Some(Tokens {
            input: Some(120),
            cache_read: Some(3000),
            cache_write_short: Some(400),
            cache_write_long: Some(100),
            output: Some(650),
            reasoning: Some(250),
            ..Tokens::default()
        }),
        service: Some(Str::new("standard")),
        ..Response::default()
    };
    let written = again(&response);
    assert_eq!(written["usage"]["input_tokens"], 3620);
    assert_eq!(written["usage"]["output_tokens"], 900);
    assert_eq!(written["usage"]["total_tokens"], 4520);
    assert_eq!(
        written["usage"]["input_tokens_details"],
        json!({"cached_tokens":3000,"cache_write_tokens":500})
    );
    assert_eq!(written["service_tier"], "default");
}
