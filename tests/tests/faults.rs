//! What is broken around the controller: its store, its pins, the memory that it may use. It goes on, or says what to do; and
//! the gate stays closed to what is blocked.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xdpban_tests::{Controller, Lab, Side, invalid_user_line};

const ATTACKER: &str = "10.99.66.66";

/// The pins of the lab's configuration.
const PINS: &str = "/sys/fs/bpf/xdpban";

fn start(lab: &Lab) -> Result<Controller> {
    lab.start_controller(&lab.config())
}

/// A lab in which the attacker was blocked for an hour by a controller that has stopped.
fn stopped() -> Result<Lab> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h", "--reason", "a reason"])?.success()?;
    controller.stop()?;
    Ok(lab)
}

fn store(lab: &Lab) -> PathBuf {
    lab.dir().join("state/xdpban.db")
}

/// That the attacker gets nothing through, and the bystander does.
fn is_closed(lab: &Lab) -> Result<()> {
    ensure!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?, "the attacker gets through");
    ensure!(lab.tcp_connect(Side::Bystander, Side::Bystander.v4(), 22)?, "the bystander does not");
    Ok(())
}

/// That the attacker's block is the one it was, as far as the gate knows it.
fn is_blocked(lab: &Lab) -> Result<serde_json::Value> {
    let entry = lab.entry(ATTACKER)?.context("the attacker is not on the list")?;
    ensure!(matches!(entry["expires_in_s"].as_u64(), Some(3500..=3600)), "{entry}");
    is_closed(lab)?;
    Ok(entry)
}

/// Makes the lab's state a file system of its own, with `options`, and what was there before.
fn mount_state(lab: &Lab, options: &str) -> Result<()> {
    let state = lab.dir().join("state").display().to_string();
    lab.sh(&format!(
        "mkdir -p {state} && cp -a {state} {state}.copy && mount -t tmpfs -o mode=700,{options} tmpfs {state} && \
         cp -a {state}.copy/. {state}"
    ))?;
    Ok(())
}

#[test]
fn a_store_with_damaged_pages_is_set_aside() -> Result<()> {
    let lab = stopped()?;
    // All but the first page, which says whose the file is.
    let mut bytes = fs::read(store(&lab))?;
    bytes.iter_mut().skip(4096).for_each(|byte| *byte = 0x5a);
    fs::write(store(&lab), &bytes)?;
    let controller = start(&lab)?;
    for said in [lab.health()?, controller.output()?] {
        assert!(said.contains("xdpban.db: it is damaged") && said.contains("set aside"), "{said}");
    }
    let kept = fs::read_dir(lab.dir().join("state"))?
        .filter_map(|entry| fs::read(entry.ok()?.path()).ok())
        .any(|kept| kept == bytes);
    assert!(kept, "{}", controller.output()?);
    assert_eq!(is_blocked(&lab)?["origin"], "adopted");
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1")?;
    lab.eventually("the incident is on record", Duration::from_secs(2), |lab| {
        Ok(lab.show("10.99.70.1")?["incidents"][0]["outcome"] == "in_force")
    })
}

#[test]
fn what_a_block_without_a_record_has_dropped_is_counted_once() -> Result<()> {
    let lab = stopped()?;
    fs::remove_file(store(&lab))?;
    start(&lab)?.stop()?;
    lab.flood(Side::Attacker, Side::Attacker.v4(), 50)?;
    let controller = start(&lab)?;
    let entry = is_blocked(&lab)?;
    controller.stop()?;
    start(&lab)?.stop()?;
    let _controller = start(&lab)?;
    let incidents = lab.show(ATTACKER)?["incidents"].clone();
    ensure!(incidents.as_array().map(Vec::len) == Some(1), "{incidents}");
    let dropped = |of: &serde_json::Value| of["dropped_packets"].as_u64().unwrap_or_default();
    // By the attempts to connect since, there may be some more.
    ensure!((50..80).contains(&dropped(&entry)), "{entry}");
    ensure!((50..80).contains(&dropped(&incidents[0])), "{incidents}");
    ensure!(
        incidents[0]["last_seen"] == incidents[0]["responded_at"],
        "it was put on record again: {incidents}"
    );
    Ok(())
}

#[test]
fn a_store_of_a_later_version_is_refused_with_the_way_out() -> Result<()> {
    let lab = stopped()?;
    // `user_version` (https://www.sqlite.org/fileformat.html, 1.3).
    let mut bytes = fs::read(store(&lab))?;
    bytes.get_mut(60..64).context("no header")?.copy_from_slice(&99_u32.to_be_bytes());
    fs::write(store(&lab), &bytes)?;
    lab.xdpban(&["run"])?
        .expect_code(1)?
        .stderr_has("xdpban.db has version 99, made by a later xdpban")?
        .stderr_has("install that xdpban again, or move the file away")?;
    assert_eq!(fs::read(store(&lab))?, bytes, "the file was touched");
    is_closed(&lab)?;
    // The second way out.
    fs::rename(store(&lab), lab.dir().join("state/later.db"))?;
    let controller = start(&lab)?;
    assert_eq!(is_blocked(&lab)?["origin"], "adopted");
    let said = controller.output()?;
    assert!(said.contains("1 block stood in the gate, but the record of why is gone"), "{said}");
    Ok(())
}

#[test]
fn a_store_of_an_earlier_version_is_migrated() -> Result<()> {
    let lab = Lab::new()?;
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/store-1.sql");
    lab.sh(&format!(
        "mkdir -p {}/state && sqlite3 {} < {}",
        lab.dir().display(),
        store(&lab).display(),
        fixture.display()
    ))?;
    let _controller = start(&lab)?;
    is_closed(&lab)?;
    let show = lab.show(ATTACKER)?;
    let incident = &show["incidents"][0];
    assert_eq!(
        (&incident["outcome"], &incident["users"][0]),
        (&"in_force".into(), &"admin".into()),
        "{show}"
    );
    assert_eq!(show["entry"]["offences"], 2);
    assert_eq!(lab.show("10.99.67.1")?["incidents"][0]["outcome"], "lifted");
    lab.xdpban(&["verify-record"])?.success()?;
    let kinds = lab.sh(&format!("sqlite3 -readonly {} 'SELECT kind FROM records'", store(&lab).display()))?;
    assert!(kinds.contains("incident.migrated") && kinds.contains("store.migrated"), "{kinds}");
    Ok(())
}

#[test]
fn on_a_file_system_that_is_read_only_from_the_start_the_host_is_guarded() -> Result<()> {
    let lab = stopped()?;
    mount_state(&lab, "size=8m")?;
    let state = lab.dir().join("state").display().to_string();
    lab.sh(&format!("mount -o remount,ro {state}"))?;
    // As after a reboot.
    lab.xdpban(&["detach"])?.success()?;
    let _controller = start(&lab)?;
    assert_eq!(is_blocked(&lab)?["reason"], "a reason");
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1")?;
    is_told(&lab, "Read-only file system")?;
    lab.sh(&format!("mount -o remount,rw {state}"))?;
    lab.eventually("all is well again", Duration::from_secs(5), |lab| Ok(lab.health()?.is_empty()))?;
    assert_eq!(lab.show("10.99.70.1")?["incidents"][0]["outcome"], "in_force");
    is_on_record(&lab)
}

#[test]
fn on_a_disk_that_is_full_from_the_start_the_host_is_guarded() -> Result<()> {
    let lab = stopped()?;
    mount_state(&lab, "size=1m")?;
    let state = lab.dir().join("state").display().to_string();
    lab.sh(&format!("dd if=/dev/zero of={state}/filler bs=4k 2>&1 || true"))?;
    // As after a reboot.
    lab.xdpban(&["detach"])?.success()?;
    let _controller = start(&lab)?;
    assert_eq!(is_blocked(&lab)?["reason"], "a reason");
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1")?;
    lab.sh(&format!("rm {state}/filler"))?;
    lab.eventually("all is well again", Duration::from_secs(5), |lab| Ok(lab.health()?.is_empty()))
}

#[test]
fn on_a_disk_that_fills_up_operators_are_told_what_is_not_on_record() -> Result<()> {
    let lab = Lab::new()?;
    mount_state(&lab, "size=4m")?;
    let controller = start(&lab)?;
    lab.xdpban(&["block", "10.99.70.9"])?.success()?;
    let state = lab.dir().join("state").display().to_string();
    lab.sh(&format!("dd if=/dev/zero of={state}/filler bs=4k 2>&1 || true"))?;
    // What SQLite has of its file is used up first.
    lab.log().append(
        (0..3000).map(|n| invalid_user_line(n, "10.99.70.1") + "\n").collect::<String>().as_bytes(),
    )?;
    lab.blocked("10.99.70.1")?;
    let mut others = (0..=255).map(|n| format!("10.99.71.{n}"));
    lab.eventually("it is told", Duration::from_secs(20), |lab| {
        lab.xdpban(&["block", &others.next().context("all are blocked")?])?.success()?;
        Ok(lab.health()?.contains("the disk (or the quota) is full"))
    })?;
    is_told(&lab, "the disk (or the quota) is full")?;

    lab.sh(&format!("rm {state}/filler"))?;
    lab.eventually("all is well again", Duration::from_secs(5), |lab| Ok(lab.health()?.is_empty()))?;
    is_on_record(&lab)?;
    controller.kill9()?;
    is_closed(&lab)
}

/// That an operator who blocks the attacker is told at once that it is in force, and why it is not on record.
fn is_told(lab: &Lab, why: &str) -> Result<()> {
    let asked = Instant::now();
    let output = lab.xdpban(&["--json", "block", ATTACKER, "--for", "1h", "--reason", "a reason"])?;
    let took = asked.elapsed();
    output.success()?.stderr_has("in force, and not yet on record")?.stderr_has(why)?;
    ensure!(took < Duration::from_secs(3), "after {took:?}");
    let done = output.json()?;
    ensure!(done["unrecorded"].as_str().is_some_and(|said| said.contains(why)), "{done}");
    for command in ["incidents", "report", "verify-record"] {
        lab.xdpban(&[command])?
            .success()?
            .stderr_has("what happened last is not on record yet")?
            .stderr_has(why)?;
    }
    is_blocked(lab).map(drop)
}

/// That the attacker's block is on record with who asked for it and why, and the record is sound.
fn is_on_record(lab: &Lab) -> Result<()> {
    let show = lab.show(ATTACKER)?;
    let incident = &show["incidents"][0];
    ensure!(incident["reason"] == "a reason" && incident["uid"] == 0, "{show}");
    ensure!(incident["outcome"] == "in_force", "{show}");
    lab.xdpban(&["verify-record"])?.success().map(drop)
}

/// Mounts a file system on a loop device at `place`; returns the device's name. The device goes with the mount.
fn mount_ext4(lab: &Lab, place: &str) -> Result<String> {
    let on_the_machine = |script: String| -> Result<String> {
        let output = Command::new("sh").args(["-ec", &script]).output().context("start sh")?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let image = format!("{place}.image");
    let device = on_the_machine(format!(
        "truncate -s 16M {image}; mkfs.ext4 -q {image}; losetup --find --show {image}"
    ))?;
    let number = device.trim_start_matches("/dev/loop");
    let mounted = lab.sh(&format!(
        "mkdir -m 700 {place} && mknod {place}.loop b 7 {number} && mount -o errors=remount-ro {place}.loop {place} && \
         chmod 700 {place}"
    ));
    on_the_machine(format!("losetup --detach {device}"))?;
    mounted?;
    Ok(format!("loop{number}"))
}

#[test]
fn a_store_that_turns_read_only_is_told_and_blocking_goes_on() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let state = lab.dir().join("state").display().to_string();
    let device = mount_ext4(&lab, &state)?;
    let controller = start(&lab)?;
    lab.xdpban(&["block", "10.99.70.9", "--for", "1h"])?.success()?;
    // A file system that finds itself damaged turns read-only, with whatever is open on it.
    fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").context("damage the file system")?;
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1")?;
    lab.eventually("status tells of it", Duration::from_secs(5), |lab| {
        Ok(lab.health()?.contains("has turned read-only"))
    })?;
    is_told(&lab, "has turned read-only")?;
    assert_eq!(lab.show("10.99.70.9")?["incidents"][0]["outcome"], "in_force", "what is on record is read");
    let (status, took) = controller.stop()?;
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    let said = fs::read_to_string(lab.dir().join("controller.log"))?;
    assert!(said.contains("records could not be written to the store"), "{said}");
    is_closed(&lab)?;
    // On another one, the gate tells what is blocked.
    lab.sh(&format!("umount {state}"))?;
    let _controller = start(&lab)?;
    assert_eq!(is_blocked(&lab)?["origin"], "adopted");
    Ok(())
}

#[test]
fn a_store_that_is_removed_while_it_is_used_is_begun_anew() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.xdpban(&["allow", "add", "10.99.72.0/24", "--comment", "ours"])?.success()?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h", "--reason", "a reason"])?.success()?;
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1")?;
    lab.sh(&format!("rm {}*", store(&lab).display()))?;
    lab.xdpban(&["block", "10.99.70.9", "--for", "1h"])?.success()?;
    is_begun_anew(&lab, controller, "xdpban.db was removed while it was in use")
}

#[test]
fn a_store_that_is_damaged_while_it_is_used_is_set_aside() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.xdpban(&["allow", "add", "10.99.72.0/24", "--comment", "ours"])?.success()?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h", "--reason", "a reason"])?.success()?;
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1")?;
    // More than SQLite keeps in memory, or damage to the file would not be noticed.
    let list: String =
        (0..25_000).map(|n| format!("{}\n", Ipv4Addr::from_bits(0x0a60_0000 + 2 * n))).collect();
    let blocked = lab.xdpban_with_input(&["block", "--for", "1h", "--from", "-"], list.as_bytes())?;
    blocked.success()?;
    lab.eventually("all of them are on record", Duration::from_secs(30), |lab| {
        Ok(lab.xdpban(&["block", "10.99.70.8", "--for", "1h"])?.success()?.stderr().is_empty())
    })?;
    let mut file = fs::OpenOptions::new().write(true).open(store(&lab))?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(4096))?;
    file.write_all(&vec![0x5a; usize::try_from(length)? - 4096])?;
    drop(file);
    let list: String =
        (0..2000).map(|n| format!("{}\n", Ipv4Addr::from_bits(0x0a60_0001 + 24 * n))).collect();
    lab.xdpban_with_input(&["block", "--for", "1h", "--from", "-"], list.as_bytes())?.success()?;
    lab.eventually("it is set aside", Duration::from_secs(10), |lab| {
        Ok(lab.health()?.contains("it was set aside as"))
    })?;
    lab.sh(&format!("ls {}.set-aside-*", store(&lab).display()))?;
    is_begun_anew(&lab, controller, "it is damaged")
}

/// That what is in force is on record anew: a controller that is killed leaves that to the next one, with the allowlist and
/// where the log was read to.
fn is_begun_anew(lab: &Lab, controller: Controller, why: &str) -> Result<()> {
    lab.eventually("status tells of it", Duration::from_secs(10), |lab| Ok(lab.health()?.contains(why)))?;
    lab.eventually("what is in force is on record", Duration::from_secs(20), |lab| {
        Ok(lab.show(ATTACKER)?["incidents"][0]["outcome"] == "in_force")
    })?;
    lab.xdpban(&["unblock", "10.99.70.1"])?.success()?.stdout_has("1 target unblocked")?;
    controller.kill9()?;
    let _controller = start(lab)?;
    ensure!(is_blocked(lab)?["reason"] == "a reason", "why it was blocked is lost");
    lab.xdpban(&["allow", "list"])?.success()?.stdout_has("10.99.72.0/24")?;
    lab.has_read_the_log()?;
    ensure!(lab.entry("10.99.70.1")?.is_none(), "its line was read again");
    lab.xdpban(&["verify-record"])?.success()?;
    let listed = lab.targets()?.len();
    let in_force = lab.sh(&format!(
        "sqlite3 -readonly {} \"SELECT count(*) FROM incidents WHERE outcome = 'in_force'\"",
        store(lab).display()
    ))?;
    ensure!(in_force.trim() == listed.to_string(), "{listed} are blocked, {in_force} by the record");
    Ok(())
}

#[test]
fn a_record_that_is_begun_anew_knows_of_a_trial_and_of_past_offenders() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config_with_timeout("1h"))?;
    let controller = lab.start_controller_with(&["run", "--trial", "5s"])?;
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1")?;
    // To unblock it would forgive it.
    lab.xdpban(&["block", "10.99.70.1", "--for", "1s"])?.success()?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h"])?.success()?;
    let expires_at = lab.blocked(ATTACKER)?["expires_at"].clone();
    lab.sh(&format!("rm {}*", store(&lab).display()))?;
    lab.xdpban(&["block", "10.99.70.9"])?.success()?;
    lab.eventually("the record is begun anew", Duration::from_secs(3), |lab| {
        Ok(lab.health()?.contains("was removed while it was in use"))
    })?;
    lab.eventually("what is in force is on record", Duration::from_secs(3), |lab| {
        Ok(lab.show(ATTACKER)?["incidents"][0]["outcome"] == "in_force")
    })?;
    controller.kill9()?;
    // By then the trial would be over, and nothing stands in the kernel any longer.
    std::thread::sleep(Duration::from_secs(6));
    let controller = lab.start_controller_with(&["run"])?;
    ensure!(controller.output()?.contains("the last trial was cut short"), "{}", controller.output()?);
    ensure!(lab.blocked(ATTACKER)?["expires_at"] == expires_at, "it has its whole time again");
    lab.log().invalid_user(2, "10.99.70.1")?;
    ensure!(lab.blocked("10.99.70.1")?["offences"] == 2, "it was blocked before");
    lab.xdpban(&["verify-record"])?.success().map(drop)
}

#[test]
fn a_record_that_is_begun_anew_says_what_rests() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&format!("{}[limits]\nblocks = 16\n", lab.config()))?;
    lab.xdpban(&["block", ATTACKER, "--throttle", "10/s"])?.success()?;
    let slots = slots(&lab)?;
    let rests = |origin| {
        lab.eventually("it rests on record", Duration::from_secs(5), |lab| {
            let show = lab.show(ATTACKER)?;
            let mut incidents = show["incidents"].as_array().into_iter().flatten();
            let throttle = incidents.find(|incident| incident["action"] == "throttle");
            let rests = "rests while 10.99.66.0/24 has a stricter block";
            Ok(throttle.is_some_and(|it| it["origin"] == origin && it["outcome_reason"] == rests))
        })
    };
    lab.xdpban(&["block", "10.99.66.0/24"])?.success()?;
    rests("operator")?;
    lab.sh(&format!("rm {}*", store(&lab).display()))?;
    lab.eventually("the record is begun anew", Duration::from_secs(5), |lab| {
        lab.xdpban(&["block", "10.99.70.9"])?.success()?;
        Ok(lab.health()?.contains("was removed while it was in use"))
    })?;
    rests("operator")?;

    // As a controller leaves it that is killed before it takes the throttle out.
    controller.kill9()?;
    for slot in slots {
        lab.sh(&format!("bpftool map update pinned {PINS}/v*/BLOCK4 {slot}"))?;
    }
    lab.sh(&format!("rm {}*", store(&lab).display()))?;
    let _controller = lab.start_controller_with(&["run"])?;
    rests("adopted")?;
    assert_eq!(lab.targets()?, ["10.99.66.0/24", "10.99.70.9"]);
    lab.xdpban(&["verify-record"])?.success().map(drop)
}

/// The slots of the table of IPv4 that are not empty, each as bpftool takes it.
fn slots(lab: &Lab) -> Result<Vec<String>> {
    let dump = lab.sh(&format!("bpftool -j map dump pinned {PINS}/v*/BLOCK4"))?;
    let slots: Vec<serde_json::Value> = serde_json::from_str(&dump)?;
    let bytes = |slot: &serde_json::Value, of: &str| -> Option<String> {
        Some(slot[of].as_array()?.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(" "))
    };
    let slots = slots.iter().filter_map(|slot| bytes(slot, "key").zip(bytes(slot, "value")));
    let used = slots.filter(|(_, value)| value.split(' ').any(|byte| byte != "0x00"));
    Ok(used.map(|(key, value)| format!("key {key} value {value}")).collect())
}

#[test]
fn a_table_that_someone_unpinned_is_filled_from_the_record() -> Result<()> {
    for table in ["BLOCK4", "CONTROL", "TOTALS", "ALLOW4"] {
        let lab = stopped()?;
        let stream = lab.stream(Side::Attacker, Side::Attacker.v4(), Duration::from_micros(500))?;
        lab.sh(&format!("rm {PINS}/v*/{table}"))?;
        let _controller = start(&lab)?;
        assert_eq!(is_blocked(&lab).context(table)?["reason"], "a reason");
        let (sent, received) = stream.stop()?;
        assert!(sent > 0 && received == 0, "{table}: {received} of {sent} datagrams got through");
    }
    Ok(())
}

#[test]
fn pins_that_someone_removes_under_a_running_controller_open_no_gate() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h", "--reason", "a reason"])?.success()?;
    let stream = lab.stream(Side::Attacker, Side::Attacker.v4(), Duration::from_micros(500))?;
    lab.sh(&format!("rm {PINS}/v*/*"))?;
    assert_eq!(is_blocked(&lab)?["reason"], "a reason");
    lab.log().invalid_user(1, "10.99.70.1")?;
    lab.blocked("10.99.70.1")?;
    controller.stop()?;
    // Neither tables nor programs are to be found by their pins; the links are.
    let _controller = start(&lab)?;
    assert_eq!(is_blocked(&lab)?["reason"], "a reason");
    let (sent, received) = stream.stop()?;
    ensure!(sent > 0 && received == 0, "{received} of {sent} datagrams got through");
    Ok(())
}

#[test]
fn pins_of_another_version_are_cleared_away() -> Result<()> {
    let lab = Lab::new()?;
    for layout in ["v0", "v999"] {
        lab.sh(&format!(
            "mkdir -p {PINS}/{layout} && \
             bpftool map create {PINS}/{layout}/BLOCK4 type hash key 4 value 48 entries 7 name BLOCK4"
        ))?;
    }
    let controller = start(&lab)?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h"])?.success()?;
    is_blocked(&lab)?;
    assert_eq!(lab.sh(&format!("ls {PINS} | grep -cE 'v0|v999' || true"))?, "0\n");
    controller.stop()?;
    lab.xdpban(&["detach"])?.success()?;
    lab.sh(&format!("test ! -e {PINS}"))?;
    Ok(())
}

#[test]
fn a_foreign_map_in_the_place_of_a_table_is_replaced() -> Result<()> {
    let lab = stopped()?;
    lab.sh(&format!(
        "pin=$(ls -d {PINS}/v*/BLOCK4) && rm $pin && \
         bpftool map create $pin type array key 4 value 8 entries 3 name foreign"
    ))?;
    let _controller = start(&lab)?;
    assert_eq!(is_blocked(&lab)?["reason"], "a reason");
    Ok(())
}

#[test]
fn foreign_pins_are_told_of_and_left_alone() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    lab.sh(&format!(
        "mkdir -p {PINS}/links && \
         bpftool map create {PINS}/links/native-eth0 type array key 4 value 8 entries 3 name foreign"
    ))?;
    let output = lab.xdpban(&["run"])?;
    output.expect_code(1)?.stderr_has(&format!("{PINS}/links/native-eth0"))?;
    lab.sh(&format!("bpftool map show pinned {PINS}/links/native-eth0"))?;
    lab.sh(&format!("rm {PINS}/links/native-eth0"))?;
    let _controller = start(&lab)?;
    Ok(())
}

#[test]
fn without_a_bpffs_it_says_how_to_mount_one() -> Result<()> {
    let lab = Lab::new()?;
    lab.sh("umount /sys/fs/bpf")?;
    lab.write_config(&lab.config())?;
    lab.xdpban(&["run"])?
        .expect_code(1)?
        .stderr_has("is not on a bpffs")?
        .stderr_has("mount -t bpf bpf /sys/fs/bpf")?;
    lab.sh("mount -t bpf bpf /sys/fs/bpf")?;
    let _controller = start(&lab)?;
    Ok(())
}

#[test]
fn too_little_memory_for_the_tables_is_told_with_the_key_to_lower() -> Result<()> {
    let lab = Lab::new()?;
    let many = format!("{}[limits]\nblocks = 4000000\n", lab.config());
    lab.write_config(&many)?;
    let said = within_memory(&lab, 64)?;
    assert!(said.contains("cannot create the kernel's tables") && said.contains("limits.blocks"), "{said}");
    // What is lowered as it says starts.
    let controller = lab.start_controller(&many.replace("4000000", "4000"))?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h"])?.success()?;
    is_blocked(&lab)?;
    controller.stop()?;
    // A start that fails for want of memory leaves the gate as it was.
    lab.write_config(&many)?;
    within_memory(&lab, 64)?;
    is_closed(&lab)
}

/// Runs the controller with so many MiB of memory, those of the tables included; returns what it says of its failure.
fn within_memory(lab: &Lab, mebibytes: u32) -> Result<String> {
    let script = format!(
        "set -e; root={dir}/cgroup; mkdir -p $root
         if mount -t cgroup -o memory none $root 2>/dev/null
         then limit=memory.limit_in_bytes
         else mount -t cgroup2 none $root; echo +memory > $root/cgroup.subtree_control; limit=memory.max; fi
         group=$root/xdpban-test-$$; mkdir $group; echo {mebibytes}M > $group/$limit
         sh -c \"echo \\$\\$ > $group/cgroup.procs; exec timeout 10 {line} run\" 2>&1 && code=0 || code=$?
         rmdir $group; umount $root; echo code $code",
        dir = lab.dir().display(),
        line = lab.xdpban_line()?,
    );
    let said = lab.sh(&script)?;
    ensure!(said.ends_with("code 1\n"), "{said}");
    Ok(said)
}
