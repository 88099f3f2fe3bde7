//! A store that was begun anew while the controller runs: how things stand goes on record again.

use std::sync::Arc;

use super::Daemon;
use crate::clock;
use crate::store::{Act, Write};

impl Daemon {
    /// Has all that a restart needs, and what is in force, written to a store that has nothing of it. Commands that are to be
    /// undone are known to this controller alone from here on, save for locked accounts, of which there are notes.
    pub(super) async fn record_anew(&mut self, why: String) {
        log::error!("{why}");
        self.act(None, Act::StoreSetAside { why: why.clone() });
        self.set_aside = Some(why);
        self.record_config(true, None);
        let (at, dry_run) = (clock::now().wall, !self.enforcing());
        if dry_run {
            self.act(None, Act::Enforcement { dry_run });
        }
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
