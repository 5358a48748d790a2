//! A captured request, run again: the same body through the same steps, to the
//! same target or to another.
//!
//! It must not know how captures are kept or how the outcome is shown.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::BodyExt as _;
use uuid::Uuid;

use super::{Ask, answer_work, failure, peek, question, relay, wall_ms};
use crate::app::Core;
use crate::body::Body;
use crate::clock;
use crate::config::{Config, Key};
use crate::exchange::{Arrival, Exchange};

/// Bytes of an answer that are held for being compared.
const LARGEST: usize = 16 << 20;

/// What is run again.
#[derive(Debug)]
pub struct Again {
    /// As whom.
    pub key: Arc<Key>,
    /// The endpoint.
    pub ask: Ask,
    /// The query, without a credential.
    pub query: Option<String>,
    /// The header fields; credentials don't matter.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// `provider/model`, if it is to be another target.
    pub target: Option<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The id of the row and of the capture that it left.
    pub id: Uuid,
    /// The status that a client would have got.
    pub status: StatusCode,
    /// The body that it would have got, up to a limit.
    pub body: Bytes,
    /// Why the body is not whole.
    pub broken: Option<String>,
}

/// Runs it to its end. Dropping the future stops it, as a client that leaves.
pub async fn replay(core: &Arc<Core>, config: Arc<Config>, again: Again) -> Outcome {
    let wall_ms = wall_ms();
    let id = core.request_id(wall_ms);
    let arrival = Arrival {
        id,
        protocol: again.ask.protocol,
        address: None,
        client_id: None,
        wall_ms,
        now: clock::now(),
    };
    let mut exchange = Exchange::new(Arc::clone(&core.books), config, arrival);
    exchange.authenticated(&again.key, Some("replay".into()));
    exchange.capture_for_certain();
    let head = head(again.query.as_deref(), again.headers);
    let frames = vec![again.body];
    if let Some(capture) = exchange.capture() {
        capture.asked(&question(&again.ask, &head, &frames));
    }
    let answered = match peek(again.ask, head, frames, None) {
        Ok(mut work) => {
            if let Some(target) = again.target {
                work.model = format!("direct/{target}").into();
            }
            Box::pin(answer_work(core, &mut exchange, &mut work)).await
        }
        Err(refusal) => Err(refusal),
    };
    let response = match answered {
        Ok((answered, route)) => relay(exchange, answered, route),
        Err(refusal) => failure::settle(&mut exchange, &refusal),
    };
    let status = response.status();
    let (body, broken) = read(response.into_body()).await;
    Outcome {
        id,
        status,
        body,
        broken,
    }
}

fn head(query: Option<&str>, headers: HeaderMap) -> http::request::Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    let uri = query.and_then(|query| Uri::try_from(format!("/?{query}")).ok());
    head.uri = uri.unwrap_or_default();
    head.headers = headers;
    head
}

/// Reads an answer to its end, and holds the beginning of it.
async fn read(mut body: Body) -> (Bytes, Option<String>) {
    let mut held = Vec::new();
    loop {
        match body.frame().await {
            None => return (held.into(), None),
            Some(Err(error)) => return (held.into(), Some(error.to_string())),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    let fits = data.len().min(LARGEST - held.len());
                    held.extend_from_slice(&data[..fits]);
                }
            }
        }
    }
}
