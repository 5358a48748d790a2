//! Counters and gauges for Prometheus: `GET /v0/management/metrics`.

use std::fmt::Write as _;
use std::time::Instant;

use super::{Answer, Call, Reply};
use crate::app::App;
use crate::inference;

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
type Row = (String, String, i64);

/// Rests and permits, which routing keeps.
fn routing(page: &mut String, app: &App) {
    let switchboard = &app.switchboard;
    let now = switchboard.now(Instant::now());
    let (mut left, mut failures, mut permits) = (Vec::new(), Vec::new(), Vec::new());
    for standing in switchboard.standings.targets() {
        let name = || (standing.house.id.to_string(), standing.model.to_string());
        if let Some(rest) = standing.cooldown.rest().filter(|rest| rest.until > now) {
            let (provider, model) = name();
            left.push((provider, model, rest.until - now));
            let (provider, model) = name();
            failures.push((provider, model, i64::from(rest.failures)));
        }
        let active = standing.permits.active();
        if active > 0 {
            let (provider, model) = name();
            permits.push((provider, model, i64::from(active)));
        }
    }
    let active: Vec<Row> = left
        .iter()
        .map(|(p, m, _)| (p.clone(), m.clone(), 1))
        .collect();
    let families: [(&str, &str, Vec<Row>); 4] = [
        (
            "plexus_cooldown_active",
            "Targets that rest after failures.",
            active,
        ),
        (
            "plexus_cooldown_time_remaining_ms",
            "Milliseconds until a rest is over.",
            left,
        ),
        (
            "plexus_cooldown_consecutive_failures",
            "Failures in a row that led to a rest.",
            failures,
        ),
        (
            "plexus_concurrency_active_by_target",
            "Requests under way to targets with a limit.",
            permits,
        ),
    ];
    for (name, help, mut rows) in families {
        rows.sort();
        family(page, name, help, &rows);
    }
    let purse = i64::try_from(switchboard.budget.left()).unwrap_or(i64::MAX);
    let (name, help) = ("plexus_retry_budget", "Second tries that are saved.");
    // Writing to a string cannot fail.
    let _written = writeln!(
        page,
        "\n# HELP {name} {help}\n# TYPE {name} gauge\n{name} {purse}"
    );
}

fn family(page: &mut String, name: &str, help: &str, rows: &[Row]) {
    let _written = writeln!(page, "\n# HELP {name} {help}\n# TYPE {name} gauge");
    for (provider, model, value) in rows {
        let (provider, model) = (label(provider), label(model));
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
