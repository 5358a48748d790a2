//! The conversation as messages.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::chat::details::format_of;
use crate::protocol::chat::hosted;
use crate::protocol::fit;
use crate::protocol::ir::{
    Arguments, Call, Hosted, Invalid, Lifetime, Media, MediaKind, Opaque, OpaqueKind, Part, Role,
    Thought, Tool, ToolResult,
};
use crate::protocol::json::{Array, Object, Str};
use crate::protocol::notes::{Action, Field};
use crate::protocol::turns::{Arranged, Arrangement};

use super::{Scope, media};

/// What Claude Code puts before its system text. It differs from request to
/// request and would spoil every prompt cache.
const BILLING: &str = "x-anthropic-billing-header:";
/// Before the result of a tool that failed: chat has no flag for it.
const FAILED: &str = "[tool error] ";
/// Cache marks that a request may have.
const MARKS: usize = 4;

/// A piece of content.
enum Piece<'p> {
    Text(Str<'p>, Option<Lifetime>),
    Medium(&'p Media<'p>),
}

/// Writes `messages`.
pub(super) fn write(
    scope: &mut Scope<'_, '_>,
    arranged: &Arranged<'_, '_>,
    instruction: Option<&str>,
    body: &mut Object<'_>,
) -> Result<(), Invalid> {
    let mut writer = Writer {
        marks: Marks::of(scope, arranged),
        scope,
    };
    let mut messages = body.array("messages");
    writer.system(arranged, instruction, &mut messages);
    let mut turns = arranged.turns.iter().peekable();
    let mut shown = Vec::new();
    while let Some(turn) = turns.next() {
        match turn.role {
            Role::System => writer.mid_system(turn, &mut messages),
            Role::Assistant => writer.assistant(turn, &mut messages),
            Role::User => {
                writer.user(turn, &mut shown, &mut messages)?;
                // Pictures of results go with what the user says next.
                let goes_on = turns.peek().is_some_and(|next| next.role == Role::User);
                if !(goes_on && only_results(turn)) {
                    writer.say(std::mem::take(&mut shown), &mut messages);
                }
            }
        }
    }
    Ok(())
}

fn only_results(turn: &Arrangement<'_, '_>) -> bool {
    let mut parts = turn.parts.iter();
    parts.all(|part| matches!(part.as_ref(), Part::Result(_)))
}

/// Cache marks: which are written is known only when all are counted.
struct Marks {
    /// Whether they are written at all.
    known: bool,
    /// How many of the first are left out.
    skip: usize,
}

impl Marks {
    fn of(scope: &mut Scope<'_, '_>, arranged: &Arranged<'_, '_>) -> Self {
        let known = scope.target.capabilities.cache_breakpoints;
        let system = arranged.system.iter().filter(|block| block.cache.is_some());
        let parts = arranged.turns.iter().flat_map(|turn| &turn.parts);
        let parts = parts.filter(|part| match part.as_ref() {
            Part::Text(text) => text.cache.is_some(),
            _ => false,
        });
        let count = system.count() + parts.count();
        if count > 0 && !known {
            scope.drop_hint(Field::CacheMark);
        }
        Self {
            known,
            skip: count.saturating_sub(MARKS),
        }
    }

    fn take(&mut self, mark: Option<Lifetime>) -> Option<Lifetime> {
        let mark = mark.filter(|_| self.known)?;
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(mark)
    }
}

struct Writer<'w, 's, 'a> {
    scope: &'w mut Scope<'s, 'a>,
    marks: Marks,
}

impl Writer<'_, '_, '_> {
    fn system_role(&self) -> &'static str {
        if self.scope.is_openai() {
            "developer"
        } else {
            "system"
        }
    }

    fn system(
        &mut self,
        arranged: &Arranged<'_, '_>,
        instruction: Option<&str>,
        messages: &mut Array<'_>,
    ) {
        let billed = self.scope.request.origin == Protocol::Messages;
        let mut pieces = Vec::new();
        for block in &arranged.system {
            if billed && block.text.plain().starts_with(BILLING) {
                continue;
            }
            let mark = self.marks.take(block.cache);
            pieces.push(Piece::Text(block.text.borrowed(), mark));
        }
        if let Some(instruction) = instruction {
            pieces.push(Piece::Text(Str::new(instruction), None));
        }
        if pieces.is_empty() {
            return;
        }
        let mut message = messages.object();
        message.text("role", self.system_role());
        // One text, whoever is asked: some take only the first of several parts.
        content(&pieces, true, &mut message);
    }

    fn mid_system(&mut self, turn: &Arrangement<'_, '_>, messages: &mut Array<'_>) {
        let texts = turn.parts.iter().filter_map(|part| match part.as_ref() {
            Part::Text(text) => Some((text.text.borrowed(), text.cache)),
            _ => None,
        });
        let marks = &mut self.marks;
        let pieces: Vec<_> = texts
            .map(|(text, cache)| Piece::Text(text, marks.take(cache)))
            .collect();
        if pieces.is_empty() {
            return;
        }
        let mut message = messages.object();
        message.text("role", self.system_role());
        content(&pieces, true, &mut message);
    }

    /// Results first, each a message of its own; what else the user says is
    /// gathered, with the pictures of the results, which a tool's message can't
    /// hold.
    fn user<'p>(
        &mut self,
        turn: &'p Arrangement<'_, '_>,
        pieces: &mut Vec<Piece<'p>>,
        messages: &mut Array<'_>,
    ) -> Result<(), Invalid> {
        for part in &turn.parts {
            if let Part::Result(result) = part.as_ref() {
                self.result(result, pieces, messages)?;
            }
        }
        for part in &turn.parts {
            match part.as_ref() {
                Part::Text(text) => {
                    let mark = self.marks.take(text.cache);
                    pieces.push(Piece::Text(text.text.borrowed(), mark));
                }
                Part::Refusal(text) => pieces.push(Piece::Text(text.borrowed(), None)),
                Part::Media(medium) => {
                    pieces.extend(context(medium).map(|text| Piece::Text(text, None)));
                    pieces.push(self.medium(medium)?);
                }
                Part::Hosted(hosted) => {
                    let told = self.hosted(hosted).map(Str::from);
                    pieces.extend(told.map(|text| Piece::Text(text, None)));
                }
                Part::Reasoning(_) => {
                    self.scope.notes.info(Action::Dropped, "reasoning_history");
                }
                Part::Result(_) | Part::Call(_) => {}
            }
        }
        Ok(())
    }

    fn say(&self, pieces: Vec<Piece<'_>>, messages: &mut Array<'_>) {
        if pieces.is_empty() {
            return;
        }
        let mut message = messages.object();
        message.text("role", "user");
        content(&pieces, !self.scope.is_openai(), &mut message);
    }

    fn medium<'p>(&mut self, medium: &'p Media<'p>) -> Result<Piece<'p>, Invalid> {
        if medium.cite {
            let path = medium.path.clone();
            self.scope.notes.warn_at(Action::Dropped, "citations", path);
        }
        if let Some(text) = media::as_text(medium) {
            return Ok(Piece::Text(text.into(), None));
        }
        media::check(self.scope, medium)?;
        if medium.detail.is_some() && medium.kind != MediaKind::Image {
            self.scope.notes.info(Action::Dropped, "detail");
        }
        Ok(Piece::Medium(medium))
    }

    /// Code that a provider ran, in words; nothing of its other tools.
    fn hosted(&mut self, hosted: &Hosted<'_>) -> Option<String> {
        let told = hosted::code_text(hosted);
        if told.is_none() {
            self.scope
                .notes
                .info(Action::Dropped, "hosted_tool_history");
        }
        told
    }

    fn result<'p>(
        &mut self,
        result: &'p ToolResult<'p>,
        shown: &mut Vec<Piece<'p>>,
        messages: &mut Array<'_>,
    ) -> Result<(), Invalid> {
        let mut texts: Vec<Str<'p>> = Vec::new();
        for part in &result.parts {
            match part {
                Part::Text(text) => texts.push(text.text.borrowed()),
                Part::Media(medium) => match self.medium(medium)? {
                    Piece::Text(text, _) => texts.push(text),
                    piece => {
                        texts.extend(context(medium));
                        texts.push(Str::new(match medium.kind {
                            MediaKind::Image => "[image attached below]",
                            _ => "[file attached below]",
                        }));
                        shown.push(piece);
                    }
                },
                _ => {}
            }
        }
        let told = texts
            .first()
            .is_some_and(|text| text.plain().starts_with(FAILED));
        let mut message = messages.object();
        message.text("role", "tool");
        message.text("tool_call_id", &fit::call_id(&result.id, Protocol::Chat));
        let before = if result.is_error && !told { FAILED } else { "" };
        joined(before, &texts, message.key("content"));
        Ok(())
    }

    fn assistant(&mut self, turn: &Arrangement<'_, '_>, messages: &mut Array<'_>) {
        let said = self.said(turn);
        let calls: Vec<&Call<'_>> = turn
            .parts
            .iter()
            .filter_map(|part| match part.as_ref() {
                Part::Call(call) => Some(call),
                _ => None,
            })
            .collect();
        let thoughts = turn.parts.iter().filter_map(|part| match part.as_ref() {
            Part::Reasoning(thought) => Some(thought),
            _ => None,
        });
        let thoughts: Vec<&Thought<'_>> = thoughts.collect();
        if said.text.is_empty() && said.refusal.is_empty() && calls.is_empty() {
            // Nothing but reasoning: a message without content would be refused.
            if thoughts.is_empty() {
                return;
            }
            if !self.scope.target.capabilities.echo_reasoning {
                self.scope.notes.info(Action::Dropped, "reasoning_history");
                return;
            }
        }
        let mut message = messages.object();
        message.text("role", "assistant");
        match said.text.is_empty() && (!calls.is_empty() || !said.refusal.is_empty()) {
            true => _ = message.null("content"),
            false => glued(&said.text, message.key("content")),
        }
        if !said.refusal.is_empty() {
            glued(&said.refusal, message.key("refusal"));
        }
        self.reasoning(&thoughts, !calls.is_empty(), &mut message);
        if !calls.is_empty() {
            let mut list = message.array("tool_calls");
            for call in calls {
                self.call(call, &mut list.object());
            }
        }
    }

    /// The visible text of a turn of the model. Texts that something else stood
    /// between are set apart; texts that were one stay one.
    fn said<'p>(&mut self, turn: &'p Arrangement<'_, '_>) -> Said<'p> {
        let mut said = Said::default();
        let mut apart = false;
        for part in &turn.parts {
            let text: Cow<'p, str> = match part.as_ref() {
                Part::Text(text) => text.text.inner(),
                Part::Refusal(text) if self.scope.is_openai() => {
                    said.refusal.push(text.inner());
                    continue;
                }
                Part::Refusal(text) => text.inner(),
                Part::Hosted(hosted) => {
                    apart = true;
                    match self.hosted(hosted) {
                        Some(text) => Cow::Owned(Str::from(text).inner().into_owned()),
                        None => continue,
                    }
                }
                Part::Media(_) => {
                    apart = true;
                    self.scope.notes.warn_at(
                        Action::Dropped,
                        "image_history",
                        self.scope.path(Field::Turns),
                    );
                    Cow::Borrowed("[image omitted]")
                }
                Part::Call(_) | Part::Reasoning(_) | Part::Result(_) => {
                    apart = true;
                    continue;
                }
            };
            if text.is_empty() {
                continue;
            }
            if apart && !said.text.is_empty() {
                said.text.push(Cow::Borrowed("\\n\\n"));
            }
            apart = matches!(part.as_ref(), Part::Hosted(_) | Part::Media(_));
            said.text.push(text);
        }
        said
    }

    /// Earlier reasoning: as text where the model wants it back, and blobs that
    /// this very account has made.
    fn reasoning(&mut self, thoughts: &[&Thought<'_>], calls: bool, message: &mut Object<'_>) {
        if self.scope.target.capabilities.echo_reasoning {
            let mut texts: Vec<Cow<'_, str>> = Vec::new();
            for thought in thoughts {
                for text in std::iter::once(&thought.text).chain(&thought.summary) {
                    if text.is_empty() {
                        continue;
                    }
                    if !texts.is_empty() {
                        texts.push(Cow::Borrowed("\\n\\n"));
                    }
                    texts.push(text.inner());
                }
            }
            if !texts.is_empty() {
                glued(&texts, message.key("reasoning_content"));
            } else if calls {
                // Refused without it, and nobody knows any more what it was.
                message.text("reasoning_content", " ");
                self.scope.notes.info(Action::Injected, "reasoning_content");
            }
        } else if !thoughts.is_empty() {
            self.scope.notes.info(Action::Dropped, "reasoning_history");
        }
        let own: Vec<_> = thoughts
            .iter()
            .filter(|thought| self.is_own(thought.opaque.as_ref()))
            .collect();
        if own.is_empty() {
            return;
        }
        let mut details = message.array("reasoning_details");
        for (index, thought) in own.into_iter().enumerate() {
            detail(thought, index, &mut details.object());
        }
    }

    /// Whether a blob was made by the account that is asked now.
    fn is_own(&self, opaque: Option<&Opaque<'_>>) -> bool {
        let made = opaque.filter(|opaque| opaque.kind != OpaqueKind::Unsigned);
        let account = made.and_then(|opaque| opaque.account.as_ref());
        account.is_some_and(|account| account.is(self.scope.target.account))
    }

    fn call(&mut self, call: &Call<'_>, entry: &mut Object<'_>) {
        entry.text("id", &fit::call_id(&call.id, Protocol::Chat));
        let name = self.scope.tool_name(&call.name, call.namespace.as_ref());
        if let (Arguments::Free(input), true) = (&call.arguments, self.scope.is_openai()) {
            entry.text("type", "custom");
            let mut custom = entry.object("custom");
            custom.text("name", &name).str("input", input);
            return;
        }
        entry.text("type", "function");
        let mut function = entry.object("function");
        function.text("name", &name);
        arguments(&call.arguments, function.key("arguments"));
        drop(function);
        if let Some(opaque) = &call.opaque
            && opaque.kind == OpaqueKind::GeminiSignature
            && self.is_own(Some(opaque))
        {
            let mut extra = entry.object("extra_content");
            extra
                .object("google")
                .str("thought_signature", &opaque.data);
        }
        if let Arguments::Free(_) = &call.arguments {
            self.emulated(&call.name, name);
        }
    }

    /// A custom tool that was called but is not declared any more may be called
    /// again all the same.
    fn emulated(&mut self, original: &Str<'_>, name: String) {
        let declared = self.scope.request.tools.iter().any(|tool| match tool {
            Tool::Custom { name, .. } => name == original,
            _ => false,
        });
        if !declared && !self.scope.fixups.custom.contains(&name) {
            self.scope.fixups.custom.push(name);
        }
    }
}

/// What is said beside a document that goes as a file; one that goes as text has it
/// in there.
fn context<'p>(medium: &'p Media<'_>) -> Option<Str<'p>> {
    let context = medium.context.as_ref().filter(|text| !text.is_empty())?;
    media::as_text(medium).is_none().then(|| context.borrowed())
}

/// What the model said, as pieces of JSON text.
#[derive(Default)]
struct Said<'p> {
    text: Vec<Cow<'p, str>>,
    refusal: Vec<Cow<'p, str>>,
}

fn detail(thought: &Thought<'_>, index: usize, entry: &mut Object<'_>) {
    let Some(opaque) = &thought.opaque else {
        return;
    };
    if opaque.kind == OpaqueKind::AnthropicSignature {
        entry.text("type", "reasoning.text");
        entry.str("text", &thought.text);
        entry.str("signature", &opaque.data);
    } else {
        entry.text("type", "reasoning.encrypted");
        entry.str("data", &opaque.data);
    }
    entry.text("format", format_of(opaque.kind));
    entry.number("index", index);
}

/// A call's arguments as the string that chat wants, never empty.
pub(crate) fn arguments(arguments: &Arguments<'_>, out: &mut BytesMut) {
    let text = match arguments {
        Arguments::Object(raw) => {
            out.extend_from_slice(b"\"");
            out.extend_from_slice(Str::new(&raw.compact()).inner().as_bytes());
            out.extend_from_slice(b"\"");
            return;
        }
        Arguments::Text(text) if text.is_blank() => &Str::new("{}"),
        Arguments::Text(text) => text,
        Arguments::Free(input) => {
            // A string within a string: what is escaped is escaped again.
            out.extend_from_slice(br#""{\"input\":\""#);
            out.extend_from_slice(Str::new(&input.inner()).inner().as_bytes());
            out.extend_from_slice(br#"\"}""#);
            return;
        }
    };
    out.extend_from_slice(b"\"");
    out.extend_from_slice(text.inner().as_bytes());
    out.extend_from_slice(b"\"");
}

/// Writes `content`: a string where all is text and `one` text will do, else
/// parts.
fn content(pieces: &[Piece<'_>], one: bool, message: &mut Object<'_>) {
    let plain: Option<Vec<Str<'_>>> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text, None) => Some(text.borrowed()),
            _ => None,
        })
        .collect();
    if let Some(texts) = plain.filter(|texts| one || texts.len() == 1) {
        return joined("", &texts, message.key("content"));
    }
    let mut content = message.array("content");
    for piece in pieces {
        match piece {
            Piece::Text(text, mark) => {
                let mut part = content.object();
                part.text("type", "text").str("text", text);
                if let Some(mark) = mark {
                    let ttl = match mark {
                        Lifetime::Short => "30m",
                        Lifetime::Long => "12h",
                    };
                    let mut mark = part.object("prompt_cache_breakpoint");
                    mark.text("mode", "explicit").text("ttl", ttl);
                }
            }
            Piece::Medium(medium) => media::write(medium, &mut content),
        }
    }
}

/// Writes texts as one string, a blank line between them.
fn joined(before: &str, texts: &[Str<'_>], out: &mut BytesMut) {
    out.extend_from_slice(b"\"");
    out.extend_from_slice(before.as_bytes());
    for (i, text) in texts.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b"\\n\\n");
        }
        out.extend_from_slice(text.inner().as_bytes());
    }
    out.extend_from_slice(b"\"");
}

/// Writes pieces of JSON text as one string.
fn glued(pieces: &[Cow<'_, str>], out: &mut BytesMut) {
    out.extend_from_slice(b"\"");
    for piece in pieces {
        out.extend_from_slice(piece.as_bytes());
    }
    out.extend_from_slice(b"\"");
}
