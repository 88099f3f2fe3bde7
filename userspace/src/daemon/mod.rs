//! The controller: one loop that owns every piece of state, and one closed set of inputs.
//!
//! Sources, the control socket and the store run beside it and talk through bounded queues. When the loop is busy,
//! sources and peers wait; the store never makes the loop wait (see [`crate::store`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};
use xdpban_engine::record::Record;
use xdpban_engine::target::Target;
use xdpban_engine::time::{Mono, Now, Wall};
use xdpban_engine::{Engine, HostAddresses, Login};

use crate::clock;
use crate::config::{Command, Config, Faults, SourceConfig};
use crate::control::Call;
use crate::error::chain;
use crate::gate::Gate;
use crate::host;
use crate::host::HostError;
use crate::human;
use crate::run::{Outcome, Runner};
use crate::source::{self, Alert, Batch, Records, Report};

use crate::store::{Act, Head, Health, Write, Writer};
use crate::stream::{Said, Stream};
use allow::Allowlist;
use carry_out::Cause;
use compare::Comparison;
use interfaces::Interfaces;
use sources::Sources;
use trial::Trial;
use unblock_all::UnblockAll;

mod active_response;
mod allow;
mod answer;
mod carry_out;
mod commands;
mod compare;
mod interfaces;
mod notify;
mod record_anew;
mod sources;
mod start;
mod trial;
mod unblock_all;

pub use start::DaemonError;

/// Reports of sources that may wait for the loop: with batches of 256 KiB, at most 4 MiB.
const REPORTS: usize = 16;

/// Requests that may wait for the loop.
const CALLS: usize = 64;

/// Messages of the store that may wait for the loop.
const HEALTH: usize = 16;

/// Messages of streams that may wait for the loop.
const SAID: usize = 16;

/// How often rates are sampled and logins that ended without a word are noticed.
const TICK: Duration = Duration::from_secs(10);

/// By how much the timestamp of a line that was written just now may be off. Relays between hosts take their time.
const MAX_SKEW: Duration = Duration::from_secs(600);

/// Every how many ticks the counts of blocks in force go to the store, so that a reboot does not lose them.
const TICKS_BETWEEN_COUNTS: u32 = 6;

/// For how long what waits is written when the controller stops: a part of TimeoutStopSec in packaging/xdpban.service.
const WRITE_AT_STOP: Duration = Duration::from_secs(80);

/// More writes than the store writes in a second: who waits for the record is told so, and so is whoever stops the controller.
const MANY_WRITES: usize = 20_000;

/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// What is said of a dry run.
const NOT_ENFORCED: &str =
    "dry run: nothing is enforced; what would be dropped is counted, and passes (`enforce`, `run --dry-run`)";
/// How many ticks make a day, after which the record's head is logged.
const TICKS_A_DAY: u32 = 8640;

/// What can happen to the controller.
enum Input {
    /// A source has records, or something to say.
    Report(Report),
    /// A peer asks something.
    Request(Call),
    /// A block, an allowed network or the trial is due.
    Deadline,
    /// The store has trouble, or is well again.
    Store(Health),
    /// A stream has something to say.
    Stream(Said),
    /// Addresses, routes or interfaces of the host changed.
    Host,
    /// The host does not tell of changes any longer.
    HostLost(HostError),
    /// A command ended, or was not run.
    CommandEnded(Box<Outcome>),
    /// Some time has passed.
    Tick,
    /// The next part of all that is blocked can be lifted.
    Unblock,
    /// The next part of what is blocked can be compared. The record's come by themselves; none at their end.
    Compare(Option<Vec<compare::Recorded>>),
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Shutdown,
}

/// Runs the controller until it is told to end.
///
/// # Errors
/// [`DaemonError`], when it cannot start.
pub fn run(config: Config, file: Option<&Path>, options: Options) -> Result<(), DaemonError> {
    let pins = config.paths.pins.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Io { what: "start the event loop", source })?;
    runtime.block_on(async {
        let mut daemon = start::daemon(config, file, options)?;
        daemon.begin().await;
        daemon.serve().await;
        let trial_failed = daemon.trial_failed;
        daemon.stop().await;
        if trial_failed {
            crate::gate::detach(&pins)?;
        }
        Ok(())
    })
}

/// How to run, this time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether to log what becomes of packets.
    pub trace_packets: bool,
    /// Whether nothing is enforced, whatever the configuration says.
    pub dry_run: bool,
    /// For how long to wait for an operator to confirm, before everything is taken off again; none: for good.
    pub trial: Option<Duration>,
}

/// The controller's state.
struct Daemon {
    config: Config,
    /// What `--config` named; read again on SIGHUP.
    config_file: Option<PathBuf>,
    engine: Engine,
    gate: Gate,
    allowlist: Allowlist,
    /// Whether the command line asked for a dry run.
    dry_run: bool,
    trial: Option<Trial>,
    /// Nobody confirmed the trial.
    trial_failed: bool,
    interfaces: Interfaces,
    sources: Sources,
    store: Writer,
    streams: Vec<Stream>,
    /// What streams say of themselves goes here, and comes out at the other end.
    said: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
    /// Streams that cannot be written, and why.
    stream_troubles: BTreeMap<String, String>,
    /// The packets of each block that are on record, as far as they were counted since the start.
    counted: HashMap<Target, u64>,
    /// What the present input led to, for the store: kept or lost as a whole.
    writes: Vec<Write>,
    /// A store that could not be used and was replaced.
    set_aside: Option<String>,
    store_trouble: Option<String>,
    reload_trouble: Option<String>,
    host_trouble: Option<String>,
    /// Requests to lift all blocks that are being done, the first one first.
    unblocking: VecDeque<UnblockAll>,
    /// Under way where the tables are being compared.
    comparison: Option<Comparison>,
    /// How many entries of the kernel's tables someone else had changed.
    tampered: usize,
    /// The tables of which it was said that they are full.
    said_full: BTreeSet<&'static str>,
    /// None once it failed, which does not heal.
    host: Option<host::Watcher>,
    addresses: HostAddresses,
    reports: mpsc::Receiver<Report>,
    calls: mpsc::Receiver<Call>,
    health: mpsc::Receiver<Health>,
    runner: Runner,
    outcomes: mpsc::Receiver<Outcome>,
    control: JoinHandle<()>,
    packet_log: Option<JoinHandle<()>>,
    /// Answers that wait for the store.
    answers: JoinSet<()>,
    signals: Signals,
    tick: Interval,
    ticks: u32,
    started: Mono,
    rate: Rate,
}

/// What was read of a batch.
#[derive(Default)]
struct Read {
    lines: u64,
    attacks: u64,
    /// Lines that are no alert, in a log of alerts.
    unreadable: u64,
    /// By how much timestamps of lines that were written just now are off, at most.
    skew: Duration,
}

/// The signals that the controller listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Drops per second, from the last two samples.
#[derive(Default)]
struct Rate {
    at: Mono,
    dropped: u64,
    per_second: f64,
}

impl Rate {
    fn sample(&mut self, now: Mono, dropped: u64) {
        let elapsed = now.since(self.at).as_secs_f64();
        if elapsed >= 1.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let drops = dropped.saturating_sub(self.dropped) as f64;
            *self = Rate { at: now, dropped, per_second: drops / elapsed };
        }
    }
}

impl Daemon {
    /// Takes inputs until one of them is to end.
    async fn serve(&mut self) {
        // What is done in parts lets others have their turn in between.
        let mut part_done = false;
        loop {
            if part_done {
                tokio::task::yield_now().await;
            }
            let input = self.next(part_done).await;
            part_done = matches!(input, Input::Deadline | Input::Unblock | Input::Compare(_));
            match input {
                Input::Report(Report::Batch(batch)) => self.batch(&batch),
                Input::Report(Report::Trouble { source, message }) => self.sources.trouble(source, message),
                Input::Report(Report::Well { source }) => self.sources.well(source),
                Input::Request(call) => self.answer(call),
                Input::Deadline => {
                    if self.trial_is_over() {
                        return self.end_trial();
                    }
                    self.engine.handle_timeout(clock::now());
                    self.carry_out(Cause::Other);
                    self.expire_allowed();
                }
                Input::Store(Health::Failing { message }) => {
                    log::error!("{message}; it is tried again every second, and blocking goes on meanwhile");
                    self.store_trouble = Some(message);
                }
                Input::Store(Health::BegunAnew { why }) => self.record_anew(why).await,
                Input::Store(Health::Recovered) => {
                    log::info!("the store can be written again");
                    self.store_trouble = None;
                }
                Input::Stream(said) => self.stream_said(said),
                Input::Host => self.host_changed(),
                Input::HostLost(error) => {
                    self.host_unknown(&error);
                    self.host = None;
                }
                Input::CommandEnded(outcome) => {
                    self.command_ended(*outcome);
                    self.carry_out(Cause::Other);
                }
                Input::Tick => self.tick(),
                Input::Unblock => self.unblock_part(),
                Input::Compare(recorded) => self.compare(recorded),
                Input::Reload => self.reload().await,
                Input::Shutdown => return,
            }
            self.store.record(self.writes.drain(..));
        }
    }

    /// Whether packets are dropped, and not only counted.
    fn enforcing(&self) -> bool {
        self.config.enforce && !self.dry_run
    }

    fn announce_enforcement(&self) {
        if self.enforcing() {
            log::info!("enforcing: what is blocked is dropped");
        } else {
            log::warn!("{NOT_ENFORCED}");
        }
    }

    /// Has what an operator did, or what happened to the controller, put on record.
    fn act(&mut self, uid: Option<u32>, act: Act) {
        self.writes.push(Write::Act { at: clock::now().wall, uid, act });
    }

    /// The next input. Where `part_done`, whatever else there is comes before the next part of what is due.
    async fn next(&mut self, part_done: bool) -> Input {
        let trial = self.trial.map(Trial::until);
        let deadlines = [self.engine.poll_timeout(), self.allowlist.next_due(), trial];
        let deadline = deadlines.into_iter().flatten().min();
        let unblocking = !self.unblocking.is_empty();
        tokio::select! {
            biased;
            _ = self.signals.terminate.recv() => Input::Shutdown,
            _ = self.signals.interrupt.recv() => Input::Shutdown,
            _ = self.signals.hangup.recv() => Input::Reload,
            () = until(deadline), if !part_done => Input::Deadline,
            () = ready(()), if unblocking && !part_done => Input::Unblock,
            Some(call) = self.calls.recv() => Input::Request(call),
            Some(health) = self.health.recv() => Input::Store(health),
            Some(said) = self.said.1.recv() => Input::Stream(said),
            changed = changed(&mut self.host) => changed.map_or_else(Input::HostLost, |()| Input::Host),
            Some(outcome) = self.outcomes.recv() => Input::CommandEnded(Box::new(outcome)),
            _ = self.tick.tick() => Input::Tick,
            Some(report) = self.reports.recv() => Input::Report(report),
            () = until(deadline), if part_done => Input::Deadline,
            () = ready(()), if unblocking && part_done => Input::Unblock,
            recorded = Comparison::next(&mut self.comparison) => Input::Compare(recorded),
        }
    }

    /// Hands the records of a batch to the engine, one by one, and carries out at once what each leads to.
    fn batch(&mut self, batch: &Batch) {
        let Some(config) = self.sources.config(batch.source).cloned() else { return };
        let now = clock::now();
        let mut read = Read::default();
        match &batch.records {
            Records::Lines(bytes) if matches!(config, SourceConfig::WazuhAlerts { .. }) => {
                for line in source::lines(bytes) {
                    self.alert(line, batch, now, &mut read);
                }
            }
            Records::Lines(bytes) => {
                for line in source::lines(bytes) {
                    let mut record = config.record(line, &now);
                    if batch.live {
                        read.skew = read.skew.max(date_by_arrival(&mut record, &now));
                    }
                    self.record(&record, line, now, batch.read_at, &mut read);
                }
            }
            Records::Journal(entries) => {
                for entry in entries {
                    self.record(&entry.record(), &entry.line(), now, batch.read_at, &mut read);
                }
            }
        }
        self.writes.extend(self.sources.read(batch, &read));
    }

    fn record(&mut self, record: &Record<'_>, line: &[u8], now: Now, read_at: Mono, read: &mut Read) {
        let outcome = self.engine.handle(record, line, now);
        read.lines += 1;
        if let Some(event) = &outcome.event {
            read.attacks += u64::from(event.attack);
            self.writes.extend(Login::of(event, record, &now).map(Write::Login));
        }
        self.carry_out(Cause::Line(read_at));
    }

    fn alert(&mut self, line: &[u8], batch: &Batch, now: Now, read: &mut Read) {
        read.lines += 1;
        let Some(mut alert) = Alert::parse(line, &now) else {
            read.unreadable += 1;
            return;
        };
        if batch.live
            && let Some(skew) = alert.time.and_then(|time| skew(time, &now))
        {
            alert.time = None;
            read.skew = read.skew.max(skew);
        }
        let Some(found) = alert.found() else { return };
        let evidence = alert.log.as_deref().map_or(line, str::as_bytes);
        let answered = self.engine.handle_match(&found, evidence, now).is_some();
        read.attacks += u64::from(answered);
        self.carry_out(Cause::Line(batch.read_at));
    }

    /// Starts to write the streams of `config`.
    fn start_streams(&mut self, config: &Config) {
        self.stream_troubles.clear();
        for stream in &config.record.streams {
            let said = self.said.0.clone();
            // Its thread waits where the loop does not take what it says.
            let say = move |what| {
                if said.blocking_send(what).is_err() {
                    log::debug!("the loop has ended, and takes no word of a stream");
                }
            };
            match Stream::start(stream, config.paths.state.clone(), say) {
                Ok(stream) => self.streams.push(stream),
                Err(error) => {
                    let trouble = format!("start the stream of incidents to {}: {error}", stream.name());
                    log::error!("{trouble}");
                    self.stream_troubles.insert(stream.name(), trouble);
                }
            }
        }
        self.store.wake(self.streams.iter().map(Stream::wake).collect());
    }

    /// Ends the streams, and hears what they have to say until then.
    async fn end_streams(&mut self) {
        let streams = std::mem::take(&mut self.streams);
        let mut ended = tokio::task::spawn_blocking(|| streams.into_iter().for_each(Stream::stop));
        loop {
            tokio::select! {
                biased;
                Some(said) = self.said.1.recv() => self.stream_said(said),
                result = &mut ended => {
                    if let Err(error) = result {
                        log::error!("end the streams of incidents: {error}");
                    }
                    return;
                }
            }
        }
    }

    fn stream_said(&mut self, said: Said) {
        match said {
            Said::Written { name, seq } => self.writes.push(Write::Streamed { name, seq }),
            Said::Trouble { name, message } => {
                log::error!("{message}; it is tried again, and incidents wait for it in the store");
                self.stream_troubles.insert(name, message);
            }
            Said::Well { name } => {
                log::info!("incidents are written to {name} again");
                self.stream_troubles.remove(&name);
            }
        }
    }

    fn host_changed(&mut self) {
        self.keep_guard();
        match host::addresses() {
            Ok(addresses) if addresses != self.addresses => {
                log::info!("the host's addresses changed; what is never blocked changed with them");
                self.engine.set_host(&addresses);
                self.addresses = addresses;
                self.carry_out(Cause::Other);
            }
            Ok(_) => {}
            Err(error) => return self.host_unknown(&error),
        }
        self.host_trouble = None;
    }

    fn host_unknown(&mut self, error: &HostError) {
        let trouble =
            format!("{}; the addresses known so far stay protected, newer ones are not", chain(error));
        if self.host_trouble.as_ref() != Some(&trouble) {
            log::error!("{trouble}");
            self.host_trouble = Some(trouble);
        }
    }

    /// Keeps the gate where the configuration wants it.
    fn keep_guard(&mut self) {
        self.interfaces.keep(&mut self.gate, &self.config, clock::now().mono);
    }

    fn tick(&mut self) {
        self.keep_guard();
        self.engine.retain_sessions(is_sshd);
        match self.gate.totals() {
            Ok(totals) => self.rate.sample(clock::now().mono, totals.dropped()),
            Err(error) => log::warn!("{}", chain(&error)),
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_BETWEEN_COUNTS) {
            self.comparison.get_or_insert_default();
            self.record_counts();
            self.writes.push(Write::Alive { at: clock::now().wall });
        }
        if self.ticks.is_multiple_of(TICKS_A_DAY) {
            say_head(&self.store.head());
        }
    }

    /// Reads configuration and rules again. Where they are faulty the running ones stay in force.
    async fn reload(&mut self) {
        let file = self.config_file.clone();
        let loaded = tokio::task::spawn_blocking(move || Config::load(file.as_deref())).await;
        let mut config = match loaded {
            Ok(Ok(config)) => config,
            Ok(Err(faults)) => return self.reload_failed(&faults),
            Err(error) => {
                let trouble = format!("reload: {error}; the running configuration stays in force");
                log::error!("{trouble}");
                self.reload_trouble = Some(trouble);
                return;
            }
        };
        self.reload_trouble = None;
        for key in needs_restart(&self.config, &config) {
            log::warn!("reload: {key} changed, which takes effect at the next start");
        }
        keep_until_restart(&self.config, &mut config);
        self.engine.reload(config.policy.clone());
        self.runner.replace(&config.commands);
        config.commands.iter().filter_map(Command::trouble).for_each(|trouble| log::warn!("{trouble}"));
        self.carry_out(Cause::Other);
        if self.sources.replace(start::sources_of(&config)) {
            self.sources.announce();
            self.sources.begun().await;
        }
        let enforced = self.enforcing();
        self.store.keep(start::keep(&config));
        if self.config.record.streams != config.record.streams {
            self.end_streams().await;
            self.start_streams(&config);
        }
        let before = std::mem::replace(&mut self.config, config);
        self.record_config(false, Some(&before.written.settings));
        if enforced != self.enforcing() {
            self.gate.set_dry_run(!self.enforcing());
            self.announce_enforcement();
        }
        if let Err(error) = self.set_allow() {
            log::error!("{error}");
        }
        self.keep_guard();
        log::info!(
            "configuration and rules read again; {} rules in force",
            self.config.policy.rules.rules().len()
        );
    }

    fn reload_failed(&mut self, faults: &Faults) {
        log::error!("the configuration is faulty, and the running one stays in force:\n{faults}");
        let first = faults.iter().next().map(ToString::to_string).unwrap_or_default();
        self.act(None, Act::ConfigRefused { faults: faults.len(), first: first.clone() });
        self.reload_trouble = Some(format!(
            "the configuration on disk is faulty and was not taken ({}, the first: {first}); see `xdpban check`",
            human::counted(faults.len() as u64, "fault")
        ));
    }

    /// Ends what was started, in order, and leaves the gate as it stands.
    async fn stop(mut self) {
        if !self.trial_failed {
            log::info!("stopping; the gate stays closed to what is blocked");
        }
        notify::stopping();
        self.calls.close();
        while let Ok(call) = self.calls.try_recv() {
            self.answer(call);
        }
        while !self.unblocking.is_empty() {
            self.unblock_part();
            self.store.record(self.writes.drain(..));
        }
        self.store.record(self.writes.drain(..));
        let answered = async { while self.answers.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS, answered).await.is_err() {
            log::warn!("not every peer of the control socket had its answer");
        }
        // Their connections pass the answers on.
        tokio::task::yield_now().await;
        self.control.abort();
        // It ends by being aborted, which is no news.
        (&mut self.control).await.ok();
        if let Some(task) = self.packet_log.take() {
            task.abort();
        }
        self.reports.close();
        self.sources.stop();
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.command_ended(outcome);
        }
        self.runner.stop();
        self.record_counts();
        self.act(None, Act::Stopped { version: env!("CARGO_PKG_VERSION") });
        self.store.record(self.writes.drain(..));
        self.end_streams().await;
        self.store.record(self.writes.drain(..));
        self.health.close();
        let waiting = self.store.waiting();
        if waiting > MANY_WRITES {
            log::info!(
                "{} wait to be written; that takes {} at most",
                human::counted(waiting as u64, "record"),
                human::duration(WRITE_AT_STOP)
            );
        }
        match self.store.close(WRITE_AT_STOP).await {
            Ok(head) => say_head(&head),
            Err(error) => log::error!("{error}"),
        }
    }
}

/// Says where the record ends, so that it stands outside of the store, too.
fn say_head(head: &Head) {
    log::info!("the record's head is {head}; `xdpban verify-record --head` checks it against this");
}

/// What of a new configuration only a restart can bring about.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let limits = (&old.policy.limits, &new.policy.limits);
    [
        ("[paths]", old.paths != new.paths),
        (
            "[limits] blocks and prefixes",
            (limits.0.blocks, limits.0.prefixes) != (limits.1.blocks, limits.1.prefixes),
        ),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}

/// Takes over into `new` what only a restart can change.
fn keep_until_restart(old: &Config, new: &mut Config) {
    new.paths.clone_from(&old.paths);
    new.policy.limits.blocks = old.policy.limits.blocks;
    new.policy.limits.prefixes = old.policy.limits.prefixes;
}

/// Takes the timestamp off a record that was written just now and says otherwise: its program's clock, or the zone that its
/// program believes in, is wrong. Returns by how much; zero where it is right.
fn date_by_arrival(record: &mut Record<'_>, now: &Now) -> Duration {
    let Some(skew) = record.time.and_then(|time| skew(time, now)) else { return Duration::ZERO };
    record.time = None;
    skew
}

/// By how much the time of something that was written just now is off; none where it is right.
fn skew(time: Wall, now: &Now) -> Option<Duration> {
    Some(now.wall.since(time).max(time.since(now.wall))).filter(|skew| *skew > MAX_SKEW)
}

async fn changed(host: &mut Option<host::Watcher>) -> Result<(), HostError> {
    match host {
        Some(host) => host.changed().await,
        None => std::future::pending().await,
    }
}

/// Whether process `pid` is one of sshd's. Another program's has only come by the number.
fn is_sshd(pid: u32) -> bool {
    std::fs::read(Path::new("/proc").join(pid.to_string()).join("comm"))
        .is_ok_and(|name| name.starts_with(b"sshd"))
}

async fn until(deadline: Option<Mono>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock::now().mono)).await,
        None => std::future::pending().await,
    }
}

fn interval() -> Interval {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}
