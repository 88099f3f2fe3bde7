//! The record: what it tells of incidents, that it can be checked, and where else it goes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xdpban_tests::{Controller, Lab, Side};

const ATTACKER: &str = "10.99.66.66";

fn start(lab: &Lab) -> Result<Controller> {
    lab.start_controller(&lab.config_with_timeout("1h"))
}

/// What `xdpban incidents ARGS` prints as JSON.
fn incidents(lab: &Lab, args: &[&str]) -> Result<Vec<Value>> {
    let all = [&["--json", "incidents"], args].concat();
    match lab.xdpban(&all)?.json()? {
        Value::Array(incidents) => Ok(incidents),
        other => anyhow::bail!("no array: {other}"),
    }
}

fn targets(incidents: &[Value]) -> Vec<&str> {
    incidents.iter().filter_map(|incident| incident["target"].as_str()).collect()
}

fn store(lab: &Lab) -> PathBuf {
    lab.dir().join("state/xdpban.db")
}

/// Ends the controller; the store is one file then.
fn stop(lab: &Lab, controller: Controller) -> Result<Vec<u8>> {
    controller.stop()?;
    fs::read(store(lab)).context("read the store")
}

#[test]
fn an_incident_says_who_asked_for_it_also_where_another_asks_for_more() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.xdpban(&["block", ATTACKER, "--for", "10m", "--reason", "scans"])?.success()?;
    lab.flood(Side::Attacker, Side::Attacker.v4(), 200)?;
    lab.log().invalid_user(7, ATTACKER)?;
    lab.eventually("the rule has its way", Duration::from_secs(5), |lab| {
        Ok(lab.list()?[0]["origin"] == "rule")
    })?;
    lab.flood(Side::Attacker, Side::Attacker.v4(), 300)?;
    lab.xdpban(&["block", ATTACKER, "--for", "1d", "--reason", "them again"])?.success()?;
    lab.xdpban(&["unblock", ATTACKER])?.success()?;

    let [first, rule, second] = &incidents(&lab, &[])?[..] else {
        anyhow::bail!("{:?}", incidents(&lab, &[])?)
    };
    for (incident, origin, uid, reason, attempts, ended) in [
        (
            first,
            "operator",
            Value::from(0),
            "scans",
            0,
            "rule 5710 asked for it anew; that is an incident of its own",
        ),
        (
            rule,
            "rule",
            Value::Null,
            "login as a user that does not exist",
            1,
            "uid 0 asked for it anew; that is an incident of its own",
        ),
        (second, "operator", 0.into(), "them again", 0, "by uid 0"),
    ] {
        assert_eq!(
            (&incident["origin"], &incident["uid"], &incident["reason"], &incident["attempts"]),
            (&origin.into(), &uid, &reason.into(), &attempts.into()),
            "{incident}"
        );
        assert_eq!((&incident["outcome"], &incident["outcome_reason"]), (&"lifted".into(), &ended.into()));
    }
    assert_eq!((&first["timeout_s"], &rule["timeout_s"]), (&600.into(), &3600.into()));
    let dropped = |incident: &Value| incident["dropped_packets"].as_u64();
    assert!(dropped(first) >= Some(200) && dropped(first) < Some(300), "{first}");
    assert!(dropped(rule) >= Some(300) && dropped(rule) < Some(400), "{rule}");
    let show = lab.xdpban(&["show", ATTACKER])?;
    show.success()?.stdout_has("by uid 0: scans")?.stdout_has("5710 login as a user")?;
    controller.stop()?;
    lab.xdpban(&["verify-record"])?.success()?;
    Ok(())
}

#[test]
fn incidents_are_found_by_what_is_known_of_them() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.xdpban(&["block", "10.99.67.0/24", "--for", "1h", "--reason", "a bad neighbourhood"])?.success()?;
    lab.xdpban(&["unblock", "10.99.67.0/24", "--reason", "they moved"])?.success()?;

    let all = incidents(&lab, &[])?;
    assert_eq!(targets(&all), [ATTACKER, "10.99.67.0/24"], "oldest first");
    let by_rule = &all[0];
    for (field, expected) in [
        ("action", Value::from("block")),
        ("origin", "rule".into()),
        ("outcome", "in_force".into()),
        ("outcome_at", Value::Null),
        ("timeout_s", 3600.into()),
        ("uid", Value::Null),
    ] {
        assert_eq!(by_rule[field], expected, "{field} of {by_rule}");
    }
    assert_eq!(by_rule["rule"]["id"], 5710);
    assert_eq!(by_rule["users"][0], "admin");
    assert!(by_rule["evidence"][0].as_str().is_some_and(|line| line.contains("Invalid user admin")));
    assert!(by_rule["line_to_block_ms"].as_f64().is_some_and(|took| took < 1000.0), "{by_rule}");
    let by_hand = &all[1];
    assert_eq!(
        (&by_hand["uid"], &by_hand["outcome_uid"]),
        (&0.into(), &0.into()),
        "the kernel says who it was"
    );
    assert_eq!((&by_hand["outcome"], &by_hand["reason"]), (&"lifted".into(), &"a bad neighbourhood".into()));
    assert_eq!(by_hand["outcome_reason"], "by uid 0: they moved");

    for (args, found) in [
        (&["--address", ATTACKER][..], vec![ATTACKER]),
        (&["--address", "10.99.67.9"], vec!["10.99.67.0/24"]),
        (&["--address", "10.99.0.0/16"], vec![ATTACKER, "10.99.67.0/24"]),
        (&["--rule", "5710"], vec![ATTACKER]),
        (&["--user", "admin"], vec![ATTACKER]),
        (&["--user", "nobody"], vec![]),
        (&["--outcome", "lifted"], vec!["10.99.67.0/24"]),
        (&["--since", "1h"], vec![ATTACKER, "10.99.67.0/24"]),
        (&["--until", "1h"], vec![]),
        (&["--limit", "1"], vec!["10.99.67.0/24"]),
    ] {
        assert_eq!(targets(&incidents(&lab, args)?), found, "{args:?}");
    }
    lab.xdpban(&["incidents", "--outcome", "gone"])?.expect_code(2)?.stderr_has("in_force")?;
    lab.xdpban(&["incidents", "--since", "soon"])?.expect_code(2)?.stderr_has("yesterday")?;
    lab.xdpban(&["incidents", "--since", "yesterday"])?.success()?.stdout_has("they moved")?;
    lab.xdpban(&["incidents"])?.success()?.stdout_has("they moved")?.stdout_has("admin")?;

    // Without a controller it is the same, and said to be the store's.
    controller.kill9()?;
    assert_eq!(incidents(&lab, &[])?, all);
    lab.xdpban(&["incidents"])?.success()?.stderr_has("the controller is not running")?;
    Ok(())
}

/// The commands that read the store where no controller runs.
const READERS: [&str; 3] = ["incidents", "report", "verify-record"];

#[test]
fn whoever_cannot_read_the_record_is_told_what_to_do() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.xdpban(&["incidents", "--since", "1h", "--until", "2h"])?.expect_code(2)?.stderr_has("exchange")?;
    controller.stop()?;
    let error = |args: &[&str], said: &str| -> Result<()> {
        lab.xdpban(args)?.expect_code(1)?.stderr_has(said).map(drop)
    };
    for command in READERS {
        lab.xdpban_as_nobody(&[command])?.expect_code(1)?.stderr_has("root")?;
    }
    let bytes = fs::read(store(&lab))?;
    for (at, version, said) in [
        (60, 99_u32, "install that xdpban again"),
        (60, 1, "start the controller once"),
        (68, 0, "some other program"),
    ] {
        // The version and the application id in SQLite's header.
        let mut other = bytes.clone();
        other.splice(at..at + 4, version.to_be_bytes());
        fs::write(store(&lab), other)?;
        READERS.iter().try_for_each(|command| error(&[command], said))?;
    }
    fs::write(store(&lab), "nonsense".repeat(1000))?;
    READERS.iter().try_for_each(|command| error(&[command], "is not a database"))?;
    fs::remove_file(store(&lab))?;
    READERS.iter().try_for_each(|command| error(&[command], "there is no record in"))?;
    READERS.iter().try_for_each(|command| error(&[command], "systemctl start xdpban"))?;
    lab.xdpban(&["show", ATTACKER])?.expect_code(3)?.stderr_has("systemctl start xdpban")?;
    Ok(())
}

#[test]
fn an_incident_is_followed_from_its_beginning_to_its_end() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = start(&lab)?;
    let mut command = lab.command(Side::Host, lab.xdpban_binary()?);
    command.arg("--config").arg(lab.config_file()).args(["--json", "incidents", "--follow"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().context("follow")?;
    let mut lines = BufReader::new(follower.stdout.take().context("its output")?).lines();
    let mut next =
        || -> Result<Value> { Ok(serde_json::from_str(&lines.next().context("no further line")??)?) };
    // It begins with what there is: nothing, and then it sees each change once.
    std::thread::sleep(Duration::from_millis(300));
    lab.xdpban(&["block", ATTACKER, "--for", "1h"])?.success()?;
    let opened = next()?;
    lab.xdpban(&["unblock", ATTACKER])?.success()?;
    let ended = next()?;
    follower.kill().and_then(|()| follower.wait()).context("end the follower")?;
    assert_eq!((&opened["target"], &opened["outcome"]), (&ATTACKER.into(), &"in_force".into()));
    assert_eq!((&ended["id"], &ended["outcome"]), (&opened["id"], &"lifted".into()));
    Ok(())
}

#[test]
fn what_follows_goes_on_across_a_restart_and_in_a_record_that_is_begun_anew() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    for _ in 0..10 {
        lab.xdpban(&["block", ATTACKER])?.success()?;
        lab.xdpban(&["unblock", ATTACKER])?.success()?;
    }
    let mut command = lab.command(Side::Host, lab.xdpban_binary()?);
    command.arg("--config").arg(lab.config_file()).args(["--json", "incidents", "--follow"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().context("follow")?;
    let lines = BufReader::new(follower.stdout.take().context("its output")?).lines();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(|line| tell.send(line.ok()?).ok()).for_each(drop));
    let is_told = |target: &str| -> Result<()> {
        loop {
            let line = told.recv_timeout(Duration::from_secs(10)).with_context(|| target.to_owned())?;
            let incident: Value = serde_json::from_str(&line)?;
            if incident["target"] == target && incident["outcome"] == "in_force" {
                return Ok(());
            }
        }
    };
    std::thread::sleep(Duration::from_millis(300));
    controller.stop()?;
    let _controller = lab.start_controller_with(&["run"])?;
    lab.xdpban(&["block", "10.99.70.1"])?.success()?;
    is_told("10.99.70.1")?;
    // The new record has far fewer entries.
    lab.sh(&format!("rm {}*", store(&lab).display()))?;
    lab.xdpban(&["block", "10.99.70.2"])?.success()?;
    is_told("10.99.70.2")?;
    lab.xdpban(&["block", "10.99.70.3"])?.success()?;
    is_told("10.99.70.3")?;
    follower.kill().and_then(|()| follower.wait()).context("end the follower")?;
    Ok(())
}

#[test]
fn a_record_that_was_altered_is_found_and_one_that_was_not_is_intact() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.eventually("the incident is on record", Duration::from_secs(5), |lab| {
        Ok(lab.xdpban(&["--json", "verify-record"])?.json()?["incidents"] == 1)
    })?;
    // Beside a running controller, and without one.
    let verified = lab.xdpban(&["--json", "verify-record"])?.json()?;
    assert_eq!((&verified["intact"], &verified["incidents"]), (&true.into(), &1.into()), "{verified}");
    let kept = verified["head"].as_str().context("no head")?.to_owned();
    let bytes = stop(&lab, controller)?;
    lab.xdpban(&["verify-record", "--head", &kept])?.success()?.stdout_has("intact")?;
    let head = lab.xdpban(&["--json", "verify-record"])?.json()?["head"].clone();
    let head = head.as_str().context("no head")?;
    let log = fs::read_to_string(lab.dir().join("controller.log"))?;
    assert!(log.contains(&format!("the record's head is {head}")), "{log}");

    // One letter of a body, as somebody with a hex editor would.
    let place = bytes.windows(15).position(|text| text == b"\"users\":[\"admin").context("no such record")?;
    let mut altered = bytes.clone();
    altered[place + 10] = b'b';
    fs::write(store(&lab), &altered)?;
    let output = lab.xdpban(&["verify-record"])?;
    output
        .expect_code(1)?
        .stdout_has("NOT INTACT")?
        .stdout_has("incident.opened: it is not what was written")?;
    let verified = lab.xdpban(&["--json", "verify-record"])?;
    verified.expect_code(1)?;
    let verified: Value = serde_json::from_str(&verified.stdout())?;
    assert_eq!(verified["intact"], false);
    assert!(verified["faults"][0]["at"].is_string(), "{verified}");

    // A record that somebody made anew is sound in itself, and not the one whose head was kept.
    fs::write(store(&lab), &bytes)?;
    fs::remove_dir_all(lab.dir().join("state"))?;
    start(&lab)?.stop()?;
    lab.xdpban(&["verify-record"])?.success()?;
    lab.xdpban(&["verify-record", "--head", head])?.expect_code(1)?;
    Ok(())
}

#[test]
fn incidents_stream_to_a_file_and_to_syslog() -> Result<()> {
    let lab = Lab::new()?;
    let file = lab.dir().join("incidents.json");
    let config =
        format!("{}[record]\nstream = [\"{}\", \"syslog\"]\n", lab.config_with_timeout("1h"), file.display());
    let mut controller = lab.start_controller(&config)?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    let lines = |lab: &Lab, count: usize| -> Result<Vec<Value>> {
        lab.eventually("the incidents are streamed", Duration::from_secs(5), |_| {
            Ok(file.exists() && fs::read_to_string(&file)?.lines().count() >= count)
        })?;
        let text = fs::read_to_string(&file)?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    };
    let opened = &lines(&lab, 1)?[0];
    for (field, expected) in [
        ("/event/kind", Value::from("alert")),
        ("/event/action", "incident-opened".into()),
        ("/event/outcome", "success".into()),
        ("/source/ip", ATTACKER.into()),
        ("/rule/id", "5710".into()),
        ("/user/name", "admin".into()),
        ("/related/ip/0", ATTACKER.into()),
        ("/observer/product", "xdpban".into()),
    ] {
        assert_eq!(opened.pointer(field), Some(&expected), "{field} of {opened}");
    }
    assert!(opened["@timestamp"].is_string() && opened["message"].is_string(), "{opened}");
    lab.eventually("syslog has it, too", Duration::from_secs(5), |lab| {
        Ok(lab.log().text()?.lines().any(|line| line.contains("xdpban[") && line.contains("incident-opened")))
    })?;

    // A rotated file is left, and what happens while nobody writes follows at the next start.
    let rotated = file.with_extension("1");
    fs::rename(&file, &rotated)?;
    lab.xdpban(&["unblock", ATTACKER])?.success()?;
    let ended = lines(&lab, 1)?.pop().context("no line")?;
    assert_eq!(ended.pointer("/event/action"), Some(&"incident-ended".into()));
    assert_eq!(ended.pointer("/labels/outcome"), Some(&"lifted".into()));
    assert_eq!(fs::read_to_string(&rotated)?.lines().count(), 1);
    fs::remove_file(&file)?;
    fs::create_dir(&file)?;
    lab.xdpban(&["block", "10.99.67.1", "--for", "1h"])?.success()?;
    lab.eventually("the trouble is told", Duration::from_secs(5), |lab| {
        Ok(lab.health()?.contains("write incidents to"))
    })?;
    controller.kill9()?;
    fs::remove_dir(&file)?;
    controller = lab.start_controller(&config)?;
    let late = lines(&lab, 1)?;
    assert_eq!(late[0].pointer("/source/ip"), Some(&"10.99.67.1".into()));
    controller.stop()?;
    // Nothing comes twice after a proper end.
    let _controller = lab.start_controller(&config)?;
    lab.xdpban(&["unblock", "--all"])?.success()?;
    lab.eventually("each of its two lines has come once", Duration::from_secs(5), |lab| {
        let lines = lines(lab, 1)?;
        let of_it = lines.iter().filter(|line| line.pointer("/source/ip") == Some(&"10.99.67.1".into()));
        let actions: Vec<&Value> = of_it.map(|line| &line["event"]["action"]).collect();
        Ok(actions == ["incident-opened", "incident-ended"])
    })
}

#[test]
fn starts_stops_and_changes_of_the_configuration_are_on_record() -> Result<()> {
    let lab = Lab::new()?;
    let controller = start(&lab)?;
    // What is on record is in the file a moment after the controller says that it has begun.
    std::thread::sleep(Duration::from_millis(500));
    controller.kill9()?;
    let controller = start(&lab)?;
    lab.write_config(&lab.config_with_timeout("2h"))?;
    controller.reload()?;
    lab.eventually("it is read again", Duration::from_secs(5), |_| {
        Ok(controller.output()?.contains("read again"))
    })?;
    lab.write_config("nonsense")?;
    controller.reload()?;
    lab.eventually("it is refused", Duration::from_secs(5), |_| {
        Ok(controller.output()?.contains("is faulty"))
    })?;
    lab.write_config(&lab.config_with_timeout("2h"))?;
    let bytes = stop(&lab, controller)?;
    lab.xdpban(&["detach"])?.success()?;
    lab.xdpban(&["verify-record"])?.success()?;
    let text = String::from_utf8_lossy(&bytes);
    for part in [
        "\"after\":\"first\"",
        "\"after\":\"crash\"",
        "- [[response]] timeout = \\\"1h\\\"",
        "+ [[response]] timeout = \\\"2h\\\"",
        "config.refused",
        "controller.stopped",
    ] {
        ensure!(text.contains(part), "the record does not have {part}");
    }
    ensure!(String::from_utf8_lossy(&fs::read(store(&lab))?).contains("operator.detach"), "detach");
    Ok(())
}
