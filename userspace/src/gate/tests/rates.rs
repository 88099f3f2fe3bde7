//! What a packet costs in the program, without drivers and without a network. Not a test: it prints, and judges
//! nothing, since machines differ. `sudo cargo test --release -p xdpban --lib rates -- --ignored --nocapture`

use std::net::Ipv4Addr;

use aya::{TestRun, TestRunOptions};

use super::frame::{ipv4, ipv6};
use super::*;

/// The median time of a run, in nanoseconds, over several batches of runs.
fn cost(gate: &mut Gate, frame: &[u8]) -> u128 {
    let program = load::xdp(&mut gate.programs, program::XDP).unwrap();
    let mut costs: Vec<_> = (0..9)
        .map(|_| {
            let options =
                TestRunOptions { data_in: Some(frame), repeat: 1_000_000, ..TestRunOptions::default() };
            program.test_run(options).unwrap().duration.as_nanos()
        })
        .collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}

#[test]
#[ignore = "prints what a packet costs and judges nothing"]
fn rates_of_one_packet() {
    in_lab(|lab| {
        for blocks in [0u32, 1_000, 1_000_000] {
            detach(&lab.pins()).unwrap();
            let mut gate = Gate::open(&Options { blocks: 1_100_000, ..lab.options() }).unwrap();
            let hosts =
                (0..blocks).map(|n| (Target::exact(Ipv4Addr::from_bits(0x0b00_0000 + n).into()), None));
            insert(&mut gate, &hosts.collect::<Vec<_>>());
            let clean = [cost(&mut gate, &ipv4("192.0.2.1")), cost(&mut gate, &ipv6("2001:db8:ffff::1"))];
            block(&mut gate, &["203.0.113.7", "2001:db8:1:2::/64"]);
            let clean6 = cost(&mut gate, &ipv6("2001:db8:ffff::1"));
            let dropped = [cost(&mut gate, &ipv4("203.0.113.7")), cost(&mut gate, &ipv6("2001:db8:1:2::3"))];
            block(&mut gate, &["198.51.100.0/24", "2001:db8:7::/48"]);
            let prefix = [cost(&mut gate, &ipv4("198.51.100.1")), cost(&mut gate, &ipv6("2001:db8:7::1"))];
            let behind = [cost(&mut gate, &ipv4("192.0.2.1")), cost(&mut gate, &ipv6("2001:db8:ffff::1"))];
            println!(
                "{blocks} blocks, ns a packet, IPv4 and IPv6: clean {clean:?} (with a /64 blocked {clean6}), \
                 dropped {dropped:?}, dropped by prefix {prefix:?}, clean where prefixes are blocked {behind:?}"
            );
        }
    });
}

#[test]
#[ignore = "prints what two CPUs cost each other and judges nothing"]
fn rates_of_two_cpus() {
    in_lab(|lab| {
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7", "203.0.113.8"]);
        let program = &*load::xdp(&mut gate.programs, program::XDP).unwrap();
        let cost = |frame: &[u8]| {
            let options =
                TestRunOptions { data_in: Some(frame), repeat: 5_000_000, ..TestRunOptions::default() };
            program.test_run(options).unwrap().duration.as_nanos()
        };
        let both = |frames: [Vec<u8>; 2]| {
            thread::scope(|scope| {
                let other = scope.spawn(|| cost(&frames[1]));
                [cost(&frames[0]), other.join().unwrap()]
            })
        };
        for _ in 0..3 {
            println!(
                "ns a packet: one CPU {}, two in one entry {:?}, two in an entry each {:?}",
                cost(&ipv4("203.0.113.7")),
                both([ipv4("203.0.113.7"), ipv4("203.0.113.7")]),
                both([ipv4("203.0.113.7"), ipv4("203.0.113.8")])
            );
        }
    });
}

#[test]
#[ignore = "prints how much the verifier followed"]
fn verified_instructions() {
    in_lab(|lab| {
        let mut gate = lab.open();
        for name in [program::XDP, program::XDP_FRAGS, program::PROBE] {
            let info = load::xdp(&mut gate.programs, name).unwrap().info().unwrap();
            println!("{name}: {:?} instructions verified", info.verified_instruction_count());
        }
        let info = load::classifier(&mut gate.programs).unwrap().info().unwrap();
        println!("{}: {:?} instructions verified", program::TC, info.verified_instruction_count());
    });
}
