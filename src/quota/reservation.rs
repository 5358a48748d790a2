//! What a request holds of its key's quotas, from its admission to its end.

use std::sync::Arc;

use super::bucket::{Hold, Level};
use super::guess::{Estimate, Places, Prompt, Spent};
use super::told::{Exceeded, Told};
use super::{List, Rule};

/// A request's part of its key's quotas. Dropping it gives all back.
#[derive(Debug)]
#[must_use = "dropping the reservation gives it back"]
pub struct Reservation {
    list: Arc<List>,
    /// One for each rule; none where the rule doesn't cover the target.
    holds: Box<[Option<(Hold, Level)>]>,
    places: Places,
    prompt: Prompt,
    estimate: Estimate,
    at: i64,
}

impl Reservation {
    /// Admits a request for that alias: reserves what it is likely to take of
    /// every quota that covers all targets.
    ///
    /// # Errors
    ///
    /// The quotas that have no room for it.
    pub fn admit(
        list: Arc<List>,
        alias: &str,
        prompt: Prompt,
        now: i64,
    ) -> Result<Box<Self>, Exceeded> {
        let places = Places::of(&list.key, alias);
        let estimate = list.estimate(places, prompt);
        let mut reservation = Box::new(Self {
            holds: list.rules.iter().map(|_| None).collect(),
            list,
            places,
            prompt,
            estimate,
            at: now,
        });
        reservation.take(now, |rule| !rule.scoped)?;
        Ok(reservation)
    }

    /// A target is about to be tried: reserves what quotas that cover it ask
    /// for, and gives back what was held for another.
    ///
    /// # Errors
    ///
    /// The quotas that have no room for it; nothing is held for the target then.
    pub fn aim(&mut self, provider: &str, model: &str, now: i64) -> Result<(), Exceeded> {
        if self.list.rules.iter().all(|rule| !rule.scoped) {
            return Ok(());
        }
        self.release(|rule| !rule.covers(provider, model));
        let taken = self.take(now, |rule| rule.scoped && rule.covers(provider, model));
        if taken.is_err() {
            self.release(|rule| rule.scoped);
        }
        taken
    }

    /// How many tokens its prompt is likely to have, if one of the quotas counts
    /// tokens or money.
    #[must_use]
    pub fn input_tokens(&self) -> Option<u64> {
        self.list.measures.then_some(self.estimate.input)
    }

    fn take(&mut self, now: i64, wanted: impl Fn(&Rule) -> bool) -> Result<(), Exceeded> {
        let mut blocking = Vec::new();
        let Estimate { tokens, nanos, .. } = self.estimate;
        for (rule, hold) in self.list.rules.iter().zip(&mut self.holds) {
            if hold.is_some() || !wanted(rule) {
                continue;
            }
            let amount = rule.amount(1, tokens, nanos);
            match rule.bucket.reserve(rule.measure, amount, now) {
                Ok(held) => *hold = Some(held),
                Err(level) => blocking.push(rule.told(level, now)),
            }
        }
        Exceeded::new(blocking).map_or(Ok(()), Err)
    }

    fn release(&mut self, unwanted: impl Fn(&Rule) -> bool) {
        for (rule, hold) in self.list.rules.iter().zip(&mut self.holds) {
            if unwanted(rule)
                && let Some((hold, _)) = hold.take()
            {
                rule.bucket.give_back(hold);
            }
        }
    }

    /// The request was answered, and took that much.
    pub fn settle(&mut self, spent: Spent, now: i64) {
        if self.list.measures && spent.tokens() > 0 {
            self.list.guesses.learn(self.places, self.prompt, spent);
        }
        for (rule, hold) in self.list.rules.iter().zip(&mut self.holds) {
            if let Some((hold, _)) = hold.take() {
                let amount = rule.amount(1, spent.tokens(), spent.nanos);
                rule.bucket.settle(rule.measure, hold, amount, now);
            }
        }
    }

    /// Of the quotas that count this request the one with the least left, as it
    /// stood before.
    #[must_use]
    pub fn tightest(&self) -> Option<Told> {
        let held = self.list.rules.iter().zip(&self.holds);
        let told = held.filter_map(|(rule, hold)| {
            let (_, level) = hold.as_ref()?;
            Some(rule.told(*level, self.at))
        });
        told.min_by(|a, b| a.part_left().total_cmp(&b.part_left()))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release(|_| true);
    }
}
