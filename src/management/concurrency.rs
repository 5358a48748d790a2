//! Requests under way, and how many there were: `/v0/management/concurrency`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::summary::{bucket, range};
use super::{Answer, Call, Refusal, Reply, blocking};
use crate::inference;
use crate::store::GroupBy;

/// Those of now, or with `?mode=timeline` those that began in a stretch of time.
pub fn get(call: Call) -> Answer {
    match call.query("mode").unwrap_or("live") {
        "live" => live(call),
        "timeline" => timeline(call),
        other => {
            let message = format!("mode: found {other:?}; live or timeline is wanted");
            Box::pin(async move { Err(Refusal::bad(message)) })
        }
    }
}

/// Requests that began in each bucket of the range, by provider or model.
fn timeline(call: Call) -> Answer {
    Box::pin(async move {
        let (name, by) = match call.query("groupBy").unwrap_or("provider") {
            "provider" => ("provider", GroupBy::Provider),
            "model" => ("model", GroupBy::Model),
            other => {
                return Err(Refusal::bad(format!(
                    "groupBy: found {other:?}; provider or model is wanted"
                )));
            }
        };
        let range = range(&call, "timeRange", inference::wall_ms())?;
        let app = Arc::clone(call.app());
        let bucket_ms = bucket(range.to - range.from);
        let ends = (range.from, range.to);
        let timeline = blocking(move || Ok(app.store.timeline(ends, bucket_ms, by)?)).await?;
        let data: Vec<Value> = timeline
            .into_iter()
            .map(|(from, text, count)| json!({ "timestamp": from, name: text, "count": count }))
            .collect();
        Ok(Reply::json(&json!({ "data": data, "bucketMs": bucket_ms })))
    })
}

/// By provider and model, with the limits that hold and how many wait for them.
fn live(call: Call) -> Answer {
    Box::pin(async move {
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
