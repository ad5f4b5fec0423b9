//! What the server counts, under upstream's names.

pub(crate) mod auth;
pub(crate) mod flow;
pub(crate) mod reads;
pub(crate) mod store;

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::kinds::Served;

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
struct DeprecatedLabels {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    removed_release: &'static str,
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
    /// Without what others took: queues and webhooks.
    sli: Family<DurationLabels, Histogram>,
    terminations: Family<RequestLabels, Counter>,
    aborts: Family<DurationLabels, Counter>,
    deprecated: Family<DeprecatedLabels, Gauge>,
    /// Every request moves one of them twice: those that read, and those that write.
    inflight: [Gauge; 2],
    watches: Gauge,
    long_running: Family<DurationLabels, Gauge>,
    sizes: Family<DurationLabels, Histogram>,
    watch_events: Family<WatchLabels, Counter>,
    audited: Counter,
    audit_errors: Counter,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let inflight = Family::<InflightLabels, Gauge>::default();
    let m = Metrics {
        requests: Family::default(),
        duration: Family::new_with_constructor(|| {
            Histogram::new([
                0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
            ])
        }),
        sli: Family::new_with_constructor(|| {
            Histogram::new([0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0])
        }),
        terminations: Family::default(),
        aborts: Family::default(),
        deprecated: Family::default(),
        inflight: ["readOnly", "mutating"]
            .map(|request_kind| inflight.get_or_create_owned(&InflightLabels { request_kind })),
        watches: Gauge::default(),
        long_running: Family::default(),
        sizes: Family::new_with_constructor(|| Histogram::new([1e3, 1e4, 1e5, 1e6, 1e7, 1e8])),
        watch_events: Family::default(),
        audited: Counter::default(),
        audit_errors: Counter::default(),
    };
    telemetry::metrics::register(|r| {
        r.register("apiserver_request", "Requests answered, by verb, resource and code", m.requests.clone());
        r.register(
            "apiserver_request_duration_seconds",
            "How long requests took, watches and streams left out",
            m.duration.clone(),
        );
        r.register(
            "apiserver_request_sli_duration_seconds",
            "How long requests took, without queues and webhooks, watches and streams left out",
            m.sli.clone(),
        );
        r.register(
            "apiserver_request_terminations",
            "Requests that the server ended to protect itself: 429 and 504",
            m.terminations.clone(),
        );
        r.register(
            "apiserver_request_aborts",
            "Requests whose client left before the answer",
            m.aborts.clone(),
        );
        r.register(
            "apiserver_requested_deprecated_apis",
            "1 for each deprecated API that was asked for",
            m.deprecated.clone(),
        );
        r.register("apiserver_current_inflight_requests", "Requests being answered now", inflight);
        r.register("apiserver_audit_event", "Audit records made", m.audited.clone());
        r.register("apiserver_audit_error", "Audit records that were lost", m.audit_errors.clone());
        r.register("apiserver_longrunning_requests", "Watches open now, by resource", m.long_running.clone());
        r.register("apiserver_response_sizes", "Bytes of answers to reads", m.sizes.clone());
        r.register("apiserver_watch_events", "Events sent to watchers", m.watch_events.clone());
        r.register("apiserver_registered_watchers", "Watches open now", m.watches.clone());
    });
    m
});

/// Which version this is, as upstream's programs tell it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Build {
    pub(crate) major: &'static str,
    pub(crate) minor: &'static str,
    pub(crate) git_version: &'static str,
    pub(crate) git_commit: &'static str,
    pub(crate) git_tree_state: &'static str,
    pub(crate) build_date: &'static str,
    pub(crate) go_version: &'static str,
    pub(crate) compiler: &'static str,
    pub(crate) platform: &'static str,
}

/// Called when a server opens.
pub(crate) fn built(build: Build) {
    static TOLD: LazyLock<Family<Build, Gauge>> = LazyLock::new(|| {
        let told = Family::default();
        telemetry::metrics::register(|r| {
            r.register("kubernetes_build_info", "The version of this program", Family::clone(&told));
        });
        told
    });
    TOLD.get_or_create(&build).set(1);
}

/// An audit record was lost on its way.
pub fn audit_dropped() {
    METRICS.audit_errors.inc();
}

impl Metrics {
    pub(crate) fn audited(&self) {
        self.audited.inc();
    }

    /// `bytes` of the answer, where that is known; `elsewhere` of `took` was spent by others.
    pub(crate) fn observe(
        &self,
        labels: RequestLabels,
        took: Duration,
        elsewhere: Duration,
        bytes: Option<u64>,
        streamed: bool,
    ) {
        if !streamed {
            let l = labels.duration();
            self.sli.get_or_create(&l).observe(took.saturating_sub(elsewhere).as_secs_f64());
            if let Some(bytes) = bytes.filter(|_| matches!(labels.verb, "GET" | "LIST")) {
                self.sizes.get_or_create(&l).observe(bytes as f64);
            }
            self.duration.get_or_create(&l).observe(took.as_secs_f64());
        }
        if matches!(labels.code, 429 | 504) {
            self.terminations.get_or_create(&labels).inc();
        }
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn deprecated(&self, l: &RequestLabels) {
        let labels = DeprecatedLabels {
            group: l.group,
            version: l.version,
            resource: l.resource,
            subresource: l.subresource,
            removed_release: "",
        };
        self.deprecated.get_or_create(&labels).set(1);
    }

    pub(crate) fn aborted(&self, labels: &RequestLabels) {
        self.aborts.get_or_create(&labels.duration()).inc();
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
