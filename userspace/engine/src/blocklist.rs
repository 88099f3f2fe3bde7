//! What is blocked, until when, and what gives way when a table is full.
//!
//! A target can have a block of each strictness at a time. The strictest is in force, unless the target lies in a network
//! with a stricter one; the others rest, and come into force again when nothing stricter is left. Thus what befalls an
//! address is the strictest of all that was asked for it, although the kernel has one entry for a target and goes by the
//! most specific one. Those at rest count with the others in what a table may hold.
//!
//! The kernel keeps single addresses and /64s apart from other prefixes, and IPv4 apart from IPv6: four tables, each with
//! a capacity of its own. A full table gives up the block that would expire first; permanent blocks never give way.
//!
//! Each table has a heap of expiries. When a block is lifted or its expiry moves, its old place in the heap stays and is
//! known to be stale by its stamp; the heap is made anew when more than half of it is stale. The top is never stale.
//!
//! Entries stand in `entries` without holes, at the place that `places` has for their key: when one goes, the last one
//! takes its place. Who looks at them from the last to the first, a few at a time, misses none that stays.
//!
//! [`table_of`] gives 0 to 3 and the place of a family is 0 or 1, so that indexing by them cannot fail.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::change::Block;
use crate::measure::Strictness;
use crate::policy::Limits;
use crate::target::Target;
use crate::time::Mono;

/// What one block is told from others by.
pub(crate) type Key = (Target, Strictness);

/// The key of a block.
pub(crate) fn key(block: &Block) -> Key {
    (block.target, block.measure.strictness())
}

/// A block, in force or at rest.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) block: Arc<Block>,
    /// Whether it rests, for the sake of a stricter one.
    pub(crate) rests: bool,
    /// Since when the kernel has had it; none until it said so.
    pub(crate) effective: Option<Mono>,
    /// Whether room has been made in the kernel's table for it once already.
    pub(crate) retried: bool,
    /// Greater than those of all that came before.
    pub(crate) stamp: u64,
}

/// All permanent blocks, and no room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) capacity: u32,
    /// The key of the configuration that sets it.
    pub(crate) limit: &'static str,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Blocklist {
    places: HashMap<Key, u32>,
    entries: Vec<Entry>,
    tables: [Table; 4],
    limits: Limits,
    /// The lengths of prefix in use for either family, the longest first, with how many blocks have each.
    lengths: [Vec<(u8, u32)>; 2],
    /// Those that let some packets through.
    partial: BTreeSet<Key>,
    stamps: u64,
}

#[derive(Debug, Default)]
struct Table {
    len: u32,
    /// The blocks of the table that expire.
    expiring: usize,
    heap: BinaryHeap<Reverse<(Mono, u64, Key)>>,
}

/// Which table holds a target.
fn table_of(target: &Target) -> usize {
    family_of(target) + if is_exact(target) { 0 } else { 2 }
}

fn family_of(target: &Target) -> usize {
    usize::from(target.address().is_ipv6())
}

/// Whether the kernel looks the target up as it is, and not as a prefix among others.
pub(crate) fn is_exact(target: &Target) -> bool {
    target.is_exact() || (target.address().is_ipv6() && target.prefix_len() == 64)
}

impl Blocklist {
    pub(crate) fn new(limits: Limits) -> Blocklist {
        Blocklist {
            places: HashMap::new(),
            entries: Vec::new(),
            tables: Default::default(),
            limits,
            lengths: Default::default(),
            partial: BTreeSet::new(),
            stamps: 0,
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Those of the entries at `places`.
    pub(crate) fn in_places(&self, places: Range<usize>) -> impl Iterator<Item = &Entry> {
        let end = places.end.min(self.entries.len());
        self.entries.get(places.start..end).unwrap_or_default().iter()
    }

    /// The stamp of what came last.
    pub(crate) fn last_stamp(&self) -> u64 {
        self.stamps
    }

    /// Makes room in memory for so many more.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.places.reserve(count);
        self.entries.reserve(count);
    }

    /// How many blocks there are of IPv4 and IPv6 addresses, and of other prefixes of either.
    pub(crate) fn counts(&self) -> [u32; 4] {
        self.tables.each_ref().map(|table| table.len)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(*self.places.get(key)? as usize)
    }

    /// The place of a block among all of them, until one is taken out.
    pub(crate) fn place(&self, key: &Key) -> Option<usize> {
        self.places.get(key).map(|place| *place as usize)
    }

    pub(crate) fn entry(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(*self.places.get(key)? as usize)
    }

    /// Notes that the kernel has all of them.
    pub(crate) fn all_effective(&mut self, now: Mono) {
        for entry in &mut self.entries {
            entry.effective.get_or_insert(now);
        }
    }

    /// The blocks of `target`, the strictest first.
    pub(crate) fn of(&self, target: Target) -> impl Iterator<Item = &Entry> {
        // Most often there are no others.
        let strictest = if self.partial.is_empty() { 1 } else { Strictness::ALL.len() };
        let strictnesses = Strictness::ALL.into_iter().take(strictest);
        strictnesses.filter_map(move |strictness| self.get(&(target, strictness)))
    }

    /// The blocks that `address` lies in, the most specific first, and of each target the strictest first.
    pub(crate) fn covering(&self, address: IpAddr) -> impl Iterator<Item = &Entry> {
        let [v4, v6] = &self.lengths;
        let lengths = if address.is_ipv4() { v4 } else { v6 };
        lengths.iter().flat_map(move |&(len, _)| self.of(Target::prefix(address, len)))
    }

    /// The stricter block for whose sake `block` is to rest.
    pub(crate) fn stricter(&self, block: &Block) -> Option<&Block> {
        if block.measure.stops_everything() {
            return None;
        }
        let target = block.target;
        self.covering(target.address())
            .map(|entry| &*entry.block)
            .filter(|other| other.target.prefix_len() <= target.prefix_len())
            .find(|other| other.measure.is_stricter_than(&block.measure))
    }

    /// The blocks of the target of `block` and of those within it that are weaker than `block`.
    pub(crate) fn weaker(&self, block: &Block) -> Vec<Key> {
        let prefix = block.target;
        self.partial
            .range((prefix, Strictness::Throttle)..)
            .take_while(|(target, _)| prefix.contains(target.address()))
            .filter(|(target, strictness)| {
                target.prefix_len() >= prefix.prefix_len() && *strictness < block.measure.strictness()
            })
            .copied()
            .collect()
    }

    /// Whether a block can be put in, be it by taking another out.
    pub(crate) fn has_room(&self, key: &Key) -> Result<(), Full> {
        let table = &self.tables[table_of(&key.0)];
        let (capacity, limit) = self.capacity(&key.0);
        if table.len < capacity || table.expiring > 0 && capacity > 0 || self.places.contains_key(key) {
            Ok(())
        } else {
            Err(Full { capacity, limit })
        }
    }

    /// Puts a block in, in place of the one with its key. Where [`Blocklist::has_room`] said so and the table is full, the
    /// block that would expire first gives way and is returned.
    pub(crate) fn insert(&mut self, block: Arc<Block>) -> Option<Entry> {
        let (key, target) = (key(&block), block.target);
        let full = self.tables[table_of(&target)].len >= self.capacity(&target).0;
        let evicted = if full && !self.places.contains_key(&key) { self.evict(&key) } else { None };
        let old = self.remove(&key);
        self.stamps += 1;
        let stamp = self.stamps;
        let table = &mut self.tables[table_of(&target)];
        table.len += 1;
        if let Some(expiry) = block.expires {
            table.expiring += 1;
            table.heap.push(Reverse((expiry.mono, stamp, key)));
        }
        let lengths = &mut self.lengths[family_of(&target)];
        match lengths.binary_search_by_key(&Reverse(target.prefix_len()), |&(len, _)| Reverse(len)) {
            Ok(place) => lengths[place].1 += 1,
            Err(place) => lengths.insert(place, (target.prefix_len(), 1)),
        }
        if !block.measure.stops_everything() {
            self.partial.insert(key);
        }
        let (effective, retried) = old.map_or((None, false), |old| (old.effective, old.retried));
        let rests = self.stricter(&block).is_some();
        // The tables have fewer than 2^32 entries, all together: they fit into memory.
        let place = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.places.insert(key, place);
        self.entries.push(Entry { block, rests, effective, retried, stamp });
        evicted
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let place = self.places.remove(key)?;
        let entry = self.entries.swap_remove(place as usize);
        if let Some(moved) = self.entries.get(place as usize) {
            self.places.insert(self::key(&moved.block), place);
        }
        let target = &key.0;
        self.partial.remove(key);
        let table = &mut self.tables[table_of(target)];
        table.len -= 1;
        table.expiring -= usize::from(entry.block.expires.is_some());
        let lengths = &mut self.lengths[family_of(target)];
        if let Some(place) = lengths.iter().position(|&(len, _)| len == target.prefix_len()) {
            lengths[place].1 -= 1;
            if lengths[place].1 == 0 {
                lengths.remove(place);
            }
        }
        self.settle(table_of(target));
        Some(entry)
    }

    /// Takes out the block that would expire first of the table that `key` belongs to, but never that of `key` itself.
    pub(crate) fn evict(&mut self, key: &Key) -> Option<Entry> {
        let table = table_of(&key.0);
        let Reverse(mut first) = *self.tables[table].heap.peek()?;
        if first.2 == *key {
            let own = self.tables[table].heap.pop()?;
            // Below the top there may be stale ones.
            self.settle(table);
            let heap = &mut self.tables[table].heap;
            let second = heap.peek().copied();
            heap.push(own);
            first = second?.0;
        }
        self.remove(&first.2)
    }

    /// Takes out a block whose time is over.
    pub(crate) fn due(&mut self, now: Mono) -> Option<Entry> {
        // Asked before every line, and nothing is due most of the time.
        self.next_due().filter(|due| *due <= now)?;
        let top = |table: &Table| table.heap.peek().map(|&Reverse((expiry, _, key))| (expiry, key));
        let (_, key) = self.tables.iter().filter_map(top).min()?;
        self.remove(&key)
    }

    /// When the next block's time is over.
    pub(crate) fn next_due(&self) -> Option<Mono> {
        self.tables.iter().filter_map(|table| table.heap.peek().map(|&Reverse((expiry, ..))| expiry)).min()
    }

    fn capacity(&self, target: &Target) -> (u32, &'static str) {
        if is_exact(target) {
            (self.limits.blocks, "limits.blocks")
        } else {
            (self.limits.prefixes, "limits.prefixes")
        }
    }

    /// Takes stale expiries off the top of a heap, and all of them when they are the greater part.
    fn settle(&mut self, table: usize) {
        let Blocklist { tables, places, entries, .. } = self;
        let Table { heap, expiring, .. } = &mut tables[table];
        let live = |&Reverse((_, stamp, key)): &Reverse<(Mono, u64, Key)>| {
            let entry = places.get(&key).and_then(|place| entries.get(*place as usize));
            entry.is_some_and(|entry| entry.stamp == stamp)
        };
        if heap.len() > 2 * *expiring {
            heap.retain(live);
        }
        while heap.peek().is_some_and(|top| !live(top)) {
            heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::change::{Expiry, Origin};
    use crate::time::Wall;

    const LIMITS: Limits = Limits { blocks: 4, prefixes: 2, sources: 1 };

    fn block(target: &str, expires: Option<u64>) -> Arc<Block> {
        Arc::new(Block {
            target: target.parse().unwrap(),
            created: Wall(0),
            expires: expires.map(|mono| Expiry { mono: Mono(mono), wall: Wall(0) }),
            measure: crate::measure::Measure::default(),
            rule: None,
            reason: "".into(),
            origin: Origin::Operator,
            offences: 1,
            attempts: 0,
            users: Vec::new(),
            evidence: Vec::new(),
        })
    }

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    /// The key of a block of all packets.
    fn plain(text: &str) -> Key {
        (target(text), Strictness::Everything)
    }

    fn target_of(entry: Option<Entry>) -> Option<Target> {
        entry.map(|entry| entry.block.target)
    }

    #[test]
    fn the_block_that_would_expire_first_gives_way() {
        let mut list = Blocklist::new(Limits { blocks: 2, ..LIMITS });
        assert_eq!(target_of(list.insert(block("203.0.113.1", Some(20)))), None);
        assert_eq!(target_of(list.insert(block("203.0.113.2", Some(10)))), None);
        // Another table has room of its own.
        assert_eq!(target_of(list.insert(block("2001:db8::/64", Some(5)))), None);
        let evicted = list.insert(block("203.0.113.3", Some(5)));
        assert_eq!(target_of(evicted), Some(target("203.0.113.2")));
        assert_eq!(
            target_of(list.insert(block("203.0.113.3", None))),
            None,
            "a block in place of its own needs no room"
        );
        assert_eq!(target_of(list.insert(block("203.0.113.4", None))), Some(target("203.0.113.1")));
        let full = Full { capacity: 2, limit: "limits.blocks" };
        assert_eq!(list.has_room(&plain("203.0.113.5")), Err(full));
        assert_eq!(list.has_room(&plain("203.0.113.4")), Ok(()));
        assert_eq!(list.has_room(&plain("203.0.113.0/24")), Ok(()));
    }

    #[test]
    fn making_room_spares_the_target_itself() {
        let mut list = Blocklist::new(LIMITS);
        list.insert(block("203.0.113.1", Some(10)));
        assert_eq!(target_of(list.evict(&plain("203.0.113.1"))), None);
        list.insert(block("203.0.113.2", Some(20)));
        assert_eq!(target_of(list.evict(&plain("203.0.113.1"))), Some(target("203.0.113.2")));
        assert_eq!(list.next_due(), Some(Mono(10)));
    }

    #[test]
    fn moving_an_expiry_leaves_little_behind() {
        let mut list = Blocklist::new(LIMITS);
        for expires in 0..10_000 {
            list.insert(block("203.0.113.1", Some(expires)));
            assert!(list.tables[0].heap.len() <= 3);
        }
        assert_eq!(list.next_due(), Some(Mono(9_999)));
    }

    /// Some targets of every table, of which some lie in others.
    fn any_target() -> impl Strategy<Value = Target> {
        (0..8u8, 0..5usize).prop_map(|(n, kind)| match kind {
            0 => Target::exact(Ipv4Addr::new(203, 0, 113, n).into()),
            1 => Target::prefix(Ipv4Addr::new(203, 0, n, 0).into(), 24 - (n % 2) * 8),
            2 => Target::exact(Ipv6Addr::new(0x2001, 0xdb8, 0, n.into(), 0, 0, 0, 7).into()),
            3 => Target::prefix(Ipv6Addr::new(0x2001, 0xdb8, 0, n.into(), 0, 0, 0, 0).into(), 64),
            _ => Target::prefix(
                Ipv6Addr::new(0x2001, 0xdb8, n.into(), 0, 0, 0, 0, 0).into(),
                48 - (n % 2) * 16,
            ),
        })
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Target, Option<u64>),
        Remove(Target),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (any_target(), prop::option::weighted(0.8, 0..300u64)).prop_map(|(t, e)| Step::Insert(t, e)),
            2 => any_target().prop_map(Step::Remove),
            1 => (0..60u64).prop_map(Step::Pass),
        ]
    }

    /// The same, by looking at everything each time. Expiries are made distinct by adding the number of the step.
    type Model = BTreeMap<Target, Option<u64>>;

    fn first_of_table(model: &Model, target: &Target) -> Option<Target> {
        let same = model.iter().filter(|(other, _)| table_of(other) == table_of(target));
        same.filter_map(|(other, expires)| expires.map(|at| (at, *other))).min().map(|(_, target)| target)
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_model(steps in prop::collection::vec(step(), 0..250)) {
            let mut list = Blocklist::new(LIMITS);
            let mut model = Model::new();
            let mut clock = 0;
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(target, expires) => {
                        let expires = expires.map(|after| (clock + after) * 1000 + n as u64);
                        let capacity = if is_exact(&target) { LIMITS.blocks } else { LIMITS.prefixes };
                        let used = model.keys().filter(|other| table_of(other) == table_of(&target)).count();
                        let full = used >= capacity as usize && !model.contains_key(&target);
                        let first = first_of_table(&model, &target).filter(|_| full);
                        prop_assert_eq!(list.has_room(&(target, Strictness::Everything)).is_ok(), !full || first.is_some());
                        if full && first.is_none() {
                            continue;
                        }
                        let evicted = list.insert(block(&target.to_string(), expires));
                        prop_assert_eq!(target_of(evicted), first);
                        first.map(|first| model.remove(&first));
                        model.insert(target, expires);
                    }
                    Step::Remove(target) => {
                        prop_assert_eq!(list.remove(&(target, Strictness::Everything)).is_some(), model.remove(&target).is_some());
                    }
                    Step::Pass(time) => {
                        clock += time;
                        let now = clock * 1000;
                        let mut due: Vec<(u64, Target)> = model
                            .iter()
                            .filter_map(|(target, expires)| expires.map(|at| (at, *target)))
                            .filter(|&(at, _)| at <= now)
                            .collect();
                        due.sort_unstable();
                        for (_, target) in due {
                            prop_assert_eq!(target_of(list.due(Mono(now))), Some(target));
                            model.remove(&target);
                        }
                        prop_assert!(list.due(Mono(now)).is_none());
                    }
                }
                let mut kept: Vec<Target> = list.iter().map(|entry| entry.block.target).collect();
                kept.sort_unstable();
                prop_assert_eq!(kept, model.keys().copied().collect::<Vec<_>>());
                prop_assert_eq!(list.next_due(), model.values().copied().flatten().min().map(Mono));
                for table in &list.tables {
                    prop_assert!(table.heap.len() <= 2 * table.expiring + 1);
                }
                for target in model.keys() {
                    let covering: Vec<Target> =
                        list.covering(target.address()).map(|entry| entry.block.target).collect();
                    let mut expected: Vec<Target> =
                        model.keys().filter(|other| other.contains(target.address())).copied().collect();
                    expected.sort_unstable_by_key(|target| Reverse(target.prefix_len()));
                    prop_assert_eq!(covering, expected);
                }
            }
        }
    }
}
