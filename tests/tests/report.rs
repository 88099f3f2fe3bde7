//! The report: what befell a real sshd, in every format, with its outcome.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";

/// The rows of a table in CSV without quotes, by the names of its columns.
fn rows(csv: &str) -> Vec<serde_json::Map<String, serde_json::Value>> {
    let mut lines = csv.split_terminator("\r\n").map(|line| line.split(','));
    let names: Vec<&str> = lines.next().into_iter().flatten().collect();
    lines
        .map(|fields| names.iter().map(|name| (*name).to_owned()).zip(fields.map(Into::into)).collect())
        .collect()
}

#[test]
fn an_attack_is_reported_with_its_outcome_in_every_format() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config_with_timeout("1s"))?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.flood(Side::Attacker, Side::Attacker.v4(), 100)?;
    lab.eventually("the block is over", Duration::from_secs(5), |lab| Ok(lab.targets()?.is_empty()))?;
    lab.xdpban(&["block", "198.51.100.0/24", "--reason", "scans"])?.success()?;
    lab.xdpban(&["unblock", "198.51.100.0/24", "--reason", "they moved"])?.success()?;
    lab.write_config(&lab.config_with_timeout("2s"))?;
    controller.reload()?;

    let mut report = json!(null);
    lab.eventually("the reload is on record", Duration::from_secs(5), |lab| {
        report = lab.xdpban(&["report", "--format", "json"])?.json()?;
        Ok(report["changes"]["total"] == 1)
    })?;
    assert_eq!(report["totals"]["incidents"], 2, "{report:#}");
    assert_eq!(report["outcomes"]["expired"], 1, "{report:#}");
    assert_eq!(report["outcomes"]["lifted"], 1, "{report:#}");
    let attack = &report["responses"]["listed"][0];
    assert_eq!((&attack["target"], &attack["rule_id"]), (&json!(ATTACKER), &json!(5710)));
    assert_eq!((&attack["outcome"], &attack["users"]), (&json!("expired"), &json!(["admin"])));
    assert!(attack["dropped_packets"].as_u64() >= Some(100), "{attack}");
    let by_hand = &report["responses"]["listed"][1];
    assert_eq!((&by_hand["by"], &by_hand["outcome_by"]), (&json!("root (uid 0)"), &json!("root (uid 0)")));
    assert_eq!((&by_hand["reason"], &by_hand["outcome_reason"]), (&json!("scans"), &json!("they moved")));
    let acts: Vec<_> =
        report["acts"]["listed"].as_array().context("acts")?.iter().map(|act| &act["what"]).collect();
    assert_eq!(
        acts,
        ["blocked 198.51.100.0/24 until lifted: scans", "lifted the block of 198.51.100.0/24: they moved"]
    );
    let change = report["changes"]["listed"][0]["what"].as_str().context("the change")?;
    assert!(change.contains("2s"), "{change}");
    assert_eq!(report["response_times"]["count"], 1);
    assert_eq!(report["record"]["verified"], true);
    // Before the controller's first start nobody watched.
    assert_eq!(report["watch"]["gaps"]["total"], 1, "{:#}", report["watch"]);
    assert_eq!(lab.xdpban(&["--json", "report"])?.json()?["outcomes"], report["outcomes"]);

    for format in ["text", "markdown", "html"] {
        let report = lab.xdpban(&["report", "--from", "1h", "--format", format])?;
        report.success()?;
        for text in [
            ATTACKER,
            "5710 login as a user that does not exist",
            "admin",
            "expired",
            "they moved",
            "164.308",
        ] {
            report.stdout_has(text)?;
        }
    }

    let csv = lab.xdpban(&["report", "--format", "csv"])?;
    let rows = rows(&csv.success()?.stdout());
    assert_eq!(rows.len(), 2, "{csv}");
    assert_eq!((&rows[0]["target"], &rows[0]["outcome"]), (&json!(ATTACKER), &json!("expired")));
    assert_eq!((&rows[1]["target"], &rows[1]["outcome_uid"]), (&json!("198.51.100.0/24"), &json!("0")));

    // Without a controller, too; and nothing is there yet for a period that ended before.
    controller.stop()?;
    lab.xdpban(&["report", "--from", "1h"])?
        .success()?
        .stdout_has("it was stopped, and has not run since")?;
    lab.xdpban(&["report", "--from", "2020", "--to", "2020"])?
        .success()?
        .stdout_has("1 January to 31 December 2020 no security incident is on record")?;
    Ok(())
}

#[test]
fn a_file_is_written_whole_and_for_its_owner() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    let file = lab.dir().join("report.html");
    fs::write(&file, "an older one")?;
    let path = file.to_str().context("its path")?;
    lab.xdpban(&["report", "-o", path])?.success()?;
    let page = fs::read_to_string(&file)?;
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "the name tells the format");
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    lab.xdpban(&["report", "-o", "/nowhere/report.html"])?
        .expect_code(1)?
        .stderr_has("write /nowhere/report.html")?;
    lab.xdpban(&["report", "-o", "/dev/full"])?.expect_code(1)?.stderr_has("No space left on device")?;
    let left = fs::read_dir(lab.dir())?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("report.html."));
    assert_eq!(left.count(), 0);

    for (args, said) in [
        (&["--from", "soon"][..], "`soon` is not a time"),
        (&["--from", "today", "--to", "yesterday"], "the period ends at"),
        (&["--json", "--format", "csv"], "different formats"),
        (&["-o", "report.pdf"], "no format of a report ends in .pdf"),
        (&["--format", "csv", "-o", "report.html"], "another format is asked for"),
    ] {
        lab.xdpban(&[&["report"], args].concat())?.expect_code(2)?.stderr_has(said)?;
    }
    controller.stop()?;
    Ok(())
}

#[test]
fn a_record_that_was_altered_is_told_of() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    controller.stop()?;
    let store = lab.dir().join("state/xdpban.db");
    let bytes = fs::read(&store)?;
    let altered = replaced(&bytes, ATTACKER.as_bytes(), b"10.99.66.77");
    assert_ne!(altered, bytes);
    fs::write(&store, altered)?;
    lab.xdpban(&["report"])?
        .expect_code(1)?
        .stdout_has("NOT INTACT")?
        .stderr_has("the record is not what was written")?;
    Ok(())
}

/// `bytes` with every `from` changed to `to`, which is as long.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, part)| *part == from)
        .map(|(place, _)| place)
        .collect();
    for place in places {
        bytes[place..place + from.len()].copy_from_slice(to);
    }
    bytes
}
