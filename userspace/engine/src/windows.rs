//! Counting within a sliding window.

use std::collections::VecDeque;
use std::time::Duration;

use crate::moment::Moment;

/// The attempts of one source towards one correlated rule.
///
/// Every attempt in it is at most the window's length older than the newest. It never holds `count` attempts: with the
/// last of them the rule fires, and counting starts over. So it holds fewer than `count` marks.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Moments and how many attempts each saw, oldest first.
    marks: VecDeque<(Moment, u32)>,
    total: u32,
}

impl Window {
    /// Counts `attempts` at `at`. When that makes `count` or more within `length`, first and last included, returns how
    /// many there were.
    ///
    /// Lines may come out of order, since several logs are read at once. One that is older than the window's length when
    /// it comes is not counted.
    pub(crate) fn add(&mut self, at: Moment, attempts: u32, count: u32, length: Duration) -> Option<u32> {
        let newest = self.marks.back().map_or(at, |&(newest, _)| newest.max(at));
        let horizon = newest.before(length);
        while let Some(&(oldest, n)) = self.marks.front()
            && oldest < horizon
        {
            self.marks.pop_front();
            self.total -= n;
        }
        if at < horizon || attempts == 0 {
            return None;
        }
        let total = self.total.saturating_add(attempts);
        if total >= count {
            self.marks.clear();
            self.total = 0;
            return Some(total);
        }
        self.total = total;
        let place = self.marks.iter().rposition(|&(mark, _)| mark <= at).map_or(0, |place| place + 1);
        match place.checked_sub(1).and_then(|before| self.marks.get_mut(before)) {
            Some((mark, n)) if *mark == at => *n += attempts,
            _ => self.marks.insert(place, (at, attempts)),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Mono;

    const LENGTH: Duration = Duration::from_nanos(100);

    fn at(nanos: u64) -> Moment {
        Moment::from(Mono(nanos))
    }

    #[test]
    fn fires_at_the_count_and_starts_over() {
        let mut window = Window::default();
        let fired: Vec<u64> = (1..=9).filter(|&n| window.add(at(n), 1, 3, LENGTH).is_some()).collect();
        assert_eq!(fired, [3, 6, 9]);
    }

    #[test]
    fn the_edge_of_the_window_counts_and_what_lies_beyond_does_not() {
        let mut window = Window::default();
        assert_eq!(window.add(at(0), 1, 2, LENGTH), None);
        assert_eq!(window.add(at(100), 1, 2, LENGTH), Some(2));
        assert_eq!(window.add(at(200), 1, 2, LENGTH), None);
        assert_eq!(window.add(at(301), 1, 2, LENGTH), None);
    }

    #[test]
    fn several_attempts_at_once_count_each() {
        let mut window = Window::default();
        assert_eq!(window.add(at(0), 2, 4, LENGTH), None);
        assert_eq!(window.add(at(0), 5, 4, LENGTH), Some(7));
        assert_eq!(window.add(at(0), u32::MAX, u32::MAX, LENGTH), Some(u32::MAX));
    }

    /// The same by brute force: everything since the rule fired last, filtered anew each time.
    fn reference(all: &mut Vec<(u64, u32)>, at: u64, attempts: u32, count: u32) -> Option<u32> {
        let newest = all.iter().map(|&(at, _)| at).max().unwrap_or(at).max(at);
        all.push((at, attempts));
        all.retain(|&(at, _)| newest - at <= 100);
        let total: u32 = all.iter().map(|&(_, n)| n).sum();
        if total < count {
            return None;
        }
        all.clear();
        Some(total)
    }

    proptest! {
        #[test]
        fn agrees_with_brute_force(
            steps in prop::collection::vec((0..60u64, 0..80u64, 1..4u32), 0..300), count in 2..9u32,
        ) {
            let mut window = Window::default();
            let mut all = Vec::new();
            let mut clock = 1000;
            for (forward, late, attempts) in steps {
                clock += forward;
                // Some lines come late, some of them too late.
                let moment = if late % 3 == 0 { clock - late * 2 } else { clock };
                let fired = window.add(at(moment), attempts, count, LENGTH);
                prop_assert_eq!(fired, reference(&mut all, moment, attempts, count));
                prop_assert!(window.marks.len() < count as usize);
                prop_assert!(window.marks.iter().zip(window.marks.iter().skip(1)).all(|(a, b)| a.0 < b.0));
                prop_assert_eq!(window.total, window.marks.iter().map(|&(_, n)| n).sum::<u32>());
            }
        }
    }
}
