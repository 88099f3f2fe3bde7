//! `cargo xtask test`: unit, property, packet and end-to-end tests, through cargo's own runner.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::root::{is_root, sudo};
use crate::{build, process, programs, workspace};

/// Runs the tests whose names contain `filter`, or all of them.
pub(crate) fn test(filter: Option<&str>) -> Result<()> {
    let sudo = if is_root() { None } else { Some(sudo("testing", "cargo xtask test")?) };
    if let Some(sudo) = &sudo {
        // Asked for here, not after minutes of building.
        process::run(Command::new(sudo).arg("--validate"))
            .context("testing needs root (network namespaces, BPF programs)")?;
    }
    programs::ensure()?;
    let binary = build::build()?;

    let mut cargo = workspace::cargo();
    cargo.args(["test", "--workspace", "--exclude", "xdpban-ebpf", "--no-fail-fast"]);
    // Failed tests tell by their errors what happened; a backtrace of each would bury it.
    cargo.env("XDPBAN_BIN", &binary).env("RUST_LIB_BACKTRACE", "0");
    if let Some(sudo) = &sudo {
        cargo.arg("--config").arg(runner(sudo, &binary)?);
    }
    cargo.args(filter);
    process::run(&mut cargo)
}

/// Has cargo start the tests, and only them, through sudo: what it builds stays the user's own.
fn runner(sudo: &Path, binary: &Path) -> Result<String> {
    let words = [sudo.display().to_string(), "env".to_owned(), format!("XDPBAN_BIN={}", binary.display())];
    // Strings of JSON are strings of TOML.
    let words = serde_json::to_string(&words).context("quote the runner of the tests")?;
    Ok(format!("target.'cfg(all())'.runner={words}"))
}
