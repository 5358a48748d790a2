//! Trying a target out: `POST /v0/management/test`.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{Answer, Call, Refusal, Reply};
use crate::inference::trial::{self, PROTOCOLS};
use crate::protocol::Protocol;

/// Sends one request to a provider's model. 200 whatever became of it.
pub fn test(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await?;
        let (Some(provider), Some(model)) = (text(&body, "provider")?, text(&body, "model")?)
        else {
            return Err(refused("Both provider and model are required"));
        };
        let protocol = protocol(text(&body, "apiType")?.unwrap_or("chat"))?;
        let began = Instant::now();
        let config = Arc::clone(&call.config);
        let outcome = trial::try_out(&call.core, config, (provider, model), protocol).await;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let kind = protocol.name();
        Ok(Reply::json(&match outcome {
            Ok(told) => json!({
                "success": true, "durationMs": took, "apiType": kind, "response": told,
            }),
            Err(error) => json!({
                "success": false, "error": error, "durationMs": took, "apiType": kind,
            }),
        }))
    })
}

fn text<'a>(body: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Refusal> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        Some(other) => Err(refused(&format!("{field}: found {other}; text is wanted"))),
    }
}

fn protocol(name: &str) -> Result<Protocol, Refusal> {
    let known = Protocol::from_name(name).filter(|protocol| PROTOCOLS.contains(protocol));
    known.ok_or_else(|| {
        let names = PROTOCOLS.map(Protocol::name).join(", ");
        refused(&format!(
            "apiType: found {name:?}; one of {names} is wanted"
        ))
    })
}

fn refused(message: &str) -> Refusal {
    let mut refusal = Refusal::new(StatusCode::BAD_REQUEST, message);
    refusal.body = json!({ "success": false, "error": message });
    refusal
}
