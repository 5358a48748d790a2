//! The catalogues' own forms, read into one: what a model is called, and its
//! members as OpenRouter's list and `/v1/models` have them.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::config::CatalogueSettings;

/// Most models that are read of one catalogue.
const MOST: usize = 100_000;

/// Who publishes a catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// OpenRouter's list of models.
    OpenRouter,
    /// models.dev.
    ModelsDev,
    /// Charm's Catwalk.
    Catwalk,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OpenRouter, Self::ModelsDev, Self::Catwalk];

    /// Its name in the file and in queries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenRouter => "openrouter",
            Self::ModelsDev => "models.dev",
            Self::Catwalk => "catwalk",
        }
    }

    /// Where its catalogue is to be had, unless it is not to be fetched.
    #[must_use]
    pub fn address(self, settings: &CatalogueSettings) -> Option<&str> {
        match self {
            Self::OpenRouter => settings.open_router.as_deref(),
            Self::ModelsDev => settings.models_dev.as_deref(),
            Self::Catwalk => settings.catwalk.as_deref(),
        }
    }

    /// The source of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }
}

/// The models of a catalogue, in its order.
#[derive(Debug, Default)]
pub struct List {
    models: IndexMap<Box<str>, Model>,
    /// The first model whose name ends like that, behind the last slash.
    by_ending: HashMap<Box<str>, usize>,
}

/// A model as a catalogue has it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Model {
    /// Its name for people.
    pub name: String,
    /// `name`, `description`, `context_length`, `architecture`, `pricing`
    /// (texts, US dollars per token), `supported_parameters`, `top_provider`;
    /// those that are known.
    pub members: Map<String, Value>,
}

impl List {
    /// Reads a catalogue's document.
    ///
    /// # Errors
    ///
    /// It is none, or it has no model.
    pub fn parse(source: Source, document: &[u8]) -> Result<Self, String> {
        let document: Value =
            serde_json::from_slice(document).map_err(|error| format!("it is not JSON: {error}"))?;
        let found = match source {
            Source::OpenRouter => open_router(&document),
            Source::ModelsDev => models_dev(&document),
            Source::Catwalk => catwalk(&document),
        };
        let mut list = Self::default();
        for (id, members) in found.unwrap_or_default().into_iter().take(MOST) {
            let name = members.get("name").and_then(Value::as_str).unwrap_or(&id);
            let model = Model {
                name: name.to_owned(),
                members,
            };
            let ending = id.rsplit('/').next().unwrap_or_default();
            let (ending, place) = (Box::from(ending), list.models.len());
            list.by_ending.entry(ending).or_insert(place);
            list.models.insert(id.into(), model);
        }
        if list.models.is_empty() {
            return Err(format!(
                "it is no list of models as {} has it",
                source.name()
            ));
        }
        Ok(list)
    }

    /// How many models there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// The model of that very name.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Model> {
        self.models.get(path)
    }

    /// The model of that name, whoever is said to have made it.
    #[must_use]
    pub fn like(&self, name: &str) -> Option<&Model> {
        self.entry_like(name).map(|(_, model)| model)
    }

    /// As [`List::like`], with the name that it has here.
    #[must_use]
    pub fn entry_like(&self, name: &str) -> Option<(&str, &Model)> {
        let ending = name.rsplit('/').next().unwrap_or(name);
        let by_ending = || self.models.get_index(*self.by_ending.get(ending)?);
        let found = self.models.get_key_value(name).or_else(by_ending);
        found.map(|(id, model)| (&**id, model))
    }

    /// Models whose id or name has that text in it, case aside; all without a
    /// text.
    pub fn search<'l>(&'l self, text: &str) -> impl Iterator<Item = (&'l str, &'l Model)> {
        let text = text.to_lowercase();
        let has = move |words: &str| words.to_lowercase().contains(&text);
        let all = self.models.iter().map(|(id, model)| (&**id, model));
        all.filter(move |(id, model)| has(id) || has(&model.name))
    }
}

type Found = Vec<(String, Map<String, Value>)>;

/// <https://openrouter.ai/docs/api-reference/list-available-models>: the members
/// are its own.
fn open_router(document: &Value) -> Option<Found> {
    const MEMBERS: [&str; 7] = [
        "name",
        "description",
        "context_length",
        "architecture",
        "pricing",
        "supported_parameters",
        "top_provider",
    ];
    let models = document.get("data")?.as_array()?.iter();
    let read = |model: &Value| {
        let id = model.get("id")?.as_str()?.to_owned();
        let members = MEMBERS.into_iter().filter_map(|name| {
            let value = model.get(name).filter(|value| !value.is_null())?;
            Some((name.to_owned(), value.clone()))
        });
        Some((id, members.collect()))
    };
    Some(models.filter_map(read).collect())
}

/// <https://models.dev>: makers by id, each with models by id; prices are per
/// million tokens.
fn models_dev(document: &Value) -> Option<Found> {
    let mut found = Found::new();
    for (maker, told) in document.as_object()? {
        let models = told.get("models").and_then(Value::as_object);
        for (id, model) in models.into_iter().flatten() {
            let mut members = named(model);
            let limit = |name: &str| model.pointer(&format!("/limit/{name}")).cloned();
            sized(&mut members, limit("context"), limit("output"));
            let list = |name: &str| model.pointer(&format!("/modalities/{name}")).cloned();
            if let (Some(input), Some(output)) = (list("input"), list("output")) {
                let modalities = json!({ "input_modalities": input, "output_modalities": output });
                members.insert("architecture".to_owned(), modalities);
            }
            let price = |name: &str| model.pointer(&format!("/cost/{name}"));
            let prices = [
                ("prompt", price("input")),
                ("completion", price("output")),
                ("input_cache_read", price("cache_read")),
                ("input_cache_write", price("cache_write")),
            ];
            priced(&mut members, prices);
            let can = |name: &str| model.get(name).and_then(Value::as_bool) == Some(true);
            let abilities = [
                ("tools", "tool_call"),
                ("reasoning", "reasoning"),
                ("temperature", "temperature"),
            ];
            able(
                &mut members,
                abilities.map(|(parameter, field)| (parameter, can(field))),
            );
            found.push((format!("{maker}/{id}"), members));
        }
    }
    Some(found)
}

/// <https://catwalk.charm.sh>: a list of providers, each with a list of models;
/// prices are per million tokens.
fn catwalk(document: &Value) -> Option<Found> {
    let mut found = Found::new();
    for provider in document.as_array()? {
        let Some(maker) = provider.get("id").and_then(Value::as_str) else {
            continue;
        };
        let models = provider.get("models").and_then(Value::as_array);
        for model in models.into_iter().flatten() {
            let Some(id) = model.get("id").and_then(Value::as_str) else {
                continue;
            };
            let mut members = named(model);
            let number = |name: &str| model.get(name).cloned();
            sized(
                &mut members,
                number("context_window"),
                number("default_max_tokens"),
            );
            let can = |name: &str| model.get(name).and_then(Value::as_bool) == Some(true);
            let sees = if can("supports_attachments") {
                json!(["text", "image"])
            } else {
                json!(["text"])
            };
            let modalities = json!({ "input_modalities": sees, "output_modalities": ["text"] });
            members.insert("architecture".to_owned(), modalities);
            let prices = [
                ("prompt", model.get("cost_per_1m_in")),
                ("completion", model.get("cost_per_1m_out")),
                ("input_cache_read", model.get("cost_per_1m_out_cached")),
                ("input_cache_write", model.get("cost_per_1m_in_cached")),
            ];
            priced(&mut members, prices);
            able(&mut members, [("reasoning", can("can_reason"))]);
            found.push((format!("{maker}/{id}"), members));
        }
    }
    Some(found)
}

fn named(model: &Value) -> Map<String, Value> {
    let texts = ["name", "description"].into_iter().filter_map(|name| {
        let text = model.get(name).filter(|value| value.is_string())?;
        Some((name.to_owned(), text.clone()))
    });
    texts.collect()
}

fn sized(members: &mut Map<String, Value>, context: Option<Value>, output: Option<Value>) {
    let known = |value: Option<Value>| value.filter(|value| value.as_u64().is_some_and(|n| n > 0));
    let (context, output) = (known(context), known(output));
    if let Some(context) = &context {
        members.insert("context_length".to_owned(), context.clone());
    }
    if context.is_some() || output.is_some() {
        let limits = json!({ "context_length": context, "max_completion_tokens": output });
        members.insert("top_provider".to_owned(), limits);
    }
}

/// Prices per million tokens as texts per token.
fn priced<const N: usize>(members: &mut Map<String, Value>, prices: [(&str, Option<&Value>); N]) {
    let prices = prices.into_iter().filter_map(|(name, price)| {
        let price = price?.as_f64().filter(|price| (0.0..1e9).contains(price))?;
        Some((name.to_owned(), Value::from(per_token(price))))
    });
    let prices: Map<String, Value> = prices.collect();
    if !prices.is_empty() {
        members.insert("pricing".to_owned(), Value::Object(prices));
    }
}

/// A millionth, without an exponent and without needless zeros.
fn per_token(per_million: f64) -> String {
    let text = format!("{:.12}", per_million / 1e6);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

fn able<const N: usize>(members: &mut Map<String, Value>, abilities: [(&str, bool); N]) {
    let able = abilities.into_iter().filter(|(_, can)| *can);
    let able: Vec<Value> = able.map(|(parameter, _)| parameter.into()).collect();
    if !able.is_empty() {
        members.insert("supported_parameters".to_owned(), able.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_router_s_members_are_taken_as_they_are() {
        let document = json!({ "data": [
            { "id": "maker/model", "name": "Maker: Model", "context_length": 1000, "odd": 1,
              "pricing": { "prompt": "0.000001", "completion": "0.000002" }, "top_provider": null },
            { "nameless": true },
        ]});
        let list = List::parse(Source::OpenRouter, document.to_string().as_bytes()).unwrap();
        assert_eq!(list.len(), 1);
        let model = list.find("maker/model").unwrap();
        assert_eq!(model.name, "Maker: Model");
        let members = json!({ "name": "Maker: Model", "context_length": 1000,
            "pricing": { "prompt": "0.000001", "completion": "0.000002" } });
        assert_eq!(Value::Object(model.members.clone()), members);
    }

    #[test]
    fn the_others_are_brought_into_the_same_form() {
        let dev = json!({ "maker": { "name": "Maker", "models": { "m-1": {
            "name": "M 1", "reasoning": true, "tool_call": true, "temperature": false,
            "modalities": { "input": ["text", "image"], "output": ["text"] },
            "cost": { "input": 3, "output": 15, "cache_read": 0.3 },
            "limit": { "context": 200_000, "output": 64_000 },
        }}}, "empty": {} });
        let list = List::parse(Source::ModelsDev, dev.to_string().as_bytes()).unwrap();
        let wanted = json!({
            "name": "M 1", "context_length": 200_000,
            "top_provider": { "context_length": 200_000, "max_completion_tokens": 64_000 },
            "architecture": { "input_modalities": ["text", "image"], "output_modalities": ["text"] },
            "pricing": { "prompt": "0.000003", "completion": "0.000015", "input_cache_read": "0.0000003" },
            "supported_parameters": ["tools", "reasoning"],
        });
        assert_eq!(
            Value::Object(list.find("maker/m-1").unwrap().members.clone()),
            wanted
        );
        let walk = json!([{ "id": "maker", "models": [{
            "id": "m-1", "name": "M 1", "cost_per_1m_in": 0, "cost_per_1m_out": 0.25,
            "context_window": 8_192, "default_max_tokens": 0, "can_reason": false, "supports_attachments": true,
        }]}, { "models": [] }]);
        let list = List::parse(Source::Catwalk, walk.to_string().as_bytes()).unwrap();
        let members = &list.find("maker/m-1").unwrap().members;
        assert_eq!(
            members["pricing"],
            json!({ "prompt": "0", "completion": "0.00000025" })
        );
        assert_eq!(
            members["architecture"]["input_modalities"],
            json!(["text", "image"])
        );
        assert_eq!(members["context_length"], 8_192);
    }

    #[test]
    fn models_are_searched_by_part_and_found_by_their_ending() {
        let document = json!({ "data": [
            { "id": "one/gpt-x", "name": "GPT X" }, { "id": "two/gpt-x" }, { "id": "two/Llama" },
        ]});
        let list = List::parse(Source::OpenRouter, document.to_string().as_bytes()).unwrap();
        let ids = |text: &str| list.search(text).map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids("gpt"), ["one/gpt-x", "two/gpt-x"]);
        assert_eq!(ids("LLAMA"), ["two/Llama"]);
        assert_eq!(ids("").len(), 3);
        assert_eq!(list.like("gpt-x").unwrap().name, "GPT X");
        assert_eq!(list.like("two/gpt-x").unwrap().name, "two/gpt-x");
        assert_eq!(list.like("nothing"), None);
    }

    #[test]
    fn what_is_no_catalogue_is_refused() {
        for source in Source::ALL {
            for text in [
                "",
                "5",
                "{}",
                "[]",
                r#"{"data":[]}"#,
                r#"{"a":{"models":{}}}"#,
                r#"[{"id":"a"}]"#,
            ] {
                assert!(List::parse(source, text.as_bytes()).is_err(), "{text}");
            }
        }
    }
}
