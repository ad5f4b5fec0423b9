//! What services have of the cluster's network, as objects: the ServiceCIDR `kubernetes`, and an IPAddress for each
//! cluster IP. Addresses are given out under the write of a service (`admission.rs`); the objects follow
//! (kubernetes: pkg/registry/core/service/ipallocator, pkg/controller/servicecidrs).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::follow::Changes;
use crate::kinds::check::{parse_cidr, within};
use crate::kinds::ipaddress::GROUP;
use crate::kinds::{self, Served};
use crate::object;
use crate::registry::{DeleteOptions, Part, WriteContext};
use crate::server::ApiServer;

/// The ServiceCIDR of the network that services' addresses are given out of.
const DEFAULT: &str = "kubernetes";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const ALLOCATOR: &str = "ipallocator.k8s.io";

fn addresses() -> Served {
    kinds::by_resource(GROUP, "ipaddresses").expect("addresses are a kind")
}

fn networks() -> Served {
    kinds::by_resource(GROUP, "servicecidrs").expect("networks of services are a kind")
}

fn services() -> Served {
    kinds::by_resource("", "services").expect("services are a kind")
}

/// Follows services until the server stops.
pub(crate) async fn run(server: Arc<ApiServer>) {
    let kinds = [services().index, addresses().index, networks().index];
    let mut changes = Changes::of(&server, &kinds);
    while changes.next(&server).await {
        if let Err(e) = sync(&server).await {
            tracing::warn!(error = %e.message, "the addresses of services could not be written down, will be tried again");
            changes.again();
        }
    }
}

/// Brings the objects in line with the services.
pub(crate) async fn sync(server: &ApiServer) -> Result<()> {
    server.cache.fresh().await?;
    let (served, ctx) = (addresses(), context());
    // Addresses first: each was written behind its service, which then is in the later list.
    let mut there: HashMap<String, Value> = HashMap::new();
    for o in server.cache.list(served.index, None).objects {
        there.insert(o.name().to_owned(), o.value());
    }
    let wanted = wanted(server);
    for (ip, parent) in &wanted {
        if there.get(ip).is_none_or(|o| is_ours(o) && o["spec"]["parentRef"] != *parent) {
            if there.contains_key(ip) {
                gone(server.delete(&served, "", ip, &DeleteOptions::default(), &ctx).await)?;
            }
            made(server.create(&served, "", address(ip, parent), &ctx).await)?;
        }
    }
    for (ip, o) in there.iter().filter(|(ip, o)| is_ours(o) && !wanted.contains_key(*ip)) {
        if !object::is_deleting(o) {
            gone(server.delete(&served, "", ip, &DeleteOptions::default(), &ctx).await)?;
        }
    }
    sync_networks(server, &ctx).await
}

/// Addresses that somebody keeps from services by an object of his own.
pub(crate) fn reserved(server: &ApiServer) -> Vec<String> {
    let all = server.cache.list(addresses().index, None).objects;
    all.iter().filter(|o| !is_ours(&o.value())).map(|o| o.name().to_owned()).collect()
}

fn context() -> WriteContext {
    let mut ctx = WriteContext::default();
    "kube-apiserver".clone_into(&mut ctx.options.field_manager);
    ctx
}

fn made<T>(outcome: Result<T>) -> Result<()> {
    tolerate(outcome, 409)
}

fn gone<T>(outcome: Result<T>) -> Result<()> {
    tolerate(outcome, 404)
}

/// Another server on the same store was quicker.
fn tolerate<T>(outcome: Result<T>, code: u16) -> Result<()> {
    match outcome {
        Err(ApiError { code: c, .. }) if c == code => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn is_ours(o: &Value) -> bool {
    object::get(o, "metadata.labels").is_some_and(|l| l[MANAGED_BY] == ALLOCATOR)
}

/// Address → whose it is.
fn wanted(server: &ApiServer) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for o in server.cache.list(services().index, None).objects {
        let v = o.value();
        for ip in object::list(&v, "spec.clusterIPs").iter().filter_map(Value::as_str) {
            if ip.parse::<std::net::IpAddr>().is_ok() {
                let parent = json!({"resource": "services", "namespace": object::namespace(&v), "name": object::name(&v)});
                all.insert(ip.to_owned(), parent);
            }
        }
    }
    all
}

fn address(ip: &str, parent: &Value) -> Value {
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "metadata": {"name": ip, "labels": {FAMILY: family, MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": parent},
    })
}

async fn sync_networks(server: &ApiServer, ctx: &WriteContext) -> Result<()> {
    let served = networks();
    if server.cache.get(served.index, DEFAULT).is_none() {
        let o = json!({"metadata": {"name": DEFAULT}, "spec": {"cidrs": [server.config.service_cidr.to_string()]}});
        made(server.create(&served, "", o, ctx).await)?;
        server.cache.fresh().await?;
    }
    for o in server.cache.list(served.index, None).objects {
        let v = o.value();
        let leaving = object::is_deleting(&v) && !in_use(server, &v);
        if held(&v) == leaving {
            let mut change = |old: &Value| {
                let mut new = old.clone();
                let mut all = object::list(old, "metadata.finalizers").to_vec();
                all.retain(|f| f != FINALIZER);
                if !leaving {
                    all.push(FINALIZER.into());
                }
                object::metadata(&mut new).insert("finalizers".to_owned(), all.into());
                Ok(new)
            };
            // One that goes away takes no new finalizer.
            if leaving || !object::is_deleting(&v) {
                gone(server.update(&served, "", o.name(), ctx, Part::Main, &mut change).await)?;
            }
        }
        if leaving || ready(server, &v).is_none() {
            continue;
        }
        let mut change = |old: &Value| {
            let mut new = old.clone();
            if let Some(condition) = ready(server, old) {
                let mut all = object::list(old, "status.conditions").to_vec();
                all.retain(|c| c["type"] != "Ready");
                all.push(condition);
                object::child(&mut new, "status")["conditions"] = all.into();
            }
            Ok(new)
        };
        gone(server.update(&served, "", o.name(), ctx, Part::Status, &mut change).await)?;
    }
    Ok(())
}

fn held(o: &Value) -> bool {
    object::list(o, "metadata.finalizers").iter().any(|f| f == FINALIZER)
}

/// Whether an address lies in this network and in none that stays.
fn in_use(server: &ApiServer, o: &Value) -> bool {
    let contains = |o: &Value, ip: &std::net::IpAddr| {
        let length = if ip.is_ipv4() { 32 } else { 128 };
        let cidrs = object::list(o, "spec.cidrs").iter().filter_map(Value::as_str);
        cidrs.filter_map(parse_cidr).any(|cidr| within((*ip, length), cidr))
    };
    let others = server.cache.list(networks().index, None).objects;
    let others: Vec<Value> = others.iter().map(|o| o.value()).filter(|o| !object::is_deleting(o)).collect();
    let all = server.cache.list(addresses().index, None).objects;
    let mut ips = all.iter().filter_map(|a| a.name().parse().ok());
    ips.any(|ip| contains(o, &ip) && !others.iter().any(|other| contains(other, &ip)))
}

/// The condition `Ready` a network should have; `None` if it has it.
fn ready(server: &ApiServer, o: &Value) -> Option<Value> {
    let own = server.config.service_cidr.to_string();
    let (status, reason, message) = if object::is_deleting(o) {
        let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        ("False", "Terminating", why.to_owned())
    } else if object::list(o, "spec.cidrs").iter().any(|c| *c == *own) {
        ("True", "", "Kubernetes default Service CIDR is ready".to_owned())
    } else {
        let why = format!("the addresses of services are given out of {own} alone (--service-cidr)");
        ("False", "Unsupported", why)
    };
    let old = object::list(o, "status.conditions").iter().find(|c| c["type"] == "Ready");
    if old.is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == *message) {
        return None;
    }
    let since = old.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    Some(json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| object::rfc3339(server.now()).into())}))
}
