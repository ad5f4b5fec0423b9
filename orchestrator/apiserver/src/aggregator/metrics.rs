//! Which aggregated APIs do not answer, under upstream's names (kube-aggregator: pkg/controllers/status/metrics).

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Named by rows that only administrators write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    name: String,
    reason: &'static str,
}

struct Metrics {
    unavailable: Family<Named, Gauge>,
    /// Upstream's name ends as a counter's: it is one, told as a gauge.
    failures: Family<Failed, Gauge>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics { unavailable: Family::default(), failures: Family::default() };
    telemetry::metrics::register(|r| {
        r.register(
            "aggregator_unavailable_apiservice",
            "1 for an APIService that is not available",
            m.unavailable.clone(),
        );
        r.register(
            "aggregator_unavailable_apiservice_total",
            "Probes of an APIService that found it not available, by reason",
            m.failures.clone(),
        );
    });
    m
});

/// A probe's verdict; `None`: it is available.
pub(super) fn probed(name: &str, reason: Option<&'static str>) {
    let labels = Named { name: name.to_owned() };
    METRICS.unavailable.get_or_create(&labels).set(i64::from(reason.is_some()));
    if let Some(reason) = reason {
        METRICS.failures.get_or_create(&Failed { name: labels.name, reason }).inc();
    }
}

/// It is gone.
pub(super) fn forget(name: &str) {
    METRICS.unavailable.remove(&Named { name: name.to_owned() });
}
