//! What occurs most, found in one pass and bounded memory.
//!
//! The counts are exact as long as there are no more than [`Frequent::CAPACITY`] different keys. Beyond that the rarest
//! give way, as in Metwally's Space-Saving, half of them at a time: a key that comes (again) later may have been counted
//! before up to as often as the commonest of those that gave way, and carries that as its uncertainty.

use std::collections::HashMap;
use std::hash::Hash;

/// Counts by key, the commonest for certain.
#[derive(Debug)]
pub(super) struct Frequent<K, V> {
    counts: HashMap<K, Count<V>>,
    capacity: usize,
    /// The most that a key which is not in `counts` may have occurred.
    floor: u64,
}

/// What is known of a key.
#[derive(Clone, Debug, Default)]
pub(super) struct Count<V> {
    /// How often it occurred, since it was last added to the counts.
    pub(super) occurrences: u64,
    /// How often it may have occurred before.
    pub(super) uncertainty: u64,
    /// What was summed up since then.
    pub(super) sums: V,
}

/// The commonest keys.
#[derive(Debug)]
pub(super) struct Commonest<K, V> {
    /// The keys, the commonest first.
    pub(super) keys: Vec<(K, Count<V>)>,
    /// How many different ones there were, or, unless `exact`, more than how many.
    pub(super) distinct: u64,
    /// Whether all of this is exact.
    pub(super) exact: bool,
}

impl<K: Hash + Eq + Ord, V: Default> Frequent<K, V> {
    /// The different keys that are kept.
    pub(super) const CAPACITY: usize = 65_536;

    pub(super) fn new() -> Frequent<K, V> {
        Frequent::with_capacity(Self::CAPACITY)
    }

    fn with_capacity(capacity: usize) -> Frequent<K, V> {
        Frequent { counts: HashMap::new(), capacity, floor: 0 }
    }

    /// Counts an occurrence of `key`, and returns what to sum up for it.
    pub(super) fn add(&mut self, key: K) -> &mut V {
        if self.counts.len() >= 2 * self.capacity {
            self.make_room();
        }
        let floor = self.floor;
        let count =
            self.counts.entry(key).or_insert_with(|| Count { uncertainty: floor, ..Count::default() });
        count.occurrences += 1;
        &mut count.sums
    }

    /// Gives up the rarer half.
    fn make_room(&mut self) {
        let most = |count: &Count<V>| count.occurrences + count.uncertainty;
        let mut all: Vec<u64> = self.counts.values().map(most).collect();
        let (_, floor, _) = all.select_nth_unstable(self.capacity);
        self.floor = *floor;
        let floor = self.floor;
        self.counts.retain(|_, count| most(count) > floor);
    }

    /// The `limit` commonest keys; of equally common ones the smaller comes first.
    pub(super) fn commonest(self, limit: usize) -> Commonest<K, V> {
        let exact = self.floor == 0;
        let distinct = self.counts.len() as u64;
        let mut keys: Vec<(K, Count<V>)> = self.counts.into_iter().collect();
        let order = |(a, a_count): &(K, Count<V>), (b, b_count): &(K, Count<V>)| {
            b_count.occurrences.cmp(&a_count.occurrences).then_with(|| a.cmp(b))
        };
        if keys.len() > limit {
            keys.select_nth_unstable_by(limit, order);
            keys.truncate(limit);
        }
        keys.sort_unstable_by(order);
        Commonest { keys, distinct, exact }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_keys_are_counted_exactly() {
        let mut frequent = Frequent::<&str, u64>::with_capacity(4);
        for key in ["b", "a", "b", "c", "b", "a"] {
            *frequent.add(key) += 10;
        }
        let commonest = frequent.commonest(2);
        assert!(commonest.exact);
        assert_eq!(commonest.distinct, 3);
        let keys: Vec<_> =
            commonest.keys.iter().map(|(key, count)| (*key, count.occurrences, count.sums)).collect();
        assert_eq!(keys, [("b", 3, 30), ("a", 2, 20)]);
    }

    proptest! {
        #[test]
        fn counts_are_bounded_on_both_sides(keys in prop::collection::vec(0_u32..60, 0..2000)) {
            const CAPACITY: usize = 8;
            let mut frequent = Frequent::<u32, u64>::with_capacity(CAPACITY);
            let mut truth = HashMap::<u32, u64>::new();
            for key in &keys {
                frequent.add(*key);
                *truth.entry(*key).or_default() += 1;
                prop_assert!(frequent.counts.len() <= 2 * CAPACITY);
            }
            let floor = frequent.floor;
            prop_assert!(floor <= keys.len() as u64 / CAPACITY as u64);
            for (key, occurrences) in &truth {
                match frequent.counts.get(key) {
                    Some(count) => {
                        prop_assert!(count.occurrences <= *occurrences);
                        prop_assert!(*occurrences <= count.occurrences + count.uncertainty);
                    }
                    None => prop_assert!(*occurrences <= floor),
                }
            }
            let commonest = frequent.commonest(3);
            prop_assert!(commonest.distinct <= truth.len() as u64);
            prop_assert!(!commonest.exact || commonest.distinct == truth.len() as u64);
        }
    }
}
