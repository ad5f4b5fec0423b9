//! Cluster objects → what the collector reads and who it hears.
//!
//! Promises: the collector's registries follow the cluster within a watch event's time.
//! Does not know: how targets are scraped or samples stored.
//!
//! The road: a pod's change → [`identity`] (its address → who it is) and [`targets`] (its annotations → an
//! endpoint to scrape). [`state`] turns all objects into `kube_*` samples, as kube-state-metrics does.

mod identity;
mod state;
mod targets;

use std::sync::Arc;

use client::Informers;
use signal::time::SharedClock;
use signal::{Identities, Registry, ScrapeTarget, Sink};
use tokio_util::sync::CancellationToken;

pub use identity::identity_of;

/// What discovery fills.
#[derive(Clone)]
pub struct Handles {
    pub identities: Arc<Identities>,
    pub targets: Arc<Registry<ScrapeTarget>>,
    pub sink: Arc<dyn Sink>,
}

/// Follows the cluster until `stop`.
pub async fn run(informers: Informers, handles: Handles, clock: SharedClock, stop: CancellationToken) {
    identity::watch(&informers, handles.identities);
    targets::watch(&informers, handles.targets);
    state::run(informers, handles.sink, clock, stop).await;
}
