//! What the present rules would have done to past logs, and what none of them understands.

use std::fs;

use anyhow::Result;
use serde_json::json;
use xdpban_tests::{Lab, Side};

#[test]
fn what_the_log_of_a_real_sshd_would_have_led_to() -> Result<()> {
    let lab = Lab::new()?;
    let attacker = Side::Attacker.v4();
    for user in ["admin", "oracle", "admin"] {
        lab.fail_login(user)?;
    }
    assert!(lab.login_ok(Side::Bystander)?);
    let log = lab.dir().join("past.log");
    fs::copy(lab.log().path(), &log)?;
    lab.sh(&format!("gzip --keep {}", log.display()))?;
    let packed = log.with_extension("log.gz");
    for file in [log, packed] {
        let report = lab.xdpban(&["--json", "replay", &file.to_string_lossy()])?.json()?;
        assert_eq!((&report["attempts"], &report["stopped_attempts"]), (&json!(3), &json!(2)), "{report:#}");
        assert_eq!(report["blocks_total"], 1);
        let block = &report["blocks"][0];
        assert_eq!((&block["target"], &block["rule"]["id"]), (&json!(attacker.to_string()), &json!(5710)));
        assert_eq!((&block["timeout_s"], &block["stopped_attempts"]), (&json!(100), &json!(2)));
        assert_eq!(
            report["users"],
            json!([{"user": "admin", "attempts": 2}, {"user": "oracle", "attempts": 1}])
        );
        assert_eq!(report["logins_hit"], json!([]));
    }
    let text = lab.xdpban_with_input(&["replay", "-"], lab.log().text()?.as_bytes())?;
    text.success()?
        .stdout_has("2 attempts stopped")?
        .stdout_has("no legitimate login would have been hit")?;
    lab.xdpban(&["replay", "/nowhere"])?.expect_code(1)?.stderr_has("read /nowhere")?;
    Ok(())
}

#[test]
fn failures_that_no_form_explains_are_told_of() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    for (pid, user) in [(1, "a"), (2, "b"), (3, "c")] {
        lab.log().sshd(pid, &format!("Quantum login failed for {user} from 10.99.66.66 port {pid}"))?;
    }
    lab.has_read_the_log()?;
    let health = lab.health()?;
    let told = "sshd said 3 things in the last hour that look like failures and match no known form; the commonest: \
                `Quantum login failed for … from … port …` (3)";
    assert!(health.contains(told), "{health}");
    assert_eq!(lab.targets()?.iter().filter(|target| *target == "10.99.66.66").count(), 0);
    Ok(())
}
