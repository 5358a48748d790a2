//! `protocol::splice`: patches in any frames.
//!
//! - Applied patches give what editing one vector gives.
//! - In a valid object, `set_model` changes the model and no other byte of
//!   any member; `merge` sets what it is given and keeps the rest as written.
//! - After `ask_for_usage` a chat request asks for usage.

use std::ops::Range;

use super::{Members, choice, cuts, frames, grown};
use plexus::protocol::peek::{members, peek};
use plexus::protocol::splice::{Patch, apply, ask_for_usage, merge, set_model};
use serde_json::{Map, Value, json};

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let mut input = input;
    let cuts = cuts(&mut input);
    let edits = edits(&mut input);
    let text = grown(input);
    any_patches(&text, &cuts, edits);
    if let Ok(known) = serde_json::from_slice::<Members>(&text) {
        steering(&text, &cuts, &known);
    }
}

/// Spans as fractions of a text yet unknown, and what to put there.
fn edits(input: &mut &[u8]) -> Vec<(usize, usize, Vec<u8>)> {
    let count = choice(input) % 5;
    (0..count)
        .map(|_| {
            let start = choice(input) * 256 + choice(input);
            let length = choice(input) % 32;
            (start, length, vec![b'#'; choice(input) % 20])
        })
        .collect()
}

fn any_patches(text: &[u8], cuts: &[usize], edits: Vec<(usize, usize, Vec<u8>)>) {
    let mut spans: Vec<(Range<usize>, Vec<u8>)> = edits
        .into_iter()
        .map(|(start, length, with)| {
            let start = start % (text.len() + 1);
            (start..(start + length).min(text.len()), with)
        })
        .collect();
    spans.sort_by_key(|(span, _)| (span.start, span.end));
    let mut kept: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    for (span, with) in spans {
        if kept.last().is_none_or(|(last, _)| last.end < span.start) {
            kept.push((span, with));
        }
    }
    let mut expected = text.to_vec();
    for (span, with) in kept.iter().rev() {
        expected.splice(span.clone(), with.iter().copied());
    }
    // Their order does not matter.
    let patches = kept.into_iter().rev().map(|(span, with)| Patch {
        span,
        with: with.into(),
    });
    let patched = apply(&frames(text, cuts), patches.collect());
    assert_eq!(patched.concat(), expected);
}

fn steering(text: &[u8], cuts: &[usize], known: &Members) {
    let frames = frames(text, cuts);
    let Ok(peeked) = peek(&frames) else { return };
    let read = |patches: Vec<Patch>| {
        let patched = apply(&frames, patches).concat();
        serde_json::from_slice::<Members>(&patched).expect("still an object")
    };
    let listed = |members: &Members| -> Vec<(String, String)> {
        let members = members.0.iter();
        members
            .map(|(name, value)| (name.clone(), value.get().to_owned()))
            .collect()
    };
    if let Some(patch) = set_model(&peeked, "another \"one\"") {
        let mut wanted = listed(known);
        for (name, value) in &mut wanted {
            if name == "model" {
                *value = "\"another \\\"one\\\"\"".to_owned();
            }
        }
        assert_eq!(listed(&read(vec![patch])), wanted);
    }
    if let Some(patch) = ask_for_usage(&peeked) {
        let asked = read(vec![patch]);
        let options = asked.value("stream_options").expect("options");
        let options: Value = serde_json::from_str(options).unwrap_or_default();
        assert!(options.is_null() || options["include_usage"] == json!(true));
    }
    let extra: Map<String, Value> = [("a", json!(1)), ("model", json!("m")), ("é", Value::Null)]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
    let all = members(&frames).expect("an object");
    let merged = read(merge(&all, peeked.first_member, &extra));
    for (name, value) in &merged.0 {
        match extra.get(name) {
            Some(set) => assert_eq!(value.get(), set.to_string()),
            None => assert!(known.0.iter().any(|(known_name, known_value)| {
                known_name == name && known_value.get() == value.get()
            })),
        }
    }
    for name in extra.keys() {
        assert!(merged.count(name) > 0, "{name} was not set");
    }
}
