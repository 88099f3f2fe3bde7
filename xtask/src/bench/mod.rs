//! `cargo xtask bench`: measurements that the documents quote. One file per command.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

mod detect;
mod gate;
mod log;
mod record;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Measure how fast lines are detected in, beside sshguard and fail2ban
    Detect {
        /// Lines of the log that is made up for it
        #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
        lines: u64,
        /// The log to measure on, made up where there is none [default: a temporary one]
        #[arg(long, value_name = "FILE")]
        log: Option<PathBuf>,
    },
    /// Measure how fast blocked packets are dropped, beside netfilter, and what clean ones pay; as root
    Gate(gate::Options),
    /// Measure how fast the record is read where there is a million incidents on it; as root
    Record(record::Options),
    /// Measure how long many blocks take to be made, put on record, restored and swept; as root
    Load {
        /// How many targets
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=1 << 20))]
        targets: u32,
        /// The binary to measure [default: the release build of this tree]
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
}

pub(crate) fn bench(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Detect { lines, log } => detect::detect(*lines, log.as_deref()),
        Bench::Gate(options) => gate::gate(options),
        Bench::Record(options) => record::record(options),
        Bench::Load { targets, binary } => gate::load(*targets, binary.as_deref()),
    }
}
