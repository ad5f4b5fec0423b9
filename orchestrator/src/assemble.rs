//! Assembly: builds every room from the configuration, in order, and takes them down again.

pub(crate) mod audit;
pub(crate) mod control;
pub(crate) mod directory;
mod engine_metrics;
pub(crate) mod engines;
mod gone;
pub(crate) mod history;
mod log_rules;
pub(crate) mod node;
mod past_logs;
mod receivers;
mod rules;
mod scrape_targets;
mod startup;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::Informers;
use signal::time::system_clock;
use signal::{Identities, Registry, Sink};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::http;
use startup::Startup;

/// Writing metrics before the end may take this long: a clean stop has ten seconds in all.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// After a start, caches are warm and controllers have nothing left to do.
const SETTLED: Duration = Duration::from_secs(10);

/// What is shared by rooms of different floors.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: signal::time::SharedClock,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    pub(crate) identities: Arc<Identities>,
    pub(crate) scrape_targets: Arc<Registry<signal::ScrapeTarget>>,
    pub(crate) dropped_targets: Arc<Registry<Vec<signal::Labels>>>,
    pub(crate) target_health: Arc<Registry<collector::scrape::TargetHealth>>,
    pub(crate) node: kubelet::Handles,
}

/// `binnacle up` (with a node) and `binnacle server` (without).
pub(crate) async fn up(config: Config, with_node: bool) -> Result<()> {
    let startup = Startup::new();
    let shared = Shared {
        config: Arc::new(config),
        clock: system_clock(),
        stop: CancellationToken::new(),
        identities: Arc::default(),
        scrape_targets: Arc::default(),
        dropped_targets: Arc::default(),
        target_health: Arc::default(),
        node: kubelet::Handles::default(),
    };
    let config = &shared.config;
    let directory = directory::open(&config.data_dir)?;
    let telemetry = engines::telemetry(&shared)?;
    startup.step("state directory");

    // Telemetry has threads of its own, so that a heavy query never slows the control plane (invariant 8).
    let telemetry_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .thread_name("telemetry")
        .enable_all()
        .build()
        .context("start telemetry threads")?;
    let result = run(&shared, &telemetry, telemetry_runtime.handle(), &directory, &startup, with_node).await;
    shared.stop.cancel();
    telemetry_runtime.shutdown_background();
    result
}

async fn run(
    shared: &Shared,
    telemetry: &telemetry::Telemetry,
    telemetry_threads: &tokio::runtime::Handle,
    directory: &directory::Directory,
    startup: &Startup,
    with_node: bool,
) -> Result<()> {
    let config = &shared.config;
    if with_node {
        // The kubelet binds it once containerd runs: a port that is in use must stop us before that.
        drop(engines::listen(config.kubelet_addr, "--kubelet-addr").await?);
    }
    let engines = engines::open(shared)?;
    startup.step("metrics, logs and traces");
    telemetry.connect(engines.sink.clone());

    let (control, http_listener) = tokio::try_join!(
        control::open(shared, directory, &engines, with_node),
        http::bind(config.http_addr)
    )?;
    startup.step("API server");
    let client = control.client("system:binnacle", &["system:masters"]);
    let informers = Informers::new(client, shared.stop.clone());
    control.start(shared, &informers, &engines);
    history::start(shared, control.server.clone(), &engines, telemetry_threads);

    let receiver = engines::receiver(shared, &engines);
    let otlp = engines::serve_otlp(shared, receiver.clone(), telemetry_threads).await?;
    let senders = engines::senders(shared);
    let receivers = receivers::serve(shared, &engines, &senders, telemetry_threads).await?;
    let addresses = directory::Addresses {
        receivers,
        api: control.api_addr,
        http: http_listener.local_addr().context("the address of the HTTP listener")?,
        otlp_grpc: otlp.grpc,
        otlp_http: otlp.http,
    };
    directory.write_kubeconfig(&control, addresses.api)?;
    let rules = rules::start(shared, &engines, addresses.http, telemetry_threads);
    let sessions = http::Sessions::new(directory.admin_token(), shared.clock.clone());
    let door = http::Rooms {
        control: &control,
        engines: &engines,
        informers: &informers,
        rules,
        receivers: receivers::authenticated(shared, &engines, &senders, receiver.clone()),
    };
    http::serve(shared, door, sessions.clone(), http_listener, telemetry_threads);
    engines::start_collector(shared, &engines, &informers, telemetry_threads);
    startup.step("queries and collector");

    let node = if with_node {
        let logs = engines.logs.clone();
        let stored: kubelet::StoredFn = Arc::new(move |source| logs.checkpoint(source));
        let node = node::start(shared, &control, otlp, receiver, stored, telemetry_threads).await?;
        startup.step("node");
        Some(node)
    } else {
        None
    };
    control.ready(with_node.then_some(config.node_name.as_str()), &informers).await?;
    // Its presence says: everything listens.
    directory.write_addresses(&addresses)?;
    startup.ready(config, &addresses, &sessions.link(addresses.http), with_node);

    telemetry::task::spawn("settle", settle(shared.stop.clone()));
    wait_for_signal().await?;
    startup.stopping();
    shared.stop.cancel();
    if let Some(node) = node {
        node.stopped().await;
    }
    control.stopped().await;
    telemetry.shutdown().await;
    match tokio::time::timeout(CHECKPOINT, engines.metrics.checkpoint()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::warn!(error = %e, "metrics will be read back from their log"),
        Err(_) => tracing::warn!("metrics will be read back from their log: writing them takes too long"),
    }
    directory.remove_addresses();
    drop(engines);
    Ok(())
}

/// Once the start is over, what it alone needed is no longer ours.
async fn settle(stop: CancellationToken) {
    if stop.run_until_cancelled(tokio::time::sleep(SETTLED)).await.is_none() {
        return;
    }
    if let Err(e) = crate::memory::let_go_of_start() {
        tracing::debug!(error = %e, "the program's pages stay mapped");
    }
}

async fn wait_for_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// The engines' sink, as the rest of the house knows it.
pub(crate) type SharedSink = Arc<dyn Sink>;
