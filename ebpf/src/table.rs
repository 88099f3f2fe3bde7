//! Searching the tables of blocks: see [`xdpban_common::Slot`] for how entries stand in them.

use aya_ebpf::btf_maps::lpm_trie::Key;
use xdpban_common::{
    Control, Kind, MAX_PROBES, NESTED4, NESTED6, Outcome, Slot, Slot4, Slot6, State, filter4, filter6, hash4,
    hash6, home,
};

use crate::count::Counts;
use crate::maps::{ALLOW4, ALLOW6, BLOCK4, BLOCK6, FILTER4, FILTER6, HOMES4, HOMES6, PREFIX4, PREFIX6};
use crate::source::{V4, V6};

/// An address that can be looked up, IPv4 or IPv6.
pub(crate) trait Address: Copy {
    /// What a slot of its table holds beside the counts.
    type Key: Copy + PartialEq;
    type Fill: Copy;
    /// The lengths of prefix that stand for single sources, and the kinds of block that these are; twice the same where
    /// there is only one.
    const EXACT: [(u8, Kind); 2];
    /// The kind of the other prefixes.
    const PREFIXES: Kind;
    /// How many of these that lie in each other are looked at for one packet, the longest first.
    const NESTED: u32;
    /// What a drop because of either is called.
    const OUTCOMES: [Outcome; 2];

    /// Whether the filter tells of a block that may hold this address.
    fn passes_filter(self, control: &Control) -> bool;
    /// Whether there are prefixes that the filter does not tell of.
    fn has_unfiltered(control: &Control) -> bool;
    /// How many slots of the table are homes.
    fn homes() -> u32;
    fn slot(index: u32) -> Option<*mut Slot<Self::Key, Self::Fill>>;
    /// The number of the slot of the longest prefix that has the address and at most so many bits.
    fn longest_prefix(self, max_len: u8) -> Option<u32>;
    /// The first `prefix_len` bits.
    fn prefix(self, prefix_len: u8) -> Self::Key;
    fn hash(key: Self::Key, prefix_len: u8, seed: u64) -> u64;
    /// Whether an allowed network has it.
    fn is_allowed(self, control: &Control) -> bool;
}

/// An entry that a search found.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) counts: Counts,
    pub(crate) special: u32,
    /// What a drop because of it is called.
    pub(crate) outcome: Outcome,
}

/// What blocks `address` at the time `now`: of the entries that drop everything the first, and where there is none, the first
/// with a measure of its own. That of the address comes first, then that of its /64 in IPv6, then those of other prefixes,
/// the longest first. An entry that has expired hides no other.
#[inline(always)]
pub(crate) fn find<A: Address>(address: A, control: &Control, now: impl Fn() -> u64) -> Option<Entry> {
    let filtered = address.passes_filter(control);
    if !filtered && !A::has_unfiltered(control) {
        return None;
    }
    let now = now();
    // Not an `Option`: what that leaves undefined the compiler moves around, which the verifier does not allow.
    let mut special = Entry::NONE;
    let [exact, prefix] = A::OUTCOMES;
    if filtered {
        let [first, second] = A::EXACT;
        if let Some(slot) = search(address, first, control)
            && let Some(entry) = special.outranked_by(slot, now, exact)
        {
            return Some(entry);
        }
        if second.0 != first.0
            && let Some(slot) = search(address, second, control)
            && let Some(entry) = special.outranked_by(slot, now, exact)
        {
            return Some(entry);
        }
    }
    if control.has(A::PREFIXES) {
        let mut max_len = A::EXACT[0].0;
        let mut nested = 0;
        while nested < A::NESTED {
            nested += 1;
            let Some(slot) = address.longest_prefix(max_len).and_then(A::slot) else { break };
            // SAFETY: a pointer that a lookup returned is valid until the program ends; the controller writes whole words.
            let state = unsafe { (&raw const (*slot).state).read_volatile() };
            // The slot may have got another entry this moment.
            let Some(prefix_len) = state.prefix_len() else { break };
            // SAFETY: as above.
            if unsafe { (*slot).address } != address.prefix(prefix_len) {
                break;
            }
            if let Some(entry) = special.outranked_by(slot, now, prefix) {
                return Some(entry);
            }
            if prefix_len == 0 {
                break;
            }
            max_len = prefix_len - 1;
        }
    }
    if special.special == 0 { None } else { Some(special) }
}

impl Entry {
    const NONE: Entry = Entry { counts: Counts::NONE, special: 0, outcome: Outcome::Clean };

    /// The entry in a slot where it is live and drops everything. One with a measure of its own takes the place of none.
    #[inline(always)]
    fn outranked_by<K, F>(&mut self, slot: *mut Slot<K, F>, now: u64, outcome: Outcome) -> Option<Entry> {
        // SAFETY: a pointer that a lookup returned is valid until the program ends; the controller writes whole words.
        let (expires_ns, state) = unsafe {
            ((&raw const (*slot).expires_ns).read_volatile(), (&raw const (*slot).state).read_volatile())
        };
        if expires_ns <= now {
            return None;
        }
        let entry = Entry { counts: Counts::of(slot), special: state.special(), outcome };
        if entry.special == 0 {
            return Some(entry);
        }
        if self.special == 0 {
            *self = entry;
        }
        None
    }
}

/// The slot of the entry for the first bits of `address`.
#[inline(always)]
fn search<A: Address>(
    address: A,
    (prefix_len, kind): (u8, Kind),
    control: &Control,
) -> Option<*mut Slot<A::Key, A::Fill>> {
    if !control.has(kind) {
        return None;
    }
    let key = address.prefix(prefix_len);
    let home = home(A::hash(key, prefix_len, control.seed), A::homes());
    let mut probe = 0;
    while probe < MAX_PROBES {
        let slot = A::slot(home + probe)?;
        // SAFETY: a pointer that a lookup returned is valid until the program ends.
        let state = unsafe { (&raw const (*slot).state).read_volatile() };
        if state == State::EMPTY {
            return None;
        }
        // SAFETY: as above.
        if state.is_entry_of(prefix_len) && unsafe { (*slot).address } == key {
            return Some(slot);
        }
        probe += 1;
    }
    None
}

/// Whether a bit is set in a word of a filter.
#[inline(always)]
fn bit(word: Option<&u64>, bit: u32) -> bool {
    word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
}

impl Address for V4 {
    type Key = [u8; 4];
    type Fill = [u32; 0];
    const EXACT: [(u8, Kind); 2] = [(32, Kind::Host4); 2];
    const PREFIXES: Kind = Kind::Prefix4;
    const NESTED: u32 = NESTED4;
    const OUTCOMES: [Outcome; 2] = [Outcome::Exact4, Outcome::Prefix4];

    #[inline(always)]
    fn passes_filter(self, _control: &Control) -> bool {
        let place = filter4(u32::from_be_bytes(self.address));
        bit(FILTER4.get(place / 64), place)
    }

    #[inline(always)]
    fn has_unfiltered(_control: &Control) -> bool {
        false
    }

    #[inline(always)]
    fn homes() -> u32 {
        HOMES4.load()
    }

    #[inline(always)]
    fn slot(index: u32) -> Option<*mut Slot4> {
        BLOCK4.get_ptr_mut(index)
    }

    #[inline(always)]
    fn longest_prefix(self, max_len: u8) -> Option<u32> {
        PREFIX4.get(&Key::new(u32::from(max_len), self.address)).copied()
    }

    #[inline(always)]
    fn prefix(self, prefix_len: u8) -> [u8; 4] {
        // In 64 bits, so that none can be left.
        let host_bits = (32 - u32::from(prefix_len)) & 63;
        let bits = u64::from(u32::from_be_bytes(self.address)) >> host_bits << host_bits;
        let [.., a, b, c, d] = bits.to_be_bytes();
        [a, b, c, d]
    }

    #[inline(always)]
    fn hash(key: [u8; 4], prefix_len: u8, seed: u64) -> u64 {
        hash4(seed, u32::from_be_bytes(key), prefix_len)
    }

    #[inline(always)]
    fn is_allowed(self, control: &Control) -> bool {
        control.allowed4 != 0 && ALLOW4.get(&Key::new(32, self.address)).is_some()
    }
}

impl Address for V6 {
    type Key = [u8; 16];
    type Fill = [u32; 5];
    const EXACT: [(u8, Kind); 2] = [(128, Kind::Host6), (64, Kind::Net6)];
    const PREFIXES: Kind = Kind::Prefix6;
    const NESTED: u32 = NESTED6;
    const OUTCOMES: [Outcome; 2] = [Outcome::Exact6, Outcome::Prefix6];

    #[inline(always)]
    fn passes_filter(self, control: &Control) -> bool {
        let place = filter6(control.seed, halves(self.address).0);
        bit(FILTER6.get(place / 64), place)
    }

    #[inline(always)]
    fn has_unfiltered(control: &Control) -> bool {
        control.has(Kind::Short6)
    }

    #[inline(always)]
    fn homes() -> u32 {
        HOMES6.load()
    }

    #[inline(always)]
    fn slot(index: u32) -> Option<*mut Slot6> {
        BLOCK6.get_ptr_mut(index)
    }

    #[inline(always)]
    fn longest_prefix(self, max_len: u8) -> Option<u32> {
        PREFIX6.get(&Key::new(u32::from(max_len), self.address)).copied()
    }

    #[inline(always)]
    fn prefix(self, prefix_len: u8) -> [u8; 16] {
        let (high, low) = halves(self.address);
        let [high_mask, low_mask] = MASKS[usize::from(prefix_len)];
        (u128::from(high & high_mask) << 64 | u128::from(low & low_mask)).to_be_bytes()
    }

    #[inline(always)]
    fn hash(key: [u8; 16], prefix_len: u8, seed: u64) -> u64 {
        let (high, low) = halves(key);
        hash6(seed, high, low, prefix_len)
    }

    #[inline(always)]
    fn is_allowed(self, control: &Control) -> bool {
        control.allowed6 != 0 && ALLOW6.get(&Key::new(128, self.address)).is_some()
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
fn halves(address: [u8; 16]) -> (u64, u64) {
    let bits = u128::from_be_bytes(address);
    ((bits >> 64) as u64, bits as u64)
}

/// The first bits of 128, in two halves, by their number.
#[expect(clippy::cast_possible_truncation, reason = "the halves of 128 bits")]
static MASKS: [[u64; 2]; 256] = {
    let mut masks = [[u64::MAX; 2]; 256];
    let mut prefix_len = 0;
    while prefix_len < 128 {
        let mask = !(u128::MAX >> prefix_len);
        masks[prefix_len] = [(mask >> 64) as u64, mask as u64];
        prefix_len += 1;
    }
    masks
};
