//! The gate without a controller: reading what is pinned, and taking all of it off the host.

use std::path::Path;

use xdpban_engine::target::Target;

use super::Gate;
use super::attach::release;
use super::error::{AttachedMode, GateError};
use super::load::all_pinned_entries;
use super::pins::{self, Pins};
use super::tables::Entry;

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
    all_pinned_entries(&pins)
}

impl Gate {
    /// Removes the maps of other layouts: what stood in them was taken over, and no program in force looks there any longer.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be removed.
    pub fn remove_other_layouts(&self) -> Result<(), GateError> {
        for layout in self.pins.layouts()?.into_iter().filter(|layout| *layout != self.pins.maps()) {
            unpin_all(&layout)?;
            log::info!("the tables of another version in {} are taken over and removed", layout.display());
        }
        self.pins.remove_directories()
    }
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
        detached.maps += unpin_all(&layout)?;
    }
    pins.remove_directories()?;
    Ok(detached)
}

/// Removes the pins in a directory, and returns how many there were.
fn unpin_all(directory: &Path) -> Result<usize, GateError> {
    let maps = pins::list(directory)?;
    maps.iter().try_for_each(|map| pins::unpin(map))?;
    Ok(maps.len())
}
