//! The command `xdpban`: the controller and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    xdpban::cli::main()
}
