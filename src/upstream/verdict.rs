//! What an attempt's outcome means: whose fault it was, whether another
//! target may be tried, and which of the answer's header fields pass on.

use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};

use super::pool::SendError;
use crate::config::Failover;
use crate::mask::without;
use crate::protocol::error::{ErrorClass, UpstreamError};
use crate::routing::standing::Blame;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection.
    Connect,
    /// The connection failed under the request.
    Network,
    /// The attempt's time ran out.
    Timeout,
    /// An HTTP status other than 2xx.
    Status,
    /// A 2xx answer that carried an error, or nothing that can be read.
    Answer,
    /// A 2xx answer with nothing in it.
    Empty,
    /// No output in the time that the configuration gives it.
    Stall,
}

/// An attempt that did not answer.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// The provider's HTTP status, when there was one.
    pub status: Option<StatusCode>,
    /// What the provider said, or what happened on the wire.
    pub error: UpstreamError,
    /// The provider's own answer, to be passed on as it is.
    pub raw: Option<RawAnswer>,
}

/// A provider's error answer: head and bounded body.
#[derive(Debug)]
pub struct RawAnswer {
    /// The head as it came.
    pub headers: HeaderMap,
    /// The body, cut at a limit.
    pub body: bytes::Bytes,
    /// Whether the body is all of it.
    pub whole: bool,
}

impl Failure {
    /// A failure without an HTTP answer.
    #[must_use]
    pub fn new(kind: FailureKind, class: ErrorClass, message: String) -> Box<Self> {
        Box::new(Self {
            kind,
            status: None,
            error: UpstreamError {
                class,
                message,
                code: None,
                retry_after: None,
            },
            raw: None,
        })
    }

    /// The connection failed, or none came about.
    #[must_use]
    pub fn from_send(error: &SendError) -> Box<Self> {
        let kind = match error {
            SendError::Connect(io) if io.kind() == std::io::ErrorKind::TimedOut => {
                FailureKind::Timeout
            }
            SendError::Connect(_) => FailureKind::Connect,
            SendError::Exchange(_) => FailureKind::Network,
        };
        Self::new(
            kind,
            ErrorClass::UpstreamFailed,
            format!("{} ({})", error, error_code(error)),
        )
    }

    /// The attempt's time limit passed.
    #[must_use]
    pub fn timeout(limit: Duration) -> Box<Self> {
        Self::new(
            FailureKind::Timeout,
            ErrorClass::Timeout,
            format!("no answer within {} s", limit.as_secs_f32()),
        )
    }

    /// Takes the gateway's own credentials out of what the provider said: some
    /// repeat in their errors what they were sent.
    pub fn scrub(&mut self, secrets: &[Vec<u8>]) {
        for secret in secrets {
            let message = bytes::Bytes::from(std::mem::take(&mut self.error.message));
            let message = without(&message, secret, REDACTED);
            self.error.message = String::from_utf8_lossy(&message).into_owned();
            if let Some(raw) = &mut self.raw {
                raw.body = without(&raw.body, secret, REDACTED);
            }
        }
    }

    /// Whether another target may be tried: not for what is the client's own
    /// fault. A 400 that speaks of an exhausted account is the operator's.
    #[must_use]
    pub fn may_go_on(&self, failover: &Failover) -> bool {
        match self.kind {
            FailureKind::Timeout
            | FailureKind::Answer
            | FailureKind::Empty
            | FailureKind::Stall => true,
            FailureKind::Connect | FailureKind::Network => {
                let text = self.error.message.to_ascii_lowercase();
                failover
                    .retryable_errors
                    .iter()
                    .any(|token| text.contains(&token.to_ascii_lowercase()))
            }
            FailureKind::Status => self.status_may_go_on(failover),
        }
    }

    fn status_may_go_on(&self, failover: &Failover) -> bool {
        let status = self.status.map_or(0, |status| status.as_u16());
        // A 400 about the account or its key is the operator's fault.
        let operators = matches!(
            self.error.class,
            ErrorClass::Quota | ErrorClass::UpstreamAuth
        );
        if status == 402 || (status == 400 && operators) {
            return true;
        }
        match &failover.retryable_status_codes {
            Some(codes) => codes.contains(&status),
            None => !matches!(status, 200..=299 | 400 | 413 | 422),
        }
    }

    /// What speaks for giving the target a rest: `None` for what is the request's
    /// own fault, or might be.
    #[must_use]
    pub fn blame(&self) -> Option<Blame<'_>> {
        let faulty = match self.kind {
            FailureKind::Empty => false,
            FailureKind::Status => self.status_is_faulty(),
            FailureKind::Answer => !is_clients(self.error.class),
            _ => true,
        };
        if !faulty || speaks_of_deadline(&self.error.message) {
            return None;
        }
        let limited = matches!(
            self.error.class,
            ErrorClass::RateLimited | ErrorClass::Quota
        ) || self.status == Some(StatusCode::TOO_MANY_REQUESTS);
        Some(Blame {
            asked: self.error.retry_after,
            limited,
            stall: self.kind == FailureKind::Stall,
            message: &self.error.message,
        })
    }

    fn status_is_faulty(&self) -> bool {
        if self.error.class == ErrorClass::ContentBlocked {
            return false;
        }
        match self.status.map_or(0, |status| status.as_u16()) {
            400 => matches!(
                self.error.class,
                ErrorClass::Quota | ErrorClass::UpstreamAuth
            ),
            401..=404 | 408 | 429 => true,
            405..=499 => false,
            _ => true,
        }
    }

    /// The short tag of an attempt in messages: a status, or a word.
    #[must_use]
    pub fn tag(&self) -> String {
        match (self.status, self.kind) {
            (Some(status), FailureKind::Status) => status.as_u16().to_string(),
            (_, FailureKind::Timeout) => "timeout".into(),
            (_, FailureKind::Answer) => "bad answer".into(),
            (_, FailureKind::Empty) => "empty".into(),
            (_, FailureKind::Stall) => "stall".into(),
            _ => "network".into(),
        }
    }
}

/// Errors that the same request would meet at any target.
const fn is_clients(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::InvalidRequest
            | ErrorClass::Unsupported
            | ErrorClass::ContextLength
            | ErrorClass::ContentBlocked
            | ErrorClass::TooLarge
    )
}

/// The client's own deadline, passed on by it, is no fault of the target's.
fn speaks_of_deadline(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let phrases = ["deadline expired", "deadline_exceeded", "deadline exceeded"];
    phrases.iter().any(|phrase| message.contains(phrase))
}

/// The names that operators know network errors by, for `retryableErrors`.
/// A reset, a broken pipe and an early end all count as ECONNRESET.
fn error_code(error: &SendError) -> &'static str {
    use std::io::ErrorKind;
    let kind = match error {
        SendError::Connect(error) => super::connect::io_kind(error).or_else(|| Some(error.kind())),
        SendError::Exchange(error) => super::connect::io_kind(error),
    };
    match (error, kind) {
        (_, Some(ErrorKind::ConnectionRefused)) => "ECONNREFUSED",
        (_, Some(ErrorKind::TimedOut)) => "ETIMEDOUT",
        (_, Some(ErrorKind::HostUnreachable)) => "EHOSTUNREACH",
        (_, Some(ErrorKind::NetworkUnreachable)) => "ENETUNREACH",
        (SendError::Exchange(_), _)
        | (
            _,
            Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof),
        ) => "ECONNRESET",
        (SendError::Connect(_), _) => "ENOTFOUND",
    }
}

const REDACTED: &str = "[redacted]";

/// Room for what passes and for what the gateway adds: an answer's head that has
/// to grow costs more than all that is looked up in it.
const FIELDS: usize = 24;

/// Turns a provider's header fields into those the client gets: what describes
/// the content or the provider's limits stays, `request-id` goes on under
/// another name, everything else is dropped. Few pass, so they are put into a
/// new map; taking the others out of the old one would move it about each time.
pub fn relay_headers(headers: &mut HeaderMap) {
    const UPSTREAM_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");
    let mut passed = HeaderMap::with_capacity(FIELDS);
    let mut ids = [None, None];
    // Further values of a field come without its name; hardly any answer has some.
    let several = headers.len() > headers.keys_len();
    let mut last = None;
    for (name, value) in std::mem::take(headers) {
        if several && name.is_some() {
            last.clone_from(&name);
        }
        let Some(name) = name.or_else(|| last.clone()) else {
            continue;
        };
        match name.as_str() {
            "request-id" => ids[0] = ids[0].take().or(Some(value)),
            "x-request-id" => ids[1] = ids[1].take().or(Some(value)),
            _ if passes(&name) => {
                passed.append(name, value);
            }
            _ => {}
        }
    }
    let [id, other] = ids;
    if let Some(id) = id.or(other) {
        passed.insert(UPSTREAM_ID, id);
    }
    *headers = passed;
}

fn passes(name: &HeaderName) -> bool {
    if [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::RETRY_AFTER,
        header::CACHE_CONTROL,
    ]
    .contains(name)
    {
        return true;
    }
    let name = name.as_str();
    name.starts_with("x-ratelimit-")
        || name.starts_with("anthropic-ratelimit-")
        || matches!(
            name,
            "openai-processing-ms"
                | "openai-version"
                | "openai-model"
                | "retry-after-ms"
                | "x-should-retry"
                | "content-disposition"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn fields_given_several_times_pass_whole_or_not_at_all() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("x-ratelimit-limit-requests", "1"),
            ("x-ratelimit-limit-requests", "2"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("x-request-id", "other"),
            ("request-id", "first"),
            ("request-id", "second"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        relay_headers(&mut headers);
        let passed: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()))
            .collect();
        assert_eq!(
            passed,
            [
                ("content-type", "application/json"),
                ("x-ratelimit-limit-requests", "1"),
                ("x-ratelimit-limit-requests", "2"),
                ("x-upstream-request-id", "first"),
            ]
        );
    }
}
