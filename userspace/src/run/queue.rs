//! What waits to be run by one command.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use xdpban_engine::change::CommandRun;

/// Runs of one command that may wait because of matches.
const WAITING: usize = 64;

/// Where runs are handed in.
pub(super) struct Queue {
    adds: mpsc::Sender<CommandRun>,
    /// Without a bound of its own: there are as many at most as the engine has to undo.
    undos: mpsc::UnboundedSender<CommandRun>,
}

/// Where they come out.
pub(super) struct Waiting {
    adds: mpsc::Receiver<CommandRun>,
    undos: mpsc::UnboundedReceiver<CommandRun>,
}

pub(super) fn queue() -> (Queue, Waiting) {
    let (adds, adds_out) = mpsc::channel(WAITING);
    let (undos, undos_out) = mpsc::unbounded_channel();
    (Queue { adds, undos }, Waiting { adds: adds_out, undos: undos_out })
}

impl Queue {
    /// Takes a run, or says why not. One that undoes something is never too many.
    pub(super) fn push(&self, run: CommandRun) -> Result<(), String> {
        let stops = || "the controller stops".to_owned();
        match run.undo {
            Some(_) => self.undos.send(run).map_err(|_| stops()),
            None => self.adds.try_send(run).map_err(|error| match error {
                TrySendError::Full(_) => format!("{WAITING} of its runs wait already"),
                TrySendError::Closed(_) => stops(),
            }),
        }
    }
}

impl Waiting {
    /// The next run; none once nothing waits and nothing can come. Neither those that undo nor the others can keep the rest waiting
    /// for good.
    pub(super) async fn next(&mut self) -> Option<CommandRun> {
        tokio::select! {
            Some(run) = self.adds.recv() => Some(run),
            Some(run) = self.undos.recv() => Some(run),
            else => None,
        }
    }

    /// The next that does not undo anything.
    pub(super) async fn next_add(&mut self) -> Option<CommandRun> {
        self.adds.recv().await
    }
}
