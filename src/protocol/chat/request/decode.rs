//! A client's request, field by field.

mod reasoning;
mod tools;
mod turns;

pub(crate) use self::turns::{medium_of_image, signature, thinking_text};

use crate::protocol::Protocol;
use crate::protocol::ir::{
    Cache, Format, Invalid, Lifetime, Request, Sampling, Service, State, WebSearch,
};
use crate::protocol::json::{Str, Value};
use crate::protocol::notes::{Action, Notes};

use super::Fields;

/// Reads a client's request.
///
/// # Errors
///
/// Where the request is wrong, naming the field.
pub fn decode<'a>(body: Value<'a>, notes: &mut Notes) -> Result<Request<'a>, Invalid> {
    let body = Fields::of_body(body)?;
    if body.flag("store")? == Some(true) {
        // The gateway keeps no completions, and asks no provider to.
        notes.info(Action::Dropped, "store");
    }
    let conversation = turns::decode(&body)?;
    let tools = tools::decode(&body)?;
    let stream = body.flag("stream")?.unwrap_or_default();
    Ok(Request {
        model: body.wanted("model")?,
        origin: Protocol::Chat,
        stream,
        include_usage: include_usage(&body, stream)?,
        system: conversation.system,
        turns: conversation.turns,
        tool_choice: tools::choice(&body)?,
        custom_tools: tools::any_custom(&tools) || conversation.custom,
        legacy_functions: body.some("tools").is_none() && body.some("functions").is_some(),
        tools,
        parallel: body.flag("parallel_tool_calls")?,
        sampling: sampling_of_chat(&body)?,
        reasoning: reasoning::decode(&body)?,
        format: format(&body)?,
        verbosity: body.string("verbosity")?,
        image_output: image_output(&body)?,
        web_search: web_search(&body, notes)?,
        max_tool_calls: body.count("max_tool_calls")?,
        service: service(&body)?,
        cache: cache(&body)?,
        end_user: match body.string("safety_identifier")? {
            Some(identifier) => Some(identifier),
            None => body.string("user")?,
        },
        metadata: body.raw_object("metadata")?,
        state: State {
            store: body.flag("store")?,
            ..State::default()
        },
    })
}

/// Whether a stream is to end with its usage. Without a stream, options of a
/// stream are ignored.
pub(crate) fn include_usage(body: &Fields<'_>, stream: bool) -> Result<bool, Invalid> {
    if !stream {
        body.value.skip("stream_options");
        return Ok(false);
    }
    let Some(options) = body.object("stream_options")? else {
        return Ok(false);
    };
    // None is made here, whatever is asked.
    options.flag("include_obfuscation")?;
    Ok(options.flag("include_usage")?.unwrap_or_default())
}

fn sampling_of_chat<'a>(body: &Fields<'a>) -> Result<Sampling<'a>, Invalid> {
    let newer = body.at_least_one("max_completion_tokens")?;
    let older = body.at_least_one("max_tokens")?;
    Ok(Sampling {
        max_output: newer.or(older),
        logprobs: body.flag("logprobs")?.unwrap_or_default(),
        top_logprobs: body.count("top_logprobs")?,
        ..sampling(body)?
    })
}

/// What chat and legacy completions have in common.
pub(crate) fn sampling<'a>(body: &Fields<'a>) -> Result<Sampling<'a>, Invalid> {
    let mut stop = body.strings("stop")?;
    stop.retain(|text| !text.is_empty());
    Ok(Sampling {
        temperature: body.digits("temperature")?,
        top_p: body.digits("top_p")?,
        top_k: body.count("top_k")?,
        frequency_penalty: body.digits("frequency_penalty")?,
        presence_penalty: body.digits("presence_penalty")?,
        seed: body.digits("seed")?,
        stop,
        n: body.at_least_one("n")?,
        logit_bias: body.raw_object("logit_bias")?,
        ..Sampling::default()
    })
}

fn format<'a>(body: &Fields<'a>) -> Result<Format<'a>, Invalid> {
    let Some(format) = body.object("response_format")? else {
        return Ok(Format::Text);
    };
    let kind = format.wanted("type")?;
    match kind.plain().as_ref() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::JsonObject),
        "json_schema" => {
            let missing = "'response_format.json_schema.schema' is required";
            let missing = || Invalid::request("response_format.json_schema.schema", missing);
            let schema = format.object("json_schema")?.ok_or_else(missing)?;
            Ok(Format::Schema {
                name: schema.string("name")?,
                description: schema.string("description")?,
                schema: schema.raw_object("schema")?.ok_or_else(missing)?,
                strict: schema.flag("strict")?,
                bare_enum: false,
            })
        }
        other => Err(Invalid::request(
            "response_format.type",
            format!(
                "'{other}' is no type of response_format; use text, json_object or json_schema"
            ),
        )),
    }
}

fn image_output(body: &Fields<'_>) -> Result<bool, Invalid> {
    let kinds = body.strings("modalities")?;
    if kinds.iter().any(|kind| kind.is("audio")) {
        return Err(Invalid::unsupported(
            "unsupported_parameter",
            "modalities",
            "audio output is only served by a provider that speaks chat itself",
        ));
    }
    Ok(kinds.iter().any(|kind| kind.is("image")))
}

fn web_search<'a>(body: &Fields<'a>, notes: &mut Notes) -> Result<Option<WebSearch<'a>>, Invalid> {
    let mut wanted = None;
    for plugin in body.objects("plugins")? {
        if plugin.string("id")?.is_some_and(|id| id.is("web")) {
            wanted = Some(WebSearch::default());
        } else {
            notes.warn(Action::Dropped, "plugins");
        }
    }
    match body.object("web_search_options")? {
        Some(options) => tools::web_search(&options).map(Some),
        None => Ok(wanted),
    }
}

fn service(body: &Fields<'_>) -> Result<Option<Service>, Invalid> {
    let word = body.string("service_tier")?;
    Ok(word.map(|word| match word.plain().as_ref() {
        "auto" => Service::Auto,
        "default" | "standard" => Service::Standard,
        "flex" => Service::Flex,
        "priority" => Service::Priority,
        _ => Service::Other,
    }))
}

fn cache<'a>(body: &Fields<'a>) -> Result<Cache<'a>, Invalid> {
    Ok(Cache {
        key: body.string("prompt_cache_key")?,
        auto: body.some("cache_control").map(lifetime),
    })
}

/// A cache mark behind a part: OpenAI's own, or Anthropic's as many clients send
/// it through chat.
fn mark(part: &Fields<'_>) -> Option<Lifetime> {
    let mark = part.some("prompt_cache_breakpoint");
    mark.or_else(|| part.some("cache_control"))
        .map(|mark| lifetime(mark.whole()))
}

fn lifetime(mark: Value<'_>) -> Lifetime {
    let ttl: Option<Str<'_>> = mark.some("ttl").and_then(|ttl| ttl.as_str());
    match ttl {
        Some(ttl) if ttl.plain().ends_with('h') => Lifetime::Long,
        _ => Lifetime::Short,
    }
}
