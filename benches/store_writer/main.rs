//! What a usage row costs: in the thread that hands it over, in the writer's
//! thread, and how many go through in a second.
//!
//! `cargo bench --bench store_writer`; with `--smoke` (or
//! `PLEXUS_BENCH_SMOKE=1`) only enough rows to see that it works.

mod filling;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plexus::metrics::Metrics;
use plexus::store::{Options, Store, UsageQuery};

#[expect(clippy::print_stdout, reason = "the figures are what a bench is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let smoke = std::env::args().any(|argument| argument == "--smoke")
        || std::env::var_os("PLEXUS_BENCH_SMOKE").is_some_and(|value| value == "1");
    let rows: u32 = if smoke { 2_000 } else { 500_000 };
    let folder = tempfile::tempdir()?;
    let opening = Instant::now();
    let path = folder.path().join("bench.db");
    drop(Store::open(&path, Options::default())?);
    println!("open, new file      {:>10.2?}", opening.elapsed());
    let opening = Instant::now();
    let store = Store::open(&path, Options::default())?;
    println!("open, existing file {:>10.2?}", opening.elapsed());

    let filled = filling::fill(&store, rows)?;
    println!("rows                {rows:>10}");
    println!("dropped             {:>10}", filled.dropped);
    println!("rows/s              {:>10.0}", filled.rows_per_second());
    println!("handing over, ns    {:>10.0}", filled.handing_over_ns());
    match filled.writer_us() {
        Some(cpu) => println!("writer CPU, us      {cpu:>10.2}"),
        None => println!("writer CPU, us         unknown"),
    }
    reading(&store, rows)?;
    in_flight(if smoke { 1_000 } else { 1_000_000 });
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are what a bench is for")]
fn reading(store: &Store, rows: u32) -> Result<(), Box<dyn std::error::Error>> {
    for (what, offset) in [
        ("first page", 0),
        ("middle page", rows / 2),
        ("last page", rows - 50),
    ] {
        let query = UsageQuery {
            limit: Some(50),
            offset: u64::from(offset),
            ..UsageQuery::default()
        };
        let began = Instant::now();
        let page = store.usage(&query)?;
        let took = began.elapsed();
        println!("{what:<20}{took:>10.2?}  of {} rows", black_box(page).total);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are what a bench is for")]
fn in_flight(rounds: u32) {
    let metrics = Metrics::new();
    let provider: Arc<str> = "openai".into();
    let models: Vec<Arc<str>> = (0..20).map(|i| format!("model-{i}").into()).collect();
    let began = Instant::now();
    for model in models.iter().cycle().take(rounds as usize) {
        drop(black_box(metrics.in_flight(&provider, model)));
    }
    println!(
        "in flight, ns       {:>10.0}",
        per_row(began.elapsed(), rounds) * 1e9
    );
}

fn per_row(time: Duration, rows: u32) -> f64 {
    time.as_secs_f64() / f64::from(rows)
}
