//! The management API: one file per resource, verbs in the order list, get,
//! put, patch, delete. Access was checked by the route table before a handler
//! is called; a limited principal sees what belongs to its key.

pub mod aliases;
pub mod auth;
pub mod backup;
pub mod cache;
pub mod concurrency;
pub mod config;
pub mod cooldowns;
pub mod debug;
pub mod errors;
pub mod events;
pub mod fetch_models;
pub mod huggingface;
pub mod keys;
pub mod logging;
pub mod logs;
pub mod metadata;
pub mod metrics;
pub mod own;
pub mod performance;
pub mod providers;
pub mod quota;
pub mod replay;
pub mod route;
pub mod settings;
pub mod summary;
pub mod trial;
pub mod usage;
pub mod user_quotas;

mod entry;
mod tag;
mod write;

use std::fs::File;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::app::{App, Core};
use crate::auth::Principal;
use crate::body::{self, Body, ReadError};
use crate::config::Config;
use crate::router::{Params, query_pairs};
use crate::store::StoreError;
use tag::{Condition, Tag};

/// Largest body of a management request: a configuration file with room to
/// spare.
const BODY_LIMIT: u64 = 16 * 1024 * 1024;
/// Longest pause inside one.
const BODY_IDLE: Duration = Duration::from_secs(30);

/// What a management endpoint does.
pub type Answer = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;
/// What serves a management endpoint.
pub type Handler = fn(Call) -> Answer;

/// One management request, let in.
#[derive(Debug)]
pub struct Call {
    /// The handles.
    pub core: Arc<Core>,
    /// The configuration in force when it came.
    pub config: Arc<Config>,
    /// Who calls.
    pub principal: Principal,
    /// The path's parameters.
    pub params: Params,
    /// The method.
    pub method: Method,
    /// The header fields.
    pub headers: HeaderMap,
    query: Vec<(String, String)>,
    body: Option<Incoming>,
}

impl Call {
    pub(crate) fn new(
        core: Arc<Core>,
        config: Arc<Config>,
        principal: Principal,
        params: Params,
        request: Request<Incoming>,
    ) -> Self {
        let (head, body) = request.into_parts();
        let query = head.uri.query().map(query_pairs).unwrap_or_default();
        Self {
            core,
            config,
            principal,
            params,
            method: head.method,
            headers: head.headers,
            query,
            body: Some(body),
        }
    }

    /// The handles that all cores share.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.core.app
    }

    /// A query parameter; the last one of that name, empty ones count as absent.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|value| !value.is_empty())
    }

    /// A query parameter as it was given, be it empty.
    #[must_use]
    pub fn given(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().rev().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// A query parameter that is a whole number from 0.
    ///
    /// # Errors
    ///
    /// 400 that says what was found.
    pub fn whole(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.query(name).map(|text| whole(name, text)).transpose()
    }

    /// Refuses query parameters that are not among these. For what deletes: a
    /// misspelt restriction must not become none.
    ///
    /// # Errors
    ///
    /// 400 that names the parameter.
    pub fn takes_only(&self, known: &[&str]) -> Result<(), Refusal> {
        let mut names = self.query.iter().map(|(name, _)| name.as_str());
        match names.find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Refusal::bad(format!(
                "unknown query parameter {name:?}; nothing was deleted"
            ))),
        }
    }

    /// The key's name when the caller is limited to it.
    #[must_use]
    pub fn only_key(&self) -> Option<Arc<str>> {
        match &self.principal {
            Principal::Admin => None,
            Principal::Limited(key) => Some(Arc::clone(&key.name)),
        }
    }

    /// The request's body, whole.
    ///
    /// # Errors
    ///
    /// 413 over the limit, 408 when it stalls, 400 when it breaks off.
    pub async fn body(&mut self) -> Result<Bytes, Refusal> {
        match self.body.take() {
            Some(body) => Ok(body::read_joined(body, BODY_LIMIT, BODY_IDLE).await?),
            None => Ok(Bytes::new()),
        }
    }

    /// The request's body, written into a file as it comes.
    ///
    /// # Errors
    ///
    /// As [`Call::body`], and 500 when the disk is full.
    pub async fn receive(&mut self, limit: u64, mut file: File) -> Result<File, Refusal> {
        let Some(body) = self.body.take() else {
            return Ok(file);
        };
        let (sender, mut pieces) = mpsc::channel::<Bytes>(16);
        let written = tokio::task::spawn_blocking(move || {
            while let Some(piece) = pieces.blocking_recv() {
                file.write_all(&piece)?;
            }
            Ok::<_, std::io::Error>(file)
        });
        let handed_on = body::hand_on(body, limit, BODY_IDLE, sender).await;
        let written = written.await;
        handed_on?;
        let file = written.map_err(|error| Refusal::failed(error.to_string()))?;
        file.map_err(|error| backup::unreceived(&error))
    }

    /// The request's body as a JSON object.
    ///
    /// # Errors
    ///
    /// As [`Call::body`], and 400 when it is no JSON object.
    pub async fn object(&mut self) -> Result<serde_json::Map<String, Value>, Refusal> {
        let body = self.body().await?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(Refusal::bad("Object body is required")),
            Err(error) if body.is_empty() => {
                tracing::debug!(%error, "an empty body where JSON was wanted");
                Err(Refusal::bad("Object body is required"))
            }
            Err(error) => Err(Refusal::bad(format!("Body is not valid JSON: {error}"))),
        }
    }
}

/// What a management handler answers with.
#[derive(Debug)]
pub struct Reply {
    status: StatusCode,
    content_type: HeaderValue,
    tag: Option<HeaderValue>,
    body: Body,
    /// Name and length of what is to be saved as a file.
    attachment: Option<(HeaderValue, u64)>,
}

impl Reply {
    /// 200 with Server-Sent Events.
    #[must_use]
    pub fn events(feed: mpsc::Receiver<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static("text/event-stream; charset=utf-8"),
            tag: None,
            body: Body::Feed(feed),
            attachment: None,
        }
    }

    /// 200 with a file of that name and length, as it comes.
    ///
    /// # Errors
    ///
    /// The name can't stand in a header.
    pub fn attachment(
        content_type: &'static str,
        name: &str,
        length: u64,
        feed: mpsc::Receiver<Bytes>,
    ) -> Result<Self, Refusal> {
        let disposition = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
        let disposition = disposition.map_err(|error| Refusal::failed(error.to_string()))?;
        Ok(Self {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static(content_type),
            tag: None,
            body: Body::Feed(feed),
            attachment: Some((disposition, length)),
        })
    }

    /// 200 with JSON.
    #[must_use]
    pub fn json(value: &Value) -> Self {
        Self::typed("application/json; charset=utf-8", value.to_string())
    }

    /// 200 with a body of that type.
    #[must_use]
    pub fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: HeaderValue::from_static(content_type),
            tag: None,
            body: Body::from(body.into()),
            attachment: None,
        }
    }

    /// The same with the tag of the state that it tells, or has made.
    fn tagged(mut self, tag: &Tag) -> Self {
        self.tag = tag.value();
        self
    }
}

/// A management request that is refused.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    tag: Option<HeaderValue>,
    body: Value,
}

impl Refusal {
    /// `{"error": message}` with that status.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            tag: None,
            body: json!({ "error": message.into() }),
        }
    }

    /// 400.
    #[must_use]
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 500, with what failed.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 409: the request is in order, but not with what is there.
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// The same with what would have been right.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Some(body) = self.body.as_object_mut() {
            body.insert(name.to_owned(), value.into());
        }
        self
    }

    /// The same details under another status and message.
    fn retold(mut self, status: StatusCode, message: &str) -> Self {
        self.status = status;
        if let Some(body) = self.body.as_object_mut() {
            body.insert("error".to_owned(), message.into());
        }
        self
    }

    /// The same with the faults found, one by one.
    #[must_use]
    pub fn with_details(self, details: Vec<Value>) -> Self {
        self.with("details", details)
    }

    /// The same with the tag of the state that it met.
    fn tagged(mut self, tag: Option<&Tag>) -> Self {
        self.tag = tag.and_then(Tag::value);
        self
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let status = match error {
            ReadError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            ReadError::Idle(_) => StatusCode::REQUEST_TIMEOUT,
            ReadError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = match &error {
            StoreError::Database(_) | StoreError::Sealed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            StoreError::Timeout | StoreError::Closed | StoreError::Busy | StoreError::TooSlow => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        tracing::warn!(%error, "a management request to the store failed");
        Self::new(status, error.to_string())
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: refusal.status,
            content_type: JSON,
            tag: refusal.tag,
            body: Body::from(refusal.body.to_string()),
            attachment: None,
        }
    }
}

/// Runs a handler.
pub(crate) async fn answer(handler: Handler, call: Call) -> Response<Body> {
    let condition = (call.method == Method::GET).then(|| Condition::of(&call.headers));
    let reply = handler(call).await.unwrap_or_else(Reply::from);
    let known = reply
        .tag
        .as_ref()
        .zip(condition)
        .is_some_and(|(tag, condition)| condition.has(tag));
    let (status, body) = match known && reply.status == StatusCode::OK {
        true => (StatusCode::NOT_MODIFIED, Body::Empty),
        false => (reply.status, reply.body),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, reply.content_type);
    if let Some(tag) = reply.tag {
        headers.insert(header::ETAG, tag);
    }
    if let Some((disposition, length)) = reply.attachment {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    // Answers hold secrets; nothing on the way may keep or sniff them.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// No credential, or none that is one.
pub(crate) fn unauthorized(core: &Core) -> Response<Body> {
    core.app.metrics.unauthorized();
    body::json(
        StatusCode::UNAUTHORIZED,
        json!({ "error": { "message": "Unauthorized", "type": "auth_error", "code": 401 } })
            .to_string(),
    )
}

/// Too many credentials from there were none; this one was not looked at.
pub(crate) fn throttled(core: &Core, seconds: i64) -> Response<Body> {
    core.app.metrics.unauthorized();
    let message = format!("Too many wrong credentials from this address; wait {seconds} s");
    let mut response = body::json(
        StatusCode::TOO_MANY_REQUESTS,
        json!({ "error": { "message": message, "type": "auth_error", "code": 429 } }).to_string(),
    );
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// An inference key where the admin key is wanted.
pub(crate) fn forbidden() -> Response<Body> {
    body::json(
        StatusCode::FORBIDDEN,
        json!({ "error": { "message": "Admin privileges required", "type": "forbidden", "code": 403 } }).to_string(),
    )
}

/// Runs work that blocks (files, SQLite) on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            tracing::error!(%error, "a management task failed");
            Err(Refusal::failed("internal error"))
        }
    }
}

fn whole(name: &str, text: &str) -> Result<u64, Refusal> {
    text.trim().parse().map_err(|_| {
        Refusal::bad(format!(
            "{name}: found {text:?}; a whole number from 0 is wanted"
        ))
    })
}
