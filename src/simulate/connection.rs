//! One connection: plain or TLS, HTTP/1.1 or HTTP/2, and the means to cut it
//! short in the ways that providers do and HTTP libraries do not offer.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::behaviour::Cut;
use super::body::ReplyBody;

/// What opens an HTTP/2 connection and no request of HTTP/1.1.
const PREFACE: &[u8] = b"PRI";
/// Time for the client to say its first bytes.
const OPENING_LIMIT: Duration = Duration::from_secs(30);
/// Time for bytes already written to reach the client before a cut.
const SETTLING: Duration = Duration::from_millis(2);
/// A client that does not read holds up a cut at most this many settlings.
const SETTLINGS: usize = 500;

/// The handle by which an answer ends the connection that carries it.
#[derive(Debug)]
pub(super) struct Link {
    /// Number of the connection, from 1.
    pub(super) number: u64,
    doom: Mutex<Option<Duration>>,
    doomed: Notify,
    fate: AtomicU8,
    blocked: AtomicBool,
}

const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const RESET: u8 = 2;

impl Link {
    /// The handle of a new connection.
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            doom: Mutex::new(None),
            doomed: Notify::new(),
            fate: AtomicU8::new(OPEN),
            blocked: AtomicBool::new(false),
        }
    }

    /// Cuts the connection once what was written has left.
    pub(super) fn cut(&self, cut: Cut) {
        let fate = match cut {
            Cut::Close => CLOSED,
            Cut::Reset => RESET,
        };
        self.fate.store(fate, Relaxed);
        self.close_after(Duration::ZERO);
    }

    /// Closes the connection after a while.
    pub(super) fn close_after(&self, after: Duration) {
        *self.doom.lock() = Some(after);
        self.doomed.notify_one();
    }

    /// Whether an answer was cut short on it.
    pub(super) fn is_cut(&self) -> bool {
        self.fate.load(Relaxed) != OPEN
    }

    async fn doom(&self) -> Duration {
        loop {
            self.doomed.notified().await;
            let doom = *self.doom.lock();
            if let Some(after) = doom {
                return after;
            }
        }
    }
}

/// Serves one connection until it ends, by itself or by its link.
pub(super) async fn serve<S>(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    link: Arc<Link>,
    service: S,
) where
    S: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = std::convert::Infallible>,
    S::Future: Send + 'static,
{
    let wire = Wire {
        stream,
        link: link.clone(),
    };
    let Some(tls) = tls else {
        if let Ok(Ok(http2)) = tokio::time::timeout(OPENING_LIMIT, speaks_http2(&wire.stream)).await
        {
            speak(wire, http2, &link, service).await;
        }
        return;
    };
    let handshake = tokio_rustls::TlsAcceptor::from(tls).accept(wire);
    if let Ok(Ok(stream)) = tokio::time::timeout(OPENING_LIMIT, handshake).await {
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        speak(stream, http2, &link, service).await;
    }
}

async fn speak<I, S>(io: I, http2: bool, link: &Link, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<ReplyBody>, Error = std::convert::Infallible>,
    S::Future: Send + 'static,
{
    if http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(1024)
            .initial_stream_window_size(1024 * 1024)
            .initial_connection_window_size(8 * 1024 * 1024)
            .serve_connection(TokioIo::new(io), service);
        drive(connection, link).await;
    } else {
        // No limit on the wait for a head: a provider that keeps idle
        // connections for ever is what clients must be able to live with.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(io), service);
        drive(connection, link).await;
    }
}

/// Drives a connection to its end, or to its cut; what was written before the
/// cut is flushed first.
async fn drive<C: Future>(connection: C, link: &Link) {
    let mut connection = pin!(connection);
    let after = tokio::select! {
        _ = connection.as_mut() => return,
        after = link.doom() => after,
    };
    if tokio::time::timeout(after.max(SETTLING), connection.as_mut())
        .await
        .is_ok()
    {
        return;
    }
    for _ in 0..SETTLINGS {
        if !link.blocked.load(Relaxed) {
            return;
        }
        if tokio::time::timeout(SETTLING, connection.as_mut())
            .await
            .is_ok()
        {
            return;
        }
    }
}

/// Looks at the first bytes without taking them.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        if length == 0 || !PREFACE.starts_with(&first[..length]) {
            return Ok(false);
        }
        if length == PREFACE.len() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The socket; it resets instead of closing when its link says so.
struct Wire {
    stream: TcpStream,
    link: Arc<Link>,
}

impl Wire {
    fn noted<T>(&self, poll: Poll<T>) -> Poll<T> {
        let blocked = poll.is_pending();
        if self.link.blocked.load(Relaxed) != blocked {
            self.link.blocked.store(blocked, Relaxed);
        }
        poll
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.link.fate.load(Relaxed) == RESET {
            let socket = socket2::SockRef::from(&self.stream);
            // A socket that is already gone needs no reset.
            socket.set_linger(Some(Duration::ZERO)).ok();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
