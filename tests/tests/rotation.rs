//! The log is followed through everything that happens to logs.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use xdpban_tests::{Controller, Lab, invalid_user_line, sshd_line};

/// A lab whose controller watches the log.
fn watched() -> Result<(Lab, Controller)> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    Ok((lab, controller))
}

/// A line of a failed login from 10.99.70.`number` is written, and read.
fn is_read(lab: &Lab, number: u8) -> Result<()> {
    is_written(lab, number)?;
    lab.blocked(&format!("10.99.70.{number}")).map(drop)
}

fn is_written(lab: &Lab, number: u8) -> Result<()> {
    lab.log().invalid_user(number.into(), &format!("10.99.70.{number}"))
}

/// Each of 10.99.70.1 to 10.99.70.`last` is blocked, each by one line that was read once.
fn each_was_read_once(lab: &Lab, last: u8) -> Result<()> {
    let mut targets: Vec<_> = (1..=last).map(|number| format!("10.99.70.{number}")).collect();
    targets.sort();
    assert_eq!(lab.targets()?, targets);
    assert_eq!(lab.status()?["sources"][0]["attacks"], last);
    Ok(())
}

#[test]
fn a_renamed_log_and_its_successor_are_read() -> Result<()> {
    let (lab, _controller) = watched()?;
    is_read(&lab, 1)?;
    // What is written right before the rename, and right after it.
    is_written(&lab, 2)?;
    lab.log().rotate_by_rename()?;
    is_read(&lab, 3)?;
    // A syslog daemon goes on in the renamed file until it is told.
    lab.log().rename_only()?;
    is_read(&lab, 4)?;
    lab.log().reopen()?;
    is_read(&lab, 5)?;
    each_was_read_once(&lab, 5)
}

#[test]
fn what_is_old_in_a_log_that_takes_the_place_of_another_blocks_nobody() -> Result<()> {
    let (lab, _controller) = watched()?;
    is_read(&lab, 1)?;
    // As `sed -i`, an editor or a restore from a backup does it.
    let an_hour_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let old = |number| {
        format!(
            "{an_hour_ago} guarded sshd[{number}]: Invalid user v{number} from 10.99.71.{number} port 22\n"
        )
    };
    let saved = lab.dir().join("saved");
    fs::write(&saved, (1..=3).map(old).collect::<String>())?;
    fs::rename(&saved, lab.log().path())?;
    lab.log().reopen()?;
    is_read(&lab, 2)?;
    assert_eq!(lab.targets()?, ["10.99.70.1", "10.99.70.2"]);
    assert_eq!(lab.status()?["sources"][0]["lines"], 5, "they were read");
    Ok(())
}

#[test]
fn an_emptied_log_is_read_on() -> Result<()> {
    let (lab, _controller) = watched()?;
    is_read(&lab, 1)?;
    lab.log().rotate_by_copytruncate()?;
    is_read(&lab, 2)?;
    // It is longer right away than it was before.
    lab.log().rotate_by_copytruncate()?;
    for number in 3..=8 {
        is_written(&lab, number)?;
    }
    lab.blocked("10.99.70.8")?;
    each_was_read_once(&lab, 8)
}

#[test]
fn a_deleted_log_is_waited_for() -> Result<()> {
    let (lab, _controller) = watched()?;
    is_read(&lab, 1)?;
    lab.log().delete()?;
    let trouble = |lab: &Lab| Ok::<_, anyhow::Error>(lab.status()?["sources"][0]["trouble"].clone());
    lab.eventually("status tells of it", Duration::from_secs(5), |lab| {
        Ok(trouble(lab)?.as_str().is_some_and(|trouble| trouble.contains("auth.log does not exist")))
    })?;
    assert!(lab.health()?.contains("auth.log does not exist"));
    // It is still open, and written to.
    is_read(&lab, 2)?;
    lab.log().reopen()?;
    is_read(&lab, 3)?;
    lab.eventually("all is well again", Duration::from_secs(2), |lab| Ok(trouble(lab)? == Value::Null))?;
    each_was_read_once(&lab, 3)
}

#[test]
fn a_log_that_does_not_exist_yet_is_read_from_its_beginning() -> Result<()> {
    let lab = Lab::new()?;
    lab.log().delete()?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.log().reopen()?;
    for number in 1..=3 {
        is_written(&lab, number)?;
    }
    lab.blocked("10.99.70.3")?;
    each_was_read_once(&lab, 3)
}

#[test]
fn what_an_old_log_says_blocks_nobody_at_the_first_start() -> Result<()> {
    let lab = Lab::new()?;
    lab.log().invalid_user(99, "10.99.71.1")?;
    let _controller = lab.start_controller(&lab.config())?;
    is_read(&lab, 1)?;
    each_was_read_once(&lab, 1)
}

#[test]
fn a_line_in_two_halves_is_one_line() -> Result<()> {
    let (lab, _controller) = watched()?;
    let line = invalid_user_line(1, "10.99.70.1");
    // The first half alone tells of another address.
    let (first, second) = line.split_at(line.find(".1 port").unwrap_or_default());
    lab.log().append(first.as_bytes())?;
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lab.targets()?, [""; 0]);
    lab.log().append(second.as_bytes())?;
    lab.log().append(b"\n")?;
    lab.blocked("10.99.70.1")?;
    each_was_read_once(&lab, 1)
}

#[test]
fn a_line_without_end_is_cut_and_counted() -> Result<()> {
    let (lab, _controller) = watched()?;
    // What is cut off must not be read as a line of its own.
    let line = format!("{}{}", sshd_line(9, &"x".repeat(100_000)), invalid_user_line(9, "10.99.71.1"));
    lab.log().append(line.as_bytes())?;
    lab.log().append(&[b'y'; 200_000])?;
    lab.log().append(b"\n")?;
    is_read(&lab, 1)?;
    each_was_read_once(&lab, 1)?;
    let source = &lab.status()?["sources"][0];
    assert_eq!((&source["lines"], &source["cut"]), (&Value::from(2), &Value::from(1)), "{source}");
    Ok(())
}

#[test]
fn bytes_that_are_no_text_do_no_harm() -> Result<()> {
    let (lab, _controller) = watched()?;
    // A hole stands where a file was emptied whose writer goes on at its old offset.
    lab.log().append(&[0; 100_000])?;
    lab.log().append(b"\n\xff\xfe\x80 garbage\n\n\r\n")?;
    lab.log().sshd(1, "Invalid user \0\u{fffd}\u{1b}[2J\u{7f} from 10.99.70.1 port 22")?;
    lab.log().append(sshd_line(2, "Invalid user ").as_bytes())?;
    lab.log().append(b"\xc3\xff\x80 from 10.99.70.2 port 22\n")?;
    lab.blocked("10.99.70.2")?;
    each_was_read_once(&lab, 2)?;
    for address in ["10.99.70.1", "10.99.70.2"] {
        let show = lab.xdpban(&["show", address])?;
        assert!(!show.success()?.stdout().contains(['\u{1b}', '\0']), "{show}");
    }
    Ok(())
}
