//! Rows into tables, a batch in one transaction. A batch is all or nothing,
//! except that a row which the database refuses for itself is left out.
//!
//! Writing a batch again after a failure is safe: a request that is already
//! there stays one row.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{CachedStatement, Connection, ErrorCode, ffi, params};

use super::blocks::{self, Fold};
use super::captures::{CaptureRow, Shelf};
use super::cooldowns;
use super::error::StoreError;
use super::names::{Interner, Names};
use super::quotas;
use super::responses::{self, Load, ResponseRow};
use super::restore::Restore;
use super::row::{Bill, CooldownRow, ErrorRow, QuotaRow, UsageRow};
use super::sums::{SIDES, Side};
use crate::money::{Cost, Nanos};
use crate::vault::Vault;

/// One row on its way.
#[derive(Debug)]
pub(super) enum Row {
    Usage(Box<UsageRow>),
    Error(Box<ErrorRow>),
    Cooldown(Box<CooldownRow>),
    Capture(Box<CaptureRow>),
    Quota(Box<QuotaRow>),
    /// The load is held for its drop.
    Response(
        Box<ResponseRow>,
        #[expect(dead_code, reason = "held for its drop")] Load,
    ),
}

/// What became of a batch that was committed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Rows that the database refused one by one.
    pub(super) refused: u64,
    /// Why the last of them was refused.
    pub(super) reason: Option<String>,
}

/// The writable connection and what is remembered of its tables.
pub(super) struct Ledger {
    pub(super) connection: Connection,
    names: Names,
    sequence: i64,
    captures: Shelf,
    /// Usage rows that are in no block, as far as that makes a difference.
    loose: usize,
}

/// Bits of `usage.id` that tell the requests of one millisecond apart.
pub(super) const SEQUENCE_BITS: u32 = 20;

/// The smallest `usage.id` of a request that began in that millisecond.
pub(super) const fn first_id(ms: i64) -> i64 {
    const LATEST: i64 = i64::MAX >> SEQUENCE_BITS;
    let ms = if ms < 0 {
        0
    } else if ms > LATEST {
        LATEST
    } else {
        ms
    };
    ms << SEQUENCE_BITS
}

/// The end of the calendar, in the year 2248: the beginning of a day that no
/// row can begin in. Later rows are taken for ones of the millisecond before.
pub(super) const END_MS: i64 = (i64::MAX >> SEQUENCE_BITS) / (24 * HOUR_MS) * (24 * HOUR_MS);

/// The millisecond in which the request with that `usage.id` began.
pub(super) const fn millisecond(id: i64) -> i64 {
    id >> SEQUENCE_BITS
}

/// Milliseconds in an hour.
pub(super) const HOUR_MS: i64 = 3_600_000;

impl Ledger {
    /// Holds at most so many bytes of captures; 0 is no limit.
    pub(super) fn new(connection: Connection, capture_bytes: i64) -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        // Should that fail, the next fold will tell.
        let loose = blocks::loose_rows(&connection, Fold::USUAL.at).unwrap_or(Fold::USUAL.at);
        Self {
            connection,
            loose,
            names: Names::default(),
            // Another start than the last run had, should a clock be set back.
            sequence: i64::from(since_epoch.subsec_micros()),
            captures: Shelf::new(capture_bytes),
        }
    }

    /// Writes the batch in one transaction.
    ///
    /// # Errors
    ///
    /// The database is locked, the disk is full or broken. Nothing of the
    /// batch was written; it may be tried again.
    pub(super) fn commit(&mut self, batch: &[Row]) -> Result<Written, rusqlite::Error> {
        let result = self.write(batch);
        if result.is_ok() {
            self.names.settle();
        } else {
            self.names.revert();
            self.captures.forget();
            self.roll_back();
        }
        result
    }

    /// Puts some of the usage rows into a block, if there are enough of them that
    /// are in none; returns how many.
    pub(super) fn fold(&mut self, fold: Fold) -> Result<usize, rusqlite::Error> {
        if self.loose < fold.at {
            return Ok(0);
        }
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE");
        let result = begun.and_then(|()| {
            let mut names = self.names.within(&self.connection)?;
            let rows = blocks::fold(&self.connection, &mut names, fold)?;
            self.connection.execute_batch("COMMIT")?;
            Ok(rows)
        });
        if result.is_ok() {
            self.names.settle();
            self.loose = blocks::loose_rows(&self.connection, fold.at)?;
        } else {
            self.names.revert();
            self.roll_back();
        }
        result
    }

    /// Runs `work` in a transaction of its own.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, rusqlite::Error> {
        // The work may be about captures.
        self.captures.forget();
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE");
        let result = begun
            .and_then(|()| work(&self.connection))
            .and_then(|answer| self.connection.execute_batch("COMMIT").map(|()| answer));
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    /// Replaces what is kept, in a transaction of its own. What is remembered of
    /// the tables is forgotten, whatever comes of it.
    pub(super) fn replace(
        &mut self,
        vault: &Vault,
        work: impl FnOnce(&mut Restore<'_>) -> Result<u64, StoreError>,
    ) -> Result<u64, StoreError> {
        self.names = Names::default();
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE");
        let result = begun.map_err(StoreError::from).and_then(|()| {
            let answer = work(&mut Restore::new(&self.connection, &mut self.names, vault))?;
            self.connection.execute_batch("COMMIT")?;
            Ok(answer)
        });
        self.names = Names::default();
        self.captures.forget();
        if result.is_err() {
            self.roll_back();
        }
        self.loose = blocks::loose_rows(&self.connection, Fold::USUAL.at)?;
        result
    }

    fn write(&mut self, batch: &[Row]) -> Result<Written, rusqlite::Error> {
        let connection = &self.connection;
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut pen = Pen {
            connection,
            usage: connection.prepare_cached(INSERT_USAGE)?,
            error: connection.prepare_cached(INSERT_ERROR)?,
            response: connection.prepare_cached(responses::INSERT)?,
            names: self.names.within(connection)?,
            sequence: &mut self.sequence,
            until: blocks::until(connection)?,
            rows: 0,
        };
        let mut written = Written::default();
        for row in batch {
            let result = match row {
                Row::Usage(row) => pen.usage(row),
                Row::Error(row) => pen.error(row),
                Row::Cooldown(row) => cooldowns::write(connection, row),
                Row::Quota(row) => quotas::write(connection, row),
                Row::Response(row, _) => responses::insert(&mut pen.response, row),
                Row::Capture(row) => self.captures.put(connection, row),
            };
            match result {
                Ok(()) => {}
                Err(error) if is_circumstance(&error) => return Err(error),
                Err(error) => {
                    written.refused += 1;
                    written.reason = Some(error.to_string());
                }
            }
        }
        self.captures.trim(connection)?;
        let rows = pen.rows;
        connection.prepare_cached("COMMIT")?.execute([])?;
        self.loose += rows;
        Ok(written)
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a failed transaction could not be rolled back");
        }
    }
}

/// What a client spoke that sends Codex's lighter form of Responses.
const LITE: &str = "responses:lite";

/// The columns stand in the order in which rows are bound.
const INSERT_USAGE: &str = "INSERT INTO usage
    (id, request_id, key_id, provider_id, model_id, alias_id, canonical_id,
     incoming_id, outgoing_id, status_id, finish_id, http_status, attempts,
     streamed, passthrough, has_error, tokens_estimated, duration_us,
     ttft_us, input, cache_read, cache_write_short, cache_write_long,
     cache_write_other, tool_prompt, output, reasoning, tool_calls,
     cost_input, cost_output, cost_cached, cost_cache_write, cost_total,
     cost_source, cost_metadata, source_ip, attribution, client_request_id, all_attempted,
     retry_history, notes)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
     ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (request_id) DO NOTHING";

const INSERT_ERROR: &str =
    "INSERT INTO errors (request_id, date_ms, key_id, message, details) VALUES (?, ?, ?, ?, ?)";

/// The statements of one transaction.
struct Pen<'a> {
    connection: &'a Connection,
    usage: CachedStatement<'a>,
    error: CachedStatement<'a>,
    response: CachedStatement<'a>,
    names: Interner<'a>,
    sequence: &'a mut i64,
    /// Rows that come before that are late.
    until: i64,
    /// Usage rows written.
    rows: usize,
}

impl Pen<'_> {
    /// Writes the row under the first free id of its millisecond.
    fn usage(&mut self, row: &UsageRow) -> Result<(), rusqlite::Error> {
        const ATTEMPTS: u32 = 64;
        let start_ms = row.start_ms.clamp(0, END_MS - 1);
        let first = first_id(start_ms);
        let names = self.names_of(row)?;
        let mut attempt = 0;
        let id = loop {
            *self.sequence = (*self.sequence + 1) & ((1 << SEQUENCE_BITS) - 1);
            let id = first | *self.sequence;
            match self.insert(id, &names, row) {
                Ok(0) => return Ok(()),
                Ok(_) => break id,
                Err(error) if is_taken(&error) && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        self.rows += 1;
        if id < self.until {
            blocks::note_late(self.connection, id)?;
        }
        Ok(())
    }

    /// Its names' numbers, 0 is none.
    fn names_of(&mut self, row: &UsageRow) -> Result<[i64; SIDES], rusqlite::Error> {
        let mut numbers = [0; SIDES];
        for side in Side::ALL {
            let text = match side {
                Side::Key => row.key.as_deref(),
                Side::Provider => row.provider.as_deref(),
                Side::Model => row.selected_model.as_deref(),
                Side::Canonical => row.canonical.as_deref(),
                Side::Alias => row.incoming_alias.as_deref(),
                Side::Incoming => Some(if row.lite { LITE } else { row.incoming.name() }),
                Side::Outgoing => row.outgoing.map(|protocol| protocol.name()),
                Side::Status => Some(row.status.name()),
                // Written out in the row; whoever reads blocks wants a number.
                Side::Attribution => row.attribution.as_deref(),
            };
            numbers[side as usize] = self.names.maybe(text)?.unwrap_or(0);
        }
        Ok(numbers)
    }

    fn insert(
        &mut self,
        id: i64,
        names: &[i64; SIDES],
        row: &UsageRow,
    ) -> Result<usize, rusqlite::Error> {
        let known = |side: Side| Some(names[side as usize]).filter(|number| *number != 0);
        let finish = self.names.maybe(row.finish_reason.as_deref())?;
        let tokens = &row.tokens;
        let bill = row.bill.as_ref();
        let cost = bill.and_then(|bill| bill.cost);
        let nanos = |part: fn(&Cost) -> Nanos| cost.as_ref().map(|cost| signed(part(cost).0));
        self.usage.execute(params![
            id,
            row.request_id.as_bytes(),
            known(Side::Key),
            known(Side::Provider),
            known(Side::Model),
            known(Side::Alias),
            known(Side::Canonical),
            known(Side::Incoming),
            known(Side::Outgoing),
            known(Side::Status),
            finish,
            row.http_status,
            row.attempts,
            row.streamed,
            row.passthrough,
            row.has_error,
            row.tokens_estimated,
            micros(row.duration_ms),
            row.ttft_ms.map(micros),
            tokens.input.map(signed),
            tokens.cache_read.map(signed),
            tokens.cache_write_short.map(signed),
            tokens.cache_write_long.map(signed),
            tokens.cache_write_other.map(signed),
            tokens.tool_prompt.map(signed),
            tokens.output.map(signed),
            tokens.reasoning.map(signed),
            row.tool_calls,
            nanos(|cost| cost.input),
            nanos(|cost| cost.output),
            nanos(|cost| cost.cached),
            nanos(|cost| cost.cache_write),
            nanos(Cost::total),
            bill.map(|bill| bill.source),
            bill.map(Bill::metadata),
            row.source_ip.map(|ip| ip.to_string()),
            row.attribution.as_deref(),
            row.client_request_id.as_deref(),
            row.all_attempted.as_deref(),
            row.retry_history.as_deref(),
            row.notes.as_deref(),
        ])
    }

    fn error(&mut self, row: &ErrorRow) -> Result<(), rusqlite::Error> {
        let key = self.names.maybe(row.key.as_deref())?;
        let id = row.request_id.as_bytes();
        self.error
            .execute(params![id, row.date_ms, key, row.message, row.details])?;
        Ok(())
    }
}

/// Whether the error lies in the state of the machine or the file, so that it
/// would meet any row, and may pass.
pub(super) fn is_circumstance(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::SchemaChanged
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
        )
    )
}

/// Whether another row has that id.
fn is_taken(error: &rusqlite::Error) -> bool {
    error.sqlite_extended_error_code() == Some(ffi::SQLITE_CONSTRAINT_PRIMARYKEY)
        || error.sqlite_extended_error_code() == Some(ffi::SQLITE_CONSTRAINT_ROWID)
}

/// Milliseconds to whole microseconds; nonsense is zero.
fn micros(ms: f64) -> i64 {
    // A float-to-integer cast saturates, and NaN becomes zero.
    ((ms * 1000.0).round() as i64).max(0)
}

/// SQLite's integers are signed.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let mut connection = Connection::open_in_memory().unwrap();
        super::super::schema::migrate(&mut connection, std::path::Path::new("x")).unwrap();
        Ledger::new(connection, 0)
    }

    fn row(key: &str, notes: &str) -> Row {
        Row::Usage(Box::new(UsageRow {
            key: Some(key.into()),
            notes: Some(notes.into()),
            ..UsageRow::blank(1)
        }))
    }

    fn count(ledger: &Ledger, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        ledger
            .connection
            .query_row(&sql, [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_full_disk_writes_nothing_and_the_same_batch_is_written_when_there_is_room() {
        let mut ledger = ledger();
        let limit = |ledger: &Ledger, pages: i64| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            ledger.connection.query_row(&sql, [], |_| Ok(())).unwrap();
        };
        limit(&ledger, 30);
        let notes = "n".repeat(2000);
        let batch: Vec<Row> = (0..200).map(|i| row(&format!("key-{i}"), &notes)).collect();
        let error = ledger.commit(&batch).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
        assert!(is_circumstance(&error));
        for table in ["usage", "names"] {
            assert_eq!(count(&ledger, table), 0, "{table}");
        }
        limit(&ledger, 10_000);
        assert_eq!(ledger.commit(&batch).unwrap(), Written::default());
        assert_eq!(count(&ledger, "usage"), 200);
        // Each key has its own name again.
        let sql = "SELECT count(DISTINCT text) FROM usage JOIN names ON names.id = key_id";
        let keys: i64 = ledger
            .connection
            .query_row(sql, [], |row| row.get(0))
            .unwrap();
        assert_eq!(keys, 200);
    }

    #[test]
    fn a_batch_written_twice_is_there_and_counted_once() {
        let mut ledger = ledger();
        let batch: Vec<Row> = (0..10).map(|_| row("k", "")).collect();
        ledger.commit(&batch).unwrap();
        ledger.commit(&batch).unwrap();
        assert_eq!(count(&ledger, "usage"), 10);
        assert_eq!(ledger.fold(Fold { at: 10, take: 10 }).unwrap(), 10);
        let sql = "SELECT sum(rows) FROM sums WHERE span = 1 AND side = 0";
        let counted: i64 = ledger
            .connection
            .query_row(sql, [], |row| row.get(0))
            .unwrap();
        assert_eq!(counted, 10);
    }

    #[test]
    fn a_replacement_that_meets_a_full_disk_or_fails_changes_nothing() {
        let mut ledger = ledger();
        let batch: Vec<Row> = (0..10).map(|_| row("k", "")).collect();
        ledger.commit(&batch).unwrap();
        let vault = Vault::default();
        let limit = "PRAGMA max_page_count = 40";
        ledger.connection.query_row(limit, [], |_| Ok(())).unwrap();
        let head = "requestId,startTime,responseStatus,attribution\n";
        let long = "x".repeat(3000);
        let rows: String = (0..500)
            .map(|i| format!("{i},{i},success,{long}\n"))
            .collect();
        let outcome = ledger.replace(&vault, |restore| {
            restore.clear()?;
            restore.sheet("request_usage", &mut format!("{head}{rows}").as_bytes())?;
            Ok(0)
        });
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("full"), "{error}");
        let outcome = ledger.replace(&vault, |restore| {
            restore.clear()?;
            Err(StoreError::Closed)
        });
        assert_eq!(outcome, Err(StoreError::Closed));
        assert_eq!(count(&ledger, "usage"), 10);
        ledger
            .connection
            .query_row("PRAGMA max_page_count = 100000", [], |_| Ok(()))
            .unwrap();
        // What follows is written as if nothing had been tried.
        ledger.commit(&[row("k", ""), row("new", "")]).unwrap();
        assert_eq!(count(&ledger, "usage"), 12);
        assert_eq!(count(&ledger, "names"), 4);
        ledger
            .replace(&vault, |restore| {
                restore.clear()?;
                restore.sheet(
                    "request_usage",
                    &mut format!("{head}a,5,success,x\n").as_bytes(),
                )?;
                restore.finish()?;
                Ok(0)
            })
            .unwrap();
        assert_eq!(count(&ledger, "usage"), 1);
    }

    #[test]
    fn an_id_that_is_taken_is_passed_over() {
        let mut ledger = ledger();
        ledger.sequence = 41;
        ledger.commit(&[row("k", ""), row("k", "")]).unwrap();
        ledger.sequence = 41;
        assert_eq!(ledger.commit(&[row("k", "")]).unwrap(), Written::default());
        assert_eq!(count(&ledger, "usage"), 3);
    }
}
