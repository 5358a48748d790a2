//! Rows found by looking at blocks: which meet a filter, which stand where in an
//! order, what they add up to. Columns that a question does not need are not
//! read, and what is held in memory at once is a few bits a row.

use std::collections::HashMap;

use super::blocks::{Block, Blocks, damaged};
use super::column::{Bits, Column, NUMBERS, Names, Number, Numbers};
use super::filter::{Filter, Term};
use super::ledger::millisecond;
use super::sums::{Side, Sums};

/// Rows that are put in order in memory at once.
const SORTED_AT_ONCE: usize = 200_000;

/// Some rows of a block.
#[derive(Clone, Debug)]
struct Part {
    /// The block's place in the list.
    block: usize,
    rows: usize,
    bits: Bits,
}

/// Some rows of all blocks.
pub(super) struct Scan<'a, 'b> {
    blocks: &'b mut Blocks<'a>,
    parts: Vec<Part>,
}

/// How what rows add up to is told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grouping {
    /// By time, in buckets of that many milliseconds from the epoch.
    pub(super) slot_ms: Option<i64>,
    /// By a side of the rows.
    pub(super) side: Option<Side>,
}

/// Sums by the number of their slot and their name's; both are 0 where nothing
/// tells them apart.
pub(super) type Gathered = HashMap<(i64, i64), Sums>;

impl<'a, 'b> Scan<'a, 'b> {
    /// The rows of the blocks at `places` of the list that have an id in
    /// `ids.0..ids.1` and meet the filter.
    pub(super) fn of(
        blocks: &'b mut Blocks<'a>,
        places: std::ops::Range<usize>,
        ids: (i64, i64),
        filter: &Filter,
    ) -> rusqlite::Result<Self> {
        let mut scan = Self {
            blocks,
            parts: Vec::new(),
        };
        for block in places {
            let part = scan.within(block, ids)?;
            scan.parts.extend(part);
        }
        for term in filter.terms() {
            scan.keep(term)?;
        }
        if let Some((shortest, longest)) = filter.duration {
            scan.keep_numbers(Number::Duration, shortest, longest)?;
        }
        Ok(scan)
    }

    fn within(&mut self, block: usize, (from, to): (i64, i64)) -> rusqlite::Result<Option<Part>> {
        let Block {
            first, last, rows, ..
        } = self.blocks.list()[block];
        let range = if first >= from && last < to {
            0..rows
        } else if last < from || first >= to {
            return Ok(None);
        } else {
            let mut data = Vec::new();
            let ids = self.blocks.ids(block, &mut data)?;
            ids.first_from(from, rows)..ids.first_from(to, rows)
        };
        let rows = range.len();
        Ok((rows > 0).then(|| Part {
            block,
            rows,
            bits: Bits::of(range),
        }))
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.parts.iter().map(|part| part.rows).sum()
    }

    /// Keeps those rows that have one of the names.
    pub(super) fn keep(&mut self, term: &Term) -> rusqlite::Result<()> {
        self.retain(Column::Side(term.side), |data, rows, part| {
            let names = Names::read(data, rows).ok_or_else(damaged)?;
            let known = names.known.iter();
            let wanted: Vec<bool> = known.map(|name| term.names.contains(name)).collect();
            if wanted.contains(&false) {
                names.keep(&wanted, &mut part.bits);
            }
            Ok(())
        })
    }

    /// Keeps those rows whose number is between these, both included.
    fn keep_numbers(&mut self, number: Number, least: u64, most: u64) -> rusqlite::Result<()> {
        self.retain(Column::Number(number), |data, rows, part| {
            let numbers = Numbers::read(data, rows).ok_or_else(damaged)?;
            let fits = |row| (least..=most).contains(&numbers.at(row));
            part.bits.retain(fits);
            Ok(())
        })
    }

    fn retain(
        &mut self,
        column: Column,
        mut keep: impl FnMut(&[u8], usize, &mut Part) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut data = Vec::new();
        for part in &mut self.parts {
            self.blocks.load(part.block, column, &mut data)?;
            let rows = self.blocks.list()[part.block].rows;
            keep(&data, rows, part)?;
            part.rows = part.bits.count();
        }
        self.parts.retain(|part| part.rows > 0);
        Ok(())
    }

    /// The same blocks with the same rows, to keep fewer of.
    fn narrowed(&mut self) -> Scan<'a, '_> {
        Scan {
            parts: self.parts.clone(),
            blocks: self.blocks,
        }
    }

    /// Calls with each row's number and id where the number is between these.
    fn numbers(
        &mut self,
        number: Number,
        mut visit: impl FnMut(usize, usize, u64),
    ) -> rusqlite::Result<()> {
        let mut data = Vec::new();
        for (place, part) in self.parts.iter().enumerate() {
            let rows = self.blocks.list()[part.block].rows;
            self.blocks
                .load(part.block, Column::Number(number), &mut data)?;
            let numbers = Numbers::read(&data, rows).ok_or_else(damaged)?;
            part.bits.each(|row| visit(place, row, numbers.at(row)));
        }
        Ok(())
    }

    /// How many rows have an id below that.
    fn rows_below(&mut self, id: i64) -> rusqlite::Result<usize> {
        let mut below = 0;
        let mut data = Vec::new();
        for part in &self.parts {
            let Block {
                first, last, rows, ..
            } = self.blocks.list()[part.block];
            if last < id {
                below += part.rows;
            } else if first < id {
                let ids = self.blocks.ids(part.block, &mut data)?;
                below += part.bits.count_before(ids.first_from(id, rows));
            }
        }
        Ok(below)
    }

    /// At most `limit` ids in the order of time, after the first `skip`.
    pub(super) fn by_time(
        &mut self,
        ascending: bool,
        skip: usize,
        limit: usize,
    ) -> rusqlite::Result<Vec<i64>> {
        let total = self.rows();
        let skip = skip.min(total);
        let limit = limit.min(total - skip);
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Counted from the oldest.
        let from = if ascending {
            skip
        } else {
            total - skip - limit
        };
        let (start, end) = self.around(from, from + limit)?;
        let before = self.rows_below(start)?;
        let mut ids = self.ids_between(start, end)?;
        ids.sort_unstable();
        ids.drain(..from - before);
        ids.truncate(limit);
        if !ascending {
            ids.reverse();
        }
        Ok(ids)
    }

    /// Ends of blocks between which the rows of those ranks are; the second is
    /// not included.
    fn around(&mut self, from: usize, to: usize) -> rusqlite::Result<(i64, i64)> {
        let blocks = self.parts.iter().map(|part| self.blocks.list()[part.block]);
        let mut ends: Vec<i64> = blocks
            .flat_map(|block| [block.first, block.last.saturating_add(1)])
            .collect();
        ends.sort_unstable();
        let mut last_with = |most: usize| -> rusqlite::Result<usize> {
            let (mut low, mut high) = (0, ends.len());
            while low < high {
                let middle = low.midpoint(high);
                if self.rows_below(ends[middle])? <= most {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            Ok(low)
        };
        let start = last_with(from)?.saturating_sub(1);
        let end = last_with(to - 1)?.min(ends.len() - 1);
        Ok((ends[start], ends[end]))
    }

    fn ids_between(&mut self, from: i64, to: i64) -> rusqlite::Result<Vec<i64>> {
        let mut found = Vec::new();
        let mut data = Vec::new();
        for part in &self.parts {
            let Block { first, last, .. } = self.blocks.list()[part.block];
            if last < from || first >= to {
                continue;
            }
            let ids = self.blocks.ids(part.block, &mut data)?;
            part.bits.each(|row| {
                let id = ids.id(row);
                if id >= from && id < to {
                    found.push(id);
                }
            });
        }
        Ok(found)
    }

    /// At most `limit` ids in the order of a number, after the first `skip`.
    /// Rows with the same number come newest first.
    pub(super) fn by_number(
        &mut self,
        number: Number,
        ascending: bool,
        skip: usize,
        limit: usize,
    ) -> rusqlite::Result<Vec<i64>> {
        let wanted = Wanted {
            number,
            ascending,
            skip,
            limit,
        };
        self.ordered(&wanted, 0)
    }

    /// Rows are counted by what their number begins with, over `base`; that
    /// tells where in the order those are that are wanted, and only they are put
    /// in order.
    fn ordered(&mut self, wanted: &Wanted, base: u64) -> rusqlite::Result<Vec<i64>> {
        let mut classes = vec![0_u32; CLASSES];
        self.numbers(wanted.number, |_, _, value| {
            classes[class(value - base)] += 1;
        })?;
        let mut order: Vec<(usize, usize)> = classes
            .into_iter()
            .enumerate()
            .filter(|(_, rows)| *rows > 0)
            .map(|(class, rows)| (class, rows as usize))
            .collect();
        if !wanted.ascending {
            order.reverse();
        }
        let end = wanted.skip.saturating_add(wanted.limit);
        let (mut at, mut found) = (0, Vec::new());
        let mut order = order.as_slice();
        while let Some((_, first)) = order.first()
            && at < end
        {
            let (mut rows, mut classes) = (*first, 1);
            while let Some((_, next)) = order.get(classes)
                && at + rows > wanted.skip
                && at + rows < end
                && rows + next <= SORTED_AT_ONCE
            {
                rows += next;
                classes += 1;
            }
            let (run, rest) = order.split_at(classes);
            if at + rows > wanted.skip {
                let left = Wanted {
                    skip: wanted.skip.saturating_sub(at),
                    limit: wanted.limit - found.len(),
                    ..*wanted
                };
                let run = run.iter().map(|(class, _)| *class);
                let least = base + run.clone().min().map_or(0, least_of);
                let after = run.max().map_or(1, |class| least_of(class + 1));
                let most = base.saturating_add(after - 1);
                found.extend(self.between(&left, least, most, rows)?);
            }
            at += rows;
            order = rest;
        }
        Ok(found)
    }

    /// The wanted ones of those rows whose number is between these; `rows` is
    /// how many that are.
    fn between(
        &mut self,
        wanted: &Wanted,
        least: u64,
        most: u64,
        rows: usize,
    ) -> rusqlite::Result<Vec<i64>> {
        if rows <= SORTED_AT_ONCE {
            return self.sorted(wanted, least, most, rows);
        }
        let mut within = self.narrowed();
        within.keep_numbers(wanted.number, least, most)?;
        let (mut low, mut high) = (u64::MAX, 0);
        within.numbers(wanted.number, |_, _, value| {
            low = low.min(value);
            high = high.max(value);
        })?;
        if low == high {
            within.by_time(false, wanted.skip, wanted.limit)
        } else {
            within.ordered(wanted, low)
        }
    }

    fn sorted(
        &mut self,
        wanted: &Wanted,
        least: u64,
        most: u64,
        rows: usize,
    ) -> rusqlite::Result<Vec<i64>> {
        let mut hits: Vec<(usize, usize, u64)> = Vec::with_capacity(rows);
        self.numbers(wanted.number, |place, row, value| {
            if (least..=most).contains(&value) {
                hits.push((place, row, value));
            }
        })?;
        let mut ordered: Vec<(u64, i64)> = Vec::with_capacity(hits.len());
        let mut data = Vec::new();
        let mut hits = hits.as_slice();
        while let Some((place, ..)) = hits.first() {
            let same = hits.partition_point(|hit| hit.0 == *place);
            let (of_block, rest) = hits.split_at(same);
            let ids = self.blocks.ids(self.parts[*place].block, &mut data)?;
            ordered.extend(
                of_block
                    .iter()
                    .map(|(_, row, value)| (*value, ids.id(*row))),
            );
            hits = rest;
        }
        ordered.sort_unstable_by(|(a, x), (b, y)| {
            let by_number = if wanted.ascending { a.cmp(b) } else { b.cmp(a) };
            by_number.then(y.cmp(x))
        });
        let page = ordered.iter().skip(wanted.skip).take(wanted.limit);
        Ok(page.map(|(_, id)| *id).collect())
    }

    /// How many rows have each name of a side.
    pub(super) fn count_by(&mut self, side: Side) -> rusqlite::Result<HashMap<i64, usize>> {
        let mut counts = HashMap::new();
        self.by_names(side, |names, part| {
            let mut by_code = vec![0; names.known.len()];
            part.bits.each(|row| by_code[names.code(row)] += 1);
            for (name, count) in names.known.iter().zip(by_code) {
                if count > 0 {
                    *counts.entry(*name).or_default() += count;
                }
            }
            Ok(())
        })?;
        Ok(counts)
    }

    fn by_names(
        &mut self,
        side: Side,
        mut visit: impl FnMut(&Names<'_>, &Part) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let mut data = Vec::new();
        for part in &self.parts {
            self.blocks
                .load(part.block, Column::Side(side), &mut data)?;
            let rows = self.blocks.list()[part.block].rows;
            visit(&Names::read(&data, rows).ok_or_else(damaged)?, part)?;
        }
        Ok(())
    }

    /// At most `limit` ids in the order of the texts of a side, after the first
    /// `skip`; `names` are those texts' numbers in that order, with how many rows
    /// each has. Rows of one name come newest first.
    pub(super) fn by_name(
        &mut self,
        side: Side,
        names: &[(i64, usize)],
        skip: usize,
        limit: usize,
    ) -> rusqlite::Result<Vec<i64>> {
        let end = skip.saturating_add(limit);
        let (mut at, mut found, mut small) = (0, Vec::new(), Vec::new());
        for (name, rows) in names {
            let (from, to) = (at, at + rows);
            at = to;
            if to <= skip || from >= end {
                continue;
            }
            if from >= skip && to <= end {
                small.push(*name);
                continue;
            }
            found.extend(self.of_names(side, &std::mem::take(&mut small))?);
            let mut of_name = self.narrowed();
            let names = vec![*name];
            of_name.keep(&Term { side, names })?;
            let before = skip.saturating_sub(from);
            let most = to.min(end) - from.max(skip);
            found.extend(of_name.by_time(false, before, most)?);
        }
        found.extend(self.of_names(side, &small)?);
        Ok(found)
    }

    /// All ids of some names, those of the first name first.
    fn of_names(&mut self, side: Side, names: &[i64]) -> rusqlite::Result<Vec<i64>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let ranks: HashMap<i64, usize> = names.iter().enumerate().map(|(i, n)| (*n, i)).collect();
        let mut of_names = self.narrowed();
        let names = names.to_vec();
        of_names.keep(&Term { side, names })?;
        let (mut data, mut more, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for part in &of_names.parts {
            let rows = of_names.blocks.list()[part.block].rows;
            of_names
                .blocks
                .load(part.block, Column::Side(side), &mut data)?;
            let names = Names::read(&data, rows).ok_or_else(damaged)?;
            let ids = of_names.blocks.ids(part.block, &mut more)?;
            part.bits.each(|row| {
                let rank = ranks.get(&names.known[names.code(row)]);
                found.push((rank.copied().unwrap_or(usize::MAX), ids.id(row)));
            });
        }
        found.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then(y.cmp(x)));
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }

    /// Which names of two sides occur together.
    pub(super) fn pairs(&mut self, one: Side, other: Side) -> rusqlite::Result<Vec<(i64, i64)>> {
        let (mut data, mut more, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        for part in &self.parts {
            let rows = self.blocks.list()[part.block].rows;
            self.blocks.load(part.block, Column::Side(one), &mut data)?;
            self.blocks
                .load(part.block, Column::Side(other), &mut more)?;
            let one = Names::read(&data, rows).ok_or_else(damaged)?;
            let other = Names::read(&more, rows).ok_or_else(damaged)?;
            part.bits
                .each(|row| pairs.push((one.known[one.code(row)], other.known[other.code(row)])));
            pairs.sort_unstable();
            pairs.dedup();
        }
        Ok(pairs)
    }

    /// Adds what the rows add up to, once for each grouping.
    pub(super) fn add_up(
        &mut self,
        by: &[Grouping],
        gathered: &mut [Gathered],
    ) -> rusqlite::Result<()> {
        let mut columns = Columns::default();
        for part in &self.parts {
            let rows = self.blocks.list()[part.block].rows;
            columns.load(self.blocks, part.block, by)?;
            let ids = Numbers::read(&columns.ids, rows).ok_or_else(damaged)?;
            let numbers = columns.numbers(rows)?;
            for ((by, gathered), side) in by.iter().zip(gathered.iter_mut()).zip(&columns.sides) {
                let names = match by.side {
                    Some(_) => Some(Names::read(side, rows).ok_or_else(damaged)?),
                    None => None,
                };
                let mut adding = Adding::new(names.as_ref());
                part.bits.each(|row| {
                    let slot = by.slot_ms.map_or(0, |ms| millisecond(ids.id(row)) / ms);
                    adding.at(slot, gathered);
                    adding.add(row, &numbers);
                });
                adding.flush(gathered);
            }
        }
        Ok(())
    }
}

/// What of an order is wanted.
struct Wanted {
    number: Number,
    ascending: bool,
    skip: usize,
    limit: usize,
}

/// Columns of one block, packed.
#[derive(Default)]
struct Columns {
    ids: Vec<u8>,
    numbers: [Vec<u8>; NUMBERS],
    /// For each grouping.
    sides: Vec<Vec<u8>>,
}

const ADDED: [Number; NUMBERS] = [
    Number::Input,
    Number::Output,
    Number::Reasoning,
    Number::Cached,
    Number::CacheWrite,
    Number::Cost,
    Number::Duration,
    Number::Ttft,
    Number::Error,
];

impl Columns {
    fn load(
        &mut self,
        blocks: &mut Blocks<'_>,
        block: usize,
        by: &[Grouping],
    ) -> rusqlite::Result<()> {
        blocks.load(block, Column::Id, &mut self.ids)?;
        for (number, data) in ADDED.into_iter().zip(&mut self.numbers) {
            blocks.load(block, Column::Number(number), data)?;
        }
        self.sides.resize_with(by.len(), Vec::new);
        for (by, data) in by.iter().zip(&mut self.sides) {
            if let Some(side) = by.side {
                blocks.load(block, Column::Side(side), data)?;
            }
        }
        Ok(())
    }

    fn numbers(&self, rows: usize) -> rusqlite::Result<Vec<Numbers<'_>>> {
        let numbers = self.numbers.iter();
        numbers
            .map(|data| Numbers::read(data, rows).ok_or_else(damaged))
            .collect()
    }
}

/// Sums of one block's rows, for one grouping: by place of the name, of the
/// slot at hand.
struct Adding<'a> {
    names: Option<&'a Names<'a>>,
    slot: i64,
    sums: Vec<Sums>,
}

impl<'a> Adding<'a> {
    fn new(names: Option<&'a Names<'a>>) -> Self {
        Self {
            names,
            slot: 0,
            sums: vec![Sums::default(); names.map_or(1, |names| names.known.len())],
        }
    }

    fn at(&mut self, slot: i64, gathered: &mut Gathered) {
        if slot != self.slot {
            self.flush(gathered);
            self.slot = slot;
        }
    }

    fn add(&mut self, row: usize, numbers: &[Numbers<'_>]) {
        let mut values = [0; NUMBERS];
        for (value, numbers) in values.iter_mut().zip(numbers) {
            *value = numbers.at(row);
        }
        let code = self.names.map_or(0, |names| names.code(row));
        if let Some(sums) = self.sums.get_mut(code) {
            sums.add(&Sums::of(&values));
        }
    }

    fn flush(&mut self, gathered: &mut Gathered) {
        for (code, sums) in self.sums.iter_mut().enumerate() {
            if sums.requests > 0 {
                let name = self.names.map_or(0, |names| names.known[code]);
                let sums = std::mem::take(sums);
                gathered.entry((self.slot, name)).or_default().add(&sums);
            }
        }
    }
}

/// Bits of a number that its class keeps, the first one not counted.
const CLASS_BITS: u32 = 10;

/// How many classes there are.
const CLASSES: usize = (65 - CLASS_BITS as usize) << CLASS_BITS;

/// The class of a number: small ones have one of their own, others share it with
/// those that begin with the same bits. In the order of the numbers.
const fn class(value: u64) -> usize {
    if value < 1 << CLASS_BITS {
        return value as usize;
    }
    let length = u64::BITS - value.leading_zeros();
    let shift = length - CLASS_BITS - 1;
    ((shift as usize) << CLASS_BITS) + (value >> shift) as usize
}

/// The least number of a class; `u64::MAX` beyond the last.
const fn least_of(class: usize) -> u64 {
    if class < 1 << CLASS_BITS {
        return class as u64;
    }
    if class >= CLASSES {
        return u64::MAX;
    }
    let shift = (class >> CLASS_BITS) - 1;
    (((class & ((1 << CLASS_BITS) - 1)) | 1 << CLASS_BITS) as u64) << shift
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rusqlite::Connection;
    use uuid::Uuid;

    use super::super::blocks::Fold;
    use super::super::ledger::{Ledger, Row};
    use super::super::row::{Status, UsageRow};
    use super::super::summary::{GroupBy, SummaryQuery, summary};
    use super::super::usage::{self, SortBy, UsageQuery};
    use super::*;
    use crate::money::{Cost, Nanos};
    use crate::store::row::{Bill, Grounds};

    const NOON: i64 = 1_769_860_800_000;
    const DAY: i64 = 86_400_000;

    fn ledger() -> Ledger {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        Ledger::new(connection, 0)
    }

    /// A row that began in the `turn`th of some moments, each of which has one.
    fn row() -> impl Strategy<Value = UsageRow> {
        let text =
            |all: &'static [&'static str]| proptest::option::of(proptest::sample::select(all));
        let number = prop_oneof![Just(None), (0..9_u64).prop_map(Some), Just(Some(u64::MAX))];
        let names = (
            text(&["k", "l", "kl"]),
            text(&["p", "q"]),
            text(&["m", "n"]),
            text(&["ci"]),
        );
        let duration = prop_oneof![0..4_u64, 0..50_000_u64];
        let rest = (number, duration, 0..Status::ALL.len(), any::<bool>());
        (names, rest).prop_map(
            |((key, provider, model, attribution), (number, duration, status, streamed))| {
                UsageRow {
                    key: key.map(Into::into),
                    attribution: attribution.map(Into::into),
                    provider: provider.map(Into::into),
                    selected_model: model.map(Into::into),
                    incoming_alias: model.map(Into::into),
                    canonical: provider.map(Into::into),
                    duration_ms: duration as f64,
                    ttft_ms: streamed.then_some(3.25),
                    status: Status::ALL[status],
                    tokens: crate::store::row::Tokens {
                        input: number,
                        tool_prompt: number,
                        cache_write_long: number,
                        ..Default::default()
                    },
                    bill: number.map(|nanos| Bill {
                        source: "simple",
                        cost: Some(Cost {
                            output: Nanos(nanos),
                            ..Cost::default()
                        }),
                        grounds: Grounds::None,
                    }),
                    ..UsageRow::blank(NOON)
                }
            },
        )
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Write(Vec<(UsageRow, i64)>),
        DeleteOne(usize),
        DeleteOldest(u32),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let rows = proptest::collection::vec((row(), 0..6 * DAY), 0..20);
        prop_oneof![
            4 => rows.prop_map(Deed::Write),
            1 => any::<usize>().prop_map(Deed::DeleteOne),
            1 => (1..9_u32).prop_map(Deed::DeleteOldest),
        ]
    }

    /// Does it to the database and to the rows beside it, by their beginning.
    fn perform(ledger: &mut Ledger, rows: &mut BTreeMap<i64, UsageRow>, deed: Deed) {
        match deed {
            Deed::Write(new) => {
                let mut batch = Vec::new();
                for (row, after) in new {
                    let start_ms = NOON + after;
                    let row = UsageRow {
                        start_ms,
                        request_id: Uuid::new_v4(),
                        ..row
                    };
                    // Each moment has one row, so that the order is known.
                    if rows.insert(start_ms, row.clone()).is_none() {
                        batch.push(Row::Usage(Box::new(row)));
                    } else {
                        rows.remove(&start_ms);
                        let of_moment = UsageQuery {
                            start_ms: Some(start_ms),
                            end_ms: Some(start_ms),
                            ..UsageQuery::default()
                        };
                        for id in ids(&ledger.connection, &of_moment).0 {
                            usage::delete_one(&ledger.connection, id).unwrap();
                        }
                        batch.retain(|written| {
                            !matches!(written, Row::Usage(row) if row.start_ms == start_ms)
                        });
                    }
                }
                assert_eq!(ledger.commit(&batch).unwrap().refused, 0);
            }
            Deed::DeleteOne(which) => {
                let Some(start_ms) = rows.keys().nth(which % rows.len().max(1)).copied() else {
                    return;
                };
                let row = rows.remove(&start_ms).unwrap();
                assert_eq!(
                    usage::delete_one(&ledger.connection, row.request_id).unwrap(),
                    1
                );
            }
            Deed::DeleteOldest(count) => {
                usage::delete_slice(&ledger.connection, i64::MAX, count).unwrap();
                for _ in 0..count {
                    rows.pop_first();
                }
            }
        }
    }

    fn ids(connection: &Connection, query: &UsageQuery) -> (Vec<Uuid>, u64) {
        let page = usage::page(connection, query).unwrap();
        let ids = page.data.iter();
        let ids = ids.map(|row| row["requestId"].as_str().unwrap().parse().unwrap());
        (ids.collect(), page.total)
    }

    fn meets(row: &UsageRow, query: &UsageQuery) -> bool {
        let part = |wanted: &Option<String>, name: Option<&str>| {
            wanted
                .as_ref()
                .is_none_or(|part| name.is_some_and(|name| name.contains(part)))
        };
        let is = |wanted: &Option<String>, name: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| name == Some(wanted))
        };
        part(&query.api_key, row.key.as_deref())
            && part(&query.provider, row.provider.as_deref())
            && part(&query.selected_model_name, row.selected_model.as_deref())
            && is(&query.attribution, row.attribution.as_deref())
            && is(&query.response_status, Some(row.status.name()))
            && query.start_ms.is_none_or(|ms| row.start_ms >= ms)
            && query.end_ms.is_none_or(|ms| row.start_ms <= ms)
            && query.min_duration_ms.is_none_or(|ms| row.duration_ms >= ms)
            && query.max_duration_ms.is_none_or(|ms| row.duration_ms <= ms)
    }

    /// By looking at each row.
    fn expected(rows: &BTreeMap<i64, UsageRow>, query: &UsageQuery) -> (Vec<Uuid>, u64) {
        let mut found: Vec<&UsageRow> = rows.values().rev().filter(|r| meets(r, query)).collect();
        let cost = |row: &UsageRow| {
            row.bill
                .as_ref()
                .and_then(|b| b.cost)
                .map(|c| c.total().0.min(1 << 63))
        };
        match query.sort_by {
            SortBy::Date => {}
            SortBy::ApiKey => found.sort_by(|a, b| b.key.cmp(&a.key)),
            SortBy::Provider => found.sort_by(|a, b| b.provider.cmp(&a.provider)),
            SortBy::IncomingModelAlias => {
                found.sort_by(|a, b| b.incoming_alias.cmp(&a.incoming_alias));
            }
            SortBy::CostTotal => found.sort_by_key(|row| std::cmp::Reverse(cost(row))),
            SortBy::DurationMs => found.sort_by(|a, b| b.duration_ms.total_cmp(&a.duration_ms)),
        }
        if query.ascending {
            found.reverse();
            // Among equals the newest comes first all the same.
            found.sort_by(|a, b| match query.sort_by {
                SortBy::Date => a.start_ms.cmp(&b.start_ms),
                SortBy::ApiKey => a.key.cmp(&b.key).then(b.start_ms.cmp(&a.start_ms)),
                SortBy::Provider => a
                    .provider
                    .cmp(&b.provider)
                    .then(b.start_ms.cmp(&a.start_ms)),
                SortBy::IncomingModelAlias => a
                    .incoming_alias
                    .cmp(&b.incoming_alias)
                    .then(b.start_ms.cmp(&a.start_ms)),
                SortBy::CostTotal => cost(a).cmp(&cost(b)).then(b.start_ms.cmp(&a.start_ms)),
                SortBy::DurationMs => {
                    let by_duration = a.duration_ms.total_cmp(&b.duration_ms);
                    by_duration.then(b.start_ms.cmp(&a.start_ms))
                }
            });
        }
        let total = found.len() as u64;
        let page = found
            .into_iter()
            .skip(usize::try_from(query.offset).unwrap());
        let limit = query
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
        (page.take(limit).map(|row| row.request_id).collect(), total)
    }

    fn query() -> impl Strategy<Value = UsageQuery> {
        let sort = proptest::sample::select(vec![
            SortBy::Date,
            SortBy::ApiKey,
            SortBy::Provider,
            SortBy::IncomingModelAlias,
            SortBy::CostTotal,
            SortBy::DurationMs,
        ]);
        let text = |all: &'static [&'static str]| {
            proptest::option::weighted(0.3, proptest::sample::select(all).prop_map(str::to_owned))
        };
        let names = (
            text(&["k", "l"]),
            text(&["p"]),
            text(&["m"]),
            text(&["ci"]),
            text(&["success"]),
        );
        let when = proptest::option::weighted(0.3, 0..6 * DAY);
        let long = proptest::option::weighted(0.3, 0.0..9000.0_f64);
        let page = (
            sort,
            any::<bool>(),
            0..40_u64,
            proptest::option::of(0..30_u64),
        );
        (names, (when.clone(), when), (long.clone(), long), page).prop_map(
            |(names, (start, end), (min, max), (sort_by, ascending, offset, limit))| UsageQuery {
                api_key: names.0,
                provider: names.1,
                selected_model_name: names.2,
                attribution: names.3,
                response_status: names.4,
                start_ms: start.map(|after| NOON + after),
                end_ms: end.map(|after| NOON + after),
                min_duration_ms: min,
                max_duration_ms: max,
                sort_by,
                ascending,
                offset,
                limit,
                ..UsageQuery::default()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn blocks_say_what_the_rows_say_after_any_writing_and_deleting(
            deeds in proptest::collection::vec(deed(), 1..9), at in 1..12_usize, take in 1..12_usize,
            queries in proptest::collection::vec(query(), 1..12), bucket in 0..4_usize,
        ) {
            let (mut ledger, mut rows) = (ledger(), BTreeMap::new());
            let fold = Fold { at: at.max(take), take };
            for deed in deeds {
                perform(&mut ledger, &mut rows, deed);
                while ledger.fold(fold).unwrap() > 0 {}
            }
            for query in queries {
                prop_assert_eq!(ids(&ledger.connection, &query), expected(&rows, &query));
                let bucket_ms = [60_000, 3_600_000, 12 * 3_600_000, DAY][bucket];
                let groups = vec![GroupBy::Key, GroupBy::Attribution, GroupBy::Provider, GroupBy::Alias, GroupBy::Model];
                let asked = SummaryQuery {
                    rows: UsageQuery { min_duration_ms: None, max_duration_ms: None, ..query.clone() },
                    bucket_ms,
                    today_ms: NOON + DAY,
                    groups,
                };
                let found = summary(&ledger.connection, &asked).unwrap();
                let wanted: Vec<&UsageRow> = rows.values().filter(|r| meets(r, &asked.rows)).collect();
                let count = |count: usize| i64::try_from(count).unwrap();
                prop_assert_eq!(found.total.requests, count(wanted.len()));
                let slow: f64 = wanted.iter().map(|row| row.duration_ms).sum();
                prop_assert_eq!(found.total.duration_us, (slow * 1000.0) as i64);
                let failed = wanted.iter().filter(|row| row.status.is_failure());
                prop_assert_eq!(found.total.errors, count(failed.count()));
                for (begins, sums) in found.series {
                    let of_slot = wanted.iter().filter(|row| row.start_ms / bucket_ms * bucket_ms == begins);
                    prop_assert_eq!(sums.requests, count(of_slot.count()));
                }
                for (key, sums) in &found.groups[0] {
                    let of_key = wanted.iter().filter(|row| row.key.as_deref() == key.as_deref());
                    prop_assert_eq!(sums.requests, count(of_key.count()));
                }
                for (name, sums) in &found.groups[1] {
                    let named = wanted.iter().filter(|row| row.attribution.as_deref() == name.as_deref());
                    prop_assert_eq!(sums.requests, count(named.count()));
                }
                for group in &found.groups {
                    let whole: i64 = group.iter().map(|(_, sums)| sums.requests).sum();
                    prop_assert_eq!(whole, found.total.requests);
                }
            }
            usage::delete_slice(&ledger.connection, i64::MAX, u32::MAX).unwrap();
            for table in super::super::blocks::MADE {
                let sql = format!("SELECT count(*) FROM {table}");
                let left: i64 = ledger.connection.query_row(&sql, [], |row| row.get(0)).unwrap();
                prop_assert_eq!(left, 0, "nothing is kept of what is gone: {}", table);
            }
        }

        #[test]
        fn a_class_holds_the_numbers_from_its_least_to_the_next_ones(value in any::<u64>(), shift in 0..64_u32) {
            let value = value >> shift;
            let class = class(value);
            prop_assert!(class < CLASSES && least_of(class) <= value);
            prop_assert!(value < least_of(class + 1) || class + 1 == CLASSES);
        }
    }

    #[test]
    fn many_rows_of_few_numbers_are_paged_without_putting_all_in_order() {
        let mut ledger = ledger();
        for batch in 0..45_i64 {
            let rows = (0..5000_i64).map(|row| {
                let at = batch * 5000 + row;
                let duration_ms = if at % 100_000 == 7 { 4000.002 } else { 4000.0 };
                Row::Usage(Box::new(UsageRow {
                    duration_ms,
                    request_id: Uuid::from_u128(at.unsigned_abs().into()),
                    ..UsageRow::blank(NOON + at)
                }))
            });
            ledger.commit(&rows.collect::<Vec<_>>()).unwrap();
            while ledger.fold(Fold::USUAL).unwrap() > 0 {}
        }
        let page = |offset: u64| {
            let query = UsageQuery {
                sort_by: SortBy::DurationMs,
                limit: Some(3),
                offset,
                ..UsageQuery::default()
            };
            let (ids, total) = ids(&ledger.connection, &query);
            assert_eq!(total, 225_000);
            ids.into_iter().map(|id| id.as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(page(0), [200_007, 100_007, 7]);
        assert_eq!(page(2), [7, 224_999, 224_998]);
        assert_eq!(page(100_000), [125_001, 125_000, 124_999]);
        assert_eq!(page(224_998), [1, 0]);
    }
}
