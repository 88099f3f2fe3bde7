//! The sentences of a report, which are the same in every format.

use super::summary::{Listing, Report, Top};
use super::times::{ms, percent};
use crate::human::{bytes, count, counted};
use crate::store::Outcome;

/// The title of a report.
pub(super) fn title(report: &Report) -> String {
    format!("Security incidents on {}", report.about.host)
}

/// What happened and what came of it, in two paragraphs of a few sentences.
pub(super) fn summary(report: &Report) -> [String; 2] {
    let period = report.about.time_zone.period(report.about.from, report.about.to);
    let paragraph =
        |sentences: [Option<String>; 4]| sentences.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if report.totals.incidents == 0 {
        let none = format!("In the period {period} no security incident is on record.");
        return [none, paragraph([watched(report), None, None, None])];
    }
    [
        paragraph([Some(identified(report, &period)), Some(responded(report)), dry_run(report), None]),
        paragraph([outcomes(report), mitigated(report), watched(report), None]),
    ]
}

fn identified(report: &Report, period: &str) -> String {
    let totals = &report.totals;
    let attempts = match totals.attempts {
        0 => String::new(),
        attempts => format!(", with {}", counted(attempts, "attempt")),
    };
    let by_hand = match totals.by_operator {
        0 => String::new(),
        by_hand => format!("; {} of them because an operator asked for a block", count(by_hand)),
    };
    let from = distinct(&report.sources, "source");
    let incidents = counted(totals.incidents, "security incident");
    format!("In the period {period} xdpban recorded {incidents} from {from}{attempts}{by_hand}.")
}

fn responded(report: &Report) -> String {
    let totals = &report.totals;
    let times = &report.response_times;
    let did = match totals.responded {
        0 => return "No response took effect.".to_owned(),
        all if all == totals.incidents => "Each was answered".to_owned(),
        some => {
            let were = if some == 1 { "was" } else { "were" };
            format!("{} ({}) {were} answered", count(some), percent(some, totals.incidents))
        }
    };
    let took = match (times.median_ms, times.p99_ms) {
        (Some(median), Some(p99)) => format!(
            ", half of those that a log line led to within {} of its arrival, 99 of 100 within {}",
            ms(median),
            ms(p99)
        ),
        _ => String::new(),
    };
    format!("{did}{took}.")
}

/// What a dry run would have done.
pub(super) fn dry_run(report: &Report) -> Option<String> {
    let totals = &report.totals;
    if totals.dry_run_responses == 0 {
        return None;
    }
    let were = if totals.dry_run_responses == 1 { "was" } else { "were" };
    Some(format!(
        "In a dry run nothing is enforced: {} {were} not carried out, {} had no other response, and {} ({}) that would have \
         been dropped passed.",
        counted(totals.dry_run_responses, "response"),
        counted(totals.dry_run, "incident"),
        counted(totals.would_drop_packets, "packet"),
        bytes(totals.would_drop_bytes),
    ))
}

fn outcomes(report: &Report) -> Option<String> {
    if report.totals.responses == 0 {
        return None;
    }
    let parts: Vec<String> = Outcome::ALL
        .into_iter()
        .map(|outcome| (outcome, report.outcomes.of(outcome)))
        .filter(|(_, number)| *number > 0)
        .map(|(outcome, number)| format!("{} {}", count(number), outcome_in_words(report, outcome, number)))
        .collect();
    let responses = report.totals.responses;
    let were = if responses == 1 { "was" } else { "were" };
    Some(format!("There {were} {}: {}.", counted(responses, "response"), list(&parts)))
}

fn mitigated(report: &Report) -> Option<String> {
    let totals = &report.totals;
    if totals.responded == 0 {
        return None;
    }
    Some(match totals.dropped_packets {
        0 => "No packet of the sources came while they were blocked.".to_owned(),
        packets => format!(
            "In the course of {} the kernel dropped {} ({}) of the sources, before anything else on the host saw them.",
            counted(totals.with_drops, "incident"),
            counted(packets, "packet"),
            bytes(totals.dropped_bytes),
        ),
    })
}

/// What is not known of the period, as a sentence.
pub(super) fn unknown(report: &Report) -> Option<String> {
    let unknown = report.watch.unknown.as_ref()?;
    Some(match unknown.to < report.about.to {
        true => format!(
            "What was before {} is unknown: {}.",
            report.about.time_zone.moment(unknown.to),
            unknown.why
        ),
        false => format!("What was in the period is unknown: {}.", unknown.why),
    })
}

fn watched(report: &Report) -> Option<String> {
    let about = &report.about;
    let period_s = report.watch.known_s(about.from, about.to);
    let unknown = unknown(report);
    let of = if unknown.is_some() { "the rest of the period" } else { "the period" };
    let Some(watched_s) = report.watch.watched_s else { return unknown };
    let watched = match report.watch.gaps.total {
        0 => format!("The controller watched all of {of}."),
        gaps => format!(
            "The controller watched {} of {of}; there {} {}.",
            percent(watched_s, period_s),
            if gaps == 1 { "is" } else { "are" },
            counted(gaps, "gap"),
        ),
    };
    let off_host = match report.watch.off_host.total {
        0 => None,
        times => Some(format!(
            "The gate was off the host {}, and nothing was blocked meanwhile.",
            counted(times, "time")
        )),
    };
    Some(unknown.into_iter().chain([watched]).chain(off_host).collect::<Vec<_>>().join(" "))
}

/// What an outcome means, after a number.
pub(super) fn outcome_in_words(report: &Report, outcome: Outcome, number: u64) -> String {
    let (is, was) = if number == 1 { ("is", "was") } else { ("are", "were") };
    match outcome {
        Outcome::InForce if report.totals.resting > 0 => {
            format!("{is} still in force, {} of them at rest", count(report.totals.resting))
        }
        Outcome::InForce => format!("{is} still in force"),
        Outcome::Expired => "ended when the time was over".to_owned(),
        Outcome::Lifted => format!("{was} lifted before"),
        Outcome::Refused => {
            format!("{was} refused, by a protection, for want of room, or as an account was left alone")
        }
        Outcome::Failed => "failed".to_owned(),
        Outcome::Done => "ran a command, with nothing to be undone".to_owned(),
    }
}

/// The name of an outcome.
pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::InForce => "in force",
        Outcome::Expired => "expired",
        Outcome::Lifted => "lifted",
        Outcome::Refused => "refused",
        Outcome::Failed => "failed",
        Outcome::Done => "done",
    }
}

/// How many different things there were.
pub(super) fn distinct<T>(top: &Top<T>, noun: &str) -> String {
    let counted = counted(top.distinct, noun);
    if top.exact { counted } else { format!("more than {counted}") }
}

/// What to know of figures that are not exact.
pub(super) fn inexact<T>(top: &Top<T>) -> Option<String> {
    (!top.exact).then(|| {
        let shown = match top.short_by_at_most {
            0 => "The figures of those shown are exact".to_owned(),
            more => format!(
                "The incidents of each are at least as many as shown, and at most {} more",
                count(more)
            ),
        };
        format!("There were more different ones than are kept apart. {shown}.")
    })
}

/// What is not listed.
pub(super) fn left_out<T>(listing: &Listing<T>, noun: &str) -> Option<String> {
    let left_out = listing.left_out();
    (left_out > 0).then(|| {
        let rest = if matches!(noun, "incident" | "response") {
            "; `xdpban report --format csv` has every one"
        } else {
            ""
        };
        format!(
            "Listed are the latest {} of {}{rest}.",
            count(listing.listed.len() as u64),
            counted(listing.total, noun),
        )
    })
}

fn list(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
