//! A stream in Messages, written for a client.
//!
//! Blocks come one after the other. What belongs to a part that is not yet at its
//! turn is held back, within a limit, and written when the parts before it have
//! ended. Nothing is written before there is something to show, so that another
//! target may still be tried.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::error::{ErrorBody, ErrorClass, Source};
use crate::protocol::ir::{Annotation, Delta, Finish, Hosted, Opaque, PartKind};
use crate::protocol::json::{Object, Raw, Str};
use crate::protocol::messages::hosted::Blocks;
use crate::protocol::messages::response::PICTURE;
use crate::protocol::messages::usage::{self, Usage};
use crate::protocol::messages::{arguments, citation, error, seal, stop};
use crate::protocol::translate::Reply;

use super::{HELD, OVERHEAD, kept, weight};

/// The most parts that may be open at once.
const PARTS: usize = 1024;

/// Writes a client's stream.
#[derive(Debug)]
pub struct Encoder {
    /// The parts that are open, the one being written first.
    parts: VecDeque<Part>,
    frames: Frames,
    over: bool,
    calls: bool,
    finish: Option<Finish>,
    /// Bytes held back.
    held: usize,
}

/// A part that has begun and is not yet written to its end.
#[derive(Debug)]
struct Part {
    number: usize,
    kind: Kind,
    /// Whether its block was opened.
    begun: bool,
    /// Whether something of it was said, written or held back.
    said: bool,
    ended: bool,
    /// What is held back: the inside of a JSON string.
    waiting: String,
    annotations: Vec<Annotation<'static>>,
    opaque: Option<Opaque<'static>>,
    /// The summary that was spoken last.
    summary: Option<usize>,
    /// What all this costs, in bytes.
    held: usize,
}

#[derive(Debug)]
enum Kind {
    Text,
    Thinking,
    /// Id and name as they are written, and whether it takes free text.
    Call {
        id: Str<'static>,
        name: Str<'static>,
        custom: bool,
    },
    /// Blocks that came whole: their starts and, beside a call's, its input.
    Whole(Vec<(BytesMut, Option<String>)>),
}

impl Encoder {
    /// For that client.
    #[must_use]
    pub fn new(reply: Reply) -> Self {
        let mut usage = Usage::default();
        usage.tokens.input = Some(reply.input_estimate).filter(|tokens| *tokens > 0);
        Self {
            parts: VecDeque::new(),
            frames: Frames {
                reply,
                begun: false,
                index: 0,
                prefix: Vec::new(),
                usage,
                tier: usage::tier(None),
            },
            over: false,
            calls: false,
            finish: None,
            held: 0,
        }
    }

    /// Writes what follows from one delta.
    pub fn delta(&mut self, delta: Delta<'_>, out: &mut BytesMut) {
        if self.over {
            return;
        }
        match delta {
            Delta::Text {
                choice: 0,
                part,
                text,
            } => self.text(part, &text, out),
            Delta::Arguments {
                choice: 0,
                part,
                piece,
            } => {
                self.arguments(part, &piece.inner(), out);
            }
            Delta::Summary {
                choice: 0,
                part,
                index,
                text,
            } => self.summary(part, index, &text, out),
            Delta::ArgumentsWhole {
                choice: 0,
                part,
                value,
            } => self.whole(part, &value, out),
            Delta::PartStart {
                choice: 0,
                part,
                kind,
            } => self.part_start(part, kind, out),
            Delta::PartEnd { choice: 0, part } => self.part_end(part, out),
            Delta::Opaque {
                choice: 0,
                part,
                opaque,
            } => self.opaque(part, opaque),
            Delta::Annotation {
                choice: 0,
                part,
                annotation,
            } => self.annotation(part, annotation, out),
            Delta::Error {
                class,
                message,
                code,
            } => self.fail(class, message, code, out),
            Delta::End => self.end(out),
            told => self.told(told),
        }
        if self.held > HELD || self.parts.len() > PARTS {
            let message = "the provider's stream holds back too much".to_owned();
            self.fail(ErrorClass::UpstreamFailed, message, None, out);
        }
    }

    /// What is said at the end.
    fn told(&mut self, delta: Delta<'_>) {
        match delta {
            Delta::Usage {
                tokens,
                web_searches,
            } => {
                let usage = &mut self.frames.usage;
                usage.tokens.update(&tokens);
                usage.web_searches = web_searches.or(usage.web_searches);
            }
            Delta::Meta {
                service: Some(service),
                ..
            } => self.frames.tier = usage::tier(Some(&service.plain())),
            Delta::Finish { choice: 0, finish } => self.finish = Some(finish),
            _ => {}
        }
    }

    fn fail(
        &mut self,
        class: ErrorClass,
        message: String,
        code: Option<String>,
        out: &mut BytesMut,
    ) {
        if self.over {
            return;
        }
        self.over = true;
        let mut body = ErrorBody::new(class, message, Source::Provider);
        body.code = code;
        let request_id = format!("req_{}", self.frames.reply.id);
        out.extend_from_slice(&error::encode_stream_failure(&body, &request_id));
    }

    fn end(&mut self, out: &mut BytesMut) {
        for part in &mut self.parts {
            part.ended = true;
        }
        self.advance(out);
        self.over = true;
        let finish = stop::settle(self.finish.take(), self.calls);
        self.frames.message_end(&finish, out);
    }

    /// The place of a part among the open ones.
    fn find(&self, number: usize) -> Option<usize> {
        self.parts
            .iter()
            .position(|part| part.number == number && !part.ended)
    }

    fn part_start(&mut self, number: usize, kind: PartKind<'_>, out: &mut BytesMut) {
        if self.parts.iter().any(|part| part.number == number) {
            return;
        }
        let picture = matches!(kind, PartKind::Media(_));
        let kind = match kind {
            PartKind::Text | PartKind::Refusal | PartKind::Media(_) => Kind::Text,
            PartKind::Reasoning => Kind::Thinking,
            PartKind::Call {
                id,
                name,
                namespace,
                custom,
            } => {
                self.calls = true;
                let name = match namespace {
                    Some(space) => Str::from(format!("{}__{}", space.plain(), name.plain())),
                    None => name.into_owned(),
                };
                Kind::Call {
                    id: id.into_owned(),
                    name,
                    custom,
                }
            }
            PartKind::Hosted(hosted) => {
                Kind::Whole(whole_blocks(&hosted, &self.frames.reply.id, number))
            }
        };
        let mut held = OVERHEAD;
        if let Kind::Whole(blocks) = &kind {
            held += blocks.iter().map(|(start, _)| start.len()).sum::<usize>();
        }
        self.held += held;
        self.parts.push_back(Part {
            number,
            kind,
            begun: false,
            said: false,
            ended: false,
            waiting: String::new(),
            annotations: Vec::new(),
            opaque: None,
            summary: None,
            held,
        });
        if picture {
            // As a delta: not all clients read text where a block starts.
            self.say(self.parts.len() - 1, PICTURE, out);
        }
    }

    /// Writes the inside of a JSON string, or holds it back.
    fn say(&mut self, at: usize, inner: &str, out: &mut BytesMut) {
        let Some(part) = self.parts.get_mut(at) else {
            return;
        };
        part.said = true;
        if at == 0 {
            part.begin(&mut self.frames, out);
            self.frames.piece(inner, out);
        } else {
            self.held += inner.len();
            part.held += inner.len();
            part.waiting.push_str(inner);
        }
    }

    fn text(&mut self, number: usize, text: &Str<'_>, out: &mut BytesMut) {
        let Some(at) = self.find(number).filter(|_| !text.is_empty()) else {
            return;
        };
        match self.parts.get(at).map(|part| &part.kind) {
            Some(Kind::Text) => self.say(at, &text.inner(), out),
            Some(Kind::Thinking) if self.frames.reply.show_reasoning => {
                self.say(at, &text.inner(), out);
            }
            Some(Kind::Call { custom: true, .. }) => self.free_text(at, text, out),
            _ => {}
        }
    }

    /// Free text is the property `input` of an object, which is a string itself.
    fn free_text(&mut self, at: usize, text: &Str<'_>, out: &mut BytesMut) {
        if self.parts.get(at).is_some_and(|part| !part.said) {
            self.say(at, r#"{\"input\":\""#, out);
        }
        let inner = text.inner();
        self.say(at, &Str::new(&inner).inner(), out);
    }

    fn summary(&mut self, number: usize, index: usize, text: &Str<'_>, out: &mut BytesMut) {
        let shown = self.frames.reply.show_reasoning && !text.is_empty();
        let Some(at) = self.find(number).filter(|_| shown) else {
            return;
        };
        let Some(part) = self.parts.get_mut(at) else {
            return;
        };
        if !matches!(part.kind, Kind::Thinking) {
            return;
        }
        let another = part.said && part.summary.is_some_and(|last| last != index);
        part.summary = Some(index);
        if another {
            self.say(at, r"\n\n", out);
        }
        self.say(at, &text.inner(), out);
    }

    fn arguments(&mut self, number: usize, inner: &str, out: &mut BytesMut) {
        let Some(at) = self.find(number).filter(|_| !inner.is_empty()) else {
            return;
        };
        let kind = self.parts.get(at).map(|part| &part.kind);
        if matches!(kind, Some(Kind::Call { custom: false, .. })) {
            self.say(at, inner, out);
        }
    }

    fn whole(&mut self, number: usize, value: &Raw<'_>, out: &mut BytesMut) {
        let unsaid = |at: &usize| self.parts.get(*at).is_some_and(|part| !part.said);
        let Some(at) = self.find(number).filter(unsaid) else {
            return;
        };
        let mut object = BytesMut::new();
        arguments::write_value(&mut object, &value.compact());
        let object = String::from_utf8_lossy(&object);
        if let Some(Part {
            kind: Kind::Call { custom: false, .. },
            ..
        }) = self.parts.get(at)
        {
            self.say(at, &Str::new(&object).inner(), out);
        }
    }

    /// Kept until the end of a thought, or the beginning of a call.
    fn opaque(&mut self, number: usize, opaque: Opaque<'_>) {
        let at = self.find(number);
        if let Some(part) = at.and_then(|at| self.parts.get_mut(at)) {
            let before = part.opaque.take().map_or(0, |opaque| opaque.data.len());
            let more = opaque.data.len().saturating_sub(before);
            part.held += more;
            self.held += more;
            part.opaque = Some(Opaque {
                kind: opaque.kind,
                data: opaque.data.into_owned(),
                model: opaque.model.map(Str::into_owned),
                account: opaque.account.map(Str::into_owned),
            });
        }
    }

    fn annotation(&mut self, number: usize, annotation: Annotation<'_>, out: &mut BytesMut) {
        if !citation::can_be_said(&annotation) {
            return;
        }
        let at = self.find(number);
        let Some((at, part)) = at.and_then(|at| Some((at, self.parts.get_mut(at)?))) else {
            return;
        };
        if !matches!(part.kind, Kind::Text) {
            return;
        }
        if at == 0 {
            part.begin(&mut self.frames, out);
            self.frames.citation(&annotation, out);
            return;
        }
        let held = weight(&annotation);
        part.held += held;
        self.held += held;
        part.annotations.push(kept(annotation));
    }

    fn part_end(&mut self, number: usize, out: &mut BytesMut) {
        let Some(part) = self.find(number).and_then(|at| self.parts.get_mut(at)) else {
            return;
        };
        part.ended = true;
        self.advance(out);
    }

    /// Writes as far as the parts at the head of the line have come.
    fn advance(&mut self, out: &mut BytesMut) {
        while let Some(part) = self.parts.front_mut() {
            part.catch_up(&mut self.frames, out);
            if !part.ended {
                return;
            }
            part.close(&mut self.frames, out);
            self.held = self.held.saturating_sub(part.held);
            self.parts.pop_front();
        }
    }
}

impl Part {
    /// Opens the block, if that was not done yet.
    fn begin(&mut self, frames: &mut Frames, out: &mut BytesMut) {
        if self.begun {
            return;
        }
        self.begun = true;
        match &self.kind {
            Kind::Text => frames.open(
                |out| out.extend_from_slice(br#"{"type":"text","text":""}"#),
                r#""type":"text_delta","text":""#,
                out,
            ),
            Kind::Thinking => frames.open(
                |out| {
                    out.extend_from_slice(br#"{"type":"thinking","thinking":"","signature":""}"#);
                },
                r#""type":"thinking_delta","thinking":""#,
                out,
            ),
            Kind::Call { id, name, .. } => {
                // A signature that rides on the call has no place on it here.
                let blob = self.opaque.take();
                if let Some(data) = blob.and_then(|blob| seal::data(&blob, &frames.reply)) {
                    frames.redacted(&data, out);
                }
                let write = |out: &mut BytesMut| {
                    let mut block = Object::open(out);
                    block
                        .text("type", "tool_use")
                        .str("id", id)
                        .str("name", name);
                    block.object("input");
                };
                frames.open(write, r#""type":"input_json_delta","partial_json":""#, out);
                frames.piece("", out);
            }
            Kind::Whole(_) => {}
        }
    }

    /// Writes what was held back.
    fn catch_up(&mut self, frames: &mut Frames, out: &mut BytesMut) {
        if !self.waiting.is_empty() {
            self.begin(frames, out);
            frames.piece(&std::mem::take(&mut self.waiting), out);
        }
        for annotation in std::mem::take(&mut self.annotations) {
            self.begin(frames, out);
            frames.citation(&annotation, out);
        }
    }

    fn close(&mut self, frames: &mut Frames, out: &mut BytesMut) {
        match &mut self.kind {
            Kind::Text => {}
            Kind::Thinking => {
                self.close_thinking(frames, out);
                return;
            }
            Kind::Call { custom, .. } => {
                let free = *custom;
                self.begin(frames, out);
                match (free, self.said) {
                    (true, true) => frames.piece(r#"\"}"#, out),
                    (true, false) => frames.piece(r#"{\"input\":\"\"}"#, out),
                    (false, _) => {}
                }
            }
            Kind::Whole(blocks) => {
                for (start, input) in std::mem::take(blocks) {
                    let prefix = r#""type":"input_json_delta","partial_json":""#;
                    frames.open(|out| out.extend_from_slice(&start), prefix, out);
                    if let Some(input) = input {
                        frames.piece(&Str::new(&input).inner(), out);
                    }
                    frames.close(out);
                }
            }
        }
        if self.begun {
            frames.close(out);
        }
    }

    fn close_thinking(&mut self, frames: &mut Frames, out: &mut BytesMut) {
        let opaque = self.opaque.take();
        if self.begun || seal::is_signature(opaque.as_ref()) {
            self.begin(frames, out);
            let signature = seal::signature(opaque.as_ref(), &frames.reply);
            frames.signature(&signature, out);
            frames.close(out);
        } else if let Some(data) = opaque.and_then(|opaque| seal::data(&opaque, &frames.reply)) {
            frames.redacted(&data, out);
        }
    }
}

fn whole_blocks(hosted: &Hosted<'_>, seed: &str, number: usize) -> Vec<(BytesMut, Option<String>)> {
    if hosted.origin == Protocol::Messages {
        let native = hosted.native.iter().filter(|block| block.is_object());
        let native = native.map(|block| (BytesMut::from(block.compact().as_bytes()), None));
        return native.collect();
    }
    let Some(blocks) = Blocks::of(hosted, seed, number) else {
        return Vec::new();
    };
    let (mut used, mut result) = (BytesMut::new(), BytesMut::new());
    blocks.write_use(&mut used, "{}");
    blocks.write_result(&mut result);
    vec![(used, Some(blocks.input.into_owned())), (result, None)]
}

/// Writes frames. Each has an `event:` line: the SDKs drop those without one.
#[derive(Debug)]
struct Frames {
    reply: Reply,
    /// Whether the message was opened.
    begun: bool,
    /// The number of the block that is open, or of the next.
    index: usize,
    /// What stands before the text in the deltas of the open block.
    prefix: Vec<u8>,
    usage: Usage,
    tier: &'static str,
}

impl Frames {
    fn frame(name: &str, out: &mut BytesMut, write: impl FnOnce(&mut Object<'_>)) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        let mut object = Object::open(out);
        object.text("type", name);
        write(&mut object);
        drop(object);
        out.extend_from_slice(b"\n\n");
    }

    /// The true numbers come at the end. What is known already is said, or about
    /// how much it will be: agents cut their conversations down by it.
    fn message_start(&mut self, out: &mut BytesMut) {
        if self.begun {
            return;
        }
        self.begun = true;
        Self::frame("message_start", out, |event| {
            let mut message = event.object("message");
            message
                .text("id", &format!("msg_{}", self.reply.id))
                .text("type", "message")
                .text("role", "assistant")
                .text("model", &self.reply.model);
            message.array("content");
            message.null("stop_reason").null("stop_sequence");
            let mut object = message.object("usage");
            usage::write(&mut object, &self.usage);
            object.text("service_tier", self.tier);
        });
    }

    fn message_end(&mut self, finish: &Finish, out: &mut BytesMut) {
        self.message_start(out);
        Self::frame("message_delta", out, |event| {
            stop::write(&mut event.object("delta"), finish);
            usage::write(&mut event.object("usage"), &self.usage);
        });
        Self::frame("message_stop", out, |_| {});
    }

    /// Opens a block; `delta` is how its pieces begin.
    fn open(&mut self, block: impl FnOnce(&mut BytesMut), delta: &str, out: &mut BytesMut) {
        self.message_start(out);
        Self::frame("content_block_start", out, |event| {
            event.number("index", self.index);
            block(event.key("content_block"));
        });
        let head =
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":";
        self.prefix.clear();
        self.prefix.extend_from_slice(head);
        let mut digits = itoa::Buffer::new();
        self.prefix
            .extend_from_slice(digits.format(self.index).as_bytes());
        self.prefix.extend_from_slice(b",\"delta\":{");
        self.prefix.extend_from_slice(delta.as_bytes());
    }

    /// One more piece of the open block: the inside of a JSON string.
    fn piece(&self, inner: &str, out: &mut BytesMut) {
        out.reserve(self.prefix.len() + inner.len() + 5);
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(inner.as_bytes());
        out.extend_from_slice(b"\"}}\n\n");
    }

    fn close(&mut self, out: &mut BytesMut) {
        Self::frame("content_block_stop", out, |event| {
            event.number("index", self.index);
        });
        self.index += 1;
    }

    fn signature(&self, signature: &Str<'_>, out: &mut BytesMut) {
        Self::frame("content_block_delta", out, |event| {
            let mut delta = event.number("index", self.index).object("delta");
            delta
                .text("type", "signature_delta")
                .str("signature", signature);
        });
    }

    fn citation(&self, annotation: &Annotation<'_>, out: &mut BytesMut) {
        Self::frame("content_block_delta", out, |event| {
            let mut delta = event.number("index", self.index).object("delta");
            delta.text("type", "citations_delta");
            citation::write(delta.object("citation"), annotation);
        });
    }

    fn redacted(&mut self, data: &Str<'_>, out: &mut BytesMut) {
        let write = |out: &mut BytesMut| {
            let mut block = Object::open(out);
            block.text("type", "redacted_thinking").str("data", data);
        };
        self.open(write, "", out);
        self.close(out);
    }
}
