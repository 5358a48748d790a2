//! No field is lost in silence. The official request schemas as tables, one for
//! each protocol in `tests/fixtures/fields`: what becomes of each field on the way
//! to each of the three others.
//!
//! A line `@ {…}` is a request; `"*":0` in it is where the fields of the lines
//! below it go, one at a time. Such a line is `name value | one two three`, the
//! outcomes for the other protocols in the order chat, responses, messages,
//! gemini, and behind `#` the reason for silence:
//!
//! - `mapped`: the provider's request is another one than without the field;
//! - `noted`: it is not, and a note tells so;
//! - `coerced`: it is, and there is a note;
//! - `refused`: the request is refused with a `param`;
//! - `needed`: the request is refused without it;
//! - `silent`: none of these, on purpose.
//!
//! `PLEXUS_FIELDS=print` prints the tables with what happens now.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "in helpers of tests a failure is the test's failure"
)]

use plexus::protocol::Protocol;
use plexus::protocol::capabilities::Capabilities;
use plexus::protocol::ir::Invalid;
use plexus::protocol::json::Tape;
use plexus::protocol::notes::Notes;
use plexus::protocol::translate::{Target, decode_request, encode_request};
use serde_json::Value;

const SPOT: &str = "\"*\":0";

/// A protocol of conversations, and a model that is served over it.
const SPOKEN: [(Protocol, &str, &str); 4] = [
    (Protocol::Chat, "api.openai.com", "gpt-5.2"),
    (Protocol::Responses, "api.openai.com", "gpt-5.2"),
    (Protocol::Messages, "api.anthropic.com", "claude-sonnet-4-5"),
    (
        Protocol::Gemini,
        "generativelanguage.googleapis.com",
        "gemini-3-pro-preview",
    ),
];

/// What a request became: its body and what the notes say of it.
type Sent = (Value, Vec<String>);

fn send(from: Protocol, to: usize, request: &str) -> Result<Sent, Invalid> {
    let (protocol, host, model) = SPOKEN[to];
    let capabilities = Capabilities::of(protocol, host, model);
    let mut tape = Tape::new();
    let root = tape
        .parse(request)
        .unwrap_or_else(|fault| panic!("{request}: {fault}"));
    let mut notes = Notes::new();
    let request = decode_request(from, root, &mut notes)?;
    let target = Target {
        protocol,
        model,
        capabilities: &capabilities,
        account: "account",
        stream: request.stream,
    };
    let encoded = encode_request(&request, &target, &mut notes)?;
    let notes = notes.iter().map(|note| format!("{note:?}")).collect();
    Ok((serde_json::from_slice(&encoded.body).unwrap(), notes))
}

/// What becomes of a field that stands in the spot of a request.
fn outcome(from: Protocol, to: usize, request: &str, field: &str) -> &'static str {
    let without = request
        .replace(&format!(",{{{SPOT}}}"), "")
        .replace(&format!("[{{{SPOT}}}]"), "[]")
        .replace(&format!(",{SPOT}"), "")
        .replace(&format!("{SPOT},"), "")
        .replace(SPOT, "");
    let with = request.replace(SPOT, field);
    let (body, notes) = match (send(from, to, &with), send(from, to, &without)) {
        (Err(invalid), _) if invalid.param.is_some() => return "refused",
        (Err(_), _) => return "refused without a param",
        // It makes the request whole.
        (Ok(_), Err(_)) => return "needed",
        (Ok(with), Ok(without)) => (
            with.0 != without.0,
            with.1.iter().any(|note| !without.1.contains(note)),
        ),
    };
    match (body, notes) {
        (true, false) => "mapped",
        (true, true) => "coerced",
        (false, true) => "noted",
        (false, false) => "silent",
    }
}

/// A line of a table: the field with its value, what is claimed, and why.
fn line(line: &str) -> (String, String, Vec<&str>, &str) {
    let (said, reason) = match line.rsplit_once(" # ") {
        Some((said, reason)) => (said, reason.trim()),
        None => (line, ""),
    };
    let (field, claims) = said.rsplit_once(" |").unwrap_or((said, ""));
    let (name, value) = field
        .split_once(' ')
        .unwrap_or_else(|| panic!("no value: {line}"));
    let field = format!("\"{name}\":{value}");
    (
        name.to_owned(),
        field,
        claims.split_whitespace().collect(),
        reason,
    )
}

fn check(from: usize, table: &str) {
    let print = std::env::var("PLEXUS_FIELDS").is_ok_and(|word| word == "print");
    let mut request = "";
    let mut wrong = Vec::new();
    for text in table.lines() {
        if let Some(told) = text.strip_prefix("@ ") {
            assert_eq!(told.matches(SPOT).count(), 1, "one spot: {told}");
            request = told;
        }
        if text.is_empty() || text.starts_with(['@', ';']) {
            if print {
                println!("{text}");
            }
            continue;
        }
        let (name, field, claims, reason) = line(text);
        let others = (0..SPOKEN.len()).filter(|to| *to != from);
        let found: Vec<&str> = others
            .map(|to| outcome(SPOKEN[from].0, to, request, &field))
            .collect();
        let value = &field[name.len() + 3..];
        let why = if reason.is_empty() {
            String::new()
        } else {
            format!(" # {reason}")
        };
        let unknown = ["unknown_field", "unknownField"].contains(&name.as_str());
        if unknown && found.iter().any(|what| ["silent", "mapped"].contains(what)) {
            wrong.push(format!(
                "a field that nobody knows gives no note: {request}"
            ));
        }
        if print {
            println!("{name} {value} | {}{why}", found.join(" "));
        }
        if found != claims {
            wrong.push(format!(
                "{name}: claimed {claims:?}, found {found:?} in {request}"
            ));
        }
        if found.contains(&"silent") && reason.is_empty() {
            wrong.push(format!(
                "{name} is lost in silence, and nobody says why: {request}"
            ));
        }
    }
    assert!(print || wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_field_of_chat_is_lost_in_silence() {
    check(0, include_str!("fixtures/fields/chat.txt"));
}

#[test]
fn no_field_of_responses_is_lost_in_silence() {
    check(1, include_str!("fixtures/fields/responses.txt"));
}

#[test]
fn no_field_of_messages_is_lost_in_silence() {
    check(2, include_str!("fixtures/fields/messages.txt"));
}

#[test]
fn no_field_of_gemini_is_lost_in_silence() {
    check(3, include_str!("fixtures/fields/gemini.txt"));
}
