//! What must not be blocked: this host, what it needs to stay reachable, the allowlist, and who is logged in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::attempts::ConnectionId;
use crate::change::{Protection, Protector};
use crate::event::{Event, EventKind};
use crate::lru::Lru;
use crate::moment::Moment;
use crate::record::Record;
use crate::target::Target;
use crate::time::{Now, Wall};

/// For how long a login by public key protects its source from rules.
const RECENT: Duration = Duration::from_secs(3600);
/// Sessions, and sources of logins, that are remembered; beyond, the oldest is forgotten. Only someone who can log in
/// can fill these.
const REMEMBERED: usize = 4096;

/// The addresses that this host needs, read from it at start and whenever they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// Its own, on all interfaces.
    pub own: Vec<IpAddr>,
    /// Its default gateways.
    pub gateways: Vec<IpAddr>,
    /// The name servers that it asks.
    pub name_servers: Vec<IpAddr>,
}

/// A login that was let in. The store keeps it, so that its source is protected after a restart, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// Where it came from.
    pub address: IpAddr,
    /// The port there.
    pub port: Option<u16>,
    /// The process that serves it. It may have ended since, and another one have its number.
    pub pid: Option<u32>,
    /// When it was let in.
    pub at: Wall,
    /// Whether it was by public key.
    pub public_key: bool,
}

impl Login {
    /// The login that `event`, decoded from `record`, tells of; none where it tells of none, or not from where.
    pub fn of(event: &Event<'_>, record: &Record<'_>, now: &Now) -> Option<Login> {
        let address = event.source.filter(|_| event.kind == EventKind::Accepted)?;
        Some(Login {
            address,
            port: event.port,
            pid: record.pid,
            at: record.time.filter(|time| *time <= now.wall).unwrap_or(now.wall),
            public_key: event.detail.starts_with(b"publickey"),
        })
    }
}

/// What is never blocked, whoever asks.
#[derive(Debug)]
pub(crate) struct Guard {
    special: Vec<(Target, Protector)>,
    host: Vec<(Target, Protector)>,
    allow: Vec<Target>,
    by_hand: Vec<Target>,
}

impl Guard {
    pub(crate) fn new(allow: Vec<Target>) -> Guard {
        Guard { special: special(), host: Vec::new(), allow, by_hand: Vec::new() }
    }

    pub(crate) fn set_host(&mut self, host: &HostAddresses) {
        let named = |addresses: &[IpAddr], by| {
            addresses.iter().map(move |&address| (Target::exact(address), by)).collect::<Vec<_>>()
        };
        self.host = named(&host.own, Protector::Own);
        self.host.extend(named(&host.gateways, Protector::Gateway));
        self.host.extend(named(&host.name_servers, Protector::NameServer));
    }

    pub(crate) fn set_allow(&mut self, allow: Vec<Target>) {
        self.allow = allow;
    }

    pub(crate) fn set_allowed_by_hand(&mut self, networks: Vec<Target>) {
        self.by_hand = networks;
    }

    /// What protects some of `target`, or all of it.
    pub(crate) fn check(&self, target: &Target) -> Option<Protection> {
        self.protections(*target).next()
    }

    /// All that protects some of `target`, or all of it.
    pub(crate) fn protections(&self, target: Target) -> impl Iterator<Item = Protection> {
        let allow = self.allow.iter().map(|&network| (network, Protector::Allowed));
        let by_hand = self.by_hand.iter().map(|&network| (network, Protector::AllowedByHand));
        self.special
            .iter()
            .chain(&self.host)
            .copied()
            .chain(allow)
            .chain(by_hand)
            .filter(move |(protected, _)| protected.overlaps(&target))
            .map(move |(protected, by)| Protection { target, protected, by })
    }
}

/// Addresses that no source on another host can have, or that mean many hosts.
fn special() -> Vec<(Target, Protector)> {
    let v4 =
        |a, b, len, what| (Target::prefix(Ipv4Addr::new(a, b, 0, 0).into(), len), Protector::Special(what));
    let v6 = |first, last, len, what| {
        (Target::prefix(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last).into(), len), Protector::Special(what))
    };
    vec![
        v4(0, 0, 8, "the unspecified network"),
        v4(127, 0, 8, "loopback"),
        v4(169, 254, 16, "link-local"),
        v4(224, 0, 4, "multicast"),
        (Target::exact(Ipv4Addr::BROADCAST.into()), Protector::Special("the broadcast address")),
        v6(0, 0, 128, "the unspecified address"),
        v6(0, 1, 128, "loopback"),
        v6(0xfe80, 0, 10, "link-local"),
        v6(0xff00, 0, 8, "multicast"),
    ]
}

#[derive(Debug)]
struct Session {
    pid: u32,
    source: IpAddr,
    port: Option<u16>,
}

/// The sources of logins, which rules do not block.
#[derive(Debug)]
pub(crate) struct Logins {
    sessions: Lru<ConnectionId, Session>,
    public_key: Lru<IpAddr, Moment>,
}

impl Logins {
    pub(crate) fn new() -> Logins {
        Logins { sessions: Lru::new(REMEMBERED), public_key: Lru::new(REMEMBERED) }
    }

    /// A login, at the moment `at`, on the connection `id`. Without a process to watch, nothing would tell that its
    /// session is over, so then only the login itself is remembered.
    pub(crate) fn note(&mut self, id: Option<ConnectionId>, login: &Login, at: Moment) {
        if let (Some(id), Some(pid)) = (id, login.pid) {
            self.open(id, pid, login.address, login.port);
        }
        if login.public_key {
            self.public_key(login.address, at);
        }
    }

    fn open(&mut self, id: ConnectionId, pid: u32, source: IpAddr, port: Option<u16>) {
        self.sessions.insert(id, Session { pid, source, port });
    }

    /// The session of a connection ended.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        self.sessions.remove(&id);
    }

    /// The session from an address and port ended. The process that says so is often not the one that let it in, since
    /// sshd drops its privileges in a process of its own.
    pub(crate) fn close_from(&mut self, source: IpAddr, port: u16) {
        self.sessions.retain(|_, session| (session.source, session.port) != (source, Some(port)));
    }

    /// Keeps the sessions whose process lives.
    pub(crate) fn retain(&mut self, mut alive: impl FnMut(u32) -> bool) {
        self.sessions.retain(|_, session| alive(session.pid));
    }

    fn public_key(&mut self, source: IpAddr, at: Moment) {
        let latest = self.public_key.touch_or_insert_with(source, || at);
        *latest = at.max(*latest);
    }

    /// Which login protects some of `target`, or all of it.
    pub(crate) fn check(&self, target: &Target, now: Moment) -> Option<Protection> {
        let found = |source, by| Protection { target: *target, protected: Target::exact(source), by };
        let session = self.sessions.iter().find(|(_, session)| target.contains(session.source));
        if let Some((_, session)) = session {
            return Some(found(session.source, Protector::Session));
        }
        let recent = |at: Moment| now.since(at) <= RECENT;
        if target.is_exact() {
            let login = self.public_key.peek(&target.address()).filter(|&&at| recent(at));
            return login.map(|_| found(target.address(), Protector::RecentLogin));
        }
        let login = self.public_key.iter().find(|&(source, &at)| target.contains(*source) && recent(at));
        login.map(|(&source, _)| found(source, Protector::RecentLogin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Mono;

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    fn guard() -> Guard {
        let mut guard = Guard::new(vec![target("192.0.2.0/24"), target("2001:db8::/48")]);
        let address = |text: &str| vec![text.parse().unwrap()];
        guard.set_host(&HostAddresses {
            own: address("198.51.100.4"),
            gateways: address("198.51.100.1"),
            name_servers: address("2001:db8:53::53"),
        });
        guard
    }

    #[test]
    fn what_the_host_needs_is_protected() {
        let protector = |text| guard().check(&target(text)).map(|protection| protection.by);
        for (text, by) in [
            ("0.0.0.0", Protector::Special("the unspecified network")),
            ("0.1.2.3", Protector::Special("the unspecified network")),
            ("127.0.0.53", Protector::Special("loopback")),
            ("169.254.169.254", Protector::Special("link-local")),
            ("224.0.0.251", Protector::Special("multicast")),
            ("255.255.255.255", Protector::Special("the broadcast address")),
            ("::", Protector::Special("the unspecified address")),
            ("::1", Protector::Special("loopback")),
            ("fe80::1", Protector::Special("link-local")),
            ("ff02::1", Protector::Special("multicast")),
            ("::ffff:127.0.0.1", Protector::Special("loopback")),
            ("198.51.100.4", Protector::Own),
            ("198.51.100.1", Protector::Gateway),
            ("2001:db8:53::53", Protector::NameServer),
            ("192.0.2.200", Protector::Allowed),
            ("2001:db8:0:5::/64", Protector::Allowed),
        ] {
            assert_eq!(protector(text), Some(by), "{text}");
        }
        for text in ["203.0.113.7", "198.51.100.5", "2001:db8:53::54", "240.0.0.1"] {
            assert_eq!(protector(text), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_names_what_is_protected() {
        let told = |text| guard().check(&target(text)).unwrap().to_string();
        assert_eq!(told("198.51.100.4"), "198.51.100.4 is never blocked: it is an address of this host");
        assert_eq!(
            told("198.51.100.0/24"),
            "198.51.100.0/24 is never blocked: it contains 198.51.100.4, which is an address of this host"
        );
        assert_eq!(
            told("192.0.2.9"),
            "192.0.2.9 is never blocked: it lies in 192.0.2.0/24, which is on the allowlist"
        );
        assert!(guard().check(&target("0.0.0.0/0")).is_some() && guard().check(&target("::/0")).is_some());
    }

    #[test]
    fn sessions_and_recent_logins_protect() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let start = Moment::from(Mono(0));
        let mut logins = Logins::new();
        logins.open(1, 100, address("203.0.113.7"), Some(22));
        logins.open(2, 200, address("203.0.113.7"), Some(23));
        logins.public_key(address("2001:db8::7"), start);
        let by = |logins: &Logins, text, at| logins.check(&target(text), at).map(|protection| protection.by);

        assert_eq!(by(&logins, "203.0.113.7", start), Some(Protector::Session));
        logins.close(1);
        assert_eq!(by(&logins, "203.0.113.0/24", start), Some(Protector::Session));
        logins.close_from(address("203.0.113.7"), 24);
        assert_eq!(by(&logins, "203.0.113.7", start), Some(Protector::Session));
        logins.close_from(address("203.0.113.7"), 23);
        assert_eq!(by(&logins, "203.0.113.7", start), None);
        logins.open(2, 200, address("203.0.113.7"), Some(23));
        logins.retain(|pid| pid != 200);
        assert_eq!(by(&logins, "203.0.113.7", start), None);

        assert_eq!(by(&logins, "2001:db8::/64", start), Some(Protector::RecentLogin));
        assert_eq!(by(&logins, "2001:db8::7", start.after(RECENT)), Some(Protector::RecentLogin));
        assert_eq!(by(&logins, "2001:db8::7", start.after(RECENT + Duration::from_nanos(1))), None);
        assert_eq!(by(&logins, "2001:db8::8", start), None);
    }
}
