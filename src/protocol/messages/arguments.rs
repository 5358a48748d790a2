//! The arguments of a call as the JSON object that Messages wants.

use bytes::BytesMut;

use crate::protocol::ir::Arguments;
use crate::protocol::json::{Object, Raw, Str, Tape, Value, is_document};

/// What had to be done to make an object of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// They were one.
    Whole,
    /// They were another JSON value, or free text, and stand inside of one.
    Wrapped,
    /// They were no JSON and stand inside of one as text.
    Broken,
}

/// Writes them as an object, whatever they are.
pub(super) fn write(out: &mut BytesMut, arguments: &Arguments<'_>) -> Shape {
    match arguments {
        Arguments::Object(value) => write_value(out, value.as_str()),
        Arguments::Free(text) => {
            Object::open(out).str("input", text);
            Shape::Wrapped
        }
        Arguments::Text(text) => {
            let plain = text.plain();
            let trimmed = plain.trim();
            if trimmed.is_empty() {
                out.extend_from_slice(b"{}");
                Shape::Whole
            } else if is_document_to_the_letter(trimmed) {
                write_value(out, trimmed)
            } else {
                Object::open(out).str("_raw", text);
                Shape::Broken
            }
        }
    }
}

/// Whether they are what a tool can be called with; half a call is not.
pub(super) fn are_whole(arguments: &Arguments<'_>) -> bool {
    match arguments {
        Arguments::Text(text) => {
            let plain = text.plain();
            let trimmed = plain.trim();
            trimmed.is_empty() || is_document_to_the_letter(trimmed)
        }
        Arguments::Object(_) | Arguments::Free(_) => true,
    }
}

/// Writes a JSON value as an object: as it is, or as `value` of one.
pub(super) fn write_value(out: &mut BytesMut, value: &str) -> Shape {
    if value.starts_with('{') {
        out.extend_from_slice(value.as_bytes());
        return Shape::Whole;
    }
    let mut object = Object::open(out);
    object.key("value").extend_from_slice(value.as_bytes());
    Shape::Wrapped
}

/// A model may write control characters or wrong escapes into a string; copied
/// into a body they would spoil all of it.
fn is_document_to_the_letter(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = !bytes.iter().any(|byte| *byte < 0x20 || *byte == b'\\');
    if plain {
        is_document(bytes)
    } else {
        Tape::new().parse(text).is_ok()
    }
}

/// The pieces of arguments that a provider sent as a value, for a call that takes
/// an object.
pub(super) fn of_value(value: Value<'_>) -> Arguments<'_> {
    if value.is_object() {
        return Arguments::Object(value.raw());
    }
    if value.is_null() {
        return Arguments::Object(Raw::EMPTY_OBJECT);
    }
    match value.as_str() {
        Some(text) => Arguments::Text(text),
        None => Arguments::Text(Str::from(value.raw().as_str().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (String, Shape) {
        let mut out = BytesMut::new();
        let shape = write(&mut out, &Arguments::Text(Str::new(text)));
        (String::from_utf8(out.to_vec()).unwrap(), shape)
    }

    #[test]
    fn whatever_a_model_wrote_becomes_an_object() {
        for (text, wanted, shape) in [
            ("", "{}", Shape::Whole),
            (" \n", "{}", Shape::Whole),
            (r#"{"b":1,"a":1.50}"#, r#"{"b":1,"a":1.50}"#, Shape::Whole),
            ("[1]", r#"{"value":[1]}"#, Shape::Wrapped),
            ("{\"a\":", r#"{"_raw":"{\"a\":"}"#, Shape::Broken),
            (
                "{\"a\":\"\n\"}",
                r#"{"_raw":"{\"a\":\"\n\"}"}"#,
                Shape::Broken,
            ),
            (
                r#"{"a":"\x"}"#,
                r#"{"_raw":"{\"a\":\"\\x\"}"}"#,
                Shape::Broken,
            ),
        ] {
            assert_eq!(written(text), (wanted.to_owned(), shape), "{text}");
        }
    }

    #[test]
    fn free_text_comes_as_the_input() {
        let mut out = BytesMut::new();
        write(&mut out, &Arguments::Free(Str::new("a \"b\"\n")));
        assert_eq!(&out[..], br#"{"input":"a \"b\"\n"}"#);
    }
}
