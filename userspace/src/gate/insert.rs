//! Putting targets into their tables, many at once, without a count being lost.

use std::collections::HashSet;
use std::io;

use aya::Pod;
use xdpban_common::{Entry, Key6, NEVER, Table, program};
use xdpban_engine::target::Target;
use xdpban_engine::time::Mono;

use super::error::InsertError;
use super::maps::Place;
use super::sys::{KernelMap, is_full};
use super::{Gate, load, selftest};

/// What was not put into its table: its place in the caller's list, and why.
type Failures = Vec<(usize, InsertError)>;

/// Targets that are not in their tables yet, by table.
#[derive(Default)]
struct Fresh {
    hosts4: Column<[u8; 4]>,
    exact6: Column<Key6>,
    prefixes: Vec<(usize, Place, Entry)>,
}

/// New entries of one table: places in the caller's list, keys and values.
struct Column<K> {
    indices: Vec<usize>,
    keys: Vec<K>,
    entries: Vec<Entry>,
}

impl Gate {
    /// Blocks targets until a point of the monotonic clock, or until they are removed. A target that is blocked already
    /// keeps its counts and gets the new expiry. Of a target that is named twice the last one holds.
    ///
    /// # Errors
    ///
    /// The places in `entries` of what did not get in, in order, and why. The rest did; where a table is full, that is
    /// the first ones in the list.
    pub fn insert(&mut self, entries: &[(Target, Option<Mono>)]) -> Result<(), Vec<(usize, InsertError)>> {
        let mut failures = Failures::new();
        let mut fresh = Fresh::default();
        let mut seen = HashSet::with_capacity(entries.len());
        for (index, (target, expires)) in entries.iter().enumerate().rev() {
            if !seen.insert(target) {
                continue;
            }
            let place = Place::of(target);
            let expires_ns = expires.map_or(NEVER, |mono| mono.0);
            match self.renew(&place, expires_ns) {
                Ok(true) => {}
                Ok(false) => fresh.add(index, place, Entry { expires_ns, ..Entry::default() }),
                Err(error) => failures.push((index, error)),
            }
        }
        fresh.reverse();
        self.insert_fresh(&fresh, &mut failures);
        if let Err(error) = self.present.tell(&self.others) {
            // The program does not know of a table that got its first entry, so none of this is in force for certain.
            let message = error.to_string();
            failures = (0..entries.len())
                .map(|index| (index, InsertError::Kernel(io::Error::other(message.clone()))))
                .collect();
        }
        failures.sort_by_key(|(index, _)| *index);
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    /// Moves the expiry of an entry; false where there is none. A program does it in place in the kernel, since an
    /// update from here would replace the counts with what they were a moment before.
    fn renew(&mut self, place: &Place, expires_ns: u64) -> Result<bool, InsertError> {
        if self.present.is_empty(place.table()) {
            return Ok(false);
        }
        let Some(entry) = self.blocks.look_up(place).map_err(InsertError::Kernel)? else { return Ok(false) };
        if entry.expires_ns == expires_ns {
            return Ok(true);
        }
        let renewal = place.renewal(expires_ns).to_bytes();
        let renewed = load::xdp(&mut self.programs, program::RENEW)
            .and_then(|program| selftest::test_run(program, program::RENEW, &renewal))
            .map_err(|error| InsertError::Kernel(io::Error::other(error)))?;
        Ok(renewed == 1)
    }

    fn insert_fresh(&mut self, fresh: &Fresh, failures: &mut Failures) {
        let done = fresh.hosts4.insert(&self.blocks.block4, failures);
        self.present.add(Table::Host4, done);
        let done = fresh.exact6.insert(&self.blocks.block6, failures);
        for key in fresh.exact6.keys.iter().take(done) {
            self.present.add(Place::Exact6(*key).table(), 1);
        }
        for (index, place, entry) in &fresh.prefixes {
            match self.blocks.update(place, *entry) {
                Ok(()) => self.present.add(place.table(), 1),
                Err(error) if is_full(&error) => failures.push((*index, InsertError::Full)),
                Err(error) => failures.push((*index, InsertError::Kernel(error))),
            }
        }
    }
}

impl Fresh {
    fn add(&mut self, index: usize, place: Place, entry: Entry) {
        match place {
            Place::Host4(key) => self.hosts4.add(index, key, entry),
            Place::Exact6(key) => self.exact6.add(index, key, entry),
            Place::Prefix4(_) | Place::Prefix6(_) => self.prefixes.push((index, place, entry)),
        }
    }

    /// Turns the order around, which is from the last to the first after a walk that keeps the last of its like.
    fn reverse(&mut self) {
        self.hosts4.reverse();
        self.exact6.reverse();
        self.prefixes.reverse();
    }
}

impl<K> Default for Column<K> {
    fn default() -> Self {
        Column { indices: Vec::new(), keys: Vec::new(), entries: Vec::new() }
    }
}

impl<K: Pod> Column<K> {
    fn add(&mut self, index: usize, key: K, entry: Entry) {
        self.indices.push(index);
        self.keys.push(key);
        self.entries.push(entry);
    }

    fn reverse(&mut self) {
        self.indices.reverse();
        self.keys.reverse();
        self.entries.reverse();
    }

    /// Inserts in order and stops where the kernel refuses: what is full for one new key is full for all. Returns how
    /// many got in.
    fn insert(&self, map: &KernelMap<K, Entry>, failures: &mut Failures) -> usize {
        let Err((done, error)) = map.update_all(&self.keys, &self.entries) else { return self.keys.len() };
        for index in self.indices.iter().skip(done) {
            let failure = if is_full(&error) {
                InsertError::Full
            } else {
                InsertError::Kernel(
                    error.raw_os_error().map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error),
                )
            };
            failures.push((*index, failure));
        }
        done
    }
}
