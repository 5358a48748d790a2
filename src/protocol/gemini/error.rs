//! Google's error object: a number, a message, a status word and typed
//! details.
//! <https://cloud.google.com/apis/design/errors>

use std::time::Duration;

use serde::Serialize;

use crate::protocol::error::{
    AttemptNote, ErrorBody, ErrorClass, QuotaNote, Source, append_event, json,
};

/// `error` comes first and `code` is a number: the SDK finds an error in a
/// stream by just that.
#[derive(Serialize)]
struct Envelope<'a> {
    error: Object<'a>,
}

#[derive(Serialize)]
struct Object<'a> {
    code: u16,
    message: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail<'a>>,
    source: Source,
    attempts: &'a [AttemptNote],
    #[serde(flatten)]
    quota: Option<&'a QuotaNote>,
}

#[derive(Serialize)]
#[serde(tag = "@type")]
enum Detail<'a> {
    #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
    Info {
        reason: String,
        domain: &'static str,
    },
    #[serde(
        rename = "type.googleapis.com/google.rpc.BadRequest",
        rename_all = "camelCase"
    )]
    BadRequest {
        field_violations: [Violation<'a>; 1],
    },
    #[serde(
        rename = "type.googleapis.com/google.rpc.RetryInfo",
        rename_all = "camelCase"
    )]
    Retry { retry_delay: String },
}

#[derive(Serialize)]
struct Violation<'a> {
    field: &'a str,
    description: &'a str,
}

/// Status and body of an error answer. Always an object: the one-element
/// array that Google itself sends for some streams surprises its own SDKs.
pub(in crate::protocol) fn encode(error: &ErrorBody) -> (u16, Vec<u8>) {
    (words(error.class).0, json(&envelope(error)))
}

/// The last event of a stream.
pub(in crate::protocol) fn encode_stream_failure(error: &ErrorBody) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    append_event(&mut out, None, &envelope(error));
    out
}

/// The last element of a stream that is one JSON array, and its end.
pub(in crate::protocol) fn encode_array_failure(error: &ErrorBody) -> Vec<u8> {
    let mut out = vec![b','];
    out.extend_from_slice(&json(&envelope(error)));
    out.push(b']');
    out
}

fn envelope(error: &ErrorBody) -> Envelope<'_> {
    let (code, status) = words(error.class);
    Envelope {
        error: Object {
            code,
            message: &error.message,
            status,
            details: details(error),
            source: error.source,
            attempts: &error.attempts,
            quota: error.quota.as_deref(),
        },
    }
}

fn details(error: &ErrorBody) -> Vec<Detail<'_>> {
    let info = error.specific_code().map(|code| Detail::Info {
        reason: code.to_ascii_uppercase(),
        domain: "plexus",
    });
    let field = error.param.as_deref().map(|field| Detail::BadRequest {
        field_violations: [Violation {
            field,
            description: &error.message,
        }],
    });
    let retry = error.retry_after.map(|after| Detail::Retry {
        retry_delay: seconds(after),
    });
    [info, field, retry].into_iter().flatten().collect()
}

/// A duration as protobuf's JSON writes it.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_millis() as f64 / 1000.0)
}

/// Status and status word of a class.
const fn words(class: ErrorClass) -> (u16, &'static str) {
    match class {
        ErrorClass::InvalidRequest
        | ErrorClass::Unsupported
        | ErrorClass::ContextLength
        | ErrorClass::ContentBlocked => (400, "INVALID_ARGUMENT"),
        ErrorClass::Auth => (401, "UNAUTHENTICATED"),
        ErrorClass::Quota | ErrorClass::RateLimited => (429, "RESOURCE_EXHAUSTED"),
        ErrorClass::Forbidden => (403, "PERMISSION_DENIED"),
        ErrorClass::NotFound => (404, "NOT_FOUND"),
        ErrorClass::Conflict => (409, "ABORTED"),
        ErrorClass::TooLarge => (413, "INVALID_ARGUMENT"),
        ErrorClass::Internal => (500, "INTERNAL"),
        ErrorClass::UpstreamFailed | ErrorClass::UpstreamAuth => (502, "UNAVAILABLE"),
        ErrorClass::Overloaded => (503, "UNAVAILABLE"),
        ErrorClass::Timeout => (504, "DEADLINE_EXCEEDED"),
        ErrorClass::NotImplemented => (501, "UNIMPLEMENTED"),
    }
}

/// What a `status` or an `ErrorInfo` reason means, coming from a provider. A
/// wrong key is a 400 here, told apart by its reason only.
pub(in crate::protocol) fn class_of(word: &str) -> Option<ErrorClass> {
    Some(match word {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => ErrorClass::InvalidRequest,
        "UNAUTHENTICATED"
        | "PERMISSION_DENIED"
        | "API_KEY_INVALID"
        | "API_KEY_EXPIRED"
        | "API_KEY_SERVICE_BLOCKED"
        | "SERVICE_DISABLED" => ErrorClass::UpstreamAuth,
        "BILLING_DISABLED" => ErrorClass::Quota,
        "NOT_FOUND" => ErrorClass::NotFound,
        "ABORTED" | "ALREADY_EXISTS" => ErrorClass::Conflict,
        "RESOURCE_EXHAUSTED" | "RATE_LIMIT_EXCEEDED" => ErrorClass::RateLimited,
        "INTERNAL" | "UNKNOWN" | "DATA_LOSS" | "CANCELLED" | "UNIMPLEMENTED" => {
            ErrorClass::UpstreamFailed
        }
        "UNAVAILABLE" => ErrorClass::Overloaded,
        "DEADLINE_EXCEEDED" => ErrorClass::Timeout,
        _ => return None,
    })
}
