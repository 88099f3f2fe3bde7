//! The controller: one loop that owns every piece of state, and one closed set of inputs.
//!
//! Sources, the control socket and the store run beside it and talk through bounded queues. When the loop is busy,
//! sources and peers wait; the store never makes the loop wait (see [`crate::store`]).

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::future::ready;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Interval;
use xdpban_engine::Engine;
use xdpban_engine::target::Target;
use xdpban_engine::time::Mono;

use crate::clock;
use crate::config::Config;
use crate::control::Call;
use crate::gate::Gate;
use crate::host::HostError;
use crate::run::{Outcome, Runner};
use crate::source::Report;
use crate::store::{Act, Health, Write, Writer};
use crate::stream::Said;
use allow::Allowlist;
use carry_out::Cause;
use commands::CommandTroubles;
use compare::Comparison;
use host::Host;
use interfaces::Interfaces;
use sources::Sources;
use streams::Streams;
use tick::Rate;
use trial::Trial;
use unblock_all::UnblockAll;

mod active_response;
mod allow;
mod answer;
mod batch;
mod carry_out;
mod commands;
mod compare;
mod host;
mod interfaces;
mod notify;
mod record_anew;
mod reload;
mod sources;
mod start;
mod stop;
mod streams;
mod tick;
mod trial;
mod unblock_all;

pub use start::DaemonError;

/// Reports of sources that may wait for the loop: with batches of 256 KiB, at most 4 MiB.
const REPORTS: usize = 16;

/// Requests that may wait for the loop.
const CALLS: usize = 64;

/// Messages of the store that may wait for the loop.
const HEALTH: usize = 16;

/// More writes than the store writes in a second: who waits for the record is told so, and so is whoever stops the controller.
const MANY_WRITES: usize = 20_000;

/// What is said of a dry run.
const NOT_ENFORCED: &str =
    "dry run: nothing is enforced; what would be dropped is counted, and passes (`enforce`, `run --dry-run`)";

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
    /// The next part of what is blocked can be compared. The record's come by themselves; none where it cannot be read on.
    Compare(Option<compare::Recorded>),
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
    streams: Streams,
    /// The packets of each block that are on record, as far as they were counted since the start.
    counted: HashMap<Target, u64>,
    /// What the present input led to, for the store: kept or lost as a whole.
    writes: Vec<Write>,
    /// A store that could not be used and was replaced.
    set_aside: Option<String>,
    store_trouble: Option<String>,
    reload_trouble: Option<String>,
    command_troubles: CommandTroubles,
    /// Requests to lift all blocks that are being done, the first one first.
    unblocking: VecDeque<UnblockAll>,
    /// Under way where the tables are being compared.
    comparison: Option<Comparison>,
    /// How many entries of the kernel's tables someone else had changed.
    tampered: usize,
    /// The tables of which it was said that they are full.
    said_full: BTreeSet<&'static str>,
    host: Host,
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
                Input::Report(report) => self.report(report),
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
                Input::Stream(said) => self.writes.extend(self.streams.heard(said)),
                Input::Host => self.host_changed(),
                Input::HostLost(error) => self.host.lost(&error),
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
            Some(said) = self.streams.said() => Input::Stream(said),
            changed = self.host.changed() => changed.map_or_else(Input::HostLost, |()| Input::Host),
            Some(outcome) = self.outcomes.recv() => Input::CommandEnded(Box::new(outcome)),
            _ = self.tick.tick() => Input::Tick,
            Some(report) = self.reports.recv() => Input::Report(report),
            () = until(deadline), if part_done => Input::Deadline,
            () = ready(()), if unblocking && part_done => Input::Unblock,
            recorded = Comparison::next(&mut self.comparison) => Input::Compare(recorded),
        }
    }
}

async fn until(deadline: Option<Mono>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline.since(clock::now().mono)).await,
        None => std::future::pending().await,
    }
}
