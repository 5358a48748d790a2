//! The bytes beneath a client connection, as hyper reads and writes them.
//!
//! hyper has one time limit for "waiting for a request head", which covers the
//! idle time between two requests as well, and makes a timer for each request to
//! keep it. The limit on a head that has begun to arrive is therefore kept here,
//! the one on idle time by whoever drives the connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

/// What a connection runs over.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// What the bytes and the requests of a connection tell one another.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// One of the constants below.
    phase: AtomicU8,
    /// Heads that were whole so far.
    heads: AtomicU32,
    /// The bytes of the head that is awaited.
    head: Mutex<Vec<u8>>,
}

/// A request's head is awaited.
const IDLE: u8 = 0;
/// A request is being served, and its answer has not begun.
const BUSY: u8 = 1;
/// The answer is under way.
const ANSWERING: u8 = 2;

/// The bytes that a request's head came in, and perhaps some of its body.
#[derive(Debug)]
pub(super) struct Head(Vec<u8>);

impl Head {
    /// Whether it had a content length. hyper lets go of it when there is a
    /// transfer encoding as well; somebody in front of us might not have, and
    /// then the two of us don't agree where the request ends (RFC 9112, 6.3).
    pub(super) fn has_length(&self) -> bool {
        let end = memchr::memmem::find(&self.0, b"\r\n\r\n").unwrap_or(self.0.len());
        let lower = self.0.get(..end).unwrap_or_default().to_ascii_lowercase();
        memchr::memmem::find(&lower, b"\ncontent-length").is_some()
    }
}

/// How much of a head is kept for a second look.
const KEPT: usize = 16 * 1024;

impl Serving {
    /// A head is whole; gives its bytes, which are not kept any longer.
    pub(super) fn begin(&self) -> Head {
        self.phase.store(BUSY, Ordering::Relaxed);
        self.heads.fetch_add(1, Ordering::Relaxed);
        Head(std::mem::take(&mut *self.head.lock()))
    }

    /// The answer's head is there.
    pub(super) fn answer(&self) {
        self.phase.store(ANSWERING, Ordering::Relaxed);
    }

    /// The answer is over. The next request may have begun already.
    pub(super) fn end(&self) {
        let over = |phase| (phase == ANSWERING).then_some(IDLE);
        let _begun = self
            .phase
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, over);
    }

    fn is_busy(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == BUSY
    }

    /// Whether a request's head is awaited, and how many were before.
    pub(super) fn idle(&self) -> Option<u32> {
        (self.phase.load(Ordering::Relaxed) == IDLE).then(|| self.heads.load(Ordering::Relaxed))
    }

    fn keep(&self, bytes: &[u8], begun: bool) {
        let mut head = self.head.lock();
        if !begun {
            head.clear();
        }
        let room = KEPT.saturating_sub(head.len());
        head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A [`Stream`] with the time limit on request heads.
#[derive(Debug)]
pub(super) struct Io {
    stream: Stream,
    serving: Arc<Serving>,
    limit: Duration,
    /// Runs from the first byte of a head that is not whole yet.
    head: Option<Pin<Box<Sleep>>>,
    /// Part of a head that is not whole yet has been read.
    begun: bool,
    /// The heads that were whole when `begun` was set.
    heads: u32,
    /// Runs while the client takes nothing of what is waiting for it.
    stuck: Option<Pin<Box<Sleep>>>,
}

/// How long a client may take nothing before it is given up. Generous: a train
/// goes through a tunnel.
const STUCK: Duration = Duration::from_secs(300);

impl Io {
    pub(super) fn new(stream: Stream, serving: Arc<Serving>, limit: Duration) -> Self {
        Self {
            stream,
            serving,
            limit,
            head: None,
            begun: false,
            heads: 0,
            stuck: None,
        }
    }

    fn poll_stream(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    /// Gives up on a client that has taken nothing for too long.
    fn poll_write_limit(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(STUCK)));
        ready!(stuck.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing",
        )))
    }

    /// Called when a head has begun and nothing more is there to read.
    fn poll_head_limit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let limit = self.limit;
        let head = self
            .head
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(head.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the request head took too long",
        )))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let heads = this.serving.heads.load(Ordering::Relaxed);
        if heads != this.heads {
            this.heads = heads;
            this.begun = false;
            this.head = None;
        }
        let before = buffer.filled().len();
        match this.poll_stream(cx, buffer) {
            Poll::Pending if this.begun => return this.poll_head_limit(cx),
            Poll::Ready(Ok(())) => {}
            other => return other,
        }
        let read = buffer.filled().get(before..).unwrap_or_default();
        if !read.is_empty() && !this.serving.is_busy() {
            this.serving.keep(read, this.begun);
            this.begun = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.poll_write_limit(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        };
        self.poll_write_limit(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }
}
