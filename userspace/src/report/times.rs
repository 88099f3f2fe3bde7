//! Times, durations and figures as the readers of a report read them.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Serialize, Serializer};
use xdpban_engine::time::Wall;

use super::period::{Period, Step};
use crate::human;

/// The zone in which a report's times are shown.
#[derive(Clone, Debug)]
pub struct Zone {
    zone: TimeZone,
    /// The offset from UTC, where it is the same for all that the report is about.
    offset: Option<String>,
}

impl Zone {
    /// The zone of `period`, for a report that tells of times until `until`.
    pub(super) fn new(period: &Period, until: Wall) -> Zone {
        let zone = period.zone().clone();
        let from = period.zoned(period.from);
        let changes =
            |change: jiff::tz::TimeZoneTransition<'_>| change.timestamp().as_microsecond() <= until.0;
        let varies = zone.following(from.timestamp()).next().is_some_and(changes);
        let offset = (!varies).then(|| from.strftime("%:z").to_string());
        Zone { zone, offset }
    }

    /// The zone, and where it stands to UTC.
    pub fn name(&self) -> String {
        let name = self.zone.iana_name().unwrap_or("local time");
        match &self.offset {
            Some(offset) if offset == "+00:00" => "UTC".to_owned(),
            Some(offset) => format!("{name} (UTC{offset})"),
            None => format!("{name} (the offset from UTC stands beside each time)"),
        }
    }

    /// `2026-10-31 08:15:42`, with the offset from UTC where that varies within the report.
    pub fn moment(&self, at: Wall) -> String {
        let format = if self.offset.is_some() { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S%:z" };
        self.at(at).strftime(format).to_string()
    }

    /// `31 October 2026, 08:15`.
    pub fn long(&self, at: Wall) -> String {
        let format = if self.offset.is_some() { "%-d %B %Y, %H:%M" } else { "%-d %B %Y, %H:%M (UTC%:z)" };
        self.at(at).strftime(format).to_string()
    }

    /// The period from `from` to before `to`: `1 to 31 October 2026` where it is made of whole days.
    pub fn period(&self, from: Wall, to: Wall) -> String {
        let midnight = |at: &Zoned| at.start_of_day().is_ok_and(|start| start == *at);
        let (begin, end) = (self.at(from), self.at(to));
        match end.date().yesterday() {
            Ok(last) if midnight(&begin) && midnight(&end) => days(begin.date(), last),
            _ => format!("{} to {}", self.long(from), self.long(to)),
        }
    }

    /// What a step of a timeline that begins at `at` is called.
    pub fn step(&self, step: Step, at: Wall) -> String {
        let format = match step {
            Step::Hour if self.offset.is_some() => "%-d %b %Y, %H:%M",
            Step::Hour => "%-d %b %Y, %H:%M%:z",
            Step::Day => "%a %-d %b %Y",
            Step::Week => "week of %-d %b %Y",
            Step::Month => "%B %Y",
            Step::Year => "%Y",
        };
        self.at(at).strftime(format).to_string()
    }

    /// The same, in as few letters as go below an axis.
    pub fn step_in_short(&self, step: Step, at: Wall) -> String {
        let format = match step {
            Step::Hour => "%H:%M",
            Step::Day | Step::Week => "%-d %b",
            Step::Month => "%b %Y",
            Step::Year => "%Y",
        };
        self.at(at).strftime(format).to_string()
    }

    fn at(&self, at: Wall) -> Zoned {
        let end = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_microsecond(at.0).unwrap_or(end).to_zoned(self.zone.clone())
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.zone.iana_name().or(self.offset.as_deref()).unwrap_or("local"))
    }
}

fn days(first: Date, last: Date) -> String {
    let text = |day: Date, format: &str| day.strftime(format).to_string();
    let end = text(last, "%-d %B %Y");
    if first == last {
        end
    } else if (first.year(), first.month()) == (last.year(), last.month()) {
        format!("{} to {end}", text(first, "%-d"))
    } else if first.year() == last.year() {
        format!("{} to {end}", text(first, "%-d %B"))
    } else {
        format!("{} to {end}", text(first, "%-d %B %Y"))
    }
}

/// Milliseconds in two or three digits: `0.05 ms`, `4.3 ms`, `451 ms`, `2.5 s`, `1 min 5 s`.
pub(super) fn ms(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        ms => human::duration(Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(Duration::MAX)),
    }
}

/// A whole number of seconds.
pub(super) fn seconds(seconds: u64) -> String {
    human::duration(Duration::from_secs(seconds))
}

/// `part` of `whole` in percent. Nothing but all of it is 100 %, and nothing but nothing is 0 %.
#[allow(clippy::cast_precision_loss, reason = "shown to three digits")]
pub(super) fn percent(part: u64, whole: u64) -> String {
    let share = part as f64 / whole.max(1) as f64 * 100.0;
    match share {
        _ if part == 0 => "0 %".to_owned(),
        _ if part >= whole => "100 %".to_owned(),
        share if share < 0.1 => "under 0.1 %".to_owned(),
        share if share > 99.9 => "over 99.9 %".to_owned(),
        share if !(10.0..99.0).contains(&share) => format!("{share:.1} %"),
        share => format!("{share:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(from: &str, to: &str, zone: &str) -> (Zone, Wall, Wall) {
        let now: Zoned = format!("2026-11-24T12:00:00[{zone}]").parse().unwrap();
        let period = Period::new(Some(from), Some(to), &now).unwrap();
        (Zone::new(&period, period.to), period.from, period.to)
    }

    #[test]
    fn periods_as_people_say_them() {
        for (from, to, text) in [
            ("2026-10", "2026-10", "1 to 31 October 2026"),
            ("yesterday", "yesterday", "23 November 2026"),
            ("2026-08", "2026-09", "1 August to 30 September 2026"),
            ("2025", "2025", "1 January to 31 December 2025"),
            ("2025-12-31", "2026-01-01", "31 December 2025 to 1 January 2026"),
            ("12h", "now", "24 November 2026, 00:00 to 24 November 2026, 12:00"),
        ] {
            let (zone, from, to) = zone(from, to, "UTC");
            assert_eq!(zone.period(from, to), text);
        }
    }

    #[test]
    fn a_time_is_told_from_every_other() {
        let (summer, from, _) = zone("2026-08", "2026-08", "Europe/Berlin");
        assert_eq!(summer.name(), "Europe/Berlin (UTC+02:00)");
        assert_eq!(summer.moment(from), "2026-08-01 00:00:00");
        let (autumn, _, to) = zone("2026-10", "2026-10", "Europe/Berlin");
        let before = Wall(to.0 - 7 * 86_400_000_000);
        assert_eq!(autumn.moment(before), "2026-10-25 01:00:00+02:00");
        assert_eq!(autumn.moment(to), "2026-11-01 00:00:00+01:00");
        assert_eq!(zone("2026-08", "2026-08", "UTC").0.name(), "UTC");
    }

    #[test]
    fn figures() {
        assert_eq!(
            [0.046, 4.32, 451.2, 2500.0, 65_000.0].map(ms),
            ["0.05 ms", "4.3 ms", "451 ms", "2.5 s", "1 min 5 s"]
        );
        assert_eq!(
            [(0, 5), (1, 10_000), (1, 20), (1, 2), (995, 1000), (99_999, 100_000), (7, 7), (0, 0)]
                .map(|(part, whole)| percent(part, whole)),
            ["0 %", "under 0.1 %", "5.0 %", "50 %", "99.5 %", "over 99.9 %", "100 %", "0 %"]
        );
    }
}
