//! The conversation as a provider is given it, item by item. Items go without
//! ids: a provider would look up what it never made.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::fit::{Names, call_id};
use crate::protocol::ir::{
    Annotation, Arguments, Call, Hosted, HostedKind, Invalid, Lifetime, Media, MediaKind, Opaque,
    OpaqueKind, Part, Request, Role, Source, SystemBlock, Text, Thought, ToolResult,
};
use crate::protocol::json::write::{Array, Object, string};
use crate::protocol::json::{Str, Tape};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::translate::Target;
use crate::protocol::turns::Arrangement;

/// What a failed tool's result begins with.
const FAILED: &str = "[tool error] ";
/// The most cache marks of a request.
const MARKS: usize = 4;

/// Writes the items.
pub(super) struct Items<'w, 'o> {
    pub(super) request: &'w Request<'w>,
    pub(super) target: &'w Target<'w>,
    pub(super) notes: &'w mut Notes,
    pub(super) names: &'w mut Names,
    pub(super) array: Array<'o>,
    /// Cache marks that are passed over: only the last few may stand.
    pub(super) skip: usize,
}

/// How many cache marks of a conversation are too many.
pub(super) fn marks_to_skip(
    system: &[Cow<'_, SystemBlock<'_>>],
    turns: &[Arrangement<'_, '_>],
) -> usize {
    let system = system.iter().filter(|block| block.cache.is_some()).count();
    let parts = turns.iter().flat_map(|turn| turn.parts.iter());
    let marked = parts.filter(|part| match part.as_ref() {
        Part::Text(text) => text.cache.is_some(),
        Part::Media(media) => media.cache.is_some(),
        _ => false,
    });
    (system + marked.count()).saturating_sub(MARKS)
}

/// Whether system text is marked where marks are known: then it can't be
/// `instructions`, which are one string.
pub(super) fn has_marked_system(system: &[Cow<'_, SystemBlock<'_>>], target: &Target<'_>) -> bool {
    target.capabilities.cache_breakpoints && system.iter().any(|block| block.cache.is_some())
}

impl Items<'_, '_> {
    /// Leading system text as a message.
    pub(super) fn system(&mut self, system: &[Cow<'_, SystemBlock<'_>>]) {
        if system.is_empty() {
            return;
        }
        let mut item = self.array.object();
        item.text("type", "message").text("role", "developer");
        let mut content = item.array("content");
        for block in system {
            let mark = next_mark(
                block.cache,
                &mut self.skip,
                self.target,
                self.notes,
                self.request,
            );
            let mut part = content.object();
            part.text("type", "input_text").str("text", &block.text);
            write_mark(mark, &mut part);
        }
    }

    /// Text that the gateway adds.
    pub(super) fn developer(&mut self, text: &str) {
        let mut item = self.array.object();
        item.text("type", "message").text("role", "developer");
        let mut content = item.array("content");
        content
            .object()
            .text("type", "input_text")
            .text("text", text);
    }

    /// A turn.
    pub(super) fn turn(&mut self, turn: &Arrangement<'_, '_>) -> Result<(), Invalid> {
        let mut rest = turn.parts.as_slice();
        while let Some(part) = rest.first() {
            let run = rest
                .iter()
                .take_while(|part| in_message(part, turn.role))
                .count();
            if run > 0 {
                let (message, behind) = rest.split_at(run);
                self.message(turn.role, message)?;
                rest = behind;
                continue;
            }
            rest = rest.get(1..).unwrap_or_default();
            match part.as_ref() {
                Part::Call(call) => self.call(call),
                Part::Result(result) => self.result(result)?,
                Part::Reasoning(thought) => self.reasoning(thought),
                Part::Hosted(hosted) => self.hosted(hosted),
                Part::Media(_) => self.message(Role::User, std::slice::from_ref(part))?,
                Part::Text(_) | Part::Refusal(_) => {}
            }
        }
        Ok(())
    }

    fn message(&mut self, role: Role, parts: &[Cow<'_, Part<'_>>]) -> Result<(), Invalid> {
        let start = self.array.element();
        let mut item = Object::open(start);
        let word = match role {
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::System => "developer",
        };
        item.text("type", "message").text("role", word);
        let mut content = item.array("content");
        for part in parts {
            let mark = match part.as_ref() {
                Part::Text(text) => text.cache,
                Part::Media(media) => media.cache,
                _ => None,
            };
            let mark = next_mark(mark, &mut self.skip, self.target, self.notes, self.request);
            match (part.as_ref(), role) {
                (Part::Text(text), Role::Assistant) => said(text, &mut content.object()),
                (Part::Text(text), _) => {
                    let mut object = content.object();
                    object.text("type", "input_text").str("text", &text.text);
                    write_mark(mark, &mut object);
                }
                (Part::Refusal(text), Role::Assistant) => {
                    content
                        .object()
                        .text("type", "refusal")
                        .str("refusal", text);
                }
                (Part::Refusal(text), _) => {
                    content
                        .object()
                        .text("type", "input_text")
                        .str("text", text);
                }
                (Part::Media(media), _) => {
                    medium(media, mark, self.target, self.notes, &mut content)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn call(&mut self, call: &Call<'_>) {
        let name = self
            .names
            .fit(&call.name, call.namespace.as_ref(), Protocol::Responses);
        let id = call_id(&call.id, Protocol::Responses);
        let mut item = self.array.object();
        let (kind, member) = match call.arguments {
            Arguments::Free(_) => ("custom_tool_call", "input"),
            _ => ("function_call", "arguments"),
        };
        item.text("type", kind)
            .text("call_id", &id)
            .text("name", &name);
        match &call.arguments {
            Arguments::Free(text) => item.str(member, text),
            Arguments::Text(text) if text.is_blank() => item.text(member, "{}"),
            Arguments::Text(text) => item.str(member, text),
            Arguments::Object(value) => item.text(member, &value.compact()),
        };
    }

    fn result(&mut self, result: &ToolResult<'_>) -> Result<(), Invalid> {
        let id = call_id(&result.id, Protocol::Responses);
        let mut item = self.array.object();
        let kind = match result.custom {
            true => "custom_tool_call_output",
            false => "function_call_output",
        };
        item.text("type", kind).text("call_id", &id);
        let failed = result.is_error && !begins_with_failure(&result.parts);
        match result.parts.as_slice() {
            [] if failed => {
                item.text("output", FAILED.trim_end());
            }
            [] => {
                item.text("output", "");
            }
            [Part::Text(text)] if failed => {
                let text = format!("{FAILED}{}", text.text.plain());
                item.text("output", &text);
            }
            [Part::Text(text)] => {
                item.str("output", &text.text);
            }
            parts => {
                let mut output = item.array("output");
                if failed {
                    let text = FAILED.trim_end();
                    output
                        .object()
                        .text("type", "input_text")
                        .text("text", text);
                }
                output_parts(parts, self.target, self.notes, &mut output)?;
            }
        }
        if result.is_error && !result.custom {
            item.text("status", "incomplete");
        }
        Ok(())
    }

    /// Reasoning goes back to the account that made it, and to no other: its
    /// readable text must not be taken for the assistant's words.
    fn reasoning(&mut self, thought: &Thought<'_>) {
        let blob = thought
            .opaque
            .as_ref()
            .filter(|o| is_own(o, self.target.account));
        let Some(blob) = blob else {
            let path = Field::Turns.path(self.request.origin);
            self.notes
                .warn_at(Action::Dropped, "reasoning_history", path);
            return;
        };
        let mut item = self.array.object();
        item.text("type", "reasoning");
        let mut summary = item.array("summary");
        for text in &thought.summary {
            summary
                .object()
                .text("type", "summary_text")
                .str("text", text);
        }
        drop(summary);
        if !thought.text.is_empty() {
            let mut content = item.array("content");
            content
                .object()
                .text("type", "reasoning_text")
                .str("text", &thought.text);
        }
        item.str("encrypted_content", &blob.data);
    }

    /// A hosted tool's call of another family: what code did is told, searches live
    /// on in the text that cites them.
    fn hosted(&mut self, hosted: &Hosted<'_>) {
        let path = Field::Turns.path(self.request.origin);
        if hosted.kind != HostedKind::Code {
            self.notes.info(Action::Dropped, "hosted_tool_history");
            return;
        }
        self.notes
            .warn_at(Action::Coerced, "code_execution_history", path);
        let mut tape = Tape::new();
        let input = hosted.input.as_ref();
        let root = input.and_then(|input| tape.parse(input.as_str()).ok());
        let code = root
            .and_then(|root| root.get("code")?.as_str())
            .unwrap_or_default();
        let mut text = format!("```python\n{}\n```", code.plain());
        if let Some(output) = &hosted.output {
            text.push_str("\n\n```\n");
            text.push_str(&output.plain());
            text.push_str("\n```");
        }
        let mut item = self.array.object();
        item.text("type", "message").text("role", "assistant");
        let mut content = item.array("content");
        said(&Text::new(Str::from(text)), &mut content.object());
    }
}

/// Whether the part goes into a message of that role.
fn in_message(part: &Part<'_>, role: Role) -> bool {
    match part {
        Part::Text(_) | Part::Refusal(_) => true,
        Part::Media(_) => role == Role::User,
        _ => false,
    }
}

fn is_own(opaque: &Opaque<'_>, account: &str) -> bool {
    let home = opaque.account.as_ref().is_none_or(|made| made.is(account));
    opaque.kind == OpaqueKind::OpenAiEncrypted && home
}

/// The assistant's own text.
fn said(text: &Text<'_>, part: &mut Object<'_>) {
    part.text("type", "output_text").str("text", &text.text);
    let known = text.annotations.iter().filter_map(|a| Some((a, a.span?)));
    let mut known = known.filter(|(a, _)| !a.url.is_empty()).peekable();
    if known.peek().is_none() {
        return;
    }
    let mut list = part.array("annotations");
    for (annotation, span) in known {
        citation(annotation, span, &mut list.object());
    }
}

fn citation(annotation: &Annotation<'_>, (from, to): (usize, usize), object: &mut Object<'_>) {
    object.text("type", "url_citation");
    object.str("url", &annotation.url);
    let title = annotation.title.as_ref().map(Str::borrowed);
    object.str("title", &title.unwrap_or_default());
    object.number("start_index", from);
    object.number("end_index", to);
}

fn begins_with_failure(parts: &[Part<'_>]) -> bool {
    match parts.first() {
        Some(Part::Text(text)) => text.text.inner().starts_with(FAILED.trim_end()),
        _ => false,
    }
}

fn output_parts(
    parts: &[Part<'_>],
    target: &Target<'_>,
    notes: &mut Notes,
    output: &mut Array<'_>,
) -> Result<(), Invalid> {
    for part in parts {
        match part {
            Part::Text(text) => {
                output
                    .object()
                    .text("type", "input_text")
                    .str("text", &text.text);
            }
            Part::Refusal(text) => {
                output.object().text("type", "input_text").str("text", text);
            }
            Part::Media(media) => medium(media, None, target, notes, output)?,
            _ => {}
        }
    }
    Ok(())
}

/// The mark to write; `None` where there is none, where it is one too many, or
/// where the provider knows none.
fn next_mark(
    mark: Option<Lifetime>,
    skip: &mut usize,
    target: &Target<'_>,
    notes: &mut Notes,
    request: &Request<'_>,
) -> Option<Lifetime> {
    let mark = mark?;
    if !target.capabilities.cache_breakpoints || *skip > 0 {
        *skip = skip.saturating_sub(1);
        notes.info(Action::Dropped, Field::CacheMark.path(request.origin));
        return None;
    }
    Some(mark)
}

fn write_mark(mark: Option<Lifetime>, part: &mut Object<'_>) {
    let Some(mark) = mark else {
        return;
    };
    let ttl = match mark {
        Lifetime::Short => "30m",
        Lifetime::Long => "12h",
    };
    let mut object = part.object("prompt_cache_breakpoint");
    object.text("mode", "explicit").text("ttl", ttl);
}

fn medium(
    media: &Media<'_>,
    mark: Option<Lifetime>,
    target: &Target<'_>,
    notes: &mut Notes,
    content: &mut Array<'_>,
) -> Result<(), Invalid> {
    if media.cite {
        notes.warn_at(Action::Dropped, "citations", media.path.clone());
    }
    if let Some(context) = &media.context {
        content
            .object()
            .text("type", "input_text")
            .str("text", context);
    }
    match media.kind {
        MediaKind::Image => image(media, mark, target, content),
        MediaKind::Document => document(media, mark, content),
        MediaKind::Audio => Err(unsaid(media, "audio")),
        MediaKind::Video => Err(unsaid(media, "video")),
    }
}

fn unsaid(media: &Media<'_>, what: &str) -> Invalid {
    Invalid::unsupported(
        "unsupported_content",
        media.path.clone(),
        format!("{what} can't be sent to a model that is served over the responses protocol"),
    )
}

fn elsewhere(media: &Media<'_>) -> Invalid {
    Invalid::unsupported(
        "unsupported_content",
        media.path.clone(),
        "file_id belongs to another provider",
    )
}

fn data_url(mime: &str, data: &Str<'_>, out: &mut BytesMut) {
    out.extend_from_slice(b"\"data:");
    out.extend_from_slice(Str::new(mime).inner().as_bytes());
    out.extend_from_slice(b";base64,");
    out.extend_from_slice(data.inner().as_bytes());
    out.extend_from_slice(b"\"");
}

fn image(
    media: &Media<'_>,
    mark: Option<Lifetime>,
    target: &Target<'_>,
    content: &mut Array<'_>,
) -> Result<(), Invalid> {
    let known = target.capabilities;
    let taken = match media.source {
        Source::Inline { .. } => known.image_b64,
        Source::Url { .. } => known.image_url,
        _ => return Err(elsewhere(media)),
    };
    if !taken {
        return Err(unsaid(media, "this form of image"));
    }
    let mut part = content.object();
    part.text("type", "input_image");
    match &media.source {
        Source::Inline { mime, data } => data_url(mime, data, part.key("image_url")),
        Source::Url { url, .. } => string(part.key("image_url"), url),
        _ => {}
    }
    let detail = media.detail.as_ref().map(Str::borrowed);
    part.str("detail", &detail.unwrap_or(Str::new("auto")));
    write_mark(mark, &mut part);
    Ok(())
}

fn document(
    media: &Media<'_>,
    mark: Option<Lifetime>,
    content: &mut Array<'_>,
) -> Result<(), Invalid> {
    let mut part = match media.source {
        Source::File { .. } => return Err(elsewhere(media)),
        _ => content.object(),
    };
    match &media.source {
        Source::Text(text) => {
            part.text("type", "input_text");
            match &media.name {
                Some(name) => {
                    let text = format!("[{}]\n{}", name.plain(), text.plain());
                    part.text("text", &text);
                }
                None => {
                    part.str("text", text);
                }
            }
        }
        Source::Inline { mime, data } => {
            part.text("type", "input_file");
            let name = media.name.as_ref().map(Str::borrowed);
            let known = if mime == "application/pdf" {
                "document.pdf"
            } else {
                "document"
            };
            part.str("filename", &name.unwrap_or_else(|| Str::new(known)));
            data_url(mime, data, part.key("file_data"));
        }
        Source::Url { url, .. } => {
            part.text("type", "input_file").str("file_url", url);
            if let Some(name) = &media.name {
                part.str("filename", name);
            }
        }
        Source::File { .. } => {}
    }
    write_mark(mark, &mut part);
    Ok(())
}
