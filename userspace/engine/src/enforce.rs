//! From a match to a change of the blocklist: what is blocked, for how long, and what prevents it.
//!
//! One block is one offence. Lines that tell of connections from before the kernel had the block are still on their way
//! then; they can move its expiry further out (when a graver rule matches), but are no further offence. An attempt on a
//! connection that began later got past the block, and is one.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::blocklist::{Blocklist, Entry, Full, Key, key};
use crate::change::{Block, Change, End, Expiry, Origin, Protection, Refusal, Refused};
use crate::lru::Lru;
use crate::measure::Measure;
use crate::moment::Moment;
use crate::offenders::{Offender, Offenders};
use crate::policy::{FORGET_AFTER, Policy, Response};
use crate::protect::{Guard, HostAddresses, Logins};
use crate::rules::RuleRef;
use crate::target::Target;
use crate::time::{Mono, Now};

/// A line that is older than this when it is read is read late (after a restart, for instance): its block has been
/// running since the line was written, and only the rest is made. A younger one is blocked for the whole time from now.
const LATE: Duration = Duration::from_secs(60);

/// How long after the kernel had a block connections may seem to begin that began before: timestamps of whole seconds,
/// and packets that were queued.
const GRACE: Duration = Duration::from_secs(2);

/// An expiry is not moved for less than this, so that the last lines of a connection do not each cause a change.
const WORTHWHILE: Duration = Duration::from_secs(1);

/// How many blocks end at once, at most: so many that others who wait for their turn do not notice.
const AT_ONCE: usize = 1024;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRequest {
    /// What to block.
    pub target: Target,
    /// For how long; none: until unblocked.
    pub timeout: Option<Duration>,
    /// What befalls its packets.
    pub measure: Measure,
    /// Why, in words.
    pub reason: Arc<str>,
}

/// What came of a [`Change::Block`] in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The entry is in the table.
    Done,
    /// The table has no room, and would have if another block of it went.
    TableFull,
    /// It was not taken, for a reason that no other block's end would change; in words.
    Failed(Arc<str>),
}

/// What is done about a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// To block, from now.
    Block {
        /// What.
        target: Target,
        /// For how long; none: until unblocked.
        timeout: Option<Duration>,
    },
    /// Nothing: the source is blocked already, for at least as long.
    Standing {
        /// The block that it lies in.
        target: Target,
    },
    /// Nothing: the line is so old that its block would be over by now.
    Late {
        /// What would have been blocked.
        target: Target,
    },
    /// Nothing, for this reason.
    Refused {
        /// What would have been blocked.
        target: Target,
        /// Why it is not.
        because: Refusal,
    },
}

/// How an address stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It is blocked.
    Blocked(&'a Block),
    /// It cannot be blocked, at least not by rules.
    Protected(Protection),
    /// Neither.
    Open,
}

/// How many matches led to what, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseCounts {
    /// Blocks that rules made, those that were made longer included.
    pub blocked: u64,
    /// Matches that a protection or a full table kept from a block.
    pub refused: u64,
    /// Matches of lines so old that their blocks would have been over. Many of them on a log that is being written tell
    /// of a wrong clock or time zone there.
    pub late: u64,
    /// Blocks that gave way in a full table of addresses.
    pub evicted: u64,
    /// Blocks that gave way in a full table of other prefixes.
    pub evicted_prefixes: u64,
    /// Blocks that the kernel did not take.
    pub failed: u64,
    /// Commands that were not run, because too many waited to be undone.
    pub crowded: u64,
}

/// A match to respond to.
pub(crate) struct Offence<'a> {
    pub(crate) source: IpAddr,
    /// When the line was written.
    pub(crate) at: Moment,
    /// When its connection began.
    pub(crate) began: Moment,
    pub(crate) attempts: u32,
    /// The rule that matched; none where another system asks for a block without naming one.
    pub(crate) rule: Option<&'a RuleRef>,
    /// Why, in words.
    pub(crate) reason: &'a Arc<str>,
    pub(crate) response: &'a Response,
    pub(crate) origin: Origin,
}

/// The names that a source tried and its latest lines.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) users: Vec<Arc<str>>,
    pub(crate) lines: Vec<Arc<str>>,
}

/// The owner of what is blocked, and of what must not be.
#[derive(Debug)]
pub(crate) struct Enforcer {
    pub(crate) guard: Guard,
    pub(crate) logins: Logins,
    blocklist: Blocklist,
    offenders: Offenders,
    /// Until when the refusal of a target is not put on record again.
    refusals: Lru<Target, Moment>,
    /// What the caller has not taken yet. It grows by a few with each call, except where many blocks end or are restored
    /// at once, and so by no more than the tables hold.
    changes: VecDeque<Change>,
    protect_logins: bool,
    ipv6_prefix: u8,
    forget_after: Duration,
    pub(crate) counts: ResponseCounts,
}

impl Enforcer {
    pub(crate) fn new(policy: &Policy) -> Enforcer {
        let sources = policy.limits.sources as usize;
        Enforcer {
            guard: Guard::new(policy.allow.clone()),
            logins: Logins::new(),
            blocklist: Blocklist::new(policy.limits),
            offenders: Offenders::new(sources),
            refusals: Lru::new(sources),
            changes: VecDeque::new(),
            protect_logins: policy.protect_logins,
            ipv6_prefix: policy.ipv6_prefix,
            forget_after: policy.forget_after,
            counts: ResponseCounts::default(),
        }
    }

    pub(crate) fn reload(&mut self, policy: &Policy) {
        let sources = policy.limits.sources as usize;
        self.offenders.set_capacity(sources);
        self.refusals.set_capacity(sources);
        self.refusals.clear();
        self.protect_logins = policy.protect_logins;
        self.ipv6_prefix = policy.ipv6_prefix;
        self.forget_after = policy.forget_after;
        self.guard.set_allow(policy.allow.clone());
        self.lift_protected();
    }

    pub(crate) fn set_allowed_by_hand(&mut self, networks: Vec<Target>) {
        self.guard.set_allowed_by_hand(networks);
        self.refusals.clear();
        self.lift_protected();
    }

    pub(crate) fn set_host(&mut self, host: &HostAddresses) {
        self.guard.set_host(host);
        self.refusals.clear();
        self.lift_protected();
    }

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
        let block = Block {
            target,
            created: self.blocklist.get(&key).map_or(now.wall, |entry| entry.block.created),
            expires: timeout.map(|timeout| Expiry::after(timeout, now)),
            measure,
            rule: None,
            reason,
            origin: Origin::Operator,
            offences: self.offenders.next(&target, Moment::now(now), self.forget_after),
            attempts: 0,
            users: Vec::new(),
            evidence: Vec::new(),
        };
        let block = match self.blocklist.of(target).next().map(|entry| &*entry.block) {
            Some(Block { offences, attempts, users, evidence, .. }) => Block {
                offences: *offences,
                attempts: *attempts,
                users: users.clone(),
                evidence: evidence.clone(),
                ..block
            },
            None => block,
        };
        let stricter = |entry: &&Entry| entry.block.measure.is_stricter_than(&measure);
        let stricter: Vec<Key> =
            self.blocklist.of(target).filter(stricter).map(|entry| self::key(&entry.block)).collect();
        let mut lifted: Vec<Entry> = stricter.iter().filter_map(|key| self.blocklist.remove(key)).collect();
        if self.place(&key).is_some() {
            // It takes over as it rested, and gets what is asked for when it is in force.
            lifted.drain(..).for_each(|entry| self.end(entry, End::Lifted, None));
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
        self.remove(&key, End::Lifted, Some(why));
        self.offenders.ended(&key.0, Moment::now(now));
        Some(key.0)
    }

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
        if block.origin.is_by_rule() {
            self.offenders.take_back(&block.target);
        }
        self.remove(&key, End::Failed, Some(why));
    }

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

    /// Ends blocks whose time is over, a bounded number of them.
    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        for _ in 0..AT_ONCE {
            let Some(entry) = self.blocklist.due(now) else { return };
            self.end(entry, End::Expired, None);
        }
    }

    /// Ends the blocks that `address` lies in and whose time is over, however many others are due.
    fn expire(&mut self, address: IpAddr, now: Mono) {
        let over = self.blocklist.covering(address).filter(|entry| is_over(&entry.block, now));
        let over: Vec<Key> = over.map(|entry| key(&entry.block)).collect();
        for key in over {
            self.remove(&key, End::Expired, None);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        self.blocklist.next_due()
    }

    pub(crate) fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    pub(crate) fn block_of(&self, target: &Target) -> Option<&Block> {
        self.blocklist.of(*target).next().map(|entry| &*entry.block)
    }

    pub(crate) fn in_gate(&self, target: &Target) -> Option<&Block> {
        self.blocklist.of(*target).next().filter(|entry| !entry.rests).map(|entry| &*entry.block)
    }

    pub(crate) fn offenders(&self, now: Now) -> impl Iterator<Item = (Target, Offender)> {
        self.offenders.all(now)
    }

    pub(crate) fn place(&self, key: &Key) -> Option<usize> {
        self.blocklist.place(key)
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.blocklist.iter().filter(|entry| !entry.rests).map(|entry| &entry.block)
    }

    pub(crate) fn resting(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.blocklist.iter().filter(|entry| entry.rests).map(|entry| &entry.block)
    }

    pub(crate) fn beneath(&self, block: &Block) -> Option<Target> {
        self.blocklist.stricter(block).map(|stricter| stricter.target)
    }

    pub(crate) fn places(&self) -> usize {
        self.blocklist.iter().len()
    }

    pub(crate) fn all_in(&self, places: Range<usize>) -> impl Iterator<Item = (&Arc<Block>, bool)> {
        self.blocklist.in_places(places).map(|entry| (&entry.block, entry.rests))
    }

    pub(crate) fn block_counts(&self) -> [u32; 4] {
        self.blocklist.counts()
    }

    pub(crate) fn resting_at(&self, address: IpAddr) -> impl Iterator<Item = &Block> {
        self.blocklist.covering(address).filter(|entry| entry.rests).map(|entry| &*entry.block)
    }

    /// The block in force that `address` lies in.
    pub(crate) fn blocking(&self, address: IpAddr, now: &Now) -> Option<&Block> {
        let mut blocks = self.blocklist.covering(address).filter(|entry| !is_over(&entry.block, now.mono));
        blocks.find(|entry| !entry.rests).map(|entry| &*entry.block)
    }

    pub(crate) fn check(&self, address: IpAddr, now: &Now) -> Standing<'_> {
        match (self.blocking(address, now), self.protection(&Target::exact(address), now)) {
            (Some(block), _) => Standing::Blocked(block),
            (None, Some(protection)) => Standing::Protected(protection),
            (None, None) => Standing::Open,
        }
    }

    /// All that protects an address, from rules at least.
    pub(crate) fn protections(&self, address: IpAddr, now: &Now) -> Vec<Protection> {
        let target = Target::exact(address);
        let login = self.protect_logins.then(|| self.logins.check(&target, Moment::now(now))).flatten();
        self.guard.protections(target).chain(login).collect()
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

    /// What keeps rules from blocking `target`.
    pub(crate) fn protection(&self, target: &Target, now: &Now) -> Option<Protection> {
        self.guard.check(target).or_else(|| {
            let logins = self.protect_logins.then_some(&self.logins)?;
            logins.check(target, Moment::now(now))
        })
    }

    fn refuse(
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

fn is_over(block: &Block, now: Mono) -> bool {
    block.expires.is_some_and(|expiry| expiry.mono <= now)
}

fn refusal_of(target: Target, full: Full) -> Refusal {
    Refusal::Full { target, capacity: full.capacity, limit: full.limit }
}

/// What is to hold for a target for which `standing` stands and `asked` is asked, which is no weaker: two of one strictness are
/// joined, for the longer of their times; what is weaker stays as it is, beneath.
fn join(standing: Option<&Block>, asked: Block) -> Block {
    match standing.filter(|standing| !asked.measure.is_stricter_than(&standing.measure)) {
        Some(standing) => Block {
            created: standing.created,
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
fn suffices(block: &Block, measure: &Measure, expires: Option<Expiry>) -> bool {
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

mod aggregate;
mod lift_all;
mod rest;

pub use lift_all::LiftAll;
