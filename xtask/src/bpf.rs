//! The BPF program: compiled for its own target, with `core` from source, and linked by bpf-linker.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{say, size, step};
use crate::toolchain::{self, Compiler};
use crate::{linker, process, workspace};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object that the controller embeds (its build script expects it at `target/bpf/xdpban.o`).
pub(crate) fn object() -> Result<PathBuf> {
    let compiler = toolchain::compiler()?;
    say(format_args!("compiler of the BPF program: {compiler}"));
    let dir = dir();
    let object = dir.join("xdpban.o");
    let wrapper = linker::wrapper(&compiler, &dir)?;
    step("BPF program", || {
        process::run(cargo(&compiler, &wrapper, "build").args(["--profile", "bpf"]))?;
        copy_if_changed(&dir.join(TARGET).join("bpf/xdpban"), &object)
    })?;
    say(format_args!("{}: {}", object.display(), size(&object)?));
    Ok(object)
}

/// Checks the BPF program with clippy, or with the compiler alone where it came without; a warning is an error.
pub(crate) fn lint() -> Result<()> {
    let compiler = toolchain::compiler()?;
    let wrapper = linker::wrapper(&compiler, &dir())?;
    if compiler.clippy {
        let mut clippy = cargo(&compiler, &wrapper, "clippy");
        return process::run(clippy.args(["--profile", "bpf", "--", "-D", "warnings"]));
    }
    say("its compiler came without clippy: checking for the compiler's own warnings");
    // Not through RUSTFLAGS, which would hold for dependencies, too.
    process::run(cargo(&compiler, &wrapper, "rustc").args(["--profile", "bpf", "--", "-D", "warnings"]))
}

fn dir() -> PathBuf {
    workspace::root().join("target/bpf")
}

/// `cargo COMMAND` for the BPF program.
fn cargo(compiler: &Compiler, linker: &Path, command: &str) -> Command {
    let mut cargo = Command::new(toolchain::cargo_for(compiler));
    toolchain::clean(&mut cargo).current_dir(workspace::root());
    cargo.arg(command).args(["--package", "xdpban-ebpf", "--target", TARGET, "-Z", "build-std=core"]);
    cargo.arg("--target-dir").arg(dir());
    // Building `core` is unstable; this lets a stable compiler do it.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", &compiler.rustc);
    // aya's headers of kernel structures depend on the architecture that the program will run on. Full debug information
    // is needed of every crate, `core` included, for what bpf-linker makes BTF from.
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    cargo
}

/// Leaves the file alone where it is the same, so that the controller is not built again for nothing.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if new.is_empty() {
        bail!("{} is empty", from.display());
    }
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let half = to.with_extension("new");
    fs::write(&half, new).with_context(|| format!("write {}", half.display()))?;
    fs::rename(&half, to).with_context(|| format!("rename {} to {}", half.display(), to.display()))
}
