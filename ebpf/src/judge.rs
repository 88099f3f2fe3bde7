//! What is to become of a packet. Everything but the search for a block is done only after a block was found.

use xdpban_common::{Control, Outcome, Special};

use crate::clock;
use crate::count::{Amount, Counts};
use crate::frame::Frame;
use crate::maps::{CONTROL, SPECIAL};
use crate::scope;
use crate::source::{Source, Unparsed, source};
use crate::table::{Address, Entry, find};

/// What was found.
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// Those of the entry that drops the packet, where one does. Not an `Option`: what that leaves undefined the compiler
    /// moves around, which verifiers before 6.3 do not allow.
    pub(crate) counts: Counts,
    /// Whether the packet passes all the same, as nothing is enforced.
    pub(crate) dry_run: bool,
}

/// Judges a frame, of which `tokens` are taken where its source is throttled: none to only ask. Decides nothing about
/// what to do where it cannot be parsed.
#[inline(always)]
pub(crate) fn judge(frame: &Frame, tokens: &Amount) -> Result<Verdict, Unparsed> {
    let Some(control) = CONTROL.get(0) else { return Ok(Verdict::of(Outcome::Clean)) };
    let source = source(frame)?;
    let found = match source {
        Source::V4(v4) => found(v4, control, || v4.is_exempt()),
        Source::V6(v6) => found(v6, control, || v6.is_exempt(frame)),
    };
    let entry = match found {
        Ok(entry) => entry,
        Err(outcome) => return Ok(Verdict::of(outcome)),
    };
    let outcome = match entry.special {
        0 => entry.outcome,
        special => measured(frame, &source, entry.outcome, special, tokens),
    };
    if !outcome.drops() {
        return Ok(Verdict::of(outcome));
    }
    Ok(Verdict { outcome, counts: entry.counts, dry_run: control.dry_run != 0 })
}

impl Verdict {
    #[inline(always)]
    pub(crate) fn of(outcome: Outcome) -> Verdict {
        Verdict { outcome, counts: Counts::NONE, dry_run: false }
    }
}

/// The entry that holds for `address`, or what becomes of it without one.
#[inline(always)]
fn found<A: Address>(address: A, control: &Control, is_exempt: impl Fn() -> bool) -> Result<Entry, Outcome> {
    let Some(entry) = find(address, control, clock::coarse) else { return Err(Outcome::Clean) };
    if is_exempt() {
        return Err(Outcome::Exempt);
    }
    if address.is_allowed(control) {
        return Err(Outcome::Allowed);
    }
    Ok(entry)
}

/// What an entry with a measure of its own does to a packet.
#[inline(always)]
fn measured(frame: &Frame, source: &Source, dropped: Outcome, special: u32, tokens: &Amount) -> Outcome {
    // Without its measure an entry would be more than what was asked for.
    let Some(special) = SPECIAL.get_ptr_mut(special) else { return Outcome::OutOfScope };
    // SAFETY: a pointer that a lookup returned is valid until the program ends. What is read here the controller
    // wrote before the entry.
    let Special { token_ns, burst_ns, ports, new_only, .. } = unsafe { *special };
    if !scope::contains(frame, source, &ports, new_only != 0) {
        return Outcome::OutOfScope;
    }
    if token_ns == 0 {
        return dropped;
    }
    // SAFETY: as above.
    if take(unsafe { &raw mut (*special).full_ns }, token_ns, burst_ns, tokens.packets) {
        Outcome::WithinRate
    } else {
        Outcome::Throttled
    }
}

/// Takes tokens out of a bucket; false where it is empty. The bucket is the time at which it will be full again. That
/// is exact on one CPU; where two take out of a full bucket at the same moment, both may get the same token.
#[inline(always)]
fn take(full_ns: *mut u64, token_ns: u64, burst_ns: u64, tokens: u64) -> bool {
    // Where a bucket holds the tokens of a tick, none is lost while the coarse clock stands still.
    let now = if burst_ns >= clock::MAX_TICK_NS { clock::coarse() } else { clock::exact() };
    // SAFETY: the caller got the pointer from a lookup; whole, aligned words are read and written.
    let full = unsafe { full_ns.read_volatile() };
    if full > now + burst_ns {
        return false;
    }
    let from = if full > now { full } else { now };
    if tokens > 0 {
        // SAFETY: as above.
        unsafe { full_ns.write_volatile(from + token_ns * tokens) };
    }
    true
}
