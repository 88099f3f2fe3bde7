//! The thread that owns the store.
//!
//! The daemon hands writes over without ever waiting: they are put into a queue that both sides share, which is a channel
//! with a policy of its own for when it is full (see [`super::queue`]). The thread takes all that waits and writes it in
//! one transaction. What could not be written it keeps, and tries again every second; meanwhile the queue fills, up to its
//! bound.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::queue::Queue;
use super::{Act, Head, Incident, IncidentQuery, Keep, Pruned, Store, StoreError, Write};
use crate::clock;
use crate::error::chain;

/// How long writes are gathered before they are written, so that a flood of attacks makes few transactions.
const GATHER: Duration = Duration::from_millis(20);

/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// How long after the start, and how often, to look for what is to be kept no longer.
const PRUNE_FIRST: Duration = Duration::from_secs(10);
const PRUNE: Duration = Duration::from_secs(60);

/// How long to leave to writes between two steps of pruning.
const PRUNE_PAUSE: Duration = Duration::from_millis(100);

/// How long [`Writer::close`] waits.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// How many questions can wait.
const MAX_QUESTIONS: usize = 64;

/// The daemon's end: what it is given is written in order. Dropped without [`Writer::close`], it has what waits written,
/// and nobody waits for that.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    ended: mpsc::Receiver<usize>,
    thread: Option<JoinHandle<()>>,
}

/// Asks the thread that owns the store. Any task can have one.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// How the store does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing can be written; it is tried again every second. Said once for each reason.
    Failing {
        /// Why, in words, and what to do.
        message: String,
    },
    /// Everything that waited has been written.
    Recovered,
}

/// Not everything was written before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} records could not be written to the store before the controller ended; what led to them is read again from the logs at the next start"
)]
pub struct Unwritten {
    /// How many.
    pub count: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    keep: Keep,
    head: Head,
    wakes: Vec<mpsc::SyncSender<()>>,
    questions: VecDeque<Question>,
    /// The daemon wants the thread to end.
    closing: bool,
    /// The thread has ended.
    closed: bool,
}

#[derive(Debug)]
struct Question {
    query: IncidentQuery,
    answer: oneshot::Sender<Result<Vec<Incident>, StoreError>>,
}

impl Writer {
    /// Hands the store to a thread, which keeps what `keep` says. It calls `health` when writing fails, when it fails for another reason, and when it
    /// works again.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn start(
        store: Store,
        keep: Keep,
        health: impl FnMut(Health) + Send + 'static,
    ) -> io::Result<Writer> {
        let shared = Arc::new(Shared::default());
        *shared.lock() = State { keep, head: store.head(), ..State::default() };
        let (end, ended) = mpsc::channel();
        let worker = Worker {
            store,
            shared: Arc::clone(&shared),
            batch: Vec::new(),
            retry: None,
            prune: Instant::now() + PRUNE_FIRST,
            lost: 0,
            said: None,
            health: Box::new(health),
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            let unwritten = worker.run();
            // Nobody listens where the daemon did not wait.
            end.send(unwritten).ok();
        })?;
        Ok(Writer { shared, ended, thread: Some(thread) })
    }

    /// Has `writes` written, soon and in one transaction. Never waits. When the store cannot be written for so long that
    /// 65,536 writes wait, the oldest are given up for new ones, and counted; of positions and of readings of counters
    /// only the latest are kept.
    pub fn record(&self, writes: impl IntoIterator<Item = Write>) {
        let mut state = self.shared.lock();
        writes.into_iter().for_each(|write| state.queue.push(write));
        drop(state);
        self.shared.changed.notify_one();
    }

    /// How many writes were given up since the start.
    pub fn given_up(&self) -> u64 {
        self.shared.lock().queue.given_up()
    }

    /// Changes what is kept.
    pub fn keep(&self, keep: Keep) {
        self.shared.lock().keep = keep;
    }

    /// The latest record.
    pub fn head(&self) -> Head {
        self.shared.lock().head
    }

    /// Has these woken by a message, of which one can wait, when there are records that were not there before.
    pub fn wake(&self, wakes: Vec<mpsc::SyncSender<()>>) {
        self.shared.lock().wakes = wakes;
    }

    /// Something to ask the store with.
    pub fn reader(&self) -> Reader {
        Reader { shared: Arc::clone(&self.shared) }
    }

    /// Writes what waits and ends the thread; waits for that for one second at most, so call it where that may be.
    /// Returns the latest record.
    ///
    /// # Errors
    /// How much was left unwritten.
    pub fn close(mut self) -> Result<Head, Unwritten> {
        self.shared.close();
        match self.ended.recv_timeout(CLOSE_WAIT) {
            Ok(unwritten) => {
                if let Some(thread) = self.thread.take()
                    && thread.join().is_err()
                {
                    log::error!("the thread of the store ended by a panic; what it said of it stands above");
                }
                if unwritten == 0 { Ok(self.head()) } else { Err(Unwritten { count: unwritten }) }
            }
            // What the thread holds at present is not known here, but it is something.
            Err(_) => Err(Unwritten { count: self.shared.lock().queue.len().max(1) }),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Reader {
    /// The newest incidents that `query` asks for, oldest first, with all that was recorded before.
    ///
    /// # Errors
    /// The file cannot be read, too many questions wait, or the store is closed.
    pub async fn incidents(&self, query: IncidentQuery) -> Result<Vec<Incident>, StoreError> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.closed {
                return Err(StoreError::Closed);
            }
            if state.questions.len() >= MAX_QUESTIONS {
                return Err(StoreError::Overloaded);
            }
            state.questions.push_back(Question { query, answer });
        }
        self.shared.changed.notify_one();
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while they hold it, and the state would be whole if they did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_one();
    }
}

/// What the thread has.
struct Worker {
    store: Store,
    shared: Arc<Shared>,
    /// What is being written: taken from the queue, and kept until it is on disk.
    batch: Vec<Write>,
    /// When to try again, after a failure.
    retry: Option<Instant>,
    /// When to look for what is to be kept no longer.
    prune: Instant,
    /// How many writes were given up, as far as that is on record.
    lost: u64,
    /// The reason that was last said.
    said: Option<String>,
    health: Box<dyn FnMut(Health) + Send>,
}

impl Worker {
    /// Writes and answers until the daemon wants no more. Returns how many writes are left.
    fn run(mut self) -> usize {
        loop {
            let (questions, closing) = self.wait();
            if closing || self.retry.is_none_or(|at| at <= Instant::now()) {
                self.write();
            }
            if !closing && self.batch.is_empty() && self.prune <= Instant::now() {
                self.prune();
            }
            for question in questions {
                // The asker may have given up.
                question.answer.send(self.store.incidents(&question.query)).ok();
            }
            if closing {
                return self.end();
            }
        }
    }

    /// Sleeps until there is something to do, and takes it.
    fn wait(&mut self) -> (Vec<Question>, bool) {
        let changed = &self.shared.changed;
        let mut state = self.shared.lock();
        loop {
            if state.closing || !state.questions.is_empty() {
                break;
            }
            state = match self.retry {
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None if state.queue.is_empty() => {
                    let left = self.prune.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let idle = |state: &mut State| !state.closing && state.questions.is_empty();
                    let gathered = changed.wait_timeout_while(state, GATHER, idle);
                    state = gathered.unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
            };
        }
        // After a failure the queue keeps what waits, within its bound.
        if self.batch.is_empty() {
            self.batch = state.queue.take();
        }
        (state.questions.drain(..).collect(), state.closing)
    }

    /// Tries to write what is at hand.
    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        match self.store.write(&self.batch) {
            Ok(()) => {
                self.batch.clear();
                self.retry = None;
                let mut state = self.shared.lock();
                if state.head != self.store.head() {
                    state.head = self.store.head();
                    // One that has a message waiting is woken by that.
                    state.wakes.iter().for_each(|wake| wake.try_send(()).unwrap_or_default());
                }
                let given_up = state.queue.given_up();
                if given_up > self.lost {
                    let act = Act::RecordsLost { count: given_up - self.lost };
                    self.lost = given_up;
                    state.queue.push(Write::Act { at: clock::now().wall, uid: None, act });
                }
                if self.said.take().is_some() {
                    state.queue.set_failing(false);
                    drop(state);
                    (self.health)(Health::Recovered);
                }
            }
            Err(error) => {
                self.retry = Some(Instant::now() + RETRY);
                self.shared.lock().queue.set_failing(true);
                let message = error.to_string();
                if self.said.as_ref() != Some(&message) {
                    self.said = Some(message.clone());
                    (self.health)(Health::Failing { message });
                }
            }
        }
    }

    /// Takes off what is kept no longer, a bounded part of it.
    fn prune(&mut self) {
        let keep = self.shared.lock().keep;
        let pruned = self.store.prune(&keep, clock::now().wall).unwrap_or_else(|error| {
            log::warn!("{}", chain(&error));
            Pruned::default()
        });
        if pruned.records > 0 {
            self.shared.lock().head = self.store.head();
        }
        self.prune = Instant::now() + if pruned.more { PRUNE_PAUSE } else { PRUNE };
    }

    /// Writes what came in last, and lets nobody ask any more.
    fn end(mut self) -> usize {
        // To write can itself lead to a record: of those that were lost.
        while self.batch.is_empty() {
            self.batch = self.shared.lock().queue.take();
            if self.batch.is_empty() {
                break;
            }
            self.write();
        }
        let mut state = self.shared.lock();
        state.closed = true;
        // Whoever asks has their answer in the end of the channel.
        state.questions.clear();
        self.batch.len() + state.queue.len()
    }
}
