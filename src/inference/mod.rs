//! The life of a request, readable top to bottom in [`serve`].

mod attempt;
mod count;
mod failover;
mod failure;
mod foreign;
pub mod kept;
mod limits;
pub mod metadata;
pub mod models;
mod plan;
mod probe;
mod quirks;
mod quota;
pub mod replay;
mod state;
mod translation;
pub(crate) mod trial;
mod vision;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use uuid::Uuid;

use crate::app::Core;
use crate::auth;
use crate::body::{self, Body, ReadError};
use crate::capture::Question;
use crate::clock;
pub(crate) use crate::clock::wall_ms;
use crate::config::ModelKind;
use crate::exchange::{Arrival, Exchange};
use crate::protocol::Protocol;
use crate::protocol::error::ErrorClass;
use crate::protocol::peek::{self, Peeked};
use crate::protocol::sieve::Sieve;
use crate::relay::{Form, RelayBody};
use crate::routing::session::Sessions;
use crate::routing::{Asked, Resolution};
use crate::upstream::COUNT;
use attempt::Answered;
use failover::Choice;
pub use failure::{Refusal, answer as refuse};
pub(crate) use quota::{number, prompt as likely, refusal as quota_refusal};

// Looking a field up by its name as text would read the name each time.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_PLEXUS_REQUEST_ID: HeaderName = HeaderName::from_static("x-plexus-request-id");
const X_CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-client-request-id");
const X_PLEXUS_ROUTE: HeaderName = HeaderName::from_static("x-plexus-route");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What an inference endpoint was asked, before its body is read.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What the client speaks.
    pub protocol: Protocol,
    /// Gemini names model and action in its path; images its action.
    pub path: Option<PathAsk>,
}

/// What a path says of a request.
#[derive(Debug, Clone)]
pub struct PathAsk {
    /// The model, when the path names it.
    pub model: Option<String>,
    /// `generateContent`, `streamGenerateContent`, `generations`, `edits`.
    pub action: String,
}

/// One request while its answer is not committed yet.
pub(crate) struct Work {
    ask: Ask,
    headers: HeaderMap,
    query: Option<String>,
    frames: Vec<Bytes>,
    peeked: Option<Peeked>,
    /// Whether the body may hold an envelope, where that was looked for already.
    marked: Option<bool>,
    model: Arc<str>,
    streamed: bool,
    /// The conversation that this request goes on from.
    chain: Option<state::Chain>,
}

impl Work {
    /// Whether only the request's tokens are to be counted.
    fn is_count(&self) -> bool {
        self.is_action(COUNT)
    }

    fn is_action(&self, action: &str) -> bool {
        let path = self.ask.path.as_ref();
        path.is_some_and(|path| path.action == action)
    }
}

/// Answers an inference request.
pub async fn serve(
    core: Arc<Core>,
    address: Option<IpAddr>,
    ask: Ask,
    request: Request<Incoming>,
) -> Response<Body> {
    let (now, wall_ms) = (clock::now(), wall_ms());
    let id = core.request_id(wall_ms);
    let protocol = ask.protocol;
    let (head, body) = request.into_parts();
    let client_id = client_request_id(&head.headers);
    let arrival = Arrival {
        id,
        protocol,
        address,
        client_id: client_id
            .as_ref()
            .and_then(|id| id.to_str().ok())
            .map(Box::from),
        wall_ms,
        now,
    };
    let mut exchange = match open(&core, &head, arrival) {
        Ok(exchange) => exchange,
        Err(refusal) => {
            core.app.metrics.unauthorized();
            return finish(
                failure::answer(protocol, &refusal, &id, &[]),
                &id,
                client_id,
            );
        }
    };
    let response = match answer(&core, &mut exchange, ask, head, body).await {
        Ok((answered, route)) => relay(exchange, answered, route),
        Err(refusal) => failure::settle(&mut exchange, &refusal),
    };
    finish(response, &id, client_id)
}

/// authenticate
fn open(
    core: &Core,
    head: &http::request::Parts,
    mut arrival: Arrival,
) -> Result<Exchange, Refusal> {
    let config = core.app.live.load();
    arrival.address = auth::client_address(
        &config.server.trusted_proxies,
        arrival.address,
        &head.headers,
    );
    let caller = auth::caller(
        &config,
        &head.headers,
        head.uri.query(),
        arrival.address,
        arrival.wall_ms,
    )?;
    let mut exchange = Exchange::new(Arc::clone(&core.books), config, arrival);
    exchange.authenticated(&caller.key, caller.attribution);
    Ok(exchange)
}

/// read, peek, and what follows
async fn answer(
    core: &Arc<Core>,
    exchange: &mut Exchange,
    ask: Ask,
    head: http::request::Parts,
    body: Incoming,
) -> Result<(Box<Answered>, String), Refusal> {
    let limits = exchange.config.server.limits;
    let mut sieve = Sieve::is_wanted(body.size_hint().upper()).then(Sieve::default);
    let see = |frame: &[u8]| {
        if let Some(sieve) = &mut sieve {
            sieve.push(frame);
        }
    };
    let frames = body::read_limited(body, limits.body, limits.body_idle, see).await?;
    if let Some(capture) = exchange.capture() {
        capture.asked(&question(&ask, &head, &frames));
    }
    let mut work = peek(ask, head, frames, sieve.as_ref())?;
    answer_work(core, exchange, &mut work).await
}

/// What a capture holds of the client's request.
fn question<'a>(ask: &'a Ask, head: &'a http::request::Parts, frames: &'a [Bytes]) -> Question<'a> {
    let path = ask.path.as_ref();
    Question {
        protocol: ask.protocol,
        model: path.and_then(|path| path.model.as_deref()),
        action: path.map(|path| path.action.as_str()),
        query: head.uri.query(),
        headers: &head.headers,
        frames,
    }
}

/// admit, resolve, attempt
async fn answer_work(
    core: &Arc<Core>,
    exchange: &mut Exchange,
    work: &mut Work,
) -> Result<(Box<Answered>, String), Refusal> {
    exchange.asked(Arc::clone(&work.model), work.streamed);
    failover::admit(core, exchange).await?;
    work.chain = state::chain(core, exchange, work).await?;
    let choice = resolve(core, exchange, work)?;
    exchange.resolved(Arc::clone(&choice.resolution.route.canonical));
    quota::admit(core, exchange, work, &choice.resolution)?;
    failover::attempt_each(core, exchange, work, &choice).await
}

/// Finds what steers the request, without parsing the rest.
fn peek(
    ask: Ask,
    head: http::request::Parts,
    frames: Vec<Bytes>,
    sieve: Option<&Sieve>,
) -> Result<Work, Refusal> {
    let query = head.uri.query().map(str::to_owned);
    let peeked = match ask.protocol {
        Protocol::Transcriptions => None,
        Protocol::Images if ask.path.as_ref().is_some_and(|path| path.action == "edits") => None,
        _ => {
            // Only a chat stream has to be asked for its usage.
            let streaming = ask.protocol == Protocol::Chat;
            Some(peek::peek_sieved(&frames, sieve, streaming)?)
        }
    };
    let named = ask.path.as_ref().and_then(|path| path.model.clone());
    let model = match (named, &peeked) {
        (Some(model), _) => model,
        (None, Some(peeked)) => peeked
            .model()
            .ok_or_else(|| Refusal::missing("model"))?
            .to_owned(),
        (None, None) => plan::form_model(&head.headers, &frames)?,
    };
    if model.is_empty() {
        return Err(Refusal::missing("model"));
    }
    let by_path = ask
        .path
        .as_ref()
        .is_some_and(|path| path.action.starts_with("stream"));
    let streamed = by_path
        || peeked
            .as_ref()
            .is_some_and(|peeked| peeked.stream == Some(true));
    Ok(Work {
        ask,
        headers: head.headers,
        query,
        frames,
        peeked,
        marked: sieve.map(Sieve::is_marked),
        model: model.into(),
        streamed,
        chain: None,
    })
}

/// alias -> candidates, ordered
fn resolve(core: &Arc<Core>, exchange: &mut Exchange, work: &Work) -> Result<Choice, Refusal> {
    let lite = state::is_lite(work);
    if lite {
        exchange.spoke_lite();
    }
    let switchboard = &core.app.switchboard;
    let config = &exchange.config;
    let key = exchange.key().ok_or_else(Refusal::internal)?;
    let asked = Asked {
        model: &work.model,
        protocol: work.ask.protocol,
        now: switchboard.now(clock::now()),
        explores: true,
        native_first: lite,
    };
    let mut resolution = switchboard.resolve(config, key, asked, &mut core.dice())?;
    let route = &resolution.route;
    let mut sessions = Sessions::default();
    if let Some(alias) = &route.alias {
        check_kind(alias.kind, work.ask.protocol, &work.model)?;
        if alias.sticky && route.candidates.len() > 1 && converses(work.ask.protocol) {
            sessions = Sessions::of(&alias.id, work.ask.protocol, &work.headers, &work.frames);
            switchboard.stick(&mut resolution, sessions);
            if work.chain.is_none() {
                stay(core, &mut resolution, sessions)?;
            }
        }
    }
    if let Some(background) = config.exploration.background {
        probe::look_around(core, config, &resolution, background, asked.now);
    }
    Ok(Choice {
        resolution,
        sessions,
        internal: false,
    })
}

/// A request that goes on from an answer that only its provider has goes nowhere
/// else.
fn stay(core: &Core, resolution: &mut Resolution, sessions: Sessions) -> Result<(), Refusal> {
    let sticky = &core.app.switchboard.sticky;
    let home = sessions.answer.and_then(|answer| sticky.find(answer));
    match home.and_then(|number| resolution.stay_with(number)) {
        None => Ok(()),
        Some(provider) => Err(failover::lost_with(&provider, resolution)),
    }
}

/// Whether requests of that protocol are turns of conversations.
const fn converses(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::Chat | Protocol::Responses | Protocol::Messages | Protocol::Gemini
    )
}

/// A call to an endpoint that the alias's type does not serve is the client's
/// mistake, and better told than tried.
fn check_kind(kind: ModelKind, protocol: Protocol, model: &str) -> Result<(), Refusal> {
    let serves = match kind {
        ModelKind::Chat => !matches!(
            protocol,
            Protocol::Embeddings | Protocol::Transcriptions | Protocol::Speech | Protocol::Images
        ),
        ModelKind::Embeddings => protocol == Protocol::Embeddings,
        ModelKind::Transcriptions => protocol == Protocol::Transcriptions,
        ModelKind::Speech => protocol == Protocol::Speech,
        // Models that both write and draw are listed as image models.
        ModelKind::Image => !matches!(
            protocol,
            Protocol::Embeddings | Protocol::Transcriptions | Protocol::Speech
        ),
    };
    if serves {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorClass::InvalidRequest,
        format!("Model '{model}' is of type {kind:?} and does not serve the {protocol} endpoint"),
    )
    .param("model"))
}

/// relay: headers now, chunks as they come
fn relay(mut exchange: Exchange, answered: Box<Answered>, route: String) -> Response<Body> {
    exchange.answering(
        answered.head.status.as_u16(),
        answered.committed.form != Form::Unary,
    );
    if let Some(at) = answered.first_content {
        exchange.first_content(at);
    }
    let mut response = Response::from_parts(answered.head, Body::Empty);
    crate::upstream::relay_headers(response.headers_mut());
    if let Ok(route) = HeaderValue::try_from(route) {
        response.headers_mut().insert(X_PLEXUS_ROUTE, route);
    }
    if let Some(told) = exchange.quota() {
        quota::tell(response.headers_mut(), &told);
    }
    let notes = answered.notes.header().map(HeaderValue::try_from);
    if let Some(Ok(notes)) = notes {
        response.headers_mut().insert("x-plexus-notes", notes);
    }
    if answered.committed.form == Form::Events {
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    if let Some(capture) = exchange.capture() {
        capture.answers(response.status().as_u16(), response.headers());
    }
    *response.body_mut() = Body::Relay(Box::new(RelayBody::new(answered.committed, exchange)));
    response
}

/// What every answer carries.
fn finish(
    mut response: Response<Body>,
    id: &Uuid,
    client_id: Option<HeaderValue>,
) -> Response<Body> {
    let mut text = Uuid::encode_buffer();
    let id = id.hyphenated().encode_lower(&mut text);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id.clone());
        headers.insert(X_PLEXUS_REQUEST_ID, id.clone());
        headers.insert(X_REQUEST_ID, id);
    }
    if let Some(client_id) = client_id {
        headers.insert(X_CLIENT_REQUEST_ID, client_id);
    }
    response
}

/// `x-client-request-id` as it is echoed: trimmed, 1 to 255 characters.
fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = headers.get(X_CLIENT_REQUEST_ID)?.to_str().ok()?.trim();
    (1..=255)
        .contains(&text.len())
        .then(|| HeaderValue::from_str(text).ok())
        .flatten()
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let class = match error {
            ReadError::TooLarge { .. } => ErrorClass::TooLarge,
            ReadError::Idle(_) | ReadError::Broken(_) => ErrorClass::InvalidRequest,
        };
        let refusal = Self::new(class, error.to_string());
        match error {
            ReadError::Broken(_) => refusal.cancelled(),
            ReadError::Idle(_) => refusal.status(StatusCode::REQUEST_TIMEOUT),
            ReadError::TooLarge { .. } => refusal,
        }
    }
}
