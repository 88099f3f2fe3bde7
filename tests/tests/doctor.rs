//! `xdpban doctor`: what stands in the way, before anything is attached, and to anybody.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xdpban_tests::Lab;

fn doctor(lab: &Lab, code: i32) -> Result<Value> {
    let output = lab.xdpban(&["--json", "doctor"])?;
    output.expect_code(code)?;
    serde_json::from_slice(output.stdout().as_bytes()).context("read what doctor says")
}

/// The check of that name; the first where several bear it.
fn check(report: &Value, area: &str, name: &str) -> Result<Value> {
    let checks = report["checks"].as_array().context("no checks")?;
    let found = checks.iter().find(|check| check["area"] == area && check["name"] == name);
    found.cloned().with_context(|| format!("no check of {area} {name} in {report:#}"))
}

fn says(check: &Value, state: &str, words: &[&str]) -> Result<()> {
    let text = check.to_string();
    ensure!(check["state"] == state && words.iter().all(|word| text.contains(word)), "{check:#}");
    Ok(())
}

#[test]
fn on_a_sound_host_it_foretells_what_then_comes_about() -> Result<()> {
    let lab = Lab::new()?;
    lab.sh("ip link add br0 type bridge && ip link add wan0 type veth peer name far0")?;
    lab.write_config(&lab.config().replace("[\"eth0\"]", "[\"eth0\", \"br0\", \"wan*\"]"))?;
    let report = doctor(&lab, 0)?;
    assert_eq!(report["ready"], true);
    for (area, name) in [("kernel", "program"), ("kernel", "capabilities"), ("pins", "/sys/fs/bpf/xdpban")] {
        says(&check(&report, area, name)?, "ok", &[])?;
    }
    assert!(report["memory"]["tables"].as_u64() > Some(10_000_000), "{report:#}");
    assert!(!lab.sh("ls /sys/fs/bpf")?.contains("xdpban"), "nothing is pinned");
    assert!(!lab.sh("ip link show")?.contains("xdp"), "nothing is attached");
    let modes = |interfaces: &Value| -> Vec<(Value, Value)> {
        let interfaces = interfaces.as_array().cloned().unwrap_or_default();
        interfaces.iter().map(|one| (one["name"].clone(), one["mode"].clone())).collect()
    };
    let foretold = modes(&report["interfaces"]);
    let expected = [("eth0", "native"), ("br0", "tc"), ("wan0", "native")];
    assert_eq!(foretold, expected.map(|(name, mode)| (json!(name), json!(mode))));

    let _controller = lab.start_controller_with(&["run"])?;
    let status = lab.status()?;
    assert_eq!(modes(&status["interfaces"]), foretold);
    for memory in ["tables", "tables_full"] {
        assert_eq!(status["memory"][memory], report["memory"][memory]);
    }
    let report = doctor(&lab, 0)?;
    says(&check(&report, "interface", "eth0")?, "ok", &["guarded in mode native"])?;
    assert!(check(&report, "controller", "xdpban")?["finding"].to_string().contains("runs as process"));
    Ok(())
}

#[test]
fn each_obstacle_comes_with_what_removes_it() -> Result<()> {
    let lab = Lab::new()?;
    let pins = lab.dir().join("pins").display().to_string();
    let config = lab.config().replace("/sys/fs/bpf/xdpban", &pins);
    lab.write_config(&config.replace("[\"eth0\"]", "[\"eth0\", \"lo\", \"eth7\"]"))?;
    let report = doctor(&lab, 1)?;
    assert_eq!(report["ready"], false);
    says(&check(&report, "pins", &pins)?, "obstacle", &["mount -t bpf bpf /sys/fs/bpf"])?;
    says(&check(&report, "interface", "lo")?, "obstacle", &["interfaces = [\\\"eth0\\\"]"])?;
    says(&check(&report, "interface", "eth7")?, "obstacle", &["no such interface"])?;

    lab.write_config(&format!("moed = \"tc\"\n{}", lab.config()))?;
    let report = doctor(&lab, 1)?;
    let file = lab.config_file().display().to_string();
    says(&check(&report, "config", &file)?, "obstacle", &["did you mean `mode`?", "xdpban check"])?;
    Ok(())
}

#[test]
fn anybody_may_ask_and_is_told_what_cannot_be_seen() -> Result<()> {
    let lab = Lab::new()?;
    lab.write_config(&lab.config())?;
    let output = lab.xdpban_as_nobody(&["--json", "doctor"])?;
    let report: Value =
        serde_json::from_slice(output.stdout().as_bytes()).context("read what doctor says")?;
    says(&check(&report, "kernel", "capabilities")?, "unknown", &["CAP_BPF", "sudo xdpban doctor"])?;
    says(&check(&report, "kernel", "program")?, "unknown", &["only root"])?;
    says(&check(&report, "interface", "eth0")?, "ok", &["native"])?;
    lab.xdpban(&["doctor"])?.success()?.stdout_has("xdpban can run here")?;
    Ok(())
}
