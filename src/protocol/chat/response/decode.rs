//! A provider's whole answer.

use crate::protocol::Protocol;
use crate::protocol::chat::details::{self, From};
use crate::protocol::chat::request::{medium_of_image, signature, thinking_text};
use crate::protocol::chat::{annotations, finish, mint, think};
use crate::protocol::error::{UpstreamError, error_in_answer, unreadable};
use crate::protocol::ir::{
    Annotation, Arguments, Call, Choice, Opaque, OpaqueKind, Part, Response, Text, Thought,
};
use crate::protocol::json::{Str, Value};
use crate::protocol::usage;

/// The most answers of one request.
const CHOICES: usize = 128;

/// Reads a provider's answer.
///
/// # Errors
///
/// Where it is an error in the clothes of an answer, or no answer at all.
pub fn decode(body: Value<'_>) -> Result<Response<'_>, UpstreamError> {
    let raw = body.raw();
    if failed(body) {
        return Err(error_in_answer(raw.as_str().as_bytes()));
    }
    let choices = body.some("choices").filter(|choices| !choices.is_empty());
    let Some(choices) = choices.filter(Value::is_array) else {
        return Err(unreadable(raw.as_str().as_bytes()));
    };
    let mut response = Response {
        upstream_id: filled(body, "id"),
        upstream_model: filled(body, "model"),
        service: filled(body, "service_tier"),
        fingerprint: filled(body, "system_fingerprint"),
        ..Response::default()
    };
    for (position, value) in choices.items().enumerate().take(CHOICES) {
        let index = value.some("index").and_then(|index| index.as_u64());
        let index = index.and_then(|index| usize::try_from(index).ok());
        let index = index.filter(|index| *index < CHOICES).unwrap_or(position);
        while response.choices.len() <= index {
            response.choices.push(Choice::default());
        }
        let seed = mint::Seed::of(body);
        if let Some(slot) = response.choices.get_mut(index) {
            *slot = choice(value, &seed, index);
        }
    }
    if let Some(told) = body.some("usage") {
        response.usage = usage::decode(Protocol::Chat, told.raw().as_str().as_bytes());
        response.web_searches = searches(told);
    }
    let sources = body.some("citations");
    if let (Some(sources), Some(first)) = (sources, response.choices.first_mut()) {
        cite(first, sources);
    }
    Ok(response)
}

/// Takes reasoning at the start of the text out of its `<think>` tags, for a
/// provider that leaves it there.
pub fn take_think_tags(response: &mut Response<'_>) {
    for choice in &mut response.choices {
        think::split_parts(&mut choice.parts);
    }
}

/// Whether an answer is an error: at the top, in one of its choices, or by its
/// finish reason.
fn failed(body: Value<'_>) -> bool {
    if body.some("error").is_some_and(says_something) {
        return true;
    }
    let Some(choices) = body.some("choices") else {
        return false;
    };
    choices.items().any(|choice| {
        let word = choice.some("finish_reason").and_then(|word| word.as_str());
        let error = choice.some("error");
        word.is_some_and(|word| word.is("error")) || error.is_some_and(says_something)
    })
}

/// Whether the value of `error` is one: some servers send it empty.
pub(crate) fn says_something(error: Value<'_>) -> bool {
    let empty = error.is_empty() || error.as_str().is_some_and(|text| text.is_empty());
    !empty && error.as_bool() != Some(false)
}

/// A string that is not empty.
pub(crate) fn filled<'a>(object: Value<'a>, name: &str) -> Option<Str<'a>> {
    object.some(name)?.as_str().filter(|text| !text.is_empty())
}

/// Searches that a provider made, as OpenRouter tells them.
pub(crate) fn searches(usage: Value<'_>) -> Option<u64> {
    let tools = usage.some("server_tool_use")?;
    tools.some("web_search_requests")?.as_u64()
}

fn choice<'a>(value: Value<'a>, seed: &mint::Seed<'_>, index: usize) -> Choice<'a> {
    let mut parts = Vec::new();
    let mut calls = false;
    let mut refused = false;
    if let Some(message) = value.some("message") {
        let reasoned = details::read(message, From::Provider);
        parts.extend(reasoned.thoughts.into_iter().map(Part::Reasoning));
        content(message, &mut parts);
        if let Some(refusal) = filled(message, "refusal") {
            refused = true;
            parts.push(Part::Refusal(refusal));
        }
        let before = parts.len();
        let mut reader = Calls {
            seed,
            choice: index,
            signed: &reasoned.on_calls,
            parts: &mut parts,
        };
        reader.read(message);
        calls = parts.len() > before;
    }
    let word = value.some("finish_reason").and_then(|word| word.as_str());
    let word = word.unwrap_or_default();
    let logprobs = value.some("logprobs").and_then(|all| all.some("content"));
    let logprobs = logprobs.map(|all| all.items().map(|one| one.raw()).collect());
    Choice {
        parts,
        finish: Some(finish::read(&word.plain(), calls, refused)),
        logprobs: logprobs.unwrap_or_default(),
    }
}

fn content<'a>(message: Value<'a>, parts: &mut Vec<Part<'a>>) {
    let annotations: Vec<Annotation<'a>> = match message.some("annotations") {
        Some(list) => list
            .items()
            .filter_map(|one| annotations::read(one, 0))
            .collect(),
        None => Vec::new(),
    };
    let push = |text: Str<'a>, annotations, parts: &mut Vec<Part<'a>>| {
        parts.push(Part::Text(Text {
            annotations,
            ..Text::new(text)
        }));
    };
    if let Some(value) = message.some("content") {
        match value.as_str() {
            Some(text) if text.is_empty() && annotations.is_empty() => {}
            Some(text) => push(text, annotations, parts),
            None => value.items().for_each(|item| {
                if let Some(part) = content_part(item) {
                    parts.push(part);
                }
            }),
        }
    }
    if let Some(images) = message.some("images") {
        parts.extend(images.items().filter_map(medium_of_image).map(Part::Media));
    }
}

/// A part of content that is an array, as Mistral and some others have it.
pub(crate) fn content_part<'a>(item: Value<'a>) -> Option<Part<'a>> {
    if let Some(text) = filled(item, "text") {
        return Some(Part::Text(Text::new(text)));
    }
    let thinking = thinking_text(item);
    if !thinking.is_empty() {
        return Some(Part::Reasoning(Thought {
            text: thinking,
            ..Thought::default()
        }));
    }
    if let Some(refusal) = filled(item, "refusal") {
        return Some(Part::Refusal(refusal));
    }
    medium_of_image(item).map(Part::Media)
}

/// Puts a list of addresses behind the text, where nothing else is cited.
fn cite<'a>(choice: &mut Choice<'a>, sources: Value<'a>) {
    let text = choice.parts.iter_mut().find_map(|part| match part {
        Part::Text(text) => Some(text),
        _ => None,
    });
    let Some(text) = text.filter(|text| text.annotations.is_empty()) else {
        return;
    };
    let urls = sources.items().filter_map(|url| url.as_str());
    text.annotations = urls.map(annotations::of_url).collect();
}

struct Calls<'c, 'a> {
    seed: &'c mint::Seed<'c>,
    choice: usize,
    signed: &'c [(Str<'a>, Opaque<'a>)],
    parts: &'c mut Vec<Part<'a>>,
}

impl<'a> Calls<'_, 'a> {
    fn read(&mut self, message: Value<'a>) {
        if let Some(calls) = message.some("tool_calls") {
            for entry in calls.items() {
                if let Some(function) = entry.some("function") {
                    self.call(entry, function, false);
                } else if let Some(custom) = entry.some("custom") {
                    self.call(entry, custom, true);
                }
            }
        }
        if let Some(legacy) = message.some("function_call") {
            self.call(legacy, legacy, false);
        }
    }

    fn call(&mut self, entry: Value<'a>, inner: Value<'a>, custom: bool) {
        let Some(name) = filled(inner, "name") else {
            return;
        };
        let id = filled(entry, "id");
        let id = id.unwrap_or_else(|| self.seed.id(self.choice, self.parts.len()));
        let told = inner.some(if custom { "input" } else { "arguments" });
        let text = told.and_then(|told| told.as_str());
        let arguments = match (text, told) {
            (Some(text), _) if custom => Arguments::Free(text),
            (Some(text), _) => Arguments::Text(text),
            (None, Some(value)) => Arguments::Object(value.raw()),
            (None, None) => Arguments::Text(Str::default()),
        };
        let own = signature(entry)
            .map(|data| details::blob(data, OpaqueKind::GeminiSignature, From::Provider).0);
        let signed = self.signed.iter().find(|(call, _)| *call == id);
        self.parts.push(Part::Call(Call {
            name,
            namespace: None,
            arguments,
            opaque: own.or_else(|| signed.map(|(_, opaque)| opaque.clone())),
            cache: None,
            id,
        }));
    }
}
