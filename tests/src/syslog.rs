//! A syslog daemon of the lab's own, at the `/dev/log` that the guarded host sees: what sshd logs through syslog(3) reaches a file with
//! the headers that real log files have.

use std::fs::{self, Permissions};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

use crate::log_file::LogFile;

/// The host name in the log's lines.
const HOST_NAME: &str = "guarded";

/// The daemon; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Syslog {
    socket: UnixDatagram,
    receiver: Option<JoinHandle<Result<()>>>,
}

impl Syslog {
    /// Binds the socket that programs log to; in the mount namespace of the caller.
    pub(crate) fn bind(path: &Path) -> Result<UnixDatagram> {
        let socket = UnixDatagram::bind(path).with_context(|| format!("bind {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o666))
            .with_context(|| format!("open {} to all", path.display()))?;
        Ok(socket)
    }

    /// Writes what arrives at `socket` to `log`.
    pub(crate) fn start(socket: UnixDatagram, log: Arc<LogFile>) -> Result<Syslog> {
        let incoming = socket.try_clone().context("share the syslog socket")?;
        let receiver = Some(thread::spawn(move || receive(&incoming, &log)));
        Ok(Syslog { socket, receiver })
    }

    fn stop(&mut self) -> Result<()> {
        let Some(receiver) = self.receiver.take() else { return Ok(()) };
        self.socket.shutdown(Shutdown::Both).context("shut the syslog socket")?;
        receiver.join().map_err(|_| anyhow!("it panicked"))?
    }
}

impl Drop for Syslog {
    #[allow(clippy::print_stderr, reason = "a destructor has no other way to tell")]
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("the lab's syslog: {error:#}");
        }
    }
}

fn receive(socket: &UnixDatagram, log: &LogFile) -> Result<()> {
    let mut datagram = vec![0; 64 * 1024];
    loop {
        match socket.recv(&mut datagram).context("receive from /dev/log")? {
            // Shut down, or a datagram of no bytes, which nobody sends.
            0 => return Ok(()),
            length => log.append(&line(datagram.get(..length).unwrap_or_default()))?,
        }
    }
}

/// The line that rsyslog's traditional file format makes of a datagram of syslog(3), which is `<38>Nov  3 08:05:01 sshd[123]: text`: the
/// priority goes, the host name comes in after the 15 characters of the time, and control characters are written in octal.
fn line(datagram: &[u8]) -> Vec<u8> {
    const TIME: usize = "Nov  3 08:05:01 ".len();
    let text = datagram.trim_ascii_end();
    let text = match text.iter().position(|byte| *byte == b'>') {
        Some(end) if text.starts_with(b"<") => text.get(end + 1..).unwrap_or_default(),
        _ => text,
    };
    let (time, message) = text.split_at(TIME.min(text.len()));
    let mut line = [time, HOST_NAME.as_bytes(), b" "].concat();
    for byte in message {
        match byte {
            0..0x20 | 0x7f => line.extend_from_slice(format!("#{byte:03o}").as_bytes()),
            _ => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_lines_as_rsyslog_does() {
        assert_eq!(
            line(b"<38>Nov  3 08:05:01 sshd[123]: Invalid user a\tb from 10.0.0.9 port 1\n"),
            b"Nov  3 08:05:01 guarded sshd[123]: Invalid user a#011b from 10.0.0.9 port 1\n"
        );
        assert_eq!(line(b""), b"guarded \n");
    }
}
