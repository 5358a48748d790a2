//! What Anthropic's API refuses since its version of October 2026: sampling options
//! even at their defaults, documents that the assistant would have said, and
//! citations in what the user says.
//!
//! A client says the version that its body is written for, and the provider gets
//! both; only where the operator sets another version can they disagree.
//! <https://docs.claude.com/en/api/versioning>

use super::Destination;
use crate::protocol::Protocol;
use crate::protocol::edit::Edits;
use crate::protocol::history::{self, says};
use crate::protocol::json::Value;
use crate::protocol::notes::{Action, Notes};

/// The first version that refuses them. Versions are dates.
const SINCE: &str = "2026-10-21";
const SAMPLING: [&str; 3] = ["temperature", "top_p", "top_k"];

/// Whether the provider is always asked in such a version.
pub(super) fn is_pinned(to: Destination<'_>) -> bool {
    to.protocol == Protocol::Messages && to.version.is_some_and(|version| version >= SINCE)
}

pub(super) fn strip<'t>(root: Value<'t>, edits: &mut Edits<'t>, notes: &mut Notes) {
    for name in SAMPLING {
        if root.get(name).is_some() {
            edits.remove_member(root, name);
            notes.warn(Action::Dropped, name);
        }
    }
    let Some(turns) = root.get(history::member(Protocol::Messages)) else {
        return;
    };
    for (at, turn) in turns.items().enumerate() {
        let Some(content) = turn.get("content") else {
            continue;
        };
        if says(turn, "role", "assistant") {
            documents(turns, (at, content), edits, notes);
        } else {
            citations(content, edits, notes);
        }
    }
}

/// Takes documents out of an assistant's turn; a turn that is nothing else goes.
fn documents<'t>(
    turns: Value<'t>,
    (at, content): (usize, Value<'t>),
    edits: &mut Edits<'t>,
    notes: &mut Notes,
) {
    let blocks = content.items().enumerate();
    let documents = blocks.filter(|(_, block)| says(*block, "type", "document"));
    let documents: Vec<usize> = documents.map(|(place, _)| place).collect();
    if documents.is_empty() {
        return;
    }
    notes.warn(Action::Dropped, "messages[].content[]=document");
    if documents.len() == content.items().count() {
        return edits.remove(turns, at);
    }
    for place in documents {
        edits.remove(content, place);
    }
}

fn citations<'t>(content: Value<'t>, edits: &mut Edits<'t>, notes: &mut Notes) {
    let cites = |block: &Value<'_>| {
        let list = block.some("citations");
        says(*block, "type", "text") && list.is_some_and(|list| !list.is_empty())
    };
    for block in content.items().filter(cites) {
        edits.remove_member(block, "citations");
        notes.warn(Action::Dropped, "messages[].content[].citations");
    }
}
