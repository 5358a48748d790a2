//! The tools of a request in Messages, and what is said about calling them.

use crate::protocol::ir::{
    Function, HostedTool, HostedToolKind, Invalid, Request, Tool, ToolChoice, WebSearch,
};
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};

use super::{mark, string, unexpected};

/// Reads `tools`. Servers that the provider is to ask by itself
/// (`mcp_servers`) count as tools that only Messages can say.
pub(super) fn declared<'a>(
    tools: Option<Value<'a>>,
    servers: Option<Value<'a>>,
    notes: &mut Notes,
) -> Result<Vec<Tool<'a>>, Invalid> {
    let mut declared = Vec::new();
    if let Some(tools) = tools {
        if !tools.is_array() {
            return Err(unexpected("tools", "an array", tools));
        }
        for (at, tool) in tools.items().enumerate() {
            declared.push(one(tool, at, notes)?);
        }
    }
    for (at, _) in servers.iter().flat_map(Value::items).enumerate() {
        declared.push(Tool::Hosted(HostedTool {
            kind: HostedToolKind::Bound,
            name: Str::new("mcp"),
            path: format!("mcp_servers[{at}]"),
        }));
    }
    Ok(declared)
}

fn one<'a>(tool: Value<'a>, at: usize, notes: &mut Notes) -> Result<Tool<'a>, Invalid> {
    let kind = match tool.some("type") {
        Some(kind) => Some(string(kind, || format!("tools[{at}].type"))?),
        None => None,
    };
    match kind.filter(|kind| !kind.is("custom") && !kind.is("function")) {
        Some(kind) => Ok(Tool::Hosted(HostedTool {
            kind: hosted(tool, &kind.plain()),
            name: kind,
            path: format!("tools[{at}]"),
        })),
        None => function(tool, at, notes),
    }
}

fn function<'a>(tool: Value<'a>, at: usize, notes: &mut Notes) -> Result<Tool<'a>, Invalid> {
    let path = |name: &str| format!("tools[{at}].{name}");
    let Some(name) = tool.some("name") else {
        let path = path("name");
        return Err(Invalid::request(
            path.clone(),
            format!("{path}: Field required"),
        ));
    };
    let schema = tool.some("input_schema");
    if let Some(schema) = schema.filter(|schema| !schema.is_object()) {
        return Err(unexpected(path("input_schema"), "an object", schema));
    }
    hints(tool, at, notes);
    Ok(Tool::Function(Function {
        name: string(name, || path("name"))?,
        namespace: None,
        description: tool.some("description").and_then(|text| text.as_str()),
        schema: schema.map(|schema| schema.raw()),
        strict: tool.some("strict").and_then(|strict| strict.as_bool()),
        cache: mark(tool),
    }))
}

/// What is said about a function beyond what others have a word for.
fn hints(tool: Value<'_>, at: usize, notes: &mut Notes) {
    for (name, value) in tool.members().filter(|(_, value)| !value.is_null()) {
        match name.plain().as_ref() {
            "name" | "type" | "description" | "input_schema" | "strict" | "cache_control" => {}
            // It is declared at once, which does no harm.
            "defer_loading" | "eager_input_streaming" => {
                notes.info(Action::Dropped, format!("tools[{at}].{}", name.plain()));
            }
            "allowed_callers" if direct(value) => {}
            other => {
                value.whole();
                notes.warn(Action::Dropped, format!("tools[{at}].{other}"));
            }
        }
    }
}

fn direct(callers: Value<'_>) -> bool {
    let is_direct = |caller: Value<'_>| caller.as_str().is_some_and(|caller| caller.is("direct"));
    callers.items().any(is_direct)
}

fn hosted<'a>(tool: Value<'a>, kind: &str) -> HostedToolKind<'a> {
    // The type says as much.
    tool.skip("name");
    match kind {
        kind if kind.starts_with("web_search_") => HostedToolKind::WebSearch(search(tool)),
        kind if kind.starts_with("web_fetch_") => HostedToolKind::WebFetch,
        kind if kind.starts_with("code_execution_") => HostedToolKind::Code,
        // With the tool goes all that is said of it.
        kind if kind.starts_with("tool_search_tool_") => {
            tool.whole();
            HostedToolKind::Droppable
        }
        _ => {
            tool.whole();
            HostedToolKind::Bound
        }
    }
}

fn search<'a>(tool: Value<'a>) -> WebSearch<'a> {
    let domains = |name: &str| -> Vec<Str<'a>> {
        let listed = tool.some(name);
        let listed = listed.iter().flat_map(Value::items);
        listed.filter_map(|domain| domain.as_str()).collect()
    };
    WebSearch {
        allowed: domains("allowed_domains"),
        blocked: domains("blocked_domains"),
        location: tool.some("user_location").map(|place| place.raw()),
        max_uses: tool.some("max_uses").and_then(|uses| uses.as_u64()),
        context_size: None,
    }
}

/// Reads `tool_choice`, once the tools are known.
pub(super) fn choice<'a>(
    value: Option<Value<'a>>,
    request: &mut Request<'a>,
) -> Result<(), Invalid> {
    let Some(value) = value else {
        return Ok(());
    };
    let kind = value.some("type").and_then(|kind| kind.as_str());
    let kind = kind.as_ref().map(Str::plain);
    request.tool_choice = Some(match kind.as_deref() {
        Some("auto") => ToolChoice::Auto,
        Some("any") => ToolChoice::Required,
        Some("none") => ToolChoice::None,
        Some("tool") => {
            let name = super::required(value.some("name"), "tool_choice.name")?;
            named(name, &request.tools)
        }
        _ => {
            let message = "tool_choice.type: expected auto, any, tool or none";
            return Err(Invalid::request("tool_choice.type", message));
        }
    });
    let single = value.some("disable_parallel_tool_use");
    if single.and_then(|single| single.as_bool()) == Some(true) {
        request.parallel = Some(false);
    }
    Ok(())
}

/// A function of that name, or the hosted tool whose type begins with it.
fn named<'a>(name: Str<'a>, tools: &[Tool<'a>]) -> ToolChoice<'a> {
    let plain = name.plain();
    let mut hosted = None;
    for tool in tools {
        match tool {
            Tool::Function(function) if function.name == name => {
                return ToolChoice::Named(function.name.clone());
            }
            Tool::Hosted(tool) if tool.name.plain().starts_with(plain.as_ref()) => {
                hosted = Some(tool.name.clone());
            }
            _ => {}
        }
    }
    match hosted {
        Some(hosted) => ToolChoice::Hosted(hosted),
        None => ToolChoice::Named(name.clone()),
    }
}
