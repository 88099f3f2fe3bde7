//! xdpban as an executable of Wazuh's Active Response, driven as Wazuh drives it.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xdpban_tests::{Controller, Execd, GATEWAY_V4, Lab, Side};

const ATTACKER: &str = "10.99.66.66";
const OTHER: &str = "10.99.70.1";

/// A controller that learns of attacks from Wazuh alone.
fn controller(lab: &Lab) -> Result<Controller> {
    let silent = lab.dir().join("silent.log");
    File::create(&silent).context("create an empty log")?;
    lab.start_controller(&lab.config_with_source("file", &silent))
}

#[test]
fn the_log_reads_as_wazuhs_own() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = controller(&lab)?;
    let execd = Execd::new(&lab, "firewall-drop")?;
    let ended = execd.run("add", ATTACKER, "a line")?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "");
    let log = execd.log()?;
    let json = |line: usize| serde_json::from_str::<Value>(&log[line]);
    assert_eq!((log[0].as_str(), log.len()), ("Starting", 6), "{log:?}");
    // What rules 651 and 652 go by.
    assert_eq!(json(1)?["command"], "add");
    assert_eq!(json(1)?["parameters"]["program"], "active-response/bin/firewall-drop");
    let keys = json(2)?;
    assert_eq!(
        (&keys["command"], &keys["parameters"]["keys"], &keys["origin"]["name"]),
        (&json!("check_keys"), &json!([ATTACKER]), &json!("firewall-drop"))
    );
    assert_eq!(json(3)?["command"], "continue");
    assert_eq!(log[4], format!("xdpban: blocked {ATTACKER} until Wazuh lifts it, at most for 1 d"));
    assert_eq!(log[5], "Ended");
    let entry = lab.blocked(ATTACKER)?;
    let left = entry["expires_in_s"].as_u64().unwrap_or_default();
    assert!((86_300..=86_400).contains(&left), "{entry}");

    let ended = execd.run("delete", ATTACKER, "a line")?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(lab.targets()?, [""; 0]);
    let log = execd.log()?;
    assert_eq!(log[6..].len(), 4, "{log:?}");
    assert_eq!(log[8], format!("xdpban: unblocked {ATTACKER}"));
    // The time was over here first, or an operator lifted it.
    assert_eq!(execd.run("delete", ATTACKER, "a line")?.code, Some(0));
    Ok(())
}

#[test]
fn what_wazuh_calls_off_is_left_and_what_it_renews_lasts_longer() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = controller(&lab)?;
    let execd = Execd::new(&lab, "firewall-drop")?;
    let abort = |timeout: u64| {
        let mut started = execd.start(&execd.message_5("enable", ATTACKER, "a line", timeout).to_string())?;
        started.keys()?.context("no keys")?;
        started.write(r#"{"version":1,"command":"abort"}"#)?;
        started.end()
    };
    assert_eq!(abort(50)?.code, Some(0));
    assert_eq!(lab.targets()?, [""; 0]);
    assert_eq!(execd.log()?.last().map(String::as_str), Some("Aborted"));

    let mut started = execd.start(&execd.message_5("enable", ATTACKER, "", 50).to_string())?;
    started.keys()?.context("no keys")?;
    started.write(r#"{"version":1,"command":"continue"}"#)?;
    assert_eq!(started.end()?.code, Some(0));
    let left = |lab: &Lab| Ok::<_, anyhow::Error>(lab.blocked(ATTACKER)?["expires_in_s"].as_u64());
    assert!(left(&lab)? <= Some(50), "{:?}", lab.list()?);
    assert_eq!(abort(500)?.code, Some(0));
    assert!(left(&lab)? > Some(400), "{:?}", lab.list()?);

    let disable = execd.message_5("disable", ATTACKER, "", 50);
    assert_eq!(execd.start(&disable.to_string())?.end()?.code, Some(0));
    assert_eq!(lab.targets()?, [""; 0]);
    Ok(())
}

#[test]
fn the_protected_are_refused_and_blocks_of_others_stay() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = controller(&lab)?;
    let execd = Execd::new(&lab, "firewall-drop")?;
    let gateway = GATEWAY_V4.to_string();
    let ended = execd.run("add", &gateway, "a line")?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = format!("did not block: {gateway} is never blocked: it is this host's default gateway");
    assert!(ended.stderr.contains(&said), "{ended:?}");
    assert_eq!(execd.log()?.last(), Some(&format!("xdpban: {said}")));
    assert_eq!(execd.run("delete", &gateway, "a line")?.code, Some(0));
    let incidents = lab.show(&gateway)?["incidents"].clone();
    assert_eq!((&incidents[0]["outcome"], &incidents[0]["origin"]), (&json!("refused"), &json!("wazuh")));

    lab.xdpban(&["block", OTHER, "--for", "1h"])?.success()?;
    for command in ["add", "delete"] {
        assert_eq!(execd.run(command, OTHER, "a line")?.code, Some(0));
        let entry = lab.blocked(OTHER)?;
        assert_eq!(entry["origin"], "operator", "{entry}");
    }
    Ok(())
}

#[test]
fn without_a_controller_wazuh_is_not_told_that_it_blocks() -> Result<()> {
    let lab = Lab::new()?;
    let execd = Execd::new(&lab, "firewall-drop")?;
    let mut started = execd.start(&execd.message("add", ATTACKER, "a line").to_string())?;
    assert_eq!(started.keys()?, None);
    let ended = started.end()?;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("the controller is not running"), "{ended:?}");
    let log = execd.log()?;
    assert!(log[2].starts_with("xdpban: the controller is not running"), "{log:?}");
    Ok(())
}

#[test]
fn what_is_no_message_is_refused() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = controller(&lab)?;
    let execd = Execd::new(&lab, "firewall-drop")?;
    let host_name = execd.message("add", "gw1.example.com", "a line").to_string();
    let long = execd.message("add", ATTACKER, &"x".repeat(2 << 20)).to_string();
    for (line, why) in [
        ("nonsense", "Invalid input format"),
        (r#"{"version":1,"origin":{},"command":"add","parameters":{}}"#, "Cannot read 'srcip'"),
        (host_name.as_str(), "Invalid IP address: `gw1.example.com`"),
        (long.as_str(), "longer than 1048576 bytes"),
    ] {
        let mut started = execd.start(line)?;
        assert_eq!(started.keys()?, None, "{why}");
        let ended = started.end()?;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
        assert!(ended.took < Duration::from_secs(5), "{ended:?}");
    }
    assert_eq!(lab.targets()?, [""; 0]);

    let other = Execd::new(&lab, "route-null")?;
    let ended = other.start("")?.end()?;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("xdpban does not do what Wazuh's `route-null` does"), "{ended:?}");
    Ok(())
}

#[test]
fn it_can_be_started_by_hand() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = controller(&lab)?;
    let execd = Execd::new(&lab, "firewall-drop")?;
    let [add, go] = ["add", "continue"].map(|command| execd.message(command, ATTACKER, "a line"));
    let log = lab.dir().join("by-hand.log").display().to_string();
    let lines = format!("{add}\n{go}\n");
    let output = lab.xdpban_with_input(&["wazuh-ar", "--log", &log], lines.as_bytes())?;
    output.success()?.stdout_has("check_keys")?;
    lab.blocked(ATTACKER)?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    Ok(())
}
