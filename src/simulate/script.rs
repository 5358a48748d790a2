//! The bytes of one answer, prepared: frames in which only the identifier and
//! the time differ from one request to the next.
//!
//! Rendering JSON costs more than all the rest of an exchange, so it is done
//! once per distinct request; what remains is a copy and a few patches.

use bytes::Bytes;
use memchr::memmem;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Stands where a request's identifier goes: as many bytes, and private-use
/// characters that no model says.
pub(super) const IDENTIFIER: &str =
    "\u{e000}\u{e001}\u{e002}\u{e003}\u{e000}\u{e001}\u{e002}\u{e003}";
/// Stands where a request's time in seconds goes.
pub(super) const CREATED: u64 = 8_888_888_888;

const IDENTIFIER_LENGTH: usize = IDENTIFIER.len();
const CREATED_DIGITS: &[u8] = b"8888888888";
/// What stands before a time; inside a string the quote would be escaped.
const CREATED_KEYS: [&[u8]; 2] = [b"created\":", b"_at\":"];
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The frames of an answer in the making, and where its parts begin.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// One body frame each.
    pub(super) frames: Vec<Vec<u8>>,
    /// Number of frames that open the answer.
    pub(super) opening: usize,
    /// Number of frames before the ones that close it.
    pub(super) closing: usize,
}

impl Script {
    /// An answer that is one piece.
    pub(super) fn whole(body: Vec<u8>) -> Self {
        Self {
            frames: vec![body],
            opening: 0,
            closing: 1,
        }
    }

    /// Marks that all frames so far open the answer.
    pub(super) fn opened(&mut self) {
        self.opening = self.frames.len();
    }

    /// Marks that all frames from here on close it.
    pub(super) fn closes(&mut self) {
        self.closing = self.frames.len();
    }

    /// A place amid the content.
    pub(super) fn middle(&self) -> usize {
        let content = self.closing.saturating_sub(self.opening);
        (self.opening + content.div_ceil(2)).min(self.frames.len())
    }

    /// Adds a frame of server-sent events.
    pub(super) fn event(&mut self, name: Option<&str>, data: &Value) {
        self.frames.push(event(name, &compact(data)));
    }
}

/// One server-sent event.
pub(super) fn event(name: Option<&str>, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(data.len() + 64);
    if let Some(name) = name {
        frame.extend_from_slice(b"event: ");
        frame.extend_from_slice(name.as_bytes());
        frame.push(b'\n');
    }
    frame.extend_from_slice(b"data: ");
    frame.extend_from_slice(data);
    frame.extend_from_slice(b"\n\n");
    frame
}

/// JSON without white space.
pub(super) fn compact(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// JSON indented by two, as OpenAI and Google write whole answers.
pub(super) fn pretty(value: &Value) -> Vec<u8> {
    let mut out = format(value, PrettyFormatter::new());
    out.push(b'\n');
    out
}

/// JSON with a space after each colon, as Google writes events.
pub(super) fn spaced(value: &Value) -> Vec<u8> {
    format(value, Spaced)
}

fn format<F: Formatter>(value: &Value, formatter: F) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, formatter));
    debug_assert!(written.is_ok(), "a value always serialises into memory");
    out
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Replaces every line end of a frame.
pub(super) fn with_line_end(frame: &[u8], line_end: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.len() + 4);
    for line in frame.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                out.extend_from_slice(text.strip_suffix(b"\r").unwrap_or(text));
                out.extend_from_slice(line_end.as_bytes());
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

/// What differs between two answers to the same request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    identifier: [u8; IDENTIFIER_LENGTH],
    created: [u8; CREATED_DIGITS.len()],
}

impl Stamp {
    /// A stamp from a request's number, the server's seed and the time.
    pub(super) fn new(number: u64, seed: u64, unix_seconds: u64) -> Self {
        let mut identifier = [b'0'; IDENTIFIER_LENGTH];
        let (head, tail) = identifier.split_at_mut(IDENTIFIER_LENGTH / 2);
        write_base62(head, scramble(number ^ seed));
        write_base62(tail, scramble(number ^ seed.rotate_left(32)));
        let mut created = [b'0'; CREATED_DIGITS.len()];
        let mut rest = unix_seconds;
        for digit in created.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        Self {
            identifier,
            created,
        }
    }

    /// The identifier: letters and digits.
    pub(super) fn identifier(&self) -> &[u8] {
        &self.identifier
    }
}

/// The finaliser of SplitMix64: a bijection, so numbers stay distinct.
fn scramble(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn write_base62(place: &mut [u8], mut value: u64) {
    for byte in place {
        *byte = ALPHABET[(value % 62) as usize];
        value /= 62;
    }
}

/// An answer ready to be stamped and sent.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Bytes,
    frames: Vec<Prepared>,
    identifiers: Vec<usize>,
    times: Vec<usize>,
}

/// Where one frame and its marks end.
#[derive(Clone, Copy, Debug, Default)]
struct Prepared {
    end: usize,
    identifiers: usize,
    times: usize,
}

impl Template {
    /// Finds the marks in the frames.
    pub(super) fn new(frames: &[Vec<u8>]) -> Self {
        let mut template = Self {
            bytes: Bytes::new(),
            frames: Vec::with_capacity(frames.len()),
            identifiers: Vec::new(),
            times: Vec::new(),
        };
        let finder = memmem::Finder::new(IDENTIFIER);
        let digits = memmem::Finder::new(CREATED_DIGITS);
        let mut bytes = Vec::with_capacity(frames.iter().map(Vec::len).sum());
        for frame in frames {
            let start = bytes.len();
            template
                .identifiers
                .extend(finder.find_iter(frame).map(|at| start + at));
            let dated = digits.find_iter(frame).filter(|at| {
                let before = frame[..*at].trim_ascii_end();
                CREATED_KEYS.iter().any(|key| before.ends_with(key))
            });
            template.times.extend(dated.map(|at| start + at));
            bytes.extend_from_slice(frame);
            template.frames.push(Prepared {
                end: bytes.len(),
                identifiers: template.identifiers.len(),
                times: template.times.len(),
            });
        }
        template.bytes = bytes.into();
        template
    }

    /// Number of frames.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Bytes of all frames.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// A frame with the stamp in it; empty past the end.
    pub(super) fn frame(&self, index: usize, stamp: &Stamp) -> Bytes {
        let Some(this) = self.frames.get(index).copied() else {
            return Bytes::new();
        };
        let before = match index {
            0 => Prepared::default(),
            _ => self.frames[index - 1],
        };
        let identifiers = &self.identifiers[before.identifiers..this.identifiers];
        let times = &self.times[before.times..this.times];
        if identifiers.is_empty() && times.is_empty() {
            return self.bytes.slice(before.end..this.end);
        }
        let mut frame = self.bytes[before.end..this.end].to_vec();
        for at in identifiers {
            let at = at - before.end;
            frame[at..at + IDENTIFIER_LENGTH].copy_from_slice(&stamp.identifier);
        }
        for at in times {
            let at = at - before.end;
            frame[at..at + CREATED_DIGITS.len()].copy_from_slice(&stamp.created);
        }
        frame.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn marks_are_replaced_and_nothing_else() {
        let frames = vec![
            pretty(&json!({"id": format!("chatcmpl-{IDENTIFIER}"), "created": CREATED})),
            compact(&json!({"text": format!("\"created\":{CREATED} "), "completed_at": CREATED})),
            b"data: [DONE]\n\n".to_vec(),
        ];
        let template = Template::new(&frames);
        let stamp = Stamp::new(1, 2, 1_700_000_000);
        let id = String::from_utf8(stamp.identifier().to_vec()).unwrap();
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric()));
        let first: Value = serde_json::from_slice(&template.frame(0, &stamp)).unwrap();
        assert_eq!(
            first,
            json!({"id": format!("chatcmpl-{id}"), "created": 1_700_000_000})
        );
        let second: Value = serde_json::from_slice(&template.frame(1, &stamp)).unwrap();
        assert_eq!(second["completed_at"], 1_700_000_000);
        assert_eq!(second["text"], format!("\"created\":{CREATED} "));
        assert_eq!(&template.frame(2, &stamp)[..], b"data: [DONE]\n\n");
        assert!(template.frame(3, &stamp).is_empty());
    }

    #[test]
    fn line_ends_are_replaced_in_both_forms() {
        assert_eq!(with_line_end(b"a\nb\n\n", "\r"), b"a\rb\r\r");
        assert_eq!(with_line_end(b"a\r\n\r\n", "\n"), b"a\n\n");
        assert_eq!(with_line_end(b"a\nb\n\n", "\r\n"), b"a\r\nb\r\n\r\n");
    }

    #[test]
    fn numbers_give_distinct_identifiers() {
        let ids: std::collections::HashSet<_> = (0..1000)
            .map(|number| Stamp::new(number, 7, 0).identifier().to_vec())
            .collect();
        assert_eq!(ids.len(), 1000);
    }
}
