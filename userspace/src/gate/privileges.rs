//! Whether the process may do what the gate needs, told before the kernel says no in its own terse way.

use std::fs;

use aya::util::KernelVersion;

use super::error::GateError;

/// The capabilities that the gate needs (5.8 and later), by their numbers in linux/capability.h. CAP_PERFMON is among them
/// because without it the verifier refuses to compare pointers into a packet as the program does.
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];

/// Includes all that CAP_PERFMON and CAP_BPF allow.
const CAP_SYS_ADMIN: u32 = 21;

/// The oldest kernel that is supported.
const OLDEST: KernelVersion = KernelVersion::new(5, 10, 0);

/// From this kernel on, maps count against the memory of a cgroup, not against a limit of locked memory.
const NO_MEMLOCK_SINCE: KernelVersion = KernelVersion::new(5, 11, 0);

/// Checks the kernel's version and the process's capabilities.
pub fn check() -> Result<(), GateError> {
    if let Ok(version) = KernelVersion::current() {
        if version < OLDEST {
            return Err(GateError::Kernel { found: version.to_string() });
        }
        if version < NO_MEMLOCK_SINCE {
            lift_memlock_limit();
        }
    }
    // Where this cannot be read, the kernel's own answer will have to do.
    let Some(missing) = missing_now() else { return Ok(()) };
    if missing.is_empty() { Ok(()) } else { Err(GateError::Privileges { missing: missing.join(", ") }) }
}

/// The capabilities that the process lacks; none where that cannot be read.
pub(super) fn missing_now() -> Option<Vec<&'static str>> {
    // The callers know what to make of its absence.
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(missing(effective(&status)?))
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |number: u32| effective & (1 << number) != 0;
    let implied = |name: &str| name != "CAP_NET_ADMIN" && has(CAP_SYS_ADMIN);
    NEEDED
        .into_iter()
        .filter(|(number, name)| !has(*number) && !implied(name))
        .map(|(_, name)| name)
        .collect()
}

#[allow(unsafe_code, reason = "setrlimit(2) has no safe wrapper among the enabled ones")]
fn lift_memlock_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call reads the structure and keeps nothing of it. Where it is refused, the maps may still fit, and
    // loading says so if they do not.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        assert_eq!(missing(0), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(missing(1 << 21), ["CAP_NET_ADMIN"]);
        assert_eq!(missing(1 << 12 | 1 << 38 | 1 << 39), [] as [&str; 0]);
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
    }
}
