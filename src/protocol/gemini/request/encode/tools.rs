//! What the model may call, and whether it must.

use std::borrow::Cow;

use bytes::BytesMut;

use super::fitted;
use crate::protocol::capabilities::SchemaMode;
use crate::protocol::filter::Fixups;
use crate::protocol::ir::{
    Function, HostedTool, HostedToolKind, Invalid, Request, Tool, ToolChoice, WebSearch,
};
use crate::protocol::json::{Object, Raw, Str, Tape};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::schema;
use crate::protocol::translate::Target;

/// The schema of a tool that takes free text.
const FREE: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;

/// The tools of a request as Gemini has them.
#[derive(Debug, Default)]
pub(super) struct Toolbox {
    /// Declarations, separated by commas.
    functions: BytesMut,
    /// Names of tools that Google runs.
    hosted: Vec<&'static str>,
    /// The mode of `functionCallingConfig`, and the functions that it is about.
    choice: Option<(&'static str, Vec<String>)>,
    /// Whether functions stand beside tools that Google runs.
    mixed: bool,
}

impl Toolbox {
    /// Puts them together.
    ///
    /// # Errors
    ///
    /// Where a tool can be had nowhere but at its own vendor's, or where nothing is
    /// left of what the client insists on.
    pub(super) fn of(
        request: &Request<'_>,
        target: &Target<'_>,
        notes: &mut Notes,
        fixups: &mut Fixups,
    ) -> Result<Self, Invalid> {
        let mut toolbox = Self::default();
        let mut strict = false;
        for tool in &request.tools {
            match tool {
                Tool::Function(function) if is_allowed(request, &function.name) => {
                    strict |= function.strict == Some(true);
                    toolbox.function(function, target, fixups);
                }
                Tool::Custom {
                    name,
                    description,
                    format,
                } if is_allowed(request, name) => {
                    toolbox.custom(name, description.as_ref(), format.as_ref(), fixups);
                }
                Tool::Function(_) | Tool::Custom { .. } => {}
                Tool::Hosted(tool) => toolbox.host(tool, request, target, notes)?,
            }
        }
        if strict {
            notes.info(Action::Dropped, "tools.strict");
        }
        if let Some(search) = &request.web_search {
            toolbox.search(search, Field::WebSearch.path(request.origin), target, notes);
        }
        toolbox.mix(request, target, notes);
        toolbox.choose(request, notes, fixups)?;
        Ok(toolbox)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.hosted.is_empty()
    }

    /// Writes the members `tools` and `toolConfig`.
    pub(super) fn write(&self, body: &mut Object<'_>) {
        if self.is_empty() {
            return;
        }
        {
            let mut tools = body.array("tools");
            if !self.functions.is_empty() {
                let mut tool = tools.object();
                let out = tool.key("functionDeclarations");
                out.extend_from_slice(b"[");
                out.extend_from_slice(&self.functions);
                out.extend_from_slice(b"]");
            }
            for name in &self.hosted {
                tools.object().object(name);
            }
        }
        if self.choice.is_none() && !self.mixed {
            return;
        }
        let mut config = body.object("toolConfig");
        if let Some((mode, names)) = &self.choice {
            let mut calling = config.object("functionCallingConfig");
            calling.text("mode", mode);
            if !names.is_empty() {
                let mut allowed = calling.array("allowedFunctionNames");
                for name in names {
                    allowed.str(&Str::new(name));
                }
            }
        }
        if self.mixed {
            config.bool("includeServerSideToolInvocations", true);
        }
    }

    fn function(&mut self, function: &Function<'_>, target: &Target<'_>, fixups: &mut Fixups) {
        let name = fitted(
            &mut fixups.names,
            &function.name,
            function.namespace.as_ref(),
        );
        let schema = function.schema.as_ref().map(|schema| {
            let (schema, wrapped) = schema::object_root(schema);
            if wrapped {
                fixups.wrapped.push(name.clone());
            }
            schema
        });
        let description = function.description.as_ref().map(Str::borrowed);
        let mut declaration = Object::open(self.element());
        declaration.text("name", &name);
        declaration.str("description", &description.unwrap_or_default());
        let Some(schema) = schema else {
            return;
        };
        if target.capabilities.schema_mode == SchemaMode::JsonSchema {
            declaration.raw("parametersJsonSchema", &schema::for_gemini(&schema));
        } else if let Some(schema) = schema::for_openapi(&schema) {
            declaration.raw("parameters", &schema);
        }
    }

    fn custom(
        &mut self,
        name: &Str<'_>,
        description: Option<&Str<'_>>,
        format: Option<&Raw<'_>>,
        fixups: &mut Fixups,
    ) {
        let name = fitted(&mut fixups.names, name, None);
        let description = description.map(Str::plain).unwrap_or_default();
        let description = match format.and_then(grammar) {
            Some(grammar) => Cow::Owned(format!("{description}\n\n{grammar}")),
            None => description,
        };
        {
            let mut declaration = Object::open(self.element());
            declaration.text("name", &name);
            declaration.text("description", description.trim_start());
            // Both forms of schema read this one alike.
            let out = declaration.key("parametersJsonSchema");
            out.extend_from_slice(FREE.as_bytes());
        }
        fixups.custom.push(name);
    }

    fn element(&mut self) -> &mut BytesMut {
        if !self.functions.is_empty() {
            self.functions.extend_from_slice(b",");
        }
        &mut self.functions
    }

    fn host(
        &mut self,
        tool: &HostedTool<'_>,
        request: &Request<'_>,
        target: &Target<'_>,
        notes: &mut Notes,
    ) -> Result<(), Invalid> {
        let code = target.capabilities.code_exec;
        match &tool.kind {
            HostedToolKind::WebSearch(search) => self.search(search, &tool.path, target, notes),
            HostedToolKind::WebFetch => self.add("urlContext"),
            HostedToolKind::Code if code => self.add("codeExecution"),
            HostedToolKind::Code | HostedToolKind::Droppable => {
                notes.warn_at(
                    Action::Dropped,
                    tool.name.to_plain_string(),
                    tool.path.clone(),
                );
            }
            HostedToolKind::Bound => {
                return Err(Invalid::unsupported(
                    "unsupported_tool",
                    tool.path.clone(),
                    format!(
                        "Tool \"{}\" is specific to the {} protocol and the model \"{}\" is served over gemini. Use a model on a {} upstream, or remove the tool.",
                        tool.name.plain(),
                        request.origin,
                        request.model.plain(),
                        request.origin,
                    ),
                ));
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &'static str) {
        if !self.hosted.contains(&name) {
            self.hosted.push(name);
        }
    }

    fn search(
        &mut self,
        search: &WebSearch<'_>,
        path: &str,
        target: &Target<'_>,
        notes: &mut Notes,
    ) {
        if !target.capabilities.web_search {
            return notes.warn_at(Action::Dropped, "web_search", path.to_owned());
        }
        let orders = [
            (!search.allowed.is_empty(), "allowed_domains"),
            (!search.blocked.is_empty(), "blocked_domains"),
            (search.location.is_some(), "user_location"),
            (search.max_uses.is_some(), "max_uses"),
        ];
        for (given, what) in orders {
            if given {
                notes.warn_at(Action::Dropped, what, path.to_owned());
            }
        }
        if search.context_size.is_some() {
            notes.info(Action::Dropped, "search_context_size");
        }
        self.add("googleSearch");
    }

    /// Models before the third generation take functions or Google's tools.
    fn mix(&mut self, request: &Request<'_>, target: &Target<'_>, notes: &mut Notes) {
        if self.functions.is_empty() || self.hosted.is_empty() {
            return;
        }
        self.mixed = target.capabilities.tool_mixing;
        if !self.mixed {
            for name in self.hosted.drain(..) {
                notes.warn_at(Action::Dropped, name, Field::Tools.path(request.origin));
            }
        }
    }

    fn choose(
        &mut self,
        request: &Request<'_>,
        notes: &mut Notes,
        fixups: &mut Fixups,
    ) -> Result<(), Invalid> {
        let asked = request
            .tools
            .iter()
            .any(|tool| matches!(tool, Tool::Hosted(_)));
        let field = Field::ToolChoice.path(request.origin);
        if asked && self.is_empty() {
            return Err(none_left(Field::Tools.path(request.origin)));
        }
        if let Some(ToolChoice::Hosted(_)) = &request.tool_choice {
            if self.hosted.is_empty() {
                return Err(none_left(field));
            }
            // Google decides itself when to use its own tools.
            notes.warn(Action::Dropped, field);
            return Ok(());
        }
        if self.functions.is_empty() {
            let forced = matches!(
                request.tool_choice,
                Some(
                    ToolChoice::Required
                        | ToolChoice::Named(_)
                        | ToolChoice::Allowed { required: true, .. }
                )
            );
            if forced {
                notes.warn(Action::Dropped, field);
            }
            return Ok(());
        }
        let mut fit = |name: &Str<'_>| {
            let namespace = namespace(request, name);
            fitted(&mut fixups.names, name, namespace)
        };
        self.choice = match &request.tool_choice {
            None => None,
            Some(ToolChoice::Auto | ToolChoice::Hosted(_)) => Some(("AUTO", Vec::new())),
            Some(ToolChoice::None) => Some(("NONE", Vec::new())),
            Some(ToolChoice::Required) => Some(("ANY", Vec::new())),
            Some(ToolChoice::Named(name)) => Some(("ANY", vec![fit(name)])),
            Some(ToolChoice::Allowed { required, names }) if *required => {
                Some(("ANY", names.iter().map(fit).collect()))
            }
            // The declarations have been picked already.
            Some(ToolChoice::Allowed { .. }) => Some(("AUTO", Vec::new())),
        };
        Ok(())
    }
}

fn none_left(field: &'static str) -> Invalid {
    Invalid::unsupported(
        "unsupported_tool",
        field,
        "none of the tools asked for can be had over gemini",
    )
}

/// Whether the client lets the model call that one. A list of what may be called
/// as the model likes has no other form than the list of what is declared.
fn is_allowed(request: &Request<'_>, name: &Str<'_>) -> bool {
    match &request.tool_choice {
        Some(ToolChoice::Allowed {
            required: false,
            names,
        }) => names.contains(name),
        _ => true,
    }
}

fn namespace<'r, 'a>(request: &'r Request<'a>, name: &Str<'_>) -> Option<&'r Str<'a>> {
    request.tools.iter().find_map(|tool| match tool {
        Tool::Function(function) if function.name == *name => function.namespace.as_ref(),
        _ => None,
    })
}

/// The grammar of a custom tool, in words.
fn grammar(format: &Raw<'_>) -> Option<String> {
    let mut tape = Tape::new();
    let format = tape.parse(format.as_str()).ok()?;
    let grammar = format.some("grammar").unwrap_or(format);
    let definition = grammar.some("definition")?.as_str()?;
    let syntax = grammar.some("syntax").and_then(|syntax| syntax.as_str());
    let syntax = syntax.unwrap_or_else(|| Str::new("following"));
    Some(format!(
        "The input must match this {} grammar:\n{}",
        syntax.plain(),
        definition.plain()
    ))
}
