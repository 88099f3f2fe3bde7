//! What sources have read, worked through line by line.

use std::time::Duration;

use xdpban_engine::Login;
use xdpban_engine::record::Record;
use xdpban_engine::time::{Mono, Now, Wall};

use super::carry_out::Cause;
use super::sources::BEGIN_WAIT;
use super::{Daemon, REPORTS};
use crate::clock;
use crate::config::SourceConfig;
use crate::source::{self, Alert, Batch, Records, Report};
use crate::store::Write;

/// By how much the timestamp of a line that was written just now may be off. Relays between hosts take their time.
const MAX_SKEW: Duration = Duration::from_secs(600);

/// What was read of a batch.
#[derive(Default)]
pub(super) struct Read {
    pub(super) lines: u64,
    pub(super) attacks: u64,
    /// Lines that are no alert, in a log of alerts.
    pub(super) unreadable: u64,
    /// By how much timestamps of lines that were written just now are off, at most.
    pub(super) skew: Duration,
}

impl Daemon {
    pub(super) fn report(&mut self, report: Report) {
        match report {
            Report::Batch(batch) => self.batch(&batch),
            Report::Trouble { source, message } => self.sources.trouble(source, message),
            Report::Well { source } => self.sources.well(source),
        }
    }

    /// Waits until the sources have begun to read, and until it is on disk where those of which that was not known began, each
    /// for a second at most. A controller that is killed with a block in the gate reads on from there, and so finds the
    /// reason of that block; with no position it would begin at the log's end.
    pub(super) async fn sources_begun(&mut self) {
        self.sources.begun().await;
        if !self.sources.lack_position() {
            return;
        }
        // The first report of a source that begins has its position and no lines; one in trouble has none.
        for _ in 0..REPORTS {
            let Ok(report) = self.reports.try_recv() else { break };
            self.report(report);
            if !self.sources.lack_position() {
                break;
            }
        }
        let on_disk = self.store.record_awaited(self.writes.drain(..));
        match tokio::time::timeout(BEGIN_WAIT, on_disk).await {
            // A store that cannot be written tells of itself.
            Ok(_) => {}
            Err(_) => log::warn!("where reading began is not on disk after {} s", BEGIN_WAIT.as_secs()),
        }
    }

    /// Hands the records of a batch to the engine, one by one, and carries out at once what each leads to.
    fn batch(&mut self, batch: &Batch) {
        let Some(config) = self.sources.config(batch.source).cloned() else { return };
        let now = clock::now();
        let mut read = Read::default();
        match &batch.records {
            Records::Lines(bytes) if matches!(config, SourceConfig::WazuhAlerts { .. }) => {
                for line in source::lines(bytes) {
                    self.alert(line, batch, now, &mut read);
                }
            }
            Records::Lines(bytes) => {
                for line in source::lines(bytes) {
                    let mut record = config.record(line, &now);
                    if batch.live {
                        read.skew = read.skew.max(date_by_arrival(&mut record, &now));
                    }
                    self.record(&record, line, now, batch.read_at, &mut read);
                }
            }
            Records::Journal(entries) => {
                for entry in entries {
                    self.record(&entry.record(), &entry.line(), now, batch.read_at, &mut read);
                }
            }
        }
        self.writes.extend(self.sources.read(batch, &read));
    }

    fn record(&mut self, record: &Record<'_>, line: &[u8], now: Now, read_at: Mono, read: &mut Read) {
        let outcome = self.engine.handle(record, line, now);
        read.lines += 1;
        if let Some(event) = &outcome.event {
            read.attacks += u64::from(event.attack);
            self.writes.extend(Login::of(event, record, &now).map(Write::Login));
        }
        self.carry_out(Cause::Line(read_at));
    }

    fn alert(&mut self, line: &[u8], batch: &Batch, now: Now, read: &mut Read) {
        read.lines += 1;
        let Some(mut alert) = Alert::parse(line, &now) else {
            read.unreadable += 1;
            return;
        };
        if batch.live
            && let Some(skew) = alert.time.and_then(|time| skew(time, &now))
        {
            alert.time = None;
            read.skew = read.skew.max(skew);
        }
        let Some(found) = alert.found() else { return };
        let evidence = alert.log.as_deref().map_or(line, str::as_bytes);
        let answered = self.engine.handle_match(&found, evidence, now).is_some();
        read.attacks += u64::from(answered);
        self.carry_out(Cause::Line(batch.read_at));
    }
}

/// Takes the timestamp off a record that was written just now and says otherwise: its program's clock, or the zone that its
/// program believes in, is wrong. Returns by how much; zero where it is right.
fn date_by_arrival(record: &mut Record<'_>, now: &Now) -> Duration {
    let Some(skew) = record.time.and_then(|time| skew(time, now)) else { return Duration::ZERO };
    record.time = None;
    skew
}

/// By how much the time of something that was written just now is off; none where it is right.
fn skew(time: Wall, now: &Now) -> Option<Duration> {
    Some(now.wall.since(time).max(time.since(now.wall))).filter(|skew| *skew > MAX_SKEW)
}
