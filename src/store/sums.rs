//! The `sums` and `facets` tables: what usage rows add up to, kept by whoever
//! writes or deletes rows, in the same transaction. They are what the rows say,
//! always.
//!
//! A row counts in the bucket of a minute, of an hour and of a day. `sums` has
//! an entry for each bucket, one for each of its keys, providers, models and
//! aliases; `facets` one for each combination that occurred. Minutes are kept
//! for two days, hours and days as long as the rows.
//!
//! In a file that is older than these tables the rows are added slice by slice,
//! newest first; [`State`] says how far that has come.

use std::collections::HashMap;

use rusqlite::{Connection, Row, params};

use super::ledger::{HOUR_MS, millisecond};
use super::row::Status;

/// Most that one row adds to any sum: 17,592 dollars, or 17 million million
/// tokens. Providers' nonsense must not make the sums overflow.
const LARGEST: i64 = 1 << 44;

/// How long minutes are kept.
const MINUTES_KEPT_MS: i64 = 48 * HOUR_MS;

/// The length of a bucket. Buckets are numbered from the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Span {
    Minute,
    Hour,
    Day,
}

impl Span {
    pub(super) const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    pub(super) const fn ms(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => HOUR_MS,
            Self::Day => 24 * HOUR_MS,
        }
    }

    /// As the tables have it.
    pub(super) const fn number(self) -> i64 {
        self as i64
    }

    const fn bucket(self, ms: i64) -> i64 {
        ms.div_euclid(self.ms())
    }
}

/// What rows are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Key,
    Provider,
    Model,
    Canonical,
    Alias,
    Incoming,
    Outgoing,
    Status,
    Attribution,
}

impl Side {
    /// Those with entries of their own in `sums`.
    pub(super) const NARROW: [Self; 4] = [Self::Key, Self::Provider, Self::Model, Self::Canonical];

    /// The column in `usage` and in `facets`.
    pub(super) const fn column(self) -> &'static str {
        match self {
            Self::Key => "key_id",
            Self::Provider => "provider_id",
            Self::Model => "model_id",
            Self::Canonical => "canonical_id",
            Self::Alias => "alias_id",
            Self::Incoming => "incoming_id",
            Self::Outgoing => "outgoing_id",
            Self::Status => "status_id",
            Self::Attribution => "attribution",
        }
    }

    /// Its number in `sums`, if it has entries there.
    pub(super) const fn number(self) -> Option<i64> {
        match self {
            Self::Key => Some(1),
            Self::Provider => Some(2),
            Self::Model => Some(3),
            Self::Canonical => Some(4),
            _ => None,
        }
    }
}

/// The number in `sums` of the entries for everything.
pub(super) const WHOLE: i64 = 0;

/// All that rows are told apart by. Numbers are of `names`, 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Facet {
    pub(super) key: i64,
    pub(super) provider: i64,
    pub(super) model: i64,
    pub(super) canonical: i64,
    pub(super) alias: i64,
    pub(super) incoming: i64,
    pub(super) outgoing: i64,
    pub(super) status: i64,
    pub(super) attribution: Box<str>,
}

impl Facet {
    const fn narrow(&self, side: Side) -> i64 {
        match side {
            Side::Key => self.key,
            Side::Provider => self.provider,
            Side::Model => self.model,
            _ => self.canonical,
        }
    }
}

/// What rows add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Requests, however they ended.
    pub requests: i64,
    /// Those that failed.
    pub errors: i64,
    /// Input tokens that touched no cache.
    pub input: i64,
    /// Output tokens without reasoning.
    pub output: i64,
    /// Reasoning tokens.
    pub reasoning: i64,
    /// Input tokens read from a cache.
    pub cached: i64,
    /// Input tokens written to a cache.
    pub cache_write: i64,
    /// Nano-dollars.
    pub cost: i64,
    /// Durations, microseconds.
    pub duration_us: i64,
    /// Times to the first token, microseconds.
    pub ttft_us: i64,
    /// Requests whose time to the first token is known.
    pub ttft_count: i64,
}

/// The columns of both tables that hold [`Sums`], in the order of its fields.
pub(super) const COLUMNS: [&str; 11] = [
    "rows",
    "errors",
    "input",
    "output",
    "reasoning",
    "cached",
    "cache_write",
    "cost",
    "duration_us",
    "ttft_us",
    "ttft_rows",
];

impl Sums {
    const fn values(&self) -> [i64; 11] {
        [
            self.requests,
            self.errors,
            self.input,
            self.output,
            self.reasoning,
            self.cached,
            self.cache_write,
            self.cost,
            self.duration_us,
            self.ttft_us,
            self.ttft_count,
        ]
    }

    /// Reads [`COLUMNS`] that begin at `first`.
    pub(super) fn read(row: &Row<'_>, first: usize) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            requests: row.get(first)?,
            errors: row.get(first + 1)?,
            input: row.get(first + 2)?,
            output: row.get(first + 3)?,
            reasoning: row.get(first + 4)?,
            cached: row.get(first + 5)?,
            cache_write: row.get(first + 6)?,
            cost: row.get(first + 7)?,
            duration_us: row.get(first + 8)?,
            ttft_us: row.get(first + 9)?,
            ttft_count: row.get(first + 10)?,
        })
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.input += other.input;
        self.output += other.output;
        self.reasoning += other.reasoning;
        self.cached += other.cached;
        self.cache_write += other.cache_write;
        self.cost += other.cost;
        self.duration_us += other.duration_us;
        self.ttft_us += other.ttft_us;
        self.ttft_count += other.ttft_count;
    }

    /// One row's part, each number within bounds.
    pub(super) fn within_bounds(mut self) -> Self {
        for value in [
            &mut self.input,
            &mut self.output,
            &mut self.reasoning,
            &mut self.cached,
            &mut self.cache_write,
            &mut self.cost,
            &mut self.duration_us,
            &mut self.ttft_us,
        ] {
            *value = (*value).clamp(0, LARGEST);
        }
        self
    }
}

/// The same of a stored row, as SQL on `usage`; each of [`COLUMNS`].
pub(super) fn of_rows() -> [String; 11] {
    let failures: Vec<String> = Status::ALL
        .iter()
        .filter(|status| status.is_failure())
        .map(|status| format!("'{}'", status.name()))
        .collect();
    let failed = format!(
        "status_id IN (SELECT names.id FROM names WHERE text IN ({}))",
        failures.join(",")
    );
    let bounded = |sum: &str| format!("max(0, min({sum}, {LARGEST}))");
    [
        "1".to_owned(),
        failed,
        bounded("coalesce(input, 0) + coalesce(tool_prompt, 0)"),
        bounded("coalesce(output, 0)"),
        bounded("coalesce(reasoning, 0)"),
        bounded("coalesce(cache_read, 0)"),
        bounded(
            "coalesce(cache_write_short, 0) + coalesce(cache_write_long, 0)
             + coalesce(cache_write_other, 0)",
        ),
        bounded("coalesce(cost_total, 0)"),
        bounded("duration_us"),
        bounded("coalesce(ttft_us, 0)"),
        "ttft_us IS NOT NULL".to_owned(),
    ]
}

/// How far the tables go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Rows from this `usage.id` on are counted. 0 when all are.
    pub(super) counted_from: i64,
    /// Minutes from this millisecond on are kept: the beginning of an hour.
    pub(super) minutes_from: i64,
}

impl State {
    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        connection
            .prepare_cached("SELECT counted_from, minutes_from FROM sums_state")?
            .query_row([], |row| {
                Ok(Self {
                    counted_from: row.get(0)?,
                    minutes_from: row.get(1)?,
                })
            })
    }

    /// The first millisecond from which on all rows are counted.
    pub(super) const fn counted_from_ms(&self) -> i64 {
        if self.counted_from == 0 {
            i64::MIN
        } else {
            millisecond(self.counted_from) + 1
        }
    }
}

/// Rows on their way into the tables, or out of them.
#[derive(Debug, Default)]
pub(super) struct Tally(HashMap<(i64, Facet), Sums>);

impl Tally {
    /// Adds a row that began in that millisecond.
    pub(super) fn add(&mut self, ms: i64, facet: Facet, sums: &Sums) {
        let minute = Span::Minute.bucket(ms);
        self.0.entry((minute, facet)).or_default().add(sums);
    }

    /// Writes what was added.
    pub(super) fn count(&self, connection: &Connection, state: State) -> rusqlite::Result<()> {
        let entries = Entries::of(self, state);
        let mut narrow = connection.prepare_cached(ADD_SUMS)?;
        for ((span, side, bucket, name), sums) in &entries.narrow {
            bind(&mut narrow, &[*span, *side, *bucket, *name], None, sums)?;
            narrow.raw_execute()?;
        }
        let mut facets = connection.prepare_cached(ADD_FACETS)?;
        for ((span, bucket, facet), sums) in &entries.facets {
            bind(
                &mut facets,
                &place(*span, *bucket, facet),
                Some(&facet.attribution),
                sums,
            )?;
            facets.raw_execute()?;
        }
        Ok(())
    }

    /// Takes what was added away again. Entries that nothing is left of go.
    pub(super) fn uncount(&self, connection: &Connection, state: State) -> rusqlite::Result<()> {
        let entries = Entries::of(self, state);
        let mut narrow = connection.prepare_cached(TAKE_SUMS)?;
        let mut empty = connection.prepare_cached(
            "DELETE FROM sums WHERE span = ?1 AND side = ?2 AND bucket = ?3 AND name_id = ?4
             AND rows <= 0",
        )?;
        for ((span, side, bucket, name), sums) in &entries.narrow {
            bind(&mut narrow, &[*span, *side, *bucket, *name], None, sums)?;
            narrow.raw_execute()?;
            empty.execute([span, side, bucket, name])?;
        }
        let mut facets = connection.prepare_cached(TAKE_FACETS)?;
        let mut empty = connection.prepare_cached(DELETE_FACET)?;
        for ((span, bucket, facet), sums) in &entries.facets {
            let place = place(*span, *bucket, facet);
            bind(&mut facets, &place, Some(&facet.attribution), sums)?;
            facets.raw_execute()?;
            for (index, value) in place.iter().enumerate() {
                empty.raw_bind_parameter(index + 1, value)?;
            }
            empty.raw_bind_parameter(place.len() + 1, &*facet.attribution)?;
            empty.raw_execute()?;
        }
        Ok(())
    }
}

/// A tally by entries of the tables.
struct Entries<'a> {
    narrow: HashMap<(i64, i64, i64, i64), Sums>,
    facets: HashMap<(i64, i64, &'a Facet), Sums>,
}

impl<'a> Entries<'a> {
    fn of(tally: &'a Tally, state: State) -> Self {
        let mut entries = Self {
            narrow: HashMap::new(),
            facets: HashMap::with_capacity(tally.0.len() * Span::ALL.len()),
        };
        for ((minute, facet), sums) in &tally.0 {
            let ms = minute.saturating_mul(Span::Minute.ms());
            for span in Span::ALL {
                if span != Span::Minute || ms >= state.minutes_from {
                    entries.add(span, span.bucket(ms), facet, sums);
                }
            }
        }
        entries
    }

    fn add(&mut self, span: Span, bucket: i64, facet: &'a Facet, sums: &Sums) {
        let span = span.number();
        let mut narrow = |side: i64, name: i64| {
            let place = (span, side, bucket, name);
            self.narrow.entry(place).or_default().add(sums);
        };
        narrow(WHOLE, 0);
        for side in Side::NARROW {
            if let Some(number) = side.number() {
                narrow(number, facet.narrow(side));
            }
        }
        let place = (span, bucket, facet);
        self.facets.entry(place).or_default().add(sums);
    }
}

const fn place(span: i64, bucket: i64, facet: &Facet) -> [i64; 10] {
    [
        span,
        bucket,
        facet.key,
        facet.provider,
        facet.model,
        facet.canonical,
        facet.alias,
        facet.incoming,
        facet.outgoing,
        facet.status,
    ]
}

fn bind(
    statement: &mut rusqlite::Statement<'_>,
    place: &[i64],
    attribution: Option<&str>,
    sums: &Sums,
) -> Result<(), rusqlite::Error> {
    let mut index = 0;
    for value in place {
        index += 1;
        statement.raw_bind_parameter(index, value)?;
    }
    if let Some(attribution) = attribution {
        index += 1;
        statement.raw_bind_parameter(index, attribution)?;
    }
    for value in sums.values() {
        index += 1;
        statement.raw_bind_parameter(index, value)?;
    }
    Ok(())
}

const ADD_SUMS: &str = "INSERT INTO sums
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows,
    errors = errors + excluded.errors, input = input + excluded.input,
    output = output + excluded.output, reasoning = reasoning + excluded.reasoning,
    cached = cached + excluded.cached, cache_write = cache_write + excluded.cache_write,
    cost = cost + excluded.cost, duration_us = duration_us + excluded.duration_us,
    ttft_us = ttft_us + excluded.ttft_us, ttft_rows = ttft_rows + excluded.ttft_rows";

const ADD_FACETS: &str = "INSERT INTO facets
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
    ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows,
    errors = errors + excluded.errors, input = input + excluded.input,
    output = output + excluded.output, reasoning = reasoning + excluded.reasoning,
    cached = cached + excluded.cached, cache_write = cache_write + excluded.cache_write,
    cost = cost + excluded.cost, duration_us = duration_us + excluded.duration_us,
    ttft_us = ttft_us + excluded.ttft_us, ttft_rows = ttft_rows + excluded.ttft_rows";

const TAKE_SUMS: &str = "UPDATE sums SET rows = rows - ?5, errors = errors - ?6,
    input = input - ?7, output = output - ?8, reasoning = reasoning - ?9,
    cached = cached - ?10, cache_write = cache_write - ?11, cost = cost - ?12,
    duration_us = duration_us - ?13, ttft_us = ttft_us - ?14, ttft_rows = ttft_rows - ?15
    WHERE span = ?1 AND side = ?2 AND bucket = ?3 AND name_id = ?4";

const TAKE_FACETS: &str = "UPDATE facets SET rows = rows - ?12, errors = errors - ?13,
    input = input - ?14, output = output - ?15, reasoning = reasoning - ?16,
    cached = cached - ?17, cache_write = cache_write - ?18, cost = cost - ?19,
    duration_us = duration_us - ?20, ttft_us = ttft_us - ?21, ttft_rows = ttft_rows - ?22
    WHERE span = ?1 AND bucket = ?2 AND key_id = ?3 AND provider_id = ?4 AND model_id = ?5
    AND canonical_id = ?6 AND alias_id = ?7 AND incoming_id = ?8 AND outgoing_id = ?9
    AND status_id = ?10 AND attribution = ?11";

const DELETE_FACET: &str = "DELETE FROM facets
    WHERE span = ?1 AND bucket = ?2 AND key_id = ?3 AND provider_id = ?4 AND model_id = ?5
    AND canonical_id = ?6 AND alias_id = ?7 AND incoming_id = ?8 AND outgoing_id = ?9
    AND status_id = ?10 AND attribution = ?11 AND rows <= 0";

/// Reads stored rows into tallies.
pub(super) struct Stored;

impl Stored {
    /// What a statement has to select of `usage`, the id first.
    pub(super) fn columns() -> String {
        let sides = "id, coalesce(key_id, 0), coalesce(provider_id, 0), coalesce(model_id, 0),
            coalesce(canonical_id, 0), coalesce(alias_id, 0), incoming_id,
            coalesce(outgoing_id, 0), status_id, coalesce(attribution, '')";
        format!("{sides}, {}", of_rows().join(", "))
    }

    /// The row's id, and what it counts for.
    pub(super) fn read(row: &Row<'_>) -> Result<(i64, Facet, Sums), rusqlite::Error> {
        let facet = Facet {
            key: row.get(1)?,
            provider: row.get(2)?,
            model: row.get(3)?,
            canonical: row.get(4)?,
            alias: row.get(5)?,
            incoming: row.get(6)?,
            outgoing: row.get(7)?,
            status: row.get(8)?,
            attribution: row.get::<_, String>(9)?.into_boxed_str(),
        };
        Ok((row.get(0)?, facet, Sums::read(row, 10)?))
    }
}

/// Counts up to `slice` of the rows that were there before the tables, newest
/// first; returns how many.
pub(super) fn fill_slice(connection: &Connection, slice: u32) -> Result<u64, rusqlite::Error> {
    let state = State::read(connection)?;
    if state.counted_from == 0 {
        return Ok(0);
    }
    let mut tally = Tally::default();
    let (mut found, mut last) = (0, state.counted_from);
    let sql = format!(
        "SELECT {} FROM usage WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
        Stored::columns()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![last, slice])?;
    while let Some(row) = rows.next()? {
        let (id, facet, sums) = Stored::read(row)?;
        tally.add(millisecond(id), facet, &sums);
        found += 1;
        last = id;
    }
    drop(rows);
    tally.count(connection, state)?;
    let counted_from = if found < u64::from(slice) { 0 } else { last };
    connection
        .prepare_cached("UPDATE sums_state SET counted_from = ?1")?
        .execute([counted_from])?;
    Ok(found)
}

/// Tables that are counted from usage rows.
pub(super) const COUNTED: [&str; 2] = ["sums", "facets"];

/// Lets all rows be counted anew into those tables, which are empty: slice by
/// slice, as after an update.
pub(super) fn recount(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(
        "UPDATE sums_state SET counted_from = coalesce((SELECT max(id) + 1 FROM usage), 0)",
    )
}

/// Deletes some of the minutes that are too old; returns how many entries went.
pub(super) fn forget_minutes(connection: &Connection, now_ms: i64) -> Result<u64, rusqlite::Error> {
    const AT_ONCE: i64 = 5;
    let kept_from = Span::Hour.bucket(now_ms - MINUTES_KEPT_MS) * Span::Hour.ms();
    connection
        .prepare_cached("UPDATE sums_state SET minutes_from = max(minutes_from, ?1)")?
        .execute([kept_from])?;
    let kept_from = Span::Minute.bucket(State::read(connection)?.minutes_from);
    let mut gone = 0;
    let mut sides = vec![
        ("sums", format!(" AND side = {WHOLE}")),
        ("facets", String::new()),
    ];
    let narrow = Side::NARROW.iter().filter_map(|side| side.number());
    sides.extend(narrow.map(|number| ("sums", format!(" AND side = {number}"))));
    for (table, side) in sides {
        let oldest: Option<i64> = connection
            .prepare_cached(&format!(
                "SELECT min(bucket) FROM {table} WHERE span = 0{side}"
            ))?
            .query_row([], |row| row.get(0))?;
        let Some(oldest) = oldest else { continue };
        let to = kept_from.min(oldest.saturating_add(AT_ONCE));
        gone += connection
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE span = 0{side} AND bucket < ?1"
            ))?
            .execute([to])?;
    }
    Ok(gone as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use rusqlite::params_from_iter;
    use uuid::Uuid;

    use super::super::ledger::{Ledger, Row as Written};
    use super::super::row::{Bill, Grounds, Tokens, UsageRow};
    use super::super::usage;
    use super::*;
    use crate::money::{Cost, Nanos};
    use crate::protocol::Protocol;

    const NOON: i64 = 1_769_860_800_000;

    fn ledger() -> Ledger {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        Ledger::new(connection, 0)
    }

    fn blank() -> UsageRow {
        UsageRow {
            request_id: Uuid::new_v4(),
            client_request_id: None,
            start_ms: NOON,
            source_ip: None,
            key: None,
            attribution: None,
            incoming: Protocol::Chat,
            lite: false,
            outgoing: None,
            provider: None,
            selected_model: None,
            incoming_alias: None,
            canonical: None,
            attempts: 1,
            retry_history: None,
            all_attempted: None,
            tokens: Tokens::default(),
            tokens_estimated: false,
            bill: None,
            duration_ms: 12.5,
            ttft_ms: None,
            streamed: false,
            passthrough: false,
            status: Status::Success,
            has_error: false,
            tool_calls: None,
            finish_reason: None,
            notes: None,
            http_status: 200,
        }
    }

    /// The same number everywhere, as a provider might say it.
    fn counted(row: &mut UsageRow, number: u64) {
        let number = Some(number);
        row.tokens = Tokens {
            input: number,
            tool_prompt: number,
            output: number,
            cache_write_long: number,
            ..Tokens::default()
        };
        row.bill = number.map(|nanos| Bill {
            source: "simple",
            cost: Some(Cost {
                output: Nanos(nanos),
                ..Cost::default()
            }),
            grounds: Grounds::None,
        });
    }

    fn row() -> impl Strategy<Value = UsageRow> {
        let text =
            |names: &'static [&'static str]| proptest::option::of(proptest::sample::select(names));
        let number = prop_oneof![
            Just(None),
            (0..1000_u64).prop_map(Some),
            Just(Some(u64::MAX))
        ];
        let names = (
            text(&["k", "l"]),
            text(&["p", "q"]),
            text(&["m", "n"]),
            text(&["ci"]),
        );
        let rest = (number, 0..4000_i64, 0..Status::ALL.len(), any::<bool>());
        (names, rest).prop_map(
            |((key, provider, model, attribution), (number, minutes, status, streamed))| {
                let mut row = UsageRow {
                    start_ms: NOON + minutes * 61_000,
                    key: key.map(Into::into),
                    attribution: attribution.map(Into::into),
                    outgoing: streamed.then_some(Protocol::Messages),
                    provider: provider.map(Into::into),
                    selected_model: model.map(Into::into),
                    incoming_alias: model.map(Into::into),
                    canonical: provider.map(Into::into),
                    ttft_ms: streamed.then_some(3.25),
                    status: Status::ALL[status],
                    ..blank()
                };
                if let Some(number) = number {
                    counted(&mut row, number);
                }
                row
            },
        )
    }

    /// Every entry of both tables, as text.
    fn entries(connection: &Connection) -> Vec<String> {
        let sums = format!("span, side, bucket, name_id, {}", COLUMNS.join(", "));
        let facets = format!(
            "span, bucket, key_id, provider_id, model_id, canonical_id, alias_id, incoming_id,
             outgoing_id, status_id, attribution, {}",
            COLUMNS.join(", ")
        );
        let mut statement = connection
            .prepare(&format!(
                "SELECT json_array({sums}) FROM sums UNION ALL
                 SELECT json_array({facets}) FROM facets ORDER BY 1"
            ))
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    /// The entries as they come about when all rows are counted anew, `slice` at
    /// a time.
    fn counted_anew(connection: &Connection, slice: u32) -> Vec<String> {
        let anew = "DELETE FROM sums; DELETE FROM facets;
            UPDATE sums_state SET counted_from = coalesce((SELECT max(id) + 1 FROM usage), 0);";
        connection.execute_batch(anew).unwrap();
        while fill_slice(connection, slice).unwrap() > 0 {}
        assert_eq!(State::read(connection).unwrap().counted_from, 0);
        entries(connection)
    }

    fn write(ledger: &mut Ledger, rows: Vec<UsageRow>) {
        let batch: Vec<Written> = rows
            .into_iter()
            .map(|row| Written::Usage(Box::new(row)))
            .collect();
        assert_eq!(ledger.commit(&batch).unwrap().refused, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn sums_are_what_the_rows_say_after_any_writing_and_deleting(
            batches in proptest::collection::vec(
                (proptest::collection::vec(row(), 0..20), any::<bool>(), 0..4000_i64), 1..6),
            slice in 1..30_u32,
        ) {
            let mut ledger = ledger();
            for (rows, one, minutes) in batches {
                let id = rows.first().map(|row| row.request_id);
                write(&mut ledger, rows);
                let connection = &ledger.connection;
                match id.filter(|_| one) {
                    Some(id) => prop_assert_eq!(usage::delete_one(connection, id).unwrap(), 1),
                    None => {
                        usage::delete_slice(connection, NOON + minutes * 1000, 7).unwrap();
                    }
                }
            }
            let kept = entries(&ledger.connection);
            let sql = format!("SELECT {} FROM usage", of_rows().map(|c| format!("coalesce(sum({c}), 0)")).join(", "));
            let by_rows = ledger.connection.query_row(&sql, [], |row| Sums::read(row, 0)).unwrap();
            for span in Span::ALL {
                let columns = COLUMNS.map(|c| format!("coalesce(sum({c}), 0)")).join(", ");
                let sql = format!("SELECT {columns} FROM sums WHERE side = 0 AND span = ?1");
                let by_sums = ledger.connection
                    .query_row(&sql, params_from_iter([span.number()]), |row| Sums::read(row, 0));
                prop_assert_eq!(by_sums.unwrap(), by_rows);
            }
            prop_assert_eq!(counted_anew(&ledger.connection, slice), kept);
        }

        #[test]
        fn rows_written_and_deleted_while_older_ones_are_counted_count_once(
            before in proptest::collection::vec(row(), 1..30),
            meanwhile in proptest::collection::vec(row(), 1..30),
        ) {
            let mut ledger = ledger();
            let first = before[0].request_id;
            write(&mut ledger, before);
            let anew = "DELETE FROM sums; DELETE FROM facets;
                UPDATE sums_state SET counted_from = (SELECT max(id) + 1 FROM usage);";
            ledger.connection.execute_batch(anew).unwrap();
            let mut meanwhile = meanwhile.into_iter();
            loop {
                let counted = fill_slice(&ledger.connection, 3).unwrap();
                write(&mut ledger, meanwhile.by_ref().take(4).collect());
                if counted == 0 {
                    break;
                }
            }
            usage::delete_one(&ledger.connection, first).unwrap();
            let kept = entries(&ledger.connection);
            prop_assert_eq!(counted_anew(&ledger.connection, 5), kept);
        }
    }

    #[test]
    fn minutes_go_after_two_days_and_hours_and_days_stay() {
        let mut ledger = ledger();
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let row = row().new_tree(&mut runner).unwrap().current();
        let at = |start_ms| UsageRow {
            start_ms,
            request_id: Uuid::new_v4(),
            ..row.clone()
        };
        write(
            &mut ledger,
            vec![
                at(NOON),
                at(NOON - 3 * 24 * HOUR_MS),
                at(NOON - 40 * HOUR_MS),
            ],
        );
        while forget_minutes(&ledger.connection, NOON).unwrap() > 0 {}
        for table in ["sums WHERE side = 0 AND", "facets WHERE"] {
            for (span, left) in [(0, 2), (1, 3), (2, 3)] {
                let sql = format!("SELECT count(*) FROM {table} span = {span}");
                let found: i64 = ledger
                    .connection
                    .query_row(&sql, [], |row| row.get(0))
                    .unwrap();
                assert_eq!(found, left, "{table} {span}");
            }
        }
        // A late row of that time has no minute either.
        write(&mut ledger, vec![at(NOON - 3 * 24 * HOUR_MS)]);
        let sql = "SELECT count(*) FROM sums WHERE span = 0 AND side = 0";
        let minutes: i64 = ledger
            .connection
            .query_row(sql, [], |row| row.get(0))
            .unwrap();
        assert_eq!(minutes, 2);
    }
}
