//! Incidents as they happen, for others: JSON lines with the field names of ECS, to files, the journal and syslog.
//!
//! Each stream has a thread, which reads the record from the store and remembers there up to which record it has come. The
//! store is its queue: a stream whose sink stands still falls behind, on disk, and catches up; nothing waits for it, and
//! nothing is left out unless it is pruned first. A line can come twice when the controller is killed; its `event.id` is
//! the same then.

mod ecs;
mod sink;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::config::StreamConfig;
use crate::error::chain;
use crate::store::{Archive, StoreError};
use sink::Sink;

/// Records that are read at once.
const PART: u32 = 100;

/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// How often to look for records that nobody told of.
const LOOK: Duration = Duration::from_secs(10);

/// How long [`Stream::stop`] waits.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// What a stream has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Records up to this one have been written.
    Written {
        /// The stream.
        name: String,
        /// The number of the record.
        seq: i64,
    },
    /// Nothing can be written; it is tried again. Said once for each reason.
    Trouble {
        /// The stream.
        name: String,
        /// Why, in words.
        message: String,
    },
    /// It can be written again.
    Well {
        /// The stream.
        name: String,
    },
}

/// A stream that is being written.
#[derive(Debug)]
pub struct Stream {
    name: String,
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
    ended: Receiver<()>,
    thread: JoinHandle<()>,
}

/// Why a record could not be passed on.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("write incidents to {name}: {source}{}", remedy(name, source))]
    Sink {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// What to do where a stream's other end is not there, or refuses what is written.
fn remedy(name: &str, source: &io::Error) -> &'static str {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, ReadOnlyFilesystem};
    match (name, source.kind()) {
        ("journal", NotFound | ConnectionRefused) => {
            "; journald does not run on this host: start it, or take \"journal\" out of [record] stream"
        }
        ("syslog", NotFound | ConnectionRefused) => {
            "; nothing takes messages at /dev/log: start a syslog daemon, or take \"syslog\" out of [record] stream"
        }
        (_, NotFound) => "; make the directory that it is to lie in",
        (_, PermissionDenied | ReadOnlyFilesystem) => {
            "; the service may write below /var/log/xdpban, and elsewhere where ReadWritePaths= of its unit says so"
        }
        _ => "",
    }
}

impl Stream {
    /// Starts to write what happens from now on, or what has happened since the stream was last written, from the store in
    /// the directory `state`. It calls `say` with what it has to say.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn start(
        config: &StreamConfig,
        state: PathBuf,
        say: impl FnMut(Said) + Send + 'static,
    ) -> io::Result<Stream> {
        let (wake, woken) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            name: config.name(),
            sink: Sink::new(config),
            state,
            seq: None,
            in_trouble: None,
            stop: Arc::clone(&stop),
            woken,
            say: Box::new(say),
        };
        let thread = std::thread::Builder::new().name("stream".to_owned()).spawn(move || {
            worker.run();
            // Nobody listens where the daemon did not wait.
            end.send(()).ok();
        })?;
        Ok(Stream { name: config.name(), stop, wake, ended, thread })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What wakes it when there is something new: a message, of which one can wait.
    pub fn wake(&self) -> SyncSender<()> {
        self.wake.clone()
    }

    /// Has it write what there is, and ends it; waits for that for one second at most. What is left is written at the next
    /// start.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // Where a message waits already, it wakes as well.
        self.wake.try_send(()).ok();
        if self.ended.recv_timeout(STOP_WAIT).is_err() {
            log::warn!("{} is not written to its end; the rest follows at the next start", self.name);
        } else if self.thread.join().is_err() {
            log::error!("the thread of the stream to {} ended by a panic", self.name);
        }
    }
}

struct Worker {
    name: String,
    sink: Sink,
    state: PathBuf,
    /// The last record that was written; none before the store was asked.
    seq: Option<i64>,
    /// The reason that was last said.
    in_trouble: Option<String>,
    stop: Arc<AtomicBool>,
    woken: Receiver<()>,
    say: Box<dyn FnMut(Said) + Send>,
}

impl Worker {
    fn run(&mut self) {
        loop {
            let wait = match self.pass_on() {
                Ok(()) => {
                    if self.in_trouble.take().is_some() {
                        (self.say)(Said::Well { name: self.name.clone() });
                    }
                    LOOK
                }
                Err(error) => {
                    let message = chain(&error);
                    if self.in_trouble.as_ref() != Some(&message) {
                        self.in_trouble = Some(message.clone());
                        (self.say)(Said::Trouble { name: self.name.clone(), message });
                    }
                    RETRY
                }
            };
            if self.stop.load(Ordering::Acquire) || !self.wait(wait) {
                return;
            }
        }
    }

    /// Sleeps until there is something new; after a failure for all of `wait`. False when nobody wakes any more.
    fn wait(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            match self.woken.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(()) if self.in_trouble.is_some() && !self.stop.load(Ordering::Acquire) => {}
                Ok(()) | Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Writes all records that have not been written.
    fn pass_on(&mut self) -> Result<(), StreamError> {
        loop {
            // Opened for each part, since what is read is as it stood then.
            let archive = Archive::open(&self.state)?;
            let from = match self.seq {
                Some(seq) => seq,
                None => match archive.streamed(&self.name)? {
                    Some(seq) => seq,
                    None => archive.head()?.seq,
                },
            };
            let changes = archive.changes_after(from, PART)?;
            drop(archive);
            let mut written = from;
            let mut result = Ok(());
            self.sink.begin();
            for change in &changes {
                if let Some(line) = ecs::line(change) {
                    result = self.sink.write(&line);
                    if result.is_err() {
                        break;
                    }
                }
                written = change.seq;
            }
            if self.seq != Some(written) {
                self.seq = Some(written);
                (self.say)(Said::Written { name: self.name.clone(), seq: written });
            }
            result.map_err(|source| StreamError::Sink { name: self.name.clone(), source })?;
            if changes.len() < PART as usize {
                return Ok(());
            }
        }
    }
}
