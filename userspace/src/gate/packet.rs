//! Packets for asking the program what it would do: as short as they can be and still be whole.

use std::net::IpAddr;

const ETHERNET_ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const HOP_LIMIT: u8 = 64;

/// A TCP packet from `source`, cut off behind its IP header.
pub(super) fn from(source: IpAddr) -> Vec<u8> {
    let mut packet = ETHERNET_ADDRESSES.to_vec();
    match source {
        IpAddr::V4(source) => {
            packet.extend(ETHERTYPE_IPV4);
            packet.extend([0x45, 0, 0, 20, 0, 0, 0, 0, HOP_LIMIT, TCP, 0, 0]);
            packet.extend(source.octets());
            packet.extend([0; 4]);
        }
        IpAddr::V6(source) => {
            packet.extend(ETHERTYPE_IPV6);
            packet.extend([0x60, 0, 0, 0, 0, 0, TCP, HOP_LIMIT]);
            packet.extend(source.octets());
            packet.extend([0; 16]);
        }
    }
    packet
}

/// An ARP request without its addresses.
pub(super) fn arp() -> Vec<u8> {
    let mut packet = ETHERNET_ADDRESSES.to_vec();
    packet.extend(ETHERTYPE_ARP);
    packet.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    packet.resize(42, 0);
    packet
}
