//! Comparing, once a minute, what the engine has blocked with what stands in the kernel and on record, and mending what differs
//! there: in parts, so that nothing waits for it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use xdpban_engine::measure::Strictness;
use xdpban_engine::target::Target;

use super::carry_out::{insertion, log_run};
use super::{Daemon, MANY_WRITES};
use crate::clock;
use crate::error::chain;
use crate::gate::{GateError, Part, Reconciled};
use crate::human;
use crate::store::{Archive, Write};

/// Blocks that are looked for in the kernel in one part.
const BLOCKS: usize = 4096;

/// Blocks that are compared with the record in one part.
pub(super) const RECORDED: usize = 1024;

/// What the record has, as it is read.
pub(super) enum Recorded {
    /// Blocks that it has in force or at rest.
    Blocks(Vec<(Target, Strictness)>),
    /// That was all.
    End,
}

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
    Record { recorded: mpsc::Receiver<Recorded>, found: Found },
    /// What is blocked, as above: those before this place are yet to be looked for among what the record has.
    Unrecorded { end: usize, found: Found },
}

/// The places of blocks that the record has. A block that takes another's place meanwhile may pass for one that was found, until
/// the next comparison, or be looked for on record once more.
#[derive(Default)]
pub(super) struct Found(Vec<bool>);

impl Found {
    fn add(&mut self, place: usize) {
        if self.0.len() <= place {
            self.0.resize(place + 1, false);
        }
        if let Some(found) = self.0.get_mut(place) {
            *found = true;
        }
    }

    fn has(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|found| *found)
    }
}

impl Comparison {
    /// Waits until the next part can be compared. Returns what the record has, where that is the part, and nothing where it could
    /// not be read to its end.
    pub(super) async fn next(comparison: &mut Option<Comparison>) -> Option<Recorded> {
        match comparison {
            None => std::future::pending().await,
            Some(Comparison::Record { recorded, .. }) => recorded.recv().await,
            Some(_) => None,
        }
    }

    /// Has the record in the directory `state` read, beside the loop, for as long as this is there.
    fn read_record(state: PathBuf) -> Comparison {
        let (sender, recorded) = mpsc::channel(1);
        // It ends when nobody takes any more, and the runtime awaits that.
        tokio::task::spawn_blocking(move || {
            let take = |blocks| sender.blocking_send(Recorded::Blocks(blocks)).is_ok();
            let read = Archive::open(&state).and_then(|archive| archive.each_in_force(RECORDED, take));
            match read {
                // Nobody may be left to hear it.
                Ok(()) => sender.blocking_send(Recorded::End).unwrap_or_default(),
                Err(error) => log::warn!("compare the record with what is blocked: {}", chain(&error)),
            }
        });
        Comparison::Record { recorded, found: Found::default() }
    }
}

impl Daemon {
    /// Compares the next part.
    pub(super) fn compare(&mut self, recorded: Option<Recorded>) {
        let Some(comparison) = self.comparison.take() else { return };
        match self.compare_part(comparison, recorded) {
            Ok(next) => self.comparison = next,
            Err(error) => log::error!("{}", chain(&error)),
        }
    }

    fn compare_part(
        &mut self,
        comparison: Comparison,
        part: Option<Recorded>,
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
            Comparison::Record { recorded, mut found } => match part {
                Some(Recorded::Blocks(mut blocks)) => {
                    blocks.retain(|(target, strictness)| {
                        let place = self.engine.place(*target, *strictness);
                        place.inspect(|place| found.add(*place)).is_none()
                    });
                    if !blocks.is_empty() {
                        self.writes.push(Write::NotStanding { blocks, at: clock::now().wall });
                    }
                    Some(Comparison::Record { recorded, found })
                }
                Some(Recorded::End) => Some(Comparison::Unrecorded { end: self.engine.places(), found }),
                // What it lacks is not known.
                None => None,
            },
            Comparison::Unrecorded { end, found } => {
                let start = end.saturating_sub(RECORDED);
                let blocks = (start..).zip(self.engine.all_in(start..end));
                let blocks: Vec<_> = blocks
                    .filter(|(place, _)| !found.has(*place))
                    .map(|(_, (block, _))| (Arc::clone(block), self.engine.beneath(block)))
                    .collect();
                if !blocks.is_empty() {
                    let dry_run = !self.enforcing();
                    self.writes.push(Write::Standing { blocks, at: clock::now().wall, dry_run });
                }
                (start > 0).then_some(Comparison::Unrecorded { end: start, found })
            }
        })
    }

    /// Has the record read, unless it cannot say how things stand. What it lacks or has too much may just be on its way: the store
    /// sees to that, but each such block is looked up once more.
    fn read_record(&self) -> Option<Comparison> {
        let tells = self.store_trouble.is_none() && self.store.waiting() <= MANY_WRITES;
        tells.then(|| Comparison::read_record(self.config.paths.state.clone()))
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::store::{FILE, Store, blocked};

    /// Writes blocks of as many addresses to a store in `state`.
    fn record(state: &Path, count: u32) {
        Store::open(state).unwrap().write(&(1..=count).map(blocked).collect::<Vec<_>>()).unwrap();
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_record_that_cannot_be_read_to_its_end_is_not_taken_for_a_short_one() {
        let state = tempfile::tempdir().unwrap();
        record(state.path(), 3000);
        let read = || {
            runtime().block_on(async {
                let mut comparison = Some(Comparison::read_record(state.path().to_owned()));
                let mut parts = Vec::new();
                while let Some(part) = Comparison::next(&mut comparison).await {
                    parts.push(match part {
                        Recorded::Blocks(blocks) => Some(blocks.len()),
                        Recorded::End => None,
                    });
                }
                parts
            })
        };
        assert_eq!(read(), [Some(1024), Some(1024), Some(952), None]);
        std::fs::write(state.path().join(FILE), "no database").unwrap();
        assert_eq!(read(), []);
    }

    #[test]
    fn the_record_is_read_no_further_when_the_comparison_is_given_up() {
        let state = tempfile::tempdir().unwrap();
        record(state.path(), 10_000);
        let ended = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut comparison = Some(Comparison::read_record(state.path().to_owned()));
                assert!(matches!(Comparison::next(&mut comparison).await, Some(Recorded::Blocks(_))));
                drop(comparison);
            });
        });
        // The runtime ends with its last thread.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !ended.is_finished() {
            assert!(std::time::Instant::now() < deadline, "it is still waited for");
            std::thread::sleep(Duration::from_millis(5));
        }
        ended.join().unwrap();
    }

    #[test]
    fn what_was_found_is_known_by_its_place() {
        let mut found = Found::default();
        for place in [3, 0, 5000] {
            found.add(place);
        }
        assert_eq!((0..10_000).filter(|place| found.has(*place)).collect::<Vec<_>>(), [0, 3, 5000]);
    }
}
