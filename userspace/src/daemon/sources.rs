//! The sources that are watched, and what is known of each.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::batch::Read;
use crate::config::SourceConfig;
use crate::control::wire;
use crate::human;
use crate::source::{self, Batch, Position, Report, Running};
use crate::store::Write;

/// How long is waited for sources to begin; one that hangs (on a network file system whose server is gone) must
/// not keep the others from being read.
pub(super) const BEGIN_WAIT: Duration = Duration::from_secs(1);

/// The sources that are watched. Each has an index of its own that is never used twice, so that a report of a source
/// that a reload stopped is not taken for one of its successor's.
pub(super) struct Sources {
    watched: Vec<Watched>,
    next_index: usize,
    positions: HashMap<String, Position>,
    reports: mpsc::Sender<Report>,
}

struct Watched {
    index: usize,
    config: SourceConfig,
    running: Option<Running>,
    lines: u64,
    attacks: u64,
    cut: u64,
    unreadable: u64,
    /// By how much the timestamps of its latest lines are off; zero where they are right.
    skew: Duration,
    trouble: Option<String>,
}

impl Sources {
    /// No source yet; each will start where `positions` say that its reading stopped.
    pub(super) fn new(positions: HashMap<String, Position>, reports: mpsc::Sender<Report>) -> Sources {
        Sources { watched: Vec::new(), next_index: 0, positions, reports }
    }

    fn watch(&mut self, config: SourceConfig) {
        let index = self.next_index;
        self.next_index += 1;
        let from = self.positions.get(&config.key()).cloned();
        let mut watched = Watched {
            index,
            config,
            running: None,
            lines: 0,
            attacks: 0,
            cut: 0,
            unreadable: 0,
            skew: Duration::ZERO,
            trouble: None,
        };
        match source::start(index, &watched.config, from, self.reports.clone()) {
            Ok(running) => watched.running = Some(running),
            Err(error) => {
                log::error!("watch {}: {error}", watched.config);
                watched.trouble = Some(format!("cannot be watched: {error}"));
            }
        }
        self.watched.push(watched);
    }

    /// Watches `configs` from here on: stops the sources that are not among them, and starts those that are new. Returns
    /// whether there were such.
    pub(super) fn replace(&mut self, configs: Vec<SourceConfig>) -> bool {
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.watched)
            .into_iter()
            .partition(|watched| configs.contains(&watched.config));
        let mut changed = !gone.is_empty();
        self.watched = kept;
        stop(gone);
        for config in configs {
            if !self.watched.iter().any(|watched| watched.config == config) {
                self.watch(config);
                changed = true;
            }
        }
        changed
    }

    /// Waits until all have begun to read, one second at most.
    pub(super) async fn begun(&mut self) {
        let all = async {
            for running in self.watched.iter_mut().filter_map(|watched| watched.running.as_mut()) {
                running.begun().await;
            }
        };
        if tokio::time::timeout(BEGIN_WAIT, all).await.is_err() {
            log::warn!("not every source could be opened within {} s", BEGIN_WAIT.as_secs());
        }
    }

    /// Whether it is not known of all that can be read where their reading goes on after a crash.
    pub(super) fn lack_position(&self) -> bool {
        let mut can_be_read = self.watched.iter().filter(|watched| watched.trouble.is_none());
        can_be_read.any(|watched| !self.positions.contains_key(&watched.config.key()))
    }

    /// What a source is; none where it is no longer watched.
    pub(super) fn config(&self, index: usize) -> Option<&SourceConfig> {
        self.watched.iter().find(|watched| watched.index == index).map(|watched| &watched.config)
    }

    /// Takes note of a batch that was worked through; returns the position to record.
    pub(super) fn read(&mut self, batch: &Batch, read: &Read) -> Option<Write> {
        let watched = self.watched.iter_mut().find(|watched| watched.index == batch.source)?;
        watched.lines += read.lines;
        watched.attacks += read.attacks;
        watched.unreadable += read.unreadable;
        if batch.live {
            if !read.skew.is_zero() && watched.skew.is_zero() {
                log::warn!("{}", skewed(&watched.config, read.skew));
            }
            watched.skew = read.skew;
        }
        watched.cut += u64::from(batch.cut);
        let key = watched.config.key();
        self.positions.insert(key.clone(), batch.position.clone());
        Some(Write::Position { key, position: batch.position.clone() })
    }

    /// Where each source stands, to be recorded.
    pub(super) fn positions(&self) -> impl Iterator<Item = Write> {
        let positions = self.positions.clone().into_iter();
        positions.map(|(key, position)| Write::Position { key, position })
    }

    pub(super) fn trouble(&mut self, index: usize, message: String) {
        if let Some(watched) = self.watched.iter_mut().find(|watched| watched.index == index)
            && watched.trouble.as_ref() != Some(&message)
        {
            log::warn!("{}: {message}", watched.config);
            watched.trouble = Some(message);
        }
    }

    pub(super) fn well(&mut self, index: usize) {
        if let Some(watched) = self.watched.iter_mut().find(|watched| watched.index == index)
            && watched.trouble.take().is_some()
        {
            log::info!("{}: it can be read again", watched.config);
        }
    }

    pub(super) fn status(&self) -> Vec<wire::Source> {
        self.watched
            .iter()
            .map(|watched| {
                let (kind, path) = match &watched.config {
                    SourceConfig::File { path, .. } => ("file", Some(path.display().to_string())),
                    SourceConfig::Journal { .. } => ("journal", None),
                    SourceConfig::WazuhAlerts { path } => ("wazuh-alerts", Some(path.display().to_string())),
                };
                wire::Source {
                    kind: kind.to_owned(),
                    path,
                    lines: watched.lines,
                    attacks: watched.attacks,
                    cut: watched.cut,
                    unreadable: watched.unreadable,
                    position: self.positions.get(&watched.config.key()).map(|position| match position {
                        Position::File { offset, .. } => offset.to_string(),
                        Position::Journal { cursor } => cursor.clone(),
                    }),
                    trouble: watched.trouble.clone(),
                }
            })
            .collect()
    }

    /// Says what is watched.
    pub(super) fn announce(&self) {
        for watched in &self.watched {
            log::info!("watches {}", watched.config);
        }
    }

    /// What an operator should know of them.
    pub(super) fn health(&self) -> Vec<String> {
        let mut health = Vec::new();
        for watched in &self.watched {
            health.extend(watched.trouble.as_ref().map(|trouble| format!("{}: {trouble}", watched.config)));
            if !watched.skew.is_zero() {
                health.push(skewed(&watched.config, watched.skew));
            }
        }
        health
    }

    /// Stops them all.
    pub(super) fn stop(&mut self) {
        stop(std::mem::take(&mut self.watched));
    }
}

fn skewed(source: &SourceConfig, skew: Duration) -> String {
    format!(
        "{source}: lines that are written now bear timestamps that are {} off; they are taken as of their arrival. Look \
         at the clock and the time zone of what writes the log",
        human::duration(skew)
    )
}

fn stop(watched: Vec<Watched>) {
    for Watched { config, running, .. } in watched {
        if let Some(Err(error)) = running.map(Running::stop) {
            log::warn!("{config}: {error}");
        }
    }
}
