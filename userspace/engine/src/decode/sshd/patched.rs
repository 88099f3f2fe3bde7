//! Messages of patched versions of sshd.

use memchr::{memchr, memrchr};

use super::blank;
use crate::decode::peer;
use crate::event::{Event, EventKind};

/// `SSH: Server;Ltype: Version;Remote: ADDRESS-PORT;…`, of the HPN patches, in their three kinds.
pub(super) fn connection(text: &[u8]) -> Option<Event<'_>> {
    let (_kind, rest) = text.split_at(memchr(b';', text)?);
    let remote = rest.strip_prefix(b";Remote: ")?;
    let remote = remote.split_at(memchr(b';', remote)?).0;
    let (host, port) = remote.split_at(memrchr(b'-', remote)?);
    let (after, port) = peer::port_at_start(port.strip_prefix(b"-")?)?;
    after.is_empty().then(|| Event {
        source: peer::address(host),
        port: Some(port),
        ..blank(EventKind::ConnectionFrom)
    })
}
