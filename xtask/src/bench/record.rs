//! `cargo xtask bench record`: how long the commands that read the record take, from start to exit, where there are a million
//! incidents on it; and how much memory. Those that ask the controller do so in namespaces of their own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::root::is_root;
use crate::step::{say, step};
use crate::{build, process, workspace};

/// Runs of each command; the median counts.
const RUNS: usize = 21;

/// Runs of those that read all of the record.
const LONG_RUNS: usize = 3;

/// How often to look at the memory of a command.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Args)]
pub(crate) struct Options {
    /// How many incidents to make up
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    incidents: u64,
    /// The directory of the store, filled where it has none, and kept [default: a temporary one]
    #[arg(long, value_name = "DIRECTORY")]
    store: Option<PathBuf>,
}

pub(crate) fn record(options: &Options) -> Result<()> {
    ensure!(is_root(), "the bench makes a network namespace and loads BPF programs: run it as root");
    let binary = build::build()?;
    let fill = fill_program()?;
    let directory = tempfile::Builder::new().prefix("xdpban-bench-").tempdir().context("make a directory")?;
    let store = match &options.store {
        Some(store) => std::path::absolute(store).context("find the store")?,
        None => directory.path().join("state"),
    };
    if !store.join("xdpban.db").exists() {
        step(&format!("making up {} incidents", options.incidents), || {
            process::run(Command::new(&fill).arg(&store).arg(options.incidents.to_string()))
        })?;
    }
    enter_namespaces()?;
    let bench = Bench { config: configure(directory.path(), &store)?, binary };
    say(format_args!("{:<58}{:>10}{:>10}{:>8}", "", "median", "longest", "memory"));
    {
        let _controller = bench.start(directory.path())?;
        bench.questions("")?;
    }
    bench.questions(", without a controller")?;
    for format in ["text", "html", "json", "csv"] {
        bench.measure(
            &format!("report, {format}"),
            &["report", "--from", "31d", "--format", format],
            LONG_RUNS,
        )?;
    }
    bench.measure("verify-record", &["verify-record"], LONG_RUNS)
}

/// The example that fills a store.
fn fill_program() -> Result<PathBuf> {
    step("the program that makes incidents up", || {
        let build = ["build", "--release", "--package", "xdpban", "--example", "fill_record"];
        process::run(workspace::cargo().args(build))
    })?;
    Ok(workspace::target_dir()?.join("release/examples/fill_record"))
}

/// Takes the process into a network of its own, with an interface to guard.
fn enter_namespaces() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("create namespaces")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make the mounts our own")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).context("mount /sys")?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), None::<&str>)
        .context("mount a bpffs")?;
    for words in ["link add guard type veth peer name peer", "link set peer up", "link set guard up"] {
        process::run(Command::new("ip").args(words.split(' ')))?;
    }
    Ok(())
}

fn configure(directory: &Path, store: &Path) -> Result<PathBuf> {
    let (log, rules) = (directory.join("auth.log"), directory.join("rules.d"));
    File::create(&log).context("create a log")?;
    fs::create_dir(&rules).context("make a directory")?;
    let text = format!(
        "interfaces = [\"guard\"]\n\
         [paths]\nstate = {store:?}\nruntime = {directory:?}\npins = \"/sys/fs/bpf/xdpban\"\nrules = {rules:?}\n\
         [[source]]\nkind = \"file\"\npath = {log:?}\n",
    );
    let config = directory.join("config.toml");
    fs::write(&config, text).context("write a configuration")?;
    Ok(config)
}

struct Bench {
    binary: PathBuf,
    config: PathBuf,
}

/// A running controller; ended when dropped.
struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            say(format_args!("the controller could not be ended: {error}"));
        }
    }
}

impl Bench {
    fn xdpban(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(&self.config);
        command
    }

    fn start(&self, directory: &Path) -> Result<Controller> {
        let said = directory.join("output");
        let output = File::create(&said).context("create a file")?;
        let start = Instant::now();
        let child = self.xdpban().arg("run").stdin(Stdio::null()).stderr(output).spawn();
        let mut controller = Controller(child.context("start xdpban")?);
        while process::output(self.xdpban().arg("status")).is_err() {
            let ended = controller.0.try_wait().context("look at the controller")?.is_some();
            if ended || start.elapsed().as_secs() > 60 {
                let said = fs::read_to_string(&said).context("read its output")?;
                bail!("xdpban does not answer; it says:\n{said}");
            }
            sleep(Duration::from_millis(20));
        }
        say(format_args!("the controller answers after {:.1} s", start.elapsed().as_secs_f64()));
        Ok(controller)
    }

    /// What is asked for every day: each filter, rare and common ones together, and a long page.
    fn questions(&self, how: &str) -> Result<()> {
        let latest = process::output(self.xdpban().args(["--json", "incidents"]))?;
        let latest: Value = serde_json::from_str(&latest).context("read the incidents")?;
        let target = latest.pointer("/0/target").and_then(Value::as_str).context("no incident")?;
        let address = target.split('/').next().unwrap_or(target);
        let show = format!("show {address}");
        let questions = [
            "list",
            &*show,
            "incidents",
            "incidents --limit 1000",
            "incidents --limit 10000",
            "incidents --since 20d --until 19d",
            &*format!("incidents --address {address}"),
            "incidents --address 96.0.0.0/10",
            "incidents --address 0.0.0.0/1",
            "incidents --rule 5710",
            "incidents --rule 1",
            "incidents --user root",
            "incidents --user user4711",
            "incidents --outcome expired",
            "incidents --outcome failed",
            "incidents --rule 5710 --outcome failed",
            "incidents --rule 5719 --outcome lifted",
            "incidents --rule 5719 --outcome in_force",
            "incidents --user root --rule 5719 --outcome refused",
            "incidents --user root --rule 5710 --outcome failed --since 29d",
            "incidents --user user4711 --rule 5710 --address 0.0.0.0/0",
            "incidents --address ::/0 --outcome failed",
            "incidents --address ::/0 --rule 5719 --user root --limit 1000",
        ];
        let asked = questions.iter().filter(|question| {
            // These two are the controller's.
            how.is_empty() || question.starts_with("incidents")
        });
        for question in asked {
            let words: Vec<&str> = question.split(' ').collect();
            self.measure(&format!("{}{how}", question.replace("incidents ", "… ")), &words, RUNS)?;
        }
        Ok(())
    }

    fn measure(&self, name: &str, words: &[&str], runs: usize) -> Result<()> {
        let mut times = Vec::with_capacity(runs);
        let mut memory = 0;
        for _ in 0..runs {
            let start = Instant::now();
            let mut command = self.xdpban();
            command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().context("start xdpban")?;
            if runs == LONG_RUNS {
                while child.try_wait().context("look at a command")?.is_none() {
                    memory = memory.max(resident_kb(child.id()));
                    sleep(LOOK);
                }
            }
            let status = child.wait().context("wait for a command")?;
            times.push(start.elapsed());
            ensure!(status.success(), "`xdpban {}` failed: {status}", words.join(" "));
        }
        times.sort_unstable();
        let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let memory = if memory == 0 { String::new() } else { format!("{} MB", memory / 1024) };
        let (median, longest) = (ms(times.get(runs / 2)), ms(times.last()));
        say(format_args!("{name:<58}{median:>7.0} ms{longest:>7.0} ms{memory:>8}"));
        Ok(())
    }
}

/// The most memory that a process has had; 0 where it has ended.
fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
