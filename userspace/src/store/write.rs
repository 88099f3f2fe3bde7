//! What can be written, and how.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use xdpban_engine::Login;
use xdpban_engine::change::{Block, End, Origin, Refused};
use xdpban_engine::measure::Strictness;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::act::{self, Act};
use super::chain::Ledger;
use super::columns::{Columns, count, micros};
use super::incident::Outcome;
use super::ran::Ran;
use super::{MAX_LOGINS, Offender, reconcile, tried};
use crate::source::Position;

/// One thing to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The kernel blocks a target. Opens an incident; where one of the same strictness is in force for the target already,
    /// that one takes over what the block says if the same asked for it, and ends otherwise.
    Blocked {
        /// The block.
        block: Arc<Block>,
        /// When the kernel had it.
        at: Wall,
        /// How long that took from the arrival of the line that led to it.
        took: Option<Duration>,
        /// The user id of the operator who asked for it.
        uid: Option<u32>,
        /// The packets and bytes that its entry had counted before, for another block or for this one.
        from: (u64, u64),
        /// Whether it is not enforced.
        dry_run: bool,
    },
    /// A block stands on, and is enforced from now on where it was not, or the other way round: its incident ends, and another
    /// begins, so that what was dropped and what would have been are never one number. Nothing where that is so on record.
    Switched {
        /// The block.
        block: Arc<Block>,
        /// When.
        at: Wall,
        /// Whether it is not enforced from now on.
        dry_run: bool,
        /// The reading of its counter of packets.
        packets: u64,
        /// The reading of its counter of bytes.
        bytes: u64,
    },
    /// A block rests while a stricter one stands. Its incident stays open.
    Rests {
        /// The block.
        block: Arc<Block>,
        /// Since when.
        at: Wall,
        /// The target of the stricter one.
        beneath: Target,
        /// The last reading of its counter of dropped packets.
        packets: u64,
        /// The last reading of its counter of dropped bytes.
        bytes: u64,
    },
    /// A block that rested is in force again. Nothing where it did not rest.
    Resumed {
        /// The block.
        block: Arc<Block>,
        /// Since when.
        at: Wall,
        /// The packets and bytes that its entry had counted before, for the stricter block.
        from: (u64, u64),
    },
    /// A block ended. Closes its incident; where none is in force for the target (the kernel never took the block),
    /// records one that is closed from the start.
    Ended {
        /// The block as it stood.
        block: Arc<Block>,
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
        /// The user id of the operator who ended it.
        uid: Option<u32>,
    },
    /// A block that a rule asked for was not made.
    Refused {
        /// The block and what prevented it.
        refused: Box<Refused>,
        /// When.
        at: Wall,
    },
    /// A reading of the counters of a block in force. One below the last means that they began anew (a reboot), and
    /// counts in full.
    Counts {
        /// The target.
        target: Target,
        /// How strict the block is.
        strictness: Strictness,
        /// Packets dropped.
        packets: u64,
        /// Bytes dropped.
        bytes: u64,
        /// When.
        at: Wall,
    },
    /// These blocks are in force or rest. Opens an incident for each that has none.
    Standing {
        /// The blocks, and for each that rests the target of the stricter one.
        blocks: Vec<(Arc<Block>, Option<Target>)>,
        /// When.
        at: Wall,
        /// Whether they are not enforced.
        dry_run: bool,
    },
    /// These targets have no block of that strictness. Closes the incident that is in force for one.
    NotStanding {
        /// What is not blocked.
        blocks: Vec<(Target, Strictness)>,
        /// When.
        at: Wall,
    },
    /// A command of the user's own ran.
    Ran(Box<Ran>),
    /// Something else happened.
    Act {
        /// When.
        at: Wall,
        /// The user id of the operator who did it.
        uid: Option<u32>,
        /// What.
        act: Act,
    },
    /// An operator put a network on the allowlist, or said something else of one that is there.
    Allow {
        /// The network.
        network: Target,
        /// Why, in the operator's words.
        comment: Option<String>,
        /// When that ends; none: when it is removed.
        expires_at: Option<Wall>,
        /// The operator's user id.
        uid: Option<u32>,
        /// When.
        at: Wall,
    },
    /// A network is on the allowlist no longer.
    Disallow {
        /// The network.
        network: Target,
        /// Why, in words: `removed`, or `expired`.
        reason: String,
        /// The user id of the operator who removed it.
        uid: Option<u32>,
        /// When.
        at: Wall,
    },
    /// Where a source stopped reading.
    Position {
        /// Its key, [`crate::config::SourceConfig::key`].
        key: String,
        /// The position.
        position: Position,
    },
    /// A target is known to have been blocked. No record: those of its blocks tell of it.
    Offender(Offender),
    /// A login was let in.
    Login(Login),
    /// The controller runs. Of no use as a record, but a later start tells by it since when nobody watched.
    Alive {
        /// When.
        at: Wall,
    },
    /// A stream of the record has been written up to a record.
    Streamed {
        /// The stream's name.
        name: String,
        /// The number of the record.
        seq: i64,
    },
}

impl Write {
    /// Whether a controller writes this only once it has begun to watch.
    pub(super) fn tells_of_watching(&self) -> bool {
        matches!(self, Write::Alive { .. } | Write::Act { act: Act::Started { .. }, .. })
    }

    pub(super) fn apply(&self, ledger: &mut Ledger<'_>) -> rusqlite::Result<()> {
        match self {
            Write::Blocked { block, at, took, uid, from, dry_run } => {
                let how = How { took: *took, uid: *uid, from: *from, dry_run: *dry_run };
                blocked(ledger, block, *at, how)
            }
            Write::Switched { block, at, dry_run, packets, bytes } => {
                switched(ledger, block, *at, *dry_run, (*packets, *bytes))
            }
            Write::Rests { block, at, beneath, packets, bytes } => {
                let strictness = block.measure.strictness();
                counted(ledger.connection, &block.target, strictness, *packets, *bytes, *at)?;
                rests(ledger, block, *at, *beneath)
            }
            Write::Resumed { block, at, from } => resumed(ledger, block, *at, *from),
            Write::Ended { block, end, at, packets, bytes, reason, uid } => {
                let noticed = *at;
                let at = match (end, block.expires) {
                    // It may be noticed long after, since nobody looked while the controller was down, or by a clock that was
                    // set meanwhile.
                    (End::Expired, Some(expiry)) => expiry.wall.max(block.created),
                    _ => noticed,
                };
                let (outcome, why) = outcome(*end);
                let close = Close { outcome, at, reason: reason.as_deref().or(why), uid: *uid };
                let connection = ledger.connection;
                match in_force(connection, &block.target, block.measure.strictness())? {
                    Some(id) => {
                        let strictness = block.measure.strictness();
                        counted(connection, &block.target, strictness, *packets, *bytes, at)?;
                        close.apply(ledger, id)?;
                    }
                    None => {
                        let kind = if *end == End::Failed { "incident.failed" } else { "incident.ended" };
                        closed(ledger, kind, block, &close)?;
                    }
                }
                ended(connection, block, *end, at.min(noticed))
            }
            Write::Refused { refused, at } => {
                let reason = refused.because.to_string();
                let close = Close { outcome: Outcome::Refused, at: *at, reason: Some(&reason), uid: None };
                closed(ledger, "incident.refused", &refused.block, &close)
            }
            Write::Counts { target, strictness, packets, bytes, at } => {
                counted(ledger.connection, target, *strictness, *packets, *bytes, *at)
            }
            Write::Standing { blocks, at, dry_run } => reconcile::standing(ledger, blocks, *at, *dry_run),
            Write::NotStanding { blocks, at } => reconcile::not_standing(ledger, blocks, *at),
            Write::Ran(ran) => ran.apply(ledger),
            Write::Act { at, uid, act } => act.apply(ledger, *at, *uid),
            Write::Allow { network, comment, expires_at, uid, at } => {
                act::allow(ledger, network, comment.as_deref(), *expires_at, *uid, *at)
            }
            Write::Disallow { network, reason, uid, at } => act::disallow(ledger, network, reason, *uid, *at),
            Write::Position { key, position } => save_position(ledger.connection, key, position),
            Write::Offender(offender) => offended(ledger.connection, offender),
            Write::Login(login) => save_login(ledger.connection, login),
            Write::Alive { at } => act::alive(ledger, *at, false),
            Write::Streamed { name, seq } => {
                ledger
                    .connection
                    .prepare_cached("INSERT OR REPLACE INTO streams (name, seq) VALUES (?1, ?2)")?
                    // It may have been said of a file before this one.
                    .execute(params![name, (*seq).min(ledger.head.seq)])?;
                Ok(())
            }
        }
    }
}

/// How a block came about, beside what it says itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) took: Option<Duration>,
    pub(super) uid: Option<u32>,
    pub(super) from: (u64, u64),
    pub(super) dry_run: bool,
}

pub(super) fn blocked(
    ledger: &mut Ledger<'_>,
    block: &Block,
    at: Wall,
    How { took, uid, from, dry_run }: How,
) -> rusqlite::Result<()> {
    let mut columns = Columns::default();
    let (mut standing, mut began) =
        (in_force(ledger.connection, &block.target, block.measure.strictness())?, block.created);
    if let Some(id) = standing {
        counted(ledger.connection, &block.target, block.measure.strictness(), from.0, from.1, at)?;
        if let Some(asked) = asked_anew(ledger, id, block, at, uid)? {
            (standing, began) = (None, asked);
        }
    }
    match standing {
        Some(id) => {
            columns.set("last_seen", at.0);
            columns.set("action", block.measure.action.name());
            columns.set_block(block, at);
            // It may have rested.
            columns.set("outcome_reason", None::<&str>);
            if let Some(uid) = uid {
                columns.set("uid", i64::from(uid));
            }
            extend(ledger, id, at, &columns)?;
        }
        None => {
            columns.set("first_seen", began.0);
            columns.set("last_seen", at.0);
            columns.set("responded_at", at.0);
            columns.set_target(&block.target);
            columns.set("uid", uid.map(i64::from));
            columns.set("action", block.measure.action.name());
            columns.set_block(block, began);
            columns.set("line_to_block_us", took.map(micros));
            if dry_run {
                columns.set("dry_run", 1);
            }
            columns.set("outcome", Outcome::InForce.name());
            columns.set_read(from);
            open(ledger, "incident.opened", at, &columns)?;
        }
    }
    if block.origin.is_by_rule() {
        let until = block.expires.map_or(at, |expiry| expiry.wall);
        offended(ledger.connection, &Offender { target: block.target, offences: block.offences, until })?;
    }
    Ok(())
}

/// Ends the incident `id`, which is in force, if someone else asked for its block than asks for `block`, and returns when that
/// was: each incident says who asked for it, and why.
fn asked_anew(
    ledger: &mut Ledger<'_>,
    id: i64,
    block: &Block,
    at: Wall,
    uid: Option<u32>,
) -> rusqlite::Result<Option<Wall>> {
    let known = "SELECT origin, uid, first_seen FROM incidents WHERE id = ?1";
    let (origin, by, began): (String, Option<u32>, i64) = ledger
        .connection
        .prepare_cached(known)?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    // Nobody knows who asked for what was found in the gate.
    let is_known = [&*origin, block.origin.name()].iter().all(|origin| *origin != Origin::Adopted.name());
    let is_same = origin == block.origin.name() && by.zip(uid).is_none_or(|(by, uid)| by == uid);
    if is_same || !is_known {
        return Ok(None);
    }
    let who = match (&block.rule, uid) {
        (Some(rule), _) => format!("rule {}", rule.id.0),
        (None, Some(uid)) => format!("uid {uid}"),
        (None, None) => block.origin.name().to_owned(),
    };
    let reason = format!("{who} asked for it anew; that is an incident of its own");
    Close { outcome: Outcome::Lifted, at, reason: Some(&reason), uid }.apply(ledger, id)?;
    // Operators are all one to the engine, for which the block goes on.
    Ok(Some(if block.created.0 > began { block.created } else { at }))
}

/// Ends the incident of a block that is enforced from now on where it was not, or the other way round, and begins another.
fn switched(
    ledger: &mut Ledger<'_>,
    block: &Block,
    at: Wall,
    dry_run: bool,
    (packets, bytes): (u64, u64),
) -> rusqlite::Result<()> {
    let strictness = block.measure.strictness();
    let Some(id) = in_force(ledger.connection, &block.target, strictness)? else { return Ok(()) };
    let known = "SELECT dry_run, uid FROM incidents WHERE id = ?1";
    let (was, uid): (bool, Option<u32>) =
        ledger.connection.prepare_cached(known)?.query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if was == dry_run {
        return Ok(());
    }
    counted(ledger.connection, &block.target, strictness, packets, bytes, at)?;
    let reason = match dry_run {
        true => "a dry run began: it is not enforced any longer",
        false => "the dry run is over: it is enforced from then on",
    };
    Close { outcome: Outcome::Lifted, at, reason: Some(reason), uid: None }.apply(ledger, id)?;
    blocked(ledger, block, at, How { took: None, uid, from: (packets, bytes), dry_run })
}

/// Notes that a block rests, in the place of the outcome's reason.
pub(super) fn rests(
    ledger: &mut Ledger<'_>,
    block: &Block,
    at: Wall,
    beneath: Target,
) -> rusqlite::Result<()> {
    let Some(id) = in_force(ledger.connection, &block.target, block.measure.strictness())? else {
        return Ok(());
    };
    let reason = format!("rests while {beneath} has a stricter block");
    let known = "SELECT outcome_reason FROM incidents WHERE id = ?1";
    let known: Option<String> = ledger.connection.prepare_cached(known)?.query_row([id], |row| row.get(0))?;
    if known.as_ref() == Some(&reason) {
        return Ok(());
    }
    let mut columns = Columns::default();
    columns.set("outcome_reason", reason);
    columns.update(ledger.connection, id)?;
    ledger.append(at, "incident.rests", Some(id), &columns.body()?)
}

/// Notes that all that is in force rests from now on: the gate is taken off the host.
pub(super) fn rest_all(ledger: &mut Ledger<'_>, at: Wall) -> rusqlite::Result<()> {
    let ids: Vec<i64> = ledger
        .connection
        .prepare(
            "SELECT id FROM incidents WHERE outcome = 'in_force' AND command IS NULL AND outcome_reason IS NULL",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut columns = Columns::default();
    columns.set("outcome_reason", "rests while the gate is off this host");
    let body = columns.body()?;
    for id in ids {
        columns.update(ledger.connection, id)?;
        ledger.append(at, "incident.rests", Some(id), &body)?;
    }
    Ok(())
}

/// Notes that a block that rested is in force again, and what its entry counts from.
fn resumed(ledger: &mut Ledger<'_>, block: &Block, at: Wall, from: (u64, u64)) -> rusqlite::Result<()> {
    let Some(id) = in_force(ledger.connection, &block.target, block.measure.strictness())? else {
        return Ok(());
    };
    let rested = "SELECT outcome_reason IS NOT NULL FROM incidents WHERE id = ?1";
    if !ledger.connection.prepare_cached(rested)?.query_row([id], |row| row.get(0))? {
        return Ok(());
    }
    let mut columns = Columns::default();
    columns.set("outcome_reason", None::<&str>);
    columns.set_read(from);
    columns.update(ledger.connection, id)?;
    ledger.append(at, "incident.resumed", Some(id), &columns.body()?)
}

/// Makes an incident of `columns`, and its record.
pub(super) fn open(
    ledger: &mut Ledger<'_>,
    kind: &str,
    at: Wall,
    columns: &Columns<'_>,
) -> rusqlite::Result<i64> {
    let id = columns.insert(ledger.connection)?;
    tried::index(ledger.connection, id, columns.users())?;
    ledger.append(at, kind, Some(id), &columns.body()?)?;
    Ok(id)
}

/// Brings incident `id` up to `columns`, which name its users anew, and records that.
pub(super) fn extend(
    ledger: &mut Ledger<'_>,
    id: i64,
    at: Wall,
    columns: &Columns<'_>,
) -> rusqlite::Result<()> {
    tried::forget(ledger.connection, id)?;
    columns.update(ledger.connection, id)?;
    tried::index(ledger.connection, id, columns.users())?;
    ledger.append(at, "incident.extended", Some(id), &columns.body()?)
}

/// Records an incident in which nothing was done.
fn closed(ledger: &mut Ledger<'_>, kind: &str, block: &Block, close: &Close<'_>) -> rusqlite::Result<()> {
    let mut columns = Columns::default();
    columns.set("first_seen", block.created.0);
    columns.set("last_seen", block.created.0);
    columns.set_target(&block.target);
    columns.set("action", block.measure.action.name());
    columns.set_block(block, block.created);
    close.set(&mut columns);
    open(ledger, kind, close.at, &columns)?;
    Ok(())
}

/// What came of an incident.
pub(super) struct Close<'a> {
    pub(super) outcome: Outcome,
    pub(super) at: Wall,
    pub(super) reason: Option<&'a str>,
    pub(super) uid: Option<u32>,
}

impl<'a> Close<'a> {
    pub(super) fn set(&self, columns: &mut Columns<'a>) {
        columns.set("outcome", self.outcome.name());
        columns.set("outcome_at", self.at.0);
        columns.set("outcome_reason", self.reason);
        columns.set("outcome_uid", self.uid.map(i64::from));
    }

    /// Closes the incident `id`. The record has its final counts, too.
    pub(super) fn apply(&self, ledger: &mut Ledger<'_>, id: i64) -> rusqlite::Result<()> {
        let mut columns = Columns::default();
        self.set(&mut columns);
        columns.update(ledger.connection, id)?;
        const COUNTS: [&str; 4] = ["dropped_packets", "dropped_bytes", "first_drop_at", "last_drop_at"];
        let mut counts = ledger
            .connection
            .prepare_cached(&format!("SELECT {} FROM incidents WHERE id = ?1", COUNTS.join(", ")))?;
        counts.query_row([id], |row| {
            for (place, name) in COUNTS.into_iter().enumerate() {
                columns.set(name, row.get::<_, Option<i64>>(place)?);
            }
            Ok(())
        })?;
        ledger.append(self.at, "incident.ended", Some(id), &columns.body()?)
    }
}

/// The incident of a block, which is in force or rests.
pub(super) fn in_force(
    connection: &Connection,
    target: &Target,
    strictness: Strictness,
) -> rusqlite::Result<Option<i64>> {
    let (action, plain) = kind(strictness);
    connection
        .prepare_cached(
            "SELECT id FROM incidents WHERE target = ?1 AND ifnull(command, '') = ''
             AND action = ?2 AND measure IS NULL = ?3 AND outcome = 'in_force'",
        )?
        .query_row(params![target.to_string(), action, plain], |row| row.get(0))
        .optional()
}

/// How strict a block is, as the index of those in force has it: its action, and whether it is a plain block.
pub(super) fn kind(strictness: Strictness) -> (&'static str, bool) {
    match strictness {
        Strictness::Everything => ("block", true),
        Strictness::Part => ("block", false),
        Strictness::Throttle => ("throttle", false),
    }
}

/// The outcome that an end is recorded as, and what it does not say by itself.
pub(super) fn outcome(end: End) -> (Outcome, Option<&'static str>) {
    match end {
        End::Expired => (Outcome::Expired, None),
        End::Lifted | End::Withdrawn => (Outcome::Lifted, None),
        End::Evicted => {
            (Outcome::Lifted, Some("evicted: the table was full, and it would have expired first"))
        }
        End::Protected => (Outcome::Lifted, Some("protected: the target became one that is never blocked")),
        End::Failed => (Outcome::Failed, None),
    }
}

/// Adds what was dropped since the last reading.
fn counted(
    connection: &Connection,
    target: &Target,
    strictness: Strictness,
    packets: u64,
    bytes: u64,
    at: Wall,
) -> rusqlite::Result<()> {
    let (action, plain) = kind(strictness);
    connection
        .prepare_cached(
            // A sum beyond the greatest integer is a real number, which the table does not take.
            "UPDATE incidents SET
                 dropped_packets = min(9223372036854775807,
                     dropped_packets + iif(?2 < read_packets, ?2, ?2 - read_packets)),
                 dropped_bytes = min(9223372036854775807,
                     dropped_bytes + iif(?2 < read_packets, ?3, max(?3 - read_bytes, 0))),
                 first_drop_at = iif(?2 > 0, ifnull(first_drop_at, ?4), first_drop_at),
                 last_drop_at = iif(?2 > 0, ?4, last_drop_at),
                 read_packets = ?2,
                 read_bytes = ?3
             WHERE target = ?1 AND ifnull(command, '') = '' AND action = ?5 AND measure IS NULL = ?6
                 AND outcome = 'in_force' AND read_packets <> ?2",
        )?
        .execute(params![target.to_string(), count(packets), count(bytes), at.0, action, plain])?;
    Ok(())
}

/// Remembers an offender.
fn offended(connection: &Connection, offender: &Offender) -> rusqlite::Result<()> {
    let Offender { target, offences, until } = offender;
    connection
        .prepare_cached("INSERT OR REPLACE INTO offenders (target, offences, until) VALUES (?1, ?2, ?3)")?
        .execute(params![target.to_string(), offences, until.0])?;
    Ok(())
}

/// Notes when the block of an offender ended, and takes its offence back where that does not count.
fn ended(connection: &Connection, block: &Block, end: End, at: Wall) -> rusqlite::Result<()> {
    let target = block.target.to_string();
    let forgiven = end.forgives() && block.origin.is_by_rule();
    match (forgiven, block.offences.saturating_sub(1)) {
        (false, _) => connection
            .prepare_cached("UPDATE offenders SET until = ?2 WHERE target = ?1")?
            .execute(params![target, at.0])?,
        (true, 0) => {
            connection.prepare_cached("DELETE FROM offenders WHERE target = ?1")?.execute([target])?
        }
        (true, before) => {
            // What the kernel did not take was no block, and those before it ended when they did.
            let until = (end != End::Failed).then_some(at.0);
            connection
                .prepare_cached(
                    "UPDATE offenders SET offences = min(offences, ?2), until = ifnull(?3, until) WHERE target = ?1",
                )?
                .execute(params![target, before, until])?
        }
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
