//! A run on trial: unless an operator confirms it in time, everything is taken off the host again.
//!
//! While it lasts no entry in the kernel outlives it, so that nothing stays blocked for longer even if the controller is
//! killed. On record, blocks have their whole time: when a trial has begun by the record and its end is not there, a start
//! takes the ends of blocks from the record and not from the kernel.

use std::time::Duration;

use xdpban_engine::change::Expiry;
use xdpban_engine::time::{Mono, Now};

use super::Daemon;
use super::carry_out::Cause;
use crate::clock;
use crate::control::{Reply, wire};
use crate::human;
use crate::store::Act;

/// A trial.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    /// When it ends.
    until: Mono,
}

impl Trial {
    pub(super) fn new(length: Duration, now: &Now) -> Trial {
        Trial { until: now.mono.after(length) }
    }

    pub(super) fn until(self) -> Mono {
        self.until
    }

    /// When an entry ends in the kernel whose block ends at `expires`.
    pub(super) fn cap(trial: Option<Trial>, expires: Option<Expiry>) -> Option<Mono> {
        let expires = expires.map(|expiry| expiry.mono);
        match trial {
            Some(Trial { until }) => Some(expires.map_or(until, |expires| expires.min(until))),
            None => expires,
        }
    }
}

impl Daemon {
    /// Whether the trial is over, unconfirmed.
    pub(super) fn trial_is_over(&self) -> bool {
        self.trial.is_some_and(|trial| trial.until <= clock::now().mono)
    }

    /// Says that everything is taken off now, and why.
    pub(super) fn end_trial(&mut self) {
        log::warn!("nobody confirmed the trial (`xdpban confirm`): everything is taken off this host");
        self.act(None, Act::TrialEnded {});
        self.trial = None;
        self.trial_failed = true;
    }

    /// Goes on for good. What is blocked gets its whole time in the kernel, too.
    pub(super) fn confirm(&mut self, uid: u32) -> Reply {
        if self.trial_is_over() {
            let error = "the trial is over, and the controller is stopping".to_owned();
            return Reply::Error(wire::Error { error });
        }
        if self.trial.take().is_none() {
            let error = "the controller does not run on trial; there is nothing to confirm".to_owned();
            return Reply::Error(wire::Error { error });
        }
        log::info!("the trial is confirmed, by uid {uid}");
        self.act(Some(uid), Act::TrialConfirmed {});
        self.renew_all();
        self.carry_out(Cause::Other);
        Reply::Done(wire::Done { done: 1, ..wire::Done::default() })
    }

    /// What an operator should know while it lasts.
    pub(super) fn trial_health(&self) -> Option<String> {
        let left = self.trial?.until.since(clock::now().mono);
        let left = human::duration(Duration::from_secs(wire::seconds_up(left)));
        Some(format!("on trial: in {left} everything is taken off this host, unless `xdpban confirm` comes"))
    }

    pub(super) fn announce_trial(&mut self) {
        let Some(trial) = self.trial else { return };
        let left = trial.until.since(clock::now().mono);
        log::warn!(
            "on trial: in {} everything is taken off this host again, unless `xdpban confirm` comes before",
            human::duration(left.saturating_add(Duration::from_millis(500)))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_outlives_the_trial() {
        let now = Now::default();
        let trial = Some(Trial::new(Duration::from_secs(60), &now));
        let at = |seconds| Some(now.expiry(Mono(0).after(Duration::from_secs(seconds))));
        let mono = |seconds| Some(Mono(0).after(Duration::from_secs(seconds)));
        assert_eq!(Trial::cap(trial, at(100)), mono(60));
        assert_eq!(Trial::cap(trial, at(30)), mono(30));
        assert_eq!(Trial::cap(trial, None), mono(60));
        assert_eq!(Trial::cap(None, at(100)), mono(100));
        assert_eq!(Trial::cap(None, None), None);
    }
}
