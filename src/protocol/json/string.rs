//! Where a string ends, and what it says when nothing in it is escaped.

use memchr::memchr2;

/// The text of a string given with its quotation marks, when nothing in it is
/// escaped; anything else is left to a parser.
#[must_use]
pub fn plain_string(value: &[u8]) -> Option<&str> {
    let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    text.iter()
        .all(plain)
        .then(|| std::str::from_utf8(text).ok())
        .flatten()
}

/// How much of a string is looked through eight bytes at a time before the search that is
/// made for long ones: most strings of JSON are names and words.
const SHORT: usize = 32;

/// The first quotation mark or backslash at or behind an offset.
pub(in crate::protocol) fn string_stop(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    for word in bytes.get(from..)?.as_chunks().0.iter().take(SHORT / 8) {
        let word = u64::from_le_bytes(*word);
        let stops = zero_bytes(word ^ QUOTATION_MARKS) | zero_bytes(word ^ BACKSLASHES);
        if stops != 0 {
            return Some(at + (stops.trailing_zeros() / 8) as usize);
        }
        at += 8;
    }
    memchr2(b'"', b'\\', bytes.get(at..)?).map(|found| at + found)
}

const EACH: u64 = 0x0101_0101_0101_0101;
const QUOTATION_MARKS: u64 = EACH * b'"' as u64;
const BACKSLASHES: u64 = EACH * b'\\' as u64;

/// The high bit of each byte that is zero; above the lowest such byte it may be
/// set for others as well (Mycroft, 1987).
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(EACH) & !word & (EACH << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_string_is_what_a_parser_reads() {
        for text in [
            "\"\"",
            "\"gpt-4.1\"",
            "\"日本\"",
            "\"a\\n\"",
            "\"a\u{1}\"",
            "\"",
            "a",
            "\"a\"b\"",
        ] {
            let parsed = serde_json::from_slice::<String>(text.as_bytes()).ok();
            let plain = plain_string(text.as_bytes()).map(str::to_owned);
            assert!(plain.is_none() || plain == parsed, "{text}");
            assert_eq!(
                plain.is_some(),
                parsed.is_some() && !text.contains('\\'),
                "{text}"
            );
        }
        assert_eq!(plain_string(b"\"\xff\""), None);
    }

    proptest! {
        #[test]
        fn a_strings_end_is_found_at_any_distance(before in 0_usize..80, from in 0_usize..90) {
            let bytes = ["x".repeat(before).as_bytes(), b"\"y\\"].concat();
            let stop = bytes.get(from..).and_then(|rest| memchr2(b'"', b'\\', rest));
            prop_assert_eq!(string_stop(&bytes, from), stop.map(|at| from + at));
        }
    }
}
