//! `GET /v1/models` and its kin: what can be asked for, in the shape that the
//! asking SDK expects. No key is needed; with one, only what it may use is
//! listed.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Refusal, failure, metadata, wall_ms};
use crate::app::Core;
use crate::auth;
use crate::body::Body;
use crate::catalogue::Catalogues;
use crate::config::{Alias, Config, permits};
use crate::protocol::Protocol;
use crate::protocol::error::ErrorClass;
use crate::protocol::models::{self, ModelInfo, Shape};

/// The list, or the model of that name.
pub fn answer(core: &Arc<Core>, model: &str, request: &Request<Incoming>) -> Response<Body> {
    let config = core.app.live.load();
    let uri = request.uri();
    let shape = models::shape_for(uri.path(), uri.query(), request.headers());
    let started = core
        .app
        .started
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let created = i64::try_from(started.as_secs()).unwrap_or(i64::MAX);
    let caller = auth::caller(&config, request.headers(), uri.query(), None, wall_ms()).ok();
    let visible = |alias: &Alias| {
        caller.as_ref().is_none_or(|caller| {
            permits(
                &caller.key.allowed_models,
                &caller.key.excluded_models,
                &alias.id,
            )
        })
    };
    if model.is_empty() {
        let listed: Vec<ModelInfo> = listed(&config, &core.app.catalogues, created)
            .filter(|(alias, _)| visible(alias))
            .map(|(_, info)| info)
            .collect();
        return match models::encode_list(shape, &listed, uri.query()) {
            Ok(text) => cached(text, created, request.headers()),
            Err(message) => refused(shape, &Refusal::new(ErrorClass::InvalidRequest, message)),
        };
    }
    let name = model.strip_prefix("models/").unwrap_or(model);
    let found = config.alias(name).filter(|alias| visible(alias));
    match found {
        Some(alias) => cached(
            models::encode_one(shape, &info(&config, &core.app.catalogues, alias, created)),
            created,
            request.headers(),
        ),
        None => {
            let message = format!("Model '{name}' not found in configuration");
            refused(
                shape,
                &Refusal::new(ErrorClass::NotFound, message).param("model"),
            )
        }
    }
}

/// A Gemini path whose action is none of those that are served.
pub fn unknown_action(rest: &str) -> Response<Body> {
    let message = format!(
        "'{rest}' is not served; wanted {{model}}:generateContent, {{model}}:streamGenerateContent or {{model}}:countTokens"
    );
    refused(Shape::Gemini, &Refusal::new(ErrorClass::NotFound, message))
}

fn listed<'c>(
    config: &'c Config,
    catalogues: &'c Catalogues,
    created: i64,
) -> impl Iterator<Item = (&'c Arc<Alias>, ModelInfo)> {
    let aliases = config.aliases.values();
    aliases.map(move |alias| (alias, info(config, catalogues, alias, created)))
}

/// What an alias says of itself: its `metadata.overrides` are the members of
/// the OpenAI shape, over those of the catalogue that it names.
fn info(config: &Config, catalogues: &Catalogues, alias: &Alias, created: i64) -> ModelInfo {
    let shown = metadata::shown(catalogues, alias);
    let overrides = shown.as_ref();
    let text = |name: &str| overrides?.get(name)?.as_str().map(str::to_owned);
    let number = |name: &str| overrides?.get(name)?.as_u64();
    let top_provider = |name: &str| overrides?.get("top_provider")?.get(name)?.as_u64();
    ModelInfo {
        id: alias.id.to_string(),
        created,
        display_name: text("name"),
        description: text("description"),
        context: number("context_length").or_else(|| top_provider("context_length")),
        max_output: top_provider("max_completion_tokens"),
        preferred_api: alias.preferred_api.clone(),
        metadata: with_images(config, alias, overrides.cloned()),
    }
}

/// An alias whose images are described takes images, whatever its targets see.
fn with_images(config: &Config, alias: &Alias, metadata: Option<Value>) -> Option<Value> {
    if !alias.describes_images || config.vision.descriptor.is_none() {
        return metadata;
    }
    let mut metadata = metadata.unwrap_or_else(|| json!({}));
    let architecture = metadata.get("architecture").and_then(Value::as_object);
    let mut architecture = architecture.cloned().unwrap_or_default();
    let known = architecture
        .get("input_modalities")
        .and_then(Value::as_array);
    let mut inputs = known.cloned().unwrap_or_else(|| vec![json!("text")]);
    if !inputs.iter().any(|input| input == "image") {
        inputs.push(json!("image"));
    }
    architecture.insert("input_modalities".into(), inputs.into());
    metadata["architecture"] = architecture.into();
    Some(metadata)
}

fn refused(shape: Shape, refusal: &Refusal) -> Response<Body> {
    let protocol = match shape {
        Shape::OpenAi | Shape::Codex => Protocol::Chat,
        Shape::Anthropic => Protocol::Messages,
        Shape::Gemini => Protocol::Gemini,
    };
    failure::answer(protocol, refusal, &Uuid::now_v7(), &[])
}

/// With an entity tag, so that SDKs that poll get a 304.
fn cached(text: String, changed: i64, asked: &HeaderMap) -> Response<Body> {
    let hash: String = digest(&SHA256, text.as_bytes())
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let tag = format!("\"{hash}\"");
    let mut response = Response::new(Body::Empty);
    let same = asked
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(',')
                .any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*")
        });
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(text);
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    if let Some(date) = http_date(changed) {
        headers.insert(header::LAST_MODIFIED, date);
    }
    headers.insert(
        header::VARY,
        HeaderValue::from_static("authorization, x-api-key, x-goog-api-key, anthropic-version"),
    );
    response
}

/// IMF-fixdate (RFC 9110, 5.6.7).
fn http_date(seconds: i64) -> Option<HeaderValue> {
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    HeaderValue::try_from(time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}
