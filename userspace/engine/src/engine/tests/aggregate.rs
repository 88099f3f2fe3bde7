//! Networks whose hosts keep offending.

use super::*;
use crate::measure::{Ports, Scope};
use crate::policy::Aggregate;

fn lab(hosts: u32) -> Lab {
    let aggregate = Some(Aggregate { v4: Some(24), v6: Some(56), hosts });
    let response = Response {
        rules: vec![RuleId(5710)],
        timeout: Some(100 * SECOND),
        repeat_offenders: vec![Some(HOUR)],
        aggregate,
        ..Response::default()
    };
    Lab::new(Policy { responses: vec![response], ..policy() })
}

fn blocked(changes: Vec<Change>) -> Vec<Block> {
    changes
        .into_iter()
        .filter_map(
            |change| if let Change::Block(block) = change { Some(Block::clone(&block)) } else { None },
        )
        .collect()
}

impl Lab {
    fn offend(&mut self, source: &str) -> Vec<Block> {
        self.attempt(EventKind::InvalidUser, source);
        let blocks = blocked(self.changes());
        self.pass(10 * MINUTE);
        self.engine.handle_timeout(self.now);
        self.changes();
        blocks
    }
}

#[test]
fn the_last_of_so_many_hosts_gets_the_network_blocked() {
    let mut lab = lab(3);
    for host in ["203.0.113.1", "203.0.113.2", "203.0.114.3", "203.0.113.1"] {
        assert_eq!(lab.offend(host).len(), 1, "{host}");
        lab.pass(2 * HOUR);
        lab.engine.handle_timeout(lab.now);
        lab.changes();
    }
    let blocks = lab.offend("203.0.113.9");
    let [host, net] = &blocks[..] else { panic!("{blocks:#?}") };
    assert_eq!((host.target, net.target), (target("203.0.113.9"), target("203.0.113.0/24")));
    assert_eq!(net.expires, host.expires);
    assert_eq!(net.rule, host.rule);
    assert_eq!(
        &*net.reason,
        "3 sources within 203.0.113.0/24 attacked: 203.0.113.1, 203.0.113.2, 203.0.113.9; all 256 addresses of it are blocked with them"
    );
    let again = lab.offend("203.0.113.4");
    assert_eq!((again.len(), again[1].offences), (2, 2), "the others are remembered, and so is the network");
}

#[test]
fn those_of_another_family_and_the_forgotten_do_not_count() {
    let mut lab = lab(2);
    lab.offend("203.0.113.1");
    lab.pass(2 * DAY);
    assert_eq!(lab.offend("203.0.113.2").len(), 1);
    assert_eq!(lab.offend("2001:db8:0:1::1").len(), 1);
    let blocks = lab.offend("2001:db8:0:2::1");
    assert_eq!(blocks[1].target, target("2001:db8::/56"));
    assert!(blocks[1].reason.contains("all 2^72 addresses"), "{}", blocks[1].reason);
}

#[test]
fn a_network_that_holds_something_protected_is_not_blocked_and_that_is_on_record() {
    let mut lab = lab(2);
    let own = vec!["203.0.113.200".parse().unwrap()];
    lab.engine.set_host(&HostAddresses { own, ..HostAddresses::default() });
    assert_eq!(lab.offend("203.0.113.1").len(), 1);
    lab.attempt(EventKind::InvalidUser, "203.0.113.2");
    let changes = lab.changes();
    let [Change::Block(host), Change::Refused(refused)] = &changes[..] else { panic!("{changes:#?}") };
    assert_eq!(host.target, target("203.0.113.2"));
    assert_eq!(refused.block.target, target("203.0.113.0/24"));
    assert_eq!(
        refused.because.to_string(),
        "203.0.113.0/24 is never blocked: it contains 203.0.113.200, which is an address of this host"
    );
    assert_eq!(lab.offend("203.0.113.3").len(), 1, "the host alone");
}

#[test]
fn a_host_whose_block_was_lifted_does_not_count() {
    let mut lab = lab(2);
    lab.attempt(EventKind::InvalidUser, "203.0.113.1");
    lab.engine.unblock(&target("203.0.113.1"), End::Lifted, lab.now);
    lab.changes();
    assert_eq!(lab.offend("203.0.113.2").len(), 1);
    assert_eq!(lab.offend("203.0.113.3").len(), 2);
}

#[test]
fn offenders_of_before_a_restart_count() {
    let mut lab = lab(2);
    let offender = Offender { offences: 1, until: lab.now.wall };
    lab.engine.restore(Vec::new(), vec![(target("203.0.113.1"), offender)], lab.now);
    assert_eq!(lab.offend("203.0.113.2").len(), 2);
}

#[test]
fn what_an_operator_asked_for_a_network_goes_on_joined_with_what_its_hosts_get_it() {
    let ports = |ports: &[u16]| Measure {
        action: Action::Block,
        scope: Scope { ports: Ports::new(ports).unwrap(), new_only: false },
    };
    let mut lab = lab(2);
    let Policy { mut responses, .. } = lab.engine.policy().clone();
    responses[0].measure = ports(&[443]);
    lab.engine.reload(Policy { responses, ..policy() });
    let net = target("203.0.113.0/24");
    let request =
        BlockRequest { target: net, timeout: None, measure: ports(&[22]), reason: "by hand".into() };
    lab.engine.block(request, lab.now).unwrap();
    lab.changes();
    lab.offend("203.0.113.1");
    let asked = lab.now.wall;
    lab.offend("203.0.113.2");
    let block = lab.engine.block_of(&net).unwrap();
    assert_eq!((block.measure, block.expires), (ports(&[22, 443]), None));
    assert_eq!((block.origin, block.created), (Origin::Rule, asked));
}
