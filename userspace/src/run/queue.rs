//! What waits to be run by one command.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use xdpban_engine::change::CommandRun;

use super::event::Blocked;

/// Runs of one command that may wait because of matches.
const WAITING: usize = 64;

/// A run that waits for its turn.
pub(super) struct Order {
    pub(super) run: CommandRun,
    /// How its source stood when it was asked for.
    pub(super) blocked: Option<Blocked>,
}

/// Where runs are handed in.
pub(super) struct Queue {
    adds: mpsc::Sender<Order>,
    /// Without a bound of its own: there are as many at most as the engine has to undo.
    undos: mpsc::UnboundedSender<Order>,
}

/// Where they come out.
pub(super) struct Waiting {
    adds: mpsc::Receiver<Order>,
    undos: mpsc::UnboundedReceiver<Order>,
}

pub(super) fn queue() -> (Queue, Waiting) {
    let (adds, adds_out) = mpsc::channel(WAITING);
    let (undos, undos_out) = mpsc::unbounded_channel();
    (Queue { adds, undos }, Waiting { adds: adds_out, undos: undos_out })
}

impl Queue {
    /// Takes a run, or says why not. One that undoes something is never too many.
    pub(super) fn push(&self, order: Order) -> Result<(), String> {
        let stops = || "the controller stops".to_owned();
        match order.run.undo {
            Some(_) => self.undos.send(order).map_err(|_| stops()),
            None => self.adds.try_send(order).map_err(|error| match error {
                TrySendError::Full(_) => format!("{WAITING} of its runs wait already"),
                TrySendError::Closed(_) => stops(),
            }),
        }
    }
}

impl Waiting {
    /// The next run; none once nothing waits and nothing can come. Neither those that undo nor the others can keep the rest waiting
    /// for good.
    pub(super) async fn next(&mut self) -> Option<Order> {
        tokio::select! {
            Some(order) = self.adds.recv() => Some(order),
            Some(order) = self.undos.recv() => Some(order),
            else => None,
        }
    }

    /// The next that does not undo anything.
    pub(super) async fn next_add(&mut self) -> Option<Order> {
        self.adds.recv().await
    }
}
