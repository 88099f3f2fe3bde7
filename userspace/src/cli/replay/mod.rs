//! `xdpban replay`: what the present rules would have done to a past log.
//!
//! The lines go through the engine that the controller runs, by a clock that their own times drive. What comes from a
//! source while its block is in force is taken for stopped: it is counted for the block, and leads to nothing further.

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use xdpban_engine::change::Change;
use xdpban_engine::event::EventKind;
use xdpban_engine::record::{Format, Record};
use xdpban_engine::time::{Mono, Now};
use xdpban_engine::{Applied, Engine};

use self::input::{BytesRead, Input};
use self::lines::Lines;
use self::report::{FileRead, Gathered, Report};
use super::args;
use super::line_clock::LineClock;
use super::progress::Progress;
use super::{CliError, print, print_json};
use crate::clock;
use crate::config::Config;
use crate::host;
use crate::source::JournalEntry;

mod input;
mod lines;
mod report;
mod text;
mod users;

/// After how many lines progress is looked at.
const LINES_BETWEEN_LOOKS: u64 = 4096;

pub(super) fn run(config: Config, args: &args::Replay, json: bool) -> Result<(), CliError> {
    let report = replay(config, args)?;
    if json { print_json(&report) } else { print(&text::render(&report)) }
}

fn replay(config: Config, args: &args::Replay) -> Result<Report, CliError> {
    let format = if args.bare { Format::Bare } else { Format::Syslog };
    let real = clock::now();
    let read = BytesRead::default();
    let inputs = input::open(args.files.iter().map(PathBuf::as_path), format, &real, &read)?;
    let mut engine = Engine::for_past(config.policy);
    engine.set_host(&host::addresses()?);
    let mut past = Past {
        engine,
        clock: LineClock::new(real),
        gathered: Gathered::default(),
        format,
        lines: 0,
        due: None,
    };

    let started = Instant::now();
    let mut progress = Progress::new(inputs.iter().map(|input| input.size).sum(), "line");
    let (mut files, mut cut) = (Vec::new(), 0);
    for Input { name, reader, now, .. } in inputs {
        let before = past.lines;
        let mut lines = Lines::new(reader);
        past.go_over(&mut lines, &now, &mut |lines| progress.update(read.get(), lines))
            .map_err(|source| CliError::Read { what: name.clone(), source })?;
        cut += lines.cut();
        files.push(FileRead { path: name, lines: past.lines - before });
    }
    drop(progress);
    let took = started.elapsed();
    Ok(past.gathered.report(files, &past.engine.counts(), cut, took))
}

/// The engine at work on the past.
struct Past {
    engine: Engine,
    clock: LineClock,
    gathered: Gathered,
    format: Format,
    lines: u64,
    /// When the next block ends.
    due: Option<Mono>,
}

impl Past {
    /// Takes every line of a log whose missing years and zones are those of `written`.
    fn go_over(
        &mut self,
        lines: &mut Lines<impl Read>,
        written: &Now,
        progress: &mut dyn FnMut(u64),
    ) -> std::io::Result<()> {
        while let Some(line) = lines.next()? {
            self.lines += 1;
            if self.lines.is_multiple_of(LINES_BETWEEN_LOOKS) {
                progress(self.lines);
            }
            match JournalEntry::parse(line) {
                Some(entry) => self.take(&entry.record(), line),
                None => self.take(&Record::parse(line, self.format, written), line),
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &Record<'_>, line: &[u8]) {
        let now = self.clock.at(record.time);
        if let Some(time) = record.time {
            self.gathered.time(time);
        }
        while self.due.is_some_and(|due| due <= now.mono) {
            self.engine.handle_timeout(now);
            self.carry_out(&now);
        }
        let outcome = self.engine.handle(record, line, now);
        if let Some(event) = &outcome.event {
            if let Some(user) = event.user.as_deref().filter(|_| outcome.attempts > 0) {
                self.gathered.tried(user, outcome.attempts);
            }
            if let Some(target) = outcome.stopped {
                self.gathered.stopped(&target, outcome.attempts);
                if event.kind == EventKind::Accepted {
                    self.gathered.login_hit(&target, event, now.wall);
                }
            }
        }
        self.carry_out(&now);
    }

    fn carry_out(&mut self, now: &Now) {
        let mut changed = false;
        while let Some(change) = self.engine.next_change() {
            changed = true;
            if let Change::Block(block) | Change::Resume(block) = &change {
                // A gate that takes everything.
                self.engine.applied(block, Applied::Done, *now);
            }
            self.gathered.change(change, now.wall);
        }
        if changed {
            self.due = self.engine.poll_timeout();
        }
    }
}

#[cfg(test)]
mod tests;
