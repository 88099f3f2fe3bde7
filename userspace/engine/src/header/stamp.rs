//! Timestamps at the beginning of a line.

use crate::time::{Now, Wall};

const MICROS: i64 = 1_000_000;
const DAY: i64 = 86_400;

/// How far a stamp without a year may lie in the future: clocks and zones differ by less than that.
const AHEAD: i64 = DAY * 3 / 2;

/// A stamp that was recognised, and the text after it. The time is none where the fields make no date.
pub(super) type Stamped<'a> = (Option<Wall>, &'a [u8]);

/// A number of two digits.
fn two(tens: u8, ones: u8) -> Option<i64> {
    let digit = |b: u8| b.is_ascii_digit().then(|| i64::from(b - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

/// Bytes being read from the left.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// A number of at least `min` and at most `max` digits.
    fn digits(&mut self, min: usize, max: usize) -> Option<i64> {
        let mut value = 0;
        let mut count = 0;
        while let [b @ b'0'..=b'9', rest @ ..] = self.0 {
            if count == max {
                return None;
            }
            value = value * 10 + i64::from(b - b'0');
            self.0 = rest;
            count += 1;
        }
        (count >= min).then_some(value)
    }

    fn byte(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        (*first == wanted).then_some(())
    }

    /// `HH:MM:SS` and a fraction after `.` or `,` where there is one, in microseconds since midnight.
    fn clock(&mut self) -> Option<Option<i64>> {
        let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = self.0 else { return None };
        let (hour, minute, second) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
        if let [b'0'..=b'9', ..] = rest {
            return None;
        }
        self.0 = rest;
        let mut micros = 0;
        if let [b'.' | b',', b'0'..=b'9', ..] = self.0 {
            self.0 = self.0.split_at(1).1;
            let mut scale = MICROS / 10;
            while let [b @ b'0'..=b'9', rest @ ..] = self.0 {
                micros += i64::from(b - b'0') * scale;
                scale /= 10;
                self.0 = rest;
            }
        }
        // A leap second is written as :60.
        let valid = hour < 24 && minute < 60 && second <= 60;
        Some(valid.then(|| ((hour * 60 + minute) * 60 + second) * MICROS + micros))
    }

    /// The text after one space or at the end of the line; none where a stamp runs on into something else.
    fn end(self) -> Option<&'a [u8]> {
        match self.0 {
            [] => Some(self.0),
            [b' ', rest @ ..] => Some(rest),
            _ => None,
        }
    }
}

/// `2026-11-23T01:36:31.123456+01:00`: with or without fraction and zone, a space in place of the `T`, slashes (nginx)
/// in place of the hyphens. Without a zone it is local.
pub(super) fn iso<'a>(text: &'a [u8], now: &Now) -> Option<Stamped<'a>> {
    let mut cursor = Cursor(text);
    let year = cursor.digits(4, 4)?;
    let hyphen = if let [b'/', ..] = cursor.0 { b'/' } else { b'-' };
    cursor.byte(hyphen)?;
    let month = cursor.digits(2, 2)?;
    cursor.byte(hyphen)?;
    let day = cursor.digits(2, 2)?;
    cursor.byte(b'T').or_else(|| text.get(10).filter(|&&b| b == b' ' || b == b't').map(|_| ()))?;
    let clock = cursor.clock()?;
    let offset = zone(&mut cursor)?.unwrap_or_else(|| i64::from(now.utc_offset));
    let time = days(year, month, day).zip(clock).map(|(days, clock)| at(days, clock, offset));
    Some((time, cursor.end()?))
}

/// `Z`, `+01:00`, `+0100`, `+01` or nothing, in seconds ahead of UTC.
fn zone(cursor: &mut Cursor<'_>) -> Option<Option<i64>> {
    let (sign, rest) = match cursor.0 {
        [b'Z' | b'z', rest @ ..] => {
            cursor.0 = rest;
            return Some(Some(0));
        }
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return Some(None),
    };
    cursor.0 = rest;
    let hours = match cursor.0 {
        [h1 @ b'0'..=b'9', h2 @ b'0'..=b'9', rest @ ..] => {
            cursor.0 = rest;
            i64::from(h1 - b'0') * 10 + i64::from(h2 - b'0')
        }
        _ => return None,
    };
    if let [b':', rest @ ..] = cursor.0 {
        cursor.0 = rest;
    }
    let minutes = cursor.digits(0, 2)?;
    Some(Some(sign * (hours * 60 + minutes) * 60))
}

/// `Nov 23 01:36:31`, the day padded by a space, a zero or nothing, a year after it or not; local time.
pub(super) fn traditional<'a>(text: &'a [u8], now: &Now) -> Option<Stamped<'a>> {
    let (month, rest) = text.split_at_checked(4)?;
    let month = month_number(month)?;
    let mut cursor = Cursor(rest);
    if let [b' ', rest @ ..] = cursor.0 {
        cursor.0 = rest;
    }
    let day = cursor.digits(1, 2)?;
    cursor.byte(b' ')?;
    let year = match cursor.0 {
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', ..] => {
            let year = cursor.digits(4, 4)?;
            cursor.byte(b' ')?;
            Some(year)
        }
        _ => None,
    };
    let clock = cursor.clock()?;
    let offset = i64::from(now.utc_offset);
    let time = clock.and_then(|clock| match year {
        Some(year) => days(year, month, day).map(|days| at(days, clock, offset)),
        None => nearest(month, day, clock, offset, now),
    });
    // Some write a colon after the stamp.
    if let [b':', rest @ ..] = cursor.0 {
        cursor.0 = rest;
    }
    Some((time, cursor.end()?))
}

/// `23/Nov/2026:01:36:31 +0100`, the time of web servers' access logs.
pub(super) fn common<'a>(text: &'a [u8], now: &Now) -> Option<Stamped<'a>> {
    let mut cursor = Cursor(text);
    let day = cursor.digits(1, 2)?;
    cursor.byte(b'/')?;
    let (month, rest) = cursor.0.split_at_checked(3)?;
    let &[a, b, c] = month else { return None };
    let month = month_number(&[a, b, c, b' '])?;
    cursor.0 = rest;
    cursor.byte(b'/')?;
    let year = cursor.digits(4, 4)?;
    cursor.byte(b':')?;
    let clock = cursor.clock()?;
    if let [b' ', rest @ ..] = cursor.0 {
        cursor.0 = rest;
    }
    let offset = zone(&mut cursor)?.unwrap_or_else(|| i64::from(now.utc_offset));
    let time = days(year, month, day).zip(clock).map(|(days, clock)| at(days, clock, offset));
    Some((time, cursor.end()?))
}

fn month_number(text: &[u8]) -> Option<i64> {
    Some(match text {
        b"Jan " => 1,
        b"Feb " => 2,
        b"Mar " => 3,
        b"Apr " => 4,
        b"May " => 5,
        b"Jun " => 6,
        b"Jul " => 7,
        b"Aug " => 8,
        b"Sep " => 9,
        b"Oct " => 10,
        b"Nov " => 11,
        b"Dec " => 12,
        _ => return None,
    })
}

/// The latest year in which the date exists and does not lie ahead of the present.
fn nearest(month: i64, day: i64, clock: i64, offset: i64, now: &Now) -> Option<Wall> {
    let local_days = (now.wall.0.div_euclid(MICROS) + offset).div_euclid(DAY);
    let this_year = year_of(local_days);
    // Of next year only the first days can be near enough. Leap days are up to eight years apart.
    let latest = if month == 1 { this_year + 1 } else { this_year };
    (this_year - 8..=latest)
        .rev()
        .filter_map(|year| days(year, month, day))
        .map(|days| at(days, clock, offset))
        .find(|time| time.0 <= now.wall.0.saturating_add(AHEAD * MICROS))
}

fn at(days: i64, clock: i64, offset: i64) -> Wall {
    Wall((days * DAY - offset) * MICROS + clock)
}

/// Days from the Unix epoch to a date of the Gregorian calendar, none where there is no such date. The count runs in
/// eras of 400 years whose years begin in March, so that the leap day is the last of its year.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    // From 1 March of the year 0 to the epoch.
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The year in which a day since the Unix epoch lies: [`days`] the other way round.
fn year_of(day: i64) -> i64 {
    let day = day + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (year_of_era * 365 + year_of_era / 4 - year_of_era / 100);
    // January begins 306 days after March does.
    era * 400 + year_of_era + i64::from(day_of_year >= 306)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02 12:00 UTC, an hour east of it.
    const NOW: Now = Now { mono: crate::time::Mono(0), wall: Wall(1_767_355_200 * MICROS), utc_offset: 3600 };

    fn seconds(stamped: Option<Stamped<'_>>) -> Option<i64> {
        stamped.and_then(|(time, _)| time).map(|time| time.0 / MICROS)
    }

    #[test]
    fn reads_iso_stamps() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z x", 0),
            ("2026-11-23T01:36:31Z x", 1_795_397_791),
            ("2026-11-23T01:36:31.999999+01:00 x", 1_795_394_191),
            ("2026-11-23T01:36:31.9999+0100 x", 1_795_394_191),
            ("2026-11-23T01:36:31-05 x", 1_795_415_791),
            ("2026-11-23 01:36:31 x", 1_795_394_191),
            ("2000-02-29T00:00:00Z", 951_782_400),
        ] {
            assert_eq!(seconds(iso(text.as_bytes(), &NOW)), Some(expected), "{text}");
        }
        assert_eq!(iso(b"2026-11-23T01:36:31.120Z x", &NOW).unwrap().0.unwrap().0 % MICROS, 120_000);
        assert_eq!(iso(b"2026-02-29T01:36:31Z x", &NOW), Some((None, &b"x"[..])), "no such day");
        assert_eq!(iso(b"2026-11-23T25:36:31Z x", &NOW), Some((None, &b"x"[..])), "no such hour");
        for text in
            ["", "2026", "2026-11-23", "2026-11-23T01:36", "2026-11-23T01:36:31Zx", "2026-1-23T01:36:31Z"]
        {
            assert_eq!(iso(text.as_bytes(), &NOW), None, "{text}");
        }
    }

    #[test]
    fn infers_the_year() {
        for (text, expected) in [
            ("Jan  2 12:59:59 x", 1_767_355_199),
            ("Jan 02 13:00:00 x", 1_767_355_200),
            ("Jan 2 13:00:00 x", 1_767_355_200),
            // A little ahead is the same year still, and the day before New Year's Eve is past.
            ("Jan  3 13:00:00 x", 1_767_441_600),
            ("Jan  5 00:00:00 x", 1_736_031_600),
            ("Dec 31 23:59:59 x", 1_767_221_999),
            ("Feb 29 00:00:00 x", 1_709_161_200),
            ("Nov 23 2019 01:36:31 x", 1_574_469_391),
        ] {
            assert_eq!(seconds(traditional(text.as_bytes(), &NOW)), Some(expected), "{text}");
        }
        let eve = Now { wall: Wall(1_767_225_000 * MICROS), utc_offset: 0, ..NOW };
        assert_eq!(
            seconds(traditional(b"Jan  1 00:00:05 x", &eve)),
            Some(1_767_225_605),
            "a clock that is ahead"
        );
        for text in ["", "Nov", "Nov 23", "Nov 23 1:36:31 x", "Foo 23 01:36:31 x", "Nov 123 01:36:31 x"] {
            assert_eq!(traditional(text.as_bytes(), &NOW), None, "{text}");
        }
        assert_eq!(traditional(b"Feb 30 01:36:31 x", &NOW), Some((None, &b"x"[..])));
    }

    proptest::proptest! {
        #[test]
        fn days_and_years_agree(day in -1_000_000i64..3_000_000) {
            let year = year_of(day);
            proptest::prop_assert!(days(year, 1, 1).unwrap() <= day && day < days(year + 1, 1, 1).unwrap());
        }

        #[test]
        fn no_stamp_panics(text: Vec<u8>, wall: i64, utc_offset: i32) {
            let now = Now { wall: Wall(wall), utc_offset, ..NOW };
            iso(&text, &now);
            traditional(&text, &now);
        }

        #[test]
        fn no_digits_panic(text in "[A-Z][a-z]{2} [ 0-9]{1,3} [0-9:. ]{0,30}", wall: i64, utc_offset: i32) {
            let now = Now { wall: Wall(wall), utc_offset, ..NOW };
            traditional(text.as_bytes(), &now);
        }

        #[test]
        fn dates_are_told_apart(first in 0i64..40_000, second in 0i64..40_000) {
            let date = |day: i64| {
                let year = year_of(day);
                let of_year = day - days(year, 1, 1).unwrap();
                let month = (1..=12).rev().find(|m| days(year, *m, 1).unwrap() - days(year, 1, 1).unwrap() <= of_year);
                (year, month.unwrap(), day - days(year, month.unwrap(), 1).unwrap() + 1)
            };
            let (year, month, day) = date(first);
            proptest::prop_assert_eq!(days(year, month, day), Some(first));
            proptest::prop_assert_eq!(date(first) == date(second), first == second);
        }
    }
}
