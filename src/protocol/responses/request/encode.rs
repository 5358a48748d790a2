//! A request for a provider. Nothing is kept there (`store` is false), and its
//! reasoning comes back encrypted, so that any account may answer the next turn.

use std::borrow::Cow;

use bytes::BytesMut;
use ring::digest::{SHA256, digest};

use crate::protocol::Protocol;
use crate::protocol::filter::Fixups;
use crate::protocol::fit::Names;
use crate::protocol::ir::{
    Display, Effort, Format, Function, HostedTool, HostedToolKind, Invalid, Part, ReasoningMode,
    Request, Service, SystemBlock, Tool, ToolChoice, WebSearch,
};
use crate::protocol::json::write::{Array, Object};
use crate::protocol::json::{Raw, Str, Tape};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::schema;
use crate::protocol::translate::{Encoded, Target};
use crate::protocol::turns::{Arranged, LastAssistant, MidSystem, Rules, arrange};

use super::output::{Items, has_marked_system, marks_to_skip};

/// The least output that the endpoint takes.
const LEAST_OUTPUT: u64 = 16;
/// Longest id of a user.
const LONGEST_USER: usize = 64;

const RULES: Rules = Rules {
    mid_system: MidSystem::InPlace,
    merge: false,
    drop_blank: false,
    user_first: false,
    last_assistant: LastAssistant::Keep,
};

/// Writes a request for a provider.
///
/// # Errors
///
/// Where the protocol can't say what was asked, naming the client's field.
pub fn encode(
    request: &Request<'_>,
    target: &Target<'_>,
    notes: &mut Notes,
) -> Result<Encoded, Invalid> {
    if request.sampling.n.is_some_and(|n| n > 1) {
        let path = Field::N.path(request.origin);
        let message = "a model that is served over the responses protocol gives one answer";
        return Err(Invalid::unsupported("unsupported_parameter", path, message));
    }
    let arranged = arrange(request, &RULES, notes);
    if arranged.turns.is_empty() && arranged.system.is_empty() {
        let path = Field::Turns.path(request.origin);
        return Err(Invalid::request(path, "at least one message is required"));
    }
    let mut fixups = Fixups::default();
    let mut body = BytesMut::with_capacity(estimate(request));
    let mut writer = Writer {
        request,
        target,
        notes,
        names: &mut fixups.names,
        object: Object::open(&mut body),
    };
    writer.object.text("model", target.model);
    // The names of declared tools are fitted before those of the history.
    let tools = writer.tools()?;
    writer.conversation(&arranged)?;
    if !tools.is_empty() {
        writer.object.key("tools").extend_from_slice(&tools);
        writer.choice(&tools)?;
    }
    writer.sampling();
    writer.reasoning();
    writer.text();
    writer.rest();
    drop(writer);
    if !request.sampling.stop.is_empty() {
        notes.warn(Action::Emulated, Field::Stop.path(request.origin));
        fixups.stop = request
            .sampling
            .stop
            .iter()
            .map(Str::to_plain_string)
            .collect();
    }
    fixups.bare_enum = matches!(
        request.format,
        Format::Schema {
            bare_enum: true,
            ..
        }
    );
    Ok(Encoded {
        body: body.freeze(),
        fixups,
    })
}

/// About how long the body will be.
fn estimate(request: &Request<'_>) -> usize {
    let parts = request.turns.iter().flat_map(|turn| turn.parts.iter());
    let size = |part: &Part<'_>| match part {
        Part::Text(text) => text.text.len() + 128,
        _ => 512,
    };
    4096 + parts.map(size).sum::<usize>() + request.tools.len() * 512
}

struct Writer<'w, 'o> {
    request: &'w Request<'w>,
    target: &'w Target<'w>,
    notes: &'w mut Notes,
    names: &'w mut Names,
    object: Object<'o>,
}

impl<'w> Writer<'w, '_> {
    fn path(&self, field: Field) -> &'static str {
        field.path(self.request.origin)
    }

    fn dropped(&mut self, field: Field) {
        self.notes
            .warn(Action::Dropped, field.path(self.request.origin));
    }

    fn hint(&mut self, field: Field) {
        self.notes
            .info(Action::Dropped, field.path(self.request.origin));
    }

    fn conversation(&mut self, arranged: &Arranged<'_, '_>) -> Result<(), Invalid> {
        let system = arranged.system.iter().filter(|block| !is_billing(block));
        let system: Vec<_> = system.cloned().collect();
        // The endpoint wants some input; instructions are none.
        let marked = has_marked_system(&system, self.target) || arranged.turns.is_empty();
        if !marked && !system.is_empty() {
            instructions(&system, &mut self.object);
            if system.iter().any(|block| block.cache.is_some()) {
                self.hint(Field::CacheMark);
            }
        }
        let wants_word = matches!(self.request.format, Format::JsonObject)
            && !arranged
                .turns
                .iter()
                .any(|turn| turn.parts.iter().any(|part| says_json(part)));
        let mut items = Items {
            request: self.request,
            target: self.target,
            skip: marks_to_skip(&system, &arranged.turns),
            notes: self.notes,
            names: self.names,
            array: self.object.array("input"),
        };
        if marked {
            items.system(&system);
        }
        if wants_word {
            // The endpoint refuses JSON without a schema unless the input asks for it.
            items.notes.info(Action::Injected, "json_instruction");
            items.developer("Reply in JSON.");
        }
        for turn in &arranged.turns {
            items.turn(turn)?;
        }
        Ok(())
    }

    /// The tools, written apart; empty when there are none.
    fn tools(&mut self) -> Result<BytesMut, Invalid> {
        let mut out = BytesMut::new();
        let mut array = Array::open(&mut out);
        let mut lost = None;
        for tool in &self.request.tools {
            let written = match tool {
                Tool::Function(function) => self.function(function, &mut array),
                Tool::Custom {
                    name,
                    description,
                    format,
                } => {
                    let name = self.names.fit(name, None, Protocol::Responses);
                    custom(&name, description.as_ref(), format.as_ref(), &mut array);
                    true
                }
                Tool::Hosted(hosted) => self.hosted(hosted, &mut array)?,
            };
            if let (false, Tool::Hosted(hosted)) = (written, tool) {
                self.notes.warn(Action::Dropped, hosted.path.clone());
                lost.get_or_insert(hosted);
            }
        }
        if let Some(search) = &self.request.web_search {
            self.web_search(
                search,
                Field::WebSearch.path(self.request.origin),
                &mut array,
            );
        }
        if self.request.image_output {
            self.notes
                .warn(Action::Coerced, self.path(Field::Modalities));
            array.object().text("type", "image_generation");
        }
        let none = array.is_empty();
        drop(array);
        match lost {
            Some(hosted) if none => Err(bound(hosted, self.request, self.target)),
            _ if none => Ok(BytesMut::new()),
            _ => Ok(out),
        }
    }

    fn function(&mut self, function: &Function<'_>, array: &mut Array<'_>) -> bool {
        let namespace = function.namespace.as_ref();
        let name = self
            .names
            .fit(&function.name, namespace, Protocol::Responses);
        let mut tool = array.object();
        tool.text("type", "function").text("name", &name);
        if let Some(description) = &function.description {
            tool.str("description", description);
        }
        let strict = function.strict == Some(true)
            && function.schema.as_ref().is_some_and(schema::is_strict);
        if function.strict == Some(true) && !strict {
            let what = format!("{}.strict", Field::Tools.path(self.request.origin));
            self.notes.warn(Action::Coerced, what);
        }
        match &function.schema {
            Some(schema) => tool.raw("parameters", schema),
            None => tool.digits("parameters", "{\"type\":\"object\",\"properties\":{}}"),
        };
        // Said even when it is false: left out it might be taken for true.
        tool.bool("strict", strict);
        drop(tool);
        if function.cache.is_some() {
            self.hint(Field::CacheMark);
        }
        true
    }

    /// A hosted tool; `false` where it has no counterpart.
    fn hosted(&mut self, hosted: &HostedTool<'_>, array: &mut Array<'_>) -> Result<bool, Invalid> {
        match &hosted.kind {
            HostedToolKind::WebSearch(search) => {
                self.web_search(search, &hosted.path, array);
                Ok(true)
            }
            HostedToolKind::WebFetch => {
                // Searching includes fetching.
                let mut tools = self.request.tools.iter();
                let searches = tools.any(|tool| {
                    matches!(
                        tool,
                        Tool::Hosted(HostedTool {
                            kind: HostedToolKind::WebSearch(_),
                            ..
                        })
                    )
                });
                if !searches {
                    array.object().text("type", "web_search");
                    self.notes.warn(Action::Coerced, hosted.path.clone());
                }
                Ok(true)
            }
            HostedToolKind::Code => {
                let mut tool = array.object();
                tool.text("type", "code_interpreter");
                tool.object("container").text("type", "auto");
                Ok(true)
            }
            HostedToolKind::Droppable => Ok(false),
            HostedToolKind::Bound => Err(bound(hosted, self.request, self.target)),
        }
    }

    fn web_search(&mut self, search: &WebSearch<'_>, path: &str, array: &mut Array<'_>) {
        let mut tool = array.object();
        tool.text("type", "web_search");
        if !search.allowed.is_empty() {
            let mut filters = tool.object("filters");
            let mut domains = filters.array("allowed_domains");
            for domain in &search.allowed {
                domains.str(domain);
            }
        }
        if !search.blocked.is_empty() {
            self.notes
                .warn(Action::Dropped, format!("{path}.blocked_domains"));
        }
        if let Some(location) = &search.location {
            place(location, &mut tool);
        }
        if let Some(size) = &search.context_size {
            tool.str("search_context_size", size);
        }
    }

    fn choice(&mut self, tools: &[u8]) -> Result<(), Invalid> {
        if let Some(parallel) = self.request.parallel {
            self.object.bool("parallel_tool_calls", parallel);
        }
        let Some(choice) = &self.request.tool_choice else {
            return Ok(());
        };
        match choice {
            ToolChoice::Auto => {
                self.object.text("tool_choice", "auto");
            }
            ToolChoice::None => {
                self.object.text("tool_choice", "none");
            }
            ToolChoice::Required => {
                self.object.text("tool_choice", "required");
            }
            ToolChoice::Named(name) => {
                let (kind, name) = self.named(name);
                let mut choice = self.object.object("tool_choice");
                choice.text("type", kind).text("name", &name);
            }
            ToolChoice::Allowed { required, names } => self.allowed(*required, names),
            ToolChoice::Hosted(word) => self.hosted_choice(word, tools)?,
        }
        Ok(())
    }

    /// What a tool is by its name, and its name there.
    fn named(&mut self, wanted: &Str<'_>) -> (&'static str, String) {
        for tool in &self.request.tools {
            match tool {
                Tool::Function(function) if function.name == *wanted => {
                    let namespace = function.namespace.as_ref();
                    return (
                        "function",
                        self.names.fit(wanted, namespace, Protocol::Responses),
                    );
                }
                Tool::Custom { name, .. } if name == wanted => {
                    return ("custom", self.names.fit(wanted, None, Protocol::Responses));
                }
                _ => {}
            }
        }
        (
            "function",
            self.names.fit(wanted, None, Protocol::Responses),
        )
    }

    fn allowed(&mut self, required: bool, names: &[Str<'_>]) {
        let named: Vec<_> = names.iter().map(|name| self.named(name)).collect();
        let mut choice = self.object.object("tool_choice");
        choice.text("type", "allowed_tools");
        choice.text("mode", if required { "required" } else { "auto" });
        let mut tools = choice.array("tools");
        for (kind, name) in named {
            tools.object().text("type", kind).text("name", &name);
        }
    }

    /// A hosted tool that must be called: by our word for it, if it is there.
    fn hosted_choice(&mut self, word: &Str<'_>, tools: &[u8]) -> Result<(), Invalid> {
        let hosted = self.request.tools.iter().find_map(|tool| match tool {
            Tool::Hosted(hosted) if hosted.name == *word => Some(hosted),
            _ => None,
        });
        let plain = word.plain();
        let kind = match hosted.map(|hosted| &hosted.kind) {
            Some(HostedToolKind::WebSearch(_) | HostedToolKind::WebFetch) => "web_search",
            Some(HostedToolKind::Code) => "code_interpreter",
            None if plain.starts_with("web_search") => "web_search",
            _ => "",
        };
        let written = format!("\"type\":\"{kind}\"");
        let there = memchr::memmem::find(tools, written.as_bytes()).is_some();
        if kind.is_empty() || !there {
            let path = self.path(Field::ToolChoice);
            let message = format!("tool_choice asks for '{plain}', which this model has not");
            return Err(Invalid::unsupported("unsupported_tool", path, message));
        }
        self.object.object("tool_choice").text("type", kind);
        Ok(())
    }

    fn sampling(&mut self) {
        let request = self.request;
        let sampling = &request.sampling;
        if let Some(limit) = sampling.max_output {
            if limit < LEAST_OUTPUT {
                let path = self.path(Field::MaxOutput);
                let what = format!("{path}={limit}>{LEAST_OUTPUT}");
                self.notes.warn_at(Action::Coerced, what, path);
            }
            self.object
                .number("max_output_tokens", limit.max(LEAST_OUTPUT));
        }
        let pairs = [
            ("temperature", sampling.temperature, Field::Temperature),
            ("top_p", sampling.top_p, Field::TopP),
        ];
        for (name, digits, field) in pairs {
            match digits {
                Some(digits) if self.target.capabilities.sampling => {
                    self.object.digits(name, digits.text);
                }
                Some(_) => self.dropped(field),
                None => {}
            }
        }
        let unsaid = [
            (sampling.top_k.is_some(), Field::TopK),
            (
                sampling.frequency_penalty.is_some(),
                Field::FrequencyPenalty,
            ),
            (sampling.presence_penalty.is_some(), Field::PresencePenalty),
            (sampling.seed.is_some(), Field::Seed),
            (sampling.logit_bias.is_some(), Field::LogitBias),
        ];
        for (asked, field) in unsaid {
            if asked {
                self.dropped(field);
            }
        }
        if let Some(rivals) = sampling.top_logprobs.filter(|_| sampling.logprobs) {
            self.object.number("top_logprobs", rivals);
        }
    }

    /// Whether the model reasons, as far as is known.
    fn reasons(&self) -> bool {
        self.target.capabilities.thinking.effort
    }

    fn reasoning(&mut self) {
        let asked = self.request.reasoning.as_ref();
        let effort = asked.and_then(|reasoning| {
            let off = (reasoning.mode == ReasoningMode::Off).then_some(Effort::None);
            off.or(reasoning.effort)
                .or_else(|| reasoning.budget.and_then(of_budget))
        });
        if !self.reasons() {
            if effort.is_some_and(|effort| effort != Effort::None) {
                self.dropped(Field::Reasoning);
            }
            return;
        }
        let effort = effort.and_then(|wanted| self.nearest(wanted));
        // Without a summary none of the reasoning could be read.
        let display = asked.map_or(Display::Default, |reasoning| reasoning.display);
        let summary = display != Display::Omit;
        if effort.is_none() && !summary {
            return;
        }
        let mut reasoning = self.object.object("reasoning");
        if let Some(effort) = effort {
            reasoning.text("effort", effort.name());
        }
        if summary {
            reasoning.text("summary", "auto");
        }
    }

    fn nearest(&mut self, wanted: Effort) -> Option<Effort> {
        let path = self.path(Field::Effort);
        let nearest = self.target.capabilities.nearest_effort(wanted);
        match nearest {
            Some(near) if near != wanted => {
                let what = format!("{path}={}>{}", wanted.name(), near.name());
                self.notes.warn_at(Action::Coerced, what, path);
            }
            Some(_) => {}
            None => self.notes.warn(Action::Dropped, path),
        }
        nearest
    }

    fn text(&mut self) {
        let request = self.request;
        if matches!(request.format, Format::Text) && request.verbosity.is_none() {
            return;
        }
        let mut text = self.object.object("text");
        match &request.format {
            Format::Text => {}
            Format::JsonObject => {
                text.object("format").text("type", "json_object");
            }
            Format::Schema {
                name,
                description,
                schema,
                strict,
                ..
            } => {
                let mut format = text.object("format");
                format.text("type", "json_schema");
                format.text("name", &schema_name(name.as_ref()));
                if let Some(description) = description {
                    format.str("description", description);
                }
                format.raw("schema", schema);
                let can = *strict == Some(true) && schema::is_strict(schema);
                format.bool("strict", can);
                if *strict == Some(true) && !can {
                    let what = format!("{}.strict", Field::Format.path(request.origin));
                    self.notes.warn(Action::Coerced, what);
                }
            }
        }
        if let Some(verbosity) = &request.verbosity {
            text.str("verbosity", verbosity);
        }
    }

    fn rest(&mut self) {
        let request = self.request;
        self.object.bool("store", false);
        self.object.bool("stream", self.target.stream);
        let logprobs = request.sampling.logprobs;
        if self.reasons() || logprobs {
            let reasons = self.reasons();
            let mut include = self.object.array("include");
            if reasons {
                include.str(&Str::new("reasoning.encrypted_content"));
            }
            if logprobs {
                include.str(&Str::new("message.output_text.logprobs"));
            }
        }
        if let Some(most) = request.max_tool_calls.or_else(|| self.searches()) {
            self.object.number("max_tool_calls", most);
        }
        match request.service {
            Some(Service::Standard) => {
                self.object.text("service_tier", "default");
            }
            Some(Service::Flex) => {
                self.object.text("service_tier", "flex");
            }
            Some(Service::Priority) => {
                self.object.text("service_tier", "priority");
            }
            Some(Service::Other) => self.hint(Field::Service),
            Some(Service::Auto) | None => {}
        }
        if let Some(user) = &request.end_user {
            self.object.text("safety_identifier", &identifier(user));
        }
        if let Some(key) = &request.cache.key {
            self.object.str("prompt_cache_key", key);
        }
        if request.cache.auto.is_some() {
            self.hint(Field::CacheMark);
        }
        match &request.metadata {
            Some(metadata) if request.origin == Protocol::Chat => {
                self.object.raw("metadata", metadata);
            }
            Some(_) => self.hint(Field::Metadata),
            None => {}
        }
    }

    /// The most searches that any tool of the client's allows.
    fn searches(&self) -> Option<u64> {
        let tools = self.request.tools.iter();
        let uses = tools.filter_map(|tool| match tool {
            Tool::Hosted(HostedTool {
                kind: HostedToolKind::WebSearch(search),
                ..
            }) => search.max_uses,
            _ => None,
        });
        uses.max()
    }
}

/// A line that one client puts before its system text. It differs from request to
/// request and would spoil every prompt cache.
fn is_billing(block: &SystemBlock<'_>) -> bool {
    block
        .text
        .inner()
        .starts_with("x-anthropic-billing-header:")
}

fn instructions(system: &[Cow<'_, SystemBlock<'_>>], object: &mut Object<'_>) {
    if let [block] = system {
        object.str("instructions", &block.text);
        return;
    }
    let out = object.key("instructions");
    out.extend_from_slice(b"\"");
    for (number, block) in system.iter().enumerate() {
        if number > 0 {
            out.extend_from_slice(b"\\n\\n");
        }
        out.extend_from_slice(block.text.inner().as_bytes());
    }
    out.extend_from_slice(b"\"");
}

fn says_json(part: &Part<'_>) -> bool {
    match part {
        Part::Text(text) => {
            let inner = text.text.inner();
            let bytes = inner.as_bytes();
            bytes
                .windows(4)
                .any(|word| word.eq_ignore_ascii_case(b"json"))
        }
        _ => false,
    }
}

fn custom(
    name: &str,
    description: Option<&Str<'_>>,
    format: Option<&Raw<'_>>,
    array: &mut Array<'_>,
) {
    let mut tool = array.object();
    tool.text("type", "custom").text("name", name);
    if let Some(description) = description {
        tool.str("description", description);
    }
    let Some(format) = format else {
        return;
    };
    let mut tape = Tape::new();
    let root = tape.parse(format.as_str()).ok();
    // Chat has a grammar one level deeper.
    let grammar = root
        .and_then(|root| root.some("grammar"))
        .filter(|g| g.is_object());
    let Some(grammar) = grammar else {
        tool.raw("format", format);
        return;
    };
    let mut object = tool.object("format");
    object.text("type", "grammar");
    for (name, value) in grammar.members() {
        object
            .foreign_key(&name)
            .extend_from_slice(value.raw().as_str().as_bytes());
    }
}

fn bound(hosted: &HostedTool<'_>, request: &Request<'_>, target: &Target<'_>) -> Invalid {
    Invalid::unsupported(
        "unsupported_tool",
        hosted.path.clone(),
        format!(
            "Tool \"{}\" is specific to the {} protocol and the model \"{}\" is served over {}. \
             Use a model on a provider of the {} protocol, or remove the tool.",
            hosted.name.plain(),
            request.origin,
            request.model.plain(),
            target.protocol,
            request.origin,
        ),
    )
}

/// Where the user is. Chat has the parts of the place one level deeper.
fn place(location: &Raw<'_>, tool: &mut Object<'_>) {
    let mut tape = Tape::new();
    let Ok(root) = tape.parse(location.as_str()) else {
        return;
    };
    let inner = root.some("approximate").filter(|inner| inner.is_object());
    let inner = inner.unwrap_or(root);
    let mut object = tool.object("user_location");
    object.text("type", "approximate");
    for name in ["city", "country", "region", "timezone"] {
        if let Some(value) = inner.some(name).and_then(|value| value.as_str()) {
            object.str(name, &value);
        }
    }
}

/// The effort that a budget of tokens comes nearest to; none for "as many as it
/// likes".
const fn of_budget(budget: i64) -> Option<Effort> {
    match budget {
        i64::MIN..0 => None,
        0 => Some(Effort::None),
        1..=1024 => Some(Effort::Low),
        1025..=8192 => Some(Effort::Medium),
        8193..=24576 => Some(Effort::High),
        _ => Some(Effort::XHigh),
    }
}

/// A schema's name as the endpoint takes it.
fn schema_name(name: Option<&Str<'_>>) -> String {
    let plain = name.map(Str::plain).unwrap_or_default();
    let allowed = |letter: char| match letter {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => letter,
        _ => '_',
    };
    let name: String = plain.chars().take(64).map(allowed).collect();
    if name.is_empty() {
        return "response".to_owned();
    }
    name
}

/// Who the client's user is, told so that nobody is named: a word that looks like
/// an id as it is, anything else as a hash.
fn identifier(user: &Str<'_>) -> String {
    let plain = user.plain();
    let named = plain.contains(['@', '{', '[', '"']);
    if !named && plain.chars().count() <= LONGEST_USER {
        return plain.into_owned();
    }
    let hash = digest(&SHA256, plain.as_bytes());
    let hex = hash.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = hex.filter_map(|digit| char::from_digit(u32::from(digit), 16));
    digits.take(32).collect()
}
