//! The gate outlives the controller: nothing of a blocked source passes while it ends, is gone, and comes back.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xdpban_tests::{Controller, Lab, Side, Stream};

const ATTACKER: &str = "10.99.66.66";

/// An attacker whom a rule blocked and who sends all the time, and a bystander who does so, too.
struct Fire {
    attacker: Stream,
    bystander: Stream,
}

impl Fire {
    fn open(lab: &Lab) -> Result<Fire> {
        lab.attack(Side::Attacker.v4())?;
        lab.blocked(ATTACKER)?;
        Fire::with_interval(lab, Duration::from_micros(500))
    }

    /// As [`Fire::open`] does it once the attacker is blocked, with a datagram of each in every `interval`.
    fn with_interval(lab: &Lab, interval: Duration) -> Result<Fire> {
        let attacker = lab.stream(Side::Attacker, Side::Attacker.v4(), interval)?;
        Ok(Fire { attacker, bystander: lab.stream(Side::Bystander, Side::Bystander.v4(), interval)? })
    }

    /// Lets both send 50 more; none of the attacker's has ever arrived.
    fn goes_on(&self, lab: &Lab) -> Result<()> {
        for stream in [&self.attacker, &self.bystander] {
            let before = stream.sent();
            lab.eventually("50 more are sent", Duration::from_secs(5), |_| Ok(stream.sent() > before + 50))?;
        }
        let (sent, received) = (self.attacker.sent(), self.attacker.received());
        ensure!(received == 0, "{received} of {sent} datagrams of the attacker got through");
        Ok(())
    }

    /// None of the attacker's datagrams arrived, and every one of the bystander's but those that the lab dropped by itself.
    fn ceases(self, lab: &Lab) -> Result<()> {
        let (sent, received) = self.attacker.stop()?;
        ensure!(received == 0, "{received} of {sent} datagrams of the attacker got through");
        let (sent, received) = self.bystander.stop()?;
        let dropped = lab.dropped_by_itself()?;
        ensure!(
            received + dropped >= sent,
            "only {received} of {sent} datagrams of the bystander arrived, and the lab dropped {dropped}"
        );
        Ok(())
    }
}

/// That a block is the one it was, and its counts have not begun anew.
fn is_the_same(before: &Value, after: &Value) -> Result<()> {
    for field in ["target", "rule", "reason", "origin", "offences", "created_at"] {
        ensure!(before[field] == after[field], "{field} changed\n{before}\n{after}");
    }
    let packets = [before, after].map(|entry| entry["dropped_packets"].as_u64());
    ensure!(packets[0] > Some(0) && packets[1] >= packets[0], "packets {packets:?}");
    let ends = [before, after].map(|entry| entry["expires_at"].as_str().map(str::parse::<jiff::Timestamp>));
    let [Some(Ok(before)), Some(Ok(after))] = ends else { return Ok(()) };
    ensure!(before.duration_since(after).abs() < jiff::SignedDuration::from_secs(1), "{before} {after}");
    Ok(())
}

fn start(lab: &Lab) -> Result<Controller> {
    lab.start_controller(&lab.config())
}

#[test]
fn kill_9_and_restart_let_nothing_through() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    let fire = Fire::open(&lab)?;
    fire.goes_on(&lab)?;
    let before = lab.blocked(ATTACKER)?;
    controller.kill9()?;
    fire.goes_on(&lab)?;

    let _controller = start(&lab)?;
    fire.goes_on(&lab)?;
    is_the_same(&before, &lab.entry(ATTACKER)?.context("the new controller does not know the block")?)?;
    assert!(lab.login_ok(Side::Bystander)?);
    fire.ceases(&lab)
}

#[test]
fn stop_and_restart_let_nothing_through() -> Result<()> {
    let lab = Lab::new()?;
    let mut controller = start(&lab)?;
    let fire = Fire::open(&lab)?;
    fire.goes_on(&lab)?;
    let before = lab.blocked(ATTACKER)?;
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let (status, took) = controller.stop()?;
        assert!(status.success(), "{status}");
        quickest = quickest.min(took);
        fire.goes_on(&lab)?;
        controller = start(&lab)?;
        fire.goes_on(&lab)?;
        is_the_same(&before, &lab.entry(ATTACKER)?.context("the new controller does not know the block")?)?;
    }
    // A disk that others keep busy makes anybody wait, but not every time.
    assert!(quickest < Duration::from_secs(2), "it took {quickest:?} to stop");
    let incidents = &lab.show(ATTACKER)?["incidents"];
    assert_eq!(incidents.as_array().map(Vec::len), Some(1), "{incidents}");
    assert!(lab.login_ok(Side::Bystander)?);
    fire.ceases(&lab)
}

#[test]
fn no_restart_and_no_upgrade_under_a_flood_lets_anything_through_or_holds_a_bystander_up() -> Result<()> {
    let lab = Lab::new()?;
    let mut controller = lab.start_other_build(&lab.config())?;
    lab.attack(Side::Attacker.v4())?;
    let before = lab.blocked(ATTACKER)?;
    let fire = Fire::with_interval(&lab, Duration::from_micros(100))?;
    for round in 0..12_u64 {
        // While it works, while it starts, and while it stops.
        if round % 3 == 0 {
            controller.stop()?;
        } else {
            controller.kill9()?;
        }
        fire.goes_on(&lab).with_context(|| format!("round {round}"))?;
        lab.spawn_controller().and_then(|half_started| {
            std::thread::sleep(Duration::from_millis(12 * round));
            half_started.kill9()
        })?;
        fire.goes_on(&lab).with_context(|| format!("round {round}, killed after {} ms", 12 * round))?;
        controller = start(&lab)?;
        fire.goes_on(&lab).with_context(|| format!("round {round}, a new controller"))?;
    }
    let after = lab.entry(ATTACKER)?.context("the block is gone")?;
    for field in ["target", "rule", "origin", "offences", "created_at"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    fire.ceases(&lab)
}

#[test]
fn without_a_controller_the_maps_tell_what_is_blocked() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.xdpban(&["block", ATTACKER, "2001:db8:99:66::/64", "10.99.67.0/24", "--for", "1h"])?.success()?;
    assert_eq!(lab.flood(Side::Attacker, Side::Attacker.v4(), 10)?, 0);
    controller.kill9()?;

    let not_running = "the controller is not running";
    lab.xdpban(&["list"])?.success()?.stdout_has(ATTACKER)?.stderr_has(not_running)?;
    assert_eq!(lab.targets()?, ["10.99.66.66", "10.99.67.0/24", "2001:db8:99:66::/64"]);
    let entry = lab.entry(ATTACKER)?.context("the attacker")?;
    assert!(entry["dropped_packets"].as_u64() >= Some(10), "{entry}");
    assert!(matches!(entry["expires_in_s"].as_u64(), Some(3590..=3600)), "{entry}");
    for args in [&["status"][..], &["show", ATTACKER], &["block", "192.0.2.1"], &["unblock", ATTACKER]] {
        lab.xdpban(args)?.expect_code(3)?.stderr_has(not_running)?.stderr_has("xdpban run")?;
    }
    Ok(())
}

#[test]
fn without_a_controller_blocks_end_in_time() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    let stream = lab.stream(Side::Attacker, Side::Attacker.v4(), Duration::from_millis(2))?;
    lab.xdpban(&["block", ATTACKER, "--for", "2s"])?.success()?;
    let blocked = Instant::now();
    controller.kill9()?;
    let before = stream.received();
    lab.eventually("the kernel lets it pass", Duration::from_secs(5), |_| Ok(stream.received() > before))?;
    let passed = blocked.elapsed().as_secs_f64();
    assert!((1.9..2.5).contains(&passed), "after {passed} s");
    assert_eq!(lab.targets()?, [""; 0]);

    let _controller = start(&lab)?;
    assert_eq!(lab.targets()?, [""; 0]);
    let incidents = &lab.show(ATTACKER)?["incidents"];
    assert_eq!(incidents[0]["outcome"], "expired", "{incidents}");
    Ok(())
}

#[test]
fn after_a_reboot_blocks_go_on_with_what_is_left_of_their_time() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.xdpban(&["block", "10.99.67.1", "--for", "1s"])?.success()?;
    lab.xdpban(&["block", "10.99.68.0/24", "--reason", "a bad neighbourhood"])?.success()?;
    let rule = lab.blocked(ATTACKER)?;
    let prefix = lab.blocked("10.99.68.0/24")?;
    controller.stop()?;
    // A reboot leaves the store, and nothing of the gate.
    lab.xdpban(&["detach"])?.success()?.stdout_has("taken off eth0")?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    lab.sh("test ! -e /sys/fs/bpf/xdpban")?;
    std::thread::sleep(Duration::from_millis(1100));

    let _controller = start(&lab)?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.targets()?, [ATTACKER, "10.99.68.0/24"]);
    let restored = lab.blocked(ATTACKER)?;
    for field in ["rule", "reason", "origin", "offences", "created_at"] {
        assert_eq!(rule[field], restored[field], "{field}");
    }
    let ends = [&rule, &restored].map(|entry| entry["expires_in_s"].as_u64());
    assert!(ends[1] < ends[0] && ends[1] > Some(80), "{ends:?}");
    let restored = lab.blocked("10.99.68.0/24")?;
    assert_eq!(prefix["reason"], restored["reason"]);
    assert_eq!(restored["expires_at"], Value::Null);
    assert_eq!(lab.show("10.99.67.1")?["incidents"][0]["outcome"], "expired");
    Ok(())
}

#[test]
fn detaching_is_refused_while_a_controller_runs() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = start(&lab)?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    lab.xdpban(&["detach"])?.expect_code(1)?.stderr_has("is running")?.stderr_has("Stop it first")?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    Ok(())
}

#[test]
fn what_was_logged_while_no_controller_ran_is_read() -> Result<()> {
    let lab = Lab::new()?;
    start(&lab)?.stop()?;
    lab.log().invalid_user(100, "10.99.70.1")?;
    let controller = start(&lab)?;
    lab.blocked("10.99.70.1")?;
    controller.kill9()?;
    lab.log().invalid_user(101, "10.99.70.2")?;
    lab.log().rotate_by_rename()?;
    lab.log().invalid_user(102, "10.99.70.3")?;
    let _controller = start(&lab)?;
    for address in ["10.99.70.2", "10.99.70.3"] {
        assert_eq!(lab.blocked(address)?["offences"], 1);
    }
    Ok(())
}

#[test]
fn no_line_is_counted_twice() -> Result<()> {
    let lab = Lab::new()?;
    let mut controller = start(&lab)?;
    lab.log().invalid_user(100, ATTACKER)?;
    lab.blocked(ATTACKER)?;
    // Whoever reads the line again blocks them again.
    lab.xdpban(&["unblock", ATTACKER])?.success()?;
    for crash in [false, true, false] {
        lab.eventually("that is on record", Duration::from_secs(2), |lab| {
            Ok(lab.show(ATTACKER)?["incidents"][0]["outcome"] == "lifted")
        })?;
        if crash {
            controller.kill9()?;
        } else {
            controller.stop()?;
        }
        controller = start(&lab)?;
        lab.log().sshd(200, "Server listening on 0.0.0.0 port 22.")?;
        lab.has_read_the_log()?;
        assert_eq!(lab.targets()?, [""; 0]);
        assert_eq!(lab.status()?["sources"][0]["lines"], 1);
    }
    let incidents = &lab.show(ATTACKER)?["incidents"];
    assert_eq!(incidents.as_array().map(Vec::len), Some(1), "{incidents}");
    Ok(())
}

#[test]
fn tables_of_another_size_take_over_what_is_blocked() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&format!("{}[limits]\nblocks = 16\n", lab.config()))?;
    let fire = Fire::open(&lab)?;
    let others: Vec<String> = (1..=9).map(|n| format!("10.99.70.{n}")).collect();
    for other in &others {
        lab.xdpban(&["block", other])?.success()?;
    }
    fire.goes_on(&lab)?;
    let before = lab.blocked(ATTACKER)?;
    controller.stop()?;
    fire.goes_on(&lab)?;
    let _controller = lab.start_controller(&format!("{}[limits]\nblocks = 1024\n", lab.config()))?;
    fire.goes_on(&lab)?;
    assert_eq!(lab.list()?.len(), 10);
    is_the_same(&before, &lab.blocked(ATTACKER)?)?;
    let more: Vec<IpAddr> = (1..=50).map(|n| IpAddr::from([10, 99, 71, n])).collect();
    for address in &more {
        lab.xdpban(&["block", &address.to_string()])?.success()?;
    }
    assert_eq!(lab.list()?.len(), 60);
    fire.ceases(&lab)
}

#[test]
fn kill_9_at_any_moment_loses_no_line_and_counts_none_twice() -> Result<()> {
    const ROUNDS: u8 = 6;
    const LINES: u8 = 100;
    let lab = Lab::new()?;
    // It must have begun to read before there is a line.
    start(&lab)?.stop()?;
    let mut pids = 1000..;
    for round in 0..ROUNDS {
        let controller = start(&lab)?;
        for number in 0..LINES {
            lab.log().invalid_user(pids.next().unwrap_or_default(), &format!("10.98.{round}.{number}"))?;
        }
        std::thread::sleep(Duration::from_millis(7 * u64::from(round)));
        controller.kill9()?;
    }
    let _controller = start(&lab)?;
    lab.has_read_the_log()?;
    let list = lab.list()?;
    assert_eq!(list.len(), usize::from(ROUNDS) * usize::from(LINES));
    // What the store had not heard of before the kill is found in the gate, and its line, read again, tells why.
    let odd: Vec<_> =
        list.iter().filter(|entry| entry["offences"] != 1 || entry["rule"]["id"] != 5710).collect();
    assert!(odd.is_empty(), "{odd:?}");
    Ok(())
}
