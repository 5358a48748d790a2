//! How many second tries all requests together may make.
//!
//! Every request puts a tenth of a try into the purse, every try after its
//! first takes one out. A request that is answered in the end gets back what
//! it spent: retries that help cost nothing, and only what is tried in vain is
//! limited. When nothing answers any more, providers see at most 1.1 times the
//! clients' requests, once what was saved is spent.

use std::sync::atomic::{AtomicI64, Ordering};

/// One try, in the purse's unit.
const TRY: i64 = 1000;
/// What a request puts in.
const SHARE: i64 = TRY / 10;
/// What is in the purse at the start.
const START: i64 = 100 * TRY;
/// The most that is saved: as many requests may be under way to a target that
/// dies, and all of them want to move on at once.
const MOST: i64 = 500 * TRY;

/// The purse. While it is full it is only read, so that cores don't pass its
/// cache line around.
#[derive(Debug)]
pub struct Budget(AtomicI64);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicI64::new(START))
    }
}

impl Budget {
    /// A request makes its first try.
    pub fn request(&self) {
        self.put(SHARE);
    }

    /// Takes out a try, if there is one.
    #[must_use]
    pub fn retry(&self) -> bool {
        let take = |purse| (purse >= TRY).then_some(purse - TRY);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, take)
            .is_ok()
    }

    /// A request that made that many second tries was answered.
    pub fn answered(&self, retries: u32) {
        if retries > 0 {
            self.put(TRY * i64::from(retries));
        }
    }

    /// Whole tries in the purse.
    #[must_use]
    pub fn left(&self) -> u64 {
        u64::try_from(self.0.load(Ordering::Relaxed) / TRY).unwrap_or(0)
    }

    fn put(&self, amount: i64) {
        if self.0.load(Ordering::Relaxed) >= MOST {
            return;
        }
        // May overshoot by what is put in at the same moment; no harm in it.
        self.0.fetch_add(amount, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn in_a_total_outage_requests_are_multiplied_by_at_most_one_and_a_tenth() {
        let budget = Budget::default();
        let spend = |requests: u32| {
            let mut tries = 0;
            for _ in 0..requests {
                budget.request();
                tries += 1;
                tries += (0..4).take_while(|_| budget.retry()).count();
            }
            tries
        };
        spend(1000);
        assert!(budget.left() <= 1);
        assert!(spend(10_000) <= 11_001);
    }

    #[test]
    fn retries_that_help_cost_nothing() {
        let budget = Budget::default();
        for _ in 0..10_000 {
            budget.request();
            assert!(budget.retry() && budget.retry());
            budget.answered(2);
        }
        assert!(budget.left() >= 100);
    }

    proptest! {
        #[test]
        fn the_purse_is_never_overdrawn_nor_over_full(
            steps in proptest::collection::vec((0..3_u8, 1..5_u32), 0..2000)
        ) {
            let budget = Budget::default();
            let mut out = 0_i64;
            for (what, retries) in steps {
                match what {
                    0 => budget.request(),
                    1 => out += i64::from(budget.retry()),
                    _ => {
                        let back = i64::from(retries).min(out);
                        out -= back;
                        budget.answered(u32::try_from(back).unwrap());
                    }
                }
                let purse = budget.0.load(Ordering::Relaxed);
                prop_assert!((0..=MOST + 5 * TRY).contains(&purse));
            }
        }
    }
}
