//! Matches of rules that are not ours: another system has decided what a line means, and what follows is the same as for a
//! rule of our own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::commands::Found;
use crate::change::Origin;
use crate::enforce::{Decision, Evidence, Offence};
use crate::moment::Moment;
use crate::policy::Response;
use crate::rules::{RuleId, RuleRef};
use crate::sources::SourceId;
use crate::time::{Now, Wall};

/// How much later than the attempt itself another system may date its match: lines wait to be sent and analysed. Within
/// it a match is taken to be about what a block has answered already.
pub(super) const LAG: Duration = Duration::from_secs(10);

/// A match that another system made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignMatch<'a> {
    /// The number of its rule there.
    pub id: RuleId,
    /// The severity. A match of level 0 never leads to a response.
    pub level: u8,
    /// The groups of the rule.
    pub groups: &'a [String],
    /// What it found, for a person.
    pub description: &'a str,
    /// Whose doing it was.
    pub source: IpAddr,
    /// The user name that was tried.
    pub user: Option<&'a [u8]>,
    /// How many attempts it tells of, at least 1.
    pub attempts: u32,
    /// When it was made; none: now.
    pub time: Option<Wall>,
    /// Which system made it.
    pub origin: Origin,
}

impl Engine {
    /// Responds to a match of another system as to that of a rule of our own: by id, groups and level, with the same
    /// protections. `line` is what is shown of it as evidence. None where no response fits.
    pub fn handle_match(&mut self, found: &ForeignMatch<'_>, line: &[u8], now: Now) -> Option<Decision> {
        self.counts.lines += 1;
        self.counts.events += 1;
        let source = found.source.to_canonical();
        let fits = |response: &Response| {
            response.fits_match(found.id, found.level, found.groups) && response.concerns(source, found.user)
        };
        let response = self.policy.responses.iter().find(|response| fits(response));
        let commands = self.policy.commands.iter().enumerate();
        let commands: Vec<usize> =
            commands.filter(|(_, run)| fits(&run.when)).map(|(place, _)| place).collect();
        if response.is_none() && commands.is_empty() {
            return None;
        }
        self.counts.attacks += 1;
        self.counts.attempts += u64::from(found.attempts);
        let at = Moment::of_line(found.time, &now);
        let id = SourceId::of(source, self.policy.ipv6_prefix);
        self.sources.note(id, found.user, line);
        let rule = RuleRef { id: found.id, level: found.level, description: Arc::from(found.description) };
        let answer = Found {
            source,
            user: found.user,
            at,
            attempts: found.attempts,
            rule: &rule,
            origin: found.origin,
        };
        let decision = response.cloned().map(|response| self.answer(&answer, &response, now));
        for command in commands {
            self.run_command(command, &answer, &now);
        }
        decision
    }

    fn answer(&mut self, found: &Found<'_>, response: &Response, now: Now) -> Decision {
        let &Found { source, at, rule, .. } = found;
        let id = SourceId::of(source, self.policy.ipv6_prefix);
        let offence = Offence {
            source,
            at,
            began: at.before(LAG),
            attempts: found.attempts,
            rule: Some(rule),
            reason: &rule.description,
            response,
            origin: found.origin,
        };
        let sources = &self.sources;
        let evidence = || Evidence { users: sources.users(id), lines: sources.evidence(id) };
        self.enforcer.respond(&offence, evidence, &now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Block, Change, Protector, Refusal};
    use crate::engine::tests::{Lab, policy};

    const SECOND: Duration = Duration::from_secs(1);

    fn lab(responses: Vec<Response>) -> Lab {
        Lab::new(crate::policy::Policy {
            responses,
            allow: vec!["192.0.2.0/24".parse().unwrap()],
            ..policy()
        })
    }

    fn response(rules: &[u32], groups: &[&str], level: Option<u8>) -> Response {
        Response {
            rules: rules.iter().copied().map(RuleId).collect(),
            groups: groups.iter().map(|&group| group.into()).collect(),
            level,
            timeout: Some(100 * SECOND),
            ..Response::default()
        }
    }

    fn block(changes: &[Change]) -> &Block {
        match changes {
            [Change::Block(block)] => block,
            other => panic!("expected one block, found {other:#?}"),
        }
    }

    fn found<'a>(groups: &'a [String], source: &str) -> ForeignMatch<'a> {
        ForeignMatch {
            id: RuleId(31_151),
            level: 10,
            groups,
            description: "many errors of a web server",
            source: source.parse().unwrap(),
            user: Some(b"admin"),
            attempts: 14,
            time: None,
            origin: Origin::Wazuh,
        }
    }

    #[test]
    fn a_foreign_match_is_answered_by_id_group_or_level() {
        let groups = ["web".to_owned(), "accesslog".to_owned()];
        for (responses, answered) in [
            (vec![response(&[31_151], &[], None)], true),
            (vec![response(&[], &["accesslog"], None)], true),
            (vec![response(&[], &[], Some(10))], true),
            (vec![response(&[5710], &["sshd"], None), response(&[], &["web"], Some(11))], false),
        ] {
            let mut lab = lab(responses);
            let decision = lab.engine.handle_match(&found(&groups, "::ffff:203.0.113.7"), b"GET /", lab.now);
            let target = "203.0.113.7".parse().unwrap();
            let expected = answered.then_some(Decision::Block { target, timeout: Some(100 * SECOND) });
            assert_eq!(decision, expected);
            let changes = lab.changes();
            if answered {
                let block = block(&changes);
                assert_eq!((block.origin, block.attempts), (Origin::Wazuh, 14));
                assert_eq!(block.rule.as_ref().map(|rule| (rule.id, rule.level)), Some((RuleId(31_151), 10)));
                assert_eq!((&*block.users[0], &*block.evidence[0]), ("admin", "GET /"));
            }
        }
    }

    #[test]
    fn level_zero_is_never_answered_and_the_protected_never_blocked() {
        let mut lab = lab(vec![response(&[31_151], &[], None)]);
        let harmless = ForeignMatch { level: 0, ..found(&[], "203.0.113.7") };
        assert_eq!(lab.engine.handle_match(&harmless, b"", lab.now), None);
        for source in ["192.0.2.9", "127.0.0.1", "::1"] {
            let decision = lab.engine.handle_match(&found(&[], source), b"", lab.now);
            let Some(Decision::Refused { because: Refusal::Protected(protection), .. }) = decision else {
                panic!("{source}: {decision:?}");
            };
            assert!(matches!(protection.by, Protector::Allowed | Protector::Special(_)));
        }
    }

    #[test]
    fn what_is_told_of_late_is_no_further_offence() {
        let mut lab = lab(vec![response(&[31_151], &[], None)]);
        lab.engine.handle_match(&found(&[], "203.0.113.7"), b"", lab.now);
        lab.changes();
        lab.pass(5 * SECOND);
        lab.engine.handle_match(&found(&[], "203.0.113.7"), b"", lab.now);
        assert_eq!(block(&lab.changes()).offences, 1);
        lab.pass(20 * SECOND);
        lab.engine.handle_match(&found(&[], "203.0.113.7"), b"", lab.now);
        assert_eq!(block(&lab.changes()).offences, 2, "it got past the block");
        let old = ForeignMatch { time: Some(lab.now.wall.before(200 * SECOND)), ..found(&[], "203.0.113.9") };
        assert!(matches!(lab.engine.handle_match(&old, b"", lab.now), Some(Decision::Late { .. })));
    }
}
