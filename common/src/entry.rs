//! What stands in the tables of blocks: keys and values.

/// `expires_ns` of an entry that ends only when it is lifted.
pub const NEVER: u64 = u64::MAX;

/// The value of a blocked target. The BPF program drops while `expires_ns` lies ahead, and counts what it dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// When the block ends, in nanoseconds of `CLOCK_MONOTONIC`; [`NEVER`] until it is lifted.
    pub expires_ns: u64,
    /// Packets dropped because of it.
    pub packets: u64,
    /// Their bytes, Ethernet header included.
    pub bytes: u64,
}

impl Entry {
    /// When the block ends, in nanoseconds of `CLOCK_MONOTONIC`; none until it is lifted.
    pub fn deadline(&self) -> Option<u64> {
        (self.expires_ns != NEVER).then_some(self.expires_ns)
    }
}

/// The key of a blocked IPv6 host (`prefix_len` 128) or of its network (64). Bits beyond the prefix are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key6 {
    /// The address.
    pub address: [u8; 16],
    /// The length of the prefix in bits.
    pub prefix_len: u32,
}

/// The value of a blocked prefix in a trie. A lookup there finds the longest prefix that fits, so the value says which.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixEntry {
    /// As for an exact target.
    pub entry: Entry,
    /// The length of the prefix in bits.
    pub prefix_len: u32,
    /// Zero.
    pub reserved: u32,
}

/// The data of an IPv4 prefix in a trie: the address, then four zero bytes. A trie puts the value right behind
/// the data, and the atomic additions to an [`Entry`] must not straddle cache lines, so the data is 8 bytes long.
pub type TrieData4 = [u8; 8];

/// The data of an IPv6 prefix in a trie.
pub type TrieData6 = [u8; 16];

/// The length of an IPv4 address in bits: the longest prefix that is looked for among [`TrieData4`].
pub const PREFIX4_BITS: u32 = 32;

/// An IPv4 address as the data of a trie.
#[inline(always)]
pub const fn trie_data4(address: [u8; 4]) -> TrieData4 {
    let [a, b, c, d] = address;
    [a, b, c, d, 0, 0, 0, 0]
}

/// A new expiry for an entry, handed to the program `xdpban_renew` in place of a packet.
/// Only there can an expiry change without a count being lost: an update from user space replaces the whole entry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    /// The address; of an IPv4 address the first four bytes.
    pub address: [u8; 16],
    /// The length of the prefix in bits.
    pub prefix_len: u32,
    /// Which table, by its number: [`crate::Table`].
    pub table: u32,
    /// The new expiry, as in [`Entry`].
    pub expires_ns: u64,
}

impl Renewal {
    /// As it lies in memory.
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let parts = [
            &self.address[..],
            &self.prefix_len.to_ne_bytes(),
            &self.table.to_ne_bytes(),
            &self.expires_ns.to_ne_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }
}

const _: () = assert!(size_of::<Entry>() == 24 && align_of::<Entry>() == 8);
const _: () = assert!(size_of::<PrefixEntry>() == 32 && align_of::<PrefixEntry>() == 8);
const _: () = assert!(size_of::<Key6>() == 20 && align_of::<Key6>() == 4);
const _: () = assert!(size_of::<TrieData4>().is_multiple_of(align_of::<Entry>()));
const _: () = assert!(size_of::<TrieData6>().is_multiple_of(align_of::<Entry>()));
const _: () = assert!(size_of::<Renewal>() == 32);

#[cfg(feature = "aya")]
#[allow(unsafe_code, reason = "aya::Pod is the promise that the layouts above keep")]
mod pod {
    // SAFETY: integers and arrays of bytes without padding; any bit pattern is a value.
    unsafe impl aya::Pod for super::Entry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PrefixEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Key6 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Renewal {}
}
