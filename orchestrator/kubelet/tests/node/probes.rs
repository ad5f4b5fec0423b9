//! Probes: HTTP, TCP, gRPC and exec; what they gate, what their failures do, and in which words.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::Scenario;
use crate::harness::{Bench, condition, ended, is_ready, shell_with, status};

pub(crate) fn scenarios(bench: &Arc<Bench>) -> Vec<Scenario> {
    crate::scenarios![bench, liveness, readiness, headers_and_redirects, tcp, grpc, exec, startup]
}

static SWITCH: AtomicBool = AtomicBool::new(true);
static FAILURES: AtomicU32 = AtomicU32::new(0);

/// Listens on the node's loopback; probes reach it by `host`.
async fn serve(router: Router) -> u16 {
    let listener =
        tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("listen");
    let port = listener.local_addr().expect("address").port();
    telemetry::task::spawn("test-http", async move { axum::serve(listener, router).await });
    port
}

fn http(port: u16, path: &str, extra: Value) -> Value {
    let mut probe = json!({"httpGet": {"host": "127.0.0.1", "port": port, "path": path}, "periodSeconds": 1});
    crate::harness::merge(&mut probe, extra);
    probe
}

async fn liveness(bench: &Bench) {
    let fail = || async {
        FAILURES.fetch_add(1, Ordering::SeqCst);
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let port = serve(Router::new().route("/fail", get(fail))).await;
    let probe = http(port, "/fail", json!({"failureThreshold": 3, "terminationGracePeriodSeconds": 1}));
    let spec = json!({"terminationGracePeriodSeconds": 600,
        "containers": shell_with("sleep 1000", json!({"livenessProbe": probe}))});
    bench.create("live", spec).await;
    let note = "Warning Unhealthy Liveness probe failed: HTTP probe failed with statuscode: 500";
    bench.until_event("live", note).await;
    bench.until_event("live", "Normal Killing Container c failed liveness probe, will be restarted").await;
    let restarted = |p: Option<&Pod>| p.is_some_and(|p| status(p).restart_count > 0);
    let pod = bench.until("live", "restarted", restarted).await.expect("a pod");
    let last = status(&pod).last_state.and_then(|l| l.terminated).expect("terminated");
    assert_eq!(last.exit_code, 137, "the probe's own grace is a second, the pod's ten minutes");
    assert!(FAILURES.load(Ordering::SeqCst) >= 3);
    bench.remove("live").await;
}

async fn readiness(bench: &Bench) {
    let answer = || async {
        if SWITCH.load(Ordering::SeqCst) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
    };
    let port = serve(Router::new().route("/", get(answer))).await;
    let probe = http(port, "/", json!({"failureThreshold": 1}));
    bench
        .create("flips", json!({"containers": shell_with("sleep 1000", json!({"readinessProbe": probe}))}))
        .await;
    bench.until_ready("flips").await;
    SWITCH.store(false, Ordering::SeqCst);
    let pod = bench.until("flips", "unready", |p| p.is_some_and(|p| !is_ready(p))).await.expect("a pod");
    for kind in ["Ready", "ContainersReady"] {
        let c = condition(&pod, kind);
        assert_eq!((c.status.as_str(), c.reason.as_deref()), ("False", Some("ContainersNotReady")));
        assert_eq!(c.message.as_deref(), Some("containers with unready status: [c]"));
    }
    bench
        .until_event(
            "flips",
            "Warning Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 503",
        )
        .await;
    SWITCH.store(true, Ordering::SeqCst);
    let pod = bench.until_ready("flips").await;
    assert_eq!(status(&pod).restart_count, 0);
    bench.remove("flips").await;
}

async fn headers_and_redirects(bench: &Bench) {
    let header = |h: HeaderMap| async move {
        let is = |name: &str, value: &str| h.get(name).is_some_and(|v| v == value);
        let good = is("x-probe", "yes") && is("host", "shop.example") && is("accept", "*/*");
        let named = h.get("user-agent").is_some_and(|v| v.as_bytes().starts_with(b"kube-probe/1."));
        if good && named { StatusCode::OK } else { StatusCode::BAD_REQUEST }
    };
    let router = Router::new()
        .route("/header", get(header))
        .route("/", get(|| async { StatusCode::NO_CONTENT }))
        .route("/to-good", get(|| async { Redirect::temporary("/") }))
        .route("/to-bad", get(|| async { Redirect::temporary("/none") }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }))
        .route("/away", get(|| async { Redirect::temporary("http://example.invalid/") }));
    let port = serve(router).await;
    let headers = json!([{"name": "X-Probe", "value": "yes"}, {"name": "Host", "value": "shop.example"}]);
    let with = |path: &str| http(port, path, json!({"httpGet": {"httpHeaders": headers}}));
    let probes = [("header", with("/header")), ("togood", with("/to-good")), ("away", with("/away"))];
    for (name, probe) in probes {
        bench
            .create(name, json!({"containers": shell_with("sleep 1000", json!({"readinessProbe": probe}))}))
            .await;
        bench.until_ready(name).await;
    }
    bench
        .until_event("away", "Warning ProbeWarning Readiness probe warning: Probe terminated redirects")
        .await;
    for (name, path, note) in [
        ("tobad", "/to-bad", "HTTP probe failed with statuscode: 404".to_owned()),
        ("loop", "/loop", format!("Get \"http://127.0.0.1:{port}/loop\": stopped after 10 redirects")),
    ] {
        let probe = with(path);
        bench
            .create(name, json!({"containers": shell_with("sleep 1000", json!({"readinessProbe": probe}))}))
            .await;
        bench.until_event(name, &format!("Warning Unhealthy Readiness probe failed: {note}")).await;
    }
    for name in ["header", "togood", "away", "tobad", "loop"] {
        bench.remove(name).await;
    }
}

/// A port is open, or it is not, or it is named.
async fn tcp(bench: &Bench) {
    let script = "usleep 500000; nc -ll -p 8080 -e true";
    let ports = json!([{"name": "web", "containerPort": 8080}]);
    let probe = json!({"tcpSocket": {"port": "web"}, "periodSeconds": 1});
    bench
        .create(
            "open",
            json!({"containers": shell_with(script, json!({"ports": ports, "readinessProbe": probe}))}),
        )
        .await;
    bench.until_ready("open").await;
    let probe = json!({"tcpSocket": {"port": 81}, "periodSeconds": 1});
    bench
        .create("closed", json!({"containers": shell_with("sleep 1000", json!({"readinessProbe": probe}))}))
        .await;
    let text =
        bench.until_event("closed", "Warning Unhealthy Readiness probe failed: dial tcp 10.142.").await;
    assert!(text.ends_with(":81: connect: connection refused"), "{text}");
    let pod = bench.pods().get("closed").await.expect("pod");
    assert!(!is_ready(&pod));
    for name in ["open", "closed"] {
        bench.remove(name).await;
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The standard health service; it knows "" and "shop".
async fn check(State(health): State<Arc<AtomicI32>>, request: Request) -> Response {
    let codec = tonic_prost::ProstCodec::<HealthResponse, HealthRequest>::default();
    let answer = move |r: tonic::Request<HealthRequest>| {
        let status = health.load(Ordering::SeqCst);
        async move {
            match r.into_inner().service.as_str() {
                "" | "shop" => Ok(tonic::Response::new(HealthResponse { status })),
                _ => Err(tonic::Status::not_found("unknown service")),
            }
        }
    };
    tonic::server::Grpc::new(codec).unary(tower::service_fn(answer), request).await.into_response()
}

async fn grpc(bench: &Bench) {
    static HEALTH: LazyLock<Arc<AtomicI32>> = LazyLock::new(|| Arc::new(AtomicI32::new(1)));
    let router = Router::new().route("/grpc.health.v1.Health/Check", post(check)).with_state(HEALTH.clone());
    let port = serve(router).await;
    let other = serve(Router::new()).await;
    // A pod in the node's network has the node's address, where these servers are.
    let spec = |port: u16, service: &str| {
        let probe =
            json!({"grpc": {"port": port, "service": service}, "periodSeconds": 1, "failureThreshold": 1});
        json!({"hostNetwork": true, "containers": shell_with("sleep 1000", json!({"readinessProbe": probe}))})
    };
    bench.create("grpc", spec(port, "shop")).await;
    bench.until_ready("grpc").await;
    HEALTH.store(2, Ordering::SeqCst);
    bench.until("grpc", "unready", |p| p.is_some_and(|p| !is_ready(p))).await;
    bench
        .until_event("grpc", "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")")
        .await;
    bench.create("grpcnone", spec(port, "none")).await;
    bench
        .until_event(
            "grpcnone",
            "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service",
        )
        .await;
    bench.create("grpcother", spec(other, "")).await;
    bench.until_event("grpcother", "Warning Unhealthy Readiness probe failed: error: ").await;
    bench.create("grpcclosed", spec(1, "")).await;
    bench.until_event("grpcclosed", "error: failed to connect service at \"127.0.0.1:1\"").await;
    for name in ["grpc", "grpcnone", "grpcother", "grpcclosed"] {
        bench.remove(name).await;
    }
}

async fn exec(bench: &Bench) {
    let probe = |script: &str| json!({"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1});
    let spec = |p: Value| json!({"containers": shell_with("sleep 1000", json!({"readinessProbe": p}))});
    bench.create("execbad", spec(probe("echo not yet; echo and why >&2; exit 7"))).await;
    let text = bench.until_event("execbad", "Readiness probe failed: not yet").await;
    assert!(text.ends_with("not yet\nand why"), "{text}");
    bench.create("execslow", spec(probe("sleep 100"))).await;
    bench
        .until_event(
            "execslow",
            "Readiness probe failed: command timed out: \"sh -c sleep 100\" timed out after 1s",
        )
        .await;
    for name in ["execbad", "execslow"] {
        bench.remove(name).await;
    }
}

/// Until the startup probe succeeds, no other is asked and the container is not ready.
async fn startup(bench: &Bench) {
    // A busy machine may take its time for an exec: only failures count here.
    let probe = |script: &str| json!({"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 30});
    // It has started once somebody has looked and says so, however long a busy machine takes to ask.
    let dir = bench.host_dir("starts");
    let extra = json!({"startupProbe": probe("test -f /v/started"),
        "livenessProbe": {"exec": {"command": ["test", "-f", "/v/started"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let volumes = json!([{"name": "v", "hostPath": {"path": dir}}]);
    bench.create("starts", json!({"containers": shell_with("sleep 1000", extra), "volumes": volumes})).await;
    bench.until_event("starts", "Warning Unhealthy Startup probe failed: ").await;
    let pod = bench.pods().get("starts").await.expect("pod");
    let s = status(&pod);
    assert_eq!((s.started, s.ready), (Some(false), false));
    std::fs::write(dir.join("started"), "").expect("the file is written");
    let pod = bench.until_ready("starts").await;
    assert_eq!((status(&pod).started, status(&pod).restart_count), (Some(true), 0));

    let never = json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2});
    let extra = json!({"startupProbe": never});
    bench
        .create(
            "neverstarts",
            json!({"restartPolicy": "Never", "containers": shell_with("sleep 1000", extra)}),
        )
        .await;
    bench.until_event("neverstarts", "Container c failed startup probe, will be restarted").await;
    let pod = bench.until_phase("neverstarts", "Failed").await;
    assert_eq!(ended(&status(&pod)).map(|e| e.0), Some(137));
    for name in ["starts", "neverstarts"] {
        bench.remove(name).await;
    }
}
