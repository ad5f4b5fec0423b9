//! What informers keep of a pod: what somebody who follows all pods asks for. Ten thousand pods as they are read take
//! 150 MB, most of it for what only their kubelet needs.

use std::any::Any;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use kube::Resource;

/// Leaves out, of any object, who manages its fields, and of pods what [`pod`] says.
pub(crate) fn slim<K: Resource<DynamicType = ()> + 'static>(o: &mut K) {
    o.meta_mut().managed_fields = None;
    if let Some(p) = (o as &mut dyn Any).downcast_mut::<Pod>() {
        pod(p);
    }
}

/// What runs in containers and how it is looked at, and volumes that no scheduler or controller has to do with. Lists
/// take the room they need: they were read without knowing how long they would be.
fn pod(p: &mut Pod) {
    if let Some(spec) = &mut p.spec {
        containers(spec);
        if let Some(all) = &mut spec.volumes {
            all.retain(is_storage);
            all.shrink_to_fit();
        }
        spec.volumes.take_if(|v| v.is_empty());
        spec.tolerations.iter_mut().for_each(Vec::shrink_to_fit);
    }
    if let Some(status) = &mut p.status {
        status.conditions.iter_mut().for_each(Vec::shrink_to_fit);
        let all = [&mut status.container_statuses, &mut status.init_container_statuses];
        all.into_iter().flatten().for_each(Vec::shrink_to_fit);
    }
}

fn containers(spec: &mut PodSpec) {
    for all in [Some(&mut spec.containers), spec.init_containers.as_mut()].into_iter().flatten() {
        all.iter_mut().for_each(container);
        all.shrink_to_fit();
    }
}

fn container(c: &mut Container) {
    let ports = c.ports.take().map(|mut p| {
        p.shrink_to_fit();
        p
    });
    *c = Container {
        name: std::mem::take(&mut c.name),
        image: c.image.take(),
        ports,
        resources: c.resources.take(),
        restart_policy: c.restart_policy.take(),
        ..Container::default()
    };
}

/// Volumes that bind a pod to a place or to a claim.
fn is_storage(v: &Volume) -> bool {
    let plain = v.config_map.is_some()
        || v.secret.is_some()
        || v.projected.is_some()
        || v.downward_api.is_some()
        || v.empty_dir.is_some();
    !plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn what_schedules_a_pod_stays_and_what_runs_in_it_goes() {
        let mut p: Pod = from_value(json!({
            "metadata": {"name": "a", "labels": {"x": "y"}, "managedFields": [{"manager": "m"}]},
            "spec": {
                "nodeName": "n",
                "containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 1}],
                    "resources": {"requests": {"cpu": "1"}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                    "livenessProbe": {"periodSeconds": 1}}],
                "initContainers": [{"name": "s", "restartPolicy": "Always", "command": ["x"]}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "p"}}, {"name": "t", "projected": {}}, {"name": "e", "emptyDir": {}}],
                "tolerations": [{"key": "k"}]
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        }))
        .expect("a pod");
        slim(&mut p);
        let kept: Pod = from_value(json!({
            "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {
                "nodeName": "n",
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}], "resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"name": "s", "restartPolicy": "Always"}],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "p"}}],
                "tolerations": [{"key": "k"}]
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        }))
        .expect("a pod");
        assert_eq!(p, kept);
    }
}
