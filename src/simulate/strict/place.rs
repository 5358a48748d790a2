//! Unknown members of objects, and where things stand, as each vendor writes it.

use serde_json::Value;

/// The first member of an object that is not among those known.
pub(super) fn stranger<'v>(object: &'v Value, known: &[&str]) -> Option<&'v str> {
    let mut names = object.as_object()?.keys();
    names
        .find(|name| !known.contains(&name.as_str()))
        .map(String::as_str)
}

/// As [`stranger`], where names may be written in snake case too.
pub(super) fn stranger_in_either_case<'v>(object: &'v Value, known: &[&str]) -> Option<&'v str> {
    let mut names = object.as_object()?.keys();
    names
        .find(|name| !known.contains(&camel(name).as_str()))
        .map(String::as_str)
}

/// A member of an object under its name, or that name in snake case.
pub(super) fn either<'v>(object: &'v Value, name: &str) -> &'v Value {
    let found = object.as_object().and_then(|members| {
        let mut members = members.iter();
        members.find(|(known, _)| camel(known) == name)
    });
    found.map_or(&Value::Null, |(_, value)| value)
}

fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for character in name.chars() {
        match character {
            '_' => upper = true,
            other if upper => {
                out.push(other.to_ascii_uppercase());
                upper = false;
            }
            other => out.push(other),
        }
    }
    out
}
