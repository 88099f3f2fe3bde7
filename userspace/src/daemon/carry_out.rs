//! Carrying out what the engine decided: into the gate first, then on record. What the kernel says comes back to the
//! engine, so that a block that did not take is never reported as one that did.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use xdpban_engine::Applied;
use xdpban_engine::change::{Block, Change, End, Origin, Place};
use xdpban_engine::measure::Action;
use xdpban_engine::target::Target;
use xdpban_engine::time::{Mono, Now};

use super::Daemon;
use super::compare::RECORDED;
use super::trial::Trial;
use crate::clock;
use crate::error::chain;
use crate::gate::{Entry, Insertion, NotTaken};
use crate::human;
use crate::store::Write;

/// Rounds what is left of a block to the nearest second.
const HALF_SECOND: Duration = Duration::from_millis(500);

/// Up to so many changes of one kind are logged one by one; more are summed up.
const LOGGED: usize = 16;

/// Changes that are carried out at once: few enough to be had in memory.
const AT_ONCE: usize = 16_384;

/// Counts that go to the store at once; the others follow a minute later.
const COUNTS_AT_ONCE: usize = 16_384;

/// What the entries that another block of their target took over had counted by then, packets and bytes.
type TakenOver = HashMap<Target, (u64, u64)>;

/// What changes come from.
#[derive(Clone, Copy)]
pub(super) enum Cause<'a> {
    /// A line, which a source read at this time.
    Line(Mono),
    /// The record of an earlier controller.
    Restore,
    /// An operator.
    Operator {
        /// Their user id.
        uid: u32,
        /// Why, in their words.
        reason: Option<&'a str>,
    },
    /// Anything else.
    Other,
}

impl Daemon {
    /// Carries out every change that the engine has, in order.
    pub(super) fn carry_out(&mut self, cause: Cause<'_>) {
        let mut taken_over = TakenOver::new();
        loop {
            let changes = std::iter::from_fn(|| self.engine.next_change());
            let changes: Vec<Change> = changes.take(AT_ONCE).collect();
            if changes.is_empty() {
                break;
            }
            // Changes of one kind that follow each other go to the kernel in one call.
            for run in changes.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
                self.block(run, cause, &mut taken_over);
                self.rest(run, cause, &taken_over);
                self.unblock(run, cause, &taken_over);
                self.refuse(run);
                self.order_commands(run);
            }
        }
        for (table, evicted) in self.evicted() {
            if evicted > 0 && self.said_full.insert(table) {
                log::warn!(
                    "the table of {table} is full: the soonest to expire give way, and `xdpban status` counts them. Raise [limits] {table}"
                );
            }
        }
    }

    fn block(&mut self, run: &[Change], cause: Cause<'_>, taken_over: &mut TakenOver) {
        let blocks: Vec<&Arc<Block>> = run
            .iter()
            .filter_map(|change| match change {
                Change::Block(block) | Change::Resume(block) => Some(block),
                _ => None,
            })
            .collect();
        if blocks.is_empty() {
            return;
        }
        let resumes = matches!(run, [Change::Resume(_), ..]);
        let mut counted = Vec::with_capacity(blocks.len());
        for block in &blocks {
            let other = |entry: &Entry| {
                entry.measure.is_some_and(|measure| measure.strictness() != block.measure.strictness())
            };
            let entry = self.gate.entry(&block.target);
            counted.push(reading(entry.as_ref()));
            match entry.filter(other) {
                Some(entry) => taken_over.insert(block.target, (entry.packets, entry.bytes)),
                None => taken_over.remove(&block.target),
            };
        }
        let insertions: Vec<Insertion> = blocks.iter().map(|block| insertion(block, self.trial)).collect();
        let mut left_out = self.gate.insert(&insertions).into_iter().peekable();
        let now = clock::now();
        let took = if let Cause::Line(read_at) = cause { Some(now.mono.since(read_at)) } else { None };
        let uid = if let Cause::Operator { uid, .. } = cause { Some(uid) } else { None };
        let (mut taken, mut adopted) = (Vec::new(), Vec::new());
        for ((index, block), counted) in blocks.into_iter().enumerate().zip(counted) {
            let applied = match left_out.next_if(|(place, _)| *place == index) {
                None => Applied::Done,
                Some((_, NotTaken::Full)) => Applied::TableFull,
                Some((_, why)) => Applied::Failed(chain(&why).into()),
            };
            if applied == Applied::Done {
                let (recorded, at, dry_run) = (Arc::clone(block), now.wall, !self.enforcing());
                let restored = matches!(cause, Cause::Restore);
                if restored && block.origin == Origin::Adopted {
                    // It may be on record as that since an earlier start. What its entry has counted is its own.
                    adopted.push((Arc::clone(&recorded), None));
                }
                if restored && !block.measure.stops_everything() {
                    // It is on record as it was, save that it may have rested.
                    let from = taken_over.get(&block.target).copied().unwrap_or_default();
                    self.writes.push(Write::Resumed { block: recorded, at, from });
                } else if resumes {
                    self.writes.push(Write::Resumed { block: recorded, at, from: counted });
                } else if !restored {
                    self.writes.push(Write::Blocked {
                        block: recorded,
                        at,
                        took,
                        uid,
                        from: counted,
                        dry_run,
                    });
                }
                taken.push(block);
            }
            // That the others are in force, the engine hears of all at once.
            if !matches!(cause, Cause::Restore) || applied != Applied::Done {
                self.engine.applied(block, applied, now);
            }
        }
        if matches!(cause, Cause::Restore) {
            let (at, dry_run) = (now.wall, !self.enforcing());
            for blocks in adopted.chunks(RECORDED) {
                self.writes.push(Write::Standing { blocks: blocks.to_vec(), at, dry_run });
            }
            // The start says how many there are.
            return;
        }
        if resumes {
            log_run(&taken, "in force again", |block| {
                format!("{} is in force again for {}", block.measure, block.target)
            });
        } else {
            let dry_run = if self.enforcing() { "" } else { "dry run: " };
            log_run(&taken, &format!("{dry_run}blocked"), |block| {
                format!("{dry_run}{}", describe(block, &now))
            });
        }
    }

    /// Gives every entry in the kernel the expiry that its block has.
    pub(super) fn renew_all(&mut self) {
        let insertions: Vec<Insertion> =
            self.engine.blocks().map(|block| insertion(block, self.trial)).collect();
        let left_out = self.gate.insert(&insertions);
        if let Some((_, why)) = left_out.first() {
            let targets = human::counted(left_out.len() as u64, "target");
            log::error!("{targets} may be let through too early: {}", chain(why));
        }
    }

    /// Has it put on record that what is blocked is in force again, where that rested because the gate was off the host.
    pub(super) fn record_resumed(&mut self) {
        let at = clock::now().wall;
        for block in self.engine.blocks() {
            let from = reading(self.gate.entry(&block.target).as_ref());
            self.writes.push(Write::Resumed { block: Arc::clone(block), at, from });
        }
    }

    /// Has what is blocked put on record as enforced from now on, or as no longer so.
    pub(super) fn record_switch(&mut self) {
        let (at, dry_run) = (clock::now().wall, !self.enforcing());
        for block in self.engine.blocks() {
            let (packets, bytes) = reading(self.gate.entry(&block.target).as_ref());
            self.writes.push(Write::Switched { block: Arc::clone(block), at, dry_run, packets, bytes });
        }
        for block in self.engine.resting() {
            let switched = Write::Switched { block: Arc::clone(block), at, dry_run, packets: 0, bytes: 0 };
            let rests = self.engine.beneath(block).map(|beneath| {
                let block = Arc::clone(block);
                Write::Rests { block, at, beneath, packets: 0, bytes: 0 }
            });
            self.writes.extend(std::iter::once(switched).chain(rests));
        }
    }

    fn rest(&mut self, run: &[Change], cause: Cause<'_>, taken_over: &TakenOver) {
        // A controller may have been killed before it took the entry out.
        let left_behind = |block: &Block| {
            matches!(cause, Cause::Restore)
                && self.gate.entry(&block.target).is_some_and(|entry| entry.measure == Some(block.measure))
        };
        let resting: Vec<(&Arc<Block>, Place, Target)> = run
            .iter()
            .filter_map(|change| match change {
                Change::Rest { block, beneath, .. } if left_behind(block) => {
                    Some((block, Place::Gate, *beneath))
                }
                Change::Rest { block, place, beneath } => Some((block, *place, *beneath)),
                _ => None,
            })
            .collect();
        if resting.is_empty() {
            return;
        }
        let counts = self.leave(resting.iter().map(|(block, place, _)| (&***block, *place)), taken_over);
        let at = clock::now().wall;
        let uid = if let Cause::Operator { uid, .. } = cause { Some(uid) } else { None };
        for ((block, place, beneath), (packets, bytes)) in resting.iter().zip(counts) {
            let beneath = *beneath;
            // What was restored is on record as it was; what never was in force is not on record yet.
            if !matches!(cause, Cause::Restore) {
                if *place == Place::Nowhere {
                    let block = Arc::clone(block);
                    let dry_run = !self.enforcing();
                    self.writes.push(Write::Blocked { block, at, took: None, uid, from: (0, 0), dry_run });
                }
            } else if block.origin == Origin::Adopted {
                let blocks = vec![(Arc::clone(block), Some(beneath))];
                self.writes.push(Write::Standing { blocks, at, dry_run: !self.enforcing() });
            }
            self.writes.push(Write::Rests { block: Arc::clone(block), at, beneath, packets, bytes });
        }
        log_run(&resting, "at rest beneath stricter blocks", |(block, _, beneath)| {
            format!("{} for {} rests while {beneath} has a stricter block", block.measure, block.target)
        });
    }

    /// Takes out of the gate what is not to stand in it any longer; returns the packets and bytes that each has dropped.
    fn leave<'a>(
        &mut self,
        blocks: impl Iterator<Item = (&'a Block, Place)> + Clone,
        taken_over: &TakenOver,
    ) -> Vec<(u64, u64)> {
        let leaving = blocks.clone().filter(|(_, place)| *place == Place::Gate);
        let leaving: Vec<Target> = leaving.map(|(block, _)| block.target).collect();
        let mut removed = self.gate.remove(&leaving).into_iter();
        blocks
            .map(|(block, place)| match place {
                Place::Gate => reading(removed.next().flatten().as_ref()),
                Place::TakenOver => taken_over.get(&block.target).copied().unwrap_or_default(),
                Place::Nowhere => (0, 0),
            })
            .collect()
    }

    fn unblock(&mut self, run: &[Change], cause: Cause<'_>, taken_over: &TakenOver) {
        let ended: Vec<_> = run
            .iter()
            .filter_map(|change| match change {
                Change::Unblock { block, place, end, detail } => Some((block, *place, *end, detail)),
                _ => None,
            })
            .collect();
        if ended.is_empty() {
            return;
        }
        let counts = self.leave(ended.iter().map(|(block, place, ..)| (&***block, *place)), taken_over);
        let at = clock::now().wall;
        for ((block, _, end, detail), (packets, bytes)) in ended.iter().zip(counts) {
            let (uid, reason) = match (end, cause) {
                (End::Lifted | End::Withdrawn, Cause::Operator { uid, reason: None }) => {
                    (Some(uid), Some(format!("by uid {uid}")))
                }
                (End::Lifted | End::Withdrawn, Cause::Operator { uid, reason: Some(reason) }) => {
                    (Some(uid), Some(format!("by uid {uid}: {reason}")))
                }
                // They allowed it, and the detail says what.
                (End::Protected, Cause::Operator { uid, .. }) => {
                    (Some(uid), detail.as_deref().map(str::to_owned))
                }
                _ => (None, detail.as_deref().map(str::to_owned)),
            };
            self.writes.push(Write::Ended {
                block: (*block).clone(),
                end: *end,
                at,
                packets,
                bytes,
                reason,
                uid,
            });
        }
        log_run(&ended, "unblocked", |(block, place, end, detail)| {
            let what = match place {
                Place::Gate => format!("unblocked {}", block.target),
                Place::TakenOver | Place::Nowhere => {
                    format!("{} for {} is over", block.measure, block.target)
                }
            };
            match detail {
                Some(detail) => format!("{what}: {}, {detail}", end.name()),
                None => format!("{what}: {}", end.name()),
            }
        });
    }

    fn refuse(&mut self, run: &[Change]) {
        let refused: Vec<_> = run
            .iter()
            .filter_map(|change| if let Change::Refused(refused) = change { Some(refused) } else { None })
            .collect();
        let at = clock::now().wall;
        for refused in &refused {
            self.writes.push(Write::Refused { refused: (*refused).clone(), at });
        }
        log_run(&refused, "left alone", |refused| refused.because.to_string());
    }

    /// Has the counts of the blocks in force written to the store, so that a reboot does not lose them: those that have
    /// changed since they last were, a bounded number at once.
    pub(super) fn record_counts(&mut self) {
        let at = clock::now().wall;
        let mut recorded = HashMap::with_capacity(self.counted.len());
        let mut left = COUNTS_AT_ONCE;
        for (target, entry) in self.gate.entries().filter(|(_, entry)| entry.packets > 0) {
            let before = self.counted.get(&target).copied();
            if before == Some(entry.packets) || left == 0 {
                recorded.extend(before.map(|packets| (target, packets)));
                continue;
            }
            // One without its measure is about to be mended.
            let Entry { measure: Some(measure), packets, bytes, .. } = entry else { continue };
            left -= 1;
            recorded.insert(target, packets);
            self.writes.push(Write::Counts { target, strictness: measure.strictness(), packets, bytes, at });
        }
        self.counted = recorded;
    }
}

/// The packets and bytes that an entry has counted.
pub(super) fn reading(entry: Option<&Entry>) -> (u64, u64) {
    entry.map_or((0, 0), |entry| (entry.packets, entry.bytes))
}

pub(super) fn insertion(block: &Block, trial: Option<Trial>) -> Insertion {
    Insertion { target: block.target, expires: Trial::cap(trial, block.expires), measure: block.measure }
}

pub(super) fn log_run<T>(run: &[T], what: &str, describe: impl Fn(&T) -> String) {
    if run.len() > LOGGED {
        log::info!("{what}: {}", human::counted(run.len() as u64, "target"));
    } else {
        run.iter().for_each(|one| log::info!("{}", describe(one)));
    }
}

fn describe(block: &Block, now: &Now) -> String {
    let how_long = match block.expires {
        Some(expiry) => {
            format!("for {}", human::duration(expiry.mono.since(now.mono).saturating_add(HALF_SECOND)))
        }
        None => "until unblocked".to_owned(),
    };
    let why = match &block.rule {
        Some(rule) => format!("rule {} {}", rule.id.0, block.reason),
        None => block.reason.to_string(),
    };
    let done = match block.measure.action {
        Action::Block => "blocked",
        Action::Throttle(_) => "throttled",
    };
    let measure = match block.measure.stops_everything() {
        true => String::new(),
        false => format!(" ({})", block.measure),
    };
    format!("{done} {}{measure} {how_long}: {why} (offence {})", block.target, block.offences)
}
