//! Checking the record: whether each record is what it was when it was written, and whether incidents are what the records
//! say of them.
//!
//! The first is done by one thread and the second, which takes twice as long, by two others. Each reads in order, with one record
//! and one incident in memory, however many there are.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;
use xdpban_engine::time::Wall;

use super::archive::Archive;
use super::chain::{Hash, Head, Link, unhex};
use super::compare::{Histories, Table};
use super::{StoreError, prune, tried};

/// Faults that are told one by one. Beyond, they are counted.
const TOLD: usize = 64;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The latest record.
    pub head: Head,
    /// Up to which record the log was pruned; 0 where it was not.
    pub pruned_through: i64,
    /// The record after which checking began, which is itself taken as it stands; none where all were checked. All from
    /// there to the head were.
    pub after: Option<Head>,
    /// How many records that is.
    pub records: u64,
    /// How many incidents were compared with their records.
    pub incidents: u64,
    /// What is wrong, the first of it; empty where the record is intact.
    pub faults: Vec<Fault>,
    /// How many faults there are beyond these.
    pub more: u64,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The record.
    pub seq: Option<i64>,
    /// Its time, as it says.
    pub at: Option<Wall>,
    /// Its kind, as it says.
    pub kind: Option<String>,
    /// The incident.
    pub incident: Option<i64>,
    /// What is wrong, in words.
    pub what: String,
}

/// Where checking begins.
#[derive(Clone, Copy, Debug)]
struct Begin {
    /// The first record.
    seq: i64,
    /// What it has to follow from.
    after: Head,
    /// The first incident.
    incident: i64,
}

impl Archive {
    /// Checks all of the record, and that the records of which `kept` are heads are still in it.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn verify(&self, kept: &[Head]) -> Result<Verified, StoreError> {
        let pruned = prune::latest(&self.connection).map_err(|source| self.unread(source))?;
        let after = pruned.unwrap_or_default();
        let mut verified = self.check(Begin { seq: i64::MIN, after, incident: i64::MIN })?;
        verified.pruned_through = after.seq;
        verified
            .kept(&self.connection, pruned, kept)
            .and_then(|()| verified.allowed(&self.connection))
            .map_err(|source| self.unread(source))?;
        Ok(verified)
    }

    /// Checks the record from the first that tells of the time from `from` on to the latest, and the incidents that began
    /// since. The record before them is taken as it stands.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn verify_since(&self, from: Wall) -> Result<Verified, StoreError> {
        match begin(&self.connection, from).map_err(|source| self.unread(source))? {
            None => self.verify(&[]),
            Some(begin) => Ok(Verified { after: Some(begin.after), ..self.check(begin)? }),
        }
    }

    /// How many steps it takes to check all of the record: one for each record and each incident.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn steps(&self) -> Result<u64, StoreError> {
        // The numbers of records have no gaps, and to count them would take long.
        let count = "SELECT ifnull((SELECT max(seq) FROM records) + 1 - (SELECT min(seq) FROM records), 0)
                + (SELECT count(*) FROM incidents)";
        let steps = self.connection.query_row(count, [], |row| row.get::<_, i64>(0));
        steps.map(i64::unsigned_abs).map_err(|source| self.unread(source))
    }

    /// How many of these steps have been taken: others can look at it meanwhile.
    pub fn steps_taken(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.steps_taken)
    }

    fn check(&self, begin: Begin) -> Result<Verified, StoreError> {
        let unread = |source| self.unread(source);
        let head = self.head()?;
        let [earlier, later] = halves(&self.connection, begin.incident).map_err(unread)?;
        // What this one sees of the log is the beginning of what later ones see.
        let (for_chain, for_later) = (self.again()?, self.again()?);
        let (chain, earlier, later) = std::thread::scope(|scope| {
            let chain = scope.spawn(move || {
                let mut chain = Verified::default();
                chain.chain(&for_chain, begin, head).map(|()| chain)
            });
            let later = scope.spawn(move || Verified::of_incidents(&for_later, later));
            let earlier = Verified::of_incidents(self, earlier);
            (joined(chain), earlier, joined(later))
        });
        let mut verified = chain.map_err(unread)?;
        for half in [earlier, later] {
            let half = half.map_err(unread)?;
            verified.incidents += half.incidents;
            verified.more += half.more;
            half.faults.into_iter().for_each(|fault| verified.fault(fault));
        }
        Ok(verified)
    }
}

/// The numbers of incidents from `first` on, in two halves, each by its first and its last.
fn halves(connection: &Connection, first: i64) -> rusqlite::Result<[(i64, i64); 2]> {
    let ends = "SELECT (SELECT min(id) FROM incidents WHERE id >= ?1), (SELECT max(id) FROM incidents)";
    let (least, greatest): (Option<i64>, Option<i64>) =
        connection.query_row(ends, [first], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let middle = least.zip(greatest).map_or(first, |(least, greatest)| least.midpoint(greatest));
    Ok([(first, middle), (middle.saturating_add(1), i64::MAX)])
}

/// What the thread found.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    // Nothing there panics; if it did, so would this.
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The first record, and the first incident, that are about the time from `from` on; none where that is all. Times are in
/// the order of records as long as nobody sets the clock, and where they are not, the earliest of what tells of that time
/// counts. Each question names the index that answers it, since SQLite would go through the table, which has many years.
fn begin(connection: &Connection, from: Wall) -> rusqlite::Result<Option<Begin>> {
    let number = |sql: &str, value: i64| {
        connection
            .query_row(sql, [value], |row| row.get::<_, Option<i64>>(0))
            .map(|found| found.unwrap_or(i64::MAX))
    };
    let began =
        number("SELECT min(id) FROM incidents INDEXED BY incidents_by_time WHERE first_seen >= ?1", from.0)?;
    let first = [
        in_order(connection, from)?,
        number("SELECT min(seq) FROM records INDEXED BY records_by_incident WHERE incident >= ?1", began)?,
        number(
            "SELECT min(seq) FROM records INDEXED BY records_by_time WHERE incident IS NULL AND at >= ?1",
            from.0,
        )?,
    ];
    let first = first.into_iter().min().unwrap_or(i64::MAX);
    // One that was made to have begun earlier than it did is among those whose records come later.
    let opened = "SELECT incident FROM records WHERE seq >= ?1 AND kind IN
        ('incident.opened', 'incident.refused', 'incident.failed') ORDER BY seq LIMIT 1";
    let opened = connection.query_row(opened, [first], |row| row.get(0)).optional()?.unwrap_or(i64::MAX);
    let before = "SELECT seq, hash FROM records WHERE seq < ?1 ORDER BY seq DESC LIMIT 1";
    let before = connection
        .query_row(before, [first], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
        .optional()?;
    Ok(before.map(|after| Begin { seq: after.seq + 1, after, incident: began.min(opened) }))
}

/// The first record at `from` or later, where records are in the order of their times.
fn in_order(connection: &Connection, from: Wall) -> rusqlite::Result<i64> {
    // Asked for at once, they would be looked for in all records.
    let ends = "SELECT ifnull((SELECT min(seq) FROM records), 1), ifnull((SELECT max(seq) FROM records), 0)";
    let (mut low, last): (i64, i64) = connection.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut high = last + 1;
    let mut at = connection.prepare("SELECT at FROM records WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    while low < high {
        let middle = low + (high - low) / 2;
        if at.query_row([middle], |row| row.get::<_, i64>(0))? >= from.0 {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(if low > last { i64::MAX } else { low })
}

/// A record that does not follow from the one before it.
struct Broken {
    seq: i64,
    at: Wall,
    kind: String,
    incident: Option<i64>,
    body: String,
    hash: Hash,
    /// The hash of the record before it.
    previous: Hash,
}

impl Broken {
    fn follows(&self, seq: i64, previous: &Hash) -> bool {
        let Broken { at, kind, incident, body, hash, .. } = self;
        Link { seq, at: *at, kind, incident: *incident, body }.hash(previous) == *hash
    }
}

impl Verified {
    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < TOLD {
            self.faults.push(fault);
        } else {
            self.more += 1;
        }
    }

    /// Checks that records follow from each other, up to `head`.
    fn chain(&mut self, archive: &Archive, begin: Begin, head: Head) -> rusqlite::Result<()> {
        let Archive { connection, steps_taken, .. } = archive;
        // The controller may have pruned the log since.
        let pruned = prune::latest(connection)?.filter(|pruned| pruned.seq > begin.after.seq);
        let mut last = pruned.unwrap_or(begin.after);
        let mut broken = Vec::new();
        let mut statement = connection.prepare(
            "SELECT seq, at, kind, incident, body, hash FROM records WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq",
        )?;
        let mut rows = statement.query([begin.seq, head.seq])?;
        while let Some(row) = rows.next()? {
            let (seq, at, incident, hash) = (row.get(0)?, Wall(row.get(1)?), row.get(3)?, row.get(5)?);
            let (kind, body) = (row.get_ref(2)?.as_str()?, row.get_ref(4)?.as_str()?);
            self.records += 1;
            steps_taken.fetch_add(1, Ordering::Relaxed);
            if seq != last.seq + 1 {
                let what = match seq - last.seq - 1 {
                    1 => format!("record {} is missing before it", last.seq + 1),
                    count if count > 1 => {
                        format!("records {} to {} are missing before it", last.seq + 1, seq - 1)
                    }
                    _ => format!("the log was pruned up to record {}, and it should be gone", last.seq),
                };
                self.fault(Fault {
                    seq: Some(seq),
                    at: Some(at),
                    kind: Some(kind.to_owned()),
                    incident,
                    what,
                });
            } else if (Link { seq, at, kind, incident, body }.hash(&last.hash)) != hash {
                if broken.len() < TOLD {
                    let (kind, body) = (kind.to_owned(), body.to_owned());
                    broken.push(Broken { seq, at, kind, incident, body, hash, previous: last.hash });
                } else {
                    self.more += 1;
                }
            }
            last = Head { seq, hash };
        }
        self.head = last;
        for fault in diagnose(&broken) {
            self.fault(fault);
        }
        Ok(())
    }

    fn kept(&mut self, connection: &Connection, pruned: Option<Head>, kept: &[Head]) -> rusqlite::Result<()> {
        for kept in kept {
            let find = "SELECT hash FROM records WHERE seq = ?1";
            let found: Option<Hash> = connection.query_row(find, [kept.seq], |row| row.get(0)).optional()?;
            let what = match (found, pruned) {
                (Some(hash), _) if hash == kept.hash => continue,
                (None, Some(pruned)) if pruned == *kept => continue,
                (Some(_), _) => "it is not the one whose hash was kept: the record was made anew",
                (None, Some(pruned)) if kept.seq <= pruned.seq => {
                    "it was pruned, and cannot be compared with the hash that was kept"
                }
                (None, _) if kept.seq > self.head.seq => {
                    "it was kept as the head, and the log ends before it: its end was cut off"
                }
                (None, _) => "it was kept as the head, and is missing",
            };
            self.fault(Fault { seq: Some(kept.seq), what: what.to_owned(), ..Fault::default() });
        }
        Ok(())
    }

    fn of_incidents(archive: &Archive, numbers: (i64, i64)) -> rusqlite::Result<Verified> {
        let mut verified = Verified::default();
        verified.incidents(archive, numbers).map(|()| verified)
    }

    /// Compares each incident with a number from `first` to `last` with what its records say of it: both stand in the order of
    /// their numbers.
    fn incidents(&mut self, archive: &Archive, (first, last): (i64, i64)) -> rusqlite::Result<()> {
        let Archive { connection, steps_taken, .. } = archive;
        let mut statement =
            connection.prepare("SELECT * FROM incidents WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
        let mut table = Table::of(&statement);
        let (began, users) = (statement.column_index("first_seen")?, statement.column_index("users")?);
        let mut said = tried::Sum::default();
        let mut rows = statement.query([first, last])?;
        let mut history = connection.prepare(
            "SELECT incident, kind, body FROM records WHERE incident BETWEEN ?1 AND ?2 ORDER BY incident, seq",
        )?;
        let mut histories = Histories::new(history.query([first, last])?)?;
        while let Some(row) = rows.next()? {
            self.incidents += 1;
            steps_taken.fetch_add(1, Ordering::Relaxed);
            let id: i64 = row.get(0)?;
            said.add(id, row.get(began)?, row.get_ref(users)?.as_str()?);
            while let Some(incident) = histories.incident()
                && incident < id
            {
                self.missing(incident);
                histories.tell(&mut table)?;
            }
            let what = if histories.incident() == Some(id) {
                histories.tell(&mut table)?;
                table.compare(row).err()
            } else {
                Some("no record tells of it: it was put in".to_owned())
            };
            if let Some(what) = what {
                self.fault(Fault { incident: Some(id), what, ..Fault::default() });
            }
        }
        while let Some(incident) = histories.incident() {
            self.missing(incident);
            histories.tell(&mut table)?;
        }
        for (incident, what) in said.compare(connection, (first, last))? {
            // Where an incident was altered or taken out, the index is otherwise for that alone.
            if !self.faults.iter().any(|fault| fault.incident == Some(incident)) {
                self.fault(Fault { incident: Some(incident), what, ..Fault::default() });
            }
        }
        Ok(())
    }

    fn missing(&mut self, incident: i64) {
        let what = "it is on record, and is missing in the table of incidents".to_owned();
        self.fault(Fault { incident: Some(incident), what, ..Fault::default() });
    }

    /// Compares the allowlist with what the records say of it.
    fn allowed(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(
            "SELECT kind, body FROM records INDEXED BY records_by_time
             WHERE incident IS NULL AND kind IN ('allow.added', 'allow.removed') ORDER BY seq",
        )?;
        let mut rows = statement.query([])?;
        let mut said: HashMap<String, Option<Value>> = HashMap::new();
        while let Some(row) = rows.next()? {
            // One that cannot be read has been told of: it is not what was written.
            let Ok(body) = serde_json::from_str::<Value>(row.get_ref(1)?.as_str()?) else { continue };
            let Some(network) = body["network"].as_str() else { continue };
            let added = row.get_ref(0)?.as_str()? == "allow.added";
            said.insert(network.to_owned(), added.then(|| body.clone()));
        }
        let mut statement = connection.prepare("SELECT network, comment, expires_at, uid FROM allowed")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let network: String = row.get(0)?;
            let (comment, expires_at, uid) = (
                row.get::<_, Option<String>>(1)?,
                row.get::<_, Option<i64>>(2)?,
                row.get::<_, Option<i64>>(3)?,
            );
            let stands = serde_json::json!({
                "network": network, "comment": comment, "expires_at": expires_at, "uid": uid,
            });
            match said.remove(&network) {
                Some(Some(body)) if body == stands => {}
                // The record of a network that was added long ago may have been pruned.
                None if self.pruned_through > 0 => {}
                _ => self.fault(Fault {
                    what: format!("the allowlist has {network} as no record tells of it"),
                    ..Fault::default()
                }),
            }
        }
        for (network, _) in said.into_iter().filter(|(_, said)| said.is_some()) {
            let what = format!("{network} was put on the allowlist by the record, and is not on it");
            self.fault(Fault { what, ..Fault::default() });
        }
        Ok(())
    }
}

/// Says what became of records that do not follow from those before them. A record that is itself as it was written, and
/// only stands after another one than then, is not told of: the other one is.
fn diagnose(broken: &[Broken]) -> impl Iterator<Item = Fault> {
    broken.iter().filter_map(|record| {
        let fault = |what| Fault {
            seq: Some(record.seq),
            at: Some(record.at),
            kind: Some(record.kind.clone()),
            incident: record.incident,
            what,
        };
        let after = |place: &Broken| {
            let hashes = broken.iter().map(|other| &other.hash);
            std::iter::once(&place.previous).chain(hashes).any(|hash| record.follows(place.seq, hash))
        };
        if after(record) {
            return None;
        }
        Some(match broken.iter().find(|place| after(place)) {
            Some(place) => fault(format!("it was written as record {}: records were reordered", place.seq)),
            None => {
                fault(format!("it is not what was written after record {}: it was altered", record.seq - 1))
            }
        })
    })
}

/// The hash in the body of a marker.
pub(super) fn hash_of(body: &Value) -> Option<Hash> {
    unhex(body["hash"].as_str()?)
}
