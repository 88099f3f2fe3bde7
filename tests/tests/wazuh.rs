//! Alerts of a Wazuh manager are answered as matches of xdpban's own rules are.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xdpban_tests::{Controller, GATEWAY_V4, Lab, Side};

/// A lab whose controller follows a file of alerts.
struct Siem {
    lab: Lab,
    _controller: Controller,
    path: PathBuf,
}

impl Siem {
    fn new() -> Result<Siem> {
        let lab = Lab::new()?;
        let path = lab.dir().join("alerts.json");
        File::create(&path).context("create the file of alerts")?;
        let config = format!(
            "{}[[source]]\nkind = \"wazuh-alerts\"\npath = \"{}\"\n\
             [[response]]\nrules = [5710]\ntimeout = \"100s\"\n\
             [[response]]\ngroups = [\"web\"]\nlevel = 10\ntimeout = \"1h\"\n",
            lab.config(),
            path.display()
        );
        let controller = lab.start_controller(&config)?;
        Ok(Siem { lab, _controller: controller, path })
    }

    fn write(&self, text: &[u8]) -> Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.path).context("open the alerts")?;
        file.write_all(text).context("write an alert")
    }

    fn alert(&self, rule: u32, level: u8, group: &str, source: &str) -> Result<()> {
        let alert = json!({
            "timestamp": "2026-05-03T07:18:04.836-0700",
            "rule": {"id": rule.to_string(), "level": level, "description": "found by Wazuh", "groups": [group]},
            "agent": {"id": "001", "name": "gw1"},
            "full_log": format!("a line about {source}"),
            "data": {"srcip": source, "srcuser": "admin"},
        });
        self.write(format!("{alert}\n").as_bytes())
    }

    fn source(&self) -> Result<Value> {
        Ok(self.lab.status()?["sources"][1].clone())
    }
}

#[test]
fn an_alert_blocks_its_source_and_nobody_else() -> Result<()> {
    let siem = Siem::new()?;
    let attacker = Side::Attacker.v4();
    assert!(siem.lab.tcp_connect(Side::Attacker, attacker, 22)?);
    siem.alert(5710, 5, "sshd", &format!("::ffff:{attacker}"))?;
    let entry = siem.lab.blocked(&attacker.to_string())?;
    assert_eq!((&entry["origin"], &entry["rule"]["id"]), (&json!("wazuh"), &json!(5710)));
    assert_eq!(entry["rule"]["description"], "found by Wazuh");
    assert!(!siem.lab.tcp_connect(Side::Attacker, attacker, 22)?);
    assert!(siem.lab.login_ok(Side::Bystander)?);

    let show = siem.lab.xdpban(&["--json", "show", &attacker.to_string()])?.json()?;
    assert_eq!(show["evidence"], json!([format!("a line about ::ffff:{attacker}")]));
    let source = siem.source()?;
    assert_eq!((&source["kind"], &source["attacks"]), (&json!("wazuh-alerts"), &json!(1)));
    Ok(())
}

#[test]
fn responses_choose_among_alerts_and_protections_hold() -> Result<()> {
    let siem = Siem::new()?;
    siem.alert(31_101, 5, "web", "10.99.70.1")?;
    siem.alert(5715, 3, "sshd", "10.99.70.2")?;
    siem.alert(5710, 5, "sshd", &GATEWAY_V4.to_string())?;
    siem.alert(31_151, 10, "web", "10.99.70.3")?;
    siem.lab.blocked("10.99.70.3")?;
    assert_eq!(siem.lab.targets()?, ["10.99.70.3"]);
    Ok(())
}

#[test]
fn hostile_lines_do_no_harm() -> Result<()> {
    let siem = Siem::new()?;
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(20_000), close.repeat(20_000));
    let rule = r#""rule":{"id":"5710","level":5}"#;
    for line in [
        "Invalid user admin from 10.99.70.1 port 22".to_owned(),
        deep("[", "]"),
        format!("{{{rule},\"data\":{}}}", deep("{\"srcip\":", "}")),
        format!("{{{rule},\"data\":{{\"srcip\":\"10.99.70.1\"}},\"x\":\"{}\"}}", "y".repeat(1 << 20)),
        format!("{{{rule},\"data\":{{\"srcip\":\"10.99.70.1\",\"srcip\":\"10.99.70.2\"}}}}"),
        format!("{{{rule},\"data\":{{\"srcip\":\"gw1.example.com\"}}}}"),
        format!("{{{rule},\"data\":{{\"srcip\":[\"10.99.70.1\"]}}}}"),
        "\u{0}\u{7f}".to_owned(),
    ] {
        siem.write(format!("{line}\n").as_bytes())?;
    }
    siem.write(b"\xff\xfe\n")?;
    siem.alert(5710, 5, "sshd", "10.99.70.9")?;
    siem.lab.blocked("10.99.70.9")?;
    assert_eq!(siem.lab.targets()?, ["10.99.70.9"]);
    let read = |_: &Lab| Ok(siem.source()?["unreadable"] == 7);
    siem.lab.eventually("seven lines are told of as no alerts", Duration::from_secs(5), read)
}
