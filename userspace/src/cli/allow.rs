//! `xdpban allow` and `xdpban confirm`

use std::net::IpAddr;
use std::time::Duration;

use anstyle::Style;
use xdpban_engine::target::Target;

use super::args::Allow;
use super::block::{tell, tell_unrecorded};
use super::table::{DIM, GOOD, STRONG, Table, styled};
use super::{CliError, print, print_json};
use crate::control::client::Client;
use crate::control::wire::{AllowCheck, AllowRequest, Allowed, DisallowRequest};
use crate::human::{self, printable};

pub(super) fn run(client: &Client, command: &Allow, json: bool) -> Result<(), CliError> {
    let texts = |networks: &[Target]| networks.iter().map(Target::to_string).collect();
    match command {
        Allow::Add { networks, timeout, comment, all } => {
            let done = client.allow(&AllowRequest {
                networks: texts(networks),
                timeout_s: timeout.map(|timeout| timeout.as_secs()),
                comment: comment.clone(),
                all: *all,
            })?;
            let how_long = match timeout {
                Some(timeout) => format!("allowed for {}", human::duration(*timeout)),
                None => "allowed until removed".to_owned(),
            };
            tell(&done, &how_long, json)
        }
        Allow::Remove { networks } => {
            let done = client.disallow(&DisallowRequest { networks: texts(networks) })?;
            tell(&done, "no longer allowed", json)
        }
        Allow::List => list(client, json),
        Allow::Check { address } => check(client, *address, json),
    }
}

pub(super) fn confirm(client: &Client, json: bool) -> Result<(), CliError> {
    tell_unrecorded(&client.confirm()?);
    if json {
        return print_json(&serde_json::json!({ "confirmed": true }));
    }
    print("confirmed: the controller goes on, and what is blocked stays for its whole time\n")
}

fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let allowed = client.allowed()?;
    if json {
        return print_json(&allowed);
    }
    if allowed.is_empty() {
        return print("the allowlist is empty\n");
    }
    let mut table = Table::default();
    for Allowed { network, origin, comment, expires_in_s, .. } in allowed {
        let left = match (expires_in_s, origin.as_str()) {
            (Some(seconds), _) => format!("{} left", human::duration(Duration::from_secs(seconds))),
            (None, "config") => "by the configuration".to_owned(),
            (None, _) => "until removed".to_owned(),
        };
        table.row([(STRONG, network), (DIM, left), (Style::new(), comment.unwrap_or_default())]);
    }
    print(&table.render())
}

fn check(client: &Client, address: IpAddr, json: bool) -> Result<(), CliError> {
    let check = client.allow_check(address)?;
    if json { print_json(&check) } else { print(&text(&check)) }
}

fn text(check: &AllowCheck) -> String {
    if !check.protected {
        return format!("{}: nothing protects it; it can be blocked\n", styled(STRONG, &check.address));
    }
    let lines =
        check.protections.iter().map(|found| format!("{}\n", styled(GOOD, &printable(&found.because))));
    lines.collect()
}
