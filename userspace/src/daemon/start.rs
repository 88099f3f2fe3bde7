//! Starting the controller: everything is opened, checked and said before the first line is read.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, error::SendError};
use tokio::task::JoinSet;
use xdpban_engine::change::{Block, End, Expiry, Origin};
use xdpban_engine::measure::{Action, Measure, Strictness};
use xdpban_engine::policy::{Aggregate, Policy, Response};
use xdpban_engine::target::Target;
use xdpban_engine::time::{Mono, Now};
use xdpban_engine::{Engine, Login, Offender};

use super::allow::Allowlist;
use super::carry_out::Cause;
use super::commands::CommandTroubles;
use super::host::Host;
use super::interfaces::Interfaces;
use super::sources::Sources;
use super::streams::Streams;
use super::tick::{self, Rate, is_sshd};
use super::trial::Trial;
use super::{CALLS, Daemon, HEALTH, Options, REPORTS, Signals, notify};
use crate::clock;
use crate::config::{Config, Selector, SourceConfig};
use crate::control::server::{Server, ServerError};
use crate::error::chain;
use crate::gate::{self, Entry, Gate, GateError, PacketLog};
use crate::host::HostError;
use crate::human;
use crate::run::Runner;
use crate::source::{self, Position};
use crate::store::{self, Act, Allowed, Health, Keep, Migrated, Standing, Store, StoreError, Write, Writer};

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
pub(super) fn daemon(config: Config, file: Option<&Path>, options: Options) -> Result<Daemon, DaemonError> {
    let io = |what| move |source| DaemonError::Io { what, source };
    // Whoever lacks these lacks the rest, too, and should hear of the cause first.
    gate::check_privileges()?;
    let server = Server::open(&config.paths.runtime)?;
    let (mut store, kept, set_aside) = open_store(&config, options.dry_run || !config.enforce)?;
    let migrated = store.migrated();
    let signals = Signals::listen().map_err(io("listen for signals"))?;
    let host = Host::watch()?;
    let mut gate = Gate::open(&gate::Options {
        pins: config.paths.pins.clone(),
        blocks: config.policy.limits.blocks,
        prefixes: config.policy.limits.prefixes,
        dry_run: options.dry_run || !config.enforce,
        trace_packets: options.trace_packets,
    })?;

    let now = clock::now();
    let allowlist = Allowlist::new(kept.allowed, &now);
    gate.set_allow(&[config.policy.allow.clone(), allowlist.networks()].concat())?;
    let mut engine = Engine::new(config.policy.clone());
    engine.set_allowed_by_hand(allowlist.networks());
    engine.set_host(host.addresses());
    let (in_force, ended) = in_force(kept.in_force, &gate, kept.on_trial, &now);
    engine.restore(in_force, kept.offenders, now);
    engine.restore_runs(super::commands::standing(kept.commands, &config.paths.state, &now), now);
    let (runner, outcomes) =
        Runner::start(&config.commands, &config.paths.state).map_err(io("start the thread of commands"))?;
    let boot = now.wall_at(Mono(0));
    for login in kept.logins {
        // A process of before the reboot is gone, whoever has its number.
        let pid = login.pid.filter(|_| login.at >= boot);
        engine.restore_login(&Login { pid, ..login }, now);
    }
    engine.retain_sessions(is_sshd);

    let trial = options.trial.map(|length| Trial::new(length, &now));
    if let Some(length) = options.trial {
        // On disk before the first entry is cut to the trial's length.
        let act = Act::TrialBegan { for_s: length.as_secs() };
        store.write(&[Write::Act { at: now.wall, uid: None, act }])?;
    }
    let (health_sender, health) = mpsc::channel(HEALTH);
    let (reports_sender, reports) = mpsc::channel(REPORTS);
    let (calls_sender, calls) = mpsc::channel(CALLS);
    let sources = Sources::new(kept.positions, reports_sender);
    let packet_log = gate.packet_log()?;
    let mut daemon = Daemon {
        engine,
        gate,
        allowlist,
        dry_run: options.dry_run,
        trial,
        trial_failed: false,
        interfaces: Interfaces::default(),
        sources,
        store: Writer::start(store, keep(&config), tell(health_sender))
            .map_err(io("start the thread of the store"))?,
        streams: Streams::new(),
        counted: HashMap::new(),
        writes: ended,
        set_aside,
        store_trouble: None,
        reload_trouble: None,
        command_troubles: CommandTroubles::default(),
        unblocking: VecDeque::new(),
        comparison: None,
        tampered: 0,
        said_full: BTreeSet::new(),
        host,
        reports,
        calls,
        health,
        runner,
        outcomes,
        control: tokio::spawn(server.serve(calls_sender)),
        packet_log: packet_log.map(|log| tokio::spawn(follow(log))),
        answers: JoinSet::new(),
        signals,
        tick: tick::interval(),
        ticks: 0,
        started: now.mono,
        rate: Rate::default(),
        config_file: file.map(Path::to_owned),
        config,
    };
    // The tables are filled before the program stands on an interface, so that it never passes what is blocked.
    daemon.carry_out(Cause::Restore);
    daemon.engine.restored(clock::now());
    if kept.is_off_host {
        daemon.record_resumed();
    }
    if kept.is_switched {
        daemon.record_switch();
    }
    let restored = daemon.engine.blocks().count();
    if restored > 0 {
        log::info!("restored: {}", human::counted(restored as u64, "block"));
    }
    let adopted = daemon.engine.blocks().filter(|block| block.origin == Origin::Adopted).count();
    if adopted > 0 && kept.settings.is_none() && daemon.set_aside.is_none() {
        log::warn!(
            "{} stood in the gate, but the record of why is gone: {} was empty. If the record is elsewhere, stop, name its directory \
             as [paths] state, and start again",
            human::counted(adopted as u64, "block"),
            daemon.config.paths.state.display()
        );
    }
    if kept.on_trial && daemon.trial.is_none() {
        log::warn!("the last trial was cut short; what was blocked then has its whole time again");
        daemon.act(None, Act::TrialCutShort {});
    }
    daemon.attach()?;
    let sources = sources_of(&daemon.config);
    daemon.record_start(&sources, migrated);
    daemon.record_config(true, kept.settings.as_deref());
    daemon.start_streams(&daemon.config.clone());
    daemon.sources.replace(sources);
    Ok(daemon)
}

impl Daemon {
    /// Puts the configuration on record, and in what it is otherwise than the settings `before`, if those are known.
    pub(super) fn record_config(&mut self, start: bool, before: Option<&[String]>) {
        let Config { file, written, .. } = &self.config;
        let act = Act::Config {
            start,
            file: file.as_ref().map(|file| file.display().to_string()),
            digest: written.digest.clone(),
            changes: before.map(|before| written.changes_since(before)).unwrap_or_default(),
            settings: written.settings.clone(),
        };
        self.act(None, act);
    }

    /// Puts the start on record.
    fn record_start(&mut self, sources: &[SourceConfig], migrated: Option<Migrated>) {
        if let Some(Migrated { from, to }) = migrated {
            self.act(None, Act::StoreMigrated { from, to });
        }
        if let Some(aside) = self.set_aside.clone() {
            self.act(None, Act::StoreSetAside { why: aside });
        }
        let act = Act::Started {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            interfaces: self.interfaces.attached().map(|(name, _)| name.to_owned()).collect(),
            sources: sources.iter().map(SourceConfig::key).collect(),
            dry_run: !self.enforcing(),
        };
        self.act(None, act);
    }

    /// Attaches the gate. Where nothing is guarded, the controller is of no use, unless what it is to guard may come yet.
    fn attach(&mut self) -> Result<(), DaemonError> {
        self.keep_guard();
        let selectors = &self.config.interfaces;
        let may_come = selectors.iter().any(|selector| matches!(selector, Selector::Pattern(_)));
        if self.interfaces.attached().next().is_some() || may_come {
            self.interfaces.failures().for_each(|failure| log::error!("{failure}"));
            // Programs that looked there have been replaced.
            return Ok(self.gate.remove_other_layouts()?);
        }
        let failures: Vec<&str> = self.interfaces.failures().collect();
        if failures.is_empty() {
            return Err(DaemonError::NoInterface("eth0".to_owned()));
        }
        Err(DaemonError::NothingGuarded(failures.join("; ")))
    }

    /// Tells the administrator and the service manager that the host is guarded. What is logged from here on is read.
    pub(super) async fn begin(&mut self) {
        self.sources_begun().await;
        self.announce();
        self.announce_trial();
        notify::ready();
    }

    /// Says what the controller watches, what it guards, what it will do, and what it will never block.
    fn announce(&self) {
        let config = &self.config;
        match &config.file {
            Some(file) => log::info!("configuration: {}", file.display()),
            None => log::info!("configuration: none; the defaults hold"),
        }
        if !self.enforcing() {
            self.announce_enforcement();
        }
        self.sources.announce();
        self.announce_responses(&config.doubts());
        let mut never = vec!["loopback and link-local addresses".to_owned()];
        let mut name = |what: &str, addresses: &[std::net::IpAddr]| {
            if !addresses.is_empty() {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                never.push(format!("{what} {}", addresses.join(", ")));
            }
        };
        let host = self.host.addresses();
        name("this host's", &host.own);
        name("the default gateway", &host.gateways);
        name("the name servers", &host.name_servers);
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

    /// Says what is done about which matches, and what is doubtful in the configuration.
    pub(super) fn announce_responses(&self, doubts: &[String]) {
        let Config { policy, commands, .. } = &self.config;
        for response in &policy.responses {
            log::info!("{}", describe(response));
        }
        for (command, answers) in commands.iter().zip(&policy.commands) {
            log::info!("on {}: runs {} as {}", matches(&answers.when), command.name, command.user);
        }
        doubts.iter().for_each(|doubt| log::warn!("{doubt}"));
    }
}

/// Writes out what the program tells of packets. It bounds itself, so a look ten times a second is enough.
async fn follow(mut log: PacketLog) {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        log.flush();
    }
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
fn open_store(config: &Config, dry_run: bool) -> Result<(Store, Kept, Option<String>), DaemonError> {
    let (directory, policy) = (&config.paths.state, &config.policy);
    let opened = Kept::open(directory, policy, dry_run);
    let damage = match opened {
        Ok((store, kept)) => return Ok((store, kept, None)),
        Err(damage) if damage.wants_a_new_file() => damage,
        Err(error) => return Err(error.into()),
    };
    let became = store::set_aside(directory, &clock::file_stamp(clock::now().wall))?;
    let note = format!(
        "{}; {became}, and a new one begun. Networks that operators allowed are in the old one alone: allow them anew",
        chain(&damage)
    );
    log::error!("{note}");
    let (store, kept) = Kept::open(directory, policy, dry_run)?;
    Ok((store, kept, Some(note)))
}

/// What the last controller left in the store.
struct Kept {
    positions: HashMap<String, Position>,
    in_force: Vec<Arc<Block>>,
    offenders: Vec<(Target, Offender)>,
    logins: Vec<Login>,
    commands: Vec<Standing>,
    allowed: Vec<Allowed>,
    /// What the last controller was configured with.
    settings: Option<Vec<String>>,
    /// Whether it was on trial: then the entries that it left in the gate end with that, and not at their own time.
    on_trial: bool,
    /// Whether what is in force rests by the record, because the gate was taken off the host.
    is_off_host: bool,
    /// Whether something is on record as enforced that is not in this run, or the other way round.
    is_switched: bool,
}

impl Kept {
    /// Opens the store and reads all of that, so that damage to any of it is found while there is nothing to undo yet.
    fn open(directory: &Path, policy: &Policy, dry_run: bool) -> Result<(Store, Kept), StoreError> {
        let store = Store::open(directory)?;
        let now = clock::now();
        let kept = Kept {
            positions: store.positions()?,
            in_force: store.in_force(&now)?,
            offenders: offenders(&store, policy, &now)?,
            logins: store.logins()?,
            commands: store.commands(&now)?,
            allowed: store.allowed()?,
            settings: store.last_settings()?,
            on_trial: store.on_trial()?,
            is_off_host: store.is_off_host()?,
            is_switched: store.is_switched(dry_run)?,
        };
        Ok((store, kept))
    }
}

/// What is kept on record.
pub(super) fn keep(config: &Config) -> Keep {
    Keep { time: config.record.keep, size: config.record.max_size }
}

/// Hands what the store says of its health to the loop.
fn tell(health: mpsc::Sender<Health>) -> impl FnMut(Health) + Send {
    // Its thread waits where the loop does not take what it says.
    move |message| match health.blocking_send(message) {
        Ok(()) => {}
        Err(SendError(Health::BegunAnew { why })) => {
            log::error!(
                "{why}. As the controller stops, there is little in it; networks that operators allowed are in the old one alone"
            );
        }
        Err(_) => log::debug!("the loop has ended, and takes no word of the store"),
    }
}

/// Who has been blocked before and is not yet forgotten.
fn offenders(store: &Store, policy: &Policy, now: &Now) -> Result<Vec<(Target, Offender)>, StoreError> {
    let responses = policy.responses.iter().map(|response| response.forget_after);
    let known = store.offenders(now.wall.before(responses.fold(policy.forget_after, Ord::max)))?;
    Ok(known
        .into_iter()
        .map(|known| (known.target, Offender { offences: known.offences, until: known.until }))
        .collect())
}

/// What is in force or rests, and what to record of blocks that do neither. While the tables live, they say what is blocked and
/// until when, and the store says why and what rests; after a reboot the store alone knows. Of a trial the store says until when,
/// too.
fn in_force(
    recorded: Vec<Arc<Block>>,
    gate: &Gate,
    on_trial: bool,
    now: &Now,
) -> (Vec<Arc<Block>>, Vec<Write>) {
    let (mut blocks, mut without_entry) = (Vec::with_capacity(recorded.len()), Vec::new());
    for mut block in recorded {
        // Of an entry without its measure the record says which it was, and until when.
        let same = |entry: &Entry| {
            entry.measure.is_none_or(|measure| measure.strictness() == block.measure.strictness())
        };
        match gate.entry(&block.target).filter(same) {
            Some(entry) => {
                if let Some(measure) = entry.measure {
                    let standing = Arc::make_mut(&mut block);
                    if !on_trial {
                        standing.expires = expiry_in_gate(&entry, standing.expires, now);
                    }
                    standing.measure = measure;
                }
                blocks.push(block);
            }
            None if gate.took_over() => without_entry.push(block),
            None => blocks.push(block),
        }
    }
    // Where the tables began empty there is nothing else.
    if gate.entries().next().is_some() {
        let key = |target, measure: Measure| (target, measure.strictness());
        let known: HashSet<(Target, Strictness)> =
            blocks.iter().map(|block| key(block.target, block.measure)).collect();
        let unknown = gate.entries().filter_map(|(target, entry)| {
            let measure = entry.measure.filter(|measure| !known.contains(&key(target, *measure)))?;
            Some(Arc::new(adopted(target, measure, &entry, now)))
        });
        blocks.extend(unknown);
    }
    let strictest = strictest(&blocks);
    let (resting, gone): (Vec<_>, Vec<_>) =
        without_entry.into_iter().partition(|block| rests(block, &strictest));
    blocks.extend(resting);
    (blocks, gone.into_iter().map(|block| ended(block, now)).collect())
}

/// A block that was found in the gate.
fn adopted(target: Target, measure: Measure, entry: &Entry, now: &Now) -> Block {
    Block {
        target,
        created: now.wall,
        expires: expiry_in_gate(entry, None, now),
        measure,
        rule: None,
        reason: "found in the gate; the store has no record of it".into(),
        origin: Origin::Adopted,
        offences: 1,
        attempts: 0,
        users: Vec::new(),
        evidence: Vec::new(),
    }
}

/// The strictest block of each target.
fn strictest(blocks: &[Arc<Block>]) -> HashMap<Target, Strictness> {
    let mut strictest = HashMap::with_capacity(blocks.len());
    for block in blocks {
        let strictness = block.measure.strictness();
        let known = strictest.entry(block.target).or_insert(strictness);
        *known = strictness.max(*known);
    }
    strictest
}

/// Whether `block` has no entry since a stricter one stands, of its target or of a network that this lies in.
fn rests(block: &Block, strictest: &HashMap<Target, Strictness>) -> bool {
    let target = block.target;
    let networks = (0..=target.prefix_len()).map(|length| Target::prefix(target.address(), length));
    let stricter = |network| strictest.get(&network).is_some_and(|it| *it > block.measure.strictness());
    !block.measure.stops_everything() && networks.into_iter().any(stricter)
}

/// When `entry` ends. By a clock that was set back since, that may be before it began, and is as it is on record.
fn expiry_in_gate(entry: &Entry, recorded: Option<Expiry>, now: &Now) -> Option<Expiry> {
    let mono = entry.deadline()?;
    let Some(Expiry { wall, .. }) = recorded else { return Some(now.expiry(mono)) };
    Some(Expiry { mono, wall: now.wall_of(Expiry { mono, wall }).max(wall) })
}

/// The end of a block that the store holds for live and the gate does not have: the controller was killed before it was
/// recorded, or someone else took the entry out.
fn ended(block: Arc<Block>, now: &Now) -> Write {
    let is_over = block.expires.is_some_and(|expiry| expiry.mono <= now.mono);
    let (end, reason) = if is_over {
        (End::Expired, None)
    } else {
        (End::Withdrawn, Some("it stood in the gate no longer when the controller started".to_owned()))
    };
    Write::Ended { block, end, at: now.wall, packets: 0, bytes: 0, reason, uid: None }
}

/// Which matches a response is for.
fn matches(response: &Response) -> String {
    let mut matches: Vec<String> = response.rules.iter().map(|rule| rule.0.to_string()).collect();
    matches.extend(response.groups.iter().map(|group| format!("group {group}")));
    matches.extend(response.level.map(|level| format!("level {level} and above")));
    let mut narrow: Vec<String> = response.networks.iter().map(|net| format!("from {net}")).collect();
    narrow.extend(response.users.iter().map(|user| format!("as user {user}")));
    let narrow = if narrow.is_empty() { String::new() } else { format!(" ({} only)", narrow.join(", ")) };
    format!("{}{narrow}", matches.join(", "))
}

fn describe(response: &Response) -> String {
    let timeout = |timeout: Option<_>| timeout.map_or("until unblocked".to_owned(), human::duration);
    let Measure { action, scope } = response.measure;
    let mut text = format!("on {}: ", matches(response));
    match action {
        Action::Block => text.push_str("blocks the source"),
        Action::Throttle(rate) => text.push_str(&format!("throttles the source to {rate}")),
    }
    if !scope.is_everything() {
        text.push_str(&format!(", {scope} only,"));
    }
    text.push_str(&format!(" for {}", timeout(response.timeout)));
    if !response.repeat_offenders.is_empty() {
        let steps: Vec<String> = response.repeat_offenders.iter().map(|step| timeout(*step)).collect();
        text.push_str(&format!(", and repeat offenders for {}", steps.join(", then ")));
    }
    if let Some(Aggregate { v4, v6, hosts }) = response.aggregate {
        let prefixes = [("IPv4", v4), ("IPv6", v6)].into_iter();
        let prefixes: Vec<String> =
            prefixes.filter_map(|(family, length)| Some(format!("{family} /{}", length?))).collect();
        text.push_str(&format!(
            ", and with {hosts} such sources in one {}, all of that",
            prefixes.join(" or ")
        ));
    }
    text
}
