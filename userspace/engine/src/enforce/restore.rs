//! What is taken over from an earlier controller.

use std::sync::Arc;

use super::{Enforcer, is_over, refusal_of};
use crate::blocklist::key;
use crate::change::{Block, Change, End, Place};
use crate::offenders::Offender;
use crate::target::Target;
use crate::time::Now;

impl Enforcer {
    pub(crate) fn restore(&mut self, blocks: Vec<Arc<Block>>, offenders: Vec<(Target, Offender)>, now: &Now) {
        for (target, offender) in offenders {
            self.offenders.restore(target, offender, now);
        }
        let (mut kept, mut over) = (Vec::with_capacity(blocks.len()), Vec::new());
        for block in blocks {
            if is_over(&block, now.mono) {
                over.push((block, End::Expired, None));
                continue;
            }
            if block.origin.is_by_rule() {
                let until = block.expires.map_or(now.mono, |expiry| expiry.mono);
                self.offenders.standing(block.target, block.offences, until.into());
            }
            match self.guard.check(&block.target) {
                Some(protection) => over.push((block, End::Protected, Some(protection.to_string()))),
                None => kept.push(block),
            }
        }
        self.blocklist.reserve(kept.len());
        // What rests does so from the first.
        kept.sort_by_key(|block| std::cmp::Reverse(block.measure.strictness()));
        for block in kept {
            if let Err(full) = self.blocklist.has_room(&key(&block)) {
                let why = refusal_of(block.target, full).to_string();
                over.push((block, End::Failed, Some(why)));
            } else {
                self.put(block, now.mono);
            }
        }
        // The last one comes to stand first: the strictest of its target, whose entry is in the gate.
        over.sort_by_key(|(block, ..)| block.measure.strictness());
        for (block, end, detail) in over {
            self.over(block, end, detail.map(Arc::from));
        }
    }

    pub(crate) fn restored(&mut self, now: &Now) {
        self.blocklist.all_effective(now.mono);
    }

    /// Ends a block that an earlier controller has put into the gate, and that is not put in here: when what takes over its entry
    /// is in, or else ahead of all, so that there is room for what comes.
    fn over(&mut self, block: Arc<Block>, end: End, detail: Option<Arc<str>>) {
        self.forgive(&block, end);
        match self.in_gate(&block.target) {
            Some(_) => {
                self.changes.push_back(Change::Unblock { block, place: Place::TakenOver, end, detail });
            }
            None => self.changes.push_front(Change::Unblock { block, place: Place::Gate, end, detail }),
        }
    }
}
