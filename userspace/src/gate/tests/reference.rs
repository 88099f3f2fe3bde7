//! What is to become of a packet, said as plainly as it can be: no table, no hash, no search that ends early. The
//! programs are held to this.
//!
//! 1. A packet is what stands behind the Ethernet header and up to two VLAN tags. What is neither IPv4 nor IPv6 passes, and
//!    so does what ends before its IP header does.
//! 2. A block holds for it when its source lies in the block's target and the block has not expired. Without one it passes.
//! 3. What a host cannot live without passes, and so does what an allowed network has.
//! 4. Of the blocks that hold, those that drop everything go before those with a measure of their own; among either that of
//!    a single source (an address, or its /64) before others, and then the most specific.
//! 5. A measure may be for some destination ports, or for packets that open a TCP connection. Where that cannot be told of a
//!    packet it passes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdpban_common::{NESTED4, NESTED6};
use xdpban_engine::measure::Action;

use super::*;

/// What the gate was told, and what it is to have counted.
#[derive(Debug, Default)]
pub(super) struct Reference {
    pub(super) blocks: BTreeMap<Target, Block>,
    pub(super) allowed: Vec<Target>,
    pub(super) dry_run: bool,
    pub(super) totals: Totals,
}

/// A block, and what it has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) is_expired: bool,
    pub(super) measure: Measure,
    /// Whether the bucket of a throttle is empty, and stays so; otherwise it never becomes empty.
    pub(super) is_spent: bool,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Packets that passed within the rate.
    pub(super) tokens: u64,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    /// The block because of which.
    pub(super) target: Option<Target>,
    pub(super) is_dropped: bool,
}

impl Reference {
    pub(super) fn judge(&self, frame: &[u8]) -> Verdict {
        let (outcome, target) = match ip(frame) {
            Ok((source, packet)) => self.judge_packet(source, packet),
            Err(outcome) => (outcome, None),
        };
        Verdict { outcome, target, is_dropped: outcome.drops() && !self.dry_run }
    }

    /// Counts a frame that got `verdict`.
    pub(super) fn count(&mut self, verdict: &Verdict, frame: &[u8]) {
        let bytes = frame.len() as u64;
        self.totals.packets[verdict.outcome as usize] += 1;
        if verdict.outcome.drops() {
            self.totals.dropped_bytes += bytes;
        }
        let Some(block) = verdict.target.and_then(|target| self.blocks.get_mut(&target)) else { return };
        if verdict.outcome.drops() {
            block.packets += 1;
            block.bytes += bytes;
        }
        block.tokens += u64::from(verdict.outcome == Outcome::WithinRate);
    }

    /// The blocks in which the source lies. Of prefixes there is a limit to how many are looked at, also of such as have
    /// expired.
    fn within_reach(&self, source: IpAddr) -> impl Iterator<Item = (&Target, &Block)> {
        let around = self.blocks.iter().filter(move |(target, _)| has(target, source));
        let (single, mut prefixes): (Vec<_>, Vec<_>) = around.partition(|(target, _)| is_single(target));
        prefixes.sort_by_key(|(target, _)| Reverse(target.prefix_len()));
        prefixes.truncate(if source.is_ipv4() { NESTED4 } else { NESTED6 } as usize);
        single.into_iter().chain(prefixes)
    }

    fn judge_packet(&self, source: IpAddr, packet: &[u8]) -> (Outcome, Option<Target>) {
        let holding = self.within_reach(source).filter(|(_, block)| !block.is_expired);
        let rank = |(target, block): &(&Target, &Block)| {
            (block.measure.stops_everything(), is_single(target), target.prefix_len())
        };
        let Some((target, block)) = holding.max_by_key(rank) else {
            return (Outcome::Clean, None);
        };
        if is_exempt(source, packet) {
            return (Outcome::Exempt, None);
        }
        if self.allowed.iter().any(|network| has(network, source)) {
            return (Outcome::Allowed, None);
        }
        let outcome = if !is_meant(&block.measure, source, packet) {
            Outcome::OutOfScope
        } else if let Action::Throttle(_) = block.measure.action {
            if block.is_spent { Outcome::Throttled } else { Outcome::WithinRate }
        } else {
            match (is_single(target), source) {
                (true, IpAddr::V4(_)) => Outcome::Exact4,
                (true, IpAddr::V6(_)) => Outcome::Exact6,
                (false, IpAddr::V4(_)) => Outcome::Prefix4,
                (false, IpAddr::V6(_)) => Outcome::Prefix6,
            }
        };
        (outcome, Some(*target))
    }
}

/// Whether the source lies in the network. IPv6 packets from `::ffff:0:0/96` are IPv6.
fn has(network: &Target, source: IpAddr) -> bool {
    let (network_bits, source_bits, all) = match (network.address(), source) {
        (IpAddr::V4(network), IpAddr::V4(source)) => (network.to_bits().into(), source.to_bits().into(), 32),
        (IpAddr::V6(network), IpAddr::V6(source)) => (network.to_bits(), source.to_bits(), 128),
        _ => return false,
    };
    let different: u128 = network_bits ^ source_bits;
    different.checked_shr(all - u32::from(network.prefix_len())).unwrap_or(0) == 0
}

/// Whether the target stands for one source: an address, or an IPv6 /64.
fn is_single(target: &Target) -> bool {
    target.prefix_len() == if target.address().is_ipv4() { 32 } else { 128 }
        || target.address().is_ipv6() && target.prefix_len() == 64
}

/// The source and the IP packet in a frame, or why there is none.
fn ip(frame: &[u8]) -> Result<(IpAddr, &[u8]), Outcome> {
    const ETHERNET_ADDRESSES: usize = 12;
    let mut rest = frame.get(ETHERNET_ADDRESSES..).unwrap_or_default();
    for _tag in 0..=2 {
        match rest {
            [0x81, 0x00, ..] | [0x88, 0xa8, ..] | [0x91, 0x00, ..] => {
                rest = rest.get(4..).unwrap_or_default()
            }
            [0x08, 0x00, packet @ ..] => {
                let header = packet.first_chunk::<20>().ok_or(Outcome::TooShort)?;
                let &[_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, ..] = header;
                return Ok((Ipv4Addr::new(a, b, c, d).into(), packet));
            }
            [0x86, 0xdd, packet @ ..] => {
                let header = packet.first_chunk::<40>().ok_or(Outcome::TooShort)?;
                let source: [u8; 16] = header[8..24].try_into().unwrap();
                return Ok((Ipv6Addr::from(source).into(), packet));
            }
            [_, _, ..] => return Err(Outcome::NotIp),
            _ => return Err(Outcome::TooShort),
        }
    }
    // A third tag, which must be there as far as its type.
    Err(Outcome::NotIp)
}

/// Hosts without an address, and how neighbours find each other: link-local sources, and the messages of RFC 4861 where
/// they stand right behind the IPv6 header.
fn is_exempt(source: IpAddr, packet: &[u8]) -> bool {
    match source {
        IpAddr::V4(source) => source.is_unspecified(),
        IpAddr::V6(source) => {
            let is_discovery = packet[6] == 58 && matches!(packet.get(40), Some(133..=137));
            source.is_unspecified() || source.is_unicast_link_local() || is_discovery
        }
    }
}

/// Whether the measure is for this packet.
fn is_meant(measure: &Measure, source: IpAddr, packet: &[u8]) -> bool {
    let scope = measure.scope;
    if scope.is_everything() {
        return true;
    }
    let transport = if source.is_ipv4() { transport4(packet) } else { transport6(packet) };
    let Some((protocol, header)) = transport else { return false };
    let port = match (protocol, header) {
        (6 | 17, [_, _, high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    };
    let is_syn = protocol == 6 && header.get(13).is_some_and(|flags| flags & 0b1_0010 == 0b0_0010);
    (scope.ports.is_empty() || scope.ports.iter().any(|wanted| Some(wanted) == port))
        && (!scope.new_only || is_syn)
}

/// The protocol and what there is of its header; none where that is in another fragment.
fn transport4(packet: &[u8]) -> Option<(u8, &[u8])> {
    let is_later_fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff != 0;
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    if is_later_fragment { None } else { Some((packet[9], packet.get(header_len..)?)) }
}

/// The same behind up to four extension headers.
fn transport6(packet: &[u8]) -> Option<(u8, &[u8])> {
    let (mut protocol, mut rest) = (packet[6], &packet[40..]);
    for _extension in 0..=4 {
        rest = match (protocol, rest) {
            (0 | 43 | 60, [next, len, ..]) => {
                protocol = *next;
                rest.get((usize::from(*len) + 1) * 8..).unwrap_or_default()
            }
            (44, [next, _, high, low, ..]) if u16::from_be_bytes([*high, *low]) >> 3 == 0 => {
                protocol = *next;
                rest.get(8..).unwrap_or_default()
            }
            (0 | 43 | 44 | 60, _) => return None,
            _ => return Some((protocol, rest)),
        };
    }
    None
}
