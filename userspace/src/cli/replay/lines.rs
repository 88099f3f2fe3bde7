//! The lines of an input, one after the other, without a copy of any.

use std::io::{self, Read};

use memchr::memchr;

use crate::source::MAX_LINE;

/// The most that one read asks for, in bytes.
const READ_SIZE: usize = 512 * 1024;

/// Cuts what it reads into lines of at most [`MAX_LINE`] bytes, as the sources of the controller do.
pub(super) struct Lines<R> {
    input: R,
    buffer: Box<[u8]>,
    /// What was read and not handed out: `buffer[start..end]`. Both are at most the buffer's length.
    start: usize,
    end: usize,
    /// Whether what comes next, up to a newline, is the rest of a line that was cut.
    within_cut: bool,
    cut: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Lines<R> {
        let buffer = vec![0; MAX_LINE + READ_SIZE].into_boxed_slice();
        Lines { input, buffer, start: 0, end: 0, within_cut: false, cut: 0 }
    }

    /// How many lines were longer than [`MAX_LINE`].
    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    /// The next line without its end; none at the end of the input. What stands behind the last newline is a line, too.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let start = self.start;
            let newline = memchr(b'\n', &self.buffer[start..self.end]).map(|at| start + at);
            if self.within_cut {
                self.within_cut = newline.is_none();
                self.start = newline.map_or(self.end, |at| at + 1);
                if newline.is_none() && !self.fill()? {
                    return Ok(None);
                }
                continue;
            }
            let end = match newline {
                Some(at) => at,
                None if self.end - start > MAX_LINE => self.end,
                None if self.fill()? => continue,
                None if self.start == self.end => return Ok(None),
                // `fill` has moved the last line to the front.
                None => {
                    return Ok(Some(&self.buffer[std::mem::replace(&mut self.start, self.end)..self.end]));
                }
            };
            self.within_cut = newline.is_none();
            self.start = newline.map_or(end, |at| at + 1);
            let whole = end - start <= MAX_LINE;
            self.cut += u64::from(!whole);
            return Ok(Some(&self.buffer[start..if whole { end } else { start + MAX_LINE }]));
        }
    }

    /// Reads on behind what is held, which moves to the front; false at the end of the input.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        loop {
            // At most MAX_LINE bytes are held here, so there is room.
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives out its bytes in pieces of the lengths that `sizes` names, over and over.
    struct Pieces<'a> {
        rest: &'a [u8],
        sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes.next().copied().unwrap().min(buffer.len()).min(self.rest.len());
            let (piece, rest) = self.rest.split_at(size);
            buffer[..size].copy_from_slice(piece);
            self.rest = rest;
            Ok(size)
        }
    }

    fn read(stream: &[u8], sizes: &[usize]) -> (Vec<Vec<u8>>, u64) {
        let mut lines = Lines::new(Pieces { rest: stream, sizes: sizes.iter().cycle() });
        let mut found = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            found.push(line.to_vec());
        }
        (found, lines.cut())
    }

    fn expected(stream: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let mut lines: Vec<Vec<u8>> = stream.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        lines.pop_if(|last| last.is_empty());
        let cut = lines.iter().filter(|line| line.len() > MAX_LINE).count() as u64;
        lines.iter_mut().for_each(|line| line.truncate(MAX_LINE));
        (lines, cut)
    }

    #[test]
    fn a_line_is_cut_beyond_the_limit_and_not_at_it() {
        for length in [0, MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 3 * READ_SIZE] {
            for tail in ["\nnext\n", "\nnext", "\n", ""] {
                let stream = [&vec![b'x'; length], tail.as_bytes()].concat();
                for sizes in [vec![usize::MAX], vec![MAX_LINE], vec![MAX_LINE + 1, 1], vec![7_919]] {
                    let (found, wanted) = (read(&stream, &sizes), expected(&stream));
                    assert!(found == wanted, "{length} bytes and {tail:?}, reads of {sizes:?}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]
        #[test]
        fn reads_of_any_size_give_the_same_lines(
            lengths in prop::collection::vec(
                prop_oneof![4 => 0..200usize, 1 => MAX_LINE - 2..MAX_LINE + 3, 1 => 0..9 * MAX_LINE],
                0..12,
            ),
            sizes in prop::collection::vec(prop_oneof![1..100usize, 1000..READ_SIZE], 1..6),
        ) {
            let stream = lengths.iter().map(|n| vec![b'x'; *n]).collect::<Vec<_>>().join(&b'\n');
            prop_assert!(read(&stream, &sizes) == expected(&stream));
        }
    }
}
