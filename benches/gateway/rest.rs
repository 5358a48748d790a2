//! What is not load: memory of slow streams and of idle processes, the time to
//! start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Failure;
use crate::client::Connection;
use crate::process::{Memory, Process};
use crate::scenario::SLOW;
use crate::side::Workshop;

/// Longest wait for all streams to have begun.
const BEGIN: Duration = Duration::from_secs(60);
/// Streams that are opened at once.
const AT_ONCE: usize = 50;
/// Bytes after which a stream has begun: more than its opening event.
const BEGUN: u64 = 500;
/// What a process is left alone for before its memory is looked at.
const REST: Duration = Duration::from_secs(1);

/// Memory of one side, KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    /// Of the idle process.
    pub(crate) baseline: Memory,
    /// Of each stream, its two connections included.
    pub(crate) stream: Memory,
}

/// Opens slow streams through a fresh process and looks at its memory, which
/// before that and after it is left to itself for a while.
pub(crate) async fn slow(
    process: &Process,
    model: &str,
    count: usize,
    pause: Duration,
) -> Result<Slow, Failure> {
    tokio::time::sleep(pause).await;
    let baseline = process.memory()?;
    let request: Arc<[u8]> = SLOW.request(model)?.into();
    let begun = Arc::new(AtomicUsize::new(0));
    let opening = Arc::new(Semaphore::new(AT_ONCE));
    let mut streams = JoinSet::new();
    for _ in 0..count {
        let (request, begun) = (Arc::clone(&request), Arc::clone(&begun));
        let turn = Arc::clone(&opening).acquire_owned().await?;
        let address = process.address;
        streams.spawn(async move {
            let mut connection = Connection::open(address, 4096).await?;
            drop(turn);
            let mut waiting = true;
            connection
                .watch(&request, |bytes| {
                    if waiting && bytes > BEGUN {
                        waiting = false;
                        begun.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .await
        });
    }
    let deadline = Instant::now() + BEGIN;
    while begun.load(Ordering::Relaxed) < count {
        if let Some(ended) = streams.try_join_next() {
            return Err(process
                .failure(&format!("a stream ended: {ended:?}"))
                .into());
        }
        if Instant::now() > deadline {
            return Err(process.failure("not all streams began").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(2 * pause).await;
    let loaded = process.memory()?;
    if let Some(ended) = streams.try_join_next() {
        return Err(process
            .failure(&format!("a stream ended: {ended:?}"))
            .into());
    }
    streams.shutdown().await;
    let per_stream = |loaded: f64, idle: f64| (loaded - idle) / count as f64;
    Ok(Slow {
        baseline,
        stream: Memory {
            rss: per_stream(loaded.rss, baseline.rss),
            pss: per_stream(loaded.pss, baseline.pss),
        },
    })
}

/// Starts of one side: time until it answers, memory then and a while later.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    /// Milliseconds to the first answer, by start.
    pub(crate) ready: Vec<f64>,
    /// Milliseconds where there was no database yet.
    pub(crate) first: Option<f64>,
    /// Memory at the first answer.
    pub(crate) at_once: Memory,
    /// Memory a second later.
    pub(crate) later: Memory,
}

/// Starts the gateway again and again in one home.
pub(crate) fn plexus_starts(
    workshop: &Workshop,
    provider: &Process,
    count: usize,
) -> Result<Starts, Failure> {
    let home = workshop.home(provider)?;
    let first = workshop.plexus(&home)?.ready;
    let mut starts = starts(count, || workshop.plexus(&home))?;
    starts.first = Some(first.as_secs_f64() * 1e3);
    Ok(starts)
}

/// Starts the floor again and again.
pub(crate) fn floor_starts(
    workshop: &Workshop,
    provider: &Process,
    count: usize,
) -> Result<Starts, Failure> {
    starts(count, || workshop.floor(provider))
}

fn starts(count: usize, start: impl Fn() -> Result<Process, Failure>) -> Result<Starts, Failure> {
    let mut starts = Starts::default();
    for number in 1..=count {
        let process = start()?;
        starts.ready.push(process.ready.as_secs_f64() * 1e3);
        if number == count {
            starts.at_once = process.memory()?;
            thread::sleep(REST);
            starts.later = process.memory()?;
        }
    }
    Ok(starts)
}
