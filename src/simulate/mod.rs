//! A provider that is not one: it speaks OpenAI Chat Completions, Completions,
//! Responses, Embeddings, audio and images, Anthropic Messages, and Gemini, as
//! the real services do, and misbehaves when asked to.
//!
//! It is what demonstrations, tests and benchmarks talk to. It speaks the
//! protocols from outside, so it uses nothing of the gateway: an error shared
//! by both would go unnoticed.
//!
//! How to ask for an answer is said in the header `x-simulate: gap=20;tools=2`
//! or in the model name, `anything+gap=20+tools=2`; the words are those of
//! [`OPTIONS`], which [`help`] prints. Beside the vendors' endpoints there are
//! four of its own, without credentials:
//!
//! | endpoint | |
//! |---|---|
//! | `GET /_simulate/requests` | what it received, oldest first |
//! | `DELETE /_simulate/requests` | forget them, and count `times` anew |
//! | `GET /_simulate/stats` | counters and the ledger of tokens served |
//! | `GET /_simulate/help` | the table of options |

mod answer;
mod ask;
mod behaviour;
mod body;
mod chat;
mod connection;
mod desk;
mod failure;
mod gemini;
mod media;
mod messages;
mod models;
mod plan;
mod record;
mod refusal;
mod responses;
mod route;
mod script;
mod strict;

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use behaviour::{
    BadOption, Behaviour, Content, Cut, CutAt, Ending, Entry, ErrorPoint, Fault, Finish, Grain,
    OPTIONS, Pace, Silence, help,
};
pub use record::{Extent, Outcome, Recorded, Served, Stats};

use body::{Reply, ReplyBody};
use connection::Link;
use desk::Desk;
use plan::{Plan, Received};
use record::{Exchange, Journal};
use route::Vendor;
use script::Stamp;

/// How the simulated provider is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Keep what is received; benchmarks go without.
    pub record: bool,
    /// Speak TLS; the protocols offered by ALPN are the caller's choice.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The models that are listed; any other name is answered as well.
    pub models: Vec<String>,
    /// Bytes of the largest request body.
    pub body_limit: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            record: true,
            tls: None,
            models: ["simulated", "simulated+reasoning", "simulated+tools=2"]
                .map(str::to_owned)
                .to_vec(),
            body_limit: 256 * 1024 * 1024,
        }
    }
}

/// The simulated provider. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Simulator {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    options: Options,
    journal: Arc<Journal>,
    desk: Desk,
    seed: u64,
    /// The reset time of rate limits, and the second for which it holds.
    reset: Mutex<(u64, HeaderValue)>,
}

impl Simulator {
    /// A provider that has served nobody yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            state: Arc::new(State {
                options,
                journal: Arc::default(),
                desk: Desk::default(),
                seed: RandomState::new().hash_one(0),
                reset: Mutex::new((0, HeaderValue::from_static("1970-01-01T00:00:00Z"))),
            }),
        }
    }

    /// Serves until `stop` is ready; then the listener and all connections are
    /// closed, whatever they are doing.
    ///
    /// # Errors
    /// None at present: failures to accept are waited out, as they pass.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut stop = std::pin::pin!(stop);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.as_mut() => return Ok(()),
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(connection(self.state.clone(), stream))),
                    // Out of descriptors, or the client has gone already.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
            }
        }
    }

    /// The requests still kept, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.journal.recorded()
    }

    /// Forgets the requests, and counts the option `times` anew.
    pub fn clear(&self) {
        self.state.journal.clear();
    }

    /// The counters and the ledger.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.state.journal.stats()
    }
}

/// A connection that counts as open.
struct Counted(Arc<Journal>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Relaxed);
    }
}

async fn connection(state: Arc<State>, stream: TcpStream) {
    let number = state.journal.connections_accepted.fetch_add(1, Relaxed) + 1;
    state.journal.connections_open.fetch_add(1, Relaxed);
    let _counted = Counted(state.journal.clone());
    stream.set_nodelay(true).ok();
    let link = Arc::new(Link::new(number));
    let tls = state.options.tls.clone();
    let service = {
        let link = link.clone();
        service_fn(move |request| handle(state.clone(), link.clone(), request))
    };
    connection::serve(stream, tls, link, service).await;
}

async fn handle(
    state: Arc<State>,
    link: Arc<Link>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    if let Some(page) = desk::own_page(&request, &state.journal) {
        return Ok(page.map(|body| Either::Right(Full::new(body))));
    }
    let record = state.options.record;
    let exchange = Exchange::begin(state.journal.clone(), link, &request, record);
    let (parts, body) = request.into_parts();
    let body = match collect(body, state.options.body_limit).await {
        Ok(body) => body,
        Err(status) => {
            let mut response = Response::new(Either::Right(Full::default()));
            *response.status_mut() = status;
            return Ok(response);
        }
    };
    exchange.received(&body);
    let received = Received {
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
        body: &body,
    };
    let plan = state
        .desk
        .plan(received, &state.journal, &state.options.models)
        .await;
    Ok(answer(&state, plan, exchange).await)
}

/// Waits as long as was asked for, and answers.
async fn answer(state: &State, plan: Arc<Plan>, exchange: Exchange) -> Response<ReplyBody> {
    if !plan.pace.delay.is_zero() {
        tokio::time::sleep(plan.pace.delay).await;
    }
    if let Some(cut) = plan.cut
        && cut.bytes == 0
    {
        exchange.link().cut(cut.cut);
        std::future::pending::<()>().await;
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let stamp = Stamp::new(exchange.number, state.seed, now);
    let mut headers = plan.headers.clone();
    let mut id = *b"req_000000000000000000000000";
    id[4..].copy_from_slice(stamp.identifier());
    if let Ok(id) = HeaderValue::from_bytes(&id) {
        let name = match plan.vendor {
            Vendor::Anthropic => "request-id",
            Vendor::OpenAi | Vendor::Google => "x-request-id",
        };
        headers.insert(name, id);
    }
    if plan.vendor == Vendor::Anthropic {
        let reset = state.reset_at(now);
        for name in RESETS {
            headers.insert(name, reset.clone());
        }
    }
    let status = plan.status;
    let mut response = Response::new(Either::Left(Reply::new(plan, stamp, exchange)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Headers of Anthropic that tell a time.
const RESETS: [&str; 4] = [
    "anthropic-ratelimit-requests-reset",
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-input-tokens-reset",
    "anthropic-ratelimit-output-tokens-reset",
];

impl State {
    /// The time of a second, written once a second.
    fn reset_at(&self, second: u64) -> HeaderValue {
        let mut reset = self.reset.lock();
        if reset.0 != second {
            let time = i64::try_from(second)
                .ok()
                .and_then(|second| jiff::Timestamp::from_second(second).ok());
            if let Some(Ok(value)) = time.map(|time| HeaderValue::try_from(time.to_string())) {
                *reset = (second, value);
            }
        }
        reset.1.clone()
    }
}

/// Reads a body to its end; most come in one piece, which is not copied.
async fn collect(body: Incoming, limit: usize) -> Result<Bytes, StatusCode> {
    let mut body = Limited::new(body, limit);
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => StatusCode::PAYLOAD_TOO_LARGE,
            false => StatusCode::BAD_REQUEST,
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() {
        first
    } else {
        rest.freeze()
    })
}
