//! The present as the lines of a past log see it.

use std::time::Duration;

use xdpban_engine::time::{Mono, Now, Wall};

/// A line that claims to be from further ahead of the real present than this is not believed.
const DAY: Duration = Duration::from_secs(86_400);

/// Lines can be out of order by this much, as several processes write one log. A line from further back says that the
/// clock of its host was set, or that another log begins.
const DISORDER: Duration = Duration::from_secs(60);

/// A clock that the lines of a log drive by their own times. Its monotonic side never goes back: where the time of the
/// lines does, it stands still for a moment and goes on from there, as a host's monotonic clock does when its wall clock
/// is set.
#[derive(Debug)]
pub(super) struct LineClock {
    real: Now,
    present: Option<Now>,
}

impl LineClock {
    /// A clock that stands at `real` until a line tells its time.
    pub(super) fn new(real: Now) -> LineClock {
        LineClock { real, present: None }
    }

    /// The present at a line that was written at `told`; a line without a time is written when the one before it was.
    pub(super) fn at(&mut self, told: Option<Wall>) -> Now {
        let told = told.filter(|told| *told <= self.real.wall.after(DAY));
        let present = match (self.present, told) {
            (None, None) => return self.real,
            (Some(present), None) => return present,
            (None, Some(told)) => {
                // Any monotonic clock will do as long as the past of its first line has room on it.
                let mono = u64::try_from(told.0).unwrap_or(0).saturating_mul(1000);
                Now { mono: Mono(mono), wall: told, utc_offset: self.real.utc_offset }
            }
            (Some(present), Some(told)) if told == present.wall => return present,
            (Some(present), Some(told)) if told > present.wall => {
                Now { mono: present.mono.after(told.since(present.wall)), wall: told, ..present }
            }
            (Some(present), Some(told)) if present.wall.since(told) <= DISORDER => present,
            (Some(present), Some(told)) => Now { wall: told, ..present },
        };
        self.present = Some(present);
        present
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn clock() -> LineClock {
        LineClock::new(Now { mono: Mono(5), wall: Wall(1_000_000 * SECOND), utc_offset: 0 })
    }

    #[test]
    fn small_disorder_leaves_it_where_it_is() {
        let mut clock = clock();
        let later = clock.at(Some(Wall(100 * SECOND)));
        assert_eq!(clock.at(Some(Wall(40 * SECOND))), later);
        assert_eq!(clock.at(None), later);
        assert_eq!(clock.at(Some(Wall(i64::MAX))), later, "nobody writes lines in the far future");
    }

    #[test]
    fn a_step_back_keeps_the_distances_of_what_follows() {
        let mut clock = clock();
        let before = clock.at(Some(Wall(10_000 * SECOND)));
        let stepped = clock.at(Some(Wall(6_400 * SECOND)));
        assert_eq!((stepped.mono, stepped.wall), (before.mono, Wall(6_400 * SECOND)));
        let after = clock.at(Some(Wall(6_410 * SECOND)));
        assert_eq!(after.mono.since(before.mono), Duration::from_secs(10));
    }

    #[test]
    fn until_a_line_tells_its_time_it_is_the_present() {
        let mut clock = clock();
        assert_eq!(clock.at(None), clock.real);
        assert_eq!(clock.at(Some(Wall(7 * SECOND))).wall, Wall(7 * SECOND));
    }
}
