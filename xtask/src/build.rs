//! `cargo xtask build`: the release binary, one file with the BPF program inside.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::step::{Took, say, size, step};
use crate::{bpf, process, workspace};

/// Builds the binary and returns its path.
pub(crate) fn build() -> Result<PathBuf> {
    let start = Instant::now();
    bpf::object()?;
    step("controller", || {
        process::run(workspace::cargo().args(["build", "--release", "--package", "xdpban"]))
    })?;
    let binary = workspace::target_dir()?.join("release/xdpban");
    say(format_args!("{}: {}, built in {}", binary.display(), size(&binary)?, Took(start.elapsed())));
    Ok(binary)
}
