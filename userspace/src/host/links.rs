//! The interfaces of this network namespace, as rtnetlink describes them.

use super::HostError;
use super::netlink::{Attributes, Netlink, NetlinkError, attribute, read_u16, read_u32, request, text};

/// The length of `struct ifinfomsg`, before the attributes.
const INFO: usize = 16;

// From linux/if_link.h, which libc does not have.
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_IPVLAN_MODE: u16 = 1;

/// What ipvlan hands to its upper interface behind every hook of that interface.
const IPVLAN_MODE_L3S: u16 = 2;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number, which a renamed one keeps.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Further names that `ip link` calls altnames.
    pub other_names: Vec<String>,
    /// What its frames begin with: a number of `ARPHRD_*`.
    pub hardware: u16,
    /// Whether it is up.
    pub up: bool,
    /// The longest packet, without the Ethernet header, in bytes.
    pub mtu: u32,
    /// What made it, such as `vlan` or `bridge`; none for hardware.
    pub kind: Option<String>,
    /// For one that is laid over another: that one's index, where it is in this namespace. For a veth: its peer.
    pub beneath: Option<u32>,
    /// The index of the bond, bridge or other master that it belongs to.
    pub master: Option<u32>,
    /// The id of the XDP program on it, in whatever mode.
    pub xdp_program: Option<u32>,
    /// Whether it is an ipvlan in mode l3s.
    pub is_l3s: bool,
}

impl Link {
    /// Whether it goes by that name.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.other_names.iter().any(|other| other == name)
    }

    /// Whether its frames begin with an Ethernet header.
    pub fn is_ethernet(&self) -> bool {
        self.hardware == libc::ARPHRD_ETHER
    }
}

/// All interfaces of the calling thread's network namespace, in the order of their numbers.
///
/// # Errors
/// The kernel does not tell.
pub fn links() -> Result<Vec<Link>, HostError> {
    let mut links = dump().map_err(|source| HostError::Links { source })?;
    links.sort_by_key(|link| link.index);
    Ok(links)
}

fn dump() -> Result<Vec<Link>, NetlinkError> {
    let mut body = vec![0; INFO];
    body.extend(attribute(libc::IFLA_EXT_MASK, &libc::RTEXT_FILTER_SKIP_STATS.to_ne_bytes()));
    let bodies = Netlink::route()?.ask(&request(libc::RTM_GETLINK, libc::NLM_F_DUMP, &body))?;
    bodies.iter().map(|body| parse(body).ok_or(NetlinkError::Malformed)).collect()
}

/// Reads a message of `RTM_NEWLINK`.
fn parse(body: &[u8]) -> Option<Link> {
    let attributes = Attributes(body.get(INFO..)?);
    let number = |kind| attributes.find(kind).and_then(|value| read_u32(value, 0));
    let info = attributes.nested(libc::IFLA_LINKINFO);
    let kind = info.find(libc::IFLA_INFO_KIND).map(text);
    let ipvlan_mode = info.nested(libc::IFLA_INFO_DATA).find(IFLA_IPVLAN_MODE);
    let is_ipvlan = kind.as_deref().is_some_and(|kind| kind.starts_with("ipv"));
    let is_here = attributes.find(libc::IFLA_LINK_NETNSID).is_none();
    let xdp = attributes.nested(libc::IFLA_XDP);
    let flags = read_u32(body, 8)?;
    let index = read_u32(body, 4)?;
    Some(Link {
        index,
        name: text(attributes.find(libc::IFLA_IFNAME)?),
        other_names: attributes
            .nested(libc::IFLA_PROP_LIST)
            .filter(|(kind, _)| *kind == libc::IFLA_ALT_IFNAME)
            .map(|(_, name)| text(name))
            .collect(),
        hardware: read_u16(body, 2)?,
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        mtu: number(libc::IFLA_MTU).unwrap_or(0),
        beneath: number(libc::IFLA_LINK).filter(|beneath| is_here && *beneath != 0 && *beneath != index),
        master: number(libc::IFLA_MASTER),
        xdp_program: [IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID]
            .into_iter()
            .filter_map(|kind| read_u32(xdp.find(kind)?, 0))
            .find(|id| *id != 0),
        is_l3s: is_ipvlan && ipvlan_mode.and_then(|mode| read_u16(mode, 0)) == Some(IPVLAN_MODE_L3S),
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; INFO];
        bytes[2..4].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
        bytes[4..8].copy_from_slice(&7u32.to_ne_bytes());
        bytes[8..12].copy_from_slice(&libc::IFF_UP.to_ne_bytes());
        bytes.extend(attributes);
        bytes
    }

    fn vlan() -> Vec<u8> {
        let xdp = [attribute(2, &[1]), attribute(IFLA_XDP_PROG_ID, &9u32.to_ne_bytes())].concat();
        let names = attribute(libc::IFLA_ALT_IFNAME, b"guests\0");
        [
            attribute(libc::IFLA_IFNAME, b"eth0.100\0"),
            attribute(libc::IFLA_MTU, &1500u32.to_ne_bytes()),
            attribute(libc::IFLA_LINK, &2u32.to_ne_bytes()),
            attribute(libc::IFLA_MASTER, &3u32.to_ne_bytes()),
            attribute(libc::IFLA_XDP | 0x8000, &xdp),
            attribute(libc::IFLA_LINKINFO, &attribute(libc::IFLA_INFO_KIND, b"vlan\0")),
            attribute(libc::IFLA_PROP_LIST | 0x8000, &names),
        ]
        .concat()
    }

    #[test]
    fn a_message_becomes_an_interface() {
        let expected = Link {
            index: 7,
            name: "eth0.100".into(),
            other_names: vec!["guests".into()],
            hardware: libc::ARPHRD_ETHER,
            up: true,
            mtu: 1500,
            kind: Some("vlan".into()),
            beneath: Some(2),
            master: Some(3),
            xdp_program: Some(9),
            is_l3s: false,
        };
        assert_eq!(parse(&body(&vlan())), Some(expected.clone()));
        // The number of an interface in another namespace means nothing in this one.
        let elsewhere = [vlan(), attribute(libc::IFLA_LINK_NETNSID, &[0; 4])].concat();
        assert_eq!(parse(&body(&elsewhere)), Some(Link { beneath: None, ..expected }));
    }

    #[test]
    fn the_mode_of_an_ipvlan_is_read() {
        for (kind, mode, is_l3s) in [("ipvlan", 2u16, true), ("ipvlan", 1, false), ("macvlan", 2, false)] {
            let info = [
                attribute(libc::IFLA_INFO_KIND, kind.as_bytes()),
                attribute(libc::IFLA_INFO_DATA, &attribute(IFLA_IPVLAN_MODE, &mode.to_ne_bytes())),
            ]
            .concat();
            let attributes = [attribute(libc::IFLA_IFNAME, b"x\0"), attribute(libc::IFLA_LINKINFO, &info)];
            assert_eq!(parse(&body(&attributes.concat())).unwrap().is_l3s, is_l3s, "{kind} {mode}");
        }
    }

    #[test]
    fn every_cut_of_a_message_is_harmless() {
        let whole = body(&vlan());
        for length in 0..whole.len() {
            if let Some(link) = parse(&whole[..length]) {
                assert_eq!(link.name, "eth0.100", "{length}");
            }
        }
        assert_eq!(parse(&body(&[0; 64])), None);
    }
}
