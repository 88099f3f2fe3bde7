//! The tables, and how a file comes to have them.
//!
//! Times are microseconds since the epoch (UTC). Targets are written as people write them. An unsigned number of 64
//! bits is kept as the signed one with the same bits, where it is an identity, and cut to the greatest signed one where
//! it is a count.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::{StoreError, migrate};

/// What marks a database as xdpban's: `xdpb` in ASCII, as SQLite's application id.
pub(super) const APPLICATION_ID: i64 = 0x7864_7062;

/// What brings the schema from each version to the next, the first from nothing. One that was shipped is never changed.
const MIGRATIONS: [Migration; 4] = [
    |connection| connection.execute_batch(VERSION_1),
    |connection| {
        connection.execute_batch(VERSION_2)?;
        migrate::incidents(connection)?;
        connection.execute_batch(VERSION_2_REST)
    },
    |connection| connection.execute_batch(VERSION_3),
    |connection| connection.execute_batch(VERSION_4),
];

type Migration = fn(&Connection) -> rusqlite::Result<()>;

pub(super) const VERSION_1: &str = "
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

const VERSION_2: &str = "
    ALTER TABLE incidents RENAME TO incidents_1;
    DROP INDEX incidents_by_target;
    DROP INDEX incidents_by_outcome;
    DROP INDEX incidents_in_force;

    -- What happened, one thing a row. Rows are only ever added at the end, and taken off at the beginning when they
    -- are older than they are kept; that leaves a record of its own.
    CREATE TABLE records (
        seq INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        -- The incident that it is about.
        incident INTEGER,
        -- An object in JSON. Of an incident: the columns that were set.
        body TEXT NOT NULL,
        -- Binds it to the record before it.
        hash BLOB NOT NULL CHECK (length(hash) = 32)
    ) STRICT;
    CREATE INDEX records_by_incident ON records (incident, seq) WHERE incident IS NOT NULL;
    CREATE INDEX records_by_time ON records (at) WHERE incident IS NULL;

    -- How each incident stands by its records.
    CREATE TABLE incidents (
        -- Never used twice, so that an id names one incident for good.
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        first_seen INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        -- When the kernel had it, or the command ran.
        responded_at INTEGER,
        target TEXT NOT NULL,
        -- The target in an order in which a network's targets stand together: 4 or 6, the address, the length.
        key BLOB NOT NULL,
        rule_id INTEGER,
        rule_level INTEGER,
        rule_description TEXT,
        reason TEXT NOT NULL,
        origin TEXT NOT NULL,
        -- The user id of the operator who asked for it.
        uid INTEGER,
        offences INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        -- Arrays in JSON.
        users TEXT NOT NULL,
        evidence TEXT NOT NULL,
        action TEXT NOT NULL,
        -- Rate and scope in JSON, where they are not those of a plain block.
        measure TEXT,
        -- The command's name, and what it was given, for action run.
        command TEXT,
        input TEXT,
        timeout_us INTEGER,
        expires_at INTEGER,
        line_to_block_us INTEGER,
        dropped_packets INTEGER NOT NULL DEFAULT 0,
        dropped_bytes INTEGER NOT NULL DEFAULT 0,
        -- When a reading of the counters first and last found that packets had been dropped.
        first_drop_at INTEGER,
        last_drop_at INTEGER,
        -- The latest readings of the gate's counters, which begin anew with each boot.
        read_packets INTEGER NOT NULL DEFAULT 0,
        read_bytes INTEGER NOT NULL DEFAULT 0,
        outcome TEXT NOT NULL
            CHECK (outcome IN ('in_force', 'expired', 'lifted', 'refused', 'failed', 'done')),
        outcome_at INTEGER CHECK ((outcome = 'in_force') = (outcome_at IS NULL)),
        outcome_reason TEXT,
        -- The user id of the operator who ended it.
        outcome_uid INTEGER
    ) STRICT;

    -- Who was tried: an index of incidents.users.
    CREATE TABLE tried (
        user TEXT NOT NULL,
        first_seen INTEGER NOT NULL,
        incident INTEGER NOT NULL,
        PRIMARY KEY (user, first_seen, incident)
    ) STRICT, WITHOUT ROWID;

    -- The allowlist as operators keep it, beside that of the configuration.
    CREATE TABLE allowed (
        network TEXT PRIMARY KEY,
        comment TEXT,
        added_at INTEGER NOT NULL,
        expires_at INTEGER,
        uid INTEGER
    ) STRICT, WITHOUT ROWID;

    -- Up to which record each stream has been written.
    CREATE TABLE streams (
        name TEXT PRIMARY KEY,
        seq INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- When a controller was last known to run, and whether it stopped then; one row.
    CREATE TABLE alive (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        at INTEGER NOT NULL,
        stopped INTEGER NOT NULL
    ) STRICT;
";

/// After the incidents are in their new table: it is quicker to index them at once.
const VERSION_2_REST: &str = "
    DROP TABLE incidents_1;
    CREATE INDEX incidents_by_time ON incidents (first_seen, id);
    CREATE INDEX incidents_by_target ON incidents (key, first_seen, id);
    CREATE INDEX incidents_by_rule ON incidents (rule_id, first_seen, id);
    CREATE INDEX incidents_by_outcome ON incidents (outcome, first_seen, id);
    CREATE UNIQUE INDEX incidents_in_force ON incidents (target, ifnull(command, ''))
        WHERE outcome = 'in_force';
";

/// Entries that tell all that incidents are asked for by, so that those that are looked through need not be read. And a target
/// can have a block of each strictness, of which the weaker ones rest.
const VERSION_3: &str = "
    DROP INDEX incidents_by_time;
    CREATE INDEX incidents_by_time ON incidents (first_seen, id, rule_id, outcome, key);
    DROP INDEX incidents_in_force;
    CREATE UNIQUE INDEX incidents_in_force ON incidents (target, ifnull(command, ''), action, measure IS NULL)
        WHERE outcome = 'in_force';
";

/// What was blocked in a dry run is told apart from what was. Of the incidents before, it is not known.
const VERSION_4: &str = "
    -- Whether it was not enforced: what would have been dropped was counted, and passed.
    ALTER TABLE incidents ADD COLUMN dry_run INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX incidents_in_dry_run ON incidents (id) WHERE outcome = 'in_force' AND dry_run = 1;
";

/// The version that this code reads and writes.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

/// A file was made by an earlier version, and was brought to the one that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The version that it had.
    pub from: i64,
    /// The version that it has.
    pub to: i64,
}

/// Checks whose the database at `path` is, and brings it to the version that is known here; says so where it had another.
pub(super) fn prepare(connection: &mut Connection, path: &Path) -> Result<Option<Migrated>, StoreError> {
    let failed = |source| StoreError::from_sqlite("prepare", path, source);
    // Nothing is written before it is known whose it is.
    let version = version(connection, path)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA journal_size_limit = 16777216;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -8192;
             PRAGMA trusted_schema = OFF;",
        )
        .map_err(failed)?;
    migrate(connection, version).map_err(failed)?;
    Ok((0 < version && version < KNOWN).then_some(Migrated { from: version, to: KNOWN }))
}

/// Checks that the database at `path` is one that can be read as it is.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    match version(connection, path)? {
        KNOWN => Ok(()),
        0 => Err(StoreError::Missing { path: path.to_owned() }),
        found => Err(StoreError::Older { path: path.to_owned(), found, known: KNOWN }),
    }
}

/// The version of the database at `path`, 0 where nothing is in it yet; it is one of ours, and not beyond what is known here.
fn version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let failed = |source| StoreError::from_sqlite("read", path, source);
    let application_id = number(connection, "PRAGMA application_id").map_err(failed)?;
    let version = number(connection, "PRAGMA user_version").map_err(failed)?;
    let tables = number(connection, "SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    let empty = application_id == 0 && version == 0 && tables == 0;
    if !empty && (application_id != APPLICATION_ID || version < 1) {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    if version > KNOWN {
        return Err(StoreError::Newer { path: path.to_owned(), found: version, known: KNOWN });
    }
    Ok(version)
}

/// Carries out what is missing since `version`, all of it or nothing.
fn migrate(connection: &mut Connection, version: i64) -> rusqlite::Result<()> {
    if version == KNOWN {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (migration, from) in MIGRATIONS.iter().zip(0..) {
        if from >= version {
            migration(&transaction)?;
        }
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", KNOWN)?;
    transaction.commit()
}

fn number(connection: &Connection, sql: &str) -> rusqlite::Result<i64> {
    connection.query_row(sql, [], |row| row.get(0))
}
