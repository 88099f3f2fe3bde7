//! The controller: one loop that owns every piece of state, and one closed set of inputs.
//!
//! Sources, the control socket and the store run beside it and talk through bounded queues. When the loop is busy,
//! sources and peers wait; the store never makes the loop wait (see [`crate::store`]).

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};
use xdpban_engine::record::Record;
use xdpban_engine::time::{Mono, Now, Wall};
use xdpban_engine::{Engine, HostAddresses, Login};

use crate::clock;
use crate::config::{Config, Faults, SourceConfig};
use crate::control::Call;
use crate::error::chain;
use crate::gate::Gate;
use crate::host::HostError;
use crate::human;
use crate::source::{self, Alert, Batch, Records, Report};
use crate::store::{Health, Write, Writer};
use crate::{gate, host};
use carry_out::Cause;
use sources::Sources;

mod answer;
mod carry_out;
mod notify;
mod sources;
mod start;

pub use start::DaemonError;

/// Reports of sources that may wait for the loop: with batches of 256 KiB, at most 4 MiB.
const REPORTS: usize = 16;

/// Requests that may wait for the loop.
const CALLS: usize = 64;

/// Messages of the store that may wait for the loop.
const HEALTH: usize = 16;

/// How often rates are sampled and logins that ended without a word are noticed.
const TICK: Duration = Duration::from_secs(10);

/// By how much the timestamp of a line that was written just now may be off. Relays between hosts take their time.
const MAX_SKEW: Duration = Duration::from_secs(600);

/// Every how many ticks the counts of blocks in force go to the store, so that a reboot does not lose them.
const TICKS_BETWEEN_COUNTS: u32 = 6;

/// What can happen to the controller.
enum Input {
    /// A source has records, or something to say.
    Report(Report),
    /// A peer asks something.
    Request(Call),
    /// A block is due.
    Deadline,
    /// The store has trouble, or is well again.
    Store(Health),
    /// Addresses, routes or interfaces of the host changed.
    Host,
    /// The host does not tell of changes any longer.
    HostLost(HostError),
    /// Some time has passed.
    Tick,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Shutdown,
}

/// Runs the controller until it is told to end.
///
/// # Errors
/// [`DaemonError`], when it cannot start.
pub fn run(config: Config, file: Option<&Path>, trace_packets: bool) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| DaemonError::Io { what: "start the event loop", source })?;
    runtime.block_on(async {
        let mut daemon = start::daemon(config, file, trace_packets)?;
        daemon.begin().await;
        daemon.serve().await;
        daemon.stop().await;
        Ok(())
    })
}

/// The controller's state.
struct Daemon {
    config: Config,
    /// What `--config` named; read again on SIGHUP.
    config_file: Option<PathBuf>,
    engine: Engine,
    gate: Gate,
    interfaces: Vec<Guarded>,
    sources: Sources,
    store: Writer,
    /// What the present input led to, for the store: kept or lost as a whole.
    writes: Vec<Write>,
    /// A store that could not be used and was replaced.
    set_aside: Option<String>,
    store_trouble: Option<String>,
    reload_trouble: Option<String>,
    host_trouble: Option<String>,
    /// None once it failed, which does not heal.
    host: Option<host::Watcher>,
    addresses: HostAddresses,
    reports: mpsc::Receiver<Report>,
    calls: mpsc::Receiver<Call>,
    health: mpsc::Receiver<Health>,
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

/// An interface of the configuration.
struct Guarded {
    name: String,
    /// How the gate stands on it, or why it does not.
    state: Result<gate::Attached, String>,
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
        loop {
            match self.next().await {
                Input::Report(Report::Batch(batch)) => self.batch(&batch),
                Input::Report(Report::Trouble { source, message }) => self.sources.trouble(source, message),
                Input::Report(Report::Well { source }) => self.sources.well(source),
                Input::Request(call) => self.answer(call),
                Input::Deadline => {
                    self.engine.handle_timeout(clock::now());
                    self.carry_out(Cause::Other);
                }
                Input::Store(Health::Failing { message }) => {
                    log::error!("{message}; it is tried again every second, and blocking goes on meanwhile");
                    self.store_trouble = Some(message);
                }
                Input::Store(Health::Recovered) => {
                    log::info!("the store can be written again");
                    self.store_trouble = None;
                }
                Input::Host => self.host_changed(),
                Input::HostLost(error) => {
                    self.host_unknown(&error);
                    self.host = None;
                }
                Input::Tick => self.tick(),
                Input::Reload => self.reload().await,
                Input::Shutdown => return,
            }
            self.store.record(self.writes.drain(..));
        }
    }

    async fn next(&mut self) -> Input {
        let deadline = self.engine.poll_timeout();
        tokio::select! {
            biased;
            _ = self.signals.terminate.recv() => Input::Shutdown,
            _ = self.signals.interrupt.recv() => Input::Shutdown,
            _ = self.signals.hangup.recv() => Input::Reload,
            () = until(deadline) => Input::Deadline,
            Some(call) = self.calls.recv() => Input::Request(call),
            Some(health) = self.health.recv() => Input::Store(health),
            changed = changed(&mut self.host) => changed.map_or_else(Input::HostLost, |()| Input::Host),
            _ = self.tick.tick() => Input::Tick,
            Some(report) = self.reports.recv() => Input::Report(report),
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

    /// Puts the gate back onto interfaces on which it does not stand: they came late, or went and came back, or someone took
    /// it off.
    fn keep_guard(&mut self) {
        for Guarded { name, state } in &mut self.interfaces {
            let stands = state.as_ref().map_or(Ok(false), |attached| self.gate.stands(attached));
            match stands {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    log::warn!("{}", chain(&error));
                    continue;
                }
            }
            let again = self.gate.attach(name, self.config.mode).map_err(|error| chain(&error));
            match (&again, &state) {
                (Ok(attached), Ok(_)) => {
                    log::warn!("the gate was taken off {name}; it stands again, in mode {}", attached.mode);
                }
                (Ok(attached), Err(_)) => log::info!("guards {name} in mode {}", attached.mode),
                (Err(trouble), Err(before)) if trouble == before => {}
                (Err(trouble), _) => log::error!("{name} is not guarded: {trouble}"),
            }
            if let Ok(gate::Attached { warning: Some(warning), .. }) = &again {
                log::warn!("{warning}");
            }
            *state = again;
        }
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
            self.record_counts();
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
        self.carry_out(Cause::Other);
        if let Err(error) = self.gate.set_allow(&config.policy.allow) {
            log::error!("{}", chain(&error));
        }
        if self.sources.replace(start::sources_of(&config)) {
            self.sources.announce();
            self.sources.begun().await;
        }
        self.config = config;
        log::info!(
            "configuration and rules read again; {} rules in force",
            self.config.policy.rules.rules().len()
        );
    }

    fn reload_failed(&mut self, faults: &Faults) {
        log::error!("the configuration is faulty, and the running one stays in force:\n{faults}");
        let first = faults.iter().next().map(ToString::to_string).unwrap_or_default();
        self.reload_trouble = Some(format!(
            "the configuration on disk is faulty and was not taken ({}, the first: {first}); see `xdpban check`",
            human::counted(faults.len() as u64, "fault")
        ));
    }

    /// Ends what was started, in order, and leaves the gate as it stands.
    async fn stop(mut self) {
        log::info!("stopping; the gate stays closed to what is blocked");
        notify::stopping();
        self.calls.close();
        while let Ok(call) = self.calls.try_recv() {
            self.answer(call);
        }
        self.control.abort();
        // It ends by being aborted, which is no news.
        (&mut self.control).await.ok();
        if let Some(task) = self.packet_log.take() {
            task.abort();
        }
        self.reports.close();
        self.sources.stop();
        self.record_counts();
        self.store.record(self.writes.drain(..));
        if let Err(error) = self.store.close() {
            log::error!("{error}");
        }
    }
}

/// What of a new configuration only a restart can bring about.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let limits = (&old.policy.limits, &new.policy.limits);
    [
        ("[paths]", old.paths != new.paths),
        ("interfaces", old.interfaces != new.interfaces),
        ("mode", old.mode != new.mode),
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
    new.interfaces.clone_from(&old.interfaces);
    new.mode = old.mode;
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
