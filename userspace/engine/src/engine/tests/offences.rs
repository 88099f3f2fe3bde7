//! Which blocks count as offences when they have ended.

use super::rest::of;
use super::*;
use crate::measure::Strictness;

impl Lab {
    /// For how long A is blocked if it offends again.
    fn offends(&mut self) -> Duration {
        let decision = self.attempt(EventKind::MaxAttemptsExceeded, A).decision;
        self.changes();
        let Some(Decision::Block { timeout: Some(timeout), .. }) = decision else { panic!("{decision:?}") };
        timeout
    }

    fn all_end(&mut self) {
        self.pass(2 * HOUR);
        self.engine.handle_timeout(self.now);
        self.changes();
    }

    fn offences(&self) -> Vec<u32> {
        self.engine.offenders(self.now).map(|(_, offender)| offender.offences).collect()
    }
}

/// The ways in which an operator says that a block was a mistake.
fn lifts() -> [fn(&mut Lab); 3] {
    [
        |lab| assert!(lab.engine.unblock(&target(A), End::Lifted, lab.now)),
        |lab| {
            let mut all = lab.engine.lift_all();
            while lab.engine.lift_some(&mut all, lab.now).is_some() {}
        },
        |lab| {
            lab.engine.set_allowed_by_hand(vec![target("203.0.113.0/24")]);
            lab.engine.set_allowed_by_hand(Vec::new());
        },
    ]
}

#[test]
fn what_an_operator_lifts_was_no_offence() {
    for (way, lift) in lifts().into_iter().enumerate() {
        let mut lab = Lab::new(policy());
        assert_eq!(lab.offends(), 10 * MINUTE);
        lift(&mut lab);
        lab.changes();
        assert_eq!(lab.offences(), [], "way {way}: it is forgotten");

        assert_eq!(lab.offends(), 10 * MINUTE, "way {way}");
        lab.all_end();
        assert_eq!(lab.offends(), HOUR, "way {way}: one that ended by itself counts");
        lift(&mut lab);
        lab.changes();
        assert_eq!(lab.offences(), [1], "way {way}: the one before counts");
        assert_eq!(lab.offends(), HOUR, "way {way}");
    }
}

#[test]
fn what_an_operator_asks_for_in_its_place_forgives_nothing() {
    for strictness in Strictness::ALL {
        let mut lab = Lab::new(policy());
        lab.offends();
        let (target, measure, reason) = (target(A), of(strictness), "by hand".into());
        let request = BlockRequest { target, timeout: Some(MINUTE), measure, reason };
        lab.engine.block(request, lab.now).unwrap();
        lab.all_end();
        assert_eq!(lab.offends(), HOUR, "{strictness:?}");
    }
}

#[test]
fn blocks_of_one_offence_that_are_lifted_together_are_forgiven_once() {
    let answer = |rule, measure| Response {
        rules: vec![RuleId(rule)],
        measure,
        timeout: Some(10 * MINUTE),
        repeat_offenders: vec![Some(HOUR), Some(DAY)],
        ..Response::default()
    };
    let responses = vec![answer(5710, of(Strictness::Throttle)), answer(5758, Measure::default())];
    let mut lab = Lab::new(Policy { responses, ..policy() });
    lab.offends();
    lab.all_end();
    lab.attempt(EventKind::InvalidUser, A);
    lab.changes();
    assert_eq!(lab.offends(), HOUR);
    assert_eq!(lab.engine.resting().count(), 1, "the throttle");
    lab.engine.unblock(&target(A), End::Lifted, lab.now);
    assert_eq!(ends(&lab.changes()).len(), 2);
    assert_eq!(lab.offends(), HOUR);
}

#[test]
fn what_became_protected_while_nobody_looked_was_no_offence() {
    let mut before = Lab::new(policy());
    before.offends();
    let blocks = before.engine.blocks().cloned().collect();
    let offenders = before.engine.offenders(before.now).collect();
    let mut lab = Lab::new(Policy { allow: vec![target(A)], ..policy() });
    lab.engine.restore(blocks, offenders, lab.now);
    assert_eq!(ends(&lab.changes()), [(A.to_owned(), End::Protected)]);
    assert_eq!(lab.offences(), []);
}
