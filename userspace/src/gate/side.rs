//! The blocks of one family: its table, its trie of prefixes, and its filter.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use aya::maps::lpm_trie::Key;
use xdpban_common::{FILTER_WORDS, Slot};
use xdpban_engine::target::Target;

use super::error::NotTaken;
use super::family::Family;
use super::maps::WALK_LIMIT;
use super::measures::Measures;
use super::shared::Shared;
use super::slots::{Slots, Value};
use super::sys::KernelMap;
use super::tables::{Capacity, Counts, Insertion};

/// So many bits of a filter may be set for nothing, or as many as there are blocks, before it is made anew.
const STALE_BITS: u64 = 4096;

/// See the module.
pub(super) struct Side<F: Family> {
    pub(super) slots: Slots<F>,
    /// The number of its slot for each prefix that is not found by its hash.
    pub(super) prefixes: KernelMap<Key<F::Key>, u32>,
    pub(super) filter: Shared<u64>,
    seed: u64,
    capacity: Capacity,
    /// How many entries there are, by the length of their prefix.
    lengths: Vec<u32>,
    /// How many of them are for single sources, and for others.
    present: Capacity,
    /// How many bits of the filter may be set for nothing.
    stale: u64,
}

impl<F: Family> Side<F> {
    /// Takes over what stands in the table.
    pub(super) fn new(
        table: Shared<Slot<F::Key, F::Fill>>,
        prefixes: KernelMap<Key<F::Key>, u32>,
        filter: Shared<u64>,
        seed: u64,
        capacity: Capacity,
    ) -> io::Result<Side<F>> {
        let slots = Slots::new(table, seed);
        let lengths = vec![0; usize::from(F::BITS) + 1];
        let mut side =
            Side { slots, prefixes, filter, seed, capacity, lengths, present: Capacity::default(), stale: 0 };
        side.recount()?;
        Ok(side)
    }

    /// Counts what stands in the table, and makes filter and trie lead to it.
    pub(super) fn recount(&mut self) -> io::Result<()> {
        let mut lengths = vec![0; self.lengths.len()];
        for (target, _) in self.slots.entries() {
            if let Some(count) = lengths.get_mut(usize::from(target.prefix_len())) {
                *count += 1;
            }
        }
        self.lengths.fill(0);
        self.present = Capacity::default();
        for (prefix_len, count) in (0..).zip(lengths) {
            self.count(prefix_len, |present| present + count);
        }
        self.make_filter();
        self.make_prefixes()
    }

    /// Puts an entry in, with these counts. One that is there keeps its own and gets the expiry and the measure.
    pub(super) fn put(
        &mut self,
        insertion: &Insertion,
        Counts { packets, bytes }: Counts,
        measures: &mut Measures,
    ) -> Result<(), NotTaken> {
        let Insertion { target, measure, .. } = insertion;
        let expires_ns = insertion.expires_ns();
        if let Some(index) = self.slots.find(target) {
            let old = self.slots.value(index).special;
            if measures.get(old) == Some(*measure) {
                self.slots.renew(index, expires_ns, old);
            } else {
                let special = measures.add(measure).ok_or(NotTaken::NoMeasure)?;
                self.slots.renew(index, expires_ns, special);
                measures.remove(old);
            }
            return Ok(());
        }
        if !self.has_room(target.prefix_len()) {
            return Err(NotTaken::Full);
        }
        let special = measures.add(measure).ok_or(NotTaken::NoMeasure)?;
        // Set before the entry comes, so that the program never overlooks one.
        if let Some(key) = F::key(target.address()) {
            self.fill(key, target.prefix_len());
        }
        let value = Value { expires_ns, packets, bytes, special };
        let Ok(index) = self.slots.insert(target, value) else {
            measures.remove(special);
            return Err(NotTaken::Full);
        };
        self.count(target.prefix_len(), |count| count + 1);
        if let Err(error) = self.tell_prefix(target, index) {
            self.take(target);
            measures.remove(special);
            return Err(NotTaken::Prefix(error));
        }
        Ok(())
    }

    /// Takes an entry out and returns its last state.
    pub(super) fn take(&mut self, target: &Target) -> Option<Value> {
        let prefix_len = target.prefix_len();
        let index = self.slots.find(target)?;
        if !F::is_exact(prefix_len)
            && let Some(key) = F::key(target.address())
            && let Err(error) = self.prefixes.delete(&Key::new(prefix_len.into(), key))
        {
            // It leads to a slot that does not have this prefix, which the program sees.
            log::warn!("unblock {target}: the kernel's table of prefixes keeps it: {error}");
        }
        let last = self.slots.take(index);
        self.count(prefix_len, |count| count.saturating_sub(1));
        if let Some(key) = F::key(target.address()) {
            self.stale += F::filter_bits(self.seed, key, prefix_len).len() as u64;
        }
        Some(last)
    }

    /// What the entry of exactly `target` says.
    pub(super) fn value(&self, target: &Target) -> Option<Value> {
        self.slots.find(target).map(|index| self.slots.value(index))
    }

    /// Every entry.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Target, Value)> {
        self.slots.entries()
    }

    /// Makes the filter anew where too much of it is set for nothing: to be called after entries went.
    pub(super) fn refresh(&mut self) {
        let live = u64::from(self.present.blocks) + u64::from(self.present.prefixes);
        if self.stale > live.max(STALE_BITS) {
            self.make_filter();
        }
    }

    /// More prefixes than the trie has, also if it changes while somebody walks through it.
    pub(super) fn most_prefixes(&self) -> usize {
        2 * self.capacity.prefixes as usize
    }

    /// Whether the program finds the entry for `target` at `index`: no bit of the filter is missing, and the trie leads there.
    pub(super) fn leads_to(&self, target: &Target, index: usize) -> io::Result<bool> {
        let Some(key) = F::key(target.address()) else { return Ok(false) };
        let prefix_len = target.prefix_len();
        let mut bits = F::filter_bits(self.seed, key, prefix_len);
        if !bits.all(|bit| self.filter.u64(bit as usize / 64, 0).load(Relaxed) >> (bit % 64) & 1 == 1) {
            return Ok(false);
        }
        if F::is_exact(prefix_len) {
            return Ok(true);
        }
        // The longest that the prefix lies in is it itself, where it is there.
        let leads = self.prefixes.look_up(&Key::new(prefix_len.into(), key))?;
        Ok(leads.is_some_and(|number| number as usize == index))
    }

    /// Has the filter tell of a prefix.
    fn fill(&self, key: F::Key, prefix_len: u8) {
        for (place, bits) in words(F::filter_bits(self.seed, key, prefix_len)) {
            self.filter.u64(place, 0).fetch_or(bits, Relaxed);
        }
    }

    /// Makes filter and trie lead to the entry for `target` at `index`.
    pub(super) fn lead_to(&mut self, target: &Target, index: usize) -> io::Result<()> {
        if let Some(key) = F::key(target.address()) {
            self.fill(key, target.prefix_len());
        }
        self.tell_prefix(target, index)
    }

    /// Takes out an entry that was not put in here; `is_second` where another one for its target stays.
    pub(super) fn take_stray(&mut self, target: &Target, index: usize, is_second: bool) -> io::Result<()> {
        if !is_second
            && !F::is_exact(target.prefix_len())
            && let Some(key) = F::key(target.address())
        {
            self.prefixes.delete(&Key::new(target.prefix_len().into(), key))?;
        }
        self.slots.take(index);
        Ok(())
    }

    /// Counts no longer an entry that someone else took out.
    pub(super) fn lost(&mut self, target: &Target) {
        self.count(target.prefix_len(), |count| count.saturating_sub(1));
    }

    fn has_room(&self, prefix_len: u8) -> bool {
        if F::is_exact(prefix_len) {
            self.present.blocks < self.capacity.blocks
        } else {
            self.present.prefixes < self.capacity.prefixes
        }
    }

    fn count(&mut self, prefix_len: u8, change: impl Fn(u32) -> u32) {
        if let Some(count) = self.lengths.get_mut(usize::from(prefix_len)) {
            let all =
                if F::is_exact(prefix_len) { &mut self.present.blocks } else { &mut self.present.prefixes };
            *all -= *count;
            *count = change(*count);
            *all += *count;
        }
    }

    /// Makes the filter anew: each bit that is wanted stays set throughout.
    fn make_filter(&mut self) {
        let mut wanted = vec![0u64; FILTER_WORDS];
        for (target, _) in self.slots.entries() {
            let Some(key) = F::key(target.address()) else { continue };
            for (place, bits) in words(F::filter_bits(self.seed, key, target.prefix_len())) {
                if let Some(word) = wanted.get_mut(place) {
                    *word |= bits;
                }
            }
        }
        for (place, word) in wanted.into_iter().enumerate() {
            self.filter.u64(place, 0).store(word, Relaxed);
        }
        self.stale = 0;
    }

    /// Makes the trie lead to the prefixes that are in the table: it may not, where a controller was killed.
    fn make_prefixes(&self) -> io::Result<()> {
        let mut in_table = HashSet::new();
        for (target, _) in self.slots.entries().filter(|(target, _)| !F::is_exact(target.prefix_len())) {
            if let Some(index) = self.slots.find(&target) {
                self.tell_prefix(&target, index)?;
                in_table.insert(target);
            }
        }
        for key in self.prefixes.keys(WALK_LIMIT)? {
            let prefix_len = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            if !in_table.contains(&Target::prefix(F::address(key.data()), prefix_len)) {
                self.prefixes.delete(&key)?;
            }
        }
        Ok(())
    }

    /// Which kinds of block there are.
    pub(super) fn kinds(&self) -> u32 {
        let in_use = self.lengths.iter().enumerate().filter(|(_, count)| **count > 0);
        in_use.fold(0, |kinds, (length, _)| kinds | u8::try_from(length).map_or(0, F::kinds))
    }

    /// Has the program find a prefix that is not found by its hash.
    fn tell_prefix(&self, target: &Target, index: usize) -> io::Result<()> {
        let prefix_len = target.prefix_len();
        match (F::key(target.address()), u32::try_from(index)) {
            (Some(key), Ok(index)) if !F::is_exact(prefix_len) => {
                self.prefixes.update(&Key::new(prefix_len.into(), key), &index)
            }
            _ => Ok(()),
        }
    }
}

/// The places of the words in which some bits of a filter lie, each with its share of them. A short prefix has millions.
fn words(bits: Range<u32>) -> impl Iterator<Item = (usize, u64)> {
    let places = if bits.is_empty() { 0..0 } else { bits.start / 64..bits.end.div_ceil(64) };
    places.map(move |place| {
        let before = bits.start.saturating_sub(place * 64);
        let behind = (place * 64 + 64).saturating_sub(bits.end);
        (place as usize, u64::MAX << before & u64::MAX >> behind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_each_bit_once() {
        for bits in [0..0, 70..70, 5..6, 63..64, 64..128, 0..256, 60..70, 1..200] {
            let of_word = |(place, word): (usize, u64)| {
                (0..64)
                    .filter(move |bit| word >> bit & 1 == 1)
                    .map(move |bit| u32::try_from(place).unwrap() * 64 + bit)
            };
            assert!(words(bits.clone()).flat_map(of_word).eq(bits.clone()), "{bits:?}");
        }
    }
}
