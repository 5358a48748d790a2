//! What can go wrong with the store, in words that an operator can act on.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::secrets::SecretError;
use super::sheets::SheetError;
use crate::vault::VaultError;

/// Why the database could not be opened. The gateway does not start then.
#[derive(Debug)]
pub enum OpenError {
    /// The folder or the file could not be made or read.
    File {
        /// What was being touched.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The file is no database, or a damaged one.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        reason: String,
    },
    /// The file is a sound database of some other program.
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer Plexus wrote the file.
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's schema version.
        found: i64,
        /// The highest version known here.
        known: i64,
    },
    /// Another process holds the file.
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The secrets in it can't be opened.
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Anything else that SQLite or the system refused.
    Failed {
        /// The file.
        path: PathBuf,
        /// What was said.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn from_sqlite(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        let reason = error.to_string();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Corrupt { path, reason }
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            _ => Self::Failed { path, reason },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, reason } => {
                write!(f, "the database needs {}: {reason}", path.display())
            }
            Self::Corrupt { path, reason } => write!(
                f,
                "{} is damaged or no database ({reason}); move it away, or put a backup in its place",
                path.display()
            ),
            Self::Foreign { path } => write!(
                f,
                "{} is the database of another program; set store.url to another file",
                path.display()
            ),
            Self::Newer { path, found, known } => write!(
                f,
                "{} has schema {found}, and this version knows schemas up to {known}; start the version that wrote it, or a newer one",
                path.display()
            ),
            Self::Locked { path } => {
                write!(f, "another process has locked {}", path.display())
            }
            Self::Sealed { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Failed { path, reason } => {
                write!(f, "cannot open {}: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { reason, .. } => Some(reason),
            _ => None,
        }
    }
}

/// Why the store could not answer. Always the gateway's fault, never the
/// client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The writer did not get to it in time: the database is locked, the disk
    /// is full, or there is too much to write. It was not done, or will be.
    Timeout,
    /// The store is closed.
    Closed,
    /// All read connections were taken for too long.
    Busy,
    /// The query ran into its time limit.
    TooSlow,
    /// What SQLite said.
    Database(String),
    /// A secret can't be sealed or opened.
    Sealed(VaultError),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("the database writer did not answer in time"),
            Self::Closed => f.write_str("the store is closed"),
            Self::Busy => f.write_str("all database readers are busy"),
            Self::TooSlow => f.write_str("the query took too long; narrow it down"),
            Self::Database(reason) => write!(f, "the database refused: {reason}"),
            Self::Sealed(reason) => write!(f, "a secret in the database: {reason}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<SheetError> for StoreError {
    fn from(error: SheetError) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<SecretError> for StoreError {
    fn from(error: SecretError) -> Self {
        match error {
            SecretError::Vault(reason) => Self::Sealed(reason),
            SecretError::Database(error) => error.into(),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Self::TooSlow,
            _ => Self::Database(error.to_string()),
        }
    }
}
