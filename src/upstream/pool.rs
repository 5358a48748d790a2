//! A pool of connections that belongs to one core.
//!
//! HTTP/1 connections come out whole (sender and driver) and are driven by
//! whoever holds them. An idle one is polled with a waker that does nothing,
//! so that it wakes no task; that the provider closed it is found out when it
//! is taken, or by the sweep. HTTP/2 connections are shared and driven by a
//! task of their own.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;

use super::body::{RequestBody, UpstreamBody};
use super::connect::Connector;
use super::stream::{Heard, Stream};
use crate::clock;
use crate::gate::Gate;

/// How long a connection may lie idle. Servers commonly close after 60 s or
/// more; staying below keeps the race with their close rare.
const IDLE: Duration = Duration::from_secs(55);
/// An idle connection that came back this recently is not looked at again.
const JUST_NOW: Duration = Duration::from_millis(1);
/// Most idle connections kept for one origin on one core.
const MOST_IDLE: usize = 512;

/// Where a connection leads.
#[derive(Debug)]
struct Origin {
    scheme: Scheme,
    authority: Authority,
}

/// The HTTP version a request is built for: HTTP/1 wants a path and a `host`
/// field, HTTP/2 a whole URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

/// Why no answer came.
#[derive(Debug)]
pub enum SendError {
    /// No connection could be opened.
    Connect(io::Error),
    /// The connection failed under the request.
    Exchange(hyper::Error),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "could not connect: {error}"),
            Self::Exchange(error) => {
                write!(f, "{error}")?;
                match std::error::Error::source(error) {
                    Some(cause) => write!(f, ": {cause}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for SendError {}

/// An HTTP/1 connection: where requests go in, and what moves the bytes.
pub(super) struct H1 {
    sender: http1::SendRequest<RequestBody>,
    driver: Pin<Box<http1::Connection<TokioIo<Stream>, RequestBody>>>,
    heard: Heard,
    gate: Arc<Gate>,
    /// The gate as a waker, made once.
    waker: Waker,
}

impl H1 {
    fn new(
        sender: http1::SendRequest<RequestBody>,
        driver: http1::Connection<TokioIo<Stream>, RequestBody>,
        heard: Heard,
    ) -> Self {
        let gate = Arc::new(Gate::default());
        let waker = Waker::from(Arc::clone(&gate));
        Self {
            sender,
            driver: Box::pin(driver),
            heard,
            gate,
            waker,
        }
    }

    /// Lets the connection move bytes and looks for what came of it, by turns,
    /// until there is something or nothing more to do. `look` gets a waker that
    /// wakes nobody: what it looks for can only come about in here. The flag
    /// says that the connection is over.
    pub(super) fn poll_for<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> (bool, Poll<T>) {
        if self.gate.is_quiet(cx.waker()) {
            // Nothing came since it was looked at the last time.
            return (false, Poll::Pending);
        }
        let mut quiet = Context::from_waker(Waker::noop());
        let mut gated = Context::from_waker(&self.waker);
        self.gate.close(cx.waker());
        let outcome = loop {
            let ended = self.driver.as_mut().poll(&mut gated).is_ready();
            let found = look(&mut quiet);
            if ended || found.is_ready() || !self.gate.was_woken() {
                break (ended, found);
            }
        };
        if outcome.1.is_ready() {
            self.gate.forget();
        } else {
            self.gate.open();
        }
        outcome
    }

    /// Looks for something that may be there already, without letting the
    /// connection move. To look tells the connection that more is wanted, which
    /// would wake the task that is at work on it.
    pub(super) fn peek_for<T>(
        &mut self,
        cx: &Context<'_>,
        look: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.gate.close(cx.waker());
        let found = look(&mut Context::from_waker(Waker::noop()));
        if found.is_ready() {
            self.gate.forget();
        }
        found
    }

    /// Whether another request could be sent now.
    fn is_idle(&mut self) -> bool {
        let mut quiet = Context::from_waker(Waker::noop());
        self.driver.as_mut().poll(&mut quiet).is_pending() && self.sender.is_ready()
    }
}

struct Idle {
    connection: H1,
    since: Instant,
}

/// The idle connections of one origin, and its shared HTTP/2 one.
pub(super) struct Home {
    idle: Mutex<Vec<Idle>>,
    h2: Mutex<Option<http2::SendRequest<RequestBody>>>,
}

impl Home {
    pub(super) fn take_back(&self, mut connection: H1) {
        if !connection.is_idle() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() < MOST_IDLE {
            idle.push(Idle {
                connection,
                since: clock::now(),
            });
        }
    }

    /// The idle connection used last that is still open.
    fn take(&self) -> Option<H1> {
        loop {
            let mut candidate = self.idle.lock().pop()?;
            // Looked at when it came back; nothing can be known since.
            let since = clock::now().saturating_duration_since(candidate.since);
            if since < JUST_NOW || candidate.connection.is_idle() {
                return Some(candidate.connection);
            }
        }
    }

    fn shared(&self) -> Option<http2::SendRequest<RequestBody>> {
        let mut shared = self.h2.lock();
        if shared.as_ref().is_some_and(http2::SendRequest::is_closed) {
            *shared = None;
        }
        shared.clone()
    }

    fn sweep(&self, now: Instant) {
        let taken = std::mem::take(&mut *self.idle.lock());
        let kept: Vec<Idle> = taken
            .into_iter()
            .filter_map(|mut idle| {
                let fresh = now.saturating_duration_since(idle.since) < IDLE;
                (fresh && idle.connection.is_idle()).then_some(idle)
            })
            .collect();
        let mut idle = self.idle.lock();
        let newer = std::mem::replace(&mut *idle, kept);
        idle.extend(newer);
    }
}

/// One core's connections to all providers.
pub struct Client {
    connector: Connector,
    homes: Mutex<Vec<(Origin, Arc<Home>)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("origins", &self.homes.lock().len())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client without connections.
    #[must_use]
    pub fn new(connector: Connector) -> Self {
        Self {
            connector,
            homes: Mutex::default(),
        }
    }

    /// Sends one request and waits for the answer's head.
    ///
    /// A reused connection that turns out closed before a single byte of an
    /// answer came is replaced once by a new one, with the request built again
    /// by `build`; nothing else is ever sent twice.
    ///
    /// `connect` limits the time for a new connection to come about, where it is
    /// not the connector's own limit. Dropping the future closes the connection
    /// it was using.
    ///
    /// # Errors
    ///
    /// [`SendError::Connect`] when no connection could be opened, and
    /// [`SendError::Exchange`] when it failed under the request.
    pub async fn send(
        &self,
        origin: (&Scheme, &Authority),
        connect: Option<Duration>,
        build: &(dyn Fn(Wire) -> Request<RequestBody> + Send + Sync),
    ) -> Result<Response<UpstreamBody>, SendError> {
        let home = self.home(origin);
        if let Some(sender) = home.shared() {
            match Box::pin(send_h2(sender, build(Wire::H2))).await {
                Err(error) if is_stale(&error) => {}
                other => return other.map_err(SendError::Exchange),
            }
        } else if let Some(connection) = home.take() {
            let heard = Arc::clone(&connection.heard);
            heard.store(false, Ordering::Relaxed);
            match send_h1(connection, &home, build(Wire::H1)).await {
                Err(error) if is_stale(&error) && !heard.load(Ordering::Relaxed) => {}
                other => return other.map_err(SendError::Exchange),
            }
        }
        // Boxed: the room for a handshake would be part of every request.
        Box::pin(self.send_on_new(origin, connect, &home, build)).await
    }

    async fn send_on_new(
        &self,
        origin: (&Scheme, &Authority),
        connect: Option<Duration>,
        home: &Arc<Home>,
        build: &(dyn Fn(Wire) -> Request<RequestBody> + Send + Sync),
    ) -> Result<Response<UpstreamBody>, SendError> {
        let uri = origin_uri(origin).map_err(SendError::Connect)?;
        let (stream, h2) = self
            .connector
            .connect(uri, connect)
            .await
            .map_err(SendError::Connect)?;
        if h2 {
            let sender = open_h2(stream).await.map_err(SendError::Exchange)?;
            *home.h2.lock() = Some(sender.clone());
            return send_h2(sender, build(Wire::H2))
                .await
                .map_err(SendError::Exchange);
        }
        let heard = stream.heard();
        let (sender, driver) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Exchange)?;
        let connection = H1::new(sender, driver, heard);
        send_h1(connection, home, build(Wire::H1))
            .await
            .map_err(SendError::Exchange)
    }

    /// Providers are few: looking through a list beats hashing a name.
    fn home(&self, (scheme, authority): (&Scheme, &Authority)) -> Arc<Home> {
        let mut homes = self.homes.lock();
        let known = homes
            .iter()
            .find(|(origin, _)| origin.authority == *authority && origin.scheme == *scheme);
        if let Some((_, home)) = known {
            return Arc::clone(home);
        }
        let home = Arc::new(Home {
            idle: Mutex::default(),
            h2: Mutex::default(),
        });
        let origin = Origin {
            scheme: scheme.clone(),
            authority: authority.clone(),
        };
        homes.push((origin, Arc::clone(&home)));
        home
    }

    /// Closes what has been idle for too long or was closed by the provider,
    /// and forgets origins without connections. Called every few seconds.
    pub fn sweep(&self, now: Instant) {
        let homes: Vec<_> = self
            .homes
            .lock()
            .iter()
            .map(|(_, home)| Arc::clone(home))
            .collect();
        for home in homes {
            home.sweep(now);
        }
        self.homes.lock().retain(|(_, home)| {
            Arc::strong_count(home) > 1 || !home.idle.lock().is_empty() || home.shared().is_some()
        });
    }

    /// Idle HTTP/1 connections, for gauges and tests.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.homes
            .lock()
            .iter()
            .map(|(_, home)| home.idle.lock().len())
            .sum()
    }
}

fn origin_uri((scheme, authority): (&Scheme, &Authority)) -> io::Result<Uri> {
    Uri::builder()
        .scheme(scheme.clone())
        .authority(authority.clone())
        .path_and_query("/")
        .build()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

async fn open_h2(stream: Stream) -> hyper::Result<http2::SendRequest<RequestBody>> {
    let (sender, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(20))
        .handshake(TokioIo::new(stream))
        .await?;
    // The task ends by itself once every sender is gone or the peer closes.
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "an HTTP/2 connection to a provider ended");
        }
    });
    Ok(sender)
}

async fn send_h2(
    mut sender: http2::SendRequest<RequestBody>,
    request: Request<RequestBody>,
) -> hyper::Result<Response<UpstreamBody>> {
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    Ok(response.map(|incoming| UpstreamBody::new(incoming, None)))
}

/// Sends on a connection that is driven right here: the answer can only come
/// about inside `poll_for`, so its future needs no waker of its own.
async fn send_h1(
    mut connection: H1,
    home: &Arc<Home>,
    request: Request<RequestBody>,
) -> hyper::Result<Response<UpstreamBody>> {
    let mut answer = std::pin::pin!(connection.sender.send_request(request));
    let mut connection = Some(connection);
    let response = std::future::poll_fn(|cx| {
        let Some(driven) = &mut connection else {
            return answer.as_mut().poll(cx);
        };
        match driven.poll_for(cx, |quiet| answer.as_mut().poll(quiet)) {
            (_, Poll::Ready(response)) => Poll::Ready(response),
            (true, Poll::Pending) => {
                // Closed before it took the request up. The request lies in its
                // channel and is told so when the connection is gone.
                connection = None;
                answer.as_mut().poll(cx)
            }
            (false, Poll::Pending) => Poll::Pending,
        }
    })
    .await?;
    let connection = connection.map(|connection| (connection, Arc::clone(home)));
    Ok(response.map(|incoming| UpstreamBody::new(incoming, connection)))
}

/// Closed before a byte of an answer: on a reused connection this is the
/// provider's idle time-out crossing our request on the wire.
fn is_stale(error: &hyper::Error) -> bool {
    if error.is_canceled() || error.is_incomplete_message() || error.is_closed() {
        return true;
    }
    matches!(
        super::connect::io_kind(error),
        Some(
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected
        )
    )
}
