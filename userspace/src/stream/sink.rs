//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
use crate::config::StreamConfig;

/// Where journald takes entries (sd_journal_send(3); its protocol is that of systemd.io/JOURNAL_NATIVE_PROTOCOL).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where the syslog daemon takes messages.
const SYSLOG: &str = "/dev/log";

/// Facility daemon, severity notice, as RFC 3164 counts them.
const PRIORITY: u8 = 3 * 8 + 5;

/// How long a daemon that is busy is waited for.
const BUSY: Duration = Duration::from_secs(1);

pub(super) enum Sink {
    File { path: PathBuf, open: Option<File> },
    Journal(Option<UnixDatagram>),
    Syslog(Option<UnixDatagram>),
}

impl Sink {
    pub(super) fn new(config: &StreamConfig) -> Sink {
        match config {
            StreamConfig::File(path) => Sink::File { path: path.clone(), open: None },
            StreamConfig::Journal => Sink::Journal(None),
            StreamConfig::Syslog => Sink::Syslog(None),
        }
    }

    /// Called before some lines are written: a file that was rotated is left for the one that has its name.
    pub(super) fn begin(&mut self) {
        if let Sink::File { path, open } = self
            && !open.as_ref().is_some_and(|file| is_at(file, path))
        {
            *open = None;
        }
    }

    /// Writes a line, which has no end and no line end in it: all of it, or, where it fails, nothing.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let written = match self {
            Sink::File { path, open } => to_file(open, path, line),
            Sink::Journal(socket) => send(socket, JOURNAL, &entry(line)),
            Sink::Syslog(socket) => send(socket, SYSLOG, &message(line)),
        };
        if written.is_err() {
            match self {
                Sink::File { open, .. } => *open = None,
                Sink::Journal(socket) | Sink::Syslog(socket) => *socket = None,
            }
        }
        written
    }
}

/// Whether `file` is the one that `path` leads to.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(file), Ok(path)) = (file.metadata(), path.metadata()) else { return false };
    (file.dev(), file.ino()) == (path.dev(), path.ino())
}

fn to_file(open: &mut Option<File>, path: &Path, line: &str) -> io::Result<()> {
    let file = match open {
        Some(file) => file,
        None => open.insert(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?),
    };
    let before = file.metadata()?.len();
    file.write_all(format!("{line}\n").as_bytes()).inspect_err(|_| {
        // Half a line, as a full disk leaves it, would spoil the next one. Should this fail, too, nothing better is left.
        file.set_len(before).ok();
    })
}

fn send(socket: &mut Option<UnixDatagram>, path: &str, message: &[u8]) -> io::Result<()> {
    let socket = match socket {
        Some(socket) => socket,
        None => {
            let new = UnixDatagram::unbound()?;
            new.set_write_timeout(Some(BUSY))?;
            new.connect(path)?;
            socket.insert(new)
        }
    };
    socket.send(message).map(|_| ())
}

/// An entry of the journal.
fn entry(line: &str) -> Vec<u8> {
    format!("MESSAGE={line}\nPRIORITY={}\nSYSLOG_IDENTIFIER=xdpban\nSYSLOG_FACILITY=3\n", PRIORITY & 7)
        .into_bytes()
}

/// A message of RFC 3164, as glibc's syslog(3) writes it: without a host name, which the daemon knows.
fn message(line: &str) -> Vec<u8> {
    let stamp = clock::syslog_stamp(clock::now().wall);
    format!("<{PRIORITY}>{stamp} xdpban[{}]: {line}", std::process::id()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_followed_through_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("incidents.json");
        let mut sink = Sink::new(&StreamConfig::File(path.clone()));
        for (line, rotate) in [("a", false), ("b", true), ("c", false)] {
            sink.begin();
            sink.write(line).unwrap();
            if rotate {
                std::fs::rename(&path, directory.path().join("incidents.json.1")).unwrap();
            }
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n");
        assert_eq!(std::fs::read_to_string(directory.path().join("incidents.json.1")).unwrap(), "a\nb\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_and_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("there/incidents.json");
        let mut sink = Sink::new(&StreamConfig::File(path.clone()));
        assert_eq!(sink.write("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        sink.write("a").unwrap();
        let mut full = Sink::new(&StreamConfig::File("/dev/full".into()));
        assert_eq!(full.write("a").unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_daemon_gets_a_datagram_for_each_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut socket = None;
        let mut received = [0; 200];
        for line in ["{\"a\":1}", "{\"b\":2}"] {
            send(&mut socket, path.to_str().unwrap(), &message(line)).unwrap();
            let length = daemon.recv(&mut received).unwrap();
            let text = std::str::from_utf8(&received[..length]).unwrap();
            assert!(
                text.starts_with("<29>")
                    && text.ends_with(&format!(" xdpban[{}]: {line}", std::process::id())),
                "{text}"
            );
        }
        assert_eq!(entry("{}"), b"MESSAGE={}\nPRIORITY=5\nSYSLOG_IDENTIFIER=xdpban\nSYSLOG_FACILITY=3\n");
    }
}
