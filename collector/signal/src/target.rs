//! What the collector reads by itself: endpoints to scrape, cgroups to measure, log files to follow.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use crate::Labels;
use crate::relabel::Rule;

/// An endpoint in the Prometheus exposition format.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScrapeTarget {
    pub url: String,
    /// The labels every scraped series gets: `job`, `instance`, and the identity.
    pub labels: Labels,
    /// What was known of it before it was relabelled.
    pub discovered: Labels,
    pub interval: Duration,
    pub timeout: Duration,
    /// Shared by all targets of one configuration.
    pub options: Arc<ScrapeOptions>,
    /// Why it cannot be scraped although it is one: each scrape fails with this.
    pub fault: Option<String>,
}

/// A format a target can be asked for (Prometheus: `scrape_protocols`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeProtocol {
    Protobuf,
    OpenMetrics1,
    OpenMetrics0,
    Text,
}

/// How samples are taken from a target, beyond its address and rhythm (Prometheus: `scrape_config`).
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeOptions {
    /// The configuration's name; empty for what annotations say.
    pub pool: String,
    /// The payload's labels win over the target's.
    pub honor_labels: bool,
    /// The payload's timestamps are kept.
    pub honor_timestamps: bool,
    /// Series with timestamps of their own get stale markers too.
    pub track_timestamps_staleness: bool,
    pub metric_relabel: Vec<Rule>,
    pub limits: ScrapeLimits,
    /// Asked for in this order.
    pub protocols: Vec<ScrapeProtocol>,
    /// What an answer is taken for whose content type says nothing that is known; `None` refuses it.
    pub fallback: Option<ScrapeProtocol>,
    /// Also `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes`.
    pub extra_metrics: bool,
    pub http: ScrapeHttp,
}

/// Bounds of one scrape; 0 is none. Passing one fails the whole scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrapeLimits {
    /// After relabelling.
    pub samples: usize,
    pub labels: usize,
    /// In bytes.
    pub label_name: usize,
    pub label_value: usize,
    /// Unpacked.
    pub body: usize,
}

/// How a target is spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeHttp {
    pub gzip: bool,
    pub redirects: bool,
    pub credentials: Option<Credentials>,
    pub tls: ScrapeTls,
}

/// Who we are to a target. Files are read anew for each scrape, since they are rotated.
#[derive(Clone, PartialEq)]
pub enum Credentials {
    Basic {
        user: String,
        password: Secret,
    },
    /// `Bearer`, mostly.
    Authorization {
        scheme: String,
        credentials: Secret,
    },
}

/// A secret, or the file it stands in. Never printed.
#[derive(Clone, PartialEq)]
pub enum Secret {
    Text(String),
    File(PathBuf),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<secret>")
    }
}

/// How a target's certificate is looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScrapeTls {
    /// Instead of the machine's certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Ours, with its key.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
}

impl Default for ScrapeHttp {
    fn default() -> Self {
        ScrapeHttp { gzip: true, redirects: true, credentials: None, tls: ScrapeTls::default() }
    }
}

impl Default for ScrapeLimits {
    /// What no target of good will passes, and a node still holds.
    fn default() -> Self {
        ScrapeLimits { samples: 200_000, labels: 0, label_name: 0, label_value: 0, body: 32 << 20 }
    }
}

impl Default for ScrapeOptions {
    /// As annotations have it: whoever answers with something readable is read.
    fn default() -> Self {
        ScrapeOptions {
            pool: String::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            metric_relabel: Vec::new(),
            limits: ScrapeLimits::default(),
            protocols: vec![
                ScrapeProtocol::Protobuf,
                ScrapeProtocol::OpenMetrics1,
                ScrapeProtocol::OpenMetrics0,
                ScrapeProtocol::Text,
            ],
            fallback: Some(ScrapeProtocol::Text),
            extra_metrics: false,
            http: ScrapeHttp::default(),
        }
    }
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
