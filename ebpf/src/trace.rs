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

/// What was told in the second under way, and of the packet that is told of: through memory, so that the verifier carries
/// nothing of what it knows about each into the telling.
#[repr(C)]
struct Spent {
    since_ns: u64,
    messages: u64,
    bytes: u64,
    outcome: u32,
    reserved: u32,
}

#[btf_map]
static TRACED: PerCpuArray<Spent, 1> = PerCpuArray::new();

/// Tells of a packet where that was asked for and the second's share is not spent.
#[inline(always)]
pub(crate) fn packet(frame: impl Fn() -> Frame, outcome: Outcome, amount: &Amount) {
    if level_enabled(Level::Info)
        && let Some(spent) = share()
    {
        // SAFETY: the lookup returned this CPU's slot, whose fields are aligned.
        let (number, bytes) = unsafe {
            (&raw mut (*spent).outcome).write_volatile(outcome as u32);
            (&raw mut (*spent).bytes).write_volatile(amount.bytes);
            ((&raw const (*spent).outcome).read_volatile(), (&raw const (*spent).bytes).read_volatile())
        };
        if let Some(outcome) = Outcome::from_number(number) {
            tell(&frame(), outcome, bytes);
        }
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
fn tell(frame: &Frame, outcome: Outcome, bytes: u64) {
    let verdict = words(outcome);
    match source(frame) {
        Ok(Source::V4(v4)) => info!((), "{:i} {}, {} bytes", v4.address, verdict, bytes),
        Ok(Source::V6(v6)) => info!((), "{:i} {}, {} bytes", v6.address, verdict, bytes),
        Err(_) => info!((), "a frame without a source {}, {} bytes", verdict, bytes),
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
