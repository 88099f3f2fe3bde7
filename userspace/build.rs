//! Hands the compiled BPF program to the controller, which embeds it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// Where `cargo xtask build` puts the object, in the workspace.
const OBJECT: &str = "target/bpf/xdpban.o";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=XDPBAN_BPF_OBJECT");
    let object = object();
    println!("cargo::rerun-if-changed={}", object.display());
    match copy(&object) {
        Ok(copy) => {
            println!("cargo::rustc-env=XDPBAN_BPF_OBJECT_COPY={}", copy.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!(
                "cargo::error=cannot read the BPF program {}: {error}; build it with `cargo xtask build`, \
                 or name it in XDPBAN_BPF_OBJECT",
                object.display()
            );
            ExitCode::FAILURE
        }
    }
}

fn object() -> PathBuf {
    match env::var_os("XDPBAN_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        // The manifest of this package stands one level below the workspace.
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(OBJECT),
    }
}

/// Into the build's own directory, so that a later build of the object does not change what a half-done one embeds.
fn copy(object: &Path) -> Result<PathBuf, std::io::Error> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(std::io::ErrorKind::NotFound)?);
    let copy = out.join("xdpban.o");
    fs::copy(object, &copy)?;
    Ok(copy)
}
