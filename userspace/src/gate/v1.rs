//! The tables as the first version of their layout had them: hashes for addresses, tries for prefixes. Only read, to go
//! on with what stands in them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{MapInfo, MapType};
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;

use super::error::GateError;
use super::load;
use super::maps::{WALK_LIMIT, reading};
use super::pins::Pins;
use super::sys::KernelMap;
use super::tables::Entry;

/// The directory of these maps.
const LAYOUT: &str = "v1";

/// The key of an IPv6 address or /64: the address, and the length of the prefix.
type Key6 = [u32; 5];

/// When it ends, packets, and bytes.
type Counts = [u64; 3];

/// The value of a prefix: that of an address, and in the last word the length.
type PrefixCounts = [u64; 4];

/// Whether there are any such tables.
pub(super) fn is_there(pins: &Pins) -> bool {
    pins.layout(LAYOUT).join("BLOCK4").exists()
}

/// Every entry of the tables that have the shape of this layout.
pub(super) fn entries(pins: &Pins) -> Result<Vec<(Target, Entry)>, GateError> {
    let mut entries = Vec::new();
    let v4 = |address: &[u8], prefix_len: u32| {
        let bits = address.first_chunk::<4>().copied().unwrap_or_default();
        Target::prefix(Ipv4Addr::from(bits).into(), u8::try_from(prefix_len).unwrap_or(u8::MAX))
    };
    let v6 = |address: &[u8], prefix_len: u32| {
        let bits = address.first_chunk::<16>().copied().unwrap_or_default();
        Target::prefix(Ipv6Addr::from(bits).into(), u8::try_from(prefix_len).unwrap_or(u8::MAX))
    };
    if let Some(map) = open::<[u8; 4], Counts>(pins, "BLOCK4", MapType::Hash)? {
        map.for_each(|key, counts| entries.push((v4(&key, 32), entry(counts)))).map_err(reading("BLOCK4"))?;
    }
    if let Some(map) = open::<Key6, Counts>(pins, "BLOCK6", MapType::Hash)? {
        map.for_each(|[a, b, c, d, prefix_len], counts| {
            let address = [a, b, c, d].map(u32::to_ne_bytes);
            entries.push((v6(address.as_flattened(), prefix_len), entry(counts)));
        })
        .map_err(reading("BLOCK6"))?;
    }
    if let Some(map) = open::<Key<[u8; 8]>, PrefixCounts>(pins, "PREFIX4", MapType::LpmTrie)? {
        walk(&map, |key, counts| entries.push((v4(&key.data(), key.prefix_len()), entry(counts))))
            .map_err(reading("PREFIX4"))?;
    }
    if let Some(map) = open::<Key<[u8; 16]>, PrefixCounts>(pins, "PREFIX6", MapType::LpmTrie)? {
        walk(&map, |key, counts| entries.push((v6(&key.data(), key.prefix_len()), entry(counts))))
            .map_err(reading("PREFIX6"))?;
    }
    Ok(entries)
}

fn open<K: Pod, V: Pod>(
    pins: &Pins,
    name: &'static str,
    kind: MapType,
) -> Result<Option<KernelMap<K, V>>, GateError> {
    let path = pins.layout(LAYOUT).join(name);
    let Some(map) = load::open_map(&path)? else { return Ok(None) };
    let fits = |info: &MapInfo| {
        info.map_type().is_ok_and(|found| found == kind)
            && usize::try_from(info.key_size()) == Ok(size_of::<K>())
            && usize::try_from(info.value_size()) == Ok(size_of::<V>())
    };
    if !fits(&load::map_info(&map, &path)?) {
        return Ok(None);
    }
    load::fd(&map, name).map(|fd| Some(KernelMap::new(fd)))
}

fn walk<D: Pod>(
    map: &KernelMap<Key<D>, PrefixCounts>,
    mut visit: impl FnMut(Key<D>, Counts),
) -> io::Result<()> {
    for key in map.keys(WALK_LIMIT)? {
        // A lookup finds the longest prefix, which is another one where this has just gone.
        if let Some([expires_ns, packets, bytes, prefix_len]) = map.look_up(&key)?
            && prefix_len & u64::from(u32::MAX) == u64::from(key.prefix_len())
        {
            visit(key, [expires_ns, packets, bytes]);
        }
    }
    Ok(())
}

fn entry([expires_ns, packets, bytes]: Counts) -> Entry {
    Entry { expires_ns, measure: Some(Measure::default()), packets, bytes }
}
