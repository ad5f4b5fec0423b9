//! Limits of containers and pods, as the kernel has them (version 1 here; version 2 is unit-tested in `cgroup`).

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::Scenario;
use crate::harness::{Bench, ended, run, shell_with, status};

pub(crate) fn scenarios(bench: &Arc<Bench>) -> Vec<Scenario> {
    crate::scenarios![bench, out_of_memory, limits, resized, deferred, too_many_processes, full_log_disk]
}

/// A controller's directory of a pod's cgroup, and of its first container's within.
fn cgroups(bench: &Bench, controller: &str, class: &str, pod: &Pod) -> Option<(PathBuf, PathBuf)> {
    let root = PathBuf::from("/sys/fs/cgroup").join(controller);
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let dir = root.join(bench.config().cgroup_root).join(class).join(format!("pod{uid}"));
    let id = status(pod).container_id.unwrap_or_default();
    let own = dir.join(id.trim_start_matches("containerd://"));
    // With version 2 there is no directory of a controller.
    root.try_exists().expect("cgroups").then_some((dir, own))
}

fn value(dir: &std::path::Path, file: &str) -> String {
    std::fs::read_to_string(dir.join(file))
        .unwrap_or_else(|e| panic!("{dir:?}/{file}: {e}"))
        .trim()
        .to_owned()
}

async fn out_of_memory(bench: &Bench) {
    let limit = json!({"resources": {"limits": {"memory": "20Mi"}}});
    bench
        .create(
            "greedy",
            json!({"restartPolicy": "Never", "containers": shell_with("tail /dev/zero", limit)}),
        )
        .await;
    let pod = bench.until_phase("greedy", "Failed").await;
    let (code, reason, _) = ended(&status(&pod)).expect("ended");
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"));
    bench.remove("greedy").await;
}

async fn limits(bench: &Bench) {
    let resources = json!({"resources": {
        "requests": {"cpu": "250m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "32Mi"}}});
    bench.create("limited", json!({"containers": shell_with("sleep 1000", resources)})).await;
    let pod = bench.until_ready("limited").await;
    assert_eq!(pod.status.as_ref().and_then(|s| s.qos_class.as_deref()), Some("Burstable"));
    if let Some((of_pod, own)) = cgroups(bench, "cpu", "burstable", &pod) {
        assert_eq!(
            (value(&own, "cpu.cfs_quota_us"), value(&own, "cpu.shares")),
            ("50000".to_owned(), "256".to_owned())
        );
        assert_eq!(value(&of_pod, "cpu.cfs_quota_us"), "50000");
    }
    if let Some((of_pod, own)) = cgroups(bench, "memory", "burstable", &pod) {
        assert_eq!(value(&own, "memory.limit_in_bytes"), (32 << 20).to_string());
        assert_eq!(value(&of_pod, "memory.limit_in_bytes"), (32 << 20).to_string());
    }
    if let Some((_, own)) = cgroups(bench, "pids", "burstable", &pod) {
        assert_eq!(value(&own, "pids.max"), "4096");
    }
    bench.remove("limited").await;

    let text = bench.output("score", json!({}), "cat /proc/self/oom_score_adj").await;
    assert_eq!(text.trim(), "1000", "a BestEffort pod goes first");
}

/// Limits follow the pod while it runs; where its policy says so, the container starts again.
async fn resized(bench: &Bench) {
    let resources = json!({
        "resources": {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "32Mi"}},
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]});
    bench.create("grows", json!({"containers": shell_with("sleep 1000", resources)})).await;
    bench.until_ready("grows").await;
    let resize = |requests: Value, limits: Value| {
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}});
        let pods = bench.pods();
        async move {
            pods.patch_subresource("resize", "grows", &PatchParams::default(), &Patch::Strategic(patch)).await
        }
    };
    resize(json!({"cpu": "150m"}), json!({"cpu": "300m"})).await.expect("resized");
    let limit = |p: Option<&Pod>, name: &str| {
        let r = status(p?).resources?;
        Some(r.limits?.get(name)?.0.clone())
    };
    let more = |p: Option<&Pod>| limit(p, "cpu").as_deref() == Some("300m");
    let pod = bench.until("grows", "more processor", more).await.expect("a pod");
    assert_eq!(status(&pod).restart_count, 0);
    if let Some((of_pod, own)) = cgroups(bench, "cpu", "burstable", &pod) {
        assert_eq!(value(&own, "cpu.cfs_quota_us"), "30000");
        assert_eq!(value(&of_pod, "cpu.cfs_quota_us"), "30000");
    }
    resize(json!({}), json!({"memory": "48Mi"})).await.expect("resized");
    let pod = bench
        .until("grows", "more memory, from anew", |p| {
            p.is_some_and(|p| status(p).restart_count == 1) && limit(p, "memory").as_deref() == Some("48Mi")
        })
        .await
        .expect("a pod");
    if let Some((_, own)) = cgroups(bench, "memory", "burstable", &pod) {
        assert_eq!(value(&own, "memory.limit_in_bytes"), (48 << 20).to_string());
    }
    resize(json!({"cpu": "900"}), json!({"cpu": "1000"})).await.expect("taken");
    let pod = bench.until("grows", "what can never be", |p| pending(p, "Infeasible")).await;
    assert_eq!(limit(pod.as_ref(), "cpu").as_deref(), Some("300m"), "it has what it had");
    let refused = resize(json!({"cpu": null, "memory": null}), json!({"cpu": null, "memory": null})).await;
    assert!(refused.expect_err("refused").to_string().contains("Pod QOS Class may not change"));
    bench.remove("grows").await;
}

fn pending(pod: Option<&Pod>, reason: &str) -> bool {
    let all = pod.and_then(|p| p.status.as_ref()).and_then(|s| s.conditions.clone()).unwrap_or_default();
    all.iter().any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some(reason))
}

/// What has no room now gets it when another pod goes, though nobody touches its own.
async fn deferred(bench: &Bench) {
    let cores = std::thread::available_parallelism().expect("cores").get();
    let most = format!("{}m", cores * 600);
    let asks = |cpu: &str| json!({"containers": shell_with("sleep 1000", json!({"resources": {"requests": {"cpu": cpu}}}))});
    bench.create("holder", asks(&most)).await;
    bench.until_ready("holder").await;
    bench.create("waits", asks("10m")).await;
    bench.until_ready("waits").await;
    let patch = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": most}}}]}});
    let pods = bench.pods();
    pods.patch_subresource("resize", "waits", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .expect("taken");
    bench.until("waits", "no room", |p| pending(p, "Deferred")).await;
    bench.remove("holder").await;
    let has = |p: &Pod| status(p).resources.and_then(|r| r.requests).is_some_and(|r| r["cpu"].0 != "10m");
    bench.until("waits", "room", |p| p.is_some_and(has) && !pending(p, "Deferred")).await;
    bench.remove("waits").await;
}

/// A fork bomb stops at the limit, and the node does not feel it.
async fn too_many_processes(bench: &Bench) {
    let script = "i=0; while [ $i -lt 6000 ]; do sleep 1000 & i=$((i+1)); done 2>/dev/null; echo all";
    bench
        .create("bomb", json!({"restartPolicy": "Never", "containers": shell_with(script, json!({}))}))
        .await;
    let pod = bench.until_phase("bomb", "Failed").await;
    assert_ne!(ended(&status(&pod)).map(|e| e.0), Some(0));
    assert!(!bench.log_of("bomb", "c").await.contains("all"));
    bench.remove("bomb").await;
}

/// While the log's disk is full the container's output waits, which an event says; then it goes on, complete.
async fn full_log_disk(bench: &Bench) {
    const LINES: u32 = 20_000;
    let script = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; done; sleep 1000");
    // The pod cannot start before its configuration is there, nor before its log's place is small.
    let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({"volumes": [{"name": "v", "configMap": {"name": "chatty"}}],
        "containers": shell_with(&script, mount)});
    let pod = bench.create("chatty", spec).await;
    bench.until_event("chatty", "Warning FailedMount").await;
    let uid = pod.metadata.uid.unwrap_or_default();
    let logs = bench.config().data_dir.join("pod-logs").join(format!("default_chatty_{uid}"));
    std::fs::create_dir_all(&logs).expect("log directory");
    let place = logs.display().to_string();
    run("mount", &["-t", "tmpfs", "-o", "size=128k", "tmpfs", &place]);
    bench.make::<ConfigMap>(json!({"metadata": {"name": "chatty"}, "data": {"a": "b"}})).await;
    bench
        .until_event(
            "chatty",
            "Warning FailedLogWrite Container log cannot be written: no space left on device; its output waits until it can",
        )
        .await;
    run("mount", &["-o", "remount,size=32m", &place]);
    bench.until_event("chatty", "Normal ResumedLogWrite Container log is written again").await;
    bench.until_log("chatty", &format!("line {LINES}")).await;
    let log = bench.log_of("chatty", "c").await;
    assert_eq!(log.lines().count(), LINES as usize);
    for (n, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {}", n + 1));
    }
    bench.remove("chatty").await;
    run("umount", &["-l", &place]);
}
