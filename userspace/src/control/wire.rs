//! What goes over the control socket, which is also what `--json` prints. Field names are a contract.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xdpban_engine::rules::RuleRef;

use crate::clock::rfc3339;
use crate::store;

/// A rule, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its number.
    pub id: u32,
    /// Its severity.
    pub level: u8,
    /// What it finds.
    pub description: String,
}

/// A target that is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// An address or a prefix.
    pub target: String,
    /// `block`.
    pub action: String,
    /// When it ends, RFC 3339; null until it is lifted.
    pub expires_at: Option<String>,
    /// In how many seconds it ends, rounded up.
    pub expires_in_s: Option<u64>,
    /// When it began, RFC 3339; null where the controller that made it left no record.
    pub created_at: Option<String>,
    /// The rule that led to it.
    pub rule: Option<Rule>,
    /// Why, in words.
    pub reason: String,
    /// `rule`, `wazuh`, `operator`, or `adopted` for one that was found in the gate.
    pub origin: String,
    /// How many times it has been blocked, this one included.
    pub offences: u32,
    /// Packets dropped since the entry was made.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
}

/// A response from detection to outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its number in the record.
    pub id: i64,
    /// The first event that counted, RFC 3339.
    pub first_seen: String,
    /// The last.
    pub last_seen: String,
    /// When the gate had the entry.
    pub responded_at: Option<String>,
    /// The target.
    pub target: String,
    /// The rule that led to it.
    pub rule: Option<Rule>,
    /// Who or what asked for it.
    pub origin: String,
    /// Attempts counted.
    pub attempts: u32,
    /// User names tried.
    pub users: Vec<String>,
    /// Log lines.
    pub evidence: Vec<String>,
    /// `block`.
    pub action: String,
    /// For how long, in seconds; null until lifted.
    pub timeout_s: Option<u64>,
    /// From the line's arrival to the entry in the gate, in milliseconds.
    pub line_to_block_ms: Option<f64>,
    /// Packets dropped.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// `in_force`, `expired`, `lifted`, `refused` or `failed`.
    pub outcome: String,
    /// When that came about.
    pub outcome_at: Option<String>,
    /// Why.
    pub outcome_reason: Option<String>,
}

/// Whether an address would pass, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// The address that was asked about.
    pub target: String,
    /// `pass` or `drop`, as the program in the kernel says.
    pub verdict: String,
    /// Why.
    pub because: String,
    /// The entry that covers it.
    pub entry: Option<Entry>,
    /// The log lines that led to the entry.
    pub evidence: Vec<String>,
    /// What was done about it before, oldest first.
    pub incidents: Vec<Incident>,
}

/// The state of the controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// For how long it runs.
    pub uptime_s: u64,
    /// The interfaces that it guards.
    pub interfaces: Vec<Interface>,
    /// What it watches.
    pub sources: Vec<Source>,
    /// What is blocked, by table.
    pub blocked: Blocked,
    /// Packets seen by the gate since it was first attached.
    pub packets: Packets,
    /// What an operator should know; empty when all is well.
    pub health: Vec<String>,
}

/// A guarded interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native`, `generic` or `tc`; null where it is not attached.
    pub mode: Option<String>,
    /// Whether the gate stands on it.
    pub attached: bool,
}

/// A watched source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `file`, `journal` or `wazuh-alerts`.
    pub kind: String,
    /// Its path; null for the journal.
    pub path: Option<String>,
    /// Lines read since the controller started.
    pub lines: u64,
    /// Those that told of an attack.
    pub attacks: u64,
    /// Lines that were longer than is read, and were cut.
    pub cut: u64,
    /// Lines that are not what the source is made of: no alert.
    #[serde(default)]
    pub unreadable: u64,
    /// Where reading stands: an offset in bytes, or the journal's cursor.
    pub position: Option<String>,
    /// What is in the way; null when nothing is.
    pub trouble: Option<String>,
}

/// How much is blocked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// IPv4 addresses.
    pub v4: usize,
    /// IPv6 addresses and /64s.
    pub v6: usize,
    /// Other prefixes.
    pub prefixes: usize,
}

/// What the gate did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Packets {
    /// Packets let through.
    pub passed: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets dropped a second, over the last seconds.
    pub dropped_per_s: f64,
}

/// A wish to block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    /// Addresses and prefixes.
    pub targets: Vec<String>,
    /// For how long, in seconds, from one to those of 100 years; null until lifted.
    pub timeout_s: Option<u64>,
    /// Why.
    pub reason: Option<String>,
}

/// A wish to lift blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnblockRequest {
    /// Addresses and prefixes, as blocked.
    #[serde(default)]
    pub targets: Vec<String>,
    /// All that there are.
    #[serde(default)]
    pub all: bool,
}

/// What became of a wish: how many targets were done, and which were not, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// How many targets were blocked, or unblocked.
    pub done: usize,
    /// The others.
    pub refused: Vec<Refusal>,
}

/// A target with which nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// As it was asked for.
    pub target: String,
    /// Why not.
    pub reason: String,
}

/// What the controller answers when it cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Why.
    pub error: String,
}

impl From<&RuleRef> for Rule {
    fn from(rule: &RuleRef) -> Rule {
        Rule { id: rule.id.0, level: rule.level, description: rule.description.to_string() }
    }
}

/// A duration in seconds, rounded up, so that what is not over never reads as zero.
pub fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl From<store::Incident> for Incident {
    fn from(incident: store::Incident) -> Incident {
        let texts = |texts: &[std::sync::Arc<str>]| texts.iter().map(|text| text.to_string()).collect();
        Incident {
            id: incident.id,
            first_seen: rfc3339(incident.first_seen),
            last_seen: rfc3339(incident.last_seen),
            responded_at: incident.responded_at.map(rfc3339),
            target: incident.target.to_string(),
            rule: incident.rule.as_ref().map(Rule::from),
            origin: incident.origin.name().to_owned(),
            attempts: incident.attempts,
            users: texts(&incident.users),
            evidence: texts(&incident.evidence),
            action: incident.action,
            timeout_s: incident.timeout.map(|timeout| timeout.as_secs()),
            line_to_block_ms: incident.line_to_block.map(|took| took.as_secs_f64() * 1000.0),
            dropped_packets: incident.dropped_packets,
            dropped_bytes: incident.dropped_bytes,
            outcome: incident.outcome.name().to_owned(),
            outcome_at: incident.outcome_at.map(rfc3339),
            outcome_reason: incident.outcome_reason,
        }
    }
}
