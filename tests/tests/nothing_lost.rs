//! `kill -9` at random moments during a flood of attacks, while operators block and unblock: what is blocked, what is on record
//! and what was read of the log agree afterwards, whatever the controller was doing when it died; and what an operator was
//! told was done is done, with who did it and why.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use xdpban_tests::{Controller, Lab, invalid_user_line};

/// Names the number of rounds, each of which ends with a `kill -9`.
const ROUNDS: &str = "XDPBAN_KILL_ROUNDS";

/// As many as take a few seconds.
const DEFAULT_ROUNDS: u32 = 10;

/// The longest that a controller lives in a round, in milliseconds: as long as a start takes, and then as long again.
const LONGEST: u64 = 250;

/// The most lines: no table of blocks is to be full.
const LINES: u32 = 200_000;

/// Lines that are appended at once, and how long after them the next ones are: 500 a second.
const BURST: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// Now and then more come at once than the store writes at once, and than the controller reads at once.
const GREAT_BURST: u32 = 2500;
const BETWEEN_GREAT_BURSTS: u32 = 400;

/// Targets that an operator blocks at once.
const BY_HAND: u32 = 3;

/// Requests on one connection to the control socket, which the controller closes after a minute.
const REQUESTS: usize = 2000;

/// The source of line `number`. Each has one line, so that each is to have one incident.
fn source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 64, 0, 1)) + number)
}

/// A target that an operator blocks.
fn by_hand(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + number)
}

/// Attacks until `stop`; returns how many lines it wrote.
fn attack(lab: &Lab, stop: &AtomicBool) -> Result<u32> {
    let mut lines = 0;
    for count in 1.. {
        let more = if count % BETWEEN_GREAT_BURSTS == 0 { GREAT_BURST } else { BURST };
        if lines + more > LINES || stop.load(Ordering::Relaxed) {
            break;
        }
        let mut burst = String::new();
        for number in lines..lines + more {
            burst += &invalid_user_line(1000 + number, &source(number).to_string());
            burst.push('\n');
        }
        lab.log().append(burst.as_bytes())?;
        lines += more;
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

/// What an operator did.
#[derive(Default)]
struct Operator {
    /// What they blocked, with the reason that they gave and whether they were told that it is in force and on record.
    blocked: BTreeMap<Ipv4Addr, (String, bool)>,
}

impl Operator {
    /// Asks for the next few blocks; a controller that dies meanwhile gives no answer.
    fn block(&mut self, lab: &Lab, round: u32, wait: bool) -> Result<()> {
        let first = u32::try_from(self.blocked.len())?;
        let targets: Vec<Ipv4Addr> = (first..first + BY_HAND).map(by_hand).collect();
        let reason = format!("round {round}");
        let body = json!({ "targets": targets, "timeout_s": 86_400, "reason": reason });
        let mut stream = ask(lab, "POST", "/v1/blocks", &body)?;
        let mut answered = false;
        if wait {
            let done = answer(&mut stream)?;
            ensure!(done["done"] == BY_HAND && done["refused"] == json!([]), "round {round}: {done}");
            // A busy machine may not have had the time to write it.
            answered = done["unrecorded"].is_null();
        }
        self.blocked.extend(targets.into_iter().map(|target| (target, (reason.clone(), answered))));
        Ok(())
    }

    /// Lifts whatever is blocked, and is told that it is. Who reads a line again afterwards blocks its source again, which
    /// makes a second incident of it.
    fn unblock_all(&mut self, lab: &Lab) -> Result<()> {
        let done = answer(&mut ask(lab, "DELETE", "/v1/blocks", &json!({ "all": true }))?)?;
        ensure!(done["refused"] == json!([]), "{done}");
        // They have had their incidents, and are not asked for again.
        self.blocked.values_mut().for_each(|(_, answered)| *answered = false);
        Ok(())
    }
}

/// Starts and kills the controller again and again.
fn rounds(lab: &Lab, count: u32, random: &mut Random) -> Result<Operator> {
    let mut operator = Operator::default();
    for round in 0..count {
        // Some die while they start, others while they work, and some just after an operator was told that a thing is
        // done, or while they do it.
        let controller = if round % 4 == 0 { lab.spawn_controller()? } else { up(lab)? };
        thread::sleep(Duration::from_millis(random.below(LONGEST)));
        match round % 4 {
            1 => operator.block(lab, round, true)?,
            2 => {
                operator.block(lab, round, false)?;
                thread::sleep(Duration::from_micros(random.below(5000)));
            }
            // What comes in the second half stays blocked.
            3 if round < count / 2 => operator.unblock_all(lab)?,
            _ => {}
        }
        controller.kill9()?;
    }
    Ok(operator)
}

/// With blocks that last longer than the test.
fn up(lab: &Lab) -> Result<Controller> {
    lab.start_controller(&lab.config_with_timeout("1d"))
}

/// Asks the controller, on a connection of its own.
fn ask(lab: &Lab, method: &str, path: &str, body: &Value) -> Result<BufReader<UnixStream>> {
    let body = body.to_string();
    let mut stream = UnixStream::connect(lab.socket()).context("connect to the control socket")?;
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: xdpban\r\nContent-Length: {length}\r\n\r\n{body}")?;
    Ok(BufReader::new(stream))
}

/// What `xdpban show` says of each source, asked for on the control socket: a process for each would take too long.
fn show_each(
    lab: &Lab,
    sources: &[Ipv4Addr],
    mut each: impl FnMut(Ipv4Addr, &Value) -> Result<()>,
) -> Result<()> {
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
    let (lines, operator) = thread::scope(|scope| {
        let attack = scope.spawn(|| attack(&lab, &stop));
        let done = rounds(&lab, count, &mut random);
        stop.store(true, Ordering::Relaxed);
        let lines = attack.join().map_err(|_| anyhow!("the attack panicked"))?;
        Ok::<_, anyhow::Error>((lines?, done?))
    })
    .with_context(|| format!("seed {seed}"))?;
    agree(&lab, lines, &operator).with_context(|| format!("{lines} lines, {count} rounds, seed {seed}"))
}

/// With a controller that is left alone, each of `lines` lines has led to one incident, what the operator was told was done
/// has one by them, and what is in force by the record is what is blocked.
fn agree(lab: &Lab, lines: u32, operator: &Operator) -> Result<()> {
    let controller = up(lab)?;
    lab.has_read_the_log()?;
    let list = lab.list()?;
    let blocked: BTreeMap<&str, &Value> =
        list.iter().filter_map(|entry| Some((entry["target"].as_str()?, entry))).collect();

    let mut in_force = 0;
    let sources: Vec<Ipv4Addr> = (0..lines).map(source).collect();
    show_each(lab, &sources, |address, show| {
        let entry = blocked.get(address.to_string().as_str());
        agrees(&address, entry.copied(), show)?;
        // A block that was in the gate and not yet on record when the controller died is found there by the next one. Where
        // it is lifted before its line is read again, that is an incident of its own, and no line led to it.
        let of_line = only(show, |incident| incident["origin"] != "adopted")?;
        ensure!(of_line["attempts"] == 1 && of_line["rule"]["id"] == 5710, "{address} has one line: {show}");
        if let Some(entry) = entry {
            ensure!(of_line["outcome"] == "in_force", "found, and its line not read again: {show}");
            ensure!(entry["offences"] == 1 && entry["rule"]["id"] == 5710, "{entry}");
        }
        in_force += usize::from(entry.is_some());
        Ok(())
    })?;
    ensure!(operator.blocked.values().any(|(_, answered)| *answered), "nothing was ever on record in time");
    let by_hand: Vec<Ipv4Addr> = operator.blocked.keys().copied().collect();
    show_each(lab, &by_hand, |address, show| {
        let entry = blocked.get(address.to_string().as_str());
        agrees(&address, entry.copied(), show)?;
        let (reason, answered) = &operator.blocked[&address];
        if *answered {
            let incident = only(show, |_| true)?;
            let is_theirs = incident["origin"] == "operator" && incident["uid"] == 0;
            ensure!(is_theirs && incident["reason"] == reason.as_str(), "{address}, {reason}: {show}");
            ensure!(entry.is_some(), "{address}, {reason}, is not blocked: {show}");
        }
        in_force += usize::from(entry.is_some());
        Ok(())
    })?;
    ensure!(in_force == blocked.len(), "{} are blocked, {in_force} of them known", blocked.len());
    lab.xdpban(&["verify-record"])?.success()?;

    controller.kill9()?;
    let pinned = lab.targets()?;
    let pinned: BTreeSet<&str> = pinned.iter().map(String::as_str).collect();
    let listed: BTreeSet<&str> = blocked.into_keys().collect();
    ensure!(pinned == listed, "the kernel's tables differ: {:?}", pinned.symmetric_difference(&listed));
    Ok(())
}

/// That one incident of `address` is in force where it is blocked, and none where it is not.
fn agrees(address: &Ipv4Addr, entry: Option<&Value>, show: &Value) -> Result<()> {
    let incidents = show["incidents"].as_array().context("no incidents")?;
    let in_force = incidents.iter().filter(|incident| incident["outcome"] == "in_force").count();
    ensure!(in_force == usize::from(entry.is_some()), "{address}: {entry:?}, but {show}");
    ensure!(show["verdict"] == if entry.is_some() { "drop" } else { "pass" }, "{address}: {show}");
    Ok(())
}

/// The only incident that is `so`.
fn only(show: &Value, so: impl Fn(&Value) -> bool) -> Result<&Value> {
    let incidents = show["incidents"].as_array().context("no incidents")?;
    let mut those = incidents.iter().filter(|incident| so(incident));
    match (those.next(), those.next()) {
        (Some(one), None) => Ok(one),
        _ => bail!("there is not one: {show}"),
    }
}

#[test]
fn a_stop_writes_what_waits_and_says_so() -> Result<()> {
    const PARTS: u32 = 4;
    const PART: u32 = 10_000;
    let lab = Lab::new()?;
    let controller = up(&lab)?;
    for part in 0..PARTS {
        let targets: Vec<Ipv4Addr> = (part * PART..(part + 1) * PART).map(by_hand).collect();
        // Answered before it is on record.
        let body = json!({ "targets": targets, "timeout_s": 86_400, "reason": "a list", "more": true });
        let done = answer(&mut ask(&lab, "POST", "/v1/blocks", &body)?)?;
        ensure!(done["done"] == PART && done["unrecorded"].is_null(), "{done}");
    }
    let (status, _) = controller.stop()?;
    ensure!(status.success(), "{status}");
    let said = std::fs::read_to_string(lab.dir().join("controller.log"))?;
    ensure!(!said.contains("could not be written"), "{said}");
    let verified = lab.xdpban(&["--json", "verify-record"])?.json()?;
    ensure!(verified["intact"] == true && verified["incidents"] == PARTS * PART, "{verified}");
    let _controller = up(&lab)?;
    let last = by_hand(PARTS * PART - 1).to_string();
    ensure!(lab.entry(&last)?.is_some_and(|entry| entry["reason"] == "a list"), "why it was blocked is lost");
    Ok(())
}
