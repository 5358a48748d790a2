//! `protocol::json`: any text, read by the tape and by serde_json.
//!
//! - Both accept the same texts, but for what is nested deeper than the tape
//!   will follow.
//! - Each value lies where serde_json finds it; strings mean the same, and are
//!   as long as they say; whole numbers are the same.
//! - `mended` changes halves of surrogate pairs and nothing else, `compact`
//!   nothing but white space; what they give is read again, and left as it is.

use plexus::protocol::json::{Raw, Str, Tape, Value, is_document, mended};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Members;

/// What is said above, of this input.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        assert!(Tape::new().parse_bytes(input).is_err(), "not UTF-8");
        return;
    };
    let known = serde_json::from_str::<IgnoredAny>(text);
    let mut tape = Tape::new();
    let root = match tape.parse(text) {
        Ok(root) => root,
        Err(fault) => {
            assert!(fault.at <= text.len());
            let deep = fault.wanted.contains("512 levels");
            assert!(known.is_err() || deep, "refused: {fault}");
            return;
        }
    };
    assert!(known.is_ok(), "accepted what is no JSON");
    assert!(is_document(input));
    assert_eq!(
        root.raw().as_str(),
        text.trim_matches([' ', '\n', '\r', '\t'])
    );
    same(root, text);
    rewritten(root, text);
}

/// That the tape's value is what serde_json finds there.
fn same(value: Value<'_>, text: &str) {
    assert_eq!(&text[value.span()], value.raw().as_str());
    let raw = value.raw();
    if value.is_object() {
        let known: Members = serde_json::from_str(raw.as_str()).unwrap_or(Members(Vec::new()));
        let names: Vec<_> = value.members().collect();
        // A name with half a surrogate pair is not read by serde_json at all.
        if known.0.is_empty() {
            assert!(names.is_empty() || matches!(mended(raw.as_str()), std::borrow::Cow::Owned(_)));
        } else {
            assert_eq!(names.len(), known.0.len());
        }
        for ((name, inner), (known, found)) in names.iter().zip(&known.0) {
            assert!(name.is(known));
            assert_eq!(inner.raw().as_str(), found.get());
        }
        names.iter().for_each(|(_, inner)| same(*inner, text));
    } else if value.is_array() {
        let known: Vec<Box<RawValue>> = serde_json::from_str(raw.as_str()).expect("an array");
        assert_eq!(value.items().count(), known.len());
        for (inner, found) in value.items().zip(&known) {
            assert_eq!(inner.raw().as_str(), found.get());
            same(inner, text);
        }
    } else if let Some(string) = value.as_str() {
        if let Ok(known) = serde_json::from_str::<String>(raw.as_str()) {
            assert_eq!(string.plain(), known);
        }
        means(&string);
    } else if value.number().is_some() {
        if let Ok(known) = serde_json::from_str::<u64>(raw.as_str()) {
            assert_eq!(value.as_u64(), Some(known));
        }
        if let Ok(known) = serde_json::from_str::<i64>(raw.as_str()) {
            assert_eq!(value.as_i64(), Some(known));
        }
        assert!(value.as_f64().is_some());
    }
}

/// That what a string says of itself is so of what it means.
fn means(string: &Str<'_>) {
    let plain = string.to_plain_string();
    assert!(string.is(&plain));
    assert!(!string.is(&format!("{plain}x")));
    assert_eq!(string.is_empty(), plain.is_empty());
    assert_eq!(string.is_blank(), plain.trim().is_empty(), "{plain:?}");
    assert_eq!(string.characters(), plain.chars().count());
    let written = format!("\"{}\"", string.inner());
    let read: String = serde_json::from_str(&written).expect("written as JSON");
    assert_eq!(read, plain);
    if string.inner().to_ascii_lowercase().contains("\\u002c") {
        // Only what no escape stands for is looked for.
        return;
    }
    let split = string.split_once(',');
    let split = split.map(|(one, two)| (one.to_plain_string(), two.to_plain_string()));
    let known = plain.split_once(',');
    let known = known.map(|(one, two)| (one.to_owned(), two.to_owned()));
    assert_eq!(split, known);
}

fn rewritten(root: Value<'_>, text: &str) {
    let whole = mended(text);
    assert_eq!(mended(&whole), whole);
    let mut tape = Tape::new();
    let again = tape.parse(&whole).expect("what was mended is JSON");
    alike(root, again);
    let raw: Raw<'_> = root.raw();
    let compact = raw.compact().into_owned();
    let again = tape.parse(&compact).expect("what is compact is JSON");
    assert_eq!(again.raw().compact(), compact);
    alike(root, again);
}

/// That two values mean the same.
fn alike(one: Value<'_>, two: Value<'_>) {
    assert_eq!(one.sort(), two.sort());
    assert_eq!(one.as_str(), two.as_str());
    assert_eq!(one.number(), two.number());
    assert_eq!(one.as_bool(), two.as_bool());
    assert_eq!(one.members().count(), two.members().count());
    for ((name, inner), (other, found)) in one.members().zip(two.members()) {
        assert_eq!(name, other);
        alike(inner, found);
    }
    assert_eq!(one.items().count(), two.items().count());
    for (inner, found) in one.items().zip(two.items()) {
        alike(inner, found);
    }
}
