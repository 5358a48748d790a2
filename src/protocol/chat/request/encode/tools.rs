//! Tools, and which of them must be called.

use bytes::BytesMut;

use crate::protocol::ir::{
    Function, HostedTool, HostedToolKind, Invalid, Tool, ToolChoice, WebSearch,
};
use crate::protocol::json::{Array, Object, Raw, Str, Tape};
use crate::protocol::notes::{Action, Field};
use crate::protocol::schema;

use super::{Scope, format};

/// Writes tools, tool choice and what goes with them; true when a tool must be
/// called.
pub(super) fn write(scope: &mut Scope<'_, '_>, body: &mut Object<'_>) -> Result<bool, Invalid> {
    let request = scope.request;
    let hosted = hosted(scope)?;
    if let Some(search) = hosted {
        web_search(scope, search, body);
    }
    let kept: Vec<&Tool<'_>> = request
        .tools
        .iter()
        .filter(|tool| is_kept(scope, tool))
        .collect();
    if kept.is_empty() {
        return Ok(false);
    }
    let mut tools = body.array("tools");
    for tool in &kept {
        match tool {
            Tool::Function(one) => function(scope, one, &mut tools),
            Tool::Custom {
                name,
                description,
                format,
            } => custom(
                scope,
                name,
                description.as_ref(),
                format.as_ref(),
                &mut tools,
            ),
            Tool::Hosted(_) => {}
        }
    }
    drop(tools);
    if let Some(parallel) = request.parallel {
        body.bool("parallel_tool_calls", parallel);
    }
    choice(scope, body);
    Ok(matches!(
        request.tool_choice,
        Some(
            ToolChoice::Required
                | ToolChoice::Named(_)
                | ToolChoice::Allowed { required: true, .. }
        )
    ))
}

/// Fits the declared names before those of the history, so that a name that is
/// only remembered never takes the place of one that is offered.
pub(super) fn fit_names(scope: &mut Scope<'_, '_>) {
    let request = scope.request;
    for tool in &request.tools {
        match tool {
            Tool::Function(one) => _ = scope.tool_name(&one.name, one.namespace.as_ref()),
            Tool::Custom { name, .. } => _ = scope.tool_name(name, None),
            Tool::Hosted(_) => {}
        }
    }
}

/// A declaration that is written: functions and custom tools, those of an allowed
/// set only where the provider doesn't know such sets.
fn is_kept(scope: &Scope<'_, '_>, tool: &Tool<'_>) -> bool {
    let name = match tool {
        Tool::Function(function) => &function.name,
        Tool::Custom { name, .. } => name,
        Tool::Hosted(_) => return false,
    };
    match &scope.request.tool_choice {
        Some(ToolChoice::Allowed { names, .. }) if !scope.is_openai() => names.contains(name),
        _ => true,
    }
}

/// Looks through the hosted tools: the web search that is kept, if any; the others
/// are left out with a note, or refused.
fn hosted<'s, 'a>(scope: &mut Scope<'s, 'a>) -> Result<Option<&'s WebSearch<'a>>, Invalid> {
    let request = scope.request;
    let searches = scope.target.capabilities.web_search;
    let mut search = request.web_search.as_ref().filter(|_| searches);
    if request.web_search.is_some() && !searches {
        scope.drop(Field::WebSearch);
    }
    let only = request
        .tools
        .iter()
        .all(|tool| matches!(tool, Tool::Hosted(_)));
    let forced = match &request.tool_choice {
        Some(ToolChoice::Hosted(name)) => Some(name),
        _ => None,
    };
    let mut left_out = None;
    for tool in &request.tools {
        let Tool::Hosted(tool) = tool else {
            continue;
        };
        match &tool.kind {
            HostedToolKind::WebSearch(options) if searches => search = Some(options),
            HostedToolKind::Bound => return Err(refusal(scope, tool)),
            _ => {
                let name = tool.name.to_plain_string();
                scope
                    .notes
                    .warn_at(Action::Dropped, name, tool.path.clone());
                left_out = Some(tool);
            }
        }
    }
    if let Some(name) = forced {
        return Err(Invalid::unsupported(
            "unsupported_tool",
            scope.path(Field::ToolChoice),
            format!(
                "tool_choice names '{}', which can't be forced over chat",
                name.plain()
            ),
        ));
    }
    match left_out {
        Some(tool) if only && search.is_none() => Err(refusal(scope, tool)),
        _ => Ok(search),
    }
}

fn refusal(scope: &Scope<'_, '_>, tool: &HostedTool<'_>) -> Invalid {
    let (origin, model) = (scope.request.origin, &scope.request.model);
    Invalid::unsupported(
        "unsupported_tool",
        tool.path.clone(),
        format!(
            "Tool \"{}\" is specific to the {origin} protocol and the model \"{}\" is served over chat. \
             Use a model on a {origin} upstream, or remove the tool.",
            tool.name.plain(),
            model.plain(),
        ),
    )
}

fn web_search(scope: &mut Scope<'_, '_>, search: &WebSearch<'_>, body: &mut Object<'_>) {
    let domains = !search.allowed.is_empty() || !search.blocked.is_empty();
    if domains {
        let what = "web_search.domains";
        scope
            .notes
            .warn_at(Action::Dropped, what, scope.path(Field::WebSearch));
    }
    if search.max_uses.is_some() {
        let what = "web_search.max_uses";
        scope
            .notes
            .warn_at(Action::Dropped, what, scope.path(Field::WebSearch));
    }
    let mut options = body.object("web_search_options");
    if let Some(size) = &search.context_size {
        options.str("search_context_size", size);
    }
    if let Some(location) = &search.location {
        let mut outer = options.object("user_location");
        outer.text("type", "approximate");
        let mut inner = outer.object("approximate");
        place(location, &mut inner);
    }
}

/// The four things that make a place.
fn place(location: &Raw<'_>, object: &mut Object<'_>) {
    let mut tape = Tape::new();
    let Ok(location) = tape.parse(location.as_str()) else {
        return;
    };
    for name in ["city", "country", "region", "timezone"] {
        if let Some(text) = location.some(name).and_then(|value| value.as_str()) {
            object.str(name, &text);
        }
    }
}

fn function(scope: &mut Scope<'_, '_>, one: &Function<'_>, tools: &mut Array<'_>) {
    if one.cache.is_some() {
        scope.drop_hint(Field::CacheMark);
    }
    let name = scope.tool_name(&one.name, one.namespace.as_ref());
    let path = scope.path(Field::Tools);
    // Looking costs more than all else that is done to a tool.
    let able = one.strict == Some(true) && one.schema.as_ref().is_some_and(schema::is_strict);
    let strict = match one.strict {
        Some(true) if !scope.target.capabilities.strict_tools && !scope.is_openai() => {
            let what = format!("{path}.strict");
            scope.notes.warn_at(Action::Dropped, what, path);
            None
        }
        strict => format::strictness(scope, strict, able, path),
    };
    let mut tool = tools.object();
    tool.text("type", "function");
    let mut inner = tool.object("function");
    inner.text("name", &name);
    if let Some(description) = &one.description {
        inner.str("description", description);
    }
    match &one.schema {
        Some(schema) => _ = inner.raw("parameters", schema),
        None => {
            let mut schema = inner.object("parameters");
            schema.text("type", "object");
            schema.object("properties");
        }
    }
    if let Some(strict) = strict.filter(|strict| *strict || scope.is_openai()) {
        inner.bool("strict", strict);
    }
}

/// A tool that takes free text: OpenAI's own form, or a function of one string.
fn custom(
    scope: &mut Scope<'_, '_>,
    name: &Str<'_>,
    description: Option<&Str<'_>>,
    format: Option<&Raw<'_>>,
    tools: &mut Array<'_>,
) {
    let name = scope.tool_name(name, None);
    let mut tool = tools.object();
    if scope.is_openai() {
        tool.text("type", "custom");
        let mut inner = tool.object("custom");
        inner.text("name", &name);
        if let Some(description) = description {
            inner.str("description", description);
        }
        if let Some(format) = format {
            inner.raw("format", format);
        }
        return;
    }
    tool.text("type", "function");
    let mut inner = tool.object("function");
    inner.text("name", &name);
    let mut words = description.map(Str::to_plain_string).unwrap_or_default();
    if let Some(grammar) = format.and_then(grammar) {
        words.push_str("\n\nThe input must match this grammar:\n");
        words.push_str(&grammar);
    }
    if !words.is_empty() {
        inner.text("description", words.trim_start());
    }
    free_text_schema(inner.key("parameters"));
    drop(inner);
    drop(tool);
    scope.fixups.custom.push(name);
}

fn free_text_schema(out: &mut BytesMut) {
    out.extend_from_slice(
        br#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#,
    );
}

/// The grammar of a custom tool's format: flat as in Responses, or nested.
fn grammar(format: &Raw<'_>) -> Option<String> {
    let mut tape = Tape::new();
    let format = tape.parse(format.as_str()).ok()?;
    let inner = format.some("grammar").filter(|inner| inner.is_object());
    let definition = inner.unwrap_or(format).some("definition")?;
    Some(definition.as_str()?.to_plain_string())
}

fn choice(scope: &mut Scope<'_, '_>, body: &mut Object<'_>) {
    let request = scope.request;
    match &request.tool_choice {
        None | Some(ToolChoice::Hosted(_)) => {}
        Some(ToolChoice::Auto) => _ = body.text("tool_choice", "auto"),
        Some(ToolChoice::None) => _ = body.text("tool_choice", "none"),
        Some(ToolChoice::Required) => _ = body.text("tool_choice", "required"),
        Some(ToolChoice::Named(name)) => {
            let mut choice = body.object("tool_choice");
            reference(scope, name, &mut choice);
        }
        Some(ToolChoice::Allowed { required, names }) => {
            let mode = if *required { "required" } else { "auto" };
            if !scope.is_openai() {
                body.text("tool_choice", mode);
                return;
            }
            let mut choice = body.object("tool_choice");
            choice.text("type", "allowed_tools");
            let mut allowed = choice.object("allowed_tools");
            allowed.text("mode", mode);
            let mut tools = allowed.array("tools");
            for name in names {
                reference(scope, name, &mut tools.object());
            }
        }
    }
}

/// A tool by its name, in the form of its declaration.
fn reference(scope: &mut Scope<'_, '_>, name: &Str<'_>, object: &mut Object<'_>) {
    let mut namespace = None;
    let mut custom = false;
    for tool in &scope.request.tools {
        match tool {
            Tool::Function(function) if function.name == *name => {
                namespace = function.namespace.as_ref();
            }
            Tool::Custom { name: own, .. } if own == name => custom = true,
            _ => {}
        }
    }
    let fitted = scope.tool_name(name, namespace);
    let word = if custom && scope.is_openai() {
        "custom"
    } else {
        "function"
    };
    object.text("type", word);
    object.object(word).text("name", &fitted);
}
