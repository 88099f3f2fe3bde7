//! Attaching to interfaces, and what is there afterwards.

#![allow(unsafe_code, reason = "a frame is sent through a packet socket, for which nix has no address")]

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aya_log::EbpfLogger;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::fixtures::fixtures;
use super::frame::{SERVICE_VLAN, VLAN, ipv4, ipv6};
use super::*;
use crate::config::Mode;
use crate::host::{self, Link};

/// Sends a frame out of an interface, so that its peer receives it.
fn send(interface: &str, frame: &[u8]) {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
        sll_protocol: 0,
        sll_ifindex: i32::try_from(index(interface)).unwrap(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
    // SAFETY: the frame and the address outlive the call, and their lengths are theirs.
    let sent = unsafe {
        let address = (&raw const address).cast();
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, address, length)
    };
    assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", std::io::Error::last_os_error());
}

fn xdp_program(interface: &str) -> Option<u32> {
    link(interface).xdp_program
}

fn index(interface: &str) -> u32 {
    if_nametoindex(interface).unwrap()
}

fn link(interface: &str) -> Link {
    host::links().unwrap().into_iter().find(|link| link.name == interface).unwrap()
}

/// The interfaces that the gate is held to, and how.
fn held(gate: &Gate) -> Vec<(String, AttachedMode)> {
    gate.held().unwrap().into_iter().map(|held| (held.interface, held.mode)).collect()
}

fn release(gate: &mut Gate) {
    for held in gate.held().unwrap() {
        gate.release(&held).unwrap();
    }
}

/// What became of a frame that comes in by `receiver`, which is the peer of `sender`.
fn verdict_on_the_wire(gate: &Gate, sender: &str, frame: &[u8]) -> Outcome {
    let before = gate.totals().unwrap();
    send(sender, frame);
    for _ in 0..200 {
        let after = gate.totals().unwrap();
        // Neighbour discovery of the interfaces themselves comes in between and is clean.
        let dropped = Outcome::ALL.into_iter().find(|o| o.drops() && after.of(*o) > before.of(*o));
        if let Some(outcome) = dropped {
            return outcome;
        }
        if after.of(Outcome::Clean) > before.of(Outcome::Clean) {
            return Outcome::Clean;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("the gate saw nothing of the frame");
}

fn link_pins(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.pins().join("links")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn attached(interface: &str, mode: AttachedMode) -> Attached {
    Attached { interface: interface.to_owned(), mode, warning: None }
}

/// Keeps the interfaces from speaking for themselves, so that every packet is the test's.
fn quiet_veth(lab: &Lab) {
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    lab.veth("v0", "v1");
}

#[test]
fn in_every_mode_a_blocked_source_is_dropped_and_a_bystander_is_not() {
    in_lab(|lab| {
        quiet_veth(lab);
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7", "2001:db8:1:2::/64"]);
        let modes = [
            (Mode::Auto, AttachedMode::Native),
            (Mode::Tc, AttachedMode::Tc),
            (Mode::Generic, AttachedMode::Generic),
            (Mode::Native, AttachedMode::Native),
        ];
        for (mode, expected) in modes {
            assert_eq!(gate.attach("v0", mode).unwrap(), attached("v0", expected));
            assert_eq!(held(&gate), [("v0".to_owned(), expected)], "only one holds");
            assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.7")), Outcome::Exact4, "{expected}");
            assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.8")), Outcome::Clean, "{expected}");
            assert_eq!(
                verdict_on_the_wire(&gate, "v1", &ipv6("2001:db8:1:2::3")),
                Outcome::Exact6,
                "{expected}"
            );
        }
        assert_eq!(gate.entry(&target("203.0.113.7")).unwrap().packets, 4);
    });
}

#[test]
fn the_gate_stays_closed_without_a_controller_and_is_taken_over() {
    in_lab(|lab| {
        quiet_veth(lab);
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        gate.attach("v0", Mode::Auto).unwrap();
        let first = xdp_program("v0").unwrap();
        drop(gate);
        send("v1", &ipv4("203.0.113.7"));
        thread::sleep(Duration::from_millis(20));

        let mut gate = lab.open();
        let entry = gate.entry(&target("203.0.113.7")).unwrap();
        assert_eq!(entry.packets, 1, "it was dropped while no controller ran");
        assert_eq!(gate.attach("v0", Mode::Auto).unwrap(), attached("v0", AttachedMode::Native));
        let second = xdp_program("v0").unwrap();
        assert_ne!(first, second, "the link has the new program");
        assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.7")), Outcome::Exact4);
        // To attach again is to update again.
        gate.attach("v0", Mode::Auto).unwrap();
        assert_eq!(link_pins(lab), ["native-v0"]);
    });
}

#[test]
fn no_packet_passes_while_one_controller_follows_another() {
    in_lab(|lab| {
        quiet_veth(lab);
        let mut frame = ipv4("203.0.113.7");
        frame[..6].fill(0xff); // To all, so that the stack would take it.
        let before = received();
        send("v1", &frame);
        thread::sleep(Duration::from_millis(50));
        assert_eq!(received(), before + 1, "without the gate it comes through");

        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        gate.attach("v0", Mode::Auto).unwrap();
        let before = received();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // The namespaces of this thread are those of the lab.
        let flood = thread::spawn(move || {
            let mut sent = 0u64;
            while !stopped.load(Ordering::Relaxed) {
                send("v1", &frame);
                sent += 1;
            }
            sent
        });
        for blocks in [1024, 2048, 1024] {
            drop(gate);
            gate = Gate::open(&Options { blocks, ..lab.options() }).unwrap();
            gate.attach("v0", Mode::Auto).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let sent = flood.join().unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(sent > 10, "{sent}");
        assert_eq!(received(), before, "of {sent} packets");
    });
}

/// IPv4 packets that came up the stack in this namespace.
fn received() -> u64 {
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let values = snmp.lines().filter(|line| line.starts_with("Ip:")).nth(1).unwrap();
    values.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[test]
fn detach_takes_everything_off_even_under_a_running_controller() {
    in_lab(|lab| {
        quiet_veth(lab);
        lab.veth("v2", "v3");
        let mut gate = lab.open();
        gate.attach("v0", Mode::Native).unwrap();
        gate.attach("v2", Mode::Tc).unwrap();
        let detached = detach(&lab.pins()).unwrap();
        let interfaces = [("v0".to_owned(), AttachedMode::Native), ("v2".to_owned(), AttachedMode::Tc)];
        assert_eq!(detached, Detached { interfaces: interfaces.into(), maps: 11 });
        assert_eq!(xdp_program("v0"), None);
        assert!(!lab.pins().exists());
        assert_eq!(detach(&lab.pins()).unwrap(), Detached::default(), "again is no error");
    });
}

#[test]
fn another_program_on_the_interface_is_named_and_auto_goes_to_tc() {
    in_lab(|lab| {
        quiet_veth(lab);
        // A second gate with pins of its own stands for any other program.
        let other = Options { pins: lab.bpffs().join("other"), ..lab.options() };
        let mut other = Gate::open(&other).unwrap();
        other.attach("v0", Mode::Native).unwrap();

        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        let error = gate.attach("v0", Mode::Native).unwrap_err();
        assert!(matches!(error, GateError::Occupied { .. }), "{error}");
        let id = xdp_program("v0").unwrap();
        assert!(error.to_string().contains(&format!("(id {id}, `xdpban`)")), "{error}");
        assert!(error.to_string().contains("ip link set dev v0 xdp off"), "{error}");

        let attached = gate.attach("v0", Mode::Auto).unwrap();
        assert_eq!(attached.mode, AttachedMode::Tc);
        let warning = attached.warning.unwrap();
        assert!(warning.contains("another XDP program"), "{warning}");
        assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.7")), Outcome::Exact4);
    });
}

#[test]
fn where_the_driver_has_no_xdp_auto_goes_to_tc_and_says_why() {
    in_lab(|lab| {
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        let mut gate = lab.open();
        let error = gate.attach("br0", Mode::Native).unwrap_err();
        assert!(error.to_string().contains("its driver has no XDP"), "{error}");
        let attached = gate.attach("br0", Mode::Auto).unwrap();
        assert_eq!(attached.mode, AttachedMode::Tc);
        assert!(attached.warning.unwrap().contains("its driver has no XDP"));
    });
}

#[test]
fn a_large_mtu_is_met_by_the_program_for_several_buffers() {
    in_lab(|lab| {
        quiet_veth(lab);
        for interface in ["v0", "v1"] {
            run("ip", &["link", "set", interface, "mtu", "9000"]);
        }
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        let mut frame = ipv4("203.0.113.7");
        frame.resize(8000, 0);
        let attached_by = gate.attach("v0", Mode::Auto).unwrap().mode;
        if !has_frags() {
            assert_eq!(attached_by, AttachedMode::Tc);
            assert_eq!(verdict_on_the_wire(&gate, "v1", &frame), Outcome::Exact4);
            return;
        }
        assert_eq!(attached_by, AttachedMode::Native);
        assert_eq!(verdict_on_the_wire(&gate, "v1", &frame), Outcome::Exact4);
        assert_eq!(gate.entry(&target("203.0.113.7")).unwrap().bytes, 8000);
        drop(gate);
        let mut gate = lab.open();
        assert_eq!(gate.attach("v0", Mode::Auto).unwrap(), attached("v0", AttachedMode::Native));
        assert_eq!(link_pins(lab), ["native-v0"]);
    });
}

#[test]
fn an_interface_that_was_deleted_and_made_again_is_attached_afresh() {
    in_lab(|lab| {
        quiet_veth(lab);
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        for mode in [Mode::Native, Mode::Tc] {
            gate.attach("v0", mode).unwrap();
            run("ip", &["link", "del", "v0"]);
            lab.veth("v0", "v1");
            gate.attach("v0", mode).unwrap();
            assert_eq!(held(&gate).len(), 1);
            assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.7")), Outcome::Exact4);
        }
    });
}

#[test]
fn a_renamed_interface_keeps_its_link() {
    in_lab(|lab| {
        quiet_veth(lab);
        let mut gate = lab.open();
        gate.attach("v0", Mode::Native).unwrap();
        run("ip", &["link", "set", "v0", "down"]);
        run("ip", &["link", "set", "v0", "name", "wan.100"]);
        run("ip", &["link", "set", "wan.100", "up"]);
        assert_eq!(gate.attach("wan.100", Mode::Native).unwrap(), attached("wan.100", AttachedMode::Native));
        assert_eq!(link_pins(lab), ["native-wan:100"], "a bpffs takes no dots");
        release(&mut gate);
        assert_eq!(xdp_program("wan.100"), None);
        assert_eq!(held(&gate), []);
    });
}

#[test]
fn on_kernels_without_tcx_a_classifier_stays_and_is_replaced_in_place() {
    in_lab(|lab| {
        quiet_veth(lab);
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        gate.attach_clsact(&link("v0")).unwrap();
        assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.7")), Outcome::Exact4);
        drop(gate);
        let filters = || run("tc", &["filter", "show", "dev", "v0", "ingress"]);
        assert_eq!(filters().matches("direct-action").count(), 1, "{}", filters());

        let mut gate = lab.open();
        gate.attach_clsact(&link("v0")).unwrap();
        assert_eq!(filters().matches("direct-action").count(), 1, "{}", filters());
        assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.7")), Outcome::Exact4);
        assert_eq!(held(&gate), [("v0".to_owned(), AttachedMode::Tc)]);

        let detached = detach(&lab.pins()).unwrap();
        assert_eq!(detached.interfaces, [("v0".to_owned(), AttachedMode::Tc)]);
        assert_eq!(filters().matches("direct-action").count(), 0, "{}", filters());
    });
}

#[test]
fn an_interface_that_is_not_there_is_named_with_those_that_are() {
    in_lab(|lab| {
        quiet_veth(lab);
        let error = lab.open().attach("eth7", Mode::Auto).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("eth7") && message.contains("v0") && message.contains("v1"), "{message}");
    });
}

#[test]
fn an_interface_without_ethernet_headers_is_refused() {
    in_lab(|lab| {
        run("ip", &["tuntap", "add", "tun7", "mode", "tun"]);
        run("ip", &["tuntap", "add", "tap7", "mode", "tap"]);
        let mut gate = lab.open();
        for interface in ["tun7", "lo"] {
            for mode in [Mode::Auto, Mode::Tc, Mode::Generic] {
                let error = gate.attach(interface, mode).unwrap_err();
                assert!(matches!(error, GateError::Unfit { .. }), "{interface}: {error}");
            }
        }
        gate.attach("tap7", Mode::Auto).unwrap();
    });
}

/// A pair of which the driver of `v0` refuses XDP, for want of queues.
fn veth_short_of_queues() {
    let queues = "link add v1 numtxqueues 4 numrxqueues 4 type veth peer name v0 numtxqueues 1 numrxqueues 1";
    run("ip", &queues.split(' ').collect::<Vec<_>>());
    run("ip", &["link", "set", "v0", "up"]);
    run("ip", &["link", "set", "v1", "up"]);
}

#[test]
fn a_driver_that_is_short_of_queues_is_quoted_and_auto_goes_to_tc() {
    in_lab(|lab| {
        veth_short_of_queues();
        let mut gate = lab.open();
        block(&mut gate, &["203.0.113.7"]);
        let error = gate.attach("v0", Mode::Native).unwrap_err().to_string();
        assert!(error.contains("rx queues") && error.contains("ethtool -L v0"), "{error}");
        assert_eq!(xdp_program("v0"), None, "to ask for the reason leaves nothing behind");
        let attached = gate.attach("v0", Mode::Auto).unwrap();
        assert_eq!(attached.mode, AttachedMode::Tc);
        assert!(attached.warning.unwrap().contains("rx queues"));
        assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.7")), Outcome::Exact4);
        assert_eq!(verdict_on_the_wire(&gate, "v1", &ipv4("203.0.113.8")), Outcome::Clean);
    });
}

#[test]
fn where_a_driver_refuses_verdicts_and_counts_are_those_of_the_driver() {
    in_lab(|lab| {
        // Of a frame with a VLAN tag the kernel takes the tag off before TC sees it.
        let has_tag =
            |frame: &[u8]| frame[12..14] == VLAN.to_be_bytes() || frame[12..14] == SERVICE_VLAN.to_be_bytes();
        let frames: Vec<_> =
            fixtures().into_iter().map(|(frame, ..)| frame).filter(|frame| !has_tag(frame)).collect();
        let mut seen = Vec::new();
        for (expected, make) in
            [(AttachedMode::Native, quiet_veth as fn(&Lab)), (AttachedMode::Tc, |_| veth_short_of_queues())]
        {
            make(lab);
            let mut gate = lab.open();
            fixtures::fill(&mut gate);
            assert_eq!(gate.attach("v0", Mode::Auto).unwrap().mode, expected);
            for frame in &frames {
                send("v1", frame);
            }
            let judged = |totals: &Totals| totals.passed() + totals.dropped();
            let mut totals = gate.totals().unwrap();
            for _ in 0..200 {
                if judged(&totals) >= frames.len() as u64 {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
                totals = gate.totals().unwrap();
            }
            assert_eq!(judged(&totals), frames.len() as u64, "{expected}");
            seen.push((totals, entries(&gate)));
            drop(gate);
            detach(&lab.pins()).unwrap();
            run("ip", &["link", "del", "v0"]);
        }
        assert_eq!(seen[0], seen[1]);
    });
}

#[test]
fn what_lies_over_an_interface_or_has_ports_is_guarded_at_tc_and_they_are_named() {
    in_lab(|lab| {
        quiet_veth(lab);
        run("ip", &["link", "add", "mv0", "link", "v0", "type", "macvlan"]);
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        lab.veth("v2", "v3");
        run("ip", &["link", "set", "v2", "master", "br0"]);
        let mut gate = lab.open();
        for (interface, entrance) in [("mv0", "v0"), ("br0", "v2")] {
            let attached = gate.attach(interface, Mode::Auto).unwrap();
            assert_eq!(attached.mode, AttachedMode::Tc, "{interface}");
            let warning = attached.warning.unwrap();
            assert!(warning.contains(&format!("guard {entrance}")), "{warning}");
        }
    });
}

#[test]
fn the_hold_on_an_interface_that_went_to_another_namespace_is_no_other_interfaces() {
    in_lab(|lab| {
        quiet_veth(lab);
        let mut gate = lab.open();
        gate.attach("v0", Mode::Native).unwrap();
        let mut elsewhere = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
        thread::sleep(Duration::from_millis(200));
        let pid = elsewhere.id().to_string();
        run("ip", &["link", "set", "v0", "netns", &pid]);
        let gone = gate.held().unwrap();
        assert_eq!(gone.len(), 1, "the kernel leaves the program where it is");
        gate.release(&gone[0]).unwrap();
        let there = run("nsenter", &["--net", "--target", &pid, "ip", "link", "show", "v0"]);
        assert!(!there.contains("xdp"), "{there}");
        elsewhere.kill().unwrap();
        elsewhere.wait().unwrap();
    });
}

#[test]
fn packets_are_told_of_only_when_asked_and_only_so_many() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    struct Counter;
    impl log::Log for Counter {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let message = record.args().to_string();
            assert_eq!(message, "203.0.113.7 dropped, 54 bytes");
            TOLD.fetch_add(1, Ordering::Relaxed);
        }
        fn flush(&self) {}
    }
    in_lab(|lab| {
        assert!(lab.open().packet_log().unwrap().is_none());
        let mut gate = Gate::open(&Options { trace_packets: true, ..lab.options() }).unwrap();
        block(&mut gate, &["203.0.113.7"]);
        let mut log = EbpfLogger::init_with_logger(&mut gate.programs, Counter).unwrap();
        let program = load::xdp(&mut gate.programs, program::XDP).unwrap();
        for _ in 0..500 {
            selftest::test_run(program, program::XDP, &ipv4("203.0.113.7")).unwrap();
        }
        log.flush();
        let told = TOLD.load(Ordering::Relaxed);
        // A hundred a second on each CPU; the runs may move between CPUs and into another second.
        assert!((100..500).contains(&told), "{told} messages");
    });
}
