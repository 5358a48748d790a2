//! Whole answers in Responses: read from a provider, written for a client.

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::error::{UpstreamError, error_in_answer, unreadable};
use crate::protocol::ir::{Choice, Finish, HostedKind, Part, Response};
use crate::protocol::json::{Raw, Str, Value};
use crate::protocol::translate::Reply;
use crate::protocol::usage::{self, Tokens};

use super::item;
use super::stream::Encoder;

/// Reads a provider's answer.
///
/// # Errors
///
/// Where it is an error in the clothes of an answer, or no answer at all.
pub fn decode(body: Value<'_>) -> Result<Response<'_>, UpstreamError> {
    let bytes = body.raw();
    let status = item::string(body, "status");
    if body.some("error").is_some() || status.is_some_and(|status| status.is("failed")) {
        return Err(error_in_answer(bytes.as_str().as_bytes()));
    }
    let Some(output) = body.get("output").filter(Value::is_array) else {
        return Err(unreadable(bytes.as_str().as_bytes()));
    };
    let mut choice = Choice::default();
    let mut ending = Ending::default();
    for value in output.items() {
        choice.logprobs.extend(logprobs(value));
        for mut part in item::parts(value) {
            name_call(&mut part, choice.parts.len());
            ending.note(&part);
            choice.parts.push(part);
        }
    }
    choice.finish = Some(ending.finish(Some(body)));
    Ok(Response {
        upstream_id: item::filled(body, "id"),
        upstream_model: item::filled(body, "model"),
        choices: vec![choice],
        usage: tokens(body),
        web_searches: ending.web_searches(body),
        service: item::filled(body, "service_tier"),
        fingerprint: None,
    })
}

/// Probabilities of an item's texts.
pub(super) fn logprobs(item: Value<'_>) -> Vec<Raw<'_>> {
    let content = item.get("content");
    let parts = content.into_iter().flat_map(|content| content.items());
    parts.flat_map(item::logprobs).collect()
}

/// A call must have an id, or its result finds no way back.
pub(super) fn name_call(part: &mut Part<'_>, number: usize) {
    if let Part::Call(call) = part
        && call.id.is_empty()
    {
        call.id = Str::from(format!("call_{number}"));
    }
}

/// What a response object says of its tokens.
pub(super) fn tokens(response: Value<'_>) -> Option<Tokens> {
    let usage = response.some("usage")?;
    usage::decode(Protocol::Responses, usage.raw().as_str().as_bytes())
}

/// What decides why an answer ended.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// A client's tool was called.
    pub(super) calls: bool,
    /// The model refused.
    pub(super) refused: bool,
    searches: u64,
}

impl Ending {
    /// Another part of the answer.
    pub(super) fn note(&mut self, part: &Part<'_>) {
        match part {
            Part::Call(_) => self.calls = true,
            Part::Refusal(_) => self.refused = true,
            Part::Hosted(hosted) if hosted.kind == HostedKind::WebSearch => self.searches += 1,
            _ => {}
        }
    }

    /// Why the answer ended.
    pub(super) fn finish(&self, response: Option<Value<'_>>) -> Finish {
        let word = |name| response.and_then(|response| item::string(response, name));
        let status = word("status");
        let reason = response.and_then(|response| response.get("incomplete_details"));
        let reason = reason.and_then(|details| item::string(details, "reason"));
        let incomplete = status
            .as_ref()
            .is_some_and(|status| status.is("incomplete"));
        match (status, reason) {
            (Some(status), _) if status.is("cancelled") => Finish::Other(status.to_plain_string()),
            (_, Some(reason)) => match reason.plain().as_ref() {
                "max_output_tokens" | "max_tokens" | "max_messages" => Finish::Length,
                "content_filter" => Finish::ContentFilter {
                    category: None,
                    text: None,
                },
                other => Finish::Other(other.chars().take(64).collect()),
            },
            (_, None) if incomplete => Finish::Length,
            _ if self.calls => Finish::ToolUse,
            _ if self.refused => Finish::Refusal,
            _ => Finish::Stop,
        }
    }

    /// How many searches the provider charges for.
    pub(super) fn web_searches(&self, response: Value<'_>) -> Option<u64> {
        let told = response.some("tool_usage").and_then(|usage| {
            let requests = usage.get("web_search")?.get("num_requests")?;
            requests.as_u64()
        });
        told.or_else(|| (self.searches > 0).then_some(self.searches))
    }
}

/// Writes an answer for a client.
pub fn encode(response: &Response<'_>, reply: &Reply, out: &mut BytesMut) {
    let mut encoder = Encoder::quiet(reply.clone());
    encoder.whole(response);
    encoder.document(out);
}

#[cfg(test)]
mod tests;
