//! Hooks, the grace of a pod that ends, and what a person at a terminal does.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

use crate::Scenario;
use crate::harness::{Bench, ended, shell_with, status};

pub(crate) fn scenarios(bench: &Arc<Bench>) -> Vec<Scenario> {
    crate::scenarios![bench, hooks, http_hooks, failing_hooks, grace, order]
}

/// Ends at SIGTERM, once it has said that it listens.
const HEARS: &str = "trap 'exit 0' TERM; echo set; while true; do usleep 50000; done";

async fn hooks(bench: &Bench) {
    let dir = bench.host_dir("hooks");
    let script = "trap 'echo term >> /v/f; exit 0' TERM; echo set; while true; do usleep 50000; done";
    let hook = |text: &str| json!({"exec": {"command": ["sh", "-c", format!("echo {text} >> /v/f")]}});
    let extra = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "lifecycle": {"postStart": hook("begin"), "preStop": hook("stop")}});
    bench
        .create(
            "hooks",
            json!({"terminationGracePeriodSeconds": 60, "volumes": [{"name": "v", "hostPath": {"path": dir}}],
                "containers": shell_with(script, extra)}),
        )
        .await;
    bench.until_ready("hooks").await;
    bench.until_log("hooks", "set").await;
    assert_eq!(std::fs::read_to_string(dir.join("f")).expect("f"), "begin\n");
    bench.remove_within("hooks", 60).await;
    assert_eq!(std::fs::read_to_string(dir.join("f")).expect("f"), "begin\nstop\nterm\n");
}

/// Over HTTP any answer will do.
async fn http_hooks(bench: &Bench) {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let note = move |what: &'static str, status: StatusCode| {
        let told = told.clone();
        get(move || async move {
            told.send(what).expect("somebody listens");
            status
        })
    };
    let router = Router::new()
        .route("/begin", note("begin", StatusCode::OK))
        .route("/stop", note("stop", StatusCode::INTERNAL_SERVER_ERROR));
    let listener =
        tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("listen");
    let port = listener.local_addr().expect("address").port();
    telemetry::task::spawn("test-http", async move { axum::serve(listener, router).await });
    let hook = |path: &str| json!({"httpGet": {"host": "127.0.0.1", "port": port, "path": path}});
    let extra = json!({"lifecycle": {"postStart": hook("/begin"), "preStop": hook("stop")}});
    bench.create("httphooks", json!({"containers": shell_with(HEARS, extra)})).await;
    bench.until_log("httphooks", "set").await;
    assert_eq!(heard.recv().await, Some("begin"));
    bench.remove_within("httphooks", 100).await;
    assert_eq!(heard.recv().await, Some("stop"));
    assert!(!bench.events("httphooks").await.iter().any(|e| e.contains("Hook")));
}

async fn failing_hooks(bench: &Bench) {
    let bad = json!({"exec": {"command": ["sh", "-c", "echo secret; exit 1"]}});
    let extra = json!({"lifecycle": {"postStart": bad}});
    bench
        .create("badstart", json!({"restartPolicy": "Never", "containers": shell_with("sleep 1000", extra)}))
        .await;
    bench.until_event("badstart", "Warning FailedPostStartHook PostStartHook failed").await;
    bench.until_event("badstart", "Normal Killing FailedPostStartHook").await;
    let pod = bench.until_phase("badstart", "Failed").await;
    assert_eq!(ended(&status(&pod)).map(|e| e.0), Some(137));
    bench.remove("badstart").await;

    let extra = json!({"lifecycle": {"preStop": bad}});
    bench.create("badstop", json!({"containers": shell_with(HEARS, extra)})).await;
    bench.until_log("badstop", "set").await;
    bench.remove_within("badstop", 100).await;
    bench.until_event("badstop", "Warning FailedPreStopHook PreStopHook failed").await;
    for name in ["badstart", "badstop"] {
        assert!(!bench.events(name).await.iter().any(|e| e.contains("secret")));
    }
}

/// One that does not hear SIGTERM is killed when its grace is over, not before; a hook's time counts.
async fn grace(bench: &Bench) {
    let extra = json!({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}});
    bench.create("deaf", json!({"containers": shell_with("trap '' TERM; sleep 1000", extra)})).await;
    bench.until_ready("deaf").await;
    let started = signal::time::monotonic();
    bench.pods().delete("deaf", &DeleteParams::default().grace_period(3)).await.expect("delete");
    let killed = |p: Option<&Pod>| p.is_none_or(|p| ended(&status(p)).is_some());
    let pod = bench.until("deaf", "killed", killed).await.expect("its status comes before its end");
    assert_eq!(ended(&status(&pod)).map(|e| e.0), Some(137));
    let took = signal::time::monotonic().duration_since(started).as_secs_f64();
    assert!(took >= 2.9, "{took}");
    bench.until("deaf", "gone", |p| p.is_none()).await;

    bench.create("hears", json!({"containers": shell_with(HEARS, json!({}))})).await;
    bench.until_log("hears", "set").await;
    let started = signal::time::monotonic();
    bench.remove_within("hears", 100).await;
    assert!(signal::time::monotonic().duration_since(started).as_secs() < 60);
}

/// Containers start in the order of the spec, each after the postStart hook of the one before.
async fn order(bench: &Bench) {
    let dir = bench.host_dir("order");
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let container = |name: &str| {
        let hook = format!("usleep 300000; echo {name} hook >> /v/f");
        json!({"name": name, "image": "test:1", "command": ["sh", "-c", format!("echo {name} >> /v/f; sleep 1000")],
            "volumeMounts": mounts, "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", hook]}}}})
    };
    bench
        .create(
            "order",
            json!({"volumes": [{"name": "v", "hostPath": {"path": dir}}],
                "containers": [container("one"), container("two")]}),
        )
        .await;
    bench.until_ready("order").await;
    let text = std::fs::read_to_string(dir.join("f")).expect("f");
    assert_eq!(text, "one\none hook\ntwo\ntwo hook\n");
    bench.remove("order").await;
}
