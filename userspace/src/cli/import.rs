//! `xdpban import`

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use super::args::Import;
use super::{CliError, print};
use crate::human;
use crate::import::{fail2ban, wazuh};

pub(super) fn run(import: &Import, json: bool) -> Result<(), CliError> {
    if json {
        let message = "`import` writes a configuration, which is TOML with comments; leave out --json";
        return Err(CliError::Usage(message.to_owned()));
    }
    let (text, output) = match import {
        Import::Wazuh { file, output } => (wazuh::import(file)?, output),
        Import::Fail2ban { directory, output } => (fail2ban::import(directory)?, output),
    };
    match output {
        None => print(&text),
        Some(path) => write(path, &text),
    }
}

/// Writes a file that is not there yet: one that is may be a configuration in use.
fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            CliError::Refused(format!("{} is there already; move it away, or name another", path.display()))
        }
        _ => CliError::Write { what: path.display().to_string(), source: error },
    })?;
    let left = text.lines().filter(|line| line.starts_with("# Left out")).count();
    print(&format!(
        "{} written; {} left out, see the comments in it\n",
        path.display(),
        human::counted(left as u64, "thing")
    ))
}
