//! `protocol::meter`: any answer of any protocol, in any chunks.
//!
//! - It never panics, and where the answer is JSON or events of JSON, be it
//!   cut off, the chunks change nothing of what is read. (Elsewhere a mark may
//!   end one token and begin another, and a key may have two values; and no
//!   more than four values that lie in one another are followed.)
//! - Reading the result twice gives the same.

use super::{choice, cuts, pieces};
use plexus::protocol::Protocol;
use plexus::protocol::meter::{Meter, Reading};

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let protocol = Protocol::ALL[choice(&mut input) % Protocol::ALL.len()];
    let streaming = choice(&mut input).is_multiple_of(2);
    let cuts = cuts(&mut input);
    let text = input;
    let whole = read(protocol, streaming, &[text]);
    let cut = read(protocol, streaming, &pieces(text, &cuts));
    let bytewise: Vec<&[u8]> = text.chunks(1).collect();
    let bytewise = read(protocol, streaming, &bytewise);
    if is_sound(text) {
        assert_eq!(whole, cut);
        assert_eq!(whole, bytewise);
    }
}

/// Whether the text is the beginning of a document, or of events of documents,
/// in none of which the keys that are looked for lie in one another too deep.
fn is_sound(text: &[u8]) -> bool {
    let is_event = |line: &[u8]| match line.strip_prefix(b"data:") {
        Some(data) => data.trim_ascii() == b"[DONE]" || begins_a_document(data),
        None => line.starts_with(b"event:") && !line.contains(&b'"'),
    };
    let mut lines = text
        .split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.is_empty());
    if begins_a_document(text) {
        is_flat(text)
    } else {
        lines.all(|line| is_event(line) && is_flat(line))
    }
}

fn is_flat(line: &[u8]) -> bool {
    let keys: [&[u8]; 4] = [b"usage", b"eason", b"error", b"name"];
    let count = |key: &&[u8]| line.windows(key.len()).filter(|part| part == key).count();
    keys.iter().map(count).sum::<usize>() <= 4
}

fn begins_a_document(text: &[u8]) -> bool {
    match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
        Ok(_) => true,
        Err(error) => error.is_eof(),
    }
}

fn read(
    protocol: Protocol,
    streaming: bool,
    chunks: &[&[u8]],
) -> (Reading, bool, Option<String>, u64) {
    let mut meter = Meter::new(protocol, streaming);
    for chunk in chunks {
        meter.push(chunk);
    }
    let reading = meter.finish();
    assert_eq!(reading, meter.finish());
    (reading, meter.terminal(), meter.failed(), meter.events())
}
