//! How much work the programs are to the kernel's verifier, which gives up after a million instructions.

use super::*;

/// Far from what the verifier bears, so that other kernels, which find their way otherwise, have room.
const BOUND: u32 = 250_000;

/// Where the programs tell of packets, which is for looking into faults. Linux 6.1 follows the telling
/// eight times at TC.
const TRACING_BOUND: u32 = 850_000;

#[test]
fn the_verifier_gets_to_its_end_with_room_to_spare() {
    with_gate(|gate| assert_verified(gate, BOUND));
}

#[test]
fn the_verifier_takes_the_programs_that_tell_of_packets() {
    in_lab(|lab| {
        let options = Options { trace_packets: true, ..lab.options() };
        assert_verified(&mut Gate::open(&options).unwrap(), TRACING_BOUND);
    });
}

fn assert_verified(gate: &mut Gate, bound: u32) {
    let mut most = 0;
    for &name in [xdp_entries(), &[program::PROBE]].concat().iter() {
        let info = load::xdp(&mut gate.programs, name).unwrap().info().unwrap();
        most = most.max(told(name, info.verified_instruction_count()));
    }
    let info = load::classifier(&mut gate.programs).unwrap().info().unwrap();
    most = most.max(told(program::TC, info.verified_instruction_count()));
    assert!(most <= bound, "{most} instructions, at most {bound} are expected");
}

/// The count, which kernels tell from 5.16 on; before, that it loads has to do.
fn told(name: &str, count: Option<u32>) -> u32 {
    match count {
        Some(count) => println!("{name}: {count} instructions verified"),
        None => println!("{name}: loaded; the kernel does not tell the number of instructions verified"),
    }
    count.unwrap_or(0)
}
