//! Tests of reports on real records.

use std::time::Duration;

use tempfile::TempDir;
use xdpban_engine::change::{Block, End, Expiry, Origin, Protection, Protector, Refusal, Refused};
use xdpban_engine::measure::Measure;
use xdpban_engine::rules::{RuleId, RuleRef};
use xdpban_engine::time::{Mono, Wall};

use super::*;
use crate::store::{Act, Archive, Exit, Interrupted, Outcome, Ran, Step, Store, Targets, Write};

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400;

/// What an attacker would have run, shown or calculated.
const HOSTILE: &str =
    "=cmd|'/c calc'!A1</td><script>alert(\"1\")</script>|[x](http://e.example)`\u{1b}[2J\r\n\u{202e}";

/// When October 2026 begins, by UTC, and when reports are made: on 24 November.
fn october() -> Wall {
    Wall("2026-10-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn present() -> jiff::Zoned {
    "2026-11-24T12:00:00[UTC]".parse().unwrap()
}

/// So many seconds after October began.
fn at(second: i64) -> Wall {
    Wall(october().0 + second * SECOND)
}

fn block(target: &str, begin: i64) -> Block {
    Block {
        target: target.parse().unwrap(),
        created: at(begin),
        expires: Some(Expiry { mono: Mono(0), wall: at(begin + 100) }),
        measure: Measure::default(),
        rule: Some(RuleRef {
            id: RuleId(5710),
            level: 5,
            description: "login as a user that does not exist".into(),
        }),
        reason: "login as a user that does not exist".into(),
        origin: Origin::Rule,
        offences: 1,
        attempts: 2,
        users: vec!["admin".into()],
        evidence: vec!["Invalid user admin from 203.0.113.7 port 4711".into()],
    }
}

fn blocked(block: &Block, took: Duration) -> Write {
    Write::Blocked {
        block: block.clone().into(),
        at: block.created,
        took: Some(took),
        uid: None,
        from: (0, 0),
        dry_run: false,
    }
}

fn ended(block: &Block, end: End, packets: u64) -> Write {
    let at = block.expires.unwrap().wall;
    Write::Ended {
        block: block.clone().into(),
        end,
        at,
        packets,
        bytes: packets * 60,
        reason: None,
        uid: None,
    }
}

fn refused(block: &Block) -> Write {
    let Block { target, .. } = *block;
    let because = Refusal::Protected(Protection { target, protected: target, by: Protector::Session });
    Write::Refused { refused: Refused { block: block.clone(), because }.into(), at: block.created }
}

fn act(second: i64, uid: Option<u32>, act: Act) -> Write {
    Write::Act { at: at(second), uid, act }
}

fn started(second: i64) -> Write {
    let (interfaces, sources) = (vec!["eth0".to_owned()], vec!["/var/log/auth.log".to_owned()]);
    act(second, None, Act::Started { version: "0", pid: 1, interfaces, sources, dry_run: false })
}

/// The record of `writes`.
fn record(writes: &[Write]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    store.write(writes).unwrap();
    directory
}

/// A report on `from` to `to` that lists so many.
fn reported(record: &TempDir, from: &str, to: &str, listed: usize) -> Report {
    let now = present();
    let period = Period::new(Some(from), Some(to), &now).unwrap();
    let now = Wall(now.timestamp().as_microsecond());
    let (host, by) = ("guarded".to_owned(), "alice (uid 1000)".to_owned());
    gather(record.path(), &Asked { period, listed, host, by, now, name_of: &|uid| format!("uid {uid}") })
        .unwrap()
}

/// An eventful month.
fn eventful() -> TempDir {
    let first = block("203.0.113.7", 3600);
    let again = Block { offences: 2, ..block("203.0.113.7", DAY) };
    let v6 = Block {
        users: vec!["root".into(), "admin".into()],
        rule: Some(RuleRef { id: RuleId(5763), level: 10, description: "too many wrong passwords".into() }),
        attempts: 8,
        ..block("2001:db8:1:2::/64", 2 * DAY)
    };
    let by_hand = Block {
        rule: None,
        reason: "scans".into(),
        origin: Origin::Operator,
        expires: None,
        users: Vec::new(),
        attempts: 0,
        ..block("198.51.100.0/24", 3 * DAY)
    };
    let hostile =
        Block { users: vec![HOSTILE.into()], evidence: vec![HOSTILE.into()], ..block("192.0.2.1", 4 * DAY) };
    let targets = || Targets::of(["198.51.100.0/24"].into_iter());
    record(&[
        started(0),
        blocked(&first, Duration::from_micros(40)),
        ended(&first, End::Expired, 10),
        blocked(&again, Duration::from_micros(60)),
        ended(&again, End::Lifted, 20),
        act(2 * DAY, None, Act::Stopped { version: "0" }),
        started(2 * DAY + 3600),
        blocked(&v6, Duration::from_millis(3)),
        Write::Blocked {
            block: by_hand.clone().into(),
            at: by_hand.created,
            took: None,
            uid: Some(0),
            from: (0, 0),
            dry_run: false,
        },
        act(
            3 * DAY,
            Some(0),
            Act::Block {
                targets: targets(),
                timeout_s: None,
                measure: None,
                dry_run: false,
                reason: Some(HOSTILE.to_owned()),
                done: 1,
                refused: 0,
            },
        ),
        refused(&hostile),
        act(
            5 * DAY,
            None,
            Act::Config {
                start: false,
                file: Some("/etc/xdpban/config.toml".to_owned()),
                digest: "00".repeat(32),
                changes: vec!["timeout of rule 5710: 100s, was 1h".to_owned()],
                settings: Vec::new(),
            },
        ),
        Write::Alive { at: at(60 * DAY) },
    ])
}

#[test]
fn known_incidents_come_to_known_figures() {
    let record = eventful();
    let report = reported(&record, "2026-10", "2026-10", 100);
    let totals = &report.totals;
    assert_eq!((totals.incidents, totals.by_rule, totals.by_operator), (5, 4, 1));
    assert_eq!((totals.responded, totals.attempts), (4, 2 + 2 + 8 + 2));
    assert_eq!((totals.dropped_packets, totals.dropped_bytes, totals.with_drops), (30, 1800, 2));
    let outcomes = Outcome::ALL.map(|outcome| report.outcomes.of(outcome));
    assert_eq!(outcomes, [2, 1, 1, 1, 0, 0]);

    let by_day: Vec<u64> = report.timeline.steps.iter().map(|step| step.outcomes.total()).collect();
    assert_eq!(by_day.len(), 31);
    assert_eq!((&by_day[..6], by_day.iter().sum()), (&[1, 1, 1, 1, 1, 0][..], 5_u64));

    let times = &report.response_times;
    assert_eq!((times.count, times.median_ms, times.max_ms), (3, Some(0.06), Some(3.0)));

    let sources: Vec<_> =
        report.sources.top.iter().map(|s| (s.target.as_str(), s.incidents, s.dropped_packets)).collect();
    assert_eq!(sources[0], ("203.0.113.7", 2, 30));
    assert_eq!((report.sources.distinct, report.sources.exact), (4, true));
    let users: Vec<_> = report.users.top.iter().map(|user| (user.user.as_str(), user.incidents)).collect();
    assert_eq!(users[0], ("admin", 3));
    let rules: Vec<_> =
        report.rules.top.iter().map(|rule| (rule.id, rule.incidents, rule.attempts)).collect();
    assert_eq!(rules, [(5710, 3, 6), (5763, 1, 8)]);

    assert_eq!((report.unanswered.total, report.unanswered.listed[0].outcome), (1, Outcome::Refused));
    assert_eq!(report.responses.listed.len(), 5);
    assert_eq!(report.responses.listed[3].by.as_deref(), Some("uid 0"));
    assert_eq!(report.acts.listed[0].by, "uid 0");
    assert!(report.acts.listed[0].what.starts_with("blocked 198.51.100.0/24 until lifted: "));
    assert_eq!(
        report.changes.listed[0].what,
        "/etc/xdpban/config.toml was read while running: timeout of rule 5710: 100s, was 1h"
    );

    let gaps: Vec<_> = report.watch.gaps.listed.iter().map(|gap| (gap.from, gap.to)).collect();
    assert_eq!(gaps, [(at(2 * DAY), at(2 * DAY + 3600))]);
    assert_eq!(report.watch.watched_s, Some(31 * 86_400 - 3600));
    assert!(report.record.verified, "{}", report.record.finding);
    assert_eq!(report.record.head, Archive::open(record.path()).unwrap().head().unwrap().to_string());
}

/// A run of a command because of `why`, with this status.
fn ran(command: &str, why: &Block, status: i32) -> Write {
    ran_with(command, why, Exit::Status(status), false)
}

fn ran_with(command: &str, why: &Block, exit: Exit, stands: bool) -> Write {
    let (output, input) = ("".into(), "{}".into());
    let why = Block { expires: None, ..why.clone() };
    let (at, took) = (at(0), Duration::from_millis(5));
    Write::Ran(Box::new(Ran {
        command: command.into(),
        why: Some(why),
        step: Step::Add,
        exit,
        stands,
        output,
        input,
        at,
        took,
    }))
}

#[test]
fn what_was_found_once_is_one_incident_however_it_was_answered() {
    // All of one moment, as when their lines were read at once.
    let [blocked_one, spared, unheeded] =
        ["203.0.113.7", "203.0.113.8", "203.0.113.9"].map(|target| block(target, 3600));
    let of_host = Block { attempts: 2, ..block("198.51.100.1", 7200) };
    let network = Block { target: "198.51.100.0/24".parse().unwrap(), ..of_host.clone() };
    let record = record(&[
        blocked(&blocked_one, Duration::ZERO),
        refused(&spared),
        refused(&unheeded),
        ran("tell", &blocked_one, 0),
        ran("tell", &spared, 0),
        ran("tell", &unheeded, 1),
        ran("lock", &blocked_one, 1),
        ran("mail", &blocked_one, 0),
        blocked(&of_host, Duration::ZERO),
        blocked(&network, Duration::ZERO),
    ]);
    let report = reported(&record, "2026-10", "2026-10", 100);
    let totals = &report.totals;
    assert_eq!((totals.incidents, totals.attempts, totals.responses), (5, 4 * 2, 10));
    assert_eq!((totals.responded, totals.effective), (4, 6));
    let outcomes = Outcome::ALL.map(|outcome| report.outcomes.of(outcome));
    assert_eq!(outcomes, [3, 0, 0, 2, 2, 3]);
    let of_first_day = report.timeline.steps[0];
    assert_eq!((of_first_day.incidents, of_first_day.outcomes.total()), (5, 10));
    let sources: Vec<_> = report
        .sources
        .top
        .iter()
        .map(|source| (&*source.target, source.incidents, source.attempts))
        .collect();
    assert_eq!(sources[0], ("198.51.100.0/24", 1, 0), "its attempts are the host's");
    assert!(sources[1..].iter().all(|(_, incidents, attempts)| (*incidents, *attempts) == (1, 2)));
    let of_rule = &report.rules.top[0];
    assert_eq!((of_rule.incidents, of_rule.attempts, report.users.top[0].incidents), (5, 8, 5));
    let unanswered: Vec<_> =
        report.unanswered.listed.iter().map(|response| (&*response.target, response.outcome)).collect();
    assert_eq!((report.unanswered.total, unanswered), (1, vec![("203.0.113.9", Outcome::Refused)]));
    assert_eq!((report.responses.total, report.responses.listed.len()), (10, 10));
    let document = text(&report).replace('\n', " ");
    for told in [
        "5 security incidents from 5 sources, with 8 attempts.",
        "4 (80 %) were answered",
        "There were 10 responses: 3 are still in force",
    ] {
        assert!(document.contains(told), "{told}: {document}");
    }
}

#[test]
fn a_command_that_declined_is_no_response_and_one_that_was_cut_off_does_not_rest() {
    let [declined, cut_off] = ["203.0.113.7", "203.0.113.8"].map(|target| block(target, 3600));
    let record = record(&[
        ran_with("lock-account root", &declined, Exit::Declined, false),
        ran_with("tell", &cut_off, Exit::CutOff, true),
    ]);
    let report = reported(&record, "2026-10", "2026-10", 100);
    let totals = &report.totals;
    assert_eq!((totals.incidents, totals.responses), (2, 2));
    assert_eq!((totals.responded, totals.effective, totals.resting), (1, 1, 0));
    let unanswered: Vec<_> =
        report.unanswered.listed.iter().map(|response| (&*response.target, response.outcome)).collect();
    assert_eq!(unanswered, [("203.0.113.7", Outcome::Refused)]);
    assert_eq!(report.outcomes.in_force, 1);
}

#[test]
fn what_a_dry_run_would_have_dropped_is_not_among_what_was() {
    let (dry, real) = (block("203.0.113.7", 3600), block("203.0.113.8", 7200));
    let in_dry_run = Write::Blocked {
        block: dry.clone().into(),
        at: dry.created,
        took: Some(Duration::from_secs(1)),
        uid: None,
        from: (0, 0),
        dry_run: true,
    };
    let dry_alone = record(&[in_dry_run.clone(), ended(&dry, End::Expired, 4)]);
    let report = reported(&dry_alone, "2026-10", "2026-10", 100);
    let totals = &report.totals;
    assert_eq!((totals.incidents, totals.responded, totals.responses, totals.dropped_packets), (1, 0, 0, 0));
    assert_eq!((totals.dry_run, totals.dry_run_responses, totals.would_drop_packets), (1, 1, 4));
    assert_eq!((report.unanswered.total, report.response_times.count, report.outcomes.total()), (1, 0, 0));
    for document in [text(&report), markdown(&report), html(&report)] {
        for untrue in ["the kernel dropped 4", "took effect, and packets came", "while they were blocked"] {
            assert!(!document.contains(untrue), "{untrue}: {document}");
        }
        let document = document.replace('\n', " ");
        for told in ["No response took effect.", "4 packets (240 B) that would have been dropped passed."] {
            assert!(document.contains(told), "{told}: {document}");
        }
    }

    let both = record(&[
        in_dry_run,
        ended(&dry, End::Expired, 4),
        blocked(&real, Duration::ZERO),
        ended(&real, End::Expired, 10),
    ]);
    let report = reported(&both, "2026-10", "2026-10", 100);
    let totals = &report.totals;
    assert_eq!((totals.incidents, totals.responded, totals.dropped_packets), (2, 1, 10));
    assert_eq!((totals.would_drop_packets, report.outcomes.total(), report.responses.total), (4, 1, 2));
    let sources: Vec<_> = report.sources.top.iter().map(|source| source.dropped_packets).collect();
    assert_eq!(sources, [0, 10]);
    let listed: Vec<_> =
        report.responses.listed.iter().map(|r| (r.dropped_packets, r.would_drop_packets)).collect();
    assert_eq!(listed, [(0, 4), (10, 0)]);
    let period = Period::new(Some("2026-10"), Some("2026-10"), &present()).unwrap();
    let mut lines = String::new();
    each_incident(&Archive::open(both.path()).unwrap(), &period, false, |incident| {
        csv::line(&incident, &mut lines);
        Ok::<_, Interrupted<()>>(())
    })
    .unwrap();
    let ends: Vec<bool> =
        lines.lines().zip([",true,4,240", ",false,0,0"]).map(|(line, end)| line.ends_with(end)).collect();
    assert_eq!(ends, [true, true], "{lines}");
}

#[test]
fn what_was_taken_off_the_record_is_not_taken_for_watched() {
    let (first, last) = (block("203.0.113.7", 3600), block("203.0.113.8", 20 * DAY));
    let directory = record(&[
        started(0),
        blocked(&first, Duration::ZERO),
        ended(&first, End::Expired, 1),
        blocked(&last, Duration::ZERO),
        ended(&last, End::Expired, 1),
        Write::Alive { at: at(54 * DAY) },
    ]);
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let keep = crate::store::Keep { time: Some(days(10)), size: None };
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.prune(&keep, at(40 * DAY)).unwrap().records, 3);
    drop(store);
    let report = reported(&directory, "2026-10", "2026-10", 100);
    assert_eq!((report.totals.incidents, report.watch.watched_s), (1, Some(11 * 86_400)));
    for document in [text(&report), markdown(&report), html(&report)] {
        let document = document.replace('\n', " ");
        let told = "What was before 2026-10-21 00:00:00 is unknown: records were taken off.";
        assert_eq!(document.matches(told).count(), 2, "{document}");
        assert!(document.contains("The controller watched all of the rest of the period."), "{document}");
    }
    let report = reported(&directory, "2026-01", "2026-09", 100);
    let document = text(&report).replace('\n', " ");
    for untrue in ["watched all", "100 %"] {
        assert!(!document.contains(untrue), "{untrue}: {document}");
    }
    assert_eq!(document.matches("What was in the period is unknown: records were taken off.").count(), 2);
}

#[test]
fn a_period_has_its_first_moment_and_not_its_end() {
    let edges = [-1, 0, 31 * DAY - 1, 31 * DAY];
    let blocks: Vec<Block> =
        edges.iter().zip(1..).map(|(second, n)| block(&format!("203.0.113.{n}"), *second)).collect();
    let writes: Vec<Write> = blocks.iter().map(|block| blocked(block, Duration::ZERO)).collect();
    let record = record(&writes);
    let report = reported(&record, "2026-10", "2026-10", 100);
    let targets: Vec<&str> =
        report.responses.listed.iter().map(|incident| incident.target.as_str()).collect();
    assert_eq!(targets, ["203.0.113.2", "203.0.113.3"]);
    assert_eq!(report.timeline.steps[0].outcomes.total(), 1);
    assert_eq!(report.timeline.steps[30].outcomes.total(), 1);
}

#[test]
fn what_bears_a_time_ahead_of_the_clock_is_told_of() {
    let past = block("203.0.113.7", 3600);
    // The clock was set back before the report, which is made on day 54.
    let ahead = block("203.0.113.8", 56 * DAY);
    for (blocks, told) in [(vec![&past], None), (vec![&past, &ahead], Some("1 incident on record bears"))] {
        let writes: Vec<Write> = blocks.into_iter().map(|block| blocked(block, Duration::ZERO)).collect();
        let report = reported(&record(&writes), "2026-10", "2026-12", 100);
        assert_eq!(report.totals.incidents, 1);
        let finding = &report.record.finding;
        assert_eq!(told.is_some(), finding.contains("ahead of the clock"), "{finding}");
        assert!(finding.contains(told.unwrap_or_default()), "{finding}");
    }
}

#[test]
fn an_empty_period_is_said_to_be_empty() {
    let record = record(&[]);
    let report = reported(&record, "2026-10", "2026-10", 100);
    assert_eq!((report.totals.incidents, report.watch.watched_s), (0, None));
    for document in [text(&report), markdown(&report), html(&report)] {
        assert!(
            document.contains("In the period 1 to 31 October 2026 no security incident is on record."),
            "{document}"
        );
        assert!(!document.contains("NaN") && !document.contains("inf"), "{document}");
    }
    well_formed(&html(&report));
}

#[test]
fn what_is_not_listed_is_said() {
    let blocks: Vec<Block> = (1..=30).map(|n| block(&format!("203.0.113.{n}"), n)).collect();
    let writes: Vec<Write> = blocks.iter().map(refused).collect();
    let record = record(&writes);
    let report = reported(&record, "2026-10", "2026-10", 10);
    for (total, listed) in [
        (report.responses.total, &report.responses.listed),
        (report.unanswered.total, &report.unanswered.listed),
    ] {
        assert_eq!((total, listed.len()), (30, 10));
        assert_eq!((&*listed[0].target, &*listed[9].target), ("203.0.113.21", "203.0.113.30"));
    }
    for document in [text(&report), markdown(&report), html(&report)] {
        assert!(document.contains("Listed are the latest 10 of 30 responses"), "{document}");
        assert!(!document.contains("203.0.113.20"), "{document}");
    }
}

#[test]
fn every_format_for_people_has_every_section() {
    let record = eventful();
    let report = reported(&record, "2026-10", "2026-10", 100);
    for document in [text(&report), markdown(&report), html(&report)] {
        for section in requirements::Section::ALL {
            assert!(document.contains(section.title()), "{}", section.title());
        }
        for text in [
            "Security incidents on guarded",
            "1 to 31 October 2026",
            "alice",
            "203.0.113.7",
            "2001:db8:1:2::/64",
            "5763 too many wrong passwords",
            "2026-10-03 00:00:00",
            "does not certify",
            "45 CFR 164.308(a)(6)(ii)",
        ] {
            assert!(document.contains(text), "{text}: {document}");
        }
    }
}

#[test]
fn hostile_text_stays_text() {
    let record = eventful();
    let report = reported(&record, "2026-10", "2026-10", 100);
    let harmless = |document: &str| {
        assert!(document.contains("calc"), "it is there: {document}");
        let moves = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!document.contains(moves), "{document:?}");
    };
    let page = html(&report);
    harmless(&page);
    assert!(!page.contains("<script") && !page.contains("<td><script"));
    well_formed(&page);
    for outside in ["http-equiv=\"refresh", "src=", "@import", "url(", "href=\"http"] {
        assert!(!page.contains(outside), "{outside}");
    }

    harmless(&text(&report));

    let document = markdown(&report);
    harmless(&document);
    assert!(
        document.contains("\\|\\[x\\]\\(http\\://e\\.example)\\`") || document.contains("\\[x\\]\\(http\\:"),
        "{document}"
    );
    let cells = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
    let mut columns = 0;
    for line in document.lines() {
        columns = match (line.starts_with('|'), columns) {
            (false, _) => 0,
            (true, 0) => cells(line),
            (true, columns) => {
                assert_eq!(cells(line), columns, "{line}");
                columns
            }
        };
    }

    let json = serde_json::to_value(&report).unwrap();
    assert!(json["responses"]["listed"][4]["users"][0].as_str().unwrap().starts_with("=cmd|"));
}

#[test]
fn csv_has_every_incident_and_no_formula() {
    let record = eventful();
    let period = Period::new(Some("2026-10"), Some("2026-10"), &present()).unwrap();
    let mut document = csv::HEADER.to_owned();
    each_incident(&Archive::open(record.path()).unwrap(), &period, false, |incident| {
        csv::line(&incident, &mut document);
        Ok::<_, Interrupted<()>>(())
    })
    .unwrap();
    let rows: Vec<Vec<String>> = document.split_terminator("\r\n").map(fields).collect();
    assert_eq!(rows.len(), 1 + 5);
    for row in &rows {
        assert_eq!(row.len(), rows[0].len());
        for field in row {
            assert!(!field.starts_with(['=', '+', '-', '@', '\t', '\r']), "{field}");
        }
    }
    let column = |name: &str| rows[0].iter().position(|column| column == name).unwrap();
    assert_eq!(rows[1][column("target")], "203.0.113.7");
    assert_eq!(rows[1][column("line_to_block_ms")], "0.040");
    assert_eq!(rows[4][column("uid")], "0");
    assert!(rows[5][column("users")].starts_with("'=cmd|"));
    assert_eq!(rows[5][column("outcome")], "refused");
}

/// The fields of a line of CSV.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let field = fields.last_mut().unwrap();
        match c {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    assert!(!quoted, "{line}");
    fields
}

/// Checks that every element of `page` is closed in its place, every reference to an id has one, and no id is there twice.
fn well_formed(page: &str) {
    const VOID: [&str; 2] = ["meta", "br"];
    let mut open: Vec<&str> = Vec::new();
    let (mut ids, mut references) = (Vec::new(), Vec::new());
    let mut rest = &page["<!DOCTYPE html>".len()..];
    while let Some(begin) = rest.find('<') {
        let tag = &rest[begin + 1..];
        let end = tag.find('>').expect("a tag ends");
        let (tag, after) = (&tag[..end], &tag[end + 1..]);
        rest = after;
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{tag}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        for attribute in tag.split('"').collect::<Vec<_>>().chunks_exact(2) {
            match attribute[0].trim_start_matches(name).trim() {
                "id=" => ids.push(attribute[1]),
                "href=" => references.push(attribute[1].strip_prefix('#').expect("within the page")),
                "aria-labelledby=" => references.extend(attribute[1].split(' ')),
                _ => {}
            }
        }
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
        if name == "style" && !tag.starts_with('/') {
            rest = &rest[rest.find("</style>").unwrap()..];
        }
    }
    assert_eq!(open, [""; 0]);
    for reference in references {
        assert_eq!(ids.iter().filter(|id| **id == reference).count(), 1, "{reference}");
    }
    let mut once = ids.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), ids.len());
}
