//! What goes over the control socket, which is also what `--json` prints. Field names are a contract.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xdpban_engine::change::{self, Protector};
use xdpban_engine::measure::{self, Action, Ports, Rate, Scope};
use xdpban_engine::rules::{RuleId, RuleRef};
use xdpban_engine::target::Target;
use xdpban_engine::time::{Now, Wall};

use crate::clock::{local, rfc3339, rfc3339_micros};
use crate::period;
use crate::store::{self, IncidentQuery, Outcome};

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
    /// `block` or `throttle`.
    pub action: String,
    /// More of it; null where all packets are dropped.
    #[serde(default)]
    pub measure: Option<Measure>,
    /// Whether that is done, and not only counted.
    #[serde(default = "yes")]
    pub enforced: bool,
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

fn yes() -> bool {
    true
}

/// What befalls the packets of a target, where that is not simply that all are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Packets that pass in a second, where the target is throttled.
    #[serde(default)]
    pub rate: Option<NonZeroU32>,
    /// Packets that pass at once after a rest; null: as many as in a second.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
    /// The destination ports that are meant; empty: all.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// `all` packets, or those that open a `new` TCP connection.
    #[serde(default)]
    pub scope: MeasureScope,
}

/// Which packets are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MeasureScope {
    /// All.
    #[default]
    All,
    /// Those that open a TCP connection.
    New,
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
    /// Why it was responded to, in words.
    pub reason: String,
    /// How many times the target had been blocked, this one included.
    pub offences: u32,
    /// When the block ends, or was to end.
    pub expires_at: Option<String>,
    /// When packets were first found to have been dropped, to the minute.
    pub first_drop_at: Option<String>,
    /// When they last were.
    pub last_drop_at: Option<String>,
    /// The user id of the operator who asked for it.
    pub uid: Option<u32>,
    /// The user id of the operator who ended it.
    pub outcome_uid: Option<u32>,
    /// What befell the target's packets, in words; null for action run.
    #[serde(default)]
    pub measure: Option<String>,
    /// The command that ran, for action run.
    pub command: Option<String>,
    /// Whether it was not enforced: packets were counted, and passed.
    #[serde(default)]
    pub dry_run: bool,
    /// The number of the latest record of it.
    pub record: i64,
}

/// The latest record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub seq: i64,
    /// Its hash, in hexadecimal.
    pub hash: String,
}

/// Which incidents are asked for. Each condition that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentsQuery {
    /// That began then or later,
    pub since: Option<Wall>,
    /// and before this.
    pub until: Option<Wall>,
    /// Of targets that lie in this one, or that it lies in.
    pub address: Option<Target>,
    /// Of this rule.
    pub rule: Option<u32>,
    /// In which this user name was tried.
    pub user: Option<String>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// At most so many, the newest.
    pub limit: u32,
    /// That have a record with a greater number.
    pub after: Option<i64>,
}

/// Whether an address would pass, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// The address that was asked about.
    pub target: String,
    /// `pass`, `drop`, or `throttle` where packets pass up to a rate, as the program in the kernel says.
    pub verdict: String,
    /// Why.
    pub because: String,
    /// The entry that covers it.
    pub entry: Option<Entry>,
    /// What rests while that stands, and comes into force again when nothing stricter is left.
    pub resting: Vec<Entry>,
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
    /// Whether packets are dropped; otherwise what would be is only counted.
    #[serde(default = "yes")]
    pub enforcing: bool,
    /// For how many seconds yet everything is on trial; null where it is not.
    #[serde(default)]
    pub trial_left_s: Option<u64>,
    /// The local accounts that are locked because of failed logins.
    #[serde(default)]
    pub locked_accounts: Vec<String>,
    /// The same with when each is unlocked.
    #[serde(default)]
    pub locks: Vec<Lock>,
    /// Packets seen by the gate since it was first attached.
    pub packets: Packets,
    /// The kernel's memory for the tables.
    #[serde(default)]
    pub memory: Memory,
    /// Why the record lacks what happened last, where the store cannot be written at present.
    #[serde(default)]
    pub unrecorded: Option<String>,
    /// What an operator should know; empty when all is well.
    pub health: Vec<String>,
}

/// A local account that is locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Its name.
    pub user: String,
    /// When it is unlocked, RFC 3339.
    pub until: Option<String>,
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
    /// Why it is attached as it is, or is left alone on purpose; left out where there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
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
    pub v4: u32,
    /// IPv6 addresses and /64s.
    pub v6: u32,
    /// Other prefixes.
    pub prefixes: u32,
}

/// Memory of the kernel that the tables take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// From the start.
    pub tables: u64,
    /// When every table is full.
    pub tables_full: u64,
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
    /// What befalls their packets; null: all are dropped.
    #[serde(default)]
    pub measure: Option<Measure>,
    /// Why.
    pub reason: Option<String>,
    /// Whether it is a part of a longer list, of which another follows; it is answered before it is on record then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
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
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// As [`BlockRequest::more`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// What became of a wish: how many targets were done, and which were not, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// How many targets were blocked, or unblocked.
    pub done: usize,
    /// The others.
    pub refused: Vec<Refusal>,
    /// Why what was done is in force and not yet on record; none where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<String>,
    /// Whether blocks are not enforced: nothing is dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What else there is to know of those that were done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A target with which nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// As it was asked for.
    pub target: String,
    /// Why not.
    pub reason: String,
}

/// What Wazuh's Active Response asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActiveResponse {
    /// What to do.
    pub command: ActiveCommand,
    /// About whom.
    pub source: IpAddr,
    /// For how long, in seconds, from one to those of 100 years.
    pub timeout_s: u64,
    /// Whether that is the time that Wazuh keeps; else only the bound of a block that Wazuh lifts at a time of its own.
    pub timeout_known: bool,
    /// Wazuh's rule that matched, where the message names one.
    pub rule: Option<Rule>,
    /// Why, in words.
    pub reason: String,
    /// The user name that was tried.
    pub user: Option<String>,
    /// The log line behind it.
    pub evidence: Option<String>,
}

/// What Wazuh's Active Response asks to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActiveCommand {
    /// To block.
    Add,
    /// To keep blocked for longer what is blocked because Wazuh asked for it.
    Renew,
    /// To lift what is blocked because Wazuh asked for it.
    Delete,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responded {
    /// Whether what was asked for is so now.
    pub done: bool,
    /// What was done, or why nothing was.
    pub message: String,
}

/// What the controller answers when it cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// Why.
    pub error: String,
}

/// A wish to allow networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRequest {
    /// Addresses and prefixes.
    pub networks: Vec<String>,
    /// For how long, in seconds, from one to those of 100 years; null until removed.
    pub timeout_s: Option<u64>,
    /// What they are.
    pub comment: Option<String>,
    /// Whether a network may hold half of all addresses or more, so that hardly anything is blocked.
    #[serde(default)]
    pub all: bool,
}

/// A wish to allow networks no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisallowRequest {
    /// Addresses and prefixes, as they were allowed.
    pub networks: Vec<String>,
}

/// A network that is never blocked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// An address or a prefix.
    pub network: String,
    /// `config` or `operator`.
    pub origin: String,
    /// What it is.
    pub comment: Option<String>,
    /// When an operator first allowed it, RFC 3339.
    pub added_at: Option<String>,
    /// The user id of the operator.
    pub uid: Option<u32>,
    /// When that ends, RFC 3339; null where it does not.
    pub expires_at: Option<String>,
    /// In how many seconds it ends, rounded up.
    pub expires_in_s: Option<u64>,
}

/// What protects an address from being blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowCheck {
    /// The address.
    pub address: String,
    /// Whether anything does.
    pub protected: bool,
    /// All that does.
    pub protections: Vec<Protection>,
}

/// One thing that protects an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// `config`, `operator`, `special`, `own`, `gateway`, `name_server`, `session` or `recent_login`.
    pub by: String,
    /// What is protected: the address, or a network that it lies in.
    pub network: String,
    /// Whether operators may block it all the same.
    pub rules_only: bool,
    /// In words.
    pub because: String,
}

impl From<&change::Protection> for Protection {
    fn from(protection: &change::Protection) -> Protection {
        let (by, rules_only) = match protection.by {
            Protector::Special(_) => ("special", false),
            Protector::Own => ("own", false),
            Protector::Gateway => ("gateway", false),
            Protector::NameServer => ("name_server", false),
            Protector::Allowed => ("config", false),
            Protector::AllowedByHand => ("operator", false),
            Protector::Session => ("session", true),
            Protector::RecentLogin => ("recent_login", true),
        };
        Protection {
            by: by.to_owned(),
            network: protection.protected.to_string(),
            rules_only,
            because: protection.to_string(),
        }
    }
}

impl Done {
    /// Notes a target with which nothing was done.
    pub fn refuse(&mut self, target: &str, reason: String) {
        self.refused.push(Refusal { target: target.to_owned(), reason });
    }
}

impl From<&RuleRef> for Rule {
    fn from(rule: &RuleRef) -> Rule {
        Rule { id: rule.id.0, level: rule.level, description: rule.description.to_string() }
    }
}

impl Measure {
    /// More of `measure`, where there is more to say.
    pub fn of(measure: measure::Measure) -> Option<Measure> {
        if measure == measure::Measure::default() {
            return None;
        }
        let rate = match measure.action {
            Action::Block => None,
            Action::Throttle(rate) => Some(rate),
        };
        Some(Measure {
            rate: rate.map(|rate| rate.per_second),
            burst: rate.map(|rate| rate.burst),
            ports: measure.scope.ports.iter().collect(),
            scope: if measure.scope.new_only { MeasureScope::New } else { MeasureScope::All },
        })
    }

    /// The measure that this stands for.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(&self) -> Result<measure::Measure, String> {
        let action = match (self.rate, self.burst) {
            (Some(per_second), burst) => {
                Action::Throttle(Rate { per_second, burst: burst.unwrap_or(per_second) })
            }
            (None, None) => Action::Block,
            (None, Some(_)) => return Err("a burst goes with a rate".to_owned()),
        };
        let ports = Ports::new(&self.ports)
            .ok_or_else(|| format!("at most {} ports can be named, none of them 0", Ports::MAX))?;
        let scope = Scope { ports, new_only: self.scope == MeasureScope::New };
        Ok(measure::Measure { action, scope })
    }
}

/// A duration in seconds, rounded up, so that what is not over never reads as zero.
pub fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl IncidentsQuery {
    /// The most that are given at once.
    pub const MAX: u32 = 10_000;

    /// The parameters of the request, by name.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let time = |wall: Wall| rfc3339_micros(wall);
        let mut parameters = vec![("limit", self.limit.to_string())];
        let mut add = |name, value: Option<String>| parameters.extend(value.map(|value| (name, value)));
        add("since", self.since.map(time));
        add("until", self.until.map(time));
        add("address", self.address.map(|target| target.to_string()));
        add("rule", self.rule.map(|rule| rule.to_string()));
        add("user", self.user.clone());
        add("outcome", self.outcome.map(|outcome| outcome.name().to_owned()));
        add("after", self.after.map(|after| after.to_string()));
        parameters
    }

    /// What parameters ask for, such as since=7d, address=203.0.113.0/24 or outcome=failed.
    ///
    /// # Errors
    /// The parameter that is unknown, or whose value cannot be, in words.
    pub fn from_parameters(parameters: &[(String, String)], now: &Now) -> Result<IncidentsQuery, String> {
        let mut query = IncidentsQuery {
            since: None,
            until: None,
            address: None,
            rule: None,
            user: None,
            outcome: None,
            limit: 100,
            after: None,
        };
        for (name, value) in parameters {
            let odd = || format!("`{name}` cannot be `{}`", value.chars().take(64).collect::<String>());
            let time = |text: &str| period::begin(text, &local(now.wall)).map_err(|error| error.to_string());
            match name.as_str() {
                "since" => query.since = Some(time(value)?),
                "until" => query.until = Some(time(value)?),
                "address" => query.address = Some(value.parse().map_err(|_| odd())?),
                "rule" => query.rule = Some(value.parse().map_err(|_| odd())?),
                "user" => query.user = Some(value.clone()),
                "outcome" => query.outcome = Some(Outcome::from_name(value).ok_or_else(odd)?),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=Self::MAX).contains(limit));
                    query.limit = limit.ok_or_else(odd)?;
                }
                "after" => query.after = Some(value.parse().map_err(|_| odd())?),
                _ => {
                    return Err("parameters are since, until, address, rule, user, outcome, limit and after"
                        .to_owned());
                }
            }
        }
        Ok(query)
    }
}

impl From<&IncidentsQuery> for IncidentQuery {
    fn from(query: &IncidentsQuery) -> IncidentQuery {
        IncidentQuery {
            target: query.address,
            since: query.since,
            until: query.until,
            rule: query.rule.map(RuleId),
            user: query.user.clone(),
            outcome: query.outcome,
            changed_after: query.after,
            limit: Some(query.limit),
            without_evidence: false,
        }
    }
}

impl From<store::Head> for Head {
    fn from(head: store::Head) -> Head {
        Head { seq: head.seq, hash: head.hex() }
    }
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
            reason: incident.reason.to_string(),
            offences: incident.offences,
            expires_at: incident.expires_at.map(rfc3339),
            first_drop_at: incident.first_drop.map(rfc3339),
            last_drop_at: incident.last_drop.map(rfc3339),
            uid: incident.uid,
            outcome_uid: incident.outcome_uid,
            measure: incident.command.is_none().then(|| incident.measure.to_string()),
            command: incident.command,
            dry_run: incident.dry_run,
            record: incident.record,
        }
    }
}

/// To unlock an account that was locked because of failed logins.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    /// The account.
    pub user: String,
}
