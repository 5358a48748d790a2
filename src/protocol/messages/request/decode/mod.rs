//! A client's request in Messages, read.
//!
//! Blocks are read in [`content`], tools in [`tools`]. What no other protocol can
//! say has no place in the intermediate representation and is noted here.

mod content;
mod tools;

use crate::protocol::Protocol;
use crate::protocol::ir::{
    Cache, Digits, Display, Effort, Format, Invalid, Lifetime, Part, Reasoning, ReasoningMode,
    Request, Role, Sampling, Service, State, SystemBlock, Text, Turn,
};
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};

/// Reads a client's request.
///
/// # Errors
///
/// Where the request is wrong, naming the field.
pub fn decode<'a>(body: Value<'a>, notes: &mut Notes) -> Result<Request<'a>, Invalid> {
    let request = decode_for_count(body, notes)?;
    match request.sampling.max_output {
        Some(0) => Err(Invalid::unsupported(
            "unsupported_parameter",
            "max_tokens",
            "max_tokens: 0 is understood by Anthropic only, and the model is served elsewhere",
        )),
        Some(_) => Ok(request),
        None => Err(Invalid::request("max_tokens", "max_tokens: Field required")),
    }
}

/// Reads a request whose tokens are to be counted: it needs no `max_tokens`.
///
/// # Errors
///
/// Those of [`decode`].
pub fn decode_for_count<'a>(body: Value<'a>, notes: &mut Notes) -> Result<Request<'a>, Invalid> {
    if !body.is_object() {
        let found = body.sort();
        return Err(Invalid {
            param: None,
            ..Invalid::request("", format!("the body: expected an object, found {found}"))
        });
    }
    let fields = Fields::of(body, notes);
    fields.refuse()?;
    let mut request = Request {
        model: required(fields.model, "model")?,
        origin: Protocol::Messages,
        stream: boolean(fields.stream, "stream")?.unwrap_or(false),
        include_usage: true,
        system: system(fields.system)?,
        turns: Vec::new(),
        tools: tools::declared(fields.tools, fields.mcp_servers, notes)?,
        tool_choice: None,
        parallel: None,
        sampling: sampling(&fields)?,
        reasoning: reasoning(&fields, notes)?,
        format: format(&fields, notes)?,
        verbosity: None,
        image_output: false,
        web_search: None,
        max_tool_calls: None,
        service: service(&fields)?,
        cache: Cache {
            key: None,
            auto: fields.cache_control.and_then(lifetime),
        },
        end_user: end_user(fields.metadata, notes)?,
        metadata: None,
        state: State::default(),
        legacy_functions: false,
        custom_tools: false,
    };
    tools::choice(fields.tool_choice, &mut request)?;
    turns(fields.messages, &mut request, notes)?;
    Ok(request)
}

/// The top level, the last of a name that stands twice.
#[derive(Default)]
struct Fields<'a> {
    model: Option<Value<'a>>,
    messages: Option<Value<'a>>,
    system: Option<Value<'a>>,
    max_tokens: Option<Value<'a>>,
    stream: Option<Value<'a>>,
    temperature: Option<Value<'a>>,
    top_p: Option<Value<'a>>,
    top_k: Option<Value<'a>>,
    stop_sequences: Option<Value<'a>>,
    tools: Option<Value<'a>>,
    tool_choice: Option<Value<'a>>,
    thinking: Option<Value<'a>>,
    output_config: Option<Value<'a>>,
    output_format: Option<Value<'a>>,
    metadata: Option<Value<'a>>,
    service_tier: Option<Value<'a>>,
    speed: Option<Value<'a>>,
    cache_control: Option<Value<'a>>,
    mcp_servers: Option<Value<'a>>,
    thread: Option<Value<'a>>,
    prewarm: Option<Value<'a>>,
}

impl<'a> Fields<'a> {
    fn of(body: Value<'a>, notes: &mut Notes) -> Self {
        let mut fields = Self::default();
        for (name, value) in body.members() {
            let name = name.plain();
            let slot = fields.slot(&name);
            if slot.is_none() {
                value.whole();
            }
            match slot {
                Some(slot) => *slot = Some(value).filter(|value| !value.is_null()),
                // How Bedrock and Vertex say what is said in headers elsewhere.
                None if matches!(name.as_ref(), "anthropic_version" | "anthropic_beta") => {
                    notes.info(Action::Dropped, name.into_owned());
                }
                None if value.is_null() => {}
                None => notes.warn(Action::Dropped, name.into_owned()),
            }
        }
        fields
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<Value<'a>>> {
        Some(match name {
            "model" => &mut self.model,
            "messages" => &mut self.messages,
            "system" => &mut self.system,
            "max_tokens" => &mut self.max_tokens,
            "stream" => &mut self.stream,
            "temperature" => &mut self.temperature,
            "top_p" => &mut self.top_p,
            "top_k" => &mut self.top_k,
            "stop_sequences" => &mut self.stop_sequences,
            "tools" => &mut self.tools,
            "tool_choice" => &mut self.tool_choice,
            "thinking" => &mut self.thinking,
            "output_config" => &mut self.output_config,
            "output_format" => &mut self.output_format,
            "metadata" => &mut self.metadata,
            "service_tier" => &mut self.service_tier,
            "speed" => &mut self.speed,
            "cache_control" => &mut self.cache_control,
            "mcp_servers" => &mut self.mcp_servers,
            "thread" => &mut self.thread,
            "prewarm" => &mut self.prewarm,
            _ => return None,
        })
    }

    /// What would make the answer another thing than was asked for.
    fn refuse(&self) -> Result<(), Invalid> {
        let prewarm = self.prewarm.and_then(|value| value.as_bool()) == Some(true);
        let named = [("thread", self.thread.is_some()), ("prewarm", prewarm)];
        match named.into_iter().find(|(_, asked)| *asked) {
            Some((name, _)) => Err(Invalid::unsupported(
                "unsupported_parameter",
                name,
                format!("{name}: understood by Anthropic only, and the model is served elsewhere"),
            )),
            None => Ok(()),
        }
    }
}

/// The error for a value of the wrong sort.
fn unexpected(path: impl Into<String>, wanted: &str, found: Value<'_>) -> Invalid {
    let path = path.into();
    let message = format!("{path}: expected {wanted}, found {}", found.sort());
    Invalid::request(path, message)
}

fn required<'a>(value: Option<Value<'a>>, path: &str) -> Result<Str<'a>, Invalid> {
    match value {
        Some(value) => string(value, || path.to_owned()),
        None => Err(Invalid::request(path, format!("{path}: Field required"))),
    }
}

fn string<'a>(value: Value<'a>, path: impl FnOnce() -> String) -> Result<Str<'a>, Invalid> {
    let text = value.as_str();
    text.ok_or_else(|| unexpected(path(), "a string", value))
}

fn boolean(value: Option<Value<'_>>, path: &str) -> Result<Option<bool>, Invalid> {
    let read = |value: Value<'_>| {
        let truth = value.as_bool();
        truth.ok_or_else(|| unexpected(path, "a boolean", value))
    };
    value.map(read).transpose()
}

fn whole(value: Option<Value<'_>>, path: &str) -> Result<Option<u64>, Invalid> {
    let read = |value: Value<'_>| {
        let number = value.as_u64();
        number.ok_or_else(|| unexpected(path, "a whole number", value))
    };
    value.map(read).transpose()
}

fn digits<'a>(value: Option<Value<'a>>, path: &str) -> Result<Option<Digits<'a>>, Invalid> {
    let read = |value: Value<'a>| match (value.number(), value.as_f64()) {
        (Some(text), Some(value)) => Ok(Digits { text, value }),
        _ => Err(unexpected(path, "a number", value)),
    };
    value.map(read).transpose()
}

/// The life of a cache mark: `{"type":"ephemeral","ttl":"1h"}`.
fn lifetime(mark: Value<'_>) -> Option<Lifetime> {
    if !mark.whole().is_object() {
        return None;
    }
    let told = mark.some("ttl").and_then(|ttl| ttl.as_str());
    Some(match told {
        Some(ttl) if ttl.is("1h") => Lifetime::Long,
        _ => Lifetime::Short,
    })
}

/// The cache mark behind a block.
fn mark(block: Value<'_>) -> Option<Lifetime> {
    block.some("cache_control").and_then(lifetime)
}

/// What Claude Code puts first. It changes with every request, which would ruin
/// the prompt caches of others.
const BILLING: &str = "x-anthropic-billing-header:";

fn system(value: Option<Value<'_>>) -> Result<Vec<SystemBlock<'_>>, Invalid> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    if let Some(text) = value.as_str() {
        return Ok(vec![SystemBlock { text, cache: None }]);
    }
    if !value.is_array() {
        return Err(unexpected("system", "a string or an array", value));
    }
    let mut blocks = Vec::new();
    for (at, block) in value.items().enumerate() {
        let Some(text) = block.some("text") else {
            let path = format!("system[{at}].text");
            return Err(Invalid::request(
                path.clone(),
                format!("{path}: Field required"),
            ));
        };
        let text = string(text, || format!("system[{at}].text"))?;
        let billing = at == 0 && text.plain().trim_start().starts_with(BILLING);
        if !billing {
            let cache = mark(block);
            blocks.push(SystemBlock { text, cache });
        }
    }
    Ok(blocks)
}

fn turns<'a>(
    value: Option<Value<'a>>,
    request: &mut Request<'a>,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    let Some(value) = value else {
        return Err(Invalid::request("messages", "messages: Field required"));
    };
    if !value.is_array() {
        return Err(unexpected("messages", "an array", value));
    }
    if value.is_empty() {
        let message = "messages: at least one message is required";
        return Err(Invalid::request("messages", message));
    }
    for (at, message) in value.items().enumerate() {
        let role = role(message, at)?;
        let content = message.some("content").ok_or_else(|| {
            let path = format!("messages[{at}].content");
            Invalid::request(path.clone(), format!("{path}: Field required"))
        })?;
        let parts = content::parts(content, at, notes)?;
        if role == Role::System && request.turns.is_empty() {
            lead(parts, &mut request.system);
        } else {
            request.turns.push(Turn { role, parts, at });
        }
    }
    Ok(())
}

/// System text before anything was said.
fn lead<'a>(parts: Vec<Part<'a>>, system: &mut Vec<SystemBlock<'a>>) {
    for part in parts {
        if let Part::Text(Text { text, cache, .. }) = part {
            system.push(SystemBlock { text, cache });
        }
    }
}

fn role(message: Value<'_>, at: usize) -> Result<Role, Invalid> {
    let told = message.some("role").and_then(|role| role.as_str());
    let role = told.as_ref().map(Str::plain);
    match role.as_deref() {
        Some("user") => Ok(Role::User),
        Some("assistant") => Ok(Role::Assistant),
        Some("system") => Ok(Role::System),
        other => {
            let path = format!("messages[{at}].role");
            let found = other.map_or_else(|| "nothing".to_owned(), |role| format!("'{role:.40}'"));
            let message = format!("{path}: expected user, assistant or system, found {found}");
            Err(Invalid::request(path, message))
        }
    }
}

fn sampling<'a>(fields: &Fields<'a>) -> Result<Sampling<'a>, Invalid> {
    let mut stop = Vec::new();
    if let Some(value) = fields.stop_sequences {
        if !value.is_array() {
            return Err(unexpected("stop_sequences", "an array", value));
        }
        for (at, text) in value.items().enumerate() {
            stop.push(string(text, || format!("stop_sequences[{at}]"))?);
        }
    }
    Ok(Sampling {
        max_output: whole(fields.max_tokens, "max_tokens")?,
        temperature: digits(fields.temperature, "temperature")?,
        top_p: digits(fields.top_p, "top_p")?,
        top_k: whole(fields.top_k, "top_k")?,
        stop,
        ..Sampling::default()
    })
}

fn reasoning(fields: &Fields<'_>, notes: &mut Notes) -> Result<Option<Reasoning>, Invalid> {
    let effort = fields
        .output_config
        .and_then(|config| config.some("effort"));
    let effort = effort.map(effort_named).transpose()?;
    let Some(thinking) = fields.thinking else {
        let only_effort = |effort| Reasoning {
            effort: Some(effort),
            ..Reasoning::default()
        };
        return Ok(effort.map(only_effort));
    };
    let kind = thinking.some("type").and_then(|kind| kind.as_str());
    let kind = kind.as_ref().map(Str::plain);
    let mode = match kind.as_deref() {
        Some("enabled") => ReasoningMode::On,
        Some("disabled") => ReasoningMode::Off,
        Some("adaptive") => ReasoningMode::Adaptive,
        Some("between_tools") => {
            let what = "thinking.type=between_tools>adaptive";
            notes.warn_at(Action::Coerced, what, "thinking.type");
            ReasoningMode::Adaptive
        }
        _ => {
            let message = "thinking.type: expected enabled, disabled, adaptive or between_tools";
            return Err(Invalid::request("thinking.type", message));
        }
    };
    let budget = whole(thinking.some("budget_tokens"), "thinking.budget_tokens")?;
    if mode == ReasoningMode::On && budget.is_none() {
        let message = "thinking.budget_tokens: Field required";
        return Err(Invalid::request("thinking.budget_tokens", message));
    }
    let display = thinking
        .some("display")
        .and_then(|display| display.as_str());
    Ok(Some(Reasoning {
        mode,
        effort,
        budget: budget.map(|tokens| i64::try_from(tokens).unwrap_or(i64::MAX)),
        display: match display {
            Some(word) if word.is("omitted") => Display::Omit,
            Some(word) if word.is("summarized") => Display::Summary,
            _ => Display::Default,
        },
    }))
}

fn effort_named(value: Value<'_>) -> Result<Effort, Invalid> {
    let name = value.as_str();
    let known = name.and_then(|name| Effort::from_name(&name.plain()));
    known.ok_or_else(|| {
        let path = "output_config.effort";
        Invalid::request(
            path,
            format!("{path}: expected low, medium, high, xhigh or max"),
        )
    })
}

fn format<'a>(fields: &Fields<'a>, notes: &mut Notes) -> Result<Format<'a>, Invalid> {
    let mut path = "output_format";
    let mut told = fields.output_format;
    for (name, value) in fields.output_config.iter().flat_map(Value::members) {
        match name.plain().as_ref() {
            "effort" => {}
            "format" if value.is_null() => {}
            "format" => {
                path = "output_config.format";
                told = Some(value);
            }
            other => {
                value.whole();
                notes.warn(Action::Dropped, format!("output_config.{other}"));
            }
        }
    }
    let Some(format) = told else {
        return Ok(Format::Text);
    };
    let kind = format.some("type").and_then(|kind| kind.as_str());
    if !kind.is_some_and(|kind| kind.is("json_schema")) {
        let message = format!("{path}.type: expected json_schema");
        return Err(Invalid::request(format!("{path}.type"), message));
    }
    match format.some("schema") {
        Some(schema) if schema.is_object() => Ok(Format::Schema {
            name: format.some("name").and_then(|name| name.as_str()),
            description: None,
            schema: schema.raw(),
            strict: Some(true),
            bare_enum: false,
        }),
        _ => {
            let path = format!("{path}.schema");
            Err(Invalid::request(
                path.clone(),
                format!("{path}: expected an object"),
            ))
        }
    }
}

fn service(fields: &Fields<'_>) -> Result<Option<Service>, Invalid> {
    let told = |value: Option<Value<'_>>, path: &str| match value {
        Some(value) => string(value, || path.to_owned()).map(|text| text.to_plain_string()),
        None => Ok(String::new()),
    };
    let fast = told(fields.speed, "speed")? == "fast";
    Ok(match told(fields.service_tier, "service_tier")?.as_str() {
        _ if fast => Some(Service::Priority),
        "" => None,
        "auto" => Some(Service::Auto),
        "standard_only" => Some(Service::Standard),
        _ => Some(Service::Other),
    })
}

fn end_user<'a>(
    metadata: Option<Value<'a>>,
    notes: &mut Notes,
) -> Result<Option<Str<'a>>, Invalid> {
    let mut user = None;
    for (name, value) in metadata.iter().flat_map(Value::members) {
        if !name.is("user_id") {
            value.whole();
            notes.info(Action::Dropped, format!("metadata.{}", name.plain()));
        } else if !value.is_null() {
            user = Some(string(value, || "metadata.user_id".to_owned())?);
        }
    }
    Ok(user)
}
