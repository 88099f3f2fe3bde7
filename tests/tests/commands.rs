//! Commands that answer matches: the user's own, account lockout, notifications.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xdpban_tests::{Lab, Login, Outcome, PASSWORD, Side};

const ATTACKER: &str = "10.99.66.66";
const SOON: Duration = Duration::from_secs(5);

/// A script of sh(1) that anybody may run.
fn script(lab: &Lab, name: &str, text: &str) -> Result<PathBuf> {
    let path = lab.dir().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n"))?;
    fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    Ok(path)
}

/// A directory into which anybody may write.
fn notebook(lab: &Lab) -> Result<PathBuf> {
    let path = lab.dir().join("notes");
    fs::create_dir(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o777))?;
    Ok(path)
}

/// A configuration in which logins as unknown users are blocked, and lead to this command as well.
fn config(lab: &Lab, program: &Path, keys: &str) -> String {
    format!(
        "{}timeout = \"1h\"\n\n[[response]]\nrules = [5710]\naction = \"run\"\ncommand = [\"{}\", \"--flag\"]\n{keys}\n",
        lab.config_with_timeout("1h").replace("timeout = \"1h\"\n", ""),
        program.display()
    )
}

/// What a file says once it says something.
fn written(lab: &Lab, path: &Path) -> Result<String> {
    let full = |_: &Lab| Ok(fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n')));
    lab.eventually(&format!("{} is written", path.display()), SOON, full)?;
    fs::read_to_string(path).context("read what the command wrote")
}

/// The attacker's incidents in which a command ran.
fn runs(lab: &Lab) -> Result<Vec<Value>> {
    let show = lab.show(ATTACKER)?;
    let incidents = show["incidents"].as_array().cloned().unwrap_or_default();
    Ok(incidents.into_iter().filter(|incident| incident["action"] == "run").collect())
}

const NOTE: &str = "d=${0%/*}/notes; cat > $d/$XDPBAN_COMMAND.new; env | sort > $d/env; id -un > $d/user; \
    pwd >> $d/user; echo \"$@\" >> $d/user; ls /proc/self/fd | wc -l >> $d/user; \
    echo done; mv $d/$XDPBAN_COMMAND.new $d/$XDPBAN_COMMAND";

#[test]
fn a_command_is_told_what_happened_and_is_run_again_to_undo_it() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let program = script(&lab, "tell", NOTE)?;
    let _controller = lab.start_controller(&config(&lab, &program, "timeout = \"12s\""))?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    let add: Value = serde_json::from_str(&written(&lab, &notes.join("add"))?)?;
    assert_eq!((&add["version"], &add["command"]), (&json!(1), &json!("add")));
    assert_eq!((&add["srcip"], &add["user"]), (&json!(ATTACKER), &json!("admin")));
    assert_eq!((&add["rule"]["id"], &add["timeout_s"]), (&json!(5710), &json!(12)));
    let evidence = add["evidence"][0].as_str().unwrap_or_default();
    assert!(evidence.contains("Invalid user admin from 10.99.66.66"), "{add}");
    let environment = fs::read_to_string(notes.join("env"))?;
    assert!(
        environment.contains("XDPBAN_SRCIP=10.99.66.66\n") && !environment.contains("HOME="),
        "{environment}"
    );
    // Three descriptors, and the one with which ls reads the directory.
    assert_eq!(fs::read_to_string(notes.join("user"))?, "nobody\n/\n--flag\n4\n");

    lab.eventually("the run is on record", SOON, |lab| Ok(runs(lab)?.len() == 1))?;
    let incident = &runs(&lab)?[0];
    assert_eq!((&incident["outcome"], &incident["rule"]["id"]), (&json!("in_force"), &json!(5710)));
    assert!(!notes.join("delete").exists());
    let limit = Duration::from_secs(20);
    lab.eventually("it is undone", limit, |_| Ok(notes.join("delete").exists()))?;
    let delete: Value = serde_json::from_str(&written(&lab, &notes.join("delete"))?)?;
    assert_eq!((&delete["command"], &delete["incident"]), (&json!("delete"), &add["incident"]));
    lab.eventually("its end is on record", SOON, |lab| Ok(runs(lab)?[0]["outcome"] == "expired"))?;
    Ok(())
}

#[test]
fn what_is_to_be_undone_is_undone_after_a_crash() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let program = script(&lab, "tell", NOTE)?;
    let config = config(&lab, &program, "timeout = \"12s\"");
    let controller = lab.start_controller(&config)?;
    lab.attack(Side::Attacker.v4())?;
    lab.eventually("the run is on record", SOON, |lab| Ok(runs(lab)?.len() == 1))?;
    controller.kill9()?;
    let _controller = lab.start_controller(&config)?;
    assert!(!notes.join("delete").exists());
    lab.eventually("it is undone", Duration::from_secs(20), |_| Ok(notes.join("delete").exists()))?;
    let delete: Value = serde_json::from_str(&written(&lab, &notes.join("delete"))?)?;
    assert_eq!((&delete["srcip"], &delete["user"]), (&json!(ATTACKER), &json!("admin")));
    lab.eventually("its end is on record", SOON, |lab| Ok(runs(lab)?[0]["outcome"] == "expired"))?;
    Ok(())
}

/// Ignores SIGTERM, floods its output, forks, and does not end.
const HOSTILE: &str = "trap '' TERM; echo $$ >> ${0%/*}/notes/pids; \
    (trap '' TERM; sleep 1000) & (trap '' TERM; sleep 1000) & while :; do echo flood; done";

#[test]
fn a_command_that_hangs_and_floods_delays_no_block_and_is_killed() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let program = script(&lab, "hang", HOSTILE)?;
    let keys = "time_limit = \"1s\"\nat_most = 1";
    let _controller = lab.start_controller(&config(&lab, &program, keys))?;
    lab.attack(Side::Attacker.v4())?;
    lab.eventually("it hangs", SOON, |_| Ok(notes.join("pids").exists()))?;
    for (host, pid) in (1_u8..=100).zip(5000..) {
        let source = format!("10.99.90.{host}");
        lab.log().invalid_user(pid, &source)?;
        let start = Instant::now();
        while lab.entry(&source)?.is_none() {
            assert!(start.elapsed() < SOON, "{source} is not blocked");
        }
    }
    let took: Vec<f64> = (1_u8..=100)
        .map(|host| {
            let show = lab.show(&format!("10.99.90.{host}"))?;
            let incidents = show["incidents"].as_array().cloned().unwrap_or_default();
            let took = incidents.iter().find_map(|incident| incident["line_to_block_ms"].as_f64());
            took.with_context(|| format!("no block on record: {show}"))
        })
        .collect::<Result<_>>()?;
    let longest = took.iter().copied().fold(0.0, f64::max);
    println!("from line to block: {longest} ms at most");
    // Whatever waited for a run of the command would have waited for its time limit.
    assert!(longest < 1000.0, "from line to block: {longest} ms");

    lab.eventually("it is killed, which is on record", SOON, |lab| {
        Ok(runs(lab)?.first().is_some_and(|run| run["outcome"] == "failed"))
    })?;
    let reason = runs(&lab)?[0]["outcome_reason"].clone();
    assert_eq!(reason, "the command took too long and was killed");
    let first = fs::read_to_string(notes.join("pids"))?;
    let first = first.lines().next().context("the first process")?.to_owned();
    // Those that are dead but not yet waited for are gone.
    let group = format!("ps -o pid= -o pgid= -o stat= -e | awk '$2 == {first} && $3 !~ /^Z/'");
    lab.eventually("its children are gone with it", SOON, |lab| Ok(lab.sh(&group)?.is_empty()))?;
    // There was room for one and a queue of 64.
    let show = lab.show("10.99.90.100")?;
    assert!(show.to_string().contains("of its runs wait already"), "{show}");
    Ok(())
}

/// Gives the host accounts that can be changed: usermod(8) renames files, which it cannot where they are mounts.
fn own_accounts(lab: &Lab) -> Result<()> {
    let etc = lab.dir().join("own-etc");
    lab.sh(&format!("cp -a /etc {0} && mount --bind {0} /etc", etc.display())).map(drop)
}

fn expiry(lab: &Lab, user: &str) -> Result<String> {
    let line = lab.sh(&format!("grep '^{user}:' /etc/shadow"))?;
    Ok(line.trim().to_owned())
}

fn lockout(lab: &Lab, timeout: &str) -> String {
    format!(
        "{}[[response]]\naction = \"lock-account\"\nfailures = 4\nwindow = \"10m\"\ntimeout = \"{timeout}\"\n",
        lab.config()
    )
}

/// Fails to log in as `user` so many times, each from another address.
fn guess(lab: &Lab, user: &str, times: u8) -> Result<()> {
    for host in 1..=times {
        let from = format!("10.99.95.{host}").parse()?;
        lab.add_address(Side::Attacker, from)?;
        let outcome = lab.login(Side::Attacker, from, user, &Login::Password("wrong"))?;
        assert_eq!(outcome, Outcome::Denied);
    }
    Ok(())
}

fn locked(lab: &Lab) -> Result<Value> {
    Ok(lab.status()?["locked_accounts"].clone())
}

#[test]
fn an_account_under_attack_is_locked_and_unlocked_also_after_a_crash() -> Result<()> {
    let lab = Lab::new()?;
    own_accounts(&lab)?;
    let controller = lab.start_controller(&lockout(&lab, "8s"))?;
    let before = expiry(&lab, "alice")?;
    assert!(lab.login_ok(Side::Bystander)?);
    guess(&lab, "alice", 4)?;
    lab.eventually("alice is locked", SOON, |lab| Ok(expiry(lab, "alice")? != before))?;
    assert!(!lab.login_ok(Side::Bystander)?, "neither by key");
    let by_password = Login::Password(PASSWORD);
    assert_eq!(lab.login(Side::Bystander, Side::Bystander.v4(), "alice", &by_password)?, Outcome::Denied);
    assert_eq!(lab.login(Side::Bystander, Side::Bystander.v4(), "bob", &by_password)?, Outcome::Accepted);
    assert_eq!(locked(&lab)?, json!(["alice"]));

    controller.kill9()?;
    let _controller = lab.start_controller(&lockout(&lab, "8s"))?;
    lab.eventually("alice is unlocked", Duration::from_secs(15), |lab| Ok(expiry(lab, "alice")? == before))?;
    assert!(lab.login_ok(Side::Bystander)?);
    lab.eventually("nobody is locked", SOON, |lab| Ok(locked(lab)? == json!([])))?;
    Ok(())
}

#[test]
fn an_account_is_unlocked_by_hand_as_it_was_and_root_is_never_locked() -> Result<()> {
    let lab = Lab::new()?;
    own_accounts(&lab)?;
    // It is to expire some day, which must not be forgotten.
    lab.sh("usermod --expiredate 2090-01-01 alice")?;
    let _controller = lab.start_controller(&lockout(&lab, "1h"))?;
    let before = expiry(&lab, "alice")?;
    guess(&lab, "alice", 4)?;
    lab.eventually("alice is locked", SOON, |lab| Ok(locked(lab)? == json!(["alice"])))?;
    lab.eventually("alice is locked", SOON, |lab| Ok(expiry(lab, "alice")? != before))?;
    lab.xdpban(&["unlock", "bob"])?.expect_code(1)?.stderr_has("is not locked by xdpban")?;
    lab.eventually(
        "it can be unlocked",
        SOON,
        |lab| Ok(lab.xdpban(&["unlock", "alice"])?.code() == Some(0)),
    )?;
    lab.eventually("alice is as before", SOON, |lab| Ok(expiry(lab, "alice")? == before))?;

    let root = expiry(&lab, "root")?;
    guess(&lab, "root", 6)?;
    lab.has_read_the_log()?;
    lab.eventually("root is left alone", SOON, |lab| {
        Ok(fs::read_to_string(lab.dir().join("controller.log"))?.contains("root is left alone: it is root"))
    })?;
    assert_eq!(expiry(&lab, "root")?, root);
    assert_eq!(locked(&lab)?, json!([]));
    Ok(())
}

#[test]
fn what_an_administrator_has_changed_since_is_left() -> Result<()> {
    let lab = Lab::new()?;
    own_accounts(&lab)?;
    let _controller = lab.start_controller(&lockout(&lab, "1h"))?;
    guess(&lab, "alice", 4)?;
    let note = lab.dir().join("state/locked-accounts/alice.json");
    lab.eventually("alice is locked", SOON, |lab| {
        Ok(note.exists() && expiry(lab, "alice")?.ends_with(":1:"))
    })?;
    lab.sh("usermod --expiredate 2031-01-01 alice")?;
    let changed = expiry(&lab, "alice")?;
    lab.eventually(
        "it can be unlocked",
        SOON,
        |lab| Ok(lab.xdpban(&["unlock", "alice"])?.code() == Some(0)),
    )?;
    lab.eventually("the note is gone", SOON, |_| Ok(!note.exists()))?;
    assert_eq!(expiry(&lab, "alice")?, changed);
    Ok(())
}

#[test]
fn a_mail_tells_of_an_incident() -> Result<()> {
    let lab = Lab::new()?;
    let notes = notebook(&lab)?;
    let sendmail = script(&lab, "sendmail", &format!("cat > {0}/m; echo \"$@\" >> {0}/m", notes.display()))?;
    lab.sh(&format!(
        "touch /run/sendmail; d=/run/sbin; mkdir $d; cp -a /usr/sbin/. $d; cp {} $d/sendmail; \
        mount --bind $d /usr/sbin",
        sendmail.display()
    ))?;
    let notify = "[[response]]\nrules = [5710]\naction = \"notify\"\nmail = \"root\"\n";
    let _controller = lab.start_controller(&format!("{}{notify}", lab.config()))?;
    lab.attack(Side::Attacker.v4())?;
    let mail = written(&lab, &notes.join("m"))?;
    lab.blocked(ATTACKER)?;
    assert!(mail.starts_with("To: root\nSubject: xdpban: rule 5710 because of 10.99.66.66\n"), "{mail}");
    assert!(mail.contains("\"srcip\": \"10.99.66.66\""), "{mail}");
    lab.eventually("it is on record", SOON, |lab| Ok(runs(lab)?.iter().any(|run| run["outcome"] == "done")))?;
    Ok(())
}
