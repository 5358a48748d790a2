//! Counters and gauges for Prometheus: `GET /v0/management/metrics`.

use std::fmt::Write as _;
use std::time::Instant;

use super::{Answer, Call, Reply};
use crate::app::App;
use crate::inference;
use crate::routing::cooldown::Cooldown;
use crate::routing::window::Statistics;

/// The text exposition format, version 0.0.4.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        let mut page = call.app().metrics.render(inference::wall_ms());
        routing(&mut page, call.app());
        Ok(Reply::typed(
            "text/plain; version=0.0.4; charset=utf-8",
            page,
        ))
    })
}

/// A provider, a model (empty is all of them), and a value.
type Row = (String, String, f64);

/// Rests, permits and measurements, which routing keeps.
fn routing(page: &mut String, app: &App) {
    rests(page, app);
    permits(page, app);
    measurements(page, app);
    let purse = app.switchboard.budget.left();
    let (name, help) = ("plexus_retry_budget", "Second tries that are saved.");
    // Writing to a string cannot fail.
    let _written = writeln!(
        page,
        "\n# HELP {name} {help}\n# TYPE {name} gauge\n{name} {purse}"
    );
}

fn rests(page: &mut String, app: &App) {
    let switchboard = &app.switchboard;
    let now = switchboard.now(Instant::now());
    let (mut active, mut left, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    let mut add = |provider: &str, model: &str, cooldown: &Cooldown| {
        let Some(rest) = cooldown.rest().filter(|rest| rest.until > now) else {
            return;
        };
        let row = |value: f64| (provider.to_owned(), model.to_owned(), value);
        active.push(row(1.0));
        left.push(row((rest.until - now) as f64));
        failures.push(row(f64::from(rest.failures)));
    };
    for standing in switchboard.standings.targets() {
        add(&standing.house.id, &standing.model, &standing.cooldown);
    }
    for house in switchboard.standings.houses() {
        add(&house.id, "", &house.cooldown);
    }
    let help = "Targets that rest after failures; an empty model is a whole provider.";
    family(page, "plexus_cooldown_active", help, active);
    let help = "Milliseconds until a rest is over.";
    family(page, "plexus_cooldown_time_remaining_ms", help, left);
    let help = "Failures in a row that led to a rest.";
    family(page, "plexus_cooldown_consecutive_failures", help, failures);
}

fn permits(page: &mut String, app: &App) {
    let standings = &app.switchboard.standings;
    let (name, help) = (
        "plexus_concurrency_active",
        "Requests under way to providers with a limit.",
    );
    let _written = writeln!(page, "\n# HELP {name} {help}\n# TYPE {name} gauge");
    let mut houses = standings.houses();
    houses.sort_by(|a, b| a.id.cmp(&b.id));
    for house in houses.iter().filter(|house| house.permits.active() > 0) {
        let (provider, active) = (label(&house.id), house.permits.active());
        let _written = writeln!(page, "{name}{{provider=\"{provider}\"}} {active}");
    }
    let targets = standings.targets();
    let busy = targets.iter().filter(|target| target.permits.active() > 0);
    let rows = busy.map(|target| {
        let active = f64::from(target.permits.active());
        (
            target.house.id.to_string(),
            target.model.to_string(),
            active,
        )
    });
    let help = "Requests under way to targets with a limit.";
    family(
        page,
        "plexus_concurrency_active_by_target",
        help,
        rows.collect(),
    );
}

/// A family of measurements: the end of its name, its help, its value.
type Measured = (&'static str, &'static str, fn(&Statistics) -> Option<f64>);

const MEASURED: [Measured; 9] = [
    (
        "avg_ttft_ms",
        "Mean time to the first token of the last answers, milliseconds.",
        |s| s.ttft_ms.map(|extent| extent.mean.into()),
    ),
    (
        "min_ttft_ms",
        "Shortest time to the first token of the last answers, milliseconds.",
        |s| s.ttft_ms.map(|extent| extent.least.into()),
    ),
    (
        "max_ttft_ms",
        "Longest time to the first token of the last answers, milliseconds.",
        |s| s.ttft_ms.map(|extent| extent.most.into()),
    ),
    (
        "avg_tokens_per_sec",
        "Mean speed of the last answers.",
        |s| s.speed.map(|extent| extent.mean.into()),
    ),
    (
        "min_tokens_per_sec",
        "Lowest speed of the last answers.",
        |s| s.speed.map(|extent| extent.least.into()),
    ),
    (
        "max_tokens_per_sec",
        "Highest speed of the last answers.",
        |s| s.speed.map(|extent| extent.most.into()),
    ),
    ("sample_count", "Measurements that selectors go by.", |s| {
        Some(s.samples.into())
    }),
    ("success_count", "Answers among the measurements.", |s| {
        Some(s.answered.into())
    }),
    ("failure_count", "Failures among the measurements.", |s| {
        Some((s.samples - s.answered).into())
    }),
];

fn measurements(page: &mut String, app: &App) {
    let targets = app.switchboard.standings.targets();
    let measured: Vec<_> = targets
        .iter()
        .map(|target| (target, target.window.statistics()))
        .filter(|(_, statistics)| statistics.samples > 0)
        .collect();
    for (suffix, help, of) in MEASURED {
        let rows = measured.iter().filter_map(|(target, statistics)| {
            let value = of(statistics)?;
            Some((target.house.id.to_string(), target.model.to_string(), value))
        });
        family(page, &format!("plexus_perf_{suffix}"), help, rows.collect());
    }
}

fn family(page: &mut String, name: &str, help: &str, mut rows: Vec<Row>) {
    rows.sort_by(|(p, m, _), (q, n, _)| (p, m).cmp(&(q, n)));
    let _written = writeln!(page, "\n# HELP {name} {help}\n# TYPE {name} gauge");
    for (provider, model, value) in rows {
        let (provider, model) = (label(&provider), label(&model));
        let _written = writeln!(
            page,
            "{name}{{provider=\"{provider}\",model=\"{model}\"}} {value}"
        );
    }
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
