//! Taking over what an earlier version has on record.

use rusqlite::{Connection, Row};
use xdpban_engine::time::Wall;

use super::chain::{Head, Ledger};
use super::columns::{Columns, Value};
use super::incident::{texts, unreadable};
use super::tried;

/// The columns that versions 1 and 2 have in common, in the order of version 1.
const COMMON: [&str; 25] = [
    "id",
    "first_seen",
    "last_seen",
    "responded_at",
    "target",
    "rule_id",
    "rule_level",
    "rule_description",
    "reason",
    "origin",
    "offences",
    "attempts",
    "users",
    "evidence",
    "action",
    "timeout_us",
    "expires_at",
    "line_to_block_us",
    "dropped_packets",
    "dropped_bytes",
    "read_packets",
    "read_bytes",
    "outcome",
    "outcome_at",
    "outcome_reason",
];

/// Those of them that are in no record.
const UNRECORDED: [&str; 3] = ["id", "read_packets", "read_bytes"];

/// Moves the incidents of version 1 into their new table, and puts each on record as it was found.
pub(super) fn incidents(connection: &Connection) -> rusqlite::Result<()> {
    let mut ledger = Ledger { connection, head: Head::default() };
    let mut statement =
        connection.prepare(&format!("SELECT {} FROM incidents_1 ORDER BY id", COMMON.join(", ")))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let columns = columns(row)?;
        let id = columns.insert(connection)?;
        tried::index(connection, id, columns.users())?;
        ledger.append(Wall(row.get("last_seen")?), "incident.migrated", Some(id), &columns.body()?)?;
    }
    Ok(())
}

fn columns<'r>(row: &'r Row<'_>) -> rusqlite::Result<Columns<'r>> {
    use rusqlite::types::ValueRef;
    let mut columns = Columns::default();
    for (place, name) in COMMON.into_iter().enumerate() {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|error| unreadable(place, error));
        match row.get_ref(place)? {
            ValueRef::Null => columns.set(name, Value::Null),
            ValueRef::Integer(integer) if UNRECORDED.contains(&name) => {
                columns.set(name, Value::Unrecorded(integer.into()));
            }
            ValueRef::Integer(integer) => columns.set(name, integer),
            ValueRef::Text(bytes) if name == "target" => {
                let target = text(bytes)?.parse().map_err(|error| unreadable(place, error))?;
                columns.set_target(&target);
            }
            ValueRef::Text(_) if ["users", "evidence"].contains(&name) => {
                columns.set(name, Value::Texts(texts(row, place)?.into()));
            }
            ValueRef::Text(bytes) => columns.set(name, text(bytes)?),
            odd => return Err(unreadable(place, format!("{} in {name}", odd.data_type()))),
        }
    }
    Ok(columns)
}
