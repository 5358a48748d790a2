//! The bytes beneath a client connection, as hyper reads and writes them.
//!
//! hyper has one time limit for "waiting for a request head", which covers the
//! idle time between two requests as well. The limit on a head that has begun
//! to arrive is therefore kept here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// Set while a request is being served, clear while its head is awaited.
    busy: AtomicBool,
    /// The bytes of the head that is awaited.
    head: Mutex<Vec<u8>>,
}

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
        self.busy.store(true, Ordering::Relaxed);
        Head(std::mem::take(&mut *self.head.lock()))
    }

    pub(super) fn end(&self) {
        self.busy.store(false, Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
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
    begun: bool,
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
        if this.serving.is_busy() {
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
