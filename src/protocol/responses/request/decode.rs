//! A client's request: its fields, one by one. The conversation is read in
//! `input`, the tools in `tools`.

use crate::protocol::Protocol;
use crate::protocol::ir::{
    Digits, Display, Effort, Format, Invalid, Reasoning, ReasoningMode, Request, Service,
    SystemBlock,
};
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};

use super::input;
use super::tools;

/// Reads a client's request.
///
/// A request that goes on from a kept answer must have been expanded before: it is
/// refused here, as one whose answer is not known.
///
/// # Errors
///
/// Where the request is wrong, or asks for what no translation can give, naming
/// the field.
pub fn decode<'a>(body: Value<'a>, notes: &mut Notes) -> Result<Request<'a>, Invalid> {
    if !body.is_object() {
        let message = format!("expected an object, got {}", body.sort());
        return Err(Invalid::request("", message));
    }
    let mut request = empty();
    for (name, value) in body.members() {
        if !value.is_null() {
            field(&mut request, &name, value, notes)?;
        }
    }
    // Names may stand twice; what counts is read off the document itself.
    if let Some(list) = body.some("tools") {
        tools::decode(list, "tools", &mut request.tools, notes)?;
    }
    match body.some("input") {
        Some(value) => input::decode(value, &mut request, notes)?,
        None => return Err(Invalid::request("input", "input is missing")),
    }
    if request.model.is_empty() {
        return Err(Invalid::request("model", "model is missing"));
    }
    tools::deduplicate(&mut request.tools);
    Ok(request)
}

fn empty<'a>() -> Request<'a> {
    Request {
        custom_tools: true,
        ..Request::of(Protocol::Responses)
    }
}

fn field<'a>(
    request: &mut Request<'a>,
    name: &Str<'a>,
    value: Value<'a>,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    let plain = name.plain();
    match plain.as_ref() {
        "model" => request.model = string(value, "model")?,
        "stream" => request.stream = truth(value, "stream")?,
        "instructions" => instructions(request, value)?,
        "tool_choice" => request.tool_choice = Some(tools::choice(value)?),
        "parallel_tool_calls" => request.parallel = Some(truth(value, "parallel_tool_calls")?),
        "max_output_tokens" => request.sampling.max_output = Some(count(value, &plain)?),
        "temperature" => request.sampling.temperature = Some(digits(value, "temperature")?),
        "top_p" => request.sampling.top_p = Some(digits(value, "top_p")?),
        "top_logprobs" => request.sampling.top_logprobs = Some(count(value, &plain)?),
        "max_tool_calls" => request.max_tool_calls = Some(count(value, &plain)?),
        "reasoning" => reasoning(request, value, notes)?,
        "text" => text(request, value, "text", notes)?,
        "service_tier" => request.service = Some(service(&string(value, "service_tier")?)),
        "safety_identifier" => request.end_user = Some(string(value, "safety_identifier")?),
        "user" => {
            let user = string(value, "user")?;
            request.end_user.get_or_insert(user);
        }
        "metadata" if value.is_object() => request.metadata = Some(value.raw()),
        "prompt_cache_key" => request.cache.key = Some(string(value, "prompt_cache_key")?),
        "store" => request.state.store = Some(truth(value, "store")?),
        "include" => include(request, value)?,
        // Read once the rest is.
        "input" | "tools" => {}
        other => return elsewhere(other, value, notes),
    }
    Ok(())
}

/// Fields that the intermediate representation has no place for.
fn elsewhere(name: &str, value: Value<'_>, notes: &mut Notes) -> Result<(), Invalid> {
    let asked = value.whole().as_bool() != Some(false) && !value.is_empty();
    match name {
        "previous_response_id" => {
            let id = string(value, "previous_response_id")?;
            return Err(not_found(&id));
        }
        "conversation" | "prompt" => {
            return Err(Invalid::unsupported(
                "unsupported_parameter",
                name,
                format!("'{name}' is kept by OpenAI, and this model is served by another protocol"),
            ));
        }
        "background" if asked => {
            return Err(Invalid::unsupported(
                "unsupported_parameter",
                name,
                "background responses need a model that is served over the responses protocol",
            ));
        }
        "background" | "stream_options" => {}
        "truncation" => {
            if value.as_str().is_some_and(|word| word.is("auto")) {
                notes.warn(Action::Dropped, "truncation");
            }
        }
        "prompt_cache_options" => {
            if value.get("prewarm").and_then(|v| v.as_bool()) == Some(true) {
                let path = "prompt_cache_options.prewarm";
                let message = "a cache can be warmed over the responses protocol only";
                return Err(Invalid::unsupported("unsupported_parameter", path, message));
            }
            notes.info(Action::Dropped, "prompt_cache_options");
        }
        "prompt_cache_retention" | "client_metadata" | "metadata" => {
            notes.info(Action::Dropped, name.to_owned());
        }
        "context_management" if !asked => {}
        _ => notes.warn(Action::Dropped, name.to_owned()),
    }
    Ok(())
}

pub(super) fn not_found(id: &Str<'_>) -> Invalid {
    let id = id.plain();
    let id: String = id.chars().take(128).collect();
    Invalid {
        code: Some("previous_response_not_found"),
        ..Invalid::request(
            "previous_response_id",
            format!("Previous response with id '{id}' not found."),
        )
    }
}

fn instructions<'a>(request: &mut Request<'a>, value: Value<'a>) -> Result<(), Invalid> {
    let text = string(value, "instructions")?;
    request.system.clear();
    if !text.is_empty() {
        request.system.push(SystemBlock { text, cache: None });
    }
    Ok(())
}

fn reasoning(
    request: &mut Request<'_>,
    value: Value<'_>,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    let mut reasoning = Reasoning::default();
    if let Some(effort) = value.some("effort") {
        set_effort(&mut reasoning, effort, "reasoning.effort")?;
    }
    let summary = value
        .get("summary")
        .or_else(|| value.get("generate_summary"));
    reasoning.display = match summary {
        Some(summary) if summary.is_null() => Display::Omit,
        Some(_) => Display::Summary,
        None => Display::Default,
    };
    for (name, path) in [("context", "reasoning.context"), ("mode", "reasoning.mode")] {
        if value.some(name).is_some() {
            notes.info(Action::Dropped, path);
        }
    }
    request.reasoning = (reasoning != Reasoning::default()).then_some(reasoning);
    Ok(())
}

fn set_effort(reasoning: &mut Reasoning, value: Value<'_>, path: &str) -> Result<(), Invalid> {
    let word = string(value, path)?;
    let word = word.plain();
    let Some(effort) = Effort::from_name(&word) else {
        let known = "none, minimal, low, medium, high, xhigh or max";
        return Err(unknown(path, &word, known));
    };
    reasoning.effort = Some(effort);
    reasoning.mode = match effort {
        Effort::None => ReasoningMode::Off,
        _ => ReasoningMode::Default,
    };
    Ok(())
}

/// An item of the conversation that changes effort or format from there on.
pub(super) fn update<'a>(
    request: &mut Request<'a>,
    item: Value<'a>,
    path: &str,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    if let Some(effort) = item.some("reasoning").and_then(|r| r.some("effort")) {
        let path = format!("{path}.reasoning.effort");
        let mut reasoning = request.reasoning.take().unwrap_or_default();
        set_effort(&mut reasoning, effort, &path)?;
        request.reasoning = Some(reasoning);
    }
    match item.some("text") {
        Some(value) => text(request, value, &format!("{path}.text"), notes),
        None => Ok(()),
    }
}

fn text<'a>(
    request: &mut Request<'a>,
    value: Value<'a>,
    path: &str,
    notes: &mut Notes,
) -> Result<(), Invalid> {
    for (name, value) in value.members().filter(|(_, value)| !value.is_null()) {
        match name.plain().as_ref() {
            "format" => request.format = format(value, &format!("{path}.format"))?,
            "verbosity" => request.verbosity = Some(string(value, &format!("{path}.verbosity"))?),
            other => {
                value.whole();
                notes.warn(Action::Dropped, format!("{path}.{other}"));
            }
        }
    }
    Ok(())
}

fn format<'a>(value: Value<'a>, path: &str) -> Result<Format<'a>, Invalid> {
    let kind = value.some("type").and_then(|kind| kind.as_str());
    let kind = kind.unwrap_or(Str::new("text"));
    match kind.plain().as_ref() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        "json_schema" => {
            // Chat has it one level deeper; some clients write it so here.
            let inner = value.some("json_schema").unwrap_or(value);
            let word = |name| inner.some(name).and_then(|value| value.as_str());
            let Some(schema) = inner.some("schema").filter(Value::is_object) else {
                let path = format!("{path}.schema");
                return Err(Invalid::request(path, "expected a JSON Schema object"));
            };
            Ok(Format::Schema {
                name: word("name"),
                description: word("description"),
                schema: schema.raw(),
                strict: inner.some("strict").and_then(|strict| strict.as_bool()),
                bare_enum: false,
            })
        }
        other => Err(unknown(
            &format!("{path}.type"),
            other,
            "text, json_object or json_schema",
        )),
    }
}

fn service(word: &Str<'_>) -> Service {
    match word.plain().as_ref() {
        "auto" => Service::Auto,
        "default" | "standard" => Service::Standard,
        "flex" => Service::Flex,
        "priority" => Service::Priority,
        _ => Service::Other,
    }
}

fn include<'a>(request: &mut Request<'a>, value: Value<'a>) -> Result<(), Invalid> {
    if !value.is_array() {
        return Err(wanted("include", "an array", value));
    }
    request.state.include = value.items().filter_map(|word| word.as_str()).collect();
    let mut words = request.state.include.iter();
    request.sampling.logprobs = words.any(|word| word.is("message.output_text.logprobs"));
    Ok(())
}

pub(super) fn unknown(path: &str, word: &str, known: &str) -> Invalid {
    let word: String = word.chars().take(64).collect();
    Invalid::request(path, format!("expected {known}, got '{word}'"))
}

pub(super) fn wanted(path: &str, what: &str, value: Value<'_>) -> Invalid {
    Invalid::request(path, format!("expected {what}, got {}", value.sort()))
}

pub(super) fn string<'a>(value: Value<'a>, path: &str) -> Result<Str<'a>, Invalid> {
    value
        .as_str()
        .ok_or_else(|| wanted(path, "a string", value))
}

fn truth(value: Value<'_>, path: &str) -> Result<bool, Invalid> {
    value
        .as_bool()
        .ok_or_else(|| wanted(path, "a boolean", value))
}

fn count(value: Value<'_>, path: &str) -> Result<u64, Invalid> {
    let read = value.as_u64();
    read.ok_or_else(|| Invalid::request(path, "expected a whole number that is not negative"))
}

fn digits<'a>(value: Value<'a>, path: &str) -> Result<Digits<'a>, Invalid> {
    let read = value.number().zip(value.as_f64());
    let (text, value) = read.ok_or_else(|| wanted(path, "a number", value))?;
    Ok(Digits { text, value })
}
