//! How many tokens a request has: asked of a provider that counts, in its own
//! protocol or translated, else estimated. Nothing of that is billed. And what is
//! counted here for providers that report nothing.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use serde_json::{Value as Json, json};

use super::attempt::{self, Answered};
use super::{Refusal, Work};
use crate::config::Stall;
use crate::protocol::Protocol;
use crate::protocol::error::ErrorClass;
use crate::protocol::estimate;
use crate::protocol::json::{Raw, Tape};
use crate::protocol::notes::{Action, Notes};
use crate::relay::{Committed, Form, Translation};
use crate::usage::estimate::Estimate;

/// The members of a Messages request that its counter takes.
const COUNTED: [&str; 7] = [
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
];

/// Whether a provider of that protocol is known to count.
pub(super) const fn is_counted_by(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Messages | Protocol::Gemini)
}

/// A request for an answer made into one for its count.
pub(super) fn question(protocol: Protocol, model: &str, body: &Bytes) -> Bytes {
    let mut tape = Tape::new();
    let Ok(root) = tape.parse_bytes(body) else {
        return body.clone();
    };
    let members = root.members().filter(|(name, _)| {
        protocol == Protocol::Gemini || COUNTED.iter().any(|counted| name.is(counted))
    });
    let mut kept: Vec<String> = members
        .map(|(name, value)| format!("\"{}\":{}", name.inner(), value.raw().as_str()))
        .collect();
    if protocol != Protocol::Gemini {
        return format!("{{{}}}", kept.join(",")).into();
    }
    kept.insert(0, format!("\"model\":{}", json!(format!("models/{model}"))));
    format!("{{\"generateContentRequest\":{{{}}}}}", kept.join(",")).into()
}

/// The number in a provider's answer.
pub(super) fn number(protocol: Protocol, answer: &[u8]) -> Option<u64> {
    let mut tape = Tape::new();
    let root = tape.parse_bytes(answer).ok()?;
    let name = match protocol {
        Protocol::Gemini => "totalTokens",
        _ => "input_tokens",
    };
    root.some(name)?.as_u64()
}

/// The answer in the client's protocol.
pub(super) fn document(protocol: Protocol, tokens: u64) -> Bytes {
    let document: Json = match protocol {
        Protocol::Gemini => json!({
            "totalTokens": tokens,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": tokens }],
        }),
        Protocol::Responses => json!({ "object": "response.input_tokens", "input_tokens": tokens }),
        _ => json!({ "input_tokens": tokens }),
    };
    Bytes::from(Raw::of_value(&document).as_str().to_owned())
}

/// No provider counts: what the text looks like has to do.
pub(super) fn estimated(work: &Work) -> Result<Answered, Refusal> {
    let body = work.frames.concat();
    let mut tape = Tape::new();
    let root = tape.parse_bytes(&body).map_err(|fault| {
        Refusal::new(ErrorClass::InvalidRequest, format!("the body is {fault}"))
    })?;
    let mut notes = Notes::new();
    notes.warn(Action::Emulated, "token_count");
    let tokens = estimate::request(root);
    Ok(answered(work.ask.protocol, tokens, notes))
}

/// What is counted of a request and its answer, should `spoken` to report
/// nothing. The request's text is looked at now, so that it needs not be kept.
pub(super) fn of(work: &Work, spoken: Protocol, answer: &Committed) -> Estimate {
    // Images and sound are sent as forms.
    let input = if work.peeked.is_some() {
        let body = work.frames.concat();
        Tape::new().parse_bytes(&body).map_or(0, estimate::request)
    } else {
        0
    };
    let protocol = match &answer.translation {
        Translation::Done(_) => work.ask.protocol,
        Translation::None | Translation::Stream(_) => spoken,
    };
    Estimate::new(input, protocol, answer.form != Form::Unary)
}

/// A count as an answer that is ready to go.
pub(super) fn answered(protocol: Protocol, tokens: u64, notes: Notes) -> Answered {
    let limits = attempt::Limits {
        attempt: Duration::ZERO,
        heartbeat: Duration::ZERO,
        document: 0,
        connect: None,
        stall: Stall::default(),
        last: true,
    };
    let mut committed = attempt::commit(protocol, Form::Unary, &limits);
    committed.opening.push(document(protocol, tokens));
    committed.translation = Translation::Done(Box::default());
    let (mut head, ()) = Response::new(()).into_parts();
    let json = HeaderValue::from_static("application/json");
    head.headers.insert(CONTENT_TYPE, json);
    Answered {
        head,
        committed,
        first_content: None,
        notes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_holds_what_the_counter_takes() {
        let body = Bytes::from_static(
            b"{\"model\":\"m\",\"max_tokens\":5,\"stream\":true,\"messages\":[ 1.0 ]}",
        );
        assert_eq!(
            question(Protocol::Messages, "m", &body),
            "{\"model\":\"m\",\"messages\":[ 1.0 ]}"
        );
        let body = Bytes::from_static(b"{\"contents\":[]}");
        assert_eq!(
            question(Protocol::Gemini, "m", &body),
            "{\"generateContentRequest\":{\"model\":\"models/m\",\"contents\":[]}}"
        );
    }

    #[test]
    fn a_count_is_told_in_each_protocols_words() {
        for protocol in [Protocol::Messages, Protocol::Responses, Protocol::Gemini] {
            assert_eq!(number(protocol, &document(protocol, 42)), Some(42));
        }
    }
}
