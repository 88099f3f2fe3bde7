//! What a start reads from the store beside incidents: offenders, logins, positions, the allowlist.

use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::{Connection, Row};
use xdpban_engine::Login;
use xdpban_engine::change::Block;
use xdpban_engine::time::{Now, Wall};

use super::incident::{self, BLOCK_COLUMNS, Said, text, unreadable};
use super::{Allowed, Offender};
use crate::source::Position;

pub(super) fn in_force(connection: &Connection, now: &Now) -> rusqlite::Result<Vec<Arc<Block>>> {
    let mut last = Said::default();
    connection
        .prepare(&format!(
            "SELECT {BLOCK_COLUMNS} FROM incidents WHERE outcome = 'in_force' AND command IS NULL
             ORDER BY first_seen, id"
        ))?
        .query_map([], |row| incident::read_block(row, now, &mut last).map(Arc::new))?
        .collect()
}

/// Whether a block is in force that is in a dry run by the record and not by `dry_run`, or the other way round.
pub(super) fn is_switched(connection: &Connection, dry_run: bool) -> rusqlite::Result<bool> {
    let find = match dry_run {
        false => {
            "SELECT EXISTS (SELECT 1 FROM incidents INDEXED BY incidents_in_dry_run WHERE outcome = 'in_force' AND dry_run = 1)"
        }
        true => {
            "SELECT EXISTS (SELECT 1 FROM incidents WHERE outcome = 'in_force' AND command IS NULL AND dry_run = 0)"
        }
    };
    connection.query_row(find, [], |row| row.get(0))
}

pub(super) fn allowed(connection: &Connection) -> rusqlite::Result<Vec<Allowed>> {
    connection
        .prepare(
            "SELECT network, comment, added_at, expires_at, uid FROM allowed ORDER BY added_at, network",
        )?
        .query_map([], |row| {
            Ok(Allowed {
                network: parsed(row, 0)?,
                comment: row.get(1)?,
                added_at: Wall(row.get(2)?),
                expires_at: row.get::<_, Option<i64>>(3)?.map(Wall),
                uid: row.get(4)?,
            })
        })?
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

/// A column that holds what is read from its text.
fn parsed<T>(row: &Row<'_>, place: usize) -> rusqlite::Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    text(row, place)?.parse().map_err(|error| unreadable(place, error))
}
