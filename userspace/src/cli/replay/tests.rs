use std::path::Path;

use super::*;
use crate::config::Config;

fn past(config: &str, log: &str) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.log");
    std::fs::write(&path, log).unwrap();
    let config = Config::parse(config, Path::new("config.toml"), &[]).unwrap();
    replay(config, &args::Replay { files: vec![path], bare: false }).unwrap()
}

/// A line of sshd, so many seconds after eight o'clock.
fn line(second: u32, pid: u32, message: &str) -> String {
    format!("2026-05-03T08:{:02}:{:02}Z gw1 sshd[{pid}]: {message}\n", second / 60, second % 60)
}

/// The lines of one try as a user that does not exist.
fn attempt(second: u32, pid: u32, user: &str, source: &str) -> String {
    [
        line(second, pid, &format!("Invalid user {user} from {source} port {pid}")),
        line(second, pid, &format!("Failed password for invalid user {user} from {source} port {pid} ssh2")),
        line(second, pid, &format!("Connection closed by invalid user {user} {source} port {pid} [preauth]")),
    ]
    .concat()
}

#[test]
fn tells_who_would_have_been_blocked_and_what_that_would_have_stopped() {
    let log = [
        attempt(0, 100, "admin", "203.0.113.7"),
        attempt(10, 101, "oracle", "203.0.113.7"),
        attempt(20, 102, "admin", "203.0.113.7"),
        attempt(30, 103, "admin", "203.0.113.8"),
        line(40, 104, "Accepted password for carol from 203.0.113.7 port 104 ssh2"),
        // The block of 100 s is over by now; had the attempts in between counted, this would be a graver offence.
        attempt(101, 105, "pi", "203.0.113.7"),
    ]
    .concat();
    let report = past("", &log);
    let told: Vec<_> = report
        .blocks
        .iter()
        .map(|block| {
            let rule = block.rule.as_ref().unwrap().id;
            (&block.at[14..19], &*block.target, rule, block.timeout_s, block.stopped_attempts, block.offence)
        })
        .collect();
    assert_eq!(
        told,
        [
            ("00:00", "203.0.113.7", 5710, Some(100), 2, 1),
            ("00:30", "203.0.113.8", 5710, Some(100), 0, 1),
            ("01:41", "203.0.113.7", 5710, Some(100), 0, 2),
        ]
    );
    assert_eq!((report.attempts, report.stopped_attempts, report.blocks_total), (5, 2, 3));
    assert_eq!(report.users[0].user, "admin");
    assert_eq!(report.users[0].attempts, 3);
    assert_eq!((report.logins_hit_total, &*report.logins_hit[0].user), (1, "carol"));
    assert_eq!(report.blocks[0].logins_hit, 1);
    assert_eq!(report.lines, 16);
    let text = text::render(&report);
    assert!(text.contains("carol by password"), "{text}");
    assert!(text.contains("attempts, 40 % of all"), "{text}");
}

#[test]
fn what_is_protected_is_told_of_and_stays() {
    let log = [
        line(0, 99, "Accepted publickey for carol from 203.0.113.7 port 99 ssh2: ED25519 SHA256:x"),
        attempt(1, 100, "typo", "203.0.113.7"),
        attempt(2, 101, "admin", "198.51.100.9"),
    ]
    .concat();
    let report = past("[allow]\nnetworks = [\"198.51.100.0/24\"]\n", &log);
    assert_eq!((report.blocks_total, report.refused_total, report.logins_hit_total), (0, 2, 0));
    assert!(report.refused[0].because.contains("ssh session"), "{:?}", report.refused[0]);
    assert!(report.refused[1].because.contains("allowlist"), "{:?}", report.refused[1]);
    assert!(text::render(&report).contains("no legitimate login would have been hit"));
}

#[test]
fn an_empty_log_is_no_fault() {
    let report = past("", "");
    assert_eq!((report.lines, report.blocks_total, report.first.as_deref()), (0, 0, None));
    assert!(text::render(&report).contains("no legitimate login"));
}

#[test]
fn a_dump_of_the_journal_is_read() {
    let entry = r#"{"__CURSOR":"c","SYSLOG_IDENTIFIER":"sshd","_PID":"7","_HOSTNAME":"gw1","__REALTIME_TIMESTAMP":"1777795200000000","MESSAGE":"Invalid user admin from 203.0.113.7 port 22"}"#;
    let report = past("", &format!("{entry}\n"));
    assert_eq!((report.attempts, report.blocks_total), (1, 1));
    assert_eq!(report.blocks[0].at, "2026-05-03T08:00:00.000Z");
}
