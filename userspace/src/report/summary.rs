//! What a report says, before it is written in any format. Serialised it is the report in JSON; its field names are a
//! contract, told in docs/report.md.

use serde::{Serialize, Serializer};
use xdpban_engine::time::Wall;

use super::latencies::Band;
use super::period::Step;
use super::requirements::Requirement;
use super::times::Zone;
use crate::clock::rfc3339;
use crate::store::Outcome;

/// A report. Its size is bounded, whatever the record holds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it is about, and how it came about.
    pub about: About,
    /// Its incidents, summed up.
    pub totals: Totals,
    /// How many responses came to what.
    pub outcomes: Outcomes,
    /// When incidents began.
    pub timeline: Timeline,
    /// How long it took from the arrival of the log line until the kernel had the block.
    pub response_times: ResponseTimes,
    /// The sources with the most incidents.
    pub sources: Top<Source>,
    /// The user names that were tried in the most incidents.
    pub users: Top<User>,
    /// The rules that led to the most incidents.
    pub rules: Top<Rule>,
    /// Incidents to which no response took effect, each with its first response, oldest first, the newest if there are many.
    pub unanswered: Listing<Response>,
    /// All responses, in the order in which their incidents began, the newest if there are many.
    pub responses: Listing<Response>,
    /// What operators did.
    pub acts: Listing<Event>,
    /// What became of the configuration and the allowlist.
    pub changes: Listing<Event>,
    /// When the controller watched.
    pub watch: Watch,
    /// The record that all of this was taken from.
    pub record: Record,
    /// Which requirement is answered where.
    pub requirements: &'static [Requirement],
}

/// What a report is about, and how it came about.
#[derive(Clone, Debug, Serialize)]
pub struct About {
    /// The host.
    pub host: String,
    /// The begin of the period, RFC 3339 in JSON as all times.
    #[serde(serialize_with = "time")]
    pub from: Wall,
    /// The first moment after the period.
    #[serde(serialize_with = "time")]
    pub to: Wall,
    /// The zone whose days are meant and in which times are shown.
    pub time_zone: Zone,
    /// When the report was made.
    #[serde(serialize_with = "time")]
    pub made_at: Wall,
    /// Who made it.
    pub made_by: String,
    /// The version of xdpban that made it.
    pub version: String,
}

/// Incidents, summed up. An incident is what was found once: a match of a rule, or what an operator asked for, however many
/// responses there were to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Incidents that began in the period.
    pub incidents: u64,
    /// Those that a rule of xdpban found.
    pub by_rule: u64,
    /// Those that Wazuh found.
    pub by_wazuh: u64,
    /// Those that an operator asked for.
    pub by_operator: u64,
    /// Those to which a response took effect.
    pub responded: u64,
    /// Attempts that the incidents' matches counted.
    pub attempts: u64,
    /// Packets that the kernel dropped because of them.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Incidents because of which at least one packet was dropped.
    pub with_drops: u64,
    /// Responses to all of them.
    pub responses: u64,
    /// Responses that took effect.
    pub effective: u64,
    /// Those in force that rest: beneath stricter ones, or while the gate is off the host.
    pub resting: u64,
    /// Responses beside these that were not carried out: in a dry run nothing is enforced.
    pub dry_run_responses: u64,
    /// Incidents that had such responses alone.
    pub dry_run: u64,
    /// Packets that would have been dropped because of them, and passed.
    pub would_drop_packets: u64,
    /// Their bytes.
    pub would_drop_bytes: u64,
}

/// How many responses came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// The response is in force.
    pub in_force: u64,
    /// Its time was over.
    pub expired: u64,
    /// It was taken back.
    pub lifted: u64,
    /// A protection prevented it, there was no room for it, or an account was left alone.
    pub refused: u64,
    /// It failed.
    pub failed: u64,
    /// A command ran, and nothing is to be undone.
    pub done: u64,
}

/// When incidents began.
#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    /// How long each step is.
    pub step: Step,
    /// The steps, from the begin of the period to its end; those with nothing, too.
    pub steps: Vec<TimelineStep>,
}

/// A step of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineStep {
    /// When it begins.
    #[serde(serialize_with = "time")]
    pub from: Wall,
    /// Incidents that began in it.
    pub incidents: u64,
    /// Responses to them, by what came of these.
    #[serde(flatten)]
    pub outcomes: Outcomes,
    /// Responses to them that were not carried out, in a dry run.
    pub dry_run: u64,
}

/// How long responses took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ResponseTimes {
    /// How many were measured: those that a log line led to.
    pub count: u64,
    /// What half of them did not exceed, in milliseconds; null where there are none, as with the others.
    pub median_ms: Option<f64>,
    /// What 90 of 100 did not exceed.
    pub p90_ms: Option<f64>,
    /// What 99 of 100 did not exceed.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
    /// How many took how long.
    pub bands: Vec<Band>,
}

/// The commonest of a kind.
#[derive(Clone, Debug, Serialize)]
pub struct Top<T> {
    /// The commonest first.
    pub top: Vec<T>,
    /// How many different ones there were; where that is not exact, there were more.
    pub distinct: u64,
    /// Whether the figures are exact. They are not where there are more different ones than are kept apart.
    pub exact: bool,
    /// By how much a number of incidents in `top` may be too low, at most.
    pub short_by_at_most: u64,
}

/// A source of attacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// An address or a prefix.
    pub target: String,
    /// Incidents.
    pub incidents: u64,
    /// Attempts.
    pub attempts: u64,
    /// Packets dropped.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// When it was last seen to offend.
    #[serde(serialize_with = "time")]
    pub last_seen: Wall,
}

/// A user name that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct User {
    /// The name, as the client gave it.
    pub user: String,
    /// Incidents in which it was tried.
    pub incidents: u64,
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its number.
    pub id: u32,
    /// Its severity.
    pub level: u8,
    /// What it finds.
    pub description: String,
    /// Incidents.
    pub incidents: u64,
    /// Attempts.
    pub attempts: u64,
}

/// A bounded number of things, and how many there are.
#[derive(Clone, Debug, Serialize)]
pub struct Listing<T> {
    /// How many there are.
    pub total: u64,
    /// Those that are listed.
    pub listed: Vec<T>,
}

/// A response in short, with what led to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Response {
    /// Its number in the record, as an incident there.
    pub id: i64,
    /// When what led to it began.
    #[serde(serialize_with = "time")]
    pub first_seen: Wall,
    /// The source.
    pub target: String,
    /// The rule's number; none where an operator asked.
    pub rule_id: Option<u32>,
    /// The rule's severity.
    pub rule_level: Option<u8>,
    /// What was found, or the operator's reason.
    pub reason: String,
    /// `rule`, `wazuh`, `operator` or `adopted`.
    pub origin: &'static str,
    /// Attempts.
    pub attempts: u32,
    /// The user names that were tried, the first few.
    pub users: Vec<String>,
    /// What was done: `block`, `throttle` or `run`.
    pub action: String,
    /// The same with its rate and its ports, or the command's name.
    pub response: String,
    /// For how long, in seconds; none: until lifted.
    pub timeout_s: Option<u64>,
    /// From the arrival of the line until the kernel had it, in milliseconds.
    pub line_to_block_ms: Option<f64>,
    /// Packets dropped.
    pub dropped_packets: u64,
    /// Their bytes.
    pub dropped_bytes: u64,
    /// Whether it was not carried out, in a dry run.
    pub dry_run: bool,
    /// Packets that would have been dropped then, and passed.
    pub would_drop_packets: u64,
    /// Their bytes.
    pub would_drop_bytes: u64,
    /// What came of it.
    #[serde(serialize_with = "outcome")]
    pub outcome: Outcome,
    /// When.
    #[serde(serialize_with = "maybe_time")]
    pub outcome_at: Option<Wall>,
    /// Why.
    pub outcome_reason: Option<String>,
    /// The operator who asked for it.
    pub by: Option<String>,
    /// The operator who ended it.
    pub outcome_by: Option<String>,
}

/// Something that happened beside incidents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When.
    #[serde(serialize_with = "time")]
    pub at: Wall,
    /// By whom: the name and number of the user, or the controller.
    pub by: String,
    /// What, in words.
    pub what: String,
}

/// When the controller watched.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Watch {
    /// Seconds of the period in which it did, as far as it is known; none where the record does not tell.
    pub watched_s: Option<u64>,
    /// The time at the begin of the period of which the record does not tell.
    pub unknown: Option<Gap>,
    /// Times in which it did not.
    pub gaps: Listing<Gap>,
    /// Times in which the gate was off the host, so that nothing was blocked.
    pub off_host: Listing<Gap>,
}

/// A time in which the controller did not watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// Its begin, cut to the period.
    #[serde(serialize_with = "time")]
    pub from: Wall,
    /// Its end, cut to the period.
    #[serde(serialize_with = "time")]
    pub to: Wall,
    /// Why, in words.
    pub why: String,
}

/// The record that a report was taken from.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The file.
    pub path: String,
    /// Whether what was checked is what was written, by its chain of hashes.
    pub verified: bool,
    /// The record after which checking began, and its hash; none where all was checked.
    pub verified_after: Option<String>,
    /// What was found, in words.
    pub finding: String,
    /// The latest record and its hash, which vouch for all before it.
    pub head: String,
    /// When the oldest record that is kept was made.
    #[serde(serialize_with = "maybe_time")]
    pub oldest: Option<Wall>,
    /// What befell it: what was pruned, given up, set aside or migrated.
    pub events: Listing<Event>,
}

impl<T> Default for Listing<T> {
    fn default() -> Listing<T> {
        Listing { total: 0, listed: Vec::new() }
    }
}

impl Watch {
    /// How many seconds of the period from `from` to `to` the record tells of.
    pub fn known_s(&self, from: Wall, to: Wall) -> u64 {
        to.since(self.unknown.as_ref().map_or(from, |unknown| unknown.to)).as_secs()
    }
}

impl<T> Listing<T> {
    /// How many are not listed.
    pub fn left_out(&self) -> u64 {
        self.total.saturating_sub(self.listed.len() as u64)
    }
}

impl Outcomes {
    /// The number of those with `outcome`.
    pub fn of(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::InForce => self.in_force,
            Outcome::Expired => self.expired,
            Outcome::Lifted => self.lifted,
            Outcome::Refused => self.refused,
            Outcome::Failed => self.failed,
            Outcome::Done => self.done,
        }
    }

    /// Counts one with `outcome`.
    pub(super) fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::InForce => &mut self.in_force,
            Outcome::Expired => &mut self.expired,
            Outcome::Lifted => &mut self.lifted,
            Outcome::Refused => &mut self.refused,
            Outcome::Failed => &mut self.failed,
            Outcome::Done => &mut self.done,
        } += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        Outcome::ALL.into_iter().map(|outcome| self.of(outcome)).sum()
    }
}

fn time<S: Serializer>(at: &Wall, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*at))
}

fn maybe_time<S: Serializer>(at: &Option<Wall>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(rfc3339).serialize(serializer)
}

fn outcome<S: Serializer>(outcome: &Outcome, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(outcome.name())
}
