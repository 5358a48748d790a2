//! Anthropic's error envelope.
//! <https://docs.anthropic.com/en/api/errors>

use std::borrow::Cow;

use serde::Serialize;

use crate::protocol::error::{
    AttemptNote, ErrorBody, ErrorClass, QuotaNote, Source, append_event, json,
};

/// What clients look for at the start of the message when the prompt is over
/// the model's context; the type says no more than "invalid".
const TOO_LONG: &str = "prompt is too long";

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: Object<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Object<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    source: Source,
    attempts: &'a [AttemptNote],
    #[serde(flatten)]
    quota: Option<&'a QuotaNote>,
}

#[derive(Serialize)]
struct Details<'a> {
    error_code: &'a str,
}

/// Status and body of an error answer.
pub(in crate::protocol) fn encode(error: &ErrorBody, request_id: &str) -> (u16, Vec<u8>) {
    (words(error.class).0, json(&envelope(error, request_id)))
}

/// The last event of a stream. SDKs drop frames without their name.
pub(in crate::protocol) fn encode_stream_failure(error: &ErrorBody, request_id: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    append_event(&mut out, Some("error"), &envelope(error, request_id));
    out
}

fn envelope<'a>(error: &'a ErrorBody, request_id: &'a str) -> Envelope<'a> {
    let unsupported = (error.class == ErrorClass::Unsupported).then_some("unsupported_parameter");
    let error_code = error.specific_code().or(unsupported);
    Envelope {
        kind: "error",
        error: Object {
            kind: words(error.class).1,
            message: message(error),
            details: error_code.map(|error_code| Details { error_code }),
            source: error.source,
            attempts: &error.attempts,
            quota: error.quota.as_deref(),
        },
        request_id,
    }
}

fn message(error: &ErrorBody) -> Cow<'_, str> {
    let told = error.message.as_str();
    if error.class == ErrorClass::ContextLength && !told.starts_with(TOO_LONG) {
        Cow::Owned(format!("{TOO_LONG}: {told}"))
    } else {
        Cow::Borrowed(told)
    }
}

/// Status and type of a class.
const fn words(class: ErrorClass) -> (u16, &'static str) {
    match class {
        ErrorClass::InvalidRequest
        | ErrorClass::Unsupported
        | ErrorClass::ContextLength
        | ErrorClass::ContentBlocked => (400, "invalid_request_error"),
        ErrorClass::Auth => (401, "authentication_error"),
        ErrorClass::Quota => (402, "billing_error"),
        ErrorClass::Forbidden => (403, "permission_error"),
        ErrorClass::NotFound => (404, "not_found_error"),
        ErrorClass::Conflict => (409, "conflict_error"),
        ErrorClass::TooLarge => (413, "request_too_large"),
        ErrorClass::RateLimited => (429, "rate_limit_error"),
        ErrorClass::Internal => (500, "api_error"),
        ErrorClass::UpstreamFailed | ErrorClass::UpstreamAuth => (502, "api_error"),
        ErrorClass::Overloaded => (529, "overloaded_error"),
        ErrorClass::Timeout => (504, "timeout_error"),
        ErrorClass::NotImplemented => (501, "invalid_request_error"),
    }
}

/// What a `type` means, coming from a provider. OpenAI's endpoints share
/// several of them.
pub(in crate::protocol) fn class_of(word: &str) -> Option<ErrorClass> {
    Some(match word {
        "invalid_request_error" => ErrorClass::InvalidRequest,
        "authentication_error" | "permission_error" => ErrorClass::UpstreamAuth,
        "billing_error" => ErrorClass::Quota,
        "not_found_error" => ErrorClass::NotFound,
        "conflict_error" => ErrorClass::Conflict,
        "request_too_large" => ErrorClass::TooLarge,
        "rate_limit_error" => ErrorClass::RateLimited,
        "api_error" => ErrorClass::UpstreamFailed,
        "overloaded_error" => ErrorClass::Overloaded,
        "timeout_error" => ErrorClass::Timeout,
        _ => return None,
    })
}
