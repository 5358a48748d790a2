//! Tools and the choice among them, as a client declares them.

use std::collections::HashMap;

use crate::protocol::ir::{
    Function, HostedTool, HostedToolKind, Invalid, Tool, ToolChoice, WebSearch,
};
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};

use super::super::item::{filled, string};
use super::decode::{unknown, wanted};

/// Reads a list of tools behind those that are there.
pub(super) fn decode<'a>(
    list: Value<'a>,
    path: &str,
    tools: &mut Vec<Tool<'a>>,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    if !list.is_array() {
        return Err(wanted(path, "an array", list));
    }
    for (index, tool) in list.items().enumerate() {
        let path = format!("{path}[{index}]");
        if tool.is_object() {
            decode_one(tool, path, tools, notes)?;
        } else {
            return Err(wanted(&path, "an object", tool));
        }
    }
    Ok(())
}

fn decode_one<'a>(
    tool: Value<'a>,
    path: String,
    tools: &mut Vec<Tool<'a>>,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    let Some(kind) = filled(tool, "type") else {
        return Err(Invalid::request(format!("{path}.type"), "type is missing"));
    };
    match kind.plain().as_ref() {
        "function" => tools.push(function(tool, None, &path)?),
        "custom" => tools.push(custom(tool, &path)?),
        "namespace" => namespace(tool, &path, tools, notes)?,
        word => {
            let kind_of = hosted(word, tool, &path, notes);
            tools.push(Tool::Hosted(HostedTool {
                kind: kind_of,
                name: kind.clone(),
                path,
            }));
        }
    }
    Ok(())
}

fn name<'a>(tool: Value<'a>, path: &str) -> Result<Str<'a>, Invalid> {
    filled(tool, "name").ok_or_else(|| Invalid::request(format!("{path}.name"), "name is missing"))
}

fn function<'a>(
    tool: Value<'a>,
    namespace: Option<&Str<'a>>,
    path: &str,
) -> Result<Tool<'a>, Invalid> {
    // Chat has it one level deeper; some clients write it so here.
    let tool = tool
        .some("function")
        .filter(Value::is_object)
        .unwrap_or(tool);
    let schema = tool.some("parameters");
    if let Some(schema) = schema.filter(|schema| !schema.is_object()) {
        return Err(wanted(&format!("{path}.parameters"), "an object", schema));
    }
    Ok(Tool::Function(Function {
        name: name(tool, path)?,
        namespace: namespace.cloned(),
        description: filled(tool, "description"),
        schema: schema.filter(|schema| !schema.is_empty()).map(|s| s.raw()),
        strict: tool.some("strict").and_then(|strict| strict.as_bool()),
        cache: None,
    }))
}

fn custom<'a>(tool: Value<'a>, path: &str) -> Result<Tool<'a>, Invalid> {
    Ok(Tool::Custom {
        name: name(tool, path)?,
        description: filled(tool, "description"),
        format: tool.some("format").map(|format| format.raw()),
    })
}

/// A namespace becomes its tools. A custom tool in one loses it: a call of it comes
/// back by its bare name.
fn namespace<'a>(
    tool: Value<'a>,
    path: &str,
    tools: &mut Vec<Tool<'a>>,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    let name = name(tool, path)?;
    let list = tool.some("tools");
    let list = list.into_iter().flat_map(|list| list.items());
    for (index, tool) in list.enumerate() {
        let path = format!("{path}.tools[{index}]");
        let kind = string(tool, "type").unwrap_or(Str::new("function"));
        match kind.plain().as_ref() {
            "function" => tools.push(function(tool, Some(&name), &path)?),
            "custom" => {
                tools.push(custom(tool, &path)?);
                notes.warn_at(Action::Coerced, "tool_namespace", path);
            }
            other => {
                let path = format!("{path}.type");
                return Err(unknown(&path, other, "function or custom"));
            }
        }
    }
    Ok(())
}

/// What a tool that is not the client's own is. Whatever acts on a machine is
/// bound to its protocol; what is unknown is thought to be harmless to go
/// without.
fn hosted<'a>(word: &str, tool: Value<'a>, path: &str, notes: &mut Notes) -> HostedToolKind<'a> {
    const BOUND: [&str; 8] = [
        "computer",
        "browser",
        "shell",
        "local_shell",
        "apply_patch",
        "mcp",
        "bash",
        "text_editor",
    ];
    match word {
        "code_interpreter" => {
            container(tool, path, notes);
            HostedToolKind::Code
        }
        _ if word.starts_with("web_search") => HostedToolKind::WebSearch(web_search(tool)),
        // With the tool goes all that is said of it.
        _ if BOUND.iter().any(|bound| word.starts_with(bound)) => {
            tool.whole();
            HostedToolKind::Bound
        }
        _ => {
            tool.whole();
            HostedToolKind::Droppable
        }
    }
}

/// Where code is to run: elsewhere there is but a fresh place for each answer.
fn container(tool: Value<'_>, path: &str, notes: &mut Notes) {
    let container = tool.some("container");
    let fresh = container.is_none_or(|it| it.some("type").is_some());
    if !fresh {
        notes.warn(Action::Dropped, format!("{path}.container"));
    }
}

fn web_search(tool: Value<'_>) -> WebSearch<'_> {
    let filters = tool.some("filters");
    let domains = |name| {
        let list = filters.and_then(|filters| filters.some(name));
        let list = list.into_iter().flat_map(|list| list.items());
        list.filter_map(|domain| domain.as_str()).collect()
    };
    WebSearch {
        allowed: domains("allowed_domains"),
        blocked: domains("blocked_domains"),
        location: tool.some("user_location").map(|place| place.raw()),
        max_uses: None,
        context_size: filled(tool, "search_context_size"),
    }
}

/// Whether and what the model must call.
pub(super) fn choice(value: Value<'_>) -> Result<ToolChoice<'_>, Invalid> {
    if let Some(word) = value.as_str() {
        return match word.plain().as_ref() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" => Ok(ToolChoice::Required),
            other => Err(unknown(
                "tool_choice",
                other,
                "auto, none, required or an object",
            )),
        };
    }
    let Some(kind) = filled(value, "type") else {
        return Err(wanted(
            "tool_choice",
            "a word or an object with a type",
            value,
        ));
    };
    match kind.plain().as_ref() {
        "function" | "custom" => {
            let inner = value.some("function").filter(Value::is_object);
            Ok(ToolChoice::Named(name(
                inner.unwrap_or(value),
                "tool_choice",
            )?))
        }
        "allowed_tools" => allowed(value),
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" | "any" => Ok(ToolChoice::Required),
        _ => Ok(ToolChoice::Hosted(kind.clone())),
    }
}

fn allowed(value: Value<'_>) -> Result<ToolChoice<'_>, Invalid> {
    let inner = value.some("allowed_tools").filter(Value::is_object);
    let value = inner.unwrap_or(value);
    let mode = string(value, "mode").unwrap_or(Str::new("auto"));
    let Some(list) = value.some("tools").filter(Value::is_array) else {
        return Err(Invalid::request("tool_choice.tools", "expected an array"));
    };
    let named = |tool| filled(tool, "name").or_else(|| filled(tool, "type"));
    Ok(ToolChoice::Allowed {
        required: mode.is("required"),
        names: list.items().filter_map(named).collect(),
    })
}

/// A tool that is declared twice, at the top and by an item of the conversation,
/// is what was said last, in the place where it was said first.
pub(super) fn deduplicate(tools: &mut Vec<Tool<'_>>) {
    let mut seen = HashMap::new();
    let mut kept = Vec::with_capacity(tools.len());
    for tool in tools.drain(..) {
        let key = match &tool {
            Tool::Function(function) => (
                function.namespace.as_ref().map(Str::to_plain_string),
                function.name.to_plain_string(),
            ),
            Tool::Custom { name, .. } => (None, name.to_plain_string()),
            Tool::Hosted(hosted) => (Some("\0".to_owned()), hosted.name.to_plain_string()),
        };
        match seen.entry(key) {
            std::collections::hash_map::Entry::Occupied(place) => {
                if let Some(old) = kept.get_mut(*place.get()) {
                    *old = tool;
                }
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(tool);
            }
        }
    }
    *tools = kept;
}
