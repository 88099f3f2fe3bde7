//! `cargo xtask bench load`: how long it takes to block many targets, to have them on record, to restore them as after a
//! reboot, and to lift them and to let many end at once while others are blocked; beside the least that it could take.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::lab::{FIRST, Lab};
use super::xdpban::{self, Place};
use crate::root::is_root;
use crate::step::{say, step};
use crate::{build, process, workspace};

/// How many end at once.
const ENDING: u32 = 100_000;

/// For how long these are blocked. It has to be longer than it takes to block them.
const TIMEOUT: Duration = Duration::from_secs(8);

/// For how long, before and after they end, and how often a line with a new attacker is written.
const WATCH: Duration = Duration::from_secs(3);
const EACH: Duration = Duration::from_millis(5);

/// The longest to wait for anything.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn load(targets: u32, binary: Option<&Path>) -> Result<()> {
    ensure!(is_root(), "the bench makes network namespaces and loads BPF programs: run it as root");
    let binary = match binary {
        Some(binary) => std::path::absolute(binary).context("find the binary")?,
        None => build::build()?,
    };
    let limits = example()?;
    let lab = Lab::new().context("make the lab")?;
    let place = Place::new(&lab, &binary, 0)?;
    let document = measure(&lab, &place, targets, &limits)?;
    print(&document)?;
    writeln!(std::io::stdout(), "{document:#}").context("write to standard output")
}

/// The example that measures the least that it could take.
fn example() -> Result<PathBuf> {
    step("the limits", || {
        let build = ["build", "--release", "--package", "xdpban", "--example", "limits"];
        process::run(workspace::cargo().args(build))
    })?;
    Ok(workspace::target_dir()?.join("release/examples/limits"))
}

fn measure(lab: &Lab, place: &Place, targets: u32, limits: &Path) -> Result<Value> {
    let empty = timed(|| place.run())?;
    let mut running = empty.1;
    let list = lab.directory().join("list");
    xdpban::write_addresses(&list, targets)?;
    let (block, ()) =
        timed(|| process::output(place.xdpban().args(["block", "--from"]).arg(&list)).map(drop))?;
    // They are written in their order.
    let last = Ipv4Addr::from(u32::from(FIRST) + targets - 1).to_string();
    let (record, ()) = timed(|| until(|| Ok(!incidents(place, &["--address", &last])?.is_empty())))?;
    let (list_json, ()) =
        timed(|| process::run(place.xdpban().args(["--json", "list"]).stdout(std::process::Stdio::null())))?;
    let memory = resident(running.pid())?;
    running.stop()?;
    let (pinned_json, ()) =
        timed(|| process::run(place.xdpban().args(["--json", "list"]).stdout(std::process::Stdio::null())))?;
    process::output(place.xdpban().arg("detach"))?;
    let (restore, again) = timed(|| place.run())?;
    running = again;
    ensure!(blocked(place)? == u64::from(targets), "not all targets were restored");
    let lift = lift(place, targets)?;
    let sweep = sweep(place)?;
    running.stop()?;
    // At the end, so that what it leaves to the disk does not disturb the rest.
    let bare = process::output(
        Command::new(limits).arg(targets.to_string()).arg(lab.pins().join("limits")).arg(lab.directory()),
    )?;
    let bare: Value = serde_json::from_str(&bare).context("read the output of the limits")?;
    Ok(json!({
        "targets": targets,
        "block_s": block,
        "table_alone_s": bare["table"],
        "on_record_s": block + record,
        "rows_alone_s": bare["insert"],
        "restore_s": restore,
        "start_with_nothing_s": empty.0,
        "rows_read_s": bare["read"],
        "list_json_s": list_json,
        "list_json_without_controller_s": pinned_json,
        "controller_bytes": memory,
        "lift": lift,
        "sweep": sweep,
    }))
}

/// Lifts all blocks while lines with new attackers come in.
fn lift(place: &Place, targets: u32) -> Result<Value> {
    let mut lifting = None;
    let begin = Instant::now();
    let took = attack(place, Ipv4Addr::new(21, 0, 0, 0), |_| {
        if lifting.is_none() && begin.elapsed() >= WATCH {
            let mut all = place.xdpban();
            all.args(["unblock", "--all"]);
            lifting = Some(std::thread::spawn(move || timed(|| process::output(&mut all))));
        }
        Ok(lifting.as_ref().is_some_and(JoinHandle::is_finished))
    })?;
    let lifted = lifting.context("nothing was lifted")?.join();
    let (seconds, _output) = lifted.map_err(|_| anyhow!("the thread that lifts panicked"))??;
    Ok(json!({
        "blocks": targets,
        "lifted_within_s": seconds,
        "lines": took.len(),
        "line_to_block_median_ms": took.get(took.len() / 2),
        "line_to_block_longest_ms": took.last(),
    }))
}

/// Lets many blocks end at once while lines with new attackers come in.
fn sweep(place: &Place) -> Result<Value> {
    let before = blocked(place)?;
    let list = place.directory().join("ending");
    xdpban::write_addresses(&list, ENDING)?;
    let timeout = format!("{}s", TIMEOUT.as_secs());
    let start = Instant::now();
    process::output(place.xdpban().args(["block", "--from"]).arg(&list).args(["--for", &timeout]))?;
    ensure!(start.elapsed() < TIMEOUT, "to block {ENDING} took longer than they were to be blocked");
    sleep((TIMEOUT - start.elapsed()).saturating_sub(WATCH));
    let (begin, mut first_gone, mut ended) = (Instant::now(), None, None);
    let took = attack(place, Ipv4Addr::new(20, 0, 0, 0), |number| {
        if ended.is_none() {
            let present = blocked(place)?;
            if present < before + u64::from(ENDING) {
                first_gone.get_or_insert_with(Instant::now);
            }
            if present <= before + u64::from(number) {
                ended = first_gone.map(|first: Instant| first.elapsed());
            }
        }
        Ok(ended.is_some() && begin.elapsed() >= 2 * WATCH)
    })?;
    Ok(json!({
        "blocks": ENDING,
        "ended_within_s": ended.map(|ended| ended.as_secs_f64()),
        "lines": took.len(),
        "line_to_block_median_ms": took.get(took.len() / 2),
        "line_to_block_longest_ms": took.last(),
    }))
}

/// Writes lines with new attackers, from the address `first` on, until `ended`, which is told how many there were. Returns how
/// long each line took until its source was blocked, in milliseconds, the longest last.
fn attack(place: &Place, first: Ipv4Addr, mut ended: impl FnMut(u32) -> Result<bool>) -> Result<Vec<f64>> {
    let mut log = OpenOptions::new().append(true).open(place.log()).context("open the log")?;
    let (begin, mut number) = (Instant::now(), 0u32);
    loop {
        let address = Ipv4Addr::from(u32::from(first) + number);
        number += 1;
        let mut line = String::new();
        writeln!(line, "Feb  1 00:00:00 gw sshd[{number}]: Invalid user a from {address} port 1024")?;
        log.write_all(line.as_bytes()).context("write to the log")?;
        sleep(EACH);
        if number.is_multiple_of(4) && ended(number)? {
            break;
        }
        ensure!(begin.elapsed() < LIMIT, "the blocks do not end");
    }
    let network = format!("{first}/8");
    let mut took: Vec<f64> = Vec::new();
    // What was blocked before takes its time to be on record.
    until(|| {
        let incidents = incidents(place, &["--address", &network, "--limit", "10000"])?;
        took = incidents.iter().filter_map(|one| one["line_to_block_ms"].as_f64()).collect();
        Ok(took.len() + 10 > number as usize)
    })?;
    took.sort_by(f64::total_cmp);
    Ok(took)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let result = work()?;
    Ok((start.elapsed().as_secs_f64(), result))
}

fn until(mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        ensure!(start.elapsed() < LIMIT, "it does not come about");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn incidents(place: &Place, which: &[&str]) -> Result<Vec<Value>> {
    let incidents = process::output(place.xdpban().args(["--json", "incidents"]).args(which))?;
    serde_json::from_str(&incidents).context("read the incidents")
}

/// How many IPv4 addresses are blocked.
fn blocked(place: &Place) -> Result<u64> {
    let status = process::output(place.xdpban().args(["--json", "status"]))?;
    let status: Value = serde_json::from_str(&status).context("read the status")?;
    status["blocked"]["v4"].as_u64().context("the status does not say how many are blocked")
}

/// Memory of a process at most so far, in bytes.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read a process's status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("find its memory")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("read its memory")?;
    Ok(kilobytes * 1024)
}

fn print(document: &Value) -> Result<()> {
    let seconds = |value: &Value| value.as_f64().context("a figure is missing");
    let line = |what: &str, figure: &Value, limit_of: &str, limit: &Value| {
        let (figure, limit) = (seconds(figure)?, seconds(limit)?);
        say(format_args!("{what:<44}{figure:>8.2} s   {limit_of} {limit:.2} s"));
        anyhow::Ok(())
    };
    say(format_args!("{} targets", document["targets"]));
    line(
        "blocked by `xdpban block --from`",
        &document["block_s"],
        "into the table alone",
        &document["table_alone_s"],
    )?;
    line("on record", &document["on_record_s"], "as rows alone", &document["rows_alone_s"])?;
    line(
        "a start that restores them",
        &document["restore_s"],
        "with nothing to restore",
        &document["start_with_nothing_s"],
    )?;
    line(
        "`xdpban list --json`",
        &document["list_json_s"],
        "without a controller",
        &document["list_json_without_controller_s"],
    )?;
    for (what, how, figures, within) in [
        ("blocks that end at once", "gone", &document["sweep"], "ended_within_s"),
        ("blocks that `xdpban unblock --all` lifts", "lifted", &document["lift"], "lifted_within_s"),
    ] {
        say(format_args!(
            "{} {what}: {how} within {:.2} s; from a new line to its block meanwhile {:.1} ms (median), {:.1} ms (longest of {})",
            figures["blocks"],
            seconds(&figures[within])?,
            seconds(&figures["line_to_block_median_ms"])?,
            seconds(&figures["line_to_block_longest_ms"])?,
            figures["lines"],
        ));
    }
    Ok(())
}
