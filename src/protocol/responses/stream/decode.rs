//! A provider's stream, event by event. Servers differ in what they leave out:
//! items are found by `output_index` because some give them a new id in every
//! event, what a `.done` says beyond the deltas is delivered, and so is an item
//! that only the last event knows.

use crate::protocol::collect::replay_part;
use crate::protocol::error::{ErrorClass, UpstreamError, error_in_answer};
use crate::protocol::ir::{Delta, Finish, Opaque, OpaqueKind, PartKind};
use crate::protocol::json::{Str, Tape, Value};

use super::super::item;
use super::super::response::{self, Ending};

/// The most items and parts of one answer.
const MOST: usize = 4096;
/// Longest id that is remembered.
const LONGEST_ID: usize = 256;

/// Reads a provider's stream.
#[derive(Debug, Default)]
pub struct Decoder {
    tape: Tape,
    state: State,
}

impl Decoder {
    /// One event.
    pub fn event(&mut self, name: Option<&str>, data: &[u8], emit: &mut dyn FnMut(Delta<'_>)) {
        if self.state.over {
            return;
        }
        let mut tape = std::mem::take(&mut self.tape);
        match tape.parse_bytes(data) {
            Ok(root) if root.is_object() => {
                self.state.event(name, root, data, emit);
                if self.state.parts > MOST || self.state.items.len() > MOST {
                    self.state.fail(too_much(), emit);
                }
            }
            // `[DONE]`, which some servers add, and other words.
            _ if !data.trim_ascii_start().starts_with(b"{") => {}
            _ => self.state.fail(broken(), emit),
        }
        self.tape = tape;
    }

    /// The connection is closed.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Delta<'_>)) {
        if !self.state.over {
            self.state.fail(truncated(), emit);
        }
    }
}

fn upstream(message: &str, code: &str) -> UpstreamError {
    UpstreamError {
        class: ErrorClass::UpstreamFailed,
        message: message.to_owned(),
        code: Some(code.to_owned()),
        retry_after: None,
    }
}

fn too_much() -> UpstreamError {
    upstream("the provider's answer has too many parts", "upstream_error")
}

fn broken() -> UpstreamError {
    upstream(
        "the provider sent an event that is no JSON",
        "upstream_error",
    )
}

fn truncated() -> UpstreamError {
    upstream(
        "the provider's stream ended before the answer was complete",
        "upstream_truncated",
    )
}

/// What an event has, found in one pass.
#[derive(Debug, Default)]
struct Event<'a> {
    kind: Option<Str<'a>>,
    output: Option<u64>,
    index: u64,
    item_id: Option<Str<'a>>,
    delta: Option<Str<'a>>,
    item: Option<Value<'a>>,
    part: Option<Value<'a>>,
    /// The whole text: `text`, `refusal`, `arguments` or `input`.
    whole: Option<Str<'a>>,
    annotation: Option<Value<'a>>,
    logprobs: Option<Value<'a>>,
    response: Option<Value<'a>>,
    failed: bool,
}

impl<'a> Event<'a> {
    fn read(root: Value<'a>) -> Self {
        let mut event = Self::default();
        for (name, value) in root.members() {
            match name.inner().as_ref() {
                "type" => event.kind = value.as_str(),
                "output_index" => event.output = value.as_u64(),
                "content_index" | "summary_index" => event.index = value.as_u64().unwrap_or(0),
                "item_id" => event.item_id = value.as_str(),
                "delta" => event.delta = value.as_str(),
                "item" => event.item = Some(value),
                "part" => event.part = Some(value),
                "text" | "refusal" | "arguments" | "input" => event.whole = value.as_str(),
                "annotation" => event.annotation = Some(value),
                "logprobs" => event.logprobs = Some(value),
                "response" => event.response = Some(value),
                "error" => event.failed = !value.is_null(),
                _ => {}
            }
        }
        event
    }
}

#[derive(Debug, Default)]
struct State {
    begun: bool,
    over: bool,
    /// Parts begun so far.
    parts: usize,
    items: Vec<Item>,
    ending: Ending,
}

/// An item that was seen.
#[derive(Debug)]
struct Item {
    output: Option<u64>,
    id: Option<String>,
    call_id: Option<String>,
    body: Body,
    done: bool,
}

#[derive(Debug)]
enum Body {
    Message(Vec<Content>),
    Reasoning(Thinking),
    Call(Calling),
    /// Comes whole, or not at all.
    Other,
}

/// A text or refusal of a message.
#[derive(Debug)]
struct Content {
    index: u64,
    part: usize,
    /// Words of refusal refer to nothing.
    refusal: bool,
    /// Bytes of it that were delivered.
    given: usize,
    annotations: usize,
    logprobs: bool,
    open: bool,
}

#[derive(Debug, Default)]
struct Thinking {
    part: Option<usize>,
    /// The server's index of each summary, and what was delivered of it.
    summaries: Vec<(u64, usize)>,
    given: usize,
}

#[derive(Debug)]
struct Calling {
    part: usize,
    custom: bool,
    given: usize,
    open: bool,
}

impl Item {
    /// Whether this has ended and the value is another one: some servers count
    /// every item as the first.
    fn is_other(&self, value: Value<'_>) -> bool {
        let theirs = item::filled(value, "id");
        let ids = self.id.as_deref().zip(theirs);
        self.done && ids.is_some_and(|(mine, theirs)| !theirs.is(mine))
    }
}

impl State {
    fn event(
        &mut self,
        name: Option<&str>,
        root: Value<'_>,
        data: &[u8],
        emit: &mut dyn FnMut(Delta<'_>),
    ) {
        let event = Event::read(root);
        let kind = match &event.kind {
            Some(kind) => kind.plain(),
            None => name.unwrap_or_default().into(),
        };
        match kind.as_ref() {
            "response.output_text.delta" => self.text(&event, false, emit),
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                self.arguments(&event, emit);
            }
            "response.reasoning_summary_text.delta" => self.summary(&event, emit),
            "response.reasoning_text.delta" => self.reasoning(&event, emit),
            "response.refusal.delta" => self.text(&event, true, emit),
            "response.output_item.added" => self.item_added(&event, emit),
            "response.output_text.done" | "response.refusal.done" => self.text_done(&event, emit),
            "response.content_part.done" => self.part_done(&event, emit),
            "response.output_text.annotation.added" => self.annotation(&event, emit),
            "response.function_call_arguments.done" | "response.custom_tool_call_input.done" => {
                self.arguments_done(&event, emit);
            }
            "response.reasoning_summary_text.done" => self.summary_done(&event, emit),
            "response.output_item.done" => self.item_done(&event, emit),
            "response.created" | "response.in_progress" | "response.queued" => {
                self.begin(event.response, emit);
                emit(Delta::Ping);
            }
            "response.completed"
            | "response.incomplete"
            | "response.cancelled"
            | "response.done" => self.end(&event, data, emit),
            "response.failed" | "error" => self.fail(error_in_answer(data), emit),
            _ if event.kind.is_none() && event.failed => self.fail(error_in_answer(data), emit),
            _ => emit(Delta::Ping),
        }
    }

    fn begin(&mut self, response: Option<Value<'_>>, emit: &mut dyn FnMut(Delta<'_>)) {
        if self.begun {
            return;
        }
        self.begun = true;
        emit(Delta::Start {
            id: response.and_then(|response| item::filled(response, "id")),
            model: response.and_then(|response| item::filled(response, "model")),
        });
    }

    fn fail(&mut self, error: UpstreamError, emit: &mut dyn FnMut(Delta<'_>)) {
        self.over = true;
        emit(Delta::Error {
            class: error.class,
            message: error.message,
            code: error.code,
        });
    }

    /// Begins a part and says its number.
    fn start(&mut self, kind: PartKind<'_>, emit: &mut dyn FnMut(Delta<'_>)) -> usize {
        self.begin(None, emit);
        let part = self.parts;
        self.parts += 1;
        emit(Delta::PartStart {
            choice: 0,
            part,
            kind,
        });
        part
    }

    /// The item that an event is about.
    fn find(&self, event: &Event<'_>) -> Option<usize> {
        if event.output.is_some() {
            return self
                .items
                .iter()
                .rposition(|item| item.output == event.output);
        }
        let id = event.item_id.as_ref();
        let named = self.items.iter().rposition(|item| {
            let ids = item.id.as_deref().zip(id);
            ids.is_some_and(|(mine, theirs)| theirs.is(mine))
        });
        named.or_else(|| self.items.iter().rposition(|item| !item.done))
    }

    /// The item that an event is about, if its body is of that sort and has not
    /// ended; a new one where there is none.
    fn find_or_open(
        &mut self,
        event: &Event<'_>,
        fits: fn(&Body) -> bool,
        fresh: fn() -> Body,
    ) -> Option<usize> {
        let found = self
            .find(event)
            .and_then(|at| Some((at, self.items.get(at)?)));
        match found {
            Some((at, item)) if fits(&item.body) => return (!item.done).then_some(at),
            Some((_, item)) if event.output.is_some() && !item.done => return None,
            _ => {}
        }
        self.items.push(Item {
            output: event.output,
            id: event.item_id.as_ref().and_then(short),
            call_id: None,
            body: fresh(),
            done: false,
        });
        Some(self.items.len() - 1)
    }

    fn item_added(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(value) = event.item else {
            return;
        };
        let id = item::filled(value, "id").as_ref().and_then(short);
        if let Some(at) = event.output.and_then(|_| self.find(event)) {
            let old = self.items.get(at);
            if old.is_some_and(|old| old.id == id && (id.is_some() || !old.done)) {
                return;
            }
            // A server that counts wrongly: what was there has ended.
            self.close(at, emit);
        }
        let body = match item::kind(value).plain().as_ref() {
            "message" => Body::Message(Vec::new()),
            "reasoning" => Body::Reasoning(Thinking::default()),
            "function_call" | "custom_tool_call" => self.call_added(value, emit),
            _ => Body::Other,
        };
        self.items.push(Item {
            output: event.output,
            id,
            call_id: item::filled(value, "call_id").as_ref().and_then(short),
            body,
            done: false,
        });
    }

    /// A call begins. What `added` says of its arguments may be said again by
    /// deltas; it is delivered at the end if it was not. A call without a name
    /// waits for its end, too.
    fn call_added(&mut self, value: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) -> Body {
        let custom = item::kind(value).is("custom_tool_call");
        let Some(mut call) = item::call(value) else {
            return Body::Other;
        };
        if call.id.is_empty() {
            call.id = Str::from(format!("call_{}", self.parts));
        }
        self.ending.calls = true;
        let part = self.start(
            PartKind::Call {
                id: call.id,
                name: call.name,
                namespace: call.namespace,
                custom,
            },
            emit,
        );
        Body::Call(Calling {
            part,
            custom,
            given: 0,
            open: true,
        })
    }

    /// The open text or refusal that an event is about, begun where it was not.
    /// `None` when it has ended, or when it would begin with nothing.
    fn content(
        &mut self,
        event: &Event<'_>,
        refusal: bool,
        blank: bool,
        emit: &mut dyn FnMut(Delta<'_>),
    ) -> Option<&mut Content> {
        if blank && self.find(event).is_none() {
            return None;
        }
        let at = self.find_or_open(
            event,
            |body| matches!(body, Body::Message(_)),
            || Body::Message(Vec::new()),
        )?;
        self.content_at(at, event.index, refusal, blank, emit)
    }

    fn content_at(
        &mut self,
        at: usize,
        index: u64,
        refusal: bool,
        blank: bool,
        emit: &mut dyn FnMut(Delta<'_>),
    ) -> Option<&mut Content> {
        let known = self.contents(at)?.iter().position(|c| c.index == index);
        if known.is_none() {
            if blank {
                return None;
            }
            for content in self.contents(at)? {
                end(&mut content.open, content.part, emit);
            }
            self.ending.refused |= refusal;
            let kind = match refusal {
                true => PartKind::Refusal,
                false => PartKind::Text,
            };
            let part = self.start(kind, emit);
            self.contents(at)?.push(Content {
                index,
                part,
                refusal,
                given: 0,
                annotations: 0,
                logprobs: false,
                open: true,
            });
        }
        let contents = self.contents(at)?;
        let content = match known {
            Some(known) => contents.get_mut(known),
            None => contents.last_mut(),
        };
        content.filter(|content| content.open)
    }

    fn contents(&mut self, at: usize) -> Option<&mut Vec<Content>> {
        match &mut self.items.get_mut(at)?.body {
            Body::Message(contents) => Some(contents),
            _ => None,
        }
    }

    fn text(&mut self, event: &Event<'_>, refusal: bool, emit: &mut dyn FnMut(Delta<'_>)) {
        let blank = event.delta.as_ref().is_none_or(Str::is_empty);
        let Some(content) = self.content(event, refusal, blank, emit) else {
            return;
        };
        tell_logprobs(content, event.logprobs, emit);
        if let Some(text) = &event.delta {
            say(text, content.part, &mut content.given, emit);
        }
    }

    fn text_done(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let kind = event.kind.as_ref();
        let refusal = kind.is_some_and(|kind| kind.is("response.refusal.done"));
        let blank = event.whole.as_ref().is_none_or(Str::is_empty);
        let Some(content) = self.content(event, refusal, blank, emit) else {
            return;
        };
        if !content.logprobs {
            tell_logprobs(content, event.logprobs, emit);
        }
        if let Some(whole) = &event.whole {
            say_rest(whole, content.part, &mut content.given, emit);
        }
    }

    fn part_done(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(value) = event.part else {
            return;
        };
        let kind = item::string(value, "type");
        if kind.is_some_and(|kind| kind.is("reasoning_text")) {
            return;
        }
        let refusal = value.get("refusal").is_some();
        if let Some(content) = self.content(event, refusal, is_blank(value), emit) {
            complete(content, value, emit);
        }
    }

    fn annotation(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(value) = event.annotation else {
            return;
        };
        let Some(content) = self.content(event, false, true, emit) else {
            return;
        };
        content.annotations += 1;
        if let Some(annotation) = item::annotation(value).filter(|_| !content.refusal) {
            emit(Delta::Annotation {
                choice: 0,
                part: content.part,
                annotation,
            });
        }
    }

    fn calling(&mut self, event: &Event<'_>) -> Option<&mut Calling> {
        let at = self.find(event)?;
        match &mut self.items.get_mut(at)?.body {
            Body::Call(calling) if calling.open => Some(calling),
            _ => None,
        }
    }

    fn arguments(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(piece) = event.delta.as_ref().filter(|piece| !piece.is_empty()) else {
            return;
        };
        if let Some(calling) = self.calling(event) {
            calling.given += plain_length(piece);
            calling.say(piece, emit);
        }
    }

    fn arguments_done(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(whole) = &event.whole else {
            return;
        };
        if let Some(calling) = self.calling(event) {
            calling.say_rest(whole, emit);
        }
    }

    /// The reasoning part that an event is about, begun where it was not.
    fn thinking(
        &mut self,
        event: &Event<'_>,
        emit: &mut dyn FnMut(Delta<'_>),
    ) -> Option<(usize, &mut Thinking)> {
        let at = self.find_or_open(
            event,
            |body| matches!(body, Body::Reasoning(_)),
            || Body::Reasoning(Thinking::default()),
        )?;
        self.thinking_at(at, emit)
    }

    fn thinking_at(
        &mut self,
        at: usize,
        emit: &mut dyn FnMut(Delta<'_>),
    ) -> Option<(usize, &mut Thinking)> {
        let begun = match self.items.get(at).map(|item| &item.body) {
            Some(Body::Reasoning(thinking)) => thinking.part,
            _ => return None,
        };
        let part = match begun {
            Some(part) => part,
            None => self.start(PartKind::Reasoning, emit),
        };
        match self.items.get_mut(at).map(|item| &mut item.body) {
            Some(Body::Reasoning(thinking)) => {
                thinking.part = Some(part);
                Some((part, thinking))
            }
            _ => None,
        }
    }

    fn reasoning(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(text) = event.delta.as_ref().filter(|text| !text.is_empty()) else {
            return;
        };
        if let Some((part, thinking)) = self.thinking(event, emit) {
            say(text, part, &mut thinking.given, emit);
        }
    }

    fn summary(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(text) = event.delta.as_ref().filter(|text| !text.is_empty()) else {
            return;
        };
        if let Some((part, thinking)) = self.thinking(event, emit) {
            thinking.summarize(part, event.index, text, emit);
        }
    }

    fn summary_done(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(whole) = event.whole.as_ref().filter(|text| !text.is_empty()) else {
            return;
        };
        if let Some((part, thinking)) = self.thinking(event, emit) {
            thinking.summarize_rest(part, event.index, whole, emit);
        }
    }

    fn item_done(&mut self, event: &Event<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(value) = event.item else {
            return;
        };
        let fits = |body: &Body, kind: &str| match body {
            Body::Message(_) => kind == "message",
            Body::Reasoning(_) => kind == "reasoning",
            Body::Call(calling) => kind == calling.item_type(),
            Body::Other => true,
        };
        let kind = item::kind(value);
        let found = self.find(event).filter(|at| {
            let item = self.items.get(*at);
            item.is_some_and(|item| fits(&item.body, &kind.plain()) && !item.is_other(value))
        });
        match found {
            Some(at) => self.complete_item(at, value, emit),
            None => self.whole(event.output, value, emit),
        }
    }

    /// An item that comes whole, with nothing before it.
    fn whole(&mut self, output: Option<u64>, value: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        self.items.push(Item {
            output,
            id: item::filled(value, "id").as_ref().and_then(short),
            call_id: item::filled(value, "call_id").as_ref().and_then(short),
            body: Body::Other,
            done: false,
        });
        self.complete_item(self.items.len() - 1, value, emit);
    }

    /// What the finished item says beyond what was delivered; then its end.
    fn complete_item(&mut self, at: usize, value: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(item) = self.items.get_mut(at) else {
            return;
        };
        if item.done {
            return;
        }
        match &mut item.body {
            Body::Message(_) => self.complete_message(at, value, emit),
            Body::Reasoning(_) => self.complete_reasoning(at, value, emit),
            Body::Call(calling) => {
                if calling.open {
                    calling.complete(value, emit);
                }
            }
            Body::Other => self.deliver(value, emit),
        }
        self.close(at, emit);
    }

    fn deliver(&mut self, value: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let parts = item::parts(value);
        let logprobs = response::logprobs(value);
        self.begin(None, emit);
        if !logprobs.is_empty() {
            emit(Delta::Logprobs {
                choice: 0,
                tokens: logprobs,
            });
        }
        for mut part in parts {
            response::name_call(&mut part, self.parts);
            self.ending.note(&part);
            replay_part((0, self.parts), &part, emit);
            self.parts += 1;
        }
    }

    fn complete_message(&mut self, at: usize, value: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(list) = value.get("content") else {
            return;
        };
        for (index, part) in list.items().enumerate().take(MOST) {
            let refusal = part.get("refusal").is_some();
            let blank = is_blank(part);
            if let Some(content) = self.content_at(at, index as u64, refusal, blank, emit) {
                complete(content, part, emit);
            }
        }
    }

    fn complete_reasoning(&mut self, at: usize, value: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let thought = item::thought(value, |data| Opaque {
            kind: OpaqueKind::OpenAiEncrypted,
            data,
            model: None,
            account: None,
        });
        if thought.summary.is_empty() && thought.text.is_empty() && thought.opaque.is_none() {
            return;
        }
        let Some((part, thinking)) = self.thinking_at(at, emit) else {
            return;
        };
        for (index, text) in thought.summary.iter().enumerate().take(MOST) {
            thinking.summarize_rest(part, index as u64, text, emit);
        }
        say_rest(&thought.text, part, &mut thinking.given, emit);
        if let Some(opaque) = thought.opaque {
            emit(Delta::Opaque {
                choice: 0,
                part,
                opaque,
            });
        }
    }

    /// Ends whatever of the item is still open.
    fn close(&mut self, at: usize, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(item) = self.items.get_mut(at) else {
            return;
        };
        if std::mem::replace(&mut item.done, true) {
            return;
        }
        match &mut item.body {
            Body::Message(contents) => {
                for content in contents {
                    end(&mut content.open, content.part, emit);
                }
            }
            Body::Reasoning(thinking) => {
                if let Some(part) = thinking.part {
                    emit(Delta::PartEnd { choice: 0, part });
                }
            }
            Body::Call(calling) => end(&mut calling.open, calling.part, emit),
            Body::Other => {}
        }
    }

    fn end(&mut self, event: &Event<'_>, data: &[u8], emit: &mut dyn FnMut(Delta<'_>)) {
        self.begin(event.response, emit);
        if let Some(response) = event.response {
            let status = item::string(response, "status");
            if status.is_some_and(|status| status.is("failed")) {
                return self.fail(error_in_answer(data), emit);
            }
            self.deliver_missing(response, emit);
        }
        for at in 0..self.items.len() {
            self.close(at, emit);
        }
        self.over = true;
        if let Some(response) = event.response {
            if let Some(tokens) = response::tokens(response) {
                emit(Delta::Usage {
                    tokens,
                    web_searches: self.ending.web_searches(response),
                });
            }
            if let Some(service) = item::filled(response, "service_tier") {
                emit(Delta::Meta {
                    service: Some(service),
                    fingerprint: None,
                });
            }
        }
        let kind = event.kind.as_ref().map(Str::plain);
        let finish = match (event.response, kind.as_deref()) {
            (None, Some("response.incomplete")) => Finish::Length,
            (None, _) => self.ending.finish(None),
            (Some(response), _) => self.ending.finish(Some(response)),
        };
        emit(Delta::Finish { choice: 0, finish });
        emit(Delta::End);
    }

    /// Items that only the last event has, and ends that never came. A server
    /// whose ids and indexes are both wrong may not make anything come twice:
    /// no more items are delivered than there are.
    fn deliver_missing(&mut self, response: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let Some(output) = response.get("output") else {
            return;
        };
        let missing = output.items().count() > self.items.len();
        for (index, value) in output.items().enumerate().take(MOST) {
            match self.known(index as u64, value) {
                Some(at) => self.complete_item(at, value, emit),
                None if missing => self.whole(Some(index as u64), value, emit),
                None => {}
            }
        }
    }

    fn known(&self, index: u64, value: Value<'_>) -> Option<usize> {
        let same = |mine: &Option<String>, name| {
            let theirs = item::filled(value, name);
            mine.as_deref()
                .zip(theirs)
                .is_some_and(|(mine, theirs)| theirs.is(mine))
        };
        let by_id = self
            .items
            .iter()
            .position(|item| same(&item.id, "id") || same(&item.call_id, "call_id"));
        by_id.or_else(|| {
            let mut items = self.items.iter();
            items.position(|item| item.output == Some(index))
        })
    }
}

impl Calling {
    const fn item_type(&self) -> &'static str {
        match self.custom {
            true => "custom_tool_call",
            false => "function_call",
        }
    }

    fn say(&self, piece: &Str<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let (choice, part) = (0, self.part);
        emit(match self.custom {
            true => Delta::Text {
                choice,
                part,
                text: piece.borrowed(),
            },
            false => Delta::Arguments {
                choice,
                part,
                piece: piece.borrowed(),
            },
        });
    }

    fn say_rest(&mut self, whole: &Str<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        if let Some((rest, length)) = rest(whole, self.given) {
            self.given = length;
            self.say(&rest, emit);
        }
    }

    fn complete(&mut self, value: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let name = match self.custom {
            true => "input",
            false => "arguments",
        };
        match value.some(name) {
            Some(object) if object.is_object() && self.given == 0 && !self.custom => {
                emit(Delta::ArgumentsWhole {
                    choice: 0,
                    part: self.part,
                    value: object.raw(),
                });
            }
            Some(text) => {
                if let Some(whole) = text.as_str() {
                    self.say_rest(&whole, emit);
                }
            }
            None => {}
        }
    }
}

impl Thinking {
    /// The number of the summary with the server's index. The last one goes on; any
    /// other index begins a new one.
    fn numbered(&mut self, index: u64) -> Option<(usize, &mut usize)> {
        let last = self
            .summaries
            .last()
            .is_some_and(|(last, _)| *last == index);
        if !last {
            if self.summaries.len() == MOST {
                return None;
            }
            self.summaries.push((index, 0));
        }
        let number = self.summaries.len() - 1;
        self.summaries.last_mut().map(|(_, given)| (number, given))
    }

    fn summarize(
        &mut self,
        part: usize,
        index: u64,
        text: &Str<'_>,
        emit: &mut dyn FnMut(Delta<'_>),
    ) {
        if let Some((number, given)) = self.numbered(index) {
            *given += plain_length(text);
            emit(Delta::Summary {
                choice: 0,
                part,
                index: number,
                text: text.borrowed(),
            });
        }
    }

    fn summarize_rest(
        &mut self,
        part: usize,
        index: u64,
        whole: &Str<'_>,
        emit: &mut dyn FnMut(Delta<'_>),
    ) {
        let known = self.summaries.iter().position(|(known, _)| *known == index);
        let last = known.is_none_or(|at| at + 1 == self.summaries.len());
        let given = known
            .and_then(|at| self.summaries.get(at))
            .map_or(0, |s| s.1);
        if let Some((rest, _)) = rest(whole, given).filter(|_| last) {
            self.summarize(part, index, &rest, emit);
        }
    }
}

/// Whether a part of a message says nothing.
fn is_blank(part: Value<'_>) -> bool {
    item::filled(part, "text").is_none() && item::filled(part, "refusal").is_none()
}

fn end(open: &mut bool, part: usize, emit: &mut dyn FnMut(Delta<'_>)) {
    if std::mem::take(open) {
        emit(Delta::PartEnd { choice: 0, part });
    }
}

/// What a finished part says beyond what was delivered; then its end.
fn complete(content: &mut Content, value: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
    if !content.logprobs {
        tell_logprobs(content, value.get("logprobs"), emit);
    }
    let whole = item::string(value, "text").or_else(|| item::string(value, "refusal"));
    if let Some(whole) = whole {
        say_rest(&whole, content.part, &mut content.given, emit);
    }
    let list = value.get("annotations").filter(|_| !content.refusal);
    let list = list.into_iter().flat_map(|list| list.items());
    let list = list.skip(content.annotations);
    for annotation in list.filter_map(item::annotation) {
        emit(Delta::Annotation {
            choice: 0,
            part: content.part,
            annotation,
        });
    }
    end(&mut content.open, content.part, emit);
}

fn tell_logprobs(content: &mut Content, list: Option<Value<'_>>, emit: &mut dyn FnMut(Delta<'_>)) {
    let Some(list) = list.filter(|list| list.is_array() && !list.is_empty()) else {
        return;
    };
    content.logprobs = true;
    emit(Delta::Logprobs {
        choice: 0,
        tokens: list.items().map(|token| token.raw()).collect(),
    });
}

fn say(text: &Str<'_>, part: usize, given: &mut usize, emit: &mut dyn FnMut(Delta<'_>)) {
    if text.is_empty() {
        return;
    }
    *given += plain_length(text);
    emit(Delta::Text {
        choice: 0,
        part,
        text: text.borrowed(),
    });
}

fn say_rest(whole: &Str<'_>, part: usize, given: &mut usize, emit: &mut dyn FnMut(Delta<'_>)) {
    if let Some((rest, length)) = rest(whole, *given) {
        *given = length;
        emit(Delta::Text {
            choice: 0,
            part,
            text: rest,
        });
    }
}

/// What is in `whole` behind the first `given` bytes, and its length.
fn rest<'a>(whole: &Str<'a>, given: usize) -> Option<(Str<'a>, usize)> {
    let length = plain_length(whole);
    if length <= given {
        return None;
    }
    if given == 0 {
        return Some((whole.clone(), length));
    }
    let plain = whole.plain();
    Some((Str::from(plain.get(given..)?.to_owned()), length))
}

/// Bytes that a string has once its escapes are undone.
pub(super) fn plain_length(text: &Str<'_>) -> usize {
    let inner = text.inner();
    let bytes = inner.as_bytes();
    let mut length = bytes.len();
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += found;
        let (written, meant) = match bytes.get(at + 1) {
            Some(b'u') => unit(bytes.get(at + 2..).unwrap_or_default()),
            _ => (2, 1),
        };
        length = length.saturating_sub(written - meant);
        at += written;
    }
    length
}

/// Bytes of an escape `\uXXXX`, and of the character that it means.
fn unit(digits: &[u8]) -> (usize, usize) {
    let value = digits
        .get(..4)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    let value = value.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    match value.unwrap_or_default() {
        0..0x80 => (6, 1),
        0x80..0x800 => (6, 2),
        0xD800..0xDC00 => (12, 4),
        _ => (6, 3),
    }
}

fn short(id: &Str<'_>) -> Option<String> {
    (id.len() <= LONGEST_ID).then(|| id.to_plain_string())
}
