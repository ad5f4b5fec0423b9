//! In-place resize: a container's limits follow its pod while it runs (KEP-1287; kubernetes: pkg/kubelet/allocation,
//! pkg/kubelet/kuberuntime doPodResizeAction).

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::Worker;
use crate::plan::{Observed, is_sidecar};
use crate::quantity;
use crate::runtime::{Limits, State};
use crate::status::Resize;

/// What a container was limited to when its status was written.
fn said(pod: &Pod, c: &Container, id: &str) -> Option<Limits> {
    let status = pod.status.as_ref()?;
    let mut all =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let own =
        all.find(|s| s.container_id.as_deref().and_then(|i| i.strip_prefix("containerd://")) == Some(id))?;
    let resources = Some(own.resources.clone()?);
    Some(quantity::limits(&Container { resources, ..c.clone() }))
}

impl Worker {
    /// Brings what runs to what the pod says now, as far as the node has it.
    pub(super) fn resize(&mut self, pod: &Arc<Pod>, o: &mut Observed) {
        let Some(spec) = &pod.spec else { return };
        let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
        let containers: Vec<&Container> = spec.containers.iter().chain(sidecars).collect();
        let running = |c: &Container| match o.latest.get(&c.name) {
            Some(r) if matches!(r.state, State::Running { .. }) => Some(r.id.clone()),
            _ => None,
        };
        for c in &containers {
            // Adopted: what the status says holds.
            if let Some(id) = running(c).filter(|id| !self.limits.contains_key(id))
                && let Some(limits) = said(pod, c, &id)
            {
                self.limits.insert(id, limits);
            }
        }
        let due: Vec<(&Container, String, Limits)> = containers
            .iter()
            .filter_map(|c| Some((*c, running(c)?, quantity::limits(c))))
            .filter(|(_, id, wanted)| self.limits.get(id) != Some(wanted))
            .collect();
        let mut resize = Resize::Done;
        if !due.is_empty() {
            resize = match self.refuse(pod) {
                Some((reason, message)) => Resize::Pending { reason, message },
                None => self.apply(pod, &due),
            };
        }
        self.deferred = matches!(resize, Resize::Pending { reason: "Deferred", .. });
        o.resize = resize;
        o.resized = containers
            .iter()
            .filter(|c| running(c).is_some_and(|id| self.limits.get(&id) == Some(&quantity::limits(c))))
            .map(|c| c.name.clone())
            .collect();
    }

    /// What can never be here, or not now.
    fn refuse(&self, pod: &Pod) -> Option<(&'static str, String)> {
        let wants = quantity::pod_limits(pod.spec.as_ref()?);
        let memory = quantity::pod_memory_request(pod.spec.as_ref()?);
        let cpu = wants.cpu_request.unwrap_or(0);
        let words = |name: &str, wanted: i64, has: i64| {
            format!("Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {has}")
        };
        if cpu > self.node.cpu {
            return Some(("Infeasible", words("cpu", cpu, self.node.cpu)));
        }
        if memory > self.node.memory {
            return Some(("Infeasible", words("memory", memory, self.node.memory)));
        }
        let (mut used_cpu, mut used_memory) = (0, 0);
        for other in self.node.neighbours().iter().filter(|p| p.metadata.uid != pod.metadata.uid) {
            let Some(spec) = &other.spec else { continue };
            used_cpu += quantity::pod_limits(spec).cpu_request.unwrap_or(0);
            used_memory += quantity::pod_memory_request(spec);
        }
        let short = |name: &str, wanted: i64, used: i64, has: i64| {
            format!(
                "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {has}"
            )
        };
        if cpu + used_cpu > self.node.cpu {
            return Some(("Deferred", short("cpu", cpu, used_cpu, self.node.cpu)));
        }
        (memory + used_memory > self.node.memory)
            .then(|| ("Deferred", short("memory", memory, used_memory, self.node.memory)))
    }

    /// The pod's cgroup is widened first and narrowed last, so that no container's limit lies beyond it.
    fn apply(&mut self, pod: &Arc<Pod>, due: &[(&Container, String, Limits)]) -> Resize {
        let Some(spec) = &pod.spec else { return Resize::Done };
        let node = self.node.clone();
        let hierarchy = node.runtime.hierarchy();
        let path = quantity::cgroup(&node.config.cgroup_root, pod);
        let whole = quantity::pod_limits(spec);
        let known = |id: &String| self.limits.contains_key(id);
        let asked = due.iter().any(|(_, id, _)| known(id));
        let open = Limits { cpu_limit: None, memory_limit: None, ..whole };
        if let Err(e) = hierarchy.update(&path, &open) {
            return Resize::Failed(e.to_string());
        }
        let mut failed = None;
        for (c, id, wanted) in due {
            let restarts = |name: &str| {
                let policy = c.resize_policy.iter().flatten().find(|p| p.resource_name == name);
                policy.is_some_and(|p| p.restart_policy == "RestartContainer")
            };
            if let Some(had) = self.limits.get(id) {
                let cpu = (had.cpu_request, had.cpu_limit) != (wanted.cpu_request, wanted.cpu_limit);
                if cpu && restarts("cpu") || had.memory_limit != wanted.memory_limit && restarts("memory") {
                    let message = format!("Container {} resize requires restart", c.name);
                    self.condemned.entry(c.name.clone()).or_insert(message);
                    continue;
                }
            }
            match hierarchy.update(&format!("{path}/{id}"), wanted) {
                Ok(()) => drop(self.limits.insert(id.clone(), *wanted)),
                Err(e) => failed = Some(e.to_string()),
            }
        }
        if let Err(e) = hierarchy.update(&path, &whole) {
            failed = Some(e.to_string());
        }
        match failed {
            Some(why) => Resize::Failed(why),
            None => {
                if asked {
                    let names: Vec<&str> = due.iter().map(|(c, ..)| c.name.as_str()).collect();
                    let note = format!("Pod resize completed: {}", names.join(", "));
                    node.events.normal(pod, None, "ResizeCompleted", note);
                }
                Resize::Done
            }
        }
    }
}
