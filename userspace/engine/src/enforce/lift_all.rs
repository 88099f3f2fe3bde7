//! Lifting all blocks of a moment, some at a time: those that come meanwhile stay.

use super::{AT_ONCE, Enforcer};
use crate::blocklist::{Entry, Key, key};
use crate::change::End;
use crate::moment::Moment;
use crate::time::Now;

/// All blocks of a moment, as far as they are yet to be lifted.
#[derive(Debug)]
pub struct LiftAll {
    /// The stamp of the last block that is meant.
    last: u64,
    /// Whether those that rest are looked for. They go first, so that none of them comes into force before it goes.
    resting: bool,
    /// Those before this place are yet to be looked at.
    before: usize,
}

impl Enforcer {
    pub(crate) fn lift_all(&self) -> LiftAll {
        LiftAll { last: self.blocklist.last_stamp(), resting: true, before: self.places() }
    }

    pub(crate) fn lift_some(&mut self, all: &mut LiftAll, now: &Now) -> Option<usize> {
        if all.before == 0 {
            if !all.resting {
                return None;
            }
            *all = LiftAll { resting: false, before: self.places(), ..*all };
        }
        let start = all.before.saturating_sub(AT_ONCE);
        let meant = |entry: &&Entry| entry.stamp <= all.last && (entry.rests || !all.resting);
        let places = self.blocklist.in_places(start..all.before).filter(meant);
        let keys: Vec<Key> = places.map(|entry| key(&entry.block)).collect();
        all.before = start;
        let mut freed = 0;
        for key in keys.into_iter().rev() {
            self.remove(&key, End::Lifted, None);
            self.offenders.ended(&key.0, Moment::now(now));
            freed += usize::from(self.block_of(&key.0).is_none());
        }
        Some(freed)
    }
}
