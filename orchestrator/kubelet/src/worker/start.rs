//! Starts one attempt of one container: image, environment, spec, snapshot, task.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::Api;
use tokio::sync::watch;
use tracing::Instrument;

use super::{Worker, facts, find_container, host_network, span};
use crate::container::{self, Surroundings};
use crate::images::{Credential, LocalImage, normalise};
use crate::plan::{Backoff, Held, spec_hash};
use crate::probes::duration_text;
use crate::runtime::{Identity, State, layers, resolve_user};
use crate::{Error, environment, lifecycle, quantity};

const PULL_BACKOFF_FIRST: Duration = Duration::from_secs(10);
const PULL_BACKOFF_MOST: Duration = Duration::from_secs(300);
/// How long a configuration error waits before the next look.
const CONFIG_RETRY: Duration = Duration::from_secs(10);

/// Ends when the pod is to go: work for it is given up then.
async fn deleted(mut pod: watch::Receiver<Arc<Pod>>) {
    loop {
        if pod.borrow_and_update().metadata.deletion_timestamp.is_some() || pod.changed().await.is_err() {
            return;
        }
    }
}

impl Worker {
    pub(super) async fn start(&mut self, pod: &Arc<Pod>, name: &str, attempt: u32) -> Result<(), Error> {
        let Some(c) = find_container(pod, name) else { return Ok(()) };
        self.held.remove(name);
        let gone = self.pod.clone();
        let done = tokio::select! {
            r = self.try_start(pod, &c, attempt) => r,
            () = deleted(gone) => return Ok(()),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Error::Config(message)) => {
                self.node.events.warning(pod, Some(name), "Failed", format!("Error: {message}"));
                let until = self.node.now().saturating_add(CONFIG_RETRY);
                self.held
                    .insert(name.to_owned(), Held { until, reason: "CreateContainerConfigError", message });
                Ok(())
            }
            Err(e) => {
                self.node.events.warning(pod, Some(name), "Failed", format!("Error: {e}"));
                let until = self.node.now().saturating_add(CONFIG_RETRY);
                let held = Held { until, reason: "CreateContainerError", message: e.to_string() };
                self.held.insert(name.to_owned(), held);
                Ok(())
            }
        }
    }

    async fn try_start(&mut self, pod: &Arc<Pod>, c: &Container, attempt: u32) -> Result<(), Error> {
        let node = self.node.clone();
        let Some(image) = self.image(pod, c).await? else { return Ok(()) };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let identity = Identity {
            pod_uid: self.uid.clone(),
            pod_name: pod.metadata.name.clone().unwrap_or_default(),
            namespace,
            container: c.name.clone(),
            attempt,
            spec_hash: spec_hash(c),
            image: image.name.clone(),
            image_id: image.id.clone(),
            cgroup: quantity::cgroup(&node.config.cgroup_root, pod),
            workload: apimachinery::workload::of(&pod.metadata).map(|(_, n)| n).unwrap_or_default(),
        };
        if attempt > 0 {
            self.count_restart(&c.name);
        }
        let host_ip = node.config.node_ip.to_string();
        let pod_ip = self.pod_ip(pod).map(|i| i.to_string()).unwrap_or_default();
        let facts = facts(&node, pod, &host_ip, &pod_ip);
        let create = async {
            let (rootfs, mut env) = tokio::try_join!(
                node.runtime.prepare(&identity, &image),
                environment::resolve(&node.client, &facts, c)
            )?;
            self.inject_telemetry(pod, c, &mut env);
            if !host_network(pod) {
                env.entry("HOSTNAME".to_owned()).or_insert_with(|| container::hostname(pod));
            }
            let context = c.security_context.as_ref();
            let pod_context = pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
            let user = resolve_user(
                &layers(&rootfs),
                image.config.user().as_deref().unwrap_or(""),
                context.and_then(|c| c.run_as_user).or(pod_context.and_then(|c| c.run_as_user)),
                context.and_then(|c| c.run_as_group).or(pod_context.and_then(|c| c.run_as_group)),
            )?;
            let pod_dir = node.config.pod_dir(&self.uid);
            let surroundings = Surroundings {
                pod,
                pod_dir: &pod_dir,
                volumes: &self.volumes,
                namespaces: self.addr.as_ref().map(|a| a.namespaces.clone()),
                cgroup: format!("{}/{}", identity.cgroup, identity.id()),
                memory_capacity: node.memory,
                attempt,
                sees: self.target_of(pod, &c.name)?,
            };
            let (ask, log) = container::ask(&surroundings, c, &image, &user, &env)?;
            node.runtime.create(&identity, &ask, rootfs, log).await
        }
        .instrument(span(pod, "create container"));
        let id = match create.await {
            Ok(id) => id,
            Err(Error::Containerd { source, .. })
                if source.message().contains("OCI runtime create failed") =>
            {
                // What runc refuses (a command that is not there) is the container's own failure.
                let message = format!("failed to create containerd task: {}", source.message());
                self.fail_start(pod, &identity, message).await;
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        node.events.normal(pod, Some(&c.name), "Created", "Container created".to_owned());
        let started = node.runtime.start(&id).instrument(span(pod, "start container")).await;
        if let Err(e) = started {
            self.fail_start(pod, &identity, e.to_string()).await;
            return Ok(());
        }
        // Sidecars and containers follow their pod from here; what it says may be newer than what was made.
        self.limits.insert(id.clone(), quantity::limits(c));
        node.events.normal(pod, Some(&c.name), "Started", "Container started".to_owned());
        self.remove_old(&identity).await;
        if let Some(hook) = c.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
            let ip = self.addr.as_ref().map_or(node.config.node_ip, |a| a.ip);
            if let Err(why) = lifecycle::run_hook(&node.runtime, &id, c, hook, ip).await {
                // The answer may hold secrets: it stays out of the event, as upstream has it.
                tracing::debug!(pod = ?pod.metadata.name, container = c.name, why, "a postStart hook failed");
                let note = "PostStartHook failed".to_owned();
                node.events.warning(pod, Some(&c.name), "FailedPostStartHook", note);
                let message = "FailedPostStartHook".to_owned();
                self.condemned.insert(c.name.clone(), message);
            }
        }
        Ok(())
    }

    /// The process whose neighbours an ephemeral container sees, if it is to.
    fn target_of(&self, pod: &Pod, name: &str) -> Result<Option<u32>, Error> {
        let mut guests = pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
        let target = guests.find(|e| e.name == name).and_then(|e| e.target_container_name.as_deref());
        let Some(target) = target.filter(|t| !t.is_empty()) else { return Ok(None) };
        let running = self.node.runtime.of_pod(&self.uid).into_iter().find_map(|r| match r.state {
            State::Running { pid, .. } if r.identity.container == target && pid > 0 => Some(pid),
            _ => None,
        });
        running.map(Some).ok_or_else(|| {
            Error::Config(format!("couldn't find running container of the same pod as target: {target:?}"))
        })
    }

    async fn fail_start(&self, pod: &Arc<Pod>, identity: &Identity, message: String) {
        self.node.events.warning(pod, Some(&identity.container), "Failed", format!("Error: {message}"));
        self.node.runtime.fail(identity, 128, message).await;
    }

    fn count_restart(&mut self, name: &str) {
        let now = self.node.now();
        let finished = self.node.runtime.of_pod(&self.uid).into_iter().rev().find_map(|r| match r.state {
            State::Exited(e) if r.identity.container == name => Some(e.finished_at),
            _ => None,
        });
        let before = self.backoff.get(name).copied();
        self.backoff.insert(name.to_owned(), Backoff::next(before, finished.unwrap_or(now), now));
    }

    /// Keeps one ended attempt of a container: what `lastState` shows.
    async fn remove_old(&self, identity: &Identity) {
        for r in self.node.runtime.of_pod(&self.uid) {
            let older =
                r.identity.container == identity.container && r.identity.attempt + 1 < identity.attempt;
            if older && let Err(e) = self.node.runtime.delete(&r.id).await {
                tracing::warn!(id = r.id, error = %e, "removing an ended container");
            }
        }
    }

    /// Tells the application where to send its telemetry and who it is, unless it was told.
    fn inject_telemetry(
        &self,
        pod: &Pod,
        c: &Container,
        env: &mut std::collections::BTreeMap<String, String>,
    ) {
        let Some(endpoint) = &self.node.config.otlp_endpoint else { return };
        env.entry("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned()).or_insert_with(|| endpoint.clone());
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        let meta = &pod.metadata;
        env.entry("OTEL_RESOURCE_ATTRIBUTES".to_owned()).or_insert_with(|| {
            format!(
                "k8s.namespace.name={},k8s.pod.name={},k8s.pod.uid={},k8s.container.name={},k8s.node.name={}",
                text(&meta.namespace),
                text(&meta.name),
                text(&meta.uid),
                c.name,
                self.node.config.node_name
            )
        });
    }

    /// The image, present or pulled as the policy says; `None` if the container has to wait.
    async fn image(&mut self, pod: &Arc<Pod>, c: &Container) -> Result<Option<Arc<LocalImage>>, Error> {
        let node = self.node.clone();
        let image = c.image.as_deref().unwrap_or_default();
        if normalise(image).is_none() {
            let message = format!(
                "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
            );
            self.node.events.warning(pod, Some(&c.name), "InspectFailed", message.clone());
            self.node.events.warning(pod, Some(&c.name), "Failed", "Error: InvalidImageName".to_owned());
            let until = node.now().saturating_add(CONFIG_RETRY);
            self.held.insert(c.name.clone(), Held { until, reason: "InvalidImageName", message });
            return Ok(None);
        }
        let policy =
            c.image_pull_policy.as_deref().unwrap_or(if image.ends_with(":latest") || !image.contains(':') {
                "Always"
            } else {
                "IfNotPresent"
            });
        let present = node.images.get(image).await?;
        match (policy, present) {
            ("IfNotPresent" | "Never", Some(i)) => {
                let note = format!(
                    "Container image \"{image}\" already present on machine and can be accessed by the pod"
                );
                node.events.normal(pod, Some(&c.name), "Pulled", note);
                return Ok(Some(i));
            }
            ("Never", None) => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                node.events.warning(pod, Some(&c.name), "ErrImageNeverPull", message.clone());
                node.events.warning(pod, Some(&c.name), "Failed", "Error: ErrImageNeverPull".to_owned());
                let until = node.now().saturating_add(CONFIG_RETRY);
                self.held.insert(c.name.clone(), Held { until, reason: "ErrImageNeverPull", message });
                return Ok(None);
            }
            _ => {}
        }
        if let Some(h) = self.image_backoff.get(&c.name)
            && h.until > node.now()
        {
            node.events.normal(pod, Some(&c.name), "BackOff", format!("Back-off pulling image \"{image}\""));
            node.events.warning(pod, Some(&c.name), "Failed", "Error: ImagePullBackOff".to_owned());
            self.held.insert(c.name.clone(), h.clone());
            return Ok(None);
        }
        node.events.normal(pod, Some(&c.name), "Pulling", format!("Pulling image \"{image}\""));
        let started = signal::time::monotonic();
        let credentials = self.credentials(pod).await?;
        let pull = node.images.pull(image, &credentials).instrument(span(pod, "pull image"));
        let _timer = crate::metrics::operation("pull_image");
        match pull.await {
            Ok(i) => {
                let took = duration_text(signal::time::monotonic().duration_since(started));
                let note = format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {} bytes.",
                    i.size
                );
                node.events.normal(pod, Some(&c.name), "Pulled", note);
                self.image_backoff.remove(&c.name);
                self.image_delay.remove(&c.name);
                Ok(Some(i))
            }
            Err(e) => {
                let why = e.to_string();
                node.events.warning(
                    pod,
                    Some(&c.name),
                    "Failed",
                    format!("Failed to pull image \"{image}\": {why}"),
                );
                node.events.warning(pod, Some(&c.name), "Failed", "Error: ErrImagePull".to_owned());
                let delay = self
                    .image_delay
                    .get(&c.name)
                    .map_or(PULL_BACKOFF_FIRST, |d| (*d * 2).min(PULL_BACKOFF_MOST));
                self.image_delay.insert(c.name.clone(), delay);
                let now = node.now();
                let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {why}");
                let backoff = Held { until: now.saturating_add(delay), reason: "ImagePullBackOff", message };
                self.image_backoff.insert(c.name.clone(), backoff);
                // First the error itself, then the back-off.
                let until = now.saturating_add(Duration::from_secs(1));
                self.held.insert(c.name.clone(), Held { until, reason: "ErrImagePull", message: why });
                Ok(None)
            }
        }
    }

    /// What the pod's pull secrets hold. One that is missing does not stop the pull, but is said.
    async fn credentials(&self, pod: &Arc<Pod>) -> Result<Vec<Credential>, Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api = Api::<Secret>::namespaced(self.node.client.clone(), namespace);
        let (mut out, mut missing) = (Vec::new(), Vec::new());
        for r in pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()) {
            let Some(secret) = api.get_opt(&r.name).await? else {
                missing.push(r.name.as_str());
                continue;
            };
            let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key));
            if let Some(json) = data(".dockerconfigjson") {
                out.extend(Credential::from_docker_config(&json.0));
            } else if let Some(json) = data(".dockercfg") {
                out.extend(Credential::from_docker_cfg(&json.0));
            }
        }
        if !missing.is_empty() {
            let note = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.node.events.warning(pod, None, "FailedToRetrieveImagePullSecret", note);
        }
        Ok(out)
    }
}
