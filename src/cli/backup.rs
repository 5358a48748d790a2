//! `plexus backup` and `plexus import`: what the management API does, without a
//! running gateway.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Failed, environment, say};
use crate::backup::{self, Archive};
use crate::config::live::{Live, WriteError};
use crate::config::{check, describe, opened, store_path};
use crate::management::backup::{
    Incoming, Unfit, data_of, folder_of, pending, rehearse, stamp, write_archive,
};
use crate::store::{Offline, Snapshot, StoreError, Taken};
use crate::vault::Vault;

/// What a gzip begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Largest backup without tables, in bytes.
const LARGEST: u64 = 64 << 20;

/// Writes a backup of a configuration and its database; a gateway may run.
pub(super) fn backup(
    config: Option<PathBuf>,
    full: bool,
    output: Option<PathBuf>,
) -> Result<(), Failed> {
    let file = super::config_path(config);
    let vault = Vault::from_environment(&environment);
    let document = opened(&file, &vault)?;
    let path = store_path(&file, &environment)?;
    // Made if it isn't there, and brought to the newest schema.
    match Offline::open(&path) {
        Ok(database) => drop(database),
        // A running gateway has seen to it.
        Err(crate::store::OpenError::Locked { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let snapshot = Snapshot::take(&path, &vault)?;
    let now = Timestamp::now();
    let data = data_of(&document, &snapshot)?;
    let ending = if full { "tar.gz" } else { "json" };
    let output = output.unwrap_or_else(|| format!("plexus-backup-{}.{ending}", stamp(now)).into());
    let mut out = Output::create(&output)?;
    if full {
        let mut archive = backup::write(&folder_of(&path), &data, &snapshot, now)?;
        io::copy(&mut archive, &mut out)?;
    } else {
        let mut envelope = backup::head(now);
        envelope["data"] = data;
        out.write_all(format!("{envelope:#}\n").as_bytes())?;
    }
    out.finish()?;
    if output != Path::new("-") {
        say(&format!("{}\n", output.display()));
    }
    Ok(())
}

/// Where a backup goes. It holds secrets: only its owner may read it.
enum Output {
    File(File),
    Standard(io::Stdout),
}

impl Output {
    fn create(path: &Path) -> Result<Self, Failed> {
        if path == Path::new("-") {
            return Ok(Self::Standard(io::stdout()));
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(path);
        let file = file.map_err(|error| Failed(format!("{}: {error}", path.display())))?;
        Ok(Self::File(file))
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        match self {
            Self::File(file) => file.sync_all(),
            Self::Standard(_) => Ok(()),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Standard(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Standard(out) => out.flush(),
        }
    }
}

/// Puts a backup in place of configuration and database.
pub(super) fn import(from: &Path, config: Option<PathBuf>) -> Result<(), Failed> {
    let mut file =
        File::open(from).map_err(|error| Failed(format!("{}: {error}", from.display())))?;
    let mut archive = match is_archive(&mut file)? {
        true => Some(Archive::new(file.try_clone()?)?),
        false => None,
    };
    let (data, unknown) = match &mut archive {
        Some(archive) => {
            let contents = archive.contents()?;
            (contents.config, contents.unknown)
        }
        None => (envelope(&mut file)?, Vec::new()),
    };
    let live = Live::open(config, Box::new(with_admin_key))?;
    let mut incoming = fitted(&live, &data)?;
    incoming.left_out_files(unknown);
    archive.as_mut().map(rehearse).transpose()?;
    let place = live.load().store.path.clone();
    let mut database = Offline::open(&place)?;
    let text = incoming.text.clone();
    let (_, sheets) = live
        .replace_after(&text, |before, after| {
            let pending = pending(before, after);
            database
                .restore(live.vault(), |restore| {
                    let sheets = match &mut archive {
                        Some(archive) => write_archive(restore, archive)?,
                        None => Vec::new(),
                    };
                    incoming.secrets.write(restore, &pending)?;
                    Ok(sheets)
                })
                .map_err(Stopped::Store)
        })
        .map_err(|stopped| match stopped {
            Stopped::Write(error) => Failed(error.to_string()),
            Stopped::Store(error) => Failed(error.to_string()),
        })?;
    database.config_arrived()?;
    report(&live, &place, &incoming, &sheets);
    Ok(())
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

fn report(live: &Live, place: &Path, incoming: &Incoming, sheets: &[(String, Taken)]) {
    let restored = incoming.restored(sheets);
    let counted = restored
        .iter()
        .filter(|(name, count)| *name != "_cleared" && **count != json!(0))
        .map(|(name, count)| format!("  {name}: {count}\n"));
    let counted: String = counted.collect();
    let path = live.status().path;
    say(&format!(
        "imported into {} and {}\n{counted}",
        path.display(),
        place.display()
    ));
    for left_out in incoming.not_kept(sheets) {
        let text = |name: &str| left_out[name].as_str().unwrap_or_default().to_owned();
        let count = left_out["count"].as_u64();
        let count = count.map_or_else(String::new, |count| format!("{count} "));
        let why = left_out["why"]
            .as_str()
            .map_or_else(String::new, |why| format!(": {why}"));
        say(&format!("not kept: {count}{}{why}\n", text("what")));
    }
    if environment("ADMIN_KEY").is_none_or(|key| key.trim().is_empty())
        && live.load().document.get("adminKey").is_none()
    {
        say("set ADMIN_KEY to start it: a backup has no admin key\n");
    }
}

/// The environment, with some admin key: importing needs none.
fn with_admin_key(name: &str) -> Option<String> {
    let found = environment(name);
    match name {
        "ADMIN_KEY" => found
            .filter(|key| !key.trim().is_empty())
            .or_else(|| Some("for the check alone".to_owned())),
        _ => found,
    }
}

fn is_archive(file: &mut File) -> io::Result<bool> {
    let mut start = Vec::new();
    file.take(GZIP.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    Ok(start == GZIP)
}

fn envelope(file: &mut File) -> Result<Value, Failed> {
    let mut text = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(Failed(format!(
            "the file has more than {} MB",
            LARGEST >> 20
        )));
    }
    let mut envelope: Value = serde_json::from_slice(&text)
        .map_err(|error| Failed(format!("this is neither JSON nor an archive: {error}")))?;
    backup::check_head(&envelope).map_err(Failed)?;
    Ok(envelope["data"].take())
}

fn fitted(live: &Live, data: &Value) -> Result<Incoming, Failed> {
    let folder = folder_of(&live.status().path);
    let try_out = |text: &str| check(text, &with_admin_key, &folder).map(drop);
    let incoming = Incoming::new(data, &live.load().document, &live.text(), &try_out);
    incoming.map_err(|unfit| match unfit {
        Unfit::Form(message) => Failed(message),
        Unfit::Faults(faults) => Failed(format!(
            "the backup's configuration is not valid here; nothing was changed\n{}",
            describe(&faults, "as plexus.yaml").trim_end()
        )),
    })
}
