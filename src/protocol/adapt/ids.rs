//! Tool ids as Anthropic accepts them. Other providers make ids with dots and
//! colons, and a conversation that moves over has them in its history.

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::protocol::edit::Edits;
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};
use crate::protocol::{Protocol, fit, history};

/// Every call of a history has its result, so the results' ids tell enough.
const TOKEN: &[u8] = br#""tool_use_id""#;
/// An id that is cut off by the end of a frame is looked for in this much of both
/// sides of the seam.
const SEAM: usize = 256;
/// The longest id that Anthropic takes.
const LONGEST: usize = 64;

/// Whether some result's id is not made of letters, digits, `_` and `-` alone, or is
/// longer than 64 of them.
pub(super) fn may_concern(frames: &[Bytes]) -> bool {
    let finder = Finder::new(TOKEN);
    let others = &frames[..frames.len().saturating_sub(1)];
    if others.iter().any(|frame| frame.len() < SEAM) {
        return odd_in(&finder, &frames.concat());
    }
    let seams = frames.windows(2).any(|pair| {
        let [left, right] = pair else { return false };
        let right = &right[..right.len().min(SEAM)];
        let seam = [&left[left.len() - SEAM..], right].concat();
        odd_in(&finder, &seam)
    });
    seams || frames.iter().any(|frame| odd_in(&finder, frame))
}

/// Whether an odd id stands in a text. One that is cut off counts if it is too long
/// already; the rest of it is behind a seam.
fn odd_in(finder: &Finder<'_>, text: &[u8]) -> bool {
    finder.find_iter(text).any(|at| {
        let rest = &text[at + TOKEN.len()..];
        let start = rest
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b':'));
        let value = start
            .and_then(|start| rest.get(start..))
            .unwrap_or_default();
        let inner = value.strip_prefix(b"\"").unwrap_or_default();
        match inner.iter().position(|byte| !is_word(*byte)) {
            Some(end) => inner[end] != b'"' || end > LONGEST,
            None => inner.len() > LONGEST,
        }
    })
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

pub(super) fn normalize<'t>(root: Value<'t>, edits: &mut Edits<'t>, notes: &mut Notes) {
    for turn in history::turns(Protocol::Messages, root) {
        let content = turn.get("content");
        for block in content.into_iter().flat_map(|content| content.items()) {
            let id = match history::word(block, "type").as_deref() {
                Some("tool_use") => block.get("id"),
                Some("tool_result") => block.get("tool_use_id"),
                _ => None,
            };
            if let Some(value) = id
                && let Some(id) = value.as_str().filter(|id| !id.is_empty())
            {
                let fitted = fit::call_id(&id, Protocol::Messages);
                if !Str::new(&fitted).eq(&id) {
                    edits.replace_text(value, &fitted);
                    notes.info(Action::Coerced, "tool_ids");
                }
            }
        }
    }
}
