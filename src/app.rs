//! The handles that everything above works with, built once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::alarm::Alarms;
use crate::config::live::Live;
use crate::exchange::Books;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::upstream::{Client, Connector};
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
    /// Logs.
    pub telemetry: Telemetry,
    /// When this process began to serve.
    pub started: SystemTime,
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
        Arc::new(Self {
            live,
            store,
            metrics,
            telemetry,
            started: SystemTime::now(),
            connector: Connector::new(CONNECT_LIMIT, roots),
        })
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
}

impl Core {
    /// A core without connections.
    #[must_use]
    pub fn new(app: Arc<App>, index: usize) -> Arc<Self> {
        let client = Client::new(app.connector.clone());
        let books = Arc::new(Books {
            writer: app.store.writer().clone(),
            metrics: Arc::clone(&app.metrics),
        });
        Arc::new(Self {
            app,
            books,
            client,
            alarms: Alarms::default(),
            index,
            ids: AtomicU64::new(seed()),
        })
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

    /// A number below `below`, for choices that may be guessed.
    #[must_use]
    pub fn random(&self, below: usize) -> usize {
        let step = self.ids.fetch_add(STEP, Ordering::Relaxed);
        let bits = mixed(step) % (below.max(1) as u64);
        usize::try_from(bits).unwrap_or(0)
    }
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
