//! The command line: arguments in, text or JSON and an exit code out.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use crate::config::{Config, Faults, Paths};
use crate::control::client::{Client, ClientError};
use crate::daemon::DaemonError;
use crate::error::chain;
use crate::gate::GateError;
use crate::host::HostError;
use crate::lockout;
use crate::store::StoreError;
use crate::wazuh::WazuhError;
use args::{Cli, Command};

mod allow;
mod args;
mod block;
mod check;
mod detach;
mod doctor;
mod import;
mod incidents;
mod line_clock;
mod list;
mod logtest;
mod progress;
mod replay;
mod report;
mod show;
mod status;
mod table;
mod unlock;
mod verify_record;
mod wazuh_ar;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The configuration is faulty.
    #[error(transparent)]
    Config(#[from] Faults),
    /// The configuration is faulty, and the faults have been printed.
    #[error("the configuration is faulty")]
    Faulty,
    /// The command line, or what it names, cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The controller did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The controller could not start or go on.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The kernel's side.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the host needs is not known.
    #[error(transparent)]
    Host(#[from] HostError),
    /// What Wazuh asked for was not done.
    #[error(transparent)]
    Wazuh(#[from] WazuhError),
    /// A file could not be written.
    #[error("write {what}")]
    Write {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {what}")]
    Read {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Standard output is gone.
    #[error("write to standard output")]
    Output(#[from] io::Error),
    /// It must not be done now.
    #[error("{0}")]
    Refused(String),
    /// The account must not be locked, and why has been printed.
    #[error("left alone")]
    LeftAlone,
    /// It was not done, and why has been printed.
    #[error("not done")]
    Told,
    /// Something is left undone; each has been printed.
    #[error("{done} done, {refused} refused")]
    Partly {
        /// How many targets were done.
        done: usize,
        /// How many were not.
        refused: usize,
    },
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Config(_) | CliError::Faulty | CliError::Usage(_) => 2,
            CliError::Wazuh(WazuhError::Name(_) | WazuhError::Input(_) | WazuhError::Message(_)) => 2,
            CliError::Client(ClientError::NotRunning(_))
            | CliError::Wazuh(WazuhError::Client(ClientError::NotRunning(_))) => 3,
            CliError::LeftAlone => lockout::LEFT_ALONE,
            _ => 1,
        }
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    // Wazuh starts its executables without arguments, by their names.
    let done = match std::env::args_os().next().filter(|name| crate::wazuh::is_meant(name)) {
        Some(name) => wazuh_ar::by_name(&name),
        None => run(&Cli::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough (`xdpban list | head`).
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            match &error {
                // Each fault begins with its file and line, for editors to follow.
                CliError::Config(faults) => eprint(&faults.to_string()),
                CliError::Told | CliError::LeftAlone | CliError::Faulty => {}
                CliError::Store(damage) if damage.wants_a_new_file() => {
                    let remedy = "a controller that starts sets it aside, and begins a new one";
                    complain(&format!("{}; {remedy}", chain(damage)));
                }
                error => complain(&chain(error)),
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cli: &Cli) -> Result<(), CliError> {
    let json = cli.json;
    // `check` prints the faults itself; every other command needs a sound configuration.
    let config = || Config::load(cli.config.as_deref());
    match &cli.command {
        Command::Check => check::run(cli.config.as_deref(), json),
        Command::Run(run) => {
            crate::logging::start();
            Ok(crate::daemon::run(config()?, cli.config.as_deref(), run.options())?)
        }
        Command::Status => status::run(&client(&paths(cli)?), json),
        Command::List => list::run(&paths(cli)?, json),
        Command::Show { address } => show::run(&client(&paths(cli)?), *address, json),
        Command::Block(block) => block::block(&client(&paths(cli)?), block, json),
        Command::Unblock(unblock) => block::unblock(&client(&paths(cli)?), unblock, json),
        Command::Allow(command) => allow::run(&client(&paths(cli)?), command, json),
        Command::Confirm => allow::confirm(&client(&paths(cli)?), json),
        Command::Logtest { file, program } => {
            logtest::run(config()?, file.as_deref(), program.as_deref(), json)
        }
        Command::Replay(args) => replay::run(config()?, args, json),
        Command::Import(source) => import::run(source, json),
        Command::WazuhAr(args) => wazuh_ar::run(args, cli),
        Command::Doctor => doctor::run(cli.config.as_deref(), json),
        Command::LockAccount { state } => unlock::answer(state),
        Command::Unlock { user } => unlock::run(&client(&paths(cli)?), user, json),
        Command::Incidents(incidents) => incidents::run(&paths(cli)?, incidents, json),
        Command::VerifyRecord { head } => verify_record::run(&paths(cli)?, head, json),
        Command::Report(args) => report::run(&paths(cli)?, args, json),
        Command::Detach => detach::run(&paths(cli)?, json),
    }
}

/// Where the controller and its gate are. A fault elsewhere in the configuration must not keep an operator from lifting a
/// block.
fn paths(cli: &Cli) -> Result<Paths, CliError> {
    let (paths, faults) = Config::paths(cli.config.as_deref())?;
    if !faults.is_empty() {
        complain("the configuration is faulty (see `xdpban check`); this goes by its [paths] all the same");
    }
    Ok(paths)
}

fn client(paths: &Paths) -> Client {
    Client::new(&paths.runtime)
}

/// Says what is wrong.
fn complain(text: &str) {
    eprint(&format!("xdpban: {text}"));
}

/// Says where the record lacks what the controller could not write yet.
fn complain_of_unrecorded(paths: &Paths) {
    // Where no controller answers, nothing waits that could be told of.
    if let Some(why) = Client::new(&paths.runtime).status().ok().and_then(|status| status.unrecorded) {
        complain(&format!("what happened last is not on record yet, and not in this: {why}"));
    }
}

/// Writes a line to standard error.
fn eprint(text: &str) {
    // When standard error is gone, there is nobody left to tell.
    writeln!(anstream::stderr(), "{}", text.trim_end()).ok();
}

/// Prints one JSON document.
fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    // Standard output alone would be flushed at each of the many line ends.
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Prints one JSON document, an array, as its elements come.
fn print_json_array<T: Serialize>(
    elements: impl Iterator<Item = Result<T, CliError>>,
) -> Result<(), CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut serializer = serde_json::Serializer::pretty(&mut out);
    let mut array = serializer.serialize_seq(None).map_err(io::Error::from)?;
    for element in elements {
        array.serialize_element(&element?).map_err(io::Error::from)?;
    }
    array.end().map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Prints text, with its colours where standard output is a terminal.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Opens `path`, or standard input for `-`.
fn open(path: &Path) -> Result<Box<dyn io::BufRead>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = std::fs::File::open(path)
        .map_err(|source| CliError::Read { what: path.display().to_string(), source })?;
    Ok(Box::new(io::BufReader::with_capacity(256 * 1024, file)))
}
