//! What the collector counts about itself.

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{counter::Counter, family::Family};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Receiver {
    pub(crate) receiver: &'static str,
    pub(crate) signal: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Refusal {
    pub(crate) receiver: &'static str,
    pub(crate) reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Bytes {
    pub(crate) receiver: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Drop {
    pub(crate) reason: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) accepted: Family<Receiver, Counter>,
    pub(crate) refused: Family<Refusal, Counter>,
    pub(crate) received: Family<Bytes, Counter>,
    pub(crate) dropped: Family<Drop, Counter>,
    /// Batches that endpoints took.
    pub(crate) forwarded: Counter,
    /// Samples that stood in one scrape twice.
    pub(crate) duplicate_samples: Counter,
    /// Bytes of container logs that were rotated away before they were read.
    pub(crate) log_bytes_lost: Counter,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics {
        accepted: Family::default(),
        refused: Family::default(),
        received: Family::default(),
        dropped: Family::default(),
        forwarded: Counter::default(),
        duplicate_samples: Counter::default(),
        log_bytes_lost: Counter::default(),
    };
    telemetry::metrics::register(|r| {
        r.register(
            "binnacle_collector_accepted_items",
            "Samples, records and spans made durable",
            m.accepted.clone(),
        );
        r.register("binnacle_collector_refused_batches", "Batches not taken, by reason", m.refused.clone());
        r.register(
            "binnacle_collector_received_bytes",
            "Bytes of requests and messages, unpacked",
            m.received.clone(),
        );
        r.register(
            "binnacle_collector_dropped_items",
            "Items that processors left out, by reason",
            m.dropped.clone(),
        );
        r.register(
            "binnacle_collector_forwarded_batches",
            "Batches that endpoints of forwarding took",
            m.forwarded.clone(),
        );
        r.register(
            "binnacle_collector_scrape_duplicate_samples",
            "Samples that stood in one scrape twice and were dropped",
            m.duplicate_samples.clone(),
        );
        r.register(
            "binnacle_collector_log_lost_bytes",
            "Log bytes rotated away unread",
            m.log_bytes_lost.clone(),
        );
    });
    m
});

pub(crate) fn accepted(receiver: &'static str, signal: &'static str, items: usize) {
    METRICS.accepted.get_or_create(&Receiver { receiver, signal }).inc_by(items as u64);
}

pub(crate) fn refused(receiver: &'static str, reason: &'static str) {
    METRICS.refused.get_or_create(&Refusal { receiver, reason }).inc();
}

pub(crate) fn received(receiver: &'static str, bytes: usize) {
    METRICS.received.get_or_create(&Bytes { receiver }).inc_by(bytes as u64);
}

/// None is no event.
pub(crate) fn dropped(reason: &'static str, items: usize) {
    if items > 0 {
        METRICS.dropped.get_or_create(&Drop { reason }).inc_by(items as u64);
    }
}
