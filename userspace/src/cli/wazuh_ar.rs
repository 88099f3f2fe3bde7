//! `xdpban wazuh-ar`, and the same when Wazuh starts the program as `firewall-drop`

use std::ffi::OsStr;

use super::args::{Cli, WazuhAr};
use super::{CliError, paths};
use crate::control::SOCKET;
use crate::wazuh::{self, Options};

/// Wazuh started the program by `name`.
pub(super) fn by_name(name: &OsStr) -> Result<(), CliError> {
    Ok(wazuh::run(name, &Options::default().or_environment())?)
}

pub(super) fn run(args: &WazuhAr, cli: &Cli) -> Result<(), CliError> {
    let given = Options { socket: args.socket.clone(), log: args.log.clone() };
    let mut options = given.or_environment();
    // Reading the configuration takes longer than all the rest.
    if options.socket.is_none() && cli.config.is_some() {
        options.socket = Some(paths(cli)?.runtime.join(SOCKET));
    }
    Ok(wazuh::run(OsStr::new("xdpban"), &options)?)
}
