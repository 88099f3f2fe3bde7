//! What the kernel makes of a block, and what gives way where there is no room.

use std::sync::Arc;

use super::{Applied, Enforcer, is_over};
use crate::blocklist::{Entry, is_exact, key};
use crate::change::{Block, Change, End};
use crate::target::Target;
use crate::time::{Mono, Now};

impl Enforcer {
    pub(crate) fn applied(&mut self, block: &Block, result: Applied, now: &Now) {
        let key = key(block);
        let Some(entry) = self.blocklist.entry(&key) else { return };
        let why = match result {
            Applied::Done => {
                entry.effective.get_or_insert(now.mono);
                entry.retried = false;
                return;
            }
            Applied::TableFull if !entry.retried => {
                entry.retried = true;
                let block = Arc::clone(&entry.block);
                if let Some(first) = self.blocklist.evict(&key) {
                    self.made_room(first, &block.target, now.mono);
                    self.changes.push_back(Change::Block(block));
                    return;
                }
                "the kernel's table is full".into()
            }
            Applied::TableFull => "the kernel's table is full".into(),
            Applied::Failed(why) => why,
        };
        self.counts.failed += 1;
        self.remove(&key, End::Failed, Some(why));
    }

    /// Ends the block that gave way to that of `target`. One whose time is over would have ended by itself.
    pub(super) fn made_room(&mut self, entry: Entry, target: &Target, now: Mono) {
        if is_over(&entry.block, now) {
            return self.end(entry, End::Expired, None);
        }
        let exact = is_exact(&entry.block.target);
        *if exact { &mut self.counts.evicted } else { &mut self.counts.evicted_prefixes } += 1;
        self.end(entry, End::Evicted, Some(format!("it made room for {target}").into()));
    }
}
