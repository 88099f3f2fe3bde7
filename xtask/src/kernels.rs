//! `cargo xtask test --kernels`: the gate's tests on Debian's kernels, and the tests end to end that want a machine of their
//! own. Each kernel is taken from its package, which is fetched and checked by apt and not installed, and booted in qemu without
//! KVM from an initial file system that holds the tests alone.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::step::{say, step};
use crate::{apt, build, process, workspace};

/// Debian's releases that have the kernels.
const RELEASES: [(&str, &str); 3] = [("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie")];

/// The kernel for virtual machines: the smallest package.
const PACKAGE: &str = "linux-image-cloud-amd64";

const MIRROR: &str = "http://deb.debian.org/debian";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the tests use that those kernels have as modules, after what they need themselves.
const MODULES: [&str; 11] =
    ["llc", "stp", "garp", "mrp", "8021q", "bridge", "veth", "tun", "sch_ingress", "cls_bpf", "macvlan"];

/// The tests that other kernels may fail: that the verifier takes the programs, what these make of packets, and how they are
/// attached. Each of the last ones loads them anew, which takes a while in emulation.
const TESTS: [&str; 8] = [
    "gate::tests::fixtures",
    "gate::tests::property",
    "gate::tests::verdicts",
    "gate::tests::verifier",
    "gate::tests::attaching::a_large_mtu_is_met",
    "gate::tests::attaching::in_every_mode",
    "gate::tests::attaching::on_kernels_without_tcx",
    "gate::tests::attaching::the_gate_stays_closed",
];

/// Tells the tests that the machine, and so its clock, is their own.
const CLOCK_IS_OURS: &str = "xdpban.clock=ours";

/// What the tests run.
const PROGRAMS: [&str; 5] = ["busybox", "ip", "tc", "nsenter", "setpriv"];

/// The accounts of a machine, which the lab adds its own to, and its name servers, which the lab puts its own in the place of.
const ACCOUNTS: [(&str, &str); 3] =
    [("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("shadow", "root:*:19000::::::\n"), ("resolv.conf", "")];

/// How many random tables the programs are run with, each with some hundred frames: on the host it is many more.
const TABLES: u32 = 8;

/// Tests that judge how long something takes, which says nothing in emulation.
const TIMED: [&str; 1] = ["ten_thousand_go_in_and_out_in_one_call_each"];

/// What init says at the end.
const RESULT: &str = "xdpban: the tests ended with ";

/// For the tests of one kernel: emulated, and beside other work.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs [`TESTS`], or those whose names contain `filter`, on each of `kernels`, or on all of [`RELEASES`].
pub(crate) fn test(kernels: &[String], filter: Option<&str>) -> Result<()> {
    ensure!(std::env::consts::ARCH == "x86_64", "the kernels are Debian's for amd64, and so are the tests");
    let releases: Vec<_> = RELEASES
        .iter()
        .filter(|(version, _)| kernels.is_empty() || kernels.iter().any(|wanted| wanted == version))
        .collect();
    let known = RELEASES.map(|(version, _)| version).join(", ");
    let unknown = kernels.iter().find(|wanted| !RELEASES.iter().any(|(version, _)| version == wanted));
    ensure!(unknown.is_none(), "there is no kernel {}; there are {known}", unknown.map_or("", |name| name));
    programs()?;
    let tests = Tests::build()?;
    let mut failed = Vec::new();
    for (version, release) in releases {
        let outcome = step(&format!("tests on Linux {version}"), || {
            let kernel = Kernel::get(release).with_context(|| format!("get Linux {version}"))?;
            boot(&kernel, &tests, filter)
        });
        if let Err(error) = outcome {
            say(format_args!("Linux {version}: {error:#}"));
            failed.push(*version);
        }
    }
    ensure!(failed.is_empty(), "tests failed on Linux {}", failed.join(", "));
    Ok(())
}

fn programs() -> Result<()> {
    let needed = [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("cpio", "cpio"),
        ("xz", "xz-utils"),
        ("strip", "binutils"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
    ];
    ensure!(apt::present(), "apt fetches the kernels and checks their signatures, and there is none here");
    ensure!(Path::new(KEYRING).exists(), "{KEYRING} is not here: install debian-archive-keyring");
    let missing = needed.into_iter().filter(|(program, _)| process::find(program).is_none());
    let packages: Vec<_> = missing.map(|(_, package)| package).collect();
    if packages.is_empty() { Ok(()) } else { apt::install(&packages) }
}

/// What runs on those kernels.
struct Tests {
    /// The controller's, which has the gate's in it.
    gate: PathBuf,
    /// The one end to end that sets the clock.
    clock: PathBuf,
    controller: PathBuf,
}

impl Tests {
    fn build() -> Result<Tests> {
        let controller = build::build()?;
        let gate = step("tests of the gate", || test_binary(&["--package", "xdpban", "--lib"]))?;
        let clock =
            step("test of the clock", || test_binary(&["--package", "xdpban-tests", "--test", "clock"]))?;
        Ok(Tests { gate, clock, controller })
    }
}

/// Builds the test binary that these arguments of cargo choose.
fn test_binary(chosen: &[&str]) -> Result<PathBuf> {
    let build = [&["test", "--no-run", "--message-format", "json"], chosen].concat();
    let messages = process::output(workspace::cargo().args(build).stderr(Stdio::inherit()))?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["profile"]["test"] == true;
        message["executable"].as_str().filter(|_| is_test).map(PathBuf::from)
    };
    messages.lines().find_map(executable).context("cargo names no test binary")
}

/// A kernel's package, unpacked.
struct Kernel {
    image: PathBuf,
    modules: PathBuf,
    /// Where initial file systems are put together.
    directory: PathBuf,
}

impl Kernel {
    /// The kernel of a release of Debian, fetched where it is not in the cache.
    fn get(release: &str) -> Result<Kernel> {
        let directory = cache()?.join(release);
        let root = directory.join("root");
        if !root.exists() {
            fetch(release, &directory)?;
        }
        let image = fs::read_dir(root.join("boot")).context("read the package")?;
        let mut image = image.filter_map(|entry| Some(entry.ok()?.path()));
        let image = image
            .find(|path| path.to_string_lossy().contains("/vmlinuz-"))
            .context("no kernel in the package")?;
        let modules = ["usr/lib/modules", "lib/modules"].map(|path| root.join(path));
        let modules = modules.into_iter().find(|path| path.exists()).context("no modules in the package")?;
        Ok(Kernel { image, modules, directory })
    }

    /// The file of a module; none where it is built in or not there.
    fn module(&self, name: &str) -> Result<Option<PathBuf>> {
        let found =
            process::output(Command::new("find").arg(&self.modules).args(["-name", &format!("{name}.ko*")]))?;
        Ok(found.lines().next().map(PathBuf::from))
    }
}

fn cache() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(cache
        .context("neither XDG_CACHE_HOME nor HOME says where to keep the kernels")?
        .join("xdpban/kernels"))
}

/// Fetches the newest kernel package of a release with an apt of its own, which checks it against Debian's signature, and unpacks it.
fn fetch(release: &str, directory: &Path) -> Result<()> {
    let apt = directory.join("apt");
    for path in ["state/lists/partial", "cache/archives/partial", "etc"] {
        fs::create_dir_all(apt.join(path)).context("make a directory for apt")?;
    }
    fs::write(apt.join("state/status"), "").context("write apt's state")?;
    let sources = format!("deb [signed-by={KEYRING}] {MIRROR} {release} main\n");
    fs::write(apt.join("etc/sources.list"), sources).context("write apt's sources")?;
    let with = |program: &str| {
        let mut command = Command::new(program);
        for (key, value) in [("State", "state"), ("State::status", "state/status"), ("Cache", "cache")] {
            command.arg("-o").arg(format!("Dir::{key}={}", apt.join(value).display()));
        }
        command.arg("-o").arg(format!("Dir::Etc::SourceList={}", apt.join("etc/sources.list").display()));
        command.args(["-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Acquire::Languages=none"]);
        // An index of desktop programs, which is as large as that of the packages.
        command.args(["-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        // What cannot be reached is a failure, not a warning.
        command.args(["-o", "APT::Update::Error-Mode=any"]);
        // As root apt would fetch as a user who may not write here.
        command.args(["-o", "APT::Sandbox::User=root"]).env("LC_ALL", "C").current_dir(directory);
        command
    };
    process::output(with("apt-get").arg("update"))?;
    let depends = process::output(with("apt-cache").args(["depends", PACKAGE]))?;
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("{PACKAGE} of {release} depends on no kernel"))?;
    process::output(with("apt-get").args(["download", package]))?;
    let mut files = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let deb = files.find(|path| path.extension().is_some_and(|ending| ending == "deb"));
    let deb = deb.context("apt fetched no package")?;
    // Whole or not at all: another run finds it by its name.
    let half = directory.join("half");
    process::run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&half))?;
    fs::rename(&half, directory.join("root")).context("keep the package")?;
    fs::remove_file(&deb).context("remove the package's file")?;
    fs::remove_dir_all(&apt).context("remove apt's lists")
}

/// Boots the kernel, and fails unless the tests passed.
fn boot(kernel: &Kernel, tests: &Tests, filter: Option<&str>) -> Result<()> {
    let initrd = initrd(kernel, tests, filter)?;
    let console = kernel.directory.join("console");
    let output = fs::File::create(&console).context("create a file")?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&initrd);
    qemu.arg("-append").arg(format!("console=ttyS0 quiet panic=-1 {CLOCK_IS_OURS}"));
    qemu.args(["-nographic", "-no-reboot"]);
    qemu.args(["-machine", "pc,accel=tcg", "-cpu", "max", "-smp", "2", "-m", "1536"]);
    process::run_within(qemu.stdout(output), LIMIT)?;
    let said = String::from_utf8_lossy(&fs::read(&console).context("read the console")?).into_owned();
    if said.lines().any(|line| line.trim() == format!("{RESULT}0")) {
        let ran = |line: &&str| line.starts_with("test result:") && !line.contains(" 0 passed;");
        let summaries: Vec<&str> = said.lines().filter(ran).collect();
        ensure!(!summaries.is_empty(), "no test has such a name: {}", filter.unwrap_or_default());
        for line in said.lines().filter(|line| line.contains("instructions verified")) {
            say(line.trim());
        }
        summaries.iter().for_each(|summary| say(summary.trim()));
        return Ok(());
    }
    bail!("{said}\n(the console, in {})", console.display())
}

/// An initial file system with the tests, what they use, the libraries of all that, the modules, and an init that runs the tests.
fn initrd(kernel: &Kernel, tests: &Tests, filter: Option<&str>) -> Result<PathBuf> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let root = directory.path();
    for path in ["bin", "dev", "etc", "modules", "proc", "root", "run", "sys", "tmp", "var/lib", "var/log"] {
        fs::create_dir_all(root.join(path)).context("make a directory")?;
    }
    for program in PROGRAMS {
        let found = process::find(program).with_context(|| format!("find {program}"))?;
        with_libraries(root, &found, &Path::new("bin").join(program))?;
    }
    for (binary, place) in [(&tests.gate, "gate"), (&tests.clock, "clock"), (&tests.controller, "bin/xdpban")]
    {
        with_libraries(root, binary, Path::new(place))?;
        process::run(Command::new("strip").arg(root.join(place)))?;
    }
    symlink("busybox", root.join("bin/sh")).context("make a link")?;
    for (file, text) in ACCOUNTS {
        fs::write(root.join("etc").join(file), text).with_context(|| format!("write {file}"))?;
    }
    let skip = TIMED.map(|test| format!("--skip {test}")).join(" ");
    let gate = filter.map_or_else(|| TESTS.join(" "), str::to_owned);
    let init = INIT.replace("GATE", &gate).replace("CLOCK", filter.unwrap_or_default());
    let init = init.replace("RESULT", RESULT).replace("SKIP", &skip);
    let mut init = init.replace("TABLES", &TABLES.to_string());
    let mut load = String::new();
    for name in MODULES {
        if let Some(file) = kernel.module(name)? {
            unpack(&file, &root.join("modules").join(name))?;
            load += &format!("insmod /modules/{name}\n");
        }
    }
    init = init.replace("MODULES\n", &load);
    let path = root.join("init");
    fs::write(&path, init).context("write init")?;
    process::run(Command::new("chmod").arg("755").arg(&path))?;
    let initrd = kernel.directory.join("initrd");
    let output = fs::File::create(&initrd).context("create the initial file system")?;
    let archive = "find . -print0 | cpio --null --create --format=newc --quiet";
    process::run(Command::new("sh").args(["-c", archive]).current_dir(root).stdout(output))?;
    Ok(initrd)
}

/// Runs as the first process. The tests are run one by one: there is little to run them on.
const INIT: &str = "#!/bin/sh
export PATH=/bin RUST_BACKTRACE=0 PROPTEST_CASES=TABLES XDPBAN_BIN=/bin/xdpban
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mkdir /dev/pts
busybox mount -t devpts pts /dev/pts
busybox mount -t tmpfs tmp /tmp
busybox mount -t bpf bpf /sys/fs/bpf
alias insmod='busybox insmod'
MODULES
ip link set lo up
/gate GATE SKIP --test-threads 1 --nocapture
gate=$?
/clock CLOCK --ignored --test-threads 1 --nocapture
echo \"RESULT$((gate + $?))\"
busybox poweroff -f
";

/// Puts a program at `place` under `root`, and the libraries that the loader says it needs.
fn with_libraries(root: &Path, program: &Path, place: &Path) -> Result<()> {
    fs::copy(program, root.join(place)).with_context(|| format!("copy {}", program.display()))?;
    // It fails for a static program, which needs none.
    let Ok(libraries) = process::output(Command::new("ldd").arg(program)) else { return Ok(()) };
    let words = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for library in words.map(Path::new) {
        let to = root.join(library.strip_prefix("/").unwrap_or(library));
        let parent = to.parent().context("a library in no directory")?;
        fs::create_dir_all(parent).context("make a directory")?;
        fs::copy(library, &to).with_context(|| format!("copy {}", library.display()))?;
    }
    Ok(())
}

/// Puts a module at `to`, as it is for insmod.
fn unpack(from: &Path, to: &Path) -> Result<()> {
    if from.extension().is_some_and(|ending| ending == "xz") {
        let output = fs::File::create(to).context("create a file")?;
        return process::run(Command::new("xz").args(["--decompress", "--stdout"]).arg(from).stdout(output));
    }
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}
