//! Random tables and packets, drawn close to each other: few addresses, each with any of its bits the other way, so that
//! a packet hits a block, just misses it, or lies in several.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use xdpban_engine::measure::{Action, Ports, Rate, Scope};

use super::frame::{OLD_SERVICE_VLAN, SERVICE_VLAN, VLAN, ethernet};
use super::*;

/// What is done to the tables, and the frames that come then.
#[derive(Clone)]
pub(super) struct Round {
    /// Blocks that are lifted, by their places among those that there are.
    pub(super) lifted: Vec<Index>,
    pub(super) blocked: Vec<Blocked>,
    pub(super) allowed: Vec<Target>,
    pub(super) dry_run: bool,
    pub(super) frames: Vec<Frame>,
}

/// A target to block.
#[derive(Clone)]
pub(super) struct Blocked {
    pub(super) target: Target,
    pub(super) expires: Option<Mono>,
    pub(super) measure: Measure,
    /// Whether its bucket is empty.
    pub(super) is_spent: bool,
}

/// A frame, which shows as a row of hexadecimal digits.
#[derive(Clone)]
pub(super) struct Frame(pub(super) Vec<u8>);

impl Blocked {
    pub(super) fn insertion(&self) -> Insertion {
        Insertion { target: self.target, expires: self.expires, measure: self.measure }
    }

    pub(super) fn is_expired(&self) -> bool {
        self.expires == Some(EXPIRED)
    }
}

/// A moment that is over.
const EXPIRED: Mono = Mono(1);

/// How many frames a round has, on average.
pub(super) const FRAMES: usize = 256;

pub(super) fn round() -> impl Strategy<Value = Round> {
    let frames = vec(frame(), 0..2 * FRAMES);
    let allowed = prop_oneof![1 => Just(Vec::new()), 1 => vec(target(), 0..4)];
    (vec(any::<Index>(), 0..12), vec(blocked(), 0..32), allowed, prop::bool::weighted(0.2), frames).prop_map(
        |(lifted, blocked, allowed, dry_run, frames)| Round { lifted, blocked, allowed, dry_run, frames },
    )
}

fn blocked() -> impl Strategy<Value = Blocked> {
    let expires = prop_oneof![2 => Just(Some(EXPIRED)), 3 => Just(None), 1 => Just(Some(Mono(NEVER - 1)))];
    (target(), expires, measure(), any::<bool>()).prop_map(|(target, expires, measure, is_spent)| Blocked {
        target,
        expires,
        measure,
        is_spent,
    })
}

fn target() -> impl Strategy<Value = Target> {
    let len4 = prop_oneof![3 => 0..=32u8, 2 => Just(32)];
    let len6 = prop_oneof![3 => 0..=128u8, 1 => Just(64), 1 => Just(128)];
    prop_oneof![
        (address4(), len4).prop_map(|(address, len)| Target::prefix(address.into(), len)),
        (address6(), len6).prop_map(|(address, len)| Target::prefix(address.into(), len)),
    ]
}

fn address4() -> impl Strategy<Value = Ipv4Addr> {
    let known = select(vec![
        Ipv4Addr::new(203, 0, 113, 7),
        Ipv4Addr::new(198, 51, 100, 130),
        Ipv4Addr::new(203, 0, 113, 200),
        Ipv4Addr::UNSPECIFIED,
    ]);
    (known, 0..64u32).prop_map(|(address, bit)| {
        // Half of them as they are.
        Ipv4Addr::from_bits(address.to_bits() ^ 1u32.checked_shl(bit).unwrap_or(0))
    })
}

fn address6() -> impl Strategy<Value = Ipv6Addr> {
    let known = select(vec![
        Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 3),
        Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0x8000, 0, 0, 3),
        Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1),
        Ipv4Addr::new(203, 0, 113, 7).to_ipv6_mapped(),
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::UNSPECIFIED,
    ]);
    (known, 0..256u32).prop_map(|(address, bit)| {
        Ipv6Addr::from_bits(address.to_bits() ^ 1u128.checked_shl(bit).unwrap_or(0))
    })
}

fn measure() -> impl Strategy<Value = Measure> {
    // A bucket that gives a token back only in a second, and that no test empties.
    let rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(1 << 20).unwrap() };
    let action = select(vec![Action::Block, Action::Throttle(rate)]);
    let ports = vec(select(PORTS.to_vec()), 0..=Ports::MAX);
    let own = (action, ports, any::<bool>()).prop_map(|(action, ports, new_only)| {
        let scope = Scope { ports: Ports::new(&ports).unwrap(), new_only };
        Measure { action, scope }
    });
    let throttle = Just(Measure { action: Action::Throttle(rate), scope: Scope::default() });
    prop_oneof![3 => Just(Measure::default()), 2 => own, 1 => throttle]
}

/// Those that measures name.
const PORTS: [u16; 9] = [22, 80, 443, 2222, 8080, 1, 256, 0x1600, 65535];

fn frame() -> impl Strategy<Value = Frame> {
    let tag = select(vec![VLAN, SERVICE_VLAN, OLD_SERVICE_VLAN]);
    let tags = prop_oneof![3 => Just(Vec::new()), 2 => vec(tag, 1..=3)];
    let ethertypes = vec![0x0800, 0x86dd, 0x0806, 0x88cc, 0x8847, 0x0008, 0x0801];
    let ethertype = prop_oneof![select(ethertypes), any::<u16>()];
    let content = prop_oneof![
        8 => ipv4().prop_map(|packet| (0x0800, packet)),
        10 => ipv6().prop_map(|packet| (0x86dd, packet)),
        1 => (ethertype, bytes(64)),
    ];
    (tags, content, cut()).prop_map(|(tags, (ethertype, packet), cut)| {
        let mut frame = ethernet(&tags, ethertype, &packet);
        // The kernel runs programs on whole Ethernet headers.
        let all = frame.len() - 14;
        frame.truncate(14 + cut.map_or(all, |cut| cut.index(all + 1)));
        Frame(frame)
    })
}

/// Where a frame ends early, if it does.
fn cut() -> impl Strategy<Value = Option<Index>> {
    prop_oneof![4 => Just(None), 1 => any::<Index>().prop_map(Some)]
}

fn ipv4() -> impl Strategy<Value = Vec<u8>> {
    let header_words = prop_oneof![3 => Just(5u8), 2 => 0..=15u8];
    let fragment = prop_oneof![
        4 => select(vec![0u16, 0x4000, 0x2000]),
        1 => any::<u16>(),
    ];
    (address4(), header_words, fragment, transport(), bytes(40)).prop_map(
        |(source, words, fragment, (protocol, transport), options)| {
            let [high, low] = fragment.to_be_bytes();
            let mut packet = vec![0x40 | words, 0, 0, 0, 0, 1, high, low, 64, protocol, 0, 0];
            packet.extend(source.octets());
            packet.extend([198, 51, 100, 1]);
            let options_len = (usize::from(words) * 4).saturating_sub(20);
            packet.extend(options.into_iter().chain(std::iter::repeat(1)).take(options_len));
            packet.extend(transport);
            packet
        },
    )
}

fn ipv6() -> impl Strategy<Value = Vec<u8>> {
    let extensions = prop_oneof![2 => Just(Vec::new()), 3 => vec(extension(), 0..=6)];
    (address6(), extensions, transport()).prop_map(|(source, extensions, (protocol, transport))| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 255];
        packet.extend(source.octets());
        packet.extend(Ipv6Addr::LOCALHOST.octets());
        let mut next_header = 6;
        for (kind, mut header) in extensions {
            header[0] = std::mem::replace(&mut packet[next_header], kind);
            next_header = packet.len();
            packet.extend(header);
        }
        packet.extend(transport);
        packet
    })
}

/// An extension header: its type, and its bytes but for the type of the next one.
fn extension() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let options = (select(vec![0u8, 43, 60]), 0..=2u8).prop_map(|(kind, len)| {
        let mut header = vec![0; (usize::from(len) + 1) * 8];
        header[1] = len;
        (kind, header)
    });
    let field = prop_oneof![2 => select(vec![0u16, 1, 6, 7, 8]), 1 => any::<u16>()];
    let fragment = field.prop_map(|field| {
        let [high, low] = field.to_be_bytes();
        (44, vec![0, 0, high, low, 0, 0, 0, 1])
    });
    let opaque = select(vec![50u8, 51, 59, 135]).prop_map(|kind| (kind, vec![0, 4, 0, 0, 0, 0, 0, 1]));
    prop_oneof![6 => options, 3 => fragment, 1 => opaque]
}

/// A protocol and its header, if it is one that has ports or types that matter.
fn transport() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let port = prop_oneof![4 => select(PORTS.to_vec()), 1 => any::<u16>()];
    let flags = prop_oneof![select(vec![0x02, 0x12, 0x10, 0x04, 0xc2]), any::<u8>()];
    let tcp = (port.clone(), flags).prop_map(|(port, flags)| {
        let mut header = vec![0; 20];
        header[2..4].copy_from_slice(&port.to_be_bytes());
        header[13] = flags;
        (6, header)
    });
    let udp = port.prop_map(|port| {
        let mut header = vec![0; 8];
        header[2..4].copy_from_slice(&port.to_be_bytes());
        (17, header)
    });
    let kind = prop_oneof![3 => 131..=139u8, 1 => any::<u8>()];
    let icmpv6 = kind.prop_map(|kind| (58, vec![kind, 0, 0, 0, 0, 0, 0, 0]));
    prop_oneof![5 => tcp, 2 => udp, 2 => icmpv6, 1 => (any::<u8>(), bytes(24))]
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=most)
}

/// As a person needs it who looks into a failure.
impl fmt::Debug for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.dry_run { "with a dry run" } else { "enforcing" })?;
        self.lifted.iter().try_for_each(|place| writeln!(f, "  lift {place:?}"))?;
        self.blocked.iter().try_for_each(|blocked| writeln!(f, "  {blocked:?}"))?;
        self.allowed.iter().try_for_each(|network| writeln!(f, "  allow {network}"))?;
        self.frames.iter().try_for_each(|frame| writeln!(f, "  frame {frame:?}"))
    }
}

impl fmt::Debug for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expired = if self.is_expired() { ", expired" } else { "" };
        let spent = if self.is_spent { ", bucket empty" } else { "" };
        write!(f, "{}: {}{expired}{spent}", self.target, self.measure)
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
