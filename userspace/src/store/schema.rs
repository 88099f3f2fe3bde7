//! The tables, and how a file comes to have them.
//!
//! Times are microseconds since the epoch (UTC). Targets are written as people write them. An unsigned number of 64
//! bits is kept as the signed one with the same bits, where it is an identity, and cut to the greatest signed one where
//! it is a count.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// What marks a database as xdpban's: `xdpb` in ASCII, as SQLite's application id.
const APPLICATION_ID: i64 = 0x7864_7062;

/// What brings the schema from each version to the next, the first from nothing. One that was shipped is never changed.
const MIGRATIONS: [&str; 1] = [VERSION_1];

const VERSION_1: &str = "
    CREATE TABLE incidents (
        -- Never used twice, so that an id names one incident for good.
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        first_seen INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        -- When the kernel had it.
        responded_at INTEGER,
        target TEXT NOT NULL,
        rule_id INTEGER,
        rule_level INTEGER,
        rule_description TEXT,
        reason TEXT NOT NULL,
        origin TEXT NOT NULL,
        offences INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        -- Arrays in JSON.
        users TEXT NOT NULL,
        evidence TEXT NOT NULL,
        action TEXT NOT NULL,
        timeout_us INTEGER,
        expires_at INTEGER,
        line_to_block_us INTEGER,
        dropped_packets INTEGER NOT NULL DEFAULT 0,
        dropped_bytes INTEGER NOT NULL DEFAULT 0,
        -- The latest readings of the gate's counters, which begin anew with each boot.
        read_packets INTEGER NOT NULL DEFAULT 0,
        read_bytes INTEGER NOT NULL DEFAULT 0,
        outcome TEXT NOT NULL
            CHECK (outcome IN ('in_force', 'expired', 'lifted', 'refused', 'failed')),
        outcome_at INTEGER CHECK ((outcome = 'in_force') = (outcome_at IS NULL)),
        outcome_reason TEXT
    ) STRICT;
    CREATE INDEX incidents_by_target ON incidents (target, id);
    CREATE INDEX incidents_by_outcome ON incidents (outcome, id);
    CREATE UNIQUE INDEX incidents_in_force ON incidents (target) WHERE outcome = 'in_force';

    CREATE TABLE offenders (
        target TEXT PRIMARY KEY,
        offences INTEGER NOT NULL,
        until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX offenders_by_end ON offenders (until);

    CREATE TABLE positions (
        key TEXT PRIMARY KEY,
        device INTEGER,
        inode INTEGER,
        offset INTEGER,
        head INTEGER,
        cursor TEXT,
        CHECK ((cursor IS NULL) = (device IS NOT NULL AND inode IS NOT NULL
            AND offset IS NOT NULL AND head IS NOT NULL))
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE logins (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        address TEXT NOT NULL,
        port INTEGER,
        pid INTEGER,
        at INTEGER NOT NULL,
        public_key INTEGER NOT NULL
    ) STRICT;
";

/// The version that this code reads and writes.
const KNOWN: i64 = MIGRATIONS.len() as i64;

/// Checks whose the database at `path` is, and brings it to the version that is known here.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::from_sqlite("prepare", path, source);
    // Nothing is written before it is known whose it is.
    let application_id: i64 = number(connection, "PRAGMA application_id").map_err(failed)?;
    let version: i64 = number(connection, "PRAGMA user_version").map_err(failed)?;
    let tables: i64 = number(connection, "SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    let empty = application_id == 0 && version == 0 && tables == 0;
    if !empty && (application_id != APPLICATION_ID || version < 1) {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    if version > KNOWN {
        return Err(StoreError::Newer { path: path.to_owned(), found: version, known: KNOWN });
    }

    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA journal_size_limit = 16777216;
             PRAGMA temp_store = MEMORY;
             PRAGMA trusted_schema = OFF;",
        )
        .map_err(failed)?;
    migrate(connection, version).map_err(failed)
}

/// Carries out what is missing since `version`, all of it or nothing.
fn migrate(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    if version == KNOWN {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (migration, from) in MIGRATIONS.iter().zip(0..) {
        if from >= version {
            transaction.execute_batch(migration)?;
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", KNOWN)?;
    transaction.commit()
}

fn number(connection: &Connection, sql: &str) -> rusqlite::Result<i64> {
    connection.query_row(sql, [], |row| row.get(0))
}
