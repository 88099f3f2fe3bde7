//! `cargo xtask demo`: the main job in a lab on this machine, told as a story, in less than a minute.

use std::process::Command;

use anyhow::Result;

use crate::root::{is_root, sudo};
use crate::step::step;
use crate::{build, process, programs, workspace};

/// Builds, then runs the demonstration as root.
pub(crate) fn demo() -> Result<()> {
    let sudo = if is_root() { None } else { Some(sudo("the demonstration", "cargo xtask demo")?) };
    programs::ensure()?;
    let binary = build::build()?;
    step("demonstration", || {
        process::run(workspace::cargo().args([
            "build",
            "--quiet",
            "--package",
            "xdpban-tests",
            "--bin",
            "demo",
        ]))
    })?;
    let demo = workspace::target_dir()?.join("debug/demo");
    let setting = format!("XDPBAN_BIN={}", binary.display());
    let mut command = Command::new(sudo.unwrap_or_else(|| "env".into()));
    if command.get_program() != "env" {
        command.arg("env");
    }
    process::run(command.arg(setting).arg(demo))
}
