//! The `sums` table: what the rows that are in blocks add up to, kept by whoever
//! puts rows into blocks or takes them out, in the same transaction.
//!
//! A row counts in the bucket of an hour and of a day. Each bucket has an entry
//! for everything, one for each name of each side, and for each key one for each
//! attribution, provider, model and alias that it was seen with. Other
//! combinations are read from blocks.

use std::collections::HashMap;

use rusqlite::{Connection, Row};

use super::column::{Entry, NUMBERS, Number};
use super::ledger::{HOUR_MS, millisecond};

/// Most that one row adds to any sum: 17,592 dollars, or 17 million million
/// tokens. Providers' nonsense must not make the sums overflow.
const LARGEST: u64 = 1 << 44;

/// The length of a bucket. Buckets are numbered from the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Span {
    Hour,
    Day,
}

impl Span {
    pub(super) const ALL: [Self; 2] = [Self::Hour, Self::Day];

    pub(super) const fn ms(self) -> i64 {
        match self {
            Self::Hour => HOUR_MS,
            Self::Day => 24 * HOUR_MS,
        }
    }

    /// As the table has it.
    pub(super) const fn number(self) -> i64 {
        self as i64
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

/// How many there are.
pub(super) const SIDES: usize = 9;

impl Side {
    pub(super) const ALL: [Self; SIDES] = [
        Self::Key,
        Self::Provider,
        Self::Model,
        Self::Canonical,
        Self::Alias,
        Self::Incoming,
        Self::Outgoing,
        Self::Status,
        Self::Attribution,
    ];

    /// Those with entries for each key.
    const OF_KEYS: [Self; 4] = [
        Self::Provider,
        Self::Model,
        Self::Canonical,
        Self::Attribution,
    ];

    /// The column in `usage`.
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
}

/// Which entries of `sums`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// For everything.
    Whole,
    /// By the names of a side.
    By(Side),
    /// For each key, by the names of another side.
    OfKeys(Side),
}

impl Kept {
    /// Those that know all of these sides, and no more than they need.
    pub(super) fn of(sides: impl Iterator<Item = Side>) -> Option<Self> {
        let mut kept = Self::Whole;
        for side in sides {
            kept = match (kept, side) {
                (Self::Whole, side) => Self::By(side),
                (Self::By(known) | Self::OfKeys(known), side) if known == side => kept,
                (Self::OfKeys(_), Side::Key) => kept,
                (Self::By(Side::Key), other) | (Self::By(other), Side::Key)
                    if Side::OF_KEYS.contains(&other) =>
                {
                    Self::OfKeys(other)
                }
                _ => return None,
            };
        }
        Some(kept)
    }

    /// As the table has it.
    pub(super) const fn number(self) -> i64 {
        match self {
            Self::Whole => 0,
            Self::By(side) => 1 + side as i64,
            Self::OfKeys(side) => 17 + side as i64,
        }
    }

    /// The column of `sums` that has the names of that side.
    pub(super) fn column(self, side: Side) -> &'static str {
        if matches!(self, Self::OfKeys(_)) && side == Side::Key {
            "owner_id"
        } else {
            "name_id"
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

/// The columns that hold [`Sums`], in the order of its fields.
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

    /// What a row of a block adds.
    pub(super) fn of(numbers: &[u64; NUMBERS]) -> Self {
        let bounded = |value: u64| i64::try_from(value.min(LARGEST)).unwrap_or(i64::MAX);
        let plain = |number: Number| bounded(numbers[number as usize]);
        let known = |number: Number| bounded(numbers[number as usize].saturating_sub(1));
        Self {
            requests: 1,
            errors: plain(Number::Error),
            input: plain(Number::Input),
            output: plain(Number::Output),
            reasoning: plain(Number::Reasoning),
            cached: plain(Number::Cached),
            cache_write: plain(Number::CacheWrite),
            cost: known(Number::Cost),
            duration_us: plain(Number::Duration),
            ttft_us: known(Number::Ttft),
            ttft_count: i64::from(numbers[Number::Ttft as usize] > 0),
        }
    }
}

/// Entries of `sums` by span, number, bucket, owner and name.
type Entries = HashMap<[i64; 5], Sums, foldhash::fast::FixedState>;

/// Rows on their way into the table, or out of it.
#[derive(Debug, Default)]
pub(super) struct Tally(Entries);

impl Tally {
    /// Adds a row.
    pub(super) fn add(&mut self, row: &Entry) {
        let hour = millisecond(row.id).div_euclid(HOUR_MS);
        let sums = Sums::of(&row.numbers);
        let mut add = |kept: Kept, owner: i64, name: i64| {
            let place = [Span::Hour.number(), kept.number(), hour, owner, name];
            self.0.entry(place).or_default().add(&sums);
        };
        add(Kept::Whole, 0, 0);
        for side in Side::ALL {
            add(Kept::By(side), 0, row.names[side as usize]);
        }
        let key = row.names[Side::Key as usize];
        for side in Side::OF_KEYS {
            add(Kept::OfKeys(side), key, row.names[side as usize]);
        }
    }

    /// Writes what was added.
    pub(super) fn count(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(ADD)?;
        for (place, sums) in self.with_days() {
            bind(&mut statement, &place, &sums)?;
            statement.raw_execute()?;
        }
        Ok(())
    }

    /// Takes what was added away again. Entries that nothing is left of go.
    pub(super) fn uncount(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(TAKE)?;
        let mut empty = connection.prepare_cached(
            "DELETE FROM sums WHERE span = ?1 AND side = ?2 AND bucket = ?3 AND owner_id = ?4
             AND name_id = ?5 AND rows <= 0",
        )?;
        for (place, sums) in self.with_days() {
            bind(&mut statement, &place, &sums)?;
            statement.raw_execute()?;
            empty.execute(place)?;
        }
        Ok(())
    }

    /// Its entries, and those of the days that its hours make, in the table's
    /// order.
    fn with_days(self) -> Vec<([i64; 5], Sums)> {
        let mut days = Entries::default();
        for (place, sums) in &self.0 {
            let [_, side, hour, owner, name] = *place;
            let place = [Span::Day.number(), side, hour.div_euclid(24), owner, name];
            days.entry(place).or_default().add(sums);
        }
        let mut all: Vec<([i64; 5], Sums)> = self.0.into_iter().chain(days).collect();
        all.sort_unstable_by_key(|([span, side, bucket, owner, name], _)| {
            [*span, *side, *owner, *bucket, *name]
        });
        all
    }
}

fn bind(
    statement: &mut rusqlite::Statement<'_>,
    place: &[i64],
    sums: &Sums,
) -> Result<(), rusqlite::Error> {
    for (index, value) in place.iter().chain(&sums.values()).enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    Ok(())
}

const ADD: &str = "INSERT INTO sums
    (span, side, bucket, owner_id, name_id, rows, errors, input, output, reasoning, cached,
     cache_write, cost, duration_us, ttft_us, ttft_rows)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows,
    errors = errors + excluded.errors, input = input + excluded.input,
    output = output + excluded.output, reasoning = reasoning + excluded.reasoning,
    cached = cached + excluded.cached, cache_write = cache_write + excluded.cache_write,
    cost = cost + excluded.cost, duration_us = duration_us + excluded.duration_us,
    ttft_us = ttft_us + excluded.ttft_us, ttft_rows = ttft_rows + excluded.ttft_rows";

const TAKE: &str = "UPDATE sums SET rows = rows - ?6, errors = errors - ?7,
    input = input - ?8, output = output - ?9, reasoning = reasoning - ?10,
    cached = cached - ?11, cache_write = cache_write - ?12, cost = cost - ?13,
    duration_us = duration_us - ?14, ttft_us = ttft_us - ?15, ttft_rows = ttft_rows - ?16
    WHERE span = ?1 AND side = ?2 AND bucket = ?3 AND owner_id = ?4 AND name_id = ?5";
