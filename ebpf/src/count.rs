//! Counting: by outcome on each CPU, and in the entry that dropped a packet.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr::NonNull;

use xdpban_common::{Entry, Outcome};

use crate::maps::TOTALS;

/// What is counted at once: one packet, or several that the kernel merged into one buffer.
pub(crate) struct Amount {
    pub(crate) packets: u64,
    /// All of their bytes.
    pub(crate) bytes: u64,
}

/// Counts in the totals of this CPU, which no other CPU writes.
#[inline(always)]
pub(crate) fn total(outcome: Outcome, amount: &Amount) {
    let Some(totals) = TOTALS.get_ptr_mut(0) else { return };
    // SAFETY: the lookup returned this CPU's slot, and programs that count do not interrupt each other on a CPU.
    let totals = unsafe { &mut *totals };
    if let Some(packets) = totals.packets.get_mut(outcome as usize) {
        *packets += amount.packets;
    }
    if outcome.drops() {
        totals.dropped_bytes += amount.bytes;
    }
}

/// Counts in an entry. Several CPUs may do so at once, so the additions are atomic.
#[inline(always)]
pub(crate) fn entry(entry: NonNull<Entry>, amount: &Amount) {
    // SAFETY: a pointer that a lookup returned is valid until the program ends, and both fields are aligned.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(
            &raw mut (*entry.as_ptr()).packets,
            amount.packets,
        );
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*entry.as_ptr()).bytes, amount.bytes);
    }
}
