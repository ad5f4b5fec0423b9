//! Pod: defaulting (kubernetes: pkg/apis/core/v1/defaults.go), quality of service, table.

use apimachinery::quantity::Quantity;
use serde_json::{Value, json};
use signal::Timestamp;

use super::{AGE, BASE, Kind, NAME, column, pod_validation, volume, wide};
use crate::{object, table};

pub(crate) static KIND: Kind = Kind {
    resource: "pods",
    singular: "pod",
    kind: "Pod",
    short: &["po"],
    categories: &["all"],
    generation: true,
    status: true,
    status_metadata: true,
    default: default_pod,
    prepare_create,
    validate: pod_validation::validate,
    validate_create: pod_validation::validate_new,
    validate_update: pod_validation::validate_update,
    fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    columns: &[
        NAME,
        column("Ready"),
        column("Status"),
        column("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    row,
    validate_status: super::status::pod,
    ..BASE
};

fn default_pod(o: &mut Value) {
    let spec = object::child(o, "spec");
    object::default(spec, "enableServiceLinks", true);
    default_spec(spec);
    // Requests follow limits, and ports of the node those of containers, for pods but not for templates.
    let on_host = object::flag(spec, "hostNetwork");
    for list in ["initContainers", "containers"] {
        for c in object::list_mut(spec, list) {
            for p in object::list_mut(c, "ports").iter_mut().filter(|_| on_host) {
                let port = p["containerPort"].clone();
                object::default(p, "hostPort", port);
            }
            let limits = object::get(c, "resources.limits").and_then(Value::as_object).cloned();
            for (k, v) in limits.into_iter().flatten() {
                let requests = object::child(object::child(c, "resources"), "requests");
                object::default(requests, &k, v);
            }
        }
    }
    tolerate(spec);
    object::default(spec, "priority", 0);
    object::default_text(spec, "preemptionPolicy", "PreemptLowerPriority");
}

/// Pods outlive a node's silence by five minutes unless they say otherwise
/// (kubernetes: plugin/pkg/admission/defaulttolerationseconds).
fn tolerate(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = object::list(spec, "tolerations").iter().any(|t| {
            let k = t["key"].as_str().unwrap_or_default();
            let effect = t["effect"].as_str().unwrap_or_default();
            (k == key || k.is_empty() && t["operator"] == "Exists")
                && (effect == "NoExecute" || effect.is_empty())
        });
        if !tolerated {
            let t =
                json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
            match spec.get_mut("tolerations").and_then(Value::as_array_mut) {
                Some(all) => all.push(t),
                None => spec["tolerations"] = json!([t]),
            }
        }
    }
}

/// What pods and pod templates share.
pub(super) fn default_spec(spec: &mut Value) {
    for list in ["initContainers", "ephemeralContainers", "containers"] {
        for c in object::list_mut(spec, list) {
            default_container(c);
        }
    }
    object::default_text(spec, "restartPolicy", "Always");
    object::default(spec, "terminationGracePeriodSeconds", 30);
    object::default_text(spec, "dnsPolicy", "ClusterFirst");
    // The deprecated name follows the new one and the other way round.
    let names = ["serviceAccountName", "serviceAccount"]
        .map(|k| object::text(spec, k).unwrap_or_default().to_owned());
    match names {
        [n, _] if !n.is_empty() => spec["serviceAccount"] = n.into(),
        [_, d] if !d.is_empty() => spec["serviceAccountName"] = d.into(),
        _ => {}
    }
    object::default(spec, "securityContext", json!({}));
    object::default_text(spec, "schedulerName", "default-scheduler");
    for v in object::list_mut(spec, "volumes") {
        volume::default_volume(v);
    }
}

fn default_container(c: &mut Value) {
    for p in object::list_mut(c, "ports") {
        object::default_text(p, "protocol", "TCP");
    }
    for e in object::list_mut(c, "env") {
        if let Some(f) = e.get_mut("valueFrom").and_then(|v| v.get_mut("fieldRef")) {
            object::default_text(f, "apiVersion", "v1");
        }
        if let Some(f) = e.get_mut("valueFrom").and_then(|v| v.get_mut("resourceFieldRef")) {
            object::default(f, "divisor", "0");
        }
    }
    object::default(c, "resources", json!({}));
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(p) = c.get_mut(probe).filter(|p| p.is_object()) else { continue };
        default_http_get(p);
        if let Some(g) = p.get_mut("grpc").filter(|g| g.is_object()) {
            object::default(g, "service", "");
        }
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            if object::int(p, field).unwrap_or(0) == 0 {
                p[field] = value.into();
            }
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(h) = c.get_mut("lifecycle").and_then(|l| l.get_mut(hook)).filter(|h| h.is_object()) {
            default_http_get(h);
        }
    }
    object::default_text(c, "terminationMessagePath", "/dev/termination-log");
    object::default_text(c, "terminationMessagePolicy", "File");
    if object::text(c, "imagePullPolicy").is_none_or(str::is_empty) {
        c["imagePullPolicy"] = pull_policy(object::text(c, "image").unwrap_or_default()).into();
    }
}

fn default_http_get(p: &mut Value) {
    if let Some(h) = p.get_mut("httpGet").filter(|h| h.is_object()) {
        object::default_text(h, "path", "/");
        object::default_text(h, "scheme", "HTTP");
    }
}

/// `latest` may change under its name, every other tag may not.
pub(super) fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) if tag != "latest" => "IfNotPresent",
        _ => "Always",
    }
}

fn prepare_create(o: &mut Value) {
    let qos = qos(&o["spec"]);
    o["status"] = json!({"phase": "Pending", "qosClass": qos});
}

/// How safe a pod is from eviction (kubernetes: pkg/apis/core/helper/qos/qos.go).
pub(crate) fn qos(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for list in ["initContainers", "containers"] {
        for c in object::list(spec, list) {
            let amount = |kind: &str, name: &str| {
                let v = object::get(c, &format!("resources.{kind}"))?.get(name)?;
                let q: Quantity = v.as_str().map_or_else(|| v.to_string(), str::to_owned).parse().ok()?;
                (!q.is_zero()).then_some(q)
            };
            for name in ["cpu", "memory"] {
                let (limit, request) = (amount("limits", name), amount("requests", name));
                any |= limit.is_some() || request.is_some();
                guaranteed &= limit.is_some() && (request.is_none() || request == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}

fn condition<'a>(o: &'a Value, kind: &str) -> Option<&'a Value> {
    object::list(o, "status.conditions").iter().find(|c| c["type"] == kind)
}

/// `Signal:9`, `ExitCode:1`.
fn exit_words(t: &Value) -> String {
    match t["signal"].as_i64() {
        Some(s) if s != 0 => format!("Signal:{s}"),
        _ => format!("ExitCode:{}", t["exitCode"].as_i64().unwrap_or(0)),
    }
}

fn row(o: &Value, now: Timestamp) -> Vec<Value> {
    let containers = object::list(o, "spec.containers");
    let inits = object::list(o, "spec.initContainers");
    let is_sidecar =
        |name: &Value| inits.iter().any(|c| c["name"] == *name && c["restartPolicy"] == "Always");
    let mut total = containers.len();
    let (mut ready, mut restarts, mut sidecar_restarts) = (0, 0, 0);
    let (mut last, mut sidecar_last): (Option<&str>, Option<&str>) = (None, None);
    let mut reason = object::text(o, "status.phase").unwrap_or_default().to_owned();
    if let Some(r) = object::text(o, "status.reason").filter(|r| !r.is_empty()) {
        reason = r.to_owned();
    }
    if condition(o, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".to_owned();
    }
    total += inits.iter().filter(|c| c["restartPolicy"] == "Always").count();
    let mut initializing = false;
    for (i, s) in object::list(o, "status.initContainerStatuses").iter().enumerate() {
        let count = s["restartCount"].as_i64().unwrap_or(0);
        restarts += count;
        let finished = object::text(s, "lastState.terminated.finishedAt");
        last = last.max(finished);
        let sidecar = is_sidecar(&s["name"]);
        if sidecar {
            sidecar_restarts += count;
            sidecar_last = sidecar_last.max(finished);
        }
        let terminated = object::get(s, "state.terminated");
        let waiting = object::text(s, "state.waiting.reason").unwrap_or_default();
        if terminated.is_some_and(|t| t["exitCode"] == 0) {
            continue;
        }
        if sidecar && object::flag(s, "started") {
            ready += usize::from(object::flag(s, "ready"));
            continue;
        }
        reason = match terminated {
            Some(t) => match t["reason"].as_str() {
                Some(r) if !r.is_empty() => format!("Init:{r}"),
                _ => format!("Init:{}", exit_words(t)),
            },
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{}", inits.len()),
        };
        initializing = true;
        break;
    }
    if !initializing || condition(o, "Initialized").is_some_and(|c| c["status"] == "True") {
        restarts = sidecar_restarts;
        last = sidecar_last;
        let mut running = false;
        for s in object::list(o, "status.containerStatuses").iter().rev() {
            restarts += s["restartCount"].as_i64().unwrap_or(0);
            last = last.max(object::text(s, "lastState.terminated.finishedAt"));
            let waiting = object::text(s, "state.waiting.reason").filter(|r| !r.is_empty());
            if let Some(w) = waiting {
                reason = w.to_owned();
            } else if let Some(t) = object::get(s, "state.terminated") {
                reason = match t["reason"].as_str() {
                    Some(r) if !r.is_empty() => r.to_owned(),
                    _ => exit_words(t),
                };
            } else if object::flag(s, "ready") && object::get(s, "state.running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let ready = condition(o, "Ready").is_some_and(|c| c["status"] == "True");
            reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }
    let phase = object::text(o, "status.phase").unwrap_or_default();
    if object::is_deleting(o) {
        if object::text(o, "status.reason") == Some("NodeLost") {
            reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_owned();
        }
    }
    let restarts = match last {
        Some(t) if restarts > 0 => format!("{restarts} ({} ago)", table::since(Some(t), now)),
        _ => restarts.to_string(),
    };
    let gates = object::list(o, "spec.readinessGates");
    let passed = gates.iter().filter(|g| {
        g["conditionType"].as_str().and_then(|t| condition(o, t)).is_some_and(|c| c["status"] == "True")
    });
    let gates =
        if gates.is_empty() { "<none>".to_owned() } else { format!("{}/{}", passed.count(), gates.len()) };
    vec![
        object::name(o).into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        table::age(o, now),
        table::or_none(object::text(o, "status.podIP")),
        table::or_none(object::text(o, "spec.nodeName")),
        table::or_none(object::text(o, "status.nominatedNodeName")),
        gates.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policies() {
        let check = |image: &str, expect: &str| assert_eq!(pull_policy(image), expect, "{image}");
        check("busybox", "Always");
        check("busybox:latest", "Always");
        check("busybox:1.36", "IfNotPresent");
        check("host:5000/busybox", "Always");
        check("host:5000/busybox:1", "IfNotPresent");
        check("busybox@sha256:0", "IfNotPresent");
    }

    #[test]
    fn rows() {
        let check = |status: Value, expect: &str| {
            let o =
                json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}, "status": status});
            let cells: Vec<String> = row(&o, Timestamp::from_secs(1000))[1..4]
                .iter()
                .map(|c| c.as_str().unwrap_or("").to_owned())
                .collect();
            assert_eq!(cells.join(" "), expect);
        };
        check(json!({"phase": "Pending"}), "0/1 Pending 0");
        check(
            json!({"phase": "Running", "containerStatuses": [{"name": "c", "ready": true, "restartCount": 3,
                "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "1970-01-01T00:14:40Z"}}}]}),
            "1/1 Running 3 (2m ago)",
        );
        check(
            json!({"phase": "Running", "containerStatuses": [{"name": "c", "ready": false, "restartCount": 1,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
            "0/1 CrashLoopBackOff 1",
        );
        check(
            json!({"phase": "Succeeded", "containerStatuses": [{"name": "c", "restartCount": 0,
                "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
            "0/1 Completed 0",
        );
    }

    #[test]
    fn quality_of_service() {
        let check = |resources: Value, expect: &str| {
            assert_eq!(qos(&json!({"containers": [{"resources": resources}]})), expect);
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
            "Guaranteed",
        );
    }
}
