//! What reads take from the watch cache, under upstream's names
//! (apiserver: pkg/storage/cacher/metrics/metrics.go).

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::kinds::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    group: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listed {
    group: &'static str,
    resource: &'static str,
    index: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Consistent {
    group: &'static str,
    resource: &'static str,
    success: &'static str,
    fallback: &'static str,
}

struct Metrics {
    lists: Family<Listed, Counter>,
    fetched: Family<Listed, Counter>,
    returned: Family<Resource, Counter>,
    consistent: Family<Consistent, Counter>,
    waited: Family<Resource, Histogram>,
    revision: Family<Resource, Gauge>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics {
        lists: Family::default(),
        fetched: Family::default(),
        returned: Family::default(),
        consistent: Family::default(),
        waited: Family::new_with_constructor(|| {
            Histogram::new([0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0])
        }),
        revision: Family::default(),
    };
    telemetry::metrics::register(|r| {
        r.register("apiserver_cache_list", "Lists that the watch cache answered", m.lists.clone());
        r.register(
            "apiserver_cache_list_fetched_objects",
            "Objects that lists looked at in the watch cache",
            m.fetched.clone(),
        );
        r.register(
            "apiserver_cache_list_returned_objects",
            "Objects that lists from the watch cache gave",
            m.returned.clone(),
        );
        r.register(
            "apiserver_watch_cache_consistent_read",
            "Consistent reads that the watch cache answered",
            m.consistent.clone(),
        );
        r.register(
            "apiserver_watch_cache_read_wait_seconds",
            "How long lists waited for the watch cache to be fresh",
            m.waited.clone(),
        );
        r.register(
            "apiserver_watch_cache_resource_version",
            "The revision of the last change of a kind in the watch cache",
            m.revision.clone(),
        );
    });
    m
});

fn of(kind: &'static Kind) -> Resource {
    Resource { group: kind.group, resource: kind.resource }
}

/// A list waited for the cache; whether it had to be consistent.
pub(crate) fn waited(kind: &'static Kind, consistent: bool, well: bool, took: Duration) {
    let Resource { group, resource } = of(kind);
    METRICS.waited.get_or_create(&of(kind)).observe(took.as_secs_f64());
    if consistent {
        let success = if well { "true" } else { "false" };
        METRICS.consistent.get_or_create(&Consistent { group, resource, success, fallback: "false" }).inc();
    }
}

/// A list was answered: from how many objects, with how many. `narrowed`: to a namespace.
pub(crate) fn listed(kind: &'static Kind, narrowed: bool, fetched: usize, returned: usize) {
    let Resource { group, resource } = of(kind);
    let labels = Listed { group, resource, index: if narrowed { "namespace" } else { "" } };
    METRICS.lists.get_or_create(&labels).inc();
    METRICS.fetched.get_or_create(&labels).inc_by(fetched as u64);
    METRICS.returned.get_or_create(&of(kind)).inc_by(returned as u64);
}

/// Called when metrics are asked for.
pub(crate) fn changed(kind: &'static Kind, revision: u64) {
    METRICS.revision.get_or_create(&of(kind)).set(i64::try_from(revision).unwrap_or(i64::MAX));
}
