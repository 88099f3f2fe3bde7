//! The report for people: each block on a line, then the sums.

use std::collections::HashSet;
use std::time::Duration;

use anstyle::Style;

use super::report::{Blocked, Report};
use crate::cli::table::{BAD, DIM, GOOD, STRONG, Table, WARN, styled};
use crate::control::wire::Rule;
use crate::human::{count, counted, duration, printable};

/// Names that are shown.
const NAMES: usize = 10;

pub(super) fn render(report: &Report) -> String {
    [blocks(report), refused(report), logins(report), sums(report)].concat()
}

fn blocks(report: &Report) -> String {
    let mut table = Table::default();
    for block in &report.blocks {
        table.row([
            (DIM, block.at.clone()),
            (STRONG, block.target.clone()),
            (Style::new(), why(block.rule.as_ref())),
            (DIM, how_long(block)),
            (BAD, format!("{} stopped", counted(block.stopped_attempts, "attempt"))),
        ]);
    }
    let mut text = table.render();
    left_out(&mut text, report.blocks_total, report.blocks.len(), "block");
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn how_long(block: &Blocked) -> String {
    let timeout = match block.timeout_s {
        Some(seconds) => format!("for {}", duration(Duration::from_secs(seconds))),
        None => "until unblocked".to_owned(),
    };
    if block.offence > 1 { format!("{timeout} (offence {})", block.offence) } else { timeout }
}

fn refused(report: &Report) -> String {
    if report.refused.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    for refused in &report.refused {
        let rule = why(refused.rule.as_ref());
        table.row([(DIM, refused.at.clone()), (Style::new(), refused.because.clone()), (DIM, rule)]);
    }
    let mut text = format!("Left alone although a rule matched:\n{}", table.render());
    left_out(&mut text, report.refused_total, report.refused.len(), "refusal");
    text.push('\n');
    text
}

fn logins(report: &Report) -> String {
    if report.logins_hit.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    for login in &report.logins_hit {
        let user = format!("{} by {}", login.user, login.method);
        let behind = format!("while {} would have been blocked: {}", login.target, why(login.rule.as_ref()));
        table.row([
            (DIM, login.at.clone()),
            (WARN, user),
            (STRONG, format!("from {}", login.source)),
            (Style::new(), behind),
        ]);
    }
    let title = styled(WARN, "Legitimate logins that would have been hit:");
    let mut text = format!("{title}\n{}", table.render());
    left_out(&mut text, report.logins_hit_total, report.logins_hit.len(), "login");
    text.push('\n');
    text
}

fn left_out(text: &mut String, total: u64, shown: usize, what: &str) {
    let left_out = total.saturating_sub(shown as u64);
    if left_out > 0 {
        text.push_str(&format!("... and {}, which are not kept one by one\n", counted(left_out, what)));
    }
}

fn sums(report: &Report) -> String {
    let mut table = Table::default();
    let mut row = |name: &str, figure: u64, rest: String| {
        table.row([(DIM, name.to_owned()), (STRONG, count(figure)), (Style::new(), rest)]);
    };
    let span = match (&report.first, &report.last) {
        (Some(first), Some(last)) => format!(", from {first} to {last}"),
        _ => String::new(),
    };
    let files = counted(report.files.len() as u64, "file");
    row("lines", report.lines, format!("in {files}{span}, at {} a second", count(report.lines_per_s)));
    row("attacks", report.attacks, format!("with {}", counted(report.attempts, "attempt")));
    let targets: HashSet<&str> = report.blocks.iter().map(|block| block.target.as_str()).collect();
    row("blocks", report.blocks_total, format!("of {}", counted(targets.len() as u64, "target")));
    row("stopped", report.stopped_attempts, format!("attempts{}", percentage(report)));
    if report.refused_total > 0 {
        row("left alone", report.refused_total, "matches whose source is protected".to_owned());
    }
    if report.unexplained > 0 {
        row("unexplained", report.unexplained, "lines look like failures and match no known form".to_owned());
    }
    if report.cut > 0 {
        row("cut", report.cut, "lines were longer than 64 KiB".to_owned());
    }
    let mut text = table.render();
    if !report.users.is_empty() {
        let users = report.users.iter().take(NAMES);
        let users: Vec<String> =
            users.map(|user| format!("{} {}", printable(&user.user), count(user.attempts))).collect();
        text.push_str(&format!("{}  {}\n", styled(DIM, "tried most"), users.join(", ")));
    }
    if report.logins_hit_total == 0 {
        text.push_str(&styled(GOOD, "no legitimate login would have been hit"));
    } else {
        let hit = counted(report.logins_hit_total, "legitimate login");
        text.push_str(&styled(WARN, &format!("{hit} would have been hit; see above")));
    }
    text.push('\n');
    text
}

fn percentage(report: &Report) -> String {
    match (report.stopped_attempts * 100).checked_div(report.attempts) {
        Some(percent) => format!(", {percent} % of all"),
        None => String::new(),
    }
}

/// The rule and what it found.
fn why(rule: Option<&Rule>) -> String {
    rule.map_or_else(String::new, |rule| format!("{} {}", rule.id, rule.description))
}
