//! A compiler for the BPF program. There is no prebuilt `core` for its target, so the compiler must have the source of its
//! own `core` beside it; and its LLVM must be one that bpf-linker knows.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::step::{say, step};
use crate::{apt, linker, process};

/// Names a compiler to use, whatever else is there.
const OVERRIDE: &str = "XDPBAN_RUSTC";

/// Debian's packages of a compiler and the source of its libraries. The first follow the newest Rust that a release needs
/// for its web browsers.
const DEBIAN_PAIRS: &[[&str; 2]] = &[["rustc-web", "rust-web-src"], ["rustc", "rust-src"]];

/// rustup fetches some 3 MB; where its server cannot be reached, it would go on trying for long.
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// A compiler that can build the BPF program.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// The cargo that came with it, which knows the layout of its libraries; where there is none, another must do.
    pub(crate) cargo: Option<PathBuf>,
    /// Whether clippy came with it.
    pub(crate) clippy: bool,
    /// Its release of Rust.
    pub(crate) release: Release,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
    /// The shared library that it loads its LLVM from.
    pub(crate) llvm_library: PathBuf,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rustc {} with LLVM {}, {}", self.release, self.llvm, self.rustc.display())
    }
}

/// A release of Rust: major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release(u32, u32);

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl FromStr for Release {
    type Err = anyhow::Error;

    /// Reads the first two numbers; what follows them differs between rustc and packages.
    fn from_str(text: &str) -> Result<Release> {
        let mut numbers = text.split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Release(major, minor)),
            _ => bail!("`{text}` is no version of Rust"),
        }
    }
}

/// Finds a compiler, or gets one.
pub(crate) fn compiler() -> Result<Compiler> {
    if let Some(rustc) = std::env::var_os(OVERRIDE) {
        return examine(Path::new(&rustc))
            .with_context(|| format!("{OVERRIDE} names {}", Path::new(&rustc).display()));
    }
    let mut unfit = match search() {
        Ok(compiler) => return Ok(compiler),
        Err(unfit) => unfit,
    };
    say("no compiler here can build the BPF program yet");
    for get in [by_rustup, by_apt] {
        match get().map(|()| search()) {
            Ok(Ok(compiler)) => return Ok(compiler),
            Ok(Err(still)) => unfit = still,
            Err(error) => unfit.push(format!("{error:#}")),
        }
    }
    bail!(
        "the BPF program needs rustc {} or newer, with the source of its `core`, and there is none:\n  {}\n\
         {OVERRIDE}=/path/to/rustc names one that was not found",
        oldest(),
        unfit.join("\n  ")
    )
}

/// The oldest release that the workspace builds with.
fn oldest() -> Release {
    env!("CARGO_PKG_RUST_VERSION").parse().unwrap_or(Release(1, 90))
}

/// The first compiler that will do, or why each will not.
fn search() -> Result<Compiler, Vec<String>> {
    let mut seen = HashSet::new();
    let mut unfit = Vec::new();
    for rustc in candidates() {
        let Ok(real) = rustc.canonicalize() else { continue };
        if !seen.insert(real) {
            continue;
        }
        match examine(&rustc) {
            Ok(compiler) => return Ok(compiler),
            Err(error) => unfit.push(format!("{}: {error:#}", rustc.display())),
        }
    }
    Err(unfit)
}

/// The compiler in use, those of rustup, the system's.
fn candidates() -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    // The `rustc` of the PATH may be rustup's proxy, which must not be taken for the compiler itself.
    if let Ok(sysroot) = process::output(Command::new("rustc").args(["--print", "sysroot"])) {
        candidates.push(Path::new(&sysroot).join("bin/rustc"));
    }
    if let Some(home) = rustup_home()
        && let Ok(toolchains) = fs::read_dir(home.join("toolchains"))
    {
        let mut found: Vec<_> = toolchains.flatten().map(|entry| entry.path().join("bin/rustc")).collect();
        found.sort();
        candidates.extend(found);
    }
    candidates.extend(["/usr/local/bin/rustc", "/usr/bin/rustc"].map(PathBuf::from));
    candidates
}

fn rustup_home() -> Option<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    home.or_else(|| Some(std::env::home_dir()?.join(".rustup")))
}

fn examine(rustc: &Path) -> Result<Compiler> {
    let about = process::output(Command::new(rustc).arg("-vV"))?;
    let field = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let release: Release = field("release:").context("it does not say which release it is")?.parse()?;
    ensure!(release >= oldest(), "it is Rust {release}, and {} is the oldest that will do", oldest());

    let llvm = field("LLVM version:").context("it does not say which LLVM it has")?;
    let llvm: u32 = llvm.split('.').next().unwrap_or(llvm).parse().context("the version of its LLVM")?;
    ensure!(
        linker::knows(llvm),
        "its LLVM is {llvm}, and bpf-linker {} knows {}",
        linker::VERSION,
        linker::known()
    );

    let sysroot: PathBuf = process::output(Command::new(rustc).args(["--print", "sysroot"]))?.into();
    let core = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    ensure!(core.exists(), "it has no source of `core` ({})", core.display());

    let beside = |program: &str| Some(sysroot.join("bin").join(program)).filter(|file| file.exists());
    let rustc = beside("rustc").unwrap_or_else(|| rustc.to_path_buf());
    let llvm_library = llvm_library(&rustc)?;
    let clippy = beside("cargo-clippy").and(beside("clippy-driver")).is_some();
    Ok(Compiler { rustc, cargo: beside("cargo"), clippy, release, llvm, llvm_library })
}

/// The LLVM that `rustc` loads. The dynamic linker says where it finds it (ld.so(8)); the directories hold others, too.
fn llvm_library(rustc: &Path) -> Result<PathBuf> {
    let mut trace = Command::new(rustc);
    trace.env("LD_TRACE_LOADED_OBJECTS", "1").env_remove("LD_LIBRARY_PATH");
    let objects = process::output(&mut trace)?;
    let library = objects
        .lines()
        .filter_map(|line| line.trim().split_once(" => "))
        .find(|(name, _)| name.starts_with("libLLVM"))
        .and_then(|(_, file)| file.rsplit_once(" (").map(|(file, _)| PathBuf::from(file)));
    library.context("it has no LLVM in a shared library, which bpf-linker needs")
}

fn by_rustup() -> Result<()> {
    let rustup = process::find("rustup").context("there is no rustup to fetch the source of `core` with")?;
    let mut add = Command::new(rustup);
    add.args(["component", "add", "rust-src"]).env_remove("RUST_BACKTRACE");
    step("fetching the source of `core` (rustup component add rust-src)", || {
        process::run_within(&mut add, RUSTUP_LIMIT)
    })
}

fn by_apt() -> Result<()> {
    ensure!(apt::present(), "there is no apt to install a compiler with");
    let suitable = || {
        DEBIAN_PAIRS.iter().find(|pair| {
            pair.iter().all(|package| apt::rust_version(package).is_some_and(|release| release >= oldest()))
        })
    };
    let pair = match suitable() {
        None if crate::root::is_root() => {
            step("fetching the package lists", apt::update)?;
            suitable()
        }
        found => found,
    };
    let pair = pair.with_context(|| format!("the distribution has no Rust {} or newer", oldest()))?;
    apt::install(pair).context("the distribution has a compiler that will do")
}

/// `command` freed of what the running cargo and the caller set for another compiler.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    const MISLEADING: &[&str] = &[
        "CARGO",
        "CARGO_BUILD_RUSTC",
        "CARGO_BUILD_RUSTC_WRAPPER",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_TARGET_DIR",
        "LD_LIBRARY_PATH",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
    ];
    for name in MISLEADING {
        command.env_remove(name);
    }
    command
}

/// The cargo to use with `compiler`: its own, else the one that runs us.
pub(crate) fn cargo_for(compiler: &Compiler) -> OsString {
    let own = compiler.cargo.clone().map(PathBuf::into_os_string);
    own.or_else(|| std::env::var_os("CARGO")).unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_of_rustc_and_of_packages() {
        assert_eq!("1.96.0".parse::<Release>().unwrap(), Release(1, 96));
        assert_eq!("1.97.0-nightly".parse::<Release>().unwrap(), Release(1, 97));
        assert_eq!("1.85.0+dfsg3-1~deb12u3".parse::<Release>().unwrap(), Release(1, 85));
        assert!("(none)".parse::<Release>().is_err());
        assert!(Release(1, 100) > Release(1, 99));
    }

    #[test]
    fn says_why_a_compiler_will_not_do() {
        let error = examine(Path::new("/nonexistent/rustc")).unwrap_err();
        assert!(format!("{error:#}").contains("/nonexistent/rustc"), "{error:#}");
    }
}
