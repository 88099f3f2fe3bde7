//! Notifications: `action = "notify"`, by webhook and by mail, of each incident or as a digest.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xdpban_tests::{Answers, Lab, Side, WebServer};

const ATTACKER: &str = "10.99.66.66";
const SOON: Duration = Duration::from_secs(5);

/// A response that calls a webhook.
fn webhook(name: &str, url: &str, keys: &str) -> String {
    format!(
        "[[response]]\nrules = [5710]\naction = \"notify\"\nname = \"{name}\"\nwebhook = \"{url}\"\n{keys}\n"
    )
}

/// The attacker's incident in which the command `name` ran, if it is on record.
fn told(lab: &Lab, name: &str) -> Result<Option<Value>> {
    let show = lab.show(ATTACKER)?;
    let incidents = show["incidents"].as_array().cloned().unwrap_or_default();
    Ok(incidents.into_iter().find(|incident| incident["command"] == name))
}

/// What came of the command `name`, when that is on record.
fn outcome(lab: &Lab, name: &str) -> Result<[String; 2]> {
    let mut found = None;
    lab.eventually(&format!("the outcome of {name} is on record"), Duration::from_secs(20), |lab| {
        found = told(lab, name)?;
        Ok(found.is_some())
    })?;
    let found = found.context("no incident")?;
    Ok(["outcome", "outcome_reason"].map(|key| found[key].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn a_webhook_is_told_of_each_incident() -> Result<()> {
    let lab = Lab::new()?;
    let [at_once, second_time] =
        [Answers::With(200), Answers::First(503, 204)].map(|how| WebServer::start(&lab, how));
    let (at_once, second_time) = (at_once?, second_time?);
    let _controller = lab.start_controller(
        &(lab.config()
            + &webhook("at-once", &at_once.url(), "")
            + &webhook("second-time", &second_time.url(), "retry = [\"1s\"]")),
    )?;
    lab.attack(Side::Attacker.v4())?;
    let request = at_once.request()?;
    assert!(request.head.starts_with("post /hook http/1.1\r\n"), "{request:?}");
    assert!(request.head.contains("\r\ncontent-type: application/json\r\n"), "{request:?}");
    let event: Value = serde_json::from_str(&request.body)?;
    assert_eq!((&event["srcip"], &event["user"]), (&json!(ATTACKER), &json!("admin")), "{event}");
    assert_eq!((&event["rule"]["id"], &event["command"]), (&json!(5710), &json!("add")), "{event}");
    assert!(event["evidence"][0].to_string().contains("Invalid user admin from 10.99.66.66"), "{event}");
    lab.blocked(ATTACKER)?;
    assert_eq!(outcome(&lab, "at-once")?, ["done", ""]);

    // What failed once and then did not is no failure.
    let [first, second] = [second_time.request()?, second_time.request()?];
    assert_eq!(first.body, second.body);
    assert_eq!(outcome(&lab, "second-time")?, ["done", ""]);
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

#[test]
fn servers_that_hang_refuse_or_fail_delay_no_block_and_are_on_record() -> Result<()> {
    let lab = Lab::new()?;
    let [hangs, fails] = [Answers::Never, Answers::With(500)].map(|how| WebServer::start(&lab, how));
    let (hangs, fails) = (hangs?, fails?);
    let nobody = lab.within(Side::Host, || Ok(TcpListener::bind((Side::Host.v4(), 0))?.local_addr()?))?;
    let keys = "time_limit = \"2s\"\nretry = [\"1s\"]";
    let _controller = lab.start_controller(
        &(lab.config()
            + &webhook("hangs", &hangs.url(), keys)
            + &webhook("fails", &fails.url(), keys)
            + &webhook("refuses", &format!("http://{nobody}/"), keys)),
    )?;
    lab.attack(Side::Attacker.v4())?;
    hangs.request()?;
    // While that server hangs, others are blocked.
    for host in 1..=20 {
        lab.log().invalid_user(5000 + host, &format!("10.99.90.{host}"))?;
        lab.blocked(&format!("10.99.90.{host}"))?;
    }
    assert!(told(&lab, "hangs")?.is_none(), "it hangs yet");
    for (name, why) in [
        ("hangs", "the command ended with status 28: curl: (28) "),
        ("fails", "the command ended with status 22: curl: (22) The requested URL returned error: 500"),
        ("refuses", "the command ended with status 7: curl: (7) "),
    ] {
        let [outcome, reason] = outcome(&lab, name)?;
        assert!(outcome == "failed" && reason.starts_with(why), "{name}: {outcome}, {reason}");
    }
    lab.xdpban(&["status"])?
        .success()?
        .stdout_has("the latest run of `fails` failed: the command ended with status 22: curl: (22) ")?
        .stdout_has("the latest run of `hangs` failed: ")?;
    // Each was tried a second time.
    for server in [&hangs, &fails, &fails] {
        server.request()?;
    }
    for host in 1..=20 {
        let show = lab.show(&format!("10.99.90.{host}"))?;
        let took = show["incidents"][0]["line_to_block_ms"].as_f64().context("no time on record")?;
        // Whatever waited for a webhook would have waited for its time limit.
        assert!(took < 1000.0, "{took} ms: {show}");
    }
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

#[test]
fn a_digest_tells_of_many_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let [server, fails] = [Answers::With(200), Answers::With(500)].map(|how| WebServer::start(&lab, how));
    let (server, fails) = (server?, fails?);
    let failing = webhook("fails", &fails.url(), "digest = \"3s\"\nretry = []");
    let config = lab.config() + &webhook("digest", &server.url(), "digest = \"3s\"") + &failing;
    let controller = lab.start_controller(&config)?;
    for host in 1..=20 {
        lab.log().invalid_user(5000 + host, &format!("10.99.90.{host}"))?;
    }
    lab.blocked("10.99.90.20")?;
    // Where a tick falls between the lines there are two.
    let (mut matches, mut digests) = (0, 0);
    while matches < 20 {
        let digest: Value = serde_json::from_str(&server.request()?.body)?;
        assert_eq!(digest["command"], "digest", "{digest}");
        assert!(digest["sources"].as_array().is_some_and(|named| named.len() <= 10), "{digest}");
        assert_eq!(digest["rules"][0]["count"], digest["matches"], "{digest}");
        matches += digest["matches"].as_u64().context("no number of matches")?;
        digests += 1;
    }
    assert!(matches == 20 && digests <= 2, "{matches} in {digests}");
    // One that is taken out of the configuration tells of what it has gathered.
    lab.log().invalid_user(6000, "10.99.91.1")?;
    lab.blocked("10.99.91.1")?;
    lab.write_config(&(lab.config() + &failing))?;
    controller.reload()?;
    let last: Value = serde_json::from_str(&server.request()?.body)?;
    assert_eq!((&last["matches"], &last["sources"][0]["name"]), (&json!(1), &json!("10.99.91.1")), "{last}");
    let today = lab.sh("date -u +%Y-%m-%d")?;
    let failed = "`fails`: the command ended with status 22";
    lab.eventually("a digest that failed is in the report", SOON, |lab| {
        Ok(lab.xdpban(&["report", "--from", today.trim()])?.stdout().contains(failed))
    })?;
    Ok(())
}

/// Puts a script of sh(1) in the place of /usr/sbin/sendmail.
fn sendmail(lab: &Lab, text: &str) -> Result<()> {
    let path = lab.dir().join("sendmail");
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    lab.sh(&format!(
        "d=/run/sbin; mkdir $d; cp -a /usr/sbin/. $d; cp {} $d/sendmail; mount --bind $d /usr/sbin",
        path.display()
    ))?;
    Ok(())
}

#[test]
fn a_mail_tells_of_an_incident_and_is_tried_again() -> Result<()> {
    let lab = Lab::new()?;
    let notes = lab.dir().join("notes");
    fs::create_dir(&notes)?;
    fs::set_permissions(&notes, Permissions::from_mode(0o777))?;
    // The first time as sendmail(8) says that it cannot at present (EX_TEMPFAIL).
    sendmail(
        &lab,
        &format!(
            "cd {}; [ -e again ] || {{ touch again; echo 'queue is full' >&2; exit 75; }}; cat > m; echo \"$@\" >> m; mv m mail",
            notes.display()
        ),
    )?;
    let notify = "[[response]]\nrules = [5710]\naction = \"notify\"\nmail = \"root\"\nretry = [\"1s\"]\n";
    let _controller = lab.start_controller(&format!("{}{notify}", lab.config()))?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.eventually("the mail is sent", Duration::from_secs(10), |_| Ok(notes.join("mail").exists()))?;
    let mail = fs::read_to_string(notes.join("mail"))?;
    let host = lab.sh("uname -n")?;
    let subject = format!("Subject: xdpban on {}: 10.99.66.66 blocked (rule 5710)\n", host.trim());
    assert!(mail.starts_with(&format!("To: root\n{subject}")), "{mail}");
    assert!(mail.contains("Source     10.99.66.66, blocked: 10.99.66.66, until 20"), "{mail}");
    assert!(mail.contains("Invalid user "), "{mail}");
    assert!(mail.ends_with("-t -oi\n"), "{mail}");
    assert_eq!(outcome(&lab, "mail")?, ["done", ""]);
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

#[test]
fn a_mail_that_cannot_be_sent_is_on_record() -> Result<()> {
    let lab = Lab::new()?;
    sendmail(&lab, "echo 'recipient unknown' >&2; exit 67")?;
    let notify =
        "[[response]]\nrules = [5710]\naction = \"notify\"\nmail = \"nobody@example.org\"\nretry = []\n";
    let _controller = lab.start_controller(&format!("{}{notify}", lab.config()))?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    assert_eq!(outcome(&lab, "mail")?, ["failed", "the command ended with status 67: recipient unknown"]);
    Ok(())
}
