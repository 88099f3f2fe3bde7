//! The store as others read it: without the controller, or beside a running one, and without changing anything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use xdpban_engine::time::Wall;

use super::chain::{Head, hex};
use super::incident::{Incident, text, unreadable};
use super::query::IncidentQuery;
use super::{BUSY_TIMEOUT, FILE, StoreError, schema};

/// The store in a file, open for reading. All that is read of it is as it stood when that was
/// first done.
#[derive(Debug)]
pub struct Archive {
    pub(super) connection: Connection,
    path: PathBuf,
    /// How far checking the record is, counted by all threads that do it.
    pub(super) steps_taken: Arc<AtomicU64>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number. Each is one greater than that before it.
    pub seq: i64,
    /// When it happened.
    pub at: Wall,
    /// What happened, such as `incident.opened` or `config.changed`.
    pub kind: String,
    /// The incident that it is about.
    pub incident: Option<i64>,
    /// More of it, an object in JSON.
    pub body: String,
}

/// A record of an incident, and the incident as it stood then.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The record's number.
    pub seq: i64,
    /// When it happened.
    pub at: Wall,
    /// What happened, such as `incident.opened`.
    pub kind: String,
    /// The record's hash, in hexadecimal.
    pub hash: String,
    /// The incident.
    pub incident: i64,
    /// Its columns, by name.
    pub columns: serde_json::Map<String, serde_json::Value>,
}

/// Why reading came to an end before its end.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted<E> {
    /// The store could not be read on.
    #[error(transparent)]
    Store(StoreError),
    /// Whoever took what was read wanted no more.
    #[error(transparent)]
    Taker(E),
}

impl<E> From<rusqlite::Error> for Interrupted<E> {
    fn from(source: rusqlite::Error) -> Self {
        Interrupted::Store(StoreError::from_sqlite("read", Path::new(FILE), source))
    }
}

impl Archive {
    /// Opens the store in `directory`.
    ///
    /// # Errors
    /// There is none, it is not one of xdpban's or one of another version, or it cannot be read.
    pub fn open(directory: &Path) -> Result<Archive, StoreError> {
        Archive::read(directory.join(FILE))
    }

    /// Opens the same file again, for another thread. It may be as it stands now.
    pub(super) fn again(&self) -> Result<Archive, StoreError> {
        Ok(Archive { steps_taken: self.steps_taken(), ..Archive::read(self.path.clone())? })
    }

    fn read(path: PathBuf) -> Result<Archive, StoreError> {
        // SQLite's own words for a file that is not there, or not for us, are as good as none. The file is not opened for that:
        // to close it would end the locks that others in this process have on it.
        access(&path, AccessFlags::R_OK).map_err(|errno| match errno {
            Errno::ENOENT => StoreError::Missing { path: path.clone() },
            errno => StoreError::File { path: path.clone(), source: errno.into() },
        })?;
        let failed = |source| StoreError::from_sqlite("read", &path, source);
        let connection = connect(&path).map_err(failed)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        schema::check(&connection, &path)?;
        connection.execute_batch("BEGIN").map_err(failed)?;
        Ok(Archive { connection, path, steps_taken: Arc::default() })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The latest record.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn head(&self) -> Result<Head, StoreError> {
        Head::read(&self.connection).map_err(|source| self.unread(source))
    }

    /// When a controller was last known to run, and whether it stopped then; none where none has run yet.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn alive(&self) -> Result<Option<(Wall, bool)>, StoreError> {
        self.connection
            .query_row("SELECT at, stopped FROM alive", [], |row| Ok((Wall(row.get(0)?), row.get(1)?)))
            .optional()
            .map_err(|source| self.unread(source))
    }

    /// The number of the oldest record that is kept, and when it was made. Where the number is not 1, there were others before.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn oldest(&self) -> Result<Option<(i64, Wall)>, StoreError> {
        self.connection
            .query_row("SELECT seq, at FROM records ORDER BY seq LIMIT 1", [], |row| {
                Ok((row.get(0)?, Wall(row.get(1)?)))
            })
            .optional()
            .map_err(|source| self.unread(source))
    }

    /// The incidents that `query` asks for, oldest first.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn incidents(&self, query: &IncidentQuery) -> Result<Vec<Incident>, StoreError> {
        query.run(&self.connection).map_err(|source| self.unread(source))
    }

    /// Hands the incidents that `query` asks for to `take`, one by one: oldest first, or, where the query has a limit,
    /// newest first. However many there are, one is in memory.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged; or `take` failed.
    pub fn each_incident<E>(
        &self,
        query: &IncidentQuery,
        mut take: impl FnMut(Incident) -> Result<(), E>,
    ) -> Result<(), Interrupted<E>> {
        query.each(&self.connection, |incident| take(incident).map_err(Interrupted::Taker))
    }

    /// Hands the records of what happened beside incidents (starts and stops, acts of operators, changes of the
    /// configuration and of the allowlist, …) from `from` to before `until` to `take`, in the order of their times.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged; or `take` failed.
    pub fn each_act<E>(
        &self,
        (from, until): (Wall, Wall),
        take: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), Interrupted<E>> {
        let sql = "WHERE incident IS NULL AND at >= ?1 AND at < ?2 ORDER BY at, seq";
        self.each(sql, [from.0, until.0], take)
    }

    /// The latest record of what happened beside incidents from before `until` that is of one of `kinds`.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn last_act(&self, kinds: &[&str], until: Wall) -> Result<Option<Record>, StoreError> {
        let names: Vec<String> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
        let find = format!(
            "SELECT seq, at, kind, incident, body FROM records INDEXED BY records_by_time
             WHERE incident IS NULL AND at < ?1 AND kind IN ({}) ORDER BY at DESC, seq DESC LIMIT 1",
            names.join(", ")
        );
        self.connection.query_row(&find, [until.0], record).optional().map_err(|source| self.unread(source))
    }

    /// Hands the records of `incident` to `take`, in their order.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged; or `take` failed.
    pub fn each_record_of<E>(
        &self,
        incident: i64,
        take: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), Interrupted<E>> {
        self.each("WHERE incident = ?1 ORDER BY seq", [incident], take)
    }

    /// The first records of incidents with a number above `seq`, `limit` at most, in their order.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn changes_after(&self, seq: i64, limit: u32) -> Result<Vec<Changed>, StoreError> {
        self.read_changes(seq, limit).map_err(|source| self.unread(source))
    }

    fn read_changes(&self, seq: i64, limit: u32) -> rusqlite::Result<Vec<Changed>> {
        let read = |row: &Row<'_>| {
            let (hash, incident) = (hex(&row.get(3)?), row.get(4)?);
            let (seq, at, kind) = (row.get(0)?, Wall(row.get(1)?), row.get(2)?);
            Ok(Changed { seq, at, kind, hash, incident, columns: self.columns(incident, seq)? })
        };
        self.connection
            .prepare_cached(
                "SELECT seq, at, kind, hash, incident FROM records
                 WHERE seq > ?1 AND incident IS NOT NULL ORDER BY seq LIMIT ?2",
            )?
            .query_map([seq, limit.into()], read)?
            .collect()
    }

    /// The columns of `incident` as its records up to `seq` set them.
    fn columns(
        &self,
        incident: i64,
        seq: i64,
    ) -> rusqlite::Result<serde_json::Map<String, serde_json::Value>> {
        let mut columns = serde_json::Map::new();
        let mut statement = self.connection.prepare_cached(
            "SELECT body FROM records
             WHERE incident = ?1 AND seq <= ?2 AND kind LIKE 'incident.%' ORDER BY seq",
        )?;
        let mut rows = statement.query([incident, seq])?;
        while let Some(row) = rows.next()? {
            let body: serde_json::Map<_, _> =
                serde_json::from_str(text(row, 0)?).map_err(|error| unreadable(0, error))?;
            columns.extend(body);
        }
        Ok(columns)
    }

    /// Up to which record the stream `name` has been written; none where it never was.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn streamed(&self, name: &str) -> Result<Option<i64>, StoreError> {
        self.connection
            .query_row("SELECT seq FROM streams WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(|source| self.unread(source))
    }

    fn each<E>(
        &self,
        which: &str,
        values: impl rusqlite::Params,
        mut take: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), Interrupted<E>> {
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT seq, at, kind, incident, body FROM records {which}"))?;
        let mut rows = statement.query(values)?;
        while let Some(row) = rows.next()? {
            take(record(row)?).map_err(Interrupted::Taker)?;
        }
        Ok(())
    }

    pub(super) fn unread(&self, source: rusqlite::Error) -> StoreError {
        StoreError::from_sqlite("read", &self.path, source)
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        seq: row.get(0)?,
        at: Wall(row.get(1)?),
        kind: row.get(2)?,
        incident: row.get(3)?,
        body: row.get(4)?,
    })
}

/// Opens the file so that it is not changed. A copy on a medium that cannot be written has no place for what readers share,
/// and nobody writes it, so that it is read as it lies there.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    match connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
        Err(rusqlite::Error::SqliteFailure(failure, _))
            if matches!(failure.code, rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly) =>
        {
            let uri = format!("file:{}?immutable=1", escaped(path));
            Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
        }
        _ => Ok(connection),
    }
}

/// A path as part of a URI.
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let escape = |byte: &u8| match *byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    path.as_os_str().as_bytes().iter().map(escape).collect()
}
