//! A call's arguments as the object that Gemini wants them to be.

use bytes::BytesMut;

use crate::protocol::ir::Arguments;
use crate::protocol::json::{Object, Raw, Str, Tape};

/// Writes the arguments as an object on one line. `false` when they were no JSON
/// and went into `_raw` as they are.
pub(super) fn write(arguments: &Arguments<'_>, out: &mut BytesMut) -> bool {
    match arguments {
        Arguments::Object(value) => {
            write_value(value, out);
            true
        }
        Arguments::Text(text) => write_text(&text.plain(), out),
        Arguments::Free(text) => {
            Object::open(out).str("input", text);
            true
        }
    }
}

/// As [`write()`], of the text of the arguments.
pub(super) fn write_text(text: &str, out: &mut BytesMut) -> bool {
    let parsed = readable(text);
    match &parsed {
        Some(value) => write_value(value, out),
        None => {
            Object::open(out).text("_raw", text);
        }
    }
    parsed.is_some()
}

/// The JSON that the text is; nothing at all is no arguments.
pub(super) fn readable(text: &str) -> Option<Raw<'_>> {
    if text.trim().is_empty() {
        return Some(Raw::EMPTY_OBJECT);
    }
    Raw::parse(text).ok()
}

/// Writes a value as an object on one line; what is none becomes its `value`.
pub(super) fn write_value(value: &Raw<'_>, out: &mut BytesMut) {
    match value.as_str() {
        "null" => out.extend_from_slice(b"{}"),
        _ if value.is_object() => out.extend_from_slice(value.compact().as_bytes()),
        _ => {
            let mut object = Object::open(out);
            object
                .key("value")
                .extend_from_slice(value.compact().as_bytes());
        }
    }
}

/// A tool's answer as the object that Gemini wants: an object stays one, unless
/// it has a name that means something to Google; other text is its `output`.
pub(super) fn write_result(text: &Str<'_>, is_error: bool, out: &mut BytesMut) {
    if is_error {
        Object::open(out).str("error", text);
        return;
    }
    // Most results are plain text, which is a copy.
    let inner = text.inner();
    if !inner.trim_start().starts_with(['{', '\\']) {
        Object::open(out).str("output", text);
        return;
    }
    let text = text.plain();
    let mut tape = Tape::new();
    let trimmed = text.trim();
    let object = trimmed
        .starts_with('{')
        .then(|| tape.parse(trimmed).ok())
        .flatten();
    let Some(object) = object else {
        Object::open(out).text("output", &text);
        return;
    };
    let raw = object.raw();
    if object.get("error").is_none() && object.get("output").is_none() {
        out.extend_from_slice(raw.compact().as_bytes());
    } else {
        let mut wrapped = Object::open(out);
        wrapped
            .key("output")
            .extend_from_slice(raw.compact().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> (String, bool) {
        let mut out = BytesMut::new();
        let readable = write(&Arguments::Text(Str::new(text)), &mut out);
        (String::from_utf8(out.to_vec()).unwrap(), readable)
    }

    #[test]
    fn whatever_the_arguments_are_an_object_goes_out() {
        for (given, wanted, readable) in [
            ("", "{}", true),
            (" \n", "{}", true),
            ("null", "{}", true),
            (
                "{ \"b\" : 12345678901234567890, \"a\":1.50 }",
                r#"{"b":12345678901234567890,"a":1.50}"#,
                true,
            ),
            ("[1]", r#"{"value":[1]}"#, true),
            ("{\"a\":", r#"{"_raw":"{\"a\":"}"#, false),
        ] {
            assert_eq!(text(given), (wanted.to_owned(), readable), "{given}");
        }
        let mut out = BytesMut::new();
        write(&Arguments::Free(Str::new("a\"\n")), &mut out);
        assert_eq!(&out[..], br#"{"input":"a\"\n"}"#);
    }

    #[test]
    fn results_keep_their_objects_and_hide_names_that_google_would_read() {
        let written = |text: &str, is_error| {
            let mut out = BytesMut::new();
            write_result(&Str::new(text), is_error, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(written("{ \"t\": 7 }", false), r#"{"t":7}"#);
        assert_eq!(written("{\"error\":1}", false), r#"{"output":{"error":1}}"#);
        assert_eq!(
            written("{\"output\":1}", false),
            r#"{"output":{"output":1}}"#
        );
        assert_eq!(written("\n{}", false), "{}");
        assert_eq!(written("[1]", false), r#"{"output":"[1]"}"#);
        assert_eq!(written("{oops", false), r#"{"output":"{oops"}"#);
        assert_eq!(written("{\"a\":1}", true), r#"{"error":"{\"a\":1}"}"#);
    }
}
