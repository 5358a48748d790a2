//! What OpenAI's Chat Completions refuse.

use serde_json::Value;

use super::super::answer::is_signed;
use super::place::stranger;
use super::{Checked, Fault, ensure, list, plain_name, word};

const FIELDS: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];
/// `reasoning_content` and `reasoning_details` are words of this provider's own.
const MEMBERS: &[&str] = &[
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "refusal",
    "audio",
    "annotations",
    "reasoning_content",
    "reasoning_details",
];

pub(super) fn check(body: &Value) -> Checked {
    if let Some(name) = stranger(body, FIELDS) {
        let message = format!("Unrecognized request argument supplied: {name}");
        return Err(Fault::new(name, message));
    }
    fields(body)?;
    tools(body)?;
    turns(list(&body["messages"]))
}

fn fields(body: &Value) -> Checked {
    let both = body.get("max_tokens").is_some() && body.get("max_completion_tokens").is_some();
    ensure(!both, "max_tokens", || {
        "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.".into()
    })?;
    let options = body["stream_options"].is_null() || body["stream"] == true;
    ensure(options, "stream_options", || {
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.".into()
    })?;
    let number = body
        .get("n")
        .is_none_or(|n| n.is_null() || n.as_u64().is_some_and(|n| n > 0));
    ensure(number, "n", || {
        "Invalid 'n': integer below minimum value.".into()
    })?;
    if let Some(temperature) = body.get("temperature").filter(|value| !value.is_null()) {
        let holds = temperature
            .as_f64()
            .is_some_and(|t| (0.0..=2.0).contains(&t));
        ensure(holds, "temperature", || {
            "Invalid 'temperature': decimal out of range.".into()
        })?;
    }
    ensure(list(&body["stop"]).len() <= 4, "stop", || {
        "Invalid 'stop': array too long. Expected an array with maximum length 4.".into()
    })?;
    let logprobs = body["top_logprobs"].is_null() || body["logprobs"] == true;
    ensure(logprobs, "top_logprobs", || {
        "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.".into()
    })
}

fn tools(body: &Value) -> Checked {
    let tools = list(&body["tools"]);
    if tools.is_empty() {
        ensure(!body["tools"].is_array(), "tools", || {
            "Invalid 'tools': empty array. Expected an array with minimum length 1.".into()
        })?;
        for name in ["tool_choice", "parallel_tool_calls"] {
            ensure(body[name].is_null() || body[name] == "none", name, || {
                format!(
                    "Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
                )
            })?;
        }
    }
    for (at, tool) in tools.iter().enumerate() {
        let kind = word(&tool["type"]);
        let place = format!("tools[{at}].type");
        ensure(matches!(kind, "function" | "custom"), &place, || {
            format!("Invalid value: '{kind}'. Supported values are: 'function' and 'custom'.")
        })?;
        named(
            word(&tool[kind]["name"]),
            &format!("tools[{at}].{kind}.name"),
        )?;
    }
    let choice = word(&body["tool_choice"]["function"]["name"]);
    let known = choice.is_empty() || tools.iter().any(|tool| tool["function"]["name"] == choice);
    ensure(known, "tool_choice", || {
        format!("Invalid value for 'tool_choice': tool '{choice}' not found in 'tools'.")
    })
}

fn named(name: &str, place: &str) -> Checked {
    ensure(plain_name(name, 64), place, || {
        format!(
            "Invalid '{place}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        )
    })
}

fn turns(turns: &[Value]) -> Checked {
    ensure(!turns.is_empty(), "messages", || {
        "Invalid 'messages': empty array. Expected an array with minimum length 1.".into()
    })?;
    let mut waiting: Vec<&str> = Vec::new();
    for (at, turn) in turns.iter().enumerate() {
        let place = format!("messages[{at}]");
        let role = word(&turn["role"]);
        if let Some(name) = stranger(turn, MEMBERS) {
            let place = format!("{place}.{name}");
            return Err(Fault::new(
                place.clone(),
                format!("Unknown parameter: '{place}'."),
            ));
        }
        if role == "tool" {
            let id = word(&turn["tool_call_id"]);
            let Some(known) = waiting.iter().position(|waiting| *waiting == id) else {
                return Err(Fault::new(
                    format!("{place}.role"),
                    "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                ));
            };
            waiting.remove(known);
        } else {
            ensure(waiting.is_empty(), &place, || unanswered(&waiting))?;
        }
        content(turn, role, &place)?;
        reasoning(turn, &place)?;
        if role == "assistant" {
            calls(turn, &place)?;
            waiting = list(&turn["tool_calls"])
                .iter()
                .map(|call| word(&call["id"]))
                .collect();
        }
    }
    ensure(waiting.is_empty(), "messages", || unanswered(&waiting))
}

fn unanswered(ids: &[&str]) -> String {
    format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to \
         each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        ids.join(", ")
    )
}

fn content(turn: &Value, role: &str, place: &str) -> Checked {
    let kinds: &[&str] = match role {
        "system" | "developer" | "tool" => &["text"],
        "user" => &["text", "image_url", "input_audio", "file"],
        "assistant" => &["text", "refusal"],
        "function" => &[],
        _ => {
            let place = format!("{place}.role");
            let message = format!(
                "Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'."
            );
            return Err(Fault::new(place, message));
        }
    };
    let place = format!("{place}.content");
    let parts = match &turn["content"] {
        Value::String(_) => return Ok(()),
        Value::Null => {
            let calls = !list(&turn["tool_calls"]).is_empty() || turn["function_call"].is_object();
            let silent = role == "assistant" && (calls || !turn["refusal"].is_null());
            return ensure(silent, &place, || {
                format!("Invalid value for '{place}': expected a string, got null.")
            });
        }
        Value::Array(parts) if !parts.is_empty() => parts,
        _ => {
            return Err(Fault::new(
                place,
                "Invalid content: a string or an array of parts.",
            ));
        }
    };
    for (at, part) in parts.iter().enumerate() {
        let kind = word(&part["type"]);
        let place = format!("{place}[{at}]");
        ensure(kinds.contains(&kind), &place, || {
            format!("Invalid value: '{kind}'. Supported values are: {kinds:?}.")
        })?;
        let url = word(&part["image_url"]["url"]);
        let sound =
            kind != "image_url" || url.starts_with("data:image/") || url.starts_with("http");
        ensure(sound, &place, || "Invalid image data.".into())?;
        if let Some(name) = stranger(part, &["type", kind, "prompt_cache_breakpoint"]) {
            let place = format!("{place}.{name}");
            return Err(Fault::new(
                place.clone(),
                format!("Unknown parameter: '{place}'."),
            ));
        }
    }
    Ok(())
}

fn calls(turn: &Value, place: &str) -> Checked {
    let calls = list(&turn["tool_calls"]);
    ensure(
        !turn["tool_calls"].is_array() || !calls.is_empty(),
        place,
        || {
            format!(
                "Invalid '{place}.tool_calls': empty array. Expected an array with minimum length 1."
            )
        },
    )?;
    for (at, call) in calls.iter().enumerate() {
        let place = format!("{place}.tool_calls[{at}]");
        let id = word(&call["id"]);
        ensure((1..=40).contains(&id.len()), &format!("{place}.id"), || {
            format!(
                "Invalid '{place}.id': string too long. Expected a string with maximum length 40."
            )
        })?;
        if let Some(name) = stranger(call, &["id", "type", "function", "custom"]) {
            let place = format!("{place}.{name}");
            return Err(Fault::new(
                place.clone(),
                format!("Unknown parameter: '{place}'."),
            ));
        }
        if call["type"] == "function" {
            named(
                word(&call["function"]["name"]),
                &format!("{place}.function.name"),
            )?;
            ensure(call["function"]["arguments"].is_string(), &place, || {
                format!("Invalid type for '{place}.function.arguments': expected a string.")
            })?;
        }
    }
    Ok(())
}

fn reasoning(turn: &Value, place: &str) -> Checked {
    for (at, detail) in list(&turn["reasoning_details"]).iter().enumerate() {
        for name in ["signature", "data"] {
            let opaque = word(&detail[name]);
            let place = format!("{place}.reasoning_details[{at}].{name}");
            ensure(
                opaque.is_empty() || is_signed("chat", opaque),
                &place,
                || "The reasoning could not be verified.".into(),
            )?;
        }
    }
    Ok(())
}
