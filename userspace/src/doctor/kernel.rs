//! What the kernel has, and what it lets this process do.

use std::fs;

use super::{Check, State};
use crate::error::chain;
use crate::gate::{self, GateError};

/// What later kernels brought, and what is missed without it.
const LATER: [((u8, u8), &str, &str); 2] = [
    ((5, 18), "frags", "no XDP in the driver where the MTU is larger than a page"),
    ((6, 6), "TCX", "TC ingress is used by way of a qdisc (clsact)"),
];

pub(super) fn examine(checks: &mut Vec<Check>) {
    version(checks);
    let lacks = gate::missing_capabilities();
    let may = lacks.as_ref().is_none_or(Vec::is_empty);
    checks.push(capabilities(lacks.as_deref()));
    let (program, compiled) = if may { rehearsal() } else { (unseen(), None) };
    checks.push(program);
    checks.push(jit(compiled));
    checks.extend(lockdown());
    checks.extend(unprivileged());
    let btf =
        if fs::exists("/sys/kernel/btf/vmlinux").is_ok_and(|there| there) { "there" } else { "missing" };
    checks.push(Check::ok("kernel", "BTF", format!("{btf}; it is not needed")));
}

fn version(checks: &mut Vec<Check>) {
    let Some((major, minor, patch)) = gate::kernel_version() else {
        checks.push(Check::new("kernel", "version", State::Unknown, "the kernel does not say"));
        return;
    };
    let version = format!("{major}.{minor}.{patch}");
    let found = (major, minor);
    if found < (5, 10) {
        checks.push(
            Check::new("kernel", "version", State::Obstacle, format!("{version}; 5.10 is needed"))
                .remedy("install a newer kernel"),
        );
        return;
    }
    checks.push(Check::ok(
        "kernel",
        "version",
        format!("{version}, with bpf_link for XDP, the ring buffer and batches of map operations"),
    ));
    for (since, name, without) in LATER {
        checks.push(if found >= since {
            Check::ok("kernel", name, "there")
        } else {
            let (major, minor) = since;
            Check::new("kernel", name, State::Warning, format!("missing before {major}.{minor}: {without}"))
        });
    }
}

/// `compiled`: what was seen on trial.
fn jit(compiled: Option<bool>) -> Check {
    // A network namespace other than the first has no such file, and it may not be everybody's to read.
    let setting = || fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok();
    match compiled.or_else(|| setting().map(|text| text.trim() != "0")) {
        Some(true) => Check::ok("kernel", "BPF JIT", "on"),
        Some(false) => Check::new(
            "kernel",
            "BPF JIT",
            State::Warning,
            "off: the program is interpreted, several times as slow",
        )
        .remedy("sysctl -w net.core.bpf_jit_enable=1"),
        None => Check::new("kernel", "BPF JIT", State::Unknown, "this user cannot see it"),
    }
}

fn capabilities(lacks: Option<&[&str]>) -> Check {
    match lacks {
        Some([]) => Check::ok("kernel", "capabilities", "all that are needed"),
        Some(lacks) => Check::new(
            "kernel",
            "capabilities",
            State::Unknown,
            format!("this user lacks {}; the service has them", lacks.join(", ")),
        )
        .remedy("sudo xdpban doctor"),
        None => Check::new("kernel", "capabilities", State::Unknown, "cannot read /proc/self/status"),
    }
}

/// Whether the program loads and does what it should, and whether the kernel compiled it.
fn rehearsal() -> (Check, Option<bool>) {
    let check = match gate::rehearse() {
        Ok(compiled) => {
            let found = "loads, and passes its tests on packets; nothing was attached";
            return (Check::ok("kernel", "program", found), compiled);
        }
        Err(error @ GateError::Load { .. }) => {
            Check::new("kernel", "program", State::Obstacle, chain(&error)).remedy(
                "free memory, or raise the memory limit of the service (systemctl edit xdpban: MemoryMax=)",
            )
        }
        Err(error) => Check::new("kernel", "program", State::Obstacle, chain(&error)),
    };
    (check, None)
}

fn unseen() -> Check {
    Check::new("kernel", "program", State::Unknown, "only root can load it on trial")
        .remedy("sudo xdpban doctor")
}

/// Of lockdown, no mode keeps programs from being loaded: `confidentiality` forbids them to read the kernel's memory,
/// which this one does not.
fn lockdown() -> Option<Check> {
    // Not compiled in, or not for this user to see: the rehearsal shows whether it matters.
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    Some(Check::ok("kernel", "lockdown", format!("{mode}; it does not matter here")))
}

fn unprivileged() -> Option<Check> {
    // A kernel that was built without it has no such file.
    let text = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled").ok()?;
    Some(match text.trim() {
        "0" => Check::new(
            "kernel",
            "unprivileged BPF",
            State::Warning,
            "allowed to every user, which has been a way into kernels; xdpban does not need it",
        )
        .remedy("sysctl -w kernel.unprivileged_bpf_disabled=1"),
        _ => Check::ok("kernel", "unprivileged BPF", "off"),
    })
}
