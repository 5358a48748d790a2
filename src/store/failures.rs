//! The `errors` table: what failed, newest first, and how rows leave it.

use rusqlite::{Connection, params};
use serde_json::Value;
use uuid::Uuid;

use super::record::{Record, Texts, iso, uuid};

/// Some of the error records, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorPage {
    /// The records.
    pub data: Vec<Record>,
    /// How many there are without limit and offset.
    pub total: u64,
}

/// The page of the newest errors; with `only_key`, of that key's alone.
pub(super) fn page(
    connection: &Connection,
    limit: Option<u64>,
    offset: u64,
    only_key: Option<&str>,
) -> Result<ErrorPage, rusqlite::Error> {
    const MINE: &str = "(?1 IS NULL OR key_id = (SELECT names.id FROM names WHERE text = ?1))";
    let total: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM errors WHERE {MINE}"))?
        .query_row([only_key], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, request_id, date_ms, key_id, message, details FROM errors
         WHERE {MINE} ORDER BY id DESC LIMIT ?2 OFFSET ?3"
    ))?;
    let limit = limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![only_key, limit, offset])?;
    let mut texts = Texts::of(connection)?;
    let mut data = Vec::new();
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(1)?;
        let date_ms: i64 = row.get(2)?;
        let mut record = Record::new();
        let mut put = |name: &str, value: Value| {
            record.insert(name.to_owned(), value);
        };
        put("id", row.get::<_, i64>(0)?.into());
        put("requestId", uuid(&bytes));
        put("date", iso(date_ms));
        put("apiKey", texts.text(row.get(3)?)?);
        put("errorMessage", row.get::<_, String>(4)?.into());
        put("errorStack", Value::Null);
        put("details", row.get::<_, String>(5)?.into());
        put("createdAt", date_ms.into());
        data.push(record);
    }
    Ok(ErrorPage {
        data,
        total: u64::try_from(total).unwrap_or(0),
    })
}

/// Deletes the errors of that request; with `only_key`, only if they are that
/// key's. Returns how many rows went.
pub(super) fn delete_of(
    connection: &Connection,
    request_id: Uuid,
    only_key: Option<&str>,
) -> Result<u64, rusqlite::Error> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM errors WHERE request_id = ?1
             AND (?2 IS NULL OR key_id = (SELECT names.id FROM names WHERE text = ?2))",
        )?
        .execute(params![request_id.as_bytes(), only_key])?;
    Ok(deleted as u64)
}

/// Deletes up to `slice` errors from before `before_ms`; returns how many rows
/// went.
pub(super) fn delete_slice(
    connection: &Connection,
    before_ms: i64,
    slice: u32,
) -> Result<u64, rusqlite::Error> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM errors WHERE id IN
             (SELECT id FROM errors WHERE date_ms < ?1 ORDER BY date_ms LIMIT ?2)",
        )?
        .execute(params![before_ms, slice])?;
    Ok(deleted as u64)
}
