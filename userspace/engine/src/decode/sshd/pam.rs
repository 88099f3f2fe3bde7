//! What PAM says: sshd's own words about it (auth-pam.c), and those of PAM's modules, which log under sshd's name.

use std::net::IpAddr;

use memchr::memmem;

use super::{blank, borrowed};
use crate::decode::pattern::account;
use crate::decode::peer;
use crate::event::{Event, EventKind, Trace};

/// The modules whose messages say nothing about a source.
const OTHERS: [&[u8]; 8] =
    [b"env", b"faillock", b"limits", b"loginuid", b"motd", b"succeed_if", b"systemd", b"tally2"];

/// The beginnings of what pam_unix and pam_sss say beside their telling of a failure.
const ASIDES: [&[u8]; 5] = [
    b"check pass; ",
    b"bad username [",
    b"could not identify user",
    b"auth could not identify password",
    b"received for user ",
];

/// `PAM: WHAT for [illegal user ]USER from HOST`, on macOS with ` via ADDRESS` after it.
pub(super) fn said(text: &[u8]) -> Option<Event<'_>> {
    let Some(at) = memmem::find(text, b" for ") else { return plain(text) };
    let (what, rest) = text.split_at(at);
    let rest = rest.strip_prefix(b" for ")?;
    let Some((user, source)) = user_and_host(rest) else { return plain(text) };
    let (user, invalid_user) = account(user);
    let event = Event { source, user: borrowed(user), invalid_user, ..blank(EventKind::Other) };
    let attack = |kind| Event { kind, attack: true, trace: Trace::PamSaid, ..event.clone() };
    Some(match what {
        _ if is(what, b"Authentication failure") => attack(EventKind::PamAuthError),
        _ if is(what, b"Authentication error") => attack(EventKind::PamAuthError),
        _ if is(what, b"Authentication failed") => attack(EventKind::PamAuthError),
        _ if is(what, b"Permission denied") => attack(EventKind::PamAuthError),
        _ if is(what, b"Have exhausted maximum number of retries") => attack(EventKind::PamAuthError),
        _ if is(what, b"User not known to the underlying") => attack(EventKind::PamUnknownUser),
        _ => match plain(what) {
            Some(plain) => Event { kind: plain.kind, ..event },
            None => event,
        },
    })
}

/// The messages of auth-pam.c that name no source.
fn plain(text: &[u8]) -> Option<Event<'_>> {
    let kind = if memmem::find(text, b"Module is unknown").is_some() {
        EventKind::PamUnknownModule
    } else if memmem::find(text, b"Authentication service cannot retrieve").is_some() {
        EventKind::PamNoCredentials
    } else {
        return None;
    };
    Some(blank(kind))
}

fn user_and_host(text: &[u8]) -> Option<(&[u8], Option<IpAddr>)> {
    let (before, source) = peer::host_at_end(text)?;
    if let Some(user) = before.strip_suffix(b" from ") {
        return Some((user, source));
    }
    // The address after `via` is the host's own.
    let (before, source) = peer::host_at_end(before.strip_suffix(b" via ")?)?;
    Some((before.strip_suffix(b" from ")?, source))
}

/// `PAM N more authentication failure(s); FIELDS`, of Linux-PAM's pam_unix: those that it did not log in full.
pub(super) fn more(text: &[u8]) -> Option<Event<'_>> {
    let end = text.iter().position(|b| !b.is_ascii_digit())?;
    let (digits, rest) = text.split_at(end);
    let rest = rest.strip_prefix(b" more authentication failure")?;
    let failures = peer::number(digits)?;
    let event = fields(rest.strip_prefix(b"s").unwrap_or(rest).strip_prefix(b"; ")?);
    Some(Event { kind: EventKind::PamMoreFailures, attack: true, trace: Trace::Pam(failures), ..event })
}

/// `pam_NAME(sshd:auth): MESSAGE`, or without the parentheses; `text` begins after `pam_`.
pub(super) fn module(text: &[u8]) -> Option<Event<'_>> {
    let end = text.iter().position(|&b| b == b'(' || b == b':')?;
    let (name, rest) = text.split_at(end);
    let rest = match rest.strip_prefix(b"(") {
        Some(rest) => rest.split_at(memmem::find(rest, b"):")?).1.strip_prefix(b")")?,
        None => rest,
    };
    message(name, rest.strip_prefix(b":")?.trim_ascii_start())
}

/// What the module `name` says.
pub(super) fn message<'a>(name: &[u8], text: &'a [u8]) -> Option<Event<'a>> {
    if is(text, b"authentication failure; ") {
        let event = fields(text.split_at("authentication failure; ".len()).1);
        let trace = if name == b"unix" { Trace::Pam(1) } else { Trace::PamSaid };
        return Some(Event { kind: EventKind::PamAuthFailure, attack: true, trace, ..event });
    }
    if let Some(user) = text.strip_prefix(b"session opened for user ") {
        let user = user.split_at(memmem::rfind(user, b" by ").unwrap_or(user.len())).0;
        let user = user.split_at(memmem::find(user, b"(uid=").unwrap_or(user.len())).0;
        return Some(Event { user: borrowed(Some(user)), ..blank(EventKind::SessionOpened) });
    }
    if let Some(user) = text.strip_prefix(b"session closed for user ") {
        return Some(Event { user: borrowed(Some(user)), ..blank(EventKind::SessionClosed) });
    }
    if memmem::find(text, b"(Invalid credentials)").is_some() {
        return Some(blank(EventKind::LdapCredentials));
    }
    // What goes with a failure that pam_unix or sshd tells of, without its source.
    if OTHERS.contains(&name) || ASIDES.iter().any(|aside| text.starts_with(aside)) {
        return Some(blank(EventKind::Other));
    }
    plain(text)
}

/// `logname= uid=0 euid=0 tty=ssh ruser= rhost=HOST  user=USER`. A client chooses the user alone, which comes last and
/// is left out where there is no such user.
fn fields(text: &[u8]) -> Event<'_> {
    let mut event = blank(EventKind::Other);
    let (head, user) = match (text.strip_prefix(b"user="), memmem::find(text, b" user=")) {
        (Some(user), _) => (&b""[..], user),
        (None, Some(at)) => (text.split_at(at).0, text.split_at(at + " user=".len()).1),
        (None, None) => (text, &b""[..]),
    };
    event.user = borrowed(Some(user).filter(|user| !user.is_empty()));
    // A second `rhost=` before the user would be somebody's invention.
    if let Some(at) = memmem::find(head, b" rhost=") {
        let host = head.split_at(at + " rhost=".len()).1;
        if memmem::find(host, b" rhost=").is_some() {
            return event;
        }
        let end = host.iter().position(|&b| b == b' ').unwrap_or(host.len());
        event.source = peer::address(host.split_at(end).0);
    }
    event
}

/// Whether `text` begins with `words`, in capitals or not: PAM's implementations differ in that.
fn is(text: &[u8], words: &[u8]) -> bool {
    text.get(..words.len()).is_some_and(|start| start.eq_ignore_ascii_case(words))
}
