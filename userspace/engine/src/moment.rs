//! When an event happened, on one line of time that no step of a clock bends.

use std::time::Duration;

use crate::time::{Mono, Now, Wall};

/// A point on the monotonic clock, in nanoseconds. Unlike [`Mono`] it can lie before the clock's start: a log that is
/// read on after a reboot holds lines from before it, and these must keep their distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(i64);

impl Moment {
    /// The clock's start.
    pub(crate) const START: Moment = Moment(0);

    /// The present.
    pub(crate) fn now(now: &Now) -> Moment {
        Moment::from(now.mono)
    }

    /// When a line was written: its own timestamp, by the present distance between the two clocks. A line without one
    /// was written now, and so was a line from the future, whose clock cannot be right. However old, a timestamp of the
    /// past stands: a line that is read late must not look as if it had just happened.
    pub(crate) fn of_line(time: Option<Wall>, now: &Now) -> Moment {
        let present = Moment::now(now);
        match time {
            Some(time) if time < now.wall => present.before(now.wall.since(time)),
            _ => present,
        }
    }

    pub(crate) fn after(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(duration)))
    }

    pub(crate) fn before(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(duration)))
    }

    /// The time from `earlier` to `self`, zero when `earlier` is later.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl From<Mono> for Moment {
    fn from(mono: Mono) -> Moment {
        Moment(i64::try_from(mono.0).unwrap_or(i64::MAX))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lines_from_before_the_clocks_start_keep_their_distances() {
        let now = Now { mono: Mono(1_000_000_000), wall: Wall(1_000_000_000_000), utc_offset: 0 };
        let hour = Duration::from_secs(3600);
        let first = Moment::of_line(Some(now.wall.before(hour)), &now);
        let second = Moment::of_line(Some(now.wall.before(hour - SECOND)), &now);
        assert_eq!(second.since(first), SECOND);
        assert_eq!(Moment::now(&now).since(first), hour);
    }

    #[test]
    fn the_future_and_the_unknown_are_now() {
        let now = Now { mono: Mono(7), wall: Wall(70), utc_offset: 0 };
        assert_eq!(Moment::of_line(Some(now.wall.after(SECOND)), &now), Moment::now(&now));
        assert_eq!(Moment::of_line(None, &now), Moment::now(&now));
    }

    #[test]
    fn extremes_saturate() {
        let now = Now { mono: Mono(u64::MAX), wall: Wall(i64::MAX), utc_offset: 0 };
        assert!(Moment::of_line(Some(Wall(i64::MIN)), &now) < Moment::now(&now));
        assert_eq!(Moment::now(&now).after(Duration::MAX), Moment::now(&now));
    }
}
