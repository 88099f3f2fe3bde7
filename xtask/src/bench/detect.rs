//! `cargo xtask bench detect`: lines a second of the whole engine, header to window, beside sshguard's parser and fail2ban's
//! regular expressions, on the same lines, in turns, on one core.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::{Value, json};

use super::log;
use crate::step::{say, step};
use crate::{apt, build, process, workspace};

/// Runs of each program; the median counts.
const RUNS: usize = 5;

/// Lines that fail2ban gets: it would need minutes for all.
const SAMPLE: usize = 50_000;

/// sshguard's parser, in Debian's package.
const PARSER: &str = "/usr/libexec/sshguard/sshg-parser";

/// How many times faster than sshguard's parser the engine has to be.
const TARGET: f64 = 4.0;

/// No response fits, so that every line goes through all rules and windows, and none ends at a block.
const WITHOUT_BLOCKS: &str = "[[response]]\nrules = [5737]\ntimeout = \"1s\"\n";

/// A program and how fast it was.
struct Contender {
    name: &'static str,
    command: Command,
    /// What it reads from standard input.
    input: Option<PathBuf>,
    lines: u64,
    /// Of a core, for each run.
    seconds: Vec<f64>,
}

/// Measures, and prints a table and, on stdout, one JSON document.
pub(crate) fn detect(lines: u64, given: Option<&Path>) -> Result<()> {
    let xdpban = build::build()?;
    let stages = stages_program()?;
    sshguard()?;
    let dir = tempfile::Builder::new().prefix("xdpban-bench-").tempdir().context("make a directory")?;
    let path = given.map_or_else(|| dir.path().join("auth.log"), Path::to_owned);
    if !path.exists() {
        step(&format!("making up a log of {lines} lines"), || log::write(&path, lines))?;
    }
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let sample = sample(&text, &dir.path().join("sample.log"))?;
    drop(text);

    let (defaults, without) = (dir.path().join("defaults.toml"), dir.path().join("without.toml"));
    fs::write(&defaults, "").context("write a configuration")?;
    fs::write(&without, WITHOUT_BLOCKS).context("write a configuration")?;
    let cpu = last_cpu()?;
    let replay = |config: &Path| {
        let mut command = on_one_core(&cpu, &xdpban);
        command.arg("--config").arg(config).args(["--json", "replay"]).arg(&path);
        command
    };
    let contender =
        |name, command, input, lines| Contender { name, command, input, lines, seconds: Vec::new() };
    let parser = on_one_core(&cpu, Path::new(PARSER));
    let mut contenders = vec![
        contender("sshg-parser", parser, Some(path.clone()), lines),
        contender("xdpban, every line counted", replay(&without), None, lines),
        contender("xdpban, blocking as shipped", replay(&defaults), None, lines),
    ];
    if let Some(fail2ban) = process::find("fail2ban-regex") {
        let mut command = on_one_core(&cpu, &fail2ban);
        command.arg(&sample).arg("/etc/fail2ban/filter.d/sshd.conf[mode=aggressive]");
        contenders.push(contender("fail2ban-regex, on a part", command, None, SAMPLE as u64));
    }
    step(&format!("{RUNS} runs of each, in turns, on core {cpu}"), || {
        for _ in 0..RUNS {
            contenders.iter_mut().try_for_each(Contender::run)?;
        }
        Ok(())
    })?;
    let stages = process::output(on_one_core(&cpu, &stages).arg(&path))?;
    let stages = serde_json::from_str(&stages).context("read the output of the stages")?;
    report(&contenders, &stages)
}

/// The example of the engine that times its stages.
fn stages_program() -> Result<PathBuf> {
    step("the engine's stages", || {
        let build = ["build", "--release", "--package", "xdpban-engine", "--example", "stages"];
        process::run(workspace::cargo().args(build))
    })?;
    Ok(workspace::target_dir()?.join("release/examples/stages"))
}

fn sshguard() -> Result<()> {
    if Path::new(PARSER).exists() {
        return Ok(());
    }
    apt::install(&["sshguard"]).context("the comparison needs sshguard's parser")?;
    apt::disable(&["sshguard.service"])?;
    ensure!(Path::new(PARSER).exists(), "the package sshguard has no {PARSER} here");
    Ok(())
}

/// Writes the first lines of `text` to `path`.
fn sample(text: &[u8], path: &Path) -> Result<PathBuf> {
    let lines = text.split_inclusive(|byte| *byte == b'\n').take(SAMPLE);
    fs::write(path, lines.collect::<Vec<_>>().concat())
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path.to_owned())
}

fn on_one_core(cpu: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", cpu]).arg(program);
    command
}

/// The last core that we may run on: the first often serves interrupts.
fn last_cpu() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let last = list.and_then(|list| list.rsplit([',', '-']).next()).context("find a core to run on")?;
    Ok(last.trim().to_owned())
}

/// The time that our children have spent on a core so far, in seconds. Unlike the time on the wall it is not longer when
/// others are at work on the machine.
#[expect(clippy::cast_precision_loss, reason = "microseconds of some seconds")]
fn cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("ask for the time that children took")?;
    let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

impl Contender {
    fn run(&mut self) -> Result<()> {
        let input = match &self.input {
            Some(path) => File::open(path).with_context(|| format!("open {}", path.display()))?.into(),
            None => Stdio::null(),
        };
        let before = cpu_seconds()?;
        process::run(self.command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()))?;
        self.seconds.push(cpu_seconds()? - before);
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn lines_per_s(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).map_or(0.0, |median| self.lines as f64 / median)
    }
}

fn report(contenders: &[Contender], stages: &Value) -> Result<()> {
    let [parser, engine, ..] = contenders else { return Ok(()) };
    let base = parser.lines_per_s();
    say(format_args!("{:<30}{:>14}{:>12}", "", "lines/s", "sshguard = 1"));
    for contender in contenders {
        let speed = contender.lines_per_s();
        say(format_args!("{:<30}{speed:>14.0}{:>12.2}", contender.name, speed / base));
    }
    let nanos = |name: &str| stages[name].as_f64().with_context(|| format!("no stage {name}"));
    let (lines, header, decode) = (nanos("lines")?, nanos("header")?, nanos("decode")?);
    let speed = engine.lines_per_s();
    let whole = 1e9 / speed;
    say(format_args!(
        "of {whole:.0} ns a line: lines {lines:.0}, header {:.0}, decoding {:.0}, rules, windows and reading the file {:.0}",
        header - lines,
        decode - header,
        whole - decode
    ));
    let met = speed >= TARGET * base;
    say(format_args!("target, {TARGET} times sshguard's parser: {}", if met { "met" } else { "NOT met" }));
    let figures = |contender: &Contender| {
        json!({
            "name": contender.name,
            "lines": contender.lines,
            "seconds": contender.seconds,
            "lines_per_s": contender.lines_per_s().round(),
            "ratio": contender.lines_per_s() / base,
        })
    };
    let document = json!({
        "contenders": contenders.iter().map(figures).collect::<Vec<_>>(),
        "stages_ns": { "lines": lines, "header": header - lines, "decode": decode - header, "rest": whole - decode },
        "target_ratio": TARGET,
        "met": met,
    });
    writeln!(std::io::stdout(), "{document:#}").context("write to standard output")
}
