//! Questions for incidents.

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use xdpban_engine::rules::RuleId;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::columns::key;
use super::incident::{self, COLUMNS, Incident, Outcome};

/// As many of those that meet a condition are counted, to find the condition that the fewest meet.
const COUNTED: u32 = if cfg!(test) { 50 } else { 50_000 };

const BY_TIME: &str = "incidents AS d INDEXED BY incidents_by_time";

/// Which incidents to read. Each condition that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentQuery {
    /// Of targets that lie in this one, or that it lies in.
    pub target: Option<Target>,
    /// That began at this time or later,
    pub since: Option<Wall>,
    /// and before this one.
    pub until: Option<Wall>,
    /// Of this rule.
    pub rule: Option<RuleId>,
    /// In which this user name was tried.
    pub user: Option<String>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// That have a record with a greater number than this one.
    pub changed_after: Option<i64>,
    /// At most so many, those that began last; none: all.
    pub limit: Option<u32>,
    /// Whether the log lines are left out, which are by far the largest part.
    pub without_evidence: bool,
}

impl IncidentQuery {
    /// Hands the incidents that it asks for to `take`: where it has a limit, the newest first, each with the number of its
    /// latest record; else the oldest first, without it.
    pub(super) fn each<E: From<rusqlite::Error>>(
        &self,
        connection: &Connection,
        mut take: impl FnMut(Incident) -> Result<(), E>,
    ) -> Result<(), E> {
        let (sql, values) = self.sql(connection)?;
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let record = row.get(incident::BEHIND)?;
            take(Incident { record, ..incident::read(row)? })?;
        }
        Ok(())
    }

    /// Those that it asks for, the oldest first.
    pub(super) fn run(&self, connection: &Connection) -> rusqlite::Result<Vec<Incident>> {
        let mut found = Vec::new();
        self.each(connection, |incident| {
            found.push(incident);
            Ok::<_, rusqlite::Error>(())
        })?;
        if self.limit.is_some() {
            found.reverse();
        }
        Ok(found)
    }

    /// With a limit, the incidents are found first, by entries of indexes alone, and then read: a row is a hundred times
    /// as large as an entry, and of many that are looked through few are asked for.
    pub(super) fn sql(&self, connection: &Connection) -> rusqlite::Result<(String, Vec<Value>)> {
        let columns = if self.without_evidence {
            COLUMNS.replace("evidence", "'[]' AS evidence")
        } else {
            COLUMNS.to_owned()
        };
        let conditions = Conditions::of(self);
        let sql = match self.limit {
            None => {
                let all = all(conditions.time_and_others(), "incidents");
                format!(
                    "SELECT {columns}, 0 FROM incidents INDEXED BY incidents_by_time
                     WHERE {all} ORDER BY first_seen, id"
                )
            }
            Some(limit) => {
                let found = conditions.found(connection, limit)?;
                format!(
                    "SELECT {columns}, (SELECT max(seq) FROM records WHERE incident = incidents.id)
                     FROM incidents NOT INDEXED WHERE id IN ({found}) ORDER BY first_seen DESC, id DESC"
                )
            }
        };
        Ok((sql, conditions.values))
    }
}

/// The conditions of a query, and the values that they compare with.
struct Conditions {
    time: Vec<String>,
    others: Vec<Condition>,
    values: Vec<Value>,
}

/// A condition. `$` in it is what has the columns.
struct Condition {
    /// What entries of the index by time have to meet.
    of_entry: String,
    /// Where there are those alone that meet it, with their `first_seen` and id,
    index: &'static str,
    id: &'static str,
    /// by this,
    within: String,
    /// in the order of time.
    is_in_order: bool,
}

impl Conditions {
    fn of(query: &IncidentQuery) -> Conditions {
        let mut values = Vec::new();
        let mut value = |value: Value| {
            values.push(value);
            format!("?{}", values.len())
        };
        let since = query.since.map(|since| format!("$.first_seen >= {}", value(since.0.into())));
        let until = query.until.map(|until| format!("$.first_seen < {}", value(until.0.into())));
        let column = |index, is: String| Condition {
            of_entry: is.clone(),
            index,
            id: "id",
            within: is,
            is_in_order: true,
        };
        let changed = query.changed_after.map(|seq| {
            let changed = format!("$.id IN (SELECT incident FROM records WHERE seq > {})", value(seq.into()));
            column("incidents AS d NOT INDEXED", changed)
        });
        let user = query.user.as_ref().map(|user| {
            let user = value(user.clone().into());
            Condition {
                of_entry: format!(
                    "EXISTS (SELECT 1 FROM tried t
                     WHERE t.user = {user} AND t.first_seen = $.first_seen AND t.incident = $.id)"
                ),
                index: "tried AS d",
                id: "incident",
                within: format!("$.user = {user}"),
                is_in_order: true,
            }
        });
        let rule = query.rule.map(|rule| {
            let is = format!("$.rule_id = {}", value(i64::from(rule.0).into()));
            column("incidents AS d INDEXED BY incidents_by_rule", is)
        });
        let outcome = query.outcome.map(|outcome| {
            let is = format!("$.outcome = {}", value(outcome.name().to_owned().into()));
            column("incidents AS d INDEXED BY incidents_by_outcome", is)
        });
        let target = query.target.as_ref().map(|target| Condition {
            is_in_order: false,
            ..column("incidents AS d INDEXED BY incidents_by_target", overlaps(target))
        });
        Conditions {
            time: since.into_iter().chain(until).collect(),
            others: [changed, user, rule, outcome, target].into_iter().flatten().collect(),
            values,
        }
    }

    /// Reads the ids of the newest that meet all of them.
    fn found(&self, connection: &Connection, limit: u32) -> rusqlite::Result<String> {
        let (from, id, met) = match self.rarest(connection)? {
            None => (BY_TIME.to_owned(), "id", all(self.time_and_others(), "d")),
            Some(rarest) => {
                let Condition { index, id, .. } = *rarest;
                let within = self.within(rarest);
                let rest = self.others.iter().filter(|other| !std::ptr::eq(*other, rarest));
                let rest: Vec<&String> = rest.map(|other| &other.of_entry).collect();
                if rest.is_empty() {
                    (index.to_owned(), id, within)
                } else {
                    let entry = format!("n.first_seen = d.first_seen AND n.id = d.{id}");
                    let join = "CROSS JOIN incidents AS n INDEXED BY incidents_by_time ON";
                    (format!("{index} {join} {entry}"), id, format!("{within} AND {}", all(rest, "n")))
                }
            }
        };
        Ok(format!(
            "SELECT d.{id} FROM {from} WHERE {met} ORDER BY d.first_seen DESC, d.{id} DESC LIMIT {limit}"
        ))
    }

    /// The condition that the fewest meet; none where the times are best gone through.
    fn rarest(&self, connection: &Connection) -> rusqlite::Result<Option<&Condition>> {
        let mut rarest = None;
        let mut fewest = if self.time.is_empty() {
            COUNTED
        } else {
            self.count(connection, BY_TIME, &all(&self.time, "d"))?
        };
        for condition in &self.others {
            let count = self.count(connection, condition.index, &self.within(condition))?;
            // Those of a network alone are not in the order of time.
            if count < fewest || count == fewest && rarest.is_none() && condition.is_in_order {
                (rarest, fewest) = (Some(condition), count);
            }
        }
        Ok(rarest)
    }

    fn count(&self, connection: &Connection, index: &str, all: &str) -> rusqlite::Result<u32> {
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {index} WHERE {all} LIMIT {COUNTED})");
        let mut statement = connection.prepare(&sql)?;
        let used = statement.parameter_count();
        statement.query_row(params_from_iter(self.values.iter().take(used)), |row| row.get(0))
    }

    /// What finds those that meet `condition`, at the times that are asked for.
    fn within(&self, condition: &Condition) -> String {
        all(std::iter::once(&condition.within).chain(&self.time), "d")
    }

    /// What an entry of the index by time has to meet.
    fn time_and_others(&self) -> Vec<&String> {
        self.time.iter().chain(self.others.iter().map(|other| &other.of_entry)).collect()
    }
}

/// The conditions, of what is called `name`.
fn all<'c>(conditions: impl IntoIterator<Item = &'c String>, name: &str) -> String {
    let all: Vec<String> = conditions.into_iter().map(|condition| condition.replace('$', name)).collect();
    if all.is_empty() { "true".to_owned() } else { all.join(" AND ") }
}

/// The condition that an incident's target lies in `target`, or the other way round.
fn overlaps(target: &Target) -> String {
    // Each prefix that contains the target is looked up: 33 or 129 searches in the index, however many incidents there
    // are. They are numbers of ours, and no text of anybody's.
    let containing: Vec<String> = (0..=target.prefix_len())
        .map(|length| blob(&key(&Target::prefix(target.address(), length))))
        .collect();
    let containing = format!("$.key IN ({})", containing.join(", "));
    if target.is_exact() {
        return containing;
    }
    let (first, last) = ends(target);
    format!("({containing} OR $.key BETWEEN {} AND {})", blob(&first), blob(&last))
}

/// The first and the last key of targets that lie in `target`.
fn ends(target: &Target) -> (Vec<u8>, Vec<u8>) {
    let first = key(target);
    let mut last = first.clone();
    let bits = usize::from(target.prefix_len());
    let address = last.len() - 2;
    for bit in bits..address * 8 {
        if let Some(byte) = last.get_mut(1 + bit / 8) {
            *byte |= 0x80 >> (bit % 8);
        }
    }
    if let Some(length) = last.last_mut() {
        *length = u8::MAX;
    }
    (first, last)
}

fn blob(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}
