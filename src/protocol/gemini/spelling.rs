//! Names in both spellings: Google's servers read `inlineData` and `inline_data`
//! alike, and clients write either.

use std::borrow::Cow;

use crate::protocol::json::{Str, Value};

/// The name as it is written in camel case.
pub(crate) fn camel<'a>(name: &'a Str<'_>) -> Cow<'a, str> {
    if let Cow::Borrowed(inner) = name.inner()
        && memchr::memchr2(b'_', b'\\', inner.as_bytes()).is_none()
    {
        return Cow::Borrowed(inner);
    }
    Cow::Owned(joined(&name.plain()))
}

fn joined(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut after = false;
    for letter in name.trim_start_matches('_').chars() {
        if letter == '_' {
            after = true;
        } else if std::mem::take(&mut after) {
            out.push(letter.to_ascii_uppercase());
        } else {
            out.push(letter);
        }
    }
    out
}

/// The member of that name (in camel case), the last one if it stands there
/// twice; `null` is as good as absent.
pub(crate) fn find<'a>(object: Value<'a>, name: &str) -> Option<Value<'a>> {
    let found = object.named(|found| camel(found) == name)?;
    (!found.is_null()).then_some(found)
}

/// The string of that name, if it is one with anything in it.
pub(super) fn text<'a>(object: Value<'a>, name: &str) -> Option<Str<'a>> {
    find(object, name)?.as_str().filter(|text| !text.is_empty())
}

/// The whole number of that name. Protobuf's JSON writes long ones as strings.
pub(super) fn whole(object: Value<'_>, name: &str) -> Option<u64> {
    as_whole(find(object, name)?)
}

/// The whole number that a value is or spells.
pub(super) fn as_whole(value: Value<'_>) -> Option<u64> {
    let spelled = || value.as_str()?.plain().parse().ok();
    value.as_u64().or_else(spelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::json::Tape;

    #[test]
    fn both_spellings_are_found_and_the_last_one_counts() {
        let mut tape = Tape::new();
        let root = tape
            .parse(r#"{"file_data":1,"fileData":2,"_responseJsonSchema":3,"n":"12","z":null}"#)
            .unwrap();
        assert_eq!(find(root, "fileData").unwrap().as_u64(), Some(2));
        assert_eq!(find(root, "responseJsonSchema").unwrap().as_u64(), Some(3));
        assert_eq!(whole(root, "n"), Some(12));
        assert!(find(root, "z").is_none() && find(root, "file_data").is_none());
    }
}
