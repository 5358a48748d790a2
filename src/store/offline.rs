//! The database while nobody serves from it: held alone, for what changes all of
//! it. It must not know what is in the configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::error::{OpenError, StoreError};
use super::names::Names;
use super::restore::{self, Restore};
use super::secrets::{self, SecretError};
use super::{open, schema};
use crate::vault::Vault;

/// A database that no other process has open.
pub struct Offline {
    path: PathBuf,
    pub(super) connection: Connection,
}

impl fmt::Debug for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offline")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Offline {
    /// Takes the database for itself; what is missing is made.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while a gateway serves from it; others as
    /// [`super::Store::open`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let mut connection = open::alone(path)?;
        schema::migrate(&mut connection, path)?;
        Ok(Self {
            path: path.to_owned(),
            connection,
        })
    }

    /// The first half of a change of keys: from here on either opens every
    /// secret. Returns how many there are.
    ///
    /// # Errors
    /// A secret can't be opened with the old key, or SQLite refuses.
    pub fn prepare_rekey(&mut self, old: &Vault, new: &Vault) -> Result<u64, StoreError> {
        self.all_or_nothing(|connection| secrets::prepare(connection, old, new))
    }

    /// The second half, for the key that is to be in force: the other opens
    /// nothing any more, and is overwritten on the disk.
    ///
    /// # Errors
    /// As [`Offline::prepare_rekey`].
    pub fn settle_secrets(&mut self, vault: &Vault) -> Result<u64, StoreError> {
        self.connection.pragma_update(None, "secure_delete", true)?;
        let changed = self.all_or_nothing(|connection| secrets::settle(connection, vault))?;
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(changed)
    }

    /// Replaces what is kept, all or nothing.
    ///
    /// # Errors
    /// What `work` says, or SQLite; nothing is changed then.
    pub fn restore<T>(
        &mut self,
        vault: &Vault,
        work: impl FnOnce(&mut Restore<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction = self.connection.transaction()?;
        let mut names = Names::default();
        let answer = work(&mut Restore::new(&transaction, &mut names, vault))?;
        transaction.commit()?;
        Ok(answer)
    }

    /// Notes that the file says what the database waits for.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn config_arrived(&mut self) -> Result<(), StoreError> {
        restore::arrived(&self.connection)?;
        Ok(())
    }

    fn all_or_nothing<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, SecretError>,
    ) -> Result<T, StoreError> {
        let transaction = self.connection.transaction()?;
        let answer = work(&transaction)?;
        transaction.commit()?;
        Ok(answer)
    }
}
