//! Whether incidents are what their records say of them.

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Row, Rows, Statement};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::columns;

/// Columns that change between the records of an incident in force.
const COUNTS: [&str; 4] = ["dropped_packets", "dropped_bytes", "first_drop_at", "last_drop_at"];

/// A column that records tell of where it is not 0.
const OTHERWISE_0: &str = "dry_run";

/// The records of incidents, those of each together, in the order of the incidents' numbers.
pub(super) struct Histories<'s> {
    rows: Rows<'s>,
    /// The incident whose records are next.
    incident: Option<i64>,
}

impl<'s> Histories<'s> {
    /// Of rows of `incident`, `kind` and `body`.
    pub(super) fn new(rows: Rows<'s>) -> rusqlite::Result<Histories<'s>> {
        let mut histories = Histories { rows, incident: None };
        histories.advance()?;
        Ok(histories)
    }

    /// The incident whose records are next.
    pub(super) fn incident(&self) -> Option<i64> {
        self.incident
    }

    /// Lets `table` hear all its records.
    pub(super) fn tell(&mut self, table: &mut Table) -> rusqlite::Result<()> {
        table.forget();
        let incident = self.incident;
        while self.incident == incident
            && let Some(row) = self.rows.get()
        {
            if row.get_ref(1)?.as_str()?.starts_with("incident.") {
                table.hear(row.get_ref(2)?.as_str()?);
            }
            self.advance()?;
        }
        Ok(())
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        self.rows.advance()?;
        self.incident = self.rows.get().map(|row| row.get(0)).transpose()?;
        Ok(())
    }
}

/// The columns of the table of incidents, and what the records of one say that they hold.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    key: Option<usize>,
    target: Option<usize>,
    outcome: Option<usize>,
    /// What is wrong with the records themselves.
    unreadable: Option<String>,
}

#[derive(Debug)]
struct Column {
    name: String,
    /// What the latest record that sets it has, in JSON; empty where none does.
    said: String,
    /// Whether it is one of [`COUNTS`].
    is_count: bool,
}

impl Table {
    /// The columns of `statement`, which reads all of them.
    pub(super) fn of(statement: &Statement<'_>) -> Table {
        let names: Vec<&str> = statement.column_names().collect();
        let place = |name| names.iter().position(|column| *column == name);
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            said: String::new(),
            is_count: COUNTS.contains(name),
        };
        Table {
            key: place("key"),
            target: place("target"),
            outcome: place("outcome"),
            columns: names.iter().map(column).collect(),
            unreadable: None,
        }
    }

    fn forget(&mut self) {
        for Column { name, said, .. } in &mut self.columns {
            said.clear();
            if name == OTHERWISE_0 {
                said.push('0');
            }
        }
        self.unreadable = None;
    }

    /// Takes in what the body of a record sets.
    fn hear(&mut self, body: &str) {
        let mut read = serde_json::Deserializer::from_str(body);
        if let Err(error) = (Hearer { columns: &mut self.columns, place: 0 }).deserialize(&mut read) {
            self.unreadable.get_or_insert_with(|| format!("a record of it cannot be read: {error}"));
        }
    }

    /// Says in which columns a row is not what its records say.
    pub(super) fn compare(&self, row: &Row<'_>) -> Result<(), String> {
        if let Some(unreadable) = &self.unreadable {
            return Err(unreadable.clone());
        }
        let said = |place: Option<usize>| {
            place.and_then(|place| self.columns.get(place)).map(|column| &*column.said)
        };
        let in_force = said(self.outcome) == Some("\"in_force\"");
        let mut otherwise = Vec::new();
        for (place, Column { name, said, is_count }) in self.columns.iter().enumerate() {
            if said.is_empty() || in_force && *is_count {
                continue;
            }
            if !row.get_ref(place).is_ok_and(|stands| is_same(stands, said)) {
                otherwise.push(format!("{name} {said}"));
            }
        }
        if !self.key_is_of_target(row) {
            otherwise.push("the key of the target".to_owned());
        }
        if otherwise.is_empty() {
            return Ok(());
        }
        // Either may be what was altered: the hashes tell of records alone.
        Err(format!("it is not what its records say, which have {}", otherwise.join(", ")))
    }

    fn key_is_of_target(&self, row: &Row<'_>) -> bool {
        let stands = |place: Option<usize>| place.and_then(|place| row.get_ref(place).ok());
        let (Some(ValueRef::Blob(key)), Some(ValueRef::Text(target))) =
            (stands(self.key), stands(self.target))
        else {
            return false;
        };
        columns::target(key).is_some_and(|of_key| of_key.to_string().as_bytes() == target)
    }
}

/// Takes the fields of an object in JSON into columns, each as it is written.
struct Hearer<'t> {
    columns: &'t mut [Column],
    /// Where to look first: the next field is often the one behind the last.
    place: usize,
}

impl<'de> DeserializeSeed<'de> for Hearer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Hearer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with columns of an incident")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, said)) = map.next_entry::<&str, &RawValue>()? {
            let (before, behind) = self.columns.split_at_mut(self.place);
            let places = (self.place..).zip(behind).chain((0..).zip(before));
            let Some((place, column)) = { places }.find(|(_, column)| column.name == name) else {
                return Err(A::Error::custom(format!("no column is called `{name}`")));
            };
            column.said.clear();
            column.said.push_str(said.get());
            self.place = place;
        }
        Ok(())
    }
}

/// Whether a column holds what a record says in JSON.
fn is_same(stands: ValueRef<'_>, said: &str) -> bool {
    match stands {
        ValueRef::Null => said == "null",
        ValueRef::Integer(stands) => said.parse() == Ok(stands),
        // Written by the same hand, an array is the same text in both.
        ValueRef::Text(stands) if said.starts_with('[') => stands == said.as_bytes(),
        ValueRef::Text(stands) => match said.strip_prefix('"').and_then(|said| said.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => stands == plain.as_bytes(),
            _ => serde_json::from_str::<Value>(said)
                .is_ok_and(|said| said.as_str().map(str::as_bytes) == Some(stands)),
        },
        ValueRef::Real(_) | ValueRef::Blob(_) => false,
    }
}
