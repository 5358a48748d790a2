//! Limits on keys: so many requests, tokens or dollars in so long.
//!
//! A request is admitted by reserving what it is likely to take, before
//! anything is sent; what it did take is settled when it ends, and what failed
//! costs nothing. So no number of requests at the same time gets past a limit.
//!
//! | file | what it owns |
//! |---|---|
//! | `window` | when a quota starts anew |
//! | `bucket` | what an owner used of a quota, and what is reserved |
//! | `guess` | what a request is likely to take |
//! | `prompt` | how much of a body is text |
//! | `reservation` | what a request holds, from its admission to its end |
//! | `told` | how a quota stands, for those who are told |
//!
//! Nothing here reads the database or waits: what was used before the start is
//! handed in, and the writer fetches what changed. The clock is handed in, as
//! milliseconds since the epoch. This folder must not know connections, nor
//! how a refusal looks in a protocol.

mod bucket;
mod guess;
mod prompt;
mod reservation;
mod told;
mod window;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config::{Config, Key, QuotaCounts, UserQuota, permits};
use crate::store::Writer;
use crate::store::row::{Habit, QuotaRow};
use bucket::{Bucket, Measure};
pub use bucket::{Level, SHARED};
use guess::Guesses;
pub use guess::{Estimate, Places, Prompt, Spent};
pub use prompt::text_bytes;
pub use reservation::Reservation;
pub use told::{Exceeded, Told};
pub use window::Pace;

/// Thousandths in a request or token.
const THOUSANDTHS: u64 = 1000;
/// Nano-dollars in a dollar.
const NANOS: f64 = 1e9;

/// All quotas of all keys, shared by all cores.
#[derive(Debug)]
pub struct Quotas {
    book: ArcSwap<Book>,
    /// Held while a book is worked out; buckets outlive configurations.
    buckets: Mutex<Buckets>,
    guesses: Arc<Guesses>,
    writer: Option<Writer>,
}

/// By quota, owner and kind: a quota that counts something else begins anew.
type Buckets = HashMap<(Arc<str>, Arc<str>, &'static str), Arc<Bucket>>;

/// The quotas of every key under one configuration.
#[derive(Debug)]
struct Book {
    revision: u64,
    lists: HashMap<Arc<str>, Arc<List>>,
}

/// The quotas of a key.
#[derive(Debug)]
pub struct List {
    key: Arc<str>,
    rules: Box<[Rule]>,
    /// Whether they are those of keys without quotas of their own.
    is_default: bool,
    /// Whether a request's size matters to one of them.
    measures: bool,
    guesses: Arc<Guesses>,
}

impl List {
    /// Whether a request's size matters: a quota counts tokens or money.
    #[must_use]
    pub const fn measures(&self) -> bool {
        self.measures
    }

    /// The key's quotas as they stand, for a request to no target in particular.
    #[must_use]
    pub fn told(&self, now: i64) -> Vec<Told> {
        let rules = self.rules.iter();
        rules
            .map(|rule| rule.told(rule.bucket.level(rule.measure, now), now))
            .collect()
    }

    /// Each quota as it stands for a request like that one, of which nothing is
    /// reserved: what does not allow it would refuse it where the rule covers the
    /// target.
    pub fn weighed(
        &self,
        alias: &str,
        prompt: Prompt,
        now: i64,
    ) -> impl Iterator<Item = (&Rule, Told)> {
        let Estimate { tokens, nanos, .. } = self.estimate(Places::of(&self.key, alias), prompt);
        self.rules.iter().map(move |rule| {
            let amount = rule.amount(1, tokens, nanos);
            let level = rule.bucket.level_for(rule.measure, amount, now);
            (rule, rule.told(level, now))
        })
    }

    /// What such a request is likely to take; nothing, where only requests count.
    fn estimate(&self, places: Places, prompt: Prompt) -> Estimate {
        if self.measures {
            return self.guesses.estimate(places, prompt);
        }
        Estimate {
            input: 0,
            tokens: 0,
            nanos: 0,
        }
    }

    /// Whether they come from `default_quotas`.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.is_default
    }

    /// The quota of that name.
    #[must_use]
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| &*rule.quota.name == name)
    }

    /// All of them.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }
}

/// A quota of a key.
#[derive(Debug)]
pub struct Rule {
    /// As it is configured.
    pub quota: Arc<UserQuota>,
    measure: Measure,
    bucket: Arc<Bucket>,
    /// Whether only some targets count.
    scoped: bool,
}

impl Rule {
    /// Whether requests to that target count.
    #[must_use]
    pub fn covers(&self, provider: &str, model: &str) -> bool {
        let quota = &self.quota;
        !self.scoped
            || (permits(
                &quota.allowed_providers,
                &quota.excluded_providers,
                provider,
            ) && permits(&quota.allowed_models, &quota.excluded_models, model))
    }

    /// Beginning of the window that holds `now`; none for one that leaks.
    #[must_use]
    pub fn window_start(&self, now: i64) -> Option<i64> {
        self.measure.pace.window(now).map(|(start, _)| start)
    }

    /// What is used at `now`, in thousandths or nano-dollars.
    #[must_use]
    pub fn used(&self, now: i64) -> u64 {
        self.bucket.used(self.measure, now)
    }

    /// Takes that much for what is used, in thousandths or nano-dollars. What is
    /// reserved stays so.
    pub fn set(&self, used: u64, now: i64) {
        self.bucket.set(self.measure, used, now);
    }

    /// What a request that took so much adds, in thousandths or nano-dollars.
    #[must_use]
    pub fn amount(&self, requests: u64, tokens: u64, nanos: u64) -> u64 {
        match self.quota.counts {
            QuotaCounts::Requests => requests.saturating_mul(THOUSANDTHS),
            QuotaCounts::Tokens => tokens.saturating_mul(THOUSANDTHS),
            QuotaCounts::Cost => nanos,
        }
    }

    fn told(&self, level: Level, now: i64) -> Told {
        Told::new(&self.quota, level, now)
    }
}

impl Quotas {
    /// The quotas of that configuration, with what was used before the start.
    /// Changes are handed to `writer`.
    #[must_use]
    pub fn new(config: &Config, rows: &[QuotaRow], writer: Option<Writer>) -> Self {
        let mut buckets = Buckets::new();
        for row in rows {
            let Some(kind) = KINDS.into_iter().find(|kind| *kind == row.kind) else {
                continue;
            };
            let bucket = Bucket::restored(row, kind, writer.clone());
            let place = (Arc::clone(&row.quota), Arc::clone(&row.owner), kind);
            buckets.insert(place, Arc::new(bucket));
        }
        let quotas = Self {
            book: ArcSwap::from_pointee(Book {
                revision: config.revision,
                lists: HashMap::new(),
            }),
            buckets: Mutex::new(buckets),
            guesses: Arc::default(),
            writer,
        };
        let book = quotas.book_of(config, &mut quotas.buckets.lock());
        quotas.book.store(Arc::new(book));
        quotas
    }

    /// Whether a quota counts tokens or money.
    #[must_use]
    pub fn measures(&self) -> bool {
        let book = self.book.load();
        book.lists.values().any(|list| list.measures)
    }

    /// Learns from what requests took before the start, oldest first: what is
    /// reserved for the first ones is then no more than for those before them.
    pub fn recall(&self, habits: &[Habit]) {
        for habit in habits {
            let places = Places::of(&habit.key, &habit.alias);
            self.guesses
                .recall(places, habit.output, habit.tokens, habit.nanos);
        }
    }

    /// What is used is what these rows say, and nothing else.
    pub fn take_over(&self, rows: &[QuotaRow]) {
        let mut buckets = self.buckets.lock();
        for ((quota, owner, kind), bucket) in &*buckets {
            let same =
                |row: &&QuotaRow| row.quota == *quota && row.owner == *owner && row.kind == *kind;
            bucket.take_over(rows.iter().find(same));
        }
        for row in rows {
            if let Some(kind) = KINDS.into_iter().find(|kind| *kind == row.kind) {
                let place = (Arc::clone(&row.quota), Arc::clone(&row.owner), kind);
                let writer = self.writer.clone();
                buckets
                    .entry(place)
                    .or_insert_with(|| Arc::new(Bucket::restored(row, kind, writer)));
            }
        }
    }

    /// The quotas of a key, if it has any.
    #[must_use]
    pub fn of(&self, config: &Config, key: &Key, now: i64) -> Option<Arc<List>> {
        if key.quotas.is_empty() && config.default_quotas.is_empty() {
            return None;
        }
        let book = self.book.load();
        if book.revision == config.revision {
            return book.lists.get(&key.name).map(Arc::clone);
        }
        self.renewed(config, now)
            .lists
            .get(&key.name)
            .map(Arc::clone)
    }

    /// The key's list of that name, in force.
    #[must_use]
    pub fn named(&self, config: &Config, name: &str, now: i64) -> Option<Arc<List>> {
        self.of(config, config.keys.get(name)?, now)
    }

    /// Works out the quotas of a configuration before a request has to.
    pub fn prepare(&self, config: &Config, now: i64) {
        if self.book.load().revision != config.revision {
            self.renewed(config, now);
        }
    }

    #[cold]
    fn renewed(&self, config: &Config, now: i64) -> Arc<Book> {
        let mut buckets = self.buckets.lock();
        let known = self.book.load_full();
        if known.revision == config.revision {
            return known;
        }
        let book = Arc::new(self.book_of(config, &mut buckets));
        // A request may still be at work on an older configuration.
        if config.revision > known.revision {
            self.book.store(Arc::clone(&book));
            drop(known);
            buckets.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !bucket.is_over(now));
        }
        book
    }

    fn book_of(&self, config: &Config, buckets: &mut Buckets) -> Book {
        let mut lists = HashMap::new();
        for key in config.keys.values() {
            let is_default = key.quotas.is_empty();
            let names = if is_default {
                &config.default_quotas
            } else {
                &key.quotas
            };
            let quotas = names
                .iter()
                .filter_map(|name| config.user_quotas.get(&**name));
            let rules: Box<[Rule]> = quotas.map(|quota| self.rule(quota, key, buckets)).collect();
            if rules.is_empty() {
                continue;
            }
            let counts = |rule: &Rule| rule.quota.counts;
            let measures = rules
                .iter()
                .any(|rule| counts(rule) != QuotaCounts::Requests);
            let list = List {
                key: Arc::clone(&key.name),
                rules,
                is_default,
                measures,
                guesses: Arc::clone(&self.guesses),
            };
            lists.insert(Arc::clone(&key.name), Arc::new(list));
        }
        Book {
            revision: config.revision,
            lists,
        }
    }

    fn rule(&self, quota: &Arc<UserQuota>, key: &Key, buckets: &mut Buckets) -> Rule {
        let owner = if quota.shared {
            SHARED.into()
        } else {
            Arc::clone(&key.name)
        };
        let measure = measure(quota);
        let kind = kind(quota.counts, measure.pace);
        let place = (Arc::clone(&quota.name), Arc::clone(&owner), kind);
        let bucket = buckets.entry(place).or_insert_with(|| {
            Arc::new(Bucket::new(&quota.name, &owner, kind, self.writer.clone()))
        });
        let lists = [
            &quota.allowed_models,
            &quota.excluded_models,
            &quota.allowed_providers,
            &quota.excluded_providers,
        ];
        Rule {
            quota: Arc::clone(quota),
            measure,
            bucket: Arc::clone(bucket),
            scoped: lists.iter().any(|list| !list.is_empty()),
        }
    }
}

fn measure(quota: &UserQuota) -> Measure {
    let (scale, least) = match quota.counts {
        QuotaCounts::Requests | QuotaCounts::Tokens => (THOUSANDTHS as f64, THOUSANDTHS),
        QuotaCounts::Cost => (NANOS, 1),
    };
    // A conversion that does not fit takes the nearest number.
    let limit = (quota.limit * scale).round() as u64;
    Measure {
        limit: limit.min(u64::MAX / 4),
        least,
        pace: Pace::of(quota),
    }
}

const KINDS: [&str; 12] = [
    "requests/rolling",
    "requests/daily",
    "requests/weekly",
    "requests/monthly",
    "tokens/rolling",
    "tokens/daily",
    "tokens/weekly",
    "tokens/monthly",
    "cost/rolling",
    "cost/daily",
    "cost/weekly",
    "cost/monthly",
];

const fn kind(counts: QuotaCounts, pace: Pace) -> &'static str {
    let first = match counts {
        QuotaCounts::Requests => 0,
        QuotaCounts::Tokens => 4,
        QuotaCounts::Cost => 8,
    };
    let second = match pace {
        Pace::Leak(_) | Pace::Aligned(_) => 0,
        Pace::Daily => 1,
        Pace::Weekly => 2,
        Pace::Monthly => 3,
    };
    KINDS[first + second]
}

#[cfg(test)]
mod tests;
