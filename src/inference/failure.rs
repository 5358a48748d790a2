//! From what went wrong to what the client is told, in its own protocol.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use uuid::Uuid;

use super::quota;
use crate::auth::Denied;
use crate::body::Body;
use crate::exchange::{Attempt, AttemptResult, Exchange};
use crate::protocol::Protocol;
use crate::protocol::error::{self, AttemptNote, ErrorBody, ErrorClass, Source};
use crate::protocol::ir::Invalid;
use crate::protocol::peek::PeekError;
use crate::quota::Exceeded;
use crate::routing::Unresolved;
use crate::store::row::Status;
use crate::upstream::{Failure, FailureKind, RawAnswer};

/// When somebody may come back whom only requests under way keep out.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that gets no answer, and why. Boxed: it travels in results whose
/// other side is the usual one.
#[derive(Debug)]
pub struct Refusal(Box<Refused>);

#[derive(Debug)]
struct Refused {
    class: ErrorClass,
    message: String,
    code: Option<String>,
    param: Option<String>,
    source: Source,
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    outcome: Status,
    raw: Option<(StatusCode, RawAnswer)>,
    quota: Option<Exceeded>,
}

impl Refusal {
    /// A refusal by the gateway.
    #[must_use]
    pub fn new(class: ErrorClass, message: String) -> Self {
        Self(Box::new(Refused {
            class,
            message,
            code: None,
            param: None,
            source: Source::Gateway,
            status: None,
            retry_after: None,
            outcome: if class == ErrorClass::Timeout {
                Status::Timeout
            } else {
                Status::Error
            },
            raw: None,
            quota: None,
        }))
    }

    /// A field that must be there is not.
    #[must_use]
    pub fn missing(field: &str) -> Self {
        Self::new(
            ErrorClass::InvalidRequest,
            format!("Missing required parameter: '{field}'"),
        )
        .param(field)
    }

    /// Quotas of the key have no room for the request.
    pub(super) fn quota(exceeded: &Exceeded) -> Self {
        let wait = exceeded
            .wait()
            .map_or(PATIENCE, |ms| Duration::from_millis(ms.unsigned_abs()));
        let message = quota::message(exceeded);
        let mut refusal = Self::new(ErrorClass::RateLimited, message)
            .code("quota_exceeded")
            .retry_after(wait);
        refusal.0.outcome = Status::QuotaExceeded;
        refusal.0.quota = Some(exceeded.clone());
        refusal
    }

    /// Something of ours failed.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(ErrorClass::Internal, "internal error".into())
    }

    /// Names the client's field.
    #[must_use]
    pub fn param(mut self, param: &str) -> Self {
        self.0.param = Some(param.to_owned());
        self
    }

    /// Says when to come back.
    pub(super) fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// A code more exact than the class.
    pub(super) fn code(mut self, code: &str) -> Self {
        self.0.code = Some(code.to_owned());
        self
    }

    pub(super) fn status(mut self, status: StatusCode) -> Self {
        self.0.status = Some(status);
        self
    }

    /// The client broke off; what it is told reaches nobody.
    pub(super) fn cancelled(mut self) -> Self {
        self.0.outcome = Status::Cancelled;
        self
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let message = match denied {
            Denied::Missing => "missing authorization header",
            Denied::Invalid => "invalid authorization header",
        };
        Self::new(ErrorClass::Auth, message.into())
    }
}

impl From<&Invalid> for Refusal {
    fn from(invalid: &Invalid) -> Self {
        let mut refusal = Self::new(invalid.class, invalid.message.clone());
        refusal.0.param.clone_from(&invalid.param);
        refusal.0.code = invalid.code.map(str::to_owned);
        refusal
    }
}

impl From<PeekError> for Refusal {
    fn from(error: PeekError) -> Self {
        let refusal = Self::new(ErrorClass::InvalidRequest, error.to_string());
        match error.field() {
            Some(field) => refusal.param(field),
            None => refusal,
        }
    }
}

impl From<Unresolved> for Refusal {
    fn from(unresolved: Unresolved) -> Self {
        let class = match &unresolved {
            Unresolved::UnknownModel { .. } | Unresolved::Direct(_) => ErrorClass::NotFound,
            Unresolved::DirectFormat(_) => ErrorClass::InvalidRequest,
            Unresolved::ModelDenied(_) | Unresolved::ProvidersDenied(_) => ErrorClass::Forbidden,
            Unresolved::NoTarget(_) => ErrorClass::Overloaded,
        };
        Self::new(class, unresolved.to_string()).param("model")
    }
}

/// Writes down a refusal and tells the client.
pub(super) fn settle(exchange: &mut Exchange, refusal: &Refusal) -> Response<Body> {
    let response = answer(
        exchange.protocol(),
        refusal,
        &exchange.id(),
        exchange.attempts(),
    );
    if let Some(capture) = exchange.capture() {
        capture.answers(response.status().as_u16(), response.headers());
        if let Body::Full(body) = response.body() {
            capture.relayed(body);
        }
    }
    exchange.refused(
        &refusal.0.message,
        response.status().as_u16(),
        refusal.0.outcome,
    );
    response
}

/// A refusal as a response in the client's protocol.
#[must_use]
pub fn answer(
    protocol: Protocol,
    refusal: &Refusal,
    id: &Uuid,
    attempts: &[Attempt],
) -> Response<Body> {
    let mut response = match &refusal.0.raw {
        Some((status, raw)) => passed_on(*status, raw),
        None => encoded(protocol, refusal, id, attempts),
    };
    let headers = response.headers_mut();
    if let Ok(route) = HeaderValue::try_from(route(attempts)) {
        headers.insert("x-plexus-route", route);
    }
    let source = match refusal.0.source {
        Source::Gateway => "gateway",
        Source::Provider => "provider",
    };
    headers.insert("x-plexus-error-source", HeaderValue::from_static(source));
    if let Some(after) = refusal.0.retry_after {
        tell_retry(headers, after);
    }
    if let Some(exceeded) = &refusal.0.quota {
        quota::tell_refusal(headers, protocol, exceeded);
    }
    response
}

fn encoded(
    protocol: Protocol,
    refusal: &Refusal,
    id: &Uuid,
    attempts: &[Attempt],
) -> Response<Body> {
    let mut body = ErrorBody::new(refusal.0.class, refusal.0.message.clone(), refusal.0.source);
    body.code.clone_from(&refusal.0.code);
    body.param.clone_from(&refusal.0.param);
    body.attempts = attempts.iter().map(note).collect();
    body.retry_after = refusal.0.retry_after;
    body.quota = refusal.0.quota.as_ref().and_then(quota::note);
    let (status, bytes) = error::encode(protocol, &body, &id.to_string());
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = refusal.0.status.unwrap_or(status);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    response
}

/// The provider's own error, byte for byte.
fn passed_on(status: StatusCode, raw: &RawAnswer) -> Response<Body> {
    let mut response = Response::new(Body::from(raw.body.clone()));
    *response.status_mut() = status;
    *response.headers_mut() = raw.headers.clone();
    crate::upstream::relay_headers(response.headers_mut());
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

/// An attempt as the client is told of it. How a provider refused the operator's
/// credentials stays in the log.
fn note(attempt: &Attempt) -> AttemptNote {
    let hidden = matches!(attempt.status, Some(401..=403));
    AttemptNote {
        provider: attempt.provider.to_string(),
        model: attempt.model.to_string(),
        status: attempt.status.filter(|_| !hidden),
        reason: if hidden {
            REFUSED.to_owned()
        } else {
            attempt.reason.clone()
        },
    }
}

const REFUSED: &str = "the provider refused the gateway's credentials";

fn route(attempts: &[Attempt]) -> String {
    let tried: Vec<&Attempt> = attempts.iter().filter(|a| a.result.counts()).collect();
    match tried.last() {
        Some(last) => format!("{}/{}; attempts={}", last.provider, last.model, tried.len()),
        None => "none; attempts=0".into(),
    }
}

/// Whole seconds for everybody, milliseconds for the SDKs that read them first.
fn tell_retry(headers: &mut HeaderMap, after: Duration) {
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    if let Ok(milliseconds) = HeaderValue::try_from(after.as_millis().to_string()) {
        headers.insert("retry-after-ms", milliseconds);
    }
}

/// Every candidate was tried or passed over. `unsaid` is why the first of those
/// that were passed over could not be asked.
pub(super) fn all_failed(
    exchange: &Exchange,
    last: Option<Box<Failure>>,
    unsaid: Option<&Invalid>,
) -> Refusal {
    let Some(failure) = last else {
        return match unsaid {
            Some(invalid) => Refusal::from(invalid),
            None => Refusal::new(ErrorClass::Overloaded, "no target could be asked".into()),
        };
    };
    let tried = exchange
        .attempts()
        .iter()
        .filter(|a| a.result == AttemptResult::Failed);
    let summary: Vec<String> = tried
        .map(|a| format!("{}/{} ({})", a.provider, a.model, a.tag))
        .collect();
    let hidden = hides_detail(&failure);
    let last = exchange.attempts().last();
    let same = last.is_some_and(|attempt| attempt.protocol == exchange.protocol());
    if summary.len() == 1
        && same
        && !hidden
        && let Some(refusal) = as_it_came(&failure)
    {
        return refusal.with_raw(failure);
    }
    let reason = if hidden {
        REFUSED
    } else {
        failure.error.message.as_str()
    };
    let mut refusal = Refusal::new(
        class_of(&failure),
        format!(
            "All targets failed: {}. Last error: {reason}",
            summary.join(", ")
        ),
    );
    refusal.0.source = Source::Provider;
    refusal.0.retry_after = failure.error.retry_after;
    refusal.0.code.clone_from(&failure.error.code);
    if hidden {
        refusal.0.code = None;
    }
    refusal
}

/// The operator's credentials are no business of the client's.
fn hides_detail(failure: &Failure) -> bool {
    failure.error.class == ErrorClass::UpstreamAuth
        || failure
            .status
            .is_some_and(|status| matches!(status.as_u16(), 401..=403))
}

fn class_of(failure: &Failure) -> ErrorClass {
    if hides_detail(failure) {
        return ErrorClass::UpstreamAuth;
    }
    match failure.kind {
        FailureKind::Timeout | FailureKind::Stall => ErrorClass::Timeout,
        FailureKind::Connect | FailureKind::Network => ErrorClass::UpstreamFailed,
        FailureKind::Status | FailureKind::Answer | FailureKind::Empty => match failure.error.class
        {
            // The account behind the provider is empty; the client's is not.
            ErrorClass::Quota => ErrorClass::RateLimited,
            ErrorClass::Auth | ErrorClass::Internal => ErrorClass::UpstreamFailed,
            class => class,
        },
    }
}

/// A single provider of the client's own protocol speaks for itself.
fn as_it_came(failure: &Failure) -> Option<Refusal> {
    let raw = failure.raw.as_ref()?;
    let json = raw
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let json = json.is_some_and(|value| value.starts_with("application/json"));
    // A redirect is never followed, by nobody.
    let error = failure
        .status
        .is_some_and(|status| status.is_client_error() || status.is_server_error());
    if !raw.whole || !json || !error || raw.body.is_empty() {
        return None;
    }
    let mut refusal = Refusal::new(class_of(failure), failure.error.message.clone());
    refusal.0.source = Source::Provider;
    refusal.0.retry_after = failure.error.retry_after;
    Some(refusal)
}

impl Refusal {
    fn with_raw(mut self, failure: Box<Failure>) -> Self {
        self.0.raw = failure.status.zip(failure.raw);
        self
    }
}
