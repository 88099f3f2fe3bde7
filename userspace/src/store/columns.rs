//! Columns of an incident on their way into the table and, as an object in JSON, into its record: the same ones into both,
//! so that what the table says can be checked against what the records say.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};
use serde::ser::{Serialize, SerializeMap, Serializer};
use xdpban_engine::change::Block;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::measure;

/// What a column is to hold.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Text(Cow<'a, str>),
    /// Kept as text, an array in JSON; an array in the record.
    Texts(Cow<'a, [Arc<str>]>),
    /// What the record does not have: it follows from others, or is of no use there.
    Unrecorded(rusqlite::types::Value),
}

/// Columns and what they are to hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns<'a>(pub(super) Vec<(Cow<'static, str>, Value<'a>)>);

impl<'a> Columns<'a> {
    /// Adds one.
    pub(super) fn set(&mut self, name: &'static str, value: impl Into<Value<'a>>) {
        self.0.push((name.into(), value.into()));
    }

    /// Adds what a block says that can change while it is in force, `at` being when it was decided.
    pub(super) fn set_block(&mut self, block: &'a Block, at: Wall) {
        self.set("rule_id", block.rule.as_ref().map(|rule| i64::from(rule.id.0)));
        self.set("rule_level", block.rule.as_ref().map(|rule| i64::from(rule.level)));
        self.set("rule_description", block.rule.as_ref().map(|rule| &*rule.description));
        self.set("reason", &*block.reason);
        self.set("origin", block.origin.name());
        self.set("offences", i64::from(block.offences));
        self.set("attempts", i64::from(block.attempts));
        self.set("users", &*block.users);
        self.set("evidence", &*block.evidence);
        self.set("measure", measure::to_json(&block.measure));
        self.set("timeout_us", block.expires.map(|expiry| micros(expiry.wall.since(at))));
        self.set("expires_at", block.expires.map(|expiry| expiry.wall.0));
    }

    /// Adds what the block's entry had counted when it came into force: what is dropped is counted from there.
    pub(super) fn set_read(&mut self, (packets, bytes): (u64, u64)) {
        self.set("read_packets", Value::Unrecorded(count(packets).into()));
        self.set("read_bytes", Value::Unrecorded(count(bytes).into()));
    }

    /// Adds the target.
    pub(super) fn set_target(&mut self, target: &Target) {
        self.set("target", target.to_string());
        self.set("key", Value::Unrecorded(key(target).into()));
    }

    /// The users that were tried, where they are among the columns.
    pub(super) fn users(&self) -> &[Arc<str>] {
        let users = self.0.iter().find(|(name, _)| name == "users");
        if let Some((_, Value::Texts(users))) = users { users } else { &[] }
    }

    /// Adds a row to `incidents`; returns its id.
    pub(super) fn insert(&self, connection: &Connection) -> rusqlite::Result<i64> {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
        let places: Vec<String> = (1..=names.len()).map(|place| format!("?{place}")).collect();
        let sql = format!("INSERT INTO incidents ({}) VALUES ({})", names.join(", "), places.join(", "));
        connection.prepare_cached(&sql)?.insert(params_from_iter(self.0.iter().map(|(_, value)| value)))
    }

    /// Changes the row `id` of `incidents`.
    pub(super) fn update(&self, connection: &Connection, id: i64) -> rusqlite::Result<()> {
        let places: Vec<String> =
            self.0.iter().zip(2..).map(|((name, _), place)| format!("{name} = ?{place}")).collect();
        let sql = format!("UPDATE incidents SET {} WHERE id = ?1", places.join(", "));
        let id: &dyn ToSql = &id;
        let values = self.0.iter().map(|(_, value)| value as &dyn ToSql);
        connection.prepare_cached(&sql)?.execute(params_from_iter(std::iter::once(id).chain(values)))?;
        Ok(())
    }

    /// The record's body.
    pub(super) fn body(&self) -> rusqlite::Result<String> {
        body(self)
    }
}

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.0 {
            match value {
                Value::Null => map.serialize_entry(name, &())?,
                Value::Integer(integer) => map.serialize_entry(name, integer)?,
                Value::Text(text) => map.serialize_entry(name, text)?,
                Value::Texts(texts) => map.serialize_entry(name, &Strings(texts))?,
                Value::Unrecorded(_) => {}
            }
        }
        map.end()
    }
}

struct Strings<'a>(&'a [Arc<str>]);

impl Serialize for Strings<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|text| &**text))
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Integer(integer) => ToSqlOutput::Borrowed(ValueRef::Integer(*integer)),
            Value::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            Value::Texts(texts) => ToSqlOutput::Owned(body(&Strings(texts))?.into()),
            Value::Unrecorded(value) => ToSqlOutput::Borrowed(value.into()),
        })
    }
}

impl From<i64> for Value<'_> {
    fn from(integer: i64) -> Self {
        Value::Integer(integer)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::Text(text.into())
    }
}

impl<'a> From<&'a [Arc<str>]> for Value<'a> {
    fn from(texts: &'a [Arc<str>]) -> Self {
        Value::Texts(texts.into())
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// `value` in JSON.
pub(super) fn body(value: &impl Serialize) -> rusqlite::Result<String> {
    // No map here has keys that are no strings, and no value fails to be written.
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// A count, at most the greatest that the table takes.
pub(super) fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A duration in microseconds.
pub(super) fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A target in an order in which those within a network stand together: 4 or 6, the address, the length of the prefix.
pub(super) fn key(target: &Target) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    match target.address() {
        std::net::IpAddr::V4(v4) => {
            key.push(4);
            key.extend(v4.octets());
        }
        std::net::IpAddr::V6(v6) => {
            key.push(6);
            key.extend(v6.octets());
        }
    }
    key.push(target.prefix_len());
    key
}

/// The target that a key stands for.
pub(super) fn target(key: &[u8]) -> Option<Target> {
    match key {
        [4, address @ .., length] => {
            let address: [u8; 4] = address.try_into().ok()?;
            Some(Target::prefix(address.into(), *length))
        }
        [6, address @ .., length] => {
            let address: [u8; 16] = address.try_into().ok()?;
            Some(Target::prefix(address.into(), *length))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_target() {
        for text in ["203.0.113.7", "203.0.113.0/24", "0.0.0.0/0", "2001:db8::/64", "::/0", "2001:db8::1"] {
            let written: Target = text.parse().unwrap();
            assert_eq!(target(&key(&written)), Some(written));
        }
        for odd in [&[][..], &[4], &[4, 1, 2, 3, 32], &[5, 1, 2, 3, 4, 32], &[6, 1, 2, 3, 4, 32]] {
            assert_eq!(target(odd), None, "{odd:?}");
        }
    }
}
