//! A conversation that was begun at another provider, and goes on at one that gets
//! the client's own bytes: what it would refuse is put right before it is asked.
//!
//! A body is parsed only where a cheap search has found a sign of it: the mark of
//! an envelope, or, where Claude is to think, a result for a call that Claude did
//! not make.

use bytes::Bytes;
use memchr::memmem;

use crate::protocol::Protocol;
use crate::protocol::envelope;
use crate::protocol::history;
use crate::protocol::json::{Tape, Value};
use crate::protocol::notes::Notes;
use crate::protocol::repair::{self, Fix};
use crate::protocol::splice::{self, Patch};
use crate::routing::Candidate;

/// Where a request says how it is to be answered, from either end.
const ENDS: usize = 16 * 1024;
/// How far from the end the result is looked for that the model is to go on from.
const TAIL: usize = 256 * 1024;

/// What a body is to be parsed for.
#[derive(Clone, Copy)]
pub(super) struct Look {
    marked: bool,
    /// Whether Claude may be unable to think on from there.
    unsure: bool,
}

/// Whether the body has to be looked into; `marked` is whether an envelope may be in
/// it. In strict mode only what has to go is looked for.
pub(super) fn needs_a_look(
    frames: &[Bytes],
    marked: bool,
    protocol: Protocol,
    candidate: &Candidate,
    strict: bool,
) -> Option<Look> {
    let claude = protocol == Protocol::Messages && candidate.model.contains("claude") && !strict;
    let unsure = claude && is_to_think(frames) && (marked || is_for_foreign_call(frames));
    (marked || unsure).then_some(Look { marked, unsure })
}

/// The body as this candidate can take it, and whether reasoning was left out that a
/// provider of another protocol gave this client in an envelope; what this one made
/// itself comes home unwrapped.
pub(super) fn settled(
    frames: &[Bytes],
    look: Look,
    protocol: Protocol,
    candidate: &Candidate,
    notes: &mut Notes,
) -> (Vec<Bytes>, bool) {
    let mut whole = Bytes::from(frames.concat());
    let mut lost = false;
    if look.marked {
        let account = &candidate.provider.id;
        let stripped = on(&whole, |root| {
            let (patches, some) = envelope::strip_foreign(protocol, root, account);
            lost = some;
            patches
        });
        whole = Bytes::from(stripped.concat());
    }
    if !look.unsure {
        return (vec![whole], lost);
    }
    let settled = on(&whole, |root| {
        if !history::is_unsigned_loop(root) {
            return Vec::new();
        }
        let edits = repair::apply(&[Fix::ThinkingOff], protocol, root, notes);
        edits.map_or_else(Vec::new, |edits| edits.into_patches())
    });
    (settled, lost)
}

fn on(whole: &Bytes, patches: impl FnOnce(Value<'_>) -> Vec<Patch>) -> Vec<Bytes> {
    let mut tape = Tape::new();
    let patches = match tape.parse_bytes(whole) {
        Ok(root) => patches(root),
        Err(_) => Vec::new(),
    };
    splice::apply(std::slice::from_ref(whole), patches)
}

/// Whether thinking is asked for by a budget, which is where Claude wants it to have
/// been signed in the calls before.
fn is_to_think(frames: &[Bytes]) -> bool {
    let word = b"\"budget_tokens\"";
    let (Some(first), Some(last)) = (frames.first(), frames.last()) else {
        return false;
    };
    let head = first.get(..ENDS).unwrap_or(first);
    let tail = last.get(last.len().saturating_sub(ENDS)..);
    memmem::find(head, word).is_some()
        || tail.is_some_and(|tail| memmem::find(tail, word).is_some())
}

/// Whether the last result is one for a call that has no id of Anthropic's.
fn is_for_foreign_call(frames: &[Bytes]) -> bool {
    let word = b"\"tool_use_id\"";
    let mut left = TAIL;
    for frame in frames.iter().rev() {
        let tail = frame.get(frame.len().saturating_sub(left)..);
        let tail = tail.unwrap_or_default();
        if let Some(at) = memmem::rfind(tail, word) {
            let behind = tail.get(at + word.len()..).unwrap_or_default();
            let id = behind
                .iter()
                .position(|byte| !matches!(byte, b' ' | b':' | b'\n' | b'\r' | b'\t'));
            let id = id.and_then(|id| behind.get(id..)).unwrap_or_default();
            return id.len() > 8 && !id.starts_with(b"\"toolu_");
        }
        left = left.saturating_sub(frame.len());
        if left == 0 {
            break;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &str) -> Vec<Bytes> {
        vec![Bytes::from(text.to_owned())]
    }

    #[test]
    fn only_a_result_for_a_foreign_call_is_a_sign() {
        for (text, foreign) in [
            (r#"{"tool_use_id": "call_123456"}"#, true),
            (r#"{"tool_use_id":"toolu_123456"}"#, false),
            (
                r#"{"tool_use_id":"toolu_12"},{"tool_use_id":"chatcmpl-tool-1"}"#,
                true,
            ),
            (r#"{"text":"no result"}"#, false),
            (r#"{"tool_use_id":"#, false),
        ] {
            assert_eq!(is_for_foreign_call(&frames(text)), foreign, "{text}");
        }
        let long = format!(
            r#"{{"tool_use_id":"call_123456","content":"{}"}}"#,
            "x".repeat(TAIL)
        );
        assert!(!is_for_foreign_call(&frames(&long)));
    }

    #[test]
    fn thinking_is_found_at_either_end() {
        let thinking = r#""thinking":{"type":"enabled","budget_tokens":1024}"#;
        let filler = format!(r#""messages":"{}""#, "x".repeat(3 * ENDS));
        for text in [
            format!("{{{thinking},{filler}}}"),
            format!("{{{filler},{thinking}}}"),
        ] {
            assert!(is_to_think(&frames(&text)));
        }
        assert!(!is_to_think(&frames(&format!("{{{filler}}}"))));
        assert!(!is_to_think(&[]));
    }
}
