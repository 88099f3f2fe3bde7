//! The tables: their names, which of them hold anything, and how large they are unless told otherwise.

/// The tables that the program looks into.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Blocked IPv4 addresses.
    Host4 = 0,
    /// Blocked IPv6 addresses.
    Host6 = 1,
    /// Blocked IPv6 /64s, in the same map as the addresses.
    Net6 = 2,
    /// Blocked IPv4 prefixes.
    Prefix4 = 3,
    /// Blocked IPv6 prefixes of any length but 64 and 128.
    Prefix6 = 4,
    /// Allowed IPv4 networks.
    Allow4 = 5,
    /// Allowed IPv6 networks.
    Allow6 = 6,
}

impl Table {
    /// Every table, in the order of the numbers.
    pub const ALL: [Table; 7] = [
        Table::Host4,
        Table::Host6,
        Table::Net6,
        Table::Prefix4,
        Table::Prefix6,
        Table::Allow4,
        Table::Allow6,
    ];
}

/// Which tables hold entries, kept by the controller, so that a packet pays for no lookup that cannot hit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Bit `table as u32` is set while that table holds an entry.
    pub present: u32,
}

impl Tables {
    /// Whether `table` holds an entry.
    #[inline(always)]
    pub const fn has(self, table: Table) -> bool {
        self.present & (1 << table as u32) != 0
    }

    /// Says whether `table` holds an entry.
    pub const fn set(&mut self, table: Table, present: bool) {
        let bit = 1 << table as u32;
        self.present = if present { self.present | bit } else { self.present & !bit };
    }
}

const _: () = assert!(size_of::<Tables>() == 4);

/// The names of the maps, in the object and in the directory of pins.
pub mod map {
    /// Hash: IPv4 address to [`crate::Entry`].
    pub const BLOCK4: &str = "BLOCK4";
    /// Hash: [`crate::Key6`] to [`crate::Entry`].
    pub const BLOCK6: &str = "BLOCK6";
    /// Trie: [`crate::TrieData4`] to [`crate::PrefixEntry`].
    pub const PREFIX4: &str = "PREFIX4";
    /// Trie: [`crate::TrieData6`] to [`crate::PrefixEntry`].
    pub const PREFIX6: &str = "PREFIX6";
    /// Trie: [`crate::TrieData4`] to the length of the prefix as `u32`.
    pub const ALLOW4: &str = "ALLOW4";
    /// Trie: [`crate::TrieData6`] to the length of the prefix as `u32`.
    pub const ALLOW6: &str = "ALLOW6";
    /// Array of one: [`crate::Tables`].
    pub const TABLES: &str = "TABLES";
    /// Array of one for each CPU: [`crate::Totals`].
    pub const TOTALS: &str = "TOTALS";
    /// The ring buffer of traced packets.
    pub const TRACE: &str = "AYA_LOGS";
}

/// The names of the programs in the object.
pub mod program {
    /// XDP.
    pub const XDP: &str = "xdpban";
    /// XDP for packets that span several buffers (kernel 5.18).
    pub const XDP_FRAGS: &str = "xdpban_frags";
    /// TC ingress.
    pub const TC: &str = "xdpban_tc";
    /// Returns the number of the [`crate::Outcome`] of a packet, and counts nothing.
    pub const PROBE: &str = "xdpban_probe";
    /// Carries out a [`crate::Renewal`].
    pub const RENEW: &str = "xdpban_renew";
}

/// The names of constants that are set before the programs are loaded.
pub mod global {
    /// A byte: 1 where the kernel has `bpf_ktime_get_coarse_ns` (5.11).
    pub const COARSE_CLOCK: &str = "COARSE_CLOCK";
}

/// How many entries a table holds in the object. The controller sizes each at load.
pub const DEFAULT_CAPACITY: usize = 1024;

#[cfg(feature = "aya")]
#[allow(unsafe_code, reason = "aya::Pod is the promise that the layout above keeps")]
mod pod {
    // SAFETY: one integer; any bit pattern is a value.
    unsafe impl aya::Pod for super::Tables {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_has_a_bit_of_its_own() {
        for table in Table::ALL {
            let mut tables = Tables::default();
            tables.set(table, true);
            for other in Table::ALL {
                assert_eq!(tables.has(other), table == other);
            }
            tables.set(table, false);
            assert_eq!(tables, Tables::default());
        }
    }
}
