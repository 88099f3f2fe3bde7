//! `xdpban detach`

use super::{CliError, print, print_json};
use crate::config::Paths;
use crate::control::client::{Client, ClientError};
use crate::gate;

pub(super) fn run(paths: &Paths, json: bool) -> Result<(), CliError> {
    match Client::new(&paths.runtime).status() {
        Err(ClientError::NotRunning(_)) => {}
        Ok(status) => {
            return Err(CliError::Refused(format!(
                "the controller (process {}) is running and would lose its gate. Stop it first: `systemctl stop xdpban`, or `kill {0}`",
                status.pid
            )));
        }
        Err(error) => return Err(error.into()),
    }
    let detached = gate::detach(&paths.pins)?;
    let names: Vec<&str> = detached.interfaces.iter().map(|(name, _)| name.as_str()).collect();
    if json {
        return print_json(&serde_json::json!({ "interfaces": names, "maps": detached.maps }));
    }
    if names.is_empty() && detached.maps == 0 {
        print("nothing was attached\n")
    } else {
        print(&format!(
            "taken off {}; nothing is blocked any longer. The record stays, and `xdpban run` restores what is still in force\n",
            if names.is_empty() { "no interface".to_owned() } else { names.join(", ") }
        ))
    }
}
