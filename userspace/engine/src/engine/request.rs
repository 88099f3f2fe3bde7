//! Blocks that another system asks for, and lifts again when it sees fit: it decides and keeps the time, and what must not be
//! blocked, what is on record and the longest time are ours.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::foreign::LAG;
use crate::change::Origin;
use crate::enforce::{Decision, Evidence, Offence, Standing};
use crate::moment::Moment;
use crate::policy::Response;
use crate::rules::RuleRef;
use crate::sources::SourceId;
use crate::target::Target;
use crate::time::Now;

/// A block that another system asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignRequest<'a> {
    /// Whom to block.
    pub source: IpAddr,
    /// For how long.
    pub lasts: Lasts,
    /// The rule of that system that matched, where it names one.
    pub rule: Option<RuleRef>,
    /// Why, in words.
    pub reason: Arc<str>,
    /// The user name that was tried.
    pub user: Option<&'a [u8]>,
    /// Which system asks.
    pub origin: Origin,
}

/// How long a block lasts that another system asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// So long, unless it is lifted before.
    For(Duration),
    /// Until it is lifted; and for no longer than this, since who was to lift it may be gone by then.
    UntilLifted {
        /// The bound.
        at_most: Duration,
    },
}

impl Lasts {
    fn longest(self) -> Duration {
        match self {
            Lasts::For(timeout) | Lasts::UntilLifted { at_most: timeout } => timeout,
        }
    }
}

impl Engine {
    /// Blocks what another system asks for, whatever the responses say, with the same protections as for a match. `line` is
    /// what is shown as evidence.
    ///
    /// A block of all packets that somebody else asked for gives way only to one that is sure to last longer: were it replaced
    /// by one of unknown length, its own time would be forgotten when that one is lifted. Weaker ones rest meanwhile.
    pub fn block_for(&mut self, request: &ForeignRequest<'_>, line: &[u8], now: Now) -> Decision {
        self.handle_timeout(now);
        if let (Lasts::UntilLifted { .. }, Standing::Blocked(block)) =
            (request.lasts, self.check(request.source, now))
            && block.origin != request.origin
            && block.measure.stops_everything()
        {
            return Decision::Standing { target: block.target };
        }
        let source = request.source.to_canonical();
        let id = SourceId::of(source, self.policy.ipv6_prefix);
        self.sources.note(id, request.user, line);
        let at = Moment::now(&now);
        let offence = Offence {
            source,
            at,
            began: at.before(LAG),
            attempts: 1,
            rule: request.rule.as_ref(),
            reason: &request.reason,
            response: &Response::block_for(request.lasts.longest()),
            origin: request.origin,
        };
        let sources = &self.sources;
        let evidence = || Evidence { users: sources.users(id), lines: sources.evidence(id) };
        self.enforcer.respond(&offence, evidence, &now)
    }

    /// As [`Engine::block_for`], where a block that the same system asked for stands and is to last longer. None where none
    /// does.
    pub fn renew_for(&mut self, request: &ForeignRequest<'_>, line: &[u8], now: Now) -> Option<Decision> {
        self.handle_timeout(now);
        match self.check(request.source, now) {
            Standing::Blocked(block) if block.origin == request.origin => {
                Some(self.block_for(request, line, now))
            }
            _ => None,
        }
    }

    /// Lifts the block of `source` that the system `origin` asked for, and returns its target. Blocks that others asked for
    /// stay.
    pub fn lift_for(&mut self, source: IpAddr, origin: Origin, why: Arc<str>, now: Now) -> Option<Target> {
        self.enforcer.lift(source.to_canonical(), origin, why, &now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, End, Refusal};
    use crate::enforce::BlockRequest;
    use crate::engine::tests::{Lab, policy};
    use crate::measure::{Measure, Scope};
    use crate::policy::Policy;
    use crate::rules::RuleId;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);
    const A: &str = "203.0.113.7";

    fn lab() -> Lab {
        // No response of ours would answer.
        Lab::new(Policy { responses: Vec::new(), allow: vec!["192.0.2.0/24".parse().unwrap()], ..policy() })
    }

    fn request(source: &str, lasts: Lasts) -> ForeignRequest<'static> {
        ForeignRequest {
            source: source.parse().unwrap(),
            lasts,
            rule: Some(RuleRef { id: RuleId(31_151), level: 10, description: "errors".into() }),
            reason: "errors".into(),
            user: Some(b"admin"),
            origin: Origin::Wazuh,
        }
    }

    const OPEN: Lasts = Lasts::UntilLifted { at_most: DAY };

    #[test]
    fn it_is_blocked_until_it_is_lifted_and_no_longer_than_the_bound() {
        let mut lab = lab();
        let target = A.parse().unwrap();
        let decision = lab.engine.block_for(&request("::ffff:203.0.113.7", OPEN), b"a line", lab.now);
        assert_eq!(decision, Decision::Block { target, timeout: Some(DAY) });
        let changes = lab.changes();
        let [Change::Block(block)] = &*changes else { panic!("{changes:#?}") };
        assert_eq!((block.origin, &*block.reason, &*block.users[0]), (Origin::Wazuh, "errors", "admin"));
        assert_eq!(&*block.evidence[0], "a line");

        lab.pass(100 * SECOND);
        let source = A.parse().unwrap();
        assert_eq!(lab.engine.lift_for(source, Origin::Operator, "x".into(), lab.now), None);
        assert_eq!(lab.engine.lift_for(source, Origin::Wazuh, "over".into(), lab.now), Some(target));
        let changes = lab.changes();
        let [Change::Unblock { end: End::Withdrawn, detail, .. }] = &*changes else { panic!("{changes:#?}") };
        assert_eq!(detail.as_deref(), Some("over"));
        assert_eq!(lab.engine.lift_for(source, Origin::Wazuh, "over".into(), lab.now), None);
        let offences = lab.engine.offenders(lab.now).map(|(_, offender)| offender.offences);
        assert_eq!(offences.collect::<Vec<_>>(), [1], "it was no mistake");

        lab.engine.block_for(&request(A, OPEN), b"", lab.now);
        lab.changes();
        lab.pass(DAY + SECOND);
        lab.engine.handle_timeout(lab.now);
        assert!(matches!(&*lab.changes(), [Change::Unblock { end: End::Expired, .. }]));
    }

    #[test]
    fn the_protected_are_never_blocked() {
        let mut lab = lab();
        for source in ["192.0.2.9", "127.0.0.1", "::1", "fe80::1"] {
            let decision = lab.engine.block_for(&request(source, OPEN), b"", lab.now);
            assert!(
                matches!(decision, Decision::Refused { because: Refusal::Protected(_), .. }),
                "{source}: {decision:?}"
            );
            assert!(matches!(&*lab.changes(), [Change::Refused(_)]), "{source}");
        }
    }

    #[test]
    fn what_others_asked_for_is_neither_shortened_nor_lifted() {
        let mut lab = lab();
        let target: Target = A.parse().unwrap();
        let by_hand = BlockRequest {
            target,
            timeout: Some(50 * SECOND),
            measure: Measure::default(),
            reason: "by hand".into(),
        };
        lab.engine.block(by_hand, lab.now).unwrap();
        lab.changes();
        for lasts in [OPEN, Lasts::For(20 * SECOND)] {
            let decision = lab.engine.block_for(&request(A, lasts), b"", lab.now);
            assert_eq!(decision, Decision::Standing { target });
        }
        assert_eq!(lab.engine.renew_for(&request(A, OPEN), b"", lab.now), None);
        assert_eq!(lab.engine.lift_for(A.parse().unwrap(), Origin::Wazuh, "over".into(), lab.now), None);
        assert_eq!(lab.changes(), []);
        // It lasts longer for sure, so that its end is later than that of the other.
        let decision = lab.engine.block_for(&request(A, Lasts::For(100 * SECOND)), b"", lab.now);
        assert_eq!(decision, Decision::Block { target, timeout: Some(100 * SECOND) });
    }

    #[test]
    fn a_weaker_measure_of_others_rests_until_it_is_lifted() {
        let mut lab = lab();
        let target: Target = A.parse().unwrap();
        let measure = Measure { scope: Scope { new_only: true, ..Scope::default() }, ..Measure::default() };
        let by_hand = BlockRequest { target, timeout: Some(DAY), measure, reason: "by hand".into() };
        lab.engine.block(by_hand, lab.now).unwrap();
        lab.changes();
        let decision = lab.engine.block_for(&request(A, OPEN), b"", lab.now);
        assert_eq!(decision, Decision::Block { target, timeout: Some(DAY) });
        lab.changes();
        assert!(lab.engine.lift_for(A.parse().unwrap(), Origin::Wazuh, "over".into(), lab.now).is_some());
        let changes = lab.changes();
        let [Change::Resume(block), Change::Unblock { end: End::Withdrawn, .. }] = &changes[..] else {
            panic!("{changes:#?}")
        };
        assert_eq!((block.origin, block.measure), (Origin::Operator, measure));
    }

    #[test]
    fn a_renewal_makes_nothing_new() {
        let mut lab = lab();
        let asked = request(A, Lasts::For(100 * SECOND));
        assert_eq!(lab.engine.renew_for(&asked, b"", lab.now), None);
        assert_eq!(lab.changes(), []);
        lab.engine.block_for(&asked, b"", lab.now);
        lab.changes();
        lab.pass(60 * SECOND);
        assert!(matches!(lab.engine.renew_for(&asked, b"", lab.now), Some(Decision::Block { .. })));
        lab.changes();
        lab.pass(60 * SECOND);
        assert!(lab.engine.block_of(&A.parse().unwrap()).is_some(), "it was to last 160 s");
    }
}
