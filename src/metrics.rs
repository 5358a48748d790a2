//! The Prometheus registry: totals added up from finished requests, live
//! gauges, and the text page that shows both.
//!
//! Totals are added by the store's writer thread, never by a thread that
//! serves. Gauges are atomics that each thread keeps a part of. Names come
//! from the configuration where they can; what a client can invent is capped.
//!
//! This file must not know HTTP, rows or SQL.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use parking_lot::Mutex;

use crate::money::Nanos;

/// Most label sets of one family; the rest is counted under `other`.
pub const SERIES_LIMIT: usize = 1000;

/// The label that stands for everything over [`SERIES_LIMIT`].
pub const OTHER: &str = "other";

/// What one finished request adds to the totals. Times are milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation<'a> {
    /// When the request began, milliseconds since the epoch.
    pub start_ms: i64,
    /// The key's name.
    pub key: Option<&'a str>,
    /// The part of the key that the client named.
    pub attribution: Option<&'a str>,
    /// The provider that answered, or the last one tried.
    pub provider: Option<&'a str>,
    /// The alias's own id; `None` when the name meant nothing.
    pub alias: Option<&'a str>,
    /// Whether it counts as an error.
    pub failed: bool,
    /// Whether the answer was streamed.
    pub streamed: bool,
    /// From the request's arrival to the answer's end.
    pub duration_ms: f64,
    /// From the request's arrival to the first token.
    pub ttft_ms: Option<f64>,
    /// Input tokens that touched no cache.
    pub input: u64,
    /// Output tokens without reasoning.
    pub output: u64,
    /// Reasoning tokens.
    pub reasoning: u64,
    /// Input tokens read from a cache.
    pub cached: u64,
    /// Input tokens written to a cache.
    pub cache_write: u64,
    /// What it cost, as far as is known.
    pub cost: Nanos,
}

/// Sums over requests. Times are microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests, however they ended.
    pub requests: u64,
    /// Those that failed.
    pub errors: u64,
    /// Input tokens that touched no cache.
    pub input: u64,
    /// Output tokens without reasoning.
    pub output: u64,
    /// Reasoning tokens.
    pub reasoning: u64,
    /// Input tokens read from a cache.
    pub cached: u64,
    /// Input tokens written to a cache.
    pub cache_write: u64,
    /// Durations added up.
    pub duration_us: u64,
    /// Costs added up, as far as they are known.
    pub cost: Nanos,
    ttft_us: u64,
    ttft_count: u64,
    generated: u64,
    generation_us: u64,
}

impl Figures {
    fn add(&mut self, seen: &Observation<'_>) {
        let duration_us = micros(seen.duration_ms);
        self.requests += 1;
        self.errors += u64::from(seen.failed);
        self.input = self.input.saturating_add(seen.input);
        self.output = self.output.saturating_add(seen.output);
        self.reasoning = self.reasoning.saturating_add(seen.reasoning);
        self.cached = self.cached.saturating_add(seen.cached);
        self.cache_write = self.cache_write.saturating_add(seen.cache_write);
        self.duration_us = self.duration_us.saturating_add(duration_us);
        self.cost = self.cost.plus(seen.cost);
        if let Some(ttft) = seen.ttft_ms {
            self.ttft_us = self.ttft_us.saturating_add(micros(ttft));
            self.ttft_count += 1;
        }
        let generated = seen.output.saturating_add(seen.reasoning);
        let waited = if seen.streamed {
            seen.ttft_ms
        } else {
            Some(0.0)
        };
        if let (Some(waited), true) = (waited, generated > 0) {
            self.generated = self.generated.saturating_add(generated);
            let generation = duration_us.saturating_sub(micros(waited));
            self.generation_us = self.generation_us.saturating_add(generation);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.input = self.input.saturating_add(other.input);
        self.output = self.output.saturating_add(other.output);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
        self.cached = self.cached.saturating_add(other.cached);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
        self.cost = self.cost.plus(other.cost);
    }

    const fn tokens(&self) -> u64 {
        self.input
            .saturating_add(self.output)
            .saturating_add(self.reasoning)
            .saturating_add(self.cached)
            .saturating_add(self.cache_write)
    }
}

/// The registry. One per process, shared.
pub struct Metrics {
    totals: Mutex<Totals>,
    zone: TimeZone,
    in_flight: ArcSwap<Gauges>,
    adding: Mutex<()>,
    unauthorized: AtomicU64,
    connections: AtomicI64,
    rows_dropped: AtomicU64,
    rows_failed: AtomicU64,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry at zero, whose days begin at the machine's midnight.
    #[must_use]
    pub fn new() -> Self {
        Self::with_zone(TimeZone::system())
    }

    /// A registry at zero, whose days begin at midnight in `zone`.
    #[must_use]
    pub fn with_zone(zone: TimeZone) -> Self {
        Self {
            totals: Mutex::new(Totals::default()),
            zone,
            in_flight: ArcSwap::from_pointee(Gauges::default()),
            adding: Mutex::new(()),
            unauthorized: AtomicU64::new(0),
            connections: AtomicI64::new(0),
            rows_dropped: AtomicU64::new(0),
            rows_failed: AtomicU64::new(0),
        }
    }

    /// Adds one finished request. Called by the writer thread for each row
    /// that it takes, stored or not.
    pub fn observe<'a>(&self, row: impl Into<Observation<'a>>) {
        let seen = row.into();
        let mut totals = self.totals.lock();
        if seen.start_ms >= totals.day.1 {
            totals.day = self.day(seen.start_ms);
            totals.today = Figures::default();
        }
        totals.add(&seen);
    }

    /// Adds what was kept of the current day before this process started, so
    /// that a restart does not empty the day's figures.
    pub fn seed_today(&self, now_ms: i64, kept: &Figures) {
        let mut totals = self.totals.lock();
        if now_ms >= totals.day.1 {
            totals.day = self.day(now_ms);
            totals.today = Figures::default();
        }
        totals.today.merge(kept);
    }

    /// The midnight before `now_ms`, milliseconds since the epoch.
    #[must_use]
    pub fn midnight_ms(&self, now_ms: i64) -> i64 {
        self.day(now_ms).0
    }

    /// Counts a request to that provider and model as running until the guard
    /// is dropped.
    pub fn in_flight(&self, provider: &Arc<str>, model: &Arc<str>) -> InFlightGuard {
        let shard = shard();
        let known = self.in_flight.load();
        let gauge = match known.find(provider, model) {
            Some(gauge) => Arc::clone(&gauge.0[shard]),
            None => self.add_gauge(provider, model, shard),
        };
        gauge.0.fetch_add(1, Ordering::Relaxed);
        InFlightGuard { part: gauge }
    }

    /// The requests running now, by provider and model; those without any are
    /// left out.
    #[must_use]
    pub fn running(&self) -> Vec<(Arc<str>, Arc<str>, i64)> {
        let known = self.in_flight.load();
        let providers = known.by_provider.iter();
        let all = providers.flat_map(|(provider, models)| {
            let models = models.iter();
            models
                .map(move |(model, gauge)| (Arc::clone(provider), Arc::clone(model), gauge.value()))
        });
        let mut running: Vec<_> = all.filter(|(_, _, count)| *count > 0).collect();
        running.sort();
        running
    }

    /// Counts a client connection as open until the guard is dropped.
    #[must_use]
    pub fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard {
            metrics: Arc::clone(self),
        }
    }

    /// Counts a request refused for its credential.
    pub fn unauthorized(&self) {
        self.unauthorized.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a row that found the writer's queue full.
    pub fn row_dropped(&self) {
        self.rows_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts rows that the database refused one by one.
    pub fn rows_failed(&self, count: u64) {
        self.rows_failed.fetch_add(count, Ordering::Relaxed);
    }

    /// Rows dropped since start because the writer's queue was full.
    #[must_use]
    pub fn rows_dropped(&self) -> u64 {
        self.rows_dropped.load(Ordering::Relaxed)
    }

    /// The page: `text/plain; version=0.0.4`, families separated by blank
    /// lines. `now_ms` decides which day is today.
    #[must_use]
    pub fn render(&self, now_ms: i64) -> String {
        let mut page = Page::default();
        {
            let totals = self.totals.lock();
            let today = if (totals.day.0..totals.day.1).contains(&now_ms) {
                totals.today
            } else {
                Figures::default()
            };
            page.columns("plexus_", TOTAL, &[(Vec::new(), &totals.all)]);
            page.single(
                "plexus_active_time_ms",
                "Milliseconds in which at least one request was under way.",
                "counter",
                totals.active.milliseconds(),
            );
            page.columns("plexus_", TODAY, &[(Vec::new(), &today)]);
            page.columns(
                "plexus_provider_",
                PROVIDER,
                &totals.providers.rows("provider"),
            );
            page.columns(
                "plexus_model_alias_",
                ALIAS,
                &totals.aliases.rows("model_alias"),
            );
            page.columns("plexus_api_key_", KEY, &totals.keys.rows("api_key"));
            let attributed = totals.attributed();
            page.columns("plexus_api_key_attribution_", ATTRIBUTION, &attributed);
        }
        self.render_gauges(&mut page);
        page.text
    }

    fn render_gauges(&self, page: &mut Page) {
        let known = self.in_flight.load();
        page.family(
            "plexus_in_flight_requests",
            "Requests running now, by provider.",
            "gauge",
        );
        for (provider, models) in known.sorted() {
            let running: i64 = models.iter().map(|(_, gauge)| gauge.value()).sum();
            page.sample(&[("provider", provider)], float(running));
        }
        page.family(
            "plexus_in_flight_requests_by_model",
            "Requests running now, by provider and model.",
            "gauge",
        );
        for (provider, models) in known.sorted() {
            for (model, gauge) in models {
                page.sample(
                    &[("provider", provider), ("model", model)],
                    float(gauge.value()),
                );
            }
        }
        let open = self.connections.load(Ordering::Relaxed);
        page.single(
            "plexus_connections_open",
            "Client connections open now.",
            "gauge",
            open,
        );
        let counters = [
            (
                "plexus_unauthorized_total",
                "Requests refused for their credential.",
                &self.unauthorized,
            ),
            (
                "plexus_rows_dropped_total",
                "Log rows dropped because the writer's queue was full.",
                &self.rows_dropped,
            ),
            (
                "plexus_rows_failed_total",
                "Log rows that the database refused.",
                &self.rows_failed,
            ),
        ];
        for (name, help, counter) in counters {
            let count = counter.load(Ordering::Relaxed);
            page.single(
                name,
                help,
                "counter",
                i64::try_from(count).unwrap_or(i64::MAX),
            );
        }
    }

    /// The first and the last-but-one millisecond of the day around `now_ms`.
    fn day(&self, now_ms: i64) -> (i64, i64) {
        const DAY: i64 = 86_400_000;
        let local = || {
            let now = Timestamp::from_millisecond(now_ms).ok()?;
            let zoned = now.to_zoned(self.zone.clone());
            let from = zoned.start_of_day().ok()?;
            let to = from.tomorrow().ok()?.start_of_day().ok()?;
            let bounds = (
                from.timestamp().as_millisecond(),
                to.timestamp().as_millisecond(),
            );
            (bounds.0 <= now_ms && now_ms < bounds.1).then_some(bounds)
        };
        local().unwrap_or_else(|| {
            let from = now_ms.div_euclid(DAY).saturating_mul(DAY);
            (from, from.saturating_add(DAY))
        })
    }

    #[cold]
    fn add_gauge(&self, provider: &Arc<str>, model: &Arc<str>, shard: usize) -> Arc<Part> {
        let _adding = self.adding.lock();
        let known = self.in_flight.load();
        let other: Arc<str> = Arc::from(OTHER);
        let (provider, model) = if known.count < SERIES_LIMIT {
            (provider, model)
        } else {
            (&other, &other)
        };
        if let Some(gauge) = known.find(provider, model) {
            return Arc::clone(&gauge.0[shard]);
        }
        let mut grown = Gauges::clone(&known);
        let gauge = Gauge::default();
        let part = Arc::clone(&gauge.0[shard]);
        let models = grown.by_provider.entry(Arc::clone(provider)).or_default();
        models.insert(Arc::clone(model), gauge);
        grown.count += 1;
        self.in_flight.store(Arc::new(grown));
        part
    }
}

/// A request that is running; dropping it ends the count.
#[derive(Debug)]
#[must_use = "dropping the guard ends the count"]
pub struct InFlightGuard {
    part: Arc<Part>,
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.part.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client connection that is open; dropping it ends the count.
#[derive(Debug)]
pub struct ConnectionGuard {
    metrics: Arc<Metrics>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The time in which at least one request was under way, added up from
/// finished requests in whatever order they come.
#[derive(Default)]
struct Active {
    /// Stretches that do not touch, oldest first: milliseconds, ends excluded.
    stretches: VecDeque<(i64, i64)>,
    /// Milliseconds of the stretches that are no longer kept, and the end of
    /// the last of them.
    before: (i64, i64),
}

impl Active {
    /// Stretches kept. A request that began before the oldest of them counts
    /// from its end on.
    const KEPT: usize = 1024;

    fn add(&mut self, from: i64, to: i64) {
        let mut from = if self.stretches.len() < Self::KEPT {
            from
        } else {
            from.max(self.before.1)
        };
        let mut to = to.max(from);
        let mut place = self.stretches.len();
        while let Some((begin, end)) = place.checked_sub(1).and_then(|i| self.stretches.get(i)) {
            if *begin > to {
                place -= 1;
            } else if *end >= from {
                from = from.min(*begin);
                to = to.max(*end);
                place -= 1;
                self.stretches.remove(place);
            } else {
                break;
            }
        }
        self.stretches.insert(place, (from, to));
        if self.stretches.len() > Self::KEPT
            && let Some((begin, end)) = self.stretches.pop_front()
        {
            self.before = (self.before.0 + end - begin, end);
        }
    }

    fn milliseconds(&self) -> i64 {
        let kept: i64 = self.stretches.iter().map(|(from, to)| to - from).sum();
        self.before.0 + kept
    }
}

#[derive(Default)]
struct Totals {
    all: Figures,
    active: Active,
    today: Figures,
    /// First millisecond of today and of tomorrow.
    day: (i64, i64),
    providers: Series,
    aliases: Series,
    keys: Series,
    attributions: HashMap<Box<str>, HashMap<Box<str>, Figures, RandomState>, RandomState>,
    attribution_count: usize,
}

impl Totals {
    fn add(&mut self, seen: &Observation<'_>) {
        self.all.add(seen);
        let duration = (seen.duration_ms.round() as i64).max(0);
        self.active
            .add(seen.start_ms, seen.start_ms.saturating_add(duration));
        if seen.start_ms >= self.day.0 {
            self.today.add(seen);
        }
        if let Some(provider) = seen.provider {
            self.providers.entry(provider).add(seen);
        }
        if let Some(alias) = seen.alias {
            self.aliases.entry(alias).add(seen);
        }
        if let Some(key) = seen.key {
            self.keys.entry(key).add(seen);
            if let Some(attribution) = seen.attribution {
                self.attribution(key, attribution).add(seen);
            }
        }
    }

    fn attribution(&mut self, key: &str, attribution: &str) -> &mut Figures {
        let known = self
            .attributions
            .get(key)
            .is_some_and(|of_key| of_key.contains_key(attribution));
        let (key, attribution) = if known || self.attribution_count < SERIES_LIMIT {
            (key, attribution)
        } else {
            (OTHER, OTHER)
        };
        let of_key = self.attributions.entry(key.into()).or_default();
        if !of_key.contains_key(attribution) {
            self.attribution_count += 1;
        }
        of_key.entry(attribution.into()).or_default()
    }

    fn attributed(&self) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(self.attribution_count);
        for (key, of_key) in &self.attributions {
            for (attribution, figures) in of_key {
                let labels = vec![("api_key", &**key), ("attribution", &**attribution)];
                rows.push((labels, figures));
            }
        }
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

/// Figures by one label.
#[derive(Default)]
struct Series(HashMap<Box<str>, Figures, RandomState>);

impl Series {
    fn entry(&mut self, name: &str) -> &mut Figures {
        // Known names, the usual case, cost no allocation.
        let known = self.0.contains_key(name);
        let name = if known || self.0.len() < SERIES_LIMIT {
            name
        } else {
            OTHER
        };
        if !known {
            self.0.entry(name.into()).or_default();
        }
        #[expect(clippy::expect_used, reason = "inserted just above, if not known")]
        self.0.get_mut(name).expect("the name was inserted")
    }

    fn rows(&self, label: &'static str) -> Vec<Row<'_>> {
        let mut rows: Vec<Row<'_>> = self
            .0
            .iter()
            .map(|(name, figures)| (vec![(label, &**name)], figures))
            .collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

/// A label set and its figures.
type Row<'a> = (Vec<(&'static str, &'a str)>, &'a Figures);

/// One family of a scope: the end of its name, its help, its type, its value.
type Column = (&'static str, &'static str, &'static str, Value);

#[derive(Clone, Copy)]
enum Value {
    One(fn(&Figures) -> f64),
    /// One sample for each kind of token, labelled `type`.
    Tokens,
}

const REQUESTS: Column = (
    "requests_total",
    "Requests, however they ended.",
    "counter",
    Value::One(|f| count(f.requests)),
);
const ERRORS: Column = (
    "errors_total",
    "Requests that failed: error, timeout, stall or quota_exceeded.",
    "counter",
    Value::One(|f| count(f.errors)),
);
const TOKENS: Column = ("tokens_total", "Tokens by type.", "counter", Value::Tokens);
const TOKEN_SUM: Column = (
    "tokens_total",
    "Tokens of all types.",
    "counter",
    Value::One(|f| count(f.tokens())),
);
const DURATION: Column = (
    "duration_ms_total",
    "Durations of requests added up, milliseconds.",
    "counter",
    Value::One(|f| millis(f.duration_us)),
);

const COST: Column = (
    "cost_usd_total",
    "What requests cost, US dollars, as far as it is known.",
    "counter",
    Value::One(|f| f.cost.dollars()),
);

const ENERGY: Column = (
    "energy_kwh_total",
    "Energy of requests, kWh. It is not estimated and stays 0.",
    "counter",
    Value::One(|_| 0.0),
);

const TOTAL: &[Column] = &[
    REQUESTS,
    ERRORS,
    TOKENS,
    ENERGY,
    DURATION,
    (
        "avg_duration_ms",
        "Mean duration of a request, milliseconds.",
        "gauge",
        Value::One(|f| ratio(millis(f.duration_us), f.requests)),
    ),
];
const TODAY: &[Column] = &[
    (
        "requests_today",
        "Requests since midnight, however they ended.",
        "gauge",
        Value::One(|f| count(f.requests)),
    ),
    (
        "errors_today",
        "Requests that failed since midnight.",
        "gauge",
        Value::One(|f| count(f.errors)),
    ),
    (
        "tokens_today",
        "Tokens since midnight by type.",
        "gauge",
        Value::Tokens,
    ),
    (
        "cost_today_usd",
        "What requests cost since midnight, US dollars.",
        "gauge",
        Value::One(|f| f.cost.dollars()),
    ),
    (
        "energy_kwh_today",
        "Energy of requests since midnight, kWh. It is not estimated and stays 0.",
        "gauge",
        Value::One(|_| 0.0),
    ),
    (
        "duration_ms_today",
        "Durations of requests since midnight added up, milliseconds.",
        "gauge",
        Value::One(|f| millis(f.duration_us)),
    ),
];
const PROVIDER: &[Column] = &[
    REQUESTS,
    ERRORS,
    TOKENS,
    COST,
    (
        "avg_latency_ms",
        "Mean duration of a request, milliseconds.",
        "gauge",
        Value::One(|f| ratio(millis(f.duration_us), f.requests)),
    ),
    (
        "avg_ttft_ms",
        "Mean time to the first token, milliseconds.",
        "gauge",
        Value::One(|f| ratio(millis(f.ttft_us), f.ttft_count)),
    ),
    (
        "avg_tokens_per_sec",
        "Output and reasoning tokens per second of generation.",
        "gauge",
        Value::One(|f| {
            if f.generation_us == 0 {
                0.0
            } else {
                count(f.generated) * 1_000_000.0 / count(f.generation_us)
            }
        }),
    ),
    ENERGY,
    DURATION,
];
const ALIAS: &[Column] = &[REQUESTS, TOKEN_SUM, ENERGY, DURATION];
const KEY: &[Column] = &[REQUESTS, TOKEN_SUM];
const ATTRIBUTION: &[Column] = &[REQUESTS, TOKEN_SUM, COST, ERRORS];

/// A kind of token and how many of it there are.
type TokenType = (&'static str, fn(&Figures) -> u64);

const TOKEN_TYPES: [TokenType; 5] = [
    ("input", |f| f.input),
    ("output", |f| f.output),
    ("cached", |f| f.cached),
    ("cache_write", |f| f.cache_write),
    ("reasoning", |f| f.reasoning),
];

/// The text under construction.
#[derive(Default)]
struct Page {
    text: String,
    name: String,
}

impl Page {
    fn columns(&mut self, prefix: &str, columns: &[Column], rows: &[Row<'_>]) {
        for (suffix, help, kind, value) in columns {
            self.family(&format!("{prefix}{suffix}"), help, kind);
            for (labels, figures) in rows {
                match value {
                    Value::One(of) => self.sample(labels, of(figures)),
                    Value::Tokens => self.tokens(labels, figures),
                }
            }
        }
    }

    fn tokens(&mut self, labels: &[(&str, &str)], figures: &Figures) {
        for (kind, of) in TOKEN_TYPES {
            let mut labels = labels.to_vec();
            labels.push(("type", kind));
            self.sample(&labels, count(of(figures)));
        }
    }

    fn single(&mut self, name: &str, help: &str, kind: &str, value: i64) {
        self.family(name, help, kind);
        self.sample(&[], float(value));
    }

    fn family(&mut self, name: &str, help: &str, kind: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        name.clone_into(&mut self.name);
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(&self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        self.put(format_args!(" {value}\n"));
    }

    fn put(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _written = self.text.write_fmt(text);
    }
}

/// Running requests by provider and model. Replaced whole when a pair is seen
/// for the first time, so that looking one up takes no lock.
#[derive(Clone, Default)]
struct Gauges {
    by_provider: HashMap<Arc<str>, HashMap<Arc<str>, Gauge>>,
    count: usize,
}

impl Gauges {
    fn find(&self, provider: &str, model: &str) -> Option<&Gauge> {
        self.by_provider.get(provider)?.get(model)
    }

    fn sorted(&self) -> Vec<(&str, Vec<(&str, &Gauge)>)> {
        let mut providers: Vec<_> = self
            .by_provider
            .iter()
            .map(|(provider, models)| {
                let mut models: Vec<_> = models.iter().map(|(m, g)| (&**m, g)).collect();
                models.sort_by_key(|(model, _)| *model);
                (&**provider, models)
            })
            .collect();
        providers.sort_by_key(|(provider, _)| *provider);
        providers
    }
}

/// A number kept in parts, so that cores that count at the same time do not
/// pass one cache line around. Each part has its own reference count for the
/// same reason.
#[derive(Clone, Default)]
struct Gauge([Arc<Part>; PARTS]);

impl Gauge {
    /// The sum; a part may be below zero when a guard was dropped on another
    /// thread, the sum never is at rest.
    fn value(&self) -> i64 {
        let sum: i64 = self
            .0
            .iter()
            .map(|part| part.0.load(Ordering::Relaxed))
            .sum();
        sum.max(0)
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Part(AtomicI64);

const PARTS: usize = 8;

fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % PARTS);
        }
        mine.get()
    })
}

/// Milliseconds to whole microseconds; nonsense is zero.
fn micros(ms: f64) -> u64 {
    // A float-to-integer cast saturates, and NaN becomes zero.
    (ms * 1000.0).round() as u64
}

fn millis(us: u64) -> f64 {
    count(us) / 1000.0
}

fn count(value: u64) -> f64 {
    value as f64
}

fn float(value: i64) -> f64 {
    value as f64
}

fn ratio(sum: f64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { sum / count(of) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_197_600_000 - 1_795_197_600_000 % 86_400_000 + 43_200_000;

    fn utc() -> Metrics {
        Metrics::with_zone(TimeZone::UTC)
    }

    fn seen() -> Observation<'static> {
        Observation {
            start_ms: NOON,
            key: Some("team"),
            provider: Some("p"),
            alias: Some("a"),
            streamed: true,
            duration_ms: 1500.0,
            ttft_ms: Some(500.0),
            input: 90,
            output: 20,
            reasoning: 5,
            cached: 10,
            ..Observation::default()
        }
    }

    fn has(page: &str, line: &str) {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }

    #[test]
    fn totals_add_up_per_scope() {
        let metrics = utc();
        metrics.observe(seen());
        metrics.observe(Observation {
            failed: true,
            attribution: Some("ci"),
            ..seen()
        });
        let page = metrics.render(NOON);
        has(&page, "plexus_requests_total 2");
        has(&page, "plexus_errors_total 1");
        has(&page, "plexus_tokens_total{type=\"input\"} 180");
        has(&page, "plexus_duration_ms_total 3000");
        has(&page, "plexus_avg_duration_ms 1500");
        has(
            &page,
            "plexus_provider_tokens_total{provider=\"p\",type=\"cached\"} 20",
        );
        has(&page, "plexus_provider_avg_ttft_ms{provider=\"p\"} 500");
        has(
            &page,
            "plexus_provider_avg_tokens_per_sec{provider=\"p\"} 25",
        );
        has(
            &page,
            "plexus_model_alias_tokens_total{model_alias=\"a\"} 250",
        );
        has(&page, "plexus_api_key_requests_total{api_key=\"team\"} 2");
        has(
            &page,
            "plexus_api_key_attribution_errors_total{api_key=\"team\",attribution=\"ci\"} 1",
        );
    }

    #[test]
    fn active_time_is_that_of_requests_laid_over_one_another() {
        let mut active = Active::default();
        for (from, to, sum) in [
            (10, 20, 10),
            (30, 40, 20),
            (32, 38, 20),
            (15, 25, 25),
            (50, 50, 25),
            (0, 60, 60),
            (60, 61, 61),
            (-5, -2, 64),
        ] {
            active.add(from, to);
            assert_eq!(active.milliseconds(), sum, "{from}..{to}");
        }
        for i in 0..3000 {
            active.add(1000 + i * 10, 1001 + i * 10);
        }
        assert_eq!(active.milliseconds(), 3064);
        assert_eq!(active.stretches.len(), Active::KEPT);
    }

    #[test]
    fn every_family_has_help_and_type_and_a_blank_line_before_it() {
        let metrics = utc();
        metrics.observe(seen());
        let page = metrics.render(NOON);
        for family in page.split("\n\n") {
            let mut lines = family.lines();
            let help = lines.next().unwrap();
            let name = help
                .strip_prefix("# HELP ")
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            assert!(
                lines
                    .next()
                    .unwrap()
                    .starts_with(&format!("# TYPE {name} "))
            );
            for sample in lines {
                let rest = sample.strip_prefix(name).unwrap();
                assert!(rest.starts_with(['{', ' ']), "{sample}");
            }
        }
    }

    #[test]
    fn today_ends_at_midnight_and_yesterdays_rows_do_not_count() {
        let metrics = utc();
        metrics.observe(seen());
        has(&metrics.render(NOON), "plexus_requests_today 1");
        has(
            &metrics.render(NOON + 43_200_000),
            "plexus_requests_today 0",
        );
        metrics.observe(Observation {
            start_ms: NOON + 43_200_000,
            ..seen()
        });
        metrics.observe(seen());
        let page = metrics.render(NOON + 43_200_001);
        has(&page, "plexus_requests_today 1");
        has(&page, "plexus_requests_total 3");
    }

    #[test]
    fn a_day_begins_at_the_zones_midnight() {
        let metrics = Metrics::with_zone(TimeZone::fixed(jiff::tz::offset(2)));
        assert_eq!(metrics.midnight_ms(NOON), NOON - 14 * 3_600_000);
    }

    #[test]
    fn seeded_figures_count_for_today_only() {
        let metrics = utc();
        let kept = Figures {
            requests: 7,
            input: 3,
            ..Figures::default()
        };
        metrics.seed_today(NOON, &kept);
        metrics.observe(seen());
        let page = metrics.render(NOON);
        has(&page, "plexus_requests_today 8");
        has(&page, "plexus_tokens_today{type=\"input\"} 93");
        has(&page, "plexus_requests_total 1");
    }

    #[test]
    fn invented_attributions_end_up_under_other() {
        let metrics = utc();
        for i in 0..SERIES_LIMIT + 5 {
            let name = format!("job-{i}");
            metrics.observe(Observation {
                attribution: Some(&name),
                ..seen()
            });
        }
        let page = metrics.render(NOON);
        has(
            &page,
            "plexus_api_key_attribution_requests_total{api_key=\"other\",attribution=\"other\"} 5",
        );
        let of_family = page
            .lines()
            .filter(|l| l.starts_with("plexus_api_key_attribution_requests_total{"));
        assert_eq!(of_family.count(), SERIES_LIMIT + 1);
    }

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        let metrics = utc();
        metrics.observe(Observation {
            key: Some("a\"b\\c\nd"),
            ..seen()
        });
        let page = metrics.render(NOON);
        has(
            &page,
            "plexus_api_key_requests_total{api_key=\"a\\\"b\\\\c\\nd\"} 1",
        );
    }

    #[test]
    fn running_requests_are_counted_until_their_guard_is_dropped_on_any_thread() {
        let metrics = utc();
        let (provider, model): (Arc<str>, Arc<str>) = ("p".into(), "m".into());
        let first = metrics.in_flight(&provider, &model);
        let second = metrics.in_flight(&provider, &"n".into());
        let page = metrics.render(NOON);
        has(&page, "plexus_in_flight_requests{provider=\"p\"} 2");
        has(
            &page,
            "plexus_in_flight_requests_by_model{provider=\"p\",model=\"m\"} 1",
        );
        std::thread::spawn(move || drop(first)).join().unwrap();
        drop(second);
        has(
            &metrics.render(NOON),
            "plexus_in_flight_requests{provider=\"p\"} 0",
        );
    }

    #[test]
    fn running_requests_of_too_many_models_are_counted_under_other() {
        let metrics = utc();
        let guards: Vec<_> = (0..SERIES_LIMIT + 3)
            .map(|i| metrics.in_flight(&"p".into(), &format!("m{i}").into()))
            .collect();
        let page = metrics.render(NOON);
        has(&page, "plexus_in_flight_requests{provider=\"other\"} 3");
        assert_eq!(guards.len(), SERIES_LIMIT + 3);
    }

    #[test]
    fn connections_and_refusals_are_counted() {
        let metrics = Arc::new(utc());
        let open = metrics.connection();
        metrics.unauthorized();
        has(&metrics.render(NOON), "plexus_connections_open 1");
        drop(open);
        let page = metrics.render(NOON);
        has(&page, "plexus_connections_open 0");
        has(&page, "plexus_unauthorized_total 1");
    }
}
