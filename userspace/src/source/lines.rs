//! A stream of bytes, cut into whole lines of bounded length.

use bytes::Bytes;
use memchr::{memchr, memchr_iter, memrchr};

use super::MAX_LINE;

/// The most that one read asks for, in bytes.
pub(super) const READ_SIZE: usize = 256 * 1024;

/// What a read completed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    /// Whole lines, each ended by `\n`, none longer than [`MAX_LINE`] without it.
    pub(super) bytes: Bytes,
    /// How many of them were longer and were cut.
    pub(super) cut: u32,
    /// How many bytes of the stream they took, what was cut off them included.
    pub(super) taken: u64,
}

/// The lines in `bytes`, each without its end; as [`super::Records::Lines`] has them.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(b'\n', bytes).map(move |end| {
        let line = bytes.get(start..end).unwrap_or_default();
        start = end + 1;
        line
    })
}

/// Holds what was read of a line until its end arrives. One buffer serves for good, so a read of a single line costs
/// one small allocation, and a read of thousands one copy of them all.
pub(super) struct Splitter {
    /// The beginning of an unfinished line, and behind it the space to read to.
    buffer: Box<[u8]>,
    /// The length of the unfinished line's beginning.
    held: usize,
    /// Bytes of the unfinished line beyond [`MAX_LINE`], which were passed over. Not zero: `held` is [`MAX_LINE`].
    skipped: u64,
}

impl Splitter {
    pub(super) fn new() -> Splitter {
        Splitter { buffer: vec![0; MAX_LINE + READ_SIZE].into_boxed_slice(), held: 0, skipped: 0 }
    }

    /// Where to read to; [`READ_SIZE`] bytes at least.
    pub(super) fn space(&mut self) -> &mut [u8] {
        // `held` is at most MAX_LINE: see `keep`.
        &mut self.buffer[self.held..]
    }

    /// Forgets the unfinished line: what comes next is from elsewhere.
    pub(super) fn clear(&mut self) {
        self.held = 0;
        self.skipped = 0;
    }

    /// Takes in the first `read` bytes of [`Splitter::space`] and hands out what they completed.
    pub(super) fn take(&mut self, read: usize) -> Lines {
        let end = (self.held + read).min(self.buffer.len());
        let filled = &self.buffer[..end];
        let mut out = Vec::new();
        let mut cut = 0;
        let mut taken = 0;
        let mut start = 0;

        if self.skipped > 0 {
            let Some(newline) = memchr(b'\n', &filled[self.held..]) else {
                self.skipped += read as u64;
                return Lines::default();
            };
            start = self.held + newline + 1;
            taken += self.skipped;
            self.skipped = 0;
            out.reserve_exact(end);
            out.extend_from_slice(&filled[..self.held]);
            out.push(b'\n');
            cut += 1;
        }

        // A stretch of MAX_LINE + 1 bytes that ends with a newline holds no line that is too long, so the newlines in
        // between need not be looked for.
        loop {
            let rest = &filled[start..];
            let stretch = &rest[..rest.len().min(MAX_LINE + 1)];
            if let Some(newline) = memrchr(b'\n', stretch) {
                if out.capacity() == 0 {
                    out.reserve_exact(memrchr(b'\n', rest).map_or(0, |last| last + 1));
                }
                out.extend_from_slice(&stretch[..=newline]);
                start += newline + 1;
            } else if stretch.len() <= MAX_LINE {
                break;
            } else if let Some(newline) = memchr(b'\n', &rest[MAX_LINE..]) {
                out.extend_from_slice(&rest[..MAX_LINE]);
                out.push(b'\n');
                cut += 1;
                start += MAX_LINE + newline + 1;
            } else {
                self.skipped = (rest.len() - MAX_LINE) as u64;
                break;
            }
        }
        taken += start as u64;
        self.keep(start, end);
        Lines { bytes: out.into(), cut, taken }
    }

    /// Moves the unfinished line that begins at `start` to the front, no more of it than [`MAX_LINE`].
    fn keep(&mut self, start: usize, end: usize) {
        let length = (end - start).min(MAX_LINE);
        self.buffer.copy_within(start..start + length, 0);
        self.held = length;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `stream` in pieces of the lengths that `sizes` gives, over and over.
    fn split(stream: &[u8], sizes: &[usize]) -> (Vec<u8>, u32, u64) {
        let mut splitter = Splitter::new();
        let (mut bytes, mut cut, mut taken) = (Vec::new(), 0, 0);
        let mut rest = stream;
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let read = rest.len().min(*size).min(READ_SIZE);
            splitter.space()[..read].copy_from_slice(&rest[..read]);
            rest = &rest[read..];
            let lines = splitter.take(read);
            bytes.extend_from_slice(&lines.bytes);
            cut += lines.cut;
            taken += lines.taken;
        }
        (bytes, cut, taken)
    }

    /// The same, said plainly.
    fn expected(stream: &[u8]) -> (Vec<u8>, u32, u64) {
        let whole = stream.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let (mut bytes, mut cut) = (Vec::new(), 0);
        for line in stream[..whole].split_inclusive(|byte| *byte == b'\n') {
            if line.len() > MAX_LINE + 1 {
                bytes.extend_from_slice(&line[..MAX_LINE]);
                bytes.push(b'\n');
                cut += 1;
            } else {
                bytes.extend_from_slice(line);
            }
        }
        (bytes, cut, whole as u64)
    }

    fn line(length: usize) -> Vec<u8> {
        let mut line = vec![b'x'; length];
        line.push(b'\n');
        line
    }

    #[test]
    fn a_line_is_cut_beyond_the_limit_and_not_at_it() {
        for (length, cut) in [(0, 0), (MAX_LINE - 1, 0), (MAX_LINE, 0), (MAX_LINE + 1, 1), (3 * READ_SIZE, 1)]
        {
            let stream = [line(length), line(3)].concat();
            for sizes in [vec![READ_SIZE], vec![MAX_LINE], vec![MAX_LINE + 1, 1], vec![7_919]] {
                let found = split(&stream, &sizes);
                assert_eq!(found.1, cut, "{length} bytes, reads of {sizes:?}");
                assert_eq!(found, expected(&stream), "{length} bytes, reads of {sizes:?}");
            }
        }
    }

    #[test]
    fn what_is_forgotten_does_not_come_back() {
        let mut splitter = Splitter::new();
        splitter.space()[..4].copy_from_slice(b"half");
        assert_eq!(splitter.take(4), Lines::default());
        splitter.clear();
        splitter.space()[..4].copy_from_slice(b"new\n");
        assert_eq!(splitter.take(4).bytes, &b"new\n"[..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]
        #[test]
        fn reads_of_any_size_give_the_same_lines(
            lengths in prop::collection::vec(
                prop_oneof![4 => 0..200usize, 1 => MAX_LINE - 2..MAX_LINE + 3, 1 => 0..3 * MAX_LINE],
                0..12,
            ),
            sizes in prop::collection::vec(prop_oneof![1..100usize, 1000..READ_SIZE], 1..6),
            half in 0..2 * MAX_LINE,
        ) {
            let mut stream: Vec<u8> = lengths.iter().flat_map(|length| line(*length)).collect();
            stream.extend(std::iter::repeat_n(0xff, half));
            let (found, wanted) = (split(&stream, &sizes), expected(&stream));
            prop_assert!(found == wanted, "cut {} or {}, taken {} or {}", found.1, wanted.1, found.2, wanted.2);
        }
    }
}
