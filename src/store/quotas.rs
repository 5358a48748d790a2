//! The `quotas` table: what keys used of their limits, and what the usage rows
//! say about it.

use rusqlite::{Connection, params};

use super::ledger::{HOUR_MS, first_id};
use super::row::{Habit, QuotaRow};

/// Writes the state of a quota.
pub(super) fn write(connection: &Connection, row: &QuotaRow) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached(
            "INSERT INTO quotas (quota, owner, kind, used, reserved, carry, at_ms, until_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (quota, owner, kind) DO UPDATE SET used = excluded.used,
             reserved = excluded.reserved, carry = excluded.carry, at_ms = excluded.at_ms,
             until_ms = excluded.until_ms",
        )?
        .execute(params![
            row.quota,
            row.owner,
            row.kind,
            signed(row.used),
            signed(row.reserved),
            signed(row.carry),
            row.at_ms,
            row.until_ms,
        ])
        .map(drop)
}

/// The states of which something is left at `now_ms`.
pub(super) fn standing(
    connection: &Connection,
    now_ms: i64,
) -> Result<Vec<QuotaRow>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT quota, owner, kind, used, reserved, carry, at_ms, until_ms FROM quotas
         WHERE until_ms > ?1",
    )?;
    let rows = statement.query_map([now_ms], |row| {
        Ok(QuotaRow {
            quota: row.get::<_, String>(0)?.into(),
            owner: row.get::<_, String>(1)?.into(),
            kind: row.get::<_, String>(2)?.into(),
            used: unsigned(row.get(3)?),
            reserved: unsigned(row.get(4)?),
            carry: unsigned(row.get(5)?),
            at_ms: row.get(6)?,
            until_ms: row.get(7)?,
        })
    })?;
    rows.collect()
}

/// Deletes states of which nothing is left; returns how many.
pub(super) fn delete_slice(
    connection: &Connection,
    now_ms: i64,
    most: u32,
) -> Result<u64, rusqlite::Error> {
    let deleted = connection
        .prepare_cached(
            "DELETE FROM quotas WHERE (quota, owner, kind) IN
             (SELECT quota, owner, kind FROM quotas WHERE until_ms <= ?1 LIMIT ?2)",
        )?
        .execute(params![now_ms, most])?;
    Ok(deleted as u64)
}

/// What requests to one target took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The provider.
    pub provider: String,
    /// The model there.
    pub model: String,
    /// How many.
    pub requests: u64,
    /// Their tokens, of all kinds.
    pub tokens: u64,
    /// Nano-dollars.
    pub nanos: u64,
}

/// What those keys' requests took that began in or after `from_ms`, by target.
/// Those count that were answered, and that their client left after the answer
/// had begun. A count of tokens, which no quota counts, is known by its row being
/// without any.
pub(super) fn taken(
    connection: &Connection,
    keys: &[String],
    from_ms: i64,
) -> Result<Vec<Drawn>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT provider.text, model.text, count(*),
         sum(coalesce(input, 0) + coalesce(cache_read, 0) + coalesce(cache_write_short, 0)
         + coalesce(cache_write_long, 0) + coalesce(cache_write_other, 0)
         + coalesce(tool_prompt, 0) + coalesce(output, 0) + coalesce(reasoning, 0)),
         sum(coalesce(cost_total, 0)) FROM usage
         JOIN names AS provider ON provider.id = provider_id
         JOIN names AS model ON model.id = model_id
         JOIN names AS status ON status.id = status_id
         JOIN names AS incoming ON incoming.id = incoming_id
         WHERE usage.id >= ?1 AND http_status BETWEEN 200 AND 299
         AND NOT (coalesce(input, output, cache_read, reasoning) IS NULL
         AND incoming.text IN ('messages', 'gemini', 'responses'))
         AND status.text IN ('success', 'empty', 'cancelled')
         AND key_id = (SELECT id FROM names WHERE text = ?2)
         GROUP BY provider_id, model_id",
    )?;
    let mut all = Vec::new();
    for key in keys {
        let rows = statement.query_map(params![first_id(from_ms), key], |row| {
            Ok(Drawn {
                provider: row.get(0)?,
                model: row.get(1)?,
                requests: unsigned(row.get(2)?),
                tokens: unsigned(row.get(3)?),
                nanos: unsigned(row.get(4)?),
            })
        })?;
        for row in rows {
            all.push(row?);
        }
    }
    Ok(all)
}

/// What the newest answered requests of 24 hours took, oldest first; only those of
/// keys, with tokens that are known.
pub(super) fn habits(connection: &Connection, now_ms: i64) -> Result<Vec<Habit>, rusqlite::Error> {
    /// They take some 10 ms.
    const MOST: u32 = 10_000;
    let mut statement = connection.prepare_cached(
        "SELECT * FROM (SELECT usage.id, key.text, alias.text,
         coalesce(output, 0) + coalesce(reasoning, 0),
         coalesce(input, 0) + coalesce(cache_read, 0) + coalesce(cache_write_short, 0)
         + coalesce(cache_write_long, 0) + coalesce(cache_write_other, 0)
         + coalesce(tool_prompt, 0), cost_total FROM usage
         JOIN names AS key ON key.id = key_id
         JOIN names AS alias ON alias.id = canonical_id
         JOIN names AS status ON status.id = status_id
         WHERE usage.id >= ?1 AND status.text = 'success'
         AND coalesce(output, reasoning) IS NOT NULL
         ORDER BY usage.id DESC LIMIT ?2) ORDER BY 1",
    )?;
    let from = first_id(now_ms.saturating_sub(24 * HOUR_MS));
    let rows = statement.query_map(params![from, MOST], |row| {
        let output = unsigned(row.get(3)?);
        let cost: Option<i64> = row.get(5)?;
        Ok(Habit {
            key: row.get::<_, String>(1)?.into(),
            alias: row.get::<_, String>(2)?.into(),
            output,
            tokens: output.saturating_add(unsigned(row.get(4)?)),
            nanos: cost.map(unsigned),
        })
    })?;
    rows.collect()
}

/// SQLite has no unsigned numbers; what does not fit is as good as its largest.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
