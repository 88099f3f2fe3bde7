//! What is known of the host: the addresses that are never blocked, and word of changes.

use xdpban_engine::HostAddresses;

use super::Daemon;
use super::carry_out::Cause;
use crate::error::chain;
use crate::host::{self, HostError, Watcher};

/// The host, as far as it is known.
pub(super) struct Host {
    /// None once it failed, which does not heal.
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

    /// Reads its addresses again; returns them where they are others.
    fn look(&mut self) -> Option<&HostAddresses> {
        let addresses = match host::addresses() {
            Ok(addresses) => addresses,
            Err(error) => {
                self.unknown(&error);
                return None;
            }
        };
        self.trouble = None;
        if addresses == self.addresses {
            return None;
        }
        self.addresses = addresses;
        Some(&self.addresses)
    }

    fn unknown(&mut self, error: &HostError) {
        let trouble =
            format!("{}; the addresses known so far stay protected, newer ones are not", chain(error));
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
