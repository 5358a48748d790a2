//! Reasoning that can't be verified, taken out of the history of each protocol with
//! everything that can't stand without it.

use crate::protocol::Protocol;
use crate::protocol::edit::Edits;
use crate::protocol::gemini::signature::SENTINEL;
use crate::protocol::history;
use crate::protocol::json::Value;

/// Both spellings of Gemini's field.
const SIGNATURES: [&str; 2] = ["thoughtSignature", "thought_signature"];
const CALLS: [&str; 2] = ["functionCall", "function_call"];

pub(super) fn strip<'t>(protocol: Protocol, root: Value<'t>, edits: &mut Edits<'t>) {
    let Some(turns) = root.get(history::member(protocol)) else {
        return;
    };
    match protocol {
        Protocol::Responses => items(turns, edits),
        Protocol::Gemini => parts(turns, edits),
        Protocol::Messages => thinking(turns, edits),
        _ => chat(turns, edits),
    }
}

fn thinking<'t>(turns: Value<'t>, edits: &mut Edits<'t>) {
    let _any = history::drop_blocks(edits, turns, "content", |block| {
        let sort = history::word(block, "type");
        matches!(sort.as_deref(), Some("thinking" | "redacted_thinking"))
    });
}

/// Reasoning items; and the ids of what they led to, by which a provider that kept
/// it would miss them.
fn items<'t>(turns: Value<'t>, edits: &mut Edits<'t>) {
    let mut any = false;
    for (at, item) in turns.items().enumerate() {
        if history::says(item, "type", "reasoning") {
            edits.remove(turns, at);
            any = true;
        }
    }
    for item in turns.items().filter(|_| any) {
        let sort = history::word(item, "type");
        let made = match sort.as_deref() {
            Some("function_call" | "custom_tool_call") => true,
            Some("message") => history::says(item, "role", "assistant"),
            _ => false,
        };
        if made {
            edits.remove_member(item, "id");
        }
    }
}

fn chat<'t>(turns: Value<'t>, edits: &mut Edits<'t>) {
    thinking(turns, edits);
    for turn in turns.items() {
        for name in ["reasoning_details", "thinking_blocks"] {
            edits.remove_member(turn, name);
        }
        let calls = turn.get("tool_calls");
        for call in calls.into_iter().flat_map(|calls| calls.items()) {
            edits.remove_member(call, "extra_content");
        }
    }
}

fn parts<'t>(turns: Value<'t>, edits: &mut Edits<'t>) {
    let thought = |part: Value<'_>| {
        let flag = part.get("thought").and_then(|value| value.as_bool());
        flag == Some(true)
    };
    let _any = history::drop_blocks(edits, turns, "parts", thought);
    for part in all_parts(turns).filter(|part| !thought(*part)) {
        for name in SIGNATURES {
            match part.get(name) {
                // Newer models want one on their calls, whatever it is.
                Some(_) if is_call(part) => edits.set(part, name, &placeholder()),
                Some(_) => edits.remove_member(part, name),
                None => {}
            }
        }
    }
}

/// Gives the first call of every turn that has none a signature.
pub(super) fn sign<'t>(protocol: Protocol, root: Value<'t>, edits: &mut Edits<'t>) {
    if protocol != Protocol::Gemini {
        return;
    }
    for turn in history::turns(protocol, root) {
        let parts = turn.get("parts");
        let first = parts
            .into_iter()
            .flat_map(|parts| parts.items())
            .find(|part| is_call(*part));
        if let Some(call) = first
            && SIGNATURES.iter().all(|name| call.some(name).is_none())
        {
            edits.set(call, "thoughtSignature", &placeholder());
        }
    }
}

/// What Google takes for the signature of a call that was made elsewhere, as JSON.
fn placeholder() -> String {
    format!("\"{SENTINEL}\"")
}

fn is_call(part: Value<'_>) -> bool {
    CALLS.iter().any(|name| part.some(name).is_some())
}

fn all_parts(turns: Value<'_>) -> impl Iterator<Item = Value<'_>> {
    turns.items().flat_map(|turn| {
        let parts = turn.get("parts");
        parts.into_iter().flat_map(|parts| parts.items())
    })
}
