//! Crafted bytes in, verdict out, through the kernel: by every entry of the object alike.

use aya::{TestRun, TestRunOptions};

use super::frame::*;
use super::programs::*;
use super::*;

#[test]
fn with_nothing_blocked_everything_passes() {
    with_gate(|gate| {
        assert_eq!(outcome(gate, &ipv4("203.0.113.7")), Outcome::Clean);
        assert_eq!(outcome(gate, &ipv6("2001:db8::7")), Outcome::Clean);
        assert_eq!(outcome(gate, &ethernet(&[], 0x0806, &[0; 28])), Outcome::NotIp);
        assert_eq!(outcome(gate, &ethernet(&[VLAN], 0x88cc, &[0; 50])), Outcome::NotIp);
    });
}

#[test]
fn a_blocked_source_is_dropped_and_a_bystander_is_not() {
    with_gate(|gate| {
        block(gate, &["203.0.113.7", "2001:db8:1:2::/64", "2001:db8:9::9"]);
        block(gate, &["198.51.100.0/25", "2001:db8:5000::/36", "2001:db8:1:3:8000::/65"]);
        let dropped = [
            (ipv4("203.0.113.7"), Outcome::Exact4),
            (ipv4("198.51.100.0"), Outcome::Prefix4),
            (ipv4("198.51.100.127"), Outcome::Prefix4),
            (ipv6("2001:db8:1:2::"), Outcome::Exact6),
            (ipv6("2001:db8:1:2:ffff:ffff:ffff:ffff"), Outcome::Exact6),
            (ipv6("2001:db8:9::9"), Outcome::Exact6),
            (ipv6("2001:db8:5fff::1"), Outcome::Prefix6),
            (ipv6("2001:db8:1:3:8000::1"), Outcome::Prefix6),
        ];
        for (frame, expected) in dropped {
            assert_eq!(outcome(gate, &frame), expected);
        }
        for source in ["203.0.113.6", "203.0.113.8", "7.113.0.203", "198.51.100.128", "198.51.99.255"] {
            assert_eq!(outcome(gate, &ipv4(source)), Outcome::Clean, "{source}");
        }
        for source in
            ["2001:db8:1:1::", "2001:db8:1:3::", "2001:db8:9::8", "2001:db8:6000::", "::ffff:203.0.113.7"]
        {
            assert_eq!(outcome(gate, &ipv6(source)), Outcome::Clean, "{source}");
        }
    });
}

#[test]
fn up_to_two_vlan_tags_are_looked_through() {
    with_gate(|gate| {
        block(gate, &["203.0.113.7", "2001:db8:1:2::/64"]);
        let stacks: [&[u16]; 6] = [
            &[VLAN],
            &[SERVICE_VLAN],
            &[OLD_SERVICE_VLAN],
            &[VLAN, VLAN],
            &[SERVICE_VLAN, VLAN],
            &[OLD_SERVICE_VLAN, VLAN],
        ];
        for tags in stacks {
            assert_eq!(outcome(gate, &tagged_ipv4(tags, "203.0.113.7")), Outcome::Exact4, "{tags:x?}");
            assert_eq!(outcome(gate, &tagged_ipv4(tags, "203.0.113.8")), Outcome::Clean, "{tags:x?}");
            assert_eq!(outcome(gate, &tagged_ipv6(tags, "2001:db8:1:2::3")), Outcome::Exact6, "{tags:x?}");
        }
        let three = [SERVICE_VLAN, VLAN, VLAN];
        assert_eq!(outcome(gate, &tagged_ipv4(&three, "203.0.113.7")), Outcome::NotIp);
    });
}

#[test]
fn a_frame_that_ends_in_its_headers_passes() {
    with_gate(|gate| {
        block(gate, &["203.0.113.7", "2001:db8:1:2::/64"]);
        let tags: [&[u16]; 3] = [&[], &[VLAN], &[SERVICE_VLAN, VLAN]];
        for tags in tags {
            let cases = [
                (tagged_ipv4(tags, "203.0.113.7"), 20, Outcome::Exact4),
                (tagged_ipv6(tags, "2001:db8:1:2::3"), 40, Outcome::Exact6),
            ];
            for (frame, header, expected) in cases {
                let whole = 14 + 4 * tags.len() + header;
                for length in 14..=frame.len() {
                    let expected = if length < whole { Outcome::TooShort } else { expected };
                    let found = xdp_outcome(gate, &frame[..length]);
                    assert_eq!(found, expected, "{} of {} bytes", length, frame.len());
                }
                assert_eq!(outcome(gate, &frame[..whole]), expected);
            }
        }
    });
}

#[test]
fn options_fragments_and_extension_headers_do_not_matter() {
    with_gate(|gate| {
        block(gate, &["203.0.113.7", "2001:db8:1:2::/64"]);
        let mut options = ipv4("203.0.113.7");
        options[14] = 0x4f;
        assert_eq!(outcome(gate, &options), Outcome::Exact4);
        let mut fragment = ipv4("203.0.113.7");
        fragment[20..22].copy_from_slice(&[0x20, 0xff]);
        assert_eq!(outcome(gate, &fragment), Outcome::Exact4);
        for next_header in [0, 43, 44, 51, 59, 60] {
            let mut extended = ipv6("2001:db8:1:2::3");
            extended[20] = next_header;
            assert_eq!(outcome(gate, &extended), Outcome::Exact6, "{next_header}");
        }
    });
}

#[test]
fn what_a_host_cannot_live_without_always_passes() {
    with_gate(|gate| {
        block(gate, &["0.0.0.0/0", "::/0", "0.0.0.0", "fe80::/64", "2001:db8:1:2::/64"]);
        assert_eq!(outcome(gate, &ethernet(&[], 0x0806, &[0; 28])), Outcome::NotIp);
        assert_eq!(outcome(gate, &ipv4("0.0.0.0")), Outcome::Exempt);
        assert_eq!(outcome(gate, &ipv4("0.0.0.1")), Outcome::Prefix4);
        for source in ["::", "fe80::1", "febf:ffff::1"] {
            assert_eq!(outcome(gate, &ipv6(source)), Outcome::Exempt, "{source}");
        }
        for source in ["::1", "fec0::1", "fe7f::1"] {
            assert_eq!(outcome(gate, &ipv6(source)), Outcome::Prefix6, "{source}");
        }
        for kind in 0..=255 {
            let expected = if (133..=137).contains(&kind) { Outcome::Exempt } else { Outcome::Exact6 };
            assert_eq!(probe(gate, &icmpv6("2001:db8:1:2::3", kind)), expected, "ICMPv6 {kind}");
        }
        assert_eq!(outcome(gate, &icmpv6("2001:db8:1:2::3", 135)), Outcome::Exempt);
        // The type's place holds 135, but the packet is TCP; and a message that ends before its type is none.
        let mut tcp = ipv6("2001:db8:1:2::3");
        tcp[54] = 135;
        assert_eq!(outcome(gate, &tcp), Outcome::Exact6);
        assert_eq!(outcome(gate, &icmpv6("2001:db8:1:2::3", 135)[..54]), Outcome::Exact6);
    });
}

#[test]
fn an_allowed_network_passes_although_blocked() {
    with_gate(|gate| {
        block(gate, &["203.0.113.7", "203.0.113.8", "2001:db8::/32"]);
        gate.set_allow(&[target("203.0.113.0/29"), target("2001:db8:1::/48")]).unwrap();
        assert_eq!(outcome(gate, &ipv4("203.0.113.7")), Outcome::Allowed);
        assert_eq!(outcome(gate, &ipv4("203.0.113.8")), Outcome::Exact4);
        assert_eq!(outcome(gate, &ipv6("2001:db8:1::1")), Outcome::Allowed);
        assert_eq!(outcome(gate, &ipv6("2001:db8:2::1")), Outcome::Prefix6);

        gate.set_allow(&[target("203.0.113.8")]).unwrap();
        assert_eq!(outcome(gate, &ipv4("203.0.113.7")), Outcome::Exact4);
        assert_eq!(outcome(gate, &ipv4("203.0.113.8")), Outcome::Allowed);
        assert_eq!(outcome(gate, &ipv6("2001:db8:1::1")), Outcome::Prefix6);

        gate.set_allow(&[]).unwrap();
        assert_eq!(outcome(gate, &ipv4("203.0.113.8")), Outcome::Exact4);
    });
}

#[test]
fn an_entry_blocks_until_its_expiry() {
    with_gate(|gate| {
        // The programs are loaded at their first use, which takes a while.
        outcome(gate, &ipv4("203.0.113.1"));
        let soon = clock::now().mono.after(Duration::from_millis(150));
        let past = Some(Mono(1));
        let entries = [
            (target("203.0.113.1"), Some(soon)),
            (target("2001:db8:1::/64"), Some(soon)),
            (target("192.0.2.0/24"), Some(soon)),
            (target("203.0.113.2"), past),
            (target("203.0.113.3"), None),
            // The address is free again; the network that it is in is not.
            (target("198.51.100.1"), past),
            (target("198.51.100.0/24"), None),
        ];
        insert(gate, &entries);
        let mut at = |frame: Vec<u8>| outcome(gate, &frame);
        assert_eq!(at(ipv4("203.0.113.1")), Outcome::Exact4);
        assert_eq!(at(ipv6("2001:db8:1::1")), Outcome::Exact6);
        assert_eq!(at(ipv4("192.0.2.1")), Outcome::Prefix4);
        assert_eq!(at(ipv4("203.0.113.2")), Outcome::Clean);
        assert_eq!(at(ipv4("203.0.113.3")), Outcome::Exact4);
        assert_eq!(at(ipv4("198.51.100.1")), Outcome::Prefix4);

        // The program's clock is up to a tick behind: 10 ms at 100 Hz.
        thread::sleep(Duration::from_millis(180));
        assert_eq!(at(ipv4("203.0.113.1")), Outcome::Clean);
        assert_eq!(at(ipv6("2001:db8:1::1")), Outcome::Clean);
        assert_eq!(at(ipv4("192.0.2.1")), Outcome::Clean);
        assert_eq!(at(ipv4("203.0.113.3")), Outcome::Exact4);
    });
}

#[test]
fn prefixes_that_have_expired_hide_no_shorter_one_that_blocks() {
    in_lab(|lab| {
        let mut gate = lab.open();
        // As many within each other as the program looks at, and an address and a /64 in front of them.
        let v4 = ["203.0.113.7", "203.0.113.0/28", "203.0.113.0/24", "203.0.112.0/20", "203.0.0.0/16"];
        let v6 = [
            "2001:db8:1:2::7",
            "2001:db8:1:2::/64",
            "2001:db8:1:2::/63",
            "2001:db8:1::/56",
            "2001:db8:1::/48",
            "2001:db8::/32",
        ];
        for (nested, frame, exact, prefix) in [
            (&v4[..], ipv4("203.0.113.7"), Outcome::Exact4, Outcome::Prefix4),
            (&v6[..], ipv6("2001:db8:1:2::7"), Outcome::Exact6, Outcome::Prefix6),
        ] {
            insert(&mut gate, &nested.iter().map(|text| (target(text), in_an_hour())).collect::<Vec<_>>());
            assert_eq!(outcome(&mut gate, &frame), exact);
            for (place, shorter) in nested.iter().enumerate().skip(1) {
                let expired = &nested[..place];
                let past = Some(Mono(1));
                insert(&mut gate, &expired.iter().map(|text| (target(text), past)).collect::<Vec<_>>());
                let found = outcome(&mut gate, &frame);
                assert!(
                    found == prefix || found == exact && shorter.ends_with("/64"),
                    "{shorter}: {found:?}"
                );
                let packets = gate.entry(&target(shorter)).unwrap().packets;
                assert_eq!(packets, Judge::all().len() as u64, "{shorter} drops it, behind {expired:?}");
            }
            insert(&mut gate, &nested.iter().map(|text| (target(text), Some(Mono(1)))).collect::<Vec<_>>());
            assert_eq!(outcome(&mut gate, &frame), Outcome::Clean);
        }
    });
}

#[test]
fn packets_and_bytes_are_counted_in_the_entry_that_drops() {
    with_gate(|gate| {
        let targets = ["203.0.113.7", "2001:db8:1:2::/64", "198.51.100.0/24", "2001:db8:7000::/36"];
        block(gate, &targets);
        let frames = [
            ipv4("203.0.113.7"),
            ipv6("2001:db8:1:2::3"),
            tagged_ipv4(&[VLAN], "198.51.100.9"),
            ipv6("2001:db8:7000::1"),
        ];
        for (text, frame) in targets.into_iter().zip(&frames) {
            for _ in 0..5 {
                outcome(gate, frame);
            }
            let entry = gate.entry(&target(text)).unwrap();
            let packets = 5 * Judge::all().len() as u64;
            assert_eq!((entry.packets, entry.bytes), (packets, packets * frame.len() as u64), "{text}");
        }
    });
}

#[test]
fn counts_are_exact_when_all_cpus_count_in_one_entry() {
    with_gate(|gate| {
        block(gate, &["203.0.113.7"]);
        let frame = ipv4("203.0.113.7");
        let before = gate.totals().unwrap().of(Outcome::Exact4);
        let program = &*load::xdp(&mut gate.programs, program::XDP).unwrap();
        let (threads, repeat) = (4u32, 200_000u32);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let options =
                        TestRunOptions { data_in: Some(&frame), repeat, ..TestRunOptions::default() };
                    program.test_run(options).unwrap();
                });
            }
        });
        let total = u64::from(threads * repeat);
        let entry = gate.entry(&target("203.0.113.7")).unwrap();
        assert_eq!((entry.packets, entry.bytes), (total, total * frame.len() as u64));
        assert_eq!(gate.totals().unwrap().of(Outcome::Exact4), before + total);
    });
}

#[test]
fn verdict_asks_the_kernel_and_leaves_no_trace() {
    with_gate(|gate| {
        block(gate, &["203.0.113.7", "2001:db8:1:2::/64"]);
        let before = gate.totals().unwrap();
        let mut verdict = |text: &str| gate.verdict(text.parse().unwrap()).unwrap();
        assert_eq!(verdict("203.0.113.7"), Outcome::Exact4);
        assert_eq!(verdict("::ffff:203.0.113.7"), Outcome::Exact4);
        assert_eq!(verdict("203.0.113.8"), Outcome::Clean);
        assert_eq!(verdict("2001:db8:1:2::9"), Outcome::Exact6);
        assert_eq!(verdict("fe80::1"), Outcome::Clean);
        assert_eq!(gate.totals().unwrap(), before);
        assert_eq!(gate.entry(&target("203.0.113.7")).unwrap().packets, 0);
    });
}

#[test]
fn the_self_test_refuses_a_program_that_drops_what_it_should_pass() {
    in_lab(|lab| {
        let (mut instance, mut tables) = load::selftest_instance(&lab.options()).unwrap();
        selftest::run(&mut instance, &mut tables).unwrap();
        // The tables hold what the first run put there, as those of a faulty program might.
        let error = selftest::run(&mut instance, &mut tables).unwrap_err();
        assert!(matches!(error, GateError::SelfTest { .. }), "{error}");
        assert!(error.to_string().contains("192.0.2.1 while nothing is blocked"), "{error}");
    });
}
