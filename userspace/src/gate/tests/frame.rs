//! Frames, byte by byte.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) const VLAN: u16 = 0x8100;
pub(super) const SERVICE_VLAN: u16 = 0x88a8;
pub(super) const OLD_SERVICE_VLAN: u16 = 0x9100;
pub(super) const TCP: u8 = 6;
pub(super) const ICMPV6: u8 = 58;
pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;

/// A frame whose Ethernet header is followed by tags, then by a payload of `ethertype`.
pub(super) fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend(100u16.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A TCP segment over IPv4.
pub(super) fn ipv4(source: &str) -> Vec<u8> {
    tagged_ipv4(&[], source)
}

pub(super) fn tagged_ipv4(tags: &[u16], source: &str) -> Vec<u8> {
    let source: Ipv4Addr = source.parse().unwrap();
    let mut packet = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, TCP, 0, 0];
    packet.extend(source.octets());
    packet.extend([198, 51, 100, 1]);
    packet.extend([0; 20]);
    ethernet(tags, 0x0800, &packet)
}

/// A TCP segment over IPv6.
pub(super) fn ipv6(source: &str) -> Vec<u8> {
    tagged_ipv6(&[], source)
}

pub(super) fn tagged_ipv6(tags: &[u16], source: &str) -> Vec<u8> {
    ethernet(tags, 0x86dd, &ipv6_packet(source, TCP, &[0; 20]))
}

/// A TCP segment to that port with those flags, over the protocol of its source.
pub(super) fn ip_tcp(source: &str, port: u16, flags: u8) -> Vec<u8> {
    let mut frame = if source.contains(':') { ipv6(source) } else { ipv4(source) };
    let header = frame.len() - 20;
    frame[header + 2..header + 4].copy_from_slice(&port.to_be_bytes());
    frame[header + 13] = flags;
    frame
}

/// An ICMPv6 message of that type.
pub(super) fn icmpv6(source: &str, kind: u8) -> Vec<u8> {
    ethernet(&[], 0x86dd, &ipv6_packet(source, ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]))
}

fn ipv6_packet(source: &str, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().unwrap();
    let destination: Ipv6Addr = "2001:db8:ffff::1".parse().unwrap();
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next_header, 255];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}
