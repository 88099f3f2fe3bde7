//! What a later controller finds.

use super::frame::ipv4;
use super::*;

#[test]
fn a_later_controller_takes_over_entries_counts_and_totals() {
    in_lab(|lab| {
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7", "198.51.100.0/24"]);
        gate.set_allow(&[target("192.0.2.0/24")]).unwrap();
        let program = load::xdp(&mut gate.programs, program::XDP).unwrap();
        selftest::test_run(program, program::XDP, &ipv4("203.0.113.7")).unwrap();
        let (entries, totals) = (entries(&gate), gate.totals().unwrap());
        drop(gate);

        let mut gate = lab.open();
        assert_eq!(self::entries(&gate), entries);
        assert_eq!(gate.totals().unwrap(), totals);
        assert_eq!(gate.verdict("203.0.113.7".parse().unwrap()).unwrap(), Outcome::Exact4);
        // The counts of what is present were taken over with the rest.
        gate.remove(&[target("203.0.113.7"), target("198.51.100.0/24")]);
        gate.set_allow(&[]).unwrap();
        assert_eq!(gate.entries().count(), 0);
    });
}

#[test]
fn a_table_of_another_capacity_hands_its_live_entries_over() {
    in_lab(|lab| {
        let mut gate = lab.open();
        let later = clock::now().mono.after(Duration::from_secs(7200));
        block(&mut gate, &["203.0.113.1", "203.0.113.2", "2001:db8::/64", "198.51.100.0/24"]);
        insert(&mut gate, &[(target("203.0.113.3"), Some(later)), (target("203.0.113.4"), Some(Mono(1)))]);
        drop(gate);

        let larger = Options { blocks: 2048, prefixes: 128, ..lab.options() };
        let gate = Gate::open(&larger).unwrap();
        assert_eq!(gate.entries().count(), 5, "all but the expired one");
        drop(gate);

        let smaller = Options { blocks: 2, ..lab.options() };
        let mut gate = Gate::open(&smaller).unwrap();
        assert_eq!(gate.entries().count(), 4, "the table of IPv4 addresses keeps two of three");
        assert!(gate.entry(&target("203.0.113.3")).is_some(), "the one that expires last stays");
        assert_eq!(gate.verdict("203.0.113.3".parse().unwrap()).unwrap(), Outcome::Exact4);
        drop(gate);
        assert_eq!(read_pinned(&lab.pins()).unwrap().len(), 4);
    });
}

#[test]
fn a_foreign_map_in_the_place_of_ours_is_not_taken_for_ours() {
    in_lab(|lab| {
        drop(lab.open());
        let path = lab.pins().join("v2/BLOCK4");
        std::fs::remove_file(&path).unwrap();
        let foreign: aya::maps::HashMap<_, u64, u64> = aya::maps::HashMap::create(1024, 0).unwrap();
        foreign.pin(&path).unwrap();
        assert_eq!(read_pinned(&lab.pins()).unwrap(), []);
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        assert_eq!(gate.entries().count(), 1);
    });
}

#[test]
fn without_a_bpffs_the_error_says_how_to_mount_one() {
    in_lab(|_| {
        let elsewhere = tempfile::tempdir().unwrap();
        let pins = elsewhere.path().join("xdpban");
        let options =
            Options { pins: pins.clone(), blocks: 16, prefixes: 16, dry_run: false, trace_packets: false };
        let Err(error) = Gate::open(&options) else { panic!("it opened without a bpffs") };
        assert!(matches!(&error, GateError::NoBpffs { .. }), "{error}");
        assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
        assert!(matches!(detach(&pins), Err(GateError::NoBpffs { .. })));
        assert!(matches!(read_pinned(&pins), Err(GateError::NoBpffs { .. })));
    });
}

#[test]
fn nothing_pinned_reads_as_nothing_blocked() {
    in_lab(|lab| {
        assert_eq!(read_pinned(&lab.pins()).unwrap(), []);
        assert_eq!(detach(&lab.pins()).unwrap(), Detached::default());
    });
}
