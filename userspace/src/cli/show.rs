//! `xdpban show ADDRESS`

use std::net::IpAddr;

use super::incidents::{outcome, what, why as why_of};
use super::list::{left, measure, why};
use super::table::{BAD, DIM, GOOD, STRONG, Table, WARN, styled};
use super::{CliError, print, print_json};
use crate::clock;
use crate::control::client::Client;
use crate::control::wire::{Entry, Incident, Show};
use crate::human::{self, printable};

pub(super) fn run(client: &Client, address: IpAddr, json: bool) -> Result<(), CliError> {
    let show = client.show(address)?;
    if json { print_json(&show) } else { print(&text(&show)) }
}

fn text(show: &Show) -> String {
    let verdict = match show.verdict.as_str() {
        "pass" => styled(GOOD, "passes"),
        "drop" => styled(BAD, "is dropped"),
        "throttle" => styled(WARN, "is throttled"),
        other => other.to_owned(),
    };
    let measure_of = |entry: &Entry| entry.measure.as_ref()?.read().ok();
    let scope = show.entry.as_ref().filter(|entry| entry.enforced).and_then(measure_of);
    let scope = scope.map(|measure| measure.scope).filter(|scope| !scope.is_everything());
    let only = scope.map_or(String::new(), |scope| format!(" where it sends {scope}, and passes otherwise"));
    let because = printable(&show.because);
    let mut text = format!("{} {verdict}{only}: {because}\n", styled(STRONG, &show.target));
    if let Some(entry) = &show.entry {
        let mut table = Table::default();
        let mut field = |name: &str, value: String| table.row([(DIM, format!("  {name}")), (STRONG, value)]);
        field("target", entry.target.clone());
        field("because of", why(entry));
        if !entry.enforced {
            field("not enforced", "a dry run: what would be dropped is counted, and passes".to_owned());
        }
        if let Some(measure) = measure(entry) {
            field("measure", measure);
        }
        if let Some(created) = &entry.created_at {
            field("since", clock::localized(created));
        }
        field(
            "ends",
            match &entry.expires_at {
                Some(at) => format!("{}, {}", clock::localized(at), left(entry)),
                None => "when it is unblocked".to_owned(),
            },
        );
        field("offences", human::count(entry.offences.into()));
        field(
            "dropped",
            format!(
                "{}, {}",
                human::counted(entry.dropped_packets, "packet"),
                human::bytes(entry.dropped_bytes)
            ),
        );
        for resting in &show.resting {
            let what = measure(resting).unwrap_or_else(|| resting.action.clone());
            field(
                "at rest",
                format!("{what} of {}, because of {}, {}", resting.target, why(resting), left(resting)),
            );
        }
        text.push_str(&table.render());
    }
    if !show.evidence.is_empty() {
        text.push_str("\nThe log lines behind it:\n");
        for line in &show.evidence {
            text.push_str(&format!("  {}\n", printable(line)));
        }
    }
    if !show.incidents.is_empty() {
        text.push_str("\nOn record:\n");
        let mut table = Table::default();
        for incident in &show.incidents {
            table.row(row(incident));
        }
        text.push_str(&table.render());
    }
    text
}

fn row(incident: &Incident) -> [(anstyle::Style, String); 6] {
    [
        (DIM, format!("  {}", clock::localized(&incident.first_seen))),
        (STRONG, incident.target.clone()),
        (anstyle::Style::new(), what(incident)),
        (anstyle::Style::new(), why_of(incident)),
        (anstyle::Style::new(), human::counted(incident.attempts.into(), "attempt")),
        outcome(incident),
    ]
}
