//! Layouts and limits that the BPF program and the controller share: each stands here, once, with its size asserted.
//!
//! Addresses are in network byte order, integers in the host's. No layout has padding: the kernel compares keys
//! byte by byte, and padding would hold whatever the stack held.
#![no_std]

mod entry;
mod outcome;
mod table;

pub use entry::{Entry, Key6, NEVER, PREFIX4_BITS, PrefixEntry, Renewal, TrieData4, TrieData6, trie_data4};
pub use outcome::{Outcome, Totals};
pub use table::{DEFAULT_CAPACITY, Table, Tables, global, map, program};
