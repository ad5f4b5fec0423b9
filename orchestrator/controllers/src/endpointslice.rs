//! EndpointSlice: lists the pods behind each service (kubernetes: pkg/controller/endpointslice).

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::selector::Selector;
use client::{Key, Reconcile, WorkQueue};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Error};
use crate::owner::{controller_ref, is_controlled_by};
use crate::pod;

/// Endpoints in one slice at most (kube-controller-manager `--max-endpoints-per-slice`).
const PER_SLICE: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";

#[derive(Debug, Default, PartialEq)]
struct Plan {
    create: Vec<EndpointSlice>,
    update: Vec<EndpointSlice>,
    delete: Vec<String>,
}

/// `pods` are all of the namespace; `slices` those that this controller made for the service.
fn plan(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let spec = service.spec.clone().unwrap_or_default();
    let selected = spec.selector.filter(|s| !s.is_empty());
    let Some(selector) = selected.filter(|_| spec.type_.as_deref() != Some("ExternalName")) else {
        plan.delete = slices.iter().map(|s| s.name_any()).collect();
        return plan;
    };
    if service.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let selector = Selector::from_map(&selector);
    let publish_unready = spec.publish_not_ready_addresses.unwrap_or(false);
    // Pods may give the same named port different numbers: each set of numbers is a slice of its own.
    /// Name, protocol and number of each port.
    type Ports = Vec<(Option<String>, String, i32)>;
    let mut groups: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
    for p in pods {
        if !selector.matches_labels(p.metadata.labels.as_ref())
            || matches!(pod::phase(p), "Succeeded" | "Failed")
        {
            continue;
        }
        let Some(ip) = p.status.as_ref().and_then(|s| s.pod_ip.clone()).filter(|ip| !ip.is_empty()) else {
            continue;
        };
        let ports: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|sp| {
                let protocol = sp.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                let number = target_port(p, sp.target_port.as_ref(), sp.port, &protocol)?;
                Some((sp.name.clone(), protocol, number))
            })
            .collect();
        let terminating = p.metadata.deletion_timestamp.is_some();
        let serving = pod::is_ready(p);
        let pod_spec = p.spec.clone().unwrap_or_default();
        groups.entry(ports).or_default().push(Endpoint {
            addresses: vec![ip],
            conditions: Some(EndpointConditions {
                ready: Some(publish_unready || serving && !terminating),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: pod_spec.hostname.filter(|_| pod_spec.subdomain == service.metadata.name),
            node_name: pod_spec.node_name,
            target_ref: Some(p.object_ref(&())).map(|mut r| {
                r.api_version = None;
                r.resource_version = None;
                r
            }),
            ..Endpoint::default()
        });
    }
    let mut wanted: Vec<(Vec<EndpointPort>, Vec<Endpoint>)> = Vec::new();
    for (ports, mut endpoints) in groups {
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        let ports: Vec<EndpointPort> = ports
            .into_iter()
            .map(|(name, protocol, port)| EndpointPort {
                name: Some(name.unwrap_or_default()),
                protocol: Some(protocol),
                port: Some(port),
                app_protocol: None,
            })
            .collect();
        wanted.extend(endpoints.chunks(PER_SLICE).map(|c| (ports.clone(), c.to_vec())));
    }
    if wanted.is_empty() {
        wanted.push((Vec::new(), Vec::new()));
    }
    let mut free: Vec<&Arc<EndpointSlice>> = slices.iter().collect();
    for (ports, endpoints) in wanted {
        let i =
            free.iter().position(|s| s.ports.as_ref() == Some(&ports)).or((!free.is_empty()).then_some(0));
        match i.map(|i| free.swap_remove(i)) {
            Some(there) => {
                let mut slice = (**there).clone();
                slice.ports = Some(ports);
                slice.endpoints = endpoints;
                if slice.endpoints != there.endpoints || slice.ports != there.ports {
                    plan.update.push(slice);
                }
            }
            None => plan.create.push(EndpointSlice {
                metadata: ObjectMeta {
                    generate_name: Some(format!("{}-", service.name_any())),
                    namespace: service.namespace(),
                    labels: Some(labels(service)),
                    owner_references: Some(vec![controller_ref(service)]),
                    ..ObjectMeta::default()
                },
                address_type: "IPv4".to_owned(),
                endpoints,
                ports: Some(ports),
            }),
        }
    }
    plan.delete = free.iter().map(|s| s.name_any()).collect();
    plan
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None") {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    labels
}

fn target_port(pod: &Pod, target: Option<&IntOrString>, port: i32, protocol: &str) -> Option<i32> {
    match target {
        None => Some(port),
        Some(IntOrString::Int(0)) => Some(port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            spec.containers
                .iter()
                .flat_map(|c| c.ports.iter().flatten())
                .find(|p| {
                    p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
                })
                .map(|p| p.container_port)
        }
    }
}

pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let queue = WorkQueue::new("endpointslice");
    let services = context.informers.of::<Service>();
    let pods = context.informers.of::<Pod>();
    let slices = context.informers.of::<EndpointSlice>();
    let q = queue.clone();
    services.on_change(move |c| q.add(Key::of(&**c.object())));
    let (q, s) = (queue.clone(), services.clone());
    pods.on_change(move |c| {
        // Its labels may have changed: services that chose the old ones count too.
        for service in s.list_in(&c.object().namespace().unwrap_or_default()) {
            let Some(selector) = service.spec.as_ref().and_then(|s| s.selector.as_ref()) else { continue };
            let selector = Selector::from_map(selector);
            if [&c.old, &c.new]
                .into_iter()
                .flatten()
                .any(|p| selector.matches_labels(p.metadata.labels.as_ref()))
            {
                q.add(Key::of(&*service));
            }
        }
    });
    let q = queue.clone();
    slices.on_change(move |c| {
        let slice = c.object();
        if let Some(name) = slice.labels().get(SERVICE_NAME) {
            q.add(Key::new(slice.namespace().unwrap_or_default(), name));
        }
    });
    services.synced().await;
    pods.synced().await;
    slices.synced().await;
    queue.run(2, stop, move |key| reconcile(context.clone(), key)).await;
}

async fn reconcile(context: Context, key: Key) -> Result<Reconcile, Error> {
    let Some(service) = context.informers.of::<Service>().get(&key) else { return Ok(Reconcile::Done) };
    let api: Api<EndpointSlice> = Api::namespaced(context.client(), &key.namespace);
    // Services without selector have slices of their user's making: only ours are touched.
    let slices: Vec<_> = context
        .informers
        .of::<EndpointSlice>()
        .list_in(&key.namespace)
        .into_iter()
        .filter(|s| {
            is_controlled_by(&s.metadata, &*service)
                && s.labels().get(MANAGED_BY).map(String::as_str) == Some(MANAGER)
        })
        .collect();
    let plan = plan(&service, &context.informers.of::<Pod>().list_in(&key.namespace), &slices);
    for slice in plan.create {
        api.create(&PostParams::default(), &slice).await?;
    }
    for slice in plan.update {
        api.replace(&slice.name_any(), &PostParams::default(), &slice).await?;
    }
    for name in plan.delete {
        client::error::optional(api.delete(&name, &DeleteParams::default()).await)?;
    }
    Ok(Reconcile::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(spec: serde_json::Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "shop", "uid": "s1"}, "spec": spec}),
        )
        .expect("a service")
    }

    fn a_pod(name: &str, ip: &str, ready: bool, port: i32) -> Arc<Pod> {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"phase": "Running", "podIP": ip,
                "conditions": [{"type": "Ready", "status": if ready {"True"} else {"False"}}]}
        }));
        Arc::new(pod.expect("a pod"))
    }

    #[test]
    fn ready_pods_are_ready_endpoints_and_named_ports_are_looked_up() {
        let s = service(
            json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}),
        );
        let p = plan(&s, &[a_pod("a", "10.0.0.2", true, 8080), a_pod("b", "10.0.0.3", false, 8080)], &[]);
        assert_eq!(p.create.len(), 1);
        let ready: Vec<_> =
            p.create[0].endpoints.iter().map(|e| e.conditions.as_ref().and_then(|c| c.ready)).collect();
        assert_eq!(ready, [Some(true), Some(false)]);
        assert_eq!(p.create[0].ports.as_ref().expect("ports")[0].port, Some(8080));
    }

    #[test]
    fn pods_with_other_port_numbers_get_a_slice_of_their_own() {
        let s = service(json!({"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}));
        let p = plan(&s, &[a_pod("a", "10.0.0.2", true, 8080), a_pod("b", "10.0.0.3", true, 9090)], &[]);
        assert_eq!(p.create.len(), 2);
    }

    #[test]
    fn run_twice_changes_nothing() {
        let s = service(json!({"selector": {"app": "web"}, "ports": [{"port": 80}]}));
        let pods = [a_pod("a", "10.0.0.2", true, 8080)];
        let made: Vec<_> = plan(&s, &pods, &[]).create.into_iter().map(Arc::new).collect();
        assert_eq!(plan(&s, &pods, &made), Plan::default());
    }

    #[test]
    fn a_service_without_selector_is_left_alone() {
        let s = service(json!({"ports": [{"port": 80}]}));
        assert_eq!(plan(&s, &[a_pod("a", "10.0.0.2", true, 8080)], &[]), Plan::default());
    }
}
