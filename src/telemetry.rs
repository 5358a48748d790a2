//! The log: what is let through, how it looks, who writes it down.
//!
//! A thread that logs builds a line and hands it to a queue; another thread
//! writes it to standard error and keeps the last thousand for whoever wants
//! to look. If standard error is slow, lines are dropped and counted, and
//! nobody waits.
//!
//! This file must not know what is logged. Secrets are kept out by whoever
//! logs.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

/// Lines kept for whoever wants to look.
pub const KEPT: usize = 1000;

/// Lines that wait to be written at most.
const WAITING: usize = 2048;

/// Bytes of one line's message, or of one field, at most.
const TEXT_LIMIT: usize = 4096;

/// Fields of one line at most.
const FIELD_LIMIT: usize = 32;

/// The levels that can be set, the most silent first.
pub const LEVELS: [&str; 7] = [
    "error", "warn", "info", "debug", "trace", "verbose", "silly",
];

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Counts lines since start, from 1.
    pub number: u64,
    /// When it was logged, milliseconds since the epoch.
    pub time_ms: i64,
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: &'static str,
    /// The module that logged.
    pub module: String,
    /// What it said; control characters are escaped.
    pub message: String,
    /// What it spoke of, in order; control characters are escaped.
    pub fields: Vec<(&'static str, String)>,
}

/// Why a level was not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLevel(
    /// What was asked for.
    pub String,
);

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown log level {:?}, use one of {}",
            self.0,
            LEVELS.join(", ")
        )
    }
}

impl std::error::Error for UnknownLevel {}

/// Why logging could not be started.
#[derive(Debug)]
pub enum InitError {
    /// There is no such level.
    Level(UnknownLevel),
    /// The thread that writes lines could not be started.
    Thread(io::Error),
    /// Something else already logs in this process.
    Taken,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => level.fmt(f),
            Self::Thread(reason) => write!(f, "no thread for the log: {reason}"),
            Self::Taken => f.write_str("the log has been set up before"),
        }
    }
}

impl std::error::Error for InitError {}

/// The log's switches and its last lines. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
    filter: reload::Handle<Targets, Registry>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let setting = self.shared.setting.lock();
        f.debug_struct("Telemetry")
            .field("level", &setting.level)
            .field("modules", &setting.modules)
            .finish_non_exhaustive()
    }
}

/// Starts logging to standard error for the whole process.
///
/// # Errors
///
/// The level is unknown, or the process logs already.
pub fn init(level: &str, modules: &[String], json: bool) -> Result<Telemetry, InitError> {
    let (telemetry, dispatch) = Telemetry::new(level, modules, json, io::stderr())?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_taken| InitError::Taken)?;
    Ok(telemetry)
}

impl Telemetry {
    /// A log that writes to `output`, and what to install for it.
    ///
    /// # Errors
    ///
    /// The level is unknown, or no thread could be started.
    pub fn new(
        level: &str,
        modules: &[String],
        json: bool,
        output: impl Write + Send + 'static,
    ) -> Result<(Self, Dispatch), InitError> {
        let level = known(level).map_err(InitError::Level)?;
        let (sender, receiver) = bounded(WAITING);
        let setting = Setting {
            level,
            modules: modules.to_vec(),
        };
        let (filter, handle) = reload::Layer::new(setting.targets());
        let shared = Arc::new(Shared {
            sender,
            startup: level,
            setting: Mutex::new(setting),
            kept: Mutex::new(VecDeque::new()),
            last: watch::Sender::new(0),
            dropped: AtomicU64::new(0),
        });
        let scribe = Scribe {
            receiver,
            kept: Arc::downgrade(&shared),
            json,
            output,
            number: 0,
            dropped_told: 0,
        };
        thread::Builder::new()
            .name("plexus-log".to_owned())
            .spawn(move || scribe.run())
            .map_err(InitError::Thread)?;
        let recorder = Recorder {
            shared: Arc::clone(&shared),
        };
        let subscriber = Registry::default().with(filter).with(recorder);
        let telemetry = Self {
            shared,
            filter: handle,
        };
        Ok((telemetry, Dispatch::new(subscriber)))
    }

    /// The level in force.
    #[must_use]
    pub fn level(&self) -> &'static str {
        self.shared.setting.lock().level
    }

    /// The level that the process was started with.
    #[must_use]
    pub fn startup_level(&self) -> &'static str {
        self.shared.startup
    }

    /// The modules that are logged; empty is all.
    #[must_use]
    pub fn modules(&self) -> Vec<String> {
        self.shared.setting.lock().modules.clone()
    }

    /// Changes the level at once; one of [`LEVELS`], in any case.
    ///
    /// # Errors
    ///
    /// There is no such level; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), UnknownLevel> {
        let level = known(level)?;
        let mut setting = self.shared.setting.lock();
        setting.level = level;
        self.apply(&setting);
        Ok(())
    }

    /// Changes the modules at once: names with or without `plexus::`. Errors
    /// of all modules are logged whatever is set here. Empty is all.
    pub fn set_modules(&self, modules: Vec<String>) {
        let mut setting = self.shared.setting.lock();
        setting.modules = modules;
        self.apply(&setting);
    }

    /// The kept lines with a number above `after`, oldest first.
    #[must_use]
    pub fn lines_after(&self, after: u64) -> Vec<LogLine> {
        let kept = self.shared.kept.lock();
        let from = kept.partition_point(|line| line.number <= after);
        kept.iter().skip(from).cloned().collect()
    }

    /// The number of the last line, as it changes. A listener holds nothing but
    /// this and takes lines when it can: who is slow loses lines and delays nobody.
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<u64> {
        self.shared.last.subscribe()
    }

    /// Lines dropped since start because the output was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines logged before are written, at most `limit`; says
    /// whether they are. Blocks.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        let (answer, answered) = bounded(1);
        let sent = self
            .shared
            .sender
            .send_timeout(Message::Flush(answer), limit);
        sent.is_ok() && answered.recv_timeout(limit).is_ok()
    }

    fn apply(&self, setting: &Setting) {
        // The log is gone only when the process is.
        let _gone = self.filter.reload(setting.targets());
    }
}

struct Shared {
    sender: Sender<Message>,
    startup: &'static str,
    setting: Mutex<Setting>,
    kept: Mutex<VecDeque<LogLine>>,
    /// The number of the last line that was kept.
    last: watch::Sender<u64>,
    dropped: AtomicU64,
}

struct Setting {
    level: &'static str,
    modules: Vec<String>,
}

impl Setting {
    /// Libraries never say more than warnings: what they say below that may
    /// hold headers, and with them keys.
    fn targets(&self) -> Targets {
        let level = filter(self.level);
        if self.modules.is_empty() {
            let libraries = level.min(LevelFilter::WARN);
            return Targets::new()
                .with_default(libraries)
                .with_target("plexus", level);
        }
        let modules = self.modules.iter().map(|module| {
            let module = module.trim();
            if module == "plexus" || module.starts_with("plexus::") {
                module.to_owned()
            } else {
                format!("plexus::{module}")
            }
        });
        Targets::new()
            .with_default(LevelFilter::ERROR)
            .with_targets(modules.map(|module| (module, level)))
    }
}

fn known(level: &str) -> Result<&'static str, UnknownLevel> {
    LEVELS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(level.trim()))
        .ok_or_else(|| UnknownLevel(level.to_owned()))
}

fn filter(level: &str) -> LevelFilter {
    match level {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

enum Message {
    Line(Box<LogLine>),
    Flush(Sender<()>),
}

/// Turns events into lines, in the thread that logs.
struct Recorder {
    shared: Arc<Shared>,
}

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut line = LogLine {
            number: 0,
            time_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            level: metadata.level().as_str(),
            module: clean(metadata.target()),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut Collector(&mut line));
        if self
            .shared
            .sender
            .try_send(Message::Line(Box::new(line)))
            .is_err()
        {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Collector<'a>(&'a mut LogLine);

impl Collector<'_> {
    fn put(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.0.message = text;
        } else if self.0.fields.len() < FIELD_LIMIT {
            self.0.fields.push((field.name(), text));
        }
    }
}

impl Visit for Collector<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, clean(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut cleaner = Cleaner::default();
        // Stops early when the text is long enough.
        let _cut = write!(cleaner, "{value:?}");
        self.put(field, cleaner.finish());
    }
}

/// The text with control characters escaped, so that what comes from outside
/// can neither begin a line of its own nor command a terminal; cut at a limit.
fn clean(text: &str) -> String {
    let mut cleaner = Cleaner::default();
    // Stops early when the text is long enough.
    let _cut = cleaner.write_str(text);
    cleaner.finish()
}

#[derive(Default)]
struct Cleaner {
    text: String,
    cut: bool,
}

impl Cleaner {
    fn finish(mut self) -> String {
        if self.cut {
            self.text.push('…');
        }
        self.text
    }
}

impl fmt::Write for Cleaner {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.text.len() >= TEXT_LIMIT {
                self.cut = true;
                return Err(fmt::Error);
            }
            match c {
                '\t' => self.text.push_str("\\t"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\u{2028}'
                | '\u{2029}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' => write!(self.text, "\\u{{{:x}}}", u32::from(c))?,
                c if c.is_control() => write!(self.text, "\\u{{{:x}}}", u32::from(c))?,
                c => self.text.push(c),
            }
        }
        Ok(())
    }
}

/// Writes lines down, in a thread of its own.
struct Scribe<W> {
    receiver: Receiver<Message>,
    kept: std::sync::Weak<Shared>,
    json: bool,
    output: W,
    number: u64,
    dropped_told: u64,
}

impl<W: Write> Scribe<W> {
    fn run(mut self) {
        while let Ok(message) = self.receiver.recv() {
            self.take(message);
            if self.receiver.is_empty() {
                self.tell_drops();
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line) => self.write(*line),
            Message::Flush(answer) => {
                self.tell_drops();
                // Whoever asked may have gone.
                let _gone = answer.try_send(());
            }
        }
    }

    fn write(&mut self, mut line: LogLine) {
        self.number += 1;
        line.number = self.number;
        let mut text = if self.json { json(&line) } else { plain(&line) };
        text.push('\n');
        // There is nowhere to say that the log cannot be written.
        let _lost = self
            .output
            .write_all(text.as_bytes())
            .and_then(|()| self.output.flush());
        if let Some(shared) = self.kept.upgrade() {
            let mut kept = shared.kept.lock();
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            kept.push_back(line);
            drop(kept);
            shared.last.send_replace(self.number);
        }
    }

    fn tell_drops(&mut self) {
        let Some(shared) = self.kept.upgrade() else {
            return;
        };
        let dropped = shared.dropped.load(Ordering::Relaxed);
        let new = dropped - self.dropped_told;
        if new == 0 {
            return;
        }
        self.dropped_told = dropped;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.write(LogLine {
            number: 0,
            time_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            level: "WARN",
            module: module_path!().to_owned(),
            message: "log lines were dropped: the output is too slow".to_owned(),
            fields: vec![("lines", new.to_string())],
        });
    }
}

fn time(line: &LogLine) -> String {
    Timestamp::from_millisecond(line.time_ms)
        .map_or_else(|_| line.time_ms.to_string(), |time| format!("{time:.3}"))
}

fn plain(line: &LogLine) -> String {
    let mut text = format!(
        "{} {:>5} {}: {}",
        time(line),
        line.level,
        line.module,
        line.message
    );
    for (name, value) in &line.fields {
        let quote = if value.contains([' ', '"', '=']) {
            "\""
        } else {
            ""
        };
        let value = value.replace('"', "\\\"");
        // Writing to a string cannot fail.
        let _written = write!(text, " {name}={quote}{value}{quote}");
    }
    text
}

fn json(line: &LogLine) -> String {
    let mut object = Map::new();
    for (name, value) in &line.fields {
        object.insert((*name).to_owned(), Value::from(value.as_str()));
    }
    // Ours come last and win over fields of the same name.
    for (name, value) in [
        ("timestamp", time(line)),
        ("level", line.level.to_ascii_lowercase()),
        ("module", line.module.clone()),
        ("message", line.message.clone()),
    ] {
        object.insert(name.to_owned(), value.into());
    }
    Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(level: &str, json: bool, work: impl FnOnce(&Telemetry)) -> String {
        let sink = Sink::default();
        let (telemetry, dispatch) = Telemetry::new(level, &[], json, sink.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, || work(&telemetry));
        assert!(telemetry.flush(LIMIT));
        sink.text()
    }

    #[test]
    fn a_line_has_time_level_module_message_and_fields() {
        let text = log("info", false, |_| {
            tracing::warn!(target: "plexus::server", port = 4000, host = "a b", "listening");
        });
        let (time, rest) = text.split_at("2026-01-31T12:00:00.000Z".len());
        assert!(
            time.ends_with('Z') && time.parse::<Timestamp>().is_ok(),
            "{time}"
        );
        assert_eq!(
            rest,
            "  WARN plexus::server: listening port=4000 host=\"a b\"\n"
        );
    }

    #[test]
    fn input_cannot_forge_a_line_or_command_a_terminal() {
        let evil = "x\nERROR forged\r\u{1b}[2J\u{9b}1m\u{202e}";
        for json in [false, true] {
            let text = log("info", json, |_| {
                tracing::info!(target: "plexus", name = evil, debug = ?evil, "said {evil}");
            });
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(text.ends_with('\n'));
            let controls = text.trim_end_matches('\n').chars().any(char::is_control);
            assert!(!controls && !text.contains('\u{202e}'), "{text:?}");
        }
    }

    #[test]
    fn json_lines_are_objects_whose_own_names_win() {
        let text = log("info", true, |_| {
            tracing::info!(target: "plexus::server", level = "fake", port = 1, "up");
        });
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "info");
        assert_eq!(line["module"], "plexus::server");
        assert_eq!(line["message"], "up");
        assert_eq!(line["port"], "1");
    }

    #[test]
    fn the_level_changes_at_once_and_an_unknown_one_changes_nothing() {
        let text = log("warn", false, |telemetry| {
            tracing::info!(target: "plexus", "one");
            telemetry.set_level("DEBUG").unwrap();
            tracing::debug!(target: "plexus", "two");
            assert_eq!(
                telemetry.set_level("loud"),
                Err(UnknownLevel("loud".into()))
            );
            assert_eq!(telemetry.level(), "debug");
            assert_eq!(telemetry.startup_level(), "warn");
        });
        assert!(!text.contains("one") && text.contains("two"), "{text}");
    }

    #[test]
    fn only_set_modules_are_logged_and_errors_always_are() {
        let text = log("info", false, |telemetry| {
            telemetry.set_modules(vec!["routing".to_owned()]);
            tracing::info!(target: "plexus::routing::select", "inside");
            tracing::info!(target: "plexus::server", "outside");
            tracing::error!(target: "plexus::server", "trouble");
            telemetry.set_modules(Vec::new());
            tracing::info!(target: "plexus::server", "again");
        });
        assert!(
            text.contains("inside") && text.contains("trouble"),
            "{text}"
        );
        assert!(
            !text.contains("outside") && text.contains("again"),
            "{text}"
        );
    }

    #[test]
    fn libraries_say_no_more_than_warnings_on_any_level() {
        let text = log("silly", false, |_| {
            tracing::trace!(target: "h2::codec", "authorization: Bearer");
            tracing::warn!(target: "h2::codec", "odd frame");
            tracing::trace!(target: "plexus", "ours");
        });
        assert!(!text.contains("Bearer"), "{text}");
        assert!(
            text.contains("odd frame") && text.contains("ours"),
            "{text}"
        );
    }

    #[test]
    fn the_last_thousand_lines_are_kept_in_order() {
        let sink = Sink::default();
        let (telemetry, dispatch) = Telemetry::new("info", &[], false, sink).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            for i in 0..KEPT + 10 {
                tracing::info!(target: "plexus", "line {i}");
            }
        });
        assert!(telemetry.flush(LIMIT));
        let lines = telemetry.lines_after(0);
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines[0].message, "line 10");
        let last = lines.last().unwrap().number;
        assert_eq!(telemetry.lines_after(last - 2).len(), 2);
        assert_eq!(telemetry.lines_after(last), Vec::new());
    }

    #[test]
    fn a_stuck_output_stalls_nobody_and_drops_are_counted_and_told() {
        struct Stuck(Arc<Mutex<()>>, Sink);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _wait = self.0.lock();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let gate = Arc::new(Mutex::new(()));
        let sink = Sink::default();
        let output = Stuck(Arc::clone(&gate), sink.clone());
        let (telemetry, dispatch) = Telemetry::new("info", &[], false, output).unwrap();
        let held = gate.lock();
        let sent = WAITING as u64 + 100;
        tracing::dispatcher::with_default(&dispatch, || {
            for i in 0..sent {
                tracing::info!(target: "plexus", "line {i}");
            }
        });
        let dropped = telemetry.dropped();
        // One line may be on its way to the output.
        assert!((99..=100).contains(&dropped), "{dropped}");
        drop(held);
        assert!(telemetry.flush(LIMIT));
        let text = sink.text();
        assert!(
            text.contains(&format!("dropped: the output is too slow lines={dropped}")),
            "{text}"
        );
        assert_eq!(text.lines().count() as u64, sent - dropped + 1);
    }

    #[test]
    fn a_huge_text_is_cut() {
        let text = log("info", false, |_| {
            tracing::info!(target: "plexus", "{}", "é".repeat(1_000_000));
        });
        assert!(text.len() < TEXT_LIMIT + 100, "{}", text.len());
    }
}
