//! What the simulated provider remembers: the last requests, how each ended,
//! what it counted, and the tokens that it served.
//!
//! Bounded everywhere: requests, the bytes of their bodies, names of models.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;

use super::answer::Usage;
use super::connection::Link;

/// Requests kept.
const REQUESTS: usize = 512;
/// Bytes of bodies kept.
const BODY_BYTES: usize = 16 * 1024 * 1024;
/// Model names told apart.
const NAMES: usize = 4096;
/// Where the tokens of all further names are counted.
const OTHERS: &str = "(others)";

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Position among the recorded requests, from 0.
    pub number: u64,
    /// The connection it came over, counted from 1.
    pub connection: u64,
    /// When its head was read.
    pub at: SystemTime,
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// Names (in lower case) and values, in the order of first appearance.
    pub headers: Vec<(String, String)>,
    /// The body; `None` when it did not arrive in full or had to make room.
    pub body: Option<Bytes>,
    /// Bytes of the body.
    pub body_length: u64,
    /// SHA-256 of the body in hexadecimal; empty until it arrived.
    pub body_sha256: String,
    /// How the exchange ended.
    pub outcome: Outcome,
}

/// How an exchange ended, seen from the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not.
    Open,
    /// The whole answer was handed to the connection.
    Finished(Extent),
    /// The client left.
    Left(Extent),
    /// The provider cut the connection, as it was told to.
    Cut(Extent),
}

/// How far an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the body that were handed to the connection.
    pub bytes: u64,
    /// Time since the head of the request.
    pub after: Duration,
}

/// Counters, read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections accepted since the start.
    pub connections_accepted: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Requests not yet answered in full.
    pub in_flight: u64,
    /// Requests whose client left before the end.
    pub cancelled: u64,
    /// Tokens of answers that were finished, by model name.
    pub served: BTreeMap<String, Served>,
}

/// Tokens served under one model name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Answers finished.
    pub answers: u64,
    /// All input tokens.
    pub tokens_in: u64,
    /// All output tokens.
    pub tokens_out: u64,
    /// Input tokens read from a cache.
    pub cached: u64,
    /// Input tokens written to a cache.
    pub cache_write: u64,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: u64,
}

/// One line of the ledger.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Served>);

impl Tally {
    fn add(&self, usage: &Usage) {
        let mut served = self.0.lock();
        served.answers += 1;
        served.tokens_in = served.tokens_in.saturating_add(usage.input);
        served.tokens_out = served.tokens_out.saturating_add(usage.output);
        served.cached = served.cached.saturating_add(usage.cached);
        served.cache_write = served.cache_write.saturating_add(usage.cache_write);
        served.reasoning_tokens = served.reasoning_tokens.saturating_add(usage.reasoning);
    }
}

/// Everything that is remembered.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) connections_accepted: AtomicU64,
    pub(super) connections_open: AtomicU64,
    requests: AtomicU64,
    in_flight: AtomicU64,
    cancelled: AtomicU64,
    ring: Mutex<Ring>,
    tallies: Mutex<BTreeMap<String, Arc<Tally>>>,
    faults: Mutex<HashMap<String, u64>>,
}

#[derive(Debug, Default)]
struct Ring {
    requests: VecDeque<Recorded>,
    next: u64,
    body_bytes: usize,
}

impl Journal {
    /// The requests still kept, oldest first.
    pub(super) fn recorded(&self) -> Vec<Recorded> {
        self.ring.lock().requests.iter().cloned().collect()
    }

    /// Forgets the requests, and how often each model name misbehaved.
    pub(super) fn clear(&self) {
        let mut ring = self.ring.lock();
        ring.requests.clear();
        ring.body_bytes = 0;
        self.faults.lock().clear();
    }

    /// All counters.
    pub(super) fn stats(&self) -> Stats {
        let tallies = self.tallies.lock();
        Stats {
            connections_accepted: self.connections_accepted.load(Relaxed),
            connections_open: self.connections_open.load(Relaxed),
            requests: self.requests.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            served: tallies
                .iter()
                .map(|(name, tally)| (name.clone(), *tally.0.lock()))
                .filter(|(_, served)| served.answers > 0)
                .collect(),
        }
    }

    /// The line of the ledger for a model name.
    pub(super) fn tally(&self, name: &str) -> Arc<Tally> {
        let mut tallies = self.tallies.lock();
        if let Some(tally) = tallies.get(name) {
            return tally.clone();
        }
        let name = if tallies.len() < NAMES { name } else { OTHERS };
        tallies.entry(name.to_owned()).or_default().clone()
    }

    /// Whether a name that misbehaves `times` times still has one to go.
    pub(super) fn misbehaves(&self, name: &str, times: u64) -> bool {
        let mut faults = self.faults.lock();
        if faults.len() >= NAMES && !faults.contains_key(name) {
            faults.clear();
        }
        let count = faults.entry(name.to_owned()).or_default();
        *count += 1;
        *count <= times
    }

    fn add(&self, mut recorded: Recorded) -> u64 {
        let mut ring = self.ring.lock();
        let number = ring.next;
        ring.next += 1;
        recorded.number = number;
        if ring.requests.len() == REQUESTS
            && let Some(oldest) = ring.requests.pop_front()
        {
            ring.body_bytes -= oldest.body.map_or(0, |body| body.len());
        }
        ring.requests.push_back(recorded);
        number
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Ring, usize)) {
        let mut ring = self.ring.lock();
        let first = ring.requests.front().map_or(u64::MAX, |first| first.number);
        let index = number.checked_sub(first).map(usize::try_from);
        if let Some(Ok(index)) = index
            && index < ring.requests.len()
        {
            change(&mut ring, index);
        }
    }
}

impl Ring {
    /// Gives a request its body and drops the oldest bodies to make room.
    fn attach(&mut self, index: usize, body: &Bytes) {
        if body.len() > BODY_BYTES {
            return;
        }
        self.requests[index].body = Some(Bytes::copy_from_slice(body));
        self.body_bytes += body.len();
        for request in &mut self.requests {
            if self.body_bytes <= BODY_BYTES {
                break;
            }
            self.body_bytes -= request.body.take().map_or(0, |body| body.len());
        }
    }
}

/// One request in progress. Dropping it writes down how it ended.
#[derive(Debug)]
pub(super) struct Exchange {
    journal: Arc<Journal>,
    link: Arc<Link>,
    entry: Option<(u64, Instant)>,
    /// Number of the request, from 0.
    pub(super) number: u64,
    /// Bytes of the body handed over.
    pub(super) sent: u64,
    /// All of the answer was handed over.
    pub(super) finished: bool,
    /// What to add to the ledger when the answer is finished.
    pub(super) bill: Option<(Arc<Tally>, Usage)>,
}

impl Exchange {
    /// A request whose head was read.
    pub(super) fn begin<B>(
        journal: Arc<Journal>,
        link: Arc<Link>,
        request: &http::Request<B>,
        record: bool,
    ) -> Self {
        let number = journal.requests.fetch_add(1, Relaxed);
        journal.in_flight.fetch_add(1, Relaxed);
        let entry = record.then(|| {
            let entry = journal.add(recorded(request, link.number));
            (entry, Instant::now())
        });
        Self {
            journal,
            link,
            entry,
            number,
            sent: 0,
            finished: false,
            bill: None,
        }
    }

    /// The connection.
    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The body of the request arrived in full.
    pub(super) fn received(&self, body: &Bytes) {
        let Some((number, _)) = self.entry else {
            return;
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, body);
        let hexadecimal: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.journal.change(number, |ring, index| {
            ring.requests[index].body_length = body.len() as u64;
            ring.requests[index].body_sha256 = hexadecimal;
            ring.attach(index, body);
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.journal.in_flight.fetch_sub(1, Relaxed);
        let cut = self.link.is_cut();
        if self.finished {
            if let Some((tally, usage)) = &self.bill {
                tally.add(usage);
            }
        } else if !cut {
            self.journal.cancelled.fetch_add(1, Relaxed);
        }
        let Some((number, began)) = self.entry else {
            return;
        };
        let extent = Extent {
            bytes: self.sent,
            after: began.elapsed(),
        };
        let outcome = match (self.finished, cut) {
            (true, _) => Outcome::Finished(extent),
            (false, true) => Outcome::Cut(extent),
            (false, false) => Outcome::Left(extent),
        };
        self.journal
            .change(number, |ring, index| ring.requests[index].outcome = outcome);
    }
}

fn recorded<B>(request: &http::Request<B>, connection: u64) -> Recorded {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Recorded {
        number: 0,
        connection,
        at: SystemTime::now(),
        method: request.method().to_string(),
        target: request
            .uri()
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        version: format!("{:?}", request.version()),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: None,
        body_length: 0,
        body_sha256: String::new(),
        outcome: Outcome::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(journal: &Arc<Journal>, body: usize) -> Exchange {
        let request = http::Request::new(());
        let link = Arc::new(Link::new(1));
        let exchange = Exchange::begin(journal.clone(), link, &request, true);
        exchange.received(&vec![7; body].into());
        exchange
    }

    #[test]
    fn the_ring_keeps_the_last_requests() {
        let journal = Arc::new(Journal::default());
        for _ in 0..REQUESTS + 3 {
            exchange(&journal, 1).finished = true;
        }
        let recorded = journal.recorded();
        assert_eq!(recorded.len(), REQUESTS);
        assert_eq!(recorded[0].number, 3);
        assert!(matches!(recorded[0].outcome, Outcome::Finished(_)));
        assert_eq!(journal.ring.lock().body_bytes, REQUESTS);
    }

    #[test]
    fn older_bodies_make_room_for_newer_ones() {
        let journal = Arc::new(Journal::default());
        let third = BODY_BYTES / 3 + 1;
        let open: Vec<_> = (0..3).map(|_| exchange(&journal, third)).collect();
        let held: Vec<_> = journal
            .recorded()
            .iter()
            .map(|recorded| recorded.body.is_some())
            .collect();
        assert_eq!(held, [false, true, true]);
        assert_eq!(journal.recorded()[0].body_length, third as u64);
        drop(open);
        assert_eq!(journal.stats().cancelled, 3);
        assert_eq!(journal.stats().in_flight, 0);
    }

    #[test]
    fn an_exchange_that_outlives_its_record_harms_nobody() {
        let journal = Arc::new(Journal::default());
        let old = exchange(&journal, 1);
        journal.clear();
        let new = exchange(&journal, 1);
        drop(old);
        assert_eq!(journal.recorded()[0].outcome, Outcome::Open);
        drop(new);
        assert!(matches!(journal.recorded()[0].outcome, Outcome::Left(_)));
    }

    #[test]
    fn a_name_misbehaves_as_often_as_it_was_told_to() {
        let journal = Journal::default();
        let told: Vec<_> = (0..3).map(|_| journal.misbehaves("m", 2)).collect();
        assert_eq!(told, [true, true, false]);
        journal.clear();
        assert!(journal.misbehaves("m", 2));
    }
}
