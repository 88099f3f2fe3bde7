//! Bounds: a full table, long lists, and many blocks that end at once.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use xdpban_tests::{Controller, Lab, Side};

/// A lab in which 16 addresses and two other prefixes can be blocked.
fn small() -> Result<(Lab, Controller)> {
    let lab = Lab::new()?;
    let controller =
        lab.start_controller(&format!("{}[limits]\nblocks = 16\nprefixes = 2\n", lab.config()))?;
    Ok((lab, controller))
}

/// The controller's counts, as Prometheus reads them.
fn metrics(lab: &Lab) -> Result<String> {
    let mut stream = UnixStream::connect(lab.socket()).context("connect to the control socket")?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: xdpban\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The value of the first of these counts whose name and labels begin so.
fn value(metrics: &str, name: &str) -> Result<u32> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.rsplit(' ').next());
    Ok(value.with_context(|| format!("no {name} in {metrics}"))?.parse()?)
}

/// So many addresses from 10.100.0.1 on, one a line.
fn addresses(count: u32) -> String {
    let first = Ipv4Addr::new(10, 100, 0, 1).to_bits();
    (first..first + count).fold(String::new(), |mut list, address| {
        // Writing to a String cannot fail.
        writeln!(list, "{}", Ipv4Addr::from_bits(address)).ok();
        list
    })
}

/// Blocks those addresses.
fn block(lab: &Lab, count: u32, how_long: &[&str]) -> Result<()> {
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

    // What gives way next is said where all of it is, and the warning is not repeated.
    lab.xdpban(&["block", "10.97.0.2", "--for", "3h"])?.success()?;
    lab.xdpban(&["block", "10.97.0.3", "--for", "3h"])?.success()?;
    assert!(lab.health()?.contains("the table of blocks was full: 3 of the soonest"), "{}", lab.health()?);
    assert!(metrics(&lab)?.contains("xdpban_evicted_total{table=\"blocks\"} 3\n"), "{}", metrics(&lab)?);
    assert_eq!(controller.output()?.matches("the table of blocks is full").count(), 1);
    Ok(())
}

#[test]
fn in_a_full_table_of_prefixes_the_one_that_ends_first_gives_way() -> Result<()> {
    let (lab, controller) = small()?;
    lab.xdpban(&["block", "10.97.0.0/24", "--for", "2h"])?.success()?;
    lab.xdpban(&["block", "10.99.66.0/25", "--for", "1h"])?.success()?;
    // Those of IPv6 and addresses have room of their own.
    lab.xdpban(&["block", "2001:db8:97::/48", "2001:db8:98::/48", "10.97.1.1", "--for", "1h"])?.success()?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.health()?, "");

    lab.xdpban(&["block", "10.98.0.0/20", "--for", "3h"])?.success()?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?, "its network gave way");
    assert_eq!(
        lab.targets()?,
        ["10.97.0.0/24", "10.97.1.1", "10.98.0.0/20", "2001:db8:97::/48", "2001:db8:98::/48"]
    );
    let health = lab.health()?;
    assert!(
        health.contains("the table of prefixes was full: 1 of the soonest to expire gave way"),
        "{health}"
    );
    assert!(health.contains("[limits] prefixes"), "{health}");
    assert!(metrics(&lab)?.contains("xdpban_evicted_total{table=\"prefixes\"} 1\n"), "{}", metrics(&lab)?);
    assert_eq!(controller.output()?.matches("the table of prefixes is full").count(), 1);
    let permanent = "the table holds 2 permanent blocks and is full";
    lab.xdpban(&["block", "10.97.0.0/24", "10.98.0.0/20"])?.success()?;
    lab.xdpban(&["block", "10.96.0.0/24"])?
        .expect_code(1)?
        .stderr_has(permanent)?
        .stderr_has("limits.prefixes")?;
    Ok(())
}

#[test]
fn blocking_goes_on_while_many_blocks_end() -> Result<()> {
    const ENDING: u32 = 20_000;
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    block(&lab, ENDING, &["--for", "4s"])?;
    let mut number = 0u8;
    let mut meanwhile = 0;
    loop {
        let left = lab.status()?["blocked"]["v4"].as_u64().unwrap_or_default();
        if left <= u64::from(number) {
            break;
        }
        number = number.checked_add(1).expect("they do not end");
        lab.log().invalid_user(1000 + u32::from(number), &format!("10.96.0.{number}"))?;
        lab.blocked(&format!("10.96.0.{number}"))?;
        let after = lab.status()?["blocked"]["v4"].as_u64().unwrap_or_default();
        meanwhile += u32::from(u64::from(number) < after && after < u64::from(ENDING));
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(lab.targets()?.len(), usize::from(number), "{meanwhile} came while others went");
    let said = controller.output()?;
    assert!(said.contains("unblocked: 1,024 targets"), "they end in parts\n{said}");
    lab.eventually("that is on record", Duration::from_secs(10), |lab| {
        Ok(lab.show("10.100.78.32")?["incidents"][0]["outcome"] == "expired")
    })
}

#[test]
fn blocking_goes_on_while_all_are_unblocked() -> Result<()> {
    const BLOCKED: u32 = 200_000;
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    block(&lab, BLOCKED, &[])?;
    let mut lines = 0;
    // How many lines were answered when some were lifted and some yet to be.
    let mut answered = Vec::new();
    let unblocked = std::thread::scope(|scope| {
        let unblocking = scope.spawn(|| lab.xdpban(&["unblock", "--all"]));
        while !unblocking.is_finished() {
            lines += 1;
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + lines);
            lab.log().invalid_user(1000 + lines, &address.to_string())?;
            let metrics = metrics(&lab)?;
            if (lines + 1..BLOCKED).contains(&value(&metrics, "xdpban_blocked{table=\"v4\"}")?) {
                answered.push(value(&metrics, "xdpban_attacks_total{")?);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        unblocking.join().map_err(|_| anyhow!("the thread panicked"))?
    })?;
    unblocked.success()?.stdout_has(" targets unblocked\n")?;
    let (first, last) = (answered.first().copied(), answered.last().copied());
    let meanwhile = last.zip(first).map_or(0, |(last, first)| last - first);
    assert!(meanwhile > 0, "none was blocked while others were lifted: {answered:?}");
    lab.has_read_the_log()?;
    let targets = lab.targets()?;
    assert!(targets.iter().all(|target| target.starts_with("10.96.")), "{targets:?}");
    assert!(targets.len() >= meanwhile as usize, "{meanwhile} of {} stay", targets.len());
    let said = controller.output()?;
    assert!(said.contains("unblocked: 1,024 targets"), "they are lifted in parts\n{said}");
    lab.eventually("that is on record", Duration::from_secs(10), |lab| {
        Ok(lab.show("10.100.0.1")?["incidents"][0]["outcome"] == "lifted")
    })
}

#[test]
fn a_stop_comes_after_all_that_is_being_unblocked() -> Result<()> {
    const BLOCKED: u32 = 200_000;
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    block(&lab, BLOCKED, &[])?;
    let unblocked = std::thread::scope(|scope| {
        let unblocking = scope.spawn(|| lab.xdpban(&["unblock", "--all"]));
        lab.eventually("some are lifted", Duration::from_secs(5), |lab| {
            Ok(value(&metrics(lab)?, "xdpban_blocked{table=\"v4\"}")? < BLOCKED)
        })?;
        let (status, _) = controller.stop()?;
        ensure!(status.success(), "{status}");
        unblocking.join().map_err(|_| anyhow!("the thread panicked"))?
    })?;
    unblocked.success()?.stdout_has("200,000 targets unblocked\n")?;
    assert_eq!(lab.targets()?, [""; 0]);
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
    lab.xdpban(&["unblock", "10.100.0.1"])?.success()?;
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
    let status = lab.status()?;
    assert_eq!(status["blocked"]["v4"], 5001);
    lab.eventually("all of them have ended", Duration::from_secs(5), |lab| {
        Ok(lab.status()?["blocked"]["v4"] == 1)
    })?;
    assert!(blocked.elapsed() < Duration::from_secs(3), "after {:?}", blocked.elapsed());
    assert_eq!(lab.targets()?, ["10.97.0.1"]);
    lab.eventually("that is on record", Duration::from_secs(2), |lab| {
        Ok(lab.show("10.100.19.136")?["incidents"][0]["outcome"] == "expired")
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
