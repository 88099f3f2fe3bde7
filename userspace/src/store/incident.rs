//! Incidents, as they are read from the store.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Row;
use rusqlite::types::Type;
use xdpban_engine::change::{Block, Origin};
use xdpban_engine::measure::Measure;
use xdpban_engine::rules::{RuleId, RuleRef};
use xdpban_engine::target::Target;
use xdpban_engine::time::{Now, Wall};

use super::{columns, measure};

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
    /// What was done: `block`, `throttle` or `run`.
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
    /// The user id of the operator who asked for it.
    pub uid: Option<u32>,
    /// The user id of the operator who ended it.
    pub outcome_uid: Option<u32>,
    /// What befell the target's packets.
    pub measure: Measure,
    /// The command that ran, where one did.
    pub command: Option<String>,
    /// When a reading of the counters first found that packets had been dropped. They are read once a minute.
    pub first_drop: Option<Wall>,
    /// When one last did.
    pub last_drop: Option<Wall>,
    /// Whether it was not enforced: the packets were counted, and passed.
    pub dry_run: bool,
    /// The number of the latest record of it; 0 where it was read with all others.
    pub record: i64,
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
    /// A protection prevented it, there was no room for it, or the command declined: the account is left alone.
    Refused,
    /// The kernel did not take it, or the command failed.
    Failed,
    /// The command ran, and nothing is to be undone.
    Done,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 6] = [
        Outcome::InForce,
        Outcome::Expired,
        Outcome::Lifted,
        Outcome::Refused,
        Outcome::Failed,
        Outcome::Done,
    ];

    /// The name in JSON and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::InForce => "in_force",
            Outcome::Expired => "expired",
            Outcome::Lifted => "lifted",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
            Outcome::Done => "done",
        }
    }

    /// The outcome with that name.
    pub fn from_name(name: &str) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// The columns that [`read`] reads.
pub(super) const COLUMNS: &str =
    "id, first_seen, last_seen, responded_at, key, rule_id, rule_level, rule_description,
    reason, origin, offences, attempts, users, evidence, action, timeout_us, expires_at, line_to_block_us,
    dropped_packets, dropped_bytes, outcome, outcome_at, outcome_reason, uid, outcome_uid, measure, command,
    first_drop_at, last_drop_at, dry_run";

/// The place of a column that stands behind [`COLUMNS`].
pub(super) const BEHIND: usize = 30;

impl Incident {
    /// Whether what was to be done was done: the kernel had the block, or the command ran, and neither failed nor declined. One that
    /// could not be undone was done.
    pub fn took_effect(&self) -> bool {
        self.responded_at.is_some()
            && self.outcome != Outcome::Refused
            && !(self.outcome == Outcome::Failed && self.outcome_at == self.responded_at)
    }

    /// The block that it is, while it is in force, with its end as of [`Now::recorded_expiry`].
    pub(super) fn into_block(self, now: &Now) -> Block {
        Block {
            target: self.target,
            created: self.first_seen,
            expires: self.expires_at.map(|at| now.recorded_expiry(self.first_seen, at)),
            measure: self.measure,
            rule: self.rule,
            reason: self.reason,
            origin: self.origin,
            offences: self.offences,
            attempts: self.attempts,
            users: self.users,
            evidence: self.evidence,
        }
    }
}

/// The columns that [`read_block`] reads.
pub(super) const BLOCK_COLUMNS: &str =
    "key, first_seen, expires_at, measure, rule_id, rule_level, rule_description, reason,
    origin, offences, attempts, users, evidence";

/// What was said of the last block that was read. Most of a long list have all of it in common, and share it then.
#[derive(Default)]
pub(super) struct Said {
    rule: Option<RuleRef>,
    reason: Arc<str>,
}

/// Reads a row of [`BLOCK_COLUMNS`]: a block, of an incident that is in force, with its end as of [`Now::recorded_expiry`].
pub(super) fn read_block(row: &Row<'_>, now: &Now, last: &mut Said) -> rusqlite::Result<Block> {
    match (row.get(4)?, row.get(5)?) {
        (Some(id), Some(level)) => {
            let (id, description) = (RuleId(id), text(row, 6)?);
            let same = |rule: &RuleRef| (rule.id, rule.level, &*rule.description) == (id, level, description);
            if !last.rule.as_ref().is_some_and(same) {
                last.rule = Some(RuleRef { id, level, description: description.into() });
            }
        }
        _ => last.rule = None,
    }
    let reason = text(row, 7)?;
    if *last.reason != *reason {
        last.reason = reason.into();
    }
    let created = Wall(row.get(1)?);
    Ok(Block {
        target: target(row, 0)?,
        created,
        expires: wall(row, 2)?.map(|at| now.recorded_expiry(created, at)),
        measure: measure_of(row, 3)?,
        rule: last.rule.clone(),
        reason: Arc::clone(&last.reason),
        origin: named(row, 8, Origin::from_name)?,
        offences: row.get(9)?,
        attempts: row.get(10)?,
        users: texts(row, 11)?,
        evidence: texts(row, 12)?,
    })
}

/// Reads a row of [`COLUMNS`], by their places: to find a column by its name costs more than all the rest.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Incident> {
    let duration = |place| {
        let present = row.get::<_, Option<i64>>(place)?.is_some();
        present.then(|| unsigned(row, place).map(Duration::from_micros)).transpose()
    };
    let rule = match (row.get(5)?, row.get(6)?, row.get(7)?) {
        (Some(id), Some(level), Some(description)) => Some(RuleRef { id: RuleId(id), level, description }),
        _ => None,
    };
    Ok(Incident {
        id: row.get(0)?,
        first_seen: Wall(row.get(1)?),
        last_seen: Wall(row.get(2)?),
        responded_at: wall(row, 3)?,
        target: target(row, 4)?,
        rule,
        reason: row.get(8)?,
        origin: named(row, 9, Origin::from_name)?,
        offences: row.get(10)?,
        attempts: row.get(11)?,
        users: texts(row, 12)?,
        evidence: texts(row, 13)?,
        action: row.get(14)?,
        timeout: duration(15)?,
        expires_at: wall(row, 16)?,
        line_to_block: duration(17)?,
        dropped_packets: unsigned(row, 18)?,
        dropped_bytes: unsigned(row, 19)?,
        outcome: named(row, 20, Outcome::from_name)?,
        outcome_at: wall(row, 21)?,
        outcome_reason: row.get(22)?,
        uid: row.get(23)?,
        outcome_uid: row.get(24)?,
        measure: measure_of(row, 25)?,
        command: row.get(26)?,
        first_drop: wall(row, 27)?,
        last_drop: wall(row, 28)?,
        dry_run: row.get(29)?,
        record: 0,
    })
}

/// The column of a target's key.
fn target(row: &Row<'_>, place: usize) -> rusqlite::Result<Target> {
    let key = row.get_ref(place)?.as_blob().map_err(|error| unreadable(place, error))?;
    columns::target(key).ok_or_else(|| unreadable(place, "no target"))
}

/// A column that holds a time, or none.
fn wall(row: &Row<'_>, place: usize) -> rusqlite::Result<Option<Wall>> {
    Ok(row.get::<_, Option<i64>>(place)?.map(Wall))
}

/// The column of a measure; none there is the one that stops everything.
fn measure_of(row: &Row<'_>, place: usize) -> rusqlite::Result<Measure> {
    match row.get_ref(place)?.as_str_or_null().map_err(|error| unreadable(place, error))? {
        Some(written) => measure::from_json(written).map_err(|error| unreadable(place, error)),
        None => Ok(Measure::default()),
    }
}

/// A column that holds a count.
fn unsigned(row: &Row<'_>, place: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(place)?.try_into().map_err(|error| unreadable(place, error))
}

/// A column that holds one of a set of names.
fn named<T>(row: &Row<'_>, place: usize, from_name: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    let name = text(row, place)?;
    from_name(name).ok_or_else(|| unreadable(place, format!("`{name}` is not known here")))
}

/// A column that holds an array of strings in JSON.
pub(super) fn texts(row: &Row<'_>, place: usize) -> rusqlite::Result<Vec<Arc<str>>> {
    let text = text(row, place)?;
    // Most lists of a large file are empty: those of addresses that were imported.
    if text == "[]" {
        return Ok(Vec::new());
    }
    let texts: Vec<Cow<'_, str>> = serde_json::from_str(text).map_err(|error| unreadable(place, error))?;
    Ok(texts.into_iter().map(Arc::from).collect())
}

pub(super) fn text<'a>(row: &'a Row<'_>, place: usize) -> rusqlite::Result<&'a str> {
    row.get_ref(place)?.as_str().map_err(|error| unreadable(place, error))
}

pub(super) fn unreadable(place: usize, error: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(place, Type::Text, error.into())
}
