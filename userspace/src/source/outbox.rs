//! What a source says to the daemon.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::{Batch, Position, Records, Report};
use crate::clock;

/// The daemon wants nothing more: the source is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopped;

/// The source's end of the channel. Waits while it is full, and says each trouble once.
pub(super) struct Outbox {
    source: usize,
    reports: mpsc::Sender<Report>,
    cancelled: oneshot::Receiver<()>,
    /// Waits for the first of two things: room in the channel, or the end.
    runtime: Runtime,
    trouble: Option<String>,
    /// Dropped as the sign that the source has begun; nothing is sent.
    begun: Option<oneshot::Sender<()>>,
}

impl Outbox {
    pub(super) fn new(
        source: usize,
        reports: mpsc::Sender<Report>,
        cancelled: oneshot::Receiver<()>,
        begun: oneshot::Sender<()>,
    ) -> io::Result<Outbox> {
        let runtime = Builder::new_current_thread().build()?;
        Ok(Outbox { source, reports, cancelled, runtime, trouble: None, begun: Some(begun) })
    }

    /// Says that it is settled where reading begins, or that this cannot be told yet: nobody needs to wait any longer.
    pub(super) fn begun(&mut self) {
        self.begun = None;
    }

    /// Hands on records. `live`: they were written since the source last had nothing to read.
    pub(super) fn batch(
        &mut self,
        records: Records,
        position: Position,
        live: bool,
        cut: u32,
    ) -> Result<(), Stopped> {
        self.send(Report::Batch(Batch {
            source: self.source,
            records,
            position,
            read_at: clock::now().mono,
            live,
            cut,
        }))
    }

    /// Says what is in the way, unless that was the last thing said of it.
    pub(super) fn trouble(&mut self, message: String) -> Result<(), Stopped> {
        if self.trouble.as_ref() == Some(&message) {
            return Ok(());
        }
        self.trouble = Some(message.clone());
        self.send(Report::Trouble { source: self.source, message })
    }

    /// Says that nothing is in the way, if something was.
    pub(super) fn well(&mut self) -> Result<(), Stopped> {
        match self.trouble.take() {
            None => Ok(()),
            Some(_) => self.send(Report::Well { source: self.source }),
        }
    }

    fn send(&mut self, report: Report) -> Result<(), Stopped> {
        // Nothing is ever sent here: either it is open, or its sender was dropped.
        if !matches!(self.cancelled.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            return Err(Stopped);
        }
        match self.reports.try_send(report) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(Stopped),
            Err(TrySendError::Full(report)) => self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = &mut self.cancelled => Err(Stopped),
                    sent = self.reports.send(report) => sent.map_err(|_| Stopped),
                }
            }),
        }
    }
}
