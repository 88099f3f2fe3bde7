//! The gate: the XDP program, its maps, pins and links. Nothing else in the controller knows aya or bpf(2).
//!
//! Invariants:
//!
//! - One controller at a time writes to the tables; the program only adds to counts and takes tokens.
//! - What was inserted stays when the controller goes: maps and links are pinned, and a later controller takes both over
//!   without a moment in which the gate is open.
//! - Counts of an entry survive a change of its expiry, without a packet missing from them.

mod attach;
mod compare;
mod detach;
mod error;
mod family;
mod features;
mod load;
mod maps;
mod measures;
mod memory;
mod packet;
mod pins;
mod privileges;
mod refusal;
mod selftest;
mod shared;
mod side;
mod slots;
mod sys;
mod tables;
#[cfg(test)]
mod tests;
mod trace;
mod v1;

use std::net::IpAddr;
use std::path::PathBuf;

use aya::Ebpf;
use xdpban_common::program;
pub use xdpban_common::{NEVER, Outcome, Totals};
use xdpban_engine::target::Target;

pub use self::attach::{Attached, Held};
pub use self::compare::Part;
pub use self::detach::{Detached, detach, read_pinned};
pub use self::error::{AttachedMode, GateError, NotTaken};
pub use self::features::{check_pins, kernel_version, missing_capabilities, pinned_holds, rehearse};
pub use self::memory::{Memory, tables as table_memory};
pub use self::privileges::check as check_privileges;
pub use self::tables::{Entry, Insertion, Reconciled};
pub use self::trace::PacketLog;

use self::maps::Maps;
use self::pins::Pins;
use self::tables::Tables;

/// How to open the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory of pins, on a bpffs.
    pub pins: PathBuf,
    /// The capacity of each exact table.
    pub blocks: u32,
    /// The capacity of each table of prefixes.
    pub prefixes: u32,
    /// Whether the program only counts what it would drop.
    pub dry_run: bool,
    /// Whether the program tells of packets (see [`Gate::packet_log`]). It costs nothing where this is false.
    pub trace_packets: bool,
}

/// The loaded program and its tables. Dropping it leaves everything in the kernel as it is.
pub struct Gate {
    pins: Pins,
    programs: Ebpf,
    tables: Tables,
    maps: Maps,
    memory: Memory,
    trace_packets: bool,
    took_over: bool,
}

impl Gate {
    /// Loads the program, tests it, and takes over what an earlier controller left in `options.pins`: maps of the same
    /// layout and capacity as they are; of others the live entries. Attaches nothing.
    ///
    /// # Errors
    ///
    /// [`GateError`] says what is in the way and what to do.
    pub fn open(options: &Options) -> Result<Gate, GateError> {
        privileges::check()?;
        let pins = Pins::new(&options.pins);
        pins.create()?;
        let load::Loaded { programs, mut tables, maps, took_over } =
            load::load(&pins, options, crate::clock::now().mono)?;
        tables.set_dry_run(options.dry_run);
        let [allowed4, allowed6] = maps.allowed()?;
        tables.set_allowed(allowed4 > 0, allowed6 > 0);
        let (memory, trace_packets) = (table_memory(options), options.trace_packets);
        Ok(Gate { pins, programs, tables, maps, memory, trace_packets, took_over })
    }

    /// Puts blocks in. A target that is blocked already keeps its counts and gets the new expiry and measure. Returns the
    /// places in `insertions` of those that were not taken, in order, and why; the others are in force.
    pub fn insert(&mut self, insertions: &[Insertion]) -> Vec<(usize, NotTaken)> {
        self.tables.insert(insertions)
    }

    /// Lifts the blocks of targets, and returns for each its last state, with the final counts; none for one that was
    /// not blocked, which is no error.
    pub fn remove(&mut self, targets: &[Target]) -> Vec<Option<Entry>> {
        self.tables.remove(targets)
    }

    /// Compares a part of the tables, some milliseconds' worth, with the block that `wanted` has for a target, and mends it.
    /// Returns what someone else had changed there, and the next part. What is missing, [`Gate::put_back`] finds.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let the tries of prefixes be read or written.
    pub fn compare(
        &mut self,
        part: Part,
        wanted: impl Fn(&Target) -> Option<Insertion>,
    ) -> Result<(Reconciled, Option<Part>), GateError> {
        self.tables.compare(part, wanted)
    }

    /// Puts those of `wanted`, all of which were put in before, back in that are not there, and returns their targets.
    pub fn put_back(&mut self, wanted: impl Iterator<Item = Insertion>) -> Vec<Target> {
        self.tables.put_back(wanted)
    }

    /// Makes the networks that are never dropped those of `networks`, and returns how many it had to put in or to take out
    /// for that.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; networks that were allowed before and still are stay allowed throughout.
    pub fn set_allow(&mut self, networks: &[Target]) -> Result<usize, GateError> {
        // The program must look into the maps while they change.
        self.tables.set_allowed(true, true);
        let changed = self.maps.set_allowed(networks)?;
        let has = |v4: bool| networks.iter().any(|network| network.address().is_ipv4() == v4);
        self.tables.set_allowed(has(true), has(false));
        Ok(changed)
    }

    /// Has the program only count what it would drop, or enforce again.
    pub fn set_dry_run(&mut self, dry_run: bool) {
        self.tables.set_dry_run(dry_run);
    }

    /// How much memory of the kernel the tables take.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Whether the tables are those of an earlier controller: then what does not stand in them is not blocked. Otherwise they
    /// began empty, as after a reboot.
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// The entry of a target, as it stands in the kernel.
    pub fn entry(&self, target: &Target) -> Option<Entry> {
        self.tables.entry(target)
    }

    /// Every entry in the kernel, in no order; also those that have expired and have not been removed.
    pub fn entries(&self) -> impl Iterator<Item = (Target, Entry)> {
        self.tables.entries()
    }

    /// Packets by what became of them, on all CPUs and interfaces, since the tables were made.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn totals(&self) -> Result<Totals, GateError> {
        self.maps.totals()
    }

    /// What would become of a packet from `address`. The kernel runs the program's own code on such a packet, in a variant
    /// that counts nothing and tells nobody.
    ///
    /// # Errors
    ///
    /// Where the kernel does not run it.
    pub fn verdict(&mut self, address: IpAddr) -> Result<Outcome, GateError> {
        let program = load::xdp(&mut self.programs, program::PROBE)?;
        let number = selftest::test_run(program, program::PROBE, &packet::from(address.to_canonical()))?;
        Outcome::from_number(number).ok_or(GateError::Object { name: program::PROBE })
    }

    /// The log of packets, where the gate was opened with `trace_packets`; once.
    ///
    /// # Errors
    ///
    /// Where it was taken before, or cannot be read.
    pub fn packet_log(&mut self) -> Result<Option<PacketLog>, GateError> {
        if self.trace_packets { PacketLog::open(&mut self.programs).map(Some) } else { Ok(None) }
    }
}
