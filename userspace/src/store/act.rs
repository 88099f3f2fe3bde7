//! What happened beside incidents: what operators did, and what became of the controller and its configuration.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::chain::Ledger;
use super::columns::body;
use super::write;

/// Targets of an act that its record names, the first; those that were blocked or freed have incidents, too.
const NAMED: usize = 20;

/// Something that happened. Serialised it is the body of its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Act {
    /// The controller began to watch. The record adds since when nobody had (`unwatched_since`), and whether the last one
    /// had stopped or died (`after`: `first`, `stop` or `crash`).
    Started {
        /// Its version.
        version: &'static str,
        /// Its process.
        pid: u32,
        /// The interfaces that it guards.
        interfaces: Vec<String>,
        /// What it watches.
        sources: Vec<String>,
        /// Whether nothing is enforced, and what would be dropped is counted.
        dry_run: bool,
    },
    /// What is blocked is enforced from then on, or no longer: the configuration was read again, or the record was begun anew
    /// in a dry run.
    Enforcement {
        /// Whether nothing is enforced, and what would be dropped is counted.
        dry_run: bool,
    },
    /// The controller stopped as it was told to.
    Stopped {
        /// Its version.
        version: &'static str,
    },
    /// The configuration was read.
    Config {
        /// Whether that was at start.
        start: bool,
        /// Its file; none: the defaults hold.
        file: Option<String>,
        /// SHA-256 of all that was read, in hexadecimal.
        digest: String,
        /// What is otherwise than it was before, as lines with `+` and `-`; at start, than when the last controller ran.
        changes: Vec<String>,
        /// All that it says, as lines.
        settings: Vec<String>,
    },
    /// The configuration was read again and is faulty; the running one stayed in force.
    ConfigRefused {
        /// How many faults.
        faults: usize,
        /// The first.
        first: String,
    },
    /// An operator asked for blocks.
    Block {
        /// The targets.
        #[serde(flatten)]
        targets: Targets,
        /// For how long, in seconds; none: until unblocked.
        timeout_s: Option<u64>,
        /// What befalls their packets, in words; none where all are dropped.
        #[serde(skip_serializing_if = "Option::is_none")]
        measure: Option<String>,
        /// Whether it is not enforced.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
        /// Why, in the operator's words.
        reason: Option<String>,
        /// How many were blocked.
        done: usize,
        /// How many were not.
        refused: usize,
    },
    /// An operator lifted blocks.
    Unblock {
        /// The targets; none where all were meant.
        #[serde(flatten)]
        targets: Targets,
        /// Whether all were meant.
        all: bool,
        /// Why, in the operator's words.
        reason: Option<String>,
        /// How many were freed.
        done: usize,
        /// How many were not.
        refused: usize,
    },
    /// An operator asked for an account to be unlocked before its time.
    Unlock {
        /// The account.
        user: String,
        /// Whether it was locked by xdpban, and is being unlocked.
        done: bool,
    },
    /// The controller runs on trial: unless it is confirmed, everything is taken off.
    TrialBegan {
        /// After how long, in seconds.
        for_s: u64,
    },
    /// An operator confirmed the trial.
    TrialConfirmed {},
    /// Nobody confirmed the trial.
    TrialEnded {},
    /// The controller of the trial had gone before its end; blocks have the ends that are on record again.
    TrialCutShort {},
    /// An operator took the gate off the host.
    Detached {
        /// The interfaces that it stood on.
        interfaces: Vec<String>,
    },
    /// The store could not be used and was set aside; this one was begun in its place.
    StoreSetAside {
        /// What was wrong with it, and where it is now.
        why: String,
    },
    /// The store was made by an earlier version. Its incidents are on record as they were found.
    StoreMigrated {
        /// The version that made it.
        from: i64,
        /// Its version since.
        to: i64,
    },
    /// Records were given up, because the store could not be written for long.
    RecordsLost {
        /// How many.
        count: u64,
    },
}

/// Targets of an act, the first few of them by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Targets {
    /// How many.
    count: usize,
    /// The first.
    targets: Vec<String>,
}

impl Targets {
    /// Those of `targets`, which are cut to a length that no target has.
    pub fn of<'t>(targets: impl ExactSizeIterator<Item = &'t str>) -> Targets {
        const LONGEST: usize = 64;
        let count = targets.len();
        Targets { count, targets: targets.take(NAMED).map(|t| t.chars().take(LONGEST).collect()).collect() }
    }
}

impl Act {
    /// The kind of its record.
    pub fn kind(&self) -> &'static str {
        match self {
            Act::Started { .. } => "controller.started",
            Act::Stopped { .. } => "controller.stopped",
            Act::Enforcement { .. } => "enforcement.changed",
            Act::Config { start: true, .. } => "config.read",
            Act::Config { start: false, .. } => "config.changed",
            Act::ConfigRefused { .. } => "config.refused",
            Act::Block { .. } => "operator.block",
            Act::Unblock { .. } => "operator.unblock",
            Act::Unlock { .. } => "operator.unlock",
            Act::TrialBegan { .. } => "trial.began",
            Act::TrialConfirmed {} => "trial.confirmed",
            Act::TrialEnded {} => "trial.ended",
            Act::TrialCutShort {} => "trial.cut-short",
            Act::Detached { .. } => "operator.detach",
            Act::StoreSetAside { .. } => "store.set_aside",
            Act::StoreMigrated { .. } => "store.migrated",
            Act::RecordsLost { .. } => "record.lost",
        }
    }

    pub(super) fn apply(&self, ledger: &mut Ledger<'_>, at: Wall, uid: Option<u32>) -> rusqlite::Result<()> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(flatten)]
            act: &'a Act,
            #[serde(skip_serializing_if = "Option::is_none")]
            uid: Option<u32>,
            #[serde(flatten)]
            gap: Option<Gap>,
        }
        let gap = match self {
            Act::Started { .. } => Some(Gap::before(ledger, at)?),
            _ => None,
        };
        ledger.append(at, self.kind(), None, &body(&Body { act: self, uid, gap })?)?;
        match self {
            Act::Started { .. } => alive(ledger, at, false),
            Act::Stopped { .. } => alive(ledger, at, true),
            Act::Detached { .. } | Act::TrialEnded {} => write::rest_all(ledger, at),
            _ => Ok(()),
        }
    }
}

/// The settings that the last controller ran by, as lines; none where no record tells of them.
pub(super) fn last_settings(connection: &Connection) -> rusqlite::Result<Option<Vec<String>>> {
    #[derive(Deserialize)]
    struct Body {
        settings: Vec<String>,
    }
    // By the index of acts alone, since there are many more records of incidents, and by the order in which they were written,
    // which a clock that is set cannot change.
    let find = "SELECT body, max(seq) FROM records INDEXED BY records_by_time
         WHERE incident IS NULL AND kind IN ('config.read', 'config.changed')";
    let body: Option<String> = connection.query_row(find, [], |row| row.get(0))?;
    // One that cannot be read has been tampered with, and is for `verify-record` to tell of.
    Ok(body.and_then(|body| serde_json::from_str::<Body>(&body).ok()).map(|body| body.settings))
}

/// Whether a trial has begun and not been brought to an end.
pub(super) fn on_trial(connection: &Connection) -> rusqlite::Result<bool> {
    // By the index of acts alone, and by the order in which they were written, which a clock that is set cannot change.
    let find = "SELECT kind, max(seq) FROM records INDEXED BY records_by_time
         WHERE incident IS NULL AND kind IN ('trial.began', 'trial.confirmed', 'trial.ended', 'trial.cut-short')";
    let latest: Option<String> = connection.query_row(find, [], |row| row.get(0))?;
    Ok(latest.is_some_and(|kind| kind == "trial.began"))
}

/// Whether the gate was taken off the host, and no controller has started since.
pub(super) fn is_off_host(connection: &Connection) -> rusqlite::Result<bool> {
    // As above.
    let find = "SELECT kind, max(seq) FROM records INDEXED BY records_by_time
         WHERE incident IS NULL AND kind IN ('controller.started', 'operator.detach', 'trial.ended')";
    let latest: Option<String> = connection.query_row(find, [], |row| row.get(0))?;
    Ok(latest.is_some_and(|kind| kind != "controller.started"))
}

/// The time before a start in which nobody watched.
#[derive(Serialize)]
struct Gap {
    /// What came before: `first`, `stop` or `crash`.
    after: &'static str,
    /// When the last controller stopped or was last known to run.
    unwatched_since: Option<i64>,
}

impl Gap {
    fn before(ledger: &Ledger<'_>, start: Wall) -> rusqlite::Result<Gap> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let last = ledger.connection.query_row("SELECT at, stopped FROM alive", [], read).optional()?;
        Ok(match last {
            None => Gap { after: "first", unwatched_since: None },
            Some((at, true)) => Gap { after: "stop", unwatched_since: Some(at) },
            // What is on record may bear a time ahead of a clock that was set back.
            Some((at, false)) => Gap { after: "crash", unwatched_since: Some(start.0.min(at)) },
        })
    }
}

/// Notes that a controller runs, or that it ended as it should.
pub(super) fn alive(ledger: &Ledger<'_>, at: Wall, stopped: bool) -> rusqlite::Result<()> {
    ledger
        .connection
        .prepare_cached("INSERT OR REPLACE INTO alive (id, at, stopped) VALUES (1, ?1, ?2)")?
        .execute(params![at.0, stopped])?;
    Ok(())
}

/// Notes that a controller runs which has just recorded something: it may be killed before it next says so.
pub(super) fn alive_by_record(ledger: &Ledger<'_>) -> rusqlite::Result<()> {
    ledger
        .connection
        .prepare_cached(
            "UPDATE alive SET at = r.at FROM records r WHERE r.seq = ?1 AND r.at > alive.at AND NOT stopped",
        )?
        .execute([ledger.head.seq])?;
    Ok(())
}

/// Puts a network on the allowlist, or changes what is said of it.
pub(super) fn allow(
    ledger: &mut Ledger<'_>,
    network: &Target,
    comment: Option<&str>,
    expires_at: Option<Wall>,
    uid: Option<u32>,
    at: Wall,
) -> rusqlite::Result<()> {
    let (network, expires_at) = (network.to_string(), expires_at.map(|at| at.0));
    ledger
        .connection
        .prepare_cached(
            "INSERT OR REPLACE INTO allowed (network, comment, added_at, expires_at, uid)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![network, comment, at.0, expires_at, uid])?;
    let body = body(&serde_json::json!({
        "network": network, "comment": comment, "expires_at": expires_at, "uid": uid,
    }))?;
    ledger.append(at, "allow.added", None, &body)
}

/// Takes a network off the allowlist.
pub(super) fn disallow(
    ledger: &mut Ledger<'_>,
    network: &Target,
    reason: &str,
    uid: Option<u32>,
    at: Wall,
) -> rusqlite::Result<()> {
    let network = network.to_string();
    ledger.connection.prepare_cached("DELETE FROM allowed WHERE network = ?1")?.execute([&network])?;
    let body = body(&serde_json::json!({ "network": network, "reason": reason, "uid": uid }))?;
    ledger.append(at, "allow.removed", None, &body)
}
