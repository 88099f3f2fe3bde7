//! What is remembered of each source: its windows, the names that it tried, and its latest lines.
//!
//! Bounds: as many sources as the caller allows (beyond, the one quiet for longest is forgotten); of each at most
//! [`NAMES`] names and [`LINES`] lines; the text of all lines together at most [`TEXT`] bytes, where the newest overwrites
//! the oldest. Under a flood from very many sources a slow one may so lose its older lines, never its counts.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::lru::Lru;
use crate::moment::Moment;
use crate::rules::RuleId;
use crate::windows::Window;

/// Names kept of a source: its first.
const NAMES: usize = 10;
/// Bytes kept of a name.
const NAME: usize = 64;
/// Lines kept of a source: its latest.
const LINES: usize = 5;
/// Bytes kept of a line.
const LINE: usize = 512;
/// Bytes kept of all lines.
const TEXT: usize = 8 << 20;

/// A source as windows know it: an IPv4 address in its IPv6-mapped form, or the prefix of an IPv6 address, so that the
/// addresses that one host can choose among count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SourceId(u128);

impl SourceId {
    pub(crate) fn of(source: IpAddr, ipv6_prefix: u8) -> SourceId {
        SourceId(match source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => {
                let below = 128u32.saturating_sub(u32::from(ipv6_prefix));
                v6.to_bits() & u128::MAX.checked_shl(below).unwrap_or(0)
            }
        })
    }

    fn is_ipv6(self) -> bool {
        Ipv6Addr::from_bits(self.0).to_ipv4_mapped().is_none()
    }
}

/// What is remembered of one source.
#[derive(Debug, Default)]
pub(crate) struct Source {
    windows: Vec<(RuleId, Window)>,
    /// Each name after a byte that says how long it is; the first [`NAMES`] of them.
    names: Vec<u8>,
    lines: [Excerpt; LINES],
    next_line: u8,
}

impl Source {
    /// Counts towards a correlated rule; see [`Window::add`].
    pub(crate) fn count(
        &mut self,
        rule: RuleId,
        at: Moment,
        attempts: u32,
        count: u32,
        length: Duration,
    ) -> Option<u32> {
        let place = match self.windows.iter().position(|(id, _)| *id == rule) {
            Some(place) => place,
            None => {
                // Most sources run into one rule, and there may be very many sources.
                self.windows.reserve_exact(1);
                self.windows.push((rule, Window::default()));
                self.windows.len() - 1
            }
        };
        self.windows.get_mut(place).and_then(|(_, window)| window.add(at, attempts, count, length))
    }

    fn add_name(&mut self, name: &[u8]) {
        let name = name.get(..NAME).unwrap_or(name);
        let mut room = NAMES;
        for known in self.names() {
            if known == name {
                return;
            }
            room -= 1;
        }
        if name.is_empty() || room == 0 {
            return;
        }
        if let Ok(len) = u8::try_from(name.len()) {
            self.names.push(len);
            self.names.extend_from_slice(name);
        }
    }

    fn names(&self) -> Names<'_> {
        Names(&self.names)
    }
}

#[derive(Clone)]
struct Names<'a>(&'a [u8]);

impl<'a> Iterator for Names<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&len, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some(name)
    }
}

/// The sources whose attempts are tracked.
#[derive(Debug)]
pub(crate) struct Sources {
    table: Lru<SourceId, Source>,
    text: Text,
}

impl Sources {
    pub(crate) fn new(capacity: usize) -> Sources {
        Sources { table: Lru::new(capacity), text: Text::new(TEXT) }
    }

    pub(crate) fn set_capacity(&mut self, capacity: usize) {
        self.table.set_capacity(capacity);
    }

    /// How many are tracked.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// How many have been forgotten for want of room.
    pub(crate) fn forgotten(&self) -> u64 {
        self.table.forgotten()
    }

    /// Takes note of a line of a source, and of the name that it tried.
    pub(crate) fn note(&mut self, id: SourceId, user: Option<&[u8]>, line: &[u8]) -> &mut Source {
        let source = self.table.touch_or_insert_with(id, Source::default);
        if let Some(user) = user {
            source.add_name(user);
        }
        let excerpt = self.text.keep(line.get(..LINE).unwrap_or(line));
        if let Some(line) = source.lines.get_mut(usize::from(source.next_line)) {
            *line = excerpt;
        }
        source.next_line = if usize::from(source.next_line) + 1 < LINES { source.next_line + 1 } else { 0 };
        source
    }

    /// The names that a source tried, the first few.
    pub(crate) fn users(&self, id: SourceId) -> Vec<Arc<str>> {
        self.table.peek(&id).map_or_else(Vec::new, |source| source.names().map(readable).collect())
    }

    /// The latest lines of a source, oldest first.
    pub(crate) fn evidence(&self, id: SourceId) -> Vec<Arc<str>> {
        let Some(source) = self.table.peek(&id) else { return Vec::new() };
        let (newer, older) = source.lines.split_at(usize::from(source.next_line).min(LINES));
        older.iter().chain(newer).filter_map(|&excerpt| self.text.read(excerpt)).map(readable).collect()
    }

    /// Drops the windows of rules for which `keep` does not hold.
    pub(crate) fn retain_windows(&mut self, keep: impl Fn(RuleId) -> bool) {
        for source in self.table.values_mut() {
            source.windows.retain(|&(rule, _)| keep(rule));
        }
    }

    /// Forgets the IPv6 sources, when they are told apart by another length of prefix.
    pub(crate) fn forget_ipv6(&mut self) {
        self.table.retain(|id, _| !id.is_ipv6());
    }
}

/// A piece of text that was kept: where it begins, counted from the first byte ever kept, in the upper 48 bits, and its
/// length. A word for both, as there may be very many sources; nobody logs 256 TiB between two starts.
#[derive(Clone, Copy, Debug, Default)]
struct Excerpt(u64);

impl Excerpt {
    /// A piece of at most [`LINE`] bytes.
    fn new(start: u64, len: usize) -> Excerpt {
        Excerpt(start << 16 | len as u64)
    }

    fn start(self) -> u64 {
        self.0 >> 16
    }

    fn len(self) -> usize {
        // Sixteen bits fit.
        usize::try_from(self.0 & 0xffff).unwrap_or(0)
    }
}

/// Text of which the newest part is kept: a ring that grows up to its capacity and then goes round.
#[derive(Debug)]
struct Text {
    bytes: Vec<u8>,
    capacity: usize,
    /// Bytes kept ever since, with those left out at the end of each round.
    written: u64,
}

impl Text {
    fn new(capacity: usize) -> Text {
        Text { bytes: Vec::new(), capacity, written: 0 }
    }

    fn place(&self, start: u64) -> usize {
        // The remainder is below the capacity, which is a usize.
        usize::try_from(start % self.capacity as u64).unwrap_or(0)
    }

    /// Keeps `piece`, which is no longer than [`LINE`] and shorter than the capacity.
    fn keep(&mut self, piece: &[u8]) -> Excerpt {
        let mut place = self.place(self.written);
        if place + piece.len() > self.capacity {
            self.written += (self.capacity - place) as u64;
            place = 0;
        }
        let end = place + piece.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(room) = self.bytes.get_mut(place..end) {
            room.copy_from_slice(piece);
        }
        let excerpt = Excerpt::new(self.written, piece.len());
        self.written += piece.len() as u64;
        excerpt
    }

    /// The text of `excerpt`; none where it is empty or was overwritten.
    fn read(&self, excerpt: Excerpt) -> Option<&[u8]> {
        if excerpt.len() == 0 || self.written - excerpt.start() > self.capacity as u64 {
            return None;
        }
        let place = self.place(excerpt.start());
        self.bytes.get(place..place + excerpt.len())
    }
}

/// Bytes as text that is safe to show: what is not UTF-8, what controls a terminal and what turns the direction of
/// writing is replaced.
fn readable(bytes: &[u8]) -> Arc<str> {
    if let Ok(text) = str::from_utf8(bytes)
        && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
    {
        return text.into();
    }
    let unsafe_to_show = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let text = String::from_utf8_lossy(bytes);
    if text.contains(unsafe_to_show) { text.replace(unsafe_to_show, "\u{fffd}").into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Mono;

    fn id(address: &str) -> SourceId {
        SourceId::of(address.parse().unwrap(), 64)
    }

    #[test]
    fn an_ipv6_source_is_its_prefix() {
        assert_eq!(id("2001:db8:1:2::1"), id("2001:db8:1:2:ffff::9"));
        assert_ne!(id("2001:db8:1:2::1"), id("2001:db8:1:3::1"));
        assert_ne!(id("203.0.113.7"), id("203.0.113.8"));
        let whole = |address: &str| SourceId::of(address.parse().unwrap(), 128);
        assert_ne!(whole("2001:db8::1"), whole("2001:db8::2"));
        assert!(id("::1").is_ipv6() && !id("0.0.0.0").is_ipv6());
    }

    #[test]
    fn the_first_names_and_the_latest_lines_are_kept() {
        let mut sources = Sources::new(2);
        let source = id("203.0.113.7");
        for n in 0..20 {
            let name = format!("user{}", n % 15);
            sources.note(source, Some(name.as_bytes()), format!("line {n}").as_bytes());
        }
        let texts = |texts: Vec<Arc<str>>| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(sources.users(source)), (0..10).map(|n| format!("user{n}")).collect::<Vec<_>>());
        assert_eq!(
            texts(sources.evidence(source)),
            (15..20).map(|n| format!("line {n}")).collect::<Vec<_>>()
        );
    }

    #[test]
    fn names_and_lines_are_cut_and_made_safe_to_show() {
        let mut sources = Sources::new(2);
        let source = id("203.0.113.7");
        let hostile = b"a\x1b[2J\xff\xe2\x80\xaeb";
        sources.note(source, Some(hostile), &[b'x'; 5000]);
        sources.note(source, Some(&[b'n'; 10_000]), hostile);
        assert_eq!(&*sources.users(source)[0], "a\u{fffd}[2J\u{fffd}\u{fffd}b");
        assert_eq!(sources.users(source)[1].len(), NAME);
        assert_eq!(sources.evidence(source)[0].len(), LINE);
        assert_eq!(&*sources.evidence(source)[1], "a\u{fffd}[2J\u{fffd}\u{fffd}b");
    }

    #[test]
    fn the_quietest_source_is_forgotten() {
        let mut sources = Sources::new(2);
        for address in ["203.0.113.1", "203.0.113.2", "203.0.113.1", "203.0.113.3"] {
            sources.note(id(address), Some(b"root"), b"line");
        }
        assert_eq!((sources.len(), sources.forgotten()), (2, 1));
        assert!(sources.evidence(id("203.0.113.2")).is_empty());
        assert_eq!(sources.evidence(id("203.0.113.1")).len(), 2);
    }

    #[test]
    fn windows_of_rules_that_are_gone_are_dropped() {
        let mut sources = Sources::new(2);
        let (source, at, length) = (id("203.0.113.7"), Moment::from(Mono(0)), Duration::from_secs(9));
        for rule in [1, 2] {
            assert_eq!(sources.note(source, None, b"").count(RuleId(rule), at, 1, 2, length), None);
        }
        sources.retain_windows(|rule| rule == RuleId(2));
        let state = sources.note(source, None, b"");
        assert_eq!([1, 2].map(|rule| state.count(RuleId(rule), at, 1, 2, length)), [None, Some(2)]);
    }

    proptest! {
        /// Text that is read back is what was kept, and the newest is always there.
        #[test]
        fn text_reads_back_or_is_gone(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..16), 1..60)) {
            let mut text = Text::new(50);
            let mut kept = Vec::new();
            for piece in &pieces {
                kept.push((text.keep(piece), piece));
                for (excerpt, piece) in &kept {
                    if let Some(read) = text.read(*excerpt) {
                        prop_assert_eq!(read, &piece[..]);
                    }
                }
                prop_assert!(piece.is_empty() || text.read(kept[kept.len() - 1].0) == Some(&piece[..]));
                prop_assert!(text.bytes.len() <= 50);
            }
        }
    }
}
