//! What early events, documents and usage events are taken for.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn word(opening: &Opening) -> &'static str {
    match opening {
        Opening::Wait => "wait",
        Opening::Content => "content",
        Opening::End => "end",
        Opening::Failure(_) => "failure",
    }
}

/// Asserts what each event, given as name and data, comes to.
fn assert_all(protocol: Protocol, expected: &str, events: &[(&str, &str)]) {
    for (name, data) in events {
        let name = Some(*name).filter(|name| !name.is_empty());
        let opening = classify(protocol, name, data.as_bytes());
        assert_eq!(word(&opening), expected, "{protocol} {name:?} {data}");
    }
}

fn chunk(delta: &str, rest: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","choices":[{{"index":0,"delta":{delta}{rest}}}]}}"#
    )
}

#[test]
fn chat_waits_through_roles_and_empty_deltas() {
    for delta in [
        r#"{"role":"assistant"}"#,
        r#"{"role":"assistant","content":"","refusal":null}"#,
        r#"{"role":"assistant","content":null,"tool_calls":[],"reasoning_content":""}"#,
        "{}",
        "null",
        r#"{"content":[{"type":"text","text":""}]}"#,
    ] {
        assert_all(
            Protocol::Chat,
            "wait",
            &[("", &chunk(delta, r#","finish_reason":null"#))],
        );
    }
    let others = [
        (
            "",
            r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
        ),
        ("", r#"{"choices":null,"error":null}"#),
        ("", r#"{"choices":[],"usage":{"prompt_tokens":1}}"#),
        (
            "",
            r#"{"error":"","choices":[{"delta":{},"finish_reason":""}]}"#,
        ),
        ("", r#"{"type":"keepalive"}"#),
        ("", "  "),
    ];
    assert_all(Protocol::Chat, "wait", &others);
}

#[test]
fn chat_text_reasoning_calls_and_finish_are_content() {
    for delta in [
        r#"{"content":"a"}"#,
        r#"{"role":"assistant","content":"a"}"#,
        r#"{"reasoning_content":"a"}"#,
        r#"{"reasoning":"a","content":""}"#,
        r#"{"refusal":"a"}"#,
        r#"{"tool_calls":[{"index":0,"id":"x","type":"function","function":{"name":"f","arguments":""}}]}"#,
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"a"}]}]}"#,
        r#"{"something_new":{"data":"a"}}"#,
    ] {
        assert_all(Protocol::Chat, "content", &[("", &chunk(delta, ""))]);
    }
    assert_all(
        Protocol::Chat,
        "content",
        &[("", &chunk("{}", r#","finish_reason":"stop""#))],
    );
    assert_all(
        Protocol::Completions,
        "content",
        &[("", r#"{"choices":[{"text":"a"}]}"#)],
    );
    assert_all(
        Protocol::Completions,
        "wait",
        &[("", r#"{"choices":[{"text":""}]}"#)],
    );
}

#[test]
fn chat_errors_are_found_wherever_vendors_put_them() {
    let failures = [
        ("", r#"{"error":{"message":"boom","code":502}}"#),
        ("", r#"{"error":"boom"}"#),
        ("", r#"{"id":"c","choices":[],"error":{"message":"boom"}}"#),
        (
            "",
            r#"{"choices":[{"delta":{"content":""},"error":{"message":"boom"}}]}"#,
        ),
        (
            "",
            r#"{"choices":[{"delta":{"content":""},"finish_reason":"error"}]}"#,
        ),
        ("", r#"{"object":"error","message":"boom","code":400}"#),
        ("", r#"{"type":"error","message":"boom"}"#),
        ("", r#"{"status":503,"message":"boom"}"#),
        ("error", r#"{"message":"boom"}"#),
        ("error", "boom"),
        ("", r#"[{"error":{"message":"boom"}}]"#),
        ("", r#""boom""#),
        ("", "<html><title>boom</title>"),
        ("", "boom"),
        ("", r#"{"choices":[{"delta":"#),
    ];
    assert_all(Protocol::Chat, "failure", &failures);
    for (name, data) in failures {
        let name = Some(name).filter(|name| !name.is_empty());
        let Opening::Failure(error) = classify(Protocol::Chat, name, data.as_bytes()) else {
            panic!("not a failure: {data}");
        };
        let silent = data.contains("finish_reason") || data.ends_with(':');
        assert!(
            silent || error.message.contains("boom"),
            "{data}: {}",
            error.message
        );
        assert!(!error.message.is_empty());
    }
}

#[test]
fn done_without_anything_before_it_is_the_end() {
    assert_all(Protocol::Chat, "end", &[("", "[DONE]"), ("", " [DONE]\n")]);
    assert_all(Protocol::Responses, "end", &[("", "[DONE]")]);
    assert_all(
        Protocol::Messages,
        "end",
        &[("message_stop", r#"{"type":"message_stop"}"#)],
    );
}

#[test]
fn json_of_an_unknown_shape_is_content() {
    assert_all(
        Protocol::Chat,
        "content",
        &[("", r#"{"choices":{"new":"shape"}}"#)],
    );
    assert_all(
        Protocol::Gemini,
        "content",
        &[("", r#"{"candidates":"new"}"#)],
    );
}

#[test]
fn responses_waits_until_a_delta_has_something_in_it() {
    let large = format!(
        r#"{{"type":"response.created","response":{{"error":null,"instructions":"{}"}}}}"#,
        "x".repeat(5000)
    );
    let waits = [
        ("response.created", large.as_str()),
        ("", large.as_str()),
        ("response.in_progress", r#"{"type":"response.in_progress"}"#),
        ("response.queued", "{}"),
        (
            "response.output_item.added",
            r#"{"item":{"type":"function_call","name":"f"}}"#,
        ),
        (
            "response.content_part.added",
            r#"{"part":{"type":"output_text","text":""}}"#,
        ),
        (
            "response.output_text.delta",
            r#"{"type":"response.output_text.delta","delta":""}"#,
        ),
        ("", r#"{"type":"response.output_text.delta","delta":""}"#),
        ("keepalive", r#"{"type":"keepalive"}"#),
        ("codex.rate_limits", r#"{"type":"codex.rate_limits"}"#),
    ];
    assert_all(Protocol::Responses, "wait", &waits);
    let content = [
        ("response.output_text.delta", r#"{"delta":"a"}"#),
        (
            "",
            r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
        ),
        (
            "message",
            r#"{"type":"response.reasoning_summary_text.delta","delta":"a"}"#,
        ),
        ("response.output_item.done", r#"{"item":{}}"#),
        ("response.web_search_call.searching", "{}"),
        (
            "response.completed",
            r#"{"response":{"status":"completed"}}"#,
        ),
        (
            "response.incomplete",
            r#"{"response":{"status":"incomplete"}}"#,
        ),
    ];
    assert_all(Protocol::Responses, "content", &content);
}

#[test]
fn responses_errors_come_flat_nested_or_as_failed() {
    let failures = [
        (
            "error",
            r#"{"type":"error","code":"rate_limit_exceeded","message":"boom","param":null}"#,
        ),
        (
            "",
            r#"{"type":"error","code":"rate_limit_exceeded","message":"boom"}"#,
        ),
        (
            "error",
            r#"{"type":"error","error":{"code":"rate_limit_exceeded","message":"boom"}}"#,
        ),
        (
            "response.failed",
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"boom"}}}"#,
        ),
        (
            "",
            r#"{"error":{"code":"rate_limit_exceeded","message":"boom"}}"#,
        ),
    ];
    for (name, data) in failures {
        let name = Some(name).filter(|name| !name.is_empty());
        let Opening::Failure(error) = classify(Protocol::Responses, name, data.as_bytes()) else {
            panic!("not a failure: {data}");
        };
        assert_eq!(
            (error.class, error.message.as_str()),
            (ErrorClass::RateLimited, "boom"),
            "{data}"
        );
    }
    assert_all(
        Protocol::Responses,
        "failure",
        &[
            ("response.created", "<html>"),
            ("response.created", "nonsense"),
        ],
    );
}

#[test]
fn messages_waits_through_starts_and_pings() {
    let waits = [
        (
            "message_start",
            r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":9}}}"#,
        ),
        ("ping", r#"{"type": "ping"}"#),
        ("", r#"{"type":"ping"}"#),
        (
            "content_block_start",
            r#"{"content_block":{"type":"text","text":""}}"#,
        ),
        (
            "content_block_start",
            r#"{"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        ),
        (
            "content_block_start",
            r#"{"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
        ),
        (
            "content_block_delta",
            r#"{"delta":{"type":"text_delta","text":""}}"#,
        ),
        (
            "content_block_delta",
            r#"{"delta":{"type":"input_json_delta","partial_json":""}}"#,
        ),
        ("content_block_stop", r#"{"index":0}"#),
        (
            "message_delta",
            r#"{"delta":{"stop_reason":null},"usage":{}}"#,
        ),
        ("vendor_event", r#"{"type":"vendor_event"}"#),
    ];
    assert_all(Protocol::Messages, "wait", &waits);
}

#[test]
fn messages_deltas_whole_blocks_and_stop_reasons_are_content() {
    let content = [
        (
            "content_block_delta",
            r#"{"delta":{"type":"text_delta","text":"a"}}"#,
        ),
        (
            "",
            r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"a"}}"#,
        ),
        (
            "content_block_delta",
            r#"{"delta":{"type":"input_json_delta","partial_json":"{"}}"#,
        ),
        (
            "content_block_start",
            r#"{"content_block":{"type":"text","text":"a"}}"#,
        ),
        (
            "content_block_start",
            r#"{"content_block":{"type":"redacted_thinking","data":"a"}}"#,
        ),
        (
            "content_block_start",
            r#"{"content_block":{"type":"web_search_tool_result","content":[]}}"#,
        ),
        ("message_delta", r#"{"delta":{"stop_reason":"end_turn"}}"#),
    ];
    assert_all(Protocol::Messages, "content", &content);
}

#[test]
fn messages_errors_need_no_event_name() {
    let failures = [
        (
            "error",
            r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
        ),
        (
            "",
            r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
        ),
        ("", r#"{"error":{"message":"x"}}"#),
        ("message_start", "oops"),
    ];
    assert_all(Protocol::Messages, "failure", &failures);
}

#[test]
fn gemini_shows_parts_finish_and_blocked_prompts() {
    let waits = [
        ("", "{}"),
        (
            "",
            r#"{"usageMetadata":{"promptTokenCount":3},"modelVersion":"g","responseId":"r"}"#,
        ),
        (
            "",
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":""}]},"index":0}]}"#,
        ),
        (
            "",
            r#"{"candidates":[{"content":{"role":"model"},"finishReason":"FINISH_REASON_UNSPECIFIED"}]}"#,
        ),
    ];
    assert_all(Protocol::Gemini, "wait", &waits);
    let content = [
        (
            "",
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#,
        ),
        (
            "",
            r#"{"candidates":[{"content":{"parts":[{"text":"a","thought":true}]}}]}"#,
        ),
        (
            "",
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]}}]}"#,
        ),
        (
            "",
            r#"{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"s"}]}}]}"#,
        ),
        ("", r#"{"candidates":[{"finishReason":"STOP"}]}"#),
        ("", r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#),
        (
            "",
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#,
        ),
    ];
    assert_all(Protocol::Gemini, "content", &content);
    let failures = [
        (
            "",
            r#"{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}"#,
        ),
        ("", r#"[{"error":{"code":503,"message":"x"}}]"#),
        (
            "",
            r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"x"}]}"#,
        ),
    ];
    assert_all(Protocol::Gemini, "failure", &failures);
}

#[test]
fn media_streams_are_content_from_the_first_event() {
    for protocol in [Protocol::Images, Protocol::Speech, Protocol::Transcriptions] {
        assert_all(
            protocol,
            "content",
            &[("", r#"{"type":"speech.audio.delta","audio":"AA=="}"#)],
        );
        assert_all(
            protocol,
            "failure",
            &[
                ("", r#"{"error":{"message":"x"}}"#),
                ("", r#"{"type":"error"}"#),
            ],
        );
    }
}

#[test]
fn a_document_that_is_an_error_is_found_by_its_first_member() {
    let failed = |body: &str| unary_failure(Protocol::Chat, body.as_bytes());
    let boom = failed(r#"  {"error":{"message":"boom","code":429}}"#).unwrap();
    assert_eq!(
        (boom.message.as_str(), boom.class),
        ("boom", ErrorClass::RateLimited)
    );
    assert_eq!(
        failed("\u{feff}{ \"error\" : \"boom\" , \"a\":")
            .unwrap()
            .message,
        "boom"
    );
    assert_eq!(
        failed(r#"{"error":{"message":"boom"},"user_id":"#)
            .unwrap()
            .message,
        "boom"
    );
    assert_eq!(
        failed(r#"[{"error":{"message":"boom"}}]"#).unwrap().message,
        "boom"
    );
    assert_eq!(
        failed(r#"{"type":"error","error":{"type":"x","message":"boom"}}"#)
            .unwrap()
            .message,
        "boom"
    );
    assert_eq!(
        failed(r#"{"object":"error","message":"boom"}"#)
            .unwrap()
            .message,
        "boom"
    );
    assert!(failed(r#"{"error":{"message":"bo"#).is_some());
    assert!(
        failed("<html><title>boom</title>")
            .unwrap()
            .message
            .contains("boom")
    );
    assert!(failed("not json").is_some());
}

#[test]
fn an_ordinary_document_is_no_error_however_little_of_it_is_there() {
    let documents = [
        r#"{"id":"c","choices":[],"error":{"message":"x"}}"#,
        r#"{"error":null,"choices":[]}"#,
        r#"{"error":{ },"choices":[]}"#,
        r#"{"error":"","choices":[]}"#,
        r#"{"error":false}"#,
        r#"{"type":"message","error":{}}"#,
        r#"[{"candidates":[]}]"#,
        "[]",
        "{}",
    ];
    for document in documents {
        for end in 0..=document.len() {
            let prefix = &document.as_bytes()[..end];
            assert!(
                unary_failure(Protocol::Gemini, prefix).is_none(),
                "{document} at {end}"
            );
        }
    }
    assert!(unary_failure(Protocol::Chat, b" \n ").is_none());
}

#[test]
fn speech_and_transcripts_may_be_anything() {
    assert!(unary_failure(Protocol::Speech, b"ID3\x04").is_none());
    assert!(unary_failure(Protocol::Transcriptions, b"Hello there").is_none());
    assert!(unary_failure(Protocol::Images, b"Hello there").is_some());
}

fn cut_out(events: &str) -> Option<&str> {
    usage_event(events.as_bytes()).map(|span| &events[span])
}

#[test]
fn the_usage_event_is_found_with_its_blank_line() {
    let text = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n";
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
    let done = "data: [DONE]\n\n";
    assert_eq!(cut_out(&[text, usage, done].concat()), Some(usage));
    assert_eq!(cut_out(usage), Some(usage));
    assert_eq!(cut_out(&[usage, usage].concat()), Some(usage));
    for ends in ["\r\n", "\r"] {
        let events = [text, usage, done].concat().replace('\n', ends);
        assert_eq!(cut_out(&events), Some(usage.replace('\n', ends).as_str()));
    }
    let odd =
        ": note\nevent: x\ndata:{\"usage\" : {\"total_tokens\":1},\ndata: \"choices\" : [ ] }\n\n";
    assert_eq!(cut_out(&[text, odd, done].concat()), Some(odd));
    assert_eq!(cut_out(usage.trim_end()), Some(usage.trim_end()));
}

#[test]
fn what_only_resembles_a_usage_event_stays() {
    for events in [
        "",
        "data: [DONE]\n\n",
        "data: {\"choices\":[],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[{\"delta\":{}}],\"usage\":{\"total_tokens\":1}}\n\n",
        "data: {\"choices\":[{\"a\":{\"choices\":[]}}],\"usage\":{\"total_tokens\":1}}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"choices\\\":[],\\\"usage\\\":{}\"}}]}\n\n",
        ": \"choices\":[] \"usage\":{}\n\n",
    ] {
        assert_eq!(cut_out(events), None, "{events}");
    }
}

fn event_text() -> impl Strategy<Value = (String, bool)> {
    let usage = json!({"choices": [], "usage": {"total_tokens": 3}});
    let data = prop_oneof![
        Just((usage, true)),
        Just((json!({"choices": [], "usage": null}), false)),
        Just((
            json!({"choices": [{"choices": []}], "usage": {"a": 1}}),
            false
        )),
        "[a-z\"\\\\{}:\\[\\]]{0,12}"
            .prop_map(|text| (json!({"choices": [{"delta": text}]}), false)),
    ];
    let ends = proptest::sample::select(vec!["\n", "\r\n", "\r"]);
    (data, ends, any::<bool>()).prop_map(|((data, is_usage), end, comment)| {
        let comment = if comment {
            format!(": \"choices\":[]{end}")
        } else {
            String::new()
        };
        (format!("{comment}data: {data}{end}{end}"), is_usage)
    })
}

proptest! {
    #[test]
    fn cutting_takes_out_exactly_the_usage_events(events in proptest::collection::vec(event_text(), 0..8)) {
        let mut rest: String = events.iter().map(|(text, _)| text.as_str()).collect();
        let expected: String = events.iter().filter(|(_, usage)| !usage).map(|(text, _)| text.as_str()).collect();
        let mut kept = String::new();
        while let Some(span) = usage_event(rest.as_bytes()) {
            kept.push_str(&rest[..span.start]);
            rest = rest[span.end..].to_owned();
        }
        kept.push_str(&rest);
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn nothing_from_the_network_panics(
        data in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            "(\\{|\\}|\\[|\\]|\"|:|,|error|type|choices|delta|data:|null|1|\r|\n| |é){0,60}".prop_map(String::into_bytes),
        ],
        name in proptest::option::of("(error|response\\.created|ping|message_delta|content_block_start|x\\.delta|)"),
    ) {
        for protocol in Protocol::ALL {
            let _ = (classify(protocol, name.as_deref(), &data), unary_failure(protocol, &data));
        }
        if let Some(span) = usage_event(&data) {
            prop_assert!(span.start < span.end && span.end <= data.len());
        }
    }

    #[test]
    fn text_anywhere_in_a_delta_is_substance(name in "[a-z_]{1,8}", text in ".{0,5}", depth in 0usize..5) {
        prop_assume!(name != "role" && name != "type");
        let value = (0..depth).fold(json!(text), |inner, level| if level % 2 == 0 { json!([inner, 1]) } else { json!({"k": inner}) });
        let Substance(found) = serde_json::from_value(json!({"role": "assistant", name: value})).unwrap();
        prop_assert_eq!(found, !text.is_empty());
    }
}

#[test]
fn depth_is_limited_not_followed() {
    let deep = format!(
        r#"{{"choices":[{{"delta":{}1{}}}]}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(
        word(&classify(Protocol::Chat, None, deep.as_bytes())),
        "failure"
    );
    let document = format!(
        r#"{{"error":{}1{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(unary_failure(Protocol::Chat, document.as_bytes()).is_some());
}
