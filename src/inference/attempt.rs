//! One try at one target: send, then look at the answer until it is sure that
//! it is one. What was looked at is kept and passed on as it was.

mod translated;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::response::Parts;
use http::{HeaderMap, StatusCode};

use super::plan::{Plan, Way};
use super::{Work, count};
use crate::app::Core;
use crate::clock;
use crate::config::Stall;
use crate::protocol::Protocol;
use crate::protocol::empty;
use crate::protocol::error::{self, ErrorClass, UpstreamError};
use crate::protocol::gemini::array::ArrayAligner;
use crate::protocol::json;
use crate::protocol::meter::Meter;
use crate::protocol::notes::Notes;
use crate::protocol::opening::{self, Opening};
use crate::protocol::resume::Resume;
use crate::protocol::sse::Decoder;
use crate::relay::{Again, Committed, Form, Translation};
use crate::upstream::{Failure, FailureKind, RawAnswer, UpstreamBody};

/// A document up to this size is read whole before it is passed on, so that a
/// provider that dies in the middle of it costs the client nothing.
const WHOLE: usize = 256 * 1024;
/// How much of an error answer is kept.
const ERROR_BODY: usize = 64 * 1024;
/// Time for an error answer's body to arrive.
const ERROR_TIME: Duration = Duration::from_secs(10);
/// A stream that shows no content for this long after its head is committed
/// all the same: idle connections get cut on the way to the client.
const SILENT_OPENING: Duration = Duration::from_secs(20);
/// How much of a stream may pass without content before it is committed.
const OPENING: usize = 64 * 1024;

/// An answer at its commit point.
pub(super) struct Answered {
    pub(super) head: Parts,
    pub(super) committed: Committed,
    /// When the first content came, for streams.
    pub(super) first_content: Option<Instant>,
    /// What was changed on the way to the provider.
    pub(super) notes: Notes,
}

/// What an attempt may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Time for the answer to begin, and the longest silence after it.
    pub(super) attempt: Duration,
    /// Silence after which the client gets a sign of life.
    pub(super) heartbeat: Duration,
    /// Bytes of a document that has to be read whole.
    pub(super) document: usize,
    /// Time for a connection to come about, if it is not the usual one.
    pub(super) connect: Option<Duration>,
    /// When a stream counts as stalled.
    pub(super) stall: Stall,
    /// Whether nobody is left to be asked after this one.
    pub(super) last: bool,
}

/// Tries one target within a time limit. Dropping the future closes the
/// connection to it.
pub(super) async fn attempt(
    core: &Arc<Core>,
    work: &Work,
    plan: &Plan<'_>,
    limits: &Limits,
) -> Result<Box<Answered>, Box<Failure>> {
    let trying = std::pin::pin!(send(core, work, plan, limits));
    match core.alarms.limit(limits.attempt, trying).await {
        Some(result) => result,
        None => Err(Failure::timeout(limits.attempt)),
    }
}

/// By when a stream has to have brought its first output.
#[derive(Clone, Copy)]
struct Start {
    by: Instant,
    after: Duration,
    bytes: usize,
}

impl Start {
    fn of(stall: Stall) -> Option<Self> {
        let after = stall.first?;
        Some(Self {
            by: clock::now() + after,
            after,
            bytes: stall.first_bytes,
        })
    }

    fn failure(&self) -> Box<Failure> {
        Failure::new(
            FailureKind::Stall,
            ErrorClass::Timeout,
            format!(
                "less than {} bytes of output within {} s",
                self.bytes,
                self.after.as_secs_f32()
            ),
        )
    }
}

async fn send(
    core: &Arc<Core>,
    work: &Work,
    plan: &Plan<'_>,
    limits: &Limits,
) -> Result<Box<Answered>, Box<Failure>> {
    let build = |wire| plan.outbound.build(wire);
    let start = Start::of(limits.stall).filter(|_| work.streamed);
    let mut sending = std::pin::pin!(core.client.send(
        plan.outbound.origin(),
        limits.connect,
        &build
    ));
    let sent = match start {
        None => sending.await,
        Some(start) => match tokio::time::timeout_at(start.by.into(), sending.as_mut()).await {
            Ok(sent) => sent,
            Err(_) => return Err(start.failure()),
        },
    };
    let (head, mut body) = sent
        .map_err(|error| Failure::from_send(&error))?
        .into_parts();
    if let Some(tap) = &plan.tap {
        tap.head(head.status.as_u16(), &head.headers);
        body = body.tapped(tap.clone());
    }
    if !head.status.is_success() {
        let mut failure = Box::pin(error_answer(head, body)).await;
        failure.scrub(&plan.outbound.secrets());
        return Err(failure);
    }
    match &plan.way {
        Way::Splice { cut_usage } => {
            let form = form_of(work, &head.headers);
            let mut committed = commit(work.ask.protocol, form, limits);
            committed.cut_usage = *cut_usage && form == Form::Events;
            committed.rest = Some(body);
            // Boxed from the beginning: it goes up through many hands.
            let mut answered = Box::new(Answered {
                head,
                committed,
                first_content: None,
                notes: Notes::new(),
            });
            spliced(&mut answered, limits, start).await?;
            Ok(answered)
        }
        Way::Translate(translation) => {
            let place = Place { core, plan, limits };
            let answering = translated::answer(work, translation, (head, body), &place, start);
            Box::pin(answering).await.map(Box::new)
        }
        Way::Count(notes) => {
            let counted = counted(work.ask.protocol, plan.protocol, body, limits).await?;
            let answered = count::answered(work.ask.protocol, counted, (**notes).clone());
            Ok(Box::new(answered))
        }
    }
}

/// A target that was asked, and may be asked again.
struct Place<'p> {
    core: &'p Arc<Core>,
    plan: &'p Plan<'p>,
    limits: &'p Limits,
}

impl Place<'_> {
    /// What puts the rounds of one answer together, if it may come in several.
    fn resume(&self) -> Option<Resume> {
        match &self.plan.way {
            Way::Translate(translation) if translation.pauses => {
                Resume::of(self.plan.protocol, self.plan.outbound.body())
            }
            _ => None,
        }
    }

    /// How it is sent another body, once the plan is forgotten.
    fn again(&self) -> Again {
        let limits = *self.limits;
        let place = Arc::new((Arc::clone(self.core), self.plan.outbound.detached()));
        Again::new(move |frames| {
            let place = Arc::clone(&place);
            Box::pin(async move {
                let (core, outbound) = &*place;
                let build = |wire| outbound.build(&frames, wire);
                let sending = core.client.send(outbound.origin(), limits.connect, &build);
                let sending = std::pin::pin!(sending);
                let sent = core.alarms.limit(limits.attempt, sending).await;
                let late = || format!("no answer within {} s", limits.attempt.as_secs_f32());
                let answer = sent.ok_or_else(late)?.map_err(|error| error.to_string())?;
                if !answer.status().is_success() {
                    return Err(format!("the provider answered {}", answer.status()));
                }
                Ok(answer.into_body())
            })
        })
    }
}

/// The provider's own bytes.
async fn spliced(
    answered: &mut Answered,
    limits: &Limits,
    start: Option<Start>,
) -> Result<(), Box<Failure>> {
    let committed = &mut answered.committed;
    let protocol = committed.protocol;
    answered.first_content = match committed.form {
        Form::Unary => {
            open_document(committed, &answered.head.headers).await?;
            if !limits.last {
                refuse_empty(committed)?;
            }
            None
        }
        // Boxed: documents need no room for what looks into a stream.
        Form::Events => {
            let first = Box::pin(open_events(committed, protocol, start)).await?;
            if !limits.last {
                refuse_empty_stream(committed, protocol)?;
            }
            first
        }
        Form::Array => {
            Box::pin(open_array(committed)).await?;
            Some(clock::now())
        }
    };
    Ok(())
}

/// The number of tokens that a provider of another protocol counted.
async fn counted(
    from: Protocol,
    to: Protocol,
    mut body: UpstreamBody,
    limits: &Limits,
) -> Result<u64, Box<Failure>> {
    let mut read = Vec::new();
    while let Some(chunk) = body.chunk().await {
        read.extend_from_slice(&chunk.map_err(|error| cut(&error))?);
        if read.len() > limits.document {
            break;
        }
    }
    count::number(to, &read)
        .ok_or_else(|| unreadable(&format!("the provider's count can't be told in {from}")))
}

/// An answer of which nothing was read yet.
pub(super) fn commit(protocol: Protocol, form: Form, limits: &Limits) -> Committed {
    Committed {
        protocol,
        form,
        opening: Vec::new(),
        rest: None,
        meter: Meter::new(protocol, form != Form::Unary),
        cut_usage: false,
        translation: Translation::None,
        idle: limits.attempt,
        heartbeat: limits.heartbeat,
        flow: limits.stall.flow.filter(|_| form != Form::Unary),
        again: None,
    }
}

fn form_of(work: &Work, headers: &HeaderMap) -> Form {
    if is_type(headers, "text/event-stream") {
        return Form::Events;
    }
    let by_path = work
        .ask
        .path
        .as_ref()
        .is_some_and(|path| path.action == "streamGenerateContent");
    if by_path && is_type(headers, "application/json") {
        Form::Array
    } else {
        Form::Unary
    }
}

fn is_type(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.get(..wanted.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(wanted))
}

/// The next chunk of an answer; its rest is gone with the last one.
async fn next(committed: &mut Committed) -> Option<hyper::Result<Bytes>> {
    let chunk = committed.rest.as_mut()?.chunk().await;
    if !matches!(chunk, Some(Ok(_))) {
        committed.rest = None;
    }
    chunk
}

/// Reads a document: whole if it is small, else its beginning.
async fn open_document(committed: &mut Committed, headers: &HeaderMap) -> Result<(), Box<Failure>> {
    let mut size = 0;
    while size <= WHOLE
        && let Some(chunk) = next(committed).await
    {
        let chunk = chunk.map_err(|error| cut(&error))?;
        size += chunk.len();
        committed.opening.push(chunk);
    }
    let whole = committed.rest.is_none();
    if speaks_json(committed.protocol) && !headers.contains_key(http::header::CONTENT_ENCODING) {
        check_document(committed, whole)?;
    }
    Ok(())
}

/// Speech and transcription answers may be anything.
fn speaks_json(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::Speech | Protocol::Transcriptions)
}

/// A 200 whose body is not a document of the protocol is no answer.
fn check_document(committed: &Committed, whole: bool) -> Result<(), Box<Failure>> {
    let opening: Cow<'_, [u8]> = match committed.opening.as_slice() {
        [one] => Cow::Borrowed(one),
        many => Cow::Owned(many.concat()),
    };
    if let Some(error) = opening::unary_failure(committed.protocol, &opening) {
        return Err(answer_failure(error));
    }
    if whole && !json::is_document(&opening) {
        return Err(unreadable("the provider's answer is not valid JSON"));
    }
    Ok(())
}

/// Reads a stream of that protocol up to its first content.
async fn open_events(
    committed: &mut Committed,
    spoken: Protocol,
    start: Option<Start>,
) -> Result<Option<Instant>, Box<Failure>> {
    let mut decoder = Decoder::new();
    let mut silent = clock::now() + SILENT_OPENING;
    if let Some(start) = start {
        // Until then another target may still be asked.
        silent = silent.max(start.by);
    }
    let mut size = 0;
    let mut output = 0;
    let mut seen = false;
    loop {
        let pending = start.filter(|start| output < start.bytes);
        if pending.is_some_and(|start| Instant::now() >= start.by) {
            return pending.map_or(Ok(None), |start| Err(start.failure()));
        }
        let wake = pending.map_or(silent, |start| start.by);
        let Ok(chunk) = tokio::time::timeout_at(wake.into(), next(committed)).await else {
            if pending.is_some() {
                continue;
            }
            return Ok(None);
        };
        let chunk = match chunk {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return Err(cut(&error)),
            None => return ended_early(seen),
        };
        size += chunk.len();
        let verdict = look(spoken, &mut decoder, &chunk, &mut output);
        committed.opening.push(chunk);
        match verdict {
            Opening::Failure(error) => return Err(answer_failure(error)),
            Opening::Content | Opening::End => {
                return Ok(Some(clock::now()));
            }
            Opening::Wait => seen = true,
        }
        if size > OPENING {
            return Ok(None);
        }
    }
}

/// An answer with nothing in it, while another target could be asked.
fn refuse_empty(committed: &Committed) -> Result<(), Box<Failure>> {
    let whole = committed.rest.is_none();
    match committed.opening.as_slice() {
        [one] if whole && empty::is_empty_document(committed.protocol, one) => Err(nothing()),
        _ => Ok(()),
    }
}

fn refuse_empty_stream(committed: &Committed, spoken: Protocol) -> Result<(), Box<Failure>> {
    let opening: Cow<'_, [u8]> = match committed.opening.as_slice() {
        [one] => Cow::Borrowed(one),
        many => Cow::Owned(many.concat()),
    };
    if empty::is_empty_stream(spoken, &opening) {
        return Err(nothing());
    }
    Ok(())
}

fn nothing() -> Box<Failure> {
    let message = "the provider answered with nothing";
    Failure::new(
        FailureKind::Empty,
        ErrorClass::UpstreamFailed,
        message.into(),
    )
}

/// The first event in a chunk that settles what the stream is.
fn look(protocol: Protocol, decoder: &mut Decoder, chunk: &[u8], output: &mut usize) -> Opening {
    let mut verdict = Opening::Wait;
    let decoded = decoder.push(chunk, |event| {
        if !opening::is_heartbeat(event.name, event.data) {
            *output += event.data.len();
        }
        if matches!(verdict, Opening::Wait) {
            verdict = opening::classify(protocol, event.name, event.data);
        }
    });
    match decoded {
        Ok(()) => verdict,
        Err(error) => Opening::Failure(UpstreamError {
            class: ErrorClass::UpstreamFailed,
            message: error.to_string(),
            code: None,
            retry_after: None,
        }),
    }
}

fn ended_early(seen: bool) -> Result<Option<Instant>, Box<Failure>> {
    let message = if seen {
        "the provider's stream ended before any content"
    } else {
        "the provider's stream was empty"
    };
    Err(unreadable(message))
}

/// Reads the beginning of a JSON array that is streamed, up to its first
/// element.
async fn open_array(committed: &mut Committed) -> Result<(), Box<Failure>> {
    let mut aligner = ArrayAligner::default();
    let mut start = Vec::new();
    loop {
        match next(committed).await {
            Some(Ok(chunk)) => {
                start.extend_from_slice(&chunk);
                aligner.push(chunk.clone(), drop);
                committed.opening.push(chunk);
            }
            Some(Err(error)) => return Err(cut(&error)),
            None if start.trim_ascii().ends_with(b"]") => break,
            None => return Err(unreadable("the provider's stream ended before any content")),
        }
        if aligner.elements() > 0 || start.len() > OPENING {
            break;
        }
    }
    match opening::unary_failure(committed.protocol, &start) {
        Some(error) => Err(answer_failure(error)),
        None => Ok(()),
    }
}

async fn error_answer(head: Parts, body: UpstreamBody) -> Box<Failure> {
    let reading = read_error(body);
    let (body, whole) = tokio::time::timeout(ERROR_TIME, reading)
        .await
        .unwrap_or_default();
    let error = error::upstream_error(
        head.status,
        &body,
        &head.headers,
        std::time::SystemTime::now(),
    );
    Box::new(Failure {
        kind: FailureKind::Status,
        status: Some(head.status),
        error,
        raw: Some(RawAnswer {
            headers: head.headers,
            body,
            whole,
        }),
    })
}

async fn read_error(mut body: UpstreamBody) -> (Bytes, bool) {
    let mut read = Vec::new();
    while let Some(chunk) = body.chunk().await {
        let Ok(chunk) = chunk else {
            return (read.into(), false);
        };
        read.extend_from_slice(&chunk);
        if read.len() > ERROR_BODY {
            read.truncate(ERROR_BODY);
            return (read.into(), false);
        }
    }
    (read.into(), true)
}

fn cut(error: &hyper::Error) -> Box<Failure> {
    let message = match std::error::Error::source(error) {
        Some(cause) => format!("the provider's answer broke off: {error}: {cause} (ECONNRESET)"),
        None => format!("the provider's answer broke off: {error} (ECONNRESET)"),
    };
    Failure::new(FailureKind::Network, ErrorClass::UpstreamFailed, message)
}

fn unreadable(message: &str) -> Box<Failure> {
    Failure::new(
        FailureKind::Answer,
        ErrorClass::UpstreamFailed,
        message.into(),
    )
}

fn answer_failure(error: UpstreamError) -> Box<Failure> {
    Box::new(Failure {
        kind: FailureKind::Answer,
        status: Some(StatusCode::OK),
        error,
        raw: None,
    })
}
