//! `protocol::sse`: any bytes, in any chunks.
//!
//! - The decoder gives the same events however the stream is cut.
//! - The aligner hands on every byte, in order and once, holds back no more
//!   than it says, and what it hands on before the end stops between events.

use super::{cuts, pieces};
use bytes::Bytes;
use plexus::protocol::sse::{Aligner, Decoder, Event};

type Events = Vec<(Option<String>, Vec<u8>)>;

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let cuts = cuts(&mut input);
    let text = input;
    let all = decode(Decoder::new(), &[text]);
    let cut = pieces(text, &cuts);
    let bytewise: Vec<&[u8]> = text.chunks(1).collect();
    for chunks in [&cut, &bytewise] {
        assert_eq!(decode(Decoder::new(), chunks), all, "the chunks matter");
        align(text, chunks, &all);
    }
}

fn decode(mut decoder: Decoder, chunks: &[&[u8]]) -> Events {
    let mut events = Events::new();
    let mut keep =
        |event: Event<'_>| events.push((event.name.map(str::to_owned), event.data.to_vec()));
    for chunk in chunks {
        decoder
            .push(chunk, &mut keep)
            .expect("no event is that large");
    }
    decoder.finish(&mut keep);
    events
}

fn align(text: &[u8], chunks: &[&[u8]], all: &Events) {
    let mut aligner = Aligner::new();
    let mut out: Vec<u8> = Vec::new();
    let mut pushed = 0;
    for chunk in chunks {
        aligner.push(Bytes::copy_from_slice(chunk), |part| {
            out.extend_from_slice(&part);
        });
        pushed += chunk.len();
        assert_eq!(out.len() + aligner.held_len(), pushed);
        assert_eq!(out, text[..out.len()]);
    }
    assert!(!aligner.mid_event(), "no event is that large");
    // A cut between events divides them. A blank line in front of the second
    // half keeps a byte order mark there from being taken for the first bytes.
    if !out.is_empty() {
        let mut halves = decode(Decoder::new(), &[&out]);
        halves.extend(decode(Decoder::new(), &[b"\n", &text[out.len()..]]));
        assert_eq!(&halves, all, "cut inside an event");
    }
    aligner.finish(|part| out.extend_from_slice(&part));
    assert_eq!(out, text);
}
