//! The one place that reads the clocks, and that writes times as people and programs read them.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use nix::time::{ClockId, clock_gettime};
use xdpban_engine::time::{Mono, Now, Wall};

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
    local(wall).strftime("%Y/%m/%d %H:%M:%S").to_string()
}

/// `wall` in local time as syslog's traditional messages have it (RFC 3164): `Nov  3 08:15:42`.
pub fn syslog_stamp(wall: Wall) -> String {
    local(wall).strftime("%b %e %H:%M:%S").to_string()
}

/// `wall` in local time, to the second and with its offset, for people who may copy it: `2026-11-23T09:15:42+01:00`.
pub fn local_rfc3339(wall: Wall) -> String {
    local(wall).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// As [`local_rfc3339`], of a time that is written; what is no time stays as it is.
pub fn localized(rfc3339: &str) -> String {
    let time = rfc3339.parse::<Timestamp>();
    time.map_or_else(|_| rfc3339.to_owned(), |time| local_rfc3339(Wall(time.as_microsecond())))
}

/// `wall` in the zone of the host.
pub fn local(wall: Wall) -> Zoned {
    timestamp(wall).to_zoned(TimeZone::system())
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
    fn a_time_that_is_shown_names_the_same_second() {
        let shown = localized("2026-11-23T08:15:42.120Z");
        assert_eq!(shown.len(), "2026-11-23T09:15:42+01:00".len(), "{shown}");
        let read: Timestamp = shown.parse().unwrap();
        assert_eq!(read.as_microsecond(), 1_795_421_742_000_000, "{shown}");
        assert_eq!(localized("soon"), "soon");
    }

    #[test]
    fn clocks_advance() {
        let (a, b) = (now(), now());
        assert!(a.mono.0 > 0 && b.mono >= a.mono);
    }
}
