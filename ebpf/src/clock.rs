//! The present on `CLOCK_MONOTONIC`.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;

/// What the clock said when the tick was first asked about.
#[repr(C)]
struct Reading {
    tick: u64,
    now_ns: u64,
}

#[btf_map]
static READ: PerCpuArray<Reading, 1> = PerCpuArray::new();

/// The longest tick that a kernel is built with: 100 a second.
pub(crate) const MAX_TICK_NS: u64 = 10_000_000;

/// The present, in nanoseconds: as exact as the clock is, which makes it as dear as everything else here together.
#[inline(always)]
pub(crate) fn exact() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_ns() }
}

/// The present, in nanoseconds, or up to a tick of the kernel before it: each CPU reads the clock once in a tick.
/// Asking for the tick is no call but a load, which the verifier puts in the helper's place.
#[inline(always)]
pub(crate) fn coarse() -> u64 {
    let Some(reading) = READ.get_ptr_mut(0) else { return exact() };
    // SAFETY: the helper takes nothing and reads a counter.
    let tick = unsafe { bpf_jiffies64() };
    // SAFETY: the lookup returned this CPU's reading, of whole words. A program that comes between the two writes, as it may on
    // a real-time kernel, finds the old tick, and reads the clock itself.
    unsafe {
        if (*reading).tick != tick {
            (&raw mut (*reading).now_ns).write_volatile(exact());
            (&raw mut (*reading).tick).write_volatile(tick);
        }
        (&raw const (*reading).now_ns).read_volatile()
    }
}
