//! From a frame to its source address. No header beyond the IP header's fixed part is needed for that: the source
//! address stands at a fixed offset in it, whatever options, extensions or fragments follow.

use crate::frame::Frame;

/// The source of a packet.
pub(crate) enum Source {
    V4(V4),
    V6(V6),
}

/// Why a frame has no source address that can be read.
pub(crate) enum Unparsed {
    /// It ends too early.
    TooShort,
    /// It is not IP.
    NotIp,
}

/// An IPv4 source address.
#[derive(Clone, Copy)]
pub(crate) struct V4 {
    pub(crate) address: [u8; 4],
    /// Where the IPv4 header begins in the frame.
    pub(crate) header: usize,
}

/// An IPv6 source address.
#[derive(Clone, Copy)]
pub(crate) struct V6 {
    pub(crate) address: [u8; 16],
    /// Where the IPv6 header begins in the frame.
    pub(crate) header: usize,
}

const ETHERNET_HEADER: usize = 14;
const ETHERTYPE: usize = 12;
const VLAN_TAG: usize = 4;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what some switches used before 802.1ad.
const ETHERTYPES_VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];

const IPV4_HEADER: usize = 20;
const IPV4_SOURCE: usize = 12;
pub(crate) const IPV6_HEADER: usize = 40;
pub(crate) const IPV6_NEXT_HEADER: usize = 6;
const IPV6_SOURCE: usize = 8;

const NEXT_HEADER_ICMPV6: u8 = 58;
/// Router solicitation to redirect (RFC 4861).
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;

/// Finds the source address behind the Ethernet header and up to two VLAN tags.
#[inline(always)]
pub(crate) fn source(frame: &Frame) -> Result<Source, Unparsed> {
    let mut ethertype = frame.read_u16(ETHERTYPE).ok_or(Unparsed::TooShort)?;
    let mut header = ETHERNET_HEADER;
    if ETHERTYPES_VLAN.contains(&ethertype) {
        ethertype = frame.read_u16(header + 2).ok_or(Unparsed::TooShort)?;
        header += VLAN_TAG;
        if ETHERTYPES_VLAN.contains(&ethertype) {
            ethertype = frame.read_u16(header + 2).ok_or(Unparsed::TooShort)?;
            header += VLAN_TAG;
        }
    }
    match ethertype {
        ETHERTYPE_IPV4 => {
            let bytes: [u8; IPV4_HEADER - IPV4_SOURCE] =
                frame.read(header + IPV4_SOURCE).ok_or(Unparsed::TooShort)?;
            let [a, b, c, d, ..] = bytes;
            Ok(Source::V4(V4 { address: [a, b, c, d], header }))
        }
        ETHERTYPE_IPV6 => {
            // Reading past the source to the end of the header makes a cut header count as too short.
            let bytes: [[u8; 16]; (IPV6_HEADER - IPV6_SOURCE) / 16] =
                frame.read(header + IPV6_SOURCE).ok_or(Unparsed::TooShort)?;
            let [address, _destination] = bytes;
            Ok(Source::V6(V6 { address, header }))
        }
        _ => Err(Unparsed::NotIp),
    }
}

impl V4 {
    /// 0.0.0.0, from which hosts without an address speak (DHCP).
    #[inline(always)]
    pub(crate) fn is_exempt(&self) -> bool {
        self.address == [0; 4]
    }
}

impl V6 {
    /// `::`, link-local sources (fe80::/10), and neighbour discovery from any: without it the host loses its neighbours.
    #[inline(always)]
    pub(crate) fn is_exempt(&self, frame: &Frame) -> bool {
        let [first, second, ..] = self.address;
        let link_local = first == 0xfe && second & 0xc0 == 0x80;
        link_local || self.address == [0; 16] || self.is_neighbour_discovery(frame)
    }

    #[inline(always)]
    fn is_neighbour_discovery(&self, frame: &Frame) -> bool {
        frame.read(self.header + IPV6_NEXT_HEADER) == Some(NEXT_HEADER_ICMPV6)
            && frame
                .read::<u8>(self.header + IPV6_HEADER)
                .is_some_and(|kind| NEIGHBOUR_DISCOVERY.contains(&kind))
    }
}
