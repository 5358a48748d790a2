//! Server-Sent Events at any chunking. Line ends are `\n`, `\r\n` and `\r`
//! (WHATWG HTML, 9.2.6); nothing else splits a line, U+2028 included.

use std::fmt;

use bytes::Bytes;
use memchr::memchr2;

/// A partial event of more than this is let through rather than held.
const HELD: usize = 64 * 1024;
/// One event of more than this is an error.
const EVENT: usize = 16 * 1024 * 1024;

/// Where in a line the next byte stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// At the start of a line.
    blank: bool,
    /// Just after a `\r`, whose `\n` may follow.
    after_cr: bool,
}

impl Place {
    const START: Self = Self {
        blank: true,
        after_cr: false,
    };

    /// Walks over `bytes` and returns the offset behind the last blank line.
    fn walk(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut boundary = None;
        let mut at = 0;
        if self.after_cr && bytes.first() == Some(&b'\n') {
            at = 1;
        }
        if !bytes.is_empty() {
            self.after_cr = false;
        }
        while let Some(end) = memchr2(b'\n', b'\r', &bytes[at..]) {
            let blank = self.blank && end == 0;
            let cr = bytes[at + end] == b'\r';
            at += end + 1;
            if cr {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            self.blank = true;
            if blank {
                boundary = Some(at);
            }
        }
        if at < bytes.len() {
            self.blank = false;
        }
        boundary
    }
}

/// Cuts a stream of chunks so that only whole events go on; the rest of a
/// chunk is held back, without a copy, until its event is whole.
#[derive(Debug)]
pub struct Aligner {
    held: Vec<Bytes>,
    held_len: usize,
    place: Place,
    released: bool,
}

impl Default for Aligner {
    fn default() -> Self {
        Self::new()
    }
}

impl Aligner {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self {
            held: Vec::new(),
            held_len: 0,
            place: Place::START,
            released: false,
        }
    }

    /// Takes a chunk and hands on what is whole.
    pub fn push(&mut self, mut chunk: Bytes, mut whole: impl FnMut(Bytes)) {
        if chunk.ends_with(b"\n\n") {
            // The usual case, and the end of an event whatever came before.
            self.place = Place::START;
            self.hand_on(&mut whole);
            self.released = false;
            whole(chunk);
            return;
        }
        let boundary = self.place.walk(&chunk);
        if let Some(boundary) = boundary {
            self.hand_on(&mut whole);
            self.released = false;
            whole(chunk.split_to(boundary));
        }
        if chunk.is_empty() {
            return;
        }
        // The second half of a `\r\n` belongs to the event before it.
        let loose_end = boundary.is_none() && self.held.is_empty() && &chunk[..] == b"\n";
        if self.released || loose_end {
            whole(chunk);
            return;
        }
        self.held_len += chunk.len();
        self.held.push(chunk);
        if self.held_len > HELD {
            self.released = true;
            self.hand_on(&mut whole);
        }
    }

    /// Hands on what is held: the stream is over, or an event grew too large.
    pub fn finish(&mut self, mut whole: impl FnMut(Bytes)) {
        self.hand_on(&mut whole);
    }

    /// Drops what is held: the stream broke off in the middle of it.
    pub fn discard(&mut self) {
        self.held.clear();
        self.held_len = 0;
    }

    /// Whether part of an event has been handed on and its end has not.
    #[must_use]
    pub fn mid_event(&self) -> bool {
        self.released
    }

    /// Bytes held back.
    #[must_use]
    pub fn held_len(&self) -> usize {
        self.held_len
    }

    fn hand_on(&mut self, whole: &mut impl FnMut(Bytes)) {
        self.held_len = 0;
        for held in self.held.drain(..) {
            whole(held);
        }
    }
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` line's value, if there was one.
    pub name: Option<&'a str>,
    /// The `data:` lines, joined by `\n`.
    pub data: &'a [u8],
}

/// An event larger than 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTooLarge;

impl fmt::Display for EventTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event of the stream is larger than {EVENT} bytes")
    }
}

impl std::error::Error for EventTooLarge {}

/// Reads events out of chunks. Comments, `id:` and `retry:` are passed over; an
/// event without data is none.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    data: Vec<u8>,
    name: String,
    has_data: bool,
    after_cr: bool,
    begun: bool,
}

impl Decoder {
    /// At the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a chunk and gives the events that it completes.
    ///
    /// # Errors
    ///
    /// When an event grows beyond 16 MiB.
    pub fn push(
        &mut self,
        chunk: &[u8],
        mut event: impl FnMut(Event<'_>),
    ) -> Result<(), EventTooLarge> {
        let mut rest = chunk;
        if self.after_cr && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        if !chunk.is_empty() {
            self.after_cr = false;
        }
        while let Some(end) = memchr2(b'\n', b'\r', rest) {
            let (line, ending) = rest.split_at(end);
            let taken = match ending {
                [b'\r', b'\n', ..] => 2,
                [b'\r'] => {
                    self.after_cr = true;
                    1
                }
                _ => 1,
            };
            self.end_line(line, &mut event);
            rest = &ending[taken..];
        }
        if self.line.len() + self.data.len() + rest.len() > EVENT {
            return Err(EventTooLarge);
        }
        self.line.extend_from_slice(rest);
        Ok(())
    }

    /// The stream is over: an event whose blank line is missing counts.
    pub fn finish(&mut self, mut event: impl FnMut(Event<'_>)) {
        self.end_line(b"", &mut event);
        self.dispatch(&mut event);
    }

    fn end_line(&mut self, line: &[u8], event: &mut impl FnMut(Event<'_>)) {
        if self.line.is_empty() {
            self.take_line(line, event);
            return;
        }
        let mut whole = std::mem::take(&mut self.line);
        whole.extend_from_slice(line);
        self.take_line(&whole, event);
        whole.clear();
        self.line = whole;
    }

    fn take_line(&mut self, mut line: &[u8], event: &mut impl FnMut(Event<'_>)) {
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch(event);
            return;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => {
                self.name.clear();
                self.name.push_str(&String::from_utf8_lossy(value));
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, event: &mut impl FnMut(Event<'_>)) {
        if self.has_data {
            let name = (!self.name.is_empty()).then_some(self.name.as_str());
            event(Event {
                name,
                data: &self.data,
            });
        }
        self.has_data = false;
        self.data.clear();
        self.name.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> Vec<(Option<String>, Vec<u8>)> {
        let mut events = Vec::new();
        let mut decoder = Decoder::new();
        let mut keep =
            |event: Event<'_>| events.push((event.name.map(str::to_owned), event.data.to_vec()));
        for chunk in chunks {
            decoder.push(chunk, &mut keep).unwrap();
        }
        decoder.finish(&mut keep);
        events
    }

    fn align(chunks: &[&[u8]]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let mut aligner = Aligner::new();
        let mut parts = Vec::new();
        for chunk in chunks {
            aligner.push(Bytes::copy_from_slice(chunk), |part| {
                parts.push(part.to_vec())
            });
        }
        aligner.finish(|part| parts.push(part.to_vec()));
        (parts.concat(), parts)
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        let text = b"\xEF\xBB\xBF: comment\nid: 1\nevent: a\ndata: x\ndata:y\n\ndata\n\nevent: lost\n\ndata:  z\r\rdata: tail";
        assert_eq!(
            decode(&[text]),
            vec![
                (Some("a".into()), b"x\ny".to_vec()),
                (None, b"".to_vec()),
                (None, b" z".to_vec()),
                (None, b"tail".to_vec()),
            ]
        );
    }

    #[test]
    fn a_partial_event_is_held_and_a_huge_one_is_not() {
        let mut aligner = Aligner::new();
        let mut out = Vec::new();
        aligner.push(Bytes::from_static(b"data: 1\n\ndata: 2"), |part| {
            out.extend_from_slice(&part)
        });
        assert_eq!((&out[..], aligner.held_len()), (&b"data: 1\n\n"[..], 7));
        aligner.push(Bytes::from_static(b"2\n\n"), |part| {
            out.extend_from_slice(&part)
        });
        assert_eq!(&out[..], b"data: 1\n\ndata: 22\n\n");
        aligner.push(Bytes::from(vec![b'x'; HELD + 1]), |part| {
            out.extend_from_slice(&part)
        });
        assert!(aligner.mid_event());
        aligner.push(Bytes::from_static(b"x\n\ndata"), |part| {
            out.extend_from_slice(&part)
        });
        assert!(!aligner.mid_event());
        assert_eq!(aligner.held_len(), 4);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(&b"\n"[..]),
            Just(&b"\r"[..]),
            Just(&b"\r\n"[..]),
            Just(&b"data: a"[..]),
            Just(&b"data:\xC3\xA9"[..]),
            Just(&b"event: e"[..]),
            Just(&b": c"[..]),
            Just(&b":"[..]),
            Just(&b"\xE2\x80\xA8"[..]),
            Just(&b"data"[..]),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_events_and_bytes(text in stream(), cuts in proptest::collection::vec(0_usize..200, 0..12)) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&chunks), decode(&[&text]));
            let (bytes, parts) = align(&chunks);
            prop_assert_eq!(&bytes, &text);
            // Whatever was handed on before the end stopped between events.
            let (done, _) = align(&[&text]);
            prop_assert_eq!(done, bytes);
            let bytewise: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(decode(&bytewise), decode(&[&text]));
            let mut before = Vec::new();
            for part in &parts[..parts.len().saturating_sub(1)] {
                before.extend_from_slice(part);
                let mut place = Place::START;
                place.walk(&before);
                prop_assert!(place.blank || text.len() - before.len() < HELD, "cut inside an event");
            }
        }
    }
}
