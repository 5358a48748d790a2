//! JSON text that travels as it is: strings with their escapes, and whole values.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::finder::finder;
use super::walk::Fault;

/// A string out of a document, or one made here.
///
/// What came from a document keeps the escapes that it was written with, so that
/// carrying it from one document into another is a copy of bytes. Equality is
/// that of what is meant.
#[derive(Clone)]
pub struct Str<'a>(Form<'a>);

#[derive(Clone)]
enum Form<'a> {
    /// What stands between quotation marks in a document, checked.
    Inner(Cow<'a, str>),
    /// What is meant, which may need escapes when it is written.
    Plain(Cow<'a, str>),
}

impl<'a> Str<'a> {
    /// What stood between the quotation marks of a checked document.
    pub(super) const fn of_checked(inner: &'a str) -> Self {
        Self(Form::Inner(Cow::Borrowed(inner)))
    }

    /// A string as it is meant.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self(Form::Plain(Cow::Borrowed(text)))
    }

    /// What is meant.
    #[must_use]
    pub fn plain(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Inner(inner) => unescape(inner),
            Form::Plain(text) => Cow::Borrowed(text),
        }
    }

    /// What is meant, given away.
    #[must_use]
    pub fn into_plain(self) -> Cow<'a, str> {
        match self.0 {
            Form::Inner(Cow::Borrowed(inner)) => unescape(inner),
            Form::Inner(Cow::Owned(inner)) => Cow::Owned(unescape(&inner).into_owned()),
            Form::Plain(text) => text,
        }
    }

    /// What is meant, as a `String`.
    #[must_use]
    pub fn to_plain_string(&self) -> String {
        self.plain().into_owned()
    }

    /// Whether this is that text.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        match &self.0 {
            Form::Inner(inner) => is_inner_of(inner, text),
            Form::Plain(own) => own == text,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Inner(text) | Form::Plain(text) => text.is_empty(),
        }
    }

    /// Whether there is nothing but white space in it.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        match &self.0 {
            Form::Inner(inner) if inner.starts_with(|c: char| c != '\\' && !c.is_whitespace()) => {
                false
            }
            _ => self.plain().trim().is_empty(),
        }
    }

    /// Bytes that it takes in a document; near enough to its length to reckon with.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Inner(text) | Form::Plain(text) => text.len(),
        }
    }

    /// How many characters are meant, without unescaping them.
    #[must_use]
    pub fn characters(&self) -> usize {
        let starts = |text: &str| match text.is_ascii() {
            true => text.len(),
            false => text.chars().count(),
        };
        match &self.0 {
            Form::Plain(text) => starts(text),
            Form::Inner(inner) => starts(inner) - escaped_away(inner),
        }
    }

    /// What lies before and behind the first of that character, without copying
    /// what is borrowed. Only for punctuation that no escape contains: `,`, `;`.
    #[must_use]
    pub fn split_once(&self, at: char) -> Option<(Self, Self)> {
        match &self.0 {
            Form::Inner(Cow::Borrowed(inner)) => {
                let (before, behind) = inner.split_once(at)?;
                Some((Str::of_checked(before), Str::of_checked(behind)))
            }
            Form::Plain(Cow::Borrowed(text)) => {
                let (before, behind) = text.split_once(at)?;
                Some((Str::new(before), Str::new(behind)))
            }
            _ => {
                let text = self.plain();
                let (before, behind) = text.split_once(at)?;
                Some((before.to_owned().into(), behind.to_owned().into()))
            }
        }
    }

    /// Cut loose from the document it came from.
    #[must_use]
    pub fn into_owned(self) -> Str<'static> {
        Str(match self.0 {
            Form::Inner(inner) => Form::Inner(Cow::Owned(inner.into_owned())),
            Form::Plain(text) => Form::Plain(Cow::Owned(text.into_owned())),
        })
    }

    /// The same string for a shorter while.
    #[must_use]
    pub fn borrowed(&self) -> Str<'_> {
        Str(match &self.0 {
            Form::Inner(inner) => Form::Inner(Cow::Borrowed(inner)),
            Form::Plain(text) => Form::Plain(Cow::Borrowed(text)),
        })
    }

    /// What stands between the quotation marks when it is written.
    #[must_use]
    pub fn inner(&self) -> Cow<'_, str> {
        match &self.0 {
            Form::Inner(inner) => Cow::Borrowed(inner),
            Form::Plain(text) => escape(text),
        }
    }
}

impl std::fmt::Debug for Str<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.plain())
    }
}

impl PartialEq for Str<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Inner(mine), Form::Inner(theirs)) if mine == theirs => true,
            _ => self.plain() == other.plain(),
        }
    }
}

impl Eq for Str<'_> {}

impl Default for Str<'_> {
    fn default() -> Self {
        Self::new("")
    }
}

impl From<String> for Str<'_> {
    fn from(text: String) -> Self {
        Self(Form::Plain(Cow::Owned(text)))
    }
}

impl<'a> From<&'a str> for Str<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text)
    }
}

impl<'a> From<Cow<'a, str>> for Str<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self(Form::Plain(text))
    }
}

/// The text of one whole JSON value, known to be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<'a>(Cow<'a, str>);

impl<'a> Raw<'a> {
    /// The empty object.
    pub const EMPTY_OBJECT: Raw<'static> = Raw(Cow::Borrowed("{}"));

    /// A value's text out of a checked document.
    pub(super) const fn of_checked(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Checks that some text is one JSON value, and takes it without the white
    /// space around it.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub fn parse(text: impl Into<Cow<'a, str>>) -> Result<Self, Fault> {
        let text = text.into();
        super::Tape::new().parse(&text)?;
        let trimmed = text.trim();
        Ok(Self(if trimmed.len() == text.len() {
            text
        } else {
            Cow::Owned(trimmed.to_owned())
        }))
    }

    /// A value that was built here.
    #[must_use]
    pub fn of_value(value: &serde_json::Value) -> Raw<'static> {
        Raw(Cow::Owned(value.to_string()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Cut loose from the document it came from.
    #[must_use]
    pub fn into_owned(self) -> Raw<'static> {
        Raw(Cow::Owned(self.0.into_owned()))
    }

    /// The same value for a shorter while.
    #[must_use]
    pub fn borrowed(&self) -> Raw<'_> {
        Raw(Cow::Borrowed(&self.0))
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// The same value without white space between its tokens. Key order, digits
    /// and escapes stay.
    #[must_use]
    pub fn compact(&self) -> Cow<'_, str> {
        let mut out = String::new();
        let mut kept = 0;
        let mut at = 0;
        let bytes = self.0.as_bytes();
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => at = string_end(bytes, at),
                b' ' | b'\n' | b'\r' | b'\t' => {
                    out.push_str(self.0.get(kept..at).unwrap_or_default());
                    at += 1;
                    kept = at;
                }
                _ => at += 1,
            }
        }
        if kept == 0 {
            return Cow::Borrowed(&self.0);
        }
        out.push_str(self.0.get(kept..).unwrap_or_default());
        Cow::Owned(out)
    }
}

/// Behind the closing quotation mark of the string that begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += found + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Whether that inner text means this. Escapes are longer than what they mean.
fn is_inner_of(inner: &str, text: &str) -> bool {
    let escaped = || memchr::memchr(b'\\', inner.as_bytes()).is_some();
    match inner.len().cmp(&text.len()) {
        Ordering::Less => false,
        Ordering::Equal => inner == text && !escaped(),
        Ordering::Greater => {
            let first = inner.as_bytes().first();
            let may = first == Some(&b'\\') || first == text.as_bytes().first();
            may && escaped() && unescape(inner) == text
        }
    }
}

/// Checks what stands between quotation marks; true when half a surrogate pair
/// stands alone in it.
pub(super) fn check(inner: &[u8], escaped: bool) -> Result<bool, Fault> {
    if has_control(inner) {
        let at = inner.iter().position(|byte| *byte < 0x20);
        return Err(Fault {
            at: at.unwrap_or_default(),
            wanted: "control characters of a string as escapes",
        });
    }
    if escaped { escapes(inner) } else { Ok(false) }
}

/// Whether a byte is below the space, eight at a time: the high bit of each that is,
/// and below it nothing is taken for one that isn't.
fn has_control(bytes: &[u8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        word.wrapping_sub(EACH * 0x20) & !word & (EACH << 7)
    };
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().any(|byte| *byte < 0x20);
    };
    let (words, _) = bytes.as_chunks::<8>();
    words
        .iter()
        .fold(low(last), |found, word| found | low(word))
        != 0
}

fn escapes(inner: &[u8]) -> Result<bool, Fault> {
    let mut odd = false;
    let mut high = None;
    let mut at = 0;
    while let Some(found) = inner.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        let start = at + found;
        let fault = Fault {
            at: start,
            wanted: "an escape sequence",
        };
        let rest = inner.get(start + 1..).unwrap_or_default();
        let (length, unit) = match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => (2, None),
            Some(b'u') => (6, Some(hex(rest.get(1..5)).ok_or(fault)?)),
            _ => return Err(fault),
        };
        // A low half belongs to a high half that ends just where it begins.
        let low = unit.is_some_and(|unit| (0xDC00..0xE000).contains(&unit));
        let whole = low && high == Some(start);
        odd |= !whole && (low || high.is_some());
        at = start + length;
        high = unit
            .filter(|unit| (0xD800..0xDC00).contains(unit))
            .map(|_| at);
    }
    Ok(odd || high.is_some())
}

fn hex(digits: Option<&[u8]>) -> Option<u16> {
    digits?.iter().try_fold(0u16, |unit, digit| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    })
}

/// The same document with U+FFFD in place of every half of a surrogate pair that
/// stands alone. Programs that cut text by UTF-16 units send such, and many
/// parsers refuse it.
#[must_use]
pub fn mended(document: &str) -> Cow<'_, str> {
    // Surrogates are those that begin with D; most documents have none.
    static SURROGATES: LazyLock<[Finder<'static>; 2]> =
        LazyLock::new(|| [finder("\\ud"), finder("\\uD")]);
    let any = |found: &Finder<'_>| found.find(document.as_bytes()).is_some();
    if !SURROGATES.iter().any(any) {
        return Cow::Borrowed(document);
    }
    let mut out = String::new();
    let mut kept = 0;
    let mut at = 0;
    let bytes = document.as_bytes();
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        let start = at + found;
        let unit = match bytes.get(start + 1) {
            Some(b'u') => hex(bytes.get(start + 2..start + 6)),
            _ => None,
        };
        let surrogate = unit.is_some_and(|unit| (0xD800..0xE000).contains(&unit));
        let escape = document.get(start..).unwrap_or_default();
        let (_, length) = if unit.is_some() {
            unescape_unit(escape.as_bytes())
        } else {
            (' ', 2)
        };
        if surrogate && length == 6 {
            out.push_str(document.get(kept..start).unwrap_or_default());
            out.push_str("\\ufffd");
            kept = start + 6;
        }
        at = start + length;
    }
    if kept == 0 {
        return Cow::Borrowed(document);
    }
    out.push_str(document.get(kept..).unwrap_or_default());
    Cow::Owned(out)
}

/// What a checked string's inner text means. Half a surrogate pair that stands
/// alone becomes U+FFFD.
pub(super) fn unescape(inner: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(found) = memchr::memchr(b'\\', rest.as_bytes()) {
        let (before, escape) = rest.split_at(found);
        out.push_str(before);
        let (letter, length) = unescape_one(escape);
        out.push(letter);
        rest = escape.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// By how many characters a checked string's inner text is longer than what it
/// means.
fn escaped_away(inner: &str) -> usize {
    let mut rest = inner;
    let mut away = 0;
    while let Some(found) = memchr::memchr(b'\\', rest.as_bytes()) {
        let escape = rest.get(found..).unwrap_or_default();
        let (_, length) = unescape_one(escape);
        away += length - 1;
        rest = escape.get(length..).unwrap_or_default();
    }
    away
}

/// The character that an escape at the start of the text stands for, and the
/// escape's length.
fn unescape_one(text: &str) -> (char, usize) {
    let bytes = text.as_bytes();
    let letter = match bytes.get(1) {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'u') => return unescape_unit(bytes),
        Some(other) if other.is_ascii() => char::from(*other),
        _ => return (char::REPLACEMENT_CHARACTER, 1),
    };
    (letter, 2)
}

fn unescape_unit(bytes: &[u8]) -> (char, usize) {
    let lone = (char::REPLACEMENT_CHARACTER, 6);
    let Some(unit) = hex(bytes.get(2..6)) else {
        return (char::REPLACEMENT_CHARACTER, 2);
    };
    if let Some(letter) = char::from_u32(u32::from(unit)) {
        return (letter, 6);
    }
    let follows = bytes.get(6..8) == Some(b"\\u");
    let Some(second) = hex(bytes.get(8..12)).filter(|_| follows) else {
        return lone;
    };
    match char::decode_utf16([unit, second]).next() {
        Some(Ok(letter)) => (letter, 12),
        _ => lone,
    }
}

/// The escapes that a string needs between quotation marks.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    let needs = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let any = text.bytes().fold(false, |any, byte| any | needs(byte));
    if !any {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + text.len() / 8 + 8);
    let mut rest = text;
    while let Some(at) = rest.bytes().position(needs) {
        out.push_str(rest.get(..at).unwrap_or_default());
        escape_one(
            rest.as_bytes().get(at).copied().unwrap_or_default(),
            &mut out,
        );
        rest = rest.get(at + 1..).unwrap_or_default();
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn escape_one(byte: u8, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.push_str("\\\""),
        b'\\' => out.push_str("\\\\"),
        b'\n' => out.push_str("\\n"),
        b'\r' => out.push_str("\\r"),
        b'\t' => out.push_str("\\t"),
        _ => {
            out.push_str("\\u00");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_value_loses_only_the_white_space_between_its_tokens() {
        let raw = Raw::parse("{ \"a b\" : [ 1.50 , \"x \\\" y\" ] }").unwrap();
        assert_eq!(raw.compact(), "{\"a b\":[1.50,\"x \\\" y\"]}");
        assert_eq!(Raw::parse("{\"a\":1}").unwrap().compact(), "{\"a\":1}");
        assert!(Raw::parse("{\"a\":1} x").is_err());
    }

    #[test]
    fn halves_of_surrogate_pairs_are_mended_and_nothing_else() {
        let whole = r#"{"a":"\ud83d\ude00 \\ud83d \n é"}"#;
        assert!(matches!(mended(whole), Cow::Borrowed(same) if same == whole));
        assert_eq!(
            mended(r#"["\ud83d","\ude00x","\ud83d\ud83d\ude00"]"#),
            r#"["\ufffd","\ufffdx","\ufffd\ud83d\ude00"]"#
        );
    }

    #[test]
    fn equality_is_that_of_what_is_meant() {
        assert_eq!(Str::of_checked("a\\u0062"), Str::new("ab"));
        assert!(Str::of_checked("\\u0061").is("a"));
        assert!(Str::of_checked("\\n \\t").is_blank());
        assert!(!Str::of_checked("x").is_blank() && Str::new("").is_blank());
    }

    #[test]
    fn a_string_is_cut_at_punctuation_with_its_escapes_kept() {
        let (before, behind) = Str::of_checked("data:a\\/b,c\\/d,e")
            .split_once(',')
            .unwrap();
        assert_eq!(
            (before.plain(), behind.plain()),
            ("data:a/b".into(), "c/d,e".into())
        );
        assert_eq!(behind.inner(), "c\\/d,e");
        assert!(Str::new("abc").split_once(',').is_none());
    }

    proptest! {
        #[test]
        fn control_characters_are_found_anywhere(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(has_control(&bytes), bytes.iter().any(|byte| *byte < 0x20));
            let text: Vec<u8> = bytes.iter().map(|byte| byte | 0x20).collect();
            prop_assert!(!has_control(&text));
        }

        #[test]
        fn characters_are_counted_as_they_are_meant(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let inner = Str::of_checked(&json[1..json.len() - 1]);
            prop_assert_eq!(inner.characters(), text.chars().count());
            prop_assert_eq!(Str::new(&text).characters(), text.chars().count());
            let ascii: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            prop_assert_eq!(Str::of_checked(&ascii).characters(), text.chars().count());
        }

        #[test]
        fn escapes_are_those_of_a_serializer(text in any::<String>()) {
            let inner = escape(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&format!("\"{inner}\"")).unwrap(), text.as_str());
            prop_assert_eq!(unescape(&inner), text.as_str());
        }
    }
}
