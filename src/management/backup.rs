//! All there is, out and in again: `/v0/management/backup` and `/restore`; and
//! what they have in common with the commands that do the same offline.
//!
//! The configuration in a backup has its secrets in clear, so that it can be
//! restored under another key. What belongs to the machine stays there: the
//! admin key and the place of the database.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::entry::Fields;
use super::settings::{DOTTED, SECTIONS, flat};
use super::write::{details, refusal};
use super::{Answer, Call, Refusal, Reply, blocking};
use crate::app::App;
use crate::backup::{self, Archive, ArchiveError};
use crate::config::live::WriteError;
use crate::config::{self, Fault, adopted, edit};
use crate::inference::wall_ms;
use crate::store::{PendingConfig, Rehearsal, Restore, Snapshot, StoreError, StoredSecret, Taken};

/// Kinds of secrets in the database: credentials for providers, and MCP keys.
const OAUTH: &str = "oauth";
const MCP_KEYS: &str = "mcp_keys";

/// Largest archive that is received, in bytes.
const LARGEST_ARCHIVE: u64 = 64 << 30;
/// What an archive is sent in.
const PIECE: usize = 64 << 10;

/// The configuration with everything secret, as JSON; with `full=true` an
/// archive of all there is.
pub fn get(call: Call) -> Answer {
    Box::pin(async move {
        let full = call.query("full") == Some("true");
        let app = Arc::clone(call.app());
        let document = Arc::clone(&call.config.document);
        let now = Timestamp::now();
        if !full {
            let envelope = blocking(move || {
                let data = data_of(&document, &app.store.snapshot()?)?;
                let mut envelope = backup::head(now);
                envelope["data"] = data;
                Ok(envelope)
            })
            .await?;
            return Ok(Reply::json(&envelope));
        }
        let file = blocking(move || {
            let snapshot = app.store.snapshot()?;
            let data = data_of(&document, &snapshot)?;
            let folder = folder_of(app.store.path());
            backup::write(&folder, &data, &snapshot, now).map_err(unwritten)
        })
        .await?;
        download(file, &format!("plexus-backup-{}.tar.gz", stamp(now)))
    })
}

/// `2026-01-31T12-00-00`.
#[must_use]
pub fn stamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H-%M-%S").to_string()
}

/// Hands the sockets to a new process. It is asked for when this has been
/// answered.
pub fn restart(call: Call) -> Answer {
    Box::pin(async move {
        let message = "this process can't restart itself, or is doing so already";
        if !call.app().restart.ask() {
            return Err(Refusal::conflict(message));
        }
        Ok(Reply::json(
            &json!({ "success": true, "message": "Server is restarting" }),
        ))
    })
}

fn unwritten(error: ArchiveError) -> Refusal {
    tracing::error!(%error, "a backup could not be written");
    Refusal::failed(format!("the backup could not be written: {error}"))
}

/// The folder of a file.
#[must_use]
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A file as an answer, read as the client takes it.
fn download(mut file: File, name: &str) -> Result<Reply, Refusal> {
    let length = file
        .metadata()
        .map_err(|error| unwritten(error.into()))?
        .len();
    let (sender, feed) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return,
                Ok(read) => {
                    let bytes = Bytes::copy_from_slice(piece.get(..read).unwrap_or_default());
                    if sender.blocking_send(bytes).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // The client sees that it is too short.
                    tracing::error!(%error, "a backup could not be read on its way out");
                    return;
                }
            }
        }
    });
    Reply::attachment("application/gzip", name, length, feed)
}

/// What a backup says of the configuration.
///
/// # Errors
/// The database's secrets can't be read.
pub fn data_of(document: &Value, snapshot: &Snapshot<'_>) -> Result<Value, StoreError> {
    let mut settings = document.as_object().cloned().unwrap_or_default();
    // It opens the gateway that it came from, and no other should have it.
    settings.shift_remove("adminKey");
    let mut data = Map::new();
    for section in SECTIONS {
        let stored = settings.shift_remove(section).filter(Value::is_object);
        data.insert(section.to_owned(), stored.unwrap_or_else(|| json!({})));
    }
    data.insert(MCP_KEYS.to_owned(), values(snapshot.secrets(MCP_KEYS)?));
    data.insert("settings".to_owned(), Value::Object(flat(settings)));
    data.insert(
        "oauth_credentials".to_owned(),
        values(snapshot.secrets(OAUTH)?),
    );
    Ok(Value::Object(data))
}

/// Secrets that are JSON, as a list.
fn values(secrets: Vec<StoredSecret>) -> Value {
    let parsed = secrets
        .into_iter()
        .filter_map(|secret| serde_json::from_str::<Value>(&secret.value).ok());
    parsed.collect()
}

/// Replaces all there is by what a backup says, or nothing.
pub fn restore(mut call: Call) -> Answer {
    Box::pin(async move {
        let given = call.headers.get(CONTENT_TYPE);
        let kind = given
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let bare = kind.split(';').next().unwrap_or_default().trim();
        let app = Arc::clone(call.app());
        match bare.to_ascii_lowercase().as_str() {
            "application/gzip" | "application/x-gzip" | "application/octet-stream" => {
                let folder = folder_of(app.store.path());
                let file =
                    blocking(move || backup::nameless(&folder).map_err(|error| unreceived(&error)));
                let file = call.receive(LARGEST_ARCHIVE, file.await?).await?;
                blocking(move || restore_archive(&app, file)).await
            }
            "application/json" | "" => {
                let envelope = Value::Object(call.object().await?);
                blocking(move || restore_config(&app, &envelope)).await
            }
            _ => Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!(
                    "Content-Type: found {bare:?}; application/json or application/gzip is wanted"
                ),
            )),
        }
    })
}

/// A file for an archive can't be written.
pub(super) fn unreceived(error: &std::io::Error) -> Refusal {
    tracing::error!(%error, "an archive could not be received");
    Refusal::failed(format!("the archive could not be received: {error}"))
}

fn restore_config(app: &App, envelope: &Value) -> Result<Reply, Refusal> {
    backup::check_head(envelope).map_err(Refusal::bad)?;
    let incoming = incoming(app, &envelope["data"])?;
    let text = incoming.text.clone();
    let outcome = app.live.replace_after(&text, |before, after| {
        let pending = pending(before, after);
        let secrets = incoming.secrets.clone();
        app.store
            .restore(move |restore| secrets.write(restore, &pending))
            .map_err(Stopped::Store)
    });
    outcome.map_err(stopped)?;
    arrived(app);
    Ok(told(&incoming, &[], "Config"))
}

fn restore_archive(app: &App, file: File) -> Result<Reply, Refusal> {
    let mut archive = Archive::new(file).map_err(|error| unreceived(&error))?;
    let contents = archive.contents().map_err(refused_archive)?;
    let mut incoming = incoming(app, &contents.config)?;
    rehearse(&mut archive).map_err(refused_archive)?;
    incoming.left_out_files(contents.unknown);
    let text = incoming.text.clone();
    let outcome = app.live.replace_after(&text, |before, after| {
        let pending = pending(before, after);
        let secrets = incoming.secrets.clone();
        app.store
            .restore(move |restore| {
                let sheets = write_archive(restore, &mut archive)?;
                secrets.write(restore, &pending)?;
                Ok((sheets, restore.quotas(wall_ms())?))
            })
            .map_err(Stopped::Store)
    });
    let (_, (sheets, quotas)) = outcome.map_err(stopped)?;
    app.quotas.take_over(&quotas);
    arrived(app);
    take_over_rests(app);
    Ok(told(&incoming, &sheets, "Full"))
}

/// What the database waits for while the file is being replaced.
#[must_use]
pub fn pending(before: &str, text: &str) -> PendingConfig {
    PendingConfig {
        before: before.to_owned(),
        text: text.to_owned(),
    }
}

fn arrived(app: &App) {
    let config = app.live.load();
    drop(app.switchboard.table(&config));
    app.quotas.prepare(&config, wall_ms());
    if let Err(error) = app.store.config_arrived() {
        tracing::warn!(%error, "the restored configuration will be looked at again at the next start");
    }
}

/// What rests is what rested when the backup was made.
fn take_over_rests(app: &App) {
    let standings = &app.switchboard.standings;
    for house in standings.houses() {
        house.cooldown.clear();
    }
    for standing in standings.targets() {
        standing.cooldown.clear();
    }
    let now = wall_ms();
    match app.store.cooldowns(now) {
        Ok(rows) => rows.iter().for_each(|row| app.switchboard.rested(row, now)),
        Err(error) => tracing::warn!(%error, "restored cooldowns hold from the next start on"),
    }
}

/// Looks through all sheets of an archive, as a restore would.
///
/// # Errors
/// The first thing that is wrong.
pub fn rehearse(archive: &mut Archive) -> Result<(), ArchiveError> {
    let rehearsal = Rehearsal::new().map_err(|error| ArchiveError::Wrong(error.to_string()))?;
    archive.sheets(|name, from| Ok(rehearsal.sheet(name, from).map(drop)?))
}

/// Puts an archive's rows in place of all that are there.
///
/// # Errors
/// A row is wrong, or the disk is full.
pub fn write_archive(
    restore: &mut Restore<'_>,
    archive: &mut Archive,
) -> Result<Vec<(String, Taken)>, StoreError> {
    restore.clear()?;
    let mut all = Vec::new();
    let written = archive.sheets(|name, from| {
        all.push((name.to_owned(), restore.sheet(name, from)?));
        Ok(())
    });
    written.map_err(|error| StoreError::Database(error.to_string()))?;
    restore.finish()?;
    Ok(all)
}

fn refused_archive(error: ArchiveError) -> Refusal {
    match error {
        ArchiveError::Wrong(_) | ArchiveError::Sheet(crate::store::SheetError::Wrong(_)) => {
            Refusal::bad(error.to_string())
        }
        error => Refusal::bad(format!("the archive can't be read: {error}")),
    }
}

enum Stopped {
    Write(WriteError),
    Store(StoreError),
}

impl From<WriteError> for Stopped {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

fn stopped(stopped: Stopped) -> Refusal {
    match stopped {
        Stopped::Write(error) => refusal(&error, &[]),
        Stopped::Store(error) => error.into(),
    }
}

/// The secrets that a backup has for the database.
#[derive(Clone, Default)]
pub struct Secrets {
    oauth: Vec<(String, String)>,
    mcp_keys: Vec<(String, String)>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Puts them in place of those that are there, with the configuration that
    /// belongs to them.
    ///
    /// # Errors
    /// SQLite refuses, or they can't be sealed.
    pub fn write(
        &self,
        restore: &mut Restore<'_>,
        pending: &PendingConfig,
    ) -> Result<(), StoreError> {
        restore.secrets(OAUTH, &self.oauth)?;
        restore.secrets(MCP_KEYS, &self.mcp_keys)?;
        restore.pend(pending)
    }
}

/// A backup's configuration, made fit for the file that is there.
pub struct Incoming {
    /// What the file is to say.
    pub text: String,
    /// What goes into the database.
    pub secrets: Secrets,
    /// What was not taken over: a name and why.
    pub left_out: Vec<(String, String)>,
    counts: Vec<(&'static str, usize)>,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("left_out", &self.left_out)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a backup's configuration.
#[derive(Debug)]
pub enum Unfit {
    /// Its form.
    Form(String),
    /// What it says.
    Faults(Vec<Fault>),
}

impl From<String> for Unfit {
    fn from(message: String) -> Self {
        Self::Form(message)
    }
}

fn incoming(app: &App, data: &Value) -> Result<Incoming, Refusal> {
    let present = app.live.load();
    let check = |text: &str| app.live.try_out(text);
    let incoming = Incoming::new(data, &present.document, &app.live.text(), &check);
    incoming.map_err(|unfit| match unfit {
        Unfit::Form(message) => Refusal::bad(message),
        Unfit::Faults(faults) => {
            Refusal::bad("Validation failed").with_details(details(&faults, &[]))
        }
    })
}

impl Incoming {
    /// Fits a backup's configuration to a file that says `present` in `text`.
    /// What is not known here, and references that lead nowhere, are left out
    /// and told; anything else that is wrong refuses all of it.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn new(
        data: &Value,
        present: &Value,
        text: &str,
        check: &dyn Fn(&str) -> Result<(), Vec<Fault>>,
    ) -> Result<Self, Unfit> {
        let Value::Object(data) = data else {
            return Err("Invalid backup: missing data".to_owned().into());
        };
        let mut left_out = Vec::new();
        let (mut document, unknown) = adopted(&said(data, &mut left_out)?);
        for path in unknown {
            left_out.push((path.join("."), "not known here".to_owned()));
        }
        keep_place(&mut document, present);
        let text = settled(&mut document, text, check, &mut left_out)?;
        let size = |name: &str| data.get(name).map_or(0, size_of_value);
        Ok(Self {
            text,
            secrets: Secrets {
                oauth: credentials(data.get("oauth_credentials"))?,
                mcp_keys: numbered(data.get(MCP_KEYS)),
            },
            left_out,
            counts: vec![
                ("_cleared", 1),
                ("providers", size("providers")),
                ("model_aliases", size("models")),
                ("api_keys", size("keys")),
                ("user_quotas", size("user_quotas")),
                ("mcp_servers", size("mcp_servers")),
                (MCP_KEYS, size(MCP_KEYS)),
                ("system_settings", size("settings")),
                ("oauth_credentials", size("oauth_credentials")),
            ],
        })
    }

    /// Notes files of an archive that are not known.
    pub fn left_out_files(&mut self, names: Vec<String>) {
        let files = names.into_iter();
        self.left_out
            .extend(files.map(|name| (name, "a file that is not known here".to_owned())));
    }

    /// What was restored: the contract's names and counts.
    #[must_use]
    pub fn restored(&self, sheets: &[(String, Taken)]) -> Fields {
        let counts = self.counts.iter();
        let mut restored: Fields = counts
            .map(|(name, count)| ((*name).to_owned(), (*count).into()))
            .collect();
        for (name, taken) in sheets {
            restored.insert(name.clone(), taken.rows.into());
        }
        restored
    }

    /// Everything that was not taken over.
    #[must_use]
    pub fn not_kept(&self, sheets: &[(String, Taken)]) -> Vec<Value> {
        let fields = self
            .left_out
            .iter()
            .map(|(what, why)| json!({ "what": what, "why": why }));
        let rows = sheets.iter().flat_map(|(_, taken)| &taken.left_out);
        let rows = rows.map(|(count, what)| json!({ "count": count, "what": what }));
        fields.chain(rows).collect()
    }
}

fn size_of_value(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    }
}

fn told(incoming: &Incoming, sheets: &[(String, Taken)], kind: &str) -> Reply {
    let not_kept = incoming.not_kept(sheets);
    tracing::info!(kind, not_kept = not_kept.len(), "a backup was restored");
    Reply::json(&json!({
        "success": true,
        "restored": incoming.restored(sheets),
        "message": format!("{kind} restore complete. Server is restarting to apply changes."),
        "notKept": not_kept,
    }))
}

/// A backup's sections and flat settings as the file has them.
fn said(data: &Map<String, Value>, left_out: &mut Vec<(String, String)>) -> Result<Value, Unfit> {
    let mut document = Map::new();
    for (name, value) in data {
        match (name.as_str(), value) {
            (section, Value::Object(entries)) if SECTIONS.contains(&section) => {
                document.insert(name.clone(), Value::Object(entries.clone()));
            }
            ("settings", Value::Object(settings)) => {
                for (name, value) in settings {
                    place_setting(&mut document, name, value.clone());
                }
            }
            (MCP_KEYS | "oauth_credentials", Value::Array(_)) | (_, Value::Null) => {}
            (known, _)
                if SECTIONS.contains(&known)
                    || ["settings", MCP_KEYS, "oauth_credentials"].contains(&known) =>
            {
                let wanted = if known == MCP_KEYS || known == "oauth_credentials" {
                    "a list"
                } else {
                    "an object"
                };
                return Err(format!("Invalid backup: data.{name}: {wanted} is wanted").into());
            }
            _ => left_out.push((name.clone(), "not known here".to_owned())),
        }
    }
    Ok(Value::Object(document))
}

/// Where a flat name's value goes in the file.
fn place_setting(document: &mut Fields, name: &str, value: Value) {
    let mut within = |section: &str, field: &str, value: Value| {
        let section = document.entry(section).or_insert_with(|| json!({}));
        if let Some(fields) = section.as_object_mut() {
            fields.insert(field.to_owned(), value);
        }
    };
    match name.split_once('.') {
        _ if name == "trustedProxies" => within("server", name, value),
        Some((section, field)) if DOTTED.contains(&section) => within(section, field, value),
        _ if name == "server" => {
            for (field, value) in value.as_object().cloned().unwrap_or_default() {
                within("server", &field, value);
            }
        }
        _ if config::knows(name) && !SECTIONS.contains(&name) && name != "custom" => {
            document.insert(name.to_owned(), value);
        }
        _ => within("custom", name, value),
    }
}

/// What belongs to the machine is what the machine has.
fn keep_place(document: &mut Value, present: &Value) {
    let Some(fields) = document.as_object_mut() else {
        return;
    };
    fields.shift_remove("adminKey");
    if let Some(key) = present.get("adminKey") {
        fields.shift_insert(0, "adminKey".to_owned(), key.clone());
    }
    let url = present.get("store").and_then(|store| store.get("url"));
    let store = fields.get_mut("store").and_then(Value::as_object_mut);
    match (store, url) {
        (Some(store), Some(url)) => drop(store.insert("url".to_owned(), url.clone())),
        (Some(store), None) => drop(store.shift_remove("url")),
        (None, Some(url)) => drop(fields.insert("store".to_owned(), json!({ "url": url }))),
        (None, None) => {}
    }
}

/// The document as the file's text, without the references that lead nowhere.
fn settled(
    document: &mut Value,
    text: &str,
    check: &dyn Fn(&str) -> Result<(), Vec<Fault>>,
    left_out: &mut Vec<(String, String)>,
) -> Result<String, Unfit> {
    // An alias without targets may take others with it.
    const ROUNDS: usize = 8;
    for _ in 0..ROUNDS {
        let written = match edit::set(text, &[], document) {
            Ok(written) => written,
            Err(_) => edit::render(document),
        };
        let Err(faults) = check(&written) else {
            return Ok(written);
        };
        let (loose, others): (Vec<_>, Vec<_>) = faults
            .into_iter()
            .partition(|fault| reference(&fault.path).is_some());
        if !others.is_empty() {
            return Err(Unfit::Faults(others));
        }
        let mut paths: Vec<&[String]> = loose
            .iter()
            .filter_map(|fault| reference(&fault.path))
            .collect();
        // From the last, so that the others keep their places.
        paths.sort_by_key(|path| path.last().and_then(|at| at.parse::<usize>().ok()));
        paths.dedup();
        for path in paths.iter().rev() {
            take(document, path);
        }
        let told = loose
            .iter()
            .map(|fault| (fault.path.join("."), fault.message.clone()));
        left_out.extend(told);
    }
    Err("Invalid backup: its references lead nowhere"
        .to_owned()
        .into())
}

/// The list item at the beginning of a path that only refers to something.
fn reference(path: &[String]) -> Option<&[String]> {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let length = match names.as_slice() {
        ["models", _, "target_groups", _, "targets", _, ..] => 6,
        ["keys", _, "quotas", _] => 4,
        ["default_quotas", _] => 2,
        _ => return None,
    };
    path.get(..length)
}

fn take(document: &mut Value, path: &[String]) {
    let Some((last, above)) = path.split_last() else {
        return;
    };
    let mut at = Some(document);
    for name in above {
        at = match at {
            Some(Value::Object(map)) => map.get_mut(name),
            Some(Value::Array(items)) => name.parse().ok().and_then(|i: usize| items.get_mut(i)),
            _ => None,
        };
    }
    if let (Some(Value::Array(items)), Ok(i)) = (at, last.parse::<usize>())
        && i < items.len()
    {
        items.remove(i);
    }
}

/// Credentials by provider and account.
fn credentials(list: Option<&Value>) -> Result<Vec<(String, String)>, Unfit> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items
        .enumerate()
        .map(|(i, item)| {
            let text = |field: &str| item.get(field).and_then(Value::as_str);
            match (text("provider_type"), text("account_id")) {
                (Some(provider), Some(account)) => {
                    Ok((format!("{provider}/{account}"), item.to_string()))
                }
                _ => Err(format!("Invalid backup: data.oauth_credentials.{i}: provider_type and account_id are wanted").into()),
            }
        })
        .collect()
}

fn numbered(list: Option<&Value>) -> Vec<(String, String)> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items
        .enumerate()
        .map(|(i, item)| (format!("{i:06}"), item.to_string()))
        .collect()
}
