//! `protocol::error`: any error answer in, every protocol's error out.
//!
//! - Decoding never panics; the message is 1 to 500 characters, the wait at
//!   most 31 days, and no key that the provider quoted is repeated.
//! - Every encoded body is JSON; every failure of a stream is whole events
//!   whose data is JSON, and Gemini's array form closes an array.

use std::time::{Duration, UNIX_EPOCH};

use super::choice;
use http::{HeaderMap, HeaderValue, StatusCode};
use plexus::protocol::Protocol;
use plexus::protocol::error::{
    AttemptNote, ErrorBody, Source, encode, encode_stream_failure, upstream_error,
};
use plexus::protocol::sse::Decoder;

const SECRET: &str = "sk-proj-AbCdEfGhIjKlMnOpQrStUvWxYz0123456789";

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let status = 200 + (choice(&mut input) * 256 + choice(&mut input)) % 400;
    let status = StatusCode::from_u16(status as u16).expect("a status");
    let (header, body) = input.split_at(input.len().min(choice(&mut &input[..]) % 32));
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(header) {
        headers.insert("retry-after", value.clone());
        headers.insert("x-ratelimit-reset-requests", value);
    }
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let error = upstream_error(status, body, &headers, now);
    assert!((1..=500).contains(&error.message.chars().count()));
    assert!(error.retry_after.unwrap_or_default() <= Duration::from_secs(31 * 24 * 3600));
    quoted_keys_are_taken_out(status, body);
    encoded(ErrorBody {
        class: error.class,
        message: error.message,
        code: error.code,
        param: std::str::from_utf8(header).ok().map(str::to_owned),
        source: Source::Provider,
        attempts: vec![AttemptNote {
            provider: String::from_utf8_lossy(header).into_owned(),
            model: String::from_utf8_lossy(body).into_owned(),
            status: Some(status.as_u16()),
            reason: "any".to_owned(),
        }],
        retry_after: error.retry_after,
        quota: None,
    });
}

fn quoted_keys_are_taken_out(status: StatusCode, body: &[u8]) {
    let Ok(before) = std::str::from_utf8(body) else {
        return;
    };
    let message = format!("{before} key {SECRET} is wrong");
    let body = serde_json::json!({ "error": { "message": message } }).to_string();
    let error = upstream_error(status, body.as_bytes(), &HeaderMap::new(), UNIX_EPOCH);
    assert!(!error.message.contains(SECRET));
}

fn encoded(error: ErrorBody) {
    for protocol in Protocol::ALL {
        let (status, body) = encode(protocol, &error, "id");
        assert!(!status.is_success());
        is_json(&body);
        let stream = encode_stream_failure(protocol, &error, "id", 7, false);
        let mut events = 0;
        let mut decoder = Decoder::new();
        decoder
            .push(&stream, |event| {
                events += 1;
                is_json(event.data);
            })
            .expect("no event is that large");
        assert!(events > 0, "no event is whole");
        decoder.finish(|_| panic!("an event is cut short"));
    }
    let end = encode_stream_failure(Protocol::Gemini, &error, "id", 0, true);
    let array = [&b"[{}"[..], &end].concat();
    is_json(&array);
}

/// Reads without building anything: a fuzzer's time is for finding inputs.
fn is_json(bytes: &[u8]) {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).expect("JSON");
}
