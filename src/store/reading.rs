//! Sums and counts over a stretch of time, read from the fewest entries that
//! say them: `sums` where one side of the rows is asked for, else `facets`,
//! and the rows themselves at the ends.

use std::collections::HashMap;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};

use super::cover::{Piece, cover};
use super::filter::{Filter, Place};
use super::ledger::{END_MS, SEQUENCE_BITS, first_id};
use super::sums::{COLUMNS, Side, Span, State, Sums, WHOLE, of_rows};

/// What a sum belongs to: the name's number, or the attribution.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Label {
    Number(i64),
    Text(String),
}

/// How sums are told apart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grouping {
    /// By time, in buckets of that many milliseconds from the epoch.
    pub(super) slot_ms: Option<i64>,
    /// By a side of the rows.
    pub(super) side: Option<Side>,
}

/// Sums by the number of their slot and their label; both are 0 where nothing
/// tells them apart.
pub(super) type Gathered = HashMap<(i64, Label), Sums>;

/// A stretch of the time in which some rows began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) rows: u64,
    /// Its length, where it is a bucket.
    span: Option<Span>,
}

/// One state of the database, looked at through a filter.
pub(super) struct Reading<'a> {
    connection: &'a Connection,
    filter: &'a Filter,
    state: State,
}

/// Milliseconds from the first to the second, without the second, kept within
/// those that rows can have.
pub(super) fn within(from: i64, to: i64) -> (i64, i64) {
    (from.clamp(0, END_MS), to.clamp(0, END_MS))
}

impl<'a> Reading<'a> {
    pub(super) fn of(connection: &'a Connection, filter: &'a Filter) -> rusqlite::Result<Self> {
        let state = State::read(connection)?;
        Ok(Self {
            connection,
            filter,
            state,
        })
    }

    /// The sums over rows that began in these milliseconds.
    pub(super) fn gather(&self, from: i64, to: i64, by: Grouping) -> rusqlite::Result<Gathered> {
        let mut gathered = Gathered::new();
        if self.filter.is_hopeless() {
            return Ok(gathered);
        }
        let longest = by.slot_ms.map_or(Span::Day, longest_within);
        let (from, to) = within(from, to);
        for piece in cover(from, to, longest, self.state) {
            self.add(piece, by, &mut gathered)?;
        }
        Ok(gathered)
    }

    fn add(&self, piece: Piece, by: Grouping, gathered: &mut Gathered) -> rusqlite::Result<()> {
        let source = self.source(piece, by.side);
        let slot = by
            .slot_ms
            .map_or_else(|| "0".to_owned(), |ms| source.slot(ms));
        let label = by
            .side
            .map_or_else(|| "0".to_owned(), |side| source.label(side));
        let sums: Vec<String> = source
            .columns()
            .iter()
            .map(|column| format!("sum({column})"))
            .collect();
        let sql = format!(
            "SELECT {slot}, {label}, {} FROM {} GROUP BY 1, 2",
            sums.join(", "),
            source.text
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(&source.values))?;
        while let Some(row) = rows.next()? {
            let label = match row.get(1)? {
                Sql::Text(text) => Label::Text(text),
                Sql::Integer(number) => Label::Number(number),
                Sql::Null | Sql::Real(_) | Sql::Blob(_) => Label::Number(0),
            };
            let sums = Sums::read(row, 2)?;
            gathered.entry((row.get(0)?, label)).or_default().add(&sums);
        }
        Ok(())
    }

    /// Where rows that began in these milliseconds are, oldest first, by days
    /// where they are whole. Stretches without any are left out.
    pub(super) fn stretches(&self, from: i64, to: i64) -> rusqlite::Result<Vec<Stretch>> {
        let (from, to) = within(from, to);
        self.count(&cover(from, to, Span::Day, self.state))
    }

    /// The same inside of a stretch, a step finer; `None` when nothing finer is
    /// kept.
    pub(super) fn finer(&self, stretch: Stretch) -> rusqlite::Result<Option<Vec<Stretch>>> {
        let shorter = match stretch.span {
            Some(Span::Day) => Span::Hour,
            Some(Span::Hour) if stretch.from >= self.state.minutes_from => Span::Minute,
            _ => return Ok(None),
        };
        let pieces = cover(stretch.from, stretch.to, shorter, self.state);
        self.count(&pieces).map(Some)
    }

    fn count(&self, pieces: &[Piece]) -> rusqlite::Result<Vec<Stretch>> {
        let mut stretches = Vec::new();
        for piece in pieces {
            let source = self.source(*piece, None);
            let sql = match piece {
                Piece::Rows { .. } => format!("SELECT 0, count(*) FROM {}", source.text),
                Piece::Buckets { .. } => format!(
                    "SELECT bucket, sum(rows) FROM {} GROUP BY bucket ORDER BY bucket",
                    source.text
                ),
            };
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query(params_from_iter(&source.values))?;
            while let Some(row) = rows.next()? {
                let (from, to, span) = match *piece {
                    Piece::Rows { from, to } => (from, to, None),
                    Piece::Buckets { span, .. } => {
                        let from = row.get::<_, i64>(0)?.saturating_mul(span.ms());
                        (from, from.saturating_add(span.ms()), Some(span))
                    }
                };
                let rows = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
                if rows > 0 {
                    stretches.push(Stretch {
                        from,
                        to,
                        rows,
                        span,
                    });
                }
            }
        }
        Ok(stretches)
    }

    /// Ids of rows in a stretch, in the order of time: at most `limit`, after
    /// the first `skip`.
    pub(super) fn ids(
        &self,
        stretch: Stretch,
        ascending: bool,
        limit: u64,
        skip: u64,
        ids: &mut Vec<i64>,
    ) -> rusqlite::Result<()> {
        let Stretch { from, to, .. } = stretch;
        let source = self.source(Piece::Rows { from, to }, None);
        let order = if ascending { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT id FROM {} ORDER BY id {order} LIMIT {limit} OFFSET {skip}",
            source.text
        );
        let mut statement = self.connection.prepare(&sql)?;
        let found = statement.query_map(params_from_iter(&source.values), |row| row.get(0))?;
        for id in found {
            ids.push(id?);
        }
        Ok(())
    }

    fn source(&self, piece: Piece, side: Option<Side>) -> Source {
        match piece {
            Piece::Rows { from, to } => self.rows(from, to),
            Piece::Buckets { span, from, to } => self.buckets(span, from, to, side),
        }
    }

    fn rows(&self, from: i64, to: i64) -> Source {
        let (more, more_values) = self.filter.sql(Place::Rows);
        let mut values: Vec<Sql> = vec![first_id(from).into(), first_id(to).into()];
        values.extend(more_values);
        Source {
            text: format!("usage WHERE id >= ? AND id < ?{more}"),
            values,
            place: Place::Rows,
            span: Span::Minute,
        }
    }

    fn buckets(&self, span: Span, from: i64, to: i64, side: Option<Side>) -> Source {
        let mut sides = self.filter.sides().chain(side);
        let first = sides.next();
        let alike = sides.all(|other| Some(other) == first);
        let entries = match first {
            None => Some(WHOLE),
            Some(side) => side.number().filter(|_| alike),
        };
        let place = if entries.is_some() {
            Place::Sums
        } else {
            Place::Facets
        };
        let (more, more_values) = self.filter.sql(place);
        let range = format!(
            "span = {} AND bucket >= ? AND bucket < ?{more}",
            span.number()
        );
        let mut values: Vec<Sql> = vec![from.into(), to.into()];
        values.extend(more_values);
        Source {
            text: match entries {
                Some(number) => format!("sums WHERE side = {number} AND {range}"),
                None => format!("facets WHERE {range}"),
            },
            values,
            place,
            span,
        }
    }
}

/// The longest bucket that divides a slot.
fn longest_within(slot_ms: i64) -> Span {
    let mut spans = Span::ALL.into_iter().rev();
    spans
        .find(|span| slot_ms % span.ms() == 0)
        .unwrap_or(Span::Minute)
}

/// A table and conditions on it.
struct Source {
    text: String,
    values: Vec<Sql>,
    place: Place,
    span: Span,
}

impl Source {
    fn slot(&self, slot_ms: i64) -> String {
        match self.place {
            Place::Rows => format!("(id >> {SEQUENCE_BITS}) / {slot_ms}"),
            Place::Facets | Place::Sums => format!("bucket * {} / {slot_ms}", self.span.ms()),
        }
    }

    fn label(&self, side: Side) -> String {
        let column = side.column();
        match (self.place, side) {
            (Place::Sums, _) => "name_id".to_owned(),
            (Place::Facets, _) => column.to_owned(),
            (Place::Rows, Side::Attribution) => format!("coalesce({column}, '')"),
            (Place::Rows, _) => format!("coalesce({column}, 0)"),
        }
    }

    fn columns(&self) -> Vec<String> {
        match self.place {
            Place::Rows => of_rows().to_vec(),
            Place::Facets | Place::Sums => COLUMNS.map(str::to_owned).to_vec(),
        }
    }
}

/// The milliseconds that a query asks about, the second not included.
pub(super) fn asked(start_ms: Option<i64>, end_ms: Option<i64>) -> (i64, i64) {
    let to = end_ms.map_or(END_MS, |ms| ms.saturating_add(1));
    within(start_ms.unwrap_or(0), to)
}
