//! The gateway against a bare reverse proxy on hyper, by turns, in one run:
//! CPU time for each request, memory for each stream, time to start.
//!
//! `cargo bench --bench gateway` measures everything; words after `--` choose:
//! `unary`, `sse`, `unmetered`, `paced`, `1mb`, `1mb-front`, `10mb`,
//! `10mb-front`, `to-messages`, `to-messages-long`, `to-responses`, `to-gemini`,
//! `to-messages-sse`, `to-gemini-sse`, `slow`, `start`, `writer`. `--smoke` (or
//! `PLEXUS_BENCH_SMOKE=1`) runs every path for a moment only.
//! `PLEXUS_BENCH_ROUNDS` and `PLEXUS_BENCH_BINARY` set the number of turns and
//! another gateway.
//!
//! Costs are CPU time of the whole process under test as the scheduler counts
//! it, which holds up on a busy machine; ratios are taken turn by turn. Load
//! comes from this process, answers from the simulated provider in another.

mod client;
#[path = "../store_writer/filling.rs"]
mod filling;
mod floor;
mod load;
mod process;
mod rest;
mod scenario;
mod side;
mod table;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use load::Extent;
use plexus::store::{Options, Store};
use scenario::{SCENARIOS, SLOW, SLOW_GOAL};
use side::Workshop;

/// Whatever went wrong, for whoever runs the bench.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Descriptors of one process beside those of its streams.
const SPARE: usize = 500;
/// Set when the limit of descriptors has been tried to raise.
const RAISED: &str = "PLEXUS_BENCH_RAISED";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, port, upstream] = arguments.as_slice()
        && word == floor::ARGUMENT
    {
        return floor::run(port, upstream);
    }
    let ask = Ask::read(&arguments)?;
    if ask.wants(SLOW.name) {
        raise_descriptors(&ask)?;
    }
    ask.run()
}

/// What the command line asks for.
#[derive(Debug)]
struct Ask {
    words: Vec<String>,
    smoke: bool,
    rounds: usize,
}

impl Ask {
    fn read(arguments: &[String]) -> Result<Self, Failure> {
        let smoke = arguments.iter().any(|word| word == "--smoke")
            || std::env::var_os("PLEXUS_BENCH_SMOKE").is_some_and(|value| value == "1");
        let rounds = match std::env::var("PLEXUS_BENCH_ROUNDS") {
            Ok(rounds) => rounds.parse()?,
            Err(_) if smoke => 1,
            Err(_) => 7,
        };
        // Cargo adds words of its own, with dashes.
        let words = arguments.iter().filter(|word| !word.starts_with('-'));
        Ok(Self {
            words: words.cloned().collect(),
            smoke,
            rounds,
        })
    }

    fn wants(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| word == name)
    }

    /// One number in earnest, another for a smoke test.
    fn either<T>(&self, earnest: T, smoke: T) -> T {
        if self.smoke { smoke } else { earnest }
    }

    fn run(&self) -> Result<(), Failure> {
        table::say(&table::machine());
        if self.smoke {
            table::say("A smoke test: every path is run, the figures mean nothing.");
        }
        let workshop = Workshop::new()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.loads(&workshop))?;
        if self.wants(SLOW.name) {
            runtime.block_on(self.slow(&workshop))?;
        }
        if self.wants("start") {
            let provider = workshop.provider()?;
            let count = self.either(15, 2);
            let floor = rest::floor_starts(&workshop, &provider, count)?;
            let plexus = rest::plexus_starts(&workshop, &provider, count)?;
            table::starts(&floor, &plexus);
        }
        if self.wants("writer") {
            let path = workshop.folder().join("writer.db");
            let store = Store::open(&path, Options::default())?;
            table::writer(&filling::fill(&store, self.either(500_000, 2_000))?);
        }
        Ok(())
    }

    async fn loads(&self, workshop: &Workshop) -> Result<(), Failure> {
        let wanted = SCENARIOS.iter().filter(|load| self.wants(load.name));
        let extent = Extent {
            rounds: self.rounds,
            turn: self.either(Duration::from_millis(1200), Duration::from_millis(40)),
        };
        let mut all = Vec::new();
        let provider = workshop.provider()?;
        let floor = workshop.floor(&provider)?;
        let home = workshop.home(&provider)?;
        let plexus = workshop.plexus(&home)?;
        for scenario in wanted {
            table::progress(scenario.name, &floor, &plexus);
            all.push(load::measure(*scenario, [&floor, &plexus], &provider, extent).await?);
        }
        table::costs(&all);
        table::latencies(&all);
        Ok(())
    }

    async fn slow(&self, workshop: &Workshop) -> Result<(), Failure> {
        let wanted = self.either(2_000, 40);
        let pause = self.either(Duration::from_secs(1), Duration::from_millis(200));
        // The process in the middle holds two for each stream.
        let count = wanted.min(descriptors()?.saturating_sub(SPARE) / 2);
        if count < wanted {
            table::say(&format!(
                "\nThe limit of open files leaves room for {count} slow streams only."
            ));
        }
        let provider = workshop.provider()?;
        let floor = {
            let process = workshop.floor(&provider)?;
            rest::slow(&process, &SLOW.model(), count, pause).await?
        };
        let plexus = {
            let home = workshop.home(&provider)?;
            let process = workshop.plexus(&home)?;
            rest::slow(&process, &SLOW.alias(), count, pause).await?
        };
        table::slow(count, SLOW_GOAL, &floor, &plexus);
        Ok(())
    }
}

/// The soft limit of open files, which children inherit.
fn descriptors() -> Result<usize, Failure> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    match soft {
        Some("unlimited") => Ok(usize::MAX),
        Some(number) => Ok(number.parse()?),
        None => Err("no limit of open files in /proc/self/limits".into()),
    }
}

/// Replaces this process by itself with a higher limit, by way of a shell: the
/// call that raises it needs code that is not safe. Tried once.
fn raise_descriptors(ask: &Ask) -> Result<(), Failure> {
    let wanted = ask.either(2 * 2_000 + 2 * SPARE, SPARE);
    if descriptors()? >= wanted || std::env::var_os(RAISED).is_some() {
        return Ok(());
    }
    let error = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "ulimit -n {wanted} 2>/dev/null; exec \"$0\" \"$@\""
        ))
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(RAISED, "1")
        .exec();
    Err(error.into())
}
