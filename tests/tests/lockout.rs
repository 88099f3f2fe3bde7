//! Locking the account that is attacked: `action = "lock-account"`.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use xdpban_tests::{Lab, Login, Outcome, PASSWORD, Side};

const SOON: Duration = Duration::from_secs(5);

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

/// What came of the runs that locked `user`.
fn outcomes(lab: &Lab, user: &str) -> Result<Vec<Value>> {
    let incidents = lab.xdpban(&["--json", "incidents", "--user", user])?.json()?;
    let lockouts = incidents.as_array().into_iter().flatten().filter(|it| it["action"] == "run");
    Ok(lockouts.map(|it| it["outcome"].clone()).collect())
}

#[test]
fn an_account_under_attack_is_locked_and_unlocked_also_after_a_crash() -> Result<()> {
    locks_and_unlocks(&Lab::new()?)
}

/// As distributions have it: sshd asks pam_unix, which reads /etc/shadow.
#[test]
fn also_where_sshd_uses_pam() -> Result<()> {
    let lab = Lab::with_sshd("UsePAM yes\n")?;
    locks_and_unlocks(&lab)?;
    let log = lab.log().text()?;
    assert!(log.contains("pam_unix(sshd:account): account alice has expired"), "{log}");
    Ok(())
}

fn locks_and_unlocks(lab: &Lab) -> Result<()> {
    own_accounts(lab)?;
    let controller = lab.start_controller(&lockout(lab, "12s"))?;
    let before = expiry(lab, "alice")?;
    let by_password = Login::Password(PASSWORD);
    let login = |user: &str, how: &Login<'_>| lab.login(Side::Bystander, Side::Bystander.v4(), user, how);
    assert_eq!(login("alice", &by_password)?, Outcome::Accepted);
    assert!(lab.login_ok(Side::Bystander)?);
    guess(lab, "alice", 4)?;
    lab.eventually("alice is locked", SOON, |lab| Ok(expiry(lab, "alice")? != before))?;
    // sshd hangs up where PAM says no after the password was right.
    assert_ne!(login("alice", &by_password)?, Outcome::Accepted);
    assert!(!lab.login_ok(Side::Bystander)?, "neither by key");
    assert_eq!(login("bob", &by_password)?, Outcome::Accepted);
    assert_eq!(login("bob", &Login::Key)?, Outcome::Accepted);
    assert_eq!(locked(lab)?, json!(["alice"]));
    lab.xdpban(&["status"])?.success()?.stdout_has("alice until 20")?;

    controller.kill9()?;
    let controller = lab.start_controller(&lockout(lab, "12s"))?;
    lab.eventually("alice is unlocked", Duration::from_secs(20), |lab| Ok(expiry(lab, "alice")? == before))?;
    assert!(lab.login_ok(Side::Bystander)?);
    assert_eq!(login("alice", &by_password)?, Outcome::Accepted);
    lab.eventually("nobody is locked", SOON, |lab| Ok(locked(lab)? == json!([])))?;
    lab.eventually("all of it is on record", SOON, |lab| {
        let incidents = lab.xdpban(&["--json", "incidents", "--user", "alice"])?.json()?;
        let lockouts = incidents.as_array().into_iter().flatten().filter(|it| it["action"] == "run");
        let lockouts: Vec<&Value> = lockouts.collect();
        Ok(matches!(&lockouts[..], [it] if it["outcome"] == "expired"
            && it["rule"]["id"] == 205_703 && it["command"] == "lock-account alice"))
    })?;
    controller.stop()?;
    let today = lab.sh("date -u +%Y-%m-%d")?;
    let report = lab.xdpban(&["report", "--from", today.trim()])?;
    report.success()?.stdout_has("lock-account alice")?;
    Ok(())
}

#[test]
fn the_last_account_with_sudo_is_left_alone() -> Result<()> {
    let lab = Lab::new()?;
    own_accounts(&lab)?;
    lab.sh("usermod --append --groups sudo alice")?;
    let _controller = lab.start_controller(&lockout(&lab, "1h"))?;
    let before = expiry(&lab, "alice")?;
    guess(&lab, "alice", 4)?;
    lab.eventually("alice is left alone", SOON, |lab| {
        let log = fs::read_to_string(lab.dir().join("controller.log"))?;
        Ok(log.contains("alice is left alone: it is the last account that may become root by sudo"))
    })?;
    assert_eq!(expiry(&lab, "alice")?, before);
    lab.eventually("that is on record", SOON, |lab| {
        let refused = lab.xdpban(&["--json", "incidents", "--outcome", "refused"])?.json()?;
        let why = "alice is left alone: it is the last account that may become root by sudo";
        Ok(refused[0]["action"] == "run" && refused[0]["outcome_reason"] == why)
    })?;
    assert!(lab.xdpban(&["status"])?.success()?.stdout().contains("all is well"));
    // Of two, one can be locked, and then the other is the last.
    lab.sh("usermod --append --groups sudo bob")?;
    guess(&lab, "bob", 4)?;
    lab.eventually("bob is locked", SOON, |lab| Ok(locked(lab)? == json!(["bob"])))?;
    assert_eq!(expiry(&lab, "alice")?, before);
    assert!(lab.login_ok(Side::Bystander)?);
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
    lab.eventually("who had it unlocked is on record", SOON, |lab| {
        let incidents = lab.xdpban(&["--json", "incidents", "--user", "alice"])?.json()?;
        Ok(incidents.as_array().into_iter().flatten().any(|it| {
            it["outcome"] == "lifted" && it["outcome_uid"] == 0 && it["outcome_reason"] == "by uid 0"
        }))
    })?;
    let report = lab.xdpban(&["--json", "report"])?.json()?;
    let acts = report["acts"]["listed"].as_array().into_iter().flatten();
    let acts: Vec<&Value> = acts.map(|act| &act["what"]).collect();
    assert!(acts.contains(&&json!("had the account alice unlocked")), "{acts:?}");
    assert!(
        acts.contains(&&json!("asked to unlock the account bob, which xdpban had not locked")),
        "{acts:?}"
    );

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

/// Has whatever locks an account killed as soon as it is locked.
fn kill_what_locks(lab: &Lab) -> Result<()> {
    let (usermod, real) = (lab.dir().join("usermod"), lab.dir().join("usermod.real"));
    let text = format!("#!/bin/sh\n{} \"$@\" || exit\n[ \"$2\" != 1 ] || kill -9 $PPID\n", real.display());
    fs::write(&usermod, text)?;
    lab.sh(&format!(
        "it=$(command -v usermod) && cp $it {1} && chmod 755 {0} && mount --bind {0} $(readlink -f $it)",
        usermod.display(),
        real.display()
    ))
    .map(drop)
}

#[test]
fn an_account_is_unlocked_also_where_what_locked_it_was_killed() -> Result<()> {
    let lab = Lab::new()?;
    own_accounts(&lab)?;
    kill_what_locks(&lab)?;
    let _controller = lab.start_controller(&lockout(&lab, "1h"))?;
    let before = expiry(&lab, "alice")?;
    guess(&lab, "alice", 4)?;
    lab.eventually("alice is known as locked", SOON, |lab| Ok(locked(lab)? == json!(["alice"])))?;
    lab.eventually("it was killed", SOON, |lab| {
        let log = fs::read_to_string(lab.dir().join("controller.log"))?;
        Ok(log.contains("the command was ended by signal 9"))
    })?;
    assert_ne!(expiry(&lab, "alice")?, before);
    lab.xdpban(&["unlock", "alice"])?.success()?;
    lab.eventually("alice is as before", SOON, |lab| Ok(expiry(lab, "alice")? == before))?;
    lab.eventually("nobody is locked", SOON, |lab| Ok(locked(lab)? == json!([])))?;
    lab.eventually("that is on record", SOON, |lab| Ok(outcomes(lab, "alice")? == ["lifted"]))?;
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
fn an_account_is_unlocked_also_where_the_configuration_locks_none_any_longer() -> Result<()> {
    let lab = Lab::new()?;
    own_accounts(&lab)?;
    let without = lab.config();
    let controller = lab.start_controller(&lockout(&lab, "15s"))?;
    let before = [expiry(&lab, "alice")?, expiry(&lab, "bob")?];
    guess(&lab, "alice", 4)?;
    guess(&lab, "bob", 4)?;
    lab.eventually("both are locked", SOON, |lab| Ok(locked(lab)? == json!(["alice", "bob"])))?;
    lab.eventually("in /etc/shadow, too", SOON, |lab| {
        Ok(expiry(lab, "alice")? != before[0] && expiry(lab, "bob")? != before[1])
    })?;

    lab.write_config(&without)?;
    controller.reload()?;
    lab.eventually("the reload is done", SOON, |lab| {
        Ok(fs::read_to_string(lab.dir().join("controller.log"))?
            .contains("configuration and rules read again"))
    })?;
    lab.xdpban(&["unlock", "alice"])?.success()?;
    lab.eventually("alice is as before", SOON, |lab| Ok(expiry(lab, "alice")? == before[0]))?;
    controller.stop()?;
    let _controller = lab.start_controller(&without)?;
    lab.eventually("bob is as before", Duration::from_secs(20), |lab| Ok(expiry(lab, "bob")? == before[1]))?;
    lab.eventually("nobody is locked", SOON, |lab| Ok(locked(lab)? == json!([])))?;
    lab.eventually("that is on record", SOON, |lab| {
        let incidents = lab.xdpban(&["--json", "incidents"])?.json()?;
        let ended = |command: &str, outcome: &str| {
            let mut all = incidents.as_array().into_iter().flatten();
            all.any(|it| it["command"] == command && it["outcome"] == outcome)
        };
        Ok(ended("lock-account alice", "lifted") && ended("lock-account bob", "expired"))
    })
}
