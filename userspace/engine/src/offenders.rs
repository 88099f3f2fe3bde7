//! How many times each target has been blocked, so that those who come back wait longer.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::lru::Lru;
use crate::moment::Moment;
use crate::target::Target;
use crate::time::{Now, Wall};

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
    /// Those of the table in the order of their addresses, and a few that have been forgotten.
    order: BTreeSet<Target>,
}

/// Of the offenders within a prefix no more are looked at, forgotten ones included.
const LOOKED_AT: usize = 4096;

impl Offenders {
    pub(crate) fn new(capacity: usize) -> Offenders {
        Offenders { table: Lru::new(capacity), order: BTreeSet::new() }
    }

    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.table.set_capacity(capacity);
    }

    pub(crate) fn restore(&mut self, target: Target, offender: Offender, now: &Now) {
        let present = Moment::now(now);
        let until = present.before(now.wall.since(offender.until)).after(offender.until.since(now.wall));
        self.insert(target, Known { offences: offender.offences, until });
    }

    /// Sees to it that `target`, which is blocked for its `offences`th time until `until`, is known as such, if there is room:
    /// what the store says of it may have been worked out by another clock.
    pub(crate) fn standing(&mut self, target: Target, offences: u32, until: Moment) {
        if let Some(known) = self.table.touch(&target) {
            known.until = until;
        } else if !self.table.is_full() {
            self.insert(target, Known { offences, until });
        }
    }

    /// All of them, in no order, as [`Offenders::restore`] takes them.
    pub(crate) fn all(&self, now: Now) -> impl Iterator<Item = (Target, Offender)> {
        let present = Moment::now(&now);
        self.table.iter().map(move |(target, &Known { offences, until })| {
            let until = now.wall.before(present.since(until)).after(until.since(present));
            (*target, Offender { offences, until })
        })
    }

    fn insert(&mut self, target: Target, known: Known) {
        self.table.insert(target, known);
        self.order.insert(target);
        // What the table forgot for want of room is found out here.
        if self.order.len() > 2 * self.table.len() {
            self.order.retain(|target| self.table.peek(target).is_some());
        }
    }

    /// Offenders within `prefix`, itself not among them, that are not forgotten; at most `count`.
    pub(crate) fn within(
        &self,
        prefix: Target,
        count: usize,
        at: Moment,
        forget_after: Duration,
    ) -> impl Iterator<Item = Target> {
        let remembered = move |target: &Target| {
            let known = self.table.peek(target);
            known.is_some_and(|known| known.offences > 0 && at <= known.until.after(forget_after))
        };
        self.order
            .range(prefix..)
            .copied()
            .take_while(move |target| prefix.contains(target.address()))
            .take(LOOKED_AT)
            .filter(move |target| target.prefix_len() > prefix.prefix_len() && remembered(target))
            .take(count)
    }

    /// Which offence the next one of `target` would be, counted from one.
    pub(crate) fn next(&self, target: &Target, at: Moment, forget_after: Duration) -> u32 {
        let remembered = |known: &&Known| at <= known.until.after(forget_after);
        self.table.peek(target).filter(remembered).map_or(0, |known| known.offences).saturating_add(1)
    }

    /// Records that `target` is blocked for its `offences`th time, until `until`.
    pub(crate) fn record(&mut self, target: Target, offences: u32, until: Moment) {
        self.insert(target, Known { offences, until });
    }

    /// Records that the block of `target` has ended, before its time or without having one.
    pub(crate) fn ended(&mut self, target: &Target, at: Moment) {
        if let Some(known) = self.table.touch(target) {
            known.until = at;
        }
    }

    /// Takes back an offence of `target`, its `offences`th, and those after it: of several blocks that one offence led to,
    /// each says so.
    pub(crate) fn take_back(&mut self, target: &Target, offences: u32) {
        let before = offences.saturating_sub(1);
        if before == 0 {
            self.table.remove(target);
            self.order.remove(target);
        } else if let Some(known) = self.table.touch(target) {
            known.offences = known.offences.min(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Mono;

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn offences_add_up_until_forgotten() {
        let target: Target = "203.0.113.7".parse().unwrap();
        let mut offenders = Offenders::new(10);
        let start = Moment::from(Mono(0));
        assert_eq!(offenders.next(&target, start, DAY), 1);
        offenders.record(target, 1, start.after(HOUR));
        assert_eq!(offenders.next(&target, start.after(25 * HOUR), DAY), 2);
        assert_eq!(offenders.next(&target, start.after(26 * HOUR), DAY), 1);
        offenders.take_back(&target, 1);
        assert_eq!(offenders.next(&target, start, DAY), 1);
    }

    #[test]
    fn the_store_gives_them_back() {
        let target: Target = "203.0.113.7".parse().unwrap();
        let now = Now { mono: Mono(5), wall: Wall(0).after(1000 * HOUR), utc_offset: 0 };
        let present = Moment::now(&now);
        let mut offenders = Offenders::new(10);
        for (ago, next) in [(23, 4), (25, 1)] {
            offenders.restore(target, Offender { offences: 3, until: now.wall.before(ago * HOUR) }, &now);
            assert_eq!(offenders.next(&target, present, DAY), next, "ended {ago} h ago");
            let all: Vec<_> = offenders.all(now).collect();
            assert_eq!(all, [(target, Offender { offences: 3, until: now.wall.before(ago * HOUR) })]);
        }
        let offender = Offender { offences: 3, until: now.wall.after(HOUR) };
        offenders.restore(target, offender, &now);
        assert_eq!(offenders.all(now).collect::<Vec<_>>(), [(target, offender)]);
        assert_eq!(offenders.next(&target, present.after(24 * HOUR), DAY), 4);
        assert_eq!(offenders.next(&target, present.after(26 * HOUR), DAY), 1);
    }

    #[test]
    fn finds_those_within_a_prefix() {
        let start = Moment::from(Mono(0));
        let mut offenders = Offenders::new(100);
        let target = |text: &str| -> Target { text.parse().unwrap() };
        for (address, until) in [
            ("203.0.112.255", 0),
            ("203.0.113.0", 0),
            ("203.0.113.255", 30),
            ("203.0.113.9", 0),
            ("203.0.114.0", 0),
        ] {
            offenders.record(target(address), 1, start.after(until * HOUR));
        }
        offenders.record(target("203.0.113.0/24"), 1, start);
        offenders.record(target("203.0.113.0/25"), 1, start);
        offenders.take_back(&target("203.0.113.9"), 1);
        let within = |count, hours| {
            let found = offenders.within(target("203.0.113.0/24"), count, start.after(hours * HOUR), DAY);
            found.map(|target| target.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(within(9, 1), ["203.0.113.0/25", "203.0.113.0", "203.0.113.255"]);
        assert_eq!(within(2, 1).len(), 2);
        assert_eq!(within(9, 30), ["203.0.113.255"], "the others are forgotten");
    }

    #[test]
    fn the_order_is_bounded_with_the_table() {
        let mut offenders = Offenders::new(10);
        for n in 0..1000u32 {
            offenders.record(
                Target::exact(std::net::Ipv4Addr::from_bits(n).into()),
                1,
                Moment::from(Mono(0)),
            );
            assert!(offenders.order.len() <= 21);
        }
    }
}
