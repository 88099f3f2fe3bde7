//! The command line: its messages and exit codes, and what a terminal or a pipe gets to see.

use std::process::Stdio;

use anyhow::Result;
use serde_json::{Value, json};
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";

#[test]
fn what_cannot_be_meant_is_a_usage_error() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    for args in [
        &[][..],
        &["nonsense"],
        &["block"],
        &["block", "300.1.1.1"],
        &["block", "192.0.2.1/33"],
        &["block", "192.0.2.7/24"],
        &["block", "192.0.2.1", "--for", "soon"],
        &["block", "192.0.2.1", "--for", "0"],
        &["block", "192.0.2.1", "--for", "-5m"],
        &["show", "example.org"],
        &["unblock"],
        &["unblock", "--all", "192.0.2.1"],
        &["run", "--nonsense"],
    ] {
        let output = lab.xdpban(args)?;
        output.expect_code(2)?;
        assert!(output.stdout().is_empty() && !output.stderr().is_empty(), "{output}");
    }
    let list = b"192.0.2.1\nnonsense\n192.0.2.7/24\n";
    let output = lab.xdpban_with_input(&["block", "--from", "-"], list)?;
    output.expect_code(2)?.stderr_has("-:2: `nonsense`")?.stderr_has("-:3: `192.0.2.7/24`")?;
    output.stderr_has("nothing was done")?;
    lab.xdpban(&["block", "--from", "/nonsense"])?
        .expect_code(1)?
        .stderr_has("read /nonsense: No such file")?;
    assert_eq!(lab.targets()?, [""; 0]);
    Ok(())
}

#[test]
fn help_is_there_for_every_command() -> Result<()> {
    let lab = Lab::new()?;
    lab.xdpban(&["--version"])?.success()?.stdout_has("xdpban ")?;
    for command in ["run", "check", "status", "list", "show", "block", "unblock", "logtest", "detach"] {
        lab.xdpban(&["--help"])?.success()?.stdout_has(&format!("  {command} "))?;
        let help = lab.xdpban(&[command, "--help"])?;
        help.success()?.stdout_has(&format!("Usage: xdpban {command}"))?;
        assert!(!help.stdout().contains('\u{1b}'), "{help}");
    }
    Ok(())
}

#[test]
fn every_fault_of_the_configuration_is_told_with_its_line() -> Result<()> {
    let lab = Lab::new()?;
    let faulty = "interfaces = 7\nmod = \"auto\"\n\n[limits]\nblocks = -1\n\n[[response]]\nrules = [1]\naction = \"bite\"\n";
    lab.write_config(faulty)?;
    let file = lab.config_file().display().to_string();
    let faults = [(1, "interfaces"), (2, "mode"), (5, "blocks"), (8, "rule 1"), (9, "bite")];
    for command in ["check", "run", "logtest"] {
        let output = lab.xdpban(&[command])?;
        output.expect_code(2)?;
        for (line, text) in faults {
            let place = format!("{file}:{line}: ");
            let stderr = output.stderr();
            let fault = stderr.lines().find(|fault| fault.contains(&place));
            assert!(fault.is_some_and(|fault| fault.contains(text)), "line {line}, {text}\n{output}");
        }
    }
    let check = lab.xdpban(&["--json", "check"])?;
    check.expect_code(2)?;
    let told: Value = serde_json::from_str(&check.stdout())?;
    assert_eq!(
        (&told["valid"], told["faults"].as_array().map(Vec::len)),
        (&json!(false), Some(faults.len()))
    );
    assert_eq!((&told["faults"][0]["file"], &told["faults"][0]["line"]), (&json!(file), &json!(1)));

    lab.write_config(&lab.config())?;
    lab.xdpban(&["check"])?.success()?.stdout_has(&format!("{file}: sound, "))?;
    let sound = json!({ "valid": true, "faults": [], "warnings": [] });
    assert_eq!(lab.xdpban(&["--json", "check"])?.json()?, sound);
    lab.write_config("[allow]\nnetworks = [\"0.0.0.0/1\"]\n")?;
    let warning = "nothing in 0.0.0.0/1 is ever blocked: [allow] networks has all of that";
    lab.xdpban(&["check"])?.success()?.stderr_has(warning)?;
    let doubtful = lab.xdpban(&["--json", "check"])?.json()?;
    assert_eq!((&doubtful["valid"], &doubtful["warnings"]), (&json!(true), &json!([warning])));
    lab.write_config(&lab.config())?;
    let missing = lab.dir().join("nothing.toml").display().to_string();
    let mut command = lab.command(Side::Host, lab.xdpban_binary()?);
    let output = command.args(["--config", &missing, "status"]).output()?;
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr)?, format!("{missing}: it does not exist\n"));
    Ok(())
}

#[test]
fn what_is_not_blocked_cannot_be_unblocked() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["unblock", "192.0.2.1"])?.expect_code(1)?.stderr_has("192.0.2.1 is not blocked")?;
    lab.xdpban(&["block", "192.0.2.0/24"])?.success()?;
    lab.xdpban(&["unblock", "192.0.2.1"])?
        .expect_code(1)?
        .stderr_has("192.0.2.1 is not blocked by itself but as part of 192.0.2.0/24; unblock that")?;
    lab.xdpban(&["unblock", "192.0.2.1", "192.0.2.0/24"])?
        .expect_code(1)?
        .stdout_has("1 target unblocked")?
        .stderr_has("1 done, 1 refused")?;
    lab.xdpban(&["unblock", "--all"])?.success()?.stdout_has("0 targets unblocked")?;
    Ok(())
}

#[test]
fn a_reason_and_a_time_are_kept() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let hostile = "a \u{1b}[31mred\u{7} word";
    let output = lab.xdpban(&["--json", "block", ATTACKER, "--for", "1h30m", "--reason", hostile])?;
    assert_eq!(output.json()?, json!({ "done": 1, "refused": [] }));
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!((&entry["rule"], &entry["origin"]), (&Value::Null, &json!("operator")));
    assert_eq!((&entry["reason"], &entry["expires_in_s"]), (&json!("a [31mred word"), &json!(5400)));
    // The second word holds, be it shorter.
    lab.xdpban(&["block", ATTACKER, "--for", "10m"])?.success()?;
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!((&entry["expires_in_s"], &entry["offences"]), (&json!(600), &json!(1)));
    Ok(())
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let list: String = (0..5000_u16).map(|n| format!("10.98.{}.{}\n", n / 250, n % 250)).collect();
    lab.xdpban_with_input(&["block", "--from", "-"], list.as_bytes())?.success()?;
    for json in ["", "--json"] {
        let pipe = format!("{{ {} {json} list; echo \"code $?\" >&2; }} | head -1", lab.xdpban_line()?);
        let output = lab.command(Side::Host, "/bin/sh").args(["-c", &pipe]).output()?;
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1, "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "code 0\n");
    }
    Ok(())
}

#[test]
fn colours_are_for_terminals() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    for args in [&["list"][..], &["status"], &["show", ATTACKER]] {
        let piped = lab.xdpban(args)?;
        assert!(!piped.success()?.stdout().contains('\u{1b}'), "{piped}");
        // script(1) gives a command a terminal.
        let line = format!("{} {}", lab.xdpban_line()?, args.join(" "));
        let mut script = lab.command(Side::Host, "/usr/bin/script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
        let output = script.env_remove("NO_COLOR").stdin(Stdio::null()).output()?;
        assert!(output.status.success() && output.stdout.contains(&0x1b), "{args:?} {output:?}");
    }
    Ok(())
}
