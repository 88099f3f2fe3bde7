//! What is read from the store.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};
use xdpban_engine::Login;
use xdpban_engine::change::Origin;
use xdpban_engine::rules::{RuleId, RuleRef};
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::Offender;
use crate::source::Position;

/// The record of one response, from detection to outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Its number, never used for another.
    pub id: i64,
    /// When it began.
    pub first_seen: Wall,
    /// When its target was last seen to offend.
    pub last_seen: Wall,
    /// When the kernel had the block; none where it never did.
    pub responded_at: Option<Wall>,
    /// What was, or was to be, blocked.
    pub target: Target,
    /// The rule that led to it; none where an operator asked for it.
    pub rule: Option<RuleRef>,
    /// Why, in words.
    pub reason: Arc<str>,
    /// Who or what asked for it.
    pub origin: Origin,
    /// How many times the target had been blocked, this one included.
    pub offences: u32,
    /// The attempts that the match counted.
    pub attempts: u32,
    /// The user names that were tried, the first few.
    pub users: Vec<Arc<str>>,
    /// The log lines that led to it, the latest few.
    pub evidence: Vec<Arc<str>>,
    /// What was done: `block`.
    pub action: String,
    /// For how long, from when that was last decided; none: until lifted.
    pub timeout: Option<Duration>,
    /// When the block ends, or was to end.
    pub expires_at: Option<Wall>,
    /// From the arrival of the line that led to it until the kernel had it.
    pub line_to_block: Option<Duration>,
    /// The packets that the kernel dropped because of it.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// What came of it.
    pub outcome: Outcome,
    /// When; none while it is in force.
    pub outcome_at: Option<Wall>,
    /// Why, where the outcome does not say it.
    pub outcome_reason: Option<String>,
}

/// What came of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target is blocked.
    InForce,
    /// The time was over.
    Expired,
    /// The block was taken back; the reason says by whom or why.
    Lifted,
    /// A protection prevented it.
    Refused,
    /// The kernel did not take it.
    Failed,
}

impl Outcome {
    const ALL: [Outcome; 5] =
        [Outcome::InForce, Outcome::Expired, Outcome::Lifted, Outcome::Refused, Outcome::Failed];

    /// The name in JSON and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::InForce => "in_force",
            Outcome::Expired => "expired",
            Outcome::Lifted => "lifted",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// Which incidents to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncidentQuery {
    /// Only those of this target or of one that contains it.
    pub target: Option<Target>,
    /// At most so many, the newest.
    pub limit: u32,
}

const COLUMNS: &str =
    "id, first_seen, last_seen, responded_at, target, rule_id, rule_level, rule_description,
    reason, origin, offences, attempts, users, evidence, action, timeout_us, expires_at, line_to_block_us,
    dropped_packets, dropped_bytes, outcome, outcome_at, outcome_reason";

impl IncidentQuery {
    /// The newest incidents, oldest first.
    pub(super) fn run(&self, connection: &Connection) -> rusqlite::Result<Vec<Incident>> {
        let mut found: Vec<Incident> = match &self.target {
            None => connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM incidents ORDER BY id DESC LIMIT ?1"))?
                .query_map([self.limit], incident)?
                .collect::<rusqlite::Result<_>>()?,
            // Each prefix that contains the target is looked up: 33 or 129 searches in the index, however many
            // incidents there are.
            Some(target) => connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM incidents WHERE target IN (SELECT value FROM json_each(?1))
                     ORDER BY id DESC LIMIT ?2"
                ))?
                .query_map(params![containing(target), self.limit], incident)?
                .collect::<rusqlite::Result<_>>()?,
        };
        found.reverse();
        Ok(found)
    }
}

/// `target` and the prefixes that contain it, as an array in JSON.
fn containing(target: &Target) -> String {
    let prefixes =
        (0..=target.prefix_len()).map(|length| Target::prefix(target.address(), length).to_string());
    serde_json::Value::from_iter(prefixes).to_string()
}

pub(super) fn in_force(connection: &Connection) -> rusqlite::Result<Vec<Incident>> {
    connection
        .prepare(&format!("SELECT {COLUMNS} FROM incidents WHERE outcome = 'in_force' ORDER BY id"))?
        .query_map([], incident)?
        .collect()
}

pub(super) fn offenders(connection: &Connection, since: Wall) -> rusqlite::Result<Vec<Offender>> {
    connection
        .prepare(
            "SELECT target, offences, until FROM offenders WHERE until >= ?1 AND offences > 0 ORDER BY until",
        )?
        .query_map([since.0], |row| {
            Ok(Offender { target: parsed(row, 0)?, offences: row.get(1)?, until: Wall(row.get(2)?) })
        })?
        .collect()
}

pub(super) fn logins(connection: &Connection) -> rusqlite::Result<Vec<Login>> {
    connection
        .prepare("SELECT address, port, pid, at, public_key FROM logins ORDER BY id")?
        .query_map([], |row| {
            Ok(Login {
                address: parsed::<IpAddr>(row, 0)?,
                port: row.get(1)?,
                pid: row.get(2)?,
                at: Wall(row.get(3)?),
                public_key: row.get(4)?,
            })
        })?
        .collect()
}

pub(super) fn positions(connection: &Connection) -> rusqlite::Result<HashMap<String, Position>> {
    connection
        .prepare("SELECT key, device, inode, offset, head, cursor FROM positions")?
        .query_map([], |row| {
            let position = match row.get(5)? {
                Some(cursor) => Position::Journal { cursor },
                None => Position::File {
                    device: row.get::<_, i64>(1)?.cast_unsigned(),
                    inode: row.get::<_, i64>(2)?.cast_unsigned(),
                    offset: row.get::<_, i64>(3)?.cast_unsigned(),
                    head: row.get::<_, i64>(4)?.cast_unsigned(),
                },
            };
            Ok((row.get(0)?, position))
        })?
        .collect()
}

/// Reads a row of [`COLUMNS`], by their places: to find a column by its name costs more than all the rest.
fn incident(row: &Row<'_>) -> rusqlite::Result<Incident> {
    let wall = |place| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(place)?.map(Wall));
    let duration = |place| {
        let present = row.get::<_, Option<i64>>(place)?.is_some();
        present.then(|| unsigned(row, place).map(Duration::from_micros)).transpose()
    };
    let rule = match (row.get(5)?, row.get(6)?, row.get(7)?) {
        (Some(id), Some(level), Some(description)) => Some(RuleRef { id: RuleId(id), level, description }),
        _ => None,
    };
    let outcome = |name: &str| Outcome::ALL.into_iter().find(|outcome| outcome.name() == name);
    Ok(Incident {
        id: row.get(0)?,
        first_seen: Wall(row.get(1)?),
        last_seen: Wall(row.get(2)?),
        responded_at: wall(3)?,
        target: parsed(row, 4)?,
        rule,
        reason: row.get(8)?,
        origin: named(row, 9, Origin::from_name)?,
        offences: row.get(10)?,
        attempts: row.get(11)?,
        users: texts(row, 12)?,
        evidence: texts(row, 13)?,
        action: row.get(14)?,
        timeout: duration(15)?,
        expires_at: wall(16)?,
        line_to_block: duration(17)?,
        dropped_packets: unsigned(row, 18)?,
        dropped_bytes: unsigned(row, 19)?,
        outcome: named(row, 20, outcome)?,
        outcome_at: wall(21)?,
        outcome_reason: row.get(22)?,
    })
}

/// A column that holds a count.
fn unsigned(row: &Row<'_>, place: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(place)?.try_into().map_err(|error| unreadable(place, error))
}

/// A column that holds what is read from its text.
fn parsed<T>(row: &Row<'_>, place: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    text(row, place)?.parse().map_err(|error| unreadable(place, error))
}

/// A column that holds one of a set of names.
fn named<T>(row: &Row<'_>, place: usize, from_name: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let name = text(row, place)?;
    from_name(name).ok_or_else(|| unreadable(place, format!("`{name}` is not known here")))
}

/// A column that holds an array of strings in JSON.
fn texts(row: &Row<'_>, place: usize) -> rusqlite::Result<Vec<Arc<str>>> {
    let texts: Vec<String> =
        serde_json::from_str(text(row, place)?).map_err(|error| unreadable(place, error))?;
    Ok(texts.into_iter().map(Arc::from).collect())
}

fn text<'a>(row: &'a Row<'_>, place: usize) -> rusqlite::Result<&'a str> {
    row.get_ref(place)?.as_str().map_err(|error| unreadable(place, error))
}

fn unreadable(place: usize, error: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(place, Type::Text, error.into())
}
