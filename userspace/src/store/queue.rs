//! What waits to be written, within bounds.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;
use xdpban_engine::measure::Strictness;
use xdpban_engine::target::Target;
use xdpban_engine::time::Wall;

use super::Write;
use crate::source::Position;

/// How many writes can wait while the store cannot be written. Beyond, the oldest is given up. While it can, nothing is:
/// what waits then ends with what there is to read or to block. Readings of counters have the same bound at all times; beyond,
/// a reading of a target that has none waiting is given up.
pub(super) const BOUND: usize = 65_536;

/// How many writes one transaction has, and then as many as belong to one read position: a crash takes back a fraction of a
/// second's work at most, however much waits.
pub(super) const BATCH: usize = 2_000;

/// Writes in their order, in batches of one transaction each.
///
/// What lines led to is never divided from the read position behind them: no line is read again whose effects are on disk, and
/// none is skipped. Of the positions in a batch only the latest of each source is kept.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The last one is still being filled.
    batches: VecDeque<Batch>,
    /// How many writes are in them, without positions, each by its weight.
    writes: usize,
    /// How many batches were taken out so far.
    taken: u64,
    /// The latest of each. They go with the last batch, behind the beginning of the block that they are of.
    counts: HashMap<Target, (Strictness, u64, u64, Wall)>,
    /// As many as there are streams. They tell of what is on disk, and go with any batch.
    streams: HashMap<String, i64>,
    given_up: u64,
    trouble: Option<String>,
}

/// What goes to disk together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    writes: VecDeque<Write>,
    /// How many they are, each by its weight.
    weight: usize,
    /// As many as there are sources.
    positions: HashMap<String, Position>,
    /// Those who want to hear when it is on disk, or why it is not yet.
    awaited: Vec<oneshot::Sender<Result<(), String>>>,
}

impl Queue {
    /// Says why the store cannot be written at present; none where it can. Whoever waits for it has that for an answer.
    pub(super) fn set_trouble(&mut self, trouble: Option<String>) {
        if let Some(trouble) = &trouble {
            self.batches.iter_mut().for_each(|batch| batch.answer(&Err(trouble.clone())));
        }
        self.trouble = trouble;
    }

    /// Why the store cannot be written at present.
    pub(super) fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }

    /// Adds what one input led to.
    pub(super) fn push(&mut self, writes: impl IntoIterator<Item = Write>) {
        let writes: Vec<Write> = writes.into_iter().collect();
        let has_position = writes.iter().any(|write| matches!(write, Write::Position { .. }));
        self.make_room();
        for write in writes {
            if !has_position {
                self.make_room();
            }
            self.push_one(write);
        }
    }

    /// Begins a batch where the last one is full.
    fn make_room(&mut self) {
        if self.batches.back().is_none_or(|batch| batch.weight >= BATCH) {
            self.batches.push_back(Batch::default());
        }
    }

    /// Adds what one input led to, and lets `awaited` know when it is on disk, or why it is not yet.
    pub(super) fn push_awaited(
        &mut self,
        writes: impl IntoIterator<Item = Write>,
        awaited: oneshot::Sender<Result<(), String>>,
    ) {
        self.push(writes);
        if let Some(batch) = self.batches.back_mut() {
            batch.awaited.push(awaited);
            if let Some(trouble) = &self.trouble {
                batch.answer(&Err(trouble.clone()));
            }
        }
    }

    fn push_one(&mut self, write: Write) {
        match write {
            Write::Position { key, position } => {
                if let Some(batch) = self.batches.back_mut() {
                    batch.positions.insert(key, position);
                }
                return;
            }
            Write::Counts { target, strictness, packets, bytes, at } => {
                if self.counts.len() < BOUND || self.counts.contains_key(&target) {
                    self.counts.insert(target, (strictness, packets, bytes, at));
                } else {
                    self.given_up += 1;
                }
                return;
            }
            // Its readings end with it, and must not pass for those of the target's next block.
            Write::Ended { ref block, .. }
            | Write::Rests { ref block, .. }
            | Write::Switched { ref block, .. }
            | Write::Resumed { ref block, .. } => {
                self.counts.remove(&block.target);
            }
            Write::Streamed { name, seq } => {
                self.streams.insert(name, seq);
                return;
            }
            // It has a later one with it, and may begin an incident of its own.
            Write::Blocked { ref block, from, .. } if from != (0, 0) => {
                let same = |(strictness, ..): &(Strictness, u64, u64, Wall)| {
                    *strictness == block.measure.strictness()
                };
                if self.counts.get(&block.target).is_some_and(same) {
                    self.counts.remove(&block.target);
                }
            }
            Write::Alive { .. }
            | Write::Blocked { .. }
            | Write::Refused { .. }
            | Write::Offender(_)
            | Write::Login(_)
            | Write::Standing { .. }
            | Write::NotStanding { .. }
            | Write::Ran(_)
            | Write::Act { .. }
            | Write::Allow { .. }
            | Write::Disallow { .. } => {}
        }
        while self.trouble.is_some() && self.writes >= BOUND {
            self.give_up();
        }
        if let Some(batch) = self.batches.back_mut() {
            batch.weight += weight(&write);
            self.writes += weight(&write);
            batch.writes.push_back(write);
        }
    }

    /// Gives up the oldest write.
    fn give_up(&mut self) {
        while let Some(oldest) = self.batches.front_mut() {
            if let Some(write) = oldest.writes.pop_front() {
                oldest.weight -= weight(&write);
                self.writes -= weight(&write);
                self.given_up += 1;
                return;
            }
            let emptied = self.pop().unwrap_or_default();
            if let Some(next) = self.batches.front_mut() {
                for (key, position) in emptied.positions {
                    next.positions.entry(key).or_insert(position);
                }
            }
        }
    }

    fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.writes -= batch.weight;
        self.taken += 1;
        Some(batch)
    }

    /// What is to be written next.
    pub(super) fn take(&mut self) -> Batch {
        let mut batch = self.pop().unwrap_or_default();
        let writes = &mut batch.writes;
        if self.batches.is_empty() {
            let targets: Vec<Target> = self.counts.keys().take(BATCH).copied().collect();
            for target in targets {
                if let Some((strictness, packets, bytes, at)) = self.counts.remove(&target) {
                    writes.push_back(Write::Counts { target, strictness, packets, bytes, at });
                }
            }
        }
        writes.extend(self.streams.drain().map(|(name, seq)| Write::Streamed { name, seq }));
        writes.extend(batch.positions.drain().map(|(key, position)| Write::Position { key, position }));
        batch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.iter().all(Batch::is_empty) && self.counts.is_empty() && self.streams.is_empty()
    }

    /// Whether what waits is to be written without waiting for more.
    pub(super) fn is_urgent(&self) -> bool {
        self.batches.len() > 1 || self.batches.iter().any(|batch| !batch.awaited.is_empty())
    }

    /// How many writes wait.
    pub(super) fn len(&self) -> usize {
        let positions: usize = self.batches.iter().map(|batch| batch.positions.len()).sum();
        self.writes + positions + self.counts.len() + self.streams.len()
    }

    /// How many batches there were so far; when as many have been taken, what waits at present has been.
    pub(super) fn begun(&self) -> u64 {
        self.taken + self.batches.len() as u64
    }

    /// How many batches have been taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// How many writes were given up because too many waited.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }
}

/// How many writes one counts as: each block that is looked for on record takes about as long as one.
fn weight(write: &Write) -> usize {
    match write {
        Write::Standing { blocks, .. } => blocks.len(),
        Write::NotStanding { blocks, .. } => blocks.len(),
        _ => 1,
    }
}

impl Batch {
    /// What is to be written, positions last.
    pub(super) fn writes(&mut self) -> &[Write] {
        self.writes.make_contiguous()
    }

    pub(super) fn len(&self) -> usize {
        self.writes.len() + self.positions.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.awaited.is_empty()
    }

    /// Tells those who wait for it what became of it.
    pub(super) fn answer(&mut self, outcome: &Result<(), String>) {
        for awaited in self.awaited.drain(..) {
            // The asker may have given up.
            awaited.send(outcome.clone()).ok();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
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

    pub(crate) fn blocked(number: u32) -> Write {
        Write::Blocked {
            block: block(number).into(),
            at: Wall(0),
            took: None,
            uid: None,
            from: (0, 0),
            dry_run: false,
        }
    }

    fn ended(number: u32) -> Write {
        let block = block(number).into();
        Write::Ended { block, end: End::Lifted, at: Wall(0), packets: 9, bytes: 9, reason: None, uid: None }
    }

    fn counts(number: u32, packets: u64) -> Write {
        Write::Counts {
            target: block(number).target,
            strictness: Strictness::Everything,
            packets,
            bytes: 0,
            at: Wall(0),
        }
    }

    fn position(cursor: usize) -> Write {
        let position = Position::Journal { cursor: cursor.to_string() };
        Write::Position { key: "journal".to_owned(), position }
    }

    fn queue(writes: impl IntoIterator<Item = Write>) -> Queue {
        let mut queue = Queue::default();
        queue.push(writes);
        queue
    }

    #[test]
    fn positions_and_counts_are_the_latest_and_come_last() {
        let mut queue = queue([position(1), counts(1, 5), blocked(2), counts(1, 6), position(2), blocked(3)]);
        assert_eq!(queue.take().writes(), [blocked(2), blocked(3), counts(1, 6), position(2)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn counts_of_a_block_that_ended_do_not_pass_for_the_next_ones() {
        let mut queue = queue([counts(1, 5), ended(1), blocked(1)]);
        assert_eq!(queue.take().writes(), [ended(1), blocked(1)]);
    }

    #[test]
    fn counts_of_before_a_block_was_asked_for_anew_do_not_pass_for_its_own() {
        let asked_anew = || match blocked(1) {
            Write::Blocked { block, at, took, uid, dry_run, .. } => {
                Write::Blocked { block, at, took, uid, from: (6, 600), dry_run }
            }
            other => other,
        };
        let mut queue = queue([counts(1, 5), counts(2, 5), asked_anew()]);
        assert_eq!(queue.take().writes(), [asked_anew(), counts(2, 5)]);
    }

    #[test]
    fn each_batch_has_the_positions_of_its_own_lines_and_all_that_they_led_to() {
        let mut queue = Queue::default();
        let mut number = 0..;
        let lines = [900, 1500, 1, 1999, 3000, 5];
        for (index, lines) in lines.into_iter().enumerate() {
            queue.push(number.by_ref().take(lines).map(blocked).chain([position(index)]));
        }
        queue.push([counts(0, 1)]);
        let mut next = 0..;
        for (writes, last) in [(2400, 1), (2000, 3), (3000, 4), (5, 5)] {
            let mut batch = queue.take();
            let taken = batch.writes();
            let expected: Vec<Write> = next.by_ref().take(writes).map(blocked).collect();
            assert!(taken.starts_with(&expected), "{} writes, {last}", taken.len());
            let rest = &taken[writes..];
            let with_counts = [counts(0, 1), position(last)];
            assert_eq!(rest, if queue.is_empty() { &with_counts[..] } else { &with_counts[1..] });
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn what_has_no_position_is_divided() {
        let mut queue = queue((0..5000).map(blocked));
        let lengths: Vec<usize> =
            std::iter::from_fn(|| (!queue.is_empty()).then(|| queue.take().len())).collect();
        assert_eq!(lengths, [2000, 2000, 1000]);
    }

    #[test]
    fn what_looks_for_many_blocks_counts_as_many() {
        let key = |number| (block(number).target, Strictness::Everything);
        let not_standing = || Write::NotStanding { blocks: (0..1024).map(key).collect(), at: Wall(0) };
        let mut queue = queue((0..5).map(|_| not_standing()));
        assert_eq!(queue.len(), 5 * 1024);
        let lengths: Vec<usize> =
            std::iter::from_fn(|| (!queue.is_empty()).then(|| queue.take().len())).collect();
        assert_eq!((lengths.as_slice(), queue.len()), (&[2, 2, 1][..], 0));
        queue.push((0..5).map(|_| not_standing()));
        queue.set_trouble(Some("a test".to_owned()));
        for number in 0..u32::try_from(BOUND).unwrap() {
            queue.push([blocked(number)]);
        }
        assert_eq!((queue.len(), queue.given_up()), (BOUND, 5));
    }

    #[test]
    fn who_waits_hears_of_their_own_batch_or_why_it_is_not_on_disk() {
        let mut queue = Queue::default();
        let ask = |queue: &mut Queue, writes: u32| {
            let (sender, receiver) = oneshot::channel();
            queue.push_awaited((0..writes).map(blocked), sender);
            receiver
        };
        let (mut first, mut second) = (ask(&mut queue, 2000), ask(&mut queue, 1));
        assert!(queue.is_urgent());
        queue.take().answer(&Ok(()));
        assert_eq!(first.try_recv(), Ok(Ok(())));
        assert!(second.try_recv().is_err(), "it has no answer yet");
        queue.set_trouble(Some("the disk is full".to_owned()));
        let mut third = ask(&mut queue, 1);
        for asked in [&mut second, &mut third] {
            assert_eq!(asked.try_recv(), Ok(Err("the disk is full".to_owned())));
        }
        assert_eq!(queue.take().writes().len(), 2, "what they asked for is written all the same");
    }

    #[test]
    fn the_oldest_is_given_up_at_the_bound() {
        let bound = u32::try_from(BOUND).unwrap();
        let mut queue = Queue::default();
        for number in 0..bound + 3 {
            queue.push([blocked(number), position(usize::try_from(number).unwrap())]);
        }
        assert_eq!(queue.given_up(), 0, "nothing is given up while the store can be written");
        queue.set_trouble(Some("a test".to_owned()));
        queue.push([blocked(bound + 3)]);
        for number in 0..bound + 5 {
            queue.push([counts(number, 1)]);
        }
        assert_eq!((queue.writes, queue.given_up()), (BOUND, 9));
        let mut first = queue.take();
        assert_eq!(first.writes()[0], blocked(4));
        assert_eq!(first.writes().last(), Some(&position(BATCH - 1)));
        // All but the last few writes.
        for number in 0..bound - 3 {
            queue.push([blocked(bound + 4 + number)]);
        }
        let mut rest = std::iter::from_fn(|| (!queue.is_empty()).then(|| queue.take()));
        let mut first = rest.next().unwrap();
        assert_eq!(first.writes()[0], blocked(bound + 1));
        assert_eq!(first.writes().last(), Some(&position(BOUND + 2)), "a position outlives what is given up");
        let left: usize = rest.map(|mut batch| batch.writes().len()).sum();
        assert_eq!(left + first.len(), 2 * BOUND + 1);
    }
}
