//! Counts, sizes, durations and others' words as people read them.

use std::borrow::Cow;
use std::time::Duration;

/// A count with separators: `1,204`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun: `1 packet`, `1,204 packets`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    let plural = match noun.strip_suffix('s') {
        Some(_) => format!("{noun}es"),
        None => format!("{noun}s"),
    };
    format!("{} {}", count(n), if n == 1 { noun } else { &plural })
}

/// A size: `812 B`, `72.4 kB`, `1.2 GB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if n < 1000 {
        return format!("{n} B");
    }
    // Tenths of the unit, so that no float is needed.
    let mut tenths = n / 100;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if tenths < 10_000 {
            break;
        }
        tenths /= 1000;
        unit = next;
    }
    if tenths < 1000 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", tenths / 10)
    }
}

/// A duration in its two largest units: `58 s`, `9 min 30 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn duration(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let seconds = duration.as_secs();
    let Some(first) = UNITS.iter().position(|(size, _)| seconds >= *size) else {
        return "0 s".to_owned();
    };
    let (size, name) = UNITS[first];
    let mut text = format!("{} {name}", seconds / size);
    if let Some((next, next_name)) = UNITS.get(first + 1)
        && seconds % size / next > 0
    {
        text.push_str(&format!(" {} {next_name}", seconds % size / next));
    }
    text
}

/// An operator's reason without the number of the user, which is told beside it.
pub(crate) fn without_uid(reason: &str, uid: u32) -> &str {
    reason.strip_suffix(&format!(", by uid {uid}")).unwrap_or(reason)
}

/// Whether a character moves a cursor, breaks a line, or reorders or hides what stands beside it.
pub(crate) fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` without such characters: what a client chose must not reach a terminal as commands, nor make a reader see what is not
/// there.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(misleads) { text.replace(misleads, "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        assert_eq!([0, 999, 1000, 1204, 1_234_567].map(count), ["0", "999", "1,000", "1,204", "1,234,567"]);
        assert_eq!(counted(1, "packet"), "1 packet");
        assert_eq!(counted(1204, "packet"), "1,204 packets");
        assert_eq!(counted(2, "address"), "2 addresses");
    }

    #[test]
    fn sizes() {
        assert_eq!(
            [0, 999, 1000, 72_412, 999_999, 1_200_000_000, u64::MAX].map(bytes),
            ["0 B", "999 B", "1.0 kB", "72.4 kB", "999 kB", "1.2 GB", "18.4 EB"]
        );
    }

    #[test]
    fn durations() {
        assert_eq!(
            [0, 58, 60, 570, 7500, 273_600, 604_800].map(|s| duration(Duration::from_secs(s))),
            ["0 s", "58 s", "1 min", "9 min 30 s", "2 h 5 min", "3 d 4 h", "7 d"]
        );
    }

    #[test]
    fn nothing_hidden_comes_through() {
        assert_eq!(printable("root"), "root");
        assert_eq!(
            printable("a\x1b[2J\r\n\u{202e}b\u{200b}c\u{85}"),
            "a\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}b\u{fffd}c\u{fffd}"
        );
        assert_eq!(printable("Zoë 李"), "Zoë 李");
    }
}
