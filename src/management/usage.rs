//! Every request, one record each: `/v0/management/usage`.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Answer, Call, Refusal, Reply, blocking, whole};
use crate::inference;
use crate::store::{Bound, SortBy, UsageQuery, parse_instant, project};

/// Records of a page when the caller doesn't say.
const USUAL_PAGE: u64 = 50;
/// Most records of one page: each is some kilobytes of memory.
pub(super) const LARGEST_PAGE: u64 = 10_000;
const DAY_MS: u64 = 86_400_000;

/// The records that the query finds; a limited caller sees its own key's.
pub fn list(call: Call) -> Answer {
    Box::pin(async move {
        let query = query(&call)?;
        let fields: Vec<String> = call
            .query("fields")
            .map(|list| list.split(',').map(|name| name.trim().to_owned()).collect())
            .unwrap_or_default();
        let (limit, offset) = (query.limit, query.offset);
        let app = Arc::clone(call.app());
        let body = blocking(move || {
            let page = app.store.usage(&query)?;
            let names: Vec<&str> = fields.iter().map(String::as_str).collect();
            let data = page.data.into_iter();
            let data: Vec<Value> = data
                .map(|record| Value::Object(project(record, &names)))
                .collect();
            Ok(json!({ "data": data, "total": page.total, "limit": limit, "offset": offset }))
        })
        .await?;
        Ok(Reply::json(&body))
    })
}

fn query(call: &Call) -> Result<UsageQuery, Refusal> {
    Ok(UsageQuery {
        limit: Some(page_limit(call, LARGEST_PAGE)?),
        offset: call.whole("offset")?.unwrap_or(0),
        sort_by: call.query("sortBy").map_or(SortBy::Date, SortBy::from_name),
        ascending: call.query("sortDir") == Some("asc"),
        request_id: call.query("requestId").map(str::to_owned),
        client_request_id: call.query("clientRequestId").map(str::to_owned),
        start_ms: instant(call, "startDate", Bound::Start)?,
        end_ms: instant(call, "endDate", Bound::End)?,
        min_duration_ms: milliseconds(call, "minDurationMs")?,
        max_duration_ms: milliseconds(call, "maxDurationMs")?,
        ..rows(call)
    })
}

/// Whose and what kind of requests; whenever they were.
pub(super) fn rows(call: &Call) -> UsageQuery {
    let text = |name: &str| call.query(name).map(str::to_owned);
    let only_key = call.only_key().map(|key| key.to_string());
    UsageQuery {
        // Whom it may see says more than what it asks for.
        api_key: text("apiKey").filter(|_| only_key.is_none()),
        provider: text("provider"),
        incoming_model_alias: text("incomingModelAlias"),
        selected_model_name: text("selectedModelName"),
        incoming_api_type: text("incomingApiType"),
        outgoing_api_type: text("outgoingApiType"),
        response_status: text("responseStatus"),
        attribution: text("attribution"),
        only_key,
        ..UsageQuery::default()
    }
}

/// `limit`, which has a default and an end.
pub(super) fn page_limit(call: &Call, largest: u64) -> Result<u64, Refusal> {
    let limit = call.whole("limit")?.unwrap_or(USUAL_PAGE);
    if limit > largest {
        return Err(Refusal::bad(format!(
            "limit: found {limit}; at most {largest} is wanted, and offset for the rest"
        )));
    }
    Ok(limit)
}

pub(super) fn instant(call: &Call, name: &str, bound: Bound) -> Result<Option<i64>, Refusal> {
    let Some(text) = call.query(name) else {
        return Ok(None);
    };
    // The plus sign of an offset, unless it was escaped, has become a space.
    let found = parse_instant(text, bound)
        .or_else(|| parse_instant(&text.replace(' ', "+"), bound))
        .ok_or_else(|| {
            Refusal::bad(format!(
                "{name}: found {text:?}; a date like 2026-01-31 or a time like 2026-01-31T12:00:00Z is wanted"
            ))
        })?;
    Ok(Some(found))
}

fn milliseconds(call: &Call, name: &str) -> Result<Option<f64>, Refusal> {
    let Some(text) = call.query(name) else {
        return Ok(None);
    };
    let number = text.trim().parse::<f64>().ok();
    match number.filter(|number| number.is_finite()) {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::bad(format!(
            "{name}: found {text:?}; a number of milliseconds is wanted"
        ))),
    }
}

/// Deletes all records, or with `?olderThanDays=N` those of requests that
/// began before that.
pub fn delete_all(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&["olderThanDays"])?;
        let before = match call.given("olderThanDays") {
            None => i64::MAX,
            Some(text) => {
                let days = whole("olderThanDays", text)?;
                let age = i64::try_from(days.saturating_mul(DAY_MS)).unwrap_or(i64::MAX);
                // Ids of rows begin with the epoch.
                inference::wall_ms().saturating_sub(age).max(0)
            }
        };
        let app = Arc::clone(call.app());
        blocking(move || Ok(app.store.delete_usage_older_than(before)?)).await?;
        Ok(Reply::json(&json!({ "success": true })))
    })
}

/// Deletes the record of one request; an unknown one is gone already.
pub fn delete(call: Call) -> Answer {
    Box::pin(async move {
        call.takes_only(&[])?;
        if let Ok(id) = call.params.value("id").parse::<Uuid>() {
            let app = Arc::clone(call.app());
            blocking(move || Ok(app.store.delete_usage(id)?)).await?;
        }
        Ok(Reply::json(&json!({ "success": true })))
    })
}
