//! The command line as a user types it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use xdpban_engine::target::Target;

/// Blocks the sources of attacks in the kernel, at the network driver.
#[derive(Debug, Parser)]
#[command(name = "xdpban", version, about, max_term_width = 100)]
pub(super) struct Cli {
    /// The configuration [default: /etc/xdpban/config.toml, where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// What to do
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the controller in the foreground
    Run(Run),
    /// Validate the configuration and the rules, and print every fault
    Check,
    /// Say how the controller stands: interfaces, sources, counts, health
    Status,
    /// List what is blocked
    List,
    /// Say whether an address would pass, and why
    Show {
        /// An IPv4 or IPv6 address
        address: IpAddr,
    },
    /// Block addresses or prefixes by hand
    Block(Block),
    /// Lift blocks
    Unblock(Unblock),
    /// Explain log lines: what each is understood as, and what would be done. Touches nothing
    Logtest {
        /// The lines [default: standard input]
        file: Option<PathBuf>,
        /// The lines have no header and are messages of this program, as with `format = "bare"`
        #[arg(long, value_name = "NAME")]
        program: Option<String>,
    },
    /// Run the present rules over past logs: who would have been blocked, and what that would have stopped
    Replay(Replay),
    /// Take the program, its links and its maps off the host: nothing is blocked any longer
    Detach,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Log what becomes of packets, a bounded number a second, for debugging
    #[arg(long)]
    pub(super) trace_packets: bool,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// Logs, plain or compressed with gzip, read in the order of their times; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// The lines have no header: each is a message of sshd, as `sshd -E` writes them
    #[arg(long)]
    pub(super) bare: bool,
}

/// Arguments of `block`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct Block {
    /// Addresses (203.0.113.7) or prefixes (203.0.113.0/24, 2001:db8:1:2::/64)
    #[arg(group = "what", value_name = "TARGET")]
    pub(super) targets: Vec<Target>,
    /// For how long, such as 100s, 10m or 1d [default: until unblocked]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Read targets from a file, one a line, `#` begins a comment; `-` is standard input
    #[arg(long, group = "what", value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
}

/// Arguments of `unblock`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(super) struct Unblock {
    /// Addresses or prefixes, as `xdpban list` prints them
    #[arg(group = "what", value_name = "TARGET")]
    pub(super) targets: Vec<Target>,
    /// Everything that is blocked
    #[arg(long, group = "what", conflicts_with_all = ["targets", "from"])]
    pub(super) all: bool,
    /// Read targets from a file, one a line, `#` begins a comment; `-` is standard input
    #[arg(long, group = "what", value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::config::duration::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
