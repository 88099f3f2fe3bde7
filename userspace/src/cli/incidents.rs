//! `xdpban incidents`

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use anstyle::Style;

use super::args::Incidents;
use super::table::{BAD, DIM, GOOD, STRONG, Table, WARN};
use super::{CliError, complain, complain_of_unrecorded, print, print_json};
use crate::clock;
use crate::config::Paths;
use crate::control::client::{Client, ClientError};
use crate::control::wire::{Incident, IncidentsQuery};
use crate::human;
use crate::store::{Archive, IncidentQuery, StoreError};

/// How often `--follow` looks for what is new.
const LOOK: Duration = Duration::from_millis(500);

/// How many changes `--follow` tells at once.
const CHANGES: u32 = 10_000;

pub(super) fn run(paths: &Paths, args: &Incidents, json: bool) -> Result<(), CliError> {
    if let (Some(since), Some(until)) = (args.since, args.until)
        && since >= until
    {
        let (since, until) = (clock::local_rfc3339(since), clock::local_rfc3339(until));
        return Err(CliError::Usage(format!(
            "--since {since} is not before --until {until}: nothing can have begun between them; exchange them?"
        )));
    }
    let mut record = Record { client: Client::new(&paths.runtime), paths, said: false };
    let query = IncidentsQuery {
        since: args.since,
        until: args.until,
        address: args.address,
        rule: args.rule,
        user: args.user.clone(),
        outcome: args.outcome,
        limit: args.limit,
        after: None,
    };
    // What happens while the incidents are read is told after them.
    let head = if args.follow { record.head()? } else { 0 };
    let incidents = record.incidents(&query)?;
    if let Some(user) = args.user.as_ref().filter(|user| incidents.is_empty() && user.contains('*')) {
        complain(&format!(
            "no user called `{user}` was tried; names are compared as wholes, and `*` stands for itself"
        ));
    }
    complain_of_unrecorded(paths);
    if !args.follow {
        return if json { print_json(&incidents) } else { print(&text(&incidents)) };
    }
    tell(&incidents, json)?;
    follow(&mut record, query, head, json)
}

fn follow(record: &mut Record<'_>, query: IncidentsQuery, mut head: i64, json: bool) -> Result<(), CliError> {
    loop {
        sleep(LOOK);
        let changed = match record.changes(&query, &mut head) {
            // A controller that is being restarted, or a record that is just written: it will answer again.
            Err(CliError::Client(
                ClientError::Stopping | ClientError::Io { .. } | ClientError::Http { .. },
            ))
            | Err(CliError::Store(StoreError::Busy { .. })) => continue,
            changed => changed?,
        };
        tell(&changed, json)?;
    }
}

/// The record, as the controller gives it, or as it lies in the store while there is no controller.
struct Record<'a> {
    client: Client,
    paths: &'a Paths,
    /// Whether it has been said that the controller is not running.
    said: bool,
}

impl Record<'_> {
    fn incidents(&mut self, query: &IncidentsQuery) -> Result<Vec<Incident>, CliError> {
        match self.client.incidents(query) {
            Err(ClientError::NotRunning(_)) => {
                let incidents = self.stored()?.incidents(&IncidentQuery::from(query))?;
                Ok(incidents.into_iter().map(Incident::from).collect())
            }
            incidents => Ok(incidents?),
        }
    }

    /// What has changed since the record `head`, which is moved to its end.
    fn changes(&mut self, query: &IncidentsQuery, head: &mut i64) -> Result<Vec<Incident>, CliError> {
        let query = IncidentsQuery { after: Some(*head), limit: CHANGES, ..query.clone() };
        let mut changed = self.incidents(&query)?;
        changed.sort_by_key(|incident| incident.record);
        match changed.last() {
            Some(latest) => *head = latest.record.max(*head),
            // Where there are fewer records than there were, it has been begun anew.
            None if self.head()? < *head => *head = 0,
            None => {}
        }
        Ok(changed)
    }

    fn head(&mut self) -> Result<i64, CliError> {
        match self.client.head() {
            Err(ClientError::NotRunning(_)) => Ok(self.stored()?.head()?.seq),
            head => Ok(head?.seq),
        }
    }

    fn stored(&mut self) -> Result<Archive, CliError> {
        let archive = Archive::open(&self.paths.state)?;
        if !self.said {
            complain("the controller is not running; this is what its store holds");
            self.said = true;
        }
        Ok(archive)
    }
}

/// Prints incidents as they come: a line each, or in JSON a document each on a line.
fn tell(incidents: &[Incident], json: bool) -> Result<(), CliError> {
    if incidents.is_empty() {
        return Ok(());
    }
    if !json {
        return print(&text(incidents));
    }
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for incident in incidents {
        serde_json::to_writer(&mut out, incident).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn text(incidents: &[Incident]) -> String {
    if incidents.is_empty() {
        return "no incidents\n".to_owned();
    }
    let mut table = Table::default();
    for incident in incidents {
        table.row([
            (DIM, incident.id.to_string()),
            (DIM, clock::localized(&incident.first_seen)),
            (STRONG, incident.target.clone()),
            (Style::new(), what(incident)),
            (Style::new(), why(incident)),
            (Style::new(), users(&incident.users)),
            (DIM, packets(incident)),
            outcome(incident),
        ]);
    }
    table.render()
}

/// What was done, or would have been, and for how long.
pub(super) fn what(incident: &Incident) -> String {
    let action = incident.command.as_deref().or(incident.measure.as_deref()).unwrap_or(&incident.action);
    let action = if incident.dry_run { format!("would {action}") } else { action.to_owned() };
    match incident.timeout_s {
        Some(seconds) => format!("{action} {}", human::duration(Duration::from_secs(seconds))),
        None => action,
    }
}

/// What was dropped, or would have been.
fn packets(incident: &Incident) -> String {
    if incident.command.is_some() {
        return String::new();
    }
    let packets = human::counted(incident.dropped_packets, "packet");
    if incident.dry_run { format!("{packets} would be dropped") } else { packets }
}

/// What led to an incident: its rule, or whoever asked for it.
pub(super) fn why(incident: &Incident) -> String {
    match (&incident.rule, incident.uid) {
        (Some(rule), _) => format!("{} {}", rule.id, rule.description),
        (None, Some(uid)) => format!("by uid {uid}: {}", human::without_uid(&incident.reason, uid)),
        (None, None) => format!("by {}", incident.origin),
    }
}

/// User names, the first few.
fn users(users: &[String]) -> String {
    const NAMED: usize = 3;
    let mut text = users.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if users.len() > NAMED {
        text.push_str(", …");
    }
    text
}

/// What came of an incident, and why.
pub(super) fn outcome(incident: &Incident) -> (Style, String) {
    let style = match incident.outcome.as_str() {
        "in_force" => BAD,
        "refused" | "failed" => WARN,
        _ => GOOD,
    };
    let outcome = incident.outcome.replace('_', " ");
    match &incident.outcome_reason {
        Some(reason) => (style, format!("{outcome}: {reason}")),
        None => (style, outcome),
    }
}
