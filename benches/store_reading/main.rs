//! How long questions about ten million requests take: summaries, and pages of
//! the list in every order and through every filter.
//!
//! `cargo bench --bench store_reading`; `PLEXUS_BENCH_ROWS` is how many rows
//! (ten million), `PLEXUS_BENCH_FOLDER` where the database is kept and found
//! again. With `--smoke` (or `PLEXUS_BENCH_SMOKE=1`) only enough rows to see
//! that it works. Exits with an error when a summary takes 50 ms or a page takes
//! 100 ms.

mod history;
mod questions;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use plexus::store::{Options, Store};

#[expect(clippy::print_stdout, reason = "the figures are what a bench is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let smoke = std::env::args().any(|argument| argument == "--smoke")
        || std::env::var_os("PLEXUS_BENCH_SMOKE").is_some_and(|value| value == "1");
    let rows = match std::env::var("PLEXUS_BENCH_ROWS") {
        Ok(rows) => rows.parse()?,
        Err(_) if smoke => 20_000,
        Err(_) => 10_000_000,
    };
    let temporary = tempfile::tempdir()?;
    let folder = std::env::var_os("PLEXUS_BENCH_FOLDER").map(PathBuf::from);
    let path = folder
        .unwrap_or_else(|| temporary.path().to_owned())
        .join(format!("history-{rows}.db"));
    let known = path.exists();
    let store = Store::open(&path, Options::default())?;
    if !known {
        let began = Instant::now();
        history::write(&store, rows)?;
        let speed = f64::from(rows) / began.elapsed().as_secs_f64();
        println!("written             {rows:>10} rows, {speed:.0} a second");
    }
    let size = std::fs::metadata(&path)?.len() >> 20;
    println!("file                {size:>10} MiB");
    let mut late = 0;
    for question in questions::all(&store, rows)? {
        let (took, found) = median_of(5, || question.ask(&store))?;
        let verdict = if took < question.limit {
            ""
        } else {
            late += 1;
            "LATE"
        };
        let name = &question.name;
        println!("{name:<58}{took:>11.2?}  {found:>9} {verdict}");
    }
    if late > 0 && !smoke {
        return Err(format!("{late} answers were late").into());
    }
    Ok(())
}

/// The median of some tries, so that one disturbance does not count.
fn median_of(
    tries: usize,
    ask: impl Fn() -> Result<u64, plexus::store::StoreError>,
) -> Result<(Duration, u64), plexus::store::StoreError> {
    let mut times = Vec::with_capacity(tries);
    let mut found = 0;
    for _ in 0..tries {
        let began = Instant::now();
        found = ask()?;
        times.push(began.elapsed());
        if began.elapsed() > Duration::from_secs(1) {
            break;
        }
    }
    times.sort();
    Ok((times[times.len() / 2], found))
}
