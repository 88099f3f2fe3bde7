//! The index of incidents by the user names that were tried. It says what the column `users` says.

use std::sync::Arc;

use rusqlite::{Connection, params};

/// Adds incident `id` to the index, in which `users` were tried.
pub(super) fn index(connection: &Connection, id: i64, users: &[Arc<str>]) -> rusqlite::Result<()> {
    for user in users {
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO tried (user, first_seen, incident)
                 SELECT ?2, first_seen, id FROM incidents WHERE id = ?1",
            )?
            .execute(params![id, &**user])?;
    }
    Ok(())
}

/// Takes incident `id` out of it.
pub(super) fn forget(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM tried WHERE (user, first_seen, incident) IN
                 (SELECT value, first_seen, i.id FROM incidents i, json_each(users) WHERE i.id = ?1)",
        )?
        .execute([id])?;
    Ok(())
}
