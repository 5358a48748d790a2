//! Targets that rest after failures: `/v0/management/cooldowns`.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Answer, Call, Reply};
use crate::auth::Principal;
use crate::config::permits;
use crate::routing::cooldown::{Cooldown, Rest};
use crate::routing::standing::Change;

/// Something that can rest.
struct Resting {
    provider: Arc<str>,
    /// Empty is all of the provider's models.
    model: Arc<str>,
    rest: Rest,
}

/// Every rest that lasts; a limited caller sees those of the providers that its
/// key may use.
pub fn list(call: Call) -> Answer {
    Box::pin(async move {
        let now = call.app().switchboard.now(Instant::now());
        let visible = |provider: &str| match &call.principal {
            Principal::Admin => true,
            Principal::Limited(key) => {
                permits(&key.allowed_providers, &key.excluded_providers, provider)
            }
        };
        let mut all = resting(&call);
        all.retain(|resting| resting.rest.until > now && visible(&resting.provider));
        all.sort_by(|a, b| (&a.provider, &a.model).cmp(&(&b.provider, &b.model)));
        let shown: Vec<Value> = all.iter().map(|resting| shown(resting, now)).collect();
        Ok(Reply::json(&Value::Array(shown)))
    })
}

fn shown(resting: &Resting, now: i64) -> Value {
    let rest = &resting.rest;
    let mut shown = json!({
        "provider": resting.provider,
        "model": resting.model,
        "expiry": rest.until,
        "timeRemainingMs": rest.until - now,
        "consecutiveFailures": rest.failures,
    });
    if !rest.message.is_empty() {
        shown["lastError"] = (*rest.message).into();
    }
    shown
}

/// Ends all of them.
pub fn delete_all(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        end(&call, |_, _| true);
        Ok(Reply::json(&json!({ "success": true })))
    })
}

/// Ends those of a provider, or with `?model=` of its models whose names begin
/// like that.
pub fn delete(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&["model"])?;
        let wanted = call.params.value("slug");
        let prefix = call.query("model").unwrap_or_default();
        end(&call, |provider, model| {
            provider == wanted && model.starts_with(prefix)
        });
        Ok(Reply::json(&json!({ "success": true })))
    })
}

fn end(call: &Call, wanted: impl Fn(&str, &str) -> bool) {
    let standings = &call.app().switchboard.standings;
    let whole: Arc<str> = "".into();
    let clear = |provider: &Arc<str>, model: &Arc<str>, cooldown: &Cooldown| {
        if wanted(provider, model) && cooldown.clear() {
            call.core.books.rested(&Change {
                provider: Arc::clone(provider),
                model: Arc::clone(model),
                rest: None,
            });
        }
    };
    for house in standings.houses() {
        clear(&house.id, &whole, &house.cooldown);
    }
    for standing in standings.targets() {
        clear(&standing.house.id, &standing.model, &standing.cooldown);
    }
}

fn resting(call: &Call) -> Vec<Resting> {
    let standings = &call.app().switchboard.standings;
    let houses = standings.houses().into_iter().filter_map(|house| {
        Some(Resting {
            rest: house.cooldown.rest()?,
            provider: Arc::clone(&house.id),
            model: "".into(),
        })
    });
    let targets = standings.targets().into_iter().filter_map(|standing| {
        Some(Resting {
            rest: standing.cooldown.rest()?,
            provider: Arc::clone(&standing.house.id),
            model: Arc::clone(&standing.model),
        })
    });
    houses.chain(targets).collect()
}
