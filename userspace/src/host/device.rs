//! What drivers say of themselves: their name, what they can do with XDP, and which offloads are on.

use std::fs;
use std::path::Path;

use super::links::Link;
use super::netlink::{Attributes, Netlink, NetlinkError, attribute, read_u16, request, text};

/// The length of `struct genlmsghdr`.
const HEADER: usize = 4;

// From linux/genetlink.h, linux/netdev.h and linux/ethtool_netlink.h, which libc does not have.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// What a driver can do with XDP, from kernel 6.3 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Whether it runs programs at all.
    pub native: bool,
    /// Whether it takes packets in several buffers, so that the MTU does not matter.
    pub several_buffers: bool,
}

/// The driver of an interface: that of the hardware, or the kind of a virtual one.
pub fn driver(link: &Link) -> Option<String> {
    let path = Path::new("/sys/class/net").join(&link.name).join("device/driver");
    // Virtual ones have none, and a namespace need not have a /sys of its own.
    let hardware = fs::read_link(path).ok();
    let name = hardware.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.or_else(|| link.kind.clone())
}

/// What the driver can do with XDP; none where the kernel cannot tell.
pub fn xdp_features(link: &Link) -> Option<XdpFeatures> {
    // The kernel is too old to know; the caller says so.
    read_xdp_features(link).ok().flatten()
}

fn read_xdp_features(link: &Link) -> Result<Option<XdpFeatures>, NetlinkError> {
    let body = attribute(NETDEV_A_DEV_IFINDEX, &link.index.to_ne_bytes());
    let answers = ask("netdev", NETDEV_CMD_DEV_GET, &body)?;
    let value = answers
        .first()
        .and_then(|answer| Attributes(answer.get(HEADER..)?).find(NETDEV_A_DEV_XDP_FEATURES))
        .and_then(|value| value.first_chunk());
    // NETDEV_XDP_ACT_BASIC and NETDEV_XDP_ACT_RX_SG.
    Ok(value
        .map(|value| u64::from_ne_bytes(*value))
        .map(|bits| XdpFeatures { native: bits & 1 != 0, several_buffers: bits & (1 << 5) != 0 }))
}

/// The names of the offloads that are on, as `ethtool -k` knows them to the kernel; none where it cannot tell.
pub fn offloads(link: &Link) -> Option<Vec<String>> {
    // Before 5.6 the kernel does not know the question; the caller says that it is not known.
    read_offloads(link).ok().flatten()
}

fn read_offloads(link: &Link) -> Result<Option<Vec<String>>, NetlinkError> {
    let index = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &link.index.to_ne_bytes());
    let body = attribute(ETHTOOL_A_FEATURES_HEADER | 0x8000, &index);
    let answers = ask("ethtool", ETHTOOL_MSG_FEATURES_GET, &body)?;
    Ok(answers.first().and_then(|answer| answer.get(HEADER..)).map(|attributes| {
        Attributes(attributes)
            .nested(ETHTOOL_A_FEATURES_ACTIVE)
            .nested(ETHTOOL_A_BITSET_BITS)
            .filter_map(|(_, bit)| Attributes(bit).find(ETHTOOL_A_BITSET_BIT_NAME).map(text))
            .collect()
    }))
}

/// Asks a family of generic netlink.
fn ask(family: &str, command: u8, body: &[u8]) -> Result<Vec<Vec<u8>>, NetlinkError> {
    let netlink = Netlink::generic()?;
    let message = |command: u8, body: &[u8]| [&[command, 1, 0, 0][..], body].concat();
    let name = attribute(CTRL_ATTR_FAMILY_NAME, &[family.as_bytes(), &[0]].concat());
    let found = netlink.ask(&request(GENL_ID_CTRL, 0, &message(CTRL_CMD_GETFAMILY, &name)))?;
    let id = found
        .first()
        .and_then(|answer| Attributes(answer.get(HEADER..)?).find(CTRL_ATTR_FAMILY_ID))
        .and_then(|value| read_u16(value, 0))
        .ok_or(NetlinkError::Malformed)?;
    netlink.ask(&request(id, 0, &message(command, body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host;

    #[test]
    fn loopback_tells_of_its_offloads_to_anybody() {
        let links = host::links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        let offloads = offloads(lo).expect("this test needs CONFIG_ETHTOOL_NETLINK");
        assert!(offloads.iter().any(|name| name == "loopback"), "{offloads:?}");
        assert_eq!(driver(lo), None);
        if let Some(features) = xdp_features(lo) {
            assert!(!features.native, "loopback has no native XDP");
        }
    }
}
