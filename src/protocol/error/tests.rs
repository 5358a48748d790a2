//! Errors out and back: shapes, statuses, streams, waits.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CLASSES: [ErrorClass; 17] = [
    ErrorClass::InvalidRequest,
    ErrorClass::Unsupported,
    ErrorClass::ContextLength,
    ErrorClass::ContentBlocked,
    ErrorClass::Auth,
    ErrorClass::Quota,
    ErrorClass::Forbidden,
    ErrorClass::NotFound,
    ErrorClass::Conflict,
    ErrorClass::TooLarge,
    ErrorClass::RateLimited,
    ErrorClass::Internal,
    ErrorClass::UpstreamFailed,
    ErrorClass::UpstreamAuth,
    ErrorClass::Overloaded,
    ErrorClass::Timeout,
    ErrorClass::NotImplemented,
];

/// 2026-01-01T00:00:00Z.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |&(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    fields.iter().map(pair).collect()
}

fn decoded(status: u16, body: &str) -> UpstreamError {
    let status = StatusCode::from_u16(status).unwrap();
    upstream_error(status, body.as_bytes(), &HeaderMap::new(), now())
}

fn wait(status: u16, body: &str, fields: &[(&'static str, &'static str)]) -> Option<f64> {
    let status = StatusCode::from_u16(status).unwrap();
    let error = upstream_error(status, body.as_bytes(), &headers(fields), now());
    error.retry_after.map(|after| after.as_secs_f64())
}

fn encoded(protocol: Protocol, error: &ErrorBody) -> (u16, Value) {
    let (status, body) = encode(protocol, error, "r-1");
    (status.as_u16(), serde_json::from_slice(&body).unwrap())
}

fn full() -> ErrorBody {
    ErrorBody {
        class: ErrorClass::RateLimited,
        message: "slow \"down\"".into(),
        code: None,
        param: None,
        source: Source::Provider,
        attempts: vec![AttemptNote {
            provider: "p".into(),
            model: "m".into(),
            status: Some(429),
            reason: "HTTP 429".into(),
        }],
        retry_after: Some(Duration::from_millis(34_400)),
        quota: None,
    }
}

/// The data of each event, after the event's name.
fn events(bytes: &[u8]) -> Vec<(Option<String>, Value)> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.ends_with("\n\n"));
    let event = |event: &str| {
        let (name, data) = match event.strip_prefix("event: ") {
            Some(rest) => rest
                .split_once('\n')
                .map(|(name, rest)| (Some(name.to_owned()), rest)),
            None => Some((None, event)),
        }
        .unwrap();
        (
            name,
            serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
        )
    };
    text.trim_end().split("\n\n").map(event).collect()
}

#[test]
fn each_protocol_has_its_own_envelope_and_tells_who_spoke() {
    let attempts = json!([{"provider": "p", "model": "m", "status": 429, "reason": "HTTP 429"}]);
    let openai = json!({"error": {
        "message": "slow \"down\"", "type": "rate_limit_error", "param": null,
        "code": "rate_limit_exceeded", "source": "provider", "attempts": attempts,
    }});
    let anthropic = json!({"type": "error", "error": {
        "type": "rate_limit_error", "message": "slow \"down\"", "source": "provider",
        "attempts": attempts,
    }, "request_id": "r-1"});
    let google = json!({"error": {
        "code": 429, "message": "slow \"down\"", "status": "RESOURCE_EXHAUSTED",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}],
        "source": "provider", "attempts": attempts,
    }});
    for protocol in Protocol::ALL {
        let expected = match protocol {
            Protocol::Messages => &anthropic,
            Protocol::Gemini => &google,
            _ => &openai,
        };
        assert_eq!(
            encoded(protocol, &full()),
            (429, expected.clone()),
            "{protocol}"
        );
    }
}

#[test]
fn standard_keys_come_before_ours() {
    let (_, body) = encode(Protocol::Chat, &full(), "r-1");
    let text = std::str::from_utf8(&body).unwrap();
    let places: Vec<usize> = [
        "\"message\"",
        "\"type\"",
        "\"param\"",
        "\"code\"",
        "\"source\"",
        "\"attempts\"",
    ]
    .iter()
    .map(|key| text.find(key).unwrap())
    .collect();
    assert!(places.is_sorted());
}

#[test]
fn statuses_and_words_are_those_of_the_table() {
    type Row = (
        ErrorClass,
        [u16; 3],
        &'static str,
        Option<&'static str>,
        &'static str,
        &'static str,
    );
    const INVALID: &str = "invalid_request_error";
    #[rustfmt::skip]
    let table: [Row; 17] = [
        (ErrorClass::InvalidRequest, [400; 3], INVALID, None, INVALID, "INVALID_ARGUMENT"),
        (ErrorClass::Unsupported, [400; 3], INVALID, Some("unsupported_parameter"), INVALID, "INVALID_ARGUMENT"),
        (ErrorClass::ContextLength, [400; 3], INVALID, Some("context_length_exceeded"), INVALID, "INVALID_ARGUMENT"),
        (ErrorClass::ContentBlocked, [400; 3], INVALID, Some("content_filter"), INVALID, "INVALID_ARGUMENT"),
        (ErrorClass::Auth, [401; 3], INVALID, Some("invalid_api_key"), "authentication_error", "UNAUTHENTICATED"),
        (ErrorClass::Quota, [429, 402, 429], "insufficient_quota", Some("insufficient_quota"), "billing_error", "RESOURCE_EXHAUSTED"),
        (ErrorClass::Forbidden, [403; 3], INVALID, Some("model_not_allowed"), "permission_error", "PERMISSION_DENIED"),
        (ErrorClass::NotFound, [404; 3], INVALID, Some("model_not_found"), "not_found_error", "NOT_FOUND"),
        (ErrorClass::Conflict, [409; 3], INVALID, Some("conflict"), "conflict_error", "ABORTED"),
        (ErrorClass::TooLarge, [413; 3], INVALID, Some("request_too_large"), "request_too_large", "INVALID_ARGUMENT"),
        (ErrorClass::RateLimited, [429; 3], "rate_limit_error", Some("rate_limit_exceeded"), "rate_limit_error", "RESOURCE_EXHAUSTED"),
        (ErrorClass::Internal, [500; 3], "server_error", Some("internal_error"), "api_error", "INTERNAL"),
        (ErrorClass::UpstreamFailed, [502; 3], "server_error", Some("upstream_error"), "api_error", "UNAVAILABLE"),
        (ErrorClass::UpstreamAuth, [502; 3], "server_error", Some("upstream_error"), "api_error", "UNAVAILABLE"),
        (ErrorClass::Overloaded, [503, 529, 503], "server_error", Some("overloaded"), "overloaded_error", "UNAVAILABLE"),
        (ErrorClass::Timeout, [504; 3], "server_error", Some("timeout"), "timeout_error", "DEADLINE_EXCEEDED"),
        (ErrorClass::NotImplemented, [501; 3], INVALID, Some("not_implemented"), INVALID, "UNIMPLEMENTED"),
    ];
    for (class, statuses, kind, code, anthropic, google) in table {
        let error = ErrorBody::new(class, "no".into(), Source::Gateway);
        let (status, body) = encoded(Protocol::Responses, &error);
        assert_eq!(
            (status, &body["error"]["type"], &body["error"]["code"]),
            (statuses[0], &json!(kind), &json!(code))
        );
        let (status, body) = encoded(Protocol::Messages, &error);
        assert_eq!(
            (status, &body["error"]["type"]),
            (statuses[1], &json!(anthropic))
        );
        let (status, body) = encoded(Protocol::Gemini, &error);
        assert_eq!(
            (status, &body["error"]["status"]),
            (statuses[2], &json!(google))
        );
        assert_eq!(body["error"]["code"], json!(statuses[2]));
        assert_eq!(body["error"]["attempts"], json!([]));
    }
}

#[test]
fn a_providers_code_never_hides_a_word_that_clients_act_on() {
    let mut error = full();
    error.code = Some("RESOURCE_EXHAUSTED".into());
    assert_eq!(
        encoded(Protocol::Chat, &error).1["error"]["code"],
        "rate_limit_exceeded"
    );
    error.source = Source::Gateway;
    error.code = Some("concurrency_limit".into());
    assert_eq!(
        encoded(Protocol::Chat, &error).1["error"]["code"],
        "concurrency_limit"
    );
    error.class = ErrorClass::InvalidRequest;
    error.source = Source::Provider;
    error.code = Some("invalid_image".into());
    assert_eq!(
        encoded(Protocol::Chat, &error).1["error"]["code"],
        "invalid_image"
    );
}

#[test]
fn a_field_at_fault_is_named_where_the_protocol_can() {
    let mut error = ErrorBody::new(ErrorClass::Unsupported, "no".into(), Source::Gateway);
    error.param = Some("tools[0]".into());
    error.code = Some("unsupported_tool".into());
    assert_eq!(
        encoded(Protocol::Chat, &error).1["error"]["param"],
        "tools[0]"
    );
    let details = json!({"error_code": "unsupported_tool"});
    assert_eq!(
        encoded(Protocol::Messages, &error).1["error"]["details"],
        details
    );
    let google = &encoded(Protocol::Gemini, &error).1["error"]["details"];
    assert_eq!(google[0]["reason"], "UNSUPPORTED_TOOL");
    assert_eq!(google[1]["fieldViolations"][0]["field"], "tools[0]");
}

#[test]
fn messages_clients_find_the_phrase_they_match_a_long_prompt_by() {
    let mut error = ErrorBody::new(
        ErrorClass::ContextLength,
        "maximum is 8".into(),
        Source::Provider,
    );
    let told = |error: &ErrorBody| encoded(Protocol::Messages, error).1["error"]["message"].clone();
    assert_eq!(told(&error), "prompt is too long: maximum is 8");
    error.message = "prompt is too long: 9 > 8".into();
    assert_eq!(told(&error), "prompt is too long: 9 > 8");
}

#[test]
fn a_chat_stream_fails_with_one_error_and_no_done() {
    let bytes = encode_stream_failure(Protocol::Chat, &full(), "r-1", 7, false);
    let events = events(&bytes);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].0, None);
    assert_eq!(events[0].1["error"]["code"], "rate_limit_exceeded");
    assert!(events[0].1["error"]["param"].is_null());
}

#[test]
fn a_responses_stream_fails_with_an_error_then_response_failed() {
    let bytes = encode_stream_failure(Protocol::Responses, &full(), "r-1", 7, false);
    let events = events(&bytes);
    let names: Vec<_> = events
        .iter()
        .map(|(name, _)| name.as_deref().unwrap())
        .collect();
    assert_eq!(names, ["error", "response.failed"]);
    let (error, failed) = (&events[0].1, &events[1].1);
    assert_eq!(
        (&error["type"], &error["sequence_number"]),
        (&json!("error"), &json!(7))
    );
    assert_eq!(error["code"], "rate_limit_exceeded");
    assert_eq!(error["error"]["message"], "slow \"down\"");
    assert!(error["param"].is_null());
    assert_eq!(
        (&failed["type"], &failed["sequence_number"]),
        (&json!("response.failed"), &json!(8))
    );
    assert_eq!(failed["response"]["status"], "failed");
    let reason = json!({"code": "rate_limit_exceeded", "message": "slow \"down\""});
    assert_eq!(failed["response"]["error"], reason);
}

#[test]
fn response_failed_keeps_to_the_codes_that_sdks_know() {
    for class in CLASSES {
        let error = ErrorBody::new(class, "no".into(), Source::Gateway);
        let bytes = encode_stream_failure(Protocol::Responses, &error, "r", u64::MAX, false);
        let expected = match class {
            ErrorClass::RateLimited => "rate_limit_exceeded",
            ErrorClass::ContextLength => "context_length_exceeded",
            ErrorClass::Quota => "insufficient_quota",
            _ => "server_error",
        };
        assert_eq!(events(&bytes)[1].1["response"]["error"]["code"], expected);
    }
}

#[test]
fn a_messages_stream_fails_with_a_named_event() {
    let bytes = encode_stream_failure(Protocol::Messages, &full(), "r-1", 0, false);
    let events = events(&bytes);
    assert_eq!(events[0].0.as_deref(), Some("error"));
    assert_eq!(events[0].1["type"], "error");
    assert_eq!(events[0].1["request_id"], "r-1");
    assert_eq!(events.len(), 1);
}

#[test]
fn a_gemini_stream_fails_with_error_as_first_key_and_a_number_as_code() {
    for class in CLASSES {
        let error = ErrorBody::new(class, "no".into(), Source::Gateway);
        let bytes = encode_stream_failure(Protocol::Gemini, &error, "r", 0, false);
        assert!(bytes.starts_with(b"data: {\"error\":{\"code\":"));
        let code = events(&bytes)[0].1["error"]["code"].as_u64().unwrap();
        assert!((400..600).contains(&code));
    }
}

#[test]
fn a_gemini_array_that_fails_is_still_valid_json() {
    let tail = encode_stream_failure(Protocol::Gemini, &full(), "r", 0, true);
    let whole = [b"[{\"candidates\":[]}".as_slice(), &tail].concat();
    let elements: Vec<Value> = serde_json::from_slice(&whole).unwrap();
    assert_eq!(elements[1]["error"]["status"], "RESOURCE_EXHAUSTED");
}

#[test]
fn what_is_encoded_is_decoded_to_the_same_class() {
    for protocol in [
        Protocol::Chat,
        Protocol::Messages,
        Protocol::Gemini,
        Protocol::Responses,
    ] {
        for class in CLASSES {
            let (status, body) = encode(
                protocol,
                &ErrorBody::new(class, "no".into(), Source::Gateway),
                "r",
            );
            let expected = match (protocol, class) {
                (_, ErrorClass::Unsupported) => ErrorClass::InvalidRequest,
                (_, ErrorClass::Auth | ErrorClass::Forbidden) => ErrorClass::UpstreamAuth,
                (_, ErrorClass::Internal | ErrorClass::NotImplemented) => {
                    ErrorClass::UpstreamFailed
                }
                (Protocol::Gemini, ErrorClass::UpstreamFailed | ErrorClass::UpstreamAuth) => {
                    ErrorClass::Overloaded
                }
                (_, ErrorClass::UpstreamAuth) => ErrorClass::UpstreamFailed,
                (Protocol::Gemini, ErrorClass::Quota) => ErrorClass::RateLimited,
                (Protocol::Gemini, ErrorClass::ContextLength)
                | (Protocol::Gemini | Protocol::Messages, ErrorClass::ContentBlocked) => {
                    ErrorClass::InvalidRequest
                }
                (_, class) => class,
            };
            let error = upstream_error(status, &body, &HeaderMap::new(), now());
            assert_eq!(error.class, expected, "{protocol} {class:?}");
            let long = class == ErrorClass::ContextLength && protocol == Protocol::Messages;
            assert_eq!(
                error.message,
                if long { "prompt is too long: no" } else { "no" }
            );
        }
    }
}

#[test]
fn a_bare_status_gives_the_class() {
    let table = [
        (400, ErrorClass::InvalidRequest),
        (401, ErrorClass::UpstreamAuth),
        (402, ErrorClass::Quota),
        (403, ErrorClass::UpstreamAuth),
        (404, ErrorClass::NotFound),
        (408, ErrorClass::Timeout),
        (409, ErrorClass::Conflict),
        (413, ErrorClass::TooLarge),
        (422, ErrorClass::InvalidRequest),
        (429, ErrorClass::RateLimited),
        (500, ErrorClass::UpstreamFailed),
        (502, ErrorClass::UpstreamFailed),
        (503, ErrorClass::Overloaded),
        (504, ErrorClass::Timeout),
        (529, ErrorClass::Overloaded),
        (302, ErrorClass::UpstreamFailed),
    ];
    for (status, class) in table {
        assert_eq!(decoded(status, "").class, class, "{status}");
    }
    assert_eq!(decoded(503, " ").message, "HTTP 503 Service Unavailable");
    assert_eq!(decoded(529, "").message, "HTTP 529");
}

#[test]
fn every_shape_of_body_gives_its_message() {
    let bodies = [
        r#"{"error":{"message":"boom","type":"server_error"}}"#,
        r#"{"type":"error","error":{"type":"api_error","message":"boom"}}"#,
        r#"[{"error":{"code":500,"message":"boom","status":"INTERNAL"}}]"#,
        r#"{"error":"boom"}"#,
        r#""boom""#,
        "boom",
        "\u{feff}{\"message\":\"boom\"}",
        r#"{"detail":"boom"}"#,
        r#"{"detail":[{"loc":["body"],"msg":"boom"}]}"#,
        r#"{"object":"error","message":"boom","code":500}"#,
        r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"boom"}}}"#,
        "event: error\ndata: {\"error\":{\"message\":\"boom\"}}\n\n",
        r#"{"error":{"message":"Provider returned error","metadata":{"raw":"{\"error\":{\"message\":\"boom\"}}"}}}"#,
        r#"{"error":{"message":"{\"error\":{\"code\":500,\"message\":\"boom\"}}"}}"#,
    ];
    for body in bodies {
        let error = decoded(500, body);
        assert_eq!(
            (error.message.as_str(), error.class),
            ("boom", ErrorClass::UpstreamFailed),
            "{body}"
        );
    }
}

#[test]
fn a_web_page_is_named_by_its_title_and_blames_nobody_but_the_provider() {
    let page = "<!doctype html><html><head><TITLE> 404 Not Found </TITLE></head>";
    let error = decoded(404, page);
    assert_eq!(error.class, ErrorClass::UpstreamFailed);
    assert_eq!(error.message, "an HTML page, \"404 Not Found\"");
    assert_eq!(decoded(413, page).class, ErrorClass::TooLarge);
    assert_eq!(decoded(429, page).class, ErrorClass::RateLimited);
    assert_eq!(decoded(502, "<html>").message, "an HTML page");
}

#[rustfmt::skip]
const REFINED: [(u16, &str, ErrorClass); 16] = [
    (400, r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#, ErrorClass::ContextLength),
    (400, r#"{"error":{"message":"prompt is too long: 9 > 8","type":"invalid_request_error"}}"#, ErrorClass::ContextLength),
    (400, r#"{"error":{"message":"This model's maximum context length is 8"}}"#, ErrorClass::ContextLength),
    (400, r#"{"error":{"message":"The input token count (9) exceeds the maximum"}}"#, ErrorClass::ContextLength),
    (400, r#"{"error":{"message":"x","code":"content_filter"}}"#, ErrorClass::ContentBlocked),
    (400, r#"{"error":{"message":"Your credit balance is too low"}}"#, ErrorClass::Quota),
    (400, r#"{"error":{"message":"x","details":[{"reason":"API_KEY_INVALID"}],"status":"INVALID_ARGUMENT"}}"#, ErrorClass::UpstreamAuth),
    (400, r#"{"error":{"message":"x","code":"model_not_found"}}"#, ErrorClass::NotFound),
    (400, r#"{"error":{"message":"x","type":"server_error"}}"#, ErrorClass::InvalidRequest),
    (429, r#"{"error":{"message":"x","type":"insufficient_quota"}}"#, ErrorClass::Quota),
    (429, r#"{"error":{"message":"Quota exceeded for requests per minute","status":"RESOURCE_EXHAUSTED"}}"#, ErrorClass::RateLimited),
    (429, r#"{"error":{"message":"usage limit","type":"usage_limit_reached"}}"#, ErrorClass::RateLimited),
    (500, r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#, ErrorClass::Overloaded),
    (500, r#"{"error":{"message":"x","type":"invalid_request_error"}}"#, ErrorClass::UpstreamFailed),
    (404, r#"{"error":{"message":"x","type":"rate_limit_error"}}"#, ErrorClass::NotFound),
    (401, r#"{"error":{"message":"x","type":"invalid_request_error"}}"#, ErrorClass::UpstreamAuth),
];

#[test]
fn words_refine_the_status_but_do_not_contradict_it() {
    for (status, body, class) in REFINED {
        assert_eq!(decoded(status, body).class, class, "{status} {body}");
    }
}

#[test]
fn an_error_in_a_successful_answer_is_classed_by_what_it_says() {
    let table = [
        (
            r#"{"error":{"code":429,"message":"x"}}"#,
            ErrorClass::RateLimited,
        ),
        (
            r#"{"error":{"code":"503","message":"x"}}"#,
            ErrorClass::Overloaded,
        ),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
            ErrorClass::Overloaded,
        ),
        (
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"x"}}"#,
            ErrorClass::InvalidRequest,
        ),
        (r#"{"error":{"message":"x"}}"#, ErrorClass::UpstreamFailed),
        (
            r#"{"error":{"message":"quota exceeded"}}"#,
            ErrorClass::Quota,
        ),
        (
            r#"{"response":{"error":{"code":"context_length_exceeded","message":"x"}}}"#,
            ErrorClass::ContextLength,
        ),
        (
            r#"{"choices":[{"error":{"code":502,"message":"x"}}]}"#,
            ErrorClass::UpstreamFailed,
        ),
    ];
    for (body, class) in table {
        assert_eq!(error_in_answer(body.as_bytes()).class, class, "{body}");
    }
}

#[test]
fn a_code_is_kept_when_it_says_more_than_the_class() {
    let code = |body| decoded(400, body).code;
    assert_eq!(
        code(r#"{"error":{"code":"invalid_image","type":"invalid_request_error"}}"#).unwrap(),
        "invalid_image"
    );
    assert_eq!(
        code(r#"{"error":{"code":null,"type":"insufficient_quota"}}"#).unwrap(),
        "insufficient_quota"
    );
    assert_eq!(
        code(r#"{"error":{"type":"invalid_request_error","details":{"error_code":"e"}}}"#).unwrap(),
        "e"
    );
    assert_eq!(code(r#"{"error":{"type":"invalid_request_error"}}"#), None);
    assert_eq!(
        code(r#"{"error":{"code":400,"status":"INVALID_ARGUMENT"}}"#),
        None
    );
    assert_eq!(code(r#"{"error":{"code":"400","message":"x"}}"#), None);
}

#[test]
fn messages_are_cut_at_characters_and_keys_are_taken_out() {
    let long = decoded(400, &"é".repeat(3000));
    assert_eq!(long.message.chars().count(), 500);
    let quoted = decoded(
        400,
        r#"{"error":{"message":"wrong key: sk-proj-abcdefgh12345678, sent as Bearer 0123456789abcdef."}}"#,
    );
    assert_eq!(
        quoted.message,
        "wrong key: [redacted], sent as Bearer [redacted]"
    );
    let masked = decoded(400, "Incorrect API key provided: sk-abcde*********wxyz");
    assert_eq!(masked.message, "Incorrect API key provided: [redacted]");
    let harmless = decoded(
        400,
        "the sk-learn model gpt-5.2 at eyJ is (not) found, Bearer of news",
    );
    assert_eq!(
        harmless.message,
        "the sk-learn model gpt-5.2 at eyJ is (not) found, Bearer of news"
    );
}

#[test]
fn a_wait_is_read_from_the_fields_that_ask_for_it() {
    assert_eq!(wait(500, "", &[("retry-after", "30")]), Some(30.0));
    assert_eq!(wait(429, "", &[("retry-after", "1.5")]), Some(1.5));
    assert_eq!(
        wait(429, "", &[("retry-after-ms", "250"), ("retry-after", "1")]),
        Some(0.25)
    );
    assert_eq!(
        wait(429, "", &[("retry-after", "Thu, 01 Jan 2026 00:01:00 GMT")]),
        Some(60.0)
    );
    assert_eq!(
        wait(429, "", &[("retry-after", "Wed, 31 Dec 2025 00:00:00 GMT")]),
        Some(0.0)
    );
    assert_eq!(wait(429, "", &[("retry-after", "-3")]), None);
    assert_eq!(wait(429, "", &[("retry-after", "soon")]), None);
    assert_eq!(wait(429, "", &[]), None);
}

#[test]
fn a_wait_is_read_from_the_body() {
    let google = r#"[{"error":{"code":429,"details":[{"@type":"x/ErrorInfo"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.4s"}]}}]"#;
    assert_eq!(wait(429, google, &[]), Some(34.4));
    assert_eq!(
        wait(
            429,
            r#"{"error":{"metadata":{"retry_after_seconds":17}}}"#,
            &[]
        ),
        Some(17.0)
    );
    assert_eq!(
        wait(
            429,
            r#"{"error":{"metadata":{"headers":{"Retry-After":"9"}}}}"#,
            &[]
        ),
        Some(9.0)
    );
    assert_eq!(
        wait(429, r#"{"error":{"resets_in_seconds":3600}}"#, &[]),
        Some(3600.0)
    );
    assert_eq!(
        wait(429, r#"{"error":{"resets_at":1767225660}}"#, &[]),
        Some(60.0)
    );
}

#[test]
fn a_wait_is_read_from_the_message_of_a_limit() {
    let body = |text: &str| json!({"error": {"message": text}}).to_string();
    assert_eq!(
        wait(429, &body("Please try again in 6.2s."), &[]),
        Some(6.2)
    );
    assert_eq!(wait(429, &body("Try again in ~5 min."), &[]), Some(300.0));
    assert_eq!(wait(429, &body("try again in 1m30s"), &[]), Some(90.0));
    assert_eq!(wait(429, &body("retry after 2 m"), &[]), Some(120.0));
    assert_eq!(wait(429, &body("Please retry in 34.4s."), &[]), Some(34.4));
    assert_eq!(wait(429, &body("try again in a while"), &[]), None);
    assert_eq!(wait(429, &body("try again in 20 requests"), &[]), None);
    assert_eq!(wait(400, &body("try again in 6s"), &[]), None);
}

#[test]
fn a_wait_is_read_from_the_limits_that_are_used_up() {
    let openai = [
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "6m0s"),
        ("x-ratelimit-remaining-tokens", "40"),
        ("x-ratelimit-reset-tokens", "9m0s"),
    ];
    assert_eq!(wait(429, "", &openai), Some(360.0));
    assert_eq!(wait(400, "", &openai), None);
    assert_eq!(
        wait(429, "", &[("x-ratelimit-reset-tokens", "12ms")]),
        Some(0.012)
    );
    let anthropic = [
        ("anthropic-ratelimit-requests-remaining", "0"),
        ("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:20Z"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        (
            "anthropic-ratelimit-input-tokens-reset",
            "2026-01-01T00:00:50Z",
        ),
        ("anthropic-ratelimit-output-tokens-remaining", "8"),
        (
            "anthropic-ratelimit-output-tokens-reset",
            "2026-01-01T00:59:00Z",
        ),
    ];
    assert_eq!(wait(429, "", &anthropic), Some(50.0));
    assert_eq!(
        wait(429, "", &[("x-ratelimit-reset", "1767225610000")]),
        Some(10.0)
    );
    assert_eq!(
        wait(429, "", &[("x-ratelimit-reset", "1767225610")]),
        Some(10.0)
    );
}

#[test]
fn no_wait_is_longer_than_a_month() {
    assert_eq!(
        wait(429, "", &[("retry-after", "1e300")]),
        Some(31.0 * 86_400.0)
    );
    assert_eq!(wait(429, "", &[("retry-after", "inf")]), None);
    assert_eq!(wait(429, "", &[("retry-after", "NaN")]), None);
}

proptest! {
    #[test]
    fn any_answer_is_understood_without_panic(
        status in 100u16..1000,
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..600),
            "[\\[{\"](error|message|code|:|,|\"|\\{|\\}|\\[|\\]|é|<title>|[0-9]){0,40}".prop_map(String::into_bytes),
            "<(title>|TITLE>|</title>|é|İ|x){0,20}".prop_map(String::into_bytes),
        ],
        after in "[ -~]{0,20}",
    ) {
        let mut fields = HeaderMap::new();
        for name in ["retry-after", "retry-after-ms", "x-ratelimit-reset-requests"] {
            fields.insert(name, HeaderValue::from_str(&after).unwrap());
        }
        let error = upstream_error(StatusCode::from_u16(status).unwrap(), &body, &fields, now());
        prop_assert!(error.message.chars().count() <= 500);
        prop_assert!(error.retry_after.is_none_or(|after| after <= Duration::from_secs(31 * 86_400)));
        let _ = (error_in_answer(&body), unreadable(&body));
    }

    #[test]
    fn every_error_is_valid_json_whatever_it_says(
        message in any::<String>(), code in any::<Option<String>>(), param in any::<Option<String>>(),
        class in proptest::sample::select(&CLASSES[..]),
    ) {
        let error = ErrorBody { code, param, ..ErrorBody::new(class, message.clone(), Source::Gateway) };
        for protocol in Protocol::ALL {
            let body = encoded(protocol, &error).1;
            let told = body["error"]["message"].as_str().unwrap();
            prop_assert!(told.ends_with(&message));
            for (_, data) in events(&encode_stream_failure(protocol, &error, "r", 3, false)) {
                prop_assert!(data.is_object());
            }
        }
    }
}
