//! What becomes of weaker measures while stricter ones stand, and when these end.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::measure::{Action, Ports, Rate, Scope, Strictness};

fn throttle() -> Measure {
    let number = NonZeroU32::new(20).unwrap();
    Measure { action: Action::Throttle(Rate { per_second: number, burst: number }), scope: Scope::default() }
}

fn port(port: u16) -> Measure {
    Measure { action: Action::Block, scope: Scope { ports: Ports::new(&[port]).unwrap(), new_only: false } }
}

pub(super) fn of(strictness: Strictness) -> Measure {
    match strictness {
        Strictness::Throttle => throttle(),
        Strictness::Part => port(22),
        Strictness::Everything => Measure::default(),
    }
}

impl Lab {
    fn asks(&mut self, text: &str, measure: Measure, timeout: Duration) {
        let request =
            BlockRequest { target: target(text), timeout: Some(timeout), measure, reason: "by hand".into() };
        self.engine.block(request, self.now).unwrap();
    }

    /// What the engine has done after so long, in words.
    fn after(&mut self, time: Duration) -> Vec<String> {
        self.pass(time);
        self.engine.handle_timeout(self.now);
        self.changes().iter().map(told).collect()
    }

    /// What stands in the gate for an address.
    fn measure_of(&self, address: &str) -> Option<Measure> {
        match self.engine.check(address.parse().unwrap(), self.now) {
            Standing::Blocked(block) => Some(block.measure),
            _ => None,
        }
    }
}

pub(super) fn told(change: &Change) -> String {
    match change {
        Change::Block(block) => format!("{}: {}", block.target, block.measure),
        Change::Rest { block, place, beneath } => {
            format!("{}: {} rests beneath {beneath} ({place:?})", block.target, block.measure.action.name())
        }
        Change::Resume(block) => format!("{}: {} again", block.target, block.measure.action.name()),
        Change::Unblock { block, end, place, .. } => {
            format!("{}: {} {} ({place:?})", block.target, block.measure.action.name(), end.name())
        }
        other => format!("{other:?}"),
    }
}

fn policy_of(first: Measure, then: Measure) -> Policy {
    let response = |rule, measure, timeout| Response {
        rules: vec![RuleId(rule)],
        measure,
        timeout: Some(timeout),
        ..Response::default()
    };
    Policy { responses: vec![response(5710, first, HOUR), response(5758, then, 100 * SECOND)], ..policy() }
}

#[test]
fn a_throttle_comes_back_after_the_block_of_another_rule_and_has_its_own_end() {
    let mut lab = Lab::new(policy_of(throttle(), Measure::default()));
    lab.attempt(EventKind::InvalidUser, A);
    lab.after(10 * SECOND);
    lab.attempt(EventKind::MaxAttemptsExceeded, A);
    assert_eq!(
        lab.after(Duration::ZERO),
        ["203.0.113.7: block", "203.0.113.7: throttle rests beneath 203.0.113.7 (TakenOver)"]
    );
    assert_eq!(lab.attempt(EventKind::InvalidUser, A).decision, standing(A), "the stricter answers");
    assert_eq!(
        lab.after(100 * SECOND),
        ["203.0.113.7: throttle again", "203.0.113.7: block expired (TakenOver)"]
    );
    assert_eq!(lab.measure_of(A), Some(throttle()));
    assert_eq!(
        lab.engine.poll_timeout(),
        Some(Mono(0).after(2 * HOUR)),
        "an hour from when it was asked for"
    );
    assert_eq!(lab.after(HOUR), ["203.0.113.7: throttle expired (Gate)"]);
    assert_eq!(lab.engine.blocks().count() + lab.engine.resting().count(), 0);
}

#[test]
fn what_is_over_while_it_rests_does_not_come_back() {
    let mut lab = Lab::new(policy());
    lab.asks(A, port(22), MINUTE);
    lab.asks(A, Measure::default(), HOUR);
    lab.changes();
    assert_eq!(lab.after(MINUTE), ["203.0.113.7: block expired (Nowhere)"]);
    assert_eq!(lab.measure_of(A), Some(Measure::default()));
    assert_eq!(lab.after(HOUR), ["203.0.113.7: block expired (Gate)"]);
}

#[test]
fn one_of_each_strictness_comes_back_in_turn() {
    let mut lab = Lab::new(policy());
    lab.asks(A, throttle(), HOUR);
    lab.asks(A, port(22), 10 * MINUTE);
    lab.asks(A, port(443), 20 * MINUTE);
    lab.asks(A, Measure::default(), MINUTE);
    lab.changes();
    lab.after(MINUTE);
    assert_eq!(lab.measure_of(A), Some(port(443)), "an operator's last word on ports");
    lab.after(19 * MINUTE);
    assert_eq!(lab.measure_of(A), Some(throttle()));
    // What an operator lifts is all of it.
    lab.asks(A, Measure::default(), MINUTE);
    lab.changes();
    assert!(lab.engine.unblock(&target(A), End::Lifted, lab.now));
    assert_eq!(
        lab.after(Duration::ZERO),
        ["203.0.113.7: throttle lifted (Nowhere)", "203.0.113.7: block lifted (Gate)"]
    );
}

#[test]
fn an_operator_who_says_it_again_goes_on_with_what_rests() {
    let mut lab = Lab::new(policy());
    lab.asks(A, throttle(), HOUR);
    let first = the_block(lab.changes()).created;
    lab.pass(MINUTE);
    lab.asks(A, Measure::default(), HOUR);
    lab.changes();
    lab.pass(MINUTE);
    lab.asks(A, throttle(), DAY);
    let changes = lab.changes();
    let [Change::Resume(_), Change::Unblock { end: End::Withdrawn, .. }, Change::Block(again)] = &changes[..]
    else {
        panic!("{changes:#?}")
    };
    assert_eq!((again.created, again.measure), (first, throttle()));
    assert_eq!(again.expires.map(|expiry| expiry.mono), Some(lab.now.mono.after(DAY)));
}

#[test]
fn a_weaker_block_within_a_network_rests_while_the_networks_stands() {
    let mut lab = Lab::new(policy_of(throttle(), Measure::default()));
    lab.attempt(EventKind::InvalidUser, A);
    lab.attempt(EventKind::MaxAttemptsExceeded, B);
    lab.attempt(EventKind::InvalidUser, "203.0.114.1");
    lab.changes();
    lab.asks("203.0.113.0/24", Measure::default(), MINUTE);
    assert_eq!(
        lab.after(Duration::ZERO),
        ["203.0.113.0/24: block", "203.0.113.7: throttle rests beneath 203.0.113.0/24 (Gate)"]
    );
    assert_eq!(lab.attempt(EventKind::InvalidUser, A).decision, standing("203.0.113.0/24"));
    assert_eq!((lab.engine.blocks().count(), lab.engine.resting().count()), (3, 1));
    assert_eq!(lab.after(MINUTE), ["203.0.113.7: throttle again", "203.0.113.0/24: block expired (Gate)"]);
    // Asked for beneath it, it rests from the first.
    lab.asks("203.0.113.0/24", port(22), MINUTE);
    lab.changes();
    lab.asks("203.0.113.9", throttle(), HOUR);
    assert_eq!(lab.after(Duration::ZERO), ["203.0.113.9: throttle rests beneath 203.0.113.0/24 (Nowhere)"]);
    assert_eq!(lab.measure_of("203.0.113.9"), Some(port(22)));
}

#[test]
fn what_takes_the_stricter_ones_place_is_restored_with_it() {
    let mut lab = Lab::new(policy());
    lab.asks(A, throttle(), HOUR);
    let weaker = the_block(lab.changes());
    lab.asks(A, Measure::default(), MINUTE);
    let Some(Change::Block(stricter)) = lab.changes().into_iter().next() else { panic!() };

    for (waited, expected) in [
        (10 * SECOND, ["203.0.113.7: block", "203.0.113.7: throttle rests beneath 203.0.113.7 (Nowhere)"]),
        (2 * MINUTE, ["203.0.113.7: throttle to 20/s (burst 20)", "203.0.113.7: block expired (TakenOver)"]),
        (2 * HOUR, ["203.0.113.7: block expired (Gate)", "203.0.113.7: throttle expired (Gate)"]),
    ] {
        let mut next = Lab::new(policy());
        next.pass(waited);
        next.engine.restore(vec![weaker.clone().into(), Arc::clone(&stricter)], Vec::new(), next.now);
        assert_eq!(next.after(Duration::ZERO), expected);
    }
}

#[test]
fn what_was_over_while_it_rested_and_nobody_ran_leaves_the_stricter_in_the_gate() {
    let mut lab = Lab::new(policy());
    lab.asks(A, throttle(), MINUTE);
    lab.asks(A, Measure::default(), HOUR);
    lab.asks(B, throttle(), MINUTE);
    lab.changes();
    let blocks = lab.engine.blocks().chain(lab.engine.resting()).cloned().collect();
    let mut next = Lab::new(policy());
    next.pass(2 * MINUTE);
    next.engine.restore(blocks, Vec::new(), next.now);
    assert_eq!(
        next.after(Duration::ZERO),
        [
            "203.0.113.8: throttle expired (Gate)",
            "203.0.113.7: block",
            "203.0.113.7: throttle expired (TakenOver)"
        ]
    );
}

#[test]
fn what_an_operator_softens_comes_in_before_the_stricter_goes() {
    let mut lab = Lab::new(policy());
    lab.asks("203.0.113.7", port(22), DAY);
    lab.asks("203.0.113.0/24", Measure::default(), DAY);
    lab.changes();
    lab.asks("203.0.113.0/24", throttle(), HOUR);
    assert_eq!(
        lab.after(Duration::ZERO),
        [
            "203.0.113.7: block again",
            "203.0.113.0/24: throttle to 20/s (burst 20)",
            "203.0.113.0/24: block lifted (TakenOver)"
        ]
    );
}

#[test]
fn what_the_kernel_does_not_take_leaves_the_weaker_one_in_force() {
    let mut lab = Lab::new(policy());
    lab.asks(A, throttle(), HOUR);
    lab.changes();
    lab.asks(A, Measure::default(), MINUTE);
    let changes = lab.untold();
    let Change::Block(block) = &changes[0] else { panic!("{changes:?}") };
    lab.engine.applied(block, Applied::Failed("no memory".into()), lab.now);
    assert_eq!(
        lab.after(Duration::ZERO),
        ["203.0.113.7: throttle again", "203.0.113.7: block failed (TakenOver)"]
    );
    assert_eq!(lab.measure_of(A), Some(throttle()));
}

/// An operator's doings, among networks that lie in each other.
#[derive(Clone, Debug)]
enum Step {
    Block(Target, Strictness, u64),
    Unblock(Target),
    Pass(u64),
    Allow(Option<Target>),
    /// After so long.
    Restart(u64),
}

fn any_target() -> impl Strategy<Value = Target> {
    (0..4u8, 0..4u8).prop_map(|(n, kind)| match kind {
        0 | 1 => target(&format!("203.0.113.{n}")),
        2 => target(&format!("203.0.113.{}/31", n & 2)),
        _ => target("203.0.113.0/30"),
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any_target(), 0..3usize, 1..100u64).prop_map(|(t, s, time)| Step::Block(t, Strictness::ALL[s], time)),
        2 => any_target().prop_map(Step::Unblock),
        2 => (1..40u64).prop_map(Step::Pass),
        1 => prop::option::of(any_target()).prop_map(Step::Allow),
        1 => (0..40u64).prop_map(Step::Restart),
    ]
}

/// Those that the targets cover.
const ADDRESSES: [IpAddr; 4] = [host(0), host(1), host(2), host(3)];

const fn host(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, number))
}

/// What was asked for and is not over, each with its end.
type Asked = BTreeMap<(Target, Strictness), Mono>;

/// What the changes make of the gate, and of the record.
#[derive(Default)]
struct CarriedOut {
    /// What befalls each target there, and until when.
    gate: BTreeMap<Target, (Strictness, Mono)>,
    /// Whether each incident rests.
    incidents: BTreeMap<(Target, Strictness), bool>,
}

impl CarriedOut {
    fn take(&mut self, change: Change, restored: bool) -> Result<(), TestCaseError> {
        match change {
            Change::Block(block) => {
                let key = (block.target, block.measure.strictness());
                self.insert(&block);
                let rested = self.incidents.insert(key, false);
                prop_assert!(
                    restored || rested != Some(true),
                    "{:?} rested, and nothing told that it does no longer",
                    key
                );
            }
            Change::Rest { block, place, .. } => {
                let key = (block.target, block.measure.strictness());
                self.leave(key, place, restored)?;
                self.incidents.insert(key, true);
            }
            Change::Resume(block) => {
                let key = (block.target, block.measure.strictness());
                self.insert(&block);
                prop_assert_eq!(self.incidents.insert(key, false), Some(true));
            }
            Change::Unblock { block, place, .. } => {
                let key = (block.target, block.measure.strictness());
                self.leave(key, place, restored)?;
                prop_assert!(self.incidents.remove(&key).is_some());
            }
            Change::Refused(_) | Change::Run(_) => {}
        }
        Ok(())
    }

    fn insert(&mut self, block: &Block) {
        let end = block.expires.map_or(Mono(u64::MAX), |expiry| expiry.mono);
        self.gate.insert(block.target, (block.measure.strictness(), end));
    }

    fn leave(
        &mut self,
        (target, strictness): (Target, Strictness),
        place: Place,
        restored: bool,
    ) -> Result<(), TestCaseError> {
        let in_gate = self.gate.get(&target).map(|(strictness, _)| *strictness);
        match place {
            Place::Gate => {
                self.gate.remove(&target);
                let rested = in_gate.is_none() && self.incidents.get(&(target, strictness)) == Some(&true);
                prop_assert!(
                    in_gate == Some(strictness) || restored && rested,
                    "{} has {:?}",
                    target,
                    in_gate
                );
            }
            Place::TakenOver => {
                prop_assert!(
                    in_gate.is_some_and(|other| other != strictness),
                    "{} has {:?}",
                    target,
                    in_gate
                );
            }
            Place::Nowhere => prop_assert!(in_gate != Some(strictness)),
        }
        Ok(())
    }

    /// What befalls each address at a time, by the most specific entry that is not over.
    fn befalls(&self, now: Mono) -> [Option<Strictness>; 4] {
        ADDRESSES.map(|address| {
            let covering =
                self.gate.iter().filter(|(target, (_, end))| target.contains(address) && *end > now);
            covering.max_by_key(|(target, _)| target.prefix_len()).map(|(_, (strictness, _))| *strictness)
        })
    }
}

proptest! {
    /// What befalls an address is the strictest of all that was asked for it and is not over: by the most specific entry of the
    /// gate, as the kernel looks it up. While one step is carried out, it is never less than both before and after.
    #[test]
    fn the_strictest_of_what_was_asked_for_befalls_an_address(steps in prop::collection::vec(step(), 1..80)) {
        let mut lab = Lab::new(policy());
        let (mut asked, mut allowed) = (Asked::new(), None::<Target>);
        let mut carried_out = CarriedOut::default();
        for step in steps {
            let mut restored = false;
            match step {
                Step::Block(target, strictness, seconds) => {
                    let timeout = Duration::from_secs(seconds);
                    let request =
                        BlockRequest { target, timeout: Some(timeout), measure: of(strictness), reason: "".into() };
                    if lab.engine.block(request, lab.now).is_ok() {
                        asked.retain(|(other, stricter), _| *other != target || *stricter < strictness);
                        asked.insert((target, strictness), lab.now.mono.after(timeout));
                    } else {
                        prop_assert!(allowed.is_some_and(|allowed| allowed.overlaps(&target)));
                    }
                }
                Step::Unblock(target) => {
                    let any = asked.keys().any(|(other, _)| *other == target);
                    prop_assert_eq!(lab.engine.unblock(&target, End::Lifted, lab.now), any);
                    asked.retain(|(other, _), _| *other != target);
                }
                Step::Pass(seconds) => {
                    lab.pass(Duration::from_secs(seconds));
                    lab.engine.handle_timeout(lab.now);
                    asked.retain(|_, end| *end > lab.now.mono);
                }
                Step::Allow(network) => {
                    allowed = network;
                    lab.engine.set_allowed_by_hand(network.into_iter().collect());
                    asked.retain(|(target, _), _| !network.is_some_and(|network| network.overlaps(target)));
                }
                Step::Restart(seconds) => {
                    lab.pass(Duration::from_secs(seconds));
                    asked.retain(|_, end| *end > lab.now.mono);
                    let blocks = lab.engine.blocks().chain(lab.engine.resting()).cloned().collect();
                    lab.engine = Engine::new(policy());
                    lab.engine.set_allowed_by_hand(allowed.into_iter().collect());
                    lab.engine.restore(blocks, Vec::new(), lab.now);
                    restored = true;
                }
            }
            let now = lab.now.mono;
            let wanted = ADDRESSES.map(|address| {
                asked.keys().filter(|(target, _)| target.contains(address)).map(|(_, strictness)| *strictness).max()
            });
            let before = carried_out.befalls(now);
            for change in lab.changes() {
                let what = told(&change);
                carried_out.take(change, restored)?;
                for (address, meanwhile) in carried_out.befalls(now).into_iter().enumerate() {
                    prop_assert!(meanwhile >= before[address].min(wanted[address]), "a gap for {} after {}", address, what);
                }
            }
            prop_assert_eq!(carried_out.befalls(now), wanted);
            let on_record: Vec<_> = carried_out.incidents.keys().copied().collect();
            prop_assert_eq!(on_record, asked.keys().copied().collect::<Vec<_>>());
            let in_force: BTreeMap<_, _> =
                lab.engine.blocks().map(|block| (block.target, block.measure.strictness())).collect();
            let gate = carried_out.gate.iter().map(|(target, (strictness, _))| (*target, *strictness));
            prop_assert_eq!(gate.collect::<BTreeMap<_, _>>(), in_force);
            let rests = lab.engine.resting().count();
            prop_assert_eq!(rests, carried_out.incidents.values().filter(|rests| **rests).count());
        }
    }
}
