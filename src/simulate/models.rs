//! The list of models, and one of them, in the shape of each vendor.

use serde_json::{Value, json};

use super::route::Vendor;
use super::script::{compact, pretty};

/// The list.
pub(super) fn list(vendor: Vendor, models: &[String]) -> Vec<u8> {
    let all: Vec<Value> = models.iter().map(|model| object(vendor, model)).collect();
    match vendor {
        Vendor::OpenAi => pretty(&json!({"object": "list", "data": all})),
        Vendor::Anthropic => compact(&json!({
            "data": all,
            "has_more": false,
            "first_id": models.first(),
            "last_id": models.last(),
        })),
        Vendor::Google => pretty(&json!({"models": all})),
    }
}

/// One model. Any name will do, as any name is answered.
pub(super) fn one(vendor: Vendor, model: &str) -> Vec<u8> {
    let object = object(vendor, model);
    match vendor {
        Vendor::Anthropic => compact(&object),
        Vendor::OpenAi | Vendor::Google => pretty(&object),
    }
}

fn object(vendor: Vendor, model: &str) -> Value {
    match vendor {
        Vendor::OpenAi => json!({
            "id": model, "object": "model", "created": 1_767_225_600, "owned_by": "simulated",
        }),
        Vendor::Anthropic => json!({
            "type": "model", "id": model, "display_name": model,
            "created_at": "2026-01-01T00:00:00Z",
            "max_input_tokens": 200_000, "max_tokens": 64_000,
        }),
        Vendor::Google => json!({
            "name": format!("models/{model}"),
            "baseModelId": model,
            "version": "001",
            "displayName": model,
            "description": "A simulated model",
            "inputTokenLimit": 1_048_576,
            "outputTokenLimit": 65_536,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
            "temperature": 1,
            "topP": 0.95,
            "topK": 64,
            "maxTemperature": 2,
        }),
    }
}
