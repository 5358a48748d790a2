//! What a client declares that the model may call.

use std::borrow::Cow;

use crate::protocol::ir::{
    Function, HostedTool, HostedToolKind, Invalid, Tool, ToolChoice, WebSearch,
};
use crate::protocol::json::{Str, Value};

use super::{Fields, mark};

/// `tools`, or the legacy `functions` where there are none.
pub(super) fn decode<'a>(body: &Fields<'a>) -> Result<Vec<Tool<'a>>, Invalid> {
    if body.some("tools").is_some() {
        return body.objects("tools")?.iter().map(tool).collect();
    }
    let functions = body.objects("functions")?;
    let functions = functions.iter().map(|one| function(one, one));
    functions.map(|read| read.map(Tool::Function)).collect()
}

/// Whether one of them takes free text.
pub(super) fn any_custom(tools: &[Tool<'_>]) -> bool {
    tools.iter().any(|tool| matches!(tool, Tool::Custom { .. }))
}

fn tool<'a>(entry: &Fields<'a>) -> Result<Tool<'a>, Invalid> {
    let kind = entry.string("type")?;
    let kind = kind.as_ref().map_or(Cow::Borrowed("function"), Str::plain);
    match kind.as_ref() {
        "function" => match entry.object("function")? {
            Some(inner) => function(entry, &inner).map(Tool::Function),
            None => function(entry, entry).map(Tool::Function),
        },
        "custom" => {
            let inner = entry.object("custom")?;
            let inner = inner.as_ref().unwrap_or(entry);
            Ok(Tool::Custom {
                name: inner.wanted("name")?,
                description: inner.string("description")?,
                format: inner.raw_object("format")?,
            })
        }
        kind => Ok(Tool::Hosted(HostedTool {
            kind: hosted(kind, entry)?,
            name: entry.wanted("type")?,
            path: entry.place().to_owned(),
        })),
    }
}

fn function<'a>(entry: &Fields<'a>, inner: &Fields<'a>) -> Result<Function<'a>, Invalid> {
    Ok(Function {
        name: inner.wanted("name")?,
        namespace: None,
        description: inner.string("description")?,
        schema: inner.raw_object("parameters")?,
        strict: inner.flag("strict")?,
        cache: mark(entry).or_else(|| mark(inner)),
    })
}

fn hosted<'a>(kind: &str, entry: &Fields<'a>) -> Result<HostedToolKind<'a>, Invalid> {
    Ok(match kind.strip_prefix("openrouter:").unwrap_or(kind) {
        kind if kind.starts_with("web_search") => HostedToolKind::WebSearch(web_search(entry)?),
        kind if kind.starts_with("web_fetch") || kind == "url_context" => HostedToolKind::WebFetch,
        kind if kind.starts_with("code_") => HostedToolKind::Code,
        // With the tool goes all that is said of it.
        "file_search" | "image_generation" | "tool_search" | "datetime" => {
            entry.value.whole();
            HostedToolKind::Droppable
        }
        _ => {
            entry.value.whole();
            HostedToolKind::Bound
        }
    })
}

/// Options of a web search, as an option of the request or in a tool.
pub(super) fn web_search<'a>(entry: &Fields<'a>) -> Result<WebSearch<'a>, Invalid> {
    let filters = entry.object("filters")?;
    let inner = filters.as_ref().unwrap_or(entry);
    let location = entry.object("user_location")?;
    let location = location.map(|location| match location.some("approximate") {
        Some(inner) => inner.raw(),
        None => location.value.raw(),
    });
    Ok(WebSearch {
        allowed: inner.strings("allowed_domains")?,
        blocked: inner.strings("blocked_domains")?,
        location,
        max_uses: entry.count("max_uses")?,
        context_size: entry.string("search_context_size")?,
    })
}

/// `tool_choice`, or the legacy `function_call`.
pub(super) fn choice<'a>(body: &Fields<'a>) -> Result<Option<ToolChoice<'a>>, Invalid> {
    let legacy = body.some("tool_choice").is_none();
    let name = if legacy {
        "function_call"
    } else {
        "tool_choice"
    };
    let Some(value) = body.some(name) else {
        return Ok(None);
    };
    if let Some(word) = value.as_str() {
        return of_word(&word, name).map(Some);
    }
    let choice = Fields::at(value, name.to_owned())?;
    if legacy {
        return choice.wanted("name").map(ToolChoice::Named).map(Some);
    }
    of_object(&choice).map(Some)
}

fn of_word<'a>(word: &Str<'_>, path: &str) -> Result<ToolChoice<'a>, Invalid> {
    match word.plain().as_ref() {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" | "any" => Ok(ToolChoice::Required),
        other => {
            let message = format!("'{other}' is no {path}; use auto, none or required");
            Err(Invalid::request(path, message))
        }
    }
}

fn of_object<'a>(choice: &Fields<'a>) -> Result<ToolChoice<'a>, Invalid> {
    let kind = choice.wanted("type")?;
    let word = kind.to_plain_string();
    match word.as_str() {
        "function" | "custom" => {
            let nameless = || Invalid::request(choice.path("function.name"), "no tool is named");
            named(choice.value)
                .map(ToolChoice::Named)
                .ok_or_else(nameless)
        }
        "allowed_tools" => {
            let inner = choice.object("allowed_tools")?;
            let inner = inner.as_ref().unwrap_or(choice);
            let mode = inner.string("mode")?;
            let tools = inner.list("tools")?;
            Ok(ToolChoice::Allowed {
                required: mode.is_some_and(|mode| mode.is("required")),
                names: tools.into_iter().filter_map(named).collect(),
            })
        }
        "auto" | "none" | "required" | "any" => of_word(&kind, "tool_choice"),
        _ => Ok(ToolChoice::Hosted(kind)),
    }
}

/// The name in a reference to a tool, nested or flat.
fn named(value: Value<'_>) -> Option<Str<'_>> {
    let inner = value.some("function").or_else(|| value.some("custom"));
    inner.unwrap_or(value).some("name")?.as_str()
}
