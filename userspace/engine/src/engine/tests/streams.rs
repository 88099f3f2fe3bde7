//! Whatever the stream: nothing protected is blocked, and the gate holds what the engine says it holds.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Line { pid: u32, age: Duration, event: Event<'static> },
    Operator { text: String, timeout: Option<u64> },
    Lift { host: u8 },
    Pass { seconds: u64 },
    SetClock { back: bool, hours: u32 },
    Allow { host: Option<u8> },
    Host { own: u8 },
}

/// What the kernel answers to a block.
fn answer() -> impl Strategy<Value = Applied> {
    prop_oneof![8 => Just(Applied::Done), 1 => Just(Applied::TableFull), 1 => Just(Applied::Failed("no".into()))]
}

fn address(host: u8, v6: bool) -> String {
    if v6 { format!("2001:db8:0:{}::{host:x}", host % 4) } else { format!("203.0.113.{host}") }
}

prop_compose! {
    fn any_event()(
        kind in prop::sample::select(EventKind::ALL),
        trace in prop_oneof![
            Just(Trace::None),
            Just(Trace::Announced),
            Just(Trace::Failed),
            Just(Trace::Own),
            Just(Trace::Ending),
            (0..4u32).prop_map(Trace::Pam),
        ],
        host in 0..12u8,
        v6 in any::<bool>(),
        named in prop::bool::weighted(0.8),
        invalid_user in any::<bool>(),
        public_key in any::<bool>(),
    ) -> Event<'static> {
        let event = event(kind, &address(host, v6));
        let source = event.source.filter(|_| named);
        Event { trace, invalid_user, source, detail: if public_key { b"publickey" } else { b"password" }, ..event }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let line = (any_event(), 0..30u32, 0..200u32).prop_map(|(event, pid, age)| {
        let age = SECOND * age;
        Step::Line { pid, age, event }
    });
    let text = prop_oneof![
        (0..12u8, any::<bool>()).prop_map(|(host, v6)| address(host, v6)),
        Just("203.0.113.0/28".to_owned()),
        Just("2001:db8::/32".to_owned()),
        Just("2001:db8:0:1::/64".to_owned()),
        Just("127.0.0.0/8".to_owned()),
        Just("0.0.0.0/0".to_owned()),
    ];
    let timeout = prop::option::of(1..500u64);
    prop_oneof![
        20 => line,
        3 => (text, timeout).prop_map(|(text, timeout)| Step::Operator { text, timeout }),
        1 => (0..12u8).prop_map(|host| Step::Lift { host }),
        3 => (0..90u64).prop_map(|seconds| Step::Pass { seconds }),
        1 => (any::<bool>(), 0..30u32).prop_map(|(back, hours)| Step::SetClock { back, hours }),
        1 => prop::option::of(0..12u8).prop_map(|host| Step::Allow { host }),
        1 => (0..12u8).prop_map(|own| Step::Host { own }),
    ]
}

/// The lab, with a gate that is as the changes make it.
struct Gated {
    lab: Lab,
    base: Policy,
    gate: BTreeMap<Target, Option<Mono>>,
    allowed: Option<Target>,
    own: Vec<Target>,
    /// Whoever did something, or was named by an operator.
    named: Vec<IpAddr>,
}

impl Gated {
    fn new() -> Gated {
        let everything = Response {
            groups: vec!["sshd".into()],
            timeout: Some(100 * SECOND),
            repeat_offenders: vec![Some(200 * SECOND)],
            ..Response::default()
        };
        let limits = Limits { blocks: 5, prefixes: 2, sources: 6 };
        let base = Policy { responses: vec![everything], limits, ..policy() };
        let (gate, named) = (BTreeMap::new(), Vec::new());
        Gated { lab: Lab::new(base.clone()), base, gate, allowed: None, own: Vec::new(), named }
    }

    fn step(&mut self, step: Step) {
        let lab = &mut self.lab;
        match step {
            Step::Line { pid, age, event } => {
                self.named.extend(event.source);
                lab.late(age, pid, event);
            }
            Step::Operator { text, timeout } => {
                if lab.operator(&text, timeout.map(Duration::from_secs)).is_ok() {
                    self.named.push(target(&text).address());
                }
            }
            Step::Lift { host } => {
                lab.engine.unblock(&target(&address(host, false)), End::Lifted, lab.now);
            }
            Step::Pass { seconds } => {
                lab.pass(Duration::from_secs(seconds));
                lab.engine.handle_timeout(lab.now);
            }
            Step::SetClock { back, hours } => {
                let by = HOUR * hours;
                lab.now.wall = if back { lab.now.wall.before(by) } else { lab.now.wall.after(by) };
            }
            Step::Allow { host } => {
                self.allowed = host.map(|host| target(&address(host, false)));
                let allow = self.allowed.into_iter().collect();
                lab.engine.reload(Policy { allow, ..self.base.clone() });
            }
            Step::Host { own } => {
                self.own = [address(own, false), address(own, true)].map(|text| target(&text)).to_vec();
                let own = self.own.iter().map(Target::address).collect();
                lab.engine.set_host(&HostAddresses { own, ..HostAddresses::default() });
            }
        }
    }

    fn carry_out(&mut self, answers: &mut impl Iterator<Item = Applied>) {
        while let Some(change) = self.lab.engine.next_change() {
            match change {
                Change::Block(block) | Change::Resume(block) => {
                    let result = answers.next().unwrap_or(Applied::Done);
                    if result == Applied::Done {
                        self.gate.insert(block.target, block.expires.map(|expiry| expiry.mono));
                    }
                    self.lab.engine.applied(&block, result, self.lab.now);
                }
                Change::Unblock { block, place: Place::Gate, .. }
                | Change::Rest { block, place: Place::Gate, .. } => {
                    self.gate.remove(&block.target);
                }
                Change::Unblock { .. } | Change::Rest { .. } => {}
                Change::Refused(_) | Change::Run(_) => {}
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let engine = &self.lab.engine;
        let says: BTreeMap<_, _> =
            engine.blocks().map(|block| (block.target, block.expires.map(|expiry| expiry.mono))).collect();
        prop_assert_eq!(&self.gate, &says);
        for blocked in self.gate.keys() {
            prop_assert!(!self.allowed.iter().chain(&self.own).any(|protected| blocked.overlaps(protected)));
            prop_assert!(
                self.named.iter().any(|&source| blocked.contains(source)),
                "{} did nothing",
                blocked
            );
        }
        for v6 in [true, false] {
            let of_family = self.gate.keys().filter(|target| target.address().is_ipv6() == v6);
            let (exact, prefixes): (Vec<&Target>, Vec<&Target>) =
                of_family.partition(|target| target.is_exact() || (v6 && target.prefix_len() == 64));
            prop_assert!(exact.len() <= 5 && prefixes.len() <= 2);
        }
        prop_assert!(self.gate.values().flatten().all(|&expires| expires > self.lab.now.mono));
        prop_assert_eq!(engine.poll_timeout(), self.gate.values().flatten().min().copied());
        prop_assert!(engine.counts().tracked <= 6);
        Ok(())
    }
}

/// What each line of `lines` fires: the source, as a number of the test's own, and how long after the one before it is
/// written.
fn fired(lines: &[(u8, u64)], rules: &[Rule], only: Option<u8>) -> Vec<Option<u32>> {
    let rules = RuleSet::new(rules.to_vec()).unwrap();
    let mut lab = Lab::new(Policy { rules, responses: Vec::new(), ..policy() });
    let mut fired = Vec::new();
    for &(host, seconds) in lines {
        lab.pass(Duration::from_secs(seconds));
        if only.is_none_or(|only| only == host) {
            fired.push(lab.attempt(EventKind::FailedPassword, &address(host, false)).rule);
        }
    }
    fired
}

proptest! {
    /// A rule that fired for one source never hides another: what a source's attempts fire does not depend on whether
    /// others try as well.
    #[test]
    fn sources_do_not_hide_each_other(lines in prop::collection::vec((0..3u8, 0..20u64), 0..80)) {
        let spread = |rule: &Rule| matches!(&rule.when, Condition::Count(correlation) if !correlation.is_by_source());
        let rules: Vec<Rule> = shipped::rules().into_iter().filter(|rule| !spread(rule)).collect();
        let all = fired(&lines, &rules, None);
        for host in 0..3 {
            let among_others: Vec<Option<u32>> =
                lines.iter().zip(&all).filter(|((of, _), _)| *of == host).map(|(_, rule)| *rule).collect();
            prop_assert_eq!(among_others, fired(&lines, &rules, Some(host)));
        }
    }

    #[test]
    fn never_the_wrong_address(
        steps in prop::collection::vec(step(), 0..150), answers in prop::collection::vec(answer(), 0..60),
    ) {
        let mut gated = Gated::new();
        let mut answers = answers.into_iter();
        for step in steps {
            gated.step(step);
            gated.carry_out(&mut answers);
            gated.check()?;
        }
    }
}
