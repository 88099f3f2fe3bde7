//! Comparing, once a minute, what the engine has blocked with what stands in the kernel and on record, and mending what differs
//! there: in parts, so that nothing waits for it.

use std::sync::Arc;

use tokio::sync::mpsc;
use xdpban_engine::measure::Strictness;
use xdpban_engine::target::Target;

use super::Daemon;
use super::carry_out::{insertion, log_run};
use crate::clock;
use crate::error::chain;
use crate::gate::{GateError, Part, Reconciled};
use crate::human;
use crate::store::{Archive, Write};

/// Blocks that are looked for in the kernel in one part.
const BLOCKS: usize = 4096;

/// Blocks that are compared with the record in one part.
const RECORDED: usize = 1024;

/// A block that the record has in force or at rest.
pub(super) type Recorded = (Target, Strictness);

/// How far a comparison is.
#[derive(Default)]
pub(super) enum Comparison {
    /// What is the same for all: the allowlist, and whether anything is enforced.
    #[default]
    Common,
    /// What stands in the tables.
    Tables(Part),
    /// What is blocked, from its last place to its first: those before this one are yet to be looked for in the tables.
    Blocks(usize),
    /// What the record has in force.
    Record {
        blocks: mpsc::Receiver<Vec<Recorded>>,
        /// How many of them are blocked.
        standing: usize,
    },
    /// What is blocked, as above: those before this place are yet to be looked for on record.
    Unrecorded(usize),
}

impl Comparison {
    /// Waits until the next part can be compared. Returns what the record has, where that is the part.
    pub(super) async fn next(comparison: &mut Option<Comparison>) -> Option<Vec<Recorded>> {
        match comparison {
            None => std::future::pending().await,
            Some(Comparison::Record { blocks, .. }) => blocks.recv().await,
            Some(_) => None,
        }
    }
}

impl Daemon {
    /// Compares the next part.
    pub(super) fn compare(&mut self, recorded: Option<Vec<Recorded>>) {
        let Some(comparison) = self.comparison.take() else { return };
        match self.compare_part(comparison, recorded) {
            Ok(next) => self.comparison = next,
            Err(error) => log::error!("{}", chain(&error)),
        }
    }

    fn compare_part(
        &mut self,
        comparison: Comparison,
        recorded: Option<Vec<Recorded>>,
    ) -> Result<Option<Comparison>, GateError> {
        Ok(match comparison {
            Comparison::Common => {
                self.gate.set_dry_run(!self.enforcing());
                let networks = [self.config.policy.allow.clone(), self.allowlist.networks()].concat();
                let changed = self.gate.set_allow(&networks)?;
                if changed > 0 {
                    let what = human::counted(changed as u64, "network");
                    log::warn!(
                        "someone else changed {what} on the kernel's allowlist; it is as it was again"
                    );
                    self.tampered += changed;
                }
                Some(Comparison::Tables(Part::default()))
            }
            Comparison::Tables(part) => {
                let (engine, trial) = (&self.engine, self.trial);
                let wanted = |target: &Target| engine.in_gate(target).map(|block| insertion(block, trial));
                let (found, next) = self.gate.compare(part, wanted)?;
                self.tell_mended(&found);
                let blocks = Comparison::Blocks(self.engine.places());
                Some(next.map_or(blocks, Comparison::Tables))
            }
            Comparison::Blocks(end) => {
                let start = end.saturating_sub(BLOCKS);
                let blocks = self.engine.all_in(start..end).filter(|(_, rests)| !rests);
                let put_back = self.gate.put_back(blocks.map(|(block, _)| insertion(block, self.trial)));
                self.tell_mended(&Reconciled { put_back, taken_out: Vec::new() });
                if start > 0 { Some(Comparison::Blocks(start)) } else { self.read_record() }
            }
            Comparison::Record { blocks, standing } => match recorded {
                Some(recorded) => {
                    let count = recorded.len();
                    let not_standing: Vec<Recorded> = recorded
                        .into_iter()
                        .filter(|(target, strictness)| !self.engine.has(*target, *strictness))
                        .collect();
                    let standing = standing + count - not_standing.len();
                    if !not_standing.is_empty() {
                        let at = clock::now().wall;
                        self.writes.push(Write::NotStanding { blocks: not_standing, at });
                    }
                    Some(Comparison::Record { blocks, standing })
                }
                None => {
                    let places = self.engine.places();
                    (standing < places).then_some(Comparison::Unrecorded(places))
                }
            },
            Comparison::Unrecorded(end) => {
                let start = end.saturating_sub(RECORDED);
                let blocks = self.engine.all_in(start..end);
                let blocks =
                    blocks.map(|(block, _)| (Arc::clone(block), self.engine.beneath(block))).collect();
                let dry_run = !self.enforcing();
                self.writes.push(Write::Standing { blocks, at: clock::now().wall, dry_run });
                (start > 0).then_some(Comparison::Unrecorded(start))
            }
        })
    }

    /// Has the record read, beside the loop. What it lacks or has too much may just be on its way: the store sees to that.
    fn read_record(&mut self) -> Option<Comparison> {
        if self.store_trouble.is_some() {
            return None;
        }
        let (sender, blocks) = mpsc::channel(1);
        let directory = self.config.paths.state.clone();
        while self.answers.try_join_next().is_some() {}
        self.answers.spawn_blocking(move || {
            // Once the loop has ended it takes no more.
            let take = |blocks| sender.blocking_send(blocks).is_ok();
            let read = Archive::open(&directory).and_then(|archive| archive.each_in_force(RECORDED, take));
            if let Err(error) = read {
                log::warn!("compare the record with what is blocked: {}", chain(&error));
            }
        });
        Some(Comparison::Record { blocks, standing: 0 })
    }

    fn tell_mended(&mut self, Reconciled { put_back, taken_out }: &Reconciled) {
        self.tampered += put_back.len() + taken_out.len();
        log_run(put_back, "mended in the kernel's tables", |target| {
            format!("someone else changed the block of {target} in the kernel; it is as it was again")
        });
        log_run(taken_out, "taken out of the kernel's tables", |target| {
            format!("someone else blocked {target} in the kernel; it is taken out. Block with `xdpban block`")
        });
    }
}
