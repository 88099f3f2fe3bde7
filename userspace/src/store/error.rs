//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made or read.
    #[error("cannot use {path} as the directory of the store: {source}; run as root, or set `state` under [paths] in the config", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// There is none to be read.
    #[error("there is no record in {path}: no controller has run on this host yet, or by another configuration; start it (`systemctl start xdpban`), or name its configuration by --config", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made or opened.
    #[error("cannot open {path}: {source}{remedy}", path = path.display(), remedy = remedy(source))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another controller has it open.
    #[error("{path} is in use by another xdpban; stop that one first (`systemctl stop xdpban`), or give this one another `state` under [paths]", path = path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is no SQLite database.
    #[error("{path} is not a database", path = path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is a database, but none of xdpban's.
    #[error("{path} is a database of some other program; move it away, and a new one is made", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It is not where it was.
    #[error("{path} was removed while it was in use, or another file put in its place", path = path.display())]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// A later version of xdpban made it.
    #[error("{path} has version {found}, made by a later xdpban, and this one knows versions up to {known}; install that xdpban again, or move the file away", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest that is known here.
        known: i64,
    },
    /// An earlier version of xdpban made it, and it is to be read as it is.
    #[error("{path} has version {found}, made by an earlier xdpban; start the controller once, which brings it to version {known}", path = path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The one that is known here.
        known: i64,
    },
    /// There is no room left for it.
    #[error("cannot {doing} {path}: the disk (or the quota) is full; make room", path = path.display())]
    Full {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// It cannot be written.
    #[error("cannot {doing} {path}: it is read-only; look at its mode and how its file system is mounted", path = path.display())]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system or the disk fails, or turned read-only while the file was open, which SQLite does not tell apart.
    #[error("cannot {doing} {path}: {source}; look at its disk (`dmesg`) and whether its file system has turned read-only", path = path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// Another program keeps it locked.
    #[error("cannot {doing} {path}: another program has locked it; end what uses the file", path = path.display())]
    Busy {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// What it holds is not what was written.
    #[error("cannot {doing} {path}: it is damaged ({source})", path = path.display())]
    Damaged {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says, or what was found in a record.
        #[source]
        source: rusqlite::Error,
    },
    /// Anything else that SQLite has to say.
    #[error("cannot {doing} {path}: {source}", path = path.display())]
    Sqlite {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The thread that owns it has more questions to answer than it takes at once.
    #[error("the store is busy with other questions; try again in a moment")]
    Overloaded,
    /// The thread that owns it has ended.
    #[error("the store is closed: the controller is stopping")]
    Closed,
}

/// What to do where the system refuses a file.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => "; run this as root, who alone may read it",
        _ => "",
    }
}

impl StoreError {
    /// Whether the file is of no use any longer, so that a new one has to be begun.
    pub fn wants_a_new_file(&self) -> bool {
        matches!(
            self,
            StoreError::NotADatabase { .. } | StoreError::Damaged { .. } | StoreError::Moved { .. }
        )
    }

    /// Whether the file system cannot be written.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, StoreError::File { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem)
    }

    /// Names what SQLite says of an attempt at `doing` something to `path`.
    pub(super) fn from_sqlite(doing: &'static str, path: &Path, source: rusqlite::Error) -> StoreError {
        let path = path.to_owned();
        match &source {
            // There is no room for the index of the WAL.
            rusqlite::Error::SqliteFailure(failure, _)
                if failure.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE =>
            {
                StoreError::Full { doing, path, source }
            }
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::NotADatabase => StoreError::NotADatabase { path, source },
                ErrorCode::DatabaseCorrupt => StoreError::Damaged { doing, path, source },
                ErrorCode::DiskFull => StoreError::Full { doing, path, source },
                ErrorCode::ReadOnly => StoreError::ReadOnly { doing, path, source },
                ErrorCode::SystemIoFailure => StoreError::Io { doing, path, source },
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                    StoreError::Busy { doing, path, source }
                }
                _ => StoreError::Sqlite { doing, path, source },
            },
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => StoreError::Damaged { doing, path, source },
            _ => StoreError::Sqlite { doing, path, source },
        }
    }
}
