//! A table of blocks as [`xdpban_common::Slot`] describes it: putting entries in, finding them, taking them out.
//!
//! Invariants, on which the program in the kernel relies:
//!
//! - An entry stands between its home and the first empty slot from there on, and never moves.
//! - `state` is written last when an entry comes and first when it goes.
//! - A slot becomes empty only where the slot behind it is.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use xdpban_common::{MAX_PROBES, Slot, State, home};
use xdpban_engine::target::Target;

use super::family::Family;
use super::shared::Shared;

/// What an entry says beside its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) expires_ns: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// The number of its measure; 0 where all packets are dropped.
    pub(super) special: u32,
}

/// A table of one family.
pub(super) struct Slots<F: Family> {
    memory: Shared<Slot<F::Key, F::Fill>>,
    seed: u64,
}

/// No slot within reach of the home is free.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoSlot;

impl<F: Family> Slots<F> {
    const STATE: usize = offset_of!(Slot<F::Key, F::Fill>, state);

    pub(super) fn new(memory: Shared<Slot<F::Key, F::Fill>>, seed: u64) -> Slots<F> {
        Slots { memory, seed }
    }

    /// The index of the entry of exactly `target`.
    pub(super) fn find(&self, target: &Target) -> Option<usize> {
        let key = F::key(target.address())?;
        for index in self.chain(key, target.prefix_len()) {
            let state = self.state(index);
            if state == State::EMPTY {
                return None;
            }
            if state.is_entry_of(target.prefix_len()) && self.memory.read(index).address == key {
                return Some(index);
            }
        }
        None
    }

    /// Puts in an entry for `target`, which has none. Returns the index of its slot.
    pub(super) fn insert(&mut self, target: &Target, value: Value) -> Result<usize, NoSlot> {
        let key = F::key(target.address()).ok_or(NoSlot)?;
        let mut chain = self.chain(key, target.prefix_len());
        let index = chain.find(|index| self.state(*index).prefix_len().is_none()).ok_or(NoSlot)?;
        let Value { expires_ns, packets, bytes, special } = value;
        let state = self.state(index);
        let slot = Slot { expires_ns, packets, bytes, address: key, state, reserved: F::FILL };
        self.memory.write(index, slot);
        self.set_state(index, State::entry(target.prefix_len(), special));
        Ok(index)
    }

    /// What the entry at `index` says.
    pub(super) fn value(&self, index: usize) -> Value {
        let Slot { expires_ns, packets, bytes, state, .. } = self.memory.read(index);
        Value { expires_ns, packets, bytes, special: state.special() }
    }

    /// Moves the expiry of the entry at `index`, and gives it another measure. Its counts go on meanwhile.
    pub(super) fn renew(&mut self, index: usize, expires_ns: u64, special: u32) {
        if let Some(prefix_len) = self.state(index).prefix_len() {
            self.memory.u64(index, offset_of!(Slot<F::Key, F::Fill>, expires_ns)).store(expires_ns, Relaxed);
            self.set_state(index, State::entry(prefix_len, special));
        }
    }

    /// Takes out the entry at `index`, and returns its last state.
    pub(super) fn take(&mut self, index: usize) -> Value {
        let special = self.state(index).special();
        self.set_state(index, State::GONE);
        // Read after it went: until then the program counts.
        let last = Value { special, ..self.value(index) };
        self.empty_from(index);
        last
    }

    /// Every entry, in the order of the slots.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Target, Value)> {
        self.entries_in(0..self.len()).map(|(_, target, value)| (target, value))
    }

    /// The entries in some of the slots, each with its index.
    pub(super) fn entries_in(&self, slots: Range<usize>) -> impl Iterator<Item = (usize, Target, Value)> {
        (slots.start..slots.end.min(self.len())).filter_map(|index| {
            // Most slots have none, and the state is the quickest to look at.
            let prefix_len = self.state(index).prefix_len()?;
            let address = self.memory.read(index).address;
            Some((index, Target::prefix(F::address(address), prefix_len), self.value(index)))
        })
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    /// The slots that a search for a prefix looks into, in their order.
    fn chain(&self, key: F::Key, prefix_len: u8) -> Range<usize> {
        let probes = MAX_PROBES as usize;
        // The table has fewer than 2^32 slots, as the kernel's arrays do.
        let homes = u32::try_from(self.memory.len().saturating_sub(probes)).unwrap_or(u32::MAX);
        let home = home(F::hash(self.seed, key, prefix_len), homes) as usize;
        home..home + probes
    }

    /// Makes the gone slots before an empty one empty, from `index` back.
    fn empty_from(&mut self, index: usize) {
        let ends = index + 1 == self.memory.len() || self.state(index + 1) == State::EMPTY;
        for index in (0..=index).rev() {
            if !ends || self.state(index) != State::GONE {
                return;
            }
            self.set_state(index, State::EMPTY);
        }
    }

    fn state(&self, index: usize) -> State {
        State(self.memory.u32(index, Self::STATE).load(Acquire))
    }

    fn set_state(&mut self, index: usize, state: State) {
        self.memory.u32(index, Self::STATE).store(state.0, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::family::V4;
    use super::*;

    fn table(homes: usize) -> Slots<V4> {
        Slots::new(Shared::anonymous(homes + MAX_PROBES as usize).unwrap(), 7)
    }

    fn host(number: u32) -> Target {
        Target::exact(Ipv4Addr::from_bits(number).into())
    }

    fn value(expires_ns: u64) -> Value {
        Value { expires_ns, ..Value::default() }
    }

    #[test]
    fn a_million_entries_find_a_slot_within_reach() {
        let count = 1u32 << 20;
        let mut table = table(count as usize * xdpban_common::HOMES_PER_ENTRY as usize);
        for number in 0..count {
            table.insert(&host(0x0b00_0000 + number), value(u64::from(number))).unwrap();
        }
        for number in (0..count).step_by(97) {
            let index = table.find(&host(0x0b00_0000 + number)).unwrap();
            assert_eq!(table.value(index).expires_ns, u64::from(number));
        }
        assert_eq!(table.find(&host(0x0c00_0000)), None);
    }

    #[test]
    fn a_chain_that_is_full_has_no_slot() {
        let mut table = table(1);
        (0..MAX_PROBES).for_each(|number| assert!(table.insert(&host(number), value(1)).is_ok()));
        assert_eq!(table.insert(&host(MAX_PROBES), value(1)), Err(NoSlot));
        table.take(table.find(&host(2)).unwrap());
        assert_eq!(table.find(&host(2)), None);
        table.insert(&host(MAX_PROBES), value(1)).unwrap();
        assert_eq!(table.entries().count(), MAX_PROBES as usize);
    }

    proptest! {
        /// Whatever comes and goes, a table holds what a map would: crowded, so that chains run into each other.
        #[test]
        fn holds_what_a_map_holds(acts in prop::collection::vec((0u8..3, 0u32..40, 30u8..=32), 1..400)) {
            let mut table = table(48);
            let mut model = BTreeMap::new();
            for (act, number, prefix_len) in acts {
                let target = Target::prefix(Ipv4Addr::from_bits(number).into(), prefix_len);
                let found = table.find(&target);
                prop_assert_eq!(found.map(|index| table.value(index).expires_ns), model.get(&target).copied());
                match (act, found) {
                    (0, None) => {
                        prop_assert!(table.insert(&target, value(u64::from(number))).is_ok());
                        model.insert(target, u64::from(number));
                    }
                    (1, Some(index)) => {
                        table.take(index);
                        model.remove(&target);
                    }
                    (_, Some(index)) => {
                        table.renew(index, 99, 3);
                        model.insert(target, 99);
                    }
                    (_, None) => {}
                }
            }
            let entries: BTreeMap<_, _> =
                table.entries().map(|(target, value)| (target, value.expires_ns)).collect();
            prop_assert_eq!(entries, model);
        }
    }
}
