//! Pod address → identity.

use std::net::IpAddr;
use std::sync::Arc;

use client::Informers;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use signal::{Attributes, Identities, Identity, Labels};

/// Who a pod is, in Prometheus' and OpenTelemetry's words.
pub fn identity_of(pod: &Pod) -> Identity {
    let workload = apimachinery::workload::of(&pod.metadata);
    let spec = pod.spec.as_ref();
    let namespace = pod.namespace().unwrap_or_default();
    let node = spec.and_then(|s| s.node_name.clone()).unwrap_or_default();
    let account = spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default();
    // With one container the sender is certain; with several the address does not tell.
    let container = spec.filter(|s| s.containers.len() == 1).map(|s| s.containers[0].name.clone());
    let name = pod.name_any();
    let labels = Labels::from_pairs([
        ("namespace", namespace.as_str()),
        ("pod", &name),
        ("node", &node),
        ("service_account", &account),
        ("container", container.as_deref().unwrap_or("")),
        ("workload", workload.as_ref().map_or("", |(_, n)| n.as_str())),
    ]);
    let mut resource = Attributes::default();
    let mut set = |k: &str, v: &str| {
        if !v.is_empty() {
            resource.set(k, v);
        }
    };
    set("k8s.namespace.name", &namespace);
    set("k8s.pod.name", &name);
    set("k8s.pod.uid", pod.uid().as_deref().unwrap_or(""));
    set("k8s.node.name", &node);
    set("k8s.container.name", container.as_deref().unwrap_or(""));
    if let Some((kind, name)) = &workload {
        set(&format!("k8s.{}.name", kind.to_ascii_lowercase()), name);
    }
    Identity { labels, resource }
}

pub(crate) fn watch(informers: &Informers, identities: Arc<Identities>) {
    informers.of::<Pod>().on_change(move |c| {
        let pod = c.object();
        // A pod on the host's network shares its address with everything there.
        let on_host = pod.spec.as_ref().and_then(|s| s.host_network).unwrap_or(false);
        let ip = |p: &Pod| p.status.as_ref()?.pod_ip.as_ref()?.parse::<IpAddr>().ok();
        if on_host {
            return;
        }
        let finished =
            pod.status.as_ref().is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")));
        match (&c.new, ip(pod)) {
            (Some(p), Some(ip)) if !finished => {
                identities.set(ip, identity_of(p));
            }
            (_, Some(ip)) => {
                // The address may have been given to another pod meanwhile.
                let ours = identities.get(ip).is_some_and(|i| {
                    i.labels.get("pod") == Some(&pod.name_any())
                        && i.labels.get("namespace") == pod.namespace().as_deref()
                });
                if ours {
                    identities.remove(ip);
                }
            }
            _ => {}
        }
    });
}
