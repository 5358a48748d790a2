//! One walk over a large body for what its middle could hide: a second name for
//! what steers the request, and the mark of an envelope.
//!
//! It is fed with each frame as it arrives, while the bytes are still in the
//! processor's cache. Three searches cost three walks; here blocks of 64 bytes are
//! held against all that is looked for at once, three bytes of each, and only where
//! those stand is anything read. The block test is plain code that the compiler
//! turns into vectors; it is compiled for several generations of processors and
//! chosen at run time, which halves its cost against the oldest.
//!
//! Nothing here knows what is done about a finding.

use std::sync::LazyLock;

use fearless_simd::{Level, Simd as _, dispatch};

use super::envelope::MARK;

/// Bodies up to this size are scanned as a whole.
pub const SMALL: usize = 16 * 1024;
/// More names than this and the whole body is scanned.
const MOST_NAMES: usize = 1024;
/// How many bytes are held against the needles at once.
const BLOCK: usize = 64;
/// The longest spelling of a name: each of its letters as an escape.
const LONGEST: usize = 2 + 6 * Name::StreamOptions.text().len();

static LEVEL: LazyLock<Level> = LazyLock::new(Level::new);

/// A member that steers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// `model`.
    Model,
    /// `stream`.
    Stream,
    /// `stream_options`.
    StreamOptions,
}

impl Name {
    const ALL: [Self; 3] = [Self::Model, Self::Stream, Self::StreamOptions];

    const fn text(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::StreamOptions => "stream_options",
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Sieve {
    seen: usize,
    /// The end of what was seen, for what lies across the border of two frames.
    border: Vec<u8>,
    names: Vec<(usize, Name)>,
    odd: bool,
    marked: bool,
}

impl Sieve {
    /// Whether a body of that size is worth the trouble.
    #[must_use]
    pub fn is_wanted(length: Option<u64>) -> bool {
        length.is_none_or(|length| length > SMALL as u64)
    }

    /// What it finds in a body that is there already.
    #[must_use]
    pub fn of(frames: &[bytes::Bytes]) -> Self {
        let mut sieve = Self::default();
        frames.iter().for_each(|frame| sieve.push(frame));
        sieve
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.across(frame);
        let mut findings = Findings {
            sieve: self,
            bytes: frame,
        };
        let level = *LEVEL;
        dispatch!(level, simd => simd.vectorize(
            #[inline(always)]
            || starts(frame, |at| findings.look(at))
        ));
        self.seen += frame.len();
        self.keep_border(frame);
    }

    /// How many bytes went through.
    #[must_use]
    pub const fn seen(&self) -> usize {
        self.seen
    }

    /// Where that name stands as one, on whatever level of nesting. What is not
    /// listed is not there, unless [`Sieve::is_odd`].
    pub fn places(&self, name: Name) -> impl Iterator<Item = usize> {
        let named = self.names.iter().filter(move |(_, found)| *found == name);
        named.map(|(at, _)| *at)
    }

    /// Whether a name is spelled so that only a scan of all bytes can tell.
    #[must_use]
    pub const fn is_odd(&self) -> bool {
        self.odd
    }

    /// Whether an envelope may be somewhere in the body.
    #[must_use]
    pub const fn is_marked(&self) -> bool {
        self.marked
    }

    /// Looks at what begins in one frame and ends in another: any name is odd.
    fn across(&mut self, frame: &[u8]) {
        let before = self.border.len();
        if before == 0 {
            return;
        }
        let head = &frame[..frame.len().min(LONGEST)];
        self.border.extend_from_slice(head);
        for at in 0..before {
            let bytes = &self.border[at..];
            let length = match bytes {
                [b'"', ..] => match spelled(bytes) {
                    Some(Spelled { length, .. }) => length,
                    None => continue,
                },
                [b'U', ..] if bytes.starts_with(MARK.as_bytes()) => MARK.len(),
                _ => continue,
            };
            if at + length > before {
                self.odd |= bytes[0] == b'"';
                self.marked |= bytes[0] == b'U';
            }
        }
    }

    fn keep_border(&mut self, frame: &[u8]) {
        if frame.len() >= LONGEST {
            self.border.clear();
            let tail = &frame[frame.len() - LONGEST..];
            self.border.extend_from_slice(tail);
            return;
        }
        // A border that was there has been made longer by the frame already.
        if self.border.is_empty() {
            self.border.extend_from_slice(frame);
        }
        let surplus = self.border.len().saturating_sub(LONGEST);
        self.border.drain(..surplus);
    }
}

/// What a frame is looked at with, where something may begin.
struct Findings<'a> {
    sieve: &'a mut Sieve,
    bytes: &'a [u8],
}

impl Findings<'_> {
    #[inline(never)]
    fn look(&mut self, at: usize) {
        let bytes = &self.bytes[at..];
        match bytes[0] {
            b'U' => self.sieve.marked |= bytes.starts_with(MARK.as_bytes()),
            b'"' => self.name(at),
            _ => self.escape(at),
        }
    }

    fn name(&mut self, at: usize) {
        let (before, bytes) = self.bytes.split_at(at);
        let Some(found) = spelled(bytes) else { return };
        // Behind a backslash the opening mark is text.
        if before.last() == Some(&b'\\') || !is_key(bytes, found.length) {
            return;
        }
        if found.escaped || self.sieve.names.len() == MOST_NAMES {
            self.sieve.odd = true;
            return;
        }
        let place = self.sieve.seen + at;
        self.sieve.names.push((place, found.name));
    }

    /// A letter is escaped: whatever name it is part of began not long before.
    fn escape(&mut self, at: usize) {
        let near = &self.bytes[at.saturating_sub(LONGEST)..at];
        if let Some(start) = memchr::memrchr(b'"', near) {
            self.name(at - near.len() + start);
        }
    }
}

/// Calls `found` with every offset at which a needle may begin, or an escape in one
/// stands. Inlined into code for each generation of processors.
#[inline(always)]
fn starts(bytes: &[u8], mut found: impl FnMut(usize)) {
    let blocks = |from| {
        let rest: &[u8] = bytes.get(from..).unwrap_or_default();
        rest.as_chunks::<BLOCK>().0
    };
    let mut at = 0;
    for ((first, second), fifth) in blocks(0).iter().zip(blocks(1)).zip(blocks(4)) {
        let mut any = 0;
        for i in 0..BLOCK {
            any |= may_start(first[i], second[i], fifth[i]);
        }
        if any != 0 {
            let mut flags = [0; BLOCK];
            for i in 0..BLOCK {
                flags[i] = may_start(first[i], second[i], fifth[i]);
            }
            raised(&flags, |i| found(at + i));
        }
        at += BLOCK;
    }
    // What has less than five bytes left is no needle.
    for (offset, window) in bytes[at..].windows(5).enumerate() {
        if may_start(window[0], window[1], window[4]) != 0 {
            found(at + offset);
        }
    }
}

/// Calls `found` with the place of each flag that is 1. To ask each of them would
/// cost several times as much as the block's test.
#[inline(always)]
fn raised(flags: &[u8; BLOCK], mut found: impl FnMut(usize)) {
    for (eight, word) in flags.as_chunks::<8>().0.iter().enumerate() {
        let mut word = u64::from_le_bytes(*word);
        while word != 0 {
            found(eight * 8 + word.trailing_zeros() as usize / 8);
            word &= word - 1;
        }
    }
}

/// 1 where something may stand, by three of its first five bytes; without branches,
/// so that many places can be asked at once.
///
/// `"model` and `"stream` have a quotation mark, `m` or `s` (and a few letters more,
/// for the sake of one comparison), and `e`; an escaped letter or underscore is
/// `\u00` and a digit from 4 to 7; the mark is `UExYM`.
#[inline(always)]
fn may_start(first: u8, second: u8, fifth: u8) -> u8 {
    const MS: u8 = b'm' | 0x1E;
    let name = u8::from(first == b'"') & u8::from(second | 0x1E == MS) & u8::from(fifth == b'e');
    let escape = u8::from(first == b'\\') & u8::from(second == b'u') & u8::from(fifth & !3 == b'4');
    let mark = u8::from(first == MARK.as_bytes()[0]) & u8::from(second == MARK.as_bytes()[1]);
    name | escape | mark
}

/// A name as it stands in a text.
struct Spelled {
    name: Name,
    /// Bytes, quotation marks included.
    length: usize,
    /// Whether a letter is written as an escape.
    escaped: bool,
}

/// The name that the string at the beginning of `bytes` spells, when it does and
/// its end is in sight.
fn spelled(bytes: &[u8]) -> Option<Spelled> {
    let mut letters = [0; Name::StreamOptions.text().len()];
    let (mut count, mut at, mut escaped) = (0, 1, false);
    loop {
        let letter = match *bytes.get(at)? {
            b'"' => break,
            b'\\' => {
                escaped = true;
                at += 5;
                escape(bytes.get(at - 5..=at)?)?
            }
            letter => letter,
        };
        *letters.get_mut(count)? = letter;
        count += 1;
        at += 1;
    }
    let text = &letters[..count];
    let name = Name::ALL
        .into_iter()
        .find(|name| name.text().as_bytes() == text)?;
    Some(Spelled {
        name,
        length: at + 1,
        escaped,
    })
}

/// The ASCII character that `\u00XX` stands for.
fn escape(bytes: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(bytes.strip_prefix(b"\\u00")?).ok()?;
    u8::from_str_radix(digits, 16).ok()
}

/// Whether a colon follows the string, as far as can be seen.
fn is_key(bytes: &[u8], length: usize) -> bool {
    let mut behind = bytes[length..].iter();
    behind
        .find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        .is_none_or(|byte| *byte == b':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn sieved(frames: &[&str]) -> Sieve {
        let frames: Vec<Bytes> = frames
            .iter()
            .map(|frame| Bytes::copy_from_slice(frame.as_bytes()))
            .collect();
        Sieve::of(&frames)
    }

    #[test]
    fn names_are_found_where_they_are_names() {
        let text = r#"{"model" : 1, "x":"model", "y":"\"model\":", "stream":"stream_options", "stream_options": 2}"#;
        let sieve = sieved(&[text]);
        assert_eq!(sieve.places(Name::Model).collect::<Vec<_>>(), [1]);
        let stream = text.find("\"stream\"").unwrap();
        assert_eq!(sieve.places(Name::Stream).collect::<Vec<_>>(), [stream]);
        let options = text.rfind("\"stream_options\"").unwrap();
        assert_eq!(
            sieve.places(Name::StreamOptions).collect::<Vec<_>>(),
            [options]
        );
        assert!(!sieve.is_odd() && !sieve.is_marked());
    }

    #[test]
    fn an_escaped_name_is_odd_and_an_escape_in_text_is_not() {
        for text in [
            r#"{"\u006dodel":1}"#,
            r#"{"mode\u006C":1}"#,
            r#"{"strea\u006d" :1}"#,
            r#"{"\u0073\u0074\u0072\u0065\u0061\u006D\u005f\u006f\u0070\u0074\u0069\u006f\u006e\u0073":1}"#,
        ] {
            assert!(sieved(&[text]).is_odd(), "{text}");
            for cut in 1..text.len() {
                let (one, two) = text.split_at(cut);
                assert!(sieved(&[one, two]).is_odd(), "{one}|{two}");
            }
            let bytes: Vec<String> = text.chars().map(String::from).collect();
            let frames: Vec<&str> = bytes.iter().map(String::as_str).collect();
            assert!(sieved(&frames).is_odd(), "{text} byte by byte");
        }
        for text in [
            r#"{"a":"\u006dodel \u00e9\u0065"}"#,
            r#"{"\u006dodels":1}"#,
            r#"{"\u016dodel":1}"#,
            r#"{"m\n":1,"m\u00":"#,
        ] {
            assert!(!sieved(&[text]).is_odd(), "{text}");
        }
    }

    #[test]
    fn more_names_than_are_kept_are_odd() {
        let text = r#"{"model":1}"#.repeat(MOST_NAMES);
        assert!(!sieved(&[&text]).is_odd());
        assert!(sieved(&[&text, r#"{"model":1}"#]).is_odd());
    }

    proptest! {
        #[test]
        fn any_cut_finds_what_the_whole_shows(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("\"model\""), Just("\"model\":"), Just("\"stream\":"), Just("\"mo"), Just("del\""),
                    Just(":"), Just(" "), Just("UExYM"), Just("UEx"), Just("YM"), Just("\\\""), Just("\\\\"),
                    Just("\"m\\u006fdel\":"), Just("\\u006"), Just("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
                ],
                0..40,
            ),
            cuts in proptest::collection::vec(0_usize..400, 0..6),
        ) {
            let text = pieces.concat();
            let whole = sieved(&[&text]);
            let mut ends: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            ends.extend([0, text.len()]);
            ends.sort_unstable();
            let frames: Vec<&str> = ends.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let cut = sieved(&frames);
            prop_assert_eq!(whole.is_marked(), text.contains(MARK));
            prop_assert_eq!(cut.is_marked(), whole.is_marked());
            // What lies across a border is odd instead, and a colon that is not in
            // sight is taken to be there.
            prop_assert!(cut.is_odd() || !whole.is_odd());
            for name in Name::ALL {
                let found: Vec<usize> = cut.places(name).collect();
                let lost = whole.places(name).any(|at| !found.contains(&at));
                prop_assert!(!lost || cut.is_odd());
            }
        }
    }
}
