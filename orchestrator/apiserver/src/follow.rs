//! Waiting for objects of some kinds to change.

use std::time::Duration;

use futures::future::{OptionFuture, select_all};
use tokio::sync::watch;

use crate::server::ApiServer;

/// Before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The changes of some kinds since they were last waited for.
pub(crate) struct Changes {
    kinds: Vec<watch::Receiver<u64>>,
    /// The next wait lasts no longer.
    pub(crate) within: Option<Duration>,
}

impl Changes {
    /// What is there already is the first change.
    pub(crate) fn of(server: &ApiServer, kinds: &[usize]) -> Changes {
        let kinds = kinds.iter().map(|k| server.cache.subscribe_kind(*k)).collect();
        Changes { kinds, within: Some(Duration::ZERO) }
    }

    /// What was done did not work.
    pub(crate) fn again(&mut self) {
        self.within = Some(AGAIN);
    }

    /// Waits until there is something new. False: the server stops.
    pub(crate) async fn next(&mut self, server: &ApiServer) -> bool {
        let late = OptionFuture::from(self.within.take().map(tokio::time::sleep));
        let moved = select_all(self.kinds.iter_mut().map(|k| Box::pin(k.changed())));
        tokio::select! {
            () = server.stop.cancelled() => false,
            Some(()) = late => true,
            (moved, ..) = moved => moved.is_ok(),
        }
    }
}
