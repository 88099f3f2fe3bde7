//! Taking off the log what is older than it is kept, or more than there is room for. Age is counted by what is on record, not
//! by the clock, which may leap.
//!
//! It goes from the oldest on in steps of a bounded number of records, one transaction each. The record that a step leaves
//! (`record.pruned`) says up to which record the log was taken off and has the hash of that one, so that the first of the
//! rest can be checked. An incident goes with the last of its records. One that is in force is put on record anew as it
//! stands before its old records go (`incident.carried`), and stays.

use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use serde_json::json;
use xdpban_engine::time::Wall;

use super::chain::{Hash, Head, Ledger, hex};
use super::columns::{Columns, Value, body};
use super::incident::{texts, unreadable};
use super::{tried, verify};

/// Records that one step takes off at most: a few milliseconds.
const STEP: i64 = 500;

/// How long ago something must have been recorded for its time to be believed, and what part of the time that is kept at most.
/// A clock that leaps ahead is noticed and put right before.
const BELIEVED: Duration = Duration::from_secs(7 * 86_400);
const BELIEVED_PART: u32 = 10;

/// How far the clock may be ahead of what is believed before that is said.
const FAR_AHEAD: Duration = Duration::from_secs(60 * 86_400);

/// For how long and how much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// For how long; none: for good.
    pub time: Option<Duration>,
    /// How large the file may grow, in bytes; none: without end.
    pub size: Option<u64>,
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Records that were taken off.
    pub records: u64,
    /// Whether there may be more to take off.
    pub more: bool,
    /// The time by which age was counted, where the clock is implausibly far ahead of it.
    pub unconfirmed: Option<Wall>,
}

/// Up to where the log was taken off: the number and the hash of the last record that is gone.
pub(super) fn latest(connection: &Connection) -> rusqlite::Result<Option<Head>> {
    // By the index of acts alone: there are many more records of incidents.
    let find = "SELECT body FROM records INDEXED BY records_by_time
         WHERE incident IS NULL AND kind = 'record.pruned' ORDER BY seq DESC LIMIT 1";
    let body: Option<String> = connection.query_row(find, [], |row| row.get(0)).optional()?;
    // A marker that cannot be read has been tampered with, and counts as none.
    let body = body.and_then(|body| serde_json::from_str::<serde_json::Value>(&body).ok());
    Ok(body.and_then(|body| Some(Head { seq: body["through"].as_i64()?, hash: verify::hash_of(&body)? })))
}

/// Carries out one step.
pub(super) fn step(ledger: &mut Ledger<'_>, keep: &Keep, now: Wall) -> rusqlite::Result<Pruned> {
    let connection = ledger.connection;
    let Some(first) = oldest(connection)? else { return Ok(Pruned::default()) };
    let too_large = match keep.size {
        Some(size) => used(connection)? > size,
        None => false,
    };
    let mut unconfirmed = None;
    let through = if too_large {
        // Never the end, which the next record is bound to.
        (first + STEP - 1).min(ledger.head.seq - 1)
    } else {
        let Some(time) = keep.time else { return Ok(Pruned::default()) };
        let Some(known) = believed(connection, now, time)? else { return Ok(Pruned::default()) };
        unconfirmed = (now.since(known) > FAR_AHEAD).then_some(known);
        last_before(connection, first, known.before(time))?
    };
    if through < first {
        return Ok(Pruned { unconfirmed, ..Pruned::default() });
    }
    let carried = take_off(ledger, first, through, too_large, now)?;
    let records = through - first + 1;
    Ok(Pruned {
        records: records.unsigned_abs(),
        // Where blocks in force alone are left, there is nothing to be won.
        more: records == STEP && carried < records / 2,
        unconfirmed,
    })
}

/// The time by which age is counted: when something was last recorded that was not recorded just now. What the clock says at
/// present is not believed, since it may have leapt, and what it takes for old does not come back.
fn believed(connection: &Connection, now: Wall, kept: Duration) -> rusqlite::Result<Option<Wall>> {
    let until = now.before(BELIEVED.min(kept / BELIEVED_PART));
    let latest: Option<i64> = connection.query_row(
        "SELECT max(at) FROM (
             SELECT max(at) AS at FROM records WHERE incident IS NULL AND at <= ?1
             UNION ALL SELECT max(first_seen) FROM incidents WHERE first_seen <= ?1)",
        [until.0],
        |row| row.get(0),
    )?;
    Ok(latest.map(Wall))
}

fn oldest(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT min(seq) FROM records", [], |row| row.get(0))
}

/// The bytes of the file that are in use.
fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok((pages * number("PRAGMA page_size")?).unsigned_abs())
}

/// The last record from `first` on, within a step, before which and with which all are from before `end`.
fn last_before(connection: &Connection, first: i64, end: Wall) -> rusqlite::Result<i64> {
    let kept: Option<i64> = connection.query_row(
        "SELECT min(seq) FROM records WHERE seq >= ?1 AND seq < ?2 AND at >= ?3",
        [first, first + STEP, end.0],
        |row| row.get(0),
    )?;
    match kept {
        Some(kept) => Ok(kept - 1),
        None => {
            let last =
                connection.query_row("SELECT max(seq) FROM records", [], |row| row.get::<_, i64>(0))?;
            Ok((first + STEP - 1).min(last - 1))
        }
    }
}

/// Takes off the records from `first` to `through`; returns how many incidents were put on record anew.
fn take_off(
    ledger: &mut Ledger<'_>,
    first: i64,
    through: i64,
    too_large: bool,
    now: Wall,
) -> rusqlite::Result<i64> {
    let connection = ledger.connection;
    let hash: Hash =
        connection.query_row("SELECT hash FROM records WHERE seq = ?1", [through], |row| row.get(0))?;
    let span: (i64, i64) = connection.query_row(
        "SELECT min(at), max(at) FROM records WHERE seq BETWEEN ?1 AND ?2",
        [first, through],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    // Those without a later record.
    let ended: Vec<(i64, Option<bool>)> = connection
        .prepare_cached(
            "SELECT DISTINCT r.incident, i.outcome = 'in_force' FROM records r
             LEFT JOIN incidents i ON i.id = r.incident
             WHERE r.seq BETWEEN ?1 AND ?2 AND r.incident IS NOT NULL AND NOT EXISTS
                 (SELECT 1 FROM records l WHERE l.incident = r.incident AND l.seq > ?2)",
        )?
        .query_map([first, through], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let (mut carried, mut incidents) = (0, 0);
    for (id, in_force) in ended {
        if in_force == Some(true) {
            carry(ledger, id, now)?;
            carried += 1;
        } else {
            tried::forget(connection, id)?;
            incidents += connection.prepare_cached("DELETE FROM incidents WHERE id = ?1")?.execute([id])?;
        }
    }
    connection
        .prepare_cached("DELETE FROM records WHERE seq BETWEEN ?1 AND ?2")?
        .execute([first, through])?;
    let marker = body(&json!({
        "through": through,
        "hash": hex(&hash),
        "records": through - first + 1,
        "incidents": incidents,
        "from": span.0,
        "to": span.1,
        "why": if too_large { "size" } else { "age" },
    }))?;
    ledger.append(now, "record.pruned", None, &marker)?;
    Ok(carried)
}

/// Columns that no record has.
const UNRECORDED: [&str; 4] = ["id", "key", "read_packets", "read_bytes"];

/// Puts the incident `id` on record as it stands.
fn carry(ledger: &mut Ledger<'_>, id: i64, now: Wall) -> rusqlite::Result<()> {
    let mut statement = ledger.connection.prepare_cached("SELECT * FROM incidents WHERE id = ?1")?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let body = statement.query_row([id], |row| {
        let mut columns = Columns::default();
        for (place, name) in names.iter().enumerate() {
            let value = match row.get_ref(place)? {
                _ if UNRECORDED.contains(&name.as_str()) => continue,
                ValueRef::Null => Value::Null,
                ValueRef::Integer(integer) => Value::Integer(integer),
                ValueRef::Text(_) if ["users", "evidence"].contains(&name.as_str()) => {
                    Value::Texts(texts(row, place)?.into())
                }
                ValueRef::Text(_) => Value::Text(row.get::<_, String>(place)?.into()),
                odd => return Err(unreadable(place, format!("{} in {name}", odd.data_type()))),
            };
            columns.0.push((name.clone().into(), value));
        }
        columns.body()
    })?;
    ledger.append(now, "incident.carried", Some(id), &body)
}
