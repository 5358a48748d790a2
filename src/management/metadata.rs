//! The catalogues of models, for who sets up providers and aliases: fetched now,
//! looked into for one model, and listed by maker.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Answer, Call, Refusal, Reply, blocking};
use crate::catalogue::{Catalogues, List, Model, PATIENCE, Source};

/// Most models of a list.
const MOST: usize = 2_000;

/// Fetches all of them. What can't be had is told, and the one that was there
/// goes on.
pub fn refresh(call: Call) -> Answer {
    Box::pin(async move {
        let app = Arc::clone(call.app());
        let runtime = tokio::runtime::Handle::current();
        let fetching = Arc::clone(&app);
        // Their documents are large: not on the thread that serves.
        let outcomes =
            blocking(move || Ok(runtime.block_on(fetching.refresh_catalogues(&Source::ALL))))
                .await?;
        let mut told = Map::new();
        let mut whole = true;
        for (source, outcome) in outcomes {
            whole &= outcome.is_ok();
            let shown = match outcome {
                Ok(count) => json!({ "success": true, "models": count }),
                Err(error) => {
                    let kept = app.catalogues.list(source).map(|list| list.len());
                    json!({ "success": false, "error": error, "models": kept })
                }
            };
            told.insert(source.name().to_owned(), shown);
        }
        Ok(Reply::json(
            &json!({ "success": whole, "sources": Value::Object(told) }),
        ))
    })
}

/// What the catalogues say of a model, whoever is said to have made it. With
/// `source` only that one is asked; `overrides` are laid over what is found, as
/// an alias's are.
pub fn resolve(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await?;
        if let Some(name) = body
            .keys()
            .find(|name| !["model", "source", "overrides"].contains(&name.as_str()))
        {
            let message = format!("{name}: unknown field; model, source and overrides are known");
            return Err(Refusal::bad(message));
        }
        let model = body.get("model").and_then(Value::as_str).map(str::trim);
        let model = model
            .filter(|model| !model.is_empty())
            .ok_or_else(|| Refusal::bad("model is missing; a model's name is wanted"))?;
        await_some(&call, &Source::ALL).await;
        let catalogues = &call.app().catalogues;
        let found = match body.get("source").and_then(Value::as_str) {
            None | Some("auto") => Source::ALL.into_iter().find_map(|source| {
                let (id, model) = likely(catalogues.list(source).as_deref()?, model)?;
                Some((source, id, model))
            }),
            Some(name) => {
                let source = named(name)?;
                let list = loaded(catalogues, &[source])?.1;
                likely(&list, model).map(|(id, model)| (source, id, model))
            }
        };
        let Some((source, id, found)) = found else {
            loaded(catalogues, &Source::ALL)?;
            let message = format!("no catalogue has a model like '{model}'");
            return Err(Refusal::not_found(message));
        };
        let mut shown = shown(&id, &found);
        shown.insert("source".to_owned(), source.name().into());
        shown.insert("source_path".to_owned(), id.into());
        let overrides = body.get("overrides").and_then(Value::as_object);
        shown.extend(
            overrides
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), value.clone())),
        );
        Ok(Reply::json(&json!({ "data": shown })))
    })
}

fn likely(list: &List, name: &str) -> Option<(String, Model)> {
    let (id, model) = list.entry_like(name)?;
    Some((id.to_owned(), model.clone()))
}

fn shown(id: &str, model: &Model) -> Map<String, Value> {
    let mut shown = Map::new();
    shown.insert("id".to_owned(), id.into());
    shown.insert("name".to_owned(), model.name.as_str().into());
    shown.extend(model.members.clone());
    shown
}

/// The catalogues that say who offers a model, the one that says most first.
const BY_MAKER: [Source; 3] = [Source::ModelsDev, Source::Catwalk, Source::OpenRouter];

/// Who offers models, as the first catalogue that is there has it.
pub fn makers(call: Call) -> Answer {
    Box::pin(async move {
        await_some(&call, &BY_MAKER).await;
        let (source, list) = loaded(&call.app().catalogues, &BY_MAKER)?;
        let mut counts: Map<String, Value> = Map::new();
        for (id, _) in list.search("") {
            let count = counts.entry(split(id).0).or_insert_with(|| 0.into());
            *count = (count.as_u64().unwrap_or_default() + 1).into();
        }
        let makers: Vec<Value> = counts
            .into_iter()
            .map(|(id, models)| json!({ "id": id, "models": models }))
            .collect();
        Ok(Reply::json(&json!({
            "count": makers.len(), "data": makers, "source": source.name(),
        })))
    })
}

/// The models that one of them offers, or all, with a text in their names.
pub fn models(call: Call) -> Answer {
    Box::pin(async move {
        await_some(&call, &BY_MAKER).await;
        let (source, list) = loaded(&call.app().catalogues, &BY_MAKER)?;
        let maker = call.query("provider").filter(|maker| !maker.is_empty());
        let found = list.search(call.query("q").unwrap_or_default());
        let found = found.filter(|(id, _)| maker.is_none_or(|maker| split(id).0 == maker));
        let found: Vec<Value> = found
            .take(MOST)
            .map(|(id, model)| {
                let (maker, name) = split(id);
                let mut shown = shown(name, model);
                shown.insert("provider".to_owned(), maker.into());
                Value::Object(shown)
            })
            .collect();
        if found.is_empty()
            && let Some(maker) =
                maker.filter(|maker| list.search("").all(|(id, _)| split(id).0 != *maker))
        {
            let message = format!(
                "nobody called '{maker}' offers models in the catalogue {}",
                source.name()
            );
            return Err(Refusal::not_found(message));
        }
        Ok(Reply::json(&json!({
            "count": found.len(), "data": found, "source": source.name(),
        })))
    })
}

/// The maker, and what it calls the model.
fn split(id: &str) -> (&str, &str) {
    id.split_once('/').unwrap_or(("", id))
}

fn named(name: &str) -> Result<Source, Refusal> {
    Source::from_name(name).ok_or_else(|| {
        let names = Source::ALL.map(Source::name).join(", ");
        Refusal::bad(format!(
            "source: found {name:?}; auto or one of {names} is wanted"
        ))
    })
}

/// Those that nobody had needed before are fetched.
async fn await_some(call: &Call, sources: &[Source]) {
    let catalogues = &call.app().catalogues;
    let settings = &call.app().live.load().catalogue;
    catalogues.first(sources, settings, PATIENCE).await;
}

/// The first of these catalogues that is there.
fn loaded(catalogues: &Catalogues, sources: &[Source]) -> Result<(Source, Arc<List>), Refusal> {
    let mut there = sources
        .iter()
        .filter_map(|source| Some((*source, catalogues.list(*source)?)));
    there.next().ok_or_else(|| {
        let names: Vec<&str> = sources.iter().map(|source| source.name()).collect();
        let message = format!(
            "no catalogue is loaded ({}); POST /v0/management/models/metadata/refresh fetches them",
            names.join(", ")
        );
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })
}
