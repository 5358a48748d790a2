//! A client's request. Names are read in both spellings, and what stands twice
//! counts where it stands last.

mod config;
mod contents;
mod pairing;
mod tools;

use super::super::spelling::{camel, find};
use crate::protocol::Protocol;
use crate::protocol::ir::{Invalid, Request, Service, SystemBlock};
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};

/// Reads a client's request. The model and whether to stream are not in the body:
/// they are left empty, for whoever knows the path.
///
/// # Errors
///
/// Where the request is wrong, naming the field.
pub fn decode<'a>(body: Value<'a>, notes: &mut Notes) -> Result<Request<'a>, Invalid> {
    if !body.is_object() {
        let message = format!("expected an object, found {}", body.sort());
        return Err(Invalid::request("", message));
    }
    let mut request = empty();
    let mut contents = None;
    for (name, value) in body.members() {
        if value.is_null() {
            continue;
        }
        match &*camel(&name) {
            "contents" => contents = Some(value),
            "systemInstruction" => request.system = system(value, notes)?,
            "tools" => request.tools = tools::decode(value, notes)?,
            "toolConfig" => request.tool_choice = tools::choice(value, notes)?,
            "generationConfig" => config::decode(value, &mut request, notes)?,
            "serviceTier" => request.service = Some(service(value)?),
            "labels" => request.metadata = Some(value.raw()),
            "store" => {
                request.state.store = value.as_bool();
                if request.state.store == Some(true) {
                    notes.info(Action::Dropped, "store");
                }
            }
            "cachedContent" => return Err(bound("cachedContent", "a cache kept by Google")),
            "continuationToken" => {
                return Err(bound("continuationToken", "an answer begun by Google"));
            }
            "model" => {}
            _ => {
                value.whole();
                notes.warn(Action::Dropped, name.to_plain_string());
            }
        }
    }
    let Some(contents) = contents else {
        return Err(Invalid::request("contents", "contents is required"));
    };
    request.turns = contents::decode(contents, notes)?;
    Ok(request)
}

fn empty<'a>() -> Request<'a> {
    Request {
        include_usage: true,
        ..Request::of(Protocol::Gemini)
    }
}

/// What only Google can go on with.
fn bound(field: &'static str, what: &str) -> Invalid {
    let message = format!("'{field}' names {what}, and the model is served by another provider");
    Invalid::unsupported("unsupported_parameter", field, message)
}

/// A value that is not what it should be.
fn wrong(path: impl Into<String>, wanted: &str, found: Value<'_>) -> Invalid {
    Invalid::request(path, format!("expected {wanted}, found {}", found.sort()))
}

fn service(value: Value<'_>) -> Result<Service, Invalid> {
    let Some(word) = value.as_str() else {
        return Err(wrong("serviceTier", "a string", value));
    };
    let word = word.plain().to_ascii_lowercase();
    Ok(match word.trim_start_matches("service_tier_") {
        "unspecified" | "" => Service::Auto,
        "standard" => Service::Standard,
        "flex" => Service::Flex,
        "priority" => Service::Priority,
        _ => Service::Other,
    })
}

/// A content or a string; its role says nothing.
fn system<'a>(value: Value<'a>, notes: &mut Notes) -> Result<Vec<SystemBlock<'a>>, Invalid> {
    let block = |text: Str<'a>| SystemBlock { text, cache: None };
    if let Some(text) = value.as_str() {
        return Ok(vec![block(text)]);
    }
    let parts = find(value, "parts").unwrap_or(value);
    let one = parts.is_object().then_some(parts);
    let mut out = Vec::new();
    for (index, part) in parts.items().chain(one).enumerate() {
        let text = find(part, "text").unwrap_or(part);
        match text.as_str() {
            Some(text) if text.is_empty() => {}
            Some(text) => out.push(block(text)),
            None if part.is_object() => {
                notes.warn(Action::Dropped, format!("systemInstruction.parts[{index}]"));
            }
            None => {
                let path = format!("systemInstruction.parts[{index}]");
                return Err(wrong(path, "an object", part));
            }
        }
    }
    Ok(out)
}
