//! The gate: the XDP program, its maps, pins and links. Nothing else in the controller knows aya or bpf(2).
//!
//! Invariants:
//!
//! - One controller at a time writes to the tables; the program only adds to counts.
//! - What was inserted stays when the controller goes: maps and links are pinned, and a later controller takes both over
//!   without a moment in which the gate is open.
//! - The map TABLES says of every table that holds an entry that it does. Where it says so of an empty one, a lookup is
//!   wasted and nothing else.
//! - Counts of an entry survive a change of its expiry, without a packet missing from them.

mod attach;
mod detach;
mod error;
mod insert;
mod load;
mod maps;
mod netlink;
mod packet;
mod pins;
mod present;
mod privileges;
mod selftest;
mod sys;
#[cfg(test)]
mod tests;
mod trace;

use std::net::IpAddr;
use std::path::PathBuf;

use aya::Ebpf;
pub use xdpban_common::{Entry, NEVER, Outcome, Totals};
use xdpban_common::{Table, program};
use xdpban_engine::target::Target;

pub use self::attach::Attached;
pub use self::detach::{Detached, detach, read_pinned};
pub use self::error::{AttachedMode, GateError, InsertError};
pub use self::privileges::check as check_privileges;
pub use self::trace::PacketLog;

use self::maps::{Blocks, Others, Place, reading, writing};
use self::pins::Pins;
use self::present::Present;

/// How to open the gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory of pins, on a bpffs.
    pub pins: PathBuf,
    /// The capacity of each exact table.
    pub blocks: u32,
    /// The capacity of each table of prefixes.
    pub prefixes: u32,
    /// Whether the program tells of packets (see [`Gate::packet_log`]). It costs nothing where this is false.
    pub trace_packets: bool,
}

/// The loaded program and its tables. Dropping it leaves everything in the kernel as it is.
pub struct Gate {
    pins: Pins,
    programs: Ebpf,
    blocks: Blocks,
    others: Others,
    present: Present,
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
        let load::Loaded { programs, blocks, others, took_over } =
            load::load(&pins, options, crate::clock::now().mono)?;
        let present = Present::default();
        let trace_packets = options.trace_packets;
        let mut gate = Gate { pins, programs, blocks, others, present, trace_packets, took_over };
        gate.count_present()?;
        Ok(gate)
    }

    /// Lifts the blocks of targets, and returns for each its last state, with the final counts; none for one that was
    /// not blocked, which is no error.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; targets before the one that it refused are lifted.
    pub fn remove(&mut self, targets: &[Target]) -> Result<Vec<Option<Entry>>, GateError> {
        let mut removed = Vec::with_capacity(targets.len());
        let mut failure = None;
        for target in targets {
            let place = Place::of(target);
            match self.blocks.take(&place) {
                Ok(entry) => {
                    self.present.subtract(place.table(), usize::from(entry.is_some()));
                    removed.push(entry);
                }
                Err(error) => {
                    failure = Some(writing(place.map())(error));
                    break;
                }
            }
        }
        self.present.tell(&self.others)?;
        failure.map_or(Ok(removed), Err)
    }

    /// Makes the networks that are never dropped those of `networks`.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; networks that were allowed before and still are stay allowed throughout.
    pub fn set_allow(&mut self, networks: &[Target]) -> Result<(), GateError> {
        // The program must look into the tables while they change.
        self.present.add(Table::Allow4, 1);
        self.present.add(Table::Allow6, 1);
        self.present.tell(&self.others)?;
        let [allowed4, allowed6] = self.others.set_allowed(networks)?;
        self.present.set(Table::Allow4, allowed4);
        self.present.set(Table::Allow6, allowed6);
        self.present.tell(&self.others)
    }

    /// Whether the tables are those of an earlier controller: then what does not stand in them is not blocked. Otherwise they
    /// began empty, as after a reboot.
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// The entry of a target, as it stands in the kernel.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn entry(&self, target: &Target) -> Result<Option<Entry>, GateError> {
        let place = Place::of(target);
        self.blocks.look_up(&place).map_err(reading(place.map()))
    }

    /// Every entry in the kernel, in no order; also those that have expired and have not been removed.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn entries(&self) -> Result<Vec<(Target, Entry)>, GateError> {
        self.blocks.entries()
    }

    /// Packets by what became of them, on all CPUs and interfaces, since the tables were made.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn totals(&self) -> Result<Totals, GateError> {
        self.others.totals()
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

    /// Counts what is in the tables that were taken over.
    fn count_present(&mut self) -> Result<(), GateError> {
        self.blocks.for_each_place(|place| self.present.add(place.table(), 1))?;
        let [allowed4, allowed6] = self.others.allowed()?;
        self.present.set(Table::Allow4, allowed4);
        self.present.set(Table::Allow6, allowed6);
        self.present.tell_anew(&self.others)
    }
}
