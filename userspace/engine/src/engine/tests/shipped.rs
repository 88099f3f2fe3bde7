//! The rules that are shipped, each made to fire.

use super::*;

/// Reads the shipped rules. The controller's own reader, which tells every fault by line, is no part of this crate.
pub(super) fn rules() -> Vec<Rule> {
    let table: toml::Table = include_str!("../../../../rules/sshd.toml").parse().unwrap();
    table["rule"].as_array().unwrap().iter().map(rule).collect()
}

fn rule(value: &toml::Value) -> Rule {
    let number = |value: &toml::Value| u32::try_from(value.as_integer().unwrap()).unwrap();
    let texts = |value: &toml::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let when = match value.get("base") {
        Some(base) => Condition::Count(Correlation {
            base: match base {
                toml::Value::Array(several) => several.iter().map(|base| RuleId(number(base))).collect(),
                one => vec![RuleId(number(one))],
            },
            count: number(&value["count"]),
            window: SECOND * value["window"].as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap(),
            same: match value.get("same").map(|same| same.as_str().unwrap()) {
                None | Some("source") => Same::Source,
                Some("user") => Same::User,
                Some("network") => Same::Network,
                Some(other) => panic!("{other}"),
            },
            distinct: match value.get("distinct").map(|distinct| distinct.as_str().unwrap()) {
                None => None,
                Some("source") => Some(Distinct::Source),
                Some("user") => Some(Distinct::User),
                Some(other) => panic!("{other}"),
            },
        }),
        None => Condition::Event(EventMatch {
            decoder: None,
            kinds: texts(&value["events"]).iter().map(|name| EventKind::from_name(name).unwrap()).collect(),
            invalid_user: value.get("invalid_user").map(|wanted| wanted.as_bool().unwrap()),
            detail: value.get("detail").map(|detail| detail.as_str().unwrap().to_owned()),
        }),
    };
    Rule {
        id: RuleId(number(&value["id"])),
        level: u8::try_from(number(&value["level"])).unwrap(),
        groups: texts(&value["groups"]),
        description: value["description"].as_str().unwrap().to_owned(),
        when,
    }
}

/// An event of `kind` as `wanted` asks for it, that counts as one attempt.
fn example(kind: EventKind, wanted: &EventMatch) -> Event<'static> {
    let detail: &'static str = wanted.detail.clone().unwrap_or_default().leak();
    Event {
        invalid_user: wanted.invalid_user.unwrap_or(false),
        trace: Trace::Own,
        attack: true,
        detail: detail.as_bytes(),
        ..event(kind, A)
    }
}

/// An event that the rule takes, or the rule that it counts.
fn example_of(rules: &[Rule], id: RuleId) -> Event<'static> {
    let rule = rules.iter().find(|rule| rule.id == id).unwrap();
    match &rule.when {
        Condition::Event(wanted) => example(wanted.kinds[0], wanted),
        Condition::Count(correlation) => example_of(rules, correlation.base[0]),
    }
}

#[test]
fn ids_and_levels_are_wazuhs() {
    let levels: &[(u8, &[u32])] = &[
        (14, &[5707, 5714]),
        (10, &[5703, 5705, 5712, 5719, 5720, 5763]),
        (8, &[5701, 5758]),
        (6, &[5706, 5713, 5731, 5747, 5748]),
        (5, &[5702, 5710, 5716, 5718, 5726, 5737, 5738, 5760]),
        (4, &[5704, 5717, 5728, 5730, 5739, 5740, 5741, 5742, 5743, 5744, 5745, 5746, 5749, 5762]),
        (3, &[5715, 5755]),
        (2, &[5752, 5753, 5759]),
        (1, &[5751, 5754]),
        (0, &[5700, 5721, 5722, 5723, 5725, 5727, 5732, 5733, 5734, 5735, 5736, 5750, 5756, 5757, 5761]),
    ];
    let mut expected: Vec<(u32, u8)> =
        levels.iter().flat_map(|&(level, ids)| ids.iter().map(move |&id| (id, level))).collect();
    expected.sort_unstable();
    let mut shipped: Vec<(u32, u8)> =
        rules().iter().map(|rule| (rule.id.0, rule.level)).filter(|&(id, _)| id < 205_700).collect();
    shipped.sort_unstable();
    assert_eq!(shipped, expected);
}

#[test]
fn every_single_rule_fires_on_each_of_its_events() {
    for rule in rules() {
        let Condition::Event(wanted) = &rule.when else { continue };
        for &kind in &wanted.kinds {
            let fired = without_responses().line(1, example(kind, wanted)).rule;
            assert_eq!(fired, Some(rule.id.0), "{kind:?}");
        }
    }
}

#[test]
fn every_kind_but_the_marks_of_a_session_has_a_rule() {
    let rules = RuleSet::new(rules()).unwrap();
    let untaken: Vec<EventKind> =
        EventKind::ALL.iter().copied().filter(|&kind| rules.single(&event(kind, A)).is_none()).collect();
    assert_eq!(untaken, [EventKind::SessionOpened, EventKind::SessionClosed, EventKind::Custom]);
}

#[test]
fn every_correlated_rule_fires_at_its_count_and_at_the_edge_of_its_window() {
    let rules = rules();
    for rule in &rules {
        let Condition::Count(Correlation { count, window, same, distinct, .. }) = rule.when else { continue };
        if (same, distinct) != (Same::Source, None) {
            continue;
        }
        let example = example_of(&rules, rule.id);
        // All but the last come at once; the last comes when the window's length has passed, or a microsecond later.
        for (beyond, expected) in [(Duration::ZERO, true), (Duration::from_micros(1), false)] {
            let mut lab = without_responses();
            for n in 1..count {
                assert_ne!(lab.line(n, example.clone()).rule, Some(rule.id.0), "attempt {n}");
            }
            lab.pass(window + beyond);
            assert_eq!(lab.line(count, example.clone()).rule == Some(rule.id.0), expected, "{}", rule.id.0);
        }
    }
}

/// The address of the `n`th host: of one network where `near`, each of another network otherwise.
fn host(n: u32, near: bool, v6: bool) -> String {
    match (near, v6) {
        (true, false) => format!("203.0.113.{n}"),
        (false, false) => format!("203.{n}.113.7"),
        (true, true) => format!("2001:db8:1:{n:x}::7"),
        (false, true) => format!("2001:db8:{n:x}::7"),
    }
}

#[test]
fn rules_of_many_sources_fire_at_their_count_and_at_the_edge_of_their_window() {
    let rules = rules();
    for rule in &rules {
        let Condition::Count(Correlation { count, window, same, distinct: Some(Distinct::Source), .. }) =
            rule.when
        else {
            continue;
        };
        let example = example_of(&rules, rule.id);
        for (v6, beyond) in
            [(false, Duration::ZERO), (true, Duration::ZERO), (false, Duration::from_micros(1))]
        {
            let mut lab = without_responses();
            let attempt = |lab: &mut Lab, n: u32| {
                // What is not shared differs.
                let source = host(n, same == Same::Network, v6).parse().ok();
                let user = if same == Same::User { "root".into() } else { format!("user{n}") };
                let user = Some(Cow::Owned(user.into_bytes()));
                lab.pid += 1;
                lab.line(lab.pid, Event { source, user, ..example.clone() }).rule == Some(rule.id.0)
            };
            assert!(!(1..count).any(|n| attempt(&mut lab, n)), "rule {} fires too early", rule.id.0);
            // A source that comes again is no other source.
            assert!(!attempt(&mut lab, 1));
            lab.pass(window + beyond);
            assert_eq!(attempt(&mut lab, count), beyond.is_zero(), "rule {} at its count", rule.id.0);
            if beyond.is_zero() {
                assert!(attempt(&mut lab, count + 1), "rule {} beyond its count", rule.id.0);
            }
        }
    }
}

#[test]
fn a_user_attacked_from_many_sources_gets_each_further_source_blocked_where_that_is_asked_for() {
    let answer = Response { rules: vec![RuleId(205_701)], timeout: Some(10 * MINUTE), ..Response::default() };
    let mut lab = Lab::new(Policy { responses: vec![answer], ..policy() });
    let mut attempt = |n: u32| lab.attempt(EventKind::FailedPassword, &host(n, false, false));
    assert!((1..10).all(|n| attempt(n).decision.is_none()));
    for n in [10, 11, 3] {
        let seen = attempt(n);
        assert_eq!(
            (seen.rule, seen.decision),
            (Some(205_701), blocks_for(&host(n, false, false), 10 * MINUTE))
        );
    }
    let blocks: Vec<u32> = lab.engine.blocks().map(|block| block.attempts).collect();
    assert_eq!(blocks, [1, 1, 1], "each source is held to its own attempts");
}

#[test]
fn a_scanned_network_is_told_and_not_blocked() {
    let mut lab = Lab::new(policy());
    let seen = (1..=10).map(|n| {
        let user = Some(Cow::Owned(format!("user{n}").into_bytes()));
        let event = Event { user, ..event(EventKind::FailedPassword, &host(n, true, false)) };
        lab.line(n, event)
    });
    let last = seen.last().unwrap();
    assert_eq!((last.rule, last.decision), (Some(205_702), None));
}

#[test]
fn the_forms_of_a_failure_have_wazuhs_ids() {
    use EventKind as K;
    let rule = |event| without_responses().line(1, event).rule;
    for (kind, user_exists, user_does_not) in [
        (K::FailedPassword, 5760, 5710),
        (K::FailedKeyboardInteractive, 5760, 5710),
        (K::FailedNone, 5716, 5710),
        (K::FailedPublickey, 5716, 5710),
        (K::PostponedKeyboardInteractive, 5700, 5710),
        (K::PamAuthError, 5760, 5710),
        (K::PamUnknownUser, 5716, 5716),
        (K::UserNotAllowed, 5718, 5718),
        (K::MaxAttemptsExceeded, 5758, 5758),
        (K::TooManyFailures, 5758, 5710),
        (K::ConnectionClosed, 5722, 5710),
        (K::ConnectionReset, 5762, 5710),
        (K::Disconnected, 5761, 5710),
        (K::ReceivedDisconnect, 5721, 5721),
    ] {
        assert_eq!(rule(event(kind, A)), Some(user_exists), "{kind:?}");
        let invalid = Event { invalid_user: true, ..event(kind, A) };
        assert_eq!(rule(invalid), Some(user_does_not), "{kind:?}");
    }
    for (kind, detail, id) in [
        (K::NegotiationFailed, "cipher", 5753),
        (K::NegotiationFailed, "MAC", 5759),
        (K::NegotiationFailed, "compression", 5750),
        (K::ListenFailed, "Address already in use.", 5727),
        (K::NetworkError, "Broken pipe", 5735),
        (K::NetworkError, "something else", 5700),
    ] {
        assert_eq!(rule(Event { detail: detail.as_bytes(), ..event(kind, A) }), Some(id), "{detail}");
    }
}
