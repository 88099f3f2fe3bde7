//! A frame for each verdict and each way to it, through every program: what becomes of it, and what counts it.

use std::num::NonZeroU32;
use std::sync::atomic::Ordering::Relaxed;

use xdpban_common::NESTED6;
use xdpban_engine::measure::{Action, Ports, Rate, Scope};

use super::frame::*;
use super::programs::{Judge, probe};
use super::reference::{Block, Reference};
use super::*;

const EXPIRED: Option<Mono> = Some(Mono(1));

/// What is blocked: the target, what befalls it, until when, and whether its bucket is empty.
fn blocks() -> Vec<(Target, Measure, Option<Mono>, bool)> {
    let everything = Measure::default();
    let blocks = [
        ("203.0.113.1", everything, None, false),
        ("203.0.113.2", everything, EXPIRED, false),
        ("203.0.113.3", only(&[22, 2222], false), None, false),
        ("203.0.113.4", only(&[], true), None, false),
        ("203.0.113.5", only(&[22], true), None, false),
        ("203.0.113.6", throttle(&[]), None, false),
        ("203.0.113.7", throttle(&[]), None, true),
        ("203.0.113.8", throttle(&[22]), None, true),
        // A network without two of its addresses: one is free again, which does not matter, one is allowed.
        ("198.51.100.0/24", everything, None, false),
        ("198.51.100.1", everything, EXPIRED, false),
        // What drops everything holds also for what lies in it and has a measure of its own.
        ("198.51.100.64/26", throttle(&[]), None, false),
        ("198.51.100.65", only(&[22], false), None, false),
        // Of two measures that of the smaller network holds.
        ("192.0.2.0/24", throttle(&[]), None, true),
        ("192.0.2.0/25", only(&[22], false), None, false),
        ("0.0.0.0", everything, None, false),
        ("2001:db8:1::1", everything, None, false),
        ("2001:db8:1:2::/64", everything, None, false),
        ("2001:db8:2::/48", everything, None, false),
        ("2001:db8:1:3:8000::/65", everything, None, false),
        ("2001:db8:3::/64", only(&[22], true), None, false),
        ("2001:db8:4::/64", throttle(&[]), None, false),
        ("2001:db8:5::/48", throttle(&[]), None, true),
        ("fe80::/64", everything, None, false),
        ("10.0.0.0/8", everything, None, false),
        ("3fff::/20", everything, None, false),
    ];
    // As many networks in each other as are looked at; only the widest, which stands above, has not expired.
    let nested4 = (9..=31).map(|len| Target::prefix("10.1.1.1".parse().unwrap(), len));
    let nested6 = (21..20 + u8::try_from(NESTED6).unwrap())
        .map(|len| Target::prefix("3fff:1::1".parse().unwrap(), len));
    let nested = nested4.chain(nested6).map(|network| (network, everything, EXPIRED, false));
    let of_text = |(text, measure, expires, is_spent)| (target(text), measure, expires, is_spent);
    blocks.into_iter().map(of_text).chain(nested).collect()
}

const ALLOWED: [&str; 3] = ["198.51.100.8/29", "2001:db8:2:1::/64", "192.0.2.200"];

/// Frames, what becomes of them, and the block that they are counted in or take a token of.
pub(super) fn fixtures() -> Vec<(Vec<u8>, Outcome, Option<&'static str>)> {
    let syn = |source, port| ip_tcp(source, port, SYN);
    let answer = |source, port| ip_tcp(source, port, SYN | ACK);
    let mut cut = ipv4("203.0.113.1");
    cut.truncate(14 + 19);
    let tagged = |source| tagged_ipv4(&[SERVICE_VLAN, VLAN], source);
    let mut fragment = syn("203.0.113.3", 22);
    fragment[14 + 7] = 1;
    vec![
        (ipv4("203.0.113.99"), Outcome::Clean, None),
        (ipv6("2001:db8:99::1"), Outcome::Clean, None),
        (ipv4("203.0.113.2"), Outcome::Clean, None),
        (ethernet(&[], 0x0806, &[0; 28]), Outcome::NotIp, None),
        (tagged_ipv4(&[VLAN, VLAN, VLAN], "203.0.113.1"), Outcome::NotIp, None),
        (cut, Outcome::TooShort, None),
        (ipv4("0.0.0.0"), Outcome::Exempt, None),
        (ipv6("fe80::1"), Outcome::Exempt, None),
        (icmpv6("2001:db8:1::1", 135), Outcome::Exempt, None),
        (icmpv6("2001:db8:1::1", 128), Outcome::Exact6, Some("2001:db8:1::1")),
        (ipv4("198.51.100.9"), Outcome::Allowed, None),
        (ipv4("192.0.2.200"), Outcome::Allowed, None),
        (ipv6("2001:db8:2:1::1"), Outcome::Allowed, None),
        (ipv6("2001:db8:2:2::1"), Outcome::Prefix6, Some("2001:db8:2::/48")),
        (ipv4("203.0.113.1"), Outcome::Exact4, Some("203.0.113.1")),
        (tagged("203.0.113.1"), Outcome::Exact4, Some("203.0.113.1")),
        (ipv6("2001:db8:1::1"), Outcome::Exact6, Some("2001:db8:1::1")),
        (ipv6("2001:db8:1:2::9"), Outcome::Exact6, Some("2001:db8:1:2::/64")),
        (ipv6("2001:db8:1:3:8000::1"), Outcome::Prefix6, Some("2001:db8:1:3:8000::/65")),
        (ipv6("2001:db8:1:3::1"), Outcome::Clean, None),
        (ipv4("198.51.100.1"), Outcome::Prefix4, Some("198.51.100.0/24")),
        (ipv4("198.51.100.64"), Outcome::Prefix4, Some("198.51.100.0/24")),
        (syn("198.51.100.65", 80), Outcome::Prefix4, Some("198.51.100.0/24")),
        (ipv4("10.1.1.1"), Outcome::Prefix4, Some("10.0.0.0/8")),
        (ipv6("3fff:1::1"), Outcome::Prefix6, Some("3fff::/20")),
        (syn("203.0.113.3", 22), Outcome::Exact4, Some("203.0.113.3")),
        (answer("203.0.113.3", 2222), Outcome::Exact4, Some("203.0.113.3")),
        (syn("203.0.113.3", 80), Outcome::OutOfScope, None),
        (fragment, Outcome::OutOfScope, None),
        (syn("203.0.113.4", 80), Outcome::Exact4, Some("203.0.113.4")),
        (answer("203.0.113.4", 80), Outcome::OutOfScope, None),
        (syn("203.0.113.5", 22), Outcome::Exact4, Some("203.0.113.5")),
        (syn("203.0.113.5", 80), Outcome::OutOfScope, None),
        (answer("203.0.113.5", 22), Outcome::OutOfScope, None),
        (syn("2001:db8:3::1", 22), Outcome::Exact6, Some("2001:db8:3::/64")),
        (answer("2001:db8:3::1", 22), Outcome::OutOfScope, None),
        (syn("192.0.2.1", 22), Outcome::Prefix4, Some("192.0.2.0/25")),
        (syn("192.0.2.1", 80), Outcome::OutOfScope, None),
        (syn("192.0.2.129", 80), Outcome::Throttled, Some("192.0.2.0/24")),
        (ipv4("203.0.113.6"), Outcome::WithinRate, Some("203.0.113.6")),
        (ipv6("2001:db8:4::1"), Outcome::WithinRate, Some("2001:db8:4::/64")),
        (ipv4("203.0.113.7"), Outcome::Throttled, Some("203.0.113.7")),
        (syn("203.0.113.8", 22), Outcome::Throttled, Some("203.0.113.8")),
        (syn("203.0.113.8", 80), Outcome::OutOfScope, None),
        (ipv6("2001:db8:5:6::1"), Outcome::Throttled, Some("2001:db8:5::/48")),
    ]
}

#[test]
fn each_verdict_is_reached_and_counted() {
    with_gate(|gate| {
        fill(gate);
        for outcome in Outcome::ALL {
            assert!(fixtures().iter().any(|fixture| fixture.1 == outcome), "no frame for {outcome:?}");
        }
        judge_all(gate, false);
    });
}

#[test]
fn in_a_dry_run_everything_passes_and_is_counted() {
    with_gate(|gate| {
        fill(gate);
        gate.set_dry_run(true);
        judge_all(gate, true);
        gate.set_dry_run(false);
        judge_all(gate, false);
    });
}

/// The reference is held to the fixtures, too: it judges more than these.
#[test]
fn the_reference_knows_each_verdict() {
    let block = |(target, measure, expires, is_spent)| {
        let is_expired = expires == EXPIRED;
        (target, Block { is_expired, measure, is_spent, packets: 0, bytes: 0, tokens: 0 })
    };
    let reference = Reference {
        blocks: blocks().into_iter().map(block).collect(),
        allowed: ALLOWED.map(target).to_vec(),
        ..Reference::default()
    };
    for (frame, expected, _) in fixtures() {
        assert_eq!(reference.judge(&frame).outcome, expected, "{frame:02x?}");
    }
}

/// Blocks and allows what the fixtures are for.
pub(super) fn fill(gate: &mut Gate) {
    let insertion = |(target, measure, expires, _)| Insertion { target, expires, measure };
    let insertions = blocks().into_iter().map(insertion).collect::<Vec<_>>();
    assert!(gate.insert(&insertions).is_empty());
    gate.set_allow(&ALLOWED.map(target)).unwrap();
    for (target, _, _, is_spent) in blocks() {
        if let Some(full_ns) = gate.tables.bucket(&target) {
            full_ns.store(if is_spent { NEVER } else { 0 }, Relaxed);
        }
    }
}

/// Runs every fixture through every program and looks at all that may change.
fn judge_all(gate: &mut Gate, dry_run: bool) {
    for (frame, expected, counted_in) in fixtures() {
        assert_eq!(probe(gate, &frame), expected, "the probe on {frame:02x?}");
        for judge in Judge::all() {
            // The kernel builds no socket buffer of it.
            if judge == Judge::Tc && expected == Outcome::TooShort {
                continue;
            }
            let (mut totals, before) = (gate.totals().unwrap(), entries(gate));
            let drops = judge.drops(gate, &frame).unwrap();
            let what = format!("{judge:?} {expected:?} {frame:02x?}");
            assert_eq!(drops, expected.drops() && !dry_run, "{what}");
            totals.packets[expected as usize] += 1;
            let mut after = before;
            if expected.drops() {
                let bytes = frame.len() as u64;
                totals.dropped_bytes += bytes;
                let entry =
                    after.iter_mut().find(|(target, _)| Some(*target) == counted_in.map(self::target));
                let (_, entry) = entry.expect("a block that the packet is counted in");
                entry.packets += 1;
                entry.bytes += bytes;
            }
            assert_eq!(gate.totals().unwrap(), totals, "{what}");
            assert_eq!(entries(gate), after, "{what}");
        }
    }
}

/// A block of some ports, of new connections, or both.
fn only(ports: &[u16], new_only: bool) -> Measure {
    Measure { action: Action::Block, scope: Scope { ports: Ports::new(ports).unwrap(), new_only } }
}

/// A throttle that no test here exhausts, or refills.
fn throttle(ports: &[u16]) -> Measure {
    let rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(1 << 20).unwrap() };
    Measure { action: Action::Throttle(rate), ..only(ports, false) }
}
