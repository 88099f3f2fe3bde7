//! A run on trial: everything is taken off again unless it is confirmed.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";
const OTHER: &str = "10.99.70.1";

/// Whether anything of xdpban's is pinned in the lab.
fn pinned(lab: &Lab) -> Result<bool> {
    Ok(lab.sh("if [ -e /sys/fs/bpf/xdpban ]; then echo yes; fi")?.contains("yes"))
}

#[test]
fn without_a_word_everything_is_taken_off_again() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let controller = lab.start_controller_with(&["run", "--trial", "4s"])?;
    assert!(controller.output()?.contains("on trial: in 4 s everything is taken off this host again"));
    lab.xdpban(&["block", ATTACKER])?.success()?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    let status = lab.status()?;
    assert!(status["trial_left_s"].as_u64().is_some_and(|left| left <= 4), "{status}");
    assert!(lab.health()?.contains("on trial: in "));

    lab.eventually("it ended", Duration::from_secs(8), |lab| Ok(lab.xdpban(&["status"])?.code() == Some(3)))?;
    lab.eventually("it is off", Duration::from_secs(2), |lab| Ok(!pinned(lab)?))?;
    assert!(controller.output()?.contains("nobody confirmed the trial"));
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    // The record stays, and a later run restores what is in force by it.
    let controller = lab.start_controller_with(&["run"])?;
    assert_eq!(lab.targets()?, [ATTACKER]);
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    lab.xdpban(&["confirm"])?.expect_code(1)?.stderr_has("does not run on trial")?;
    controller.stop()?;
    Ok(())
}

#[test]
fn confirmed_it_goes_on_and_blocks_keep_their_time() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let controller = lab.start_controller_with(&["run", "--trial", "5s"])?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    lab.xdpban(&["confirm"])?.success()?.stdout_has("confirmed")?;
    assert!(lab.status()?["trial_left_s"].is_null());
    sleep(Duration::from_secs(6));
    assert_eq!(lab.status()?["pid"], controller.pid());
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?, "the kernel has its whole time");
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

#[test]
fn a_confirmation_that_comes_too_late_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let controller = lab.start_controller_with(&["run", "--trial", "4s"])?;
    // While the configuration is read again nothing else is done: what comes meanwhile waits, and the end with it.
    let (config, aside) = (lab.config_file(), lab.dir().join("aside.toml"));
    fs::rename(&config, &aside)?;
    lab.sh(&format!("mkfifo {}", config.display()))?;
    controller.reload()?;
    sleep(Duration::from_millis(500));
    let mut confirm = lab.command(Side::Host, lab.xdpban_binary()?);
    confirm.arg("--config").arg(&aside).arg("confirm").stdout(Stdio::piped()).stderr(Stdio::piped());
    let confirm = confirm.spawn()?;
    sleep(Duration::from_secs(5));
    lab.sh(&format!("timeout 5 sh -c 'cat {} >{}'", aside.display(), config.display()))?;
    let confirm = confirm.wait_with_output()?;
    fs::rename(&aside, &config)?;

    assert!(!confirm.status.success(), "{confirm:?}");
    let said = String::from_utf8_lossy(&confirm.stderr);
    assert!(said.contains("the controller is stopping"), "{said}");
    lab.eventually("it is off", Duration::from_secs(5), |lab| Ok(!pinned(lab)?))?;
    let output = controller.output()?;
    assert!(output.contains("nobody confirmed") && !output.contains("the trial is confirmed"), "{output}");
    Ok(())
}

#[test]
fn a_trial_whose_controller_is_killed_leaves_nothing_blocked_beyond_it() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let controller = lab.start_controller_with(&["run", "--trial", "6s"])?;
    lab.xdpban(&["block", ATTACKER, "--for", "1h"])?.success()?;
    let expires_at = lab.blocked(ATTACKER)?["expires_at"].clone();
    lab.xdpban(&["block", OTHER, "--for", "3s"])?.success()?;
    controller.kill9()?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?, "until then the gate stands");
    lab.eventually("the entry lapsed", Duration::from_secs(10), |lab| {
        lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)
    })?;
    // The next run takes the block up with the time that it has on record, and no longer one that is over.
    let controller = lab.start_controller_with(&["run"])?;
    assert!(controller.output()?.contains("the last trial was cut short"));
    assert_eq!(lab.targets()?, [ATTACKER]);
    assert_eq!(lab.blocked(ATTACKER)?["expires_at"], expires_at);
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert!(lab.login_ok(Side::Bystander)?);
    controller.kill9()?;
    // That was no trial: what stands in the kernel is the blocks' own again.
    let controller = lab.start_controller_with(&["run"])?;
    assert_eq!(controller.output()?.matches("the last trial was cut short").count(), 1);
    assert_eq!(lab.blocked(ATTACKER)?["expires_at"], expires_at);
    Ok(())
}

#[test]
fn a_trial_that_is_killed_and_begun_again_keeps_the_whole_time_on_record() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let controller = lab.start_controller_with(&["run", "--trial", "1m"])?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    lab.blocked(ATTACKER)?;
    controller.kill9()?;
    let _controller = lab.start_controller_with(&["run", "--trial", "1m"])?;
    assert!(lab.blocked(ATTACKER)?["expires_at"].is_null(), "until unblocked");
    lab.xdpban(&["confirm"])?.success()?;
    assert!(lab.blocked(ATTACKER)?["expires_at"].is_null());
    Ok(())
}
