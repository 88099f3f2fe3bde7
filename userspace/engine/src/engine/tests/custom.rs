//! Decoders of the user's own, in the engine.

use super::*;
use crate::decode::Decoder;
use crate::record::Format;

/// An engine with one decoder for `program`, a rule on it, and one that counts two attempts within a minute.
fn lab(program: &str, expression: &str, attack: bool) -> Lab {
    let decoder = Decoder::new("own".into(), vec![program.into()], expression, attack).unwrap();
    let rule =
        |id, when| Rule { id: RuleId(id), level: 5, groups: Vec::new(), description: String::new(), when };
    let (kinds, decoded) = (vec![EventKind::Custom], Some("own".to_owned()));
    let single = Condition::Event(EventMatch { kinds, decoder: decoded, ..EventMatch::default() });
    let mut rules = shipped::rules();
    rules.extend([rule(100_100, single), rule(100_101, counting(100_100, 2, MINUTE))]);
    let rules = RuleSet::new(rules).unwrap();
    Lab::new(Policy { decoders: Decoders::new(vec![decoder]), rules, responses: Vec::new(), ..policy() })
}

fn rule(lab: &mut Lab, line: &str) -> Option<u32> {
    let record = Record::parse(line.as_bytes(), Format::Syslog, &lab.now);
    lab.engine.handle(&record, line.as_bytes(), lab.now).rule.map(|rule| rule.id.0)
}

#[test]
fn each_event_is_an_attempt_of_its_own() {
    for attack in [true, false] {
        let mut lab = lab("nginx", "^refused (?P<srcip>.*)", attack);
        let line = "Jan  1 00:00:00 gw nginx[7]: refused 203.0.113.7";
        assert_eq!([rule(&mut lab, line), rule(&mut lab, line)], [Some(100_100), Some(100_101)]);
        let counts = lab.engine.counts();
        assert_eq!((counts.attacks, counts.attempts), if attack { (2, 2) } else { (0, 0) });
        let folded = "Jan  1 00:00:00 gw nginx[8]: message repeated 2 times: [ refused 203.0.113.8]";
        assert_eq!(rule(&mut lab, folded), Some(100_101));
    }
}

#[test]
fn the_processes_of_other_programs_lend_no_address() {
    let mut lab = lab("nginx", "^refused (?P<srcip>.*)", true);
    rule(&mut lab, "Jan  1 00:00:00 gw nginx[7]: refused 203.0.113.7");
    let line = "Jan  1 00:00:00 gw nginx[7]: refused example.org";
    let record = Record::parse(line.as_bytes(), Format::Syslog, &lab.now);
    assert_eq!(lab.engine.handle(&record, line.as_bytes(), lab.now).source, None);
}

#[test]
fn what_sshd_says_is_the_built_in_decoders_first() {
    let mut lab = lab("sshd", "(?P<srcip>198.51.100.9)", true);
    let known = "Jan  1 00:00:00 gw sshd[7]: Invalid user 198.51.100.9 from 203.0.113.7 port 22";
    assert_eq!(rule(&mut lab, known), Some(5710));
    let unexplained = "Jan  1 00:00:00 gw sshd[7]: Something failed at 198.51.100.9 in a new way";
    assert_eq!((rule(&mut lab, unexplained), lab.engine.counts().unexplained), (Some(100_100), 0));
    let unknown = "Jan  1 00:00:00 gw sshd[7]: 198.51.100.9 is at it again";
    assert_eq!(rule(&mut lab, unknown), Some(100_101));
}

#[test]
fn the_group_time_says_when_it_was() {
    let mut lab = lab("nginx", r"^(?P<srcip>\S+) \[(?P<time>[^]]*)\]", true);
    let mut at = |time: &str| rule(&mut lab, &format!("nginx: 203.0.113.7 [{time}]"));
    assert_eq!(at("31/Dec/1970:23:00:00 +0000"), Some(100_100));
    assert_eq!(at("31/Dec/1970:23:02:00 +0000"), Some(100_100));
    assert_eq!(at("1971-01-01T00:03:00+01:00"), Some(100_101));
    assert_eq!(at("1970/12/31 23:05:00"), Some(100_100));
    assert_eq!(at("31/Foo/1970:23:05:30 +0000"), Some(100_100), "what is no time is now");
}
