//! Reasoning in a message, in whichever of its forms: `reasoning_details` (as
//! OpenRouter has it), `thinking_blocks` (LiteLLM), `reasoning_content`,
//! `reasoning`. The first that is there counts.
//!
//! Plexus writes a blob's entry without the text that it belongs to, which has
//! gone out in `reasoning_content` already; `start_index` and `end_index`, in
//! characters of that string, say which part of it. So signed text comes home to
//! the letter even where a turn holds several pieces of reasoning.

use crate::protocol::envelope;
use crate::protocol::ir::{Opaque, OpaqueKind, Thought};
use crate::protocol::json::{Object, Str, Value};
use crate::protocol::translate::Reply;

/// Reasoning of a message.
#[derive(Debug, Default)]
pub(super) struct Reasoned<'a> {
    /// In order.
    pub(super) thoughts: Vec<Thought<'a>>,
    /// Signatures that belong to calls, by the call's id.
    pub(super) on_calls: Vec<(Str<'a>, Opaque<'a>)>,
}

/// Whose message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// A client's, whose blobs may be envelopes.
    Client,
    /// A provider's.
    Provider,
}

/// Reads a message's reasoning.
pub(super) fn read<'a>(message: Value<'a>, from: From) -> Reasoned<'a> {
    let mut found = Reasoned::default();
    for name in ["reasoning", "thinking_blocks"] {
        // Said a second time, if there is one of those before them.
        message.skip(name);
    }
    let string = ["reasoning_content", "reasoning"];
    let mut strings = string.iter().filter_map(|name| text(message, name));
    let content = strings.next();
    if let Some(details) = message.some("reasoning_details") {
        let mut reader = Reader {
            from,
            found: &mut found,
            thoughts: Vec::new(),
        };
        details.items().for_each(|entry| reader.entry(entry));
        let growing = reader.thoughts;
        found.thoughts = place(growing, content.as_ref());
    } else if let Some(blocks) = message.some("thinking_blocks") {
        found.thoughts = blocks.items().map(|block| litellm(block, from)).collect();
    }
    if let Some(content) = content {
        add_content(&mut found.thoughts, content);
    }
    found
}

/// The string that stands for all reasoning, where no entry has text: that of
/// the only thought, else one before the others. A signature of Gemini's without
/// a place in the string rode on visible text.
fn add_content<'a>(thoughts: &mut Vec<Thought<'a>>, content: Str<'a>) {
    let told = |thought: &Thought<'_>| !thought.text.is_empty() || !thought.summary.is_empty();
    if thoughts.iter().any(told) {
        return;
    }
    let of_text = |thought: &Thought<'_>| {
        let opaque = thought.opaque.as_ref();
        opaque.is_some_and(|opaque| opaque.kind == OpaqueKind::GeminiSignature)
    };
    match thoughts.as_mut_slice() {
        [only] if !only.redacted && !of_text(only) => only.text = content,
        _ => thoughts.insert(
            0,
            Thought {
                text: content,
                ..Thought::default()
            },
        ),
    }
}

fn text<'a>(object: Value<'a>, name: &str) -> Option<Str<'a>> {
    let text = object.some(name)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

/// Reads a blob.
pub(super) fn blob<'a>(
    data: Str<'a>,
    kind: OpaqueKind,
    from: From,
) -> (Opaque<'a>, Option<String>) {
    match from {
        From::Client => envelope::inward(data, kind),
        From::Provider => {
            let opaque = Opaque {
                kind,
                data,
                model: None,
                account: None,
            };
            (opaque, None)
        }
    }
}

/// Whose blob an entry holds.
pub(super) fn kind_of(entry: Value<'_>) -> OpaqueKind {
    let format = text(entry, "format");
    let format = format.as_ref().map(Str::plain).unwrap_or_default();
    let encrypted = entry.some("data").is_some();
    match format.split('-').next() {
        Some("openai" | "azure" | "xai") => OpaqueKind::OpenAiEncrypted,
        Some("google") => OpaqueKind::GeminiSignature,
        Some("anthropic") if encrypted => OpaqueKind::AnthropicRedacted,
        Some("anthropic") => OpaqueKind::AnthropicSignature,
        _ if encrypted => OpaqueKind::Unsigned,
        _ => OpaqueKind::AnthropicSignature,
    }
}

/// The word for a blob's maker.
pub(super) const fn format_of(kind: OpaqueKind) -> &'static str {
    match kind {
        OpaqueKind::AnthropicSignature | OpaqueKind::AnthropicRedacted => "anthropic-claude-v1",
        OpaqueKind::OpenAiEncrypted => "openai-responses-v1",
        OpaqueKind::GeminiSignature => "google-gemini-v1",
        OpaqueKind::Unsigned => "unknown",
    }
}

fn litellm(block: Value<'_>, from: From) -> Thought<'_> {
    let (name, kind) = match block.some("data") {
        Some(_) => ("data", OpaqueKind::AnthropicRedacted),
        None => ("signature", OpaqueKind::AnthropicSignature),
    };
    let read = text(block, name).map(|data| blob(data, kind, from));
    let (opaque, inner) = read.unzip();
    let inner = inner.flatten().map(Str::from);
    Thought {
        text: text(block, "thinking").or(inner).unwrap_or_default(),
        redacted: name == "data",
        opaque,
        ..Thought::default()
    }
}

/// A string that grows piece by piece without being copied each time.
#[derive(Debug, Default)]
enum Growing<'a> {
    #[default]
    Empty,
    One(Str<'a>),
    Many(String),
}

impl<'a> Growing<'a> {
    fn push(&mut self, piece: Str<'a>) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(piece),
            Self::One(first) => Self::Many(first.to_plain_string() + &piece.plain()),
            Self::Many(mut all) => {
                all.push_str(&piece.plain());
                Self::Many(all)
            }
        };
    }

    fn into_str(self) -> Str<'a> {
        match self {
            Self::Empty => Str::default(),
            Self::One(piece) => piece,
            Self::Many(all) => all.into(),
        }
    }
}

/// A thought whose entries may not all have come.
#[derive(Debug, Default)]
struct Draft<'a> {
    index: Option<u64>,
    text: Growing<'a>,
    summary: Vec<Growing<'a>>,
    opaque: Option<Opaque<'a>>,
    span: Option<(usize, usize)>,
}

struct Reader<'r, 'a> {
    from: From,
    found: &'r mut Reasoned<'a>,
    thoughts: Vec<Draft<'a>>,
}

impl<'a> Reader<'_, 'a> {
    fn entry(&mut self, entry: Value<'a>) {
        let data = text(entry, "signature").or_else(|| text(entry, "data"));
        let read = data.map(|data| blob(data, kind_of(entry), self.from));
        let (opaque, inner) = read.unzip();
        let own = text(entry, "text");
        let own = own.or_else(|| inner.flatten().map(Str::from));
        let summary = text(entry, "summary");
        let bare = own.is_none() && summary.is_none();
        let call = text(entry, "id").filter(|_| bare);
        let call = call.filter(|id| !id.plain().starts_with("rs_"));
        if let (Some(id), Some(opaque)) = (call, &opaque)
            && opaque.kind == OpaqueKind::GeminiSignature
        {
            self.found.on_calls.push((id, opaque.clone()));
            return;
        }
        let index = entry.some("index").and_then(|index| index.as_u64());
        let Some(draft) = self.draft(index, bare, opaque.as_ref()) else {
            return;
        };
        if let Some(text) = own {
            draft.text.push(text);
        }
        if let Some(piece) = summary {
            if draft.index != index || draft.summary.is_empty() {
                draft.summary.push(Growing::default());
            }
            if let Some(last) = draft.summary.last_mut() {
                last.push(piece);
            }
        }
        draft.index = index;
        draft.opaque = opaque.or_else(|| draft.opaque.take());
        draft.span = span(entry).or(draft.span);
    }

    /// The thought that an entry belongs to: the last one, as long as it has no
    /// blob and nothing says otherwise.
    fn draft(
        &mut self,
        index: Option<u64>,
        bare: bool,
        opaque: Option<&Opaque<'_>>,
    ) -> Option<&mut Draft<'a>> {
        let redacted = opaque.is_some_and(|o| o.kind == OpaqueKind::AnthropicRedacted);
        let fits = |last: &Draft<'_>| {
            let same = last.index == index || bare || !last.summary.is_empty();
            last.opaque.is_none() && same && !redacted
        };
        if !self.thoughts.last().is_some_and(fits) {
            self.thoughts.push(Draft::default());
        }
        self.thoughts.last_mut()
    }
}

fn span(entry: Value<'_>) -> Option<(usize, usize)> {
    let at = |name| usize::try_from(entry.some(name)?.as_u64()?).ok();
    let (start, end) = (at("start_index")?, at("end_index")?);
    (start < end).then_some((start, end))
}

/// Makes thoughts of drafts: those without text get theirs out of the string that
/// holds all of it.
fn place<'a>(drafts: Vec<Draft<'a>>, content: Option<&Str<'a>>) -> Vec<Thought<'a>> {
    let all = content.map(Str::plain).unwrap_or_default();
    let mut cursor = Cursor {
        rest: &all,
        characters: 0,
    };
    let thoughts = drafts.into_iter().map(|draft| {
        let silent = matches!(draft.text, Growing::Empty) && draft.summary.is_empty();
        let mut text = draft.text.into_str();
        if let Some((start, end)) = draft.span
            && silent
        {
            text = cursor.slice(start, end).to_owned().into();
        }
        let redacted = draft
            .opaque
            .as_ref()
            .is_some_and(|opaque| opaque.kind == OpaqueKind::AnthropicRedacted);
        Thought {
            text,
            summary: draft.summary.into_iter().map(Growing::into_str).collect(),
            opaque: draft.opaque,
            redacted,
        }
    });
    let kept = |thought: &Thought<'_>| {
        thought.opaque.is_some() || !thought.text.is_empty() || !thought.summary.is_empty()
    };
    thoughts.filter(kept).collect()
}

/// Walks once over a text, whatever the spans that are asked for.
struct Cursor<'t> {
    rest: &'t str,
    characters: usize,
}

impl<'t> Cursor<'t> {
    fn skip(&mut self, count: usize) -> &'t str {
        let mut places = self.rest.char_indices();
        let at = places.nth(count).map_or(self.rest.len(), |(at, _)| at);
        let (skipped, rest) = self.rest.split_at(at);
        self.rest = rest;
        self.characters += count;
        skipped
    }

    /// What lies between two places; nothing where the first has been passed.
    fn slice(&mut self, start: usize, end: usize) -> &'t str {
        if start < self.characters {
            return "";
        }
        self.skip(start - self.characters);
        self.skip(end - start)
    }
}

/// An entry of `reasoning_details` to be written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry<'e> {
    /// Its place: entries of one index are pieces of one thought.
    pub(super) index: usize,
    /// The reasoning, or a piece of it.
    pub(super) text: Option<&'e Str<'e>>,
    /// A summary, or a piece of it.
    pub(super) summary: Option<&'e Str<'e>>,
    /// The blob.
    pub(super) opaque: Option<&'e Opaque<'e>>,
    /// The id of the call that it belongs to.
    pub(super) call: Option<&'e str>,
    /// Where in `reasoning_content` the text stands that it belongs to.
    pub(super) span: Option<(usize, usize)>,
}

/// Writes an entry. The index is wanted by SDKs, which put pieces together by it.
pub(super) fn write(entry: &Entry<'_>, reply: &Reply, object: &mut Object<'_>) {
    let signs = entry
        .opaque
        .is_none_or(|opaque| opaque.kind == OpaqueKind::AnthropicSignature);
    let (kind, slot) = match (entry.summary, signs) {
        (Some(_), _) => ("reasoning.summary", "data"),
        (None, true) => ("reasoning.text", "signature"),
        (None, false) => ("reasoning.encrypted", "data"),
    };
    object.text("type", kind);
    if let Some(text) = entry.text {
        object.str("text", text);
    }
    if let Some(summary) = entry.summary {
        object.str("summary", summary);
    }
    if let Some(opaque) = entry.opaque {
        object.str(slot, &shown(opaque, reply));
        object.text("format", format_of(opaque.kind));
    }
    if let Some(call) = entry.call {
        object.text("id", call);
    }
    object.number("index", entry.index);
    if let Some((start, end)) = entry.span {
        object.number("start_index", start);
        object.number("end_index", end);
    }
}

/// A blob as the client is to see it, marked with who made it.
pub(super) fn shown(opaque: &Opaque<'_>, reply: &Reply) -> Str<'static> {
    envelope::outward(&reply.marked(opaque), &[], None).into_owned()
}

/// Writes a call's signature, in Google's own slot for it. It too is in an envelope:
/// most who speak chat refuse the slot, and by the envelope it is found in a history
/// that goes on there.
pub(super) fn write_signature(opaque: &Opaque<'_>, reply: &Reply, entry: &mut Object<'_>) {
    let data = shown(opaque, reply);
    let mut extra = entry.object("extra_content");
    extra.object("google").str("thought_signature", &data);
}
