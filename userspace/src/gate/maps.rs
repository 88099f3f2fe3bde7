//! The tables in the kernel, and which of them a target stands in.

use std::collections::HashSet;
use std::hash::Hash;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use aya::Pod;
use aya::maps::lpm_trie::Key;
use xdpban_common::{
    Entry, Key6, PrefixEntry, Renewal, Table, Tables, Totals, TrieData4, TrieData6, map, trie_data4,
};
use xdpban_engine::target::Target;

use super::error::GateError;
use super::sys::KernelMap;

/// The key of an IPv4 prefix in a trie.
pub(super) type Prefix4 = Key<TrieData4>;
/// The key of an IPv6 prefix in a trie.
pub(super) type Prefix6 = Key<TrieData6>;

/// The tables of blocks. They belong to one controller at a time: nobody else writes to them.
pub(super) struct Blocks {
    pub(super) block4: KernelMap<[u8; 4], Entry>,
    pub(super) block6: KernelMap<Key6, Entry>,
    pub(super) prefix4: KernelMap<Prefix4, PrefixEntry>,
    pub(super) prefix6: KernelMap<Prefix6, PrefixEntry>,
}

/// The tables beside those of blocks.
pub(super) struct Others {
    pub(super) allow4: KernelMap<Prefix4, u32>,
    pub(super) allow6: KernelMap<Prefix6, u32>,
    pub(super) tables: KernelMap<u32, Tables>,
    pub(super) totals: KernelMap<u32, Totals>,
}

/// Where a target stands: the table and the key there.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Host4([u8; 4]),
    Exact6(Key6),
    Prefix4(Prefix4),
    Prefix6(Prefix6),
}

/// Most entries that a walk through a trie returns: far beyond any capacity that can be configured.
const WALK_LIMIT: usize = 16 << 20;

impl Place {
    /// The place of a block.
    pub(super) fn of(target: &Target) -> Place {
        let prefix_len = u32::from(target.prefix_len());
        match target.address() {
            IpAddr::V4(v4) if prefix_len == 32 => Place::Host4(v4.octets()),
            IpAddr::V4(v4) => Place::Prefix4(Key::new(prefix_len, trie_data4(v4.octets()))),
            IpAddr::V6(v6) if matches!(prefix_len, 64 | 128) => {
                Place::Exact6(Key6 { address: v6.octets(), prefix_len })
            }
            IpAddr::V6(v6) => Place::Prefix6(Key::new(prefix_len, v6.octets())),
        }
    }

    pub(super) fn table(&self) -> Table {
        match self {
            Place::Host4(_) => Table::Host4,
            Place::Exact6(key) if key.prefix_len == 128 => Table::Host6,
            Place::Exact6(_) => Table::Net6,
            Place::Prefix4(_) => Table::Prefix4,
            Place::Prefix6(_) => Table::Prefix6,
        }
    }

    /// The name of the map, for errors.
    pub(super) fn map(&self) -> &'static str {
        match self {
            Place::Host4(_) => map::BLOCK4,
            Place::Exact6(_) => map::BLOCK6,
            Place::Prefix4(_) => map::PREFIX4,
            Place::Prefix6(_) => map::PREFIX6,
        }
    }

    /// What to hand to the program that moves an expiry.
    pub(super) fn renewal(&self, expires_ns: u64) -> Renewal {
        let (address, prefix_len) = match self {
            Place::Host4(address) => (widened(trie_data4(*address)), 32),
            Place::Exact6(key) => (key.address, key.prefix_len),
            Place::Prefix4(key) => (widened(key.data()), key.prefix_len()),
            Place::Prefix6(key) => (key.data(), key.prefix_len()),
        };
        Renewal { address, prefix_len, table: self.table() as u32, expires_ns }
    }
}

fn widened(data: TrieData4) -> [u8; 16] {
    let mut address = [0; 16];
    for (to, from) in address.iter_mut().zip(data) {
        *to = from;
    }
    address
}

/// The target of a key in a table of IPv4 addresses or prefixes.
fn target4(data: TrieData4, prefix_len: u32) -> Target {
    let [a, b, c, d, ..] = data;
    prefix(Ipv4Addr::new(a, b, c, d).into(), prefix_len)
}

fn target6(address: [u8; 16], prefix_len: u32) -> Target {
    prefix(Ipv6Addr::from(address).into(), prefix_len)
}

/// A length that no address has, from a map that someone else wrote to, counts as the longest.
fn prefix(address: IpAddr, prefix_len: u32) -> Target {
    Target::prefix(address, u8::try_from(prefix_len).unwrap_or(u8::MAX))
}

impl Blocks {
    pub(super) fn look_up(&self, place: &Place) -> io::Result<Option<Entry>> {
        match place {
            Place::Host4(key) => self.block4.look_up(key),
            Place::Exact6(key) => self.block6.look_up(key),
            Place::Prefix4(key) => Ok(exactly(self.prefix4.look_up(key)?, key.prefix_len())),
            Place::Prefix6(key) => Ok(exactly(self.prefix6.look_up(key)?, key.prefix_len())),
        }
    }

    pub(super) fn update(&self, place: &Place, entry: Entry) -> io::Result<()> {
        match place {
            Place::Host4(key) => self.block4.update(key, &entry),
            Place::Exact6(key) => self.block6.update(key, &entry),
            Place::Prefix4(key) => self.prefix4.update(key, &prefix_entry(entry, key.prefix_len())),
            Place::Prefix6(key) => self.prefix6.update(key, &prefix_entry(entry, key.prefix_len())),
        }
    }

    /// Takes an entry out and returns its last state.
    pub(super) fn take(&self, place: &Place) -> io::Result<Option<Entry>> {
        match place {
            Place::Host4(key) => self.block4.take(key),
            Place::Exact6(key) => self.block6.take(key),
            Place::Prefix4(key) => Ok(exactly(self.prefix4.take(key)?, key.prefix_len())),
            Place::Prefix6(key) => Ok(exactly(self.prefix6.take(key)?, key.prefix_len())),
        }
    }

    /// The place of every entry.
    pub(super) fn for_each_place(&self, mut visit: impl FnMut(Place)) -> Result<(), GateError> {
        self.block4.for_each(|key, _| visit(Place::Host4(key))).map_err(reading(map::BLOCK4))?;
        self.block6.for_each(|key, _| visit(Place::Exact6(key))).map_err(reading(map::BLOCK6))?;
        let prefixes4 = self.prefix4.keys(WALK_LIMIT).map_err(reading(map::PREFIX4))?;
        prefixes4.into_iter().for_each(|key| visit(Place::Prefix4(key)));
        let prefixes6 = self.prefix6.keys(WALK_LIMIT).map_err(reading(map::PREFIX6))?;
        prefixes6.into_iter().for_each(|key| visit(Place::Prefix6(key)));
        Ok(())
    }

    /// Every entry of every table.
    pub(super) fn entries(&self) -> Result<Vec<(Target, Entry)>, GateError> {
        let mut entries = hosts4(&self.block4).map_err(reading(map::BLOCK4))?;
        entries.extend(exact6(&self.block6).map_err(reading(map::BLOCK6))?);
        entries.extend(prefixes4(&self.prefix4).map_err(reading(map::PREFIX4))?);
        entries.extend(prefixes6(&self.prefix6).map_err(reading(map::PREFIX6))?);
        Ok(entries)
    }
}

/// The entries of the table called `name`, a map of the layout that this table has; of another than those of blocks, none.
pub(super) fn entries_of(name: &str, fd: OwnedFd) -> io::Result<Vec<(Target, Entry)>> {
    match name {
        map::BLOCK4 => hosts4(&KernelMap::new(fd)),
        map::BLOCK6 => exact6(&KernelMap::new(fd)),
        map::PREFIX4 => prefixes4(&KernelMap::new(fd)),
        map::PREFIX6 => prefixes6(&KernelMap::new(fd)),
        _ => Ok(Vec::new()),
    }
}

fn hosts4(map: &KernelMap<[u8; 4], Entry>) -> io::Result<Vec<(Target, Entry)>> {
    let mut entries = Vec::new();
    map.for_each(|key, entry| entries.push((target4(trie_data4(key), 32), entry)))?;
    Ok(entries)
}

fn exact6(map: &KernelMap<Key6, Entry>) -> io::Result<Vec<(Target, Entry)>> {
    let mut entries = Vec::new();
    map.for_each(|key, entry| entries.push((target6(key.address, key.prefix_len), entry)))?;
    Ok(entries)
}

fn prefixes4(map: &KernelMap<Prefix4, PrefixEntry>) -> io::Result<Vec<(Target, Entry)>> {
    walk(map, |key| target4(key.data(), key.prefix_len()))
}

fn prefixes6(map: &KernelMap<Prefix6, PrefixEntry>) -> io::Result<Vec<(Target, Entry)>> {
    walk(map, |key| target6(key.data(), key.prefix_len()))
}

fn walk<D: Pod>(
    map: &KernelMap<Key<D>, PrefixEntry>,
    target: impl Fn(&Key<D>) -> Target,
) -> io::Result<Vec<(Target, Entry)>> {
    let mut entries = Vec::new();
    for key in map.keys(WALK_LIMIT)? {
        entries.extend(exactly(map.look_up(&key)?, key.prefix_len()).map(|entry| (target(&key), entry)));
    }
    Ok(entries)
}

impl Others {
    /// Makes the allowed networks those of `networks`. What stays is not touched, and what is new comes in before
    /// anything goes, so that no packet of an allowed source meets a table without it.
    pub(super) fn set_allowed(&self, networks: &[Target]) -> Result<[usize; 2], GateError> {
        let mut wanted4 = Vec::new();
        let mut wanted6 = Vec::new();
        for network in networks {
            let prefix_len = u32::from(network.prefix_len());
            match network.address() {
                IpAddr::V4(v4) => wanted4.push(Key::new(prefix_len, trie_data4(v4.octets()))),
                IpAddr::V6(v6) => wanted6.push(Key::new(prefix_len, v6.octets())),
            }
        }
        Ok([replace(&self.allow4, map::ALLOW4, &wanted4)?, replace(&self.allow6, map::ALLOW6, &wanted6)?])
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

/// Makes the keys of a trie those of `wanted`, and returns how many there are.
fn replace<D>(
    trie: &KernelMap<Key<D>, u32>,
    name: &'static str,
    wanted: &[Key<D>],
) -> Result<usize, GateError>
where
    D: Pod + Eq + Hash,
{
    for key in wanted {
        trie.update(key, &key.prefix_len()).map_err(writing(name))?;
    }
    let wanted: HashSet<_> = wanted.iter().map(|key| (key.prefix_len(), key.data())).collect();
    for key in trie.keys(WALK_LIMIT).map_err(reading(name))? {
        if !wanted.contains(&(key.prefix_len(), key.data())) {
            trie.delete(&key).map_err(writing(name))?;
        }
    }
    Ok(wanted.len())
}

/// The entry that a lookup in a trie found, unless it is that of a shorter prefix.
fn exactly(found: Option<PrefixEntry>, prefix_len: u32) -> Option<Entry> {
    found.filter(|found| found.prefix_len == prefix_len).map(|found| found.entry)
}

fn prefix_entry(entry: Entry, prefix_len: u32) -> PrefixEntry {
    PrefixEntry { entry, prefix_len, reserved: 0 }
}

/// An error of reading the map `table`.
pub(super) fn reading(table: &'static str) -> impl Fn(io::Error) -> GateError {
    move |source| GateError::Table { operation: "read", table, source }
}

/// An error of writing to the map `table`.
pub(super) fn writing(table: &'static str) -> impl Fn(io::Error) -> GateError {
    move |source| GateError::Table { operation: "write to", table, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::of(&text.parse().unwrap())
    }

    #[test]
    fn each_target_has_its_table() {
        assert!(matches!(place("203.0.113.7"), Place::Host4([203, 0, 113, 7])));
        assert!(matches!(place("203.0.113.0/24"), Place::Prefix4(key) if key.prefix_len() == 24));
        assert_eq!(place("2001:db8::1").table(), Table::Host6);
        assert_eq!(place("2001:db8::/64").table(), Table::Net6);
        assert_eq!(place("2001:db8::/63").table(), Table::Prefix6);
        assert_eq!(place("2001:db8::/65").table(), Table::Prefix6);
        assert_eq!(place("::ffff:203.0.113.7").table(), Table::Host4);
    }

    #[test]
    fn a_renewal_names_the_same_place() {
        let renewal = place("203.0.113.0/24").renewal(7);
        assert_eq!(renewal.address[..8], [203, 0, 113, 0, 0, 0, 0, 0]);
        assert_eq!((renewal.prefix_len, renewal.table, renewal.expires_ns), (24, Table::Prefix4 as u32, 7));
    }
}
