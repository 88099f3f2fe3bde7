//! Memory has an end, whatever the log says. The test stands alone in its process, so that nobody else's memory counts.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "it is a test, and what it measured is of interest"
)]

use std::fmt::Write;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use xdpban_engine::decode::Decoders;
use xdpban_engine::event::EventKind;
use xdpban_engine::policy::{Limits, Policy, Response};
use xdpban_engine::record::Record;
use xdpban_engine::rules::{Condition, Correlation, Distinct, EventMatch, Rule, RuleId, RuleSet, Same};
use xdpban_engine::time::{Mono, Now, Wall};
use xdpban_engine::{Applied, Engine, change::Change};

/// Different sources. Without optimisation ten million would take a quarter of an hour, and only the bound is tested.
const SOURCES: u32 = if cfg!(debug_assertions) { 150_000 } else { 10_000_000 };

/// How many sources it takes until every table is full and the allocator has its reserves.
const FULL: u32 = if cfg!(debug_assertions) { 140_000 } else { 1_000_000 };

const LIMITS: Limits = Limits { blocks: 16_384, prefixes: 1024, sources: 65_536 };

/// What the tables may take in all, and by how much that may change once they are full, in bytes.
const MOST: usize = 128 << 20;
const DRIFT: usize = 4 << 20;

fn rule(id: u32, when: Condition) -> Rule {
    Rule { id: RuleId(id), level: 10, groups: Vec::new(), description: "a test".to_owned(), when }
}

fn single(id: u32, kind: EventKind) -> Rule {
    rule(id, Condition::Event(EventMatch { kinds: vec![kind], ..EventMatch::default() }))
}

fn count(id: u32, same: Same, distinct: Option<Distinct>) -> Rule {
    let base = vec![RuleId(1), RuleId(2)];
    let window = Duration::from_secs(86_400);
    rule(id, Condition::Count(Correlation { base, count: 8, window, same, distinct }))
}

/// Rules of every kind. Those that are counted are answered, so that blocks fill their table, too.
fn policy() -> Policy {
    let rules = vec![
        single(1, EventKind::FailedPassword),
        single(2, EventKind::InvalidUser),
        count(3, Same::Source, None),
        count(4, Same::User, Some(Distinct::Source)),
        count(5, Same::Network, Some(Distinct::Source)),
        count(6, Same::Source, Some(Distinct::User)),
    ];
    let answered = Response {
        rules: [2, 4, 5].map(RuleId).to_vec(),
        timeout: Some(Duration::from_secs(3600)),
        ..Response::default()
    };
    Policy {
        decoders: Decoders::default(),
        rules: RuleSet::new(rules).unwrap(),
        responses: vec![answered],
        commands: Vec::new(),
        allow: Vec::new(),
        protect_logins: true,
        ipv6_prefix: 64,
        forget_after: xdpban_engine::policy::FORGET_AFTER,
        limits: LIMITS,
    }
}

/// What this process has in memory, in bytes (proc_pid_statm(5)).
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    // The smallest page of the machines that Linux runs on; with larger ones the test is only stricter in its drift.
    pages * 4096
}

/// A message of the `n`th source: of both families, about users of all lengths, known and unknown.
fn message(n: u32, text: &mut String) {
    text.clear();
    let user = n % 20_000;
    let source = match n % 4 {
        0 => Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(n) << 64).into(),
        _ => std::net::IpAddr::from(Ipv4Addr::from_bits(0x0b00_0000 + n)),
    };
    let length = usize::try_from(n % 900).unwrap();
    let wording = if n.is_multiple_of(2) { "Failed password for" } else { "Invalid user" };
    write!(text, "{wording} {user:x>length$} from {source} port {}", n % 60_000 + 1).unwrap();
}

#[test]
fn ten_million_sources_take_no_more_memory_than_the_first_million() {
    let mut engine = Engine::new(policy());
    let mut now =
        Now { mono: Mono(0).after(Duration::from_secs(86_400)), wall: Wall(1 << 50), utc_offset: 0 };
    let mut text = String::new();
    let before = resident();
    let mut full = 0;
    let started = Instant::now();
    for n in 0..SOURCES {
        message(n, &mut text);
        let record =
            Record { time: None, host: b"gw", program: b"sshd", pid: Some(n), message: text.as_bytes() };
        let outcome = engine.handle(&record, text.as_bytes(), now);
        assert!(outcome.source.is_some(), "{text}");
        while let Some(change) = engine.next_change() {
            if let Change::Block(block) | Change::Resume(block) = change {
                engine.applied(&block, Applied::Done, now);
            }
        }
        now.mono = now.mono.after(Duration::from_millis(1));
        now.wall = now.wall.after(Duration::from_millis(1));
        if n == FULL {
            full = resident();
        }
    }
    let after = resident();
    let counts = engine.counts();
    println!(
        "{SOURCES} sources in {:.1} s; memory grew by {} KiB at first, by {} KiB from there on",
        started.elapsed().as_secs_f64(),
        full.saturating_sub(before) >> 10,
        after.saturating_sub(full) >> 10
    );
    assert_eq!(counts.tracked, 65_536);
    assert_eq!(counts.attempts, u64::from(SOURCES));
    assert!(after - before < MOST, "{} bytes in all", after - before);
    assert!(after.saturating_sub(full) < DRIFT, "{} bytes more", after.saturating_sub(full));
    assert!(engine.blocks().count() <= 3 * 16_384);
}
