//! The API through its router, without a socket, and through TLS with the real kubectl.

mod access;
mod aggregation;
mod apply;
mod audit;
mod crd;
mod defaults;
mod fairness;
mod full;
mod hostile;
mod https;
mod identity;
mod kubectl;
mod nodes;
mod objects;
mod plugins;
mod policies;
mod protobuf;
mod protocol;
mod rego;
mod resize;
mod restart;
mod services;
mod validation;
mod versions;
mod webhook;
mod workloads;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::user::UserInfo;
use apiserver::pki::{Pki, PkiConfig};
use apiserver::{ApiServer, Config};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use store::Store;
use tokio_util::sync::CancellationToken;

struct Cluster {
    _dir: tempfile::TempDir,
    path: PathBuf,
    server: Arc<ApiServer>,
    stop: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn cluster() -> Cluster {
    cluster_with(|_| {}).await
}

/// With settings of one's own.
async fn cluster_with(set: impl FnOnce(&mut Config)) -> Cluster {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(store::Config::new(dir.path().join("store"))).expect("a store");
    let pki = Pki::open(PkiConfig {
        dir: dir.path().join("pki"),
        addresses: Vec::new(),
        service_ip: IpAddr::from([10, 43, 0, 1]),
        cluster_domain: "cluster.local".to_owned(),
        hostname: "test".to_owned(),
        now: signal::time::now(),
    })
    .expect("certificates");
    let stop = CancellationToken::new();
    let mut config = Config::new(Arc::new(store), Arc::new(pki));
    config.admin_token = "secret".to_owned();
    config.stop = stop.clone();
    set(&mut config);
    let server = ApiServer::open(config).await.expect("a server");
    Cluster { path: dir.path().to_owned(), _dir: dir, server, stop }
}

impl Cluster {
    fn client(&self) -> Client {
        self.client_as(UserInfo::new("admin", &["system:masters"]))
    }

    fn client_as(&self, user: UserInfo) -> Client {
        Client::new(self.server.in_process(user), "default")
    }

    /// Pods need their account, which a controller makes in a real cluster.
    async fn account(&self) {
        let sa: ServiceAccount = from(json!({"metadata": {"name": "default"}}));
        Api::namespaced(self.client(), "default")
            .create(&PostParams::default(), &sa)
            .await
            .expect("an account");
    }
}

fn from<T: serde::de::DeserializeOwned>(v: Value) -> T {
    serde_json::from_value(v).expect("an object of its type")
}

fn pod(name: &str) -> Pod {
    from(
        json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}),
    )
}

fn deployment(name: &str) -> Deployment {
    from(json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "busybox:1"}]}}}}))
}

fn status(e: kube::Error) -> (u16, String, String) {
    match e {
        kube::Error::Api(s) => (s.code, s.reason.clone(), s.message.clone()),
        other => panic!("no status: {other}"),
    }
}
