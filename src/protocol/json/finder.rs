//! Finding a token in JSON by the bytes that are rare in JSON.

use memchr::arch::all::packedpair::HeuristicFrequencyRank;
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
