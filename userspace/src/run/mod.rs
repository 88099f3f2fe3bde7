//! Running commands beside the controller's loop, on a thread of their own, so that nothing of them can hold it up.
//!
//! Each command has a queue of its own, so that one that hangs holds up itself alone. A queue holds a bounded number of runs beside
//! those that are under way; a run for which there is no room is refused, which goes on record. What undoes something always has
//! room.

mod child;
mod cut;
mod event;
mod notify;
mod output;
mod queue;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use xdpban_engine::change::CommandRun;

use crate::clock;
use crate::config::{Command, What};
use crate::lockout;
use crate::store::{Exit, Ran, Step};
use child::{Ended, Job};
use cut::Cut;
use queue::{Order, Queue, Waiting};

pub use event::{Blocked, restored};

/// Outcomes that may wait for the loop; a command whose outcome waits holds its place.
const OUTCOMES: usize = 64;

/// For how long what runs and waits goes on when the controller stops, before it is cut off: with what it takes to end it, a part of
/// TimeoutStopSec in packaging/xdpban.service.
const AT_STOP: Duration = Duration::from_secs(2);

/// How much longer than it may take curl gets, which ends by itself and says what it waited for.
const FOR_CURL: Duration = Duration::from_secs(5);

/// What came of a run.
pub struct Outcome {
    /// The run; none for a digest of several.
    pub run: Option<CommandRun>,
    /// What goes on record.
    pub ran: Ran,
}

/// The commands of the configuration, `lock-account` in any case, and the thread that runs them.
pub struct Runner {
    queues: HashMap<Arc<str>, (Command, Queue)>,
    /// None once it is closed.
    outcomes: Option<mpsc::Sender<Outcome>>,
    cut: watch::Sender<bool>,
    state: PathBuf,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts the thread. Outcomes come from the receiver; `state` is where accounts that are locked are noted.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(commands: &[Command], state: &Path) -> io::Result<(Runner, mpsc::Receiver<Outcome>)> {
        let (outcomes, receiver) = mpsc::channel(OUTCOMES);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("commands".to_owned()).spawn(move || {
            // An error is that the other end is gone, which means the same.
            runtime.block_on(stopped).ok();
            // What hangs while it starts is not waited for.
            runtime.shutdown_background();
        })?;
        let mut runner = Runner {
            queues: HashMap::new(),
            outcomes: Some(outcomes),
            cut: watch::Sender::new(false),
            state: state.to_owned(),
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        };
        runner.replace(commands);
        Ok((runner, receiver))
    }

    /// Goes on with other commands. What waits for those that are gone, or are no longer the same, is still run.
    pub fn replace(&mut self, commands: &[Command]) {
        let Some(outcomes) = &self.outcomes else { return };
        // An account that is locked is to be unlocked also where the configuration has none locked any longer.
        let lock_account = Command::lock_account();
        let commands = || commands.iter().chain([&lock_account]);
        self.queues.retain(|_, (known, _)| commands().any(|command| command == known));
        for command in commands() {
            if self.queues.contains_key(&command.name) {
                continue;
            }
            let (queue, waiting) = queue::queue();
            let worker = Worker {
                command: command.clone(),
                state: self.state.clone(),
                outcomes: outcomes.clone(),
                cut: Cut(self.cut.subscribe()),
            };
            match command.digest {
                Some(every) => drop(self.runtime.spawn(Arc::new(worker).gather(waiting, every))),
                None => drop(self.runtime.spawn(Arc::new(worker).work(waiting))),
            }
            self.queues.insert(Arc::clone(&command.name), (command.clone(), queue));
        }
    }

    /// Has a command run, some time soon; never waits. It is told what the source is blocked by. Where it cannot be run, returns
    /// what goes on record.
    pub fn submit(&self, run: &CommandRun, blocked: Option<Blocked>) -> Result<(), Box<Ran>> {
        let taken = match self.queues.get(&run.command) {
            Some((_, queue)) => queue.push(Order { run: run.clone(), blocked }),
            None => Err("the configuration has no such command any longer".to_owned()),
        };
        taken.map_err(|why| Box::new(not_run(run, blocked, why)))
    }

    /// Takes no more runs. What runs or waits has a moment left to end by itself, and is cut off or left undone then; outcomes come
    /// until all of it has ended, and then none any more. What waits to undo something has no outcome: it is undone after the next
    /// start.
    pub fn close(&mut self) {
        self.queues.clear();
        self.outcomes = None;
        let cut = self.cut.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(AT_STOP).await;
            cut.send_replace(true);
        });
    }

    /// Ends the thread, once all outcomes have come.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error is that it has ended.
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that runs commands panicked");
        }
    }
}

/// What works off the queue of one command.
struct Worker {
    command: Command,
    state: PathBuf,
    outcomes: mpsc::Sender<Outcome>,
    cut: Cut,
}

impl Worker {
    /// Runs what waits, so much at once as may be, and says what did not have its turn.
    async fn work(self: Arc<Worker>, mut waiting: Waiting) {
        tokio::select! {
            biased;
            () = self.cut.comes() => {}
            () = Arc::clone(&self).take_turns(&mut waiting) => return,
        }
        while let Some(Order { run, blocked }) = waiting.next_add().await {
            let why = "the controller stopped before its turn came".to_owned();
            let ran = not_run(&run, blocked, why);
            self.tell(Outcome { run: Some(run), ran }).await;
        }
    }

    async fn take_turns(self: Arc<Worker>, waiting: &mut Waiting) {
        let places = Arc::new(Semaphore::new(self.command.at_most as usize));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Some(Order { run, blocked }) = waiting.next().await else { return };
            let worker = Arc::clone(&self);
            tokio::spawn(async move {
                let event = event::of(&run, blocked);
                let ended = worker.run(&event).await;
                let stands = worker.stands(&run, &ended.exit).await;
                let ran = Ran { stands, ..ran(&run.on_record(), Some(&run), &event, ended) };
                worker.tell(Outcome { run: Some(run), ran }).await;
                drop(place);
            });
        }
    }

    /// Gathers what waits, and tells of it every so often, and when the configuration has it no longer.
    async fn gather(self: Arc<Worker>, mut waiting: Waiting, every: Duration) {
        let mut digest = notify::Digest::default();
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = waiting.next() => match order {
                    Some(order) => digest.add(&event::of(&order.run, order.blocked), clock::now().wall),
                    None => break,
                },
                // Beside this, so that what comes meanwhile is not held up. A try that takes long is bounded, too.
                _ = tick.tick() => drop(tokio::spawn(Arc::clone(&self).tell_of(digest.take(clock::now().wall)))),
            }
        }
        self.tell_of(digest.take(clock::now().wall)).await;
    }

    async fn tell_of(self: Arc<Worker>, digest: Option<Value>) {
        let Some(event) = digest else { return };
        let ended = self.run(&event).await;
        let ran = ran(&self.command.name, None, &event, ended);
        self.tell(Outcome { run: None, ran }).await;
    }

    async fn tell(&self, outcome: Outcome) {
        // When the loop has ended there is nobody to tell.
        self.outcomes.send(outcome).await.ok();
    }

    /// Whether what a run was to do stands although it failed. Of an account that may be locked there is a note.
    async fn stands(&self, run: &CommandRun, exit: &Exit) -> bool {
        if exit.failure().is_none() {
            return false;
        }
        let (None, Some(user), What::LockAccount) = (run.undo, run.user.clone(), &self.command.what) else {
            // It may have done some of it.
            return *exit == Exit::CutOff && run.why.expires.is_some();
        };
        let state = self.state.clone();
        spawn_blocking(move || lockout::may_be_locked(&state, &user)).await.unwrap_or(true)
    }

    async fn run(&self, event: &Value) -> Ended {
        let mut ended =
            tried(&self.command.retry, &self.cut, || child::run(self.job(event), &self.cut)).await;
        // The status of a command of the user's own has no such meaning.
        if let (What::LockAccount, Exit::Status(status)) = (&self.command.what, &ended.exit)
            && *status == i32::from(lockout::LEFT_ALONE)
        {
            ended.exit = Exit::Declined;
        }
        ended
    }

    fn job(&self, event: &Value) -> Job {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect();
        let line = || format!("{event}\n").into_bytes();
        let mut time_limit = self.command.time_limit;
        let (argv, input) = match &self.command.what {
            What::Own(argv) => (argv.iter().map(OsString::from).collect(), line()),
            What::LockAccount => {
                let mut argv: Vec<OsString> = words(&["/proc/self/exe", "lock-account", "--state"]);
                argv.push(self.state.clone().into());
                (argv, line())
            }
            What::Mail(to) => (words(&[Command::SENDMAIL, "-t", "-oi"]), notify::mail(to, event)),
            What::Webhook(url) => {
                let request = notify::request(url, event, time_limit);
                time_limit += FOR_CURL;
                (words(&[Command::CURL, "--config", "-"]), request)
            }
        };
        Job {
            argv,
            user: self.command.user.clone(),
            environment: event::environment(event),
            input,
            time_limit,
        }
    }
}

/// Tries, and tries again after each of `waits` as long as it fails, until `cut` comes; returns what came of the last try.
async fn tried<T: Future<Output = Ended>>(waits: &[Duration], cut: &Cut, attempt: impl Fn() -> T) -> Ended {
    for wait in waits {
        let ended = attempt().await;
        if ended.exit.failure().is_none() {
            return ended;
        }
        tokio::select! {
            () = tokio::time::sleep(*wait) => {}
            () = cut.comes() => return ended,
        }
    }
    attempt().await
}

/// What goes on record of a run that there was not.
fn not_run(run: &CommandRun, blocked: Option<Blocked>, why: String) -> Ran {
    let ended = Ended { exit: Exit::NotRun(why), output: String::new(), took: Duration::ZERO };
    ran(&run.on_record(), Some(run), &event::of(run, blocked), ended)
}

/// What goes on record of a run.
fn ran(name: &Arc<str>, run: Option<&CommandRun>, event: &Value, ended: Ended) -> Ran {
    Ran {
        command: Arc::clone(name),
        why: run.map(|run| run.why.clone()),
        step: run.and_then(|run| run.undo).map_or(Step::Add, Step::Delete),
        exit: ended.exit,
        stands: false,
        output: ended.output.into(),
        input: event.to_string().into(),
        at: clock::now().wall,
        took: ended.took,
    }
}

#[cfg(test)]
mod tests;
