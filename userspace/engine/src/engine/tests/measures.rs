//! Which response answers, and what becomes of a target for which several measures are asked.

use std::num::NonZeroU32;

use super::*;
use crate::measure::{Action, Ports, Rate, Scope};

fn block_ports(ports: &[u16]) -> Measure {
    Measure { action: Action::Block, scope: Scope { ports: Ports::new(ports).unwrap(), new_only: false } }
}

fn throttle(per_second: u32) -> Measure {
    let number = NonZeroU32::new(per_second).unwrap();
    Measure { action: Action::Throttle(Rate { per_second: number, burst: number }), scope: Scope::default() }
}

/// What answers rule 5710 (a login as an unknown user).
fn unknown_user(measure: Measure, timeout: Duration) -> Response {
    Response { rules: vec![RuleId(5710)], measure, timeout: Some(timeout), ..Response::default() }
}

/// What answers rule 5758 (too many attempts on a connection).
fn too_many(measure: Measure, timeout: Duration) -> Response {
    Response { rules: vec![RuleId(5758)], ..unknown_user(measure, timeout) }
}

/// A source that tries an unknown user and then, 10 s later, too often. Returns the block after both.
fn both(first: Measure, then: Measure, timeouts: [u64; 2]) -> (Block, Option<Decision>) {
    let [a, b] = timeouts.map(Duration::from_secs);
    let responses = vec![unknown_user(first, a), too_many(then, b)];
    let mut lab = Lab::new(Policy { responses, ..policy() });
    lab.attempt(EventKind::InvalidUser, A);
    lab.changes();
    lab.pass(10 * SECOND);
    let decision = lab.attempt(EventKind::MaxAttemptsExceeded, A).decision;
    lab.changes();
    (lab.engine.block_of(&target(A)).unwrap().clone(), decision)
}

/// In how many seconds after the second attempt a block ends.
fn ends_in(block: &Block) -> u64 {
    block.expires.unwrap().mono.since(Mono(0).after(HOUR + 10 * SECOND)).as_secs()
}

#[test]
fn a_stricter_measure_replaces_a_weaker_one() {
    for (first, then) in [
        (throttle(20), Measure::default()),
        (throttle(20), block_ports(&[22])),
        (block_ports(&[22]), Measure::default()),
    ] {
        let (block, decision) = both(first, then, [1000, 100]);
        assert_eq!((block.measure, ends_in(&block)), (then, 100), "for its own time");
        assert_eq!(block.offences, 1, "what let packets through was not got past");
        assert!(matches!(decision, Some(Decision::Block { .. })));
    }
}

#[test]
fn a_weaker_measure_softens_nothing_and_prolongs_nothing() {
    for (first, then) in [
        (Measure::default(), throttle(20)),
        (Measure::default(), block_ports(&[22])),
        (block_ports(&[22]), throttle(20)),
    ] {
        let (block, decision) = both(first, then, [100, 1000]);
        assert_eq!((block.measure, ends_in(&block)), (first, 90));
        assert_eq!(decision, standing(A));
    }
}

#[test]
fn measures_of_one_strictness_are_joined_for_the_longer_time() {
    for timeouts in [[100, 1000], [1010, 100]] {
        let (block, _) = both(block_ports(&[22]), block_ports(&[443]), timeouts);
        assert_eq!((block.measure, ends_in(&block)), (block_ports(&[22, 443]), 1000));
        let (block, _) = both(throttle(20), throttle(5), timeouts);
        assert_eq!((block.measure, ends_in(&block)), (throttle(5), 1000));
    }
}

#[test]
fn a_throttle_on_a_source_softens_no_block_of_its_network() {
    let responses = vec![unknown_user(throttle(20), DAY)];
    let mut lab = Lab::new(Policy { responses, ..policy() });
    let request = BlockRequest {
        target: target("203.0.113.0/24"),
        timeout: Some(MINUTE),
        measure: Measure::default(),
        reason: "by hand".into(),
    };
    lab.engine.block(request, lab.now).unwrap();
    assert_eq!(lab.attempt(EventKind::InvalidUser, A).decision, standing("203.0.113.0/24"));
}

#[test]
fn an_operators_word_holds_for_measures_too() {
    let mut lab = Lab::new(policy());
    lab.attempt(EventKind::InvalidUser, A);
    lab.changes();
    let (measure, timeout) = (throttle(20), Some(HOUR));
    let request = BlockRequest { target: target(A), timeout, measure, reason: "softer".into() };
    lab.engine.block(request, lab.now).unwrap();
    let changes = lab.changes();
    let [Change::Block(softer), Change::Unblock { end: End::Withdrawn, place: Place::TakenOver, .. }] =
        &changes[..]
    else {
        panic!("{changes:#?}")
    };
    assert_eq!(softer.measure, throttle(20));
    lab.pass(10 * SECOND);
    lab.attempt(EventKind::InvalidUser, A);
    lab.changes();
    let measure = lab.engine.block_of(&target(A)).unwrap().measure;
    assert_eq!(measure, Measure::default(), "it goes on, and a rule is stricter");
}

#[test]
fn each_attempt_of_a_throttled_source_is_no_further_offence() {
    let responses = vec![unknown_user(throttle(20), MINUTE)];
    let mut lab = Lab::new(Policy { responses, ..policy() });
    for _ in 0..5 {
        lab.attempt(EventKind::InvalidUser, A);
        assert_eq!(the_block(lab.changes()).offences, 1);
        lab.pass(10 * SECOND);
    }
}

#[test]
fn of_the_responses_the_first_for_the_source_and_user_is_taken() {
    let narrow = |networks: &[&str], users: &[&str], timeout| Response {
        networks: networks.iter().map(|net| target(net)).collect(),
        users: users.iter().map(|&user| user.into()).collect(),
        ..unknown_user(Measure::default(), timeout)
    };
    let responses =
        vec![narrow(&["198.51.100.0/24"], &[], MINUTE), narrow(&[], &["adm*"], HOUR), narrow(&[], &[], DAY)];
    let mut lab = Lab::new(Policy { responses, ..policy() });
    let mut answer = |source: &str, user: &'static [u8]| {
        let event = Event { user: Some(Cow::Borrowed(user)), ..event(EventKind::InvalidUser, source) };
        lab.pid += 1;
        lab.line(lab.pid, event).decision
    };
    assert_eq!(answer("198.51.100.9", b"admin"), blocks_for("198.51.100.9", MINUTE));
    assert_eq!(answer(A, b"admin"), blocks_for(A, HOUR));
    assert_eq!(answer(B, b"oracle"), blocks_for(B, DAY));
}

#[test]
fn where_the_response_to_a_rule_is_for_others_that_of_the_rule_below_counts() {
    let elsewhere =
        Response { networks: vec![target("198.51.100.0/24")], ..too_many(Measure::default(), DAY) };
    let below = Response { groups: vec!["sshd".into()], timeout: Some(MINUTE), ..Response::default() };
    let mut lab = Lab::new(Policy { responses: vec![elsewhere, below], ..policy() });
    assert_eq!(lab.attempt(EventKind::MaxAttemptsExceeded, A).decision, blocks_for(A, MINUTE));
}

#[test]
fn the_last_step_can_be_for_good() {
    let response = Response {
        repeat_offenders: vec![Some(MINUTE), None],
        forget_after: HOUR,
        ..unknown_user(Measure::default(), MINUTE)
    };
    let mut lab = Lab::new(Policy { responses: vec![response], ..policy() });
    for (wait, offences) in [(30 * MINUTE, 1), (62 * MINUTE, 2), (30 * MINUTE, 1), (30 * MINUTE, 2)] {
        assert_eq!(lab.attempt(EventKind::InvalidUser, A).decision, blocks_for(A, MINUTE));
        assert_eq!(the_block(lab.changes()).offences, offences);
        lab.pass(wait);
        lab.engine.handle_timeout(lab.now);
        lab.changes();
    }
    lab.attempt(EventKind::InvalidUser, A);
    assert_eq!(the_block(lab.changes()).expires, None);
}

fn by_key(source: &str) -> Event<'static> {
    Event { detail: b"publickey", ..event(EventKind::Accepted, source) }
}

#[test]
fn a_login_protects_what_is_throttled_from_all_that_is_stricter() {
    let measures = [
        (throttle(20), Measure::default()),
        (throttle(20), throttle(5)),
        (block_ports(&[80]), block_ports(&[22])),
    ];
    for (first, then) in measures {
        let responses = vec![unknown_user(first, HOUR), too_many(then, HOUR)];
        let mut lab = Lab::new(Policy { responses, ..policy() });
        lab.attempt(EventKind::InvalidUser, A);
        lab.changes();
        lab.line(50, by_key(A));
        let decision = lab.attempt(EventKind::MaxAttemptsExceeded, A).decision;
        assert!(
            matches!(decision, Some(Decision::Refused { because: Refusal::Protected(_), .. })),
            "{first}, then {then}: {decision:?}"
        );
        assert_eq!(refusals(&lab.changes()).len(), 1);
        // What stands goes on.
        lab.pass(10 * SECOND);
        assert_eq!(lab.attempt(EventKind::InvalidUser, A).decision, blocks_for(A, HOUR));
        assert_eq!(lab.engine.block_of(&target(A)).unwrap().measure, first);
        lab.changes();
    }
}

#[test]
fn a_login_from_a_throttled_prefix_shields_no_neighbour() {
    let (a, b) = ("2001:db8::a", "2001:db8::b");
    let responses = vec![unknown_user(throttle(20), HOUR), too_many(Measure::default(), HOUR)];
    let mut lab = Lab::new(Policy { responses, ..policy() });
    assert_eq!(lab.attempt(EventKind::InvalidUser, a).decision, blocks_for("2001:db8::/64", HOUR));
    lab.changes();
    lab.line(50, by_key(a));
    assert_eq!(lab.attempt(EventKind::MaxAttemptsExceeded, b).decision, blocks_for(b, HOUR));
    assert_eq!(the_block(lab.changes()).measure, Measure::default());
    assert!(matches!(
        lab.attempt(EventKind::MaxAttemptsExceeded, a).decision,
        Some(Decision::Refused { .. })
    ));
}
