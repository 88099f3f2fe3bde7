//! What is known of the host: the addresses that are never blocked, and word of changes.

use xdpban_engine::HostAddresses;

use super::Daemon;
use super::carry_out::Cause;
use crate::error::chain;
use crate::host::{self, HostError, Watcher};

/// The host, as far as it is known.
pub(super) struct Host {
    /// None where it failed, which does not heal, until another takes its place.
    watcher: Option<Watcher>,
    addresses: HostAddresses,
    /// Why its addresses may be others.
    trouble: Option<String>,
}

impl Host {
    /// Begins to watch it.
    pub(super) fn watch() -> Result<Host, HostError> {
        let watcher = Some(Watcher::new()?);
        Ok(Host { watcher, addresses: host::addresses()?, trouble: None })
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&mut self) -> Result<(), HostError> {
        match &mut self.watcher {
            Some(watcher) => watcher.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Takes note that it does not tell of changes any longer.
    pub(super) fn lost(&mut self, error: &HostError) {
        self.unknown(error);
        self.watcher = None;
    }

    fn is_lost(&self) -> bool {
        self.watcher.is_none()
    }

    /// Begins to watch it anew.
    fn watch_again(&mut self) {
        match Watcher::new() {
            Ok(watcher) => {
                log::info!("the host tells of changes again");
                self.watcher = Some(watcher);
            }
            Err(error) => self.unknown(&error),
        }
    }

    /// Reads its addresses again; returns them where they are others.
    fn look(&mut self) -> Option<&HostAddresses> {
        let addresses = match host::addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                self.unknown(&error);
                return None;
            }
        };
        if !self.is_lost() {
            self.trouble = None;
        }
        if addresses == self.addresses {
            return None;
        }
        self.addresses = addresses;
        Some(&self.addresses)
    }

    fn unknown(&mut self, error: &HostError) {
        let trouble = format!(
            "{}; the addresses known so far stay protected, newer ones from the next look on, within a minute",
            chain(error)
        );
        if self.trouble.as_ref() != Some(&trouble) {
            log::error!("{trouble}");
            self.trouble = Some(trouble);
        }
    }

    pub(super) fn addresses(&self) -> &HostAddresses {
        &self.addresses
    }

    /// What an operator should know of it.
    pub(super) fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }
}

impl Daemon {
    /// Where the host does not tell of changes, or the latest look at it failed, looks again.
    pub(super) fn look_at_uncertain_host(&mut self) {
        if self.host.is_lost() {
            self.host.watch_again();
        }
        if self.host.trouble().is_some() {
            self.host_changed();
        }
    }

    /// Looks again at all of the host that may have changed.
    pub(super) fn host_changed(&mut self) {
        self.keep_guard();
        if let Some(addresses) = self.host.look() {
            log::info!("the host's addresses changed; what is never blocked changed with them");
            self.engine.set_host(addresses);
            self.carry_out(Cause::Other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_was_lost_is_looked_at_and_watched_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut host = Host { watcher: None, addresses: HostAddresses::default(), trouble: None };
            host.lost(&HostError::Watch { source: std::io::ErrorKind::ConnectionReset.into() });
            assert!(host.trouble().is_some_and(|trouble| trouble.contains("cannot watch for changes")));
            assert_eq!(host.look(), Some(&host::addresses().unwrap()), "loopback's, at least");
            assert!(host.trouble().is_some(), "nobody tells of the next change");
            host.watch_again();
            assert_eq!(host.look(), None);
            assert!(!host.is_lost() && host.trouble().is_none());
        });
    }
}
