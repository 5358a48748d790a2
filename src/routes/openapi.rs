//! The endpoints as an OpenAPI 3.1 document: methods, paths and access from the
//! table that serves them, fields of the configuration from the tables that
//! check the file, the rest from `described`.

mod described;
mod schema;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{Access, Handler, ROUTES, Route};
use crate::management::{Answer, Call, Reply};
use described::{DESCRIBED, Described, Parameter};
use schema::Schema;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// The document as text.
pub(super) fn text() -> &'static str {
    &DOCUMENT
}

/// `/v0/openapi.json`
pub(super) fn managed(_call: Call) -> Answer {
    Box::pin(async { Ok(Reply::typed("application/json; charset=utf-8", text())) })
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths
            .entry(plain(route.pattern))
            .or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Plexus",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A self-hosted gateway for language models. The inference endpoints are those of the protocols' own documentation; what is described here in full is the management API.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schema::named(),
            "securitySchemes": {
                "admin": { "type": "apiKey", "in": "header", "name": "x-admin-key", "description": "The admin key." },
                "own": { "type": "apiKey", "in": "header", "name": "x-admin-key", "description": "An inference key: what belongs to it." },
                "key": { "type": "http", "scheme": "bearer", "description": "An inference key." },
            },
        },
    })
}

/// What is said of an endpoint that has no entry.
const ELSEWHERE: &str = "As the protocol's own documentation says, or the manual.";

/// Routes that nobody has described; the protocols' endpoints are described by
/// those who made the protocols.
#[must_use]
pub fn undescribed() -> Vec<String> {
    let own = |route: &&Route| {
        matches!(
            route.handler,
            Handler::Manage(_) | Handler::Text(..) | Handler::Document
        )
    };
    let missing = ROUTES
        .iter()
        .filter(own)
        .filter(|route| description(route).is_none());
    missing
        .map(|route| format!("{} {}", route.method, route.pattern))
        .collect()
}

/// Descriptions of routes that there are none of.
#[must_use]
pub fn left_over() -> Vec<String> {
    let known = |described: &&Described| {
        ROUTES
            .iter()
            .any(|route| route.method == described.method && route.pattern == described.pattern)
    };
    let left = DESCRIBED.iter().filter(|described| !known(described));
    left.map(|described| format!("{} {}", described.method, described.pattern))
        .collect()
}

fn description(route: &Route) -> Option<&'static Described> {
    DESCRIBED
        .iter()
        .find(|described| route.method == described.method && route.pattern == described.pattern)
}

fn plain(pattern: &str) -> String {
    pattern.replace("..}", "}")
}

fn operation(route: &Route) -> Value {
    let described = description(route);
    let mut operation = Map::new();
    let summary = described.map(|described| described.summary);
    operation.insert("operationId".into(), id(route).into());
    operation.insert("summary".into(), summary.unwrap_or(ELSEWHERE).into());
    operation.insert("tags".into(), json!([tag(route.pattern)]));
    let query = described.map_or(&[][..], |described| described.query);
    let parameters: Vec<Value> = { path_parameters(route.pattern) }
        .chain(query.iter().map(Parameter::to_json))
        .collect();
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if let Some(body) = described.and_then(|described| described.body.as_ref()) {
        operation.insert("requestBody".into(), body.to_json());
    }
    operation.insert("responses".into(), responses(route, described));
    operation.insert("security".into(), security(route.access));
    Value::Object(operation)
}

/// `get_v0_management_usage`
fn id(route: &Route) -> String {
    let words = route.pattern.split(['/', '{', '}', '.']);
    let words = words.filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    format!(
        "{}_{}",
        route.method.as_str().to_ascii_lowercase(),
        words.join("_")
    )
}

/// What an endpoint is about: the word after `/v0/management/`, or the protocol.
fn tag(pattern: &str) -> &str {
    let rest = pattern
        .strip_prefix("/v0/management/")
        .or_else(|| pattern.strip_prefix("/v0/"));
    match rest {
        Some(rest) => rest.split(['/', '.']).next().unwrap_or(rest),
        None if pattern.contains("/models/") && !pattern.ends_with("models") => "models",
        None if pattern.starts_with("/v1") => "inference",
        None => "gateway",
    }
}

fn path_parameters(pattern: &str) -> impl Iterator<Item = Value> {
    let names = pattern.split('{').skip(1);
    let names = names.filter_map(|rest| rest.split('}').next());
    names.map(|name| {
        let (name, described) = match name.strip_suffix("..") {
            Some(name) => (name, "May hold slashes, raw or as %2F."),
            None => (name, ""),
        };
        json!({
            "name": name, "in": "path", "required": true, "description": described,
            "schema": { "type": "string", "minLength": 1 },
        })
    })
}

fn responses(route: &Route, described: Option<&Described>) -> Value {
    let mut responses = Map::new();
    let (kind, schema) = match described {
        Some(described) => (described.answer.0, described.answer.1.to_json()),
        None => ("application/json", json!({})),
    };
    let mut content = Map::new();
    content.insert(kind.to_owned(), json!({ "schema": schema }));
    if let Some(also) = described.and_then(|described| described.also) {
        content.insert(also.to_owned(), json!({ "schema": {} }));
    }
    responses.insert(
        "200".into(),
        json!({ "description": "Answered.", "content": content }),
    );
    let refused = |name: &'static str| {
        json!({
            "description": "Refused, and why.",
            "content": { "application/json": { "schema": Schema::Named(name).to_json() } },
        })
    };
    match route.access {
        Access::Public => {}
        Access::Inference => {
            // In the shape of the protocol that was spoken.
            let any = json!({ "description": "Refused, in the protocol's own shape." });
            responses.entry("default").or_insert(any);
        }
        Access::Admin | Access::Principal => {
            responses
                .entry("401")
                .or_insert_with(|| refused("AuthRefusal"));
            if route.access == Access::Admin {
                responses
                    .entry("403")
                    .or_insert_with(|| refused("AuthRefusal"));
            }
            responses
                .entry("default")
                .or_insert_with(|| refused("Refusal"));
        }
    }
    Value::Object(responses)
}

fn security(access: Access) -> Value {
    match access {
        Access::Public => json!([]),
        Access::Inference => json!([{ "key": [] }]),
        Access::Admin => json!([{ "admin": [] }]),
        Access::Principal => json!([{ "admin": [] }, { "own": [] }]),
    }
}
