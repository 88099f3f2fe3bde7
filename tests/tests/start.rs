//! What stands in the way of a start, and of going on, is told with its remedy; and what there was stays.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";

/// The lab's configuration with everything that two controllers cannot share in other places.
fn elsewhere(lab: &Lab) -> String {
    lab.config()
        .replace("/sys/fs/bpf/xdpban", "/sys/fs/bpf/other")
        .replace("/runtime", "/other-runtime")
        .replace("/state", "/other-state")
}

#[test]
fn a_missing_interface_is_named_beside_those_that_there_are() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config().replace("\"eth0\"", "\"eth7\""))?;
    let output = lab.xdpban(&["run"])?;
    output.expect_code(1)?.stderr_has("there is no interface eth7 (there are: lo, eth0)")?;
    assert_eq!(output.stderr().lines().count(), 1, "{output}");
    // One that is there is guarded all the same.
    let controller = lab.start_controller(&lab.config().replace("\"eth0\"", "\"eth7\", \"eth0\""))?;
    assert!(lab.health()?.contains("eth7 is not guarded: there is no interface eth7"));
    assert!(controller.output()?.contains("guards eth0 in mode native"));
    Ok(())
}

#[test]
fn every_mode_blocks() -> Result<()> {
    let lab = Lab::new()?;
    for (mode, attached) in [("native", "native"), ("generic", "generic"), ("tc", "tc"), ("auto", "native")] {
        let controller = lab.start_controller(&format!("mode = \"{mode}\"\n{}", lab.config()))?;
        let status = lab.status()?;
        assert_eq!(status["interfaces"], json!([{ "name": "eth0", "mode": attached, "attached": true }]));
        for (from, target) in [(Side::Attacker.v4(), ATTACKER), (Side::Attacker.v6(), "2001:db8:99:66::/64")]
        {
            lab.xdpban(&["block", target])?.success()?;
            assert!(!lab.tcp_connect(Side::Attacker, from, 22)?, "{mode} {from}");
            assert!(lab.tcp_connect(Side::Bystander, Side::Bystander.beside(from), 22)?, "{mode} {from}");
            lab.xdpban(&["unblock", target])?.success()?;
            assert!(lab.tcp_connect(Side::Attacker, from, 22)?, "{mode} {from}");
        }
        controller.stop()?;
    }
    Ok(())
}

#[test]
fn beside_another_xdp_program_it_falls_back_to_tc_and_says_so() -> Result<()> {
    let lab = Lab::new()?;
    // A gate with pins of its own is another program to the next one, and outlives its controller.
    lab.start_controller(&elsewhere(&lab))?.stop()?;
    let occupied = "another XDP program";
    lab.write_config(&format!("mode = \"native\"\n{}", lab.config()))?;
    lab.xdpban(&["run"])?
        .expect_code(1)?
        .stderr_has(occupied)?
        .stderr_has("eth0")?
        .stderr_has("ip link set dev eth0 xdp off")?
        .stderr_has("mode = \"tc\"")?;

    let mut controller = lab.start_controller(&lab.config())?;
    assert_eq!(lab.status()?["interfaces"][0]["mode"], "tc");
    for said in [lab.health()?, controller.output()?] {
        assert!(said.contains(occupied) && said.contains("TC"), "{said}");
    }
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    let stream = lab.stream(Side::Attacker, Side::Attacker.v4(), Duration::from_micros(500))?;
    for _ in 0..2 {
        controller.stop()?;
        controller = lab.start_controller(&lab.config())?;
    }
    let (sent, received) = stream.stop()?;
    assert!(sent > 0 && received == 0, "{received} of {sent} datagrams got through");
    assert_eq!(lab.show(ATTACKER)?["verdict"], "drop");
    assert!(lab.login_ok(Side::Bystander)?);
    controller.stop()?;
    lab.xdpban(&["detach"])?.success()?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    // The other program is as it was.
    assert_eq!(lab.sh("ls /sys/fs/bpf/other/links")?, "native-eth0\n");
    Ok(())
}

#[test]
fn pins_need_a_bpffs() -> Result<()> {
    let lab = Lab::new()?;
    let pins = lab.dir().join("pins").display().to_string();
    lab.write_config(&lab.config().replace("/sys/fs/bpf/xdpban", &pins))?;
    lab.xdpban(&["run"])?.expect_code(1)?.stderr_has("is not on a bpffs")?.stderr_has("mount -t bpf")?;
    Ok(())
}

#[test]
fn without_privileges_it_names_those_that_it_lacks() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    lab.xdpban_as_nobody(&["run"])?.expect_code(1)?.stderr_has("CAP_BPF")?.stderr_has("run as root")?;
    Ok(())
}

#[test]
fn there_is_one_controller_to_a_socket_and_to_a_store() -> Result<()> {
    let lab = Lab::new()?;
    let first = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    lab.xdpban(&["run"])?
        .expect_code(1)?
        .stderr_has("another controller is running")?
        .stderr_has("runtime/control.sock answers")?;
    let store = lab.config().replace("/runtime", "/other-runtime").replace("bpf/xdpban", "bpf/other");
    lab.write_config(&store)?;
    lab.xdpban(&["run"])?.expect_code(1)?.stderr_has("state/xdpban.db is in use by another xdpban")?;
    lab.write_config(&lab.config())?;
    assert_eq!(lab.status()?["pid"], first.pid());
    assert_eq!(lab.targets()?, [ATTACKER]);
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    Ok(())
}

#[test]
fn what_is_no_socket_is_left_where_it_stands() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let file = lab.dir().join("runtime/control.sock");
    fs::create_dir(lab.dir().join("runtime"))?;
    fs::write(&file, "precious")?;
    lab.xdpban(&["run"])?.expect_code(1)?.stderr_has("control.sock is not a socket")?;
    assert_eq!(fs::read_to_string(&file)?, "precious");
    Ok(())
}

#[test]
fn a_store_that_is_no_database_is_set_aside() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.dir().join("state");
    fs::create_dir(&state)?;
    let notes = "not a database, but somebody's notes\n".repeat(100);
    fs::write(state.join("xdpban.db"), &notes)?;
    let controller = lab.start_controller(&lab.config())?;
    for said in [lab.health()?, controller.output()?] {
        assert!(said.contains("xdpban.db is not a database") && said.contains("set aside"), "{said}");
    }
    let kept = fs::read_dir(&state)?
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
        .any(|text| text == notes);
    assert!(kept, "{}", controller.output()?);
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.eventually("the incident is on record", Duration::from_secs(2), |lab| {
        Ok(lab.show(ATTACKER)?["incidents"][0]["outcome"] == "in_force")
    })
}

#[test]
fn a_damaged_store_keeps_no_block_from_going_on() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h"])?.success()?;
    controller.stop()?;
    fs::write(lab.dir().join("state/xdpban.db"), "nonsense".repeat(1000))?;
    let _controller = lab.start_controller(&lab.config())?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!(entry["origin"], "adopted", "{entry}");
    assert!(matches!(entry["expires_in_s"].as_u64(), Some(3500..=3600)), "{entry}");
    Ok(())
}

#[test]
fn a_full_disk_stops_no_block() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.dir().join("state").display().to_string();
    lab.sh(&format!("mkdir {state} && mount -t tmpfs -o size=1m tmpfs {state}"))?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.sh(&format!("dd if=/dev/zero of={state}/filler bs=4k 2>&1 || true"))?;
    // More than the store has room for, in what it holds already.
    for number in 1..=200_u32 {
        lab.log().invalid_user(number, &format!("10.99.70.{number}"))?;
    }
    lab.eventually("status tells of it", Duration::from_secs(5), |lab| {
        Ok(lab.health()?.contains("the disk (or the quota) is full; make room"))
    })?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.list()?.len(), 201);

    lab.sh(&format!("rm {state}/filler"))?;
    lab.eventually("all is well again", Duration::from_secs(5), |lab| Ok(lab.health()?.is_empty()))?;
    for address in ["10.99.70.1", "10.99.70.200", ATTACKER] {
        let show = lab.show(address)?;
        assert_eq!(show["incidents"][0]["outcome"], "in_force", "{show}");
    }
    Ok(())
}

#[test]
fn a_full_disk_delays_no_stop_and_opens_no_gate() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.dir().join("state").display().to_string();
    lab.sh(&format!("mkdir {state} && mount -t tmpfs -o size=1m tmpfs {state}"))?;
    let controller = lab.start_controller(&lab.config())?;
    lab.log().invalid_user(999, "10.99.71.1")?;
    lab.eventually("the store has a first position", Duration::from_secs(5), |lab| {
        Ok(lab.show("10.99.71.1")?["incidents"][0].is_object())
    })?;
    lab.sh(&format!("dd if=/dev/zero of={state}/filler bs=4k 2>&1 || true"))?;
    for number in 1..=200_u32 {
        lab.log().invalid_user(number, &format!("10.99.70.{number}"))?;
    }
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    let said = lab.dir().join("controller.log");
    let (_, took) = controller.stop()?;
    assert!(took < Duration::from_secs(2), "it took {took:?} to stop");
    let said = fs::read_to_string(said)?;
    assert!(said.contains("records could not be written to the store"), "{said}");
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);

    lab.sh(&format!("rm {state}/filler"))?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.has_read_the_log()?;
    let list = lab.list()?;
    assert_eq!(list.len(), 202);
    // What the store has not heard of is read again from the log.
    assert!(list.iter().all(|entry| entry["rule"]["id"] == 5710), "{list:?}");
    Ok(())
}

#[test]
fn a_store_that_cannot_be_written_is_told_of() -> Result<()> {
    let lab = Lab::new()?;
    let state = lab.dir().join("state").display().to_string();
    lab.sh(&format!("mkdir {state} && mount -t tmpfs -o ro tmpfs {state}"))?;
    lab.write_config(&lab.config())?;
    lab.xdpban(&["run"])?.expect_code(1)?.stderr_has(&state)?.stderr_has("Read-only file system")?;
    Ok(())
}

#[test]
fn a_log_that_cannot_be_read_is_told_of_and_tried_again() -> Result<()> {
    let lab = Lab::new()?;
    lab.log().delete()?;
    fs::create_dir(lab.log().path())?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.eventually("status tells of it", Duration::from_secs(5), |lab| {
        Ok(lab.health()?.contains("auth.log is a directory, not a file; name a log file as source"))
    })?;
    fs::remove_dir(lab.log().path())?;
    lab.log().reopen()?;
    lab.eventually("all is well again", Duration::from_secs(5), |lab| Ok(lab.health()?.is_empty()))?;
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1").map(drop)
}

#[test]
fn dropped_packets_are_traced_where_that_is_asked_for() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let controller = lab.start_controller_with(&["run", "--trace-packets"])?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    assert_eq!(lab.flood(Side::Attacker, Side::Attacker.v4(), 100_000)?, 0);
    lab.eventually("drops are in the log", Duration::from_secs(2), |_| {
        Ok(controller.output()?.lines().any(|line| line.contains("drop") && line.contains(ATTACKER)))
    })?;
    let lines = controller.output()?.lines().count();
    assert!(lines < 5000, "{lines} lines of log for 100,000 packets");
    Ok(())
}

#[test]
fn an_interface_that_comes_late_or_again_is_guarded() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config().replace("\"eth0\"", "\"eth0\", \"late\""))?;
    let attached = |lab: &Lab| Ok::<_, anyhow::Error>(lab.status()?["interfaces"][1]["attached"].clone());
    assert_eq!(attached(&lab)?, false);
    for _ in 0..2 {
        lab.sh("ip link add late type veth peer name other")?;
        lab.eventually("it is guarded", Duration::from_secs(5), |lab| Ok(attached(lab)? == true))?;
        assert_eq!(lab.health()?, "");
        assert!(lab.sh("ip link show late")?.contains("prog/xdp"));
        lab.sh("ip link delete late")?;
        lab.eventually("status tells of it", Duration::from_secs(5), |lab| Ok(attached(lab)? == false))?;
        assert!(lab.health()?.contains("late is not guarded: there is no interface late"));
    }
    let said = controller.output()?;
    assert_eq!(said.matches("guards late in mode native").count(), 2, "{said}");
    Ok(())
}

#[test]
fn a_gate_that_someone_removed_is_put_back() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    lab.sh("rm -r /sys/fs/bpf/xdpban")?;
    // Any change of the host's network makes it look at once; it does so every few seconds in any case.
    lab.sh("ip link set eth0 alias guarded")?;
    lab.eventually("it stands again", Duration::from_secs(5), |_| {
        Ok(controller.output()?.contains("the gate was taken off eth0; it stands again, in mode native"))
    })?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    controller.kill9()?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    let _controller = lab.start_controller(&lab.config())?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.targets()?, [ATTACKER]);
    Ok(())
}
