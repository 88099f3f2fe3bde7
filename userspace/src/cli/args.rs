//! The command line as a user types it.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use crate::clock;
use crate::daemon::Options;
use crate::store::{Head, Outcome};

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
    ///
    /// One that a rule made was a mistake then, and counts as no offence of its source.
    Unblock(Unblock),
    /// What is never blocked: the allowlist, beside that of the configuration
    #[command(subcommand)]
    Allow(Allow),
    /// Have a controller that runs on trial go on for good
    Confirm,
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
    /// Turn another program's configuration into one of xdpban's, with comments on what has no counterpart
    #[command(subcommand)]
    Import(Import),
    /// Do what Wazuh's Active Response asks for on standard input, as its executable `firewall-drop` does
    #[command(name = "wazuh-ar")]
    WazuhAr(WazuhAr),
    /// Say whether this host can run xdpban, in which mode, and what stands in the way. Attaches nothing
    Doctor,
    /// Answer the event on standard input, for the controller: lock or unlock the account that it names
    #[command(hide = true)]
    LockAccount {
        /// The directory of the store
        #[arg(long, value_name = "DIRECTORY")]
        state: PathBuf,
    },
    /// Unlock an account that xdpban has locked, before its time
    Unlock {
        /// The account
        user: String,
    },
    /// Tell of incidents: what was done, to whom, why, and what came of it; the oldest first. Times are local ones with their
    /// offset from UTC; with --json in UTC
    Incidents(Incidents),
    /// Check that the record is what was written: find what was altered, removed, reordered or put in
    VerifyRecord {
        /// Check, too, that the record still has this head, as it was printed before and kept elsewhere
        #[arg(long, value_name = "SEQ:HASH")]
        head: Vec<Head>,
    },
    /// Make a report of what is on record: incidents and their outcomes, for auditors and for managers
    Report(Report),
    /// Take the program, its links and its maps off the host: nothing is blocked any longer
    Detach,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// Log what becomes of packets, a bounded number a second, for debugging
    #[arg(long)]
    pub(super) trace_packets: bool,
    /// Count what would be dropped, and drop nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take everything off the host again after this long, unless `xdpban confirm` comes before
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) trial: Option<Duration>,
}

impl Run {
    pub(super) fn options(&self) -> Options {
        Options { trace_packets: self.trace_packets, dry_run: self.dry_run, trial: self.trial }
    }
}

/// The commands of `allow`.
#[derive(Debug, Subcommand)]
pub(super) enum Allow {
    /// Never block these networks, and lift the blocks that they overlap
    Add {
        /// Addresses or prefixes
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<Target>,
        /// For how long, such as 12h or 7d [default: until removed]
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
        /// What they are
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        /// Also networks that hold half of all addresses or more, such as 0.0.0.0/0: hardly anything is blocked then
        #[arg(long)]
        all: bool,
    },
    /// Take networks off the allowlist
    Remove {
        /// Networks, as `xdpban allow list` prints them
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<Target>,
    },
    /// List what is allowed, by the configuration and by hand
    List,
    /// Say what protects an address from being blocked
    Check {
        /// An IPv4 or IPv6 address
        address: IpAddr,
    },
}

/// What `import` reads.
#[derive(Debug, Subcommand)]
pub(super) enum Import {
    /// Wazuh's (or OSSEC's) responses and white list
    Wazuh {
        /// Wazuh's configuration
        #[arg(value_name = "OSSEC.CONF")]
        file: PathBuf,
        /// Write to this file, which must not be there yet [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// fail2ban's jails for sshd
    Fail2ban {
        /// The directory of fail2ban's configuration
        #[arg(value_name = "DIR", default_value = "/etc/fail2ban")]
        directory: PathBuf,
        /// Write to this file, which must not be there yet [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Arguments of `wazuh-ar`.
#[derive(Debug, Args)]
pub(super) struct WazuhAr {
    /// The control socket [default: XDPBAN_SOCKET, or that of the configuration that --config names, or
    /// /run/xdpban/control.sock]
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// Where to write what happens [default: XDPBAN_AR_LOG, or /var/ossec/logs/active-responses.log]
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
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
    /// Let this many packets a second pass, such as 20/s, and drop those beyond
    #[arg(long, value_name = "RATE", value_parser = crate::config::parse_rate)]
    pub(super) throttle: Option<NonZeroU32>,
    /// With --throttle: packets that pass at once after a rest [default: as many as in a second]
    #[arg(long, value_name = "N", requires = "throttle")]
    pub(super) burst: Option<NonZeroU32>,
    /// Only packets to this port, of TCP or UDP; up to 8 times
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) ports: Vec<u16>,
    /// Only packets that open a TCP connection, so that answers to this host's own connections pass
    #[arg(long)]
    pub(super) new_only: bool,
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
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Read targets from a file, one a line, `#` begins a comment; `-` is standard input
    #[arg(long, group = "what", value_name = "FILE")]
    pub(super) from: Option<PathBuf>,
}

/// Arguments of `incidents`.
#[derive(Debug, Args)]
pub(super) struct Incidents {
    /// Those that began then or later: a day (2026-11-24), a month (2026-11), a time (2026-11-24T08:15, in local time where
    /// it has no zone), so long ago (7d), today, yesterday, or this or last with week, month, quarter or year
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Wall>,
    /// Those that began before the begin of that, in the same words
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Wall>,
    /// Those of an address, or within a network, and of networks around it
    #[arg(long, value_name = "ADDRESS|NETWORK")]
    pub(super) address: Option<Target>,
    /// Those of a rule
    #[arg(long, value_name = "ID")]
    pub(super) rule: Option<u32>,
    /// Those in which a user name was tried, which is compared as a whole
    #[arg(long, value_name = "NAME")]
    pub(super) user: Option<String>,
    /// Those that are in_force, expired, lifted, refused, failed or done
    #[arg(long, value_parser = outcome)]
    pub(super) outcome: Option<Outcome>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) limit: u32,
    /// Go on, and tell of each that begins or changes; with --json a line each
    #[arg(long, short)]
    pub(super) follow: bool,
}

fn time(text: &str) -> Result<Wall, String> {
    crate::period::begin(text, &clock::local(clock::now().wall)).map_err(|error| error.to_string())
}

fn outcome(text: &str) -> Result<Outcome, String> {
    Outcome::from_name(text).ok_or_else(|| {
        let names = Outcome::ALL.map(Outcome::name);
        format!("it is one of {}", names.join(", "))
    })
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// The begin: a day (2026-10-01), a month (2026-10), a time (2026-10-01T08:00, with or without zone), so long ago
    /// (30d), today, yesterday, or this or last with week, month, quarter or year [default: 30d]
    #[arg(long, value_name = "TIME")]
    pub(super) from: Option<String>,
    /// The end, in the same words; a day, month or year is included [default: now, or the end of what `--from` names by
    /// "yesterday" or "last"]
    #[arg(long, value_name = "TIME")]
    pub(super) to: Option<String>,
    /// The format [default: by the name of the file, else text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(super) format: Option<ReportFormat>,
    /// Where to write it, for its owner alone to read [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// How many incidents to list at most, the latest. csv has them all
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    pub(super) list: usize,
    /// Take days and show times in UTC and not in the zone of the host
    #[arg(long)]
    pub(super) utc: bool,
}

/// The formats of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// Plain text
    Text,
    /// Markdown, with tables
    Markdown,
    /// One file for browsers and printers
    Html,
    /// One document, for programs
    Json,
    /// Every incident, a line each
    Csv,
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
