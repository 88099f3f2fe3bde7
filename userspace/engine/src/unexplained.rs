//! What sshd said that looks like a failure and matches no known form, by its shape: a new version that words its messages
//! anew must not blind the decoder silently.
//!
//! Bounds: [`SHAPES`] shapes of at most [`WORDS`] words of at most [`WORD`] bytes. Where there is no room for another, the
//! one seen least in the last hour gives way: a client that puts ever new words into its messages cannot drive out what
//! sshd says often. Counts are kept for each twelfth of an hour, so that the last hour is known to five minutes.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::moment::Moment;

/// Shapes that are counted at once.
const SHAPES: usize = 64;

/// Words of a message that make its shape; what comes later is mostly a client's.
const WORDS: usize = 16;

/// Bytes of a word; what is longer is no word of sshd's.
const WORD: usize = 24;

/// The parts of the hour that are counted apart, and how long each is.
const SLICES: usize = 12;
const SLICE: Duration = Duration::from_secs(300);

/// What stands in a shape for what differs from line to line.
const ANYTHING: &str = "…";

/// The words after which sshd names a user, a host or a file: the next one is not part of the shape.
const BEFORE_NAMES: [&str; 12] = [
    "user",
    "account",
    "group",
    "for",
    "from",
    "by",
    "host",
    "file",
    "principal",
    "command",
    "key",
    "subsystem",
];

/// What was not understood in the last hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unexplained {
    /// How many messages.
    pub count: u64,
    /// Their shapes, the commonest first, with how often each was seen. Safe to show. Not all of them, if there were many.
    pub shapes: Vec<(Arc<str>, u64)>,
}

/// Counts of the last hour.
#[derive(Clone, Copy, Debug, Default)]
struct Hour {
    slices: [u32; SLICES],
    /// The number of the latest slice, counted from the clock's start.
    latest: u64,
}

impl Hour {
    /// Lets time pass up to the slice with this number.
    fn advance(&mut self, to: u64) {
        for n in 1..=to.saturating_sub(self.latest).min(SLICES as u64) {
            *self.slice(self.latest + n) = 0;
        }
        self.latest = self.latest.max(to);
    }

    fn slice(&mut self, number: u64) -> &mut u32 {
        // The remainder is below the number of slices.
        &mut self.slices[usize::try_from(number % SLICES as u64).unwrap_or(0)]
    }

    fn add(&mut self, number: u64) {
        self.advance(number);
        if self.latest - number < SLICES as u64 {
            let count = self.slice(number);
            *count = count.saturating_add(1);
        }
    }

    fn sum(&self) -> u64 {
        self.slices.iter().copied().map(u64::from).sum()
    }
}

/// The counts of all, and of each shape.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    all: Hour,
    shapes: Vec<(Arc<str>, Hour)>,
    /// The shape of the line at hand. Kept for its memory.
    shape: String,
}

impl Shapes {
    /// Counts a message that was written at `at`.
    pub(crate) fn add(&mut self, message: &[u8], at: Moment) {
        let slice = slice_of(at);
        self.all.add(slice);
        shape_of(message, &mut self.shape);
        if let Some((_, hour)) = self.shapes.iter_mut().find(|(shape, _)| **shape == *self.shape) {
            hour.add(slice);
            return;
        }
        if self.shapes.len() >= SHAPES {
            self.forget_one(slice);
        }
        let mut hour = Hour::default();
        hour.add(slice);
        self.shapes.push((Arc::from(self.shape.as_str()), hour));
    }

    /// What was counted in the hour before `now`.
    pub(crate) fn last_hour(&self, now: Moment) -> Unexplained {
        let slice = slice_of(now);
        let sum = |hour: &Hour| {
            let mut hour = *hour;
            hour.advance(slice);
            hour.sum()
        };
        let mut shapes: Vec<(Arc<str>, u64)> =
            self.shapes.iter().map(|(shape, hour)| (Arc::clone(shape), sum(hour))).collect();
        shapes.retain(|(_, count)| *count > 0);
        shapes.sort_by(|a, b| (Reverse(a.1), &a.0).cmp(&(Reverse(b.1), &b.0)));
        Unexplained { count: sum(&self.all), shapes }
    }

    fn forget_one(&mut self, slice: u64) {
        self.shapes.iter_mut().for_each(|(_, hour)| hour.advance(slice));
        let least = self.shapes.iter().enumerate().min_by_key(|(_, (_, hour))| hour.sum());
        if let Some(place) = least.map(|(place, _)| place) {
            self.shapes.swap_remove(place);
        }
    }
}

fn slice_of(at: Moment) -> u64 {
    // Moments before the clock's start are of an hour long ago, unless the host has just started.
    at.since(Moment::START).as_secs() / SLICE.as_secs()
}

/// Puts the shape of `message` into `shape`: its words, without numbers, addresses, quoted parts and names.
fn shape_of(message: &[u8], shape: &mut String) {
    shape.clear();
    let mut quote = None;
    let mut name = false;
    let mut put = |part: &str| {
        // What stands for anything stands for any number of words.
        if part != ANYTHING || !shape.ends_with(ANYTHING) {
            if !shape.is_empty() {
                shape.push(' ');
            }
            shape.push_str(part);
        }
    };
    let words = message.split(|b| *b == b' ').filter(|word| !word.is_empty());
    for (n, word) in words.enumerate() {
        if n == WORDS {
            put(ANYTHING);
            break;
        }
        if let Some(end) = quote {
            if word.contains(&end) {
                quote = None;
            }
            continue;
        }
        if let Some(end) = opens(word) {
            put(ANYTHING);
            quote = (!closes(word, end)).then_some(end);
            name = false;
            continue;
        }
        let part = if name { ANYTHING } else { part(word) };
        put(part);
        name = BEFORE_NAMES.iter().any(|before| part.eq_ignore_ascii_case(before));
    }
}

/// What ends the quoted part that `word` begins.
fn opens(word: &[u8]) -> Option<u8> {
    match word {
        [quote @ (b'"' | b'\'' | b'`'), ..] => Some(*quote),
        [b'[', ..] => Some(b']'),
        [b'<', ..] => Some(b'>'),
        _ => None,
    }
}

fn closes(word: &[u8], end: u8) -> bool {
    word.split_first().is_some_and(|(_, rest)| rest.contains(&end))
}

/// A word as it stands in a shape.
fn part(word: &[u8]) -> &str {
    let of_words = |b: &u8| b.is_ascii_alphabetic() || b"-_.,:;()!/".contains(b);
    match str::from_utf8(word) {
        Ok(text) if word.len() <= WORD && word.iter().all(of_words) && !is_address(text) => text,
        _ => ANYTHING,
    }
}

/// Whether a word without digits is an address all the same, such as `::` or `fe::`.
fn is_address(word: &str) -> bool {
    word.trim_end_matches([',', ';', '.']).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Mono;

    fn shape(message: &str) -> String {
        let mut shape = String::new();
        shape_of(message.as_bytes(), &mut shape);
        shape
    }

    fn minute(n: u64) -> Moment {
        Moment::from(Mono(0).after(Duration::from_secs(60 * n)))
    }

    #[test]
    fn what_differs_from_line_to_line_is_not_in_the_shape() {
        for (message, expected) in [
            (
                "Quantum login failed for admin from 203.0.113.7 port 22",
                "Quantum login failed for … from … port …",
            ),
            (
                "Quantum login failed for root from 2001:db8::1 port 50000",
                "Quantum login failed for … from … port …",
            ),
            ("token 0x7f refused: key \"of a\" client", "token … refused: key … client"),
            ("denied: 'one' [two three four] <five six> end", "denied: … end"),
            ("failed reply: user name with spaces", "failed reply: user … with spaces"),
            ("not allowed a::", "not allowed …"),
            ("invalid \u{1b}[2J bytes \u{202e}x", "invalid … bytes …"),
            ("rhost=203.0.113.7 fail", "… fail"),
            ("", ""),
        ] {
            assert_eq!(shape(message), expected, "{message}");
        }
        assert_eq!(shape(&"fail ".repeat(40)), format!("{}{ANYTHING}", "fail ".repeat(16)));
    }

    #[test]
    fn the_last_hour_is_counted_and_the_commonest_come_first() {
        let mut shapes = Shapes::default();
        for n in 0..30 {
            shapes.add(format!("a failed {n}").as_bytes(), minute(n));
            if n % 10 == 0 {
                shapes.add(b"refused oddly", minute(n));
            }
        }
        let told = |at| {
            let hour = shapes.last_hour(minute(at));
            (hour.count, hour.shapes.iter().map(|(shape, n)| (shape.to_string(), *n)).collect::<Vec<_>>())
        };
        assert_eq!(told(30), (33, vec![("a failed …".to_owned(), 30), ("refused oddly".to_owned(), 3)]));
        // The first quarter of an hour is past: its fifteen lines, and two of the three.
        assert_eq!(told(70), (16, vec![("a failed …".to_owned(), 15), ("refused oddly".to_owned(), 1)]));
        assert_eq!(told(1000), (0, Vec::new()));
    }

    #[test]
    fn lines_of_long_ago_are_not_of_the_last_hour() {
        let mut shapes = Shapes::default();
        shapes.add(b"a failed thing", minute(500));
        shapes.add(b"a failed thing", minute(400));
        shapes.add(b"a failed thing", minute(460));
        assert_eq!(shapes.last_hour(minute(500)).count, 2);
    }

    #[test]
    fn a_flood_of_shapes_drives_out_none_that_is_common() {
        let mut shapes = Shapes::default();
        let letters = |n: u32| n.to_string().bytes().map(|b| char::from(b + b'a' - b'0')).collect::<String>();
        for n in 0..5000u32 {
            shapes.add(b"sshd says failed", minute(0));
            shapes.add(format!("failed {}", letters(n)).as_bytes(), minute(0));
            assert!(shapes.shapes.len() <= SHAPES);
        }
        let hour = shapes.last_hour(minute(0));
        assert_eq!(hour.count, 10_000);
        assert_eq!((&*hour.shapes[0].0, hour.shapes[0].1), ("sshd says failed", 5000));
    }

    proptest! {
        #[test]
        fn shapes_are_short_and_safe_to_show(message in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut shape = String::new();
            shape_of(&message, &mut shape);
            prop_assert!(shape.len() <= (WORDS + 1) * (WORD + 1));
            prop_assert!(!shape.contains(|c: char| c.is_control() || (!c.is_ascii() && c != '…')));
        }
    }
}
