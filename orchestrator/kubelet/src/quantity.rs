//! What pods ask for, as numbers. Pure.

use std::collections::BTreeMap;
use std::str::FromStr;

use apimachinery::quantity::Quantity as Amount;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::runtime::Limits;

/// A quantity; text that is none counts as zero, since the API server has refused it long before.
pub(crate) fn parse(q: &Quantity) -> Amount {
    Amount::from_str(&q.0).unwrap_or_else(|_| Amount::from_bytes(0))
}

fn get(map: Option<&BTreeMap<String, Quantity>>, name: &str) -> Option<Amount> {
    map.and_then(|m| m.get(name)).map(parse).filter(|a| !a.is_zero())
}

pub(crate) fn request(c: &Container, name: &str) -> Option<Amount> {
    let r = c.resources.as_ref();
    get(r.and_then(|r| r.requests.as_ref()), name).or_else(|| limit(c, name))
}

pub(crate) fn limit(c: &Container, name: &str) -> Option<Amount> {
    get(c.resources.as_ref().and_then(|r| r.limits.as_ref()), name)
}

/// A container's cgroup limits.
pub(crate) fn limits(c: &Container) -> Limits {
    Limits {
        cpu_request: request(c, "cpu").map(Amount::milli),
        cpu_limit: limit(c, "cpu").map(Amount::milli),
        memory_limit: limit(c, "memory").map(Amount::value),
    }
}

/// The pod's limits: sums, where every container has one.
pub(crate) fn pod_limits(spec: &PodSpec) -> Limits {
    let each: Vec<Limits> = spec.containers.iter().map(limits).collect();
    let sum = |f: fn(&Limits) -> Option<i64>| each.iter().map(f).sum::<Option<i64>>();
    Limits {
        cpu_request: Some(each.iter().filter_map(|l| l.cpu_request).sum()),
        cpu_limit: sum(|l| l.cpu_limit),
        memory_limit: sum(|l| l.memory_limit),
    }
}

/// Bytes that a pod's containers ask for together.
pub(crate) fn pod_memory_request(spec: &PodSpec) -> i64 {
    spec.containers.iter().filter_map(|c| request(c, "memory")).map(Amount::value).sum()
}

/// `Guaranteed`, `Burstable` or `BestEffort` (kubernetes: pkg/apis/core/v1/helper/qos).
pub(crate) fn qos(spec: &PodSpec) -> &'static str {
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let names = ["cpu", "memory"];
    let any = all().any(|c| names.iter().any(|n| request(c, n).is_some() || limit(c, n).is_some()));
    let guaranteed = all().all(|c| {
        names.iter().all(|n| {
            let l = limit(c, n);
            l.is_some() && l.map(Amount::nanos) == request(c, n).map(Amount::nanos)
        })
    });
    match (any, guaranteed) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}

/// The pod's cgroup below the root, as the kubelet's cgroupfs driver names it.
pub(crate) fn cgroup(root: &str, pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let root = root.trim_matches('/');
    match pod.spec.as_ref().map(qos) {
        Some("Guaranteed") => format!("/{root}/pod{uid}"),
        Some("Burstable") => format!("/{root}/burstable/pod{uid}"),
        _ => format!("/{root}/besteffort/pod{uid}"),
    }
}

/// How gladly the kernel kills a container for memory (kubelet: qos/policy.go).
pub(crate) fn oom_score_adj(spec: &PodSpec, c: &Container, capacity: i64) -> i32 {
    match qos(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let asked = request(c, "memory").map_or(0, Amount::value);
            let adj = 1000 - (i128::from(asked) * 1000 / i128::from(capacity.max(1)));
            i32::try_from(adj.clamp(3, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(resources: serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({"containers": [{"name": "c", "resources": resources}]})).expect("spec")
    }

    #[test]
    fn classes() {
        let check = |r, expect| assert_eq!(qos(&spec(r)), expect);
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable");
        check(json!({"limits": {"cpu": "1"}}), "Burstable");
    }

    #[test]
    fn scores() {
        let s = spec(json!({"requests": {"memory": "1Gi"}}));
        assert_eq!(oom_score_adj(&s, &s.containers[0], 4 << 30), 750);
        let s = spec(json!({}));
        assert_eq!(oom_score_adj(&s, &s.containers[0], 4 << 30), 1000);
    }
}
