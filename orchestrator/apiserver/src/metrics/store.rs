//! What the store is asked and holds, under the names upstream has for etcd (apiserver: pkg/storage/etcd3/metrics).

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::kinds::Kind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Qualified {
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    group: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    storage_cluster_id: &'static str,
}

struct Metrics {
    took: Family<Operation, Histogram>,
    errors: Family<Operation, Counter>,
    objects: Family<Qualified, Gauge>,
    of_resource: Family<Resource, Gauge>,
    size: Gauge,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let sizes = Family::<Cluster, Gauge>::default();
    let m = Metrics {
        took: Family::new_with_constructor(|| {
            Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0])
        }),
        errors: Family::default(),
        objects: Family::default(),
        of_resource: Family::default(),
        size: sizes.get_or_create_owned(&Cluster { storage_cluster_id: "0" }),
    };
    telemetry::metrics::register(|r| {
        r.register(
            "etcd_request_duration_seconds",
            "How long the store took to write, whichever it is",
            m.took.clone(),
        );
        r.register("etcd_request_errors", "Writes that the store did not take", m.errors.clone());
        r.register("apiserver_storage_objects", "Objects there are, by resource", m.objects.clone());
        r.register(
            "apiserver_resource_objects",
            "Objects there are, by group and resource",
            m.of_resource.clone(),
        );
        r.register("apiserver_storage_size_bytes", "Bytes that the store takes", sizes);
    });
    m
});

/// The store answered a write, or failed.
pub(crate) fn stored(operation: &'static str, ty: &'static str, took: Duration, well: bool) {
    let l = Operation { operation, r#type: ty };
    METRICS.took.get_or_create(&l).observe(took.as_secs_f64());
    if !well {
        METRICS.errors.get_or_create(&l).inc();
    }
}

/// Called when metrics are asked for.
pub(crate) fn objects(kind: &'static Kind, count: usize) {
    let resource = match kind.group {
        "" => kind.resource.to_owned(),
        group => format!("{}.{group}", kind.resource),
    };
    METRICS.objects.get_or_create(&Qualified { resource }).set(count as i64);
    let l = Resource { group: kind.group, resource: kind.resource };
    METRICS.of_resource.get_or_create(&l).set(count as i64);
}

/// Called when metrics are asked for.
pub(crate) fn size(bytes: u64) {
    METRICS.size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
}
