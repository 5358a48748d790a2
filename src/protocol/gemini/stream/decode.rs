//! A provider's stream: each chunk is an answer with the increments since the last.

use super::assembly::{Assembly, TooMuch};
use crate::protocol::error::{ErrorClass, UpstreamError, error_in_answer, unreadable};
use crate::protocol::gemini::finish::{self, unsaid};
use crate::protocol::gemini::grounding::{self, Stretch};
use crate::protocol::gemini::offsets::Offsets;
use crate::protocol::gemini::part::{self, Fields};
use crate::protocol::gemini::spelling::{camel, find, text, whole};
use crate::protocol::gemini::{hosted, logprobs, media, mint, usage};
use crate::protocol::ir::{Annotation, Delta, Finish, Hosted, Media, Opaque, OpaqueKind, PartKind};
use crate::protocol::json::{Raw, Str, Tape, Value};
use crate::protocol::usage::Tokens;

/// Answers beyond this many are nobody's.
const MOST_CANDIDATES: usize = 64;

/// Who is told what follows.
type Emit<'e> = dyn FnMut(Delta<'_>) + 'e;

/// Reads a provider's stream.
#[derive(Debug, Default)]
pub struct Decoder {
    tape: Tape,
    state: State,
}

impl Decoder {
    /// One event.
    pub fn event(&mut self, name: Option<&str>, data: &[u8], emit: &mut dyn FnMut(Delta<'_>)) {
        let _ = name;
        let data = data.trim_ascii();
        if self.state.over || data.is_empty() || data == b"[DONE]" {
            return;
        }
        match self.tape.parse_bytes(data) {
            Ok(root) => self.state.document(root, emit),
            Err(_) => self.elements(data, emit),
        }
    }

    /// The connection is closed.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Delta<'_>)) {
        if !self.state.over {
            self.state.finish(emit);
        }
    }

    /// Some elements of an array whose brackets and commas may lie in other
    /// events.
    fn elements(&mut self, data: &[u8], emit: &mut Emit<'_>) {
        let text = String::from_utf8_lossy(data);
        let trimmed =
            text.trim_matches(|c: char| matches!(c, '[' | ']' | ',') || c.is_whitespace());
        let whole = format!("[{trimmed}]");
        match self.tape.parse(&whole) {
            Ok(root) => self.state.document(root, emit),
            Err(_) => self.state.fail(unreadable(data), emit),
        }
    }
}

/// What is known of the answer so far.
#[derive(Debug, Default)]
struct State {
    started: bool,
    over: bool,
    /// The answer's id, of which ids of calls are made.
    seed: String,
    candidates: Vec<Candidate>,
    /// Why the prompt was refused.
    blocked: Option<Finish>,
    /// What the provider gave to go on with.
    token: Option<String>,
}

impl State {
    fn document(&mut self, root: Value<'_>, emit: &mut Emit<'_>) {
        if root.is_array() {
            for chunk in root.items() {
                self.document_of(chunk, emit);
            }
        } else {
            self.document_of(root, emit);
        }
    }

    fn document_of(&mut self, chunk: Value<'_>, emit: &mut Emit<'_>) {
        if self.over {
            return;
        }
        if !chunk.is_object() {
            return self.fail(unreadable(chunk.raw().as_str().as_bytes()), emit);
        }
        if !self.started && find(chunk, "error").is_none() {
            self.start(chunk, emit);
        }
        for (name, value) in chunk.members() {
            match &*camel(&name) {
                "error" if !value.is_null() => {
                    return self.fail(error_in_answer(chunk.raw().as_str().as_bytes()), emit);
                }
                "candidates" => self.candidates(value, emit),
                "promptFeedback" => self.blocked = self.blocked.take().or_else(|| blocked(value)),
                "usageMetadata" => {
                    if let Some(tokens) = usage::decode(value).filter(|_| !self.over) {
                        emit(Delta::Usage {
                            tokens,
                            web_searches: None,
                        });
                    }
                }
                "continuationToken" => {
                    self.token = value.as_str().map(|token| token.to_plain_string());
                }
                _ => {}
            }
        }
    }

    fn start(&mut self, chunk: Value<'_>, emit: &mut Emit<'_>) {
        self.started = true;
        let id = text(chunk, "responseId");
        if let Some(id) = &id {
            self.seed = id.to_plain_string();
        }
        let model = text(chunk, "modelVersion");
        emit(Delta::Start { id, model });
    }

    fn candidates(&mut self, list: Value<'_>, emit: &mut Emit<'_>) {
        for (position, chunk) in list.items().enumerate() {
            let index = whole(chunk, "index").and_then(|index| usize::try_from(index).ok());
            let Some(candidate) = candidate(&mut self.candidates, index.unwrap_or(position)) else {
                continue;
            };
            if let Err(error) = candidate.chunk(chunk, &self.seed, emit) {
                return self.fail(error, emit);
            }
        }
    }

    fn fail(&mut self, error: UpstreamError, emit: &mut Emit<'_>) {
        self.over = true;
        emit(Delta::Error {
            class: error.class,
            message: error.message,
            code: error.code,
        });
    }

    fn finish(&mut self, emit: &mut Emit<'_>) {
        if self.candidates.is_empty()
            && let Some(finish) = self.blocked.take()
        {
            self.candidates.push(Candidate {
                finish: Some(finish),
                ..Candidate::default()
            });
        }
        let open = |candidate: &Candidate| candidate.finish.is_none();
        if self.candidates.is_empty() || self.candidates.iter().any(open) && self.token.is_none() {
            return self.fail(truncated(), emit);
        }
        self.over = true;
        let seed = std::mem::take(&mut self.seed);
        let mut searches = 0;
        let most = self
            .candidates
            .iter()
            .map(|candidate| candidate.index)
            .max();
        for index in 0..most.unwrap_or(0) {
            // An answer that was counted and never came.
            if self
                .candidates
                .iter()
                .all(|candidate| candidate.index != index)
            {
                emit(Delta::Finish {
                    choice: index,
                    finish: unsaid(),
                });
            }
        }
        let token = self.token.take();
        for mut candidate in self.candidates.drain(..) {
            searches += candidate.finish(&seed, token.as_deref(), emit);
        }
        if searches > 0 {
            emit(Delta::Usage {
                tokens: Tokens::default(),
                web_searches: Some(searches),
            });
        }
        emit(Delta::End);
    }
}

/// The candidate of that number.
fn candidate(candidates: &mut Vec<Candidate>, index: usize) -> Option<&mut Candidate> {
    if index >= MOST_CANDIDATES {
        return None;
    }
    let known = candidates.iter().position(|known| known.index == index);
    let at = known.unwrap_or_else(|| {
        candidates.push(Candidate {
            index,
            ..Candidate::default()
        });
        candidates.len() - 1
    });
    candidates.get_mut(at)
}

fn truncated() -> UpstreamError {
    UpstreamError {
        class: ErrorClass::UpstreamFailed,
        message: "the provider's stream broke off before its end".to_owned(),
        code: Some("upstream_truncated".to_owned()),
        retry_after: None,
    }
}

fn too_much(_: TooMuch) -> UpstreamError {
    UpstreamError {
        class: ErrorClass::UpstreamFailed,
        message: "the provider's call has more arguments than can be held".to_owned(),
        code: Some("upstream_too_large".to_owned()),
        retry_after: None,
    }
}

/// Why the prompt was refused, if it was.
pub(in crate::protocol::gemini) fn blocked(feedback: Value<'_>) -> Option<Finish> {
    let reason = text(feedback, "blockReason")?;
    if reason.is("BLOCKED_REASON_UNSPECIFIED") || reason.is("BLOCK_REASON_UNSPECIFIED") {
        return None;
    }
    Some(Finish::ContentFilter {
        category: Some(reason.to_plain_string()),
        text: text(feedback, "blockReasonMessage").map(|text| text.to_plain_string()),
    })
}

/// The part that is being written.
#[derive(Clone, Copy, Debug)]
struct Open {
    part: usize,
    thought: bool,
    signed: bool,
}

/// One of the answers.
#[derive(Debug, Default)]
struct Candidate {
    index: usize,
    /// The number of the next part.
    next: usize,
    open: Option<Open>,
    /// Where the open text begins in all visible text, in bytes.
    start: usize,
    offsets: Offsets,
    /// Whether a call was made.
    calls: bool,
    finish: Option<Finish>,
    /// A call whose arguments come in pieces, and its part.
    call: Option<(usize, Assembly)>,
    /// A hosted call whose result may follow.
    hosted: Option<Hosted<'static>>,
    /// The last `groundingMetadata` and `citationMetadata` with anything in them.
    grounding: Option<Raw<'static>>,
    citations: Option<Raw<'static>>,
}

impl Candidate {
    fn chunk(
        &mut self,
        chunk: Value<'_>,
        seed: &str,
        emit: &mut Emit<'_>,
    ) -> Result<(), UpstreamError> {
        for (name, value) in chunk.members() {
            match &*camel(&name) {
                "content" => self.content(value, seed, emit).map_err(too_much)?,
                "finishReason" => {
                    if let Some(word) = value.as_str() {
                        self.finished(&word, text(chunk, "finishMessage"))?;
                    }
                }
                "groundingMetadata" => keep(&mut self.grounding, value),
                "citationMetadata" => keep(&mut self.citations, value),
                "logprobsResult" => {
                    let tokens = logprobs::decode(value);
                    if !tokens.is_empty() {
                        emit(Delta::Logprobs {
                            choice: self.index,
                            tokens,
                        });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Some servers say `STOP` in every chunk: it counts when no more comes.
    fn finished(&mut self, word: &Str<'_>, message: Option<Str<'_>>) -> Result<(), UpstreamError> {
        match finish::decode(word, message.as_ref()) {
            Some(Finish::BadToolCall(word)) => Err(bad_call(&word)),
            Some(finish) => {
                self.finish = Some(finish);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn content(
        &mut self,
        content: Value<'_>,
        seed: &str,
        emit: &mut Emit<'_>,
    ) -> Result<(), TooMuch> {
        let Some(parts) = find(content, "parts") else {
            return Ok(());
        };
        if parts.is_object() {
            return self.part(parts, seed, emit);
        }
        for part in parts.items() {
            self.part(part, seed, emit)?;
        }
        Ok(())
    }

    fn part(&mut self, value: Value<'_>, seed: &str, emit: &mut Emit<'_>) -> Result<(), TooMuch> {
        let fields = part::read(value);
        if let Some(call) = fields.call {
            return self.call(call, &fields, seed, emit);
        }
        if fields.is_text() {
            self.text(&fields, emit);
            return Ok(());
        }
        self.end_call(emit);
        if fields.is_hosted() {
            self.hosted(&fields, value, seed, emit);
        } else {
            self.medium(&fields, emit);
        }
        Ok(())
    }

    fn text(&mut self, fields: &Fields<'_>, emit: &mut Emit<'_>) {
        let said = fields.text.as_ref().filter(|text| !text.is_empty());
        if let Some(said) = said {
            self.end_call(emit);
            let part = self.open(fields.thought, emit);
            if !fields.thought {
                self.offsets.push(said);
            }
            emit(Delta::Text {
                choice: self.index,
                part,
                text: said.borrowed(),
            });
        }
        let Some(signature) = &fields.signature else {
            return;
        };
        // A blob alone belongs to what was said last, if that has none of its own.
        let lone = self.open.is_none_or(|open| open.thought && open.signed);
        if said.is_none() && (lone || fields.thought) {
            self.open(true, emit);
        }
        self.sign(signature, emit);
    }

    /// A signature of the open part. A second one for the same text says nothing
    /// that the first did not.
    fn sign(&mut self, signature: &Str<'_>, emit: &mut Emit<'_>) {
        let Some(open) = self.open.as_mut().filter(|open| !open.signed) else {
            return;
        };
        open.signed = true;
        emit(Delta::Opaque {
            choice: self.index,
            part: open.part,
            opaque: opaque(signature),
        });
    }

    /// The part that such text belongs to, opened if it is not open. A thought
    /// that was signed is closed to further thoughts.
    fn open(&mut self, thought: bool, emit: &mut Emit<'_>) -> usize {
        if let Some(open) = self.open
            && open.thought == thought
            && !(thought && open.signed)
        {
            return open.part;
        }
        let kind = if thought {
            PartKind::Reasoning
        } else {
            PartKind::Text
        };
        let part = self.begin(kind, emit);
        self.start = self.offsets.bytes();
        self.open = Some(Open {
            part,
            thought,
            signed: false,
        });
        part
    }

    /// Begins a part when everything before it has ended.
    fn begin(&mut self, kind: PartKind<'_>, emit: &mut Emit<'_>) -> usize {
        self.close(emit);
        self.next += 1;
        emit(Delta::PartStart {
            choice: self.index,
            part: self.next - 1,
            kind,
        });
        self.next - 1
    }

    fn end(&self, part: usize, emit: &mut Emit<'_>) {
        emit(Delta::PartEnd {
            choice: self.index,
            part,
        });
    }

    /// Ends what is open.
    fn close(&mut self, emit: &mut Emit<'_>) {
        if let Some(open) = self.open.take() {
            self.end(open.part, emit);
        }
        if let Some(hosted) = self.hosted.take() {
            let part = self.begin(PartKind::Hosted(hosted), emit);
            self.end(part, emit);
        }
    }

    fn call(
        &mut self,
        call: Value<'_>,
        fields: &Fields<'_>,
        seed: &str,
        emit: &mut Emit<'_>,
    ) -> Result<(), TooMuch> {
        let goes_on = find(call, "willContinue").and_then(|more| more.as_bool()) == Some(true);
        if let Some(name) = text(call, "name") {
            self.end_call(emit);
            let part = self.begin_call(call, name, seed, emit);
            if let Some(signature) = &fields.signature {
                emit(Delta::Opaque {
                    choice: self.index,
                    part,
                    opaque: opaque(signature),
                });
            }
            if !goes_on && find(call, "partialArgs").is_none() {
                self.arguments(part, arguments(call), emit);
                return Ok(());
            }
            let mut assembly = Assembly::default();
            if let Some(arguments) = find(call, "args") {
                assembly.begin(arguments);
            }
            self.call = Some((part, assembly));
        }
        if let Some((_, assembly)) = &mut self.call {
            let pieces = find(call, "partialArgs");
            for piece in pieces.into_iter().flat_map(|pieces| pieces.items()) {
                assembly.piece(piece)?;
            }
        }
        if !goes_on {
            self.end_call(emit);
        }
        Ok(())
    }

    fn begin_call(
        &mut self,
        call: Value<'_>,
        name: Str<'_>,
        seed: &str,
        emit: &mut Emit<'_>,
    ) -> usize {
        self.calls = true;
        self.close(emit);
        let id = text(call, "id").unwrap_or_else(|| {
            let raw = call.raw();
            // Without an id of the answer, the call itself must do.
            let own = if seed.is_empty() { raw.as_str() } else { "" };
            Str::from(self.mint("call_", seed, own))
        });
        self.begin(
            PartKind::Call {
                id,
                name,
                namespace: None,
                custom: false,
            },
            emit,
        )
    }

    /// A call that came in pieces is over.
    fn end_call(&mut self, emit: &mut Emit<'_>) {
        if let Some((part, assembly)) = self.call.take() {
            self.arguments(part, assembly.finish(), emit);
        }
    }

    fn arguments(&self, part: usize, value: Raw<'_>, emit: &mut Emit<'_>) {
        emit(Delta::ArgumentsWhole {
            choice: self.index,
            part,
            value,
        });
        self.end(part, emit);
    }

    fn hosted<'v>(
        &mut self,
        fields: &Fields<'v>,
        value: Value<'v>,
        seed: &str,
        emit: &mut Emit<'_>,
    ) {
        if let Some(open) = self.hosted.take_if(|open| hosted::belongs(fields, open)) {
            let mut whole: Hosted<'v> = open;
            hosted::complete(&mut whole, fields, value);
            let part = self.begin(PartKind::Hosted(whole), emit);
            return self.end(part, emit);
        }
        self.close(emit);
        let decoded = hosted::decode(fields, value, self.mint("", seed, ""));
        if fields.outcome.is_some() || fields.tool_response.is_some() {
            let part = self.begin(PartKind::Hosted(decoded), emit);
            self.end(part, emit);
        } else {
            // The result may come in another event: what is kept is our own.
            self.hosted = Some(owned(decoded));
        }
    }

    /// An id for the next part.
    fn mint(&self, prefix: &str, seed: &str, more: &str) -> String {
        let number = [self.index.to_le_bytes(), self.next.to_le_bytes()].concat();
        mint::id(prefix, &[seed.as_bytes(), &number, more.as_bytes()])
    }

    fn medium(&mut self, fields: &Fields<'_>, emit: &mut Emit<'_>) {
        let read = match (fields.inline, fields.file) {
            (Some(inline), _) => media::decode_inline(inline)
                .ok()
                .map(|read| (read.kind, read.source)),
            (None, Some(file)) => media::decode_file(file),
            (None, None) => None,
        };
        let Some((kind, source)) = read else {
            return;
        };
        let medium = Media {
            kind,
            source,
            name: None,
            context: None,
            detail: None,
            cite: false,
            cache: None,
            path: String::new(),
        };
        let part = self.begin(PartKind::Media(medium), emit);
        self.end(part, emit);
    }

    /// Everything of this answer has come. Returns how many searches were made.
    fn finish(&mut self, seed: &str, token: Option<&str>, emit: &mut Emit<'_>) -> u64 {
        self.end_call(emit);
        let mut tape = Tape::new();
        if let Some(citations) = self.citations.take()
            && let Ok(metadata) = tape.parse(citations.as_str())
        {
            self.annotate(metadata, grounding::citations, emit);
        }
        let mut searches = 0;
        if let Some(grounding) = self.grounding.take()
            && let Ok(metadata) = tape.parse(grounding.as_str())
        {
            self.annotate(metadata, grounding::annotations, emit);
            self.close(emit);
            let id = self.mint("", seed, "");
            if let Some((search, queries)) = grounding::search(metadata, id) {
                searches = queries;
                let part = self.begin(PartKind::Hosted(search), emit);
                self.end(part, emit);
            }
        }
        self.close(emit);
        let finish = match (self.finish.take(), token) {
            (Some(Finish::Continuation(_)) | None, Some(token)) => {
                Finish::Continuation(token.to_owned())
            }
            (Some(Finish::Continuation(_)) | None, None) => Finish::Length,
            (Some(finish), _) => finish,
        };
        emit(Delta::Finish {
            choice: self.index,
            finish: finish::with_calls(finish, self.calls),
        });
        searches
    }

    /// Refers the text that is still open to its sources.
    fn annotate(&self, metadata: Value<'_>, read: References, emit: &mut Emit<'_>) {
        let Some(open) = self.open.filter(|open| !open.thought) else {
            return;
        };
        let stretch = Stretch {
            offsets: &self.offsets,
            start: self.start,
        };
        for annotation in read(metadata, stretch) {
            emit(Delta::Annotation {
                choice: self.index,
                part: open.part,
                annotation,
            });
        }
    }
}

/// How references are read from metadata.
type References = for<'a> fn(Value<'a>, Stretch<'_>) -> Vec<Annotation<'a>>;

/// Keeps the last metadata that says anything.
fn keep(kept: &mut Option<Raw<'static>>, value: Value<'_>) {
    if value.is_object() && !value.is_empty() {
        *kept = Some(value.raw().into_owned());
    }
}

fn opaque<'a>(signature: &'a Str<'_>) -> Opaque<'a> {
    Opaque {
        kind: OpaqueKind::GeminiSignature,
        data: signature.borrowed(),
        model: None,
        account: None,
    }
}

/// A call's arguments; none are an empty object.
pub(in crate::protocol::gemini) fn arguments(call: Value<'_>) -> Raw<'_> {
    find(call, "args").map_or(Raw::EMPTY_OBJECT, |arguments| arguments.raw())
}

/// The model made a call that nobody can read: never an end that an agent would
/// take for success.
fn bad_call(word: &str) -> UpstreamError {
    UpstreamError {
        class: ErrorClass::UpstreamFailed,
        message: format!("the model made a call that can't be read ({word})"),
        code: Some("upstream_malformed_function_call".to_owned()),
        retry_after: None,
    }
}

fn owned(hosted: Hosted<'_>) -> Hosted<'static> {
    Hosted {
        kind: hosted.kind,
        id: hosted.id.into_owned(),
        input: hosted.input.map(Raw::into_owned),
        sources: Vec::new(),
        output: hosted.output.map(Str::into_owned),
        failed: hosted.failed,
        native: hosted.native.into_iter().map(Raw::into_owned).collect(),
        origin: hosted.origin,
    }
}
