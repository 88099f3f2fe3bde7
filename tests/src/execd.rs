//! Wazuh's `execd`, as far as an executable of Active Response sees it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::network::Side;

/// Wazuh's directory in a lab, with the binary under test linked as one of its executables.
#[derive(Debug)]
pub struct Execd<'l> {
    lab: &'l Lab,
    home: PathBuf,
    name: &'static str,
}

/// A running executable, with its standard input open as Wazuh keeps it.
#[derive(Debug)]
pub struct Started {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    start: Instant,
}

/// How an executable ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stderr.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

impl<'l> Execd<'l> {
    /// With the executable called `name`.
    pub fn new(lab: &'l Lab, name: &'static str) -> Result<Execd<'l>> {
        let home = lab.dir().join("ossec");
        for dir in ["active-response/bin", "logs"] {
            fs::create_dir_all(home.join(dir)).with_context(|| format!("create {dir} of Wazuh"))?;
        }
        let link = home.join("active-response/bin").join(name);
        symlink(lab.xdpban_binary()?, &link).with_context(|| format!("link {}", link.display()))?;
        Ok(Execd { lab, home, name })
    }

    /// A message about `source`, as version 4 writes it.
    pub fn message(&self, command: &str, source: &str, full_log: &str) -> Value {
        json!({
            "version": 1,
            "origin": {"name": "node01", "module": "wazuh-execd"},
            "command": command,
            "parameters": {
                "extra_args": ["--socket", self.lab.socket()],
                "alert": {
                    "timestamp": "2026-05-03T07:18:04.836-0700",
                    "rule": {"level": 5, "description": "no such user", "id": "5710", "groups": ["syslog", "sshd"]},
                    "full_log": full_log,
                    "data": {"srcip": source, "srcuser": "admin"},
                    "location": "/var/log/auth.log",
                },
                "program": format!("active-response/bin/{}", self.name),
            },
        })
    }

    /// Starts the executable on the host and writes `line` to it.
    pub fn start(&self, line: &str) -> Result<Started> {
        let path = self.home.join("active-response/bin").join(self.name);
        let mut command = self.lab.command(Side::Host, &path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {}", path.display()))?;
        let stdin = child.stdin.take().context("the executable's stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("the executable's stdout")?);
        let mut started = Started { child, stdin, stdout, start };
        started.write(line)?;
        Ok(started)
    }

    /// A message about `source` as version 5 writes it, of a response that Wazuh lifts after `timeout` seconds.
    pub fn message_5(&self, command: &str, source: &str, original: &str, timeout: u64) -> Value {
        json!({
            "wazuh": {"active_response": {
                "name": "block-ssh", "executable": self.name,
                "extra_arguments": ["--socket", self.lab.socket()],
                "type": "stateful", "stateful_timeout": timeout, "location": "local",
            }},
            "event": {"original": original},
            "rule": {"id": "5710", "level": 5, "title": "found by Wazuh"},
            "source": {"ip": source},
            "user": {"name": "admin"},
            "command": command,
        })
    }

    /// Has `source` blocked, or unblocked, as Wazuh would: with `add`, goes ahead when it is asked.
    pub fn run(&self, command: &str, source: &str, full_log: &str) -> Result<Ended> {
        let message = self.message(command, source, full_log);
        let mut started = self.start(&message.to_string())?;
        if command == "add" {
            started.keys()?.context("it ended without its keys")?;
            started.write(&self.message("continue", source, full_log).to_string())?;
        }
        started.end()
    }

    /// What stands in `active-responses.log`, without the times and the name of the executable.
    pub fn log(&self) -> Result<Vec<String>> {
        let log = fs::read_to_string(self.home.join("logs/active-responses.log")).context("read the log")?;
        let before = format!(" active-response/bin/{}: ", self.name);
        log.lines()
            .map(|line| match line.split_at_checked(19) {
                Some((_, rest)) if rest.starts_with(&before) => Ok(rest[before.len()..].to_owned()),
                _ => bail!("this is no line of an Active Response: {line}"),
            })
            .collect()
    }
}

impl Started {
    /// The line with the keys; none where it ended without one.
    pub fn keys(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("read the keys")?;
        if line.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&line).with_context(|| format!("no JSON: {line}")).map(Some)
    }

    /// Writes a line.
    pub fn write(&mut self, line: &str) -> Result<()> {
        // One that ended already says why on stderr.
        match writeln!(self.stdin, "{line}") {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("write to the executable"),
        }
    }

    /// Waits for its end, with its standard input still open.
    pub fn end(mut self) -> Result<Ended> {
        let status = self.child.wait().context("wait for the executable")?;
        let took = self.start.elapsed();
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .context("the executable's stderr")?
            .read_to_string(&mut stderr)
            .context("read the executable's stderr")?;
        Ok(Ended { code: status.code(), stderr, took })
    }
}
