//! `protocol::peek` on any bytes in any frames.
//!
//! - It never panics, and how a body is cut into frames changes nothing. (Of a
//!   large body that is not JSON as much is seen as is looked at, so it may be
//!   refused in some frames only.)
//! - Where serde_json reads an object in which nothing that steers is given
//!   twice, the scanner reads the same model and stream flag, refuses what is
//!   of the wrong type and nothing else, and lists the same members.

use super::{Members, cuts, frames, grown};
use plexus::protocol::peek::{PeekError, members, peek};

/// Up to this size all of a body is looked at.
const SMALL: usize = 16 * 1024;

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let cuts = cuts(&mut input);
    let text = grown(input);
    let whole = frames(&text, &[]);
    let result = peek(&whole);
    let cut = peek(&frames(&text, &cuts));
    let known = serde_json::from_slice::<Members>(&text);
    if known.is_ok() || text.len() <= SMALL {
        assert_eq!(result, cut, "the frames matter");
    }
    assert_eq!(members(&whole), members(&frames(&text, &cuts)));
    let Ok(known) = known else { return };
    let listed = members(&whole).expect("an object");
    assert_eq!(listed.len(), known.0.len());
    for (member, (name, value)) in listed.iter().zip(&known.0) {
        assert_eq!(&member.key, name);
        assert_eq!(&text[member.value.clone()], value.get().as_bytes());
    }
    if ["model", "stream", "stream_options"]
        .iter()
        .any(|name| known.count(name) > 1)
    {
        return;
    }
    let model = known.value("model").unwrap_or("null");
    let stream = known.value("stream").unwrap_or("null");
    match (
        serde_json::from_str::<Option<String>>(model),
        serde_json::from_str::<Option<bool>>(stream),
    ) {
        (Ok(model), Ok(stream)) => {
            let peeked = result.expect("nothing is wrong with it");
            assert_eq!(peeked.model(), model.as_deref());
            assert_eq!(peeked.stream, stream);
            assert_eq!(peeked.empty, known.0.is_empty());
            let options = peeked.stream_options_value.map(|span| &text[span]);
            assert_eq!(options, known.value("stream_options").map(str::as_bytes));
        }
        _ => assert!(matches!(result, Err(PeekError::WrongType { .. }))),
    }
}
