//! What is gathered in the course of a replay.
//!
//! Bounds: of blocks the first [`BLOCKS`] are kept in full, and of refusals and logins the first [`OTHERS`]; the rest is
//! counted. Names are bounded by [`Users`].

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use xdpban_engine::Counts;
use xdpban_engine::change::{Block, Change, Refused};
use xdpban_engine::event::Event;
use xdpban_engine::measure::Strictness;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::users::Users;
use crate::clock::rfc3339;
use crate::control::wire::{Rule, seconds_up};

/// Blocks that are kept.
const BLOCKS: usize = 65_536;

/// Refusals, and logins that would have been hit, that are kept.
const OTHERS: usize = 10_000;

/// Names in the report.
const MOST_TRIED: usize = 100;

/// What the present rules would have done to a past log. Field names are a contract.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The logs, in the order in which they were gone over.
    pub(super) files: Vec<FileRead>,
    pub(super) lines: u64,
    /// Lines that were longer than is read, and were cut.
    pub(super) cut: u64,
    /// The first and the last time that lines tell, RFC 3339.
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    /// How long it took.
    pub(super) took_s: f64,
    pub(super) lines_per_s: u64,
    /// Lines that a decoder understood, those that tell of attacks, and those that look like failures and fit no form.
    pub(super) events: u64,
    pub(super) attacks: u64,
    pub(super) unexplained: u64,
    /// Attempts to log in, and how many of them would have been stopped.
    pub(super) attempts: u64,
    pub(super) stopped_attempts: u64,
    /// All blocks, and the first of them in full.
    pub(super) blocks_total: u64,
    pub(super) blocks: Vec<Blocked>,
    /// What would not have been blocked although a rule asked for it, likewise.
    pub(super) refused_total: u64,
    pub(super) refused: Vec<NotBlocked>,
    /// Logins with the right credentials that a block would have stopped, likewise.
    pub(super) logins_hit_total: u64,
    pub(super) logins_hit: Vec<LoginHit>,
    /// The names tried most.
    pub(super) users: Vec<User>,
}

/// A log that was gone over.
#[derive(Debug, Serialize)]
pub(super) struct FileRead {
    pub(super) path: String,
    pub(super) lines: u64,
}

/// A block that would have been made.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Blocked {
    /// When, RFC 3339.
    pub(super) at: String,
    pub(super) target: String,
    pub(super) rule: Option<Rule>,
    /// For how long, in seconds; null: until lifted.
    pub(super) timeout_s: Option<u64>,
    /// When it would have ended.
    pub(super) until: Option<String>,
    /// Which offence of the target it answers, from one.
    pub(super) offence: u32,
    /// The attempts that led to it, and the names tried.
    pub(super) attempts: u32,
    pub(super) users: Vec<String>,
    /// The attempts from the target while it would have been in force.
    pub(super) stopped_attempts: u64,
    pub(super) logins_hit: u64,
}

/// A block that would have been refused.
#[derive(Debug, Serialize)]
pub(super) struct NotBlocked {
    pub(super) at: String,
    pub(super) target: String,
    pub(super) rule: Option<Rule>,
    pub(super) because: String,
}

/// A login that would have been hit.
#[derive(Debug, Serialize)]
pub(super) struct LoginHit {
    pub(super) at: String,
    pub(super) user: String,
    /// As sshd names it: `password`, `publickey`.
    pub(super) method: String,
    pub(super) source: String,
    /// The block that it would have run into.
    pub(super) target: String,
    pub(super) rule: Option<Rule>,
}

/// A name and how often it was tried.
#[derive(Debug, Serialize)]
pub(super) struct User {
    pub(super) user: String,
    pub(super) attempts: u64,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// For each block in force or at rest its place in `blocks`; none for one beyond the bound.
    in_force: HashMap<(Target, Strictness), Option<usize>>,
    blocks: Vec<Blocked>,
    blocks_total: u64,
    refused: Vec<NotBlocked>,
    refused_total: u64,
    logins_hit: Vec<LoginHit>,
    logins_hit_total: u64,
    stopped_attempts: u64,
    users: Users,
    span: Option<(Wall, Wall)>,
}

impl Gathered {
    /// Takes note of the time of a line.
    pub(super) fn time(&mut self, time: Wall) {
        let (first, last) = self.span.get_or_insert((time, time));
        *first = time.min(*first);
        *last = time.max(*last);
    }

    /// Takes note of attempts as a user.
    pub(super) fn tried(&mut self, user: &[u8], attempts: u32) {
        self.users.add(user, attempts);
    }

    /// Takes note of what the block of `target` would have stopped.
    pub(super) fn stopped(&mut self, target: &Target, attempts: u32) {
        self.stopped_attempts += u64::from(attempts);
        if let Some(block) = self.block_of(target) {
            block.stopped_attempts += u64::from(attempts);
        }
    }

    /// Takes note of a login that the block of `target` would have stopped.
    pub(super) fn login_hit(&mut self, target: &Target, login: &Event<'_>, at: Wall) {
        self.logins_hit_total += 1;
        let block = self.block_of(target);
        let rule = block.and_then(|block| {
            block.logins_hit += 1;
            block.rule.clone()
        });
        if self.logins_hit.len() < OTHERS {
            self.logins_hit.push(LoginHit {
                at: rfc3339(at),
                user: text(login.user.as_deref().unwrap_or_default()),
                method: text(login.detail),
                source: login.source.map_or_else(|| target.to_string(), |source| source.to_string()),
                target: target.to_string(),
                rule,
            });
        }
    }

    /// Takes note of what the engine would have had done at `at`.
    pub(super) fn change(&mut self, change: Change, at: Wall) {
        match change {
            Change::Block(block) => self.blocked(&block, at),
            Change::Unblock { block, .. } => {
                self.in_force.remove(&(block.target, block.measure.strictness()));
            }
            Change::Refused(refused) => self.refused(&refused, at),
            // What rests or comes back has been told of; and past logs run nothing.
            Change::Rest { .. } | Change::Resume(_) | Change::Run(_) => {}
        }
    }

    fn blocked(&mut self, block: &Block, at: Wall) {
        self.blocks_total += 1;
        let place = (self.blocks.len() < BLOCKS).then_some(self.blocks.len());
        self.in_force.insert((block.target, block.measure.strictness()), place);
        if place.is_none() {
            return;
        }
        let timeout = block.expires.map(|expiry| expiry.wall.since(at));
        self.blocks.push(Blocked {
            at: rfc3339(at),
            target: block.target.to_string(),
            rule: block.rule.as_ref().map(Rule::from),
            timeout_s: timeout.map(seconds_up),
            until: block.expires.map(|expiry| rfc3339(expiry.wall)),
            offence: block.offences,
            attempts: block.attempts,
            users: block.users.iter().map(|user| user.to_string()).collect(),
            stopped_attempts: 0,
            logins_hit: 0,
        });
    }

    fn refused(&mut self, refused: &Refused, at: Wall) {
        self.refused_total += 1;
        if self.refused.len() < OTHERS {
            self.refused.push(NotBlocked {
                at: rfc3339(at),
                target: refused.block.target.to_string(),
                rule: refused.block.rule.as_ref().map(Rule::from),
                because: refused.because.to_string(),
            });
        }
    }

    fn block_of(&mut self, target: &Target) -> Option<&mut Blocked> {
        let place = |strictness| self.in_force.get(&(*target, strictness)).copied();
        self.blocks.get_mut(Strictness::ALL.into_iter().find_map(place)??)
    }

    /// The whole report.
    pub(super) fn report(self, files: Vec<FileRead>, counts: &Counts, cut: u64, took: Duration) -> Report {
        let lines_per_s = u128::from(counts.lines) * 1_000_000 / took.as_micros().max(1);
        let users = self.users.most_tried(MOST_TRIED).into_iter();
        Report {
            files,
            lines: counts.lines,
            cut,
            first: self.span.map(|(first, _)| rfc3339(first)),
            last: self.span.map(|(_, last)| rfc3339(last)),
            took_s: took.as_secs_f64(),
            lines_per_s: u64::try_from(lines_per_s).unwrap_or(u64::MAX),
            events: counts.events,
            attacks: counts.attacks,
            unexplained: counts.unexplained,
            attempts: counts.attempts,
            stopped_attempts: self.stopped_attempts,
            blocks_total: self.blocks_total,
            blocks: self.blocks,
            refused_total: self.refused_total,
            refused: self.refused,
            logins_hit_total: self.logins_hit_total,
            logins_hit: self.logins_hit,
            users: users.map(|(user, attempts)| User { user, attempts }).collect(),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
