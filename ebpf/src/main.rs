//! xdpban's BPF programs. A packet is dropped when its source address stands in a table of blocks, the block has not
//! expired and nothing exempts it; whatever cannot be understood passes.
//!
//! The entries are here: they alone turn what was found into a verdict for the kernel. On another target than BPF
//! this package is an empty program, so that commands for the whole workspace work.
#![cfg_attr(
    target_arch = "bpf",
    no_std,
    no_main,
    feature(core_intrinsics),
    allow(internal_features, reason = "BPF lacks compare-and-swap, and with it AtomicU64::fetch_add"),
    allow(
        unsafe_code,
        reason = "packets, map values and the kernel's helpers are reached through raw pointers"
    )
)]

#[cfg(target_arch = "bpf")]
mod clock;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod judge;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod programs;
#[cfg(target_arch = "bpf")]
mod scope;
#[cfg(target_arch = "bpf")]
mod source;
#[cfg(target_arch = "bpf")]
mod table;
#[cfg(target_arch = "bpf")]
mod trace;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
