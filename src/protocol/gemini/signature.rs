//! Thought signatures: as clients send them back, and as providers want them.

use crate::protocol::envelope;
use crate::protocol::ir::{Opaque, OpaqueKind};
use crate::protocol::json::Str;
use crate::protocol::translate::Reply;

/// What Google accepts in place of a signature that nobody has: on the first call
/// of a step it may not be missing.
/// <https://ai.google.dev/gemini-api/docs/thought-signatures>
pub(in crate::protocol) const SENTINEL: &str = "skip_thought_signature_validator";

/// The other word that Google accepts so; clients send it back.
const OLD_SENTINEL: &str = "context_engineering_is_the_way_to_go";

/// A signature that a client sent: unwrapped if it is an envelope. The second
/// value is the reasoning that came home with it. `None` for what only
/// stands in for a signature.
pub(super) fn inward(data: Str<'_>) -> Option<(Opaque<'_>, Option<String>)> {
    if data.is(SENTINEL) || data.is(OLD_SENTINEL) {
        return None;
    }
    let (opaque, text) = envelope::inward(standard(data), OpaqueKind::GeminiSignature);
    // The mark of a call that Google did not make says nothing else.
    let mark = opaque.kind == OpaqueKind::Unsigned && opaque.data.is_empty() && text.is_none();
    (!mark).then_some((opaque, text))
}

/// Google's own SDKs send bytes back in the URL-safe alphabet.
fn standard(data: Str<'_>) -> Str<'_> {
    let changed = {
        let inner = data.inner();
        inner.bytes().any(|byte| matches!(byte, b'-' | b'_')) || !inner.len().is_multiple_of(4)
    };
    if changed {
        Str::from(padded(&data.plain()))
    } else {
        data
    }
}

/// The base64 in the standard alphabet, padded.
pub(super) fn padded(data: &str) -> String {
    let letter = |letter: char| match letter {
        '-' => '+',
        '_' => '/',
        other => other,
    };
    let mut out: String = data.trim_end_matches('=').chars().map(letter).collect();
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

/// A blob as a Gemini client is to see it, with the reasoning that has no place
/// of its own. Who made it is marked where its provider did not say.
pub(super) fn outward(opaque: &Opaque<'_>, text: Option<&str>, reply: &Reply) -> String {
    let marked = reply.marked(opaque);
    envelope::outward(&marked, &[OpaqueKind::GeminiSignature], text).to_plain_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_come_in_the_standard_alphabet_and_sentinels_not_at_all() {
        let (opaque, text) = inward(Str::new("a-b_cw")).unwrap();
        assert_eq!(opaque.data, Str::new("a+b/cw=="));
        assert_eq!((opaque.kind, text), (OpaqueKind::GeminiSignature, None));
        let (opaque, _) = inward(Str::new("ab+/")).unwrap();
        assert_eq!(opaque.data, Str::new("ab+/"));
        assert!(inward(Str::new(SENTINEL)).is_none());
    }
}
