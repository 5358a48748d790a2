//! The `usage` table as it is read: filters, orders, pages; and how rows leave
//! it.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use uuid::Uuid;

use super::blocks;
use super::column::Number;
use super::filter::Filter;
use super::ledger::{END_MS, first_id};
use super::reading::{Grouping, Reading, asked};
use super::record::{Record, Records};
use super::scan::Scan;
use super::sums::Side;
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

/// The page that `query` asks for. Ids have an index; everything else is found
/// in blocks.
pub(super) fn page(
    connection: &Connection,
    query: &UsageQuery,
) -> Result<UsagePage, rusqlite::Error> {
    let filter = Filter::of(connection, query)?;
    if filter.is_hopeless() {
        return Ok(UsagePage::default());
    }
    let (total, ids) = if filter.has_ids() {
        by_index(connection, query, &filter)?
    } else {
        let range = asked(query.start_ms, query.end_ms);
        let mut reading = Reading::of(connection, &filter, range)?;
        let mut scan = reading.scan(range)?;
        (scan.rows() as u64, in_order(connection, query, &mut scan)?)
    };
    let mut records = Records::of(connection)?;
    let mut data = Vec::with_capacity(ids.len());
    for id in ids {
        data.extend(records.read(id)?);
    }
    Ok(UsagePage { data, total })
}

/// The page's ids.
fn in_order(
    connection: &Connection,
    query: &UsageQuery,
    scan: &mut Scan<'_, '_>,
) -> Result<Vec<i64>, rusqlite::Error> {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (skip, limit) = (count(query.offset), count(query.limit.unwrap_or(u64::MAX)));
    if limit == 0 {
        return Ok(Vec::new());
    }
    let side = match query.sort_by {
        SortBy::Date => return scan.by_time(query.ascending, skip, limit),
        SortBy::CostTotal => {
            return scan.by_number(Number::Cost, query.ascending, skip, limit);
        }
        SortBy::DurationMs => {
            return scan.by_number(Number::Duration, query.ascending, skip, limit);
        }
        SortBy::ApiKey => Side::Key,
        SortBy::Provider => Side::Provider,
        SortBy::IncomingModelAlias => Side::Alias,
    };
    let mut name = connection.prepare_cached("SELECT text FROM names WHERE id = ?1")?;
    let mut names: Vec<(Option<String>, i64, usize)> = Vec::new();
    for (number, rows) in scan.count_by(side)? {
        let text = name.query_row([number], |row| row.get(0)).optional()?;
        names.push((text, number, rows));
    }
    names.sort();
    if !query.ascending {
        names.reverse();
    }
    let names: Vec<(i64, usize)> = names
        .into_iter()
        .map(|(_, name, rows)| (name, rows))
        .collect();
    scan.by_name(side, &names, skip, limit)
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
    let filter = Filter::default();
    let since = (from_ms, END_MS);
    let mut reading = Reading::of(connection, &filter, since)?;
    let gathered = reading.gather(since, &[Grouping::default()])?;
    let mut figures = Figures::default();
    for sums in gathered.iter().flat_map(|sums| sums.values()) {
        let number = |sum: i64| u64::try_from(sum).unwrap_or(0);
        figures.requests += number(sums.requests);
        figures.errors += number(sums.errors);
        figures.input += number(sums.input);
        figures.output += number(sums.output);
        figures.reasoning += number(sums.reasoning);
        figures.cached += number(sums.cached);
        figures.cache_write += number(sums.cache_write);
        figures.duration_us += number(sums.duration_us);
        figures.cost = figures.cost.plus(Nanos(number(sums.cost)));
    }
    Ok(figures)
}

/// Deletes the row of that request; returns how many rows went.
pub(super) fn delete_one(
    connection: &Connection,
    request_id: Uuid,
) -> Result<u64, rusqlite::Error> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT id FROM usage WHERE request_id = ?1")?
        .query_row([request_id.as_bytes()], |row| row.get(0))
        .optional()?;
    let Some(id) = found else {
        return Ok(0);
    };
    connection
        .prepare_cached("DELETE FROM usage WHERE id = ?1")?
        .execute([id])?;
    blocks::forget(connection, &[id])?;
    Ok(1)
}

/// Deletes up to `slice` of the oldest rows that began before `before_ms`;
/// returns how many rows went.
pub(super) fn delete_slice(
    connection: &Connection,
    before_ms: i64,
    slice: u32,
) -> Result<u64, rusqlite::Error> {
    let ids: Vec<i64> = connection
        .prepare_cached("SELECT id FROM usage WHERE id < ?1 ORDER BY id LIMIT ?2")?
        .query_map(params![first_id(before_ms), slice], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let Some(last) = ids.last() else {
        return Ok(0);
    };
    connection
        .prepare_cached("DELETE FROM usage WHERE id <= ?1")?
        .execute([last])?;
    blocks::forget(connection, &ids)?;
    Ok(ids.len() as u64)
}

/// The total and the page's ids of a query for an id.
fn by_index(
    connection: &Connection,
    query: &UsageQuery,
    filter: &Filter,
) -> Result<(u64, Vec<i64>), rusqlite::Error> {
    let (more, more_values) = filter.on_rows();
    let (from, to) = asked(query.start_ms, query.end_ms);
    let mut values = vec![first_id(from).into(), first_id(to).into()];
    values.extend(more_values);
    let wanted = format!("id >= ? AND id < ?{more}");
    let total: i64 = connection
        .prepare(&format!("SELECT count(*) FROM usage WHERE {wanted}"))?
        .query_row(params_from_iter(&values), |row| row.get(0))?;
    let direction = if query.ascending { "ASC" } else { "DESC" };
    let order = match query.sort_by {
        SortBy::Date => format!("id {direction}"),
        other => format!("{} {direction}, id DESC", other.expression()),
    };
    let mut statement = connection.prepare(&format!(
        "SELECT id FROM usage WHERE {wanted} ORDER BY {order} LIMIT ? OFFSET ?"
    ))?;
    values.push(query.limit.map_or(-1, signed).into());
    values.push(signed(query.offset).into());
    let ids = statement
        .query_map(params_from_iter(&values), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok((u64::try_from(total).unwrap_or(0), ids))
}

/// SQLite's integers are signed.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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
    fn a_request_is_found_through_an_index() {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        let plan = |query: &UsageQuery| {
            let filter = Filter::of(&connection, query).unwrap();
            let (wanted, values) = filter.on_rows();
            let sql = format!(
                "EXPLAIN QUERY PLAN SELECT id FROM usage
                 WHERE id >= 0 AND id < 9{wanted} ORDER BY id DESC LIMIT 1"
            );
            let mut statement = connection.prepare(&sql).unwrap();
            let lines: Vec<String> = statement
                .query_map(params_from_iter(&values), |row| row.get(3))
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
    }
}
