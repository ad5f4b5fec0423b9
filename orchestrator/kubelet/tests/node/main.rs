//! A node for real: the API server in this process, a containerd of its own, containers from a busybox image.
//!
//! Needs root, containerd, runc, nftables, docker-registry, skopeo and busybox-static; a missing one fails with its
//! name. Everything lives in a network namespace of its own and below one temporary directory. Scenarios run beside
//! each other, each in a file by its subject; `survives` and the end run alone.

#![expect(clippy::print_stderr, reason = "a run of minutes says how far it is")]

mod harness;
mod lifecycle;
mod limits;
mod network;
mod probes;
mod pulls;
mod restarts;
mod security;
mod survival;
mod volumes;

use std::pin::Pin;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use harness::{Bench, IMAGE, PATIENCE};

type Scenario = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

#[test]
fn a_node_from_beginning_to_end() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    harness::run("ip", &["link", "set", "lo", "up"]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("runtime");
    runtime.block_on(node());
}

async fn node() {
    let bench = Arc::new(Bench::new().await);
    let accounts = Api::<ServiceAccount>::namespaced(bench.client.clone(), "default");
    if accounts.get_opt("default").await.expect("account").is_none() {
        let a = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("account");
        accounts.create(&PostParams::default(), &a).await.expect("create account");
    }
    let kubelet = bench.start().await;
    let names = kubelet.images.import(&bench.archive).await.expect("import");
    assert_eq!(names, ["test:1"]);
    assert!(kubelet.images.get(IMAGE).await.expect("image").is_some());
    let nodes = Api::<Node>::all(bench.client.clone());
    let registered = async {
        while nodes.get_opt("node").await.expect("node").and_then(|n| n.status).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, registered).await.expect("the node registers");

    let mut all: Vec<Scenario> = Vec::new();
    all.extend(lifecycle::scenarios(&bench));
    all.extend(limits::scenarios(&bench));
    all.extend(network::scenarios(&bench));
    all.extend(probes::scenarios(&bench));
    all.extend(pulls::scenarios(&bench));
    all.extend(restarts::scenarios(&bench));
    all.extend(security::scenarios(&bench));
    all.extend(volumes::scenarios(&bench));
    let only = std::env::var("ONLY").unwrap_or_default();
    all.retain(|(name, _)| name.contains(&only));
    let failed = together(all).await;

    // These need the node for themselves.
    let kubelet = if failed.is_empty() && only.is_empty() {
        pulls::unused_images_go(&kubelet.images).await;
        pulls::full_image_disk(&bench).await;
        survival::survives(&bench, kubelet).await
    } else {
        kubelet
    };
    kubelet.end().await;
    survival::leaves_nothing(&bench).await;
    assert!(failed.is_empty(), "scenarios failed: {failed:?}");
}

/// Runs all at once; gives the names of those that failed.
async fn together(all: Vec<Scenario>) -> Vec<&'static str> {
    let started = signal::time::monotonic();
    let running: Vec<_> = all
        .into_iter()
        .map(|(name, scenario)| {
            (
                name,
                telemetry::task::spawn("scenario", async move {
                    scenario.await;
                    eprintln!("{name}: done after {:.1?}", signal::time::monotonic().duration_since(started));
                }),
            )
        })
        .collect();
    let mut failed = Vec::new();
    for (name, task) in running {
        if task.await.is_err() {
            failed.push(name);
        }
    }
    failed
}

/// A scenario from a function over the bench.
#[macro_export]
macro_rules! scenarios {
    ($bench:expr, $($function:ident),+ $(,)?) => {
        vec![$({
            let bench = $bench.clone();
            let run: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(async move { $function(&bench).await });
            (concat!(module_path!(), "::", stringify!($function)), run)
        }),+]
    };
}
