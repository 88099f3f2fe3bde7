//! Putting targets into the tables and taking them out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use xdpban_engine::measure::Scope;

use super::frame::ipv4;
use super::*;

/// Runs the program on a frame so many times.
fn send(gate: &mut Gate, frame: &[u8], times: u64) {
    let program = load::xdp(&mut gate.programs, program::XDP).unwrap();
    for _ in 0..times {
        selftest::test_run(program, program::XDP, frame).unwrap();
    }
}

/// Compares all of the tables with what is wanted.
fn compare(gate: &mut Gate, wanted: &[Insertion]) -> Reconciled {
    let mut found = Reconciled::default();
    let mut part = Some(Part::default());
    while let Some(this) = part {
        let is_wanted = |target: &Target| wanted.iter().find(|one| one.target == *target).copied();
        let (more, next) = gate.compare(this, is_wanted).unwrap();
        found.put_back.extend(more.put_back);
        found.taken_out.extend(more.taken_out);
        part = next;
    }
    found.put_back.extend(gate.put_back(wanted.iter().copied()));
    found.put_back.sort();
    found.taken_out.sort();
    found
}

/// An entry that has dropped nothing.
fn untouched(expires: Mono) -> Entry {
    Entry { expires_ns: expires.0, measure: Some(Measure::default()), packets: 0, bytes: 0 }
}

fn hosts(count: u32) -> Vec<Target> {
    (0..count).map(|n| Target::exact(Ipv4Addr::from_bits(0x0a00_0000 + n).into())).collect()
}

#[test]
fn what_was_put_in_is_there_until_it_is_taken_out() {
    in_lab(|lab| {
        let mut gate = lab.open();
        let texts = [
            "203.0.113.7",
            "2001:db8::1",
            "2001:db8:1:2::/64",
            "198.51.100.0/24",
            "2001:db8::/32",
            "0.0.0.0/0",
        ];
        let expiry = in_an_hour();
        let entries: Vec<_> = texts.iter().map(|text| (target(text), expiry)).collect();
        insert(&mut gate, &entries);

        let found = super::entries(&gate);
        let mut expected: Vec<_> =
            entries.iter().map(|(target, expiry)| (*target, untouched(expiry.unwrap()))).collect();
        expected.sort_by_key(|(target, _)| *target);
        assert_eq!(found, expected);
        assert_eq!(read_pinned(&lab.pins()).unwrap().len(), texts.len());

        for text in texts {
            assert!(gate.entry(&target(text)).is_some(), "{text}");
        }
        // A shorter prefix is not the entry of what lies in it.
        assert_eq!(gate.entry(&target("198.51.100.0/25")), None);
        assert_eq!(gate.remove(&[target("198.51.100.0/25")]), [None]);

        let targets: Vec<_> = texts.iter().map(|text| target(text)).collect();
        assert!(gate.remove(&targets).iter().all(Option::is_some));
        assert!(gate.remove(&targets).iter().all(Option::is_none), "a missing target is no error");
        assert_eq!(gate.entries().count(), 0);
        assert_eq!(gate.entries().count(), 0);
    });
}

#[test]
fn a_new_expiry_keeps_the_counts() {
    in_lab(|lab| {
        let mut gate = lab.open();
        for text in ["203.0.113.7", "203.0.113.0/29"] {
            block(&mut gate, &[text]);
            send(&mut gate, &ipv4("203.0.113.7"), 3);
            insert(&mut gate, &[(target(text), None)]);
            send(&mut gate, &ipv4("203.0.113.7"), 2);
            let entry = gate.entry(&target(text)).unwrap();
            assert_eq!((entry.expires_ns, entry.packets), (NEVER, 5), "{text}");
            let removed = gate.remove(&[target(text)]);
            assert_eq!(removed, [Some(entry)], "the final counts go on record");
        }
    });
}

#[test]
fn no_count_is_lost_while_expiries_move_under_a_flood() {
    in_lab(|lab| {
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        let frame = ipv4("203.0.113.7");
        let mut other = lab.open();
        let flood = thread::spawn(move || send(&mut other, &frame, 100_000));
        while !flood.is_finished() {
            block(&mut gate, &["203.0.113.7"]);
        }
        flood.join().unwrap();
        assert_eq!(gate.entry(&target("203.0.113.7")).unwrap().packets, 100_000);
    });
}

#[test]
fn of_a_target_named_twice_the_last_one_holds() {
    in_lab(|lab| {
        let mut gate = lab.open();
        let seven = target("203.0.113.7");
        insert(&mut gate, &[(seven, Some(Mono(5))), (target("203.0.113.8"), None), (seven, Some(Mono(9)))]);
        assert_eq!(gate.entry(&seven).unwrap().expires_ns, 9);
        gate.remove(&[seven, target("203.0.113.8")]);
        assert_eq!(gate.entries().count(), 0);
    });
}

#[test]
fn ten_thousand_go_in_and_out_in_one_call_each() {
    in_lab(|lab| {
        let mut gate = Gate::open(&Options { blocks: 10_000, ..lab.options() }).unwrap();
        let targets = hosts(10_000);
        let entries: Vec<_> = targets.iter().map(|target| (*target, None)).collect();
        let started = Instant::now();
        insert(&mut gate, &entries);
        assert_eq!(gate.entries().count(), 10_000);
        let removed = gate.remove(&targets);
        let took = started.elapsed();
        assert!(removed.iter().all(Option::is_some));
        assert_eq!(gate.entries().count(), 0);
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_full_table_takes_what_fits_and_names_the_rest() {
    in_lab(|lab| {
        let mut gate = Gate::open(&Options { blocks: 100, prefixes: 2, ..lab.options() }).unwrap();
        let mut entries: Vec<_> = hosts(103).into_iter().map(|target| (target, None)).collect();
        entries.extend(["192.0.2.0/24", "192.0.3.0/24", "192.0.4.0/24"].map(|text| (target(text), None)));
        let left_out = left_out(&mut gate, &insertions(&entries));
        assert_eq!(left_out, [100, 101, 102, 105], "the first ones got in");
        assert_eq!(gate.entries().count(), 102);
        for place in &left_out {
            assert_eq!(gate.entry(&entries[*place].0), None);
        }

        // What is there already can be moved, and room that was made can be used.
        let kept = gate.entries().next().unwrap().0;
        insert(&mut gate, &[(kept, Some(Mono(7)))]);
        gate.remove(&[kept]);
        insert(&mut gate, &[(entries[left_out[0]].0, None)]);
    });
}

#[test]
fn what_is_not_taken_for_another_reason_than_a_full_table_says_so() {
    in_lab(|lab| {
        let mut gate = Gate::open(&Options { blocks: 70_000, ..lab.options() }).unwrap();
        let scope = Scope { new_only: true, ..Scope::default() };
        let partial = Measure { scope, ..Measure::default() };
        let measured = |target| Insertion { target, expires: None, measure: partial };
        let wanted: Vec<_> = hosts(measures::MEASURES).into_iter().map(measured).collect();
        let left_out = gate.insert(&wanted);
        let [(place, NotTaken::NoMeasure)] = left_out[..] else { panic!("{left_out:?}") };
        assert_eq!(place, wanted.len() - 1);
        // One that drops everything takes none, and gives back what it takes the place of.
        insert(&mut gate, &[(wanted[0].target, None), (target("192.0.2.1"), None)]);
        assert!(gate.insert(&wanted[place..]).is_empty());

        // Prefixes of somebody else's fill the trie.
        for number in 0..64 {
            let key = aya::maps::lpm_trie::Key::new(32, [198, 51, 100, number]);
            gate.tables.v4.prefixes.update(&key, &0).unwrap();
        }
        let net = target("203.0.113.0/24");
        let left_out = gate.insert(&insertions(&[(net, None)]));
        assert!(matches!(left_out[..], [(0, NotTaken::Prefix(_))]), "{left_out:?}");
        assert_eq!(gate.entry(&net), None);
    });
}

#[test]
fn what_someone_else_changed_is_found_and_mended() {
    in_lab(|lab| {
        let mut gate = lab.open();
        let wanted = ["203.0.113.1", "203.0.113.2", "198.51.100.0/24", "2001:db8:1:2::/64", "2001:db8::/32"];
        let wanted = insertions(&wanted.map(|text| (target(text), in_an_hour())));
        gate.insert(&wanted);
        assert_eq!(compare(&mut gate, &wanted), Reconciled::default());

        let mut other = lab.open();
        other.remove(&[wanted[1].target, wanted[2].target, wanted[3].target]);
        insert(
            &mut other,
            &[(wanted[0].target, Some(Mono(1))), (target("192.0.2.1"), None), (target("192.0.2.0/25"), None)],
        );
        drop(other);
        let found = compare(&mut gate, &wanted);
        assert_eq!(found.put_back, [wanted[2], wanted[0], wanted[1], wanted[3]].map(|one| one.target));
        assert_eq!(found.taken_out, [target("192.0.2.0/25"), target("192.0.2.1")]);
        for (address, expected) in [
            ("203.0.113.1", Outcome::Exact4),
            ("203.0.113.2", Outcome::Exact4),
            ("198.51.100.9", Outcome::Prefix4),
            ("2001:db8:1:2::3", Outcome::Exact6),
            ("2001:db8:9::1", Outcome::Prefix6),
            ("192.0.2.1", Outcome::Clean),
        ] {
            assert_eq!(gate.verdict(address.parse().unwrap()).unwrap(), expected, "{address}");
        }
        assert_eq!(compare(&mut gate, &wanted), Reconciled::default());
    });
}

#[test]
fn an_entry_whose_measure_is_not_to_be_found_passes_until_it_is_mended() {
    in_lab(|lab| {
        let mut gate = lab.open();
        let seven = target("203.0.113.7");
        let wanted = insertions(&[(seven, in_an_hour())]);
        gate.insert(&wanted);
        let expires_ns = gate.entry(&seven).unwrap().expires_ns;
        let Tables { v4, .. } = &mut gate.tables;
        v4.slots.renew(v4.slots.find(&seven).unwrap(), expires_ns, measures::MEASURES);
        assert_eq!(gate.entry(&seven).unwrap().measure, None);
        assert_eq!(gate.verdict([203, 0, 113, 7].into()).unwrap(), Outcome::OutOfScope);

        assert_eq!(compare(&mut gate, &wanted), Reconciled { put_back: vec![seven], taken_out: Vec::new() });
        assert_eq!(gate.entry(&seven).unwrap().measure, Some(Measure::default()));
        assert_eq!(gate.verdict([203, 0, 113, 7].into()).unwrap(), Outcome::Exact4);
        assert_eq!(compare(&mut gate, &wanted), Reconciled::default());
    });
}

#[test]
fn what_does_not_lead_to_a_block_any_longer_is_mended() {
    in_lab(|lab| {
        let mut gate = lab.open();
        let wanted = ["203.0.113.1", "198.51.100.0/24", "198.51.101.128/25"];
        let wanted = insertions(&wanted.map(|text| (target(text), in_an_hour())));
        gate.insert(&wanted);
        // The trie without a prefix that is blocked, and with one that is not and hides those that it lies in; the filter empty.
        let Tables { v4, .. } = &mut gate.tables;
        let prefix = |address, length| aya::maps::lpm_trie::Key::new(length, address);
        assert!(v4.prefixes.delete(&prefix([198, 51, 101, 128], 25)).unwrap());
        v4.prefixes.update(&prefix([198, 51, 100, 64], 26), &0).unwrap();
        (0..xdpban_common::FILTER_WORDS)
            .for_each(|word| v4.filter.u64(word, 0).store(0, std::sync::atomic::Ordering::Relaxed));
        assert_eq!(gate.verdict([203, 0, 113, 1].into()).unwrap(), Outcome::Clean);

        let found = compare(&mut gate, &wanted);
        let mut all = wanted.iter().map(|one| one.target).collect::<Vec<_>>();
        all.sort();
        assert_eq!((found.put_back, found.taken_out), (all, vec![target("198.51.100.64/26")]));
        for address in ["203.0.113.1", "198.51.100.70", "198.51.101.130"] {
            assert!(gate.verdict(address.parse().unwrap()).unwrap().drops(), "{address}");
        }
        assert_eq!(compare(&mut gate, &wanted), Reconciled::default());
        // The counts are right: the tables take as many as they should.
        let others: Vec<_> = hosts(1024).into_iter().map(|target| (target, None)).collect();
        assert_eq!(left_out(&mut gate, &insertions(&others)), [1023]);
    });
}

#[test]
fn blocks_that_come_and_go_between_two_parts_are_no_difference() {
    in_lab(|lab| {
        let mut gate = Gate::open(&Options { blocks: 20_000, ..lab.options() }).unwrap();
        let mut wanted: BTreeMap<Target, Insertion> = BTreeMap::new();
        let mut numbers = 0..;
        let mut come = |gate: &mut Gate, wanted: &mut BTreeMap<Target, Insertion>, count| {
            let new: Vec<_> =
                numbers.by_ref().take(count).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n)).collect();
            let new: Vec<_> = new.into_iter().map(|address| (Target::exact(address.into()), None)).collect();
            insert(gate, &new);
            wanted.extend(insertions(&new).into_iter().map(|one| (one.target, one)));
        };
        come(&mut gate, &mut wanted, 10_000);
        let (mut part, mut parts) = (Some(Part::default()), 0);
        while let Some(this) = part {
            let (found, next) = gate.compare(this, |target| wanted.get(target).copied()).unwrap();
            assert_eq!(found, Reconciled::default());
            part = next;
            parts += 1;
            come(&mut gate, &mut wanted, 500);
            let gone: Vec<Target> = wanted.keys().copied().step_by(20).take(500).collect();
            gate.remove(&gone);
            wanted.retain(|target, _| !gone.contains(target));
        }
        assert!(parts > 4, "{parts} parts");
        assert_eq!(gate.put_back(wanted.values().copied()), []);
    });
}
