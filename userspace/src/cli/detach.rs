//! `xdpban detach`

use super::{CliError, complain, print, print_json};
use crate::clock;
use crate::config::Paths;
use crate::control::client::{Client, ClientError};
use crate::error::chain;
use crate::gate;
use crate::store::{Act, FILE, Store, StoreError, Write};

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
    if (!names.is_empty() || detached.maps > 0)
        && let Err(error) = record(paths, &names)
    {
        complain(&format!("that is done, but not on record: {}", chain(&error)));
    }
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

/// Puts it on record, where there is one: no controller runs that would.
fn record(paths: &Paths, interfaces: &[&str]) -> Result<(), StoreError> {
    if !paths.state.join(FILE).exists() {
        return Ok(());
    }
    let act = Act::Detached { interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect() };
    let uid = Some(nix::unistd::getuid().as_raw());
    Store::open(&paths.state)?.write(&[Write::Act { at: clock::now().wall, uid, act }])
}
