//! ControllerRevisions: the templates a StatefulSet or DaemonSet had, so that `kubectl rollout undo` finds them
//! (kubernetes: pkg/controller/history).

use std::sync::Arc;

use client::Key;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};

use crate::context::{Context, Error};
use crate::deployment::template_hash;
use crate::owner::{controller_ref, is_controlled_by};

/// On pods and revisions: which template.
pub(crate) const HASH: &str = "controller-revision-hash";

/// What a patch to this revision would be.
fn data(template: &PodTemplateSpec) -> Result<Value, Error> {
    let mut template = serde_json::to_value(template)?;
    template["$patch"] = "replace".into();
    Ok(json!({"spec": {"template": template}}))
}

/// What is to be done so that the template has a revision, the newest.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It is the newest already.
    Is(String),
    /// An older one becomes the newest.
    Raise {
        name: String,
        revision: i64,
    },
    Create {
        revision: i64,
    },
}

fn plan(all: &[Arc<ControllerRevision>], data: &Value) -> Plan {
    let newest = all.iter().map(|r| r.revision).max().unwrap_or(0);
    let same = |r: &&Arc<ControllerRevision>| r.data.as_ref().is_some_and(|d| d.0 == *data);
    match all.iter().filter(same).max_by_key(|r| r.revision) {
        Some(r) if r.revision == newest => Plan::Is(r.name_any()),
        Some(r) => Plan::Raise { name: r.name_any(), revision: newest + 1 },
        None => Plan::Create { revision: newest + 1 },
    }
}

/// Names of revisions beyond the limit that no pod uses, oldest first.
fn surplus(all: &[Arc<ControllerRevision>], current: &str, pods: &[Arc<Pod>], limit: i32) -> Vec<String> {
    let used = |name: &str| {
        name == current
            || pods.iter().any(|p| p.labels().get(HASH).is_some_and(|h| name.ends_with(h.as_str())))
    };
    let mut old: Vec<&Arc<ControllerRevision>> = all.iter().filter(|r| !used(&r.name_any())).collect();
    old.sort_by_key(|r| r.revision);
    let keep = usize::try_from(limit).unwrap_or(0);
    old.iter().take(old.len().saturating_sub(keep)).map(|r| r.name_any()).collect()
}

/// Makes sure that the template has a revision; gives its name.
pub(crate) async fn sync<K>(
    context: &Context,
    owner: &K,
    template: &PodTemplateSpec,
    pods: &[Arc<Pod>],
    limit: i32,
) -> Result<String, Error>
where
    K: Resource<DynamicType = ()>,
{
    let namespace = owner.namespace().unwrap_or_default();
    let api: Api<ControllerRevision> = Api::namespaced(context.client(), &namespace);
    let cached = context.informers.of::<ControllerRevision>();
    let mut all = cached.list_in(&namespace);
    all.retain(|r| is_controlled_by(&r.metadata, owner));
    let data = data(template)?;
    let current = match plan(&all, &data) {
        Plan::Is(name) => name,
        Plan::Raise { name, revision } => {
            let patch = json!({"revision": revision});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            name
        }
        Plan::Create { revision } => {
            let hash = template_hash(&data, 0);
            let name = format!("{}-{hash}", owner.name_any());
            let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
            labels.insert(HASH.to_owned(), hash);
            let new = ControllerRevision {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some(namespace.clone()),
                    labels: Some(labels),
                    annotations: change_cause(owner),
                    owner_references: Some(vec![controller_ref(owner)]),
                    ..ObjectMeta::default()
                },
                data: Some(RawExtension(data)),
                revision,
            };
            match api.create(&PostParams::default(), &new).await {
                Ok(_) => {}
                // The cache was behind: it is the same template.
                Err(e) if client::error::is_conflict(&e) => {}
                Err(e) => return Err(e.into()),
            }
            name
        }
    };
    for name in surplus(&all, &current, pods, limit) {
        if cached.get(&Key::new(&namespace, &name)).is_some() {
            client::error::optional(api.delete(&name, &DeleteParams::default()).await.map(drop))?;
        }
    }
    Ok(current)
}

fn change_cause<K: Resource<DynamicType = ()>>(
    owner: &K,
) -> Option<std::collections::BTreeMap<String, String>> {
    const CAUSE: &str = "kubernetes.io/change-cause";
    let cause = owner.annotations().get(CAUSE)?;
    Some([(CAUSE.to_owned(), cause.clone())].into())
}

/// The hash in a revision's name, which pods carry.
pub(crate) fn hash_of(revision: &str) -> &str {
    revision.rsplit('-').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(name: &str, revision: i64, data: &str) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data: Some(RawExtension(json!(data))),
            revision,
        })
    }

    #[test]
    fn a_template_that_comes_back_is_the_newest_again() {
        let all = [revision("a-1", 1, "x"), revision("a-2", 2, "y")];
        assert_eq!(plan(&all, &json!("y")), Plan::Is("a-2".to_owned()));
        assert_eq!(plan(&all, &json!("x")), Plan::Raise { name: "a-1".to_owned(), revision: 3 });
        assert_eq!(plan(&all, &json!("z")), Plan::Create { revision: 3 });
        assert_eq!(plan(&[], &json!("z")), Plan::Create { revision: 1 });
    }

    #[test]
    fn old_ones_go_oldest_first_unless_pods_use_them() {
        let all = [
            revision("a-b", 1, "x"),
            revision("a-c", 2, "y"),
            revision("a-d", 3, "z"),
            revision("a-f", 4, "w"),
        ];
        let pod = serde_json::from_value(json!({"metadata": {"labels": {HASH: "b"}}})).expect("a pod");
        assert_eq!(surplus(&all, "a-f", &[Arc::new(pod)], 1), ["a-c"]);
    }
}
