//! What a match leads to.
//!
//! One block is one offence. Lines that tell of connections from before the kernel had the block are still on their way
//! then; they can move its expiry further out (when a graver rule matches), but are no further offence. An attempt on a
//! connection that began later got past the block, and is one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Decision, Enforcer, Evidence, Offence, began, refusal_of};
use crate::blocklist::{Entry, key};
use crate::change::{Block, Change, Expiry, Origin, Protection, Refusal, Refused};
use crate::measure::Measure;
use crate::moment::Moment;
use crate::policy::FORGET_AFTER;
use crate::target::Target;
use crate::time::Now;

/// A line that is older than this when it is read is read late (after a restart, for instance): its block has been
/// running since the line was written, and only the rest is made. A younger one is blocked for the whole time from now.
const LATE: Duration = Duration::from_secs(60);

/// How long after the kernel had a block connections may seem to begin that began before: timestamps of whole seconds,
/// and packets that were queued.
const GRACE: Duration = Duration::from_secs(2);

/// An expiry is not moved for less than this, so that the last lines of a connection do not each cause a change.
const WORTHWHILE: Duration = Duration::from_secs(1);

impl Enforcer {
    /// Responds to a match. `evidence` is asked for only where something is to be recorded.
    pub(crate) fn respond(
        &mut self,
        offence: &Offence<'_>,
        evidence: impl FnOnce() -> Evidence,
        now: &Now,
    ) -> Decision {
        let &Offence { source, response, .. } = offence;
        self.expire(source, now.mono);
        let (target, protection) = self.aim(source, &response.measure, now);
        let standing = self.blocklist.of(target).next();
        let same_offence = standing.is_some_and(|entry| {
            // What lets packets through is not got past.
            !entry.block.measure.stops_everything()
                || entry
                    .effective
                    .is_none_or(|effective| offence.began <= Moment::from(effective).after(GRACE))
        });
        let standing = standing.map(|entry| Arc::clone(&entry.block));
        let standing = standing.as_deref();
        // A block that was found in the gate lost its reason to a crash. The line that led to it is read again, and has it.
        let adopted = standing.is_some_and(|block| block.origin == Origin::Adopted);
        let offences = match standing {
            Some(block) if same_offence && !adopted => block.offences,
            _ => self.offenders.next(&target, Moment::now(now), response.forget_after),
        };

        let age = Moment::now(now).since(offence.at);
        let left = |timeout: Duration| match adopted {
            true => timeout.saturating_sub(age),
            false => time_left(timeout, age),
        };
        let timeout = response.timeout_for(offences).map(left);
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            self.counts.late += 1;
            return Decision::Late { target };
        }
        let mut expires = timeout.map(|timeout| Expiry::after(timeout, now));
        let suffices = |entry: &&Entry| !entry.rests && suffices(&entry.block, &response.measure, expires);
        if let Some(Entry { block, .. }) = self.blocklist.covering(source).find(suffices) {
            if !adopted || block.target != target {
                return Decision::Standing { target: block.target };
            }
            expires = block.expires;
        }

        let block = |evidence: Evidence| {
            let asked = Block {
                target,
                created: now.wall,
                expires,
                measure: response.measure,
                rule: offence.rule.cloned(),
                reason: Arc::clone(offence.reason),
                origin: offence.origin,
                offences,
                attempts: offence.attempts,
                users: evidence.users,
                evidence: evidence.lines,
            };
            join(standing, asked)
        };
        if let Some(protection) = protection {
            return self.refuse(target, Refusal::Protected(protection), timeout, || block(evidence()), now);
        }
        let block = Arc::new(block(evidence()));
        let key = key(&block);
        if let Err(full) = self.blocklist.has_room(&key) {
            return self.refuse(target, refusal_of(target, full), timeout, || Block::clone(&block), now);
        }
        let changed = standing.is_some_and(|standing| standing.measure != block.measure);
        self.put(Arc::clone(&block), now.mono);
        self.offenders.record(target, offences, Moment::now(now).after(timeout.unwrap_or_default()));
        if let Some(entry) = self.blocklist.entry(&key).filter(|_| !same_offence || changed) {
            entry.effective = None;
        }
        self.counts.blocked += 1;
        self.aggregate(&block, response, now);
        Decision::Block { target, timeout }
    }

    /// What to block for a source, and what prevents it. A block that stands is aimed at again, and nothing prevents that it
    /// goes on; what is stricter would cut off those who have logged in meanwhile.
    fn aim(&self, source: IpAddr, measure: &Measure, now: &Now) -> (Target, Option<Protection>) {
        let narrow = Target::exact(source);
        let wide = if source.is_ipv4() { narrow } else { Target::prefix(source, self.ipv6_prefix) };
        let prevents = |target: &Target| match self.block_of(target) {
            Some(block) if block.measure.includes(measure) => None,
            _ => self.protection(target, now),
        };
        let stands = |target: &Target| self.block_of(target).is_some();
        let first = [wide, narrow].into_iter().find(stands).unwrap_or(wide);
        match prevents(&first) {
            None => (first, None),
            // A neighbour in the prefix that is protected must not shield the source itself.
            Some(_) => (narrow, prevents(&narrow)),
        }
    }

    pub(super) fn refuse(
        &mut self,
        target: Target,
        because: Refusal,
        timeout: Option<Duration>,
        block: impl FnOnce() -> Block,
        now: &Now,
    ) -> Decision {
        self.counts.refused += 1;
        let now = Moment::now(now);
        if self.refusals.peek(&target).is_none_or(|&until| until <= now) {
            self.refusals.insert(target, now.after(timeout.unwrap_or(FORGET_AFTER)));
            let refused = Refused { block: block(), because: because.clone() };
            self.changes.push_back(Change::Refused(Box::new(refused)));
        }
        Decision::Refused { target, because }
    }
}

/// What is to hold for a target for which `standing` stands and `asked` is asked, which is no weaker: two of one strictness are
/// joined, for the longer of their times; what is weaker stays as it is, beneath.
pub(super) fn join(standing: Option<&Block>, asked: Block) -> Block {
    match standing.filter(|standing| !asked.measure.is_stricter_than(&standing.measure)) {
        Some(standing) => Block {
            created: began(Some(standing), asked.origin, asked.created),
            expires: if outlasts(standing.expires, asked.expires) { standing.expires } else { asked.expires },
            measure: standing.measure.and(asked.measure),
            ..asked
        },
        None => asked,
    }
}

/// What is left of a timeout for a line of this age.
fn time_left(timeout: Duration, age: Duration) -> Duration {
    if age <= LATE { timeout } else { timeout.saturating_sub(age) }
}

/// Whether `block` does already what `measure` until `expires` would.
pub(super) fn suffices(block: &Block, measure: &Measure, expires: Option<Expiry>) -> bool {
    block.measure.is_stricter_than(measure)
        || block.measure.includes(measure) && outlasts(block.expires, expires)
}

/// Whether a block that ends at `standing` need not be moved to `wanted`.
fn outlasts(standing: Option<Expiry>, wanted: Option<Expiry>) -> bool {
    match (standing, wanted) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(standing), Some(wanted)) => standing.mono.after(WORTHWHILE) >= wanted.mono,
    }
}
