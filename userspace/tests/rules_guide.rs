//! The guide to users' rules keeps its word: each sample of a log in it goes through the rules that stand above it, and
//! every line becomes what the page says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "it is a test")]

use std::path::Path;
use std::time::Duration;

use xdpban::config::{Config, RuleFile};
use xdpban_engine::record::{Format, Record};
use xdpban_engine::time::{Mono, Now, Wall};
use xdpban_engine::{Decision, Engine, Outcome};

const GUIDE: &str = include_str!("../../docs/rules.md");

/// A fenced block of the page: what stands after the fence, and its text.
struct Block {
    info: &'static str,
    text: String,
}

/// The sections of the page, each of which has its own rules.
fn sections() -> Vec<(&'static str, Vec<Block>)> {
    let mut sections: Vec<(&'static str, Vec<Block>)> = Vec::new();
    let mut block: Option<Block> = None;
    for line in GUIDE.lines() {
        match (line.strip_prefix("```"), block.take()) {
            (Some(info), None) => block = Some(Block { info, text: String::new() }),
            (Some(_), Some(whole)) => sections.last_mut().unwrap().1.push(whole),
            (None, Some(mut open)) => {
                open.text.extend([line, "\n"]);
                block = Some(open);
            }
            (None, None) => sections.extend(line.strip_prefix("## ").map(|heading| (heading, Vec::new()))),
        }
    }
    sections
}

/// The configuration of a section: its TOML names the file that it is of on its first line.
fn config(heading: &str, blocks: &[Block]) -> Config {
    let (mut config, mut rules) = (String::new(), Vec::new());
    for Block { text, .. } in blocks.iter().filter(|block| block.info == "toml") {
        let file = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap();
        match file {
            "/etc/xdpban/config.toml" => config.push_str(text),
            file => rules.push(RuleFile { path: file.into(), text: text.clone() }),
        }
    }
    Config::parse(&config, Path::new("/etc/xdpban/config.toml"), &rules)
        .unwrap_or_else(|faults| panic!("{heading}:\n{faults}"))
}

/// What the page would say of a line. A column has no blanks in it.
fn told(outcome: &Outcome<'_>) -> String {
    let event = outcome.event.as_ref();
    let user = event.and_then(|event| event.user.as_deref()).filter(|user| !user.is_empty());
    let column = |text: Option<String>| text.unwrap_or("-".to_owned()).replace(' ', "_");
    let columns = [
        column(event.map(|event| event.name().to_owned())),
        column(outcome.source.map(|source| source.to_string())),
        column(user.map(|user| String::from_utf8_lossy(user).into_owned())),
        column(outcome.rule.map(|rule| rule.id.0.to_string())),
    ];
    let blocked = matches!(outcome.decision, Some(Decision::Block { .. }));
    columns.join(" ") + if blocked { " blocked" } else { "" }
}

#[test]
fn every_sample_becomes_what_the_guide_says() {
    // 2026-11-23 08:54 UTC, shortly after the lines were written.
    let now = Now {
        mono: Mono(0).after(Duration::from_secs(86_400)),
        wall: Wall(1_795_424_040_000_000),
        utc_offset: 0,
    };
    let mut samples = 0;
    for (heading, blocks) in sections() {
        let examples = blocks.windows(2).filter(|pair| pair[0].info.starts_with("log"));
        if examples.clone().count() == 0 {
            continue;
        }
        let config = config(heading, &blocks);
        for pair in examples {
            let [log, outcome] = pair else { unreachable!() };
            assert_eq!(outcome.info, "outcome", "{heading}");
            let program = log.info.strip_prefix("log program=");
            let mut engine = Engine::new(config.policy.clone());
            let mut expected = outcome.text.lines();
            for line in log.text.lines() {
                let bytes = line.as_bytes();
                let record = match program {
                    Some(program) => Record::of_program(bytes, program.as_bytes(), &now),
                    None => Record::parse(bytes, Format::Syslog, &now),
                };
                let columns: Vec<&str> = expected.next().unwrap_or_default().split_whitespace().collect();
                let told = told(&engine.handle(&record, bytes, now));
                assert_eq!(told, columns.join(" "), "{heading}: {line}");
                samples += 1;
            }
            assert_eq!(expected.next(), None, "{heading}");
        }
    }
    assert!(samples > 30, "the page has lost its samples");
}
