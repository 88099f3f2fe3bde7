//! Bounds: a full table, long lists, and many blocks that end at once.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;
use xdpban_tests::{Controller, Lab, Side};

/// A lab in which 16 addresses can be blocked.
fn small() -> Result<(Lab, Controller)> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&format!("{}[limits]\nblocks = 16\n", lab.config()))?;
    Ok((lab, controller))
}

/// So many addresses of 10.98.0.0/16, one a line.
fn addresses(count: u16) -> String {
    (1..=count).fold(String::new(), |mut list, number| {
        let [high, low] = number.to_be_bytes();
        // Writing to a String cannot fail.
        writeln!(list, "10.98.{high}.{low}").ok();
        list
    })
}

/// Blocks those addresses.
fn block(lab: &Lab, count: u16, how_long: &[&str]) -> Result<()> {
    let args = [&["block", "--from", "-"], how_long].concat();
    lab.xdpban_with_input(&args, addresses(count).as_bytes())?.success()?;
    Ok(())
}

#[test]
fn in_a_full_table_the_block_that_ends_first_gives_way() -> Result<()> {
    let (lab, controller) = small()?;
    block(&lab, 15, &["--for", "2h"])?;
    lab.xdpban(&["block", "10.97.0.1", "--for", "1h"])?.success()?;
    assert_eq!(lab.list()?.len(), 16);

    lab.attack(Side::Attacker.v4())?;
    lab.blocked("10.99.66.66")?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.list()?.len(), 16);
    assert_eq!(lab.entry("10.97.0.1")?, None);
    let show = lab.show("10.97.0.1")?;
    assert_eq!(show["verdict"], "pass", "{show}");
    assert_eq!(show["incidents"][0]["outcome"], "lifted", "{show}");
    let reason = show["incidents"][0]["outcome_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("made room for 10.99.66.66"), "{show}");
    let health = lab.health()?;
    assert!(health.contains("the table of blocks was full: 1 of the soonest to expire gave way"), "{health}");
    assert!(health.contains("[limits] blocks"), "{health}");
    let said = controller.output()?;
    assert!(said.contains("unblocked 10.97.0.1: evicted, it made room for 10.99.66.66"), "{said}");
    Ok(())
}

#[test]
fn permanent_blocks_do_not_give_way() -> Result<()> {
    let (lab, _controller) = small()?;
    block(&lab, 16, &[])?;
    let full = "the table holds 16 permanent blocks and is full";
    lab.xdpban(&["block", "10.97.0.1"])?.expect_code(1)?.stderr_has(full)?.stderr_has("limits")?;
    lab.attack(Side::Attacker.v4())?;
    lab.eventually("the refusal is on record", Duration::from_secs(5), |lab| {
        let show = lab.show("10.99.66.66")?;
        let reason = show["incidents"][0]["outcome_reason"].as_str();
        Ok(show["incidents"][0]["outcome"] == "refused" && reason.is_some_and(|reason| reason.contains(full)))
    })?;
    assert_eq!(lab.list()?.len(), 16);
    // IPv6 has a table of its own.
    lab.xdpban(&["block", "2001:db8:97::1"])?.success()?;
    lab.xdpban(&["unblock", "10.98.0.1"])?.success()?;
    lab.xdpban(&["block", "10.97.0.1"])?.success()?;
    Ok(())
}

#[test]
fn a_long_list_is_blocked_and_unblocked() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let list = format!("# attackers\n\n{}  10.99.66.0/24 # a network\r\n", addresses(1000));
    let blocked = lab.xdpban_with_input(&["block", "--from", "-", "--reason", "a list"], list.as_bytes())?;
    blocked.success()?.stdout_has("1,001 targets blocked until unblocked\n")?;
    let list = lab.list()?;
    assert_eq!(list.len(), 1001);
    assert!(list.iter().all(|entry| entry["reason"] == "a list" && entry["origin"] == "operator"));
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    lab.xdpban(&["unblock", "--all"])?.success()?.stdout_has("1,001 targets unblocked\n")?;
    assert_eq!(lab.targets()?, [""; 0]);
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    Ok(())
}

#[test]
fn thousands_of_blocks_end_within_a_second() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    block(&lab, 5000, &["--for", "2s"])?;
    let blocked = Instant::now();
    lab.xdpban(&["block", "10.97.0.1", "--for", "1h"])?.success()?;
    assert_eq!(lab.status()?["blocked"]["v4"], 5001);
    lab.eventually("all of them have ended", Duration::from_secs(5), |lab| {
        Ok(lab.status()?["blocked"]["v4"] == 1)
    })?;
    assert!(blocked.elapsed() < Duration::from_secs(3), "after {:?}", blocked.elapsed());
    assert_eq!(lab.targets()?, ["10.97.0.1"]);
    lab.eventually("that is on record", Duration::from_secs(2), |lab| {
        Ok(lab.show("10.98.19.136")?["incidents"][0]["outcome"] == "expired")
    })
}

#[test]
fn what_ended_is_taken_out_of_the_kernels_table() -> Result<()> {
    let (lab, controller) = small()?;
    // Sixteen fill the table, so that of the next sixteen none fits unless those are gone.
    block(&lab, 16, &["--for", "1s"])?;
    lab.eventually("all of them have ended", Duration::from_secs(5), |lab| Ok(lab.list()?.is_empty()))?;
    let others = addresses(32).lines().skip(16).collect::<Vec<_>>().join("\n");
    lab.xdpban_with_input(&["block", "--from", "-"], others.as_bytes())?.success()?;
    assert_eq!(lab.list()?.len(), 16);
    controller.kill9()?;
    let pinned = lab.list()?;
    assert_eq!(pinned.len(), 16);
    assert!(pinned.iter().all(|entry| entry["expires_at"] == Value::Null), "{pinned:?}");
    Ok(())
}
