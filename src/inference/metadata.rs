//! What the catalogues say about models: `/v1/metadata/*` and
//! `/v1/openrouter/models`. No key is needed.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use crate::app::Core;
use crate::body::{self, Body};
use crate::catalogue::{Catalogues, List, PATIENCE, Source};
use crate::config::Alias;
use crate::config::Target;
use crate::router::query_pairs;

/// Models of a search when the caller doesn't say.
const USUAL: usize = 50;
/// Most models of a search.
const MOST: usize = 200;

/// Which of the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// Models by a part of their name.
    Search,
    /// One model by its name.
    Lookup,
    /// The names of OpenRouter's models.
    OpenRouter,
}

/// Answers from the catalogues as they are.
pub async fn answer(core: Arc<Core>, what: Metadata, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().map(query_pairs).unwrap_or_default();
    let given = |name: &str| {
        let found = query.iter().rev().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    };
    let catalogues = &core.app.catalogues;
    let wanted = match what {
        Metadata::OpenRouter => Ok(Source::OpenRouter),
        Metadata::Search | Metadata::Lookup => source(&given),
    };
    if let Ok(source) = wanted {
        let settings = &core.app.live.load().catalogue;
        catalogues.first(&[source], settings, PATIENCE).await;
    }
    let told = match what {
        Metadata::Search => search(catalogues, &given),
        Metadata::Lookup => lookup(catalogues, &given),
        Metadata::OpenRouter => names(catalogues, &given),
    };
    match told {
        Ok(value) => body::json(StatusCode::OK, value.to_string()),
        Err((status, message)) => {
            let kind = if status == StatusCode::BAD_REQUEST {
                "invalid_request_error"
            } else {
                "api_error"
            };
            let error = json!({ "message": message, "type": kind, "code": status.as_u16() });
            body::json(status, json!({ "error": error }).to_string())
        }
    }
}

type Told = Result<Value, (StatusCode, String)>;
type Given<'q> = dyn Fn(&str) -> Option<&'q str> + 'q;

fn search(catalogues: &Catalogues, given: &Given<'_>) -> Told {
    let list = loaded(catalogues, source(given)?)?;
    let limit = match given("limit") {
        None => USUAL,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MOST).contains(limit))
            .ok_or_else(|| {
                let message = format!("limit: found {text:?}; a number from 1 to {MOST} is wanted");
                (StatusCode::BAD_REQUEST, message)
            })?,
    };
    let found = list.search(given("q").unwrap_or_default()).take(limit);
    let found: Vec<Value> = found
        .map(|(id, model)| json!({ "id": id, "name": model.name }))
        .collect();
    Ok(json!({ "count": found.len(), "data": found }))
}

fn lookup(catalogues: &Catalogues, given: &Given<'_>) -> Told {
    let source = source(given)?;
    let path = given("source_path").ok_or_else(|| {
        let message = "source_path is missing; a model's name in the catalogue is wanted";
        (StatusCode::BAD_REQUEST, message.to_owned())
    })?;
    let list = loaded(catalogues, source)?;
    let model = list.find(path).ok_or_else(|| {
        let message = format!("'{path}' is not in the catalogue {}", source.name());
        (StatusCode::NOT_FOUND, message)
    })?;
    let mut shown = Map::new();
    shown.insert("id".to_owned(), path.into());
    shown.extend(model.members.clone());
    Ok(json!({ "data": shown }))
}

fn names(catalogues: &Catalogues, given: &Given<'_>) -> Told {
    let list = loaded(catalogues, Source::OpenRouter)?;
    let found = list.search(given("q").unwrap_or_default());
    let found: Vec<&str> = found.map(|(id, _)| id).collect();
    Ok(json!({ "count": found.len(), "data": found }))
}

fn source(given: &Given<'_>) -> Result<Source, (StatusCode, String)> {
    let name = given("source").unwrap_or_default();
    Source::from_name(name).ok_or_else(|| {
        let names = Source::ALL.map(Source::name).join(", ");
        let message = format!("source: found {name:?}; one of {names} is wanted");
        (StatusCode::BAD_REQUEST, message)
    })
}

fn loaded(catalogues: &Catalogues, source: Source) -> Result<Arc<List>, (StatusCode, String)> {
    catalogues.list(source).ok_or_else(|| {
        let message = format!("the catalogue {} is not loaded", source.name());
        (StatusCode::SERVICE_UNAVAILABLE, message)
    })
}

/// What an alias shows of itself: the catalogue's members where it names one,
/// and its own overrides over them.
pub(super) fn shown(catalogues: &Catalogues, alias: &Alias) -> Option<Value> {
    let metadata = alias.metadata.as_ref()?;
    let mut members = published(catalogues, alias, metadata).unwrap_or_default();
    let own = metadata.get("overrides").and_then(Value::as_object);
    for (name, value) in own.into_iter().flatten() {
        match (members.get_mut(name), value) {
            (Some(Value::Object(within)), Value::Object(more)) => within.extend(more.clone()),
            _ => drop(members.insert(name.clone(), value.clone())),
        }
    }
    (!members.is_empty()).then_some(Value::Object(members))
}

fn published(
    catalogues: &Catalogues,
    alias: &Alias,
    metadata: &Value,
) -> Option<Map<String, Value>> {
    let name = metadata.get("source").and_then(Value::as_str)?;
    if name == "auto" {
        let list = catalogues.list(Source::OpenRouter)?;
        let mut names = std::iter::once(&*alias.id).chain(targets(alias));
        return names.find_map(|name| Some(list.like(name)?.members.clone()));
    }
    let list = catalogues.list(Source::from_name(name)?)?;
    let path = metadata.get("source_path").and_then(Value::as_str)?;
    Some(list.find(path)?.members.clone())
}

fn targets(alias: &Alias) -> impl Iterator<Item = &str> {
    let targets = alias.groups.iter().flat_map(|group| &group.targets);
    targets.filter_map(|target| match target {
        Target::Model { model, .. } => Some(&**model),
        Target::Alias { .. } => None,
    })
}
