//! When the controller watched, by its starts and by when it was last known to run.

use std::time::Duration;

use xdpban_engine::time::Wall;

use super::period::Period;
use super::summary::{Gap, Watch};
use super::tally::Latest;

/// A controller that has not said that it runs for so long is taken for dead. It says so once a minute.
const SILENCE: Duration = Duration::from_secs(180);

/// The times in which nobody watched, gathered from the starts that ended them.
#[derive(Debug)]
pub(super) struct Watching {
    from: Wall,
    to: Wall,
    /// The time of which nothing is known, at the begin of the period.
    unknown: Option<Gap>,
    unwatched: Duration,
    gaps: Latest<Gap>,
    /// Since when the gate is off the host, and why.
    off: Option<(Wall, &'static str)>,
    off_host: Latest<Gap>,
}

/// When a controller was last known to run, and whether it stopped then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alive {
    pub(super) at: Wall,
    pub(super) stopped: bool,
}

impl Watching {
    /// One that lists `listed` gaps at most.
    pub(super) fn new(period: &Period, listed: usize) -> Watching {
        let (from, to) = (period.from, period.to);
        let (gaps, off_host) = (Latest::new(listed), Latest::new(listed));
        Watching { from, to, unknown: None, unwatched: Duration::ZERO, gaps, off: None, off_host }
    }

    /// What the record tells begins at `at`, since what was before is gone, and `why`.
    pub(super) fn known_from(&mut self, at: Wall, why: &str) {
        if at > self.known() {
            self.unknown = Some(Gap { from: self.from, to: at.min(self.to), why: why.to_owned() });
        }
    }

    /// Since when something is known.
    fn known(&self) -> Wall {
        self.unknown.as_ref().map_or(self.from, |unknown| unknown.to)
    }

    /// The gate was taken off the host at `at`: nothing is blocked until a controller starts. Told in its order among starts, the
    /// last one before the period, too.
    pub(super) fn taken_off(&mut self, at: Wall, why: &'static str) {
        self.off.get_or_insert((at, why));
    }

    fn end_off(&mut self, at: Wall) {
        if let Some((since, why)) = self.off.take()
            && let Some(gap) = self.within(since, at, why)
        {
            self.off_host.add(gap);
        }
    }

    /// A controller started at `at`, after nobody had watched since `since`, if there was one before. Starts come in their
    /// order, and those after the period, too: the gap before one of them may reach into it.
    pub(super) fn started(&mut self, at: Wall, since: Option<Wall>, after: &str) {
        self.end_off(at);
        if since.is_none() && self.unknown.is_some() {
            // It is the first by what is left.
            return;
        }
        let why = match after {
            "first" => "xdpban had not run before",
            "stop" => "it was stopped",
            _ => "it ended without being stopped: a crash, a kill or a power cut",
        };
        self.gap(since.unwrap_or(self.from), at, why);
    }

    /// What it comes to, `alive` being the state of the latest controller at `now`; none where the record does not tell.
    pub(super) fn finish(mut self, alive: Option<Alive>, now: Wall) -> Watch {
        self.end_off(self.to);
        let Some(alive) = alive.filter(|_| self.known() < self.to) else {
            return Watch { unknown: self.unknown, ..Watch::default() };
        };
        let to = self.to;
        if alive.stopped {
            self.gap(alive.at, to, "it was stopped, and has not run since");
        } else if now.since(alive.at) > SILENCE {
            self.gap(alive.at, to, "it ended without being stopped, and has not run since");
        }
        let watched = self.to.since(self.known()).saturating_sub(self.unwatched);
        Watch {
            watched_s: Some(watched.as_secs()),
            unknown: self.unknown,
            gaps: self.gaps.into_listing(|gap| gap),
            off_host: self.off_host.into_listing(|gap| gap),
        }
    }

    fn gap(&mut self, from: Wall, to: Wall, why: &str) {
        if let Some(gap) = self.within(from, to, why) {
            self.unwatched += gap.to.since(gap.from);
            self.gaps.add(gap);
        }
    }

    /// The part of a time that lies in what is known of the period.
    fn within(&self, from: Wall, to: Wall, why: &str) -> Option<Gap> {
        let (from, to) = (from.max(self.known()), to.min(self.to));
        (from < to).then(|| Gap { from, to, why: why.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// What starts `(at, since, after)` and the state `(at, stopped)` at the end make of a day, in seconds of it.
    fn day(starts: &[(i64, Option<i64>, &str)], alive: Option<(i64, bool)>) -> Watch {
        let now: jiff::Zoned = "2026-11-24T01:00:00[UTC]".parse().unwrap();
        let period = Period::new(Some("yesterday"), None, &now).unwrap();
        let wall = |second: i64| Wall(period.from.0 + second * SECOND);
        let mut watching = Watching::new(&period, 10);
        for (at, since, after) in starts {
            watching.started(wall(*at), since.map(wall), after);
        }
        let alive = alive.map(|(at, stopped)| Alive { at: wall(at), stopped });
        watching.finish(alive, wall(90_000))
    }

    fn gaps(watch: &Watch) -> Vec<u64> {
        watch.gaps.listed.iter().map(|gap| gap.to.since(gap.from).as_secs()).collect()
    }

    #[test]
    fn gaps_are_cut_to_the_period() {
        let whole = day(&[], Some((89_990, false)));
        assert_eq!((whole.watched_s, gaps(&whole)), (Some(86_400), vec![]));

        let first = day(&[(3600, None, "first")], Some((89_990, false)));
        assert_eq!((first.watched_s, gaps(&first)), (Some(82_800), vec![3600]));

        let several = day(
            &[(100, Some(-500), "stop"), (2000, Some(1000), "crash"), (90_000, Some(86_300), "stop")],
            Some((90_000, false)),
        );
        assert_eq!(gaps(&several), [100, 1000, 100]);
        assert_eq!(several.watched_s, Some(86_400 - 1200));

        let outside =
            day(&[(-10, Some(-100), "stop"), (89_000, Some(88_000), "stop")], Some((89_990, false)));
        assert_eq!(gaps(&outside), [0; 0]);
    }

    #[test]
    fn the_gate_is_off_the_host_until_the_next_start() {
        let now: jiff::Zoned = "2026-11-24T01:00:00[UTC]".parse().unwrap();
        let period = Period::new(Some("yesterday"), None, &now).unwrap();
        let wall = |second: i64| Wall(period.from.0 + second * SECOND);
        let mut watching = Watching::new(&period, 10);
        watching.taken_off(wall(-100), "by hand");
        watching.started(wall(100), Some(wall(-200)), "stop");
        watching.started(wall(300), Some(wall(200)), "stop");
        watching.taken_off(wall(1000), "by hand");
        watching.taken_off(wall(1100), "once more");
        watching.started(wall(2000), Some(wall(900)), "stop");
        watching.taken_off(wall(86_000), "by hand");
        let watch = watching.finish(Some(Alive { at: wall(85_900), stopped: true }), wall(90_000));
        let off: Vec<u64> =
            watch.off_host.listed.iter().map(|gap| gap.to.since(gap.from).as_secs()).collect();
        assert_eq!((off, gaps(&watch)), (vec![100, 1000, 400], vec![100, 100, 1100, 500]));
    }

    #[test]
    fn one_that_runs_no_longer_is_known() {
        let stopped = day(&[], Some((400, true)));
        assert_eq!(gaps(&stopped), [86_000]);
        let dead = day(&[], Some((86_000, false)));
        assert_eq!(gaps(&dead), [400]);
        assert!(dead.gaps.listed[0].why.contains("without being stopped"));
        let before = day(&[], Some((-1000, true)));
        assert_eq!((before.watched_s, gaps(&before)), (Some(0), vec![86_400]));
    }

    #[test]
    fn what_was_before_the_oldest_record_is_not_taken_for_watched() {
        let now: jiff::Zoned = "2026-11-24T01:00:00[UTC]".parse().unwrap();
        let period = Period::new(Some("yesterday"), None, &now).unwrap();
        let wall = |second: i64| Wall(period.from.0 + second * SECOND);
        let alive = Some(Alive { at: wall(89_990), stopped: false });
        let from = |second| {
            let mut watching = Watching::new(&period, 10);
            watching.known_from(wall(second), "records were taken off");
            watching.started(wall(50_000), Some(wall(30_000)), "stop");
            watching.finish(alive, wall(90_000))
        };
        let (part, nothing, all) = (from(40_000), from(100_000), from(-1));
        assert_eq!((part.watched_s, gaps(&part)), (Some(36_400), vec![10_000]));
        assert_eq!(part.known_s(period.from, period.to), 46_400);
        assert_eq!((nothing.watched_s, gaps(&nothing)), (None, vec![]));
        assert_eq!(nothing.unknown.map(|unknown| (unknown.from, unknown.to)), Some((period.from, period.to)));
        assert_eq!((all.watched_s, all.unknown), (Some(66_400), None));
    }

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        assert_eq!(day(&[], None).watched_s, None);
    }
}
