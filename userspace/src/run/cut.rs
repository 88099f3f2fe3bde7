//! The moment from which what still runs is ended, since the controller stops.

use tokio::sync::watch;

/// Whoever waits for that moment has one.
#[derive(Clone)]
pub(super) struct Cut(pub(super) watch::Receiver<bool>);

impl Cut {
    /// Waits for it.
    pub(super) async fn comes(&self) {
        // An error is that the other end is gone, which means the same.
        self.0.clone().wait_for(|come| *come).await.ok();
    }
}
