//! What keys used of their quotas: `/v0/management/quota/...`, and the same for
//! a key's own view.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Number, Value, json};

use super::entry::Fields;
use super::{Answer, Call, Refusal, Reply, blocking};
use crate::app::App;
use crate::config::Config;
use crate::inference;
use crate::quota::{List, Rule, Told};

/// How long a change waits to be on disk.
const WRITTEN: Duration = Duration::from_secs(10);
/// How often what is used is counted again when requests end meanwhile.
const COUNTS: usize = 5;

/// A key's quotas as they stand.
pub fn status(call: Call) -> Answer {
    Box::pin(async move {
        let key = call.params.value("slug");
        if !call.config.keys.contains_key(key) {
            return Err(unknown(key));
        }
        let standing = Standing::of(&call, key);
        let tightest = standing.tightest();
        Ok(Reply::json(&json!({
            "key": key,
            "quotas": standing.shown(),
            "quota_name": tightest.map(|told| &told.quota.name),
            "allowed": standing.allowed(),
            "current_usage": tightest.map_or_else(|| 0.into(), |told| number(told.used())),
            "limit": tightest.map(|told| number(told.limit())),
            "remaining": tightest.map(|told| number(told.remaining())),
            "resets_at": tightest.map(|told| iso(told.level.resets_at)),
        })))
    })
}

fn unknown(key: &str) -> Refusal {
    Refusal::not_found(format!("Key not found: {key}")).typed()
}

/// How a key's quotas stand.
pub(super) struct Standing {
    quotas: Vec<Told>,
    is_default: bool,
}

impl Standing {
    pub(super) fn of(call: &Call, key: &str) -> Self {
        let now = inference::wall_ms();
        let list = call.app().quotas.named(&call.config, key, now);
        Self {
            quotas: list.as_ref().map(|list| list.told(now)).unwrap_or_default(),
            is_default: list.is_some_and(|list| list.is_default()),
        }
    }

    /// The one with the least left.
    pub(super) fn tightest(&self) -> Option<&Told> {
        let quotas = self.quotas.iter();
        quotas.min_by(|a, b| a.part_left().total_cmp(&b.part_left()))
    }

    /// Whether a small request would be let in.
    pub(super) fn allowed(&self) -> bool {
        self.quotas.iter().all(Told::allows)
    }

    /// As the API shows them.
    pub(super) fn shown(&self) -> Vec<Value> {
        let source = source(self.is_default);
        self.quotas.iter().map(|told| shown(told, source)).collect()
    }
}

/// Where a key has its quotas from.
pub(super) const fn source(is_default: bool) -> &'static str {
    if is_default { "default" } else { "assigned" }
}

/// A quota as the API shows it.
pub(super) fn shown(told: &Told, source: &str) -> Value {
    let quota = &told.quota;
    let lists = [
        ("allowedProviders", &quota.allowed_providers),
        ("excludedProviders", &quota.excluded_providers),
        ("allowedModels", &quota.allowed_models),
        ("excludedModels", &quota.excluded_models),
    ];
    let scope: Map<String, Value> = lists
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| (name.to_owned(), json!(list)))
        .collect();
    let mut shown = json!({
        "name": quota.name,
        "limitType": quota.counts.name(),
        "limit": number(told.limit()),
        "currentUsage": number(told.used()),
        "reserved": number(told.reserved()),
        "remaining": number(told.remaining()),
        "allowed": told.allows(),
        "resetsAt": iso(told.level.resets_at),
        "global": scope.is_empty(),
        "scope": scope,
        "shared": quota.shared,
    });
    if let Some(warn_at) = quota.warn_at {
        shown["warnAt"] = json!(warn_at);
    }
    shown["source"] = source.into();
    shown
}

/// Sets what a key used of its quotas, or of one of them, to nothing.
pub fn clear(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await.map_err(Refusal::typed)?;
        let key = named(&body, "key")?.ok_or_else(|| missing("key"))?;
        let quota = named(&body, "quota")?;
        let now = inference::wall_ms();
        let list = call.app().quotas.named(&call.config, &key, now);
        match &quota {
            None => {
                for rule in list.iter().flat_map(|list| list.rules()) {
                    rule.set(0, now);
                }
            }
            Some(quota) => attached(&call, &key, list.as_deref(), quota)?.set(0, now),
        }
        flush(&call).await?;
        let message = quota.as_ref().map_or_else(
            || format!("All quotas of key '{key}' were cleared"),
            |quota| format!("Quota '{quota}' of key '{key}' was cleared"),
        );
        Ok(Reply::json(&json!({
            "success": true, "key": key, "quota": quota, "message": message,
        })))
    })
}

/// Counts what a key used of a quota again, from the rows of its requests.
pub fn recompute(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await.map_err(Refusal::typed)?;
        let key = named(&body, "key")?.ok_or_else(|| missing("key"))?;
        let quota = named(&body, "quota")?.ok_or_else(|| missing("quota"))?;
        let now = inference::wall_ms();
        let list = call.app().quotas.named(&call.config, &key, now);
        let rule = attached(&call, &key, list.as_deref(), &quota)?;
        let Some(start) = rule.window_start(now) else {
            let message = format!("Quota '{quota}' leaks: rows don't tell what is left of it");
            let refusal = Refusal::bad(message).typed();
            return Err(refusal.with("reason", "unsupported_quota_type"));
        };
        let (app, config) = (Arc::clone(call.app()), Arc::clone(&call.config));
        let (counted_key, counted_quota) = (key.clone(), quota.clone());
        let told = blocking(move || recount(&app, &config, &counted_key, &counted_quota, start))
            .await
            .map_err(Refusal::typed)?;
        let usage = told.map_or(0.0, |told| told.used());
        let message = format!("Quota '{quota}' of key '{key}' was counted again");
        Ok(Reply::json(&json!({
            "success": true, "key": key, "quota": quota, "usage": number(usage),
            "windowStartMs": start, "message": message,
        })))
    })
}

/// Counts from the rows. A request that ends between its row's reading and the
/// setting would be lost: then all is counted again, and in the end what was
/// added meanwhile is added.
fn recount(
    app: &App,
    config: &Config,
    key: &str,
    quota: &str,
    start: i64,
) -> Result<Option<Told>, Refusal> {
    let now = inference::wall_ms();
    let list = app.quotas.named(config, key, now);
    let Some(rule) = list.as_ref().and_then(|list| list.rule(quota)) else {
        return Ok(None);
    };
    let keys = drawing(app, config, key, rule, now);
    for count in 1..=COUNTS {
        let before = rule.used(now);
        app.store.flush(WRITTEN)?;
        let taken = app.store.taken(&keys, start)?;
        let counts = taken
            .iter()
            .filter(|taken| rule.covers(&taken.provider, &taken.model));
        let sum = counts.fold(0, |sum: u64, taken| {
            sum.saturating_add(rule.amount(taken.requests, taken.tokens, taken.nanos))
        });
        let added = rule.used(now).saturating_sub(before);
        if added == 0 || count == COUNTS {
            rule.set(sum.saturating_add(added), now);
            break;
        }
    }
    app.store.flush(WRITTEN)?;
    let told = list.as_ref().map(|list| list.told(now)).unwrap_or_default();
    Ok(told.into_iter().find(|told| &*told.quota.name == quota))
}

/// The keys that draw from the same bucket.
fn drawing(app: &App, config: &Config, key: &str, rule: &Rule, now: i64) -> Vec<String> {
    if !rule.quota.shared {
        return vec![key.to_owned()];
    }
    let draws = |key: &&Arc<str>| {
        let list = app.quotas.named(config, key, now);
        list.is_some_and(|list| list.rule(&rule.quota.name).is_some())
    };
    let keys = config.keys.keys().filter(draws);
    keys.map(|key| key.to_string()).collect()
}

async fn flush(call: &Call) -> Result<(), Refusal> {
    let app = Arc::clone(call.app());
    let flushed = blocking(move || Ok(app.store.flush(WRITTEN)?)).await;
    flushed.map_err(Refusal::typed)
}

/// The key's quota of that name.
fn attached<'a>(
    call: &Call,
    key: &str,
    list: Option<&'a List>,
    quota: &str,
) -> Result<&'a Rule, Refusal> {
    if !call.config.keys.contains_key(key) {
        return Err(unknown(key));
    }
    let rule = list.and_then(|list| list.rule(quota));
    rule.ok_or_else(|| {
        Refusal::bad(format!("Quota '{quota}' is not attached to key '{key}'")).typed()
    })
}

fn missing(field: &str) -> Refusal {
    Refusal::bad(format!("Missing required field: {field}")).typed()
}

/// A field that is a text, if it is there.
fn named(body: &Fields, field: &str) -> Result<Option<String>, Refusal> {
    match body.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => {
            let message = format!("{field}: found {other}; a name is wanted");
            Err(Refusal::bad(message).typed())
        }
    }
}

/// A number without a needless `.0`.
pub(super) fn number(value: f64) -> Number {
    inference::number(value)
}

/// `2026-01-31T12:00:00.000Z`; null outside the calendar.
pub(super) fn iso(ms: i64) -> Value {
    Timestamp::from_millisecond(ms).map_or(Value::Null, |time| format!("{time:.3}").into())
}
