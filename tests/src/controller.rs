//! xdpban in the lab: the controller as a process, and its command line.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::process::{Transcript, line};

/// Names the binary to test.
const BINARY: &str = "XDPBAN_BIN";

/// Names another build of it, such as the release before.
const OTHER_BINARY: &str = "XDPBAN_OTHER_BIN";

/// How long the controller may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The binary under test: `$XDPBAN_BIN`, else the release build of this tree.
pub(crate) fn binary() -> Result<PathBuf> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("release/xdpban");
    let binary = std::env::var_os(BINARY).map_or_else(built, PathBuf::from);
    ensure!(
        binary.is_file(),
        "{} is not there: `cargo xtask test` builds it, {BINARY} names another",
        binary.display()
    );
    Ok(binary)
}

/// Another build of the binary: `$XDPBAN_OTHER_BIN`, else a copy of the one under test in `dir`.
pub(crate) fn other_binary(dir: &Path) -> Result<PathBuf> {
    if let Some(other) = std::env::var_os(OTHER_BINARY).map(PathBuf::from) {
        ensure!(other.is_file(), "{} is not there: {OTHER_BINARY} names it", other.display());
        return Ok(other);
    }
    let copy = dir.join("other-xdpban");
    fs::copy(binary()?, &copy).with_context(|| format!("copy the binary to {}", copy.display()))?;
    Ok(copy)
}

/// A running controller; killed when dropped.
#[derive(Debug)]
pub struct Controller {
    child: Child,
    output: PathBuf,
}

impl Controller {
    /// Starts `command`, its output appended to `output`, and waits until `answers` says that it is up.
    pub(crate) fn start(
        mut command: Command,
        output: PathBuf,
        mut answers: impl FnMut() -> Result<bool>,
    ) -> Result<Controller> {
        let file = append_to(&output)?;
        let copy = file.try_clone().context("share the controller's output")?;
        command.stdin(Stdio::null()).stdout(copy).stderr(file);
        let child = command.spawn().with_context(|| format!("start `{}`", line(&command)))?;
        let mut controller = Controller { child, output };
        let start = Instant::now();
        while !answers()? {
            if let Some(status) = controller.child.try_wait().context("look at the controller")? {
                bail!("the controller ended: {status}\n{}", controller.output()?);
            }
            if start.elapsed() > START_LIMIT {
                bail!("the controller does not answer after {START_LIMIT:?}\n{}", controller.output()?);
            }
            sleep(Duration::from_millis(10));
        }
        Ok(controller)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it and its predecessors in this lab have written to stdout and stderr.
    pub fn output(&self) -> Result<String> {
        fs::read_to_string(&self.output).with_context(|| format!("read {}", self.output.display()))
    }

    /// Ends it as a crash would: no handler runs.
    pub fn kill9(mut self) -> Result<()> {
        self.child.kill().context("kill the controller")?;
        self.child.wait().context("wait for the controller")?;
        Ok(())
    }

    /// Asks it to end, and waits; returns its status and how long it took. An error after 10 s.
    pub fn stop(mut self) -> Result<(ExitStatus, Duration)> {
        let start = Instant::now();
        self.signal(Signal::SIGTERM)?;
        loop {
            if let Some(status) = self.child.try_wait().context("look at the controller")? {
                return Ok((status, start.elapsed()));
            }
            if start.elapsed() > Duration::from_secs(10) {
                bail!("the controller did not end in 10 s after SIGTERM\n{}", self.output()?);
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to read its configuration again. It does so at its own time.
    pub fn reload(&self) -> Result<()> {
        self.signal(Signal::SIGHUP)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("the controller's pid")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to the controller"))
    }
}

impl Drop for Controller {
    #[allow(clippy::print_stderr, reason = "a destructor has no other way to tell")]
    fn drop(&mut self) {
        // Both do nothing where it has ended and been waited for.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the lab's controller could not be ended: {error}");
        }
    }
}

fn append_to(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

/// What a command of xdpban did; its failed expectations say everything there is to know.
#[derive(Debug)]
pub struct CliOutput {
    command: String,
    output: Output,
    /// The file with the output of the lab's controllers.
    log: PathBuf,
}

impl CliOutput {
    /// Runs `command` with `input` to its end. What the controller said meanwhile stands in the file `log`.
    pub(crate) fn of<S: AsRef<OsStr>>(
        mut command: Command,
        args: &[S],
        input: Stdio,
        log: PathBuf,
    ) -> Result<CliOutput> {
        command.args(args).stdin(input);
        let output = command.output().with_context(|| format!("start `{}`", line(&command)))?;
        Ok(CliOutput { command: line(&command), output, log })
    }

    /// Its exit code; none if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// What it wrote to stdout.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What it wrote to stderr.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// An error unless it ended with `code`.
    pub fn expect_code(&self, code: i32) -> Result<&CliOutput> {
        ensure!(self.code() == Some(code), "expected exit code {code}\n{self}");
        Ok(self)
    }

    /// An error unless it succeeded.
    pub fn success(&self) -> Result<&CliOutput> {
        self.expect_code(0)
    }

    /// An error unless stdout has `text` in it.
    pub fn stdout_has(&self, text: &str) -> Result<&CliOutput> {
        ensure!(self.stdout().contains(text), "expected `{text}` in stdout\n{self}");
        Ok(self)
    }

    /// An error unless stderr has `text` in it.
    pub fn stderr_has(&self, text: &str) -> Result<&CliOutput> {
        ensure!(self.stderr().contains(text), "expected `{text}` in stderr\n{self}");
        Ok(self)
    }

    /// Its stdout as one JSON document; an error unless it succeeded.
    pub fn json(&self) -> Result<Value> {
        self.success()?;
        serde_json::from_slice(&self.output.stdout).with_context(|| format!("expected JSON\n{self}"))
    }
}

impl std::fmt::Display for CliOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Transcript { command: &self.command, output: &self.output }.fmt(f)?;
        write!(f, "\n--- controller\n{}", said(&self.log))
    }
}

/// What the controllers of a lab have said so far.
pub(crate) fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_else(|error| format!("(nothing: {error})"))
}
