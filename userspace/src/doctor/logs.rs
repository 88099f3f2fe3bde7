//! Whether there is something to read.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use super::setup::Setup;
use super::{Check, State};
use crate::config::SourceConfig;
use crate::{human, source};

const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
const SSHD_CONFIG_DIRECTORY: &str = "/etc/ssh/sshd_config.d";

/// Levels of sshd_config(5) at which failed logins are not told of.
const TOO_QUIET: [&str; 3] = ["quiet", "fatal", "error"];

pub(super) fn examine(setup: &Setup, checks: &mut Vec<Check>) {
    let Some(config) = &setup.config else { return };
    let sources = match config.sources.is_empty() {
        true => source::find_default(config.policy.decoders.programs()),
        false => config.sources.clone(),
    };
    checks.extend(sources.iter().map(|source| match source {
        SourceConfig::File { path, .. } | SourceConfig::WazuhAlerts { path } => file(path),
        SourceConfig::Journal { .. } => journal(),
    }));
    checks.extend(sshd());
}

fn file(path: &Path) -> Check {
    let name = path.display().to_string();
    let metadata = File::open(path).and_then(|file| file.metadata());
    match metadata {
        Ok(metadata) if metadata.is_file() => {
            let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            let last = age.map_or("just now".to_owned(), |age| format!("{} ago", human::duration(age)));
            let finding = format!("{}, last written {last}", human::bytes(metadata.len()));
            Check::ok("source", name, finding)
        }
        Ok(_) => Check::new("source", name, State::Obstacle, "it is no file").remedy("path of [[source]]"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::new("source", name, State::Warning, "not there yet; it is waited for, and nothing is read")
                .remedy("systemctl start rsyslog, or kind = \"journal\" in [[source]]")
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Check::new("source", name, State::Unknown, "this user may not read it")
                .remedy("sudo xdpban doctor")
        }
        Err(error) => Check::new("source", name, State::Obstacle, error.to_string()),
    }
}

fn journal() -> Check {
    // One entry, since the exit code alone does not tell of a lack of permission.
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["--quiet", "--no-pager", "--lines=1", "--output=short-iso"]).stdin(Stdio::null());
    match journalctl.output() {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let line = String::from_utf8_lossy(&output.stdout);
            let stamp = line.split_whitespace().next().unwrap_or_default();
            Check::ok("source", "journal", format!("readable, last entry {stamp}"))
        }
        Ok(_) => Check::new("source", "journal", State::Warning, "no entry that this user may read")
            .remedy("sudo xdpban doctor; systemctl status systemd-journald"),
        Err(error) => {
            Check::new("source", "journal", State::Obstacle, format!("journalctl does not start: {error}"))
                .remedy("apt install systemd, or kind = \"file\" in [[source]]")
        }
    }
}

/// Whether sshd tells of failed logins. None where there is no sshd, or its configuration cannot be read.
fn sshd() -> Option<Check> {
    let mut files: Vec<_> = fs::read_dir(SSHD_CONFIG_DIRECTORY)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    // Debian and Red Hat include that directory at the head of the main file, and the first setting holds.
    files.push(SSHD_CONFIG.into());
    let texts: Vec<String> = files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    if texts.is_empty() {
        return None;
    }
    let level = texts.iter().find_map(|text| log_level(text)).unwrap_or_else(|| "INFO".to_owned());
    let check = Check::ok("source", "sshd", format!("LogLevel {level}"));
    Some(match TOO_QUIET.contains(&level.to_lowercase().as_str()) {
        true => Check {
            state: State::Warning,
            finding: format!(
                "LogLevel {level}: failed logins are not logged, so that there is nothing to answer"
            ),
            ..check
        }
        .remedy(format!("LogLevel INFO in {SSHD_CONFIG}, then systemctl reload ssh")),
        false => check,
    })
}

/// The level that a file of sshd_config(5) sets for everybody.
fn log_level(text: &str) -> Option<String> {
    for line in text.lines() {
        let mut words = line.split(|c: char| c.is_whitespace() || c == '=').filter(|word| !word.is_empty());
        match words.next().map(str::to_lowercase).as_deref() {
            Some("match") => return None,
            Some("loglevel") => return words.next().map(|level| level.trim_matches('"').to_owned()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_level_outside_of_match_holds() {
        assert_eq!(
            log_level("Port 22\n#LogLevel DEBUG\n LogLevel  VERBOSE\nLogLevel QUIET\n").unwrap(),
            "VERBOSE"
        );
        assert_eq!(log_level("loglevel=quiet\n").unwrap(), "quiet");
        assert_eq!(log_level("Match User bob\n  LogLevel QUIET\n"), None);
        assert_eq!(log_level(""), None);
    }

    #[test]
    fn a_file_is_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.log");
        assert_eq!(file(&path).state, State::Warning);
        fs::write(&path, "x").unwrap();
        assert_eq!(file(&path).state, State::Ok);
        assert_eq!(file(directory.path()).state, State::Obstacle);
    }
}
