//! The handles that everything above works with, built once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::alarm::Alarms;
use crate::auth::Throttle;
use crate::capture::Switches;
use crate::catalogue::{Catalogues, Source};
use crate::config::live::Live;
use crate::exchange::Books;
use crate::metrics::Metrics;
use crate::quota::Quotas;
use crate::routing::Switchboard;
use crate::routing::dice::Dice;
use crate::sight::Descriptions;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::upstream::{Client, Connector, Learned};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

/// Time for a connection to a provider to come about, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What all cores share.
#[derive(Debug)]
pub struct App {
    /// The configuration in force.
    pub live: Live,
    /// The database.
    pub store: Store,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// How targets stand, and which are tried when.
    pub switchboard: Arc<Switchboard>,
    /// What keys used of their quotas.
    pub quotas: Quotas,
    /// Logs.
    pub telemetry: Telemetry,
    /// What providers refused, and what helped.
    pub learned: Learned,
    /// What others publish about models.
    pub catalogues: Catalogues,
    /// Who guessed at the admin key.
    pub throttle: Throttle,
    /// Whose requests are captured.
    pub captures: Arc<Switches>,
    /// What images show.
    pub descriptions: Descriptions,
    /// When this process began to serve.
    pub started: SystemTime,
    /// Where a restart is asked for.
    pub restart: Restart,
    connector: Connector,
}

impl App {
    /// Puts the handles together. `roots` are certificates that providers' may
    /// descend from, besides the usual ones.
    #[must_use]
    pub fn new(
        live: Live,
        store: Store,
        metrics: Arc<Metrics>,
        telemetry: Telemetry,
        roots: Vec<rustls::pki_types::CertificateDer<'static>>,
    ) -> Arc<Self> {
        let now = wall_ms();
        let switchboard = Arc::new(remembered(&live, &store, now));
        let quotas = used(&live, &store, now);
        let captures = Arc::new(Switches::new(live.load().logging.capture));
        let beside = live.load().store.path.with_file_name("catalogues");
        let catalogues = Catalogues::new(beside);
        Arc::new(Self {
            live,
            store,
            metrics,
            switchboard,
            quotas,
            telemetry,
            learned: Learned::default(),
            catalogues,
            throttle: Throttle::default(),
            captures,
            descriptions: Descriptions::default(),
            started: SystemTime::now(),
            restart: Restart::default(),
            connector: Connector::new(CONNECT_LIMIT, roots),
        })
    }
}

impl App {
    /// Fetches those catalogues, and prices requests by them from then on. Reads
    /// large documents: not for a thread that serves.
    pub async fn refresh_catalogues(
        &self,
        sources: &[Source],
    ) -> Vec<(Source, Result<usize, String>)> {
        let config = self.live.load();
        let told = self
            .catalogues
            .refresh_all(&self.connector, &config.catalogue, sources)
            .await;
        self.price_anew();
        told
    }

    /// Takes up those catalogues as an earlier process kept them. Reads files.
    pub fn recall_catalogues(&self, sources: &[Source]) {
        self.catalogues.recall(sources);
        self.price_anew();
    }

    fn price_anew(&self) {
        if let Some(prices) = self.catalogues.prices() {
            self.switchboard.priced(&self.live.load(), prices);
        }
    }

    /// What opens connections, for documents that no provider's request is for.
    #[must_use]
    pub const fn connector(&self) -> &Connector {
        &self.connector
    }
}

/// Where handlers ask for a restart, and whoever can bring it about waits.
#[derive(Debug, Default)]
pub struct Restart {
    possible: AtomicBool,
    asked: Notify,
}

impl Restart {
    /// Says that somebody waits, or no longer does.
    pub fn set_possible(&self, possible: bool) {
        self.possible.store(possible, Ordering::SeqCst);
    }

    /// Asks for it; false when nobody can bring it about, or it was asked for.
    #[must_use]
    pub fn ask(&self) -> bool {
        let possible = self.possible.swap(false, Ordering::SeqCst);
        if possible {
            self.asked.notify_one();
        }
        possible
    }

    /// Waits until it is asked for.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }
}

/// What one core has for itself: the shared handles and its own connections.
#[derive(Debug)]
pub struct Core {
    /// The shared handles.
    pub app: Arc<App>,
    /// Where it writes down what happened.
    pub books: Arc<Books>,
    /// This core's connections to the providers.
    pub client: Client,
    /// This core's time limits.
    pub alarms: Alarms,
    /// Its number, from 0.
    pub index: usize,
    ids: AtomicU64,
    /// Whether this core accepts no more.
    draining: watch::Sender<bool>,
}

impl Core {
    /// A core without connections.
    #[must_use]
    pub fn new(app: Arc<App>, index: usize) -> Arc<Self> {
        let client = Client::new(app.connector.clone());
        let books = Arc::new(Books {
            writer: app.store.writer().clone(),
            metrics: Arc::clone(&app.metrics),
            switchboard: Arc::clone(&app.switchboard),
            captures: Arc::clone(&app.captures),
        });
        Arc::new(Self {
            app,
            books,
            client,
            alarms: Alarms::default(),
            index,
            ids: AtomicU64::new(seed()),
            draining: watch::Sender::new(false),
        })
    }

    /// What would go on for ever ends now.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Ready as soon as what would go on for ever has to end.
    pub(crate) async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // It lives as long as the core.
        let _gone = draining.wait_for(|end| *end).await;
    }

    /// A fresh id for a request that arrived at `wall_ms`: a UUID of version 7.
    /// Its random part comes from a sequence of this core's own, because a
    /// generator that all cores share costs more than the rest of the answer's
    /// head; ids have to be unique, not secret.
    #[must_use]
    pub fn request_id(&self, wall_ms: i64) -> Uuid {
        let step = self.ids.fetch_add(STEP, Ordering::Relaxed);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&mixed(step).to_le_bytes());
        random[8..].copy_from_slice(&mixed(!step).to_le_bytes()[..2]);
        let ms = u64::try_from(wall_ms).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
    }

    /// Random numbers for one request, from this core's own sequence.
    #[must_use]
    pub fn dice(&self) -> Dice {
        Dice::new(self.ids.fetch_add(STEP, Ordering::Relaxed))
    }
}

/// A switchboard that knows what was kept from before the start. Without it
/// the gateway serves all the same.
fn remembered(live: &Live, store: &Store, now: i64) -> Switchboard {
    let switchboard = Switchboard::new(&live.load(), Instant::now(), now);
    match store.cooldowns(now) {
        Ok(rows) => rows.iter().for_each(|row| switchboard.rested(row, now)),
        Err(error) => tracing::warn!(%error, "cooldowns from before the start are lost"),
    }
    match store.measurements(now) {
        Ok(rows) => rows.iter().for_each(|row| switchboard.measured(row)),
        Err(error) => tracing::warn!(%error, "measurements from before the start are lost"),
    }
    switchboard
}

/// Quotas with what was used of them before the start. Not knowing it would give
/// every budget a second time; but not serving is no better.
fn used(live: &Live, store: &Store, now: i64) -> Quotas {
    let rows = store.quotas(now).unwrap_or_else(|error| {
        tracing::error!(%error, "what keys used of their quotas is not known; all begin anew");
        Vec::new()
    });
    let quotas = Quotas::new(&live.load(), &rows, Some(store.writer().clone()));
    if quotas.measures() {
        match store.habits(now) {
            Ok(habits) => quotas.recall(&habits),
            Err(error) => tracing::warn!(%error, "what requests usually take is learned anew"),
        }
    }
    quotas
}

fn wall_ms() -> i64 {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)
}

/// The constants of SplitMix64 (Steele, Lea, Flood, 2014).
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// Different for every core and every start.
fn seed() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high ^ low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_spreads_neighbours_over_all_bits() {
        let mut seen = std::collections::HashSet::new();
        let mut state = 1_u64;
        for _ in 0..100_000 {
            state = state.wrapping_add(STEP);
            assert!(seen.insert(mixed(state)));
        }
        let ones: u32 = seen.iter().map(|value| value.count_ones()).sum();
        assert!((3_150_000..3_250_000).contains(&ones), "{ones}");
    }
}
