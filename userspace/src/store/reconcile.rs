//! Bringing the record to what is blocked, where one says otherwise than the other. What comes here stands in its order among
//! the other writes, so that the record is compared as it stood when the controller looked.

use std::sync::Arc;

use xdpban_engine::change::Block;
use xdpban_engine::measure::Strictness;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::StoreError;
use super::archive::Archive;
use super::chain::Ledger;
use super::columns;
use super::incident::Outcome;
use super::write::{Close, How, blocked, in_force, kind, rests};

/// Targets that are named where several are spoken of.
const NAMED: usize = 8;

/// Opens an incident for each of `blocks` that has none in force, and notes beneath what it rests.
pub(super) fn standing(
    ledger: &mut Ledger<'_>,
    blocks: &[(Arc<Block>, Option<Target>)],
    at: Wall,
    dry_run: bool,
) -> rusqlite::Result<()> {
    let mut missing = Vec::new();
    for (block, beneath) in blocks {
        if in_force(ledger.connection, &block.target, block.measure.strictness())?.is_none() {
            blocked(ledger, block, at, How { dry_run, ..How::default() })?;
            if let Some(beneath) = beneath {
                rests(ledger, block, at, *beneath)?;
            }
            missing.push(block.target);
        }
    }
    if !missing.is_empty() {
        log::warn!("blocked, and on record only from now on: {}", names(&missing));
    }
    Ok(())
}

/// Closes the incident in force of each of `blocks` that has one.
pub(super) fn not_standing(
    ledger: &mut Ledger<'_>,
    blocks: &[(Target, Strictness)],
    at: Wall,
) -> rusqlite::Result<()> {
    let mut closed = Vec::new();
    let reason = Some("it was not blocked any longer when the record was compared with what is");
    for (target, strictness) in blocks {
        if let Some(id) = in_force(ledger.connection, target, *strictness)? {
            Close { outcome: Outcome::Lifted, at, reason, uid: None }.apply(ledger, id)?;
            closed.push(*target);
        }
    }
    if !closed.is_empty() {
        log::warn!("on record as blocked, and not blocked; their incidents are closed: {}", names(&closed));
    }
    Ok(())
}

fn names(targets: &[Target]) -> String {
    let mut names: Vec<String> = targets.iter().take(NAMED).map(Target::to_string).collect();
    if targets.len() > NAMED {
        names.push(format!("and {} more", targets.len() - NAMED));
    }
    names.join(", ")
}

impl Archive {
    /// Hands the blocks that are in force or rest by the record to `take`, `count` at a time, until it wants no more.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn each_in_force(
        &self,
        count: usize,
        mut take: impl FnMut(Vec<(Target, Strictness)>) -> bool,
    ) -> Result<(), StoreError> {
        let mut read = || -> rusqlite::Result<()> {
            let mut statement = self
                .connection
                .prepare("SELECT key, action, measure IS NULL FROM incidents WHERE outcome = 'in_force' AND command IS NULL")?;
            let mut rows = statement.query([])?;
            let mut blocks = Vec::with_capacity(count);
            while let Some(row) = rows.next()? {
                // What is no target here stands on no list of blocks, either, and `verify-record` tells of it.
                let target = row.get_ref(0)?.as_blob().ok().and_then(columns::target);
                let same = (row.get_ref(1)?.as_str().unwrap_or_default(), row.get(2)?);
                let strictness = Strictness::ALL.into_iter().find(|strictness| kind(*strictness) == same);
                blocks.extend(target.zip(strictness));
                if blocks.len() == count && !take(std::mem::replace(&mut blocks, Vec::with_capacity(count))) {
                    return Ok(());
                }
            }
            take(blocks);
            Ok(())
        };
        read().map_err(|source| self.unread(source))
    }
}
