//! What the newest usage rows say about the targets they name.

use rusqlite::{Connection, OptionalExtension};

use super::filter::{Filter, Term};
use super::ledger::{HOUR_MS, first_id, millisecond};
use super::reading::{Reading, asked};
use super::row::Measurement;
use super::sums::Side;

/// Most rows that are looked at; they take some 20 ms.
const MOST: u32 = 20_000;

/// The newest finished requests of 24 hours, oldest first.
pub(super) fn recent(
    connection: &Connection,
    now_ms: i64,
) -> Result<Vec<Measurement>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM (SELECT usage.id, provider.text, model.text, status.text, streamed,
         coalesce(output, 0) + coalesce(reasoning, 0), duration_us, ttft_us FROM usage
         JOIN names AS provider ON provider.id = provider_id
         JOIN names AS model ON model.id = model_id
         JOIN names AS status ON status.id = status_id
         WHERE usage.id >= ?1 AND NOT EXISTS (SELECT 1 FROM forgotten
             WHERE forgotten.model = model.text AND forgotten.until_ms >= usage.id >> 20)
         ORDER BY usage.id DESC LIMIT ?2) ORDER BY 1",
    )?;
    let from = first_id(now_ms.saturating_sub(24 * HOUR_MS));
    let rows = statement.query_map(rusqlite::params![from, MOST], |row| {
        let status: String = row.get(3)?;
        let tokens: i64 = row.get(5)?;
        let duration: i64 = row.get(6)?;
        let ttft: Option<i64> = row.get(7)?;
        let measurement = Measurement {
            provider: row.get::<_, String>(1)?.into(),
            model: row.get::<_, String>(2)?.into(),
            start_ms: millisecond(row.get(0)?),
            answered: status == "success",
            streamed: row.get(4)?,
            tokens: u64::try_from(tokens).unwrap_or(0),
            duration_ms: duration as f64 / 1000.0,
            ttft_ms: ttft.map(|us| us as f64 / 1000.0),
        };
        // One that the client left says nothing.
        Ok((status != "cancelled").then_some(measurement))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// Leaves out what was measured of that model before `now_ms`, and forgets what
/// was left out long ago.
pub(super) fn forget(
    connection: &Connection,
    model: &str,
    now_ms: i64,
) -> Result<u64, rusqlite::Error> {
    connection.execute(
        "DELETE FROM forgotten WHERE until_ms < ?1",
        [now_ms.saturating_sub(24 * HOUR_MS)],
    )?;
    let changed = connection.execute(
        "INSERT INTO forgotten (model, until_ms) VALUES (?1, ?2)
         ON CONFLICT (model) DO UPDATE SET until_ms = excluded.until_ms",
        rusqlite::params![model, now_ms],
    )?;
    Ok(changed as u64)
}

/// Providers and models that requests for an alias of that name went to.
pub(super) fn targets_of(
    connection: &Connection,
    alias: &str,
) -> Result<Vec<(String, String)>, rusqlite::Error> {
    let mut find = connection.prepare_cached("SELECT id FROM names WHERE text = ?1")?;
    let alias = find.query_row([alias], |row| row.get(0)).optional()?;
    let filter = Filter::default().with(Term {
        side: Side::Canonical,
        names: alias.into_iter().collect(),
    });
    if filter.is_hopeless() {
        return Ok(Vec::new());
    }
    let ever = asked(None, None);
    let mut reading = Reading::of(connection, &filter, ever)?;
    let pairs = reading.scan(ever)?.pairs(Side::Provider, Side::Model)?;
    let mut name = connection.prepare_cached("SELECT text FROM names WHERE id = ?1")?;
    let mut text = |id: i64| name.query_row([id], |row| row.get(0)).optional();
    let mut targets = Vec::with_capacity(pairs.len());
    for (provider, model) in pairs {
        targets.extend(text(provider)?.zip(text(model)?));
    }
    targets.sort();
    Ok(targets)
}
