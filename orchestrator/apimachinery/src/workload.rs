//! Which workload a pod belongs to: its Deployment rather than its ReplicaSet.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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
}
