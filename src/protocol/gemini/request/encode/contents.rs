//! The conversation.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::BytesMut;

use super::fitted;
use crate::protocol::Protocol;
use crate::protocol::fit::{self, Names};
use crate::protocol::gemini::part::{sign, write_text};
use crate::protocol::gemini::signature::SENTINEL;
use crate::protocol::gemini::{arguments, hosted, media};
use crate::protocol::ir::{
    Call, HostedKind, Invalid, Media, Opaque, OpaqueKind, Part, Request, Role, Source, Text,
    Thought, Tool, ToolResult,
};
use crate::protocol::json::{Object, Str};
use crate::protocol::notes::{Action, Field, Notes};
use crate::protocol::translate::Target;
use crate::protocol::turns::{Arranged, Arrangement};

/// Writes the member `contents`.
///
/// # Errors
///
/// Where a medium can't be sent.
pub(super) fn write<'a>(
    request: &Request<'a>,
    arranged: &Arranged<'_, 'a>,
    target: &Target<'_>,
    names: &mut Names,
    notes: &mut Notes,
    body: &mut Object<'_>,
) -> Result<(), Invalid> {
    let exchange = exchange(&arranged.turns);
    let mut writer = Writer {
        request,
        target,
        names,
        notes,
        called: called(&arranged.turns),
        open: None,
        siblings: Vec::new(),
        sentinel: false,
        carried: None,
        out: body.key("contents"),
    };
    writer.out.extend_from_slice(b"[");
    for (index, turn) in arranged.turns.iter().enumerate() {
        // Only the third generation insists on signatures, and only since the user
        // last spoke.
        writer.sentinel = target.capabilities.thinking.levels && index > exchange;
        writer.turn(turn)?;
    }
    writer.end();
    Ok(())
}

/// The last turn in which the user says something, not just what tools did.
fn exchange(turns: &[Arrangement<'_, '_>]) -> usize {
    let speaks = |turn: &Arrangement<'_, '_>| {
        let result = |part: &Cow<'_, Part<'_>>| matches!(part.as_ref(), Part::Result(_));
        turn.role == Role::User && !turn.parts.iter().all(result)
    };
    turns.iter().rposition(speaks).unwrap_or(0)
}

/// Name and namespace of each call, by its id.
type Called<'c, 'a> = HashMap<Cow<'c, str>, (&'c Str<'a>, Option<&'c Str<'a>>)>;

fn called<'c, 'a>(turns: &'c [Arrangement<'_, 'a>]) -> Called<'c, 'a> {
    let parts = turns.iter().flat_map(|turn| &turn.parts);
    let calls = parts.filter_map(|part| match part.as_ref() {
        Part::Call(call) => Some((call.id.plain(), (&call.name, call.namespace.as_ref()))),
        _ => None,
    });
    calls.collect()
}

/// Whether a cache mark stands on anything.
pub(super) fn has_marks(request: &Request<'_>) -> bool {
    let marked = |part: &Part<'_>| match part {
        Part::Text(text) => text.cache.is_some(),
        Part::Media(medium) => medium.cache.is_some(),
        Part::Call(call) => call.cache.is_some(),
        Part::Result(result) => result.cache.is_some(),
        _ => false,
    };
    let tool =
        |tool: &Tool<'_>| matches!(tool, Tool::Function(function) if function.cache.is_some());
    request.system.iter().any(|block| block.cache.is_some())
        || request.tools.iter().any(tool)
        || request
            .turns
            .iter()
            .flat_map(|turn| &turn.parts)
            .any(marked)
}

struct Writer<'w, 'c, 'a> {
    request: &'w Request<'a>,
    target: &'w Target<'w>,
    names: &'w mut Names,
    notes: &'w mut Notes,
    called: Called<'c, 'a>,
    /// Who speaks in the content that is being written.
    open: Option<Role>,
    /// Media of results, which follow all results of their turn.
    siblings: Vec<&'c Media<'a>>,
    /// Whether the next call needs a signature, even if there is none.
    sentinel: bool,
    /// A signature that was reasoning's on its way and is the next call's.
    carried: Option<&'c Opaque<'a>>,
    out: &'w mut BytesMut,
}

impl<'c, 'a> Writer<'_, 'c, 'a> {
    fn turn(&mut self, turn: &'c Arrangement<'_, 'a>) -> Result<(), Invalid> {
        self.carried = None;
        let mut results = true;
        for (index, part) in turn.parts.iter().enumerate() {
            let part = part.as_ref();
            if results && !matches!(part, Part::Result(_)) {
                results = false;
                self.siblings(turn.role)?;
            }
            match part {
                Part::Text(text) => self.text(turn.role, text),
                Part::Refusal(text) => self.text(turn.role, &Text::new(text.borrowed())),
                Part::Media(medium) => self.medium(turn.role, medium)?,
                Part::Call(call) => self.call(call),
                Part::Result(result) => self.result(result)?,
                Part::Reasoning(thought) => {
                    let rest = turn.parts.get(index + 1..).unwrap_or_default();
                    self.thought(thought, rest);
                }
                Part::Hosted(tool) => self.hosted(tool),
            }
        }
        self.siblings(turn.role)
    }

    /// Makes room for a part of that role.
    fn part(&mut self, role: Role) -> &mut BytesMut {
        if self.open == Some(role) {
            self.out.extend_from_slice(b",");
            return self.out;
        }
        let end: &[u8] = if self.open.is_some() { b"]}," } else { b"" };
        self.out.extend_from_slice(end);
        self.out.extend_from_slice(match role {
            Role::Assistant => b"{\"role\":\"model\",\"parts\":[",
            Role::User | Role::System => b"{\"role\":\"user\",\"parts\":[",
        });
        self.open = Some(role);
        self.out
    }

    fn end(&mut self) {
        if self.open.is_none() {
            write_text(&Str::new(" "), false, None, self.part(Role::User));
        }
        self.out.extend_from_slice(b"]}]");
    }

    fn text(&mut self, role: Role, text: &Text<'_>) {
        let own = text.opaque.as_ref().filter(|opaque| is_own(opaque));
        if text.text.is_empty() && own.is_none() {
            return;
        }
        let data = own.map(|opaque| opaque.data.plain());
        write_text(&text.text, false, data.as_deref(), self.part(role));
    }

    fn call(&mut self, call: &Call<'_>) {
        let name = fitted(self.names, &call.name, call.namespace.as_ref());
        let own = call.opaque.as_ref().filter(|opaque| is_own(opaque));
        let carried = self.carried.take();
        let own = own.or(carried).map(|opaque| opaque.data.plain());
        let needed = std::mem::take(&mut self.sentinel);
        let signature = match own {
            Some(own) => Some(own),
            None if needed => {
                self.notes.info(Action::Injected, "thought_signature");
                Some(Cow::Borrowed(SENTINEL))
            }
            None => None,
        };
        let mut readable = true;
        {
            let mut part = Object::open(self.part(Role::Assistant));
            {
                let mut object = part.object("functionCall");
                object.text("id", &fit::call_id(&call.id, Protocol::Gemini));
                object.text("name", &name);
                readable &= arguments::write(&call.arguments, object.key("args"));
            }
            sign(&mut part, signature.as_deref());
        }
        if !readable {
            let turns = Field::Turns.path(self.request.origin);
            self.notes.warn_at(Action::Coerced, "arguments", turns);
        }
    }

    fn thought(&mut self, thought: &'c Thought<'a>, rest: &'c [Cow<'_, Part<'a>>]) {
        let own = thought.opaque.as_ref().filter(|opaque| is_own(opaque));
        let Some(own) = own else {
            // Other families' blobs and unsigned thoughts mean nothing to Google.
            return self.notes.info(Action::Dropped, "reasoning_history");
        };
        let text = match thought.summary.first() {
            Some(summary) if thought.text.is_empty() => summary,
            _ => &thought.text,
        };
        let carried = rest.iter().find_map(|part| match part.as_ref() {
            Part::Call(call) => Some(call.opaque.as_ref().is_none_or(|opaque| !is_own(opaque))),
            Part::Reasoning(other) => other.opaque.as_ref().is_some_and(is_own).then_some(false),
            _ => None,
        });
        let carried = carried == Some(true);
        if carried {
            self.carried = Some(own);
        }
        if !text.is_empty() || !carried {
            let data = own.data.plain();
            let data = (!carried).then_some(&*data);
            let thought = !text.is_empty();
            write_text(text, thought, data, self.part(Role::Assistant));
        }
    }

    fn result(&mut self, result: &'c ToolResult<'a>) -> Result<(), Invalid> {
        let name = match (self.called.get(&result.id.plain()), &result.name) {
            (Some((name, namespace)), _) => fitted(self.names, name, *namespace),
            (None, Some(name)) => fitted(self.names, name, None),
            (None, None) => {
                let turns = Field::Turns.path(self.request.origin);
                self.notes.warn_at(Action::Injected, "unknown_tool", turns);
                "unknown_tool".to_owned()
            }
        };
        let media = result.parts.iter().filter_map(|part| match part {
            Part::Media(medium) => Some(medium),
            _ => None,
        });
        let inside: Vec<_> = if self.target.capabilities.fr_parts {
            media.collect()
        } else {
            self.siblings.extend(media);
            Vec::new()
        };
        let outside = !self.siblings.is_empty();
        let mut media = BytesMut::new();
        for medium in inside {
            if !media.is_empty() {
                media.extend_from_slice(b",");
            }
            write_medium(medium, self.request.origin, &mut media)?;
        }
        let text = said(result, outside);
        let mut part = Object::open(self.part(Role::User));
        let mut response = part.object("functionResponse");
        response.text("id", &fit::call_id(&result.id, Protocol::Gemini));
        response.text("name", &name);
        arguments::write_result(&text, result.is_error, response.key("response"));
        if !media.is_empty() {
            let out = response.key("parts");
            out.extend_from_slice(b"[");
            out.extend_from_slice(&media);
            out.extend_from_slice(b"]");
        }
        Ok(())
    }

    /// Media that had no place in the results before.
    fn siblings(&mut self, role: Role) -> Result<(), Invalid> {
        for medium in std::mem::take(&mut self.siblings) {
            self.medium(role, medium)?;
        }
        Ok(())
    }

    fn medium(&mut self, role: Role, medium: &Media<'_>) -> Result<(), Invalid> {
        let mut written = BytesMut::new();
        write_medium(medium, self.request.origin, &mut written)?;
        if let Some(told) = beside(medium) {
            write_text(&told, false, None, self.part(role));
        }
        if medium.cite {
            self.notes
                .warn_at(Action::Dropped, "citations", medium.path.clone());
        }
        if medium
            .detail
            .as_ref()
            .is_some_and(|detail| !detail.is("auto"))
        {
            self.notes.info(Action::Dropped, "detail");
        }
        self.part(role).extend_from_slice(&written);
        Ok(())
    }

    /// What Google ran goes back as it was; code that others ran is told.
    fn hosted(&mut self, tool: &crate::protocol::ir::Hosted<'_>) {
        if tool.origin == Protocol::Gemini {
            for raw in &tool.native {
                let out = self.part(Role::Assistant);
                out.extend_from_slice(raw.as_str().as_bytes());
            }
            return;
        }
        if tool.kind != HostedKind::Code {
            return self.notes.info(Action::Dropped, "hosted_tool_history");
        }
        let code = hosted::code_of(tool);
        let mut text = format!("```python\n{code}\n```");
        if let Some(output) = tool.output.as_ref().filter(|output| !output.is_empty()) {
            text.push_str(&format!("\n```\n{}\n```", output.plain()));
        }
        write_text(&Str::new(&text), false, None, self.part(Role::Assistant));
    }
}

/// Whether Google made it.
fn is_own(opaque: &Opaque<'_>) -> bool {
    opaque.kind == OpaqueKind::GeminiSignature
}

/// The text of a result.
fn said<'r>(result: &'r ToolResult<'_>, media_outside: bool) -> Str<'r> {
    let texts = result.parts.iter().filter_map(|part| match part {
        Part::Text(Text { text, .. }) | Part::Refusal(text) if !text.is_empty() => Some(text),
        _ => None,
    });
    let texts: Vec<_> = texts.collect();
    match texts.as_slice() {
        [] if media_outside => Str::new("[attached below]"),
        [] => Str::new(""),
        [only] => only.borrowed(),
        several => {
            let several: Vec<_> = several.iter().map(|text| text.plain()).collect();
            Str::from(several.join("\n"))
        }
    }
}

/// What is said of a medium in a text before it: there is no member for a title,
/// nor for what goes with a document.
fn beside<'m>(medium: &'m Media<'_>) -> Option<Str<'m>> {
    let filled = |text: &&Str<'_>| !text.is_empty();
    let context = medium.context.as_ref().filter(filled);
    // Documents that are text begin with their title.
    let inside = matches!(medium.source, Source::Text(_));
    let name = medium.name.as_ref().filter(filled).filter(|_| !inside);
    match (name, context) {
        (Some(name), Some(context)) => {
            Some(format!("[{}]\n{}", name.plain(), context.plain()).into())
        }
        (Some(name), None) => Some(format!("[{}]", name.plain()).into()),
        (None, context) => context.map(Str::borrowed),
    }
}

/// The part of a medium.
fn write_medium(medium: &Media<'_>, origin: Protocol, out: &mut BytesMut) -> Result<(), Invalid> {
    match &medium.source {
        Source::Inline { mime, data } => {
            media::encode_inline(&mut Object::open(out), mime, data);
        }
        Source::Text(text) => match &medium.name {
            Some(name) => {
                let whole = format!("[{}]\n{}", name.plain(), text.plain());
                write_text(&Str::from(whole), false, None, out);
            }
            None => write_text(text, false, None, out),
        },
        Source::Url { url, mime } => {
            if !media::is_fetched_by_google(&url.plain()) {
                let message = "this URL would have to be fetched first: Gemini takes gs://, Files API and YouTube URLs, or the bytes themselves";
                let path = medium.path.clone();
                return Err(Invalid::unsupported("unsupported_content", path, message));
            }
            media::encode_file(&mut Object::open(out), url, mime.as_ref());
        }
        Source::File { id } => {
            if origin != Protocol::Gemini && !media::is_fetched_by_google(&id.plain()) {
                let message = "file_id belongs to another provider";
                let path = medium.path.clone();
                return Err(Invalid::unsupported("unsupported_content", path, message));
            }
            media::encode_file(&mut Object::open(out), id, None);
        }
    }
    Ok(())
}
