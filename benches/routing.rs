//! What choosing among targets costs: every selector over an alias of 50
//! targets, from one thread and from sixteen at once, and the conversation of
//! a request of usual size.
//!
//! `cargo bench --bench routing`; with `--smoke` only to see that it runs.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use plexus::config::{Config, describe};
use plexus::protocol::Protocol;
use plexus::routing::dice::Dice;
use plexus::routing::session::Sessions;
use plexus::routing::window::Sample;
use plexus::routing::{Asked, Switchboard};
use serde_json::json;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TARGETS: usize = 50;
const THREADS: u32 = 16;
const SELECTORS: [&str; 8] = [
    "random",
    "in_order",
    "cost",
    "latency",
    "performance",
    "e2e_performance",
    "usage",
    "quota",
];

fn main() -> Result<(), Failure> {
    let smoke = std::env::args().any(|word| word == "--smoke")
        || std::env::var_os("PLEXUS_BENCH_SMOKE").is_some_and(|value| value == "1");
    let runs = if smoke { 100 } else { 200_000 };
    say(&format!(
        "| resolve an alias of {TARGETS} targets | ns, 1 thread | ns, {THREADS} threads, of each core's time |\n|---|--:|--:|"
    ));
    for selector in SELECTORS {
        let config = configuration(selector)?;
        let switchboard = switchboard(&config);
        let one = alone(&config, &switchboard, runs);
        let many = together(&config, &switchboard, runs / THREADS);
        say(&format!("| {selector} | {one:.0} | {many:.0} |"));
    }
    say("\n| conversation of a request | ns |\n|---|--:|");
    for kilobytes in [1, 10, 100] {
        let frames = [request(kilobytes * 1024)];
        let began = Instant::now();
        for _ in 0..runs / 10 {
            black_box(Sessions::of(
                "m",
                Protocol::Chat,
                &HeaderMap::new(),
                &frames,
            ));
        }
        let cost = nanoseconds(began.elapsed(), runs / 10);
        say(&format!("| {kilobytes} KB | {cost:.0} |"));
    }
    Ok(())
}

fn resolve(config: &Config, switchboard: &Switchboard, dice: &mut Dice) -> usize {
    let asked = Asked {
        model: "m",
        protocol: Protocol::Chat,
        now: 1_795_197_600_000,
        explores: true,
        native_first: false,
    };
    let key = config.keys.get("k").map(AsRef::as_ref);
    let resolved = key.and_then(|key| switchboard.resolve(config, key, asked, dice).ok());
    resolved.map_or(0, |resolution| resolution.len())
}

fn alone(config: &Config, switchboard: &Switchboard, runs: u32) -> f64 {
    let mut dice = Dice::new(1);
    let began = Instant::now();
    for _ in 0..runs {
        black_box(resolve(config, switchboard, &mut dice));
    }
    nanoseconds(began.elapsed(), runs)
}

/// What a resolution costs when many threads resolve at once: the time of the
/// cores that there are, divided by all resolutions.
fn together(config: &Config, switchboard: &Switchboard, runs: u32) -> f64 {
    let start = Barrier::new(THREADS as usize + 1);
    let mut began = Instant::now();
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let start = &start;
            scope.spawn(move || {
                let mut dice = Dice::new(u64::from(seed));
                start.wait();
                for _ in 0..runs {
                    black_box(resolve(config, switchboard, &mut dice));
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

fn nanoseconds(time: Duration, runs: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(runs.max(1))
}

fn configuration(selector: &str) -> Result<Config, Failure> {
    let mut text = String::from("adminKey: a\nproviders:\n");
    for i in 0..TARGETS {
        writeln!(
            text,
            "  p{i}: {{ api_base_url: 'http://p{i}/v1', api_key: k, models: {{ m: {{ pricing: {{ source: simple, input: {i}, output: 1 }} }} }} }}"
        )?;
    }
    writeln!(
        text,
        "models:\n  m:\n    selector: {selector}\n    targets:"
    )?;
    for i in 0..TARGETS {
        writeln!(text, "      - {{ provider: p{i}, model: m }}")?;
    }
    text.push_str("keys: { k: { secret: s } }\n");
    Config::from_yaml(&text).map_err(|faults| describe(&faults, "bench").into())
}

/// Every target measured, and one of ten at rest.
fn switchboard(config: &Config) -> Switchboard {
    let switchboard = Switchboard::new(config, Instant::now(), 1_795_197_600_000);
    let mut dice = Dice::new(3);
    for i in 0..TARGETS {
        let standing = switchboard
            .standings
            .of(&format!("p{i}").into(), &"m".into());
        let ttft = 100.0 + dice.fraction() * 1000.0;
        let sample = Sample::of_answer(500, 5000.0 + ttft, Some(ttft));
        standing.window.add(sample, 1);
        standing
            .window
            .used(1_795_197_600_000, 1 + dice.below(100) as u32);
    }
    switchboard
}

fn request(size: usize) -> Bytes {
    let text = "Look at both ends.\n\tlet at = text.find(\"\\n\\n\")?;\n".repeat(size / 150);
    let message = |role| json!({ "role": role, "content": text });
    let messages = [message("system"), message("user"), message("assistant")];
    json!({ "model": "m", "messages": messages, "stream": true })
        .to_string()
        .into()
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}
