//! Questions for incidents.

use std::fmt::Write as _;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use xdpban_engine::rules::RuleId;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::columns::key;
use super::incident::{self, COLUMNS, Incident, Outcome};

/// A network with more incidents than this is looked for among all of them, in the order of time, and not by its addresses.
const MANY: u32 = 20_000;

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
}

impl IncidentQuery {
    /// Hands the incidents that it asks for to `take`: where it has a limit, the newest first; else the oldest first.
    pub(super) fn each<E: From<rusqlite::Error>>(
        &self,
        connection: &Connection,
        mut take: impl FnMut(Incident) -> Result<(), E>,
    ) -> Result<(), E> {
        let (sql, values) = self.sql(connection)?;
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let record = row.get("record")?;
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

    pub(super) fn sql(&self, connection: &Connection) -> rusqlite::Result<(String, Vec<Value>)> {
        let mut sql = format!(
            "SELECT {COLUMNS}, (SELECT max(seq) FROM records WHERE incident = incidents.id) AS record
             FROM incidents WHERE true"
        );
        let mut values = Vec::new();
        let mut condition = |text: &str, value: Value| {
            values.push(value);
            sql.push_str(&text.replace("?", &format!("?{}", values.len())));
        };
        if let Some(since) = self.since {
            condition(" AND first_seen >= ?", since.0.into());
        }
        if let Some(until) = self.until {
            condition(" AND first_seen < ?", until.0.into());
        }
        if let Some(rule) = self.rule {
            // Of a rule and an outcome the index of the rule serves better where the outcome is the common one.
            let text = match self.outcome {
                None | Some(Outcome::Expired) => " AND rule_id = ?",
                Some(_) => " AND +rule_id = ?",
            };
            condition(text, i64::from(rule.0).into());
        }
        if let Some(outcome) = self.outcome {
            let text = match (outcome, self.rule) {
                (Outcome::Expired, Some(_)) => " AND +outcome = ?",
                _ => " AND outcome = ?",
            };
            condition(text, outcome.name().to_owned().into());
        }
        if let Some(seq) = self.changed_after {
            condition(" AND id IN (SELECT incident FROM records WHERE seq > ?)", seq.into());
        }
        if let Some(user) = &self.user {
            // In the order of the index, of which the newest are taken.
            let newest = self.limit.filter(|_| self.is_of_user_alone());
            let newest = newest
                .map_or(String::new(), |n| format!(" ORDER BY first_seen DESC, incident DESC LIMIT {n}"));
            condition(
                &format!(" AND id IN (SELECT incident FROM tried WHERE user = ?{newest})"),
                user.clone().into(),
            );
        }
        if let Some(target) = &self.target {
            sql.push_str(&overlapping(connection, target)?);
        }
        match self.limit {
            Some(limit) => {
                write!(sql, " ORDER BY first_seen DESC, id DESC LIMIT {limit}")
            }
            None => write!(sql, " ORDER BY first_seen, id"),
        }
        // To write into a string cannot fail.
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok((sql, values))
    }

    /// Whether the user is the only condition.
    fn is_of_user_alone(&self) -> bool {
        let others = IncidentQuery { user: None, limit: None, ..self.clone() };
        others == IncidentQuery::default()
    }
}

/// The condition that an incident's target lies in `target`, or the other way round.
fn overlapping(connection: &Connection, target: &Target) -> rusqlite::Result<String> {
    // Each prefix that contains the target is looked up: 33 or 129 searches in the index, however many incidents there
    // are. They are numbers of ours, and no text of anybody's.
    let containing: Vec<String> = (0..=target.prefix_len())
        .map(|length| blob(&key(&Target::prefix(target.address(), length))))
        .collect();
    let containing = containing.join(", ");
    if target.is_exact() {
        return Ok(format!(" AND key IN ({containing})"));
    }
    let (first, last) = ends(target);
    let within = format!("key BETWEEN {} AND {}", blob(&first), blob(&last));
    let many: u32 = connection.query_row(
        &format!("SELECT count(*) FROM (SELECT 1 FROM incidents WHERE {within} LIMIT {MANY})"),
        [],
        |row| row.get(0),
    )?;
    Ok(if many < MANY {
        format!(" AND (key IN ({containing}) OR {within})")
    } else {
        let within = within.replace("key", "+key");
        format!(" AND (+key IN ({containing}) OR {within})")
    })
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
