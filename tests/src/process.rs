//! Starts programs inside the lab.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

use crate::namespace::Namespace;

/// `program`, to be started in these namespaces. It is killed when the thread that starts it ends, so that a test that is
/// killed leaves nothing running: start it on the thread that the lab lives on.
pub(crate) fn inside(network: &Namespace, mounts: Option<&Namespace>, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", network.path().display()));
    if let Some(mounts) = mounts {
        command.arg(format!("--mount={}", mounts.path().display()));
    }
    command.args(["--", "setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Runs `command` to its end; unless it succeeds, an error with all that it said.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{}", Transcript { command: &line(command), output: &output });
    }
    Ok(output)
}

/// The program of that name, by its full path.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let administration = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(administration)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .with_context(|| format!("{program} is not installed; `cargo xtask setup` gets it"))
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// What was run and what came of it, for a failed test.
pub(crate) struct Transcript<'a> {
    pub(crate) command: &'a str,
    pub(crate) output: &'a Output,
}

impl std::fmt::Display for Transcript<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let directory = std::env::current_dir().unwrap_or_default();
        writeln!(f, "command: {}", self.command)?;
        writeln!(f, "directory: {}", directory.display())?;
        writeln!(f, "status: {}", self.output.status)?;
        writeln!(f, "--- stdout\n{}", String::from_utf8_lossy(&self.output.stdout))?;
        write!(f, "--- stderr\n{}", String::from_utf8_lossy(&self.output.stderr))
    }
}
