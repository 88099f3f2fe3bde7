//! The maps that are not tables of blocks: the allowed networks, and the counts of packets.

use std::collections::HashSet;
use std::hash::Hash;
use std::io;
use std::net::IpAddr;

use aya::Pod;
use aya::maps::lpm_trie::Key;
use xdpban_common::{Totals, map};
use xdpban_engine::target::Target;

use super::error::GateError;
use super::sys::KernelMap;

/// The key of an IPv4 network in a trie.
pub(super) type Network4 = Key<[u8; 4]>;
/// The key of an IPv6 network in a trie.
pub(super) type Network6 = Key<[u8; 16]>;

/// Most entries that a walk through a trie returns: far beyond any capacity.
pub(super) const WALK_LIMIT: usize = 16 << 20;

/// See the module.
pub(super) struct Maps {
    pub(super) allow4: KernelMap<Network4, u32>,
    pub(super) allow6: KernelMap<Network6, u32>,
    pub(super) totals: KernelMap<u32, Totals>,
}

impl Maps {
    /// Makes the allowed networks those of `networks`. What stays is not touched, and what is new comes in before
    /// anything goes, so that no packet of an allowed source meets a table without it. Returns how many came and went.
    pub(super) fn set_allowed(&self, networks: &[Target]) -> Result<usize, GateError> {
        let mut wanted4 = Vec::new();
        let mut wanted6 = Vec::new();
        for network in networks {
            let prefix_len = u32::from(network.prefix_len());
            match network.address() {
                IpAddr::V4(v4) => wanted4.push(Key::new(prefix_len, v4.octets())),
                IpAddr::V6(v6) => wanted6.push(Key::new(prefix_len, v6.octets())),
            }
        }
        Ok(replace(&self.allow4, map::ALLOW4, &wanted4)? + replace(&self.allow6, map::ALLOW6, &wanted6)?)
    }

    /// How many networks are allowed, of IPv4 and of IPv6.
    pub(super) fn allowed(&self) -> Result<[usize; 2], GateError> {
        let allowed4 = self.allow4.keys(WALK_LIMIT).map_err(reading(map::ALLOW4))?;
        let allowed6 = self.allow6.keys(WALK_LIMIT).map_err(reading(map::ALLOW6))?;
        Ok([allowed4.len(), allowed6.len()])
    }

    /// The counts of all CPUs together.
    pub(super) fn totals(&self) -> Result<Totals, GateError> {
        let mut sum = Totals::default();
        for cpu in self.totals.look_up_copies(&0).map_err(reading(map::TOTALS))?.unwrap_or_default() {
            sum.add(&cpu);
        }
        Ok(sum)
    }
}

/// Makes the keys of a trie those of `wanted`, and returns how many came and went.
fn replace<D>(
    trie: &KernelMap<Key<D>, u32>,
    name: &'static str,
    wanted: &[Key<D>],
) -> Result<usize, GateError>
where
    D: Pod + Eq + Hash,
{
    let mut changed = 0;
    for key in wanted {
        // The longest network that it lies in is it itself, where it is there.
        if trie.look_up(key).map_err(reading(name))? != Some(key.prefix_len()) {
            trie.update(key, &key.prefix_len()).map_err(writing(name))?;
            changed += 1;
        }
    }
    let wanted: HashSet<_> = wanted.iter().map(|key| (key.prefix_len(), key.data())).collect();
    for key in trie.keys(WALK_LIMIT).map_err(reading(name))? {
        if !wanted.contains(&(key.prefix_len(), key.data())) {
            trie.delete(&key).map_err(writing(name))?;
            changed += 1;
        }
    }
    Ok(changed)
}

/// An error of reading the map `table`.
pub(super) fn reading(table: &'static str) -> impl Fn(io::Error) -> GateError {
    move |source| GateError::Table { operation: "read", table, source }
}

/// An error of writing to the map `table`.
pub(super) fn writing(table: &'static str) -> impl Fn(io::Error) -> GateError {
    move |source| GateError::Table { operation: "write to", table, source }
}
