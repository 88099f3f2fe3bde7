//! The tables of blocks: arrays of slots, in which the controller puts entries through shared memory and the program
//! finds them by probing.
//!
//! An entry stands in the first slot that was free from its home on, the slot that its hash names, and never moves. A
//! search goes from the home on until it finds the entry or an empty slot. A slot whose entry was taken out is not
//! empty but gone, so that searches go past it, unless the slot behind it is empty.

/// `expires_ns` of a block that ends only when it is lifted.
pub const NEVER: u64 = u64::MAX;

/// How many slots a search for one prefix looks into, at most. A table has so many behind the last that is a home.
pub const MAX_PROBES: u32 = 128;

/// How many homes a table has for each entry that it may hold. With half of the slots empty most entries stand at their
/// home, and the chance that one of a million finds no slot within [`MAX_PROBES`] is below one in ten thousand.
pub const HOMES_PER_ENTRY: u32 = 2;

/// A place for the block of an address or a prefix. The program drops while `expires_ns` lies ahead, and counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot<A, R> {
    /// When the block ends, in nanoseconds of `CLOCK_MONOTONIC`; [`NEVER`] until it is lifted.
    pub expires_ns: u64,
    /// Packets dropped because of it.
    pub packets: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
    /// The address, in network byte order; bits beyond the prefix are zero.
    pub address: A,
    /// Whether there is an entry, and of which prefix. Written last when an entry comes, and first when it goes.
    pub state: State,
    /// Fills the slot up, so that none straddles two cache lines.
    pub reserved: R,
}

/// A slot for IPv4: two of them fill a cache line.
pub type Slot4 = Slot<[u8; 4], [u32; 0]>;
/// A slot for IPv6, as large as a cache line.
pub type Slot6 = Slot<[u8; 16], [u32; 5]>;

/// What stands in a slot.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(pub u32);

impl State {
    /// Nothing, and nothing behind it that belongs before it.
    pub const EMPTY: State = State(0);
    /// Nothing any longer.
    pub const GONE: State = State(u32::MAX);
    /// The greatest number of a [`Special`] that a state can name.
    pub const MAX_SPECIAL: u32 = (1 << Self::SPECIAL_BITS) - 1;

    const SPECIAL_BITS: u32 = 24;

    /// An entry for a prefix of so many bits, with the number of its [`Special`]; 0 for none.
    #[inline(always)]
    pub const fn entry(prefix_len: u8, special: u32) -> State {
        State((prefix_len as u32 + 1) << Self::SPECIAL_BITS | special & Self::MAX_SPECIAL)
    }

    /// The length of the prefix; none where there is no entry.
    #[inline(always)]
    pub const fn prefix_len(self) -> Option<u8> {
        let [tag, ..] = self.0.to_be_bytes();
        match tag {
            1..=129 => Some(tag - 1),
            _ => None,
        }
    }

    /// Whether there is an entry for a prefix of so many bits.
    #[inline(always)]
    pub const fn is_entry_of(self, prefix_len: u8) -> bool {
        self.0 >> Self::SPECIAL_BITS == prefix_len as u32 + 1
    }

    /// The number of the entry's [`Special`]; 0 for none.
    #[inline(always)]
    pub const fn special(self) -> u32 {
        self.0 & Self::MAX_SPECIAL
    }
}

/// What befalls the packets of an entry, where it is something else than that all are dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// When the bucket will be full again, in nanoseconds of `CLOCK_MONOTONIC`. Written by the program alone.
    pub full_ns: u64,
    /// How long one token takes to come back, in nanoseconds; 0: nothing passes.
    pub token_ns: u64,
    /// How long all tokens but one take: a packet passes as long as `full_ns` is no farther away.
    pub burst_ns: u64,
    /// Destination ports that are meant, in the host's byte order, the rest 0; all 0: every port, and packets without.
    pub ports: [u16; Special::PORTS],
    /// 1 where only TCP packets that open a connection are meant.
    pub new_only: u32,
    /// What the controller was asked for, which the times above are made of: tokens a second, and tokens in a full
    /// bucket; 0 where nothing passes.
    pub rate: [u32; 2],
    /// Zero.
    pub reserved: [u32; 3],
}

impl Special {
    /// How many ports can be named.
    pub const PORTS: usize = 8;
}

/// Where the search for an IPv4 prefix begins, and which bit of the filter stands for it: a hash under a secret seed, so
/// that nobody can choose addresses that meet in one place.
#[inline(always)]
pub const fn hash4(seed: u64, address: u32, prefix_len: u8) -> u64 {
    mix(seed ^ (address as u64) << 8 ^ prefix_len as u64)
}

/// The same for an IPv6 prefix, given as two halves.
#[inline(always)]
pub const fn hash6(seed: u64, high: u64, low: u64, prefix_len: u8) -> u64 {
    mix(mix(seed ^ high) ^ low ^ prefix_len as u64)
}

/// The home of what has this hash, among so many.
#[inline(always)]
pub const fn home(hash: u64, homes: u32) -> u32 {
    (((hash >> 32) * homes as u64) >> 32) as u32
}

/// Spreads every bit over all: two rounds of xor-shift and multiplication, with the multiplier of Pelle Evensen's rrmxmx.
#[inline(always)]
const fn mix(x: u64) -> u64 {
    const MULTIPLIER: u64 = 0x9fb2_1c65_1e98_df25;
    let x = (x ^ (x >> 32)).wrapping_mul(MULTIPLIER);
    let x = (x ^ (x >> 29)).wrapping_mul(MULTIPLIER);
    x ^ (x >> 32)
}

const _: () = assert!(size_of::<Slot4>() == 32 && align_of::<Slot4>() == 8);
const _: () = assert!(size_of::<Slot6>() == 64 && align_of::<Slot6>() == 8);
const _: () = assert!(size_of::<Special>() == 64 && align_of::<Special>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_says_which_prefix_and_which_special() {
        for prefix_len in 0..=128 {
            let state = State::entry(prefix_len, State::MAX_SPECIAL);
            assert_eq!(state.prefix_len(), Some(prefix_len));
            assert!(state.is_entry_of(prefix_len) && !state.is_entry_of(prefix_len.wrapping_add(1)));
            assert_eq!(state.special(), State::MAX_SPECIAL);
            assert_ne!(state, State::GONE);
        }
        for state in [State::EMPTY, State::GONE] {
            assert_eq!(state.prefix_len(), None);
        }
    }

    #[test]
    fn homes_are_spread_evenly_also_for_neighbours() {
        let mut filled = [0u32; 64];
        for address in 0..64_000 {
            filled[home(hash4(7, 0x0b00_0000 + address, 32), 64) as usize] += 1;
        }
        assert!(filled.iter().all(|n| (800..1200).contains(n)), "{filled:?}");
        assert_ne!(hash4(1, 5, 32), hash4(2, 5, 32));
        assert_ne!(hash6(1, 5, 0, 64), hash6(1, 5, 0, 128));
        assert_ne!(hash6(1, 0, 5, 128), hash6(1, 5, 0, 128));
    }
}
