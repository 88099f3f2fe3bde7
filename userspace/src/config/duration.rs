//! Durations as people write them: `100s`, `10m`, `1h30m`, `1d`, `1w`, `6y`. A year has 365 days.

use std::time::Duration;

/// Units in descending order, with their seconds.
const UNITS: [(char, u64); 6] =
    [('y', 31_536_000), ('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The longest duration: 100 years. The kernel's clock of nanoseconds reaches no further than 584.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is not written as one.
    #[error("`{0}` is not a duration; write it like 100s, 10m, 1h30m, 1d, 1w or 6y")]
    Syntax(String),
    /// Nothing lasts for no time, or less.
    #[error("a duration must be longer than zero")]
    NotPositive,
    /// It is longer than [`LONGEST`].
    #[error("a duration is at most 100 years")]
    TooLong,
}

/// Reads a duration: numbers with units, the largest first, each unit at most once; or a bare number of seconds.
///
/// # Errors
/// Whatever else the text is; zero; more than [`LONGEST`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let syntax = || DurationError::Syntax(text.chars().take(64).collect());
    if text.starts_with('-') {
        return Err(DurationError::NotPositive);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return seconds(text.parse().map_err(|_| DurationError::TooLong)?);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits =
            rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0).ok_or_else(syntax)?;
        let (number, after) = rest.split_at(digits);
        let mut after = after.chars();
        let unit = after.next().ok_or_else(syntax)?;
        // The iterator goes on from the last unit, so that a larger one, or the same, is not found after it.
        let (_, unit) = units.find(|(name, _)| *name == unit).ok_or_else(syntax)?;
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        total = number
            .checked_mul(*unit)
            .and_then(|part| total.checked_add(part))
            .ok_or(DurationError::TooLong)?;
        rest = after.as_str();
    }
    if text.is_empty() { Err(syntax()) } else { seconds(total) }
}

/// A duration of so many whole seconds.
///
/// # Errors
/// Zero; more than [`LONGEST`].
pub fn seconds(number: u64) -> Result<Duration, DurationError> {
    match Duration::from_secs(number) {
        Duration::ZERO => Err(DurationError::NotPositive),
        duration if duration > LONGEST => Err(DurationError::TooLong),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, secs) in [
            ("100s", 100),
            ("10m", 600),
            ("1h30m", 5_400),
            ("1d", 86_400),
            ("1w", 604_800),
            ("6y", 189_216_000),
            ("1w2d3h4m5s", 788_645),
            ("90", 90),
            ("0h1s", 1),
            ("100", 100),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(secs)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in
            ["", "s", "10x", "1.5h", "10 m", " 10m", "m10", "30m1h", "1m1m", "10m5", "+5s", "١s", "1µ"]
        {
            assert!(matches!(parse(text), Err(DurationError::Syntax(_))), "{text}");
        }
        for text in ["0", "0s", "0h0m", "-5s", "-5"] {
            assert_eq!(parse(text), Err(DurationError::NotPositive), "{text}");
        }
        for text in ["36501d", "99999999999999999999", "99999999999999999999w", "18446744073709551615w"] {
            assert_eq!(parse(text), Err(DurationError::TooLong), "{text}");
        }
        assert_eq!(parse("36500d"), Ok(LONGEST));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            prop_assert!(parse(&text).is_ok_and(|d| d > Duration::ZERO) || parse(&text).is_err());
        }

        #[test]
        fn numbers_and_units(text in "([0-9]{1,22}[ywdhms]?){0,6}") {
            prop_assert!(parse(&text).map_or(true, |duration| duration > Duration::ZERO && duration <= LONGEST));
        }
    }
}
