//! How long a target rests after it failed, and who may try it first when the
//! rest is over.
//!
//! A deadline only ever moves outward while it stands. When it has passed the
//! target is half-open: one request may probe it, the others pass it over until
//! the probe is answered. What began before a rest began neither lengthens nor
//! ends it: a hundred requests that fail together are one failure, and a stream
//! that was answering all the while says nothing about the refusal of new ones.
//!
//! Times are milliseconds on the caller's clock. Nothing here knows what a
//! failure is.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The shortest rest that a provider can ask for.
const SHORTEST: Duration = Duration::from_secs(1);
/// Most letters that are kept of a failure's message.
const MESSAGE: usize = 500;

/// How a target may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As ever.
    Fit,
    /// Not before that time.
    Cooling {
        /// When the rest is over.
        until: i64,
    },
    /// By one request, to see whether it works again.
    HalfOpen,
}

/// What came of the wish to use a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It may be used.
    Open,
    /// It may be used, as the one probe; say what came of it.
    Probe,
    /// It rests until then.
    Closed {
        /// When the rest is over.
        until: i64,
    },
    /// Somebody else is probing it.
    Probed,
}

/// How rests grow: the n-th failure in a row rests `initial` times 2 to the n,
/// at most `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// After the first failure.
    pub initial: Duration,
    /// At most.
    pub longest: Duration,
}

impl Growth {
    /// The rest after so many failures before this one.
    #[must_use]
    pub fn rest(&self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        self.initial
            .checked_mul(factor)
            .map_or(self.longest, |rest| rest.min(self.longest))
    }
}

/// A failure that gives a target a rest.
#[derive(Debug, Clone)]
pub struct Fault<'a> {
    /// When the attempt began.
    pub began: i64,
    /// Whether the attempt was the probe.
    pub probe: bool,
    /// The rest that the provider itself asked for.
    pub asked: Option<Duration>,
    /// Whether the target only said that it had too much to do.
    pub limited: bool,
    /// What happened, for people.
    pub message: &'a str,
}

/// A rest, as it is shown and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// When it is over.
    pub until: i64,
    /// Failures in a row that led to it.
    pub failures: u32,
    /// Whether the target only said that it had too much to do.
    pub limited: bool,
    /// The last failure.
    pub message: Box<str>,
}

/// The state of one target. Asking whether it is fit takes no lock.
#[derive(Debug, Default)]
pub struct Cooldown {
    /// 0 when fit; else when the rest is over.
    until: AtomicI64,
    /// As in the state, to be read without the lock.
    failures: AtomicU32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    began: i64,
    probing: bool,
    limited: bool,
    message: Box<str>,
}

impl Cooldown {
    /// How the target may be used at `now`.
    #[must_use]
    pub fn health(&self, now: i64) -> Health {
        match self.until.load(Ordering::Acquire) {
            0 => Health::Fit,
            until if until > now => Health::Cooling { until },
            _ => Health::HalfOpen,
        }
    }

    /// Asks to use the target. Whoever gets [`Entry::Probe`] has to end it by
    /// [`fail`](Self::fail), [`open`](Self::open) or [`abandon`](Self::abandon).
    pub fn enter(&self, now: i64) -> Entry {
        if self.until.load(Ordering::Acquire) == 0 {
            return Entry::Open;
        }
        let mut state = self.state.lock();
        match self.until.load(Ordering::Acquire) {
            0 => Entry::Open,
            until if until > now => Entry::Closed { until },
            _ if state.probing => Entry::Probed,
            _ => {
                state.probing = true;
                Entry::Probe
            }
        }
    }

    /// An attempt failed. Returns the rest that follows, if this failure made
    /// it begin or last longer.
    pub fn fail(&self, now: i64, growth: &Growth, fault: &Fault<'_>) -> Option<Rest> {
        let mut state = self.state.lock();
        let until = self.until.load(Ordering::Acquire);
        let known = until != 0 && !fault.probe && fault.began <= state.began;
        let asked = fault.asked.map(|rest| rest.max(SHORTEST));
        let failures = self.failures.load(Ordering::Relaxed);
        let rest = match asked {
            Some(rest) => rest,
            None if known => return None,
            None => growth.rest(failures),
        };
        if fault.probe {
            state.probing = false;
        }
        let rest = i64::try_from(rest.as_millis()).unwrap_or(i64::MAX);
        let wanted = now.saturating_add(rest);
        if known && wanted <= until {
            return None;
        }
        if !known {
            state.began = now;
            self.failures
                .store(failures.saturating_add(1), Ordering::Relaxed);
        }
        state.limited = fault.limited;
        state.message = fault.message.chars().take(MESSAGE).collect();
        self.until.store(until.max(wanted), Ordering::Release);
        drop(state);
        self.rest()
    }

    /// The target began to answer: if that was the probe, all may use it
    /// again. Its failures are forgotten only by [`succeed`](Self::succeed).
    pub fn open(&self, probe: bool) {
        if !probe {
            return;
        }
        let mut state = self.state.lock();
        state.probing = false;
        self.until.store(0, Ordering::Release);
    }

    /// An answer that began at `began` came to its end. Returns whether there
    /// was something to forget.
    pub fn succeed(&self, began: i64) -> bool {
        let healthy = self.failures.load(Ordering::Relaxed) == 0;
        if healthy && self.until.load(Ordering::Acquire) == 0 {
            return false;
        }
        let state = self.state.lock();
        if began <= state.began {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Release);
        true
    }

    /// A probe that was not answered, through no fault of the target: another
    /// may probe.
    pub fn abandon(&self) {
        self.state.lock().probing = false;
    }

    /// Ends the rest by hand. Returns whether there was one.
    pub fn clear(&self) -> bool {
        let _state = self.state.lock();
        self.failures.store(0, Ordering::Relaxed);
        self.until.swap(0, Ordering::AcqRel) != 0
    }

    /// Takes up a rest from before the program was started.
    pub fn restore(&self, rest: &Rest, now: i64) {
        let mut state = self.state.lock();
        state.began = now;
        state.limited = rest.limited;
        state.message.clone_from(&rest.message);
        self.failures.store(rest.failures, Ordering::Relaxed);
        let until = self.until.load(Ordering::Acquire).max(rest.until);
        self.until.store(until, Ordering::Release);
    }

    /// The rest that stands, over or not.
    #[must_use]
    pub fn rest(&self) -> Option<Rest> {
        let state = self.state.lock();
        let until = self.until.load(Ordering::Acquire);
        (until != 0).then(|| Rest {
            until,
            failures: self.failures.load(Ordering::Relaxed),
            limited: state.limited,
            message: state.message.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROWTH: Growth = Growth {
        initial: Duration::from_secs(6),
        longest: Duration::from_secs(20),
    };

    fn fault(began: i64) -> Fault<'static> {
        Fault {
            began,
            probe: false,
            asked: None,
            limited: false,
            message: "broken",
        }
    }

    fn asking(began: i64, seconds: u64) -> Fault<'static> {
        Fault {
            asked: Some(Duration::from_secs(seconds)),
            ..fault(began)
        }
    }

    #[test]
    fn rests_double_up_to_the_longest() {
        let rests: Vec<u64> = [0, 1, 2, 3, 31, 32, 4_000_000_000]
            .map(|failures| GROWTH.rest(failures).as_secs())
            .into();
        assert_eq!(rests, [6, 12, 20, 20, 20, 20, 20]);
    }

    #[test]
    fn a_failure_closes_the_target_and_the_time_opens_it_for_one_probe() {
        let cooldown = Cooldown::default();
        assert_eq!(cooldown.enter(0), Entry::Open);
        assert_eq!(
            cooldown.fail(10, &GROWTH, &fault(5)).unwrap().until,
            10 + 6000
        );
        assert_eq!(cooldown.enter(6009), Entry::Closed { until: 6010 });
        assert_eq!(cooldown.health(6010), Health::HalfOpen);
        assert_eq!(cooldown.enter(6010), Entry::Probe);
        assert_eq!(cooldown.enter(6010), Entry::Probed);
        cooldown.abandon();
        assert_eq!(cooldown.enter(6011), Entry::Probe);
        let probe = Fault {
            probe: true,
            ..fault(6011)
        };
        let rest = cooldown.fail(6020, &GROWTH, &probe).unwrap();
        assert_eq!((rest.until, rest.failures), (18_020, 2));
        assert_eq!(cooldown.enter(18_020), Entry::Probe);
        cooldown.open(true);
        assert_eq!(cooldown.enter(18_021), Entry::Open);
        assert!(cooldown.succeed(18_020));
        assert_eq!(cooldown.health(18_021), Health::Fit);
        assert!(!cooldown.succeed(18_022), "nothing is left to forget");
    }

    #[test]
    fn a_probe_that_breaks_off_after_it_began_to_answer_still_counts_as_another_failure() {
        let cooldown = Cooldown::default();
        cooldown.fail(10, &GROWTH, &fault(5));
        assert_eq!(cooldown.enter(6010), Entry::Probe);
        cooldown.open(true);
        let rest = cooldown.fail(7000, &GROWTH, &fault(6010)).unwrap();
        assert_eq!((rest.until, rest.failures), (19_000, 2));
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let cooldown = Cooldown::default();
        assert!(cooldown.fail(100, &GROWTH, &fault(0)).is_some());
        for began in 0..=100 {
            assert_eq!(cooldown.fail(200, &GROWTH, &fault(began)), None);
        }
        assert_eq!(cooldown.rest().unwrap().failures, 1);
    }

    #[test]
    fn what_the_provider_asks_for_wins_and_is_never_shortened() {
        let cooldown = Cooldown::default();
        assert_eq!(
            cooldown.fail(0, &GROWTH, &asking(-1, 30)).unwrap().until,
            30_000
        );
        assert_eq!(cooldown.fail(1, &GROWTH, &asking(-1, 3)), None);
        assert_eq!(cooldown.fail(1, &GROWTH, &fault(-1)), None);
        assert_eq!(
            cooldown.fail(2, &GROWTH, &asking(-1, 40)).unwrap().until,
            40_002
        );
        assert_eq!(cooldown.rest().unwrap().failures, 1);
    }

    #[test]
    fn an_answer_from_before_the_rest_does_not_end_it() {
        let cooldown = Cooldown::default();
        cooldown.fail(50, &GROWTH, &asking(40, 30));
        assert!(!cooldown.succeed(10));
        assert_eq!(cooldown.health(60), Health::Cooling { until: 30_050 });
        assert!(cooldown.clear());
        assert!(!cooldown.clear());
        assert_eq!(cooldown.health(60), Health::Fit);
    }

    #[test]
    fn a_rest_survives_a_restart() {
        let cooldown = Cooldown::default();
        let rest = cooldown.fail(50, &GROWTH, &fault(40)).unwrap();
        let after = Cooldown::default();
        after.restore(&rest, 60);
        assert_eq!(after.rest(), Some(rest));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Wait(i64),
        Enter,
        Fail(usize, Option<u64>),
        Open(usize),
        Succeed(usize),
        Abandon(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let which = 0..64_usize;
        prop_oneof![
            1 => (1..20_000_i64).prop_map(Step::Wait),
            3 => Just(Step::Enter),
            1 => (which.clone(), proptest::option::of(0..60_u64)).prop_map(|(i, s)| Step::Fail(i, s)),
            1 => which.clone().prop_map(Step::Open),
            1 => which.clone().prop_map(Step::Succeed),
            1 => which.prop_map(Step::Abandon),
        ]
    }

    proptest! {
        #[test]
        fn deadlines_move_outward_and_there_is_one_probe_at_most(
            steps in proptest::collection::vec(step(), 0..200)
        ) {
            let cooldown = Cooldown::default();
            let mut now = 1_i64;
            let mut deadline = 0_i64;
            // Attempts under way: when they began, and whether they probe.
            let mut running: Vec<(i64, bool)> = Vec::new();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += ms,
                    Step::Enter => match cooldown.enter(now) {
                        Entry::Open => running.push((now, false)),
                        Entry::Probe => running.push((now, true)),
                        Entry::Closed { until } => prop_assert!(until > now),
                        Entry::Probed => prop_assert!(running.iter().any(|(_, probe)| *probe)),
                    },
                    Step::Fail(i, asked) if !running.is_empty() => {
                        let (began, probe) = running.swap_remove(i % running.len());
                        let fault = Fault {
                            probe,
                            asked: asked.map(Duration::from_secs),
                            ..fault(began)
                        };
                        cooldown.fail(now, &GROWTH, &fault);
                    }
                    Step::Open(i) if !running.is_empty() => {
                        let i = i % running.len();
                        if running[i].1 {
                            deadline = 0;
                        }
                        cooldown.open(running[i].1);
                        running[i].1 = false;
                    }
                    Step::Succeed(i) if !running.is_empty() => {
                        let (began, probe) = running.swap_remove(i % running.len());
                        cooldown.open(probe);
                        if cooldown.succeed(began) || probe {
                            deadline = 0;
                        }
                    }
                    Step::Abandon(i) if !running.is_empty() => {
                        let (_, probe) = running.swap_remove(i % running.len());
                        if probe {
                            cooldown.abandon();
                        }
                    }
                    _ => {}
                }
                let stands = cooldown.rest().map_or(0, |rest| rest.until);
                prop_assert!(stands >= deadline, "{stands} < {deadline}");
                deadline = stands;
                prop_assert!(running.iter().filter(|(_, probe)| *probe).count() <= 1);
            }
        }
    }
}
