//! Why the gate could not be attached, in words that lead to a remedy.

use std::os::fd::{AsFd, AsRawFd};

use aya::programs::{Xdp, loaded_programs};

use super::error::{AttachedMode, GateError, system_error};
use crate::host::netlink::{Netlink, NetlinkError, attribute, request};
use crate::host::{Fitness, Link};

// From linux/if_link.h, which libc does not have.
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// What the driver says of a program that it refused by way of bpf(2), which hands on no words. The kernel is asked once
/// more over netlink, which does; should it take the program now, that is taken off again.
pub(super) fn words(program: &Xdp, index: u32, mode: AttachedMode) -> Option<String> {
    // Each of these failing leaves the number of the error, which is told in any case.
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let netlink = Netlink::route().ok()?;
    let flags = if mode == AttachedMode::Generic { XDP_FLAGS_SKB_MODE } else { XDP_FLAGS_DRV_MODE };
    match netlink.ask(&set_xdp(index, fd, flags | XDP_FLAGS_UPDATE_IF_NOEXIST)) {
        Err(NetlinkError::Refused { said, .. }) => said,
        Err(_) => None,
        Ok(_) => {
            if let Err(error) = netlink.ask(&set_xdp(index, -1, flags)) {
                log::warn!("a program that was attached on trial could not be taken off: {error}");
            }
            None
        }
    }
}

/// `RTM_SETLINK` that attaches a program to an interface; -1 takes off what is there.
fn set_xdp(index: u32, fd: i32, flags: u32) -> Vec<u8> {
    let xdp =
        [attribute(IFLA_XDP_FD, &fd.to_ne_bytes()), attribute(IFLA_XDP_FLAGS, &flags.to_ne_bytes())].concat();
    // struct ifinfomsg: family, padding, type; index; flags, mask.
    let mut body = [[0; 4], index.to_ne_bytes(), [0; 4], [0; 4]].concat();
    body.extend(attribute(libc::IFLA_XDP, &xdp));
    request(libc::RTM_SETLINK, libc::NLM_F_ACK, &body)
}

/// The refusal as an error. `said`: the driver's own words, where there are any.
pub(super) fn refused(
    link: &Link,
    mode: AttachedMode,
    said: Option<&str>,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> GateError {
    let reason = reason(&link.name, mode, said, system_error(source.as_ref()));
    let reason = match said {
        Some(said) => format!("{reason}; the driver says \"{said}\""),
        None => reason,
    };
    GateError::Attach { interface: link.name.clone(), mode, reason, source }
}

fn reason(interface: &str, mode: AttachedMode, said: Option<&str>, code: Option<i32>) -> String {
    let words = said.unwrap_or_default().to_lowercase();
    let mentions = |any: &[&str]| any.iter().any(|word| words.contains(word));
    if mentions(&["queue", "channel"]) {
        return format!(
            "its queues do not suffice for XDP (`ethtool -l {interface}` shows them, `ethtool -L {interface}` sets them)"
        );
    }
    if mentions(&["gro_hw", "rx-gro-hw", "gro-hw"]) {
        return format!("its hardware joins packets (`ethtool -K {interface} rx-gro-hw off` stops that)");
    }
    if mentions(&["lro"]) {
        return format!("it joins packets on reception (`ethtool -K {interface} lro off` stops that)");
    }
    if mentions(&["mtu", "frag", "jumbo", "linear", "frame size"]) || code == Some(libc::ERANGE) {
        return format!("its MTU is too large for XDP (`ip link set dev {interface} mtu 1500`)");
    }
    match (code, mode) {
        (Some(libc::EOPNOTSUPP), AttachedMode::Native) => "its driver has no XDP".to_owned(),
        (Some(libc::ENOSPC | libc::ENOMEM), _) => {
            "the driver is short of queues or memory for XDP".to_owned()
        }
        (Some(libc::EPERM | libc::EACCES), _) => "the kernel does not permit it".to_owned(),
        _ => "the kernel or the driver refused".to_owned(),
    }
}

/// What to tell of an interface that XDP in its driver was refused for.
pub(super) fn fallback_warning(link: &Link, fitness: &Fitness, refusal: &GateError) -> String {
    let why = match refusal {
        GateError::Attach { reason, source, .. } => format!("{reason} ({})", root_cause(source.as_ref())),
        GateError::Occupied { program, .. } => format!("another XDP program{program} is attached"),
        other => other.to_string(),
    };
    let instead = match fitness {
        Fitness::Above { entrances } if !entrances.is_empty() => format!(
            " Its frames come in by {0}; guard {0}, and it is done in the driver, for all that comes in there.",
            entrances.join(", ")
        ),
        _ => String::new(),
    };
    format!(
        "{} is guarded at TC ingress, not by XDP in its driver: {why}. Each dropped packet costs several times as much, \
         since the kernel has built its buffer by then; what is blocked is the same.{instead}",
        link.name
    )
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The XDP program on an interface as words with a space before; nothing where it cannot be known.
pub(super) fn occupant(id: Option<u32>) -> String {
    let Some(id) = id else { return String::new() };
    let name = loaded_programs().filter_map(Result::ok).find(|program| program.id() == id);
    match name.as_ref().and_then(|program| program.name_as_str()) {
        Some(name) => format!(" (id {id}, `{name}`)"),
        None => format!(" (id {id})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_understood_by_their_words() {
        // What drivers of the kernel say, and the number that comes with it.
        let cases = [
            ("XDP expects number of rx queues not less than peer tx queues", libc::ENOSPC, "ethtool -L eth0"),
            ("Peer MTU is too large to set XDP", libc::ERANGE, "mtu 1500"),
            ("MTU too large for linear XDP and frags not supported", libc::EINVAL, "mtu 1500"),
            ("MTU 9000 larger than 3498 without XDP frag support", libc::EOPNOTSUPP, "mtu 1500"),
            (
                "Can't set XDP while host is implementing GRO_HW/CSUM, disable GRO_HW/CSUM first",
                libc::EOPNOTSUPP,
                "rx-gro-hw off",
            ),
            ("can't set XDP while LRO is on, disable LRO first", libc::EINVAL, "lro off"),
            (
                "Underlying driver does not support XDP in native mode",
                libc::EOPNOTSUPP,
                "its driver has no XDP",
            ),
            ("XDP is not supported when safe mode is on", libc::EINVAL, "refused"),
        ];
        for (said, code, expected) in cases {
            let reason = reason("eth0", AttachedMode::Native, Some(said), Some(code));
            assert!(reason.contains(expected), "{said}: {reason}");
        }
        assert!(reason("eth0", AttachedMode::Native, None, Some(libc::ERANGE)).contains("mtu 1500"));
        assert!(reason("eth0", AttachedMode::Tc, None, None).contains("refused"));
    }
}
