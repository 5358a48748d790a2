//! How a quota stands, in the units of those who are told.

use std::sync::Arc;

use super::bucket::Level;
use super::{NANOS, THOUSANDTHS};
use crate::config::{QuotaCounts, UserQuota};

/// How a quota stands.
#[derive(Debug, Clone)]
pub struct Told {
    /// As it is configured.
    pub quota: Arc<UserQuota>,
    /// How much is gone, in thousandths or nano-dollars.
    pub level: Level,
    /// When that was, in milliseconds since the epoch.
    pub at: i64,
}

impl Told {
    pub(super) fn new(quota: &Arc<UserQuota>, level: Level, at: i64) -> Self {
        Self {
            quota: Arc::clone(quota),
            level,
            at,
        }
    }

    /// A number of requests or tokens, rounded, or of dollars.
    fn number(&self, amount: u64) -> f64 {
        match self.quota.counts {
            QuotaCounts::Requests | QuotaCounts::Tokens => {
                (amount.saturating_add(THOUSANDTHS / 2) / THOUSANDTHS) as f64
            }
            QuotaCounts::Cost => amount as f64 / NANOS,
        }
    }

    /// What is settled.
    #[must_use]
    pub fn used(&self) -> f64 {
        self.number(self.level.used)
    }

    /// What is reserved for requests under way.
    #[must_use]
    pub fn reserved(&self) -> f64 {
        self.number(self.level.reserved)
    }

    /// Settled and reserved.
    #[must_use]
    pub fn taken(&self) -> f64 {
        self.number(self.level.used.saturating_add(self.level.reserved))
    }

    /// How much there is.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.quota.limit
    }

    /// What is left.
    #[must_use]
    pub fn remaining(&self) -> f64 {
        match self.quota.counts {
            // Rounded down: what is said to be left is there.
            QuotaCounts::Requests | QuotaCounts::Tokens => {
                (self.level.remaining() / THOUSANDTHS) as f64
            }
            QuotaCounts::Cost => self.number(self.level.remaining()),
        }
    }

    /// Whether a request of the least size would be let in.
    #[must_use]
    pub const fn allows(&self) -> bool {
        self.level.wait.is_none()
    }

    /// The part that is left, from 0 to 1.
    #[must_use]
    pub fn part_left(&self) -> f64 {
        self.level.remaining() as f64 / (self.level.limit as f64).max(1.0)
    }

    /// Whether so much is gone that answers carry a warning.
    #[must_use]
    pub fn warns(&self) -> bool {
        let gone = self.level.used.saturating_add(self.level.reserved) as f64;
        let part = gone / (self.level.limit as f64).max(1.0);
        self.quota.warn_at.is_some_and(|at| part >= at)
    }
}

/// Quotas that refuse a request; at least one.
#[derive(Debug, Clone)]
pub struct Exceeded {
    /// The one that refuses longest comes first.
    pub blocking: Vec<Told>,
}

impl Exceeded {
    pub(super) fn new(mut blocking: Vec<Told>) -> Option<Self> {
        blocking.sort_by_key(|told| std::cmp::Reverse(told.level.wait));
        (!blocking.is_empty()).then_some(Self { blocking })
    }

    /// Milliseconds until the request may pass; `None` when that depends on
    /// requests under way.
    #[must_use]
    pub fn wait(&self) -> Option<i64> {
        let waits = self.blocking.iter().filter_map(|told| told.level.wait);
        waits.max().filter(|wait| *wait > 0)
    }
}
