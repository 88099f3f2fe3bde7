//! `cargo xtask lint`: format, Cargo.lock, licences, clippy; a warning is an error.

use anyhow::Result;

use crate::step::step;
use crate::{bpf, licences, process, workspace};

/// Runs every check, the quick ones first.
pub(crate) fn lint() -> Result<()> {
    step("format", || process::run(workspace::cargo().args(["fmt", "--all", "--check"])))?;
    step("Cargo.lock and licences", || licences::check(&workspace::metadata()?))?;
    // The controller's build script wants the object, also to be checked only.
    bpf::object()?;
    step("clippy", || {
        let mut clippy = workspace::cargo();
        clippy.args(["clippy", "--workspace", "--exclude", "xdpban-ebpf", "--all-targets", "--locked"]);
        process::run(clippy.args(["--", "-D", "warnings"]))
    })?;
    step("clippy of the BPF program", bpf::lint)
}
