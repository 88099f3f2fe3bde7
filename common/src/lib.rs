//! Layouts and limits that the BPF program and the controller share: each stands here, once, with its size asserted.
//!
//! Addresses are in network byte order, integers in the host's. No layout has padding.
#![no_std]

mod control;
mod names;
mod outcome;
mod slot;

pub use control::{Control, FILTER_WORDS, Kind, NESTED4, NESTED6, filter4, filter6};
pub use names::{global, map, program};
pub use outcome::{Outcome, Totals};
pub use slot::{HOMES_PER_ENTRY, MAX_PROBES, NEVER, Slot, Slot4, Slot6, Special, State, hash4, hash6, home};
