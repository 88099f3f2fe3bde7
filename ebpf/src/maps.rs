//! The maps. The controller sizes them at load and pins them; [`xdpban_common::map`] says what each holds.

use aya_ebpf::Global;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray};
use aya_ebpf::macros::btf_map;
use xdpban_common::{DEFAULT_CAPACITY, Entry, Key6, PrefixEntry, Tables, Totals, TrieData4, TrieData6};

#[btf_map]
pub(crate) static BLOCK4: HashMap<[u8; 4], Entry, DEFAULT_CAPACITY> = HashMap::new();

#[btf_map]
pub(crate) static BLOCK6: HashMap<Key6, Entry, DEFAULT_CAPACITY> = HashMap::new();

#[btf_map]
pub(crate) static PREFIX4: LpmTrie<TrieData4, PrefixEntry, DEFAULT_CAPACITY> = LpmTrie::new();

#[btf_map]
pub(crate) static PREFIX6: LpmTrie<TrieData6, PrefixEntry, DEFAULT_CAPACITY> = LpmTrie::new();

#[btf_map]
pub(crate) static ALLOW4: LpmTrie<TrieData4, u32, DEFAULT_CAPACITY> = LpmTrie::new();

#[btf_map]
pub(crate) static ALLOW6: LpmTrie<TrieData6, u32, DEFAULT_CAPACITY> = LpmTrie::new();

#[btf_map]
pub(crate) static TABLES: Array<Tables, 1> = Array::new();

#[btf_map]
pub(crate) static TOTALS: PerCpuArray<Totals, 1> = PerCpuArray::new();

/// 1 where the kernel has `bpf_ktime_get_coarse_ns`. A constant when the verifier runs, so that it never sees a call
/// that the kernel lacks.
#[unsafe(no_mangle)]
pub(crate) static COARSE_CLOCK: Global<u8> = Global::new(0);
