//! Real ssh clients that log in to the guarded host, or fail to.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;
use crate::process::{Transcript, find, inside, line};

/// Accounts that exist on the host, beside those of the machine that it runs on.
pub const USERS: [&str; 2] = ["alice", "bob"];
/// The password of [`USERS`].
pub const PASSWORD: &str = "correct horse battery staple";
/// [`PASSWORD`], as crypt(5) writes it.
const PASSWORD_HASH: &str =
    "$6$xdpbanlab$m/5Bjkw1dMzfnPYv2jVT04g6viWAucB.sorB9AzVDgMqVNy8YxKmNthtmP/XbUIbtiorRYfeDNCdGFZQfHh8v/";

/// The lines of passwd(5) for [`USERS`].
pub(crate) fn passwd() -> String {
    let line = |(name, id): (&str, u32)| format!("{name}:x:{id}:{id}::/:/bin/sh\n");
    USERS.into_iter().zip(61001..).map(line).collect()
}

/// The lines of shadow(5) for [`USERS`].
pub(crate) fn shadow() -> String {
    USERS.iter().map(|name| format!("{name}:{PASSWORD_HASH}:19000:0:99999:7:::\n")).collect()
}

/// How to log in.
#[derive(Clone, Debug)]
pub enum Login<'a> {
    /// By the key that [`USERS`] and root accept.
    Key,
    /// By this password, tried once on one connection.
    Password(&'a str),
    /// By this password, tried again and again on one connection.
    PasswordTimes(&'a str, u32),
}

/// What came of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Accepted,
    /// sshd answered and refused.
    Denied,
    /// No connection came about in three seconds, or it died or fell silent.
    NoConnection,
}

/// Where ssh clients run, and with what.
#[derive(Debug)]
pub(crate) struct Client {
    ssh: PathBuf,
    dir: PathBuf,
}

impl Client {
    /// Clients with the key `client_key` in `dir`.
    pub(crate) fn new(dir: &Path) -> Result<Client> {
        let client = Client { ssh: find("ssh")?, dir: dir.to_path_buf() };
        let askpass = client.askpass();
        fs::write(&askpass, "#!/bin/sh\nprintf '%s\\n' \"$LAB_PASSWORD\"\n")
            .and_then(|()| fs::set_permissions(&askpass, Permissions::from_mode(0o755)))
            .with_context(|| format!("write {}", askpass.display()))?;
        Ok(client)
    }

    /// Starts to log in and to run `true`.
    pub(crate) fn start(
        &self,
        network: &Namespace,
        from: IpAddr,
        to: IpAddr,
        user: &str,
        login: &Login<'_>,
    ) -> Result<Attempt> {
        let mut command = self.command(network, from, to, user, login);
        command.arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("start `{}`", line(&command)))?;
        Ok(Attempt { child, command: line(&command) })
    }

    /// Logs in by key and stays.
    pub(crate) fn session(
        &self,
        network: &Namespace,
        from: IpAddr,
        to: IpAddr,
        user: &str,
    ) -> Result<Session> {
        let mut command = self.command(network, from, to, user, &Login::Key);
        // The far end lives until it reads the end of its input, which comes when our end is gone.
        command.arg("echo open; cat").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("start `{}`", line(&command)))?;
        let mut session = Session { child };
        let mut first = String::new();
        let stdout = session.child.stdout.take().context("the output of ssh")?;
        BufReader::new(stdout).read_line(&mut first).context("read from ssh")?;
        if first.trim_end() != "open" {
            bail!("`{}` opened no session", line(&command));
        }
        Ok(session)
    }

    fn command(
        &self,
        network: &Namespace,
        from: IpAddr,
        to: IpAddr,
        user: &str,
        login: &Login<'_>,
    ) -> Command {
        let mut command = inside(network, None, &self.ssh);
        command.args(["-F", "none", "-T", "-b", &from.to_string()]);
        let mut option = |name: &str, value: &str| {
            command.args(["-o", &format!("{name}={value}")]);
        };
        option("ConnectTimeout", "3");
        option("StrictHostKeyChecking", "no");
        option("UserKnownHostsFile", "/dev/null");
        option("GlobalKnownHostsFile", "/dev/null");
        option("LogLevel", "ERROR");
        let (password, times) = match login {
            Login::Key => {
                option("PreferredAuthentications", "publickey");
                option("IdentitiesOnly", "yes");
                command.arg("-i").arg(self.dir.join("client_key"));
                ("", 0)
            }
            Login::Password(password) => (*password, 1),
            Login::PasswordTimes(password, times) => (*password, *times),
        };
        if times > 0 {
            command.args(["-o", "PreferredAuthentications=password", "-o", "PubkeyAuthentication=no"]);
            command.args(["-o", &format!("NumberOfPasswordPrompts={times}")]);
        }
        command.args(["-l", user, "--", &to.to_string()]);
        // ssh takes passwords from a terminal alone, or from such a program.
        command
            .env("SSH_ASKPASS", self.askpass())
            .env("SSH_ASKPASS_REQUIRE", "force")
            .env("LAB_PASSWORD", password);
        command.env_remove("SSH_AUTH_SOCK");
        command
    }

    fn askpass(&self) -> PathBuf {
        self.dir.join("askpass")
    }
}

/// A login under way; killed when dropped.
#[derive(Debug)]
pub struct Attempt {
    child: Child,
    command: String,
}

impl Attempt {
    /// Waits for its end. ssh itself would wait without end for a host that fell silent in mid-login; five seconds is what it gets.
    pub fn outcome(mut self) -> Result<Outcome> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().context("look at ssh")? {
                break status;
            }
            if start.elapsed() > Duration::from_secs(5) {
                return Ok(Outcome::NoConnection);
            }
            sleep(Duration::from_millis(5));
        };
        let mut stderr = Vec::new();
        self.child
            .stderr
            .take()
            .context("the errors of ssh")?
            .read_to_end(&mut stderr)
            .context("read from ssh")?;
        let output = Output { status, stdout: Vec::new(), stderr };
        outcome(&output)
            .with_context(|| format!("{}", Transcript { command: &self.command, output: &output }))
    }
}

impl Drop for Attempt {
    #[allow(clippy::print_stderr, reason = "a destructor has no other way to tell")]
    fn drop(&mut self) {
        // Both do nothing where it has ended and been waited for.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the lab's ssh could not be ended: {error}");
        }
    }
}

/// ssh says 255 for whatever went wrong with itself; the rest stands in its words.
fn outcome(output: &Output) -> Result<Outcome> {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(Outcome::Accepted),
        Some(255)
            if said.contains("Permission denied") || said.contains("Too many authentication failures") =>
        {
            Ok(Outcome::Denied)
        }
        // Where PAM refuses an account sshd hangs up, of which ssh says nothing.
        Some(255) if said.trim().is_empty() => Ok(Outcome::NoConnection),
        Some(255)
            if ["timed out", "refused", "closed", "reset", "No route"]
                .iter()
                .any(|word| said.contains(word)) =>
        {
            Ok(Outcome::NoConnection)
        }
        _ => bail!("ssh did not get as far as the host"),
    }
}

/// An ssh session that is open until it is dropped; it then ends as one does whose user says `exit`.
#[derive(Debug)]
pub struct Session {
    child: Child,
}

impl Session {
    /// A session that cannot say goodbye, since its packets die, is killed after a second.
    fn end(&mut self) -> io::Result<()> {
        drop(self.child.stdin.take());
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > Duration::from_secs(1) {
                self.child.kill()?;
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Session {
    #[allow(clippy::print_stderr, reason = "a destructor has no other way to tell")]
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the lab's ssh could not be ended: {error}");
        }
    }
}
