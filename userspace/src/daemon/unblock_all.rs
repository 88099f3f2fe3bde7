//! `xdpban unblock --all`: in parts, so that new attackers are blocked meanwhile.

use std::time::Duration;

use tokio::sync::oneshot;
use xdpban_engine::LiftAll;

use super::Daemon;
use super::answer::given;
use super::carry_out::Cause;
use crate::clock;
use crate::control::{Reply, wire};

/// A request to lift all blocks that is being done.
pub(super) struct UnblockAll {
    request: wire::UnblockRequest,
    uid: u32,
    left: LiftAll,
    /// How many targets are free.
    freed: usize,
    reply: oneshot::Sender<Reply>,
    record_wait: Option<Duration>,
}

impl Daemon {
    /// Begins to lift all that is blocked now.
    pub(super) fn unblock_all(
        &mut self,
        request: wire::UnblockRequest,
        uid: u32,
        reply: oneshot::Sender<Reply>,
        record_wait: Option<Duration>,
    ) {
        let left = self.engine.lift_all();
        self.unblocking.push_back(UnblockAll { request, uid, left, freed: 0, reply, record_wait });
    }

    /// Lifts the next part, and answers when there is none.
    pub(super) fn unblock_part(&mut self) {
        let Some(mut all) = self.unblocking.pop_front() else { return };
        if let Some(freed) = self.engine.lift_some(&mut all.left, clock::now()) {
            all.freed += freed;
            let reason = given(all.request.reason.as_deref());
            self.carry_out(Cause::Operator { uid: all.uid, reason: reason.as_deref() });
            return self.unblocking.push_front(all);
        }
        let done = self.unblock_by_hand(&all.request, all.uid, all.freed);
        self.reply(all.reply, Reply::Done(done), all.record_wait);
    }
}
