//! The thread that owns the store.
//!
//! The daemon hands writes over without ever waiting: they are put into a queue that both sides share, which is a channel
//! with a policy of its own for when it is full (see [`super::queue`]). The thread takes a batch at a time and writes it in
//! one transaction. What could not be written it keeps, and tries again every second; meanwhile the queue fills, up to its
//! bound.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use xdpban_engine::time::Wall;

use super::queue::{Batch, Queue};
use super::{Act, Head, Incident, IncidentQuery, Keep, Pruned, Store, StoreError, Write};
use crate::clock;
use crate::error::chain;

/// How long writes are gathered before they are written, so that a flood of attacks makes few transactions. What somebody
/// waits for is written at once.
const GATHER: Duration = Duration::from_millis(20);

/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// How long after the start, and how often, to look for what is to be kept no longer.
const PRUNE_FIRST: Duration = Duration::from_secs(10);
const PRUNE: Duration = Duration::from_secs(60);

/// How long to leave to writes between two steps of pruning.
const PRUNE_PAUSE: Duration = Duration::from_millis(100);

/// How much longer than it may take [`Writer::close`] waits, for a write that is under way then.
const CLOSE_SLACK: Duration = Duration::from_secs(1);

/// How long a new file is to be of use before another one is begun.
const BEGIN_ANEW: Duration = Duration::from_secs(60);

/// How long a question waits for what was recorded before it. Where more waits to be written, it is answered without.
const QUESTION_WAIT: Duration = Duration::from_millis(500);

/// How many questions can wait.
const MAX_QUESTIONS: usize = 64;

/// The daemon's end: what it is given is written in order. Dropped without [`Writer::close`], it has what waits written,
/// and nobody waits for that.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    ended: oneshot::Receiver<usize>,
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
    /// Its file could not be used any longer. A new one was begun, which has nothing of what was before.
    BegunAnew {
        /// Why, and what became of the old one, in words.
        why: String,
    },
    /// It can be written again.
    Recovered,
}

/// Not everything was written before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} records could not be written to the store before the controller ended; lines that led to them are read again at the next start, and what operators blocked stays blocked without who and why on record"
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
    /// The daemon wants the thread to end, at this time at the latest.
    closing: Option<Instant>,
    /// The thread has ended.
    closed: bool,
}

#[derive(Debug)]
struct Question {
    query: IncidentQuery,
    asked: Instant,
    /// How many batches there were until then.
    after: u64,
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
        let (end, ended) = oneshot::channel();
        let worker = Worker {
            store,
            shared: Arc::clone(&shared),
            batch: Batch::default(),
            retry: None,
            prune: Instant::now() + PRUNE_FIRST,
            begun_anew: None,
            unconfirmed: None,
            lost: 0,
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
    /// 65,536 writes wait, the oldest are given up for new ones, and counted.
    pub fn record(&self, writes: impl IntoIterator<Item = Write>) {
        self.shared.lock().queue.push(writes);
        self.shared.changed.notify_one();
    }

    /// As [`Writer::record`]; what it returns is ready when these writes and all before them are on disk, or with the reason
    /// why they are not yet.
    pub fn record_awaited(
        &self,
        writes: impl IntoIterator<Item = Write>,
    ) -> oneshot::Receiver<Result<(), String>> {
        let (awaited, answer) = oneshot::channel();
        self.shared.lock().queue.push_awaited(writes, awaited);
        self.shared.changed.notify_one();
        answer
    }

    /// How many writes wait.
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
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

    /// Writes what waits and ends the thread, in `limit` or a little more. Where the store cannot be written it is tried
    /// once. Returns the latest record.
    ///
    /// # Errors
    /// How much was left unwritten.
    pub async fn close(mut self, limit: Duration) -> Result<Head, Unwritten> {
        self.shared.close(limit);
        match tokio::time::timeout(limit + CLOSE_SLACK, &mut self.ended).await {
            Ok(Ok(unwritten)) => {
                if let Some(thread) = self.thread.take()
                    && thread.join().is_err()
                {
                    log::error!("the thread of the store ended by a panic; what it said of it stands above");
                }
                if unwritten == 0 { Ok(self.head()) } else { Err(Unwritten { count: unwritten }) }
            }
            // What the thread holds at present is not known here, but it is something.
            _ => Err(Unwritten { count: self.waiting().max(1) }),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // As long as the process lives.
        self.shared.close(Duration::MAX);
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
            let after = state.queue.begun();
            state.questions.push_back(Question { query, asked: Instant::now(), after, answer });
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

    fn close(&self, limit: Duration) {
        const FOR_GOOD: Duration = Duration::from_secs(86_400);
        self.lock().closing.get_or_insert(Instant::now() + limit.min(FOR_GOOD));
        self.changed.notify_one();
    }
}

/// What the thread has.
struct Worker {
    store: Store,
    shared: Arc<Shared>,
    /// What is being written: taken from the queue, and kept until it is on disk.
    batch: Batch,
    /// When to try again, after a failure.
    retry: Option<Instant>,
    /// When to look for what is to be kept no longer.
    prune: Instant,
    /// When the file was last begun anew.
    begun_anew: Option<Instant>,
    /// The last time that is known, while the clock is far ahead of it.
    unconfirmed: Option<Wall>,
    /// How many writes were given up, as far as that is on record.
    lost: u64,
    health: Box<dyn FnMut(Health) + Send>,
}

impl Worker {
    /// Writes and answers until the daemon wants no more. Returns how many writes are left.
    fn run(mut self) -> usize {
        loop {
            if let Some(until) = self.wait() {
                return self.end(until);
            }
            if self.retry.is_none_or(|at| at <= Instant::now()) {
                self.write();
            }
            if self.batch.is_empty() && self.prune <= Instant::now() {
                self.prune();
            }
            for question in self.due_questions() {
                // The asker may have given up.
                question.answer.send(self.store.incidents(&question.query)).ok();
            }
        }
    }

    /// Sleeps until there is something to do, and takes what is to be written. Returns until when, where that is to be the
    /// end.
    fn wait(&mut self) -> Option<Instant> {
        let changed = &self.shared.changed;
        let mut state = self.shared.lock();
        while state.closing.is_none() && state.questions.is_empty() {
            let due = match self.retry {
                Some(at) => at,
                None if state.queue.is_empty() => self.prune,
                None => {
                    let idle = |state: &mut State| {
                        state.closing.is_none() && state.questions.is_empty() && !state.queue.is_urgent()
                    };
                    let gathered = changed.wait_timeout_while(state, GATHER, idle);
                    state = gathered.unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
            };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        // After a failure the queue keeps what waits, within its bound.
        if self.batch.is_empty() {
            self.batch = state.queue.take();
        }
        state.closing
    }

    /// The questions that are to be answered: those for which what was recorded before them is written, and all where that
    /// takes too long or fails.
    fn due_questions(&self) -> Vec<Question> {
        let mut state = self.shared.lock();
        let written = if self.batch.is_empty() { state.queue.taken() } else { 0 };
        let trouble = self.retry.is_some();
        let due = |question: &Question| {
            trouble || question.after <= written || question.asked.elapsed() > QUESTION_WAIT
        };
        let count = state.questions.iter().take_while(|question| due(question)).count();
        state.questions.drain(..count).collect()
    }

    /// Tries to write what is at hand.
    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let mut result = self.store.write(self.batch.writes());
        if let Err(error) = &result
            && self.is_to_begin_anew(error)
        {
            result = self.begin_anew(error).and_then(|()| self.store.write(self.batch.writes()));
        }
        match result {
            Ok(()) => self.written(),
            Err(error) => self.failed(&error),
        }
    }

    fn is_to_begin_anew(&self, error: &StoreError) -> bool {
        error.wants_a_new_file() && self.begun_anew.is_none_or(|at| at.elapsed() > BEGIN_ANEW)
    }

    fn begin_anew(&mut self, damage: &StoreError) -> Result<(), StoreError> {
        let became = self.store.begin_anew(&clock::file_stamp(clock::now().wall))?;
        self.begun_anew = Some(Instant::now());
        (self.health)(Health::BegunAnew { why: format!("{}; {became}, and a new one begun", chain(damage)) });
        Ok(())
    }

    fn written(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        self.retry = None;
        let mut state = self.shared.lock();
        if state.head != self.store.head() {
            state.head = self.store.head();
            // One that has a message waiting is woken by that.
            state.wakes.iter().for_each(|wake| wake.try_send(()).unwrap_or_default());
        }
        batch.answer(&Ok(()));
        let given_up = state.queue.given_up();
        if given_up > self.lost {
            let act = Act::RecordsLost { count: given_up - self.lost };
            self.lost = given_up;
            state.queue.push([Write::Act { at: clock::now().wall, uid: None, act }]);
        }
        if state.queue.trouble().is_some() {
            state.queue.set_trouble(None);
            drop(state);
            (self.health)(Health::Recovered);
        }
    }

    fn failed(&mut self, error: &StoreError) {
        self.retry = Some(Instant::now() + RETRY);
        let message = error.to_string();
        self.batch.answer(&Err(message.clone()));
        let mut state = self.shared.lock();
        if state.queue.trouble() != Some(&message) {
            state.queue.set_trouble(Some(message.clone()));
            drop(state);
            (self.health)(Health::Failing { message });
        }
    }

    /// Takes off what is kept no longer, a bounded part of it.
    fn prune(&mut self) {
        let keep = self.shared.lock().keep;
        let pruned = match self.store.prune(&keep, clock::now().wall) {
            Ok(pruned) => pruned,
            Err(error) => {
                log::warn!("{}", chain(&error));
                if self.is_to_begin_anew(&error)
                    && let Err(error) = self.begin_anew(&error)
                {
                    log::warn!("{}", chain(&error));
                }
                Pruned::default()
            }
        };
        if pruned.records > 0 {
            self.shared.lock().head = self.store.head();
        }
        self.say_unconfirmed(pruned.unconfirmed);
        self.prune = Instant::now() + if pruned.more { PRUNE_PAUSE } else { PRUNE };
    }

    fn say_unconfirmed(&mut self, unconfirmed: Option<Wall>) {
        let before = std::mem::replace(&mut self.unconfirmed, unconfirmed);
        if let Some(known) = unconfirmed
            && before != unconfirmed
        {
            log::warn!(
                "the clock is far ahead of what is on record, which ends at {}: it may have leapt. Until there is more, \
                 records are kept as if it were that time",
                clock::rfc3339(known)
            );
        }
    }

    /// Writes what waits, until then at the latest, and lets nobody ask any more.
    fn end(mut self, until: Instant) -> usize {
        loop {
            self.write();
            if !self.batch.is_empty() || Instant::now() >= until {
                break;
            }
            self.batch = self.shared.lock().queue.take();
            if self.batch.is_empty() {
                break;
            }
        }
        let mut state = self.shared.lock();
        state.closed = true;
        // Whoever asks has their answer in the end of the channel.
        state.questions.clear();
        self.batch.len() + state.queue.len()
    }
}
