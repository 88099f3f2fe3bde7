//! Points in time, always handed in by the caller.

use std::time::Duration;

use crate::change::Expiry;
use crate::header;

/// A point on the kernel's monotonic clock (`CLOCK_MONOTONIC`), in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// `self + duration`, at most the end of the clock.
    pub fn after(self, duration: Duration) -> Mono {
        Mono(self.0.saturating_add(nanos(duration)))
    }

    /// `self - duration`, at least zero.
    pub fn before(self, duration: Duration) -> Mono {
        Mono(self.0.saturating_sub(nanos(duration)))
    }

    /// The time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A point in civil time, in microseconds since the Unix epoch (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

impl Wall {
    /// The time that a text stands for, in any of the forms that logs use: ISO 8601 with or without fraction and zone
    /// (local time without), and those without a year, which mean the latest that is not ahead of `now`.
    pub fn parse(text: &[u8], now: &Now) -> Option<Wall> {
        header::time(text, now)
    }

    /// `self + duration`.
    pub fn after(self, duration: Duration) -> Wall {
        Wall(self.0.saturating_add(micros(duration)))
    }

    /// `self - duration`.
    pub fn before(self, duration: Duration) -> Wall {
        Wall(self.0.saturating_sub(micros(duration)))
    }

    /// The time from `earlier` to `self`, zero when `earlier` is later.
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The present, read once by the caller and handed down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Mono,
    /// The wall clock.
    pub wall: Wall,
    /// Seconds that local time is ahead of UTC: syslog's traditional timestamps are local and name no zone.
    pub utc_offset: i32,
}

impl Now {
    /// The monotonic point that `wall` stands for, by the present distance between the two clocks.
    pub fn mono_at(&self, wall: Wall) -> Mono {
        if wall >= self.wall {
            self.mono.after(wall.since(self.wall))
        } else {
            self.mono.before(self.wall.since(wall))
        }
    }

    /// An expiry at `mono`, on both clocks.
    pub fn expiry(&self, mono: Mono) -> Expiry {
        Expiry { mono, wall: self.wall_at(mono) }
    }

    /// The end, on record as `at`, of what began at `began`: with what is left by the wall clock, since the monotonic clock begins
    /// anew with each boot, and never with more than its whole time, since the wall clock may have been set back.
    pub fn recorded_expiry(&self, began: Wall, at: Wall) -> Expiry {
        let latest = self.mono.after(at.since(began));
        Expiry { mono: self.mono_at(at).min(latest), wall: at }
    }

    /// The civil time of `expiry` as the wall clock stands, which may have been set since `expiry` was worked out.
    pub fn wall_of(&self, expiry: Expiry) -> Wall {
        /// What keeps a clock right moves it by less, and nobody wants to see that.
        const SET: Duration = Duration::from_secs(1);
        let wall = self.wall_at(expiry.mono);
        let moved = wall.since(expiry.wall).max(expiry.wall.since(wall));
        if moved > SET { wall } else { expiry.wall }
    }

    /// The civil time of `mono`, by the present distance between the two clocks.
    pub fn wall_at(&self, mono: Mono) -> Wall {
        if mono >= self.mono {
            self.wall.after(mono.since(self.mono))
        } else {
            self.wall.before(self.mono.since(mono))
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
