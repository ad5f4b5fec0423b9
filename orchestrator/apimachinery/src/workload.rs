//! Which workload a pod belongs to: its Deployment rather than its ReplicaSet; and amounts of pods.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Put on every pod of a Deployment; also the end of its ReplicaSet's name.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// Kind and name of the workload; `None` for a pod that nobody controls.
pub fn of(pod: &ObjectMeta) -> Option<(String, String)> {
    let owner = pod.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    let hash = pod.labels.as_ref().and_then(|l| l.get(TEMPLATE_HASH));
    let deployment = hash.and_then(|h| owner.name.strip_suffix(h.as_str())?.strip_suffix('-'));
    Some(match deployment.filter(|_| owner.kind == "ReplicaSet") {
        Some(name) => ("Deployment".to_owned(), name.to_owned()),
        None => (owner.kind.clone(), owner.name.clone()),
    })
}

/// A number of pods, given as such or as a percentage of `all`. What is no percentage is 0.
pub fn scaled(amount: &IntOrString, all: i32, up: bool) -> i32 {
    match amount {
        IntOrString::Int(n) => *n,
        IntOrString::String(s) => {
            let percent: i64 = s.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let hundredths = percent * i64::from(all);
            let n = if up { hundredths + 99 } else { hundredths };
            i32::try_from(n / 100).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployments_pod_belongs_to_the_deployment() {
        let check = |kind: &str, name: &str, hash: Option<&str>, expect: Option<(&str, &str)>| {
            let meta = serde_json::from_value(serde_json::json!({
                "labels": hash.map(|h| serde_json::json!({"pod-template-hash": h})),
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}]
            }));
            let got = of(&meta.expect("metadata"));
            assert_eq!(got, expect.map(|(k, n)| (k.to_owned(), n.to_owned())), "{kind} {name}");
        };
        check("ReplicaSet", "web-abc", Some("abc"), Some(("Deployment", "web")));
        check("ReplicaSet", "web-abc", None, Some(("ReplicaSet", "web-abc")));
        check("Job", "one", None, Some(("Job", "one")));
        assert_eq!(of(&ObjectMeta::default()), None);
    }

    #[test]
    fn percentages_round_as_asked() {
        let check = |text: &str, all: i32, up: bool, expect: i32| {
            assert_eq!(scaled(&IntOrString::String(text.to_owned()), all, up), expect, "{text} of {all}");
        };
        check("25%", 10, true, 3);
        check("25%", 10, false, 2);
        check("100%", 7, true, 7);
        check("x", 7, true, 0);
        assert_eq!(scaled(&IntOrString::Int(4), 7, true), 4);
    }
}
