//! How an input of the fuzzer is taken apart: a few bytes of choices, then the
//! text. The choices stand in front, one letter each, so that seeds can be
//! written by hand: `0` chooses nothing.
//!
//! Each module below says what must hold for any input, and checks it for one.
//! Stable Rust runs the same checks over all seeds (`tests/corpus.rs`).

pub mod config;
pub mod document_pairs;
pub mod error;
pub mod meter;
pub mod opening;
pub mod pair;
pub mod peek;
pub mod request_pairs;
pub mod router;
pub mod splice;
pub mod sse;
pub mod stream_pairs;
pub mod tape;

use bytes::Bytes;

/// A small number chosen by the first byte; `0` of nothing left.
pub fn choice(input: &mut &[u8]) -> usize {
    match input.split_first() {
        Some((first, rest)) => {
            *input = rest;
            usize::from(first.wrapping_sub(b'0'))
        }
        None => 0,
    }
}

/// Places to cut a text of whatever length at: a count, then two bytes for each.
pub fn cuts(input: &mut &[u8]) -> Vec<usize> {
    let count = choice(input) % 8;
    (0..count)
        .map(|_| choice(input) * 256 + choice(input))
        .collect()
}

/// The text in pieces, cut at those places taken modulo its length.
pub fn pieces<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &text[pair[0]..pair[1]])
        .collect()
}

/// The pieces as the frames of a body.
pub fn frames(text: &[u8], cuts: &[usize]) -> Vec<Bytes> {
    let frames = pieces(text, cuts).into_iter();
    frames.map(Bytes::copy_from_slice).collect()
}

/// The text with each byte 1 replaced by some kilobytes of letters, four times
/// at most: what is done differently for large bodies is reached by small inputs.
pub fn grown(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut left = 4;
    for byte in text {
        if *byte == 1 && left > 0 {
            left -= 1;
            out.resize(out.len() + 9 * 1024, b'x');
        } else {
            out.push(*byte);
        }
    }
    out
}

/// Top-level members of a JSON object, in order, duplicates included: the
/// reading that the scanner's is compared with.
#[derive(Debug)]
pub struct Members(pub Vec<(String, Box<serde_json::value::RawValue>)>);

impl Members {
    /// How often a name occurs.
    pub fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(known, _)| known == name).count()
    }

    /// The value of a name, as written.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.get())
    }
}

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
