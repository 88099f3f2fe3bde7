//! `cargo xtask run`: builds, and becomes the controller.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;

use crate::root::{is_root, sudo};
use crate::{build, process};

/// Builds, then replaces this process by `xdpban run ARGS`, as root.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let binary = build::build()?;
    let mut command = if is_root() {
        Command::new(binary)
    } else {
        let sudo = sudo("the controller", &format!("{} run", binary.display()))?;
        let mut command = Command::new(sudo);
        command.arg("--").arg(binary);
        command
    };
    command.arg("run").args(args);
    let error = command.exec();
    Err(process::not_replaced(&command, error))
}
