//! Conversations that are kept: what is stored of a request and its answer, and a
//! new request that goes on from them. Pure functions; where things are kept is
//! no concern of theirs.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::protocol::error::ErrorClass;
use crate::protocol::ir::Invalid;
use crate::protocol::json::write::{Array, Object};
use crate::protocol::json::{Str, Tape, Value};

use super::item::{filled, kind, string};

/// The most turns that a conversation is followed back.
pub const MOST_TURNS: usize = 200;
/// The longest conversation, in bytes.
pub const LONGEST: usize = 20 * 1024 * 1024;

/// A turn that was kept: two JSON arrays of items.
#[derive(Clone, Copy, Debug)]
pub struct StoredTurn<'a> {
    /// What the client said, as [`input_items`] has it.
    pub input: &'a str,
    /// What was answered, as [`output_items`] has it.
    pub output: &'a str,
}

/// The answer that a request goes on from.
#[must_use]
pub fn previous(body: Value<'_>) -> Option<String> {
    let id = body.some("previous_response_id")?.as_str()?;
    Some(id.to_plain_string())
}

/// The ids of items that a request refers to.
#[must_use]
pub fn references(body: Value<'_>) -> Vec<String> {
    let input = body.get("input");
    let items = input.into_iter().flat_map(|input| input.items());
    let ids = items
        .filter(is_reference)
        .filter_map(|item| string(item, "id"));
    ids.map(|id| id.to_plain_string()).collect()
}

/// A request's whole conversation as its own `input`: the kept turns, oldest first,
/// and then what is new. References are replaced by what they refer to.
/// Instructions and tools of earlier turns are not taken over.
///
/// # Errors
///
/// Where an item is referred to that is not there, where the conversation is too
/// long, and where two kinds of state are asked for at once.
pub fn expand(body: Value<'_>, chain: &[StoredTurn<'_>]) -> Result<Bytes, Invalid> {
    if body.some("conversation").is_some() && body.some("previous_response_id").is_some() {
        let message = "conversation and previous_response_id can't be used together";
        return Err(Invalid::request("previous_response_id", message));
    }
    let length = chain
        .iter()
        .map(|turn| turn.input.len() + turn.output.len());
    if chain.len() > MOST_TURNS || length.sum::<usize>() > LONGEST {
        let message =
            format!("the conversation is longer than {MOST_TURNS} turns or {LONGEST} bytes");
        return Err(Invalid::request("previous_response_id", message));
    }
    let texts: Vec<&str> = chain
        .iter()
        .flat_map(|turn| [turn.input, turn.output])
        .collect();
    let mut tapes: Vec<Tape> = texts.iter().map(|_| Tape::new()).collect();
    let mut kept = Vec::with_capacity(texts.len());
    for (tape, text) in tapes.iter_mut().zip(texts) {
        kept.push(tape.parse(text).map_err(|_| unreadable())?);
    }
    write_expanded(body, &kept)
}

fn unreadable() -> Invalid {
    Invalid {
        class: ErrorClass::Internal,
        ..Invalid::request("previous_response_id", "a kept turn can't be read")
    }
}

fn write_expanded(body: Value<'_>, kept: &[Value<'_>]) -> Result<Bytes, Invalid> {
    let known = by_id(kept);
    let input = body.some("input");
    let mut out = BytesMut::with_capacity(body.span().len() + 1024);
    let mut object = Object::open(&mut out);
    for (name, value) in body.members() {
        if !name.is("input") && !name.is("previous_response_id") {
            object
                .foreign_key(&name)
                .extend_from_slice(value.raw().as_str().as_bytes());
        }
    }
    match input {
        Some(text) if kept.is_empty() && !text.is_array() => {
            object.raw("input", &text.raw());
        }
        None if kept.is_empty() => {}
        _ => {
            let mut array = object.array("input");
            for item in kept.iter().flat_map(Value::items) {
                let item = resolved(item, &known, "previous_response_id")?;
                write_without_id(item, &mut array);
            }
            if let Some(input) = input {
                write_new(input, &known, &mut array)?;
            }
        }
    }
    drop(object);
    Ok(out.freeze())
}

type Known<'a> = HashMap<String, Value<'a>>;

fn by_id<'a>(kept: &[Value<'a>]) -> Known<'a> {
    let items = kept.iter().flat_map(Value::items);
    let items = items.filter(|item| !is_reference(item));
    let named = items.filter_map(|item| Some((filled(item, "id")?.to_plain_string(), item)));
    named.collect()
}

/// Whether an item stands for another: it says so, or it has an id and nothing
/// that would make it a message.
fn is_reference(item: &Value<'_>) -> bool {
    match filled(*item, "type") {
        Some(kind) => kind.is("item_reference"),
        None => item.get("id").is_some() && item.get("role").is_none(),
    }
}

fn resolved<'a>(item: Value<'a>, known: &Known<'a>, path: &str) -> Result<Value<'a>, Invalid> {
    if !is_reference(&item) {
        return Ok(item);
    }
    let id = string(item, "id").unwrap_or_default();
    let id = id.plain();
    known.get(id.as_ref()).copied().ok_or_else(|| {
        let id: String = id.chars().take(128).collect();
        Invalid {
            code: Some("item_not_found"),
            ..Invalid::request(path, format!("Item with id '{id}' not found."))
        }
    })
}

fn write_new<'a>(
    input: Value<'a>,
    known: &Known<'a>,
    array: &mut Array<'_>,
) -> Result<(), Invalid> {
    if let Some(text) = input.as_str() {
        if !text.is_empty() {
            let mut message = array.object();
            message.text("type", "message").text("role", "user");
            let mut content = message.array("content");
            content
                .object()
                .text("type", "input_text")
                .str("text", &text);
        }
        return Ok(());
    }
    if !input.is_array() {
        let message = format!(
            "expected a string or an array of items, got {}",
            input.sort()
        );
        return Err(Invalid::request("input", message));
    }
    for (index, item) in input.items().enumerate() {
        match is_reference(&item) {
            true => {
                let item = resolved(item, known, &format!("input[{index}].id"))?;
                write_without_id(item, array);
            }
            false => {
                array.raw(&item.raw());
            }
        }
    }
    Ok(())
}

/// An item whose id may be one that the gateway made: a provider would look for it
/// and not find it. Where the id is needed, it stays.
fn write_without_id(item: Value<'_>, array: &mut Array<'_>) {
    const FREE: [&str; 6] = [
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
    ];
    let kind = kind(item);
    if !item.is_object() || !FREE.iter().any(|free| kind.is(free)) {
        array.raw(&item.raw());
        return;
    }
    let mut object = array.object();
    for (name, value) in item.members() {
        if !name.is("id") {
            object
                .foreign_key(&name)
                .extend_from_slice(value.raw().as_str().as_bytes());
        }
    }
}

/// The output items of a finished answer, as a JSON array.
#[must_use]
pub fn output_items(response: Value<'_>) -> String {
    let output = response.get("output").filter(Value::is_array);
    output.map_or_else(
        || "[]".to_owned(),
        |output| output.raw().as_str().to_owned(),
    )
}

/// The input items of a request, as a JSON array: messages in full form, and every
/// item with an id. `id` is what those that have none are made of.
#[must_use]
pub fn input_items(body: Value<'_>, id: &str) -> String {
    let mut out = BytesMut::new();
    let mut array = Array::open(&mut out);
    let Some(input) = body.some("input") else {
        drop(array);
        return "[]".to_owned();
    };
    if let Some(text) = input.as_str() {
        let mut object = array.object();
        object.text("id", &minted("message", id, 0));
        message(None, &Str::new("user"), Some(&text), &mut object);
    }
    for (index, item) in input.items().enumerate() {
        if item.is_object() {
            write_named(item, id, index, &mut array);
        }
    }
    drop(array);
    String::from_utf8_lossy(&out).into_owned()
}

fn write_named(item: Value<'_>, id: &str, index: usize, array: &mut Array<'_>) {
    if is_reference(&item) {
        array.raw(&item.raw());
        return;
    }
    let kind = kind(item);
    let mut object = array.object();
    match filled(item, "id") {
        Some(own) => object.str("id", &own),
        None => object.text("id", &minted(&kind.plain(), id, index)),
    };
    if kind.is("message") {
        let role = string(item, "role").unwrap_or(Str::new("user"));
        let content = item.some("content");
        let text = content.and_then(|content| content.as_str());
        message(Some(item), &role, text.as_ref(), &mut object);
        return;
    }
    for (name, value) in item.members() {
        if !name.is("id") {
            object
                .foreign_key(&name)
                .extend_from_slice(value.raw().as_str().as_bytes());
        }
    }
}

fn message(
    item: Option<Value<'_>>,
    role: &Str<'_>,
    text: Option<&Str<'_>>,
    object: &mut Object<'_>,
) {
    object.text("type", "message");
    let status = item.and_then(|item| filled(item, "status"));
    object.str("status", &status.unwrap_or(Str::new("completed")));
    object.str("role", role);
    match (text, item.and_then(|item| item.some("content"))) {
        (Some(text), _) => {
            let mut content = object.array("content");
            let mut part = content.object();
            if role.is("assistant") {
                part.text("type", "output_text").str("text", text);
                part.array("annotations");
            } else {
                part.text("type", "input_text").str("text", text);
            }
        }
        (None, Some(content)) => {
            object.raw("content", &content.raw());
        }
        (None, None) => {
            object.array("content");
        }
    }
    if let Some(phase) = item.and_then(|item| filled(item, "phase")) {
        object.str("phase", &phase);
    }
}

/// An id for an item that has none. It differs from those of the answer's items,
/// which are made of the same.
fn minted(kind: &str, id: &str, index: usize) -> String {
    let prefix = match kind {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        "function_call_output" => "fco",
        "custom_tool_call" => "ctc",
        "custom_tool_call_output" => "ctco",
        _ => "item",
    };
    format!("{prefix}_{id}i{index}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    fn expanded(body: &str, chain: &[(&str, &str)]) -> Result<Json, Invalid> {
        let mut tape = Tape::new();
        let chain: Vec<_> = chain
            .iter()
            .map(|(input, output)| StoredTurn { input, output })
            .collect();
        let bytes = expand(tape.parse(body).unwrap(), &chain)?;
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn a_chain_becomes_the_input_and_instructions_stay_the_requests_own() {
        let body = r#"{"model":"m","instructions":"new","previous_response_id":"resp_b","input":"third","n":12345678901234567890}"#;
        let first = r#"[{"id":"msg_1","type":"message","role":"user","content":"first"}]"#;
        let answer =
            r#"[{"id":"fc_1","type":"function_call","call_id":"c","name":"f","arguments":"{}"}]"#;
        let second = r#"[{"type":"function_call_output","call_id":"c","output":"x"}]"#;
        let out = expanded(body, &[(first, answer), (second, "[]")]).unwrap();
        assert_eq!(
            out,
            serde_json::from_str::<Json>(
                r#"{"model":"m","instructions":"new","n":12345678901234567890,"input":[
                    {"type":"message","role":"user","content":"first"},
                    {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
                    {"type":"function_call_output","call_id":"c","output":"x"},
                    {"type":"message","role":"user","content":[{"type":"input_text","text":"third"}]}]}"#
            )
            .unwrap()
        );
    }

    #[test]
    fn references_are_replaced_and_unknown_ones_refused() {
        let answer = r#"[{"id":"ws_1","type":"web_search_call","status":"completed"},{"id":"rs_1","type":"reasoning","summary":[]}]"#;
        let body = r#"{"input":[{"type":"item_reference","id":"rs_1"},{"id":"ws_1"},{"role":"user","content":"x"}]}"#;
        let out = expanded(body, &[("[]", answer)]).unwrap();
        // The kept turn itself comes first.
        assert_eq!(out["input"][2], json!({"type":"reasoning","summary":[]}));
        assert_eq!(out["input"][3]["id"], "ws_1");
        assert_eq!(out["input"][4]["content"], "x");
        let refusal = expanded(body, &[]).unwrap_err();
        assert_eq!(refusal.message, "Item with id 'rs_1' not found.");
        assert_eq!(refusal.param.as_deref(), Some("input[0].id"));
    }

    #[test]
    fn two_kinds_of_state_and_endless_ones_are_refused() {
        let both = r#"{"previous_response_id":"a","conversation":"b","input":"x"}"#;
        assert!(expanded(both, &[]).is_err());
        let body = r#"{"previous_response_id":"a","input":"x"}"#;
        assert!(expanded(body, &vec![("[]", "[]"); MOST_TURNS + 1]).is_err());
        let long = format!("[\"{}\"]", "x".repeat(LONGEST));
        assert!(expanded(body, &[(&long, "[]")]).is_err());
        let broken = expanded(body, &[("[", "[]")]).unwrap_err();
        assert_eq!(broken.class, ErrorClass::Internal);
    }

    #[test]
    fn without_a_chain_nothing_changes() {
        let body = r#"{"model":"m","input":"x"}"#;
        assert_eq!(
            expanded(body, &[]).unwrap(),
            json!({"model":"m","input":"x"})
        );
    }

    #[test]
    fn input_items_are_kept_in_full_form_with_ids() {
        let mut tape = Tape::new();
        let body = r#"{"input":[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"},
            {"type":"function_call_output","call_id":"c","output":"x"},{"id":"msg_own","role":"user","content":[{"type":"input_text","text":"y"}]}]}"#;
        let items = input_items(tape.parse(body).unwrap(), "ID");
        let items: Json = serde_json::from_str(&items).unwrap();
        assert_eq!(
            items,
            json!([
                {"id":"msg_IDi0","type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":"hi"}]},
                {"id":"msg_IDi1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"ho","annotations":[]}]},
                {"id":"fco_IDi2","type":"function_call_output","call_id":"c","output":"x"},
                {"id":"msg_own","type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":"y"}]}
            ])
        );
        let text = input_items(tape.parse(r#"{"input":"a\"b"}"#).unwrap(), "ID");
        let text: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(text[0]["content"][0]["text"], "a\"b");
        assert_eq!(input_items(tape.parse("{}").unwrap(), "ID"), "[]");
    }

    #[test]
    fn what_a_request_refers_to_is_told() {
        let mut tape = Tape::new();
        let body = tape
            .parse(r#"{"previous_response_id":"resp_1","input":[{"id":"a"},{"type":"item_reference","id":"b"},{"role":"user","content":""}]}"#)
            .unwrap();
        assert_eq!(previous(body).as_deref(), Some("resp_1"));
        assert_eq!(references(body), ["a", "b"]);
        let answer = tape.parse(r#"{"output":[{"id":1}]}"#).unwrap();
        assert_eq!(output_items(answer), r#"[{"id":1}]"#);
    }
}
