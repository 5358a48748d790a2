//! Whether a request fits a candidate's context: what `enforce_limits` asks for.
//!
//! The prompt's tokens are an estimate, so that a little room is left for its
//! error; a request that is only just too long may still be refused by the
//! provider itself. Nothing is known of most self-hosted models: what nobody
//! says has no limit.

use serde_json::Value as Json;

use crate::config::{Alias, Endpoint};
use crate::protocol::Protocol;
use crate::protocol::error::ErrorClass;
use crate::protocol::estimate;
use crate::protocol::ir::Invalid;
use crate::protocol::json::{Tape, Value};
use crate::routing::Candidate;

/// What the estimate may be too low by, in percent.
const MARGIN: u128 = 10;
/// Tokens of output that a request is taken to want, when nobody says.
const USUAL_OUTPUT: u64 = 4096;

/// Where an alias's metadata says how long its context and its answers are.
const CONTEXT: [&str; 2] = [
    "/overrides/context_length",
    "/overrides/top_provider/context_length",
];
const OUTPUT: [&str; 1] = ["/overrides/top_provider/max_completion_tokens"];

/// What a request needs of a context, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// Of the prompt, roughly.
    prompt: u64,
    /// The most of the answer that the client asks for.
    output: Option<u64>,
}

impl Need {
    /// Of a request in one of the protocols for chat. What can't be read needs
    /// nothing: others say what is wrong with it.
    pub(super) fn of(protocol: Protocol, body: &[u8]) -> Self {
        let mut tape = Tape::new();
        tape.parse_bytes(body)
            .map_or_else(|_| Self::default(), |root| Self::read(protocol, root))
    }

    fn read(protocol: Protocol, root: Value<'_>) -> Self {
        let names: &[&str] = match protocol {
            Protocol::Chat => &["max_completion_tokens", "max_tokens"],
            Protocol::Responses => &["max_output_tokens"],
            Protocol::Gemini => &["maxOutputTokens", "max_output_tokens"],
            _ => &["max_tokens"],
        };
        let settings = ["generationConfig", "generation_config"];
        let place = match protocol {
            Protocol::Gemini => settings.iter().find_map(|name| root.some(name)),
            _ => Some(root),
        };
        let number = |name: &&str| place?.some(name)?.as_u64();
        Self {
            prompt: estimate::request(root),
            output: names.iter().find_map(number),
        }
    }

    /// Refuses what a context of that many tokens can't hold.
    fn fit(self, context: u64, max_output: Option<u64>) -> Result<(), Invalid> {
        // Wide enough that no number of a client's can overflow.
        let margin = |tokens: u64| (u128::from(tokens) * (100 + MARGIN)).div_ceil(100);
        let output = match (self.output, max_output) {
            (Some(asked), Some(most)) => asked.min(most),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => USUAL_OUTPUT,
        };
        if margin(self.prompt) + u128::from(output) <= u128::from(context) {
            return Ok(());
        }
        let room = u128::from(context.saturating_sub(output)) * 100 / (100 + MARGIN);
        Err(Invalid {
            class: ErrorClass::ContextLength,
            message: format!(
                "prompt is too long: about {} tokens and {output} of output; a context of {context} holds a prompt of at most {room}",
                self.prompt,
            ),
            param: None,
            code: Some("context_length_exceeded"),
        })
    }
}

/// Refuses a request that the candidate's context can't hold, as far as that is
/// known: by the model's own settings, the alias's metadata, the table of models.
pub(super) fn check(
    need: Need,
    alias: &Alias,
    candidate: &Candidate,
    endpoint: &Endpoint,
) -> Result<(), Invalid> {
    let listed = candidate.listed.as_deref();
    let known = candidate.capabilities(endpoint.protocol);
    let said = |name: &str| listed?.capabilities.as_ref()?.get(name)?.as_u64();
    let context = said("context")
        .or_else(|| metadata(alias, &CONTEXT))
        .or_else(|| known?.context);
    let output = said("max_output")
        .or_else(|| metadata(alias, &OUTPUT))
        .or_else(|| known?.max_output);
    context.map_or(Ok(()), |context| need.fit(context, output))
}

fn metadata(alias: &Alias, places: &[&str]) -> Option<u64> {
    let metadata = alias.metadata.as_ref()?;
    let number = |place: &&str| metadata.pointer(place).and_then(Json::as_u64);
    places.iter().find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_that_is_asked_for_is_read_in_each_protocol() {
        let cases = [
            (Protocol::Chat, r#"{"max_tokens":5}"#),
            (
                Protocol::Chat,
                r#"{"max_completion_tokens":5,"max_tokens":9}"#,
            ),
            (Protocol::Responses, r#"{"max_output_tokens":5}"#),
            (Protocol::Messages, r#"{"max_tokens":5}"#),
            (
                Protocol::Gemini,
                r#"{"generationConfig":{"maxOutputTokens":5}}"#,
            ),
            (
                Protocol::Gemini,
                r#"{"generation_config":{"max_output_tokens":5}}"#,
            ),
        ];
        for (protocol, body) in cases {
            assert_eq!(
                Need::of(protocol, body.as_bytes()).output,
                Some(5),
                "{body}"
            );
        }
        assert_eq!(Need::of(Protocol::Chat, b"no JSON"), Need::default());
    }

    #[test]
    fn room_for_the_answer_is_what_is_asked_or_what_is_possible() {
        let need = |prompt, output| Need { prompt, output };
        assert!(need(100, Some(50)).fit(160, None).is_ok());
        assert!(need(100, Some(50)).fit(159, None).is_err());
        assert!(need(100, Some(5000)).fit(160, Some(50)).is_ok());
        assert!(need(100, None).fit(160, Some(50)).is_ok());
        assert!(need(100, None).fit(4000, None).is_err());
        assert!(need(u64::MAX, None).fit(u64::MAX - 1, Some(1)).is_err());
        let refused = need(100, Some(50)).fit(100, None).unwrap_err();
        assert_eq!(refused.class, ErrorClass::ContextLength);
        assert!(
            refused.message.starts_with("prompt is too long"),
            "{}",
            refused.message
        );
    }
}
