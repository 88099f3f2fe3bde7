//! `kill -9` at random moments during a flood of attacks: what is blocked, what is on record and what was read of the log
//! agree afterwards, whatever the controller was doing when it died.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xdpban_tests::{Controller, Lab, invalid_user_line};

/// Names the number of rounds, each of which ends with a `kill -9`.
const ROUNDS: &str = "XDPBAN_KILL_ROUNDS";

/// As many as take less than a minute.
const DEFAULT_ROUNDS: u32 = 40;

/// The longest that a controller lives in a round, in milliseconds: as long as a start takes, and then as long again.
const LONGEST: u64 = 250;

/// The most lines: no table of blocks is to be full.
const LINES: u32 = 200_000;

/// Lines that are appended at once, and how long after them the next ones are: 500 a second.
const BURST: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// Requests on one connection to the control socket, which the controller closes after a minute.
const REQUESTS: usize = 2000;

/// The source of line `number`. Each has one line, so that each is to have one incident.
fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 64, 0, 1)) + number)
}

/// Attacks until `stop`; returns how many lines it wrote.
fn attack(lab: &Lab, stop: &AtomicBool) -> Result<u32> {
    let mut lines = 0;
    while lines < LINES && !stop.load(Ordering::Relaxed) {
        let mut burst = String::new();
        for number in lines..lines + BURST {
            burst += &invalid_user_line(1000 + number, &source(number).to_string());
            burst.push('\n');
        }
        lab.log().append(burst.as_bytes())?;
        lines += BURST;
        thread::sleep(PAUSE);
    }
    Ok(lines)
}

/// Numbers that look random (xorshift64); a failed test names what they began with.
struct Random(u64);

impl Random {
    fn new() -> Result<Random> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
        Ok(Random(u64::try_from(now.as_nanos() & u128::from(u64::MAX))? | 1))
    }

    /// Below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Starts and kills the controller again and again.
fn rounds(lab: &Lab, count: u32, random: &mut Random) -> Result<()> {
    for round in 0..count {
        // Some die while they start, others while they work, and some just after a change by hand.
        let controller = if round % 3 == 0 { lab.spawn_controller()? } else { up(lab)? };
        thread::sleep(Duration::from_millis(random.below(LONGEST)));
        if round % 3 == 2 && round < count / 2 {
            // Who reads a line again now blocks its source again, which makes a second incident of it. What comes in
            // the second half stays blocked.
            lab.xdpban(&["unblock", "--all"])?.success()?;
            thread::sleep(Duration::from_millis(random.below(30)));
        }
        controller.kill9()?;
    }
    Ok(())
}

/// With blocks that last longer than the test.
fn up(lab: &Lab) -> Result<Controller> {
    lab.start_controller(&lab.config_with_timeout("1d"))
}

/// What `xdpban show` says of each source, asked for on the control socket: a process for each would take too long.
fn show_each(lab: &Lab, sources: u32, mut each: impl FnMut(Ipv4Addr, &Value) -> Result<()>) -> Result<()> {
    let sources: Vec<Ipv4Addr> = (0..sources).map(source).collect();
    for part in sources.chunks(REQUESTS) {
        let stream = UnixStream::connect(lab.socket()).context("connect to the control socket")?;
        let mut answers = BufReader::new(stream.try_clone().context("share the connection")?);
        for address in part {
            write!(&stream, "GET /v1/addresses/{address} HTTP/1.1\r\nHost: xdpban\r\n\r\n")?;
            each(*address, &answer(&mut answers).with_context(|| format!("ask about {address}"))?)?;
        }
    }
    Ok(())
}

/// Reads one answer.
fn answer(stream: &mut impl BufRead) -> Result<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[test]
fn kill_9_at_random_moments_loses_nothing() -> Result<()> {
    let count = match std::env::var(ROUNDS) {
        Ok(count) => count.parse().with_context(|| format!("{ROUNDS}={count}"))?,
        Err(_) => DEFAULT_ROUNDS,
    };
    let mut random = Random::new()?;
    let seed = random.0;
    let lab = Lab::new()?;
    // It must have begun to read before there is a line.
    up(&lab)?.stop()?;
    let stop = AtomicBool::new(false);
    let lines = thread::scope(|scope| {
        let attack = scope.spawn(|| attack(&lab, &stop));
        let done = rounds(&lab, count, &mut random);
        stop.store(true, Ordering::Relaxed);
        let lines = attack.join().map_err(|_| anyhow::anyhow!("the attack panicked"))?;
        done.and(lines)
    })
    .with_context(|| format!("seed {seed}"))?;
    agree(&lab, lines).with_context(|| format!("{lines} lines, {count} rounds, seed {seed}"))
}

/// With a controller that is left alone, each of `lines` lines has led to one incident, and what is in force by the record
/// is what is blocked.
fn agree(lab: &Lab, lines: u32) -> Result<()> {
    let controller = up(lab)?;
    lab.has_read_the_log()?;
    let list = lab.list()?;
    let odd: Vec<_> = list
        .iter()
        .filter(|entry| entry["offences"] != 1 || entry["rule"]["id"] != 5710 || entry["origin"] != "rule")
        .collect();
    ensure!(odd.is_empty(), "blocks whose line was lost, or counted twice: {odd:?}");
    let blocked: BTreeSet<&str> = list.iter().filter_map(|entry| entry["target"].as_str()).collect();

    let mut in_force = 0;
    show_each(lab, lines, |address, show| {
        let is_blocked = blocked.contains(address.to_string().as_str());
        // A block that was in the gate and not yet on record when the controller died is found there by the next one. Where
        // it is lifted before its line is read again, that is an incident of its own, and no line led to it.
        let incidents = show["incidents"].as_array().context("no incidents")?;
        let (found, of_line): (Vec<_>, Vec<_>) =
            incidents.iter().partition(|incident| incident["origin"] == "adopted");
        ensure!(of_line.len() == 1 && of_line[0]["attempts"] == 1, "{address} has one line: {show}");
        ensure!(found.iter().all(|found| found["outcome"] == "lifted"), "{show}");
        let outcome = if is_blocked { "in_force" } else { "lifted" };
        ensure!(of_line[0]["outcome"] == outcome, "on the list: {is_blocked}, but {show}");
        ensure!(show["verdict"] == if is_blocked { "drop" } else { "pass" }, "{show}");
        in_force += usize::from(is_blocked);
        Ok(())
    })?;
    lab.xdpban(&["verify-record"])?.success()?;
    ensure!(in_force == blocked.len(), "{} are blocked, {in_force} of them by a line", blocked.len());

    controller.kill9()?;
    let pinned = lab.targets()?;
    let listed: BTreeSet<&str> = pinned.iter().map(String::as_str).collect();
    ensure!(listed == blocked, "the kernel's tables differ: {:?}", listed.symmetric_difference(&blocked));
    Ok(())
}
