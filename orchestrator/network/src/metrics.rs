//! The network's own metrics.

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{
    counter::Counter,
    family::Family,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Query {
    /// The record type, `other` for rare ones.
    pub(crate) r#type: &'static str,
    pub(crate) rcode: &'static str,
    /// `cluster` or `forward`.
    pub(crate) zone: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) dns_queries: Family<Query, Counter>,
    pub(crate) dns_seconds: Histogram,
    pub(crate) rule_writes: Counter,
    pub(crate) rule_failures: Counter,
    pub(crate) rule_seconds: Histogram,
    pub(crate) services: Gauge,
    pub(crate) pods: Gauge,
    pub(crate) attach_seconds: Histogram,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let times = || Histogram::new(exponential_buckets(0.0001, 3.0, 10));
    let m = Metrics {
        dns_queries: Family::default(),
        dns_seconds: times(),
        rule_writes: Counter::default(),
        rule_failures: Counter::default(),
        rule_seconds: times(),
        services: Gauge::default(),
        pods: Gauge::default(),
        attach_seconds: times(),
    };
    telemetry::metrics::register(|r| {
        r.register("binnacle_network_dns_queries", "DNS queries answered", m.dns_queries.clone());
        r.register(
            "binnacle_network_dns_duration_seconds",
            "Time to answer a DNS query",
            m.dns_seconds.clone(),
        );
        r.register("binnacle_network_rule_writes", "Service tables written", m.rule_writes.clone());
        r.register(
            "binnacle_network_rule_failures",
            "Service tables that nft refused",
            m.rule_failures.clone(),
        );
        r.register(
            "binnacle_network_rule_duration_seconds",
            "Time to write a service table",
            m.rule_seconds.clone(),
        );
        r.register("binnacle_network_service_ports", "Service ports programmed", m.services.clone());
        r.register("binnacle_network_pods", "Pods that hold an address", m.pods.clone());
        r.register(
            "binnacle_network_attach_duration_seconds",
            "Time to put a pod on the network",
            m.attach_seconds.clone(),
        );
    });
    m
});
