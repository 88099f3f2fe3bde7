//! `cargo xtask setup`: what building and testing need beside Rust, so that later commands need no network.

use anyhow::{Context, Result};

use crate::step::say;
use crate::{linker, process, programs, toolchain, workspace};

/// Gets what is missing and says what was there.
pub(crate) fn setup() -> Result<()> {
    let compiler = toolchain::compiler()?;
    say(format_args!("compiler of the BPF program: {compiler}"));
    let program = linker::program(&compiler)?;
    say(format_args!("linker of the BPF program: {}", program.display()));
    process::run(workspace::cargo().args(["fetch", "--locked", "--quiet"]))
        .context("fetch the dependencies")?;
    say("dependencies: fetched");
    programs::ensure()?;
    say(format_args!("programs of the tests: {}", programs::names()));
    Ok(())
}
