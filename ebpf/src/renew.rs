//! Moving the expiry of an entry in place, so that no count is lost.

use core::ptr::NonNull;

use aya_ebpf::btf_maps::lpm_trie::Key;
use xdpban_common::{Entry, Key6, PrefixEntry, Renewal, Table, trie_data4};

use crate::maps::{BLOCK4, BLOCK6, PREFIX4, PREFIX6};

const HOST4: u32 = Table::Host4 as u32;
const HOST6: u32 = Table::Host6 as u32;
const NET6: u32 = Table::Net6 as u32;
const PREFIX_4: u32 = Table::Prefix4 as u32;
const PREFIX_6: u32 = Table::Prefix6 as u32;

/// Sets the expiry of the entry that `renewal` names; false where there is none.
#[inline(always)]
pub(crate) fn renew(renewal: &Renewal) -> bool {
    let Some(entry) = entry(renewal) else { return false };
    // SAFETY: a pointer that a lookup returned is valid until the program ends; one aligned word is written at once.
    unsafe { (&raw mut (*entry.as_ptr()).expires_ns).write_volatile(renewal.expires_ns) };
    true
}

#[inline(always)]
fn entry(renewal: &Renewal) -> Option<NonNull<Entry>> {
    let Renewal { address, prefix_len, table, .. } = *renewal;
    let [a, b, c, d, ..] = address;
    match table {
        HOST4 => BLOCK4.get_ptr_mut([a, b, c, d]).and_then(NonNull::new),
        HOST6 | NET6 => BLOCK6.get_ptr_mut(Key6 { address, prefix_len }).and_then(NonNull::new),
        PREFIX_4 => exactly(PREFIX4.get(&Key::new(prefix_len, trie_data4([a, b, c, d]))), prefix_len),
        PREFIX_6 => exactly(PREFIX6.get(&Key::new(prefix_len, address)), prefix_len),
        _ => None,
    }
}

/// The entry that a trie found, unless it is that of a shorter prefix.
#[inline(always)]
fn exactly(found: Option<&PrefixEntry>, prefix_len: u32) -> Option<NonNull<Entry>> {
    found.filter(|found| found.prefix_len == prefix_len).map(|found| NonNull::from(&found.entry))
}
