//! The incidents of a period, summed up in one pass and bounded memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use xdpban_engine::change::Origin;
use xdpban_engine::rules::RuleRef;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::frequent::{Commonest, Frequent};
use super::latencies::Latencies;
use super::period::Period;
use super::summary::{
    Listing, Outcomes, Response, ResponseTimes, Rule, Source, Timeline, TimelineStep, Top, Totals, User,
};
use crate::human::without_uid;
use crate::store::{self, Outcome};

/// Sources, users and rules that are named.
const TOP: usize = 15;

/// User names that an incident is listed with, and the characters of a text.
const USERS: usize = 5;
const TEXT: usize = 240;

/// Matches of one moment that are kept apart at most. The responses to one of a rule come within a batch of lines, which has
/// fewer; of what operators ask for, there is one to each.
const MATCHES: usize = 16_384;

/// What was summed up so far.
#[derive(Debug)]
pub(super) struct Tally {
    totals: Totals,
    outcomes: Outcomes,
    timeline: Timeline,
    latencies: Latencies,
    sources: Frequent<Target, Sums>,
    users: Frequent<Arc<str>, ()>,
    rules: Frequent<u32, RuleSums>,
    unanswered: Latest<store::Incident>,
    responses: Latest<store::Incident>,
    moment: Moment,
}

/// What was found in the latest moment, to which there may be further responses: these follow each other on record.
#[derive(Debug, Default)]
struct Moment {
    at: Wall,
    matches: Vec<Match>,
    /// The place of each among them, by its target and its rule.
    places: HashMap<(Target, Option<u32>), usize>,
}

/// What was found once, by all responses to it.
#[derive(Debug)]
struct Match {
    target: Target,
    rule: Option<RuleRef>,
    origin: Origin,
    users: Vec<Arc<str>>,
    attempts: u32,
    packets: u64,
    bytes: u64,
    last_seen: Wall,
    answered: bool,
    /// Whether it would have been, save for a dry run.
    would_be: bool,
    /// The first response, where it took no effect.
    unanswered: Option<store::Incident>,
}

#[derive(Debug, Default)]
struct Sums {
    attempts: u64,
    packets: u64,
    bytes: u64,
    last_seen: Wall,
}

#[derive(Debug, Default)]
struct RuleSums {
    level: u8,
    description: Arc<str>,
    attempts: u64,
}

/// The parts of a report that a tally makes.
pub(super) struct Tallied {
    pub(super) totals: Totals,
    pub(super) outcomes: Outcomes,
    pub(super) timeline: Timeline,
    pub(super) response_times: ResponseTimes,
    pub(super) sources: Top<Source>,
    pub(super) users: Top<User>,
    pub(super) rules: Top<Rule>,
    pub(super) unanswered: Listing<Response>,
    pub(super) responses: Listing<Response>,
}

impl Tally {
    /// One that lists `listed` of a kind at most.
    pub(super) fn new(period: &Period, listed: usize) -> Tally {
        let step = |from| TimelineStep { from, incidents: 0, outcomes: Outcomes::default(), dry_run: 0 };
        Tally {
            totals: Totals::default(),
            outcomes: Outcomes::default(),
            timeline: Timeline { step: period.step(), steps: period.steps().into_iter().map(step).collect() },
            latencies: Latencies::new(),
            sources: Frequent::new(),
            users: Frequent::new(),
            rules: Frequent::new(),
            unanswered: Latest::new(listed),
            responses: Latest::new(listed),
            moment: Moment::default(),
        }
    }

    /// Adds an incident on record of the period, which is one response. They come in the order in which they began.
    pub(super) fn add(&mut self, incident: store::Incident) {
        if incident.first_seen != self.moment.at || self.moment.matches.len() >= MATCHES {
            self.end_moment();
            self.moment.at = incident.first_seen;
        }
        self.count(&incident);
        if let Some(took) = incident.line_to_block.filter(|_| !incident.dry_run) {
            self.latencies.add(took);
        }
        self.moment.add(&incident);
        self.responses.add(incident);
    }

    /// Counts a response.
    fn count(&mut self, response: &store::Incident) {
        let totals = &mut self.totals;
        if response.dry_run {
            totals.dry_run_responses += 1;
            totals.would_drop_packets = totals.would_drop_packets.saturating_add(response.dropped_packets);
            totals.would_drop_bytes = totals.would_drop_bytes.saturating_add(response.dropped_bytes);
            if let Some(step) = step_of(&mut self.timeline, response.first_seen) {
                step.dry_run += 1;
            }
            return;
        }
        totals.responses += 1;
        totals.effective += u64::from(response.took_effect());
        // A block that is in force has a reason where it rests; a command, where it was cut off.
        let rests = response.outcome == Outcome::InForce
            && response.command.is_none()
            && response.outcome_reason.is_some();
        totals.resting += u64::from(rests);
        totals.dropped_packets = totals.dropped_packets.saturating_add(response.dropped_packets);
        totals.dropped_bytes = totals.dropped_bytes.saturating_add(response.dropped_bytes);
        self.outcomes.add(response.outcome);
        if let Some(step) = step_of(&mut self.timeline, response.first_seen) {
            step.outcomes.add(response.outcome);
        }
    }

    /// Counts what was found in the latest moment: all responses to that have come.
    fn end_moment(&mut self) {
        let totals = &mut self.totals;
        if let Some(step) = step_of(&mut self.timeline, self.moment.at) {
            step.incidents += self.moment.matches.len() as u64;
        }
        for found in self.moment.matches.drain(..) {
            totals.incidents += 1;
            match found.origin {
                Origin::Rule => totals.by_rule += 1,
                Origin::Wazuh => totals.by_wazuh += 1,
                Origin::Operator => totals.by_operator += 1,
                Origin::Adopted => {}
            }
            totals.responded += u64::from(found.answered);
            totals.dry_run += u64::from(found.would_be && !found.answered);
            totals.attempts += u64::from(found.attempts);
            totals.with_drops += u64::from(found.packets > 0);
            let sums = self.sources.add(found.target);
            sums.attempts += u64::from(found.attempts);
            sums.packets = sums.packets.saturating_add(found.packets);
            sums.bytes = sums.bytes.saturating_add(found.bytes);
            sums.last_seen = sums.last_seen.max(found.last_seen);
            if let Some(rule) = found.rule {
                let sums = self.rules.add(rule.id.0);
                sums.attempts += u64::from(found.attempts);
                sums.level = rule.level;
                sums.description = rule.description;
            }
            for user in found.users {
                self.users.add(user);
            }
            if !found.answered {
                found.unanswered.into_iter().for_each(|response| self.unanswered.add(response));
            }
        }
        self.moment.places.clear();
    }

    /// What all of it comes to; `name_of` tells whose a user id is.
    pub(super) fn finish(mut self, name_of: &dyn Fn(u32) -> String) -> Tallied {
        self.end_moment();
        let in_short = |incident| in_short(incident, name_of);
        let latencies = &self.latencies;
        let response_times = ResponseTimes {
            count: latencies.count(),
            median_ms: latencies.percentile_ms(50),
            p90_ms: latencies.percentile_ms(90),
            p99_ms: latencies.percentile_ms(99),
            max_ms: latencies.max_ms(),
            bands: latencies.bands(),
        };
        let sources = top(self.sources.commonest(TOP), |target, incidents, sums| Source {
            target: target.to_string(),
            incidents,
            attempts: sums.attempts,
            dropped_packets: sums.packets,
            dropped_bytes: sums.bytes,
            last_seen: sums.last_seen,
        });
        let users =
            top(self.users.commonest(TOP), |user, incidents, ()| User { user: cut(&user), incidents });
        let rules = top(self.rules.commonest(TOP), |id, incidents, sums| Rule {
            id,
            level: sums.level,
            description: cut(&sums.description),
            incidents,
            attempts: sums.attempts,
        });
        Tallied {
            totals: self.totals,
            outcomes: self.outcomes,
            timeline: self.timeline,
            response_times,
            sources,
            users,
            rules,
            unanswered: self.unanswered.into_listing(in_short),
            responses: self.responses.into_listing(in_short),
        }
    }
}

impl Moment {
    /// Adds a response to what was found, or to what is found by it.
    fn add(&mut self, response: &store::Incident) {
        let key = (response.target, response.rule.as_ref().map(|rule| rule.id.0));
        let place = *self.places.entry(key).or_insert(self.matches.len());
        let effective = response.took_effect() && !response.dry_run;
        let would_be = response.took_effect() && response.dry_run;
        let (packets, bytes) =
            if response.dry_run { (0, 0) } else { (response.dropped_packets, response.dropped_bytes) };
        if let Some(found) = self.matches.get_mut(place) {
            found.answered |= effective;
            found.would_be |= would_be;
            found.attempts = found.attempts.max(response.attempts);
            found.packets = found.packets.saturating_add(packets);
            found.bytes = found.bytes.saturating_add(bytes);
            found.last_seen = found.last_seen.max(response.last_seen);
            return;
        }
        // A network that is blocked because of a host in it has the host's attempts.
        let because_of_host = self.matches.last().is_some_and(|host| {
            host.rule.is_some() && host.rule == response.rule && response.target.covers(&host.target)
        });
        self.matches.push(Match {
            target: response.target,
            rule: response.rule.clone(),
            origin: response.origin,
            users: response.users.clone(),
            attempts: if because_of_host { 0 } else { response.attempts },
            packets,
            bytes,
            last_seen: response.last_seen,
            answered: effective,
            would_be,
            unanswered: (!effective).then(|| response.clone()),
        });
    }
}

fn step_of(timeline: &mut Timeline, at: Wall) -> Option<&mut TimelineStep> {
    let after = timeline.steps.partition_point(|step| step.from <= at);
    timeline.steps.get_mut(after.checked_sub(1)?)
}

fn top<K, V, T>(commonest: Commonest<K, V>, entry: impl Fn(K, u64, V) -> T) -> Top<T> {
    Top {
        distinct: commonest.distinct,
        exact: commonest.exact,
        short_by_at_most: commonest.keys.iter().map(|(_, count)| count.uncertainty).max().unwrap_or(0),
        top: commonest
            .keys
            .into_iter()
            .map(|(key, count)| entry(key, count.occurrences, count.sums))
            .collect(),
    }
}

fn in_short(incident: store::Incident, name_of: &dyn Fn(u32) -> String) -> Response {
    let counted = (incident.dropped_packets, incident.dropped_bytes);
    let (dropped, would_drop) = if incident.dry_run { ((0, 0), counted) } else { (counted, (0, 0)) };
    Response {
        id: incident.id,
        first_seen: incident.first_seen,
        target: incident.target.to_string(),
        rule_id: incident.rule.as_ref().map(|rule| rule.id.0),
        rule_level: incident.rule.as_ref().map(|rule| rule.level),
        reason: cut(match (&incident.rule, incident.uid) {
            (Some(rule), _) => &rule.description,
            (None, Some(uid)) => without_uid(&incident.reason, uid),
            (None, None) => &incident.reason,
        }),
        origin: incident.origin.name(),
        attempts: incident.attempts,
        users: incident.users.iter().take(USERS).map(|user| cut(user)).collect(),
        response: incident.command.as_deref().map_or_else(|| incident.measure.to_string(), cut),
        action: incident.action,
        timeout_s: incident.timeout.map(|timeout| timeout.as_secs()),
        line_to_block_ms: incident.line_to_block.map(|took| took.as_secs_f64() * 1000.0),
        dropped_packets: dropped.0,
        dropped_bytes: dropped.1,
        dry_run: incident.dry_run,
        would_drop_packets: would_drop.0,
        would_drop_bytes: would_drop.1,
        outcome: incident.outcome,
        outcome_at: incident.outcome_at,
        outcome_reason: why(incident.outcome_reason.as_deref(), incident.outcome_uid),
        by: incident.uid.map(name_of),
        outcome_by: incident.outcome_uid.map(name_of),
    }
}

/// Why an incident ended, without the operator's number, whose name stands beside it.
fn why(reason: Option<&str>, uid: Option<u32>) -> Option<String> {
    let by = uid.map_or_else(String::new, |uid| format!("by uid {uid}"));
    let reason = reason?;
    let rest = reason.strip_prefix(&*by).unwrap_or(reason);
    let why = rest.strip_prefix(": ").unwrap_or(rest);
    (!why.is_empty()).then(|| cut(why))
}

/// `text`, cut to a length that fits a table.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The latest of many things, in the order in which they came.
#[derive(Debug)]
pub(super) struct Latest<T> {
    limit: usize,
    total: u64,
    kept: VecDeque<T>,
}

impl<T> Latest<T> {
    pub(super) fn new(limit: usize) -> Latest<T> {
        Latest { limit, total: 0, kept: VecDeque::new() }
    }

    pub(super) fn add(&mut self, thing: T) {
        self.total += 1;
        self.kept.push_back(thing);
        if self.kept.len() > self.limit {
            self.kept.pop_front();
        }
    }

    pub(super) fn into_listing<U>(self, shown: impl Fn(T) -> U) -> Listing<U> {
        Listing { total: self.total, listed: self.kept.into_iter().map(shown).collect() }
    }
}
