//! One state of the database, read at leisure: for backups, beside a writer
//! that goes on. It has a connection of its own, as it may take minutes.

use std::fmt;
use std::io::Write;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::StoreError;
use super::secrets::{self, StoredSecret};
use super::sheets::{self, SheetError};
use crate::vault::Vault;

/// See the module's text. While it lives, the write-ahead log grows.
pub struct Snapshot<'a> {
    connection: Connection,
    vault: &'a Vault,
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl<'a> Snapshot<'a> {
    /// Takes the state of a database that is there, on the newest schema.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn take(path: &Path, vault: &'a Vault) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        // The first read decides which state it is.
        connection.execute_batch("BEGIN")?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(Self { connection, vault })
    }

    /// The names of all sheets.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn sheets(&self) -> Result<Vec<String>, SheetError> {
        sheets::names(&self.connection)
    }

    /// Writes a sheet as CSV; returns how many rows it has. One without rows
    /// writes nothing.
    ///
    /// # Errors
    /// SQLite refuses, or `out` does.
    pub fn write(&self, sheet: &str, out: &mut dyn Write) -> Result<u64, SheetError> {
        sheets::write(&self.connection, sheet, out)
    }

    /// The secrets of that kind, by name.
    ///
    /// # Errors
    /// As [`super::Store::secrets`].
    pub fn secrets(&self, kind: &str) -> Result<Vec<StoredSecret>, StoreError> {
        Ok(secrets::of_kind(&self.connection, self.vault, kind)?)
    }
}
