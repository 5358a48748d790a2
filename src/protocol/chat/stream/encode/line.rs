//! One answer of a client's stream: what has been said of it so far.

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::chat::{annotations, details, finish, hosted, response};
use crate::protocol::ir::{
    Annotation, Delta, Finish, Hosted, Media, MediaKind, Opaque, OpaqueKind, PartKind,
};
use crate::protocol::json::{Array, Object, Raw, Str, write};
use crate::protocol::translate::{ChatReasoning, Reply};

use super::Frames;

/// One answer.
#[derive(Debug)]
pub(super) struct Line {
    number: usize,
    open: Vec<Open>,
    calls: usize,
    /// Characters of content so far.
    content: usize,
    /// Something other than text has come since the last text.
    apart: bool,
    /// Characters of reasoning so far.
    reasoning: usize,
    details: usize,
    annotations: usize,
    images: usize,
    refused: bool,
}

/// A part that has begun and not ended.
#[derive(Debug)]
struct Open {
    part: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Text {
        /// Where in the content it begins, once it has.
        from: Option<usize>,
    },
    Refusal,
    Reasoning(Reasoning),
    Call(Call),
    Other,
}

#[derive(Debug, Default)]
struct Reasoning {
    from: Option<usize>,
    summary: Option<usize>,
    /// Its number among the details, once it has one.
    index: Option<usize>,
    opaque: Option<Opaque<'static>>,
}

#[derive(Debug)]
struct Call {
    number: usize,
    custom: bool,
    /// Whether any of its arguments have been written.
    begun: bool,
    /// Its first frame, as long as a signature may still come that belongs there.
    held: Option<Held>,
    id: String,
}

#[derive(Debug)]
struct Held {
    name: Str<'static>,
    opaque: Option<Opaque<'static>>,
}

/// Writes a frame of that line.
fn frame(frames: &Frames, choice: usize, out: &mut BytesMut, inside: impl FnOnce(&mut BytesMut)) {
    frames.open(choice, out);
    inside(out);
    frames.close(out);
}

/// Writes a member whose value is a string, with a blank line before it if need be.
fn spoken(name: &str, apart: bool, text: &Str<'_>, out: &mut BytesMut) {
    out.extend_from_slice(b"\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(if apart { b"\":\"\\n\\n" } else { b"\":\"" });
    out.extend_from_slice(text.inner().as_bytes());
    out.extend_from_slice(b"\"");
}

/// Writes a member that is a list of one object.
fn listed(name: &str, out: &mut BytesMut, inside: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    let mut list = Array::open(out);
    inside(&mut list.object());
}

impl Line {
    pub(super) const fn new(number: usize) -> Self {
        Self {
            number,
            open: Vec::new(),
            calls: 0,
            content: 0,
            apart: false,
            reasoning: 0,
            details: 0,
            annotations: 0,
            images: 0,
            refused: false,
        }
    }

    /// Writes what follows from one delta of this choice.
    pub(super) fn delta(&mut self, delta: Delta<'_>, frames: &Frames, out: &mut BytesMut) {
        if !matches!(delta, Delta::Opaque { .. }) {
            self.release(frames, out);
        }
        match delta {
            Delta::PartStart { part, kind, .. } => self.start(part, kind, frames, out),
            Delta::Text { part, text, .. } => self.text(part, None, &text, frames, out),
            Delta::Summary {
                part, index, text, ..
            } => self.text(part, Some(index), &text, frames, out),
            Delta::Arguments { part, piece, .. } => self.arguments(part, &piece, frames, out),
            Delta::ArgumentsWhole { part, value, .. } => self.whole(part, &value, frames, out),
            Delta::Opaque { part, opaque, .. } => self.opaque(part, opaque, frames, out),
            Delta::Annotation {
                part, annotation, ..
            } => self.annotation(part, &annotation, frames, out),
            Delta::Logprobs { tokens, .. } => self.logprobs(&tokens, frames, out),
            Delta::PartEnd { part, .. } => self.end(part, frames, out),
            Delta::Finish { finish, .. } => self.finish(&finish, frames, out),
            _ => {}
        }
    }

    fn open(&mut self, part: usize) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.part == part)
    }

    fn start(&mut self, part: usize, kind: PartKind<'_>, frames: &Frames, out: &mut BytesMut) {
        let upstream = frames.reply.upstream;
        let kind = match kind {
            PartKind::Text => {
                self.apart |= upstream == Protocol::Responses;
                Kind::Text { from: None }
            }
            PartKind::Refusal => Kind::Refusal,
            PartKind::Reasoning => {
                self.apart |= response::splits_text(upstream);
                Kind::Reasoning(Reasoning::default())
            }
            PartKind::Call {
                id, name, custom, ..
            } => {
                self.apart = true;
                let call = Call {
                    number: self.calls,
                    custom,
                    begun: false,
                    id: id.to_plain_string(),
                    held: Some(Held {
                        name: name.into_owned(),
                        opaque: None,
                    }),
                };
                self.calls += 1;
                Kind::Call(call)
            }
            PartKind::Media(media) => {
                self.media(&media, frames, out);
                Kind::Other
            }
            PartKind::Hosted(hosted) => {
                self.hosted(&hosted, frames, out);
                Kind::Other
            }
        };
        self.open.push(Open { part, kind });
        // Elsewhere signatures don't ride on calls: nothing to wait for.
        if matches!(upstream, Protocol::Messages | Protocol::Responses) {
            self.release(frames, out);
        }
    }

    /// Writes the first frames of calls that were held for a signature.
    fn release(&mut self, frames: &Frames, out: &mut BytesMut) {
        let choice = self.number;
        for open in &mut self.open {
            if let Kind::Call(call) = &mut open.kind
                && let Some(held) = call.held.take()
            {
                call.open(&held, frames, choice, out);
            }
        }
    }

    fn media(&mut self, media: &Media<'_>, frames: &Frames, out: &mut BytesMut) {
        self.apart = true;
        if media.kind != MediaKind::Image {
            return self.say(&Str::new(response::omitted(media)), frames, out);
        }
        let index = self.images;
        self.images += 1;
        frame(frames, self.number, out, |out| {
            listed("images", out, |entry| {
                response::write_image(media, index, entry);
            });
        });
    }

    fn hosted(&mut self, hosted: &Hosted<'_>, frames: &Frames, out: &mut BytesMut) {
        self.apart = true;
        if let Some(text) = hosted::code_text(hosted) {
            self.say(&text.into(), frames, out);
            self.apart = true;
        }
    }

    /// Text of the content.
    fn say(&mut self, text: &Str<'_>, frames: &Frames, out: &mut BytesMut) {
        let apart = self.apart && self.content > 0;
        self.apart = false;
        self.content += text.characters() + if apart { 2 } else { 0 };
        frame(frames, self.number, out, |out| {
            spoken("content", apart, text, out);
        });
    }

    fn text(
        &mut self,
        part: usize,
        summary: Option<usize>,
        text: &Str<'_>,
        frames: &Frames,
        out: &mut BytesMut,
    ) {
        if text.is_empty() {
            return;
        }
        let choice = self.number;
        let Some(open) = self.open(part) else {
            return;
        };
        match &mut open.kind {
            Kind::Text { .. } => {
                self.say(text, frames, out);
                let from = self.content - text.characters();
                if let Some(Open {
                    kind: Kind::Text { from: begun },
                    ..
                }) = self.open(part)
                {
                    begun.get_or_insert(from);
                }
            }
            Kind::Refusal => {
                self.refused = true;
                frame(frames, choice, out, |out| {
                    spoken("refusal", false, text, out);
                });
            }
            Kind::Reasoning(_) => self.reason(part, summary, text, frames, out),
            Kind::Call(call) => call.input(text, frames, choice, out),
            Kind::Other => {}
        }
    }

    fn reason(
        &mut self,
        part: usize,
        summary: Option<usize>,
        text: &Str<'_>,
        frames: &Frames,
        out: &mut BytesMut,
    ) {
        let reply = &frames.reply;
        if !reply.show_reasoning {
            return;
        }
        let (said, next) = (self.reasoning, self.details);
        let Some(Open {
            kind: Kind::Reasoning(own),
            ..
        }) = self.open(part)
        else {
            return;
        };
        let other = own.from.is_none() || own.summary != summary;
        let apart = other && said > 0;
        own.summary = summary;
        let begin = said + if apart { 2 } else { 0 };
        own.from.get_or_insert(begin);
        let detailed = reply.chat_reasoning == ChatReasoning::Details;
        let index = match detailed {
            true => *own.index.get_or_insert(next),
            false => next,
        };
        if detailed {
            self.details = self.details.max(index + 1);
        }
        self.reasoning = begin + text.characters();
        frame(frames, self.number, out, |out| {
            spoken(response::reasoning_name(reply), apart, text, out);
            if detailed {
                out.extend_from_slice(b",");
                let entry = details::Entry {
                    index,
                    text: Some(text).filter(|_| summary.is_none()),
                    summary: Some(text).filter(|_| summary.is_some()),
                    ..details::Entry::default()
                };
                listed("reasoning_details", out, |object| {
                    details::write(&entry, reply, object);
                });
            }
        });
    }

    fn arguments(&mut self, part: usize, piece: &Str<'_>, frames: &Frames, out: &mut BytesMut) {
        let choice = self.number;
        if let Some(Open {
            kind: Kind::Call(call),
            ..
        }) = self.open(part)
            && !piece.is_empty()
        {
            call.piece(piece, frames, choice, out);
        }
    }

    fn whole(&mut self, part: usize, value: &Raw<'_>, frames: &Frames, out: &mut BytesMut) {
        self.arguments(part, &Str::new(&value.compact()), frames, out);
    }

    fn opaque(&mut self, part: usize, opaque: Opaque<'_>, frames: &Frames, out: &mut BytesMut) {
        let Some(open) = self.open(part) else {
            return;
        };
        let owned = Opaque {
            kind: opaque.kind,
            data: opaque.data.into_owned(),
            model: opaque.model.map(Str::into_owned),
            account: opaque.account.map(Str::into_owned),
        };
        match &mut open.kind {
            Kind::Reasoning(own) => own.opaque = Some(owned),
            Kind::Call(call) => match &mut call.held {
                Some(held) => held.opaque = Some(owned),
                None => {
                    let id = call.id.clone();
                    let entry = details::Entry {
                        opaque: Some(&owned),
                        call: Some(&id),
                        ..details::Entry::default()
                    };
                    self.detail(None, entry, frames, out);
                }
            },
            Kind::Text { .. } | Kind::Refusal | Kind::Other => {
                let entry = details::Entry {
                    opaque: Some(&owned),
                    ..details::Entry::default()
                };
                self.detail(None, entry, frames, out);
            }
        }
    }

    /// A blob's entry among the details, with the next number if it has none.
    fn detail(
        &mut self,
        index: Option<usize>,
        mut entry: details::Entry<'_>,
        frames: &Frames,
        out: &mut BytesMut,
    ) {
        let unsigned = |opaque: &Opaque<'_>| opaque.kind == OpaqueKind::Unsigned;
        if !frames.reply.show_reasoning || entry.opaque.is_none_or(unsigned) {
            return;
        }
        entry.index = index.unwrap_or(self.details);
        self.details = self.details.max(entry.index + 1);
        frame(frames, self.number, out, |out| {
            listed("reasoning_details", out, |object| {
                details::write(&entry, &frames.reply, object);
            });
        });
    }

    /// SDKs put the elements of lists together by their index.
    fn annotation(
        &mut self,
        part: usize,
        annotation: &Annotation<'_>,
        frames: &Frames,
        out: &mut BytesMut,
    ) {
        let end = self.content;
        let index = self.annotations;
        let from = match self.open(part) {
            Some(Open {
                kind: Kind::Text { from },
                ..
            }) => from.unwrap_or(end),
            _ => return,
        };
        self.annotations += 1;
        frame(frames, self.number, out, |out| {
            listed("annotations", out, |entry| {
                annotations::write(annotation, from, end, entry);
                entry.number("index", index);
            });
        });
    }

    fn logprobs(&self, tokens: &[Raw<'_>], frames: &Frames, out: &mut BytesMut) {
        frames.open(self.number, out);
        out.extend_from_slice(b"},\"logprobs\":{\"content\":");
        let mut list = Array::open(out);
        for token in tokens {
            list.raw(token);
        }
        drop(list);
        out.extend_from_slice(b",\"refusal\":null},\"finish_reason\":null}");
        out.extend_from_slice(&frames.tail);
    }

    fn end(&mut self, part: usize, frames: &Frames, out: &mut BytesMut) {
        let at = self.open.iter().position(|open| open.part == part);
        let Some(at) = at else {
            return;
        };
        match self.open.swap_remove(at).kind {
            Kind::Call(mut call) => call.end(frames, self.number, out),
            Kind::Reasoning(own) => {
                let Some(opaque) = own.opaque else {
                    return;
                };
                let detailed = frames.reply.chat_reasoning == ChatReasoning::Details;
                let span = own.from.map(|from| (from, self.reasoning));
                let span = span.filter(|_| !detailed);
                let entry = details::Entry {
                    opaque: Some(&opaque),
                    span,
                    ..details::Entry::default()
                };
                self.detail(own.index, entry, frames, out);
            }
            Kind::Text { .. } | Kind::Refusal | Kind::Other => {}
        }
    }

    fn finish(&mut self, finish: &Finish, frames: &Frames, out: &mut BytesMut) {
        if let Finish::ContentFilter {
            text: Some(text), ..
        } = finish
            && !self.refused
        {
            frame(frames, self.number, out, |out| {
                spoken("refusal", false, &Str::new(text), out);
            });
        }
        let legacy = frames.reply.legacy_functions;
        let word = finish::word(finish, self.calls > 0, legacy);
        frames.finish(self.number, word, out);
    }
}

impl Call {
    /// Whether the client hears of this call: in the legacy form there is one.
    const fn is_heard(&self, reply: &Reply) -> bool {
        self.number == 0 || !reply.legacy_functions
    }

    /// Whether its input goes to the client as the free text that it is. The
    /// legacy form has no such calls.
    const fn is_free(&self, reply: &Reply) -> bool {
        self.custom && reply.custom_tools && !reply.legacy_functions
    }

    /// The first frame: id and name, which must not come twice.
    fn open(&self, held: &Held, frames: &Frames, choice: usize, out: &mut BytesMut) {
        if !self.is_heard(&frames.reply) {
            return;
        }
        frame(frames, choice, out, |out| {
            if frames.reply.legacy_functions {
                out.extend_from_slice(b"\"function_call\":");
                let mut call = Object::open(out);
                call.str("name", &held.name).text("arguments", "");
                return;
            }
            listed("tool_calls", out, |entry| {
                entry.number("index", self.number).text("id", &self.id);
                if self.custom && frames.reply.custom_tools {
                    entry.text("type", "custom");
                    let mut custom = entry.object("custom");
                    custom.str("name", &held.name).text("input", "");
                } else {
                    entry.text("type", "function");
                    let mut function = entry.object("function");
                    function.str("name", &held.name).text("arguments", "");
                }
                if let Some(opaque) = &held.opaque {
                    details::write_signature(opaque, &frames.reply, entry);
                }
            });
        });
    }

    /// A piece of the arguments.
    fn piece(&mut self, piece: &Str<'_>, frames: &Frames, choice: usize, out: &mut BytesMut) {
        self.begun = true;
        self.write(&[piece.inner().as_bytes()], frames, choice, out);
    }

    /// A piece of a custom call's input; for a client that doesn't know such
    /// calls, of the one string of a function.
    fn input(&mut self, text: &Str<'_>, frames: &Frames, choice: usize, out: &mut BytesMut) {
        let begun = std::mem::replace(&mut self.begun, true);
        if self.is_free(&frames.reply) {
            return frame(frames, choice, out, |out| {
                out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                write::number(out, self.number);
                out.extend_from_slice(b",\"custom\":{\"input\":");
                write::string(out, text);
                out.extend_from_slice(b"}}]");
            });
        }
        // A string within a string: what is escaped is escaped again.
        let inner = text.inner();
        let twice = Str::new(&inner);
        let before: &[u8] = if begun { b"" } else { br#"{\"input\":\""# };
        self.write(&[before, twice.inner().as_bytes()], frames, choice, out);
    }

    fn end(&mut self, frames: &Frames, choice: usize, out: &mut BytesMut) {
        match (self.begun, self.custom) {
            _ if self.is_free(&frames.reply) => {}
            (true, true) => self.write(&[br#"\"}"#], frames, choice, out),
            (true, false) => {}
            (false, true) => self.write(&[br#"{\"input\":\"\"}"#], frames, choice, out),
            (false, false) => self.write(&[b"{}"], frames, choice, out),
        }
    }

    /// Writes a piece of the arguments' string, given as JSON text.
    fn write(&self, pieces: &[&[u8]], frames: &Frames, choice: usize, out: &mut BytesMut) {
        if !self.is_heard(&frames.reply) {
            return;
        }
        frame(frames, choice, out, |out| {
            let legacy = frames.reply.legacy_functions;
            if legacy {
                out.extend_from_slice(b"\"function_call\":{\"arguments\":\"");
            } else {
                out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
                write::number(out, self.number);
                out.extend_from_slice(b",\"function\":{\"arguments\":\"");
            }
            for piece in pieces {
                out.extend_from_slice(piece);
            }
            out.extend_from_slice(if legacy { b"\"}" } else { b"\"}}]" });
        });
    }
}
