//! Comparing the tables with what the controller has blocked, a part at a time, and mending what someone else changed.
//!
//! What comes and goes between two parts is right by itself: the controller puts it in and takes it out. So each part is
//! compared with what is blocked at its time, and nothing has to stand still meanwhile.

use std::io;
use std::ops::Range;

use aya::maps::lpm_trie::Key;
use xdpban_common::map;
use xdpban_engine::target::Target;

use super::error::GateError;
use super::family::Family;
use super::maps::{Network4, Network6, writing};
use super::side::Side;
use super::slots::Value;
use super::tables::{Entry, Insertion, Reconciled, Tables};
use crate::error::chain;

/// Slots that are looked at in one part.
const SLOTS: usize = 8192;

/// Prefixes that are looked at in one part: each takes a system call.
const PREFIXES: usize = 1024;

/// A part of the tables; the default is the first.
#[derive(Default)]
pub struct Part(Begins);

/// Where a part begins.
enum Begins {
    /// At a slot of the table of IPv4, or of IPv6.
    Slots4(usize),
    Slots6(usize),
    /// Behind a prefix of the trie of IPv4, or of IPv6.
    Prefixes4(Walk<Network4>),
    Prefixes6(Walk<Network6>),
}

/// A walk through a trie.
struct Walk<K> {
    /// The key that was looked at last.
    last: Option<K>,
    /// How many more are looked at: the walk of a trie that changes may begin anew.
    left: usize,
}

type WalkOf<F> = Walk<Key<<F as Family>::Key>>;

/// How an entry is to be.
enum Wanted {
    Not,
    Otherwise,
    AsItIs,
}

impl Default for Begins {
    fn default() -> Begins {
        Begins::Slots4(0)
    }
}

impl Tables {
    /// Compares a part of the tables with the block that `wanted` has for a target, and mends them. Returns what someone else
    /// had changed, and the next part.
    ///
    /// # Errors
    ///
    /// Where the kernel does not let the tries be read or written.
    pub(super) fn compare(
        &mut self,
        part: Part,
        wanted: impl Fn(&Target) -> Option<Insertion>,
    ) -> Result<(Reconciled, Option<Part>), GateError> {
        self.tell();
        let how = |target: &Target, entry: Entry| match wanted(target) {
            None => Wanted::Not,
            Some(one) if one.expires == entry.deadline() && entry.measure == Some(one.measure) => {
                Wanted::AsItIs
            }
            Some(_) => Wanted::Otherwise,
        };
        let Tables { v4, v6, measures, .. } = self;
        let how = |target: &Target, value: &Value| {
            how(target, super::tables::entry(value, measures.get(value.special)))
        };
        let (found, next) = match part.0 {
            Begins::Slots4(from) => {
                let found = v4.compare(from..from + SLOTS, how).map_err(writing(map::PREFIX4))?;
                let more = from + SLOTS < v4.slots.len();
                (found, Some(if more { Begins::Slots4(from + SLOTS) } else { Begins::Slots6(0) }))
            }
            Begins::Slots6(from) => {
                let found = v6.compare(from..from + SLOTS, how).map_err(writing(map::PREFIX6))?;
                let more = from + SLOTS < v6.slots.len();
                let walk = Walk { last: None, left: v4.most_prefixes() };
                (found, Some(if more { Begins::Slots6(from + SLOTS) } else { Begins::Prefixes4(walk) }))
            }
            Begins::Prefixes4(walk) => {
                let (found, next) = v4.compare_prefixes(walk).map_err(writing(map::PREFIX4))?;
                let begin = Walk { last: None, left: v6.most_prefixes() };
                (found, Some(next.map_or(Begins::Prefixes6(begin), Begins::Prefixes4)))
            }
            Begins::Prefixes6(walk) => {
                let (found, next) = v6.compare_prefixes(walk).map_err(writing(map::PREFIX6))?;
                (found, next.map(Begins::Prefixes6))
            }
        };
        let again: Vec<Insertion> = found.put_back.iter().filter_map(&wanted).collect();
        self.mend(&again);
        Ok((found, next.map(Part)))
    }

    /// Puts those blocks back in that are not there, although they were, and returns their targets.
    pub(super) fn put_back(&mut self, wanted: impl Iterator<Item = Insertion>) -> Vec<Target> {
        let missing: Vec<Insertion> = wanted.filter(|one| self.entry(&one.target).is_none()).collect();
        for one in &missing {
            match one.target.address() {
                std::net::IpAddr::V4(_) => self.v4.lost(&one.target),
                std::net::IpAddr::V6(_) => self.v6.lost(&one.target),
            }
        }
        self.mend(&missing);
        missing.into_iter().map(|one| one.target).collect()
    }

    fn mend(&mut self, changed: &[Insertion]) {
        for (place, why) in self.insert(changed) {
            if let Some(one) = changed.get(place) {
                log::error!("the block of {} cannot be mended: {}", one.target, chain(&why));
            }
        }
    }
}

impl<F: Family> Side<F> {
    /// Compares the entries in some slots with what `how` says of them. Those that are not wanted go; to the others filter
    /// and trie are made to lead.
    fn compare(
        &mut self,
        slots: Range<usize>,
        how: impl Fn(&Target, &Value) -> Wanted,
    ) -> io::Result<Reconciled> {
        let mut found = Reconciled::default();
        let entries: Vec<_> = self.slots.entries_in(slots).collect();
        for (index, target, value) in entries {
            // A second one of its target, or one that no search comes to.
            let is_stray = self.slots.find(&target) != Some(index);
            match how(&target, &value) {
                Wanted::AsItIs if !is_stray && self.leads_to(&target, index)? => {}
                Wanted::AsItIs | Wanted::Otherwise if !is_stray => {
                    self.lead_to(&target, index)?;
                    found.put_back.push(target);
                }
                _ => {
                    self.take_stray(&target, index, is_stray)?;
                    found.taken_out.push(target);
                }
            }
        }
        Ok(found)
    }

    /// Takes prefixes out of the trie that are not in the table: they hide those that they lie in.
    fn compare_prefixes(&mut self, walk: WalkOf<F>) -> io::Result<(Reconciled, Option<WalkOf<F>>)> {
        let mut found = Reconciled::default();
        let (mut last, mut stray) = (walk.last, Vec::new());
        for _ in 0..PREFIXES.min(walk.left) {
            let Some(key) = self.prefixes.next_key(last.as_ref())? else {
                last = None;
                break;
            };
            let prefix_len = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            let target = Target::prefix(F::address(key.data()), prefix_len);
            if self.slots.find(&target).is_none() {
                stray.push(key);
                found.taken_out.push(target);
            }
            last = Some(key);
        }
        for key in &stray {
            self.prefixes.delete(key)?;
        }
        let left = walk.left.saturating_sub(PREFIXES);
        let next = last.filter(|_| left > 0).map(|last| Walk { last: Some(last), left });
        Ok((found, next))
    }
}
