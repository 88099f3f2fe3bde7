//! Incidents as CSV: a line each, for spreadsheets and for programs.

use std::fmt::Write;
use std::sync::Arc;

use super::escape;
use crate::clock::rfc3339;
use crate::store::Incident;

/// The line with the names of the columns, which are a contract, told in docs/report.md.
pub const HEADER: &str = "id,first_seen,last_seen,responded_at,target,rule_id,rule_level,reason,origin,offences,attempts,\
     users,evidence,action,timeout_s,line_to_block_ms,dropped_packets,dropped_bytes,outcome,outcome_at,outcome_reason,uid,outcome_uid,command,first_drop_at,last_drop_at,dry_run,would_drop_packets,would_drop_bytes\r\n";

/// Appends the line of `incident`. Several user names, and several lines of evidence, stand in one field, with ` | `
/// between them.
pub fn line(incident: &Incident, out: &mut String) {
    let reason = incident.rule.as_ref().map_or(&*incident.reason, |rule| &*rule.description);
    let counted = (incident.dropped_packets, incident.dropped_bytes);
    let (dropped, would_drop) = if incident.dry_run { ((0, 0), counted) } else { (counted, (0, 0)) };
    let fields = [
        incident.id.to_string(),
        rfc3339(incident.first_seen),
        rfc3339(incident.last_seen),
        optional(incident.responded_at.map(rfc3339)),
        incident.target.to_string(),
        optional(incident.rule.as_ref().map(|rule| rule.id.0)),
        optional(incident.rule.as_ref().map(|rule| rule.level)),
        escape::csv(reason),
        incident.origin.name().to_owned(),
        incident.offences.to_string(),
        incident.attempts.to_string(),
        several(&incident.users),
        several(&incident.evidence),
        escape::csv(&if incident.action == "run" {
            incident.action.clone()
        } else {
            incident.measure.to_string()
        }),
        optional(incident.timeout.map(|timeout| timeout.as_secs())),
        incident.line_to_block.map_or_else(String::new, |took| format!("{:.3}", took.as_secs_f64() * 1000.0)),
        dropped.0.to_string(),
        dropped.1.to_string(),
        incident.outcome.name().to_owned(),
        optional(incident.outcome_at.map(rfc3339)),
        escape::csv(incident.outcome_reason.as_deref().unwrap_or_default()),
        optional(incident.uid),
        optional(incident.outcome_uid),
        escape::csv(incident.command.as_deref().unwrap_or_default()),
        optional(incident.first_drop.map(rfc3339)),
        optional(incident.last_drop.map(rfc3339)),
        incident.dry_run.to_string(),
        would_drop.0.to_string(),
        would_drop.1.to_string(),
    ];
    for (place, field) in fields.iter().enumerate() {
        // Writing to a string cannot fail.
        write!(out, "{}{field}", if place == 0 { "" } else { "," }).ok();
    }
    out.push_str("\r\n");
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn several(texts: &[Arc<str>]) -> String {
    escape::csv(&texts.join(" | "))
}
