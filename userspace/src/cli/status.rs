//! `xdpban status`

use std::time::Duration;

use anstyle::Style;

use super::list::DRY_RUN;
use super::table::{BAD, DIM, GOOD, STRONG, Table, WARN, styled};
use super::{CliError, print, print_json};
use crate::clock;
use crate::control::client::Client;
use crate::control::wire::{Lock, Source, Status};
use crate::human::{self, printable};

pub(super) fn run(client: &Client, json: bool) -> Result<(), CliError> {
    let status = client.status()?;
    if json { print_json(&status) } else { print(&text(&status)) }
}

fn text(status: &Status) -> String {
    let mut text = format!(
        "xdpban {}, process {}, up {}\n\n",
        status.version,
        status.pid,
        human::duration(Duration::from_secs(status.uptime_s))
    );
    if !status.enforcing {
        text.push_str(&format!("{}\n\n", styled(WARN, DRY_RUN)));
    }
    let mut table = Table::default();
    for interface in &status.interfaces {
        let (style, state) = match &interface.mode {
            Some(mode) if mode == "native" => (GOOD, "guarded in the driver (XDP)".to_owned()),
            Some(mode) if mode == "tc" => {
                (WARN, "guarded at TC ingress, after the kernel's buffer is built".to_owned())
            }
            Some(mode) => (WARN, format!("guarded in mode {mode}")),
            None => match &interface.note {
                Some(note) => (DIM, note.clone()),
                None => (BAD, "not guarded".to_owned()),
            },
        };
        table.row([(DIM, "interface".to_owned()), (STRONG, interface.name.clone()), (style, state)]);
    }
    for source in &status.sources {
        let name = source.path.clone().unwrap_or_else(|| source.kind.clone());
        let state = match &source.trouble {
            Some(trouble) => (BAD, trouble.clone()),
            None => (Style::new(), read(source)),
        };
        table.row([(DIM, "source".to_owned()), (STRONG, name), state]);
    }
    let blocked = &status.blocked;
    table.row([
        (DIM, "blocked".to_owned()),
        (STRONG, human::count([blocked.v4, blocked.v6, blocked.prefixes].map(u64::from).iter().sum())),
        (
            Style::new(),
            format!(
                "{}, {} of IPv6, {}",
                human::counted(blocked.v4.into(), "IPv4 address"),
                human::count(blocked.v6.into()),
                match blocked.prefixes {
                    1 => "1 other prefix".to_owned(),
                    n => format!("{} other prefixes", human::count(n.into())),
                }
            ),
        ),
    ]);
    if !status.locks.is_empty() {
        let locks: Vec<String> = status.locks.iter().map(locked).collect();
        table.row([
            (DIM, "locked".to_owned()),
            (STRONG, locks.len().to_string()),
            (WARN, format!("{}; `xdpban unlock USER` unlocks one", locks.join(", "))),
        ]);
    }
    let packets = &status.packets;
    table.row([
        (DIM, if status.enforcing { "dropped" } else { "would drop" }.to_owned()),
        (STRONG, human::count(packets.dropped)),
        (
            Style::new(),
            format!(
                "packets, {:.0} a second lately; {} passed",
                packets.dropped_per_s,
                human::count(packets.passed)
            ),
        ),
    ]);
    table.row([
        (DIM, "memory".to_owned()),
        (STRONG, human::bytes(status.memory.tables)),
        (
            Style::new(),
            format!(
                "of the kernel for the tables, {} when all are full",
                human::bytes(status.memory.tables_full)
            ),
        ),
    ]);
    text.push_str(&table.render());
    text.push('\n');
    if status.health.is_empty() {
        text.push_str(&format!("{}\n", styled(GOOD, "all is well")));
    }
    for trouble in &status.health {
        text.push_str(&format!("{} {}\n", styled(WARN, "!"), printable(trouble)));
    }
    text
}

/// An account, and until when it is locked.
fn locked(lock: &Lock) -> String {
    let until = lock.until.as_deref().map(|until| format!(" until {}", clock::localized(until)));
    format!("{}{}", printable(&lock.user), until.unwrap_or_default())
}

/// What was read of a source.
fn read(source: &Source) -> String {
    let mut text =
        format!("{}, {}", human::counted(source.lines, "line"), human::counted(source.attacks, "attack"));
    if source.unreadable > 0 {
        text.push_str(&format!(", {} that are no alerts", human::count(source.unreadable)));
    }
    text
}
