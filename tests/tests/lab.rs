//! The lab itself, without xdpban: what the other tests rely on.

use std::fs;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use xdpban_tests::{GATEWAY_V4, Lab, Login, Outcome, PASSWORD, Side};

#[test]
fn a_failed_login_is_logged_with_its_source_and_a_bystander_gets_in() -> Result<()> {
    let lab = Lab::new()?;
    assert_eq!(lab.fail_login("admin")?, Outcome::Denied);
    assert_eq!(lab.fail_login("alice")?, Outcome::Denied);
    assert!(lab.login_ok(Side::Bystander)?);

    let log = lab.log().text()?;
    for text in [
        "guarded sshd[",
        "]: Invalid user admin from 10.99.66.66 port ",
        "]: Failed password for invalid user admin from 10.99.66.66 port ",
        "]: Failed password for alice from 10.99.66.66 port ",
        "]: Accepted publickey for alice from 10.99.10.10 port ",
    ] {
        assert!(log.contains(text) || log.contains(&text.replace("sshd[", "sshd-session[")), "{text}\n{log}");
    }
    Ok(())
}

#[test]
fn every_side_reaches_the_host_by_both_families() -> Result<()> {
    let lab = Lab::new()?;
    for side in [Side::Attacker, Side::Bystander] {
        for from in [side.v4(), side.v6()] {
            assert!(lab.tcp_connect(side, from, 22)?, "{side:?} from {from}");
            assert!(!lab.tcp_connect(side, from, 23)?, "{side:?} from {from}");
            assert!(lab.login_ok_from(side, from)?, "{side:?} from {from}");
        }
    }
    let further: IpAddr = "2001:db8:99:77::1".parse()?;
    lab.add_address(Side::Attacker, further)?;
    assert_eq!(lab.login(Side::Attacker, further, "bob", &Login::Password("wrong"))?, Outcome::Denied);
    assert_eq!(lab.login(Side::Attacker, further, "bob", &Login::Password(PASSWORD))?, Outcome::Accepted);
    let log = lab.log().text()?;
    assert!(log.contains("Failed password for bob from 2001:db8:99:77::1 port "), "{log}");
    assert!(log.contains("Accepted password for bob from 2001:db8:99:77::1 port "), "{log}");

    let host = lab.command(Side::Host, "/bin/sh").args(["-c", "ip route; ip -6 route"]).output()?;
    let routes = String::from_utf8_lossy(&host.stdout);
    assert!(routes.contains(&format!("default via {GATEWAY_V4} dev eth0")), "{routes}");
    Ok(())
}

#[test]
fn user_names_reach_the_log_as_the_client_sends_them() -> Result<()> {
    let lab = Lab::new()?;
    for user in ["x from 8.8.8.8 port 22 ssh2", "root@192.0.2.1 [preauth]"] {
        assert_eq!(lab.fail_login(user)?, Outcome::Denied);
        let log = lab.log().text()?;
        assert!(log.contains(&format!("Invalid user {user} from 10.99.66.66 port ")), "{log}");
    }
    Ok(())
}

#[test]
fn datagrams_are_counted_at_the_host() -> Result<()> {
    let lab = Lab::new()?;
    for from in [Side::Bystander.v4(), Side::Bystander.v6()] {
        let stream = lab.stream(Side::Bystander, from, Duration::from_millis(1))?;
        lab.eventually("50 datagrams arrived", Duration::from_secs(5), |_| Ok(stream.received() >= 50))?;
        assert!(stream.last_received().is_some());
        let (sent, received) = stream.stop()?;
        assert_eq!(sent, received);
    }
    let arrived = lab.flood(Side::Attacker, Side::Attacker.v4(), 10_000)?;
    assert!((1..=10_000).contains(&arrived), "{arrived}");
    Ok(())
}

#[test]
fn the_host_has_its_own_log_run_and_bpffs() -> Result<()> {
    let lab = Lab::new()?;
    lab.fail_login("admin")?;
    let look =
        "test -S /dev/log && grep -c Invalid /var/log/auth.log && ls /run && stat -f -c %T /sys/fs/bpf";
    let output = lab.command(Side::Host, "/bin/sh").args(["-c", look]).output()?;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\nsshd\nbpf_fs\n");
    let interfaces = lab.command(Side::Host, "/bin/ls").arg("/sys/class/net").output()?;
    assert_eq!(String::from_utf8_lossy(&interfaces.stdout), "eth0\nlo\n");
    Ok(())
}

#[test]
fn the_log_rotates_in_each_form() -> Result<()> {
    let lab = Lab::new()?;
    let log = lab.log();
    lab.fail_login("first")?;
    // sshd's last word on the connection.
    let last = "Connection closed by invalid user first";
    lab.eventually(last, Duration::from_secs(5), |_| Ok(log.text()?.contains(last)))?;
    log.rotate_by_rename()?;
    lab.fail_login("second")?;
    let last = "Connection closed by invalid user second";
    lab.eventually(last, Duration::from_secs(5), |_| Ok(log.text()?.contains(last)))?;
    let text = log.text()?;
    assert!(!text.contains("first") && text.contains("second"), "{text}");
    log.rotate_by_copytruncate()?;
    assert_eq!(log.text()?, "");
    lab.fail_login("third")?;
    assert!(log.text()?.contains("third"));
    assert!(fs::read_to_string(log.path().with_extension("log.1"))?.contains("second"));
    log.delete()?;
    log.reopen()?;
    log.append(b"a half")?;
    assert_eq!(log.text()?, "a half");
    Ok(())
}

#[test]
fn a_session_stays_open_until_it_is_dropped() -> Result<()> {
    let lab = Lab::new()?;
    let session = lab.open_session(Side::Bystander, Side::Bystander.v6())?;
    let end = "Disconnected from user alice 2001:db8:99:10::10 port ";
    sleep(Duration::from_millis(300));
    let log = lab.log().text()?;
    assert!(log.contains("Accepted publickey for alice from 2001:db8:99:10::10 port "), "{log}");
    assert!(!log.contains(end), "{log}");
    drop(session);
    lab.eventually("the session ended", Duration::from_secs(5), |lab| Ok(lab.log().text()?.contains(end)))
}

#[test]
fn nothing_is_left_behind() -> Result<()> {
    let lab = Lab::new()?;
    let session = lab.open_session(Side::Bystander, Side::Bystander.v4())?;
    let mut sleep = lab.command(Side::Attacker, "/bin/sleep").arg("1000").spawn()?;
    let dir = lab.dir().to_owned();
    assert!(processes_that_mention(&dir.to_string_lossy())? > 0);
    drop(lab);
    assert!(!dir.exists());
    assert_eq!(processes_that_mention(&dir.to_string_lossy())?, 0);
    assert!(!sleep.wait()?.success());
    assert!(!fs::read_to_string("/proc/mounts")?.contains(&*dir.to_string_lossy()));
    drop(session);
    Ok(())
}

fn processes_that_mention(text: &str) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        // Most of what stands in /proc is no process, and a process may have ended since.
        let Ok(line) = fs::read(entry?.path().join("cmdline")) else { continue };
        count += usize::from(String::from_utf8_lossy(&line).contains(text));
    }
    Ok(count)
}
