//! Any request of any client for any provider.
//!
//! - It never panics; what is refused is refused in words.
//! - What is sent is JSON, names no member twice, is the same each time, and is
//!   of a size that follows from the request's.
//! - What is sent can be read as a request of the provider's protocol.

use bytes::Bytes;
use plexus::protocol::Protocol;
use plexus::protocol::ir::Invalid;
use plexus::protocol::json::{Tape, mended};
use plexus::protocol::notes::Notes;
use plexus::protocol::translate::{Target, decode_question, decode_request, encode_request};

use super::Members;
use super::choice;
use super::pair::{is_json, model, pair};

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let pair = pair(&mut input);
    let (model, able) = model(&mut input, pair.upstream);
    let target = Target {
        protocol: pair.upstream,
        model,
        capabilities: &able,
        account: "account",
        stream: choice(&mut input) % 2 == 1,
    };
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let text = mended(text);
    let mut tape = Tape::new();
    if let Ok(root) = tape.parse(&text) {
        drop(decode_question(pair.client, root, &mut Notes::new()));
    }
    let first = sent(&text, pair.client, &target);
    assert_eq!(
        first,
        sent(&text, pair.client, &target),
        "not twice the same"
    );
    let body = match first {
        Ok(body) => body,
        Err(message) => return assert!(!message.is_empty(), "refused without a word"),
    };
    is_json(&body);
    let bound = 64 * 1024 + 64 * text.len();
    assert!(body.len() < bound, "{} of {}", body.len(), text.len());
    named_once(&text, &body);
    own(&body, &target);
}

/// What goes to the provider, or why nothing does.
fn sent(text: &str, client: Protocol, target: &Target<'_>) -> Result<Bytes, String> {
    let mut tape = Tape::new();
    let mut notes = Notes::new();
    let root = tape.parse(text).map_err(|fault| fault.to_string())?;
    let said = |invalid: Invalid| invalid.message;
    let request = decode_request(client, root, &mut notes).map_err(said)?;
    let encoded = encode_request(&request, target, &mut notes).map_err(said)?;
    drop(notes.header());
    Ok(encoded.body)
}

/// No member twice, unless the client gave one twice.
fn named_once(text: &str, body: &[u8]) {
    let members = |bytes: &[u8]| serde_json::from_slice::<Members>(bytes).ok();
    let once = |members: &Members| members.0.iter().all(|(name, _)| members.count(name) == 1);
    if members(text.as_bytes()).is_some_and(|members| once(&members)) {
        let shown = String::from_utf8_lossy(body);
        assert!(
            members(body).is_none_or(|members| once(&members)),
            "{shown}"
        );
    }
}

/// What was sent, read as what it is.
fn own(body: &[u8], target: &Target<'_>) {
    let mut tape = Tape::new();
    let root = tape.parse_bytes(body).expect("checked");
    let mut notes = Notes::new();
    if let Ok(request) = decode_request(target.protocol, root, &mut notes)
        && let Ok(encoded) = encode_request(&request, target, &mut notes)
    {
        is_json(&encoded.body);
    }
}
