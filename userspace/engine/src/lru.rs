//! A map with a bound: when it is full, the entry that was not touched for longest is forgotten.
//!
//! Each operation takes constant time. Entries stand in `slots` without holes and are linked from the one touched last
//! to the one touched first. The table has but their places in it, since most of the time of a lookup in a large map goes
//! into fetching memory. Invariant: every number in `places`, in a link, in `newest` and in `oldest` is the place of a slot,
//! except [`NONE`]; so indexing by them cannot fail.
//!
//! Keys are hashed with a secret of the process. A client that chooses its addresses learns nothing of where they land.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    newer: u32,
    older: u32,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lru<K, V, S = DefaultHashBuilder> {
    places: HashTable<u32>,
    hasher: S,
    slots: Vec<Slot<K, V>>,
    newest: u32,
    oldest: u32,
    capacity: usize,
    forgotten: u64,
}

impl<K: Copy + Eq + Hash, V, S: BuildHasher + Default> Lru<K, V, S> {
    /// A map of at most `capacity` entries, at least one. It takes memory as it fills.
    pub(crate) fn new(capacity: usize) -> Lru<K, V, S> {
        Lru {
            places: HashTable::new(),
            hasher: S::default(),
            slots: Vec::new(),
            newest: NONE,
            oldest: NONE,
            capacity: bounded(capacity),
            forgotten: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether a further entry would make another give way.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() >= self.capacity
    }

    /// How many entries gave way to others.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Changes the bound, and forgets what lies beyond it.
    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.capacity = bounded(capacity);
        while self.slots.len() > self.capacity {
            let key = self.slots[at(self.oldest)].key;
            self.remove(&key);
            self.forgotten += 1;
        }
    }

    /// The value of `key`, without touching it.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        self.find(key).map(|place| &self.slots[at(place)].value)
    }

    /// The value of `key`, which becomes the one touched last.
    pub(crate) fn touch(&mut self, key: &K) -> Option<&mut V> {
        let place = self.find(key)?;
        self.refresh(place);
        Some(&mut self.slots[at(place)].value)
    }

    /// The value of `key`, made by `make` where there is none; it becomes the one touched last.
    pub(crate) fn touch_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let place = match self.find(&key) {
            Some(place) => {
                self.refresh(place);
                place
            }
            None => self.push(key, make()),
        };
        &mut self.slots[at(place)].value
    }

    /// Puts `value` in place of what `key` had; it becomes the one touched last.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.touch(&key) {
            Some(old) => *old = value,
            None => {
                self.push(key, value);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.find(key)?;
        self.forget_place(key, place);
        self.unlink(place);
        let slot = self.slots.swap_remove(at(place));
        if let Some(moved) = self.slots.get(at(place)) {
            let (key, newer, older) = (moved.key, moved.newer, moved.older);
            let was = at_end(&self.slots);
            if let Some(known) = self.places.find_mut(self.hasher.hash_one(key), |&known| known == was) {
                *known = place;
            }
            self.join(newer, place);
            self.join(place, older);
        }
        Some(slot.value)
    }

    /// Keeps the entries for which `keep` holds.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut place = 0;
        while let Some(slot) = self.slots.get_mut(place) {
            if keep(&slot.key, &mut slot.value) {
                place += 1;
            } else {
                let key = slot.key;
                self.remove(&key);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.slots.clear();
        self.newest = NONE;
        self.oldest = NONE;
    }

    /// The entries, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().map(|slot| (&slot.key, &slot.value))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.slots.iter_mut().map(|slot| &mut slot.value)
    }

    fn find(&self, key: &K) -> Option<u32> {
        self.places.find(self.hasher.hash_one(key), |&place| self.slots[at(place)].key == *key).copied()
    }

    fn forget_place(&mut self, key: &K, place: u32) {
        if let Ok(known) = self.places.find_entry(self.hasher.hash_one(key), |&known| known == place) {
            known.remove();
        }
    }

    fn push(&mut self, key: K, value: V) -> u32 {
        let place = if self.slots.len() < self.capacity {
            self.slots.push(Slot { key, value, newer: NONE, older: NONE });
            at_end(&self.slots) - 1
        } else {
            // The capacity is at least one, so there is an oldest.
            let place = self.oldest;
            self.unlink(place);
            let gone = self.slots[at(place)].key;
            self.forget_place(&gone, place);
            let slot = &mut self.slots[at(place)];
            slot.key = key;
            slot.value = value;
            self.forgotten += 1;
            place
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash = |&place: &u32| hasher.hash_one(slots[at(place)].key);
        self.places.insert_unique(hash(&place), place, hash);
        self.link_newest(place);
        place
    }

    fn refresh(&mut self, place: u32) {
        if self.newest != place {
            self.unlink(place);
            self.link_newest(place);
        }
    }

    fn link_newest(&mut self, place: u32) {
        let second = self.newest;
        self.join(NONE, place);
        self.join(place, second);
    }

    fn unlink(&mut self, place: u32) {
        let Slot { newer, older, .. } = self.slots[at(place)];
        self.join(newer, older);
    }

    /// Makes `older` follow `newer`; [`NONE`] stands for the end of the list.
    fn join(&mut self, newer: u32, older: u32) {
        match newer {
            NONE => self.newest = older,
            newer => self.slots[at(newer)].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[at(older)].newer = newer,
        }
    }
}

/// A capacity whose places fit below [`NONE`].
fn bounded(capacity: usize) -> usize {
    capacity.clamp(1, at(NONE - 1))
}

/// A place as an index.
fn at(place: u32) -> usize {
    place as usize
}

/// The place behind the last slot. There are fewer than [`NONE`].
fn at_end<T>(slots: &[T]) -> u32 {
    u32::try_from(slots.len()).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_one_not_touched_for_longest_gives_way() {
        let mut lru: Lru<_, _> = Lru::new(2);
        lru.insert('a', 1);
        lru.insert('b', 2);
        assert_eq!(lru.touch(&'a'), Some(&mut 1));
        lru.insert('c', 3);
        assert_eq!((lru.peek(&'a'), lru.peek(&'b'), lru.peek(&'c')), (Some(&1), None, Some(&3)));
        assert_eq!(lru.forgotten(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8),
        Touch(u8),
        Remove(u8),
        Capacity(usize),
        RetainEven,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..12u8;
        prop_oneof![
            4 => key.clone().prop_map(Step::Insert),
            4 => key.clone().prop_map(Step::Touch),
            2 => key.prop_map(Step::Remove),
            1 => (1..8usize).prop_map(Step::Capacity),
            1 => Just(Step::RetainEven),
        ]
    }

    proptest! {
        /// Against a list that is kept in the order of touching.
        #[test]
        fn agrees_with_a_plain_list(steps in prop::collection::vec(step(), 0..200)) {
            let mut capacity = 4;
            let mut lru: Lru<_, _> = Lru::new(capacity);
            let mut list: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(key) => {
                        lru.touch_or_insert_with(key, || key);
                        list.retain(|&k| k != key);
                        list.push(key);
                    }
                    Step::Touch(key) => {
                        let found = list.contains(&key);
                        prop_assert_eq!(lru.touch(&key).is_some(), found);
                        if found {
                            list.retain(|&k| k != key);
                            list.push(key);
                        }
                    }
                    Step::Remove(key) => {
                        prop_assert_eq!(lru.remove(&key).is_some(), list.contains(&key));
                        list.retain(|&k| k != key);
                    }
                    Step::Capacity(new) => {
                        capacity = new;
                        lru.set_capacity(new);
                    }
                    Step::RetainEven => {
                        lru.retain(|key, _| key % 2 == 0);
                        list.retain(|key| key % 2 == 0);
                    }
                }
                let beyond = list.len().saturating_sub(capacity);
                list.drain(..beyond);
                let mut kept: Vec<u8> = lru.iter().map(|(key, _)| *key).collect();
                let mut expected = list.clone();
                kept.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(kept, expected);
                prop_assert!(lru.iter().all(|(key, value)| key == value && lru.peek(key) == Some(key)));
            }
        }
    }
}
