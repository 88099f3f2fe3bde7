//! How many times each target has been blocked, so that those who come back wait longer.

use std::time::Duration;

use crate::lru::Lru;
use crate::moment::Moment;
use crate::target::Target;
use crate::time::{Now, Wall};

/// An offender is forgotten this long after its latest block has ended.
pub const FORGET_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A target that has been blocked before, as the store keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offender {
    /// How many times.
    pub offences: u32,
    /// When its latest block ended or is to end.
    pub until: Wall,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    offences: u32,
    until: Moment,
}

/// The targets blocked not long ago, as many as the caller allows; beyond, the one blocked longest ago is forgotten.
#[derive(Debug)]
pub(crate) struct Offenders {
    table: Lru<Target, Known>,
}

impl Offenders {
    pub(crate) fn new(capacity: usize) -> Offenders {
        Offenders { table: Lru::new(capacity) }
    }

    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.table.set_capacity(capacity);
    }

    pub(crate) fn restore(&mut self, target: Target, offender: Offender, now: &Now) {
        let present = Moment::now(now);
        let until = present.before(now.wall.since(offender.until)).after(offender.until.since(now.wall));
        self.table.insert(target, Known { offences: offender.offences, until });
    }

    /// Which offence the next one of `target` would be, counted from one.
    pub(crate) fn next(&self, target: &Target, at: Moment) -> u32 {
        let remembered = |known: &&Known| at <= known.until.after(FORGET_AFTER);
        self.table.peek(target).filter(remembered).map_or(0, |known| known.offences).saturating_add(1)
    }

    /// Records that `target` is blocked for its `offences`th time, until `until`.
    pub(crate) fn record(&mut self, target: Target, offences: u32, until: Moment) {
        self.table.insert(target, Known { offences, until });
    }

    /// Records that the block of `target` has ended, before its time or without having one.
    pub(crate) fn ended(&mut self, target: &Target, at: Moment) {
        if let Some(known) = self.table.touch(target) {
            known.until = at;
        }
    }

    /// Takes back the latest offence of `target`: its block never came into force.
    pub(crate) fn take_back(&mut self, target: &Target) {
        if let Some(known) = self.table.touch(target) {
            known.offences = known.offences.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Mono;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn offences_add_up_until_forgotten() {
        let target: Target = "203.0.113.7".parse().unwrap();
        let mut offenders = Offenders::new(10);
        let start = Moment::from(Mono(0));
        assert_eq!(offenders.next(&target, start), 1);
        offenders.record(target, 1, start.after(HOUR));
        assert_eq!(offenders.next(&target, start.after(25 * HOUR)), 2);
        assert_eq!(offenders.next(&target, start.after(26 * HOUR)), 1);
        offenders.take_back(&target);
        assert_eq!(offenders.next(&target, start), 1);
    }

    #[test]
    fn the_store_gives_them_back() {
        let target: Target = "203.0.113.7".parse().unwrap();
        let now = Now { mono: Mono(5), wall: Wall(0).after(1000 * HOUR), utc_offset: 0 };
        let present = Moment::now(&now);
        let mut offenders = Offenders::new(10);
        for (ago, next) in [(23, 4), (25, 1)] {
            offenders.restore(target, Offender { offences: 3, until: now.wall.before(ago * HOUR) }, &now);
            assert_eq!(offenders.next(&target, present), next, "ended {ago} h ago");
        }
        offenders.restore(target, Offender { offences: 3, until: now.wall.after(HOUR) }, &now);
        assert_eq!(offenders.next(&target, present.after(24 * HOUR)), 4);
        assert_eq!(offenders.next(&target, present.after(26 * HOUR)), 1);
    }
}
