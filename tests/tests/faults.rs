//! What is broken around the controller: its store, its pins, the memory that it may use. It goes on, or says what to do; and
//! the gate stays closed to what is blocked.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xdpban_tests::{Controller, Lab, Side};

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
    let _controller = start(&lab)?;
    assert_eq!(is_blocked(&lab)?["origin"], "adopted");
    Ok(())
}

#[test]
fn a_read_only_store_leaves_the_gate_closed() -> Result<()> {
    let lab = stopped()?;
    mount_state(&lab, "size=8m")?;
    let state = lab.dir().join("state").display().to_string();
    lab.sh(&format!("mount -o remount,ro {state}"))?;
    lab.xdpban(&["run"])?.expect_code(1)?.stderr_has(&state)?.stderr_has("Read-only file system")?;
    is_closed(&lab)?;
    lab.sh(&format!("mount -o remount,rw {state}"))?;
    let _controller = start(&lab)?;
    assert_eq!(is_blocked(&lab)?["reason"], "a reason");
    Ok(())
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
