//! The `usage` table as it is read: filters, orders, pages; and how rows leave
//! it.

use std::collections::HashMap;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use uuid::Uuid;

use super::ledger::{HOUR_MS, first_id, hour, millisecond};
use super::record::{Record, Records};
use crate::metrics::Figures;
use crate::money::Nanos;

/// What to look for among the usage rows. The default finds all of them,
/// newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageQuery {
    /// Most records to return; `None` is all of them.
    pub limit: Option<u64>,
    /// Records to skip.
    pub offset: u64,
    /// What to order by.
    pub sort_by: SortBy,
    /// Whether the smallest comes first. Nulls are smaller than anything.
    pub ascending: bool,
    /// Part of the key's name, in any case.
    pub api_key: Option<String>,
    /// Part of the provider's name, in any case.
    pub provider: Option<String>,
    /// Part of the model's name as the client sent it, in any case.
    pub incoming_model_alias: Option<String>,
    /// Part of the model's name at the provider, in any case.
    pub selected_model_name: Option<String>,
    /// The request's id.
    pub request_id: Option<String>,
    /// The client's own id for the request.
    pub client_request_id: Option<String>,
    /// The protocol that the client spoke.
    pub incoming_api_type: Option<String>,
    /// The protocol that the provider spoke.
    pub outgoing_api_type: Option<String>,
    /// How the request ended.
    pub response_status: Option<String>,
    /// The part of the key that the client named.
    pub attribution: Option<String>,
    /// First millisecond since the epoch, see [`parse_instant`].
    pub start_ms: Option<i64>,
    /// Last millisecond since the epoch, see [`parse_instant`].
    pub end_ms: Option<i64>,
    /// Shortest duration in milliseconds, inclusive.
    pub min_duration_ms: Option<f64>,
    /// Longest duration in milliseconds, inclusive.
    pub max_duration_ms: Option<f64>,
    /// The one key whose rows the caller may see.
    pub only_key: Option<String>,
}

/// What usage rows are ordered by. Rows that are equal in it come newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortBy {
    /// When the request began.
    #[default]
    Date,
    /// The key's name.
    ApiKey,
    /// The provider's name.
    Provider,
    /// The model as the client named it.
    IncomingModelAlias,
    /// The whole cost.
    CostTotal,
    /// The whole duration.
    DurationMs,
}

impl SortBy {
    /// The order that `sortBy` names; an unknown name is the date.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "apiKey" => Self::ApiKey,
            "provider" => Self::Provider,
            "incomingModelAlias" => Self::IncomingModelAlias,
            "costTotal" => Self::CostTotal,
            "durationMs" => Self::DurationMs,
            _ => Self::Date,
        }
    }

    const fn expression(self) -> &'static str {
        match self {
            Self::Date => "id",
            Self::ApiKey => "(SELECT text FROM names WHERE names.id = key_id)",
            Self::Provider => "(SELECT text FROM names WHERE names.id = provider_id)",
            Self::IncomingModelAlias => "(SELECT text FROM names WHERE names.id = alias_id)",
            Self::CostTotal => "cost_total",
            Self::DurationMs => "duration_us",
        }
    }
}

/// Some of the records that a query finds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsagePage {
    /// The records, whole.
    pub data: Vec<Record>,
    /// How many the query finds without limit and offset.
    pub total: u64,
}

/// Which end of a range an instant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The first instant in the range.
    Start,
    /// The last instant in the range.
    End,
}

/// The milliseconds since the epoch of an ISO 8601 date or time. Without an
/// offset it is UTC. A date alone is the whole day: its first millisecond as a
/// start, its last one as an end. `None` when it is neither.
#[must_use]
pub fn parse_instant(text: &str, bound: Bound) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let utc = |time: DateTime| {
        let time = time.to_zoned(TimeZone::UTC).ok()?;
        Some(time.timestamp().as_millisecond())
    };
    // A date would also parse as its own midnight, so length tells them apart.
    if text.contains([':', 'T', 't', ' ']) {
        return utc(text.parse::<DateTime>().ok()?);
    }
    let date: Date = text.parse().ok()?;
    match bound {
        Bound::Start => utc(date.at(0, 0, 0, 0)),
        Bound::End => utc(date.checked_add(1.day()).ok()?.at(0, 0, 0, 0))?.checked_sub(1),
    }
}

/// The page that `query` asks for.
///
/// In the default order, filtered by nothing but dates and the caller's own
/// key, totals and the page's place come from `usage_hours`: any page of any
/// table costs about the rows of one hour. Other queries look at every row in
/// their range of dates.
pub(super) fn page(
    connection: &Connection,
    query: &UsageQuery,
) -> Result<UsagePage, rusqlite::Error> {
    let (total, ids) = if query.is_plain() {
        by_hours(connection, query)?
    } else {
        by_filter(connection, query)?
    };
    let mut records = Records::of(connection)?;
    let mut data = Vec::with_capacity(ids.len());
    for id in ids {
        data.extend(records.read(id)?);
    }
    Ok(UsagePage { data, total })
}

/// The record of that request.
pub(super) fn by_request(
    connection: &Connection,
    request_id: Uuid,
    only_key: Option<&str>,
) -> Result<Option<Record>, rusqlite::Error> {
    let query = UsageQuery {
        request_id: Some(request_id.to_string()),
        only_key: only_key.map(str::to_owned),
        limit: Some(1),
        ..UsageQuery::default()
    };
    Ok(page(connection, &query)?.data.pop())
}

/// Figures over the rows that began at `from_ms` or later.
pub(super) fn figures_since(
    connection: &Connection,
    from_ms: i64,
) -> Result<Figures, rusqlite::Error> {
    let sql = "SELECT count(*),
        count(*) FILTER (WHERE status_id IN (SELECT id FROM names
            WHERE text IN ('error', 'timeout', 'stall', 'quota_exceeded'))),
        coalesce(sum(coalesce(input, 0) + coalesce(tool_prompt, 0)), 0),
        coalesce(sum(output), 0),
        coalesce(sum(reasoning), 0),
        coalesce(sum(cache_read), 0),
        coalesce(sum(coalesce(cache_write_short, 0) + coalesce(cache_write_long, 0)
            + coalesce(cache_write_other, 0)), 0),
        coalesce(sum(duration_us), 0),
        coalesce(sum(cost_total), 0)
        FROM usage WHERE id >= ?1";
    connection.query_row(sql, [first_id(from_ms)], |row| {
        let number = |index: usize| -> Result<u64, rusqlite::Error> {
            Ok(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
        };
        let mut figures = Figures::default();
        figures.requests = number(0)?;
        figures.errors = number(1)?;
        figures.input = number(2)?;
        figures.output = number(3)?;
        figures.reasoning = number(4)?;
        figures.cached = number(5)?;
        figures.cache_write = number(6)?;
        figures.duration_us = number(7)?;
        figures.cost = Nanos(number(8)?);
        Ok(figures)
    })
}

/// Deletes the row of that request; returns how many rows went.
pub(super) fn delete_one(
    connection: &Connection,
    request_id: Uuid,
) -> Result<u64, rusqlite::Error> {
    let deleted: Option<(i64, Option<i64>)> = connection
        .prepare_cached("DELETE FROM usage WHERE request_id = ?1 RETURNING id, key_id")?
        .query_row([request_id.as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((id, key)) = deleted else {
        return Ok(0);
    };
    uncount(connection, hour(millisecond(id)), key.unwrap_or(0), 1)?;
    Ok(1)
}

/// Deletes up to `slice` of the oldest rows that began before `before_ms`;
/// returns how many rows went.
pub(super) fn delete_slice(
    connection: &Connection,
    before_ms: i64,
    slice: u32,
) -> Result<u64, rusqlite::Error> {
    let mut gone: HashMap<(i64, i64), i64> = HashMap::new();
    let mut last = None;
    let mut count = 0;
    let mut oldest = connection
        .prepare_cached("SELECT id, key_id FROM usage WHERE id < ?1 ORDER BY id LIMIT ?2")?;
    let mut rows = oldest.query(params![first_id(before_ms), slice])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let key: Option<i64> = row.get(1)?;
        *gone
            .entry((hour(millisecond(id)), key.unwrap_or(0)))
            .or_default() += 1;
        last = Some(id);
        count += 1;
    }
    drop(rows);
    let Some(last) = last else {
        return Ok(0);
    };
    connection
        .prepare_cached("DELETE FROM usage WHERE id <= ?1")?
        .execute([last])?;
    for ((hour, key), rows) in gone {
        uncount(connection, hour, key, rows)?;
    }
    Ok(count)
}

fn uncount(connection: &Connection, hour: i64, key: i64, rows: i64) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("UPDATE usage_hours SET rows = rows - ?3 WHERE hour = ?1 AND key_id = ?2")?
        .execute([hour, key, rows])?;
    connection
        .prepare_cached("DELETE FROM usage_hours WHERE hour = ?1 AND key_id = ?2 AND rows <= 0")?
        .execute([hour, key])?;
    Ok(())
}

impl UsageQuery {
    /// Whether `usage_hours` can answer it.
    fn is_plain(&self) -> bool {
        let with_ranges_and_key = Self {
            limit: self.limit,
            offset: self.offset,
            ascending: self.ascending,
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            only_key: self.only_key.clone(),
            ..Self::default()
        };
        *self == with_ranges_and_key
    }

    /// The ids in the range of dates, both included.
    fn id_range(&self) -> (i64, i64) {
        let from = self.start_ms.map_or(0, first_id);
        let to = match self.end_ms {
            None => i64::MAX,
            Some(ms) if ms < 0 => -1,
            Some(ms) => first_id(ms.saturating_add(1)) - 1,
        };
        (from, to)
    }
}

/// The total and the page's ids, found through the counts per hour.
fn by_hours(
    connection: &Connection,
    query: &UsageQuery,
) -> Result<(u64, Vec<i64>), rusqlite::Error> {
    let key = match &query.only_key {
        None => None,
        Some(name) => match number_of(connection, name)? {
            Some(id) => Some(id),
            None => return Ok((0, Vec::new())),
        },
    };
    let mut hours = hours(connection, query, key)?;
    let total = hours.iter().map(|(_, rows)| rows).sum();
    if !query.ascending {
        hours.reverse();
    }
    let order = if query.ascending { "ASC" } else { "DESC" };
    let sql = format!(
        "SELECT id FROM usage WHERE id BETWEEN ?1 AND ?2 AND (?3 IS NULL OR key_id = ?3)
         ORDER BY id {order} LIMIT ?4 OFFSET ?5"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let (from, to) = query.id_range();
    let mut skip = query.offset;
    let mut wanted = query.limit.unwrap_or(u64::MAX);
    let mut ids = Vec::new();
    for (hour, rows) in hours {
        if wanted == 0 {
            break;
        }
        if skip >= rows {
            skip -= rows;
            continue;
        }
        let (first, last) = hour_range(hour);
        let (first, last) = (first.max(from), last.min(to));
        let found = statement.query_map(
            params![first, last, key, signed(wanted), signed(skip)],
            |row| row.get(0),
        )?;
        let before = ids.len();
        for id in found {
            ids.push(id?);
        }
        wanted = wanted.saturating_sub((ids.len() - before) as u64);
        skip = 0;
    }
    Ok((total, ids))
}

/// Hours in the query's range and how many rows it finds in each, oldest
/// first. Hours that the range cuts are counted row by row.
fn hours(
    connection: &Connection,
    query: &UsageQuery,
    key: Option<i64>,
) -> Result<Vec<(i64, u64)>, rusqlite::Error> {
    let (from, to) = query.id_range();
    let mut statement = connection.prepare_cached(
        "SELECT hour, sum(rows) FROM usage_hours
         WHERE hour BETWEEN ?1 AND ?2 AND (?3 IS NULL OR key_id = ?3)
         GROUP BY hour ORDER BY hour",
    )?;
    let range = params![hour(millisecond(from)), hour(millisecond(to)), key];
    let counted = statement.query_map(range, |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    let mut hours = Vec::new();
    for entry in counted {
        let (hour, mut rows) = entry?;
        let (first, last) = hour_range(hour);
        if first < from || last > to {
            rows = connection
                .prepare_cached(
                    "SELECT count(*) FROM usage
                     WHERE id BETWEEN ?1 AND ?2 AND (?3 IS NULL OR key_id = ?3)",
                )?
                .query_row(params![first.max(from), last.min(to), key], |row| {
                    row.get(0)
                })?;
        }
        hours.push((hour, u64::try_from(rows).unwrap_or(0)));
    }
    Ok(hours)
}

/// The first and the last id of an hour.
const fn hour_range(hour: i64) -> (i64, i64) {
    let from = hour.saturating_mul(HOUR_MS);
    (first_id(from), first_id(from.saturating_add(HOUR_MS)) - 1)
}

/// The total and the page's ids, found by looking at the rows.
fn by_filter(
    connection: &Connection,
    query: &UsageQuery,
) -> Result<(u64, Vec<i64>), rusqlite::Error> {
    let filter = Filter::of(query);
    let wanted = &filter.text;
    let total: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM usage WHERE {wanted}"))?
        .query_row(params_from_iter(&filter.values), |row| row.get(0))?;
    let direction = if query.ascending { "ASC" } else { "DESC" };
    let order = match query.sort_by {
        SortBy::Date => format!("id {direction}"),
        other => format!("{} {direction}, id DESC", other.expression()),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id FROM usage WHERE {wanted} ORDER BY {order} LIMIT ? OFFSET ?"
    ))?;
    let mut values = filter.values;
    values.push(query.limit.map_or(-1, signed).into());
    values.push(signed(query.offset).into());
    let ids = statement
        .query_map(params_from_iter(&values), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok((u64::try_from(total).unwrap_or(0), ids))
}

/// The text of a WHERE clause and the values that it speaks of.
struct Filter {
    text: String,
    values: Vec<Sql>,
}

impl Filter {
    fn of(query: &UsageQuery) -> Self {
        let (from, to) = query.id_range();
        let mut filter = Self {
            text: "id BETWEEN ? AND ?".to_owned(),
            values: vec![from.into(), to.into()],
        };
        filter.parts(query);
        filter.exact(query);
        if let Some(ms) = query.min_duration_ms {
            filter.and("duration_us >= ?", (ms * 1000.0).ceil() as i64);
        }
        if let Some(ms) = query.max_duration_ms {
            filter.and("duration_us <= ?", (ms * 1000.0).floor() as i64);
        }
        filter
    }

    /// Conditions on a part of a text. `instr` takes every character for
    /// itself, so that `%` and `_` need no escape.
    fn parts(&mut self, query: &UsageQuery) {
        let parts = [
            ("key_id", &query.api_key),
            ("provider_id", &query.provider),
            ("alias_id", &query.incoming_model_alias),
            ("model_id", &query.selected_model_name),
        ];
        for (column, part) in parts {
            if let Some(part) = part {
                self.and(
                    &format!(
                        "{column} IN (SELECT names.id FROM names
                         WHERE instr(lower(text), lower(?)) > 0)"
                    ),
                    part.clone(),
                );
            }
        }
    }

    fn exact(&mut self, query: &UsageQuery) {
        let named = [
            ("key_id", &query.only_key),
            ("incoming_id", &query.incoming_api_type),
            ("outgoing_id", &query.outgoing_api_type),
            ("status_id", &query.response_status),
        ];
        for (column, text) in named {
            if let Some(text) = text {
                let condition = format!("{column} = (SELECT names.id FROM names WHERE text = ?)");
                self.and(&condition, text.clone());
            }
        }
        let kept = [
            ("attribution = ?", &query.attribution),
            ("client_request_id = ?", &query.client_request_id),
        ];
        for (condition, text) in kept {
            if let Some(text) = text {
                self.and(condition, text.clone());
            }
        }
        if let Some(id) = &query.request_id {
            // What is no id is nobody's id.
            let id = Uuid::parse_str(id).map_or(Sql::Null, |id| Sql::Blob(id.as_bytes().to_vec()));
            self.and("request_id = ?", id);
        }
    }

    fn and(&mut self, condition: &str, value: impl Into<Sql>) {
        self.text.push_str(" AND ");
        self.text.push_str(condition);
        self.values.push(value.into());
    }
}

fn number_of(connection: &Connection, name: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT id FROM names WHERE text = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

/// SQLite's integers are signed.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Tables that are counted from usage rows.
pub(super) const COUNTED: [&str; 1] = ["usage_hours"];

/// Counts all rows anew into those tables, which are empty.
pub(super) fn recount(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(
        "INSERT INTO usage_hours (hour, key_id, rows)
         SELECT (id >> 20) / 3600000, coalesce(key_id, 0), count(*) FROM usage GROUP BY 1, 2",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_with_and_without_offset() {
        let noon = Some(1_769_860_800_000);
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00.000Z",
            "2026-01-31T13:00:00+01:00",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00",
            " 2026-01-31T12:00:00Z ",
        ] {
            assert_eq!(parse_instant(text, Bound::Start), noon, "{text}");
            assert_eq!(parse_instant(text, Bound::End), noon, "{text}");
        }
    }

    #[test]
    fn a_date_alone_is_the_whole_day() {
        let midnight = 1_769_817_600_000;
        assert_eq!(parse_instant("2026-01-31", Bound::Start), Some(midnight));
        assert_eq!(
            parse_instant("2026-01-31", Bound::End),
            Some(midnight + 86_399_999)
        );
    }

    #[test]
    fn garbage_is_no_instant() {
        for text in [
            "",
            "abc",
            "2026-13-01",
            "2026-01-32T00:00:00Z",
            "1769860800000",
            "é",
        ] {
            assert_eq!(parse_instant(text, Bound::Start), None, "{text}");
        }
    }

    #[test]
    fn the_last_hour_there_is_does_not_overflow() {
        let (first, last) = hour_range(hour(millisecond(i64::MAX)));
        assert!(first > 0 && last >= first);
    }

    #[test]
    fn a_request_is_found_through_an_index_and_a_page_without_sorting() {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        let plan = |query: &UsageQuery| {
            let filter = Filter::of(query);
            let sql = format!(
                "EXPLAIN QUERY PLAN SELECT id FROM usage WHERE {} ORDER BY id DESC LIMIT 1",
                filter.text
            );
            let mut statement = connection.prepare(&sql).unwrap();
            let lines: Vec<String> = statement
                .query_map(params_from_iter(&filter.values), |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            lines.join("\n")
        };
        let by_id = UsageQuery {
            request_id: Some(Uuid::nil().to_string()),
            ..UsageQuery::default()
        };
        assert!(
            plan(&by_id).contains("usage_by_request"),
            "{}",
            plan(&by_id)
        );
        let by_key = UsageQuery {
            api_key: Some("a".to_owned()),
            ..UsageQuery::default()
        };
        assert!(
            !plan(&by_key).contains("TEMP B-TREE FOR ORDER"),
            "{}",
            plan(&by_key)
        );
    }
}
