//! Commands that answer matches: handed to their thread, and their outcomes taken back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use xdpban_engine::change::{Change, CommandRun};
use xdpban_engine::time::Now;

use super::Daemon;
use super::carry_out::Cause;
use crate::clock;
use crate::config::{Command, LOCK_ACCOUNT};
use crate::control::wire;
use crate::human;
use crate::lockout;
use crate::run::{self, Outcome};
use crate::store::{Act, Exit, Ran, Standing, Write};

/// After how long an account that could not be unlocked is tried again.
const UNLOCK_AGAIN: Duration = Duration::from_secs(60);

/// The longest name of an account that goes on record, in characters; useradd(8) makes none longer than 32.
const MAX_USER: usize = 64;

/// What `status` tells of commands.
#[derive(Debug, Default)]
pub(super) struct CommandTroubles {
    /// Those that failed when they last ran, and how.
    failed: BTreeMap<Arc<str>, String>,
    /// How many did not undo what they had done.
    not_undone: u64,
}

impl CommandTroubles {
    pub(super) fn told(&self) -> impl Iterator<Item = String> {
        let not_undone = (self.not_undone > 0).then(|| {
            format!(
                "{} failed to be undone since the start and stands; `xdpban incidents --outcome failed` tells what",
                human::counted(self.not_undone, "command")
            )
        });
        self.failed.values().cloned().chain(not_undone)
    }

    /// Forgets those that the configuration has no longer.
    pub(super) fn keep(&mut self, commands: &[Command]) {
        self.failed.retain(|name, _| commands.iter().any(|command| command.name == *name));
    }

    fn note(&mut self, run: Option<&CommandRun>, ran: &Ran, failure: Option<&str>) {
        let Some(failure) = failure else {
            if run.is_none_or(|run| run.undo.is_none()) {
                self.failed.remove(&ran.command);
            }
            return;
        };
        match run {
            // Accounts that are left alone are no trouble, and an unlocking that failed is tried again.
            Some(run) if run.per_user => {}
            Some(CommandRun { undo: Some(_), .. }) => self.not_undone += 1,
            _ => {
                let said = ran.last_words().map(|said| format!(": {said}")).unwrap_or_default();
                let trouble = format!("the latest run of `{}` failed: {failure}{said}", ran.command);
                self.failed.insert(Arc::clone(&ran.command), trouble);
            }
        }
    }
}

impl Daemon {
    pub(super) fn order_commands(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::Run(run) = change else { continue };
            if !self.enforcing() && run.undo.is_none() {
                log::info!("dry run: would run {} for {}", run.on_record(), run.source);
                self.engine.ran(run, false, None, clock::now());
                continue;
            }
            let blocked = match self.engine.check(run.source, clock::now()) {
                xdpban_engine::Standing::Blocked(block) => Some(block.into()),
                xdpban_engine::Standing::Protected(_) | xdpban_engine::Standing::Open => None,
            };
            if let Err(ran) = self.runner.submit(run, blocked) {
                self.ran(Some(run), *ran);
            }
        }
    }

    /// Takes the outcome of a command.
    pub(super) fn command_ended(&mut self, outcome: Outcome) {
        self.ran(outcome.run.as_ref(), outcome.ran);
    }

    /// Ends the commands, and hears what became of those that ran or waited.
    pub(super) async fn end_commands(&mut self) {
        self.runner.close();
        while let Some(outcome) = self.outcomes.recv().await {
            self.command_ended(outcome);
        }
        self.runner.stop();
    }

    /// Has an account unlocked before its time.
    pub(super) fn unlock(&mut self, user: &str, uid: u32) -> wire::Done {
        let locked = |run: &CommandRun| run.per_user && run.user.as_deref() == Some(user);
        let mut done = wire::Done { done: self.engine.undo(locked, uid), ..wire::Done::default() };
        if done.done == 0 {
            let reason =
                format!("{user:?} is not locked by xdpban, or is being locked or unlocked right now");
            done.refused.push(wire::Refusal { target: user.to_owned(), reason });
        } else {
            log::info!("uid {uid} has {user:?} unlocked");
        }
        let name = user.chars().take(MAX_USER).collect();
        self.act(Some(uid), Act::Unlock { user: name, done: done.done > 0 });
        self.carry_out(Cause::Other);
        done
    }

    /// The accounts that are locked at present.
    pub(super) fn locks(&self) -> Vec<wire::Lock> {
        let locked = self.engine.standing_runs().filter(|run| run.per_user);
        let lock = |run: &CommandRun| {
            let until = run.why.expires.map(|expires| clock::rfc3339(expires.wall));
            Some(wire::Lock { user: run.user.as_deref()?.to_owned(), until })
        };
        let mut locks: Vec<wire::Lock> = locked.filter_map(lock).collect();
        locks.sort_by(|a, b| a.user.cmp(&b.user));
        locks
    }

    fn ran(&mut self, run: Option<&CommandRun>, ran: Ran) {
        let failure = ran.exit.failure();
        let what = match run.and_then(|run| run.undo) {
            None => "ran",
            Some(_) => "ran to undo",
        };
        let whom = run.map(|run| format!(" for {}", run.source)).unwrap_or_default();
        let said = ran.last_words().map(|said| format!(": {said}")).unwrap_or_default();
        match &failure {
            None => log::info!("{what} {}{whom} in {:.1} s", ran.command, ran.took.as_secs_f64()),
            Some(_) if ran.exit == Exit::Declined => log::info!("{what} {}{whom}{said}", ran.command),
            Some(failure) => {
                let stands = if ran.stands { "; what it may have done is to be undone yet" } else { "" };
                log::warn!("{what} {}{whom}: {failure}{said}{stands}", ran.command);
            }
        }
        self.command_troubles.note(run, &ran, failure.as_deref());
        if let Some(run) = run {
            let unlocks = run.undo.is_some() && run.command.as_ref() == LOCK_ACCOUNT;
            let again = (unlocks && failure.is_some()).then_some(UNLOCK_AGAIN);
            self.engine.ran(run, failure.is_none() || ran.stands, again, clock::now());
            if again.is_some() {
                // It stands until it is undone.
                return;
            }
        }
        self.writes.push(Write::Ran(Box::new(ran)));
    }
}

/// What is to be undone since the last controller: by the store, and by the notes of locked accounts, which are made before
/// an account is touched and so outlive a crash in between, and the loss of the store.
pub(super) fn standing(stored: Vec<Standing>, state: &std::path::Path, now: &Now) -> Vec<CommandRun> {
    let mut runs: Vec<CommandRun> =
        stored.into_iter().map(|standing| run::restored(standing, |name| name == LOCK_ACCOUNT)).collect();
    for note in lockout::notes(state) {
        let known = |run: &CommandRun| run.per_user && run.user.as_deref() == Some(&*note.user);
        if !runs.iter().any(known) {
            runs.push(note.into_run(now));
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_tells_the_last_words_of_a_command_that_failed() {
        let ran = Ran {
            command: "tell".into(),
            why: None,
            step: crate::store::Step::Add,
            exit: Exit::Status(1),
            stands: false,
            output: "connecting\nno route to host\n\n".into(),
            input: "{}".into(),
            at: clock::now().wall,
            took: Duration::ZERO,
        };
        let mut troubles = CommandTroubles::default();
        troubles.note(None, &ran, Some("it failed"));
        let told: Vec<String> = troubles.told().collect();
        assert_eq!(told, ["the latest run of `tell` failed: it failed: no route to host"]);
    }
}
