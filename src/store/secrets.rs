//! The `secrets` table: what the database holds that must not be read by who
//! steals it. Values are sealed by the vault, bound to their kind and name;
//! without a key they stand in clear.
//!
//! A change of keys writes the value of the new key beside that of the old one
//! (`next`) before the configuration file changes, and takes the old one away
//! after it. So either key opens everything at any moment in between, and the
//! file alone decides which one is in force.

use rusqlite::{Connection, OptionalExtension, params};

use crate::vault::{Vault, VaultError};

/// Why secrets could not be read or written.
#[derive(Debug)]
pub(super) enum SecretError {
    Vault(VaultError),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for SecretError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<VaultError> for SecretError {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

/// One secret, opened.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSecret {
    /// What it is called within its kind.
    pub name: String,
    /// The secret.
    pub value: String,
}

impl std::fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSecret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Secrets of that kind, by name.
pub(super) fn of_kind(
    connection: &Connection,
    vault: &Vault,
    kind: &str,
) -> Result<Vec<StoredSecret>, SecretError> {
    let mut statement = connection
        .prepare_cached("SELECT name, value, next FROM secrets WHERE kind = ?1 ORDER BY name")?;
    let mut rows = statement.query([kind])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let (value, next): (String, Option<String>) = (row.get(1)?, row.get(2)?);
        let value = opened(vault, kind, &name, &value, next.as_deref())?;
        found.push(StoredSecret { name, value });
    }
    Ok(found)
}

/// The secret of that kind and name.
pub(super) fn one(
    connection: &Connection,
    vault: &Vault,
    kind: &str,
    name: &str,
) -> Result<Option<String>, SecretError> {
    let found: Option<(String, Option<String>)> = connection
        .prepare_cached("SELECT value, next FROM secrets WHERE kind = ?1 AND name = ?2")?
        .query_row([kind, name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let open = |(value, next): (String, Option<String>)| {
        opened(vault, kind, name, &value, next.as_deref())
    };
    Ok(found.map(open).transpose()?)
}

/// What is written for a secret.
pub(super) fn sealed(
    vault: &Vault,
    kind: &str,
    name: &str,
    value: &str,
) -> Result<String, VaultError> {
    if vault.has_key() {
        vault.seal(&place(kind, name), value)
    } else {
        Ok(value.to_owned())
    }
}

/// Writes a value that [`sealed`] made.
pub(super) fn put(
    connection: &Connection,
    kind: &str,
    name: &str,
    sealed: &str,
) -> Result<u64, rusqlite::Error> {
    let written = connection
        .prepare_cached(
            "INSERT INTO secrets (kind, name, value) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value, next = NULL",
        )?
        .execute([kind, name, sealed])?;
    Ok(written as u64)
}

/// Forgets a secret; returns how many rows went.
pub(super) fn delete(
    connection: &Connection,
    kind: &str,
    name: &str,
) -> Result<u64, rusqlite::Error> {
    let deleted = connection
        .prepare_cached("DELETE FROM secrets WHERE kind = ?1 AND name = ?2")?
        .execute([kind, name])?;
    Ok(deleted as u64)
}

/// Writes what the new key makes of every secret beside it; returns how many
/// they are.
pub(super) fn prepare(
    connection: &Connection,
    old: &Vault,
    new: &Vault,
) -> Result<u64, SecretError> {
    for row in all(connection)? {
        let clear = opened(old, &row.kind, &row.name, &row.value, row.next.as_deref())?;
        // Of an earlier change that did not come to its end, too.
        let value = sealed(old, &row.kind, &row.name, &clear)?;
        let next = sealed(new, &row.kind, &row.name, &clear)?;
        connection
            .prepare_cached(
                "UPDATE secrets SET value = ?3, next = ?4 WHERE kind = ?1 AND name = ?2",
            )?
            .execute([&row.kind, &row.name, &value, &next])?;
    }
    let count: i64 = connection.query_row("SELECT count(*) FROM secrets", [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Makes every secret one that this vault sealed, and no other; what stands in
/// clear is sealed. Returns how many rows changed.
pub(super) fn settle(connection: &Connection, vault: &Vault) -> Result<u64, SecretError> {
    let mut changed = 0;
    for row in all(connection)? {
        let place = place(&row.kind, &row.name);
        let clear = opened(vault, &row.kind, &row.name, &row.value, row.next.as_deref())?;
        let stays = row.next.is_none() && Vault::is_sealed(&row.value) == vault.has_key();
        if stays {
            continue;
        }
        let kept = [Some(&row.value), row.next.as_ref()]
            .into_iter()
            .flatten()
            .find(|text| Vault::is_sealed(text) && vault.open(&place, text).is_ok());
        let value = match kept {
            Some(kept) => kept.clone(),
            None => sealed(vault, &row.kind, &row.name, &clear)?,
        };
        changed += connection
            .prepare_cached(
                "UPDATE secrets SET value = ?3, next = NULL WHERE kind = ?1 AND name = ?2",
            )?
            .execute(params![row.kind, row.name, value])? as u64;
    }
    Ok(changed)
}

struct Row {
    kind: String,
    name: String,
    value: String,
    next: Option<String>,
}

fn all(connection: &Connection) -> Result<Vec<Row>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT kind, name, value, next FROM secrets")?;
    let rows = statement.query_map([], |row| {
        Ok(Row {
            kind: row.get(0)?,
            name: row.get(1)?,
            value: row.get(2)?,
            next: row.get(3)?,
        })
    })?;
    rows.collect()
}

fn opened(
    vault: &Vault,
    kind: &str,
    name: &str,
    value: &str,
    next: Option<&str>,
) -> Result<String, VaultError> {
    let open = |text: &str| match Vault::is_sealed(text) {
        true => vault.open(&place(kind, name), text),
        false => Ok(text.to_owned()),
    };
    match (open(value), next) {
        (Err(VaultError::OtherKey), Some(next)) => open(next),
        (outcome, _) => outcome,
    }
}

const fn place<'a>(kind: &'a str, name: &'a str) -> [&'a str; 3] {
    ["database", kind, name]
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const NEW: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn database(vault: &Vault) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        for name in ["a", "b"] {
            let text = sealed(vault, "oauth", name, &format!("token-{name}")).unwrap();
            put(&connection, "oauth", name, &text).unwrap();
        }
        connection
    }

    fn read(connection: &Connection, vault: &Vault) -> Result<Vec<String>, VaultError> {
        match of_kind(connection, vault, "oauth") {
            Ok(found) => Ok(found.into_iter().map(|secret| secret.value).collect()),
            Err(SecretError::Vault(error)) => Err(error),
            Err(SecretError::Database(error)) => panic!("{error}"),
        }
    }

    fn stored(connection: &Connection) -> String {
        let sql = "SELECT group_concat(value || coalesce(next, '')) FROM secrets";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn sealed_values_do_not_show_and_open_with_their_key_alone() {
        let vault = Vault::new(OLD);
        let connection = database(&vault);
        assert!(!stored(&connection).contains("token"));
        assert_eq!(read(&connection, &vault).unwrap(), ["token-a", "token-b"]);
        assert_eq!(
            one(&connection, &vault, "oauth", "b").unwrap().as_deref(),
            Some("token-b")
        );
        assert_eq!(
            read(&connection, &Vault::new(NEW)),
            Err(VaultError::OtherKey)
        );
        assert_eq!(read(&connection, &Vault::default()), Err(VaultError::NoKey));
        assert_eq!(delete(&connection, "oauth", "a").unwrap(), 1);
        assert_eq!(read(&connection, &vault).unwrap(), ["token-b"]);
    }

    #[test]
    fn while_keys_change_either_opens_everything_and_afterwards_one() {
        let (old, new) = (Vault::new(OLD), Vault::new(NEW));
        for (winner, loser) in [(&old, &new), (&new, &old)] {
            let connection = database(&old);
            assert_eq!(prepare(&connection, &old, &new).unwrap(), 2);
            for vault in [&old, &new] {
                assert_eq!(read(&connection, vault).unwrap(), ["token-a", "token-b"]);
            }
            assert_eq!(settle(&connection, winner).unwrap(), 2);
            assert_eq!(settle(&connection, winner).unwrap(), 0);
            assert_eq!(read(&connection, winner).unwrap(), ["token-a", "token-b"]);
            assert_eq!(read(&connection, loser), Err(VaultError::OtherKey));
        }
    }

    #[test]
    fn a_change_that_broke_off_can_be_begun_again() {
        let (old, new) = (Vault::new(OLD), Vault::new(NEW));
        let connection = database(&old);
        prepare(&connection, &old, &Vault::new("a third one")).unwrap();
        prepare(&connection, &old, &new).unwrap();
        settle(&connection, &new).unwrap();
        assert_eq!(read(&connection, &new).unwrap(), ["token-a", "token-b"]);
    }

    #[test]
    fn what_stands_in_clear_is_sealed_when_there_is_a_key() {
        let connection = database(&Vault::default());
        assert!(stored(&connection).contains("token-a"));
        let vault = Vault::new(OLD);
        assert_eq!(settle(&connection, &vault).unwrap(), 2);
        assert!(!stored(&connection).contains("token"));
        assert_eq!(read(&connection, &vault).unwrap(), ["token-a", "token-b"]);
    }
}
