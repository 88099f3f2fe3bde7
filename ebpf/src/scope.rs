//! Whether a packet is one of those that a measure is for, by its protocol, its destination port and its TCP flags.

use xdpban_common::Special;

use crate::frame::Frame;
use crate::source::{IPV6_HEADER, IPV6_NEXT_HEADER, Source};

const TCP: u8 = 6;
const UDP: u8 = 17;

const IPV4_LENGTH: usize = 0;
const IPV4_FRAGMENT: usize = 6;
const IPV4_PROTOCOL: usize = 9;
/// Of the field at [`IPV4_FRAGMENT`]: where in its packet the fragment begins.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// Extension headers of IPv6 that are looked behind (RFC 8200): hop-by-hop, routing, destination options. Behind a
/// fragment header there are ports in the first fragment alone.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const FRAGMENT: u8 = 44;
const FRAGMENT_HEADER: usize = 8;
/// The most extension headers that are looked behind.
const MAX_EXTENSIONS: usize = 4;

const DESTINATION_PORT: usize = 2;
const TCP_FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Where the transport header is, and of which protocol.
#[derive(Clone, Copy)]
struct Transport {
    protocol: u8,
    offset: usize,
}

/// Whether the packet goes to one of `ports` (any, where all are 0) and, with `new_only`, opens a TCP connection.
/// One of which that cannot be told does not.
#[inline(always)]
pub(crate) fn contains(
    frame: &Frame,
    source: &Source,
    ports: &[u16; Special::PORTS],
    new_only: bool,
) -> bool {
    let any_port = ports[0] == 0;
    if any_port && !new_only {
        return true;
    }
    let transport = match source {
        Source::V4(v4) => transport4(frame, v4.header),
        Source::V6(v6) => transport6(frame, v6.header),
    };
    let Some(Transport { protocol, offset }) = transport else { return false };
    if new_only && !(protocol == TCP && opens_connection(frame, offset)) {
        return false;
    }
    any_port || ((protocol == TCP || protocol == UDP) && goes_to(frame, offset, ports))
}

#[inline(always)]
fn opens_connection(frame: &Frame, offset: usize) -> bool {
    frame.read::<u8>(offset + TCP_FLAGS).is_some_and(|flags| flags & (SYN | ACK) == SYN)
}

#[inline(always)]
fn goes_to(frame: &Frame, offset: usize, ports: &[u16; Special::PORTS]) -> bool {
    let Some(port) = frame.read_u16(offset + DESTINATION_PORT) else { return false };
    port != 0 && ports.contains(&port)
}

#[inline(always)]
fn transport4(frame: &Frame, header: usize) -> Option<Transport> {
    let length: u8 = frame.read(header + IPV4_LENGTH)?;
    let fragment = frame.read_u16(header + IPV4_FRAGMENT)?;
    let protocol = frame.read(header + IPV4_PROTOCOL)?;
    if fragment & FRAGMENT_OFFSET != 0 {
        return None;
    }
    Some(Transport { protocol, offset: header + usize::from(length & 0x0f) * 4 })
}

#[inline(always)]
fn transport6(frame: &Frame, header: usize) -> Option<Transport> {
    let mut protocol: u8 = frame.read(header + IPV6_NEXT_HEADER)?;
    let mut offset = header + IPV6_HEADER;
    let mut extension = 0;
    while extension <= MAX_EXTENSIONS {
        if EXTENSIONS.contains(&protocol) {
            let [next, length]: [u8; 2] = frame.read(offset)?;
            protocol = next;
            offset += (usize::from(length) + 1) * 8;
        } else if protocol == FRAGMENT {
            let [next, _, high, low]: [u8; 4] = frame.read(offset)?;
            if u16::from_be_bytes([high, low]) & !7 != 0 {
                return None;
            }
            protocol = next;
            offset += FRAGMENT_HEADER;
        } else {
            return Some(Transport { protocol, offset });
        }
        extension += 1;
    }
    None
}
