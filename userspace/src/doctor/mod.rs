//! Whether this host can run xdpban, in which mode, and what stands in the way: told before anything is attached, and to
//! anybody, root or not. Nothing is changed.

mod interfaces;
mod kernel;
mod logs;
mod memory;
mod pins;
mod setup;

use std::path::Path;

use serde::Serialize;

use self::setup::Setup;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// It runs, but not as well as it could.
    Warning,
    /// It does not run, or guards nothing there.
    Obstacle,
    /// This user cannot see it.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// `config`, `kernel`, `memory`, `pins`, `interface`, `source` or `controller`.
    pub area: &'static str,
    /// What was looked at, such as the name of an interface.
    pub name: String,
    /// How it came out.
    pub state: State,
    /// What was found, in words.
    pub finding: String,
    /// What removes the obstacle: a command, or what to write into the configuration. None where there is nothing to do.
    pub remedy: Option<String>,
}

/// An interface that would be guarded, or should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its driver, or the kind of a virtual one.
    pub driver: Option<String>,
    /// In bytes; null where there is no such interface.
    pub mtu: Option<u32>,
    /// The mode that it would get, or has: `native`, `generic` or `tc`; null where it would not be guarded.
    pub mode: Option<&'static str>,
    /// Whether the gate stands on it already.
    pub attached: bool,
    /// Offloads that matter to XDP and are on; null where that cannot be seen.
    pub offloads: Option<Vec<String>>,
}

/// Memory of the kernel, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What the tables take from the start.
    pub tables: u64,
    /// What they take when they are full.
    pub tables_full: u64,
    /// What there is to be had; null where that cannot be seen.
    pub available: Option<u64>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The version of this program.
    pub version: &'static str,
    /// Whether there is no obstacle.
    pub ready: bool,
    /// Every check, in the order in which obstacles are best removed.
    pub checks: Vec<Check>,
    /// The interfaces of the configuration.
    pub interfaces: Vec<Interface>,
    /// The tables of the configuration.
    pub memory: Memory,
}

impl Check {
    fn new(area: &'static str, name: impl Into<String>, state: State, finding: impl Into<String>) -> Check {
        Check { area, name: name.into(), state, finding: finding.into(), remedy: None }
    }

    fn ok(area: &'static str, name: impl Into<String>, finding: impl Into<String>) -> Check {
        Check::new(area, name, State::Ok, finding)
    }

    fn remedy(self, remedy: impl Into<String>) -> Check {
        Check { remedy: Some(remedy.into()), ..self }
    }
}

/// Looks at everything. `config_file`: what `--config` named.
pub fn examine(config_file: Option<&Path>) -> Report {
    let mut checks = Vec::new();
    let setup = Setup::read(config_file, &mut checks);
    kernel::examine(&mut checks);
    let memory = memory::examine(&setup, &mut checks);
    pins::examine(&setup, &mut checks);
    let interfaces = interfaces::examine(&setup, &mut checks);
    logs::examine(&setup, &mut checks);
    setup.controller(&mut checks);
    let ready = checks.iter().all(|check| check.state != State::Obstacle);
    Report { version: env!("CARGO_PKG_VERSION"), ready, checks, interfaces, memory }
}
