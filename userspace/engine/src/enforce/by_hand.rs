//! What operators and other systems ask for themselves: to block, and to lift what is blocked.

use std::net::IpAddr;
use std::sync::Arc;

use super::{BlockRequest, Enforcer, began, refusal_of};
use crate::blocklist::{Entry, Key, key};
use crate::change::{Block, End, Expiry, Origin, Refusal};
use crate::moment::Moment;
use crate::target::Target;
use crate::time::Now;

impl Enforcer {
    /// Blocks what an operator asks for. What was blocked already ends when the operator says, be it sooner; what is
    /// stricter ends at once, and what is weaker rests.
    pub(crate) fn block(&mut self, request: BlockRequest, now: &Now) -> Result<(), Refusal> {
        let BlockRequest { target, timeout, measure, reason } = request;
        self.expire(target.address(), now.mono);
        if let Some(protection) = self.guard.check(&target) {
            return Err(Refusal::Protected(protection));
        }
        let key = (target, measure.strictness());
        self.blocklist.has_room(&key).map_err(|full| refusal_of(target, full))?;
        let standing = self.blocklist.get(&key).map(|entry| &*entry.block);
        let block = Block {
            target,
            created: began(standing, Origin::Operator, now.wall),
            expires: timeout.map(|timeout| Expiry::after(timeout, now)),
            measure,
            rule: None,
            reason,
            origin: Origin::Operator,
            offences: match self.block_of(&target) {
                Some(standing) => standing.offences,
                None => self.offenders.next(&target, Moment::now(now), self.forget_after),
            },
            attempts: 0,
            users: Vec::new(),
            evidence: Vec::new(),
        };
        let stricter = |entry: &&Entry| entry.block.measure.is_stricter_than(&measure);
        let stricter: Vec<Key> =
            self.blocklist.of(target).filter(stricter).map(|entry| self::key(&entry.block)).collect();
        let mut lifted: Vec<Entry> = stricter.iter().filter_map(|key| self.blocklist.remove(key)).collect();
        if self.place(&key).is_some() {
            // It takes over as it rested, and gets what is asked for when it is in force.
            lifted.drain(..).for_each(|entry| self.end(entry, End::Withdrawn, None));
        }
        self.put_instead(block.into(), lifted, now.mono);
        Ok(())
    }

    pub(crate) fn unblock(&mut self, target: &Target, end: End, now: &Now) -> bool {
        let mut keys: Vec<Key> = self.blocklist.of(*target).map(|entry| key(&entry.block)).collect();
        // The strictest last, so that none that ends comes into force before.
        keys.reverse();
        for key in &keys {
            self.remove(key, end, None);
        }
        if keys.is_empty() {
            return false;
        }
        self.offenders.ended(target, Moment::now(now));
        true
    }

    /// Lifts the narrowest block of `source` that `origin` asked for; those of others stay. Returns what was blocked.
    pub(crate) fn lift(
        &mut self,
        source: IpAddr,
        origin: Origin,
        why: Arc<str>,
        now: &Now,
    ) -> Option<Target> {
        self.expire(source, now.mono);
        let theirs = |entry: &&Entry| entry.block.origin == origin;
        let key = key(&self.blocklist.covering(source).find(theirs)?.block);
        self.remove(&key, End::Withdrawn, Some(why));
        self.offenders.ended(&key.0, Moment::now(now));
        Some(key.0)
    }
}
