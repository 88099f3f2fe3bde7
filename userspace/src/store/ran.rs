//! Commands of the user's own, on record.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use xdpban_engine::change::{Block, Undo};
use xdpban_engine::target::Target;
use xdpban_engine::time::{Now, Wall};

use super::chain::Ledger;
use super::columns::{Columns, body, micros};
use super::incident::{self, Outcome};
use super::write::{self, Close};

/// A command that ran, or could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its name in the configuration. With the target it ties the run that did something to the one that undoes it.
    pub command: Arc<str>,
    /// What led to it, as a block of the source would have been; none for one that no match led to, such as a digest.
    /// `expires` is when it is to be undone; none: never.
    pub why: Option<Block>,
    /// Which run it is.
    pub step: Step,
    /// How it ended.
    pub exit: Exit,
    /// Whether what it was to do, or to undo, stands although it failed: its incident stays in force until it is undone.
    pub stands: bool,
    /// What it wrote to stdout and stderr, cut.
    pub output: Arc<str>,
    /// What it read on stdin. Kept in the incident, so that the run that undoes it can be made after a restart.
    pub input: Arc<str>,
    /// When it ended.
    pub at: Wall,
    /// How long it ran.
    pub took: Duration,
}

/// Which run of a command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The first. Opens an incident: in force until it is undone, done where it is never to be undone, refused where the
    /// command declined, failed where it failed and nothing of it stands.
    Add,
    /// The one that undoes it, because of this. Closes the incident, as failed where the command failed, unless that stands.
    Delete(Undo),
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// It was killed, as it took too long.
    TimedOut,
    /// It was ended, as the controller stopped.
    CutOff,
    /// It could not be run; why, in words.
    NotRun(String),
    /// It found that it must not do it, and said why.
    Declined,
}

/// A command that is to be undone yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The command's name.
    pub command: Arc<str>,
    /// What led to it.
    pub why: Block,
    /// What it read on stdin.
    pub input: Arc<str>,
}

impl Exit {
    /// Why that is a failure, in words; none where it is none.
    pub fn failure(&self) -> Option<String> {
        match self {
            Exit::Status(0) => None,
            Exit::Status(status) => Some(format!("the command ended with status {status}")),
            Exit::Signal(signal) => Some(format!("the command was ended by signal {signal}")),
            Exit::TimedOut => Some("the command took too long and was killed".to_owned()),
            Exit::CutOff => Some("the command was cut off, as the controller stopped".to_owned()),
            Exit::NotRun(why) => Some(format!("the command could not be run: {why}")),
            Exit::Declined => Some("not to be done".to_owned()),
        }
    }
}

impl Ran {
    /// The last line that the command wrote, cut; none where it wrote nothing.
    pub fn last_words(&self) -> Option<String> {
        const LONGEST: usize = 200;
        let words = self.output.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(words.chars().take(LONGEST).collect())
    }

    /// Why it failed, with the last words of the command; none where it did not.
    fn failure(&self) -> Option<String> {
        let failure = self.exit.failure()?;
        Some(match (&self.exit, self.last_words()) {
            (Exit::Status(_), Some(words)) => format!("{failure}: {words}"),
            (Exit::Declined, Some(words)) => words,
            _ => failure,
        })
    }

    pub(super) fn apply(&self, ledger: &mut Ledger<'_>) -> rusqlite::Result<()> {
        let failure = self.failure();
        let incident = match &self.why {
            None => None,
            Some(why) => match self.step {
                Step::Add => Some(self.open(ledger, why, failure.as_deref())?),
                Step::Delete(undo) => self.close(ledger, why, undo, failure.as_deref())?,
            },
        };
        #[derive(Serialize)]
        struct Body<'a> {
            command: &'a str,
            step: &'static str,
            status: Option<i32>,
            failure: Option<String>,
            output: &'a str,
            took_us: i64,
        }
        let body = body(&Body {
            command: &self.command,
            step: if self.step == Step::Add { "add" } else { "delete" },
            status: if let Exit::Status(status) = self.exit { Some(status) } else { None },
            failure,
            output: &self.output,
            took_us: micros(self.took),
        })?;
        ledger.append(self.at, "command.ran", incident, &body)
    }

    /// The incident of an earlier run for the same target that is not undone yet.
    fn in_force(&self, connection: &Connection, target: &Target) -> rusqlite::Result<Option<i64>> {
        connection
            .prepare_cached(
                "SELECT id FROM incidents
                 WHERE target = ?1 AND ifnull(command, '') = ?2 AND outcome = 'in_force'",
            )?
            .query_row(params![target.to_string(), &*self.command], |row| row.get(0))
            .optional()
    }

    fn open(&self, ledger: &mut Ledger<'_>, why: &Block, failure: Option<&str>) -> rusqlite::Result<i64> {
        // The same command for the same source, before it was undone: what it did is what is to be undone.
        if let Some(id) = self.in_force(ledger.connection, &why.target)? {
            let mut columns = Columns::default();
            columns.set("last_seen", self.at.0);
            columns.set_block(why, self.at);
            write::extend(ledger, id, self.at, &columns)?;
            return Ok(id);
        }
        let mut columns = Columns::default();
        columns.set("first_seen", why.created.0);
        columns.set("last_seen", why.created.0);
        columns.set("responded_at", self.at.0);
        columns.set_target(&why.target);
        columns.set("action", "run");
        columns.set("command", &*self.command);
        columns.set("input", &*self.input);
        columns.set_block(why, why.created);
        let outcome = match failure {
            Some(_) if self.stands => Outcome::InForce,
            Some(_) if self.exit == Exit::Declined => Outcome::Refused,
            Some(_) => Outcome::Failed,
            None if why.expires.is_some() => Outcome::InForce,
            None => Outcome::Done,
        };
        if outcome == Outcome::InForce {
            columns.set("outcome", outcome.name());
            if let Some(failure) = failure {
                let why = format!("{failure}; what it may have done is to be undone yet");
                columns.set("outcome_reason", why);
            }
        } else {
            Close { outcome, at: self.at, reason: failure, uid: None }.set(&mut columns);
        }
        write::open(ledger, "incident.opened", self.at, &columns)
    }

    fn close(
        &self,
        ledger: &mut Ledger<'_>,
        why: &Block,
        undo: Undo,
        failure: Option<&str>,
    ) -> rusqlite::Result<Option<i64>> {
        let id = self.in_force(ledger.connection, &why.target)?;
        if let Some(id) = id
            && !self.stands
        {
            let Undo { end, uid } = undo;
            let (outcome, reason) = write::outcome(end);
            let by = uid.map(|uid| format!("by uid {uid}"));
            let not_undone = failure.map(|failure| format!("not undone: {failure}"));
            let (outcome, reason) = match &not_undone {
                Some(why) => (Outcome::Failed, Some(&**why)),
                None => (outcome, by.as_deref().or(reason)),
            };
            Close { outcome, at: self.at, reason, uid }.apply(ledger, id)?;
        }
        Ok(id)
    }
}

/// The commands that are to be undone yet, oldest first.
pub(super) fn standing(connection: &Connection, now: &Now) -> rusqlite::Result<Vec<Standing>> {
    let read = |row: &Row<'_>| {
        let incident = incident::read(row)?;
        Ok(Standing {
            command: incident.command.clone().unwrap_or_default().into(),
            input: row.get::<_, Option<Arc<str>>>(incident::BEHIND)?.unwrap_or_default(),
            why: incident.into_block(now),
        })
    };
    connection
        .prepare(&format!(
            "SELECT {}, input FROM incidents WHERE outcome = 'in_force' AND command IS NOT NULL
             ORDER BY first_seen, id",
            incident::COLUMNS
        ))?
        .query_map([], read)?
        .collect()
}
