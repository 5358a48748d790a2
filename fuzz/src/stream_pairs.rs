//! Any stream of any provider for any client, in any chunks.
//!
//! - It never panics, and the chunks change nothing of what the client gets, nor
//!   of what is read for the books.
//! - The deltas between keep their order, and so do the client's frames: one
//!   start, one end, nothing behind it.
//! - What is written is of a size that follows from what was read.
//! - What can be collected into a document is no failure as a stream; the
//!   document is JSON, and the books say the same of both.

use bytes::BytesMut;
use plexus::protocol::Protocol;
use plexus::protocol::filter::{Filter, Fixups};
use plexus::protocol::grammar::{Frames, Order};
use plexus::protocol::meter::Reading;
use plexus::protocol::sse;
use plexus::protocol::translate::{Reply, StreamDecoder};
use plexus::protocol::translator::{Collecting, Translator};

use super::pair::{fixups, is_json, pair, reply};
use super::{cuts, pieces};

/// What a client got, and what was seen of it.
#[derive(Debug, PartialEq)]
struct Told {
    text: String,
    reading: Reading,
    failure: Option<String>,
    whole: bool,
}

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let pair = pair(&mut input);
    let reply = reply(&mut input, pair);
    let fixups = fixups(&mut input);
    let cuts = cuts(&mut input);
    let text = input;
    let told = told(&[text], &fixups, &reply);
    assert_eq!(told, self::told(&pieces(text, &cuts), &fixups, &reply));
    if text.len() < 8 * 1024 {
        let bytewise: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(told, self::told(&bytewise, &fixups, &reply));
    }
    assert!(told.whole != told.failure.is_some(), "{told:?}");
    let bound = 64 * 1024 + 4096 * text.len();
    assert!(
        told.text.len() < bound,
        "{} of {}",
        told.text.len(),
        text.len()
    );
    in_order(text, &reply, &fixups);
    framed(&told.text, &reply);
    collected(text, &fixups, &reply, &told);
}

fn told(pieces: &[&[u8]], fixups: &Fixups, reply: &Reply) -> Told {
    let mut translator = Translator::new(fixups.clone(), reply.clone());
    let mut out = BytesMut::new();
    for piece in pieces {
        translator.push(piece, &mut out);
    }
    translator.finish(&mut out);
    Told {
        text: String::from_utf8(out.to_vec()).expect("UTF-8"),
        reading: translator.reading(),
        failure: translator.failure().map(str::to_owned),
        whole: translator.is_whole(),
    }
}

/// That a stream for this client is as its readers want it.
pub(super) fn framed(text: &str, reply: &Reply) {
    let mut frames = match (reply.protocol, reply.array) {
        // No grammar is known of these: pieces of text, one after the other.
        (Protocol::Completions, _) => return events(text),
        (_, true) => Frames::array(),
        (protocol, false) => Frames::new(protocol),
    };
    let verdict = frames.push(text.as_bytes()).and_then(|()| frames.finish());
    match verdict {
        // A model may well make a call that is no JSON, or half of it; the pieces
        // are on their way before anyone knows.
        Err(fault) if fault.starts_with("input that is no object") => {}
        Err(fault) => panic!("{fault}\n{text}"),
        Ok(()) => {}
    }
}

/// That all data is JSON, but for the mark of the end.
fn events(text: &str) {
    let mut decoder = sse::Decoder::new();
    let look = |event: sse::Event<'_>| {
        if event.data != b"[DONE]" {
            is_json(event.data);
        }
    };
    decoder
        .push(text.as_bytes(), look)
        .expect("no event is that large");
    decoder.finish(look);
}

fn in_order(text: &[u8], reply: &Reply, fixups: &Fixups) {
    let mut decoder = StreamDecoder::new(reply.upstream).with(fixups);
    let mut filter = Filter::new(fixups.clone());
    let (mut read, mut filtered) = (Order::default(), Order::default());
    let mut see = |delta: plexus::protocol::ir::Delta<'_>| {
        assert_eq!(read.check(&delta), Ok(()), "as read");
        filter.delta(delta, &mut |delta| {
            assert_eq!(filtered.check(&delta), Ok(()), "as put right");
        });
    };
    let mut frames = sse::Decoder::new();
    let look = |event: sse::Event<'_>| decoder.event(event.name, event.data, &mut see);
    if frames.push(text, look).is_ok() {
        frames.finish(|event| decoder.event(event.name, event.data, &mut see));
        decoder.finish(&mut see);
        assert_eq!(read.finished(), Ok(()), "as read");
        assert_eq!(filtered.finished(), Ok(()), "as put right");
    }
}

fn collected(text: &[u8], fixups: &Fixups, reply: &Reply, told: &Told) {
    let mut collecting = Collecting::new(reply.upstream, fixups.clone(), usize::MAX);
    collecting.push(text);
    match collecting.into_document(reply.clone()) {
        Ok(translated) => {
            assert_eq!(told.failure, None, "the stream failed");
            is_json(&translated.body);
            assert_eq!(translated.reading.tool_calls, told.reading.tool_calls);
            assert_eq!(translated.reading.tokens, told.reading.tokens);
        }
        Err(error) => assert!(!error.message.is_empty()),
    }
}
