//! The workspace: where it stands, and cargo as it was called.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;

/// The root of the source tree.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable when it runs us; the directory of the build serves where we are started by hand.
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The cargo that runs us, in the root of the tree.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// What `cargo metadata` says of the workspace and its dependencies; an error when `Cargo.lock` is not up to date.
pub(crate) fn metadata() -> Result<Value> {
    let text = process::output(cargo().args(["metadata", "--format-version", "1", "--locked"]))
        .context("is Cargo.lock up to date? `cargo metadata` brings it there")?;
    serde_json::from_str(&text).context("read the output of `cargo metadata`")
}

/// The directory that cargo builds into, wherever variables and configuration put it.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let text = process::output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text).context("read the output of `cargo metadata`")?;
    let dir = metadata["target_directory"].as_str().context("`cargo metadata` names no target directory")?;
    Ok(dir.into())
}
