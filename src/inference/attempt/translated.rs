//! An answer in another protocol than the client's, up to its commit point.

use std::time::Instant;

use http::header::{CONTENT_TYPE, HeaderName};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response};

use super::{
    Answered, Limits, Start, Work, answer_failure, commit, cut, is_type, nothing, open_events,
    refuse_empty_stream, unreadable,
};
use crate::inference::translation::Translation as Planned;
use crate::protocol::empty;
use crate::protocol::opening;
use crate::protocol::translator::{self, Collecting, Translated, Translator};
use crate::relay::{Committed, Form, Translation};
use crate::upstream::{Failure, UpstreamBody};

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Reads an answer as far as it has to be read.
pub(super) async fn answer(
    work: &Work,
    planned: &Planned,
    head: Parts,
    body: UpstreamBody,
    limits: Limits,
    start: Option<Start>,
) -> Result<Answered, Box<Failure>> {
    let events = is_type(&head.headers, "text/event-stream");
    if events && work.streamed {
        return stream(planned, &head, body, limits, start).await;
    }
    let translated = if events {
        collected(planned, body, limits).await?
    } else {
        document(work, planned, body, limits).await?
    };
    let form = form(work.streamed, planned);
    let mut committed = commit(planned.reply.protocol, form, limits);
    committed.opening.push(translated.body);
    committed.translation = Translation::Done(translated.reading);
    Ok(answered(planned, &head, committed, None))
}

/// A stream for a client that wants one.
async fn stream(
    planned: &Planned,
    head: &Parts,
    body: UpstreamBody,
    limits: Limits,
    start: Option<Start>,
) -> Result<Answered, Box<Failure>> {
    let mut committed = commit(planned.reply.protocol, form(true, planned), limits);
    let first_content = open_events(&mut committed, planned.reply.upstream, body, start).await?;
    if !limits.last {
        refuse_empty_stream(&committed, planned.reply.upstream)?;
    }
    let translator = Translator::new(planned.fixups.clone(), planned.reply.clone());
    committed.translation = Translation::Stream(Box::new(translator));
    Ok(answered(planned, head, committed, first_content))
}

/// A stream for a client that wants a document.
async fn collected(
    planned: &Planned,
    mut body: UpstreamBody,
    limits: Limits,
) -> Result<Translated, Box<Failure>> {
    let upstream = planned.reply.upstream;
    let mut collecting = Collecting::new(upstream, planned.fixups.clone(), limits.document);
    while !collecting.is_over() {
        match body.chunk().await {
            Some(Ok(chunk)) => collecting.push(&chunk),
            Some(Err(error)) => return Err(cut(&error)),
            None => break,
        }
    }
    let document = collecting.into_document(planned.reply.clone());
    document.map_err(answer_failure)
}

/// A document, read whole.
async fn document(
    work: &Work,
    planned: &Planned,
    mut body: UpstreamBody,
    limits: Limits,
) -> Result<Translated, Box<Failure>> {
    let mut read = Vec::new();
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(|error| cut(&error))?;
        if read.len() + chunk.len() > limits.document {
            return Err(unreadable(
                "the provider's answer is too large to translate",
            ));
        }
        read.extend_from_slice(&chunk);
    }
    if let Some(error) = opening::unary_failure(planned.reply.upstream, &read) {
        return Err(answer_failure(error));
    }
    if !limits.last && empty::is_empty_document(planned.reply.upstream, &read) {
        return Err(nothing());
    }
    let (fixups, reply) = (planned.fixups.clone(), planned.reply.clone());
    translator::document(&read, fixups, reply, work.streamed).map_err(answer_failure)
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
