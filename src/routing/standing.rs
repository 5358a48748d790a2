//! How each target and each provider stands: its rest, its measurements, its
//! permits. They outlive configurations; the table of a configuration points
//! at them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::cooldown::{Cooldown, Entry, Fault, Growth, Health, Rest};
use super::permit::{Permit, Permits, Reached, Ticket, Tickets};
use super::window::{Sample, Window};
use crate::config::Provider;

/// Most targets that are known at a time. Clients can name any model of a
/// provider, so that the names have to be bounded.
const MOST: usize = 8192;

/// A provider as a whole.
#[derive(Debug)]
pub struct House {
    /// Its id.
    pub id: Arc<str>,
    /// A rest of all its models.
    pub cooldown: Cooldown,
    /// Its requests under way, while it has a limit.
    pub permits: Arc<Permits>,
}

/// A target: a provider and a model of it.
#[derive(Debug)]
pub struct Standing {
    /// Tells it from all others of this run.
    pub number: u64,
    /// Its provider.
    pub house: Arc<House>,
    /// The model's name there.
    pub model: Arc<str>,
    /// Its rests.
    pub cooldown: Cooldown,
    /// Its measurements.
    pub window: Window,
    /// Its requests under way, while it has a limit.
    pub permits: Arc<Permits>,
    /// When it was last looked at without a client's request.
    pub probed: AtomicI64,
}

impl Standing {
    /// How it may be used at `now`, its provider's rest included.
    #[must_use]
    pub fn health(&self, now: i64) -> Health {
        match self.house.cooldown.health(now) {
            // A provider's rest ends by itself: any of its models may go first.
            Health::Fit | Health::HalfOpen => self.cooldown.health(now),
            cooling @ Health::Cooling { .. } => cooling,
        }
    }

    /// Whether its rest, or its provider's, began because it had too much to do.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        let limited = |cooldown: &Cooldown| cooldown.rest().is_some_and(|rest| rest.limited);
        limited(&self.house.cooldown) || limited(&self.cooldown)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Standings {
    houses: RwLock<HashMap<Arc<str>, Arc<House>>>,
    targets: RwLock<Targets>,
    tickets: Arc<Tickets>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Targets {
    by_provider: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Standing>>>,
    count: usize,
}

impl Targets {
    fn find(&self, provider: &str, model: &str) -> Option<&Arc<Standing>> {
        self.by_provider.get(provider)?.get(model)
    }

    /// Forgets what nobody points at and nothing is known of.
    fn prune(&mut self) {
        for models in self.by_provider.values_mut() {
            models.retain(|_, standing| {
                Arc::strong_count(standing) > 1 || standing.cooldown.rest().is_some()
            });
        }
        self.by_provider.retain(|_, models| !models.is_empty());
        self.count = self.by_provider.values().map(HashMap::len).sum();
    }
}

impl Standings {
    /// The provider of that id.
    pub fn house(&self, id: &Arc<str>) -> Arc<House> {
        if let Some(house) = self.houses.read().get(id) {
            return Arc::clone(house);
        }
        let fresh = || {
            Arc::new(House {
                id: Arc::clone(id),
                cooldown: Cooldown::default(),
                permits: Permits::new(&self.tickets),
            })
        };
        Arc::clone(
            self.houses
                .write()
                .entry(Arc::clone(id))
                .or_insert_with(fresh),
        )
    }

    /// The target of that provider and model. Over a bound it is one that is
    /// not remembered.
    pub fn of(&self, provider: &Arc<str>, model: &Arc<str>) -> Arc<Standing> {
        if let Some(standing) = self.targets.read().find(provider, model) {
            return Arc::clone(standing);
        }
        let house = self.house(provider);
        let mut targets = self.targets.write();
        if let Some(standing) = targets.find(provider, model) {
            return Arc::clone(standing);
        }
        let standing = Arc::new(Standing {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            house,
            model: Arc::clone(model),
            cooldown: Cooldown::default(),
            window: Window::default(),
            permits: Permits::new(&self.tickets),
            probed: AtomicI64::new(0),
        });
        if targets.count >= MOST {
            targets.prune();
        }
        if targets.count < MOST {
            targets.count += 1;
            let models = targets.by_provider.entry(Arc::clone(provider)).or_default();
            models.insert(Arc::clone(model), Arc::clone(&standing));
        }
        standing
    }

    /// Where those who wait for permits get their numbers.
    #[must_use]
    pub const fn tickets(&self) -> &Arc<Tickets> {
        &self.tickets
    }

    /// All targets, in no order.
    #[must_use]
    pub fn targets(&self) -> Vec<Arc<Standing>> {
        let targets = self.targets.read();
        let models = targets.by_provider.values();
        models.flat_map(HashMap::values).map(Arc::clone).collect()
    }

    /// All providers, in no order.
    #[must_use]
    pub fn houses(&self) -> Vec<Arc<House>> {
        self.houses.read().values().map(Arc::clone).collect()
    }
}

/// What the configuration says about using a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How rests grow.
    pub growth: Growth,
    /// Whether failures give it no rest.
    pub tireless: bool,
    /// Whether a stall gives it one.
    pub rests_after_stall: bool,
    /// Most requests under way to the provider.
    pub provider_limit: Option<u32>,
    /// Most requests under way to the target.
    pub target_limit: Option<u32>,
}

impl Rules {
    /// The rules of a provider, and of one of its models.
    #[must_use]
    pub fn of(
        cooldown: crate::config::Cooldown,
        provider: &Provider,
        target_limit: Option<u32>,
    ) -> Self {
        Self {
            growth: Growth {
                initial: cooldown.initial,
                longest: cooldown.longest,
            },
            tireless: provider.disable_cooldown,
            rests_after_stall: provider.stall.cooldown,
            provider_limit: provider.max_concurrency,
            target_limit,
        }
    }
}

/// Why a target is passed over.
#[derive(Debug, Clone)]
pub enum Pass {
    /// It rests.
    Cooling {
        /// Milliseconds until the rest is over.
        left_ms: i64,
        /// Whether it only said that it had too much to do.
        limited: bool,
    },
    /// Somebody else is finding out whether it works again.
    Probed,
    /// A limit on requests under way is reached.
    Full {
        /// Of the provider as a whole, or of the target.
        whole: bool,
        /// Which, and where to wait.
        reached: Reached,
    },
}

impl Pass {
    /// A limit is reached: the provider's as a whole, or the target's.
    #[must_use]
    pub fn full(permits: &Arc<Permits>, limit: u32, whole: bool) -> Self {
        let permits = Arc::clone(permits);
        let reached = Reached { permits, limit };
        Self::Full { whole, reached }
    }
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cooling { left_ms, .. } => {
                write!(f, "on cooldown for another {} s", (left_ms + 999) / 1000)
            }
            Self::Probed => f.write_str("on cooldown; another request is finding out if it works"),
            Self::Full { whole, reached } => {
                let whose = if *whole { "provider" } else { "target" };
                let limit = reached.limit;
                write!(f, "the {whose}'s {limit} concurrent requests are all taken")
            }
        }
    }
}

/// What changed about a target's rest and is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The provider.
    pub provider: Arc<str>,
    /// The model; empty is all of the provider's.
    pub model: Arc<str>,
    /// The rest; `None` when it is over and forgotten.
    pub rest: Option<Rest>,
}

/// How an attempt failed, as far as the target's rest goes.
#[derive(Debug, Clone, Copy)]
pub struct Blame<'a> {
    /// The rest that the provider itself asked for.
    pub asked: Option<Duration>,
    /// Whether it only said that it had too much to do.
    pub limited: bool,
    /// Whether it fell silent or crawled.
    pub stall: bool,
    /// What happened, for people.
    pub message: &'a str,
}

/// A target being tried. Whatever becomes of it, dropping the trial gives back
/// its permits, and lets somebody else probe.
#[derive(Debug)]
#[must_use = "dropping the trial ends it"]
pub struct Trial {
    standing: Arc<Standing>,
    rules: Rules,
    began: i64,
    probe: bool,
    permits: [Option<Permit>; 2],
}

impl Trial {
    /// Begins to try a target, if it may be tried at `now`.
    ///
    /// # Errors
    ///
    /// Why it is passed over.
    pub fn begin(standing: &Arc<Standing>, rules: Rules, now: i64) -> Result<Self, Pass> {
        Self::begin_in_turn(standing, rules, now, Ticket::NONE)
    }

    /// As [`begin`](Self::begin), for somebody who waited for a permit.
    ///
    /// # Errors
    ///
    /// Why it is passed over.
    pub fn begin_in_turn(
        standing: &Arc<Standing>,
        rules: Rules,
        now: i64,
        ticket: Ticket,
    ) -> Result<Self, Pass> {
        let house = &standing.house;
        if let Health::Cooling { until } = house.cooldown.health(now) {
            return Err(cooling(&house.cooldown, until, now));
        }
        let (whole, own) = (rules.provider_limit, rules.target_limit);
        // Looked at before any is taken: one that is taken and given back would
        // be told to those who wait, this one among them.
        room(&house.permits, whole, true, ticket)?;
        room(&standing.permits, own, false, ticket)?;
        let entry = if rules.tireless {
            Entry::Open
        } else {
            standing.cooldown.enter(now)
        };
        let probe = match entry {
            Entry::Open => false,
            Entry::Probe => true,
            Entry::Closed { until } => return Err(cooling(&standing.cooldown, until, now)),
            Entry::Probed => return Err(Pass::Probed),
        };
        let mut trial = Self {
            standing: Arc::clone(standing),
            rules,
            began: now,
            probe,
            permits: [None, None],
        };
        trial.permits[0] = permit(&house.permits, whole, true, ticket)?;
        trial.permits[1] = permit(&standing.permits, own, false, ticket)?;
        standing.window.used(now, 1);
        Ok(trial)
    }

    /// What is tried.
    #[must_use]
    pub const fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Whether this is the probe after a rest.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.probe
    }

    /// It began to answer: others may use it again.
    pub fn answering(&mut self) {
        self.standing.cooldown.open(self.probe);
        self.probe = false;
    }

    /// It failed. Without blame the fault was not the target's.
    pub fn failed(mut self, now: i64, blame: Option<Blame<'_>>) -> Option<Change> {
        let blame = blame?;
        self.standing.window.add(Sample::default(), now);
        if self.rules.tireless || (blame.stall && !self.rules.rests_after_stall) {
            return None;
        }
        let fault = Fault {
            began: self.began,
            probe: self.probe,
            asked: blame.asked,
            limited: blame.limited,
            message: blame.message,
        };
        let rest = self
            .standing
            .cooldown
            .fail(now, &self.rules.growth, &fault)?;
        self.probe = false;
        Some(self.change(Some(rest)))
    }

    /// It answered to the end.
    pub fn succeeded(mut self, now: i64, sample: Sample) -> Option<Change> {
        self.answering();
        self.standing.window.add(sample, now);
        self.standing
            .cooldown
            .succeed(self.began)
            .then(|| self.change(None))
    }

    fn change(&self, rest: Option<Rest>) -> Change {
        Change {
            provider: Arc::clone(&self.standing.house.id),
            model: Arc::clone(&self.standing.model),
            rest,
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.probe {
            self.standing.cooldown.abandon();
        }
        self.permits = [None, None];
    }
}

fn cooling(cooldown: &Cooldown, until: i64, now: i64) -> Pass {
    Pass::Cooling {
        left_ms: until.saturating_sub(now),
        limited: cooldown.rest().is_some_and(|rest| rest.limited),
    }
}

fn permit(
    permits: &Arc<Permits>,
    limit: Option<u32>,
    whole: bool,
    ticket: Ticket,
) -> Result<Option<Permit>, Pass> {
    let Some(limit) = limit else { return Ok(None) };
    match permits.take(limit, ticket) {
        Some(permit) => Ok(Some(permit)),
        None => Err(Pass::full(permits, limit, whole)),
    }
}

fn room(
    permits: &Arc<Permits>,
    limit: Option<u32>,
    whole: bool,
    ticket: Ticket,
) -> Result<(), Pass> {
    match limit {
        Some(limit) if !permits.would_give(limit, ticket) => Err(Pass::full(permits, limit, whole)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        growth: Growth {
            initial: Duration::from_secs(6),
            longest: Duration::from_secs(60),
        },
        tireless: false,
        rests_after_stall: false,
        provider_limit: Some(2),
        target_limit: Some(1),
    };

    const BLAME: Blame<'static> = Blame {
        asked: None,
        limited: false,
        stall: false,
        message: "broken",
    };

    #[test]
    fn a_trial_gives_everything_back_however_it_ends() {
        let standings = Standings::default();
        let target = standings.of(&"p".into(), &"m".into());
        let other = standings.of(&"p".into(), &"n".into());
        let first = Trial::begin(&target, RULES, 1).unwrap();
        let full = Trial::begin(&target, RULES, 1).unwrap_err();
        assert!(matches!(full, Pass::Full { whole: false, .. }));
        assert_eq!(target.house.permits.active(), 1, "the first is taken back");
        let second = Trial::begin(&other, RULES, 1).unwrap();
        assert!(matches!(
            Trial::begin(&other, RULES, 1).unwrap_err(),
            Pass::Full { whole: true, .. }
        ));
        drop(first);
        assert!(second.succeeded(5, Sample::default()).is_none());
        assert_eq!(target.house.permits.active(), 0);
        let third = Trial::begin(&target, RULES, 6).unwrap();
        let change = third.failed(7, Some(BLAME)).unwrap();
        assert_eq!(change.rest.unwrap().until, 6007);
        assert_eq!(target.permits.active(), 0);
        assert!(matches!(
            Trial::begin(&target, RULES, 8).unwrap_err(),
            Pass::Cooling { left_ms: 5999, .. }
        ));
        assert_eq!(target.house.permits.active(), 0);
        let probe = Trial::begin(&target, RULES, 6007).unwrap();
        assert!(probe.is_probe());
        drop(probe);
        assert!(Trial::begin(&target, RULES, 6008).unwrap().is_probe());
    }

    #[test]
    fn what_is_not_the_targets_fault_gives_it_no_rest() {
        let standings = Standings::default();
        let target = standings.of(&"p".into(), &"m".into());
        let fit = |now| target.health(now) == Health::Fit;
        assert!(
            Trial::begin(&target, RULES, 1)
                .unwrap()
                .failed(2, None)
                .is_none()
        );
        let stall = Blame {
            stall: true,
            ..BLAME
        };
        let trial = Trial::begin(&target, RULES, 3).unwrap();
        assert!(trial.failed(4, Some(stall)).is_none() && fit(5));
        let tireless = Rules {
            tireless: true,
            ..RULES
        };
        let trial = Trial::begin(&target, tireless, 6).unwrap();
        assert!(trial.failed(7, Some(BLAME)).is_none() && fit(8));
        let strict = Rules {
            rests_after_stall: true,
            ..RULES
        };
        let trial = Trial::begin(&target, strict, 9).unwrap();
        assert!(trial.failed(10, Some(stall)).is_some() && !fit(11));
    }

    #[test]
    fn a_providers_rest_is_that_of_all_its_models() {
        let standings = Standings::default();
        let target = standings.of(&"p".into(), &"m".into());
        let rest = Rest {
            until: 500,
            failures: 1,
            limited: true,
            message: "used up".into(),
        };
        target.house.cooldown.restore(&rest, 1);
        assert_eq!(target.health(2), Health::Cooling { until: 500 });
        assert!(matches!(
            Trial::begin(&target, RULES, 2).unwrap_err(),
            Pass::Cooling { limited: true, .. }
        ));
        assert_eq!(target.health(500), Health::Fit);
    }

    #[test]
    fn names_that_clients_invent_are_bounded() {
        let standings = Standings::default();
        let kept = standings.of(&"p".into(), &"kept".into());
        for i in 0..MOST * 2 {
            standings.of(&"p".into(), &format!("m{i}").into());
        }
        assert!(standings.targets().len() <= MOST);
        let again = standings.of(&"p".into(), &"kept".into());
        assert_eq!(again.number, kept.number);
    }
}
