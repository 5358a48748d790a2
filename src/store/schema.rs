//! The tables, and how older files become newer ones. A migration that has
//! been released is never changed; the next one is appended.

use std::path::Path;

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::error::OpenError;

/// Says in the file's header that it is ours: `PLXS`.
const APPLICATION_ID: i64 = 0x504c_5853;

/// Brings the database up to the newest schema. Refuses what is not ours, and
/// what is newer than this program.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let known = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    let found = number(connection, "user_version").map_err(failed)?;
    let owner = number(connection, "application_id").map_err(failed)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let empty = tables == 0 && found == 0 && owner == 0;
    if !empty && owner != APPLICATION_ID {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    if found > known {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known,
        });
    }
    if found == known {
        return Ok(());
    }
    let steps = Migrations::new(STEPS.iter().map(|sql| M::up(sql)).collect());
    steps.to_latest(connection).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => failed(err),
        other => OpenError::Failed {
            path: path.to_owned(),
            reason: other.to_string(),
        },
    })
}

fn number(connection: &Connection, pragma: &str) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, pragma, |row| row.get(0))
}

const STEPS: &[&str] = &[
    USAGE_AND_ERRORS,
    RESPONSES,
    COOLDOWNS,
    CAPTURES,
    SECRETS,
    QUOTAS,
    SUMS,
    BLOCKS,
];

/// What is sealed while there is a key; `next` is there only while keys change.
/// And the configuration file that a restored database waits for.
const SECRETS: &str = "
CREATE TABLE secrets (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    next TEXT,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE TABLE pending_config (
    before TEXT NOT NULL,
    text TEXT NOT NULL
);
";

/// How much of each quota each owner has used; `*` owns what keys share. Numbers
/// are thousandths of a request or token, or nano-dollars.
const QUOTAS: &str = "
CREATE TABLE quotas (
    quota TEXT NOT NULL,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    used INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    carry INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (quota, owner, kind)
) WITHOUT ROWID;
";

/// Targets' rests while they last; an empty model is a whole provider. Few and
/// small: names are written out.
const COOLDOWNS: &str = "
CREATE TABLE cooldowns (
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    limited INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (provider, model)
) WITHOUT ROWID;
";

/// Debug captures. Bodies stand last, so that lists don't read them; `same` is
/// whether the client got what the provider sent, and `answer` is empty then.
const CAPTURES: &str = "
CREATE TABLE captures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id BLOB NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    key TEXT,
    status INTEGER,
    size INTEGER NOT NULL,
    same INTEGER NOT NULL,
    about BLOB NOT NULL,
    request BLOB,
    sent BLOB,
    received BLOB,
    answer BLOB
);
CREATE INDEX captures_by_key ON captures (key, id, size);
CREATE INDEX captures_by_date ON captures (created_ms);
";

/// Usage rows once more, by column: see `blocks.rs`; and what they add up to: see
/// `sums.rs`. `span` is 0 for hours, 1 for days; `bucket` their number since the
/// epoch. Rows that are there already are put into blocks when the file is
/// opened. Blocks speak of attributions by number, too.
const BLOCKS: &str = "
DROP TABLE facets;
DROP TABLE sums;
DROP TABLE sums_state;
CREATE TABLE sums (
    span INTEGER NOT NULL,
    side INTEGER NOT NULL,
    owner_id INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    name_id INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    ttft_us INTEGER NOT NULL,
    ttft_rows INTEGER NOT NULL,
    PRIMARY KEY (span, side, owner_id, bucket, name_id)
) WITHOUT ROWID;
CREATE TABLE blocks (
    number INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    rows INTEGER NOT NULL
);
CREATE TABLE block_columns (
    id INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
CREATE TABLE late (
    id INTEGER PRIMARY KEY
);
CREATE TABLE folded (
    until INTEGER NOT NULL
);
INSERT INTO folded VALUES (0);
INSERT OR IGNORE INTO names (text)
    SELECT DISTINCT attribution FROM usage WHERE attribution IS NOT NULL;
";

/// What usage rows add up to. `span` is 0 for minutes, 1 for
/// hours, 2 for days; `bucket` their number since the epoch. Rows that are
/// there already are counted after the start, in slices; this takes the place
/// of the counts by hour.
///
/// `forgotten` has models whose measurements from before a moment are void.
const SUMS: &str = "
CREATE TABLE sums (
    span INTEGER NOT NULL,
    side INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    name_id INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    ttft_us INTEGER NOT NULL,
    ttft_rows INTEGER NOT NULL,
    PRIMARY KEY (span, side, bucket, name_id)
) WITHOUT ROWID;
CREATE TABLE facets (
    span INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    provider_id INTEGER NOT NULL,
    model_id INTEGER NOT NULL,
    canonical_id INTEGER NOT NULL,
    alias_id INTEGER NOT NULL,
    incoming_id INTEGER NOT NULL,
    outgoing_id INTEGER NOT NULL,
    status_id INTEGER NOT NULL,
    attribution TEXT NOT NULL,
    rows INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    reasoning INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    cache_write INTEGER NOT NULL,
    cost INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    ttft_us INTEGER NOT NULL,
    ttft_rows INTEGER NOT NULL,
    PRIMARY KEY (span, bucket, key_id, provider_id, model_id, canonical_id,
        alias_id, incoming_id, outgoing_id, status_id, attribution)
) WITHOUT ROWID;
CREATE TABLE sums_state (
    counted_from INTEGER NOT NULL,
    minutes_from INTEGER NOT NULL
);
INSERT INTO sums_state SELECT
    coalesce((SELECT max(id) + 1 FROM usage), 0),
    CASE WHEN EXISTS (SELECT 1 FROM usage)
        THEN (unixepoch() / 3600 - 48) * 3600000 ELSE 0 END;
CREATE TABLE forgotten (
    model TEXT PRIMARY KEY,
    until_ms INTEGER NOT NULL
) WITHOUT ROWID;
DROP TABLE usage_hours;
CREATE INDEX usage_by_client_request ON usage (client_request_id)
    WHERE client_request_id IS NOT NULL;
";

/// `usage.id` is the request's start in milliseconds, shifted left by 20 bits,
/// plus a number that tells the requests of one millisecond apart: the default
/// order, date ranges and retention all walk the primary key, and new rows go
/// to its end. The only other index makes a row that is written twice one row,
/// and finds it again.
///
/// Columns that end in `_id` refer to `names`, which holds each text once.
/// Times are microseconds, money is nano-dollars; NULL is "not known".
///
/// `usage_hours` counts rows by hour and key (0 is no key), so that totals and
/// the place of any page are found without counting rows.
const USAGE_AND_ERRORS: &str = "
PRAGMA application_id = 0x504c5853;
CREATE TABLE names (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);
CREATE TABLE usage (
    id INTEGER PRIMARY KEY,
    request_id BLOB NOT NULL,
    key_id INTEGER,
    provider_id INTEGER,
    model_id INTEGER,
    alias_id INTEGER,
    canonical_id INTEGER,
    incoming_id INTEGER NOT NULL,
    outgoing_id INTEGER,
    status_id INTEGER NOT NULL,
    finish_id INTEGER,
    http_status INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    streamed INTEGER NOT NULL,
    passthrough INTEGER NOT NULL,
    has_error INTEGER NOT NULL,
    tokens_estimated INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    ttft_us INTEGER,
    input INTEGER,
    cache_read INTEGER,
    cache_write_short INTEGER,
    cache_write_long INTEGER,
    cache_write_other INTEGER,
    tool_prompt INTEGER,
    output INTEGER,
    reasoning INTEGER,
    tool_calls INTEGER,
    cost_input INTEGER,
    cost_output INTEGER,
    cost_cached INTEGER,
    cost_cache_write INTEGER,
    cost_total INTEGER,
    cost_source TEXT,
    cost_metadata TEXT,
    source_ip TEXT,
    attribution TEXT,
    client_request_id TEXT,
    all_attempted TEXT,
    retry_history TEXT,
    notes TEXT
);
CREATE UNIQUE INDEX usage_by_request ON usage (request_id);
CREATE TABLE usage_hours (
    hour INTEGER NOT NULL,
    key_id INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (hour, key_id)
) WITHOUT ROWID;
CREATE TABLE errors (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id BLOB NOT NULL,
    date_ms INTEGER NOT NULL,
    key_id INTEGER,
    message TEXT NOT NULL,
    details TEXT NOT NULL
);
CREATE INDEX errors_by_request ON errors (request_id);
CREATE INDEX errors_by_date ON errors (date_ms);
";

/// Answers that clients may come back to. Ids are made unique by whoever makes
/// them; the key is the name of the one that may see the row.
const RESPONSES: &str = "
CREATE TABLE responses (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    provider TEXT NOT NULL,
    upstream INTEGER NOT NULL,
    previous TEXT,
    input BLOB NOT NULL,
    response BLOB NOT NULL
);
CREATE INDEX responses_by_expiry ON responses (expires_ms);
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linked_sqlite_has_the_fix_for_corrupted_logs_on_reset() {
        assert!(rusqlite::version_number() >= 3_051_003);
    }

    #[test]
    fn the_file_says_whose_it_is() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x")).unwrap();
        assert_eq!(
            number(&connection, "application_id").unwrap(),
            APPLICATION_ID
        );
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(&mut connection, Path::new("x")).unwrap();
        migrate(&mut connection, Path::new("x")).unwrap();
        let steps = i64::try_from(STEPS.len()).unwrap();
        assert_eq!(number(&connection, "user_version").unwrap(), steps);
    }
}
