//! Fetching the catalogues now: `POST /v0/management/models/metadata/refresh`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Answer, Call, Reply, blocking};

/// Fetches all of them. What can't be had is told, and the one that was there
/// goes on.
pub fn refresh(call: Call) -> Answer {
    Box::pin(async move {
        let app = Arc::clone(call.app());
        let runtime = tokio::runtime::Handle::current();
        let fetching = Arc::clone(&app);
        // Their documents are large: not on the thread that serves.
        let outcomes =
            blocking(move || Ok(runtime.block_on(fetching.refresh_catalogues()))).await?;
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
