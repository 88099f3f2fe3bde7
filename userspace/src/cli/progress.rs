//! How far a long work has come, on standard error where that is a terminal.

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
    /// All that there is to do, in bytes or steps; none where that is not known.
    total: Option<u64>,
    /// What is counted, in the singular.
    what: &'static str,
    started: Instant,
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Whether anybody sees it.
    pub(super) fn is_seen() -> bool {
        io::stderr().is_terminal()
    }

    pub(super) fn new(total: Option<u64>, what: &'static str) -> Progress {
        let started = Instant::now();
        let next = Progress::is_seen().then_some(started + PATIENCE);
        Progress { total, what, started, next, shown: false }
    }

    /// Says that so much has been done, which was so many of what is counted.
    pub(super) fn update(&mut self, done: u64, count: u64) {
        let now = Instant::now();
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + INTERVAL);
        self.shown = true;
        show(&format!("\r{}\x1b[K", line(self.total, done, (count, self.what), now - self.started)));
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

fn line(total: Option<u64>, done: u64, (count, what): (u64, &str), elapsed: Duration) -> String {
    let per_second = u128::from(count) * 1000 / elapsed.as_millis().max(1);
    let speed = format!(
        "{}, {} a second",
        human::counted(count, what),
        human::count(u64::try_from(per_second).unwrap_or(u64::MAX))
    );
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("{speed}, {}", human::bytes(done));
    };
    // A log that is being written grows beyond the size that it had.
    let done = done.min(total);
    let part = |of: u64| u64::try_from(u128::from(done) * u128::from(of) / u128::from(total)).unwrap_or(of);
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
            line(Some(200), 100, (3000, "line"), second),
            "[###############...............]  50 %  3,000 lines, 3,000 a second"
        );
        assert_eq!(line(Some(200), 999, (1, "step"), second).matches('#').count(), 30);
        assert_eq!(line(None, 4096, (10, "line"), second * 2), "10 lines, 5 a second, 4.0 kB");
        assert_eq!(line(Some(0), 0, (0, "line"), Duration::ZERO), "0 lines, 0 a second, 0 B");
    }
}
