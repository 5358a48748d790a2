//! Errors of OpenAI's Responses endpoint: the chat object in an answer, two
//! events at the end of a stream.
//! <https://platform.openai.com/docs/api-reference/responses-streaming>

use serde::Serialize;

use crate::protocol::chat;
use crate::protocol::error::{ErrorBody, ErrorClass, append_event};

/// Status and body of an error answer.
pub(in crate::protocol) fn encode(error: &ErrorBody) -> (u16, Vec<u8>) {
    chat::error::encode(error)
}

/// The `error` event, then `response.failed`. The first carries its fields
/// flat and nested: SDKs raise on the nested form only, other clients know
/// the flat one; Codex acts on the second event alone.
///
/// The provider's response id is not known here; SDKs stop at the first
/// event, so that the one made from the request's id is never compared.
pub(in crate::protocol) fn encode_stream_failure(
    error: &ErrorBody,
    request_id: &str,
    sequence_number: u64,
) -> Vec<u8> {
    let code = stream_code(error.class);
    let failed = Failed {
        kind: "response.failed",
        sequence_number: sequence_number.saturating_add(1),
        response: Response {
            id: format!("resp_{request_id}"),
            object: "response",
            status: "failed",
            error: Reason {
                code,
                message: &error.message,
            },
            incomplete_details: None,
            output: [],
            usage: None,
        },
    };
    let mut out = encode_event(error, sequence_number);
    append_event(&mut out, Some("response.failed"), &failed);
    out
}

/// The `error` event alone.
pub(super) fn encode_event(error: &ErrorBody, sequence_number: u64) -> Vec<u8> {
    let flat = Flat {
        kind: "error",
        sequence_number,
        code: stream_code(error.class),
        message: &error.message,
        param: error.param.as_deref(),
        error: chat::error::object(error),
    };
    let mut out = Vec::with_capacity(512);
    append_event(&mut out, Some("error"), &flat);
    out
}

/// Streams know fewer codes than answers; what is not among them is a server
/// error.
pub(super) const fn stream_code(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::RateLimited => "rate_limit_exceeded",
        ErrorClass::ContextLength => "context_length_exceeded",
        ErrorClass::Quota => "insufficient_quota",
        _ => "server_error",
    }
}

#[derive(Serialize)]
struct Flat<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    code: &'static str,
    message: &'a str,
    param: Option<&'a str>,
    error: chat::error::Object<'a>,
}

#[derive(Serialize)]
struct Failed<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    sequence_number: u64,
    response: Response<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    id: String,
    object: &'static str,
    status: &'static str,
    error: Reason<'a>,
    incomplete_details: Option<()>,
    output: [(); 0],
    usage: Option<()>,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'static str,
    message: &'a str,
}
