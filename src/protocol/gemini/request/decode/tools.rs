//! What the model may call, and whether it must.

use super::wrong;
use crate::protocol::gemini::spelling::{camel, find, text};
use crate::protocol::ir::{
    Function, HostedTool, HostedToolKind, Invalid, Tool, ToolChoice, WebSearch,
};
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};
use crate::protocol::schema;

/// Reads `tools`: a list, or one tool.
pub(super) fn decode<'a>(value: Value<'a>, notes: &mut Notes) -> Result<Vec<Tool<'a>>, Invalid> {
    let one = value.is_object().then_some(value);
    if one.is_none() && !value.is_array() {
        return Err(wrong("tools", "an array", value));
    }
    let mut tools = Vec::new();
    for (index, tool) in value.items().chain(one).enumerate() {
        for (name, value) in tool.members() {
            if value.is_null() {
                continue;
            }
            let name = camel(&name);
            let path = format!("tools[{index}].{name}");
            if name == "functionDeclarations" {
                let one = value.is_object().then_some(value);
                for (number, declaration) in value.items().chain(one).enumerate() {
                    let path = format!("{path}[{number}]");
                    tools.push(Tool::Function(function(declaration, &path, notes)?));
                }
            } else {
                tools.push(Tool::Hosted(HostedTool {
                    kind: hosted(&name, value, &path, notes),
                    name: Str::from(name.into_owned()),
                    path,
                }));
            }
        }
    }
    Ok(tools)
}

fn function<'a>(
    declaration: Value<'a>,
    path: &str,
    notes: &mut Notes,
) -> Result<Function<'a>, Invalid> {
    let Some(name) = text(declaration, "name") else {
        return Err(Invalid::request(
            format!("{path}.name"),
            "the name is required",
        ));
    };
    let google = find(declaration, "parameters");
    let json = find(declaration, "parametersJsonSchema");
    let schema = match (google, json) {
        (Some(_), Some(_)) => {
            let message = "parameters and parametersJsonSchema exclude each other";
            return Err(Invalid::request(format!("{path}.parameters"), message));
        }
        (Some(google), None) => Some(schema::from_gemini(&google.raw())),
        (None, json) => json.map(|json| json.raw()),
    };
    for told in ["response", "responseJsonSchema", "behavior"] {
        if find(declaration, told).map(Value::whole).is_some() {
            notes.info(Action::Dropped, format!("{path}.{told}"));
        }
    }
    Ok(Function {
        name,
        namespace: None,
        description: text(declaration, "description"),
        schema,
        strict: None,
        cache: None,
    })
}

fn hosted<'a>(name: &str, value: Value<'a>, path: &str, notes: &mut Notes) -> HostedToolKind<'a> {
    match name {
        "googleSearch" | "googleSearchRetrieval" | "enterpriseWebSearch" => {
            for (option, value) in value.members() {
                let option = camel(&option);
                if option != "excludeDomains" {
                    value.whole();
                    notes.warn(Action::Dropped, format!("{path}.{option}"));
                }
            }
            let blocked = find(value, "excludeDomains");
            let blocked = blocked.into_iter().flat_map(|list| list.items());
            HostedToolKind::WebSearch(WebSearch {
                blocked: blocked.filter_map(|domain| domain.as_str()).collect(),
                ..WebSearch::default()
            })
        }
        "urlContext" => HostedToolKind::WebFetch,
        "codeExecution" => HostedToolKind::Code,
        // With the tool goes all that is said of it.
        "computerUse" | "mcpServers" => {
            value.whole();
            HostedToolKind::Bound
        }
        _ => {
            value.whole();
            HostedToolKind::Droppable
        }
    }
}

/// Reads `toolConfig`.
pub(super) fn choice<'a>(
    value: Value<'a>,
    notes: &mut Notes,
) -> Result<Option<ToolChoice<'a>>, Invalid> {
    if find(value, "retrievalConfig").map(Value::whole).is_some() {
        notes.warn(Action::Dropped, "toolConfig.retrievalConfig");
    }
    let Some(config) = find(value, "functionCallingConfig") else {
        return Ok(None);
    };
    let path = "toolConfig.functionCallingConfig";
    let allowed = find(config, "allowedFunctionNames");
    let one = allowed.filter(|allowed| allowed.is_str());
    let mut names: Vec<_> = allowed
        .into_iter()
        .flat_map(|allowed| allowed.items())
        .chain(one)
        .filter_map(|name| name.as_str())
        .collect();
    let mode = text(config, "mode").map(|mode| mode.plain().to_ascii_uppercase());
    Ok(Some(match mode.as_deref() {
        Some("NONE") => ToolChoice::None,
        Some("ANY") => match (names.len(), names.pop()) {
            (1, Some(name)) => ToolChoice::Named(name),
            (_, Some(last)) => {
                names.push(last);
                ToolChoice::Allowed {
                    required: true,
                    names,
                }
            }
            (_, None) => ToolChoice::Required,
        },
        None | Some("AUTO" | "VALIDATED" | "MODE_UNSPECIFIED") if names.is_empty() => {
            ToolChoice::Auto
        }
        None | Some("AUTO" | "VALIDATED" | "MODE_UNSPECIFIED") => ToolChoice::Allowed {
            required: false,
            names,
        },
        Some(other) => {
            let message = format!("expected AUTO, ANY, NONE or VALIDATED, found {other}");
            return Err(Invalid::request(format!("{path}.mode"), message));
        }
    }))
}
