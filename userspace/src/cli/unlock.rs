//! `xdpban unlock`, and what the controller runs to lock an account

use std::io::Read;
use std::path::Path;

use super::{CliError, print, print_json};
use crate::clock;
use crate::control::client::Client;
use crate::control::wire::UnlockRequest;
use crate::error::chain;
use crate::lockout::{self, LockoutError};

/// The longest event that is read, in bytes.
const LONGEST: u64 = 1 << 20;

pub(super) fn run(client: &Client, user: &str, json: bool) -> Result<(), CliError> {
    let done = client.unlock(&UnlockRequest { user: user.to_owned() })?;
    if json {
        print_json(&done)?;
    }
    match done.refused.first() {
        Some(refusal) => Err(CliError::Refused(refusal.reason.clone())),
        None if json => Ok(()),
        None => print(&format!("{user} is being unlocked\n")),
    }
}

/// Answers the event on standard input.
pub(super) fn answer(state: &Path) -> Result<(), CliError> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(LONGEST)
        .read_to_string(&mut text)
        .map_err(|source| CliError::Read { what: "standard input".to_owned(), source })?;
    match lockout::answer(&text, state, clock::now().wall) {
        Ok(said) => print(&format!("{said}\n")),
        Err(error @ LockoutError::LeftAlone(..)) => {
            print(&format!("{error}\n"))?;
            Err(CliError::LeftAlone)
        }
        Err(error) => Err(CliError::Refused(chain(&error))),
    }
}
