//! Commands that answer matches: handed to their thread, and their outcomes taken back.

use std::time::Duration;

use xdpban_engine::change::{Change, CommandRun};
use xdpban_engine::time::Now;

use super::Daemon;
use super::carry_out::Cause;
use crate::clock;
use crate::config::LOCK_ACCOUNT;
use crate::control::wire;
use crate::lockout;
use crate::run::{self, Outcome};
use crate::store::{Act, Ran, Standing, Write};

/// After how long an account that could not be unlocked is tried again.
const UNLOCK_AGAIN: Duration = Duration::from_secs(60);

/// The longest name of an account that goes on record, in characters; useradd(8) makes none longer than 32.
const MAX_USER: usize = 64;

impl Daemon {
    pub(super) fn order_commands(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::Run(run) = change else { continue };
            if !self.enforcing() && run.undo.is_none() {
                log::info!("dry run: would run {} for {}", run.on_record(), run.source);
                self.engine.ran(run, false, None, clock::now());
                continue;
            }
            if let Err(ran) = self.runner.submit(run) {
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
    pub(super) fn locked_accounts(&self) -> Vec<String> {
        let locked = self.engine.standing_runs().filter(|run| run.per_user);
        let mut names: Vec<String> =
            locked.filter_map(|run| run.user.as_deref().map(str::to_owned)).collect();
        names.sort();
        names
    }

    fn ran(&mut self, run: Option<&CommandRun>, ran: Ran) {
        let failure = ran.exit.failure();
        let what = match run.and_then(|run| run.undo) {
            None => "ran",
            Some(_) => "ran to undo",
        };
        let whom = run.map(|run| format!(" for {}", run.source)).unwrap_or_default();
        match &failure {
            None => log::info!("{what} {}{whom} in {:.1} s", ran.command, ran.took.as_secs_f64()),
            Some(failure) => {
                let said = ran.output.lines().next().unwrap_or_default();
                let stands = if ran.stands { "; what it may have done is to be undone yet" } else { "" };
                log::warn!("{what} {}{whom}: {failure}: {said}{stands}", ran.command);
            }
        }
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
