//! SIGHUP: a sound configuration takes effect, a faulty one changes nothing and is told of.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use xdpban_tests::{Lab, Side, invalid_user_line};

const ATTACKER: &str = "10.99.66.66";
const READ_AGAIN: &str = "configuration and rules read again";

#[test]
fn a_new_timeout_applies_to_new_blocks() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config_with_timeout("1h"))?;
    lab.log().invalid_user(1, "10.99.70.1")?;
    assert_eq!(lab.blocked("10.99.70.1")?["expires_in_s"], 3600);

    lab.write_config(&lab.config_with_timeout("2h"))?;
    controller.reload()?;
    lab.eventually("it is read again", Duration::from_secs(5), |_| {
        Ok(controller.output()?.contains(READ_AGAIN))
    })?;
    let output = controller.output()?;
    assert!(output.contains("on 5710: blocks the source for 2 h"), "it says what it will do: {output}");
    lab.log().invalid_user(2, "10.99.70.2")?;
    assert_eq!(lab.blocked("10.99.70.2")?["expires_in_s"], 7200);
    assert_eq!(lab.targets()?, ["10.99.70.1", "10.99.70.2"]);
    assert_eq!(lab.status()?["health"], json!([]));
    Ok(())
}

#[test]
fn a_new_allowlist_lifts_blocks() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.xdpban(&["block", "10.99.67.0/24"])?.success()?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);

    lab.write_config(&format!("{}[allow]\nnetworks = [\"10.99.66.0/24\"]\n", lab.config()))?;
    controller.reload()?;
    lab.eventually("the block is lifted", Duration::from_secs(5), |lab| {
        Ok(lab.targets()? == ["10.99.67.0/24"])
    })?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    let show = lab.show(ATTACKER)?;
    assert_eq!(show["incidents"][0]["outcome"], "lifted", "{show}");
    let reason = show["incidents"][0]["outcome_reason"].as_str().unwrap_or_default();
    assert!(reason.contains("it lies in 10.99.66.0/24, which is on the allowlist"), "{show}");
    lab.attack(Side::Attacker.v4())?;
    lab.has_read_the_log()?;
    assert_eq!(lab.targets()?, ["10.99.67.0/24"]);
    Ok(())
}

#[test]
fn a_faulty_configuration_leaves_the_running_one_in_force() -> Result<()> {
    let lab = Lab::new()?;
    let sound = lab.config_with_timeout("1h");
    let controller = lab.start_controller(&sound)?;
    let top = "mode = 7\ntimout = \"2h\"\n\n";
    let tables = "[limits]\nblocks = 0\n\n[allow]\nnetworks = [\"300.0.0.1\"]\n";
    let faulty = format!("{top}{}{tables}", lab.config());
    lab.write_config(&faulty)?;
    controller.reload()?;
    lab.eventually("status tells of it", Duration::from_secs(5), |lab| {
        Ok(lab.health()?.contains("the configuration on disk is faulty and was not taken"))
    })?;
    let file = lab.config_file().display().to_string();
    let said = controller.output()?;
    let health = lab.health()?;
    for (fault, word) in
        [("mode =", "mode"), ("timout", "timout"), ("blocks", "blocks"), ("networks", "300.0.0.1")]
    {
        let line = 1 + faulty.lines().position(|line| line.starts_with(fault)).context(fault)?;
        let fault = said.lines().find(|said| said.contains(&format!("{file}:{line}: ")));
        assert!(fault.is_some_and(|fault| fault.contains(word)), "line {line}, {word}\n{said}");
    }
    assert!(health.contains("4 faults") && health.contains(&format!("{file}:1: ")), "{health}");
    assert!(said.contains("the running one stays in force"), "{said}");

    lab.log().invalid_user(1, "10.99.70.1")?;
    assert_eq!(lab.blocked("10.99.70.1")?["expires_in_s"], 3600);
    // An operator must not be kept from what they came for.
    let list = lab.xdpban(&["list"])?;
    list.success()?.stdout_has("10.99.70.1")?.stderr_has("the configuration is faulty")?;
    lab.xdpban(&["unblock", "10.99.70.1"])?.success()?;

    lab.write_config(&sound)?;
    controller.reload()?;
    lab.eventually("all is well again", Duration::from_secs(5), |lab| Ok(lab.health()?.is_empty()))
}

#[test]
fn rules_of_ones_own_take_effect() -> Result<()> {
    let lab = Lab::new()?;
    let response = "[[response]]\nlevel = 10\naction = \"block\"\ntimeout = \"1h\"\n";
    let controller = lab.start_controller(&format!("{}{response}", lab.config()))?;
    lab.fail_login("alice")?;
    lab.has_read_the_log()?;
    assert_eq!(lab.targets()?, [""; 0]);

    let rules = lab.dir().join("rules.d/mine.toml");
    let rule = "[[rule]]\nid = 100001\nlevel = 10\ngroups = [\"mine\"]\n";
    fs::write(&rules, format!("{rule}description = \"one is too many\"\nevents = [\"failed_password\"]\n"))?;
    controller.reload()?;
    lab.eventually("it is read again", Duration::from_secs(5), |_| {
        Ok(controller.output()?.contains(READ_AGAIN))
    })?;
    lab.fail_login("alice")?;
    assert_eq!(lab.blocked(ATTACKER)?["rule"]["id"], 100_001);

    fs::write(&rules, "[[rule]]\nid = \"many\"\n")?;
    controller.reload()?;
    lab.eventually("the fault is told of", Duration::from_secs(5), |lab| {
        Ok(lab.health()?.contains(&format!("{}:2: ", rules.display())))
    })
}

#[test]
fn another_log_is_watched_and_the_first_no_longer() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    let other = lab.dir().join("log/other.log");
    let log = lab.log().path().display().to_string();
    lab.write_config(&lab.config().replace(&log, &other.display().to_string()))?;
    controller.reload()?;
    lab.eventually("the other log is watched", Duration::from_secs(5), |lab| {
        Ok(lab.status()?["sources"][0]["path"] == json!(other))
    })?;
    lab.log().invalid_user(1, "10.99.70.1")?;
    let line = invalid_user_line(2, "10.99.70.2");
    fs::write(&other, format!("{line}\n"))?;
    lab.blocked("10.99.70.2")?;
    assert_eq!(lab.targets()?, ["10.99.70.2"]);
    Ok(())
}

#[test]
fn what_only_a_restart_can_change_is_said() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.write_config(&format!("{}[limits]\nblocks = 32\n", lab.config()))?;
    controller.reload()?;
    lab.eventually("it is read again", Duration::from_secs(5), |_| {
        Ok(controller.output()?.contains(READ_AGAIN))
    })?;
    let said = controller.output()?;
    let expected = "[limits] blocks and prefixes changed, which takes effect at the next start";
    assert!(said.contains(expected), "{said}");
    Ok(())
}
