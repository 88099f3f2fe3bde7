//! From a match to a change of the blocklist: what is blocked, for how long, and what prevents it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::blocklist::{Blocklist, Full, Key, key};
use crate::change::{Block, Change, End, Origin, Protection, Refusal};
use crate::lru::Lru;
use crate::moment::Moment;
use crate::offenders::{Offender, Offenders};
use crate::policy::Policy;
use crate::protect::{Guard, HostAddresses, Logins};
use crate::target::Target;
use crate::time::{Mono, Now, Wall};

mod aggregate;
mod by_hand;
mod decision;
mod kernel;
mod lift_all;
mod respond;
mod rest;
mod restore;

pub use decision::{Applied, BlockRequest, Decision, ResponseCounts, Standing};
pub(crate) use decision::{Evidence, Offence};
pub use lift_all::LiftAll;

/// How many blocks end at once, at most: so many that others who wait for their turn do not notice.
const AT_ONCE: usize = 1024;

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

    /// What keeps rules from blocking `target`.
    pub(crate) fn protection(&self, target: &Target, now: &Now) -> Option<Protection> {
        self.guard.check(target).or_else(|| {
            let logins = self.protect_logins.then_some(&self.logins)?;
            logins.check(target, Moment::now(now))
        })
    }
}

/// When the block began that `origin` asks for at `asked`: when `standing` did, where that is theirs, and so goes on.
fn began(standing: Option<&Block>, origin: Origin, asked: Wall) -> Wall {
    // What was found in the gate may be theirs.
    let theirs = standing.filter(|standing| [origin, Origin::Adopted].contains(&standing.origin));
    theirs.map_or(asked, |standing| standing.created)
}

fn is_over(block: &Block, now: Mono) -> bool {
    block.expires.is_some_and(|expiry| expiry.mono <= now)
}

fn refusal_of(target: Target, full: Full) -> Refusal {
    Refusal::Full { target, capacity: full.capacity, limit: full.limit }
}
