//! Checking the record: whether each record is what it was when it was written, and whether incidents are what the records
//! say of them.
//!
//! Both are read once, in their order, with one record and one incident in memory, however many there are.

use std::collections::{BTreeMap, HashMap};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Rows, Statement};
use serde_json::Value;
use xdpban_engine::time::Wall;

use super::archive::Archive;
use super::chain::{Hash, Head, Link, unhex};
use super::{StoreError, columns, prune};

/// Faults that are told one by one. Beyond, they are counted.
const TOLD: usize = 64;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The latest record.
    pub head: Head,
    /// Up to which record the log was pruned; 0 where it was not.
    pub pruned_through: i64,
    /// How many records there are.
    pub records: u64,
    /// How many incidents there are.
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

impl Archive {
    /// Checks all of the record, and that the records of which `kept` are heads are still in it.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn verify(&self, kept: &[Head]) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        verified.check(&self.connection, kept).map_err(|source| self.unread(source))?;
        Ok(verified)
    }
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
    fn check(&mut self, connection: &Connection, kept: &[Head]) -> rusqlite::Result<()> {
        let pruned = prune::latest(connection)?;
        self.chain(connection, pruned)?;
        self.kept(connection, pruned, kept)?;
        self.incidents(connection)?;
        self.allowed(connection)
    }

    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < TOLD {
            self.faults.push(fault);
        } else {
            self.more += 1;
        }
    }

    fn chain(&mut self, connection: &Connection, pruned: Option<Head>) -> rusqlite::Result<()> {
        let mut last = pruned.unwrap_or_default();
        self.pruned_through = last.seq;
        let mut broken = Vec::new();
        let mut statement =
            connection.prepare("SELECT seq, at, kind, incident, body, hash FROM records ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (seq, at, incident, hash) = (row.get(0)?, Wall(row.get(1)?), row.get(3)?, row.get(5)?);
            let (kind, body) = (row.get_ref(2)?.as_str()?, row.get_ref(4)?.as_str()?);
            self.records += 1;
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
                (Some(_), _) => "is not the one whose hash was kept: the record was made anew",
                (None, Some(pruned)) if kept.seq <= pruned.seq => {
                    "was pruned, and cannot be compared with the hash that was kept"
                }
                (None, _) if kept.seq > self.head.seq => {
                    "was kept as the head, and the log ends before it: its end was cut off"
                }
                (None, _) => "was kept as the head, and is missing",
            };
            self.fault(Fault {
                seq: Some(kept.seq),
                what: format!("record {} {what}", kept.seq),
                ..Fault::default()
            });
        }
        Ok(())
    }

    /// Compares each incident with what its records say of it: both stand in the order of their numbers.
    fn incidents(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare("SELECT * FROM incidents ORDER BY id")?;
        let table = Table::of(&statement)?;
        let mut rows = statement.query([])?;
        let mut history = connection.prepare(
            "SELECT incident, kind, body FROM records WHERE incident IS NOT NULL ORDER BY incident, seq",
        )?;
        let mut said = Histories { rows: history.query([])?, ahead: None };
        let mut next = said.next()?;
        while let Some(row) = rows.next()? {
            self.incidents += 1;
            let id: i64 = row.get(0)?;
            while let Some((incident, _)) = &next
                && *incident < id
            {
                self.missing(*incident);
                next = said.next()?;
            }
            let what = match next.take_if(|(incident, _)| *incident == id) {
                None => Some("no record tells of it: it was put in".to_owned()),
                Some((_, columns)) => {
                    next = said.next()?;
                    columns.and_then(|columns| table.compare(row, &columns)).err()
                }
            };
            if let Some(what) = what {
                self.fault(Fault { incident: Some(id), what, ..Fault::default() });
            }
        }
        while let Some((incident, _)) = next {
            self.missing(incident);
            next = said.next()?;
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
            "SELECT kind, body FROM records
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

/// What the records say of each incident, in the order of their numbers: the columns that they set, the last one winning.
struct Histories<'s> {
    rows: Rows<'s>,
    /// The first record of the next incident.
    ahead: Option<(i64, Option<String>)>,
}

type Said = (i64, Result<BTreeMap<String, Value>, String>);

impl Histories<'_> {
    fn next(&mut self) -> rusqlite::Result<Option<Said>> {
        let Some((incident, body)) =
            self.ahead.take().map_or_else(|| self.read(), |ahead| Ok(Some(ahead)))?
        else {
            return Ok(None);
        };
        let mut columns = Ok(BTreeMap::new());
        merge(&mut columns, body.as_deref());
        while let Some((other, body)) = self.read()? {
            if other != incident {
                self.ahead = Some((other, body));
                break;
            }
            merge(&mut columns, body.as_deref());
        }
        Ok(Some((incident, columns)))
    }

    /// An incident and, of a record that sets columns, those.
    fn read(&mut self) -> rusqlite::Result<Option<(i64, Option<String>)>> {
        let Some(row) = self.rows.next()? else { return Ok(None) };
        let sets = row.get_ref(1)?.as_str()?.starts_with("incident.");
        Ok(Some((row.get(0)?, if sets { Some(row.get(2)?) } else { None })))
    }
}

fn merge(columns: &mut Result<BTreeMap<String, Value>, String>, body: Option<&str>) {
    if let (Ok(known), Some(body)) = (&mut *columns, body) {
        match serde_json::from_str::<BTreeMap<String, Value>>(body) {
            Ok(more) => known.extend(more),
            Err(error) => *columns = Err(format!("a record of it cannot be read: {error}")),
        }
    }
}

/// Columns that change between the records of an incident in force.
const COUNTS: [&str; 4] = ["dropped_packets", "dropped_bytes", "first_drop_at", "last_drop_at"];

/// Where the columns of the table stand.
struct Table(HashMap<String, usize>);

impl Table {
    fn of(statement: &Statement<'_>) -> rusqlite::Result<Table> {
        let places = statement.column_names().map(str::to_owned).zip(0..).collect();
        Ok(Table(places))
    }

    /// Says in which columns a row is not what its records say.
    fn compare(&self, row: &Row<'_>, said: &BTreeMap<String, Value>) -> Result<(), String> {
        let in_force = said.get("outcome").is_some_and(|outcome| outcome == "in_force");
        let mut otherwise = Vec::new();
        for (name, said) in said {
            if in_force && COUNTS.contains(&name.as_str()) {
                continue;
            }
            let stands = self.0.get(name).and_then(|place| row.get_ref(*place).ok());
            if !stands.is_some_and(|stands| is_same(stands, said)) {
                otherwise.push(format!("{name} should be {said}"));
            }
        }
        if !self.key_is_of_target(row) {
            otherwise.push("key should be that of target".to_owned());
        }
        if otherwise.is_empty() {
            return Ok(());
        }
        Err(format!("it is not what its records say: {}", otherwise.join(", ")))
    }

    fn key_is_of_target(&self, row: &Row<'_>) -> bool {
        let column = |name| self.0.get(name).and_then(|place| row.get_ref(*place).ok());
        let (Some(ValueRef::Blob(key)), Some(ValueRef::Text(target))) = (column("key"), column("target"))
        else {
            return false;
        };
        columns::target(key).is_some_and(|of_key| of_key.to_string().as_bytes() == target)
    }
}

fn is_same(stands: ValueRef<'_>, said: &Value) -> bool {
    match (stands, said) {
        (ValueRef::Null, Value::Null) => true,
        (ValueRef::Integer(stands), said) => said.as_i64() == Some(stands),
        (ValueRef::Text(stands), Value::String(said)) => stands == said.as_bytes(),
        (ValueRef::Text(stands), said @ Value::Array(_)) => stands == said.to_string().as_bytes(),
        _ => false,
    }
}

/// The hash in the body of a marker.
pub(super) fn hash_of(body: &Value) -> Option<Hash> {
    unhex(body["hash"].as_str()?)
}
