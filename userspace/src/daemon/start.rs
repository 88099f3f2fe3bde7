//! Starting the controller: everything is opened, checked and said before the first line is read.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use xdpban_engine::change::{Block, End, Expiry, Origin};
use xdpban_engine::policy::Response;
use xdpban_engine::target::Target;
use xdpban_engine::time::{Mono, Now};
use xdpban_engine::{Engine, FORGET_AFTER, Login, Offender};

use super::carry_out::Cause;
use super::sources::Sources;
use super::{CALLS, Daemon, Guarded, HEALTH, REPORTS, Rate, Signals, notify};
use crate::clock;
use crate::config::{Config, SourceConfig};
use crate::control::server::{Server, ServerError};
use crate::error::chain;
use crate::gate::{self, Entry, Gate, GateError, PacketLog};
use crate::host::{self, HostError};
use crate::human;
use crate::source;
use crate::store::{self, Health, Store, StoreError, Write, Writer};

/// Why the controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The gate.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// The host's addresses.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No interface was named, and none can be found.
    #[error(
        "no interface has a default route; name those to guard in the configuration, such as interfaces = [\"{0}\"]"
    )]
    NoInterface(String),
    /// None of the interfaces could be attached to.
    #[error("nothing is guarded: {0}")]
    NothingGuarded(String),
    /// A call of the operating system.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Starts everything. When it returns the gate is attached, what is still in force is restored, and sources are about to
/// be read.
pub(super) fn daemon(
    config: Config,
    file: Option<&Path>,
    trace_packets: bool,
) -> Result<Daemon, DaemonError> {
    let io = |what| move |source| DaemonError::Io { what, source };
    // Whoever lacks these lacks the rest, too, and should hear of the cause first.
    gate::check_privileges()?;
    let names = interfaces(&config)?;
    let server = Server::open(&config.paths.runtime)?;
    let (store, set_aside) = open_store(&config.paths.state)?;
    let signals = Signals::listen().map_err(io("listen for signals"))?;
    let watcher = host::Watcher::new()?;
    let addresses = host::addresses()?;
    let mut gate = Gate::open(&gate::Options {
        pins: config.paths.pins.clone(),
        blocks: config.policy.limits.blocks,
        prefixes: config.policy.limits.prefixes,
        dry_run: false,
        trace_packets,
    })?;
    gate.set_allow(&config.policy.allow)?;

    let now = clock::now();
    let mut engine = Engine::new(config.policy.clone());
    engine.set_host(&addresses);
    let positions = store.positions()?;
    let (in_force, ended) = in_force(&store, &gate, &now)?;
    engine.restore(in_force, offenders(&store, &now)?, now);
    let boot = now.wall_at(Mono(0));
    for login in store.logins()? {
        // A process of before the reboot is gone, whoever has its number.
        let pid = login.pid.filter(|_| login.at >= boot);
        engine.restore_login(&Login { pid, ..login }, now);
    }
    engine.retain_sessions(super::is_sshd);

    let (health_sender, health) = mpsc::channel(HEALTH);
    let (reports_sender, reports) = mpsc::channel(REPORTS);
    let (calls_sender, calls) = mpsc::channel(CALLS);
    let sources = Sources::new(positions, reports_sender);
    let packet_log = gate.packet_log()?;
    let mut daemon = Daemon {
        engine,
        gate,
        interfaces: Vec::new(),
        sources,
        store: Writer::start(store, tell(health_sender)).map_err(io("start the thread of the store"))?,
        writes: ended,
        set_aside,
        store_trouble: None,
        reload_trouble: None,
        host_trouble: None,
        host: Some(watcher),
        addresses,
        reports,
        calls,
        health,
        control: tokio::spawn(server.serve(calls_sender)),
        packet_log: packet_log.map(|log| tokio::spawn(follow(log))),
        answers: JoinSet::new(),
        signals,
        tick: super::interval(),
        ticks: 0,
        started: now.mono,
        rate: Rate::default(),
        config_file: file.map(Path::to_owned),
        config,
    };
    // The tables are filled before the program stands on an interface, so that it never passes what is blocked.
    daemon.carry_out(Cause::Restore);
    daemon.attach(names)?;
    daemon.sources.replace(sources_of(&daemon.config));
    Ok(daemon)
}

impl Daemon {
    fn attach(&mut self, names: Vec<String>) -> Result<(), DaemonError> {
        for name in names {
            let state = self.gate.attach(&name, self.config.mode).map_err(|error| chain(&error));
            if let Ok(attached) = &state
                && let Some(warning) = &attached.warning
            {
                log::warn!("{warning}");
            }
            self.interfaces.push(Guarded { name, state });
        }
        let troubles: Vec<&str> = self
            .interfaces
            .iter()
            .filter_map(|guarded| guarded.state.as_ref().err().map(String::as_str))
            .collect();
        if troubles.len() == self.interfaces.len() {
            return Err(DaemonError::NothingGuarded(troubles.join("; ")));
        }
        troubles.iter().for_each(|trouble| log::error!("{trouble}"));
        // Programs that looked there have been replaced.
        Ok(self.gate.remove_other_layouts()?)
    }

    /// Tells the administrator and the service manager that the host is guarded. What is logged from here on is read.
    pub(super) async fn begin(&mut self) {
        self.sources.begun().await;
        self.announce();
        notify::ready();
    }

    /// Says what the controller watches, what it guards, what it will do, and what it will never block.
    fn announce(&self) {
        let config = &self.config;
        match &config.file {
            Some(file) => log::info!("configuration: {}", file.display()),
            None => log::info!("configuration: none; the defaults hold"),
        }
        for Guarded { name, state } in &self.interfaces {
            if let Ok(attached) = state {
                log::info!("guards {name} in mode {}", attached.mode);
            }
        }
        self.sources.announce();
        for response in &config.policy.responses {
            log::info!("{}", describe(response));
        }
        let mut never = vec!["loopback and link-local addresses".to_owned()];
        let mut name = |what: &str, addresses: &[std::net::IpAddr]| {
            if !addresses.is_empty() {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                never.push(format!("{what} {}", addresses.join(", ")));
            }
        };
        name("this host's", &self.addresses.own);
        name("the default gateway", &self.addresses.gateways);
        name("the name servers", &self.addresses.name_servers);
        if !config.policy.allow.is_empty() {
            let allow: Vec<String> = config.policy.allow.iter().map(ToString::to_string).collect();
            never.push(format!("the allowlist {}", allow.join(", ")));
        }
        if config.policy.protect_logins {
            never
                .push("sources of open ssh sessions and of logins by public key in the last hour".to_owned());
        }
        log::info!("never blocks {}", never.join("; "));
        log::info!("{} in force", human::counted(self.engine.blocks().count() as u64, "block"));
    }
}

/// Writes out what the program tells of packets. It bounds itself, so a look ten times a second is enough.
async fn follow(mut log: PacketLog) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        log.flush();
    }
}

/// The interfaces to guard.
fn interfaces(config: &Config) -> Result<Vec<String>, DaemonError> {
    if !config.interfaces.is_empty() {
        return Ok(config.interfaces.clone());
    }
    let found = host::default_route_interfaces()?;
    if found.is_empty() {
        return Err(DaemonError::NoInterface("eth0".to_owned()));
    }
    Ok(found)
}

/// What to watch: what is configured, or what the host has.
pub(super) fn sources_of(config: &Config) -> Vec<SourceConfig> {
    if !config.sources.is_empty() {
        return config.sources.clone();
    }
    source::find_default(config.policy.decoders.programs())
}

/// Opens the store. One that is no database, or a damaged one, is set aside and a new one begun: the host is guarded in
/// any case, and nothing is overwritten. Returns what the operator should know of that.
fn open_store(directory: &Path) -> Result<(Store, Option<String>), DaemonError> {
    let store = Store::open(directory);
    let Err(damage @ (StoreError::NotADatabase { .. } | StoreError::Damaged { .. })) = store else {
        return Ok((store?, None));
    };
    let aside = store::set_aside(directory, &clock::file_stamp(clock::now().wall))?;
    let note = format!("{}; it was set aside as {}, and a new one begun", chain(&damage), aside.display());
    log::error!("{note}");
    Ok((Store::open(directory)?, Some(note)))
}

/// Hands what the store says of its health to the loop.
fn tell(health: mpsc::Sender<Health>) -> impl FnMut(Health) + Send {
    move |message| {
        // When the loop is so far behind that this queue is full, the next message tells it the state.
        if health.try_send(message).is_err() {
            log::debug!("the loop takes no message of the store's health");
        }
    }
}

/// Who has been blocked before and is not yet forgotten.
fn offenders(store: &Store, now: &Now) -> Result<Vec<(Target, Offender)>, StoreError> {
    let known = store.offenders(now.wall.before(FORGET_AFTER))?;
    Ok(known
        .into_iter()
        .map(|known| (known.target, Offender { offences: known.offences, until: known.until }))
        .collect())
}

/// What is in force, and what to record of blocks that are no longer. While the tables live, they say what is blocked and
/// until when, and the store says why; after a reboot the store alone knows.
fn in_force(store: &Store, gate: &Gate, now: &Now) -> Result<(Vec<Block>, Vec<Write>), DaemonError> {
    let mut standing: HashMap<Target, Entry> = gate.entries().collect();
    let (mut blocks, mut ended) = (Vec::new(), Vec::new());
    for mut block in store.in_force(now)? {
        match standing.remove(&block.target) {
            Some(entry) => {
                block.expires = expiry(&entry, now);
                block.measure = entry.measure;
                blocks.push(block);
            }
            None if gate.took_over() => ended.push(gone(block, now)),
            None => blocks.push(block),
        }
    }
    blocks.extend(standing.into_iter().map(|(target, entry)| Block {
        target,
        created: now.wall,
        expires: expiry(&entry, now),
        measure: entry.measure,
        rule: None,
        reason: "found in the gate; the store has no record of it".into(),
        origin: Origin::Adopted,
        offences: 1,
        attempts: 0,
        users: Vec::new(),
        evidence: Vec::new(),
    }));
    Ok((blocks, ended))
}

fn expiry(entry: &Entry, now: &Now) -> Option<Expiry> {
    entry.deadline().map(|deadline| now.expiry(deadline))
}

/// The end of a block that the store holds for live and the gate does not have: the controller was killed before it was
/// recorded, or someone else took the entry out.
fn gone(block: Block, now: &Now) -> Write {
    let is_over = block.expires.is_some_and(|expiry| expiry.mono <= now.mono);
    let (end, reason) = if is_over {
        (End::Expired, None)
    } else {
        (End::Lifted, Some("it stood in the gate no longer when the controller started".to_owned()))
    };
    Write::Ended { block, end, at: now.wall, packets: 0, bytes: 0, reason }
}

fn describe(response: &Response) -> String {
    let mut matches: Vec<String> = response.rules.iter().map(|rule| rule.0.to_string()).collect();
    matches.extend(response.groups.iter().map(|group| format!("group {group}")));
    matches.extend(response.level.map(|level| format!("level {level} and above")));
    let timeout = |timeout: Option<_>| timeout.map_or("until unblocked".to_owned(), human::duration);
    let mut text = format!("on {}: blocks the source for {}", matches.join(", "), timeout(response.timeout));
    if !response.repeat_offenders.is_empty() {
        let steps: Vec<String> =
            response.repeat_offenders.iter().map(|step| human::duration(*step)).collect();
        text.push_str(&format!(", and repeat offenders for {}", steps.join(", then ")));
    }
    text
}
