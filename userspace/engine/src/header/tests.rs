use proptest::prelude::*;

use super::*;
use crate::time::Mono;

/// 2026-11-23 12:00 UTC, an hour east of it.
const NOW: Now = Now { mono: Mono(0), wall: Wall(1_795_435_200_000_000), utc_offset: 3600 };

/// 2026-11-23 01:36:31 UTC.
const TIME: i64 = 1_795_397_791;

fn parse(line: &str) -> Record<'_> {
    Record::parse(line.as_bytes(), Format::Syslog, &NOW)
}

/// A line, and of its record the seconds (0: none), the host, the program, the process (0: none) and the message.
fn check(format: Format, cases: &[(&str, i64, &str, &str, u32, &str)]) {
    for (line, time, host, program, pid, message) in cases {
        let record = Record::parse(line.as_bytes(), format, &NOW);
        assert_eq!(record.time.map_or(0, |time| time.0 / 1_000_000), *time, "time: {line}");
        assert_eq!(str::from_utf8(record.host), Ok(*host), "host: {line}");
        assert_eq!(str::from_utf8(record.program), Ok(*program), "program: {line}");
        assert_eq!(record.pid.unwrap_or(0), *pid, "pid: {line}");
        assert_eq!(str::from_utf8(record.message), Ok(*message), "message: {line}");
    }
}

#[test]
fn logs_of_one_program() {
    for (line, time, message) in [
        ("2026/11/23 02:36:31 [error] 7#7: *5 x", TIME, "[error] 7#7: *5 x"),
        (
            "203.0.113.7 - - [23/Nov/2026:02:36:31 +0100] x",
            0,
            "203.0.113.7 - - [23/Nov/2026:02:36:31 +0100] x",
        ),
        ("sshd[7]: Invalid user x from 192.0.2.1", 0, "sshd[7]: Invalid user x from 192.0.2.1"),
    ] {
        let record = Record::of_program(line.as_bytes(), b"nginx", &NOW);
        assert_eq!(record.time.map_or(0, |time| time.0 / 1_000_000), time, "{line}");
        assert_eq!((record.program, record.message), (&b"nginx"[..], message.as_bytes()), "{line}");
    }
}

#[test]
fn times_that_stand_in_a_message() {
    for text in [
        "23/Nov/2026:02:36:31 +0100",
        "23/Nov/2026:01:36:31 +0000",
        "2026/11/23 02:36:31",
        "2026-11-23T01:36:31Z",
        "Nov 23 02:36:31",
    ] {
        assert_eq!(time(text.as_bytes(), &NOW).map(|time| time.0 / 1_000_000), Some(TIME), "{text}");
    }
    for text in
        ["", "-", "23/Nov/2026", "23/Nov/2026:25:00:00 +0000", "2026-11/23 02:36:31", "Nov 23 02:36:31 x"]
    {
        assert_eq!(time(text.as_bytes(), &NOW), None, "{text}");
    }
}

#[test]
#[rustfmt::skip]
fn headers_of_syslog() {
    check(Format::Syslog, &[
        ("Nov 23 02:36:31 gw sshd[7]: Hello: world", TIME, "gw", "sshd", 7, "Hello: world"),
        ("<38>Nov 23 02:36:31 gw sshd[7]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("Nov 23 2026 02:36:31 gw sshd[7]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("Nov 23 02:36:31 sshd[7]: Hello", TIME, "", "sshd", 7, "Hello"),
        ("Nov 23 02:36:31 [sshd]: Hello", TIME, "", "sshd", 0, "Hello"),
        ("Nov 23 02:36:31 gw sshd: Hello", TIME, "gw", "sshd", 0, "Hello"),
        ("Nov 23 02:36:31 gw.example.org /usr/sbin/sshd-session[7]: Hello", TIME, "gw.example.org", "/usr/sbin/sshd-session", 7, "Hello"),
        ("Nov 23 02:36:31 fe80::1%eth0 sshd(pam_unix)[7]: Hello", TIME, "fe80::1%eth0", "sshd(pam_unix)", 7, "Hello"),
        ("Nov 23 02:36:31 gw postfix/smtpd[7]: sshd[8]: Hello", TIME, "gw", "postfix/smtpd", 7, "sshd[8]: Hello"),
        ("Nov 23 02:36:31 gw auth.info sshd[7]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("Nov 23 02:36:31 gw <auth.info> sshd[7]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("Nov 23 02:36:31 gw sshd[7]: [ID 800047 auth.info] Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("Nov 23 02:36:31 gw sshd[7]: kernel:[  970.69]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("Nov 23 02:36:31 gw last message repeated 3 times", TIME, "", "", 0, "gw last message repeated 3 times"),
        ("Nov 23 02:36:31 gw sshd[x]: Hello", TIME, "", "", 0, "gw sshd[x]: Hello"),
        ("Nov 31 02:36:31 gw sshd[7]: Hello", 0, "gw", "sshd", 7, "Hello"),
        ("2026-11-23T01:36:31.123456+00:00 gw sshd[7]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("2026-11-23T01:36:31Z gw sshd[7]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("2026-11-23 02:36:31 gw sshd[7]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("2026-11-23T01:36:31Z auth.info: Nov 23 02:36:31 sshd[7]: Hello", TIME, "", "sshd", 7, "Hello"),
        ("2026-11-23T01:36:31Z auth.info: sshd[7]:  Hello", TIME, "", "sshd", 7, " Hello"),
        ("2026-11-23T01:36:31.12Z stderr F Nov 23 02:36:31 gw sshd[7]: Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("2026-11-23T01:36:31.12Z stdout F Failed password", TIME, "", "", 0, "Failed password"),
        ("@400000005b5c3c0a2f0e0b34 sshd[7]: Hello", 0, "", "sshd", 7, "Hello"),
        ("gw sshd[7]: Hello", 0, "gw", "sshd", 7, "Hello"),
        (" sshd[7]: Hello", 0, "", "sshd", 7, "Hello"),
        ("Failed password for root from 192.0.2.1 port 22 ssh2", 0, "", "", 0, "Failed password for root from 192.0.2.1 port 22 ssh2"),
        ("", 0, "", "", 0, ""),
    ]);
}

#[test]
#[rustfmt::skip]
fn headers_of_rfc_5424() {
    check(Format::Syslog, &[
        ("<38>1 2026-11-23T01:36:31.123Z gw sshd 7 - - Hello", TIME, "gw", "sshd", 7, "Hello"),
        ("<38>1 2026-11-23T01:36:31Z gw sshd 7 ID1 - \u{feff}Hello", TIME, "gw", "sshd", 7, "Hello"),
        (r#"<38>1 2026-11-23T01:36:31Z gw sshd 7 - [a@1 b="\"]\\" c=""][d] Hello"#, TIME, "gw", "sshd", 7, "Hello"),
        ("<38>1 - - sshd - - - Hello", 0, "", "sshd", 0, "Hello"),
        ("<38>1 2026-11-23T01:36:31Z gw other 7 - - sshd[7]: Hello", TIME, "gw", "other", 7, "sshd[7]: Hello"),
        ("<38>1 2026-11-23T01:36:31Z gw sshd 7 - -", TIME, "gw", "sshd", 7, ""),
    ]);
    assert_eq!(parse("<38>1 2026-11-23T01:36:31Z gw sshd 7 - [a b=\"c Hello").program, b"", "no end");
    assert_eq!(parse("<38>1 2026-11-23T01:36:31Z gw sshd").program, b"", "cut");
}

#[test]
fn bare_lines_are_sshds() {
    check(
        Format::Bare,
        &[
            ("Invalid user a from 192.0.2.1", 0, "", "sshd", 0, "Invalid user a from 192.0.2.1"),
            ("error: PAM: x\r", 0, "", "sshd", 0, "error: PAM: x"),
            ("sshd-session[7]: Hello", 0, "", "sshd-session", 7, "Hello"),
            ("sshd: Hello", 0, "", "sshd", 0, "Hello"),
            ("other[7]: Hello", 0, "", "sshd", 0, "other[7]: Hello"),
            ("2026-11-23T01:36:31.12Z stderr F Hello", TIME, "", "sshd", 0, "Hello"),
            ("2026-11-23 02:36:31.108781500 Hello", TIME, "", "sshd", 0, "Hello"),
        ],
    );
}

proptest! {
    #[test]
    fn nothing_panics(line: Vec<u8>) {
        Record::parse(&line, Format::Syslog, &NOW);
        Record::parse(&line, Format::Bare, &NOW);
    }

    #[test]
    fn nothing_like_a_header_panics(line in "(<[0-9]{0,4}>)?1? ?[A-Z0-9][a-z0-9]{1,3}[- ][0-9]{1,2}[- 0-9:TZ.+]{0,20} [ -~]{0,40}") {
        Record::parse(line.as_bytes(), Format::Syslog, &NOW);
    }

    /// A message goes through every header as it is, whatever it holds, and decides neither program nor process.
    #[test]
    fn headers_round_trip(
        host in "[a-z][a-z0-9.-]{0,20}",
        program in "[a-zA-Z][a-zA-Z0-9_./@()-]{0,20}",
        pid: u32,
        message in "[!-~][ -~]{0,60}",
    ) {
        // Notes of the kernel's log are taken off on purpose.
        prop_assume!(!message.starts_with("kernel:") && !message.starts_with("[ID "));
        for line in [
            format!("Nov 23 02:36:31 {host} {program}[{pid}]: {message}"),
            format!("2026-11-23T01:36:31.000000+00:00 {host} {program}[{pid}]: {message}"),
            format!("<38>1 2026-11-23T01:36:31Z {host} {program} {pid} - - {message}"),
            format!("2026-11-23T01:36:31Z stdout F Nov 23 02:36:31 {host} {program}[{pid}]: {message}"),
        ] {
            let expected = Record {
                time: Some(Wall(TIME * 1_000_000)),
                host: host.as_bytes(),
                program: program.as_bytes(),
                pid: Some(pid),
                message: message.as_bytes(),
            };
            prop_assert_eq!(parse(&line), expected, "{}", line);
        }
    }
}
