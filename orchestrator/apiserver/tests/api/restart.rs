//! What a restart of the server keeps.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::user::UserInfo;
use apiserver::pki::{Pki, PkiConfig};
use apiserver::{ApiServer, Config};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use store::Store;

use crate::from;

/// Every group-version has its row: nothing more is written by itself.
async fn registered(client: &Client) {
    let groups = client.list_api_groups().await.expect("groups").groups;
    let all: usize =
        groups.iter().filter(|g| g.name != "apiregistration.k8s.io").map(|g| g.versions.len()).sum();
    let rows: Api<APIService> = Api::all(client.clone());
    // The core has one too.
    while rows.list(&ListParams::default()).await.expect("rows").items.len() < all + 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut revision = String::new();
    for round in 0..2 {
        let store = Arc::new(Store::open(store::Config::new(dir.path().join("store"))).expect("a store"));
        let pki = Pki::open(PkiConfig {
            dir: dir.path().join("pki"),
            addresses: Vec::new(),
            service_ip: IpAddr::from([10, 43, 0, 1]),
            cluster_domain: "cluster.local".to_owned(),
            hostname: "test".to_owned(),
            now: signal::time::now(),
        })
        .expect("certificates");
        let mut config = Config::new(store, Arc::new(pki));
        let stop = config.stop.clone();
        config.admin_token = "x".to_owned();
        let server = ApiServer::open(config).await.expect("a server");
        let client = Client::new(server.in_process(UserInfo::new("admin", &["system:masters"])), "default");
        registered(&client).await;
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        if round == 0 {
            let m: ConfigMap = from(json!({"metadata": {"name": "kept"}}));
            revision = maps
                .create(&PostParams::default(), &m)
                .await
                .expect("created")
                .resource_version()
                .expect("one");
        } else {
            assert_eq!(maps.get("kept").await.expect("kept").resource_version().as_deref(), Some(&*revision));
            let list = maps.list(&ListParams::default()).await.expect("a list");
            assert_eq!(
                list.metadata.resource_version.as_deref(),
                Some(&*revision),
                "a second start changes nothing"
            );
        }
        drop(maps);
        stop.cancel();
        drop(server);
        // The store's lock goes with its last holder, the task that follows it.
        tokio::time::timeout(Duration::from_secs(5), async {
            while Store::open(store::Config::new(dir.path().join("store"))).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the store is let go");
    }
}
