//! The configuration as a whole: `/v0/management/config`.
//!
//! Its text is the file. As JSON it is what the file means: the file's own
//! fields, and the settings that it leaves out. Putting that back writes
//! nothing that the file didn't say.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::aliases::ALIASES;
use super::entry::{self, Fields, Section};
use super::keys::KEYS;
use super::providers::{PROVIDERS, checker_defaults};
use super::write;
use super::{Answer, Call, Refusal, Reply, blocking};
use crate::config::live::WriteError;
use crate::config::{Config, Fault, check, document, edit};

const YAML: &str = "application/x-yaml";

/// How a configuration is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Yaml,
    Json,
}

/// The file, or what is in force as JSON for those who accept only that.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        if accepted(&call.headers) == Form::Json {
            return Ok(Reply::json(&Value::Object(running(&call.config))));
        }
        let app = Arc::clone(call.app());
        let text = blocking(move || Ok(app.live.text())).await?;
        Ok(Reply::typed(YAML, text))
    })
}

/// Which of the two comes first among the accepted ones; YAML without a word.
fn accepted(headers: &HeaderMap) -> Form {
    let lists = headers.get_all(ACCEPT).into_iter();
    let types = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    types.filter_map(form).next().unwrap_or(Form::Yaml)
}

/// The form of a media type, its parameters aside.
fn form(media_type: &str) -> Option<Form> {
    let bare = media_type.split(';').next().unwrap_or_default().trim();
    match bare.to_ascii_lowercase().as_str() {
        "application/json" => Some(Form::Json),
        "application/x-yaml" | "application/yaml" | "text/yaml" | "text/x-yaml" | "text/plain" => {
            Some(Form::Yaml)
        }
        _ => None,
    }
}

/// Replaces the whole file. The answer is the new one, in the form that was
/// sent.
pub fn replace(mut call: Call) -> Answer {
    Box::pin(async move {
        let form = sent(&call.headers)?;
        let body = call.body().await?;
        let text = String::from_utf8(body.into()).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let message = format!("the body is not UTF-8 from byte {good} on");
            Refusal::bad(message)
        })?;
        if text.trim().is_empty() {
            let message = "the body is empty; a whole configuration is wanted, or a comment for one that says nothing";
            return Err(Refusal::bad(message));
        }
        let app = Arc::clone(call.app());
        let config = Arc::clone(&call.config);
        blocking(move || match form {
            Form::Yaml => {
                let outcome = app.live.replace(&text);
                outcome.map_err(|error| write::refusal(&error, &[]))?;
                Ok(Reply::typed(YAML, text))
            }
            Form::Json => {
                let asked = stated(&text, &config)?;
                // The layout of the file in force survives where it can.
                let whole = rewritten(&app.live.text(), &asked);
                let whole = whole.unwrap_or_else(|| edit::render(&asked));
                let outcome = app.live.replace(&whole);
                let config = outcome.map_err(|error| refused_json(&error, &text))?;
                Ok(Reply::json(&Value::Object(running(&config))))
            }
        })
        .await
    })
}

fn sent(headers: &HeaderMap) -> Result<Form, Refusal> {
    let Some(written) = headers.get(CONTENT_TYPE) else {
        return Ok(Form::Yaml);
    };
    written.to_str().ok().and_then(form).ok_or_else(|| {
        Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("Content-Type: found {written:?}; {YAML}, text/yaml, text/plain or application/json is wanted"),
        )
    })
}

/// What a JSON body says, without what [`running`] adds to the configuration
/// in force.
fn stated(text: &str, config: &Config) -> Result<Value, Refusal> {
    let body: Value = serde_json::from_str(text).map_err(|error| {
        let fault = Fault {
            line: u32::try_from(error.line()).unwrap_or(0),
            column: u32::try_from(error.column()).unwrap_or(0),
            ..Fault::without_place(&[], format!("this is not JSON: {error}"))
        };
        Refusal::bad("Validation failed").with_details(write::details(&[fault], &[]))
    })?;
    let Value::Object(mut body) = body else {
        return Err(Refusal::bad("Object body is required"));
    };
    let (shown, stored) = (running(config), fields_of(&config.document));
    // The list of checkers repeats the providers.
    if body.get("quotas").is_some_and(Value::is_array) {
        body.shift_remove("quotas");
    }
    if let (Some(one), Some(other)) = (body.get("mcpServers"), body.get("mcp_servers")) {
        // They are the same map; the one that was changed counts.
        let idle = if one == other || shown.get("mcpServers") == Some(one) {
            Some("mcpServers")
        } else if shown.get("mcp_servers") == Some(other) {
            Some("mcp_servers")
        } else {
            None
        };
        idle.map(|name| body.shift_remove(name));
    }
    entry::strip(&mut body, &stored, &Value::Object(shown));
    Ok(Value::Object(body))
}

/// The text, changed where it doesn't say what was asked for; `None` when that
/// is not valid or can't be said in it.
fn rewritten(text: &str, asked: &Value) -> Option<String> {
    let stored = document(text).ok()?;
    let asked = document(&edit::render(asked)).ok()?;
    let mut text = text.to_owned();
    for name in stored.as_object()?.keys() {
        if asked.get(name).is_none() {
            text = edit::remove(&text, &[name]).ok()?;
        }
    }
    for (name, value) in asked.as_object()? {
        let section = SECTIONS.iter().find(|section| section.name == name);
        text = match (section, stored.get(name), value) {
            (_, Some(old), _) if old == value => continue,
            (Some(section), Some(Value::Object(old)), Value::Object(new)) => {
                entries_rewritten(text, section, old, new)?
            }
            _ => edit::set(&text, &[name], value).ok()?,
        };
    }
    (document(&text).as_ref() == Ok(&asked)).then_some(text)
}

/// Sections whose entries are rewritten one by one.
static SECTIONS: [&Section; 3] = [&PROVIDERS, &ALIASES, &KEYS];

fn entries_rewritten(
    mut text: String,
    section: &Section,
    old: &Fields,
    new: &Fields,
) -> Option<String> {
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        text = edit::remove(&text, &[section.name, name]).ok()?;
    }
    for (name, entry) in new {
        let stored = old.get(name);
        if stored == Some(entry) {
            continue;
        }
        let entry = entry.as_object().cloned().unwrap_or_default();
        text = section
            .put(&text, name, stored.and_then(Value::as_object), entry)
            .ok()?;
    }
    Some(text)
}

/// A JSON body became YAML before it was checked; its faults are told with
/// their places in the body.
fn refused_json(error: &WriteError, body: &str) -> Refusal {
    let WriteError::Refused(faults) = error else {
        return write::refusal(error, &[]);
    };
    let in_body = check(body, &|_| None, std::path::Path::new("."))
        .err()
        .unwrap_or_default();
    let placed = faults.iter().map(|fault| {
        let same = |other: &&Fault| other.path == fault.path && other.message == fault.message;
        let (line, column) = in_body
            .iter()
            .find(same)
            .map_or((0, 0), |found| (found.line, found.column));
        Fault {
            line,
            column,
            ..fault.clone()
        }
    });
    write::refusal(&WriteError::Refused(placed.collect()), &[])
}

/// What is in force: the file's fields, then what they mean where it is silent.
fn running(config: &Config) -> Fields {
    let mut shown = fields_of(&config.document);
    entry::fill(&mut shown, &silent(config));
    let checkers = checkers(&shown);
    shown.insert("quotas".to_owned(), checkers);
    if let Some(servers) = shown.get("mcp_servers").cloned() {
        shown.insert("mcpServers".to_owned(), servers);
    }
    shown
}

/// What holds where the file says nothing.
fn silent(config: &Config) -> Value {
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
        "performanceExplorationRate": 0.05,
        "latencyExplorationRate": 0.05,
        "e2ePerformanceExplorationRate": 0.05,
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

/// The quota checkers of all providers.
fn checkers(shown: &Fields) -> Value {
    let providers = shown.get("providers").and_then(Value::as_object);
    let checker = |(slug, provider): (&String, &Value)| {
        let mut checker = provider.get("quota_checker")?.as_object()?.clone();
        entry::fill(&mut checker, &checker_defaults());
        let id = checker.get("id").filter(|id| id.is_string());
        Some(json!({
            "id": id.cloned().unwrap_or_else(|| slug.as_str().into()),
            "provider": slug,
            "type": checker.get("type"),
            "enabled": checker.get("enabled"),
            "intervalMinutes": checker.get("intervalMinutes"),
            "options": checker.get("options"),
        }))
    };
    providers
        .into_iter()
        .flatten()
        .filter_map(checker)
        .collect()
}

fn fields_of(document: &Value) -> Fields {
    document.as_object().cloned().unwrap_or_default()
}

/// What the file says, taken apart as a backup has it.
pub fn export(call: Call) -> Answer {
    Box::pin(async move {
        let mut settings = fields_of(&call.config.document);
        let mut exported = Map::new();
        for section in ["providers", "models", "keys", "user_quotas", "mcp_servers"] {
            let stored = settings.shift_remove(section).filter(Value::is_object);
            exported.insert(section.to_owned(), stored.unwrap_or_else(|| json!({})));
        }
        // It opens the gateway that it came from, and no other should have it.
        settings.shift_remove("adminKey");
        exported.insert("mcp_keys".to_owned(), json!([]));
        exported.insert("settings".to_owned(), Value::Object(flat(settings)));
        exported.insert("oauth_providers".to_owned(), json!([]));
        Ok(Reply::json(&Value::Object(exported)))
    })
}

/// Settings by flat names: `failover.enabled`, `trustedProxies`, `default_quotas`.
fn flat(settings: Fields) -> Fields {
    let mut flat = Fields::new();
    for (name, value) in settings {
        match (name.as_str(), value) {
            (
                "failover" | "cooldown" | "timeout" | "stall" | "backgroundExploration",
                Value::Object(fields),
            ) => {
                let named = fields.into_iter();
                flat.extend(named.map(|(field, value)| (format!("{name}.{field}"), value)));
            }
            ("custom", Value::Object(fields)) => flat.extend(fields),
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

/// How much is configured, since when, and what is wrong with the file.
pub fn status(call: Call) -> Answer {
    Box::pin(async move {
        let app = Arc::clone(call.app());
        let (config, status) = blocking(move || Ok((app.live.load(), app.live.status()))).await?;
        let servers = config.document.get("mcp_servers");
        let loaded = Timestamp::try_from(status.loaded_at).ok();
        Ok(Reply::json(&json!({
            "providerCount": config.providers.len(),
            "modelAliasCount": config.aliases.len(),
            "keyCount": config.keys.len(),
            "quotaCount": config.user_quotas.len(),
            "mcpServerCount": servers.and_then(Value::as_object).map_or(0, Map::len),
            "revision": status.revision,
            "loadedAt": loaded.map(|time| format!("{time:.3}")),
            "path": status.path.display().to_string(),
            "lastRefused": write::details(&status.refused, &[]),
            "warnings": config.warnings,
        })))
    })
}
