//! The turns of a request that is to be changed where it stands: where each of
//! the four protocols keeps them, and how blocks are taken out of them.

use super::Protocol;
use super::edit::Edits;
use super::json::Value;

/// The name of the member that holds the turns.
#[must_use]
pub const fn member(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Responses => "input",
        Protocol::Gemini => "contents",
        _ => "messages",
    }
}

/// The turns of a body, or its items where it is one of Responses.
pub fn turns(protocol: Protocol, root: Value<'_>) -> impl Iterator<Item = Value<'_>> {
    let turns = root.get(member(protocol));
    turns.into_iter().flat_map(|turns| turns.items())
}

/// Whether the model is to go on (Messages) from calls without a thought before them,
/// made since the user last spoke.
#[must_use]
pub fn is_unsigned_loop(root: Value<'_>) -> bool {
    let turns: Vec<_> = turns(Protocol::Messages, root).collect();
    for turn in turns.into_iter().rev() {
        let blocks = turn.get("content");
        let mut blocks = blocks.into_iter().flat_map(|blocks| blocks.items());
        if says(turn, "role", "user") {
            if !blocks.any(|block| says(block, "type", "tool_result")) {
                return false;
            }
        } else if says(turn, "role", "assistant") {
            let first = blocks.next();
            let thought = |block: Value<'_>| {
                says(block, "type", "thinking") || says(block, "type", "redacted_thinking")
            };
            let call = |block: Value<'_>| says(block, "type", "tool_use");
            if !first.is_some_and(thought) && (first.is_some_and(call) || blocks.any(call)) {
                return true;
            }
        }
    }
    false
}

/// The word in a member.
#[must_use]
pub fn word<'t>(value: Value<'t>, name: &str) -> Option<std::borrow::Cow<'t, str>> {
    Some(value.get(name)?.as_str()?.into_plain())
}

/// Whether a member is that word.
#[must_use]
pub fn says(value: Value<'_>, name: &str, wanted: &str) -> bool {
    let word = value.get(name).and_then(|value| value.as_str());
    word.is_some_and(|word| word.is(wanted))
}

/// Takes blocks out of the turns' `content` or `parts`. A turn of which nothing
/// would be left goes as a whole. True when anything went.
pub fn drop_blocks<'t>(
    edits: &mut Edits<'t>,
    turns: Value<'t>,
    blocks: &str,
    goes: impl Fn(Value<'t>) -> bool,
) -> bool {
    let mut any = false;
    for (at, turn) in turns.items().enumerate() {
        let Some(list) = turn.get(blocks).filter(|list| !list.is_empty()) else {
            continue;
        };
        let gone: Vec<usize> = positions(list, &goes);
        if gone.is_empty() {
            continue;
        }
        any = true;
        if gone.len() == list.items().count() {
            edits.remove(turns, at);
            continue;
        }
        gone.into_iter().for_each(|block| edits.remove(list, block));
    }
    any
}

/// Takes entries out of `tools`. When none would be left, `tools` and
/// `tool_choice` go as a whole: many providers refuse an empty list. True when
/// anything went.
pub fn drop_tools<'t>(
    edits: &mut Edits<'t>,
    root: Value<'t>,
    goes: impl Fn(Value<'t>) -> bool,
) -> bool {
    let Some(tools) = root.get("tools").filter(|tools| !tools.is_empty()) else {
        return false;
    };
    let gone = positions(tools, &goes);
    if gone.is_empty() {
        return false;
    }
    if gone.len() == tools.items().count() {
        for name in ["tools", "tool_choice", "toolConfig", "tool_config"] {
            edits.remove_member(root, name);
        }
        return true;
    }
    gone.into_iter().for_each(|tool| edits.remove(tools, tool));
    true
}

fn positions<'t>(list: Value<'t>, goes: &impl Fn(Value<'t>) -> bool) -> Vec<usize> {
    let items = list.items().enumerate();
    let gone = items.filter(|(_, item)| goes(*item));
    gone.map(|(at, _)| at).collect()
}
