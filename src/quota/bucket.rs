//! One owner's use of one quota: what is used, and what is reserved for
//! requests under way. The definition comes with each call: configurations
//! change, what was used stays.
//!
//! Numbers are thousandths of a request or token, or nano-dollars.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::window::Pace;
use crate::store::Writer;
use crate::store::row::{QuotaRow, QuotaState};

/// The owner of a bucket that all keys share. No key can have this name.
pub const SHARED: &str = "*";

/// Requests that come at the same time look at their clocks in any order; a time
/// further back than this is a clock that was set.
const DISORDER_MS: i64 = 60_000;

/// What an owner used of a quota.
pub(super) struct Bucket {
    quota: Arc<str>,
    owner: Arc<str>,
    kind: &'static str,
    state: Mutex<State>,
    /// Whether the writer has yet to see the newest state.
    dirty: AtomicBool,
    writer: Option<Writer>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("quota", &self.quota)
            .field("owner", &self.owner)
            .field("state", &*self.state.lock())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    used: u64,
    reserved: u64,
    /// What of the next thousandth has leaked already, in thousandths of it per
    /// millisecond of the duration.
    carry: u128,
    /// Until when the bucket has leaked, or when its window began.
    at: i64,
    /// When it is empty by itself, or its window ends.
    until: i64,
    /// Counts the windows: what was reserved in one is not given back in another.
    epoch: u64,
}

/// What a bucket is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    /// How much there is.
    pub limit: u64,
    /// The least that a request takes.
    pub least: u64,
    /// How it becomes free again.
    pub pace: Pace,
}

/// How much of a quota is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Settled.
    pub used: u64,
    /// Reserved for requests under way.
    pub reserved: u64,
    /// How much there is.
    pub limit: u64,
    /// When all of it is free again, if nothing is added.
    pub resets_at: i64,
    /// Milliseconds until a request may pass, if it may not now. Zero when that
    /// depends on requests under way.
    pub wait: Option<i64>,
}

impl Level {
    /// What is left.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        self.limit
            .saturating_sub(self.used.saturating_add(self.reserved))
    }
}

/// A part of a bucket that is held for a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    amount: u64,
    epoch: u64,
}

impl Bucket {
    pub(super) fn new(
        quota: &Arc<str>,
        owner: &Arc<str>,
        kind: &'static str,
        writer: Option<Writer>,
    ) -> Self {
        Self {
            quota: Arc::clone(quota),
            owner: Arc::clone(owner),
            kind,
            state: Mutex::default(),
            dirty: AtomicBool::new(false),
            writer,
        }
    }

    /// As it was before the start. What was reserved then counts as used: its
    /// requests may have been answered.
    pub(super) fn restored(row: &QuotaRow, kind: &'static str, writer: Option<Writer>) -> Self {
        let bucket = Self::new(&row.quota, &row.owner, kind, writer);
        *bucket.state.lock() = State {
            used: row.used.saturating_add(row.reserved),
            carry: u128::from(row.carry),
            at: row.at_ms,
            until: row.until_ms,
            ..State::default()
        };
        bucket
    }

    /// Is from now on what that row says, or empty, as if a window had begun:
    /// requests under way hold nothing of it.
    pub(super) fn take_over(self: &Arc<Self>, row: Option<&QuotaRow>) {
        let mut state = self.state.lock();
        let epoch = state.epoch + 1;
        *state = row.map_or_else(State::default, |row| State {
            used: row.used.saturating_add(row.reserved),
            carry: u128::from(row.carry),
            at: row.at_ms,
            until: row.until_ms,
            ..State::default()
        });
        state.epoch = epoch;
        drop(state);
        self.changed();
    }

    /// Whether nothing is left in it at `now`.
    pub(super) fn is_over(&self, now: i64) -> bool {
        self.state.lock().until <= now
    }

    /// Holds `amount` for a request, if there is room for it beside what is used
    /// and what is held for others. Who comes alone is let in while the least is
    /// left: an estimate must not keep the last of a budget from being used.
    pub(super) fn reserve(
        self: &Arc<Self>,
        measure: Measure,
        amount: u64,
        now: i64,
    ) -> Result<(Hold, Level), Level> {
        let amount = amount.max(measure.least);
        let mut state = self.state.lock();
        state.advance(measure, now);
        let level = state.level(measure, amount, now);
        if level.wait.is_some() {
            return Err(level);
        }
        state.reserved = state.reserved.saturating_add(amount);
        let epoch = state.epoch;
        state.mark(measure, now);
        drop(state);
        self.changed();
        Ok((Hold { amount, epoch }, level))
    }

    /// Ends a hold; what the request took is used from here on. What was held in
    /// a window that is over is settled there.
    pub(super) fn settle(self: &Arc<Self>, measure: Measure, hold: Hold, spent: u64, now: i64) {
        let mut state = self.state.lock();
        state.advance(measure, now);
        if state.epoch != hold.epoch {
            return;
        }
        state.reserved = state.reserved.saturating_sub(hold.amount);
        state.used = state.used.saturating_add(spent);
        state.mark(measure, now);
        drop(state);
        self.changed();
    }

    /// Ends a hold for which nothing was used, whatever the time is.
    pub(super) fn give_back(self: &Arc<Self>, hold: Hold) {
        let mut state = self.state.lock();
        if state.epoch == hold.epoch {
            state.reserved = state.reserved.saturating_sub(hold.amount);
        }
        drop(state);
        self.changed();
    }

    /// How it stands for a request of the least size.
    pub(super) fn level(&self, measure: Measure, now: i64) -> Level {
        self.level_for(measure, 0, now)
    }

    /// How it stands for a request that takes so much, of which nothing is held.
    pub(super) fn level_for(&self, measure: Measure, amount: u64, now: i64) -> Level {
        let mut state = *self.state.lock();
        state.advance(measure, now);
        state.level(measure, amount.max(measure.least), now)
    }

    /// What is used, whatever is held.
    pub(super) fn used(&self, measure: Measure, now: i64) -> u64 {
        self.level(measure, now).used
    }

    /// Takes `used` for what is used.
    pub(super) fn set(self: &Arc<Self>, measure: Measure, used: u64, now: i64) {
        let mut state = self.state.lock();
        state.advance(measure, now);
        state.used = used;
        state.carry = 0;
        state.mark(measure, now);
        drop(state);
        self.changed();
    }

    /// Keeps everybody else out while it lives.
    #[cfg(test)]
    pub(super) fn held(&self) -> impl Drop + '_ {
        self.state.lock()
    }

    /// Has the writer look, unless it is about to.
    fn changed(self: &Arc<Self>) {
        let Some(writer) = &self.writer else { return };
        if self.dirty.swap(true, Ordering::AcqRel) {
            return;
        }
        let state: Arc<dyn QuotaState> = Arc::<Self>::clone(self);
        if !writer.quota(state) {
            self.dirty.store(false, Ordering::Release);
        }
    }
}

impl QuotaState for Bucket {
    fn row(&self) -> QuotaRow {
        // First: a change from here on is a new one.
        self.dirty.store(false, Ordering::SeqCst);
        let state = *self.state.lock();
        QuotaRow {
            quota: Arc::clone(&self.quota),
            owner: Arc::clone(&self.owner),
            kind: self.kind.into(),
            used: state.used,
            reserved: state.reserved,
            carry: u64::try_from(state.carry).unwrap_or(0),
            at_ms: state.at,
            until_ms: state.until,
        }
    }
}

impl State {
    /// Leaks, or begins a new window. A clock that was set back frees nothing.
    fn advance(&mut self, measure: Measure, now: i64) {
        match measure.pace {
            Pace::Leak(duration) => self.leak(measure.limit, duration, now),
            _ if self.at.saturating_sub(DISORDER_MS) <= now && now < self.until => {}
            pace => {
                let (start, end) = pace.window(now).unwrap_or((now, now));
                if now >= self.until {
                    self.used = 0;
                    self.reserved = 0;
                    self.epoch += 1;
                }
                (self.at, self.until) = (start, end);
            }
        }
    }

    fn leak(&mut self, limit: u64, duration: u64, now: i64) {
        let elapsed = u128::from(now.saturating_sub(self.at).max(0).unsigned_abs());
        if now >= self.at || now < self.at.saturating_sub(DISORDER_MS) {
            self.at = now;
        }
        let duration = u128::from(duration.max(1));
        let leaked = elapsed * u128::from(limit) + self.carry;
        self.carry = leaked % duration;
        let leaked = u64::try_from(leaked / duration).unwrap_or(u64::MAX);
        self.used = self.used.saturating_sub(leaked);
        if self.used == 0 {
            self.carry = 0;
        }
    }

    /// Works out when nothing is left of it.
    fn mark(&mut self, measure: Measure, now: i64) {
        if let Pace::Leak(duration) = measure.pace {
            let full = self.used.saturating_add(self.reserved);
            self.until = now.saturating_add(time_to_leak(full, measure.limit, duration));
        }
    }

    fn level(&self, measure: Measure, amount: u64, now: i64) -> Level {
        let resets_at = match measure.pace {
            Pace::Leak(duration) => {
                now.saturating_add(time_to_leak(self.used, measure.limit, duration))
            }
            _ => self.until,
        };
        Level {
            used: self.used,
            reserved: self.reserved,
            limit: measure.limit,
            resets_at,
            wait: self.wait(measure, amount, now),
        }
    }

    /// How long a request of that size has to wait.
    fn wait(&self, measure: Measure, amount: u64, now: i64) -> Option<i64> {
        let least = self.used.saturating_add(measure.least);
        if least > measure.limit {
            let over = least - measure.limit;
            let wait = match measure.pace {
                Pace::Leak(duration) => time_to_leak(over, measure.limit, duration),
                _ => self.until.saturating_sub(now),
            };
            return Some(wait.max(1));
        }
        let all = self.used.saturating_add(self.reserved);
        let fits = self.reserved == 0 || all.saturating_add(amount) <= measure.limit;
        (!fits).then_some(0)
    }
}

/// Milliseconds in which that much leaks, rounded up.
fn time_to_leak(amount: u64, limit: u64, duration: u64) -> i64 {
    let time = u128::from(amount) * u128::from(duration);
    let time = time.div_ceil(u128::from(limit.max(1)));
    i64::try_from(time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;

    fn measure(limit: u64, pace: Pace) -> Measure {
        Measure {
            limit: limit * 1000,
            least: 1000,
            pace,
        }
    }

    fn bucket() -> Arc<Bucket> {
        Arc::new(Bucket::new(
            &"q".into(),
            &"k".into(),
            "requests/daily",
            None,
        ))
    }

    /// Lets a request of one in and settles it at once.
    fn pass(bucket: &Arc<Bucket>, measure: Measure, now: i64) -> bool {
        match bucket.reserve(measure, 1000, now) {
            Ok((hold, _)) => {
                bucket.settle(measure, hold, 1000, now);
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn a_limit_of_two_an_hour_admits_two_and_one_more_every_half_hour() {
        let (bucket, measure) = (bucket(), measure(2, Pace::Leak(HOUR)));
        let now = 1_000_000_000;
        assert!(pass(&bucket, measure, now) && pass(&bucket, measure, now));
        let level = bucket.reserve(measure, 1000, now + 10).unwrap_err();
        // A thousandth leaks in 1.8 s; what is less is not told.
        assert_eq!(level.wait, Some(1_800_000));
        assert_eq!(level.resets_at, now + 10 + 3_600_000);
        assert!(!pass(&bucket, measure, now + 1_799_999));
        assert!(pass(&bucket, measure, now + 1_800_000));
        assert!(!pass(&bucket, measure, now + 1_800_001));
    }

    #[test]
    fn looking_often_does_not_keep_a_bucket_from_leaking() {
        let (bucket, measure) = (bucket(), measure(2, Pace::Leak(HOUR)));
        assert!(pass(&bucket, measure, 0));
        for now in 0..1_800_000 {
            bucket.set(measure, bucket.used(measure, now), now);
        }
        let carried = bucket.used(measure, 1_800_000);
        assert!(
            carried <= 1000,
            "setting drops what is less than a thousandth"
        );
        let (other, mut admitted) = (self::bucket(), 0);
        for now in (0..3_600_000).step_by(7) {
            admitted += u32::from(pass(&other, measure, now));
        }
        assert_eq!(admitted, 3, "two at once and one after half an hour");
    }

    #[test]
    fn a_window_ends_with_all_that_was_used_and_held_in_it() {
        let (bucket, measure) = (bucket(), measure(2, Pace::Daily));
        let end = 86_400_000;
        assert!(pass(&bucket, measure, end - 10));
        let (held, _) = bucket.reserve(measure, 1000, end - 5).unwrap();
        let level = bucket.reserve(measure, 1000, end - 5).unwrap_err();
        assert_eq!((level.wait, level.resets_at), (Some(0), end));
        assert!(pass(&bucket, measure, end));
        bucket.settle(measure, held, 1000, end + 1);
        let level = bucket.level(measure, end + 1);
        assert_eq!(
            (level.used, level.reserved),
            (1000, 0),
            "settled where it began"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_frees_nothing_and_stops_nothing() {
        for pace in [Pace::Daily, Pace::Leak(HOUR)] {
            let (bucket, measure) = (bucket(), measure(2, pace));
            let now = 10 * 86_400_000;
            let (held, _) = bucket.reserve(measure, 1000, now).unwrap();
            assert!(pass(&bucket, measure, now));
            let before = now - 3 * 86_400_000;
            assert!(!pass(&bucket, measure, before), "{pace:?}");
            bucket.settle(measure, held, 0, before);
            assert_eq!(bucket.level(measure, before).reserved, 0);
            assert!(pass(&bucket, measure, before));
        }
    }

    #[test]
    fn who_comes_alone_may_use_the_last_of_a_budget() {
        let (bucket, measure) = (bucket(), measure(100, Pace::Daily));
        let (held, _) = bucket.reserve(measure, 500_000, 1).unwrap();
        assert_eq!(bucket.reserve(measure, 1000, 1).unwrap_err().wait, Some(0));
        bucket.settle(measure, held, 99_000, 2);
        let (held, _) = bucket.reserve(measure, 500_000, 3).unwrap();
        bucket.settle(measure, held, 50_000, 3);
        let level = bucket.reserve(measure, 1000, 3).unwrap_err();
        assert_eq!((level.used, level.remaining()), (149_000, 0));
    }

    #[test]
    fn what_was_held_at_a_crash_is_used_after_the_start() {
        let (bucket, measure) = (bucket(), measure(3, Pace::Daily));
        let _held = bucket.reserve(measure, 1000, 5).unwrap();
        assert!(pass(&bucket, measure, 6));
        let restored = Arc::new(Bucket::restored(&bucket.row(), "requests/daily", None));
        assert!(pass(&restored, measure, 7));
        assert!(!pass(&restored, measure, 8));
        assert!(restored.is_over(86_400_000) && !restored.is_over(86_399_999));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(u64),
        Settle(usize, u64),
        Refund(usize),
        Wait(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..40_000_u64).prop_map(Step::Reserve),
            2 => (0..16_usize, 0..40_000_u64).prop_map(|(which, spent)| Step::Settle(which, spent)),
            1 => (0..16_usize).prop_map(Step::Refund),
            1 => (0..5_000_i64).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Whatever comes: what is used goes over the limit by no more than what
        /// requests took beyond their estimates, and one that came alone took.
        #[test]
        fn a_budget_is_overrun_by_no_more_than_its_estimates_were_wrong(
            steps in steps(),
            limit in 1..100_u64,
        ) {
            let (bucket, measure) = (bucket(), measure(limit, Pace::Daily));
            let mut held: Vec<(Hold, bool)> = Vec::new();
            let (mut now, mut wrong, mut used) = (0, 0_u64, 0_u64);
            for step in steps {
                match step {
                    Step::Reserve(amount) => {
                        if let Ok((hold, level)) = bucket.reserve(measure, amount, now) {
                            prop_assert!(level.used < measure.limit);
                            let alone = level.used + level.reserved + hold.amount > measure.limit;
                            held.push((hold, alone));
                        }
                    }
                    Step::Settle(which, spent) if !held.is_empty() => {
                        let (hold, alone) = held.swap_remove(which % held.len());
                        wrong += if alone { spent } else { spent.saturating_sub(hold.amount) };
                        used += spent;
                        bucket.settle(measure, hold, spent, now);
                    }
                    Step::Refund(which) if !held.is_empty() => {
                        let (hold, _) = held.swap_remove(which % held.len());
                        bucket.settle(measure, hold, 0, now);
                    }
                    Step::Wait(ms) => now += ms,
                    _ => {}
                }
                let level = bucket.level(measure, now);
                prop_assert_eq!(level.used, used, "settled to what was spent");
                prop_assert_eq!(level.reserved, held.iter().map(|(hold, _)| hold.amount).sum::<u64>());
                prop_assert!(level.used <= measure.limit + wrong);
            }
        }

        /// In any stretch of time a leaky bucket lets through no more than its
        /// limit and what leaks in that time.
        #[test]
        fn a_leaky_bucket_admits_its_limit_and_what_leaks(
            waits in proptest::collection::vec(0..2_000_i64, 1..300),
            limit in 1..20_u64,
            duration in 1_000..100_000_u64,
        ) {
            let (bucket, measure) = (bucket(), measure(limit, Pace::Leak(duration)));
            let (mut now, mut admitted) = (0_i64, 0_u64);
            for wait in waits {
                now += wait;
                admitted += u64::from(pass(&bucket, measure, now));
                let leaked = now.unsigned_abs() * limit / duration;
                prop_assert!(admitted <= limit + leaked + 1);
            }
        }
    }

    #[test]
    fn threads_that_race_are_let_in_no_more_often_than_the_limit() {
        let (bucket, measure) = (bucket(), measure(3, Pace::Daily));
        let admitted = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    if bucket.reserve(measure, 1000, 1).is_ok() {
                        admitted.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 3);
    }
}
