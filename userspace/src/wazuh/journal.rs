//! Wazuh's `active-responses.log`, in the form in which its own programs write it and its decoder `ar_log_json` reads it:
//! `2026/05/03 07:18:04 active-response/bin/firewall-drop: ` and a message, in local time.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::clock;

/// Where the executables stand in Wazuh's directory, also in the lines of the log.
const PLACE: &str = "active-response/bin";

/// The log in Wazuh's directory.
const LOG: &str = "logs/active-responses.log";

/// Wazuh's directory, where the way in which the program was started does not tell it.
const HOME: &str = "/var/ossec";

/// The most of a message that is written: more than Wazuh reads of a line.
const MAX_MESSAGE: usize = 64 << 10;

/// The log of Active Responses.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    name: String,
}

impl Journal {
    /// The log `given`, or that of the Wazuh in whose directory the program `started` stands. `name` is that of the executable
    /// in the lines.
    pub(super) fn open(given: Option<&Path>, started: &Path, name: &str) -> Journal {
        let path = given.map_or_else(|| home(started).join(LOG), Path::to_owned);
        Journal { path, name: format!("{PLACE}/{name}") }
    }

    /// Writes a message. What is asked for is done also where the log cannot be written, and standard error says so.
    pub(super) fn write(&self, message: &str) {
        let line = self.line(message);
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            // Where standard error is gone, too, there is nobody left to tell.
            writeln!(io::stderr(), "xdpban: write to {}: {error}", self.path.display()).ok();
        }
    }

    /// Writes a line of Wazuh's as it came.
    pub(super) fn write_raw(&self, line: &[u8]) {
        self.write(&String::from_utf8_lossy(line));
    }

    fn line(&self, message: &str) -> String {
        let end =
            (0..=MAX_MESSAGE.min(message.len())).rfind(|&end| message.is_char_boundary(end)).unwrap_or(0);
        // A line end within a message would let its writer begin a line of the log.
        let message: String =
            message[..end].trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{} {}: {message}\n", clock::log_stamp(clock::now().wall), self.name)
    }
}

/// The directory that `…/active-response/bin/NAME` stands in: an empty path where that is the current one.
fn home(started: &Path) -> PathBuf {
    let above = started.parent().filter(|parent| parent.ends_with(PLACE));
    match above.and_then(Path::parent).and_then(Path::parent) {
        Some(home) => home.to_owned(),
        None => HOME.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_log_beside_the_executable() {
        for (started, log) in [
            ("/opt/wazuh/active-response/bin/firewall-drop", "/opt/wazuh/logs/active-responses.log"),
            ("active-response/bin/firewall-drop", "logs/active-responses.log"),
            ("/usr/bin/xdpban", "/var/ossec/logs/active-responses.log"),
            ("firewall-drop", "/var/ossec/logs/active-responses.log"),
        ] {
            assert_eq!(Journal::open(None, Path::new(started), "x").path, Path::new(log), "{started}");
        }
        let given = Journal::open(Some(Path::new("/tmp/log")), Path::new("bin/firewall-drop"), "x");
        assert_eq!(given.path, Path::new("/tmp/log"));
    }

    #[test]
    fn a_message_is_one_line() {
        let journal = Journal::open(None, Path::new(""), "firewall-drop");
        let line = journal.line("a\nb\r\u{1b}[1m\u{85}c\n");
        let (stamp, rest) = line.split_at(19);
        assert_eq!(rest, " active-response/bin/firewall-drop: a b  [1m c\n");
        let form: String = stamp.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(form, "9999/99/99 99:99:99");
        assert!(journal.line(&"é".repeat(MAX_MESSAGE)).len() < MAX_MESSAGE + 100);
    }
}
