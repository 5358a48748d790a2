//! What usage rows add up to over a stretch of time: series, totals, and
//! totals by a side of the rows.

use rusqlite::{Connection, OptionalExtension};

use super::filter::Filter;
use super::ledger::END_MS;
use super::reading::{Gathered, Grouping, Reading, asked};
use super::sums::{Side, Sums};
use super::usage::UsageQuery;

/// Most entries of one group; the rest is added up under [`OTHER`].
const MOST_ENTRIES: usize = 1000;

/// The entry for what is too much.
const OTHER: &str = "other";

/// What to add up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SummaryQuery {
    /// Which rows. Page, order, ids and durations are not looked at.
    pub rows: UsageQuery,
    /// The length of the series' buckets, counted from the epoch, in
    /// milliseconds: whole minutes.
    pub bucket_ms: i64,
    /// When today began. Its totals are of the rows since, whatever the dates.
    pub today_ms: i64,
    /// What to make groups by.
    pub groups: Vec<GroupBy>,
}

/// What totals are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupBy {
    /// The key's name.
    Key,
    /// The part of the key that the client named.
    Attribution,
    /// The provider's name.
    Provider,
    /// The alias's own name.
    Alias,
    /// The model's name at the provider.
    Model,
}

impl GroupBy {
    const fn side(self) -> Side {
        match self {
            Self::Key => Side::Key,
            Self::Attribution => Side::Attribution,
            Self::Provider => Side::Provider,
            Self::Alias => Side::Canonical,
            Self::Model => Side::Model,
        }
    }
}

/// The totals of one name, most requests first; none is what has no name.
pub type Group = (Option<String>, Sums);

/// What rows add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Buckets by the millisecond of their beginning, oldest first; without
    /// those that nothing is in.
    pub series: Vec<(i64, Sums)>,
    /// All of them together.
    pub total: Sums,
    /// Since today began.
    pub today: Sums,
    /// In the order in which they were asked for.
    pub groups: Vec<Vec<Group>>,
}

/// Requests that began in each bucket, by name: the bucket's first millisecond,
/// the name, how many; oldest first.
pub type Timeline = Vec<(i64, String, u64)>;

/// What `query` asks for.
pub(super) fn summary(connection: &Connection, query: &SummaryQuery) -> rusqlite::Result<Summary> {
    let filter = Filter::of(connection, &query.rows)?;
    let range = asked(query.rows.start_ms, query.rows.end_ms);
    let bucket_ms = query.bucket_ms.max(1);
    let mut by = vec![Grouping {
        slot_ms: Some(bucket_ms),
        side: None,
    }];
    by.extend(query.groups.iter().map(|by| Grouping {
        slot_ms: None,
        side: Some(by.side()),
    }));
    let earliest = range.0.min(query.today_ms);
    let mut reading = Reading::of(connection, &filter, (earliest, END_MS))?;
    let mut gathered = reading.gather(range, &by)?;
    let groups = gathered.split_off(1);
    let mut series: Vec<(i64, Sums)> = gathered
        .into_iter()
        .flatten()
        .map(|((slot, _), sums)| (slot.saturating_mul(bucket_ms), sums))
        .collect();
    series.sort_by_key(|(from, _)| *from);
    let groups = groups.into_iter().map(|group| named(connection, group));
    let today = reading.gather((query.today_ms, END_MS), &[Grouping::default()])?;
    Ok(Summary {
        total: all(series.iter().map(|(_, sums)| sums)),
        today: all(today.iter().flat_map(|of_day| of_day.values())),
        series,
        groups: groups.collect::<Result<_, _>>()?,
    })
}

/// Requests by bucket and name of that group.
pub(super) fn timeline(
    connection: &Connection,
    (start_ms, end_ms): (i64, i64),
    bucket_ms: i64,
    by: GroupBy,
) -> rusqlite::Result<Timeline> {
    let filter = Filter::default();
    let range = asked(Some(start_ms), Some(end_ms));
    let mut reading = Reading::of(connection, &filter, range)?;
    let bucket_ms = bucket_ms.max(1);
    let by = Grouping {
        slot_ms: Some(bucket_ms),
        side: Some(by.side()),
    };
    let mut names = Names::of(connection)?;
    let mut timeline = Timeline::new();
    for ((slot, name), sums) in reading.gather(range, &[by])?.into_iter().flatten() {
        if let Some(name) = names.text(name)? {
            let rows = u64::try_from(sums.requests).unwrap_or(0);
            timeline.push((slot.saturating_mul(bucket_ms), name, rows));
        }
    }
    timeline.sort();
    Ok(timeline)
}

fn named(connection: &Connection, gathered: Gathered) -> rusqlite::Result<Vec<Group>> {
    let mut entries: Vec<(i64, Sums)> = gathered
        .into_iter()
        .map(|((_, name), sums)| (name, sums))
        .collect();
    entries.sort_by(|(a, x), (b, y)| y.requests.cmp(&x.requests).then_with(|| a.cmp(b)));
    let rest = entries.split_off(entries.len().min(MOST_ENTRIES));
    let mut names = Names::of(connection)?;
    let mut groups = Vec::with_capacity(entries.len() + 1);
    for (name, sums) in entries {
        groups.push((names.text(name)?, sums));
    }
    if !rest.is_empty() {
        let rest = all(rest.iter().map(|(_, sums)| sums));
        groups.push((Some(OTHER.to_owned()), rest));
    }
    Ok(groups)
}

fn all<'a>(parts: impl Iterator<Item = &'a Sums>) -> Sums {
    let mut sums = Sums::default();
    parts.for_each(|part| sums.add(part));
    sums
}

/// Reads names by their numbers.
struct Names<'a>(rusqlite::CachedStatement<'a>);

impl<'a> Names<'a> {
    fn of(connection: &'a Connection) -> rusqlite::Result<Self> {
        let statement = connection.prepare_cached("SELECT text FROM names WHERE id = ?1")?;
        Ok(Self(statement))
    }

    fn text(&mut self, name: i64) -> rusqlite::Result<Option<String>> {
        self.0.query_row([name], |row| row.get(0)).optional()
    }
}
