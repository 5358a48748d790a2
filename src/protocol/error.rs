//! What went wrong, in one vocabulary: encoded for a client in the shape of
//! its protocol, decoded from whatever a provider answered.
//!
//! The words, types and statuses of each protocol are in its own folder.
//! Nothing here knows which target may be tried next or what is logged.

mod decode;
mod retry;

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

pub use self::decode::{UpstreamError, upstream_error};
pub(in crate::protocol) use self::decode::{error_in_answer, unreadable};
use super::{Protocol, chat, gemini, messages, responses};

/// What kind of failure it is, independent of protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request is wrong.
    InvalidRequest,
    /// The request is right, but can't be said in the target's protocol.
    Unsupported,
    /// The prompt is longer than the model's context.
    ContextLength,
    /// The prompt was refused by a content filter.
    ContentBlocked,
    /// The client's credential is missing or wrong.
    Auth,
    /// An allowance or account is used up.
    Quota,
    /// The client's credential doesn't allow this.
    Forbidden,
    /// No such model or object.
    NotFound,
    /// The object is in a state that forbids this.
    Conflict,
    /// The body is over a size limit.
    TooLarge,
    /// Too many requests or tokens for now.
    RateLimited,
    /// The gateway failed.
    Internal,
    /// The provider failed.
    UpstreamFailed,
    /// The provider refused the gateway's credential.
    UpstreamAuth,
    /// The provider is overloaded, or no target is left.
    Overloaded,
    /// A time limit passed.
    Timeout,
    /// The endpoint is known but not served.
    NotImplemented,
}

/// Who reports the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Plexus itself.
    Gateway,
    /// A provider behind it.
    Provider,
}

/// One target that was tried, as the client is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttemptNote {
    /// The provider's name in the configuration.
    pub provider: String,
    /// The model at that provider.
    pub model: String,
    /// The provider's HTTP status, if it answered.
    pub status: Option<u16>,
    /// Why the attempt was no answer.
    pub reason: String,
}

/// Quotas of the client's key that refuse its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaNote {
    /// The one that refuses longest.
    pub quota_name: String,
    /// How much of it is used or reserved, in its own unit.
    pub current_usage: serde_json::Number,
    /// How much there is.
    pub limit: serde_json::Number,
    /// When all of it is free again.
    pub resets_at: String,
    /// All of them.
    pub blocking_quotas: Vec<BlockingQuota>,
}

/// One of the quotas that refuse a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "as in QuotaNote")]
pub struct BlockingQuota {
    pub quota_name: String,
    /// requests, tokens or cost.
    pub limit_type: &'static str,
    pub limit: serde_json::Number,
    pub current_usage: serde_json::Number,
    pub remaining: serde_json::Number,
    pub resets_at: String,
}

/// A failure, ready to be encoded for a client.
#[derive(Clone, Debug)]
pub struct ErrorBody {
    /// What kind it is; decides status and type.
    pub class: ErrorClass,
    /// For people.
    pub message: String,
    /// For programs; `None` takes the class's own.
    pub code: Option<String>,
    /// The client's field at fault.
    pub param: Option<String>,
    /// Who reports it.
    pub source: Source,
    /// What was tried, in order.
    pub attempts: Vec<AttemptNote>,
    /// When to come back, if that is known.
    pub retry_after: Option<Duration>,
    /// The quotas, if that is what refuses.
    pub quota: Option<Box<QuotaNote>>,
}

impl ErrorBody {
    /// A failure with nothing but class and message.
    #[must_use]
    pub const fn new(class: ErrorClass, message: String, source: Source) -> Self {
        Self {
            class,
            message,
            code: None,
            param: None,
            source,
            attempts: Vec::new(),
            retry_after: None,
            quota: None,
        }
    }

    /// The code that names this failure more closely than its class does.
    ///
    /// A provider's code counts only where the class has no word of its own:
    /// clients act on `rate_limit_exceeded`, whatever the provider calls it.
    pub(in crate::protocol) fn specific_code(&self) -> Option<&str> {
        let open = matches!(
            self.class,
            ErrorClass::InvalidRequest
                | ErrorClass::Unsupported
                | ErrorClass::NotFound
                | ErrorClass::Conflict
        );
        let counts = open || self.source == Source::Gateway;
        self.code.as_deref().filter(|_| counts)
    }
}

/// Status and JSON body of an error answer. `request_id` is written as it is
/// given, in the protocols whose errors carry one.
#[must_use]
pub fn encode(protocol: Protocol, error: &ErrorBody, request_id: &str) -> (StatusCode, Bytes) {
    let (status, body) = match protocol {
        Protocol::Responses => responses::error::encode(error),
        Protocol::Messages => messages::error::encode(error, request_id),
        Protocol::Gemini => gemini::error::encode(error),
        Protocol::Chat
        | Protocol::Completions
        | Protocol::Embeddings
        | Protocol::Transcriptions
        | Protocol::Speech
        | Protocol::Images => chat::error::encode(error),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, body.into())
}

/// The last bytes of a stream that fails after its status was sent. Nothing
/// may follow them, not even `[DONE]`.
///
/// `sequence_number` is that of the next Responses event. `array` asks for
/// the form of Gemini's JSON array, of which at least one element was sent.
#[must_use]
pub fn encode_stream_failure(
    protocol: Protocol,
    error: &ErrorBody,
    request_id: &str,
    sequence_number: u64,
    array: bool,
) -> Bytes {
    let bytes = match protocol {
        Protocol::Responses => {
            responses::error::encode_stream_failure(error, request_id, sequence_number)
        }
        Protocol::Messages => messages::error::encode_stream_failure(error, request_id),
        Protocol::Gemini if array => gemini::error::encode_array_failure(error),
        Protocol::Gemini => gemini::error::encode_stream_failure(error),
        Protocol::Chat
        | Protocol::Completions
        | Protocol::Embeddings
        | Protocol::Transcriptions
        | Protocol::Speech
        | Protocol::Images => chat::error::encode_stream_failure(error),
    };
    bytes.into()
}

/// A value as JSON. The types given here have string keys and no code of
/// their own, so that writing them to memory can't fail.
pub(in crate::protocol) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Appends one Server-Sent Event whose data is one line of JSON.
pub(in crate::protocol) fn append_event(
    out: &mut Vec<u8>,
    name: Option<&str>,
    data: &impl Serialize,
) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&json(data));
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests;
