//! The case that the project starts from: an unknown user tries to log in, rule 5710 fires, the address is blocked for 100
//! seconds, the block ends, and all of it is on record. With xdpban's own rules, with the alert of a Wazuh manager, and with
//! xdpban as Wazuh's executable; and the same with a throttle. For a command see `commands.rs`, for account lockout `lockout.rs`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xdpban_tests::{Controller, Execd, Lab, Side};

const ATTACKER: &str = "10.99.66.66";

/// The attacker has tried to log in; the line that sshd wrote about it.
fn attack(lab: &Lab) -> Result<String> {
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    lab.attack(Side::Attacker.v4())?;
    let log = lab.log().text()?;
    log.lines().rfind(|line| line.contains("Invalid user admin")).map(str::to_owned).context("no line")
}

/// The attacker is out, and the bystander is not.
fn blocked(lab: &Lab) -> Result<Value> {
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!(entry["rule"]["id"], 5710, "{entry}");
    assert_eq!(entry["action"], "block", "{entry}");
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(entry)
}

/// The alert and the response are on record; what was done ends, which is on record too, and the report shows it.
fn ends_and_is_on_record(lab: &Lab, line: &str, action: &str, origin: &str, outcome: &str) -> Result<()> {
    let incident = |lab: &Lab| Ok::<_, anyhow::Error>(lab.show(ATTACKER)?["incidents"][0].clone());
    let mut last = Value::Null;
    lab.eventually("the incident is on record", Duration::from_secs(5), |lab| {
        last = incident(lab)?;
        Ok(!last.is_null())
    })?;
    let first = last;
    assert_eq!((&first["rule"]["id"], &first["rule"]["level"]), (&json!(5710), &json!(5)), "{first}");
    assert_eq!((&first["target"], &first["action"]), (&json!(ATTACKER), &json!(action)), "{first}");
    assert_eq!((&first["origin"], &first["users"]), (&json!(origin), &json!(["admin"])), "{first}");
    let evidence: Vec<&str> =
        first["evidence"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(evidence.contains(&line), "{line}: {first}");
    assert!(first["line_to_block_ms"].is_number() && first["responded_at"].is_string(), "{first}");

    let mut last = Value::Null;
    lab.eventually("the end is on record", Duration::from_secs(15), |lab| {
        last = incident(lab)?;
        Ok(last["outcome"] != "in_force")
    })?;
    assert_eq!(last["outcome"], outcome, "{last}");
    assert_eq!(last["id"], first["id"]);
    assert!(last["outcome_at"].is_string() && last["dropped_packets"].as_u64() > Some(0), "{last}");
    assert_eq!(lab.targets()?, [""; 0]);
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);

    let report = lab.xdpban(&["--json", "report"])?.json()?;
    let incidents = report["responses"]["listed"].as_array().context("a report without incidents")?;
    let incident = incidents.iter().find(|incident| incident["id"] == first["id"]);
    let incident = incident.with_context(|| format!("not in the report: {report}"))?;
    assert_eq!(
        (&incident["target"], &incident["outcome"]),
        (&json!(ATTACKER), &json!(outcome)),
        "{incident}"
    );
    assert_eq!((&incident["action"], &incident["rule_id"]), (&json!(action), &json!(5710)), "{incident}");
    Ok(())
}

#[test]
fn without_any_configuration_for_a_hundred_seconds() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    attack(&lab)?;
    let entry = blocked(&lab)?;
    let left = entry["expires_in_s"].as_u64().unwrap_or_default();
    assert!((90..=100).contains(&left), "{entry}");
    Ok(())
}

#[test]
fn by_the_rules_of_its_own() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config_with_timeout("4s"))?;
    let line = attack(&lab)?;
    blocked(&lab)?;
    ends_and_is_on_record(&lab, &line, "block", "rule", "expired")
}

#[test]
fn by_the_alert_of_a_wazuh_manager() -> Result<()> {
    let lab = Lab::new()?;
    let alerts = lab.dir().join("alerts.json");
    File::create(&alerts).context("create the file of alerts")?;
    let response = "[[response]]\nrules = [5710]\ntimeout = \"4s\"\n";
    let _controller = lab.start_controller(&(lab.config_with_source("wazuh-alerts", &alerts) + response))?;
    let line = attack(&lab)?;
    let alert = json!({
        "timestamp": "2026-05-03T07:18:04.836-0700",
        "rule": {"id": "5710", "level": 5, "description": "found by Wazuh", "groups": ["syslog", "sshd"]},
        "agent": {"id": "000", "name": "guarded"},
        "full_log": line,
        "data": {"srcip": ATTACKER, "srcuser": "admin"},
    });
    let mut file = OpenOptions::new().append(true).open(&alerts).context("open the alerts")?;
    writeln!(file, "{alert}").context("write the alert")?;
    blocked(&lab)?;
    ends_and_is_on_record(&lab, &line, "block", "wazuh", "expired")
}

/// A controller that hears of attacks from Wazuh's execd alone.
fn without_a_log(lab: &Lab) -> Result<Controller> {
    let silent = lab.dir().join("silent.log");
    File::create(&silent).context("create an empty log")?;
    lab.start_controller(&lab.config_with_source("file", &silent))
}

#[test]
fn as_wazuhs_executable() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = without_a_log(&lab)?;
    let execd = Execd::new(&lab, "firewall-drop")?;
    let line = attack(&lab)?;
    let ended = execd.run("add", ATTACKER, &line)?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    blocked(&lab)?;
    // Wazuh's timeout is over.
    let ended = execd.run("delete", ATTACKER, &line)?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ends_and_is_on_record(&lab, &line, "block", "wazuh", "lifted")
}

#[test]
fn as_the_executable_of_wazuhs_version_5() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = without_a_log(&lab)?;
    let execd = Execd::new(&lab, "firewall-drop")?;
    let line = attack(&lab)?;
    let run = |command: &str| {
        let mut started = execd.start(&execd.message_5(command, ATTACKER, &line, 100).to_string())?;
        if command == "enable" {
            assert_eq!(started.keys()?.context("no keys")?["parameters"]["keys"], json!([ATTACKER]));
            started.write(r#"{"version":1,"command":"continue"}"#)?;
        }
        started.end()
    };
    let ended = run("enable")?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let entry = blocked(&lab)?;
    assert!((95..=100).contains(&entry["expires_in_s"].as_u64().unwrap_or_default()), "{entry}");
    let ended = run("disable")?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ends_and_is_on_record(&lab, &line, "block", "wazuh", "lifted")
}

#[test]
fn with_a_throttle() -> Result<()> {
    let lab = Lab::new()?;
    let response = "[[response]]\nrules = [5710]\naction = \"throttle\"\nrate = \"10/s\"\nburst = 20\ntimeout = \"6s\"\n";
    let _controller = lab.start_controller(&(lab.config() + response))?;
    let line = attack(&lab)?;
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!((&entry["action"], &entry["rule"]["id"]), (&json!("throttle"), &json!(5710)), "{entry}");
    let arrived = lab.flood(Side::Attacker, Side::Attacker.v4(), 200)?;
    assert!((1..100).contains(&arrived), "{arrived} of 200 arrived");
    assert!(lab.login_ok(Side::Bystander)?);
    ends_and_is_on_record(&lab, &line, "throttle", "rule", "expired")?;
    assert_eq!(lab.flood(Side::Attacker, Side::Attacker.v4(), 200)?, 200);
    Ok(())
}
