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

/// What was told in the second under way.
#[repr(C)]
struct Spent {
    since_ns: u64,
    messages: u64,
}

#[btf_map]
static TRACED: PerCpuArray<Spent, 1> = PerCpuArray::new();

/// Tells of a packet where that was asked for and the second's share is not spent.
#[inline(always)]
pub(crate) fn packet(frame: impl Fn() -> Frame, outcome: Outcome, amount: &Amount) {
    if level_enabled(Level::Info) && within_share() {
        tell(&frame(), outcome, amount);
    }
}

#[inline(always)]
fn within_share() -> bool {
    let Some(spent) = TRACED.get_ptr_mut(0) else { return false };
    // SAFETY: the lookup returned this CPU's slot.
    let spent = unsafe { &mut *spent };
    // SAFETY: the helper takes nothing and reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if now - spent.since_ns >= SECOND_NS {
        *spent = Spent { since_ns: now, messages: 0 };
    }
    spent.messages += 1;
    spent.messages <= PER_SECOND
}

#[inline(always)]
fn tell(frame: &Frame, outcome: Outcome, amount: &Amount) {
    let verdict = words(outcome);
    match source(frame) {
        Ok(Source::V4(v4)) => info!((), "{:i} {}, {} bytes", v4.address, verdict, amount.bytes),
        Ok(Source::V6(v6)) => info!((), "{:i} {}, {} bytes", v6.address, verdict, amount.bytes),
        Err(_) => info!((), "a frame without a source {}, {} bytes", verdict, amount.bytes),
    }
}

#[inline(always)]
fn words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean | Outcome::NotIp | Outcome::TooShort => "passed",
        Outcome::Exempt => "passed, since such packets always do",
        Outcome::Allowed => "passed, since it is allowed",
        Outcome::Exact4 | Outcome::Exact6 => "dropped",
        Outcome::Prefix4 | Outcome::Prefix6 => "dropped for its prefix",
        Outcome::OutOfScope => "passed, since only others of its source are blocked",
        Outcome::WithinRate => "passed within its rate",
        Outcome::Throttled => "dropped beyond its rate",
    }
}
