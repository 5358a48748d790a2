//! An answer in another protocol than the client's, up to its commit point.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response};
use memchr::memmem;

use super::{
    Answered, Place, Start, Work, answer_failure, commit, cut, is_type, nothing, open_events,
    refuse_empty_stream, unreadable,
};
use crate::inference::translation::Translation as Planned;
use crate::protocol::Protocol;
use crate::protocol::empty;
use crate::protocol::notes::Notes;
use crate::protocol::opening;
use crate::protocol::translator::{self, Collecting, Translated, Translator};
use crate::relay::{Committed, Form, Translation};
use crate::upstream::{Failure, UpstreamBody};

/// How long the end of a stream is waited for when all of it has been said.
const END: Duration = Duration::from_millis(50);

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Reads an answer as far as it has to be read.
pub(super) async fn answer(
    work: &Work,
    planned: &Planned,
    (head, body): (Parts, UpstreamBody),
    place: &Place<'_>,
    start: Option<Start>,
) -> Result<Answered, Box<Failure>> {
    let events = is_type(&head.headers, "text/event-stream");
    if events && work.streamed {
        return stream(planned, &head, body, place, start).await;
    }
    let (translated, notes) = if events {
        collected(planned, body, place).await?
    } else {
        document(work, planned, body, place).await?
    };
    let form = form(work.streamed, planned);
    let mut committed = commit(planned.reply.protocol, form, place.limits);
    committed.opening.push(translated.body);
    committed.translation = Translation::Done(Box::new(translated.reading));
    let mut answered = answered(planned, &head, committed, None);
    if let Some(notes) = notes {
        answered.notes.extend(&notes);
    }
    Ok(answered)
}

/// A stream for a client that wants one.
async fn stream(
    planned: &Planned,
    head: &Parts,
    body: UpstreamBody,
    place: &Place<'_>,
    start: Option<Start>,
) -> Result<Answered, Box<Failure>> {
    let limits = place.limits;
    let mut committed = commit(planned.reply.protocol, form(true, planned), limits);
    committed.rest = Some(body);
    let first_content = open_events(&mut committed, planned.reply.upstream, start).await?;
    if !limits.last {
        refuse_empty_stream(&committed, planned.reply.upstream)?;
    }
    let translator = Translator::new(planned.fixups.clone(), planned.reply.clone());
    let resume = place.resume();
    committed.again = resume.as_ref().map(|_| place.again());
    let translator = translator.resumed(resume);
    committed.translation = Translation::Stream(Box::new(translator));
    Ok(answered(planned, head, committed, first_content))
}

/// What puts a stream together for a client that wants a document.
fn collecting(planned: &Planned, place: &Place<'_>) -> Collecting {
    let upstream = planned.reply.upstream;
    let collecting = Collecting::new(upstream, planned.fixups.clone(), place.limits.document);
    collecting.resumed(place.resume())
}

/// A document, and what is to be noted of how it came about.
type Collected = (Translated, Option<Notes>);

/// A stream, with all rounds that it takes, for a client that wants a document.
async fn collected(
    planned: &Planned,
    mut body: UpstreamBody,
    place: &Place<'_>,
) -> Result<Collected, Box<Failure>> {
    let mut collecting = collecting(planned, place);
    loop {
        while !collecting.is_over() {
            match body.chunk().await {
                Some(Ok(chunk)) => collecting.push(&chunk),
                Some(Err(error)) => return Err(cut(&error)),
                None => break,
            }
        }
        if collecting.is_said() {
            read_out(body).await;
        }
        let Some(request) = collecting.next_round() else {
            break;
        };
        let next = place.again().ask(request).await;
        body = next.map_err(|message| unreadable(&message))?;
    }
    let notes = collecting.notes();
    let document = collecting.into_document(planned.reply.clone());
    Ok((document.map_err(answer_failure)?, notes))
}

/// Reads what is behind a stream's last event, which should be its end: a connection
/// is only kept when what came over it was read to its end.
async fn read_out(mut body: UpstreamBody) {
    let rest = async { while let Some(Ok(_)) = body.chunk().await {} };
    // A provider that doesn't end what it has said costs a connection, not a wait.
    drop(tokio::time::timeout(END, rest).await);
}

/// A document, read whole.
async fn document(
    work: &Work,
    planned: &Planned,
    mut body: UpstreamBody,
    place: &Place<'_>,
) -> Result<Collected, Box<Failure>> {
    let (mut read, mut size) = (Vec::new(), 0);
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(|error| cut(&error))?;
        size += chunk.len();
        if size > place.limits.document {
            return Err(unreadable(
                "the provider's answer is too large to translate",
            ));
        }
        read.push(chunk);
    }
    // Most come in one piece, which need not be copied.
    let read = match read.as_slice() {
        [one] => one.clone(),
        many => Bytes::from(many.concat()),
    };
    if let Some(error) = opening::unary_failure(planned.reply.upstream, &read) {
        return Err(answer_failure(error));
    }
    if !place.limits.last && empty::is_empty_document(planned.reply.upstream, &read) {
        return Err(nothing());
    }
    if !work.streamed && is_half(planned.reply.upstream, &read) {
        return halves(planned, read.to_vec(), place).await;
    }
    let (fixups, reply) = (planned.fixups.clone(), planned.reply.clone());
    let document = translator::document(&read, fixups, reply, work.streamed);
    Ok((document.map_err(answer_failure)?, None))
}

/// Whether Gemini would go on with that document if it were asked.
fn is_half(upstream: Protocol, document: &[u8]) -> bool {
    let named = |word: &[u8]| memmem::find(document, word).is_some();
    upstream == Protocol::Gemini && named(b"\"CONTINUATION\"") && named(b"\"continuationToken\"")
}

/// A document that comes in several, each of which could be a stream's event.
async fn halves(
    planned: &Planned,
    first: Vec<u8>,
    place: &Place<'_>,
) -> Result<Collected, Box<Failure>> {
    let mut collecting = collecting(planned, place);
    let mut half = first;
    loop {
        collecting.document(&half);
        let Some(request) = collecting.next_round() else {
            break;
        };
        let next = place.again().ask(request).await;
        let mut body = next.map_err(|message| unreadable(&message))?;
        half.clear();
        while let Some(chunk) = body.chunk().await {
            half.extend_from_slice(&chunk.map_err(|error| cut(&error))?);
            if half.len() > place.limits.document {
                return Err(unreadable(
                    "the provider's answer is too large to translate",
                ));
            }
        }
    }
    let notes = collecting.notes();
    let document = collecting.into_document(planned.reply.clone());
    Ok((document.map_err(answer_failure)?, notes))
}

fn form(streamed: bool, planned: &Planned) -> Form {
    match (streamed, planned.reply.array) {
        (false, _) => Form::Unary,
        (true, false) => Form::Events,
        (true, true) => Form::Array,
    }
}

fn answered(
    planned: &Planned,
    head: &Parts,
    committed: Committed,
    first_content: Option<Instant>,
) -> Answered {
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.headers = headers(&head.headers, committed.form);
    Answered {
        head: parts,
        committed,
        first_content,
        notes: planned.notes.clone(),
    }
}

/// What the client gets of the answer's head: the provider's own limits and
/// lengths mean nothing in another protocol.
fn headers(upstream: &HeaderMap, form: Form) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    let content_type = match form {
        Form::Events => "text/event-stream; charset=utf-8",
        Form::Unary | Form::Array => "application/json",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let id = upstream
        .get(&REQUEST_ID)
        .or_else(|| upstream.get(&X_REQUEST_ID));
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id.clone());
    }
    headers
}
