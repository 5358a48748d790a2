//! What is not an entry of a section: the pages of `/v0/management/config/*`,
//! and the same by flat names as `/v0/management/system-settings`.
//!
//! Both are views of the file. What a field means and which values it takes is
//! the check's business; here it has a name on a page and a place in the file.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::entry::Fields;
use super::tag::{Condition, Tag};
use super::write::{self, Stop};
use super::{Answer, Call, Refusal, Reply};
use crate::config::{Config, Draft, knows, nearest};

/// Sections that are no settings; they have endpoints of their own.
pub(super) const SECTIONS: [&str; 5] =
    ["providers", "models", "keys", "user_quotas", "mcp_servers"];

/// Sections whose fields have flat names with a dot.
pub(super) const DOTTED: [&str; 5] = [
    "failover",
    "cooldown",
    "timeout",
    "stall",
    "backgroundExploration",
];

/// Where the file keeps what nothing else knows.
const CUSTOM: &str = "custom";

/// A group of settings that is read and changed together.
#[derive(Debug)]
pub struct Page {
    holds: Holds,
    /// What a refusal is called, where it has a name of its own.
    refusal: Option<&'static str>,
}

#[derive(Debug)]
enum Holds {
    /// These, and no others.
    Settings(&'static [Setting]),
    /// Whatever the section of that name has.
    Section(&'static str),
}

/// A field of a page.
#[derive(Debug)]
struct Setting {
    /// Its name on the page.
    name: &'static str,
    /// Where the file has it.
    path: &'static [&'static str],
    /// Whether a text that is a number will do for one.
    numeric: bool,
    /// Whether null is a value of its own; else it means: as if unsaid.
    nullable: bool,
}

const fn page(settings: &'static [Setting]) -> Page {
    Page {
        holds: Holds::Settings(settings),
        refusal: None,
    }
}

const fn setting(name: &'static str, path: &'static [&'static str]) -> Setting {
    Setting {
        name,
        path,
        numeric: false,
        nullable: false,
    }
}

const fn number(name: &'static str, path: &'static [&'static str]) -> Setting {
    Setting {
        numeric: true,
        ..setting(name, path)
    }
}

const fn nullable(name: &'static str, path: &'static [&'static str]) -> Setting {
    Setting {
        nullable: true,
        ..number(name, path)
    }
}

/// When the next target is tried.
pub static FAILOVER: Page = page(&[
    setting("enabled", &["failover", "enabled"]),
    setting(
        "retryableStatusCodes",
        &["failover", "retryableStatusCodes"],
    ),
    setting("retryableErrors", &["failover", "retryableErrors"]),
    number("maxAttempts", &["failover", "maxAttempts"]),
]);

/// How often targets are measured that are not the best.
pub static EXPLORATION_RATE: Page = page(&[
    number(
        "performanceExplorationRate",
        &["performanceExplorationRate"],
    ),
    number("latencyExplorationRate", &["latencyExplorationRate"]),
    number(
        "e2ePerformanceExplorationRate",
        &["e2ePerformanceExplorationRate"],
    ),
]);

/// Measuring beside live requests.
pub static BACKGROUND_EXPLORATION: Page = page(&[
    setting("enabled", &["backgroundExploration", "enabled"]),
    number(
        "stalenessThresholdSeconds",
        &["backgroundExploration", "stalenessThresholdSeconds"],
    ),
    number(
        "workerConcurrency",
        &["backgroundExploration", "workerConcurrency"],
    ),
]);

/// How long a target rests after a failure.
pub static COOLDOWN: Page = page(&[
    number("initialMinutes", &["cooldown", "initialMinutes"]),
    number("maxMinutes", &["cooldown", "maxMinutes"]),
]);

/// How long an attempt may take.
pub static TIMEOUT: Page = page(&[
    number("defaultSeconds", &["timeout", "defaultSeconds"]),
    number("connectSeconds", &["timeout", "connectSeconds"]),
]);

/// When a stream counts as stalled.
pub static STALL: Page = page(&[
    nullable("ttfbSeconds", &["stall", "ttfbSeconds"]),
    number("ttfbBytes", &["stall", "ttfbBytes"]),
    nullable("minBytesPerSecond", &["stall", "minBytesPerSecond"]),
    number("windowSeconds", &["stall", "windowSeconds"]),
    number("gracePeriodSeconds", &["stall", "gracePeriodSeconds"]),
    setting("stallCooldown", &["stall", "stallCooldown"]),
]);

/// Who describes images to models that can't see.
pub static VISION_FALLTHROUGH: Page = Page {
    holds: Holds::Section("vision_fallthrough"),
    refusal: None,
};

/// How long conversations are shortened.
pub static COMPACTION: Page = Page {
    holds: Holds::Section("compaction"),
    refusal: Some("Invalid compaction config"),
};

/// Peers whose forwarding headers are believed.
pub static TRUSTED_PROXIES: Page =
    page(&[setting("trustedProxies", &["server", "trustedProxies"])]);

/// Whether a request that fails is captured.
pub static CAPTURE_TRACE_ON_ERROR: Page = page(&[setting("enabled", &["captureTraceOnError"])]);

/// Whether the MCP gateway serves.
pub static MCP_ENABLED: Page = page(&[setting("enabled", &["mcpEnabled"])]);

/// All pages that hold single settings.
static PAGES: [&Page; 9] = [
    &FAILOVER,
    &EXPLORATION_RATE,
    &BACKGROUND_EXPLORATION,
    &COOLDOWN,
    &TIMEOUT,
    &STALL,
    &TRUSTED_PROXIES,
    &CAPTURE_TRACE_ON_ERROR,
    &MCP_ENABLED,
];

impl Page {
    fn settings(&self) -> &'static [Setting] {
        match self.holds {
            Holds::Settings(settings) => settings,
            Holds::Section(_) => &[],
        }
    }

    /// The whole page as a document says it, with what holds where that is
    /// silent.
    fn shown(&self, document: &Value, config: &Config) -> Fields {
        let silent = silent(config);
        let unsaid = json!({
            "server": { "trustedProxies": [] },
            "captureTraceOnError": false,
            "mcpEnabled": true,
        });
        match self.holds {
            Holds::Section(section) => {
                let section = document.get(section).and_then(Value::as_object);
                section.cloned().unwrap_or_default()
            }
            Holds::Settings(settings) => {
                let shown = settings.iter().map(|setting| {
                    let places = [document, &silent, &unsaid];
                    let value = places.iter().find_map(|place| at(place, setting.path));
                    (
                        setting.name.to_owned(),
                        value.cloned().unwrap_or(Value::Null),
                    )
                });
                shown.collect()
            }
        }
    }

    fn reply(&self, config: &Config) -> Reply {
        let shown = Value::Object(self.shown(&config.document, config));
        Reply::json(&shown).tagged(&Tag::of(&shown))
    }

    /// Where a field of a body goes in the file, and its value there.
    fn placed(&self, name: &str, value: Value) -> Result<Placed, Refusal> {
        if let Holds::Section(section) = self.holds {
            let path = vec![section.to_owned(), name.to_owned()];
            return Ok(Placed {
                path,
                value: Some(value).filter(|value| !value.is_null()),
            });
        }
        let settings = self.settings();
        let found = settings.iter().find(|setting| setting.name == name);
        let setting = found.ok_or_else(|| {
            let known = settings.iter().map(|setting| setting.name);
            let hint = nearest(name, known).map(|near| format!("; did you mean \"{near}\"?"));
            Refusal::bad(format!("{name}: unknown field{}", hint.unwrap_or_default()))
        })?;
        Ok(setting.placed(value))
    }

    /// The refusal of a write as this page tells it: in one text, fields by
    /// the names that they have here.
    fn told(&self, mut refusal: Refusal) -> Refusal {
        if refusal.status != StatusCode::BAD_REQUEST {
            return refusal;
        }
        let details = refusal
            .body
            .get_mut("details")
            .and_then(Value::as_array_mut);
        let mut faults = Vec::new();
        for detail in details.into_iter().flatten() {
            let path = self.path_here(detail.get("path").unwrap_or(&Value::Null));
            let message = detail.get("message").and_then(Value::as_str);
            faults.push(format!(
                "{}: {}",
                path.join("."),
                message.unwrap_or_default()
            ));
            if let Some(detail) = detail.as_object_mut() {
                detail.insert("path".to_owned(), path.into());
            }
        }
        match self.refusal {
            Some(name) => refusal.retold(StatusCode::BAD_REQUEST, name),
            None if faults.is_empty() => refusal,
            None => refusal.retold(StatusCode::BAD_REQUEST, &faults.join("; ")),
        }
    }

    fn path_here(&self, path: &Value) -> Vec<String> {
        let path: Vec<String> = path
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        if let Holds::Section(section) = self.holds {
            let inside = path.strip_prefix(&[section.to_owned()]);
            return inside.map_or_else(|| path.clone(), <[String]>::to_vec);
        }
        for setting in self.settings() {
            let own = path
                .iter()
                .zip(setting.path)
                .all(|(one, other)| one == other);
            if own && let Some(rest) = path.get(setting.path.len()..) {
                let name = std::iter::once(setting.name.to_owned());
                return name.chain(rest.iter().cloned()).collect();
            }
        }
        path
    }
}

impl Setting {
    fn placed(&self, value: Value) -> Placed {
        let value = match value {
            Value::Null if !self.nullable => None,
            Value::String(text) if self.numeric => Some(as_number(text)),
            value => Some(value),
        };
        Placed {
            path: self.path.iter().map(ToString::to_string).collect(),
            value,
        }
    }
}

/// A number, if the text is one.
fn as_number(text: String) -> Value {
    let trimmed = text.trim();
    if let Ok(whole) = trimmed.parse::<i64>() {
        return whole.into();
    }
    let number = trimmed
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite());
    number.map_or_else(|| Value::String(text), Value::from)
}

/// A value for a place in the file; none takes away what is there.
struct Placed {
    path: Vec<String>,
    value: Option<Value>,
}

/// The page as it is in force.
pub fn get(page: &'static Page, call: Call) -> Answer {
    Box::pin(async move { Ok(page.reply(&call.config)) })
}

/// Changes some of its fields; the answer is the whole page.
pub fn patch(page: &'static Page, mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await?;
        let condition = Condition::of(&call.headers);
        let change = move |draft: &mut Draft| {
            let document = Arc::clone(draft.says().map_err(write::broken_file)?);
            let shown = page.shown(&document, draft.in_force());
            condition.met(Some(&Tag::of(&Value::Object(shown.clone()))))?;
            let mut placed = Vec::new();
            for (name, value) in body {
                let same = shown.get(&name) == Some(&value);
                let place = page.placed(&name, value)?;
                // What holds anyway need not be said.
                let says = at(&document, &borrowed(&place.path)).is_some();
                if !same && (says || place.value.as_ref() != shown.get(&name)) {
                    placed.push(place);
                }
            }
            put(draft, &condition, placed)
        };
        let written = write::change(&call, Vec::new(), change).await;
        let config = written.map_err(|refusal| page.told(refusal))?;
        Ok(page.reply(&config))
    })
}

/// All settings that the file has, by flat names.
pub fn list(call: Call) -> Answer {
    Box::pin(async move {
        let shown = Value::Object(stored(&call.config.document));
        Ok(Reply::json(&shown).tagged(&Tag::of(&shown)))
    })
}

/// Sets those that are named, takes away those that are null; the others stay.
pub fn patch_all(mut call: Call) -> Answer {
    Box::pin(async move {
        let body = call.object().await?;
        let condition = Condition::of(&call.headers);
        let change = move |draft: &mut Draft| {
            let document = Arc::clone(draft.says().map_err(write::broken_file)?);
            let shown = stored(&document);
            condition.met(Some(&Tag::of(&Value::Object(shown.clone()))))?;
            let body = body.into_iter();
            let changed = body.filter(|(name, value)| shown.get(name) != Some(value));
            let placed = changed.map(|(name, value)| by_flat_name(&name, value));
            put(draft, &condition, placed.collect::<Result<_, _>>()?)
        };
        let config = write::change(&call, Vec::new(), change)
            .await
            .map_err(told_flat)?;
        let tag = Tag::of(&Value::Object(stored(&config.document)));
        Ok(Reply::json(&json!({ "success": true })).tagged(&tag))
    })
}

/// Quotas have the shape of errors that the quotas' endpoints have.
fn told_flat(mut refusal: Refusal) -> Refusal {
    let details = refusal.body.get("details").and_then(Value::as_array);
    let mut details = details.into_iter().flatten();
    let about_quotas = |detail: &Value| detail["path"][0] == "default_quotas";
    if let Some(detail) = details.find(|detail| about_quotas(detail)) {
        let message = format!(
            "default_quotas: {}",
            detail["message"].as_str().unwrap_or_default()
        );
        let error = json!({ "message": message, "type": "invalid_request_error" });
        refusal = refusal.with("error", error);
    }
    refusal
}

/// Where a flat name's value goes in the file.
fn by_flat_name(name: &str, value: Value) -> Result<Placed, Refusal> {
    let path: Vec<&str> = match name.split_once('.') {
        _ if SECTIONS.contains(&name) || name == "mcpServers" => {
            return Err(Refusal::bad(format!(
                "{name} is not a setting; /v0/management has endpoints for it"
            )));
        }
        _ if name == "trustedProxies" => vec!["server", name],
        _ if name != CUSTOM && knows(name) => vec![name],
        Some((section, _))
            if section != CUSTOM && !SECTIONS.contains(&section) && knows(section) =>
        {
            name.split('.').collect()
        }
        _ => vec![CUSTOM, name],
    };
    let known = PAGES.iter().flat_map(|page| page.settings());
    if let Some(setting) = known.clone().find(|setting| setting.path == path) {
        return Ok(setting.placed(value));
    }
    Ok(Placed {
        path: path.into_iter().map(str::to_owned).collect(),
        value: Some(value).filter(|value| !value.is_null()),
    })
}

/// The settings that a document has, by flat names.
fn stored(document: &Value) -> Fields {
    let mut settings = of(document);
    // It opens the gateway; who may read this has it already.
    settings.shift_remove("adminKey");
    flat(settings)
}

/// A document without the sections that are no settings.
fn of(document: &Value) -> Fields {
    let fields = document.as_object().into_iter().flatten();
    let settings = fields.filter(|(name, _)| !SECTIONS.contains(&name.as_str()));
    settings
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Settings by flat names: `failover.enabled`, `trustedProxies`, `default_quotas`.
pub(super) fn flat(settings: Fields) -> Fields {
    let mut flat = Fields::new();
    for (name, value) in settings {
        match (name.as_str(), value) {
            (section, Value::Object(fields)) if DOTTED.contains(&section) => {
                let named = fields.into_iter();
                flat.extend(named.map(|(field, value)| (format!("{name}.{field}"), value)));
            }
            (CUSTOM, Value::Object(fields)) => flat.extend(fields),
            ("server", Value::Object(mut fields)) => {
                let proxies = fields.shift_remove("trustedProxies");
                flat.extend(proxies.map(|proxies| ("trustedProxies".to_owned(), proxies)));
                flat.insert(name, Value::Object(fields));
            }
            (_, value) => drop(flat.insert(name, value)),
        }
    }
    flat
}

/// Writes values into the file, section by section. What was changed by hand in
/// the same place stands against it.
fn put(draft: &mut Draft, condition: &Condition, placed: Vec<Placed>) -> Result<(), Stop> {
    let document = Arc::clone(draft.says().map_err(write::broken_file)?);
    let before = of(&document);
    let mut after = before.clone();
    let mut clashes = Vec::new();
    for Placed { path, value } in placed {
        let names = borrowed(&path);
        let (in_force, on_disk) = (
            at(&draft.in_force().document, &names),
            at(&document, &names),
        );
        if in_force != on_disk && value.as_ref() != on_disk && !condition.is_careful() {
            write::differences(&mut path.clone(), in_force, on_disk, 1, &mut clashes);
        }
        place(&mut after, &names, value);
    }
    if !clashes.is_empty() {
        return Err(write::clash(clashes).into());
    }
    for (name, value) in &after {
        if before.get(name) != Some(value) {
            put_section(draft, name, value)?;
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        draft.remove(&[name])?;
    }
    Ok(())
}

fn put_section(draft: &mut Draft, name: &str, value: &Value) -> Result<(), Stop> {
    // Where the file has the proxies outside of the server's section.
    if name == "server" && draft.has(&["trustedProxies"]) {
        let mut fields = value.as_object().cloned().unwrap_or_default();
        match fields.shift_remove("trustedProxies") {
            Some(proxies) => draft.set(&["trustedProxies"], &proxies)?,
            None => draft.remove(&["trustedProxies"])?,
        }
        if !fields.is_empty() || draft.has(&["server"]) {
            draft.set(&["server"], &Value::Object(fields))?;
        }
        return Ok(());
    }
    Ok(draft.set(&[name], value)?)
}

fn borrowed(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| value.get(*name))
}

/// Puts a value at a path, or takes what is there away.
fn place(fields: &mut Fields, path: &[&str], value: Option<Value>) {
    match (path, value) {
        ([], _) => {}
        ([name], None) => drop(fields.shift_remove(*name)),
        (["server"], Some(Value::Object(mut server))) => {
            // The proxies have a flat name of their own.
            let proxies = fields
                .get("server")
                .and_then(|server| server.get("trustedProxies"));
            if let Some(proxies) = proxies.filter(|_| !server.contains_key("trustedProxies")) {
                server.insert("trustedProxies".to_owned(), proxies.clone());
            }
            fields.insert("server".to_owned(), Value::Object(server));
        }
        ([name], Some(value)) => drop(fields.insert((*name).to_owned(), value)),
        ([name, rest @ ..], value) => {
            if value.is_none() && !fields.contains_key(*name) {
                return;
            }
            let below = fields.entry(*name).or_insert(Value::Null);
            if below.is_null() {
                *below = Value::Object(Map::new());
            }
            if let Some(below) = below.as_object_mut() {
                place(below, rest, value);
            }
        }
    }
}

/// What holds where the file says nothing.
pub(super) fn silent(config: &Config) -> Value {
    let failover = &config.failover;
    let codes = failover
        .retryable_status_codes
        .clone()
        .unwrap_or_else(|| (100..600).filter(|code| moves_on(*code)).collect());
    json!({
        "providers": {},
        "models": {},
        "keys": {},
        "failover": {
            "enabled": failover.enabled,
            "retryableStatusCodes": codes,
            "retryableErrors": failover.retryable_errors,
            "maxAttempts": failover.most_attempts,
        },
        "cooldown": {
            "initialMinutes": minutes(config.cooldown.initial),
            "maxMinutes": minutes(config.cooldown.longest),
        },
        "timeout": {
            "defaultSeconds": config.attempt_timeout.as_secs(),
            "connectSeconds": 10,
        },
        "stall": {
            "ttfbSeconds": null,
            "ttfbBytes": 100,
            "minBytesPerSecond": null,
            "windowSeconds": 10,
            "gracePeriodSeconds": 30,
            "stallCooldown": false,
        },
        "performanceExplorationRate": config.exploration.performance,
        "latencyExplorationRate": config.exploration.latency,
        "e2ePerformanceExplorationRate": config.exploration.e2e_performance,
        "backgroundExploration": {
            "enabled": false,
            "stalenessThresholdSeconds": 600,
            "workerConcurrency": 2,
        },
        "mcpOAuth": { "enabled": false },
        "mcp_servers": {},
        "user_quotas": {},
    })
}

/// Whether a status moves on to the next target by default.
fn moves_on(code: u16) -> bool {
    !matches!(code, 200..=299 | 400 | 413 | 422)
}

/// A time as minutes, without a needless `.0`.
fn minutes(time: std::time::Duration) -> Value {
    match time.as_secs() {
        whole if time.subsec_nanos() == 0 && whole % 60 == 0 => (whole / 60).into(),
        _ => (time.as_secs_f64() / 60.0).into(),
    }
}
