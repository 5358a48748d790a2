//! Ids for calls that came without one.

use ring::digest::{Context, SHA256};

/// The prefix and 24 base62 digits that follow from the words: the same words
/// give the same id, so that an answer does not depend on when or how often it
/// was read.
pub(super) fn id(prefix: &str, words: &[&[u8]]) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut context = Context::new(&SHA256);
    for word in words {
        context.update(&word.len().to_le_bytes());
        context.update(word);
    }
    let mut out = String::with_capacity(prefix.len() + 24);
    out.push_str(prefix);
    for byte in context.finish().as_ref().iter().take(24) {
        let digit = DIGITS.get(usize::from(*byte) % DIGITS.len());
        out.push(char::from(digit.copied().unwrap_or(b'0')));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn an_id_follows_from_the_words_and_their_borders() {
        let made = id("call_", &[b"ab", b"c"]);
        assert_eq!(made.len(), 29);
        assert_eq!(made, id("call_", &[b"ab", b"c"]));
        assert_ne!(made, id("call_", &[b"a", b"bc"]));
    }
}
