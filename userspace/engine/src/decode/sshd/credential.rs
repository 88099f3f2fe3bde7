//! auth.c's line about a credential: `Failed METHOD for USER from ADDRESS port N ssh2: KEY`.
//!
//! A client chooses the user name (without a colon), and with a certificate or a host-based login also parts of KEY.

use memchr::{memchr, memmem};

use super::{blank, borrowed};
use crate::decode::pattern::account;
use crate::decode::peer::{Peer, peer_at_end};
use crate::event::{Event, EventKind, Trace};

struct Credential<'a> {
    method: &'a [u8],
    user: &'a [u8],
    invalid_user: bool,
    peer: Peer,
}

/// `Failed …`
pub(super) fn failed(text: &[u8]) -> Option<Event<'_>> {
    let credential = read(text)?;
    let kind = match credential.method {
        b"password" => EventKind::FailedPassword,
        b"none" => EventKind::FailedNone,
        b"publickey" => EventKind::FailedPublickey,
        b"hostbased" => EventKind::FailedHostbased,
        method if method.starts_with(b"keyboard-interactive") => EventKind::FailedKeyboardInteractive,
        _ => EventKind::FailedOther,
    };
    // An honest client offers its keys one after the other.
    let attack = kind != EventKind::FailedPublickey || credential.invalid_user;
    let trace = if attack { Trace::Failed } else { Trace::None };
    Some(Event { attack, trace, ..event(kind, credential) })
}

/// `Accepted …`
pub(super) fn accepted(text: &[u8]) -> Option<Event<'_>> {
    Some(event(EventKind::Accepted, read(text)?))
}

/// `Postponed …`: the dialogue goes on.
pub(super) fn postponed(text: &[u8]) -> Option<Event<'_>> {
    let credential = read(text)?;
    let interactive = credential.method.starts_with(b"keyboard-interactive");
    let kind = if interactive { EventKind::PostponedKeyboardInteractive } else { EventKind::Other };
    Some(event(kind, credential))
}

/// `Partial …`: one of several methods is done.
pub(super) fn partial(text: &[u8]) -> Option<Event<'_>> {
    Some(event(EventKind::Other, read(text)?))
}

fn event<'a>(kind: EventKind, credential: Credential<'a>) -> Event<'a> {
    let Credential { method, user, invalid_user, peer: Peer { source, port } } = credential;
    Event { source, port, user: borrowed(Some(user)), invalid_user, detail: method, ..blank(kind) }
}

fn read(text: &[u8]) -> Option<Credential<'_>> {
    // The method is one word: monitor.c has its own for each, and a client's does not get this far.
    let (method, rest) = text.split_at(memchr(b' ', text).filter(|&at| at > 0)?);
    let rest = rest.strip_prefix(b" for ")?;
    let from_end = head(without_key(rest));
    let (user, mut peer) = match (from_end, before_key(method, rest, from_end.is_some())) {
        (Some(reading), None) | (None, Some(reading)) => reading,
        // log.c cuts a message at 1023 bytes, so the id of a certificate can be made to end where a message would. One
        // of the two addresses is the client's invention.
        (Some(reading), Some(other)) if reading != other => (other.0, Peer::default()),
        (Some(reading), Some(_)) => reading,
        (None, None) => return None,
    };
    if peer.source.is_none() {
        peer.port = None;
    }
    let (user, invalid_user) = account(user);
    Some(Credential { method, user: user?, invalid_user, peer })
}

/// `USER from ADDRESS port N ssh2`, to the end.
fn head(text: &[u8]) -> Option<(&[u8], Peer)> {
    let text = text
        .strip_suffix(b" ssh2")
        .or_else(|| text.strip_suffix(b" ssh1"))
        .or_else(|| text.strip_suffix(b" ssh"))
        .unwrap_or(text);
    let (before, peer) = peer_at_end(text)?;
    Some((before.strip_suffix(b" from ")?, peer))
}

/// `text` without `: TYPE FINGERPRINT` at its end, neither of which a client can choose freely.
fn without_key(text: &[u8]) -> &[u8] {
    let mut words = text.rsplitn(3, |&b| b == b' ');
    let (Some(_fingerprint), Some(_kind), Some(head)) = (words.next(), words.next(), words.next()) else {
        return text;
    };
    match head.strip_suffix(b":") {
        Some(head) if head.ends_with(b" ssh2") || head.ends_with(b" ssh1") => head,
        _ => text,
    }
}

/// What stands before a key that a client wrote parts of: `: TYPE FINGERPRINT ID …`, `…, client user …`, or the name of a
/// Kerberos principal. The words ` ssh2:` before it are the first, because a user name has no colon. With `strict` the
/// key must look like one.
fn before_key<'a>(method: &[u8], text: &'a [u8], strict: bool) -> Option<(&'a [u8], Peer)> {
    if !matches!(method, b"publickey" | b"hostbased") && !method.starts_with(b"gssapi") {
        return None;
    }
    let (before, key) = text.split_at(memmem::find(text, b" ssh2: ")?);
    let mut words = key.strip_prefix(b" ssh2: ")?.splitn(4, |&b| b == b' ').skip(1);
    let chosen = match (words.next(), words.next()) {
        (Some(fingerprint), Some(next)) => next == b"ID" || fingerprint.ends_with(b","),
        _ => false,
    };
    (chosen || !strict).then(|| head(before)).flatten()
}
