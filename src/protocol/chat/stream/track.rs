//! One answer of a stream: which of its parts are open.

use crate::protocol::chat::details::{self, From};
use crate::protocol::chat::mint::Seed;
use crate::protocol::chat::request::{medium_of_image, signature};
use crate::protocol::chat::response::content_part;
use crate::protocol::chat::think::{Found, Splitter};
use crate::protocol::chat::{annotations, finish};
use crate::protocol::error::{UpstreamError, unreadable};
use crate::protocol::ir::{Delta, Finish, Media, Opaque, OpaqueKind, Part, PartKind};
use crate::protocol::json::{Str, Value};

use super::calls::{Call, Label, find};
use super::decode::{Told, text_of};

/// The most calls of one answer.
const CALLS: usize = 4096;
/// The most that is held of calls whose name has not come.
const HELD: usize = 16 * 1024 * 1024;

/// An element of `choices`, before its delta is looked at.
#[derive(Default)]
pub(super) struct Piece<'t> {
    pub(super) index: Option<usize>,
    pub(super) delta: Option<Value<'t>>,
    pub(super) finish: Option<Str<'t>>,
    pub(super) logprobs: Option<Value<'t>>,
    pub(super) failed: bool,
}

/// Parts of which only one is open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
    Refusal,
}

impl Kind {
    const fn part(self) -> PartKind<'static> {
        match self {
            Self::Text => PartKind::Text,
            Self::Reasoning => PartKind::Reasoning,
            Self::Refusal => PartKind::Refusal,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Open {
    kind: Kind,
    part: usize,
    /// Reasoning whose blob has come: what follows is another thought.
    signed: bool,
}

type Emit<'e> = &'e mut dyn FnMut(Delta<'_>);

/// One answer.
#[derive(Debug)]
pub(super) struct Track {
    choice: usize,
    seed: Seed<'static>,
    /// The next part's number.
    next: usize,
    open: Option<Open>,
    calls: Vec<Call>,
    held: usize,
    /// Characters of the text parts that have ended, and of the open one.
    before: usize,
    characters: usize,
    splitter: Option<Splitter>,
    cited: bool,
    refused: bool,
    seen: bool,
    finished: bool,
}

impl Track {
    pub(super) fn new(choice: usize, seed: Seed<'static>, think_tags: bool) -> Self {
        Self {
            choice,
            seed,
            next: 0,
            open: None,
            calls: Vec::new(),
            held: 0,
            before: 0,
            characters: 0,
            splitter: think_tags.then(Splitter::default),
            cited: false,
            refused: false,
            seen: false,
            finished: false,
        }
    }

    /// Whether anything was said of this answer.
    pub(super) const fn is_seen(&self) -> bool {
        self.seen
    }

    /// Whether it has ended.
    pub(super) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// One piece. What comes behind the end is left out.
    pub(super) fn piece(
        &mut self,
        piece: &Piece<'_>,
        citations: Option<Value<'_>>,
        emit: Emit<'_>,
    ) -> Result<(), UpstreamError> {
        self.seen = true;
        if self.finished {
            return Ok(());
        }
        if let Some(tokens) = piece.logprobs.filter(|tokens| !tokens.is_empty()) {
            emit(Delta::Logprobs {
                choice: self.choice,
                tokens: tokens.items().map(|token| token.raw()).collect(),
            });
        }
        if let Some(delta) = piece.delta {
            self.delta(&Told::of(delta), emit)?;
        }
        if let Some(word) = &piece.finish {
            self.finish(&word.plain(), citations, emit);
        }
        Ok(())
    }

    fn delta(&mut self, told: &Told<'_>, emit: Emit<'_>) -> Result<(), UpstreamError> {
        if let Some(reasoning) = &told.reasoning {
            self.reason(reasoning, emit);
        }
        if let Some(details) = told.details {
            for entry in details.items() {
                self.detail(entry, told.reasoning.is_some(), emit);
            }
        }
        if let Some(content) = told.content {
            self.content(content, emit);
        }
        if let Some(refusal) = &told.refusal {
            self.refused = true;
            self.say(Kind::Refusal, refusal, emit);
        }
        if let Some(images) = told.images {
            for image in images.items().filter_map(medium_of_image) {
                self.medium(image, emit);
            }
        }
        if let Some(list) = told.annotations {
            self.cite(list, emit);
        }
        if let Some(calls) = told.tool_calls {
            let count = calls.items().count();
            for (position, entry) in calls.items().enumerate() {
                self.call(entry, count - position, emit)?;
            }
        }
        match told.function_call {
            Some(entry) => self.legacy_call(entry, emit),
            None => Ok(()),
        }
    }

    fn content(&mut self, content: Value<'_>, emit: Emit<'_>) {
        if let Some(text) = content.as_str() {
            return self.text(&text, emit);
        }
        for part in content.items().filter_map(content_part) {
            match part {
                Part::Text(text) => self.text(&text.text, emit),
                Part::Reasoning(thought) => self.reason(&thought.text, emit),
                Part::Refusal(text) => {
                    self.refused = true;
                    self.say(Kind::Refusal, &text, emit);
                }
                Part::Media(media) => self.medium(media, emit),
                Part::Call(_) | Part::Result(_) | Part::Hosted(_) => {}
            }
        }
    }

    /// Visible text, unless reasoning is found in it.
    fn text(&mut self, text: &Str<'_>, emit: Emit<'_>) {
        let Some(mut splitter) = self.splitter.take().filter(|s| !s.is_through()) else {
            return self.say(Kind::Text, text, emit);
        };
        splitter.push(&text.plain(), |found| self.found(found, emit));
        self.splitter = Some(splitter);
    }

    fn found(&mut self, found: Found, emit: Emit<'_>) {
        match found {
            Found::Reasoning(text) => self.reason(&text.into(), emit),
            Found::Text(text) => self.say(Kind::Text, &text.into(), emit),
        }
    }

    fn reason(&mut self, text: &Str<'_>, emit: Emit<'_>) {
        let signed = |open: &Open| open.kind == Kind::Reasoning && open.signed;
        if self.open.as_ref().is_some_and(signed) {
            self.close(emit);
        }
        self.say(Kind::Reasoning, text, emit);
    }

    fn say(&mut self, kind: Kind, text: &Str<'_>, emit: Emit<'_>) {
        if text.is_empty() {
            return;
        }
        let part = self.ensure(kind, emit);
        if kind == Kind::Text {
            self.characters += text.characters();
        }
        emit(Delta::Text {
            choice: self.choice,
            part,
            text: text.borrowed(),
        });
    }

    /// The number of the open part of that kind, which is opened if need be.
    fn ensure(&mut self, kind: Kind, emit: Emit<'_>) -> usize {
        if let Some(open) = self.open.filter(|open| open.kind == kind) {
            return open.part;
        }
        self.set_apart(emit);
        let part = self.begin(kind.part(), emit);
        self.open = Some(Open {
            kind,
            part,
            signed: false,
        });
        part
    }

    fn begin(&mut self, kind: PartKind<'_>, emit: Emit<'_>) -> usize {
        let part = self.next;
        self.next += 1;
        emit(Delta::PartStart {
            choice: self.choice,
            part,
            kind,
        });
        part
    }

    fn end(&self, part: usize, emit: Emit<'_>) {
        emit(Delta::PartEnd {
            choice: self.choice,
            part,
        });
    }

    /// Ends the open part of text, reasoning or refusal.
    fn close(&mut self, emit: Emit<'_>) {
        if let Some(open) = self.open.take() {
            self.end(open.part, emit);
            if open.kind == Kind::Text {
                self.before += self.characters;
                self.characters = 0;
            }
        }
    }

    /// Another part is about to begin: ends what can be over.
    fn set_apart(&mut self, emit: Emit<'_>) {
        self.close(emit);
        self.end_calls(false, emit);
    }

    fn end_calls(&mut self, all: bool, emit: Emit<'_>) {
        let choice = self.choice;
        for call in &mut self.calls {
            if call.open && (all || call.scanner.is_whole()) {
                call.open = false;
                if let Some(part) = call.part {
                    emit(Delta::PartEnd { choice, part });
                }
            }
        }
    }

    fn medium(&mut self, media: Media<'_>, emit: Emit<'_>) {
        self.set_apart(emit);
        let part = self.begin(PartKind::Media(media), emit);
        self.end(part, emit);
    }

    /// Citations belong to the text that is open. There is no place for those that
    /// come when none is.
    fn cite(&mut self, list: Value<'_>, emit: Emit<'_>) {
        let Some(open) = self.open.filter(|open| open.kind == Kind::Text) else {
            return;
        };
        for entry in list.items() {
            if let Some(annotation) = annotations::read(entry, self.before) {
                self.cited = true;
                emit(Delta::Annotation {
                    choice: self.choice,
                    part: open.part,
                    annotation,
                });
            }
        }
    }

    /// Addresses without a place in the text, once, where nothing else is cited.
    fn cite_urls(&mut self, list: Value<'_>, emit: Emit<'_>) {
        let open = self.open.filter(|open| open.kind == Kind::Text);
        let Some(open) = open.filter(|_| !self.cited) else {
            return;
        };
        for url in list.items().filter_map(|url| url.as_str()) {
            emit(Delta::Annotation {
                choice: self.choice,
                part: open.part,
                annotation: annotations::of_url(url),
            });
        }
    }

    /// An entry of `reasoning_details`. Its text counts only where the same text
    /// did not come as a string.
    fn detail(&mut self, entry: Value<'_>, told: bool, emit: Emit<'_>) {
        let text = text_of(entry, "text").or_else(|| text_of(entry, "summary"));
        if let Some(text) = text.filter(|_| !told) {
            self.reason(&text, emit);
        }
        let data = text_of(entry, "signature").or_else(|| text_of(entry, "data"));
        let Some(data) = data else {
            return;
        };
        let (opaque, _) = details::blob(data, details::kind_of(entry), From::Provider);
        let call = text_of(entry, "id").and_then(|id| self.open_call(&id));
        match call {
            Some(part) => self.sign(part, opaque, emit),
            None => self.sign_reasoning(opaque, emit),
        }
    }

    fn open_call(&self, id: &Str<'_>) -> Option<usize> {
        let mut calls = self.calls.iter().filter(|call| call.open);
        calls
            .find(|call| call.id.as_deref().is_some_and(|own| id.is(own)))?
            .part
    }

    fn sign(&self, part: usize, opaque: Opaque<'_>, emit: Emit<'_>) {
        emit(Delta::Opaque {
            choice: self.choice,
            part,
            opaque,
        });
    }

    /// A blob belongs to the reasoning that is open, unless that has one or the
    /// blob is a thought of its own. It does not interrupt a text.
    fn sign_reasoning(&mut self, opaque: Opaque<'_>, emit: Emit<'_>) {
        let alone = opaque.kind == OpaqueKind::AnthropicRedacted;
        let open = self
            .open
            .as_mut()
            .filter(|open| open.kind == Kind::Reasoning);
        if let Some(open) = open.filter(|open| !open.signed && !alone) {
            open.signed = true;
            let part = open.part;
            return self.sign(part, opaque, emit);
        }
        let part = self.begin(PartKind::Reasoning, emit);
        self.sign(part, opaque, emit);
        self.end(part, emit);
    }

    /// An entry of `tool_calls`.
    fn call(
        &mut self,
        entry: Value<'_>,
        from_end: usize,
        emit: Emit<'_>,
    ) -> Result<(), UpstreamError> {
        let custom = entry.some("custom");
        let inner = custom.or_else(|| entry.some("function"));
        let id = text_of(entry, "id");
        let name = inner.and_then(|inner| text_of(inner, "name"));
        let input = if custom.is_some() {
            "input"
        } else {
            "arguments"
        };
        let told = inner.and_then(|inner| inner.some(input));
        let filled = told.is_some_and(|told| told.as_str().is_none_or(|text| !text.is_blank()));
        let label = Label {
            index: entry.some("index").and_then(|index| index.as_u64()),
            id: id.as_ref(),
            named: name.is_some(),
            filled,
            from_end,
        };
        let at = match find(&self.calls, &label) {
            Some(at) => at,
            None => self.new_call(&label, custom.is_some())?,
        };
        self.feed(at, name.as_ref(), told, emit)?;
        let part = self
            .calls
            .get(at)
            .filter(|call| call.open)
            .and_then(|call| call.part);
        if let (Some(part), Some(data)) = (part, signature(entry)) {
            let (opaque, _) = details::blob(data, OpaqueKind::GeminiSignature, From::Provider);
            self.sign(part, opaque, emit);
        }
        Ok(())
    }

    /// `function_call`, of which there is only one.
    fn legacy_call(&mut self, entry: Value<'_>, emit: Emit<'_>) -> Result<(), UpstreamError> {
        let label = Label {
            index: Some(u64::MAX),
            id: None,
            named: false,
            filled: false,
            from_end: 1,
        };
        let at = match find(&self.calls, &label) {
            Some(at) => at,
            None => self.new_call(&label, false)?,
        };
        let name = text_of(entry, "name");
        self.feed(at, name.as_ref(), entry.some("arguments"), emit)
    }

    fn new_call(&mut self, label: &Label<'_>, custom: bool) -> Result<usize, UpstreamError> {
        if self.calls.len() == CALLS {
            return Err(unreadable(b"an answer with more than 4096 calls"));
        }
        self.calls.push(Call {
            index: label.index,
            id: label.id.map(|id| id.to_plain_string()),
            custom,
            ..Call::default()
        });
        Ok(self.calls.len() - 1)
    }

    /// More of a call. It begins with its name; what comes before is held.
    fn feed(
        &mut self,
        at: usize,
        name: Option<&Str<'_>>,
        told: Option<Value<'_>>,
        emit: Emit<'_>,
    ) -> Result<(), UpstreamError> {
        let begun = self.calls.get(at).is_some_and(|call| call.part.is_some());
        if !begun {
            match name {
                Some(name) => self.begin_call(at, name, emit),
                None => return self.hold(at, told),
            }
        }
        let choice = self.choice;
        let Some(call) = self.calls.get_mut(at).filter(|call| call.open) else {
            return Ok(());
        };
        let (Some(part), Some(told)) = (call.part, told) else {
            return Ok(());
        };
        match told.as_str() {
            Some(piece) if piece.is_empty() || call.scanner.is_closed() => {}
            Some(text) if call.custom => emit(Delta::Text { choice, part, text }),
            Some(piece) => {
                call.scanner.feed(&piece);
                emit(Delta::Arguments {
                    choice,
                    part,
                    piece,
                });
            }
            None if call.scanner.is_begun() => {}
            None => {
                call.scanner.take_whole();
                let value = told.raw();
                emit(Delta::ArgumentsWhole {
                    choice,
                    part,
                    value,
                });
            }
        }
        Ok(())
    }

    fn begin_call(&mut self, at: usize, name: &Str<'_>, emit: Emit<'_>) {
        self.set_apart(emit);
        let minted = self.seed.id(self.choice, self.next);
        let Some(call) = self.calls.get(at) else {
            return;
        };
        let id = call
            .id
            .as_deref()
            .map_or(minted, |id| Str::from(id.to_owned()));
        let kind = PartKind::Call {
            id,
            name: name.borrowed(),
            namespace: None,
            custom: call.custom,
        };
        let part = self.begin(kind, emit);
        let choice = self.choice;
        let Some(call) = self.calls.get_mut(at) else {
            return;
        };
        call.part = Some(part);
        call.open = true;
        let held = std::mem::take(&mut call.held);
        if held.is_empty() {
            return;
        }
        let text = Str::from(held);
        if call.custom {
            emit(Delta::Text { choice, part, text });
        } else {
            call.scanner.feed(&text);
            let piece = text;
            emit(Delta::Arguments {
                choice,
                part,
                piece,
            });
        }
    }

    fn hold(&mut self, at: usize, told: Option<Value<'_>>) -> Result<(), UpstreamError> {
        let Some(told) = told else {
            return Ok(());
        };
        let raw = told.raw();
        let text = told.as_str().unwrap_or_else(|| raw.as_str().into());
        self.held += text.len();
        if self.held > HELD {
            return Err(unreadable(b"16 MiB of arguments for a call without a name"));
        }
        if let Some(call) = self.calls.get_mut(at) {
            call.held.push_str(&text.plain());
        }
        Ok(())
    }

    /// The answer ends: so do its parts.
    pub(super) fn finish(&mut self, word: &str, citations: Option<Value<'_>>, emit: Emit<'_>) {
        if self.finished {
            return;
        }
        if let Some(mut splitter) = self.splitter.take() {
            splitter.finish(|found| self.found(found, emit));
        }
        if let Some(citations) = citations {
            self.cite_urls(citations, emit);
        }
        self.close(emit);
        self.end_calls(true, emit);
        let called = self.calls.iter().any(|call| call.part.is_some());
        let nameless = self.calls.iter().any(|call| !call.held.trim().is_empty());
        let finish = match finish::read(word, called, self.refused) {
            // Not to be taken for an answer: something was to be called.
            Finish::Stop if nameless => {
                Finish::BadToolCall("the provider sent a call without a name".to_owned())
            }
            finish => finish,
        };
        self.finished = true;
        emit(Delta::Finish {
            choice: self.choice,
            finish,
        });
    }
}
