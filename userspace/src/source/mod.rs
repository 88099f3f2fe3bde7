//! Sources of log records. Each runs on a thread of its own, since files cannot be read without blocking, and hands
//! batches to the daemon through a bounded channel; when the channel is full the source waits, and its log waits in the file.

mod alert;
mod defaults;
mod file;
mod follower;
mod journal;
mod lines;
mod outbox;

use std::fmt;
use std::io;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use xdpban_engine::record::{Format, Record};
use xdpban_engine::time::{Mono, Now, Wall};

use crate::config::SourceConfig;

pub use alert::Alert;
pub use defaults::find_default;
pub use lines::lines;
use outbox::Outbox;

/// Some records of one source, and where reading went on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which source of the configuration, by its place there.
    pub source: usize,
    /// The records.
    pub records: Records,
    /// The position after these records: what to start from another time. Saved together with what they led to.
    pub position: Position,
    /// When they were read.
    pub read_at: Mono,
    /// Whether they were written just now: the source had read everything before them, and waited.
    pub live: bool,
    /// Lines among them that were longer than [`MAX_LINE`] and were cut, and journal entries that could not be read.
    pub cut: u32,
}

/// Records as their source gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Whole lines, each ended by `\n`, none longer than [`MAX_LINE`]. Any other byte may stand in them.
    Lines(Bytes),
    /// Entries of the journal.
    Journal(Vec<JournalEntry>),
}

/// The fields of a journal entry that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalEntry {
    /// `SYSLOG_IDENTIFIER`, or `_COMM` where that is missing.
    pub identifier: String,
    /// `_PID` (or `SYSLOG_PID`).
    pub pid: Option<u32>,
    /// `_HOSTNAME`.
    pub host: String,
    /// `__REALTIME_TIMESTAMP`, in microseconds since the epoch.
    pub realtime: Option<i64>,
    /// `MESSAGE`: a string, or an array of bytes where it is not UTF-8.
    pub message: Bytes,
}

impl JournalEntry {
    /// Reads an entry as `journalctl --output=json` prints it; none where `line` is none.
    pub fn parse(line: &[u8]) -> Option<JournalEntry> {
        line.starts_with(b"{").then(|| journal::entry(line)).flatten()
    }

    /// The entry as the decoder takes it.
    pub fn record(&self) -> Record<'_> {
        Record {
            time: self.realtime.map(Wall),
            host: self.host.as_bytes(),
            program: self.identifier.as_bytes(),
            pid: self.pid,
            message: &self.message,
        }
    }

    /// The entry as a line of a log, for evidence.
    pub fn line(&self) -> Vec<u8> {
        let pid = self.pid.map_or(String::new(), |pid| format!("[{pid}]"));
        [format!("{} {}{pid}: ", self.host, self.identifier).as_bytes(), &self.message].concat()
    }
}

/// The longest line that is read, in bytes, without its end. What goes beyond is skipped, and the line is counted as cut.
pub const MAX_LINE: usize = 64 * 1024;

/// Where reading stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// In a file: which one (it may have been renamed since), and the offset of the first byte not yet read.
    File {
        /// The device that holds it.
        device: u64,
        /// Its inode.
        inode: u64,
        /// The offset.
        offset: u64,
        /// A hash of the file's first bytes (up to 256 before `offset`), since inodes are used again.
        head: u64,
    },
    /// In the journal: its cursor.
    Journal {
        /// As `journalctl` prints it.
        cursor: String,
    },
}

/// What a source has to say of itself beside records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Records.
    Batch(Batch),
    /// It waits (the file does not exist, the journal ended), or could not read; in words, for status and the log.
    Trouble {
        /// Which source.
        source: usize,
        /// What is in the way, with the remedy where one is known.
        message: String,
    },
    /// What was in the way is gone.
    Well {
        /// Which source.
        source: usize,
    },
}

impl SourceConfig {
    /// The key of the source's position in the store.
    pub fn key(&self) -> String {
        match self {
            SourceConfig::File { path, .. } => format!("file:{}", path.display()),
            SourceConfig::Journal { .. } => "journal".to_owned(),
            SourceConfig::WazuhAlerts { path } => format!("wazuh-alerts:{}", path.display()),
        }
    }

    /// What a line of the source says of itself.
    pub fn record<'a>(&'a self, line: &'a [u8], now: &Now) -> Record<'a> {
        match self {
            SourceConfig::File { format: Format::Bare, program: Some(program), .. } => {
                Record::of_program(line, program.as_bytes(), now)
            }
            SourceConfig::File { format, .. } => Record::parse(line, *format, now),
            // The lines of alerts are read as such before.
            SourceConfig::Journal { .. } | SourceConfig::WazuhAlerts { .. } => {
                Record::parse(line, Format::Syslog, now)
            }
        }
    }
}

impl fmt::Display for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceConfig::File { path, .. } => path.display().fmt(f),
            SourceConfig::Journal { .. } => f.write_str("the journal"),
            SourceConfig::WazuhAlerts { path } => path.display().fmt(f),
        }
    }
}

/// How long [`Running::stop`] waits for the thread.
const STOP_WAIT: Duration = Duration::from_millis(200);

/// A source at work. It stops when this is dropped, too, but then nobody waits for it.
#[derive(Debug)]
pub struct Running {
    stop: Stop,
    begun: Option<oneshot::Receiver<()>>,
    ended: std_mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

/// Ends a source when it is dropped: the pipe wakes it from `poll(2)`, the channel from waiting for the daemon.
#[derive(Debug)]
struct Stop {
    _wake: io::PipeWriter,
    _cancel: oneshot::Sender<()>,
}

/// The source did not stop in time; its thread ends by itself when the call returns that it hangs in.
#[derive(Debug, thiserror::Error)]
#[error("the source is still at work after {} ms; it is left behind, reading nothing more", STOP_WAIT.as_millis())]
pub struct StillRunning;

impl Running {
    /// Waits until it is settled where reading begins, so that what is logged from then on is read; or until the source
    /// found that it cannot be read yet. That is soon, unless what is to be opened hangs.
    pub async fn begun(&mut self) {
        if let Some(begun) = self.begun.take() {
            // Its other end is dropped as the sign.
            begun.await.ok();
        }
    }

    /// Asks the thread to end and waits for it, 200 ms at most. A batch that the daemon has not taken by then is
    /// dropped: its position was not saved either.
    ///
    /// # Errors
    /// The thread hangs, as in a read from a network file system whose server is gone.
    pub fn stop(self) -> Result<(), StillRunning> {
        drop(self.stop);
        match self.ended.recv_timeout(STOP_WAIT) {
            Err(std_mpsc::RecvTimeoutError::Timeout) => Err(StillRunning),
            Ok(()) | Err(std_mpsc::RecvTimeoutError::Disconnected) => {
                if self.thread.join().is_err() {
                    log::error!("a source ended by a panic; what it said of it stands above");
                }
                Ok(())
            }
        }
    }
}

/// Starts a source. It reads on from `from`, or, without it, takes only what is logged from here on. What it reads
/// arrives at `reports`; while that is full the source waits.
///
/// # Errors
/// The thread, or the pipe that stops it, could not be made. What stands in the way of reading is no error but a
/// [`Report::Trouble`].
pub fn start(
    index: usize,
    config: &SourceConfig,
    from: Option<Position>,
    reports: mpsc::Sender<Report>,
) -> io::Result<Running> {
    match config {
        SourceConfig::File { path, .. } | SourceConfig::WazuhAlerts { path } => {
            let path = path.clone();
            spawn("source-file", index, reports, move |outbox, wake| file::run(&path, from, outbox, wake))
        }
        SourceConfig::Journal { programs } => {
            let query = journal::Query { journalctl: "journalctl".into(), programs: programs.clone() };
            spawn("source-journal", index, reports, move |outbox, wake| {
                journal::run(&query, from, outbox, wake)
            })
        }
    }
}

fn spawn(
    name: &str,
    index: usize,
    reports: mpsc::Sender<Report>,
    run: impl FnOnce(&mut Outbox, &io::PipeReader) + Send + 'static,
) -> io::Result<Running> {
    let (woken, wake) = io::pipe()?;
    let (cancel, cancelled) = oneshot::channel();
    let (beginning, begun) = oneshot::channel();
    let mut outbox = Outbox::new(index, reports, cancelled, beginning)?;
    let (end, ended) = std_mpsc::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Dropped when the thread ends, however it ends.
        let _end = end;
        run(&mut outbox, &woken);
    })?;
    Ok(Running { stop: Stop { _wake: wake, _cancel: cancel }, begun: Some(begun), ended, thread })
}
