//! The figures as Markdown.

use std::fs;
use std::io::Write;
use std::process::Command;

use crate::load::Measured;
use crate::process::{Memory, Process};
use crate::rest::{Slow, Starts};

/// To standard output; that is what a bench is for.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}"));
    drop(out.flush());
}

/// The middle value; of an even number, the mean of the two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => f64::NAN,
        (1, Some(value)) => *value,
        (_, Some(value)) => f64::midpoint(*value, sorted[middle - 1]),
    }
}

/// What the figures were measured on.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(
            || "unknown processor".into(),
            |(_, name)| name.trim().to_owned(),
        );
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = read("/proc/meminfo")
        .split_whitespace()
        .nth(1)
        .and_then(|kb| kb.parse::<f64>().ok())
        .unwrap_or_default();
    let compiler = Command::new("rustc").arg("--version").output();
    let compiler = compiler.map_or_else(
        |_| "rustc unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    format!(
        "{processor}, {cores} cores, {:.0} GB, Linux {}, {compiler}; load average at the start {}",
        memory / 1048576.0,
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
    )
}

/// CPU time and ratios.
pub(crate) fn costs(all: &[Measured]) {
    if all.is_empty() {
        return;
    }
    say(
        "\n| load | per | floor us | plexus us, serving + writer + rest | ratio serving (goal) | ratio all (goal) | |",
    );
    say("|---|---|--:|--:|--:|--:|---|");
    for measured in all {
        say(&cost(measured));
    }
}

fn cost(measured: &Measured) -> String {
    let scenario = &measured.scenario;
    let floor = measured.floor.total();
    let (serving, total) = (measured.plexus.serving(), measured.plexus.total());
    let writer = median(&measured.plexus.writer());
    let rest = (median(&total) - median(&serving) - writer).max(0.0);
    let by_serving = Ratio::new(&serving, &floor);
    let by_total = Ratio::new(&total, &floor);
    let (goal, goal_of_all) = scenario.goal;
    let met = goal.is_none_or(|goal| by_serving.median <= goal)
        && goal_of_all.is_none_or(|goal| by_total.median <= goal);
    let in_brackets =
        |goal: Option<f64>| goal.map_or_else(String::new, |goal| format!(" ({goal})"));
    format!(
        "| {}, {} connections | {} | {:.2} | {:.2} + {writer:.2} + {rest:.2} | {}{} | {}{} | {} |",
        scenario.title,
        scenario.connections,
        scenario.unit.name(),
        median(&floor),
        median(&serving),
        by_serving.text(),
        in_brackets(goal),
        by_total.text(),
        in_brackets(goal_of_all),
        if goal.is_some() { verdict(met) } else { "" },
    )
}

/// A ratio taken turn by turn, and how far the turns were apart.
struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

impl Ratio {
    fn new(above: &[f64], below: &[f64]) -> Self {
        let ratios: Vec<f64> = above
            .iter()
            .zip(below)
            .map(|(above, below)| above / below)
            .collect();
        Self {
            median: median(&ratios),
            least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            most: ratios.iter().copied().fold(0.0, f64::max),
        }
    }

    fn text(&self) -> String {
        format!(
            "**{:.2}** [{:.2} - {:.2}]",
            self.median, self.least, self.most
        )
    }
}

/// Latency, rate, and what the provider had to do meanwhile.
pub(crate) fn latencies(all: &[Measured]) {
    if all.is_empty() {
        return;
    }
    say(
        "\n| load | answer | floor p50 / p99 ms | plexus p50 / p99 ms | answers/s floor, plexus | provider us, floor / plexus | provider busy |",
    );
    say("|---|--:|--:|--:|--:|--:|--:|");
    for measured in all {
        let (floor, plexus) = (&measured.floor, &measured.plexus);
        say(&format!(
            "| {} | {} B, {} events | {:.2} / {:.2} | {:.2} / {:.2} | {:.0}, {:.0} | {:.2} / {:.2} | {:.0} % / {:.0} % |",
            measured.scenario.title,
            measured.answer.bytes,
            measured.answer.events,
            floor.latency(0.5),
            floor.latency(0.99),
            plexus.latency(0.5),
            plexus.latency(0.99),
            median(&floor.rate()),
            median(&plexus.rate()),
            median(&floor.upstream()),
            median(&plexus.upstream()),
            median(&floor.upstream_busy()) * 100.0,
            median(&plexus.upstream_busy()) * 100.0,
        ));
    }
}

/// Memory of slow streams.
pub(crate) fn slow(count: usize, goal: f64, floor: &Slow, plexus: &Slow) {
    let ratio = plexus.stream.rss / floor.stream.rss;
    say(&format!(
        "\n| {count} slow streams | floor | plexus | ratio (goal) | |"
    ));
    say("|---|--:|--:|--:|---|");
    say(&format!(
        "| KB per stream, RSS | {:.1} | {:.1} | **{ratio:.2}** ({goal}) | {} |",
        floor.stream.rss,
        plexus.stream.rss,
        verdict(ratio <= goal)
    ));
    say(&format!(
        "| KB per stream, PSS | {:.1} | {:.1} | {:.2} | |",
        floor.stream.pss,
        plexus.stream.pss,
        plexus.stream.pss / floor.stream.pss
    ));
    say(&format!(
        "| baseline | {} | {} | | |",
        megabytes(&floor.baseline),
        megabytes(&plexus.baseline)
    ));
}

/// Starts and idle memory.
pub(crate) fn starts(floor: &Starts, plexus: &Starts) {
    let ready = median(&plexus.ready);
    let idle = plexus.at_once.rss.max(plexus.later.rss) / 1024.0;
    say("\n| start | floor | plexus | goal | |");
    say("|---|--:|--:|--:|---|");
    say(&format!(
        "| exec to first answer, ms, median of {} | {:.1} | **{ready:.1}** | < 50 | {} |",
        plexus.ready.len(),
        median(&floor.ready),
        verdict(ready < 50.0)
    ));
    say(&format!(
        "| the same where there is no database yet | | {:.1} | | |",
        plexus.first.unwrap_or(f64::NAN)
    ));
    say(&format!(
        "| idle, at the first answer | {} | {} | | |",
        megabytes(&floor.at_once),
        megabytes(&plexus.at_once)
    ));
    say(&format!(
        "| idle, 1 s later | {} | {} | RSS < 15 MB | {} |",
        megabytes(&floor.later),
        megabytes(&plexus.later),
        verdict(idle < 15.0)
    ));
}

/// The writer.
pub(crate) fn writer(filled: &crate::filling::Filled) {
    say("\n| writer | | goal | |");
    say("|---|--:|--:|---|");
    say(&format!(
        "| rows/s, {} rows, {} dropped | **{:.0}** | >= 100000 | {} |",
        filled.rows,
        filled.dropped,
        filled.rows_per_second(),
        verdict(filled.rows_per_second() >= 100_000.0 && filled.dropped == 0)
    ));
    say(&format!(
        "| handing one over, ns | **{:.0}** | < 1000 | {} |",
        filled.handing_over_ns(),
        verdict(filled.handing_over_ns() < 1000.0)
    ));
    if let Some(cpu) = filled.writer_us() {
        say(&format!("| writer's CPU for one, us | {cpu:.2} | | |"));
    }
}

fn megabytes(memory: &Memory) -> String {
    format!(
        "RSS {:.1} MB, PSS {:.1} MB",
        memory.rss / 1024.0,
        memory.pss / 1024.0
    )
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Says to standard error what comes next, and which processes to look at.
pub(crate) fn progress(what: &str, floor: &Process, plexus: &Process) {
    let (floor, plexus) = (floor.id(), plexus.id());
    let mut out = std::io::stderr().lock();
    drop(writeln!(out, "{what}: floor {floor}, plexus {plexus}"));
}
