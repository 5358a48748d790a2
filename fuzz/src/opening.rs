//! `protocol::opening`: any first bytes of any protocol's answer.
//!
//! - Nothing panics, and messages stay within their limit.
//! - An event named `error` with data is a failure, whatever the data.
//! - What is found to be chat's usage event is a whole event of the run that
//!   names usage, and nothing but an empty list of choices.

use super::choice;
use plexus::protocol::Protocol;
use plexus::protocol::error::UpstreamError;
use plexus::protocol::opening::{Opening, classify, unary_failure, usage_event};
use plexus::protocol::sse::Decoder;

const NAMES: [Option<&str>; 6] = [
    None,
    Some("message_start"),
    Some("content_block_start"),
    Some("response.created"),
    Some("response.failed"),
    Some(""),
];

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let protocol = Protocol::ALL[choice(&mut input) % Protocol::ALL.len()];
    let name = NAMES[choice(&mut input) % NAMES.len()];
    let text = input;
    if let Opening::Failure(error) = classify(protocol, name, text) {
        within_limits(&error);
    }
    if !matches!(text.trim_ascii(), b"" | b"[DONE]") {
        let named = classify(protocol, Some("error"), text);
        assert!(matches!(named, Opening::Failure(_)));
    }
    if let Some(error) = unary_failure(protocol, text) {
        within_limits(&error);
    }
    if let Some(span) = usage_event(text) {
        let mut data = Vec::new();
        let mut decoder = Decoder::new();
        let keep = |event: plexus::protocol::sse::Event<'_>| data.push(event.data.to_vec());
        decoder
            .push(&text[span], keep)
            .expect("no event is that large");
        decoder.finish(|event| data.push(event.data.to_vec()));
        assert_eq!(data.len(), 1, "one event");
        let value: serde_json::Value = serde_json::from_slice(&data[0]).unwrap_or_default();
        if value.is_object() {
            assert_eq!(value["choices"], serde_json::json!([]));
            assert!(value["usage"].is_object());
        }
    }
}

fn within_limits(error: &UpstreamError) {
    assert!(error.message.chars().count() <= 500);
    assert!(!error.message.is_empty());
}
