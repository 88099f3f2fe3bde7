//! Which commands a match has run.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use crate::attempts::Tally;
use crate::change::{Block, CommandRun, Expiry, Origin};
use crate::enforce::Evidence;
use crate::moment::Moment;
use crate::policy::CommandResponse;
use crate::rules::RuleRef;
use crate::runs::{self, QUIET};
use crate::sources::SourceId;
use crate::target::Target;
use crate::time::Now;

/// The longest user name that a command is run for, in bytes; useradd(8) makes none longer than 32.
const MAX_USER: usize = 256;

/// A match that commands may answer.
pub(super) struct Found<'a> {
    pub(super) source: IpAddr,
    pub(super) user: Option<&'a [u8]>,
    pub(super) at: Moment,
    pub(super) attempts: u32,
    pub(super) rule: &'a RuleRef,
    pub(super) origin: Origin,
}

impl Engine {
    /// Takes the outcome of a run: whether the command did its work. Where undoing failed and is worth another try, `again`
    /// says after how long.
    pub fn ran(&mut self, run: &CommandRun, done: bool, again: Option<Duration>, now: Now) {
        self.runs.ran(run, done, again, &now);
    }

    /// Takes over the commands that were to be undone when the last controller ended. Those whose time is over are undone
    /// at once.
    pub fn restore_runs(&mut self, runs: Vec<CommandRun>, now: Now) {
        self.runs.restore(runs, &now);
    }

    /// Has undone, before its time, what `chosen` says, for the operator with this user id; returns how many runs that takes.
    pub fn undo(&mut self, chosen: impl Fn(&CommandRun) -> bool, uid: u32) -> usize {
        self.runs.undo(chosen, uid)
    }

    /// What is to be undone yet.
    pub fn standing_runs(&self) -> impl Iterator<Item = &CommandRun> {
        self.runs.standing()
    }

    /// Has the commands run that answer what a line fired, each for the most specific rule that it answers.
    pub(super) fn run_commands(&mut self, tally: &Tally, user: Option<&[u8]>, at: Moment, now: &Now) {
        if tally.weight == 0 || self.past {
            return;
        }
        let mut asked: Vec<usize> = Vec::new();
        for index in (0..self.fired.len()).rev() {
            let Some(&(place, attempts)) = self.fired.get(index) else { continue };
            let Some(plan) = self.plans.get(place).filter(|plan| !plan.commands.is_empty()) else { continue };
            let rule = plan.reference.clone();
            for command in plan.commands.clone() {
                if asked.contains(&command) {
                    continue;
                }
                asked.push(command);
                let found =
                    Found { source: tally.source, user, at, attempts, rule: &rule, origin: Origin::Rule };
                self.run_command(command, &found, now);
            }
        }
    }

    /// Has the command at `place` of the policy run because of `found`, unless that would repeat a run, or the source is
    /// one that it must not be run for.
    pub(super) fn run_command(&mut self, place: usize, found: &Found<'_>, now: &Now) {
        let Some(response) = self.policy.commands.get(place) else { return };
        let CommandResponse { when, command, per_user, guarded } = response;
        if !when.concerns(found.source, found.user) {
            return;
        }
        let user = found.user.filter(|user| !user.is_empty());
        if *per_user && user.is_none_or(|user| user.len() > MAX_USER) {
            return;
        }
        let exact = Target::exact(found.source);
        if *guarded && self.enforcer.protection(&exact, now).is_some() {
            return;
        }
        // What a line of long ago would have led to is over.
        let age = Moment::now(now).since(found.at);
        if age > when.timeout.unwrap_or(QUIET).min(QUIET) {
            return;
        }
        let id = SourceId::of(found.source, self.policy.ipv6_prefix);
        let target = match found.source {
            IpAddr::V4(_) => exact,
            IpAddr::V6(_) => Target::prefix(found.source, self.policy.ipv6_prefix),
        };
        let evidence = Evidence { users: self.sources.users(id), lines: self.sources.evidence(id) };
        let run = CommandRun {
            command: Arc::clone(command),
            per_user: *per_user,
            user: user.map(|user| String::from_utf8_lossy(user.get(..MAX_USER).unwrap_or(user)).into()),
            source: found.source,
            why: Block {
                target,
                created: now.wall,
                expires: when.timeout.map(|timeout| Expiry::after(timeout, now)),
                measure: when.measure,
                rule: Some(found.rule.clone()),
                reason: Arc::clone(&found.rule.description),
                origin: found.origin,
                offences: 1,
                attempts: found.attempts,
                users: evidence.users,
                evidence: evidence.lines,
            },
            undo: None,
        };
        if !self.runs.repeats(&runs::key(&run), Moment::now(now)) {
            self.runs.ask(run, Moment::now(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, Undo};
    use crate::engine::tests::{Lab, policy};
    use crate::policy::{Policy, Response};
    use crate::rules::RuleId;

    const MINUTE: Duration = Duration::from_secs(60);

    fn command(name: &str, rules: &[u32], timeout: Option<Duration>) -> CommandResponse {
        let when =
            Response { rules: rules.iter().copied().map(RuleId).collect(), timeout, ..Response::default() };
        CommandResponse { when, command: name.into(), per_user: false, guarded: true }
    }

    fn lab(commands: Vec<CommandResponse>) -> Lab {
        Lab::new(Policy { commands, allow: vec!["192.0.2.0/24".parse().unwrap()], ..policy() })
    }

    /// Hands the engine a line of sshd's; returns what it has done, in order.
    fn told(lab: &mut Lab, source: &str) -> Vec<String> {
        let message = format!("Invalid user admin from {source} port 4022");
        let record = crate::record::Record {
            time: None,
            host: b"",
            program: b"sshd",
            pid: Some(1),
            message: message.as_bytes(),
        };
        lab.engine.handle(&record, message.as_bytes(), lab.now);
        drain(lab)
    }

    fn drain(lab: &mut Lab) -> Vec<String> {
        let changes: Vec<Change> = std::iter::from_fn(|| lab.engine.next_change()).collect();
        changes
            .into_iter()
            .map(|change| match change {
                Change::Block(block) | Change::Resume(block) => format!("block {}", block.target),
                Change::Rest { block, .. } => format!("rest {}", block.target),
                Change::Unblock { block, .. } => format!("unblock {}", block.target),
                Change::Refused(refused) => format!("refuse {}", refused.block.target),
                Change::Run(run) => {
                    let what = if run.undo.is_some() { "undo" } else { "run" };
                    lab.engine.ran(&run, true, None, lab.now);
                    format!("{what} {} {:?} {:?}", run.on_record(), run.user, run.why.rule.map(|r| r.id.0))
                }
            })
            .collect()
    }

    #[test]
    fn every_command_that_fits_runs_after_the_block_and_once() {
        let mut lab = lab(vec![
            command("a", &[5710], Some(MINUTE)),
            command("b", &[5710], None),
            command("c", &[5712], None),
        ]);
        let user = "Some(\"admin\") Some(5710)";
        let expected = ["block 203.0.113.7".to_owned(), format!("run a {user}"), format!("run b {user}")];
        assert_eq!(told(&mut lab, "203.0.113.7"), expected);
        lab.pass(MINUTE / 2);
        assert_eq!(
            told(&mut lab, "203.0.113.7"),
            ["block 203.0.113.7"],
            "the block is extended, and no run repeated"
        );
        lab.pass(MINUTE / 2);
        lab.engine.handle_timeout(lab.now);
        assert_eq!(drain(&mut lab), [format!("undo a {user}")]);
    }

    #[test]
    fn nothing_is_run_for_what_is_never_blocked_unless_asked_for() {
        let free = CommandResponse { guarded: false, ..command("told", &[5710], None) };
        let mut lab = lab(vec![command("guarded", &[5710], None), free]);
        let told = told(&mut lab, "192.0.2.9");
        assert_eq!(told, ["refuse 192.0.2.9", "run told Some(\"admin\") Some(5710)"]);
    }

    #[test]
    fn matches_of_other_systems_and_commands_without_a_block() {
        let mut lab = lab(vec![command("a", &[31_151], Some(MINUTE))]);
        let found = crate::ForeignMatch {
            id: RuleId(31_151),
            level: 10,
            groups: &[],
            description: "",
            source: "203.0.113.7".parse().unwrap(),
            user: None,
            attempts: 3,
            time: None,
            origin: Origin::Wazuh,
        };
        assert_eq!(lab.engine.handle_match(&found, b"", lab.now), None);
        assert_eq!(drain(&mut lab), ["run a None Some(31151)"]);
        assert_eq!(lab.engine.undo(|_| true, 1000), 1);
        let Some(Change::Run(run)) = lab.engine.next_change() else { panic!() };
        assert_eq!((run.undo, run.why.attempts), (Some(Undo::lifted_by(1000)), 3));
    }
}
