//! What differs between the tables of IPv4 and those of IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use aya::Pod;
use xdpban_common::{Kind, filter4, filter6, hash4, hash6};

/// IPv4 or IPv6.
pub(super) trait Family {
    /// An address in a slot.
    type Key: Pod + PartialEq;
    /// What fills a slot up.
    type Fill: Copy;
    const FILL: Self::Fill;
    /// The length of an address in bits.
    const BITS: u8;

    /// The address, if it is of this family.
    fn key(address: IpAddr) -> Option<Self::Key>;
    fn address(key: Self::Key) -> IpAddr;
    fn hash(seed: u64, key: Self::Key, prefix_len: u8) -> u64;
    /// Whether prefixes of this length count as blocks of single sources.
    fn is_exact(prefix_len: u8) -> bool;
    /// The bits of the filter that a prefix touches; none where it does not tell of such a length.
    fn filter_bits(seed: u64, key: Self::Key, prefix_len: u8) -> Range<u32>;
    /// What the program is told of blocks of a length: which kinds there are.
    fn kinds(prefix_len: u8) -> u32;
}

#[derive(Debug)]
pub(super) struct V4;

#[derive(Debug)]
pub(super) struct V6;

impl Family for V4 {
    type Key = [u8; 4];
    type Fill = [u32; 0];
    const FILL: [u32; 0] = [];
    const BITS: u8 = 32;

    fn key(address: IpAddr) -> Option<[u8; 4]> {
        if let IpAddr::V4(address) = address { Some(address.octets()) } else { None }
    }

    fn address(key: [u8; 4]) -> IpAddr {
        Ipv4Addr::from(key).into()
    }

    fn hash(seed: u64, key: [u8; 4], prefix_len: u8) -> u64 {
        hash4(seed, u32::from_be_bytes(key), prefix_len)
    }

    fn is_exact(prefix_len: u8) -> bool {
        prefix_len == 32
    }

    fn filter_bits(_seed: u64, key: [u8; 4], prefix_len: u8) -> Range<u32> {
        let first = filter4(u32::from_be_bytes(key));
        first..first + (1 << 24u8.saturating_sub(prefix_len))
    }

    fn kinds(prefix_len: u8) -> u32 {
        bit(if prefix_len == 32 { Kind::Host4 } else { Kind::Prefix4 })
    }
}

impl Family for V6 {
    type Key = [u8; 16];
    type Fill = [u32; 5];
    const FILL: [u32; 5] = [0; 5];
    const BITS: u8 = 128;

    fn key(address: IpAddr) -> Option<[u8; 16]> {
        if let IpAddr::V6(address) = address { Some(address.octets()) } else { None }
    }

    fn address(key: [u8; 16]) -> IpAddr {
        Ipv6Addr::from(key).into()
    }

    fn hash(seed: u64, key: [u8; 16], prefix_len: u8) -> u64 {
        let (high, low) = halves(key);
        hash6(seed, high, low, prefix_len)
    }

    fn is_exact(prefix_len: u8) -> bool {
        matches!(prefix_len, 64 | 128)
    }

    fn filter_bits(seed: u64, key: [u8; 16], prefix_len: u8) -> Range<u32> {
        let bit = filter6(seed, halves(key).0);
        bit..bit + u32::from(prefix_len >= 64)
    }

    fn kinds(prefix_len: u8) -> u32 {
        match prefix_len {
            128 => bit(Kind::Host6),
            64 => bit(Kind::Net6),
            0..64 => bit(Kind::Prefix6) | bit(Kind::Short6),
            _ => bit(Kind::Prefix6),
        }
    }
}

fn bit(kind: Kind) -> u32 {
    1 << kind as u32
}

/// The two halves of an IPv6 address.
fn halves(key: [u8; 16]) -> (u64, u64) {
    let bits = u128::from_be_bytes(key);
    #[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
    ((bits >> 64) as u64, bits as u64)
}
