//! How blocks come into force, rest while a stricter one stands, and end: [`crate::blocklist`] tells what rests, and this what
//! is to be done in the gate and on record when that changes.
//!
//! What takes over comes into the gate before what it takes over from goes, so that no packet slips through in between.

use std::sync::Arc;

use super::Enforcer;
use crate::blocklist::{Entry, Key, key};
use crate::change::{Block, Change, End, Place, Protection};
use crate::target::Target;
use crate::time::Mono;

impl Enforcer {
    /// Puts in a block for which there is room, be it by taking another out.
    pub(super) fn put(&mut self, block: Arc<Block>, now: Mono) {
        self.put_instead(block, Vec::new(), now);
    }

    /// The same, instead of stricter ones of its target: these have been taken out, and end as withdrawn.
    pub(super) fn put_instead(&mut self, block: Arc<Block>, lifted: Vec<Entry>, now: Mono) {
        let target = block.target;
        if let Some(first) = self.blocklist.insert(Arc::clone(&block)) {
            self.made_room(first, &target, now);
        }
        for entry in &lifted {
            self.resume_beneath(entry);
        }
        if let Some(stricter) = self.blocklist.stricter(&block) {
            let beneath = stricter.target;
            self.changes.push_back(Change::Rest { block, place: Place::Nowhere, beneath });
        } else {
            let weaker = self.blocklist.weaker(&block);
            self.changes.push_back(Change::Block(block));
            for key in weaker {
                self.rest(&key, target);
            }
        }
        for entry in lifted {
            self.ended(entry, End::Withdrawn, None);
        }
    }

    /// Has a block rest that is in force, since a stricter one has come.
    fn rest(&mut self, key: &Key, beneath: Target) {
        let Some(entry) = self.blocklist.entry(key).filter(|entry| !entry.rests) else { return };
        entry.rests = true;
        let place = if key.0 == beneath { Place::TakenOver } else { Place::Gate };
        let block = Arc::clone(&entry.block);
        self.changes.push_back(Change::Rest { block, place, beneath });
    }

    /// Takes out a block, if there is one.
    pub(super) fn remove(&mut self, key: &Key, end: End, detail: Option<Arc<str>>) {
        if let Some(entry) = self.blocklist.remove(key) {
            self.end(entry, end, detail);
        }
    }

    /// Ends a block that has been taken out. What rested for its sake alone comes into force again.
    pub(super) fn end(&mut self, entry: Entry, end: End, detail: Option<Arc<str>>) {
        self.resume_beneath(&entry);
        self.ended(entry, end, detail);
    }

    /// Brings into force what rested for the sake alone of a block that has been taken out.
    fn resume_beneath(&mut self, gone: &Entry) {
        // What lies beneath one that rests lies beneath what that rests for, too.
        if gone.rests {
            return;
        }
        // A host before its network, which takes over the entry that covers the host until then.
        for key in self.blocklist.weaker(&gone.block).into_iter().rev() {
            self.resume(&key);
        }
    }

    /// Tells of the end of a block that has been taken out, when what takes over from it has been told of.
    fn ended(&mut self, entry: Entry, end: End, detail: Option<Arc<str>>) {
        let Entry { block, rests, .. } = entry;
        self.forgive(&block, end);
        let place = match self.in_gate(&block.target) {
            _ if rests => Place::Nowhere,
            Some(_) => Place::TakenOver,
            None => Place::Gate,
        };
        self.changes.push_back(Change::Unblock { block, place, end, detail });
    }

    /// Takes back the offence that led to a block, where one that ends so does not count.
    pub(super) fn forgive(&mut self, block: &Block, end: End) {
        if end.forgives() && block.origin.is_by_rule() {
            self.offenders.take_back(&block.target, block.offences);
        }
    }

    /// Brings a block into force that rests, unless it has to rest further.
    fn resume(&mut self, key: &Key) {
        let Some(Entry { block, rests: true, .. }) = self.blocklist.get(key) else { return };
        let block = Arc::clone(block);
        if self.blocklist.stricter(&block).is_some() {
            return;
        }
        if let Some(entry) = self.blocklist.entry(key) {
            entry.rests = false;
        }
        self.changes.push_back(Change::Resume(block));
    }

    pub(super) fn lift_protected(&mut self) {
        let protected = |entry: &Entry| Some((key(&entry.block), self.guard.check(&entry.block.target)?));
        let mut protected: Vec<(Key, Protection)> = self.blocklist.iter().filter_map(protected).collect();
        // The strictest last, so that none that ends comes into force before.
        protected.sort_unstable_by_key(|&((_, strictness), _)| strictness);
        for (key, protection) in protected {
            self.remove(&key, End::Protected, Some(protection.to_string().into()));
        }
    }
}
