//! Ending the controller: what was asked is answered, and what happened is on record before it ends.

use std::time::Duration;

use super::{Daemon, MANY_WRITES, notify};
use crate::human;
use crate::store::{Act, Head};

/// For how long what waits is written when the controller stops: a part of TimeoutStopSec in packaging/xdpban.service.
const WRITE_AT_STOP: Duration = Duration::from_secs(80);

/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

impl Daemon {
    /// Ends what was started, in order, and leaves the gate as it stands.
    pub(super) async fn stop(mut self) {
        if !self.trial_failed {
            log::info!("stopping; the gate stays closed to what is blocked");
        }
        notify::stopping();
        // Whoever reads the record for it waits for the loop, and ends with it.
        self.comparison = None;
        self.calls.close();
        while let Ok(call) = self.calls.try_recv() {
            // Everything is taken off: nothing that is asked for can be done. Whoever asks is told that the controller stops.
            if !self.trial_failed {
                self.answer(call);
            }
        }
        while !self.unblocking.is_empty() {
            self.unblock_part();
            self.store.record(self.writes.drain(..));
        }
        self.store.record(self.writes.drain(..));
        let answered = async { while self.answers.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS, answered).await.is_err() {
            log::warn!("not every peer of the control socket had its answer");
        }
        // Their connections pass the answers on.
        tokio::task::yield_now().await;
        self.control.abort();
        // It ends by being aborted, which is no news.
        (&mut self.control).await.ok();
        if let Some(task) = self.packet_log.take() {
            task.abort();
        }
        self.reports.close();
        self.sources.stop();
        self.end_commands().await;
        self.record_counts();
        self.act(None, Act::Stopped { version: env!("CARGO_PKG_VERSION") });
        self.store.record(self.writes.drain(..));
        self.end_streams().await;
        self.store.record(self.writes.drain(..));
        self.health.close();
        let waiting = self.store.waiting();
        if waiting > MANY_WRITES {
            log::info!(
                "{} wait to be written; that takes {} at most",
                human::counted(waiting as u64, "record"),
                human::duration(WRITE_AT_STOP)
            );
        }
        match self.store.close(WRITE_AT_STOP).await {
            Ok(head) => say_head(&head),
            Err(error) => log::error!("{error}"),
        }
    }
}

/// Says where the record ends, so that it stands outside of the store, too.
pub(super) fn say_head(head: &Head) {
    log::info!("the record's head is {head}; `xdpban verify-record --head` checks it against this");
}
