//! The header of a log line: what syslog daemons, the journal and containers write before a message.
//!
//! The header alone says which program wrote a line. A line whose header cannot be read is nobody's.

mod stamp;

use memchr::{memchr, memrchr};

use crate::decode::number;
use crate::record::{Format, Record};
use crate::time::{Now, Wall};

/// The program that the lines of a bare log are taken for.
const BARE_PROGRAM: &[u8] = b"sshd";

/// The programs whose tag may stand before a message in a bare log.
const BARE_TAGS: [&[u8]; 3] = [b"sshd", b"sshd-session", b"sshd-auth"];

impl<'a> Record<'a> {
    /// Reads `line`, without its line feed. Stamps that name no year or no zone are read as the latest that is not
    /// ahead of `now`, in `now`'s zone; whether a time is plausible is for the caller to judge.
    ///
    /// This never fails: where the header cannot be read the program is empty and the message is the line.
    pub fn parse(line: &'a [u8], format: Format, now: &Now) -> Record<'a> {
        match format {
            Format::Syslog => syslog(line, now),
            Format::Bare => bare(line, now),
        }
    }

    /// Reads `line` of a log that has no header and that `program` alone writes. A stamp at its beginning is the
    /// record's time and no part of the message.
    pub fn of_program(line: &'a [u8], program: &'a [u8], now: &Now) -> Record<'a> {
        let text = line.trim_ascii();
        let (time, message) = stamp(text, now).unwrap_or((None, text));
        Record { time, host: b"", program, pid: None, message: message.trim_ascii_start() }
    }
}

/// The time that a text stands for, in any of the forms that logs use; none where it is something else.
pub(crate) fn time(text: &[u8], now: &Now) -> Option<Wall> {
    let (time, rest) = stamp(text, now).or_else(|| stamp::common(text, now))?;
    time.filter(|_| rest.is_empty())
}

fn syslog<'a>(line: &'a [u8], now: &Now) -> Record<'a> {
    let text = without_priority(line.trim_ascii_start());
    if let Some(record) = rfc5424(text, now) {
        return record;
    }
    let Some((time, rest)) = stamp(text, now) else {
        return tagged(text, None).unwrap_or(nobodys(line, None));
    };
    // A container's runtime or a log daemon writes a stamp of its own before a line that has one.
    let (time, rest) = match without_container_prefix(rest).or_else(|| without_facility(rest)) {
        Some(inner) => stamp(inner, now).unwrap_or((time, inner)),
        None => (time, rest),
    };
    tagged(rest, time).unwrap_or(nobodys(rest, time))
}

/// A line that is sshd's message, as `sshd -E FILE` and `sshd -e` in a container write it.
fn bare<'a>(line: &'a [u8], now: &Now) -> Record<'a> {
    let text = line.trim_ascii();
    let (time, text) = stamp(text, now).unwrap_or((None, text));
    let text = without_container_prefix(text).unwrap_or(text).trim_ascii_start();
    let record = Record { time, host: b"", program: BARE_PROGRAM, pid: None, message: text };
    match tag(text) {
        Some((program, pid, message)) if BARE_TAGS.contains(&program) => {
            Record { program, pid, message, ..record }
        }
        _ => record,
    }
}

fn nobodys(message: &[u8], time: Option<Wall>) -> Record<'_> {
    Record { time, host: b"", program: b"", pid: None, message }
}

/// `<PRI>`, with which a line comes from the network or from `/dev/log`.
fn without_priority(text: &[u8]) -> &[u8] {
    let digits = text.iter().skip(1).take_while(|b| b.is_ascii_digit()).count();
    match text {
        [b'<', rest @ ..] if (1..=3).contains(&digits) => {
            rest.split_at(digits).1.strip_prefix(b">").unwrap_or(text)
        }
        _ => text,
    }
}

fn stamp<'a>(text: &'a [u8], now: &Now) -> Option<stamp::Stamped<'a>> {
    match text.first()? {
        b'0'..=b'9' => stamp::iso(text, now),
        b'A'..=b'Z' => stamp::traditional(text, now),
        // TAI64N of multilog: seconds that count leap seconds, of no use without their table.
        b'@' => {
            let (label, rest) = text.split_at_checked(26)?;
            let label = label.strip_prefix(b"@4")?.strip_suffix(b" ")?;
            label.iter().all(u8::is_ascii_hexdigit).then_some((None, rest))
        }
        _ => None,
    }
}

/// `stdout F ` or `stderr P `: the container runtime interface of Kubernetes.
fn without_container_prefix(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(b"stdout ").or_else(|| text.strip_prefix(b"stderr "))?;
    rest.strip_prefix(b"F ").or_else(|| rest.strip_prefix(b"P "))
}

/// `auth.info: `, of socklog, before the tag or before another stamp.
fn without_facility(text: &[u8]) -> Option<&[u8]> {
    let (token, rest) = word(text);
    is_facility(token.strip_suffix(b":")?).then_some(rest)
}

/// `auth.info` or `<auth.info>`, with which BSD's and busybox's syslogd name facility and level.
fn is_facility(token: &[u8]) -> bool {
    const FACILITIES: [&[u8]; 10] = [
        b"auth",
        b"authpriv",
        b"cron",
        b"daemon",
        b"kern",
        b"local",
        b"security",
        b"syslog",
        b"uucp",
        b"user",
    ];
    const LEVELS: [&[u8]; 11] = [
        b"emerg", b"panic", b"alert", b"crit", b"err", b"error", b"warning", b"warn", b"notice", b"info",
        b"debug",
    ];
    let token = token.strip_prefix(b"<").and_then(|token| token.strip_suffix(b">")).unwrap_or(token);
    let Some(dot) = memchr(b'.', token) else { return false };
    let (facility, level) = token.split_at(dot);
    let facility = match facility {
        [local @ .., b'0'..=b'7'] => local,
        _ => facility,
    };
    FACILITIES.contains(&facility) && level.strip_prefix(b".").is_some_and(|level| LEVELS.contains(&level))
}

/// The first word of `text`, and what stands after the spaces that end it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let (word, rest) = text.split_at(memchr(b' ', text).unwrap_or(text.len()));
    (word, rest.trim_ascii_start())
}

/// `[HOST ][FACILITY ]PROGRAM[PID]: MESSAGE`.
fn tagged(text: &[u8], time: Option<Wall>) -> Option<Record<'_>> {
    let record = |host, (program, pid, message)| Record { time, host, program, pid, message };
    let text = text.trim_ascii_start();
    if let Some(tag) = tag(text) {
        return Some(record(&b""[..], tag));
    }
    let (first, rest) = word(text);
    if is_facility(first) {
        return Some(record(b"", tag(rest)?));
    }
    if let Some(tag) = tag(rest) {
        return Some(record(first, tag));
    }
    let (facility, rest) = word(rest);
    if is_facility(facility) { Some(record(first, tag(rest)?)) } else { None }
}

/// `PROGRAM[PID]: `, `PROGRAM: ` or `[PROGRAM]: ` and the message.
fn tag(text: &[u8]) -> Option<(&[u8], Option<u32>, &[u8])> {
    let (token, message) = text.split_at(memchr(b' ', text).unwrap_or(text.len()));
    let token = token.strip_suffix(b":")?;
    let (program, pid) = match token.strip_suffix(b"]") {
        None => (token, None),
        Some(token) => {
            let (program, pid) = token.split_at(memrchr(b'[', token)?);
            match (program, pid.strip_prefix(b"[")?) {
                (b"", program) => (program, None),
                (program, pid) => (program, Some(number(pid)?)),
            }
        }
    };
    let message = message.strip_prefix(b" ").unwrap_or(message);
    (!program.is_empty()).then(|| (program, pid, without_kernel_notes(message)))
}

/// Some systems write notes between tag and message: Solaris `[ID 800047 auth.info] `, and a kernel's log that relays
/// others `kernel:[  970.699396]: `. None of sshd's own messages begins like them.
fn without_kernel_notes(message: &[u8]) -> &[u8] {
    let note = match message {
        [b'[', b'I', b'D', b' ', rest @ ..] => rest,
        [b'k', ..] => match message.strip_prefix(b"kernel:") {
            Some(rest) => match rest.trim_ascii_start().strip_prefix(b"[") {
                Some(rest) => rest,
                None => return message,
            },
            None => return message,
        },
        _ => return message,
    };
    let Some(end) = memchr(b']', note) else { return message };
    let rest = note.split_at(end + 1).1;
    rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start()
}

/// `1 TIME HOST PROGRAM PROCID MSGID STRUCTURED-DATA MESSAGE`; a field without a value is `-`.
fn rfc5424<'a>(text: &'a [u8], now: &Now) -> Option<Record<'a>> {
    let rest = text.strip_prefix(b"1 ")?;
    let (time, rest) = match rest.strip_prefix(b"- ") {
        Some(rest) => (None, rest),
        None => stamp::iso(rest, now)?,
    };
    let (host, rest) = field(rest)?;
    let (program, rest) = field(rest)?;
    let (pid, rest) = field(rest)?;
    let (_message_id, rest) = field(rest)?;
    let message = structured_data(rest)?;
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    Some(Record { time, host, program, pid: number(pid), message })
}

fn field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (field, rest) = text.split_at(memchr(b' ', text)?);
    Some((if field == b"-" { b"" } else { field }, rest.strip_prefix(b" ")?))
}

/// What stands after `-` or `[id name="value" …][…]`, in whose values `\"`, `\\` and `\]` stand for themselves.
fn structured_data(text: &[u8]) -> Option<&[u8]> {
    let mut rest = match text {
        [b'-', rest @ ..] => rest,
        [b'[', ..] => text,
        _ => return None,
    };
    while let [b'[', element @ ..] = rest {
        rest = after_element(element)?;
    }
    match rest {
        [] => Some(rest),
        [b' ', message @ ..] => Some(message),
        _ => None,
    }
}

fn after_element(element: &[u8]) -> Option<&[u8]> {
    let mut quoted = false;
    let mut bytes = element.iter().enumerate();
    while let Some((at, &b)) = bytes.next() {
        match b {
            b'\\' if quoted => {
                bytes.next()?;
            }
            b'"' => quoted = !quoted,
            b']' if !quoted => return element.get(at + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests;
