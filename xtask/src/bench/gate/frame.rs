//! The frames that are sent: an attempt to open a connection to port 22, with checksums that are right, so that every contestant
//! gets what it would get from an attacker.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::program::Places;

/// The least that Ethernet carries.
const LENGTH: usize = 60;

const ETHERNET: usize = 14;
const IPV4: usize = 20;

/// A SYN over IPv4, between the bench's interfaces.
pub(super) fn syn(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut frame = headers(super::lab::OUT_MAC, super::lab::IN_MAC, 0x0800);
    frame.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    let ip = checksum(&frame[ETHERNET..]);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&ip);
    frame.extend(tcp());
    let pseudo = sum(&frame[ETHERNET + 12..ETHERNET + IPV4]) + 6 + 20;
    let tcp = complement(pseudo + sum(&frame[ETHERNET + IPV4..]));
    frame[ETHERNET + IPV4 + 16..ETHERNET + IPV4 + 18].copy_from_slice(&tcp);
    frame.resize(LENGTH, 0);
    frame
}

/// The places of what differs by source in a frame from [`syn`] to `destination`.
pub(super) fn places(destination: Ipv4Addr) -> Places {
    let without_source = syn(Ipv4Addr::UNSPECIFIED, destination);
    let rest = |place: usize| {
        let checksum = u16::from_be_bytes([without_source[place], without_source[place + 1]]);
        u32::from(!checksum)
    };
    let (ip, tcp) = (ETHERNET + 10, ETHERNET + IPV4 + 16);
    let number = |place: usize| u16::try_from(place).unwrap_or(0);
    Places {
        length: 54,
        source: number(ETHERNET + 12),
        checksums: [(number(ip), rest(ip)), (number(tcp), rest(tcp))],
    }
}

/// A SYN over IPv6, for programs alone: its checksum is not looked at.
pub(super) fn syn6(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut frame = headers(super::lab::OUT_MAC, super::lab::IN_MAC, 0x86dd);
    frame.extend([0x60, 0, 0, 0, 0, 20, 6, 64]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(tcp());
    frame
}

fn headers(from: [u8; 6], to: [u8; 6], kind: u16) -> Vec<u8> {
    [to.as_slice(), &from, &kind.to_be_bytes()].concat()
}

fn tcp() -> [u8; 20] {
    let [high, low] = 40_000u16.to_be_bytes();
    [high, low, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    complement(sum(bytes))
}

fn complement(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!u16::try_from(sum).unwrap_or(0)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_come_out_as_the_kernel_checks_them() {
        let frame = syn(Ipv4Addr::new(10, 0, 0, 7), Ipv4Addr::new(192, 168, 99, 2));
        assert_eq!(checksum(&frame[14..34]), [0, 0]);
        let pseudo = sum(&frame[26..34]) + 6 + 20;
        assert_eq!(complement(pseudo + sum(&frame[34..54])), [0, 0]);
    }
}
