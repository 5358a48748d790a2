//! The `blocks`, `block_columns` and `late` tables: usage rows once more, column
//! by column, so that questions about millions of them read little.
//!
//! New rows are put into blocks some thousands at a time, in the order in which
//! they were written; what rows in blocks add up to is in `sums`. A row that
//! is in no block yet either has an id from `folded.until` on, or stands in
//! `late`: it began before others that are in blocks already. There are never
//! more of them than [`Fold`] and one batch say.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;

use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use super::column::{COLUMNS, Column, Entry, MOST_ROWS, NUMBERS, Number, Numbers, pack, unpack};
use super::names::{Interner, Names};
use super::row::Status;
use super::sums::{SIDES, Side, Tally};

/// Bits of a column's id that say of which block it is.
const NUMBER_BITS: u32 = 40;

/// When rows are put into blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fold {
    /// Rows in no block that a block is made of some of them at.
    pub(super) at: usize,
    /// How many; at most [`MOST_ROWS`]. The youngest stay: requests end in
    /// another order than they begin.
    pub(super) take: usize,
}

impl Fold {
    /// As the writer does it.
    pub(super) const USUAL: Self = Self {
        at: MOST_ROWS + MOST_ROWS / 2,
        take: MOST_ROWS,
    };
}

/// Tables that are made from usage rows.
pub(super) const MADE: [&str; 4] = ["sums", "blocks", "block_columns", "late"];

/// The first `usage.id` that no block was asked for yet.
pub(super) fn until(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached("SELECT until FROM folded")?
        .query_row([], |row| row.get(0))
}

/// Notes a row that comes before others which are in blocks.
pub(super) fn note_late(connection: &Connection, id: i64) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT INTO late (id) VALUES (?1)")?
        .execute([id])?;
    Ok(())
}

/// How many rows are in no block; `most` if there are more.
pub(super) fn loose_rows(connection: &Connection, most: usize) -> Result<usize, rusqlite::Error> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM late UNION ALL
        SELECT 1 FROM usage WHERE id >= (SELECT until FROM folded) LIMIT ?1)";
    let rows: i64 = connection
        .prepare_cached(sql)?
        .query_row([i64::try_from(most).unwrap_or(i64::MAX)], |row| row.get(0))?;
    Ok(usize::try_from(rows).unwrap_or(0))
}

/// Makes a block of rows that are in none, if there are enough of them; returns
/// how many it took.
pub(super) fn fold(
    connection: &Connection,
    names: &mut Interner<'_>,
    fold: Fold,
) -> Result<usize, rusqlite::Error> {
    if loose_rows(connection, fold.at)? < fold.at {
        return Ok(0);
    }
    let take = fold.take.min(MOST_ROWS);
    let late = format!("id IN (SELECT id FROM late) ORDER BY id LIMIT {take}");
    let mut entries = read_rows(connection, &late, &[], |text| names.id(text))?;
    connection
        .prepare_cached("DELETE FROM late WHERE id <= ?1")?
        .execute([entries.last().map_or(-1, |entry| entry.id)])?;
    let rest = take - entries.len();
    let fresh = format!("id >= ?1 ORDER BY id LIMIT {rest}");
    let until = until(connection)?;
    let fresh = read_rows(connection, &fresh, &[until], |text| names.id(text))?;
    if let Some(last) = fresh.last() {
        connection
            .prepare_cached("UPDATE folded SET until = ?1")?
            .execute([last.id + 1])?;
    }
    entries.extend(fresh);
    let mut tally = Tally::default();
    entries.iter().for_each(|entry| tally.add(entry));
    tally.count(connection)?;
    let number: i64 = connection
        .prepare_cached("SELECT coalesce(max(number), 0) + 1 FROM blocks")?
        .query_row([], |row| row.get(0))?;
    write(connection, number, &entries)?;
    Ok(entries.len())
}

/// Makes blocks of all rows but the youngest; nothing was made of them so far.
pub(super) fn made_anew(connection: &Connection, names: &mut Names) -> rusqlite::Result<()> {
    connection.execute_batch(
        "UPDATE folded SET until = 0;
         INSERT OR IGNORE INTO names (text)
             SELECT DISTINCT attribution FROM usage WHERE attribution IS NOT NULL;",
    )?;
    let mut names = names.within(connection)?;
    while fold(connection, &mut names, Fold::USUAL)? > 0 {}
    Ok(())
}

/// Makes blocks of the rows that an older program wrote, some at a time: should
/// that be broken off, it goes on with the next start.
pub(super) fn catch_up(connection: &Connection) -> rusqlite::Result<()> {
    if loose_rows(connection, 2 * Fold::USUAL.at)? >= 2 * Fold::USUAL.at {
        tracing::info!("usage rows are counted; that is done once");
    }
    let mut names = Names::default();
    loop {
        let transaction = connection.unchecked_transaction()?;
        let rows = fold(connection, &mut names.within(connection)?, Fold::USUAL)?;
        transaction.commit()?;
        names.settle();
        if rows == 0 {
            return Ok(());
        }
    }
}

/// Takes rows that are deleted out of blocks and sums. Ids are in ascending
/// order.
pub(super) fn forget(connection: &Connection, ids: &[i64]) -> Result<(), rusqlite::Error> {
    let until = until(connection)?;
    let folded = &ids[..ids.partition_point(|id| *id < until)];
    let (Some(first), Some(last)) = (folded.first(), folded.last()) else {
        return Ok(());
    };
    let mut late = connection.prepare_cached("DELETE FROM late WHERE id = ?1")?;
    for id in folded {
        late.execute([id])?;
    }
    let mut tally = Tally::default();
    for block in listed(connection, *first, last.saturating_add(1))? {
        let entries = read(connection, block)?;
        let (gone, left): (Vec<Entry>, Vec<Entry>) = entries
            .into_iter()
            .partition(|entry| folded.binary_search(&entry.id).is_ok());
        if !gone.is_empty() {
            gone.iter().for_each(|entry| tally.add(entry));
            write(connection, block.number, &left)?;
        }
    }
    tally.uncount(connection)
}

/// A block, without what is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    number: i64,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) rows: usize,
}

/// The blocks that rows of these ids can be in, `to` not included.
fn listed(connection: &Connection, from: i64, to: i64) -> Result<Vec<Block>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT number, first, last, rows FROM blocks WHERE last >= ?1 AND first < ?2
         ORDER BY number",
    )?;
    let blocks = statement.query_map([from, to], |row| {
        Ok(Block {
            number: row.get(0)?,
            first: row.get(1)?,
            last: row.get(2)?,
            rows: usize::from(row.get::<_, u16>(3)?),
        })
    })?;
    blocks.collect()
}

fn read(connection: &Connection, block: Block) -> Result<Vec<Entry>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(READ_COLUMN)?;
    let columns: Vec<Vec<u8>> = (0..COLUMNS)
        .map(|place| statement.query_row([column_id(block.number, place)], |row| row.get(0)))
        .collect::<Result<_, _>>()?;
    unpack(block.rows, &columns).ok_or_else(damaged)
}

/// Puts a block in the place of what it was; one without rows goes.
fn write(connection: &Connection, number: i64, entries: &[Entry]) -> Result<(), rusqlite::Error> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        connection
            .prepare_cached("DELETE FROM blocks WHERE number = ?1")?
            .execute([number])?;
        let mut delete = connection.prepare_cached("DELETE FROM block_columns WHERE id = ?1")?;
        for place in 0..COLUMNS {
            delete.execute([column_id(number, place)])?;
        }
        return Ok(());
    };
    connection
        .prepare_cached("INSERT OR REPLACE INTO blocks VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![number, first.id, last.id, entries.len() as i64])?;
    let mut insert =
        connection.prepare_cached("INSERT OR REPLACE INTO block_columns VALUES (?1, ?2)")?;
    for (place, column) in pack(entries).into_iter().enumerate() {
        insert.execute(params![column_id(number, place), column])?;
    }
    Ok(())
}

/// A column's id: one column of all blocks lies together.
fn column_id(block: i64, place: usize) -> i64 {
    i64::try_from(place).unwrap_or(0) << NUMBER_BITS | block
}

const READ_COLUMN: &str = "SELECT data FROM block_columns WHERE id = ?1";

pub(super) fn damaged() -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, "a block is damaged".into())
}

/// Blocks as questions read them; the rows that are in none make blocks of their
/// own, at the end.
pub(super) struct Blocks<'a> {
    list: Vec<Block>,
    loose: Vec<Vec<Vec<u8>>>,
    column: CachedStatement<'a>,
}

impl<'a> Blocks<'a> {
    /// Those that rows of these ids can be in, `to` not included.
    pub(super) fn of(
        connection: &'a Connection,
        from: i64,
        to: i64,
    ) -> Result<Self, rusqlite::Error> {
        let mut list = listed(connection, from, to)?;
        let mut attributions = Attributions::of(connection)?;
        let sql = "id IN (SELECT id FROM late WHERE id >= ?1 AND id < ?2) ORDER BY id";
        let mut loose = read_rows(connection, sql, &[from, to], |text| attributions.id(text))?;
        let from = from.max(until(connection)?);
        let sql = "id >= ?1 AND id < ?2 ORDER BY id";
        let fresh = read_rows(connection, sql, &[from, to], |text| attributions.id(text))?;
        loose.extend(fresh);
        let mut packed = Vec::new();
        for part in loose.chunks(MOST_ROWS) {
            if let (Some(first), Some(last)) = (part.first(), part.last()) {
                list.push(Block {
                    number: 0,
                    first: first.id,
                    last: last.id,
                    rows: part.len(),
                });
                packed.push(pack(part));
            }
        }
        Ok(Self {
            list,
            loose: packed,
            column: connection.prepare_cached(READ_COLUMN)?,
        })
    }

    /// All of them.
    pub(super) fn list(&self) -> &[Block] {
        &self.list
    }

    /// Where those of rows that are in none begin.
    pub(super) const fn stored(&self) -> usize {
        self.list.len() - self.loose.len()
    }

    /// Reads a column of the block at that place of the list.
    pub(super) fn load(
        &mut self,
        block: usize,
        column: Column,
        into: &mut Vec<u8>,
    ) -> Result<(), rusqlite::Error> {
        into.clear();
        if let Some(loose) = block.checked_sub(self.stored()) {
            into.extend(&self.loose[loose][column.place()]);
            return Ok(());
        }
        let id = column_id(self.list[block].number, column.place());
        let mut rows = self.column.query([id])?;
        let row = rows.next()?.ok_or_else(damaged)?;
        into.extend(row.get_ref(0)?.as_blob()?);
        Ok(())
    }

    /// The block's ids, read into `data`.
    pub(super) fn ids<'b>(
        &mut self,
        block: usize,
        data: &'b mut Vec<u8>,
    ) -> Result<Numbers<'b>, rusqlite::Error> {
        self.load(block, Column::Id, data)?;
        Numbers::read(data, self.list[block].rows).ok_or_else(damaged)
    }
}

/// Numbers of attributions, each looked up once.
struct Attributions<'a> {
    find: CachedStatement<'a>,
    known: HashMap<String, i64>,
}

impl<'a> Attributions<'a> {
    fn of(connection: &'a Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            find: connection.prepare_cached("SELECT id FROM names WHERE text = ?1")?,
            known: HashMap::new(),
        })
    }

    fn id(&mut self, text: &str) -> Result<i64, rusqlite::Error> {
        match self.known.entry(text.to_owned()) {
            Slot::Occupied(known) => Ok(*known.get()),
            Slot::Vacant(new) => {
                let found = self.find.query_row([text], |row| row.get(0)).optional()?;
                Ok(*new.insert(found.unwrap_or(0)))
            }
        }
    }
}

/// Reads the usage rows that meet a condition.
fn read_rows(
    connection: &Connection,
    condition: &str,
    values: &[i64],
    mut attribution: impl FnMut(&str) -> Result<i64, rusqlite::Error>,
) -> Result<Vec<Entry>, rusqlite::Error> {
    let failed = failing(connection)?;
    let sql = format!("SELECT {SELECTED} FROM usage WHERE {condition}");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(entry(row, &failed, &mut attribution)?);
    }
    Ok(entries)
}

/// Numbers of the statuses that count as errors.
fn failing(connection: &Connection) -> Result<Vec<i64>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT id FROM names WHERE text = ?1")?;
    let mut failing = Vec::new();
    for status in Status::ALL.iter().filter(|status| status.is_failure()) {
        let found: Option<i64> = statement
            .query_row([status.name()], |row| row.get(0))
            .optional()?;
        failing.extend(found);
    }
    Ok(failing)
}

/// In the order in which [`entry`] reads them; the sides are those of
/// [`Side::ALL`].
const SELECTED: &str = "id, key_id, provider_id, model_id, canonical_id, alias_id, incoming_id,
    outgoing_id, status_id, attribution, input, tool_prompt, output, reasoning, cache_read,
    cache_write_short, cache_write_long, cache_write_other, cost_total, duration_us, ttft_us";

fn entry(
    row: &Row<'_>,
    failing: &[i64],
    attribution: &mut impl FnMut(&str) -> Result<i64, rusqlite::Error>,
) -> Result<Entry, rusqlite::Error> {
    let mut names = [0; SIDES];
    for side in Side::ALL {
        let index = 1 + side as usize;
        names[side as usize] = match side {
            Side::Attribution => match row.get_ref(index)?.as_str_or_null()? {
                Some(text) if !text.is_empty() => attribution(text)?,
                _ => 0,
            },
            _ => row.get::<_, Option<i64>>(index)?.unwrap_or(0),
        };
    }
    let known = |index: usize| -> Result<Option<u64>, rusqlite::Error> {
        let value: Option<i64> = row.get(index)?;
        Ok(value.map(|value| u64::try_from(value).unwrap_or(0)))
    };
    let sum = |indexes: std::ops::Range<usize>| -> Result<u64, rusqlite::Error> {
        let mut sum = 0_u64;
        for index in indexes {
            sum = sum.saturating_add(known(index)?.unwrap_or(0));
        }
        Ok(sum)
    };
    let maybe = |value: Option<u64>| value.map_or(0, |value| value.saturating_add(1));
    let mut numbers = [0; NUMBERS];
    numbers[Number::Input as usize] = sum(10..12)?;
    numbers[Number::Output as usize] = sum(12..13)?;
    numbers[Number::Reasoning as usize] = sum(13..14)?;
    numbers[Number::Cached as usize] = sum(14..15)?;
    numbers[Number::CacheWrite as usize] = sum(15..18)?;
    numbers[Number::Cost as usize] = maybe(known(18)?);
    numbers[Number::Duration as usize] = sum(19..20)?;
    numbers[Number::Ttft as usize] = maybe(known(20)?);
    let failed = failing.contains(&names[Side::Status as usize]);
    numbers[Number::Error as usize] = u64::from(failed);
    Ok(Entry {
        id: row.get(0)?,
        names,
        numbers,
    })
}
