//! What can be written, and how.

use std::time::Duration;

use rusqlite::{Connection, named_params, params};
use xdpban_engine::Login;
use xdpban_engine::change::{Block, End, Refused};
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::MAX_LOGINS;
use super::incident::Outcome;
use crate::source::Position;

/// One thing to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The kernel blocks a target. Opens an incident; where one is in force for the target already, that one takes over
    /// what the block says.
    Blocked {
        /// The block.
        block: Block,
        /// When the kernel had it.
        at: Wall,
        /// How long that took from the arrival of the line that led to it.
        took: Option<Duration>,
    },
    /// A block ended. Closes its incident; where none is in force for the target (the kernel never took the block),
    /// records one that is closed from the start.
    Ended {
        /// The block as it stood.
        block: Block,
        /// Why it ended.
        end: End,
        /// When that was noticed.
        at: Wall,
        /// The final reading of its counter of dropped packets.
        packets: u64,
        /// The final reading of its counter of dropped bytes.
        bytes: u64,
        /// More than `end` says, in words.
        reason: Option<String>,
    },
    /// A block that a rule asked for was not made.
    Refused {
        /// The block and what prevented it.
        refused: Refused,
        /// When.
        at: Wall,
    },
    /// A reading of the counters of a block in force. One below the last means that they began anew (a reboot), and
    /// counts in full.
    Counts {
        /// The target.
        target: Target,
        /// Packets dropped.
        packets: u64,
        /// Bytes dropped.
        bytes: u64,
    },
    /// Where a source stopped reading.
    Position {
        /// Its key, [`crate::config::SourceConfig::key`].
        key: String,
        /// The position.
        position: Position,
    },
    /// A login was let in.
    Login(Login),
}

impl Write {
    pub(super) fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        match self {
            Write::Blocked { block, at, took } => {
                let done = Done { at: *at, took: *took, outcome: Outcome::InForce, reason: None };
                if !update(connection, block, *at)? {
                    insert(connection, block, &done)?;
                }
                if block.origin.is_by_rule() {
                    let until = block.expires.map_or(*at, |expiry| expiry.wall);
                    offended(connection, block, until)?;
                }
                Ok(())
            }
            Write::Ended { block, end, at, packets, bytes, reason } => {
                let at = match (end, block.expires) {
                    // It may be noticed long after: nobody looked while the controller was down.
                    (End::Expired, Some(expiry)) => expiry.wall.min(*at),
                    _ => *at,
                };
                counted(connection, &block.target, *packets, *bytes)?;
                let (outcome, why) = outcome(*end);
                let reason = reason.as_deref().or(why);
                if !close(connection, &block.target, outcome, at, reason)? {
                    insert(connection, block, &Done { at, took: None, outcome, reason })?;
                }
                ended(connection, block, *end, at)
            }
            Write::Refused { refused, at } => {
                let reason = refused.because.to_string();
                let done = Done { at: *at, took: None, outcome: Outcome::Refused, reason: Some(&reason) };
                insert(connection, &refused.block, &done)
            }
            Write::Counts { target, packets, bytes } => counted(connection, target, *packets, *bytes),
            Write::Position { key, position } => save_position(connection, key, position),
            Write::Login(login) => save_login(connection, login),
        }
    }
}

/// What came of a block.
struct Done<'a> {
    at: Wall,
    took: Option<Duration>,
    outcome: Outcome,
    reason: Option<&'a str>,
}

/// The outcome that an end is recorded as, and what it does not say by itself.
fn outcome(end: End) -> (Outcome, Option<&'static str>) {
    match end {
        End::Expired => (Outcome::Expired, None),
        End::Lifted => (Outcome::Lifted, None),
        End::Evicted => {
            (Outcome::Lifted, Some("evicted: the table was full, and it would have expired first"))
        }
        End::Protected => (Outcome::Lifted, Some("protected: the target became one that is never blocked")),
        End::Failed => (Outcome::Failed, None),
    }
}

fn insert(connection: &Connection, block: &Block, done: &Done<'_>) -> rusqlite::Result<()> {
    let closed = done.outcome != Outcome::InForce;
    connection
        .prepare_cached(
            "INSERT INTO incidents (first_seen, last_seen, responded_at, target, rule_id, rule_level,
                 rule_description, reason, origin, offences, attempts, users, evidence, action, timeout_us,
                 expires_at, line_to_block_us, outcome, outcome_at, outcome_reason)
             VALUES (:first_seen, :last_seen, :responded_at, :target, :rule_id, :rule_level,
                 :rule_description, :reason, :origin, :offences, :attempts, :users, :evidence, 'block', :timeout,
                 :expires_at, :took, :outcome, :outcome_at, :outcome_reason)",
        )?
        .execute(named_params! {
            ":first_seen": block.created.0,
            ":last_seen": if closed { block.created.0 } else { done.at.0 },
            ":responded_at": (!closed).then_some(done.at.0),
            ":target": block.target.to_string(),
            ":rule_id": block.rule.as_ref().map(|rule| rule.id.0),
            ":rule_level": block.rule.as_ref().map(|rule| rule.level),
            ":rule_description": block.rule.as_ref().map(|rule| &*rule.description),
            ":reason": &*block.reason,
            ":origin": block.origin.name(),
            ":offences": block.offences,
            ":attempts": block.attempts,
            ":users": json(&block.users),
            ":evidence": json(&block.evidence),
            ":timeout": timeout(block, block.created),
            ":expires_at": block.expires.map(|expiry| expiry.wall.0),
            ":took": done.took.map(|took| i64::try_from(took.as_micros()).unwrap_or(i64::MAX)),
            ":outcome": done.outcome.name(),
            ":outcome_at": closed.then_some(done.at.0),
            ":outcome_reason": done.reason,
        })?;
    Ok(())
}

/// Brings the incident in force for the block's target up to it; false where there is none.
fn update(connection: &Connection, block: &Block, at: Wall) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE incidents SET last_seen = :at, rule_id = :rule_id, rule_level = :rule_level,
                 rule_description = :rule_description, reason = :reason, origin = :origin, offences = :offences,
                 attempts = :attempts, users = :users, evidence = :evidence, timeout_us = :timeout,
                 expires_at = :expires_at
             WHERE target = :target AND outcome = 'in_force'",
        )?
        .execute(named_params! {
            ":at": at.0,
            ":target": block.target.to_string(),
            ":rule_id": block.rule.as_ref().map(|rule| rule.id.0),
            ":rule_level": block.rule.as_ref().map(|rule| rule.level),
            ":rule_description": block.rule.as_ref().map(|rule| &*rule.description),
            ":reason": &*block.reason,
            ":origin": block.origin.name(),
            ":offences": block.offences,
            ":attempts": block.attempts,
            ":users": json(&block.users),
            ":evidence": json(&block.evidence),
            ":timeout": timeout(block, at),
            ":expires_at": block.expires.map(|expiry| expiry.wall.0),
        })?;
    Ok(changed > 0)
}

/// Closes the incident in force for `target`; false where there is none.
fn close(
    connection: &Connection,
    target: &Target,
    outcome: Outcome,
    at: Wall,
    reason: Option<&str>,
) -> rusqlite::Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE incidents SET outcome = ?2, outcome_at = ?3, outcome_reason = ?4
             WHERE target = ?1 AND outcome = 'in_force'",
        )?
        .execute(params![target.to_string(), outcome.name(), at.0, reason])?;
    Ok(changed > 0)
}

/// Adds what was dropped since the last reading.
fn counted(connection: &Connection, target: &Target, packets: u64, bytes: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            // A sum beyond the greatest integer is a real number, which the table does not take.
            "UPDATE incidents SET
                 dropped_packets = min(9223372036854775807,
                     dropped_packets + iif(?2 < read_packets, ?2, ?2 - read_packets)),
                 dropped_bytes = min(9223372036854775807,
                     dropped_bytes + iif(?2 < read_packets, ?3, max(?3 - read_bytes, 0))),
                 read_packets = ?2,
                 read_bytes = ?3
             WHERE target = ?1 AND outcome = 'in_force'",
        )?
        .execute(params![target.to_string(), count(packets), count(bytes)])?;
    Ok(())
}

/// Remembers an offender.
fn offended(connection: &Connection, block: &Block, until: Wall) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO offenders (target, offences, until) VALUES (?1, ?2, ?3)")?
        .execute(params![block.target.to_string(), block.offences, until.0])?;
    Ok(())
}

/// Notes when the block of an offender ended; one that the kernel did not take is no offence that was answered.
fn ended(connection: &Connection, block: &Block, end: End, at: Wall) -> rusqlite::Result<()> {
    let target = block.target.to_string();
    match end {
        End::Failed => connection
            .prepare_cached("UPDATE offenders SET offences = ?2 WHERE target = ?1 AND offences > ?2")?
            .execute(params![target, block.offences.saturating_sub(1)])?,
        _ => connection
            .prepare_cached("UPDATE offenders SET until = ?2 WHERE target = ?1")?
            .execute(params![target, at.0])?,
    };
    Ok(())
}

fn save_position(connection: &Connection, key: &str, position: &Position) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO positions (key, device, inode, offset, head, cursor)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    match position {
        Position::File { device, inode, offset, head } => statement.execute(params![
            key,
            device.cast_signed(),
            inode.cast_signed(),
            offset.cast_signed(),
            head.cast_signed(),
            None::<&str>
        ])?,
        Position::Journal { cursor } => {
            let none = None::<i64>;
            statement.execute(params![key, none, none, none, none, cursor])?
        }
    };
    Ok(())
}

fn save_login(connection: &Connection, login: &Login) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO logins (address, port, pid, at, public_key) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![login.address.to_string(), login.port, login.pid, login.at.0, login.public_key])?;
    connection
        .prepare_cached("DELETE FROM logins WHERE id <= (SELECT max(id) FROM logins) - ?1")?
        .execute([MAX_LOGINS])?;
    Ok(())
}

/// For how long a target is blocked, in microseconds, when the block begins at `at`.
fn timeout(block: &Block, at: Wall) -> Option<i64> {
    let timeout = block.expires?.wall.since(at);
    Some(i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX))
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// An array of strings in JSON.
fn json(texts: &[std::sync::Arc<str>]) -> String {
    serde_json::Value::from_iter(texts.iter().map(|text| &**text)).to_string()
}
