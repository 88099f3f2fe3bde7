//! Counting: by outcome on each CPU, and in the entry that dropped a packet.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use xdpban_common::{Outcome, Slot};

use crate::maps::TOTALS;

/// What is counted at once: one packet, or several that the kernel merged into one buffer.
pub(crate) struct Amount {
    pub(crate) packets: u64,
    /// All of their bytes.
    pub(crate) bytes: u64,
}

impl Amount {
    /// Nothing, for who only asks.
    pub(crate) const NONE: Amount = Amount { packets: 0, bytes: 0 };
}

/// The counts of an entry.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    packets: *mut u64,
    bytes: *mut u64,
}

impl Counts {
    /// Those of no entry.
    pub(crate) const NONE: Counts = Counts { packets: core::ptr::null_mut(), bytes: core::ptr::null_mut() };

    /// The counts in a slot that a lookup returned.
    #[inline(always)]
    pub(crate) fn of<A, R>(slot: *mut Slot<A, R>) -> Counts {
        // SAFETY: only the places of the fields are computed.
        unsafe { Counts { packets: &raw mut (*slot).packets, bytes: &raw mut (*slot).bytes } }
    }

    /// Counts, where there is an entry. Several CPUs may do so at once, so the additions are atomic.
    #[inline(always)]
    pub(crate) fn add(self, amount: &Amount) {
        if self.packets.is_null() {
            return;
        }
        // SAFETY: a pointer that a lookup returned is valid until the program ends, and both fields are aligned.
        unsafe {
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.packets, amount.packets);
            atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(self.bytes, amount.bytes);
        }
    }
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
