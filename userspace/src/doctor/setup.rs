//! The configuration, and whether a controller runs by it.

use std::path::Path;

use super::{Check, State};
use crate::config::{Config, DEFAULT_FILE, Paths};
use crate::control::client::{Client, ClientError};
use crate::control::wire::Status;
use crate::error::chain;
use crate::gate;

/// What the rest is judged by.
pub(super) struct Setup {
    /// The defaults where the configuration is faulty.
    pub(super) config: Option<Config>,
    pub(super) paths: Paths,
    status: Result<Status, ClientError>,
}

impl Setup {
    /// Reads the configuration, and asks the controller.
    pub(super) fn read(file: Option<&Path>, checks: &mut Vec<Check>) -> Setup {
        let name = file.unwrap_or(Path::new(DEFAULT_FILE)).display().to_string();
        let config = match Config::load(file) {
            Ok(config) => {
                let finding = match config.file {
                    Some(_) => "sound",
                    None => "not there; the defaults hold",
                };
                checks.push(Check::ok("config", name.as_str(), finding));
                let doubt = |doubt| Check::new("config", name.as_str(), State::Warning, doubt);
                checks.extend(config.doubts().into_iter().map(doubt));
                Some(config)
            }
            Err(faults) => {
                for fault in faults.iter() {
                    checks.push(
                        Check::new("config", name.as_str(), State::Obstacle, fault.to_string())
                            .remedy("xdpban check"),
                    );
                }
                // An empty file has no faults.
                Config::parse("", Path::new(DEFAULT_FILE), &[]).ok()
            }
        };
        // Its faults have been told of.
        let paths = Config::paths(file).map(|(paths, _)| paths).unwrap_or_default();
        let status = Client::new(&paths.runtime).status();
        Setup { config, paths, status }
    }

    /// How to open the gate; by the defaults where the configuration is faulty.
    pub(super) fn gate(&self) -> gate::Options {
        let limits = self.config.as_ref().map(|config| config.policy.limits);
        let (blocks, prefixes) = limits.map_or((1, 1), |limits| (limits.blocks, limits.prefixes));
        gate::Options {
            pins: self.paths.pins.clone(),
            blocks,
            prefixes,
            trace_packets: false,
            dry_run: false,
        }
    }

    /// The controller that runs, where there is one that answers.
    pub(super) fn running(&self) -> Option<&Status> {
        self.status.as_ref().ok()
    }

    /// Says whether a controller runs.
    pub(super) fn controller(&self, checks: &mut Vec<Check>) {
        let check = match &self.status {
            Ok(status) => {
                let finding = format!("{} runs as process {}", status.version, status.pid);
                match status.health.len() {
                    0 => Check::ok("controller", "xdpban", finding),
                    troubles => Check::new(
                        "controller",
                        "xdpban",
                        State::Warning,
                        format!("{finding}, and {troubles} things need attention"),
                    )
                    .remedy("xdpban status"),
                }
            }
            Err(ClientError::NotRunning(_)) => Check::ok("controller", "xdpban", "none runs"),
            Err(error @ ClientError::Denied(_)) => {
                Check::new("controller", "xdpban", State::Unknown, chain(error))
            }
            Err(error) => Check::new("controller", "xdpban", State::Warning, chain(error)),
        };
        checks.push(check);
    }
}
