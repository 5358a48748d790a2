//! Gemini's stream without `alt=sse`: one JSON array whose elements come as
//! they are made. Cut so that only whole elements go on, like events of a stream.

use bytes::Bytes;

/// A partial element of more than this is let through rather than held.
const HELD: usize = 64 * 1024;

/// Holds back the part of an element that has no end yet, without a copy.
#[derive(Debug, Default)]
pub struct ArrayAligner {
    held: Vec<Bytes>,
    held_len: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    elements: u64,
    released: bool,
    begun: bool,
    opening: Opening,
    error: bool,
}

/// How far into an element's first name the walk is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Opening {
    #[default]
    Past,
    Expected,
    Matched(usize),
}

/// An element that begins with this name reports a failure.
const ERROR: &[u8] = b"error\"";

impl ArrayAligner {
    /// Takes a chunk and hands on what is whole.
    pub fn push(&mut self, mut chunk: Bytes, mut whole: impl FnMut(Bytes)) {
        if let Some(boundary) = self.walk(&chunk) {
            self.hand_on(&mut whole);
            self.released = false;
            whole(chunk.split_to(boundary));
        }
        if chunk.is_empty() {
            return;
        }
        if self.released {
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

    /// Hands on what is held: the array is over.
    pub fn finish(&mut self, mut whole: impl FnMut(Bytes)) {
        self.hand_on(&mut whole);
    }

    /// Drops what is held: the array breaks off.
    pub fn discard(&mut self) {
        self.held.clear();
        self.held_len = 0;
    }

    /// Whether part of an element has been handed on and its end has not.
    #[must_use]
    pub fn mid_event(&self) -> bool {
        self.released
    }

    /// Whether the array's last bracket has passed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.depth == 0 && self.begun
    }

    /// Whether an element was an error.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.error
    }

    /// Whole elements so far.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.elements
    }

    fn hand_on(&mut self, whole: &mut impl FnMut(Bytes)) {
        self.held_len = 0;
        for held in self.held.drain(..) {
            whole(held);
        }
    }

    fn match_name(&mut self, byte: u8) {
        let Opening::Matched(count) = self.opening else {
            return;
        };
        if ERROR.get(count) != Some(&byte) {
            self.opening = Opening::Past;
        } else if count + 1 == ERROR.len() {
            self.opening = Opening::Past;
            self.error = true;
        } else {
            self.opening = Opening::Matched(count + 1);
        }
    }

    /// The offset behind the last end of an element, or of the array.
    fn walk(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut boundary = None;
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                self.match_name(*byte);
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    if self.opening == Opening::Expected {
                        self.opening = Opening::Matched(0);
                    }
                }
                b'{' | b'[' => {
                    self.begun = true;
                    self.depth += 1;
                    if self.depth == 2 {
                        self.opening = Opening::Expected;
                    }
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 1 {
                        self.elements += 1;
                    }
                    if self.depth < 2 {
                        boundary = Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        boundary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "[{\n \"a\": \"]}\\\"\", \"b\": [1, {\"c\": 2}]\n}\n,\r\n{\"d\":\"é\"}\n]\n";

    proptest! {
        #[test]
        fn only_whole_elements_go_on_at_any_chunking(size in 1_usize..20, cut in 0_usize..TEXT.len()) {
            let mut aligner = ArrayAligner::default();
            let mut out = Vec::new();
            for chunk in TEXT.as_bytes()[..cut].chunks(size) {
                aligner.push(Bytes::copy_from_slice(chunk), |part| out.extend_from_slice(&part));
            }
            aligner.discard();
            prop_assert!(TEXT.as_bytes().starts_with(&out));
            let closed = [&out[..], if out.ends_with(b"]") { b"" } else if out.is_empty() { b"[]" } else { b"]" }].concat();
            let elements: Vec<serde_json::Value> = serde_json::from_slice(&closed).unwrap();
            prop_assert_eq!(elements.len() as u64, aligner.elements());
        }

        #[test]
        fn all_of_it_arrives(size in 1_usize..20) {
            let mut aligner = ArrayAligner::default();
            let mut out = Vec::new();
            for chunk in TEXT.as_bytes().chunks(size) {
                aligner.push(Bytes::copy_from_slice(chunk), |part| out.extend_from_slice(&part));
            }
            aligner.finish(|part| out.extend_from_slice(&part));
            prop_assert_eq!(out, TEXT.as_bytes());
        }
    }
}
