//! What the controller tells the program: which searches can find anything, and whether to enforce.

/// The value of the map CONTROL. The controller writes it through shared memory, each field by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The secret seed of the tables' hashes.
    pub seed: u64,
    /// 1 where the program only counts what it would drop.
    pub dry_run: u32,
    /// 1 where an IPv4 network is allowed.
    pub allowed4: u32,
    /// 1 where an IPv6 network is allowed.
    pub allowed6: u32,
    /// Bit [`Kind`]`as u32` is set while there is a block of that kind.
    pub kinds: u32,
}

/// The kinds of block that a packet can be searched for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    Host4 = 0,
    /// Other IPv4 prefixes.
    Prefix4 = 1,
    /// IPv6 addresses.
    Host6 = 2,
    /// IPv6 /64s.
    Net6 = 3,
    /// Other IPv6 prefixes.
    Prefix6 = 4,
    /// Those among them that are shorter than 64 bits: the filter does not tell of these.
    Short6 = 5,
}

impl Control {
    /// Whether there is a block of this kind.
    #[inline(always)]
    pub const fn has(&self, kind: Kind) -> bool {
        self.kinds & (1 << kind as u32) != 0
    }
}

/// How many IPv4 prefixes that lie in each other are looked at for one packet, the longest first: all that there can be. The
/// search goes on past those that have expired or let some packets through.
pub const NESTED4: u32 = 32;

/// The same of IPv6. There can be 127, but the verifier follows each.
pub const NESTED6: u32 = 16;

/// Words of 64 bits in each filter: 2 to the power of 24 bits.
pub const FILTER_WORDS: usize = 1 << 18;

/// The bit of the filter for an IPv4 address: that of its /24, which is set where any block touches it.
#[inline(always)]
pub const fn filter4(address: u32) -> u32 {
    address >> 8
}

/// The bit of the filter for an IPv6 address of this network (its first half): set where a block of 64 bits or more lies in it.
#[inline(always)]
pub const fn filter6(seed: u64, network: u64) -> u32 {
    (crate::hash6(seed, network, 0, 0) >> 40) as u32
}

const _: () = assert!(size_of::<Control>() == 24 && align_of::<Control>() == 8);
