//! The store: SQLite in one file, which holds the record of incidents, the offenders and the read positions.
//!
//! One controller owns it at a time. A [`Store`] is synchronous; the daemon writes through a [`Writer`], whose thread
//! gathers what is to be written into few transactions.
//!
//! The file is in WAL mode with `synchronous=NORMAL`. A commit is a write to the page cache: the death of the controller,
//! however sudden, loses nothing that was committed. A power cut can lose the commits since the last checkpoint, newest
//! first and each one whole, and never the file's consistency. What is lost that way is read again from the logs, since
//! the read position goes back by the same commits.

mod act;
mod archive;
mod chain;
mod columns;
mod compare;
mod error;
mod incident;
mod measure;
mod migrate;
mod prune;
mod query;
mod queue;
mod ran;
mod reconcile;
mod schema;
mod tables;
mod tried;
mod verify;
mod write;
mod writer;

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use xdpban_engine::Login;
use xdpban_engine::change::Block;
use xdpban_engine::target::Target;
use xdpban_engine::time::{Now, Wall};

use crate::source::Position;
use chain::Ledger;

pub use act::{Act, Targets};
pub use archive::{Archive, Changed, Interrupted, Record};
pub use chain::{Head, HeadError};
pub use error::StoreError;
pub use incident::{Incident, Outcome};
pub use prune::{Keep, Pruned};
pub use query::IncidentQuery;
#[cfg(test)]
pub(crate) use queue::tests::blocked;
pub use ran::{Exit, Ran, Standing, Step};
pub use schema::Migrated;
pub use verify::{Fault, Verified};
pub use write::Write;
pub use writer::{Health, Reader, Unwritten, Writer};

/// The name of the file in the directory of the store.
pub const FILE: &str = "xdpban.db";

/// How many logins are kept; the oldest go first.
const MAX_LOGINS: u32 = 4096;

/// For how long to wait for another program that has the file locked, such as one that makes a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The open store.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
    /// Device and number of the file, which stay the same wherever it is moved.
    identity: (u64, u64),
    /// Whether it could be opened for reading alone, and has to be opened anew before it is written.
    is_read_only: bool,
    /// What became of the file before, where a new one is to be begun yet.
    set_aside: Option<String>,
    /// The latest record in the file.
    head: Head,
    migrated: Option<Migrated>,
    /// Whether the controller that has it open has begun to watch.
    watches: bool,
    /// Held as long as the store is open, so that no other controller opens it. Others can read the file meanwhile.
    _lock: Flock<File>,
}

/// A target that has been blocked because of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offender {
    /// What was blocked.
    pub target: Target,
    /// How many times.
    pub offences: u32,
    /// When its latest block ended or is to end; when it began, if that has no end.
    pub until: Wall,
}

/// A network on the allowlist that operators keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The network.
    pub network: Target,
    /// Why, in the operator's words.
    pub comment: Option<String>,
    /// Since when.
    pub added_at: Wall,
    /// When that ends; none: when it is removed.
    pub expires_at: Option<Wall>,
    /// The operator's user id.
    pub uid: Option<u32>,
}

impl Store {
    /// Opens the store in `directory`, and makes both where they do not exist: for the owner alone, as the record names
    /// users and hosts. One on a file system that is read-only is read, and opened anew when it is to be written: the host
    /// is guarded meanwhile.
    ///
    /// # Errors
    /// Another controller has it open, it is not a store of xdpban's or one of a later version, or the directory or the
    /// file cannot be made or read.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        let lock = lock(directory)?;
        let path = directory.join(FILE);
        let (opened, is_read_only) = match open_file(&path) {
            Err(error) if error.is_read_only() && path.exists() => (open_for_reading(&path)?, true),
            opened => (opened?, false),
        };
        let Opened { connection, identity, head, migrated } = opened;
        Ok(Store {
            connection,
            path,
            identity,
            is_read_only,
            set_aside: None,
            head,
            migrated,
            watches: false,
            _lock: lock,
        })
    }

    /// From which version the file was brought to the present one when it was opened, if it had another.
    pub fn migrated(&self) -> Option<Migrated> {
        self.migrated
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Carries out `writes` in their order and in one transaction: all of them, or none.
    ///
    /// # Errors
    /// Nothing was written, and the same writes can be tried again when what was in the way is gone.
    pub fn write(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        self.make_writable()?;
        self.is_in_place()?;
        let failed = |source| StoreError::from_sqlite("write to", &self.path, source);
        // Dropped before the commit, it rolls back.
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut ledger = Ledger { connection: &transaction, head: self.head };
        for write in writes {
            write.apply(&mut ledger).map_err(failed)?;
        }
        let head = ledger.head;
        // What comes before its start, a controller does that may yet fail to start.
        let watches = self.watches || writes.iter().any(Write::tells_of_watching);
        if watches && head != self.head {
            act::alive_by_record(&ledger).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        (self.head, self.watches) = (head, watches);
        Ok(())
    }

    fn make_writable(&mut self) -> Result<(), StoreError> {
        if self.is_read_only {
            self.use_file(open_file(&self.path)?);
        }
        Ok(())
    }

    fn use_file(&mut self, opened: Opened) {
        let Opened { connection, identity, head, .. } = opened;
        (self.connection, self.identity, self.head) = (connection, identity, head);
        self.is_read_only = false;
    }

    /// That the file is where it was opened: what is written to one that nobody finds is lost.
    fn is_in_place(&self) -> Result<(), StoreError> {
        match identity(&self.path) {
            Ok(found) if found == self.identity => Ok(()),
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::File { path: self.path.clone(), source })
            }
            _ => Err(StoreError::Moved { path: self.path.clone() }),
        }
    }

    /// Sets the file aside, as [`set_aside`] does, and begins a new one in its place. Returns what became of the old one, in
    /// words.
    ///
    /// # Errors
    /// There is no new one yet, and nothing can be written until this is called again and succeeds.
    pub fn begin_anew(&mut self, stamp: &str) -> Result<String, StoreError> {
        if self.set_aside.is_none() {
            // What is in the log of the old file stays there, for whoever wants to recover it.
            self.connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
                .map_err(|source| StoreError::from_sqlite("close", &self.path, source))?;
            self.set_aside = Some(move_aside(&self.path, stamp)?);
        }
        self.use_file(open_file(&self.path)?);
        Ok(self.set_aside.take().unwrap_or_default())
    }

    /// Takes off the record what `keep` does not keep at `now`, the oldest first, a bounded part of it.
    ///
    /// # Errors
    /// Nothing was taken off.
    pub fn prune(&mut self, keep: &Keep, now: Wall) -> Result<Pruned, StoreError> {
        self.make_writable()?;
        let failed = |source| StoreError::from_sqlite("prune", &self.path, source);
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut ledger = Ledger { connection: &transaction, head: self.head };
        let pruned = prune::step(&mut ledger, keep, now).map_err(failed)?;
        let head = ledger.head;
        transaction.commit().map_err(failed)?;
        self.head = head;
        Ok(pruned)
    }

    /// The latest record.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The blocks that were in force when the last controller ended, oldest first; some may be over by `now`. Their ends are as
    /// of [`Now::recorded_expiry`].
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn in_force(&self, now: &Now) -> Result<Vec<Arc<Block>>, StoreError> {
        tables::in_force(&self.connection, now).map_err(|source| self.unread(source))
    }

    /// The commands that are to be undone yet, oldest first. Expiries are as of [`Store::in_force`].
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn commands(&self, now: &Now) -> Result<Vec<Standing>, StoreError> {
        ran::standing(&self.connection, now).map_err(|source| self.unread(source))
    }

    /// The allowlist as operators keep it, oldest first; some of it may have expired.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn allowed(&self) -> Result<Vec<Allowed>, StoreError> {
        tables::allowed(&self.connection).map_err(|source| self.unread(source))
    }

    /// Whether the last controller was on trial, and neither confirmed nor at the end of it.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn on_trial(&self) -> Result<bool, StoreError> {
        act::on_trial(&self.connection).map_err(|source| self.unread(source))
    }

    /// Whether the gate was taken off the host, by an operator or by a trial that nobody confirmed: what is in force on record
    /// rests then.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn is_off_host(&self) -> Result<bool, StoreError> {
        act::is_off_host(&self.connection).map_err(|source| self.unread(source))
    }

    /// Whether something is in force on record and enforced there where it is not in a `dry_run`, or the other way round.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn is_switched(&self, dry_run: bool) -> Result<bool, StoreError> {
        tables::is_switched(&self.connection, dry_run).map_err(|source| self.unread(source))
    }

    /// The settings that the last controller ran by, as [`Act::Config`] has them; none where no record tells of them.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn last_settings(&self) -> Result<Option<Vec<String>>, StoreError> {
        act::last_settings(&self.connection).map_err(|source| self.unread(source))
    }

    /// The targets whose latest block ended, or is to end, at `since` or later; the one that ended first comes first.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn offenders(&self, since: Wall) -> Result<Vec<Offender>, StoreError> {
        tables::offenders(&self.connection, since).map_err(|source| self.unread(source))
    }

    /// The latest logins, oldest first.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn logins(&self) -> Result<Vec<Login>, StoreError> {
        tables::logins(&self.connection).map_err(|source| self.unread(source))
    }

    /// Where each source stopped reading, by [`crate::config::SourceConfig::key`].
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn positions(&self) -> Result<HashMap<String, Position>, StoreError> {
        tables::positions(&self.connection).map_err(|source| self.unread(source))
    }

    /// The incidents that `query` asks for, oldest first.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn incidents(&self, query: &IncidentQuery) -> Result<Vec<Incident>, StoreError> {
        query.run(&self.connection).map_err(|source| self.unread(source))
    }

    fn unread(&self, source: rusqlite::Error) -> StoreError {
        StoreError::from_sqlite("read", &self.path, source)
    }
}

/// Opens the file at `path`, with SQLite's `locking_mode`, and brings it to the version that is known here.
fn connect(path: &Path, locking_mode: &str) -> Result<(Connection, Option<Migrated>), StoreError> {
    let failed = |source| StoreError::from_sqlite("open", path, source);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.pragma_update(None, "locking_mode", locking_mode).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    let migrated = schema::prepare(&mut connection, path)?;
    Ok((connection, migrated))
}

/// A file that was opened.
struct Opened {
    connection: Connection,
    identity: (u64, u64),
    head: Head,
    migrated: Option<Migrated>,
}

impl Opened {
    fn new(path: &Path, connection: Connection, migrated: Option<Migrated>) -> Result<Opened, StoreError> {
        let identity = identity(path).map_err(|source| StoreError::File { path: path.to_owned(), source })?;
        let head = Head::read(&connection).map_err(|source| StoreError::from_sqlite("read", path, source))?;
        Ok(Opened { connection, identity, head, migrated })
    }
}

/// Opens the file at `path`, and makes it where there is none.
fn open_file(path: &Path) -> Result<Opened, StoreError> {
    let io = |source| StoreError::File { path: path.to_owned(), source };
    // SQLite gives the files that it keeps beside this one the same mode.
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(io)?;
    tighten(&file, 0o600).map_err(io)?;
    drop(file);
    let (connection, migrated) = match connect(path, "NORMAL") {
        // Without room for the file through which connections share the index of the WAL. With one connection alone
        // that index is kept in memory, so that what is on record can be read, and more written once there is room.
        Err(StoreError::Full { .. }) => connect(path, "EXCLUSIVE")?,
        connected => connected?,
    };
    Opened::new(path, connection, migrated)
}

/// Opens the file at `path` as it is.
fn open_for_reading(path: &Path) -> Result<Opened, StoreError> {
    let failed = |source| StoreError::from_sqlite("read", path, source);
    let connection = archive::connect(path).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    schema::check(&connection, path)?;
    Opened::new(path, connection, None)
}

/// Device and number of the file at `path`.
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Moves what stands in the place of the store in `directory`, with the files that SQLite keeps beside it, out of the way,
/// and returns what became of it, in words; `stamp` makes the name its own.
///
/// # Errors
/// Another controller uses it, or the file cannot be renamed.
pub fn set_aside(directory: &Path, stamp: &str) -> Result<String, StoreError> {
    let _lock = lock(directory)?;
    move_aside(&directory.join(FILE), stamp)
}

fn move_aside(path: &Path, stamp: &str) -> Result<String, StoreError> {
    let aside = path.with_file_name(format!("{FILE}.set-aside-{stamp}"));
    let mut became = "it is gone".to_owned();
    for suffix in ["", "-wal", "-shm"] {
        let with_suffix = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match std::fs::rename(with_suffix(path), with_suffix(&aside)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(()) if suffix.is_empty() => became = format!("it was set aside as {}", aside.display()),
            renamed => renamed.map_err(|source| StoreError::File { path: path.to_owned(), source })?,
        }
    }
    Ok(became)
}

/// Makes the directory and takes the lock of the store, which is on the directory itself: nothing of it is left behind
/// when the controller dies.
fn lock(directory: &Path) -> Result<Flock<File>, StoreError> {
    let io = |source| StoreError::Directory { path: directory.to_owned(), source };
    if !directory.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
    }
    let file = File::open(directory).map_err(io)?;
    tighten(&file, 0o700).map_err(io)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => StoreError::Locked { path: directory.join(FILE) },
        errno => StoreError::Directory { path: directory.to_owned(), source: errno.into() },
    })
}

/// Takes away the rights that `mode` does not have.
fn tighten(file: &File, mode: u32) -> std::io::Result<()> {
    let present = file.metadata()?.permissions().mode() & 0o777;
    if present & !mode == 0 { Ok(()) } else { file.set_permissions(Permissions::from_mode(present & mode)) }
}

#[cfg(test)]
mod tests;
