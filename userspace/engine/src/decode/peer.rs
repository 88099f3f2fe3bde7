//! Addresses and ports as sshd writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memchr::memrchr;

/// The other end of a connection, as far as a message names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// None where sshd wrote a host name (`UseDNS yes`) or `UNKNOWN`.
    pub(crate) source: Option<IpAddr>,
    /// The port, where the form has one.
    pub(crate) port: Option<u16>,
}

/// Reads a numeric address, strictly: no host names, no leading zeros, nothing before or after it but the zone id of
/// an IPv6 address. A v4-mapped address is IPv4.
pub(crate) fn address(text: &[u8]) -> Option<IpAddr> {
    if let Some(v4) = ipv4(text) {
        return Some(IpAddr::V4(v4));
    }
    let text = match text.iter().position(|&b| b == b'%') {
        Some(at) => {
            let (address, zone) = text.split_at(at);
            let zone = zone.get(1..).filter(|zone| !zone.is_empty())?;
            zone.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b)).then_some(address)?
        }
        None => text,
    };
    // The longest form: eight groups of four, or six of them and a dotted quad.
    if text.len() > 45 || !text.contains(&b':') {
        return None;
    }
    let v6: Ipv6Addr = str::from_utf8(text).ok()?.parse().ok()?;
    Some(IpAddr::V6(v6).to_canonical())
}

/// Four numbers up to 255 without leading zeros, in one pass: every line has an address or two.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    if !(7..=15).contains(&text.len()) {
        return None;
    }
    let mut octets = [0u8; 4];
    let mut place = 0;
    let mut octet: Option<u8> = None;
    for &b in text {
        octet = match (b, octet) {
            (b'0'..=b'9', None) => Some(b - b'0'),
            // A zero before another digit.
            (b'0'..=b'9', Some(0)) => return None,
            (b'0'..=b'9', Some(octet)) => Some(octet.checked_mul(10)?.checked_add(b - b'0')?),
            (b'.', Some(octet)) => {
                *octets.get_mut(place)? = octet;
                place += 1;
                None
            }
            _ => return None,
        };
    }
    *octets.get_mut(place).filter(|_| place == 3)? = octet?;
    Some(octets.into())
}

/// Reads decimal digits and nothing else.
pub(crate) fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    text.iter().try_fold(0u32, |n, &b| {
        let digit = b.is_ascii_digit().then(|| u32::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

fn port(text: &[u8]) -> Option<u16> {
    if text.len() > 5 {
        return None;
    }
    number(text).and_then(|n| u16::try_from(n).ok())
}

/// Which bytes can stand in an address or a host name. Brackets and the like delimit it.
static HOST_BYTES: [bool; 256] = host_bytes();

const fn host_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        table[byte as usize] = !matches!(byte, b'[' | b']' | b'(' | b')' | b',' | b'@' | b'"' | b'\'' | b'/');
        byte += 1;
    }
    table
}

fn is_host_byte(b: u8) -> bool {
    HOST_BYTES.get(usize::from(b)).is_some_and(|&yes| yes)
}

/// Takes `ADDRESS port N` or `ADDRESS` off the end of `text`; what stands before it is returned first.
pub(crate) fn peer_at_end(text: &[u8]) -> Option<(&[u8], Peer)> {
    if let Some(space) = memrchr(b' ', text) {
        let (before, last) = text.split_at(space);
        if let (Some(before), Some(port)) = (before.strip_suffix(b" port"), port(&last[1..])) {
            let (before, source) = host_at_end(before)?;
            return Some((before, Peer { source, port: Some(port) }));
        }
    }
    let (before, source) = host_at_end(text)?;
    Some((before, Peer { source, port: None }))
}

/// Takes an address or a host name off the end of `text`.
pub(crate) fn host_at_end(text: &[u8]) -> Option<(&[u8], Option<IpAddr>)> {
    let start = text.iter().rposition(|&b| !is_host_byte(b)).map_or(0, |at| at + 1);
    let (before, host) = text.split_at(start);
    (!host.is_empty()).then(|| (before, address(host)))
}

/// Takes `ADDRESS port N` or `ADDRESS` off the beginning of `text`; what stands after it is returned first.
pub(crate) fn peer_at_start(text: &[u8]) -> Option<(&[u8], Peer)> {
    let (after, source) = host_at_start(text)?;
    let Some(digits) = after.strip_prefix(b" port ") else {
        return Some((after, Peer { source, port: None }));
    };
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, after) = digits.split_at(end);
    Some((after, Peer { source, port: Some(port(digits)?) }))
}

/// Takes an address or a host name off the beginning of `text`. A colon that ends it belongs to what follows.
pub(crate) fn host_at_start(text: &[u8]) -> Option<(&[u8], Option<IpAddr>)> {
    let end = text.iter().position(|&b| !is_host_byte(b)).unwrap_or(text.len());
    let mut host = text.split_at(end).0;
    let mut source = address(host);
    if let (None, Some(shorter)) = (source, host.strip_suffix(b":")) {
        host = shorter;
        source = address(host);
    }
    (!host.is_empty()).then(|| (text.split_at(host.len()).1, source))
}

/// Takes `ADDRESS/BITS` off the beginning of `text`. A network that is more than one address names no source.
pub(crate) fn network_at_start(text: &[u8]) -> Option<(&[u8], Option<IpAddr>)> {
    let (after, source) = host_at_start(text)?;
    let digits = after.strip_prefix(b"/")?;
    let end = digits.iter().position(|b| !b.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, after) = digits.split_at(end);
    let bits = number(digits)?;
    let exact = |source: &IpAddr| bits == if source.is_ipv4() { 32 } else { 128 };
    Some((after, source.filter(exact)))
}

/// Takes `PORT` off the beginning of `text`.
pub(crate) fn port_at_start(text: &[u8]) -> Option<(&[u8], u16)> {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, after) = text.split_at(end);
    Some((after, port(digits)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn reads_addresses_strictly() {
        for text in ["1.2.3.4", "255.255.255.255", "0.0.0.0", "::", "2001:db8::1", "fe80::1"] {
            assert_eq!(address(text.as_bytes()), ip(text), "{text}");
        }
        assert_eq!(address(b"::ffff:203.0.113.7"), ip("203.0.113.7"));
        assert_eq!(address(b"fe80::1%eth0"), ip("fe80::1"));
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "01.2.3.4",
            "1.2.3.4 ",
            "1.2.3.4%eth0",
            "+1.2.3.4",
            "0x1.2.3.4",
            "1..3.4",
            "fe80::1%",
            "fe80::1%e/0",
            "host",
            "UNKNOWN",
            "12345",
            "abc",
            "1:2:3:4:5:6:7:8:9",
            "[::1]",
        ] {
            assert_eq!(address(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn takes_the_peer_off_either_end() {
        let v4 = |port| Peer { source: ip("192.0.2.1"), port };
        assert_eq!(peer_at_end(b"x from 192.0.2.1 port 22"), Some((&b"x from "[..], v4(Some(22)))));
        assert_eq!(peer_at_end(b"x from 192.0.2.1"), Some((&b"x from "[..], v4(None))));
        assert_eq!(
            peer_at_end(b"from UNKNOWN port 65535"),
            Some((&b"from "[..], Peer { source: None, port: Some(65535) }))
        );
        assert_eq!(peer_at_end(b"from "), None);
        assert_eq!(peer_at_start(b"192.0.2.1 port 22:11: x"), Some((&b":11: x"[..], v4(Some(22)))));
        assert_eq!(peer_at_start(b"192.0.2.1: 11: x"), Some((&b": 11: x"[..], v4(None))));
        let v6 = Peer { source: ip("2001:db8::"), port: None };
        assert_eq!(peer_at_start(b"2001:db8::: 11: x"), Some((&b": 11: x"[..], v6)));
        assert_eq!(peer_at_start(b"192.0.2.1 port 70000"), None);
    }

    #[test]
    fn a_network_is_a_source_only_where_it_is_one_address() {
        assert_eq!(network_at_start(b"192.0.2.1/32: x"), Some((&b": x"[..], ip("192.0.2.1"))));
        assert_eq!(network_at_start(b"192.0.2.0/24 x"), Some((&b" x"[..], None)));
        assert_eq!(network_at_start(b"2001:db8::/64: x"), Some((&b": x"[..], None)));
        assert_eq!(network_at_start(b"192.0.2.1: x"), None);
    }
}
