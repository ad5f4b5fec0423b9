//! What the room says of itself.

use std::sync::LazyLock;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabel {
    pub(crate) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TableLabel {
    pub(crate) table: &'static str,
}

pub(crate) struct Metrics {
    pub(crate) queries: Family<ResultLabel, Counter>,
    pub(crate) seconds: Histogram,
    pub(crate) memory: Gauge,
    pub(crate) rows_scanned: Family<TableLabel, Counter>,
    pub(crate) truncated: Counter,
}

pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let m = Metrics {
        queries: Family::default(),
        seconds: Histogram::new([0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0]),
        memory: Gauge::default(),
        rows_scanned: Family::default(),
        truncated: Counter::default(),
    };
    telemetry::metrics::register(|r| {
        r.register("binnacle_sql_queries", "Queries, by result", m.queries.clone());
        r.register("binnacle_sql_query_duration_seconds", "From statement to answer", m.seconds.clone());
        r.register(
            "binnacle_sql_memory_bytes",
            "What operators held when the last query ended",
            m.memory.clone(),
        );
        r.register("binnacle_sql_scanned_rows", "Rows given to plans, by table", m.rows_scanned.clone());
        r.register("binnacle_sql_truncated_answers", "Answers cut off at their bound", m.truncated.clone());
    });
    m
});
