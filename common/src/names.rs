//! What maps, programs and constants are called, in the object and in the directory of pins.

/// The maps.
pub mod map {
    /// Array of [`crate::Slot4`]: blocked IPv4 addresses and prefixes.
    pub const BLOCK4: &str = "BLOCK4";
    /// Array of [`crate::Slot6`]: blocked IPv6 addresses and prefixes.
    pub const BLOCK6: &str = "BLOCK6";
    /// Trie: an IPv4 prefix that is no single address to the `u32` number of its slot in BLOCK4.
    pub const PREFIX4: &str = "PREFIX4";
    /// Trie: an IPv6 prefix of another length than 64 and 128 to the `u32` number of its slot in BLOCK6.
    pub const PREFIX6: &str = "PREFIX6";
    /// Array of [`crate::Special`], by its number. Number 0 is nobody's.
    pub const SPECIAL: &str = "SPECIAL";
    /// Array of words of 64 bits: [`crate::filter4`].
    pub const FILTER4: &str = "FILTER4";
    /// Array of words of 64 bits: [`crate::filter6`].
    pub const FILTER6: &str = "FILTER6";
    /// Array of one: [`crate::Control`].
    pub const CONTROL: &str = "CONTROL";
    /// Trie: an IPv4 address to the length of the allowed network as `u32`.
    pub const ALLOW4: &str = "ALLOW4";
    /// Trie: an IPv6 address to the length of the allowed network as `u32`.
    pub const ALLOW6: &str = "ALLOW6";
    /// Array of one for each CPU: [`crate::Totals`].
    pub const TOTALS: &str = "TOTALS";
    /// The ring buffer of traced packets.
    pub const TRACE: &str = "AYA_LOGS";
}

/// The programs.
pub mod program {
    /// XDP.
    pub const XDP: &str = "xdpban";
    /// XDP for packets that span several buffers (kernel 5.18).
    pub const XDP_FRAGS: &str = "xdpban_frags";
    /// TC ingress.
    pub const TC: &str = "xdpban_tc";
    /// Returns the number of the [`crate::Outcome`] of a packet, counts nothing and takes no token.
    pub const PROBE: &str = "xdpban_probe";
}

/// Constants that are set before the programs are loaded.
pub mod global {
    /// A `u32`: how many slots of BLOCK4 are homes.
    pub const HOMES4: &str = "HOMES4";
    /// A `u32`: how many slots of BLOCK6 are homes.
    pub const HOMES6: &str = "HOMES6";
}
