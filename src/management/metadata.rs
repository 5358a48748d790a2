//! Fetching the catalogues now: `POST /v0/management/models/metadata/refresh`.

use serde_json::{Map, Value, json};

use super::{Answer, Call, Reply};
use crate::catalogue::Source;

/// Fetches all of them. What can't be had is told, and the one that was there
/// goes on.
pub fn refresh(call: Call) -> Answer {
    Box::pin(async move {
        let app = call.app();
        let mut told = Map::new();
        let mut whole = true;
        for source in Source::ALL {
            let address = call.config.catalogues.address(source);
            let outcome = app.catalogues.refresh(app.connector(), source, address).await;
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
        Ok(Reply::json(&json!({ "success": whole, "sources": Value::Object(told) })))
    })
}
