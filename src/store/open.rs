//! Opening the file: who may read it, how SQLite is set, the pool of readers.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, OpenFlags};

use super::blocks;
use super::error::{OpenError, StoreError};
use super::schema;

/// Most reads at the same time.
const READERS: u32 = 4;

/// How long a read waits for a connection.
const READER_WAIT: Duration = Duration::from_secs(5);

/// How long one read may take.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// How long the writer waits for a lock before it tries again by itself.
const LOCK_WAIT: Duration = Duration::from_millis(100);

/// How long opening waits for a lock before it gives up.
const OPEN_WAIT: Duration = Duration::from_secs(2);

/// Makes folder and file where they are missing, and returns the one writable
/// connection on the newest schema.
pub(super) fn writable(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let mut connection = prepared(path, "NORMAL")?;
    schema::migrate(&mut connection, path)?;
    blocks::catch_up(&connection).map_err(failed)?;
    make_shrinkable(&connection).map_err(failed)?;
    connection.busy_timeout(LOCK_WAIT).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// A writable connection beside which there is no other, in any process.
pub(super) fn alone(path: &Path) -> Result<Connection, OpenError> {
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let connection = prepared(path, "EXCLUSIVE")?;
    // The lock is taken with the first access, and kept.
    connection
        .execute_batch("BEGIN EXCLUSIVE; COMMIT;")
        .map_err(failed)?;
    Ok(connection)
}

fn prepared(path: &Path, locking: &str) -> Result<Connection, OpenError> {
    private_file(path)?;
    let failed = |error: rusqlite::Error| OpenError::from_sqlite(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(OPEN_WAIT).map_err(failed)?;
    connection
        .pragma_update(None, "locking_mode", locking)
        .map_err(failed)?;
    // The first takes effect only before anything is written.
    connection
        .execute_batch(
            "PRAGMA auto_vacuum = INCREMENTAL;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -2048;
             PRAGMA temp_store = MEMORY;
             PRAGMA wal_autocheckpoint = 4000;
             PRAGMA journal_size_limit = 67108864;",
        )
        .map_err(failed)?;
    Ok(connection)
}

/// Lets a file that was made without it give pages back when rows are deleted.
/// That writes it anew, once, which takes seconds for a gigabyte; a larger file
/// stays as it is.
fn make_shrinkable(connection: &Connection) -> Result<(), rusqlite::Error> {
    const INCREMENTAL: i64 = 2;
    const LARGEST: i64 = 4 << 30;
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    if number("auto_vacuum")? == INCREMENTAL {
        return Ok(());
    }
    let bytes = number("page_count")?.saturating_mul(number("page_size")?);
    if bytes > LARGEST {
        tracing::warn!(
            bytes,
            "the database file will not shrink when rows are deleted"
        );
        return Ok(());
    }
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;")
}

/// The folder, and a file that only its owner can read: it holds names, client
/// addresses and what providers answered. SQLite gives its side files the same
/// mode.
fn private_file(path: &Path) -> Result<(), OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |reason| OpenError::File { path, reason }
    };
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let file = options.open(path).map_err(failed(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata().map_err(failed(path))?.permissions().mode();
        if mode & 0o077 != 0 {
            let private = fs::Permissions::from_mode(0o600);
            file.set_permissions(private).map_err(failed(path))?;
        }
    }
    drop(file);
    Ok(())
}

/// Read-only connections, opened when they are first needed and closed when
/// they have not been for a while.
pub(super) struct Readers {
    pool: r2d2::Pool<SqliteConnectionManager>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Result<Self, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = SqliteConnectionManager::file(PathBuf::from(path))
            .with_flags(flags)
            .with_init(|connection| {
                connection.busy_timeout(READER_WAIT)?;
                connection.execute_batch(
                    "PRAGMA query_only = ON;
                     PRAGMA cache_size = -1024;
                     PRAGMA temp_store = MEMORY;
                     PRAGMA mmap_size = 268435456;",
                )
            });
        let pool = r2d2::Pool::builder()
            .max_size(READERS)
            .min_idle(Some(0))
            .max_lifetime(None)
            .idle_timeout(Some(Duration::from_secs(60)))
            .test_on_check_out(false)
            .connection_timeout(READER_WAIT)
            .build(source)
            .map_err(|error| OpenError::Failed {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self { pool })
    }

    /// Runs one read on one state of the database, under a time limit. Blocks.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, StoreError> {
        let mut connection = self.pool.get().map_err(|_busy| StoreError::Busy)?;
        let until = Instant::now() + READ_LIMIT;
        connection.progress_handler(10_000, Some(move || Instant::now() >= until))?;
        let state = connection.transaction()?;
        let answer = work(&state);
        let ended = state.finish();
        connection.progress_handler(0, None::<fn() -> bool>)?;
        let answer = answer?;
        ended?;
        Ok(answer)
    }
}
