//! `--trace-packets`: what became of each packet, through aya-log's ring buffer. The level is a constant when the
//! verifier runs, which removes all of this where no trace was asked for.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_map;
use aya_log_ebpf::info;
use aya_log_ebpf::macro_support::{Level, level_enabled};
use xdpban_common::Outcome;

use crate::count::Amount;
use crate::frame::Frame;
use crate::source::{Source, source};

/// At most so many packets are told of in a second, on each CPU: a flood must not become a flood of messages.
const PER_SECOND: u64 = 100;

const SECOND_NS: u64 = 1_000_000_000;

/// What was told in the second under way, and what is to be told now.
#[repr(C)]
struct Spent {
    since_ns: u64,
    messages: u64,
    packet: Packet,
}

/// What is told of a packet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Packet {
    bytes: u64,
    address: [u8; 16],
    /// How many bytes of the address there are: none, 4 or 16.
    address_len: u32,
    /// What became of it: a number that [`words`] knows.
    verdict: u32,
}

#[btf_map]
static TRACED: PerCpuArray<Spent, 1> = PerCpuArray::new();

/// Tells of a packet where that was asked for and the second's share is not spent.
#[inline(always)]
pub(crate) fn packet(frame: impl Fn() -> Frame, outcome: Outcome, amount: &Amount) {
    if level_enabled(Level::Info)
        && let Some(spent) = share()
    {
        let mut packet =
            Packet { bytes: amount.bytes, address: [0; 16], address_len: 0, verdict: verdict(outcome) };
        match source(&frame()) {
            Ok(Source::V4(v4)) => {
                let [a, b, c, d] = v4.address;
                [packet.address[0], packet.address[1], packet.address[2], packet.address[3]] = [a, b, c, d];
                packet.address_len = 4;
            }
            Ok(Source::V6(v6)) => {
                packet.address = v6.address;
                packet.address_len = 16;
            }
            Err(_) => {}
        }
        // Through memory, so that the verifier follows the telling once, and not for each way that led to it.
        // SAFETY: the lookup returned this CPU's slot, which is aligned.
        tell(unsafe {
            (&raw mut (*spent).packet).write_volatile(packet);
            (&raw const (*spent).packet).read_volatile()
        });
    }
}

/// This CPU's slot, where the second's share is not spent.
#[inline(always)]
fn share() -> Option<*mut Spent> {
    let slot = TRACED.get_ptr_mut(0)?;
    // SAFETY: the lookup returned this CPU's slot.
    let spent = unsafe { &mut *slot };
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if now - spent.since_ns >= SECOND_NS {
        spent.since_ns = now;
        spent.messages = 0;
    }
    spent.messages += 1;
    (spent.messages <= PER_SECOND).then_some(slot)
}

#[inline(always)]
fn tell(Packet { bytes, address, address_len, verdict }: Packet) {
    let verdict = words(verdict);
    let [a, b, c, d, ..] = address;
    match address_len {
        4 => info!((), "{:i} {}, {} bytes", [a, b, c, d], verdict, bytes),
        16 => info!((), "{:i} {}, {} bytes", address, verdict, bytes),
        _ => info!((), "a frame without a source {}, {} bytes", verdict, bytes),
    }
}

/// Few, since the verifier follows the whole telling for each.
#[inline(always)]
fn verdict(outcome: Outcome) -> u32 {
    match outcome {
        Outcome::Clean | Outcome::NotIp | Outcome::TooShort => 0,
        Outcome::Exempt | Outcome::Allowed | Outcome::OutOfScope => 1,
        Outcome::WithinRate => 2,
        Outcome::Throttled => 3,
        Outcome::Exact4 | Outcome::Exact6 | Outcome::Prefix4 | Outcome::Prefix6 => 4,
    }
}

#[inline(always)]
fn words(verdict: u32) -> &'static str {
    match verdict {
        0 => "passed",
        1 => "passed, although its source is blocked",
        2 => "passed within its rate",
        3 => "dropped beyond its rate",
        _ => "dropped",
    }
}
