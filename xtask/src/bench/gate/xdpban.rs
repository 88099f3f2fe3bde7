//! xdpban as it is: the real binary, run with its own configuration, tables filled by its command line. Each instance guards
//! an interface of its own; the program that it loaded is then attached to the pair in its turn, so that no table is filled twice.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::lab::{self, FIRST, Lab};
use super::sys;
use crate::process;
use crate::step::say;

/// The capacity of the tables, however many are blocked: one that fits all.
const CAPACITY: u32 = 1 << 20;
const PREFIX_CAPACITY: u32 = 1 << 17;

/// What is in an instance's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// So many IPv4 addresses from [`FIRST`] on, and as many IPv6 /64s.
    Blocks(u32),
    /// So many IPv4 prefixes, among them the one that all who attack are in.
    Prefixes(u32),
    /// The same addresses, but throttled.
    Throttled(u32),
}

/// A running controller; ended when dropped.
pub(super) struct Instance {
    child: Child,
    /// The program that it loaded.
    pub(super) program: OwnedFd,
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            say(format_args!("a controller could not be ended: {error}"));
        }
    }
}

/// Starts the instance `number` and fills its tables.
pub(super) fn start(lab: &Lab, binary: &Path, number: usize, content: Content) -> Result<Instance> {
    let directory = lab.directory().join(format!("xdpban{number}"));
    fs::create_dir(&directory).context("make a directory")?;
    let interface = format!("guard{number}");
    lab::ip(&format!("link add {interface} type veth peer name peer{number}"))?;
    lab::ip(&format!("link set {interface} up"))?;
    let config = configure(lab, &directory, &interface, number)?;
    let output = File::create(directory.join("output")).context("create a file")?;
    let copy = output.try_clone().context("share a file")?;
    let mut command = xdpban(binary, &config);
    command.arg("run").stdin(Stdio::null()).stdout(copy).stderr(output);
    let child = command.spawn().context("start xdpban")?;
    // From here on it is ended, whatever fails.
    let mut starting = Starting(Some(child));
    wait(&mut starting, binary, &config, &directory)?;
    fill(binary, &config, &directory, content)?;
    let program = sys::program(lab::program_on(&interface)?).context("open xdpban's program")?;
    let child = starting.0.take().context("the controller is gone")?;
    Ok(Instance { child, program })
}

struct Starting(Option<Child>);

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0
            && let Err(error) = child.kill().and_then(|()| child.wait())
        {
            say(format_args!("a controller could not be ended: {error}"));
        }
    }
}

fn configure(lab: &Lab, directory: &Path, interface: &str, number: usize) -> Result<PathBuf> {
    let log = directory.join("auth.log");
    File::create(&log).context("create a log")?;
    let rules = directory.join("rules.d");
    fs::create_dir(&rules).context("make a directory")?;
    let pins = lab.pins().join(format!("xdpban{number}"));
    let text = format!(
        "interfaces = [\"{interface}\"]\nmode = \"native\"\n\
         [paths]\nstate = {directory:?}\nruntime = {directory:?}\npins = {pins:?}\nrules = {rules:?}\n\
         [[source]]\nkind = \"file\"\npath = {log:?}\n\
         [limits]\nblocks = {CAPACITY}\nprefixes = {PREFIX_CAPACITY}\n",
    );
    let config = directory.join("config.toml");
    fs::write(&config, text).context("write a configuration")?;
    Ok(config)
}

fn xdpban(binary: &Path, config: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("--config").arg(config);
    command
}

fn wait(starting: &mut Starting, binary: &Path, config: &Path, directory: &Path) -> Result<()> {
    let start = Instant::now();
    while process::output(xdpban(binary, config).arg("status")).is_err() {
        let child = starting.0.as_mut().context("the controller is gone")?;
        if child.try_wait().context("look at the controller")?.is_some() || start.elapsed().as_secs() > 20 {
            let said = fs::read_to_string(directory.join("output")).context("read its output")?;
            bail!("xdpban does not answer; it says:\n{said}");
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn fill(binary: &Path, config: &Path, directory: &Path, content: Content) -> Result<()> {
    let mut list = String::new();
    match content {
        Content::Blocks(0) => return Ok(()),
        Content::Blocks(count) | Content::Throttled(count) => addresses(&mut list, count)?,
        Content::Prefixes(count) => prefixes(&mut list, count)?,
    }
    let path = directory.join("targets");
    fs::write(&path, list).context("write a list of targets")?;
    let mut block = xdpban(binary, config);
    block.args(["block", "--from"]).arg(&path);
    if let Content::Throttled(_) = content {
        block.args(["--throttle", "20/s", "--burst", "40"]);
    }
    let start = Instant::now();
    process::output(&mut block)?;
    if let Content::Blocks(count) = content {
        say(format_args!("{} targets blocked in {:.1} s", 2 * count, start.elapsed().as_secs_f64()));
    }
    Ok(())
}

fn addresses(list: &mut String, count: u32) -> Result<()> {
    for number in 0..count {
        writeln!(list, "{}", Ipv4Addr::from(u32::from(FIRST) + number))?;
        writeln!(list, "2001:db8:{:x}:{:x}::/64", number >> 16, number & 0xffff)?;
    }
    Ok(())
}

/// Of lengths from 17 to 31, as imported lists have them, each by itself; and the /12 of those who attack.
fn prefixes(list: &mut String, count: u32) -> Result<()> {
    writeln!(list, "{FIRST}/12")?;
    for number in 1..count {
        // Away from 10.0.0.0/8, 127.0.0.0/8 and the bench's own addresses.
        let length = 17 + number % 15;
        let network = (u32::from(Ipv4Addr::new(20, 0, 0, 0)) + (number << 9)) & (u32::MAX << (32 - length));
        writeln!(list, "{}/{length}", Ipv4Addr::from(network))?;
    }
    list.shrink_to_fit();
    Ok(())
}
