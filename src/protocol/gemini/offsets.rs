//! Offsets in text that has gone by: Gemini counts bytes, the others characters.
//!
//! The text itself is not kept, only which of its bytes begin no character: one
//! bit for each byte, and none for the ASCII before the first other character.

use crate::protocol::json::Str;

/// More text than this is no longer reckoned with.
const MOST: usize = 16 * 1024 * 1024;

/// Which bytes of a text begin a character.
#[derive(Clone, Debug, Default)]
pub(super) struct Offsets {
    /// Leading bytes, all of them ASCII, that have no bit.
    plain: usize,
    /// All bytes.
    bytes: usize,
    /// A set bit for each byte that is not the first of its character.
    inner: Vec<u64>,
}

impl Offsets {
    /// Bytes so far.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// More of the text.
    pub(super) fn push(&mut self, text: &Str<'_>) {
        let escaped = text.inner();
        // Without these escapes, what is ASCII as it is written is ASCII as it is
        // meant, and a character a byte.
        if self.inner.is_empty() && escaped.is_ascii() && !escaped.contains("\\u") {
            let length = text.characters();
            self.plain += length;
            self.bytes += length;
            return;
        }
        self.push_plain(&text.plain());
    }

    fn push_plain(&mut self, text: &str) {
        if self.bytes - self.plain > MOST {
            self.bytes += text.len();
            return;
        }
        for byte in text.bytes() {
            let at = self.bytes - self.plain;
            if at.is_multiple_of(64) {
                self.inner.push(0);
            }
            if byte & 0xC0 == 0x80
                && let Some(word) = self.inner.last_mut()
            {
                *word |= 1 << (at % 64);
            }
            self.bytes += 1;
        }
    }

    /// How many characters lie before that byte.
    pub(super) fn character(&self, byte: usize) -> Option<usize> {
        if byte <= self.plain {
            return Some(byte);
        }
        let at = byte - self.plain;
        if byte > self.bytes || at > self.inner.len() * 64 {
            return None;
        }
        let whole = self.inner.iter().take(at / 64);
        let mut inner: u32 = whole.map(|word| word.count_ones()).sum();
        if let Some(word) = self.inner.get(at / 64) {
            inner += (word & ((1 << (at % 64)) - 1)).count_ones();
        }
        Some(byte - inner as usize)
    }

    /// At which byte that character begins.
    pub(super) fn byte(&self, character: usize) -> Option<usize> {
        if character <= self.plain {
            return (character <= self.bytes).then_some(character);
        }
        let mut left = character - self.plain;
        let mut at = self.plain;
        for word in &self.inner {
            let begin = word.count_zeros() as usize;
            if left < begin {
                let bit = (0..64).filter(|bit| word >> bit & 1 == 0).nth(left);
                return Some(at + bit?).filter(|at| *at <= self.bytes);
            }
            left -= begin;
            at += 64;
        }
        // Bits behind the end count as beginnings: only the very end is left.
        (left == 0 && at == self.bytes).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn offsets_are_those_of_the_whole_text(pieces in proptest::collection::vec("[a-zé🙂\\n\\\\u]{0,40}", 0..8)) {
            let mut offsets = Offsets::default();
            for piece in &pieces {
                offsets.push(&Str::new(piece));
            }
            let text = pieces.concat();
            for (character, (byte, _)) in text.char_indices().enumerate() {
                prop_assert_eq!(offsets.character(byte), Some(character));
                prop_assert_eq!(offsets.byte(character), Some(byte));
            }
            prop_assert_eq!(offsets.bytes(), text.len());
            prop_assert_eq!(offsets.character(text.len()), Some(text.chars().count()));
            prop_assert_eq!(offsets.byte(text.chars().count()), Some(text.len()));
            prop_assert_eq!(offsets.character(text.len() + 1), None);
            prop_assert_eq!(offsets.byte(text.chars().count() + 1), None);
        }
    }
}
