//! Hooks, and the orderly end of a container: preStop, signal, patience, SIGKILL.

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::sync::watch;

use crate::probes;
use crate::runtime::Runtime;
use crate::worker::{Node, find_container};

/// One container's end.
pub(crate) struct Stop {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: watch::Receiver<Arc<Pod>>,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) ip: Ipv4Addr,
    /// What the probe that ended the container says of its grace.
    pub(crate) probe_grace: Option<Duration>,
    /// When the first container of this pod was told to stop, if all of them are.
    pub(crate) since: Option<Instant>,
}

/// Less than this a container never has, if it has any (kubelet: minimumGracePeriodInSeconds).
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// How long a pod's containers have: what its deletion says, else what its spec says.
fn grace(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or(pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds))
        .unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl Stop {
    /// Returns when the container does not run any more, or cannot be stopped.
    pub(crate) async fn run(self) {
        let started = signal::time::monotonic();
        // A sidecar is told after those it served: it has what they left, but never nothing.
        let used = self.since.map_or(Duration::ZERO, |s| started.duration_since(s));
        let probe_grace = self.probe_grace;
        let whole = move |pod: &Pod| {
            let deleted = pod.metadata.deletion_timestamp.is_some();
            let grace = probe_grace.filter(|_| !deleted).unwrap_or_else(|| grace(pod));
            if used.is_zero() { grace } else { grace.saturating_sub(used).max(grace.min(LEAST_GRACE)) }
        };
        let node = self.node.clone();
        let id = self.id.clone();
        let orderly = self.orderly();
        tokio::pin!(orderly);
        let mut pod = self.pod.clone();
        loop {
            let left = whole(&pod.borrow_and_update())
                .saturating_sub(signal::time::monotonic().duration_since(started));
            tokio::select! {
                () = &mut orderly => return,
                () = tokio::time::sleep(left) => break,
                // A second deletion may have shortened the grace.
                changed = pod.changed() => if changed.is_err() { break },
            }
        }
        if let Err(e) = node.runtime.kill(&id, libc::SIGKILL, true).await {
            tracing::warn!(id, error = %e, "killing a container");
        }
        node.runtime.wait_exit(&id).await;
    }

    async fn orderly(&self) {
        let pod = self.pod.borrow().clone();
        let container = find_container(&pod, &self.name);
        let lifecycle = container.as_ref().and_then(|c| c.lifecycle.as_ref());
        let hook = lifecycle.and_then(|l| l.pre_stop.as_ref());
        if let (Some(c), Some(hook)) = (&container, hook)
            && let Err(why) = run_hook(&self.node.runtime, &self.id, c, hook, self.ip).await
        {
            // The answer may hold secrets: it stays out of the event, as upstream has it.
            tracing::debug!(pod = ?pod.metadata.name, container = self.name, why, "a preStop hook failed");
            let note = "PreStopHook failed".to_owned();
            self.node.events.warning(&pod, Some(&self.name), "FailedPreStopHook", note);
        }
        let signal = self.stop_signal().await;
        if let Err(e) = self.node.runtime.kill(&self.id, signal, false).await {
            tracing::warn!(id = self.id, error = %e, "signalling a container");
        }
        self.node.runtime.wait_exit(&self.id).await;
    }

    /// The image's own stop signal, SIGTERM if it has none.
    async fn stop_signal(&self) -> i32 {
        let Some(record) = self.node.runtime.get(&self.id) else { return libc::SIGTERM };
        let image = self.node.images.get(&record.identity.image).await.ok().flatten();
        let name = image.and_then(|i| i.config.stop_signal().clone()).unwrap_or_default();
        parse_signal(&name).unwrap_or(libc::SIGTERM)
    }
}

fn parse_signal(name: &str) -> Option<i32> {
    if let Ok(n) = name.parse() {
        return Some(n);
    }
    let name = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    nix::sys::signal::Signal::from_str(&name).ok().map(|s| s as i32)
}

/// Runs a postStart or preStop hook; the error says why it failed.
pub(crate) async fn run_hook(
    runtime: &Runtime,
    id: &str,
    c: &Container,
    hook: &LifecycleHandler,
    ip: Ipv4Addr,
) -> Result<(), String> {
    /// A hook is bounded by the pod's grace where it is a preStop; a postStart by this.
    const MOST: Duration = Duration::from_secs(600);
    if let Some(e) = &hook.exec {
        return probes::exec(runtime, id, e.command.clone().unwrap_or_default(), MOST).await.map(|_| ());
    }
    if let Some(h) = &hook.http_get {
        return probes::http_hook(c, h, ip, MOST).await;
    }
    if let Some(s) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(s.seconds).unwrap_or(0))).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        assert_eq!(parse_signal("SIGQUIT"), Some(libc::SIGQUIT));
        assert_eq!(parse_signal("INT"), Some(libc::SIGINT));
        assert_eq!(parse_signal("9"), Some(9));
        assert_eq!(parse_signal(""), None);
    }
}
