//! Pod annotations → scrape targets: `prometheus.io/scrape|port|path|scheme`, the field's convention, and
//! `binnacle.io/scrape-interval` beside it.

use std::sync::Arc;
use std::time::Duration;

use client::{Informers, Key};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use signal::{Registry, ScrapeTarget};

use crate::identity::identity_of;

const INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

pub(crate) fn watch(informers: &Informers, targets: Arc<Registry<ScrapeTarget>>) {
    informers.of::<Pod>().on_change(move |c| {
        let pod = c.object();
        let key = format!("pod/{}", Key::of(&**pod));
        let wanted = c.new.as_ref().and_then(|p| target_of(p));
        match wanted {
            Some(t) if targets.get(&key).as_ref() != Some(&t) => targets.set(key, t),
            Some(_) => {}
            None => targets.remove(&key),
        }
    });
}

fn target_of(pod: &Pod) -> Option<ScrapeTarget> {
    let annotations = pod.annotations();
    let get = |name: &str| annotations.get(name).map(String::as_str);
    if get("prometheus.io/scrape") != Some("true") {
        return None;
    }
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Running") {
        return None;
    }
    let ip = status.pod_ip.as_ref().filter(|ip| !ip.is_empty())?;
    let first_port = || {
        let spec = pod.spec.as_ref()?;
        spec.containers.iter().flat_map(|c| c.ports.iter().flatten()).map(|p| p.container_port).next()
    };
    let port: i32 = match get("prometheus.io/port") {
        Some(p) => p.parse().ok()?,
        None => first_port()?,
    };
    let path = get("prometheus.io/path").unwrap_or("/metrics");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let interval =
        get("binnacle.io/scrape-interval").and_then(seconds).map_or(INTERVAL, |d| d.clamp(SHORTEST, LONGEST));
    let identity = identity_of(pod);
    let job = match identity.labels.get("workload") {
        Some(w) => w.to_owned(),
        None => pod.name_any(),
    };
    Some(ScrapeTarget {
        url: format!("http://{ip}:{port}{slash}{path}"),
        labels: identity.labels.builder().set("job", &job).set("instance", &format!("{ip}:{port}")).build(),
        interval,
        timeout: interval.min(Duration::from_secs(10)),
        ..ScrapeTarget::default()
    })
}

/// `1s`, `500ms`, `2m`.
fn seconds(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number * factor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(annotations: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "annotations": annotations},
            "spec": {"nodeName": "n", "serviceAccountName": "default",
                "containers": [{"name": "web", "ports": [{"containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": "10.42.0.7"}
        }))
        .expect("a pod")
    }

    #[test]
    fn annotated_pods_are_targets() {
        let check = |annotations: serde_json::Value, expect: Option<(&str, u64)>| {
            let t = target_of(&pod(annotations));
            assert_eq!(t.map(|t| (t.url, t.interval.as_secs())), expect.map(|(u, s)| (u.to_owned(), s)));
        };
        check(json!({}), None);
        check(json!({"prometheus.io/scrape": "true"}), Some(("http://10.42.0.7:8080/metrics", 5)));
        check(
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": "9", "prometheus.io/path": "m",
                "binnacle.io/scrape-interval": "1s"}),
            Some(("http://10.42.0.7:9/m", 1)),
        );
        check(json!({"prometheus.io/scrape": "true", "prometheus.io/port": "x"}), None);
    }
}
