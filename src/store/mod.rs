//! What is kept: SQLite behind one door. No rusqlite type leaves this folder.
//!
//! Rows are handed to the [`Writer`], which never blocks. Everything else here
//! blocks and belongs on threads of its own: reads use a small pool of
//! read-only connections, changes go through the writer's thread and wait for
//! it.
//!
//! Nothing here knows HTTP.

mod blocks;
mod captures;
mod column;
mod cooldowns;
mod cover;
mod error;
mod failures;
mod filter;
mod ledger;
mod measurements;
mod names;
mod offline;
mod open;
mod quotas;
mod reading;
mod record;
mod responses;
mod restore;
pub mod row;
mod scan;
mod schema;
mod secrets;
mod sheets;
mod snapshot;
mod summary;
mod sums;
mod usage;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::Connection;
use uuid::Uuid;

pub use captures::{CapturePage, CaptureRow, Sealing, StoredCapture};
pub use error::{OpenError, StoreError};
pub use failures::ErrorPage;
pub use offline::Offline;
pub use quotas::Drawn;
pub use record::{Record, number, project};
pub use responses::{ResponseRow, StoredResponse};
pub use restore::{PendingConfig, Rehearsal, Restore};
pub use secrets::StoredSecret;
pub use sheets::{SheetError, Taken, contract_sheets};
pub use snapshot::Snapshot;
pub use summary::{Group, GroupBy, Summary, SummaryQuery, Timeline};
pub use sums::Sums;
pub use usage::{Bound, SortBy, UsagePage, UsageQuery, parse_instant};
pub use writer::Writer;

use crate::metrics::Metrics;
use crate::vault::Vault;
use open::Readers;
use row::{CooldownRow, Habit, Measurement, QuotaRow};
use secrets::SecretError;
use writer::{Retention, Task, Work};

/// How long a change waits for the writer.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);

/// How long looking for an answer waits for the writer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long deleting many rows may take.
const PRUNE_LIMIT: Duration = Duration::from_secs(600);

/// How long replacing all there is may take.
const RESTORE_LIMIT: Duration = Duration::from_secs(3600);

/// How long a store that is dropped tries to write its last rows.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Rows that wait for the writer at most.
    pub queue: usize,
    /// Days that usage rows are kept; 0 is for ever.
    pub usage_days: u32,
    /// Days that error rows are kept; 0 is for ever.
    pub error_days: u32,
    /// Days that debug captures are kept; 0 is for ever.
    pub debug_days: u32,
    /// Most megabytes of debug captures; 0 is no limit.
    pub debug_mb: u32,
    /// Most megabytes of the file; the oldest usage rows go first. 0 is no limit.
    pub database_mb: u32,
    /// How long after the start old rows are first looked for.
    pub retention_delay: Duration,
    /// Where rows are counted.
    pub metrics: Arc<Metrics>,
    /// What seals secrets.
    pub vault: Arc<Vault>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 65_536,
            usage_days: 0,
            error_days: 0,
            debug_days: 0,
            debug_mb: 512,
            database_mb: 0,
            retention_delay: Duration::from_secs(30),
            metrics: Arc::default(),
            vault: Arc::default(),
        }
    }
}

/// The open database. Dropping it writes what is waiting and closes it.
pub struct Store {
    path: PathBuf,
    writer: Writer,
    readers: Readers,
    vault: Arc<Vault>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database in that file. Missing folders and a missing file are
    /// made (mode 0600), an older schema is brought forward.
    ///
    /// # Errors
    ///
    /// The file cannot be used; see [`OpenError`].
    pub fn open(path: &Path, options: Options) -> Result<Self, OpenError> {
        let connection = open::writable(path)?;
        settle_secrets(&connection, &options.vault, path)?;
        let readers = Readers::new(path)?;
        let retention = Retention {
            usage_days: options.usage_days,
            error_days: options.error_days,
            debug_days: options.debug_days,
            debug_bytes: i64::from(options.debug_mb) << 20,
            database_bytes: i64::from(options.database_mb) << 20,
            delay: options.retention_delay,
        };
        let (writer, thread) =
            writer::start(connection, options.queue.max(1), retention, options.metrics).map_err(
                |error| OpenError::Failed {
                    path: path.to_owned(),
                    reason: error.to_string(),
                },
            )?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            readers,
            vault: options.vault,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Where rows are handed over.
    #[must_use]
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until all rows handed over before are committed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Timeout`] after `limit`, [`StoreError::Closed`].
    pub fn flush(&self, limit: Duration) -> Result<(), StoreError> {
        self.writer.ask(Work::Flush, limit).map(drop)
    }

    /// Writes what is waiting and closes the database; rows handed over later
    /// are dropped and counted. Closing twice is closing once.
    ///
    /// # Errors
    ///
    /// [`StoreError::Timeout`] if rows could not be written within `limit`;
    /// they are lost and counted as dropped.
    pub fn close(&self, limit: Duration) -> Result<(), StoreError> {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            return Ok(());
        }
        let answer = match self.writer.ask(Work::Close, limit) {
            Ok(_) | Err(StoreError::Closed) => Ok(()),
            Err(error) => Err(error),
        };
        if let (Ok(()), Some(thread)) = (&answer, thread.take())
            && thread.join().is_err()
        {
            tracing::error!("the store's writer ended badly");
        }
        answer
    }

    /// The usage records that `query` asks for. What is filtered by or put in
    /// order is read from blocks, column by column: some tens of milliseconds
    /// for ten million rows. Without a limit all records are in memory at once.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`], [`StoreError::TooSlow`], [`StoreError::Database`].
    pub fn usage(&self, query: &UsageQuery) -> Result<UsagePage, StoreError> {
        self.readers
            .read(|connection| usage::page(connection, query))
    }

    /// What the rows that `query` asks for add up to.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn summary(&self, query: &SummaryQuery) -> Result<Summary, StoreError> {
        self.readers
            .read(|connection| summary::summary(connection, query))
    }

    /// Requests that began in each bucket of that many milliseconds, by name.
    /// Both ends of the range are included.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn timeline(
        &self,
        range_ms: (i64, i64),
        bucket_ms: i64,
        by: GroupBy,
    ) -> Result<Timeline, StoreError> {
        self.readers
            .read(|connection| summary::timeline(connection, range_ms, bucket_ms, by))
    }

    /// The usage record of that request; with `only_key`, if it is that key's.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn usage_by_id(
        &self,
        request_id: Uuid,
        only_key: Option<&str>,
    ) -> Result<Option<Record>, StoreError> {
        self.readers
            .read(|connection| usage::by_request(connection, request_id, only_key))
    }

    /// Deletes the usage row of that request; returns how many rows went.
    ///
    /// # Errors
    ///
    /// [`StoreError::Timeout`], [`StoreError::Closed`], [`StoreError::Database`].
    pub fn delete_usage(&self, request_id: Uuid) -> Result<u64, StoreError> {
        self.change(Box::new(move |connection| {
            usage::delete_one(connection, request_id)
        }))
    }

    /// Deletes the usage rows of requests that began before that millisecond,
    /// a slice at a time; returns how many rows went. `i64::MAX` is all.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage`]; slices already deleted stay deleted.
    pub fn delete_usage_older_than(&self, before_ms: i64) -> Result<u64, StoreError> {
        let work = Work::Sliced(writer::prune_usage(before_ms));
        self.writer.ask(work, PRUNE_LIMIT)
    }

    /// The newest error records; with `only_key`, of that key's requests.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn errors(
        &self,
        limit: Option<u64>,
        offset: u64,
        only_key: Option<&str>,
    ) -> Result<ErrorPage, StoreError> {
        self.readers
            .read(|connection| failures::page(connection, limit, offset, only_key))
    }

    /// Deletes the error rows of that request; with `only_key`, only if they
    /// are that key's. Returns how many rows went.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage`].
    pub fn delete_error(
        &self,
        request_id: Uuid,
        only_key: Option<&str>,
    ) -> Result<u64, StoreError> {
        let only_key = only_key.map(str::to_owned);
        self.change(Box::new(move |connection| {
            failures::delete_of(connection, request_id, only_key.as_deref())
        }))
    }

    /// Deletes the error rows from before that millisecond, a slice at a time;
    /// returns how many rows went. `i64::MAX` is all.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage_older_than`].
    pub fn delete_errors_older_than(&self, before_ms: i64) -> Result<u64, StoreError> {
        let work = Work::Sliced(writer::prune_errors(before_ms));
        self.writer.ask(work, PRUNE_LIMIT)
    }

    /// Deletes all that is kept about requests: usage rows, errors, captures.
    /// Each log has its line here. Returns how many rows went.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage_older_than`].
    pub fn delete_logs(&self) -> Result<u64, StoreError> {
        let logs: [fn(i64) -> Task; 3] = [
            writer::prune_usage,
            writer::prune_errors,
            writer::prune_captures,
        ];
        let mut rows = 0;
        for log in logs {
            rows += self.writer.ask(Work::Sliced(log(i64::MAX)), PRUNE_LIMIT)?;
        }
        Ok(rows)
    }

    /// Targets that requests for that alias went to: provider and model.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn targets_of(&self, alias: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.readers
            .read(|connection| measurements::targets_of(connection, alias))
    }

    /// Leaves what was measured of that model before that millisecond out of
    /// [`Store::measurements`] from now on.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage`].
    pub fn forget_measurements(&self, model: &str, now_ms: i64) -> Result<u64, StoreError> {
        let model = model.to_owned();
        self.change(Box::new(move |connection| {
            measurements::forget(connection, &model, now_ms)
        }))
    }

    /// Targets' rests that last beyond that millisecond.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn cooldowns(&self, now_ms: i64) -> Result<Vec<CooldownRow>, StoreError> {
        self.readers
            .read(|connection| cooldowns::standing(connection, now_ms))
    }

    /// What is used of quotas, as far as something is left of it at that
    /// millisecond.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn quotas(&self, now_ms: i64) -> Result<Vec<QuotaRow>, StoreError> {
        self.readers
            .read(|connection| quotas::standing(connection, now_ms))
    }

    /// What requests of those keys took, by target; only those that began in or
    /// after that millisecond and that count for quotas.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn taken(&self, keys: &[String], from_ms: i64) -> Result<Vec<Drawn>, StoreError> {
        self.readers
            .read(|connection| quotas::taken(connection, keys, from_ms))
    }

    /// What the newest answered requests of the 24 hours before that millisecond
    /// took, oldest first; bounded.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn habits(&self, now_ms: i64) -> Result<Vec<Habit>, StoreError> {
        self.readers
            .read(|connection| quotas::habits(connection, now_ms))
    }

    /// What the newest requests of the 24 hours before that millisecond say
    /// about their targets, oldest first; bounded.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn measurements(&self, now_ms: i64) -> Result<Vec<Measurement>, StoreError> {
        self.readers
            .read(|connection| measurements::recent(connection, now_ms))
    }

    /// The kept answer of that id, if that key made it and it has not expired at
    /// `now_ms`. One that was handed over a moment ago is found, too.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn response(
        &self,
        id: &str,
        key: &str,
        now_ms: i64,
    ) -> Result<Option<StoredResponse>, StoreError> {
        let read = || {
            self.readers
                .read(|connection| responses::by_id(connection, id, key, now_ms))
        };
        match read()? {
            None => {
                self.flush(ANSWER_LIMIT)?;
                read()
            }
            found => Ok(found),
        }
    }

    /// Forgets the answer of that id if that key made it; returns how many rows
    /// went.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage`].
    pub fn delete_response(&self, id: &str, key: &str) -> Result<u64, StoreError> {
        let (id, key) = (id.to_owned(), key.to_owned());
        self.change(Box::new(move |connection| {
            responses::delete(connection, &id, &key)
        }))
    }

    /// The newest captures; with `only_key`, of that key's requests.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn captures(
        &self,
        limit: u64,
        offset: u64,
        only_key: Option<&str>,
    ) -> Result<CapturePage, StoreError> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let (limit, offset) = (signed(limit), signed(offset));
        self.readers
            .read(|connection| captures::page(connection, limit, offset, only_key))
    }

    /// The capture of that request; with `only_key`, if it is that key's. One
    /// that was handed over a moment ago is found, too.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn capture(
        &self,
        request_id: Uuid,
        only_key: Option<&str>,
    ) -> Result<Option<StoredCapture>, StoreError> {
        let read = || {
            self.readers
                .read(|connection| captures::by_request(connection, request_id, only_key))
        };
        match read()? {
            None => {
                self.flush(ANSWER_LIMIT)?;
                read()
            }
            found => Ok(found),
        }
    }

    /// Deletes the capture of that request; with `only_key`, only if it is that
    /// key's. Returns how many rows went.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage`].
    pub fn delete_capture(
        &self,
        request_id: Uuid,
        only_key: Option<&str>,
    ) -> Result<u64, StoreError> {
        let only_key = only_key.map(str::to_owned);
        self.change(Box::new(move |connection| {
            captures::delete_of(connection, request_id, only_key.as_deref())
        }))
    }

    /// Deletes all captures, a slice at a time; returns how many rows went.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage_older_than`].
    pub fn delete_captures(&self) -> Result<u64, StoreError> {
        let work = Work::Sliced(writer::prune_captures(i64::MAX));
        self.writer.ask(work, PRUNE_LIMIT)
    }

    /// The secrets of that kind, by name.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`], and [`StoreError::Sealed`].
    pub fn secrets(&self, kind: &str) -> Result<Vec<StoredSecret>, StoreError> {
        let read = |connection: &Connection| Ok(secrets::of_kind(connection, &self.vault, kind));
        Ok(self.readers.read(read)??)
    }

    /// The secret of that kind and name.
    ///
    /// # Errors
    ///
    /// As [`Store::secrets`].
    pub fn secret(&self, kind: &str, name: &str) -> Result<Option<String>, StoreError> {
        let read = |connection: &Connection| Ok(secrets::one(connection, &self.vault, kind, name));
        Ok(self.readers.read(read)??)
    }

    /// Keeps a secret, sealed while there is a key; it is on the disk when this
    /// returns.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage`], and [`StoreError::Sealed`].
    pub fn put_secret(&self, kind: &str, name: &str, value: &str) -> Result<(), StoreError> {
        let sealed = secrets::sealed(&self.vault, kind, name, value).map_err(StoreError::Sealed)?;
        let (kind, name) = (kind.to_owned(), name.to_owned());
        let task = move |connection: &Connection| secrets::put(connection, &kind, &name, &sealed);
        self.change(Box::new(task)).map(drop)
    }

    /// Forgets a secret; returns how many rows went.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage`].
    pub fn delete_secret(&self, kind: &str, name: &str) -> Result<u64, StoreError> {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        self.change(Box::new(move |connection| {
            secrets::delete(connection, &kind, &name)
        }))
    }

    /// One state of everything, rows handed over before this call included.
    ///
    /// # Errors
    ///
    /// As [`Store::flush`] and [`Snapshot::take`].
    pub fn snapshot(&self) -> Result<Snapshot<'_>, StoreError> {
        self.flush(CHANGE_LIMIT)?;
        Snapshot::take(&self.path, &self.vault)
    }

    /// Replaces what is kept, all or nothing. While it lasts rows wait for the
    /// writer; what is more than its queue holds is dropped and counted.
    ///
    /// # Errors
    ///
    /// What `work` says; the disk is full; [`StoreError::Timeout`] after an
    /// hour. Nothing is changed then.
    pub fn restore<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Restore<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let outcome = Arc::new(Mutex::new(None));
        let told = Arc::clone(&outcome);
        let replacement = move |restore: &mut Restore<'_>| {
            let answer = work(restore)?;
            *told.lock() = Some(answer);
            Ok(0)
        };
        let work = Work::Replace(Arc::clone(&self.vault), Some(Box::new(replacement)));
        self.writer.ask(work, RESTORE_LIMIT)?;
        let answer = outcome.lock().take();
        answer.ok_or(StoreError::Closed)
    }

    /// The configuration that a restored database waits for.
    ///
    /// # Errors
    ///
    /// As [`Store::usage`].
    pub fn pending_config(&self) -> Result<Option<PendingConfig>, StoreError> {
        self.readers.read(restore::pending)
    }

    /// Notes that the file says what the database waits for.
    ///
    /// # Errors
    ///
    /// As [`Store::delete_usage`].
    pub fn config_arrived(&self) -> Result<(), StoreError> {
        self.change(Box::new(restore::arrived)).map(drop)
    }

    fn change(&self, task: Task) -> Result<u64, StoreError> {
        self.writer.ask(Work::Once(task), CHANGE_LIMIT)
    }
}

/// Ends a change of keys that broke off, and seals what stands in clear.
fn settle_secrets(connection: &Connection, vault: &Vault, path: &Path) -> Result<(), OpenError> {
    let settled = connection.unchecked_transaction().map_err(Into::into);
    let settled = settled.and_then(|transaction| {
        secrets::settle(&transaction, vault)?;
        transaction.commit().map_err(Into::into)
    });
    settled.map_err(|error| match error {
        SecretError::Database(error) => OpenError::from_sqlite(path, &error),
        SecretError::Vault(reason) => OpenError::Sealed {
            path: path.to_owned(),
            reason: StoreError::Sealed(reason).to_string(),
        },
    })
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.close(DROP_LIMIT) {
            tracing::error!(%error, "the store did not close in order");
        }
    }
}
