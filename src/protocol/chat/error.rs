//! The error object of OpenAI's endpoints: four keys, always all of them.
//! <https://platform.openai.com/docs/guides/error-codes>

use serde::Serialize;

use crate::protocol::error::{
    AttemptNote, ErrorBody, ErrorClass, QuotaNote, Source, append_event, json,
};

/// The error object, with who spoke and what was tried after the standard keys.
#[derive(Serialize)]
pub(in crate::protocol) struct Object<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'a str>,
    source: Source,
    attempts: &'a [AttemptNote],
    #[serde(flatten)]
    quota: Option<&'a QuotaNote>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Object<'a>,
}

/// Status and body of an error answer.
pub(in crate::protocol) fn encode(error: &ErrorBody) -> (u16, Vec<u8>) {
    let (status, ..) = words(error.class);
    (
        status,
        json(&Envelope {
            error: object(error),
        }),
    )
}

/// The last event of a stream. A `[DONE]` after it would tell SDKs that the
/// answer is whole.
pub(in crate::protocol) fn encode_stream_failure(error: &ErrorBody) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    append_event(
        &mut out,
        None,
        &Envelope {
            error: object(error),
        },
    );
    out
}

/// The error object for a failure.
pub(in crate::protocol) fn object(error: &ErrorBody) -> Object<'_> {
    let (_, kind, code) = words(error.class);
    Object {
        message: &error.message,
        kind: error.quota.as_ref().map_or(kind, |_| "quota_exceeded"),
        param: error.param.as_deref(),
        code: error.specific_code().or(code),
        source: error.source,
        attempts: &error.attempts,
        quota: error.quota.as_deref(),
    }
}

/// Status, type and default code of a class.
const fn words(class: ErrorClass) -> (u16, &'static str, Option<&'static str>) {
    const INVALID: &str = "invalid_request_error";
    const SERVER: &str = "server_error";
    match class {
        ErrorClass::InvalidRequest => (400, INVALID, None),
        ErrorClass::Unsupported => (400, INVALID, Some("unsupported_parameter")),
        ErrorClass::ContextLength => (400, INVALID, Some("context_length_exceeded")),
        ErrorClass::ContentBlocked => (400, INVALID, Some("content_filter")),
        ErrorClass::Auth => (401, INVALID, Some("invalid_api_key")),
        ErrorClass::Quota => (429, "insufficient_quota", Some("insufficient_quota")),
        ErrorClass::Forbidden => (403, INVALID, Some("model_not_allowed")),
        ErrorClass::NotFound => (404, INVALID, Some("model_not_found")),
        ErrorClass::Conflict => (409, INVALID, Some("conflict")),
        ErrorClass::TooLarge => (413, INVALID, Some("request_too_large")),
        ErrorClass::RateLimited => (429, "rate_limit_error", Some("rate_limit_exceeded")),
        ErrorClass::Internal => (500, SERVER, Some("internal_error")),
        ErrorClass::UpstreamFailed => (502, SERVER, Some("upstream_error")),
        ErrorClass::UpstreamAuth => (502, SERVER, Some("upstream_error")),
        ErrorClass::Overloaded => (503, SERVER, Some("overloaded")),
        ErrorClass::Timeout => (504, SERVER, Some("timeout")),
        ErrorClass::NotImplemented => (501, INVALID, Some("not_implemented")),
    }
}

/// What a `code` or `type` of these endpoints means, coming from a provider.
pub(in crate::protocol) fn class_of(word: &str) -> Option<ErrorClass> {
    Some(match word {
        "context_length_exceeded" | "string_above_max_length" => ErrorClass::ContextLength,
        "content_filter" | "content_policy_violation" | "moderation_blocked" => {
            ErrorClass::ContentBlocked
        }
        "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active" => {
            ErrorClass::Quota
        }
        "rate_limit_exceeded" | "tokens" | "requests" | "usage_limit_reached" => {
            ErrorClass::RateLimited
        }
        "invalid_api_key" => ErrorClass::UpstreamAuth,
        "model_not_found" => ErrorClass::NotFound,
        "server_is_overloaded" | "slow_down" | "overloaded" | "engine_overloaded" => {
            ErrorClass::Overloaded
        }
        "timeout" => ErrorClass::Timeout,
        "server_error" | "internal_error" | "upstream_error" => ErrorClass::UpstreamFailed,
        "invalid_prompt" | "invalid_value" | "unsupported_parameter" => ErrorClass::InvalidRequest,
        _ => return None,
    })
}
