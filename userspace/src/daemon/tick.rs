//! What is done every ten seconds: looking after what nobody tells of.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use xdpban_engine::time::Mono;

use super::Daemon;
use super::stop::say_head;
use crate::clock;
use crate::error::chain;
use crate::store::Write;

/// How often rates are sampled and logins that ended without a word are noticed.
const TICK: Duration = Duration::from_secs(10);

/// How many ticks make a minute, after which the counts of blocks in force go to the store, so that a reboot does not lose them,
/// and what may have changed unnoticed is looked at.
const TICKS_A_MINUTE: u32 = 6;

/// How many ticks make a day, after which the record's head is logged.
const TICKS_A_DAY: u32 = 8640;

/// Drops per second, from the last two samples.
#[derive(Default)]
pub(super) struct Rate {
    at: Mono,
    dropped: u64,
    pub(super) per_second: f64,
}

impl Rate {
    pub(super) fn sample(&mut self, now: Mono, dropped: u64) {
        let elapsed = now.since(self.at).as_secs_f64();
        if elapsed >= 1.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let drops = dropped.saturating_sub(self.dropped) as f64;
            *self = Rate { at: now, dropped, per_second: drops / elapsed };
        }
    }
}

impl Daemon {
    pub(super) fn tick(&mut self) {
        self.keep_guard();
        self.engine.retain_sessions(is_sshd);
        match self.gate.totals() {
            Ok(totals) => self.rate.sample(clock::now().mono, totals.dropped()),
            Err(error) => log::warn!("{}", chain(&error)),
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_A_MINUTE) {
            self.comparison.get_or_insert_default();
            self.record_counts();
            self.look_at_uncertain_host();
            self.writes.push(Write::Alive { at: clock::now().wall });
        }
        if self.ticks.is_multiple_of(TICKS_A_DAY) {
            say_head(&self.store.head());
        }
    }
}

/// Whether process `pid` is one of sshd's. Another program's has only come by the number.
pub(super) fn is_sshd(pid: u32) -> bool {
    std::fs::read(Path::new("/proc").join(pid.to_string()).join("comm"))
        .is_ok_and(|name| name.starts_with(b"sshd"))
}

pub(super) fn interval() -> Interval {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}
