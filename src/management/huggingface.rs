//! What Hugging Face says of a model: `GET /v0/management/models/huggingface/{id}`,
//! for who fills in an alias by hand. Nothing is kept.

use std::time::Duration;

use http::{StatusCode, Uri};
use serde_json::{Map, Value, json};

use super::fetch_models::{unfetched, wrong};
use super::{Answer, Call, Refusal, Reply};
use crate::upstream::{Fetch, Fetched};

/// Time for each of the two documents.
const LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of one: lists of files come with it.
const MOST: usize = 8 << 20;
/// Most characters of a name.
const LONGEST: usize = 200;

/// A model's card and the figures of its configuration.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        let id = call.params.value("slug").to_owned();
        if !is_name(&id) {
            let message = format!("found {id:?}; a name like \"maker/model\" is wanted");
            return Err(Refusal::bad(message));
        }
        let Some(hub) = call.config.catalogue.hugging_face.clone() else {
            let message = "Hugging Face is not to be asked: catalogue.huggingface is null";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message));
        };
        let card = fetch(&call, &format!("{hub}/api/models/{id}")).await?;
        let card = read(&id, &card)?;
        // A model that one has to ask for shows its card, but not its files.
        let configuration = fetch(&call, &format!("{hub}/{id}/raw/main/config.json")).await;
        let configuration = configuration.ok().filter(|file| file.status.is_success());
        let configuration = configuration.and_then(|file| serde_json::from_slice(&file.body).ok());
        let shown = shown(&id, &card, configuration.as_ref());
        Ok(Reply::json(&json!({ "data": shown })))
    })
}

/// Whether that is a model's name there, and leads nowhere else.
fn is_name(id: &str) -> bool {
    let parts: Vec<&str> = id.split('/').collect();
    let plain = |part: &&str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(letters)
    };
    id.len() <= LONGEST && parts.len() <= 2 && parts.iter().all(plain)
}

async fn fetch(call: &Call, url: &str) -> Result<Fetched, Refusal> {
    let url: Uri = url.parse().map_err(|error| {
        let message = format!("catalogue.huggingface: {url}: {error}");
        Refusal::failed(message)
    })?;
    let fetch = Fetch {
        url,
        bearer: None,
        most: MOST,
        limit: LIMIT,
        // The host is the operator's own choice, and a name can't change it.
        at_home: true,
    };
    let fetched = call.app().connector().fetch(fetch).await;
    fetched.map_err(|error| unfetched(&error))
}

fn read(id: &str, card: &Fetched) -> Result<Value, Refusal> {
    let status = card.status;
    match status.as_u16() {
        200..=299 => {}
        // It doesn't tell a model that isn't there from one that isn't public.
        401 | 403 | 404 => {
            let message = format!("Hugging Face shows nobody a model '{id}'");
            return Err(Refusal::not_found(message));
        }
        code => {
            let message = format!("Hugging Face answered with status {code}");
            return Err(wrong(StatusCode::BAD_GATEWAY, "provider_error", &message));
        }
    }
    let read: Result<Value, _> = serde_json::from_slice(&card.body);
    let card = read.ok().filter(Value::is_object);
    card.ok_or_else(|| {
        let message = "Hugging Face's answer is no model's card";
        wrong(StatusCode::BAD_GATEWAY, "provider_error", message)
    })
}

/// Members of the card that are shown as they are: theirs, and ours.
const MEMBERS: [(&str, &str); 9] = [
    ("author", "author"),
    ("pipeline_tag", "pipeline_tag"),
    ("library_name", "library_name"),
    ("tags", "tags"),
    ("downloads", "downloads"),
    ("likes", "likes"),
    ("gated", "gated"),
    ("createdAt", "created_at"),
    ("lastModified", "last_modified"),
];

/// Members of its configuration, by every name that they are known by there.
const FIGURES: [(&str, &[&str]); 12] = [
    ("model_type", &["model_type"]),
    (
        "context_length",
        &[
            "max_position_embeddings",
            "n_positions",
            "max_seq_len",
            "seq_length",
        ],
    ),
    ("layers", &["num_hidden_layers", "n_layer", "num_layers"]),
    ("heads", &["num_attention_heads", "n_head"]),
    (
        "kv_heads",
        &["num_key_value_heads", "multi_query_group_num"],
    ),
    ("hidden_size", &["hidden_size", "n_embd", "d_model"]),
    ("intermediate_size", &["intermediate_size", "n_inner"]),
    ("vocab_size", &["vocab_size"]),
    (
        "experts",
        &["num_local_experts", "n_routed_experts", "num_experts"],
    ),
    ("experts_per_token", &["num_experts_per_tok"]),
    ("kv_lora_rank", &["kv_lora_rank"]),
    ("dtype", &["torch_dtype", "dtype"]),
];

fn shown(id: &str, card: &Value, configuration: Option<&Value>) -> Value {
    let known = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
    let mut shown = Map::new();
    shown.insert(
        "id".to_owned(),
        known(card.get("id")).unwrap_or_else(|| id.into()),
    );
    for (theirs, ours) in MEMBERS {
        if let Some(value) = known(card.get(theirs)) {
            shown.insert(ours.to_owned(), value);
        }
    }
    for (pointer, ours) in [
        ("/cardData/license", "license"),
        ("/cardData/base_model", "base_model"),
        ("/safetensors/total", "parameters"),
        ("/safetensors/parameters", "parameters_by_type"),
    ] {
        if let Some(value) = known(card.pointer(pointer)) {
            shown.insert(ours.to_owned(), value);
        }
    }
    if let Some(configuration) = configuration {
        let figures = figures(configuration);
        if let Some(context) = figures.get("context_length") {
            shown.insert("context_length".to_owned(), context.clone());
        }
        shown.insert("model_architecture".to_owned(), Value::Object(figures));
    }
    Value::Object(shown)
}

/// Models that read more than text keep what reads text a level deeper.
fn figures(configuration: &Value) -> Map<String, Value> {
    let levels = [Some(configuration), configuration.get("text_config")];
    let found = |names: &[&str]| {
        let named = levels.iter().flatten().flat_map(|level| {
            let of_level = names.iter().map(|name| level.get(*name));
            of_level.collect::<Vec<_>>()
        });
        named
            .flatten()
            .find(|value| value.is_number() || value.is_string())
            .cloned()
    };
    let figures = FIGURES.into_iter();
    figures
        .filter_map(|(ours, names)| Some((ours.to_owned(), found(names)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_else() {
        for good in ["meta-llama/Llama-3.1-8B", "gpt2", "a_b/c.d"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "", "a/", "/a", "a/b/c", "../x", "a/..", "a?x", "a#", "a%2Fb", "a@b", "é",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn figures_are_found_by_any_of_their_names() {
        let configuration = json!({ "model_type": "m", "torch_dtype": "bfloat16",
            "text_config": { "max_position_embeddings": 4096, "n_layer": 2 }, "n_head": [1] });
        let wanted =
            json!({ "model_type": "m", "context_length": 4096, "layers": 2, "dtype": "bfloat16" });
        assert_eq!(Value::Object(figures(&configuration)), wanted);
    }
}
