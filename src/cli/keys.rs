//! `plexus encrypt` and `plexus rekey`.

use std::path::{Path, PathBuf};

use super::{Failed, environment, say};
use crate::config::{SealedFile, store_path};
use crate::store::Offline;
use crate::vault::{VARIABLE, Vault};

/// The environment variable with the key to change to.
const NEW: &str = "ENCRYPTION_KEY_NEW";

/// Seals every secret that stands in clear in a file.
pub(super) fn encrypt(file: &Path) -> Result<(), Failed> {
    let vault = Vault::from_environment(&environment);
    let sealed = SealedFile::encrypt(file, &vault)?;
    sealed.commit()?;
    let count = sealed.count;
    say(&format!("{}: {count} secrets encrypted\n", file.display()));
    Ok(())
}

/// Changes the key of file and database. The database comes first, in a way
/// that both keys can read; the file's replacement is the moment that decides.
pub(super) fn rekey(file: Option<PathBuf>) -> Result<(), Failed> {
    let old = Vault::from_environment(&environment);
    let new = Vault::new(&environment(NEW).unwrap_or_default());
    for (vault, name) in [(&old, VARIABLE), (&new, NEW)] {
        if !vault.has_key() {
            return Err(Failed(format!(
                "the environment variable {name} is not set; {VARIABLE} is the key so far and \
                 {NEW} the one to change to"
            )));
        }
    }
    let file = super::config_path(file);
    let sealed = SealedFile::rekey(&file, &old, &new)?;
    let path = store_path(&file, &environment)?;
    let mut database = match path.exists() {
        true => Some(Offline::open(&path)?),
        false => None,
    };
    let kept = match &mut database {
        Some(database) => database.prepare_rekey(&old, &new)?,
        None => 0,
    };
    let changed = sealed.commit();
    if let Some(database) = &mut database {
        let in_force = if changed.is_ok() { &new } else { &old };
        database.settle_secrets(in_force)?;
    }
    changed?;
    say(&format!(
        "{}: {} secrets, {}: {kept}, now under the new key; start Plexus with it as {VARIABLE}\n",
        file.display(),
        sealed.count,
        path.display()
    ));
    Ok(())
}
