//! The tables of blocks and what leads to them: the one owner of what is blocked in the kernel.
//!
//! All of it is shared memory but the tries of prefixes, so that blocks of single sources come and go without a system
//! call, and nothing can fail but for want of room. What the program is told (the filters, the kinds of block) never
//! leaves out a block that is in its table.

use std::mem::offset_of;
use std::net::IpAddr;
#[cfg(test)]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Release;

use xdpban_common::{Control, NEVER, Slot4, Slot6, Special, map};
#[cfg(test)]
use xdpban_engine::measure::Action;
use xdpban_engine::measure::Measure;
use xdpban_engine::target::Target;
use xdpban_engine::time::Mono;

use super::error::{GateError, NotTaken};
use super::family::{V4, V6};
use super::maps::{Network4, Network6, writing};
use super::measures::Measures;
use super::shared::Shared;
use super::side::Side;
use super::slots::Value;
use super::sys::KernelMap;

/// The block of a target, as it stands in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it ends, in nanoseconds of `CLOCK_MONOTONIC`; [`NEVER`] until it is lifted.
    pub expires_ns: u64,
    /// What befalls the target's packets; none where someone else wrote to the tables, so that the program does not find it
    /// and lets them pass.
    pub measure: Option<Measure>,
    /// Packets dropped because of it.
    pub packets: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
}

impl Entry {
    /// When the block ends; none until it is lifted.
    pub fn deadline(&self) -> Option<Mono> {
        (self.expires_ns != NEVER).then_some(Mono(self.expires_ns))
    }
}

/// A block to put into the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insertion {
    /// What to block.
    pub target: Target,
    /// Until when; none: until it is removed.
    pub expires: Option<Mono>,
    /// What befalls its packets.
    pub measure: Measure,
}

impl Insertion {
    /// Until when, as an entry has it.
    pub(super) fn expires_ns(&self) -> u64 {
        self.expires.map_or(NEVER, |mono| mono.0)
    }
}

/// What an entry has dropped.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// What of the tables was not as the controller had left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Entries that had gone or changed.
    pub put_back: Vec<Target>,
    /// Entries that the controller had not made.
    pub taken_out: Vec<Target>,
}

/// What the tables stand in.
pub(super) struct Memory {
    pub(super) block4: Shared<Slot4>,
    pub(super) block6: Shared<Slot6>,
    pub(super) prefix4: KernelMap<Network4, u32>,
    pub(super) prefix6: KernelMap<Network6, u32>,
    pub(super) special: Shared<Special>,
    pub(super) filter4: Shared<u64>,
    pub(super) filter6: Shared<u64>,
    pub(super) control: Shared<Control>,
}

/// How many entries the tables of either family may hold, or do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Capacity {
    /// Addresses, and IPv6 /64s.
    pub(super) blocks: u32,
    /// Other prefixes.
    pub(super) prefixes: u32,
}

/// See the module.
pub(super) struct Tables {
    pub(super) v4: Side<V4>,
    pub(super) v6: Side<V6>,
    pub(super) measures: Measures,
    control: Shared<Control>,
    seed: u64,
}

impl Tables {
    /// Takes over what stands in the memory, under the seed that stands there. The seed of new memory must be set.
    ///
    /// # Errors
    ///
    /// Where the kernel does not take a prefix.
    pub(super) fn new(memory: Memory, capacity: Capacity) -> Result<Tables, GateError> {
        let Memory { block4, block6, prefix4, prefix6, special, filter4, filter6, control } = memory;
        let seed = control.read(0).seed;
        let v4 = Side::new(block4, prefix4, filter4, seed, capacity).map_err(writing(map::PREFIX4))?;
        let v6 = Side::new(block6, prefix6, filter6, seed, capacity).map_err(writing(map::PREFIX6))?;
        let values = v4.entries().chain(v6.entries()).map(|(_, value)| value.special);
        let measures = Measures::new(special, values.filter(|number| *number != 0).collect());
        let mut tables = Tables { v4, v6, measures, control, seed };
        tables.tell();
        Ok(tables)
    }

    /// Puts blocks in. A target that is blocked already keeps its counts and gets the new expiry and measure. Returns the
    /// places in `insertions` of those that were not taken, in order, and why.
    pub(super) fn insert(&mut self, insertions: &[Insertion]) -> Vec<(usize, NotTaken)> {
        self.put_all(insertions.iter().map(|insertion| (*insertion, Counts::default())))
    }

    /// Puts entries in, with the counts that they have where their targets are new here. Returns the places of those that were
    /// not taken, in order, and why.
    pub(super) fn put_all(
        &mut self,
        entries: impl Iterator<Item = (Insertion, Counts)>,
    ) -> Vec<(usize, NotTaken)> {
        let mut left_out = Vec::new();
        for (place, (insertion, counts)) in entries.enumerate() {
            let put = match insertion.target.address() {
                IpAddr::V4(_) => self.v4.put(&insertion, counts, &mut self.measures),
                IpAddr::V6(_) => self.v6.put(&insertion, counts, &mut self.measures),
            };
            left_out.extend(put.err().map(|why| (place, why)));
        }
        self.tell();
        left_out
    }

    /// Takes blocks out, and returns for each its last state, with the final counts; none for one that was not there.
    pub(super) fn remove(&mut self, targets: &[Target]) -> Vec<Option<Entry>> {
        let mut removed = Vec::with_capacity(targets.len());
        for target in targets {
            let last = match target.address() {
                IpAddr::V4(_) => self.v4.take(target),
                IpAddr::V6(_) => self.v6.take(target),
            };
            removed.push(last.map(|last| self.entry_of(&last)));
            if let Some(last) = last {
                self.measures.remove(last.special);
            }
        }
        self.tell();
        removed
    }

    /// The bucket of a target that is throttled: see [`Special::full_ns`].
    #[cfg(test)]
    pub(super) fn bucket(&self, target: &Target) -> Option<&AtomicU64> {
        let value = self.value(target)?;
        let is_throttle = matches!(self.measures.get(value.special)?.action, Action::Throttle(_));
        is_throttle.then(|| self.measures.bucket(value.special))
    }

    /// The entry of exactly `target`.
    pub(super) fn entry(&self, target: &Target) -> Option<Entry> {
        self.value(target).map(|value| self.entry_of(&value))
    }

    fn value(&self, target: &Target) -> Option<Value> {
        match target.address() {
            IpAddr::V4(_) => self.v4.value(target),
            IpAddr::V6(_) => self.v6.value(target),
        }
    }

    /// Every entry, in no order; also those that have expired and have not been removed.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Target, Entry)> {
        let values = self.v4.entries().chain(self.v6.entries());
        values.map(|(target, value)| (target, self.entry_of(&value)))
    }

    /// Has the program count only, or enforce again.
    pub(super) fn set_dry_run(&mut self, dry_run: bool) {
        self.control.u32(0, offset_of!(Control, dry_run)).store(dry_run.into(), Release);
    }

    /// Tells the program whether networks are allowed, of IPv4 and of IPv6.
    pub(super) fn set_allowed(&mut self, allowed4: bool, allowed6: bool) {
        self.control.u32(0, offset_of!(Control, allowed4)).store(allowed4.into(), Release);
        self.control.u32(0, offset_of!(Control, allowed6)).store(allowed6.into(), Release);
    }

    /// Tells the program what has changed.
    pub(super) fn tell(&mut self) {
        let kinds = self.v4.kinds() | self.v6.kinds();
        self.control.u64(0, offset_of!(Control, seed)).store(self.seed, Release);
        self.control.u32(0, offset_of!(Control, kinds)).store(kinds, Release);
        self.v4.refresh();
        self.v6.refresh();
    }

    fn entry_of(&self, value: &Value) -> Entry {
        entry(value, self.measures.get(value.special))
    }
}

/// The entry that a slot's value and its measure make.
pub(super) fn entry(value: &Value, measure: Option<Measure>) -> Entry {
    let &Value { expires_ns, packets, bytes, .. } = value;
    Entry { expires_ns, measure, packets, bytes }
}
