//! Configurations of others become ones of ours, which are sound and do what the others did.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use xdpban_tests::{Lab, Login, Side};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// What `xdpban import KIND FIXTURE` prints, which `xdpban check` finds nothing wrong with.
fn imported(lab: &Lab, kind: &str, from: &Path) -> Result<String> {
    let output = lab.xdpban(&["import", kind, &from.display().to_string()])?;
    let text = output.success()?.stdout();
    let file = lab.dir().join("imported.toml");
    std::fs::write(&file, &text).context("write what was imported")?;
    lab.xdpban(&["--config", &file.display().to_string(), "check"])?.success()?;
    Ok(text)
}

#[test]
fn wazuhs_responses_are_taken_over() -> Result<()> {
    let lab = Lab::new()?;
    let text = imported(&lab, "wazuh", &fixture("ossec.conf"))?;
    for part in [
        "[[response]]\nrules = [5710]\nlocation = \"local\"\ntimeout = \"100s\"\nrepeat_offenders = [\"30m\", \"1h\", \"1d\"]\n",
        "networks = [\"127.0.0.1\", \"192.0.2.0/24\"]",
        "# Left out: rule 31151.",
        "# Left out: `restart-wazuh` restarts Wazuh",
        "# Left out: `office.example.com`",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let _controller = lab.start_controller(&(lab.config() + &text))?;
    lab.attack(Side::Attacker.v4())?;
    let entry = lab.blocked(&Side::Attacker.v4().to_string())?;
    assert!(entry["expires_in_s"].as_u64() <= Some(100), "{entry}");
    Ok(())
}

#[test]
fn fail2bans_jail_counts_as_it_did() -> Result<()> {
    let lab = Lab::new()?;
    let text = imported(&lab, "fail2ban", &fixture("fail2ban"))?;
    for part in [
        "count = 3\nwindow = \"10m\"\n",
        "timeout = \"1h\"\nrepeat_offenders = [\"2h\", \"4h\", \"8h\", \"16h\", \"1d\"]\n",
        "networks = [\"127.0.0.0/8\", \"198.51.100.0/24\"]",
        "# Left out: the jails postfix.",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let _controller = lab.start_controller(&(lab.config() + &text))?;
    let attacker = Side::Attacker.v4();
    for attempt in 1..=3 {
        assert_eq!(lab.targets()?, [""; 0], "before attempt {attempt}");
        lab.attack(attacker)?;
        lab.has_read_the_log()?;
    }
    let entry = lab.blocked(&attacker.to_string())?;
    assert_eq!(
        (&entry["rule"]["id"], &entry["expires_in_s"].is_number()),
        (&json!(100_500), &true),
        "{entry}"
    );
    assert!(lab.login(Side::Bystander, Side::Bystander.v4(), "admin", &Login::Password("wrong")).is_ok());
    assert_eq!(lab.targets()?, [attacker.to_string()]);
    Ok(())
}

#[test]
fn faults_are_told_with_their_line_and_no_file_is_overwritten() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.dir().join("ossec.conf");
    std::fs::write(&file, "<ossec_config>\n<global>\n</ossec_config>\n").context("write a file")?;
    let path = file.display().to_string();
    let output = lab.xdpban(&["import", "wazuh", &path])?;
    output.expect_code(2)?.stderr_has(&format!("{path}:3: this is not well-formed"))?;
    lab.xdpban(&["import", "wazuh", "/nowhere"])?.expect_code(2)?.stderr_has("does not exist")?;
    lab.xdpban(&["import", "fail2ban", "/nowhere"])?.expect_code(2)?.stderr_has("does not exist")?;

    let from = fixture("fail2ban").display().to_string();
    let to = lab.dir().join("new.toml").display().to_string();
    lab.xdpban(&["import", "fail2ban", &from, "-o", &to])?.success()?.stdout_has("new.toml written")?;
    lab.xdpban(&["import", "fail2ban", &from, "-o", &to])?.expect_code(1)?.stderr_has("is there already")?;
    Ok(())
}
