//! How much memory of the kernel the tables take.

use aya::maps::MapType;
use aya::util::nr_cpus;

use super::Options;
use super::load::Shape;
use super::tables::Capacity;

/// An element of a hash before its key and value: `struct htab_elem` in the kernel's kernel/bpf/hashtab.c.
const HASH_ELEMENT: u64 = 48;
/// `struct bucket` there.
const HASH_BUCKET: u64 = 16;
/// `struct lpm_trie_node` in kernel/bpf/lpm_trie.c, before its prefix and value.
const TRIE_NODE: u64 = 40;

/// Memory of the kernel, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// From the start: hashes have all their elements then.
    pub at_start: u64,
    /// With every table full: tries take memory for each prefix.
    pub at_most: u64,
}

/// What the tables take that `options` ask for.
pub fn tables(options: &Options) -> Memory {
    // Where it is not known, one more or less makes no difference to speak of.
    let cpus = nr_cpus().map_or(1, |cpus| cpus as u64);
    let capacity = Capacity { blocks: options.blocks, prefixes: options.prefixes };
    Shape::all(capacity).iter().fold(Memory::default(), |sum, shape| {
        let one = of(shape, cpus);
        Memory { at_start: sum.at_start + one.at_start, at_most: sum.at_most + one.at_most }
    })
}

fn of(shape: &Shape, cpus: u64) -> Memory {
    let aligned = |size: usize| size.next_multiple_of(8) as u64;
    let (key, value, capacity) =
        (aligned(shape.key_size), aligned(shape.value_size), u64::from(shape.capacity));
    let fixed = |bytes| Memory { at_start: bytes, at_most: bytes };
    match shape.kind {
        MapType::Hash => {
            let elements = (capacity + cpus) * (HASH_ELEMENT + key + value);
            fixed(elements + capacity.next_power_of_two() * HASH_BUCKET)
        }
        MapType::LpmTrie => {
            // A prefix may need a node that only joins two others.
            let nodes = 2 * capacity;
            Memory { at_start: 0, at_most: nodes * (TRIE_NODE + key + value) }
        }
        MapType::PerCpuArray => fixed(capacity * cpus * value),
        _ => fixed(capacity * value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(blocks: u32) -> Memory {
        let options = Options {
            pins: "/sys/fs/bpf/x".into(),
            blocks,
            prefixes: 1,
            trace_packets: false,
            dry_run: false,
        };
        tables(&options)
    }

    #[test]
    fn the_default_is_about_what_the_readme_says() {
        let per_block = (bytes(1 << 18).at_start - bytes(1).at_start) / (1 << 18);
        assert!((150..300).contains(&per_block), "{per_block} bytes for a block of IPv4 and one of IPv6");
        assert!(bytes(1 << 18).at_most > bytes(1 << 18).at_start);
    }
}
