//! Bodies to the client, as one enum: no box around the common ones, no
//! generic parameter through the layers. And limited reads of bodies from it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::relay::{Broken, RelayBody};

/// What a client is sent.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// All of it, at hand.
    Full(Bytes),
    /// A provider's answer, as it comes.
    Relay(Box<RelayBody>),
    /// What somebody tells as it happens, until they stop.
    Feed(mpsc::Receiver<Bytes>),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::Empty
        } else {
            Self::Full(bytes)
        }
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::from(Bytes::from_static(text.as_bytes()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Relay(relay) => relay
                .poll_chunk(cx)
                .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
            Self::Feed(feed) => feed
                .poll_recv(cx)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Relay(relay) => relay.is_end(),
            Self::Feed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) => relay.size_hint(),
            Self::Feed(_) => SizeHint::default(),
        }
    }
}

/// A JSON answer of the gateway's own.
#[must_use]
pub fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

/// Why a request's body could not be had.
#[derive(Debug)]
pub enum ReadError {
    /// More than the limit, in bytes.
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Nothing came for this long.
    Idle(Duration),
    /// The client broke off, or its framing did.
    Broken(hyper::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => {
                write!(
                    f,
                    "the request body is larger than the limit of {limit} bytes"
                )
            }
            Self::Idle(pause) => {
                write!(
                    f,
                    "no byte of the request body came for {} s",
                    pause.as_secs()
                )
            }
            Self::Broken(error) => write!(f, "the request body broke off: {error}"),
        }
    }
}

/// Reads a body as the frames it came in, at most `limit` bytes of it, with
/// pauses of at most `idle`. `see` is shown each frame as it arrives.
///
/// # Errors
///
/// See [`ReadError`]; a declared length over the limit is refused unread.
pub async fn read_limited(
    mut body: Incoming,
    limit: u64,
    idle: Duration,
    mut see: impl FnMut(&[u8]),
) -> Result<Vec<Bytes>, ReadError> {
    if body.size_hint().lower() > limit {
        return Err(ReadError::TooLarge { limit });
    }
    let mut frames = Vec::new();
    let mut length = 0;
    while !body.is_end_stream() {
        let Some(frame) = next_frame(&mut body, idle).await? else {
            break;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len() as u64;
        if length > limit {
            return Err(ReadError::TooLarge { limit });
        }
        if !data.is_empty() {
            see(&data);
            frames.push(data);
        }
    }
    Ok(frames)
}

/// Hands a body on piece by piece, at most `limit` bytes of it, with pauses of at
/// most `idle`; stops when nobody takes them any more.
///
/// # Errors
///
/// As [`read_limited`].
pub async fn hand_on(
    mut body: Incoming,
    limit: u64,
    idle: Duration,
    to: mpsc::Sender<Bytes>,
) -> Result<(), ReadError> {
    if body.size_hint().lower() > limit {
        return Err(ReadError::TooLarge { limit });
    }
    let mut length = 0;
    while !body.is_end_stream() {
        let Some(frame) = next_frame(&mut body, idle).await? else {
            break;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len() as u64;
        if length > limit {
            return Err(ReadError::TooLarge { limit });
        }
        if to.send(data).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The time limit costs a timer only when the frame is not there already.
async fn next_frame(
    body: &mut Incoming,
    idle: Duration,
) -> Result<Option<Frame<Bytes>>, ReadError> {
    let mut frame = std::pin::pin!(body.frame());
    let at_once = std::future::poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx))).await;
    let found = match at_once {
        Poll::Ready(found) => found,
        Poll::Pending => match tokio::time::timeout(idle, frame).await {
            Ok(found) => found,
            Err(_) => return Err(ReadError::Idle(idle)),
        },
    };
    found.transpose().map_err(ReadError::Broken)
}

/// [`read_limited`], joined: for small bodies that will be parsed whole.
///
/// # Errors
///
/// As [`read_limited`].
pub async fn read_joined(body: Incoming, limit: u64, idle: Duration) -> Result<Bytes, ReadError> {
    let mut frames = read_limited(body, limit, idle, |_| {}).await?;
    Ok(match frames.len() {
        0 => Bytes::new(),
        1 => frames.swap_remove(0),
        _ => Bytes::from(frames.concat()),
    })
}
