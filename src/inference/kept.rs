//! Answers of the Responses API that were kept: read, listed, deleted, cancelled,
//! by the key that made them and nobody else. What a provider keeps itself is
//! asked of that provider.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Refusal, failure, finish, wall_ms};
use crate::app::Core;
use crate::auth;
use crate::body::{self, Body};
use crate::config::{Config, Provider};
use crate::protocol::Protocol;
use crate::protocol::error::ErrorClass;
use crate::store::{StoreError, StoredResponse};
use crate::upstream::Outbound;

/// Time for a provider to answer for what it keeps.
const PROVIDER_TIME: Duration = Duration::from_secs(30);
/// The largest answer that is taken from it.
const LARGEST: usize = 32 << 20;

/// What is wanted of an answer that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The answer.
    Get,
    /// That it be forgotten.
    Delete,
    /// What it was an answer to.
    Items,
    /// That it be broken off.
    Cancel,
}

/// Answers for one that was kept.
pub async fn answer(
    core: Arc<Core>,
    address: Option<IpAddr>,
    what: Kept,
    id: String,
    request: Request<Incoming>,
) -> Response<Body> {
    let own = core.request_id(wall_ms());
    let answered = look(&core, address, what, &id, &request).await;
    let response = answered
        .unwrap_or_else(|refusal| failure::answer(Protocol::Responses, &refusal, &own, &[]));
    finish(response, &own, None)
}

async fn look(
    core: &Arc<Core>,
    address: Option<IpAddr>,
    what: Kept,
    id: &str,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let config = core.app.live.load();
    let (headers, query) = (request.headers(), request.uri().query());
    let address = auth::client_address(&config.server.trusted_proxies, address, headers);
    let caller = auth::caller(&config, headers, query, address, wall_ms())?;
    let key = Arc::clone(&caller.key.name);
    let asked = query.unwrap_or_default();
    if what == Kept::Get && asked.split('&').any(|pair| pair == "stream=true") {
        let message = "a kept answer can't be streamed again; leave 'stream' out";
        return Err(Refusal::new(ErrorClass::InvalidRequest, message.into()).param("stream"));
    }
    let found = blocking(core, id, &key, |core, id, key| {
        core.app.store.response(id, key, wall_ms())
    });
    let answer = found.await?.ok_or_else(|| {
        let message = format!("Response with id '{id}' not found.");
        Refusal::new(ErrorClass::NotFound, message).code("not_found")
    })?;
    if let Some(response) = at_provider(core, &config, &answer, what, asked).await {
        if what == Kept::Delete {
            forget(core, id, &key).await?;
        }
        return Ok(response);
    }
    let json = match what {
        Kept::Get => answer.response,
        Kept::Items => items(&answer, asked)?.to_string(),
        Kept::Cancel => {
            let message = "Cannot cancel a synchronous response.";
            return Err(Refusal::new(ErrorClass::InvalidRequest, message.into()));
        }
        Kept::Delete => {
            forget(core, id, &key).await?;
            json!({ "id": id, "object": "response", "deleted": true }).to_string()
        }
    };
    Ok(body::json(StatusCode::OK, json))
}

async fn forget(core: &Arc<Core>, id: &str, key: &str) -> Result<(), Refusal> {
    let deleting = blocking(core, id, key, |core, id, key| {
        core.app.store.delete_response(id, key)
    });
    deleting.await.map(drop)
}

/// Runs something that waits for the database on a thread of its own.
async fn blocking<T: Send + 'static>(
    core: &Arc<Core>,
    id: &str,
    key: &str,
    work: fn(&Core, &str, &str) -> Result<T, StoreError>,
) -> Result<T, Refusal> {
    let (core, id, key) = (Arc::clone(core), id.to_owned(), key.to_owned());
    let done = tokio::task::spawn_blocking(move || work(&core, &id, &key)).await;
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::error!(%error, "a kept answer could not be reached");
            Err(Refusal::internal())
        }
        Err(_) => Err(Refusal::internal()),
    }
}

/// What the provider says that keeps the answer itself; `None` when none does, or
/// it can't be reached.
async fn at_provider(
    core: &Arc<Core>,
    config: &Config,
    answer: &StoredResponse,
    what: Kept,
    query: &str,
) -> Option<Response<Body>> {
    if !answer.upstream {
        return None;
    }
    let provider = config.providers.get(answer.provider.as_str())?;
    let asking = ask(core, provider, &answer.id, what, query);
    let (status, body) = tokio::time::timeout(PROVIDER_TIME, asking).await.ok()??;
    let text = String::from_utf8(body).ok()?;
    let understood = status.is_success() || (what == Kept::Cancel && status.is_client_error());
    understood.then(|| body::json(status, text))
}

async fn ask(
    core: &Arc<Core>,
    provider: &Provider,
    id: &str,
    what: Kept,
    query: &str,
) -> Option<(StatusCode, Vec<u8>)> {
    let endpoint = provider.endpoint(Protocol::Responses)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !id.chars().all(plain) {
        return None;
    }
    let (method, tail) = match what {
        Kept::Get => (Method::GET, String::new()),
        Kept::Delete => (Method::DELETE, String::new()),
        Kept::Items => (Method::GET, format!("/input_items{}", passed(query))),
        Kept::Cancel => (Method::POST, "/cancel".to_owned()),
    };
    let suffix = format!("/responses/{id}{tail}").into();
    let headers = HeaderMap::new();
    let outbound =
        Outbound::new(provider, endpoint, suffix, &headers, Vec::new()).with_method(method);
    let build = |wire| outbound.build(wire);
    let sent = core
        .client
        .send(outbound.origin(), None, &build)
        .await
        .ok()?;
    let (head, mut body) = sent.into_parts();
    let mut read = Vec::new();
    while let Some(chunk) = body.chunk().await {
        read.extend_from_slice(&chunk.ok()?);
        if read.len() > LARGEST {
            return None;
        }
    }
    Some((head.status, read))
}

/// The paging part of a query, without the client's key.
fn passed(query: &str) -> String {
    let wanted = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        matches!(name, "limit" | "order" | "after" | "include" | "include[]")
    };
    let pairs: Vec<&str> = query.split('&').filter(wanted).collect();
    if pairs.is_empty() {
        return String::new();
    }
    format!("?{}", pairs.join("&"))
}

/// A page of the input items, newest first unless asked otherwise.
fn items(answer: &StoredResponse, query: &str) -> Result<Value, Refusal> {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let limit = match value("limit").map(str::parse::<usize>) {
        None => 20,
        Some(Ok(limit @ 1..=100)) => limit,
        Some(_) => return Err(wrong("limit", "a number from 1 to 100")),
    };
    let mut all: Vec<Value> = serde_json::from_str(&answer.input).unwrap_or_default();
    match value("order").unwrap_or("desc") {
        "desc" => all.reverse(),
        "asc" => {}
        _ => return Err(wrong("order", "'asc' or 'desc'")),
    }
    let from = match value("after") {
        None => 0,
        Some(after) => {
            let at = all.iter().position(|item| item["id"] == after);
            at.ok_or_else(|| wrong("after", "the id of an input item"))? + 1
        }
    };
    let has_more = all.len() > from + limit;
    let page: Vec<Value> = all.into_iter().skip(from).take(limit).collect();
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    Ok(json!({
        "object": "list",
        "first_id": id(page.first()),
        "last_id": id(page.last()),
        "has_more": has_more,
        "data": page,
    }))
}

fn wrong(field: &str, wanted: &str) -> Refusal {
    let message = format!("Invalid '{field}': {wanted} is wanted");
    Refusal::new(ErrorClass::InvalidRequest, message).param(field)
}
