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
use super::settings;
use super::tag::{Condition, Tag};
use super::write::{self, Stop};
use super::{Answer, Call, Refusal, Reply, blocking};
use crate::config::live::WriteError;
use crate::config::{Config, Draft, Fault, check, document, edit};

const YAML: &str = "application/x-yaml";

/// How a configuration is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Yaml,
    Json,
}

/// The file, or what is in force as JSON for those who accept only that. Both
/// have the tag of the file.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        let form = accepted(&call.headers);
        let app = Arc::clone(call.app());
        blocking(move || {
            let (config, text) = app.live.snapshot();
            let tag = Tag::of_text(&text);
            Ok(match form {
                Form::Json => Reply::json(&Value::Object(running(&config))),
                Form::Yaml => Reply::typed(YAML, text),
            }
            .tagged(&tag))
        })
        .await
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
        match form {
            Form::Yaml => replace_by_yaml(&call, text).await,
            Form::Json => replace_by_json(&call, text).await,
        }
    })
}

async fn replace_by_yaml(call: &Call, text: String) -> Result<Reply, Refusal> {
    let condition = Condition::of(&call.headers);
    let change = move |draft: &mut Draft| {
        draft.replace(text);
        Ok(may_replace(draft, &condition)?)
    };
    write::change(call, Vec::new(), change).await?;
    // With its secrets sealed it isn't what was sent.
    let app = Arc::clone(call.app());
    let answer = blocking(move || Ok(app.live.text())).await?;
    let tag = Tag::of_text(&answer);
    Ok(Reply::typed(YAML, answer).tagged(&tag))
}

async fn replace_by_json(call: &Call, text: String) -> Result<Reply, Refusal> {
    let condition = Condition::of(&call.headers);
    let body = text.clone();
    let change = move |draft: &mut Draft| {
        let asked = stated(&body, draft.in_force())?;
        // The layout of the file survives where it can.
        if rewrite(draft, &asked).is_none() {
            draft.replace(edit::render(&asked));
        }
        Ok(may_replace(draft, &condition)?)
    };
    let config = match write::tried(call, change).await? {
        Ok(config) => config,
        Err(Stop::Refused(refusal)) => return Err(refusal),
        Err(Stop::Write(error)) => return Err(refused_json(&error, &text)),
    };
    let app = Arc::clone(call.app());
    blocking(move || {
        let reply = Reply::json(&Value::Object(running(&config)));
        Ok(reply.tagged(&Tag::of_text(&app.live.text())))
    })
    .await
}

/// A file that was changed by hand is replaced by who says to have seen it, or
/// when it is broken.
fn may_replace(draft: &Draft, condition: &Condition) -> Result<(), Refusal> {
    condition.met(Some(&Tag::of_text(draft.on_disk())))?;
    let Ok(says) = draft.says() else {
        return Ok(());
    };
    if !draft.by_hand() || condition.is_careful() || draft.on_disk() == draft.text() {
        return Ok(());
    }
    let mut found = Vec::new();
    let in_force = Some(&*draft.in_force().document);
    write::differences(&mut Vec::new(), in_force, Some(says), 3, &mut found);
    if found.is_empty() {
        found.push(json!({ "path": [], "message": "comments or layout" }));
    }
    Err(write::clash(found))
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

/// Changes the text where it doesn't say what was asked for; `None` when that
/// is not valid or can't be said in it.
fn rewrite(draft: &mut Draft, asked: &Value) -> Option<()> {
    let stored = Arc::clone(draft.says().ok()?);
    let asked = document(&edit::render(asked)).ok()?;
    for name in stored.as_object()?.keys() {
        if asked.get(name).is_none() {
            draft.remove(&[name]).ok()?;
        }
    }
    for (name, value) in asked.as_object()? {
        let section = SECTIONS.iter().find(|section| section.name == name);
        match (section, stored.get(name), value) {
            (_, Some(old), _) if old == value => {}
            (Some(section), Some(Value::Object(old)), Value::Object(new)) => {
                rewrite_entries(draft, section, old, new)?;
            }
            _ => draft.set(&[name], value).ok()?,
        }
    }
    (draft.would_say().as_ref() == Ok(&asked)).then_some(())
}

/// Sections whose entries are rewritten one by one.
static SECTIONS: [&Section; 3] = [&PROVIDERS, &ALIASES, &KEYS];

fn rewrite_entries(draft: &mut Draft, section: &Section, old: &Fields, new: &Fields) -> Option<()> {
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        draft.remove(&[section.name, name]).ok()?;
    }
    for (name, entry) in new {
        let stored = old.get(name);
        if stored == Some(entry) {
            continue;
        }
        let entry = entry.as_object().cloned().unwrap_or_default();
        let stored = stored.and_then(Value::as_object);
        section.put(draft, name, stored, entry).ok()?;
    }
    Some(())
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
    entry::fill(&mut shown, &settings::silent(config));
    let checkers = checkers(&shown);
    shown.insert("quotas".to_owned(), checkers);
    if let Some(servers) = shown.get("mcp_servers").cloned() {
        shown.insert("mcpServers".to_owned(), servers);
    }
    shown
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
        let config = Arc::clone(&call.config);
        blocking(move || Ok(Reply::json(&Value::Object(exported(&config))))).await
    })
}

fn exported(config: &Config) -> Fields {
    let mut settings = fields_of(&config.document);
    let mut exported = Map::new();
    for section in settings::SECTIONS {
        let stored = settings.shift_remove(section).filter(Value::is_object);
        exported.insert(section.to_owned(), stored.unwrap_or_else(|| json!({})));
    }
    // It opens the gateway that it came from, and no other should have it.
    settings.shift_remove("adminKey");
    exported.insert("mcp_keys".to_owned(), json!([]));
    exported.insert(
        "settings".to_owned(),
        Value::Object(settings::flat(settings)),
    );
    exported.insert("oauth_providers".to_owned(), json!([]));
    exported
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
