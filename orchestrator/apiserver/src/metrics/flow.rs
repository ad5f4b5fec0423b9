//! What priority and fairness counts, under upstream's names. Levels and schemas are objects of administrators:
//! there are few of them.

use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dispatched {
    priority_level: String,
    flow_schema: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Level {
    priority_level: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    priority_level: String,
    flow_schema: String,
    execute: &'static str,
}

struct Metrics {
    dispatched: Family<Dispatched, Counter>,
    refused: Family<Refused, Counter>,
    limit: Family<Level, Gauge>,
    executing: Family<Level, Gauge>,
    waiting: Family<Level, Gauge>,
    waited: Family<Waited, Histogram>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics {
        dispatched: Family::default(),
        refused: Family::default(),
        limit: Family::default(),
        executing: Family::default(),
        waiting: Family::default(),
        waited: Family::new_with_constructor(|| {
            Histogram::new([0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0])
        }),
    };
    telemetry::metrics::register(|r| {
        r.register(
            "apiserver_flowcontrol_dispatched_requests",
            "Requests that got a seat",
            m.dispatched.clone(),
        );
        r.register("apiserver_flowcontrol_rejected_requests", "Requests answered by 429", m.refused.clone());
        r.register("apiserver_flowcontrol_nominal_limit_seats", "Seats of a level", m.limit.clone());
        r.register("apiserver_flowcontrol_current_executing_seats", "Seats taken now", m.executing.clone());
        r.register(
            "apiserver_flowcontrol_current_inqueue_requests",
            "Requests waiting now",
            m.waiting.clone(),
        );
        r.register(
            "apiserver_flowcontrol_request_wait_duration_seconds",
            "How long requests waited for their seats",
            m.waited.clone(),
        );
    });
    m
});

/// What counts the requests of a schema that got a seat.
pub(crate) fn dispatched(level: &str, schema: &str) -> Counter {
    let labels = Dispatched { priority_level: level.to_owned(), flow_schema: schema.to_owned() };
    METRICS.dispatched.get_or_create_owned(&labels)
}

/// What times the waits of a schema's requests that were then served, or were not.
pub(crate) fn waits(level: &str, schema: &str, execute: bool) -> Histogram {
    let execute = if execute { "true" } else { "false" };
    let labels = Waited { priority_level: level.to_owned(), flow_schema: schema.to_owned(), execute };
    METRICS.waited.get_or_create_owned(&labels)
}

pub(crate) fn waited(level: &str, schema: &str, execute: bool, took: Duration) {
    waits(level, schema, execute).observe(took.as_secs_f64());
}

pub(crate) fn refused(level: &str, schema: &str, reason: &'static str) {
    let labels = Refused { priority_level: level.to_owned(), flow_schema: schema.to_owned(), reason };
    METRICS.refused.get_or_create(&labels).inc();
}

pub(crate) fn limit(level: &str, seats: u32) {
    METRICS.limit.get_or_create(&Level { priority_level: level.to_owned() }).set(seats.into());
}

/// Called when metrics are asked for.
pub(crate) fn load(level: &str, executing: u32, waiting: usize) {
    let level = Level { priority_level: level.to_owned() };
    METRICS.executing.get_or_create(&level).set(executing.into());
    METRICS.waiting.get_or_create(&level).set(waiting as i64);
}
