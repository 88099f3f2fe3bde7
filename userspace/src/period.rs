//! Times and periods as people name them, and the steps that a timeline divides a period into.

use std::fmt;
use std::time::Duration;

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::TimeZone;
use jiff::{RoundMode, Span, Timestamp, Unit, Zoned, ZonedRound};
use xdpban_engine::time::Wall;

use crate::config::duration;

/// How far back a report reaches where nothing else is asked for.
const DEFAULT: &str = "30d";

/// Why a period cannot be reported on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// It is no time that is known here.
    #[error(
        "`{0}` is not a time; write 2026-10-31, 2026-10, 2026-10-31T08:00, 2026-10-31T08:00:00Z, 30d (ago), today, \
         yesterday, or this or last with week, month, quarter or year"
    )]
    Syntax(String),
    /// It is before 1970 or after 9000.
    #[error("`{0}` is out of range")]
    Range(String),
    /// It has no length.
    #[error("the period ends at {to}, not after it begins at {from}")]
    Empty {
        /// Its begin.
        from: String,
        /// Its end.
        to: String,
    },
}

/// A period of civil time, and the zone whose days it is told in.
#[derive(Clone, Debug)]
pub struct Period {
    /// Its first moment.
    pub from: Wall,
    /// The moment after its last.
    pub to: Wall,
    zone: TimeZone,
}

/// What a timeline counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Hours.
    Hour,
    /// Days.
    Day,
    /// Weeks from Monday.
    Week,
    /// Months.
    Month,
    /// Years.
    Year,
}

/// What a text names: a moment, or a time with a begin and an end.
struct Named {
    from: Zoned,
    to: Zoned,
    /// It is a time of its own, such as "last month", so that it needs no `--to`.
    whole: bool,
}

/// The moment at which what `text` names begins: the time itself, or the first moment of a day, a month or a span such as
/// "last week".
///
/// # Errors
/// It names no time.
pub fn begin(text: &str, now: &Zoned) -> Result<Wall, PeriodError> {
    name(text, now).map(|named| wall(&named.from))
}

impl Period {
    /// The period from `from`, by default 30 days ago, to `to`, by default now. A day, a month or a year as the end is
    /// included. A span such as "last month" as the begin ends where it ends, unless `to` says otherwise. What lies
    /// ahead of `now` is left off.
    ///
    /// # Errors
    /// A text names no time, or the period would have no length.
    pub fn new(from: Option<&str>, to: Option<&str>, now: &Zoned) -> Result<Period, PeriodError> {
        let from = name(from.unwrap_or(DEFAULT), now)?;
        let to = match to {
            Some(to) => name(to, now)?.to,
            None if from.whole => from.to,
            None => now.clone(),
        };
        let (from, to) = (from.from, to.min(now.clone()));
        if from >= to {
            let text = |time: &Zoned| time.strftime("%Y-%m-%d %H:%M:%S %:z").to_string();
            return Err(PeriodError::Empty { from: text(&from), to: text(&to) });
        }
        Ok(Period { from: wall(&from), to: wall(&to), zone: now.time_zone().clone() })
    }

    /// Whether `at` lies within it.
    pub fn contains(&self, at: Wall) -> bool {
        self.from <= at && at < self.to
    }

    /// Its zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The step by which a timeline of it has about a hundred bars at most.
    pub fn step(&self) -> Step {
        const DAY: u64 = 86_400;
        match self.to.since(self.from).as_secs() {
            seconds if seconds <= 2 * DAY => Step::Hour,
            seconds if seconds <= 93 * DAY => Step::Day,
            seconds if seconds <= 2 * 366 * DAY => Step::Week,
            seconds if seconds <= 9 * 366 * DAY => Step::Month,
            _ => Step::Year,
        }
    }

    /// Where each step of it begins, the first at its begin. Days are those of its zone: the one on which the clocks
    /// change has 23 hours or 25.
    pub fn steps(&self) -> Vec<Wall> {
        let step = self.step();
        let mut starts = vec![self.from];
        let mut at = self.zoned(self.from);
        // Where a civil time were out of range, the last step would be longer.
        while let Some(begin) = next(&at, step).filter(|begin| wall(begin) < self.to) {
            starts.push(wall(&begin));
            at = begin;
        }
        starts
    }

    /// `at` in the zone.
    pub fn zoned(&self, at: Wall) -> Zoned {
        let end = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_microsecond(at.0).unwrap_or(end).to_zoned(self.zone.clone())
    }

    /// The days that it is made of, the first and the last, where it is made of whole ones.
    pub fn whole_days(&self) -> Option<(Date, Date)> {
        let (from, to) = (self.zoned(self.from), self.zoned(self.to));
        let midnight = |at: &Zoned| at.start_of_day().is_ok_and(|start| start == *at);
        let last = to.date().yesterday().ok()?;
        (midnight(&from) && midnight(&to)).then_some((from.date(), last))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Hour => "hour",
            Step::Day => "day",
            Step::Week => "week",
            Step::Month => "month",
            Step::Year => "year",
        })
    }
}

fn wall(at: &Zoned) -> Wall {
    Wall(at.timestamp().as_microsecond())
}

/// What `text` names, by the calendar and the zone of `now`.
fn name(text: &str, now: &Zoned) -> Result<Named, PeriodError> {
    let text = text.trim();
    let shown = || text.chars().take(64).collect::<String>();
    let lower = text.to_ascii_lowercase();
    let midnight = |day: Date| day.to_zoned(now.time_zone().clone()).ok();
    let named = if lower == "now" {
        moment(now.clone())
    } else if let Some((first, next)) = calendar(&lower, now.date()) {
        midnight(first).zip(midnight(next)).map(|(from, to)| Named { from, to, whole: true })
    } else if let Some((first, next)) = numbered(&lower) {
        midnight(first).zip(midnight(next)).map(|(from, to)| Named { from, to, whole: false })
    } else if let Ok(at) = text.parse::<Timestamp>() {
        moment(at.to_zoned(now.time_zone().clone()))
    } else if let Ok(at) = text.parse::<DateTime>() {
        at.to_zoned(now.time_zone().clone()).ok().and_then(moment)
    } else if let Some(ago) = ago(&lower) {
        now.checked_sub(ago).ok().and_then(moment)
    } else {
        return Err(PeriodError::Syntax(shown()));
    };
    let known = |at: &Zoned| (1970..=9000).contains(&at.year());
    named.filter(|named| known(&named.from) && known(&named.to)).ok_or_else(|| PeriodError::Range(shown()))
}

fn moment(at: Zoned) -> Option<Named> {
    Some(Named { from: at.clone(), to: at, whole: false })
}

/// A span of the calendar by its place beside `today`: its first day, and the day after its last.
fn calendar(text: &str, today: Date) -> Option<(Date, Date)> {
    let (back, unit) = match text.split_whitespace().collect::<Vec<_>>()[..] {
        ["today"] => (0, "day"),
        ["yesterday"] => (1, "day"),
        ["this", unit] => (0, unit),
        ["last", unit] => (1, unit),
        _ => return None,
    };
    let month = today.first_of_month();
    let (first, length) = match unit {
        "day" => (today, Span::new().days(1)),
        "week" => (whole(today, Step::Week)?.0, Span::new().weeks(1)),
        "month" => (month, Span::new().months(1)),
        "quarter" => {
            let into_it = Span::new().months((month.month() - 1) % 3);
            (month.checked_sub(into_it).ok()?, Span::new().months(3))
        }
        "year" => (today.first_of_year(), Span::new().years(1)),
        _ => return None,
    };
    let first = if back == 1 { first.checked_sub(length).ok()? } else { first };
    Some((first, first.checked_add(length).ok()?))
}

/// A day, a month or a year by its number: its first day, and the day after its last.
fn numbered(text: &str) -> Option<(Date, Date)> {
    let number = |part: &str, length: usize| {
        let digits = part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse::<i16>().ok()).flatten()
    };
    let small = |part: &str| number(part, 2)?.try_into().ok();
    let (day, step) = match text.split('-').collect::<Vec<_>>()[..] {
        [year] => (Date::new(number(year, 4)?, 1, 1), Step::Year),
        [year, month] => (Date::new(number(year, 4)?, small(month)?, 1), Step::Month),
        [year, month, day] => (Date::new(number(year, 4)?, small(month)?, small(day)?), Step::Day),
        _ => return None,
    };
    whole(day.ok()?, step)
}

/// A duration with its units, "ago" or not: a bare number would be anyone's guess.
fn ago(text: &str) -> Option<Duration> {
    let text = text.strip_suffix("ago").unwrap_or(text).trim_end();
    let bare = text.bytes().all(|byte| byte.is_ascii_digit());
    if bare { None } else { duration::parse(text).ok() }
}

/// The step of days or more that `day` lies in: its first day, and the first of the next.
fn whole(day: Date, step: Step) -> Option<(Date, Date)> {
    let (first, length) = match step {
        Step::Hour | Step::Day => (day, Span::new().days(1)),
        Step::Week => {
            let since_monday = day.weekday().since(Weekday::Monday);
            (day.checked_sub(Span::new().days(since_monday)).ok()?, Span::new().weeks(1))
        }
        Step::Month => (day.first_of_month(), Span::new().months(1)),
        Step::Year => (day.first_of_year(), Span::new().years(1)),
    };
    Some((first, first.checked_add(length).ok()?))
}

/// The begin of the first step after `at`.
fn next(at: &Zoned, step: Step) -> Option<Zoned> {
    if step == Step::Hour {
        let hour = ZonedRound::new().smallest(Unit::Hour).mode(RoundMode::Floor);
        return at.round(hour).ok()?.checked_add(Span::new().hours(1)).ok();
    }
    let (_, next) = whole(at.date(), step)?;
    next.to_zoned(at.time_zone().clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Tuesday, some weeks after Berlin's clocks went back.
    fn now() -> Zoned {
        "2026-11-24T14:30:15[Europe/Berlin]".parse().unwrap()
    }

    fn period(from: Option<&str>, to: Option<&str>) -> (String, String) {
        let period = Period::new(from, to, &now()).unwrap();
        let text = |at| period.zoned(at).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        (text(period.from), text(period.to))
    }

    #[test]
    fn what_people_write() {
        let now = "2026-11-24T14:30:15+01:00";
        for (from, to, begin, end) in [
            (None, None, "2026-10-25T14:30:15+01:00", now),
            (Some("7d"), None, "2026-11-17T14:30:15+01:00", now),
            (Some("36h ago"), Some("now"), "2026-11-23T02:30:15+01:00", now),
            (
                Some("2026-10-01"),
                Some("2026-10-31"),
                "2026-10-01T00:00:00+02:00",
                "2026-11-01T00:00:00+01:00",
            ),
            (Some("2026-10"), None, "2026-10-01T00:00:00+02:00", now),
            (Some("2026-09"), Some("2026-10"), "2026-09-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00"),
            (Some("2025"), Some("2025"), "2025-01-01T00:00:00+01:00", "2026-01-01T00:00:00+01:00"),
            (Some("last month"), None, "2026-10-01T00:00:00+02:00", "2026-11-01T00:00:00+01:00"),
            (Some("Last  Month"), Some("today"), "2026-10-01T00:00:00+02:00", now),
            (Some("last week"), None, "2026-11-16T00:00:00+01:00", "2026-11-23T00:00:00+01:00"),
            (Some("last quarter"), None, "2026-07-01T00:00:00+02:00", "2026-10-01T00:00:00+02:00"),
            (Some("this quarter"), None, "2026-10-01T00:00:00+02:00", now),
            (Some("last year"), None, "2025-01-01T00:00:00+01:00", "2026-01-01T00:00:00+01:00"),
            (Some("this week"), None, "2026-11-23T00:00:00+01:00", now),
            (Some("yesterday"), None, "2026-11-23T00:00:00+01:00", "2026-11-24T00:00:00+01:00"),
            (Some("today"), None, "2026-11-24T00:00:00+01:00", now),
            (Some("2026-11-24T08:00"), None, "2026-11-24T08:00:00+01:00", now),
            (Some("2026-11-24 08:00:30"), None, "2026-11-24T08:00:30+01:00", now),
            (Some("2026-11-24T08:00:00Z"), None, "2026-11-24T09:00:00+01:00", now),
            (Some("2026-11-24t08:00:00z"), Some("2099-01-01"), "2026-11-24T09:00:00+01:00", now),
        ] {
            assert_eq!(period(from, to), (begin.to_owned(), end.to_owned()), "{from:?} {to:?}");
        }
    }

    #[test]
    fn what_is_named_begins_at_a_moment() {
        for (text, at) in [
            ("2026-11-23T08:15:42.120Z", "2026-11-23T09:15:42.12+01:00"),
            ("2026-11-23T09:15:42+01:00", "2026-11-23T09:15:42+01:00"),
            ("2026-11-23T09:15:42", "2026-11-23T09:15:42+01:00"),
            ("yesterday", "2026-11-23T00:00:00+01:00"),
            ("2026-11", "2026-11-01T00:00:00+01:00"),
            ("1h", "2026-11-24T13:30:15+01:00"),
        ] {
            let at: Timestamp = at.parse().unwrap();
            assert_eq!(begin(text, &now()), Ok(Wall(at.as_microsecond())), "{text}");
        }
        assert!(matches!(begin("30", &now()), Err(PeriodError::Syntax(_))));
    }

    #[test]
    fn what_is_no_period() {
        let error = |from: &str, to: &str| Period::new(Some(from), Some(to), &now()).unwrap_err();
        for text in
            ["", "soon", "30", "2026-13", "2026-02-30", "30x", "last", "last decade", "last month ago", "é"]
        {
            assert!(matches!(error(text, "now"), PeriodError::Syntax(_)), "{text}");
        }
        for text in ["1969-12-31", "9001", "9999-12-31", "3000w"] {
            assert!(matches!(error(text, "now"), PeriodError::Range(_)), "{text}");
        }
        assert!(matches!(error("today", "yesterday"), PeriodError::Empty { .. }));
        assert!(matches!(error("now", "now"), PeriodError::Empty { .. }));
        assert!(matches!(error("2030-01-01", "2031-01-01"), PeriodError::Empty { .. }));
    }

    #[test]
    fn the_steps_of_a_period_are_few_and_whole() {
        for (from, to, step, count) in [
            ("yesterday", "yesterday", Step::Hour, 24),
            // Clocks went back: this day has 25 hours.
            ("2026-10-25", "2026-10-25", Step::Hour, 25),
            ("2026-03-29", "2026-03-29", Step::Hour, 23),
            ("last month", "last month", Step::Day, 31),
            ("90m", "now", Step::Hour, 2),
            ("30d", "now", Step::Day, 31),
            ("2025", "2025", Step::Week, 53),
            ("2021", "2026", Step::Month, 71),
            ("1970", "now", Step::Year, 57),
        ] {
            let period = Period::new(Some(from), Some(to), &now()).unwrap();
            let steps = period.steps();
            assert_eq!((period.step(), steps.len()), (step, count), "{from} {to}");
            assert_eq!(steps[0], period.from);
            assert!(steps.is_sorted_by(|a, b| a < b) && *steps.last().unwrap() < period.to);
        }
    }

    #[test]
    fn whole_days_are_known_as_such() {
        let whole = |from, to| Period::new(Some(from), Some(to), &now()).unwrap().whole_days();
        let october = (Date::constant(2026, 10, 1), Date::constant(2026, 10, 31));
        assert_eq!(whole("last month", "last month"), Some(october));
        assert_eq!(whole("30d", "now"), None);
    }
}
