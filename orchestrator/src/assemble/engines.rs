//! The telemetry engines, the sink in front of them, and what feeds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use client::Informers;
use collector::Senders;
use collector::forward::{Forwarder, Forwarding};
use collector::otlp::{Receiver, serve_grpc, serve_http};
use collector::process::{Pipeline, Rules};
use log_index::{Kind, LogIndex};
use signal::{
    Accepted, Attributes, Identity, Labels, LogBatch, MetricBatch, SeriesSource, Sink, SinkError, SpanBatch,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tsdb::Tsdb;

use super::{Shared, SharedSink};

/// Revisions of objects in memory before they are a partition.
const HISTORY_BYTES: usize = 2 << 20;
/// Our own metrics.
const OWN_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Engines {
    pub(crate) metrics: Arc<Tsdb>,
    pub(crate) logs: Arc<LogIndex>,
    pub(crate) traces: Arc<LogIndex>,
    /// Revisions of the cluster's objects.
    pub(crate) history: Arc<LogIndex>,
    /// Where what the platform itself knows goes.
    pub(crate) sink: SharedSink,
    /// Where what others say goes: the processors, then `sink`.
    pub(crate) intake: SharedSink,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) log_rules: Arc<Rules>,
    pub(crate) forwarders: Vec<Arc<Forwarder>>,
    pub(crate) promql: Arc<promql::Engine>,
}

struct LocalSink {
    metrics: Arc<Tsdb>,
    logs: Arc<LogIndex>,
    traces: Arc<LogIndex>,
}

#[async_trait]
impl Sink for LocalSink {
    async fn write_metrics(&self, batch: MetricBatch) -> Result<Accepted, SinkError> {
        self.metrics.append(batch).await
    }

    async fn write_logs(&self, batch: LogBatch) -> Result<Accepted, SinkError> {
        self.logs.append_logs(batch).await
    }

    async fn write_spans(&self, batch: SpanBatch) -> Result<Accepted, SinkError> {
        self.traces.append_spans(batch).await
    }
}

/// Who this process is in its own telemetry.
fn own_identity(shared: &Shared) -> Labels {
    Labels::from_pairs([
        ("namespace", "kube-system"),
        ("pod", &format!("binnacle-{}", shared.config.node_name)),
        ("container", "binnacle"),
        ("node", &shared.config.node_name),
    ])
}

pub(super) fn telemetry(shared: &Shared) -> Result<telemetry::Telemetry> {
    telemetry::init(telemetry::Config {
        stderr_filter: shared.config.log.clone(),
        // hickory tells of every DNS query, twice.
        stored_filter: "info,hickory_server=warn".to_owned(),
        identity: own_identity(shared),
        clock: shared.clock.clone(),
    })
    .map_err(|e| anyhow::anyhow!("{e}; see --log"))
}

pub(super) fn open(shared: &Shared) -> Result<Engines> {
    let c = &shared.config;
    let (retention, retention_bytes) = c.metrics_retention.split();
    let metrics = Tsdb::open(tsdb::Config {
        retention,
        retention_bytes,
        // By default once a second: a node measures every second, and an fsync for each tick would cost more than all
        // the rest (docs/adr/0001-metrics-sync.md).
        sync: c.metrics_sync.map_or(wal::SyncPolicy::Batch, wal::SyncPolicy::Every),
        out_of_order: c.metrics_out_of_order,
        limits: c.metrics_limits.clone(),
        release: Some(crate::memory::give_back),
        clock: shared.clock.clone(),
        ..tsdb::Config::new(c.data_dir.join("metrics"))
    })
    .context("open metrics")?;
    let index = |name: &str, kind, retention: crate::config::Retention| {
        let (retention, retention_bytes) = retention.split();
        LogIndex::open(log_index::Config {
            retention,
            retention_bytes,
            clock: shared.clock.clone(),
            ..log_index::Config::new(c.data_dir.join(name), kind)
        })
        .with_context(|| format!("open {name}"))
    };
    let logs = index("logs", Kind::Logs, c.logs_retention)?;
    let traces = index("traces", Kind::Spans, c.traces_retention)?;
    let (retention, retention_bytes) = c.logs_retention.split();
    let history = LogIndex::open(log_index::Config {
        retention,
        retention_bytes,
        clock: shared.clock.clone(),
        // Few ask for it: most of it may lie on disk.
        head_bytes: HISTORY_BYTES,
        ..log_index::Config::new(c.data_dir.join("history"), Kind::Logs)
    })
    .context("open history")?;
    super::engine_metrics::register(&metrics, &[("logs", &logs), ("traces", &traces), ("history", &history)]);
    let sink: SharedSink =
        Arc::new(LocalSink { metrics: metrics.clone(), logs: logs.clone(), traces: traces.clone() });
    let forwarders: Vec<Arc<Forwarder>> = c
        .forward
        .iter()
        .map(|f| Forwarder::open(f.clone(), &c.data_dir.join("collector")))
        .collect::<Result<_, _>>()
        .context("forward, in the configuration")?;
    let sink: SharedSink =
        if forwarders.is_empty() { sink } else { Arc::new(Forwarding::new(sink, forwarders.clone())) };
    let source: Arc<dyn SeriesSource> = metrics.clone();
    let promql = Arc::new(promql::Engine::new(source, promql::Limits::default()));
    let log_rules = Arc::new(Rules::new(c.logs.clone()).context("logs, in the configuration")?);
    let (dir, clock) = (c.data_dir.join("collector"), shared.clock.clone());
    let pipeline = Pipeline::open(sink.clone(), log_rules.clone(), &c.traces, &dir, clock)
        .context("open the log of traces that wait for a decision")?;
    let intake: SharedSink = pipeline.clone();
    Ok(Engines { intake, pipeline, forwarders, log_rules, metrics, logs, traces, history, sink, promql })
}

/// Where OTLP is received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Otlp {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
}

/// Who senders are, for every receiver.
pub(super) fn senders(shared: &Shared) -> Senders {
    let labels = Labels::from_pairs([("node", shared.config.node_name.as_str())]);
    let mut resource = Attributes::default();
    resource.set("k8s.node.name", shared.config.node_name.as_str());
    let local = Identity { labels, resource };
    Senders::new(shared.identities.clone(), local, shared.config.trusted_senders.clone())
}

/// The one receiver behind every OTLP door.
pub(super) fn receiver(shared: &Shared, engines: &Engines) -> Receiver {
    Receiver::new(
        engines.intake.clone(),
        senders(shared),
        shared.config.otlp_translation_strategy,
        shared.clock.clone(),
    )
}

pub(super) async fn serve_otlp(shared: &Shared, receiver: Receiver, threads: &Handle) -> Result<Otlp> {
    let grpc = listen(shared.config.otlp_grpc_addr, "--otlp-grpc-addr").await?;
    let http = listen(shared.config.otlp_http_addr, "--otlp-http-addr").await?;
    let otlp = Otlp {
        grpc: grpc.local_addr().context("the address of the OTLP gRPC listener")?,
        http: http.local_addr().context("the address of the OTLP HTTP listener")?,
    };
    serve_on(shared, receiver, grpc, http, threads);
    Ok(otlp)
}

/// Serves both doors on these listeners.
pub(super) fn serve_on(
    shared: &Shared,
    receiver: Receiver,
    grpc: TcpListener,
    http: TcpListener,
    threads: &Handle,
) {
    let (r, stop) = (receiver.clone(), shared.stop.clone());
    let _inside = threads.enter();
    telemetry::task::spawn("otlp-grpc", async move {
        if let Err(e) = serve_grpc(r, grpc, stop).await {
            tracing::error!(error = %e, "OTLP gRPC ended");
        }
    });
    let stop = shared.stop.clone();
    telemetry::task::spawn("otlp-http", async move {
        if let Err(e) = serve_http(receiver, http, stop).await {
            tracing::error!(error = %e, "OTLP HTTP ended");
        }
    });
}

pub(crate) async fn listen(addr: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| {
        format!("cannot listen on {addr}: end what uses it, or choose another address with {flag}")
    })
}

/// Starts whatever reads by itself.
pub(super) fn start_collector(shared: &Shared, engines: &Engines, informers: &Informers, threads: &Handle) {
    let (stop, clock, sink) = (&shared.stop, &shared.clock, &engines.sink);
    let _inside = threads.enter();
    telemetry::task::spawn("tsdb", engines.metrics.clone().run(stop.clone()));
    super::gone::watch(engines.metrics.clone(), informers, clock.clone(), stop.clone());
    telemetry::task::spawn("log-index", engines.logs.clone().run(stop.clone()));
    telemetry::task::spawn("trace-index", engines.traces.clone().run(stop.clone()));
    telemetry::task::spawn(
        "own-metrics",
        collector::own::run(
            own_identity(shared)
                .builder()
                .set("job", "binnacle")
                .set("instance", &shared.config.node_name)
                .build(),
            OWN_INTERVAL,
            sink.clone(),
            clock.clone(),
            stop.clone(),
        ),
    );
    telemetry::task::spawn(
        "machine",
        collector::machine::run(
            Labels::from_pairs([
                ("job", "node"),
                ("instance", &shared.config.node_name),
                ("node", &shared.config.node_name),
            ]),
            sink.clone(),
            clock.clone(),
            stop.clone(),
        ),
    );
    telemetry::task::spawn(
        "cgroups",
        collector::cgroup::run(shared.node.cgroups.clone(), sink.clone(), clock.clone(), stop.clone()),
    );
    telemetry::task::spawn(
        "scrape-manager",
        collector::scrape::run(
            shared.scrape_targets.clone(),
            shared.target_health.clone(),
            sink.clone(),
            clock.clone(),
            stop.clone(),
        ),
    );
    telemetry::task::spawn(
        "scrape-targets",
        super::scrape_targets::run(
            shared.config.scrape.clone(),
            super::scrape_targets::Targets {
                active: shared.scrape_targets.clone(),
                dropped: shared.dropped_targets.clone(),
            },
            stop.clone(),
        ),
    );
    super::log_rules::watch(engines.log_rules.clone(), informers);
    telemetry::task::spawn("processors", engines.pipeline.clone().run(stop.clone()));
    for f in &engines.forwarders {
        telemetry::task::spawn("forward", f.clone().run(stop.clone()));
    }
    let logs = engines.logs.clone();
    telemetry::task::spawn(
        "log-files",
        collector::logfile::run(
            shared.node.log_files.clone(),
            Arc::new(move |source: &str| logs.checkpoint(source)),
            engines.log_rules.clone(),
            engines.intake.clone(),
            stop.clone(),
        ),
    );
    telemetry::task::spawn(
        "discovery",
        discovery::run(
            informers.clone(),
            discovery::Handles {
                identities: shared.identities.clone(),
                targets: shared.scrape_targets.clone(),
                sink: sink.clone(),
            },
            clock.clone(),
            stop.clone(),
        ),
    );
}
