//! Conversations of the Responses API that go on: `previous_response_id` and
//! references to earlier items, and what is kept of an answer for the next.

use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use memchr::memmem::Finder;

use super::{Refusal, Work};
use crate::app::Core;
use crate::exchange::{Exchange, Keep};
use crate::protocol::Protocol;
use crate::protocol::error::ErrorClass;
use crate::protocol::ir::Invalid;
use crate::protocol::json::{self, Tape};
use crate::protocol::responses::state::{self, StoredTurn};
use crate::routing::Candidate;
use crate::store::StoredResponse;

/// The longest chain of answers, and the most bytes in it.
const HOPS: usize = state::MOST_TURNS;
const BYTES: usize = state::LONGEST;
/// Years, for what is kept for ever.
const FOR_EVER_MS: i64 = 1 << 45;
const DAY_MS: i64 = 86_400_000;

const LITE: HeaderName = HeaderName::from_static("x-openai-internal-codex-responses-lite");

static PREVIOUS: LazyLock<Finder<'static>> =
    LazyLock::new(|| json::finder("\"previous_response_id\""));
static REFERENCE: LazyLock<Finder<'static>> = LazyLock::new(|| json::finder("\"item_reference\""));
static ADDITIONAL_TOOLS: LazyLock<Finder<'static>> =
    LazyLock::new(|| json::finder("\"additional_tools\""));
static TOOL_SEARCH: LazyLock<Finder<'static>> = LazyLock::new(|| json::finder("\"tool_search\""));
static STORE: LazyLock<Finder<'static>> = LazyLock::new(|| json::finder("\"store\""));

/// The conversation that a request goes on from, oldest answer first.
#[derive(Debug, Default)]
pub(super) struct Chain {
    answers: Vec<StoredResponse>,
    whole: OnceLock<Result<Bytes, Invalid>>,
}

impl Chain {
    /// Whether that candidate's provider holds the conversation itself.
    pub(super) fn is_held_by(&self, candidate: &Candidate) -> bool {
        self.answers
            .last()
            .is_some_and(|last| last.upstream && last.provider == *candidate.provider.id)
    }

    /// The request with the whole conversation in its input.
    pub(super) fn expanded(&self, frames: &[Bytes]) -> Result<Bytes, Invalid> {
        let expanded = self.whole.get_or_init(|| self.expand(frames));
        expanded.clone()
    }

    fn expand(&self, frames: &[Bytes]) -> Result<Bytes, Invalid> {
        let outputs: Vec<String> = self.answers.iter().map(output).collect();
        let inputs = self.answers.iter().map(|answer| answer.input.as_str());
        let turns: Vec<StoredTurn<'_>> = inputs
            .zip(&outputs)
            .map(|(input, output)| StoredTurn { input, output })
            .collect();
        let body = frames.concat();
        let mut tape = Tape::new();
        let root = tape.parse_bytes(&body).map_err(|fault| Invalid {
            param: None,
            ..Invalid::request("", format!("the body is {fault}"))
        })?;
        state::expand(root, &turns)
    }
}

/// The items that were answered.
fn output(answer: &StoredResponse) -> String {
    let mut tape = Tape::new();
    let response = tape.parse(&answer.response);
    response.map_or_else(|_| "[]".to_owned(), state::output_items)
}

/// Finds the conversation that a request goes on from, if it names one.
pub(super) async fn chain(
    core: &Arc<Core>,
    exchange: &Exchange,
    work: &Work,
) -> Result<Option<Chain>, Refusal> {
    let config = &exchange.config.store;
    if work.ask.protocol != Protocol::Responses || !config.responses {
        return Ok(None);
    }
    let named = mentions(&work.frames, &PREVIOUS);
    if !named && !mentions(&work.frames, &REFERENCE) {
        return Ok(None);
    }
    let key = exchange.key().ok_or_else(Refusal::internal)?;
    let Some(id) = previous(&work.frames)? else {
        // References can still be resolved, or be refused by name.
        return Ok(Some(Chain::default()));
    };
    let (core, key) = (Arc::clone(core), Arc::clone(&key.name));
    let walk = tokio::task::spawn_blocking(move || walk(&core, &id, &key));
    let answers = walk.await.map_err(|_| Refusal::internal())??;
    Ok(Some(Chain {
        answers,
        whole: OnceLock::new(),
    }))
}

/// The value of `previous_response_id`, if it has one.
fn previous(frames: &[Bytes]) -> Result<Option<String>, Refusal> {
    let body = frames.concat();
    let mut tape = Tape::new();
    let Ok(root) = tape.parse_bytes(&body) else {
        // Whoever reads the body will say what is wrong with it.
        return Ok(None);
    };
    let conversation = root.some("conversation").is_some();
    let previous = root.some("previous_response_id");
    if conversation && previous.is_some() {
        let message = "'previous_response_id' and 'conversation' can't be used together";
        let refusal = Refusal::new(ErrorClass::InvalidRequest, message.into());
        return Err(refusal.param("previous_response_id"));
    }
    let text = previous.and_then(|value| value.as_str());
    Ok(text.map(|text| text.to_plain_string()))
}

/// From an answer back to the first of its conversation. Blocks.
fn walk(core: &Core, id: &str, key: &str) -> Result<Vec<StoredResponse>, Refusal> {
    let mut answers: Vec<StoredResponse> = Vec::new();
    let mut size = 0;
    let mut next = Some(id.to_owned());
    while let Some(id) = next.take() {
        let found = core.app.store.response(&id, key, super::wall_ms());
        let found = found.map_err(|error| {
            tracing::error!(%error, "a kept answer could not be read");
            Refusal::internal()
        })?;
        let Some(answer) = found else {
            return Err(lost(&id));
        };
        size += answer.input.len() + answer.response.len();
        if answers.len() == HOPS || size > BYTES {
            let message = format!(
                "the conversation behind '{id}' is longer than {HOPS} answers or {BYTES} bytes"
            );
            let refusal = Refusal::new(ErrorClass::InvalidRequest, message);
            return Err(refusal.param("previous_response_id"));
        }
        next.clone_from(&answer.previous);
        answers.push(answer);
    }
    answers.reverse();
    Ok(answers)
}

fn lost(id: &str) -> Refusal {
    Refusal::new(
        ErrorClass::InvalidRequest,
        format!("Previous response with id '{id}' not found."),
    )
    .param("previous_response_id")
    .code("previous_response_not_found")
}

/// Whether the text is in the frames, across their borders too.
fn mentions(frames: &[Bytes], finder: &Finder<'_>) -> bool {
    if frames.iter().any(|frame| finder.find(frame).is_some()) {
        return true;
    }
    let reach = finder.needle().len() - 1;
    let mut seam: Vec<u8> = Vec::with_capacity(2 * reach);
    frames.iter().any(|frame| {
        let from = seam.len().saturating_sub(reach);
        seam.drain(..from);
        seam.extend_from_slice(&frame[..frame.len().min(reach)]);
        let found = finder.find(&seam).is_some();
        if frame.len() > reach {
            seam.clear();
            seam.extend_from_slice(&frame[frame.len() - reach..]);
        }
        found
    })
}

/// Whether the client speaks the lighter form of Responses that Codex has with its
/// own models: by its header, or by what only that form has.
pub(super) fn is_lite(work: &Work) -> bool {
    if work.ask.protocol != Protocol::Responses || work.ask.path.is_some() {
        return false;
    }
    let told = work.headers.get(LITE).map(HeaderValue::as_bytes);
    if told.is_some_and(|told| told.eq_ignore_ascii_case(b"true")) {
        return true;
    }
    let hints = [&*ADDITIONAL_TOOLS, &*TOOL_SEARCH];
    if !hints.iter().any(|hint| mentions(&work.frames, hint)) {
        return false;
    }
    let body = work.frames.concat();
    let mut tape = Tape::new();
    let Ok(root) = tape.parse_bytes(&body) else {
        return false;
    };
    let has = |list: &str, wanted: &str| {
        let mut items = root.get(list).into_iter().flat_map(|list| list.items());
        items.any(|item| {
            let kind = item.get("type").and_then(|kind| kind.as_str());
            kind.is_some_and(|kind| kind.is(wanted))
        })
    };
    has("input", "additional_tools") || has("tools", "tool_search")
}

/// What is to be kept of the answer, if anything.
pub(super) fn keep(exchange: &Exchange, work: &Work, upstream: bool) -> Option<Keep> {
    let config = &exchange.config.store;
    if work.ask.protocol != Protocol::Responses || work.ask.path.is_some() || !config.responses {
        return None;
    }
    if mentions(&work.frames, &STORE) && is_private(&work.frames) {
        return None;
    }
    let created_ms = exchange.created_ms();
    let days = i64::from(config.response_days);
    let lifetime = if days == 0 {
        FOR_EVER_MS
    } else {
        days * DAY_MS
    };
    Some(Keep {
        key: Arc::clone(&exchange.key()?.name),
        created_ms,
        expires_ms: created_ms.saturating_add(lifetime),
        provider: exchange.provider()?,
        upstream,
        body: work.frames.clone(),
        streamed: work.streamed,
        held: Vec::new(),
    })
}

fn is_private(frames: &[Bytes]) -> bool {
    let body = frames.concat();
    let mut tape = Tape::new();
    let root = tape.parse_bytes(&body).ok();
    root.and_then(|root| root.some("store")?.as_bool()) == Some(false)
}
