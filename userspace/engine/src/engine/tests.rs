//! The engine as the daemon uses it: events in, changes out.

mod aggregate;
mod custom;
mod detection;
mod lift_all;
mod measures;
mod offences;
mod rest;
mod shipped;
mod streams;

use std::borrow::Cow;
use std::time::Duration;

use super::*;
use crate::change::{Expiry, Origin, Place, Protector, Refused};
use crate::decode::Decoders;
use crate::measure::Measure;
use crate::policy::{FORGET_AFTER, Limits, Response};
use crate::rules::{Correlation, Distinct, EventMatch, RuleSet, Same};
use crate::time::Wall;

const A: &str = "203.0.113.7";
const B: &str = "203.0.113.8";
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn policy() -> Policy {
    Policy {
        decoders: Decoders::default(),
        rules: RuleSet::new(shipped::rules()).unwrap(),
        responses: Response::defaults(),
        commands: Vec::new(),
        allow: Vec::new(),
        protect_logins: true,
        ipv6_prefix: 64,
        forget_after: FORGET_AFTER,
        limits: Limits { blocks: 100, prefixes: 100, sources: 1000 },
    }
}

/// The shipped rules, and nothing that is done about their matches.
fn without_responses() -> Lab {
    Lab::new(Policy { responses: Vec::new(), ..policy() })
}

/// A rule's condition: so many attempts of one source that fired `base`.
fn counting(base: u32, count: u32, window: Duration) -> Condition {
    let (base, same, distinct) = (vec![RuleId(base)], Same::Source, None);
    Condition::Count(Correlation { base, count, window, same, distinct })
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

/// An event of sshd's with all that a rule can ask for left empty.
fn event(kind: EventKind, source: &str) -> Event<'static> {
    let trace = match kind {
        EventKind::InvalidUser | EventKind::UserNotAllowed => Trace::Announced,
        EventKind::FailedPassword => Trace::Failed,
        EventKind::MaxAttemptsExceeded => Trace::Own,
        EventKind::ConnectionClosed => Trace::Ending,
        _ => Trace::None,
    };
    Event {
        kind,
        source: Some(source.parse().unwrap()),
        sourceless: false,
        port: Some(50_000),
        user: Some(Cow::Borrowed(b"admin")),
        invalid_user: kind == EventKind::InvalidUser,
        attack: trace != Trace::None,
        trace,
        repeated: 1,
        detail: b"",
        decoder: "sshd".into(),
    }
}

/// An engine, a clock, and a kernel that takes every block unless told otherwise.
pub(super) struct Lab {
    pub(super) engine: Engine,
    pub(super) now: Now,
    pid: u32,
}

impl Lab {
    pub(super) fn new(policy: Policy) -> Lab {
        let now = Now { mono: Mono(0).after(HOUR), wall: Wall(0).after(365 * DAY), utc_offset: 0 };
        Lab { engine: Engine::new(policy), now, pid: 1000 }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono.after(time);
        self.now.wall = self.now.wall.after(time);
    }

    /// A line of process `pid` that was written `age` ago.
    fn late(&mut self, age: Duration, pid: u32, event: Event<'static>) -> Seen {
        let record = Record {
            time: Some(self.now.wall.before(age)),
            host: b"gw1",
            program: b"sshd",
            pid: Some(pid),
            message: b"",
        };
        let line = format!("{} {pid}", event.kind.name());
        let outcome = self.engine.handle_event(event, &record, line.as_bytes(), self.now);
        Seen {
            source: outcome.source,
            attempts: outcome.attempts,
            rule: outcome.rule.map(|rule| rule.id.0),
            decision: outcome.decision,
        }
    }

    /// A line of process `pid` that is written now.
    fn line(&mut self, pid: u32, event: Event<'static>) -> Seen {
        self.late(Duration::ZERO, pid, event)
    }

    /// A connection of its own that makes one attempt.
    fn attempt(&mut self, kind: EventKind, source: &str) -> Seen {
        self.pid += 1;
        self.line(self.pid, event(kind, source))
    }

    /// The changes since, each carried out by a kernel that takes them all.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let changes = self.untold();
        for change in &changes {
            if let Change::Block(block) | Change::Resume(block) = change {
                self.engine.applied(block, Applied::Done, self.now);
            }
        }
        changes
    }

    /// The changes since, of which the engine has not been told what came of them.
    fn untold(&mut self) -> Vec<Change> {
        std::iter::from_fn(|| self.engine.next_change()).collect()
    }

    fn operator(&mut self, text: &str, timeout: Option<Duration>) -> Result<(), Refusal> {
        let request = BlockRequest {
            target: target(text),
            timeout,
            measure: Measure::default(),
            reason: "by hand".into(),
        };
        self.engine.block(request, self.now)
    }

    fn blocked(&self, address: &str) -> bool {
        matches!(self.engine.check(address.parse().unwrap(), self.now), Standing::Blocked(_))
    }
}

#[derive(Debug)]
struct Seen {
    source: Option<IpAddr>,
    attempts: u32,
    rule: Option<u32>,
    decision: Option<Decision>,
}

fn blocks_for(text: &str, timeout: Duration) -> Option<Decision> {
    Some(Decision::Block { target: target(text), timeout: Some(timeout) })
}

fn standing(text: &str) -> Option<Decision> {
    Some(Decision::Standing { target: target(text) })
}

/// The one change, which blocks.
fn the_block(changes: Vec<Change>) -> Block {
    match &changes[..] {
        [Change::Block(block)] => (**block).clone(),
        other => panic!("expected one block, found {other:#?}"),
    }
}

/// What ended, in order.
fn ends(changes: &[Change]) -> Vec<(String, End)> {
    let ended = |change: &Change| match change {
        Change::Unblock { block, end, .. } => Some((block.target.to_string(), *end)),
        _ => None,
    };
    changes.iter().filter_map(ended).collect()
}

#[test]
fn a_login_as_an_unknown_user_is_blocked_for_a_hundred_seconds() {
    let mut lab = Lab::new(policy());
    let seen = lab.line(7, event(EventKind::InvalidUser, A));
    assert_eq!((seen.rule, seen.attempts), (Some(5710), 1));
    assert_eq!(seen.decision, blocks_for(A, 100 * SECOND));

    let block = the_block(lab.changes());
    let expires = Expiry { mono: lab.now.mono.after(100 * SECOND), wall: lab.now.wall.after(100 * SECOND) };
    assert_eq!((block.target, block.expires), (target(A), Some(expires)));
    assert_eq!((block.origin, block.offences, block.attempts), (Origin::Rule, 1, 1));
    assert_eq!(block.rule.map(|rule| (rule.id.0, rule.level)), Some((5710, 5)));
    assert_eq!(block.users, ["admin".into()]);
    assert_eq!(block.evidence, ["invalid_user 7".into()]);
    assert!(lab.blocked(A) && !lab.blocked(B));

    assert_eq!(lab.engine.poll_timeout(), Some(expires.mono));
    lab.pass(100 * SECOND - Duration::from_nanos(1));
    lab.engine.handle_timeout(lab.now);
    assert_eq!(lab.changes(), []);
    lab.pass(Duration::from_nanos(1));
    assert!(!lab.blocked(A), "it is over, whether or not it has been swept");
    lab.engine.handle_timeout(lab.now);
    assert_eq!(ends(&lab.changes()), [(A.to_owned(), End::Expired)]);
    assert_eq!((lab.engine.poll_timeout(), lab.engine.blocks().count()), (None, 0));
}

#[test]
fn a_block_that_is_over_ends_before_the_next_begins() {
    let mut lab = Lab::new(policy());
    lab.attempt(EventKind::InvalidUser, A);
    lab.changes();
    lab.pass(101 * SECOND);
    lab.attempt(EventKind::InvalidUser, A);
    let changes = lab.changes();
    assert_eq!(ends(&changes), [(A.to_owned(), End::Expired)]);
    let Some(Change::Block(block)) = changes.last() else { panic!("{changes:#?}") };
    assert_eq!((block.created, block.offences), (lab.now.wall, 2));
}

#[test]
fn lines_of_one_attempt_are_answered_once() {
    let mut lab = Lab::new(policy());
    lab.line(7, event(EventKind::InvalidUser, A));
    lab.changes();
    let failed = Event { invalid_user: true, ..event(EventKind::FailedPassword, A) };
    let seen = lab.line(7, failed);
    assert_eq!((seen.rule, seen.attempts, seen.decision), (Some(5710), 0, None));

    // sshd notices that the client is gone only after the block is over; that is no reason for another.
    lab.pass(120 * SECOND);
    lab.engine.handle_timeout(lab.now);
    lab.changes();
    let closed = Event { invalid_user: true, ..event(EventKind::ConnectionClosed, A) };
    assert_eq!(lab.line(7, closed).decision, None);
    assert_eq!(lab.changes(), []);
}

#[test]
fn the_eighth_wrong_password_is_blocked_for_ten_minutes() {
    let mut lab = Lab::new(policy());
    for _ in 0..7 {
        let seen = lab.attempt(EventKind::FailedPassword, A);
        assert_eq!((seen.rule, seen.decision), (Some(5760), None));
        lab.pass(SECOND);
    }
    let seen = lab.attempt(EventKind::FailedPassword, A);
    assert_eq!((seen.rule, seen.decision), (Some(5763), blocks_for(A, 10 * MINUTE)));
    let block = the_block(lab.changes());
    assert_eq!((block.attempts, block.evidence.len()), (8, 5));
}

#[test]
fn one_source_hides_no_other() {
    let mut lab = Lab::new(policy());
    for n in 1..=8 {
        for source in [A, B] {
            let fired = lab.attempt(EventKind::FailedPassword, source).rule == Some(5763);
            assert_eq!(fired, n == 8, "attempt {n} of {source}");
        }
    }
}

#[test]
fn what_is_left_unanswered_falls_to_the_rule_below() {
    let mut policy = policy();
    policy.responses.truncate(1);
    let mut lab = Lab::new(policy);
    for n in 1..=8 {
        let seen = lab.attempt(EventKind::InvalidUser, A);
        assert_eq!(seen.rule, Some(if n == 8 { 5712 } else { 5710 }));
        lab.engine.unblock(&target(A), End::Lifted, lab.now);
        assert_eq!(seen.decision, blocks_for(A, 100 * SECOND));
    }
}

#[test]
fn a_correlated_rule_can_be_counted_itself() {
    let mut rules = shipped::rules();
    rules.push(Rule {
        id: RuleId(1),
        level: 12,
        groups: Vec::new(),
        description: "again and again".into(),
        when: counting(5763, 2, HOUR),
    });
    let mut lab = Lab::new(Policy { rules: RuleSet::new(rules).unwrap(), ..policy() });
    let fired: Vec<Option<u32>> = (0..16).map(|_| lab.attempt(EventKind::FailedPassword, A).rule).collect();
    assert_eq!((fired[7], fired[14], fired[15]), (Some(5763), Some(5760), Some(1)));
}

#[test]
fn lines_on_their_way_are_no_further_offence() {
    let mut lab = Lab::new(policy());
    lab.line(7, event(EventKind::InvalidUser, A));
    // A second connection has begun before the kernel has the block.
    lab.line(8, event(EventKind::ConnectionFrom, A));
    lab.changes();
    lab.pass(SECOND);
    for pid in [7, 8] {
        let failed = Event { invalid_user: true, ..event(EventKind::FailedPassword, A) };
        lab.line(pid, failed.clone());
        assert_eq!(lab.line(pid, failed).decision, standing(A));
    }
    assert_eq!(lab.changes(), []);

    // A graver rule makes the block longer, as the same offence.
    let seen = lab.line(7, event(EventKind::MaxAttemptsExceeded, A));
    assert_eq!(seen.decision, blocks_for(A, 10 * MINUTE));
    let block = the_block(lab.changes());
    assert_eq!((block.offences, block.rule.map(|rule| rule.id.0)), (1, Some(5758)));
}

#[test]
fn an_attempt_that_got_past_the_block_is_another_offence() {
    let mut lab = Lab::new(policy());
    let mut timeouts = Vec::new();
    for _ in 0..4 {
        timeouts.push(lab.attempt(EventKind::MaxAttemptsExceeded, A).decision);
        lab.changes();
        lab.pass(3 * SECOND);
    }
    let steps = [10 * MINUTE, HOUR, DAY, DAY];
    assert_eq!(timeouts, steps.map(|timeout| blocks_for(A, timeout)));
    assert_eq!(lab.engine.blocks().next().map(|block| block.offences), Some(4));
}

#[test]
fn over_the_past_what_a_block_would_have_stopped_leads_to_nothing() {
    let mut lab = Lab { engine: Engine::for_past(policy()), ..Lab::new(policy()) };
    lab.attempt(EventKind::InvalidUser, A);
    the_block(lab.changes());
    for _ in 0..20 {
        lab.pass(SECOND);
        let seen = lab.attempt(EventKind::FailedPassword, A);
        assert_eq!((seen.attempts, seen.rule, seen.decision), (1, None, None));
    }
    lab.pass(90 * SECOND);
    assert_eq!(ends(&lab.changes()), []);
    let seen = lab.attempt(EventKind::FailedPassword, A);
    assert_eq!(
        (seen.rule, seen.decision),
        (Some(5760), None),
        "the block is over, and nothing counted since"
    );
}

#[test]
fn what_nobody_understands_is_counted_by_its_shape() {
    let mut lab = Lab::new(policy());
    for (n, message) in
        ["Quantum login failed for a from 203.0.113.7", "Quantum login failed for b from ::1", "all is well"]
            .iter()
            .enumerate()
    {
        let pid = u32::try_from(n).ok();
        let record = Record { time: None, host: b"gw1", program: b"sshd", pid, message: message.as_bytes() };
        let outcome = lab.engine.handle(&record, b"", lab.now);
        assert_eq!(outcome.event, None);
    }
    let heard = lab.engine.unexplained(lab.now);
    assert_eq!((heard.count, heard.shapes.len()), (2, 1));
    assert_eq!(&*heard.shapes[0].0, "Quantum login failed for … from …");
    lab.pass(2 * HOUR);
    assert_eq!(lab.engine.unexplained(lab.now).count, 0);
}

#[test]
fn repeat_offenders_are_blocked_longer_and_forgotten_after_a_day() {
    let mut lab = Lab::new(policy());
    let mut block_and_wait = |wait: Duration| {
        let decision = lab.attempt(EventKind::MaxAttemptsExceeded, A).decision;
        lab.changes();
        lab.pass(wait);
        lab.engine.handle_timeout(lab.now);
        lab.changes();
        decision
    };
    assert_eq!(block_and_wait(10 * MINUTE), blocks_for(A, 10 * MINUTE));
    assert_eq!(block_and_wait(HOUR), blocks_for(A, HOUR));
    assert_eq!(block_and_wait(2 * DAY + SECOND), blocks_for(A, DAY));
    assert_eq!(block_and_wait(HOUR), blocks_for(A, 10 * MINUTE));
}

#[test]
fn a_line_that_is_read_late_gets_what_is_left() {
    let mut lab = Lab::new(policy());
    let mut late = |age: Duration, pid| lab.late(age, pid, event(EventKind::InvalidUser, A)).decision;
    assert_eq!(late(HOUR, 1), Some(Decision::Late { target: target(A) }));
    assert_eq!(late(100 * SECOND, 2), Some(Decision::Late { target: target(A) }));
    assert_eq!(late(70 * SECOND, 3), blocks_for(A, 30 * SECOND));
    assert_eq!(late(60 * SECOND, 4), blocks_for(A, 100 * SECOND));
    assert_eq!(lab.engine.counts().responses.late, 2);
}

#[test]
fn old_lines_keep_their_distances() {
    let mut lab = Lab::new(policy());
    // From before the host was booted, a minute apart: never eight in two minutes.
    for n in (100..200u32).rev() {
        let seen = lab.late(n * MINUTE, 10_000 + n, event(EventKind::FailedPassword, A));
        assert_eq!(seen.rule, Some(5760));
    }
    let fired =
        (100..108u32).rev().map(|n| lab.late(n * SECOND, n, event(EventKind::FailedPassword, B)).rule);
    assert_eq!(fired.last(), Some(Some(5763)));
}

#[test]
fn a_step_of_the_clock_breaks_no_window() {
    for forward in [true, false] {
        let mut lab = Lab::new(policy());
        let mut fired = Vec::new();
        for n in 0..8 {
            if n == 4 {
                lab.now.wall = if forward { lab.now.wall.after(DAY) } else { lab.now.wall.before(DAY) };
            }
            fired.push(lab.attempt(EventKind::FailedPassword, A).rule);
            lab.pass(SECOND);
        }
        assert_eq!(fired.last(), Some(&Some(5763)), "forward: {forward}");
    }
}

#[test]
fn a_step_of_the_clock_moves_no_deadline() {
    for forward in [true, false] {
        let mut lab = Lab::new(policy());
        lab.attempt(EventKind::InvalidUser, A);
        lab.changes();
        lab.now.wall = if forward { lab.now.wall.after(DAY) } else { lab.now.wall.before(DAY) };
        lab.pass(99 * SECOND);
        lab.engine.handle_timeout(lab.now);
        assert_eq!(lab.changes(), [], "forward: {forward}");
        lab.pass(SECOND);
        lab.engine.handle_timeout(lab.now);
        assert_eq!(ends(&lab.changes()), [(A.to_owned(), End::Expired)], "forward: {forward}");
    }
}

#[test]
fn a_line_from_the_future_counts_as_written_now() {
    let mut lab = Lab::new(policy());
    let record = Record {
        time: Some(lab.now.wall.after(DAY)),
        host: b"",
        program: b"sshd",
        pid: Some(1),
        message: b"",
    };
    let outcome = lab.engine.handle_event(event(EventKind::InvalidUser, A), &record, b"", lab.now);
    assert_eq!(outcome.decision, blocks_for(A, 100 * SECOND));
}

#[test]
fn an_ipv6_source_is_blocked_with_its_prefix() {
    let mut lab = Lab::new(policy());
    let seen = lab.attempt(EventKind::InvalidUser, "2001:db8:1:2::7");
    assert_eq!(seen.decision, blocks_for("2001:db8:1:2::/64", 100 * SECOND));
    lab.changes();
    assert!(lab.blocked("2001:db8:1:2:ffff::1") && !lab.blocked("2001:db8:1:3::7"));

    // Its windows are those of the prefix, whichever addresses the host takes.
    let mut lab = Lab::new(policy());
    let fired = (1..=8).map(|n| lab.attempt(EventKind::FailedPassword, &format!("2001:db8:1:2::{n}")).rule);
    assert_eq!(fired.last(), Some(Some(5763)));
}

#[test]
fn a_protected_neighbour_does_not_shield_a_source() {
    let mut lab = Lab::new(policy());
    let own = vec!["2001:db8:1:2::1".parse().unwrap()];
    lab.engine.set_host(&HostAddresses { own, ..HostAddresses::default() });
    let seen = lab.attempt(EventKind::InvalidUser, "2001:db8:1:2::7");
    assert_eq!(seen.decision, blocks_for("2001:db8:1:2::7", 100 * SECOND));
    lab.changes();
    assert!(!lab.blocked("2001:db8:1:2::1"));
    // The block of the address alone is found again.
    lab.pass(3 * SECOND);
    let seen = lab.attempt(EventKind::MaxAttemptsExceeded, "2001:db8:1:2::7");
    assert_eq!(seen.decision, blocks_for("2001:db8:1:2::7", HOUR));
}

fn refusals(changes: &[Change]) -> Vec<&Refused> {
    assert!(changes.iter().all(|change| matches!(change, Change::Refused(_))), "{changes:#?}");
    changes
        .iter()
        .filter_map(|change| if let Change::Refused(refused) = change { Some(&**refused) } else { None })
        .collect()
}

#[test]
fn a_protected_source_is_put_on_record_once_per_timeout() {
    let mut lab = Lab::new(Policy { allow: vec![target("203.0.113.0/24")], ..policy() });
    let protection =
        Protection { target: target(A), protected: target("203.0.113.0/24"), by: Protector::Allowed };
    let because = Refusal::Protected(protection);
    for _ in 0..5 {
        let decision = lab.attempt(EventKind::InvalidUser, A).decision;
        assert_eq!(decision, Some(Decision::Refused { target: target(A), because: because.clone() }));
    }
    let changes = lab.changes();
    let [refused] = refusals(&changes)[..] else { panic!("{changes:#?}") };
    assert_eq!((refused.block.target, &refused.because), (target(A), &because));
    assert_eq!(lab.engine.counts().responses.refused, 5);
    lab.pass(100 * SECOND);
    lab.attempt(EventKind::InvalidUser, A);
    assert_eq!(refusals(&lab.changes()).len(), 1);
    assert_eq!(lab.engine.check(A.parse().unwrap(), lab.now), Standing::Protected(protection));
}

#[test]
fn logins_protect_their_source_from_rules_but_not_from_operators() {
    let mut lab = Lab::new(policy());
    let by = |seen: Seen| match seen.decision {
        Some(Decision::Refused { because: Refusal::Protected(protection), .. }) => Some(protection.by),
        _ => None,
    };
    let accepted = |detail| Event { detail, ..event(EventKind::Accepted, A) };
    lab.line(50, accepted(b"password"));
    assert_eq!(by(lab.attempt(EventKind::InvalidUser, A)), Some(Protector::Session));
    lab.line(50, Event { source: None, port: None, ..event(EventKind::SessionClosed, A) });
    lab.changes();
    assert_eq!(lab.attempt(EventKind::InvalidUser, A).decision, blocks_for(A, 100 * SECOND));

    let mut lab = Lab::new(policy());
    lab.line(50, accepted(b"publickey"));
    // Another process of the same connection tells of its end.
    lab.line(51, event(EventKind::Disconnected, A));
    assert_eq!(by(lab.attempt(EventKind::InvalidUser, A)), Some(Protector::RecentLogin));
    assert_eq!(lab.operator(A, None), Ok(()));
    lab.engine.unblock(&target(A), End::Lifted, lab.now);
    lab.pass(HOUR + SECOND);
    assert_eq!(lab.attempt(EventKind::InvalidUser, A).decision, blocks_for(A, 100 * SECOND));

    let mut lab = Lab::new(policy());
    lab.line(50, accepted(b"password"));
    lab.engine.retain_sessions(|pid| pid != 50);
    assert!(lab.attempt(EventKind::InvalidUser, A).decision == blocks_for(A, 100 * SECOND));

    let mut lab = Lab::new(Policy { protect_logins: false, ..policy() });
    lab.line(50, accepted(b"publickey"));
    assert_eq!(lab.attempt(EventKind::InvalidUser, A).decision, blocks_for(A, 100 * SECOND));
}

#[test]
fn an_attackers_hangup_ends_nobodys_session() {
    let mut lab = Lab::new(policy());
    lab.line(50, Event { detail: b"password", ..event(EventKind::Accepted, A) });
    let hangup = Event { attack: true, trace: Trace::Ending, ..event(EventKind::Disconnected, A) };
    lab.line(51, hangup);
    assert!(matches!(lab.attempt(EventKind::InvalidUser, A).decision, Some(Decision::Refused { .. })));
}

#[test]
fn operators_are_refused_what_would_cut_the_host_off() {
    let mut lab = Lab::new(policy());
    let gateways = vec!["198.51.100.1".parse().unwrap()];
    lab.engine.set_host(&HostAddresses { gateways, ..HostAddresses::default() });
    for text in ["198.51.100.1", "198.51.100.0/24", "0.0.0.0/0", "127.0.0.1", "::/0"] {
        assert!(matches!(lab.operator(text, None), Err(Refusal::Protected(_))), "{text}");
    }
    assert_eq!(lab.changes(), []);
}

#[test]
fn an_operators_word_holds() {
    let mut lab = Lab::new(policy());
    lab.attempt(EventKind::MaxAttemptsExceeded, A);
    lab.changes();
    lab.pass(MINUTE);
    lab.operator(A, Some(MINUTE)).unwrap();
    let block = the_block(lab.changes());
    assert_eq!((block.origin, &*block.reason, block.rule), (Origin::Operator, "by hand", None));
    assert_eq!((block.created, block.attempts), (lab.now.wall, 0), "nothing of the rule's is theirs");
    assert_eq!(block.expires.map(|expiry| expiry.mono), Some(lab.now.mono.after(MINUTE)));
    lab.pass(SECOND);
    lab.operator(A, Some(HOUR)).unwrap();
    assert_eq!(the_block(lab.changes()).created, block.created, "it goes on");

    lab.operator("203.0.113.0/24", None).unwrap();
    lab.changes();
    lab.pass(3 * SECOND);
    assert_eq!(lab.attempt(EventKind::InvalidUser, B).decision, standing("203.0.113.0/24"));
    assert!(!lab.engine.unblock(&target(B), End::Lifted, lab.now));
    assert!(lab.engine.unblock(&target("203.0.113.0/24"), End::Lifted, lab.now));
    assert_eq!(ends(&lab.changes()), [("203.0.113.0/24".to_owned(), End::Lifted)]);
}

#[test]
fn a_block_that_the_kernel_did_not_take_is_no_block() {
    let mut lab = Lab::new(policy());
    lab.attempt(EventKind::MaxAttemptsExceeded, A);
    let block = the_block(lab.untold());
    lab.engine.applied(&block, Applied::Failed("no memory".into()), lab.now);
    let changes = lab.untold();
    let [Change::Unblock { end: End::Failed, detail, .. }] = &changes[..] else { panic!("{changes:#?}") };
    assert_eq!(detail.as_deref(), Some("no memory"));
    assert!(!lab.blocked(A));
    assert_eq!(lab.engine.counts().responses.failed, 1);
    let decision = lab.attempt(EventKind::MaxAttemptsExceeded, A).decision;
    assert_eq!(decision, blocks_for(A, 10 * MINUTE), "what failed was no offence");
}

#[test]
fn a_full_kernel_table_gets_one_more_try() {
    let mut lab = Lab::new(policy());
    lab.operator(B, Some(MINUTE)).unwrap();
    lab.operator("203.0.113.9", Some(2 * MINUTE)).unwrap();
    lab.changes();
    lab.attempt(EventKind::InvalidUser, A);
    let block = the_block(lab.untold());
    lab.engine.applied(&block, Applied::TableFull, lab.now);
    let changes = lab.untold();
    assert_eq!(ends(&changes), [(B.to_owned(), End::Evicted)]);
    assert!(matches!(&changes[1], Change::Block(block) if block.target == target(A)));
    lab.engine.applied(&block, Applied::TableFull, lab.now);
    assert_eq!(ends(&lab.untold()), [(A.to_owned(), End::Failed)]);
    assert!(lab.blocked("203.0.113.9"));
}

#[test]
fn a_full_table_gives_up_the_first_to_expire() {
    let mut policy = policy();
    policy.limits.blocks = 2;
    let mut lab = Lab::new(policy);
    lab.operator("203.0.113.1", Some(HOUR)).unwrap();
    lab.operator("203.0.113.2", None).unwrap();
    lab.changes();
    lab.attempt(EventKind::InvalidUser, A);
    let changes = lab.changes();
    assert_eq!(ends(&changes), [("203.0.113.1".to_owned(), End::Evicted)]);
    assert_eq!(lab.engine.counts().responses.evicted, 1);
    lab.operator(A, None).unwrap();
    lab.changes();
    let full = Refusal::Full { target: target(B), capacity: 2, limit: "limits.blocks" };
    assert_eq!(lab.operator(B, None), Err(full.clone()));
    let decision = lab.attempt(EventKind::InvalidUser, B).decision;
    assert_eq!(decision, Some(Decision::Refused { target: target(B), because: full }));
    assert_eq!(refusals(&lab.changes()).len(), 1);
}

#[test]
fn blocks_that_are_over_count_for_nothing_however_many_are_due() {
    const DUE: u32 = 3000;
    let mut policy = policy();
    policy.limits.blocks = DUE;
    let mut lab = Lab::new(policy);
    let address = |number: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string();
    (0..DUE).for_each(|number| lab.operator(&address(number), Some(MINUTE)).unwrap());
    lab.changes();
    lab.pass(MINUTE);
    lab.engine.handle_timeout(lab.now);
    let ended = ends(&lab.changes());
    assert!((100..2000).contains(&ended.len()), "{} at once", ended.len());
    assert!(ended.iter().all(|(_, end)| *end == End::Expired));
    assert!(lab.engine.poll_timeout().is_some_and(|due| due <= lab.now.mono), "more are due");

    // Its block is still to be swept, and does not keep it from being blocked anew.
    let last = address(DUE - 1);
    assert!(matches!(lab.attempt(EventKind::InvalidUser, &last).decision, Some(Decision::Block { .. })));
    let changes = lab.changes();
    assert_eq!(ends(&changes), [(last, End::Expired)]);
    assert!(matches!(changes.last(), Some(Change::Block(_))));
    // What makes room for others has not been driven out: its time was over.
    for number in 0..u32::try_from(ended.len()).unwrap() + 1 {
        lab.operator(&address(DUE + number), None).unwrap();
    }
    let changes = lab.changes();
    assert!(ends(&changes).iter().all(|(_, end)| *end == End::Expired) && !ends(&changes).is_empty());
    assert_eq!(lab.engine.counts().responses.evicted, 0);
    while lab.engine.poll_timeout().is_some_and(|due| due <= lab.now.mono) {
        lab.engine.handle_timeout(lab.now);
        lab.changes();
    }
    assert_eq!(lab.engine.blocks().count(), ended.len() + 2);
}

/// The blocks as the store has them.
fn from_record(blocks: Vec<Arc<Block>>, now: &Now) -> Vec<Arc<Block>> {
    let mut blocks = blocks;
    for block in blocks.iter_mut().map(Arc::make_mut) {
        block.expires = block.expires.map(|expiry| now.recorded_expiry(block.created, expiry.wall));
    }
    blocks
}

#[test]
fn the_store_gives_back_what_is_still_in_force() {
    let mut before = Lab::new(policy());
    before.attempt(EventKind::InvalidUser, A);
    before.attempt(EventKind::MaxAttemptsExceeded, B);
    before.operator("198.51.100.0/24", None).unwrap();
    before.operator("192.0.2.1", Some(HOUR)).unwrap();
    let blocks: Vec<Arc<Block>> = before.engine.blocks().cloned().collect();

    let mut lab = Lab::new(Policy { allow: vec![target("192.0.2.1")], ..policy() });
    lab.now = before.now;
    lab.pass(200 * SECOND);
    // The host was booted meanwhile.
    lab.now.mono = Mono(5);
    let blocks = from_record(blocks, &lab.now);
    let offender = Offender { offences: 1, until: lab.now.wall.after(400 * SECOND) };
    lab.engine.restore(blocks, vec![(target(B), offender)], lab.now);
    let changes = lab.changes();
    let mut ended = ends(&changes);
    ended.sort_by(|a, b| b.0.cmp(&a.0));
    assert_eq!(ended, [(A.to_owned(), End::Expired), ("192.0.2.1".to_owned(), End::Protected)]);
    assert!(lab.blocked(B) && lab.blocked("198.51.100.9") && !lab.blocked(A));
    assert_eq!(lab.engine.poll_timeout(), Some(Mono(5).after(400 * SECOND)));

    lab.pass(401 * SECOND);
    lab.engine.handle_timeout(lab.now);
    lab.changes();
    assert_eq!(lab.attempt(EventKind::MaxAttemptsExceeded, B).decision, blocks_for(B, HOUR));
}

#[test]
fn a_block_found_in_the_gate_gets_its_reason_from_the_line_that_led_to_it() {
    let mut before = Lab::new(policy());
    before.attempt(EventKind::InvalidUser, A);
    let known = Block::clone(before.engine.blocks().next().unwrap());
    let reason = "found in the gate".into();
    let adopted =
        Block { rule: None, origin: Origin::Adopted, reason, evidence: Vec::new(), ..known.clone() };
    let mut lab = Lab::new(policy());
    lab.now = before.now;
    lab.pass(5 * SECOND);
    let offender = Offender { offences: 2, until: before.now.wall.before(HOUR) };
    lab.engine.restore(vec![adopted.into()], vec![(target(A), offender)], lab.now);
    lab.changes();

    assert!(matches!(
        lab.late(5 * SECOND, before.pid, event(EventKind::InvalidUser, A)).decision,
        Some(Decision::Block { .. })
    ));
    let changes = lab.changes();
    let [Change::Block(block)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((&block.rule, block.origin), (&known.rule, Origin::Rule));
    assert_eq!((block.expires, block.created, block.offences), (known.expires, known.created, 3));
    assert_eq!(block.evidence.len(), 1);
    lab.late(5 * SECOND, before.pid, event(EventKind::FailedPassword, A));
    assert_eq!(lab.changes(), []);
}

#[test]
fn a_clock_that_was_set_back_makes_no_block_longer() {
    let mut before = Lab::new(policy());
    before.attempt(EventKind::InvalidUser, A);
    let blocks = before.engine.blocks().cloned().collect();
    let mut lab = Lab::new(policy());
    lab.now.wall = before.now.wall.before(DAY);
    lab.engine.restore(from_record(blocks, &lab.now), Vec::new(), lab.now);
    assert_eq!(lab.engine.poll_timeout(), Some(lab.now.mono.after(100 * SECOND)));
}

#[test]
fn what_stands_in_the_gate_keeps_its_end_whatever_the_clock_says_at_a_start() {
    for forward in [true, false] {
        let mut before = Lab::new(policy());
        before.attempt(EventKind::MaxAttemptsExceeded, A);
        let blocks = before.engine.blocks().cloned().collect();
        let mut lab = Lab::new(policy());
        lab.now = before.now;
        lab.pass(4 * MINUTE);
        lab.now.wall = if forward { lab.now.wall.after(2 * DAY) } else { lab.now.wall.before(DAY) };
        // What the store has was worked out by the clock as it was.
        let offender = Offender { offences: 1, until: before.now.wall.after(10 * MINUTE) };
        lab.engine.restore(blocks, vec![(target(A), offender)], lab.now);
        lab.changes();
        assert_eq!(lab.engine.poll_timeout(), Some(lab.now.mono.after(6 * MINUTE)), "forward: {forward}");
        lab.pass(6 * MINUTE + DAY);
        lab.engine.handle_timeout(lab.now);
        lab.changes();
        let again = lab.attempt(EventKind::MaxAttemptsExceeded, A).decision;
        assert_eq!(again, blocks_for(A, HOUR), "forward: {forward}, its second offence");
        lab.changes();
    }
}

#[test]
fn what_becomes_protected_is_unblocked() {
    let mut lab = Lab::new(policy());
    lab.attempt(EventKind::InvalidUser, A);
    lab.attempt(EventKind::InvalidUser, B);
    lab.changes();
    lab.engine.reload(Policy { allow: vec![target(A)], ..policy() });
    let changes = lab.changes();
    assert_eq!(ends(&changes), [(A.to_owned(), End::Protected)]);
    let own = vec![B.parse().unwrap()];
    lab.engine.set_host(&HostAddresses { own, ..HostAddresses::default() });
    assert_eq!(ends(&lab.changes()), [(B.to_owned(), End::Protected)]);
}

#[test]
fn what_operators_allow_is_protected_beside_the_policys() {
    let mut lab = Lab::new(Policy { allow: vec![target(B)], ..policy() });
    lab.attempt(EventKind::InvalidUser, A);
    lab.changes();
    lab.engine.set_allowed_by_hand(vec![target("203.0.113.0/29"), target(B)]);
    assert_eq!(ends(&lab.changes()), [(A.to_owned(), End::Protected)]);
    assert!(matches!(lab.attempt(EventKind::InvalidUser, A).decision, Some(Decision::Refused { .. })));
    lab.engine.reload(policy());
    let by = |lab: &Lab, address: &str| -> Vec<Protector> {
        lab.engine.protections(address.parse().unwrap(), lab.now).iter().map(|found| found.by).collect()
    };
    assert_eq!(by(&lab, A), [Protector::AllowedByHand], "a reload changes the policy's list alone");
    lab.engine.reload(Policy { allow: vec![target(B)], ..policy() });
    assert_eq!(by(&lab, B), [Protector::Allowed, Protector::AllowedByHand]);
    lab.engine.set_allowed_by_hand(Vec::new());
    assert_eq!(by(&lab, A), []);
    assert!(matches!(lab.attempt(EventKind::InvalidUser, A).decision, Some(Decision::Block { .. })));
}

#[test]
fn a_reload_keeps_what_was_counted() {
    let mut lab = Lab::new(policy());
    for _ in 0..7 {
        lab.attempt(EventKind::FailedPassword, A);
    }
    lab.engine.reload(policy());
    assert_eq!(lab.attempt(EventKind::FailedPassword, A).rule, Some(5763));
    let count = |lab: &Lab, id| lab.engine.matches().find(|(rule, _)| rule.id == RuleId(id)).map(|(_, n)| n);
    assert_eq!((count(&lab, 5760), count(&lab, 5763)), (Some(8), Some(1)));

    for _ in 0..7 {
        lab.attempt(EventKind::FailedPassword, B);
    }
    let without: Vec<Rule> = shipped::rules().into_iter().filter(|rule| rule.id != RuleId(5763)).collect();
    lab.engine.reload(Policy { rules: RuleSet::new(without).unwrap(), ..policy() });
    assert_eq!(lab.attempt(EventKind::FailedPassword, B).rule, Some(5760));
    lab.engine.reload(policy());
    assert_eq!(lab.attempt(EventKind::FailedPassword, B).rule, Some(5760));
}

#[test]
fn memory_is_bounded_whatever_the_number_of_sources() {
    let mut lab = Lab::new(policy());
    for n in 0..50_000u32 {
        let source = std::net::Ipv4Addr::from_bits(0x0b00_0000 + n).to_string();
        lab.attempt(EventKind::FailedPassword, &source);
    }
    let counts = lab.engine.counts();
    assert_eq!((counts.tracked, counts.forgotten), (1000, 49_000));
    assert_eq!((counts.events, counts.attacks, counts.attempts), (50_000, 50_000, 50_000));
}

#[test]
fn a_line_without_an_address_is_its_connections() {
    let mut lab = Lab::new(policy());
    lab.line(7, event(EventKind::ConnectionFrom, A));
    let locked = Event { source: None, port: None, ..event(EventKind::UserNotAllowed, A) };
    let seen = lab.line(7, locked.clone());
    assert_eq!((seen.source, seen.rule), (Some(A.parse().unwrap()), Some(5718)));
    let seen = lab.line(8, locked);
    assert_eq!((seen.source, seen.rule, seen.decision), (None, Some(5718), None));
}

#[test]
fn an_attack_without_an_address_waits_for_that_of_its_connection() {
    use crate::record::Format;

    const LOCKED: &str = "User root not allowed because account is locked";
    let mut lab = Lab::new(policy());
    let mut line = |pid: u32, message: &str| {
        let line = format!("Jan  1 00:00:00 gw1 sshd[{pid}]: {message}").into_bytes();
        let record = Record::parse(&line, Format::Syslog, &lab.now);
        let outcome = lab.engine.handle(&record, &line, lab.now);
        let event = outcome.event.unwrap();
        let user = event.user.map(|user| String::from_utf8_lossy(&user).into_owned());
        (event.attack, outcome.source, user, outcome.attempts, outcome.rule.map(|rule| rule.id.0))
    };
    let (a, user) = (A.parse().ok(), Some("root".to_owned()));
    assert_eq!(line(7, LOCKED), (false, None, user.clone(), 0, Some(5718)));
    let hangup = format!("Received disconnect from {A} port 22:11: Bye Bye [preauth]");
    assert_eq!(line(7, &hangup), (true, a, user.clone(), 1, Some(5718)));
    assert_eq!(line(7, &hangup), (false, a, None, 0, Some(5721)), "it counts once");
    assert_eq!(line(8, &hangup), (false, a, None, 0, Some(5721)), "another process");

    // With a line that is an attack by itself it is still one attempt, and the line keeps its own rule.
    line(9, LOCKED);
    assert_eq!(
        line(9, &format!("Connection closed by {A} port 22 [preauth]")),
        (true, a, user, 1, Some(5722))
    );
    line(10, "kex_exchange_identification: banner line too long");
    let invalid = format!("banner exchange: Connection from {A} port 23: invalid format");
    assert_eq!(line(10, &invalid), (true, a, None, 1, Some(5701)));

    // A new connection under the process number, or a login, has nothing to do with it.
    for next in [
        format!("Connection from {A} port 24 on 192.0.2.1 port 22"),
        format!("Accepted password for alice from {A} port 24 ssh2"),
        format!("Disconnected from user alice {A} port 24"),
    ] {
        line(11, LOCKED);
        let (attack, _, _, attempts, _) = line(11, &next);
        assert_eq!((attack, attempts), (false, 0), "{next}");
    }
}

#[test]
fn lines_become_blocks() {
    use crate::record::Format;

    let mut lab = Lab::new(policy());
    let log: &[&[u8]] = &[
        b"Jan  1 00:00:00 gw1 cron[5]: Invalid user admin from 203.0.113.7 port 1",
        b"Jan  1 00:00:00 gw1 sshd[6]: Invalid user x from 203.0.113.8 port 22 ssh2 from 203.0.113.7 port 33847",
        b"Jan  1 00:00:00 gw1 sshd[6]: Something failed in a way of its own",
    ];
    let mut sources = Vec::new();
    for line in log {
        let record = Record::parse(line, Format::Syslog, &lab.now);
        sources.push(lab.engine.handle(&record, line, lab.now).source);
    }
    assert_eq!(sources, [None, Some(A.parse().unwrap()), None]);
    let block = the_block(lab.changes());
    assert_eq!(block.target, target(A));
    assert_eq!(block.users, ["x from 203.0.113.8 port 22 ssh2".into()]);
    assert_eq!(block.evidence, [String::from_utf8_lossy(log[1]).into()]);
    let counts = lab.engine.counts();
    assert_eq!((counts.lines, counts.events, counts.unexplained), (3, 1, 1));
}
