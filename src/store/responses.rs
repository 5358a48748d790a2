//! The `responses` table: answers of the Responses API that a client may come
//! back to, each visible only to the key that made it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

/// Bytes of answers that wait for the writer at most.
const WAITING: u64 = 64 << 20;

/// One answer, as it is kept.
#[derive(Debug)]
pub struct ResponseRow {
    /// The id that the client got.
    pub id: Box<str>,
    /// The key that made it.
    pub key: Arc<str>,
    /// Milliseconds since the epoch.
    pub created_ms: i64,
    /// When it is forgotten.
    pub expires_ms: i64,
    /// The provider that answered.
    pub provider: Arc<str>,
    /// Whether that provider knows the id: the answer was passed through.
    pub upstream: bool,
    /// The answer that this one went on from.
    pub previous: Option<Box<str>>,
    /// Input items: a JSON array.
    pub input: Bytes,
    /// The whole response object.
    pub response: Bytes,
}

/// One answer that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in ResponseRow")]
pub struct StoredResponse {
    pub id: String,
    pub provider: String,
    pub upstream: bool,
    pub previous: Option<String>,
    pub input: String,
    pub response: String,
}

/// How much the answers that wait for the writer weigh together.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicU64>);

impl Waiting {
    /// Room for an answer, for as long as the load lives; `None` when there is
    /// none.
    pub(super) fn load(&self, row: &ResponseRow) -> Option<Load> {
        let weight = (row.input.len() + row.response.len()) as u64;
        let before = self.0.fetch_add(weight, Ordering::Relaxed);
        let load = Load {
            waiting: self.clone(),
            weight,
        };
        (before + weight <= WAITING).then_some(load)
    }
}

/// The weight of one answer, taken off when it is dropped.
#[derive(Debug)]
pub(super) struct Load {
    waiting: Waiting,
    weight: u64,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.waiting.0.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

pub(super) const INSERT: &str = "INSERT INTO responses
    (id, key, created_ms, expires_ms, provider, upstream, previous, input, response)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
    ON CONFLICT (id) DO UPDATE SET response = excluded.response, expires_ms = excluded.expires_ms
    WHERE key = excluded.key";

/// Writes an answer. An id that another key has stays that key's.
pub(super) fn insert(
    statement: &mut rusqlite::CachedStatement<'_>,
    row: &ResponseRow,
) -> Result<(), rusqlite::Error> {
    statement.execute(params![
        &*row.id,
        &*row.key,
        row.created_ms,
        row.expires_ms,
        &*row.provider,
        row.upstream,
        row.previous.as_deref(),
        &row.input[..],
        &row.response[..],
    ])?;
    Ok(())
}

/// The answer of that id, if that key made it and it has not expired.
pub(super) fn by_id(
    connection: &Connection,
    id: &str,
    key: &str,
    now_ms: i64,
) -> Result<Option<StoredResponse>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT id, provider, upstream, previous, input, response FROM responses
         WHERE id = ?1 AND key = ?2 AND expires_ms > ?3",
    )?;
    let read = statement.query_row(params![id, key, now_ms], |row| {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(StoredResponse {
            id: row.get(0)?,
            provider: row.get(1)?,
            upstream: row.get(2)?,
            previous: row.get(3)?,
            input: text(row.get(4)?),
            response: text(row.get(5)?),
        })
    });
    read.optional()
}

/// Deletes the answer of that id if that key made it; returns how many rows went.
pub(super) fn delete(connection: &Connection, id: &str, key: &str) -> Result<u64, rusqlite::Error> {
    let deleted = connection
        .prepare_cached("DELETE FROM responses WHERE id = ?1 AND key = ?2")?
        .execute(params![id, key])?;
    Ok(deleted as u64)
}

/// Deletes up to `slice` answers that have expired; returns how many rows went.
pub(super) fn delete_slice(
    connection: &Connection,
    now_ms: i64,
    slice: u32,
) -> Result<u64, rusqlite::Error> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM responses WHERE id IN
             (SELECT id FROM responses WHERE expires_ms <= ?1 ORDER BY expires_ms LIMIT ?2)",
        )?
        .execute(params![now_ms, slice])?;
    Ok(deleted as u64)
}
