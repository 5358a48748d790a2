//! What Anthropic refuses.

use std::collections::HashSet;

use serde_json::Value;

use super::super::answer::{is_signature_of, is_signed};
use super::place::stranger;
use super::{Checked, Fault, ensure, list, plain_name, word};

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "cache_control",
    "context_management",
    "mcp_servers",
    "max_tokens",
    "metadata",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "service_tier",
    "container",
    "inference_geo",
    "speed",
];
/// Of [`FIELDS`], those that a question for tokens has.
const COUNTED: usize = 10;

/// Members of a block, by its type. Blocks of hosted tools are not looked into.
fn members(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "text" => &["type", "text", "cache_control", "citations"],
        "image" => &["type", "source", "cache_control"],
        "document" => &[
            "type",
            "source",
            "title",
            "context",
            "citations",
            "cache_control",
        ],
        "tool_use" => &["type", "id", "name", "input", "cache_control", "caller"],
        "tool_result" => &[
            "type",
            "tool_use_id",
            "content",
            "is_error",
            "cache_control",
        ],
        "thinking" => &["type", "thinking", "signature"],
        "redacted_thinking" => &["type", "data"],
        "search_result" => &[
            "type",
            "source",
            "title",
            "content",
            "citations",
            "cache_control",
        ],
        _ => return None,
    })
}

/// Whether only the assistant, only the user, or both may say it.
fn said_by(kind: &str) -> &'static [&'static str] {
    match kind {
        "text" => &["user", "assistant"],
        "tool_use"
        | "thinking"
        | "redacted_thinking"
        | "server_tool_use"
        | "web_search_tool_result"
        | "code_execution_tool_result" => &["assistant"],
        "image" | "document" | "tool_result" | "search_result" => &["user"],
        _ => &[],
    }
}

pub(super) fn check(body: &Value, count: bool) -> Checked {
    let known = if count { &FIELDS[..COUNTED] } else { FIELDS };
    if let Some(name) = stranger(body, known) {
        return Err(Fault::new(name, "Extra inputs are not permitted"));
    }
    if !count {
        limits(body)?;
    }
    thinking(body, count)?;
    tools(body)?;
    match &body["system"] {
        Value::Array(blocks) => {
            for (at, block) in blocks.iter().enumerate() {
                text(block, &format!("system.{at}"))?;
            }
        }
        Value::Null | Value::String(_) => {}
        _ => return Err(Fault::new("system", "Input should be a valid list")),
    }
    turns(body)
}

fn limits(body: &Value) -> Checked {
    let most = body["max_tokens"].as_u64().unwrap_or(0);
    ensure(most >= 1, "max_tokens", || {
        "Input should be greater than or equal to 1".into()
    })?;
    if let Some(temperature) = body.get("temperature") {
        let range = 0.0..=1.0;
        let holds = temperature.as_f64().is_some_and(|t| range.contains(&t));
        ensure(holds, "temperature", || "range: 0..1".into())?;
    }
    for (at, stop) in list(&body["stop_sequences"]).iter().enumerate() {
        ensure(!word(stop).trim().is_empty(), "stop_sequences", || {
            format!("each stop sequence must contain non-whitespace, index {at}")
        })?;
    }
    Ok(())
}

fn thinking(body: &Value, count: bool) -> Checked {
    let order = &body["thinking"];
    let kind = word(&order["type"]);
    if order.is_null() || kind == "disabled" {
        return Ok(());
    }
    let known: &[&str] = match kind {
        "enabled" => &["type", "budget_tokens", "display"],
        "adaptive" => &["type", "display"],
        _ => {
            return Err(Fault::new(
                "thinking",
                "Input tag does not match any of the expected tags",
            ));
        }
    };
    if let Some(name) = stranger(order, known) {
        let place = format!("thinking.{kind}.{name}");
        return Err(Fault::new(place, "Extra inputs are not permitted"));
    }
    if kind == "enabled" {
        let budget = order["budget_tokens"].as_u64().unwrap_or(0);
        ensure(budget >= 1024, "thinking.enabled.budget_tokens", || {
            "Input should be greater than or equal to 1024".into()
        })?;
        let most = body["max_tokens"].as_u64().unwrap_or(0);
        ensure(count || budget < most, "max_tokens", || {
            "`max_tokens` must be greater than `thinking.budget_tokens`".into()
        })?;
    }
    let free = body["temperature"].is_null() || body["temperature"].as_f64() == Some(1.0);
    ensure(free, "temperature", || {
        "`temperature` may only be set to 1 when thinking is enabled".into()
    })?;
    ensure(body["top_k"].is_null(), "top_k", || {
        "`top_k` must be unset when thinking is enabled".into()
    })?;
    let forced = matches!(word(&body["tool_choice"]["type"]), "any" | "tool");
    ensure(!forced, "", || {
        "Thinking may not be enabled when tool_choice forces tool use.".into()
    })
}

fn tools(body: &Value) -> Checked {
    let mut names = HashSet::new();
    for (at, tool) in list(&body["tools"]).iter().enumerate() {
        let name = word(&tool["name"]);
        ensure(names.insert(name), "tools", || {
            "Tool names must be unique.".into()
        })?;
        if !matches!(tool.get("type").map(word), None | Some("custom")) {
            continue;
        }
        let place = format!("tools.{at}.custom.name");
        ensure(plain_name(name, 128), &place, || {
            "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'".into()
        })?;
        let place = format!("tools.{at}.custom.input_schema.type");
        ensure(tool["input_schema"]["type"] == "object", &place, || {
            "Input should be 'object'".into()
        })?;
    }
    let choice = &body["tool_choice"];
    ensure(choice.is_null() || !names.is_empty(), "tool_choice", || {
        "tool_choice may only be specified while providing tools".into()
    })?;
    let named = word(&choice["type"]) != "tool" || names.contains(word(&choice["name"]));
    ensure(named, "tool_choice", || {
        "Tool not found in provided tools".into()
    })
}

fn text(block: &Value, place: &str) -> Checked {
    ensure(!word(&block["text"]).trim().is_empty(), place, || {
        "text content blocks must contain non-whitespace text".into()
    })
}

fn turns(body: &Value) -> Checked {
    let turns = list(&body["messages"]);
    ensure(!turns.is_empty(), "messages", || {
        "at least one message is required".into()
    })?;
    let mut ids = HashSet::new();
    let mut waiting: Vec<&str> = Vec::new();
    for (at, turn) in turns.iter().enumerate() {
        let role = word(&turn["role"]);
        let place = format!("messages.{at}");
        ensure(matches!(role, "user" | "assistant"), &place, || {
            "role: Input should be 'user' or 'assistant'".into()
        })?;
        if let Some(name) = stranger(turn, &["role", "content"]) {
            let place = format!("{place}.{name}");
            return Err(Fault::new(place, "Extra inputs are not permitted"));
        }
        if let Value::String(said) = &turn["content"] {
            ensure(!said.trim().is_empty(), &place, || {
                "user messages must have non-empty content".into()
            })?;
        }
        let blocks = list(&turn["content"]);
        ensure(
            turn["content"].is_string() || !blocks.is_empty(),
            &place,
            || "all messages must have non-empty content".into(),
        )?;
        results(blocks, &mut waiting, &place)?;
        for (number, block) in blocks.iter().enumerate() {
            check_block(block, role, &format!("{place}.content.{number}"))?;
        }
        let calls = blocks.iter().filter(|block| block["type"] == "tool_use");
        waiting = calls.map(|call| word(&call["id"])).collect();
        for id in &waiting {
            ensure(ids.insert(*id), &place, || {
                "`tool_use` ids must be unique".into()
            })?;
        }
    }
    ensure(waiting.is_empty(), "messages", || unanswered(&waiting))?;
    last(body, turns)
}

fn unanswered(ids: &[&str]) -> String {
    format!(
        "`tool_use` ids were found without `tool_result` blocks immediately after: {}. Each \
         `tool_use` block must have a corresponding `tool_result` block in the next message.",
        ids.join(", ")
    )
}

/// Each call of the turn before is answered, first of all, and nothing else is.
fn results(blocks: &[Value], waiting: &mut Vec<&str>, place: &str) -> Checked {
    let mut others = false;
    for block in blocks {
        if block["type"] != "tool_result" {
            others = true;
            continue;
        }
        let id = word(&block["tool_use_id"]);
        let known = waiting.iter().position(|waiting| *waiting == id);
        let Some(known) = known else {
            let message = format!(
                "unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` \
                 block must have a corresponding `tool_use` block in the previous message."
            );
            return Err(Fault::new(place, message));
        };
        ensure(!others, place, || unanswered(waiting))?;
        waiting.remove(known);
    }
    ensure(waiting.is_empty(), place, || unanswered(waiting))
}

fn check_block(block: &Value, role: &str, place: &str) -> Checked {
    let kind = word(&block["type"]);
    ensure(said_by(kind).contains(&role), place, || {
        format!("Input tag '{kind}' found using 'type' does not match any of the expected tags")
    })?;
    if let Some(name) = members(kind).and_then(|known| stranger(block, known)) {
        let place = format!("{place}.{kind}.{name}");
        return Err(Fault::new(place, "Extra inputs are not permitted"));
    }
    match kind {
        "text" => text(block, place),
        "tool_use" => {
            ensure(
                plain_name(word(&block["id"]), 64),
                &format!("{place}.tool_use.id"),
                || "String should match pattern '^[a-zA-Z0-9_-]+$'".into(),
            )?;
            ensure(
                plain_name(word(&block["name"]), 200),
                &format!("{place}.tool_use.name"),
                || "String should match pattern '^[a-zA-Z0-9_-]{1,200}$'".into(),
            )?;
            ensure(
                block["input"].is_object(),
                &format!("{place}.tool_use.input"),
                || "Input should be a valid dictionary".into(),
            )
        }
        "thinking" => {
            let signature = word(&block["signature"]);
            let own = is_signature_of("messages", word(&block["thinking"]), signature);
            ensure(own, place, || {
                "Invalid `signature` in `thinking` block".into()
            })
        }
        "redacted_thinking" => ensure(is_signed("messages", word(&block["data"])), place, || {
            "Invalid `data` in `redacted_thinking` block".into()
        }),
        "tool_result" => {
            for (at, inner) in list(&block["content"]).iter().enumerate() {
                let kind = word(&inner["type"]);
                let place = format!("{place}.tool_result.content.{at}");
                ensure(
                    matches!(kind, "text" | "image" | "document" | "search_result"),
                    &place,
                    || format!("Input tag '{kind}' does not match any of the expected tags"),
                )?;
                check_block(inner, "user", &place)?;
            }
            Ok(())
        }
        "image" => image(&block["source"], place),
        _ => Ok(()),
    }
}

fn image(source: &Value, place: &str) -> Checked {
    let sound = match word(&source["type"]) {
        "base64" => {
            let kind = word(&source["media_type"]);
            matches!(
                kind,
                "image/png" | "image/jpeg" | "image/gif" | "image/webp"
            ) && !word(&source["data"]).is_empty()
        }
        "url" => word(&source["url"]).starts_with("https://"),
        "file" => true,
        _ => false,
    };
    ensure(sound, place, || {
        "image.source: the image could not be read".into()
    })
}

/// A last turn of the assistant, and the thinking that must stand before calls.
fn last(body: &Value, turns: &[Value]) -> Checked {
    let Some(last) = turns.last().filter(|turn| turn["role"] == "assistant") else {
        return begins_with_thinking(body, turns);
    };
    let text = match &last["content"] {
        Value::String(text) => text,
        blocks => word(&list(blocks).last().unwrap_or(&Value::Null)["text"]),
    };
    ensure(text.trim_end() == text, "messages", || {
        "final assistant content cannot end with trailing whitespace".into()
    })
}

fn begins_with_thinking(body: &Value, turns: &[Value]) -> Checked {
    if body["thinking"]["type"] != "enabled" {
        return Ok(());
    }
    let asked = |turn: &Value| {
        let results = list(&turn["content"]);
        turn["role"] == "user" && !results.iter().any(|block| block["type"] == "tool_result")
    };
    let from = turns.iter().rposition(asked).unwrap_or(0);
    let Some(turn) = turns[from..]
        .iter()
        .find(|turn| turn["role"] == "assistant")
    else {
        return Ok(());
    };
    let first = word(&list(&turn["content"]).first().unwrap_or(&Value::Null)["type"]);
    ensure(
        matches!(first, "thinking" | "redacted_thinking"),
        "messages",
        || {
            format!(
                "Expected `thinking` or `redacted_thinking`, but found `{first}`. When `thinking` is \
             enabled, a final `assistant` message must start with a thinking block."
            )
        },
    )
}
