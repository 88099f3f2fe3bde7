//! `xdpban logtest`: lines in, what they mean out, one for one and in order.

use anyhow::Result;
use serde_json::{Value, json};
use xdpban_tests::Lab;

/// The answers to `lines`, one of them for each.
fn logtest(lab: &Lab, lines: &[u8]) -> Result<Vec<Value>> {
    let output = lab.xdpban_with_input(&["--json", "logtest"], lines)?;
    Ok(output.success()?.stdout().lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[test]
fn each_line_has_its_answer() -> Result<()> {
    let lab = Lab::new()?;
    let lines = b"Nov  3 08:05:01 web sshd[7]: Invalid user admin from 203.0.113.7 port 4711\n\
        nonsense\n\
        \n\
        \xff\xfe\0\n\
        2026-11-03T08:05:02.123456+00:00 web sshd-session[8]: Accepted publickey for alice from 2001:db8::7 port 22 ssh2: RSA SHA256:x\n\
        Nov  3 08:05:03 web CRON[9]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)\n\
        Nov  3 08:05:04 web sshd[10]: Invalid user x from 8.8.8.8 port 22 ssh2 from 203.0.113.8 port 4712";
    let answers = logtest(&lab, lines)?;
    let numbers: Vec<_> = answers.iter().map(|answer| answer["line"].as_u64()).collect();
    assert_eq!(numbers, (1..=7).map(Some).collect::<Vec<_>>());
    let mut first = answers[0].clone();
    let groups = first["rule"]["groups"].take();
    assert_eq!(groups, json!(["syslog", "sshd", "authentication_failed", "invalid_login"]));
    let expected = json!({
        "line": 1,
        "program": "sshd",
        "event": "invalid_user",
        "attack": true,
        "srcip": "203.0.113.7",
        "user": "admin",
        "rule": {
            "id": 5710, "level": 5, "groups": null, "description": "login as a user that does not exist",
        },
        "decision": { "action": "block", "target": "203.0.113.7", "timeout_s": 100 },
    });
    assert_eq!(first, expected);
    for meaningless in [1, 2, 3, 5] {
        let answer = &answers[meaningless];
        assert_eq!((&answer["event"], &answer["attack"]), (&Value::Null, &json!(false)), "{answer}");
        for field in ["srcip", "rule", "decision"] {
            assert_eq!(answer.get(field), Some(&Value::Null), "{answer}");
        }
    }
    assert_eq!(answers[5]["program"], "CRON");
    assert_eq!((&answers[4]["event"], &answers[4]["rule"]["id"]), (&json!("accepted"), &json!(5715)));
    assert_eq!((&answers[4]["srcip"], &answers[4]["user"]), (&json!("2001:db8::7"), &json!("alice")));
    assert_eq!(answers[4]["decision"], Value::Null);
    assert_eq!(
        (&answers[6]["srcip"], &answers[6]["user"]),
        (&json!("203.0.113.8"), &json!("x from 8.8.8.8 port 22 ssh2"))
    );
    Ok(())
}

#[test]
fn what_correlates_is_counted_from_line_to_line() -> Result<()> {
    let lab = Lab::new()?;
    let lines: String = (1..=8)
        .map(|n| {
            format!("Nov  3 08:05:0{n} web sshd[{n}]: Failed password for alice from 203.0.113.7 port 40{n} ssh2\n")
        })
        .collect();
    let answers = logtest(&lab, lines.as_bytes())?;
    let rules: Vec<_> = answers.iter().filter_map(|answer| answer["rule"]["id"].as_u64()).collect();
    assert_eq!(rules, [5760, 5760, 5760, 5760, 5760, 5760, 5760, 5763]);
    assert_eq!(
        answers[7]["decision"],
        json!({ "action": "block", "target": "203.0.113.7", "timeout_s": 600 })
    );
    Ok(())
}

#[test]
fn people_get_words_and_a_file_is_read_too() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.dir().join("some.log");
    std::fs::write(
        &file,
        "Nov  3 08:05:01 web sshd[7]: Invalid user \u{1b}[2J from 203.0.113.7 port 4711\n",
    )?;
    let output = lab.xdpban(&["logtest", &file.display().to_string()])?;
    output
        .success()?
        .stdout_has("rule 5710, level 5: login as a user that does not exist")?
        .stdout_has("would block 203.0.113.7 for 1 min 40 s")?;
    assert!(!output.stdout().contains('\u{1b}'), "{output}");
    let missing = lab.xdpban(&["logtest", "/nonsense"])?;
    missing.expect_code(1)?.stderr_has("read /nonsense: No such file")?;
    assert_eq!(logtest(&lab, b"")?, [""; 0].map(Value::from));
    Ok(())
}
