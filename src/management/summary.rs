//! What requests add up to over a stretch of time:
//! `GET /v0/management/usage/summary`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::usage::{instant, rows};
use super::{Answer, Call, Refusal, Reply, blocking};
use crate::inference;
use crate::money::Nanos;
use crate::store::{Bound, Group, GroupBy, Summary, SummaryQuery, Sums, number};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Most buckets of a range that the caller chose.
const MOST_BUCKETS: i64 = 100;

/// A stretch of time and how finely it is looked at. Milliseconds, both ends
/// included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) name: &'static str,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) bucket: i64,
}

/// Series, totals, today, and with `?groupBy=` totals by name. A limited
/// caller's are of its own key.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        let now = inference::wall_ms();
        let range = range(&call, "range", now)?;
        let groups = groups(&call)?;
        let app = Arc::clone(call.app());
        let mut rows = rows(&call);
        rows.start_ms = Some(range.from);
        rows.end_ms = Some(range.to);
        let query = SummaryQuery {
            rows,
            bucket_ms: range.bucket,
            today_ms: app.metrics.midnight_ms(now),
            groups: groups.iter().map(|(_, by)| *by).collect(),
        };
        let summary = blocking(move || Ok(app.store.summary(&query)?)).await?;
        Ok(Reply::json(&shown(range, &summary, &groups)))
    })
}

/// The range that the caller names: up to and with the minute that runs, or its
/// own.
pub(super) fn range(call: &Call, parameter: &str, now: i64) -> Result<Range, Refusal> {
    // Until the end of the minute that runs.
    let end = (now.div_euclid(MINUTE_MS) + 1) * MINUTE_MS;
    let whole_hours = |days: i64| (end - days * DAY_MS).div_euclid(HOUR_MS) * HOUR_MS;
    let (name, from, bucket) = match call.query(parameter).unwrap_or("day") {
        "hour" => ("hour", end - HOUR_MS, MINUTE_MS),
        "day" => ("day", end - DAY_MS, HOUR_MS),
        "week" => ("week", whole_hours(7), DAY_MS),
        "month" => ("month", whole_hours(30), DAY_MS),
        "custom" => return custom(call),
        _ => return Err(Refusal::bad("Invalid range")),
    };
    Ok(Range {
        name,
        from,
        to: end - 1,
        bucket,
    })
}

fn custom(call: &Call) -> Result<Range, Refusal> {
    let invalid = |_| Refusal::bad("Invalid date format");
    let from = instant(call, "startDate", Bound::Start).map_err(invalid)?;
    let to = instant(call, "endDate", Bound::End).map_err(invalid)?;
    let (Some(from), Some(to)) = (from, to) else {
        return Err(Refusal::bad(
            "startDate and endDate are required for custom range",
        ));
    };
    if to <= from {
        return Err(Refusal::bad("endDate must be after startDate"));
    }
    Ok(Range {
        name: "custom",
        from,
        to,
        bucket: bucket(to.saturating_sub(from)),
    })
}

/// The length of a bucket when so many milliseconds are looked at: a step that
/// fits, and as many of it as keep the buckets few.
pub(super) fn bucket(span: i64) -> i64 {
    let step = if span <= 30 * MINUTE_MS {
        MINUTE_MS
    } else if span <= DAY_MS {
        5 * MINUTE_MS
    } else if span <= 7 * DAY_MS {
        HOUR_MS
    } else {
        6 * HOUR_MS
    };
    // One bucket less: the range begins somewhere inside of its first one.
    let steps = span / (step * (MOST_BUCKETS - 1)) + 1;
    step * steps
}

type NamedGroup = (&'static str, GroupBy);

/// The list of `groupBy`, each once.
fn groups(call: &Call) -> Result<Vec<NamedGroup>, Refusal> {
    let mut groups: Vec<NamedGroup> = Vec::new();
    for name in call
        .query("groupBy")
        .into_iter()
        .flat_map(|list| list.split(','))
    {
        let group = match name.trim() {
            "key" | "apiKey" => ("key", GroupBy::Key),
            "attribution" => ("attribution", GroupBy::Attribution),
            "provider" => ("provider", GroupBy::Provider),
            "alias" => ("alias", GroupBy::Alias),
            "model" => ("model", GroupBy::Model),
            other => {
                return Err(Refusal::bad(format!(
                    "groupBy: found {other:?}; key, attribution, provider, alias or model is wanted"
                )));
            }
        };
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(groups)
}

fn shown(range: Range, summary: &Summary, groups: &[NamedGroup]) -> Value {
    let series: Vec<Value> = summary
        .series
        .iter()
        .map(|(from, sums)| slot(*from, sums))
        .collect();
    let mut body = json!({
        "range": range.name,
        "series": series,
        "stats": stats(&summary.total),
        "today": today(&summary.today),
        "startMs": range.from,
        "endMs": range.to,
        "bucketMs": range.bucket,
    });
    if !groups.is_empty() {
        let lists = groups.iter().zip(&summary.groups);
        let lists: Map<String, Value> = lists
            .map(|((name, _), list)| ((*name).to_owned(), list.iter().map(entry).collect()))
            .collect();
        body["groups"] = Value::Object(lists);
    }
    body
}

fn slot(from: i64, sums: &Sums) -> Value {
    json!({
        "bucketStartMs": from,
        "requests": sums.requests,
        "inputTokens": sums.input,
        "outputTokens": sums.output,
        "cachedTokens": sums.cached,
        "cacheWriteTokens": sums.cache_write,
        "kwhUsed": 0,
        "tokens": tokens(sums),
        "reasoningTokens": sums.reasoning,
        "errors": sums.errors,
        "totalCost": dollars(sums.cost),
    })
}

fn stats(sums: &Sums) -> Value {
    json!({
        "totalRequests": sums.requests,
        "totalTokens": tokens(sums),
        "totalKwhUsed": 0,
        "avgDurationMs": mean_ms(sums.duration_us, sums.requests),
        "totalDurationMs": number((sums.duration_us as f64 / 1e3).round()),
        "totalErrors": sums.errors,
        "totalCost": dollars(sums.cost),
        "avgTtftMs": mean_ms(sums.ttft_us, sums.ttft_count),
    })
}

fn today(sums: &Sums) -> Value {
    json!({
        "requests": sums.requests,
        "inputTokens": sums.input,
        "outputTokens": sums.output,
        "reasoningTokens": sums.reasoning,
        "cachedTokens": sums.cached,
        "cacheWriteTokens": sums.cache_write,
        "kwhUsed": 0,
        "totalCost": dollars(sums.cost),
    })
}

fn entry((name, sums): &Group) -> Value {
    json!({
        "name": name,
        "requests": sums.requests,
        "errors": sums.errors,
        "inputTokens": sums.input,
        "outputTokens": sums.output,
        "reasoningTokens": sums.reasoning,
        "cachedTokens": sums.cached,
        "cacheWriteTokens": sums.cache_write,
        "tokens": tokens(sums),
        "totalCost": dollars(sums.cost),
        "avgDurationMs": mean_ms(sums.duration_us, sums.requests),
        "avgTtftMs": mean_ms(sums.ttft_us, sums.ttft_count),
    })
}

/// What the contract calls tokens: reasoning is beside them.
const fn tokens(sums: &Sums) -> i64 {
    sums.input + sums.output + sums.cached + sums.cache_write
}

fn dollars(nanos: i64) -> Value {
    number(Nanos(nanos.unsigned_abs()).shown())
}

/// With two digits; 0 of nothing.
fn mean_ms(us: i64, of: i64) -> Value {
    if of == 0 {
        return 0.into();
    }
    number((us as f64 / of as f64 / 10.0).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_grow_with_the_range() {
        for (span, wanted) in [
            (MINUTE_MS, MINUTE_MS),
            (30 * MINUTE_MS, MINUTE_MS),
            (HOUR_MS, 5 * MINUTE_MS),
            (DAY_MS, 15 * MINUTE_MS),
            (2 * DAY_MS, HOUR_MS),
            (7 * DAY_MS, 2 * HOUR_MS),
            (14 * DAY_MS, 6 * HOUR_MS),
            (365 * DAY_MS, 15 * 6 * HOUR_MS),
        ] {
            assert_eq!(bucket(span), wanted, "{span}");
        }
    }

    proptest! {
        #[test]
        fn a_range_never_has_more_buckets_than_the_most(span in 1..4000 * DAY_MS, from in 0..DAY_MS) {
            let bucket = bucket(span);
            let buckets = (from + span).div_euclid(bucket) - from.div_euclid(bucket) + 1;
            prop_assert!(buckets <= MOST_BUCKETS, "{buckets} of {bucket}");
        }
    }
}
