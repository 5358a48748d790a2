//! One walk over the bytes of a JSON value (RFC 8259), without recursion: is it
//! a document, and where does what lie?

use super::string::string_stop;

/// Deeper nesting counts as broken; parsers on the way would refuse it too.
pub(super) const DEEPEST: usize = 512;

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `null`
    Null,
    /// `true`
    True,
    /// `false`
    False,
    /// A number, in whatever notation.
    Number,
    /// A string without a backslash.
    Plain,
    /// A string with escapes.
    Escaped,
    /// `[...]`
    Array,
    /// `{...}`
    Object,
}

/// Why some text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The byte at which it was noticed.
    pub at: usize,
    /// What was wanted there.
    pub wanted: &'static str,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "not valid JSON at byte {}: expected {}",
            self.at, self.wanted
        )
    }
}

impl std::error::Error for Fault {}

/// Is told what the walk finds, in the order of the text. Member names come as
/// strings before their values.
pub(super) trait Visit {
    /// A scalar from `start` to `end`, quotation marks included.
    fn scalar(&mut self, kind: Kind, start: usize, end: usize) -> Result<(), Fault>;
    /// An object or array begins.
    fn open(&mut self, kind: Kind, start: usize) -> Result<(), Fault>;
    /// The innermost open one ends; `end` is behind its bracket.
    fn close(&mut self, end: usize);
}

/// Whether the bytes are one JSON value with white space around it. Escapes are
/// looked at only for where a string ends; what is in it is the affair of
/// whoever reads it.
#[must_use]
pub fn is_document(bytes: &[u8]) -> bool {
    struct Nothing;
    impl Visit for Nothing {
        fn scalar(&mut self, _: Kind, _: usize, _: usize) -> Result<(), Fault> {
            Ok(())
        }
        fn open(&mut self, _: Kind, _: usize) -> Result<(), Fault> {
            Ok(())
        }
        fn close(&mut self, _: usize) {}
    }
    walk(bytes, &mut Nothing).is_ok()
}

/// Walks over one value and the white space around it.
pub(super) fn walk(bytes: &[u8], visit: &mut impl Visit) -> Result<(), Fault> {
    let mut walk = Walk {
        bytes,
        at: 0,
        open: Vec::new(),
        visit,
    };
    walk.value()?;
    walk.rest()
}

struct Walk<'a, 'v, V> {
    bytes: &'a [u8],
    at: usize,
    /// The closing bytes that are waited for, innermost last.
    open: Vec<u8>,
    visit: &'v mut V,
}

impl<V: Visit> Walk<'_, '_, V> {
    /// Everything behind the first value: separators, further values, ends.
    fn rest(&mut self) -> Result<(), Fault> {
        loop {
            self.space();
            let Some(end) = self.open.last().copied() else {
                if self.at == self.bytes.len() {
                    return Ok(());
                }
                return Err(self.fault("the end"));
            };
            match self.peek() {
                Some(byte) if byte == end => self.leave(),
                Some(b',') => {
                    self.at += 1;
                    if end == b'}' {
                        self.name()?;
                    }
                    self.value()?;
                }
                _ if end == b'}' => return Err(self.fault("',' or '}'")),
                _ => return Err(self.fault("',' or ']'")),
            }
        }
    }

    /// A whole scalar, or the start of an object or array with its first member.
    fn value(&mut self) -> Result<(), Fault> {
        loop {
            self.space();
            match self.peek() {
                Some(b'"') => return self.string(),
                Some(b'{') => {
                    if self.enter(Kind::Object, b'}')? {
                        return Ok(());
                    }
                    self.name()?;
                }
                Some(b'[') => {
                    if self.enter(Kind::Array, b']')? {
                        return Ok(());
                    }
                }
                Some(b't') => return self.literal(Kind::True, b"true"),
                Some(b'f') => return self.literal(Kind::False, b"false"),
                Some(b'n') => return self.literal(Kind::Null, b"null"),
                Some(b'-' | b'0'..=b'9') => return self.number(),
                _ => return Err(self.fault("a value")),
            }
        }
    }

    /// Opens a container; true when it is empty and closed already.
    fn enter(&mut self, kind: Kind, end: u8) -> Result<bool, Fault> {
        if self.open.len() == DEEPEST {
            return Err(self.fault("at most 512 levels of nesting"));
        }
        self.visit.open(kind, self.at)?;
        self.open.push(end);
        self.at += 1;
        self.space();
        let empty = self.peek() == Some(end);
        if empty {
            self.leave();
        }
        Ok(empty)
    }

    fn leave(&mut self) {
        self.at += 1;
        self.open.pop();
        self.visit.close(self.at);
    }

    fn name(&mut self) -> Result<(), Fault> {
        self.space();
        if self.peek() != Some(b'"') {
            return Err(self.fault("a member's name"));
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.fault("':'"));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let mut kind = Kind::Plain;
        self.at += 1;
        loop {
            let Some(found) = string_stop(self.bytes, self.at) else {
                self.at = self.bytes.len();
                return Err(self.fault("the end of a string"));
            };
            self.at = found + 1;
            if self.bytes.get(self.at - 1) == Some(&b'"') {
                return self.visit.scalar(kind, start, self.at);
            }
            kind = Kind::Escaped;
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let whole = self.digits();
        let leading_zero = whole > 1 && self.bytes.get(self.at - whole) == Some(&b'0');
        if whole == 0 || leading_zero {
            return Err(self.fault("a number"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.fault("a digit"));
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return Err(self.fault("a digit"));
            }
        }
        self.visit.scalar(Kind::Number, start, self.at)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }

    fn literal(&mut self, kind: Kind, word: &'static [u8]) -> Result<(), Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(self.fault("a value"));
        }
        let start = self.at;
        self.at += word.len();
        self.visit.scalar(kind, start, self.at)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fault(&self, wanted: &'static str) -> Fault {
        Fault {
            at: self.at,
            wanted,
        }
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

    proptest! {
        #[test]
        fn it_agrees_with_a_parser(text in r#"[\[\]{}:,"a0-9eE.+\- ntrulfs]{0,24}"#) {
            prop_assert_eq!(is_document(text.as_bytes()), parses(text.as_bytes()));
        }
    }
}
