//! What the collector reads by itself: endpoints to scrape, cgroups to measure, log files to follow.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use crate::Labels;

/// An endpoint in the Prometheus exposition format.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeTarget {
    pub url: String,
    /// The labels every scraped series gets: `job`, `instance`, and the identity.
    pub labels: Labels,
    pub interval: Duration,
    pub timeout: Duration,
}

/// A container's, a pod's or the node's cgroup.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupTarget {
    /// Path below each controller's root (v1) or below the unified root (v2), such as `/kubepods/pod…/…`.
    pub path: String,
    /// The identity under cAdvisor's names: `namespace`, `pod`, `container`, `image`, `id`, `name`, `node`.
    pub labels: Labels,
    /// Network namespace file to read interface counters from; only for pods.
    pub netns: Option<PathBuf>,
}

/// One container's log in CRI format.
#[derive(Clone, Debug)]
pub struct LogFileTarget {
    /// Names the stream of bytes for ever; the checkpoint's source.
    pub source: String,
    /// The file now written to. Rotated ones stand beside it as `<name>.<n>`, oldest first, each with the byte
    /// position of its start in the whole stream: see `kubelet`'s log writer.
    pub path: PathBuf,
    pub labels: Labels,
    /// Rung after each write, so that nobody polls.
    pub written: Arc<Notify>,
}

/// Targets by key, shared between who knows them and who reads them.
#[derive(Debug)]
pub struct Registry<T> {
    entries: RwLock<BTreeMap<String, T>>,
    generation: watch::Sender<u64>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Registry { entries: RwLock::default(), generation: watch::Sender::new(0) }
    }
}

impl<T: Clone> Registry<T> {
    pub fn set(&self, key: impl Into<String>, target: T) {
        self.entries.write().insert(key.into(), target);
        self.generation.send_modify(|g| *g += 1);
    }

    pub fn remove(&self, key: &str) {
        if self.entries.write().remove(key).is_some() {
            self.generation.send_modify(|g| *g += 1);
        }
    }

    pub fn get(&self, key: &str) -> Option<T> {
        self.entries.read().get(key).cloned()
    }

    /// All entries now, by key.
    pub fn snapshot(&self) -> Vec<(String, T)> {
        self.entries.read().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// Wakes at each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}
