//! Streams of incidents, as real receivers take them: systemd's journald and rsyslogd.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";

/// Words with all that a receiver could take for something else.
const ODD: &str = "a\"b\\c%s<13>$(x)é";

/// A daemon in the lab; killed when dropped.
struct Daemon(Child);

impl Daemon {
    /// Starts it, and waits until its socket is there.
    fn start(lab: &Lab, command: &mut Command, socket: &str) -> Result<Daemon> {
        let child = command.stdin(Stdio::null()).spawn().context("start a daemon")?;
        let daemon = Daemon(child);
        lab.eventually("its socket is there", Duration::from_secs(10), |lab| {
            Ok(lab.sh(&format!("test -S {socket} && echo yes || true"))?.contains("yes"))
        })?;
        Ok(daemon)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended by itself has failed its test already.
        self.0.kill().and_then(|()| self.0.wait()).map(drop).unwrap_or_default();
    }
}

/// An attack, and an incident by hand, for an odd reason, that is ended by hand.
fn act(lab: &Lab) -> Result<()> {
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.xdpban(&["block", "2001:db8:7::/64", "--reason", ODD])?.success()?;
    lab.xdpban(&["unblock", "2001:db8:7::/64", "--reason", "they moved"])?.success()?;
    Ok(())
}

/// Whether these documents, as a receiver has them, are the file's, which is written by the same hands with nobody in between.
fn same(lab: &Lab, received: impl Fn(&Lab) -> Result<Vec<Value>>) -> Result<()> {
    let file = lab.dir().join("incidents.json");
    lab.eventually("the receiver has all three incidents' records", Duration::from_secs(10), |lab| {
        Ok(file.exists() && documents(&file)?.len() == 3 && received(lab)?.len() == 3)
    })?;
    let (received, expected) = (received(lab)?, documents(&file)?);
    assert_eq!(received, expected);
    let actions: Vec<&Value> = received.iter().map(|document| &document["event"]["action"]).collect();
    assert_eq!(actions, ["incident-opened", "incident-opened", "incident-ended"]);
    assert_eq!(received[1]["event"]["reason"], ODD);
    Ok(())
}

fn documents(file: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn config(lab: &Lab, receiver: &str) -> String {
    let file = lab.dir().join("incidents.json");
    format!("{}[record]\nstream = [\"{receiver}\", \"{}\"]\n", lab.config_with_timeout("1h"), file.display())
}

#[test]
fn journald_takes_incidents_as_they_are() -> Result<()> {
    let lab = Lab::new()?;
    // journald looks there for what it knows of senders.
    lab.sh("mount -t cgroup2 cgroup2 /sys/fs/cgroup")?;
    let mut journald = lab.command(Side::Host, "/lib/systemd/systemd-journald");
    let _journald = Daemon::start(&lab, &mut journald, "/run/systemd/journal/socket")?;
    let _controller = lab.start_controller(&config(&lab, "journal"))?;
    act(&lab)?;
    let entries = |lab: &Lab| -> Result<Vec<Value>> {
        let entries = lab.sh("journalctl -o json -t xdpban SYSLOG_FACILITY=3 PRIORITY=5 --no-pager")?;
        entries.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    };
    same(&lab, |lab| {
        let message = |entry: Value| {
            let message = entry["MESSAGE"].as_str().with_context(|| entry.to_string())?;
            serde_json::from_str(message).with_context(|| message.to_owned())
        };
        entries(lab)?.into_iter().map(message).collect()
    })?;
    // What journald itself knows of the sender.
    assert_eq!(entries(&lab)?[0]["_COMM"], "xdpban");
    Ok(())
}

#[test]
fn rsyslogd_takes_incidents_as_they_are() -> Result<()> {
    let lab = Lab::new()?;
    let (conf, log) = (lab.dir().join("rsyslog.conf"), lab.dir().join("log/incidents.log"));
    let text = format!(
        "module(load=\"imuxsock\")\n\
         template(name=\"all\" type=\"string\" string=\"%syslogfacility-text%.%syslogseverity-text% %programname%:%msg%\\n\")\n\
         if $programname == \"xdpban\" then action(type=\"omfile\" file=\"{}\" template=\"all\")\n\
         else action(type=\"omfile\" file=\"{}\" template=\"RSYSLOG_TraditionalFileFormat\")\n",
        log.display(),
        lab.log().path().display()
    );
    fs::write(&conf, text).context("write rsyslogd's configuration")?;
    // In the place of the lab's own daemon, for sshd's lines, too.
    lab.sh("rm /dev/log")?;
    let mut rsyslogd = lab.command(Side::Host, "/usr/sbin/rsyslogd");
    rsyslogd.arg("-n").arg("-f").arg(&conf).args(["-i", "NONE"]);
    let _rsyslogd = Daemon::start(&lab, &mut rsyslogd, "/dev/log")?;
    let _controller = lab.start_controller(&config(&lab, "syslog"))?;
    act(&lab)?;
    same(&lab, |_| {
        let text = if log.exists() { fs::read_to_string(&log)? } else { String::new() };
        let document = |line: &str| {
            let (_, message) = line.split_once("daemon.notice xdpban: ").with_context(|| line.to_owned())?;
            serde_json::from_str(message).with_context(|| message.to_owned())
        };
        text.lines().map(document).collect()
    })
}
