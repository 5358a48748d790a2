//! A provider's stream in Messages, read event by event.
//!
//! Anthropic opens one block at a time; others forget to close them, count them
//! wrongly, or say in the first event what belongs into deltas. Whatever comes,
//! the promises of [`Delta`] are kept.

use std::mem;

use bytes::BytesMut;

use crate::protocol::error::{ErrorClass, error_in_answer};
use crate::protocol::ir::{Annotation, Delta, Finish, OpaqueKind, PartKind};
use crate::protocol::json::{Object, Raw, Str, Tape, Value};
use crate::protocol::messages::response::{made_there, minted};
use crate::protocol::messages::usage::Usage;
use crate::protocol::messages::{citation, hosted, stop};

use super::{HELD, OVERHEAD, kept, weight};

/// The most blocks that may be open at once.
const BLOCKS: usize = 256;

type Emit<'e> = dyn FnMut(Delta<'_>) + 'e;

/// Reads a provider's stream.
#[derive(Debug, Default)]
pub struct Decoder {
    tape: Tape,
    started: bool,
    over: bool,
    /// The message's id, to make ids out of it.
    id: Option<Str<'static>>,
    /// The number of the next part.
    next: usize,
    /// The blocks that are open.
    blocks: Vec<Block>,
    /// The text part that is open: neighbouring text blocks are one text, which
    /// citations cut into pieces.
    text: Option<OpenText>,
    /// Calls of hosted tools that wait for their results, as JSON.
    uses: Vec<String>,
    /// Apart, because it is large and seldom looked at.
    usage: Box<Usage>,
    calls: bool,
    finish: Option<Finish>,
    /// Bytes held back.
    held: usize,
}

#[derive(Debug)]
struct OpenText {
    part: usize,
    characters: usize,
}

#[derive(Debug)]
struct Block {
    index: Option<u64>,
    part: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Its citations, and the character at which it begins.
    Text(Vec<Annotation<'static>>, usize),
    /// What its blob is, and the blob.
    Reasoning(OpaqueKind, String),
    /// Arguments that came whole, and whether pieces came.
    Call(Option<String>, bool),
    /// Type, id and name, and the input.
    Use([String; 3], String),
    /// Nothing that is known.
    Unknown,
}

impl Decoder {
    /// One event.
    pub fn event(&mut self, name: Option<&str>, data: &[u8], emit: &mut dyn FnMut(Delta<'_>)) {
        let data = data.trim_ascii();
        if self.over || data.is_empty() {
            return;
        }
        let mut tape = mem::take(&mut self.tape);
        match tape.parse_bytes(data) {
            Ok(root) => self.read(name, root, emit),
            Err(_) if data == b"[DONE]" => self.end(emit),
            Err(fault) => self.fail(
                ErrorClass::UpstreamFailed,
                format!("the provider sent an event that is {fault}"),
                emit,
            ),
        }
        self.tape = tape;
        if self.held > HELD || self.blocks.len() > BLOCKS {
            let message = "the provider's stream holds back too much".to_owned();
            self.fail(ErrorClass::UpstreamFailed, message, emit);
        }
    }

    /// The connection is closed.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Delta<'_>)) {
        if self.over {
            return;
        }
        if self.finish.is_some() {
            self.end(emit);
            return;
        }
        self.start(None, None, emit);
        self.over = true;
        emit(Delta::Error {
            class: ErrorClass::UpstreamFailed,
            message: "the provider's stream ended before its answer did".to_owned(),
            code: Some("upstream_truncated".to_owned()),
        });
    }

    fn read(&mut self, name: Option<&str>, root: Value<'_>, emit: &mut Emit<'_>) {
        let told = root.some("type").and_then(|kind| kind.as_str());
        let told = told.as_ref().map(Str::plain);
        match told.as_deref().or(name) {
            Some("content_block_delta") => self.delta(root, emit),
            Some("content_block_start") => self.open(root, emit),
            Some("content_block_stop") => {
                if let Some(at) = self.find(root) {
                    let block = self.blocks.remove(at);
                    self.close(block, emit);
                }
            }
            Some("message_start") => self.message_start(root, emit),
            Some("message_delta") => self.message_delta(root, emit),
            Some("message_stop") => self.end(emit),
            Some("ping") if self.started => emit(Delta::Ping),
            Some("error") => self.error(root, emit),
            None if root.some("error").is_some() => self.error(root, emit),
            _ => {}
        }
    }

    fn error(&mut self, root: Value<'_>, emit: &mut Emit<'_>) {
        let error = error_in_answer(root.raw().as_str().as_bytes());
        self.start(None, None, emit);
        self.over = true;
        emit(Delta::Error {
            class: error.class,
            message: error.message,
            code: error.code,
        });
    }

    fn fail(&mut self, class: ErrorClass, message: String, emit: &mut Emit<'_>) {
        if self.over {
            return;
        }
        self.start(None, None, emit);
        self.over = true;
        emit(Delta::Error {
            class,
            message,
            code: None,
        });
    }

    fn start(&mut self, id: Option<Str<'_>>, model: Option<Str<'_>>, emit: &mut Emit<'_>) {
        if !self.started {
            self.started = true;
            self.id = id.clone().map(Str::into_owned);
            emit(Delta::Start { id, model });
        }
    }

    /// Spliced streams have a second one, which says nothing new.
    fn message_start(&mut self, root: Value<'_>, emit: &mut Emit<'_>) {
        if self.started {
            return;
        }
        let message = root.some("message");
        let told = |name: &str| message.and_then(|message| message.some(name)?.as_str());
        self.start(told("id"), told("model"), emit);
        if let Some(usage) = message.and_then(|message| message.some("usage")) {
            self.report(usage, emit);
        }
    }

    fn report(&mut self, object: Value<'_>, emit: &mut Emit<'_>) {
        if self.usage.update(object) {
            emit(Delta::Usage {
                tokens: self.usage.tokens,
                web_searches: self.usage.web_searches,
            });
        }
        let service = object.some("service_tier").and_then(|tier| tier.as_str());
        if service.is_some() {
            emit(Delta::Meta {
                service,
                fingerprint: None,
            });
        }
    }

    fn message_delta(&mut self, root: Value<'_>, emit: &mut Emit<'_>) {
        self.start(None, None, emit);
        if let Some(usage) = root.some("usage") {
            self.report(usage, emit);
        }
        let finish = root.some("delta").and_then(stop::decode);
        if finish.is_some() {
            self.finish = finish;
            self.close_all(emit);
        }
    }

    fn end(&mut self, emit: &mut Emit<'_>) {
        self.start(None, None, emit);
        self.close_all(emit);
        self.over = true;
        let finish = stop::settle(self.finish.take(), self.calls);
        emit(Delta::Finish { choice: 0, finish });
        emit(Delta::End);
    }

    fn close_all(&mut self, emit: &mut Emit<'_>) {
        for block in mem::take(&mut self.blocks) {
            self.close(block, emit);
        }
        self.end_text(emit);
        for used in mem::take(&mut self.uses) {
            self.held = self.held.saturating_sub(used.len() + OVERHEAD);
            if let Ok(used) = Tape::new().parse(&used) {
                self.hosted(Some(used), None, emit);
            }
        }
    }

    /// The open block that an event speaks of: that of its index, or the last one
    /// where it names none.
    fn find(&self, root: Value<'_>) -> Option<usize> {
        match root.some("index").and_then(|index| index.as_u64()) {
            Some(index) => {
                let named = |block: &Block| block.index == Some(index);
                self.blocks.iter().rposition(named)
            }
            None => self.blocks.len().checked_sub(1),
        }
    }

    fn part_start(&mut self, kind: PartKind<'_>, emit: &mut Emit<'_>) -> usize {
        let part = self.next;
        self.next += 1;
        emit(Delta::PartStart {
            choice: 0,
            part,
            kind,
        });
        part
    }

    fn open(&mut self, root: Value<'_>, emit: &mut Emit<'_>) {
        self.start(None, None, emit);
        let index = root.some("index").and_then(|index| index.as_u64());
        if index.is_some()
            && let Some(at) = self.find(root)
        {
            let forgotten = self.blocks.remove(at);
            self.close(forgotten, emit);
        }
        let Some(block) = root.some("content_block") else {
            return;
        };
        let told = |name: &str| block.some(name).and_then(|text| text.as_str());
        let kind = told("type").unwrap_or_default();
        match kind.plain().as_ref() {
            "text" => {
                self.open_text(index, emit);
                self.more_text(self.blocks.len().wrapping_sub(1), told("text"), emit);
                for citation in block.some("citations").iter().flat_map(Value::items) {
                    self.cite(self.blocks.len().wrapping_sub(1), citation);
                }
            }
            "thinking" => {
                let signature = told("signature").unwrap_or_default();
                self.open_reasoning(index, OpaqueKind::AnthropicSignature, &signature, emit);
                self.more_text(self.blocks.len().wrapping_sub(1), told("thinking"), emit);
            }
            "redacted_thinking" => {
                let data = told("data").unwrap_or_default();
                self.open_reasoning(index, OpaqueKind::AnthropicRedacted, &data, emit);
            }
            "tool_use" => self.open_call(index, block, emit),
            kind if hosted::is_use(kind) => self.open_use(index, block),
            kind if hosted::is_result(kind) => {
                self.hosted_result(block, emit);
                self.push(index, 0, Kind::Unknown);
            }
            _ => self.push(index, 0, Kind::Unknown),
        }
    }

    fn push(&mut self, index: Option<u64>, part: usize, kind: Kind) {
        self.blocks.push(Block { index, part, kind });
    }

    fn open_text(&mut self, index: Option<u64>, emit: &mut Emit<'_>) {
        let (part, characters) = self.text_part(emit);
        self.push(index, part, Kind::Text(Vec::new(), characters));
    }

    /// The text part that is open, or a new one, and its characters so far.
    fn text_part(&mut self, emit: &mut Emit<'_>) -> (usize, usize) {
        if let Some(text) = &self.text {
            return (text.part, text.characters);
        }
        let part = self.part_start(PartKind::Text, emit);
        self.text = Some(OpenText {
            part,
            characters: 0,
        });
        (part, 0)
    }

    fn end_text(&mut self, emit: &mut Emit<'_>) {
        if let Some(text) = self.text.take() {
            emit(Delta::PartEnd {
                choice: 0,
                part: text.part,
            });
        }
    }

    fn open_reasoning(
        &mut self,
        index: Option<u64>,
        kind: OpaqueKind,
        blob: &Str<'_>,
        emit: &mut Emit<'_>,
    ) {
        self.end_text(emit);
        let part = self.part_start(PartKind::Reasoning, emit);
        let blob = blob.to_plain_string();
        self.held += blob.len();
        self.push(index, part, Kind::Reasoning(kind, blob));
    }

    fn open_call(&mut self, index: Option<u64>, block: Value<'_>, emit: &mut Emit<'_>) {
        self.end_text(emit);
        self.calls = true;
        let told = |name: &str| block.some(name).and_then(|text| text.as_str());
        let id = told("id").filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| minted(self.id.as_ref(), self.next));
        let kind = PartKind::Call {
            id,
            name: told("name").unwrap_or_default(),
            namespace: None,
            custom: false,
        };
        let part = self.part_start(kind, emit);
        let whole = block.some("input").filter(|input| !input.is_empty());
        let whole = whole.map(|input| input.raw().as_str().to_owned());
        self.held += whole.as_ref().map_or(0, String::len);
        self.push(index, part, Kind::Call(whole, false));
    }

    fn open_use(&mut self, index: Option<u64>, block: Value<'_>) {
        let told = |name: &str| {
            let text = block.some(name).and_then(|text| text.as_str());
            text.map(|text| text.to_plain_string()).unwrap_or_default()
        };
        let names = [told("type"), told("id"), told("name")];
        let input = block.some("input").filter(|input| !input.is_empty());
        let input = input.map(|input| input.raw().as_str().to_owned());
        let input = input.unwrap_or_default();
        self.held += input.len() + names.iter().map(String::len).sum::<usize>() + OVERHEAD;
        self.push(index, 0, Kind::Use(names, input));
    }

    fn hosted_result(&mut self, block: Value<'_>, emit: &mut Emit<'_>) {
        let id = block.some("tool_use_id").and_then(|id| id.as_str());
        let mut tape = Tape::new();
        let mut found = None;
        for (at, used) in self.uses.iter().enumerate() {
            let used = tape.parse(used).ok();
            if used.and_then(|used| used.some("id")?.as_str()) == id {
                found = Some(at);
            }
        }
        let used = found.map(|at| self.uses.remove(at));
        self.held = self
            .held
            .saturating_sub(used.as_ref().map_or(0, |used| used.len() + OVERHEAD));
        let used = used.as_ref().and_then(|used| tape.parse(used).ok());
        self.hosted(used, Some(block), emit);
    }

    fn hosted(&mut self, used: Option<Value<'_>>, result: Option<Value<'_>>, emit: &mut Emit<'_>) {
        self.end_text(emit);
        let part = self.part_start(PartKind::Hosted(hosted::decode(used, result)), emit);
        emit(Delta::PartEnd { choice: 0, part });
    }

    fn delta(&mut self, root: Value<'_>, emit: &mut Emit<'_>) {
        self.start(None, None, emit);
        let Some(delta) = root.some("delta") else {
            return;
        };
        let Some(kind) = delta.some("type").and_then(|kind| kind.as_str()) else {
            return;
        };
        let told = |name: &str| delta.some(name).and_then(|text| text.as_str());
        let kind = kind.plain();
        let at = self.find(root).or_else(|| {
            let index = root.some("index").and_then(|index| index.as_u64());
            self.open_unannounced(index, &kind, emit)
        });
        let Some(at) = at else {
            return;
        };
        match kind.as_ref() {
            "text_delta" => self.more_text(at, told("text"), emit),
            "thinking_delta" => self.more_text(at, told("thinking"), emit),
            "input_json_delta" => self.more_input(at, delta.some("partial_json"), emit),
            "signature_delta" => self.more_signature(at, told("signature")),
            "citations_delta" => {
                if let Some(citation) = delta.some("citation") {
                    self.cite(at, citation);
                }
            }
            _ => {}
        }
    }

    /// A block whose start never came.
    fn open_unannounced(
        &mut self,
        index: Option<u64>,
        kind: &str,
        emit: &mut Emit<'_>,
    ) -> Option<usize> {
        match kind {
            "text_delta" => self.open_text(index, emit),
            "thinking_delta" => {
                let kind = OpaqueKind::AnthropicSignature;
                self.open_reasoning(index, kind, &Str::default(), emit);
            }
            _ => return None,
        }
        self.blocks.len().checked_sub(1)
    }

    fn more_text(&mut self, at: usize, text: Option<Str<'_>>, emit: &mut Emit<'_>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return;
        };
        let Some(kind) = self.blocks.get(at).map(|block| &block.kind) else {
            return;
        };
        let is_text = matches!(kind, Kind::Text(..));
        if !is_text && !matches!(kind, Kind::Reasoning(..)) {
            return;
        }
        // The text part may have ended because something else began in between.
        let part = is_text.then(|| self.text_part(emit).0);
        let Some(block) = self.blocks.get_mut(at) else {
            return;
        };
        block.part = part.unwrap_or(block.part);
        if let Some(open) = self.text.as_mut().filter(|_| is_text) {
            open.characters += text.characters();
        }
        emit(Delta::Text {
            choice: 0,
            part: block.part,
            text,
        });
    }

    fn more_input(&mut self, at: usize, piece: Option<Value<'_>>, emit: &mut Emit<'_>) {
        let (Some(block), Some(value)) = (self.blocks.get_mut(at), piece) else {
            return;
        };
        let piece = value.as_str();
        match (&mut block.kind, piece) {
            (_, Some(piece)) if piece.is_empty() => {}
            (Kind::Call(_, pieces), Some(piece)) => {
                *pieces = true;
                emit(Delta::Arguments {
                    choice: 0,
                    part: block.part,
                    piece,
                });
            }
            (Kind::Call(whole, false), None) => {
                let value = value.raw().as_str().to_owned();
                self.held += value.len();
                *whole = Some(value);
            }
            (Kind::Use(_, input), Some(piece)) => {
                self.held += piece.len();
                input.push_str(&piece.plain());
            }
            _ => {}
        }
    }

    fn more_signature(&mut self, at: usize, piece: Option<Str<'_>>) {
        let block = self.blocks.get_mut(at).map(|block| &mut block.kind);
        if let (Some(Kind::Reasoning(_, blob)), Some(piece)) = (block, piece) {
            self.held += piece.len();
            blob.push_str(&piece.plain());
        }
    }

    /// Holds a citation until its block, and so its place in the text, is whole.
    fn cite(&mut self, at: usize, citation: Value<'_>) {
        let Some(annotation) = citation::decode(citation) else {
            return;
        };
        let block = self.blocks.get_mut(at).map(|block| &mut block.kind);
        if let Some(Kind::Text(annotations, _)) = block {
            self.held += weight(&annotation);
            annotations.push(kept(annotation));
        }
    }

    fn close(&mut self, block: Block, emit: &mut Emit<'_>) {
        let (choice, part) = (0, block.part);
        match block.kind {
            Kind::Text(annotations, from) => self.end_citations(part, annotations, from, emit),
            Kind::Reasoning(kind, blob) => {
                self.held = self.held.saturating_sub(blob.len());
                if !blob.is_empty() {
                    let opaque = made_there(kind, Str::from(blob));
                    emit(Delta::Opaque {
                        choice,
                        part,
                        opaque,
                    });
                }
                emit(Delta::PartEnd { choice, part });
            }
            Kind::Call(whole, pieces) => {
                self.held = self
                    .held
                    .saturating_sub(whole.as_ref().map_or(0, String::len));
                let value = whole.filter(|_| !pieces);
                if let Some(Ok(value)) = value.map(Raw::parse) {
                    emit(Delta::ArgumentsWhole {
                        choice,
                        part,
                        value,
                    });
                }
                emit(Delta::PartEnd { choice, part });
            }
            Kind::Use(names, input) => self.uses.push(used(&names, &input)),
            Kind::Unknown => {}
        }
    }

    fn end_citations(
        &mut self,
        part: usize,
        annotations: Vec<Annotation<'static>>,
        from: usize,
        emit: &mut Emit<'_>,
    ) {
        let held: usize = annotations.iter().map(weight).sum();
        self.held = self.held.saturating_sub(held);
        let Some(text) = self.text.as_ref().filter(|text| text.part == part) else {
            return;
        };
        // A block that outlived its part begins anew with the next.
        let span = (from.min(text.characters), text.characters);
        for annotation in annotations {
            emit(Delta::Annotation {
                choice: 0,
                part,
                annotation: Annotation {
                    span: Some(span),
                    ..annotation
                },
            });
        }
    }
}

/// The call of a hosted tool as the block that it would be in a whole answer.
fn used(names: &[String; 3], input: &str) -> String {
    let mut out = BytesMut::new();
    let [kind, id, name] = names;
    let mut block = Object::open(&mut out);
    block.text("type", kind).text("id", id).text("name", name);
    if let Ok(input) = Raw::parse(input) {
        block.raw("input", &input);
    }
    drop(block);
    String::from_utf8_lossy(&out).into_owned()
}
