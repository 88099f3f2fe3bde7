//! The entries. All judge by the same code; what to do with what they find is decided here and nowhere else.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use xdpban_common::Outcome;

use crate::count::{self, Amount};
use crate::frame::Frame;
use crate::judge::{Verdict, judge};
use crate::source::Unparsed;
use crate::trace;

/// Headers that [`judge`] reads: Ethernet, two VLAN tags, IPv4 with all options or IPv6 with an extension header, and
/// TCP up to its flags.
const HEADERS: u32 = 14 + 2 * 4 + 60 + 14;

/// The verdict on a frame: what cannot be understood passes.
#[inline(always)]
fn verdict(frame: &Frame, tokens: &Amount) -> Verdict {
    match judge(frame, tokens) {
        Ok(verdict) => verdict,
        Err(Unparsed::NotIp) => Verdict::of(Outcome::NotIp),
        Err(Unparsed::TooShort) => Verdict::of(Outcome::TooShort),
    }
}

/// Counts what became of a frame and says whether it is dropped. `frame` reads from the context where the frame is: to tell
/// of the frame the program reads it anew, so that the verifier does not carry on what it has learned of it so far.
#[inline(always)]
fn drops(frame: impl Fn() -> Frame, amount: Amount) -> bool {
    let Verdict { outcome, counts, dry_run } = verdict(&frame(), &amount);
    count::total(outcome, &amount);
    counts.add(&amount);
    let drops = outcome.drops() && !dry_run;
    trace::packet(frame, outcome, &amount);
    drops
}

#[inline(always)]
fn xdp_verdict(drops: bool) -> u32 {
    if drops { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

#[xdp]
fn xdpban(ctx: XdpContext) -> u32 {
    let frame = || Frame::new(ctx.data(), ctx.data_end());
    xdp_verdict(drops(frame, Amount { packets: 1, bytes: frame().len() }))
}

/// For drivers that hand over a large packet in several buffers. The headers are in the first.
#[xdp(frags)]
fn xdpban_frags(ctx: XdpContext) -> u32 {
    let frame = || Frame::new(ctx.data(), ctx.data_end());
    // SAFETY: the helper reads the length from the context that the kernel passed in.
    let bytes = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    xdp_verdict(drops(frame, Amount { packets: 1, bytes }))
}

/// `TC_ACT_UNSPEC` leaves packets to other classifiers.
#[classifier]
fn xdpban_tc(ctx: TcContext) -> i32 {
    let len = ctx.len();
    let wanted = len.min(HEADERS);
    if ctx.data() + wanted as usize > ctx.data_end() {
        // Where this fails, the frame stays as short as it was, and passes as such.
        ctx.pull_data(wanted).ok();
    }
    let frame = || Frame::new(ctx.data(), ctx.data_end());
    // SAFETY: the context that the kernel passed in; the field is there since 5.1.
    let segments = unsafe { (*ctx.skb.skb).gso_segs };
    let amount = Amount { packets: u64::from(segments.max(1)), bytes: u64::from(len) };
    if drops(frame, amount) { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

/// Tells the outcome of a packet without leaving a trace of it. Never attached: the controller runs it to ask.
#[xdp]
fn xdpban_probe(ctx: XdpContext) -> u32 {
    verdict(&Frame::new(ctx.data(), ctx.data_end()), &Amount::NONE).outcome as u32
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Without a licence that is compatible with the GPL the kernel would refuse some helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
