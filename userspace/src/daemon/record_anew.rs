//! A store that was begun anew while the controller runs: how things stand goes on record again.

use std::sync::Arc;

use xdpban_engine::Offender;

use super::Daemon;
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
        let blocks = self.engine.blocks().chain(self.engine.resting());
        let standing = blocks.flat_map(|block| {
            let (took, uid, from) = (None, None, (0, 0));
            let blocked = Write::Blocked { block: Arc::clone(block), at, took, uid, from, dry_run };
            let rests = self.engine.beneath(block).map(|beneath| {
                let block = Arc::clone(block);
                Write::Rests { block, at, beneath, packets: 0, bytes: 0 }
            });
            [Some(blocked), rests].into_iter().flatten()
        });
        self.writes.extend(standing);
        self.writes.extend(self.allowlist.writes());
        self.store.record(self.writes.drain(..));
        self.store.record(self.sources.positions());
        // They stood somewhere in the old record, and go on at the end of this one.
        self.end_streams().await;
        self.start_streams(&self.config.clone());
    }
}
