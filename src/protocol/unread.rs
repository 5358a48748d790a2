//! What no decoder asked for in a request, noted so that nothing is lost in
//! silence. What is known is what is read: there is no second list of it.

use std::borrow::Cow;

use super::Protocol;
use super::gemini::spelling::camel;
use super::json::{Str, Value};
use super::notes::{Action, Notes};

/// Names that tell one sort of object from another, or that belong to whoever
/// made it: to do without them is no loss.
const SILENT: [&str; 6] = ["id", "index", "object", "role", "status", "type"];

/// Members without effect on what is said: whoever drops them says so in the log
/// only.
const HINTS: [&str; 15] = [
    "allowed_callers",
    "annotations",
    "async",
    "block_binding",
    "cache_control",
    "caller",
    "defer_loading",
    "eager_input_streaming",
    "extra_content",
    "input_examples",
    "logprobs",
    "name",
    "output_schema",
    "phase",
    "provider_specific_fields",
];

/// The same of the request itself.
const HINTS_OF_REQUEST: [&str; 6] = [
    "audio",
    "prediction",
    "prompt_cache_options",
    "prompt_cache_retention",
    "provider",
    "usage",
];

/// Notes what stands in a request that was decoded, and was not asked for. A note
/// has the object's path without numbers, so that a long conversation gives one
/// note for each member, not one for each turn.
pub(crate) fn note(protocol: Protocol, body: Value<'_>, notes: &mut Notes) {
    let spelled: for<'a> fn(&'a Str<'_>) -> Cow<'a, str> = match protocol {
        Protocol::Gemini => camel,
        _ => as_written,
    };
    body.unasked(spelled, &mut |place, name| {
        let (path, hint) = match place {
            "" => (name.to_owned(), HINTS_OF_REQUEST.contains(&name)),
            _ if SILENT.contains(&name) => return,
            _ => (format!("{place}.{name}"), HINTS.contains(&name)),
        };
        if hint {
            notes.info(Action::Dropped, path);
        } else {
            notes.warn(Action::Dropped, path);
        }
    });
}

fn as_written<'a>(name: &'a Str<'_>) -> Cow<'a, str> {
    name.plain()
}
