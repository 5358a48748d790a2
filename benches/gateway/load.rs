//! Load on the floor and on the gateway by turns, and what each turn cost the
//! process that bore it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Failure;
use crate::client::{Answer, Connection, DONE};
use crate::process::{Cpu, Process};
use crate::scenario::{Question, Scenario, Unit};

/// What a client reads at once.
const BUFFER: usize = 64 * 1024;
/// Time beyond a turn's end for the answers under way.
const LATE: Duration = Duration::from_secs(60);
/// Answers that one client takes in one turn, at most.
const MOST: u32 = 100_000;
/// Time for the last rows of a turn to be written. The writer commits within
/// 50 ms.
const SETTLE: Duration = Duration::from_millis(120);

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Turns of each side.
    pub(crate) rounds: usize,
    /// Length of a turn.
    pub(crate) turn: Duration,
}

/// What one side did in one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) answers: u64,
    wall: Duration,
    cpu: Cpu,
    upstream: Duration,
}

/// What one side did in all turns.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) turns: Vec<Turn>,
    /// Microseconds that answers took, sorted.
    pub(crate) latencies: Vec<u32>,
    pub(crate) units_per_answer: f64,
}

/// Both sides under one load.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) scenario: Scenario,
    pub(crate) floor: Side,
    pub(crate) plexus: Side,
    /// Bytes and events of one answer.
    pub(crate) answer: Answer,
}

impl Turn {
    fn per_unit(&self, time: Duration, units: f64) -> f64 {
        time.as_secs_f64() * 1e6 / (self.answers.max(1) as f64 * units)
    }
}

impl Side {
    /// Microseconds of the serving threads for each unit, by turn.
    pub(crate) fn serving(&self) -> Vec<f64> {
        self.by_turn(|turn| turn.cpu.serving)
    }

    /// Microseconds of the writer's thread for each unit, by turn.
    pub(crate) fn writer(&self) -> Vec<f64> {
        self.by_turn(|turn| turn.cpu.writer)
    }

    /// Microseconds of all threads for each unit, by turn.
    pub(crate) fn total(&self) -> Vec<f64> {
        self.by_turn(|turn| turn.cpu.total())
    }

    /// Microseconds of the provider for each unit, by turn.
    pub(crate) fn upstream(&self) -> Vec<f64> {
        self.by_turn(|turn| turn.upstream)
    }

    /// The part of the time that the provider's one thread was busy, by turn.
    pub(crate) fn upstream_busy(&self) -> Vec<f64> {
        let busy =
            |turn: &Turn| turn.upstream.as_secs_f64() / turn.wall.as_secs_f64().max(f64::EPSILON);
        self.turns.iter().map(busy).collect()
    }

    /// Answers per second, by turn.
    pub(crate) fn rate(&self) -> Vec<f64> {
        let rate = |turn: &Turn| turn.answers as f64 / turn.wall.as_secs_f64().max(f64::EPSILON);
        self.turns.iter().map(rate).collect()
    }

    /// Milliseconds below which that part of all answers stayed.
    pub(crate) fn latency(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * part) as usize;
        f64::from(self.latencies.get(place).copied().unwrap_or(0)) / 1000.0
    }

    fn by_turn(&self, time: impl Fn(&Turn) -> Duration) -> Vec<f64> {
        let cost = |turn: &Turn| turn.per_unit(time(turn), self.units_per_answer);
        self.turns.iter().map(cost).collect()
    }
}

/// Puts one load on both sides by turns. Every answer is checked; one that is
/// not as it should be ends the bench.
pub(crate) async fn measure(
    scenario: Scenario,
    sides: [&Process; 2],
    upstream: &Process,
    extent: Extent,
) -> Result<Measured, Failure> {
    let [floor, plexus] = sides;
    let direct = Clients::open(scenario, upstream, &scenario.model(), 1).await?;
    let count = scenario.connections;
    let mut below = Clients::open(scenario, floor, &scenario.model(), count).await?;
    let mut above = Clients::open(scenario, plexus, &scenario.alias(), count).await?;
    below.expect(&direct.wanted)?;
    if scenario.untouched() {
        above.expect(&direct.wanted)?;
    }
    let units = match scenario.unit {
        Unit::Request | Unit::Stream => 1.0,
        Unit::Chunk => direct.wanted.events as f64,
    };
    let side = || Side {
        units_per_answer: units,
        ..Side::default()
    };
    let mut measured = Measured {
        scenario,
        floor: side(),
        plexus: side(),
        answer: direct.wanted,
    };
    let warm = extent.turn / 4;
    below.turn(floor, upstream, warm).await?;
    above.turn(plexus, upstream, warm).await?;
    for _ in 0..extent.rounds {
        let (turn, took) = below.turn(floor, upstream, extent.turn).await?;
        measured.floor.turns.push(turn);
        measured.floor.latencies.extend(took);
        let (turn, took) = above.turn(plexus, upstream, extent.turn).await?;
        measured.plexus.turns.push(turn);
        measured.plexus.latencies.extend(took);
    }
    measured.floor.latencies.sort_unstable();
    measured.plexus.latencies.sort_unstable();
    Ok(measured)
}

/// Connections to one process that all ask the same.
struct Clients {
    connections: Vec<Connection>,
    request: Arc<[u8]>,
    question: Question,
    wanted: Answer,
    name: &'static str,
}

impl Clients {
    /// Connects, and learns from one answer what all should be.
    async fn open(
        scenario: Scenario,
        process: &Process,
        model: &str,
        count: usize,
    ) -> Result<Self, Failure> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Connection::open(process.address, BUFFER).await?);
        }
        let mut clients = Self {
            connections,
            request: scenario.request(model)?.into(),
            question: scenario.question,
            wanted: Answer::default(),
            name: process.name,
        };
        let first = clients.connections.first_mut().ok_or("no connections")?;
        clients.wanted = first.watch(&clients.request, |_| {}).await?;
        if !sound(&clients.wanted, clients.question) {
            let said = process.failure(&format!("answered {:?}", clients.wanted));
            return Err(said.into());
        }
        Ok(clients)
    }

    /// Fails unless the first answer had the length of another.
    fn expect(&self, other: &Answer) -> Result<(), Failure> {
        if (self.wanted.bytes, self.wanted.events) == (other.bytes, other.events) {
            return Ok(());
        }
        Err(format!("{}: {:?} instead of {other:?}", self.name, self.wanted).into())
    }

    async fn turn(
        &mut self,
        process: &Process,
        upstream: &Process,
        length: Duration,
    ) -> Result<(Turn, Vec<u32>), Failure> {
        let before = (process.cpu()?, upstream.cpu()?);
        let began = Instant::now();
        let (answers, latencies) =
            tokio::time::timeout(length + LATE, self.load(began + length)).await??;
        let wall = began.elapsed();
        tokio::time::sleep(SETTLE).await;
        let turn = Turn {
            answers,
            wall,
            cpu: process.cpu()?.since(&before.0),
            upstream: upstream.cpu()?.since(&before.1).total(),
        };
        Ok((turn, latencies))
    }

    async fn load(&mut self, until: Instant) -> Result<(u64, Vec<u32>), Failure> {
        let mut asking = JoinSet::new();
        for connection in self.connections.drain(..) {
            let asked = Asked {
                request: Arc::clone(&self.request),
                question: self.question,
                wanted: self.wanted,
                until,
            };
            asking.spawn(asked.again_and_again(connection));
        }
        let mut latencies = Vec::new();
        while let Some(done) = asking.join_next().await {
            let (connection, took) = done?.map_err(|error| format!("{}: {error}", self.name))?;
            self.connections.push(connection);
            latencies.extend(took);
        }
        Ok((latencies.len() as u64, latencies))
    }
}

struct Asked {
    request: Arc<[u8]>,
    question: Question,
    wanted: Answer,
    until: Instant,
}

impl Asked {
    async fn again_and_again(
        self,
        mut connection: Connection,
    ) -> Result<(Connection, Vec<u32>), Failure> {
        let mut latencies = Vec::new();
        let mut now = Instant::now();
        for _ in 0..MOST {
            let answer = connection.exchange(&self.request).await?;
            if !sound(&answer, self.question) || answer.bytes != self.wanted.bytes {
                return Err(format!("{answer:?} instead of {:?}", self.wanted).into());
            }
            let before = std::mem::replace(&mut now, Instant::now());
            latencies.push(u32::try_from((now - before).as_micros()).unwrap_or(u32::MAX));
            if now >= self.until {
                break;
            }
        }
        Ok((connection, latencies))
    }
}

fn sound(answer: &Answer, question: Question) -> bool {
    let ends = match question {
        // The simulated provider ends its documents with a line.
        Question::Unary => answer.ends_with(b"}\n") || answer.ends_with(b"}"),
        Question::Stream | Question::StreamUnmetered => answer.ends_with(DONE),
    };
    answer.status == 200 && ends
}
