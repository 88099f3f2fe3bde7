//! What a report needs of the record, each part of it read once. The only part of a report that reads.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use xdpban_engine::time::Wall;

use super::acts::{self, Told};
use super::period::Period;
use super::requirements::REQUIREMENTS;
use super::summary::{About, Event, Listing, Record, Report, Watch};
use super::tally::{Latest, Tallied, Tally, cut};
use super::times::Zone;
use super::watch::{Alive, Watching};
use crate::human::{count, counted};
use crate::store::{self, Archive, IncidentQuery, Interrupted, StoreError, Verified};

/// What is asked for, and by whom.
pub struct Asked<'a> {
    /// The period.
    pub period: Period,
    /// How many of a kind are listed at most.
    pub listed: usize,
    /// The host.
    pub host: String,
    /// Who asks.
    pub by: String,
    /// The present.
    pub now: Wall,
    /// Tells whose a user id is.
    pub name_of: &'a dyn Fn(u32) -> String,
}

/// Makes the report.
///
/// # Errors
/// The record cannot be read, or is damaged.
pub fn gather(directory: &Path, asked: &Asked<'_>) -> Result<Report, StoreError> {
    let archive = Archive::open(directory)?;
    let from = asked.period.from;
    // To verify takes as long as the rest.
    let (summed_up, verified) = std::thread::scope(|scope| {
        let verifying = scope.spawn(move || Archive::open(directory)?.verify_since(from));
        let summed_up = sum_up(&archive, asked);
        // Nothing there panics; if it did, so would this.
        let verified = verifying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (summed_up, verified)
    });
    let (tally, happened) = summed_up?;
    let Asked { period, host, by, now, name_of, .. } = asked;
    let record = record(&archive, happened.of_record, &verified?, *now)?;
    let Tallied { totals, outcomes, timeline, response_times, sources, users, rules, unanswered, responses } =
        tally.finish(name_of);
    Ok(Report {
        about: About {
            host: host.clone(),
            from: period.from,
            to: period.to,
            time_zone: Zone::new(period, *now),
            made_at: *now,
            made_by: by.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        totals,
        outcomes,
        timeline,
        response_times,
        sources,
        users,
        rules,
        unanswered,
        responses,
        acts: happened.acts,
        changes: happened.changes,
        watch: happened.watch,
        record,
        requirements: REQUIREMENTS,
    })
}

fn sum_up(archive: &Archive, asked: &Asked<'_>) -> Result<(Tally, Happened), StoreError> {
    let mut tally = Tally::new(&asked.period, asked.listed);
    each_incident(archive, &asked.period, true, |incident| {
        tally.add(incident);
        Ok::<_, Infallible>(())
    })
    .map_err(unread)?;
    Ok((tally, Happened::read(archive, asked)?))
}

/// Hands the incidents of `period` to `take`, one by one, the oldest first; `without_evidence` that is empty.
///
/// # Errors
/// The record cannot be read, or `take` failed.
pub fn each_incident<E>(
    archive: &Archive,
    period: &Period,
    without_evidence: bool,
    take: impl FnMut(store::Incident) -> Result<(), E>,
) -> Result<(), Interrupted<E>> {
    let query = IncidentQuery {
        since: Some(period.from),
        until: Some(period.to),
        without_evidence,
        ..IncidentQuery::default()
    };
    archive.each_incident(&query, take)
}

/// What tells whether the gate stands on the host.
const STARTED: &str = "controller.started";
const DETACHED: &str = "operator.detach";
const TRIAL_ENDED: &str = "trial.ended";

/// Notes that the gate was taken off the host, where `record` says so.
fn taken_off(watching: &mut Watching, record: &store::Record) {
    match record.kind.as_str() {
        DETACHED => watching.taken_off(record.at, "an operator took it off"),
        TRIAL_ENDED => watching.taken_off(record.at, "nobody confirmed the trial"),
        _ => {}
    }
}

/// What happened beside incidents.
struct Happened {
    acts: Listing<Event>,
    changes: Listing<Event>,
    of_record: Listing<Event>,
    watch: Watch,
}

impl Happened {
    fn read(archive: &Archive, asked: &Asked<'_>) -> Result<Happened, StoreError> {
        let Asked { period, listed, now, name_of, .. } = asked;
        let (mut acts, mut changes, mut of_record) =
            (Latest::new(*listed), Latest::new(*listed), Latest::new(*listed));
        let mut watching = Watching::new(period, *listed);
        if let Some((seq, at)) = archive.oldest()?
            && seq > 1
        {
            watching.known_from(at, "records were taken off");
        }
        if let Some(record) = archive.last_act(&[STARTED, DETACHED, TRIAL_ENDED], period.from)? {
            taken_off(&mut watching, &record);
        }
        // Beyond the period, since a start tells of the gap before it.
        let take = |record: store::Record| {
            // A body that cannot be read has been tampered with, which is for the chain of hashes to tell.
            let body: Value = serde_json::from_str(&record.body).unwrap_or_default();
            taken_off(&mut watching, &record);
            if record.kind == STARTED {
                let since = body["unwatched_since"].as_i64().map(Wall);
                watching.started(record.at, since, body["after"].as_str().unwrap_or_default());
            }
            if record.kind == "store.set_aside" {
                watching.known_from(record.at, "the record before was set aside");
            }
            if !period.contains(record.at) {
                return Ok::<_, Infallible>(());
            }
            let uid = body["uid"].as_u64().and_then(|uid| u32::try_from(uid).ok());
            let by = uid.map_or_else(|| "the controller".to_owned(), name_of);
            let event = |what| Event { at: record.at, by, what };
            match acts::told(&record, &body) {
                Told::Act(what) => acts.add(event(what)),
                Told::Change(what) => changes.add(event(what)),
                Told::OfRecord(what) => of_record.add(event(what)),
                Told::Nothing => {}
            }
            Ok(())
        };
        archive.each_act((period.from, Wall(i64::MAX)), take).map_err(unread)?;
        let alive = archive.alive()?.map(|(at, stopped)| Alive { at, stopped });
        Ok(Happened {
            acts: acts.into_listing(|event| event),
            changes: changes.into_listing(|event| event),
            of_record: of_record.into_listing(|event| event),
            watch: watching.finish(alive, *now),
        })
    }
}

fn record(
    archive: &Archive,
    events: Listing<Event>,
    verified: &Verified,
    now: Wall,
) -> Result<Record, StoreError> {
    let finding = match verified.faults.first() {
        None => sound(verified),
        Some(fault) => {
            let more = match verified.faults.len() as u64 - 1 + verified.more {
                0 => String::new(),
                more => format!("; and {}", counted(more, "further fault")),
            };
            let of = fault.seq.map(|seq| format!("record {seq}: "));
            let of = of.or(fault.incident.map(|id| format!("incident {id}: "))).unwrap_or_default();
            cut(&format!("NOT INTACT, see xdpban verify-record: {of}{}", fault.what)) + &more
        }
    };
    let finding = match ahead(archive, now)? {
        0 => finding,
        count => format!(
            "{finding}; {} on record {} ahead of the clock, which must have been set back since: no report has them before \
             their time has come, `xdpban incidents` does",
            counted(count, "incident"),
            if count == 1 { "bears a time" } else { "bear times" }
        ),
    };
    Ok(Record {
        path: archive.path().display().to_string(),
        verified: verified.faults.is_empty(),
        verified_after: verified.after.map(|after| after.to_string()),
        finding,
        head: verified.head.to_string(),
        oldest: archive.oldest()?.map(|(_, at)| at),
        events,
    })
}

/// How many incidents on record began later than it can be by now. Some may have begun since the report was asked for.
fn ahead(archive: &Archive, now: Wall) -> Result<u64, StoreError> {
    const MEANWHILE: Duration = Duration::from_secs(60);
    let query = IncidentQuery {
        since: Some(now.after(MEANWHILE)),
        without_evidence: true,
        ..IncidentQuery::default()
    };
    let mut count = 0;
    let counting = archive.each_incident(&query, |_| {
        count += 1;
        Ok::<_, Infallible>(())
    });
    counting.map_err(unread)?;
    Ok(count)
}

/// What was checked, no more and no less, and found as it was written.
fn sound(verified: &Verified) -> String {
    let (records, incidents) = (counted(verified.records, "record"), counted(verified.incidents, "incident"));
    match verified.after {
        None => format!(
            "verified: {records}, all that are kept, are what was written, and {incidents} what they say"
        ),
        Some(_) if verified.records == 0 => "not verified: no record is about the period or later".to_owned(),
        Some(after) => format!(
            "verified in part: {records}, from {} on to the latest, are what was written after record {}, and {incidents} that \
             began since what they say; records that are older than the period were not verified for this report, which \
             `xdpban verify-record` does",
            count(after.seq.saturating_add(1).unsigned_abs()),
            count(after.seq.unsigned_abs()),
        ),
    }
}

fn unread(interrupted: Interrupted<Infallible>) -> StoreError {
    match interrupted {
        Interrupted::Store(error) => error,
        Interrupted::Taker(never) => match never {},
    }
}
