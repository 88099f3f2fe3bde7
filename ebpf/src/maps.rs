//! The maps. The controller sizes them at load and pins them; [`xdpban_common::map`] says what each holds.
//!
//! What the controller writes through shared memory is mappable (kernel 5.5).

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, LpmTrie, PerCpuArray};
use aya_ebpf::macros::btf_map;
use xdpban_common::{Control, FILTER_WORDS, Slot4, Slot6, Special, Totals};

const SHARED: usize = BPF_F_MMAPABLE as usize;

/// How many entries a map has until the controller sizes it.
const UNSIZED: usize = 1024;
const UNSIZED_HOMES: u32 = 1024;

#[btf_map]
pub(crate) static BLOCK4: Array<Slot4, UNSIZED, SHARED> = Array::new();

#[btf_map]
pub(crate) static BLOCK6: Array<Slot6, UNSIZED, SHARED> = Array::new();

#[btf_map]
pub(crate) static PREFIX4: LpmTrie<[u8; 4], u32, UNSIZED> = LpmTrie::new();

#[btf_map]
pub(crate) static PREFIX6: LpmTrie<[u8; 16], u32, UNSIZED> = LpmTrie::new();

#[btf_map]
pub(crate) static SPECIAL: Array<Special, UNSIZED, SHARED> = Array::new();

#[btf_map]
pub(crate) static FILTER4: Array<u64, FILTER_WORDS, SHARED> = Array::new();

#[btf_map]
pub(crate) static FILTER6: Array<u64, FILTER_WORDS, SHARED> = Array::new();

#[btf_map]
pub(crate) static CONTROL: Array<Control, 1, SHARED> = Array::new();

#[btf_map]
pub(crate) static ALLOW4: LpmTrie<[u8; 4], u32, UNSIZED> = LpmTrie::new();

#[btf_map]
pub(crate) static ALLOW6: LpmTrie<[u8; 16], u32, UNSIZED> = LpmTrie::new();

#[btf_map]
pub(crate) static TOTALS: PerCpuArray<Totals, 1> = PerCpuArray::new();

/// How many slots of BLOCK4 are homes.
#[unsafe(no_mangle)]
pub(crate) static HOMES4: Global<u32> = Global::new(UNSIZED_HOMES);

/// How many slots of BLOCK6 are homes.
#[unsafe(no_mangle)]
pub(crate) static HOMES6: Global<u32> = Global::new(UNSIZED_HOMES);
