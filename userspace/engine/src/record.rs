//! What a log record says of itself, whatever form it came in.

use crate::time::Wall;

/// One record of a log: the header's fields, and the message that the program wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The record's own timestamp, where it has one that can be read.
    pub time: Option<Wall>,
    /// The host that the record names, empty where it names none.
    pub host: &'a [u8],
    /// The program, from the syslog tag or the journal's identifier alone, never from the message.
    pub program: &'a [u8],
    /// The process.
    pub pid: Option<u32>,
    /// What the program wrote. Hostile: a client chose parts of it.
    pub message: &'a [u8],
}

/// How the lines of a source begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A syslog header: RFC 3164, RFC 5424 or an ISO 8601 timestamp.
    #[default]
    Syslog,
    /// No header: each line is a message of sshd, as with `sshd -E`.
    Bare,
}
