//! A report as paragraphs and tables: what the formats for people have in common. What one of them shows as a chart is a
//! table here, so that none says less than another.

use super::requirements::{CAVEAT, Section};
use super::summary::{Event, Listing, Report, Response, Top};
use super::times::{Zone, ms, percent, seconds};
use super::words;
use crate::human::{bytes, count, counted};
use crate::store::Outcome;

/// A part of a section.
#[derive(Clone, Debug)]
pub(super) enum Block {
    /// A paragraph, of our own words alone.
    Paragraph(String),
    /// The few figures that stand for the rest.
    Figures(Vec<Figure>),
    /// The timeline, as a table.
    Timeline(Table),
    /// A table.
    Table(Table),
}

/// A figure to be seen from afar.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) value: String,
    pub(super) name: &'static str,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// What it shows, where the section's title does not say it.
    pub(super) caption: Option<String>,
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// Nothing.
    Empty,
    /// Our own words.
    Ours(String),
    /// A time.
    Time(String),
    /// A number, its unit with it: aligned on the right.
    Number(String),
    /// An address, a prefix, a hash: of letters and digits that mean nothing else.
    Code(String),
    /// Words from outside.
    Theirs(String),
    /// A name from outside, of which every letter counts.
    Name(String),
    /// What came of an incident.
    Outcome(Outcome),
    /// So many of so many, as a bar.
    Bar(u64, u64),
    /// Sections of the report.
    Sections(&'static [Section]),
    /// One below the other.
    Stack(Vec<Cell>),
}

/// The sections of `report`, in their order.
pub(super) fn sections(report: &Report) -> Vec<(Section, Vec<Block>)> {
    Section::ALL.into_iter().map(|section| (section, blocks(report, section))).collect()
}

fn blocks(report: &Report, section: Section) -> Vec<Block> {
    match section {
        Section::Summary => summary(report),
        Section::Timeline => timeline(report),
        Section::ResponseTimes => response_times(report),
        Section::Outcomes => outcomes(report),
        Section::Patterns => patterns(report),
        Section::Unanswered => unanswered(report),
        Section::Responses => responses(report),
        Section::Acts => {
            events(&report.about.time_zone, &report.acts, "No act of an operator is on record.", "act")
        }
        Section::Changes => {
            events(&report.about.time_zone, &report.changes, "No change is on record.", "change")
        }
        Section::Watch => watch(report),
        Section::Record => record(report),
        Section::Requirements => requirements(),
    }
}

fn paragraph(text: impl Into<String>) -> Block {
    Block::Paragraph(text.into())
}

fn summary(report: &Report) -> Vec<Block> {
    let totals = &report.totals;
    let times = &report.response_times;
    let mut figures = vec![
        Figure { value: count(totals.incidents), name: "incidents" },
        Figure { value: distinct(&report.sources), name: "sources" },
        Figure { value: count(totals.attempts), name: "attempts" },
        Figure { value: count(totals.dropped_packets), name: "packets dropped" },
    ];
    if let Some(median) = times.median_ms {
        figures.push(Figure { value: ms(median), name: "median response time" });
    }
    figures.push(Figure { value: count(report.unanswered.total), name: "without a response" });
    if totals.dry_run_responses > 0 {
        let value = count(totals.would_drop_packets);
        figures.push(Figure { value, name: "packets that would have been dropped" });
    }
    let mut blocks: Vec<Block> =
        words::summary(report).into_iter().filter(|text| !text.is_empty()).map(paragraph).collect();
    blocks.push(Block::Figures(figures));
    blocks
}

fn distinct<T>(top: &Top<T>) -> String {
    let more = if top.exact { "" } else { ">\u{a0}" };
    format!("{more}{}", count(top.distinct))
}

fn timeline(report: &Report) -> Vec<Block> {
    if report.totals.incidents == 0 {
        return vec![paragraph("There is nothing to show.")];
    }
    let steps = &report.timeline.steps;
    let most = steps.iter().map(|step| step.outcomes.total()).max().unwrap_or(0);
    let shown: Vec<Outcome> =
        Outcome::ALL.into_iter().filter(|outcome| report.outcomes.of(*outcome) > 0).collect();
    let in_dry_run = report.totals.dry_run_responses > 0;
    let row = |step: &super::summary::TimelineStep| {
        let total = step.outcomes.total();
        let name = report.about.time_zone.step(report.timeline.step, step.from);
        let mut row = vec![Cell::Time(name), Cell::Bar(total, most), number(step.incidents), number(total)];
        row.extend(shown.iter().map(|outcome| number(step.outcomes.of(*outcome))));
        row.extend(in_dry_run.then(|| number(step.dry_run)));
        row
    };
    let mut columns = vec!["from", "", "incidents", "responses"];
    columns.extend(shown.iter().map(|outcome| words::outcome(*outcome)));
    columns.extend(in_dry_run.then_some("in a dry run"));
    let caption =
        Some(format!("Incidents by {}, and the responses to them by outcome", report.timeline.step));
    vec![Block::Timeline(Table { caption, columns, rows: steps.iter().map(row).collect() })]
}

fn response_times(report: &Report) -> Vec<Block> {
    let times = &report.response_times;
    let (Some(median), Some(p90), Some(p99), Some(max)) =
        (times.median_ms, times.p90_ms, times.p99_ms, times.max_ms)
    else {
        return vec![paragraph("No response to a log line took effect in the period.")];
    };
    let what = format!(
        "From the arrival of a log line until the kernel dropped its source’s packets, in {}.",
        counted(times.count, "response")
    );
    let figures =
        [(median, "median"), (p90, "90 of 100 within"), (p99, "99 of 100 within"), (max, "longest")]
            .map(|(value, name)| Figure { value: ms(value), name });
    let most = times.bands.iter().map(|band| band.count).max().unwrap_or(0);
    let rows = times.bands.iter().map(|band| {
        let name = match band.to_ms {
            Some(to) if band.from_ms == 0.0 => format!("under {}", ms(to)),
            Some(to) => format!("{} to {}", ms(band.from_ms), ms(to)),
            None => format!("{} or more", ms(band.from_ms)),
        };
        let share = Cell::Number(percent(band.count, times.count));
        vec![Cell::Time(name), Cell::Bar(band.count, most), number(band.count), share]
    });
    let columns = vec!["response time", "", "responses", "share"];
    vec![
        paragraph(what),
        Block::Figures(figures.into()),
        Block::Table(Table { caption: None, columns, rows: rows.collect() }),
    ]
}

fn outcomes(report: &Report) -> Vec<Block> {
    let totals = &report.totals;
    // Commands are not everywhere.
    let shown =
        Outcome::ALL.into_iter().filter(|outcome| *outcome != Outcome::Done || report.outcomes.done > 0);
    let rows = shown.map(|outcome| {
        let part = report.outcomes.of(outcome);
        let meaning = Cell::Ours(words::outcome_in_words(report, outcome, part));
        let share = Cell::Number(percent(part, totals.responses));
        vec![Cell::Outcome(outcome), meaning, Cell::Bar(part, totals.responses), number(part), share]
    });
    let mut blocks = Vec::new();
    if totals.responses > 0 {
        let columns = vec!["outcome", "responses that", "", "responses", "share"];
        blocks.push(Block::Table(Table { caption: None, columns, rows: rows.collect() }));
    }
    let dropped = match totals.responded {
        0 => "The kernel dropped nothing: no response took effect.".to_owned(),
        responded => format!(
            "Because of these incidents the kernel dropped {}, {} in all, at the network driver: {} to {} took effect, and \
         packets came in the course of {} of these.",
            counted(totals.dropped_packets, "packet"),
            bytes(totals.dropped_bytes),
            counted(totals.effective, "response"),
            counted(responded, "incident"),
            count(totals.with_drops),
        ),
    };
    blocks.push(paragraph(dropped));
    blocks.extend(words::dry_run(report).map(paragraph));
    blocks
}

fn patterns(report: &Report) -> Vec<Block> {
    if report.totals.incidents == 0 {
        return vec![paragraph("There are none.")];
    }
    let zone = &report.about.time_zone;
    let most = |counts: &mut dyn Iterator<Item = u64>| counts.max().unwrap_or(0);

    let top = &report.sources;
    let max = most(&mut top.top.iter().map(|source| source.incidents));
    let rows = top.top.iter().map(|source| {
        vec![
            Cell::Code(source.target.clone()),
            Cell::Bar(source.incidents, max),
            number(source.incidents),
            number(source.attempts),
            number(source.dropped_packets),
            Cell::Time(zone.moment(source.last_seen)),
        ]
    });
    let columns = vec!["source", "", "incidents", "attempts", "packets dropped", "last seen"];
    let mut blocks = Vec::new();
    push_top(&mut blocks, top, "source", columns, rows.collect());

    let top = &report.users;
    let max = most(&mut top.top.iter().map(|user| user.incidents));
    let rows = top.top.iter().map(|user| {
        vec![Cell::Name(user.user.clone()), Cell::Bar(user.incidents, max), number(user.incidents)]
    });
    push_top(&mut blocks, top, "user name", vec!["user name tried", "", "incidents"], rows.collect());

    let top = &report.rules;
    let max = most(&mut top.top.iter().map(|rule| rule.incidents));
    let rows = top.top.iter().map(|rule| {
        vec![
            Cell::Code(rule.id.to_string()),
            Cell::Theirs(rule.description.clone()),
            Cell::Number(rule.level.to_string()),
            Cell::Bar(rule.incidents, max),
            number(rule.incidents),
            number(rule.attempts),
        ]
    });
    let columns = vec!["rule", "finds", "level", "", "incidents", "attempts"];
    push_top(&mut blocks, top, "rule", columns, rows.collect());
    blocks
}

/// Adds the table of the commonest of a kind, with what is to be said of it.
fn push_top<T>(
    blocks: &mut Vec<Block>,
    top: &Top<T>,
    noun: &str,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
) {
    if rows.is_empty() {
        return;
    }
    let all = words::distinct(top, noun);
    let shown = rows.len() as u64;
    let caption = if top.exact && shown == top.distinct {
        all
    } else {
        format!("The {} with the most incidents, of {all}", counted(shown, noun))
    };
    blocks.push(Block::Table(Table { caption: Some(caption), columns, rows }));
    blocks.extend(words::inexact(top).map(paragraph));
}

fn unanswered(report: &Report) -> Vec<Block> {
    let listing = &report.unanswered;
    if listing.total == 0 {
        let none = match report.totals.incidents {
            0 => "There are none.",
            _ => "There are none: a response to each took effect.",
        };
        return vec![paragraph(none)];
    }
    let rows = listing.listed.iter().map(|incident| {
        let why = match &incident.outcome_reason {
            _ if incident.dry_run => Cell::Ours("in a dry run nothing is enforced".to_owned()),
            Some(reason) => Cell::Theirs(reason.clone()),
            None => Cell::Empty,
        };
        vec![
            Cell::Number(incident.id.to_string()),
            Cell::Time(report.about.time_zone.moment(incident.first_seen)),
            Cell::Code(incident.target.clone()),
            found(incident),
            Cell::Outcome(incident.outcome),
            why,
        ]
    });
    let columns = vec!["no.", "began", "source", "found", "outcome", "why"];
    listed(listing, "incident", Table { caption: None, columns, rows: rows.collect() })
}

fn responses(report: &Report) -> Vec<Block> {
    let listing = &report.responses;
    if listing.total == 0 {
        return vec![paragraph("There are none.")];
    }
    let zone = &report.about.time_zone;
    let rows = listing.listed.iter().map(|response| {
        let mut outcome = vec![Cell::Outcome(response.outcome)];
        outcome.extend(response.outcome_at.map(|at| Cell::Time(zone.moment(at))));
        let by = response.outcome_by.as_ref().map(|by| format!("by {by}"));
        outcome.extend([by, response.outcome_reason.clone()].into_iter().flatten().map(Cell::Theirs));
        let long = response.timeout_s.map_or("until lifted".to_owned(), |s| format!("for {}", seconds(s)));
        let mut done = vec![Cell::Theirs(response.response.clone())];
        // A command that is not to be undone has no end.
        if response.action != "run" || response.timeout_s.is_some() {
            done.push(Cell::Time(long));
        }
        if response.dry_run {
            done.insert(0, Cell::Ours("not carried out (dry run):".to_owned()));
            let would = counted(response.would_drop_packets, "packet");
            outcome.push(Cell::Ours(format!("{would} would have been dropped")));
        }
        let after = response.line_to_block_ms.map(|took| format!("after {}", ms(took)));
        done.extend(after.map(Cell::Time));
        vec![
            Cell::Number(response.id.to_string()),
            Cell::Time(zone.moment(response.first_seen)),
            Cell::Code(response.target.clone()),
            found(response),
            number(response.attempts.into()),
            Cell::Stack(done),
            if response.action == "run" { Cell::Empty } else { number(response.dropped_packets) },
            Cell::Stack(outcome),
        ]
    });
    let columns =
        vec!["no.", "began", "source", "found", "attempts", "response", "packets dropped", "outcome"];
    listed(listing, "response", Table { caption: None, columns, rows: rows.collect() })
}

/// The rule, or who asked, and the user names that were tried.
fn found(incident: &Response) -> Cell {
    let by = incident.by.as_deref().unwrap_or(incident.origin);
    let what = Cell::Theirs(match incident.rule_id {
        Some(id) => format!("{id} {}", incident.reason),
        None if incident.reason.is_empty() => format!("by {by}"),
        None => format!("by {by}: {}", incident.reason),
    });
    if incident.users.is_empty() {
        return what;
    }
    Cell::Stack(vec![what, Cell::Name(incident.users.join(", "))])
}

fn events(zone: &Zone, listing: &Listing<Event>, none: &str, noun: &str) -> Vec<Block> {
    if listing.total == 0 {
        return vec![paragraph(none)];
    }
    let rows = listing.listed.iter().map(|event| {
        vec![
            Cell::Time(zone.moment(event.at)),
            Cell::Theirs(event.by.clone()),
            Cell::Theirs(event.what.clone()),
        ]
    });
    listed(listing, noun, Table { caption: None, columns: vec!["when", "by", "what"], rows: rows.collect() })
}

fn watch(report: &Report) -> Vec<Block> {
    let watch = &report.watch;
    let zone = &report.about.time_zone;
    let mut blocks: Vec<Block> = words::unknown(report).map(paragraph).into_iter().collect();
    let Some(watched_s) = watch.watched_s else {
        if blocks.is_empty() {
            blocks.push(paragraph("The record does not tell when the controller ran."));
        }
        return blocks;
    };
    let known_s = watch.known_s(report.about.from, report.about.to);
    let what = format!(
        "The controller watched during {} of {}{} ({}). What sshd logged meanwhile was read when the controller ran again, where \
         the log was kept; blocks that were in force stayed in force in the kernel, save from a boot until the controller ran \
         again{}.",
        seconds(watched_s),
        if watch.unknown.is_some() { "the other " } else { "" },
        seconds(known_s),
        percent(watched_s, known_s),
        if watch.off_host.total > 0 { " and while the gate was off the host" } else { "" },
    );
    blocks.push(paragraph(what));
    for (gaps, begin, noun) in
        [(&watch.gaps, "not watched from", "gap"), (&watch.off_host, "gate off the host from", "time")]
    {
        if gaps.total == 0 {
            continue;
        }
        let rows = gaps.listed.iter().map(|gap| {
            vec![
                Cell::Time(zone.moment(gap.from)),
                Cell::Time(zone.moment(gap.to)),
                Cell::Number(seconds(gap.to.since(gap.from).as_secs())),
                Cell::Ours(gap.why.clone()),
            ]
        });
        let columns = vec![begin, "to", "for", "why"];
        blocks.extend(listed(gaps, noun, Table { caption: None, columns, rows: rows.collect() }));
    }
    blocks
}

fn record(report: &Report) -> Vec<Block> {
    let record = &report.record;
    let mut rows = vec![
        vec![Cell::Ours("file".to_owned()), Cell::Theirs(record.path.clone())],
        vec![Cell::Ours("chain of hashes".to_owned()), Cell::Theirs(record.finding.clone())],
        vec![Cell::Ours("latest record".to_owned()), Cell::Code(record.head.clone())],
    ];
    if let Some(after) = &record.verified_after {
        rows.push(vec![Cell::Ours("verified after record".to_owned()), Cell::Code(after.clone())]);
    }
    if let Some(oldest) = record.oldest {
        let at = report.about.time_zone.moment(oldest);
        rows.push(vec![Cell::Ours("oldest record kept".to_owned()), Cell::Time(at)]);
    }
    let what = "Each record carries the hash of the one before it. A record that was altered, taken out or moved afterwards \
                breaks the chain; whoever keeps the number and the hash of the latest record elsewhere, such as with a copy \
                of this report, can later show by `xdpban verify-record` that all up to it is as it was.";
    let mut blocks =
        vec![paragraph(what), Block::Table(Table { caption: None, columns: vec!["", ""], rows })];
    if record.events.total > 0 {
        blocks.extend(events(&report.about.time_zone, &record.events, "", "event"));
    }
    blocks
}

fn requirements() -> Vec<Block> {
    let rows = super::requirements::REQUIREMENTS.iter().map(|requirement| {
        vec![
            Cell::Ours(requirement.citation.to_owned()),
            Cell::Ours(requirement.asks.to_owned()),
            Cell::Ours(requirement.answered_by.to_owned()),
            Cell::Sections(requirement.sections),
        ]
    });
    let columns = vec!["requirement", "asks, in short, to", "what this report has on it", "sections"];
    vec![Block::Table(Table { caption: None, columns, rows: rows.collect() }), paragraph(CAVEAT)]
}

/// A table of what is listed, and what is to be said of what is not.
fn listed<T>(listing: &Listing<T>, noun: &str, table: Table) -> Vec<Block> {
    let mut blocks: Vec<Block> = words::left_out(listing, noun).map(paragraph).into_iter().collect();
    blocks.push(Block::Table(table));
    blocks
}

fn number(number: u64) -> Cell {
    Cell::Number(count(number))
}

/// The numbers of sections.
pub(super) fn numbers(sections: &[Section]) -> String {
    sections.iter().map(|section| section.number().to_string()).collect::<Vec<_>>().join(", ")
}
