//! The one place that reads the clocks, and that writes times as people and programs read them.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use nix::time::{ClockId, clock_gettime};
use xdpban_engine::time::{Mono, Now, Wall};

use crate::config::duration;

/// The present on both clocks.
pub fn now() -> Now {
    let wall = read(ClockId::CLOCK_REALTIME);
    let wall = Wall(i64::try_from(wall.as_micros()).unwrap_or(i64::MAX));
    let utc_offset = utc_offset(wall);
    let mono = read(ClockId::CLOCK_MONOTONIC);
    Now { mono: Mono(u64::try_from(mono.as_nanos()).unwrap_or(u64::MAX)), wall, utc_offset }
}

/// Seconds that local time was or will be ahead of UTC at `wall`.
pub fn utc_offset(wall: Wall) -> i32 {
    TimeZone::system().to_offset(timestamp(wall)).seconds()
}

fn read(clock: ClockId) -> Duration {
    // clock_gettime fails for a clock that does not exist or a bad pointer, and neither can be here.
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}

/// `wall` as RFC 3339 in UTC, to the millisecond: `2026-11-23T08:15:42.120Z`.
pub fn rfc3339(wall: Wall) -> String {
    format!("{:.3}", timestamp(wall))
}

/// As [`rfc3339`], to the microsecond.
pub fn rfc3339_micros(wall: Wall) -> String {
    format!("{:.6}", timestamp(wall))
}

/// `wall` in UTC for the name of a file: `20261123T081542Z`.
pub fn file_stamp(wall: Wall) -> String {
    timestamp(wall).strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// `wall` in local time as Wazuh writes it in its logs: `2026/11/23 08:15:42`.
pub fn log_stamp(wall: Wall) -> String {
    timestamp(wall).to_zoned(TimeZone::system()).strftime("%Y/%m/%d %H:%M:%S").to_string()
}

/// `wall` in local time as syslog's traditional messages have it (RFC 3164): `Nov  3 08:15:42`.
pub fn syslog_stamp(wall: Wall) -> String {
    timestamp(wall).to_zoned(TimeZone::system()).strftime("%b %e %H:%M:%S").to_string()
}

/// The point in time that somebody names: a day, a time with or without a zone (local time without), or a duration,
/// which means so long ago.
pub fn point(text: &str, now: &Now) -> Option<Wall> {
    let text = text.trim();
    if let Ok(ago) = duration::parse(text) {
        return Some(now.wall.before(ago));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(Wall(time.as_microsecond()));
    }
    let local: civil::DateTime = text.parse().ok()?;
    let time = local.to_zoned(TimeZone::system()).ok()?.timestamp();
    Some(Wall(time.as_microsecond()))
}

fn timestamp(wall: Wall) -> Timestamp {
    Timestamp::from_microsecond(wall.0).unwrap_or(if wall.0 < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_times() {
        let wall = Wall(1_795_421_742_120_000);
        assert_eq!(rfc3339(wall), "2026-11-23T08:15:42.120Z");
        assert_eq!(file_stamp(wall), "20261123T081542Z");
        assert_eq!(rfc3339(Wall(i64::MIN)), "-009999-01-02T01:59:59.000Z");
    }

    #[test]
    fn reads_points_in_time() {
        let now = Now { wall: Wall(1_795_421_742_120_000), ..Now::default() };
        let read = |text| point(text, &now).map(rfc3339);
        assert_eq!(read("2026-11-23T08:15:42.12Z").as_deref(), Some("2026-11-23T08:15:42.120Z"));
        assert_eq!(read("2026-11-23T09:15:42+01:00").as_deref(), Some("2026-11-23T08:15:42.000Z"));
        assert_eq!(read("1h").as_deref(), Some("2026-11-23T07:15:42.120Z"));
        let midnight = point("2026-11-23", &now).unwrap();
        let offset = i64::from(utc_offset(midnight)) * 1_000_000;
        assert_eq!(midnight, Wall(1_795_392_000_000_000 - offset));
        for odd in ["", "yesterday", "2026-13-01", "2026-11-23T25:00:00"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn clocks_advance() {
        let (a, b) = (now(), now());
        assert!(a.mono.0 > 0 && b.mono >= a.mono);
    }
}
