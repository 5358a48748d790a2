//! Output items as they are read: in a provider's answer, in a stream's events,
//! and in the history that a client sends back.

use crate::protocol::Protocol;
use crate::protocol::ir::{
    Annotation, Arguments, Call, Hosted, HostedKind, Media, MediaKind, Opaque, OpaqueKind, Part,
    SearchHit, Text, Thought,
};
use crate::protocol::json::{Raw, Str, Value};
use crate::protocol::media;

/// The most results of one search that are looked at.
const HITS: usize = 256;

/// The type of an item; one without is a message.
pub(super) fn kind<'a>(item: Value<'a>) -> Str<'a> {
    string(item, "type").unwrap_or(Str::new("message"))
}

/// A member that is a string.
pub(super) fn string<'a>(object: Value<'a>, name: &str) -> Option<Str<'a>> {
    object.get(name)?.as_str()
}

/// As [`string`], an empty one being as good as none.
pub(super) fn filled<'a>(object: Value<'a>, name: &str) -> Option<Str<'a>> {
    string(object, name).filter(|text| !text.is_empty())
}

/// What a provider's finished item says; nothing for items that mean nothing to
/// other protocols.
pub(super) fn parts(item: Value<'_>) -> Vec<Part<'_>> {
    let kind = kind(item);
    let part = match kind.plain().as_ref() {
        "message" => return message(item),
        "reasoning" => {
            let thought = thought(item, |data| Opaque {
                kind: OpaqueKind::OpenAiEncrypted,
                data,
                model: None,
                account: None,
            });
            (!is_blank(&thought)).then_some(Part::Reasoning(thought))
        }
        "function_call" | "custom_tool_call" => call(item).map(Part::Call),
        "image_generation_call" => picture(item).map(Part::Media),
        other => hosted(item, other).map(Part::Hosted),
    };
    part.into_iter().collect()
}

fn is_blank(thought: &Thought<'_>) -> bool {
    thought.text.is_empty() && thought.summary.is_empty() && thought.opaque.is_none()
}

fn message(item: Value<'_>) -> Vec<Part<'_>> {
    let content = item.get("content");
    let parts = content.into_iter().flat_map(|content| content.items());
    let says = |part: &Part<'_>| match part {
        Part::Text(text) => !text.text.is_empty(),
        Part::Refusal(text) => !text.is_empty(),
        _ => true,
    };
    parts.filter_map(content_part).filter(says).collect()
}

/// A part of an assistant's message: text or refusal.
pub(super) fn content_part(part: Value<'_>) -> Option<Part<'_>> {
    if let Some(refusal) = string(part, "refusal") {
        return Some(Part::Refusal(refusal));
    }
    Some(Part::Text(Text {
        text: string(part, "text")?,
        annotations: annotations(part),
        ..Text::default()
    }))
}

/// What a text part refers to.
pub(super) fn annotations(part: Value<'_>) -> Vec<Annotation<'_>> {
    let list = part.get("annotations");
    let list = list.into_iter().flat_map(|list| list.items());
    list.filter_map(annotation).collect()
}

/// One reference; `None` for kinds without an address.
pub(super) fn annotation(value: Value<'_>) -> Option<Annotation<'_>> {
    let place = |name| value.get(name)?.as_u64()?.try_into().ok();
    Some(Annotation {
        url: filled(value, "url")?,
        title: filled(value, "title"),
        cited: None,
        span: place("start_index")
            .zip(place("end_index"))
            .filter(|(from, to)| from <= to),
    })
}

/// Probabilities of a text part.
pub(super) fn logprobs(part: Value<'_>) -> Vec<Raw<'_>> {
    let list = part.get("logprobs");
    let list = list.into_iter().flat_map(|list| list.items());
    list.map(|token| token.raw()).collect()
}

/// The texts of an array of parts.
pub(super) fn texts<'a>(item: Value<'a>, name: &str) -> Vec<Str<'a>> {
    let list = item.get(name);
    let list = list.into_iter().flat_map(|list| list.items());
    list.filter_map(|part| string(part, "text")).collect()
}

/// A reasoning item. `opaque` says what its ciphertext is.
pub(super) fn thought<'a>(
    item: Value<'a>,
    opaque: impl FnOnce(Str<'a>) -> Opaque<'a>,
) -> Thought<'a> {
    Thought {
        text: joined(texts(item, "content"), ""),
        summary: texts(item, "summary"),
        opaque: filled(item, "encrypted_content").map(opaque),
        redacted: false,
    }
}

/// Several texts as one.
pub(super) fn joined<'a>(mut texts: Vec<Str<'a>>, between: &str) -> Str<'a> {
    if texts.len() <= 1 {
        return texts.pop().unwrap_or_default();
    }
    let plain: Vec<_> = texts.iter().map(Str::plain).collect();
    Str::from(plain.join(between))
}

/// A call of a client's tool; `None` when it has no name.
pub(super) fn call(item: Value<'_>) -> Option<Call<'_>> {
    let custom = kind(item).is("custom_tool_call");
    let arguments = match (custom, item.some("arguments")) {
        (true, _) => Arguments::Free(string(item, "input").unwrap_or_default()),
        (false, Some(value)) if value.is_object() => Arguments::Object(value.raw()),
        (false, value) => {
            let text = value.and_then(|value| value.as_str());
            Arguments::Text(text.unwrap_or_default())
        }
    };
    Some(Call {
        id: call_id(item).unwrap_or_default(),
        name: filled(item, "name")?,
        namespace: filled(item, "namespace"),
        arguments,
        opaque: None,
        cache: None,
    })
}

/// The id that pairs a call with its result. Some clients write the item's id
/// behind it, after a bar.
pub(super) fn call_id(item: Value<'_>) -> Option<Str<'_>> {
    let id = filled(item, "call_id").or_else(|| filled(item, "id"))?;
    let inner = id.inner();
    if memchr::memchr(b'|', inner.as_bytes()).is_none() {
        drop(inner);
        return Some(id);
    }
    drop(inner);
    let plain = id.plain();
    let first = plain.split('|').next().unwrap_or_default();
    let first = if first.is_empty() { &plain } else { first };
    Some(Str::from(first.to_owned()))
}

/// A drawn picture.
pub(super) fn picture(item: Value<'_>) -> Option<Media<'_>> {
    let format = string(item, "output_format");
    let mime = match format.as_ref().map(Str::plain).as_deref() {
        Some("jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("gif") => "image/gif",
        Some("svg") => "image/svg+xml",
        _ => "image/png",
    };
    Some(Media {
        kind: MediaKind::Image,
        source: media::inline(mime, filled(item, "result")?),
        name: None,
        context: None,
        detail: None,
        cite: false,
        cache: None,
        path: String::new(),
    })
}

/// A hosted tool's call with what came of it.
pub(super) fn hosted<'a>(item: Value<'a>, kind: &str) -> Option<Hosted<'a>> {
    let mut hosted = Hosted {
        kind: HostedKind::Other,
        id: string(item, "id").unwrap_or_default(),
        input: None,
        sources: Vec::new(),
        output: None,
        failed: string(item, "status").is_some_and(|status| status.is("failed")),
        native: vec![item.raw()],
        origin: Protocol::Responses,
    };
    match kind {
        "web_search_call" => search(item, &mut hosted),
        "code_interpreter_call" => code(item, &mut hosted),
        "file_search_call" => hosted.kind = HostedKind::FileSearch,
        "mcp_call" | "tool_search_call" => {}
        _ => return None,
    }
    Some(hosted)
}

fn search<'a>(item: Value<'a>, hosted: &mut Hosted<'a>) {
    hosted.kind = HostedKind::WebSearch;
    let Some(action) = item.some("action") else {
        return;
    };
    let queries = action.get("queries").and_then(|list| list.items().next());
    let query = filled(action, "query").or_else(|| queries?.as_str());
    let (name, value) = match (query, filled(action, "url")) {
        (Some(query), _) => ("query", query),
        (None, Some(url)) => ("url", url),
        (None, None) => ("query", Str::default()),
    };
    hosted.input = Raw::parse(format!("{{\"{name}\":\"{}\"}}", value.inner())).ok();
    let sources = action.get("sources");
    let sources = sources.into_iter().flat_map(|list| list.items()).take(HITS);
    let hit = |source: Value<'a>| {
        Some(SearchHit {
            url: filled(source, "url")?,
            title: filled(source, "title"),
        })
    };
    hosted.sources = sources.filter_map(hit).collect();
}

fn code<'a>(item: Value<'a>, hosted: &mut Hosted<'a>) {
    hosted.kind = HostedKind::Code;
    if let Some(code) = string(item, "code") {
        hosted.input = Raw::parse(format!("{{\"code\":\"{}\"}}", code.inner())).ok();
    }
    let outputs = item.get("outputs");
    let outputs = outputs.into_iter().flat_map(|list| list.items());
    let logs: Vec<_> = outputs
        .filter_map(|output| string(output, "logs"))
        .collect();
    hosted.output = (!logs.is_empty()).then(|| joined(logs, "\n"));
}
