//! The streams of incidents that are written, and what is known of each.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::sync::mpsc;

use super::Daemon;
use crate::config::{Config, StreamConfig};
use crate::store::Write;
use crate::stream::{Said, Stream};

/// Messages of streams that may wait for the loop.
const SAID: usize = 16;

/// The streams that are written.
pub(super) struct Streams {
    running: Vec<Stream>,
    /// What they say of themselves goes here, and comes out at the other end.
    said: (mpsc::Sender<Said>, mpsc::Receiver<Said>),
    /// Those that cannot be written, and why.
    troubles: BTreeMap<String, String>,
}

impl Streams {
    /// No stream yet.
    pub(super) fn new() -> Streams {
        Streams { running: Vec::new(), said: mpsc::channel(SAID), troubles: BTreeMap::new() }
    }

    fn start(&mut self, streams: &[StreamConfig], state: &Path) {
        self.troubles.clear();
        for stream in streams {
            let said = self.said.0.clone();
            // Its thread waits where the loop does not take what it says.
            let say = move |what| {
                if said.blocking_send(what).is_err() {
                    log::debug!("the loop has ended, and takes no word of a stream");
                }
            };
            match Stream::start(stream, state.to_owned(), say) {
                Ok(stream) => self.running.push(stream),
                Err(error) => {
                    let trouble = format!("start the stream of incidents to {}: {error}", stream.name());
                    log::error!("{trouble}");
                    self.troubles.insert(stream.name(), trouble);
                }
            }
        }
    }

    /// What one of them has to say.
    pub(super) async fn said(&mut self) -> Option<Said> {
        self.said.1.recv().await
    }

    /// Takes note of what one of them said; returns what is to be recorded of it.
    pub(super) fn heard(&mut self, said: Said) -> Option<Write> {
        match said {
            Said::Written { name, seq } => return Some(Write::Streamed { name, seq }),
            Said::Trouble { name, message } => {
                log::error!("{message}; it is tried again, and incidents wait for it in the store");
                self.troubles.insert(name, message);
            }
            Said::Well { name } => {
                log::info!("incidents are written to {name} again");
                self.troubles.remove(&name);
            }
        }
        None
    }

    /// Why some cannot be written.
    pub(super) fn troubles(&self) -> impl Iterator<Item = &String> {
        self.troubles.values()
    }
}

impl Daemon {
    /// Starts to write the streams of `config`.
    pub(super) fn start_streams(&mut self, config: &Config) {
        self.streams.start(&config.record.streams, &config.paths.state);
        self.store.wake(self.streams.running.iter().map(Stream::wake).collect());
    }

    /// Ends the streams, and hears what they have to say until then.
    pub(super) async fn end_streams(&mut self) {
        let running = std::mem::take(&mut self.streams.running);
        let mut ended = tokio::task::spawn_blocking(|| running.into_iter().for_each(Stream::stop));
        loop {
            tokio::select! {
                biased;
                Some(said) = self.streams.said() => self.writes.extend(self.streams.heard(said)),
                result = &mut ended => {
                    if let Err(error) = result {
                        log::error!("end the streams of incidents: {error}");
                    }
                    return;
                }
            }
        }
    }
}
