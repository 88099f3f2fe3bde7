//! The log of what happened, in which each record is bound to the one before it by a hash.
//!
//! The hash of a record is SHA-256 over the hash of the record before it (32 zero bytes for the very first), then its
//! `seq` and its `at` as 64-bit integers, then one byte 0, or one byte 1 and `incident` as a 64-bit integer, then the
//! length of `kind` in bytes as a 32-bit integer, `kind`, and `body`. Integers are big-endian, texts UTF-8.
//!
//! The chain shows that records were altered, removed or reordered after they were written, by whoever did not also make
//! all later hashes anew. Against one who does, a hash that was kept outside of the file helps: see [`Head`].

use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use xdpban_engine::time::Wall;

/// A hash.
pub(super) type Hash = [u8; 32];

/// The latest record: its number and hash, which vouch for all records before it. Written `SEQ:HASH`, in decimal and
/// hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The number of the record; 0 where there is none.
    pub seq: i64,
    /// Its hash.
    pub hash: Hash,
}

/// Why a text is not a [`Head`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a head is written SEQ:HASH, such as 1204:9f86d0…, with 64 hexadecimal digits")]
pub struct HeadError;

/// A record, as far as it goes into its hash.
pub(super) struct Link<'a> {
    pub(super) seq: i64,
    pub(super) at: Wall,
    pub(super) kind: &'a str,
    pub(super) incident: Option<i64>,
    pub(super) body: &'a str,
}

impl Link<'_> {
    /// Its hash, when it follows a record with the hash `previous`.
    pub(super) fn hash(&self, previous: &Hash) -> Hash {
        let mut digest = Sha256::new();
        digest.update(previous);
        digest.update(self.seq.to_be_bytes());
        digest.update(self.at.0.to_be_bytes());
        match self.incident {
            None => digest.update([0]),
            Some(incident) => {
                digest.update([1]);
                digest.update(incident.to_be_bytes());
            }
        }
        // Kinds are names of a few letters.
        digest.update(u32::try_from(self.kind.len()).unwrap_or(u32::MAX).to_be_bytes());
        digest.update(self.kind);
        digest.update(self.body);
        digest.finalize().into()
    }
}

/// The tables within a transaction, and the end of the chain that it makes longer.
pub(super) struct Ledger<'c> {
    pub(super) connection: &'c Connection,
    pub(super) head: Head,
}

impl Ledger<'_> {
    /// Adds a record.
    pub(super) fn append(
        &mut self,
        at: Wall,
        kind: &str,
        incident: Option<i64>,
        body: &str,
    ) -> rusqlite::Result<()> {
        let seq = self.head.seq + 1;
        let hash = Link { seq, at, kind, incident, body }.hash(&self.head.hash);
        self.connection
            .prepare_cached(
                "INSERT INTO records (seq, at, kind, incident, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![seq, at.0, kind, incident, body, hash])?;
        self.head = Head { seq, hash };
        Ok(())
    }
}

impl Head {
    /// Its hash in hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.hash)
    }

    /// The end of the chain in the file.
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Head> {
        let latest = "SELECT seq, hash FROM records ORDER BY seq DESC LIMIT 1";
        let head = connection
            .query_row(latest, [], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }))
            .optional()?;
        Ok(head.unwrap_or_default())
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hex(&self.hash))
    }
}

impl FromStr for Head {
    type Err = HeadError;

    fn from_str(text: &str) -> Result<Head, HeadError> {
        let (seq, hash) = text.trim().split_once(':').ok_or(HeadError)?;
        let seq = seq.parse().ok().filter(|seq| *seq >= 0).ok_or(HeadError)?;
        Ok(Head { seq, hash: unhex(hash).ok_or(HeadError)? })
    }
}

/// A hash in hexadecimal.
pub(super) fn hex(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash that a text in hexadecimal stands for.
pub(super) fn unhex(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let head = Head { seq: 1204, hash: std::array::from_fn(|index| u8::try_from(index * 8).unwrap()) };
        assert_eq!(head.to_string().parse(), Ok(head));
        for text in ["", "12", "12:", "-1:00", "x:00", &format!("1:{}", "g".repeat(64)), &"é".repeat(40)] {
            assert_eq!(text.parse::<Head>(), Err(HeadError), "{text}");
        }
    }

    /// As computed by sha256sum(1) from the bytes that the module's text tells of.
    #[test]
    fn the_hash_is_what_the_text_above_says() {
        let link = Link { seq: 2, at: Wall(3), kind: "k", incident: Some(4), body: "{}" };
        let mut bytes = vec![0xff; 32];
        for part in [
            &2_i64.to_be_bytes()[..],
            &3_i64.to_be_bytes(),
            &[1],
            &4_i64.to_be_bytes(),
            &[0, 0, 0, 1],
            b"k{}",
        ] {
            bytes.extend_from_slice(part);
        }
        assert_eq!(link.hash(&[0xff; 32]), <Hash>::from(Sha256::digest(&bytes)));
        assert_eq!(
            hex(&link.hash(&[0xff; 32])),
            "355b0ea472a31fccd3f97401f14a35f79da8504e1ce002cd856243015c7099e9"
        );
    }
}
