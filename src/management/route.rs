//! Why a request would go where it goes: `POST /v0/management/route/explain`.
//! Nothing is sent, and nothing changes.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::quota::{shown, source};
use super::{Answer, Call, Refusal, Reply};
use crate::config::{Key, Secret, Selector};
use crate::inference::{self, likely, quota_refusal};
use crate::protocol::Protocol;
use crate::quota::{List, Rule, Told};
use crate::routing::dice::Dice;
use crate::routing::explain::{Considered, Explanation, explain as explained, pinned};
use crate::routing::session::Sessions;
use crate::routing::{Asked, Resolution, Unresolved};

/// The candidates in order, what their selectors saw, and why other targets are
/// left out.
pub fn explain(mut call: Call) -> Answer {
    Box::pin(async move {
        let request = call.object().await?;
        let reply = reply(&call, &request)?;
        Ok(Reply::json(&reply))
    })
}

fn reply(call: &Call, request: &Map<String, Value>) -> Result<Value, Refusal> {
    let config = &call.config;
    let switchboard = &call.app().switchboard;
    let body = request.get("body").filter(|body| body.is_object());
    let model = text(request, "model")?
        .or_else(|| body?.get("model")?.as_str())
        .ok_or_else(|| Refusal::bad("model is missing"))?;
    let protocol = protocol(text(request, "protocol")?.unwrap_or("chat"))?;
    let named = text(request, "key")?
        .map(|name| key(call, name))
        .transpose()?;
    let key = named
        .clone()
        .unwrap_or_else(|| Arc::new(Key::unlimited("", Secret::new(""))));
    let asked = Asked {
        model,
        protocol,
        now: switchboard.now(Instant::now()),
        explores: false,
        native_first: false,
    };
    let resolution = switchboard.resolve(config, &key, asked, &mut Dice::new(1));
    let mut resolution = resolution.map_err(|unresolved| refused(&unresolved))?;
    let frames: Vec<Bytes> = body
        .map(|body| body.to_string().into())
        .into_iter()
        .collect();
    let alias = resolution.route.alias.clone().filter(|alias| alias.sticky);
    let sessions = alias.map_or_else(Sessions::default, |alias| {
        Sessions::of(&alias.id, protocol, &headers(request), &frames)
    });
    let pin = pinned(switchboard, sessions);
    switchboard.stick(&mut resolution, sessions);
    let explanation = explained(config, named.as_deref(), asked, &resolution);
    let list = call
        .app()
        .quotas
        .of(config, &key, inference::wall_ms())
        .filter(|_| named.is_some());
    let quotas = Quotas::of(list.as_deref(), protocol, &frames, &resolution);
    let target = |number| {
        let candidates = resolution.route.candidates.iter();
        let mut known = candidates.filter(|known| known.standing.number == number);
        let known = known.next()?;
        Some(format!("{}/{}", known.provider.id, known.model))
    };
    Ok(json!({
        "model": model,
        "canonical": resolution.route.canonical,
        "protocol": protocol.name(),
        "conversation": sessions.all().next().is_some(),
        "pinnedTo": pin.and_then(target),
        "retryBudget": switchboard.budget.left(),
        "quotas": quotas.shown(),
        "candidates": candidates(&explanation, &quotas),
        "leftOut": left_out(&explanation),
    }))
}

/// The key's quotas as they stand for the request.
#[derive(Default)]
struct Quotas<'l> {
    weighed: Vec<(&'l Rule, Told)>,
    source: &'static str,
}

impl<'l> Quotas<'l> {
    fn of(
        list: Option<&'l List>,
        protocol: Protocol,
        frames: &[Bytes],
        resolution: &Resolution,
    ) -> Self {
        let Some(list) = list else {
            return Self::default();
        };
        let prompt = likely(list, protocol, frames, resolution);
        let weighed = list.weighed(&resolution.route.canonical, prompt, inference::wall_ms());
        Self {
            weighed: weighed.collect(),
            source: source(list.is_default()),
        }
    }

    fn shown(&self) -> Vec<Value> {
        let weighed = self.weighed.iter();
        weighed.map(|(_, told)| shown(told, self.source)).collect()
    }

    /// Which of them would refuse the request for that candidate.
    fn refusal(&self, candidate: &Considered) -> Option<String> {
        let refuses = |rule: &Rule, told: &Told| {
            !told.allows() && rule.covers(&candidate.provider, &candidate.model)
        };
        let mut weighed = self.weighed.iter();
        let (_, told) = weighed.find(|(rule, told)| refuses(rule, told))?;
        Some(quota_refusal(told))
    }
}

fn candidates(explanation: &Explanation, quotas: &Quotas<'_>) -> Vec<Value> {
    let candidates = explanation.candidates.iter();
    let shown = candidates.map(|candidate| {
        let passed_over = quotas.refusal(candidate);
        let passed_over = passed_over.or_else(|| candidate.passed_over.clone());
        considered(candidate, passed_over)
    });
    shown.collect()
}

fn considered(candidate: &Considered, passed_over: Option<String>) -> Value {
    let averages = &candidate.averages;
    json!({
        "provider": candidate.provider,
        "model": candidate.model,
        "group": candidate.group,
        "selector": word(candidate.selector),
        "score": candidate.score,
        "unit": unit(candidate.selector),
        "native": candidate.native,
        "samples": averages.samples,
        "avgTtftMs": averages.ttft_ms,
        "avgTokensPerSec": averages.speed,
        "avgE2eTokensPerSec": averages.overall_speed,
        "passedOver": passed_over,
    })
}

fn left_out(explanation: &Explanation) -> Vec<Value> {
    let left_out = explanation.left_out.iter();
    let shown = left_out.map(|target| {
        json!({ "provider": target.provider, "model": target.model, "reason": target.reason })
    });
    shown.collect()
}

const fn word(selector: Selector) -> &'static str {
    match selector {
        Selector::Random => "random",
        Selector::InOrder => "in_order",
        Selector::Cost => "cost",
        Selector::Latency => "latency",
        Selector::Performance => "performance",
        Selector::E2ePerformance => "e2e_performance",
        Selector::Usage => "usage",
        Selector::Quota => "quota",
    }
}

/// What a selector's score is in.
const fn unit(selector: Selector) -> Option<&'static str> {
    match selector {
        Selector::Random => Some("weight"),
        Selector::Cost => Some("US dollars for 1000 input and 500 output tokens"),
        Selector::Latency => Some("milliseconds"),
        Selector::Performance | Selector::E2ePerformance => Some("tokens per second"),
        Selector::Usage => Some("requests in 24 hours"),
        Selector::InOrder | Selector::Quota => None,
    }
}

fn text<'a>(request: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>, Refusal> {
    match request.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(Refusal::bad(format!(
            "{field}: found {other}; text is wanted"
        ))),
    }
}

fn protocol(name: &str) -> Result<Protocol, Refusal> {
    Protocol::from_name(name).ok_or_else(|| {
        let known = Protocol::ALL.map(Protocol::name).join(", ");
        Refusal::bad(format!(
            "protocol: found {name:?}; one of {known} is wanted"
        ))
    })
}

fn key(call: &Call, name: &str) -> Result<Arc<Key>, Refusal> {
    let found = call.config.keys.get(name).map(Arc::clone);
    found.ok_or_else(|| Refusal::not_found(format!("API key '{name}' not found")))
}

/// The header fields that the request would have; what is none is left out.
fn headers(request: &Map<String, Value>) -> HeaderMap {
    let written = request.get("headers").and_then(Value::as_object);
    let fields = written.into_iter().flatten().filter_map(|(name, value)| {
        let name = name.parse::<HeaderName>().ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    });
    fields.collect()
}

fn refused(unresolved: &Unresolved) -> Refusal {
    let status = match unresolved {
        Unresolved::UnknownModel { .. } | Unresolved::Direct(_) => StatusCode::NOT_FOUND,
        Unresolved::DirectFormat(_) => StatusCode::BAD_REQUEST,
        Unresolved::ModelDenied(_) | Unresolved::ProvidersDenied(_) => StatusCode::FORBIDDEN,
        Unresolved::NoTarget(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(status, unresolved.to_string())
}
