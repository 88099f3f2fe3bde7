//! What waits to be written, within bounds.

use std::collections::{HashMap, VecDeque};

use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::Write;
use crate::source::Position;

/// How many writes can wait while the store cannot be written. Beyond, the oldest is given up. While it can, nothing is:
/// what waits then is what one transaction's time brings, at most an end for each block that there is. Readings of counters
/// have the same bound at all times; beyond, a reading of a target that has none waiting is given up.
pub(super) const BOUND: usize = 65_536;

/// Writes in their order. Positions, counts and the like, of which only the latest matter, are kept apart and come last: a position
/// must not be on disk before what the lines up to it led to.
#[derive(Debug, Default)]
pub(super) struct Queue {
    writes: VecDeque<Write>,
    counts: HashMap<Target, (u64, u64, Wall)>,
    /// As many as there are sources.
    positions: HashMap<String, Position>,
    /// As many as there are streams.
    streams: HashMap<String, i64>,
    alive: Option<Wall>,
    given_up: u64,
    failing: bool,
}

impl Queue {
    /// Says whether the store cannot be written at present.
    pub(super) fn set_failing(&mut self, failing: bool) {
        self.failing = failing;
    }

    pub(super) fn push(&mut self, write: Write) {
        match write {
            Write::Position { key, position } => {
                self.positions.insert(key, position);
                return;
            }
            Write::Counts { target, packets, bytes, at } => {
                if self.counts.len() < BOUND || self.counts.contains_key(&target) {
                    self.counts.insert(target, (packets, bytes, at));
                } else {
                    self.given_up += 1;
                }
                return;
            }
            // Its readings end with it, and must not pass for those of the target's next block.
            Write::Ended { ref block, .. } => {
                self.counts.remove(&block.target);
            }
            Write::Alive { at } => {
                self.alive = Some(at);
                return;
            }
            Write::Streamed { name, seq } => {
                self.streams.insert(name, seq);
                return;
            }
            Write::Blocked { .. }
            | Write::Refused { .. }
            | Write::Login(_)
            | Write::Ran(_)
            | Write::Act { .. }
            | Write::Allow { .. }
            | Write::Disallow { .. } => {}
        }
        while self.failing && self.writes.len() >= BOUND {
            self.writes.pop_front();
            self.given_up += 1;
        }
        self.writes.push_back(write);
    }

    /// All that waits, in the order in which it is to be written.
    pub(super) fn take(&mut self) -> Vec<Write> {
        let counts = self.counts.drain();
        let counts =
            counts.map(|(target, (packets, bytes, at))| Write::Counts { target, packets, bytes, at });
        let streams = self.streams.drain().map(|(name, seq)| Write::Streamed { name, seq });
        let alive = self.alive.take().map(|at| Write::Alive { at });
        let positions = self.positions.drain().map(|(key, position)| Write::Position { key, position });
        self.writes.drain(..).chain(counts).chain(streams).chain(alive).chain(positions).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len()
            + self.counts.len()
            + self.streams.len()
            + usize::from(self.alive.is_some())
            + self.positions.len()
    }

    /// How many writes were given up because too many waited.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use xdpban_engine::change::{Block, End, Origin};
    use xdpban_engine::measure::Measure;

    use super::*;

    fn block(number: u32) -> Block {
        Block {
            target: Target::exact(std::net::Ipv4Addr::from_bits(number).into()),
            created: Wall(0),
            expires: None,
            measure: Measure::default(),
            rule: None,
            reason: "a test".into(),
            origin: Origin::Operator,
            offences: 1,
            attempts: 0,
            users: Vec::new(),
            evidence: Vec::new(),
        }
    }

    fn blocked(number: u32) -> Write {
        Write::Blocked { block: block(number), at: Wall(0), took: None, uid: None }
    }

    fn ended(number: u32) -> Write {
        let block = block(number);
        Write::Ended { block, end: End::Lifted, at: Wall(0), packets: 9, bytes: 9, reason: None, uid: None }
    }

    fn counts(number: u32, packets: u64) -> Write {
        Write::Counts { target: block(number).target, packets, bytes: 0, at: Wall(0) }
    }

    fn position(cursor: usize) -> Write {
        let position = Position::Journal { cursor: cursor.to_string() };
        Write::Position { key: "journal".to_owned(), position }
    }

    fn queue(writes: impl IntoIterator<Item = Write>) -> Queue {
        let mut queue = Queue::default();
        writes.into_iter().for_each(|write| queue.push(write));
        queue
    }

    #[test]
    fn positions_and_counts_are_the_latest_and_come_last() {
        let mut queue = queue([position(1), counts(1, 5), blocked(2), counts(1, 6), position(2), blocked(3)]);
        assert_eq!(queue.take(), [blocked(2), blocked(3), counts(1, 6), position(2)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn counts_of_a_block_that_ended_do_not_pass_for_the_next_ones() {
        let mut queue = queue([counts(1, 5), ended(1), blocked(1)]);
        assert_eq!(queue.take(), [ended(1), blocked(1)]);
    }

    #[test]
    fn the_oldest_is_given_up_at_the_bound() {
        let bound = u32::try_from(BOUND).unwrap();
        let mut queue = queue((0..bound + 3).map(blocked));
        assert_eq!(
            (queue.len(), queue.given_up()),
            (BOUND + 3, 0),
            "nothing is given up while the store can be written"
        );
        queue.set_failing(true);
        queue.push(blocked(bound + 3));
        queue.push(position(1));
        for number in 0..bound + 5 {
            queue.push(counts(number, 1));
            queue.push(position(7));
        }
        assert_eq!((queue.len(), queue.given_up()), (2 * BOUND + 1, 9));
        let taken = queue.take();
        assert_eq!(taken[0], blocked(4));
        assert_eq!(taken[BOUND - 1], blocked(bound + 3));
        assert_eq!(taken.last(), Some(&position(7)));
    }
}
