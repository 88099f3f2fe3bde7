//! `xdpban list`

use anstyle::Style;
use xdpban_engine::time::Now;

use super::table::{BAD, DIM, STRONG, Table, WARN, styled};
use super::{CliError, complain, print, print_json_array};
use crate::clock;
use crate::config::Paths;
use crate::control::client::{Client, ClientError};
use crate::control::wire::{self, Entry};
use crate::gate;
use crate::human;

pub(super) fn run(paths: &Paths, json: bool) -> Result<(), CliError> {
    match Client::new(&paths.runtime).list() {
        Err(ClientError::NotRunning(_)) => {
            let entries = pinned(paths)?;
            complain("the controller is not running; this is what its maps in the kernel hold");
            show(entries.map(Ok), json)
        }
        listed => show(listed?.map(|entry| Ok(entry?)), json),
    }
}

fn show(entries: impl Iterator<Item = Result<Entry, CliError>>, json: bool) -> Result<(), CliError> {
    if json {
        return print_json_array(entries);
    }
    let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
    if entries.is_empty() {
        return print("nothing is blocked\n");
    }
    let mut table = Table::default();
    for entry in &entries {
        table.row([
            (STRONG, entry.target.clone()),
            (Style::new(), shortened(why(entry))),
            (DIM, left(entry)),
            (WARN, measure(entry).unwrap_or_default()),
            (BAD, format!("{} dropped", human::counted(entry.dropped_packets, "packet"))),
        ]);
    }
    let note = entries.iter().any(|entry| !entry.enforced).then(|| format!("{}\n", styled(WARN, DRY_RUN)));
    print(&format!("{}{}", note.unwrap_or_default(), table.render()))
}

/// What is said of entries that are not enforced.
pub(super) const DRY_RUN: &str = "dry run: nothing is enforced; what would be dropped is counted, and passes";

/// `why` as far as it fits a line; `show` has all of it.
fn shortened(why: String) -> String {
    const LONGEST: usize = 80;
    match why.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &why[..end]),
        None => why,
    }
}

/// The rule and what it found, or the operator's reason.
pub(super) fn why(entry: &Entry) -> String {
    match &entry.rule {
        Some(rule) if entry.reason == rule.description => format!("{} {}", rule.id, rule.description),
        // More than the rule says, of a network for instance.
        Some(rule) => format!("{} {}", rule.id, entry.reason),
        None if entry.reason.is_empty() => "by hand".to_owned(),
        None => entry.reason.clone(),
    }
}

/// What befalls its packets, where that is not simply that all are dropped.
pub(super) fn measure(entry: &Entry) -> Option<String> {
    // What cannot be read is of another version, and the action alone is certain.
    let measure = entry.measure.as_ref()?.read().ok();
    Some(measure.map_or_else(|| entry.action.clone(), |measure| measure.to_string()))
}

/// How much of its time is left.
pub(super) fn left(entry: &Entry) -> String {
    match entry.expires_in_s {
        Some(seconds) => format!("{} left", human::duration(std::time::Duration::from_secs(seconds))),
        None => "until unblocked".to_owned(),
    }
}

/// What the kernel's maps hold, read without the controller: targets, deadlines and counts, but not why.
fn pinned(paths: &Paths) -> Result<impl Iterator<Item = Entry>, CliError> {
    let now = clock::now();
    let mut entries = gate::read_pinned(&paths.pins)?;
    entries.sort_by_key(|(target, _)| *target);
    Ok(entries
        .into_iter()
        .filter(move |(_, entry)| entry.expires_ns > now.mono.0)
        .filter_map(move |(target, entry)| from_pinned(target.to_string(), &entry, &now)))
}

/// None for an entry without its measure, which drops nothing.
fn from_pinned(target: String, entry: &gate::Entry, now: &Now) -> Option<Entry> {
    let (expires, measure) = (entry.deadline(), entry.measure?);
    Some(Entry {
        target,
        action: measure.action.name().to_owned(),
        measure: wire::Measure::of(measure),
        enforced: true,
        expires_at: expires.map(|at| clock::rfc3339(now.wall_at(at))),
        expires_in_s: expires.map(|at| wire::seconds_up(at.since(now.mono))),
        created_at: None,
        rule: None,
        reason: "the controller, which knows why, is not running".to_owned(),
        origin: "adopted".to_owned(),
        offences: 1,
        dropped_packets: entry.packets,
        dropped_bytes: entry.bytes,
    })
}
