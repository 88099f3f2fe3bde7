//! Lines from standard input, which stays open: each bounded in size and in the time that it is waited for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;

/// The longest line that is read, in bytes. Wazuh itself sends no more than 64 KiB.
const MAX_LINE: usize = 1 << 20;

/// Why there is no line.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Nobody will write any more.
    #[error("standard input ended before a line did")]
    Ended,
    /// Nobody wrote.
    #[error("no line came in {} s", .0.as_secs())]
    Late(Duration),
    /// The line is longer than is read.
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Lines from a file descriptor.
#[derive(Debug)]
pub(super) struct Input<'f> {
    file: BorrowedFd<'f>,
    limit: Duration,
    /// What was read beyond the lines that were returned.
    buffer: Vec<u8>,
}

impl<'f> Input<'f> {
    /// Lines of `file`, each waited for at most for `limit`.
    pub(super) fn new(file: BorrowedFd<'f>, limit: Duration) -> Input<'f> {
        Input { file, limit, buffer: Vec::new() }
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> Result<Vec<u8>, InputError> {
        let start = Instant::now();
        let mut searched = 0;
        loop {
            let new = self.buffer.get(searched..).unwrap_or_default();
            if let Some(end) =
                memchr::memchr(b'\n', new).map(|end| searched + end).filter(|&end| end <= MAX_LINE)
            {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(line);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(InputError::TooLong);
            }
            searched = self.buffer.len();
            let left = self.limit.checked_sub(start.elapsed()).ok_or(InputError::Late(self.limit))?;
            self.fill(left)?;
        }
    }

    /// Reads what there is, or waits for at most `limit`.
    fn fill(&mut self, limit: Duration) -> Result<(), InputError> {
        let mut files = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match poll(&mut files, limit) {
            // It is for the caller to say that it is late.
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let mut chunk = [0; 16 << 10];
        match read(self.file, &mut chunk) {
            Ok(0) => Err(InputError::Ended),
            Ok(n) => {
                self.buffer.extend_from_slice(chunk.get(..n).unwrap_or_default());
                Ok(())
            }
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_one_by_one_from_a_pipe_that_stays_open() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"one\ntwo\nthr").unwrap();
        let mut input = Input::new(reader.as_fd(), Duration::from_millis(50));
        assert_eq!(input.line().unwrap(), b"one");
        assert_eq!(input.line().unwrap(), b"two");
        assert!(matches!(input.line(), Err(InputError::Late(_))));
        writer.write_all(b"ee\n").unwrap();
        assert_eq!(input.line().unwrap(), b"three");
        drop(writer);
        assert!(matches!(input.line(), Err(InputError::Ended)));
    }

    #[test]
    fn a_line_has_a_bound() {
        for (length, fits) in [(MAX_LINE, true), (MAX_LINE + 1, false), (3 * MAX_LINE, false)] {
            let (reader, mut writer) = io::pipe().unwrap();
            let writing = std::thread::spawn(move || {
                let mut line = vec![b'x'; length];
                line.push(b'\n');
                // The reader gives up on a line that is too long.
                writer.write_all(&line).ok();
            });
            let read = Input::new(reader.as_fd(), Duration::from_secs(10)).line();
            assert_eq!(read.is_ok(), fits, "{length}: {:?}", read.map(|line| line.len()));
            drop(reader);
            writing.join().unwrap();
        }
    }
}
