//! Bodies to and from a provider. The one to it is a list of frames that are
//! shared with what was received, never joined. The one from it drives its
//! own HTTP/1 connection while it is read.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::{H1, Home};
use crate::capture::Tap;

/// The body of a request to a provider.
#[derive(Debug, Clone, Default)]
pub struct RequestBody {
    frames: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl RequestBody {
    /// A body of these frames, sent one after the other.
    #[must_use]
    pub fn new(frames: Vec<Bytes>) -> Self {
        let left = frames.iter().map(|frame| frame.len() as u64).sum();
        Self {
            frames: frames.into_iter(),
            left,
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.frames.find(|frame| !frame.is_empty()) {
            Some(frame) => {
                self.left -= frame.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The body of a provider's answer.
///
/// Dropping it before its end closes an HTTP/1 connection (or resets an HTTP/2
/// stream) at once, which is how a provider learns that nobody listens any
/// more. Read to its end, the connection goes back to its pool.
pub struct UpstreamBody {
    incoming: Incoming,
    connection: Option<(H1, Arc<Home>)>,
    tap: Option<Tap>,
}

impl fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, connection: Option<(H1, Arc<Home>)>) -> Self {
        let mut body = Self {
            incoming,
            connection,
            tap: None,
        };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    /// The same, with every chunk shown to `tap`.
    #[must_use]
    pub fn tapped(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// The next chunk of data; trailers are passed over.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Bytes>>> {
        loop {
            let Some(frame) = std::task::ready!(self.poll_incoming(cx)) else {
                self.release();
                return Poll::Ready(None);
            };
            match frame {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        if self.incoming.is_end_stream() {
                            self.release();
                        }
                        if let Some(tap) = &self.tap {
                            tap.push(&data);
                        }
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Err(error) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// The next chunk, as a future.
    pub async fn chunk(&mut self) -> Option<hyper::Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Reads the channel, then lets the connection read the socket, then the
    /// channel again. Only the connection is given the real waker: whatever
    /// fills the channel happens inside this very call.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some((connection, _)) = &mut self.connection else {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        };
        let incoming = &mut self.incoming;
        let at_hand = connection.peek_for(cx, |quiet| Pin::new(&mut *incoming).poll_frame(quiet));
        if at_hand.is_ready() {
            return at_hand;
        }
        match connection.poll_for(cx, |quiet| Pin::new(&mut *incoming).poll_frame(quiet)) {
            (true, Poll::Pending) => {
                // The connection is gone and the channel with it; only the real
                // waker can tell the end now.
                self.connection = None;
                Pin::new(&mut self.incoming).poll_frame(cx)
            }
            (_, found) => found,
        }
    }

    fn release(&mut self) {
        if let Some((connection, home)) = self.connection.take() {
            home.take_back(connection);
        }
    }
}
