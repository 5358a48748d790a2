//! Lists of models, in the shape that each client's SDK expects.
//!
//! Which models a client may see is decided elsewhere; here they are only
//! written down, page by page where the shape has pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A model as clients see it.
#[derive(Clone, Debug, Default)]
pub struct ModelInfo {
    /// What to ask for.
    pub id: String,
    /// Seconds since the epoch.
    pub created: i64,
    /// The name for people; the id if there is none.
    pub display_name: Option<String>,
    /// A sentence or two.
    pub description: Option<String>,
    /// The context in tokens.
    pub context: Option<u64>,
    /// The longest answer in tokens.
    pub max_output: Option<u64>,
    /// The APIs that suit it best: `chat_completions`, `messages`, `gemini`,
    /// `responses`.
    pub preferred_api: Vec<String>,
    /// More members of the OpenAI shape (`architecture`, `pricing`,
    /// `supported_parameters`, `top_provider`, `pi_model` ...), as an object.
    /// They never replace those that the fields above give.
    pub metadata: Option<Value>,
}

/// A dialect of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// <https://platform.openai.com/docs/api-reference/models>
    OpenAi,
    /// <https://docs.anthropic.com/en/api/models-list>
    Anthropic,
    /// <https://ai.google.dev/api/models>
    Gemini,
    /// OpenAI's, and what Codex asks for beside it.
    Codex,
}

/// The shape that the sender of a request understands.
#[must_use]
pub fn shape_for(path: &str, query: Option<&str>, headers: &HeaderMap) -> Shape {
    let query = query.unwrap_or_default();
    let gemini_path = path.starts_with("/v1beta/") || path.starts_with("/v1alpha/");
    if parameter(query, "client_version").is_some() {
        Shape::Codex
    } else if gemini_path
        || headers.contains_key("x-goog-api-key")
        || parameter(query, "key").is_some()
    {
        Shape::Gemini
    } else if headers.contains_key("anthropic-version") {
        Shape::Anthropic
    } else {
        Shape::OpenAi
    }
}

/// The list, or the page of it that the query asks for.
///
/// # Errors
///
/// What is wrong with a paging parameter, as a sentence for the client.
pub fn encode_list(
    shape: Shape,
    models: &[ModelInfo],
    query: Option<&str>,
) -> Result<String, String> {
    let query = query.unwrap_or_default();
    let list = match shape {
        Shape::OpenAi => openai_list(models),
        Shape::Anthropic => anthropic_page(models, query)?,
        Shape::Gemini => gemini_page(models, query)?,
        Shape::Codex => codex_list(models),
    };
    Ok(list.to_string())
}

/// One model.
#[must_use]
pub fn encode_one(shape: Shape, model: &ModelInfo) -> String {
    match shape {
        Shape::OpenAi | Shape::Codex => openai(model).to_string(),
        Shape::Anthropic => anthropic(model).to_string(),
        Shape::Gemini => gemini(model).to_string(),
    }
}

fn openai_list(models: &[ModelInfo]) -> Value {
    json!({"object": "list", "data": models.iter().map(openai).collect::<Vec<_>>()})
}

/// Codex refuses an answer without `models`. Its entries would have to carry
/// the agent's own instructions, which only Codex knows: an empty list leaves
/// it with those it was built with.
fn codex_list(models: &[ModelInfo]) -> Value {
    let mut list = openai_list(models);
    list["models"] = json!([]);
    list
}

fn openai(model: &ModelInfo) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| {
        members.entry(name).or_insert(value);
    };
    put("id", json!(model.id));
    put("object", json!("model"));
    put("created", json!(model.created));
    put("owned_by", json!("plexus"));
    put("shutdown_date", Value::Null);
    if !model.preferred_api.is_empty() {
        put("preferred_api", json!(model.preferred_api));
    }
    if let Some(name) = &model.display_name {
        put("name", json!(name));
    }
    if let Some(description) = &model.description {
        put("description", json!(description));
    }
    if let Some(context) = model.context {
        put("context_length", json!(context));
    }
    for (name, value) in model.metadata.iter().filter_map(Value::as_object).flatten() {
        put(name, value.clone());
    }
    let limits = top_provider(model);
    if !limits.is_empty() {
        put("top_provider", Value::Object(limits));
    }
    Value::Object(members)
}

fn top_provider(model: &ModelInfo) -> Map<String, Value> {
    let context = model
        .context
        .map(|tokens| ("context_length".to_owned(), json!(tokens)));
    let output = model
        .max_output
        .map(|tokens| ("max_completion_tokens".to_owned(), json!(tokens)));
    context.into_iter().chain(output).collect()
}

fn anthropic(model: &ModelInfo) -> Value {
    let created = Timestamp::from_second(model.created).unwrap_or_default();
    json!({
        "type": "model",
        "id": model.id,
        "display_name": model.display_name.as_ref().unwrap_or(&model.id),
        "created_at": created.to_string(),
        "lifecycle": "active",
        "max_input_tokens": model.context,
        "max_tokens": model.max_output,
        "line": null,
        "deprecated_at": null,
        "retires_at": null,
        "capabilities": null,
    })
}

fn anthropic_page(models: &[ModelInfo], query: &str) -> Result<Value, String> {
    let limit = match parameter(query, "limit") {
        Some(text) => match text.parse() {
            Ok(limit @ 1..=1000) => limit,
            _ => {
                return Err(format!(
                    "limit: wanted a number from 1 to 1000, found '{text}'"
                ));
            }
        },
        None => 20,
    };
    let after = place_of(models, query, "after_id")?;
    let before = place_of(models, query, "before_id")?;
    let (page, has_more) = match (after, before) {
        (Some(_), Some(_)) => return Err("after_id and before_id exclude each other".to_owned()),
        (None, Some(end)) => {
            let start = end.saturating_sub(limit);
            (&models[start..end], start > 0)
        }
        (after, None) => {
            let rest = &models[after.map_or(0, |place| place + 1)..];
            (&rest[..limit.min(rest.len())], rest.len() > limit)
        }
    };
    Ok(json!({
        "data": page.iter().map(anthropic).collect::<Vec<_>>(),
        "has_more": has_more,
        "first_id": page.first().map(|model| &model.id),
        "last_id": page.last().map(|model| &model.id),
    }))
}

/// Where the model stands that a cursor names.
fn place_of(models: &[ModelInfo], query: &str, name: &str) -> Result<Option<usize>, String> {
    let Some(id) = parameter(query, name) else {
        return Ok(None);
    };
    match models.iter().position(|model| model.id == id) {
        Some(place) => Ok(Some(place)),
        None => Err(format!("{name}: there is no model '{id}'")),
    }
}

fn gemini(model: &ModelInfo) -> Value {
    let mut entry = json!({
        "name": format!("models/{}", model.id),
        "baseModelId": model.id,
        "version": "1",
        "displayName": model.display_name.as_ref().unwrap_or(&model.id),
        "description": model.description.as_deref().unwrap_or_default(),
    });
    if let Some(context) = model.context {
        entry["inputTokenLimit"] = json!(context);
    }
    if let Some(output) = model.max_output {
        entry["outputTokenLimit"] = json!(output);
    }
    entry["supportedGenerationMethods"] = json!(["generateContent", "streamGenerateContent"]);
    entry["thinking"] = json!(true);
    entry["temperature"] = json!(1);
    entry["topP"] = json!(0.95);
    entry["topK"] = json!(64);
    entry["maxTemperature"] = json!(2);
    entry
}

/// The token of the next page names the last model of this one, so that a
/// list that changes meanwhile neither repeats nor skips.
fn gemini_page(models: &[ModelInfo], query: &str) -> Result<Value, String> {
    let size = match parameter(query, "pageSize") {
        Some(text) => match text.parse::<usize>() {
            Ok(0) => 50,
            Ok(size) => size.min(1000),
            Err(_) => {
                return Err(format!(
                    "pageSize: wanted a number up to 1000, found '{text}'"
                ));
            }
        },
        None => 50,
    };
    let start = match parameter(query, "pageToken").filter(|token| !token.is_empty()) {
        Some(token) => place_after(models, &token).ok_or("pageToken: not a token of this list")?,
        None => 0,
    };
    let rest = &models[start..];
    let page = &rest[..size.min(rest.len())];
    let mut list = json!({"models": page.iter().map(gemini).collect::<Vec<_>>()});
    if let Some(last) = page.last().filter(|_| rest.len() > page.len()) {
        list["nextPageToken"] = json!(URL_SAFE_NO_PAD.encode(&last.id));
    }
    Ok(list)
}

fn place_after(models: &[ModelInfo], token: &str) -> Option<usize> {
    let id = URL_SAFE_NO_PAD.decode(token).ok()?;
    models
        .iter()
        .position(|model| model.id.as_bytes() == id)
        .map(|place| place + 1)
}

/// The first query parameter of that name, decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then(|| decoded(value))
    })
}

fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| tail.split_first_chunk::<2>())
            .flatten();
        let byte = escaped.and_then(|(digits, after)| Some((hex(*digits)?, after)));
        let (byte, after) = byte.unwrap_or((if first == b'+' { b' ' } else { first }, tail));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex([high, low]: [u8; 2]) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests;
