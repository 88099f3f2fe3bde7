//! bpf-linker: built by cargo once, kept in a cache outside the tree that all clones share, and told which LLVM to load.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process;
use crate::step::{say, step};
use crate::toolchain::Compiler;
use crate::workspace;

/// The version that is used.
pub(crate) const VERSION: &str = "0.10.4";

/// The major versions of LLVM that this version has a feature for, `rust-llvm-N`: it loads the compiler's own.
const LLVM: &[u32] = &[20, 21, 22];

/// Whether the linker can work with this major version of LLVM.
pub(crate) fn knows(llvm: u32) -> bool {
    LLVM.contains(&llvm)
}

/// The major versions that it can work with, for a person.
pub(crate) fn known() -> String {
    LLVM.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// The program in the cache, built if it is not there.
pub(crate) fn program(compiler: &Compiler) -> Result<PathBuf> {
    let cache = cache()?;
    let home = cache.join(format!("bpf-linker-{VERSION}-llvm-{}", compiler.llvm));
    let program = home.join("bin/bpf-linker");
    if program.exists() {
        return Ok(program);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let _lock = lock(&cache.join("lock"))?;
    // Whoever held the lock may have built it.
    if !program.exists() {
        step(
            &format!("building bpf-linker {VERSION} into {}, once for all clones", cache.display()),
            || install(compiler, &cache, &home),
        )?;
    }
    Ok(program)
}

/// Builds beside `home` and renames, so that what stands there is always whole.
fn install(compiler: &Compiler, cache: &Path, home: &Path) -> Result<()> {
    let building = cache.join("building");
    if building.exists() {
        // Left by a build that was ended; the lock says that nobody is at it.
        fs::remove_dir_all(&building).with_context(|| format!("remove {}", building.display()))?;
    }
    let mut cargo = workspace::cargo();
    cargo.args(["install", "bpf-linker", "--locked", "--version", &format!("={VERSION}")]);
    cargo.args(["--no-default-features", "--features", &format!("rust-llvm-{}", compiler.llvm), "--root"]);
    cargo.arg(&building).current_dir(cache).env_remove("CARGO_TARGET_DIR");
    process::run(&mut cargo)?;
    fs::rename(&building, home)
        .with_context(|| format!("rename {} to {}", building.display(), home.display()))
}

/// A linker for rustc to call, made in `dir`: the program with the LLVM of `compiler`. It would else load the first
/// `libLLVM*` in LD_LIBRARY_PATH or near PATH, of whatever version (aya-rustc-llvm-proxy's lib.rs).
pub(crate) fn wrapper(compiler: &Compiler, dir: &Path) -> Result<PathBuf> {
    let program = program(compiler)?;
    let libraries = dir.join("llvm");
    fs::create_dir_all(&libraries).with_context(|| format!("create {}", libraries.display()))?;
    let library = libraries.join("libLLVM.so");
    if fs::read_link(&library).ok().as_deref() != Some(&compiler.llvm_library) {
        if library.is_symlink() {
            fs::remove_file(&library).with_context(|| format!("remove {}", library.display()))?;
        }
        symlink(&compiler.llvm_library, &library)
            .with_context(|| format!("link {} to LLVM", library.display()))?;
    }

    let wrapper = dir.join("bpf-linker");
    let script =
        format!("#!/bin/sh\nLD_LIBRARY_PATH={} exec {} \"$@\"\n", quoted(&libraries)?, quoted(&program)?);
    if fs::read_to_string(&wrapper).ok().as_deref() != Some(&script) {
        fs::write(&wrapper, script)
            .and_then(|()| fs::set_permissions(&wrapper, Permissions::from_mode(0o755)))
            .with_context(|| format!("write {}", wrapper.display()))?;
    }
    Ok(wrapper)
}

/// `path` as one word of the shell.
fn quoted(path: &Path) -> Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

/// `$XDPBAN_CACHE`, or the user's cache directory.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("XDPBAN_CACHE") {
        return std::path::absolute(&dir).with_context(|| format!("XDPBAN_CACHE={}", dir.display()));
    }
    let user = set("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
    Ok(user.context("there is no home directory for the cache; set XDPBAN_CACHE")?.join("xdpban"))
}

/// Takes the lock of the cache, until the file is dropped.
fn lock(path: &Path) -> Result<File> {
    let lock = File::create(path).with_context(|| format!("create {}", path.display()))?;
    if lock.try_lock().is_err() {
        say(format_args!("waiting for the build that holds {}", path.display()));
        lock.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn quotes_for_the_shell() {
        let path = Path::new("/tmp/it's \"here\" $(x)");
        let echoed =
            process::output(Command::new("sh").args(["-c", &format!("echo {}", quoted(path).unwrap())]));
        assert_eq!(echoed.unwrap(), path.to_str().unwrap());
    }
}
