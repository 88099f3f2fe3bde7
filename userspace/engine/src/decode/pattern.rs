//! The wording of a message with holes in it, and the matcher that keeps a client's text from moving the rest.
//!
//! A pattern is written as sshd words the message: `Invalid user {user} from {peer}`. It has at most one hole that a
//! client can fill with what it likes and that more of the message follows. What stands before that hole is matched
//! from the left, what stands after it from the right, both to the very ends of the message: whatever the client wrote,
//! even a whole imitated message, it is in the hole and the address is where sshd wrote it.
//!
//! | hole | what it takes |
//! |---|---|
//! | `{user}` | a user name, anything |
//! | `{account}` | a user name, after `invalid user ` or `illegal user ` where it does not exist |
//! | `{remote}` | `ADDRESS port N`, with `authenticating user NAME `, `invalid user NAME ` or `user NAME ` before it |
//! | `{text}` | other text that a client can choose |
//! | `{peer}` | `ADDRESS port N` or `ADDRESS` |
//! | `{host}` | an address, or a host name, which is no source |
//! | `{net}` | `ADDRESS/BITS` |
//! | `{port}`, `{n}` | a number |
//! | `{detail}` | words of sshd's own, kept as the event's detail; at an end, or up to the words that follow |
//! | `{own}` | the same, not kept |
//!
//! Where a client's text ends a message that also names a user (`Disconnecting {remote}: Change of … {text}`), the words
//! between the two begin with a colon and are looked for from the left: sshd's auth2.c cuts a user name at the first
//! colon, so that these words cannot be in the name.

use std::net::IpAddr;

use memchr::memmem;

use super::peer;

/// The parts that a pattern has at most.
const PARTS: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The end of the parts.
    End,
    Words(&'static [u8]),
    User,
    Account,
    Remote,
    Text,
    Peer,
    Host,
    Net,
    Port,
    Number,
    Detail,
    Own,
}

impl Part {
    /// Whether a client can fill the hole with what it likes.
    const fn is_free(self) -> bool {
        matches!(self, Part::User | Part::Account | Part::Remote | Part::Text)
    }
}

/// The wording of a message, taken apart when the program is compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    parts: [Part; PARTS],
    len: usize,
}

/// Where in its life a connection was when sshd wrote the message, as far as the message shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Unsaid,
    BeforeLogin,
    AfterLogin,
}

/// What the holes of a pattern took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holes<'a> {
    pub(crate) source: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<&'a [u8]>,
    pub(crate) invalid_user: bool,
    pub(crate) phase: Phase,
    pub(crate) number: u32,
    pub(crate) detail: &'a [u8],
    pub(crate) text: &'a [u8],
}

impl Pattern {
    /// Takes `text` apart. A mistake in it is an error of the compiler, as patterns stand in constants.
    pub(crate) const fn new(text: &'static str) -> Pattern {
        let mut parts = [Part::End; PARTS];
        let mut len = 0;
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            assert!(len < PARTS, "the pattern has too many parts");
            let hole = rest[0] == b'{';
            let mut end = 0;
            while end < rest.len() && (if hole { rest[end] != b'}' } else { rest[end] != b'{' }) {
                end += 1;
            }
            if hole {
                assert!(end < rest.len(), "the pattern has a hole without an end");
                parts[len] = part(rest.split_at(end).0.split_at(1).1);
                rest = rest.split_at(end + 1).1;
            } else {
                parts[len] = Part::Words(rest.split_at(end).0);
                rest = rest.split_at(end).1;
            }
            len += 1;
        }
        check(&parts, len);
        Pattern { parts, len }
    }

    /// The byte with which every message of this form begins.
    pub(crate) const fn first(&self) -> u8 {
        match self.parts[0] {
            Part::Words(words) => words[0],
            _ => 0,
        }
    }

    /// Whether it has a place for the source, by address or name.
    pub(crate) fn names_the_source(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Peer | Part::Host | Part::Net | Part::Remote))
    }

    /// What the holes take where `message` has this wording, all of it.
    pub(crate) fn read<'a>(&self, message: &'a [u8]) -> Option<Holes<'a>> {
        let parts = self.parts.get(..self.len)?;
        let mut holes = Holes::default();
        from_left(parts, message, &mut holes).then_some(holes)
    }
}

#[cfg(test)]
impl Pattern {
    /// The pattern as it was written.
    pub(crate) fn wording(&self) -> String {
        let written = self.parts.iter().map(|part| match part {
            Part::End => "",
            Part::Words(words) => str::from_utf8(words).unwrap(),
            Part::User => "{user}",
            Part::Account => "{account}",
            Part::Remote => "{remote}",
            Part::Text => "{text}",
            Part::Peer => "{peer}",
            Part::Host => "{host}",
            Part::Net => "{net}",
            Part::Port => "{port}",
            Part::Number => "{n}",
            Part::Detail => "{detail}",
            Part::Own => "{own}",
        });
        written.collect()
    }

    /// A message of this form.
    pub(crate) fn example(&self) -> String {
        let filled = self.parts.iter().map(|part| match part {
            Part::End => "",
            Part::Words(words) => str::from_utf8(words).unwrap(),
            Part::Remote | Part::Peer => "192.0.2.1 port 22",
            Part::Host => "192.0.2.1",
            Part::Net => "192.0.2.1/32",
            Part::Port | Part::Number => "22",
            Part::User | Part::Account | Part::Text | Part::Detail | Part::Own => "x",
        });
        filled.collect()
    }
}

const fn part(name: &[u8]) -> Part {
    match name {
        b"user" => Part::User,
        b"account" => Part::Account,
        b"remote" => Part::Remote,
        b"text" => Part::Text,
        b"peer" => Part::Peer,
        b"host" => Part::Host,
        b"net" => Part::Net,
        b"port" => Part::Port,
        b"n" => Part::Number,
        b"detail" => Part::Detail,
        _ => {
            assert!(matches!(name, b"own"), "the pattern has a hole of an unknown name");
            Part::Own
        }
    }
}

/// Holds the patterns to the rule of this module.
const fn check(parts: &[Part; PARTS], len: usize) {
    assert!(matches!(parts[0], Part::Words(_)), "a pattern begins with words");
    let mut free = None;
    let mut i = 0;
    while i < len {
        if parts[i].is_free() {
            match free {
                None => free = Some(i),
                Some(first) => {
                    assert!(matches!(parts[first], Part::Remote), "two holes for a client's text");
                    assert!(i == len - 1, "what follows a client's second text could be moved by it");
                    assert!(
                        matches!(parts[first + 1], Part::Words([b':', ..])),
                        "no colon ends the user name"
                    );
                }
            }
        }
        i += 1;
    }
}

fn from_left<'a>(parts: &[Part], mut message: &'a [u8], holes: &mut Holes<'a>) -> bool {
    let mut parts = parts;
    while let [part, rest @ ..] = parts {
        let after = match part {
            Part::Words(words) => message.strip_prefix(*words),
            Part::Text if rest.is_empty() => {
                holes.text = message;
                return true;
            }
            Part::Remote if matches!(rest, [Part::Words(_), .., Part::Text]) => {
                return remote_then_text(rest, message, holes);
            }
            Part::User | Part::Account | Part::Remote | Part::Text => {
                return from_right(rest, message, holes).is_some_and(|middle| free(*part, middle, holes));
            }
            Part::Detail | Part::Own => {
                let (own, after) = match rest {
                    [Part::Words(words), ..] => match memmem::find(message, words) {
                        Some(at) => message.split_at(at),
                        None => return false,
                    },
                    _ => (message, &b""[..]),
                };
                if *part == Part::Detail {
                    holes.detail = own;
                }
                Some(after)
            }
            Part::Peer => peer::peer_at_start(message).map(|(after, peer)| {
                (holes.source, holes.port) = (peer.source, peer.port);
                after
            }),
            Part::Host => host(peer::host_at_start(message), holes),
            Part::Net => host(peer::network_at_start(message), holes),
            Part::Port => peer::port_at_start(message).map(|(after, port)| {
                holes.port = Some(port);
                after
            }),
            Part::Number => {
                let end = message.iter().position(|b| !b.is_ascii_digit()).unwrap_or(message.len());
                let (digits, after) = message.split_at(end);
                peer::number(digits).map(|number| {
                    holes.number = number;
                    after
                })
            }
            Part::End => return false,
        };
        let Some(after) = after else { return false };
        message = after;
        parts = rest;
    }
    message.is_empty()
}

/// Matches `parts` against the end of `message`; what stands before them is returned.
fn from_right<'a>(parts: &[Part], mut message: &'a [u8], holes: &mut Holes<'a>) -> Option<&'a [u8]> {
    let mut parts = parts;
    while let [rest @ .., part] = parts {
        message = match part {
            Part::Words(words) => message.strip_suffix(*words)?,
            Part::Detail | Part::Own => {
                let [.., Part::Words(words)] = rest else { return None };
                let (before, own) = message.split_at(memmem::rfind(message, words)? + words.len());
                if *part == Part::Detail {
                    holes.detail = own;
                }
                before
            }
            Part::Peer => {
                let (before, peer) = peer::peer_at_end(message)?;
                (holes.source, holes.port) = (peer.source, peer.port);
                before
            }
            Part::Host => host(peer::host_at_end(message), holes)?,
            // The others are not needed to the right of a client's text; the tests of the forms would show it.
            _ => return None,
        };
        parts = rest;
    }
    Some(message)
}

fn host<'a>(found: Option<(&'a [u8], Option<IpAddr>)>, holes: &mut Holes<'a>) -> Option<&'a [u8]> {
    let (rest, source) = found?;
    holes.source = source;
    Some(rest)
}

fn free<'a>(part: Part, text: &'a [u8], holes: &mut Holes<'a>) -> bool {
    match part {
        Part::User => holes.user = Some(text),
        Part::Account => (holes.user, holes.invalid_user) = account(text),
        Part::Remote => return remote(text, holes),
        _ => holes.text = text,
    }
    true
}

/// A user name, and whether sshd says before it that there is no such user.
pub(crate) fn account(text: &[u8]) -> (Option<&[u8]>, bool) {
    let marked = text.strip_prefix(b"invalid user ").or_else(|| text.strip_prefix(b"illegal user "));
    // Sun's sshd names no user that does not exist.
    (Some(marked.unwrap_or(text)), marked.is_some() || text == b"<invalid username>")
}

/// Reads all of `text` as packet.c's `remote_id`: an address and a port, and before them the user where one was named.
fn remote<'a>(text: &'a [u8], holes: &mut Holes<'a>) -> bool {
    let (named, invalid_user, phase) = if let Some(named) = text.strip_prefix(b"invalid user ") {
        (Some(named), true, Phase::BeforeLogin)
    } else if let Some(named) = text.strip_prefix(b"authenticating user ") {
        (Some(named), false, Phase::BeforeLogin)
    } else if let Some(named) = text.strip_prefix(b"user ") {
        (Some(named), false, Phase::AfterLogin)
    } else {
        (None, false, Phase::Unsaid)
    };
    let Some((before, peer)) = peer::peer_at_end(named.unwrap_or(text)) else { return false };
    let user = match named {
        None if before.is_empty() => None,
        None => return false,
        Some(_) => match before.strip_suffix(b" ") {
            Some(user) => Some(user),
            None => return false,
        },
    };
    *holes = Holes { source: peer.source, port: peer.port, user, invalid_user, phase, ..*holes };
    true
}

/// `{remote}`, words that begin with a colon, and a client's text at the end.
fn remote_then_text<'a>(rest: &[Part], message: &'a [u8], holes: &mut Holes<'a>) -> bool {
    let [Part::Words(words), after @ ..] = rest else { return false };
    // An IPv6 address that ends in `::` has a colon of its own, so the first place found need not be the right one.
    for at in memmem::find_iter(message, words) {
        let (head, tail) = message.split_at(at);
        if remote(head, holes) && (holes.source.is_some() || holes.port.is_some()) {
            return from_left(after, tail.split_at(words.len()).1, holes);
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a>(pattern: &'static str, message: &'a str) -> Option<Holes<'a>> {
        Pattern::new(pattern).read(message.as_bytes())
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn matches_from_both_ends() {
        let pattern = "Invalid user {user} from {peer}";
        let holes = read(pattern, "Invalid user a from 8.8.8.8 port 1 from 192.0.2.1 port 22").unwrap();
        assert_eq!((holes.source, holes.port), (ip("192.0.2.1"), Some(22)));
        assert_eq!(holes.user, Some(&b"a from 8.8.8.8 port 1"[..]));
        assert_eq!(read(pattern, "Invalid user  from 192.0.2.1").unwrap().user, Some(&b""[..]));
        assert_eq!(read(pattern, "Invalid user a from 192.0.2.1 port 22 and more"), None);
        assert_eq!(read(pattern, "Invalid user a"), None);
        assert_eq!(read(pattern, "An Invalid user a from 192.0.2.1"), None);
    }

    #[test]
    fn reads_the_remote_with_and_without_a_user() {
        let pattern = "Connection closed by {remote}";
        let holes =
            read(pattern, "Connection closed by invalid user a 8.8.8.8 port 1 192.0.2.1 port 22").unwrap();
        assert_eq!((holes.source, holes.user), (ip("192.0.2.1"), Some(&b"a 8.8.8.8 port 1"[..])));
        assert!(holes.invalid_user && holes.phase == Phase::BeforeLogin);
        let holes = read(pattern, "Connection closed by invalid user  192.0.2.1 port 22").unwrap();
        assert_eq!((holes.source, holes.user), (ip("192.0.2.1"), Some(&b""[..])));
        let holes = read(pattern, "Connection closed by 2001:db8::1 port 22").unwrap();
        assert_eq!((holes.source, holes.phase), (ip("2001:db8::1"), Phase::Unsaid));
        assert_eq!(read(pattern, "Connection closed by anyone 192.0.2.1 port 22"), None);
    }

    #[test]
    fn a_text_at_the_end_moves_nothing() {
        let pattern = "Disconnecting {remote}: Change of username{text}";
        let message = "Disconnecting invalid user a 2001:db8:: port 22: Change of username (x 8.8.8.8 port 1: Change \
                       of username,y)";
        let holes = read(pattern, message).unwrap();
        assert_eq!((holes.source, holes.user), (ip("2001:db8::"), Some(&b"a"[..])));
    }
}
