//! Beginnings and ends of containers: exit codes, restart policies, back-off, init containers, sidecars.

use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;

use crate::Scenario;
use crate::harness::{Bench, condition, ended, init_status, phase, shell, shell_with, status};

pub(crate) fn scenarios(bench: &Arc<Bench>) -> Vec<Scenario> {
    crate::scenarios![
        bench,
        hello,
        exit_codes,
        crash_loop,
        on_failure,
        init_containers,
        failing_init,
        sidecars,
        deadline,
        last_words,
    ]
}

/// A pod runs, has an address, its environment, its log, and goes.
async fn hello(bench: &Bench) {
    for round in 0..3 {
        let name = format!("hello-{round}");
        let started = signal::time::monotonic();
        bench.create(&name, json!({"containers": shell("echo hello $FROM_IMAGE $KUBERNETES_SERVICE_PORT; cat /etc/hostname; sleep 1000")})).await;
        let pod = bench.until_ready(&name).await;
        eprintln!("pod ready after {:?}", signal::time::monotonic().duration_since(started));
        let ip: Ipv4Addr =
            pod.status.as_ref().and_then(|s| s.pod_ip.clone()).expect("ip").parse().expect("ip");
        assert_eq!(ip.octets()[..2], [10, 142]);
        bench.log_is(&name, &format!("hello yes 443\n{name}\n")).await;
        for event in [
            "Normal Pulled Container image \"test:1\" already present on machine",
            "Normal Created Container created",
            "Normal Started Container started",
        ] {
            bench.until_event(&name, event).await;
        }
        bench.pods().delete(&name, &DeleteParams::default().grace_period(1)).await.expect("delete");
        bench.until_event(&name, "Normal Killing Stopping container c").await;
        bench.until(&name, "gone", |p| p.is_none()).await;
    }
}

async fn exit_codes(bench: &Bench) {
    let once = |script: &str| json!({"restartPolicy": "Never", "containers": shell(script)});
    bench.create("done", once("exit 0")).await;
    let pod = bench.until_phase("done", "Succeeded").await;
    assert_eq!(ended(&status(&pod)).expect("ended"), (0, "Completed".to_owned(), String::new()));
    assert_eq!(condition(&pod, "Ready").reason.as_deref(), Some("PodCompleted"));

    bench.create("failed", once("echo -n why > /dev/termination-log; exit 3")).await;
    let pod = bench.until_phase("failed", "Failed").await;
    assert_eq!(ended(&status(&pod)).expect("ended"), (3, "Error".to_owned(), "why".to_owned()));

    let missing = json!([{"name": "c", "image": "test:1", "command": ["/no/such/command"]}]);
    bench.create("missing", json!({"restartPolicy": "Never", "containers": missing})).await;
    let pod = bench.until_phase("missing", "Failed").await;
    let (code, reason, message) = ended(&status(&pod)).expect("ended");
    assert_eq!((code, reason.as_str()), (128, "StartError"));
    assert!(
        message.starts_with(
            "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
        ),
        "{message}"
    );
    bench.until_event("missing", "Warning Failed Error: failed to create containerd task").await;
    for name in ["done", "failed", "missing"] {
        bench.remove(name).await;
    }
}

/// The first restart is at once, the next after 10 s, then 20 s.
async fn crash_loop(bench: &Bench) {
    let pod = bench.create("crash", json!({"containers": shell("exit 4")})).await;
    let full = format!("crash_default({})", pod.metadata.uid.unwrap_or_default());
    let message = bench.until_waiting("crash", "CrashLoopBackOff").await;
    assert_eq!(message, format!("back-off 10s restarting failed container=c pod={full}"));
    let event = format!("Warning BackOff Back-off restarting failed container c in pod {full}");
    bench.until_event("crash", &event).await;
    let longer = |p: Option<&Pod>| {
        let waiting = p.and_then(|p| status(p).state).and_then(|s| s.waiting);
        waiting.and_then(|w| w.message).is_some_and(|m| m.starts_with("back-off 20s"))
    };
    let pod = bench.until("crash", "waiting longer", longer).await.expect("a pod");
    let s = status(&pod);
    assert_eq!((s.restart_count, phase(Some(&pod))), (2, "Running"));
    assert_eq!(s.last_state.and_then(|l| l.terminated).map(|t| t.exit_code), Some(4));
    // Of all ended attempts two are kept: the last, and the one before it.
    let kept = std::fs::read_dir(
        bench.config().data_dir.join("pods").join(pod.metadata.uid.unwrap_or_default()).join("io"),
    );
    assert_eq!(kept.expect("io").count(), 2);
    bench.remove("crash").await;
}

async fn on_failure(bench: &Bench) {
    let script = "test -f /v/second && exit 0; touch /v/second; exit 1";
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    bench
        .create(
            "onfailure",
            json!({"restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": shell_with(script, mount)}),
        )
        .await;
    let pod = bench.until_phase("onfailure", "Succeeded").await;
    assert_eq!(status(&pod).restart_count, 1);
    bench.remove("onfailure").await;
}

/// One after the other, each to its end, before the containers.
async fn init_containers(bench: &Bench) {
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let init = |name: &str, script: &str| json!({"name": name, "image": "test:1", "command": ["sh", "-c", script], "volumeMounts": mount});
    bench
        .create(
            "inits",
            json!({
                "volumes": [{"name": "v", "emptyDir": {}}],
                "initContainers": [init("a", "usleep 300000; echo a >> /v/f"), init("b", "echo b >> /v/f")],
                "containers": shell_with("cat /v/f; sleep 1000", json!({"volumeMounts": mount})),
            }),
        )
        .await;
    let waits = |p: Option<&Pod>| {
        p.is_some_and(|p| {
            status(p).state.and_then(|s| s.waiting).and_then(|w| w.reason).as_deref()
                == Some("PodInitializing")
        })
    };
    let pod = bench.until("inits", "initializing", waits).await.expect("a pod");
    let initialized = condition(&pod, "Initialized");
    assert_eq!(
        (initialized.status.as_str(), initialized.reason.as_deref()),
        ("False", Some("ContainersNotInitialized"))
    );
    assert!(initialized.message.is_some_and(|m| m.starts_with("containers with incomplete status: [")));
    let pod = bench.until_ready("inits").await;
    assert_eq!(ended(&init_status(&pod, "a")).map(|e| e.0), Some(0));
    bench.log_is("inits", "a\nb\n").await;
    bench.remove("inits").await;
}

async fn failing_init(bench: &Bench) {
    let init = json!([{"name": "i", "image": "test:1", "command": ["sh", "-c", "exit 5"]}]);
    bench
        .create(
            "initnever",
            json!({"restartPolicy": "Never", "initContainers": init, "containers": shell("true")}),
        )
        .await;
    let pod = bench.until_phase("initnever", "Failed").await;
    assert_eq!(ended(&init_status(&pod, "i")).map(|e| e.0), Some(5));
    assert_eq!(
        status(&pod).state.and_then(|s| s.waiting).and_then(|w| w.reason).as_deref(),
        Some("PodInitializing")
    );

    bench.create("initalways", json!({"initContainers": init, "containers": shell("true")})).await;
    let looping = |p: Option<&Pod>| {
        let waiting = p.map(|p| init_status(p, "i")).and_then(|s| s.state).and_then(|s| s.waiting);
        waiting.and_then(|w| w.reason).as_deref() == Some("CrashLoopBackOff")
    };
    let pod = bench.until("initalways", "looping", looping).await.expect("a pod");
    assert_eq!(phase(Some(&pod)), "Pending");
    for name in ["initnever", "initalways"] {
        bench.remove(name).await;
    }
}

/// A sidecar starts before and ends after those it serves; the pod is over when it is.
async fn sidecars(bench: &Bench) {
    let dir = bench.host_dir("sidecar");
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let script = "trap 'echo down >> /v/f; exit 0' TERM; echo up >> /v/f; while true; do usleep 50000; done";
    let sidecar = json!({"name": "s", "image": "test:1", "command": ["sh", "-c", script], "volumeMounts": mount,
        "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["test", "-f", "/v/f"]}, "periodSeconds": 1, "timeoutSeconds": 30}});
    bench
        .create(
            "sidecar",
            json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
                "volumes": [{"name": "v", "hostPath": {"path": dir}}], "initContainers": [sidecar],
                "containers": shell_with("usleep 500000; echo main >> /v/f", json!({"volumeMounts": mount}))}),
        )
        .await;
    let pod = bench.until_phase("sidecar", "Succeeded").await;
    assert_eq!(
        ended(&init_status(&pod, "s")).map(|e| e.0),
        Some(0),
        "the phase is final only when all have ended"
    );
    assert_eq!(std::fs::read_to_string(dir.join("f")).expect("f"), "up\nmain\ndown\n");
    bench.remove("sidecar").await;
}

async fn deadline(bench: &Bench) {
    bench.create("late", json!({"activeDeadlineSeconds": 15, "containers": shell("sleep 1000")})).await;
    let pod = bench.until_phase("late", "Failed").await;
    let s = pod.status.clone().unwrap_or_default();
    assert_eq!(s.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(ended(&status(&pod)).map(|e| e.0), Some(137), "it was ended before the phase was final");
    bench.remove("late").await;
}

/// The termination message: from a path of its own, or from the end of the log of one that failed.
async fn last_words(bench: &Bench) {
    let path = json!({"terminationMessagePath": "/tmp/words"});
    bench.create("path", json!({"restartPolicy": "Never", "containers": shell_with("echo -n mine > /tmp/words; echo log; exit 1", path)})).await;
    let pod = bench.until_phase("path", "Failed").await;
    assert_eq!(ended(&status(&pod)).expect("ended").2, "mine");

    let fallback = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let script = "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i; done; exit 1";
    bench
        .create(
            "fallback",
            json!({"restartPolicy": "Never", "containers": shell_with(script, fallback.clone())}),
        )
        .await;
    let pod = bench.until_phase("fallback", "Failed").await;
    let message = ended(&status(&pod)).expect("ended").2;
    assert!(message.starts_with("line 21\n") && message.ends_with("line 100\n"), "{message}");

    bench
        .create("fine", json!({"restartPolicy": "Never", "containers": shell_with("echo log", fallback)}))
        .await;
    let pod = bench.until_phase("fine", "Succeeded").await;
    assert_eq!(ended(&status(&pod)).expect("ended").2, "");
    for name in ["path", "fallback", "fine"] {
        bench.remove(name).await;
    }
}
