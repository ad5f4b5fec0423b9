//! The control plane: store, API server, controllers, scheduler, autoscaler.

mod metrics_api;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use apimachinery::user::UserInfo;
use apiserver::ApiServer;
use apiserver::pki::{Pki, PkiConfig};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{Election, Informers, Key};
use k8s_openapi::api::core::v1::Node;
use store::Store;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::directory::Directory;
use super::engines::{Engines, listen};
use super::{Shared, SharedSink};

/// Below this the API server keeps Secrets.
const SECRETS: &[u8] = b"/registry/secrets/";
/// HPAs are looked at this often.
const HPA_PERIOD: Duration = Duration::from_secs(1);
/// A node that is not Ready by then has a reason that a person must look at.
const READY_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Control {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) api_addr: SocketAddr,
    serving: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    /// For what the server answers from the cluster's objects; set when the rooms that watch them start.
    informers: Arc<OnceLock<Informers>>,
}

pub(super) async fn open(
    shared: &Shared,
    directory: &Directory,
    engines: &Engines,
    with_node: bool,
) -> Result<Control> {
    let c = &shared.config;
    let listener = listen(c.api_addr, "--api-addr").await?;
    let api_addr = listener.local_addr().context("the address of the API listener")?;
    let store = open_store(shared, directory).await.context("open the cluster store")?;
    let service_cidr: apiserver::Cidr =
        c.service_cidr.to_string().parse().map_err(|e: String| anyhow::anyhow!("--service-cidr: {e}"))?;
    // Pods reach the API on their gateway's address; without a node there are no pods.
    let advertise: IpAddr = if with_node { c.network().gateway().into() } else { api_addr.ip() };
    let pki = Pki::open(PkiConfig {
        dir: directory.path().join("pki"),
        addresses: vec![advertise, c.node_ip.into(), api_addr.ip()],
        service_ip: service_cidr.nth(1).into(),
        cluster_domain: c.cluster_domain.clone(),
        hostname: c.node_name.clone(),
        now: shared.clock.now(),
    })
    .context("certificates")?;
    let informers: Arc<OnceLock<Informers>> = Arc::default();
    let readiness = if with_node {
        vec![("node".to_owned(), node_check(informers.clone(), c.node_name.clone()))]
    } else {
        Vec::new()
    };
    let server = ApiServer::open(apiserver::Config {
        readiness,
        remarks: {
            let metrics = engines.metrics.clone();
            Arc::new(move || metrics.damage().into_iter().collect())
        },
        service_cidr,
        cluster_domain: c.cluster_domain.clone(),
        advertise_address: advertise,
        admin_token: directory.admin_token().to_owned(),
        clock: shared.clock.clone(),
        local_apis: vec![metrics_api::local_api(
            engines.promql.clone(),
            shared.clock.clone(),
            informers.clone(),
        )],
        past_logs: Some(super::past_logs::archive(engines.logs.clone())),
        past_events: Some(super::history::past_events(engines.history.clone(), shared.clock.clone())),
        admission: c.admission.clone(),
        audit: Some(super::audit::start(shared, engines.sink.clone())),
        oidc: c.oidc.clone(),
        token_webhook: c.token_webhook.clone(),
        stop: shared.stop.clone(),
        ..apiserver::Config::new(Arc::new(store), Arc::new(pki))
    })
    .await
    .context("open the API server")?;
    let control = Control { server, api_addr, serving: parking_lot::Mutex::default(), informers };
    control.serve(shared, listener);
    Ok(control)
}

async fn open_store(shared: &Shared, directory: &Directory) -> Result<Store> {
    let c = &shared.config.store;
    let mut store = match &c.etcd {
        Some(etcd) => Store::open_etcd(etcd.clone()).await?,
        None => Store::open(store::Config {
            clock: shared.clock.clone(),
            ..store::Config::new(directory.path().join("store"))
        })?,
    };
    let sealed = store.protect(c.keys.clone(), vec![bytes::Bytes::from_static(SECRETS)]).await?;
    if sealed > 0 {
        tracing::info!(secrets = sealed, "encrypted with the first key");
    }
    Ok(store)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// This machine's node is Ready: its kubelet and containerd answer.
fn node_check(informers: Arc<OnceLock<Informers>>, name: String) -> apiserver::Check {
    Arc::new(move || {
        let informers = informers.get().ok_or("the node's watch has not begun")?;
        match informers.of::<Node>().get(&Key::new("", &name)) {
            Some(node) if is_ready(&node) => Ok(()),
            Some(_) => Err(format!("node {name} is not Ready: see `kubectl describe node {name}`")),
            None => Err(format!("node {name} has not registered")),
        }
    })
}

/// What the rooms that act on the cluster are made of.
#[derive(Clone)]
struct Parts {
    clock: signal::time::SharedClock,
    ca_pem: String,
    querier: autoscaler::Querier,
    sink: SharedSink,
    node: String,
}

impl Parts {
    async fn controllers(self, informers: Informers, stop: CancellationToken) {
        let config = controllers::Config::new(self.ca_pem);
        controllers::run(controllers::Context { informers, clock: self.clock, config }, stop).await;
    }

    async fn scheduler(self, informers: Informers, stop: CancellationToken) {
        let scheduler_name = scheduler::DEFAULT_SCHEDULER.to_owned();
        scheduler::run(informers, scheduler::Config { scheduler_name, clock: self.clock }, stop).await;
    }

    async fn autoscaler(self, informers: Informers, stop: CancellationToken) {
        let config = autoscaler::Config { clock: self.clock, period: HPA_PERIOD, node: self.node };
        autoscaler::run(informers, self.querier, self.sink, config, stop).await;
    }
}

impl Control {
    /// Serves the API on one more listener.
    pub(super) fn serve(&self, shared: &Shared, listener: tokio::net::TcpListener) {
        let (server, stop) = (self.server.clone(), shared.stop.clone());
        let task = telemetry::task::spawn("apiserver", async move {
            if let Err(e) = server.serve(listener, stop).await {
                tracing::error!(error = %e, "the API server ended");
            }
        });
        self.serving.lock().push(task);
    }

    /// A client within this process, as this user.
    pub(crate) fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        kube::Client::new(self.server.in_process(UserInfo::new(user, groups)), "default")
    }

    /// Starts what acts on the cluster.
    pub(super) fn start(&self, shared: &Shared, informers: &Informers, engines: &Engines) {
        // Nobody else sets it.
        let _first = self.informers.set(informers.clone());
        let parts = Parts {
            clock: shared.clock.clone(),
            ca_pem: self.server.pki().ca_pem().to_owned(),
            querier: autoscaler::Querier::new(engines.promql.clone()),
            sink: engines.sink.clone(),
            node: shared.config.node_name.clone(),
        };
        let mut tasks = self.serving.lock();
        if !self.server.is_shared() {
            tasks.push(telemetry::task::spawn(
                "controllers",
                parts.clone().controllers(informers.clone(), shared.stop.clone()),
            ));
            tasks.push(telemetry::task::spawn(
                "autoscaler",
                parts.clone().autoscaler(informers.clone(), shared.stop.clone()),
            ));
            tasks.push(telemetry::task::spawn(
                "scheduler",
                parts.scheduler(informers.clone(), shared.stop.clone()),
            ));
            return;
        }
        // Other servers act on the same objects: one of them at a time, with informers that live as long as its term.
        let identity =
            format!("{}_{}", shared.config.node_name, super::directory::hex(&rand::random::<[u8; 8]>()));
        let election = |lease: &str| Election {
            client: self.client("system:binnacle", &["system:masters"]),
            lease: lease.to_owned(),
            identity: identity.clone(),
            clock: shared.clock.clone(),
        };
        let client = self.client("system:binnacle", &["system:masters"]);
        let (p, c) = (parts.clone(), client.clone());
        tasks.push(telemetry::task::spawn(
            "elect-controllers",
            election("kube-controller-manager").run(shared.stop.clone(), move |term| {
                let (p, informers) = (p.clone(), Informers::new(c.clone(), term.clone()));
                async move {
                    let controllers = p.clone().controllers(informers.clone(), term.clone());
                    tokio::join!(controllers, p.autoscaler(informers, term));
                }
            }),
        ));
        tasks.push(telemetry::task::spawn(
            "elect-scheduler",
            election("kube-scheduler").run(shared.stop.clone(), move |term| {
                parts.clone().scheduler(Informers::new(client.clone(), term.clone()), term)
            }),
        ));
    }

    /// Waits until the node is Ready, if there is one.
    pub(super) async fn ready(&self, node: Option<&str>, informers: &Informers) -> Result<()> {
        let Some(node) = node else { return Ok(()) };
        let nodes = informers.of::<Node>();
        let (ready, mut became) = tokio::sync::watch::channel(false);
        let name = node.to_owned();
        nodes.on_change(move |c| {
            let is = c.object().metadata.name.as_deref() == Some(&name)
                && c.new.as_ref().is_some_and(|n| is_ready(n));
            if is {
                ready.send_replace(true);
            }
        });
        let result = tokio::time::timeout(READY_WITHIN, became.wait_for(|r| *r)).await;
        let seen = nodes.get(&Key::new("", node));
        result
            .with_context(|| match seen {
                Some(_) => format!("node {node} did not become Ready within {READY_WITHIN:?}: see `kubectl describe node {node}`"),
                None => format!("node {node} did not register within {READY_WITHIN:?}"),
            })?
            .context("the node's watch ended")?;
        Ok(())
    }

    pub(super) fn kubeconfig(&self, api: SocketAddr) -> String {
        let pki = self.server.pki();
        let encode = |pem: &str| STANDARD.encode(pem);
        format!(
            "apiVersion: v1
kind: Config
clusters:
- name: binnacle
  cluster:
    server: https://{api}
    certificate-authority-data: {}
users:
- name: binnacle-admin
  user:
    client-certificate-data: {}
    client-key-data: {}
contexts:
- name: binnacle
  context:
    cluster: binnacle
    user: binnacle-admin
current-context: binnacle
",
            encode(pki.ca_pem()),
            encode(&pki.admin.cert_pem),
            encode(&pki.admin.key_pem),
        )
    }

    pub(super) async fn stopped(&self) {
        let tasks = std::mem::take(&mut *self.serving.lock());
        for task in tasks {
            if let Err(e) = tokio::time::timeout(Duration::from_secs(5), task).await {
                tracing::warn!(error = %e, "a part of the control plane did not stop in time");
            }
        }
    }
}
