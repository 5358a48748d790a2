//! What limits on keys cost a request: its admission and its settlement, for a
//! key without quotas, with one, with four, from one thread, from sixteen with a
//! key of their own each, and from sixteen with the same key.
//!
//! `cargo bench --bench quotas`; with `--smoke` only to see that it runs.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bytes::Bytes;
use plexus::config::{Config, Key, describe};
use plexus::quota::{Prompt, Quotas, Reservation, Spent, text_bytes};
use plexus::store::{Options, Store};
use serde_json::json;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const THREADS: u32 = 16;
const NOW: i64 = 1_795_197_600_000;

fn main() -> Result<(), Failure> {
    let smoke = std::env::args().any(|word| word == "--smoke")
        || std::env::var_os("PLEXUS_BENCH_SMOKE").is_some_and(|value| value == "1");
    let runs = if smoke { 100 } else { 500_000 };
    let config = configuration()?;
    let folder = tempfile::tempdir()?;
    let store = Store::open(&folder.path().join("plexus.db"), Options::default())?;
    let quotas = Quotas::new(&config, &[], Some(store.writer().clone()));
    let frames = [body()];
    let bench = Bench {
        config: &config,
        quotas: &quotas,
        frames: &frames,
    };
    say(
        "| admission and settlement | ns, 1 thread | ns, 16 threads, own keys | ns, 16 threads, one key |\n|---|--:|--:|--:|",
    );
    for kind in ["none", "requests", "tokens", "four"] {
        let one = bench.alone(kind, runs);
        let own = bench.together(kind, runs / THREADS, true);
        let same = bench.together(kind, runs / THREADS, false);
        say(&format!("| {kind} | {one:.0} | {own:.0} | {same:.0} |"));
    }
    Ok(())
}

struct Bench<'a> {
    config: &'a Config,
    quotas: &'a Quotas,
    frames: &'a [Bytes],
}

impl Bench<'_> {
    /// What a request does, with its prompt of 8 KB.
    fn pass(&self, key: &Key) {
        let Some(list) = self.quotas.of(self.config, key, NOW) else {
            return;
        };
        let prompt = Prompt {
            bytes: if list.measures() {
                text_bytes(self.frames)
            } else {
                0
            },
            generates: true,
            nanos_per_token: 100,
        };
        let Ok(mut reservation) = Reservation::admit(list, "alias", prompt, NOW) else {
            return;
        };
        let spent = Spent {
            input: 2000,
            output: 300,
            nanos: 9000,
        };
        reservation.settle(spent, NOW);
        drop(black_box(reservation));
    }

    fn key(&self, kind: &str, number: u32) -> &Key {
        &self.config.keys[&*format!("{kind}-{number}")]
    }

    fn alone(&self, kind: &str, runs: u32) -> f64 {
        let key = self.key(kind, 0);
        let began = Instant::now();
        for _ in 0..runs {
            self.pass(black_box(key));
        }
        nanoseconds(began.elapsed(), runs)
    }

    /// The time of the cores that there are, divided by all requests.
    fn together(&self, kind: &str, runs: u32, own: bool) -> f64 {
        let start = Barrier::new(THREADS as usize + 1);
        let mut began = Instant::now();
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let start = &start;
                scope.spawn(move || {
                    let key = self.key(kind, if own { number } else { 0 });
                    start.wait();
                    for _ in 0..runs {
                        self.pass(key);
                    }
                });
            }
            start.wait();
            began = Instant::now();
        });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let busy = cores.min(THREADS as usize) as f64;
        nanoseconds(began.elapsed(), runs * THREADS) * busy
    }
}

fn nanoseconds(time: Duration, runs: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(runs.max(1))
}

fn configuration() -> Result<Config, Failure> {
    let mut text = String::from("adminKey: a\nkeys:\n");
    for (kind, quotas) in [
        ("none", ""),
        ("requests", "requests"),
        ("tokens", "tokens"),
        ("four", "requests, tokens, money, leak"),
    ] {
        for number in 0..THREADS {
            writeln!(
                text,
                "  {kind}-{number}: {{ secret: {kind}-{number}, quotas: [{quotas}] }}"
            )?;
        }
    }
    text.push_str(
        "user_quotas:\n\
         \x20 requests: { type: daily, limitType: requests, limit: 1000000000000 }\n\
         \x20 tokens: { type: monthly, limitType: tokens, limit: 900000000000000 }\n\
         \x20 money: { type: weekly, limitType: cost, limit: 1000000000 }\n\
         \x20 leak: { type: rolling, duration: 1h, limitType: tokens, limit: 900000000000000 }\n",
    );
    Config::from_yaml(&text).map_err(|faults| describe(&faults, "bench").into())
}

fn body() -> Bytes {
    let text = "Look at both ends.\n\tlet at = text.find(\"\\n\\n\")?;\n".repeat(170);
    let messages = [json!({ "role": "user", "content": text })];
    json!({ "model": "m", "messages": messages })
        .to_string()
        .into()
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}
