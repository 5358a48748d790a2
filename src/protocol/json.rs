//! Is this a JSON document? An answer that is passed on unread must be one; to
//! find out costs a walk over its bytes and nothing else.

use memchr::arch::all::packedpair::HeuristicFrequencyRank;
use memchr::memchr2;
use memchr::memmem::{Finder, FinderBuilder};

/// A search for a token of JSON. It looks for the two rarest of its bytes first;
/// in JSON that is full of text, quotation marks and backslashes are anything but
/// rare, which the library's own table, made for text at large, can't know.
#[must_use]
pub fn finder(token: &'static str) -> Finder<'static> {
    FinderBuilder::new().build_forward_with_ranker(InJson, token.as_bytes())
}

struct InJson;

impl HeuristicFrequencyRank for InJson {
    fn rank(&self, byte: u8) -> u8 {
        const LETTERS: &[u8] = b"zqjxkvbywgpfmucdlhrsnioate";
        match LETTERS.iter().position(|letter| *letter == byte) {
            Some(place) => u8::try_from(place).map_or(u8::MAX, |place| 40 + place * 6),
            None if byte.is_ascii_uppercase() => 20,
            None if byte.is_ascii_digit() => 180,
            None => u8::MAX,
        }
    }
}

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
const SHORT: usize = 16;

/// The first quotation mark or backslash at or behind an offset.
pub(super) fn string_stop(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at < from + SHORT
        && let Some(word) = bytes.get(at..at + 8)
    {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        let word = u64::from_le_bytes(eight);
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

/// Deeper nesting counts as broken; parsers on the way would refuse it too.
const DEEPEST: usize = 512;

/// Whether the bytes are one JSON value (RFC 8259) with white space around it.
/// Escapes are looked at only for where a string ends; what is in it is the
/// affair of whoever reads it.
#[must_use]
pub fn is_document(bytes: &[u8]) -> bool {
    let mut walk = Walk {
        bytes,
        at: 0,
        open: Vec::new(),
    };
    walk.value() && walk.rest()
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The closing bytes that are waited for, innermost last.
    open: Vec<u8>,
}

impl Walk<'_> {
    /// Everything behind the first value: separators, further values, ends.
    fn rest(&mut self) -> bool {
        loop {
            let Some(end) = self.open.last().copied() else {
                self.space();
                return self.at == self.bytes.len();
            };
            self.space();
            match self.next() {
                Some(byte) if byte == end => {
                    self.open.pop();
                }
                Some(b',') => {
                    if !(if end == b'}' {
                        self.member()
                    } else {
                        self.value()
                    }) {
                        return false;
                    }
                }
                _ => return false,
            }
        }
    }

    /// A whole scalar, or the start of an object or array with its first member.
    fn value(&mut self) -> bool {
        loop {
            self.space();
            match self.next() {
                Some(b'"') => return self.string(),
                Some(b'{') => match self.enter(b'}') {
                    Some(true) => return true,
                    Some(false) if self.name() => {}
                    _ => return false,
                },
                Some(b'[') => match self.enter(b']') {
                    Some(true) => return true,
                    Some(false) => {}
                    None => return false,
                },
                Some(b't') => return self.literal(b"rue"),
                Some(b'f') => return self.literal(b"alse"),
                Some(b'n') => return self.literal(b"ull"),
                Some(b'-' | b'0'..=b'9') => {
                    self.at -= 1;
                    return self.number();
                }
                _ => return false,
            }
        }
    }

    /// Opens a container; true when it is empty and closed already.
    fn enter(&mut self, end: u8) -> Option<bool> {
        self.space();
        if self.bytes.get(self.at) == Some(&end) {
            self.at += 1;
            return Some(true);
        }
        self.open.push(end);
        (self.open.len() <= DEEPEST).then_some(false)
    }

    fn member(&mut self) -> bool {
        self.name() && self.value()
    }

    fn name(&mut self) -> bool {
        self.space();
        if self.next() != Some(b'"') || !self.string() {
            return false;
        }
        self.space();
        self.next() == Some(b':')
    }

    fn string(&mut self) -> bool {
        loop {
            let Some(found) = string_stop(self.bytes, self.at) else {
                return false;
            };
            self.at = found + 1;
            if self.bytes.get(self.at - 1) == Some(&b'"') {
                return true;
            }
            self.at += 1;
        }
    }

    fn number(&mut self) -> bool {
        self.at += usize::from(self.bytes.get(self.at) == Some(&b'-'));
        let whole = self.digits();
        let leading_zero = whole > 1 && self.bytes.get(self.at - whole) == Some(&b'0');
        if whole == 0 || leading_zero {
            return false;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return false;
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            return self.digits() > 0;
        }
        true
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }

    fn literal(&mut self, rest: &[u8]) -> bool {
        let found = self
            .bytes
            .get(self.at..)
            .is_some_and(|bytes| bytes.starts_with(rest));
        self.at += rest.len();
        found
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parses(bytes: &[u8]) -> bool {
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
    }

    #[test]
    fn documents_and_what_is_none() {
        for text in [
            "{}",
            " [ ] ",
            "{\"a\":[1,-2.5e+3,{\"b\":null}],\"c\":\"\\\"}\"}",
            "true",
            "0",
            "\"x\"",
            "[[[]],{}]",
        ] {
            assert!(is_document(text.as_bytes()), "{text}");
            assert!(parses(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{,}",
            "[1 2]",
            "{\"a\":1,}",
            "01",
            "1.",
            "-",
            "nul",
            "{}{}",
            "<html>",
            "\"x",
            "[}",
            "{]",
        ] {
            assert!(!is_document(text.as_bytes()), "{text}");
            assert!(!parses(text.as_bytes()), "{text}");
        }
        assert!(!is_document("[".repeat(100_000).as_bytes()));
    }

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

        #[test]
        fn it_agrees_with_a_parser(text in r#"[\[\]{}:,"a0-9eE.+\- ntrulfs]{0,24}"#) {
            prop_assert_eq!(is_document(text.as_bytes()), parses(text.as_bytes()));
        }
    }
}
