//! How far a long reading has come, on standard error where that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::human;

/// Work that is over by then shows no progress.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often the line is written anew.
const INTERVAL: Duration = Duration::from_millis(100);

/// The width of the bar in characters.
const WIDTH: u64 = 30;

/// The line of progress. It is taken away when this is dropped.
pub(super) struct Progress {
    /// The bytes that there are to read, where all sizes are known.
    total: Option<u64>,
    started: Instant,
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    pub(super) fn new(total: Option<u64>) -> Progress {
        let started = Instant::now();
        let next = io::stderr().is_terminal().then_some(started + PATIENCE);
        Progress { total, started, next, shown: false }
    }

    /// Says that so many bytes have been read, with so many lines in them.
    pub(super) fn update(&mut self, bytes: u64, lines: u64) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + INTERVAL);
        self.shown = true;
        show(&format!("\r{}\x1b[K", line(self.total, bytes, lines, now - self.started)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            show("\r\x1b[K");
        }
    }
}

fn show(text: &str) {
    let mut stderr = io::stderr().lock();
    // When standard error is gone, nobody waits for progress any longer.
    stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).ok();
}

fn line(total: Option<u64>, bytes: u64, lines: u64, elapsed: Duration) -> String {
    let per_second = u128::from(lines) * 1000 / elapsed.as_millis().max(1);
    let speed = format!(
        "{}, {} a second",
        human::counted(lines, "line"),
        human::count(u64::try_from(per_second).unwrap_or(u64::MAX))
    );
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{speed}, {}", human::bytes(bytes));
    };
    // A log that is being written grows beyond the size that it had.
    let bytes = bytes.min(total);
    let part = |of: u64| u64::try_from(u128::from(bytes) * u128::from(of) / u128::from(total)).unwrap_or(of);
    let bar: String = (0..WIDTH).map(|n| if n < part(WIDTH) { '#' } else { '.' }).collect();
    format!("[{bar}] {:>3} %  {speed}", part(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_part_and_speed() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line(Some(200), 100, 3000, second),
            "[###############...............]  50 %  3,000 lines, 3,000 a second"
        );
        assert_eq!(line(Some(200), 999, 1, second).matches('#').count(), 30);
        assert_eq!(line(None, 4096, 10, second * 2), "10 lines, 5 a second, 4.0 kB");
        assert_eq!(line(Some(0), 0, 0, Duration::ZERO), "0 lines, 0 a second, 0 B");
    }
}
