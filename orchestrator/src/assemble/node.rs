//! The node of a one-machine cluster: pod network, service proxy, DNS, kubelet.

use anyhow::{Context, Result};
use kubelet::Kubelet;
use network::Network;
use tokio::task::JoinHandle;

use super::Shared;
use super::control::Control;
use super::engines::{Otlp, listen};

pub(super) struct Node {
    network: Network,
    kubelet: JoinHandle<()>,
}

/// The kubelet's configuration, also for `down`, which has no certificates.
pub(crate) fn kubelet_config(config: &crate::config::Config) -> kubelet::Config {
    kubelet::Config {
        node_name: config.node_name.clone(),
        node_ip: config.node_ip,
        data_dir: config.data_dir.clone(),
        containerd_socket: config.containerd_socket.clone(),
        containerd_namespace: config.containerd_namespace(),
        cgroup_root: config.cgroup_root.clone(),
        api_addr: config.kubelet_addr,
        serving_cert: String::new(),
        serving_key: String::new(),
        client_ca: String::new(),
        network: config.network(),
        otlp_endpoint: None,
        max_pods: 110,
        registry_mirrors: config.registry_mirrors.clone(),
        clock: signal::time::system_clock(),
    }
}

pub(super) async fn start(
    shared: &Shared,
    control: &Control,
    otlp: Otlp,
    receiver: collector::otlp::Receiver,
    stored: kubelet::StoredFn,
    threads: &tokio::runtime::Handle,
) -> Result<Node> {
    let c = &shared.config;
    let pki = control.server.pki();
    let gateway = c.network().gateway();
    let kubelet_config = kubelet::Config {
        serving_cert: pki.kubelet_server.cert_pem.clone(),
        serving_key: pki.kubelet_server.key_pem.clone(),
        client_ca: pki.ca_pem().to_owned(),
        otlp_endpoint: Some(format!("http://{gateway}:{}", otlp.http.port())),
        clock: shared.clock.clone(),
        ..kubelet_config(c)
    };
    let user = format!("system:node:{}", c.node_name);
    let node_client = control.client(&user, &["system:nodes"]);
    let handles = kubelet::Handles { stored: Some(stored), ..shared.node.clone() };
    let kubelet = Kubelet::new(kubelet_config, node_client, handles)
        .await
        .context("start the node: `binnacle doctor` checks this machine")?;
    let network = Network::start(
        c.network(),
        control.client("system:kube-proxy", &["system:masters"]),
        shared.stop.clone(),
    )
    .await
    .context("start the service network: `binnacle doctor` checks this machine")?;
    // The bridge is there now: pods reach the API and OTLP on their gateway's address.
    control.serve(shared, listen((gateway, control.api_addr.port()).into(), "--api-addr").await?);
    super::engines::serve_on(
        shared,
        receiver,
        listen((gateway, otlp.grpc.port()).into(), "--otlp-grpc-addr").await?,
        listen((gateway, otlp.http.port()).into(), "--otlp-http-addr").await?,
        threads,
    );
    let stop = shared.stop.clone();
    let kubelet = telemetry::task::spawn("kubelet", async move {
        if let Err(e) = kubelet.run(stop).await {
            tracing::error!(error = %e, "the kubelet ended");
        }
    });
    Ok(Node { network, kubelet })
}

impl Node {
    pub(super) async fn stopped(self) {
        if let Err(e) = self.kubelet.await {
            tracing::error!(error = %e, "the kubelet failed");
        }
        self.network.stopped().await;
    }
}
