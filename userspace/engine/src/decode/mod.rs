//! From a record to what it means.

mod custom;
mod pattern;
mod peer;
mod sshd;

pub(crate) use self::custom::Found;
pub use self::custom::{Decoder, DecoderError, Decoders, GROUPS};
pub(crate) use self::peer::number;
#[cfg(test)]
pub(crate) use self::sshd::wordings;
use crate::event::Event;
use crate::record::Record;

/// What the built-in decoder makes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// It was understood.
    Event(Event<'a>),
    /// sshd said what looks like a failure, and no known form explains it. Carried are the words without what stands
    /// around every message (level, `[preauth]`): a new sshd must not blind the decoder silently.
    Unexplained(&'a [u8]),
    /// Another program's, or of no interest.
    Nothing,
}

/// What the built-in decoder makes of `record`. The program that wrote it is taken from its header alone.
pub fn understand<'a>(record: &Record<'a>) -> Decoded<'a> {
    if sshd::is_sshd(record.program) {
        sshd::decode(record.program, record.message)
    } else {
        Decoded::Nothing
    }
}

/// N and the message of `message repeated N times: [ … ]`, with which rsyslog and syslogd fold equal messages.
fn repeated(message: &[u8]) -> Option<(u32, &[u8])> {
    let rest = message.strip_prefix(b"message repeated ")?;
    let (digits, rest) = rest.split_at(rest.iter().position(|b| !b.is_ascii_digit())?);
    let inner = rest.strip_prefix(b" times: [")?.strip_suffix(b"]")?;
    Some((number(digits)?.max(1), inner))
}

/// The event that `record` tells of, none where it tells of none.
pub fn decode<'a>(record: &Record<'a>) -> Option<Event<'a>> {
    match understand(record) {
        Decoded::Event(event) => Some(event),
        Decoded::Unexplained(_) | Decoded::Nothing => None,
    }
}
