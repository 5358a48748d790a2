//! The tools of a request, and what is said about calling them.

use crate::protocol::Protocol;
use crate::protocol::fit::Names;
use crate::protocol::ir::{
    Function, HostedTool, HostedToolKind, Invalid, Request, Tool, ToolChoice, WebSearch,
};
use crate::protocol::json::{Array, Object, Raw, Str, Tape, Value};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::schema;
use crate::protocol::translate::Target;

use super::Writer;
use super::turns::Conversation;

/// What a function is declared with that says nothing of its arguments.
const ANYTHING: Raw<'static> = Raw::EMPTY_OBJECT;

/// One tool, with the name that the provider gets.
enum Planned<'r, 'a> {
    Function(String, &'r Function<'a>),
    Custom(String, Option<&'r Str<'a>>, Option<&'r Raw<'a>>),
    Search(&'r WebSearch<'a>),
    Fetch,
    Code,
    /// Called earlier in the conversation, and not to be called again.
    StandIn(String),
}

/// What is said about calling them.
enum Choice {
    Unsaid,
    Auto,
    Any,
    Nothing,
    One(String),
}

/// The tools, and what is said about calling them.
pub(super) struct Toolbox<'r, 'a> {
    tools: Vec<Planned<'r, 'a>>,
    choice: Choice,
    single: bool,
}

impl<'r, 'a> Toolbox<'r, 'a> {
    /// Sorts out what can be declared.
    pub(super) fn of(
        request: &'r Request<'a>,
        target: &Target<'_>,
        names: &mut Names,
        notes: &mut Notes,
    ) -> Result<Self, Invalid> {
        let mut sorter = Sorter {
            request,
            target,
            names,
            notes,
            tools: Vec::with_capacity(request.tools.len()),
        };
        for tool in &request.tools {
            if sorter.is_allowed(tool) {
                sorter.tool(tool)?;
            }
        }
        sorter.search_option()?;
        let choice = sorter.choice()?;
        Ok(Self {
            single: request.parallel == Some(false) && !sorter.tools.is_empty(),
            tools: sorter.tools,
            choice,
        })
    }

    /// Whether something must be called.
    pub(super) const fn forces(&self) -> bool {
        matches!(self.choice, Choice::Any | Choice::One(_))
    }

    /// Anthropic refuses calls in the conversation of a request without tools.
    pub(super) fn stand_in(
        &mut self,
        conversation: &Conversation<'_, '_>,
        names: &mut Names,
        notes: &mut Notes,
    ) {
        if !self.tools.is_empty() {
            return;
        }
        let mut seen = Vec::new();
        for call in conversation.calls() {
            let name = names.fit(&call.name, call.namespace.as_ref(), Protocol::Messages);
            if !seen.contains(&name) {
                seen.push(name);
            }
        }
        if !seen.is_empty() {
            notes.info(Action::Injected, "tools");
            self.choice = Choice::Nothing;
            self.tools = seen.into_iter().map(Planned::StandIn).collect();
        }
    }

    /// Writes `tools` and `tool_choice`.
    pub(super) fn write(&self, body: &mut Object<'_>, writer: &mut Writer<'_, '_>) {
        if self.tools.is_empty() {
            return;
        }
        let mut tools = body.array("tools");
        for tool in &self.tools {
            write(tool, &mut tools, writer);
        }
        drop(tools);
        self.write_choice(body);
    }

    fn write_choice(&self, body: &mut Object<'_>) {
        let kind = match &self.choice {
            Choice::Unsaid if !self.single => return,
            Choice::Unsaid | Choice::Auto => "auto",
            Choice::Any => "any",
            Choice::Nothing => "none",
            Choice::One(_) => "tool",
        };
        let mut choice = body.object("tool_choice");
        choice.text("type", kind);
        if let Choice::One(name) = &self.choice {
            choice.text("name", name);
        }
        if self.single && !matches!(self.choice, Choice::Nothing) {
            choice.bool("disable_parallel_tool_use", true);
        }
    }
}

struct Sorter<'s, 'r, 'a> {
    request: &'r Request<'a>,
    target: &'s Target<'s>,
    names: &'s mut Names,
    notes: &'s mut Notes,
    tools: Vec<Planned<'r, 'a>>,
}

impl<'r, 'a> Sorter<'_, 'r, 'a> {
    /// Whether a choice of some tools leaves this one.
    fn is_allowed(&self, tool: &Tool<'_>) -> bool {
        let Some(ToolChoice::Allowed { names, .. }) = &self.request.tool_choice else {
            return true;
        };
        let name = match tool {
            Tool::Function(function) => &function.name,
            Tool::Custom { name, .. } => name,
            Tool::Hosted(hosted) => &hosted.name,
        };
        names.contains(name)
    }

    fn tool(&mut self, tool: &'r Tool<'a>) -> Result<(), Invalid> {
        match tool {
            Tool::Function(function) => {
                let namespace = function.namespace.as_ref();
                let name = self
                    .names
                    .fit(&function.name, namespace, Protocol::Messages);
                self.tools.push(Planned::Function(name, function));
            }
            Tool::Custom {
                name,
                description,
                format,
            } => {
                let name = self.names.fit(name, None, Protocol::Messages);
                let (description, format) = (description.as_ref(), format.as_ref());
                self.tools.push(Planned::Custom(name, description, format));
            }
            Tool::Hosted(hosted) => self.hosted(hosted)?,
        }
        Ok(())
    }

    fn hosted(&mut self, tool: &'r HostedTool<'a>) -> Result<(), Invalid> {
        let capabilities = self.target.capabilities;
        let planned = match &tool.kind {
            HostedToolKind::Bound => return Err(self.bound(tool)),
            HostedToolKind::WebSearch(search) if capabilities.web_search => {
                self.check(search)?;
                Planned::Search(search)
            }
            HostedToolKind::WebFetch if capabilities.web_search => Planned::Fetch,
            HostedToolKind::Code if capabilities.code_exec => Planned::Code,
            _ => return self.leave_out(tool),
        };
        let name = planned.name();
        if self.tools.iter().any(|other| other.name() == name) {
            return self.leave_out(tool);
        }
        self.tools.push(planned);
        Ok(())
    }

    /// Web search as an option of the request.
    fn search_option(&mut self) -> Result<(), Invalid> {
        let Some(search) = &self.request.web_search else {
            return Ok(());
        };
        let taken = self.tools.iter().any(|tool| tool.name() == "web_search");
        if self.target.capabilities.web_search && !taken {
            self.check(search)?;
            self.tools.push(Planned::Search(search));
        } else if !taken {
            let path = Field::WebSearch.path(self.request.origin);
            self.notes.warn(Action::Dropped, path);
        }
        Ok(())
    }

    fn check(&mut self, search: &WebSearch<'_>) -> Result<(), Invalid> {
        if search.context_size.is_some() {
            self.notes.info(Action::Dropped, "search_context_size");
        }
        if search.allowed.is_empty() || search.blocked.is_empty() {
            return Ok(());
        }
        let path = Field::WebSearch.path(self.request.origin);
        let message = "web search takes allowed domains or blocked ones, not both";
        Err(Invalid::unsupported("unsupported_tool", path, message))
    }

    fn bound(&self, tool: &HostedTool<'_>) -> Invalid {
        let (name, origin) = (tool.name.plain(), self.request.origin);
        let model = self.request.model.plain();
        let message = format!(
            "Tool \"{name:.80}\" is specific to the {origin} protocol and the model \"{model:.80}\" \
             is served over messages. Use a model on a {origin} upstream, or remove the tool."
        );
        Invalid::unsupported("unsupported_tool", tool.path.clone(), message)
    }

    /// A tool that does no harm by being absent, unless all depends on it.
    fn leave_out(&mut self, tool: &HostedTool<'_>) -> Result<(), Invalid> {
        let choice = self.request.tool_choice.as_ref();
        let forced = match choice {
            Some(ToolChoice::Hosted(name)) => *name == tool.name,
            Some(ToolChoice::Required) => self.request.tools.len() == 1,
            _ => false,
        };
        if forced {
            return Err(self.bound(tool));
        }
        let (name, path) = (tool.name.to_plain_string(), tool.path.clone());
        self.notes.warn_at(Action::Dropped, name, path);
        Ok(())
    }

    fn choice(&mut self) -> Result<Choice, Invalid> {
        let Some(choice) = &self.request.tool_choice else {
            return Ok(Choice::Unsaid);
        };
        Ok(match choice {
            ToolChoice::Auto => Choice::Auto,
            ToolChoice::None => Choice::Nothing,
            ToolChoice::Required => Choice::Any,
            ToolChoice::Named(name) => Choice::One(self.fitted(name)),
            ToolChoice::Allowed { required, .. } if *required => Choice::Any,
            ToolChoice::Allowed { .. } => Choice::Auto,
            ToolChoice::Hosted(word) => Choice::One(self.hosted_name(word)?.to_owned()),
        })
    }

    /// The provider's name for a function or custom tool.
    fn fitted(&mut self, name: &Str<'_>) -> String {
        let functions = self.tools.iter().find_map(|tool| match tool {
            Planned::Function(fitted, function) if function.name == *name => Some(fitted.clone()),
            _ => None,
        });
        functions.unwrap_or_else(|| self.names.fit(name, None, Protocol::Messages))
    }

    fn hosted_name(&self, word: &Str<'_>) -> Result<&'static str, Invalid> {
        let plain = word.plain();
        let kinds = [
            ("web_search", "web_search"),
            ("web_fetch", "web_fetch"),
            ("code_", "code_execution"),
        ];
        let found = kinds.iter().find(|(start, _)| plain.starts_with(start));
        let declared = found.filter(|(_, name)| self.tools.iter().any(|tool| tool.name() == *name));
        declared.map(|(_, name)| *name).ok_or_else(|| {
            let path = Field::ToolChoice.path(self.request.origin);
            let message = format!("{path}: the tool \"{plain:.80}\" is not there to be called");
            Invalid::unsupported("unsupported_tool", path, message)
        })
    }
}

impl Planned<'_, '_> {
    fn name(&self) -> &str {
        match self {
            Self::Function(name, _) | Self::Custom(name, _, _) | Self::StandIn(name) => name,
            Self::Search(_) => "web_search",
            Self::Fetch => "web_fetch",
            Self::Code => "code_execution",
        }
    }
}

fn write(tool: &Planned<'_, '_>, tools: &mut Array<'_>, writer: &mut Writer<'_, '_>) {
    let mut object = tools.object();
    match tool {
        Planned::Function(name, function) => write_function(&mut object, name, function, writer),
        Planned::Custom(name, description, format) => {
            object.text("name", name);
            object.text("description", &explained(*description, *format));
            let mut schema = object.object("input_schema");
            schema.text("type", "object");
            schema
                .object("properties")
                .object("input")
                .text("type", "string");
            schema.array("required").str(&Str::new("input"));
            writer.fixups.custom.push(name.clone());
        }
        Planned::Search(search) => write_search(&mut object, search, writer),
        Planned::Fetch => {
            object
                .text("type", "web_fetch_20250910")
                .text("name", "web_fetch");
        }
        Planned::Code => {
            object
                .text("type", "code_execution_20250825")
                .text("name", "code_execution");
        }
        Planned::StandIn(name) => {
            object.text("name", name);
            write_schema(&mut object, &ANYTHING);
        }
    }
}

fn write_function(
    object: &mut Object<'_>,
    name: &str,
    function: &Function<'_>,
    writer: &mut Writer<'_, '_>,
) {
    object.text("name", name);
    if let Some(text) = function
        .description
        .as_ref()
        .filter(|text| !text.is_empty())
    {
        object.str("description", text);
    }
    let strict = function.strict == Some(true);
    let able = writer.target.capabilities.strict_tools;
    match &function.schema {
        None => write_schema(object, &ANYTHING),
        Some(schema) => {
            let (mut schema, wrapped) = schema::object_root(schema);
            if wrapped {
                writer.fixups.wrapped.push(name.to_owned());
            }
            if strict && able {
                schema = schema::for_anthropic(&schema);
            }
            write_schema(object, &schema);
        }
    }
    if strict && able {
        object.bool("strict", true);
    } else if strict {
        let path = writer.path(Field::Tools);
        writer.notes.warn_at(Action::Dropped, "strict", path);
    }
    writer.marks.write(object, function.cache);
}

fn write_schema(object: &mut Object<'_>, schema: &Raw<'_>) {
    if schema.compact() == "{}" {
        let mut anything = object.object("input_schema");
        anything.text("type", "object");
        anything.object("properties");
    } else {
        object.raw("input_schema", schema);
    }
}

/// What a custom tool does, with the grammar that its input must obey.
fn explained(description: Option<&Str<'_>>, format: Option<&Raw<'_>>) -> String {
    let mut text = description.map(Str::to_plain_string).unwrap_or_default();
    if let Some(format) = format.filter(|format| !says_text(format)) {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str("The input is free text in this format: ");
        text.push_str(&format.compact());
    }
    text
}

/// `{"type":"text"}`: no grammar at all.
fn says_text(format: &Raw<'_>) -> bool {
    let mut tape = Tape::new();
    let format = tape.parse(format.as_str()).ok();
    let kind = format.and_then(|format| format.some("type")?.as_str());
    kind.is_some_and(|kind| kind.is("text"))
}

fn write_search(object: &mut Object<'_>, search: &WebSearch<'_>, writer: &Writer<'_, '_>) {
    object
        .text("type", "web_search_20250305")
        .text("name", "web_search");
    let lists = [
        ("allowed_domains", &search.allowed),
        ("blocked_domains", &search.blocked),
    ];
    for (name, domains) in lists.into_iter().filter(|(_, domains)| !domains.is_empty()) {
        let mut list = object.array(name);
        for domain in domains {
            list.str(domain);
        }
    }
    if let Some(uses) = search.max_uses.or(writer.request.max_tool_calls) {
        object.number("max_uses", uses);
    }
    let mut tape = Tape::new();
    let place = search.location.as_ref();
    if let Some(place) = place.and_then(|place| tape.parse(place.as_str()).ok()) {
        write_place(object, place.some("approximate").unwrap_or(place));
    }
}

fn write_place(object: &mut Object<'_>, place: Value<'_>) {
    let told = |name: &str| place.some(name).and_then(|text| text.as_str());
    let names = ["city", "region", "country", "timezone"];
    if names.iter().all(|name| told(name).is_none()) {
        return;
    }
    let mut location = object.object("user_location");
    location.text("type", "approximate");
    for name in names {
        if let Some(text) = told(name) {
            location.str(name, &text);
        }
    }
}
