//! The name servers that the host asks, as its resolver is told of them.

use std::net::IpAddr;

use super::{HostError, text};

/// Where a resolver on the host itself, which alone the first file names, writes the servers that it asks in turn:
/// systemd-resolved's and NetworkManager's.
const UPSTREAM: [&str; 2] = ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];

/// The name servers of `/etc/resolv.conf`, and those behind a local resolver.
///
/// # Errors
/// A file is there and cannot be read.
pub(super) fn name_servers() -> Result<Vec<IpAddr>, HostError> {
    let mut servers = parse(&text("/etc/resolv.conf")?.unwrap_or_default());
    if servers.iter().any(|server| server.to_canonical().is_loopback()) {
        for path in UPSTREAM {
            servers.extend(parse(&text(path)?.unwrap_or_default()));
        }
    }
    Ok(servers)
}

/// The addresses of the `nameserver` lines (resolv.conf(5)), without the zone that a link-local one may have. What is
/// no address, no resolver could ask.
fn parse(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = (words.next()? == "nameserver").then(|| words.next())??;
            address.split('%').next()?.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_of_a_file() {
        let text = "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nsearch example.org\nnameserver 192.0.2.53\r\n\
                    nameserver\t2001:db8::53 \nnameserver fe80::1%eth0\nnameserver\nnameserver dns.example\n\
                    nameservers 192.0.2.3\noptions edns0\nnameserver 127.0.0.53 # stub";
        let expected: Vec<IpAddr> =
            ["192.0.2.53", "2001:db8::53", "fe80::1", "127.0.0.53"].map(|a| a.parse().unwrap()).into();
        assert_eq!(parse(text), expected);
    }
}
