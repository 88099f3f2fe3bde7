//! Default routes, from the tables of the kernel under `/proc`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{HostError, text};

/// The longest prefix that counts as default: a VPN often lays two routes of length 1 over the default route.
pub(super) const LONGEST_DEFAULT: u8 = 1;

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) interface: String,
    /// The length of the destination's prefix, at most [`LONGEST_DEFAULT`].
    pub(super) prefix_len: u8,
    /// None where the destination is on the link, as with a point-to-point one.
    pub(super) gateway: Option<IpAddr>,
}

/// The default routes of both families.
///
/// # Errors
/// A table cannot be read. One that is not there, since the kernel does not speak that protocol, is empty.
pub(super) fn read() -> Result<Vec<Route>, HostError> {
    let v4 = text("/proc/thread-self/net/route")?.unwrap_or_default();
    let v6 = text("/proc/thread-self/net/ipv6_route")?.unwrap_or_default();
    Ok(parse_v4(&v4).chain(parse_v6(&v6)).collect())
}

/// Reads the form of `/proc/net/route`: interface, destination, gateway, flags, three counters, mask, and more. The
/// addresses are numbers as the memory of this machine holds them (the kernel's net/ipv4/fib_trie.c,
/// fib_route_seq_show). The heading, in which nothing is a number, is passed over.
fn parse_v4(table: &str) -> impl Iterator<Item = Route> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let interface = fields.next()?;
        let gateway = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        let mask = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let [gateway, mask] = [gateway, mask].map(|number| Ipv4Addr::from(number.to_ne_bytes()));
        let prefix_len = u8::try_from(mask.to_bits().leading_ones()).ok()?;
        route(interface, prefix_len, flags, gateway.into())
    })
}

/// Reads the form of `/proc/net/ipv6_route`: destination and its length, source and its length, next hop, metric, two
/// counters, flags, interface; all numbers in hexadecimal (the kernel's net/ipv6/route.c and ip6_fib.c,
/// ipv6_route_native_seq_show).
fn parse_v6(table: &str) -> impl Iterator<Item = Route> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let prefix_len = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
        let gateway = u128::from_str_radix(fields.nth(2)?, 16).ok()?;
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        route(fields.next()?, prefix_len, flags, IpAddr::V6(Ipv6Addr::from_bits(gateway)))
    })
}

/// The route, if it is a default route that packets can take.
fn route(interface: &str, prefix_len: u8, flags: u32, gateway: IpAddr) -> Option<Route> {
    let up = flags & u32::from(libc::RTF_UP) != 0;
    let refused = flags & u32::from(libc::RTF_REJECT) != 0;
    if !up || refused || prefix_len > LONGEST_DEFAULT {
        return None;
    }
    let gateway = (flags & u32::from(libc::RTF_GATEWAY) != 0).then_some(gateway);
    Some(Route { interface: interface.to_owned(), prefix_len, gateway })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(interface: &str, prefix_len: u8, gateway: Option<&str>) -> Route {
        Route { interface: interface.into(), prefix_len, gateway: gateway.map(|g| g.parse().unwrap()) }
    }

    /// A line of `/proc/net/route`, its addresses as the memory of this machine holds them.
    fn v4(interface: &str, destination: &str, gateway: &str, flags: u32, mask: &str) -> String {
        let hex = |a: &str| format!("{:08X}", u32::from_ne_bytes(a.parse::<Ipv4Addr>().unwrap().octets()));
        let (destination, gateway, mask) = (hex(destination), hex(gateway), hex(mask));
        format!("{interface}\t{destination}\t{gateway}\t{flags:04X}\t0\t0\t100\t{mask}\t0\t0\t0      \n")
    }

    #[test]
    fn default_routes_of_ipv4() {
        let table = [
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT    \n"
                .to_owned(),
            v4("eth0", "0.0.0.0", "192.0.2.1", 3, "0.0.0.0"),
            v4("tun0", "0.0.0.0", "10.8.0.1", 3, "128.0.0.0"),
            v4("tun0", "128.0.0.0", "10.8.0.2", 3, "128.0.0.0"),
            v4("ppp0", "0.0.0.0", "0.0.0.0", 1, "0.0.0.0"),
            v4("eth0", "192.0.2.0", "0.0.0.0", 1, "255.255.255.0"),
            v4("eth0", "10.0.0.0", "192.0.2.7", 3, "255.0.0.0"),
            v4("*", "0.0.0.0", "0.0.0.0", 0x201, "0.0.0.0"),
            v4("eth9", "0.0.0.0", "192.0.2.9", 2, "0.0.0.0"),
            "eth0\tjunk\n\n".to_owned(),
        ]
        .concat();
        assert_eq!(
            parse_v4(&table).collect::<Vec<_>>(),
            [
                found("eth0", 0, Some("192.0.2.1")),
                found("tun0", 1, Some("10.8.0.1")),
                found("tun0", 1, Some("10.8.0.2")),
                found("ppp0", 0, None),
            ]
        );
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_of_a_real_host() {
        let line = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0                    \n";
        assert_eq!(parse_v4(line).collect::<Vec<_>>(), [found("eth0", 0, Some("192.0.2.1"))]);
    }

    #[test]
    fn default_routes_of_ipv6() {
        let none = "00000000000000000000000000000000";
        let table = format!(
            "fd000000000000000000000000000000 40 {none} 00 {none} 00000100 00000001 00000000 00000001     eth0\n\
             {none} 00 {none} 00 fe800000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n\
             {none} 00 {none} 00 {none} 00000400 00000002 00000000 00000001     wg0\n\
             {none} 00 {none} 00 {none} ffffffff 00000001 00000000 00200200       lo\n\
             {none} 00\n"
        );
        assert_eq!(
            parse_v6(&table).collect::<Vec<_>>(),
            [found("eth0", 0, Some("fe80::1")), found("wg0", 0, None)]
        );
    }

    proptest! {
        #[test]
        fn no_table_panics(table in "([a-z0]{0,4}[ \t]|[0-9A-Fé]{1,33}[ \t\n]){0,40}") {
            for route in parse_v4(&table).chain(parse_v6(&table)) {
                prop_assert!(route.prefix_len <= LONGEST_DEFAULT);
            }
        }
    }
}
