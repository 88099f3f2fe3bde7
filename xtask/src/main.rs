//! `cargo xtask`: builds, runs, shows and tests xdpban. A dispatch table; each command stands in the file of its name.

#![allow(clippy::print_stderr, reason = "a tool of the command line says what it does on stderr")]

mod apt;
mod bench;
mod bpf;
mod build;
mod demo;
mod kernels;
mod licences;
mod linker;
mod lint;
mod process;
mod programs;
mod root;
mod run;
mod setup;
mod step;
mod test;
mod toolchain;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Builds, runs and tests xdpban")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build target/release/xdpban, with the BPF program inside
    Build,
    /// Build, then run the controller as root with these arguments
    Run {
        /// Arguments of `xdpban run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Show the main job in a lab on this machine, as a story; asks sudo for root
    Demo,
    /// Run every test; asks sudo for root
    Test {
        /// Run only the tests whose names contain this
        filter: Option<String>,
        /// Run the gate's tests, and the one that sets the clock, on Debian's kernels in qemu: 5.10, 6.1, 6.12, or all without a value
        #[arg(long, value_name = "VERSION", num_args = 0.., value_delimiter = ',')]
        kernels: Option<Vec<String>>,
    },
    /// Measure
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Check format, lints, licences and Cargo.lock
    Lint,
    /// Get what building and testing need beside Rust
    Setup,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Build => build::build().map(drop),
        Command::Run { args } => run::run(&args),
        Command::Demo => demo::demo(),
        Command::Test { filter, kernels: Some(kernels) } => kernels::test(&kernels, filter.as_deref()),
        Command::Test { filter, kernels: None } => test::test(filter.as_deref()),
        Command::Bench { what } => bench::bench(&what),
        Command::Lint => lint::lint(),
        Command::Setup => setup::setup(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
