//! Which commands are to run because of which matches, and which of them are to be undone when.
//!
//! A command runs once for what it is run for, a source or a user name, until it is undone; where it is never undone, or failed,
//! once in [`QUIET`]. Bounds: at most [`STANDING`] wait to be undone, beyond which no further command that is to be undone runs,
//! and as many are remembered as quiet, beyond which the one that was quiet for longest may run again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::change::{Change, CommandRun, Expiry, Undo};
use crate::lru::Lru;
use crate::moment::Moment;
use crate::target::Target;
use crate::time::{Mono, Now};

/// How long a command that is never undone is not run again for the same source or user.
pub(crate) const QUIET: Duration = Duration::from_secs(600);

/// Commands that wait to be undone.
const STANDING: usize = 16_384;

/// How many are asked to be undone at once.
const AT_ONCE: usize = 1024;

/// What a run is for: the command's name on record, and the target unless it is for a user.
type Key = (Arc<str>, Option<Target>);

/// A command that was started, or is about to be, and is to be undone.
#[derive(Debug)]
struct Standing {
    run: CommandRun,
    /// When to undo it; none while one of its runs is under way.
    due: Option<Mono>,
}

/// The owner of what is to be run and undone.
#[derive(Debug)]
pub(crate) struct Runs {
    standing: HashMap<Key, Standing>,
    due: BTreeSet<(Mono, Key)>,
    /// Until when what is never undone is not run again, by the keyed hash of its key.
    quiet: Lru<u64, Moment>,
    hasher: RandomState,
    changes: VecDeque<Change>,
    /// Runs that were not asked for, because too many waited to be undone.
    pub(crate) crowded: u64,
}

impl Runs {
    pub(crate) fn new() -> Runs {
        Runs {
            standing: HashMap::new(),
            due: BTreeSet::new(),
            quiet: Lru::new(STANDING),
            hasher: RandomState::new(),
            changes: VecDeque::new(),
            crowded: 0,
        }
    }

    /// Whether a run with this key would be a repetition of one that stands, or was not long ago.
    pub(crate) fn repeats(&self, key: &Key, now: Moment) -> bool {
        self.standing.contains_key(key)
            || self.quiet.peek(&self.hasher.hash_one(key)).is_some_and(|&until| until > now)
    }

    /// Asks for a run that repeats none.
    pub(crate) fn ask(&mut self, run: CommandRun, now: Moment) {
        let key = key(&run);
        if run.why.expires.is_none() {
            self.quiet.insert(self.hasher.hash_one(&key), now.after(QUIET));
        } else if self.standing.len() >= STANDING {
            self.crowded += 1;
            return;
        } else {
            self.standing.insert(key, Standing { run: run.clone(), due: None });
        }
        self.changes.push_back(Change::Run(Box::new(run)));
    }

    /// Takes the outcome of a run. One that did its work is undone when its time is over. One that failed is not, and is not
    /// run again for a while; undoing is tried again after `again`, where that is given.
    pub(crate) fn ran(&mut self, run: &CommandRun, done: bool, again: Option<Duration>, now: &Now) {
        let key = key(run);
        let Some(standing) = self.standing.get_mut(&key) else { return };
        let due = match (run.undo, again) {
            (None, _) if done => standing.run.why.expires.map(|expires| expires.mono.max(now.mono)),
            (Some(_), Some(again)) => Some(now.mono.after(again)),
            _ => None,
        };
        standing.due = due;
        if run.undo.is_none() && !done {
            // It would fail again with every further attempt.
            self.quiet.insert(self.hasher.hash_one(&key), Moment::now(now).after(QUIET));
        }
        match due {
            Some(due) => drop(self.due.insert((due, key))),
            None => drop(self.standing.remove(&key)),
        }
    }

    /// Takes over what was to be undone when the last controller ended.
    pub(crate) fn restore(&mut self, runs: Vec<CommandRun>, now: &Now) {
        for mut run in runs {
            let key = key(&run);
            if self.standing.contains_key(&key) {
                continue;
            }
            // As with blocks: the clock may have been set back since, which makes nothing last longer.
            let left = run.why.expires.map_or(Duration::ZERO, |expires| {
                expires.wall.since(now.wall).min(expires.wall.since(run.why.created))
            });
            let due = now.mono.after(left);
            run.why.expires = Some(Expiry::after(left, now));
            self.due.insert((due, key.clone()));
            self.standing.insert(key, Standing { run, due: Some(due) });
        }
    }

    /// Has undone what `chosen` says, before its time, for the operator `uid`; returns how many.
    pub(crate) fn undo(&mut self, chosen: impl Fn(&CommandRun) -> bool, uid: u32) -> usize {
        let chosen: Vec<(Mono, Key)> = self
            .standing
            .iter()
            .filter(|(_, standing)| chosen(&standing.run))
            .filter_map(|(key, standing)| Some((standing.due?, key.clone())))
            .collect();
        for (due, key) in &chosen {
            self.due.remove(&(*due, key.clone()));
            self.end(key, Undo::lifted_by(uid));
        }
        chosen.len()
    }

    /// Has undone what is due, a bounded number of it.
    pub(crate) fn handle_timeout(&mut self, now: Mono) {
        for _ in 0..AT_ONCE {
            let Some((due, key)) = self.due.pop_first() else { return };
            if due > now {
                self.due.insert((due, key));
                return;
            }
            // Where undoing is tried again, it is for whom it was tried before.
            let before = self.standing.get(&key).and_then(|standing| standing.run.undo);
            self.end(&key, before.unwrap_or(Undo::EXPIRED));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        self.due.first().map(|(due, _)| *due)
    }

    pub(crate) fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    pub(crate) fn standing(&self) -> impl Iterator<Item = &CommandRun> {
        self.standing.values().map(|standing| &standing.run)
    }

    fn end(&mut self, key: &Key, undo: Undo) {
        let Some(standing) = self.standing.get_mut(key) else { return };
        standing.due = None;
        standing.run.undo = Some(undo);
        self.changes.push_back(Change::Run(Box::new(standing.run.clone())));
    }
}

/// What a run is for.
pub(crate) fn key(run: &CommandRun) -> Key {
    (run.on_record(), (!run.per_user).then_some(run.why.target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Block, Origin};
    use crate::measure::Measure;
    use crate::time::Wall;

    const MINUTE: Duration = Duration::from_secs(60);

    fn now(seconds: u64) -> Now {
        let wall = Wall(1_000_000_000).after(Duration::from_secs(seconds));
        Now { mono: Mono(0).after(Duration::from_secs(seconds)), wall, utc_offset: 0 }
    }

    fn run(name: &str, source: &str, timeout: Option<Duration>, now: &Now) -> CommandRun {
        let source: std::net::IpAddr = source.parse().unwrap();
        CommandRun {
            command: name.into(),
            per_user: false,
            user: Some("root".into()),
            source,
            why: Block {
                target: Target::exact(source),
                created: now.wall,
                expires: timeout.map(|timeout| Expiry::after(timeout, now)),
                measure: Measure::default(),
                rule: None,
                reason: "".into(),
                origin: Origin::Rule,
                offences: 1,
                attempts: 1,
                users: Vec::new(),
                evidence: Vec::new(),
            },
            undo: None,
        }
    }

    fn asked(runs: &mut Runs) -> Vec<(String, Option<Undo>)> {
        std::iter::from_fn(|| runs.next_change())
            .map(|change| match change {
                Change::Run(run) => (format!("{} {}", run.on_record(), run.source), run.undo),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_was_started_is_undone_once_its_time_is_over_and_can_run_again() {
        let mut runs = Runs::new();
        let add = run("x", "192.0.2.1", Some(MINUTE), &now(0));
        assert!(!runs.repeats(&key(&add), Moment::now(&now(0))));
        runs.ask(add.clone(), Moment::now(&now(0)));
        assert!(runs.repeats(&key(&add), Moment::now(&now(1))));
        assert!(!runs.repeats(&key(&run("x", "192.0.2.2", None, &now(1))), Moment::now(&now(1))));
        assert_eq!(runs.poll_timeout(), None, "it is not undone before it ran");
        runs.ran(&add, true, None, &now(2));
        assert_eq!(runs.poll_timeout(), Some(now(60).mono));
        runs.handle_timeout(now(59).mono);
        assert_eq!(asked(&mut runs), [("x 192.0.2.1".to_owned(), None)]);
        runs.handle_timeout(now(60).mono);
        assert_eq!(asked(&mut runs), [("x 192.0.2.1".to_owned(), Some(Undo::EXPIRED))]);
        assert!(runs.repeats(&key(&add), Moment::now(&now(60))), "it is being undone");
        runs.ran(&CommandRun { undo: Some(Undo::EXPIRED), ..add.clone() }, true, None, &now(61));
        assert!(!runs.repeats(&key(&add), Moment::now(&now(61))));
    }

    #[test]
    fn what_failed_is_not_undone_and_not_repeated_at_once() {
        let mut runs = Runs::new();
        let add = run("x", "192.0.2.1", Some(MINUTE), &now(0));
        runs.ask(add.clone(), Moment::now(&now(0)));
        runs.ran(&add, false, None, &now(0));
        assert_eq!((runs.poll_timeout(), runs.standing().count()), (None, 0));
        assert!(runs.repeats(&key(&add), Moment::now(&now(599))));
        assert!(!runs.repeats(&key(&add), Moment::now(&now(600))));
    }

    #[test]
    fn what_is_never_undone_is_quiet_for_a_while() {
        let mut runs = Runs::new();
        let add = run("x", "192.0.2.1", None, &now(0));
        runs.ask(add.clone(), Moment::now(&now(0)));
        assert!(runs.repeats(&key(&add), Moment::now(&now(599))));
        assert!(!runs.repeats(&key(&add), Moment::now(&now(600))));
    }

    #[test]
    fn by_hand_and_again_where_undoing_failed() {
        let mut runs = Runs::new();
        let add = CommandRun { per_user: true, ..run("lock", "192.0.2.1", Some(MINUTE), &now(0)) };
        runs.ask(add.clone(), Moment::now(&now(0)));
        let other_source = CommandRun { per_user: true, ..run("lock", "192.0.2.9", None, &now(0)) };
        assert!(runs.repeats(&key(&other_source), Moment::now(&now(0))), "one run for a user");
        runs.ran(&add, true, None, &now(1));
        asked(&mut runs);
        assert_eq!(runs.undo(|run| run.user.as_deref() == Some("bob"), 1000), 0);
        assert_eq!(runs.undo(|run| run.user.as_deref() == Some("root"), 1000), 1);
        assert_eq!(runs.undo(|_| true, 0), 0, "it is under way");
        let undo = CommandRun { undo: Some(Undo::lifted_by(1000)), ..add };
        assert_eq!(asked(&mut runs), [("lock root 192.0.2.1".to_owned(), undo.undo)]);
        runs.ran(&undo, false, Some(MINUTE), &now(10));
        assert_eq!(runs.poll_timeout(), Some(now(70).mono));
        runs.handle_timeout(now(70).mono);
        assert_eq!(
            asked(&mut runs),
            [("lock root 192.0.2.1".to_owned(), undo.undo)],
            "for the same operator"
        );
    }

    #[test]
    fn a_restart_and_a_clock_set_back_make_nothing_last_longer() {
        let mut runs = Runs::new();
        let over = run("x", "192.0.2.1", Some(MINUTE), &now(0));
        let due = run("x", "192.0.2.2", Some(MINUTE), &now(70));
        let back = run("x", "192.0.2.3", Some(MINUTE), &now(9000));
        runs.restore(vec![over, due, back], &now(100));
        assert_eq!(runs.poll_timeout(), Some(now(100).mono));
        runs.handle_timeout(now(130).mono);
        assert_eq!(asked(&mut runs).len(), 2);
        assert_eq!(runs.poll_timeout(), Some(now(160).mono));
    }

    #[test]
    fn what_falls_due_at_once_is_undone_bit_by_bit() {
        let mut runs = Runs::new();
        let due = |n: usize| {
            let address = std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap());
            run("x", &address.to_string(), Some(MINUTE), &now(0))
        };
        runs.restore((0..AT_ONCE + 5).map(due).collect(), &now(100));
        runs.restore(vec![run("y", "192.0.2.1", Some(MINUTE), &now(100))], &now(100));
        for asked_for in [AT_ONCE, 5, 0] {
            runs.handle_timeout(now(100).mono);
            assert_eq!(asked(&mut runs).len(), asked_for);
        }
        assert_eq!(runs.poll_timeout(), Some(now(160).mono));
    }

    #[test]
    fn the_number_has_an_end() {
        let mut runs = Runs::new();
        for n in (0u32..).take(STANDING + 5) {
            let address = std::net::Ipv4Addr::from_bits(n).to_string();
            runs.ask(run("x", &address, Some(MINUTE), &now(0)), Moment::now(&now(0)));
            runs.next_change();
        }
        assert_eq!((runs.standing().count(), runs.crowded), (STANDING, 5));
    }
}
