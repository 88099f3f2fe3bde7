//! Questions to the kernel over netlink: one request, and the messages that answer it.
//!
//! All numbers are in the order of this machine, as the kernel writes them (netlink(7)).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Of an attribute's type, the bits that are not flags.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// The kernel cuts an answer to what the reader has room for, and uses no more than this for one datagram of a dump.
const DATAGRAM: usize = 64 * 1024;

/// The kernel answers while it is asked, so that this is never waited for unless something is very wrong.
const TIMEOUT_S: i64 = 5;

// From linux/netlink.h, which libc does not have.
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("ask the kernel over netlink")]
    Socket(#[source] io::Error),
    /// The kernel said no.
    #[error("the kernel refused{}", .said.as_ref().map_or(String::new(), |said| format!(": {said}")))]
    Refused {
        /// Its reason in words, where it gave one.
        said: Option<String>,
        /// The number of the error.
        #[source]
        source: io::Error,
    },
    /// The answer is not of the form that netlink has.
    #[error("the kernel's answer over netlink is malformed")]
    Malformed,
}

/// A netlink socket that speaks with the kernel.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens one for rtnetlink.
    pub(crate) fn route() -> Result<Netlink, NetlinkError> {
        Netlink::open(SockProtocol::NetlinkRoute)
    }

    /// Opens one for generic netlink.
    pub(crate) fn generic() -> Result<Netlink, NetlinkError> {
        Netlink::open(SockProtocol::NetlinkGeneric)
    }

    fn open(protocol: SockProtocol) -> Result<Netlink, NetlinkError> {
        let failed = |error: nix::Error| NetlinkError::Socket(error.into());
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(failed)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT_S)).map_err(failed)?;
        explain_refusals(&socket).map_err(NetlinkError::Socket)?;
        Ok(Netlink { socket })
    }

    /// Sends a request, made by [`request`], and returns the bodies of the messages that answer it; none where the kernel
    /// only says that it is done.
    pub(crate) fn ask(&self, request: &[u8]) -> Result<Vec<Vec<u8>>, NetlinkError> {
        let failed = |error: nix::Error| NetlinkError::Socket(error.into());
        send(self.socket.as_raw_fd(), request, MsgFlags::empty()).map_err(failed)?;
        let mut bodies = Vec::new();
        let mut buffer = vec![0; DATAGRAM];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(failed)?;
            if read_datagram(buffer.get(..length).unwrap_or_default(), &mut bodies)? {
                return Ok(bodies);
            }
        }
    }
}

/// Has the kernel say in words why it refuses.
#[expect(unsafe_code, reason = "nix does not know the option")]
fn explain_refusals(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads the four bytes that `on` has, and keeps nothing of them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_EXT_ACK,
            (&raw const on).cast(),
            length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A request of type `kind`, whose body is the fixed part followed by attributes.
pub(crate) fn request(kind: u16, flags: libc::c_int, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
    let mut request = Vec::with_capacity(HEADER + body.len());
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]); // sequence number, port
    request.extend(body);
    request
}

/// An attribute, padded.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Takes the messages of a datagram apart. True where no further datagram will come.
fn read_datagram(mut datagram: &[u8], bodies: &mut Vec<Vec<u8>>) -> Result<bool, NetlinkError> {
    if datagram.is_empty() {
        return Err(NetlinkError::Malformed);
    }
    while !datagram.is_empty() {
        let length = read_u32(datagram, 0).and_then(|length| usize::try_from(length).ok());
        let message = length.filter(|length| *length >= HEADER).and_then(|length| datagram.get(..length));
        let (Some(message), Some(kind), Some(flags)) =
            (message, read_u16(datagram, 4), read_u16(datagram, 6))
        else {
            return Err(NetlinkError::Malformed);
        };
        let body = message.get(HEADER..).unwrap_or_default();
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => return acknowledged(body, flags).map(|()| true),
            libc::NLMSG_NOOP => {}
            _ => {
                bodies.push(body.to_vec());
                if i32::from(flags) & libc::NLM_F_MULTI == 0 {
                    return Ok(true);
                }
            }
        }
        datagram = datagram.get(message.len().next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct nlmsgerr`: the number, negative, or 0; the header of the request; and what was said of it.
fn acknowledged(body: &[u8], flags: u16) -> Result<(), NetlinkError> {
    let code = read_u32(body, 0).ok_or(NetlinkError::Malformed)?.cast_signed();
    if code == 0 {
        return Ok(());
    }
    let request =
        if flags & NLM_F_CAPPED != 0 { Some(HEADER) } else { read_u32(body, 4).map(|n| n as usize) };
    let said = (flags & NLM_F_ACK_TLVS != 0)
        .then(|| body.get(request?.checked_next_multiple_of(4)?.checked_add(4)?..))
        .flatten()
        .and_then(|attributes| Attributes(attributes).find(NLMSGERR_ATTR_MSG))
        .map(text)
        .filter(|said| !said.is_empty());
    Err(NetlinkError::Refused { said, source: io::Error::from_raw_os_error(code.saturating_neg()) })
}

/// The attributes in a run of bytes. What is malformed ends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first one of that type.
    pub(crate) fn find(mut self, wanted: u16) -> Option<&'a [u8]> {
        Iterator::find(&mut self, |(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    /// The attributes that are nested in the first one of that type.
    pub(crate) fn nested(self, wanted: u16) -> Attributes<'a> {
        Attributes(self.find(wanted).unwrap_or_default())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(read_u16(self.0, 0)?);
        let kind = read_u16(self.0, 2)? & ATTRIBUTE_TYPE;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A text that may end with a NUL.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// Two bytes at an offset.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Four bytes at an offset.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: libc::c_int, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut message = request(u16::try_from(kind).unwrap(), 0, body);
        message[6..8].copy_from_slice(&flags.to_ne_bytes());
        message
    }

    #[test]
    fn a_dump_ends_with_its_last_message() {
        let multi = u16::try_from(libc::NLM_F_MULTI).unwrap();
        let one = message(16, multi, &[1; 4]);
        let mut bodies = Vec::new();
        assert!(!read_datagram(&[one.clone(), one.clone()].concat(), &mut bodies).unwrap());
        assert!(read_datagram(&[one, message(libc::NLMSG_DONE, multi, &[])].concat(), &mut bodies).unwrap());
        assert_eq!(bodies, [[1; 4], [1; 4], [1; 4]]);
        assert!(read_datagram(&message(16, 0, &[2; 4]), &mut bodies).unwrap(), "one that is not of several");
    }

    #[test]
    fn what_the_kernel_says_of_a_refusal_is_kept() {
        let said = attribute(NLMSGERR_ATTR_MSG, b"Peer MTU is too large to set XDP\0");
        let capped = [&(-libc::ERANGE).to_ne_bytes()[..], &[0; HEADER], &said].concat();
        let whole = [&(-libc::ERANGE).to_ne_bytes()[..], &request(19, 0, &[7; 8]), &said].concat();
        for (flags, body) in [(NLM_F_CAPPED | NLM_F_ACK_TLVS, capped), (NLM_F_ACK_TLVS, whole)] {
            let error =
                read_datagram(&message(libc::NLMSG_ERROR, flags, &body), &mut Vec::new()).unwrap_err();
            let NetlinkError::Refused { said, source } = error else { panic!("{error:?}") };
            assert_eq!(said.as_deref(), Some("Peer MTU is too large to set XDP"));
            assert_eq!(source.raw_os_error(), Some(libc::ERANGE));
        }
        assert!(read_datagram(&message(libc::NLMSG_ERROR, 0, &[0; 20]), &mut Vec::new()).unwrap());
    }

    #[test]
    fn attributes_are_found_at_their_level() {
        let inner = attribute(7, b"inner");
        let bytes = [attribute(1, b"abc"), attribute(2 | 0x8000, &inner)].concat();
        let attributes = Attributes(&bytes);
        assert_eq!(attributes.find(1), Some(&b"abc"[..]));
        assert_eq!(attributes.find(7), None);
        assert_eq!(attributes.nested(2).find(7), Some(&b"inner"[..]));
        assert_eq!(attributes.nested(9).count(), 0);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(datagram in proptest::collection::vec(any::<u8>(), 0..200), flags in any::<u16>()) {
            let mut bodies = Vec::new();
            // Both answers are right; that there is one is what is asked.
            let _answer = read_datagram(&datagram, &mut bodies);
            let _answer = read_datagram(&message(libc::NLMSG_ERROR, flags, &datagram), &mut bodies);
            prop_assert!(Attributes(&datagram).count() <= datagram.len() / 4 + 1);
        }
    }
}
