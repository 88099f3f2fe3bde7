//! The allowlist that operators keep.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";

#[test]
fn what_an_operator_allows_is_let_through_at_once_and_for_as_long() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.xdpban(&["block", "10.99.67.1"])?.success()?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);

    lab.xdpban(&["allow", "add", "10.99.66.0/24", "--for", "1h", "--comment", "a test"])?
        .success()?
        .stdout_has("1 target allowed for 1 h")?
        .stderr_has("no longer blocked, for it overlaps what is allowed: 10.99.66.66\n")?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.targets()?, ["10.99.67.1"], "the block that it covers is lifted, and no other");
    let show = lab.show(ATTACKER)?;
    assert_eq!((&show["verdict"], &show["incidents"][0]["outcome"]), (&json!("pass"), &json!("lifted")));
    assert_eq!(show["incidents"][0]["outcome_uid"], 0, "who allowed it has lifted it: {show}");
    lab.attack(Side::Attacker.v4())?;
    lab.has_read_the_log()?;
    assert_eq!(lab.targets()?, ["10.99.67.1"]);
    lab.xdpban(&["block", ATTACKER])?.expect_code(1)?.stderr_has("on the allowlist (xdpban allow)")?;

    let list = lab.xdpban(&["allow", "list", "--json"])?.success()?.json()?;
    assert_eq!(list[0]["network"], "10.99.66.0/24", "{list}");
    assert_eq!((&list[0]["origin"], &list[0]["comment"]), (&json!("operator"), &json!("a test")));
    assert_eq!(list[0]["uid"], 0, "{list}");

    // It is kept across a crash, in the engine and in the kernel.
    controller.kill9()?;
    let _controller = lab.start_controller_with(&["run"])?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    lab.xdpban(&["block", ATTACKER])?.expect_code(1)?.stderr_has("is never blocked")?;

    lab.xdpban(&["allow", "remove", "10.99.66.0/24"])?.success()?;
    lab.xdpban(&["allow", "remove", "10.99.66.0/24"])?
        .expect_code(1)?
        .stderr_has("is not on the allowlist")?;
    // Another address: what hangs on of the first one's connections may be told of meanwhile, to a controller that knows none of
    // them.
    let another = "10.99.66.70".parse()?;
    lab.attack(another)?;
    lab.blocked("10.99.66.70")?;
    assert!(!lab.tcp_connect(Side::Attacker, another, 22)?);
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

#[test]
fn half_of_all_addresses_are_allowed_only_if_that_is_meant() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", "10.99.67.0/24"])?.success()?;
    let most = ["allow", "add", "10.99.67.1", "0.0.0.0/0", "::/0"];
    lab.xdpban(&most)?
        .expect_code(1)?
        .stdout_has("1 target allowed")?
        .stderr_has("no longer blocked, for it overlaps what is allowed: 10.99.67.0/24\n")?
        .stderr_has("0.0.0.0/0 holds half of all addresses or more")?
        .stderr_has("::/0 holds half of all addresses or more")?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;

    lab.xdpban(&[&most[..], &["--all"]].concat())?.success()?.stdout_has("3 targets allowed")?;
    assert_eq!(lab.targets()?, [""; 0]);
    lab.xdpban(&["status"])?
        .success()?
        .stdout_has("nothing in 0.0.0.0/0 is ever blocked: an operator allowed it")?
        .stdout_has("`xdpban allow remove ::/0` ends that")?;
    lab.xdpban(&["allow", "remove", "0.0.0.0/0", "::/0"])?.success()?;
    lab.xdpban(&["status"])?.success()?.stdout_has("all is well")?;
    Ok(())
}

#[test]
fn what_the_kernel_does_not_take_yet_is_allowed_all_the_same() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    // From here on no program can write to the list.
    lab.sh("bpftool map freeze pinned /sys/fs/bpf/xdpban/v*/ALLOW4")?;
    lab.xdpban(&["allow", "add", "10.99.66.0/24"])?
        .success()?
        .stdout_has("1 target allowed")?
        .stderr_has("the kernel's copy of it is not yet")?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.xdpban(&["allow", "list", "--json"])?.json()?[0]["network"], "10.99.66.0/24");
    lab.xdpban(&["block", ATTACKER])?.expect_code(1)?.stderr_has("on the allowlist (xdpban allow)")?;
    Ok(())
}

#[test]
fn it_ends_by_itself() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["allow", "add", ATTACKER, "10.99.66.67", "--for", "2s"])?.success()?;
    lab.xdpban(&["allow", "add", "10.99.66.67"])?.success()?;
    lab.eventually("one is over", Duration::from_secs(5), |lab| {
        let list = lab.xdpban(&["allow", "list", "--json"])?.success()?.json()?;
        Ok(list.as_array().map(Vec::len) == Some(1) && list[0]["network"] == "10.99.66.67")
    })?;
    assert!(controller.output()?.contains("no longer allowed: 10.99.66.66, its time is over"));
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    Ok(())
}

#[test]
fn check_says_what_protects_an_address() -> Result<()> {
    let lab = Lab::new()?;
    let allow =
        "[allow]\nnetworks = [\"10.99.77.0/24\", { network = \"10.99.78.1\", comment = \"the monitor\" }]\n";
    let _controller = lab.start_controller(&format!("{}{allow}", lab.config()))?;
    lab.xdpban(&["allow", "add", "10.99.77.0/25"])?.success()?;
    let _session = lab.open_session(Side::Bystander, Side::Bystander.v4())?;
    lab.has_read_the_log()?;
    for (address, by) in [
        ("10.99.0.2", json!(["own"])),
        ("10.99.0.1", json!(["gateway"])),
        ("127.8.8.8", json!(["special"])),
        ("10.99.77.7", json!(["config", "operator"])),
        ("10.99.77.200", json!(["config"])),
        (ATTACKER, json!([])),
    ] {
        let check = lab.xdpban(&["allow", "check", address, "--json"])?.success()?.json()?;
        let found = check["protections"].as_array().into_iter().flatten();
        let found: Vec<&Value> = found.map(|protection| &protection["by"]).collect();
        assert_eq!(json!(found), by, "{check}");
        assert_eq!(check["protected"], by != json!([]), "{check}");
    }
    lab.xdpban(&["allow", "check", &Side::Bystander.v4().to_string()])?
        .success()?
        .stdout_has("is not blocked by rules: it is the source of a logged-in ssh session")?;
    lab.xdpban(&["allow", "check", ATTACKER])?.success()?.stdout_has("nothing protects it")?;
    lab.xdpban(&["allow", "list"])?.success()?.stdout_has("the monitor")?;
    lab.xdpban(&["allow", "remove", "10.99.77.0/24"])?
        .expect_code(1)?
        .stderr_has("is allowed by the configuration")?;
    Ok(())
}
