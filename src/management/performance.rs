//! How targets did lately: `/v0/management/performance`. These are the
//! measurements that selectors go by.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Answer, Call, Refusal, Reply, blocking};
use crate::routing::window::{Extent, Statistics};
use crate::store::number;

/// By provider and model, the fastest first. With `?model=` also providers that
/// served an alias of that name, without figures.
pub fn list(call: Call) -> Answer {
    Box::pin(async move {
        let app = Arc::clone(call.app());
        let wanted = |name: &str, value: &str| call.query(name).is_none_or(|text| text == value);
        let mut measured: Vec<(Arc<str>, Arc<str>, Statistics)> = Vec::new();
        for standing in app.switchboard.standings.targets() {
            let (provider, model) = (&standing.house.id, &standing.model);
            let statistics = standing.window.statistics();
            if statistics.samples > 0 && wanted("provider", provider) && wanted("model", model) {
                measured.push((Arc::clone(provider), Arc::clone(model), statistics));
            }
        }
        measured.sort_by(|(p, m, a), (q, n, b)| {
            let speed = |of: &Statistics| of.speed.map_or(0.0, |extent| extent.mean);
            speed(b)
                .total_cmp(&speed(a))
                .then_with(|| (p, m).cmp(&(q, n)))
        });
        let mut list: Vec<Value> = measured
            .iter()
            .map(|(provider, model, statistics)| shown(provider, model, statistics))
            .collect();
        if let Some(alias) = call.query("model").map(str::to_owned) {
            let targets = blocking(move || Ok(app.store.targets_of(&alias)?)).await?;
            for (provider, model) in targets {
                let known = measured.iter().any(|(known, _, _)| **known == *provider);
                if !known && wanted("provider", &provider) {
                    list.push(shown(&provider, &model, &Statistics::default()));
                }
            }
        }
        Ok(Reply::json(&Value::Array(list)))
    })
}

fn shown(provider: &str, model: &str, statistics: &Statistics) -> Value {
    let parts = |extent: Option<Extent>| {
        let extent = extent.unwrap_or_default();
        [extent.mean, extent.least, extent.most].map(rounded)
    };
    let [ttft, ttft_least, ttft_most] = parts(statistics.ttft_ms);
    let [speed, speed_least, speed_most] = parts(statistics.speed);
    let [overall, overall_least, overall_most] = parts(statistics.overall_speed);
    json!({
        "provider": provider, "model": model, "target_model": model,
        "avg_ttft_ms": ttft, "min_ttft_ms": ttft_least, "max_ttft_ms": ttft_most,
        "avg_tokens_per_sec": speed, "min_tokens_per_sec": speed_least,
        "max_tokens_per_sec": speed_most,
        "avg_e2e_tokens_per_sec": overall, "min_e2e_tokens_per_sec": overall_least,
        "max_e2e_tokens_per_sec": overall_most,
        "sample_count": statistics.samples, "success_count": statistics.answered,
        "failure_count": statistics.samples - statistics.answered,
        "last_updated": statistics.updated,
    })
}

/// To the thousandth.
fn rounded(value: f32) -> Value {
    number((f64::from(value) * 1000.0).round() / 1000.0)
}

/// Forgets what was measured of a model at all providers; selectors begin anew
/// with it.
pub fn forget(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&["model"])?;
        let Some(model) = call.query("model").map(str::to_owned) else {
            return Err(Refusal::bad("Model parameter is required"));
        };
        let app = Arc::clone(call.app());
        let now = crate::inference::wall_ms();
        let name = model.clone();
        blocking(move || {
            for standing in app.switchboard.standings.targets() {
                if *standing.model == *name {
                    standing.window.forget();
                }
            }
            Ok(app.store.forget_measurements(&name, now)?)
        })
        .await?;
        Ok(Reply::json(&json!({ "success": true, "model": model })))
    })
}
