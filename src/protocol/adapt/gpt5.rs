//! Options that OpenAI's GPT-5 models refuse.
//!
//! The first generation refuses all sampling options but their defaults, `stop` and
//! `logit_bias`, and wants `max_completion_tokens` for `max_tokens` on Chat. From 5.1
//! on they are accepted as long as the model does not reason, which is its default;
//! so only a request that asks for reasoning loses them. The `chat` variants are
//! ordinary models. See OpenAI's guide to the latest model, "parameter
//! compatibility".

use bytes::Bytes;

use super::Destination;
use crate::protocol::edit::Edits;
use crate::protocol::json::Value;
use crate::protocol::notes::{Action, Notes};
use crate::protocol::{Protocol, peek};

/// What goes, and the number that may stay because it is the default.
const OPTIONS: [(&str, Option<f64>); 8] = [
    ("temperature", Some(1.0)),
    ("top_p", Some(1.0)),
    ("presence_penalty", Some(0.0)),
    ("frequency_penalty", Some(0.0)),
    ("logprobs", None),
    ("top_logprobs", None),
    ("logit_bias", None),
    ("stop", None),
];

/// Whether a name is one of the family's that reason.
pub(super) fn is_family(model: &str) -> bool {
    let name = bare(model);
    let rest = name
        .get(..5)
        .filter(|start| start.eq_ignore_ascii_case("gpt-5"));
    let next = name.as_bytes().get(5);
    rest.is_some() && matches!(next, None | Some(b'-' | b'.')) && !name.contains("-chat")
}

/// Whether it is of the first generation, which always reasons, or a model that was
/// given this adapter by name.
fn always(model: &str) -> bool {
    !is_family(model) || bare(model).as_bytes().get(5) != Some(&b'.')
}

/// Without the maker that resellers put in front.
fn bare(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

/// Whether the top level names one of the options.
pub(super) fn may_concern(to: Destination<'_>, frames: &[Bytes]) -> bool {
    let members = peek::members(frames).unwrap_or_default();
    members.iter().any(|member| {
        let name = member.key.as_str();
        is_token_limit(to.protocol, name) || OPTIONS.iter().any(|(known, _)| *known == name)
    })
}

fn is_token_limit(protocol: Protocol, name: &str) -> bool {
    protocol == Protocol::Chat && name == "max_tokens"
}

pub(super) fn suppress<'t>(
    to: Destination<'_>,
    root: Value<'t>,
    edits: &mut Edits<'t>,
    notes: &mut Notes,
) {
    if to.protocol == Protocol::Chat {
        limit(root, edits, notes);
    }
    if !always(to.model) && !reasons(to.protocol, root) {
        return;
    }
    for (name, harmless) in OPTIONS {
        let known = name != "stop" || to.protocol == Protocol::Chat;
        if known
            && root
                .some(name)
                .is_some_and(|value| !is_default(value, harmless))
        {
            edits.remove_member(root, name);
            notes.warn(Action::Dropped, name);
        }
    }
}

/// `max_tokens` under its new name, unless that is there too.
fn limit<'t>(root: Value<'t>, edits: &mut Edits<'t>, notes: &mut Notes) {
    if root.some("max_tokens").is_none() {
        return;
    }
    if root.some("max_completion_tokens").is_some() {
        edits.remove_member(root, "max_tokens");
    } else {
        edits.remove_member(root, "max_completion_tokens");
        edits.rename(root, "max_tokens", "max_completion_tokens");
    }
    notes.info(Action::Coerced, "max_tokens>max_completion_tokens");
}

fn is_default(value: Value<'_>, harmless: Option<f64>) -> bool {
    match harmless {
        Some(number) => value.as_f64() == Some(number),
        None => value.as_bool() == Some(false) || value.is_empty(),
    }
}

/// Whether the request asks for reasoning.
fn reasons(protocol: Protocol, root: Value<'_>) -> bool {
    let effort = match protocol {
        Protocol::Responses => root.get("reasoning").and_then(|value| value.get("effort")),
        _ => root.get("reasoning_effort"),
    };
    let effort = effort.and_then(|value| value.as_str());
    effort.is_some_and(|effort| !effort.is("none"))
}
