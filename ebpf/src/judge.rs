//! Whether a source is blocked. What a lookup costs is paid only where the table holds anything, and everything but
//! the lookups of blocks only after one of them hit.

use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use core::ptr::NonNull;
use xdpban_common::{Entry, Key6, Outcome, PREFIX4_BITS, Table, Tables, trie_data4};

use crate::frame::Frame;
use crate::maps::{ALLOW4, ALLOW6, BLOCK4, BLOCK6, COARSE_CLOCK, PREFIX4, PREFIX6, TABLES};
use crate::source::{Source, Unparsed, V4, V6, source};

/// What was found: the outcome, and the live entry that blocks the source where there is one.
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) entry: Option<NonNull<Entry>>,
}

/// An address that can be looked up, IPv4 or IPv6.
trait Address: Copy {
    /// What a hit in an exact table means.
    const EXACT: Outcome;
    /// What a hit in the trie means.
    const PREFIX: Outcome;
    /// The table of prefixes.
    const PREFIXES: Table;
    /// The table of allowed networks.
    const ALLOWED: Table;

    /// The live entry of an exact table.
    fn exact(self, tables: Tables) -> Option<NonNull<Entry>>;
    /// The entry of the longest blocked prefix that the address is in.
    fn prefix(self) -> Option<NonNull<Entry>>;
    /// Whether an allowed network has it.
    fn is_allowed(self) -> bool;
}

/// Judges a frame. Decides nothing about what to do where it cannot be parsed.
#[inline(always)]
pub(crate) fn judge(frame: &Frame) -> Result<Verdict, Unparsed> {
    let tables = TABLES.get(0).copied().unwrap_or_default();
    Ok(match source(frame)? {
        Source::V4(v4) => judge_address(v4, tables, || v4.is_exempt()),
        Source::V6(v6) => judge_address(v6, tables, || v6.is_exempt(frame)),
    })
}

#[inline(always)]
fn judge_address<A: Address>(address: A, tables: Tables, is_exempt: impl Fn() -> bool) -> Verdict {
    let Some((entry, outcome)) = find(address, tables) else {
        return Verdict { outcome: Outcome::Clean, entry: None };
    };
    if is_exempt() {
        return Verdict { outcome: Outcome::Exempt, entry: None };
    }
    if tables.has(A::ALLOWED) && address.is_allowed() {
        return Verdict { outcome: Outcome::Allowed, entry: None };
    }
    Verdict { outcome, entry: Some(entry) }
}

/// The live entry for `address`. An exact entry that has expired does not hide a prefix that has not.
#[inline(always)]
fn find<A: Address>(address: A, tables: Tables) -> Option<(NonNull<Entry>, Outcome)> {
    if let Some(entry) = address.exact(tables) {
        return Some((entry, A::EXACT));
    }
    if tables.has(A::PREFIXES)
        && let Some(entry) = live(address.prefix())
    {
        return Some((entry, A::PREFIX));
    }
    None
}

/// `entry`, unless its time is over.
#[inline(always)]
fn live(entry: Option<NonNull<Entry>>) -> Option<NonNull<Entry>> {
    // SAFETY: a pointer that a lookup returned is valid until the program ends; the controller changes the expiry
    // by whole, aligned words.
    entry.filter(|entry| unsafe { (&raw const (*entry.as_ptr()).expires_ns).read_volatile() } > now())
}

/// The present on `CLOCK_MONOTONIC`, in nanoseconds. The coarse clock is 1 to 10 ms behind and 15 to 20 ns cheaper.
#[inline(always)]
fn now() -> u64 {
    if COARSE_CLOCK.load() == 1 {
        // SAFETY: the helper takes nothing and reads a clock.
        unsafe { bpf_ktime_get_coarse_ns() }
    } else {
        // SAFETY: as above.
        unsafe { bpf_ktime_get_ns() }
    }
}

impl Address for V4 {
    const EXACT: Outcome = Outcome::Exact4;
    const PREFIX: Outcome = Outcome::Prefix4;
    const PREFIXES: Table = Table::Prefix4;
    const ALLOWED: Table = Table::Allow4;

    #[inline(always)]
    fn exact(self, tables: Tables) -> Option<NonNull<Entry>> {
        if tables.has(Table::Host4) { live(BLOCK4.get_ptr_mut(self.0).and_then(NonNull::new)) } else { None }
    }

    #[inline(always)]
    fn prefix(self) -> Option<NonNull<Entry>> {
        PREFIX4.get(&Key::new(PREFIX4_BITS, trie_data4(self.0))).map(|found| NonNull::from(&found.entry))
    }

    #[inline(always)]
    fn is_allowed(self) -> bool {
        ALLOW4.get(&Key::new(PREFIX4_BITS, trie_data4(self.0))).is_some()
    }
}

impl V6 {
    #[inline(always)]
    fn look_up(key: Key6) -> Option<NonNull<Entry>> {
        live(BLOCK6.get_ptr_mut(key).and_then(NonNull::new))
    }

    /// The first half of the address, and zeros.
    #[inline(always)]
    fn network(self) -> [u8; 16] {
        (u128::from_be_bytes(self.address) >> 64 << 64).to_be_bytes()
    }
}

impl Address for V6 {
    const EXACT: Outcome = Outcome::Exact6;
    const PREFIX: Outcome = Outcome::Prefix6;
    const PREFIXES: Table = Table::Prefix6;
    const ALLOWED: Table = Table::Allow6;

    #[inline(always)]
    fn exact(self, tables: Tables) -> Option<NonNull<Entry>> {
        if tables.has(Table::Host6)
            && let Some(entry) = V6::look_up(Key6 { address: self.address, prefix_len: 128 })
        {
            return Some(entry);
        }
        if tables.has(Table::Net6) {
            return V6::look_up(Key6 { address: self.network(), prefix_len: 64 });
        }
        None
    }

    #[inline(always)]
    fn prefix(self) -> Option<NonNull<Entry>> {
        PREFIX6.get(&Key::new(128, self.address)).map(|found| NonNull::from(&found.entry))
    }

    #[inline(always)]
    fn is_allowed(self) -> bool {
        ALLOW6.get(&Key::new(128, self.address)).is_some()
    }
}
