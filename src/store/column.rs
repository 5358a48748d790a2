//! One thing about each of some rows, packed: names by number with a dictionary
//! of those that occur, and counts as so many bytes over the smallest of them.
//! No SQL.

use super::sums::{SIDES, Side};

/// Rows that a block holds at most; so many bits fit into [`Bits`].
pub(super) const MOST_ROWS: usize = 4096;

/// What a block has a column of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// `usage.id`, ascending.
    Id,
    Side(Side),
    Number(Number),
}

impl Column {
    /// Its place among a block's columns.
    pub(super) const fn place(self) -> usize {
        match self {
            Self::Id => 0,
            Self::Side(side) => 1 + side as usize,
            Self::Number(number) => 1 + SIDES + number as usize,
        }
    }
}

/// Columns of a block.
pub(super) const COLUMNS: usize = 1 + SIDES + NUMBERS;

/// What can be added up, compared and put in order. What may be missing is one
/// more than it is, and 0 where it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Input,
    Output,
    Reasoning,
    Cached,
    CacheWrite,
    /// Nano-dollars; may be missing.
    Cost,
    /// Microseconds.
    Duration,
    /// Microseconds; may be missing.
    Ttft,
    /// 1 where the request failed.
    Error,
}

/// How many there are.
pub(super) const NUMBERS: usize = 9;

/// One row, as blocks have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: i64,
    /// Numbers of `names`, 0 is none.
    pub(super) names: [i64; SIDES],
    pub(super) numbers: [u64; NUMBERS],
}

/// The columns of rows that are in the order of their ids.
pub(super) fn pack(entries: &[Entry]) -> Vec<Vec<u8>> {
    let mut columns = Vec::with_capacity(COLUMNS);
    let ids: Vec<u64> = entries
        .iter()
        .map(|entry| u64::try_from(entry.id).unwrap_or(0))
        .collect();
    columns.push(pack_numbers(&ids));
    for side in 0..SIDES {
        let names: Vec<i64> = entries.iter().map(|entry| entry.names[side]).collect();
        columns.push(pack_names(&names));
    }
    for number in 0..NUMBERS {
        let numbers: Vec<u64> = entries.iter().map(|entry| entry.numbers[number]).collect();
        columns.push(pack_numbers(&numbers));
    }
    columns
}

/// The rows again.
pub(super) fn unpack(rows: usize, columns: &[Vec<u8>]) -> Option<Vec<Entry>> {
    let ids = Numbers::read(columns.first()?, rows)?;
    let mut entries: Vec<Entry> = (0..rows)
        .map(|row| Entry {
            id: ids.id(row),
            names: [0; SIDES],
            numbers: [0; NUMBERS],
        })
        .collect();
    for side in 0..SIDES {
        let names = Names::read(columns.get(1 + side)?, rows)?;
        for (row, entry) in entries.iter_mut().enumerate() {
            entry.names[side] = names.at(row);
        }
    }
    for number in 0..NUMBERS {
        let numbers = Numbers::read(columns.get(1 + SIDES + number)?, rows)?;
        for (row, entry) in entries.iter_mut().enumerate() {
            entry.numbers[number] = numbers.at(row);
        }
    }
    Some(entries)
}

/// Names by number: how many occur, those in ascending order, the width of a
/// code, a code for each row. A single name needs no codes.
fn pack_names(names: &[i64]) -> Vec<u8> {
    let mut known = names.to_vec();
    known.sort_unstable();
    known.dedup();
    let width = match known.len() {
        0..=1 => 0,
        2..=256 => 1,
        _ => 2,
    };
    let mut packed = Vec::with_capacity(5 + known.len() * 8 + names.len() * width);
    packed.extend(u32::try_from(known.len()).unwrap_or(0).to_le_bytes());
    known
        .iter()
        .for_each(|name| packed.extend(name.to_le_bytes()));
    packed.push(u8::try_from(width).unwrap_or(0));
    for name in names {
        let code = known.binary_search(name).unwrap_or(0);
        packed.extend(&code.to_le_bytes()[..width]);
    }
    packed
}

/// Numbers: the smallest, the width of what is over it, that of each row.
fn pack_numbers(numbers: &[u64]) -> Vec<u8> {
    let base = numbers.iter().copied().min().unwrap_or(0);
    let most = numbers.iter().copied().max().unwrap_or(0) - base;
    let width = (u64::BITS - most.leading_zeros()).div_ceil(8) as usize;
    let mut packed = Vec::with_capacity(9 + numbers.len() * width + TAIL);
    packed.extend(base.to_le_bytes());
    packed.push(u8::try_from(width).unwrap_or(0));
    for number in numbers {
        packed.extend(&(number - base).to_le_bytes()[..width]);
    }
    packed.extend([0; TAIL]);
    packed
}

/// What follows the last number, so that any of them is read as a whole word.
const TAIL: usize = 8;

/// A column of names.
pub(super) struct Names<'a> {
    /// Those that occur, ascending.
    pub(super) known: Vec<i64>,
    width: usize,
    codes: &'a [u8],
}

impl<'a> Names<'a> {
    /// `None` when it is damaged.
    pub(super) fn read(packed: &'a [u8], rows: usize) -> Option<Self> {
        let (count, rest) = packed.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (known, rest) = rest.split_at_checked(count.checked_mul(8)?)?;
        let known: Vec<i64> = known
            .as_chunks::<8>()
            .0
            .iter()
            .map(|name| i64::from_le_bytes(*name))
            .collect();
        let (width, codes) = rest.split_first()?;
        let width = usize::from(*width);
        let whole = width <= 2 && codes.len() == rows.checked_mul(width)?;
        let named = !known.is_empty() || rows == 0;
        (whole && named).then_some(Self {
            known,
            width,
            codes,
        })
    }

    /// The row's place in `known`.
    pub(super) fn code(&self, row: usize) -> usize {
        match self.width {
            0 => 0,
            1 => usize::from(self.codes[row]),
            _ => usize::from(u16::from_le_bytes([
                self.codes[row * 2],
                self.codes[row * 2 + 1],
            ])),
        }
    }

    fn at(&self, row: usize) -> i64 {
        self.known.get(self.code(row)).copied().unwrap_or(0)
    }

    /// Clears the bits of rows whose name is not `wanted`, by place in `known`.
    pub(super) fn keep(&self, wanted: &[bool], bits: &mut Bits) {
        if self.width == 1 {
            let mut table = [0_u64; 256];
            for (flag, wanted) in table.iter_mut().zip(wanted) {
                *flag = u64::from(*wanted);
            }
            for (word, codes) in bits.0.iter_mut().zip(self.codes.chunks(64)) {
                let flags = codes.iter().rev();
                *word &= flags.fold(0, |mask, code| mask << 1 | table[usize::from(*code)]);
            }
        } else {
            bits.retain(|row| wanted.get(self.code(row)).copied().unwrap_or(false));
        }
    }
}

/// A column of numbers.
pub(super) struct Numbers<'a> {
    base: u64,
    width: usize,
    mask: u64,
    data: &'a [u8],
}

impl<'a> Numbers<'a> {
    /// `None` when it is damaged.
    pub(super) fn read(packed: &'a [u8], rows: usize) -> Option<Self> {
        let (base, rest) = packed.split_first_chunk::<8>()?;
        let (width, data) = rest.split_first()?;
        let width = usize::from(*width);
        let mask = match width {
            0..=7 => (1 << (width * 8)) - 1,
            8 => u64::MAX,
            _ => return None,
        };
        let whole = data.len() == rows.checked_mul(width)?.checked_add(TAIL)?;
        whole.then_some(Self {
            base: u64::from_le_bytes(*base),
            width,
            mask,
            data,
        })
    }

    pub(super) fn at(&self, row: usize) -> u64 {
        let from = row * self.width;
        let word = self.data[from..].first_chunk::<8>();
        let over = word.map_or(0, |word| u64::from_le_bytes(*word)) & self.mask;
        self.base.wrapping_add(over)
    }

    /// The same of a column of ids.
    pub(super) fn id(&self, row: usize) -> i64 {
        i64::try_from(self.at(row)).unwrap_or(i64::MAX)
    }

    /// In a column of `rows` ids: the first row whose id is not below that.
    pub(super) fn first_from(&self, id: i64, rows: usize) -> usize {
        let (mut low, mut high) = (0, rows);
        while low < high {
            let middle = low.midpoint(high);
            if self.id(middle) < id {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// Some of a block's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits([u64; MOST_ROWS / 64]);

impl Bits {
    /// The rows of that range.
    pub(super) fn of(rows: std::ops::Range<usize>) -> Self {
        let mut bits = Self([0; MOST_ROWS / 64]);
        for (index, word) in bits.0.iter_mut().enumerate() {
            let below = |row: usize| match row.saturating_sub(index * 64) {
                places @ 0..64 => (1 << places) - 1,
                _ => u64::MAX,
            };
            *word = below(rows.end) & !below(rows.start);
        }
        bits
    }

    pub(super) fn retain(&mut self, mut wanted: impl FnMut(usize) -> bool) {
        for (index, word) in self.0.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let place = left.trailing_zeros();
                left &= left - 1;
                if !wanted(index * 64 + place as usize) {
                    *word &= !(1 << place);
                }
            }
        }
    }

    /// Calls with each row, in order.
    pub(super) fn each(&self, mut visit: impl FnMut(usize)) {
        for (index, word) in self.0.iter().enumerate() {
            let mut left = *word;
            while left != 0 {
                visit(index * 64 + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many of the rows before that one.
    pub(super) fn count_before(&self, row: usize) -> usize {
        let whole: u32 = self.0[..row / 64].iter().map(|w| w.count_ones()).sum();
        let part = self
            .0
            .get(row / 64)
            .map_or(0, |word| (word & ((1 << (row % 64)) - 1)).count_ones());
        (whole + part) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let names = proptest::array::uniform9(prop_oneof![Just(0_i64), 1..700_i64]);
        let number = prop_oneof![Just(0), 0..300_u64, any::<u64>()];
        let numbers = proptest::array::uniform9(number);
        (0..i64::MAX, names, numbers).prop_map(|(id, names, numbers)| Entry { id, names, numbers })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_packed_comes_out_again(
            mut entries in proptest::collection::vec(entry(), 0..900),
        ) {
            entries.sort_by_key(|entry| entry.id);
            let columns = pack(&entries);
            prop_assert_eq!(columns.len(), COLUMNS);
            prop_assert_eq!(unpack(entries.len(), &columns), Some(entries));
        }

        #[test]
        fn a_damaged_column_is_none_and_never_more(
            entries in proptest::collection::vec(entry(), 0..80),
            which in 0..COLUMNS, at in any::<usize>(), cut in any::<bool>(), byte in any::<u8>(),
        ) {
            let mut columns = pack(&entries);
            let column = &mut columns[which];
            let at = at % column.len();
            if cut {
                column.truncate(at);
                prop_assert_eq!(unpack(entries.len(), &columns), None);
            } else {
                column[at] = byte;
                let _any = unpack(entries.len(), &columns);
            }
        }

        #[test]
        fn names_are_kept_and_rows_counted_one_by_one(
            entries in proptest::collection::vec(entry(), 1..900), many in any::<bool>(),
            from in 0..900_usize, wanted in 0..700_i64,
        ) {
            let fold = |name: i64| if many { name } else { name % 5 };
            let names: Vec<i64> = entries.iter().map(|entry| fold(entry.names[0])).collect();
            let packed = pack_names(&names);
            let read = Names::read(&packed, names.len()).unwrap();
            let flags: Vec<bool> = read.known.iter().map(|name| *name <= fold(wanted)).collect();
            let mut bits = Bits::of(from.min(names.len())..names.len());
            read.keep(&flags, &mut bits);
            let expected: Vec<usize> = (from..names.len())
                .filter(|row| names[*row] <= fold(wanted))
                .collect();
            let mut found = Vec::new();
            bits.each(|row| found.push(row));
            prop_assert_eq!(bits.count(), expected.len());
            let before = expected.iter().filter(|row| **row < 500).count();
            prop_assert_eq!(bits.count_before(500), before);
            prop_assert_eq!(found, expected);
        }
    }
}
