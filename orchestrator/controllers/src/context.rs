//! What every controller is given.

use client::{EventRecorder, Informers};
use signal::time::SharedClock;

/// Knobs of the controllers, under upstream's names and with its defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a node may be silent before it is Unknown (kube-controller-manager `--node-monitor-grace-period`).
    pub node_monitor_grace_period: std::time::Duration,
    /// Finished pods kept before the oldest are deleted (`--terminated-pod-gc-threshold`).
    pub terminated_pod_gc_threshold: usize,
    /// The cluster's CA certificate in PEM, published in every namespace as ConfigMap `kube-root-ca.crt`.
    pub root_ca: String,
}

impl Config {
    pub fn new(root_ca: String) -> Self {
        Config {
            node_monitor_grace_period: std::time::Duration::from_secs(40),
            terminated_pod_gc_threshold: 12_500,
            root_ca,
        }
    }
}

/// The cluster as a controller sees it.
#[derive(Clone)]
pub struct Context {
    pub informers: Informers,
    pub clock: SharedClock,
    pub config: Config,
}

impl Context {
    pub(crate) fn client(&self) -> kube::Client {
        self.informers.client().clone()
    }

    pub(crate) fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client(), component, None)
    }

    /// The wall clock in the API's type.
    pub(crate) fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(self.clock.now().nanos().into()).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// Why a reconcile failed; it is tried again with growing delay.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("selector: {0}")]
    Selector(#[from] apimachinery::selector::SelectorError),
    #[error("object is not what its kind says: {0}")]
    Shape(#[from] serde_json::Error),
    #[error("{0} of {1} resources could not be emptied: {2}")]
    NamespaceContent(usize, usize, String),
    #[error("volume: {0}")]
    Volume(String),
}
