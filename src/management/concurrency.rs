//! Requests under way: `/v0/management/concurrency`.

use serde_json::{Value, json};

use super::{Answer, Call, Refusal, Reply};
use crate::inference;

/// By provider and model, with the limits that hold and how many wait for them.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        if let Some(mode) = call.query("mode").filter(|mode| *mode != "live") {
            return Err(Refusal::bad(format!(
                "mode: found {mode:?}; live is wanted"
            )));
        }
        let timestamp = inference::wall_ms();
        let app = call.app();
        let running = app.metrics.running().into_iter();
        let data: Vec<Value> = running
            .map(|(provider, model, count)| {
                let standing = app.switchboard.standings.of(&provider, &model);
                let configured = call.config.provider(&provider);
                let listed = configured.and_then(|known| known.models.get(&model));
                json!({
                    "provider": provider, "model": model, "count": count, "timestamp": timestamp,
                    "limit": listed.and_then(|listed| listed.max_concurrency),
                    "providerLimit": configured.and_then(|known| known.max_concurrency),
                    "queued": standing.permits.queued() + standing.house.permits.queued(),
                })
            })
            .collect();
        let table = app.switchboard.table(&call.config);
        let limited = call.config.keys.values().filter_map(|key| {
            let permits = table.key(&key.name)?;
            Some(json!({
                "key": key.name, "count": permits.active(), "limit": key.max_concurrency,
                "queued": permits.queued(),
            }))
        });
        let keys: Vec<Value> = limited.collect();
        Ok(Reply::json(&json!({ "data": data, "keys": keys })))
    })
}
