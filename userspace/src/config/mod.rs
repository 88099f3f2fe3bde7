//! The configuration: read as written, resolved into a [`Config`] that cannot be wrong.
//!
//! A file is taken through four steps, and each notes its faults and goes on, so that one run tells them all: the syntax
//! (`document`), the single values (`values`, `raw`), the rules against each other and the responses against the rules
//! (`decoders`, `rules`). `keys` is the one table of what can be written.

mod commands;
mod decoders;
mod document;
pub mod duration;
mod faults;
mod interfaces;
mod keys;
mod raw;
pub(crate) mod read;
mod record;
mod responses;
mod rules;
mod values;
mod written;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xdpban_engine::policy::{CommandResponse, Policy, Response};
use xdpban_engine::record::Format;
use xdpban_engine::target::Target;

use self::commands::{Kind, RawCommand};
use self::raw::RawConfig;
use self::responses::RawResponse;
use self::rules::Definitions;

pub use self::commands::{Command, LOCK_ACCOUNT, What};
pub use self::faults::{Fault, Faults, Place};
pub use self::interfaces::{Pattern, Selector};
pub use self::record::{RecordConfig, StreamConfig};
pub use self::responses::parse_rate;
pub use self::rules::RuleFile;
pub use self::written::Written;

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "/etc/xdpban/config.toml";

/// What the controller runs by. Every value has been checked against the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that it came from; none where there was none and the defaults hold.
    pub file: Option<PathBuf>,
    /// The interfaces to guard; never empty.
    pub interfaces: Vec<Selector>,
    /// How to attach.
    pub mode: Mode,
    /// Whether packets are dropped; otherwise what would be is only counted.
    pub enforce: bool,
    /// Where things stand on the host.
    pub paths: Paths,
    /// What to watch; empty: the one log that the host has, see [`crate::source::find_default`].
    pub sources: Vec<SourceConfig>,
    /// The allowlist, with what its networks are. The policy has the networks.
    pub allow: Vec<Allowed>,
    /// The commands that responses run.
    pub commands: Vec<Command>,
    /// Rules, responses, limits, the allowlist: what the engine decides by.
    pub policy: Policy,
    /// What is kept on record, and where else it goes.
    pub record: RecordConfig,
    /// What the files said, for the record.
    pub written: Written,
}

/// A network that is never blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The network.
    pub network: Target,
    /// What it is, in the user's words.
    pub comment: Option<String>,
}

/// How to attach the gate to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// XDP in the driver; where that is refused, TC ingress, with a warning.
    #[default]
    Auto,
    /// XDP in the driver or not at all.
    Native,
    /// XDP after the kernel built the packet's buffer.
    Generic,
    /// TC ingress.
    Tc,
}

/// Where things stand on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The directory of the store.
    pub state: PathBuf,
    /// The directory of the control socket.
    pub runtime: PathBuf,
    /// The directory of programs, links and maps, on a mounted bpffs.
    pub pins: PathBuf,
    /// The directory of the user's own rules.
    pub rules: PathBuf,
}

/// One source of log records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// A file that a syslog daemon or sshd appends to.
    File {
        /// Its path.
        path: PathBuf,
        /// How its lines begin.
        format: Format,
        /// The program whose messages its bare lines are; none: sshd.
        program: Option<String>,
    },
    /// The systemd journal, through `journalctl`.
    Journal {
        /// The programs whose entries are read beside sshd's: those that a decoder of the user's own is for.
        programs: Vec<String>,
    },
    /// Alerts of Wazuh, one JSON object a line.
    WazuhAlerts {
        /// The file.
        path: PathBuf,
    },
}

impl SourceConfig {
    /// Where Wazuh writes its alerts.
    pub const WAZUH_ALERTS: &str = "/var/ossec/logs/alerts/alerts.json";
}

impl Config {
    /// Reads `file`, or [`DEFAULT_FILE`] where that exists, or nothing, in which case the defaults hold; and the rules
    /// in the directory that the configuration names.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn load(file: Option<&Path>) -> Result<Config, Faults> {
        Config::load_or(file, Path::new(DEFAULT_FILE))
    }

    /// Where things stand on the host by `file`, or by [`DEFAULT_FILE`], or by default; and the faults of that file, which
    /// are not those of its rules. A path that is itself faulty is the default one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn paths(file: Option<&Path>) -> Result<(Paths, Faults), Faults> {
        let mut faults = Faults::default();
        let (_, _, raw) = read_raw(file, Path::new(DEFAULT_FILE), &mut faults)?;
        Ok((raw.paths, faults))
    }

    fn load_or(file: Option<&Path>, default: &Path) -> Result<Config, Faults> {
        let mut faults = Faults::default();
        let (file, text, raw) = read_raw(file, default, &mut faults)?;
        // The default directory need not exist, not even where the file names it.
        let named = raw.rules_place.as_ref().filter(|_| raw.paths.rules != Paths::default().rules);
        let (files, complete) = rules::read_directory(&raw.paths.rules, named, &mut faults);
        let config = resolve(raw, file, &files, complete, faults)?;
        Ok(Config { written: Written::of(&text, &files), ..config })
    }

    /// Reads `text`, the content of `file`, together with `rules`, the files of the user's own rules in the order of
    /// their names. Touches no file.
    ///
    /// # Errors
    /// Every fault of every file.
    pub fn parse(text: &str, file: &Path, rules: &[RuleFile]) -> Result<Config, Faults> {
        let mut faults = Faults::default();
        let raw = RawConfig::parse(text, file, &mut faults);
        resolve(raw, Some(file), rules, true, faults)
    }

    /// What will hardly be as it is meant, although the configuration is sound: a command that this host cannot run, and an
    /// allowlist that lets most of a family through.
    pub fn doubts(&self) -> Vec<String> {
        self.commands.iter().filter_map(Command::trouble).chain(self.allows_most()).collect()
    }

    /// Says which networks of the allowlist hold half of all addresses or more.
    pub fn allows_most(&self) -> impl Iterator<Item = String> {
        let networks = self.policy.allow.iter().filter(|network| network.is_half_of_all());
        networks
            .map(|network| format!("nothing in {network} is ever blocked: [allow] networks has all of that"))
    }
}

/// Reads `file`, or `default` where that exists; returns which of them, its text, and what it says.
fn read_raw<'f>(
    file: Option<&'f Path>,
    default: &'f Path,
    faults: &mut Faults,
) -> Result<(Option<&'f Path>, String, RawConfig), Faults> {
    let path = file.unwrap_or(default);
    let (file, text) = match read::file(path, faults) {
        Ok(text) => (Some(path), text.unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => (None, String::new()),
        Err(error) => {
            faults.add(&Place::file(path), read::refused(&error));
            return Err(std::mem::take(faults));
        }
    };
    let raw = RawConfig::parse(&text, path, faults);
    Ok((file, text, raw))
}

/// Checks what was read against each other. `complete`: `files` are all the files of rules that there are.
fn resolve(
    raw: RawConfig,
    file: Option<&Path>,
    files: &[RuleFile],
    complete: bool,
    mut faults: Faults,
) -> Result<Config, Faults> {
    let mut definitions = Definitions::new(raw.rules, files, complete, &mut faults);
    // `response = []` asks for no response at all.
    let nothing = raw.responses.as_ref().is_some_and(Vec::is_empty);
    let (raw_commands, raw_responses) = commands_of(raw.responses, &mut faults);
    if let Some((failures, window)) = raw_commands.iter().find_map(|(_, command)| command.lockout) {
        definitions.add_lockout(failures, window);
    }
    let rules = definitions.resolve(&mut faults);
    let decoders = definitions.decoders();
    let mut sources = raw.sources;
    for source in &mut sources {
        if let SourceConfig::Journal { programs } = source {
            *programs = decoders.programs();
        }
    }
    let forget_after = raw.forget_after;
    let wazuh = sources.iter().any(|source| matches!(source, SourceConfig::WazuhAlerts { .. }));
    let mut responses: Vec<Response> = raw_responses
        .into_iter()
        .map(|raw| definitions.response(raw, wazuh, forget_after, &mut faults))
        .collect();
    if responses.is_empty() && !nothing {
        responses =
            Response::defaults().into_iter().map(|response| Response { forget_after, ..response }).collect();
    }
    let mut commands = Vec::new();
    let mut answers = Vec::new();
    for (raw, RawCommand { command, lockout, guarded }) in raw_commands {
        let mut when = definitions.response(raw, wazuh, forget_after, &mut faults);
        let per_user = lockout.is_some();
        if per_user {
            when.rules = vec![commands::LOCKOUT_RULE];
        }
        answers.push(CommandResponse { when, command: Arc::clone(&command.name), per_user, guarded });
        commands.push(command);
    }
    match rules {
        Some(rules) if faults.is_empty() => Ok(Config {
            file: file.map(Path::to_owned),
            interfaces: raw.interfaces,
            mode: raw.mode,
            enforce: raw.enforce,
            paths: raw.paths,
            sources,
            commands,
            record: raw.record,
            written: Written::default(),
            policy: Policy {
                decoders,
                rules,
                responses,
                allow: raw.allow.iter().map(|allowed| allowed.network).collect(),
                commands: answers,
                protect_logins: raw.protect_logins,
                ipv6_prefix: raw.ipv6_prefix,
                forget_after,
                limits: raw.limits,
            },
            allow: raw.allow,
        }),
        _ => Err(faults.sorted()),
    }
}

/// Parts the responses that run a command from those that block or throttle.
fn commands_of(
    raw: Option<Vec<RawResponse>>,
    faults: &mut Faults,
) -> (Vec<(RawResponse, RawCommand)>, Vec<RawResponse>) {
    let mut commands: Vec<(RawResponse, RawCommand)> = Vec::new();
    let mut others = Vec::new();
    for mut raw in raw.into_iter().flatten() {
        match raw.command.take() {
            Some(command) => {
                let name = &command.command.name;
                if **name == *LOCK_ACCOUNT && raw.kind != Kind::LockAccount {
                    let action = format!("`{name}` is what `action = \"{name}\"` runs");
                    faults.add(&raw.place, format!("{action}; give this command another `name`"));
                } else if commands.iter().any(|(_, other)| other.command.name == *name) {
                    let remedy = match raw.kind {
                        Kind::LockAccount => "there can be one such response",
                        _ => "give each a `name` of its own",
                    };
                    faults.add(&raw.place, format!("there is a command `{name}` already; {remedy}"));
                } else if commands.len() == MAX_COMMANDS {
                    faults.add(&raw.place, format!("at most {MAX_COMMANDS} responses can run commands"));
                }
                commands.push((raw, command));
            }
            None if matches!(raw.kind, Kind::Block | Kind::Throttle) => others.push(raw),
            // What it lacks has been told of.
            None => {}
        }
    }
    (commands, others)
}

/// The most responses that run a command.
const MAX_COMMANDS: usize = 32;

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 4] = [Mode::Auto, Mode::Native, Mode::Generic, Mode::Tc];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Native => "native",
            Mode::Generic => "generic",
            Mode::Tc => "tc",
        }
    }
}

impl Default for Paths {
    fn default() -> Paths {
        Paths {
            state: "/var/lib/xdpban".into(),
            runtime: "/run/xdpban".into(),
            pins: "/sys/fs/bpf/xdpban".into(),
            rules: "/etc/xdpban/rules.d".into(),
        }
    }
}

#[cfg(test)]
mod tests;
