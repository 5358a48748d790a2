//! Calls in a stream: which piece belongs to which call, and when a call's
//! arguments are whole. The protocol doesn't mark the end of a call.

use crate::protocol::json::Str;

/// How one call is known.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// The provider's number for it.
    pub(super) index: Option<u64>,
    /// Its id, where the provider gave one.
    pub(super) id: Option<String>,
    /// Its part's number, once it has begun.
    pub(super) part: Option<usize>,
    /// Whether its part has begun and not ended.
    pub(super) open: bool,
    /// Whether it takes free text.
    pub(super) custom: bool,
    /// What came before its name did.
    pub(super) held: String,
    /// How far its arguments have come.
    pub(super) scanner: Scanner,
}

/// What a piece says of the call that it belongs to.
#[derive(Debug)]
pub(super) struct Label<'l> {
    /// Number.
    pub(super) index: Option<u64>,
    /// Id.
    pub(super) id: Option<&'l Str<'l>>,
    /// Whether a name is told.
    pub(super) named: bool,
    /// Whether arguments are told.
    pub(super) filled: bool,
    /// How far from the end of its list the piece stands.
    pub(super) from_end: usize,
}

/// The call that a piece belongs to; `None` when a new one begins.
pub(super) fn find(calls: &[Call], label: &Label<'_>) -> Option<usize> {
    let same_id = |call: &Call| match (&call.id, label.id) {
        (Some(mine), Some(theirs)) => theirs.is(mine),
        _ => false,
    };
    if let Some(index) = label.index {
        let at = calls.iter().rposition(|call| call.index == Some(index))?;
        let call = calls.get(at)?;
        let fresh = match (&call.id, label.id) {
            // One number for all of its calls, but each with its id.
            (Some(_), Some(_)) => !same_id(call),
            // Neither has an id, or one comes late: a second name with arguments
            // behind whole ones begins a call.
            (_, None) | (None, Some(_)) => again(call, label),
        };
        return (!fresh).then_some(at);
    }
    if label.id.is_some() {
        return calls.iter().rposition(same_id);
    }
    let at = calls.len().checked_sub(label.from_end)?;
    let call = calls.get(at)?;
    (!label.named || !(call.scanner.is_whole() || call.custom)).then_some(at)
}

fn again(call: &Call, label: &Label<'_>) -> bool {
    label.named && label.filled && call.scanner.is_whole()
}

/// Follows the brackets of a JSON text that comes in pieces, each the inside of a
/// JSON string.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    depth: u32,
    in_string: bool,
    escaped: bool,
    whole: bool,
    begun: bool,
    closed: bool,
}

impl Scanner {
    /// Whether an object or array has begun and ended.
    pub(super) const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether anything has come.
    pub(super) const fn is_begun(&self) -> bool {
        self.begun
    }

    /// Whether a whole value has come, behind which there is nothing.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Says that a whole value has come.
    pub(super) const fn take_whole(&mut self) {
        self.begun = true;
        self.whole = true;
        self.closed = true;
    }

    /// One more piece.
    pub(super) fn feed(&mut self, piece: &Str<'_>) {
        self.begun = true;
        let inner = piece.inner();
        let bytes = inner.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let (meant, length) = match byte {
                b'\\' => meant(bytes.get(at + 1..).unwrap_or_default()),
                other => (*other, 1),
            };
            self.byte(meant);
            at += length;
        }
    }

    fn byte(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.whole = false;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.whole = self.depth == 0;
            }
            _ => {}
        }
    }
}

/// What an escape stands for, as far as brackets and quotation marks go, and its
/// length. `rest` is what follows the backslash.
fn meant(rest: &[u8]) -> (u8, usize) {
    match rest.first() {
        Some(byte @ (b'"' | b'\\')) => (*byte, 2),
        Some(b'u') => {
            let digits = rest.get(1..5).and_then(|hex| std::str::from_utf8(hex).ok());
            let unit = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            (unit.unwrap_or(b' '), 6)
        }
        _ => (b' ', 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(pieces: &[&str]) -> bool {
        let mut scanner = Scanner::default();
        for piece in pieces {
            scanner.feed(&Str::new(piece));
        }
        scanner.is_whole()
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        assert!(whole(&[r#"{"a":"}\"]{"}"#]));
        assert!(whole(&[r#"{"a":"\"#, r#"""#, r#","b":{}}"#]).eq(&false));
        assert!(!whole(&[r#"{"a":{}"#]) && !whole(&[""]) && !whole(&["12"]));
    }

    proptest! {
        #[test]
        fn arguments_are_whole_when_they_are_and_not_before(
            text in "[a-z{}\\[\\]\"\\\\ \u{e9}\n]{0,12}", cut in 0usize..40
        ) {
            let json = serde_json::json!({ "x": text, "y": [1] }).to_string();
            let mut at = cut.min(json.len() - 1);
            while !json.is_char_boundary(at) {
                at -= 1;
            }
            prop_assert!(whole(&[&json[..at], &json[at..]]));
            prop_assert!(!whole(&[&json[..at]]));
        }
    }
}
