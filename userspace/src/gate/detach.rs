//! The gate without a controller: reading what is pinned, and taking all of it off the host.

use std::path::Path;

use xdpban_common::{Entry, map};
use xdpban_engine::target::Target;

use super::attach::release;
use super::error::{AttachedMode, GateError};
use super::load::pinned_entries;
use super::pins::{self, Pins};

/// What [`detach`] took off the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// The interfaces that the gate was attached to, and how.
    pub interfaces: Vec<(String, AttachedMode)>,
    /// How many tables were removed.
    pub maps: usize,
}

/// The entries of the tables that are pinned in `pins`, whoever pinned them; of tables of another layout none.
///
/// # Errors
///
/// Where `pins` is not on a bpffs, or the process may not read there.
pub fn read_pinned(pins: &Path) -> Result<Vec<(Target, Entry)>, GateError> {
    let pins = Pins::new(pins);
    pins.check_mounted()?;
    let mut entries = Vec::new();
    for name in [map::BLOCK4, map::BLOCK6, map::PREFIX4, map::PREFIX6] {
        entries.extend(pinned_entries(name, &pins.map(name))?);
    }
    Ok(entries)
}

/// Takes the programs off their interfaces and removes every pin, of this version and of others. What is gone already
/// is no error, so that it can be called again.
///
/// # Errors
///
/// Where `pins` is not on a bpffs, or the kernel refuses.
pub fn detach(pins: &Path) -> Result<Detached, GateError> {
    let pins = Pins::new(pins);
    pins.check_mounted()?;
    let mut detached = Detached::default();
    for pin in pins.holds()? {
        release(&pin)?;
        detached.interfaces.push((pin.interface, pin.hold.mode()));
    }
    for layout in pins.layouts()? {
        for map in pins::list(&layout)? {
            pins::unpin(&map)?;
            detached.maps += 1;
        }
    }
    pins.remove_directories()?;
    Ok(detached)
}
