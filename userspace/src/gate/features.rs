//! What can be learnt of the kernel and of the gate before anything is attached, also by those who may attach nothing.

use std::path::{Path, PathBuf};

use aya::util::KernelVersion;

use xdpban_common::program;

use super::error::{AttachedMode, GateError};
use super::pins::Pins;
use super::{Options, attach, load, privileges, selftest};

/// The version of the running kernel: major, minor, patch; none where it does not say.
pub fn kernel_version() -> Option<(u8, u8, u16)> {
    // The caller tells that it is not known.
    let version = KernelVersion::current().ok()?;
    let mut numbers = version.to_string();
    numbers.retain(|c| c.is_ascii_digit() || c == '.');
    let mut numbers = numbers.split('.');
    Some((
        numbers.next()?.parse().ok()?,
        numbers.next()?.parse().ok()?,
        numbers.next().and_then(|patch| patch.parse().ok()).unwrap_or(0),
    ))
}

/// The capabilities that the process lacks; none where that is not known.
pub fn missing_capabilities() -> Option<Vec<&'static str>> {
    privileges::missing_now()
}

/// Loads the program with small tables of its own and runs it on packets. Nothing of it is attached, pinned or left.
/// Returns whether the kernel compiled it; none where it does not say.
///
/// # Errors
/// What would keep the gate from opening.
pub fn rehearse() -> Result<Option<bool>, GateError> {
    privileges::check()?;
    // Of the options, only whether packets are traced matters here.
    let options =
        Options { pins: PathBuf::new(), blocks: 1, prefixes: 1, trace_packets: false, dry_run: false };
    let (mut instance, mut tables) = load::selftest_instance(&options)?;
    selftest::run(&mut instance, &mut tables)?;
    // The program has been run; that nothing more is known of it is no obstacle.
    let info = load::xdp(&mut instance, program::XDP)?.info().ok();
    Ok(info.map(|info| info.size_jitted() > 0))
}

/// Checks that the directory of pins is on a bpffs, or would be.
///
/// # Errors
/// [`GateError::NoBpffs`], or where it cannot be looked at.
pub fn check_pins(directory: &Path) -> Result<(), GateError> {
    Pins::new(directory).check_mounted()
}

/// The interfaces, by their numbers, that the pins in `directory` hold the gate to, and how.
///
/// # Errors
/// Where the process may not look there.
pub fn pinned_holds(directory: &Path) -> Result<Vec<(u32, AttachedMode)>, GateError> {
    let mut held = Vec::new();
    for pin in Pins::new(directory).holds()? {
        if let Some(index) = attach::interface_of(&pin)? {
            held.push((index, pin.hold.mode()));
        }
    }
    Ok(held)
}
