//! The index of incidents by the user names that were tried. It says what the column `users` says.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use rusqlite::{Connection, params};

/// What all entries of the index come to.
#[derive(Debug, Default)]
pub(super) struct Sum {
    keys: RandomState,
    sum: u64,
}

impl Sum {
    /// Adds what the index is to have of incident `id`, by its column `users`.
    pub(super) fn add(&mut self, id: i64, first_seen: i64, users: &str) {
        // One that cannot be read is not what its records say, which is told of.
        let users: Vec<String> = serde_json::from_str(users).unwrap_or_default();
        for (place, user) in users.iter().enumerate() {
            if !users.iter().take(place).any(|before| before == user) {
                self.add_entry(id, first_seen, user);
            }
        }
    }

    /// In any order, the same entries come to the same. Nobody can foretell to what.
    fn add_entry(&mut self, id: i64, first_seen: i64, user: &str) {
        self.sum = self.sum.wrapping_add(self.keys.hash_one((id, first_seen, user)));
    }

    /// Says where the index is not what it is to be of the incidents with numbers from `first` to `last`. To look for each name
    /// takes long, so that is done only where all of them do not come to the same.
    pub(super) fn compare(
        self,
        connection: &Connection,
        (first, last): (i64, i64),
    ) -> rusqlite::Result<Vec<(i64, String)>> {
        let Sum { keys, sum } = self;
        let mut stands = Sum { keys, sum: 0 };
        let mut statement = connection
            .prepare("SELECT incident, first_seen, user FROM tried WHERE incident BETWEEN ?1 AND ?2")?;
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            stands.add_entry(row.get(0)?, row.get(1)?, row.get_ref(2)?.as_str()?);
        }
        if stands.sum == sum {
            return Ok(Vec::new());
        }
        const SAID: &str = "json_each(iif(json_valid(i.users), i.users, '[]')) u";
        let missing = format!(
            "SELECT i.id, 'the index of user names lacks it: who asks for ' || u.value || ' does not find it'
             FROM incidents i, {SAID}
             WHERE i.id BETWEEN ?1 AND ?2 AND NOT EXISTS (SELECT 1 FROM tried t
                 WHERE t.user = u.value AND t.first_seen = i.first_seen AND t.incident = i.id)"
        );
        let put_in = format!(
            "SELECT t.incident, 'the index of user names has it for ' || t.user || ', whom it does not name'
             FROM tried t WHERE t.incident BETWEEN ?1 AND ?2 AND NOT EXISTS (SELECT 1 FROM incidents i, {SAID}
                 WHERE i.id = t.incident AND i.first_seen = t.first_seen AND u.value = t.user)"
        );
        let mut otherwise = Vec::new();
        for find in [missing, put_in] {
            let mut statement = connection.prepare(&find)?;
            let found = statement.query_map([first, last], |row| Ok((row.get(0)?, row.get(1)?)))?;
            for entry in found {
                otherwise.push(entry?);
            }
        }
        Ok(otherwise)
    }
}

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
