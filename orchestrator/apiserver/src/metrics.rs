//! What the server counts, under upstream's names.

pub(crate) mod flow;
pub(crate) mod reads;

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::kinds::{Kind, Served};

/// Verb, resource and so on come from what the server knows, never from what a client wrote.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) verb: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) subresource: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) component: &'static str,
    pub(crate) dry_run: &'static str,
    pub(crate) code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct DurationLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OperationLabels {
    operation: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WatchLabels {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct InflightLabels {
    request_kind: &'static str,
}

pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<DurationLabels, Histogram>,
    /// Every request moves one of them twice: those that read, and those that write.
    inflight: [Gauge; 2],
    watches: Gauge,
    long_running: Family<DurationLabels, Gauge>,
    sizes: Family<DurationLabels, Histogram>,
    watch_events: Family<WatchLabels, Counter>,
    store: Family<OperationLabels, Histogram>,
    /// Failed, and not.
    authentications: [Counter; 2],
    /// Denied, and allowed.
    authorizations: [Counter; 2],
    audited: Counter,
    audit_errors: Counter,
    objects: Family<ObjectLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObjectLabels {
    resource: String,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let inflight = Family::<InflightLabels, Gauge>::default();
    let [authentications, authorizations] = [(); 2].map(|()| Family::<ResultLabels, Counter>::default());
    let results = |f: &Family<ResultLabels, Counter>, words: [&'static str; 2]| {
        words.map(|result| f.get_or_create_owned(&ResultLabels { result }))
    };
    let m = Metrics {
        requests: Family::default(),
        duration: Family::new_with_constructor(|| {
            Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
            ])
        }),
        inflight: ["readOnly", "mutating"]
            .map(|request_kind| inflight.get_or_create_owned(&InflightLabels { request_kind })),
        watches: Gauge::default(),
        long_running: Family::default(),
        sizes: Family::new_with_constructor(|| Histogram::new([1e3, 1e4, 1e5, 1e6, 1e7, 1e8])),
        watch_events: Family::default(),
        store: Family::new_with_constructor(|| {
            Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0])
        }),
        authentications: results(&authentications, ["failure", "success"]),
        authorizations: results(&authorizations, ["denied", "allowed"]),
        audited: Counter::default(),
        audit_errors: Counter::default(),
        objects: Family::default(),
    };
    telemetry::metrics::register(|r| {
        r.register("apiserver_request", "Requests answered, by verb, resource and code", m.requests.clone());
        r.register(
            "apiserver_request_duration_seconds",
            "How long requests took, watches and streams left out",
            m.duration.clone(),
        );
        r.register("apiserver_current_inflight_requests", "Requests being answered now", inflight);
        r.register("apiserver_audit_event", "Audit records made", m.audited.clone());
        r.register("apiserver_audit_error", "Audit records that were lost", m.audit_errors.clone());
        r.register("apiserver_storage_objects", "Objects there are, by resource", m.objects.clone());
        r.register("apiserver_longrunning_requests", "Watches open now, by resource", m.long_running.clone());
        r.register("apiserver_response_sizes", "Bytes of answers to reads", m.sizes.clone());
        r.register("apiserver_watch_events", "Events sent to watchers", m.watch_events.clone());
        r.register(
            "etcd_request_duration_seconds",
            "How long the store took to write, whichever it is",
            m.store.clone(),
        );
        r.register("authentication_attempts", "Requests with or without a known user", authentications);
        r.register("authorization_attempts", "Requests allowed and refused", authorizations);
        r.register("apiserver_registered_watchers", "Watches open now", m.watches.clone());
    });
    m
});

/// An audit record was lost on its way.
pub fn audit_dropped() {
    METRICS.audit_errors.inc();
}

/// Called when metrics are asked for.
pub(crate) fn objects_stored(kind: &Kind, count: usize) {
    let resource = if kind.group.is_empty() {
        kind.resource.to_owned()
    } else {
        format!("{}.{}", kind.resource, kind.group)
    };
    METRICS.objects.get_or_create(&ObjectLabels { resource }).set(count as i64);
}

impl Metrics {
    pub(crate) fn audited(&self) {
        self.audited.inc();
    }

    /// `bytes` of the answer, where that is known.
    pub(crate) fn observe(&self, labels: RequestLabels, took: Duration, bytes: Option<u64>, streamed: bool) {
        if !streamed {
            let l = labels.duration();
            if let Some(bytes) = bytes.filter(|_| matches!(labels.verb, "GET" | "LIST")) {
                self.sizes.get_or_create(&l).observe(bytes as f64);
            }
            self.duration.get_or_create(&l).observe(took.as_secs_f64());
        }
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn stored(&self, operation: &'static str, ty: &'static str, took: Duration) {
        self.store.get_or_create(&OperationLabels { operation, r#type: ty }).observe(took.as_secs_f64());
    }

    pub(crate) fn authenticated(&self, known: bool) {
        let [failure, success] = &self.authentications;
        if known {
            success.inc()
        } else {
            failure.inc()
        };
    }

    pub(crate) fn authorized(&self, allowed: bool) {
        let [denied, granted] = &self.authorizations;
        if allowed {
            granted.inc()
        } else {
            denied.inc()
        };
    }

    /// What counts the events sent to the watchers of a resource.
    pub(crate) fn watch_events(&self, served: &Served) -> Counter {
        let l = WatchLabels { group: served.group, version: served.version, resource: served.kind.resource };
        self.watch_events.get_or_create_owned(&l)
    }
}

impl RequestLabels {
    fn duration(&self) -> DurationLabels {
        DurationLabels {
            verb: self.verb,
            group: self.group,
            version: self.version,
            resource: self.resource,
            subresource: self.subresource,
            scope: self.scope,
            component: self.component,
        }
    }
}

/// Counts one request for as long as it is held.
pub(crate) struct Inflight(&'static Gauge);

impl Inflight {
    pub(crate) fn new(mutating: bool) -> Self {
        let [reading, writing] = &METRICS.inflight;
        let gauge = if mutating { writing } else { reading };
        gauge.inc();
        Inflight(gauge)
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts one watch for as long as it is held.
pub(crate) struct Watching(Gauge);

impl Watching {
    pub(crate) fn new(labels: &RequestLabels) -> Self {
        METRICS.watches.inc();
        let open = METRICS.long_running.get_or_create_owned(&labels.duration());
        open.inc();
        Watching(open)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        METRICS.watches.dec();
        self.0.dec();
    }
}
