//! What a provider offers: `POST /v0/management/providers/fetch-models`.
//!
//! The URL comes from outside, so where it may lead is decided by addresses.
//! Those of providers that are configured are open: requests go there anyway.

use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderValue, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Answer, Call, Refusal, Reply};
use crate::config::Config;
use crate::upstream::{Fetch, FetchError, Fetched};

/// Time for the whole answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of it: the longest known lists have some megabytes.
const MOST: usize = 8 << 20;
/// Most characters of a provider's complaint that are passed on.
const MOST_DETAILS: usize = 2_000;
const HIDDEN: &str = "[redacted]";

/// The models that a provider lists at a URL, as OpenAI lists them.
pub fn fetch_models(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await.map_err(|refusal| {
            let message = refusal.body["error"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            wrong(refusal.status, "validation_error", &message)
        })?;
        let (url, key) = asked(&body)?;
        let fetch = Fetch {
            at_home: is_configured(&call.config, &url),
            url,
            bearer: key.map(bearer).transpose()?,
            most: MOST,
            limit: LIMIT,
        };
        let fetched = call.app().connector().fetch(fetch).await;
        let fetched = fetched.map_err(|error| unfetched(&error))?;
        if !fetched.status.is_success() {
            return Err(complaint(&fetched, key));
        }
        let models = models(&fetched.body).ok_or_else(|| {
            let message =
                "the answer is no list of models: neither \"data\" nor \"models\" is a list in it";
            wrong(StatusCode::BAD_GATEWAY, "provider_error", message)
        })?;
        Ok(Reply::json(&json!({ "data": models })))
    })
}

fn asked(body: &Map<String, Value>) -> Result<(Uri, Option<&str>), Refusal> {
    let bad = |message: &str| wrong(StatusCode::BAD_REQUEST, "validation_error", message);
    if let Some(name) = body
        .keys()
        .find(|name| !["url", "apiKey"].contains(&name.as_str()))
    {
        return Err(bad(&format!(
            "{name}: unknown field; url and apiKey are known"
        )));
    }
    let url = match body.get("url") {
        Some(Value::String(url)) => url.trim(),
        Some(other) => return Err(bad(&format!("url: found {other}; text is wanted"))),
        None => return Err(bad("url is missing")),
    };
    let key = match body.get("apiKey") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => Some(key.trim()).filter(|key| !key.is_empty()),
        Some(_) => return Err(bad("apiKey: text is wanted")),
    };
    if key.is_some_and(|key| key.starts_with("$env:")) {
        return Err(bad(
            "apiKey: a reference is not looked up here; the key itself is wanted",
        ));
    }
    // What stands behind # is the browser's business.
    let url = url.split('#').next().unwrap_or_default();
    let parsed: Result<Uri, _> = url.parse();
    let parsed = parsed
        .ok()
        .filter(|url| url.host().is_some_and(|host| !host.is_empty()));
    let parsed = parsed.filter(|url| url.scheme().is_some());
    Ok((
        parsed.ok_or_else(|| bad(&format!("url: {url:?} is no URL with a host")))?,
        key,
    ))
}

fn bearer(key: &str) -> Result<HeaderValue, Refusal> {
    let value = HeaderValue::from_str(&format!("Bearer {key}"));
    let mut value = value.map_err(|_| {
        let message = "apiKey: it has characters that no header can hold";
        wrong(StatusCode::BAD_REQUEST, "validation_error", message)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether some provider is spoken to at the URL's host and port.
fn is_configured(config: &Config, url: &Uri) -> bool {
    let port = |scheme: Option<&Scheme>, port: Option<u16>| {
        port.or_else(|| (scheme == Some(&Scheme::HTTP)).then_some(80))
            .unwrap_or(443)
    };
    let wanted = (url.host(), port(url.scheme(), url.port_u16()));
    let mut endpoints = config
        .providers
        .values()
        .flat_map(|provider| &provider.endpoints);
    endpoints.any(|endpoint| {
        let authority = &endpoint.authority;
        let there = port(Some(&endpoint.scheme), authority.port_u16());
        (Some(authority.host()), there) == wanted
    })
}

pub(super) fn wrong(status: StatusCode, kind: &str, message: &str) -> Refusal {
    let mut refusal = Refusal::new(status, message);
    refusal.body = json!({
        "error": { "message": message, "type": kind, "code": status.as_u16() },
    });
    refusal
}

pub(super) fn unfetched(error: &FetchError) -> Refusal {
    let (status, kind) = match error {
        FetchError::Url(_) => (StatusCode::BAD_REQUEST, "validation_error"),
        FetchError::Forbidden(_) => (StatusCode::BAD_REQUEST, "ssrf_blocked"),
        FetchError::Timeout(_) => (StatusCode::GATEWAY_TIMEOUT, "timeout_error"),
        FetchError::Connect(_) | FetchError::Exchange(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "fetch_error")
        }
        FetchError::Redirected(_) | FetchError::TooLarge(_) => {
            (StatusCode::BAD_GATEWAY, "provider_error")
        }
    };
    wrong(status, kind, &error.to_string())
}

/// The provider's own status and words, without the key that it may repeat.
fn complaint(fetched: &Fetched, key: Option<&str>) -> Refusal {
    let text = String::from_utf8_lossy(&fetched.body);
    let text = match key {
        Some(key) => text.replace(key, HIDDEN),
        None => text.into_owned(),
    };
    let details: String = text.chars().take(MOST_DETAILS).collect();
    let code = fetched.status.as_u16();
    let mut refusal = wrong(
        fetched.status,
        "provider_error",
        &format!("the provider answered with status {code}"),
    );
    refusal.body["error"]["details"] = details.into();
    refusal
}

/// A list of models in any of its known forms, as OpenAI has it.
fn models(body: &[u8]) -> Option<Vec<Value>> {
    match serde_json::from_slice(body).ok()? {
        Value::Array(models) => Some(models),
        Value::Object(mut body) => match (body.remove("data"), body.remove("models")) {
            (Some(Value::Array(models)), _) => Some(models),
            (_, Some(Value::Array(models))) => {
                Some(models.into_iter().filter_map(renamed).collect())
            }
            _ => None,
        },
        _ => None,
    }
}

/// A model as Ollama or Google lists it.
fn renamed(model: Value) -> Option<Value> {
    let Value::Object(mut fields) = model else {
        return None;
    };
    let name = fields
        .get("name")
        .or_else(|| fields.get("model"))?
        .as_str()?
        .to_owned();
    let (id, owner) = match name.strip_prefix("models/") {
        Some(id) => (id.to_owned(), "google"),
        None => (name, "ollama"),
    };
    let modified = fields.get("modified_at").and_then(Value::as_str);
    let modified = modified.and_then(|text| text.parse::<Timestamp>().ok());
    let created = modified.map_or(0, Timestamp::as_second);
    let mut model = Map::new();
    model.insert("id".to_owned(), id.into());
    model.insert("object".to_owned(), "model".into());
    model.insert("created".to_owned(), created.into());
    model.insert("owned_by".to_owned(), owner.into());
    fields.retain(|name, _| !model.contains_key(name));
    model.extend(fields);
    Some(Value::Object(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_every_kind_become_one() {
        let openai = models(br#"{"object":"list","data":[{"id":"a","x":1}]}"#).unwrap();
        assert_eq!(openai, [json!({ "id": "a", "x": 1 })]);
        let ollama = br#"{"models":[{"name":"llama3:8b","modified_at":"2024-05-01T12:00:00.5+02:00","size":5,"id":"x"}]}"#;
        let wanted = json!({ "id": "llama3:8b", "object": "model", "created": 1_714_557_600,
            "owned_by": "ollama", "name": "llama3:8b", "modified_at": "2024-05-01T12:00:00.5+02:00", "size": 5 });
        assert_eq!(models(ollama).unwrap(), [wanted]);
        let google = br#"{"models":[{"name":"models/gemini-2.5-pro","inputTokenLimit":1048576},{"nameless":1}]}"#;
        let listed = models(google).unwrap();
        assert_eq!(
            (&listed[0]["id"], listed.len()),
            (&json!("gemini-2.5-pro"), 1)
        );
        assert_eq!(models(br#"[{"id":"b"}]"#).unwrap(), [json!({ "id": "b" })]);
        for none in ["{}", "5", "<html>", r#"{"data":{}}"#] {
            assert_eq!(models(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn a_host_is_known_by_its_port() {
        let config = Config::from_yaml(
            "adminKey: a\nproviders:\n  o: { api_base_url: 'http://localhost:11434/v1', api_key: k }\n  p: { api_base_url: 'https://api.example.com/v1', api_key: k }\n",
        )
        .unwrap();
        for (url, known) in [
            ("http://localhost:11434/api/tags", true),
            ("http://localhost:22/api/tags", false),
            ("https://api.example.com:443/", true),
            ("http://api.example.com/", false),
        ] {
            assert_eq!(
                is_configured(&config, &url.parse().unwrap()),
                known,
                "{url}"
            );
        }
    }
}
