//! Durations as fail2ban writes them: `10m`, `1h 30m`, `1d`, `600`; -1 means for ever.

/// The units, by what their names begin with, in seconds. Months and years are those of the calendar on average.
const UNITS: [(&[&str], f64); 7] = [
    (&["s", "ss", "se", "sec", "second", "seconds"], 1.0),
    (&["m", "mm", "mi", "min", "minute", "minutes"], 60.0),
    (&["h", "hh", "ho", "hou", "hour", "hours"], 3600.0),
    (&["d", "dd", "da", "day", "days"], 86_400.0),
    (&["w", "ww", "we", "wee", "week", "weeks"], 604_800.0),
    (&["mo", "mon", "month", "months"], 2_629_800.0),
    (&["y", "yy", "ye", "yea", "year", "years"], 31_557_600.0),
];

/// A duration in seconds; none where the text is none of the forms that people write. (fail2ban takes any expression of
/// Python.)
pub(super) fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut total = 0.0;
    let mut parts = 0;
    while !rest.trim_start().is_empty() {
        rest = rest.trim_start();
        if parts > 0 {
            rest = rest.strip_prefix('+').unwrap_or(rest).trim_start();
        }
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let after = after.trim_start();
        let unit = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let unit = unit.to_ascii_lowercase();
        let size = match unit.as_str() {
            "" => 1.0,
            unit => UNITS.iter().find(|(names, _)| names.contains(&unit)).map(|(_, size)| *size)?,
        };
        total += digits.parse::<f64>().ok()? * size;
        parts += 1;
        rest = after;
    }
    (parts > 0).then_some(sign * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        for (text, expected) in [
            ("600", 600.0),
            ("10m", 600.0),
            ("1h 30m", 5400.0),
            ("1hour+30min", 5400.0),
            ("1d12h", 129_600.0),
            ("2 weeks", 1_209_600.0),
            ("1mo", 2_629_800.0),
            ("1.5h", 5400.0),
            ("-1", -1.0),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "-", "10 fortnights", "60*60", "m", "1..2", "ten"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
