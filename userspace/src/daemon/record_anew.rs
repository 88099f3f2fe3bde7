//! A store that was begun anew while the controller runs: how things stand goes on record again.

use std::sync::Arc;

use xdpban_engine::Offender;
use xdpban_engine::change::Block;

use super::Daemon;
use super::carry_out::reading;
use crate::clock;
use crate::control::wire;
use crate::store::{self, Act, Write};

impl Daemon {
    /// Has what is in force, and what a restart needs, written to a store that has nothing of it. Commands that are to be
    /// undone are known to this controller alone from here on, save for locked accounts, of which there are notes; so are logins.
    pub(super) async fn record_anew(&mut self, why: String) {
        log::error!("{why}");
        self.act(None, Act::StoreSetAside { why: why.clone() });
        self.set_aside = Some(why);
        self.record_config(true, None);
        let now = clock::now();
        let (at, dry_run) = (now.wall, !self.enforcing());
        if dry_run {
            self.act(None, Act::Enforcement { dry_run });
        }
        if let Some(trial) = self.trial {
            let for_s = wire::seconds_up(trial.until().since(now.mono));
            self.act(None, Act::TrialBegan { for_s });
        }
        let offenders = self.engine.offenders(now).map(|(target, Offender { offences, until })| {
            Write::Offender(store::Offender { target, offences, until })
        });
        self.writes.extend(offenders);
        let blocked = |block: &Arc<Block>, from| {
            let (block, took, uid) = (Arc::clone(block), None, None);
            Write::Blocked { block, at, took, uid, from, dry_run }
        };
        let in_force = self.engine.blocks().map(|block| {
            // What was dropped so far is in the old record, and may have passed in a dry run.
            blocked(block, reading(self.gate.entry(&block.target).as_ref()))
        });
        self.writes.extend(in_force);
        self.counted.clear();
        for block in self.engine.resting() {
            self.writes.push(blocked(block, (0, 0)));
            if let Some(beneath) = self.engine.beneath(block) {
                let block = Arc::clone(block);
                self.writes.push(Write::Rests { block, at, beneath, packets: 0, bytes: 0 });
            }
        }
        self.writes.extend(self.allowlist.writes());
        self.store.record(self.writes.drain(..));
        self.store.record(self.sources.positions());
        // They stood somewhere in the old record, and go on at the end of this one.
        self.end_streams().await;
        self.start_streams(&self.config.clone());
    }
}
