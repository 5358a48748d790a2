//! Looking at targets without a client's request, so that selectors that
//! measure have something to go by.
//!
//! A probe is a small streamed chat request of the gateway's own, written down
//! under the key `probe`. It runs beside the live request that came by, never
//! before it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::failover::{self, Choice};
use super::{Ask, Refusal, Work, failure, wall_ms};
use crate::app::Core;
use crate::body::Body;
use crate::clock;
use crate::config::{Background, Config, Key, ModelKind, Secret, Selector};
use crate::exchange::{Arrival, Exchange};
use crate::protocol::{Protocol, peek};
use crate::routing::cooldown::Health;
use crate::routing::session::Sessions;
use crate::routing::{Asked, Candidate, Resolution};

/// The longest that a probe may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Tokens that are asked for: enough to tell a speed by.
const TOKENS: u32 = 64;

/// Looks at the targets that a live request came by, where their measurements
/// are too old. Never waits.
pub(super) fn look_around(
    core: &Arc<Core>,
    config: &Arc<Config>,
    resolution: &Resolution,
    background: Background,
    now: i64,
) {
    let switchboard = &core.app.switchboard;
    let route = &resolution.route;
    let chats = route
        .alias
        .as_ref()
        .is_some_and(|alias| alias.kind == ModelKind::Chat);
    let measured = route.groups.iter().filter(|group| measures(group.selector));
    for place in measured
        .flat_map(|group| group.members.clone())
        .filter(|_| chats)
    {
        let candidate = &route.candidates[place];
        if candidate.standing.health(now) != Health::Fit || !is_for_text(candidate) {
            continue;
        }
        let Some(looking) = switchboard.probe(&candidate.standing, background, now) else {
            continue;
        };
        let (core, config) = (Arc::clone(core), Arc::clone(config));
        let name = format!("direct/{}/{}", candidate.provider.id, candidate.model);
        let model = Arc::clone(&candidate.model);
        // Ends by its own time limit, or with the runtime.
        tokio::spawn(async move {
            let probing = Box::pin(probe(&core, config, name.into(), &model));
            if tokio::time::timeout(LIMIT, probing).await.is_err() {
                tracing::debug!(%model, "a probe took too long");
            }
            drop(looking);
        });
    }
}

const fn measures(selector: Selector) -> bool {
    matches!(
        selector,
        Selector::Latency | Selector::Performance | Selector::E2ePerformance
    )
}

/// Asks one target, reads its answer to the end, and writes the row.
async fn probe(core: &Arc<Core>, config: Arc<Config>, name: Arc<str>, model: &str) {
    let body = json!({
        "model": model,
        "messages": [{ "role": "user", "content": "Count from one to twenty in words." }],
        "max_tokens": TOKENS,
        "stream": true,
    });
    let question = Question {
        ask: Ask {
            protocol: Protocol::Chat,
            path: None,
        },
        body,
        streamed: true,
    };
    let answer = put_to(core, config, name, question, "background").await;
    let mut body = answer.into_body();
    while let Some(Ok(_)) = body.frame().await {}
}

/// A request of the gateway's own.
pub(super) struct Question {
    pub(super) ask: Ask,
    pub(super) body: Value,
    pub(super) streamed: bool,
}

/// Puts a question to the target of that `direct/...` name, and writes its row.
/// The answer is a client's: in the question's protocol, errors too.
pub(super) async fn put_to(
    core: &Arc<Core>,
    config: Arc<Config>,
    name: Arc<str>,
    question: Question,
    attribution: &str,
) -> Response<Body> {
    let wall_ms = wall_ms();
    let arrival = Arrival {
        id: core.request_id(wall_ms),
        protocol: question.ask.protocol,
        address: None,
        client_id: None,
        wall_ms,
        now: clock::now(),
    };
    let key = Arc::new(Key::unlimited("probe", Secret::new("")));
    let mut exchange = Exchange::new(Arc::clone(&core.books), config, arrival);
    exchange.authenticated(&key, Some(attribution.into()));
    exchange.asked(Arc::clone(&name), question.streamed);
    match answer(core, &mut exchange, &key, name, question).await {
        Ok((answered, route)) => super::relay(exchange, answered, route),
        Err(refusal) => failure::settle(&mut exchange, &refusal),
    }
}

async fn answer(
    core: &Arc<Core>,
    exchange: &mut Exchange,
    key: &Key,
    name: Arc<str>,
    question: Question,
) -> Result<(Box<super::Answered>, String), Refusal> {
    let switchboard = &core.app.switchboard;
    let asked = Asked {
        model: &name,
        protocol: question.ask.protocol,
        now: switchboard.now(clock::now()),
        explores: false,
        native_first: false,
    };
    let resolution = switchboard.resolve(&exchange.config, key, asked, &mut core.dice())?;
    exchange.resolved(Arc::clone(&resolution.route.canonical));
    let work = work(&name, question)?;
    let choice = Choice {
        resolution,
        sessions: Sessions::default(),
        internal: true,
    };
    failover::attempt_each(core, exchange, &work, &choice).await
}

fn is_for_text(candidate: &Candidate) -> bool {
    let listed = candidate.listed.as_ref();
    listed.is_none_or(|listed| listed.kind == ModelKind::Chat)
}

fn work(name: &Arc<str>, question: Question) -> Result<Work, Refusal> {
    let frames = vec![Bytes::from(question.body.to_string())];
    Ok(Work {
        peeked: Some(peek::peek(&frames)?),
        ask: question.ask,
        headers: HeaderMap::new(),
        query: None,
        frames,
        marked: None,
        model: Arc::clone(name),
        streamed: question.streamed,
        chain: None,
    })
}
