//! A reader that stops what grows too large.

use std::cell::Cell;
use std::io::{self, Read};

/// Bytes that may still come, by all readers together.
pub(super) struct Total {
    limit: u64,
    left: Cell<u64>,
}

impl Total {
    pub(super) const fn new(limit: u64) -> Self {
        Self {
            limit,
            left: Cell::new(limit),
        }
    }
}

/// See the module's text.
pub(super) struct Guard<'a, R> {
    from: R,
    total: &'a Total,
}

impl<'a, R> Guard<'a, R> {
    pub(super) const fn new(from: R, total: &'a Total) -> Self {
        Self { from, total }
    }
}

impl<R: Read> Read for Guard<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        let left = self.total.left.get().checked_sub(read as u64);
        self.total.left.set(left.unwrap_or(0));
        match left {
            Some(_) => Ok(read),
            None => Err(io::Error::other(format!(
                "the archive grows to more than {} MB, which its size doesn't account for",
                self.total.limit >> 20
            ))),
        }
    }
}
