//! What OpenAI's Responses refuse.

use serde_json::Value;

use super::super::answer::is_signed;
use super::place::stranger;
use super::{Checked, Fault, ensure, list, plain_name, word};

const FIELDS: &[&str] = &[
    "background",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "moderation",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];
const COUNTED: &[&str] = &[
    "conversation",
    "input",
    "instructions",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
    "truncation",
];

/// Members of an item, by its type.
fn members(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "message" => &["type", "id", "role", "content", "status", "phase"],
        "reasoning" => &[
            "type",
            "id",
            "summary",
            "content",
            "encrypted_content",
            "status",
        ],
        "function_call" => &[
            "type",
            "id",
            "call_id",
            "name",
            "arguments",
            "status",
            "namespace",
        ],
        "function_call_output" => &["type", "id", "call_id", "output", "status"],
        "custom_tool_call" => &["type", "id", "call_id", "name", "input", "status"],
        "custom_tool_call_output" => &["type", "id", "call_id", "output", "status"],
        "item_reference" => &["type", "id"],
        "web_search_call" => &["type", "id", "status", "action"],
        _ => return None,
    })
}

pub(super) fn check(body: &Value, count: bool) -> Checked {
    if let Some(name) = stranger(body, if count { COUNTED } else { FIELDS }) {
        return Err(unknown(name.to_owned()));
    }
    if let Some(most) = body["max_output_tokens"].as_u64() {
        ensure(most >= 16, "max_output_tokens", || {
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16."
                .into()
        })?;
    }
    let options = body["stream_options"].is_null() || body["stream"] == true;
    ensure(options, "stream_options", || {
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.".into()
    })?;
    for (at, tool) in list(&body["tools"]).iter().enumerate() {
        if tool["type"] == "function" {
            let place = format!("tools[{at}].name");
            ensure(plain_name(word(&tool["name"]), 64), &place, || {
                format!("Invalid '{place}': string does not match pattern '^[a-zA-Z0-9_-]+$'.")
            })?;
        }
        ensure(
            tool["function"].is_null(),
            &format!("tools[{at}].function"),
            || format!("Unknown parameter: 'tools[{at}].function'."),
        )?;
    }
    let continued = !body["previous_response_id"].is_null();
    items(list(&body["input"]), continued)
}

fn unknown(place: String) -> Fault {
    Fault {
        code: Some("unknown_parameter"),
        ..Fault::new(place.clone(), format!("Unknown parameter: '{place}'."))
    }
}

fn items(items: &[Value], continued: bool) -> Checked {
    let mut calls: Vec<&str> = Vec::new();
    let mut answered: Vec<&str> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let place = format!("input[{at}]");
        let kind = item.get("type").map_or("message", word);
        let Some(known) = members(kind) else {
            let message = format!("Invalid value: '{kind}'.");
            return Err(Fault::new(format!("{place}.type"), message));
        };
        if let Some(name) = stranger(item, known) {
            return Err(unknown(format!("{place}.{name}")));
        }
        identified(item, kind, &place)?;
        match kind {
            "message" => message(item, &place)?,
            "reasoning" => reasoning(items, at, &place)?,
            "function_call" | "custom_tool_call" => {
                call(item, kind, &place)?;
                calls.push(word(&item["call_id"]));
            }
            "function_call_output" | "custom_tool_call_output" => {
                let id = word(&item["call_id"]);
                ensure(continued || calls.contains(&id), "input", || {
                    format!("No tool call found for function call output with call_id {id}.")
                })?;
                output(&item["output"], &place)?;
                answered.push(id);
            }
            _ => {}
        }
    }
    let open = calls.iter().find(|id| !answered.contains(id));
    ensure(open.is_none(), "input", || {
        format!(
            "No tool output found for function call {}.",
            open.unwrap_or(&"")
        )
    })
}

/// An item's own id begins as its type wants it.
fn identified(item: &Value, kind: &str, place: &str) -> Checked {
    let prefix = match kind {
        "message" => "msg",
        "reasoning" => "rs",
        "function_call" => "fc",
        "custom_tool_call" => "ctc",
        _ => return Ok(()),
    };
    let id = word(&item["id"]);
    ensure(
        id.is_empty() || (id.starts_with(prefix) && plain_name(id, 64)),
        &format!("{place}.id"),
        || format!("Invalid '{place}.id': '{id}'. Expected an ID that begins with '{prefix}'."),
    )
}

fn message(item: &Value, place: &str) -> Checked {
    let role = word(&item["role"]);
    let kinds: &[&str] = match role {
        "user" | "system" | "developer" => &["input_text", "input_image", "input_file"],
        "assistant" => &["output_text", "refusal"],
        _ => {
            let message = format!("Invalid value: '{role}'.");
            return Err(Fault::new(format!("{place}.role"), message));
        }
    };
    ensure(
        item["content"].is_string() || item["content"].is_array(),
        place,
        || format!("Missing required parameter: '{place}.content'."),
    )?;
    parts(list(&item["content"]), kinds, &format!("{place}.content"))
}

fn parts(parts: &[Value], kinds: &[&str], place: &str) -> Checked {
    for (at, part) in parts.iter().enumerate() {
        let kind = word(&part["type"]);
        let place = format!("{place}[{at}]");
        ensure(kinds.contains(&kind), &place, || {
            format!("Invalid value: '{kind}'. Supported values are: {kinds:?}.")
        })?;
        let url = word(&part["image_url"]);
        let image = kind == "input_image" && part["file_id"].is_null();
        let sound = !image || url.starts_with("data:image/") || url.starts_with("http");
        ensure(sound, &place, || format!("Invalid '{place}.image_url'."))?;
    }
    Ok(())
}

/// It is its own, and what it led to follows.
fn reasoning(items: &[Value], at: usize, place: &str) -> Checked {
    let item = &items[at];
    ensure(item["summary"].is_array(), place, || {
        format!("Missing required parameter: '{place}.summary'.")
    })?;
    let opaque = word(&item["encrypted_content"]);
    if !opaque.is_empty() && !is_signed("responses", opaque) {
        return Err(Fault {
            code: Some("invalid_encrypted_content"),
            ..Fault::new(place, "The encrypted content could not be verified.")
        });
    }
    let next = items.get(at + 1);
    let follows = next.is_some_and(|next| {
        let kind = next.get("type").map_or("message", word);
        matches!(
            kind,
            "reasoning" | "function_call" | "custom_tool_call" | "web_search_call"
        ) || next["role"] == "assistant"
    });
    ensure(follows, "input", || {
        let id = word(&item["id"]);
        format!("Item '{id}' of type 'reasoning' was provided without its required following item.")
    })
}

fn call(item: &Value, kind: &str, place: &str) -> Checked {
    let id = word(&item["call_id"]);
    ensure(
        (1..=64).contains(&id.len()),
        &format!("{place}.call_id"),
        || format!("Invalid '{place}.call_id': a string of 1 to 64 characters is expected."),
    )?;
    ensure(
        plain_name(word(&item["name"]), 64),
        &format!("{place}.name"),
        || format!("Invalid '{place}.name': string does not match pattern '^[a-zA-Z0-9_-]+$'."),
    )?;
    let said = if kind == "function_call" {
        "arguments"
    } else {
        "input"
    };
    ensure(item[said].is_string(), &format!("{place}.{said}"), || {
        format!("Missing required parameter: '{place}.{said}'.")
    })
}

fn output(output: &Value, place: &str) -> Checked {
    match output {
        Value::String(_) => Ok(()),
        Value::Array(all) => {
            let kinds = ["input_text", "input_image", "input_file"];
            parts(all, &kinds, &format!("{place}.output"))
        }
        _ => Err(Fault::new(
            format!("{place}.output"),
            format!("Missing required parameter: '{place}.output'."),
        )),
    }
}
