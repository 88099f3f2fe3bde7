//! xdpban as it is: the real binary, run with its own configuration, tables filled by its command line. Each instance guards
//! an interface of its own; the program that it loaded is then attached to the pair in its turn, so that no table is filled twice.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
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

/// How long a controller may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);

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

/// Where a controller has its files, and its interface.
pub(super) struct Place {
    binary: PathBuf,
    directory: PathBuf,
    interface: String,
}

/// A running controller; ended when dropped.
pub(super) struct Running(Child);

/// A controller with something in its tables.
pub(super) struct Instance {
    _running: Running,
    /// The program that it loaded.
    pub(super) program: OwnedFd,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            say(format_args!("a controller could not be ended: {error}"));
        }
    }
}

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to end, and waits.
    pub(super) fn stop(mut self) -> Result<()> {
        process::run(Command::new("kill").arg(self.pid().to_string()))?;
        self.0.wait().context("wait for the controller")?;
        Ok(())
    }
}

/// Starts the instance `number` and fills its tables.
pub(super) fn start(lab: &Lab, binary: &Path, number: usize, content: Content) -> Result<Instance> {
    let place = Place::new(lab, binary, number)?;
    let running = place.run()?;
    fill(&place, content)?;
    let program = sys::program(lab::program_on(&place.interface)?).context("open xdpban's program")?;
    Ok(Instance { _running: running, program })
}

impl Place {
    /// Makes the place `number`.
    pub(super) fn new(lab: &Lab, binary: &Path, number: usize) -> Result<Place> {
        let directory = lab.directory().join(format!("xdpban{number}"));
        fs::create_dir(&directory).context("make a directory")?;
        let interface = format!("guard{number}");
        lab::ip(&format!("link add {interface} type veth peer name peer{number}"))?;
        lab::ip(&format!("link set {interface} up"))?;
        let place = Place { binary: binary.to_owned(), directory, interface };
        File::create(place.log()).context("create a log")?;
        let rules = place.directory.join("rules.d");
        fs::create_dir(&rules).context("make a directory")?;
        let pins = lab.pins().join(format!("xdpban{number}"));
        let (interface, directory, log) = (&place.interface, &place.directory, place.log());
        let text = format!(
            "interfaces = [\"{interface}\"]\nmode = \"native\"\n\
             [paths]\nstate = {directory:?}\nruntime = {directory:?}\npins = {pins:?}\nrules = {rules:?}\n\
             [[source]]\nkind = \"file\"\npath = {log:?}\n\
             [limits]\nblocks = {CAPACITY}\nprefixes = {PREFIX_CAPACITY}\n",
        );
        fs::write(place.directory.join("config.toml"), text).context("write a configuration")?;
        Ok(place)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The log that the controller reads.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("auth.log")
    }

    /// xdpban with this place's configuration.
    pub(super) fn xdpban(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.directory.join("config.toml"));
        command
    }

    /// Starts a controller, and waits until it answers.
    pub(super) fn run(&self) -> Result<Running> {
        let path = self.directory.join("output");
        let output = OpenOptions::new().create(true).append(true).open(&path).context("open a file")?;
        let copy = output.try_clone().context("share a file")?;
        let mut command = self.xdpban();
        command.arg("run").stdin(Stdio::null()).stdout(copy).stderr(output);
        // From here on it is ended, whatever fails.
        let mut running = Running(command.spawn().context("start xdpban")?);
        let start = Instant::now();
        while process::output(self.xdpban().arg("status")).is_err() {
            let ended = running.0.try_wait().context("look at the controller")?.is_some();
            if ended || start.elapsed() > START_LIMIT {
                bail!(
                    "xdpban does not answer; it says:\n{}",
                    fs::read_to_string(&path).context("read its output")?
                );
            }
            sleep(Duration::from_millis(20));
        }
        Ok(running)
    }
}

fn fill(place: &Place, content: Content) -> Result<()> {
    let mut list = String::new();
    match content {
        Content::Blocks(0) => return Ok(()),
        Content::Blocks(count) | Content::Throttled(count) => addresses(&mut list, count)?,
        Content::Prefixes(count) => prefixes(&mut list, count)?,
    }
    let path = place.directory.join("targets");
    fs::write(&path, list).context("write a list of targets")?;
    let mut block = place.xdpban();
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

/// Writes a list of so many IPv4 addresses from [`FIRST`] on.
pub(super) fn write_addresses(path: &Path, count: u32) -> Result<()> {
    let mut list = String::new();
    for number in 0..count {
        writeln!(list, "{}", Ipv4Addr::from(u32::from(FIRST) + number))?;
    }
    fs::write(path, list).context("write a list of targets")
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
