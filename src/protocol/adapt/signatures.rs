//! Gemini's thought signatures, where a conversation comes to a provider that does
//! not know them, or comes without them to one that wants them.
//!
//! OpenAI refuses the member in which Google's own layer of chat hands signatures
//! out. From the third generation on Gemini refuses a step whose first call is not
//! signed, and has a word for those who have no signature; older exchanges it does
//! not look at. <https://ai.google.dev/gemini-api/docs/thought-signatures>

use bytes::Bytes;

use super::{Destination, mentions};
use crate::protocol::capabilities;
use crate::protocol::edit::Edits;
use crate::protocol::gemini::signature::SENTINEL;
use crate::protocol::history::{self, says};
use crate::protocol::json::Value;
use crate::protocol::notes::{Action, Notes};
use crate::protocol::{Protocol, host};

/// Where Google's layer of chat has a call's signature.
const EXTRA: &str = "extra_content";
const NAMES: [&str; 2] = ["thoughtSignature", "thought_signature"];
const CALLS: [&str; 2] = ["functionCall", "function_call"];
const RESULTS: [&str; 2] = ["functionResponse", "function_response"];

/// Whether signatures are refused there.
pub(super) fn are_refused(to: Destination<'_>) -> bool {
    let refuses = |domain| host::is_at(to.host, domain);
    to.protocol == Protocol::Chat && ["openai.com", "azure.com"].into_iter().any(refuses)
}

/// Whether signatures are wanted there.
pub(super) fn are_wanted(to: Destination<'_>) -> bool {
    let by_google = match to.protocol {
        Protocol::Gemini => true,
        Protocol::Chat => host::is_at(to.host, "googleapis.com"),
        _ => false,
    };
    by_google && capabilities::signs_calls(to.model)
}

pub(super) fn may_be_there(frames: &[Bytes]) -> bool {
    mentions(frames, r#""extra_content""#)
}

/// Whether there are calls and no signature at all: a client that keeps some keeps
/// all.
pub(super) fn may_be_missing(protocol: Protocol, frames: &[Bytes]) -> bool {
    let calls = match protocol {
        Protocol::Gemini => {
            mentions(frames, r#""functionCall""#) || mentions(frames, r#""function_call""#)
        }
        _ => mentions(frames, r#""tool_calls""#),
    };
    calls && !mentions(frames, "thoughtSignature") && !mentions(frames, "thought_signature")
}

/// Takes signatures out of a chat's calls.
pub(super) fn strip<'t>(root: Value<'t>, edits: &mut Edits<'t>, notes: &mut Notes) {
    for turn in history::turns(Protocol::Chat, root) {
        let calls = turn.get("tool_calls");
        for call in calls.into_iter().flat_map(|calls| calls.items()) {
            if call.get(EXTRA).is_some() {
                edits.remove_member(call, EXTRA);
                notes.info(Action::Dropped, "thought_signature");
            }
        }
    }
}

/// Puts the word for a missing signature on the first call of every step since the
/// user last spoke.
pub(super) fn sign<'t>(
    protocol: Protocol,
    root: Value<'t>,
    edits: &mut Edits<'t>,
    notes: &mut Notes,
) {
    let turns: Vec<_> = history::turns(protocol, root).collect();
    let spoke = turns.iter().rposition(|turn| speaks(protocol, *turn));
    let since = turns.get(spoke.map_or(0, |at| at + 1)..);
    for turn in since.into_iter().flatten() {
        if let Some(call) = first_call(protocol, *turn) {
            match protocol {
                Protocol::Gemini => edits.set(call, NAMES[0], &format!("\"{SENTINEL}\"")),
                _ => edits.set(
                    call,
                    EXTRA,
                    &format!(r#"{{"google":{{"thought_signature":"{SENTINEL}"}}}}"#),
                ),
            }
            notes.info(Action::Injected, "thought_signature");
        }
    }
}

/// Whether the user says something in that turn, not just what tools did.
fn speaks(protocol: Protocol, turn: Value<'_>) -> bool {
    if protocol != Protocol::Gemini {
        return says(turn, "role", "user");
    }
    let parts = turn.get("parts");
    let mut parts = parts.into_iter().flat_map(|parts| parts.items());
    let result = |part: Value<'_>| RESULTS.iter().any(|name| part.some(name).is_some());
    !says(turn, "role", "model") && parts.any(|part| !result(part))
}

/// The turn's first call, if it has no signature.
fn first_call(protocol: Protocol, turn: Value<'_>) -> Option<Value<'_>> {
    if protocol != Protocol::Gemini {
        let call = turn.get("tool_calls")?.items().next()?;
        return call.some(EXTRA).is_none().then_some(call);
    }
    let is_call = |part: &Value<'_>| CALLS.iter().any(|name| part.some(name).is_some());
    let call = turn.get("parts")?.items().find(is_call)?;
    let signed = NAMES.iter().any(|name| call.some(name).is_some());
    (!signed).then_some(call)
}
