//! The page on detection keeps its word: every message in it becomes what stands beside it, and nothing is missing.

use std::collections::BTreeSet;

use super::*;
use crate::decode::wordings;
use crate::record::Format;

const PAGE: &str = include_str!("../../../../../docs/detection.md");

/// The rows of the tables of messages, in which a message stands in backticks: the message and the other columns.
fn rows() -> Vec<(&'static str, Vec<&'static str>)> {
    PAGE.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(message, rest)| (message, rest.trim_end_matches('|').split('|').map(str::trim).collect()))
        .collect()
}

/// The row of a message: what it becomes as the second line of a connection, of which the first names the source.
fn row(message: &str) -> String {
    let mut lab = without_responses();
    let mut handle = |message: &str| {
        let line = format!("Jan  1 00:00:00 gw sshd[7]: {message}").into_bytes();
        let record = Record::parse(&line, Format::Syslog, &lab.now);
        let outcome = lab.engine.handle(&record, &line, lab.now);
        let event = outcome.event.as_ref();
        let attack = event.is_some_and(|event| event.attack);
        [
            event.map_or("-", |event| event.kind.name()).to_owned(),
            if attack { "yes" } else { "no" }.to_owned(),
            outcome.attempts.to_string(),
            outcome.rule.map_or("-".to_owned(), |rule| rule.id.0.to_string()),
        ]
    };
    handle("Connection from 203.0.113.7 port 2200 on 192.0.2.1 port 22");
    format!("| `{message}` | {} |", handle(message).join(" | "))
}

#[test]
fn every_message_becomes_what_the_page_says() {
    let wrong: Vec<String> = rows()
        .iter()
        .map(|(message, columns)| (format!("| `{message}` | {} |", columns.join(" | ")), row(message)))
        .filter_map(|(told, found)| (told != found).then_some(found))
        .collect();
    assert!(wrong.is_empty(), "these rows should be:\n{}", wrong.join("\n"));
}

#[test]
fn every_kind_and_every_rule_is_on_the_page() {
    let rows = rows();
    let column = |n: usize| rows.iter().map(move |(_, columns)| columns[n]).collect::<BTreeSet<_>>();
    let kinds = EventKind::ALL.iter().filter(|&&kind| kind != EventKind::Custom).map(|kind| kind.name());
    let missing: Vec<&str> = kinds.filter(|kind| !column(0).contains(kind)).collect();
    assert!(missing.is_empty(), "no message shows these kinds: {missing:?}");
    for rule in shipped::rules() {
        let id = rule.id.0.to_string();
        match rule.when {
            Condition::Event(_) => assert!(column(3).contains(id.as_str()), "no message fires rule {id}"),
            Condition::Count(correlation) => {
                let seconds = correlation.window.as_secs();
                let row = format!("| {id} | {} | {} in {seconds} s |", rule.level, correlation.count);
                assert!(PAGE.contains(&row), "the page lacks {row}");
            }
        }
    }
}

#[test]
fn the_list_of_forms_is_that_of_the_decoder() {
    let (_, list) = PAGE.split_once("```forms\n").unwrap();
    let (list, _) = list.split_once("```").unwrap();
    let expected: String = wordings().map(|(kind, text)| format!("{:<32}{text}\n", kind.name())).collect();
    assert!(list == expected, "the list should be:\n{expected}");
}

#[test]
fn correlated_rules_fire_on_the_lines_of_a_log() {
    let rules = shipped::rules();
    let message_of = |id: RuleId| {
        let wanted = id.0.to_string();
        let row = rows().into_iter().find(|(_, columns)| columns[3] == wanted);
        row.unwrap_or_else(|| panic!("no message fires rule {wanted}")).0
    };
    for rule in &rules {
        let Condition::Count(correlation) = &rule.when else { continue };
        let message = message_of(correlation.base[0]);
        let window = correlation.window.as_secs();
        // All but the last are written at midnight, the last at the window's edge or a second beyond.
        for (last, expected) in [(window, true), (window + 1, false)] {
            let mut lab = without_responses();
            lab.pass(HOUR);
            let mut matches = Vec::new();
            for n in 1..=correlation.count {
                let second = if n == correlation.count { last } else { 0 };
                // The source differs only where the rule asks for it.
                let source =
                    if correlation.distinct.is_some() { format!("203.0.113.{n}") } else { A.to_owned() };
                for message in ["Connection from 203.0.113.7 port 2200 on 192.0.2.1 port 22", message] {
                    let (minute, second) = (second / 60, second % 60);
                    let message = message.replace(A, &source);
                    let line = format!("Jan  1 00:{minute:02}:{second:02} gw sshd[{n}]: {message}");
                    let record = Record::parse(line.as_bytes(), Format::Syslog, &lab.now);
                    lab.engine.handle(&record, line.as_bytes(), lab.now);
                }
                matches.extend(lab.engine.matches().find(|(of, _)| of.id == rule.id).map(|(_, n)| n));
            }
            let mut told = vec![0; matches.len()];
            *told.last_mut().unwrap() = u64::from(expected);
            assert_eq!(matches, told, "rule {}: {message}", rule.id.0);
        }
    }
}
