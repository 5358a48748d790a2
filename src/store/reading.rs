//! Sums over a stretch of time, read from the fewest entries that say them:
//! `sums` where those tell apart what is asked for, else blocks. Rows that are
//! in no block, and those at the ends of the stretch, are looked at one by one.

use std::ops::Range;

use rusqlite::Connection;

use super::blocks::Blocks;
use super::cover::{Piece, cover};
use super::filter::Filter;
use super::ledger::{END_MS, first_id};
use super::scan::Scan;
pub(super) use super::scan::{Gathered, Grouping};
use super::sums::{COLUMNS, Kept, Span, Sums};

/// One state of the database, looked at through a filter.
pub(super) struct Reading<'a> {
    connection: &'a Connection,
    filter: &'a Filter,
    blocks: Blocks<'a>,
}

/// Milliseconds from the first to the second, without the second, kept within
/// those that rows can have.
fn within(from: i64, to: i64) -> (i64, i64) {
    (from.clamp(0, END_MS), to.clamp(0, END_MS))
}

/// The milliseconds that a query asks about, the second not included.
pub(super) fn asked(start_ms: Option<i64>, end_ms: Option<i64>) -> (i64, i64) {
    let to = end_ms.map_or(END_MS, |ms| ms.saturating_add(1));
    within(start_ms.unwrap_or(0), to)
}

impl<'a> Reading<'a> {
    /// Of rows that began in these milliseconds, the second not included, and of
    /// no others.
    pub(super) fn of(
        connection: &'a Connection,
        filter: &'a Filter,
        (from, to): (i64, i64),
    ) -> rusqlite::Result<Self> {
        let (from, to) = within(from, to);
        Ok(Self {
            connection,
            filter,
            blocks: Blocks::of(connection, first_id(from), first_id(to))?,
        })
    }

    /// The rows of these milliseconds that meet the filter.
    pub(super) fn scan(&mut self, (from, to): (i64, i64)) -> rusqlite::Result<Scan<'a, '_>> {
        let all = 0..self.blocks.list().len();
        let ids = (first_id(from), first_id(to));
        Scan::of(&mut self.blocks, all, ids, self.filter)
    }

    /// What those rows add up to, once for each grouping.
    pub(super) fn gather(
        &mut self,
        (from, to): (i64, i64),
        by: &[Grouping],
    ) -> rusqlite::Result<Vec<Gathered>> {
        let (from, to) = within(from, to);
        let mut gathered = vec![Gathered::new(); by.len()];
        if self.filter.is_hopeless() {
            return Ok(gathered);
        }
        // Those with the same pieces go together: their rows are read once.
        for longest in [None, Some(Span::Hour), Some(Span::Day)] {
            let alike: Vec<usize> = (0..by.len())
                .filter(|index| self.longest(by[*index]) == longest)
                .collect();
            let groupings: Vec<Grouping> = alike.iter().map(|index| by[*index]).collect();
            let mut found = vec![Gathered::new(); alike.len()];
            if !groupings.is_empty() {
                for piece in cover(from, to, longest) {
                    self.add(piece, &groupings, &mut found)?;
                }
            }
            for (index, found) in alike.into_iter().zip(found) {
                gathered[index] = found;
            }
        }
        Ok(gathered)
    }

    /// The longest buckets of `sums` that tell the grouping apart.
    fn longest(&self, by: Grouping) -> Option<Span> {
        self.kept(by)?;
        let Some(slot_ms) = by.slot_ms else {
            return Some(Span::Day);
        };
        let mut spans = Span::ALL.into_iter().rev();
        spans.find(|span| slot_ms % span.ms() == 0)
    }

    fn kept(&self, by: Grouping) -> Option<Kept> {
        let kept = Kept::of(self.filter.sides().chain(by.side));
        kept.filter(|_| self.filter.duration.is_none())
    }

    fn add(
        &mut self,
        piece: Piece,
        by: &[Grouping],
        gathered: &mut [Gathered],
    ) -> rusqlite::Result<()> {
        let stored = self.blocks.stored();
        let all = self.blocks.list().len();
        match piece {
            Piece::Rows { from, to } => self.add_rows(0..all, (from, to), by, gathered),
            Piece::Buckets { span, from, to } => {
                for (by, gathered) in by.iter().zip(gathered.iter_mut()) {
                    self.add_sums(span, (from, to), *by, gathered)?;
                }
                let ends = (from * span.ms(), to * span.ms());
                self.add_rows(stored..all, ends, by, gathered)
            }
        }
    }

    fn add_rows(
        &mut self,
        places: Range<usize>,
        (from, to): (i64, i64),
        by: &[Grouping],
        gathered: &mut [Gathered],
    ) -> rusqlite::Result<()> {
        let ids = (first_id(from), first_id(to));
        Scan::of(&mut self.blocks, places, ids, self.filter)?.add_up(by, gathered)
    }

    fn add_sums(
        &self,
        span: Span,
        (from, to): (i64, i64),
        by: Grouping,
        gathered: &mut Gathered,
    ) -> rusqlite::Result<()> {
        let Some(kept) = self.kept(by) else {
            return Ok(());
        };
        let slot = by.slot_ms.map_or_else(
            || "0".to_owned(),
            |ms| format!("bucket * {} / {ms}", span.ms()),
        );
        let name = by.side.map_or("0", |side| kept.column(side));
        let sums = COLUMNS.map(|column| format!("sum({column})")).join(", ");
        let owner = match kept {
            Kept::OfKeys(_) => "",
            Kept::Whole | Kept::By(_) => " AND owner_id = 0",
        };
        let wanted = self.filter.on_sums(kept);
        let sql = format!(
            "SELECT {slot}, {name}, {sums} FROM sums
             WHERE span = {} AND side = {}{owner} AND bucket >= ?1 AND bucket < ?2{wanted}
             GROUP BY 1, 2",
            span.number(),
            kept.number(),
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([from, to])?;
        while let Some(row) = rows.next()? {
            let sums = Sums::read(row, 2)?;
            let place = (row.get(0)?, row.get(1)?);
            gathered.entry(place).or_default().add(&sums);
        }
        Ok(())
    }
}
