//! Word from the kernel that interfaces, addresses or default routes changed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::HostError;
use super::routes::LONGEST_DEFAULT;

/// How long changes are gathered before they are reported: an interface that comes up is a dozen of them.
const GATHER: Duration = Duration::from_millis(100);

/// When to look again although nothing was said: nobody tells when the name servers change.
const RECHECK: Duration = Duration::from_secs(60);

/// The groups of messages that are listened to (rtnetlink(7)).
const GROUPS: libc::c_int = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE;

/// Watches the network namespace in which it was made.
#[derive(Debug)]
pub struct Watcher {
    socket: AsyncFd<OwnedFd>,
    /// When to report next. Kept here, so that nothing is lost when a caller gives up waiting.
    due: Instant,
}

impl Watcher {
    /// Begins to watch. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// The system refuses the socket.
    pub fn new() -> Result<Watcher, HostError> {
        let refused = |source: io::Error| HostError::Watch { source };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
            .map_err(|errno| refused(errno.into()))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS.unsigned_abs()))
            .map_err(|errno| refused(errno.into()))?;
        let socket = register(socket).map_err(refused)?;
        Ok(Watcher { socket, due: Instant::now() + RECHECK })
    }

    /// Waits until the interfaces, the addresses or the default routes may have changed, and a tenth of a second longer
    /// for what comes with it; at most a minute, since the name servers can change unannounced.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// The socket failed; this does not heal.
    pub async fn changed(&mut self) -> Result<(), HostError> {
        // One message is 32 KiB at most (NLMSG_GOODSIZE in the kernel's netlink.h); the first bytes of a longer one
        // would be enough.
        let mut buffer = vec![0; 32 * 1024];
        while Instant::now() < self.due {
            let Ok(ready) = timeout_at(self.due, self.socket.readable()).await else { break };
            let mut ready = ready.map_err(|source| HostError::Watch { source })?;
            let received = ready.try_io(|socket| {
                recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)
            });
            let relevant = match received {
                Err(_would_block) => false,
                Ok(Ok(length)) => matters(buffer.get(..length).unwrap_or_default()),
                Ok(Err(error)) => match error.raw_os_error().map(Errno::from_raw) {
                    // More happened than the socket could hold.
                    Some(Errno::ENOBUFS) => true,
                    Some(Errno::EINTR) => false,
                    _ => return Err(HostError::Watch { source: error }),
                },
            };
            if relevant {
                self.due = self.due.min(Instant::now() + GATHER);
            }
        }
        self.due = Instant::now() + RECHECK;
        Ok(())
    }
}

/// Hands the socket to tokio.
#[expect(unsafe_code, reason = "tokio has no safe way for sockets that are not its own")]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives, gives the same descriptor each time, and lives in the
    // `AsyncFd`, which hands it to nobody.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}

/// Whether a datagram of netlink messages tells of anything but routes that are not default routes. A router with the
/// whole Internet's routes hears of those all the time.
fn matters(mut datagram: &[u8]) -> bool {
    /// The bytes of a `struct nlmsghdr`: length, type, flags, sequence, port, in the order of this machine.
    const HEADER: usize = 16;
    while !datagram.is_empty() {
        let (Some([l0, l1, l2, l3, t0, t1]), Some(body)) = (datagram.first_chunk(), datagram.get(HEADER..))
        else {
            return true;
        };
        let length = usize::try_from(u32::from_ne_bytes([*l0, *l1, *l2, *l3])).unwrap_or(usize::MAX);
        let kind = u16::from_ne_bytes([*t0, *t1]);
        // `struct rtmsg` begins with the family and the length of the destination's prefix.
        let specific_route = matches!(kind, libc::RTM_NEWROUTE | libc::RTM_DELROUTE)
            && body.get(1).is_some_and(|prefix_len| *prefix_len > LONGEST_DEFAULT);
        if !specific_route || length < HEADER || length > datagram.len() {
            return true;
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;
    use crate::host;

    fn message(kind: u16, prefix_len: u8, length: u32) -> Vec<u8> {
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(16, 0);
        message.extend([2, prefix_len]);
        message.resize(28, 0);
        message
    }

    #[test]
    fn routes_of_others_do_not_matter() {
        let specific = message(libc::RTM_NEWROUTE, 24, 28);
        assert!(!matters(&specific));
        assert!(!matters(&[specific.clone(), message(libc::RTM_DELROUTE, 32, 28)].concat()));
        assert!(!matters(&[]));
        for length in [0, 1, 2] {
            assert_eq!(matters(&message(libc::RTM_DELROUTE, length, 28)), length <= 1);
        }
        assert!(matters(&message(libc::RTM_NEWLINK, 24, 28)));
        assert!(matters(&[specific.clone(), message(libc::RTM_NEWADDR, 24, 28)].concat()));
        assert!(matters(&message(libc::RTM_NEWROUTE, 24, 0)), "a length that leads nowhere");
        assert!(matters(&specific[..10]) && matters(&specific[..20]), "cut");
    }

    proptest! {
        #[test]
        fn no_datagram_panics(datagram in proptest::collection::vec(any::<u8>(), 0..200), length in 0..64u32) {
            let kind = libc::RTM_NEWROUTE;
            let _matters: bool = matters(&datagram);
            prop_assert!(!matters(&[message(kind, 24, 28), message(kind, 9, 28)].concat()));
            let _matters: bool = matters(&[message(kind, 24, length), datagram].concat());
        }
    }

    /// Runs `ip` in the network namespace of this thread.
    fn ip(arguments: &str) {
        let output =
            Command::new("ip").args(arguments.split(' ')).output().expect("this test needs `ip` (iproute2)");
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Moves this thread into a network namespace of its own, which ends with it.
    #[expect(unsafe_code, reason = "no wrapper without a further feature of nix")]
    fn own_namespace() {
        // SAFETY: a system call without pointers, which concerns this thread alone.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(result, 0, "this test needs root, for a network namespace: {}", Errno::last());
    }

    #[test]
    fn tells_of_changes_in_its_namespace() {
        std::thread::spawn(|| {
            own_namespace();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(changes_of_an_interface());
        })
        .join()
        .unwrap();
    }

    async fn changes_of_an_interface() {
        let wait = |watcher: Watcher| async move {
            let mut watcher = watcher;
            let start = Instant::now();
            watcher.changed().await.unwrap();
            assert!(start.elapsed() < RECHECK / 2, "nothing was noticed");
            watcher
        };
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut watcher = Watcher::new().unwrap();
        assert_eq!(host::default_route_interfaces().unwrap(), [""; 0]);
        assert!(host::addresses().unwrap().own.is_empty());

        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        ip("address add 192.0.2.2/24 dev v0");
        // Giving up before the word has come loses nothing.
        tokio::time::timeout(Duration::from_millis(10), watcher.changed()).await.unwrap_err();
        let watcher = wait(watcher).await;
        assert!(host::addresses().unwrap().own.contains(&address("192.0.2.2")));

        ip("route add default via 192.0.2.1");
        ip("-6 address add 2001:db8::2/64 dev v0 nodad");
        ip("-6 route add default via 2001:db8::1 dev v0");
        let mut watcher = wait(watcher).await;
        let addresses = host::addresses().unwrap();
        assert!(addresses.own.contains(&address("2001:db8::2")));
        assert_eq!(addresses.gateways, [address("192.0.2.1"), address("2001:db8::1")]);
        assert_eq!(host::default_route_interfaces().unwrap(), ["v0"]);

        // The link-local address of the new interface is announced when its check for duplicates is over.
        while tokio::time::timeout(Duration::from_secs(3), watcher.changed()).await.is_ok() {}
        ip("route add 198.51.100.0/24 via 192.0.2.1");
        tokio::time::timeout(GATHER * 5, watcher.changed()).await.expect_err("a route like any other");
    }
}
