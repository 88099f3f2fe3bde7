//! The index of incidents by the user names that were tried. It says what the column `users` says.

use rusqlite::Connection;

/// Adds incident `id` to the index.
pub(super) fn index(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO tried (user, first_seen, incident)
             SELECT value, first_seen, i.id FROM incidents i, json_each(users) WHERE i.id = ?1",
        )?
        .execute([id])?;
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
