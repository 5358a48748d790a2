//! The log at run time: its level, its modules, its last lines and those that
//! come. `/v0/management/logging` and `/v0/system/logs`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Answer, Call, Refusal, Reply};
use crate::app::Core;
use crate::telemetry::{KEPT, LEVELS, LogLine, Telemetry};

/// How often a listener is told that it is still listened to.
const PING: Duration = Duration::from_secs(10);
/// Pieces that wait for a listener; each holds at most the lines that are kept.
const WAITING: usize = 1;

/// The level in force.
pub fn level(call: Call) -> Answer {
    Box::pin(async move { Ok(shown_level(&call.app().telemetry)) })
}

/// Sets the level until the process ends.
pub fn set_level(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await?;
        let level = body.get("level").and_then(Value::as_str);
        let level = level.ok_or_else(|| bad_level("level: text is wanted"))?;
        let telemetry = &call.app().telemetry;
        let set = telemetry.set_level(level);
        set.map_err(|error| bad_level(&error.to_string()))?;
        tracing::info!(level = telemetry.level(), "the log's level was set");
        Ok(shown_level(telemetry))
    })
}

/// Sets it back to what it was at the start.
pub fn reset_level(call: Call) -> Answer {
    Box::pin(async move {
        let telemetry = &call.app().telemetry;
        let set = telemetry.set_level(telemetry.startup_level());
        set.map_err(|error| bad_level(&error.to_string()))?;
        Ok(shown_level(telemetry))
    })
}

fn bad_level(message: &str) -> Refusal {
    Refusal::bad(message).with("supportedLevels", LEVELS.to_vec())
}

fn shown_level(telemetry: &Telemetry) -> Reply {
    Reply::json(&json!({
        "level": telemetry.level(),
        "startupLevel": telemetry.startup_level(),
        "supportedLevels": LEVELS,
        "ephemeral": true,
    }))
}

/// The modules that are logged; empty is all.
pub fn modules(call: Call) -> Answer {
    Box::pin(async move { Ok(shown_modules(&call.app().telemetry)) })
}

/// Sets the modules until the process ends.
pub fn set_modules(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await?;
        let modules = body.get("modules").and_then(Value::as_array);
        let names = |items: &Vec<Value>| {
            let names = items.iter().map(|item| item.as_str().map(str::to_owned));
            names.collect::<Option<Vec<String>>>()
        };
        let modules = modules.and_then(names);
        let modules = modules.ok_or_else(|| Refusal::bad("modules: a list of names is wanted"))?;
        if modules.len() > 256 {
            return Err(Refusal::bad("modules: at most 256 names are wanted"));
        }
        call.app().telemetry.set_modules(modules);
        Ok(shown_modules(&call.app().telemetry))
    })
}

/// Sets them back to those of the configuration.
pub fn reset_modules(call: Call) -> Answer {
    Box::pin(async move {
        let modules = call.config.logging.modules.clone();
        call.app().telemetry.set_modules(modules);
        Ok(shown_modules(&call.app().telemetry))
    })
}

fn shown_modules(telemetry: &Telemetry) -> Reply {
    Reply::json(&json!({ "modules": telemetry.modules() }))
}

/// The last lines, newest first.
pub fn recent(call: Call) -> Answer {
    Box::pin(async move {
        let most = KEPT as u64;
        let limit = call.whole("limit")?.unwrap_or(100).min(most);
        let offset = call.whole("offset")?.unwrap_or(0);
        let lines = call.app().telemetry.lines_after(0);
        let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let page = lines.iter().rev().skip(place(offset)).take(place(limit));
        let data: Vec<Value> = page.map(|line| Value::Object(shown(line))).collect();
        Ok(Reply::json(&json!({
            "data": data,
            "total": lines.len(),
            "limit": limit,
            "offset": offset,
        })))
    })
}

/// The lines as they come. Ends when the server drains.
pub fn stream(call: Call) -> Answer {
    Box::pin(async move {
        let (sender, feed) = mpsc::channel(WAITING);
        let listener = Listener {
            core: Arc::clone(&call.core),
            sender,
        };
        // Ends with its client, or with the server.
        tokio::spawn(listener.run());
        Ok(Reply::events(feed))
    })
}

/// Somebody who watches the log.
struct Listener {
    core: Arc<Core>,
    sender: mpsc::Sender<Bytes>,
}

impl Listener {
    async fn run(self) {
        tokio::select! {
            () = self.tell() => {}
            () = self.sender.closed() => {}
            () = self.core.drained() => {}
        }
    }

    /// Tells lines and pings until nobody takes them. While the client is slow
    /// nothing is gathered but what the log keeps for everybody.
    async fn tell(&self) {
        let telemetry = &self.core.app.telemetry;
        let mut last = telemetry.listen();
        let mut seen = *last.borrow_and_update();
        let mut pings = tokio::time::interval_at(Instant::now() + PING, PING);
        loop {
            let piece = tokio::select! {
                changed = last.changed() => match changed {
                    Ok(()) => told(&telemetry.lines_after(seen), &mut seen),
                    Err(_) => return,
                },
                _ = pings.tick() => String::from("event: ping\ndata: pong\n\n"),
            };
            if !piece.is_empty() && self.sender.send(piece.into()).await.is_err() {
                return;
            }
        }
    }
}

/// Lines as events; a gap before them is told, too.
fn told(lines: &[LogLine], seen: &mut u64) -> String {
    let mut text = String::new();
    if let Some(first) = lines.first()
        && first.number > *seen + 1
    {
        let lost = json!({
            "message": format!("{} lines were passed over: this listener is too slow", first.number - *seen - 1),
            "level": "warn",
            "timestamp": timestamp(first.time_ms),
            "module": module_path!(),
            "functionName": null,
        });
        push(&mut text, first.time_ms, &lost);
    }
    for line in lines {
        *seen = line.number;
        push(&mut text, line.time_ms, &Value::Object(shown(line)));
    }
    text
}

fn push(text: &mut String, id: i64, data: &Value) {
    text.push_str(&format!("event: syslog\nid: {id}\ndata: {data}\n\n"));
}

/// A line as JSON; its own names win over those of its fields.
fn shown(line: &LogLine) -> Map<String, Value> {
    let own = [
        ("message", line.message.as_str().into()),
        ("level", line.level.to_ascii_lowercase().into()),
        ("timestamp", timestamp(line.time_ms)),
        ("module", line.module.as_str().into()),
        ("functionName", Value::Null),
    ];
    let mut shown: Map<String, Value> = own
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect();
    for (name, value) in &line.fields {
        shown
            .entry((*name).to_owned())
            .or_insert_with(|| value.as_str().into());
    }
    shown
}

/// `2026-11-20 18:03:36`, in the server's own time zone.
fn timestamp(ms: i64) -> Value {
    let time = Timestamp::from_millisecond(ms).ok();
    let time = time.map(|time| time.to_zoned(TimeZone::system()));
    time.map_or(Value::Null, |time| {
        time.strftime("%Y-%m-%d %H:%M:%S").to_string().into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64) -> LogLine {
        LogLine {
            number,
            time_ms: 1_769_860_800_000,
            level: "INFO",
            module: "plexus::server".into(),
            message: format!("line {number}"),
            fields: vec![("port", "1".into()), ("level", "fake".into())],
        }
    }

    #[test]
    fn lines_become_events_and_a_gap_is_told() {
        let mut seen = 2;
        let text = told(&[line(3), line(4)], &mut seen);
        assert_eq!((seen, text.matches("event: syslog\n").count()), (4, 2));
        assert!(text.starts_with(
            "event: syslog\nid: 1769860800000\ndata: {\"message\":\"line 3\",\"level\":\"info\""
        ));
        let text = told(&[line(9)], &mut seen);
        assert!(text.contains("4 lines were passed over"), "{text}");
        assert_eq!(told(&[], &mut seen), "");
    }

    #[test]
    fn a_lines_own_names_win_over_its_fields() {
        let shown = shown(&line(1));
        assert_eq!(shown["level"], "info");
        assert_eq!(shown["port"], "1");
        let time = shown["timestamp"].as_str().unwrap();
        assert_eq!(time.len(), "2026-11-20 18:03:36".len());
    }
}
