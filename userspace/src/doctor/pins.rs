//! Where the gate is pinned.

use super::setup::Setup;
use super::{Check, State};
use crate::error::chain;
use crate::gate::{self, GateError};

pub(super) fn examine(setup: &Setup, checks: &mut Vec<Check>) {
    let name = setup.paths.pins.display().to_string();
    checks.push(match gate::check_pins(&setup.paths.pins) {
        Ok(()) => Check::ok("pins", name, "on a bpffs"),
        Err(GateError::NoBpffs { path }) => {
            Check::new("pins", name, State::Obstacle, format!("{} is not on a bpffs", path.display()))
                .remedy("mount -t bpf bpf /sys/fs/bpf")
        }
        Err(error) => Check::new("pins", name, State::Unknown, chain(&error)),
    });
}
