//! A database's content replaced by another, all or nothing: one transaction
//! takes the old rows away, writes the new ones, and notes the configuration
//! that belongs to them. What the file says follows; should that not come about,
//! the next start sees to it.

use std::fmt;
use std::io::Read;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::StoreError;
use super::names::Names;
use super::row::QuotaRow;
use super::sheets::{self, Intake, SheetError, Taken};
use super::{blocks, captures, quotas, schema, secrets};
use crate::vault::Vault;

/// Writes a database's new content.
pub struct Restore<'a> {
    connection: &'a Connection,
    names: &'a mut Names,
    vault: &'a Vault,
}

impl fmt::Debug for Restore<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restore").finish_non_exhaustive()
    }
}

/// A configuration that a restored database waits for.
#[derive(Clone, PartialEq, Eq)]
pub struct PendingConfig {
    /// What the file said before.
    pub before: String,
    /// What it is to say.
    pub text: String,
}

impl fmt::Debug for PendingConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingConfig").finish_non_exhaustive()
    }
}

impl<'a> Restore<'a> {
    pub(super) const fn new(
        connection: &'a Connection,
        names: &'a mut Names,
        vault: &'a Vault,
    ) -> Self {
        Self {
            connection,
            names,
            vault,
        }
    }

    /// Takes all rows away.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn clear(&mut self) -> Result<(), SheetError> {
        for table in sheets::tables(self.connection)? {
            self.connection
                .execute_batch(&format!("DELETE FROM {table}"))?;
        }
        *self.names = Names::default();
        Ok(())
    }

    /// Writes the rows of a sheet.
    ///
    /// # Errors
    /// A row is wrong, or the disk is full; nothing is changed then.
    pub fn sheet(&mut self, name: &str, from: &mut dyn Read) -> Result<Taken, SheetError> {
        Intake::writing(self.connection, self.names)?.sheet(name, from)
    }

    /// Works out what other tables are made from.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn finish(&mut self) -> Result<(), SheetError> {
        captures::measure(self.connection)?;
        Ok(blocks::made_anew(self.connection, self.names)?)
    }

    /// What is used of quotas at that millisecond, by the new rows.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn quotas(&self, now_ms: i64) -> Result<Vec<QuotaRow>, StoreError> {
        Ok(quotas::standing(self.connection, now_ms)?)
    }

    /// Puts these in place of all secrets of that kind: names and values.
    ///
    /// # Errors
    /// SQLite refuses, or they can't be sealed.
    pub fn secrets(&mut self, kind: &str, all: &[(String, String)]) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM secrets WHERE kind = ?1", [kind])?;
        for (name, value) in all {
            let sealed = secrets::sealed(self.vault, kind, name, value);
            let sealed = sealed.map_err(StoreError::Sealed)?;
            secrets::put(self.connection, kind, name, &sealed)?;
        }
        Ok(())
    }

    /// Notes what the configuration file is to say.
    ///
    /// # Errors
    /// SQLite refuses.
    pub fn pend(&mut self, config: &PendingConfig) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM pending_config", [])?;
        self.connection.execute(
            "INSERT INTO pending_config (before, text) VALUES (?1, ?2)",
            params![config.before, config.text],
        )?;
        Ok(())
    }
}

/// The configuration that the database waits for.
pub(super) fn pending(connection: &Connection) -> Result<Option<PendingConfig>, rusqlite::Error> {
    let sql = "SELECT before, text FROM pending_config";
    connection
        .query_row(sql, [], |row| {
            Ok(PendingConfig {
                before: row.get(0)?,
                text: row.get(1)?,
            })
        })
        .optional()
}

/// The file says it.
pub(super) fn arrived(connection: &Connection) -> Result<u64, rusqlite::Error> {
    Ok(connection.execute("DELETE FROM pending_config", [])? as u64)
}

/// Looks through a sheet without writing anything.
#[derive(Debug)]
pub struct Rehearsal(Connection);

impl Rehearsal {
    /// # Errors
    /// SQLite refuses.
    pub fn new() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        schema::migrate(&mut connection, Path::new(":memory:"))
            .map_err(|error| StoreError::Database(error.to_string()))?;
        Ok(Self(connection))
    }

    /// As [`Restore::sheet`], without writing.
    ///
    /// # Errors
    /// A row is wrong.
    pub fn sheet(&self, name: &str, from: &mut dyn Read) -> Result<Taken, SheetError> {
        Intake::looking(&self.0).sheet(name, from)
    }
}
