//! One client connection from its first byte to its last.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io as std_io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::io::{Head, Io, Serving, Stream};
use crate::alarm::Alarm;
use crate::app::Core;
use crate::body::Body;
use crate::clock;
use crate::config::{Limits, ServerSettings};
use crate::gate::Gated;
use crate::relay::Broken;
use crate::routes::{self, Peer};

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Sent to a connection over the limit, before it is closed.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// What all connections share.
pub(super) struct Edge {
    limits: Limits,
    http2: bool,
    tls: Option<TlsAcceptor>,
    http1_settings: http1::Builder,
    open: AtomicUsize,
}

impl Edge {
    pub(super) fn new(settings: &ServerSettings, tls: Option<TlsAcceptor>) -> Self {
        Self {
            limits: settings.limits,
            http2: settings.http2,
            tls,
            http1_settings: http1_settings(&settings.limits),
            open: AtomicUsize::new(0),
        }
    }

    fn http2_settings(&self) -> http2::Builder<TokioExecutor> {
        let mut settings = http2::Builder::new(TokioExecutor::new());
        settings
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.limits.streams)
            .max_header_list_size(u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(64 * 1024)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .keep_alive_interval(Some(self.limits.keep_alive))
            .keep_alive_timeout(Duration::from_secs(20));
        settings
    }
}

fn http1_settings(limits: &Limits) -> http1::Builder {
    let mut settings = http1::Builder::new();
    settings
        // hyper would make a timer for each request; see `Idle` and `Io`.
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes);
    // hyper keeps room for its default of 100 on the stack; any other number
    // costs an allocation for each request.
    if limits.headers != 100 {
        settings.max_headers(limits.headers);
    }
    settings
}

/// Connections are kept open.
const SERVING: u8 = 0;
/// Another process takes over: a connection ends with its next answer, which
/// says so. One that waits for its client is left alone, as closing it would
/// meet a request that is on its way.
const LEAVING: u8 = 1;
/// A connection ends as soon as nothing is under way in it.
const DRAINING: u8 = 2;

/// A core's connections, so that a stop can reach each and wait for the last.
///
/// A connection looks at a flag whenever it runs, which costs nothing; those that
/// wait for their client are woken once, when the flag is set.
#[derive(Clone, Default)]
pub(super) struct Tracker(Arc<Tracked>);

#[derive(Default)]
struct Tracked {
    /// [`SERVING`], [`LEAVING`] or [`DRAINING`].
    phase: AtomicU8,
    open: Mutex<HashMap<usize, Waker>>,
    next: AtomicUsize,
    count: AtomicUsize,
    last_closed: Notify,
}

impl Tracker {
    /// Asks every connection to finish what it has begun.
    pub(super) fn drain(&self) {
        self.enter_phase(DRAINING);
    }

    /// Asks every connection to end with its next answer.
    pub(super) fn leave(&self) {
        self.enter_phase(LEAVING);
    }

    fn phase(&self) -> u8 {
        self.0.phase.load(Ordering::Relaxed)
    }

    fn enter_phase(&self, phase: u8) {
        self.0.phase.store(phase, Ordering::SeqCst);
        for waker in self.0.open.lock().values() {
            waker.wake_by_ref();
        }
    }

    /// Waits until no connection is open.
    pub(super) async fn emptied(&self) {
        while self.0.count.load(Ordering::SeqCst) > 0 {
            self.0.last_closed.notified().await;
        }
    }

    fn enter(&self) -> Ticket {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        Ticket {
            tracker: self.clone(),
            number: self.0.next.fetch_add(1, Ordering::Relaxed),
            known: false,
        }
    }
}

/// A connection's place in its core's tracker.
struct Ticket {
    tracker: Tracker,
    number: usize,
    known: bool,
}

impl Ticket {
    /// Whether the connection should go on. The task that asks first is the one
    /// that is woken.
    fn phase(&mut self, cx: &Context<'_>) -> u8 {
        if !self.known {
            self.known = true;
            self.tracker
                .0
                .open
                .lock()
                .insert(self.number, cx.waker().clone());
        }
        self.tracker.0.phase.load(Ordering::SeqCst)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let tracked = &self.tracker.0;
        tracked.open.lock().remove(&self.number);
        if tracked.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            tracked.last_closed.notify_one();
        }
    }
}

/// Held by a connection's task for as long as it lives.
struct Open {
    edge: Arc<Edge>,
    core: Arc<Core>,
    ticket: Ticket,
    _counted: crate::metrics::ConnectionGuard,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.edge.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves one accepted connection in a task of its own.
pub(super) fn start(
    stream: Stream,
    peer: Option<IpAddr>,
    core: &Arc<Core>,
    edge: &Arc<Edge>,
    tracker: &Tracker,
) {
    if edge.open.fetch_add(1, Ordering::SeqCst) >= edge.limits.connections {
        edge.open.fetch_sub(1, Ordering::SeqCst);
        tracing::warn!(
            limit = edge.limits.connections,
            "a connection over the limit was refused"
        );
        refuse(&stream);
        return;
    }
    let mut open = Open {
        edge: Arc::clone(edge),
        core: Arc::clone(core),
        ticket: tracker.enter(),
        _counted: core.app.metrics.connection(),
    };
    // Ends by the connection's end, its time limits, or the stop of the runtime.
    tokio::spawn(async move {
        if let Err(error) = serve(stream, peer, &mut open).await {
            tracing::debug!(%error, "a client connection ended badly");
        }
    });
}

/// One try to say why; the socket buffer of a new connection is empty.
fn refuse(stream: &Stream) {
    let written = match stream {
        Stream::Tcp(stream) => stream.try_write(FULL),
        Stream::Unix(stream) => stream.try_write(FULL),
        Stream::Tls(_) => Ok(0),
    };
    if let Err(error) = written {
        tracing::debug!(%error, "a refused connection could not be told so");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a connection turned out to speak: its stream, whether it is HTTP/2, and
/// whether it is over TLS.
type Greeted = Option<(Stream, bool, bool)>;

/// Shakes hands, or looks at the first bytes. `None`: closed before any.
async fn greet(stream: Stream, edge: &Edge) -> Result<Greeted, BoxError> {
    let limit = edge.limits.header_time;
    Ok(match (stream, &edge.tls) {
        (Stream::Tcp(tcp), Some(tls)) => {
            let stream = tokio::time::timeout(limit, tls.accept(tcp)).await??;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Some((Stream::Tls(Box::new(stream)), h2, true))
        }
        (Stream::Tcp(tcp), None) if edge.http2 => {
            let first = limit.max(edge.limits.keep_alive);
            let h2 = tokio::time::timeout(first, speaks_h2(&tcp, limit)).await??;
            h2.map(|h2| (Stream::Tcp(tcp), h2, false))
        }
        (stream, _) => Some((stream, false, false)),
    })
}

async fn serve(stream: Stream, peer: Option<IpAddr>, open: &mut Open) -> Result<(), BoxError> {
    let edge = Arc::clone(&open.edge);
    // Boxed: the room for a handshake is not needed for the connection's life.
    let mut greeting = Box::pin(greet(stream, &edge));
    let ticket = &mut open.ticket;
    let greeted = std::future::poll_fn(|cx| {
        if ticket.phase(cx) == DRAINING {
            // Nothing was asked yet, so nothing has to be finished.
            return Poll::Ready(Ok(None));
        }
        greeting.as_mut().poll(cx)
    })
    .await?;
    drop(greeting);
    let Some((stream, h2, secure)) = greeted else {
        return Ok(());
    };
    let serving = Arc::<Serving>::default();
    let requests = Requests {
        core: Arc::clone(&open.core),
        peer: Peer {
            address: peer,
            secure,
        },
        serving: (!h2).then(|| Arc::clone(&serving)),
        tracker: ticket.tracker.clone(),
    };
    if h2 {
        drop(serving.begin());
    }
    let mut idle = Idle::new(&edge.limits, Arc::clone(&serving));
    let io = TokioIo::new(Io::new(stream, serving, edge.limits.header_time));
    if h2 {
        let connection = edge.http2_settings().serve_connection(io, requests);
        // Boxed, so that an HTTP/1 connection's task has no room for it.
        Box::pin(finish(
            connection,
            ticket,
            &mut idle,
            http2::Connection::graceful_shutdown,
        ))
        .await
    } else {
        let connection = edge.http1_settings.serve_connection(io, requests);
        let drain = http1::Connection::graceful_shutdown;
        finish(connection, ticket, &mut idle, drain).await
    }
}

/// Drives a connection to its end; asked to drain, it finishes what was begun.
async fn finish<C>(
    connection: C,
    ticket: &mut Ticket,
    idle: &mut Idle,
    drain: fn(Pin<&mut C>),
) -> Result<(), BoxError>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let gate = Gated::default();
    let mut told = false;
    let mut turn = |cx: &mut Context<'_>| {
        if !told {
            told = match ticket.phase(cx) {
                SERVING => false,
                LEAVING => idle.serving.idle().is_none(),
                _ => true,
            };
            if told {
                drain(connection.as_mut());
            }
        }
        // A request's body wakes the task that is at work on it, twice.
        match gate.poll(cx, |cx| connection.as_mut().poll(cx)) {
            Poll::Ready(ended) => Poll::Ready(ended.map_err(BoxError::from)),
            Poll::Pending => idle.poll_limit(cx).map(Err),
        }
    };
    std::future::poll_fn(|cx| clock::turn(|| turn(cx))).await
}

/// The limit on the time between two requests, and before the first.
struct Idle {
    serving: Arc<Serving>,
    limit: Duration,
    alarm: Alarm,
    /// The end of the limit, and the requests before it began to run.
    due: Option<(Instant, u32)>,
}

impl Idle {
    fn new(limits: &Limits, serving: Arc<Serving>) -> Self {
        Self {
            serving,
            limit: limits.keep_alive.max(limits.header_time),
            alarm: Alarm::default(),
            due: None,
        }
    }

    /// Ready when the client has asked nothing for too long. To be called after
    /// each poll of the connection, which may have begun or ended a request.
    fn poll_limit(&mut self, cx: &mut Context<'_>) -> Poll<BoxError> {
        let Some(served) = self.serving.idle() else {
            self.due = None;
            return Poll::Pending;
        };
        let due = match self.due {
            Some((due, before)) if before == served => due,
            _ => Instant::from_std(clock::now()) + self.limit,
        };
        self.due = Some((due, served));
        self.alarm
            .poll_at(due, cx)
            .map(|()| "no further request came".into())
    }
}

/// Looks at the first bytes without taking them. `None`: closed before any.
async fn speaks_h2(tcp: &TcpStream, limit: Duration) -> std_io::Result<Option<bool>> {
    let mut seen = [0; PREFACE.len()];
    let mut begun: Option<Instant> = None;
    loop {
        let count = tcp.peek(&mut seen).await?;
        let start = &seen[..count];
        if count == 0 {
            return Ok(None);
        }
        if !PREFACE.starts_with(start) {
            return Ok(Some(false));
        }
        if count == PREFACE.len() {
            return Ok(Some(true));
        }
        // Part of the preface, which is a slow client or no client of ours.
        if begun.get_or_insert_with(Instant::now).elapsed() > limit {
            return Err(std_io::ErrorKind::TimedOut.into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The service of one connection.
struct Requests {
    core: Arc<Core>,
    peer: Peer,
    /// Told when a request's head is whole and when its answer began; absent
    /// on HTTP/2, which has its own frames for both.
    serving: Option<Arc<Serving>>,
    tracker: Tracker,
}

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Served;

    fn call(&self, request: Request<Incoming>) -> Served {
        let mut doubtful = false;
        let mut last = false;
        if let Some(serving) = &self.serving {
            doubtful = is_doubtful(request.headers(), &serving.begin());
            last = self.tracker.phase() != SERVING;
        }
        Served {
            answer: if doubtful {
                routes::doubtful()
            } else {
                routes::dispatch(&self.core, self.peer, request)
            },
            serving: self.serving.clone(),
            last,
        }
    }
}

/// Whether it is open to doubt where a request ends: any transfer encoding but
/// a lone `chunked`, or a length beside it.
fn is_doubtful(headers: &HeaderMap, head: &Head) -> bool {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = encodings.next() else {
        return false;
    };
    !first.as_bytes().eq_ignore_ascii_case(b"chunked")
        || encodings.next().is_some()
        || head.has_length()
}

/// The answer to one request, on its way.
struct Served {
    answer: routes::Answer,
    serving: Option<Arc<Serving>>,
    /// The connection ends with this answer, and the client is told.
    last: bool,
}

impl Future for Served {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(clock::turn(|| self.answer.as_mut().poll(cx)));
        if self.last {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        let serving = self.serving.take();
        if let Some(serving) = &serving {
            serving.answer();
        }
        Poll::Ready(Ok(response.map(|body| Answer { body, serving })))
    }
}

/// An answer's body; when it is gone the connection waits for its next request.
pub(super) struct Answer {
    body: Body,
    serving: Option<Arc<Serving>>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        clock::turn(|| Pin::new(&mut self.body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.end();
        }
    }
}
