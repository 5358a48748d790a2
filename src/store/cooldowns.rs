//! The `cooldowns` table: targets' rests while they last.

use rusqlite::{Connection, params};

use super::row::CooldownRow;

/// Writes what became of a rest.
pub(super) fn write(connection: &Connection, row: &CooldownRow) -> Result<(), rusqlite::Error> {
    let Some(until) = row.until_ms else {
        return connection
            .prepare_cached("DELETE FROM cooldowns WHERE provider = ?1 AND model = ?2")?
            .execute([&row.provider, &row.model])
            .map(drop);
    };
    let message: &str = &row.message;
    connection
        .prepare_cached(
            "INSERT INTO cooldowns (provider, model, until_ms, failures, limited, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (provider, model) DO UPDATE SET until_ms = excluded.until_ms,
             failures = excluded.failures, limited = excluded.limited,
             message = excluded.message",
        )?
        .execute(params![
            row.provider,
            row.model,
            until,
            row.failures,
            row.limited,
            message
        ])
        .map(drop)
}

/// The rests that last beyond `now_ms`.
pub(super) fn standing(
    connection: &Connection,
    now_ms: i64,
) -> Result<Vec<CooldownRow>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT provider, model, until_ms, failures, limited, message FROM cooldowns
         WHERE until_ms > ?1",
    )?;
    let rows = statement.query_map([now_ms], |row| {
        Ok(CooldownRow {
            provider: row.get::<_, String>(0)?.into(),
            model: row.get::<_, String>(1)?.into(),
            until_ms: Some(row.get(2)?),
            failures: row.get(3)?,
            limited: row.get(4)?,
            message: row.get::<_, String>(5)?.into(),
        })
    })?;
    rows.collect()
}
