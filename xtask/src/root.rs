//! Root, and how to come by it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::process;

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// sudo; where there is none, an error that says what needed root.
pub(crate) fn sudo(what: &str, command: &str) -> Result<PathBuf> {
    process::find("sudo")
        .with_context(|| format!("{what} needs root, and there is no sudo here: run `{command}` as root"))
}
