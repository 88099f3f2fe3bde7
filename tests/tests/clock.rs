//! A clock that is set back and forth by a day, while the controller runs, after it was killed, and while it is stopped: nothing
//! is lost. It is the clock of the whole machine, so this runs on one of its own, which `cargo xtask test --kernels` boots.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use serde_json::Value;
use xdpban_tests::{Controller, Lab, Side, Stream, sshd_line};

/// On the command line of a kernel that was booted for these tests alone.
const OURS: &str = "xdpban.clock=ours";

const DAY: i64 = 86_400;

/// What an emulated machine may take for anything. A clock that is a day off shows all the same.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far the ends of a block that is told of twice may lie apart: times are told in seconds, and telling takes a while.
const SLACK: Duration = Duration::from_secs(10);

/// What the rule for exceeded attempts is answered with, and what repeated logins as users that do not exist are.
const HOUR: Duration = Duration::from_secs(3600);

/// What the first login as a user that does not exist is answered with.
const SHORT: Duration = Duration::from_secs(4);

/// What an operator allows.
const ALLOWED: &str = "10.99.77.0/24";
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Sets the clock, by days.
fn set_clock(days: i64) -> Result<()> {
    let booted = fs::read_to_string("/proc/cmdline").context("read the kernel's command line")?;
    ensure!(
        booted.split_whitespace().any(|word| word == OURS),
        "the clock of this machine is not ours to set: `cargo xtask test --kernels 6.1` boots one whose clock is"
    );
    let now = clock_gettime(ClockId::CLOCK_REALTIME).context("read the clock")?;
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::new(days * DAY, 0)).context("set the clock")
}

/// A line as rsyslog writes it traditionally, in local time and without a year.
fn traditional(pid: u32, message: &str) -> String {
    let now = Timestamp::now().to_zoned(jiff::tz::TimeZone::system());
    format!("{} guarded sshd[{pid}]: {message}", now.strftime("%b %e %H:%M:%S"))
}

/// How a source attacks.
#[derive(Clone, Copy)]
enum Attack {
    /// Answered with an hour.
    ExceedsAttempts,
    /// Answered with little, and with an hour where it is repeated.
    InvalidUser,
}

impl Attack {
    fn message(self, from: IpAddr) -> String {
        match self {
            Attack::ExceedsAttempts => format!(
                "error: maximum authentication attempts exceeded for root from {from} port 40022 ssh2 [preauth]"
            ),
            Attack::InvalidUser => format!("Invalid user admin from {from} port 40022"),
        }
    }
}

/// A block that is to be in force.
struct Standing {
    /// When it is to end.
    end: Instant,
    offences: u64,
}

/// What is to be found whatever the clock says.
struct Scene {
    lab: Lab,
    attacker: Stream,
    bystander: Stream,
    /// By the target.
    standing: BTreeMap<String, Standing>,
    /// How many incidents each target is to have.
    incidents: BTreeMap<String, usize>,
    pids: std::ops::RangeFrom<u32>,
}

fn attacker(number: u8) -> IpAddr {
    [10, 99, 66, number].into()
}

const A: u8 = 66;
const B: u8 = 67;
const C: u8 = 68;
const D: u8 = 69;
const E: u8 = 70;
const F: u8 = 71;
const BRIEF: u8 = 80;

impl Scene {
    fn open() -> Result<Scene> {
        let lab = Lab::without_sshd()?;
        for number in [B, C, D, E, F, BRIEF] {
            lab.add_address(Side::Attacker, attacker(number))?;
        }
        let interval = Duration::from_millis(20);
        let attacker = lab.stream(Side::Attacker, Side::Attacker.v4(), interval)?;
        let bystander = lab.stream(Side::Bystander, Side::Bystander.v4(), interval)?;
        let (standing, incidents) = (BTreeMap::new(), BTreeMap::new());
        Ok(Scene { lab, attacker, bystander, standing, incidents, pids: 1000.. })
    }

    fn start(&self) -> Result<Controller> {
        let responses = format!(
            "[[response]]\nrules = [5758]\naction = \"block\"\ntimeout = \"{}s\"\n\n\
             [[response]]\nrules = [5710]\naction = \"block\"\ntimeout = \"{}s\"\nrepeat_offenders = [\"{}s\"]\n\n\
             [record]\nkeep = \"1d\"\n",
            HOUR.as_secs(),
            SHORT.as_secs(),
            HOUR.as_secs()
        );
        self.lab.start_controller(&(self.lab.config() + &responses))
    }

    /// Has the log tell of an attack, at the present time, which is returned; another one for each call.
    fn write(&mut self, from: u8, attack: Attack, line: fn(u32, &str) -> String) -> Result<Instant> {
        let now = Instant::now();
        let pid = self.pids.next().context("no more numbers of processes")?;
        let line = line(pid, &attack.message(attacker(from)));
        self.lab.log().append(format!("{line}\n").as_bytes())?;
        Ok(now)
    }

    /// Waits until a block of `from` is in force for the `offences`th time, and takes it down as one that is to end after `timeout`.
    fn is_blocked(&mut self, from: u8, offences: u64, timeout: Duration) -> Result<()> {
        let target = attacker(from).to_string();
        let mut found = Value::Null;
        self.lab.eventually(&format!("{target} is blocked"), PATIENCE, |lab| {
            found = lab.entry(&target)?.unwrap_or_default();
            Ok(!found.is_null())
        })?;
        let created = time(&found["created_at"])?;
        ensure!(apart(created, Timestamp::now()) < PATIENCE, "it is now {}: {found}", Timestamp::now());
        ensure!(apart(time(&found["expires_at"])?, created + timeout) < SLACK, "{found}");
        let left = Duration::from_secs(found["expires_in_s"].as_u64().context("no end")?);
        self.standing.insert(target.clone(), Standing { end: Instant::now() + left, offences });
        *self.incidents.entry(target).or_default() += 1;
        Ok(())
    }

    /// As [`Scene::write`], and waits as [`Scene::is_blocked`] does.
    fn attack(&mut self, from: u8, attack: Attack, offences: u64, timeout: Duration) -> Result<Instant> {
        let written = self.write(from, attack, sshd_line)?;
        self.is_blocked(from, offences, timeout)?;
        Ok(written)
    }

    /// Waits until `from`, which was blocked for a short time at `since` or a moment later, is blocked no longer. That comes
    /// neither early nor never.
    fn ends(&mut self, from: u8, since: Instant) -> Result<()> {
        let target = attacker(from).to_string();
        self.standing.remove(&target).context("it is not blocked")?;
        self.lab.eventually("it ends", PATIENCE, |lab| Ok(lab.entry(&target)?.is_none()))?;
        ensure!(since.elapsed() >= SHORT, "it ended after {:?}", since.elapsed());
        self.lab.eventually("its end is on record", PATIENCE, |lab| {
            let incidents = incidents(lab, &["--address", &target])?;
            let [incident] = &incidents[..] else { bail!("{incidents:#?}") };
            let begun = time(&incident["first_seen"])?;
            Ok(incident["outcome"] == "expired"
                && apart(time(&incident["outcome_at"])?, begun + SHORT) < SLACK)
        })?;
        self.lab.eventually("it is let through", PATIENCE, |lab| {
            Ok(lab.flood(Side::Attacker, attacker(from), 20)? > 0)
        })
    }

    /// Everything is as it should be.
    fn is_whole(&self) -> Result<()> {
        self.gate_is_closed().context("the gate")?;
        self.blocks_are_as_made().context("what is blocked")?;
        self.is_on_record().context("the record")
    }

    /// Of those that are blocked nobody gets through, and the bystander does.
    fn gate_is_closed(&self) -> Result<()> {
        let before = (self.attacker.sent(), self.bystander.received());
        self.lab.eventually("both send, and the bystander is heard", PATIENCE, |_| {
            Ok(self.attacker.sent() > before.0 + 20 && self.bystander.received() > before.1 + 20)
        })?;
        for target in self.standing.keys() {
            let from: IpAddr = target.parse().context("a target")?;
            let arrived = self.lab.flood(Side::Attacker, from, 20)?;
            ensure!(arrived == 0, "{arrived} datagrams of {target} got through");
        }
        Ok(())
    }

    fn blocks_are_as_made(&self) -> Result<()> {
        let list = self.lab.list()?;
        ensure!(list.len() == self.standing.len(), "{list:#?}");
        let show = self.lab.show(&attacker(A).to_string())?;
        ensure!(show["verdict"] == "drop" && show["evidence"][0].is_string(), "{show:#}");
        for entry in list.iter().chain([&show["entry"]]) {
            let target = entry["target"].as_str().context("no target")?;
            let standing = self.standing.get(target).with_context(|| format!("{entry:#}"))?;
            let left = standing.end.saturating_duration_since(Instant::now());
            ensure!(entry["offences"] == standing.offences, "{entry:#}");
            let told = Duration::from_secs(entry["expires_in_s"].as_u64().context("no end")?);
            ensure!(told.abs_diff(left) < SLACK, "{left:?} should be left: {entry:#}");
            let end = time(&entry["expires_at"])?;
            ensure!(
                apart(end, Timestamp::now() + left) < SLACK,
                "it is now {}, and {left:?} should be left: {entry:#}",
                Timestamp::now()
            );
        }
        Ok(())
    }

    /// Each attack has one incident, those and no others are in force that are blocked, and the log is whole.
    fn is_on_record(&self) -> Result<()> {
        let mut known = Vec::new();
        self.lab.eventually("what is blocked is what is on record", PATIENCE, |lab| {
            known = incidents(lab, &[])?;
            let in_force = known.iter().filter(|incident| incident["outcome"] == "in_force");
            let mut in_force: Vec<&str> =
                in_force.filter_map(|incident| incident["target"].as_str()).collect();
            in_force.sort_unstable();
            Ok(in_force.iter().eq(self.standing.keys()))
        })?;
        let mut found = BTreeMap::<String, usize>::new();
        for incident in &known {
            let target = incident["target"].as_str().context("no target")?;
            *found.entry(target.to_owned()).or_default() += 1;
            ensure!(incident["attempts"] == 1 && incident["rule"]["id"].is_u64(), "{incident:#}");
            if incident["outcome"] == "expired" {
                ensure!(time(&incident["outcome_at"])? >= time(&incident["first_seen"])?, "{incident:#}");
            }
        }
        ensure!(found == self.incidents, "{known:#?}");
        let verified = self.lab.xdpban(&["--json", "verify-record"])?.json()?;
        ensure!(verified["intact"] == true && verified["pruned_through"] == 0, "{verified:#}");
        ensure!(verified["incidents"] == known.len(), "{verified:#}");
        self.is_reported(&known)
    }

    /// A report leaves no incident unmentioned, also those that bear times ahead of the clock.
    fn is_reported(&self, known: &[Value]) -> Result<()> {
        let now = Timestamp::now();
        let report = self.lab.xdpban(&["report", "--from", "7d", "--format", "json"])?.json()?;
        let mut ahead = 0;
        for incident in known {
            ahead += u64::from(time(&incident["first_seen"])? > now);
        }
        let told = report["totals"]["incidents"].as_u64().context("no total")?;
        ensure!(told + ahead == known.len() as u64, "{ahead} of {} are ahead: {report:#}", known.len());
        let finding = report["record"]["finding"].as_str().context("no finding")?;
        ensure!(report["record"]["verified"] == true, "{finding}");
        let mentions = finding.contains("ahead of the clock");
        ensure!(mentions == (ahead > 0), "{ahead} are ahead, and the report says: {finding}");
        Ok(())
    }

    /// How long [`ALLOWED`] is allowed for yet; none: it is not.
    fn allowed_for(&self) -> Result<Option<Duration>> {
        let all = self.lab.xdpban(&["--json", "allow", "list"])?.json()?;
        let mut all = all.as_array().context("no list")?.iter();
        let Some(allowed) = all.find(|allowed| allowed["network"] == ALLOWED) else { return Ok(None) };
        let check = self.lab.xdpban(&["--json", "allow", "check", "10.99.77.7"])?.json()?;
        ensure!(check["protected"] == true, "{check}");
        let left = Duration::from_secs(allowed["expires_in_s"].as_u64().context("no end")?);
        let end = time(&allowed["expires_at"])?;
        ensure!(apart(end, Timestamp::now() + left) < SLACK, "it is now {}: {allowed}", Timestamp::now());
        Ok(Some(left))
    }
}

fn incidents(lab: &Lab, args: &[&str]) -> Result<Vec<Value>> {
    match lab.xdpban(&[&["--json", "incidents"], args].concat())?.json()? {
        Value::Array(incidents) => Ok(incidents),
        other => bail!("no array: {other}"),
    }
}

fn time(value: &Value) -> Result<Timestamp> {
    value.as_str().context("no time")?.parse().with_context(|| format!("{value}"))
}

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.duration_since(other).unsigned_abs()
}

#[test]
#[ignore = "it sets the machine's clock: `cargo xtask test --kernels 6.1` runs it on a machine of its own"]
fn a_clock_set_back_and_forth_by_a_day_loses_nothing() -> Result<()> {
    // Refused before anything is set up.
    set_clock(0)?;
    let mut scene = Scene::open()?;
    let controller = scene.start()?;
    scene.attack(A, Attack::ExceedsAttempts, 1, HOUR)?;
    let before = scene.attacker.received();
    scene.lab.xdpban(&["allow", "add", ALLOWED, "--for", "7d"])?.success()?;
    let brief = scene.attack(BRIEF, Attack::InvalidUser, 1, SHORT)?;

    set_clock(-1)?;
    scene.ends(BRIEF, brief).context("set back by a day: a short block")?;
    scene.write(B, Attack::ExceedsAttempts, traditional)?;
    scene.is_blocked(B, 1, HOUR)?;
    scene.is_whole().context("set back by a day")?;
    let left = scene.allowed_for()?;
    ensure!(left > Some(WEEK - PATIENCE * 5) && left <= Some(WEEK), "{left:?}");

    set_clock(2)?;
    scene.attack(C, Attack::ExceedsAttempts, 1, HOUR)?;
    scene.attack(BRIEF, Attack::InvalidUser, 2, HOUR).context("it was blocked before")?;
    scene.is_whole().context("set forth by two days")?;
    let left = scene.allowed_for()?;
    ensure!(left > Some(WEEK - PATIENCE * 5) && left <= Some(WEEK), "{left:?}");

    controller.kill9()?;
    scene.write(D, Attack::ExceedsAttempts, sshd_line)?;
    let controller = scene.start()?;
    scene.is_blocked(D, 1, HOUR)?;
    scene.is_whole().context("killed and started with the clock a day ahead")?;

    controller.stop()?;
    scene.write(E, Attack::ExceedsAttempts, sshd_line)?;
    set_clock(-2)?;
    scene.write(F, Attack::ExceedsAttempts, traditional)?;
    let controller = scene.start()?;
    scene.is_blocked(E, 1, HOUR)?;
    scene.is_blocked(F, 1, HOUR)?;
    scene.is_whole().context("set back by two days while it was stopped")?;
    let left = scene.allowed_for()?;
    ensure!(left > Some(WEEK - PATIENCE * 10) && left <= Some(WEEK), "{left:?}");

    controller.kill9()?;
    set_clock(2)?;
    let controller = scene.start()?;
    let started = Instant::now();
    scene.is_whole().context("set forth by two days after it was killed")?;
    ensure!(scene.allowed_for()?.is_some(), "what was allowed for a week is no longer after a day");
    // Offences are counted on, though the block was made two days ago by this clock: what got past it is the next.
    sleep((started + Duration::from_secs(4)).saturating_duration_since(Instant::now()));
    let end = scene.write(B, Attack::ExceedsAttempts, sshd_line)? + HOUR;
    let again = attacker(B).to_string();
    scene.lab.eventually("it was blocked before", PATIENCE, |lab| {
        Ok(lab.entry(&again)?.is_some_and(|entry| entry["offences"] == 2))
    })?;
    scene.standing.insert(again, Standing { end, offences: 2 });
    // The record is looked through for what is too old ten seconds after each start.
    sleep((started + Duration::from_secs(12)).saturating_duration_since(Instant::now()));
    scene.is_whole().context("set forth by two days, a while after")?;

    set_clock(-1)?;
    scene.is_whole().context("set right")?;
    controller.stop()?;
    let controller = scene.start()?;
    scene.is_whole().context("set right, and started anew")?;
    let left = scene.allowed_for()?;
    ensure!(left > Some(WEEK - PATIENCE * 15) && left <= Some(WEEK), "{left:?}");
    controller.stop()?;
    let (sent, received) = scene.attacker.stop()?;
    ensure!(received == before, "{} of {sent} datagrams of the attacker got through", received - before);
    Ok(())
}
