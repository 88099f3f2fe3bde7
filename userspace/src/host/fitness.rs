//! What kinds of interfaces there are, and what each means for a program that reads Ethernet headers where frames come in.

use super::links::Link;

/// Interfaces to name at most, where another one is to be guarded.
const NAMED: usize = 5;

/// How far interfaces are followed downwards: more than anybody stacks, and an end if the kernel's answers went in circles.
const MAX_DEPTH: usize = 8;

/// Whether an interface can be guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// Frames come in by it.
    Fit,
    /// It can be guarded, at TC ingress or, for a bond, by way of its members' drivers; its frames come in by others.
    Above {
        /// Their names.
        entrances: Vec<String>,
    },
    /// The program would see nothing, or something other than Ethernet frames.
    Unfit {
        /// Why, as the end of a sentence that begins with its name.
        why: &'static str,
        /// What to guard instead, by name.
        instead: Vec<String>,
    },
}

/// What becomes of frames at an interface of this kind.
enum Nature {
    /// They come in by it.
    Wire,
    /// They come in by the one beneath, which hands those that are for it over.
    Over,
    /// They come in by its members.
    Members,
    /// Nothing that a program could judge comes in by it.
    Nothing(&'static str),
}

fn nature(link: &Link) -> Nature {
    if link.hardware == libc::ARPHRD_LOOPBACK {
        return Nature::Nothing("carries this host's packets to itself, and nobody else's");
    }
    match (link.hardware, link.kind.as_deref()) {
        (libc::ARPHRD_ETHER, kind) => match kind {
            Some("vlan" | "macvlan" | "macvtap") => Nature::Over,
            Some("ipvlan" | "ipvtap") if link.is_l3s => {
                Nature::Nothing("is an ipvlan in mode l3s, whose packets pass none of its own hooks")
            }
            Some("ipvlan" | "ipvtap") => Nature::Over,
            Some("bond" | "team" | "bridge") => Nature::Members,
            Some("vrf") => Nature::Nothing("is a routing table (vrf); packets come in by its members"),
            Some("dummy") => Nature::Nothing("is a dummy, by which nothing comes in"),
            Some("ifb") => Nature::Nothing("is an ifb; its packets have come in by another interface"),
            _ => Nature::Wire,
        },
        (libc::ARPHRD_PPP, _) => Nature::Nothing(
            "is a point-to-point link (ppp) whose packets have no Ethernet header; around them, on the interface below, \
             the program sees PPPoE and lets it pass, so that their sources cannot be blocked",
        ),
        _ => Nature::Nothing(
            "is a tunnel whose packets have no Ethernet header; on the interface that carries it the program sees the \
             tunnel's other end, and not the sources inside",
        ),
    }
}

/// Whether `link`, one of `all`, can be guarded.
pub fn fitness(link: &Link, all: &[Link]) -> Fitness {
    let names = |links: Vec<&Link>| links.into_iter().map(|link| link.name.clone()).collect();
    match nature(link) {
        Nature::Wire => Fitness::Fit,
        Nature::Over | Nature::Members => Fitness::Above { entrances: names(entrances(link, all)) },
        Nature::Nothing(why) => Fitness::Unfit { why, instead: names(instead_of(link, all)) },
    }
}

/// The interfaces by which the frames of `link` come in; none where that is itself, or they are in another namespace.
pub(super) fn entrances<'a>(link: &Link, all: &'a [Link]) -> Vec<&'a Link> {
    match nature(link) {
        Nature::Over => all.iter().filter(|other| Some(other.index) == link.beneath).collect(),
        Nature::Members => members(link, all).collect(),
        Nature::Wire | Nature::Nothing(_) => Vec::new(),
    }
}

/// The interface that one with a default route stands on: a VLAN's frames come in by the interface beneath, where the
/// program looks through their tags. A bridge or a bond stands for itself.
pub(super) fn base<'a>(link: &'a Link, all: &'a [Link]) -> &'a Link {
    let mut base = link;
    for _ in 0..MAX_DEPTH {
        let Nature::Over = nature(base) else { break };
        let Some(beneath) = all.iter().find(|other| Some(other.index) == base.beneath) else { break };
        base = beneath;
    }
    base
}

/// How many interfaces lie between `link` and where its frames come in.
pub(super) fn depth(link: &Link, all: &[Link]) -> usize {
    let mut level = vec![link];
    for depth in 0..MAX_DEPTH {
        let mut next: Vec<&Link> = level.iter().flat_map(|link| entrances(link, all)).collect();
        next.sort_by_key(|link| link.index);
        next.dedup();
        if next.is_empty() {
            return depth;
        }
        level = next;
    }
    MAX_DEPTH
}

fn members<'a>(link: &Link, all: &'a [Link]) -> impl Iterator<Item = &'a Link> {
    all.iter().filter(|member| member.master == Some(link.index))
}

/// What to guard in the place of one that cannot be.
fn instead_of<'a>(link: &Link, all: &'a [Link]) -> Vec<&'a Link> {
    let is_fit = |other: &&Link| matches!(nature(other), Nature::Wire | Nature::Members | Nature::Over);
    let mut instead: Vec<&Link> = match link.kind.as_deref() {
        Some("vrf") => members(link, all).filter(is_fit).collect(),
        _ => all.iter().filter(|other| Some(other.index) == link.beneath).filter(is_fit).collect(),
    };
    if instead.is_empty() {
        // A card of the host, or whatever else has frames.
        let wires = all.iter().filter(|other| matches!(nature(other), Nature::Wire) && other.up);
        let (cards, others): (Vec<&Link>, Vec<&Link>) = wires.partition(|other| other.kind.is_none());
        instead = if cards.is_empty() { others } else { cards };
    }
    instead.truncate(NAMED);
    instead
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link {
            index,
            name: name.into(),
            hardware: libc::ARPHRD_ETHER,
            up: true,
            kind: Some(kind.to_owned()).filter(|kind| !kind.is_empty()),
            ..Link::default()
        }
    }

    fn over(beneath: u32, link: Link) -> Link {
        Link { beneath: Some(beneath), ..link }
    }

    fn of(master: u32, link: Link) -> Link {
        Link { master: Some(master), ..link }
    }

    fn headers(hardware: u16, link: Link) -> Link {
        Link { hardware, ..link }
    }

    /// A host with one of each. Numbers, kinds and hardware types are what kernels 6.1 and 6.12 answer.
    fn host() -> Vec<Link> {
        vec![
            headers(libc::ARPHRD_LOOPBACK, link(1, "lo", "")),
            link(2, "eth0", ""),
            of(6, link(3, "eth1", "")),
            of(6, link(4, "eth2", "")),
            link(5, "wlan0", ""),
            link(6, "bond0", "bond"),
            over(6, link(7, "bond0.100", "vlan")),
            over(7, link(8, "qinq", "vlan")),
            over(2, link(9, "mv0", "macvlan")),
            over(2, link(10, "ipv0", "ipvlan")),
            Link { is_l3s: true, ..over(2, link(11, "ipv1", "ipvlan")) },
            of(13, over(99, link(12, "veth7", "veth"))),
            link(13, "docker0", "bridge"),
            headers(libc::ARPHRD_NONE, link(14, "wg0", "wireguard")),
            headers(libc::ARPHRD_NONE, link(15, "tun0", "tun")),
            link(16, "tap0", "tun"),
            over(2, headers(libc::ARPHRD_TUNNEL, link(17, "ipip1", "ipip"))),
            headers(libc::ARPHRD_SIT, link(18, "sit0", "sit")),
            headers(libc::ARPHRD_IPGRE, link(19, "gre1", "gre")),
            link(20, "gretap1", "gretap"),
            headers(libc::ARPHRD_TUNNEL, link(21, "vti1", "vti")),
            headers(libc::ARPHRD_PPP, link(22, "ppp0", "ppp")),
            link(23, "vrf-red", "vrf"),
            of(23, link(24, "eth3", "")),
            link(25, "dummy0", "dummy"),
            link(26, "ifb0", "ifb"),
            link(27, "team0", "team"),
            link(28, "vxlan1", "vxlan"),
            // Beneath it is the interface of another namespace.
            link(29, "eth9", "macvlan"),
        ]
    }

    fn judged(name: &str) -> Fitness {
        let host = host();
        fitness(host.iter().find(|link| link.name == name).unwrap(), &host)
    }

    #[test]
    fn where_frames_come_in_is_guarded() {
        for name in ["eth0", "eth1", "wlan0", "veth7", "tap0", "gretap1", "vxlan1"] {
            assert_eq!(judged(name), Fitness::Fit, "{name}");
        }
    }

    #[test]
    fn what_lies_above_others_names_them() {
        let expected: [(&str, &[&str]); 8] = [
            ("bond0.100", &["bond0"]),
            ("qinq", &["bond0.100"]),
            ("mv0", &["eth0"]),
            ("ipv0", &["eth0"]),
            ("bond0", &["eth1", "eth2"]),
            ("docker0", &["veth7"]),
            ("team0", &[]),
            ("eth9", &[]),
        ];
        for (name, entrances) in expected {
            let entrances = entrances.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(judged(name), Fitness::Above { entrances }, "{name}");
        }
    }

    #[test]
    fn what_has_no_frames_is_refused_with_what_to_guard_instead() {
        let cards: &[&str] = &["eth0", "eth1", "eth2", "wlan0", "eth3"];
        let expected = [
            ("lo", "itself", cards),
            ("wg0", "not the sources inside", cards),
            ("tun0", "no Ethernet header", cards),
            ("ipip1", "no Ethernet header", &["eth0"]),
            ("sit0", "no Ethernet header", cards),
            ("gre1", "no Ethernet header", cards),
            ("vti1", "no Ethernet header", cards),
            ("ppp0", "PPPoE", cards),
            ("vrf-red", "routing table", &["eth3"]),
            ("dummy0", "nothing comes in", cards),
            ("ifb0", "another interface", cards),
            ("ipv1", "l3s", &["eth0"]),
        ];
        for (name, said, expected) in expected {
            let Fitness::Unfit { why, instead } = judged(name) else { panic!("{name}") };
            assert!(why.contains(said), "{name}: {why}");
            assert_eq!(instead, expected, "{name}");
        }
    }

    #[test]
    fn the_default_route_of_a_vlan_leads_to_what_lies_beneath() {
        let host = host();
        let find = |name: &str| host.iter().find(|link| link.name == name).unwrap();
        for (name, expected) in
            [("qinq", "bond0"), ("mv0", "eth0"), ("docker0", "docker0"), ("eth0", "eth0"), ("eth9", "eth9")]
        {
            assert_eq!(base(find(name), &host).name, expected);
        }
        for (name, expected) in [("eth0", 0), ("bond0", 1), ("bond0.100", 2), ("qinq", 3), ("wg0", 0)] {
            assert_eq!(depth(find(name), &host), expected, "{name}");
        }
        let circle = [over(2, link(1, "a", "vlan")), over(1, link(2, "b", "vlan"))];
        assert_eq!(depth(&circle[0], &circle), MAX_DEPTH);
        base(&circle[0], &circle);
    }
}
