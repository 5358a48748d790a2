//! What a model says, told to a Gemini client part by part.
//!
//! Gemini's parts follow each other, calls come whole, and a blob rides on a part.
//! Parts that are open at once are therefore told in the order in which they
//! began: what comes for a later one waits, within limits.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::grounding::{Grounding, Stretch};
use super::offsets::Offsets;
use super::{arguments, hosted, media, part, signature};
use crate::protocol::Protocol;
use crate::protocol::ir::{
    Annotation, Finish, HostedKind, Media, Opaque, OpaqueKind, PartKind, Source,
};
use crate::protocol::json::{Object, Raw, Str};
use crate::protocol::translate::Reply;

/// The most reasoning that is kept for a client that does not want to see it.
const HIDDEN: usize = 1024 * 1024;
/// What a part weighs that waits, beside what is in it.
const WEIGHT: usize = 256;

/// Where parts go.
pub(super) trait Sink {
    /// Takes a part, written by the closure.
    fn part(&mut self, write: &mut dyn FnMut(&mut BytesMut));
}

/// Where parts go, and for whom.
pub(super) struct To<'t> {
    pub(super) reply: &'t Reply,
    pub(super) sink: &'t mut dyn Sink,
}

impl To<'_> {
    fn text(&mut self, text: &Str<'_>, thought: bool, signature: Option<&str>) {
        let mut write = |out: &mut BytesMut| part::write_text(text, thought, signature, out);
        self.sink.part(&mut write);
    }
}

/// Stands where a signature would be, if its maker gave any.
const UNSIGNED: Opaque<'static> = Opaque {
    kind: OpaqueKind::Unsigned,
    data: Str::new(""),
    model: None,
    account: None,
};

/// What waits for its turn in a part.
#[derive(Debug)]
enum Kind {
    Text,
    Thought,
    Call {
        id: String,
        name: String,
        custom: bool,
    },
    /// Parts that are written already.
    Ready(Vec<BytesMut>),
}

/// A part that has begun and was not told to its end.
#[derive(Debug)]
struct Waiting {
    number: usize,
    kind: Kind,
    ended: bool,
    /// What came for it and was not told.
    held: String,
    /// Whether some of that was given up.
    lost: bool,
    /// The summary that was told last.
    summary: Option<usize>,
    opaque: Option<Opaque<'static>>,
    annotations: Vec<Annotation<'static>>,
    /// Where the text begins in all visible text, in bytes.
    start: Option<usize>,
}

impl Waiting {
    /// Bytes that it holds, near enough.
    fn weight(&self) -> usize {
        let ready = match &self.kind {
            Kind::Ready(parts) => parts.iter().map(BytesMut::len).sum(),
            _ => 0,
        };
        let opaque = self.opaque.as_ref().map_or(0, |opaque| opaque.data.len());
        let urls = self.annotations.iter().map(|a| WEIGHT + a.url.len());
        WEIGHT + ready + self.held.len() + opaque + urls.sum::<usize>()
    }
}

/// One answer that is being told.
#[derive(Debug, Default)]
pub(super) struct Telling {
    waiting: VecDeque<Waiting>,
    /// Blobs whose own part is not shown: they ride on the next.
    blobs: Vec<String>,
    offsets: Offsets,
    grounding: Grounding,
    /// Calls whose arguments are no JSON. Whether they are told depends on why the
    /// answer ends.
    broken: Vec<Waiting>,
    /// Bytes that wait.
    weight: usize,
    /// Whether a call was told.
    called: bool,
    /// Why it ended.
    finish: Option<Finish>,
}

impl Telling {
    /// Bytes that wait.
    pub(super) const fn weight(&self) -> usize {
        self.weight
    }

    /// A part begins.
    pub(super) fn begin(&mut self, number: usize, kind: PartKind<'_>, to: &mut To<'_>) {
        let kind = match kind {
            PartKind::Text | PartKind::Refusal => Kind::Text,
            PartKind::Reasoning => Kind::Thought,
            PartKind::Call {
                id, name, custom, ..
            } => Kind::Call {
                id: id.to_plain_string(),
                name: name.to_plain_string(),
                custom,
            },
            PartKind::Media(medium) => Kind::Ready(ready(&medium)),
            PartKind::Hosted(hosted) if hosted.kind == HostedKind::WebSearch => {
                self.grounding.search(&hosted);
                Kind::Ready(hosted::encode(&hosted))
            }
            PartKind::Hosted(hosted) => Kind::Ready(hosted::encode(&hosted)),
        };
        let waiting = Waiting {
            number,
            ended: matches!(kind, Kind::Ready(_)),
            kind,
            held: String::new(),
            lost: false,
            summary: None,
            opaque: None,
            annotations: Vec::new(),
            start: None,
        };
        self.weight += waiting.weight();
        self.waiting.push_back(waiting);
        self.advance(to);
    }

    /// More of a text, of reasoning, of a custom call's input.
    pub(super) fn text(&mut self, number: usize, text: &Str<'_>, to: &mut To<'_>) {
        if text.is_empty() {
            return;
        }
        match self.waiting.front().filter(|front| front.number == number) {
            Some(Waiting {
                kind: Kind::Text, ..
            }) => self.say(text, to),
            Some(Waiting {
                kind: Kind::Thought,
                ..
            }) if to.reply.show_reasoning => to.text(text, true, None),
            _ => self.hold(number, &text.plain()),
        }
    }

    /// More of a summary of reasoning.
    pub(super) fn summary(&mut self, number: usize, index: usize, text: &Str<'_>, to: &mut To<'_>) {
        let Some(part) = find(&mut self.waiting, number) else {
            return;
        };
        let begins = part.summary.is_some_and(|last| last != index);
        part.summary = Some(index);
        if begins {
            self.text(number, &Str::new("\n\n"), to);
        }
        self.text(number, text, to);
    }

    /// More of a call's arguments.
    pub(super) fn arguments(&mut self, number: usize, piece: &str) {
        self.hold(number, piece);
    }

    /// A call's arguments as a whole.
    pub(super) fn arguments_whole(&mut self, number: usize, value: &Raw<'_>) {
        if let Some(part) = find(&mut self.waiting, number) {
            self.weight -= part.held.len();
            part.held.clear();
        }
        self.hold(number, value.as_str());
    }

    /// A part's blob; pieces of one are put together.
    pub(super) fn opaque(&mut self, number: usize, opaque: Opaque<'_>) {
        let Some(part) = find(&mut self.waiting, number) else {
            return;
        };
        self.weight += opaque.data.len();
        part.opaque = Some(match part.opaque.take() {
            Some(before) if before.kind == opaque.kind => Opaque {
                data: Str::from(before.data.into_plain().into_owned() + &opaque.data.plain()),
                ..before
            },
            _ => owned(opaque),
        });
    }

    /// A reference of a text.
    pub(super) fn annotation(&mut self, number: usize, annotation: Annotation<'_>) {
        if let Some(part) = find(&mut self.waiting, number) {
            self.weight += WEIGHT + annotation.url.len();
            part.annotations.push(Annotation {
                url: annotation.url.into_owned(),
                title: annotation.title.map(Str::into_owned),
                cited: None,
                span: annotation.span,
            });
        }
    }

    /// A part ends.
    pub(super) fn end(&mut self, number: usize, to: &mut To<'_>) {
        if let Some(part) = find(&mut self.waiting, number) {
            part.ended = true;
        }
        self.advance(to);
    }

    /// The answer ends.
    pub(super) fn finish(&mut self, finish: Finish, to: &mut To<'_>) {
        for part in &mut self.waiting {
            part.ended = true;
        }
        self.advance(to);
        let cut = matches!(
            finish,
            Finish::Length
                | Finish::ContextFull
                | Finish::Continuation(_)
                | Finish::ContentFilter { .. }
        );
        for part in std::mem::take(&mut self.broken) {
            self.weight = self.weight.saturating_sub(part.weight());
            if !cut {
                self.call(&part, to);
            }
        }
        self.finish = Some(finish);
    }

    /// Why it ended, if it did.
    pub(super) const fn ending(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// What it rests on.
    pub(super) const fn grounding(&self) -> &Grounding {
        &self.grounding
    }

    /// Whether a blob waits that has found no part.
    pub(super) const fn has_blobs(&self) -> bool {
        !self.blobs.is_empty()
    }

    /// Writes the last part: nothing, with whatever blob has found no other.
    pub(super) fn last(&mut self, to: &mut To<'_>) {
        let blob = self.blob(to);
        to.text(&Str::new(""), false, blob.as_deref());
    }

    fn hold(&mut self, number: usize, text: &str) {
        let Some(part) = find(&mut self.waiting, number) else {
            return;
        };
        if matches!(part.kind, Kind::Thought) && part.held.len() + text.len() > HIDDEN {
            part.lost = true;
            return;
        }
        self.weight += text.len();
        part.held.push_str(text);
    }

    /// Visible text of the foremost part.
    fn say(&mut self, text: &Str<'_>, to: &mut To<'_>) {
        if let Some(front) = self.waiting.front_mut() {
            front.start.get_or_insert_with(|| self.offsets.bytes());
        }
        self.offsets.push(text);
        let blob = self.blob(to);
        to.text(text, false, blob.as_deref());
    }

    /// The blob that rides on the next part. Those before it get parts of their own.
    fn blob(&mut self, to: &mut To<'_>) -> Option<String> {
        let last = self.blobs.pop()?;
        let weight = self.blobs.iter().map(String::len).sum::<usize>() + last.len();
        self.weight = self.weight.saturating_sub(weight);
        for blob in self.blobs.drain(..) {
            to.text(&Str::new(""), false, Some(&blob));
        }
        Some(last)
    }

    /// Tells what can be told now.
    fn advance(&mut self, to: &mut To<'_>) {
        while let Some(front) = self.waiting.front_mut() {
            let shown = match front.kind {
                Kind::Text => true,
                Kind::Thought => to.reply.show_reasoning,
                Kind::Call { .. } | Kind::Ready(_) => false,
            };
            if shown && !front.held.is_empty() {
                let thought = matches!(front.kind, Kind::Thought);
                let held = std::mem::take(&mut front.held);
                self.weight = self.weight.saturating_sub(held.len());
                if thought {
                    to.text(&Str::from(held), true, None);
                } else {
                    self.say(&Str::from(held), to);
                }
                continue;
            }
            if !front.ended {
                return;
            }
            if let Some(part) = self.waiting.pop_front() {
                self.over(part, to);
            }
        }
    }

    /// A part has been told but for its end.
    fn over(&mut self, part: Waiting, to: &mut To<'_>) {
        self.weight = self.weight.saturating_sub(part.weight());
        match &part.kind {
            Kind::Text => self.text_over(&part, to),
            Kind::Thought => self.thought_over(&part, to),
            Kind::Call { custom, .. } => {
                if !custom && arguments::readable(&part.held).is_none() {
                    self.weight += part.weight();
                    self.broken.push(part);
                    return;
                }
                self.call(&part, to);
            }
            Kind::Ready(parts) => {
                for part in parts {
                    to.sink.part(&mut |out| out.extend_from_slice(part));
                }
            }
        }
    }

    fn text_over(&mut self, part: &Waiting, to: &mut To<'_>) {
        let stretch = Stretch {
            offsets: &self.offsets,
            start: part.start.unwrap_or_else(|| self.offsets.bytes()),
        };
        for annotation in &part.annotations {
            self.grounding.annotation(annotation, stretch);
        }
        if let Some(opaque) = &part.opaque {
            let blob = signature::outward(opaque, None, to.reply);
            to.text(&Str::new(""), false, Some(&blob));
        }
    }

    fn thought_over(&mut self, part: &Waiting, to: &mut To<'_>) {
        if to.reply.show_reasoning {
            if let Some(opaque) = &part.opaque {
                let blob = signature::outward(opaque, None, to.reply);
                to.text(&Str::new(""), true, Some(&blob));
            }
            return;
        }
        let Some(opaque) = hidden(part, to.reply) else {
            return;
        };
        let wanted = matches!(
            opaque.kind,
            OpaqueKind::AnthropicSignature | OpaqueKind::Unsigned
        );
        if wanted && part.lost {
            return;
        }
        let text = (wanted && !part.held.is_empty()).then_some(part.held.as_str());
        let blob = signature::outward(&opaque, text, to.reply);
        self.weight += blob.len();
        self.blobs.push(blob);
    }

    fn call(&mut self, waiting: &Waiting, to: &mut To<'_>) {
        let Kind::Call { id, name, custom } = &waiting.kind else {
            return;
        };
        let own = waiting.opaque.as_ref();
        let own = own.map(|opaque| signature::outward(opaque, None, to.reply));
        if let Some(blob) = own.as_ref().and_then(|_| self.blob(to)) {
            to.text(&Str::new(""), false, Some(&blob));
        }
        let blob = own.or_else(|| self.blob(to));
        // Google wants a signature on the first call of a step. A mark in its place is
        // found in a history that goes on there, and becomes what is accepted.
        let first = !std::mem::replace(&mut self.called, true);
        let blob = blob.or_else(|| first.then(|| signature::outward(&UNSIGNED, None, to.reply)));
        to.sink.part(&mut |out| {
            let mut part = Object::open(out);
            {
                let mut call = part.object("functionCall");
                call.text("id", id).text("name", name);
                let out = call.key("args");
                if *custom {
                    Object::open(out).text("input", &waiting.held);
                } else {
                    arguments::write_text(&waiting.held, out);
                }
            }
            part::sign(&mut part, blob.as_deref());
        });
    }
}

/// The blob of reasoning that is not shown. Reasoning of a chat server has none,
/// yet some of them want it back.
fn hidden<'a>(part: &Waiting, reply: &Reply) -> Option<Opaque<'a>> {
    if let Some(opaque) = &part.opaque {
        return Some(opaque.clone());
    }
    (reply.upstream == Protocol::Chat && !part.held.is_empty()).then(|| Opaque {
        kind: OpaqueKind::Unsigned,
        data: Str::new(""),
        model: None,
        account: None,
    })
}

fn find(waiting: &mut VecDeque<Waiting>, number: usize) -> Option<&mut Waiting> {
    waiting
        .iter_mut()
        .find(|part| part.number == number && !part.ended)
}

fn owned(opaque: Opaque<'_>) -> Opaque<'static> {
    Opaque {
        kind: opaque.kind,
        data: opaque.data.into_owned(),
        model: opaque.model.map(Str::into_owned),
        account: opaque.account.map(Str::into_owned),
    }
}

/// The part of a medium.
fn ready(medium: &Media<'_>) -> Vec<BytesMut> {
    let mut out = BytesMut::new();
    match &medium.source {
        Source::Inline { mime, data } => {
            media::encode_inline(&mut Object::open(&mut out), mime, data);
        }
        Source::Url { url, mime } => {
            media::encode_file(&mut Object::open(&mut out), url, mime.as_ref());
        }
        Source::File { id } => media::encode_file(&mut Object::open(&mut out), id, None),
        Source::Text(text) => part::write_text(text, false, None, &mut out),
    }
    vec![out]
}
