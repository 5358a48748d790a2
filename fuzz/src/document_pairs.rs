//! Any whole answer of any provider for any client, as a document and as a
//! stream.
//!
//! - It never panics; what is no answer is a failure in words, of both forms.
//! - The document is JSON; the stream's frames are in order.
//! - Both give the books the same, and each is the same each time.

use plexus::protocol::translator::document;

use super::pair::{fixups, is_json, pair, reply};
use super::stream_pairs::framed;

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let pair = pair(&mut input);
    let reply = reply(&mut input, pair);
    let fixups = fixups(&mut input);
    let translated = |stream| document(input, fixups.clone(), reply.clone(), stream);
    let (whole, again, stream) = match (translated(false), translated(false), translated(true)) {
        (Ok(whole), Ok(again), Ok(stream)) => (whole, again, stream),
        (Err(one), Err(two), Err(three)) => {
            assert!(!one.message.is_empty());
            assert_eq!((&one.message, &one.message), (&two.message, &three.message));
            return;
        }
        _ => panic!("an answer once and none another time"),
    };
    is_json(&whole.body);
    assert_eq!(whole.body, again.body);
    assert_eq!(whole.reading, stream.reading);
    let bound = 64 * 1024 + 4096 * input.len();
    assert!(whole.body.len() < bound && stream.body.len() < bound);
    let text = std::str::from_utf8(&stream.body).expect("UTF-8");
    framed(text, &reply);
}
