//! The questions to rtnetlink that aya has no answer for: what kind of interface one is, and which XDP program is on it.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The length of `struct nlmsghdr`, and of `struct ifinfomsg` behind it.
const HEADER: usize = 16;
const INTERFACE: usize = 16;

/// Of an attribute's type, the bits that are not flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// What the kernel says of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Whether its frames begin with an Ethernet header.
    pub(super) is_ethernet: bool,
    /// The id of the XDP program that is attached to it, in whatever way.
    pub(super) xdp_program: Option<u32>,
}

/// Asks the kernel about the interface with that index.
pub(super) fn interface(index: u32) -> io::Result<Interface> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    // A netlink socket that is not connected speaks with the kernel.
    send(socket.as_raw_fd(), &request(index), MsgFlags::empty())?;
    // The kernel cuts what does not fit; an interface's description is far shorter.
    let mut answer = vec![0; 64 * 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    parse(answer.get(..length).unwrap_or_default())
}

/// `RTM_GETLINK` for one interface.
fn request(index: u32) -> Vec<u8> {
    let length = u32::try_from(HEADER + INTERFACE).unwrap_or(0);
    let flags = u16::try_from(libc::NLM_F_REQUEST).unwrap_or(0);
    let mut request = Vec::with_capacity(HEADER + INTERFACE);
    request.extend(length.to_ne_bytes());
    request.extend(libc::RTM_GETLINK.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]); // sequence number, port
    request.extend([0; 4]); // family, padding, type
    request.extend(index.to_ne_bytes());
    request.extend([0; 8]); // flags, mask
    request
}

fn parse(answer: &[u8]) -> io::Result<Interface> {
    let malformed =
        || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer about the interface is malformed");
    let kind = read_u16(answer, 4).ok_or_else(malformed)?;
    if i32::from(kind) == libc::NLMSG_ERROR {
        let code =
            answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(-code.ok_or_else(malformed)?));
    }
    let attributes = answer.get(HEADER + INTERFACE..).ok_or_else(malformed)?;
    let link_type = read_u16(answer, HEADER + 2).ok_or_else(malformed)?;
    let xdp = attribute(attributes, libc::IFLA_XDP).unwrap_or_default();
    let xdp_program = [IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID]
        .into_iter()
        .filter_map(|kind| attribute(xdp, kind))
        .find_map(|value| Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?)))
        .filter(|id| *id != 0);
    Ok(Interface { is_ethernet: link_type == libc::ARPHRD_ETHER, xdp_program })
}

// From the kernel's enum in linux/if_link.h, which libc does not have.
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;

/// The value of the first attribute of that type.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(read_u16(attributes, 0)?);
        let kind = read_u16(attributes, 2)? & ATTRIBUTE_TYPE;
        if kind == wanted {
            return attributes.get(4..length);
        }
        if length < 4 {
            return None;
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + INTERFACE];
        bytes[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        bytes[HEADER + 2..HEADER + 4].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn finds_the_program_among_other_attributes() {
        let xdp = [attr(2, &[1]), attr(IFLA_XDP_PROG_ID, &7u32.to_ne_bytes())].concat();
        let nested = libc::IFLA_XDP | 0x8000;
        let attributes = [attr(3, b"eth0\0"), attr(nested, &xdp)].concat();
        let expected = Interface { is_ethernet: true, xdp_program: Some(7) };
        assert_eq!(parse(&answer(&attributes)).unwrap(), expected);
        let expected = Interface { is_ethernet: true, xdp_program: None };
        assert_eq!(parse(&answer(&attr(3, b"eth0\0"))).unwrap(), expected);
    }

    #[test]
    fn every_cut_of_an_answer_is_harmless() {
        let xdp = attr(IFLA_XDP_PROG_ID, &7u32.to_ne_bytes());
        let whole = answer(&attr(libc::IFLA_XDP, &xdp));
        for length in 0..whole.len() {
            let found = parse(&whole[..length]).ok().and_then(|interface| interface.xdp_program);
            assert_eq!(found, None, "{length}");
        }
        assert_eq!(parse(&answer(&[0; 64])).unwrap().xdp_program, None);
    }
}
