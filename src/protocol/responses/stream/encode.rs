//! A client's stream: from deltas to events. The `response` object in its three
//! states, the order of the items, and how it ends.

use bytes::BytesMut;

use crate::protocol::Protocol;
use crate::protocol::collect::replay_part;
use crate::protocol::envelope;
use crate::protocol::error::{ErrorBody, ErrorClass, Source};
use crate::protocol::ir::{Annotation, Delta, Finish, Opaque, OpaqueKind, PartKind, Response};
use crate::protocol::json::Str;
use crate::protocol::json::write::Object;
use crate::protocol::translate::Reply;
use crate::protocol::usage::Tokens;

use super::super::{echo, error};
use super::items::{self, Announced, Calling, Message, Thinking, Voice, Writer};

/// The most of an answer that is held, in bytes: all of it comes again in the
/// last event.
const HELD: usize = 32 * 1024 * 1024;
/// Blobs that a Responses client knows as they are.
const NATIVE: [OpaqueKind; 1] = [OpaqueKind::OpenAiEncrypted];

/// Writes a client's stream.
#[derive(Debug)]
pub struct Encoder {
    reply: Reply,
    writer: Writer,
    begun: bool,
    over: bool,
    slots: Vec<(usize, Slot)>,
    messages: Vec<Message>,
    /// Probabilities that wait for their text.
    logprobs: BytesMut,
    tokens: Tokens,
    service: Option<String>,
    finish: Option<Finish>,
}

/// A part of the answer that is open.
#[derive(Debug)]
enum Slot {
    /// Visible text; in a message once there is any.
    Text { refusal: bool },
    /// Reasoning.
    Thinking(Box<Thought>),
    /// A call whose signature may still come before anything else of it.
    Announced(Box<Announced>),
    /// A call.
    Call(Box<Calling>),
}

#[derive(Debug)]
struct Thought {
    item: Thinking,
    /// Text that is not shown, and goes into the envelope.
    hidden: String,
    opaque: Option<Opaque<'static>>,
}

impl Encoder {
    /// For that client.
    #[must_use]
    pub fn new(reply: Reply) -> Self {
        Self::with(reply, false)
    }

    /// For an answer that is wanted as a whole.
    pub(in super::super) fn quiet(reply: Reply) -> Self {
        Self::with(reply, true)
    }

    fn with(reply: Reply, quiet: bool) -> Self {
        let id = Str::new(&reply.id).inner().into_owned();
        Self {
            reply,
            writer: Writer::new(id, quiet),
            begun: false,
            over: false,
            slots: Vec::new(),
            messages: Vec::new(),
            logprobs: BytesMut::new(),
            tokens: Tokens::default(),
            service: None,
            finish: None,
        }
    }

    /// Writes what follows from one delta.
    pub fn delta(&mut self, delta: Delta<'_>, out: &mut BytesMut) {
        if self.over || choice(&delta) > 0 || matches!(delta, Delta::Ping) {
            return;
        }
        self.begin(out);
        match delta {
            Delta::PartStart { part, kind, .. } => self.start(part, kind, out),
            Delta::Text { part, text, .. } => self.text(part, &text, out),
            Delta::Arguments { part, piece, .. } => self.piece(part, &piece, out),
            Delta::Summary {
                part, index, text, ..
            } => self.think(part, Voice::Summary(index), &text, out),
            Delta::ArgumentsWhole { part, value, .. } => {
                if let Some((calling, writer)) = self.calling(part, out) {
                    calling.whole(&value, writer, out);
                }
            }
            Delta::Opaque { part, opaque, .. } => self.opaque(part, opaque, out),
            Delta::Annotation {
                part, annotation, ..
            } => self.annotate(part, annotation, out),
            Delta::Logprobs { tokens, .. } => self.hold_logprobs(&tokens),
            Delta::PartEnd { part, .. } => self.end_part(part, true, out),
            Delta::Usage { tokens, .. } => self.tokens.update(&tokens),
            Delta::Meta { service, .. } => {
                self.service = service
                    .map(Str::into_plain)
                    .map(Into::into)
                    .or_else(|| self.service.take());
            }
            Delta::Finish { finish, .. } => self.finish(finish, out),
            Delta::Error {
                class,
                message,
                code,
            } => self.fail(class, message, code, out),
            Delta::End => self.end(out),
            Delta::Start { .. } | Delta::Ping => {}
        }
        if self.writer.held > HELD && !self.over && !self.writer.quiet {
            let message = "the answer is longer than can be held".to_owned();
            self.fail(ErrorClass::UpstreamFailed, message, None, out);
        }
    }

    fn begin(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        for kind in ["response.created", "response.in_progress"] {
            self.lifecycle(kind, &Status::word("in_progress"), out);
        }
    }

    fn lifecycle(&mut self, kind: &str, status: &Status<'_>, out: &mut BytesMut) {
        if self.writer.quiet {
            return;
        }
        let mut response = BytesMut::with_capacity(1024);
        self.response(status, &mut response);
        self.writer.event(out, kind, |event| {
            event.key("response").extend_from_slice(&response);
        });
    }

    fn start(&mut self, part: usize, kind: PartKind<'_>, out: &mut BytesMut) {
        let slot = match kind {
            PartKind::Text => Slot::Text { refusal: false },
            PartKind::Refusal => Slot::Text { refusal: true },
            PartKind::Reasoning => {
                self.end_messages(out);
                Slot::Thinking(Box::new(Thought {
                    item: Thinking::new(self.reply.reasoning_as_content),
                    hidden: String::new(),
                    opaque: None,
                }))
            }
            PartKind::Call {
                id,
                name,
                namespace,
                custom,
            } => {
                self.end_messages(out);
                let call = Announced {
                    id: id.into_owned(),
                    name: name.into_owned(),
                    namespace: namespace.map(Str::into_owned),
                    custom,
                };
                self.announce(call, out)
            }
            PartKind::Media(media) => {
                self.end_messages(out);
                return items::picture(&media, &mut self.writer, out);
            }
            PartKind::Hosted(hosted) => {
                self.end_messages(out);
                return items::hosted(&hosted, &mut self.writer, out);
            }
        };
        self.slots.push((part, slot));
    }

    /// A Gemini call's signature comes just behind its name, and its item before
    /// that of the call.
    fn announce(&mut self, call: Announced, out: &mut BytesMut) -> Slot {
        if self.reply.upstream == Protocol::Gemini && self.reply.encrypted_reasoning {
            return Slot::Announced(Box::new(call));
        }
        Slot::Call(Box::new(Calling::begin(call, &mut self.writer, out)))
    }

    fn slot(&mut self, part: usize) -> Option<&mut Slot> {
        let mut slots = self.slots.iter_mut().rev();
        slots.find(|(open, _)| *open == part).map(|(_, slot)| slot)
    }

    fn calling(&mut self, part: usize, out: &mut BytesMut) -> Option<(&mut Calling, &mut Writer)> {
        let mut slots = self.slots.iter_mut().rev();
        let (_, slot) = slots.find(|(open, _)| *open == part)?;
        if let Slot::Announced(call) = slot {
            let call = std::mem::replace(call.as_mut(), Announced::nothing());
            *slot = Slot::Call(Box::new(Calling::begin(call, &mut self.writer, out)));
        }
        match slot {
            Slot::Call(calling) => Some((calling, &mut self.writer)),
            _ => None,
        }
    }

    fn text(&mut self, part: usize, text: &Str<'_>, out: &mut BytesMut) {
        match self.slot(part) {
            Some(Slot::Text { refusal }) => {
                let refusal = *refusal;
                self.say(part, refusal, text, out);
            }
            Some(Slot::Thinking(_)) => self.think(part, Voice::Full, text, out),
            _ => self.piece(part, text, out),
        }
    }

    fn say(&mut self, part: usize, refusal: bool, text: &Str<'_>, out: &mut BytesMut) {
        if text.is_empty() {
            return;
        }
        self.message(part, refusal, out);
        let mut messages = self.messages.iter_mut();
        if let Some(message) = messages.find(|m| m.writing == Some(part)) {
            message.text(text, &mut self.logprobs, &mut self.writer, out);
        }
    }

    /// Makes sure that there is a message that the part is written into: the last
    /// one, if nothing has come since.
    fn message(&mut self, part: usize, refusal: bool, out: &mut BytesMut) {
        if self.messages.iter().any(|m| m.writing == Some(part)) {
            return;
        }
        let writer = &mut self.writer;
        let joins = |m: &Message| m.writing.is_none() && writer.is_last(&m.place);
        let at = self.messages.iter().position(joins);
        let at = at.unwrap_or_else(|| {
            self.messages.push(Message::begin(writer, out));
            self.messages.len() - 1
        });
        if let Some(message) = self.messages.get_mut(at) {
            message.write(part, refusal, writer, out);
        }
    }

    fn annotate(&mut self, part: usize, annotation: Annotation<'_>, out: &mut BytesMut) {
        if !matches!(self.slot(part), Some(Slot::Text { refusal: false })) {
            return;
        }
        self.message(part, false, out);
        let mut messages = self.messages.iter_mut();
        if let Some(message) = messages.find(|m| m.writing == Some(part)) {
            message.annotate(annotation, &mut self.writer, out);
        }
    }

    fn piece(&mut self, part: usize, piece: &Str<'_>, out: &mut BytesMut) {
        if let Some((calling, writer)) = self.calling(part, out) {
            calling.piece(piece, writer, out);
        }
    }

    fn think(&mut self, part: usize, voice: Voice, text: &Str<'_>, out: &mut BytesMut) {
        let (shown, keeps) = (self.reply.show_reasoning, self.reply.encrypted_reasoning);
        let mut slots = self.slots.iter_mut().rev();
        let found = slots.find(|(open, _)| *open == part).map(|(_, slot)| slot);
        let Some(Slot::Thinking(thought)) = found else {
            return;
        };
        if shown {
            thought.item.text(voice, text, &mut self.writer, out);
        } else if keeps && voice == Voice::Full {
            let plain = text.plain();
            self.writer.held += plain.len();
            thought.hidden.push_str(&plain);
        }
    }

    fn opaque(&mut self, part: usize, opaque: Opaque<'_>, out: &mut BytesMut) {
        let opaque = own(opaque);
        self.writer.held += opaque.data.len();
        match self.slot(part) {
            Some(Slot::Thinking(thought)) => thought.opaque = Some(opaque),
            Some(Slot::Text { .. }) => {
                let mut messages = self.messages.iter_mut();
                match messages.find(|message| message.writing == Some(part)) {
                    Some(message) => message.signature = Some(opaque),
                    None => self.signature(&opaque, out),
                }
            }
            Some(Slot::Announced(_)) => self.signature(&opaque, out),
            Some(Slot::Call(_)) | None => {}
        }
    }

    /// A signature that has no text of its own, as a reasoning item.
    fn signature(&mut self, opaque: &Opaque<'_>, out: &mut BytesMut) {
        if let Some(blob) = self.blob(Some(opaque), "") {
            self.end_messages(out);
            Thinking::default().end(Some(&blob), &mut self.writer, out);
        }
    }

    /// What a client is to see of a blob. Reasoning that came without one is
    /// marked, so that it is known again.
    fn blob(&self, opaque: Option<&Opaque<'_>>, hidden: &str) -> Option<Str<'static>> {
        let unsigned = Opaque {
            kind: OpaqueKind::Unsigned,
            data: Str::new(""),
            model: None,
            account: None,
        };
        if !self.reply.encrypted_reasoning {
            return None;
        }
        let opaque = self.reply.marked(opaque.unwrap_or(&unsigned));
        let text = Some(hidden).filter(|text| !text.is_empty());
        let blob = envelope::outward(&opaque, &NATIVE, text).into_owned();
        (!blob.is_empty()).then_some(blob)
    }

    fn hold_logprobs(&mut self, tokens: &[crate::protocol::json::Raw<'_>]) {
        for token in tokens {
            if !self.logprobs.is_empty() {
                self.logprobs.extend_from_slice(b",");
            }
            self.logprobs.extend_from_slice(token.as_str().as_bytes());
            self.writer.held += token.as_str().len();
        }
    }

    fn end_part(&mut self, part: usize, whole: bool, out: &mut BytesMut) {
        let Some(at) = self.slots.iter().rposition(|(open, _)| *open == part) else {
            return;
        };
        let (_, slot) = self.slots.remove(at);
        match slot {
            Slot::Text { .. } => {
                let mut messages = self.messages.iter_mut();
                if let Some(message) = messages.find(|m| m.writing == Some(part)) {
                    message.end_part(&mut self.writer, out);
                }
            }
            Slot::Thinking(thought) => self.end_thought(*thought, out),
            Slot::Announced(call) => {
                let calling = Calling::begin(*call, &mut self.writer, out);
                calling.end(whole, &mut self.writer, out);
            }
            Slot::Call(calling) => calling.end(whole, &mut self.writer, out),
        }
    }

    fn end_thought(&mut self, thought: Thought, out: &mut BytesMut) {
        let Thought {
            item,
            hidden,
            opaque,
        } = thought;
        let said = item.is_shown() || !hidden.is_empty() || opaque.is_some();
        let blob = self.blob(opaque.as_ref(), &hidden).filter(|_| said);
        item.end(blob.as_ref(), &mut self.writer, out);
    }

    /// Ends the messages whose text has ended.
    fn end_messages(&mut self, out: &mut BytesMut) {
        self.end_messages_with("completed", false, out);
    }

    fn end_messages_with(&mut self, status: &str, all: bool, out: &mut BytesMut) {
        let mut at = 0;
        while at < self.messages.len() {
            if !all && self.messages.get(at).is_some_and(|m| m.writing.is_some()) {
                at += 1;
                continue;
            }
            let mut message = self.messages.remove(at);
            let signature = message.signature.take();
            message.end(status, &mut self.writer, out);
            if let Some(signature) = signature {
                self.signature(&signature, out);
            }
        }
    }

    /// Probabilities that came behind their text.
    fn flush_logprobs(&mut self, out: &mut BytesMut) {
        if self.logprobs.is_empty() {
            return;
        }
        if let Some(message) = self.messages.last_mut() {
            message.text(&Str::default(), &mut self.logprobs, &mut self.writer, out);
        }
        self.logprobs.clear();
    }

    fn close(&mut self, whole: bool, out: &mut BytesMut) {
        self.flush_logprobs(out);
        let open: Vec<usize> = self.slots.iter().map(|(part, _)| *part).collect();
        for part in open {
            self.end_part(part, whole, out);
        }
        let status = match whole {
            true => "completed",
            false => "incomplete",
        };
        self.end_messages_with(status, true, out);
    }

    fn finish(&mut self, finish: Finish, out: &mut BytesMut) {
        if let Finish::BadToolCall(word) = &finish {
            let message = format!("the model made a call that can't be read ({word})");
            return self.fail(ErrorClass::UpstreamFailed, message, None, out);
        }
        self.finish = Some(finish);
        self.close(self.incomplete().is_none(), out);
    }

    /// Why the answer is not whole.
    const fn incomplete(&self) -> Option<&'static str> {
        match &self.finish {
            Some(Finish::Length | Finish::ContextFull | Finish::Continuation(_)) => {
                Some("max_output_tokens")
            }
            Some(Finish::ContentFilter { .. }) => Some("content_filter"),
            _ => None,
        }
    }

    fn end(&mut self, out: &mut BytesMut) {
        let incomplete = self.incomplete();
        self.close(incomplete.is_none(), out);
        self.over = true;
        let (kind, word) = match incomplete {
            Some(_) => ("response.incomplete", "incomplete"),
            None => ("response.completed", "completed"),
        };
        let status = Status {
            incomplete,
            over: true,
            ..Status::word(word)
        };
        self.lifecycle(kind, &status, out);
    }

    /// The stream ends in an error. Nothing that is open is ended first.
    fn fail(
        &mut self,
        class: ErrorClass,
        message: String,
        code: Option<String>,
        out: &mut BytesMut,
    ) {
        self.over = true;
        let message = match class {
            // What a provider says of the operator's credentials is not for clients.
            ErrorClass::UpstreamAuth => "the provider refused the request".to_owned(),
            _ => message,
        };
        let mut body = ErrorBody::new(class, message, Source::Provider);
        body.code = code;
        let sequence = self.writer.sequence;
        out.extend_from_slice(&error::encode_event(&body, sequence));
        self.writer.sequence += 1;
        let status = Status {
            error: Some((error::stream_code(class), &body.message)),
            over: true,
            ..Status::word("failed")
        };
        self.lifecycle("response.failed", &status, out);
    }

    /// Takes a whole answer, of which only the first choice can be said.
    pub(in super::super) fn whole(&mut self, response: &Response<'_>) {
        let mut none = BytesMut::new();
        let choice = response.choices.first();
        let logprobs = choice.map(|choice| choice.logprobs.as_slice());
        self.hold_logprobs(logprobs.unwrap_or_default());
        for (number, part) in choice.into_iter().flat_map(|c| c.parts.iter()).enumerate() {
            replay_part((0, number), part, &mut |delta| self.delta(delta, &mut none));
        }
        if let Some(tokens) = response.usage {
            self.tokens = tokens;
        }
        self.service = response.service.as_ref().map(Str::to_plain_string);
        self.finish = choice.and_then(|choice| choice.finish.clone());
        self.end(&mut none);
    }

    /// Writes the answer as a whole.
    pub(in super::super) fn document(&self, out: &mut BytesMut) {
        let incomplete = self.incomplete();
        let word = match incomplete {
            Some(_) => "incomplete",
            None => "completed",
        };
        let status = Status {
            incomplete,
            over: true,
            ..Status::word(word)
        };
        self.response(&status, out);
    }

    fn response(&self, status: &Status<'_>, out: &mut BytesMut) {
        let mut object = Object::open(out);
        object.text("id", &format!("resp_{}", self.reply.id));
        object.text("object", "response");
        object.number("created_at", self.reply.created);
        object.text("status", status.word);
        object.bool("background", false);
        match status.error {
            Some((code, message)) => {
                let mut error = object.object("error");
                error.text("code", code);
                error.text("message", message);
            }
            None => {
                object.null("error");
            }
        }
        match status.incomplete {
            Some(reason) => {
                object.object("incomplete_details").text("reason", reason);
            }
            None => {
                object.null("incomplete_details");
            }
        }
        object.text("model", &self.reply.model);
        self.writer.output(&mut object.array("output"));
        match status.over && status.error.is_none() {
            true => usage(&self.tokens, &mut object.object("usage")),
            false => {
                object.null("usage");
            }
        }
        if let Some(service) = &self.service {
            object.text("service_tier", tier(service));
        }
        echo::write(&self.reply.echo, &mut object);
    }
}

/// In which state the `response` object is told.
struct Status<'a> {
    word: &'a str,
    error: Option<(&'a str, &'a str)>,
    incomplete: Option<&'a str>,
    over: bool,
}

impl<'a> Status<'a> {
    const fn word(word: &'a str) -> Self {
        Self {
            word,
            error: None,
            incomplete: None,
            over: false,
        }
    }
}

/// OpenAI's word for a tier.
fn tier(word: &str) -> &str {
    match word {
        "standard" | "on_demand" => "default",
        other => other,
    }
}

fn own(opaque: Opaque<'_>) -> Opaque<'static> {
    Opaque {
        kind: opaque.kind,
        data: opaque.data.into_owned(),
        model: opaque.model.map(Str::into_owned),
        account: opaque.account.map(Str::into_owned),
    }
}

/// Which answer a delta is about.
const fn choice(delta: &Delta<'_>) -> usize {
    match delta {
        Delta::PartStart { choice, .. }
        | Delta::Text { choice, .. }
        | Delta::Summary { choice, .. }
        | Delta::Arguments { choice, .. }
        | Delta::ArgumentsWhole { choice, .. }
        | Delta::Opaque { choice, .. }
        | Delta::Annotation { choice, .. }
        | Delta::Logprobs { choice, .. }
        | Delta::PartEnd { choice, .. }
        | Delta::Finish { choice, .. } => *choice,
        _ => 0,
    }
}

/// The usage object, whose details are always there.
fn usage(tokens: &Tokens, object: &mut Object<'_>) {
    let sum = |buckets: &[Option<u64>]| {
        let known = buckets.iter().flatten();
        known.fold(0_u64, |sum, tokens| sum.saturating_add(*tokens))
    };
    let written = sum(&[
        tokens.cache_write_short,
        tokens.cache_write_long,
        tokens.cache_write_other,
    ]);
    let input = sum(&[
        tokens.input,
        tokens.cache_read,
        Some(written),
        tokens.tool_prompt,
    ]);
    let output = sum(&[tokens.output, tokens.reasoning]);
    object.number("input_tokens", input);
    {
        let mut details = object.object("input_tokens_details");
        details.number("cached_tokens", tokens.cache_read.unwrap_or(0));
        details.number("cache_write_tokens", written);
    }
    object.number("output_tokens", output);
    object
        .object("output_tokens_details")
        .number("reasoning_tokens", tokens.reasoning.unwrap_or(0));
    object.number("total_tokens", input.saturating_add(output));
}
