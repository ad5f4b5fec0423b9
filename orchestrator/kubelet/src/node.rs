//! The Node object and its Lease.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node as NodeObject, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use signal::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error};

/// How often the lease is renewed; the node counts as gone after 40 s without.
const RENEW: Duration = Duration::from_secs(10);
/// How often conditions are sent even if nothing changed, in renewals (5 minutes).
const STATUS_EVERY: u32 = 30;
/// Below this the node reports pressure.
const MEMORY_LEFT: i64 = 100 << 20;
const DISK_LEFT_PERCENT: u64 = 10;

/// What the machine has.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Thousandths of a core.
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    disk: u64,
    runtime_version: String,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// A field of /proc/meminfo in bytes.
fn meminfo(field: &str) -> i64 {
    let text = read("/proc/meminfo");
    let line = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<i64>().ok());
    kib.unwrap_or(0) * 1024
}

fn disk(config: &Config) -> (u64, u64) {
    match nix::sys::statvfs::statvfs(&config.data_dir) {
        Ok(s) => (s.blocks() * s.fragment_size(), s.blocks_available() * s.fragment_size()),
        Err(_) => (0, 0),
    }
}

impl Machine {
    pub(crate) fn look(config: &Config, runtime_version: String) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Machine {
            cpu: i64::try_from(cpus).unwrap_or(1) * 1000,
            memory: meminfo("MemTotal"),
            disk: disk(config).0,
            runtime_version,
        }
    }

    fn resources(&self, config: &Config, memory: i64) -> BTreeMap<String, Quantity> {
        [
            ("cpu", (self.cpu / 1000).to_string()),
            ("memory", format!("{}Ki", memory / 1024)),
            ("ephemeral-storage", format!("{}Ki", self.disk / 1024)),
            ("pods", config.max_pods.to_string()),
            ("hugepages-1Gi", "0".to_owned()),
            ("hugepages-2Mi", "0".to_owned()),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), Quantity(v)))
        .collect()
    }

    fn info(&self) -> NodeSystemInfo {
        let os = read("/etc/os-release");
        let pretty = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
        NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            container_runtime_version: format!("containerd://{}", self.runtime_version),
            kernel_version: read("/proc/sys/kernel/osrelease"),
            kube_proxy_version: String::new(),
            kubelet_version: concat!("v1.35.0+binnacle-", env!("CARGO_PKG_VERSION")).to_owned(),
            machine_id: read("/etc/machine-id"),
            operating_system: "linux".to_owned(),
            os_image: pretty.trim_matches('"').to_owned(),
            system_uuid: read("/sys/class/dmi/id/product_uuid"),
            ..NodeSystemInfo::default()
        }
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where directories for claims are made: the class `local-path` asks.
const LOCAL_VOLUMES: &str = "binnacle.io/local-volumes";

fn annotations(config: &Config) -> BTreeMap<String, String> {
    [(LOCAL_VOLUMES.to_owned(), config.local_volumes_dir().display().to_string())].into()
}

fn labels(config: &Config) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

fn conditions(config: &Config, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let now = crate::status::time(now);
    let memory = meminfo("MemAvailable") < MEMORY_LEFT;
    let (total, free) = disk(config);
    let disk = total > 0 && free * 100 / total < DISK_LEFT_PERCENT;
    let make = |kind: &str, met: bool, reason: &str, message: &str| {
        let status = if met { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == kind && c.status == status);
        NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: before.and_then(|c| c.last_transition_time.clone()).or(Some(now.clone())),
        }
    };
    let pressure = |kind: &str, met: bool, what: &str, yes: &str, no: &str| {
        let has = if met { "has" } else { "has no" };
        let message = if kind == "PIDPressure" {
            "kubelet has sufficient PID available".to_owned()
        } else if met {
            format!("kubelet {has} {what} pressure")
        } else {
            format!(
                "kubelet has {}",
                if what == "disk" { "no disk pressure" } else { "sufficient memory available" }
            )
        };
        make(kind, met, if met { yes } else { no }, &message)
    };
    vec![
        pressure(
            "MemoryPressure",
            memory,
            "memory",
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
        ),
        pressure("DiskPressure", disk, "disk", "KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
        pressure("PIDPressure", false, "PID", "KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
        make("Ready", true, "KubeletReady", "kubelet is posting ready status"),
    ]
}

fn status(config: &Config, machine: &Machine, port: u16, old: &NodeStatus, now: Timestamp) -> NodeStatus {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", config.node_ip.to_string()),
            address("Hostname", config.node_name.clone()),
        ]),
        capacity: Some(machine.resources(config, machine.memory)),
        allocatable: Some(machine.resources(config, machine.memory - MEMORY_LEFT)),
        conditions: Some(conditions(config, old.conditions.as_deref().unwrap_or_default(), now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        node_info: Some(machine.info()),
        ..NodeStatus::default()
    }
}

/// Makes or completes the Node, with a Ready status.
pub(crate) async fn register(
    client: &Client,
    config: &Config,
    machine: &Machine,
    port: u16,
) -> Result<NodeObject, Error> {
    let api = Api::<NodeObject>::all(client.clone());
    let name = &config.node_name;
    let now = config.clock.now();
    let old = match api.get_opt(name).await? {
        Some(n) => {
            let body = json!({"metadata": {"labels": labels(config), "annotations": annotations(config)}});
            api.patch(name, &PatchParams::default(), &Patch::Merge(body)).await?;
            n
        }
        None => {
            let node = NodeObject {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some(labels(config)),
                    annotations: Some(annotations(config)),
                    ..ObjectMeta::default()
                },
                spec: Some(NodeSpec {
                    pod_cidr: Some(config.network.pod_cidr.to_string()),
                    pod_cidrs: Some(vec![config.network.pod_cidr.to_string()]),
                    ..NodeSpec::default()
                }),
                status: Some(status(config, machine, port, &NodeStatus::default(), now)),
            };
            match api.create(&PostParams::default(), &node).await {
                Ok(n) => n,
                Err(e) if client::error::is_already_exists(&e) => api.get(name).await?,
                Err(e) => return Err(e.into()),
            }
        }
    };
    send_status(&api, config, machine, port, &old).await?;
    Ok(old)
}

async fn send_status(
    api: &Api<NodeObject>,
    config: &Config,
    machine: &Machine,
    port: u16,
    old: &NodeObject,
) -> Result<(), Error> {
    let before = old.status.clone().unwrap_or_default();
    let body = json!({"status": status(config, machine, port, &before, config.clock.now())});
    api.patch_status(&config.node_name, &PatchParams::default(), &Patch::Merge(body)).await?;
    Ok(())
}

/// Renews the lease and keeps the conditions true until the token's word.
pub(crate) async fn keep(
    client: Client,
    config: Config,
    machine: Machine,
    port: u16,
    node: NodeObject,
    stop: CancellationToken,
) {
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    let nodes = Api::<NodeObject>::all(client.clone());
    let mut count = 0u32;
    let mut last: Vec<String> = Vec::new();
    loop {
        if let Err(e) = renew(&leases, &config, &node).await {
            tracing::warn!(error = %e, "renewing the node's lease; trying again");
        }
        let flags: Vec<String> =
            conditions(&config, &[], Timestamp(0)).into_iter().map(|c| c.status).collect();
        if count % STATUS_EVERY == STATUS_EVERY - 1 || (!last.is_empty() && flags != last) {
            let sent = match nodes.get_opt(&config.node_name).await {
                Ok(Some(n)) => send_status(&nodes, &config, &machine, port, &n).await,
                // Somebody deleted it while we live: it comes back, as upstream's does.
                Ok(None) => register(&client, &config, &machine, port).await.map(|_| ()),
                Err(e) => Err(e.into()),
            };
            if let Err(e) = sent {
                tracing::warn!(error = %e, "sending the node's status; trying again");
            }
        }
        last = flags;
        count = count.wrapping_add(1);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEW) => {}
        }
    }
}

async fn renew(api: &Api<Lease>, config: &Config, node: &NodeObject) -> Result<(), Error> {
    let now = jiff::Timestamp::from_nanosecond(i128::from(config.clock.now().nanos()))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let now = MicroTime(now);
    let patch = json!({"spec": {"renewTime": now, "holderIdentity": config.node_name}});
    match api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => return Ok(()),
        Err(e) if client::error::is_not_found(&e) => {}
        Err(e) => return Err(e.into()),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: config.node_name.clone(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(config.node_name.clone()),
            lease_duration_seconds: Some(40),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await?;
    Ok(())
}
