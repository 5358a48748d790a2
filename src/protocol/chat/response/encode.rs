//! A whole answer for a client.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::chat::request::{arguments, data_url};
use crate::protocol::chat::{annotations, details, finish, hosted, usage};
use crate::protocol::ir::{
    Arguments, Call, Choice, Finish, Media, MediaKind, OpaqueKind, Part, Response, Source, Text,
    Thought,
};
use crate::protocol::json::{Array, Object, Str};
use crate::protocol::translate::{ChatReasoning, Reply};

/// Writes an answer for a client.
pub fn encode(response: &Response<'_>, reply: &Reply, out: &mut BytesMut) {
    let mut body = Object::open(out);
    head(&mut body, reply, "chat.completion");
    let mut choices = body.array("choices");
    for (index, choice) in response.choices.iter().enumerate() {
        Writer::new(choice, reply).write(index, &mut choices.object());
    }
    if response.choices.is_empty() {
        Writer::new(&Choice::default(), reply).write(0, &mut choices.object());
    }
    drop(choices);
    usage::write(&response.usage.unwrap_or_default(), body.key("usage"));
    if let Some(service) = &response.service {
        body.str("service_tier", &tier(service));
    }
    if let Some(fingerprint) = &response.fingerprint {
        body.str("system_fingerprint", fingerprint);
    }
}

/// What stands first in every answer and in every piece of one.
pub(crate) fn head(body: &mut Object<'_>, reply: &Reply, kind: &str) {
    let prefix = if kind.starts_with("text") {
        "cmpl-"
    } else {
        "chatcmpl-"
    };
    body.text("id", &format!("{prefix}{}", reply.id));
    body.text("object", kind);
    body.number("created", reply.created);
    body.text("model", &reply.model);
}

/// A tier in the words of chat.
pub(crate) fn tier<'a>(service: &'a Str<'_>) -> Str<'a> {
    if service.is("standard") {
        return Str::new("default");
    }
    service.borrowed()
}

/// Text as it is put together: pieces of JSON text, and how long it is.
#[derive(Default)]
struct Spoken<'p> {
    pieces: Vec<Cow<'p, str>>,
    /// Whether somebody has to be told where in it something stands; to count
    /// characters is to look at each.
    counts: bool,
    characters: usize,
    filled: bool,
}

impl<'p> Spoken<'p> {
    fn count(&mut self, text: &Str<'_>) {
        self.filled |= !text.is_empty();
        if self.counts {
            self.characters += text.characters();
        }
    }

    fn push(&mut self, text: &'p Str<'_>) {
        self.count(text);
        self.pieces.push(text.inner());
    }

    fn push_owned(&mut self, text: String) {
        let text = Str::from(text);
        self.count(&text);
        self.pieces.push(Cow::Owned(text.inner().into_owned()));
    }

    /// A blank line, if there is something to set it apart from.
    fn apart(&mut self) {
        if self.filled {
            self.characters += 2;
            self.pieces.push(Cow::Borrowed("\\n\\n"));
        }
    }

    fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"\"");
        for piece in &self.pieces {
            out.extend_from_slice(piece.as_bytes());
        }
        out.extend_from_slice(b"\"");
    }
}

/// A thought and where in all reasoning it stands.
struct Placed<'p, 'a> {
    thought: &'p Thought<'a>,
    span: (usize, usize),
}

struct Writer<'p, 'a> {
    reply: &'p Reply,
    choice: &'p Choice<'a>,
    content: Spoken<'p>,
    reasoning: Spoken<'p>,
    refusal: Spoken<'p>,
    /// Texts with citations, and where in the content they begin and end.
    cited: Vec<(&'p Text<'a>, usize, usize)>,
    thoughts: Vec<Placed<'p, 'a>>,
    calls: Vec<&'p Call<'a>>,
    images: Vec<&'p Media<'a>>,
}

impl<'p, 'a> Writer<'p, 'a> {
    fn new(choice: &'p Choice<'a>, reply: &'p Reply) -> Self {
        let cites =
            |part: &Part<'_>| matches!(part, Part::Text(text) if !text.annotations.is_empty());
        let mut writer = Self {
            reply,
            choice,
            content: Spoken {
                counts: choice.parts.iter().any(cites),
                ..Spoken::default()
            },
            reasoning: Spoken {
                counts: true,
                ..Spoken::default()
            },
            refusal: Spoken::default(),
            cited: Vec::new(),
            thoughts: Vec::new(),
            calls: Vec::new(),
            images: Vec::new(),
        };
        writer.sort();
        writer
    }

    /// Puts every part where chat has a place for it.
    fn sort(&mut self) {
        let items = self.reply.upstream == Protocol::Responses;
        let mut apart = false;
        for part in &self.choice.parts {
            match part {
                Part::Text(text) => {
                    if (apart || items) && !text.text.is_empty() {
                        self.content.apart();
                    }
                    apart = false;
                    let before = self.content.characters;
                    self.content.push(&text.text);
                    if !text.annotations.is_empty() {
                        self.cited.push((text, before, self.content.characters));
                    }
                }
                Part::Refusal(text) => self.refusal.push(text),
                Part::Reasoning(thought) => {
                    apart |= splits_text(self.reply.upstream);
                    self.thought(thought);
                }
                Part::Call(call) => {
                    apart = true;
                    self.calls.push(call);
                }
                Part::Media(media) if media.kind == MediaKind::Image => self.images.push(media),
                Part::Media(media) => {
                    self.content.apart();
                    self.content.push_owned(omitted(media).to_owned());
                    apart = true;
                }
                Part::Hosted(tool) => {
                    apart = true;
                    if let Some(text) = hosted::code_text(tool) {
                        self.content.apart();
                        self.content.push_owned(text);
                    }
                }
                Part::Result(_) => {}
            }
        }
    }

    fn thought(&mut self, thought: &'p Thought<'a>) {
        if !self.reply.show_reasoning {
            return;
        }
        let texts = std::iter::once(&thought.text).chain(&thought.summary);
        let mut texts = texts.filter(|text| !text.is_empty()).peekable();
        if texts.peek().is_some() {
            self.reasoning.apart();
        }
        let start = self.reasoning.characters;
        for (i, text) in texts.enumerate() {
            if i > 0 {
                self.reasoning.apart();
            }
            self.reasoning.push(text);
        }
        let span = (start, self.reasoning.characters);
        self.thoughts.push(Placed { thought, span });
    }

    fn write(&self, index: usize, object: &mut Object<'_>) {
        object.number("index", index);
        let mut message = object.object("message");
        message.text("role", "assistant");
        let silent = self.content.pieces.is_empty() && !self.calls.is_empty();
        match silent {
            true => _ = message.null("content"),
            false => self.content.write(message.key("content")),
        }
        self.write_refusal(&mut message);
        let mut list = message.array("annotations");
        for (text, before, end) in &self.cited {
            for annotation in &text.annotations {
                annotations::write(annotation, *before, *end, &mut list.object());
            }
        }
        drop(list);
        self.write_reasoning(&mut message);
        self.write_calls(&mut message);
        if !self.images.is_empty() {
            let mut images = message.array("images");
            for (index, image) in self.images.iter().enumerate() {
                write_image(image, index, &mut images.object());
            }
        }
        drop(message);
        self.write_logprobs(object);
        let finish = self.choice.finish.as_ref().unwrap_or(&Finish::Stop);
        let legacy = self.reply.legacy_functions;
        let word = finish::word(finish, !self.calls.is_empty(), legacy);
        object.text("finish_reason", word);
    }

    fn write_refusal(&self, message: &mut Object<'_>) {
        let blocked = match &self.choice.finish {
            Some(Finish::ContentFilter { text, .. }) => text.as_deref(),
            _ => None,
        };
        match blocked {
            _ if !self.refusal.pieces.is_empty() => self.refusal.write(message.key("refusal")),
            Some(text) => _ = message.text("refusal", text),
            None => _ = message.null("refusal"),
        }
    }

    fn write_reasoning(&self, message: &mut Object<'_>) {
        if !self.reasoning.pieces.is_empty() {
            self.reasoning
                .write(message.key(reasoning_name(self.reply)));
        }
        let all = self.reply.chat_reasoning == ChatReasoning::Details;
        let told = |placed: &&Placed<'_, '_>| all || has_blob(placed.thought);
        let of_text = |part: &'p Part<'a>| match part {
            Part::Text(text) => text.opaque.as_ref(),
            _ => None,
        };
        let on_text = self.choice.parts.iter().filter_map(of_text);
        let on_text: Vec<_> = on_text.filter(|_| self.reply.show_reasoning).collect();
        let told: Vec<_> = self.thoughts.iter().filter(told).collect();
        if told.is_empty() && on_text.is_empty() {
            return;
        }
        let mut list = message.array("reasoning_details");
        let thoughts = told.len();
        for (index, placed) in told.into_iter().enumerate() {
            self.write_thought(placed, index, all, &mut list);
        }
        for (i, opaque) in on_text.into_iter().enumerate() {
            let entry = details::Entry {
                index: thoughts + i,
                opaque: Some(opaque),
                ..details::Entry::default()
            };
            details::write(&entry, self.reply, &mut list.object());
        }
    }

    /// A thought's entries: text goes with its signature, summaries go before
    /// their ciphertext.
    fn write_thought(
        &self,
        placed: &Placed<'_, '_>,
        index: usize,
        all: bool,
        list: &mut Array<'_>,
    ) {
        let thought = placed.thought;
        if all {
            for summary in &thought.summary {
                let entry = details::Entry {
                    index,
                    summary: Some(summary),
                    ..details::Entry::default()
                };
                details::write(&entry, self.reply, &mut list.object());
            }
        }
        let opaque = thought.opaque.as_ref();
        let opaque = opaque.filter(|opaque| opaque.kind != OpaqueKind::Unsigned);
        let signed = opaque.is_none_or(|o| o.kind == OpaqueKind::AnthropicSignature);
        let text = Some(&thought.text).filter(|text| !text.is_empty() && (all || signed));
        if text.is_none() && opaque.is_none() {
            return;
        }
        let entry = details::Entry {
            index,
            text,
            opaque,
            span: Some(placed.span).filter(|(start, end)| text.is_none() && !all && start < end),
            ..details::Entry::default()
        };
        details::write(&entry, self.reply, &mut list.object());
    }

    fn write_calls(&self, message: &mut Object<'_>) {
        if self.calls.is_empty() {
            return;
        }
        if self.reply.legacy_functions {
            if let Some(first) = self.calls.first() {
                let mut call = message.object("function_call");
                call.str("name", &first.name);
                arguments(&first.arguments, call.key("arguments"));
            }
            return;
        }
        let mut list = message.array("tool_calls");
        for call in &self.calls {
            self.write_call(call, &mut list.object());
        }
    }

    fn write_call(&self, call: &Call<'_>, entry: &mut Object<'_>) {
        entry.str("id", &call.id);
        if let (Arguments::Free(input), true) = (&call.arguments, self.reply.custom_tools) {
            entry.text("type", "custom");
            let mut custom = entry.object("custom");
            custom.str("name", &call.name).str("input", input);
            return;
        }
        entry.text("type", "function");
        let mut function = entry.object("function");
        function.str("name", &call.name);
        arguments(&call.arguments, function.key("arguments"));
        drop(function);
        if let Some(opaque) = &call.opaque {
            details::write_signature(opaque, self.reply, entry);
        }
    }

    fn write_logprobs(&self, object: &mut Object<'_>) {
        if self.choice.logprobs.is_empty() {
            object.null("logprobs");
            return;
        }
        let mut logprobs = object.object("logprobs");
        let mut content = logprobs.array("content");
        for token in &self.choice.logprobs {
            content.raw(token);
        }
        drop(content);
        logprobs.null("refusal");
    }
}

/// Whether reasoning between two texts sets them apart: in chat itself it doesn't,
/// its text is one stream.
pub(crate) fn splits_text(upstream: Protocol) -> bool {
    matches!(upstream, Protocol::Messages | Protocol::Responses)
}

fn has_blob(thought: &Thought<'_>) -> bool {
    let opaque = thought.opaque.as_ref();
    opaque.is_some_and(|opaque| opaque.kind != OpaqueKind::Unsigned)
}

/// The string that holds reasoning.
pub(crate) const fn reasoning_name(reply: &Reply) -> &'static str {
    match reply.chat_reasoning {
        ChatReasoning::Renamed => "reasoning",
        ChatReasoning::Content | ChatReasoning::Details => "reasoning_content",
    }
}

/// What is said in place of a medium that chat can't show.
pub(crate) const fn omitted(media: &Media<'_>) -> &'static str {
    match media.kind {
        MediaKind::Image => "[image omitted]",
        MediaKind::Audio => "[audio omitted]",
        MediaKind::Video => "[video omitted]",
        MediaKind::Document => "[file omitted]",
    }
}

/// Writes a picture of the answer, as OpenRouter has it.
pub(crate) fn write_image(image: &Media<'_>, index: usize, entry: &mut Object<'_>) {
    entry.text("type", "image_url");
    let mut inner = entry.object("image_url");
    match &image.source {
        Source::Inline { mime, data } => data_url(&mut inner, "url", mime, data),
        Source::Url { url, .. } => _ = inner.str("url", url),
        Source::File { id } => _ = inner.str("url", id),
        Source::Text(text) => _ = inner.str("url", text),
    }
    drop(inner);
    entry.number("index", index);
}
