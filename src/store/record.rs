//! A stored row as the management API shows it: every field present, in the
//! contract's order, with ours after them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::Timestamp;
use rusqlite::types::Value as Sql;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::ledger::millisecond;
use crate::money::Nanos;

/// A JSON object.
pub type Record = Map<String, Value>;

/// Fields that cannot be selected, though every whole record has them.
const NOT_SELECTABLE: [&str; 6] = [
    "finalAttemptProvider",
    "finalAttemptModel",
    "allAttemptedProviders",
    "isRaw",
    "requestMethod",
    "requestPath",
];

/// The record with the named fields only, in the record's order. Names that
/// are unknown or cannot be selected are left out; if none is left, the whole
/// record comes back.
#[must_use]
pub fn project(record: Record, fields: &[&str]) -> Record {
    let wanted = |name: &str| fields.contains(&name) && !NOT_SELECTABLE.contains(&name);
    if !record.keys().any(|name| wanted(name)) {
        return record;
    }
    record
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .collect()
}

/// `2026-01-31T12:00:00.000Z`; a time outside the calendar is null.
pub(super) fn iso(ms: i64) -> Value {
    Timestamp::from_millisecond(ms).map_or(Value::Null, |time| format!("{time:.3}").into())
}

/// A request id as it is printed; bytes that are none are null.
pub(super) fn uuid(bytes: &[u8]) -> Value {
    Uuid::from_slice(bytes).map_or(Value::Null, |id| id.to_string().into())
}

/// Reads texts by number, each once.
pub(super) struct Texts<'a> {
    statement: CachedStatement<'a>,
    seen: HashMap<i64, Value>,
}

impl<'a> Texts<'a> {
    pub(super) fn of(connection: &'a Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            statement: connection.prepare_cached("SELECT text FROM names WHERE id = ?1")?,
            seen: HashMap::new(),
        })
    }

    /// The text with that number, or null.
    pub(super) fn text(&mut self, id: Option<i64>) -> Result<Value, rusqlite::Error> {
        let Some(id) = id else {
            return Ok(Value::Null);
        };
        match self.seen.entry(id) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(new) => {
                let found: Option<String> = self
                    .statement
                    .query_row([id], |row| row.get(0))
                    .optional()?;
                Ok(new.insert(found.into()).clone())
            }
        }
    }
}

/// Reads usage records by `usage.id`.
pub(super) struct Records<'a> {
    statement: CachedStatement<'a>,
    captured: CachedStatement<'a>,
    texts: Texts<'a>,
}

impl<'a> Records<'a> {
    pub(super) fn of(connection: &'a Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            statement: connection.prepare_cached("SELECT * FROM usage WHERE id = ?1")?,
            captured: connection.prepare_cached("SELECT 1 FROM captures WHERE request_id = ?1")?,
            texts: Texts::of(connection)?,
        })
    }

    /// The record with that id.
    pub(super) fn read(&mut self, id: i64) -> Result<Option<Record>, rusqlite::Error> {
        let texts = &mut self.texts;
        let mut rows = self.statement.query([id])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let mut record = record(row, texts)?;
        let captured = self
            .captured
            .exists([row.get::<_, Vec<u8>>("request_id")?])?;
        record.insert("hasDebug".to_owned(), captured.into());
        Ok(Some(record))
    }
}

/// Records of these protocols name no final attempt.
const WITHOUT_FINAL_ATTEMPT: [&str; 4] = ["embeddings", "transcriptions", "speech", "images"];

fn record(row: &Row<'_>, texts: &mut Texts<'_>) -> Result<Record, rusqlite::Error> {
    let start_ms = millisecond(row.get("id")?);
    let mut named = |column: &str| texts.text(row.get(column)?);
    let incoming = named("incoming_id")?;
    let provider = named("provider_id")?;
    let model = named("model_id")?;
    let final_attempt = !WITHOUT_FINAL_ATTEMPT.iter().any(|name| incoming == *name);
    let last = |value: &Value| {
        if final_attempt {
            value.clone()
        } else {
            Value::Null
        }
    };
    let bytes: Vec<u8> = row.get("request_id")?;
    let mut record = Record::new();
    let mut put = |name: &str, value: Value| {
        record.insert(name.to_owned(), value);
    };
    put("requestId", uuid(&bytes));
    put("clientRequestId", plain(row, "client_request_id")?);
    put("date", iso(start_ms));
    put("sourceIp", plain(row, "source_ip")?);
    put("apiKey", named("key_id")?);
    put("attribution", plain(row, "attribution")?);
    put("incomingApiType", incoming);
    put("provider", provider.clone());
    put("attemptCount", plain(row, "attempts")?);
    put("retryHistory", plain(row, "retry_history")?);
    put("incomingModelAlias", named("alias_id")?);
    put("canonicalModelName", named("canonical_id")?);
    put("selectedModelName", model.clone());
    put("finalAttemptProvider", last(&provider));
    put("finalAttemptModel", last(&model));
    put("allAttemptedProviders", plain(row, "all_attempted")?);
    put("outgoingApiType", named("outgoing_id")?);
    let status = named("status_id")?;
    let finish = named("finish_id")?;
    tokens(row, &mut record)?;
    costs(row, &mut record)?;
    times(row, &mut record, start_ms, status)?;
    marks(row, &mut record, finish)?;
    Ok(record)
}

fn tokens(row: &Row<'_>, record: &mut Record) -> Result<(), rusqlite::Error> {
    let cache_write = sum(
        row,
        &["cache_write_short", "cache_write_long", "cache_write_other"],
    )?;
    record.insert(
        "tokensInput".to_owned(),
        sum(row, &["input", "tool_prompt"])?,
    );
    record.insert("tokensOutput".to_owned(), plain(row, "output")?);
    record.insert("tokensReasoning".to_owned(), plain(row, "reasoning")?);
    record.insert("tokensCached".to_owned(), plain(row, "cache_read")?);
    record.insert("tokensCacheWrite".to_owned(), cache_write);
    record.insert(
        "tokensEstimated".to_owned(),
        plain(row, "tokens_estimated")?,
    );
    Ok(())
}

fn costs(row: &Row<'_>, record: &mut Record) -> Result<(), rusqlite::Error> {
    let costs = [
        ("costInput", "cost_input"),
        ("costOutput", "cost_output"),
        ("costCached", "cost_cached"),
        ("costCacheWrite", "cost_cache_write"),
        ("costTotal", "cost_total"),
    ];
    for (name, column) in costs {
        let nanos: Option<i64> = row.get(column)?;
        let dollars = nanos.map(|nanos| number(Nanos(nanos.unsigned_abs()).shown()));
        record.insert(name.to_owned(), dollars.unwrap_or(Value::Null));
    }
    record.insert("costSource".to_owned(), plain(row, "cost_source")?);
    record.insert("costMetadata".to_owned(), plain(row, "cost_metadata")?);
    Ok(())
}

fn times(
    row: &Row<'_>,
    record: &mut Record,
    start_ms: i64,
    status: Value,
) -> Result<(), rusqlite::Error> {
    let duration_us: i64 = row.get("duration_us")?;
    let streamed: bool = row.get("streamed")?;
    // An answer in one piece has its first token when it is complete.
    let answered = status == "success" || status == "empty";
    let whole = (!streamed && answered).then_some(duration_us);
    let ttft_us = row.get::<_, Option<i64>>("ttft_us")?.or(whole);
    let output: Option<i64> = row.get("output")?;
    let reasoning: Option<i64> = row.get("reasoning")?;
    let generated = match (output, reasoning) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    };
    let generation_us = if streamed {
        ttft_us.map(|ttft| duration_us.saturating_sub(ttft))
    } else {
        Some(duration_us)
    };
    let speed = match (generated, generation_us) {
        (Some(tokens), Some(us)) if us > 0 => {
            number((tokens as f64 * 1e9 / us as f64).round() / 1e3)
        }
        _ => Value::Null,
    };
    record.insert("startTime".to_owned(), start_ms.into());
    record.insert("durationMs".to_owned(), number(duration_us as f64 / 1e3));
    record.insert("isStreamed".to_owned(), streamed.into());
    record.insert("responseStatus".to_owned(), status);
    let ttft = ttft_us.map_or(Value::Null, |us| number(us as f64 / 1e3));
    record.insert("ttftMs".to_owned(), ttft);
    record.insert("tokensPerSec".to_owned(), speed);
    Ok(())
}

fn marks(row: &Row<'_>, record: &mut Record, finish: Value) -> Result<(), rusqlite::Error> {
    let http_status: i64 = row.get("http_status")?;
    let http_status = if http_status == 0 {
        Value::Null
    } else {
        http_status.into()
    };
    let mut put = |name: &str, value: Value| {
        record.insert(name.to_owned(), value);
    };
    put("hasDebug", false.into());
    put("hasError", row.get::<_, bool>("has_error")?.into());
    put("isPassthrough", row.get::<_, bool>("passthrough")?.into());
    put("isRaw", false.into());
    put("requestMethod", Value::Null);
    put("requestPath", Value::Null);
    put("toolsDefined", Value::Null);
    put("messageCount", Value::Null);
    put("parallelToolCallsEnabled", false.into());
    put("toolCallsCount", plain(row, "tool_calls")?);
    put("finishReason", finish);
    put("kwhUsed", Value::Null);
    put("notes", plain(row, "notes")?);
    put("httpStatus", http_status);
    Ok(())
}

/// An integer, a text or null as it is.
fn plain(row: &Row<'_>, column: &str) -> Result<Value, rusqlite::Error> {
    Ok(match row.get(column)? {
        Sql::Integer(number) => number.into(),
        Sql::Text(text) => text.into(),
        Sql::Real(real) => number(real),
        Sql::Null | Sql::Blob(_) => Value::Null,
    })
}

/// The sum of what is known, null when nothing is.
fn sum(row: &Row<'_>, columns: &[&str]) -> Result<Value, rusqlite::Error> {
    let mut sum = None;
    for column in columns {
        if let Some(part) = row.get::<_, Option<i64>>(*column)? {
            sum = Some(i64::saturating_add(sum.unwrap_or(0), part));
        }
    }
    Ok(sum.into())
}

/// A number without a needless `.0`, as JavaScript prints it.
#[must_use]
pub fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        (value as i64).into()
    } else {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Record {
        let mut record = Record::new();
        for name in ["requestId", "isRaw", "provider", "kwhUsed"] {
            record.insert(name.to_owned(), Value::Null);
        }
        record
    }

    fn names(record: &Record) -> Vec<&str> {
        record.keys().map(String::as_str).collect()
    }

    #[test]
    fn a_projection_keeps_known_names_in_the_records_order() {
        let kept = project(small(), &["provider", "nonsense", "requestId", "isRaw"]);
        assert_eq!(names(&kept), ["requestId", "provider"]);
    }

    #[test]
    fn a_projection_on_nothing_known_keeps_everything() {
        assert_eq!(project(small(), &["nonsense", "isRaw"]), small());
        assert_eq!(project(small(), &[]), small());
    }

    #[test]
    fn dates_have_three_digits_of_milliseconds() {
        assert_eq!(iso(1_769_860_800_000), "2026-01-31T12:00:00.000Z");
        assert_eq!(iso(1_769_860_800_007), "2026-01-31T12:00:00.007Z");
        assert_eq!(iso(i64::MAX), Value::Null);
    }

    #[test]
    fn whole_numbers_have_no_fraction() {
        assert_eq!(number(40.0).to_string(), "40");
        assert_eq!(number(0.5).to_string(), "0.5");
    }
}
