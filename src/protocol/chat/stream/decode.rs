//! A provider's stream, with all that servers of this protocol do differently.

use crate::protocol::Protocol;
use crate::protocol::chat::mint::Seed;
use crate::protocol::chat::response::{filled, says_something, searches};
use crate::protocol::error::{ErrorClass, UpstreamError, error_in_answer, unreadable};
use crate::protocol::ir::Delta;
use crate::protocol::json::{Str, Tape, Value};
use crate::protocol::usage;

use super::track::{Piece, Track};

/// The most answers of one request.
const CHOICES: usize = 128;

/// Reads a provider's stream.
#[derive(Debug, Default)]
pub struct Decoder {
    tape: Tape,
    think_tags: bool,
    started: bool,
    over: bool,
    service_told: bool,
    fingerprint_told: bool,
    seed: Seed<'static>,
    tracks: Vec<Track>,
}

/// What an event says, before any of it is looked at.
#[derive(Default)]
struct Chunk<'t> {
    id: Option<Str<'t>>,
    model: Option<Str<'t>>,
    service: Option<Str<'t>>,
    fingerprint: Option<Str<'t>>,
    choices: Option<Value<'t>>,
    usage: Option<Value<'t>>,
    citations: Option<Value<'t>>,
    failed: bool,
}

impl<'t> Chunk<'t> {
    fn of(root: Value<'t>) -> Self {
        let mut chunk = Self::default();
        for (name, value) in root.members() {
            if value.is_null() {
                continue;
            }
            let text = || value.as_str().filter(|text| !text.is_empty());
            match name.plain().as_ref() {
                "id" => chunk.id = text(),
                "model" => chunk.model = text(),
                "service_tier" => chunk.service = text(),
                "system_fingerprint" => chunk.fingerprint = text(),
                "choices" => chunk.choices = Some(value),
                "usage" => chunk.usage = Some(value),
                "citations" => chunk.citations = Some(value),
                "error" => chunk.failed = says_something(value),
                _ => {}
            }
        }
        chunk
    }
}

impl Decoder {
    /// For a provider that leaves reasoning in `<think>` tags.
    #[must_use]
    pub fn with_think_tags(mut self) -> Self {
        self.think_tags = true;
        self
    }

    /// One event.
    pub fn event(&mut self, name: Option<&str>, data: &[u8], emit: &mut dyn FnMut(Delta<'_>)) {
        let data = data.trim_ascii();
        if self.over || data.is_empty() {
            return;
        }
        if data == b"[DONE]" {
            return self.done(emit);
        }
        if name == Some("error") {
            return self.fail(error_in_answer(data), emit);
        }
        let mut tape = std::mem::take(&mut self.tape);
        let failure = match tape.parse_bytes(data) {
            Ok(root) if root.is_object() => self.chunk(root, emit).err(),
            Ok(_) => Some(error_in_answer(data)),
            Err(_) => Some(unreadable(data)),
        };
        self.tape = tape;
        if let Some(failure) = failure {
            self.fail(failure, emit);
        }
    }

    fn chunk(
        &mut self,
        root: Value<'_>,
        emit: &mut dyn FnMut(Delta<'_>),
    ) -> Result<(), UpstreamError> {
        let chunk = Chunk::of(root);
        let failure = || Err(error_in_answer(root.raw().as_str().as_bytes()));
        if chunk.failed {
            return failure();
        }
        let empty = chunk.choices.is_none_or(|choices| choices.is_empty());
        if empty && chunk.usage.is_none() {
            // A prompt filter's verdict, or a sign of life.
            if self.started {
                emit(Delta::Ping);
            }
            return Ok(());
        }
        self.start(&chunk, root, emit);
        self.meta(&chunk, emit);
        if let Some(choices) = chunk.choices {
            for (position, choice) in choices.items().enumerate() {
                let piece = Piece::of(choice);
                if piece.failed {
                    return failure();
                }
                let Some(track) = self.track(piece.index.unwrap_or(position)) else {
                    return Err(unreadable(b"an answer with too high a number"));
                };
                track.piece(&piece, chunk.citations, emit)?;
            }
        }
        if let Some(told) = chunk.usage
            && let Some(tokens) = usage::decode(Protocol::Chat, told.raw().as_str().as_bytes())
        {
            emit(Delta::Usage {
                tokens,
                web_searches: searches(told),
            });
        }
        Ok(())
    }

    fn start(&mut self, chunk: &Chunk<'_>, root: Value<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        if self.started {
            return;
        }
        self.started = true;
        self.seed = Seed::of(root).into_owned();
        emit(Delta::Start {
            id: chunk.id.as_ref().map(Str::borrowed),
            model: chunk.model.as_ref().map(Str::borrowed),
        });
    }

    fn meta(&mut self, chunk: &Chunk<'_>, emit: &mut dyn FnMut(Delta<'_>)) {
        let service = chunk.service.as_ref().filter(|_| !self.service_told);
        let fingerprint = chunk.fingerprint.as_ref();
        let fingerprint = fingerprint.filter(|_| !self.fingerprint_told);
        if service.is_none() && fingerprint.is_none() {
            return;
        }
        self.service_told |= service.is_some();
        self.fingerprint_told |= fingerprint.is_some();
        emit(Delta::Meta {
            service: service.map(Str::borrowed),
            fingerprint: fingerprint.map(Str::borrowed),
        });
    }

    fn track(&mut self, index: usize) -> Option<&mut Track> {
        if index >= CHOICES {
            return None;
        }
        while self.tracks.len() <= index {
            let choice = self.tracks.len();
            let seed = self.seed.clone();
            self.tracks.push(Track::new(choice, seed, self.think_tags));
        }
        self.tracks.get_mut(index)
    }

    /// The provider says that all has come.
    fn done(&mut self, emit: &mut dyn FnMut(Delta<'_>)) {
        if !self.tracks.iter().any(Track::is_seen) {
            return self.fail(truncated(), emit);
        }
        self.end(emit);
    }

    /// Ends what has not ended, answers that were left out among it.
    fn end(&mut self, emit: &mut dyn FnMut(Delta<'_>)) {
        for track in &mut self.tracks {
            track.finish("", None, emit);
        }
        self.over = true;
        emit(Delta::End);
    }

    /// The connection is closed. Many servers leave `[DONE]` out; none leaves a
    /// finish reason out unless it was cut off.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Delta<'_>)) {
        if self.over {
            return;
        }
        let mut seen = self
            .tracks
            .iter()
            .filter(|track| track.is_seen())
            .peekable();
        if seen.peek().is_some() && seen.all(Track::is_finished) {
            return self.end(emit);
        }
        self.fail(truncated(), emit);
    }

    fn fail(&mut self, error: UpstreamError, emit: &mut dyn FnMut(Delta<'_>)) {
        self.over = true;
        emit(Delta::Error {
            class: error.class,
            message: error.message,
            code: error.code,
        });
    }
}

/// The failure of a stream that ended too early.
fn truncated() -> UpstreamError {
    UpstreamError {
        class: ErrorClass::UpstreamFailed,
        message: "the provider's stream ended before its answer did".to_owned(),
        code: Some("upstream_truncated".to_owned()),
        retry_after: None,
    }
}

impl<'t> Piece<'t> {
    /// What an element of `choices` says.
    fn of(choice: Value<'t>) -> Self {
        let mut piece = Self::default();
        for (name, value) in choice.members() {
            if value.is_null() {
                continue;
            }
            match name.plain().as_ref() {
                "index" => {
                    piece.index = value.as_u64().and_then(|index| usize::try_from(index).ok());
                }
                "delta" => piece.delta = Some(value),
                // A whole message where a piece of one was due.
                "message" => piece.delta = piece.delta.or(Some(value)),
                "finish_reason" => piece.finish = value.as_str().filter(|word| !word.is_empty()),
                "logprobs" => piece.logprobs = value.some("content"),
                "error" => piece.failed |= says_something(value),
                _ => {}
            }
        }
        piece.failed |= piece.finish.as_ref().is_some_and(|word| word.is("error"));
        piece
    }
}

/// Fields of a piece of an answer.
#[derive(Default)]
pub(super) struct Told<'t> {
    pub(super) content: Option<Value<'t>>,
    pub(super) reasoning: Option<Str<'t>>,
    pub(super) details: Option<Value<'t>>,
    pub(super) refusal: Option<Str<'t>>,
    pub(super) tool_calls: Option<Value<'t>>,
    pub(super) function_call: Option<Value<'t>>,
    pub(super) annotations: Option<Value<'t>>,
    pub(super) images: Option<Value<'t>>,
}

impl<'t> Told<'t> {
    /// What a `delta` says.
    pub(super) fn of(delta: Value<'t>) -> Self {
        let mut told = Self::default();
        let mut other = None;
        for (name, value) in delta.members() {
            if value.is_null() {
                continue;
            }
            let text = || value.as_str().filter(|text| !text.is_empty());
            match name.plain().as_ref() {
                "content" => told.content = Some(value),
                "reasoning_content" => told.reasoning = text(),
                "reasoning" => other = text(),
                "reasoning_details" => told.details = Some(value),
                "refusal" => told.refusal = text(),
                "tool_calls" => told.tool_calls = Some(value),
                "function_call" => told.function_call = Some(value),
                "annotations" => told.annotations = Some(value),
                "images" => told.images = Some(value),
                _ => {}
            }
        }
        told.reasoning = told.reasoning.or(other);
        told
    }
}

/// A part of an entry that is a string and not empty.
pub(super) fn text_of<'t>(entry: Value<'t>, name: &str) -> Option<Str<'t>> {
    filled(entry, name)
}
