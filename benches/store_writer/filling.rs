//! A store filled with rows as fast as it takes them, and what that cost.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plexus::protocol::Protocol;
use plexus::store::row::{Status, Tokens, UsageRow};
use plexus::store::{Store, StoreError};
use uuid::Uuid;

/// What filling a store cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    pub(crate) rows: u32,
    /// Rows that the queue had no room for.
    pub(crate) dropped: u64,
    took: Duration,
    handing_over: Duration,
    writer: Option<Duration>,
}

impl Filled {
    pub(crate) fn rows_per_second(&self) -> f64 {
        f64::from(self.rows) / self.took.as_secs_f64()
    }

    /// In the thread that hands a row over.
    pub(crate) fn handing_over_ns(&self) -> f64 {
        self.handing_over.as_secs_f64() * 1e9 / f64::from(self.rows)
    }

    /// In the writer's thread, for each row, where `/proc` tells it.
    pub(crate) fn writer_us(&self) -> Option<f64> {
        let spent = self.writer?.as_secs_f64();
        Some(spent * 1e6 / f64::from(self.rows))
    }
}

/// Sends rows and waits until the last is written.
pub(crate) fn fill(store: &Store, rows: u32) -> Result<Filled, StoreError> {
    let names = Names::new();
    let cpu_before = writer_cpu();
    let began = Instant::now();
    let mut handing_over = Duration::ZERO;
    let mut sent = 0;
    while sent < rows {
        let chunk = 1_000.min(rows - sent);
        let prepared: Vec<Box<UsageRow>> = (0..chunk).map(|i| names.row(sent + i)).collect();
        let before = Instant::now();
        for row in prepared {
            store.writer().usage(row);
        }
        handing_over += before.elapsed();
        sent += chunk;
        while store.writer().waiting() > 32_768 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    store.flush(Duration::from_secs(600))?;
    Ok(Filled {
        rows,
        dropped: store.writer().dropped(),
        took: began.elapsed(),
        handing_over,
        writer: writer_cpu()
            .zip(cpu_before)
            .map(|(after, before)| after - before),
    })
}

/// Names as rows share them.
struct Names {
    keys: Vec<Arc<str>>,
    providers: Vec<Arc<str>>,
    models: Vec<Arc<str>>,
    start_ms: i64,
}

impl Names {
    fn new() -> Self {
        let series =
            |name: &str, count: u32| (0..count).map(|i| format!("{name}-{i}").into()).collect();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            keys: series("key", 20),
            providers: series("provider", 5),
            models: series("model", 20),
            start_ms: i64::try_from(now.as_millis()).unwrap_or(0),
        }
    }

    fn row(&self, number: u32) -> Box<UsageRow> {
        let pick = |names: &[Arc<str>]| names.get(number as usize % names.len()).cloned();
        Box::new(UsageRow {
            request_id: Uuid::now_v7(),
            client_request_id: None,
            start_ms: self.start_ms + i64::from(number / 20),
            source_ip: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))),
            key: pick(&self.keys),
            attribution: None,
            incoming: Protocol::Chat,
            lite: false,
            outgoing: Some(Protocol::Messages),
            provider: pick(&self.providers),
            selected_model: pick(&self.models),
            incoming_alias: pick(&self.models),
            canonical: pick(&self.models),
            attempts: 1,
            retry_history: None,
            all_attempted: None,
            tokens: Tokens {
                input: Some(1200),
                cache_read: Some(800),
                output: Some(u64::from(number % 900)),
                reasoning: Some(64),
                ..Tokens::default()
            },
            tokens_estimated: false,
            bill: None,
            duration_ms: 1834.25,
            ttft_ms: Some(412.5),
            streamed: true,
            passthrough: false,
            status: Status::Success,
            has_error: false,
            tool_calls: None,
            finish_reason: Some("stop".into()),
            notes: None,
            http_status: 200,
        })
    }
}

/// CPU time of the writer's thread so far, where `/proc` tells it.
fn writer_cpu() -> Option<Duration> {
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let folder = task.ok()?.path();
        let name = std::fs::read_to_string(folder.join("comm")).ok()?;
        if name.trim() == "plexus-store" {
            // The first field is nanoseconds on a CPU.
            let schedule = std::fs::read_to_string(folder.join("schedstat")).ok()?;
            let nanos = schedule.split(' ').next()?.parse().ok()?;
            return Some(Duration::from_nanos(nanos));
        }
    }
    None
}
